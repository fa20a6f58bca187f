//! A request or its answer, whatever carries it (RFC 1157; RFC 3416 has the same form and more errors).

use core::fmt;

use super::ber::{self, Reader, Tag};
use super::{Malformed, Oid, Value};

/// What it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ask for objects.
    Get,
    /// Write objects.
    Set,
    /// The answer to either.
    Response,
    /// What an agent of version 3 says of a message that it did not take.
    Report,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Get, Self::Set, Self::Response, Self::Report];

    fn tag(self) -> Tag {
        match self {
            Self::Get => Tag::GET,
            Self::Set => Tag::SET,
            Self::Response => Tag::RESPONSE,
            Self::Report => Tag::REPORT,
        }
    }
}

/// Why an agent refused (RFC 1157, section 4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorStatus {
    /// The answer does not fit a datagram.
    TooBig,
    /// There is no such object for this community or user.
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

/// The errors of versions 2 and 3, from number 6 (RFC 3416, section 3).
const LATER_ERRORS: [&str; 13] = [
    "noAccess",
    "wrongType",
    "wrongLength",
    "wrongEncoding",
    "wrongValue",
    "noCreation",
    "inconsistentValue",
    "resourceUnavailable",
    "commitFailed",
    "undoFailed",
    "authorizationError",
    "notWritable",
    "inconsistentName",
];

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
            Self::Unknown(number) => {
                let name = number.checked_sub(6).and_then(|at| LATER_ERRORS.get(usize::try_from(at).ok()?));
                match name {
                    Some(name) => f.write_str(name),
                    None => write!(f, "error {number}"),
                }
            }
        }
    }
}

/// A request or its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pdu {
    /// What it is.
    pub kind: Kind,
    /// Which request it is or answers.
    pub id: i32,
    /// In a response: was it refused, and the binding (from 1) because of which.
    pub error: Option<(ErrorStatus, i32)>,
    /// Objects and their values.
    pub bindings: Vec<(Oid, Value)>,
}

impl Pdu {
    /// Its bytes. Lengths and numbers take the fewest octets, as net-snmp writes them.
    pub(super) fn encode(&self) -> Vec<u8> {
        let (status, index) = self.error.map_or((0, 0), |(status, index)| (status.number(), index));
        let bindings: Vec<u8> = self.bindings.iter().flat_map(|(oid, value)| binding(oid, value)).collect();
        let body =
            [ber::integer(self.id), ber::integer(status), ber::integer(index), ber::element(Tag::SEQUENCE, &bindings)];
        ber::element(self.kind.tag(), &body.concat())
    }

    /// The next element that there is to read.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (tag, body) = reader.next()?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.tag() == tag).ok_or(Malformed)?;
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
                (Tag::NULL, _) => return Err(Malformed),
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
        Ok(Self { kind, id, error, bindings })
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
