//! Our NUT client by TLS, against Debian's own `upsd` (built with NSS), with somebody on the way who listens, cuts and changes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test file: what is not as it should be is a failure"
)]

mod upsd;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hw::Dialogue;
use hw::nut;
use hw::port::tls::{self, Error, Fingerprint};
use hw::ups::Flag;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use upsd::{Upsd, mon, serve, serve_in};

/// One of NSS's tools.
fn certutil(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new("certutil");
    command.arg("-d").arg(folder).args(arguments);
    let said = command.output().unwrap_or_else(|error| panic!("{error}: apt-get install libnss3-tools"));
    assert!(said.status.success(), "{said:?}");
    said.stdout
}

/// An upsd with a certificate of that key, and what is to be known of it.
fn serve_with(key: &[&str]) -> (Upsd, Fingerprint) {
    let folder = TempDir::new().unwrap();
    let (place, noise) = (folder.path(), folder.path().join("noise"));
    std::fs::write(&noise, (0..=255).collect::<Vec<u8>>()).unwrap();
    certutil(place, &["-N", "--empty-password"]);
    let noise = noise.to_str().unwrap();
    let first = ["-S", "-x", "-n", "upsd", "-s", "CN=upsd", "-t", "C,,", "-z", noise];
    certutil(place, &[&first[..], key].concat());
    let certificate = certutil(place, &["-L", "-n", "upsd", "-r"]);
    let settings = format!("CERTPATH {}\nCERTIDENT upsd \"\"\n", place.display());
    (serve_in(folder, &settings), Fingerprint(Sha256::digest(certificate).into()))
}

fn p256() -> (Upsd, Fingerprint) {
    serve_with(&["-k", "ec", "-q", "nistp256"])
}

fn drive<D: Dialogue>(address: SocketAddr, pin: Fingerprint, dialogue: D) -> Result<D::Outcome, Error> {
    let deadline = Instant::now() + Duration::from_secs(60);
    tls::run(dialogue, address, nut::STARTTLS, pin, deadline, &AtomicBool::new(false))
}

/// What somebody on the way does to what upsd says: given how many octets have passed, and the next one.
type Spoil = Box<dyn Fn(usize, u8) -> Option<u8> + Send + Sync>;

/// Everything that passed: from us, and from upsd.
type Heard = Arc<Mutex<[Vec<u8>; 2]>>;

/// Somebody on the way, for one connection. An octet that he keeps for himself is the last: he hangs up.
fn between(upsd: SocketAddr, spoil: Spoil) -> (SocketAddr, Heard) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (address, heard) = (listener.local_addr().unwrap(), Heard::default());
    let told = heard.clone();
    std::thread::spawn(move || {
        let (mut ours, _) = listener.accept().unwrap();
        let mut theirs = TcpStream::connect(upsd).unwrap();
        let (mut from_us, mut to_them, also) = (ours.try_clone().unwrap(), theirs.try_clone().unwrap(), told.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = from_us.read(&mut buffer) {
                also.lock().unwrap()[0].extend_from_slice(&buffer[..length]);
                if to_them.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
            // It may have gone.
            let _ = to_them.shutdown(Shutdown::Both);
        });
        let mut octet = [0];
        for at in 0.. {
            match theirs.read(&mut octet) {
                Ok(1) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Ok(_) | Err(_) => break,
            }
            told.lock().unwrap()[1].push(octet[0]);
            let Some(said) = spoil(at, octet[0]) else { break };
            if ours.write_all(&[said]).is_err() {
                break;
            }
        }
        let _ = (ours.shutdown(Shutdown::Both), theirs.shutdown(Shutdown::Both));
    });
    (address, heard)
}

fn has(octets: &[u8], text: &str) -> bool {
    octets.windows(text.len()).any(|part| part == text.as_bytes())
}

#[test]
fn a_real_upsd_is_read_and_ordered_and_nobody_on_the_way_learns_anything() {
    let (upsd, pin) = p256();
    let (way, heard) = between(upsd.address, Box::new(|_, octet| Some(octet)));
    let reading = drive(way, pin, nut::read("ups1")).unwrap().unwrap();
    assert!(reading.is(Flag::OnLine) && reading.charge_percent == Some(90), "{reading}");
    let [ours, theirs] = heard.lock().unwrap().clone();
    assert!(ours.starts_with(b"STARTTLS\n") && theirs.starts_with(b"OK STARTTLS\n"));
    assert!(!has(&ours, "LIST VAR") && !has(&theirs, "ups.status"), "in clear");

    let (way, heard) = between(upsd.address, Box::new(|_, octet| Some(octet)));
    assert_eq!(drive(way, pin, nut::force_shutdown("ups1", &mon())), Ok(Ok(())));
    assert!(!has(&heard.lock().unwrap()[0], "PASSWORD"));
    let last = upsd::drive(&upsd, nut::read("ups1")).unwrap().unwrap();
    assert!(last.is(Flag::ForcedShutdown), "{last}");
}

