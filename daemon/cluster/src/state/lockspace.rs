//! Who has the shared file system mounted: the members of its lockspace, and the two steps in which they change.
//!
//! The kernel's lockspace is not told of deaths and newcomers by anybody but us, and it is unforgiving: a newcomer that starts
//! while an old member still runs holds itself for the first one, and destroys the file system. So a change is a barrier:
//!
//! ```text
//!            a newcomer; a member that is proven off, or has let go
//!  Running -----------------------------------------------------------> Holding
//!  (epoch n)                                                           (epoch n + 1)
//!     ^                                                                    |
//!     +--------------------------------------------------------------------+
//!       every slot is known to be out of it, or said that it holds for n + 1
//! ```
//!
//! What is known of each slot ([`Stands`]) is all that there is. The barrier asks about *every* slot that could have it, not
//! about the members alone: so a generation that begins (the state is volatile, the mounts are not) knows of nobody, and must
//! hear from each, or prove it off, before anybody runs; what an older generation has left is held and taken in like any
//! newcomer. Whoever is taken in runs from that commitment on, whether it has begun to or not. A death in the middle, or
//! one more newcomer, needs no new barrier: who is to be a member is asked when the barrier falls.
//!
//! One that is dead but not proven off is in the way of everything, even if it had said that it holds: a kernel that is held
//! can still write what it has cached. Until then nobody is held for its sake: the others go on as far as the lockspace lets
//! them, and that is more than a held one does.
//!
//! Whoever is on trial is asked like all, and not taken in: nobody could be sure of its death.
//!
//! A member says what it says *of an epoch*, held or running; so a word that comes late, or twice, means nothing. Out of an epoch in which it
//! was a member nobody comes back: it is taken in by another, because the others would not know that it has forgotten
//! everything. All of this follows from what is committed, on every node alike; the DC only says when one that could not
//! mount is to be tried again.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Member, Standing, State, name};
use crate::config::{Config, FileSystem};
use crate::trace::Trace;
use crate::words::{Identity, Incarnation, LockEpoch, Role, Slot};

/// How a slot stands to the lockspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stands {
    /// Nobody knows: an older generation may have left it mounted.
    Unknown,
    /// It has it not: it has let go of it, or is proven off.
    Out,
    /// It has it not, because it could not mount it; it is tried again later.
    Failed,
    /// It is held, and runs only when the next epoch does.
    Held,
    /// It runs, or may begin to.
    In,
}

/// One slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mount {
    /// Of whom this speaks; in an epoch that runs, who was taken in.
    pub(crate) identity: Identity,
    /// How it stands.
    pub(crate) stands: Stands,
    /// Whether it has said that the file system is mounted.
    pub(crate) mounted: bool,
}

impl Mount {
    fn new(identity: Identity) -> Self {
        Self { identity, stands: Stands::Unknown, mounted: false }
    }

    fn is_out(&self) -> bool {
        matches!(self.stands, Stands::Out | Stands::Failed)
    }
}

/// What a node says of itself, in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Word {
    /// It holds.
    Held,
    /// Asked to hold: its kernel has no lockspace, and gets none before the members run.
    Out,
    /// As one of those who run: its kernel has no lockspace any more, and gets none in this epoch.
    LetGo,
    /// Likewise, because it could not mount the file system.
    Failed,
    /// The file system is mounted.
    Mounted,
}

/// The lockspace. Empty where the shared file system needs none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lockspace {
    /// Grows with every change, from 0: none yet.
    pub(crate) number: u64,
    /// Whether all are to hold; else the members run.
    pub(crate) holding: bool,
    /// Who runs, or ran last.
    pub(crate) members: BTreeSet<Slot>,
    /// Every slot that could have it mounted.
    mounts: BTreeMap<Slot, Mount>,
}

