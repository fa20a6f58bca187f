//! The present state in placement's words: who is heard, what is agreed, and what Xen says, as one inventory.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::Config;
use crate::event::Transfer;
use crate::hearing::Hearing;
use crate::host::Host;
use crate::placement::{self, Inventory, NodeId, VmId, Where};
use crate::state::{Phase, Standing, State, Vm};
use crate::words::{Identity, Instant, Mebibytes, Role, Slot, VmName};

/// What a node can see of the cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight<'a> {
    pub(crate) now: Instant,
    pub(crate) me: Identity,
    pub(crate) config: &'a Config,
    pub(crate) state: &'a State,
    pub(crate) hearing: &'a Hearing,
    pub(crate) host: &'a Host,
}

/// What the DC adds to it: VMs that no plan may touch now, and those that must leave their node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wishes {
    /// They stay as they are for now.
    pub(crate) untouched: BTreeSet<VmName>,
    /// They are to go elsewhere.
    pub(crate) leaving: BTreeSet<VmName>,
    /// They are proposed to start or to move there: to be planned with as if it were agreed, or the same room would be given away
    /// twice.
    pub(crate) asked: BTreeMap<VmName, Identity>,
}

/// What a plan is made from, and whom its ids mean.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scene {
    pub(crate) inventory: Inventory,
    members: Vec<Identity>,
    names: Vec<VmName>,
}

impl Scene {
    fn id(&self, identity: Identity) -> Option<NodeId> {
        self.members.iter().position(|member| *member == identity).map(NodeId)
    }

    fn slot(&self, slot: Slot) -> Option<NodeId> {
        self.members.iter().position(|member| member.slot == slot).map(NodeId)
    }

    /// A node's memory is as good as taken.
    fn promise(&mut self, id: NodeId, memory: Mebibytes) {
        if let Some(node) = self.inventory.nodes.get_mut(id.0) {
            node.free = node.free.less(placement::need(memory));
        }
    }

    /// Whom a node's id means.
    pub(crate) fn node(&self, id: NodeId) -> Option<Identity> {
        self.members.get(id.0).copied()
    }

    /// Whom a VM's id means.
    pub(crate) fn vm(&self, id: VmId) -> Option<&VmName> {
        self.names.get(id.0)
    }
}

