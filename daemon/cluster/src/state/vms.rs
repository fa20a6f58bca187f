//! What concerns VMs: one owner, one phase, one generation.
//!
//! ```text
//!            Assign          Started             Migrate          Migrated
//!  Stopped ---------> Starting -----> Running <----------> Moving ---------> Running (at the target)
//!     ^                  | Ended        |  ^     Stays        |
//!     +------------------+              |  | NotStopped       | the source is proven off
//!     ^                         Stop    v  |                  v
//!     +------------ Ended ------------ Stopping            Landing --Migrated--> Running (at the target)
//!     +------------ Ended --------------------------------- |
//! ```
//! `Proven` of the owner turns every phase but `Moving` into `Stopped`. What died or failed too often becomes `Failed`.

use super::{Ending, Phase, Standing, State, Stop, Vm, name};
use crate::config::Config;
use crate::event::{Transfer, VmFile};
use crate::limits;
use crate::trace::Trace;
use crate::words::{Generation, Identity, VmName};

impl Vm {
    fn new(file: VmFile) -> Self {
        Self {
            memory: file.memory,
            spec: file.spec,
            wanted: true,
            generation: Generation::default(),
            adopted: false,
            phase: Phase::Stopped,
            image: false,
            steps: 0,
            failures: 0,
            deaths: 0,
            avoid: None,
            home: None,
            cpu: Vec::new(),
        }
    }

    /// Who owns it, if anybody.
    #[must_use]
    pub(crate) fn owner(&self) -> Option<Identity> {
        match self.phase {
            Phase::Starting(at)
            | Phase::Running(at)
            | Phase::Landing(at)
            | Phase::Stopping(at, _)
            | Phase::Moving { from: at, .. } => Some(at),
            Phase::Stopped | Phase::Failed => None,
        }
    }

    /// Whether it is, or is about to be, on that boot of a node.
    pub(crate) fn concerns(&self, identity: Identity) -> bool {
        let target = match self.phase {
            Phase::Moving { to, .. } => Some(to),
            Phase::Stopped
            | Phase::Starting(_)
            | Phase::Running(_)
            | Phase::Landing(_)
            | Phase::Stopping(..)
            | Phase::Failed => None,
        };
        self.owner().into_iter().chain(target).any(|at| at.same_boot(identity))
    }

    /// It runs there, and what went wrong on the way is over.
    fn arrive(&mut self, at: Identity) {
        self.phase = Phase::Running(at);
        self.home = Some(at.slot);
        self.avoid = None;
        self.steps = 0;
        self.failures = 0;
    }
}

impl State {
    pub(super) fn define(&mut self, files: Vec<VmFile>) -> Vec<Trace> {
        let mut said = Vec::new();
        for file in files {
            if let Some(vm) = self.vms.get_mut(&file.name) {
                vm.memory = file.memory;
                vm.spec = file.spec;
            } else if self.vms.len() < limits::VMS {
                said.push(Trace::Defined { vm: file.name.clone(), memory: file.memory });
                let stopped = self.recalled.as_mut().is_some_and(|stopped| stopped.remove(&file.name));
                self.vms.insert(file.name.clone(), Vm { wanted: !stopped, ..Vm::new(file) });
            }
        }
        said
    }

    pub(super) fn assign(
        &mut self,
        config: &Config,
        vm: VmName,
        generation: Generation,
        to: Identity,
    ) -> Option<Trace> {
        if !self.is_member(to) || self.rolling.is_turn_of(to) || config.node(to.slot).on_trial {
            return None;
        }
        let record = self.vms.get_mut(&vm).filter(|record| record.generation.next() == generation)?;
        if record.phase != Phase::Stopped || !record.wanted {
            return None;
        }
        record.generation = generation;
        record.adopted = false;
        record.phase = Phase::Starting(to);
        Some(Trace::Assigned { vm, node: name(config, to.slot), generation })
    }

    pub(super) fn adopt(&mut self, config: &Config, vm: VmName, at: Identity) -> Option<Trace> {
        let cpu = self.member(at)?.machine.as_ref().map(|machine| machine.cpu.clone()).unwrap_or_default();
        let record = self.vms.get_mut(&vm).filter(|record| record.owner().is_none())?;
        record.generation = record.generation.next();
        record.adopted = true;
        record.arrive(at);
        record.image = false;
        record.cpu = cpu;
        Some(Trace::Adopted { vm, node: name(config, at.slot), generation: record.generation })
    }

    /// The record, if it still is of that generation.
    fn current(&mut self, vm: &VmName, generation: Generation) -> Option<&mut Vm> {
        self.vms.get_mut(vm).filter(|record| record.generation == generation)
    }

    pub(super) fn started(&mut self, config: &Config, vm: VmName, generation: Generation) -> Option<Trace> {
        let Phase::Starting(at) = self.current(&vm, generation)?.phase else { return None };
        let cpu = self.member(at).and_then(|member| member.machine.as_ref()).map(|machine| machine.cpu.clone());
        let record = self.current(&vm, generation)?;
        record.arrive(at);
        if !core::mem::take(&mut record.image) {
            record.cpu = cpu.unwrap_or_default();
        }
        Some(Trace::Started { vm, node: name(config, at.slot), generation })
    }

