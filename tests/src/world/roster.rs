//! Which machines are nodes: spare ones wait to be added, and each machine keeps a `cluster.toml` of its own.
//!
//! A machine boots by the edition that its shell has kept on its medium. One whose medium does not name it, as a new one's,
//! is given the gateway's, as that goes by it now: it asks there to join.

use std::sync::Arc;
use std::time::Duration;

use cluster::config::Config;
use cluster::event::{Event, Request};
use cluster::words::Slot;

use super::{Happening, World};

/// What is no slot of any edition.
const NOWHERE: Slot = Slot(u8::MAX);

impl World {
    /// The edition that a machine's supervisor goes by.
    pub(super) fn edition(&self, at: usize) -> &Arc<Config> {
        self.machines.get(at).map_or(&self.config, |machine| &machine.config)
    }

    /// The edition that the cluster has agreed, as far as somebody quorate knows.
    pub(super) fn agreed(&self) -> &Arc<Config> {
        (0..self.size()).find(|at| self.is_quorate(*at)).map_or(&self.config, |at| self.edition(at))
    }

    /// The machine that another means by a slot.
    pub(super) fn seat(&self, at: usize, slot: Slot) -> Option<usize> {
        let index = usize::from(slot.0);
        let name = &self.edition(at).nodes.get(index)?.name;
        if self.name(index) == name { Some(index) } else { self.find(name) }
    }

    /// The slot of a machine, as it knows itself.
    pub(super) fn slot(&self, at: usize) -> Slot {
        self.edition(at).named(self.name(at)).unwrap_or(NOWHERE)
    }

    /// Whether a machine is a node, as the cluster has agreed.
    pub(super) fn is_configured(&self, at: usize) -> bool {
        self.agreed().named(self.name(at)).is_some()
    }

    /// A machine's shell is told of another edition, and keeps it unless the medium has a newer one.
    pub(super) fn configured(&mut self, at: usize, text: &str) {
        let Ok(config) = Config::parse(text) else { return };
        let key = config.key;
        self.machine(at).config = Arc::new(config);
        if at == 0 {
            self.hold(at, key);
        }
        self.keep(at);
    }

    /// Has its medium keep the edition that it goes by.
    pub(super) fn keep(&mut self, at: usize) {
        let machine = self.machine(at);
        if machine.full {
            return;
        }
        let (edition, life) = (machine.config.edition, machine.life);
        if edition.number >= machine.medium.edition.number {
            machine.medium = Arc::clone(&machine.config);
        }
        self.plan(Duration::ZERO, Happening::Tell { at, life, event: Event::Kept { edition } });
    }

    /// Whether a machine's medium takes what is written to it; what it did not take is written again.
    pub fn fill_medium(&mut self, at: usize, full: bool) {
        let machine = self.machine(at);
        if core::mem::replace(&mut machine.full, full) && !full && machine.node.is_some() {
            self.keep(at);
        }
    }

    /// A machine's medium is written anew, with the first edition.
    pub fn forget_edition(&mut self, at: usize) {
        self.machine(at).medium = Arc::clone(&self.config);
    }

    /// By which edition a supervisor starts, and as which slot; `None` if no edition names its machine. In the same boot it is the one
    /// that the life before it went by.
    pub(super) fn starts_by(&self, at: usize) -> Option<(Arc<Config>, Slot)> {
        let served = self.machines.first().filter(|gateway| gateway.on && gateway.up).map(|gateway| &gateway.config);
        let own = self.machines.get(at).map(|machine| if machine.up { &machine.config } else { &machine.medium });
        let named = |config: &Arc<Config>| Some((Arc::clone(config), config.named(self.name(at))?));
        own.into_iter().chain(served).find_map(named)
    }

    /// What an operator asks for who adds a machine.
    pub(super) fn addition(&self, at: usize, votes: Option<u8>) -> Request {
        let at = u8::try_from(at).unwrap_or(u8::MAX);
        let votes = votes.map(|votes| format!("votes = {votes}\n")).unwrap_or_default();
        Request::AddNode { table: self.shape.node(at, &votes) }
    }

    /// What an operator asks for who removes a machine.
    pub(super) fn removal(&self, at: usize) -> Request {
        let (agreed, typed) = (self.agreed(), self.name(at).to_owned());
        let last = agreed.nodes.iter().rposition(|node| node.name == typed);
        let node = last.and_then(|slot| u8::try_from(slot).ok()).map_or(NOWHERE, Slot);
        Request::RemoveNode { node, typed }
    }
}
