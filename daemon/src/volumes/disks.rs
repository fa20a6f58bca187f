//! Which of the gateway's disks may be a volume group's: whole ones that nothing else needs.
//!
//! A disk is not for us if it comes and goes, if `cluster.toml` names it or a part of it, if it is the one that the gateway
//! has booted from, or if it carries the gateway's tables or a machine's identity. It is blank if it has no partition and is
//! zero at both ends: partition tables, file systems, RAIDs and volume groups all have something there.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::{init, sys};

/// Bytes at its beginning that are zero if a disk is blank.
const BEGINNING: u64 = 4 << 20;
/// Bytes at its end.
const END: u64 = 1 << 20;
/// What our own marks begin with: of the gateway's tables, and of an identity.
const MARK: &[u8; 10] = b"HOLDFAST S";

/// A disk that could be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its name.
    pub(crate) name: String,
    /// Its size, in bytes.
    pub(crate) bytes: u64,
    /// Its serial number.
    pub(crate) serial: Option<String>,
    /// Whether it is blank.
    pub(crate) blank: bool,
}

/// The disks that `sys` (as `/sys/block`) lists, `dev` has, and nothing else needs; `named` are the devices that are needed.
pub(super) fn usable(sys: &Path, dev: &Path, named: &[&Path]) -> Vec<String> {
    // By the links to these a device may be named.
    let _ = init::link_disks();
    let named: Vec<PathBuf> = named.iter().filter_map(|path| path.canonicalize().ok()).collect();
    let free = |part: &String| {
        let device = dev.join(part);
        !named.contains(&device) && !has_mark(&device) && !init::is_media(&device)
    };
    let entries = fs::read_dir(sys).into_iter().flatten().flatten();
    let mut disks: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    disks.retain(|disk| {
        let says = |name: &str| fs::read_to_string(sys.join(disk).join(name)).is_ok_and(|text| text.trim() == "1");
        let own = sys.join(disk).join("device").exists() && disk.bytes().all(|byte| byte.is_ascii_alphanumeric());
        own && !says("ro") && !says("removable") && parts(sys, disk).iter().chain([disk]).all(free)
    });
    disks.sort();
    disks
}

/// What a disk is like.
pub(super) fn look(sys: &Path, dev: &Path, name: &str) -> io::Result<Found> {
    let mut file = File::open(dev.join(name))?;
    let bytes = file.seek(SeekFrom::End(0))?;
    let blank = parts(sys, name).is_empty() && is_blank(&mut file, bytes)?;
    Ok(Found { name: name.to_owned(), bytes, serial: init::serial(&sys.join(name)), blank })
}

/// Makes a disk blank that is not in use.
pub(super) fn wipe(sys: &Path, dev: &Path, name: &str) -> io::Result<()> {
    // The kernel refuses it while anything of the disk is mounted or otherwise held.
    let file = rustix::fs::open(dev.join(name), OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC, Mode::empty())?;
    let mut file = File::from(file);
    let bytes = file.seek(SeekFrom::End(0))?;
    let zeros = vec![0; 1 << 20];
    let end = bytes.saturating_sub(END);
    for at in (0..BEGINNING.min(bytes)).step_by(zeros.len()).chain([end]) {
        let length = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(zeros.len());
        file.write_all_at(zeros.get(..length).unwrap_or_default(), at)?;
    }
    file.sync_all()?;
    if parts(sys, name).is_empty() { Ok(()) } else { sys::reread_partitions(&file) }
}

/// The partitions of a disk.
fn parts(sys: &Path, disk: &str) -> Vec<String> {
    let entries = fs::read_dir(sys.join(disk)).into_iter().flatten().flatten();
    let parts = entries.filter(|entry| entry.path().join("partition").exists());
    parts.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Whether a device bears a mark of ours.
pub(crate) fn has_mark(device: &Path) -> bool {
    let mut mark = [0; MARK.len()];
    File::open(device).and_then(|file| file.read_exact_at(&mut mark, 0)).is_ok() && mark == *MARK
}

fn is_blank(file: &mut File, bytes: u64) -> io::Result<bool> {
    for (at, length) in [(0, BEGINNING), (bytes.saturating_sub(END), END)] {
        let mut found = Vec::new();
        file.seek(SeekFrom::Start(at))?;
        file.by_ref().take(length).read_to_end(&mut found)?;
        if found.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}
