//! The replicated state: who fills which slot, and who owns which VM. It changes by committed commands only.
//!
//! [`State::apply`] is the whole transition: a command that does not fit the present state (an older generation, another
//! owner, another incarnation) changes nothing. So a command may be proposed again and again until its effect is seen,
//! and an order that was overtaken dies here, on every node alike.
//!
//! ```text
//!            Assign          Started             Migrate          Migrated
//!  Stopped ---------> Starting -----> Running <----------> Moving ---------> Running (at the target)
//!     ^                  | Ended         | Ended    Stays    |
//!     +------------------+---------------+                   | the source is proven off
//!     ^                                                      v
//!     +---------------------------- Ended ---------------- Landing --Started--> Running (at the target)
//! ```
//! `Proven` of the owner turns every phase but `Moving` into `Stopped`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::event::VmFile;
use crate::fencing::Proven;
use crate::limits;
use crate::trace::Trace;
use crate::words::{ClusterGeneration, Generation, Identity, Mebibytes, Role, Slot, View, VmName};

/// One committed step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Command {
    /// A host has read these VM files.
    Define(Vec<VmFile>),
    /// The DC has not heard this member for `deadtime`: it is unclean until proven off.
    Suspect(Identity),
    /// It is proven off.
    Proven(Proven),
    /// Its outlets are on again.
    Restored(Slot),
    /// This member wants to leave.
    Leave(Identity),
    /// It runs nothing any more and is about to power off.
    Left(Identity),
    /// A stopped VM belongs to a node from here on.
    Assign(VmName, Generation, Identity),
    /// A VM that no record places runs on a node.
    Adopt(VmName, Identity),
    /// The owner (or the target after the source's death) runs it.
    Started(VmName, Generation),
    /// The owner does not run it any more, or could not start it.
    Ended(VmName, Generation, Ending),
    /// The owner shall hand it over.
    Migrate(VmName, Generation, Identity),
    /// The target has it.
    Migrated(VmName, Generation),
    /// The target does not have it, and has nothing left of it.
    Stays(VmName, Generation),
}

/// Why a VM ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ending {
    /// It could not be created there.
    NotStarted,
    /// Its domain vanished.
    Died,
    /// It was shut down there because it could not be moved.
    ShutDown,
}

/// How a slot stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Standing {
    /// Present; may be given VMs.
    Member,
    /// Present; its VMs are moved away.
    Leaving,
    /// Left in good order, and off.
    Off,
    /// Silent: what it runs is unknown. To be fenced.
    Unclean,
    /// Proven off; its power is to be restored.
    Fenced,
    /// It has power again and is expected.
    Booting,
}

/// Who fills a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// The identity that the record speaks of.
    pub(crate) identity: Identity,
    /// How it stands.
    pub(crate) standing: Standing,
}

/// Where a VM is in its life. Every phase but `Stopped` and `Failed` has an owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// It runs nowhere and is to be placed.
    Stopped,
    /// Its owner is to create it.
    Starting(Identity),
    /// Its owner runs it.
    Running(Identity),
    /// Its owner hands it over to `to`.
    Moving {
        /// The owner.
        from: Identity,
        /// The target.
        to: Identity,
    },
    /// Its source was lost while it moved: the target knows whether it has it.
    Landing(Identity),
    /// It failed too often and waits for the operator.
    Failed,
}

/// The record of one VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Vm {
    /// What it needs.
    pub(crate) memory: Mebibytes,
    /// Grows with every assignment.
    pub(crate) generation: Generation,
    /// Where it is in its life.
    pub(crate) phase: Phase,
    /// How often in a row it could not be started.
    pub(crate) failures: u32,
    /// How often it died by itself.
    pub(crate) deaths: u32,
    /// Where it failed last: somewhere else is preferred.
    pub(crate) avoid: Option<Slot>,
}

impl Vm {
    /// Who owns it, if anybody.
    #[must_use]
    pub(crate) fn owner(&self) -> Option<Identity> {
        match self.phase {
            Phase::Starting(at) | Phase::Running(at) | Phase::Landing(at) | Phase::Moving { from: at, .. } => Some(at),
            Phase::Stopped | Phase::Failed => None,
        }
    }
}

