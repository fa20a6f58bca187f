//! Which of the cluster's keys are held, sealed with and opened: how all members come from one to the next without losing a word.
//!
//! Keys are numbers here: `cluster.toml` says which one is to be held ([`Config::key`]), and the shell has the keys themselves, from
//! the gateway. A change goes in three steps, each of which every node takes by itself, by what the others say in their heartbeats:
//!
//! ```text
//! holds   the gateway as soon as it keeps that edition; a node as soon as the gateway has given it the key
//! seals   with what all members hold: whatever is said is understood by all
//! least   what all members seal with: nobody says anything older any more, and the shell forgets it
//! ```
//!
//! None of the three ever falls. A member that is silent is waited for, as long as it is one: it comes back, or is proven off; and the
//! gateway is always waited for, from which whoever was left behind has to be given the key.
//!
//! Whoever has not been quorate for `deadtime` is *lost*: the key that it holds may be one that the others have forgotten. It asks the
//! gateway; so does whoever does not hear the gateway, which may have gone on to the next key with an edition that died with its
//! generation. And as long as who is lost holds two it says some heartbeats by the one and some by the other, for it cannot know who
//! is left; so does whoever waits for a member that is silent, for that may have booted anew, with the newer one alone. Which by which is the
//! Thue-Morse sequence: never three alike in a row, and whatever goes with every nth heartbeat is said by both (for the
//! sequence, J.-P. Allouche and J. Shallit, "The ubiquitous Prouhet-Thue-Morse sequence").

use crate::config::Config;
use crate::event::{Action, Actions};
use crate::hearing::{Hearing, KeysTold, Peer};
use crate::limits;
use crate::trace::Trace;
use crate::words::{Instant, Role, Slot};

/// This node's keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys {
    pub(crate) told: KeysTold,
    /// The older one of the two that the shell may hold.
    before: u32,
    /// The oldest that it opens.
    pub(crate) least: u32,
    /// What the shell does: the key that it seals with, and the oldest that it opens.
    ordered: (u32, u32),
    /// When this node was quorate last.
    quorate: Instant,
    /// Heartbeats so far, and whether the present one goes by the newer key, though others may not hold it.
    beats: u32,
    turn: bool,
    /// When the gateway may be asked again, and how often it was asked in vain.
    next: Instant,
    asked: u32,
}

impl Keys {
    /// With these in the shell's hands, the oldest and the newest.
    pub(crate) fn new(now: Instant, (least, holds): (u32, u32)) -> Self {
        let told = KeysTold { holds, seals: least };
        Self {
            told,
            before: least,
            least,
            ordered: (least, least),
            quorate: now,
            beats: 0,
            turn: false,
            next: now,
            asked: 0,
        }
    }

    /// The shell has a key.
    pub(crate) fn given(&mut self, key: u32, actions: &mut Actions) {
        if key > self.told.holds {
            self.before = self.told.holds;
            self.told.holds = key;
            self.asked = 0;
            actions.push(Action::Trace(Trace::KeyHeld { key }));
            self.order(actions);
        }
    }

    /// The shell is told what it does differently from now on.
    fn order(&mut self, actions: &mut Actions) {
        let order = (self.seal(), self.least);
        if order != self.ordered {
            self.ordered = order;
            actions.push(Action::Keys { seal: order.0, least: order.1 });
        }
    }

    /// With which of the two the shell seals. Who has missed a change may not hold what all others do: then it is the next newer one.
    fn seal(&self) -> u32 {
        let newer = self.turn || self.told.seals > self.before;
        if newer { self.told.holds } else { self.before }
    }

    /// The newest key that this node knows of.
    pub(crate) fn newest(&self, now: Instant, config: &Config, hearing: &Hearing) -> u32 {
        let told = hearing.alive(now, config.timing.deadtime).filter_map(|peer| peer.beat.keys);
        told.map(|told| told.holds).fold(self.told.holds.max(config.key), u32::max)
    }

    /// Whether every member seals with the key that `cluster.toml` names.
    pub(crate) fn are_settled(&self, config: &Config) -> bool {
        self.least >= config.key
    }

