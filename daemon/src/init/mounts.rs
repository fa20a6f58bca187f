//! The kernel's file systems, and the few writable places.

use std::ffi::CString;
use std::fs;

use rustix::mount::MountFlags;

use super::failed;

/// One mount: what, where, and with which limits.
struct Mount {
    kind: &'static str,
    target: &'static str,
    flags: MountFlags,
    data: &'static str,
}

const NOSUID: MountFlags = MountFlags::NOSUID;
const DATA_ONLY: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// What the kernel offers before any module is loaded.
const FIRST: [Mount; 6] = [
    Mount { kind: "proc", target: "/proc", flags: DATA_ONLY, data: "" },
    Mount { kind: "sysfs", target: "/sys", flags: DATA_ONLY, data: "" },
    Mount { kind: "devtmpfs", target: "/dev", flags: NOSUID.union(MountFlags::NOEXEC), data: "mode=0755" },
    // xenconsoled makes a terminal a VM.
    Mount {
        kind: "devpts",
        target: "/dev/pts",
        flags: NOSUID.union(MountFlags::NOEXEC),
        data: "mode=0620,ptmxmode=0666",
    },
    Mount { kind: "tmpfs", target: "/run", flags: DATA_ONLY, data: "mode=0755,size=16m" },
    Mount { kind: "tmpfs", target: "/tmp", flags: DATA_ONLY, data: "mode=1777,size=16m" },
];

/// What only modules offer.
const OF_MODULES: [Mount; 2] = [
    Mount { kind: "xenfs", target: "/proc/xen", flags: DATA_ONLY, data: "" },
    Mount { kind: "configfs", target: "/sys/kernel/config", flags: DATA_ONLY, data: "" },
];

/// Directories that programs of the image expect and none of them makes.
const DIRECTORIES: [&str; 10] = [
    "/run/holdfast",
    "/run/xen",
    "/run/xenstored",
    "/run/lock",
    "/var/lib/xen",
    "/var/lib/xenstored",
    "/var/log/xen",
    "/dev/gnbd",
    "/dev/disk",
    "/shared",
];

/// Mounts what needs no module, and makes the directories below.
///
/// # Errors
/// Every mount and directory that could not be made; the others are made nevertheless.
pub(super) fn first() -> Result<(), String> {
    let mounted = mount_all(&FIRST);
    let made = all(DIRECTORIES.iter().map(|path| fs::create_dir_all(path).map_err(failed(path))));
    all([mounted, made].into_iter())
}

/// Mounts what modules offer.
///
/// # Errors
/// Every mount that failed.
pub(super) fn of_modules() -> Result<(), String> {
    mount_all(&OF_MODULES)
}

fn mount_all(mounts: &[Mount]) -> Result<(), String> {
    all(mounts.iter().map(mount_one))
}

fn mount_one(mount: &Mount) -> Result<(), String> {
    // In a file system of the kernel's the directory is there, or cannot be made.
    let _ = fs::create_dir_all(mount.target);
    let data = CString::new(mount.data).map_err(|error| error.to_string())?;
    match rustix::mount::mount(mount.kind, mount.target, mount.kind, mount.flags, data.as_c_str()) {
        // The kernel itself has mounted it.
        Ok(()) | Err(rustix::io::Errno::BUSY) => Ok(()),
        Err(error) => Err(format!("mount {}: {error}", mount.target)),
    }
}

/// Does all of them and keeps every failure.
pub(super) fn all(results: impl Iterator<Item = Result<(), String>>) -> Result<(), String> {
    let failures: Vec<String> = results.filter_map(Result::err).collect();
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
}
