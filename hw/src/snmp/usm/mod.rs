//! Version 3 with the user-based security model (RFC 3414): always authenticated and encrypted.
//!
//! What it decides: which datagrams count. Before a user's keys can be made, and his messages dated, the agent says who it
//! is and what its clock says:
//!
//! ```text
//! who is there?           no user, nothing encrypted   Report: unknownEngineIDs   its engine, which nobody vouches for
//! the request, year zero  authenticated, encrypted     Report: notInTimeWindows   its clock, authenticated
//! the request             authenticated, encrypted     the reply, likewise
//! ```
//!
//! What the first Report says is not believed but tried: keys are made for that engine, and only an agent that has the same
//! ones can go on. The clock that it also tells is not used, since a message that is dated by somebody else could be kept
//! until its time comes. Once an engine has authenticated itself, there is no other in this dialogue, nor in any later one
//! with the same [`Expected`]: what another engine says is tried no more, and is the reason that a failure gives.
//!
//! A clock is learned anew in every dialogue. To remember it would not keep anything out (an answer to another message does
//! not count, and no two have the same numbers), and a card that has forgotten how often it was started would never be
//! believed again.
//!
//! A message counts if it answers the last one that was sent, comes from that engine for that user with the right tag, and
//! is neither from before nor from another time; a reply, if it is encrypted as well. A Report that is not authenticated
//! (the agent has no key for who asks) proves nothing: it gives a failure its words, once every try has gone by.

mod engine;
mod keys;
#[cfg(test)]
mod tests;

use core::fmt;

use super::session::Heard;
use super::v3::{LONGEST, Level, Message, Scoped, TAG_BYTES};
use super::{Ids, Kind, Oid, Pdu};

pub use engine::{EngineId, Expected};
pub use keys::Protocols;
use keys::{Keys, Master};

/// The fewest characters of a password (RFC 3414, section 11.2).
pub const PASSWORD: usize = 8;
/// The most octets of a user's name.
pub const NAME: usize = 32;

/// By how many seconds a message may be older than the newest.
const WINDOW: i32 = 150;
/// The number of starts after which an engine never speaks again.
const LAST_BOOT: i32 = i32::MAX;

/// What no user can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// A name of no octet, or of more than [`NAME`].
    Name,
    /// A password of fewer than [`PASSWORD`] octets.
    Password,
}

/// A user of version 3, as what can be made of his passwords once and for all. Never shown.
#[derive(Clone)]
pub struct User {
    name: String,
    master: Master,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("User")
    }
}

impl User {
    /// From what the device was told of him. Takes some milliseconds of hashing.
    ///
    /// # Errors
    /// [`Unfit`].
    pub fn new(name: &str, authentication: &str, privacy: &str, protocols: Protocols) -> Result<Self, Unfit> {
        if !(1..=NAME).contains(&name.len()) {
            return Err(Unfit::Name);
        }
        if authentication.len() < PASSWORD || privacy.len() < PASSWORD {
            return Err(Unfit::Password);
        }
        Ok(Self { name: name.to_owned(), master: Master::new(protocols, authentication, privacy) })
    }
}

/// What the agent did not take; nobody vouches for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It has no such user.
    User,
    /// The tag is not what the user's password makes it.
    Password,
    /// This user may not authenticate and encrypt.
    Level,
    /// It finds the message old, however often it has told its clock.
    Window,
    /// It cannot decrypt, or it has said nothing to what is encrypted.
    Encryption,
    /// It has said who it is, and then nothing to this user.
    Ignored,
    /// It is another device than the one that is expected.
    Engine {
        /// Who should be there.
        expected: EngineId,
        /// Who is.
        found: EngineId,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Engine { expected, found } => {
                return write!(f, "is another device: its engine is {found}, not {expected}");
            }
            Self::User => "knows no such user",
            Self::Password => "refuses the user or password",
            Self::Level => "does not let this user authenticate and encrypt",
            Self::Window => "does not keep to its own clock, and finds every request too old",
            Self::Encryption => "does not answer what is encrypted: is priv_password right?",
            Self::Ignored => "is there, but does not answer this user",
        })
    }
}

/// usmStats: what a Report is about.
const USM_STATS: &[u32] = &[1, 3, 6, 1, 6, 3, 15, 1, 1];

/// What a Report says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Report {
    Clock,
    Engine,
    Refusal(Refusal),
}

