//! Who is heard: the only local facts about other nodes.
//!
//! A datagram's seal proves that a holder of the cluster's key once made it, not that it is new. So an identity that was
//! not heard before counts for nothing until a heartbeat of it names *this* identity among those that it hears: nobody
//! could have said that before this node's present life began. From then on a window over its sequence numbers admits
//! every datagram once, and the identity that it replaces is retired for good.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::words::{ClusterGeneration, Identity, Instant, Mebibytes, Slot, VmName};

/// What every node tells all others each `keepalive`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Heartbeat {
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
    /// The VMs of which its Xen has a domain, and whether that runs.
    pub(crate) domains: Vec<(VmName, bool)>,
}

/// A node that is heard.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Who speaks.
    pub(crate) identity: Identity,
    /// When it was heard last.
    pub(crate) last: Instant,
    /// When its last heartbeat came.
    pub(crate) beat_at: Instant,
    /// What it said last.
    pub(crate) beat: Heartbeat,
    /// Whether its silence was logged.
    pub(crate) quiet: bool,
    window: Window,
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
    peers: BTreeMap<Slot, Peer>,
    /// Heard, but not yet proven fresh.
    candidates: BTreeMap<Slot, (Identity, Instant)>,
    retired: BTreeMap<Slot, VecDeque<Identity>>,
}

impl Hearing {
    pub(crate) fn new(me: Identity) -> Self {
        Self { me, peers: BTreeMap::new(), candidates: BTreeMap::new(), retired: BTreeMap::new() }
    }

    /// This node speaks under another identity from now on.
    pub(crate) fn renamed(&mut self, me: Identity) {
        self.me = me;
    }

    /// Takes note of a datagram from another slot. `beat` is its heartbeat, if it is one.
    pub(crate) fn hear(&mut self, now: Instant, from: Identity, sequence: u64, beat: Option<&Heartbeat>) -> News {
        if let Some(peer) = self.peers.get_mut(&from.slot).filter(|peer| peer.identity == from) {
            if !peer.window.admit(sequence) {
                return News::Nothing;
            }
            let silence = now.since(peer.last);
            peer.last = now;
            if let Some(beat) = beat {
                peer.beat = beat.clone();
                peer.beat_at = now;
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
        let mut window = Window::default();
        window.admit(sequence);
        let peer = Peer { identity: from, last: now, beat_at: now, beat: beat.clone(), quiet: false, window };
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

    /// Whether that identity's last heartbeat is of late and names this node: it hears us, and we hear it.
    pub(crate) fn is_named_by(&self, other: Identity, now: Instant, patience: Duration) -> bool {
        let peer = self.peers.get(&other.slot).filter(|peer| peer.identity == other);
        peer.is_some_and(|peer| now.since(peer.beat_at) < patience && peer.beat.hears.contains(&self.me))
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

    /// This node itself slept for `gap`, and heard nothing meanwhile: nobody is to blame for that.
    pub(crate) fn forgive(&mut self, gap: Duration) {
        for peer in self.peers.values_mut() {
            peer.last = peer.last + gap;
        }
    }

    /// Whether the peer's silence had been logged; from now on it is not silent.
    pub(crate) fn back(&mut self, slot: Slot) -> bool {
        self.peers.get_mut(&slot).is_some_and(|peer| core::mem::take(&mut peer.quiet))
    }
}

/// Which of the last 64 sequence numbers were seen (RFC 4303, section 3.4.3).
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    highest: u64,
    seen: u64,
}

impl Window {
    /// Whether this number was not seen before; it is now.
    fn admit(&mut self, number: u64) -> bool {
        if number > self.highest {
            let ahead = u32::try_from(number - self.highest).unwrap_or(u32::MAX);
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = number;
            return true;
        }
        let behind = u32::try_from(self.highest - number).unwrap_or(u32::MAX);
        let Some(bit) = 1_u64.checked_shl(behind) else {
            return false;
        };
        let new = self.seen & bit == 0;
        self.seen |= bit;
        new
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
    fn the_window_admits_every_number_once() {
        let mut window = Window::default();
        let admitted: Vec<bool> = [5, 4, 5, 100, 4, 99, 99, 36, 37, 101].map(|n| window.admit(n)).into();
        assert_eq!(admitted, [true, true, false, true, false, true, false, false, true, true]);
    }

    #[test]
    fn whoever_does_not_name_us_is_not_believed_and_whoever_was_replaced_never_again() {
        let me = identity(0, 1);
        let (old, new) = (identity(1, 2), identity(1, 3));
        let mut hearing = Hearing::new(me);
        let now = Instant::ZERO;
        assert_eq!(hearing.hear(now, old, 1, Some(&naming(identity(0, 9)))), News::Nothing, "a replay");
        assert_eq!(hearing.named(now, Duration::from_secs(1)), [old], "but it is named, so that it can prove itself");
        assert_eq!(hearing.hear(now, old, 2, Some(&naming(me))), News::New);
        assert_eq!(hearing.hear(now, old, 2, Some(&naming(me))), News::Nothing, "seen before");
        assert_eq!(hearing.hear(now, new, 1, Some(&naming(me))), News::New);
        assert_eq!(hearing.hear(now, old, 77, Some(&naming(me))), News::Nothing, "retired");
    }
}
