//! What may never happen. Each is a function of its own, named as its breach is, and has a canary that breaks it
//! (tests/swarm.rs).
//!
//! Each is asked where it can be broken: when a domain begins to run, when a node begins something, says something or has
//! taken a turn.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster::config::Config;
use cluster::event::{Action, Domain, LockspaceOrder, Path, Work};
use cluster::node::Node;
use cluster::trace::Trace;
use cluster::words::{Claim, ClusterGeneration, Edition, Generation, Incarnation, Instant, Slot, VmName};

use super::World;

/// How long a majority may be gone before nobody may still believe in it: the longest election timeout, and a margin.
const BELIEF: Duration = Duration::from_secs(12);
/// How long after its end an incarnation may still be heard for the first time: the longest delay, and a stall.
const ECHO: Duration = Duration::from_secs(2);
/// Actions that one turn may have: a datagram or two to everybody, and something for every VM.
const ACTIONS: usize = 256;
/// Lines that a node may say in one second.
const LINES: u32 = 100;

/// What the invariants remember.
#[derive(Debug, Default)]
pub(super) struct History {
    /// The generation and view that a life was in last. A generation that is given up ends an identity, and its past.
    positions: Vec<(u64, Option<ClusterGeneration>, u64)>,
    /// When each machine was last seen in a generation.
    seen_in: BTreeMap<(ClusterGeneration, usize), Instant>,
    /// Until when each two machines could talk and both had a supervisor; row by row.
    linked: Vec<Instant>,
    /// The highest generation for which a VM was begun, and by which boot, in each generation of the cluster.
    begun: BTreeMap<(ClusterGeneration, VmName), (u64, Option<Incarnation>)>,
    /// Boots that have ended, and when.
    ended: BTreeMap<Incarnation, Instant>,
    /// Since when a supervisor wants to leave, and which.
    leaving: BTreeMap<usize, (u64, Instant)>,
    /// Who said last in a generation that it is DC, when, and whether it still does.
    dcs: BTreeMap<ClusterGeneration, (usize, u64, Instant)>,
    /// What a machine said in the present second.
    lines: BTreeMap<usize, (u64, u32)>,
    /// The nodes that were removed in a generation, and when.
    removed: BTreeMap<(ClusterGeneration, String), Instant>,
    /// Which edition of `cluster.toml` went with each step of a generation's agreement, and who was last seen at which.
    rosters: BTreeMap<(ClusterGeneration, u64), Edition>,
    at_step: BTreeMap<usize, (ClusterGeneration, u64)>,
    /// The oldest key that any member opens since the last change was over, and since when.
    pub(super) key_over: (u32, Instant),
    /// Who restarts because it was its turn, and has not been quorate since.
    restarting: BTreeSet<usize>,
    /// Who was added, and whose fencing no test has shown to work.
    on_trial: BTreeSet<String>,
}

impl History {
    pub(super) fn new(machines: usize) -> Self {
        let linked = vec![Instant::ZERO; machines * machines];
        Self { linked, positions: vec![Default::default(); machines], ..Self::default() }
    }
}

impl World {
    /// A domain runs that did not run before.
    pub(super) fn note_running(&mut self, vm: &VmName) {
        let breach = self.one_copy(vm).or_else(|| self.one_writer(vm));
        self.breaks(breach);
    }

    /// A supervisor's deadline has come.
    pub(super) fn note_wake(&mut self, at: usize) {
        if let Some((_, (Some(generation), _))) = self.position(at) {
            self.history.seen_in.insert((generation, at), self.now);
        }
        let breach = self.evacuations_end(at).or_else(|| self.the_removed_do_not_count(at));
        self.breaks(breach);
    }

    /// The first breach is kept.
    pub(super) fn breaks(&mut self, breach: Option<String>) {
        self.breach = self.breach.take().or(breach);
    }

    /// A VM runs in one place at most.
    fn one_copy(&self, vm: &VmName) -> Option<String> {
        let running = self.running(vm);
        let names: Vec<&str> = running.iter().map(|at| self.name(*at)).collect();
        (names.len() > 1).then(|| format!("one copy: {vm} runs on {}", names.join(" and ")))
    }

