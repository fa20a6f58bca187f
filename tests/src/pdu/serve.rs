//! The PDU on a socket.

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::Pdu;

/// The longest datagram that is read; what is longer is cut, and so not understood.
const LONGEST: usize = 1500;
/// How long the server listens before it looks again whether a relay is due (another thread may have planned it).
const GLANCE: Duration = Duration::from_millis(200);

/// Answers on this socket and moves the relays; one server a PDU. A relay is moved after the reply has left, as the real
/// one is: the reply to a command proves nothing.
///
/// # Errors
/// What the socket fails with; it ends with nothing else.
pub fn serve(socket: &UdpSocket, pdu: &Pdu) -> io::Result<Infallible> {
    let mut buffer = [0; LONGEST];
    let mut leaving: Vec<(Instant, SocketAddr, Vec<u8>)> = Vec::new();
    loop {
        let now = Instant::now();
        let (due, later) = leaving.into_iter().partition(|(at, ..)| *at <= now);
        leaving = later;
        let due: Vec<(Instant, SocketAddr, Vec<u8>)> = due;
        for (_, to, reply) in due {
            // Who asked may have gone, and his network with him.
            let _ = socket.send_to(&reply, to);
        }
        pdu.tick(now);

        let next = leaving.iter().map(|(at, ..)| *at).chain(pdu.deadline()).min();
        let wait = next.map_or(GLANCE, |at| at.saturating_duration_since(now).min(GLANCE));
        // Zero would wait for ever.
        socket.set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) => {
                let now = Instant::now();
                let datagram = buffer.get(..length).unwrap_or_default();
                leaving.extend(pdu.handle(now, from, datagram).map(|(reply, late)| (now + late, from, reply)));
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
}
