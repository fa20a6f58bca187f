//! The words that every other module speaks: instants, identities, names, sizes.
//!
//! A *slot* is a node's place in the configuration. An *incarnation* is one boot of its dom0. A *life* is one life of its
//! supervisor within that boot. The three together are an [`Identity`], and an identity speaks in the agreement at most
//! once: whoever has lost its memory (a reboot, a restart of the supervisor) comes back under another.

use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds since this machine booted. The core never reads a clock: time is an argument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(u64);

impl Instant {
    /// The beginning of time.
    pub const ZERO: Self = Self(0);

    /// The instant `millis` milliseconds after boot.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since boot.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero if it is still to come.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl core::ops::Add<Duration> for Instant {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(later.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// A node's place in the configuration, counted from 0 in the order of `cluster.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slot(pub u8);

/// A UPS's place in the configuration, counted from 0 in the order of `cluster.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UpsId(pub u8);

/// What the cluster has agreed about a UPS, the better first. It gets worse step by step, and good again with mains only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Supply {
    /// It has mains, as far as is known.
    #[default]
    Mains,
    /// It feeds from its battery; mains may come back any moment.
    Battery,
    /// It has done so for too long: what it feeds is led away from it.
    Failing,
    /// Its battery lasts only as long as a shutdown in good order takes.
    Low,
}

/// An edition of `cluster.toml`. Of two that differ, the greater is the newer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Edition {
    /// Grows by one with every change that the cluster has agreed, from 1.
    pub number: u32,
    /// Of the text: it tells files apart that somebody has edited by hand without counting.
    pub sum: u32,
}

impl Edition {
    /// Of a text that says to be of this number. The sum is FNV-1a (Fowler, Noll and Vo).
    #[must_use]
    pub fn of(number: u32, text: &str) -> Self {
        let step = |sum: u32, byte: u8| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        Self { number, sum: text.bytes().fold(0x811c_9dc5, step) }
    }
}

impl fmt::Display for Edition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number)
    }
}

/// A way on which datagrams come and go: the cluster networks in the order of `cluster.toml`, counted from 0, then any
/// serial lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId(pub u8);

/// One boot of a dom0: 40 random bits, never 0. Zero stands for a node that was never heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64")]
pub struct Incarnation(u64);

impl TryFrom<u64> for Incarnation {
    type Error = &'static str;

    fn try_from(bits: u64) -> Result<Self, Self::Error> {
        if bits >> 40 == 0 { Ok(Self(bits)) } else { Err("an incarnation has 40 bits") }
    }
}

impl Incarnation {
    /// Of a node that was never heard.
    pub const NONE: Self = Self(0);

    /// Takes the 40 low bits; `None` if they are all zero.
    #[must_use]
    pub fn new(random: u64) -> Option<Self> {
        let bits = random & 0xff_ffff_ffff;
        (bits != 0).then_some(Self(bits))
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:010x}", self.0)
    }
}

/// One life of a supervisor: the restarts within one boot, and how often this life gave a dead generation up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Life {
    /// How often the supervisor was started in this boot, from 0.
    pub start: u8,
    /// How often this supervisor gave a generation up.
    pub abandoned: u8,
}

/// Who speaks: a slot, filled by one incarnation, in one life of its supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// The place in the configuration.
    pub slot: Slot,
    /// The boot.
    pub incarnation: Incarnation,
    /// The supervisor's life within that boot.
    pub life: Life,
}

impl Identity {
    /// The identity of a slot whose node was never heard.
    #[must_use]
    pub fn absent(slot: Slot) -> Self {
        Self { slot, incarnation: Incarnation::NONE, life: Life::default() }
    }

    /// Whether it ever spoke.
    #[must_use]
    pub fn is_absent(self) -> bool {
        self.incarnation == Incarnation::NONE
    }

    /// Whether both are the same boot of the same node, whose domains therefore are the same.
    #[must_use]
    pub fn same_boot(self, other: Self) -> bool {
        self.slot == other.slot && self.incarnation == other.incarnation
    }

    /// The voter's id in the agreement, one for each of the node's votes, which are counted from 0; never 0.
    #[must_use]
    pub fn voter(self, seat: u8) -> u64 {
        (u64::from(seat & 7) << 61)
            | ((u64::from(self.slot.0 & 15) + 1) << 56)
            | (self.incarnation.0 << 16)
            | (u64::from(self.life.start) << 8)
            | u64::from(self.life.abandoned)
    }

