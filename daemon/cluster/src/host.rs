//! What this node does for the VMs that the committed state gives it, and what it reports back.
//!
//! Facts come from Xen's own lists, never from the outcome of an operation: [`Host::here`] says what is here of a VM, and
//! says nothing ([`Here::Unsure`]) while an operation works on it or until two lists taken afterwards agree. So a create
//! that was given up but came true, a domain that died, a migration that ended after its deadline, a supervisor that was
//! restarted in the middle: all are seen for what they are, and [`Host::review`] acts on that alone.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use crate::config::{Config, Decisions, FileSystem};
use crate::event::{Action, Actions, Domain, Machine, StreamId, Transfer, VmFile, Work};
use crate::keys::Keys;
use crate::limits;
use crate::ops::{Ops, vm_of, vm_of_domain};
use crate::state::{Command, Ending, Phase, Standing, State, Stop, Vm};
use crate::trace::Trace;
use crate::wire;
use crate::words::{Claim, ClusterGeneration, Generation, Identity, Instant, Mebibytes, Slot, VmName};

/// What a part of the node works with: what it may look at, and where it puts what it wants.
pub(crate) struct Desk<'a> {
    pub(crate) now: Instant,
    pub(crate) me: Identity,
    /// The version of the wire format that is spoken.
    pub(crate) version: u8,
    /// Whether this node keeps the edition of `cluster.toml` that holds.
    pub(crate) kept: bool,
    pub(crate) keys: Keys,
    pub(crate) config: &'a Config,
    pub(crate) state: &'a State,
    pub(crate) ops: &'a mut Ops,
    pub(crate) actions: &'a mut Actions,
    pub(crate) proposals: &'a mut Vec<Command>,
}

impl Desk<'_> {
    pub(crate) fn begin(&mut self, limit: Duration, work: Work) -> crate::words::OpId {
        self.ops.begin(self.now, limit, work, self.actions)
    }

    pub(crate) fn say(&mut self, trace: Trace) {
        self.actions.push(Action::Trace(trace));
    }

    /// By what a VM of that generation claims its disks.
    fn claim(&self, generation: Generation) -> Claim {
        Claim { epoch: self.state.epoch, generation }
    }

    /// Whether claims can be told from older ones; where nothing is exported there are none.
    fn may_claim(&self) -> bool {
        self.state.epoch > 0 || self.config.exports.is_empty()
    }

    pub(crate) fn name(&self, slot: Slot) -> String {
        self.config.node_name(slot)
    }

    /// How long a VM may take to be moved away from a node that leaves.
    pub(crate) fn evacuation(&self, vm: &Vm) -> Duration {
        match vm.spec.evacuation_s {
            0 => self.config.timing.evacuation,
            seconds => Duration::from_secs(seconds.into()),
        }
    }

    /// How long its memory may take to be carried away: one that hangs must not use up the time of the other steps of its contract.
    fn transfer(&self, vm: &Vm) -> Duration {
        let leaves = vm.owner().and_then(|at| self.state.member(at)).is_some_and(|at| at.standing == Standing::Leaving);
        if leaves { limits::MIGRATE.min(self.evacuation(vm)) } else { limits::MIGRATE }
    }
}

/// A list from Xen.
#[derive(Clone, Debug)]
struct List {
    domains: BTreeMap<String, Domain>,
    /// Of each VM its domain: the one that runs, before one that does not.
    vms: BTreeMap<VmName, (String, Domain)>,
}

impl List {
    fn new(domains: BTreeMap<String, Domain>) -> Self {
        let mut vms: BTreeMap<VmName, (String, Domain)> = BTreeMap::new();
        for (name, domain) in &domains {
            let Some(vm) = vm_of_domain(name) else { continue };
            let domain = as_seen(name, &vm, *domain);
            if vms.get(&vm).is_none_or(|(_, other)| rank(domain) < rank(*other)) {
                vms.insert(vm, (name.clone(), domain));
            }
        }
        Self { domains, vms }
    }

    fn of(&self, vm: &VmName) -> Option<(&String, Domain)> {
        self.vms.get(vm).map(|(name, domain)| (name, *domain))
    }
}

/// Why a guest is ended without asking it.
const NOT_IN_TIME: &str = "it did not shut down in time";

