//! The outlets: what each is set to, and which relay will move when.

use std::time::{Duration, Instant};

use super::{Command, Faults, session::User};

/// A relay that will move.
#[derive(Debug, Clone, Copy)]
pub(super) struct Due {
    pub(super) at: Instant,
    pub(super) outlet: u8,
    pub(super) on: bool,
    /// Does the outlet show it as pending (as it does for delayed commands)?
    pub(super) pending: bool,
}

/// What one outlet is set to.
#[derive(Debug, Clone)]
pub(super) struct Outlet {
    pub(super) name: String,
    /// Seconds from a delayed on to its being done.
    pub(super) on_delay: i32,
    /// Seconds from a delayed off to its being done.
    pub(super) off_delay: i32,
    /// Seconds.
    pub(super) reboot_duration: i32,
}

/// All that the PDU remembers.
#[derive(Debug)]
pub(super) struct State {
    pub(super) outlets: Vec<Outlet>,
    pub(super) due: Vec<Due>,
    pub(super) faults: Faults,
    /// Who is logged on at the console.
    pub(super) user: Option<User>,
    /// Wrong log-ins since the last right one.
    pub(super) failures: u8,
    /// Until then nobody logs in.
    pub(super) locked_until: Option<Instant>,
    /// When the card came up, or will.
    pub(super) up: Instant,
    /// How often the card came up: whoever was on a line before begins anew.
    pub(super) boots: u64,
    /// How many have logged on so far.
    pub(super) sessions: u64,
}

impl State {
    /// The last command for an outlet replaces what was planned for it.
    pub(super) fn plan(&mut self, now: Instant, number: u8, command: Command) {
        let Some(outlet) = usize::from(number).checked_sub(1).and_then(|index| self.outlets.get(index)) else {
            return;
        };
        let seconds = |seconds: i32| Duration::from_secs(seconds.try_into().unwrap_or(0));
        let (on, off, reboot) = (seconds(outlet.on_delay), seconds(outlet.off_delay), seconds(outlet.reboot_duration));
        let moves = match command {
            Command::On => vec![(true, Duration::ZERO, false)],
            Command::Off => vec![(false, Duration::ZERO, false)],
            Command::Reboot => vec![(false, Duration::ZERO, false), (true, reboot, true)],
            Command::DelayedOn => vec![(true, on, true)],
            Command::DelayedOff => vec![(false, off, true)],
            Command::DelayedReboot => vec![(false, off, true), (true, off + reboot, true)],
            Command::Cancel => vec![],
        };
        self.due.retain(|due| due.outlet != number);
        let lag = self.faults.lag;
        let due = |(on, after, pending)| Due { at: now + lag + after, outlet: number, on, pending };
        self.due.extend(moves.into_iter().map(due));
    }

    pub(super) fn is_pending(&self, outlet: u8) -> bool {
        self.due.iter().any(|due| due.outlet == outlet && due.pending)
    }
}
