//! Fencing: what proves that an incarnation of a node is off, and nothing else.
//!
//! [`Proven`] can be made in this file only, and every recovery demands one: recovering before fencing does not
//! type-check. What counts as a proof: every outlet that feeds the node was read back as off in one reading of all of them
//! (anything but "off" is not off); a newer incarnation of the same node was heard answering us; the storage has barred
//! that incarnation; its armed watchdog's deadline passed, with margin; or an operator typed the node's name.

use core::fmt;
use core::time::Duration;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::Timing;
use crate::limits;
use crate::words::{Failing, Identity, Incarnation, Outlet};

/// Why a boot of a node was held for dead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// It was not there when the generation was formed.
    Absent,
    /// Nobody heard it for so long.
    Silent(Duration),
    /// It said so itself.
    Failing(Failing),
    /// It was back without having been fenced.
    Unasked,
    /// It was well: its fencing is tested, because the operator wants it or it is new.
    Tested,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("it was absent at formation"),
            Self::Silent(silence) => {
                write!(f, "it was silent for {}.{} s", silence.as_secs(), silence.subsec_millis() / 100)
            }
            Self::Failing(reason) => write!(f, "it said that it was failing, {reason}"),
            Self::Unasked => f.write_str("it rebooted unasked"),
            Self::Tested => f.write_str("its fencing was tested"),
        }
    }
}

/// The end of a boot of a node, kept by the others: what it cannot know itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// Why it was held for dead.
    pub cause: Cause,
    /// How it was proven.
    pub proven: Proven,
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.cause, self.proven.method)
    }
}

/// What one outlet was read back as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Off, with nothing pending, on two reads in a row.
    Off,
    /// On.
    On,
    /// Anything else: no answer, an error, an unknown value. In words for the operator.
    Unknown(String),
}

/// What all outlets of a node were read back as, at one time.
pub type Readings = BTreeMap<Outlet, Reading>;

/// That an incarnation of a node runs nothing any more, and how that is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proven {
    identity: Identity,
    method: Method,
}

/// How it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    /// Every outlet was read back as off.
    OutletsOff(Vec<Outlet>),
    /// A newer incarnation answered.
    NewerIncarnation(Identity),
    /// The storage has barred it: what it still runs can change nothing.
    CutOff,
    /// Its watchdog has reset it by now: so many seconds were waited.
    Watchdog(u32),
    /// An operator has confirmed it, by typing its name.
    Operator,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutletsOff(outlets) => {
                for (i, outlet) in outlets.iter().enumerate() {
                    let gap = if i == 0 { "" } else { ", " };
                    write!(f, "{gap}{outlet}")?;
                }
                f.write_str(" read back as off")
            }
            Self::NewerIncarnation(newer) => write!(f, "incarnation {} answers", newer.incarnation),
            Self::CutOff => f.write_str("the storage has barred it"),
            Self::Watchdog(seconds) => write!(f, "its watchdog has reset it by now, after {seconds} s"),
            Self::Operator => f.write_str("the operator has confirmed it"),
        }
    }
}

impl Proven {
    /// From what the outlets that feed the node (`feeds`, all of them) were read back as.
    ///
    /// # Errors
    /// Why that proves nothing, in words for the operator.
    pub fn by_outlets(identity: Identity, feeds: &[Outlet], readings: &Readings) -> Result<Self, String> {
        if feeds.is_empty() {
            return Err("no outlet feeds it".to_owned());
        }
        for outlet in feeds {
            match readings.get(outlet) {
                Some(Reading::Off) => {}
                Some(Reading::On) => return Err(format!("{outlet} is still on")),
                Some(Reading::Unknown(why)) => return Err(format!("{outlet}: {why}")),
                None => return Err(format!("{outlet} was not read")),
            }
        }
        Ok(Self { identity, method: Method::OutletsOff(feeds.to_vec()) })
    }

    /// From another boot of the same node that is known to be alive now.
    #[must_use]
    pub fn by_newer(old: Identity, alive: Identity) -> Option<Self> {
        let newer = old.slot == alive.slot && !alive.is_absent() && !old.same_boot(alive);
        newer.then_some(Self { identity: old, method: Method::NewerIncarnation(alive) })
    }

    /// From what the storage has confirmed: the boot that it has barred, with no request of it in flight.
    #[must_use]
    pub fn by_cut_off(identity: Identity, barred: Incarnation) -> Option<Self> {
        (!identity.is_absent() && identity.incarnation == barred).then_some(Self { identity, method: Method::CutOff })
    }

