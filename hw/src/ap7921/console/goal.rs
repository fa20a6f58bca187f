//! What a dialogue is for: the order in which outlets are listed and commanded.

use std::collections::VecDeque;

use super::super::{Outlet, READING_INTERVAL_MS, Relay, Seen};
use super::Error;
use super::page::Row;

/// Two readings in a row must agree.
const READINGS: u8 = 2;

/// What an outlet is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    On,
    Off,
    /// Forget what is pending.
    Cancel,
}

/// What is wanted of the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// All outlets, with their names and states.
    List,
    /// An outlet commanded.
    Command(u8, Order),
}

impl Want {
    /// In words, after "to".
    pub(super) fn words(self) -> String {
        match self {
            Self::List => "list its outlets".to_owned(),
            Self::Command(outlet, Order::On) => format!("switch outlet {outlet} on"),
            Self::Command(outlet, Order::Off) => format!("switch outlet {outlet} off"),
            Self::Command(outlet, Order::Cancel) => format!("cancel what is pending for outlet {outlet}"),
        }
    }
}

/// What follows.
#[derive(Debug)]
pub(super) enum Next<Answer> {
    Ask(Want),
    /// Not before so many milliseconds have passed.
    AskLater(u64, Want),
    Done(Result<Answer, Error>),
}

/// A goal. It may be begun again at any time: then nothing that was seen before counts.
pub(super) trait Goal {
    type Answer: Clone;

    fn begin(&mut self) -> Want;
    /// All outlets, from 1 on without a gap.
    fn listed(&mut self, rows: &[Row]) -> Next<Self::Answer>;
    fn commanded(&mut self) -> Next<Self::Answer>;
    /// What the outlets were last read as.
    fn last_seen(&self) -> &[Seen];
}

/// All outlets with their names.
#[derive(Debug, Default)]
pub(super) struct ReadAll {
    seen: Vec<Seen>,
}

impl Goal for ReadAll {
    type Answer = Vec<(Seen, String)>;

    fn begin(&mut self) -> Want {
        Want::List
    }

    fn listed(&mut self, rows: &[Row]) -> Next<Self::Answer> {
        self.seen = rows.iter().map(|row| row.seen.clone()).collect();
        Next::Done(Ok(rows.iter().map(|row| (row.seen.clone(), row.name.clone())).collect()))
    }

    fn commanded(&mut self) -> Next<Self::Answer> {
        Next::Ask(Want::List)
    }

    fn last_seen(&self) -> &[Seen] {
        &self.seen
    }
}

/// Outlets switched, and read back twice.
#[derive(Debug)]
pub(super) struct Switch {
    relay: Relay,
    outlets: Vec<Outlet>,
    /// What is still to be commanded; `None` before it is known.
    commands: Option<VecDeque<(u8, Order)>>,
    last: Vec<Seen>,
    /// How many of the last readings showed everything as it should be.
    settled: u8,
}

impl Switch {
    pub(super) fn new(relay: Relay, outlets: &[Outlet]) -> Self {
        Self { relay, outlets: outlets.to_vec(), commands: None, last: Vec::new(), settled: 0 }
    }

    /// The commands that follow from the first list.
    fn plan(&self, rows: &[Row]) -> Result<VecDeque<(u8, Order)>, Error> {
        let order = match self.relay {
            Relay::On => Order::On,
            Relay::Off => Order::Off,
        };
        if self.outlets.is_empty() {
            return Err(Error::NoOutlet);
        }
        let mut commands = VecDeque::new();
        for outlet in &self.outlets {
            let outlets = u8::try_from(rows.len()).unwrap_or(u8::MAX);
            let row = rows.iter().find(|row| row.seen.outlet == outlet.number);
            let row = row.ok_or(Error::OutOfRange { outlet: outlet.number, outlets })?;
            if let Some(expected) = outlet.name.clone().filter(|expected| *expected != row.name) {
                return Err(Error::Name { outlet: outlet.number, expected, found: row.name.clone() });
            }
            if row.seen.pending != Ok(false) {
                commands.push_front((outlet.number, Order::Cancel));
            }
            commands.push_back((outlet.number, order));
        }
        Ok(commands)
    }
}

impl Goal for Switch {
    type Answer = Relay;

    fn begin(&mut self) -> Want {
        self.commands = None;
        self.settled = 0;
        Want::List
    }

    fn listed(&mut self, rows: &[Row]) -> Next<Relay> {
        if self.commands.is_none() {
            return match self.plan(rows) {
                Ok(commands) => {
                    self.commands = Some(commands);
                    self.commanded()
                }
                Err(error) => Next::Done(Err(error)),
            };
        }
        let ours = |row: &&Row| self.outlets.iter().any(|outlet| outlet.number == row.seen.outlet);
        self.last = rows.iter().filter(ours).map(|row| row.seen.clone()).collect();
        let is_read = |outlet: &Outlet| self.last.iter().any(|seen| seen.outlet == outlet.number);
        let all = self.outlets.iter().all(is_read) && self.last.iter().all(|seen| seen.is_settled(self.relay));
        self.settled = if all { self.settled + 1 } else { 0 };
        if self.settled == READINGS {
            return Next::Done(Ok(self.relay));
        }
        Next::AskLater(READING_INTERVAL_MS, Want::List)
    }

    fn commanded(&mut self) -> Next<Relay> {
        let next = self.commands.as_mut().and_then(VecDeque::pop_front);
        Next::Ask(next.map_or(Want::List, |(outlet, order)| Want::Command(outlet, order)))
    }

    fn last_seen(&self) -> &[Seen] {
        &self.last
    }
}
