//! The shared file system's files: those of the VMs, and what the operator has decided, which outlives all power.
//!
//! What is kept is written a while after it was asked for, and only by a kernel that can still write then.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::config::{Decisions, VmSpec};
use cluster::event::{Event, Outcome, Request, VmFile, Work};
use cluster::node::VERSION;
use cluster::words::{Instant, VmName};

use super::lockspace::Stands;
use super::{Caller, Happening, VM_MEMORY, World};

/// How long a write takes.
const WRITE: Duration = Duration::from_millis(200);
/// How long it takes until everybody has seen what was written.
const LOOK: Duration = Duration::from_millis(500);

/// What is kept, and what is remembered of it to judge the core by.
#[derive(Debug, Default)]
pub(super) struct Kept {
    decisions: Decisions,
    /// Since when each of its VMs is to be stopped.
    since: BTreeMap<VmName, Instant>,
    /// When a VM was asked for last.
    asked: BTreeMap<VmName, Instant>,
}

impl World {
    /// What a machine reads of the shared file system.
    pub(super) fn reads(&self) -> Event {
        let spec = |name: &VmName| self.specs.get(name).cloned().unwrap_or_default();
        let file = |name: &VmName| VmFile { name: name.clone(), memory: VM_MEMORY, spec: spec(name) };
        Event::Read { files: self.vms.iter().map(file).collect(), decisions: self.kept.decisions.clone() }
    }

    /// The operator writes a VM's file anew, and every node reads it.
    pub(super) fn write_file(&mut self, vm: VmName, spec: VmSpec) {
        self.specs.insert(vm, spec);
        self.all_read();
    }

    fn all_read(&mut self) {
        for at in 1..self.size() {
            let (life, event) = (self.machine(at).life, self.reads());
            self.plan(LOOK, Happening::Tell { at, life, event });
        }
    }

    /// Decisions are to be kept.
    pub(super) fn keep_decisions(&mut self, caller: Caller, decisions: Decisions) {
        self.plan(WRITE, Happening::Keep { caller, decisions });
    }

    /// They are written, if that kernel still can.
    pub(super) fn write_decisions(&mut self, caller: Caller, decisions: Decisions) {
        let now = self.now;
        let machine = self.machine(caller.at);
        let kernel = &machine.kernel;
        if machine.boot != caller.boot || !kernel.mounted || kernel.stands != Stands::Running {
            return self.done(caller, Outcome::Failed("the shared file system does not answer".to_owned()));
        }
        let since = |vm: &VmName| (vm.clone(), self.kept.since.get(vm).copied().unwrap_or(now));
        self.kept.since = decisions.stopped.iter().map(since).collect();
        self.kept.decisions = decisions;
        self.all_read();
        self.done(caller, Outcome::Succeeded);
    }

    /// Somebody is asked for something.
    pub(super) fn note_asked(&mut self, request: &Request) {
        if let Request::Start { vm } = request {
            self.kept.asked.insert(vm.clone(), self.now);
        }
    }

    /// What is kept as stopped is not started, unless somebody has asked for it since; even if a generation has ended, or all
    /// power was gone. An older program knows nothing of it.
    pub(super) fn the_stopped_stay_stopped(&self, at: usize, work: &Work) -> Option<String> {
        let Work::Create { vm, .. } = work else { return None };
        let since = self.kept.since.get(vm)?;
        let asked = self.kept.asked.get(vm).is_some_and(|asked| *asked + self.config.timing.agree() >= *since);
        let knows = self.machines.iter().all(|machine| machine.installed >= VERSION && machine.version >= VERSION);
        (knows && !asked).then(|| format!("what is stopped stays so: {} creates {vm}", self.name(at)))
    }

    /// As if somebody had decided that no VM is to run, before the world began. What only canaries do.
    pub fn pretend_all_stopped(&mut self) {
        self.kept.since = self.vms.iter().map(|vm| (vm.clone(), self.now)).collect();
    }
}
