//! N+1: whether the VMs of any one node would find room on the others.
//!
//! What is asked is the plain case: the node is lost, and its VMs start elsewhere, without anybody moving or being stopped.

use std::collections::{BTreeMap, BTreeSet};

use super::fill::fill;
use super::inventory::{NodeId, VmId};
use super::ledger::{Fit, Ledger, Way};

/// A node whose loss could not be absorbed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// The node.
    pub node: NodeId,
    /// Which of its VMs would not fit elsewhere, the most important one first.
    pub vms: Vec<VmId>,
}

/// Steps of the search for a place for one node's VMs.
const STEPS: u32 = 1_000;

/// Where each VM of a node would go; or which of them could go nowhere.
type Refuge = Result<BTreeMap<VmId, NodeId>, Vec<VmId>>;

/// Where the VMs of a node would go if it were lost.
pub(super) fn refuge(ledger: &mut Ledger<'_>, node: NodeId) -> Refuge {
    let mark = ledger.mark();
    let was_open = ledger.close(node);
    let lost: Vec<VmId> = ledger.on(node).collect();
    for vm in &lost {
        ledger.put(*vm, None);
    }
    // If one of them fits nowhere even alone, no arrangement of them all does.
    let hopeless = lost.iter().any(|vm| ledger.best(*vm, Fit::Pack, &[Way::Cold]).is_none());
    let filling = fill(ledger, lost, &|_| &[Way::Cold], if hopeless { 0 } else { STEPS });
    ledger.rewind(mark);
    if was_open {
        ledger.open(node);
    }
    if filling.left.is_empty() { Ok(filling.decided.into_iter().collect()) } else { Err(filling.left) }
}

/// The nodes whose loss the others can absorb, each with an arrangement that shows it.
#[derive(Debug)]
pub(super) struct Spare {
    refuges: BTreeMap<NodeId, BTreeMap<VmId, NodeId>>,
    /// Which of those nodes count on room on a node.
    counting: BTreeMap<NodeId, BTreeSet<NodeId>>,
}

impl Spare {
    pub(super) fn of(ledger: &mut Ledger<'_>) -> Self {
        let mut spare = Self { refuges: BTreeMap::new(), counting: BTreeMap::new() };
        for node in ledger.inventory.node_ids() {
            if let Ok(refuge) = refuge(ledger, node) {
                spare.keep(node, refuge);
            }
        }
        spare
    }

    fn keep(&mut self, node: NodeId, refuge: BTreeMap<VmId, NodeId>) {
        for to in refuge.values() {
            self.counting.entry(*to).or_default().insert(node);
        }
        self.refuges.insert(node, refuge);
    }

    /// Moves a VM, if every node whose loss could be absorbed before can be lost after it too; whether it did. Only the
    /// arrangements that count on room on its new node, and that node's own, are looked at again.
    pub(super) fn survives(&mut self, ledger: &mut Ledger<'_>, vm: VmId, to: NodeId) -> bool {
        let mark = ledger.mark();
        ledger.put(vm, Some(to));
        let mut concerned = self.counting.get(&to).cloned().unwrap_or_default();
        concerned.insert(to);
        let mut renewed = Vec::new();
        for node in concerned {
            let Some(kept) = self.refuges.get(&node) else { continue };
            if holds(ledger, node, kept, to) {
                continue;
            }
            match refuge(ledger, node) {
                Ok(refuge) => renewed.push((node, refuge)),
                Err(_) => {
                    ledger.rewind(mark);
                    return false;
                }
            }
        }
        for (node, refuge) in renewed {
            self.keep(node, refuge);
        }
        true
    }
}

/// Whether the arrangement still holds after a VM has come to `changed`.
fn holds(ledger: &Ledger<'_>, node: NodeId, kept: &BTreeMap<VmId, NodeId>, changed: NodeId) -> bool {
    let all = ledger.on(node).all(|vm| kept.contains_key(&vm));
    let mut coming = kept.iter().filter(|(vm, to)| **to == changed && ledger.place(**vm) == Some(node));
    let need: u64 = coming.clone().map(|(vm, _)| ledger.inventory.need(*vm)).sum();
    all && need <= ledger.free(changed) && coming.all(|(vm, _)| ledger.crowd(*vm, changed) == 0)
}