#[test]
fn another_certificate_is_refused_before_anything_is_said() {
    let (upsd, pin) = p256();
    let wrong = Fingerprint([7; 32]);
    let refused = drive(upsd.address, wrong, nut::force_shutdown("ups1", &mon()));
    assert_eq!(refused, Err(Error::Certificate { expected: wrong, found: pin }));
    let said = refused.unwrap_err().to_string();
    assert_eq!(said, format!("another certificate: {pin}, not {wrong}"));
    let reading = upsd::drive(&upsd, nut::read("ups1")).unwrap().unwrap();
    assert!(!reading.is(Flag::ForcedShutdown));
}

#[test]
fn an_upsd_without_tls_is_not_spoken_with_in_clear() {
    let upsd = serve("");
    let (way, heard) = between(upsd.address, Box::new(|_, octet| Some(octet)));
    let refused = drive(way, Fingerprint([7; 32]), nut::force_shutdown("ups1", &mon())).unwrap_err();
    assert_eq!(refused, Error::NotGranted("ERR FEATURE-NOT-CONFIGURED".to_owned()));
    assert!(refused.to_string().starts_with("it does not offer TLS"));
    assert_eq!(heard.lock().unwrap()[0], b"STARTTLS\n", "and nothing else");
}

/// An upsd whose certificate has an RSA key, as certutil makes one unless it is told otherwise.
#[test]
fn a_certificate_of_another_kind_has_its_own_words() {
    let (upsd, pin) = serve_with(&["-k", "rsa", "-g", "2048"]);
    let refused = drive(upsd.address, pin, nut::read("ups1"));
    assert_eq!(refused, Err(Error::NothingInCommon));
}

#[test]
fn what_is_cut_or_changed_on_the_way_is_never_a_reading() {
    let (upsd, pin) = p256();
    let (way, heard) = between(upsd.address, Box::new(|_, octet| Some(octet)));
    drive(way, pin, nut::read("ups1")).unwrap().unwrap();
    let whole = heard.lock().unwrap()[1].len();
    // What is behind the answer to the last question changes nothing: the goodbye, and the end of TLS.
    let handshake = whole.min(900);
    for at in (0..handshake).step_by(37) {
        let (way, _) = between(upsd.address, Box::new(move |now, octet| (now < at).then_some(octet)));
        let cut = drive(way, pin, nut::read("ups1"));
        assert!(cut.is_err(), "cut at {at}: {cut:?}");
        let (way, _) = between(upsd.address, Box::new(move |now, octet| Some(octet ^ u8::from(now == at))));
        // A length that was changed is waited for.
        let deadline = Instant::now() + Duration::from_secs(3);
        let changed = tls::run(nut::read("ups1"), way, nut::STARTTLS, pin, deadline, &AtomicBool::new(false));
        assert!(!matches!(changed, Ok(Ok(_))), "changed at {at}: {changed:?}");
    }
}

#[test]
fn whoever_says_nothing_or_nonsense_has_words_of_his_own() {
    let nonsense: [(&[u8], &str); 4] = [
        (b"OK STARTTLS\nOK TRACKING\n", "it does not offer TLS"),
        (b"220 welcome\n", "it does not offer TLS"),
        (b"OK STARTTLS\r\n", "it does not go on with TLS"),
        (b"", "it does not go on with TLS"),
    ];
    for (said, words) in nonsense {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let speaker = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(said).unwrap();
            let mut heard = Vec::new();
            // Until we hang up.
            let _ = stream.read_to_end(&mut heard);
            heard
        });
        let refused = drive(address, Fingerprint([7; 32]), nut::force_shutdown("ups1", &mon())).unwrap_err();
        assert!(refused.to_string().starts_with(words), "{said:?}: {refused}");
        assert!(!has(&speaker.join().unwrap(), "USERNAME"));
    }
}