impl Sight<'_> {
    /// What a member's Xen has free, and its domains, as it said itself lately.
    pub(crate) fn report(&self, identity: Identity) -> Option<(Mebibytes, Vec<(VmName, bool)>)> {
        if identity == self.me {
            return self.host.free().map(|free| (free, self.host.vms()));
        }
        let peer = self.hearing.peer(identity.slot).filter(|peer| peer.identity == identity)?;
        let recent = self.now.since(peer.last) < self.config.timing.warntime;
        peer.beat.free.filter(|_| recent).zip(peer.domains().map(<[_]>::to_vec))
    }

    /// Whether a member's Xen says that the VM runs there.
    pub(crate) fn runs(&self, at: Identity, vm: &VmName) -> bool {
        self.report(at).is_some_and(|(_, domains)| domains.iter().any(|(name, runs)| name == vm && *runs))
    }

    /// Whether it is known of every slot what it runs: it says so, or it is off.
    fn everything_known(&self) -> bool {
        let known = |slot: &Slot, identity: Identity, standing: Standing| {
            self.config.node(*slot).role == Role::Gateway
                || match standing {
                    Standing::Member | Standing::Leaving => self.report(identity).is_some(),
                    Standing::Unclean => false,
                    Standing::Off | Standing::Waking | Standing::Fenced | Standing::Booting => true,
                }
        };
        self.state.members.iter().all(|(slot, member)| known(slot, member.identity, member.standing))
    }

    fn runs_anywhere(&self, name: &VmName) -> bool {
        let has = |domains: &[(VmName, bool)]| domains.iter().any(|(vm, _)| vm == name);
        let mut alive = self.hearing.alive(self.now, self.config.timing.deadtime);
        has(&self.host.vms()) || alive.any(|peer| peer.domains().is_some_and(has))
    }

    /// The inventory, as far as VMs are wanted.
    pub(crate) fn scene(&self, wishes: &Wishes) -> Scene {
        // Who is about to restart would have to be emptied again.
        let at_will = !self.state.rolling.is_active();
        let balance = self.config.balance && at_will;
        let mut scene = Scene { inventory: Inventory { balance, ..<_>::default() }, ..<_>::default() };
        let mut runs: BTreeSet<(Identity, VmName)> = BTreeSet::new();
        for member in self.state.members.values() {
            let (node, domains) = self.node(member.identity);
            // What a failed migration has left paused cannot be moved: its host is about to say so.
            runs.extend(domains.into_iter().filter(|(_, runs)| *runs).map(|(name, _)| (member.identity, name)));
            scene.members.push(member.identity);
            scene.inventory.nodes.push(node);
        }
        let known = self.everything_known();
        for (name, vm) in &self.state.vms {
            let phase = match (&vm.phase, wishes.asked.get(name)) {
                (Phase::Stopped, Some(to)) => Phase::Starting(*to),
                (Phase::Running(from), Some(to)) => Phase::Moving { from: *from, to: *to, transfer: Transfer::Live },
                (phase, _) => phase.clone(),
            };
            let whereabouts = match phase {
                Phase::Stopped | Phase::Failed => {
                    // What this generation never placed may still run somewhere: it is adopted, not started.
                    let placed = vm.generation.0 > 0 && !vm.adopted;
                    let gone = placed || (known && !self.runs_anywhere(name));
                    if !gone || !vm.wanted || vm.phase == Phase::Failed || wishes.untouched.contains(name) {
                        continue;
                    }
                    Where::Stopped
                }
                Phase::Running(at) => match scene.id(at) {
                    Some(id) if !runs.contains(&(at, name.clone())) => {
                        // It has just begun, and what its node said last of its memory is older.
                        scene.promise(id, vm.memory);
                        Where::InFlight { from: None, to: Some(id) }
                    }
                    Some(id) if wishes.untouched.contains(name) => Where::InFlight { from: None, to: Some(id) },
                    Some(id) if wishes.leaving.contains(name) => Where::Leaving(id),
                    Some(id) => Where::Running(id),
                    None => Where::InFlight { from: None, to: None },
                },
                Phase::Stopping(at, _) => Where::InFlight { from: scene.id(at), to: None },
                Phase::Starting(to) | Phase::Landing(to) | Phase::Moving { to, .. } => {
                    let from = if let Phase::Moving { from, .. } = phase { scene.id(from) } else { None };
                    let to_id = scene.id(to);
                    if let Some(id) = to_id.filter(|_| !runs.contains(&(to, name.clone()))) {
                        scene.promise(id, vm.memory);
                    }
                    Where::InFlight { from, to: to_id }
                }
            };
            let mut vm = described(&scene, name, vm, whereabouts);
            vm.auto_failback &= at_will;
            scene.names.push(name.clone());
            scene.inventory.vms.push(vm);
        }
        scene
    }

    /// One member, and what it says that it runs.
    fn node(&self, identity: Identity) -> (placement::Node, Vec<(VmName, bool)>) {
        let config = self.config.node(identity.slot);
        let member = self.state.member(identity);
        let reported = self.report(identity);
        let takes = member.is_some_and(|member| member.standing == Standing::Member)
            && !self.state.is_set_aside(self.config, identity.slot)
            && !self.state.rolling.is_turn_of(identity)
            && self.state.lockspace.serves(identity.slot)
            && !self.state.is_short_of_power(self.config, identity.slot);
        let accepts = takes && reported.is_some();
        let (free, domains) = reported.unwrap_or_default();
        let used: u32 = domains
            .iter()
            .filter_map(|(name, _)| self.state.vms.get(name))
            .map(|vm| placement::need(vm.memory).0)
            .fold(0, u32::saturating_add);
        let features = member.and_then(|member| member.machine.as_ref()).map(|machine| machine.cpu.clone());
        let total = Mebibytes(free.0.saturating_add(used));
        let node =
            placement::Node { name: config.name.clone(), free, total, accepts, features: features.unwrap_or_default() };
        (node, domains)
    }
}

fn described(scene: &Scene, name: &VmName, vm: &Vm, whereabouts: Where) -> placement::Vm {
    let mut preferred: Vec<NodeId> = vm.spec.preferred.iter().filter_map(|slot| scene.slot(*slot)).collect();
    if whereabouts == Where::Stopped {
        // Where it ran last, its disk may still be warm; and who has died there once is restarted there.
        preferred.extend(vm.home.and_then(|slot| scene.slot(slot)).filter(|home| !preferred.contains(home)));
    }
    // A cold start takes any processor; what runs, or is resumed, wants the features that it was started with.
    let cold = whereabouts == Where::Stopped && !vm.image;
    placement::Vm {
        name: name.to_string(),
        memory: vm.memory,
        whereabouts,
        priority: vm.spec.priority,
        start_order: vm.spec.start_order.into(),
        preferred,
        keep_apart: vm.spec.apart.clone(),
        keep_together: vm.spec.together.clone(),
        stickiness: vm.spec.stickiness,
        auto_failback: vm.spec.auto_failback,
        avoid: vm.avoid.and_then(|slot| scene.slot(slot)),
        features: if cold { Vec::new() } else { vm.cpu.clone() },
        cold_move: vm.spec.cold_move,
    }
}