/// What is here of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Here {
    Running,
    /// A domain that is paused, and that nobody works on.
    Stuck,
    Gone,
    Unsure,
}

/// Another node waits for a VM.
#[derive(Clone, Debug)]
struct Pull {
    stream: StreamId,
    vm: VmName,
    generation: Generation,
    by: Slot,
    since: Instant,
}

/// This node as a host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Host {
    /// The last two lists, the newer first.
    lists: Option<(List, List)>,
    count: u64,
    free: Option<Mebibytes>,
    files: Vec<VmFile>,
    /// What the operator has decided, as the shared file system has it; `None` until it was read.
    decisions: Option<Decisions>,
    keep_again: Instant,
    /// The count of lists when an operation on the VM began or ended last.
    touched: BTreeMap<VmName, u64>,
    /// The generation for which a VM was created or received last.
    tried: BTreeMap<VmName, Generation>,
    /// VMs that were told to shut down without the cluster's word: there was none in time.
    shut: BTreeSet<VmName>,
    /// In which generation and in what way a VM was told to end last, and whether its memory was saved.
    told: BTreeMap<VmName, (Generation, Stop, bool)>,
    machine: Option<Machine>,
    /// The epoch that the storage here has reserved, and for which generation of the cluster.
    reserved: Option<(ClusterGeneration, u64)>,
    reserve_again: Instant,
    pulls: Vec<Pull>,
}

impl Host {
    /// A new list from Xen.
    pub(crate) fn seen(&mut self, domains: BTreeMap<String, Domain>, free: Mebibytes) {
        let list = List::new(domains);
        let older = self.lists.take().map_or_else(|| list.clone(), |(newer, _)| newer);
        self.lists = Some((list, older));
        self.count += 1;
        self.free = Some(free);
    }

    /// What was read of the shared file system.
    pub(crate) fn read(&mut self, files: Vec<VmFile>, decisions: Decisions) {
        self.files = files;
        self.decisions = Some(decisions);
    }

    /// What this machine is.
    pub(crate) fn described(&mut self, machine: Machine) {
        self.machine = Some(machine);
    }

    /// What Xen could still give; `None` until it was asked.
    pub(crate) fn free(&self) -> Option<Mebibytes> {
        self.free
    }

    /// Every domain's name.
    pub(crate) fn domains(&self) -> impl Iterator<Item = &String> {
        self.lists.iter().flat_map(|(newer, _)| newer.domains.keys())
    }

    /// The VMs of which there is a domain, and whether it runs.
    pub(crate) fn vms(&self) -> Vec<(VmName, bool)> {
        let list = self.lists.iter().flat_map(|(newer, _)| &newer.vms);
        list.map(|(vm, (_, domain))| (vm.clone(), *domain == Domain::Running)).collect()
    }

    /// An operation on a VM has ended.
    pub(crate) fn ended(&mut self, work: &Work, well: bool) {
        if let Work::Suspend { vm } = work
            && let Some((_, _, saved)) = self.told.get_mut(vm)
        {
            *saved = well;
        }
        if let Work::Keep(decisions) = work
            && well
        {
            self.decisions = Some(decisions.clone());
        }
        if let Some(vm) = vm_of(work) {
            self.touched.insert(vm.into_owned(), self.count);
        }
    }

    /// Another node asks for a VM. It is answered by [`Host::answer`].
    pub(crate) fn pulled(
        &mut self,
        now: Instant,
        (stream, vm, generation, by): (StreamId, VmName, Generation, Slot),
        actions: &mut Actions,
    ) {
        if self.pulls.len() < limits::WAITING_PULLS {
            self.pulls.push(Pull { stream, vm, generation, by, since: now });
        } else {
            actions.push(Action::Refuse { stream, reason: "too many requests are waiting".to_owned() });
        }
    }

    /// Drops every waiting request: this node no longer belongs to what they were committed in.
    pub(crate) fn refuse_all(&mut self, actions: &mut Actions) {
        let refuse = |pull: Pull| Action::Refuse { stream: pull.stream, reason: "not a member".to_owned() };
        actions.extend(self.pulls.drain(..).map(refuse));
    }

