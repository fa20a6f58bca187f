//! A client of `xenstored` over its unix socket.
//!
//! The wire protocol is Xen's `xen/include/public/io/xs_wire.h`: a header of four little-endian words (type, request,
//! transaction, length) and up to 4096 bytes. Every request is answered by a message of its own type or by an error
//! that carries the name of an errno. There are no watches and no transactions: nobody here needs them.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Where xenstored listens.
const SOCKETS: [&str; 2] = ["/run/xenstored/socket", "/var/run/xenstored/socket"];
/// An answer takes microseconds; one that has not come after this is never coming.
const PATIENCE: Duration = Duration::from_secs(10);
/// `XENSTORE_PAYLOAD_MAX`.
const PAYLOAD_MAX: usize = 4096;

/// What a message is: `enum xsd_sockmsg_type`.
mod kind {
    pub(super) const DIRECTORY: u32 = 1;
    pub(super) const READ: u32 = 2;
    pub(super) const WRITE: u32 = 11;
    pub(super) const ERROR: u32 = 16;
}

/// One connection. After any error but an answer of xenstored ([`io::ErrorKind::NotFound`] and the like) it is of no
/// further use.
#[derive(Debug)]
pub(crate) struct Xenstore<S = UnixStream> {
    stream: S,
    request: u32,
}

impl Xenstore {
    /// Connects to the running xenstored.
    ///
    /// # Errors
    /// Where no xenstored listens.
    pub(crate) fn open() -> io::Result<Self> {
        let [first, second] = SOCKETS;
        let stream = UnixStream::connect(first).or_else(|_| UnixStream::connect(second))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self::over(stream))
    }
}

impl<S: Read + Write> Xenstore<S> {
    /// A client of whoever is at the other end of `stream`.
    pub(crate) fn over(stream: S) -> Self {
        Self { stream, request: 0 }
    }

    /// The value of a node.
    ///
    /// # Errors
    /// `NotFound` where there is no such node; `InvalidData` where it is not text.
    pub(crate) fn read(&mut self, path: &str) -> io::Result<String> {
        text(self.ask(kind::READ, &[path.as_bytes(), b"\0"])?)
    }

    /// The names of the nodes below a node.
    ///
    /// # Errors
    /// `NotFound` where there is no such node; `InvalidData` where they are not text.
    pub(crate) fn list(&mut self, path: &str) -> io::Result<Vec<String>> {
        let names = text(self.ask(kind::DIRECTORY, &[path.as_bytes(), b"\0"])?)?;
        Ok(names.split_terminator('\0').map(str::to_owned).collect())
    }

    /// Sets the value of a node, and makes the node and those above it where they are missing.
    ///
    /// # Errors
    /// What xenstored refuses.
    pub(crate) fn write(&mut self, path: &str, value: &str) -> io::Result<()> {
        self.ask(kind::WRITE, &[path.as_bytes(), b"\0", value.as_bytes()]).map(drop)
    }

    /// Sends one request and waits for its answer.
    fn ask(&mut self, kind: u32, parts: &[&[u8]]) -> io::Result<Vec<u8>> {
        self.request = self.request.wrapping_add(1);
        let message = encode(kind, self.request, &parts.concat())?;
        self.stream.write_all(&message)?;
        let (answer, payload) = self.receive()?;
        match answer.kind {
            _ if answer.request != self.request => Err(malformed("an answer to another request")),
            kind::ERROR => Err(refusal(&text(payload)?)),
            same if same == kind => Ok(payload),
            _ => Err(malformed("an answer of another type")),
        }
    }

    /// Takes one message off the stream.
    fn receive(&mut self) -> io::Result<(Header, Vec<u8>)> {
        let mut bytes = [0; Header::LEN];
        self.stream.read_exact(&mut bytes)?;
        let header = Header::decode(bytes)?;
        let mut payload = vec![0; header.length];
        self.stream.read_exact(&mut payload)?;
        Ok((header, payload))
    }
}

/// `struct xsd_sockmsg` without the transaction, which is not used.
#[derive(Clone, Copy, Debug)]
struct Header {
    kind: u32,
    request: u32,
    length: usize,
}

impl Header {
    const LEN: usize = 16;

    fn decode(bytes: [u8; Self::LEN]) -> io::Result<Self> {
        let [a, b, c, d, e, f, g, h, _, _, _, _, i, j, k, l] = bytes;
        let length = usize::try_from(u32::from_le_bytes([i, j, k, l])).unwrap_or(usize::MAX);
        if length > PAYLOAD_MAX {
            return Err(malformed("a message that is too long"));
        }
        Ok(Self { kind: u32::from_le_bytes([a, b, c, d]), request: u32::from_le_bytes([e, f, g, h]), length })
    }
}

/// The bytes of a request outside any transaction.
fn encode(kind: u32, request: u32, payload: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= PAYLOAD_MAX);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "too long for xenstore"))?;
    let words = [kind, request, 0, length];
    let mut message: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    message.extend_from_slice(payload);
    Ok(message)
}

/// The value as text; a trailing NUL is not part of it.
fn text(mut bytes: Vec<u8>) -> io::Result<String> {
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    String::from_utf8(bytes).map_err(|_| malformed("a value that is not text"))
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("xenstored sent {what}"))
}

/// The error that an answer of xenstored names.
fn refusal(name: &str) -> io::Error {
    let kind = match name {
        "ENOENT" => io::ErrorKind::NotFound,
        "EACCES" | "EPERM" => io::ErrorKind::PermissionDenied,
        "EEXIST" => io::ErrorKind::AlreadyExists,
        "EINVAL" => io::ErrorKind::InvalidInput,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, format!("xenstored says {name}"))
}

#[cfg(test)]
mod tests;
