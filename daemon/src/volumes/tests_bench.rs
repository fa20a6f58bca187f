//! Disks of a gateway for tests: loop devices, with Debian's lvm2 at work on them. This needs root, as the rack does.
//!
//! Where the kernel has a device mapper, volumes become devices; where it has none, LVM keeps its records only.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cluster::config::Export;

use super::Group;
use super::lvm::Lvm;

/// There is one group of our name at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// The disks, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Bench {
    /// Their names.
    pub(crate) disks: Vec<String>,
    directory: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Bench {
    /// Blank disks of so many MiB.
    pub(crate) fn new(sizes: &[u64]) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = tempfile::tempdir().unwrap();
        let mut bench = Self { disks: Vec::new(), directory, _alone: alone };
        for (number, mib) in sizes.iter().enumerate() {
            let file = bench.directory.path().join(format!("disk{number}"));
            File::create(&file).unwrap().set_len(mib << 20).unwrap();
            let device = run(Command::new("losetup").args(["--find", "--show"]).arg(&file));
            let name = device.trim().strip_prefix("/dev/").unwrap().to_owned();
            fs::create_dir_all(bench.sys().join(&name).join("device")).unwrap();
            bench.disks.push(name);
        }
        bench
    }

    /// Where the kernel would list them.
    pub(crate) fn sys(&self) -> PathBuf {
        self.directory.path().join("block")
    }

    /// Where the devices of volumes are: without a device mapper, a directory in which the test puts files for them.
    pub(crate) fn volumes(&self) -> PathBuf {
        if has_mapper() { PathBuf::from(super::DIRECTORY) } else { self.directory.path().join("volumes") }
    }

    /// The group of a gateway with these disks, and with these exports in `cluster.toml`.
    pub(crate) fn group(&self, site: &[Export]) -> Group {
        let lvm = if has_mapper() {
            Lvm::default()
        } else {
            Lvm { settings: " global/activation=0", words: &["--activate=n", "--zero=n", "--wipesignatures=n"] }
        };
        Group::at(site.to_vec(), &self.sys(), Path::new("/dev"), lvm)
    }

    /// Has the kernel forget the volumes, as when the machine goes off.
    pub(crate) fn power_off(&self) {
        if has_mapper() {
            let filter =
                "devices { use_devicesfile=0 } activation { udev_sync=0 udev_rules=0 verify_udev_operations=0 }";
            run(Command::new("/sbin/lvm").args(["vgchange", "--activate=n", "--config", filter, "holdfast"]));
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if Path::new(super::DIRECTORY).exists() {
            self.power_off();
        }
        for disk in &self.disks {
            run(Command::new("losetup").args(["--detach", &format!("/dev/{disk}")]));
        }
    }
}

/// The group of a gateway that has no disk.
pub(crate) fn without_disks() -> Group {
    Group::at(Vec::new(), Path::new("/nonexistent"), Path::new("/dev"), Lvm::default())
}

/// Whether the kernel has a device mapper.
pub(crate) fn has_mapper() -> bool {
    File::open("/dev/mapper/control").is_ok()
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("a program is missing: apt-get install lvm2 mount");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
