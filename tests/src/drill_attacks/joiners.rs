//! A flood of machines that ask to join, from an address that is nobody's.
//!
//! Whoever is on the cluster network may have what nodes boot, and in it the gateway's public key; so he can begin the joiners'
//! handshake like a machine that means it, and finish it. Whoever finishes it and then says nonsense is hung up on. However
//! many connections he begins and leaves alone, what members want of the gateway they get.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use snow::{Builder, HandshakeState};

use super::{PATIENCE, connect};
use crate::rack::layout::{GATEWAY, Layout};
use crate::rack::menu::Menu;
use crate::rack::{Rack, network};

/// An address of the cluster network that is nobody's, and one of those from which nodes may boot.
const FREE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 249);
/// The port of the files that nodes boot.
const HTTP: u16 = 80;
/// What goes before the gateway's public key in the last of those files, the site's segment of the initramfs.
const KEY_FILE: &[u8] = b"etc/holdfast/join.key\0";
/// Hexadecimal digits of that key.
const DIGITS: usize = 64;
/// The handshake, and what both ends must have said before (`daemon/src/stream/joiner.rs`).
const PATTERN: &str = "Noise_XK_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE: &[u8] = b"holdfast join\0rack";
/// The longest message of a handshake, with room to spare.
const MESSAGE: usize = 1024;
/// How many finish the handshake and say nonsense.
const NONSENSE: usize = 10;
/// How many connections are held: more than the gateway serves.
const HELD: usize = 300;
/// Between two of them, some of which are hung up on and begun again.
const PACE: Duration = Duration::from_millis(10);

/// Floods the gateway from the calling thread, which is in the rack's network, while the operator looks at the menus of these
/// members who asks to join.
///
/// # Errors
/// The gateway serves nonsense, or does not serve the member.
pub(super) fn flood(rack: &Rack, members: &[&str]) -> Result<()> {
    let gateway = rack.layout.machine(GATEWAY).and_then(|machine| machine.cluster.address);
    let gateway = gateway.context("the gateway has no address")?;
    let menus = members.iter().map(|node| rack.menu(node)).collect::<Result<Vec<_>>>()?;
    ensure!(is_free(&rack.layout), "{FREE} is a machine's");
    network::address(FREE, true)?;
    let judged = from_there(gateway, &menus);
    network::address(FREE, false)?;
    judged
}

fn is_free(layout: &Layout) -> bool {
    layout.all().all(|machine| machine.cluster.address != Some(FREE))
}

fn from_there(gateway: Ipv4Addr, menus: &[Menu]) -> Result<()> {
    let key = public_key(&boot_file(gateway)?).context("what nodes boot has no key to join with")?;
    for at in 0..NONSENSE {
        nonsense(gateway, &key, at)?;
    }
    let (over, (full, is_full)) = (AtomicBool::new(false), channel());
    std::thread::scope(|scope| {
        let holder = scope.spawn(|| hold(gateway, &key, full, &over));
        // Where the flood could not be made its own error says why.
        let _ = is_full.recv();
        let answered = menus.iter().try_for_each(Menu::who_joins);
        over.store(true, Ordering::SeqCst);
        holder.join().map_err(|_| anyhow!("the flood panicked"))??;
        answered.context("a member does not get through to the gateway")
    })
}

/// Begins connections until it is over, every other one with a handshake, and holds the last [`HELD`] of them; says once that it
/// has as many.
fn hold(gateway: Ipv4Addr, key: &[u8], full: Sender<()>, over: &AtomicBool) -> Result<()> {
    let (mut held, mut full) = (VecDeque::new(), Some(full));
    for begun in 0_u64.. {
        if over.load(Ordering::SeqCst) {
            break;
        }
        let mut stream = connect(FREE, (gateway, super::PORT))?;
        if begun.is_multiple_of(2) {
            // It may be hung up on already.
            let _ = stream.write_all(&first(&mut initiator(key)?)?);
        }
        held.push_back(stream);
        if held.len() > HELD {
            held.pop_front();
            drop(full.take());
        }
        std::thread::sleep(PACE);
    }
    Ok(())
}