    pub(super) fn ended(&mut self, config: &Config, vm: &VmName, generation: Generation, ending: Ending) -> Vec<Trace> {
        let Some(record) = self.current(vm, generation) else {
            return Vec::new();
        };
        let (Phase::Starting(at) | Phase::Running(at) | Phase::Landing(at) | Phase::Stopping(at, _)) = record.phase
        else {
            return Vec::new();
        };
        record.phase = Phase::Stopped;
        let mut attempts = 0;
        match ending {
            Ending::NotStarted => {
                // An image that cannot be resumed is given up: the next start is a cold one.
                record.image = false;
                record.failures += 1;
                record.avoid = Some(at.slot);
                attempts = if record.failures >= limits::START_ATTEMPTS { record.failures } else { 0 };
            }
            Ending::Died => {
                record.deaths += 1;
                record.avoid = (record.deaths > limits::RESTARTS_HERE).then_some(at.slot);
                attempts = if record.deaths > u32::from(record.spec.restarts) { record.deaths } else { 0 };
            }
            Ending::ShutDown => {}
            Ending::Suspended => record.image = true,
        }
        let mut said = vec![Trace::Ended { vm: vm.clone(), node: name(config, at.slot), ending: why(ending) }];
        if attempts > 0 {
            record.phase = Phase::Failed;
            said.push(Trace::GaveUp { vm: vm.clone(), attempts });
        }
        said
    }

    pub(super) fn migrate(
        &mut self,
        config: &Config,
        vm: VmName,
        (generation, to, transfer): (Generation, Identity, Transfer),
    ) -> Option<Trace> {
        if !self.is_member(to) || self.rolling.is_turn_of(to) || config.node(to.slot).on_trial {
            return None;
        }
        let record = self.vms.get_mut(&vm).filter(|record| record.generation.next() == generation)?;
        let Phase::Running(from) = record.phase else {
            return None;
        };
        if from.slot == to.slot {
            return None;
        }
        record.generation = generation;
        record.adopted = false;
        record.phase = Phase::Moving { from, to, transfer };
        Some(Trace::Moving { vm, from: name(config, from.slot), to: name(config, to.slot), generation, transfer })
    }

    pub(super) fn migrated(&mut self, config: &Config, vm: VmName, generation: Generation) -> Option<Trace> {
        let record = self.current(&vm, generation)?;
        let (Phase::Moving { to, .. } | Phase::Landing(to)) = record.phase else {
            return None;
        };
        record.arrive(to);
        Some(Trace::Moved { vm, to: name(config, to.slot), generation })
    }

    pub(super) fn stays(&mut self, config: &Config, vm: VmName, generation: Generation) -> Option<Trace> {
        let record = self.current(&vm, generation)?;
        let Phase::Moving { from, to, .. } = record.phase else {
            return None;
        };
        record.phase = Phase::Running(from);
        record.avoid = Some(to.slot);
        record.steps = record.steps.saturating_add(1);
        Some(Trace::Stays { vm, node: name(config, from.slot), reason: "the migration failed" })
    }

    pub(super) fn stop(&mut self, config: &Config, vm: VmName, generation: Generation, stop: Stop) -> Option<Trace> {
        let record = self.current(&vm, generation)?;
        let Phase::Running(at) = record.phase else {
            return None;
        };
        record.phase = Phase::Stopping(at, stop);
        let node = name(config, at.slot);
        Some(match stop {
            Stop::Suspend => Trace::Suspending { vm, node },
            Stop::ShutDown => Trace::ShuttingDown { vm, node },
        })
    }

    pub(super) fn not_stopped(&mut self, config: &Config, vm: VmName, generation: Generation) -> Option<Trace> {
        let record = self.current(&vm, generation)?;
        let Phase::Stopping(at, _) = record.phase else {
            return None;
        };
        record.phase = Phase::Running(at);
        record.steps = record.steps.saturating_add(1);
        Some(Trace::Stays { vm, node: name(config, at.slot), reason: "it could not be suspended" })
    }

    /// The operator's lasting word. One that is wanted again has no past.
    pub(super) fn want(&mut self, vm: VmName, wanted: bool) -> Option<Trace> {
        let record = self.vms.get_mut(&vm)?;
        let failed = record.phase == Phase::Failed;
        if record.wanted == wanted && !(wanted && failed) {
            return None;
        }
        record.wanted = wanted;
        if wanted {
            (record.failures, record.deaths, record.avoid) = (0, 0, None);
        }
        if failed {
            record.phase = Phase::Stopped;
        }
        Some(if wanted { Trace::Wanted { vm } } else { Trace::Unwanted { vm } })
    }

    pub(super) fn settled(&mut self, vm: &VmName, generation: Generation) {
        if let Some(record) = self.current(vm, generation)
            && matches!(record.phase, Phase::Running(_))
        {
            record.deaths = 0;
        }
    }

    /// Whether this boot's VMs are to be moved away: it leaves, the operator has put it in standby, it is its turn to restart, or
    /// that it was on trial no longer was lost with an older generation.
    pub(crate) fn is_to_be_emptied(&self, config: &Config, at: Identity) -> bool {
        let leaving = self.member(at).is_some_and(|member| member.standing == Standing::Leaving);
        leaving || self.duty(at.slot).standby || self.rolling.is_turn_of(at) || config.node(at.slot).on_trial
    }
}

fn why(ending: Ending) -> &'static str {
    match ending {
        Ending::NotStarted => "it was not started",
        Ending::Died => "its domain is gone",
        Ending::ShutDown => "it was shut down",
        Ending::Suspended => "its memory is on the shared disk",
    }
}
