//! The file system on the shared disk, between its mounts: whose it is, whether it is in order, and how many can mount it.
//!
//! Its superblock says whose it is; nobody mounts another cluster's. `fsck.gfs2` runs at the gateway, which sees to it that
//! nobody has it mounted meanwhile ([`crate::streams`]); `gfs2_jadd` works on a file system that is mounted, so it runs on a
//! node. Both are Debian's (gfs2-utils 3.5).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use cluster::config::SHARED;

/// Where the nodes mount it.
pub(crate) const MOUNT: &str = "/shared";
/// Size of a journal, in MiB: the smallest. Each node needs one, and whoever mounts first looks through all of them.
pub(crate) const JOURNAL: &str = "8";
/// The same of a journal that is added later: `gfs2_jadd` makes no smaller one.
const ADDED: &str = "32";
/// What is wrong where a node finds no journal for itself.
pub(crate) const TOO_FEW: &str = "it has too few journals, and each node needs one: add some in the menu, under Storage, \
                                  shared, \"Add journals\"";

pub(crate) const FSCK: &str = "/usr/sbin/fsck.gfs2";
const JADD: &str = "/usr/sbin/gfs2_jadd";
/// Lines, and characters of each, of what a program says that an operator is shown.
const SHOWN: (usize, usize) = (6, 140);

/// Where GFS2 has its superblock, in bytes, and what it begins with.
const SUPERBLOCK: u64 = 64 << 10;
const MAGIC: [u8; 4] = 0x0116_1970_u32.to_be_bytes();
/// Where in the superblock the protocol and the table of its locks are, and the bytes of each.
const PROTOCOL: usize = 96;
const TABLE: usize = 160;
const NAME: usize = 64;
/// The protocol of one that nodes may mount, and what `fsck.gfs2` writes in its place so that none does while it repairs.
const LOCKS: &str = "lock_dlm";
const LOCKS_IN_CHECK: &str = "fsck_dlm";

/// For what a file system is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Mount,
    Check,
}

/// The name that a cluster's file system has for its locks.
pub(crate) fn table(cluster: &str) -> String {
    format!("{cluster}:{SHARED}")
}

/// Whether the shared file system is mounted.
pub(crate) fn is_mounted() -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(1) == Some(MOUNT))
}

/// Refuses to mount a disk whose file system is not this cluster's.
///
/// # Errors
/// What it is instead, and what to do.
pub(crate) fn check_superblock(device: &Path, table: &str) -> Result<(), String> {
    judge_device(device, table, Use::Mount)
}

/// Has `fsck.gfs2` look through a file system that nobody has mounted, and repair what is wrong if it may; gives what came of
/// it in words for the operator. It takes as long as it takes.
///
/// # Errors
/// It is not this cluster's, or the program cannot be started.
pub(crate) fn check(device: &Path, table: &str, repair: bool) -> Result<String, String> {
    judge_device(device, table, Use::Check)?;
    let mut command = Command::new(FSCK);
    command.args(["-q", if repair { "-y" } else { "-n" }]).arg(device).stdin(Stdio::null());
    let ended = command.output().map_err(|error| format!("{FSCK}: {error}"))?;
    let said = said(&[ended.stdout, ended.stderr].concat());
    Ok(format!("{}{said}", outcome(ended.status, repair)))
}

/// Has `gfs2_jadd` make so many more journals in the file system that is mounted here.
///
/// # Errors
/// Why it could not, in its own words.
pub(crate) fn add_journals(count: u8) -> Result<(), String> {
    let mut command = Command::new(JADD);
    command.args(["-q", "-j", &count.to_string(), "-J", ADDED, MOUNT]).stdin(Stdio::null());
    let ended = command.output().map_err(|error| format!("{JADD}: {error}"))?;
    if ended.status.success() {
        return Ok(());
    }
    Err(format!("gfs2_jadd: {}{}", ended.status, said(&[ended.stdout, ended.stderr].concat())))
}

/// What a check has shown, by its exit status, whose bits are those of every `fsck` (fsck(8)).
fn outcome(status: ExitStatus, repair: bool) -> String {
    const REPAIRED: i32 = 1 | 2;
    const LEFT: i32 = 4;
    match (status.code(), repair) {
        (Some(0), _) => "The file system is in order.".to_owned(),
        (Some(code), _) if code & !REPAIRED == 0 => {
            format!("There were errors, and they were repaired (status {code}). Check it once more.")
        }
        (Some(code @ LEFT), false) => format!("There are errors; nothing was changed (status {code})."),
        (Some(code), false) => {
            format!("It could not be looked through to the end without changing anything (status {code}).")
        }
        (Some(code), true) if code & !(REPAIRED | LEFT) == 0 => {
            format!("There are errors that could not be repaired (status {code}).")
        }
        (Some(code), true) => format!("The repair was not finished (status {code}). Check it again."),
        (None, _) => {
            let signal = status.signal().unwrap_or_default();
            format!("fsck.gfs2 was ended by signal {signal}. Check it again.")
        }
    }
}

/// The beginning of what a program says: the first thing that is wrong comes first.
fn said(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let printable = |line: &str| -> String {
        let plain = |character: char| if character.is_ascii_graphic() { character } else { ' ' };
        line.trim().chars().take(SHOWN.1).map(plain).collect()
    };
    let lines: Vec<String> = text.lines().map(printable).filter(|line| !line.trim().is_empty()).collect();
    let mut said: String = lines.iter().take(SHOWN.0).map(|line| format!("\n{line}")).collect();
    if let Some(more) = lines.len().checked_sub(SHOWN.0).filter(|more| *more > 0) {
        said += &format!("\n({more} more lines)");
    }
    said
}

fn judge_device(device: &Path, table: &str, purpose: Use) -> Result<(), String> {
    let read = || -> io::Result<[u8; 512]> {
        let mut block = [0; 512];
        File::open(device)?.read_exact_at(&mut block, SUPERBLOCK)?;
        Ok(block)
    };
    let block = read().map_err(|error| format!("{}: {error}", device.display()))?;
    judge(&block, table, purpose).map_err(|problem| format!("disk {SHARED}: {problem}; nothing was changed on it"))
}

fn judge(block: &[u8; 512], table: &str, purpose: Use) -> Result<(), String> {
    if !block.starts_with(&MAGIC) {
        return Err("it carries no GFS2".to_owned());
    }
    let text = |at: usize| {
        let bytes = block.get(at..at + NAME).unwrap_or_default();
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
    };
    let (protocol, found) = (text(PROTOCOL), text(TABLE));
    if found != table && protocol.ends_with("_dlm") {
        return Err(format!("its lock table is `{found}`, another cluster's; here it is `{table}`"));
    }
    match (protocol.as_str(), purpose) {
        (LOCKS, _) | (LOCKS_IN_CHECK, Use::Check) => Ok(()),
        (LOCKS_IN_CHECK, Use::Mount) => {
            Err("it is being checked, or a repair of it was cut short: repair it in the menu, under Storage".to_owned())
        }
        _ => Err(format!("its locks are of the kind `{protocol}`: make it with mkfs.gfs2 -p lock_dlm")),
    }
}

#[cfg(test)]
pub(crate) mod tests;
