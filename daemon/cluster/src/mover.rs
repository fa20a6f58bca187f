//! What the DC has done with VMs: the plan of [`placement`], a step at a time, and what the operator wants.
//!
//! The plan says who starts where and who moves. How a VM is made to leave a node is its contract: each step that fails
//! makes the next one due, and when its time is up the last one. Nothing here is remembered that matters: a new DC begins from
//! the state, and at worst gives a VM its time once more.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::Contract;
use crate::event::Transfer;
use crate::host::Desk;
use crate::limits;
use crate::placement::{self, Act, Plan, VmId};
use crate::scene::{Scene, Sight, Wishes};
use crate::state::{Command, Phase, Standing, Stop, Vm};
use crate::trace::Trace;
use crate::words::{Generation, Identity, Instant, VmName};

/// What the DC remembers about VMs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mover {
    /// When to look again, if nothing is committed before.
    next: Instant,
    /// What was committed when it looked last.
    seen: u64,
    /// Where a VM was proposed to start, or to move to, as which generation and when, until that is agreed or has come to nothing.
    asked: BTreeMap<VmName, (Identity, Generation, Instant)>,
    /// When a VM was last told to move.
    moved: BTreeMap<VmName, Instant>,
    /// The failures of VMs that wait for another try, and until when.
    waits: BTreeMap<VmName, (u32, Instant)>,
    /// Since when a VM is to leave its node.
    leaving: BTreeMap<VmName, Instant>,
    /// Since when a VM with past failures runs.
    runs: BTreeMap<VmName, (Generation, Instant)>,
    /// What was said to have no room.
    no_room: BTreeSet<VmName>,
    /// What was said to be shed.
    shed: BTreeSet<VmName>,
}

/// How a VM is to leave its node now.
enum Leave {
    /// By a move of this kind, when there is room.
    Move,
    /// At once, in this way.
    Stop(Stop),
}

impl Mover {
    /// Looks at every VM, after each commitment and once a `keepalive`.
    pub(crate) fn review(&mut self, desk: &mut Desk<'_>, sight: &Sight<'_>, applied: u64) {
        if desk.now < self.next && self.seen == applied {
            return;
        }
        self.next = desk.now + desk.config.timing.keepalive;
        self.seen = applied;
        let mut wishes = self.wishes(desk, sight);
        let patience = desk.config.timing.keepalive * 2;
        self.asked.retain(|name, (_, generation, since)| {
            let open = desk.state.vms.get(name).is_some_and(|vm| vm.generation < *generation);
            open && desk.now.since(*since) < patience
        });
        wishes.asked = self.asked.iter().map(|(name, (to, ..))| (name.clone(), *to)).collect();
        let scene = sight.scene(&wishes);
        let plan = placement::plan(&scene.inventory);
        self.say_who_has_no_room(desk, &scene, &plan);
        self.carry_out(desk, &scene, &plan);
        self.settle(desk);
    }

    /// Who is to leave, by which step, and who is to be let alone; what is to be stopped is.
    fn wishes(&mut self, desk: &mut Desk<'_>, sight: &Sight<'_>) -> Wishes {
        let state = desk.state;
        let goes = |vm: &Vm| vm.owner().is_some_and(|at| state.is_to_be_emptied(desk.config, at));
        self.leaving.retain(|name, _| state.vms.get(name).is_some_and(goes));
        let sheds = |vm: &Vm, at: Identity| {
            vm.wanted && !state.duty(at.slot).maintenance && state.is_to_be_shed(desk.config, vm, at)
        };
        self.shed.retain(|name| state.vms.get(name).is_some_and(|vm| vm.owner().is_some_and(|at| sheds(vm, at))));
        let mut stops = 0;
        let mut wishes = Wishes::default();
        for (name, vm) in &state.vms {
            let untouched = match vm.phase {
                Phase::Stopped => self.is_backing_off(desk.now, name, vm),
                Phase::Running(at) => {
                    let busy = self.moved.get(name).is_some_and(|last| desk.now < *last + limits::RETRY);
                    if !vm.wanted && !state.duty(at.slot).maintenance {
                        desk.proposals.push(Command::Stop(name.clone(), vm.generation, Stop::ShutDown));
                        true
                    } else if sheds(vm, at) {
                        if stops < limits::STOPS_AT_ONCE {
                            stops += 1;
                            self.shed(desk, name, vm);
                        }
                        true
                    } else if state.duty(at.slot).maintenance || busy || !sight.runs(at, name) {
                        true
                    } else if state.is_to_be_emptied(desk.config, at) {
                        wishes.leaving.insert(name.clone());
                        self.asks_to_stop(desk, name, vm, at)
                    } else {
                        false
                    }
                }
                Phase::Starting(_) | Phase::Moving { .. } | Phase::Landing(_) | Phase::Stopping(..) | Phase::Failed => {
                    false
                }
            };
            if untouched {
                wishes.untouched.insert(name.clone());
            }
        }
        wishes
    }

    /// Has a VM shut down for want of power.
    fn shed(&mut self, desk: &mut Desk<'_>, name: &VmName, vm: &Vm) {
        if self.shed.insert(name.clone()) {
            desk.say(Trace::Sheds { vm: name.clone() });
        }
        desk.proposals.push(Command::Stop(name.clone(), vm.generation, Stop::ShutDown));
    }

