//! One request with its tries.
//!
//! Every try has a new request id and leaves from a new socket, so a reply that is late, repeated or somebody else's is
//! never taken for the reply to what was asked last. A reply counts if it carries the id of the last try, the community,
//! and the very objects that were asked; and for a SET, the values that were written.

use super::{ErrorStatus, Kind, Message, Oid, Value};

/// How long one try waits for its reply.
pub const TIMEOUT_MS: u64 = 1000;
/// How often a request is sent before it has failed.
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

    /// What it wants now.
    pub fn poll(&mut self, now_ms: u64, community: &str, ids: &mut Ids) -> Progress {
        match (&self.end, self.waiting) {
            (Some(Ok(values)), _) => Progress::Answered(values.clone()),
            (Some(Err(failure)), _) => Progress::Failed(*failure),
            (None, Some((_, until))) if now_ms < until => Progress::Wait(until),
            (None, _) if self.tries == TRIES => Progress::Failed(Failure::NoReply),
            (None, _) => {
                self.tries += 1;
                let id = ids.draw();
                self.waiting = Some((id, now_ms + TIMEOUT_MS));
                let community = community.as_bytes().to_vec();
                let message = Message { community, kind: self.kind, id, error: None, bindings: self.bindings.clone() };
                Progress::Send(message.encode())
            }
        }
    }

    /// A datagram has come. Was it the reply?
    pub fn handle(&mut self, community: &str, datagram: &[u8]) -> bool {
        let (Some((id, _)), None, Ok(reply)) = (self.waiting, &self.end, Message::decode(datagram)) else {
            return false;
        };
        if reply.kind != Kind::Response || reply.id != id || reply.community != community.as_bytes() {
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
            self.end = Some(Ok(reply.bindings.into_iter().map(|(_, value)| value).collect()));
        }
        answers
    }
}
