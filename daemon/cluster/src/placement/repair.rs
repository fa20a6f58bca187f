//! Room for a VM that finds none: others make way, or less important ones are stopped.
//!
//! **Making way** is a search for a chain of moves: on a node that comes near to having room, one VM or two go elsewhere, and
//! whoever goes may push others in turn, three links deep. Those that were only just planned are pushed before those that
//! run, because moving them costs nothing.
//!
//! **Preemption** stops the least important ones that will do: of all sets of victims, the one whose most important member
//! is least important, then the smallest. Victims wait again for a node, and may preempt even less important ones.

use core::cmp::Reverse;

use super::inventory::{NodeId, VmId, Where};
use super::ledger::{Fit, Way};
use super::round::Round;

/// Links of a chain.
const DEPTH: u32 = 3;
/// Arrangements that may be tried for one VM.
const PATIENCE: u32 = 1_000;
/// Nodes of each kind of CPU on which room is made.
const NEAR: usize = 8;
/// Nodes that are compared before one is chosen for preemption.
const COMPARED: usize = 32;

/// What stopping some VMs costs, the most important thing first.
type Cost = (bool, u8, usize, usize, u64);

impl Round<'_> {
    /// Gives a VM a node, if need be by moving others; whether it did.
    pub(super) fn rearrange(&mut self, vm: VmId) -> bool {
        let (before, patience) = (self.tries, PATIENCE.min(self.tries));
        self.tries = patience;
        let placed = (1..=DEPTH).any(|depth| self.insert(vm, depth));
        self.tries = before - (patience - self.tries);
        placed
    }

    fn insert(&mut self, vm: VmId, depth: u32) -> bool {
        let ways = self.ways(vm);
        if let Some(node) = self.ledger.best(vm, Fit::Pack, ways) {
            self.settle(vm, node);
            return true;
        }
        if depth == 0 {
            return false;
        }
        for node in self.nodes_for(vm, ways) {
            for out in self.ways_out(vm, node) {
                if self.tries == 0 {
                    return false;
                }
                self.tries -= 1;
                let hopeless = |other: &VmId| self.ledger.best(*other, Fit::Pack, self.ways(*other)).is_none();
                if depth == 1 && out.iter().any(hopeless) {
                    continue;
                }
                if self.make_way(vm, node, &out, depth) {
                    return true;
                }
            }
        }
        false
    }

    /// Where room could be made: where its set is, or where most is free; the node where it failed last is the last.
    fn nodes_for(&self, vm: VmId, ways: &[Way]) -> Vec<NodeId> {
        let pins = self.ledger.pins(vm);
        let mut nodes = if pins.is_empty() { self.ledger.nearest(vm, ways, NEAR) } else { pins.into_iter().collect() };
        let kind = &self.ledger.groups.kind;
        nodes.retain(|node| {
            let suits = ways.iter().any(|way| self.ledger.suits(vm, kind[*node], *way));
            suits && self.ledger.is_open(*node)
        });
        let avoid = self.ledger.inventory.vm(vm).avoid;
        nodes.sort_by_key(|node| Some(*node) == avoid);
        nodes
    }

    /// Puts `out` elsewhere and the VM in their place, or changes nothing. Nobody else may come to that node meanwhile, so
    /// that those who go can go before the VM comes.
    fn make_way(&mut self, vm: VmId, node: NodeId, out: &[VmId], depth: u32) -> bool {
        let mark = self.mark();
        for other in out {
            self.ledger.put(*other, None);
        }
        self.ledger.put(vm, Some(node));
        self.ledger.close(node);
        let all = out.iter().all(|other| self.insert(*other, depth - 1));
        self.ledger.open(node);
        if all {
            self.done.push((vm, Some(node)));
        } else {
            self.rewind(mark);
        }
        all
    }

    /// The ones or twos on a node whose leaving makes room there, cheapest first.
    fn ways_out(&self, vm: VmId, node: NodeId) -> Vec<Vec<VmId>> {
        let inventory = self.ledger.inventory;
        let lack = inventory.need(vm).saturating_sub(self.ledger.free(node));
        let enough = |out: &[VmId]| out.iter().map(|other| inventory.need(*other)).sum::<u64>() >= lack;
        let apart = |other: VmId| self.ledger.groups.are_apart(vm, other);
        let crowd = self.ledger.crowd(vm, node) > 0;
        let mut movable: Vec<VmId> = self.ledger.on(node).filter(|other| self.is_movable(*other)).collect();
        movable
            .sort_by_key(|other| (self.runs(*other), inventory.vm(*other).stickiness, inventory.need(*other), *other));
        let must: Vec<VmId> =
            if crowd { self.ledger.on(node).filter(|other| apart(*other)).collect() } else { Vec::new() };
        if must.len() > 2 || must.iter().any(|other| !self.is_movable(*other)) {
            return Vec::new();
        }
        let has_all = |out: &[VmId]| must.iter().all(|other| out.contains(other));
        let ones = movable.iter().map(|one| vec![*one]);
        let ones: Vec<_> = ones.filter(|out| enough(out) && has_all(out)).collect();
        let twos =
            movable.iter().enumerate().flat_map(|(at, one)| movable.iter().skip(at + 1).map(|two| vec![*one, *two]));
        let simpler = |out: &[VmId]| out.iter().any(|one| ones.contains(&vec![*one]));
        let twos: Vec<_> = twos.filter(|out| enough(out) && has_all(out) && !simpler(out)).collect();
        ones.into_iter().chain(twos).collect()
    }

    /// Whether a VM may be moved for others.
    pub(super) fn is_movable(&self, id: VmId) -> bool {
        let vm = self.ledger.inventory.vm(id);
        match vm.whereabouts {
            Where::Running(_) => vm.stickiness < u8::MAX || self.stopped.contains(&id),
            Where::Stopped | Where::Leaving(_) => true,
            Where::InFlight { .. } => false,
        }
    }

    /// Stops less important VMs where that makes room, and takes it. Who was stopped waits again.
    pub(super) fn preempt(&mut self, vm: VmId) -> Vec<VmId> {
        let Some((node, victims)) = self.cheapest(vm) else {
            return Vec::new();
        };
        for victim in &victims {
            let back = match self.ledger.inventory.vm(*victim).whereabouts {
                Where::Leaving(at) => Some(at),
                Where::Running(_) => {
                    self.stopped.insert(*victim);
                    None
                }
                Where::Stopped | Where::InFlight { .. } => None,
            };
            self.ledger.put(*victim, back);
            self.done.push((*victim, back));
        }
        self.settle(vm, node);
        victims
    }

    fn cheapest(&mut self, vm: VmId) -> Option<(NodeId, Vec<VmId>)> {
        let ways = self.ways(vm);
        let pins = self.ledger.pins(vm);
        let priority = self.ledger.inventory.vm(vm).priority;
        let mut best: Option<(Cost, NodeId, Vec<VmId>)> = None;
        let mut found = 0;
        for (lowest, node) in self.ledger.lowest() {
            if lowest >= priority || found == COMPARED || self.looks == 0 {
                break;
            }
            let suits = ways.iter().any(|way| self.ledger.suits(vm, self.ledger.groups.kind[node], *way));
            if !suits || !self.ledger.is_open(node) || !(pins.is_empty() || pins.contains(&node)) {
                continue;
            }
            self.looks -= 1;
            let Some(victims) = self.victims(vm, node) else { continue };
            found += 1;
            let cost = self.cost(vm, node, &victims);
            if best.as_ref().is_none_or(|(least, ..)| cost < *least) {
                best = Some((cost, node, victims));
            }
        }
        best.map(|(_, node, victims)| (node, victims))
    }

    fn cost(&self, vm: VmId, node: NodeId, victims: &[VmId]) -> Cost {
        let inventory = self.ledger.inventory;
        let highest = victims.iter().map(|victim| inventory.vm(*victim).priority).max().unwrap_or(0);
        let running = victims.iter().filter(|victim| self.runs(**victim)).count();
        let memory = victims.iter().map(|victim| inventory.need(*victim)).sum();
        (inventory.vm(vm).avoid == Some(node), highest, victims.len(), running, memory)
    }

    /// The least important VMs of a node without which there is room, none of them to spare; `None` if there are none.
    fn victims(&self, vm: VmId, node: NodeId) -> Option<Vec<VmId>> {
        let inventory = self.ledger.inventory;
        let lack = inventory.need(vm).saturating_sub(self.ledger.free(node));
        let apart = |other: VmId| self.ledger.groups.are_apart(vm, other);
        let gain = |victims: &[VmId]| victims.iter().map(|victim| inventory.need(*victim)).sum::<u64>();
        let may = |other: &VmId| {
            let lower = inventory.vm(*other).priority < inventory.vm(vm).priority;
            lower && !matches!(inventory.vm(*other).whereabouts, Where::InFlight { .. })
        };
        let mut lower: Vec<VmId> = self.ledger.on(node).filter(may).collect();
        lower.sort_by_key(|other| (inventory.vm(*other).priority, Reverse(inventory.need(*other)), *other));
        let (mut victims, others): (Vec<_>, Vec<_>) = lower.into_iter().partition(|other| apart(*other));
        if self.ledger.crowd(vm, node) > 0
            && self.ledger.on(node).any(|other| apart(other) && !victims.contains(&other))
        {
            return None;
        }
        for other in others {
            if gain(&victims) >= lack {
                break;
            }
            victims.push(other);
        }
        let mut enough = gain(&victims);
        if enough < lack {
            return None;
        }
        for at in (0..victims.len()).rev() {
            let need = victims.get(at).map_or(0, |victim| inventory.need(*victim));
            if enough - need >= lack && victims.get(at).is_some_and(|victim| !apart(*victim)) {
                enough -= need;
                victims.remove(at);
            }
        }
        Some(victims)
    }
}
