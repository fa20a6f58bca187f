//! Who is heard: the only local facts about other nodes.
//!
//! A datagram's seal proves that a holder of the cluster's key once made it, not that it is new. So an identity that was
//! not heard before counts for nothing until a heartbeat of it names *this* identity among those that it hears: nobody
//! could have said that before this node's present life began. From then on a window over its sequence numbers admits
//! every datagram once, and the identity that it replaces is retired for good.
//!
//! Every datagram comes on every link that works. A peer is silent when it is silent on all of them; how each of them does is
//! counted by the copies of its heartbeats, and told for itself.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::config::Timing;
use crate::limits;
use crate::report::{Gathering, Part, Told};
use crate::words::{ClusterGeneration, Edition, Failing, Identity, Instant, LinkId, Mebibytes, Slot};

mod reception;

use reception::{Admission, Reception, Window};

/// What every node tells all others each `keepalive`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Heartbeat {
    /// The version of the wire format that it speaks at best.
    pub(crate) speaks: u8,
    /// Grows with every heartbeat of that identity, from 1.
    pub(crate) beat: u64,
    /// The identities that it has heard lately, proven fresh or not.
    pub(crate) hears: Vec<Identity>,
    /// The generation that it belongs to.
    pub(crate) generation: Option<ClusterGeneration>,
    /// Whether it sees a leader of that generation.
    pub(crate) quorate: bool,
    /// Under which armament its watchdog is armed and will reset it; `None` if it is not.
    pub(crate) armed: Option<u32>,
    /// What its Xen could still give; `None` until Xen was asked.
    pub(crate) free: Option<Mebibytes>,
    /// A part of the list of its domains.
    pub(crate) part: Part,
    /// Why it is about to die, if it is.
    pub(crate) failing: Option<Failing>,
    /// The edition of `cluster.toml` that it goes by; `None` if it was said in a version that tells none.
    #[serde(skip)]
    pub(crate) edition: Option<Edition>,
    /// Its keys; `None` likewise.
    #[serde(skip)]
    pub(crate) keys: Option<KeysTold>,
}

/// What a node says of its keys. Neither number ever falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeysTold {
    /// The newest that it holds.
    pub(crate) holds: u32,
    /// The one that it seals with.
    pub(crate) seals: u32,
}

/// A node that is heard.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Who speaks.
    pub(crate) identity: Identity,
    /// When it was heard last, on whatever link.
    pub(crate) last: Instant,
    /// When its last heartbeat came.
    pub(crate) beat_at: Instant,
    /// When its last heartbeat came that said that it sees a leader.
    quorate_at: Instant,
    /// What it said last.
    pub(crate) beat: Heartbeat,
    /// Whether its silence was logged.
    pub(crate) quiet: bool,
    /// Whether it was logged that it is failing.
    failing: bool,
    domains: Gathering,
    window: Window,
    /// The first beat that was heard.
    first: u64,
    /// Every link that this node shares with it.
    links: BTreeMap<LinkId, Reception>,
}

/// What has changed on one link to a peer that is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkNews {
    /// It is silent there, for so long.
    Quiet(Duration),
    /// It is heard there again.
    Back,
}

impl Peer {
    fn new(now: Instant, from: Identity, sequence: u64, beat: &Heartbeat, links: &[LinkId]) -> Self {
        let mut window = Window::default();
        window.admit(sequence);
        let links = links.iter().map(|link| (*link, Reception::new(now))).collect();
        let mut domains = Gathering::default();
        domains.take(&beat.part);
        Self {
            identity: from,
            last: now,
            beat_at: now,
            quorate_at: if beat.quorate { now } else { Instant::ZERO },
            beat: beat.clone(),
            quiet: false,
            failing: false,
            domains,
            window,
            first: beat.beat,
            links,
        }
    }

    /// The VMs of which its Xen has a domain, and whether that runs, by the last list that came whole.
    pub(crate) fn domains(&self) -> Option<&[Told]> {
        self.domains.list()
    }

    fn hear_on(&mut self, now: Instant, link: LinkId, beat: u64) {
        if let Some(reception) = self.links.get_mut(&link) {
            reception.hear(now, beat);
        }
    }

