//! One round of planning: everybody who waits for a node gets one, or room is made, or there is none.

use core::cmp::Reverse;
use std::collections::BTreeSet;

use super::groups::Groups;
use super::inventory::{Inventory, NodeId, VmId, Where};
use super::ledger::{Coming, Fit, Ledger, Way};

/// A decision: a VM goes to a node, or to none.
pub(super) type Decision = (VmId, Option<NodeId>);

/// How many arrangements one round may try for all VMs that find no room by themselves. What is left after that has no
/// room; the next plan from the same state would try the same.
const TRIES: u32 = 400_000;

/// The queue of those that wait: priority, then those that must leave, then start order, then size.
type Rank = (Reverse<u8>, bool, u32, Reverse<u64>, VmId);

#[derive(Debug)]
pub(super) struct Round<'a> {
    pub(super) ledger: Ledger<'a>,
    /// The decisions in order.
    pub(super) done: Vec<Decision>,
    /// Those that ran and are stopped for room: they start anew.
    pub(super) stopped: BTreeSet<VmId>,
    pub(super) tries: u32,
}

impl<'a> Round<'a> {
    pub(super) fn new(inventory: &'a Inventory, groups: &'a Groups<'a>) -> Self {
        let ledger = Ledger::new(inventory, groups, Coming::Counts);
        Self { ledger, done: Vec::new(), stopped: BTreeSet::new(), tries: TRIES }
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

    fn rank(&self, id: VmId) -> Rank {
        let vm = self.inventory().vm(id);
        let stays = !matches!(vm.whereabouts, Where::Leaving(_));
        (Reverse(vm.priority), stays, vm.start_order, Reverse(self.inventory().need(id)), id)
    }

    /// Whether it waits for a node.
    fn waits(&self, vm: VmId) -> bool {
        match self.inventory().vm(vm).whereabouts {
            Where::Stopped | Where::Leaving(_) => !self.ledger.is_settled(vm),
            Where::Running(_) | Where::InFlight { .. } => false,
        }
    }

    /// How it may come to another node.
    pub(super) fn ways(&self, id: VmId) -> &'static [Way] {
        let vm = self.inventory().vm(id);
        match vm.whereabouts {
            Where::Stopped => &[Way::Cold],
            Where::Running(_) if self.stopped.contains(&id) => &[Way::Cold],
            Where::Leaving(_) if vm.cold_move => &[Way::Live, Way::Cold],
            Where::Running(_) | Where::Leaving(_) => &[Way::Live],
            Where::InFlight { .. } => &[],
        }
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
        let waiting: Vec<VmId> = self.inventory().vm_ids().filter(|vm| self.waits(*vm)).collect();
        let left = self.fill(waiting);
        let mut queue: BTreeSet<Rank> = left.into_iter().map(|vm| self.rank(vm)).collect();
        while let Some((.., vm)) = queue.pop_first() {
            if !self.rearrange(vm) {
                let victims = self.preempt(vm);
                queue.extend(victims.into_iter().map(|victim| self.rank(victim)));
            }
        }
    }

    /// Three passes over those that wait, and the one that leaves out the fewest important ones counts: spread over the
    /// nodes; packed, large ones first; packed, small ones first. Most often the first leaves nobody out.
    fn fill(&mut self, mut waiting: Vec<VmId>) -> Vec<VmId> {
        let inventory = self.inventory();
        let priority = |vm: VmId| Reverse(inventory.vm(vm).priority);
        let mark = self.mark();
        let mut best: Option<(Vec<u8>, Vec<VmId>, Vec<Decision>)> = None;
        for pass in 0..3 {
            match pass {
                0 => waiting.sort_by_key(|vm| self.rank(*vm)),
                1 => waiting.sort_by_key(|vm| (priority(*vm), Reverse(inventory.need(*vm)), *vm)),
                _ => waiting.sort_by_key(|vm| (priority(*vm), inventory.need(*vm), *vm)),
            }
            let left = self.pass(&waiting, if pass == 0 { Fit::Spread } else { Fit::Pack });
            if left.is_empty() {
                return left;
            }
            let missing: Vec<u8> = left.iter().map(|vm| inventory.vm(*vm).priority).collect();
            let decided = self.done.get(mark.1..).unwrap_or_default().to_vec();
            self.rewind(mark);
            if best.as_ref().is_none_or(|(least, ..)| missing < *least) {
                best = Some((missing, left, decided));
            }
        }
        let (_, left, decided) = best.unwrap_or_default();
        for (vm, node) in decided {
            self.ledger.put(vm, node);
            self.done.push((vm, node));
        }
        left
    }

    fn pass(&mut self, waiting: &[VmId], fit: Fit) -> Vec<VmId> {
        let mut left = Vec::new();
        for vm in waiting {
            match self.ledger.best(*vm, fit, self.ways(*vm)) {
                Some(node) => self.settle(*vm, node),
                None => left.push(*vm),
            }
        }
        left
    }
}
