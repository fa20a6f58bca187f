//! The cluster's encrypted stream: storage, migration and the consoles of VMs, between two members, over TCP port 694.
//!
//! Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s (Noise Protocol Framework, revision 34): both ends prove that they hold the
//! cluster's key in the first message each sends, and the session's own keys are forgotten with it. After the handshake
//! the client names a [`Service`] in one record and is answered in one; then both ends carry bytes.
//!
//! A record is a length of two bytes and that many bytes of Noise message. An empty record is the end of one direction;
//! a connection that ends without it was cut.

use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cluster::words::VmName;
use console::JoinRequest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use snow::{Builder, HandshakeState, StatelessTransportState};
use zeroize::Zeroizing;

use crate::keys::Ring;
use crate::secrets::Key;
use crate::streams::claims::Refusal;
use crate::streams::storage::{Claiming, Wanted};

pub(crate) mod joiner;

/// The port, as heartbeat's own: `ha-cluster` is registered for both protocols.
pub(crate) const PORT: u16 = 694;
/// How long connecting and each step of the handshake may take. A test does not fail because its machine is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 180 } else { 10 });
/// How long what was sent may stay unacknowledged before the connection counts as cut.
const DEAD: Duration = Duration::from_secs(20);
/// The longest Noise message.
const MESSAGE: usize = 65_535;
/// Bytes of a thread's stack: where memory is locked, all of it counts.
pub(crate) const STACK: usize = 256 * 1024;
/// The longest message of a handshake.
const HANDSHAKE: usize = 256;
/// The tag at a message's end.
const TAG: usize = 16;
/// The most that one record carries.
const CARGO: usize = MESSAGE - TAG;

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";

/// What is carried on without being looked at: a console's `VolumeRequest` or `Volumes`, as `postcard` writes it. Read at both
/// ends only, in one form only, it takes a third of the code.
pub(crate) type Opaque = Vec<u8>;

/// What a client may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Service {
    /// To be connected to one of the gateway's disks. The answer is followed by what the disk is like, then by NBD's transmission.
    Disk(Wanted),
    /// To have disks claimed; the answer is all.
    Claim(Claiming),
    /// A VM that is to be pushed here.
    Pull {
        /// Its name.
        vm: String,
        /// The migration's generation.
        generation: u64,
        /// The slot that asks.
        by: u8,
    },
    /// Something about machines that join; the answer is followed by how things are then.
    Join(JoinRequest),
    /// Something about the gateway's disks; the answer is followed, when it is done, by how things are then or why it was refused.
    Volume(Opaque),
    /// Of a node that has the shared file system mounted: so many more journals in it. The answer is followed by what came of it.
    Journals(u8),
    /// Of a node: the console of a VM that runs there. The answer is followed by what is typed and what the guest writes.
    Console(VmName),
}

/// One encrypted connection.
pub(crate) struct Stream {
    tcp: TcpStream,
    session: Arc<StatelessTransportState>,
    sent: u64,
    received: u64,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("tcp", &self.tcp).finish_non_exhaustive()
    }
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, text)
}

fn builder<'a>(key: &'a Key, cluster: &'a [u8]) -> io::Result<Builder<'a>> {
    let params = PATTERN.parse().map_err(|_| invalid("the Noise pattern"))?;
    let builder = Builder::new(params).psk(0, key.bytes()).and_then(|builder| builder.prologue(cluster));
    builder.map_err(io::Error::other)
}

impl Stream {
    /// Connects to a member and asks for a service.
    ///
    /// # Errors
    /// It cannot be reached, does not hold the key, or refuses: then with its reason.
    pub(crate) fn connect(address: (Ipv4Addr, u16), keys: &Ring, cluster: &str, service: &Service) -> io::Result<Self> {
        // Whoever has not been given the newest one yet takes the one before.
        let mut refused = Ok(());
        for (_, key) in keys.all() {
            match Self::connect_by(address, key, cluster, service) {
                Err(error) if is_refusal(&error) => refused = Err(error),
                other => return other,
            }
        }
        refused.and_then(|()| Err(invalid(REFUSED)))
    }

    fn connect_by(address: (Ipv4Addr, u16), key: &Key, cluster: &str, service: &Service) -> io::Result<Self> {
        let mut tcp = TcpStream::connect_timeout(&address.into(), PATIENCE)?;
        prepare(&tcp)?;
        let key = key.derive("holdfast stream 1");
        let mut noise = builder(&key, cluster.as_bytes())?.build_initiator().map_err(io::Error::other)?;
        say(&mut tcp, &mut noise)?;
        hear(&mut tcp, &mut noise).map_err(|error| if hung_up(&error) { invalid(REFUSED) } else { error })?;
        let mut stream = Self::new(tcp, noise)?;
        stream.tell(service)?;
        stream.hear::<Result<(), Refusal>>()?.map_err(io::Error::other)?;
        stream.tcp.set_read_timeout(None)?;
        Ok(stream)
    }

