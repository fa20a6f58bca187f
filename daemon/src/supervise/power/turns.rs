//! Whose turn it is at a power switch.
//!
//! It decides what of this node may talk with a power switch at the same time: any number of dialogues over SNMP, or one at
//! the console. While somebody is logged in there, a switch whose community is a mere `Write` refuses what is set over
//! SNMP, and a serial line carries one dialogue. Other nodes are not kept out: a community of `Write+` is what that takes,
//! and without it theirs fails, is told, and is tried again.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use cluster::event::Path;

/// How the power switches are used now, by their names.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    taken: Mutex<BTreeMap<String, Use>>,
    ended: Condvar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// So many dialogues, at least one.
    Snmp(usize),
    Serial,
}

/// A turn; it ends when it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    pdu: String,
}

impl Turns {
    /// Takes a turn at a power switch, and waits for it until then.
    ///
    /// # Errors
    /// It did not come, in words for the operator.
    pub(super) fn take(&self, pdu: &str, path: Path, until: Instant) -> Result<Turn<'_>, String> {
        let mut taken = self.lock();
        loop {
            let next = match (taken.get(pdu), path) {
                (None, Path::Snmp) => Ok(Use::Snmp(1)),
                (Some(Use::Snmp(dialogues)), Path::Snmp) => Ok(Use::Snmp(dialogues.saturating_add(1))),
                (None, Path::Serial) => Ok(Use::Serial),
                (Some(Use::Snmp(_)), Path::Serial) => Err("over SNMP"),
                (Some(Use::Serial), _) => Err("at its console"),
            };
            match next {
                Ok(next) => {
                    taken.insert(pdu.to_owned(), next);
                    return Ok(Turn { turns: self, pdu: pdu.to_owned() });
                }
                Err(by) => {
                    let wait = until.saturating_duration_since(Instant::now());
                    if wait.is_zero() {
                        return Err(format!("in use: this node is switching other outlets {by}"));
                    }
                    let woken = self.ended.wait_timeout(taken, wait);
                    taken = woken.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Use>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut taken = self.turns.lock();
        match taken.get_mut(&self.pdu) {
            Some(Use::Snmp(dialogues @ 2..)) => *dialogues -= 1,
            Some(Use::Snmp(_) | Use::Serial) | None => _ = taken.remove(&self.pdu),
        }
        self.turns.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_console_is_had_alone_and_snmp_together() {
        let turns = Turns::default();
        let now = Instant::now();
        let first = turns.take("pdu1", Path::Snmp, now).unwrap();
        let second = turns.take("pdu1", Path::Snmp, now).unwrap();
        drop(first);
        let refused = turns.take("pdu1", Path::Serial, now).unwrap_err();
        assert_eq!(refused, "in use: this node is switching other outlets over SNMP");
        let _other = turns.take("pdu2", Path::Serial, now).unwrap();
        drop(second);
        let console = turns.take("pdu1", Path::Serial, now).unwrap();
        for path in [Path::Snmp, Path::Serial] {
            let refused = turns.take("pdu1", path, now).unwrap_err();
            assert_eq!(refused, "in use: this node is switching other outlets at its console");
        }
        drop(console);
        assert!(turns.take("pdu1", Path::Snmp, now).is_ok());
    }

    #[test]
    fn a_turn_is_waited_for() {
        let turns = Turns::default();
        let patience = Instant::now() + Duration::from_secs(60);
        let console = turns.take("pdu1", Path::Serial, patience).unwrap();
        thread::scope(|scope| {
            let next = scope.spawn(|| turns.take("pdu1", Path::Serial, patience).is_ok());
            drop(console);
            assert!(next.join().unwrap());
        });
    }
}
