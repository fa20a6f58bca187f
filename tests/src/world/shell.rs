//! The world as a node's shell would see it: datagrams, Xen's toolstack, the power switch.

use std::time::Duration;

use cluster::event::{Action, Actions, Domain, Event, Outcome, StreamId, To, Work};
use cluster::fencing::{Reading, Readings};
use cluster::words::{LinkId, OpId, Slot, VmName};

use super::{Happening, World};

/// How long a domain takes to be built.
const BUILD: Duration = Duration::from_millis(1_500);
/// How long a migration takes up to its hand-over.
const COPY: Duration = Duration::from_millis(3_000);
/// How long the power switch takes to switch and to be read back twice.
const SWITCH: Duration = Duration::from_millis(1_200);
/// How long a source may take to answer a request for a VM.
const PULL: Duration = Duration::from_millis(20);

/// How long a target waits for a source that says nothing.
const GIVE_UP: Duration = Duration::from_secs(15);

/// A target that waits for its source.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    target: usize,
    boot: u64,
    life: u64,
    op: OpId,
    source: usize,
    vm: VmName,
}

/// A migration on its way.
#[derive(Debug, Clone)]
pub(super) struct Migration {
    to: Waiting,
    source_boot: u64,
    source_life: u64,
    source_op: OpId,
}

impl World {
    pub(super) fn carry_out(&mut self, at: usize, actions: Actions) {
        for action in actions {
            match action {
                Action::Send { to, datagram } => self.send(at, to, &datagram),
                Action::Trace(trace) => self.say(at, &trace.to_string()),
                Action::Begin { op, work, .. } => self.begin(at, op, work),
                Action::Refuse { stream, .. } => self.refuse(stream),
                Action::Pet { lease } => {
                    let now = self.now;
                    let machine = self.machine(at);
                    (machine.petted, machine.lease) = (now, lease);
                }
                Action::Answer { id, answer } => drop(self.answers.insert(id, answer)),
                Action::PowerOff => {
                    self.lose(at);
                    self.machine(at).on = false;
                }
            }
        }
    }

    fn send(&mut self, from: usize, to: To, datagram: &[u8]) {
        for at in 0..self.size() {
            let meant = match to {
                To::All => at != from,
                To::Node(slot) => usize::from(slot.0) == at,
            };
            let links: Vec<LinkId> = self.config.links().map(|link| link.id).collect();
            for link in links.into_iter().filter(|_| meant) {
                self.carry(from, at, link, datagram);
            }
        }
    }

    fn carry(&mut self, from: usize, at: usize, link: LinkId, datagram: &[u8]) {
        let cut = self.machine(from).cut.contains(&link) || self.machine(at).cut.contains(&link);
        if cut || self.chance.happens(self.weather.loss) {
            return;
        }
        let changed = self.meddler.and_then(|meddle| meddle(&mut self.chance, datagram));
        let datagram = changed.as_deref().unwrap_or(datagram);
        let copies = if self.chance.happens(self.weather.doubling) { 2 } else { 1 };
        for _ in 0..copies {
            let delay = Duration::from_millis(1 + self.chance.below(self.weather.delay_ms.max(1)));
            self.plan(delay, Happening::Arrive { at, link, datagram: datagram.to_vec() });
        }
    }

    fn begin(&mut self, at: usize, op: OpId, work: Work) {
        self.note_begin(at, &work);
        let machine = self.machine(at);
        let (boot, life) = (machine.boot, machine.life);
        match work {
            Work::Create { vm, resume, .. } => {
                let taken = machine.domains.contains_key(vm.as_str()) || (resume && !self.images.remove(&vm));
                if taken || self.free(at) < super::VM_MEMORY {
                    return self.done(at, life, op, Outcome::Failed("xl create failed".into()));
                }
                self.machine(at).domains.insert(vm.to_string(), Domain::Paused);
                self.plan(BUILD, Happening::Built { at, boot, life, op, vm });
            }
            Work::Receive { vm, claim, from } => {
                let generation = claim.generation;
                let source = usize::from(from.0);
                let stream = self.order;
                let waiting = Waiting { target: at, boot, life, op, source, vm: vm.clone() };
                let by = Slot(u8::try_from(at).unwrap_or(u8::MAX));
                let source_life = self.machine(source).life;
                let reachable = self.machine(source).node.is_some() && !self.is_cut(source) && !self.is_cut(at);
                if !reachable {
                    return self.done(at, life, op, Outcome::Failed("the source does not answer".into()));
                }
                self.pulls.insert(stream, waiting);
                let event = Event::Pulled { stream: StreamId(stream), vm, generation, by };
                self.plan(GIVE_UP, Happening::GiveUp { stream: StreamId(stream) });
                self.plan(PULL, Happening::Tell { at: source, life: source_life, event });
            }
            Work::Push { stream, .. } => self.push(at, op, stream),
            Work::Suspend { vm } => {
                machine.domains.remove(vm.as_str());
                self.images.insert(vm);
                self.done(at, life, op, Outcome::Succeeded);
            }
            Work::Reserve => {
                self.epochs += 1;
                self.done(at, life, op, Outcome::Reserved(self.epochs));
            }
            Work::Bar { incarnation, .. } => {
                self.barred.insert(incarnation);
                self.done(at, life, op, Outcome::Barred(incarnation));
            }
            Work::Shutdown { vm } => {
                machine.domains.remove(vm.as_str());
                self.done(at, life, op, Outcome::Succeeded);
            }
            Work::Destroy { domain } => {
                machine.domains.remove(&domain);
                self.done(at, life, op, Outcome::Succeeded);
            }
            Work::OutletsOff { .. } | Work::OutletsOn { .. } => {
                self.plan(SWITCH, Happening::Switch { at, life, op, work });
            }
        }
    }