impl Report {
    fn of(pdu: &Pdu) -> Option<Self> {
        let object = |number| Oid::new(USM_STATS, &[number, 0]);
        let [(oid, _)] = pdu.bindings.as_slice() else { return None };
        let known = [
            (1, Self::Refusal(Refusal::Level)),
            (2, Self::Clock),
            (3, Self::Refusal(Refusal::User)),
            (4, Self::Engine),
            (5, Self::Refusal(Refusal::Password)),
            (6, Self::Refusal(Refusal::Encryption)),
        ];
        let (_, report) = known.into_iter().find(|(number, _)| object(*number) == *oid)?;
        (pdu.kind == Kind::Report).then_some(report)
    }
}

/// An engine's clock, as it last told it.
#[derive(Debug, Clone, Copy)]
struct Clock {
    boots: i32,
    time: i32,
    /// When that was, in our milliseconds.
    told_ms: u64,
}

impl Clock {
    /// What it should be by now.
    fn time(&self, now_ms: u64) -> i32 {
        let passed = i32::try_from(now_ms.saturating_sub(self.told_ms) / 1000).unwrap_or(i32::MAX);
        self.time.saturating_add(passed)
    }

    /// Is an authenticated message of that time no older than it may be? Whatever is newer sets the clock (RFC 3414,
    /// section 3.2, 7b).
    fn takes(&mut self, now_ms: u64, boots: i32, time: i32) -> bool {
        if (boots, time) > (self.boots, self.time) {
            *self = Self { boots, time, told_ms: now_ms };
        }
        boots == self.boots && boots != LAST_BOOT && time >= self.time(now_ms).saturating_sub(WINDOW)
    }
}

/// An agent, as far as it is known.
struct Engine {
    id: EngineId,
    keys: Keys,
    /// Known once it has authenticated itself.
    clock: Option<Clock>,
}

/// What is known of the agent in the course of one dialogue.
pub(super) struct Talk {
    user: User,
    expected: Expected,
    engine: Option<Engine>,
    /// The message that was sent last.
    sent: Option<i32>,
    /// The salt that was used last.
    salt: Option<u64>,
    /// Has an engine ever said that it is there?
    found: bool,
    /// Has it replied, authenticated and encrypted?
    replied: bool,
    /// What it did not take, by its own word.
    refusal: Option<Refusal>,
}

impl Talk {
    pub(super) fn new(user: User, expected: Expected) -> Self {
        Self { user, expected, engine: None, sent: None, salt: None, found: false, replied: false, refusal: None }
    }

    /// Why nothing came of a request, if anything is known.
    pub(super) fn why(&self) -> Option<Refusal> {
        let synchronised = self.engine.as_ref().is_some_and(|engine| engine.clock.is_some());
        let silent = if synchronised { Refusal::Encryption } else { Refusal::Ignored };
        self.refusal.or_else(|| (self.found && !self.replied).then_some(silent))
    }

    /// The datagram that carries the request, or asks first what must be known for that.
    pub(super) fn send(&mut self, now_ms: u64, pdu: &Pdu, ids: &mut Ids) -> Vec<u8> {
        let id = ids.draw();
        self.sent = Some(id);
        self.sealed(now_ms, id, pdu, ids).unwrap_or_else(|| who_is_there(id, pdu.id))
    }

    fn sealed(&mut self, now_ms: u64, id: i32, pdu: &Pdu, ids: &mut Ids) -> Option<Vec<u8>> {
        let engine = self.engine.as_ref()?;
        let (boots, time) = engine.clock.map_or((0, 0), |clock| (clock.boots, clock.time(now_ms)));
        let begin = || u64::from(ids.draw().unsigned_abs()) << 32 | u64::from(ids.draw().unsigned_abs());
        let salt = self.salt.unwrap_or_else(begin).wrapping_add(1);
        self.salt = Some(salt);
        let scoped = Scoped { engine: engine.id.octets().to_vec(), context: Vec::new(), pdu: pdu.clone() };
        let (data, salt) = engine.keys.encrypt(boots, time, salt, &scoped.encode())?;
        let message = Message {
            id,
            longest: LONGEST,
            level: Level::AuthPriv,
            reportable: true,
            engine: engine.id.octets().to_vec(),
            boots,
            time,
            user: self.user.name.clone().into_bytes(),
            tag: vec![0; TAG_BYTES],
            salt,
            data,
        };
        let (mut datagram, at) = message.encode();
        let tag = engine.keys.tag(&datagram)?;
        datagram.get_mut(at)?.copy_from_slice(&tag);
        Some(datagram)
    }

