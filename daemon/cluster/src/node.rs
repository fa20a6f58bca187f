//! The node: routes what it is told to the parts that decide, and collects what they want done.
//!
//! Every event but one more heartbeat of a known peer is followed by one *turn* ([`Node::turn`]): timers, agreement, membership, then what the committed state
//! asks of this node as host and, if it leads, as DC. The parts look at how things are, not at what the event was; so an
//! event that is lost, doubled or late costs time and nothing else.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use crate::agreement::{Output, mix};
use crate::config::Config;
use crate::dc::Dc;
use crate::event::{Action, Actions, Event, Outcome, To, Work};
use crate::fencer::Fencer;
use crate::generation::{self, Belonging, Seeking};
use crate::hearing::{Hearing, Heartbeat, News};
use crate::host::{Desk, Host};
use crate::keys::Keys;
use crate::limits;
use crate::operator::Operator;
use crate::ops::Ops;
use crate::report::Telling;
use crate::shared::Shared;
use crate::state::Command;
use crate::trace::Trace;
use crate::ups::Watch;
use crate::wire::{self, Body, Form, Frame};
use crate::words::{
    ClusterGeneration, Edition, Failing, Identity, Incarnation, Instant, Life, LinkId, OpId, Role, Slot,
};

mod leave;
mod roster;
mod view;
mod watchdog;

pub use crate::wire::VERSION;

/// What a node is told of itself when it begins.
#[derive(Clone, Debug)]
pub struct Boot {
    /// The configuration.
    pub config: Arc<Config>,
    /// Its place in it.
    pub slot: Slot,
    /// This boot of its dom0.
    pub incarnation: Incarnation,
    /// How often its supervisor was started in this boot, from 0.
    pub start: u8,
    /// Where its randomness comes from.
    pub seed: u64,
    /// Whether there is a watchdog that resets this machine when it is not petted.
    pub watchdog: bool,
    /// The lease of an earlier life of this supervisor, if that was ever quorate ([`Action::Pet`]).
    pub lease: Option<Instant>,
    /// The oldest and the newest of the cluster's keys that its shell holds.
    pub keys: (u32, u32),
    /// The version of the wire format that it speaks at best: [`VERSION`]. Another is an older or a newer program's, which
    /// the simulator has.
    pub version: u8,
}

/// One node.
#[derive(Debug)]
pub struct Node {
    config: Arc<Config>,
    me: Identity,
    seed: u64,
    sequence: u64,
    beats: u64,
    /// The versions of the wire format: the best that this program knows, and the one that is spoken.
    best: u8,
    version: u8,
    /// When those things were last said that could be said all the time.
    said: BTreeMap<String, Instant>,
    telling: Telling,
    awake: Instant,
    next_beat: Instant,
    next_tick: Instant,
    hearing: Hearing,
    host: Host,
    shared: Shared,
    fencer: Fencer,
    operator: Operator,
    ups: Watch,
    ops: Ops,
    belonging: Result<Box<Belonging>, Seeking>,
    dc: Option<Dc>,
    /// Commands that were proposed, and when.
    proposed: Vec<(Command, Instant)>,
    /// Since when this node is to leave.
    leaving: Option<Instant>,
    /// Whether its operator wants it to.
    asked_to_leave: bool,
    powering_off: bool,
    watchdog: bool,
    /// Until when the watchdog is petted, come what may; `None` until this boot was quorate once.
    lease: Option<Instant>,
    self_fencing: bool,
    /// Why this node is about to die. It does not lead any more, so that another can become DC.
    failing: Option<(Failing, Instant)>,
    keys: Keys,
    /// The last edition of `cluster.toml` that is kept here: the one that it has booted with, and those that it was told since.
    kept: Edition,
    /// Whether its slot is not its own any more: it takes no part, and says nothing to the others.
    removed: bool,
    /// The last boots of removed nodes that were heard all the same.
    shunned: BTreeMap<Slot, Identity>,
}

impl Node {
    /// A node that has just begun.
    pub fn new(boot: Boot, now: Instant, actions: &mut Actions) -> Self {
        let Boot { config, slot, incarnation, start, seed, watchdog, lease, keys, version } = boot;
        assert!(config.has(slot), "a node is a slot of its configuration");
        let me = Identity { slot, incarnation, life: Life { start, abandoned: 0 } };
        let (links, kept) = (config.shared_links(slot), config.edition);
        actions.push(Action::Trace(Trace::Up { incarnation, start }));
        Self {
            config,
            me,
            seed: mix(seed),
            sequence: 0,
            beats: 0,
            best: version,
            version,
            said: BTreeMap::new(),
            telling: Telling::default(),
            awake: now,
            next_beat: now,
            next_tick: now,
            hearing: Hearing::new(me, links),
            host: Host::default(),
            shared: Shared::default(),
            fencer: Fencer::default(),
            operator: Operator::default(),
            ups: Watch::default(),
            ops: Ops::default(),
            belonging: Err(Seeking::default()),
            dc: None,
            proposed: Vec::new(),
            leaving: None,
            asked_to_leave: false,
            powering_off: false,
            watchdog,
            lease,
            self_fencing: false,
            failing: None,
            keys: Keys::new(now, keys),
            kept,
            removed: false,
            shunned: BTreeMap::new(),
        }
    }

