//! What the DC decides: whom to suspect and fence, who comes in, where VMs go.
//!
//! It only proposes; what counts is what is committed. Everything here is recomputed from the committed state and from
//! who is heard, at every turn; what it remembers between turns are open operations and when to try again. A DC that
//! loses its office forgets all of it, and the next one begins from the state.

use std::collections::{BTreeMap, BTreeSet};

use crate::agreement::Agreement;
use crate::event::{Outcome, Work};
use crate::fencing::{Proven, Reading};
use crate::hearing::Hearing;
use crate::host::{Desk, Host};
use crate::limits;
use crate::placement::{self, Act, Inventory, NodeId, VmId, Where};
use crate::state::{Command, Member, Phase, Standing, Vm};
use crate::trace::Trace;
use crate::words::{Identity, Instant, Mebibytes, OpId, Role, Slot, VmName};

/// One node's power, as far as the DC is busy with it.
#[derive(Clone, Debug, Default)]
struct Power {
    op: Option<OpId>,
    not_before: Instant,
    proven: Option<Proven>,
    restored: bool,
}

/// The office.
#[derive(Clone, Debug)]
pub(crate) struct Dc {
    since: Instant,
    power: BTreeMap<Identity, Power>,
    suspected: BTreeSet<Identity>,
    moved: BTreeMap<VmName, Instant>,
    no_room: BTreeSet<VmName>,
}

