//! SNMP, as much of it as a manager needs to read and write objects: version 1 (RFC 1157), whose password is in clear, and
//! version 3 with authentication and encryption (RFC 3412, 3414, 3826).
//!
//! ```text
//! exchange   one request with its tries
//! session    what carries it: version 1 or 3
//! usm        version 3: who is asked, with which keys, and which answers count
//! v3         its messages as bytes; the message of version 1 is here
//! pdu        a request or its answer as bytes, the same in both
//! ```
//!
//! The readers are total: any bytes give a message or [`Malformed`], and nothing else.

mod ber;
mod exchange;
mod pdu;
mod session;
#[cfg(test)]
mod tests;

pub mod usm;
pub mod v3;

use core::fmt;

pub use exchange::{Exchange, Failure, Ids, Progress, TIMEOUT_MS, TRIES};
pub use pdu::{ErrorStatus, Kind, Pdu};
pub use session::{Access, Session};

use ber::{Reader, Tag};

/// What a message of version 1 says of its version.
const VERSION: i32 = 0;

/// These bytes are no SNMP message of a kind that is read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// An object's name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Oid(Vec<u32>);

impl Oid {
    /// From its arcs, at least two of them.
    #[must_use]
    pub fn new(base: &[u32], rest: &[u32]) -> Self {
        Self([base, rest].concat())
    }

    /// Its arcs.
    #[must_use]
    pub fn arcs(&self) -> &[u32] {
        &self.0
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, arc) in self.0.iter().enumerate() {
            let gap = if index == 0 { "" } else { "." };
            write!(f, "{gap}{arc}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An object's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing: what a GET carries.
    Null,
    /// INTEGER.
    Integer(i32),
    /// OCTET STRING.
    Text(Vec<u8>),
    /// OBJECT IDENTIFIER.
    Oid(Oid),
    /// Gauge: a measurement.
    Gauge(u32),
    /// Anything else, which no driver here asks for; its tag.
    Other(u8),
}

impl Value {
    /// The number, if it is one.
    #[must_use]
    pub fn integer(&self) -> Option<i32> {
        if let Self::Integer(number) = self { Some(*number) } else { None }
    }

    /// Does version 3 say so that there is no such object or instance (RFC 3416, section 4.2.1)? Version 1 refuses the request.
    fn is_absent(&self) -> bool {
        matches!(self, Self::Other(0x80 | 0x81))
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Gauge(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{:?}", String::from_utf8_lossy(text)),
            Self::Oid(oid) => write!(f, "{oid}"),
            Self::Other(tag) => write!(f, "a value of type {tag:#04x}"),
        }
    }
}

/// One message of version 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The password, in clear.
    pub community: Vec<u8>,
    /// What it carries.
    pub pdu: Pdu,
}

impl Message {
    /// The datagram.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let message = [ber::integer(VERSION), ber::element(Tag::OCTETS, &self.community), self.pdu.encode()];
        ber::element(Tag::SEQUENCE, &message.concat())
    }

    /// From a datagram, all of it.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        let mut message = Reader::all(datagram, Tag::SEQUENCE)?;
        if message.integer()? != VERSION {
            return Err(Malformed);
        }
        let community = message.expect(Tag::OCTETS)?.to_vec();
        let pdu = Pdu::read(&mut message)?;
        message.end()?;
        Ok(Self { community, pdu })
    }
}
