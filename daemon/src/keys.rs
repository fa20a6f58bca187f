//! The keys of the cluster that this machine holds, by their numbers.
//!
//! ```text
//! the gateway's cluster_key   the root: it leaves the gateway never, and proves it to machines that join (stream/joiner.rs)
//!   \- key N                  derived with the number that cluster.toml names: what members hold, and all they are given
//!        |- datagrams, streams, the lock manager's tunnels
//! ```
//!
//! So who holds key N can derive neither the one before nor the one after, and cannot pass for the gateway. While the key changes a
//! machine holds two: both open, and the core says with which one it seals and when the older one is forgotten. The older one
//! is kept in `/run` beside the secrets, so that every process of this boot has it, and one that is started again.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::secrets::{self, Key};

/// Where the older key is, as a `secrets.toml` without anything else.
const BEFORE: &str = "/run/holdfast/secrets.before";
/// By how many numbers the gateway may be behind: its medium was written anew, with a `cluster.toml` of long ago.
const AHEAD: u32 = 16;

/// A key, and its number.
pub(crate) type Numbered = (u32, Key);

/// What this machine holds.
#[derive(Clone, Debug)]
pub(crate) struct Ring {
    /// Of the gateway only.
    root: Option<Key>,
    newest: Numbered,
    before: Option<Numbered>,
}

/// The key of that number.
fn derive(root: &Key, number: u32) -> Key {
    root.derive(&format!("holdfast members {number}"))
}

impl Ring {
    /// Of the `cluster_key` of a `secrets.toml`: with that number, or a root, for members that are to hold key `agreed`.
    pub(crate) fn new(cluster_key: Key, number: Option<u32>, agreed: u32) -> Self {
        match number {
            Some(number) => Self { root: None, newest: (number, cluster_key), before: None },
            None => Self { newest: (agreed, derive(&cluster_key, agreed)), root: Some(cluster_key), before: None },
        }
    }

    /// That of this boot, whose `cluster.toml` names key `agreed`.
    ///
    /// # Errors
    /// There are no secrets, or they are refused.
    pub(crate) fn read(agreed: u32) -> Result<Self, String> {
        let ring = secrets::ring(&secrets::text()?, agreed)?;
        let before = fs::read_to_string(BEFORE).map(Zeroizing::new).ok();
        let before = before.and_then(|text| Some(secrets::ring(&text, agreed).ok()?.newest));
        Ok(Self { before: before.filter(|(number, _)| *number < ring.newest.0), ..ring })
    }

    /// The root; only the gateway has it.
    pub(crate) fn root(&self) -> Option<&Key> {
        self.root.as_ref()
    }

    /// The newest key.
    pub(crate) fn newest(&self) -> &Numbered {
        &self.newest
    }

    /// All of them, the newest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Numbered> {
        [&self.newest].into_iter().chain(&self.before)
    }

    /// The numbers of the oldest and the newest.
    pub(crate) fn numbers(&self) -> (u32, u32) {
        (self.all().last().unwrap_or(&self.newest).0, self.newest.0)
    }

    /// The key of that number, or the newest.
    pub(crate) fn key(&self, number: u32) -> &Key {
        &self.all().find(|(own, _)| *own == number).unwrap_or(&self.newest).1
    }

    /// Those that the gateway does not hold, but can tell when a member has spoken by one.
    pub(crate) fn ahead(&self) -> impl Iterator<Item = Numbered> {
        let next = self.newest.0.saturating_add(1);
        self.root
            .iter()
            .flat_map(move |root| (next..next.saturating_add(AHEAD)).map(|number| (number, derive(root, number))))
    }

    /// As the gateway: holds the key of that number too, in this process and in every other one that looks from now on.
    ///
    /// # Errors
    /// The older one cannot be kept.
    pub(crate) fn advance(&mut self, number: u32) -> io::Result<()> {
        let Some(root) = self.root.as_ref().filter(|_| number > self.newest.0) else { return Ok(()) };
        let next = (number, derive(root, number));
        keep(&self.newest)?;
        self.before = Some(core::mem::replace(&mut self.newest, next));
        Ok(())
    }

    /// Forgets what is older than that number.
    ///
    /// # Errors
    /// What is kept of it stays.
    pub(crate) fn forget(&mut self, least: u32) -> io::Result<()> {
        self.before.take_if(|(number, _)| *number < least);
        if self.before.is_none() && Path::new(BEFORE).exists() {
            // In memory a file lies where it was written.
            let length = fs::metadata(BEFORE)?.len();
            let mut file = fs::OpenOptions::new().write(true).open(BEFORE)?;
            io::copy(&mut io::Read::take(io::repeat(b'#'), length), &mut file)?;
            fs::remove_file(BEFORE)?;
        }
        Ok(())
    }
}

/// Keeps a key as the older one.
///
/// # Errors
/// It could not be written.
pub(crate) fn keep((number, key): &Numbered) -> io::Result<()> {
    write(Path::new(BEFORE), &Zeroizing::new(format!("key = {number}\ncluster_key = {}\n", *secrets::quoted(key))))
}

/// Writes something secret, whole or not at all.
///
/// # Errors
/// It could not be written.
pub(crate) fn write(place: &Path, text: &str) -> io::Result<()> {
    let fresh = place.with_extension("new");
    // What a life before this one has left.
    let _ = fs::remove_file(&fresh);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&fresh, place)
}

#[cfg(test)]
impl Ring {
    /// With an older key.
    pub(crate) fn recall(&mut self, before: Numbered) {
        self.before = Some(before);
    }
}

/// A ring of one key, from which all others follow, for the tests of whoever uses one.
#[cfg(test)]
pub(crate) fn tests_ring(byte: u8) -> Ring {
    Ring::new(secrets::tests_key(byte), None, 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::tests_key;

    #[test]
    fn keys_of_two_numbers_differ_and_none_is_the_root() {
        let mut gateway = tests_ring(1);
        let first = gateway.newest().clone();
        gateway.recall(first.clone());
        gateway.newest = (2, derive(gateway.root().unwrap(), 2));
        let bytes: Vec<[u8; 32]> = gateway.all().map(|(_, key)| *key.bytes()).chain([*tests_key(1).bytes()]).collect();
        assert!(bytes[0] != bytes[1] && bytes[1] != bytes[2] && bytes[0] != bytes[2]);
        assert_eq!(gateway.numbers(), (1, 2));
        assert_eq!(gateway.key(1).bytes(), first.1.bytes());
        assert_eq!(gateway.ahead().map(|(number, _)| number).collect::<Vec<_>>(), (3..19).collect::<Vec<_>>());
        let node = Ring::new(first.1, Some(1), 7);
        assert!(node.root().is_none() && node.ahead().next().is_none());
        assert_eq!(node.numbers(), (1, 1), "its number is its own, whatever cluster.toml says");
    }
}
