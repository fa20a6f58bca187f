//! Switching outlets, and reading them back.

use std::collections::VecDeque;

use super::{
    CONTROL_COMMAND, Error, Next, Outlet, Plan, READING_INTERVAL_MS, Relay, STATUS_NAME, STATUS_PENDING, STATUS_STATE,
    Seen, Talk, name_of, of_outlet, pending_of,
};
use crate::dialogue::Dialogue;
use crate::snmp::{Exchange, Value};

const IMMEDIATE_ON: i32 = 1;
const IMMEDIATE_OFF: i32 = 2;
const CANCEL_PENDING: i32 = 7;

/// Two readings in a row must agree.
const READINGS: u8 = 2;

/// Switches all of `outlets`, which belong to one machine, and reads them back. `Ok` says how every one of them was read,
/// twice in a row, with nothing pending: so `Ok(Relay::Off)` is the one answer that says that the machine has no power.
/// `seed` should differ from one dialogue to the next.
#[must_use]
pub fn switch(
    relay: Relay,
    outlets: &[Outlet],
    community: &str,
    seed: u64,
) -> impl Dialogue<Outcome = Result<Relay, Error>> + use<> {
    let plan = Switch {
        relay,
        outlets: outlets.to_vec(),
        stage: Stage::Inspect,
        commands: VecDeque::new(),
        last: Vec::new(),
        settled: 0,
    };
    Talk::new(plan, community, seed)
}

/// The plan of [`switch`].
#[derive(Debug)]
struct Switch {
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

    fn begin(&mut self, outlets: u8) -> Next<Relay> {
        if self.outlets.is_empty() {
            return Next::Done(Err(Error::NoOutlet));
        }
        if let Some(wrong) = self.outlets.iter().map(|o| o.number).find(|number| !(1..=outlets).contains(number)) {
            return Next::Done(Err(Error::OutOfRange { outlet: wrong, outlets }));
        }
        self.ask([STATUS_NAME, STATUS_PENDING], "name its outlets")
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
        let objects = self.outlets.iter().flat_map(|o| columns.map(|column| of_outlet(column, o.number)));
        Next::Ask(Exchange::get(objects), to.to_owned())
    }

    fn inspected(&mut self, values: &[Value]) -> Next<Relay> {
        let command = match self.relay {
            Relay::On => IMMEDIATE_ON,
            Relay::Off => IMMEDIATE_OFF,
        };
        for (outlet, pair) in self.outlets.iter().zip(values.chunks(2)) {
            let [name, pending] = pair else { continue };
            let found = name_of(name);
            if let Some(expected) = outlet.name.clone().filter(|expected| *expected != found) {
                return Next::Done(Err(Error::Name { outlet: outlet.number, expected, found }));
            }
            if pending_of(pending) != Ok(false) {
                self.commands.push_front((outlet.number, CANCEL_PENDING));
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
            return self.ask([STATUS_STATE, STATUS_PENDING], "read its outlets");
        };
        let asked = match command {
            CANCEL_PENDING => format!("cancel what is pending for outlet {outlet}"),
            _ => format!("switch outlet {outlet} {}", self.relay),
        };
        Next::Ask(Exchange::set(of_outlet(CONTROL_COMMAND, outlet), command), asked)
    }

    fn read_back(&mut self, values: &[Value]) -> Next<Relay> {
        let seen = |(outlet, pair): (&Outlet, &[Value])| match pair {
            [state, pending] => Some(Seen::new(outlet.number, state, pending)),
            _ => None,
        };
        self.last = self.outlets.iter().zip(values.chunks(2)).filter_map(seen).collect();
        let all = self.last.len() == self.outlets.len() && self.last.iter().all(|seen| seen.is_settled(self.relay));
        self.settled = if all { self.settled + 1 } else { 0 };
        if self.settled == READINGS {
            return Next::Done(Ok(self.relay));
        }
        match self.ask([STATUS_STATE, STATUS_PENDING], "read its outlets") {
            Next::Ask(exchange, asked) => Next::AskLater(READING_INTERVAL_MS, exchange, asked),
            other @ (Next::AskLater(..) | Next::Done(_)) => other,
        }
    }
}