impl Dc {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            since: now,
            power: BTreeMap::new(),
            suspected: BTreeSet::new(),
            moved: BTreeMap::new(),
            no_room: BTreeSet::new(),
        }
    }

    /// Looks at everything once.
    pub(crate) fn review(&mut self, desk: &mut Desk<'_>, hearing: &Hearing, agreement: &mut Agreement, host: &Host) {
        self.bring_in(desk, hearing, agreement);
        self.suspect(desk, hearing);
        self.fence(desk);
        self.place(desk, hearing, host);
    }

    fn bring_in(&self, desk: &Desk<'_>, hearing: &Hearing, agreement: &mut Agreement) {
        for peer in hearing.alive(desk.now, desk.config.timing.deadtime) {
            let slot = peer.identity.slot;
            let ours = peer.beat.generation.is_none_or(|generation| generation == desk.state.generation);
            if let Some(member) = desk.state.members.get(&slot)
                && ours
                && member.identity != peer.identity
            {
                agreement.bring_in(peer.identity, member.identity);
            }
        }
    }

    fn suspect(&mut self, desk: &mut Desk<'_>, hearing: &Hearing) {
        for (slot, member) in &desk.state.members {
            let present = matches!(member.standing, Standing::Member | Standing::Leaving);
            if !present || *slot == desk.me.slot || desk.config.node(*slot).role != Role::Node {
                continue;
            }
            // Whoever is heard from that slot counts: a new life of it is about to be brought in.
            let silence = desk.now.since(hearing.peer(*slot).map_or(self.since, |peer| peer.last));
            if silence < desk.config.timing.deadtime {
                self.suspected.remove(&member.identity);
                continue;
            }
            if self.suspected.insert(member.identity) {
                desk.say(Trace::Suspected { node: desk.name(*slot), silence });
            }
            desk.proposals.push(Command::Suspect(member.identity));
        }
    }

    fn fence(&mut self, desk: &mut Desk<'_>) {
        let state = desk.state;
        let busy = |member: &Member| matches!(member.standing, Standing::Unclean | Standing::Fenced);
        self.power.retain(|identity, _| state.member(*identity).is_some_and(busy));
        for (slot, member) in &state.members {
            let outlets = desk.config.node(*slot).outlets.clone();
            if outlets.is_empty() || !busy(member) {
                continue;
            }
            let power = self.power.entry(member.identity).or_default();
            if member.standing == Standing::Unclean
                && let Some(proven) = &power.proven
            {
                desk.proposals.push(Command::Proven(proven.clone()));
                continue;
            }
            if member.standing == Standing::Fenced && power.restored {
                desk.proposals.push(Command::Restored(*slot));
                continue;
            }
            if power.op.is_some() || desk.now < power.not_before {
                continue;
            }
            let node = desk.name(*slot);
            let (trace, work) = if member.standing == Standing::Unclean {
                (Trace::Fencing { node, outlets: outlets.clone() }, Work::OutletsOff { slot: *slot, outlets })
            } else {
                (Trace::PoweringOn { node, outlets: outlets.clone() }, Work::OutletsOn { slot: *slot, outlets })
            };
            desk.say(trace);
            power.op = Some(desk.begin(limits::FENCE, work));
        }
    }

    /// An operation on outlets has ended.
    pub(crate) fn done(&mut self, desk: &mut Desk<'_>, op: OpId, work: &Work, outcome: Outcome) {
        let Some((identity, power)) = self.power.iter_mut().find(|(_, power)| power.op == Some(op)) else {
            return;
        };
        power.op = None;
        power.not_before = desk.now + limits::RETRY;
        let node = desk.config.node(identity.slot).name.clone();
        let feeds = &desk.config.node(identity.slot).outlets;
        let readings = match outcome {
            Outcome::Read(readings) => Ok(readings),
            Outcome::Failed(reason) => Err(reason),
            Outcome::Succeeded => Err("the outlets were not read back".to_owned()),
        };
        let said = match (work, readings) {
            (Work::OutletsOff { .. }, Ok(readings)) => match Proven::by_outlets(*identity, feeds, &readings) {
                Ok(proven) => {
                    power.proven = Some(proven);
                    None
                }
                Err(reason) => Some(Trace::NotFenced { node, reason }),
            },
            (Work::OutletsOff { .. }, Err(reason)) => Some(Trace::NotFenced { node, reason }),
            (_, Ok(readings)) if feeds.iter().all(|feed| readings.get(feed) == Some(&Reading::On)) => {
                power.restored = true;
                None
            }
            (_, Ok(_)) => Some(Trace::NotPoweredOn { node, reason: "an outlet is not on".to_owned() }),
            (_, Err(reason)) => Some(Trace::NotPoweredOn { node, reason }),
        };
        if let Some(trace) = said {
            desk.say(trace);
        }
    }

    /// Takes those steps of the plan that can be taken now: every start, and one move at a time.
    fn place(&mut self, desk: &mut Desk<'_>, hearing: &Hearing, host: &Host) {
        let scene = self.scene(desk, hearing, host);
        let plan = placement::plan(&scene.inventory);
        let no_room: BTreeSet<VmName> = plan.no_room.iter().filter_map(|vm| scene.vm(vm.vm)).cloned().collect();
        let takes_vms = scene.inventory.nodes.iter().any(|node| node.accepts);
        for vm in no_room.difference(&self.no_room).filter(|_| takes_vms) {
            desk.say(Trace::NoRoom { vm: vm.clone() });
        }
        self.no_room = if takes_vms { no_room } else { BTreeSet::new() };
        let busy = |vm: &Vm| matches!(vm.phase, Phase::Moving { .. } | Phase::Landing(_));
        let mut may_move = !desk.state.vms.values().any(busy);
        for step in plan.at_once() {
            let Some((name, vm)) = scene.vm(step.vm).and_then(|name| desk.state.vms.get_key_value(name)) else {
                continue;
            };
            match step.act {
                Act::Start(to) => {
                    if let Some(to) = scene.node(to) {
                        desk.proposals.push(Command::Assign(name.clone(), vm.generation.next(), to));
                    }
                }
                Act::Migrate(to) if may_move => {
                    if let Some(to) = scene.node(to) {
                        may_move = false;
                        self.moved.insert(name.clone(), desk.now);
                        desk.proposals.push(Command::Migrate(name.clone(), vm.generation.next(), to));
                    }
                }
                // No VM has features or a priority yet, so none is moved cold or stopped for another.
                Act::Migrate(_) | Act::ColdMove(_) | Act::StopForRoom => {}
            }
        }
    }

    /// The present state in placement's words.
    fn scene(&self, desk: &Desk<'_>, hearing: &Hearing, host: &Host) -> Scene {
        let known = everything_known(desk, hearing, host);
        let mut scene = Scene::default();
        let mut runs: BTreeSet<(Identity, VmName)> = BTreeSet::new();
        for (slot, member) in &desk.state.members {
            let config = desk.config.node(*slot);
            let reported = report(desk, hearing, host, member.identity);
            let accepts = reported.is_some() && member.standing == Standing::Member && config.role == Role::Node;
            let (free, domains) = reported.unwrap_or_default();
            // What a failed migration has left paused cannot be moved: its host is about to say so.
            runs.extend(domains.into_iter().filter(|(_, runs)| *runs).map(|(name, _)| (member.identity, name)));
            scene.members.push(member.identity);
            scene.inventory.nodes.push(placement::Node {
                name: config.name.clone(),
                free,
                accepts,
                ..Default::default()
            });
        }
        for (name, vm) in &desk.state.vms {
            let waits = self.moved.get(name).is_some_and(|last| desk.now < *last + limits::RETRY);
            let leaving = |at| desk.state.member(at).is_some_and(|member| member.standing == Standing::Leaving);
            let whereabouts = match vm.phase {
                // What this generation never placed may still run somewhere: it is adopted, not started.
                Phase::Stopped if vm.generation.0 > 0 || (known && !runs_anywhere(desk, hearing, host, name)) => {
                    Where::Stopped
                }
                Phase::Stopped | Phase::Failed => continue,
                Phase::Running(at) if waits || !runs.contains(&(at, name.clone())) => {
                    Where::InFlight { from: None, to: scene.id(at) }
                }
                Phase::Running(at) => match scene.id(at) {
                    Some(id) if leaving(at) => Where::Leaving(id),
                    Some(id) => Where::Running(id),
                    None => Where::InFlight { from: None, to: None },
                },
                Phase::Starting(to) | Phase::Landing(to) | Phase::Moving { to, .. } => {
                    let from = if let Phase::Moving { from, .. } = vm.phase { scene.id(from) } else { None };
                    let to_id = scene.id(to);
                    let promised = !runs.contains(&(to, name.clone()));
                    if let Some(node) = to_id.filter(|_| promised).and_then(|id| scene.inventory.nodes.get_mut(id.0)) {
                        node.free = node.free.less(placement::need(vm.memory));
                    }
                    Where::InFlight { from, to: to_id }
                }
            };
            let avoid = vm.avoid.and_then(|slot| scene.members.iter().position(|member| member.slot == slot));
            scene.names.push(name.clone());
            scene.inventory.vms.push(placement::Vm {
                name: name.to_string(),
                memory: vm.memory,
                whereabouts,
                avoid: avoid.map(NodeId),
                ..Default::default()
            });
        }
        scene
    }
}