    /// The share of its last 64 beats that came on each link, in percent. A beat that is overdue by more than `keepalive`
    /// has not come.
    pub(crate) fn quality(&self, now: Instant, keepalive: Duration) -> impl Iterator<Item = (LinkId, u8)> {
        let newest = self.links.values().map(Reception::newest).max().unwrap_or(0);
        let overdue = now.since(self.last).as_millis() / keepalive.as_millis().max(1);
        let expected = newest.saturating_add(u64::try_from(overdue).unwrap_or(u64::MAX).saturating_sub(1));
        self.links.iter().map(move |(link, reception)| (*link, reception.percent(self.first, expected)))
    }
}

/// What a datagram's identity and number mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// A peer that is known, with a datagram not seen before. It had been silent this long.
    Known(Duration),
    /// A peer that is heard for the first time, or in a new life.
    New,
    /// Nothing to act on: not proven fresh, seen before, or retired.
    Nothing,
}

/// Everybody that is heard.
#[derive(Clone, Debug)]
pub(crate) struct Hearing {
    me: Identity,
    /// The links that each other node shares with this one.
    links: BTreeMap<Slot, Vec<LinkId>>,
    peers: BTreeMap<Slot, Peer>,
    /// Heard, but not yet proven fresh.
    candidates: BTreeMap<Slot, (Identity, Instant)>,
    retired: BTreeMap<Slot, VecDeque<Identity>>,
    /// What came earlier may have been said before this node slept.
    fresh: Instant,
}

impl Hearing {
    pub(crate) fn new(me: Identity, links: BTreeMap<Slot, Vec<LinkId>>) -> Self {
        let (peers, candidates, retired) = Default::default();
        Self { me, links, peers, candidates, retired, fresh: Instant::ZERO }
    }

    /// This node speaks under another identity from now on.
    pub(crate) fn renamed(&mut self, me: Identity) {
        self.me = me;
    }

    /// Other links are shared with the others from now on, or others are there to share them.
    pub(crate) fn configured(&mut self, now: Instant, links: BTreeMap<Slot, Vec<LinkId>>) {
        self.links = links;
        for (slot, peer) in &mut self.peers {
            let shared = self.links.get(slot).map(Vec::as_slice).unwrap_or_default();
            peer.links.retain(|link, _| shared.contains(link));
            for link in shared {
                peer.links.entry(*link).or_insert_with(|| Reception::new(now));
            }
        }
    }

    /// Takes note of a datagram from another slot, on one link. `beat` is its heartbeat, if it is one.
    pub(crate) fn hear(
        &mut self,
        now: Instant,
        link: LinkId,
        from: Identity,
        sequence: u64,
        beat: Option<&Heartbeat>,
    ) -> News {
        if let Some(peer) = self.peers.get_mut(&from.slot).filter(|peer| peer.identity == from) {
            let admission = peer.window.admit(sequence);
            if let Some(beat) = beat.filter(|_| admission != Admission::Old) {
                peer.hear_on(now, link, beat.beat);
            }
            if admission != Admission::New {
                return News::Nothing;
            }
            let silence = now.since(peer.last);
            peer.last = now;
            if let Some(beat) = beat {
                peer.domains.take(&beat.part);
            }
            if let Some(beat) = beat.filter(|beat| beat.beat > peer.beat.beat) {
                peer.beat = beat.clone();
                peer.beat_at = now;
                peer.quorate_at = if beat.quorate { now } else { peer.quorate_at };
            }
            return News::Known(silence);
        }
        let gone = self.retired.get(&from.slot).is_some_and(|retired| retired.contains(&from));
        if gone || from.is_absent() {
            return News::Nothing;
        }
        self.candidates.insert(from.slot, (from, now));
        let Some(beat) = beat.filter(|beat| beat.hears.contains(&self.me)) else {
            return News::Nothing;
        };
        self.candidates.remove(&from.slot);
        let links = self.links.get(&from.slot).map(Vec::as_slice).unwrap_or_default();
        let mut peer = Peer::new(now, from, sequence, beat, links);
        peer.hear_on(now, link, beat.beat);
        if let Some(old) = self.peers.insert(from.slot, peer) {
            let retired = self.retired.entry(from.slot).or_default();
            retired.truncate(limits::RETIRED - 1);
            retired.push_front(old.identity);
        }
        News::New
    }

    /// The identities to name in a heartbeat: those heard within `patience`.
    pub(crate) fn named(&self, now: Instant, patience: Duration) -> Vec<Identity> {
        let peers = self.peers.values().map(|peer| (peer.identity, peer.last));
        let all = peers.chain(self.candidates.values().copied());
        all.filter(|(_, last)| now.since(*last) < patience).map(|(identity, _)| identity).collect()
    }

