//! The state that a plan would bring about, as far as it is made: who is where, and what is free.
//!
//! [`Ledger::put`] is the only change, and [`Ledger::rewind`] takes changes back in reverse, so that anything can be tried.
//! Nodes are kept sorted by their free memory, one list for each kind of CPU; a node for a VM is found there without
//! looking at all of them.

use core::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::groups::{self, Groups};
use super::inventory::{Inventory, NodeId, Table, VmId, Where};

/// Which of several nodes with room is taken, when nothing else tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// The one with most free memory.
    Spread,
    /// The one with least.
    Pack,
}

/// How a VM comes to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Live: the node's CPU must have the features that the VM was started with.
    Live,
    /// By a start: any CPU will do.
    Cold,
}

#[derive(Debug)]
pub(super) struct Ledger<'a> {
    pub(super) inventory: &'a Inventory,
    pub(super) groups: &'a Groups<'a>,
    /// In MiB.
    free: Table<NodeId, u64>,
    place: Table<VmId, Option<NodeId>>,
    open: Table<NodeId, bool>,
    /// The VMs of each node, by priority.
    on: Table<NodeId, BTreeSet<(u8, VmId)>>,
    /// The open nodes of each kind by free memory, the first node last where several have as much.
    rooms: Vec<BTreeSet<(u64, Reverse<NodeId>)>>,
    /// Nodes by the priority of their least important VM.
    lowest: BTreeSet<(u8, NodeId)>,
    /// How many VMs of a keep-apart group are on a node.
    apart: BTreeMap<(usize, NodeId), u32>,
    /// Where each VM was before each change.
    trail: Vec<(VmId, Option<NodeId>)>,
}

impl<'a> Ledger<'a> {
    pub(super) fn new(inventory: &'a Inventory, groups: &'a Groups<'a>) -> Self {
        let mut ledger = Self {
            inventory,
            groups,
            free: Table::of(inventory.nodes.iter().map(|node| u64::from(node.free.0))),
            place: Table::of(inventory.vms.iter().map(|_| None)),
            open: Table::of(inventory.nodes.iter().map(|_| false)),
            on: Table::of(inventory.nodes.iter().map(|_| BTreeSet::new())),
            rooms: groups.kinds.iter().map(|_| BTreeSet::new()).collect(),
            lowest: BTreeSet::new(),
            apart: BTreeMap::new(),
            trail: Vec::new(),
        };
        let mut left = BTreeSet::new();
        for vm in inventory.vm_ids() {
            let (here, also) = match inventory.vm(vm).whereabouts {
                Where::Stopped => (None, None),
                Where::Running(at) => (Some(at), None),
                Where::Leaving(at) => {
                    left.insert(at);
                    (Some(at), None)
                }
                Where::InFlight { from, to } => (to, from),
            };
            ledger.place[vm] = here;
            if let Some(at) = here {
                ledger.on[at].insert((inventory.vm(vm).priority, vm));
                ledger.count_apart(vm, at, 1);
            }
            if let Some(at) = also {
                ledger.count_apart(vm, at, 1);
            }
        }
        for node in inventory.node_ids() {
            if let Some((priority, _)) = ledger.on[node].first() {
                ledger.lowest.insert((*priority, node));
            }
            if inventory.node(node).accepts && !left.contains(&node) {
                ledger.open(node);
            }
        }
        ledger
    }

    /// In MiB.
    pub(super) fn free(&self, node: NodeId) -> u64 {
        self.free[node]
    }

    pub(super) fn place(&self, vm: VmId) -> Option<NodeId> {
        self.place[vm]
    }

    pub(super) fn on(&self, node: NodeId) -> impl Iterator<Item = VmId> {
        self.on[node].iter().map(|(_, vm)| *vm)
    }

    /// Nodes by the priority of their least important VM.
    pub(super) fn lowest(&self) -> impl Iterator<Item = (u8, NodeId)> {
        self.lowest.iter().copied()
    }

    pub(super) fn is_open(&self, node: NodeId) -> bool {
        self.open[node]
    }

    /// Lets VMs come to a node.
    pub(super) fn open(&mut self, node: NodeId) {
        self.open[node] = true;
        self.list(node, true);
    }

