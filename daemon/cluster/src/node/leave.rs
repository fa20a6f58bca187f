//! On the way out: when this node may go, and when it powers off.
//!
//! Somebody asked it to (its operator, or the cluster for want of power), the others agree that it runs nothing any more,
//! and it powers off; or boots anew, if it is its turn in a rolling restart. Where nobody is left to agree, as when the whole
//! cluster goes down, it does so by itself. Whoever
//! goes last has the UPSes cut their load first and give power again with mains: otherwise mains that came back in the
//! meantime would find everybody switched off, and nothing would ever switch them on.

use super::Node;
use crate::event::{Action, Actions, Work};
use crate::generation::Belonging;
use crate::limits;
use crate::state::{Command, Member, Standing, State};
use crate::trace::Trace;
use crate::words::{Instant, Role, Slot};

impl Node {
    pub(super) fn state(&self) -> Option<&State> {
        self.belonging.as_ref().ok().and_then(|belonging| belonging.state.as_ref())
    }

    /// Whether this machine runs no VM, as far as its role lets it run any.
    fn idle(&self) -> bool {
        self.config.node(self.me.slot).role == Role::Gateway || self.host.is_empty()
    }

    /// Whether no majority has been there for so long that none of it still counts on this node.
    fn is_left_alone(&self, now: Instant) -> bool {
        let since = |belonging: &Belonging| belonging.inquorate_since;
        let since = self.belonging.as_ref().ok().and_then(|belonging| since(belonging));
        since.is_some_and(|since| now.since(since) >= self.config.timing.deadtime)
    }

    /// Whether this node leaves, and has nothing of the cluster's any more but the shared file system.
    pub(super) fn is_emptied(&self) -> bool {
        let Some(state) = self.state() else { return false };
        let owns = || state.vms.values().any(|vm| vm.concerns(self.me));
        let awaited = |member: &Member| member.withdrawn && state.is_awaited(&self.config, self.me.slot);
        let leaves = |member: &Member| member.standing == Standing::Leaving && !awaited(member);
        state.member(self.me).is_some_and(leaves) && !owns() && self.idle()
    }

    /// What is to be agreed of this node's leaving. Called when quorate only.
    pub(super) fn way_out(&mut self, now: Instant) -> Option<Command> {
        let member = self.state()?.member(self.me)?;
        let (standing, withdrawn) = (member.standing, member.withdrawn);
        match standing {
            // An earlier life of this supervisor was asked to, or the cluster wants it.
            Standing::Leaving => drop(self.leaving.get_or_insert(now)),
            Standing::Member => {
                self.leaving = self.leaving.filter(|_| self.asked_to_leave);
                self.ups.forget_orders();
            }
            Standing::Off | Standing::Waking | Standing::Unclean | Standing::Fenced | Standing::Booting => {}
        }
        self.leaving?;
        let free = self.is_emptied() && self.state()?.lockspace.is_out(self.me.slot);
        match standing {
            Standing::Member => Some(Command::Leave(self.me)),
            Standing::Leaving if withdrawn && self.asked_to_leave => Some(Command::Leave(self.me)),
            Standing::Leaving if free => Some(Command::Left(self.me)),
            Standing::Leaving
            | Standing::Off
            | Standing::Waking
            | Standing::Unclean
            | Standing::Fenced
            | Standing::Booting => None,
        }
    }

