//! What the DC decides: whom to suspect and fence, who comes in, where VMs go.
//!
//! It only proposes; what counts is what is committed. Everything here is recomputed from the committed state and from
//! who is heard, at every turn; what it remembers between turns are open operations and when to try again. A DC that
//! loses its office forgets all of it, and the next one begins from the state.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use crate::agreement::Agreement;
use crate::config::Contract;
use crate::event::Transfer;
use crate::hearing::Hearing;
use crate::host::{Desk, Host};
use crate::limits;
use crate::placement::{self, Candidate};
use crate::state::{Command, Member, Phase, Standing, Stop, Vm};
use crate::trace::Trace;
use crate::words::{Failing, Generation, Identity, Instant, Mebibytes, Role, Slot, VmName};

/// The office.
#[derive(Clone, Debug)]
pub(crate) struct Dc {
    since: Instant,
    suspected: BTreeSet<Identity>,
    /// The attempts at fencing, and when each was seen to be under way or to have failed first.
    attempts: BTreeMap<Identity, (u32, bool, Instant)>,
    /// When a VM was last told to move, or is to be tried again.
    moved: BTreeMap<VmName, Instant>,
    /// The failures of VMs that wait for another try, and until when.
    waits: BTreeMap<VmName, (u32, Instant)>,
    /// Since when a VM is to be moved away.
    emptied: BTreeMap<VmName, Instant>,
    /// Since when a VM with past failures runs.
    runs: BTreeMap<VmName, (Generation, Instant)>,
    no_room: BTreeSet<VmName>,
}

