//! What could have been reached: a search through every arrangement of a small cluster.
//!
//! An arrangement is as good as the VMs that it leaves out (the fewest of the most important first), and then as the VMs
//! that run and were moved. It need not be reachable by moves that each find room, so a plan may be right and worse.

use std::collections::HashSet;

use cluster::placement::{Inventory, NodeId, VmId, Where};

use crate::referee;

/// How good an arrangement is: the priorities of those left out, the highest first; and how many that run were moved.
pub(crate) type Worth = (Vec<u8>, usize);

/// Who is next, what is free, where those that are tied to others are, and what it is worth so far: all that the rest of the
/// search depends on.
type Position = (usize, Vec<i64>, Vec<Option<usize>>, Worth);

/// Arrangements that are looked at before the search is given up.
const PATIENCE: usize = 300_000;

/// What a plan has reached.
pub(crate) fn reached(before: &Inventory, after: &Inventory) -> Worth {
    let mut missing: Vec<u8> = Vec::new();
    let mut moves = 0;
    for vm in before.vm_ids() {
        match (before.vm(vm).whereabouts, after.vm(vm).whereabouts) {
            (_, Where::Stopped | Where::Leaving(_)) => missing.push(before.vm(vm).priority),
            (Where::Running(one), Where::Running(two)) => moves += usize::from(one != two),
            (Where::Stopped | Where::Leaving(_) | Where::InFlight { .. }, Where::Running(_))
            | (_, Where::InFlight { .. }) => {}
        }
    }
    missing.sort_by(|one, two| two.cmp(one));
    (missing, moves)
}

/// The best that there is, if it is better than `known`; `None` if the search was given up.
pub(crate) fn best(inventory: &Inventory, known: &Worth, may_stop: bool) -> Option<Worth> {
    let free = inventory.node_ids().map(|node| i64::from(inventory.node(node).free.0)).collect();
    let mut search = Search {
        inventory,
        may_stop,
        order: Vec::new(),
        free,
        place: vec![None; inventory.vms.len()],
        best: known.clone(),
        seen: HashSet::new(),
    };
    for vm in inventory.vm_ids() {
        match inventory.vm(vm).whereabouts {
            Where::Stopped | Where::Leaving(_) => search.order.push(vm),
            Where::Running(at) => {
                search.order.push(vm);
                search.free[at.0] += referee::need(inventory, vm);
            }
            Where::InFlight { to, .. } => search.place[vm.0] = to,
        }
    }
    search.order.sort_by_key(|vm| std::cmp::Reverse((inventory.vm(*vm).priority, referee::need(inventory, *vm))));
    search.look(0, &(Vec::new(), 0));
    (search.seen.len() < PATIENCE).then_some(search.best)
}

struct Search<'a> {
    inventory: &'a Inventory,
    may_stop: bool,
    order: Vec<VmId>,
    free: Vec<i64>,
    place: Vec<Option<NodeId>>,
    best: Worth,
    seen: HashSet<Position>,
}

impl Search<'_> {
    fn look(&mut self, at: usize, so_far: &Worth) {
        if *so_far >= self.best || self.seen.len() >= PATIENCE {
            return;
        }
        let Some(vm) = self.order.get(at).copied() else {
            self.best = so_far.clone();
            return;
        };
        let grouped = self.inventory.vm_ids().map(|vm| self.place[vm.0].filter(|_| self.tied(vm)).map(|node| node.0));
        let grouped = grouped.collect();
        if !self.seen.insert((at, self.free.clone(), grouped, so_far.clone())) {
            return;
        }
        let need = referee::need(self.inventory, vm);
        let record = self.inventory.vm(vm);
        for node in self.inventory.node_ids() {
            let stays = record.whereabouts == Where::Running(node);
            if self.free[node.0] < need || !(stays || self.may_come(vm, node)) || !self.gets_on(vm, node) {
                continue;
            }
            let moved = usize::from(!stays && matches!(record.whereabouts, Where::Running(_)));
            self.free[node.0] -= need;
            self.place[vm.0] = Some(node);
            self.look(at + 1, &(so_far.0.clone(), so_far.1 + moved));
            self.place[vm.0] = None;
            self.free[node.0] += need;
        }
        let runs = matches!(record.whereabouts, Where::Running(_));
        if !runs || self.may_stop {
            let mut missing = so_far.0.clone();
            missing.push(record.priority);
            self.look(at + 1, &(missing, so_far.1));
        }
    }

    fn tied(&self, vm: VmId) -> bool {
        let record = self.inventory.vm(vm);
        !record.keep_apart.is_empty() || !record.keep_together.is_empty()
    }

    fn may_come(&self, vm: VmId, node: NodeId) -> bool {
        let record = self.inventory.vm(vm);
        let live = referee::live(self.inventory, vm, node);
        self.inventory.node(node).accepts
            && match record.whereabouts {
                Where::Stopped => true,
                Where::Running(_) => (live && record.stickiness < u8::MAX) || self.may_stop,
                Where::Leaving(_) => live || record.cold_move,
                Where::InFlight { .. } => false,
            }
    }

    /// Whether nobody placed so far stands against it.
    fn gets_on(&self, vm: VmId, node: NodeId) -> bool {
        let groups = |vm: VmId| &self.inventory.vm(vm).keep_together;
        let tied = |other: VmId| groups(vm).iter().any(|group| groups(other).contains(group));
        self.inventory.vm_ids().filter(|other| *other != vm).all(|other| match self.place[other.0] {
            Some(at) if at == node => !referee::are_apart(self.inventory, vm, other),
            Some(_) => !tied(other),
            None => true,
        })
    }
}