    /// From `waited`, the time since a DC first acted on it as unclean; `armed` says whether it was last heard armed under
    /// the armament that still holds. See [`watchdog_wait`] for the argument.
    #[must_use]
    pub fn by_watchdog(identity: Identity, armed: bool, waited: Duration, timing: &Timing) -> Option<Self> {
        let seconds = u32::try_from(waited.as_secs()).unwrap_or(u32::MAX);
        (armed && waited >= watchdog_wait(timing)).then_some(Self { identity, method: Method::Watchdog(seconds) })
    }

    /// From what an operator has typed to confirm that the node of this name is off.
    #[must_use]
    pub fn by_operator(identity: Identity, typed: &str, name: &str) -> Option<Self> {
        (typed == name).then_some(Self { identity, method: Method::Operator })
    }

    /// Who is proven off.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// How.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }
}

/// How long a node that counts on its own watchdog may still run VMs, from when a DC knows that it is unclean.
///
/// A node is quorate only while a leader's heartbeats name it (`generation.rs`). No DC names a node that it holds for unclean, and
/// an older leader without a majority steps down within `deadtime`; so the last heartbeat that names it is sent at most a
/// `deadtime` after this clock began, and is believed for another. Then `lease` runs, and then the watchdog, which may
/// have been petted at its end. If the node stalls, heartbeats may wait in its sockets for as long as its watchdog allows a
/// stall. A twentieth more covers clocks that drift.
#[must_use]
pub fn watchdog_wait(timing: &Timing) -> Duration {
    let longest = timing.deadtime * 2 + timing.lease + limits::WATCHDOG * 2;
    longest + longest / 20
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::{Incarnation, Life, Slot};

    fn outlet(number: u8) -> Outlet {
        Outlet { pdu: "pdu1".to_owned(), number }
    }

    fn boot(n: u64) -> Identity {
        Identity { slot: Slot(1), incarnation: Incarnation::new(n).unwrap(), life: Life::default() }
    }

    #[test]
    fn only_off_on_every_feed_proves() {
        let feeds = [outlet(1), outlet(2)];
        let proof = |readings: &[(u8, Reading)]| {
            let readings = readings.iter().map(|(n, r)| (outlet(*n), r.clone())).collect();
            Proven::by_outlets(boot(1), &feeds, &readings)
        };
        assert!(proof(&[(1, Reading::Off), (2, Reading::Off)]).is_ok());
        assert!(proof(&[(1, Reading::Off), (2, Reading::On)]).is_err());
        assert!(proof(&[(1, Reading::Off)]).is_err());
        assert!(proof(&[(1, Reading::Off), (2, Reading::Unknown("no reply".to_owned()))]).is_err());
        assert!(Proven::by_outlets(boot(1), &[], &Readings::new()).is_err(), "nothing read proves nothing");
    }

    #[test]
    fn only_another_boot_of_the_same_node_proves() {
        let restarted = Identity { life: Life { start: 1, abandoned: 0 }, ..boot(1) };
        assert!(Proven::by_newer(boot(1), boot(2)).is_some());
        assert!(Proven::by_newer(boot(1), restarted).is_none(), "the supervisor's restart is not a reboot");
        assert!(Proven::by_newer(boot(1), Identity { slot: Slot(2), ..boot(2) }).is_none());
        assert!(Proven::by_newer(boot(1), Identity::absent(Slot(1))).is_none());
    }

    #[test]
    fn the_other_proofs_are_of_that_very_boot_and_no_other() {
        let timing = crate::config::Config::parse(include_str!("config/good.toml")).unwrap().timing;
        let (early, late) = (watchdog_wait(&timing) - Duration::from_millis(1), watchdog_wait(&timing));
        assert!(Proven::by_watchdog(boot(1), true, early, &timing).is_none());
        assert!(Proven::by_watchdog(boot(1), false, late, &timing).is_none(), "it may not have been armed");
        assert!(Proven::by_watchdog(boot(1), true, late, &timing).is_some());
        assert!(Proven::by_cut_off(boot(1), boot(2).incarnation).is_none());
        assert!(Proven::by_cut_off(boot(1), boot(1).incarnation).is_some());
        assert!(Proven::by_cut_off(Identity::absent(Slot(1)), Incarnation::NONE).is_none(), "who is barred?");
        assert!(Proven::by_operator(boot(1), "node2", "node1").is_none());
        assert!(Proven::by_operator(boot(1), "node1", "node1").is_some());
    }
}
