//! The network: which datagrams arrive, when, and how often.

use std::time::Duration;

use std::collections::BTreeSet;

use cluster::event::To;
use cluster::node::VERSION;
use cluster::words::LinkId;

use super::{Happening, World};

/// The network of storage, migration and power switches.
const PRIMARY: LinkId = LinkId(0);
/// Datagrams that a replay can choose from.
const REMEMBERED: usize = 64;
/// The longest datagram in plain text that goes by a serial line: what is sealed takes 4,096 bytes.
const LINE_BYTES: usize = 4_096 - 44;
/// What a serial line carries in a millisecond, at 115,200 bits a second.
const LINE_BYTES_A_MS: usize = 11;

/// How the network treats datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weather {
    /// Of a hundred datagrams, those that are lost.
    pub loss: u64,
    /// Of a hundred, those that come twice.
    pub doubling: u64,
    /// The longest delay, in milliseconds; the shortest is one. Delays differ, so datagrams overtake each other.
    pub delay_ms: u64,
}

/// A quiet network.
pub const FAIR: Weather = Weather { loss: 0, doubling: 0, delay_ms: 3 };

/// What is cut, and what was under way.
#[derive(Debug, Default)]
pub(super) struct Network {
    /// Ways that carry nothing, from and to. A machine's cable is both ways to everybody.
    cuts: BTreeSet<(usize, usize)>,
    /// Datagrams of the past, with the machine they were for: somebody could send them again.
    past: Vec<(usize, LinkId, u32, Vec<u8>)>,
    sent: usize,
}

impl World {
    /// Cuts or joins all network cables of a machine. A serial line is cut by its number only, which follows the networks'.
    pub fn cable(&mut self, at: usize, cut: bool) {
        (0..self.links).map(LinkId).for_each(|link| self.cable_of(at, link, cut));
    }

    /// Cuts or joins a machine's cable to one network.
    pub fn cable_of(&mut self, at: usize, link: LinkId, cut: bool) {
        self.note_links();
        let cables = &mut self.machine(at).cut;
        let _changed = if cut { cables.insert(link) } else { cables.remove(&link) };
    }

    /// Whether a machine's streams have no way, nor its commands to the power switch: they take the primary network.
    pub(super) fn is_cut(&self, at: usize) -> bool {
        self.machines.get(at).is_none_or(|machine| machine.cut.contains(&PRIMARY))
    }

    /// Cuts or joins one way between two machines.
    pub fn way(&mut self, from: usize, to: usize, cut: bool) {
        self.note_links();
        let cuts = &mut self.network.cuts;
        let _changed = if cut { cuts.insert((from, to)) } else { cuts.remove(&(from, to)) };
    }

    /// Cuts every way between machines that are in different groups. Who is in no group stays joined with everybody.
    pub fn split(&mut self, groups: &[Vec<usize>]) {
        for (n, group) in groups.iter().enumerate() {
            for other in groups.iter().skip(n + 1) {
                for (a, b) in group.iter().flat_map(|a| other.iter().map(move |b| (*a, *b))) {
                    self.way(a, b, true);
                    self.way(b, a, true);
                }
            }
        }
    }

    /// Joins everything that is cut.
    pub fn join_all(&mut self) {
        self.note_links();
        self.network.cuts.clear();
        self.machines.iter_mut().for_each(|machine| machine.cut.clear());
    }

    /// Whether a datagram can go from one machine to another on that network, or by that serial line.
    fn carries(&self, from: usize, to: usize, link: LinkId) -> bool {
        let cut = |at: usize| self.machines.get(at).is_none_or(|machine| machine.cut.contains(&link));
        let way = match self.config.lines.iter().find(|line| line.id == link) {
            Some(line) => [from, to].iter().all(|at| line.ends.iter().any(|end| usize::from(end.holder.0) == *at)),
            None => !self.network.cuts.contains(&(from, to)),
        };
        way && !cut(from) && !cut(to)
    }

    /// Every network, and every serial line.
    fn all_links(&self) -> impl Iterator<Item = LinkId> + use<> {
        let lines = u8::try_from(self.config.lines.len()).unwrap_or(0);
        (0..self.links + lines).map(LinkId)
    }

    /// Whether a datagram can go from one machine to another in any way.
    pub(super) fn reaches(&self, from: usize, to: usize) -> bool {
        self.all_links().any(|link| self.carries(from, to, link))
    }

    /// Whether two machines can have a stream.
    pub(super) fn talk(&self, one: usize, other: usize) -> bool {
        self.carries(one, other, PRIMARY) && self.carries(other, one, PRIMARY)
    }

    /// Somebody sends old datagrams again.
    pub fn replay(&mut self, count: u64) {
        for _ in 0..count {
            let bound = u64::try_from(self.network.past.len()).unwrap_or(0);
            let chosen = usize::try_from(self.chance.below(bound.max(1))).unwrap_or(0);
            let Some((at, link, key, datagram)) = self.network.past.get(chosen).cloned() else { return };
            let delay = Duration::from_millis(1 + self.network_delay());
            self.plan(delay, Happening::Arrive { at, link, key, datagram });
        }
    }

    fn network_delay(&mut self) -> u64 {
        self.chance.below(self.weather.delay_ms.max(1))
    }

    pub(super) fn send(&mut self, from: usize, to: To, datagram: &[u8]) {
        let meant_one = if let To::Node(slot) = to { self.seat(from, slot) } else { None };
        for at in 0..self.size() {
            let meant = match to {
                To::All => at != from,
                To::Node(_) => meant_one == Some(at),
            };
            for link in self.all_links().filter(|_| meant) {
                self.carry(from, at, link, datagram);
            }
        }
    }

    fn carry(&mut self, from: usize, at: usize, link: LinkId, datagram: &[u8]) {
        let key = self.machine(from).ring.seal;
        let is_line = link.0 >= self.links;
        let is_too_long = is_line && datagram.len() > LINE_BYTES;
        if !self.carries(from, at, link) || is_too_long || self.chance.happens(self.weather.loss) {
            return;
        }
        let slow = if is_line { u64::try_from(datagram.len() / LINE_BYTES_A_MS).unwrap_or(0) } else { 0 };
        let changed = self.meddler.and_then(|meddle| meddle(&mut self.chance, datagram));
        let mut datagram = changed.unwrap_or_else(|| datagram.to_vec());
        // What a newer version adds stands at the end: whoever speaks it reads it, and others find it behind what they know.
        let version = datagram.first().copied().unwrap_or(0);
        if version > VERSION && self.machine(at).version < version {
            datagram.extend(b"news");
        }
        let copies = if self.chance.happens(self.weather.doubling) { 2 } else { 1 };
        for _ in 0..copies {
            let delay = Duration::from_millis(1 + slow + self.network_delay());
            self.plan(delay, Happening::Arrive { at, link, key, datagram: datagram.clone() });
        }
        self.remember(at, link, key, &datagram);
    }

    /// Keeps one datagram of a hundred.
    fn remember(&mut self, at: usize, link: LinkId, key: u32, datagram: &[u8]) {
        self.network.sent += 1;
        if self.network.sent.is_multiple_of(101) {
            if self.network.past.len() >= REMEMBERED {
                self.network.past.remove(0);
            }
            self.network.past.push((at, link, key, datagram.to_vec()));
        }
    }
}