    /// Those proven fresh and heard within `patience`.
    pub(crate) fn alive(&self, now: Instant, patience: Duration) -> impl Iterator<Item = &Peer> {
        self.peers.values().filter(move |peer| now.since(peer.last) < patience)
    }

    /// Whether that leader's last heartbeat is of late and names this node, so that each hears the other; and whether, if this node
    /// has slept, the leader has said since that it has its majority.
    pub(crate) fn is_led_by(&self, leader: Identity, now: Instant, patience: Duration) -> bool {
        let peer = self.peers.get(&leader.slot).filter(|peer| peer.identity == leader);
        let names = |peer: &Peer| now.since(peer.beat_at) < patience && peer.beat.hears.contains(&self.me);
        peer.is_some_and(|peer| names(peer) && peer.quorate_at >= self.fresh)
    }

    /// The peer in that slot.
    pub(crate) fn peer(&self, slot: Slot) -> Option<&Peer> {
        self.peers.get(&slot)
    }

    /// Those that have become silent for `warntime` since this was asked last.
    pub(crate) fn fallen_quiet(&mut self, now: Instant, warntime: Duration) -> Vec<(Slot, Duration)> {
        let quiet = self.peers.iter_mut().filter(|(_, peer)| !peer.quiet && now.since(peer.last) >= warntime);
        quiet
            .map(|(slot, peer)| {
                peer.quiet = true;
                (*slot, now.since(peer.last))
            })
            .collect()
    }

    /// Those that have begun to say that they are failing since this was asked last.
    pub(crate) fn begun_to_fail(&mut self) -> Vec<(Slot, Failing)> {
        let begun = |(slot, peer): (&Slot, &mut Peer)| {
            let before = core::mem::replace(&mut peer.failing, peer.beat.failing.is_some());
            peer.beat.failing.filter(|_| !before).map(|reason| (*slot, reason))
        };
        self.peers.iter_mut().filter_map(begun).collect()
    }

    /// This node itself slept for `gap`, and heard nothing meanwhile: nobody is to blame for that. If it slept for so long that the
    /// others may hold it for dead, what waits to be read may be of the time before; `keepalive` later it has been read.
    pub(crate) fn slept(&mut self, now: Instant, gap: Duration, timing: &Timing) {
        if gap > timing.keepalive {
            for peer in self.peers.values_mut() {
                peer.last = peer.last + gap;
                peer.links.values_mut().for_each(|link| link.sleep(gap));
            }
        }
        if gap >= timing.deadtime {
            self.fresh = now + timing.keepalive;
        }
    }

    /// Whether the peer's silence had been logged; from now on it is not silent.
    pub(crate) fn back(&mut self, slot: Slot) -> bool {
        let Some(peer) = self.peers.get_mut(&slot).filter(|peer| peer.quiet) else {
            return false;
        };
        peer.quiet = false;
        peer.links.values_mut().for_each(|link| link.back(peer.last));
        true
    }

