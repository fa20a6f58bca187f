//! What concerns slots: who fills them, who is to be fenced, what the operator has set aside.

use super::{Member, Phase, Standing, State, name};
use crate::config::{Config, Duty, Level};
use crate::event::Machine;
use crate::fencing::{Cause, Death, Method, Proven};
use crate::trace::Trace;
use crate::words::{Identity, Role, Slot, View};

impl Member {
    pub(super) fn new(identity: Identity, standing: Standing) -> Self {
        Self { identity, standing, attempt: 0, failed: 0, cause: None, withdrawn: false, machine: None }
    }

    /// Whether it is there, as far as the cluster has agreed.
    #[must_use]
    pub(crate) fn is_present(&self) -> bool {
        matches!(self.standing, Standing::Member | Standing::Leaving)
    }

    /// The level of the attempt at fencing that is under way.
    #[must_use]
    pub(crate) fn level(&self, config: &Config) -> Option<Level> {
        let levels = &config.node(self.identity.slot).fencing;
        let count = u32::try_from(levels.len()).ok()?;
        let at = self.attempt.checked_sub(1)?.checked_rem(count)?;
        levels.get(usize::try_from(at).ok()?).copied()
    }
}

impl State {
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

    /// What the operator has set aside there.
    #[must_use]
    pub(crate) fn duty(&self, slot: Slot) -> Duty {
        self.duties.get(&slot).copied().unwrap_or_default()
    }

    /// Whether no VM is to come to that slot, however well it is: a gateway, one that the operator has set aside, or one on trial.
    pub(crate) fn is_set_aside(&self, config: &Config, slot: Slot) -> bool {
        let (duty, node) = (self.duty(slot), config.node(slot));
        node.role == Role::Gateway || node.on_trial || duty.standby || duty.maintenance
    }

