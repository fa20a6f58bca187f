//! How a network disk is: a file a disk, which its carrier writes and the supervisor reads. The carrier outlives the
//! supervisor, so nothing else connects them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where the files are.
const DIRECTORY: &str = "/run/holdfast/disks";

/// How a disk is; the texts are for the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Condition {
    /// Its requests are carried.
    Carried,
    /// It is not connected, for this reason: requests wait.
    Waits(String),
    /// It is another's by now: requests fail, and are nobody's.
    Taken(String),
    /// It is gone for good although it is this node's: requests fail.
    Lost(String),
    /// It never came.
    Failed(String),
}

/// Where a disk's condition is told.
#[derive(Clone, Debug)]
pub(crate) struct Bulletin(PathBuf);

impl Bulletin {
    /// A disk's.
    pub(crate) fn of(disk: &str) -> Self {
        Self::at(Path::new(DIRECTORY), disk)
    }

    fn at(directory: &Path, disk: &str) -> Self {
        Self(directory.join(disk))
    }

    /// Tells of a disk's condition.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn tell(&self, condition: &Condition) -> io::Result<()> {
        self.0.parent().map_or(Ok(()), fs::create_dir_all)?;
        let fresh = self.0.with_extension("new");
        fs::write(&fresh, serde_json::to_string(condition).map_err(io::Error::other)?)?;
        fs::rename(&fresh, &self.0)
    }

    /// What was told last, if there is such a disk.
    pub(crate) fn read(&self) -> Option<Condition> {
        serde_json::from_slice(&fs::read(&self.0).ok()?).ok()
    }

    /// There is no such disk any more, or not yet.
    pub(crate) fn remove(&self) {
        // There may be none.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_last_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let bulletin = Bulletin::at(&directory.path().join("disks"), "x0");
        assert_eq!(bulletin.read(), None);
        for condition in [Condition::Carried, Condition::Waits("no route\nto host".to_owned())] {
            bulletin.tell(&condition).unwrap();
            assert_eq!(bulletin.read(), Some(condition));
        }
        fs::write(directory.path().join("disks/x0"), "{\"Waits\":").unwrap();
        assert_eq!(bulletin.read(), None, "what is no condition is none");
        bulletin.remove();
        bulletin.remove();
        assert_eq!(bulletin.read(), None);
    }
}
