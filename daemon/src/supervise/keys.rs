//! The cluster's keys, as the loop has them: what it seals by, what it opens, and how it comes by the next one.
//!
//! When the core says that another key is wanted, a servant asks the gateway for it as this machine asked when it joined, over a
//! handshake that the old key has no part in. The gateway itself derives what its `cluster.toml` names, and whatever a
//! member has spoken by: only from here can a member have it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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
    /// Why it was asked in vain since it last answered, each said once: who does not hear it asks every few seconds.
    said: Arc<Mutex<BTreeSet<String>>>,
}

impl Keys {
    /// These; sealed is by the oldest.
    pub(super) fn new(ring: Ring) -> Self {
        let (seal, _) = ring.numbers();
        Self { ring, seal, asking: Arc::default(), said: Arc::default() }
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
        let said = Arc::clone(&self.said);
        let asked = servant("key", move || {
            let read = |()| Ring::read(held).map(|ring| ring.numbers().1);
            let given = ask::again().and_then(read);
            let told = news(given, held, &mut said.lock().unwrap_or_else(PoisonError::into_inner));
            told.into_iter().for_each(|told| later.tell(told));
            asking.store(false, Ordering::Relaxed);
        });
        if let Err(error) = asked {
            self.asking.store(false, Ordering::Relaxed);
            post.tell(Told::Said(error));
        }
    }
}

/// What is to be told of the gateway's answer by who holds that key already, and has said these reasons since the last answer.
fn news(given: Result<u32, String>, held: u32, said: &mut BTreeSet<String>) -> Option<Told> {
    match given {
        Ok(key) => {
            said.clear();
            (key > held).then_some(Told::Event(Event::Keyed { key }))
        }
        Err(reason) => {
            let text = format!("the gateway gives no key of the cluster: {reason}");
            said.insert(reason).then_some(Told::Said(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Event, Told, news};

    #[test]
    fn a_gateway_that_is_away_for_long_is_said_once() {
        let mut said = BTreeSet::new();
        let mut tells = |given: Result<u32, &str>| match news(given.map_err(str::to_owned), 2, &mut said) {
            Some(Told::Said(text)) => text,
            Some(Told::Event(Event::Keyed { key })) => format!("key {key}"),
            _ => String::new(),
        };
        let refused = "the gateway gives no key of the cluster: refused";
        assert_eq!([tells(Err("refused")), tells(Err("refused"))], [refused, ""]);
        assert_eq!(
            [tells(Err("too late")), tells(Err("refused"))],
            ["the gateway gives no key of the cluster: too late", ""]
        );
        assert_eq!([tells(Ok(2)), tells(Err("refused")), tells(Ok(3))], ["", refused, "key 3"]);
    }
}