    /// Whether the VM's contract has come to a step that needs no other node; that step is asked for then.
    fn asks_to_stop(&mut self, desk: &mut Desk<'_>, name: &VmName, vm: &Vm, at: Identity) -> bool {
        let since = *self.leaving.entry(name.clone()).or_insert(desk.now);
        // In standby nothing presses: a VM that could not be moved is tried again, and runs meanwhile.
        let presses = desk.state.member(at).is_some_and(|member| member.standing == Standing::Leaving);
        let overdue = desk.now.since(since) >= desk.evacuation(vm) || nobody_is_left(desk);
        let leave = match step(vm) {
            _ if !presses => Leave::Move,
            _ if overdue => Leave::Stop(Stop::ShutDown),
            Contract::Shutdown => Leave::Stop(Stop::ShutDown),
            Contract::Suspend => Leave::Stop(Stop::Suspend),
            Contract::Live | Contract::Pause => Leave::Move,
        };
        match leave {
            Leave::Move => false,
            Leave::Stop(stop) => {
                desk.proposals.push(Command::Stop(name.clone(), vm.generation, stop));
                true
            }
        }
    }

    fn say_who_has_no_room(&mut self, desk: &mut Desk<'_>, scene: &Scene, plan: &Plan) {
        let takes_vms = scene.inventory.nodes.iter().any(|node| node.accepts);
        let mut no_room = BTreeSet::new();
        // One that is to make room runs yet.
        let runs = |vm: VmId| plan.steps.iter().any(|step| step.vm == vm && step.act == Act::StopForRoom);
        let without = plan.no_room.iter().filter(|vm| !runs(vm.vm));
        for (name, reason) in without.filter_map(|vm| Some((scene.vm(vm.vm)?, &vm.reason))) {
            if takes_vms && !self.no_room.contains(name) {
                desk.say(Trace::NoRoom { vm: name.clone(), reason: reason.to_string() });
            }
            no_room.insert(name.clone());
        }
        self.no_room = if takes_vms { no_room } else { BTreeSet::new() };
    }

    /// Takes those steps of the plan that can be taken now: every start and stop, and one move at a time.
    fn carry_out(&mut self, desk: &mut Desk<'_>, scene: &Scene, plan: &Plan) {
        let busy = |vm: &Vm| matches!(vm.phase, Phase::Moving { .. } | Phase::Landing(_));
        let runs = |vm: &Vm| matches!(vm.phase, Phase::Running(_));
        let proposed = self.asked.keys().any(|name| desk.state.vms.get(name).is_some_and(runs));
        let mut may_move = !proposed && !desk.state.vms.values().any(busy);
        for planned in plan.at_once() {
            let record = scene.vm(planned.vm).and_then(|name| desk.state.vms.get_key_value(name));
            let Some((name, vm)) = record else { continue };
            let (name, generation) = (name.clone(), vm.generation);
            match planned.act {
                Act::Start(to) => {
                    let Some(to) = scene.node(to) else { continue };
                    self.asked.insert(name.clone(), (to, generation.next(), desk.now));
                    desk.proposals.push(Command::Assign(name, generation.next(), to));
                }
                Act::Migrate(to) if may_move => {
                    let Some(to) = scene.node(to) else { continue };
                    may_move = false;
                    self.moved.insert(name.clone(), desk.now);
                    self.asked.insert(name.clone(), (to, generation.next(), desk.now));
                    let transfer = if step(vm) == Contract::Pause { Transfer::Paused } else { Transfer::Live };
                    desk.proposals.push(Command::Migrate(name, generation.next(), to, transfer));
                }
                Act::Migrate(_) => {}
                // It is started where there is room for it when it has ended.
                Act::ColdMove(_) => desk.proposals.push(Command::Stop(name, generation, Stop::ShutDown)),
                Act::StopForRoom => {
                    desk.say(Trace::MakesRoom { vm: name.clone() });
                    desk.proposals.push(Command::Stop(name, generation, Stop::ShutDown));
                }
            }
        }
    }

    /// Whether a VM that failed is to wait: longer after each failure. The first may be the machine's, and is free.
    fn is_backing_off(&mut self, now: Instant, name: &VmName, vm: &Vm) -> bool {
        let failures = vm.failures + vm.deaths;
        if failures == 0 {
            return false;
        }
        let wait = limits::RETRY * (2_u32.saturating_pow(failures.min(6) - 1) - 1);
        let entry = self.waits.entry(name.clone()).or_insert((failures, now + wait));
        if entry.0 != failures {
            *entry = (failures, now + wait);
        }
        now < entry.1
    }

    /// Lets the past failures of VMs be forgotten that have run for long.
    fn settle(&mut self, desk: &mut Desk<'_>) {
        let state = desk.state;
        let marked = |vm: &Vm| vm.deaths > 0 && matches!(vm.phase, Phase::Running(_));
        self.runs.retain(|name, (generation, _)| {
            state.vms.get(name).is_some_and(|vm| marked(vm) && vm.generation == *generation)
        });
        for (name, vm) in state.vms.iter().filter(|(_, vm)| marked(vm)) {
            let (_, since) = *self.runs.entry(name.clone()).or_insert((vm.generation, desk.now));
            if desk.now.since(since) >= limits::SETTLED {
                desk.proposals.push(Command::Settled(name.clone(), vm.generation));
            }
        }
    }
}

/// Whether no node takes VMs any more, nor is about to: all have left or leave, or are set aside.
fn nobody_is_left(desk: &Desk<'_>) -> bool {
    desk.state.members.iter().all(|(slot, member)| {
        matches!(member.standing, Standing::Leaving | Standing::Off) || desk.state.is_set_aside(desk.config, *slot)
    })
}

/// The step of its contract that is due.
fn step(vm: &Vm) -> Contract {
    let steps = &vm.spec.contract;
    steps.get(usize::from(vm.steps)).or(steps.last()).copied().unwrap_or(Contract::Shutdown)
}