impl Lockspace {
    /// What is known when a generation is formed: nothing.
    pub(super) fn formed(config: &Config, members: &BTreeMap<Slot, Member>) -> Self {
        let mounts = |(slot, member): (&Slot, &Member)| {
            (config.node(*slot).role == Role::Node).then(|| (*slot, Mount::new(member.identity)))
        };
        match config.shared {
            FileSystem::Squashfs => Self::default(),
            FileSystem::Gfs2 => Self { mounts: members.iter().filter_map(mounts).collect(), ..Self::default() },
        }
    }

    pub(super) fn fits(&self, config: &Config) -> bool {
        self.members.iter().chain(self.mounts.keys()).all(|slot| config.has(*slot))
    }

    /// What is known of this boot of a node; `None` where there is no lockspace.
    pub(crate) fn mount(&self, identity: Identity) -> Option<&Mount> {
        self.mounts.get(&identity.slot).filter(|mount| mount.identity.same_boot(identity))
    }

    /// The boots of which anything is known.
    pub(crate) fn boots(&self) -> impl Iterator<Item = (Slot, Incarnation)> {
        self.mounts.iter().map(|(slot, mount)| (*slot, mount.identity.incarnation))
    }

    /// Whether that slot certainly has it not.
    pub(crate) fn is_out(&self, slot: Slot) -> bool {
        self.mounts.get(&slot).is_none_or(Mount::is_out)
    }

    /// Whether VMs find their files there: it has mounted the file system, or needs not.
    pub(crate) fn serves(&self, slot: Slot) -> bool {
        self.mounts.get(&slot).is_none_or(|mount| mount.mounted)
    }

    /// Those that have it mounted, in order.
    pub(crate) fn mounted(&self) -> impl Iterator<Item = Slot> {
        self.mounts.iter().filter(|(_, mount)| mount.mounted).map(|(slot, _)| *slot)
    }

    /// Those that could not mount it.
    pub(crate) fn failed(&self) -> impl Iterator<Item = Identity> {
        self.mounts.values().filter(|mount| mount.stands == Stands::Failed).map(|mount| mount.identity)
    }

    /// A new boot of a node: nobody knows what an older generation has left there. A new life of the same boot has what the
    /// old one had.
    pub(super) fn fill(&mut self, identity: Identity) {
        if let Some(mount) = self.mounts.get_mut(&identity.slot).filter(|mount| !mount.identity.same_boot(identity)) {
            *mount = Mount::new(identity);
        }
    }

    /// A slot that was added has nothing mounted: nobody was ever there.
    pub(super) fn add(&mut self, config: &Config, identity: Identity) {
        if config.shared == FileSystem::Gfs2 && config.node(identity.slot).role == Role::Node {
            self.mounts.insert(identity.slot, Mount { stands: Stands::Out, ..Mount::new(identity) });
        }
    }

    /// A slot that has it not, and that no other counts among the members, is removed.
    pub(super) fn remove(&mut self, slot: Slot) {
        self.mounts.remove(&slot);
    }

    /// That boot is proven off.
    pub(super) fn proven(&mut self, identity: Identity) {
        if let Some(mount) = self.mounts.get_mut(&identity.slot).filter(|mount| mount.identity.same_boot(identity)) {
            (mount.stands, mount.mounted) = (Stands::Out, false);
        }
    }
}

impl State {
    /// The epoch in which the lockspace is held, or runs.
    pub(crate) fn lock_epoch(&self) -> LockEpoch {
        LockEpoch { generation: self.generation, number: self.lockspace.number }
    }