    /// Only who has claimed a VM's disks runs it.
    fn one_writer(&self, vm: &VmName) -> Option<String> {
        let claims = |at: &usize| self.machines.get(*at).is_some_and(|m| self.claims.may_write(vm, m.incarnation));
        let intruder = self.running(vm).into_iter().find(|at| !claims(at))?;
        Some(format!("one writer of a disk: {} runs {vm}, whose disks are not its own", self.name(intruder)))
    }

    /// A node that was asked to leave is off by its deadline, whatever its VMs do.
    fn evacuations_end(&self, at: usize) -> Option<String> {
        let limit = self.config.timing.evacuation * 3 + self.config.timing.evacuation / 10;
        let (life, since) = self.history.leaving.get(&at)?;
        let machine = self.machines.get(at).filter(|machine| machine.life == *life)?;
        let late = self.now.since(*since.max(&machine.stalled_until)) > limit;
        late.then(|| format!("an evacuation ends by its deadline: {} is still there", self.name(at)))
    }

    /// Nothing that is paused or half received is left over. To be asked of a world that has come right again.
    pub(super) fn no_limbo(&self) -> Option<String> {
        self.machines.iter().enumerate().find_map(|(at, machine)| {
            let left = machine.domains.iter().find(|(name, domain)| **domain != Domain::Running || name.contains("--"));
            left.map(|(name, domain)| format!("no VM in limbo: {name} on {} is {domain:?}", self.name(at)))
        })
    }

    /// After a supervisor has taken a turn: the generation and the view of an identity never fall.
    pub(super) fn check_positions(&mut self, at: usize) {
        let breach = self.one_roster(at);
        self.breaks(breach);
        let Some((life, (generation, view))) = self.position(at) else { return };
        let Some(position) = self.history.positions.get_mut(at) else { return };
        let (lived, was, last) = core::mem::replace(position, (life, generation, view));
        if (lived, was, last) == (life, generation, view) {
            return;
        }
        if let Some(generation) = generation {
            self.history.seen_in.insert((generation, at), self.now);
        }
        if lived != life {
            return;
        }
        let fell = match (was, generation) {
            (Some(was), Some(now)) if was != now => Some(format!("went from generation {was} to {now}")),
            (Some(was), None) => Some(format!("forgot generation {was}")),
            (Some(_), Some(_)) if last > view => Some(format!("went from view {last} to {view}")),
            (Some(_) | None, Some(_) | None) => None,
        };
        let breach = fell.map(|fell| format!("views never fall: {} {fell}", self.name(at)));
        self.breaks(breach);
    }

    /// An identity has given its generation up.
    fn forget_position(&mut self, at: usize, life: u64) {
        if let Some(position) = self.history.positions.get_mut(at) {
            *position = (life, None, 0);
        }
    }

    fn position(&self, at: usize) -> Option<(u64, (Option<ClusterGeneration>, u64))> {
        let machine = self.machines.get(at)?;
        let (generation, view) = machine.node.as_ref()?.position();
        Some((machine.life, (generation, view.0)))
    }

    /// Before a node's actions of one turn are carried out: its queues are bounded.
    pub(super) fn note_turn(&mut self, at: usize, actions: &[Action]) {
        let length = |action: &Action| if let Action::Send { datagram, .. } = action { datagram.len() } else { 0 };
        let longest = actions.iter().map(length).max().unwrap_or(0);
        if actions.len() > ACTIONS {
            let count = actions.len();
            self.breaks(Some(format!("bounded queues: {} wants {count} things done in one turn", self.name(at))));
        }
        if longest > cluster::limits::DATAGRAM_BYTES {
            self.breaks(Some(format!("bounded queues: {} sends {longest} bytes", self.name(at))));
        }
    }

    /// A node says something.
    pub(super) fn note_trace(&mut self, at: usize, trace: &Trace) {
        self.log_is_bounded(at);
        self.note_roster(at, trace);
        if let Trace::Heard { incarnation, .. } = trace {
            self.the_dead_are_not_heard(at, *incarnation);
        }
        if matches!(trace, Trace::Abandoned { .. })
            && let Some((life, _)) = self.position(at)
        {
            self.forget_position(at, life);
        }
        if matches!(trace, Trace::Quorate) {
            self.history.restarting.remove(&at);
        }
        if matches!(trace, Trace::BecameDc { .. })
            && let Some((life, (Some(generation), _))) = self.position(at)
        {
            self.history.dcs.insert(generation, (at, life, self.now));
        }
    }

