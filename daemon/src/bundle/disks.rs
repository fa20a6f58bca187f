//! Which disks are sticks that may be written to: file systems in FAT on USB disks that nothing of the cluster is on.
//!
//! A disk that is not behind a USB port is never one. Of one that is, everything is refused if any part of it is what a machine of
//! the cluster boots from, keeps an identity or the gateway's tables, belongs to a volume group, is named in `cluster.toml`, or is
//! held by the kernel. What is on a disk decides, not what it is called. A bundle is written only to what passes once more then.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use cluster::words::Role;
use console::Stick;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::volumes::disks::has_mark;
use crate::{init, roster};

/// Where the kernel lists disks, and where it has them.
const SYS: &str = "/sys/block";
const DEV: &str = "/dev";
/// Bytes at the beginning of a device that are looked at: LVM's label is in one of the first four sectors.
const BEGINNING: usize = 2048;
/// A sector, in bytes; sysfs counts in these.
const SECTOR: usize = 512;

/// All USB disks that are plugged in, and what may be done with them.
pub(crate) fn look() -> Vec<Stick> {
    // By the links to these cluster.toml may name a device.
    let _ = init::link_disks();
    sticks(Path::new(SYS), Path::new(DEV), &named())
}

/// The device of a stick that may be written to.
///
/// # Errors
/// It is not there any more, or must not be written to: in words for the operator.
pub(super) fn usable(name: &str) -> Result<PathBuf, String> {
    let _ = init::link_disks();
    usable_of(Path::new(SYS), Path::new(DEV), &named(), name)
}

/// The same of the sticks that `sys` (as `/sys/block`) lists and `dev` has.
pub(super) fn usable_of(sys: &Path, dev: &Path, named: &BTreeSet<PathBuf>, name: &str) -> Result<PathBuf, String> {
    let found = sticks(sys, dev, named).into_iter().find(|stick| stick.name == name);
    let found = found.ok_or_else(|| format!("{name} is not plugged in any more"))?;
    if let Some(reason) = found.refused {
        return Err(reason);
    }
    // The kernel knows best who holds a part of the disk.
    let disk = entries(sys).into_iter().find(|disk| disk == name || parts(sys, disk).contains(&found.name));
    let disk = disk.unwrap_or_else(|| name.to_owned());
    for part in parts(sys, &disk).into_iter().chain([disk]) {
        if is_held(&dev.join(&part)) {
            return Err(format!("{part} is in use"));
        }
    }
    Ok(dev.join(name))
}

/// Whether somebody has a device for himself: it is mounted, or a part of something.
pub(super) fn is_held(device: &Path) -> bool {
    let opened = rustix::fs::open(device, OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC, Mode::empty());
    opened.is_err_and(|error| error == Errno::BUSY)
}

/// The devices that `cluster.toml` names, if this machine is or could be the gateway: on a node the same names are other disks.
fn named() -> BTreeSet<PathBuf> {
    if init::Site::find().is_ok_and(|site| site.config.node(site.slot).role == Role::Node) {
        return BTreeSet::new();
    }
    let text = roster::text().unwrap_or_default();
    let words = text.split(['"', '\'']).filter(|word| word.starts_with("/dev/"));
    words.filter_map(|word| Path::new(word).canonicalize().ok()).collect()
}

/// The sticks that `sys` (as `/sys/block`) lists and `dev` has.
pub(super) fn sticks(sys: &Path, dev: &Path, named: &BTreeSet<PathBuf>) -> Vec<Stick> {
    let mut found = Vec::new();
    for disk in entries(sys).into_iter().filter(|disk| is_usb(&sys.join(disk))) {
        let directory = sys.join(&disk);
        let parts = parts(sys, &disk);
        let all = || parts.iter().chain([&disk]);
        let refused = if says(&directory, "ro") {
            Some("it is write-protected".to_owned())
        } else {
            all().find_map(|part| refusal(&dev.join(part), named)).or_else(|| {
                let held = |part: &String| !entries(&place(sys, &disk, part).join("holders")).is_empty();
                all().any(held).then(|| "the kernel uses it for something else".to_owned())
            })
        };
        let model = words(&directory.join("device/vendor")) + " " + &words(&directory.join("device/model"));
        let stick = |part: &String, label: &str, refused: Option<String>| Stick {
            name: part.clone(),
            model: model.trim().to_owned(),
            mib: sectors(&place(sys, &disk, part)) >> 11,
            label: label.to_owned(),
            refused,
        };
        if refused.is_some() {
            found.push(stick(&disk, "", refused));
            continue;
        }
        // A stick without partitions is one file system.
        let file_systems = if parts.is_empty() { std::slice::from_ref(&disk) } else { &*parts };
        let looked: Vec<_> = file_systems.iter().map(|part| (part, content(&dev.join(part)))).collect();
        let before = found.len();
        for (part, content) in &looked {
            if let Ok(Content::Fat(label)) = content {
                found.push(stick(part, label, None));
            }
        }
        if found.len() == before {
            let why = looked.into_iter().map(|(_, content)| without_fat(content)).next();
            found.push(stick(&disk, "", why));
        }
    }
    found
}