    /// Whether nobody may fence that slot, which then does not fence itself either.
    #[must_use]
    pub(crate) fn is_disarmed(&self, slot: Slot) -> bool {
        let duty = self.duty(slot);
        self.disarmed || duty.disarmed || duty.maintenance
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
            Some(proven) => {
                self.bury(&proven);
                said.extend(self.lose(config, &proven));
            }
            None => self.rename(old, identity),
        }
        let left = self.members.get(&identity.slot).filter(|member| member.standing == Standing::Leaving);
        let left = left.filter(|_| old.same_boot(identity));
        let standing = if left.is_some() { Standing::Leaving } else { Standing::Member };
        let withdrawn = left.is_some_and(|member| member.withdrawn);
        self.members.insert(identity.slot, Member { withdrawn, ..Member::new(identity, standing) });
        self.lockspace.fill(identity);
        self.view = View(self.view.0.saturating_add(1));
        let node = name(config, identity.slot);
        let incarnation = identity.incarnation;
        if let Some(death) = self.deaths.get(&identity.slot).filter(|_| !old.same_boot(identity)) {
            said.push(Trace::Recalled { node: node.clone(), death: death.clone() });
        }
        said.push(Trace::Filled { node, incarnation, view: self.view });
        said.extend(self.advance(config));
        said.extend(self.roll(config, false));
        said
    }

    /// Remembers the end of a boot, unless it had ended in good order or its end is already known.
    fn bury(&mut self, proven: &Proven) {
        let slot = proven.identity().slot;
        let Some(member) = self.member(proven.identity()) else { return };
        let known = |death: &Death| death.proven.identity().same_boot(proven.identity());
        let cause = match member.standing {
            // Whoever is woken had left.
            Standing::Off | Standing::Waking => {
                self.deaths.remove(&slot);
                return;
            }
            Standing::Booting if member.withdrawn => {
                self.deaths.remove(&slot);
                return;
            }
            Standing::Fenced | Standing::Booting if self.deaths.get(&slot).is_some_and(known) => return,
            Standing::Fenced | Standing::Booting | Standing::Member | Standing::Leaving | Standing::Unclean => {
                member.cause.clone().unwrap_or(Cause::Unasked)
            }
        };
        self.deaths.insert(slot, Death { cause, proven: proven.clone() });
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

    /// The member, if it is to be fenced.
    fn unclean(&mut self, identity: Identity) -> Option<&mut Member> {
        let member = self.members.get_mut(&identity.slot)?;
        (member.identity == identity && member.standing == Standing::Unclean).then_some(member)
    }

    pub(super) fn describe(&mut self, identity: Identity, machine: Machine) {
        if let Some(member) = self.members.get_mut(&identity.slot).filter(|member| member.identity == identity) {
            member.machine = Some(machine);
        }
    }

    /// Why the operator may not have that slot fenced as a test now, if so.
    pub(crate) fn no_drill(&self, config: &Config, slot: Slot) -> Option<String> {
        let Some(member) = self.members.get(&slot).filter(|_| config.node(slot).role == Role::Node) else {
            return Some("only a node's fencing can be tested".to_owned());
        };
        let node = name(config, slot);
        let being_fenced = |other: &&Member| {
            other.identity.slot != slot
                && matches!(other.standing, Standing::Unclean | Standing::Fenced | Standing::Waking)
        };
        if member.standing != Standing::Member {
            Some(format!("{node} is not a member now"))
        } else if !self.duty(slot).standby && !config.node(slot).on_trial {
            Some(format!("{node} is not in standby"))
        } else if let Some((vm, _)) = self.vms.iter().find(|(_, vm)| vm.concerns(member.identity)) {
            Some(format!("{node} still has VM {vm}"))
        } else if self.is_disarmed(slot) {
            Some(format!("{} is disarmed", if self.disarmed { "the cluster" } else { &node }))
        } else if config.node(slot).outlets.is_empty() {
            Some(format!("no outlet feeds {node}"))
        } else {
            let other = self.members.values().find(being_fenced)?;
            Some(format!("{} is unclean, or has no power yet", name(config, other.identity.slot)))
        }
    }

    /// Whether this identity is being fenced as a test, or was and is not back yet.
    pub(crate) fn is_tested(&self, identity: Identity) -> bool {
        let away = |member: &Member| {
            matches!(member.standing, Standing::Unclean | Standing::Fenced | Standing::Booting)
                && member.cause == Some(Cause::Tested)
        };
        self.member(identity).is_some_and(away)
    }

    pub(super) fn suspect(&mut self, config: &Config, identity: Identity, cause: Cause) -> Option<Trace> {
        // What the operator was told may be overtaken by now.
        if cause == Cause::Tested && (!config.has(identity.slot) || self.no_drill(config, identity.slot).is_some()) {
            return None;
        }
        if self.is_disarmed(identity.slot)
            || !self.stand(identity, &[Standing::Member, Standing::Leaving], Standing::Unclean)
        {
            return None;
        }
        let tried = cause == Cause::Tested && config.node(identity.slot).on_trial;
        let member = self.unclean(identity)?;
        (member.attempt, member.failed, member.cause) = (1, 0, Some(cause));
        member.withdrawn = false;
        tried.then(|| Trace::TrialBegins { node: name(config, identity.slot) })
    }

    /// Nothing was taken from it, for it was not proven off: it goes on as if it had never been silent.
    pub(super) fn spare(&mut self, config: &Config, identity: Identity) -> Option<Trace> {
        let spared = self.is_disarmed(identity.slot) && self.stand(identity, &[Standing::Unclean], Standing::Member);
        spared.then(|| Trace::Spared { node: name(config, identity.slot) })
    }

    pub(super) fn not_proven(&mut self, identity: Identity, attempt: u32) {
        if let Some(member) = self.unclean(identity).filter(|member| member.attempt == attempt) {
            member.failed = attempt;
        }
    }

    pub(super) fn attempt(&mut self, identity: Identity, attempt: u32) {
        if let Some(member) = self.unclean(identity).filter(|member| member.attempt.checked_add(1) == Some(attempt)) {
            member.attempt = attempt;
        }
    }

    pub(super) fn proven(&mut self, config: &Config, proven: &Proven) -> Vec<Trace> {
        // Only who was cut from its outlets wants them back; everybody else is expected to come back by itself.
        let next = match proven.method() {
            Method::OutletsOff(_) => Standing::Fenced,
            Method::NewerIncarnation(_) | Method::CutOff | Method::Watchdog(_) | Method::Operator => Standing::Booting,
        };
        if !self.stand(proven.identity(), &[Standing::Unclean], next) {
            return Vec::new();
        }
        self.bury(proven);
        self.lockspace.proven(proven.identity());
        let node = name(config, proven.identity().slot);
        let mut said = vec![Trace::Fenced { node, method: proven.method().clone() }];
        said.extend(self.lose(config, proven));
        said
    }

    pub(super) fn restored(&mut self, config: &Config, identity: Identity) -> Option<Trace> {
        let done = self.stand(identity, &[Standing::Fenced, Standing::Waking], Standing::Booting);
        done.then(|| Trace::PoweredOn { node: name(config, identity.slot) })
    }

    pub(super) fn leave(&mut self, config: &Config, identity: Identity) -> Option<Trace> {
        let withdrawn = self.member(identity).is_some_and(|member| member.withdrawn);
        // Whoever is asked to go does not remain because it has power again.
        let from: &[Standing] = if withdrawn { &[Standing::Leaving] } else { &[Standing::Member] };
        let done = self.stand(identity, from, Standing::Leaving);
        if let Some(member) = self.members.get_mut(&identity.slot).filter(|_| done) {
            member.withdrawn = false;
        }
        done.then(|| Trace::Leaving { node: name(config, identity.slot) })
    }

    pub(super) fn left(&mut self, config: &Config, identity: Identity) -> Vec<Trace> {
        let busy = self.vms.values().any(|vm| vm.concerns(identity)) || !self.lockspace.is_out(identity.slot);
        if busy || !self.stand(identity, &[Standing::Leaving], Standing::Off) {
            return Vec::new();
        }
        vec![Trace::Left { node: name(config, identity.slot) }]
    }

    pub(super) fn set_duty(&mut self, config: &Config, slot: Slot, duty: Duty) -> Option<Trace> {
        let old = self.duty(slot);
        if old == duty || !config.has(slot) {
            return None;
        }
        let disarmed = self.is_disarmed(slot);
        self.duties.insert(slot, duty);
        if self.is_disarmed(slot) != disarmed {
            self.armament += 1;
        }
        let node = name(config, slot);
        Some(Trace::Duty { node, standby: duty.standby, maintenance: duty.maintenance, disarmed: duty.disarmed })
    }

    pub(super) fn take_epoch(&mut self, epoch: u64) -> Option<Trace> {
        if self.epoch != 0 || epoch == 0 {
            return None;
        }
        self.epoch = epoch;
        Some(Trace::Epoch { epoch })
    }

    pub(super) fn disarm(&mut self, disarmed: bool) -> Option<Trace> {
        if self.disarmed == disarmed {
            return None;
        }
        self.disarmed = disarmed;
        self.armament += 1;
        Some(if disarmed { Trace::Disarmed } else { Trace::Armed })
    }

    /// What a proof means for the VMs: those that the lost incarnation owned are stopped, and may be placed again. This
    /// is the only way in which a VM is taken from an owner that did not say that it had ended.
    fn lose(&mut self, config: &Config, proven: &Proven) -> Vec<Trace> {
        let lost = |identity: Identity| identity.same_boot(proven.identity());
        let node = name(config, proven.identity().slot);
        let mut said = Vec::new();
        for (vm_name, vm) in &mut self.vms {
            match vm.phase {
                Phase::Starting(at) | Phase::Running(at) | Phase::Landing(at) | Phase::Stopping(at, _) if lost(at) => {
                    // It may have been resumed, and have written to its disk since: the image is of the past.
                    vm.image &= !matches!(vm.phase, Phase::Starting(_));
                    vm.phase = Phase::Stopped;
                    said.push(Trace::Lost { vm: vm_name.clone(), node: node.clone() });
                }
                Phase::Moving { from, to, .. } if lost(from) => vm.phase = Phase::Landing(to),
                Phase::Moving { from, to, .. } if lost(to) => {
                    vm.phase = Phase::Running(from);
                    let node = name(config, from.slot);
                    said.push(Trace::Stays { vm: vm_name.clone(), node, reason: "the migration failed" });
                }
                Phase::Starting(_)
                | Phase::Running(_)
                | Phase::Landing(_)
                | Phase::Stopping(..)
                | Phase::Moving { .. }
                | Phase::Stopped
                | Phase::Failed => {}
            }
        }
        said
    }

    /// A new life of the same boot takes over what the old one owned.
    fn rename(&mut self, old: Identity, new: Identity) {
        for vm in self.vms.values_mut() {
            match &mut vm.phase {
                Phase::Starting(at) | Phase::Running(at) | Phase::Landing(at) | Phase::Stopping(at, _)
                    if *at == old =>
                {
                    *at = new;
                }
                Phase::Moving { from, to, .. } => {
                    for end in [from, to] {
                        if *end == old {
                            *end = new;
                        }
                    }
                }
                Phase::Starting(_)
                | Phase::Running(_)
                | Phase::Landing(_)
                | Phase::Stopping(..)
                | Phase::Stopped
                | Phase::Failed => {}
            }
        }
    }
}