    /// The links to peers that are heard which have fallen silent for `warntime`, or have come back, since this was asked
    /// last.
    pub(crate) fn changed_links(&mut self, now: Instant, warntime: Duration) -> Vec<(Slot, LinkId, LinkNews)> {
        let mut changed = Vec::new();
        for (slot, peer) in self.peers.iter_mut().filter(|(_, peer)| !peer.quiet) {
            for (link, reception) in &mut peer.links {
                changed.extend(reception.change(now, peer.last, warntime).map(|news| (*slot, *link, news)));
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::{Incarnation, Life};

    fn identity(slot: u8, boot: u64) -> Identity {
        Identity { slot: Slot(slot), incarnation: Incarnation::new(boot).unwrap(), life: Life::default() }
    }

    fn naming(who: Identity) -> Heartbeat {
        Heartbeat { hears: vec![who], ..Heartbeat::default() }
    }

    #[test]
    fn whoever_does_not_name_us_is_not_believed_and_whoever_was_replaced_never_again() {
        let me = identity(0, 1);
        let (old, new) = (identity(1, 2), identity(1, 3));
        let mut hearing = Hearing::new(me, BTreeMap::new());
        let now = Instant::ZERO;
        assert_eq!(hearing.hear(now, LinkId(0), old, 1, Some(&naming(identity(0, 9)))), News::Nothing, "a replay");
        assert_eq!(hearing.named(now, Duration::from_secs(1)), [old], "but it is named, so that it can prove itself");
        assert_eq!(hearing.hear(now, LinkId(0), old, 2, Some(&naming(me))), News::New);
        assert_eq!(hearing.hear(now, LinkId(0), old, 2, Some(&naming(me))), News::Nothing, "seen before");
        assert_eq!(hearing.hear(now, LinkId(0), new, 1, Some(&naming(me))), News::New);
        assert_eq!(hearing.hear(now, LinkId(0), old, 77, Some(&naming(me))), News::Nothing, "retired");
    }

    #[test]
    fn whoever_has_slept_is_named_only_by_what_was_said_since() {
        let (me, peer) = (identity(0, 1), identity(1, 2));
        let timing = crate::config::Config::parse(include_str!("config/good.toml")).unwrap().timing;
        let mut hearing = Hearing::new(me, BTreeMap::new());
        let wakes = Instant::ZERO + timing.deadtime;
        let mut named = |now: Instant, beat: u64| {
            let said = Heartbeat { beat, quorate: beat != 3, ..naming(me) };
            hearing.hear(now, LinkId(0), peer, beat, Some(&said));
            if beat == 1 {
                hearing.slept(wakes, timing.deadtime, &timing);
            }
            hearing.is_led_by(peer, now, timing.deadtime)
        };
        assert!(!named(Instant::ZERO, 1), "named before it slept");
        assert!(!named(wakes, 2), "what had waited to be read");
        assert!(!named(wakes + timing.keepalive, 3), "it leads no more");
        assert!(named(wakes + timing.keepalive, 4));
    }

    /// A peer on two links, heard on the second for as long as `second` says.
    fn on_two_links(beats: u64, second: impl Fn(u64) -> bool) -> (Hearing, Vec<(u64, LinkId, LinkNews)>) {
        let (me, peer) = (identity(0, 1), identity(1, 2));
        let mut hearing = Hearing::new(me, [(Slot(1), vec![LinkId(0), LinkId(1)])].into());
        let mut news = Vec::new();
        for beat in 1..=beats {
            let now = Instant::from_millis(beat * 500);
            let said = Heartbeat { beat, quorate: beat != 3, ..naming(me) };
            hearing.hear(now, LinkId(0), peer, beat, Some(&said));
            if second(beat) {
                assert_eq!(hearing.hear(now, LinkId(1), peer, beat, Some(&said)), News::Nothing, "a second copy");
            }
            let changed = hearing.changed_links(now, Duration::from_secs(2));
            news.extend(changed.into_iter().map(|(_, link, change)| (beat, link, change)));
        }
        (hearing, news)
    }

    fn quality(hearing: &Hearing, millis: u64) -> Vec<u8> {
        let peer = hearing.peer(Slot(1)).unwrap();
        peer.quality(Instant::from_millis(millis), Duration::from_millis(500)).map(|(_, quality)| quality).collect()
    }

    #[test]
    fn a_link_that_falls_silent_is_told_and_the_peer_is_not_silent() {
        let (mut hearing, news) = on_two_links(40, |beat| !(10..30).contains(&beat));
        let quiet = LinkNews::Quiet(Duration::from_secs(2));
        assert_eq!(news, [(13, LinkId(1), quiet), (30, LinkId(1), LinkNews::Back)]);
        assert_eq!(hearing.fallen_quiet(Instant::from_millis(20_500), Duration::from_secs(2)), []);
        assert_eq!(quality(&hearing, 20_500), [100, 50]);
        assert_eq!(quality(&hearing, 40_500), [37, 17], "what is overdue has not come");
        let silence = Duration::from_secs(2);
        assert_eq!(hearing.fallen_quiet(Instant::from_millis(22_000), silence), [(Slot(1), silence)]);
    }

    #[test]
    fn a_link_that_was_never_heard_falls_silent_too() {
        let (hearing, news) = on_two_links(10, |_| false);
        assert_eq!(news, [(5, LinkId(1), LinkNews::Quiet(Duration::from_secs(2)))]);
        assert_eq!(quality(&hearing, 5_000), [100, 0]);
    }

    #[test]
    fn a_replay_makes_no_link_better() {
        let (mut hearing, _) = on_two_links(100, |beat| beat < 10);
        let (me, peer) = (identity(0, 1), identity(1, 2));
        let replayed = |beat| Heartbeat { beat, ..naming(me) };
        assert_eq!(quality(&hearing, 50_000), [100, 0]);
        for beat in 11..=36 {
            hearing.hear(Instant::from_millis(50_000), LinkId(1), peer, beat, Some(&replayed(beat)));
        }
        assert_eq!(quality(&hearing, 50_000), [100, 0], "older than the window");
    }
}
