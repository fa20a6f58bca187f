//! The watchdog: petted for as long as this node may go on.

use super::Node;
use crate::event::{Action, Actions};
use crate::trace::Trace;
use crate::words::{Instant, Role};

impl Node {
    /// Pets the watchdog, unless this boot was quorate or has VMs, and the majority has been gone for the whole lease; or
    /// this node has been failing for as long and nobody has fenced it. The others are told before the machine is reset.
    pub(super) fn pet(&mut self, now: Instant, actions: &mut Actions) {
        let belonging = self.belonging.as_ref().ok();
        let state = belonging.and_then(|belonging| belonging.state.as_ref());
        let fresh = now + self.config.timing.lease;
        let spared = !self.config.self_fence
            || self.config.node(self.me.slot).role == Role::Gateway
            || state.is_some_and(|state| state.is_disarmed(self.me.slot));
        if belonging.is_some_and(|belonging| belonging.was_fenced(self.me)) && !spared {
            if !core::mem::replace(&mut self.self_fencing, true) {
                actions.push(Action::Trace(Trace::FencedAlive));
            }
            return;
        }
        let begins = self.lease.is_none() && !(self.host.vms().is_empty() && self.ops.is_empty());
        if begins || spared || belonging.is_some_and(|belonging| belonging.is_quorate()) {
            self.lease = Some(fresh);
        }
        let lease = self.lease.unwrap_or(fresh);
        let past_help = self.failing.filter(|(_, since)| !spared && now.since(*since) >= self.config.timing.lease);
        if now < lease && past_help.is_none() {
            self.self_fencing = false;
            actions.push(Action::Pet { lease: self.lease });
        } else if !core::mem::replace(&mut self.self_fencing, true) {
            let silence = now.since(lease) + self.config.timing.lease;
            let trace = past_help.map_or(Trace::SelfFencing { silence }, |(reason, _)| Trace::PastHelp { reason });
            actions.push(Action::Trace(trace));
        }
    }
}
