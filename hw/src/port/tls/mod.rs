//! A dialogue on a TCP connection that begins in clear and goes on in TLS 1.3.
//!
//! What it decides: whether the other side is the one that is meant. It is if its certificate is, to the byte, the one whose
//! SHA-256 the caller knows, and it has that certificate's key. Names, dates and who signed it are not looked at: they say
//! less, and a node that comes up does not know the time. Nothing of the dialogue is sent before that, and nothing
//! ever in clear.
//!
//! ```text
//! in clear     what asks for TLS, and one line that grants it, with nothing behind it
//! TLS 1.3      X25519, ChaCha20-Poly1305, a certificate of ECDSA on P-256; no other version, and no resumption
//! the dialogue
//! ```

mod provider;

use core::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, version,
};
use sha2::{Digest as _, Sha256};

use super::stream::{self, Wire};
use super::tcp;
use crate::dialogue::Dialogue;

/// How long it may take until the connection is encrypted.
const HANDSHAKE: Duration = Duration::from_secs(8);
/// The longest line that may grant TLS, in octets.
const LONGEST_LINE: usize = 512;
/// How much is read at once, in octets.
const PIECE: usize = 4096;

/// The SHA-256 of a certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How TLS is asked for in clear.
#[derive(Debug, Clone, Copy)]
pub struct Upgrade {
    /// What is sent, with its line end.
    pub ask: &'static str,
    /// The line that grants it, without its end.
    pub grant: &'static str,
}

/// Why there is no encrypted connection, or none any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// There is no connection at all.
    Tcp(tcp::Error),
    /// It was asked for TLS, and said this instead of granting it.
    NotGranted(String),
    /// Its certificate is another one.
    Certificate {
        /// The one that it should be.
        expected: Fingerprint,
        /// The one that it is.
        found: Fingerprint,
    },
    /// Its certificate is the right one, but is none of a kind that is understood; or its key is not at hand there.
    NotProven(String),
    /// It has no certificate, cipher or version that we have too.
    NothingInCommon,
    /// What it says is no TLS, or breaks its rules.
    Broken(String),
    /// The handshake came to no end in its time.
    Silent,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(error) => write!(f, "{error}"),
            Self::NotGranted(said) => write!(f, "it does not offer TLS, and is not spoken with in clear: {said:?}"),
            Self::Certificate { expected, found } => {
                write!(f, "another certificate: {found}, not {expected}")
            }
            Self::NotProven(why) => write!(f, "it cannot prove that its certificate is its own: {why}"),
            Self::NothingInCommon => {
                f.write_str("no TLS in common: it needs TLS 1.3 and a certificate of ECDSA on P-256 (nistp256)")
            }
            Self::Broken(why) => write!(f, "its TLS is broken: {why}"),
            Self::Silent => f.write_str("it does not go on with TLS"),
        }
    }
}

impl core::error::Error for Error {}

/// Carries the dialogue, as [`tcp::run`] does, once the connection is encrypted.
///
/// # Errors
/// There is no encrypted connection with the one that is meant, or none any more. The outcome of the dialogue is none of these.
pub fn run<D: Dialogue>(
    dialogue: D,
    device: SocketAddr,
    upgrade: Upgrade,
    expected: Fingerprint,
    deadline: Instant,
    cancel: &AtomicBool,
) -> Result<D::Outcome, Error> {
    let plain = tcp::Connection::open(device, deadline).map_err(Error::Tcp)?;
    let until = deadline.min(Instant::now() + HANDSHAKE);
    let mut encrypted = Encrypted::begin(plain, upgrade, expected, until)?;
    let outcome = stream::run(dialogue, &mut encrypted, deadline, cancel);
    // The other side need not wait for what does not come; if it has gone, that is no news.
    encrypted.tls.send_close_notify();
    let _ = encrypted.flush(Instant::now() + Duration::from_secs(1));
    outcome.map_err(|error| encrypted.why(&error))
}

/// An encrypted connection.
struct Encrypted {
    plain: tcp::Connection,
    tls: ClientConnection,
    /// What rustls refused, if it did.
    refused: Option<rustls::Error>,
    pin: Arc<Pin>,
}

