//! An APC AP7921 (switched rack PDU with its first management card, NMC1) or AP7921B (with its second) over SNMP, version 1 or 3.
//!
//! What it decides: whether outlets are off. They are when one reading shows every one of them as off with nothing
//! pending, and the next reading does so again; any other answer, or none, is not off. The reply to a command proves
//! nothing and is not taken for a proof.
//!
//! ```text
//! which device is it?     sysObjectID, then model and number of outlets: anything but these two is refused
//! the outlets asked for   are there, and called as the caller expects
//! what is pending         is cancelled: a delayed "on" would undo everything
//! command                 each outlet, one after another
//! read back               all of them in one reading, again and again
//! ```
//!
//! Sources: PowerNet-MIB 3.6.9; what other drivers of this device get wrong (an unknown state taken for off, one outlet
//! of two read back, the reboot command, which cannot be verified by reading).

mod branch;
pub mod console;
mod status;
mod switch;
#[cfg(test)]
mod tests;

use core::fmt;

use crate::dialogue::{Dialogue, Step};
use crate::snmp::usm::Refusal;
use crate::snmp::{Access, ErrorStatus, Exchange, Failure, Ids, Oid, Progress, Session, Value};

use branch::{Branch, pending_of};

pub use status::{load, status};
pub use switch::switch;

/// How long after a reading has come the next one is asked for, in milliseconds. There is one request at a time, so a slow
/// card sets its own pace; a short pause lets the second of two readings that agree come soon after the first.
pub const READING_INTERVAL_MS: u64 = 25;

const SYS_OBJECT_ID: &[u32] = &[1, 3, 6, 1, 2, 1, 1, 2, 0];
/// An outlet's relay, as commanded, or as read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relay {
    /// It gives power.
    On,
    /// It gives none.
    Off,
}

impl fmt::Display for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Off => "off",
        })
    }
}

/// An outlet to be switched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlet {
    /// Its number, from 1.
    pub number: u8,
    /// What the PDU must call it, where the caller knows: a check that the wiring is as planned.
    pub name: Option<String>,
}

/// What an outlet was read as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its number, from 1.
    pub outlet: u8,
    /// On or off; or whatever else was answered.
    pub state: Result<Relay, Value>,
    /// Is a command pending? Or whatever else was answered.
    pub pending: Result<bool, Value>,
}

impl Seen {
    fn new(branch: &Branch, outlet: u8, state: &Value, pending: &Value) -> Self {
        Self { outlet, state: branch.state_of(state), pending: pending_of(pending) }
    }

    fn is_settled(&self, relay: Relay) -> bool {
        self.state == Ok(relay) && self.pending == Ok(false)
    }
}

fn name_of(value: &Value) -> String {
    if let Value::Text(text) = value { String::from_utf8_lossy(text).into_owned() } else { value.to_string() }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "outlet {} ", self.outlet)?;
        match &self.state {
            Ok(relay) => write!(f, "is {relay}")?,
            Err(Value::Integer(number)) => write!(f, "is in unknown state {number}")?,
            Err(other) => write!(f, "is in unknown state: {other}")?,
        }
        match &self.pending {
            Ok(false) => Ok(()),
            Ok(true) => f.write_str(", a command is pending"),
            Err(other) => write!(f, ", pending commands unknown: {other}"),
        }
    }
}

/// Why a dialogue did not come to its goal, in words for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Nothing was ever heard.
    NoReply,
    /// It replied at first, and then no more; what was read last.
    FellSilent(Vec<Seen>),
    /// It refused what was asked.
    Refused {
        /// Asked for what.
        asked: String,
        /// The refusal.
        status: ErrorStatus,
    },
    /// It does not take version 3 of this user.
    Unwilling(Refusal),
    /// It is neither an AP7921 nor an AP7921B: what it says it is.
    WrongModel(String),
    /// No outlet was given to switch.
    NoOutlet,
    /// There is no such outlet.
    OutOfRange {
        /// The number that was given.
        outlet: u8,
        /// How many there are.
        outlets: u8,
    },
    /// The PDU calls an outlet something else.
    Name {
        /// Which.
        outlet: u8,
        /// What it should be called.
        expected: String,
        /// What it is called.
        found: String,
    },
    /// What it says of its load is no measurement.
    NoLoad(Value),
    /// The caller gave up, with the outlets not all as commanded; what was read last.
    GaveUp(Vec<Seen>),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoReply => {
                f.write_str("no reply: wrong address, community or version of SNMP, a filter in the PDU, or no PDU")
            }
            Self::FellSilent(last) => write_last(f, "no reply any more", last),
            Self::Refused { asked, status } => write!(f, "refused to {asked}: {status}"),
            Self::Unwilling(Refusal::Engine { expected, found }) => {
                write!(f, "another device answers: its SNMP engine is {found}, not {expected}")
            }
            Self::Unwilling(refusal) => write!(f, "the power switch {refusal} (SNMP v3)"),
            Self::WrongModel(found) => write!(f, "neither an AP7921 nor an AP7921B: {found}"),
            Self::NoOutlet => f.write_str("no outlet was given"),
            Self::OutOfRange { outlet, outlets } => write!(f, "there is no outlet {outlet}: the PDU has {outlets}"),
            Self::Name { outlet, expected, found } => {
                write!(f, "outlet {outlet} is called \"{found}\", not \"{expected}\"")
            }
            Self::NoLoad(value) => write!(f, "no load, but {value}"),
            Self::GaveUp(last) => write_last(f, "not done in time", last),
        }
    }
}

