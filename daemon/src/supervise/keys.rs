//! The cluster's keys, as the loop has them: what it seals by, what it opens, and how it comes by the next one.
//!
//! When the core says that another key is wanted, a servant asks the gateway for it as this machine asked when it joined, over a
//! handshake that the old key has no part in. The gateway itself derives what its `cluster.toml` names, and whatever a
//! member has spoken by: only from here can a member have it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cluster::event::Event;

use super::mailbox::{Post, Told};
use super::run::servant;
use crate::join::ask;
use crate::keys::Ring;
use crate::seal::Seal;
use crate::secrets::Key;

/// This machine's keys.
#[derive(Debug)]
pub(super) struct Keys {
    ring: Ring,
    seal: u32,
    /// Whether the gateway is being asked.
    asking: Arc<AtomicBool>,
}

impl Keys {
    /// These; sealed is by the oldest.
    pub(super) fn new(ring: Ring) -> Self {
        let (seal, _) = ring.numbers();
        Self { ring, seal, asking: Arc::default() }
    }

    /// The numbers of the oldest and the newest.
    pub(super) fn numbers(&self) -> (u32, u32) {
        self.ring.numbers()
    }

    /// What seals and opens by them.
    pub(super) fn seal(&self) -> Seal {
        Seal::new(&self.ring, self.seal)
    }

    /// The key that is sealed by.
    pub(super) fn sealing(&self) -> &Key {
        self.ring.key(self.seal)
    }

    /// The core seals by another, and opens nothing older than `least`.
    ///
    /// # Errors
    /// What is kept of an older one stays.
    pub(super) fn turn(&mut self, seal: u32, least: u32) -> std::io::Result<()> {
        self.seal = seal;
        self.ring.forget(least)
    }

    /// As the gateway: the key of that number is held too. Whether it is another.
    ///
    /// # Errors
    /// The older one cannot be kept for this machine's other processes.
    pub(super) fn advance(&mut self, number: u32) -> std::io::Result<bool> {
        let newer = number > self.numbers().1;
        self.ring.advance(number).map(|()| newer && self.numbers().1 == number)
    }

    /// The keys of this boot are others than before.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn read(&mut self) -> Result<(), String> {
        self.ring = Ring::read(self.numbers().1)?;
        Ok(())
    }

    /// Has the gateway asked, if it is not being asked.
    pub(super) fn ask(&self, post: Post) {
        if self.asking.swap(true, Ordering::Relaxed) {
            return;
        }
        let (asking, held, later) = (Arc::clone(&self.asking), self.numbers().1, post.clone());
        let asked = servant("key", move || {
            let read = |()| Ring::read(held).map(|ring| ring.numbers().1);
            match ask::again().and_then(read) {
                Ok(key) if key > held => later.tell(Told::Event(Event::Keyed { key })),
                Ok(_) => {}
                Err(reason) => later.tell(Told::Said(format!("the gateway gives no key of the cluster: {reason}"))),
            }
            asking.store(false, Ordering::Relaxed);
        });
        if let Err(error) = asked {
            self.asking.store(false, Ordering::Relaxed);
            post.tell(Told::Said(error));
        }
    }
}