impl Dc {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            since: now,
            suspected: BTreeSet::new(),
            attempts: BTreeMap::new(),
            moved: BTreeMap::new(),
            waits: BTreeMap::new(),
            emptied: BTreeMap::new(),
            runs: BTreeMap::new(),
            no_room: BTreeSet::new(),
        }
    }

    /// Looks at everything once.
    pub(crate) fn review(&mut self, desk: &mut Desk<'_>, hearing: &Hearing, agreement: &mut Agreement, host: &Host) {
        self.bring_in(desk, hearing, agreement);
        self.suspect(desk, hearing);
        self.fence(desk);
        let free = free_memory(desk, hearing, host);
        self.place(desk, hearing, host, free.clone());
        self.evacuate(desk, hearing, host, &free);
        self.stop_unwanted(desk);
        self.settle(desk);
    }

    fn bring_in(&self, desk: &Desk<'_>, hearing: &Hearing, agreement: &mut Agreement) {
        for peer in hearing.alive(desk.now, desk.config.timing.deadtime) {
            let slot = peer.identity.slot;
            let ours = peer.beat.generation.is_none_or(|generation| generation == desk.state.generation);
            // A boot that was proven off, though it lives, must not come back as if nothing had happened.
            let dead = |member: &Member| {
                member.identity.same_boot(peer.identity)
                    && matches!(member.standing, Standing::Fenced | Standing::Booting)
            };
            if let Some(member) = desk.state.members.get(&slot)
                && ours
                && member.identity != peer.identity
                && !dead(member)
            {
                agreement.bring_in(peer.identity);
            }
        }
    }

    fn suspect(&mut self, desk: &mut Desk<'_>, hearing: &Hearing) {
        for (slot, member) in &desk.state.members {
            if !member.is_present() || *slot == desk.me.slot || desk.config.node(*slot).role != Role::Node {
                continue;
            }
            // Whoever is heard from that slot counts: a new life of it is about to be brought in.
            let silence = desk.now.since(hearing.peer(*slot).map_or(self.since, |peer| peer.last));
            let failing = self.is_failing(desk, hearing, member.identity);
            if silence < desk.config.timing.deadtime && !failing {
                self.suspected.remove(&member.identity);
                continue;
            }
            if self.suspected.insert(member.identity) {
                let node = desk.name(*slot);
                let trace = if failing { Trace::SuspectedFailing { node } } else { Trace::Suspected { node, silence } };
                desk.say(trace);
            }
            if !desk.state.is_disarmed(*slot) {
                desk.proposals.push(Command::Suspect(member.identity));
            }
        }
    }

    /// Whether it has announced its death: that needs no deadtime. But as long as its vote is needed it is not fenced: it
    /// resets itself.
    fn is_failing(&self, desk: &Desk<'_>, hearing: &Hearing, identity: Identity) -> bool {
        let peer = hearing.peer(identity.slot).filter(|peer| peer.identity == identity);
        let others = hearing.alive(desk.now, desk.config.timing.warntime).map(|peer| peer.identity.slot);
        let others = others.filter(|slot| *slot != identity.slot).chain([desk.me.slot]);
        if desk.config.votes(others) < desk.config.majority() {
            return false;
        }
        match peer.and_then(|peer| peer.beat.failing) {
            Some(Failing::Storage | Failing::Hypervisor) => true,
            // The majority may have just come back, and this node with it: then it is about to say otherwise.
            Some(Failing::Watchdog) => desk.now.since(self.since) >= desk.config.timing.warntime,
            None => false,
        }
    }

    /// Has the next attempt made where one has failed: the next level at once, and after the last a new round.
    fn fence(&mut self, desk: &mut Desk<'_>) {
        let state = desk.state;
        let unclean = |member: &Member| member.standing == Standing::Unclean;
        self.attempts.retain(|identity, _| state.member(*identity).is_some_and(unclean));
        for member in state.members.values().filter(|member| unclean(member)) {
            let (identity, attempt) = (member.identity, member.attempt);
            if state.is_disarmed(identity.slot) {
                continue;
            }
            let failed = member.failed >= attempt;
            let seen = self.attempts.entry(identity).or_insert((attempt, failed, desk.now));
            if (seen.0, seen.1) != (attempt, failed) {
                *seen = (attempt, failed, desk.now);
            }
            let waited = desk.now.since(seen.2);
            let levels = u32::try_from(desk.config.node(identity.slot).fencing.len()).unwrap_or(1);
            let round = attempt.checked_rem(levels) == Some(0);
            if failed && (!round || waited >= limits::RETRY) {
                desk.proposals.push(Command::Attempt(identity, attempt.saturating_add(1)));
            } else if !failed && waited >= limits::FENCE + limits::RETRY {
                // Whoever was to make it is gone, or says nothing.
                desk.proposals.push(Command::NotProven(identity, attempt));
            }
        }
    }

    /// Assigns stopped VMs to the nodes with most free memory.
    fn place(&mut self, desk: &mut Desk<'_>, hearing: &Hearing, host: &Host, mut free: Vec<Candidate>) {
        let known = everything_known(desk, hearing, host);
        let state = desk.state;
        for (name, vm) in &state.vms {
            if vm.phase != Phase::Stopped || !vm.wanted {
                self.no_room.remove(name);
                continue;
            }
            if self.is_backing_off(desk, name, vm) {
                continue;
            }
            // What this generation never placed may still run somewhere: it is adopted, not started.
            let fresh = vm.generation.0 > 0 || (known && !runs_anywhere(desk, hearing, host, name));
            if !fresh {
                continue;
            }
            let Some(chosen) = placement::choose(&free, vm.memory, vm.avoid) else {
                if !free.is_empty() && self.no_room.insert(name.clone()) {
                    desk.say(Trace::NoRoom { vm: name.clone() });
                }
                continue;
            };
            take(&mut free, chosen.identity, vm.memory);
            desk.proposals.push(Command::Assign(name.clone(), vm.generation.next(), chosen.identity));
        }
    }

    /// Whether a VM that failed is to wait: longer after each failure.
    fn is_backing_off(&mut self, desk: &Desk<'_>, name: &VmName, vm: &Vm) -> bool {
        let failures = vm.failures + vm.deaths;
        if failures == 0 {
            return false;
        }
        // The first failure may be the machine's: it is tried again at once.
        let wait = limits::RETRY * (2_u32.saturating_pow(failures.min(6) - 1) - 1);
        let entry = self.waits.entry(name.clone()).or_insert((failures, desk.now + wait));
        if entry.0 != failures {
            *entry = (failures, desk.now + wait);
        }
        desk.now < entry.1
    }

    /// Moves VMs away from nodes that leave or are in standby, one after another, each by the steps of its contract.
    fn evacuate(&mut self, desk: &mut Desk<'_>, hearing: &Hearing, host: &Host, free: &[Candidate]) {
        let state = desk.state;
        let goes = |vm: &Vm| vm.owner().is_some_and(|at| state.is_to_be_emptied(at));
        self.emptied.retain(|name, _| state.vms.get(name).is_some_and(goes));
        let mut moving = state.vms.values().any(|vm| matches!(vm.phase, Phase::Moving { .. } | Phase::Landing(_)));
        for (name, vm) in &state.vms {
            let Phase::Running(at) = vm.phase else { continue };
            if !state.is_to_be_emptied(at) || state.duty(at.slot).maintenance {
                continue;
            }
            let since = *self.emptied.entry(name.clone()).or_insert(desk.now);
            let waits = self.moved.get(name).is_some_and(|last| desk.now < *last + limits::RETRY);
            // What a failed migration has left paused cannot be moved: its host is about to say so.
            let runs =
                report(desk, hearing, host, at).is_some_and(|(_, domains)| domains.contains(&(name.clone(), true)));
            if waits || !runs {
                continue;
            }
            let leaves = state.member(at).is_some_and(|member| member.standing == Standing::Leaving);
            let overdue = leaves && desk.now.since(since) >= evacuation(desk, vm);
            let last = vm.spec.contract.last().copied().unwrap_or(Contract::Shutdown);
            let step = vm.spec.contract.get(usize::from(vm.steps)).copied().unwrap_or(last);
            let transfer = match step {
                Contract::Shutdown | Contract::Suspend if overdue || leaves => {
                    let stop = if overdue || step == Contract::Shutdown { Stop::ShutDown } else { Stop::Suspend };
                    desk.proposals.push(Command::Stop(name.clone(), vm.generation, stop));
                    continue;
                }
                Contract::Live | Contract::Pause if overdue => {
                    desk.proposals.push(Command::Stop(name.clone(), vm.generation, Stop::ShutDown));
                    continue;
                }
                Contract::Pause => Transfer::Paused,
                // In standby nothing presses: a VM that could not be moved is tried again, and runs meanwhile.
                Contract::Live | Contract::Shutdown | Contract::Suspend => Transfer::Live,
            };
            if moving {
                continue;
            }
            if let Some(chosen) = placement::choose(free, vm.memory, vm.avoid) {
                moving = true;
                self.moved.insert(name.clone(), desk.now);
                desk.proposals.push(Command::Migrate(name.clone(), vm.generation.next(), chosen.identity, transfer));
            } else if self.no_room.insert(name.clone()) {
                desk.say(Trace::NoRoom { vm: name.clone() });
            }
        }
    }

    /// Ends what the operator does not want to run.
    fn stop_unwanted(&self, desk: &mut Desk<'_>) {
        for (name, vm) in desk.state.vms.iter().filter(|(_, vm)| !vm.wanted) {
            if let Phase::Running(at) = vm.phase
                && !desk.state.duty(at.slot).maintenance
            {
                desk.proposals.push(Command::Stop(name.clone(), vm.generation, Stop::ShutDown));
            }
        }
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

/// How long a VM may take to be moved away from a node that leaves.
fn evacuation(desk: &Desk<'_>, vm: &Vm) -> Duration {
    match vm.spec.evacuation_s {
        0 => desk.config.timing.evacuation,
        seconds => Duration::from_secs(seconds.into()),
    }
}

/// Every member that may be given VMs, with what its Xen has left when all promises are kept.
fn free_memory(desk: &Desk<'_>, hearing: &Hearing, host: &Host) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = Vec::new();
    for (slot, member) in &desk.state.members {
        let identity = member.identity;
        let Some((free, domains)) = report(desk, hearing, host, identity) else {
            continue;
        };
        let duty = desk.state.duty(*slot);
        let failing = hearing.peer(*slot).is_some_and(|peer| peer.beat.failing.is_some());
        let takes = member.standing == Standing::Member && !duty.standby && !duty.maintenance && !failing;
        if !takes || desk.config.node(*slot).role != Role::Node {
            continue;
        }
        candidates.push(Candidate { identity, free });
        for (name, vm) in &desk.state.vms {
            let promised = match vm.phase {
                Phase::Starting(to) | Phase::Moving { to, .. } | Phase::Landing(to) => to == identity,
                Phase::Running(_) | Phase::Stopping(..) | Phase::Stopped | Phase::Failed => false,
            };
            if promised && !domains.contains(&(name.clone(), true)) {
                take(&mut candidates, identity, vm.memory);
            }
        }
    }
    candidates
}

fn take(candidates: &mut [Candidate], identity: Identity, memory: Mebibytes) {
    for candidate in candidates.iter_mut().filter(|candidate| candidate.identity == identity) {
        candidate.free = candidate.free.less(placement::need(memory));
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
    peer.beat.free.filter(|_| recent).zip(peer.domains().map(<[_]>::to_vec))
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
    has(&host.vms()) || alive.any(|peer| peer.domains().is_some_and(has))
}
