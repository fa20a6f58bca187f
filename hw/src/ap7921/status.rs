//! Reading all outlets, and what they draw together.

use super::branch::{Branch, RPDU};
use super::{Error, Next, Plan, Seen, Talk, name_of};
use crate::dialogue::Dialogue;
use crate::snmp::{Access, Exchange, Value};

/// Reads every outlet of the PDU, in the order of their numbers, with its name. `seed` should differ from one dialogue to
/// the next.
#[must_use]
pub fn status(access: &Access, seed: u64) -> impl Dialogue<Outcome = Result<Vec<(Seen, String)>, Error>> + use<> {
    Talk::new(Status { branch: &RPDU, outlets: 0, names: Vec::new(), seen: Vec::new() }, access, seed)
}

/// The plan of [`status`].
#[derive(Debug)]
struct Status {
    /// What the device turned out to be.
    branch: &'static Branch,
    outlets: u8,
    names: Vec<String>,
    seen: Vec<Seen>,
}

impl Plan for Status {
    type Answer = Vec<(Seen, String)>;

    fn begin(&mut self, branch: &'static Branch, outlets: u8) -> Next<Self::Answer> {
        (self.branch, self.outlets) = (branch, outlets);
        self.next()
    }

    fn answered(&mut self, values: &[Value]) -> Next<Self::Answer> {
        if let [name, state, pending] = values {
            self.seen.push(Seen::new(self.branch, self.number(), state, pending));
            self.names.push(name_of(name));
        }
        self.next()
    }

    fn last_seen(&self) -> &[Seen] {
        &self.seen
    }
}

impl Status {
    /// The outlet that is read next.
    fn number(&self) -> u8 {
        u8::try_from(self.seen.len() + 1).unwrap_or(u8::MAX)
    }

    fn next(&self) -> Next<Vec<(Seen, String)>> {
        let number = self.number();
        if number > self.outlets {
            return Next::Done(Ok(self.seen.iter().cloned().zip(self.names.iter().cloned()).collect()));
        }
        let columns = [self.branch.name, self.branch.state, self.branch.pending];
        let objects = columns.map(|column| self.branch.of_outlet(column, number));
        Next::Ask(Exchange::get(objects), format!("read outlet {number}"))
    }
}

/// Reads what all outlets of the PDU draw together, in tenths of an ampere; neither card measures single outlets. `seed`
/// should differ from one dialogue to the next.
#[must_use]
pub fn load(access: &Access, seed: u64) -> impl Dialogue<Outcome = Result<u32, Error>> + use<> {
    Talk::new(Load, access, seed)
}

/// The plan of [`load`].
#[derive(Debug)]
struct Load;

impl Plan for Load {
    type Answer = u32;

    fn begin(&mut self, _branch: &'static Branch, _outlets: u8) -> Next<u32> {
        // Both cards keep it in the branch of the first.
        Next::Ask(Exchange::get([RPDU.load()]), "read its load".to_owned())
    }

    fn answered(&mut self, values: &[Value]) -> Next<u32> {
        match values {
            [Value::Gauge(load)] => Next::Done(Ok(*load)),
            _ => Next::Done(Err(Error::NoLoad(values.first().cloned().unwrap_or(Value::Null)))),
        }
    }

    fn last_seen(&self) -> &[Seen] {
        &[]
    }
}
