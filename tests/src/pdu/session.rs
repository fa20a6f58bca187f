//! Who may use the console: one at a time, over all ways to it, and the serial line before the network.
//!
//! Source: APC's user guide of the AP79xx (priority of access, log-in, the two minutes after three failures).

use std::time::{Duration, Instant};

use super::{Command, Firmware, Pdu, Way};

/// How long who does nothing stays logged on.
const IDLE: Duration = Duration::from_secs(180);
/// So many wrong log-ins close the door, for so long.
const FAILURES: u8 = 3;
const LOCKED: Duration = Duration::from_secs(120);
/// What stands behind the password of who wants the first card's command line; to the second card it is part of the password.
const WANTS_COMMAND_LINE: &str = " -c";

/// Who is logged on; no two log-ins are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct User {
    pub(super) way: Way,
    /// An administrator, or one who only manages the device.
    pub(super) admin: bool,
    /// The command line, or the menus.
    pub(super) command_line: bool,
    number: u64,
}

/// Why somebody is not logged on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// There is no such user with that password, or the door is closed.
    Wrong,
    /// Somebody else is logged on.
    Used,
}

/// One outlet as the console shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) number: u8,
    pub(super) name: String,
    /// On? `None`: unknown.
    pub(super) on: Option<bool>,
    pub(super) pending: bool,
}

impl Shown {
    /// The state in the words of the first card's menus and command line.
    pub(super) fn state(&self) -> String {
        let word = self.on.map_or("UNKNOWN", |on| if on { "ON" } else { "OFF" });
        format!("{word}{}", if self.pending { "*" } else { "" })
    }
}

impl Pdu {
    /// Logs a user on. Who comes over the serial line throws out who came over the network.
    pub(super) fn log_in(&self, now: Instant, way: Way, name: &str, password: &str) -> Result<User, Denied> {
        let mut state = self.lock();
        let (password, wanted) =
            password.strip_suffix(WANTS_COMMAND_LINE).map_or((password, false), |password| (password, true));
        let can = !wanted || !(state.faults.no_command_line || self.firmware() == Firmware::Aos6);
        let known = matches!(name, "apc" | "device") && password == "apc" && can;
        if state.locked_until.is_some_and(|until| now < until) || !known {
            state.failures = state.failures.saturating_add(1);
            if state.failures >= FAILURES {
                (state.failures, state.locked_until) = (0, Some(now + LOCKED));
            }
            return Err(Denied::Wrong);
        }
        let yields = state.user.is_none_or(|user| way == Way::Serial || user.way == way);
        if state.faults.logged_on || !yields {
            return Err(Denied::Used);
        }
        state.sessions += 1;
        let user = User { way, admin: name == "apc", command_line: wanted, number: state.sessions };
        (state.user, state.failures, state.locked_until) = (Some(user), 0, None);
        Ok(user)
    }

    /// Is this user still the one?
    pub(super) fn is_logged_on(&self, user: User) -> bool {
        self.lock().user == Some(user)
    }

    pub(super) fn log_out(&self, user: User) {
        let mut state = self.lock();
        if state.user == Some(user) {
            state.user = None;
        }
    }

    /// Is anybody logged on?
    pub(super) fn is_used(&self) -> bool {
        let state = self.lock();
        state.faults.logged_on || state.user.is_some()
    }

    /// How often the card came up.
    pub(super) fn boots(&self) -> u64 {
        self.lock().boots
    }

    /// Does the card hear anything?
    pub(super) fn hears(&self, now: Instant) -> bool {
        let state = self.lock();
        state.up <= now && !state.faults.silent
    }

    /// Does the card take a telnet connection now? Otherwise it closes it at once.
    #[must_use]
    pub fn takes_telnet(&self, now: Instant) -> bool {
        self.hears(now) && !self.is_used() && !self.lock().faults.unplugged
    }

    /// How long who does nothing stays logged on.
    pub(super) fn idle(&self) -> Duration {
        self.lock().faults.idle.unwrap_or(IDLE)
    }

    /// The outlets as the console shows them to whoever is on that way; each read is noted.
    pub(super) fn show(&self, now: Instant, way: Way, numbers: &[u8]) -> Vec<Shown> {
        let one = |number: &u8| {
            let (name, pending) = {
                let state = self.lock();
                let outlet = state.outlets.get(usize::from(*number).checked_sub(1)?)?;
                (outlet.name.clone(), state.is_pending(*number))
            };
            let on = self.seen(*number);
            self.note(now, way, *number, super::What::Read(on));
            Some(Shown { number: *number, name, on, pending })
        };
        numbers.iter().filter_map(one).collect()
    }

    /// Commands some outlets, in order; each that was accepted, or not.
    pub(super) fn command_all(&self, now: Instant, way: Way, numbers: &[u8], command: Command) -> Vec<(u8, bool)> {
        numbers.iter().map(|number| (*number, self.command(now, way, *number, command))).collect()
    }

    /// All numbers of outlets.
    pub(super) fn numbers(&self) -> Vec<u8> {
        (1..).take(self.lock().outlets.len()).collect()
    }

    /// The seconds between off and on when an outlet reboots.
    pub(super) fn reboot_seconds(&self, number: u8) -> i32 {
        let index = usize::from(number).saturating_sub(1);
        self.lock().outlets.get(index).map_or(0, |outlet| outlet.reboot_duration)
    }
}
