//! The handshake of a machine that holds no key yet, on the same port.
//!
//! Noise_XK_25519_ChaChaPoly_BLAKE2s: the machine knows the gateway's key from its image, and says its own, its *identity*,
//! encrypted. Its first message is as long as a member's and looks as random; the gateway tries the one handshake and then
//! the other, and hangs up where both fail, so that whoever knows neither key learns nothing.

use std::io;
use std::net::{Ipv4Addr, TcpStream};

use serde::{Deserialize, Serialize};
use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::{Builder, HandshakeState};

use super::{PATIENCE, Service, Stream, first, hear, hung_up, invalid, listen, prepare, read, say};
use crate::keys::Ring;
use crate::secrets::Key;

const PATTERN: &str = "Noise_XK_25519_ChaChaPoly_BLAKE2s";

/// A public key (X25519).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Identity(pub(crate) [u8; 32]);

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Identity {
    /// That of whoever holds `private`.
    ///
    /// # Errors
    /// Never: the one curve is there.
    pub(crate) fn of(private: &Key) -> io::Result<Self> {
        let mut curve = DefaultResolver.resolve_dh(&DHChoice::Curve25519).ok_or_else(|| invalid("no X25519"))?;
        curve.set(private.bytes());
        curve.pubkey().try_into().map(Self).map_err(io::Error::other)
    }

    /// Parses 64 hexadecimal digits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let whole = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        whole.then_some(Self(bytes))
    }
}

/// What a handshake has left: no other one, and nobody between its two ends, has the same.
pub(crate) type Binding = [u8; 32];

/// Who has connected.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// A member, what it asks for, and whether it holds the newest key.
    Member(Stream, Service, bool),
    /// Whoever holds that identity.
    Joiner(Stream, Identity, Binding),
}

/// The gateway's key for machines that join, from the root that it alone has.
pub(crate) fn join_key(root: &Key) -> Key {
    root.derive("holdfast join 1")
}

fn prologue(cluster: &str) -> Vec<u8> {
    [b"holdfast join\0", cluster.as_bytes()].concat()
}

fn builder<'a>(private: &'a Key, prologue: &'a [u8]) -> io::Result<Builder<'a>> {
    let params = PATTERN.parse().map_err(|_| invalid("the Noise pattern"))?;
    let builder = Builder::new(params).local_private_key(private.bytes());
    builder.and_then(|builder| builder.prologue(prologue)).map_err(io::Error::other)
}

fn binding(noise: &HandshakeState) -> io::Result<Binding> {
    noise.get_handshake_hash().try_into().map_err(io::Error::other)
}

impl Stream {
    /// Connects, as who holds `own`, to the gateway that holds the private half of `gateway`.
    ///
    /// # Errors
    /// It cannot be reached, or does not hold that key.
    pub(crate) fn join(
        address: (Ipv4Addr, u16),
        own: &Key,
        gateway: &Identity,
        cluster: &str,
    ) -> io::Result<(Self, Binding)> {
        let mut tcp = TcpStream::connect_timeout(&address.into(), PATIENCE)?;
        prepare(&tcp)?;
        let prologue = prologue(cluster);
        let builder = builder(own, &prologue)?.remote_public_key(&gateway.0).map_err(io::Error::other)?;
        let mut noise = builder.build_initiator().map_err(io::Error::other)?;
        say(&mut tcp, &mut noise)?;
        hear(&mut tcp, &mut noise).map_err(|error| {
            if hung_up(&error) { invalid("it does not hold the key that this image names") } else { error }
        })?;
        say(&mut tcp, &mut noise)?;
        let binding = binding(&noise)?;
        Ok((Self::new(tcp, noise)?, binding))
    }

    /// Takes a connection whose client proves that it is a member, or who it is that wants to join.
    ///
    /// # Errors
    /// It does neither, or does not speak in time.
    pub(crate) fn accept_any(mut tcp: TcpStream, keys: &Ring, cluster: &str) -> io::Result<Accepted> {
        prepare(&tcp)?;
        let message = listen(&mut tcp)?;
        if let Ok((noise, number)) = first(&message, keys, cluster) {
            let newest = number == keys.newest().0;
            return Self::member(tcp, noise).map(|(stream, service)| Accepted::Member(stream, service, newest));
        }
        let root = keys.root().ok_or_else(|| invalid("nobody joins here"))?;
        let (own, prologue) = (join_key(root), prologue(cluster));
        let mut noise = builder(&own, &prologue)?.build_responder().map_err(io::Error::other)?;
        read(&mut noise, &message)?;
        say(&mut tcp, &mut noise)?;
        hear(&mut tcp, &mut noise)?;
        let identity = noise.get_remote_static().and_then(|key| key.try_into().ok()).map(Identity);
        let identity = identity.ok_or_else(|| invalid("no identity"))?;
        let binding = binding(&noise)?;
        Ok(Accepted::Joiner(Self::new(tcp, noise)?, identity, binding))
    }
}

#[cfg(test)]
mod tests;
