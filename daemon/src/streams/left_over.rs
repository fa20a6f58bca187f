//! What an earlier life of this process has begun and is still at work: programs outlive whoever has started them.
//!
//! `nbd-server`'s processes are soon done, and waited for. `fsck.gfs2` may take an hour, and LVM as long as its disks: until they
//! have ended nobody gets what they work on, and everything else is served. Who is at work the kernel says; nothing of it is
//! written down.

use std::fs;
use std::path::{Path, PathBuf};

use cluster::config::Export;

use crate::gfs2;
use crate::volumes::lvm;

/// The command lines of the processes that `proc` lists, but that of the process `but`; and where each stands.
fn lines(proc: &Path, but: &str) -> impl Iterator<Item = (PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let pids = entries.filter(move |entry| entry.file_name().to_str().is_some_and(|pid| pid != but));
    pids.filter_map(|entry| {
        let path = entry.path().join("cmdline");
        fs::read(&path).ok().map(|line| (path, line))
    })
}

/// Whether any process serves a connection of the NBD server's, whose own process has the id `main`: each has a process.
pub(super) fn serving(proc: &Path, main: &str) -> bool {
    // A process that has ended has no command line.
    lines(proc, main.trim()).any(|(_, line)| {
        let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
        program.rsplit(|byte| *byte == b'/').next() == Some(b"nbd-server")
    })
}

/// A process that goes on with what is being done to a disk.
#[derive(Debug)]
pub(super) struct LeftOver {
    path: PathBuf,
    line: Vec<u8>,
}

impl LeftOver {
    /// All of them, each with its disk and what is being done: the file system on one of these exports is `checked`, or a volume
    /// is `deleted`.
    pub(super) fn all(proc: &Path, exports: &[Export]) -> Vec<(String, &'static str, Self)> {
        let of = |(path, line): (PathBuf, Vec<u8>)| {
            let text = String::from_utf8_lossy(&line).into_owned();
            let words: Vec<&str> = text.split_terminator('\0').collect();
            let (name, what) = match words.as_slice() {
                [gfs2::FSCK, .., device] => {
                    (exports.iter().find(|export| export.device == *device)?.name.clone(), "checked")
                }
                [lvm::PROGRAM, "lvremove", .., volume] => (volume.rsplit('/').next()?.to_owned(), "deleted"),
                _ => return None,
            };
            Some((name, what, Self { path, line }))
        };
        lines(proc, "").filter_map(of).collect()
    }

    /// Whether it is still at work.
    pub(super) fn goes_on(&self) -> bool {
        fs::read(&self.path).is_ok_and(|line| line == self.line)
    }
}
