//! One round of planning: everybody who waits for a node gets one, or room is made, or there is none.

use std::collections::BTreeSet;

use super::fill::{Rank, fill, rank};
use super::groups::Groups;
use super::inventory::{Inventory, NodeId, VmId, Where};
use super::ledger::{Ledger, Way};

/// A decision: a VM goes to a node, or to none.
pub(super) type Decision = (VmId, Option<NodeId>);

/// Arrangements that one round may try, for all VMs that find no room by themselves. What is left after that has no room;
/// the next plan from the same state would try the same.
const TRIES: u32 = 30_000;
/// Nodes that one round may look at for victims.
const LOOKS: u32 = 300_000;

/// Steps of the search for an arrangement of all that wait.
const STEPS: u32 = 10_000;

#[derive(Debug)]
pub(super) struct Round<'a> {
    pub(super) ledger: Ledger<'a>,
    /// The decisions in order.
    pub(super) done: Vec<Decision>,
    /// Those that ran and are stopped for room: they start anew.
    pub(super) stopped: BTreeSet<VmId>,
    /// How many of [`TRIES`] are left.
    pub(super) tries: u32,
    /// How many of [`LOOKS`] are left.
    pub(super) looks: u32,
}

impl<'a> Round<'a> {
    pub(super) fn new(inventory: &'a Inventory, groups: &'a Groups<'a>) -> Self {
        let ledger = Ledger::new(inventory, groups);
        Self { ledger, done: Vec::new(), stopped: BTreeSet::new(), tries: TRIES, looks: LOOKS }
    }

    /// Everything that is to be decided; nothing if all is as it should be.
    pub(super) fn run(mut self) -> Vec<Decision> {
        self.place();
        self.mend();
        self.fail_back();
        if self.done.is_empty() && self.ledger.inventory.balance {
            self.balance();
        }
        // Somebody who got a node and was pushed out again still waits, as if nothing had been decided.
        let waiting = |vm: VmId| self.waits(vm);
        self.done.iter().copied().filter(|(vm, _)| !waiting(*vm)).collect()
    }

    fn inventory(&self) -> &'a Inventory {
        self.ledger.inventory
    }

    /// Whether it waits for a node.
    fn waits(&self, vm: VmId) -> bool {
        match self.inventory().vm(vm).whereabouts {
            Where::Stopped | Where::Leaving(_) => !self.ledger.is_settled(vm),
            Where::Running(_) | Where::InFlight { .. } => false,
        }
    }

    /// How it may come to another node.
    pub(super) fn ways(&self, vm: VmId) -> &'static [Way] {
        ways(self.inventory(), &self.stopped, vm)
    }

    /// Whether it runs and nothing was decided about stopping it.
    pub(super) fn runs(&self, vm: VmId) -> bool {
        matches!(self.inventory().vm(vm).whereabouts, Where::Running(_)) && !self.stopped.contains(&vm)
    }

    /// Gives a VM a node.
    pub(super) fn settle(&mut self, vm: VmId, node: NodeId) {
        self.ledger.put(vm, Some(node));
        self.done.push((vm, Some(node)));
    }

    pub(super) fn mark(&self) -> (usize, usize) {
        (self.ledger.mark(), self.done.len())
    }

    pub(super) fn rewind(&mut self, (ledger, done): (usize, usize)) {
        self.ledger.rewind(ledger);
        self.done.truncate(done);
    }

    /// Nodes for all that wait: the plain way, and for those that this leaves out, by making room.
    fn place(&mut self) {
        let inventory = self.inventory();
        let waiting: Vec<VmId> = inventory.vm_ids().filter(|vm| self.waits(*vm)).collect();
        let filling = fill(&mut self.ledger, waiting, &|vm| ways(inventory, &BTreeSet::new(), vm), STEPS);
        self.done.extend(filling.decided.into_iter().map(|(vm, node)| (vm, Some(node))));
        let left = filling.left;
        let mut queue: BTreeSet<Rank> = left.into_iter().map(|vm| rank(inventory, vm)).collect();
        while let Some((.., vm)) = queue.pop_first() {
            if !self.rearrange(vm) {
                let victims = self.preempt(vm);
                queue.extend(victims.into_iter().map(|victim| rank(inventory, victim)));
            }
        }
    }
}

fn ways(inventory: &Inventory, stopped: &BTreeSet<VmId>, id: VmId) -> &'static [Way] {
    let vm = inventory.vm(id);
    match vm.whereabouts {
        Where::Stopped => &[Way::Cold],
        Where::Running(_) if stopped.contains(&id) => &[Way::Cold],
        Where::Leaving(_) if vm.cold_move => &[Way::Live, Way::Cold],
        Where::Running(_) | Where::Leaving(_) => &[Way::Live],
        Where::InFlight { .. } => &[],
    }
}