    /// Takes a connection whose client proves that it is a member, up to what it asks for. It is to be answered.
    ///
    /// # Errors
    /// It does not hold the key, or does not speak in time.
    pub(crate) fn accept(mut tcp: TcpStream, keys: &Ring, cluster: &str) -> io::Result<(Self, Service)> {
        prepare(&tcp)?;
        let message = listen(&mut tcp)?;
        Self::member(tcp, first(&message, keys, cluster)?.0)
    }

    /// Goes on with a member whose first message was good.
    fn member(mut tcp: TcpStream, mut noise: HandshakeState) -> io::Result<(Self, Service)> {
        say(&mut tcp, &mut noise)?;
        let mut stream = Self::new(tcp, noise)?;
        let service = stream.hear()?;
        stream.tcp.set_read_timeout(None)?;
        Ok((stream, service))
    }

    /// Answers the client.
    ///
    /// # Errors
    /// The connection was cut.
    pub(crate) fn answer(&mut self, answer: &Result<(), Refusal>) -> io::Result<()> {
        self.tell(answer)
    }

    /// Says one thing, in a record.
    ///
    /// # Errors
    /// The connection was cut.
    pub(crate) fn tell(&mut self, what: &impl Serialize) -> io::Result<()> {
        self.send(&Zeroizing::new(postcard::to_allocvec(what).map_err(io::Error::other)?))
    }

    /// Hears one thing, in a record.
    ///
    /// # Errors
    /// The connection was cut, or it is not such a thing.
    pub(crate) fn hear<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        postcard::from_bytes(&self.receive()?).map_err(|_| invalid("a message of an unknown kind"))
    }

    /// Waits for what is said next however long that takes.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub(crate) fn wait_for_ever(&self) -> io::Result<()> {
        self.tcp.set_read_timeout(None)
    }

    /// Whether the other end, which has nothing to say, is still there.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub(crate) fn is_there(&self) -> io::Result<bool> {
        self.tcp.set_nonblocking(true)?;
        let peeked = self.tcp.peek(&mut [0; 1]);
        self.tcp.set_nonblocking(false)?;
        Ok(matches!(peeked, Err(error) if error.kind() == ErrorKind::WouldBlock))
    }

    /// The connection itself, by which it can be cut.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub(crate) fn socket(&self) -> io::Result<TcpStream> {
        self.tcp.try_clone()
    }

    fn new(tcp: TcpStream, noise: HandshakeState) -> io::Result<Self> {
        let session = noise.into_stateless_transport_mode().map_err(io::Error::other)?;
        Ok(Self { tcp, session: Arc::new(session), sent: 0, received: 0 })
    }

    /// Says some bytes, in a record.
    ///
    /// # Errors
    /// The connection was cut, or they are too many.
    pub(crate) fn send(&mut self, cargo: &[u8]) -> io::Result<()> {
        let mut record = vec![0; cargo.len() + TAG + 2];
        write_record(&mut self.tcp, &self.session, &mut self.sent, cargo, &mut record)
    }

    /// Hears the bytes of a record.
    ///
    /// # Errors
    /// The connection was cut.
    pub(crate) fn receive(&mut self) -> io::Result<Zeroizing<Vec<u8>>> {
        let (mut message, mut cargo) = (vec![0; MESSAGE], Zeroizing::new(vec![0; MESSAGE]));
        let length = read_record(&mut self.tcp, &self.session, &mut self.received, &mut message, &mut cargo)?;
        cargo.truncate(length);
        Ok(cargo)
    }

    /// Carries bytes both ways between the stream and a pair of local ends until both directions have ended.
    ///
    /// # Errors
    /// The connection was cut, or a local end failed. Both ends are closed then.
    pub(crate) fn pump(
        self,
        mut from: impl Read + Send + 'static,
        mut to: impl Write,
        close: impl Fn() + Send + 'static,
    ) -> io::Result<()> {
        let Self { tcp, session, mut sent, mut received } = self;
        // Of small records there are many: what has come is fetched in one go.
        let (mut out, mut back) = (tcp.try_clone()?, BufReader::with_capacity(MESSAGE + 2, tcp.try_clone()?));
        let outward = Arc::clone(&session);
        let sender = thread::Builder::new().stack_size(STACK).spawn(move || -> io::Result<()> {
            let (mut cargo, mut record) = (vec![0; CARGO], vec![0; MESSAGE + 2]);
            let mut carry = || -> io::Result<()> {
                loop {
                    let length = match from.read(&mut cargo) {
                        Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                        other => other?,
                    };
                    let cargo = cargo.get(..length).unwrap_or_default();
                    write_record(&mut out, &outward, &mut sent, cargo, &mut record)?;
                    if length == 0 {
                        return Ok(());
                    }
                }
            };
            let result = carry();
            if result.is_err() {
                // The other direction is not waited for: what it would bring has nobody to answer it.
                let _ = out.shutdown(Shutdown::Both);
            }
            result
        })?;
        let (mut message, mut cargo) = (vec![0; MESSAGE], vec![0; MESSAGE]);
        let mut carry = || -> io::Result<()> {
            loop {
                // What has come is passed on in one go as well: whoever gets it is woken once.
                let mut filled = 0;
                let ended = loop {
                    let room = cargo.get_mut(filled..).unwrap_or_default();
                    let length = read_record(&mut back, &session, &mut received, &mut message, room)?;
                    filled += length;
                    if length == 0 || !has_whole(back.buffer(), MESSAGE - filled) {
                        break length == 0;
                    }
                };
                to.write_all(cargo.get(..filled).unwrap_or_default())?;
                if ended {
                    return Ok(());
                }
            }
        };
        let result = carry().and_then(|()| to.flush());
        drop(to);
        close();
        if result.is_err() {
            // The connection is given up as a whole, so that the sender does not wait for it.
            let _ = tcp.shutdown(Shutdown::Both);
        }
        let sent = sender.join().unwrap_or_else(|_| Err(io::Error::other("the sender panicked")));
        result.and(sent)
    }
}

