//! A disk of the gateway's that is a volume group already when the gateway boots for the first time: VMs run from its logical
//! volumes from the start.
//!
//! Debian's lvm2 makes it. It only writes its records, so the machine that it runs on needs no device mapper, only a loop
//! device. Where each volume lies is demanded of it, so that what the VMs have written can be read here.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// The group's name, and the tag of the volumes that the gateway serves.
const GROUP: &str = "holdfast";
/// Where the first extent is, and the bytes of each: LVM's own defaults, which are demanded all the same.
const START: u64 = 1 << 20;
const EXTENT: u64 = 4 << 20;
/// How LVM behaves: nothing counts but its command line, and this machine's kernel hears nothing.
const SETTINGS: &str = "global { activation=0 use_lvmpolld=0 event_activation=0 system_id_source=\"none\" } \
    activation { udev_sync=0 udev_rules=0 monitoring=0 } backup { backup=0 archive=0 } log { syslog=0 } ";

/// Makes such a disk of a file, with a volume of so many extents for each name.
///
/// # Errors
/// There is no loop device to be had, or what LVM refuses.
pub fn make(file: &Path, names: &[&str], extents: u64) -> Result<()> {
    let count = u64::try_from(names.len())? * extents;
    File::create_new(file)?.set_len(START + count * EXTENT)?;
    let disk = Loop::of(file)?;
    // A machine with udev activates no volume of it.
    let group = ["--dataalignment=1m", "--physicalextentsize=4m", "--setautoactivation=n", GROUP, &disk.0];
    disk.lvm(&[&["vgcreate", "--yes"], &group[..]].concat())?;
    for (number, name) in (0..).zip(names) {
        let place = format!("{}:{}-{}", disk.0, number * extents, (number + 1) * extents - 1);
        let (name, size) = (format!("--name={name}"), format!("--extents={extents}"));
        let quiet = ["--activate=n", "--zero=n", "--wipesignatures=n", "--addtag=holdfast"];
        disk.lvm(&[&["lvcreate", "--yes"], &quiet[..], &[&name, &size, GROUP, &place]].concat())?;
    }
    Ok(())
}

/// What is in the volume of that number, from 0, of a disk that [`make`] has made.
///
/// # Errors
/// The file cannot be read.
pub fn read(file: &Path, number: u64, extents: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(extents * EXTENT)?];
    let at = START + number * extents * EXTENT;
    File::open(file)?.read_exact_at(&mut bytes, at).with_context(|| file.display().to_string())?;
    Ok(bytes)
}

/// A loop device, for as long as this lives.
struct Loop(String);

impl Loop {
    fn of(file: &Path) -> Result<Self> {
        let made = run(Command::new("losetup").args(["--find", "--show"]).arg(file));
        Ok(Self(made.context("the gateway's volume group takes a loop device: modprobe loop")?.trim().to_owned()))
    }

    /// Runs LVM, which sees this device and no other.
    fn lvm(&self, words: &[&str]) -> Result<String> {
        let (command, rest) = words.split_first().context("no command")?;
        let devices = format!(
            "devices {{ filter=[\"a|^{}$|\",\"r|.*|\"] use_devicesfile=0 scan_lvs=0 hints=\"none\" \
             obtain_device_list_from_udev=0 external_device_info_source=\"none\" }}",
            self.0
        );
        let mut lvm = Command::new("/sbin/lvm");
        lvm.args([command, "--config", &[SETTINGS, &devices].concat()]).args(rest);
        run(lvm.envs([("LVM_SYSTEM_DIR", ""), ("LVM_SUPPRESS_FD_WARNINGS", "1")]))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // What is left is a device that nobody uses.
        let _ = run(Command::new("losetup").args(["--detach", &self.0]));
    }
}

/// Runs a program, and gives what it says.
fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Debian's lvm2 itself says what it finds on such a disk: two volumes with our tag, where they are read here.
    #[test]
    fn lvm_finds_the_volumes_where_they_are_read() {
        let directory = std::env::temp_dir().join(format!("holdfast-volumes-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("volumes.img");
        make(&file, &["x1", "x3"], 2).unwrap();
        let disk = Loop::of(&file).unwrap();
        let said = |words: &[&str]| disk.lvm(words).unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let row = ["--noheadings", "--units=b", "--nosuffix"];
        let found = said(&[&["lvs"], &row[..], &["-olv_name,lv_tags,lv_size,seg_pe_ranges", GROUP]].concat());
        let at = |extents: &str| format!("{}:{extents}", disk.0);
        assert_eq!(found, ["x1", "holdfast", "8388608", &at("0-1"), "x3", "holdfast", "8388608", &at("2-3")]);
        let start = said(&[&["pvs"], &row[..], &["-ope_start,pv_free", &disk.0]].concat());
        assert_eq!(start, ["1048576", "0"]);
        drop(disk);
        let whole = File::options().write(true).open(&file).unwrap();
        whole.write_all_at(b"first", START).unwrap();
        whole.write_all_at(b"last", START + 4 * EXTENT - 4).unwrap();
        assert!(read(&file, 0, 2).unwrap().starts_with(b"first"));
        assert!(read(&file, 1, 2).unwrap().ends_with(b"last"));
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
