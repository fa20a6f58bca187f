//! What of the state outlives it: the operator's decisions, kept on the shared file system.
//!
//! The state is lost with its generation, as when all power fails; what the operator has decided must not be. So it is read again
//! before the first VM is defined, and written by one member whenever it has changed. What is read adds to what was decided
//! since: nobody's word is taken back by an older one.

use super::{Standing, State};
use crate::config::{Config, Decisions, Duty};
use crate::trace::Trace;
use crate::words::Slot;

impl State {
    /// All that is to be kept.
    pub(crate) fn decisions(&self, config: &Config) -> Decisions {
        let set_aside = self.duties.iter().filter(|(_, duty)| **duty != Duty::default());
        let unwanted = self.vms.iter().filter(|(_, vm)| !vm.wanted).map(|(name, _)| name);
        Decisions {
            disarmed: self.disarmed,
            stopped: unwanted.chain(self.recalled.iter().flatten()).cloned().collect(),
            nodes: set_aside.map(|(slot, duty)| (config.node_name(*slot), *duty)).collect(),
        }
    }

    /// Who keeps it: the first member that has the shared file system mounted.
    pub(crate) fn keeper(&self) -> Option<Slot> {
        let member = |slot: &Slot| self.members.get(slot).is_some_and(|member| member.standing == Standing::Member);
        self.lockspace.mounted().find(member)
    }

    /// What an earlier generation was told counts in this one.
    pub(super) fn recall(&mut self, config: &Config, decisions: Decisions) -> Vec<Trace> {
        if self.recalled.is_some() {
            return Vec::new();
        }
        let mut said = Vec::new();
        if decisions.disarmed {
            said.extend(self.disarm(true));
        }
        for (node, duty) in decisions.nodes {
            if let Some(slot) = config.named(&node).filter(|slot| !self.duties.contains_key(slot)) {
                said.extend(self.set_duty(config, slot, duty));
            }
        }
        for vm in &decisions.stopped {
            if self.vms.contains_key(vm) {
                said.extend(self.want(vm.clone(), false));
            } else {
                said.push(Trace::Unwanted { vm: vm.clone() });
            }
        }
        self.recalled = Some(decisions.stopped.into_iter().filter(|vm| !self.vms.contains_key(vm)).collect());
        if !said.is_empty() {
            said.insert(0, Trace::Decided);
        }
        said
    }
}