    /// A node was added, or removed: said by the leader that has committed it.
    fn note_roster(&mut self, at: usize, trace: &Trace) {
        let Some((_, (Some(generation), _))) = self.position(at) else { return };
        if let Trace::Added { node, .. } = trace {
            self.history.removed.remove(&(generation, node.clone()));
            self.history.on_trial.insert(node.clone());
        }
        if let Trace::Removed { node, .. } | Trace::DrillPassed { node } = trace {
            self.history.on_trial.remove(node);
        }
        if let Trace::Removed { node, .. } = trace {
            self.history.removed.insert((generation, node.clone()), self.now);
        }
    }

    /// Since when a machine is removed, as its own generation has agreed.
    fn removed_since(&self, at: usize) -> Option<Instant> {
        let (_, (generation, _)) = self.position(at)?;
        self.history.removed.get(&(generation?, self.name(at).to_owned())).copied()
    }

    /// Nobody who was removed is quorate, or long believes to be.
    fn the_removed_do_not_count(&self, at: usize) -> Option<String> {
        let since = self.removed_since(at)?;
        let long = self.now.since(since) > BELIEF && self.is_quorate(at);
        long.then(|| format!("the removed do not count: {} is quorate", self.name(at)))
    }

    /// Nobody who was removed runs or switches anything.
    fn the_removed_run_nothing(&self, at: usize, work: &Work) -> Option<String> {
        let ends = matches!(work, Work::Shutdown { .. } | Work::Suspend { .. } | Work::Destroy { .. });
        let removed = self.removed_since(at).filter(|_| !ends);
        removed.map(|_| format!("the removed run nothing: {} begins {work:?}", self.name(at)))
    }

    /// Nobody of whom it is not known that its outlets feed it has a VM or the shared file system.
    fn who_is_on_trial_has_nothing(&self, at: usize, work: &Work) -> Option<String> {
        let has =
            matches!(work, Work::Create { .. } | Work::Receive { .. } | Work::Lockspace(LockspaceOrder::Run { .. }));
        (has && self.history.on_trial.contains(self.name(at)))
            .then(|| format!("who is on trial has nothing: {} begins {work:?}", self.name(at)))
    }

    /// Whoever has applied as much of the same agreement goes by the same edition of cluster.toml.
    fn one_roster(&mut self, at: usize) -> Option<String> {
        let (applied, edition) = self.machines.get(at)?.node.as_ref()?.roster()?;
        let (_, (generation, _)) = self.position(at)?;
        let step = (generation?, applied);
        if self.history.at_step.insert(at, step) == Some(step) {
            return None;
        }
        let agreed = *self.history.rosters.entry(step).or_insert(edition);
        (agreed != edition).then(|| {
            format!("one roster: {} goes by edition {edition} after step {applied}, others by {agreed}", self.name(at))
        })
    }

    /// Everybody who is configured goes by the edition that is agreed, and the DC has exactly its slots vote. To be asked of
    /// a world that has come right again.
    pub(super) fn one_roster_everywhere(&self, at: usize, agreed: &Config, is_dc: bool) -> Result<(), String> {
        let own = self.edition(at);
        if own.edition != agreed.edition {
            return Err(format!("{} goes by edition {} and not by {}", self.name(at), own.edition, agreed.edition));
        }
        let voters = self.machines.get(at).and_then(|machine| machine.node.as_ref()).map(Node::voters);
        let configured: Vec<Slot> = agreed.slots().map(|(slot, _)| slot).collect();
        if is_dc && voters != Some(configured) {
            return Err(format!("{} does not have exactly the configured slots vote", self.name(at)));
        }
        Ok(())
    }

    /// A node does not fill its log.
    fn log_is_bounded(&mut self, at: usize) {
        let second = self.now.millis() / 1000;
        let entry = self.history.lines.entry(at).or_default();
        *entry = if entry.0 == second { (second, entry.1 + 1) } else { (second, 1) };
        if entry.1 > LINES {
            self.breaks(Some(format!("bounded queues: {} says {LINES} lines in a second", self.name(at))));
        }
    }

