//! SNMP v1 (RFC 1157), as much of it as a manager needs to read and write objects: a message as bytes, and one request
//! with its tries.
//!
//! The reader is total: any bytes give a message or [`Malformed`], and nothing else.

mod ber;
mod exchange;
#[cfg(test)]
mod tests;

use core::fmt;

pub use exchange::{Exchange, Failure, Ids, Progress, TIMEOUT_MS, TRIES};

use ber::{Reader, Tag};

/// These bytes are no SNMP v1 message of a kind that is read here.
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

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ask for objects.
    Get,
    /// Write objects.
    Set,
    /// The answer to either.
    Response,
}

/// Why an agent refused (RFC 1157, section 4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorStatus {
    /// The answer does not fit a datagram.
    TooBig,
    /// There is no such object for this community.
    NoSuchName,
    /// The object cannot have this value.
    BadValue,
    /// The object cannot be written.
    ReadOnly,
    /// Anything else.
    GenErr,
    /// A number that RFC 1157 does not know.
    Unknown(i32),
}

impl ErrorStatus {
    fn from_number(number: i32) -> Option<Self> {
        match number {
            0 => None,
            1 => Some(Self::TooBig),
            2 => Some(Self::NoSuchName),
            3 => Some(Self::BadValue),
            4 => Some(Self::ReadOnly),
            5 => Some(Self::GenErr),
            other => Some(Self::Unknown(other)),
        }
    }

    fn number(self) -> i32 {
        match self {
            Self::TooBig => 1,
            Self::NoSuchName => 2,
            Self::BadValue => 3,
            Self::ReadOnly => 4,
            Self::GenErr => 5,
            Self::Unknown(other) => other,
        }
    }
}

impl fmt::Display for ErrorStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooBig => f.write_str("tooBig"),
            Self::NoSuchName => f.write_str("noSuchName"),
            Self::BadValue => f.write_str("badValue"),
            Self::ReadOnly => f.write_str("readOnly"),
            Self::GenErr => f.write_str("genErr"),
            Self::Unknown(number) => write!(f, "error {number}"),
        }
    }
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The password, in clear.
    pub community: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Which request it is or answers.
    pub id: i32,
    /// In a response: was it refused, and the binding (from 1) because of which.
    pub error: Option<(ErrorStatus, i32)>,
    /// Objects and their values.
    pub bindings: Vec<(Oid, Value)>,
}

impl Message {
    /// The datagram. Lengths and numbers take the fewest octets, as net-snmp writes them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let tag = match self.kind {
            Kind::Get => Tag::GET,
            Kind::Set => Tag::SET,
            Kind::Response => Tag::RESPONSE,
        };
        let (status, index) = self.error.map_or((0, 0), |(status, index)| (status.number(), index));
        let bindings: Vec<u8> = self.bindings.iter().flat_map(|(oid, value)| binding(oid, value)).collect();
        let body =
            [ber::integer(self.id), ber::integer(status), ber::integer(index), ber::element(Tag::SEQUENCE, &bindings)];
        let message = [ber::integer(0), ber::element(Tag::OCTETS, &self.community), ber::element(tag, &body.concat())];
        ber::element(Tag::SEQUENCE, &message.concat())
    }

    /// From a datagram, all of it.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        let mut message = Reader::all(datagram, Tag::SEQUENCE)?;
        if message.integer()? != 0 {
            return Err(Malformed);
        }
        let community = message.expect(Tag::OCTETS)?.to_vec();
        let (tag, body) = message.next()?;
        message.end()?;
        let kind = match tag {
            Tag::GET => Kind::Get,
            Tag::SET => Kind::Set,
            Tag::RESPONSE => Kind::Response,
            _ => return Err(Malformed),
        };
        let mut body = Reader::new(body);
        let (id, status, index) = (body.integer()?, body.integer()?, body.integer()?);
        let mut list = Reader::new(body.expect(Tag::SEQUENCE)?);
        body.end()?;
        let mut bindings = Vec::new();
        while !list.is_empty() {
            let mut pair = Reader::new(list.expect(Tag::SEQUENCE)?);
            let name = ber::arcs(pair.expect(Tag::OID)?)?;
            let value = match pair.next()? {
                (Tag::NULL, []) => Value::Null,
                (Tag::INTEGER, octets) => Value::Integer(ber::number(octets)?),
                (Tag::OCTETS, octets) => Value::Text(octets.to_vec()),
                (Tag::OID, octets) => Value::Oid(Oid(ber::arcs(octets)?)),
                (Tag::GAUGE, octets) => Value::Gauge(ber::unsigned(octets)?),
                (Tag(other), _) => Value::Other(other),
            };
            pair.end()?;
            bindings.push((Oid(name), value));
        }
        let error = ErrorStatus::from_number(status).map(|status| (status, index));
        Ok(Self { community, kind, id, error, bindings })
    }
}

fn binding(oid: &Oid, value: &Value) -> Vec<u8> {
    let value = match value {
        Value::Null => ber::element(Tag::NULL, &[]),
        Value::Integer(number) => ber::integer(*number),
        Value::Text(text) => ber::element(Tag::OCTETS, text),
        Value::Oid(oid) => ber::oid(oid.arcs()),
        Value::Gauge(number) => ber::gauge(*number),
        Value::Other(tag) => ber::element(Tag(*tag), &[]),
    };
    ber::element(Tag::SEQUENCE, &[ber::oid(oid.arcs()), value].concat())
}
