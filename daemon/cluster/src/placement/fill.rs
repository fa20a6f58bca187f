//! Nodes for all that wait, as things are: nobody who has a node is touched.
//!
//! Three passes, and the one that leaves out the fewest important ones counts: spread over the nodes; packed, small ones
//! first; packed, large ones first. Most often the first leaves nobody out. If each leaves somebody out, and few wait,
//! every other arrangement is tried, as long as it could be better and the steps last.

use core::cmp::Reverse;

use super::inventory::{Inventory, NodeId, VmId, Where};
use super::ledger::{Fit, Ledger, Way};

/// How many may wait for other arrangements to be tried.
const FEW: usize = 16;
/// Nodes of each kind of CPU that are tried for a VM.
const NEAR: usize = 8;

/// The order of those that wait: priority, then those that must leave, then start order, then size.
pub(super) type Rank = (Reverse<u8>, bool, u32, Reverse<u64>, VmId);

pub(super) fn rank(inventory: &Inventory, id: VmId) -> Rank {
    let vm = inventory.vm(id);
    let stays = !matches!(vm.whereabouts, Where::Leaving(_));
    (Reverse(vm.priority), stays, vm.start_order, Reverse(inventory.need(id)), id)
}

/// Who gets which node, and who none.
#[derive(Clone, Debug, Default)]
pub(super) struct Filling {
    /// In order.
    pub(super) decided: Vec<(VmId, NodeId)>,
    /// The most important first.
    pub(super) left: Vec<VmId>,
}

/// Gives nodes to `waiting`, each of whom may come in the given ways.
pub(super) fn fill(
    ledger: &mut Ledger<'_>,
    mut waiting: Vec<VmId>,
    ways: &dyn Fn(VmId) -> &'static [Way],
    steps: u32,
) -> Filling {
    let inventory = ledger.inventory;
    let priority = |vm: VmId| Reverse(inventory.vm(vm).priority);
    let mut filler = Filler { ledger, ways, steps, now: Filling::default(), best: None };
    waiting.sort_by_key(|vm| rank(inventory, *vm));
    let mut all = filler.pass(&waiting, Fit::Spread);
    if !all {
        waiting.sort_by_key(|vm| (priority(*vm), inventory.need(*vm), *vm));
        all = filler.pass(&waiting, Fit::Pack);
    }
    if !all {
        waiting.sort_by_key(|vm| (priority(*vm), Reverse(inventory.need(*vm)), *vm));
        all = filler.pass(&waiting, Fit::Pack);
    }
    if !all && waiting.len() <= FEW {
        filler.search(&waiting);
    }
    let filling = filler.best.unwrap_or_default();
    if !all {
        filling.decided.iter().for_each(|(vm, node)| ledger.put(*vm, Some(*node)));
    }
    filling
}

struct Filler<'f, 'a> {
    ledger: &'f mut Ledger<'a>,
    ways: &'f dyn Fn(VmId) -> &'static [Way],
    steps: u32,
    now: Filling,
    best: Option<Filling>,
}

impl Filler<'_, '_> {
    /// Whether what is decided now could become better than the best: the priorities of those left out, the highest
    /// first, are the smaller list.
    fn is_better(&self) -> bool {
        let missing = |vm: &VmId| self.ledger.inventory.vm(*vm).priority;
        let now = self.now.left.iter().map(missing);
        self.best.as_ref().is_none_or(|best| now.lt(best.left.iter().map(missing)))
    }

    /// One VM after the other, each where it does best; whether all have a node. If not, nothing is changed.
    fn pass(&mut self, waiting: &[VmId], fit: Fit) -> bool {
        let mark = self.ledger.mark();
        for vm in waiting {
            match self.ledger.best(*vm, fit, (self.ways)(*vm)) {
                Some(node) => {
                    self.ledger.put(*vm, Some(node));
                    self.now.decided.push((*vm, node));
                }
                None => self.now.left.push(*vm),
            }
        }
        let all = self.now.left.is_empty();
        if !all {
            self.ledger.rewind(mark);
        }
        if self.is_better() {
            self.best = Some(core::mem::take(&mut self.now));
        }
        self.now = Filling::default();
        all
    }

    /// The first VM on every node in turn, and left out, and likewise the others after it.
    fn search(&mut self, waiting: &[VmId]) {
        if self.steps == 0 || !self.is_better() {
            return;
        }
        self.steps -= 1;
        let Some((vm, rest)) = waiting.split_first() else {
            self.best = Some(self.now.clone());
            return;
        };
        let ways = (self.ways)(*vm);
        let need = self.ledger.inventory.need(*vm);
        let pins = self.ledger.pins(*vm);
        for node in self.ledger.nearest(*vm, ways, NEAR).into_iter().rev() {
            let may = ways.iter().any(|way| self.ledger.allows(*vm, node, need, *way));
            if may && pins.iter().all(|pin| *pin == node) {
                let mark = self.ledger.mark();
                self.ledger.put(*vm, Some(node));
                self.now.decided.push((*vm, node));
                self.search(rest);
                self.now.decided.pop();
                self.ledger.rewind(mark);
            }
        }
        self.now.left.push(*vm);
        self.search(rest);
        self.now.left.pop();
    }
}
