//! What concerns the UPSes: how each stands, what that means for a slot, and what can go on without those that fail.
//!
//! ```text
//!  Mains <--> Battery --wait--> Failing --nearly empty--> Low        (a reading may skip steps; mains takes back all)
//!
//!  a node of failing UPSes    leaves, if the others are a working cluster; its VMs move live
//!                             else runs on, without its least important VMs: mains may come back
//!  a node of low UPSes        leaves; its VMs are shut down, and started elsewhere if the others are a working cluster
//!                             else every VM is shut down, everywhere, before the votes go
//! ```
//! A node that leaves for want of power is *withdrawn*: it was not asked to, so it remains if mains is back before it is
//! off, and is woken if it is back afterwards.

use super::{Member, Phase, Standing, State, Vm, name};
use crate::config::{Config, Ups};
use crate::trace::Trace;
use crate::words::{Identity, Slot, Supply, UpsId};

impl State {
    /// How a UPS stands.
    pub(crate) fn ups(&self, ups: UpsId) -> Supply {
        self.supplies.get(&ups).copied().unwrap_or_default()
    }

    /// The UPSes that feed a slot.
    fn feeds(config: &Config, slot: Slot) -> impl Iterator<Item = (UpsId, &Ups)> {
        config.ups_ids().filter(move |(_, ups)| ups.feeds.contains(&slot))
    }

    /// Whether nobody that a UPS feeds is there.
    pub(crate) fn feeds_nobody(&self, config: &Config, ups: UpsId) -> bool {
        let present = |slot: &Slot| self.members.get(slot).is_some_and(Member::is_present);
        config.ups(ups).is_some_and(|ups| !ups.feeds.iter().any(present))
    }

    /// How a slot is supplied: as the best of its UPSes stands. What no UPS feeds has mains.
    pub(crate) fn supply(&self, config: &Config, slot: Slot) -> Supply {
        Self::feeds(config, slot).map(|(id, _)| self.ups(id)).min().unwrap_or_default()
    }

    /// Whether the members that are supplied better than so are a working cluster: a majority, with the storage, and
    /// somebody who runs VMs.
    pub(crate) fn works_without(&self, config: &Config, lost: Supply) -> bool {
        let stays = |slot: Slot| self.supply(config, slot) < lost;
        let left = || {
            let members = self.members.iter().filter(|(_, member)| member.standing == Standing::Member);
            members.map(|(slot, _)| *slot).filter(|slot| stays(*slot))
        };
        let hosts = left().any(|slot| !self.is_set_aside(config, slot));
        hosts && config.votes(left()) >= config.majority() && config.gateway().is_none_or(|(gateway, _)| stays(gateway))
    }

    /// Whether no VM can run much longer, wherever it is: the power of too many is about to go, or of the storage.
    pub(crate) fn is_ending(&self, config: &Config) -> bool {
        let low = |slot: Slot| self.supply(config, slot) == Supply::Low;
        let storage = config.gateway().is_some_and(|(gateway, _)| {
            low(gateway) || self.members.get(&gateway).is_some_and(|member| member.withdrawn)
        });
        // Those that have gone are missing just as well.
        let goes = |member: &Member| member.is_present() || member.withdrawn;
        let some = self.members.iter().any(|(slot, member)| goes(member) && low(*slot));
        storage || (some && !self.works_without(config, Supply::Low))
    }

    /// Whether a slot takes no VMs for want of power.
    pub(crate) fn is_short_of_power(&self, config: &Config, slot: Slot) -> bool {
        self.supply(config, slot) >= Supply::Failing || self.is_ending(config)
    }

    /// Whether a slot is to be left for want of power, if the others are a working cluster without whom is supplied so.
    fn is_to_be_left(&self, config: &Config, slot: Slot, lost: Supply) -> bool {
        match self.supply(config, slot) {
            Supply::Mains | Supply::Battery => false,
            Supply::Failing => self.works_without(config, lost),
            Supply::Low => true,
        }
    }

    /// Whether a member is to leave for want of power. VMs are not moved to where mains is missing just as well.
    pub(crate) fn is_to_withdraw(&self, config: &Config, slot: Slot) -> bool {
        self.is_to_be_left(config, slot, Supply::Battery)
    }

    /// Whether a member that leaves for want of power is to go on with it.
    pub(crate) fn is_to_stay_withdrawn(&self, config: &Config, slot: Slot) -> bool {
        self.is_to_be_left(config, slot, Supply::Failing)
    }

    /// Whether a VM that runs there is to be shut down for want of power.
    pub(crate) fn is_to_be_shed(&self, config: &Config, vm: &Vm, at: Identity) -> bool {
        let unimportant = || Self::feeds(config, at.slot).any(|(_, ups)| vm.spec.priority < ups.shed);
        let here = match self.supply(config, at.slot) {
            Supply::Mains | Supply::Battery => false,
            Supply::Failing => unimportant() && !self.works_without(config, Supply::Failing),
            Supply::Low => true,
        };
        here || self.is_ending(config)
    }

    /// Whether a withdrawn member must not be off yet: its vote is needed until the last VM has ended; and whoever goes
    /// last waits for the others.
    pub(crate) fn is_awaited(&self, config: &Config, slot: Slot) -> bool {
        let counts = |vm: &Vm| match vm.phase {
            Phase::Stopped | Phase::Failed => false,
            Phase::Starting(at)
            | Phase::Running(at)
            | Phase::Moving { from: at, .. }
            | Phase::Landing(at)
            | Phase::Stopping(at, _) => !self.duty(at.slot).maintenance,
        };
        let others = self.members.iter().filter(|(other, _)| **other != slot);
        let goes = |(_, member): (&Slot, &Member)| member.withdrawn && member.is_present();
        (self.is_ending(config) && self.vms.values().any(counts))
            || (config.last_to_go() == slot && others.into_iter().any(goes))
    }

    pub(super) fn set_supply(&mut self, config: &Config, ups: UpsId, supply: Supply) -> Option<Trace> {
        let configured = config.ups(ups)?;
        let old = self.ups(ups);
        if supply == old || (supply < old && supply != Supply::Mains) {
            return None;
        }
        self.supplies.insert(ups, supply);
        Some(Trace::Supply { ups: configured.name.clone(), supply })
    }

    pub(super) fn withdraw(&mut self, config: &Config, identity: Identity) -> Option<Trace> {
        let member = self.at(identity, Standing::Member)?;
        (member.standing, member.withdrawn) = (Standing::Leaving, true);
        Some(Trace::Withdrawn { node: name(config, identity.slot) })
    }

    pub(super) fn remain(&mut self, config: &Config, identity: Identity) -> Option<Trace> {
        let member = self.at(identity, Standing::Leaving).filter(|member| member.withdrawn)?;
        (member.standing, member.withdrawn) = (Standing::Member, false);
        Some(Trace::Remains { node: name(config, identity.slot) })
    }

    pub(super) fn wake(&mut self, identity: Identity) {
        if let Some(member) = self.at(identity, Standing::Off).filter(|member| member.withdrawn) {
            member.standing = Standing::Waking;
        }
    }

    /// The member, if it stands so.
    fn at(&mut self, identity: Identity, standing: Standing) -> Option<&mut Member> {
        let member = self.members.get_mut(&identity.slot)?;
        (member.identity == identity && member.standing == standing).then_some(member)
    }
}