    pub(super) fn refuse(&mut self, stream: StreamId) {
        if let Some(waiting) = self.pulls.remove(&stream.0) {
            self.done(waiting.target, waiting.life, waiting.op, Outcome::Failed("refused".into()));
        }
    }

    pub(super) fn built(&mut self, (at, boot, life): (usize, u64, u64), op: OpId, vm: &VmName) {
        let machine = self.machine(at);
        if machine.boot != boot {
            return;
        }
        match machine.domains.get_mut(vm.as_str()) {
            Some(domain) => {
                *domain = Domain::Running;
                self.done(at, life, op, Outcome::Succeeded);
            }
            None => self.done(at, life, op, Outcome::Failed("the domain was destroyed".into())),
        }
    }

    fn push(&mut self, source: usize, op: OpId, stream: StreamId) {
        let (source_boot, source_life) = (self.machine(source).boot, self.machine(source).life);
        let Some(to) = self.pulls.remove(&stream.0) else {
            return self.done(source, source_life, op, Outcome::Failed("the stream is gone".into()));
        };
        if self.free(to.target) < super::VM_MEMORY || self.machine(to.target).boot != to.boot {
            self.done(to.target, to.life, to.op, Outcome::Failed("no memory".into()));
            return self.done(source, source_life, op, Outcome::Failed("the target refused".into()));
        }
        self.machine(to.target).domains.insert(format!("{}--incoming", to.vm), Domain::Paused);
        self.plan(COPY, Happening::HandOver(Migration { to, source_boot, source_life, source_op: op }));
    }

    /// xl's own hand-over. At most one side runs, whatever is lost; sometimes the source is left paused for good.
    pub(super) fn hand_over(&mut self, migration: &Migration) {
        let Migration { to, source_boot, source_life, source_op } = migration;
        let vm = to.vm.to_string();
        let incoming = format!("{vm}--incoming");
        let source_there = self.machine(to.source).boot == *source_boot
            && self.machine(to.source).domains.get(&vm) == Some(&Domain::Running);
        let target_there =
            self.machine(to.target).boot == to.boot && self.machine(to.target).domains.contains_key(&incoming);
        let cut = self.is_cut(to.source) || self.is_cut(to.target);
        let fault = self.chance.happens(self.migration_faults).then(|| self.chance.below(3));
        if target_there {
            self.machine(to.target).domains.remove(&incoming);
        }
        let moved = source_there && target_there && !cut && matches!(fault, None | Some(0));
        if source_there {
            match fault {
                // The answer was lost after permission was given: this side must not run again.
                Some(0 | 1) if target_there && !cut => {
                    self.machine(to.source).domains.insert(vm.clone(), Domain::Paused);
                }
                _ if moved => {
                    self.machine(to.source).domains.remove(&vm);
                }
                _ => {}
            }
        }
        if moved {
            self.machine(to.target).domains.insert(vm, Domain::Running);
        }
        let outcome = |good: bool| if good { Outcome::Succeeded } else { Outcome::Failed("the stream was cut".into()) };
        self.done(to.target, to.life, to.op, outcome(moved));
        self.done(to.source, *source_life, *source_op, outcome(moved && fault.is_none()));
    }

    pub(super) fn switch(&mut self, at: usize, life: u64, op: OpId, work: Work) {
        let (slot, outlets, on) = match work {
            Work::OutletsOff { slot, outlets, .. } => (slot, outlets, false),
            Work::OutletsOn { slot, outlets, .. } => (slot, outlets, true),
            Work::Create { .. }
            | Work::Receive { .. }
            | Work::Push { .. }
            | Work::Suspend { .. }
            | Work::Reserve
            | Work::Bar { .. }
            | Work::Shutdown { .. }
            | Work::Destroy { .. } => return,
        };
        if self.power_faults.unreachable || self.is_cut(at) {
            return self.done(at, life, op, Outcome::Failed("pdu1 does not answer".into()));
        }
        let fed = usize::from(slot.0);
        match on {
            true => self.power_on(fed),
            false if self.power_faults.lies => {}
            false => {
                self.say(fed, "[outlet off]");
                self.power_off(fed);
            }
        }
        let reading = if on { Reading::On } else { Reading::Off };
        let readings: Readings = outlets.into_iter().map(|outlet| (outlet, reading.clone())).collect();
        self.done(at, life, op, Outcome::Read(readings));
    }
}