    /// When this node wants to be told [`Event::Tick`], if nothing else happens before.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.next_beat.min(self.next_tick)
    }

    /// Takes one event and appends what is to be done to `actions`, in order.
    pub fn handle(&mut self, now: Instant, event: Event, actions: &mut Actions) {
        self.wake(now);
        let mut can_wait = false;
        match event {
            Event::Tick => {}
            Event::Heard { link, datagram } => can_wait = !self.heard(now, link, &datagram, actions),
            Event::Seen { domains, free } => self.host.seen(domains, free),
            Event::Read { files, decisions } => self.host.read(files, decisions),
            Event::Done { op, outcome } => self.done(now, op, outcome, actions),
            Event::Pulled { stream, vm, generation, by } => {
                self.host.pulled(now, (stream, vm, generation, by), actions);
            }
            Event::Described { machine } => self.host.described(machine),
            Event::Failing { reason } => self.fail(now, reason, actions),
            Event::Ups { ups, reading } => {
                let idle = self.state().is_some_and(|state| state.feeds_nobody(&self.config, ups));
                self.ups.read(now, ups, reading, idle);
            }
            Event::Shared { state } => {
                if self.shared.told(state) {
                    self.fail(now, Failing::Shared, actions);
                }
            }
            // What is kept of an earlier one came too late.
            Event::Kept { edition } if edition == self.config.edition => self.keeps(edition, actions),
            Event::Kept { .. } => {}
            Event::Keyed { key } => self.keys.given(key, actions),
            Event::Asked { id, request } => {
                self.operator.asked(now, id, request, &self.config, actions);
                if self.operator.wants_to_leave(&self.config, actions) {
                    self.asked_to_leave = true;
                    self.leaving.get_or_insert(now);
                }
            }
        }
        if !can_wait || now >= self.deadline() {
            self.turn(now, actions);
        }
    }

    /// Announces this node's death with a heartbeat at once, and with every one that follows.
    fn fail(&mut self, now: Instant, reason: Failing, actions: &mut Actions) {
        if self.failing.is_none() {
            self.failing = Some((reason, now));
            self.next_beat = now;
            actions.push(Action::Trace(Trace::Failing { reason }));
        }
    }

    /// If this node itself slept, nobody was silent, and others may have chosen another DC.
    fn wake(&mut self, now: Instant) {
        let late = now.since(self.awake.max(self.deadline()));
        self.hearing.slept(now, late, &self.config.timing);
        if late > self.config.timing.keepalive * limits::LEADERS_NAP
            && let Ok(belonging) = &mut self.belonging
        {
            belonging.agreement.slept();
        }
        self.awake = now;
    }

    /// A datagram; whether it is to be acted on at once. One more heartbeat of a peer can wait for the next tick.
    fn heard(&mut self, now: Instant, link: LinkId, datagram: &[u8], actions: &mut Actions) -> bool {
        let frame = match wire::decode(datagram, self.best) {
            Ok(frame) => frame,
            Err(reason) => {
                self.say_seldom(now, Trace::Malformed { reason }, actions);
                return false;
            }
        };
        let slot = frame.from.slot;
        if slot == self.me.slot || usize::from(slot.0) >= limits::NODES || self.removed || self.shuns(&frame, actions) {
            return false;
        }
        let beat = match &frame.body {
            Body::Heartbeat(beat) => Some(beat),
            Body::Form(_) | Body::Agreement { .. } | Body::Configuration(_) => None,
        };
        let node = || self.config.node_name(slot);
        let mut is_new = false;
        match self.hearing.hear(now, link, frame.from, frame.sequence, beat) {
            News::Nothing => {
                if let Body::Configuration(text) = &frame.body {
                    self.told_edition(now, None, text, actions);
                }
                return false;
            }
            News::New => {
                is_new = true;
                actions.push(Action::Trace(Trace::Heard { node: node(), incarnation: frame.from.incarnation }));
            }
            News::Known(silence) => {
                if self.hearing.back(slot) {
                    actions.push(Action::Trace(Trace::Back { node: node(), silence }));
                }
            }
        }
        match frame.body {
            Body::Heartbeat(beat) => return is_new || beat.failing.is_some(),
            Body::Form(form) => self.asked_to_form(now, form, actions),
            Body::Configuration(text) => self.told_edition(now, Some(frame.from), &text, actions),
            Body::Agreement { generation, to, message } => {
                self.agreement_message(now, frame.from, generation, to, &message, actions);
            }
        }
        true
    }

    fn asked_to_form(&mut self, now: Instant, form: Form, actions: &mut Actions) {
        let fits = form.present.contains(&self.me)
            && form.edition.is_none_or(|edition| edition == self.config.edition)
            && form.present.iter().all(|identity| self.config.has(identity.slot))
            && self.config.votes(form.present.iter().map(|identity| identity.slot)) >= self.config.majority();
        if self.belonging.is_err() && fits {
            actions.push(Action::Trace(Trace::Joined { generation: form.generation }));
            self.begin(Belonging::form(now, self.me, self.seed, &self.config, form));
        }
    }

    fn begin(&mut self, belonging: Belonging) {
        self.belonging = Ok(Box::new(belonging));
        self.proposed.clear();
        self.dc = None;
    }

    fn agreement_message(
        &mut self,
        now: Instant,
        from: Identity,
        generation: ClusterGeneration,
        to: Identity,
        message: &[u8],
        actions: &mut Actions,
    ) {
        if to != self.me {
            return;
        }
        if self.belonging.is_err() {
            actions.push(Action::Trace(Trace::Joined { generation }));
            self.begin(Belonging::join(now, self.me, self.seed, &self.config, generation));
        }
        if let Ok(belonging) = &mut self.belonging
            && belonging.generation == generation
            && let Err(reason) = belonging.agreement.step(from, message)
        {
            self.say_seldom(now, Trace::Malformed { reason }, actions);
        }
    }

    /// Says what could be said all the time: a node that sends a datagram that cannot be read sends many.
    fn say_seldom(&mut self, now: Instant, trace: Trace, actions: &mut Actions) {
        self.said.retain(|_, at| now.since(*at) < limits::SAY_AGAIN);
        if let Entry::Vacant(entry) = self.said.entry(trace.to_string()) {
            entry.insert(now);
            actions.push(Action::Trace(trace));
        }
    }

    fn done(&mut self, now: Instant, op: OpId, outcome: Outcome, actions: &mut Actions) {
        let Some(work) = self.ops.end(op) else { return };
        self.host.ended(&work, outcome == Outcome::Succeeded);
        if let Outcome::Failed(reason) = &outcome
            && let Some(trace) = view::failure(&self.config, &work, reason)
        {
            // They are tried again and again until the storage answers.
            if matches!(work, Work::Reserve | Work::Keep(_)) {
                self.say_seldom(now, trace, actions);
            } else {
                actions.push(Action::Trace(trace));
            }
        }
        let (said, fails) = self.shared.done(now, op, &outcome);
        actions.extend(said.map(Action::Trace));
        if fails {
            self.fail(now, Failing::Shared, actions);
        }
        let mut proposals = Vec::new();
        if let Ok(belonging) = &self.belonging
            && let Some(state) = &belonging.state
        {
            if let Outcome::Reserved(epoch) = outcome {
                self.host.reserved(state.generation, epoch);
            }
            let (ops, config) = (&mut self.ops, &*self.config);
            let (me, version) = (self.me, self.version);
            let (kept, keys) = (self.kept == config.edition, self.keys);
            let mut desk =
                Desk { now, me, version, kept, keys, config, state, ops, actions, proposals: &mut proposals };
            self.fencer.done(&mut desk, op, &work, outcome);
        }
        self.propose(now, proposals);
    }

    /// Looks at everything once, after every event.
    fn turn(&mut self, now: Instant, actions: &mut Actions) {
        self.tick(now);
        if !self.removed {
            self.seek(now, actions);
            self.settle(now, actions);
            self.act(now, actions);
            self.settle(now, actions);
        }
        self.operator.expire(now, &self.config, actions);
        self.order_upses(now, actions);
        self.leave(now, actions);
        self.beat(now, actions);
    }

    fn tick(&mut self, now: Instant) {
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + self.config.timing.keepalive / limits::TICKS_PER_KEEPALIVE;
        if let Ok(belonging) = &mut self.belonging {
            belonging.agreement.tick();
        }
    }

    /// Forms a generation, or gives one up.
    fn seek(&mut self, now: Instant, actions: &mut Actions) {
        match &mut self.belonging {
            Err(seeking) => {
                let form = generation::formation(seeking, now, self.me, self.seed, &self.config, &self.hearing);
                let Some(form) = form else { return };
                let names = form.present.iter().map(|identity| self.config.node_name(identity.slot));
                let trace = Trace::Forming { generation: form.generation, nodes: names.collect() };
                actions.push(Action::Trace(trace));
                actions.extend(view::absent(&self.config, &form.present).map(Action::Trace));
                self.send(To::All, Body::Form(form.clone()), actions);
                let mut belonging = Belonging::form(now, self.me, self.seed, &self.config, form);
                belonging.agreement.campaign();
                self.begin(belonging);
            }
            Ok(belonging) => {
                let verdict = belonging.verdict(now, self.me, &self.config, &self.hearing);
                let Some(reason) = verdict else { return };
                actions.push(Action::Trace(Trace::Abandoned { generation: belonging.generation, reason }));
                actions.extend(belonging.loses().map(Action::Trace));
                let Some(abandoned) = self.me.life.abandoned.checked_add(1) else {
                    panic!("a supervisor that gave up 255 generations is restarted")
                };
                self.me.life.abandoned = abandoned;
                self.hearing.renamed(self.me);
                self.host.refuse_all(actions);
                self.belonging = Err(Seeking::default());
                self.dc = None;
                // What the cluster wanted of this node is of the past, but not what its operator wants.
                self.leaving = self.leaving.filter(|_| self.asked_to_leave);
            }
        }
    }

    /// Takes what the agreement has ready, until it has nothing more.
    fn settle(&mut self, now: Instant, actions: &mut Actions) {
        let Ok(belonging) = &mut self.belonging else { return };
        let generation = belonging.generation;
        // Whoever fails does not lead, as long as there is another who could. After `lease` nobody will end it any more, and
        // it may be the only one who knows everything that was committed.
        let fails = self.failing.is_some_and(|(_, since)| now.since(since) < self.config.timing.lease);
        let resigns = fails && belonging.hears_a_voter(now, self.me, &self.config, &self.hearing);
        belonging.agreement.resign(resigns);
        let Output { messages, committed } = belonging.agreement.take();
        let says = belonging.agreement.is_leader();
        let mut config = Arc::clone(&self.config);
        for step in committed {
            let said = roster::commit(&mut belonging.state, &mut config, step);
            if says {
                actions.extend(said.into_iter().map(Action::Trace));
            }
        }
        if let Some(state) = &belonging.state {
            belonging.agreement.compact(|| state.to_bytes());
        }
        self.configure(now, config, actions);
        for (to, message) in messages {
            self.send(To::Node(to.slot), Body::Agreement { generation, to, message }, actions);
        }
        self.note_quorum(now, actions);
    }

    fn note_quorum(&mut self, now: Instant, actions: &mut Actions) {
        let Ok(belonging) = &mut self.belonging else { return };
        if belonging.note_quorum(now, self.me, &self.config, &self.hearing) {
            let trace = if belonging.is_quorate() { Trace::Quorate } else { Trace::Inquorate };
            actions.push(Action::Trace(trace));
        }
        let view = belonging.state.as_ref().map(|state| state.view);
        let in_office = belonging.is_quorate() && belonging.may_act(self.me);
        match (&self.dc, in_office, view) {
            (None, true, Some(view)) => {
                actions.push(Action::Trace(Trace::BecameDc { view }));
                self.dc = Some(Dc::new(now));
            }
            (Some(_), false, _) if !belonging.agreement.is_leader() || belonging.agreement.has_resigned() => {
                actions.push(Action::Trace(Trace::NoLongerDc));
                self.dc = None;
            }
            _ => {}
        }
    }

    /// What the committed state asks of this node, as host and as DC. Inquorate, it asks nothing: freeze.
    fn act(&mut self, now: Instant, actions: &mut Actions) {
        for (slot, silence) in self.hearing.fallen_quiet(now, self.config.timing.warntime) {
            let node = self.config.node_name(slot);
            actions.push(Action::Trace(Trace::Quiet { node, silence }));
        }
        for (slot, link, news) in self.hearing.changed_links(now, self.config.timing.warntime) {
            actions.push(Action::Trace(view::link_news(&self.config, slot, link, news)));
        }
        for (slot, reason) in self.hearing.begun_to_fail() {
            let node = self.config.node_name(slot);
            actions.push(Action::Trace(Trace::SaysFailing { node, reason }));
        }
        let goes = self.is_emptied();
        let Ok(belonging) = &mut self.belonging else { return };
        // A leader that has slept may be alone by now: nobody has told it, for it hears itself.
        let quorate = belonging.is_quorate() && !belonging.agreement.is_in_doubt();
        let Some(state) = belonging.state.as_ref().filter(|_| quorate) else {
            return;
        };
        let may_act = belonging.may_act(self.me);
        let (kept, keys) = (self.kept == self.config.edition, self.keys);
        let mut proposals = Vec::new();
        let (ops, config) = (&mut self.ops, &*self.config);
        let (me, version) = (self.me, self.version);
        let mut desk = Desk { now, me, version, kept, keys, config, state, ops, actions, proposals: &mut proposals };
        self.fencer.review(&mut desk, &self.hearing, may_act && self.dc.is_some());
        self.ups.review(&mut desk, may_act && self.dc.is_some());
        self.shared.review(&mut desk, goes);
        self.operator.review(&mut desk, &self.hearing, &self.host, &belonging.agreement);
        if config.node(self.me.slot).role == Role::Gateway {
            self.host.reserve(&mut desk);
        } else if !state.duty(self.me.slot).maintenance {
            self.host.review(&mut desk);
        }
        if let Some(dc) = self.dc.as_mut().filter(|_| may_act) {
            dc.review(&mut desk, &self.hearing, &mut belonging.agreement, &self.host);
        }
        proposals.extend(self.way_out(now));
        self.propose(now, proposals);
    }

    /// Proposes what is not already proposed and may still come true.
    fn propose(&mut self, now: Instant, proposals: Vec<Command>) {
        let Ok(belonging) = &mut self.belonging else { return };
        let patience = self.config.timing.keepalive * 2;
        self.proposed.retain(|(_, at)| now.since(*at) < patience);
        for command in proposals {
            if self.proposed.iter().any(|(other, _)| *other == command) {
                continue;
            }
            if let Ok(bytes) = postcard::to_allocvec(&command) {
                belonging.agreement.propose(bytes);
            }
            self.proposed.push((command, now));
        }
    }

    fn beat(&mut self, now: Instant, actions: &mut Actions) {
        if now < self.next_beat {
            return;
        }
        let (keepalive, deadtime) = (self.config.timing.keepalive, self.config.timing.deadtime);
        self.next_beat = now + keepalive;
        self.pet(now, actions);
        if self.removed {
            return;
        }
        self.review_keys(now, actions);
        let belonging = self.belonging.as_ref().ok();
        let state = belonging.and_then(|belonging| belonging.state.as_ref());
        let mut hears = self.hearing.named(now, deadtime);
        // Whoever is to be fenced must not go on believing that it is heard: its lease is to run.
        hears.retain(|identity| {
            state.and_then(|state| state.member(*identity)).is_none_or(crate::state::Member::is_present)
        });
        let disarmed = state.is_some_and(|state| state.is_disarmed(self.me.slot));
        let armed = self.watchdog && self.config.self_fence && !disarmed;
        self.beats = self.beats.saturating_add(1);
        let spoken = wire::common(self.best, self.hearing.alive(now, deadtime).map(|peer| peer.beat.speaks));
        if core::mem::replace(&mut self.version, spoken) != spoken {
            actions.push(Action::Trace(Trace::Speaks { version: spoken }));
        }
        let beat = Heartbeat {
            speaks: self.best,
            beat: self.beats,
            hears,
            armed: state.map(|state| state.armament).filter(|_| armed),
            generation: belonging.map(|belonging| belonging.generation),
            quorate: self.is_quorate(),
            free: self.host.free(),
            part: self.telling.next(|| self.host.vms()),
            failing: self.failing.map(|(reason, _)| reason).or(self.self_fencing.then_some(Failing::Watchdog)),
            edition: Some(if belonging.is_some() { self.kept } else { self.config.edition }),
            keys: Some(self.keys.told),
        };
        let form = belonging.and_then(|belonging| belonging.form.clone().filter(|_| !belonging.is_quorate()));
        self.send(To::All, Body::Heartbeat(beat), actions);
        if let Some(form) = form {
            self.send(To::All, Body::Form(form), actions);
        }
        self.tell_edition(now, actions);
    }

    fn send(&mut self, to: To, body: Body, actions: &mut Actions) {
        self.sequence = self.sequence.saturating_add(1);
        let datagram = wire::encode(Frame { from: self.me, sequence: self.sequence, body }, self.version);
        // Of whom this edition does not know, the shell knows no address.
        let known = |to| if let To::Node(slot) = to { self.config.has(slot) } else { true };
        let to = if known(to) { to } else { To::All };
        actions.push(Action::Send { to, datagram });
    }
}
