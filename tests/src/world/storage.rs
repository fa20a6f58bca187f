//! The storage: who may write to which VM's disks.
//!
//! Before a domain is built, its VM's disks are claimed with the generation of the order; older ones are refused. This table
//! is the oracle of who may write: it ends nobody's writing by itself, so that it hides no fault of the core.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster::words::{Claim, Incarnation, VmName};

use super::machine::Machine;
use super::{Happening, World};

/// How long disks may be away before a machine's shell gives them up.
const STORAGE_LOST: Duration = Duration::from_secs(10);

/// Whose a VM's disks are.
#[derive(Debug, Default, Clone)]
struct Owner {
    claim: Claim,
    /// The boots that may write: one, or both ends of a migration.
    writers: BTreeSet<Incarnation>,
}

/// All claims.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Epochs that were handed out.
    epochs: u64,
    owners: BTreeMap<VmName, Owner>,
}

impl Claims {
    /// Claims a VM's disks, beside those `others` who may go on writing.
    ///
    /// # Errors
    /// The claim that has them.
    fn take(
        &mut self,
        vm: &VmName,
        claim: Claim,
        who: Incarnation,
        others: &BTreeSet<Incarnation>,
    ) -> Result<(), Claim> {
        let owner = self.owners.entry(vm.clone()).or_default();
        let taken = claim == owner.claim && !owner.writers.is_empty() && !owner.writers.contains(&who);
        if claim < owner.claim || taken {
            return Err(owner.claim);
        }
        owner.claim = claim;
        owner.writers.retain(|writer| others.contains(writer));
        owner.writers.insert(who);
        Ok(())
    }

    pub(super) fn may_write(&self, vm: &VmName, who: Incarnation) -> bool {
        self.owners.get(vm).is_some_and(|owner| owner.writers.contains(&who))
    }
}

impl World {
    /// A boot is barred from the storage for ever.
    pub(super) fn bar(&mut self, incarnation: Incarnation) {
        self.barred.insert(incarnation);
        let barred =
            |(at, machine): (usize, &Machine)| (machine.incarnation == incarnation).then_some((at, machine.boot));
        if let Some((at, boot)) = self.machines.iter().enumerate().find_map(barred) {
            self.plan(STORAGE_LOST, Happening::Barred { at, boot });
        }
    }

    /// The machine's disks do not come back: its shell says so, whichever life of the supervisor that is told.
    pub(super) fn notice_barred(&mut self, at: usize, boot: u64) {
        if self.machine(at).boot == boot {
            self.fail_storage(at);
            self.plan(STORAGE_LOST, Happening::Barred { at, boot });
        }
    }

    /// Whether a machine reaches the storage, which the gateway exports.
    pub(super) fn storage_answers(&mut self, at: usize) -> bool {
        !self.storage_gone && self.machine(0).up && (at == 0 || self.talk(at, 0))
    }

    /// The storage hands an epoch out.
    ///
    /// # Errors
    /// Why it does not.
    pub(super) fn reserve(&mut self, at: usize) -> Result<u64, String> {
        if !self.storage_answers(at) {
            return Err("the storage does not answer".to_owned());
        }
        self.claims.epochs += 1;
        Ok(self.claims.epochs)
    }

    /// A machine claims a VM's disks: alone, or with whoever runs it now.
    ///
    /// # Errors
    /// Why it has not got them.
    pub(super) fn claim(&mut self, at: usize, vm: &VmName, claim: Claim, alone: bool) -> Result<(), String> {
        if !self.storage_answers(at) {
            return Err("the storage does not answer".to_owned());
        }
        let running = if alone { BTreeSet::new() } else { self.running(vm) };
        let others = running.iter().filter_map(|at| Some(self.machines.get(*at)?.incarnation)).collect();
        let who = self.machine(at).incarnation;
        let refused =
            |has: Claim| format!("its disks are claimed by generation {} of epoch {}", has.generation.0, has.epoch);
        self.claims.take(vm, claim, who, &others).map_err(refused)
    }
}

#[cfg(test)]
mod tests {
    use cluster::words::Generation;

    use super::*;

    #[test]
    fn an_older_claim_is_refused_and_a_migration_has_two_writers() {
        let mut claims = Claims::default();
        let vm = VmName::new("x0").unwrap();
        let boot = |n| Incarnation::new(n).unwrap();
        let mut claim = |epoch, generation, who, others: &[u64]| {
            let others = others.iter().map(|n| boot(*n)).collect();
            let claim = Claim { epoch, generation: Generation(generation) };
            let done = claims.take(&vm, claim, boot(who), &others);
            (done.is_ok(), (1..4).filter(|n| claims.may_write(&vm, boot(*n))).collect::<Vec<u64>>())
        };
        assert_eq!(claim(1, 5, 1, &[]), (true, vec![1]));
        assert_eq!(claim(1, 4, 2, &[]), (false, vec![1]), "an older one");
        assert_eq!(claim(1, 5, 2, &[]), (false, vec![1]), "somebody else's");
        assert_eq!(claim(1, 6, 2, &[1]), (true, vec![1, 2]), "both ends");
        assert_eq!(claim(1, 7, 3, &[]), (true, vec![3]), "a start has the disks alone");
        assert_eq!(claim(2, 1, 2, &[]), (true, vec![2]), "a later epoch");
        assert_eq!(claim(1, 8, 3, &[]), (false, vec![2]), "an earlier epoch");
    }
}
