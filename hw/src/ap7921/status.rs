//! Reading all outlets.

use super::{Error, Next, Plan, STATUS_NAME, STATUS_PENDING, STATUS_STATE, Seen, Talk, name_of, of_outlet};
use crate::dialogue::Dialogue;
use crate::snmp::{Exchange, Value};

/// Reads every outlet of the PDU, in the order of their numbers, with its name. `seed` should differ from one dialogue to
/// the next.
#[must_use]
pub fn status(community: &str, seed: u64) -> impl Dialogue<Outcome = Result<Vec<(Seen, String)>, Error>> + use<> {
    Talk::new(Status { outlets: 0, names: Vec::new(), seen: Vec::new() }, community, seed)
}

/// The plan of [`status`].
#[derive(Debug)]
struct Status {
    outlets: u8,
    names: Vec<String>,
    seen: Vec<Seen>,
}

impl Plan for Status {
    type Answer = Vec<(Seen, String)>;

    fn begin(&mut self, outlets: u8) -> Next<Self::Answer> {
        self.outlets = outlets;
        self.next()
    }

    fn answered(&mut self, values: &[Value]) -> Next<Self::Answer> {
        if let [name, state, pending] = values {
            self.seen.push(Seen::new(self.number(), state, pending));
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
        let columns = [STATUS_NAME, STATUS_STATE, STATUS_PENDING];
        let objects = columns.map(|column| of_outlet(column, number));
        Next::Ask(Exchange::get(objects), format!("read outlet {number}"))
    }
}