impl Vm {
    /// Whether it is, or is about to be, on that boot of a node.
    pub(crate) fn concerns(&self, identity: Identity) -> bool {
        let target = match self.phase {
            Phase::Moving { to, .. } => Some(to),
            Phase::Stopped | Phase::Starting(_) | Phase::Running(_) | Phase::Landing(_) | Phase::Failed => None,
        };
        self.owner().into_iter().chain(target).any(|at| at.same_boot(identity))
    }
}

/// Everything that is agreed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Which life of the cluster this is.
    pub(crate) generation: ClusterGeneration,
    /// Grows with every change of who fills which slot.
    pub(crate) view: View,
    /// The slots.
    pub(crate) members: BTreeMap<Slot, Member>,
    /// The VMs.
    pub(crate) vms: BTreeMap<VmName, Vm>,
}

impl State {
    /// The state at formation. Whoever is not among `present` is unclean, but for a gateway: it runs no VMs.
    #[must_use]
    pub(crate) fn formed(config: &Config, generation: ClusterGeneration, present: &[Identity]) -> Self {
        let member = |slot: Slot, role: Role| match (present.iter().find(|identity| identity.slot == slot), role) {
            (Some(identity), _) => Member { identity: *identity, standing: Standing::Member },
            (None, Role::Node) => Member { identity: Identity::absent(slot), standing: Standing::Unclean },
            (None, Role::Gateway) => Member { identity: Identity::absent(slot), standing: Standing::Off },
        };
        let members = config.slots().map(|(slot, node)| (slot, member(slot, node.role))).collect();
        Self { generation, view: View(1), members, vms: BTreeMap::new() }
    }

    /// The member of that slot, if it is this identity.
    #[must_use]
    pub(crate) fn member(&self, identity: Identity) -> Option<&Member> {
        self.members.get(&identity.slot).filter(|member| member.identity == identity)
    }

    /// Whether this identity is present and not on its way out.
    #[must_use]
    pub(crate) fn is_member(&self, identity: Identity) -> bool {
        self.member(identity).is_some_and(|member| member.standing == Standing::Member)
    }

    /// A new identity fills a slot. An older boot of the same node is thereby proven gone; an older life of the same
    /// boot hands its VMs on to the new one.
    pub(crate) fn fill(&mut self, config: &Config, identity: Identity) -> Vec<Trace> {
        let Some(old) = self.members.get(&identity.slot).map(|member| member.identity) else {
            return Vec::new();
        };
        if old == identity {
            return Vec::new();
        }
        let mut said = Vec::new();
        match Proven::by_newer(old, identity) {
            Some(proven) => said.extend(self.lose(config, &proven)),
            None => self.rename(old, identity),
        }
        let leaving = old.same_boot(identity)
            && self.members.get(&identity.slot).is_some_and(|member| member.standing == Standing::Leaving);
        let standing = if leaving { Standing::Leaving } else { Standing::Member };
        self.members.insert(identity.slot, Member { identity, standing });
        self.view = View(self.view.0.saturating_add(1));
        let node = name(config, identity.slot);
        said.push(Trace::Filled { node, incarnation: identity.incarnation, view: self.view });
        said
    }

    /// One committed command. What it changed is said by the DC; a command that does not fit changes nothing.
    pub(crate) fn apply(&mut self, config: &Config, command: Command) -> Vec<Trace> {
        let said = match command {
            Command::Define(files) => return self.define(files),
            Command::Suspect(identity) => {
                self.stand(identity, &[Standing::Member, Standing::Leaving], Standing::Unclean);
                None
            }
            Command::Proven(proven) => return self.proven(config, &proven),
            Command::Restored(slot) => self.restored(config, slot),
            Command::Leave(identity) => self
                .stand(identity, &[Standing::Member], Standing::Leaving)
                .then(|| Trace::Leaving { node: name(config, identity.slot) }),
            Command::Left(identity) => return self.left(config, identity),
            Command::Assign(vm, generation, to) => self.assign(config, vm, generation, to),
            Command::Adopt(vm, at) => self.adopt(config, vm, at),
            Command::Started(vm, generation) => self.started(config, vm, generation),
            Command::Ended(vm, generation, ending) => return self.ended(config, &vm, generation, ending),
            Command::Migrate(vm, generation, to) => self.migrate(config, vm, generation, to),
            Command::Migrated(vm, generation) => self.migrated(config, vm, generation),
            Command::Stays(vm, generation) => self.stays(config, vm, generation),
        };
        said.into_iter().collect()
    }