/// A whole handshake, and then something that is none of its messages. The gateway answers the handshake, and nothing else.
fn nonsense(gateway: Ipv4Addr, key: &[u8], at: usize) -> Result<()> {
    let (mut stream, mut noise) = (connect(FREE, (gateway, super::PORT))?, initiator(key)?);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&first(&mut noise)?)?;
    let mut size = [0; 2];
    stream.read_exact(&mut size).context("the gateway does not answer a joiner's handshake")?;
    let mut answer = vec![0; u16::from_be_bytes(size).into()];
    stream.read_exact(&mut answer)?;
    noise.read_message(&answer, &mut [0; MESSAGE]).context("the gateway does not hold the key of its image")?;
    stream.write_all(&first(&mut noise)?)?;
    let wrong: Vec<u8> = (0..at * 50).map(|n| u8::try_from(n % 251).unwrap_or_default()).collect();
    // It may hang up before it has read everything.
    let _ = stream.write_all(&[&u16::try_from(wrong.len())?.to_be_bytes()[..], &wrong].concat());
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut more = Vec::new();
    match stream.read_to_end(&mut more) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => bail!("the gateway does not hang up on nonsense: {error}"),
    }
    ensure!(more.is_empty(), "the gateway says something to nonsense: {more:?}");
    Ok(())
}

/// The handshake of a machine with an identity of its own.
fn initiator(gateway: &[u8]) -> Result<HandshakeState> {
    let builder = || Ok::<_, snow::Error>(Builder::new(PATTERN.parse()?));
    let own = builder()?.generate_keypair()?.private;
    Ok(builder()?.local_private_key(&own)?.remote_public_key(gateway)?.prologue(PROLOGUE)?.build_initiator()?)
}

/// The next message of a handshake, behind its length.
fn first(noise: &mut HandshakeState) -> Result<Vec<u8>> {
    let mut message = [0; MESSAGE];
    let length = noise.write_message(&[], &mut message)?;
    let size = u16::try_from(length)?.to_be_bytes();
    Ok([&size[..], message.get(..length).unwrap_or_default()].concat())
}

/// The initramfs that nodes boot, as any of them is given it.
fn boot_file(gateway: Ipv4Addr) -> Result<Vec<u8>> {
    let mut stream: TcpStream = connect(FREE, (gateway, HTTP))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /initramfs HTTP/1.0\r\n\r\n")?;
    let mut file = Vec::new();
    stream.read_to_end(&mut file)?;
    Ok(file)
}

/// The key in it: the site's segment is not compressed.
fn public_key(file: &[u8]) -> Option<Vec<u8>> {
    let at = file.windows(KEY_FILE.len()).rposition(|window| window == KEY_FILE)?;
    let behind = file.get(at + KEY_FILE.len()..)?;
    let begins = behind.iter().position(|byte| *byte != 0)?;
    let digits = std::str::from_utf8(behind.get(begins..begins + DIGITS)?).ok()?;
    (0..DIGITS).step_by(2).map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_found_in_what_nodes_boot() {
        let file = [&b"..070701 etc/holdfast/join.key\0\0\0"[..], "0f".repeat(32).as_bytes(), b"\n070701"].concat();
        assert_eq!(public_key(&file), Some(vec![0x0f; 32]));
        assert_eq!(public_key(&file[..60]), None);
        assert_eq!(public_key(b"etc/holdfast/join.key\0"), None);
    }

    #[test]
    fn a_joiner_that_means_it_begins_with_the_length_of_a_members_message() {
        let key = Builder::new(PATTERN.parse().expect("a pattern")).generate_keypair().expect("a key").public;
        let message = first(&mut initiator(&key).expect("a handshake")).expect("a message");
        assert_eq!(message.get(..2), Some(&[0, 48][..]));
        assert_eq!(message.len(), 50);
    }
}