/// What a plan is made from, and whom its ids mean.
#[derive(Debug, Default)]
struct Scene {
    inventory: Inventory,
    members: Vec<Identity>,
    names: Vec<VmName>,
}

impl Scene {
    fn id(&self, identity: Identity) -> Option<NodeId> {
        self.members.iter().position(|member| *member == identity).map(NodeId)
    }

    fn node(&self, id: NodeId) -> Option<Identity> {
        self.members.get(id.0).copied()
    }

    fn vm(&self, id: VmId) -> Option<&VmName> {
        self.names.get(id.0)
    }
}

/// What a member's Xen has free, and its domains, as it said itself lately.
fn report(
    desk: &Desk<'_>,
    hearing: &Hearing,
    host: &Host,
    identity: Identity,
) -> Option<(Mebibytes, Vec<(VmName, bool)>)> {
    if identity == desk.me {
        return host.free().map(|free| (free, host.vms()));
    }
    let peer = hearing.peer(identity.slot).filter(|peer| peer.identity == identity)?;
    let recent = desk.now.since(peer.last) < desk.config.timing.warntime;
    peer.beat.free.filter(|_| recent).map(|free| (free, peer.beat.domains.clone()))
}

/// Whether it is known of every slot what it runs: it says so, or it is off.
fn everything_known(desk: &Desk<'_>, hearing: &Hearing, host: &Host) -> bool {
    let known = |slot: &Slot, identity: Identity, standing: Standing| {
        desk.config.node(*slot).role == Role::Gateway
            || match standing {
                Standing::Member | Standing::Leaving => report(desk, hearing, host, identity).is_some(),
                Standing::Unclean => false,
                Standing::Off | Standing::Fenced | Standing::Booting => true,
            }
    };
    desk.state.members.iter().all(|(slot, member)| known(slot, member.identity, member.standing))
}

fn runs_anywhere(desk: &Desk<'_>, hearing: &Hearing, host: &Host, name: &VmName) -> bool {
    let has = |domains: &[(VmName, bool)]| domains.iter().any(|(vm, _)| vm == name);
    let mut alive = hearing.alive(desk.now, desk.config.timing.deadtime);
    has(&host.vms()) || alive.any(|peer| has(&peer.beat.domains))
}
