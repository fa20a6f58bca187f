//! Who may use which disk: the storage's own table of claims, which holds whatever any node believes.
//!
//! A disk has one *holder*: a VM, by a claim, on one boot of a node. Its requests are carried out, and nobody else's. A newer
//! claim takes the disk over at once. In a migration it does not: there the target is the *heir* first. It may read, for
//! the source's VM runs on and holds the disk; with its first request that could change anything it takes the disk over,
//! and Xen's toolstack has the target's VM make such a request only when the source's is stopped for good. So at every moment
//! there is one boot whose writes reach the disk, and who that is was decided here.
//!
//! An older claim is refused for ever. A boot that is barred is refused whatever it claims; a later boot of the same node
//! is not. The table is kept ([`super::store`]) before anything is done by it.

use std::collections::BTreeMap;
use std::fmt;

use cluster::words::{Claim, Incarnation, VmName};
use serde::{Deserialize, Serialize};

use super::store::Table;

/// Barred boots that are remembered; of the oldest, newer boots of their nodes were barred or heard long since.
const BARRED: usize = 256;

/// One boot of a node. The node is named, not counted: a slot may be another node's in the next configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Boot {
    /// The node's name.
    pub(crate) node: String,
    /// Which boot of it.
    pub(crate) incarnation: Incarnation,
}

/// Who wants a disk, and by what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claimant {
    /// The VM that it is for.
    pub(crate) vm: VmName,
    /// The claim.
    pub(crate) claim: Claim,
    /// Where the VM is to run.
    pub(crate) boot: Boot,
}

impl fmt::Display for Claimant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Claim { epoch, generation } = self.claim;
        write!(f, "VM {} on {} (claim {epoch}.{})", self.vm, self.boot.node, generation.0)
    }
}

/// Why somebody does not get a disk; its text is for the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Refusal {
    /// There is no such disk, or its device is not there.
    Missing(String),
    /// It is another's by now, and does not become this one's again by this claim.
    Claimed(String),
    /// The boot is barred.
    Barred(String),
    /// Another's requests are still in flight. Later it may be had.
    Busy(String),
    /// Anything else, which may pass.
    Other(String),
}

impl Refusal {
    /// Whether asking again is of no use.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Claimed(_) | Self::Barred(_) => true,
            Self::Missing(_) | Self::Busy(_) | Self::Other(_) => false,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Missing(text) | Self::Claimed(text) | Self::Barred(text) | Self::Busy(text) | Self::Other(text)) =
            self;
        f.write_str(text)
    }
}

impl std::error::Error for Refusal {}

/// What a claimant may do with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// Everything.
    Holder,
    /// Read, and take it over by writing.
    Heir,
}

/// The claims on one disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// Nobody but where there is an heir already: its source has yet to come, after the loss of this table.
    holder: Option<Claimant>,
    heir: Option<Claimant>,
}

/// The table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    epoch: u64,
    disks: BTreeMap<String, Entry>,
    barred: Vec<Boot>,
}

impl Table for Claims {
    const PLACES: [u64; 2] = [4 << 10, 260 << 10];
    const NAME: &str = "claims";
}

impl Claims {
    /// Takes an epoch that no claim bore before, and none but a new generation's of the cluster will bear.
    pub(crate) fn reserve(&mut self) -> u64 {
        let last =
            self.disks.values().flat_map(Entry::claimants).map(|claimant| claimant.claim.epoch).max().unwrap_or(0);
        self.epoch = self.epoch.max(last).saturating_add(1);
        self.epoch
    }

