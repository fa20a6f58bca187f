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
const FIRST: [Mount; 8] = [
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
    // libxl keeps what it knows of a VM beside it, and xl its words.
    Mount { kind: "tmpfs", target: "/var/lib", flags: DATA_ONLY, data: "mode=0755,size=16m" },
    Mount { kind: "tmpfs", target: "/var/log", flags: DATA_ONLY, data: "mode=0755,size=16m" },
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

/// Makes the programs and settings of the image what they are until the next boot: what is to be written has a place of
/// its own by now.
///
/// # Errors
/// What the kernel says.
pub(super) fn close_root() -> Result<(), String> {
    close("/")
}

fn close(target: &str) -> Result<(), String> {
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount_remount(target, flags, c"").map_err(|error| format!("{target} read-only: {error}"))
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;
    use std::thread;

    use nix::sched::{CloneFlags, unshare};

    use super::{DATA_ONLY, DIRECTORIES, FIRST, Mount, close, mount_one};

    /// What is made at boot lies in a place of its own, or is in the image already.
    #[test]
    fn nothing_is_made_on_the_root_that_cannot_be() {
        for directory in DIRECTORIES.into_iter().filter(|directory| *directory != "/shared") {
            let writable =
                |mount: &Mount| matches!(mount.kind, "tmpfs" | "devtmpfs") && directory.starts_with(mount.target);
            assert!(FIRST.iter().any(writable), "{directory}");
        }
    }

    /// The kernel itself, on a file system as the root is one, in a namespace of the test's own.
    #[test]
    fn what_is_closed_is_read_and_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let root: &'static str = directory.path().to_str().unwrap().to_owned().leak();
        let in_namespace = move || {
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).expect("this test needs root, as the rack does");
            rustix::mount::mount_change(
                "/",
                rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC,
            )
            .unwrap();
            mount_one(&Mount { kind: "tmpfs", target: root, flags: DATA_ONLY, data: "" }).unwrap();
            fs::write(format!("{root}/file"), "kept").unwrap();
            mount_one(&Mount { kind: "tmpfs", target: format!("{root}/var").leak(), flags: DATA_ONLY, data: "" })
                .unwrap();
            close(root).unwrap();
            assert_eq!(fs::read_to_string(format!("{root}/file")).unwrap(), "kept");
            let refused = fs::write(format!("{root}/file"), "").unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
            fs::create_dir_all(format!("{root}/var")).unwrap();
            fs::write(format!("{root}/var/file"), "").unwrap();
        };
        thread::scope(|scope| scope.spawn(in_namespace).join().unwrap());
    }
}
