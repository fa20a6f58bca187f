//! The messages of version 3 as bytes (RFC 3412, section 6; RFC 3414, section 2.4). What they say is not trusted here: that
//! is [`super::usm`]'s to decide.
//!
//! ```text
//! version, [id, longest, flags, model], "[engine, boots, time, user, tag, salt]", data
//!                                                                             = [engine, context, PDU], or that encrypted
//! ```

use core::ops::Range;

use super::ber::{self, Reader, Tag};
use super::{Malformed, Pdu};

/// What a message of version 3 says of its version.
const VERSION: i32 = 3;
/// The longest datagram that we read, in octets, as we tell the agent: what fits an Ethernet frame.
pub const LONGEST: i32 = 1472;
/// The user-based security model.
const USM: i32 = 3;
/// Octets of an authentication tag (HMAC-MD5-96 and HMAC-SHA-96).
pub const TAG_BYTES: usize = 12;

const AUTHENTICATED: u8 = 1;
const ENCRYPTED: u8 = 2;
/// Whoever cannot take the message may say so.
const REPORTABLE: u8 = 4;

/// How a message is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Not at all.
    NoAuthNoPriv,
    /// Nobody without the key has made it.
    AuthNoPriv,
    /// And nobody without the key can read it.
    AuthPriv,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Which message it is or answers.
    pub id: i32,
    /// The longest datagram that the sender reads, in octets.
    pub longest: i32,
    /// How it is protected.
    pub level: Level,
    /// Whether a Report may answer it.
    pub reportable: bool,
    /// The agent's engine: 5 to 32 octets; none while it is to be learned.
    pub engine: Vec<u8>,
    /// How often that engine has been started.
    pub boots: i32,
    /// Seconds since then.
    pub time: i32,
    /// The user's name.
    pub user: Vec<u8>,
    /// The authentication tag; empty where there is none.
    pub tag: Vec<u8>,
    /// What the cipher was started with, as far as it is not known; empty where nothing is encrypted.
    pub salt: Vec<u8>,
    /// A [`Scoped`] as bytes, encrypted if `level` says so.
    pub data: Vec<u8>,
}

impl Message {
    /// The datagram, and where in it the tag is, which is made with zeros in its place.
    #[must_use]
    pub fn encode(&self) -> (Vec<u8>, Range<usize>) {
        let level = match self.level {
            Level::NoAuthNoPriv => 0,
            Level::AuthNoPriv => AUTHENTICATED,
            Level::AuthPriv => AUTHENTICATED | ENCRYPTED,
        };
        let flags = level | if self.reportable { REPORTABLE } else { 0 };
        let header = [ber::integer(self.id), ber::integer(self.longest), octets(&[flags]), ber::integer(USM)].concat();
        let salt = octets(&self.salt);
        let parameters = [
            octets(&self.engine),
            ber::integer(self.boots),
            ber::integer(self.time),
            octets(&self.user),
            octets(&self.tag),
            salt.clone(),
        ];
        let parameters = octets(&ber::element(Tag::SEQUENCE, &parameters.concat()));
        let data = if self.level == Level::AuthPriv { octets(&self.data) } else { self.data.clone() };
        let behind_tag = salt.len() + data.len();
        let message = [ber::integer(VERSION), ber::element(Tag::SEQUENCE, &header), parameters, data];
        let message = ber::element(Tag::SEQUENCE, &message.concat());
        let end = message.len().saturating_sub(behind_tag);
        (message, end.saturating_sub(self.tag.len())..end)
    }

    /// From a datagram, all of it; and where in it the tag is.
    ///
    /// # Errors
    /// [`Malformed`]; also what is encrypted and not authenticated, of another security model, or out of range.
    pub fn decode(datagram: &[u8]) -> Result<(Self, Range<usize>), Malformed> {
        let mut message = Reader::all(datagram, Tag::SEQUENCE)?;
        let version = message.integer()?;
        let mut header = Reader::new(message.expect(Tag::SEQUENCE)?);
        let (id, longest, flags, model) =
            (header.integer()?, header.integer()?, header.expect(Tag::OCTETS)?, header.integer()?);
        header.end()?;
        let mut parameters = Reader::all(message.expect(Tag::OCTETS)?, Tag::SEQUENCE)?;
        let behind_parameters = message.left();
        let engine = parameters.expect(Tag::OCTETS)?.to_vec();
        let (boots, time) = (parameters.integer()?, parameters.integer()?);
        let user = parameters.expect(Tag::OCTETS)?.to_vec();
        let tag = parameters.expect(Tag::OCTETS)?.to_vec();
        // Nothing follows the parameters in their string, nor the data in the datagram.
        let end = datagram.len().saturating_sub(behind_parameters + parameters.left());
        let salt = parameters.expect(Tag::OCTETS)?.to_vec();
        parameters.end()?;
        let [flags] = flags else { return Err(Malformed) };
        let level = match flags & (AUTHENTICATED | ENCRYPTED) {
            0 => Level::NoAuthNoPriv,
            AUTHENTICATED => Level::AuthNoPriv,
            ENCRYPTED => return Err(Malformed),
            _ => Level::AuthPriv,
        };
        let data = match level {
            Level::NoAuthNoPriv | Level::AuthNoPriv => ber::element(Tag::SEQUENCE, message.expect(Tag::SEQUENCE)?),
            Level::AuthPriv => message.expect(Tag::OCTETS)?.to_vec(),
        };
        message.end()?;
        if version != VERSION || model != USM || boots < 0 || time < 0 {
            return Err(Malformed);
        }
        let at = end.saturating_sub(tag.len())..end;
        let reportable = flags & REPORTABLE != 0;
        Ok((Self { id, longest, level, reportable, engine, boots, time, user, tag, salt, data }, at))
    }
}

fn octets(bytes: &[u8]) -> Vec<u8> {
    ber::element(Tag::OCTETS, bytes)
}

/// A PDU and whose objects it speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scoped {
    /// The engine that has the objects.
    pub engine: Vec<u8>,
    /// Which of its sets of objects; no device here has more than the one without a name.
    pub context: Vec<u8>,
    /// What is asked or answered.
    pub pdu: Pdu,
}

impl Scoped {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        ber::element(Tag::SEQUENCE, &[octets(&self.engine), octets(&self.context), self.pdu.encode()].concat())
    }

    /// From bytes, behind which there may be more: a block cipher fills its last block.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut scoped = Reader::new(Reader::new(bytes).expect(Tag::SEQUENCE)?);
        let (engine, context) = (scoped.expect(Tag::OCTETS)?.to_vec(), scoped.expect(Tag::OCTETS)?.to_vec());
        let pdu = Pdu::read(&mut scoped)?;
        scoped.end()?;
        Ok(Self { engine, context, pdu })
    }
}