    /// Claims a disk: as heir of the node `from`, or to take it over at once. `in_use` says whether a claimant is connected.
    ///
    /// # Errors
    /// The boot is barred; the claim is older than another's; another VM uses the disk; it is not that node's to bequeath.
    pub(crate) fn claim(
        &mut self,
        disk: &str,
        who: &Claimant,
        from: Option<&str>,
        in_use: impl Fn(&Claimant) -> bool,
    ) -> Result<(), Refusal> {
        self.refuse_barred(&who.boot)?;
        let entry = self.disks.entry(disk.to_owned()).or_default();
        if entry.right_of(who).is_some() {
            return Ok(());
        }
        // Generations of two VMs cannot be compared: what counts between VMs is who uses the disk.
        let newer = |rival: &&Claimant| rival.vm == who.vm && rival.claim >= who.claim;
        let other = |rival: &&Claimant| rival.vm != who.vm && in_use(rival);
        if let Some(rival) = entry.claimants().find(|rival| newer(rival) || other(rival)) {
            return Err(taken(disk, rival, who));
        }
        let Some(source) = from else {
            *entry = Entry { holder: Some(who.clone()), heir: None };
            return Ok(());
        };
        let holder = match entry.claimants().next() {
            None => None,
            Some(rival) => {
                // An heir that never wrote and whose VM moves on is the holder all the same.
                let present = entry.claimants().find(|rival| rival.boot.node == source && rival.vm == who.vm);
                Some(present.ok_or_else(|| taken(disk, rival, who))?.clone())
            }
        };
        *entry = Entry { holder, heir: Some(who.clone()) };
        Ok(())
    }

    /// What a claimant may do with a disk that it has claimed before. On a disk that nobody holds, as after the loss of this
    /// table, the first that comes with a claim counts as having claimed it.
    ///
    /// # Errors
    /// The boot is barred, or the disk is another's.
    pub(crate) fn admit(&mut self, disk: &str, who: &Claimant) -> Result<Right, Refusal> {
        self.refuse_barred(&who.boot)?;
        let entry = self.disks.entry(disk.to_owned()).or_default();
        let newer = |heir: &Claimant| heir.vm == who.vm && heir.claim > who.claim;
        if entry.holder.is_none() && entry.heir.as_ref().is_none_or(newer) {
            entry.holder = Some(who.clone());
        }
        let latest = entry.claimants().last();
        let refusal = latest.map(|latest| taken(disk, latest, who));
        entry.right_of(who).ok_or_else(|| refusal.unwrap_or_else(|| Refusal::Other(format!("nobody has disk {disk}"))))
    }

    /// The heir takes the disk over.
    ///
    /// # Errors
    /// It is neither its heir nor its holder any more.
    pub(crate) fn take_over(&mut self, disk: &str, who: &Claimant) -> Result<(), Refusal> {
        self.admit(disk, who)?;
        self.disks.insert(disk.to_owned(), Entry { holder: Some(who.clone()), heir: None });
        Ok(())
    }

    /// Who has claimed a disk: the holder, then the heir.
    pub(crate) fn of(&self, disk: &str) -> impl Iterator<Item = &Claimant> {
        self.disks.get(disk).into_iter().flat_map(Entry::claimants)
    }

    /// Bars a boot from everything.
    pub(crate) fn bar(&mut self, boot: &Boot) {
        if !self.barred.contains(boot) {
            let surplus = (self.barred.len() + 1).saturating_sub(BARRED);
            self.barred.drain(..surplus);
            self.barred.push(boot.clone());
        }
    }

    /// Refuses a boot that is barred.
    ///
    /// # Errors
    /// It is.
    pub(crate) fn refuse_barred(&self, boot: &Boot) -> Result<(), Refusal> {
        if self.barred.contains(boot) {
            let node = &boot.node;
            return Err(Refusal::Barred(format!("this boot of {node} was barred from the storage; restart {node}")));
        }
        Ok(())
    }

    /// Whether a connection may stay: its boot is not barred, and the disk is still its claimant's if it needs a claim.
    pub(crate) fn allow(&self, disk: &str, boot: &Boot, who: Option<&Claimant>) -> bool {
        let has_right = |who| self.disks.get(disk).is_some_and(|entry| entry.right_of(who).is_some());
        !self.barred.contains(boot) && who.is_none_or(has_right)
    }
}

impl Entry {
    /// The holder, then the heir.
    fn claimants(&self) -> impl Iterator<Item = &Claimant> {
        self.holder.iter().chain(&self.heir)
    }

    fn right_of(&self, who: &Claimant) -> Option<Right> {
        if self.holder.as_ref() == Some(who) {
            Some(Right::Holder)
        } else {
            (self.heir.as_ref() == Some(who)).then_some(Right::Heir)
        }
    }
}

