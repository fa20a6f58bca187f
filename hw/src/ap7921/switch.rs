//! Switching outlets, and reading them back.

use std::collections::VecDeque;

use super::branch::{Branch, RPDU, pending_of};
use super::{Error, Next, Outlet, Plan, READING_INTERVAL_MS, Relay, Seen, Talk, name_of};
use crate::dialogue::Dialogue;
use crate::snmp::{Access, Exchange, Value};

/// Two readings in a row must agree.
const READINGS: u8 = 2;

/// Switches all of `outlets`, which belong to one machine, and reads them back. `Ok` says how every one of them was read,
/// twice in a row, with nothing pending: so `Ok(Relay::Off)` is the one answer that says that the machine has no power.
/// `seed` should differ from one dialogue to the next.
#[must_use]
pub fn switch(
    relay: Relay,
    outlets: &[Outlet],
    access: &Access,
    seed: u64,
) -> impl Dialogue<Outcome = Result<Relay, Error>> + use<> {
    let plan = Switch {
        branch: &RPDU,
        relay,
        outlets: outlets.to_vec(),
        stage: Stage::Inspect,
        commands: VecDeque::new(),
        last: Vec::new(),
        settled: 0,
    };
    Talk::new(plan, access, seed)
}

/// The plan of [`switch`].
#[derive(Debug)]
struct Switch {
    /// What the device turned out to be.
    branch: &'static Branch,
    relay: Relay,
    outlets: Vec<Outlet>,
    stage: Stage,
    /// What is still to be commanded of which outlet.
    commands: VecDeque<(u8, i32)>,
    last: Vec<Seen>,
    /// How many of the last readings showed everything as it should be.
    settled: u8,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Inspect,
    Command,
    ReadBack,
}

impl Plan for Switch {
    type Answer = Relay;

    fn begin(&mut self, branch: &'static Branch, outlets: u8) -> Next<Relay> {
        self.branch = branch;
        if self.outlets.is_empty() {
            return Next::Done(Err(Error::NoOutlet));
        }
        if let Some(wrong) = self.outlets.iter().map(|o| o.number).find(|number| !(1..=outlets).contains(number)) {
            return Next::Done(Err(Error::OutOfRange { outlet: wrong, outlets }));
        }
        self.ask([self.branch.name, self.branch.pending], "name its outlets")
    }

    fn answered(&mut self, values: &[Value]) -> Next<Relay> {
        match self.stage {
            Stage::Inspect => self.inspected(values),
            Stage::Command => self.command(),
            Stage::ReadBack => self.read_back(values),
        }
    }

    fn last_seen(&self) -> &[Seen] {
        &self.last
    }
}

impl Switch {
    /// Asks two objects of every outlet, in one request.
    fn ask(&self, columns: [[u32; 5]; 2], to: &str) -> Next<Relay> {
        let objects = self.outlets.iter().flat_map(|o| columns.map(|column| self.branch.of_outlet(column, o.number)));
        Next::Ask(Exchange::get(objects), to.to_owned())
    }

    fn inspected(&mut self, values: &[Value]) -> Next<Relay> {
        let command = Branch::command_for(self.relay);
        for (outlet, pair) in self.outlets.iter().zip(values.chunks(2)) {
            let [name, pending] = pair else { continue };
            let found = name_of(name);
            if let Some(expected) = outlet.name.clone().filter(|expected| *expected != found) {
                return Next::Done(Err(Error::Name { outlet: outlet.number, expected, found }));
            }
            if pending_of(pending) != Ok(false) {
                self.commands.push_front((outlet.number, self.branch.cancel));
            }
            self.commands.push_back((outlet.number, command));
        }
        self.stage = Stage::Command;
        self.command()
    }

    /// The next command; after the last one, the first reading.
    fn command(&mut self) -> Next<Relay> {
        let Some((outlet, command)) = self.commands.pop_front() else {
            self.stage = Stage::ReadBack;
            return self.ask([self.branch.state, self.branch.pending], "read its outlets");
        };
        let asked = if command == self.branch.cancel {
            format!("cancel what is pending for outlet {outlet}")
        } else {
            format!("switch outlet {outlet} {}", self.relay)
        };
        Next::Ask(Exchange::set(self.branch.of_outlet(self.branch.command, outlet), command), asked)
    }

    fn read_back(&mut self, values: &[Value]) -> Next<Relay> {
        let seen = |(outlet, pair): (&Outlet, &[Value])| match pair {
            [state, pending] => Some(Seen::new(self.branch, outlet.number, state, pending)),
            _ => None,
        };
        self.last = self.outlets.iter().zip(values.chunks(2)).filter_map(seen).collect();
        let all = self.last.len() == self.outlets.len() && self.last.iter().all(|seen| seen.is_settled(self.relay));
        self.settled = if all { self.settled + 1 } else { 0 };
        if self.settled == READINGS {
            return Next::Done(Ok(self.relay));
        }
        match self.ask([self.branch.state, self.branch.pending], "read its outlets") {
            Next::Ask(exchange, asked) => Next::AskLater(READING_INTERVAL_MS, exchange, asked),
            other @ (Next::AskLater(..) | Next::Done(_)) => other,
        }
    }
}
