//! The world as a node's shell would see it: every action carried out, and Xen's toolstack.

use std::time::Duration;

use cluster::event::{Action, Actions, Domain, Event, Outcome, StreamId, Work};
use cluster::words::{Instant, VmName};

use super::power::Switching;
use super::{Caller, Happening, World};

/// How long a domain takes to be built.
const BUILD: Duration = Duration::from_millis(1_500);
/// How long a guest takes to shut down.
const SHUTDOWN: Duration = Duration::from_millis(2_000);
/// How long a domain takes to be destroyed.
const DESTROY: Duration = Duration::from_millis(300);
/// How often it is looked whether something that hangs still does.
const HANGS: Duration = Duration::from_secs(1);
/// How long a VM's memory takes to be saved to the shared disk.
const SAVE: Duration = Duration::from_millis(2_500);
/// How long a migration takes up to its hand-over.
const COPY: Duration = Duration::from_millis(3_000);
/// How long a source may take to answer a request for a VM.
const PULL: Duration = Duration::from_millis(20);
/// How long a target waits for a source that says nothing.
const GIVE_UP: Duration = Duration::from_secs(15);

/// A target that waits for its source.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    target: Caller,
    vm: VmName,
    until: Instant,
}

/// A migration on its way.
#[derive(Debug, Clone)]
pub(super) struct Migration {
    to: Waiting,
    source: Caller,
    until: Instant,
    /// It is ended before its hand-over.
    late: bool,
}

fn failed(reason: &str) -> Outcome {
    Outcome::Failed(reason.to_owned())
}

impl World {
    pub(super) fn carry_out(&mut self, at: usize, actions: Actions) {
        let life = self.machine(at).life;
        self.note_turn(at, &actions);
        for action in actions {
            if self.machine(at).life != life || !self.survives(at) {
                return;
            }
            match action {
                Action::Send { to, datagram } => self.send(at, to, &datagram),
                Action::Trace(trace) => {
                    self.note_trace(at, &trace);
                    self.say(at, &trace.to_string());
                }
                Action::Begin { op, work, deadline } => {
                    let machine = self.machine(at);
                    let (boot, until) = (machine.boot, machine.clock.when(deadline));
                    self.begin(Caller { at, boot, life, op }, work, until);
                }
                Action::Refuse { stream, .. } => self.refuse(stream),
                Action::Pet { lease } => {
                    let now = self.now;
                    let machine = self.machine(at);
                    (machine.petted, machine.lease) = (now, lease);
                }
                Action::Answer { id, answer } => drop(self.answers.insert(id, answer)),
                Action::Configured { text, .. } => self.configured(at, &text),
                Action::AskForKey => self.ask_for_key(at),
                Action::Keys { seal, least } => self.keys(at, seal, least),
                Action::PowerOff => {
                    self.note_power_off(at);
                    self.lose(at);
                    self.machine(at).on = false;
                }
                Action::Restart => {
                    self.note_restart(at);
                    self.reset(at);
                    self.is_restarting(at);
                }
            }
        }
    }

    fn begin(&mut self, caller: Caller, work: Work, until: Instant) {
        let at = caller.at;
        self.note_begin(at, &work);
        match work {
            Work::Create { vm, resume, claim } => {
                if let Err(reason) = self.claim(at, &vm, claim, true) {
                    return self.done(caller, Outcome::Failed(reason));
                }
                self.create(caller, vm, resume, until);
            }
            Work::Receive { vm, from, claim } => {
                let by = self.slot(at);
                let Some(source) = self.seat(at, from) else {
                    return self.done(caller, failed("there is no such node"));
                };
                if let Err(reason) = self.claim(at, &vm, claim, false) {
                    return self.done(caller, Outcome::Failed(reason));
                }
                if self.machine(source).node.is_none() || !self.talk(source, at) {
                    return self.done(caller, failed("the source does not answer"));
                }
                let stream = self.order;
                self.pulls.insert(stream, Waiting { target: caller, vm: vm.clone(), until });
                let life = self.machine(source).life;
                let event = Event::Pulled { stream: StreamId(stream), vm, generation: claim.generation, by };
                self.plan(GIVE_UP, Happening::GiveUp { stream: StreamId(stream) });
                self.plan(PULL, Happening::Tell { at: source, life, event });
            }
            Work::Push { stream, .. } => self.push(caller, stream, until),
            Work::Suspend { vm } => {
                let (when, late) = self.ends(at, SAVE, until);
                self.plan_at(when, Happening::Saved { caller, vm, late });
            }
            Work::Reserve => {
                let outcome = self.reserve(at).map_or_else(Outcome::Failed, Outcome::Reserved);
                self.done(caller, outcome);
            }
            Work::CutLoad { ups } => self.cut_load(caller, ups),
            Work::Keep(decisions) => self.keep_decisions(caller, decisions),
            Work::Lockspace(order) => self.order_kernel(caller, order, until),
            Work::Bar { incarnation, .. } => {
                self.bar(incarnation);
                self.done(caller, Outcome::Barred(incarnation));
            }
            Work::Shutdown { vm } => {
                let (when, late) = self.ends(at, SHUTDOWN, until);
                self.plan_at(when, Happening::ShutDown { caller, vm, until, late });
            }
            Work::Destroy { domain } => {
                let (when, late) = self.ends(at, DESTROY, until);
                self.plan_at(when, Happening::Destroyed { caller, domain, late });
            }
            Work::OutletsOff { slot, outlets, path } => {
                self.command_outlets(caller, Switching { slot, outlets, path, on: false, until });
            }
            Work::OutletsOn { slot, outlets, path } => {
                self.command_outlets(caller, Switching { slot, outlets, path, on: true, until });
            }
        }
    }