fn taken(disk: &str, by: &Claimant, who: &Claimant) -> Refusal {
    Refusal::Claimed(format!("disk {disk} is already claimed by {by}; refused to {who}"))
}

#[cfg(test)]
mod tests {
    use cluster::words::Generation;

    use super::*;

    fn who(node: &str, boot: u64, generation: u64) -> Claimant {
        Claimant {
            vm: VmName::new("x0").unwrap(),
            claim: Claim { epoch: 1, generation: Generation(generation) },
            boot: Boot { node: node.to_owned(), incarnation: Incarnation::new(boot).unwrap() },
        }
    }

    fn idle(_: &Claimant) -> bool {
        false
    }

    #[test]
    fn a_newer_claim_takes_over_and_an_older_is_refused_for_ever() {
        let mut claims = Claims::default();
        let (old, new) = (who("node1", 1, 3), who("node2", 7, 4));
        claims.claim("x0", &old, None, idle).unwrap();
        assert_eq!(claims.admit("x0", &old), Ok(Right::Holder));
        claims.claim("x0", &new, None, idle).unwrap();
        assert_eq!(claims.admit("x0", &new), Ok(Right::Holder));
        assert!(!claims.allow("x0", &old.boot, Some(&old)) && claims.allow("x0", &new.boot, Some(&new)));
        let refusal = claims.admit("x0", &old).unwrap_err();
        assert!(refusal.is_final());
        assert_eq!(
            refusal.to_string(),
            "disk x0 is already claimed by VM x0 on node2 (claim 1.4); refused to VM x0 on node1 (claim 1.3)"
        );
        assert_eq!(claims.claim("x0", &old, None, idle), Err(refusal));
        assert!(claims.claim("x0", &who("node3", 9, 4), None, idle).is_err(), "as new is not newer");
        assert!(claims.claim("x0", &who("node2", 8, 4), None, idle).is_err(), "nor is another boot of its node");
        let later = Claimant { claim: Claim { epoch: 2, generation: Generation(1) }, ..who("node1", 1, 1) };
        claims.claim("x0", &later, None, idle).unwrap();
        assert_eq!(claims.admit("x0", &later), Ok(Right::Holder), "a new epoch is newer whatever its generations");
    }

    #[test]
    fn a_boot_that_claims_anew_does_not_revive_what_it_ran_before() {
        let mut claims = Claims::default();
        let (first, other, again) = (who("node1", 1, 1), who("node2", 2, 2), who("node1", 1, 3));
        for claimant in [&first, &other, &again] {
            claims.claim("x0", claimant, None, idle).unwrap();
        }
        assert!(claims.admit("x0", &first).is_err(), "requests of its first VM may still wait there");
        assert_eq!(claims.admit("x0", &again), Ok(Right::Holder));
    }

    #[test]
    fn an_heir_reads_beside_the_holder_until_it_writes() {
        let mut claims = Claims::default();
        let (source, target) = (who("node1", 1, 3), who("node2", 2, 4));
        claims.claim("x0", &source, None, idle).unwrap();
        claims.claim("x0", &target, Some("node1"), idle).unwrap();
        assert_eq!(claims.admit("x0", &source), Ok(Right::Holder), "it may even connect again");
        assert_eq!(claims.admit("x0", &target), Ok(Right::Heir));
        assert!(claims.claim("x0", &source, None, idle).is_ok(), "what one has one may claim again");
        claims.take_over("x0", &target).unwrap();
        assert_eq!(claims.admit("x0", &target), Ok(Right::Holder));
        assert!(!claims.allow("x0", &source.boot, Some(&source)));
        assert!(claims.admit("x0", &source).is_err());
        assert!(claims.take_over("x0", &source).is_err(), "there is no way back");
    }

