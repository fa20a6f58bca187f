//! Fencing: what proves that an incarnation of a node is off, and nothing else.
//!
//! [`Proven`] can be made in this file only, and every recovery demands one: recovering before fencing does not
//! type-check. What counts as a proof here: every outlet that feeds the node was read back as off in one reading of all
//! of them (anything but "off" is not off); or a newer incarnation of the same node was heard answering us.

use core::fmt;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::words::{Identity, Outlet};

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
}
