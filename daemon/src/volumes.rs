//! The gateway's volume group: which of its disks it is made of, and which exports are made in it.
//!
//! Every logical volume of the group that bears our tag is an export of its own name, besides those of `cluster.toml`. What
//! there is is never remembered: LVM's own records on the disks say it ([`lvm`]), and what is served is what the kernel has
//! a device for. A disk becomes a part of the group only by [`Group::take`], which an operator has asked for.

use std::fs;
use std::path::{Path, PathBuf};

use cluster::config::{Config, Export, SHARED};

use crate::streams::STATE;

pub(crate) mod disks;
pub(crate) mod lvm;

use lvm::{Lvm, Report, Volume};

/// What the volume group is called, and the tag that our volumes bear.
const NAME: &str = "holdfast";
/// Where the kernel's devices of the active volumes are.
pub(crate) const DIRECTORY: &str = "/dev/holdfast";
/// Letters of a volume's name; its snapshots' names have so many more as an export's may have.
const NAME_LENGTH: usize = 24;
/// Snapshots of a volume at a time.
const SNAPSHOTS: u32 = 99;
/// What stands between a volume's name and a snapshot's number.
const SNAPSHOT: &str = "-snap";
/// The largest volume, in MiB: a PiB.
const LARGEST: u64 = 1 << 30;
/// Names that mean something else: the shared file system's, and that of the files it begins with.
const RESERVED: [&str; 2] = [SHARED, "import"];

/// The gateway's volume group and disks.
#[derive(Debug)]
pub(crate) struct Group {
    site: Vec<Export>,
    /// Where the kernel lists its disks: `/sys/block`.
    sys: PathBuf,
    /// Where it has them: `/dev`.
    dev: PathBuf,
    lvm: Lvm,
}

impl Group {
    /// That of this machine.
    pub(crate) fn of(config: &Config) -> Self {
        Self::at(config.exports.clone(), Path::new("/sys/block"), Path::new("/dev"), Lvm::default())
    }

    fn at(site: Vec<Export>, sys: &Path, dev: &Path, lvm: Lvm) -> Self {
        Self { site, sys: sys.to_owned(), dev: dev.to_owned(), lvm }
    }

    /// What LVM finds on those disks that may be its own.
    ///
    /// # Errors
    /// What it says that is wrong; then nothing may be changed.
    pub(crate) fn report(&self) -> Result<Report, String> {
        self.lvm.report(&self.usable())
    }

    /// Has the kernel make devices of our volumes, of all whose disks are there. Nothing is written.
    ///
    /// # Errors
    /// What is wrong with the group; the others are there nevertheless.
    pub(crate) fn activate(&self, report: &Report) -> Result<(), String> {
        let active = if report.group.is_some() { self.lvm.activate(&self.usable()) } else { Ok(()) };
        // Of a group with a disk missing, LVM says of every volume that it is not there.
        report.problem().map_or(active, Err)
    }

    /// The disks that could be taken: those of the group are not among them.
    pub(crate) fn free_disks(&self, report: &Report) -> Vec<disks::Found> {
        let usable = self.usable().into_iter().filter(|name| !report.disks.contains(&format!("/dev/{name}")));
        usable.filter_map(|name| disks::look(&self.sys, &self.dev, &name).ok()).collect()
    }

    /// Makes a disk a part of the group, which is made with the first one. `blank` is what the operator was told.
    ///
    /// # Errors
    /// The name that was typed is not the disk's; it may not be taken; it has data, and the operator does not know that; or
    /// what LVM refuses.
    pub(crate) fn take(&self, report: &Report, disk: &str, blank: bool, typed: &str) -> Result<(), String> {
        if typed != disk {
            return Err(format!("\"{typed}\" is not its name"));
        }
        let free = self.free_disks(report);
        let found = free.iter().find(|found| found.name == disk);
        let found = found.ok_or_else(|| format!("{disk} cannot be taken: it is not there, or has another use"))?;
        // A group that cannot be read is given up by taking its own disk.
        if let Some(problem) = report.problem()
            && !report.damaged.contains(&format!("/dev/{disk}"))
        {
            return Err(problem);
        }
        if !found.blank {
            if blank {
                return Err(format!("{disk} is not blank any more: look again"));
            }
            disks::wipe(&self.sys, &self.dev, disk).map_err(|error| format!("{disk}: {error}"))?;
        }
        self.lvm.take(&self.usable(), disk, report.group.is_none())
    }

