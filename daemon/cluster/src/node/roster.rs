//! Which edition of `cluster.toml` this node goes by: that of its file, until it is told another.
//!
//! A member goes by what was committed. Whoever belongs to no generation takes what a living one tells, be it newer
//! or older; where there is none, seekers take the newest that any of them has, and form by that. A node that finds its slot
//! taken from it takes no part any more, and powers off, as it was when it was removed: one that comes back does not know until it
//! is told, and only another boot could take another slot.

use std::sync::Arc;

use super::Node;
use crate::agreement::Committed;
use crate::config::Config;
use crate::event::{Action, Actions, To};
use crate::generation::Seeking;
use crate::limits;
use crate::state::State;
use crate::trace::Trace;
use crate::wire::{self, Body, Frame};
use crate::words::{Edition, Identity, Instant, Role, Slot};

/// One committed step, applied to the state, and to the configuration that follows from it. What is not understood changes
/// nothing, on every node alike.
pub(super) fn commit(state: &mut Option<State>, config: &mut Arc<Config>, step: Committed) -> Vec<Trace> {
    let said = match (step, state.as_mut()) {
        (Committed::Snapshot(bytes), _) => {
            *state = State::from_bytes(&bytes, config);
            Vec::new()
        }
        (Committed::Command(bytes), Some(state)) => {
            postcard::from_bytes(&bytes).map_or_else(|_| Vec::new(), |command| state.apply(config, command))
        }
        (Committed::Fill(identity), Some(state)) if config.has(identity.slot) => state.fill(config, identity),
        (Committed::Command(_) | Committed::Fill(_), _) => Vec::new(),
    };
    if let Some(roster) = state.as_ref().map(|state| &state.roster).filter(|roster| roster.edition != config.edition) {
        let told = Config::parse(&roster.text).ok().filter(|told| told.edition == roster.edition);
        *config = told.map_or_else(|| Arc::clone(config), Arc::new);
    }
    // Only a snapshot can bring what does not fit.
    *state = state.take().filter(|state| state.roster.edition == config.edition && state.fits(config));
    said
}

impl Node {
    /// The edition of `cluster.toml` that this node goes by, and how much of the agreement it has applied; `None` as long as
    /// it knows no agreed state.
    #[must_use]
    pub fn roster(&self) -> Option<(u64, Edition)> {
        let belonging = self.belonging.as_ref().ok().filter(|belonging| belonging.state.is_some())?;
        Some((belonging.agreement.applied(), self.config.edition))
    }

    /// The slots that vote, as far as this node knows; in a joint change, of both sides.
    #[must_use]
    pub fn voters(&self) -> Vec<Slot> {
        let voters = self.belonging.iter().flat_map(|belonging| belonging.agreement.voters().flatten());
        let mut slots: Vec<Slot> = voters.map(|voter| voter.slot).collect();
        slots.sort();
        slots.dedup();
        slots
    }

    /// An edition is kept. The gateway, which derives the cluster's keys, holds a new one then: not before its next boot would.
    pub(super) fn keeps(&mut self, edition: Edition, actions: &mut Actions) {
        self.kept = edition;
        if self.config.node(self.me.slot).role == Role::Gateway {
            self.keys.given(self.config.key, actions);
        }
    }

    /// Looks at the cluster's keys, once a heartbeat.
    pub(super) fn review_keys(&mut self, now: Instant, actions: &mut Actions) {
        let belonging = self.belonging.as_ref().ok();
        let state = belonging.and_then(|belonging| belonging.state.as_ref());
        let present = |state: &State| {
            state.members.iter().filter(|(_, member)| member.is_present()).map(|(slot, _)| *slot).collect::<Vec<_>>()
        };
        let members = state.map(present);
        self.keys.review(
            (now, self.me.slot),
            &self.config,
            (self.is_quorate(), members.as_deref()),
            &self.hearing,
            actions,
        );
    }

    /// Goes by this configuration from now on.
    pub(super) fn configure(&mut self, now: Instant, config: Arc<Config>, actions: &mut Actions) {
        if config.edition == self.config.edition {
            return;
        }
        let slot = self.me.slot;
        let ours = config.has(slot) && config.node_name(slot) == self.config.node_name(slot);
        let (edition, text) = (config.edition, config.text.clone());
        actions.push(Action::Configured { edition, text });
        if !ours {
            self.removed = true;
            actions.push(Action::Trace(Trace::WasRemoved { edition: config.edition }));
            self.host.refuse_all(actions);
            self.belonging = Err(Seeking::default());
            self.dc = None;
            self.power_off(actions);
            return;
        }
        self.hearing.configured(now, config.shared_links(slot));
        if let Ok(belonging) = &mut self.belonging {
            belonging.agreement.configured(&config);
        }
        self.config = config;
    }

    /// Another node tells its edition; `from` is `None` if it was not proven fresh. A newer edition is taken all the same:
    /// nobody can make up one.
    pub(super) fn told_edition(&mut self, now: Instant, from: Option<Identity>, text: &str, actions: &mut Actions) {
        if self.belonging.is_ok() {
            return;
        }
        let Ok(config) = Config::parse(text) else { return };
        let lives = |from: Identity| self.hearing.peer(from.slot).is_some_and(|peer| peer.beat.quorate);
        if config.edition > self.config.edition || (config.edition != self.config.edition && from.is_some_and(lives)) {
            let edition = config.edition;
            self.configure(now, Arc::new(config), actions);
            if !self.removed {
                actions.push(Action::Trace(Trace::Configured { edition }));
            }
        }
    }

    /// Tells others that have another edition: as DC everybody who wants to come in; where nobody is quorate, those whose is older.
    pub(super) fn tell_edition(&mut self, now: Instant, actions: &mut Actions) {
        let warntime = self.config.timing.warntime;
        let living = || self.hearing.alive(now, warntime).any(|peer| peer.beat.quorate);
        let leads = self.dc.is_some();
        if !self.tells() || !(leads || !(self.is_quorate() || living())) {
            return;
        }
        let own = self.config.edition;
        let other = |edition: Edition| if leads { edition != own } else { edition < own };
        let seekers = self.hearing.alive(now, warntime).filter(|peer| peer.beat.generation.is_none());
        let told = seekers.filter(|peer| peer.beat.edition.is_some_and(other)).map(|peer| peer.identity.slot);
        for slot in told.collect::<Vec<_>>() {
            self.send(To::Node(slot), Body::Configuration(self.config.text.clone()), actions);
        }
    }

    /// Whether an edition is told with this heartbeat: it is long, and whoever needs it can wait.
    fn tells(&self) -> bool {
        self.version >= wire::EDITIONS && self.beats.is_multiple_of(limits::TELL_EDITION)
    }

    /// Whether a datagram is of a node that was removed. The DC says so once, and tells it.
    pub(super) fn shuns(&mut self, frame: &Frame, actions: &mut Actions) -> bool {
        let from = frame.from;
        let shuns = self.config.has_removed(from.slot);
        if shuns && self.dc.is_some() && matches!(frame.body, Body::Heartbeat(_)) {
            if self.shunned.insert(from.slot, from) != Some(from) {
                let (node, incarnation) = (self.config.node_name(from.slot), from.incarnation);
                actions.push(Action::Trace(Trace::Shunned { node, incarnation }));
                self.send(To::Node(from.slot), Body::Configuration(self.config.text.clone()), actions);
            } else if self.tells() {
                self.send(To::Node(from.slot), Body::Configuration(self.config.text.clone()), actions);
            }
        }
        shuns
    }
}