    /// Lets no VM come to a node; whether they could before.
    pub(super) fn close(&mut self, node: NodeId) -> bool {
        self.list(node, false);
        core::mem::replace(&mut self.open[node], false)
    }

    fn list(&mut self, node: NodeId, listed: bool) {
        let entry = (self.free[node], Reverse(node));
        if let Some(rooms) = self.rooms.get_mut(self.groups.kind[node]).filter(|_| self.open[node]) {
            if listed {
                rooms.insert(entry)
            } else {
                rooms.remove(&entry)
            };
        }
    }

    /// Where to go back to with [`Ledger::rewind`].
    pub(super) fn mark(&self) -> usize {
        self.trail.len()
    }

    /// Takes every change since `mark` back.
    pub(super) fn rewind(&mut self, mark: usize) {
        while self.trail.len() > mark {
            if let Some((vm, was)) = self.trail.pop() {
                self.change(vm, was);
            }
        }
    }

    /// Moves a VM to a node, or takes it from where it is.
    pub(super) fn put(&mut self, vm: VmId, to: Option<NodeId>) {
        self.trail.push((vm, self.place[vm]));
        self.change(vm, to);
    }

    fn change(&mut self, vm: VmId, to: Option<NodeId>) {
        if let Some(from) = core::mem::replace(&mut self.place[vm], to) {
            self.shift(vm, from, false);
        }
        if let Some(to) = to {
            self.shift(vm, to, true);
        }
    }

    /// Counts a VM on a node, or not any more, without changing where it is said to be.
    pub(super) fn shift(&mut self, vm: VmId, node: NodeId, comes: bool) {
        let need = self.inventory.need(vm);
        let lowest = self.on[node].first().map(|(priority, _)| *priority);
        let entry = (self.inventory.vm(vm).priority, vm);
        self.list(node, false);
        if comes {
            self.free[node] -= need;
            self.on[node].insert(entry);
            self.count_apart(vm, node, 1);
        } else {
            self.free[node] += need;
            self.on[node].remove(&entry);
            self.count_apart(vm, node, -1);
        }
        self.list(node, true);
        let now = self.on[node].first().map(|(priority, _)| *priority);
        if lowest != now {
            lowest.map(|priority| self.lowest.remove(&(priority, node)));
            now.map(|priority| self.lowest.insert((priority, node)));
        }
    }

    fn count_apart(&mut self, vm: VmId, node: NodeId, by: i32) {
        for group in &self.groups.apart[vm] {
            let count = self.apart.entry((*group, node)).or_default();
            *count = count.saturating_add_signed(by);
            if *count == 0 {
                self.apart.remove(&(*group, node));
            }
        }
    }

    /// How many VMs on a node share a keep-apart group with this one, which is counted if it is there.
    pub(super) fn crowd(&self, vm: VmId, node: NodeId) -> u32 {
        let counts = self.groups.apart[vm].iter().map(|group| self.apart.get(&(*group, node)));
        counts.flatten().copied().max().unwrap_or(0)
    }

    /// Whether it is where it may stay: it runs or is to run there, and need not leave.
    pub(super) fn is_settled(&self, vm: VmId) -> bool {
        match (self.inventory.vm(vm).whereabouts, self.place[vm]) {
            (_, None) => false,
            (Where::Leaving(from), Some(at)) => from != at,
            (Where::Stopped | Where::Running(_) | Where::InFlight { .. }, Some(_)) => true,
        }
    }

    /// The nodes where the rest of its set is.
    pub(super) fn pins(&self, vm: VmId) -> BTreeSet<NodeId> {
        let others = self.groups.set_of(vm).iter().filter(|other| **other != vm && self.is_settled(**other));
        others.filter_map(|other| self.place[*other]).collect()
    }

    /// Whether a CPU of that kind will do.
    pub(super) fn suits(&self, vm: VmId, kind: usize, way: Way) -> bool {
        let offered = self.groups.kinds.get(kind).copied().unwrap_or_default();
        way == Way::Cold || groups::live(&self.inventory.vm(vm).features, offered)
    }