    /// What a boot has sent that has ended is not taken for news.
    fn the_dead_are_not_heard(&mut self, at: usize, incarnation: Incarnation) {
        let stalled = self.machines.get(at).map_or(Instant::ZERO, |machine| machine.stalled_until);
        let ended = self.history.ended.get(&incarnation).copied();
        if ended.is_some_and(|ended| self.now.since(ended.max(stalled)) > ECHO) {
            self.breaks(Some(format!("no action from a dead incarnation: {} hears {incarnation}", self.name(at))));
        }
    }

    /// A node begins something.
    pub(super) fn note_begin(&mut self, at: usize, work: &Work) {
        let breach = self
            .nobody_fences_itself(at, work)
            .or_else(|| self.no_fencing_of_who_left(at, work))
            .or_else(|| self.nothing_starts_inquorate(at, work))
            .or_else(|| self.one_dc_acts(at, work))
            .or_else(|| self.generations_never_fall(at, work))
            .or_else(|| self.fenced_before_recovered(at, work))
            .or_else(|| self.memory_is_not_oversubscribed(at, work))
            .or_else(|| self.the_removed_run_nothing(at, work))
            .or_else(|| self.who_is_on_trial_has_nothing(at, work))
            .or_else(|| self.the_stopped_stay_stopped(at, work));
        self.breaks(breach);
    }

    /// Whoever has left and powered itself off, as its cluster agreed, is not fenced by it; it may be woken.
    fn no_fencing_of_who_left(&self, at: usize, work: &Work) -> Option<String> {
        let Work::OutletsOff { slot, .. } = work else { return None };
        let (_, (generation, _)) = self.position(at)?;
        let fenced = self.seat(at, *slot)?;
        let left = self.machines.get(fenced)?.left?;
        let wakes = self.status(at)?.nodes.get(usize::from(slot.0)).is_some_and(|node| node.state == "waking");
        (Some(left) == generation && !wakes)
            .then(|| format!("no fencing of a planned power-down: {} fences {}", self.name(at), self.name(fenced)))
    }

    /// A machine powers itself off: whether its cluster had agreed.
    pub(super) fn note_power_off(&mut self, at: usize) {
        let slot = usize::from(self.slot(at).0);
        let agreed = self.status(at).and_then(|status| status.nodes.get(slot).map(|node| node.state == "off"));
        let generation = self.position(at).and_then(|(_, (generation, _))| generation);
        self.machine(at).left = generation.filter(|_| agreed == Some(true));
    }

    /// No node switches its own outlets.
    fn nobody_fences_itself(&self, at: usize, work: &Work) -> Option<String> {
        let Work::OutletsOff { slot, .. } = work else { return None };
        (self.seat(at, *slot) == Some(at)).then(|| format!("nobody fences itself: {}", self.name(at)))
    }

    /// Nobody begins anything for the cluster unless a moment ago somebody could talk with it and with a majority.
    fn nothing_starts_inquorate(&self, at: usize, work: &Work) -> Option<String> {
        if matches!(work, Work::Shutdown { .. } | Work::Suspend { .. } | Work::Destroy { .. } | Work::CutLoad { .. }) {
            return None;
        }
        let (_, (generation, _)) = self.position(at)?;
        let Some(generation) = generation else {
            return Some(format!("nothing starts inquorate: {} of no generation began {work:?}", self.name(at)));
        };
        let recent = |other: &usize| {
            let seen = self.history.seen_in.get(&(generation, *other));
            seen.is_some_and(|seen| self.now.since(*seen) < BELIEF)
        };
        let there: Vec<usize> = (0..self.size()).filter(|other| *other == at || recent(other)).collect();
        let config = self.edition(at);
        // Who was added votes from the joint change on, a moment after the others go by the new edition.
        let voters = self.machines.get(at)?.node.as_ref()?.voters();
        let majority = config.votes(voters.iter().copied()) / 2 + 1;
        let votes = |other: &usize| {
            let slot = config.named(self.name(*other));
            config.votes(slot.filter(|slot| voters.contains(slot)).into_iter())
        };
        let friends = |leader: usize| there.iter().filter(move |other| self.linked(leader, **other)).map(votes).sum();
        let best = there.iter().filter(|leader| self.linked(at, **leader)).map(|leader| friends(*leader)).max();
        let best: usize = best.unwrap_or(0);
        (best < majority)
            .then(|| format!("nothing starts inquorate: {} with {best} votes began {work:?}", self.name(at)))
    }

