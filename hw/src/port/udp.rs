//! A dialogue on UDP.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::GLANCE;
use crate::dialogue::{Dialogue, Step};

/// The longest datagram that is read; what is longer is cut, and so not understood. No device here sends more than 484.
const LONGEST: usize = 1500;

/// Carries the dialogue until it ends; at `deadline`, or once `cancel` is set, it is given up.
///
/// Every datagram leaves from a new socket, connected to the device: the kernel drops what comes from elsewhere, or to
/// an older socket. A network that cannot be reached is a reply that does not come.
pub fn run<D: Dialogue>(mut dialogue: D, device: SocketAddr, deadline: Instant, cancel: &AtomicBool) -> D::Outcome {
    let begin = Instant::now();
    let millis = || u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut socket = None;
    while Instant::now() < deadline && !cancel.load(Ordering::Relaxed) {
        match dialogue.poll(millis()) {
            Step::Send(datagram) => {
                socket = connected(device).ok().filter(|socket| socket.send(&datagram).is_ok());
            }
            Step::Wait(until) => {
                let wait = Duration::from_millis(until.saturating_sub(millis()));
                let wait = wait.min(deadline.saturating_duration_since(Instant::now())).min(GLANCE);
                let mut buffer = [0; LONGEST];
                if let Some(datagram) = receive(socket.as_ref(), wait, &mut buffer) {
                    dialogue.handle(millis(), datagram);
                }
            }
            Step::Done(outcome) => return outcome,
        }
    }
    dialogue.give_up()
}

fn connected(device: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: SocketAddr = match device {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(device)?;
    Ok(socket)
}

/// A datagram that comes within `wait`. Anything that a socket fails with (the device's port is closed, say) passes
/// the time as silence does.
fn receive<'a>(socket: Option<&UdpSocket>, wait: Duration, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    // Zero would wait for ever.
    let wait = wait.max(Duration::from_millis(1));
    let Some(socket) = socket else {
        std::thread::sleep(wait);
        return None;
    };
    socket.set_read_timeout(Some(wait)).ok()?;
    let length = socket.recv(buffer).ok()?;
    buffer.get(..length)
}