    fn define(&mut self, files: Vec<VmFile>) -> Vec<Trace> {
        let mut said = Vec::new();
        for file in files {
            if let Some(vm) = self.vms.get_mut(&file.name) {
                vm.memory = file.memory;
            } else if self.vms.len() < limits::VMS {
                said.push(Trace::Defined { vm: file.name.clone(), memory: file.memory });
                self.vms.insert(file.name, Vm::new(file.memory));
            }
        }
        said
    }

    /// Moves a member from one of `from` to `to`; whether it did.
    fn stand(&mut self, identity: Identity, from: &[Standing], to: Standing) -> bool {
        match self.members.get_mut(&identity.slot) {
            Some(member) if member.identity == identity && from.contains(&member.standing) => {
                member.standing = to;
                true
            }
            Some(_) | None => false,
        }
    }

    fn proven(&mut self, config: &Config, proven: &Proven) -> Vec<Trace> {
        if !self.stand(proven.identity(), &[Standing::Unclean], Standing::Fenced) {
            return Vec::new();
        }
        let node = name(config, proven.identity().slot);
        let mut said = vec![Trace::Fenced { node, method: proven.method().clone() }];
        said.extend(self.lose(config, proven));
        said
    }

    fn restored(&mut self, config: &Config, slot: Slot) -> Option<Trace> {
        let member = self.members.get_mut(&slot).filter(|member| member.standing == Standing::Fenced)?;
        member.standing = Standing::Booting;
        Some(Trace::PoweredOn { node: name(config, slot) })
    }

    fn left(&mut self, config: &Config, identity: Identity) -> Vec<Trace> {
        let busy = self.vms.values().any(|vm| vm.concerns(identity));
        if busy || !self.stand(identity, &[Standing::Leaving], Standing::Off) {
            return Vec::new();
        }
        vec![Trace::Left { node: name(config, identity.slot) }]
    }

    /// What a proof means for the VMs: those that the lost incarnation owned are stopped, and may be placed again. This
    /// is the only way in which a VM is taken from an owner that did not say that it had ended.
    fn lose(&mut self, config: &Config, proven: &Proven) -> Vec<Trace> {
        let lost = |identity: Identity| identity.same_boot(proven.identity());
        let node = name(config, proven.identity().slot);
        let mut said = Vec::new();
        for (vm_name, vm) in &mut self.vms {
            match vm.phase {
                Phase::Starting(at) | Phase::Running(at) | Phase::Landing(at) if lost(at) => {
                    vm.phase = Phase::Stopped;
                    said.push(Trace::Lost { vm: vm_name.clone(), node: node.clone() });
                }
                Phase::Moving { from, to } if lost(from) => vm.phase = Phase::Landing(to),
                Phase::Moving { from, to } if lost(to) => {
                    vm.phase = Phase::Running(from);
                    said.push(Trace::Stays { vm: vm_name.clone(), node: name(config, from.slot) });
                }
                Phase::Starting(_) | Phase::Running(_) | Phase::Landing(_) | Phase::Moving { .. } => {}
                Phase::Stopped | Phase::Failed => {}
            }
        }
        said
    }

    /// A new life of the same boot takes over what the old one owned.
    fn rename(&mut self, old: Identity, new: Identity) {
        for vm in self.vms.values_mut() {
            match &mut vm.phase {
                Phase::Starting(at) | Phase::Running(at) | Phase::Landing(at) if *at == old => *at = new,
                Phase::Moving { from, to } => {
                    for end in [from, to] {
                        if *end == old {
                            *end = new;
                        }
                    }
                }
                Phase::Starting(_) | Phase::Running(_) | Phase::Landing(_) | Phase::Stopped | Phase::Failed => {}
            }
        }
    }

