//! The shared file system's disk: a blank one gets its GFS2 here, before any node can see it; any other stays as it is.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use cluster::config::{Config, FileSystem, SHARED};
use cluster::words::Role;

use super::wait_for;
use crate::gfs2;
use crate::init::{failed, report};

const MKFS: &str = "/usr/sbin/mkfs.gfs2";
/// Journals for nodes that come later; the menu adds more.
const SPARE: usize = 2;
/// How many bytes at a disk's beginning are zero if it is blank: partition tables, file systems and volume groups all have
/// something there (GFS2 itself at 64 KiB).
const BLANK: u64 = 4 << 20;

/// Makes the file system where the disk is blank.
///
/// # Errors
/// The disk is missing or cannot be read, or why `mkfs.gfs2` refuses it.
pub(crate) fn make(config: &Config) -> Result<(), String> {
    let export = config.exports.iter().find(|export| export.name == SHARED);
    let Some(export) = export.filter(|_| config.shared == FileSystem::Gfs2) else {
        return Ok(());
    };
    let device = export.device.as_str();
    wait_for(|| Path::new(device).exists().then_some(())).ok_or_else(|| format!("{device} is not there"))?;
    if !is_blank(Path::new(device)).map_err(failed(device))? {
        return Ok(());
    }
    report::progress("the shared disk is blank: makes GFS2 on it");
    let table = gfs2::table(&config.name);
    let nodes = config.nodes.iter().filter(|node| node.role == Role::Node).count();
    let journals = (nodes + SPARE).to_string();
    let mut command = Command::new(MKFS);
    command.args(["-O", "-q", "-K", "-p", "lock_dlm", "-t", &table, "-j", &journals, "-J", gfs2::JOURNAL, device]);
    let made = command.stdin(Stdio::null()).output().map_err(failed(MKFS))?;
    if made.status.success() {
        return Ok(());
    }
    Err(format!("{MKFS} {device}: {}", String::from_utf8_lossy(&made.stderr).trim()))
}

fn is_blank(device: &Path) -> io::Result<bool> {
    let mut beginning = Vec::new();
    File::open(device)?.take(BLANK).read_to_end(&mut beginning)?;
    Ok(beginning.iter().all(|byte| *byte == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_with_anything_at_its_beginning_is_not_blank() {
        let directory = tempfile::tempdir().unwrap();
        let disk = directory.path().join("disk");
        std::fs::write(&disk, vec![0; 5 << 20]).unwrap();
        assert!(is_blank(&disk).unwrap());
        for at in [0, 446, 510, 0x10040, 64 << 10, (4 << 20) - 1] {
            let mut bytes = vec![0; 5 << 20];
            bytes[at] = 1;
            std::fs::write(&disk, bytes).unwrap();
            assert!(!is_blank(&disk).unwrap(), "{at}");
        }
    }
}