fn write_last(f: &mut fmt::Formatter<'_>, what: &str, last: &[Seen]) -> fmt::Result {
    f.write_str(what)?;
    for (index, seen) in last.iter().enumerate() {
        let gap = if index == 0 { "; last seen: " } else { "; " };
        write!(f, "{gap}{seen}")?;
    }
    Ok(())
}

impl core::error::Error for Error {}

/// What comes next in a dialogue.
#[derive(Debug)]
enum Next<Answer> {
    /// Ask this, for this purpose ("to ..").
    Ask(Exchange, String),
    /// The same, but not before so many milliseconds have passed.
    AskLater(u64, Exchange, String),
    Done(Result<Answer, Error>),
}

/// The order in which a dialogue asks what it asks.
trait Plan {
    type Answer: Clone;

    /// Once the device is known, and how many outlets it has.
    fn begin(&mut self, branch: &'static Branch, outlets: u8) -> Next<Self::Answer>;
    /// The values that were asked for last have come.
    fn answered(&mut self, values: &[Value]) -> Next<Self::Answer>;
    /// What the outlets were last read as.
    fn last_seen(&self) -> &[Seen];
}

/// A dialogue with an AP7921. Made by [`switch`], [`status`] and [`load`].
struct Talk<P: Plan> {
    session: Session,
    ids: Ids,
    plan: P,
    stage: Stage,
    exchange: Exchange,
    /// What is asked, for an error's text.
    asked: String,
    /// Nothing is sent before.
    rest_until: Option<u64>,
    heard: bool,
    outcome: Option<Result<P::Answer, Error>>,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    ObjectId,
    Model(&'static Branch),
    Plan,
}

impl<P: Plan> Talk<P> {
    fn new(plan: P, access: &Access, seed: u64) -> Self {
        Self {
            session: Session::new(access),
            ids: Ids::new(seed),
            plan,
            stage: Stage::ObjectId,
            exchange: Exchange::get([Oid::new(SYS_OBJECT_ID, &[])]),
            asked: "say what it is".to_owned(),
            rest_until: None,
            heard: false,
            outcome: None,
        }
    }

    /// What follows from the values that were asked for last.
    fn answered(&mut self, values: &[Value]) -> Next<P::Answer> {
        match (self.stage, values) {
            (Stage::ObjectId, [Value::Oid(device)]) if let Some(branch) = Branch::of(device) => {
                self.stage = Stage::Model(branch);
                Next::Ask(Exchange::get(branch.identity()), "name its model".to_owned())
            }
            (Stage::Model(branch), [Value::Text(model), Value::Integer(outlets)])
                if model.trim_ascii() == branch.model.as_bytes() =>
            {
                self.stage = Stage::Plan;
                self.plan.begin(branch, u8::try_from(*outlets).unwrap_or(0))
            }
            (Stage::ObjectId | Stage::Model(_), values) => {
                let found: Vec<String> = values.iter().map(ToString::to_string).collect();
                Next::Done(Err(Error::WrongModel(found.join(", "))))
            }
            (Stage::Plan, values) => self.plan.answered(values),
        }
    }

    fn failed(&self, failure: Failure) -> Error {
        match failure {
            Failure::NoReply if !self.heard => Error::NoReply,
            Failure::NoReply => Error::FellSilent(self.plan.last_seen().to_vec()),
            Failure::Unwilling(refusal) => Error::Unwilling(refusal),
            Failure::Refused(status) => Error::Refused { asked: self.asked.clone(), status },
        }
    }
}

impl<P: Plan> Dialogue for Talk<P> {
    type Outcome = Result<P::Answer, Error>;

    fn poll(&mut self, now_ms: u64) -> Step<Self::Outcome> {
        loop {
            if let Some(outcome) = &self.outcome {
                return Step::Done(outcome.clone());
            }
            if let Some(until) = self.rest_until.filter(|until| now_ms < *until) {
                return Step::Wait(until);
            }
            let next = match self.exchange.poll(now_ms, &mut self.session, &mut self.ids) {
                Progress::Send(datagram) => return Step::Send(datagram),
                Progress::Wait(until) => return Step::Wait(until),
                Progress::Answered(values) => self.answered(&values),
                Progress::Failed(failure) => Next::Done(Err(self.failed(failure))),
            };
            match next {
                Next::Ask(exchange, asked) => (self.exchange, self.asked) = (exchange, asked),
                Next::AskLater(rest_ms, exchange, asked) => {
                    (self.exchange, self.asked) = (exchange, asked);
                    self.rest_until = Some(now_ms + rest_ms);
                }
                Next::Done(outcome) => self.outcome = Some(outcome),
            }
        }
    }

    fn handle(&mut self, now_ms: u64, datagram: &[u8]) {
        if self.exchange.handle(now_ms, &mut self.session, datagram) {
            self.heard = true;
        }
    }

    fn give_up(&self) -> Self::Outcome {
        let given_up = match self.session.why() {
            _ if self.heard => Error::GaveUp(self.plan.last_seen().to_vec()),
            Some(refusal) => Error::Unwilling(refusal),
            None => Error::NoReply,
        };
        self.outcome.clone().unwrap_or(Err(given_up))
    }
}
