//! Which `cluster.toml` this machine goes by, and where the newest one is kept.
//!
//! ```text
//! /etc/holdfast/cluster.toml   what it has booted with; the root is read-only
//! /run/holdfast/cluster.toml   the edition that holds since, if it is another: every process of this boot looks here first
//! the gateway's medium         the edition that holds, across boots: a table beside those of claims and approvals
//! ```
//!
//! The gateway begins by the newer one of its file and its medium. A node is given the gateway's when it joins, and what was
//! agreed since when it meets the others; so nothing on any boot medium has to be written anew.

use std::fs::{self, Metadata};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use cluster::config::Config;
use serde::{Deserialize, Serialize};

use crate::streams::store::{self, Store};

/// What this machine has booted with.
pub(crate) const FILE: &str = "/etc/holdfast/cluster.toml";
/// The edition that holds since.
pub(crate) const AGREED: &str = "/run/holdfast/cluster.toml";

/// The text that this machine goes by.
///
/// # Errors
/// There is none.
pub(crate) fn text() -> Result<String, String> {
    fs::read_to_string(AGREED).or_else(|_| fs::read_to_string(FILE)).map_err(|error| format!("{FILE}: {error}"))
}

/// Has every process of this boot go by a text.
///
/// # Errors
/// It could not be written.
pub(crate) fn hold(text: &str) -> Result<(), String> {
    write(Path::new(AGREED), text).map_err(|error| format!("{AGREED}: {error}"))
}

fn write(place: &Path, text: &str) -> io::Result<()> {
    let fresh = place.with_extension("new");
    fs::write(&fresh, text)?;
    fs::rename(&fresh, place)
}

/// The edition that the gateway's medium has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// The whole text; empty where none was ever kept.
    pub(crate) text: String,
}

impl store::Table for Kept {
    const PLACES: [u64; 2] = [1028 << 10, 1280 << 10];
    const NAME: &str = "cluster.toml";
}

/// Keeps a text on the medium at `place`, unless that has one of a newer edition.
///
/// # Errors
/// There is no medium, or it fails: in words for the operator.
pub(crate) fn keep(place: &Path, text: &str) -> Result<(), String> {
    if !place.exists() {
        return Err("the gateway has no partition to keep it on".to_owned());
    }
    let number = |text: &str| Config::parse(text).map_or(0, |config| config.edition.number);
    let (mut store, kept) = Store::<Kept>::open(place).map_err(|error| error.to_string())?;
    if number(&kept.text) > number(text) || kept.text == text {
        return Ok(());
    }
    store.keep(&Kept { text: text.to_owned() }).map_err(|error| error.to_string())
}

/// The text on the medium at `place`, if it is the one to go by: that of the greater edition, and of two of the same number what
/// the cluster has agreed.
///
/// # Errors
/// The medium cannot be read, or what is on it is refused.
pub(crate) fn newer(place: &Path, file: &Config) -> Result<Option<String>, String> {
    let (_, Kept { text }) = Store::<Kept>::open(place).map_err(|error| error.to_string())?;
    if text.is_empty() || text == file.text {
        return Ok(None);
    }
    let kept = Config::parse(&text).map_err(|error| error.to_string())?;
    if kept.edition.number < file.edition.number && file.key < kept.key {
        let (number, key) = (file.edition.number, kept.key);
        return Err(format!(
            "edition {number} has an old key, which a removed node may hold: write key = {key} below its edition"
        ));
    }
    Ok((kept.edition.number >= file.edition.number).then_some(text))
}

/// Whether an address on a cluster network is a node's.
pub(crate) fn is_a_nodes(config: &Config, address: IpAddr) -> bool {
    config.slots().flat_map(|(_, node)| &node.links).any(|(_, own)| *own == address)
}

/// The configuration that holds, for whoever needs it again and again: who asks looks whether there is another.
#[derive(Debug)]
pub(crate) struct Current {
    place: PathBuf,
    seen: Mutex<(Option<Stamp>, Arc<Config>)>,
}

/// What changes when a file does: its modification, its length, its inode.
type Stamp = (i64, i64, u64, u64);

