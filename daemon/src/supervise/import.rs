//! Fills a shared file system that is fresh with the files of a read-only volume: the gateway's export `import`.
//!
//! One node does so, whoever has the file's lock first; if it dies over it, the next one begins again. Every directory appears
//! whole, and the VM files last: where they are, all that they name is.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cluster::config::Config;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::clock::now;
use super::files::{FILES, IMAGES};
use super::storage::Disks;
use crate::gfs2::MOUNT;

/// The export with the files.
const IMPORT: &str = "import";
/// Where it is seen meanwhile.
const VOLUME: &str = "/run/holdfast/import";
/// Who has locked this file fills the file system.
const ONE: &str = "/shared/.import";
/// How long its disk may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Copies the volume's directories, unless there are VM files already; a site without such a volume gets empty directories.
///
/// # Errors
/// What went wrong, in words for the operator; what was copied so far is not seen.
pub(super) fn fill(disks: &Arc<Disks>, config: &Config) -> Result<(), String> {
    if Path::new(FILES).is_dir() {
        return Ok(());
    }
    let in_words = |error: io::Error| format!("the volume {IMPORT} cannot be copied to {MOUNT}: {error}");
    let one_at_a_time = fs::File::create(ONE).and_then(|file| file.lock().map(|()| file)).map_err(in_words)?;
    if Path::new(FILES).is_dir() {
        return Ok(());
    }
    if config.exports.iter().any(|export| export.name == IMPORT && export.read_only) {
        let held = disks.have_unclaimed(IMPORT, now() + PATIENCE)?;
        fs::create_dir_all(VOLUME).map_err(in_words)?;
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount(format!("/dev/gnbd/{IMPORT}"), VOLUME, "squashfs", flags, None)
            .map_err(|error| format!("mount of the volume {IMPORT}: {error}"))?;
        let copied = bring_over(Path::new(VOLUME), Path::new(MOUNT));
        unmount(VOLUME, UnmountFlags::empty()).map_err(|error| in_words(error.into()))?;
        drop(held);
        copied.map_err(in_words)?;
    }
    [IMAGES, FILES].iter().try_for_each(fs::create_dir_all).map_err(in_words)?;
    drop(one_at_a_time);
    Ok(())
}

/// Copies each directory of `from` into `to`, where it appears whole, and `vms` as the last.
fn bring_over(from: &Path, to: &Path) -> io::Result<()> {
    let half = to.join(".half");
    let mut names: Vec<_> = fs::read_dir(from)?.collect::<io::Result<Vec<_>>>()?;
    names.retain(|entry| entry.path().is_dir() && !to.join(entry.file_name()).exists());
    names.sort_by_key(|entry| (entry.file_name() == "vms", entry.file_name()));
    for entry in names {
        // What a node has left that died over it.
        match fs::remove_dir_all(&half) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => copy(&entry.path(), &half)?,
        }
        fs::rename(&half, to.join(entry.file_name()))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            fs::File::open(&target)?.sync_all()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_stays_and_what_is_half_done_is_done_again() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        for (file, text) in
            [("vms/x0", "name = \"x0\""), ("vms/x0.ha.toml", ""), ("boot/kernel", "k"), ("readme", "no")]
        {
            fs::create_dir_all(from.join(file).parent().unwrap()).unwrap();
            fs::write(from.join(file), text).unwrap();
        }
        fs::create_dir_all(to.join(".half/kernel")).unwrap();
        fs::create_dir(to.join("boot")).unwrap();
        fs::write(to.join("boot/kernel"), "newer").unwrap();
        bring_over(&from, &to).unwrap();
        let mut there: Vec<_> = fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        there.sort();
        assert_eq!(there, ["boot", "vms"], "nothing else is left");
        assert_eq!(fs::read_to_string(to.join("vms/x0")).unwrap(), "name = \"x0\"");
        assert_eq!(fs::read_to_string(to.join("boot/kernel")).unwrap(), "newer");
    }
}
