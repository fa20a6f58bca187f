//! The cluster's keys as shells hold them: by their numbers. What is sealed with a key that a machine does not hold does not arrive.
//!
//! The gateway derives whatever key its `cluster.toml` names, and a newer one by which somebody speaks: nobody else can have made
//! that. A machine is given that key when it boots, and
//! when it asks; a gateway that runs gives none to whom its file calls removed. Where no gateway runs, who boots has the key of its
//! own file, as if it had been given that just before.

use std::collections::BTreeSet;
use std::time::Duration;

use cluster::config::Config;
use cluster::event::{Event, Request};
use cluster::words::Instant;

use super::{Happening, Machine, World};

/// How long the gateway takes to give a key.
const GIVE: Duration = Duration::from_millis(150);
/// How long after a change of keys is over somebody who is quorate may still open the old one: it has asked the gateway just now.
const BELATED: Duration = Duration::from_secs(10);

/// What a machine's shell holds.
#[derive(Debug, Default)]
pub(super) struct Ring {
    /// What it opens.
    pub(super) opens: BTreeSet<u32>,
    /// What it seals with.
    pub(super) seal: u32,
    /// When it was given the newest, or something came while it was not quorate, or without the gateway, which it waits for.
    since: Instant,
    /// Until when the gateway is being asked.
    asks: Instant,
}

/// Whether an edition says of a machine that it was removed.
fn is_removed(config: &Config, name: &str) -> bool {
    config.named(name).is_none() && config.nodes.iter().any(|node| node.name == name)
}

impl World {
    /// Which keys a supervisor finds that starts; `None` if the gateway refuses the machine. What a life before it has held in the
    /// same boot is still there.
    pub(super) fn keys_at_start(&mut self, at: usize, own: u32, fresh: bool) -> Option<(u32, u32)> {
        if fresh {
            let key = if at == 0 { own } else { self.given_to(at).unwrap_or(Some(own))? };
            let now = self.now;
            self.machine(at).ring = Ring { opens: [key].into(), seal: key, since: now, ..Ring::default() };
        }
        let ring = &mut self.machine(at).ring;
        let (least, newest) = (*ring.opens.first()?, *ring.opens.last()?);
        ring.seal = least;
        Some((least, newest))
    }

    /// What the gateway gives to a machine; `None` if no gateway runs, and in it `None` if it is refused.
    fn given_to(&self, at: usize) -> Option<Option<u32>> {
        let gateway = self.machines.first().filter(|gateway| gateway.on && gateway.up && self.talk(at, 0))?;
        Some((!is_removed(&gateway.config, self.name(at))).then_some(gateway.config.key))
    }

    /// A shell asks the gateway for the key.
    pub(super) fn ask_for_key(&mut self, at: usize) {
        let now = self.now;
        let machine = self.machine(at);
        let life = machine.life;
        if machine.ring.asks <= now {
            machine.ring.asks = now + GIVE;
            self.plan(GIVE, Happening::KeyGiven { at, life });
        }
    }

    /// The gateway's answer arrives, if it gives one.
    pub(super) fn key_given(&mut self, at: usize) {
        if let Some(Some(key)) = self.given_to(at) {
            self.hold(at, key);
            self.tell(at, Event::Keyed { key });
        }
    }

    /// A shell holds one key more.
    pub(super) fn hold(&mut self, at: usize, key: u32) {
        let now = self.now;
        let ring = &mut self.machine(at).ring;
        if ring.opens.last().is_none_or(|newest| key > *newest) {
            ring.since = now;
            ring.opens.insert(key);
            // It keeps the last two.
            while ring.opens.len() > 2 {
                ring.opens.pop_first();
            }
        }
    }

    /// A shell seals with one key, and forgets those that are older than another.
    pub(super) fn keys(&mut self, at: usize, seal: u32, least: u32) {
        let ring = &mut self.machine(at).ring;
        if !ring.opens.contains(&seal) {
            let breach = format!("nobody seals with what it does not hold: {} with key {seal}", self.name(at));
            return self.breaks(Some(breach));
        }
        ring.seal = seal;
        if ring.opens.first().is_some_and(|oldest| *oldest >= least) {
            return;
        }
        ring.opens.retain(|key| *key >= least);
        let oldest = |at: usize| self.machines.get(at).and_then(|machine| machine.ring.opens.first().copied());
        let members: Vec<usize> = (0..self.size()).filter(|at| self.is_quorate(*at)).collect();
        let over = members.iter().filter_map(|at| oldest(*at)).min().filter(|_| members.contains(&0));
        if let Some(over) = over.filter(|over| *over > self.history.key_over.0) {
            self.history.key_over = (over, self.now);
        }
    }

    /// Whether a machine opens what was sealed with that key.
    pub(super) fn opens(&mut self, at: usize, key: u32) -> bool {
        let (over, since) = self.history.key_over;
        if at == 0 && self.machine(at).ring.opens.last().is_some_and(|newest| *newest < key) {
            self.hold(at, key);
            self.tell(at, Event::Keyed { key });
        }
        let now = self.now;
        let runs = |machine: &Machine| machine.node.is_some() && machine.stalled_until <= now;
        let hears_gateway = at == 0 || (self.talk(at, 0) && self.machines.first().is_some_and(runs));
        let settles = self.is_quorate(at) && hears_gateway;
        let ring = &mut self.machine(at).ring;
        if !settles {
            ring.since = now;
        }
        let opens = ring.opens.contains(&key);
        if opens && key < over {
            let long = now.since(since.max(ring.since)) > BELATED;
            // If every medium was written anew, nobody knows better.
            let knows = |machine: &Machine| machine.medium.key.max(machine.config.key) >= over;
            let counts = long && self.machines.iter().any(knows);
            let breach =
                counts.then(|| format!("an old key opens nothing: {} takes what key {key} sealed", self.name(at)));
            self.breaks(breach);
        }
        opens
    }

    /// Whoever is a member holds the agreed key and no other, and nobody who was removed holds that. To be asked of a world that
    /// has come right again.
    pub(super) fn one_key_everywhere(&self, agreed: &Config) -> Result<(), String> {
        let key = agreed.key;
        for machine in &self.machines {
            let (name, opens) = (&machine.name, &machine.ring.opens);
            if is_removed(agreed, name) && opens.contains(&key) {
                return Err(format!("{name} is removed, and opens the cluster's key {key}"));
            }
            if agreed.named(name).is_some() && *opens != BTreeSet::from([key]) {
                return Err(format!("{name} opens the keys {opens:?} and not key {key} alone"));
            }
        }
        Ok(())
    }

    /// What an operator asks for who changes the key.
    pub(super) fn key_change(&self) -> Request {
        Request::ChangeKey { key: self.agreed().key + 1 }
    }

    /// As if a machine had been given the key that the gateway holds.
    pub fn pretend_given(&mut self, at: usize) {
        self.machine(at).ring.opens = self.machine(0).ring.opens.clone();
    }

    /// As if a machine's shell had not forgotten the first key, long after everybody should have; and somebody speaks with it.
    pub fn pretend_old_key(&mut self, at: usize) {
        self.history.key_over = (2, Instant::ZERO);
        let ring = &mut self.machine(at).ring;
        (ring.opens, ring.since) = ([1, 2].into(), Instant::ZERO);
        self.opens(at, 1);
    }
}