    #[test]
    fn a_migration_that_failed_leaves_the_holder_and_the_next_heir_replaces_the_first() {
        let mut claims = Claims::default();
        let (source, failed, next) = (who("node1", 1, 3), who("node2", 2, 4), who("node3", 3, 5));
        claims.claim("x0", &source, None, idle).unwrap();
        claims.claim("x0", &failed, Some("node1"), idle).unwrap();
        claims.claim("x0", &next, Some("node1"), idle).unwrap();
        assert_eq!(claims.admit("x0", &source), Ok(Right::Holder));
        assert_eq!(claims.admit("x0", &next), Ok(Right::Heir));
        assert!(claims.admit("x0", &failed).is_err());
        assert!(claims.take_over("x0", &failed).is_err());
    }

    #[test]
    fn a_vm_that_never_wrote_moves_on_all_the_same() {
        let mut claims = Claims::default();
        let (first, second, third) = (who("node1", 1, 3), who("node2", 2, 4), who("node3", 3, 5));
        claims.claim("x0", &first, None, idle).unwrap();
        claims.claim("x0", &second, Some("node1"), idle).unwrap();
        claims.claim("x0", &third, Some("node2"), idle).unwrap();
        assert_eq!(claims.admit("x0", &second), Ok(Right::Holder));
        assert_eq!(claims.admit("x0", &third), Ok(Right::Heir));
        assert!(claims.admit("x0", &first).is_err());
        let stranger = claims.claim("x0", &who("node1", 1, 6), Some("node4"), idle);
        assert!(stranger.is_err(), "node4 has nothing to bequeath");
    }

    #[test]
    fn a_disk_goes_from_one_vm_to_another_only_when_the_first_does_not_use_it() {
        let mut claims = Claims::default();
        let held = who("node1", 1, 9);
        let other = Claimant { vm: VmName::new("y0").unwrap(), ..who("node2", 2, 1) };
        claims.claim("x0", &held, None, idle).unwrap();
        assert!(claims.claim("x0", &other, None, |rival| *rival == held).is_err());
        claims.claim("x0", &other, None, idle).unwrap();
        assert_eq!(claims.admit("x0", &other), Ok(Right::Holder));
        assert!(claims.admit("x0", &held).is_err());
    }

    #[test]
    fn a_barred_boot_is_refused_and_the_next_boot_is_free() {
        let mut claims = Claims::default();
        let (old, new) = (who("node1", 1, 3), who("node1", 2, 4));
        claims.claim("x0", &old, None, idle).unwrap();
        claims.bar(&old.boot);
        claims.bar(&old.boot);
        assert!(matches!(claims.admit("x0", &old), Err(Refusal::Barred(_))));
        assert!(matches!(claims.claim("x0", &who("node1", 1, 9), None, idle), Err(Refusal::Barred(_))));
        assert!(!claims.allow("shared", &old.boot, None), "nor may it read");
        assert!(claims.allow("shared", &new.boot, None));
        claims.claim("x0", &new, None, idle).unwrap();
        for boot in 10..10 + 2 * u64::try_from(BARRED).unwrap() {
            claims.bar(&who("node1", boot, 1).boot);
        }
        assert_eq!(claims.barred.len(), BARRED);
    }

    #[test]
    fn a_table_that_was_lost_does_not_take_the_disk_from_the_source_of_a_migration() {
        let mut claims = Claims::default();
        let (source, target) = (who("node1", 1, 3), who("node2", 2, 4));
        claims.claim("x0", &target, Some("node1"), idle).unwrap();
        assert_eq!(claims.admit("x0", &target), Ok(Right::Heir));
        assert_eq!(claims.admit("x0", &source), Ok(Right::Holder), "it connects again");
        assert!(claims.admit("x0", &who("node3", 3, 2)).is_err(), "one of them");
        claims.take_over("x0", &target).unwrap();
        assert!(claims.admit("x0", &source).is_err());
    }

    #[test]
    fn an_epoch_is_newer_than_every_claim() {
        let mut claims = Claims::default();
        assert_eq!((claims.reserve(), claims.reserve()), (1, 2));
        let mut forgotten = Claims::default();
        let survivor = Claimant { claim: Claim { epoch: 8, generation: Generation(2) }, ..who("node1", 1, 1) };
        assert_eq!(forgotten.admit("x0", &survivor), Ok(Right::Holder), "the first to come");
        assert_eq!(forgotten.reserve(), 9);
    }
}