    /// When something ends that needs the machine's disks, and whether it is ended before by its deadline.
    fn ends(&mut self, at: usize, takes: Duration, until: Instant) -> (Instant, bool) {
        let now = self.now;
        let when = self.machine(at).disks_stalled_until.max(now) + takes;
        if when <= until { (when, false) } else { (until, true) }
    }

    fn create(&mut self, caller: Caller, vm: VmName, resume: bool, until: Instant) {
        let at = caller.at;
        if self.machine(at).domains.contains_key(vm.as_str()) || self.free(at) < super::VM_MEMORY {
            return self.done(caller, failed("xl create failed"));
        }
        if resume && !self.images.remove(&vm) {
            return self.done(caller, failed("xl restore failed: there is no image"));
        }
        self.machine(at).domains.insert(vm.to_string(), Domain::Paused);
        let (when, late) = self.ends(at, BUILD, until);
        self.plan_at(when, Happening::Built { caller, vm, late });
    }

    pub(super) fn refuse(&mut self, stream: StreamId) {
        if let Some(waiting) = self.pulls.remove(&stream.0) {
            self.done(waiting.target, failed("refused"));
        }
    }

    /// A builder that is ended leaves its domain behind.
    pub(super) fn built(&mut self, caller: Caller, vm: &VmName, late: bool) {
        let machine = self.machine(caller.at);
        if machine.boot != caller.boot {
            return;
        }
        match machine.domains.get_mut(vm.as_str()) {
            Some(_) if late => self.done(caller, failed("not in time")),
            Some(domain) => {
                *domain = Domain::Running;
                self.note_running(vm);
                self.done(caller, Outcome::Succeeded);
            }
            None => self.done(caller, failed("the domain was destroyed")),
        }
    }

    pub(super) fn guest_shut_down(&mut self, caller: Caller, vm: VmName, until: Instant, late: bool) {
        if late {
            return self.done(caller, failed("not in time"));
        }
        if self.hung.contains(&vm) {
            let (when, late) = self.ends(caller.at, HANGS, until);
            return self.plan_at(when, Happening::ShutDown { caller, vm, until, late });
        }
        self.destroyed(caller, vm.as_str(), false);
    }

    /// A VM is saved, or its saver is ended; then it runs on.
    pub(super) fn saved(&mut self, caller: Caller, vm: VmName, late: bool) {
        if late || !self.storage_answers(caller.at) {
            return self.done(caller, failed("the storage does not answer"));
        }
        let machine = self.machine(caller.at);
        if machine.boot == caller.boot && machine.domains.remove(vm.as_str()) == Some(Domain::Running) {
            self.images.insert(vm);
            self.done(caller, Outcome::Succeeded);
        } else {
            self.done(caller, failed("there is no such domain"));
        }
    }

    /// A domain is gone, or its destroyer is ended: a domain goes only when its disks have answered.
    pub(super) fn destroyed(&mut self, caller: Caller, domain: &str, late: bool) {
        if late {
            return self.done(caller, failed("not in time"));
        }
        let machine = self.machine(caller.at);
        if machine.boot == caller.boot {
            machine.domains.remove(domain);
            self.done(caller, Outcome::Succeeded);
        }
    }

    fn push(&mut self, source: Caller, stream: StreamId, until: Instant) {
        let Some(to) = self.pulls.remove(&stream.0) else {
            return self.done(source, failed("the stream is gone"));
        };
        if self.free(to.target.at) < super::VM_MEMORY || self.machine(to.target.at).boot != to.target.boot {
            self.done(to.target, failed("no memory"));
            return self.done(source, failed("the target refused"));
        }
        self.machine(to.target.at).domains.insert(format!("{}--incoming", to.vm), Domain::Paused);
        let until = until.min(to.until);
        let (when, late) = self.ends(source.at, COPY, until).max(self.ends(to.target.at, COPY, until));
        self.plan_at(when, Happening::HandOver(Migration { to, source, until, late }));
    }

    /// xl's own hand-over. At most one side runs, whatever is lost; sometimes the source is left paused for good.
    pub(super) fn hand_over(&mut self, migration: Migration) {
        let there = self.machine(migration.source.at).boot == migration.source.boot;
        if there && self.hung.contains(&migration.to.vm) && !migration.late {
            let (when, late) = self.ends(migration.source.at, HANGS, migration.until);
            return self.plan_at(when, Happening::HandOver(Migration { late, ..migration }));
        }
        let Migration { to, source, late, .. } = migration;
        let vm = to.vm.to_string();
        let incoming = format!("{vm}--incoming");
        let source_there = self.machine(source.at).boot == source.boot
            && self.machine(source.at).domains.get(&vm) == Some(&Domain::Running);
        let target_there = self.machine(to.target.at).boot == to.target.boot
            && self.machine(to.target.at).domains.contains_key(&incoming);
        let cut = !self.talk(source.at, to.target.at) || late;
        let fault = self.chance.happens(self.migration_faults).then(|| self.chance.below(3));
        if target_there {
            self.machine(to.target.at).domains.remove(&incoming);
        }
        let moved = source_there && target_there && !cut && matches!(fault, None | Some(0));
        if source_there {
            match fault {
                // The answer was lost after permission was given: this side must not run again.
                Some(0 | 1) if target_there && !cut => {
                    self.machine(source.at).domains.insert(vm.clone(), Domain::Paused);
                }
                _ if moved => {
                    self.machine(source.at).domains.remove(&vm);
                }
                _ => {}
            }
        }
        if moved {
            self.machine(to.target.at).domains.insert(vm, Domain::Running);
            self.note_running(&to.vm);
        }
        let outcome = |good: bool| if good { Outcome::Succeeded } else { failed("the stream was cut") };
        self.done(to.target, outcome(moved));
        self.done(source, outcome(moved && fault.is_none()));
    }
}
