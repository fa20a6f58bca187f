//! Judges plans, with its own arithmetic: no step may break a hard rule, and the state that a plan brings about must need
//! no other plan.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail, ensure};
use cluster::placement::{self, Act, Inventory, NodeId, Plan, Step, VmId, Where};

/// Checks every step and the whole; what comes back is the state after it.
pub(crate) fn judge(inventory: &Inventory, plan: &Plan) -> Result<Inventory> {
    let mut board = Board::of(inventory, true);
    for step in &plan.steps {
        board.take(step)?;
    }
    let after = placement::after(inventory, plan);
    board.compare(&after)?;
    let mut at_once = Board::of(inventory, false);
    for step in plan.at_once() {
        at_once.take(step)?;
    }
    let waiting: BTreeSet<VmId> = after.vm_ids().filter(|vm| waits(&after, *vm)).collect();
    let told: BTreeSet<VmId> = plan.no_room.iter().map(|left| left.vm).collect();
    ensure!(waiting == told, "has no room: {waiting:?}, told {told:?}");
    together(inventory, &after)?;
    preempted(inventory, &after, plan)?;
    let again = placement::plan(&after);
    ensure!(again.steps.is_empty(), "after {:?}, planned again: {:?}", plan.steps, again.steps);
    ensure!(again.no_room == plan.no_room, "again: {:?}", again.no_room);
    Ok(after)
}

/// Whether it waits for a node.
pub(crate) fn waits(inventory: &Inventory, vm: VmId) -> bool {
    matches!(inventory.vm(vm).whereabouts, Where::Stopped | Where::Leaving(_))
}

/// What a VM takes.
pub(crate) fn need(inventory: &Inventory, vm: VmId) -> i64 {
    i64::from(inventory.vm(vm).memory.0) + 16
}

/// Where a VM is, if it is anywhere.
fn place(inventory: &Inventory, vm: VmId) -> Option<NodeId> {
    match inventory.vm(vm).whereabouts {
        Where::Stopped => None,
        Where::Running(at) | Where::Leaving(at) => Some(at),
        Where::InFlight { to, .. } => to,
    }
}

/// Whether two VMs may not be on one node.
pub(crate) fn are_apart(inventory: &Inventory, one: VmId, other: VmId) -> bool {
    let groups = &inventory.vm(other).keep_apart;
    one != other && inventory.vm(one).keep_apart.iter().any(|group| groups.contains(group))
}

/// Whether a VM can move to a node live.
pub(crate) fn live(inventory: &Inventory, vm: VmId, node: NodeId) -> bool {
    let (wanted, offered) = (&inventory.vm(vm).features, &inventory.node(node).features);
    let bits = |words: &[u32], at: usize| words.get(at).copied().unwrap_or(0);
    let has = |at: usize| bits(wanted, at) & !bits(offered, at) == 0;
    wanted.is_empty() || offered.is_empty() || (0..wanted.len()).all(has)
}

/// The cluster while the steps of a plan are taken one after another.
struct Board<'a> {
    inventory: &'a Inventory,
    free: BTreeMap<NodeId, i64>,
    on: BTreeMap<NodeId, BTreeSet<VmId>>,
    place: BTreeMap<VmId, NodeId>,
    /// Whether what leaves a node, or is in flight from it, gives its memory back.
    gives_back: bool,
}

impl<'a> Board<'a> {
    fn of(inventory: &'a Inventory, gives_back: bool) -> Self {
        let mut free: BTreeMap<NodeId, i64> = BTreeMap::new();
        for node in inventory.node_ids() {
            let coming = if gives_back { coming(inventory, node) } else { 0 };
            free.insert(node, i64::from(inventory.node(node).free.0) + coming);
        }
        let mut board = Self { inventory, free, on: BTreeMap::new(), place: BTreeMap::new(), gives_back };
        for vm in inventory.vm_ids() {
            if let (Where::InFlight { from: Some(from), .. }, false) = (inventory.vm(vm).whereabouts, gives_back) {
                board.on.entry(from).or_default().insert(vm);
            }
            if let Some(at) = place(inventory, vm) {
                board.on.entry(at).or_default().insert(vm);
                board.place.insert(vm, at);
            }
        }
        board
    }

