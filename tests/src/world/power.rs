//! The power switch: it obeys, late or never, and its readings say how the outlets really are.

use std::time::Duration;

use cluster::event::{Outcome, Path};
use cluster::fencing::{Reading, Readings};
use cluster::words::{Instant, Outlet, Slot};

use super::{Caller, Happening, World};

/// How long the power switch takes to switch and to be read back twice.
const SWITCH: Duration = Duration::from_millis(1_200);
/// How often the driver reads while it waits for an outlet.
const POLL: Duration = Duration::from_millis(1_000);

/// What the power switch does wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PowerFaults {
    /// It does not answer.
    pub unreachable: bool,
    /// It says "off" and does nothing. No real switch may be trusted that does this: it is the canary's.
    pub lies: bool,
    /// It answers with an error.
    pub refuses: bool,
    /// It takes the command, and its relays do not move.
    pub sticks: bool,
    /// How long its relays take.
    pub lag: Duration,
}

/// A driver that has commanded outlets and reads them until they obey.
#[derive(Debug, Clone)]
pub(super) struct Switching {
    pub(super) slot: Slot,
    pub(super) outlets: Vec<Outlet>,
    pub(super) path: Path,
    pub(super) on: bool,
    /// When the node gives it up.
    pub(super) until: Instant,
}

impl World {
    /// A driver commands outlets. All outlets of a machine are one here.
    pub(super) fn command_outlets(&mut self, caller: Caller, switching: Switching) {
        let faults = self.power_faults;
        let deaf = self.no_way(caller, switching.path) || faults.refuses || faults.sticks;
        if !deaf && (switching.on || !faults.lies) {
            let (on, order) = (switching.on, self.order);
            for fed in self.fed_by(caller.at, switching.slot) {
                self.machine(fed).commanded = order;
                self.plan(SWITCH / 2 + faults.lag, Happening::Relay { fed, on, order });
            }
        }
        self.plan(SWITCH, Happening::ReadBack(caller, switching));
    }

    /// The machines that the outlets really feed of what a machine means by that slot.
    fn fed_by(&self, at: usize, slot: Slot) -> Vec<usize> {
        let own = self.seat(at, slot);
        let fed = own.and_then(|own| self.wiring.get(&own).cloned());
        fed.unwrap_or_else(|| own.into_iter().collect())
    }

    /// Whether the switch cannot be spoken to; a serial line needs no network.
    fn no_way(&self, caller: Caller, path: Path) -> bool {
        path == Path::Snmp && (self.power_faults.unreachable || self.is_cut(caller.at))
    }

    /// A relay moves, unless another command came meanwhile.
    pub(super) fn relay(&mut self, fed: usize, on: bool, order: u64) {
        if self.machine(fed).commanded != order {
            return;
        }
        if on {
            return self.power_on(fed);
        }
        self.say(fed, "[outlet off]");
        self.power_off(fed);
    }

    /// The driver reads the outlets back.
    pub(super) fn read_back(&mut self, caller: Caller, switching: Switching) {
        let failed = |reason: &str| Outcome::Failed(reason.to_owned());
        if self.no_way(caller, switching.path) {
            return self.done(caller, failed("pdu1 does not answer"));
        }
        if self.power_faults.refuses {
            return self.done(caller, failed("pdu1 refuses the command"));
        }
        let lies = self.power_faults.lies && !switching.on;
        let is_on = !lies && self.fed_by(caller.at, switching.slot).into_iter().any(|fed| self.machine(fed).outlet);
        if is_on != switching.on && self.now + POLL < switching.until && self.lives(caller.at, caller.life) {
            return self.plan(POLL, Happening::ReadBack(caller, switching));
        }
        let reading = if is_on { Reading::On } else { Reading::Off };
        let readings: Readings = switching.outlets.into_iter().map(|outlet| (outlet, reading.clone())).collect();
        self.done(caller, Outcome::Read(readings));
    }
}