impl Current {
    /// `config`, until there is another.
    pub(crate) fn new(config: Config) -> Arc<Self> {
        Self::at(AGREED.into(), config)
    }

    /// The same, where another one would come to be at `place`.
    pub(crate) fn at(place: PathBuf, config: Config) -> Arc<Self> {
        Arc::new(Self { place, seen: Mutex::new((None, Arc::new(config))) })
    }

    /// The configuration that holds now.
    pub(crate) fn get(&self) -> Arc<Config> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = fs::metadata(&self.place).ok().map(|metadata| stamp(&metadata));
        if stamp.is_some() && stamp != seen.0 {
            let text = fs::read_to_string(&self.place).unwrap_or_default();
            // Who writes there has judged it; what cannot be read changes nothing.
            if let Ok(config) = Config::parse(&text) {
                *seen = (stamp, Arc::new(config));
            }
        }
        Arc::clone(&seen.1)
    }
}

fn stamp(metadata: &Metadata) -> Stamp {
    (metadata.mtime(), metadata.mtime_nsec(), metadata.len(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use cluster::words::Slot;

    use super::*;

    const GOOD: &str = include_str!("../cluster/src/config/good.toml");

    fn editions() -> [Config; 3] {
        let first = Config::parse(GOOD).unwrap();
        let second = first.without_node(Slot(2), 2).unwrap();
        let other = first.without_node(Slot(1), 2).unwrap();
        [first, second, other]
    }

    #[test]
    fn what_is_kept_outlives_the_gateway_and_the_newer_one_counts() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("state");
        let [first, second, other] = editions();
        assert!(keep(&place, &second.text).unwrap_err().contains("no partition"));
        fs::write(&place, "").unwrap();
        assert_eq!(newer(&place, &first), Ok(None), "nothing was kept yet");
        keep(&place, &second.text).unwrap();
        assert_eq!(newer(&place, &first), Ok(Some(second.text.clone())));
        assert_eq!(newer(&place, &second), Ok(None), "it is the same");
        keep(&place, &first.text).unwrap();
        assert_eq!(newer(&place, &first), Ok(Some(second.text.clone())), "an older one replaces nothing");
        keep(&place, &other.text).unwrap();
        assert_eq!(newer(&place, &second), Ok(Some(other.text.clone())), "what was agreed last counts");
        let third = second.with_node(
            "name = \"node3\"\noutlets = [{ pdu = \"pdu1\", outlet = 4 }]\n\
             nics = [{ mac = \"52:54:00:77:00:13\", network = \"cluster\", address = \"10.77.0.13\" }]",
        );
        let third = third.unwrap();
        assert_eq!(newer(&place, &third), Ok(None), "the operator has written a newer one");
        let forgets = Config::parse(&third.text.replacen("key = 2\n", "", 1)).unwrap();
        assert!(newer(&place, &forgets).unwrap_err().contains("write key = 2"), "a removed node holds key 1");
    }

    #[test]
    fn a_medium_that_cannot_be_written_keeps_what_it_has() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("state");
        let [first, second, other] = editions();
        fs::write(&place, "").unwrap();
        keep(&place, &second.text).unwrap();
        // A place that a power cut has torn.
        let file = OpenOptions::new().write(true).open(&place).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[0xff; 64], (1028 << 10) + 50).unwrap();
        assert_eq!(newer(&place, &first), Ok(Some(second.text.clone())), "the other place has it");
        assert!(keep(Path::new("/dev/full"), &other.text).is_err());
        std::os::unix::fs::FileExt::write_all_at(&file, &[0xff; 64], (1280 << 10) + 50).unwrap();
        assert!(newer(&place, &first).unwrap_err().contains("cluster.toml is damaged"));
    }

    #[test]
    fn whoever_asks_learns_of_another_edition() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("cluster.toml");
        let [first, second, _] = editions();
        let current = Current::at(place.clone(), first.clone());
        assert_eq!(*current.get(), first);
        write(&place, &second.text).unwrap();
        assert_eq!(*current.get(), second);
        write(&place, "not one").unwrap();
        assert_eq!(*current.get(), second);
        fs::remove_file(&place).unwrap();
        assert_eq!(*current.get(), second);
    }
}