    fn here(&self, vm: &VmName, ops: &Ops) -> Here {
        let Some((newer, older)) = &self.lists else {
            return Here::Unsure;
        };
        let since = self.touched.get(vm).copied().unwrap_or(0);
        if ops.touch(vm) || self.count < since + u64::from(limits::MISSED_LISTS) {
            return Here::Unsure;
        }
        match (newer.of(vm), older.of(vm)) {
            (Some((_, Domain::Running)), _) => Here::Running,
            (Some((_, Domain::Paused)), Some((_, Domain::Paused))) => Here::Stuck,
            (None, None) => Here::Gone,
            _ => Here::Unsure,
        }
    }

    /// As the storage: has an epoch reserved for a new generation of the cluster, and tells of the one that was.
    pub(crate) fn reserve(&mut self, desk: &mut Desk<'_>) {
        if desk.state.epoch > 0 || desk.config.exports.is_empty() {
            return;
        }
        match self.reserved {
            Some((generation, epoch)) if generation == desk.state.generation => {
                desk.proposals.push(Command::Epoch(epoch));
            }
            _ if desk.now >= self.reserve_again && !desk.ops.reserve() => {
                self.reserve_again = desk.now + limits::RETRY;
                desk.begin(limits::DESTROY, Work::Reserve);
            }
            _ => {}
        }
    }

    /// The storage has reserved an epoch while this generation of the cluster lived.
    pub(crate) fn reserved(&mut self, generation: ClusterGeneration, epoch: u64) {
        self.reserved = Some((generation, epoch));
    }

    /// Acts on every VM that concerns this node. Called when quorate, and a member, only.
    pub(crate) fn review(&mut self, desk: &mut Desk<'_>) {
        self.define(desk);
        self.keep(desk);
        let known = desk.state.member(desk.me).and_then(|member| member.machine.as_ref());
        if let Some(machine) = self.machine.as_ref().filter(|machine| known != Some(machine)) {
            desk.proposals.push(Command::Machine(desk.me, machine.clone()));
        }
        let state = desk.state;
        for (name, vm) in &state.vms {
            self.review_vm(desk, name, vm);
        }
        self.answer(desk);
    }

    /// Tells what was read of the VMs; but first what the operator had decided of them.
    fn define(&self, desk: &mut Desk<'_>) {
        let Some(decisions) = &self.decisions else { return };
        if desk.state.recalled.is_none() && desk.version >= wire::DECISIONS {
            return desk.proposals.push(Command::Recall(decisions.clone()));
        }
        let differs = |file: &&VmFile| {
            let record = desk.state.vms.get(&file.name);
            record.is_none_or(|vm| vm.memory != file.memory || vm.spec != file.spec)
        };
        let news: Vec<VmFile> = self.files.iter().filter(differs).take(limits::DEFINED_AT_ONCE).cloned().collect();
        if !news.is_empty() {
            desk.proposals.push(Command::Define(news));
        }
    }

    /// Has the shared file system keep what the operator has decided, if that is this node's to do.
    fn keep(&mut self, desk: &mut Desk<'_>) {
        let mine = desk.config.shared == FileSystem::Gfs2 && desk.state.keeper() == Some(desk.me.slot);
        if !mine || desk.state.recalled.is_none() || desk.ops.keep() || desk.now < self.keep_again {
            return;
        }
        let decisions = desk.state.decisions(desk.config);
        if self.decisions.as_ref().is_some_and(|kept| *kept != decisions) {
            self.keep_again = desk.now + limits::RETRY;
            desk.begin(limits::KEEP, Work::Keep(decisions));
        }
    }