    /// Makes a volume as typed, a name and a size, and gives its name.
    ///
    /// # Errors
    /// What is typed is none, the name is another export's, the group has no room, or what LVM refuses.
    pub(crate) fn create(&self, report: &Report, typed: &str) -> Result<String, String> {
        let (name, mib) = parse_new(typed)?;
        if self.site.iter().any(|export| export.name == name) {
            return Err(format!("cluster.toml names an export {name}"));
        }
        if report.names.contains(&name) {
            return Err(format!("there is a volume {name}"));
        }
        room(report, mib)?;
        self.lvm.create(&self.usable(), &name, mib)?;
        Ok(name)
    }

    /// Makes a volume as large as typed.
    ///
    /// # Errors
    /// What is typed is no size or not larger, there is a snapshot of it, the group has no room, or what LVM refuses.
    pub(crate) fn grow(&self, report: &Report, name: &str, typed: &str) -> Result<(), String> {
        let volume = report.own(name)?;
        let mib = parse_size(typed.trim())?;
        if let Some(snapshot) = report.snapshots(name).next() {
            return Err(format!("there is a snapshot {}: delete it first", snapshot.name));
        }
        let more = (mib << 20).checked_sub(volume.bytes).filter(|more| *more > 0);
        let more = more.ok_or_else(|| format!("it has {} already", size(volume.bytes)))?;
        room(report, more.div_ceil(1 << 20))?;
        self.lvm.grow(&self.usable(), name, mib)
    }

    /// Makes a snapshot of a volume, and gives its name.
    ///
    /// # Errors
    /// There are too many, the group has no room, or what LVM refuses.
    pub(crate) fn snapshot(&self, report: &Report, name: &str) -> Result<String, String> {
        let volume = report.own(name)?;
        let free = |snapshot: &String| {
            !report.names.contains(snapshot) && !self.site.iter().any(|export| export.name == *snapshot)
        };
        let snapshot = (1..=SNAPSHOTS).map(|number| format!("{name}{SNAPSHOT}{number}")).find(free);
        let snapshot = snapshot.ok_or("it has too many snapshots: delete one first")?;
        room(report, volume.bytes.div_ceil(1 << 20))?;
        self.lvm.snapshot(&self.usable(), name, &snapshot)?;
        Ok(snapshot)
    }

    /// Deletes a volume of ours.
    ///
    /// # Errors
    /// What LVM refuses: it does so while the device is open.
    pub(crate) fn delete(&self, name: &str) -> Result<(), String> {
        self.lvm.delete(&self.usable(), name)
    }

    /// Whether a volume of ours may be deleted as far as the group is concerned.
    ///
    /// # Errors
    /// It is none, its name was not typed, or there is a snapshot of it.
    pub(crate) fn may_delete(report: &Report, name: &str, typed: &str) -> Result<(), String> {
        if typed != name {
            return Err(format!("\"{typed}\" is not its name"));
        }
        report.volume(name)?;
        match report.snapshots(name).next() {
            Some(snapshot) => Err(format!("there is a snapshot {}: delete it first", snapshot.name)),
            None => Ok(()),
        }
    }

    fn usable(&self) -> Vec<String> {
        let named = self.site.iter().map(|export| Path::new(&export.device));
        let named: Vec<&Path> = named.chain([Path::new(STATE)]).collect();
        disks::usable(&self.sys, &self.dev, &named)
    }
}