    /// The identity behind a voter's id, and which of its votes it is; `None` if no identity has it.
    #[must_use]
    pub fn of_voter(id: u64) -> Option<(Self, u8)> {
        let [first, .., start, abandoned] = id.to_be_bytes();
        let slot = (first & 31).checked_sub(1).filter(|slot| *slot < 16)?;
        let incarnation = Incarnation((id >> 16) & 0xff_ffff_ffff);
        Some((Self { slot: Slot(slot), incarnation, life: Life { start, abandoned } }, first >> 5))
    }
}

/// The generation of a cluster: one life of the replicated state, from a formation on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClusterGeneration(pub u64);

impl fmt::Display for ClusterGeneration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0 & 0xffff_ffff)
    }
}

/// Which membership of the shared file system's lockspace: a number that each generation of the cluster counts from 1. Numbers
/// of different generations cannot be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockEpoch {
    /// Which life of the cluster counts; 0 where the shell cannot say.
    pub generation: ClusterGeneration,
    /// Its count.
    pub number: u64,
}

/// The number of a membership; grows with every change of who fills which slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct View(pub u64);

/// The generation of a VM: grows with every assignment to a node, so that an older order can be told from a newer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Generation(pub u64);

impl Generation {
    /// The one after.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// By what a VM's disks are claimed at the storage, which refuses every older one. The storage hands out a new epoch for each
/// generation of the cluster, because the VMs' generations begin again with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Claim {
    /// The storage's own count of the cluster's generations.
    pub epoch: u64,
    /// The VM's generation.
    pub generation: Generation,
}

/// The name of a VM, which is the name of its file and of its domain: 1 to 32 letters, digits, `_`, `-`, `.`, without `--`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct VmName(String);

impl TryFrom<String> for VmName {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::new(&name).ok_or("no name of a VM")
    }
}

impl VmName {
    /// `None` if `name` is not one. (`--` is refused because xl marks a moving domain `NAME--incoming`.)
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let fits = (1..=crate::limits::VM_NAME_BYTES).contains(&name.len());
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
        (fits && plain && !name.contains("--") && !name.starts_with(['.', '-'])).then(|| Self(name.to_owned()))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// An amount of memory in MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mebibytes(pub u32);

impl Mebibytes {
    /// What is left after taking `other`; zero at the least.
    #[must_use]
    pub fn less(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Mebibytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0)
    }
}

/// Names one long operation that a node has asked its shell for. Unique in one life of a supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpId(pub u64);

/// What a node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs VMs.
    Node,
    /// Exports the storage, serves PXE, votes; runs no VMs.
    Gateway,
}

/// Why a node says that it is about to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failing {
    /// What its VMs' disks are on is gone, and does not come back.
    Storage,
    /// Its hypervisor or its dom0 can no longer be worked with.
    Hypervisor,
    /// It no longer pets its watchdog, because the majority is gone. Only this may come right again.
    Watchdog,
    /// The shared file system has withdrawn there, or does not obey: what this node still has of it is to end with it.
    Shared,
}

impl fmt::Display for Failing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Storage => "storage lost",
            Self::Hypervisor => "its hypervisor or dom0 fails",
            Self::Watchdog => "its watchdog is about to reset it",
            Self::Shared => "its shared file system fails",
        })
    }
}

/// One outlet of a power switch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Outlet {
    /// The switch's name in `cluster.toml`.
    pub pdu: String,
    /// The outlet's number, from 1.
    pub number: u8,
}

impl fmt::Display for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} outlet {}", self.pdu, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_voter_id_names_one_identity() {
        let identity = Identity {
            slot: Slot(15),
            incarnation: Incarnation::new(0xff_ffff_fffe).unwrap(),
            life: Life { start: 3, abandoned: 255 },
        };
        for seat in 0..crate::limits::VOTES {
            assert_eq!(Identity::of_voter(identity.voter(seat)), Some((identity, seat)));
        }
        assert_eq!(Identity::of_voter(Identity::absent(Slot(0)).voter(0)), Some((Identity::absent(Slot(0)), 0)));
        assert_eq!(Identity::of_voter(0), None);
        assert_eq!(Identity::of_voter(17 << 56), None);
    }

    #[test]
    fn a_vm_name_is_checked() {
        for good in ["x0", "web-1", "db.main", "A_b"] {
            assert!(VmName::new(good).is_some(), "{good}");
        }
        for bad in ["", "x0--incoming", "a b", "../x", ".hidden", "-rf", &"x".repeat(33)] {
            assert!(VmName::new(bad).is_none(), "{bad}");
        }
    }
}
