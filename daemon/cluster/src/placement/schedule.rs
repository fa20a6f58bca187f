//! From decisions to steps: stops and moves in the order of the decisions, then the starts in their own order.
//!
//! The decisions were made one after another, each finding the room that those before it left. Starts only take, so they can
//! all come last; everything else keeps its order. A VM about which several decisions were made gets the fewest steps that
//! come to the same.

use core::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::groups::Groups;
use super::inventory::{Inventory, NodeId, VmId, Where};
use super::ledger::{Ledger, Way};
use super::plan::{Act, Step};
use super::round::Decision;

/// The steps of all decisions, in order.
pub(super) fn steps(inventory: &Inventory, groups: &Groups<'_>, decisions: &[Decision]) -> Vec<Step> {
    let ledger = Ledger::new(inventory, groups);
    let mut of_vm: BTreeMap<VmId, Vec<(usize, Option<NodeId>)>> = BTreeMap::new();
    for (at, (vm, to)) in decisions.iter().enumerate() {
        of_vm.entry(*vm).or_default().push((at, *to));
    }
    let mut changes: BTreeMap<usize, (VmId, Act)> = BTreeMap::new();
    let mut starts = Vec::new();
    for (vm, decided) in of_vm {
        let Some((last, end)) = decided.last().copied() else { continue };
        let mut moved = |at: usize, to: NodeId| {
            let live = ledger.suits(vm, groups.kind[to], Way::Live);
            changes.insert(at, (vm, if live { Act::Migrate(to) } else { Act::ColdMove(to) }));
        };
        match inventory.vm(vm).whereabouts {
            Where::Stopped => starts.extend(end.map(|to| (vm, to))),
            // Nobody comes to a node that is being left, so nobody counts on an earlier departure.
            Where::Leaving(from) if !inventory.node(from).accepts => {
                end.into_iter().for_each(|to| moved(last, to));
            }
            Where::Running(_) | Where::Leaving(_) => {
                if decided.iter().all(|(_, to)| to.is_some()) {
                    decided.iter().filter_map(|(at, to)| Some((*at, (*to)?))).for_each(|(at, to)| moved(at, to));
                } else {
                    let first = decided.first().map_or(0, |(at, _)| *at);
                    changes.insert(first, (vm, Act::StopForRoom));
                    starts.extend(end.map(|to| (vm, to)));
                }
            }
            Where::InFlight { .. } => {}
        }
    }
    starts.sort_by_key(|(vm, _)| {
        let record = inventory.vm(*vm);
        (record.start_order, Reverse(record.priority), Reverse(record.memory), *vm)
    });
    let starts = starts.into_iter().map(|(vm, to)| (vm, Act::Start(to)));
    mark_waiting(ledger, changes.into_values().chain(starts))
}

/// Replays the steps as if nothing were ever given back: who does not fit then has to wait.
fn mark_waiting(mut ledger: Ledger<'_>, steps: impl Iterator<Item = (VmId, Act)>) -> Vec<Step> {
    let mut begun = BTreeSet::new();
    let mut marked = Vec::new();
    for (vm, act) in steps {
        let to = match act {
            Act::Start(to) | Act::Migrate(to) | Act::ColdMove(to) => Some(to),
            Act::StopForRoom => None,
        };
        let need = ledger.inventory.need(vm);
        let waits = !begun.insert(vm) || to.is_some_and(|to| !ledger.allows(vm, to, need, Way::Cold));
        if let Some(to) = to.filter(|_| !waits) {
            ledger.shift(vm, to, true);
        }
        marked.push(Step { vm, act, waits });
    }
    marked
}