fn prepare(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(PATIENCE))?;
    tcp.set_write_timeout(None)?;
    let millis = u32::try_from(DEAD.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(tcp, millis)?;
    rustix::net::sockopt::set_socket_keepalive(tcp, true)?;
    rustix::net::sockopt::set_tcp_keepidle(tcp, DEAD / 4)?;
    rustix::net::sockopt::set_tcp_keepintvl(tcp, DEAD / 4)?;
    rustix::net::sockopt::set_tcp_keepcnt(tcp, 3)?;
    Ok(())
}

fn say(tcp: &mut TcpStream, noise: &mut HandshakeState) -> io::Result<()> {
    let mut message = [0; HANDSHAKE];
    let length = noise.write_message(&[], &mut message).map_err(io::Error::other)?;
    let size = u16::try_from(length).map_err(io::Error::other)?.to_be_bytes();
    tcp.write_all(&[&size[..], message.get(..length).unwrap_or_default()].concat())
}

fn hear(tcp: &mut TcpStream, noise: &mut HandshakeState) -> io::Result<()> {
    read(noise, &listen(tcp)?)
}

/// A message of a handshake.
fn listen(tcp: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut size = [0; 2];
    tcp.read_exact(&mut size)?;
    let size = usize::from(u16::from_be_bytes(size));
    if size > HANDSHAKE {
        return Err(invalid("a handshake that is too long"));
    }
    let mut message = vec![0; size];
    tcp.read_exact(&mut message)?;
    Ok(message)
}

fn read(noise: &mut HandshakeState, message: &[u8]) -> io::Result<()> {
    let read = noise.read_message(message, &mut [0; HANDSHAKE]);
    read.map(drop).map_err(|_| invalid("the other end does not hold this cluster's key"))
}

/// The handshake with a client whose first message was a member's, and the number of its key.
fn first(message: &[u8], keys: &Ring, cluster: &str) -> io::Result<(HandshakeState, u32)> {
    let by = |key: &Key| {
        let key = key.derive("holdfast stream 1");
        let mut noise = builder(&key, cluster.as_bytes())?.build_responder().map_err(io::Error::other)?;
        read(&mut noise, message).map(|()| noise)
    };
    let mut all = keys.all().map(|(number, key)| by(key).map(|noise| (noise, *number)));
    all.find(Result::is_ok).unwrap_or_else(|| Err(invalid("the other end does not hold this cluster's key")))
}

/// What a listener does not say that hangs up.
const REFUSED: &str = "it refuses this cluster's key";

fn is_refusal(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.to_string() == REFUSED)
}

/// Whether the other end has hung up.
fn hung_up(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset)
}

fn write_record(
    tcp: &mut TcpStream,
    session: &StatelessTransportState,
    number: &mut u64,
    cargo: &[u8],
    record: &mut [u8],
) -> io::Result<()> {
    let (size, message) = record.split_at_mut(2);
    let length = session.write_message(*number, cargo, message).map_err(io::Error::other)?;
    *number += 1;
    size.copy_from_slice(&u16::try_from(length).map_err(io::Error::other)?.to_be_bytes());
    tcp.write_all(record.get(..length + 2).unwrap_or_default())
}

/// Whether a whole record has come, and there is room for what it carries.
fn has_whole(come: &[u8], room: usize) -> bool {
    let size = come.first_chunk().map(|size| usize::from(u16::from_be_bytes(*size)));
    size.is_some_and(|size| size <= room && size + 2 <= come.len())
}

fn read_record(
    tcp: &mut impl Read,
    session: &StatelessTransportState,
    number: &mut u64,
    message: &mut [u8],
    cargo: &mut [u8],
) -> io::Result<usize> {
    let mut size = [0; 2];
    tcp.read_exact(&mut size)?;
    let message = message.get_mut(..usize::from(u16::from_be_bytes(size))).unwrap_or_default();
    tcp.read_exact(message)?;
    let length =
        session.read_message(*number, message, cargo).map_err(|_| invalid("a record that was tampered with"))?;
    *number += 1;
    Ok(length)
}

#[cfg(test)]
mod tests;