    /// Looks at what the others say, of whom `members` have to be waited for; `None` where nobody knows who they are.
    pub(crate) fn review(
        &mut self,
        (now, me): (Instant, Slot),
        config: &Config,
        (quorate, members): (bool, Option<&[Slot]>),
        hearing: &Hearing,
        actions: &mut Actions,
    ) {
        let deadtime = config.timing.deadtime;
        let heard = |slot: Slot| hearing.peer(slot).filter(|peer| now.since(peer.last) < deadtime);
        let told = |peer: &Peer| peer.beat.keys;
        let gateway = config.gateway().map(|(slot, _)| slot).filter(|slot| *slot != me);
        let newest = self.newest(now, config, hearing);
        if quorate {
            self.quorate = now;
        }
        let lost = now.since(self.quorate) >= deadtime;
        let deaf = gateway.is_some_and(|slot| heard(slot).is_none());
        if (newest > self.told.holds || lost || deaf) && config.node(me).role == Role::Node && self.next <= now {
            self.next = now + limits::ASK_FOR_KEY;
            self.asked = if newest > self.told.holds { self.asked.saturating_add(1) } else { 0 };
            // Said once: the first time it may just not have kept it yet.
            if self.asked == 2 {
                actions.push(Action::Trace(Trace::KeyAwaited { key: newest }));
            }
            actions.push(Action::AskForKey);
        }
        let (seals, least) = (self.told.seals, self.least);
        let mut unsure = lost;
        if let Some(members) = members {
            let others = || members.iter().filter(|slot| **slot != me).map(|slot| heard(*slot).and_then(told));
            unsure |= others().any(|told| told.is_none());
            let leads = others().flatten().map(|told| told.seals).max().unwrap_or(0);
            let common = others().map(|told| told.map_or(0, |told| told.holds)).min().unwrap_or(u32::MAX);
            // Nobody is given a newer key by a gateway than its own file names: until it has that edition, some do not have that key.
            let given = if config.node(me).role == Role::Gateway { config.key } else { u32::MAX };
            self.told.seals = seals.max(self.told.holds.min(common.max(leads)).min(given));
            let all = others().chain(gateway.map(|slot| heard(slot).and_then(told)));
            let all = all.map(|told| told.map_or(0, |told| told.seals)).min().unwrap_or(u32::MAX);
            self.least = least.max(self.told.seals.min(all));
        }
        self.beats = self.beats.wrapping_add(1);
        self.turn = unsure && self.beats.count_ones() % 2 == 1 && self.told.seals < self.told.holds;
        self.order(actions);
        if least != self.least {
            actions.push(Action::Trace(Trace::KeyAlone { key: self.least }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::hearing::Heartbeat;
    use crate::words::{Identity, Incarnation, Life, LinkId};

    fn identity(slot: u8) -> Identity {
        let incarnation = Incarnation::new(u64::from(slot) + 1).unwrap();
        Identity { slot: Slot(slot), incarnation, life: Life::default() }
    }

    /// node1 of a gateway and two nodes, which says what it makes of what the two others say of their keys.
    struct Node1 {
        config: Config,
        hearing: Hearing,
        keys: Keys,
        beat: u64,
    }

    impl Node1 {
        fn new(keys: (u32, u32)) -> Self {
            let config = Config::parse(include_str!("config/good.toml")).unwrap();
            let hearing = Hearing::new(identity(1), BTreeMap::new());
            Self { config, hearing, keys: Keys::new(Instant::ZERO, keys), beat: 0 }
        }

        /// A millisecond later; the gateway says this, and node2.
        fn hears(&mut self, told: [Option<(u32, u32)>; 2]) -> (u32, u32) {
            self.beat += 1;
            let now = Instant::from_millis(self.beat);
            for (slot, told) in [0, 2].into_iter().zip(told) {
                let keys = told.map(|(holds, seals)| KeysTold { holds, seals });
                let beat = Heartbeat { beat: self.beat, hears: vec![identity(1)], keys, ..Heartbeat::default() };
                self.hearing.hear(now, LinkId(0), identity(slot), self.beat, Some(&beat));
            }
            self.review(now, true, Some(&[Slot(0), Slot(1), Slot(2)])).0
        }

        fn review(&mut self, now: Instant, quorate: bool, members: Option<&[Slot]>) -> ((u32, u32), Vec<Action>) {
            let mut actions = Actions::new();
            self.keys.review((now, Slot(1)), &self.config, (quorate, members), &self.hearing, &mut actions);
            ((self.keys.told.seals, self.keys.least), actions)
        }
    }

    #[test]
    fn a_node_seals_with_what_all_hold_and_forgets_what_nobody_seals_with() {
        let mut node = Node1::new((1, 1));
        assert_eq!(node.hears([Some((1, 1)), Some((1, 1))]), (1, 1));
        assert_eq!(node.hears([Some((2, 1)), Some((2, 1))]), (1, 1), "it does not hold it itself");
        node.keys.given(2, &mut Actions::new());
        assert_eq!(node.hears([Some((2, 1)), Some((2, 1))]), (2, 1));
        assert_eq!(node.hears([Some((2, 2)), Some((2, 1))]), (2, 1), "node2 may still say something with the old one");
        assert_eq!(node.hears([Some((2, 2)), Some((2, 2))]), (2, 2));
        assert_eq!(node.hears([Some((1, 1)), None]), (2, 2), "it never falls");
    }

    #[test]
    fn a_member_that_does_not_hold_it_is_waited_for_unless_another_knows_better() {
        for other in [Some((1, 1)), None] {
            let mut node = Node1::new((1, 1));
            node.keys.given(2, &mut Actions::new());
            assert_eq!(node.hears([Some((2, 1)), other]), (1, 1));
            assert_eq!(node.hears([Some((2, 2)), other]), (2, 1), "the gateway has heard that all hold it");
        }
    }

    #[test]
    fn who_missed_a_change_seals_with_what_it_holds() {
        let mut node = Node1::new((1, 1));
        node.keys.given(3, &mut Actions::new());
        node.hears([Some((2, 1)), Some((2, 1))]);
        assert_eq!((node.keys.told.seals, node.keys.seal()), (2, 3), "all others hold key 2");
        let mut node = Node1::new((1, 2));
        let mut actions = Actions::new();
        node.keys.given(3, &mut actions);
        assert!(actions.contains(&Action::Keys { seal: 2, least: 1 }), "the shell keeps two: {actions:?}");
        node.hears([Some((1, 1)), Some((1, 1))]);
        assert_eq!((node.keys.told.seals, node.keys.seal()), (1, 2));
    }

    /// Otherwise those whom it gave its file's key when they booted would not understand it, and nobody could bring it that edition.
    #[test]
    fn a_gateway_whose_file_is_old_goes_on_saying_what_it_gives() {
        let mut node = Node1::new((1, 1));
        node.keys.given(2, &mut Actions::new());
        let beat = Heartbeat {
            beat: 1,
            hears: vec![identity(0)],
            keys: Some(KeysTold { holds: 2, seals: 2 }),
            ..Heartbeat::default()
        };
        let mut hearing = Hearing::new(identity(0), BTreeMap::new());
        hearing.hear(Instant::from_millis(1), LinkId(0), identity(1), 1, Some(&beat));
        let (now, members) = ((Instant::from_millis(2), Slot(0)), [Slot(0), Slot(1), Slot(2)]);
        let seals = [(); 8].map(|()| {
            node.keys.review(now, &node.config, (false, Some(&members)), &hearing, &mut Actions::new());
            node.keys.seal()
        });
        assert_eq!(BTreeSet::from(seals), BTreeSet::from([1, 2]), "{seals:?}");
    }

    #[test]
    fn the_gateway_is_asked_when_anybody_has_a_newer_one_and_by_who_is_lost() {
        let mut node = Node1::new((1, 1));
        node.hears([Some((1, 1)), Some((1, 1))]);
        let asks = |(_, actions): ((u32, u32), Vec<Action>)| actions.contains(&Action::AskForKey);
        let deadtime = u64::try_from(node.config.timing.deadtime.as_millis()).unwrap();
        let members = [Slot(0), Slot(1), Slot(2)];
        assert!(!asks(node.review(Instant::from_millis(deadtime), false, Some(&members))));
        assert!(asks(node.review(Instant::from_millis(deadtime + 1), false, Some(&members))));
        assert!(!asks(node.review(Instant::from_millis(deadtime + 2), false, Some(&members))), "it was just asked");
        node.keys.given(3, &mut Actions::new());
        let mut seal = 1;
        let seals = [(); 64].map(|()| {
            let (keys, actions) = node.review(Instant::from_millis(deadtime + 3), false, Some(&members));
            assert_eq!(keys, (1, 1), "it says both, and so nothing of the newer one");
            for action in &actions {
                if let Action::Keys { seal: turned, least: 1 } = action {
                    seal = *turned;
                }
            }
            seal
        });
        for (every, first) in [(1, 0), (2, 0), (2, 1), (3, 0), (4, 3), (5, 1), (8, 7)] {
            let said: BTreeSet<u32> = seals.iter().skip(first).step_by(every).copied().collect();
            assert_eq!(said, BTreeSet::from([1, 3]), "each {every}th of {seals:?}");
        }
        let mut node = Node1::new((1, 1));
        node.hears([Some((2, 1)), Some((1, 1))]);
        assert!(!asks(node.review(Instant::from_millis(2), true, None)), "it was asked by that heartbeat");
        assert_eq!(node.keys.next, Instant::from_millis(1) + limits::ASK_FOR_KEY);
    }
}