    /// The last message was not answered in time. An engine that has not authenticated itself may have been anybody.
    pub(super) fn lost(&mut self) {
        self.engine = self.engine.take().filter(|engine| engine.clock.is_some());
    }

    /// A datagram has come.
    pub(super) fn hear(&mut self, now_ms: u64, datagram: &[u8]) -> Heard {
        let Ok((message, at)) = Message::decode(datagram) else { return Heard::Nothing };
        if self.sent != Some(message.id) {
            return Heard::Nothing;
        }
        match message.level {
            Level::NoAuthNoPriv => self.told(&message),
            Level::AuthNoPriv | Level::AuthPriv => {
                let mut blank = datagram.to_vec();
                blank.get_mut(at).into_iter().for_each(|tag| tag.fill(0));
                self.opened(now_ms, &message, &blank).unwrap_or(Heard::Nothing)
            }
        }
    }

    /// What nobody vouches for.
    fn told(&mut self, message: &Message) -> Heard {
        let Ok(scoped) = Scoped::decode(&message.data) else { return Heard::Nothing };
        match (Report::of(&scoped.pdu), &self.engine) {
            (Some(Report::Engine), None) => {
                let Some(id) = EngineId::new(&message.engine) else { return Heard::Nothing };
                if let Some(expected) = self.expected.known().filter(|expected| *expected != id) {
                    self.refusal = Some(Refusal::Engine { expected, found: id });
                    return Heard::Nothing;
                }
                let keys = self.user.master.at(id.octets());
                self.engine = Some(Engine { id, keys, clock: None });
                self.found = true;
                Heard::Learned
            }
            (Some(Report::Refusal(refusal)), Some(_)) if !self.replied => {
                self.refusal = Some(refusal);
                Heard::Nothing
            }
            (Some(Report::Engine | Report::Clock | Report::Refusal(_)) | None, _) => Heard::Nothing,
        }
    }

    /// What has a tag: `blank` is the datagram with zeros in its place.
    fn opened(&mut self, now_ms: u64, message: &Message, blank: &[u8]) -> Option<Heard> {
        let engine = self.engine.as_mut()?;
        let tag = message.tag.as_slice().try_into().ok()?;
        if message.engine != engine.id.octets()
            || message.user != self.user.name.as_bytes()
            || !engine.keys.is_tag(blank, tag)
        {
            return None;
        }
        let plain = match message.level {
            Level::AuthPriv => engine.keys.decrypt(message.boots, message.time, &message.salt, &message.data)?,
            Level::AuthNoPriv | Level::NoAuthNoPriv => message.data.clone(),
        };
        let scoped = Scoped::decode(&plain).ok()?;
        let (boots, time) = (message.boots, message.time);
        let known = engine.clock.is_some();
        let clock = engine.clock.get_or_insert(Clock { boots, time, told_ms: now_ms });
        if !clock.takes(now_ms, boots, time) {
            return None;
        }
        let expected = self.expected.met(engine.id);
        if expected != engine.id {
            // Two have been met at the same time.
            self.refusal = Some(Refusal::Engine { expected, found: engine.id });
            return None;
        }
        match (Report::of(&scoped.pdu), message.level) {
            (Some(Report::Clock), _) => {
                self.refusal = known.then_some(Refusal::Window);
                Some(if known { Heard::Corrected } else { Heard::Learned })
            }
            (Some(Report::Refusal(refusal)), _) => {
                self.refusal = Some(refusal);
                None
            }
            (None, Level::AuthPriv) => {
                (self.refusal, self.replied) = (None, true);
                Some(Heard::Reply(scoped.pdu))
            }
            (Some(Report::Engine), _) | (None, Level::AuthNoPriv | Level::NoAuthNoPriv) => None,
        }
    }
}

/// The question that needs no user (RFC 3414, section 4).
fn who_is_there(id: i32, request: i32) -> Vec<u8> {
    let pdu = Pdu { kind: Kind::Get, id: request, error: None, bindings: Vec::new() };
    let message = Message {
        id,
        longest: LONGEST,
        level: Level::NoAuthNoPriv,
        reportable: true,
        engine: Vec::new(),
        boots: 0,
        time: 0,
        user: Vec::new(),
        tag: Vec::new(),
        salt: Vec::new(),
        data: Scoped { engine: Vec::new(), context: Vec::new(), pdu }.encode(),
    };
    message.encode().0
}