    /// Whether a VM may come to a node that is to have `room` MiB for it.
    pub(super) fn allows(&self, vm: VmId, node: NodeId, room: u64, way: Way) -> bool {
        self.open[node]
            && self.place[vm] != Some(node)
            && self.free[node] >= room
            && self.suits(vm, self.groups.kind[node], way)
            && self.crowd(vm, node) == 0
    }

    /// The best node for a VM as things are. What counts, the first thing first: not where it failed last; the earlier of
    /// `ways`; room for its whole set; its preference; and then free memory.
    pub(super) fn best(&self, vm: VmId, fit: Fit, ways: &[Way]) -> Option<NodeId> {
        let need = self.inventory.need(vm);
        let pins = self.pins(vm);
        let avoid = self.inventory.vm(vm).avoid;
        let shunned: &[Option<NodeId>] = if avoid.is_some() { &[avoid, None] } else { &[None] };
        let with_set = if pins.is_empty() { self.need_of_set(vm) } else { need };
        let rooms: &[u64] = if with_set > need { &[with_set, need] } else { &[need] };
        for shun in shunned {
            for way in ways {
                for room in rooms {
                    let may = |node: NodeId| Some(node) != *shun && self.allows(vm, node, *room, *way);
                    let found = if pins.is_empty() {
                        let preferred = self.inventory.vm(vm).preferred.iter().copied().find(|node| may(*node));
                        preferred.or_else(|| self.by_room(vm, *room, fit, *way, may))
                    } else {
                        pins.iter().copied().filter(|node| may(*node)).max_by_key(|node| self.free[*node])
                    };
                    if found.is_some() {
                        return found;
                    }
                }
            }
        }
        None
    }

    fn by_room(&self, vm: VmId, room: u64, fit: Fit, way: Way, may: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        let enough = (room, Reverse(NodeId(usize::MAX)));
        let suiting = self.rooms.iter().enumerate().filter(|(kind, _)| self.suits(vm, *kind, way));
        let found = suiting.filter_map(|(_, rooms)| match fit {
            Fit::Spread => rooms.range(enough..).rev().find(|(_, node)| may(node.0)),
            Fit::Pack => rooms.range(enough..).find(|(_, node)| may(node.0)),
        });
        let found = match fit {
            Fit::Spread => found.max(),
            Fit::Pack => found.min(),
        };
        found.map(|(_, node)| node.0)
    }

    /// What the members of its set that are nowhere yet take together, in MiB.
    fn need_of_set(&self, vm: VmId) -> u64 {
        let waits = |other: &&VmId| match self.inventory.vm(**other).whereabouts {
            Where::InFlight { .. } => false,
            Where::Stopped | Where::Running(_) | Where::Leaving(_) => !self.is_settled(**other),
        };
        self.groups.set_of(vm).iter().filter(waits).map(|other| self.inventory.need(*other)).sum()
    }

    /// The open nodes that come nearest to having room, `count` of each kind that will do.
    pub(super) fn nearest(&self, vm: VmId, ways: &[Way], count: usize) -> Vec<NodeId> {
        let suiting = |kind: usize| ways.iter().any(|way| self.suits(vm, kind, *way));
        let lists = self.rooms.iter().enumerate().filter(|(kind, _)| suiting(*kind));
        let mut found: Vec<_> = lists.flat_map(|(_, rooms)| rooms.iter().rev().take(count)).collect();
        found.sort_unstable_by(|one, other| other.cmp(one));
        found.into_iter().map(|(_, node)| node.0).collect()
    }

    /// Whether some open node has `room` MiB, whatever else stands against it.
    pub(super) fn has_room(&self, room: u64, kind: impl Fn(usize) -> bool) -> bool {
        let lists = self.rooms.iter().enumerate().filter(|(number, _)| kind(*number));
        lists.filter_map(|(_, rooms)| rooms.last()).any(|(free, _)| *free >= room)
    }

    /// The most that an open node has free, in MiB; `None` if no node is open.
    pub(super) fn most_free(&self) -> Option<u64> {
        self.rooms.iter().filter_map(|rooms| rooms.last()).map(|(free, _)| *free).max()
    }
}
