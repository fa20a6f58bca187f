//! One file on a stick, whole or not at all.
//!
//! The mount is nowhere in the tree of files: only this process has it, by a descriptor (`fsmount(2)`), and the kernel unmounts when
//! that is closed, however the process ends. Nothing on the stick is run, no device on it is opened, and nothing is mounted
//! that anybody else could be led into.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::disks;

/// What the file is called until it is whole. What an earlier attempt has left under it is written over.
const UNFINISHED: &str = "holdfast-unfinished.tmp";

/// How long the kernel may take to be done with a device whose mount is closed.
const LETTING_GO: Duration = Duration::from_secs(20);
/// Between two looks whether it is.
const LOOK: Duration = Duration::from_millis(50);

/// Writes a file to the file system of that kind on a device. When this succeeds the device is in nobody's use.
///
/// # Errors
/// What the kernel refuses, and whether the stick may be pulled out, in words for the operator. The file is not there then, or only
/// what is left of it under another name.
pub(super) fn write(device: &Path, kind: &CStr, name: &str, content: &[u8]) -> Result<(), String> {
    let written = mount(device, kind).map_err(|error| match error {
        Errno::NODEV => "the kernel has no driver for its file system.".to_owned(),
        Errno::INVAL | Errno::UCLEAN => "its file system is damaged, or is not FAT.".to_owned(),
        error => words(error.into()),
    });
    let written = written.and_then(|stick| put(&stick, name, content));
    match (written, is_let_go(device)) {
        (Ok(()), true) => Ok(()),
        (Err(reason), true) => Err(format!("{reason} It may be pulled out")),
        (Ok(()), false) => {
            Err("the file is there, but the kernel is not done with the stick: do not pull it out yet".to_owned())
        }
        (Err(reason), false) => Err(format!("{reason} The kernel is not done with the stick: do not pull it out yet")),
    }
}

/// Whether nobody has the device any more, at last; one that is gone nobody has.
fn is_let_go(device: &Path) -> bool {
    let deadline = Instant::now() + LETTING_GO;
    while disks::is_held(device) {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(LOOK);
    }
    true
}

/// Mounts it, for this process alone.
fn mount(device: &Path, kind: &CStr) -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(context.as_fd(), c"source", device)?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    let limits = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_NOATIME;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, limits)
}

/// Writes under another name, makes sure of it, and gives it its own.
fn put(stick: &OwnedFd, name: &str, content: &[u8]) -> Result<(), String> {
    let space = rustix::fs::fstatvfs(stick).map_err(|error| words(error.into()))?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let needed = u64::try_from(content.len()).unwrap_or(u64::MAX);
    if free < needed {
        return Err(format!("it is full: {} KiB are needed, and {} KiB are free.", needed.div_ceil(1024), free / 1024));
    }
    let written = put_whole(stick, name, content);
    if written.is_err() {
        // Where it cannot be removed it stays, under a name that says what it is.
        let _ = rustix::fs::unlinkat(stick, UNFINISHED, AtFlags::empty());
    }
    written.map_err(words)
}

fn put_whole(stick: &OwnedFd, name: &str, content: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(stick, UNFINISHED, flags, Mode::from_raw_mode(0o644))?);
    file.write_all(content)?;
    file.sync_all()?;
    drop(file);
    rustix::fs::renameat_with(stick, UNFINISHED, stick, name, RenameFlags::NOREPLACE)?;
    // The descriptor of a mount is not one that can be synced.
    let root = rustix::fs::openat(stick, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::fs::fsync(&root)?;
    rustix::fs::syncfs(&root)?;
    Ok(())
}

/// What went wrong, a sentence for the operator.
fn words(error: io::Error) -> String {
    match Errno::from_io_error(&error) {
        Some(Errno::NOSPC) => "it is full.".to_owned(),
        Some(Errno::ROFS | Errno::ACCESS) => "it is write-protected, or its file system is damaged.".to_owned(),
        Some(Errno::IO | Errno::NODEV | Errno::NXIO | Errno::NOENT | Errno::NOMEDIUM) => {
            "the stick does not answer any more: was it pulled out?".to_owned()
        }
        Some(Errno::BUSY) => "it is in use.".to_owned(),
        Some(Errno::EXIST) => "a bundle of this very second is on it already: ask again.".to_owned(),
        Some(_) | None => format!("{error}."),
    }
}