impl Report {
    /// Our volume of that name, be it a snapshot.
    fn volume(&self, name: &str) -> Result<&Volume, String> {
        self.volumes.iter().find(|volume| volume.name == name).ok_or_else(|| format!("there is no volume {name}"))
    }

    /// Our volume of that name, if it is no snapshot.
    fn own(&self, name: &str) -> Result<&Volume, String> {
        let volume = self.volume(name)?;
        match &volume.origin {
            None => Ok(volume),
            Some(origin) => Err(format!("{name} is a snapshot of {origin}")),
        }
    }

    fn snapshots(&self, origin: &str) -> impl Iterator<Item = &Volume> {
        self.volumes.iter().filter(move |volume| volume.origin.as_deref() == Some(origin))
    }
}

/// What is to be served: the exports of `cluster.toml` whose devices are there, then the active volumes that it does not name.
pub(crate) fn served(site: &[Export], directory: &Path) -> Vec<Export> {
    let there = site.iter().filter(|export| Path::new(&export.device).exists()).cloned();
    let named = |volume: &Export| site.iter().any(|export| export.name == volume.name);
    there.chain(exports(directory).into_iter().filter(|volume| !named(volume))).collect()
}

/// The exports that are active volumes, which have their devices in `directory`.
fn exports(directory: &Path) -> Vec<Export> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names.iter().filter_map(|name| export(directory, name)).collect()
}

/// The export that is the active volume of that name.
pub(crate) fn export(directory: &Path, name: &str) -> Option<Export> {
    let device = directory.join(name);
    let known = is_plain(name) && device.exists();
    known.then(|| Export { name: name.to_owned(), device: device.display().to_string(), read_only: is_snapshot(name) })
}

/// Whether a volume of that name is a snapshot: no other one may be called like that.
fn is_snapshot(name: &str) -> bool {
    let number = name.rsplit_once(SNAPSHOT).map(|(_, number)| number);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
}

/// Whether a name is one that an export may have.
fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    name.len() <= 32 && name.bytes().all(plain) && name.starts_with(|first: char| first.is_ascii_alphanumeric())
}

/// A new export's name and size, in MiB, as typed: `web 20G`.
fn parse_new(typed: &str) -> Result<(String, u64), String> {
    let mut words = typed.split_whitespace();
    let (Some(name), Some(size), None) = (words.next(), words.next(), words.next()) else {
        return Err("type a name and a size, as in \"web 20G\"".to_owned());
    };
    if !is_plain(name) || name.len() > NAME_LENGTH {
        return Err(format!(
            "a name is 1 to {NAME_LENGTH} letters, digits, '_' and '-', and begins with a letter or digit"
        ));
    }
    if is_snapshot(name) || RESERVED.contains(&name) {
        return Err(format!("{name} is a name that means something else here"));
    }
    Ok((name.to_owned(), parse_size(size)?))
}

/// A size in MiB, as typed: digits, then `M`, `G` or `T`.
fn parse_size(typed: &str) -> Result<u64, String> {
    let parse = || {
        let unit = typed.chars().last()?;
        let factor = match unit.to_ascii_uppercase() {
            'M' => 1,
            'G' => 1 << 10,
            'T' => 1 << 20,
            _ => return None,
        };
        let digits = typed.strip_suffix(unit)?;
        let number: u64 = digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok())??;
        number.checked_mul(factor).filter(|mib| (1..=LARGEST).contains(mib))
    };
    parse().ok_or_else(|| format!("\"{typed}\" is no size: it is digits with M, G or T (MiB, GiB, TiB) behind them"))
}

/// Whether the group has so many MiB left.
fn room(report: &Report, mib: u64) -> Result<(), String> {
    let group = report.group.ok_or("there is no volume group yet")?;
    if group.free >> 20 < mib {
        return Err(format!("{} are asked for, and {} are free", size(mib << 20), size(group.free)));
    }
    Ok(())
}

/// So many bytes in words.
fn size(bytes: u64) -> String {
    console::size(bytes >> 20)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod tests_bench;