/// Why there is nothing to write to.
fn without_fat(content: io::Result<Content>) -> String {
    let what = match content {
        Ok(Content::Other(Some(name))) => format!("it has no FAT file system (this is {name})"),
        Ok(Content::Other(None) | Content::Fat(_) | Content::Volume) => "it has no FAT file system".to_owned(),
        Err(error) => return format!("it cannot be read: {error}"),
    };
    what + ": format it as FAT32"
}

/// Why a part of a disk, and so all of it, is not for us.
fn refusal(device: &Path, named: &BTreeSet<PathBuf>) -> Option<String> {
    let reason = if init::is_media(device) {
        "a machine of the cluster boots from it"
    } else if has_mark(device) {
        "a machine of the cluster keeps its identity or its tables on it"
    } else if matches!(content(device), Ok(Content::Volume)) {
        "it belongs to a volume group"
    } else if device.canonicalize().is_ok_and(|device| named.contains(&device)) {
        "cluster.toml names it"
    } else {
        return None;
    };
    Some(reason.to_owned())
}

/// What a device begins with.
#[derive(Debug, PartialEq, Eq)]
enum Content {
    /// A file system in FAT, and its label.
    Fat(String),
    /// A physical volume of LVM.
    Volume,
    /// Something else, and its name if it is one that sticks are sold with.
    Other(Option<&'static str>),
}

fn content(device: &Path) -> io::Result<Content> {
    let mut bytes = Vec::new();
    let most = u64::try_from(BEGINNING).map_err(io::Error::other)?;
    File::open(device)?.take(most).read_to_end(&mut bytes)?;
    if bytes.chunks(SECTOR).any(|sector| sector.starts_with(b"LABELONE")) {
        return Ok(Content::Volume);
    }
    if let Some(label) = bytes.first_chunk().and_then(init::fat_label) {
        let printable = label.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').collect::<String>();
        return Ok(Content::Fat(if printable == "NO NAME" { String::new() } else { printable }));
    }
    Ok(Content::Other(match bytes.get(3..11) {
        Some(b"EXFAT   ") => Some("exFAT"),
        Some(b"NTFS    ") => Some("NTFS"),
        Some(_) | None => None,
    }))
}

/// All disks, and what the kernel tells of each.
///
/// # Errors
/// The kernel lists none.
pub(super) fn text(sys: &Path) -> io::Result<String> {
    fs::read_dir(sys)?;
    let mut text = String::new();
    for disk in entries(sys) {
        let directory = sys.join(&disk);
        let of = |name: &str| words(&directory.join(name));
        let serial = init::serial(&directory).unwrap_or_default();
        let path = directory.canonicalize().unwrap_or_default();
        let _ =
            write!(text, "{disk}: {} MiB, ro {}, removable {}, ", sectors(&directory) >> 11, of("ro"), of("removable"));
        let _ = writeln!(text, "model {}, serial {serial}, {}", of("device/model"), path.display());
        for part in parts(sys, &disk) {
            let _ = writeln!(text, "  {part}: {} MiB", sectors(&directory.join(&part)) >> 11);
        }
    }
    Ok(text)
}

/// Whether a disk is behind a USB port: one of the devices that it hangs on is a bus of that kind.
fn is_usb(directory: &Path) -> bool {
    let bus = |name: &str| {
        name.strip_prefix("usb").is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    };
    let path = directory.canonicalize().unwrap_or_default();
    directory.join("device").exists() && path.components().any(|part| part.as_os_str().to_str().is_some_and(bus))
}

/// The names in a directory, sorted.
fn entries(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The partitions of a disk.
fn parts(sys: &Path, disk: &str) -> Vec<String> {
    let directory = sys.join(disk);
    entries(&directory).into_iter().filter(|entry| directory.join(entry).join("partition").exists()).collect()
}

/// Where the kernel describes a disk or a partition of it.
fn place(sys: &Path, disk: &str, part: &str) -> PathBuf {
    if disk == part { sys.join(disk) } else { sys.join(disk).join(part) }
}

fn says(directory: &Path, name: &str) -> bool {
    words(&directory.join(name)) == "1"
}

fn words(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.trim().chars().filter(|c| c.is_ascii_graphic() || *c == ' ').collect()
}

fn sectors(directory: &Path) -> u64 {
    words(&directory.join("size")).parse().unwrap_or(0)
}
