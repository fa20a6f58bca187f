//! One request with its tries.
//!
//! Every try has a new request id and leaves from a new socket, so a reply that is late, repeated or somebody else's is
//! never taken for the reply to what was asked last. A reply counts if it comes from whom the [`Session`] takes it from,
//! carries the id of the last try and the very objects that were asked; and for a SET, the values that were written.

use super::session::Heard;
use super::usm::Refusal;
use super::{ErrorStatus, Kind, Oid, Pdu, Session, Value};

/// How long one try waits for its reply.
pub const TIMEOUT_MS: u64 = 1000;
/// How often a request is sent before it has failed. What version 3 must learn first is not counted, as long as the agent
/// answers that.
pub const TRIES: u8 = 5;

/// Request ids, none of them easy to guess from the last (splitmix64, Steele et al. 2014).
#[derive(Debug, Clone)]
pub struct Ids(u64);

impl Ids {
    /// From a seed that should differ from one dialogue to the next.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next id, from 0 to 2^31 - 1.
    pub fn draw(&mut self) -> i32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        i32::try_from((mixed ^ (mixed >> 31)) >> 33).unwrap_or(0)
    }
}

/// Why a request got nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No try was replied to.
    NoReply,
    /// The agent refused it.
    Refused(ErrorStatus),
    /// No try was replied to, and the agent has said why: it does not take version 3 of this user.
    Unwilling(Refusal),
}

/// How a request stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Send this, from a new socket.
    Send(Vec<u8>),
    /// Wait until then.
    Wait(u64),
    /// The values, in the order in which they were asked for.
    Answered(Vec<Value>),
    /// It has failed.
    Failed(Failure),
}

/// A request, from its first try to its end.
#[derive(Debug, Clone)]
pub struct Exchange {
    kind: Kind,
    bindings: Vec<(Oid, Value)>,
    tries: u8,
    /// The try that a reply is waited for: its id, and until when.
    waiting: Option<(i32, u64)>,
    end: Option<Result<Vec<Value>, Failure>>,
}

impl Exchange {
    /// Asks for these objects.
    #[must_use]
    pub fn get(objects: impl IntoIterator<Item = Oid>) -> Self {
        Self::new(Kind::Get, objects.into_iter().map(|oid| (oid, Value::Null)).collect())
    }

    /// Writes a number to this object.
    #[must_use]
    pub fn set(object: Oid, number: i32) -> Self {
        Self::new(Kind::Set, vec![(object, Value::Integer(number))])
    }

    fn new(kind: Kind, bindings: Vec<(Oid, Value)>) -> Self {
        Self { kind, bindings, tries: 0, waiting: None, end: None }
    }

    /// What it wants now. Always with the same session.
    pub fn poll(&mut self, now_ms: u64, session: &mut Session, ids: &mut Ids) -> Progress {
        match (&self.end, self.waiting) {
            (Some(Ok(values)), _) => return Progress::Answered(values.clone()),
            (Some(Err(failure)), _) => return Progress::Failed(*failure),
            (None, Some((_, until))) if now_ms < until => return Progress::Wait(until),
            (None, Some(_)) => session.lost(),
            (None, None) => {}
        }
        if self.tries == TRIES {
            return Progress::Failed(session.why().map_or(Failure::NoReply, Failure::Unwilling));
        }
        self.tries += 1;
        let id = ids.draw();
        self.waiting = Some((id, now_ms + TIMEOUT_MS));
        let pdu = Pdu { kind: self.kind, id, error: None, bindings: self.bindings.clone() };
        Progress::Send(session.send(now_ms, &pdu, ids))
    }

    /// A datagram has come. Was it the reply?
    pub fn handle(&mut self, now_ms: u64, session: &mut Session, datagram: &[u8]) -> bool {
        let (Some((id, _)), None) = (self.waiting, &self.end) else { return false };
        let reply = match session.hear(now_ms, datagram) {
            Heard::Nothing => return false,
            Heard::Learned => {
                self.tries = self.tries.saturating_sub(1);
                self.waiting = None;
                return false;
            }
            Heard::Corrected => {
                self.waiting = None;
                return false;
            }
            Heard::Reply(reply) => reply,
        };
        if reply.kind != Kind::Response || reply.id != id {
            return false;
        }
        if let Some((status, _)) = reply.error {
            self.end = Some(Err(Failure::Refused(status)));
            return true;
        }
        let same = |((oid, value), (asked, wrote)): (&(Oid, Value), &(Oid, Value))| {
            oid == asked && (self.kind != Kind::Set || value == wrote)
        };
        let answers =
            reply.bindings.len() == self.bindings.len() && reply.bindings.iter().zip(&self.bindings).all(same);
        if answers {
            let absent = reply.bindings.iter().any(|(_, value)| value.is_absent());
            let values = reply.bindings.into_iter().map(|(_, value)| value).collect();
            self.end = Some(if absent { Err(Failure::Refused(ErrorStatus::NoSuchName)) } else { Ok(values) });
        }
        answers
    }
}