    /// Whether two machines could talk a moment ago.
    fn linked(&self, one: usize, other: usize) -> bool {
        let pair = one * self.size() + other;
        let last = self.history.linked.get(pair).copied().unwrap_or(Instant::ZERO);
        one == other || self.are_linked(one, other) || self.now.since(last) < BELIEF
    }

    fn are_linked(&self, one: usize, other: usize) -> bool {
        let runs = |at: usize| self.machines.get(at).is_some_and(|machine| machine.node.is_some());
        runs(one) && runs(other) && self.reaches(one, other) && self.reaches(other, one)
    }

    /// Before links change: takes note of those that are.
    pub(super) fn note_links(&mut self) {
        let (size, now) = (self.size(), self.now);
        for pair in 0..size * size {
            if self.are_linked(pair / size, pair % size)
                && let Some(last) = self.history.linked.get_mut(pair)
            {
                *last = now;
            }
        }
    }

    /// Whoever was DC does not act any more when another has long been.
    fn one_dc_acts(&self, at: usize, work: &Work) -> Option<String> {
        if !matches!(work, Work::OutletsOff { path: Path::Snmp, .. } | Work::OutletsOn { path: Path::Snmp, .. }) {
            return None;
        }
        let (life, (generation, _)) = self.position(at)?;
        let (dc, dc_life, since) = self.history.dcs.get(&generation?)?;
        let other = (*dc, *dc_life) != (at, life) && self.now.since(*since) > BELIEF;
        other.then(|| format!("one DC a view acts: {} does, and {} is DC", self.name(at), self.name(*dc)))
    }

    /// Within a generation of the cluster, nothing older is begun for a VM after something newer. The same is begun
    /// again only by the boot that began it: its supervisor died in the middle. A boot that is barred may not know yet: the
    /// storage refuses what it begins.
    fn generations_never_fall(&mut self, at: usize, work: &Work) -> Option<String> {
        let (Work::Create { vm, claim, .. } | Work::Receive { vm, claim, .. }) = work else { return None };
        let (_, (cluster, _)) = self.position(at)?;
        let new = (claim.generation.0, Some(self.machine(at).incarnation));
        if new.1.is_some_and(|incarnation| self.barred.contains(&incarnation)) {
            return None;
        }
        let last = self.history.begun.entry((cluster?, vm.clone())).or_default();
        let fell = new.0 < last.0 || (new.0 == last.0 && new.1 != last.1);
        let was = core::mem::replace(last, new.max(*last)).0;
        let new = new.0;
        fell.then(|| format!("generations never fall: {} begins {vm} as {new} after {was}", self.name(at)))
    }

    /// A VM is created only when it runs nowhere: the machine that had it has ended that boot, or has ended the VM.
    fn fenced_before_recovered(&self, at: usize, work: &Work) -> Option<String> {
        let Work::Create { vm, .. } = work else { return None };
        let has = |other: &usize| self.machines.get(*other).is_some_and(|machine| self.can_write(machine, vm));
        let other = (0..self.size()).filter(|other| *other != at).find(has)?;
        Some(format!("fenced before recovered: {} creates {vm}, which runs on {}", self.name(at), self.name(other)))
    }

    /// Nothing is begun that Xen has no memory for.
    fn memory_is_not_oversubscribed(&mut self, at: usize, work: &Work) -> Option<String> {
        let (Work::Create { vm, .. } | Work::Receive { vm, .. }) = work else { return None };
        let free = self.free(at);
        (free < super::VM_MEMORY)
            .then(|| format!("memory is never oversubscribed: {} begins {vm} with {free} free", self.name(at)))
    }

    /// A boot ends.
    pub(super) fn note_end(&mut self, at: usize) {
        let incarnation = self.machine(at).incarnation;
        let now = self.now;
        self.history.ended.entry(incarnation).or_insert(now);
        // What else has ended it is none of the rolling restart's doing.
        self.history.restarting.remove(&at);
    }