    fn assign(&mut self, config: &Config, vm: VmName, generation: Generation, to: Identity) -> Option<Trace> {
        if !self.is_member(to) {
            return None;
        }
        let record = self.vms.get_mut(&vm).filter(|record| record.generation.next() == generation)?;
        if record.phase != Phase::Stopped {
            return None;
        }
        record.generation = generation;
        record.phase = Phase::Starting(to);
        Some(Trace::Assigned { vm, node: name(config, to.slot), generation })
    }

    fn adopt(&mut self, config: &Config, vm: VmName, at: Identity) -> Option<Trace> {
        self.member(at)?;
        let record = self.vms.get_mut(&vm).filter(|record| record.owner().is_none())?;
        record.generation = record.generation.next();
        record.phase = Phase::Running(at);
        Some(Trace::Adopted { vm, node: name(config, at.slot), generation: record.generation })
    }

    /// The record, if it still is of that generation.
    fn current(&mut self, vm: &VmName, generation: Generation) -> Option<&mut Vm> {
        self.vms.get_mut(vm).filter(|record| record.generation == generation)
    }

    fn started(&mut self, config: &Config, vm: VmName, generation: Generation) -> Option<Trace> {
        let record = self.current(&vm, generation)?;
        let (Phase::Starting(at) | Phase::Landing(at)) = record.phase else {
            return None;
        };
        record.phase = Phase::Running(at);
        record.failures = 0;
        record.avoid = None;
        Some(Trace::Started { vm, node: name(config, at.slot), generation })
    }

    fn ended(&mut self, config: &Config, vm: &VmName, generation: Generation, ending: Ending) -> Vec<Trace> {
        let Some(record) = self.current(vm, generation) else {
            return Vec::new();
        };
        let (Phase::Starting(at) | Phase::Running(at) | Phase::Landing(at)) = record.phase else {
            return Vec::new();
        };
        record.phase = Phase::Stopped;
        let mut attempts = 0;
        match ending {
            Ending::NotStarted => {
                record.failures += 1;
                record.avoid = Some(at.slot);
                attempts = if record.failures >= limits::START_ATTEMPTS { record.failures } else { 0 };
            }
            Ending::Died => {
                record.deaths += 1;
                attempts = if record.deaths > limits::RESTARTS { record.deaths } else { 0 };
            }
            Ending::ShutDown => {}
        }
        let mut said = vec![Trace::Ended { vm: vm.clone(), node: name(config, at.slot) }];
        if attempts > 0 {
            record.phase = Phase::Failed;
            said.push(Trace::GaveUp { vm: vm.clone(), attempts });
        }
        said
    }

    fn migrate(&mut self, config: &Config, vm: VmName, generation: Generation, to: Identity) -> Option<Trace> {
        if !self.is_member(to) {
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
        record.phase = Phase::Moving { from, to };
        Some(Trace::Moving { vm, from: name(config, from.slot), to: name(config, to.slot), generation })
    }

    fn migrated(&mut self, config: &Config, vm: VmName, generation: Generation) -> Option<Trace> {
        let record = self.current(&vm, generation)?;
        let (Phase::Moving { to, .. } | Phase::Landing(to)) = record.phase else {
            return None;
        };
        record.phase = Phase::Running(to);
        record.avoid = None;
        Some(Trace::Moved { vm, to: name(config, to.slot), generation })
    }

    fn stays(&mut self, config: &Config, vm: VmName, generation: Generation) -> Option<Trace> {
        let record = self.current(&vm, generation)?;
        let Phase::Moving { from, to } = record.phase else {
            return None;
        };
        record.phase = Phase::Running(from);
        record.avoid = Some(to.slot);
        Some(Trace::Stays { vm, node: name(config, from.slot) })
    }
}

impl Vm {
    fn new(memory: Mebibytes) -> Self {
        Self { memory, generation: Generation::default(), phase: Phase::Stopped, failures: 0, deaths: 0, avoid: None }
    }
}

fn name(config: &Config, slot: Slot) -> String {
    config.node(slot).name.clone()
}
