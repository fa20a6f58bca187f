//! How a message reaches the collector: as a datagram, or counted in a stream.
//!
//! A datagram that nobody took is only known of, if at all, when the next one is sent: then the kernel says so of the earlier one, which
//! is lost. A stream is written to its end or closed; what was begun goes whole into the next one.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::time::Duration;

use cluster::config::{Syslog, Transport};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv, sockopt};

use super::message::counted;

/// How long a collector may take to accept a connection, or to make room for a message.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long what was written may stay unacknowledged before the connection counts as dead.
const UNHEARD: Duration = Duration::from_secs(30);

/// A message was not taken.
#[derive(Debug)]
pub(super) struct Failure {
    /// Why.
    pub(super) reason: io::Error,
    /// How many earlier ones are known by this to be lost.
    pub(super) lost: u64,
}

/// The way to the collector, open or not.
#[derive(Debug)]
pub(super) struct Carrier {
    server: SocketAddrV4,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Datagrams(Option<UdpSocket>),
    Stream(Option<TcpStream>),
}

impl Carrier {
    /// Not open yet.
    pub(super) fn new(collector: Syslog) -> Self {
        let way = match collector.transport {
            Transport::Udp => Way::Datagrams(None),
            Transport::Tcp => Way::Stream(None),
        };
        Self { server: collector.server, way }
    }

    /// Carries one message.
    ///
    /// # Errors
    /// It was not taken: it may be tried again.
    pub(super) fn carry(&mut self, message: &[u8]) -> Result<(), Failure> {
        match &mut self.way {
            Way::Datagrams(socket) => {
                let socket = open(socket, || datagrams(self.server)).map_err(|reason| Failure { reason, lost: 0 })?;
                socket.send(message).map(drop).map_err(|reason| Failure { lost: earlier(&reason), reason })
            }
            Way::Stream(stream) => {
                if stream.as_ref().is_some_and(is_closed) {
                    *stream = None;
                }
                let sent = open(stream, || connect(self.server)).and_then(|open| open.write_all(&counted(message)));
                if sent.is_err() {
                    *stream = None;
                }
                sent.map_err(|reason| Failure { reason, lost: 0 })
            }
        }
    }
}

/// What is open, opened if it is not.
fn open<T>(way: &mut Option<T>, open: impl FnOnce() -> io::Result<T>) -> io::Result<&mut T> {
    match way {
        Some(way) => Ok(way),
        None => Ok(way.insert(open()?)),
    }
}

fn datagrams(server: SocketAddrV4) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(server)?;
    Ok(socket)
}

/// How many earlier datagrams a failure speaks of: what comes from the network is about one that was sent.
fn earlier(reason: &io::Error) -> u64 {
    let network = [Errno::CONNREFUSED, Errno::HOSTUNREACH];
    u64::from(Errno::from_io_error(reason).is_some_and(|errno| network.contains(&errno)))
}

fn connect(server: SocketAddrV4) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::V4(server), PATIENCE)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    sockopt::set_tcp_user_timeout(&stream, u32::try_from(UNHEARD.as_millis()).unwrap_or(u32::MAX))?;
    Ok(stream)
}

/// Whether the collector has closed the connection. Whatever it says is thrown away: it has nothing to say.
fn is_closed(stream: &TcpStream) -> bool {
    let mut thrown = [0; 512];
    !matches!(recv(stream, &mut thrown, RecvFlags::DONTWAIT), Ok((1.., _)) | Err(Errno::AGAIN | Errno::INTR))
}
