//! A dialogue on a TCP connection.

use core::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::stream::{self, Wire};
use crate::dialogue::Dialogue;

/// How long the connection may take to be made.
const CONNECT: Duration = Duration::from_secs(3);

/// Carries the dialogue over a connection of its own until it ends. Shortly before `deadline`, or once `cancel` is set, it is
/// told to wind up; at `deadline` it is given up.
///
/// # Errors
/// There is no connection, or none any more. The outcome of the dialogue is none of these.
pub fn run<D: Dialogue>(
    dialogue: D,
    device: SocketAddr,
    deadline: Instant,
    cancel: &AtomicBool,
) -> Result<D::Outcome, Error> {
    let mut connection = Connection::open(device, deadline)?;
    stream::run(dialogue, &mut connection, deadline, cancel).map_err(|error| Error::on_the_way(&error))
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Nobody listens there.
    Refused,
    /// The address does not answer.
    Unreachable,
    /// The other side has ended it in the middle of the dialogue.
    Closed,
    /// Anything else; the system's words.
    Other(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused: nobody listens there"),
            Self::Unreachable => f.write_str("the address does not answer"),
            Self::Closed => f.write_str("the connection was closed in the middle of the dialogue"),
            Self::Other(error) => write!(f, "no connection: {error}"),
        }
    }
}

impl core::error::Error for Error {}

impl Error {
    fn at_connecting(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::ConnectionRefused {
            Self::Refused
        } else if [io::ErrorKind::TimedOut, io::ErrorKind::HostUnreachable, io::ErrorKind::NetworkUnreachable]
            .contains(&error.kind())
        {
            Self::Unreachable
        } else {
            Self::Other(error.to_string())
        }
    }

    pub(super) fn on_the_way(error: &io::Error) -> Self {
        let closed = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
        if closed.contains(&error.kind()) { Self::Closed } else { Self::Other(error.to_string()) }
    }
}

/// A connection.
pub(super) struct Connection(TcpStream);

impl Connection {
    pub(super) fn open(device: SocketAddr, deadline: Instant) -> Result<Self, Error> {
        let patience = deadline.saturating_duration_since(Instant::now()).min(CONNECT);
        // Zero is not taken.
        let stream = TcpStream::connect_timeout(&device, patience.max(Duration::from_millis(1)));
        stream.map(Self).map_err(|error| Error::at_connecting(&error))
    }
}

impl Wire for Connection {
    fn send(&mut self, bytes: &[u8], until: Instant) -> io::Result<()> {
        let wait = until.saturating_duration_since(Instant::now());
        self.0.set_write_timeout(Some(wait.max(Duration::from_millis(1))))?;
        self.0.write_all(bytes)
    }

    fn receive<'a>(&mut self, wait: Duration, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        self.0.set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
        match self.0.read(buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => Ok(buffer.get(..length).unwrap_or_default()),
            Err(error) if is_for_now(&error) => Ok(&[]),
            Err(error) => Err(error),
        }
    }
}

/// Nothing has come in time; that is no failure.
fn is_for_now(error: &io::Error) -> bool {
    [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut, io::ErrorKind::Interrupted].contains(&error.kind())
}