    fn review_vm(&mut self, desk: &mut Desk<'_>, name: &VmName, vm: &Vm) {
        let generation = vm.generation;
        let tried = self.tried.get(name) == Some(&generation);
        let mine = |at: Identity| at == desk.me;
        match (vm.phase.clone(), self.here(name, desk.ops)) {
            (_, Here::Unsure) => {}
            (Phase::Starting(at), Here::Running) if mine(at) => {
                desk.proposals.push(Command::Started(name.clone(), generation));
            }
            // The storage must have said first from where claims count.
            (Phase::Starting(_) | Phase::Moving { .. }, Here::Gone) if !tried && !desk.may_claim() => {}
            (Phase::Starting(at), Here::Gone) if mine(at) && tried => {
                desk.proposals.push(Command::Ended(name.clone(), generation, Ending::NotStarted));
            }
            (Phase::Starting(at), Here::Gone) if mine(at) && vm.wanted => self.create(desk, name, vm),
            // Stopped before it was started, or in the middle of it, if the supervisor died then.
            (Phase::Starting(at), Here::Gone) if mine(at) => {
                desk.proposals.push(Command::Ended(name.clone(), generation, Ending::ShutDown));
            }
            (Phase::Running(at), Here::Running) if mine(at) => {}
            (Phase::Running(at), Here::Gone) if mine(at) => {
                let ending = if self.shut.contains(name) { Ending::ShutDown } else { Ending::Died };
                desk.proposals.push(Command::Ended(name.clone(), generation, ending));
            }
            (Phase::Moving { from, .. }, _) if mine(from) => {}
            (Phase::Moving { to, .. } | Phase::Landing(to), Here::Running) if mine(to) => {
                desk.proposals.push(Command::Migrated(name.clone(), generation));
            }
            (Phase::Moving { from, to, .. }, Here::Gone) if mine(to) && !tried => {
                self.receive(desk, name, vm, from.slot);
            }
            (Phase::Moving { to, .. }, Here::Gone) if mine(to) => {
                desk.proposals.push(Command::Stays(name.clone(), generation));
            }
            (Phase::Landing(at), Here::Gone) if mine(at) => {
                desk.proposals.push(Command::Ended(name.clone(), generation, Ending::Died));
            }
            (Phase::Stopping(at, stop), Here::Running) if mine(at) => self.stop(desk, name, vm, stop),
            (Phase::Stopping(at, stop), Here::Gone) if mine(at) => {
                let saved = self.told.get(name) == Some(&(generation, Stop::Suspend, true));
                let ending = if stop == Stop::Suspend && saved { Ending::Suspended } else { Ending::ShutDown };
                desk.proposals.push(Command::Ended(name.clone(), generation, ending));
            }
            (Phase::Stopped | Phase::Failed, Here::Running) => {
                desk.proposals.push(Command::Adopt(name.clone(), desk.me));
            }
            (_, Here::Gone) => {}
            // What is left: a domain that nobody works on and that is paused, or that is another node's by record.
            (_, Here::Stuck) => self.destroy(desk, name, "it is paused, and nobody works on it"),
            (_, Here::Running) => self.destroy(desk, name, "it is not this node's"),
        }
    }

    fn create(&mut self, desk: &mut Desk<'_>, vm: &VmName, record: &Vm) {
        let (generation, resume) = (record.generation, record.image);
        self.begun(vm, generation);
        desk.say(if resume {
            Trace::Resuming { vm: vm.clone(), generation }
        } else {
            Trace::Creating { vm: vm.clone(), generation }
        });
        desk.begin(limits::CREATE, Work::Create { vm: vm.clone(), claim: desk.claim(generation), resume });
    }

    /// Ends a VM as the cluster wants: at first as a guest wishes, then without asking it.
    fn stop(&mut self, desk: &mut Desk<'_>, vm: &VmName, record: &Vm, stop: Stop) {
        let generation = record.generation;
        let told = self.told.get(vm).is_some_and(|(other, way, _)| (*other, *way) == (generation, stop));
        match (stop, told) {
            (Stop::Suspend, true) => desk.proposals.push(Command::NotStopped(vm.clone(), generation)),
            (Stop::ShutDown, true) => self.destroy(desk, vm, NOT_IN_TIME),
            (_, false) => {
                self.told.insert(vm.clone(), (generation, stop, false));
                // Its memory is carried to a disk as it is to another node.
                let (limit, work) = match stop {
                    Stop::Suspend => (desk.transfer(record), Work::Suspend { vm: vm.clone() }),
                    Stop::ShutDown => (limits::SHUTDOWN, Work::Shutdown { vm: vm.clone() }),
                };
                desk.begin(limit, work);
            }
        }
    }