    /// A member says how it stands, in the epoch of that number.
    pub(super) fn hear_mount(
        &mut self,
        config: &Config,
        identity: Identity,
        (number, word): (u64, Word),
    ) -> Option<Trace> {
        let standing = self.member(identity).filter(|member| member.is_present()).map(|member| member.standing)?;
        let Lockspace { number: now, holding, ref mut mounts, .. } = self.lockspace;
        let mount = mounts.get_mut(&identity.slot).filter(|mount| mount.identity.same_boot(identity));
        let mount = mount.filter(|_| number == now)?;
        let was = *mount;
        match (word, holding, mount.stands) {
            (Word::Held, true, Stands::Unknown | Stands::In) => mount.stands = Stands::Held,
            (Word::Out, true, Stands::Unknown | Stands::In) | (Word::LetGo, false, Stands::In) => {
                mount.stands = Stands::Out;
            }
            (Word::Failed, false, Stands::In) => mount.stands = Stands::Failed,
            (Word::Mounted, false, Stands::In) => mount.mounted = true,
            (Word::Held | Word::Out | Word::LetGo | Word::Failed | Word::Mounted, ..) => {}
        }
        mount.mounted &= !mount.is_out();
        let now = *mount;
        let node = || name(config, identity.slot);
        match (was.stands, now.stands) {
            // Whoever was taken in a moment ago and did not come to run had nothing to let go of.
            (Stands::In, Stands::Out) if was.mounted || standing == Standing::Leaving => {
                Some(Trace::LetGo { node: node() })
            }
            (Stands::In, Stands::Failed) => Some(Trace::DoesWithout { node: node() }),
            (Stands::Unknown | Stands::Out | Stands::Failed | Stands::Held | Stands::In, _) => {
                (now.mounted && !was.mounted).then(|| Trace::Mounted { node: node() })
            }
        }
    }

    /// One that could not mount it is to try again.
    pub(super) fn mount_again(&mut self, identity: Identity) {
        let mount = self.lockspace.mounts.get_mut(&identity.slot).filter(|mount| mount.identity == identity);
        if let Some(mount) = mount.filter(|mount| mount.stands == Stands::Failed) {
            mount.stands = Stands::Out;
        }
    }

    /// After each step: whether a change of members is due, and whether everything is known that the next epoch needs.
    pub(super) fn advance(&mut self, config: &Config) -> Vec<Trace> {
        let standing = |slot: &Slot| self.members.get(slot).map(|member| member.standing);
        let present = |slot: &Slot| matches!(standing(slot), Some(Standing::Member | Standing::Leaving));
        let Lockspace { mounts, members, holding, .. } = &self.lockspace;
        if mounts.iter().any(|(slot, mount)| !mount.is_out() && !present(slot)) {
            return Vec::new();
        }
        let comes = |(slot, mount): (&Slot, &Mount)| match mount.stands {
            Stands::Unknown => true,
            Stands::Out => standing(slot) == Some(Standing::Member) && !config.node(*slot).on_trial,
            Stands::Failed | Stands::Held | Stands::In => false,
        };
        let mut said = Vec::new();
        if !holding {
            if !mounts.iter().any(comes) && !members.iter().any(|slot| self.lockspace.is_out(*slot)) {
                return Vec::new();
            }
            self.lockspace.number += 1;
            self.lockspace.holding = true;
            said.push(Trace::LockspaceHeld { epoch: self.lockspace.number });
        }
        let awaited = |mount: &Mount| matches!(mount.stands, Stands::Unknown | Stands::In);
        if !self.lockspace.mounts.values().any(awaited) {
            said.push(self.take_in(config));
        }
        said
    }

    /// All hold that are not out: the next epoch begins.
    fn take_in(&mut self, config: &Config) -> Trace {
        self.lockspace.members.clear();
        for (slot, mount) in &mut self.lockspace.mounts {
            let Some(member) = self.members.get(slot) else { continue };
            let new = mount.stands == Stands::Out && !config.node(*slot).on_trial;
            let comes = new && member.standing == Standing::Member;
            if mount.stands == Stands::Held || comes {
                (mount.identity, mount.stands) = (member.identity, Stands::In);
                self.lockspace.members.insert(*slot);
            }
        }
        self.lockspace.holding = false;
        let nodes = self.lockspace.members.iter().map(|slot| name(config, *slot)).collect();
        Trace::LockspaceRuns { nodes, epoch: self.lockspace.number }
    }
}

#[cfg(test)]
mod tests;