    /// A machine is about to boot anew because it is its turn: nobody else does, or has not come back yet.
    pub(super) fn note_restart(&mut self, at: usize) {
        let other = self.history.restarting.iter().find(|other| **other != at);
        let breach = other.map(|other| {
            format!("one restarts at a time: {} does, and {} is not back", self.name(at), self.name(*other))
        });
        self.breaks(breach);
    }

    /// It boots anew because it is its turn.
    pub(super) fn is_restarting(&mut self, at: usize) {
        self.history.restarting.insert(at);
    }

    /// A supervisor is asked to leave.
    pub fn note_leave(&mut self, at: usize) {
        let (life, now) = (self.machine(at).life, self.now);
        let entry = self.history.leaving.entry(at).or_insert((life, now));
        if entry.0 != life {
            *entry = (life, now);
        }
    }
}

/// What only canaries do.
impl World {
    /// As if nobody had been in any generation, or reached by anybody, for long; then that machine creates a VM.
    pub fn pretend_alone(&mut self, at: usize) {
        self.history.seen_in.clear();
        self.pretend_begin(at, 1_000);
    }

    /// As if that machine had been in a later view before.
    pub fn pretend_older_view(&mut self, at: usize) {
        let life = self.machine(at).life;
        if let Some((_, _, view)) = self.history.positions.get_mut(at).filter(|(lived, ..)| *lived == life) {
            *view += 1;
        }
    }

    /// As if that machine began to create the first VM, with this generation.
    pub fn pretend_begin(&mut self, at: usize, generation: u64) {
        if let Some(vm) = self.vms.first().cloned() {
            let claim = Claim { epoch: 1, generation: Generation(generation) };
            self.note_begin(at, &Work::Create { vm, claim, resume: false });
        }
    }

    /// As if that machine commanded another off.
    pub fn pretend_to_fence(&mut self, at: usize, other: usize) {
        let slot = self.slot(other);
        self.note_begin(at, &Work::OutletsOff { slot, outlets: Vec::new(), path: Path::Snmp });
    }

    /// As if that machine had left and was off, and another fenced it all the same.
    pub fn pretend_to_have_left(&mut self, at: usize, other: usize) {
        self.machine(at).left = self.position(other).and_then(|(_, (generation, _))| generation);
        self.pretend_to_fence(other, at);
    }

    /// As if it had been one machine's turn to restart, then another's.
    pub fn pretend_to_restart(&mut self, one: usize, other: usize) {
        self.is_restarting(one);
        self.note_restart(other);
    }

    /// As if a machine's Xen ran this domain.
    pub fn pretend_domain(&mut self, at: usize, name: &str) {
        self.machine(at).domains.insert(name.to_owned(), Domain::Running);
        VmName::new(name).iter().for_each(|vm| self.note_running(vm));
    }

    /// As if a machine had long been removed.
    pub fn pretend_removed(&mut self, at: usize) {
        if let Some((_, (Some(generation), _))) = self.position(at) {
            self.history.removed.insert((generation, self.name(at).to_owned()), Instant::ZERO);
        }
    }

    /// As if no test had shown that a machine's outlets feed it.
    pub fn pretend_on_trial(&mut self, at: usize) {
        self.history.on_trial.insert(self.name(at).to_owned());
    }

    /// As if others had gone by another edition of cluster.toml in its next steps.
    pub fn pretend_other_roster(&mut self, at: usize) {
        let roster = self.machines.get(at).and_then(|machine| machine.node.as_ref()?.roster());
        if let (Some((applied, _)), Some((_, (Some(generation), _)))) = (roster, self.position(at)) {
            let steps = (applied + 1..applied + 9).map(|step| ((generation, step), Edition::default()));
            self.history.rosters.extend(steps);
        }
    }

    /// As if a machine said far too much.
    pub fn pretend_to_babble(&mut self, at: usize) {
        (0..=LINES).for_each(|_| self.note_trace(at, &Trace::Quorate));
    }

    /// As if a machine heard a boot of another that ended long ago.
    pub fn pretend_ghost(&mut self, at: usize, other: usize) {
        let incarnation = self.machine(other).incarnation;
        self.history.ended.insert(incarnation, Instant::ZERO);
        self.note_trace(at, &Trace::Heard { node: String::new(), incarnation });
    }
}
