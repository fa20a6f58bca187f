//! Moves that nobody needs and that do good: rules that were broken are mended, VMs go back to where they would rather be,
//! and, when asked for, the use of memory is evened out. All of them live, none of them at somebody's cost.

use std::collections::BTreeSet;

use super::inventory::{NodeId, VmId};
use super::ledger::{Fit, Way};
use super::round::Round;
use super::spare::Spare;

/// How far apart the most and the least used node may be, in thousandths of their memory.
pub const SPREAD: u64 = 200;
/// How many nodes next to the most and the least used one are looked at.
const NEAR: usize = 8;

impl Round<'_> {
    /// Parts VMs that are on one node though kept apart (the less important one goes), and joins sets that are on
    /// several: where most of their memory is. Nobody is stopped for it; what does not fit stays as it is.
    pub(super) fn mend(&mut self) {
        let inventory = self.ledger.inventory;
        for vm in inventory.vm_ids().filter(|vm| self.runs(*vm)).collect::<Vec<_>>() {
            let Some(at) = self.ledger.place(vm) else { continue };
            let outranks = |other: VmId| {
                let (one, two) = (inventory.vm(vm).priority, inventory.vm(other).priority);
                self.ledger.groups.are_apart(vm, other) && (two > one || (two == one && other < vm))
            };
            if self.ledger.crowd(vm, at) > 1
                && self.ledger.on(at).any(outranks)
                && let Some(node) = self.ledger.best(vm, Fit::Spread, &[Way::Live])
            {
                self.settle(vm, node);
            }
        }
        for set in &self.ledger.groups.sets {
            let memory = |node: NodeId| -> u64 {
                let here = set.iter().filter(|vm| self.ledger.place(**vm) == Some(node));
                here.map(|vm| inventory.need(*vm)).sum()
            };
            let nodes: BTreeSet<NodeId> =
                set.iter().filter(|vm| self.ledger.is_settled(**vm)).filter_map(|vm| self.ledger.place(*vm)).collect();
            let Some(home) = nodes.iter().copied().rev().max_by_key(|node| memory(*node)).filter(|_| nodes.len() > 1)
            else {
                continue;
            };
            for vm in set {
                if self.runs(*vm) && self.ledger.allows(*vm, home, inventory.need(*vm), Way::Live) {
                    self.settle(*vm, home);
                }
            }
        }
    }

    /// Moves VMs with `auto_failback` to the best of their preferred nodes that has room.
    pub(super) fn fail_back(&mut self) {
        let inventory = self.ledger.inventory;
        let mut back: Vec<VmId> = inventory.vm_ids().filter(|vm| inventory.vm(*vm).auto_failback).collect();
        back.retain(|vm| self.runs(*vm) && self.ledger.groups.set_of(*vm).is_empty());
        back.sort_by_key(|vm| (core::cmp::Reverse(inventory.vm(*vm).priority), *vm));
        for id in back {
            let vm = inventory.vm(id);
            let better = vm.preferred.iter().copied().take_while(|node| self.ledger.place(id) != Some(*node));
            let may =
                |node: &NodeId| Some(*node) != vm.avoid && self.ledger.allows(id, *node, inventory.need(id), Way::Live);
            if let Some(node) = better.into_iter().find(may) {
                self.settle(id, node);
            }
        }
    }

    /// While the use of memory differs by more than [`SPREAD`], moves a VM from a most used node to a little used one:
    /// the VM that leaves the fuller of the two least full. Each move makes the fuller of the two less full, so it ends. A move after which some node's loss could not be absorbed any more, though it could before, is not made.
    pub(super) fn balance(&mut self) {
        let mut spare = Spare::of(&mut self.ledger);
        let open: Vec<NodeId> = self.ledger.inventory.node_ids().filter(|node| self.ledger.is_open(*node)).collect();
        let mut usage: BTreeSet<(u64, NodeId)> = open.iter().map(|node| (self.used(*node, 0), *node)).collect();
        while let (Some((least, _)), Some((most, _))) = (usage.first(), usage.last()) {
            if most - least <= SPREAD {
                return;
            }
            let full: Vec<(u64, NodeId)> = usage.iter().rev().take(NEAR).copied().collect();
            let idle: Vec<(u64, NodeId)> = usage.iter().take(NEAR).copied().collect();
            let downward = idle.iter().filter_map(|to| Some((*full.first()?, *to)));
            let upward = full.iter().skip(1).filter_map(|from| Some((*from, *idle.first()?)));
            let mut moved = false;
            for (from, to) in downward.chain(upward).collect::<Vec<_>>() {
                let Some(vm) = self.evening(from, to) else { continue };
                if spare.survives(&mut self.ledger, vm, to.1) {
                    self.done.push((vm, Some(to.1)));
                    for (was, node) in [from, to] {
                        usage.remove(&(was, node));
                        usage.insert((self.used(node, 0), node));
                    }
                    moved = true;
                    break;
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// The part of a node's memory that is used, in thousandths, if `more` MiB came to it (or, below zero, left it).
    fn used(&self, node: NodeId, more: i64) -> u64 {
        let total = u64::from(self.ledger.inventory.node(node).total.0).max(1);
        let used = total.saturating_sub(self.ledger.free(node)).saturating_add_signed(more);
        used.saturating_mul(1000) / total
    }

    /// The VM whose move from one node to the other evens them out best; `None` if none leaves them closer together.
    fn evening(&self, (most, from): (u64, NodeId), (least, to): (u64, NodeId)) -> Option<VmId> {
        let inventory = self.ledger.inventory;
        let after = |vm: VmId| {
            let need = i64::try_from(inventory.need(vm)).unwrap_or(i64::MAX);
            (self.used(from, -need), self.used(to, need))
        };
        let fuller = |vm: VmId| after(vm).0.max(after(vm).1);
        let rank = |id: VmId, node: NodeId| {
            let preferred = &inventory.vm(id).preferred;
            preferred.iter().position(|one| *one == node).unwrap_or(preferred.len())
        };
        let may = |id: &VmId| {
            let vm = inventory.vm(*id);
            self.runs(*id)
                && self.is_movable(*id)
                && vm.avoid != Some(to)
                && self.ledger.groups.set_of(*id).is_empty()
                && !(vm.auto_failback && rank(*id, to) > rank(*id, from))
                && self.ledger.allows(*id, to, inventory.need(*id), Way::Live)
                && fuller(*id) < most
                && after(*id).0 >= least
        };
        let key = |id: &VmId| (inventory.vm(*id).stickiness, fuller(*id), *id);
        self.ledger.on(from).filter(may).min_by_key(key)
    }
}
