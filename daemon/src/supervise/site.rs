//! Who this machine is: its configuration, its place in it, its boot, and which life of the supervisor this is.
//!
//! A machine that cannot know all of it takes no part: it stays at its menu, which says why.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cluster::config::{Config, NodeConfig};
use cluster::words::{Incarnation, Instant, Slot};

use crate::init;
use crate::roster::Current;
use crate::secrets::Secrets;

/// How many supervisors were started before in this boot.
const STARTS: &str = "/run/holdfast/starts";
/// Until when an earlier life would have petted the watchdog, in milliseconds since boot.
const LEASE: &str = "/run/holdfast/lease";

/// Who this machine is.
#[derive(Debug)]
pub(super) struct Site {
    /// What the operator wrote, and the cluster has agreed since.
    pub(super) current: Arc<Current>,
    me: NodeConfig,
    /// What must stay secret.
    pub(super) secrets: Secrets,
    /// This machine's place.
    pub(super) slot: Slot,
    /// This boot.
    pub(super) incarnation: Incarnation,
    /// This life.
    pub(super) start: u8,
}

impl Site {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong, in words for the operator.
    pub(super) fn read() -> Result<Self, String> {
        let init::Site { config, slot } = init::Site::find()?;
        let secrets = Secrets::read(&config)?;
        Ok(Self {
            me: config.node(slot).clone(),
            current: Current::new(config),
            secrets,
            slot,
            incarnation: init::incarnation()?,
            start: count_start(Path::new(STARTS))?,
        })
    }

    /// The configuration that holds now.
    pub(super) fn config(&self) -> Arc<Config> {
        self.current.get()
    }

    /// This machine's part of it, which never changes.
    pub(super) fn me(&self) -> &NodeConfig {
        &self.me
    }
}

fn text(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
}

/// The lease of an earlier life of this boot's supervisor, if there was one.
pub(super) fn lease() -> Option<Instant> {
    text(LEASE).ok()?.trim().parse().ok().map(Instant::from_millis)
}

/// Keeps the lease for the next life.
///
/// # Errors
/// It could not be written.
pub(super) fn keep_lease(lease: Instant) -> io::Result<()> {
    let fresh = Path::new(LEASE).with_extension("new");
    fs::write(&fresh, lease.millis().to_string())?;
    fs::rename(&fresh, LEASE)
}

/// Takes the number of this life, so that no later one can have it. An identity speaks once: before a number would come
/// again, the supervisor stays silent.
fn count_start(path: &Path) -> Result<u8, String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let start = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(failed(error)),
        Ok(text) => text.trim().parse::<u16>().map_err(|error| format!("{}: {error}", path.display()))?,
    };
    let taken =
        u8::try_from(start).map_err(|_| "the supervisor was started 256 times; reboot this machine".to_owned())?;
    let fresh: PathBuf = path.with_extension("new");
    fs::write(&fresh, format!("{}\n", start.saturating_add(1))).map_err(failed)?;
    fs::rename(&fresh, path).map_err(failed)?;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_life_has_its_own_number_and_none_comes_twice() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("starts");
        for life in 0..=255 {
            assert_eq!(count_start(&path), Ok(life));
        }
        assert!(count_start(&path).unwrap_err().contains("256 times"));
        assert!(count_start(&path).is_err(), "and it stays so");
    }

    #[test]
    fn a_torn_count_is_not_taken_for_the_first_life() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("starts");
        fs::write(&path, "").unwrap();
        assert!(count_start(&path).is_err());
    }
}