    fn take(&mut self, step: &Step) -> Result<()> {
        let (inventory, name) = (self.inventory, &self.inventory.vm(step.vm).name);
        let here = self.place.get(&step.vm).copied();
        let flies = matches!(inventory.vm(step.vm).whereabouts, Where::InFlight { .. });
        ensure!(!flies, "{name} is in flight: {step:?}");
        let to = match step.act {
            Act::Start(to) => {
                ensure!(here.is_none(), "{name} starts, and runs");
                Some(to)
            }
            Act::Migrate(to) | Act::ColdMove(to) => {
                ensure!(here.is_some_and(|at| at != to), "{name} moves from {here:?} to {to:?}");
                let cold = matches!(step.act, Act::ColdMove(_));
                ensure!(live(inventory, step.vm, to) != cold, "{name} moves the wrong way: {step:?}");
                let leaves = matches!(inventory.vm(step.vm).whereabouts, Where::Leaving(_));
                ensure!(!cold || (inventory.vm(step.vm).cold_move && leaves), "{name} may not move cold");
                Some(to)
            }
            Act::StopForRoom => {
                ensure!(here.is_some(), "{name} is stopped, and does not run");
                None
            }
        };
        if let Some(to) = to {
            ensure!(inventory.node(to).accepts, "{step:?}: the node takes no VMs");
            let free = self.free.entry(to).or_default();
            *free -= need(inventory, step.vm);
            ensure!(*free >= 0, "{step:?}: {free} MiB are left");
            let mates = self.on.entry(to).or_default();
            ensure!(!mates.iter().any(|other| are_apart(inventory, step.vm, *other)), "{step:?}: kept apart");
            mates.insert(step.vm);
            self.place.insert(step.vm, to);
        } else {
            self.place.remove(&step.vm);
        }
        if let Some(from) = here.filter(|_| self.gives_back) {
            *self.free.entry(from).or_default() += need(inventory, step.vm);
            self.on.entry(from).or_default().remove(&step.vm);
        }
        Ok(())
    }

    fn compare(&self, after: &Inventory) -> Result<()> {
        for vm in after.vm_ids() {
            ensure!(self.place.get(&vm).copied() == place(after, vm), "{vm:?} is elsewhere");
        }
        for node in after.node_ids() {
            let free = i64::from(after.node(node).free.0);
            ensure!(self.free.get(&node) == Some(&free), "{node:?}: {free} MiB");
        }
        Ok(())
    }
}

fn coming(inventory: &Inventory, node: NodeId) -> i64 {
    let from =
        |vm: &VmId| matches!(inventory.vm(*vm).whereabouts, Where::InFlight { from: Some(at), .. } if at == node);
    inventory.vm_ids().filter(from).map(|vm| need(inventory, vm)).sum()
}

/// The nodes where members of a keep-together group are to stay.
fn homes(inventory: &Inventory, group: &str) -> BTreeSet<NodeId> {
    let stays = |vm: &VmId| !matches!(inventory.vm(*vm).whereabouts, Where::Leaving(_));
    let members = inventory.vm_ids().filter(|vm| inventory.vm(*vm).keep_together.iter().any(|name| name == group));
    members.filter(stays).filter_map(|vm| place(inventory, vm)).collect()
}

/// No group that was in one place is in two.
fn together(before: &Inventory, after: &Inventory) -> Result<()> {
    let groups: BTreeSet<&String> = after.vms.iter().flat_map(|vm| &vm.keep_together).collect();
    for group in groups {
        let (was, is) = (homes(before, group).len(), homes(after, group).len());
        ensure!(is <= was.max(1), "{group} is in {is} places");
    }
    Ok(())
}

/// Whoever was stopped was stopped for somebody more important, and could not have stayed.
fn preempted(before: &Inventory, after: &Inventory, plan: &Plan) -> Result<()> {
    let stopped = plan.steps.iter().filter(|step| step.act == Act::StopForRoom).map(|step| step.vm);
    for vm in stopped {
        let Some(at) = place(before, vm) else { bail!("{vm:?} did not run") };
        let more = |other: VmId| after.vm(other).priority > before.vm(vm).priority;
        let came = |other: VmId| place(after, other).is_some() && place(before, other) != place(after, other);
        ensure!(after.vm_ids().any(|other| more(other) && came(other)), "{vm:?} was stopped for nobody");
        let stays = place(after, vm).is_none() && before.node(at).accepts;
        let fits = i64::from(after.node(at).free.0) >= need(after, vm);
        let alone = !after.vm_ids().any(|other| place(after, other) == Some(at) && are_apart(after, vm, other));
        ensure!(!(stays && fits && alone && before.vm(vm).keep_together.is_empty()), "{vm:?} could have stayed");
    }
    Ok(())
}