    fn receive(&mut self, desk: &mut Desk<'_>, vm: &VmName, record: &Vm, from: Slot) {
        let (generation, limit) = (record.generation, desk.transfer(record));
        self.begun(vm, generation);
        desk.say(Trace::Pulling { vm: vm.clone(), from: desk.name(from) });
        desk.begin(limit, Work::Receive { vm: vm.clone(), claim: desk.claim(generation), from });
    }

    fn begun(&mut self, vm: &VmName, generation: Generation) {
        self.tried.insert(vm.clone(), generation);
        self.shut.remove(vm);
    }

    fn destroy(&mut self, desk: &mut Desk<'_>, vm: &VmName, reason: &'static str) {
        let found = self.lists.as_ref().and_then(|(newer, _)| newer.of(vm));
        let Some((domain, _)) = found else { return };
        desk.say(Trace::Destroying { domain: domain.clone(), reason });
        desk.begin(limits::DESTROY, Work::Destroy { domain: domain.clone() });
    }

    /// Answers those who wait for a VM, as far as the committed state says what to answer.
    fn answer(&mut self, desk: &mut Desk<'_>) {
        for pull in core::mem::take(&mut self.pulls) {
            let record = desk.state.vms.get(&pull.vm);
            let ready = record.and_then(|vm| handed_over(vm, desk.me, &pull));
            let overtaken = record.is_none_or(|vm| vm.generation > pull.generation);
            if let Some((transfer, vm)) = ready.zip(record).filter(|_| self.here(&pull.vm, desk.ops) == Here::Running) {
                desk.say(Trace::Pushing { vm: pull.vm.clone(), to: desk.name(pull.by) });
                desk.begin(desk.transfer(vm), Work::Push { vm: pull.vm, stream: pull.stream, transfer });
            } else if overtaken || desk.now.since(pull.since) > limits::PULL_PATIENCE {
                let reason = "no such migration is committed".to_owned();
                desk.actions.push(Action::Refuse { stream: pull.stream, reason });
            } else {
                self.pulls.push(pull);
            }
        }
    }

    /// Shuts down what still runs here: it could not be moved in time, or there is nobody to move it.
    pub(crate) fn shut_down(&mut self, now: Instant, node: &str, ops: &mut Ops, actions: &mut Actions) {
        for (vm, running) in self.vms() {
            // As everywhere, two lists must have come since the last attempt.
            let touched = self.touched.get(&vm).is_some_and(|at| self.count < at + u64::from(limits::MISSED_LISTS));
            if touched || ops.touch(&vm) {
                continue;
            }
            let work = if running && self.shut.insert(vm.clone()) {
                actions.push(Action::Trace(Trace::ShuttingDown { vm: vm.clone(), node: node.to_owned() }));
                Work::Shutdown { vm }
            } else {
                let found = self.lists.as_ref().and_then(|(newer, _)| newer.of(&vm));
                let Some((domain, _)) = found else { continue };
                actions.push(Action::Trace(Trace::Destroying { domain: domain.clone(), reason: NOT_IN_TIME }));
                Work::Destroy { domain: domain.clone() }
            };
            ops.begin(now, limits::CREATE, work, actions);
        }
    }

    /// Whether Xen was asked and runs nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.lists.as_ref().is_some_and(|(newer, older)| newer.domains.is_empty() && older.domains.is_empty())
    }
}

/// How the committed state wants a VM handed over to whoever asks for it, if it does.
fn handed_over(vm: &Vm, me: Identity, pull: &Pull) -> Option<Transfer> {
    match vm.phase {
        Phase::Moving { from, to, transfer } => {
            let meant = from == me && to.slot == pull.by && vm.generation == pull.generation;
            meant.then_some(transfer)
        }
        Phase::Stopped
        | Phase::Starting(_)
        | Phase::Running(_)
        | Phase::Landing(_)
        | Phase::Stopping(..)
        | Phase::Failed => None,
    }
}

/// Only the domain that bears the VM's own name can be said to run it.
fn as_seen(name: &str, vm: &VmName, domain: Domain) -> Domain {
    if name != vm.as_str() && domain == Domain::Running { Domain::Paused } else { domain }
}

fn rank(domain: Domain) -> u8 {
    match domain {
        Domain::Running => 0,
        Domain::Paused => 1,
        Domain::Dying => 2,
    }
}