    /// Powers off when the cluster has agreed, or when nobody is there to agree and nothing runs any more.
    pub(super) fn leave(&mut self, now: Instant, actions: &mut Actions) {
        let Some(since) = self.leaving.filter(|_| !self.powering_off) else {
            return;
        };
        // Nothing presses then: alone or unheeded, it stays as it is.
        let restarts = self.restarts();
        let member = self.state().and_then(|state| state.member(self.me));
        let agreed = member.is_some_and(|member| member.standing == Standing::Off);
        let withdrawn = member.is_some_and(|member| member.withdrawn);
        // As long as there is a DC, the contracts of the VMs are its to keep; but not for ever.
        let unheeded = !restarts && now.since(since) >= self.config.timing.evacuation * 2;
        let alone = match &self.belonging {
            Ok(belonging) => belonging.inquorate_since,
            Err(_) => Some(since),
        };
        // It could take a moment until there is another DC. Without one nobody can take the VMs.
        let alone = !restarts && alone.is_some_and(|alone| now.since(alone.max(since)) >= self.config.timing.deadtime);
        if !agreed && (alone || unheeded) {
            let node = &self.config.node(self.me.slot).name;
            self.host.shut_down(now, node, &mut self.ops, actions);
        }
        let last = !withdrawn || self.others_are_gone(now);
        let free = agreed || ((alone || self.belonging.is_err()) && self.idle());
        // Its death was announced when it could not let go of the shared file system: nobody believes that it has left.
        let stuck = self.shared.stuck().is_some_and(|at| now.since(at) >= self.config.timing.warntime) && self.idle();
        let hopeless = stuck || (!restarts && now.since(since) >= self.config.timing.evacuation * 3);
        if ((free && last) || hopeless) && !self.ops.cut_load() {
            if restarts {
                self.powering_off = true;
                actions.extend([Action::Trace(Trace::Restarting), Action::Restart]);
            } else {
                self.power_off(actions);
            }
        }
    }

    /// Whether it leaves to boot anew, and neither for its operator nor for want of power.
    fn restarts(&self) -> bool {
        let withdrawn = |state: &State| state.member(self.me).is_some_and(|member| member.withdrawn);
        let turn = |state: &State| state.rolling.is_turn_of(self.me) && !withdrawn(state);
        !self.asked_to_leave && self.state().is_some_and(turn)
    }

    /// Has the machine switch itself off.
    pub(super) fn power_off(&mut self, actions: &mut Actions) {
        self.powering_off = true;
        actions.push(Action::Trace(Trace::PoweringOff));
        actions.push(Action::PowerOff);
    }

    /// Whether this node need not wait for others to go before it: it is not the last, or they are off.
    fn others_are_gone(&self, now: Instant) -> bool {
        let Some(state) = self.state().filter(|_| self.config.last_to_go() == self.me.slot) else { return true };
        let goes = |(slot, member): (&Slot, &Member)| member.withdrawn && !self.is_gone(now, state, *slot);
        !state.members.iter().filter(|(slot, _)| **slot != self.me.slot).any(goes)
    }

    /// Whether a slot is off, as agreed; or was about to be, when this node was left alone, and is not heard any more.
    fn is_gone(&self, now: Instant, state: &State, slot: Slot) -> bool {
        let heard = self.hearing.alive(now, self.config.timing.deadtime).any(|peer| peer.identity.slot == slot);
        state.members.get(&slot).is_none_or(|member| match member.standing {
            Standing::Off | Standing::Waking | Standing::Fenced | Standing::Booting => !heard,
            Standing::Leaving => member.withdrawn && !heard && self.is_left_alone(now),
            Standing::Member | Standing::Unclean => false,
        })
    }

    /// As the last to go: has the UPSes cut their load whose nodes are off, when nobody will be there to wake those, or this
    /// node is about to be off itself.
    pub(super) fn order_upses(&mut self, now: Instant, actions: &mut Actions) {
        if self.config.last_to_go() != self.me.slot || self.config.upses.is_empty() {
            return;
        }
        let Some(state) = self.state() else { return };
        let me = state.member(self.me);
        let off = me.is_some_and(|member| member.withdrawn && member.standing == Standing::Off);
        if !off && !self.is_left_alone(now) {
            return;
        }
        let goes = me.is_some_and(|member| member.withdrawn);
        let gone: Vec<Slot> = self.config.slots().map(|(slot, _)| slot).collect();
        let gone = gone.into_iter().filter(|slot| self.is_gone(now, state, *slot) || (*slot == self.me.slot && goes));
        let gone: Vec<Slot> = gone.collect();
        let mut watch = core::mem::take(&mut self.ups);
        let due = self.state().map(|state| watch.orders_due(&self.config, state, |slot| gone.contains(&slot)));
        self.ups = watch;
        for ups in due.into_iter().flatten() {
            let name = self.config.ups(ups).map(|ups| ups.name.clone()).unwrap_or_default();
            actions.push(Action::Trace(Trace::CutsLoad { ups: name }));
            self.ops.begin(now, limits::UPS_ORDER, Work::CutLoad { ups }, actions);
        }
    }
}