impl Encrypted {
    fn begin(
        mut plain: tcp::Connection,
        upgrade: Upgrade,
        expected: Fingerprint,
        until: Instant,
    ) -> Result<Self, Error> {
        ask(&mut plain, upgrade, until)?;
        let pin = Arc::new(Pin { expected, found: OnceLock::new() });
        let broken = |error: rustls::Error| Error::Broken(error.to_string());
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider::provider()))
            .with_protocol_versions(&[&version::TLS13])
            .map_err(broken)?
            .dangerous()
            .with_custom_certificate_verifier(pin.clone())
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        // It is not sent, and nobody compares it.
        let name = ServerName::from(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST));
        let tls = ClientConnection::new(Arc::new(config), name).map_err(broken)?;
        let mut encrypted = Self { plain, tls, refused: None, pin };
        while encrypted.tls.is_handshaking() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Silent);
            }
            let turn = encrypted.flush(until).and_then(|()| encrypted.hear(left));
            turn.map_err(|error| encrypted.why(&error))?;
        }
        encrypted.flush(until).map_err(|error| encrypted.why(&error))?;
        Ok(encrypted)
    }

    /// Sends what rustls has to send.
    fn flush(&mut self, until: Instant) -> io::Result<()> {
        while self.tls.wants_write() {
            let mut bytes = Vec::new();
            self.tls.write_tls(&mut bytes)?;
            self.plain.send(&bytes, until)?;
        }
        Ok(())
    }

    /// Takes what comes within so long.
    fn hear(&mut self, wait: Duration) -> io::Result<()> {
        let mut buffer = [0; PIECE];
        let mut bytes = self.plain.receive(wait, &mut buffer)?;
        while !bytes.is_empty() {
            self.tls.read_tls(&mut bytes)?;
            if let Err(error) = self.tls.process_new_packets() {
                // An alert tells the other side why; it is not waited for.
                let _ = self.flush(Instant::now() + Duration::from_secs(1));
                self.refused = Some(error);
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        Ok(())
    }

    fn why(&self, error: &io::Error) -> Error {
        let Some(refused) = &self.refused else { return Error::Tcp(tcp::Error::on_the_way(error)) };
        let expected = self.pin.expected;
        if let Some(found) = self.pin.found.get().copied().filter(|found| *found != expected) {
            return Error::Certificate { expected, found };
        }
        let is_incompatible = matches!(
            refused,
            rustls::Error::AlertReceived(AlertDescription::HandshakeFailure | AlertDescription::ProtocolVersion)
                | rustls::Error::PeerIncompatible(_)
        );
        if is_incompatible {
            Error::NothingInCommon
        } else if matches!(refused, rustls::Error::InvalidCertificate(_)) {
            Error::NotProven(refused.to_string())
        } else {
            Error::Broken(refused.to_string())
        }
    }
}

impl Wire for Encrypted {
    fn send(&mut self, bytes: &[u8], until: Instant) -> io::Result<()> {
        self.tls.writer().write_all(bytes)?;
        self.flush(until)
    }

    fn receive<'a>(&mut self, wait: Duration, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        for turn in 0..2 {
            match self.tls.reader().read(buffer) {
                // It has said that nothing follows.
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => return Ok(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if turn == 0 {
                self.hear(wait)?;
            }
        }
        Ok(&[])
    }
}

/// Asks for TLS in clear, and takes the one line that grants it.
fn ask(plain: &mut tcp::Connection, upgrade: Upgrade, until: Instant) -> Result<(), Error> {
    let failed = |error: io::Error| Error::Tcp(tcp::Error::on_the_way(&error));
    plain.send(upgrade.ask.as_bytes(), until).map_err(failed)?;
    let mut said = Vec::new();
    while !said.contains(&b'\n') && said.len() < LONGEST_LINE {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Silent);
        }
        let mut buffer = [0; LONGEST_LINE];
        said.extend_from_slice(plain.receive(left, &mut buffer).map_err(failed)?);
    }
    // What stands behind the line came in clear, and could be anybody's.
    let granted = said.strip_suffix(b"\n").map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    if granted == Some(upgrade.grant.as_bytes()) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said);
    Err(Error::NotGranted(said.trim_end().chars().take(60).collect()))
}

fn fingerprint(certificate: &CertificateDer<'_>) -> Fingerprint {
    Fingerprint(Sha256::digest(certificate).into())
}

/// Takes one certificate and no other.
#[derive(Debug)]
struct Pin {
    expected: Fingerprint,
    found: OnceLock<Fingerprint>,
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = *self.found.get_or_init(|| fingerprint(certificate));
        if found == self.expected {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &provider::ALGORITHMS)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider::ALGORITHMS.supported_schemes()
    }
}
