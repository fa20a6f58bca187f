//! The gateway's volume group, from its own menu: a blank disk is taken into it, and an export is made, grown, kept as a snapshot
//! and deleted, while a VM runs from another volume of the group. What the gateway shows is compared with what LVM has written
//! on the disk, which lies in a file here. And the journals of the shared file system, which are added to from the same menu.

use std::fs::{self, File};
use std::io::Read as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::drill;
use crate::rack::Rack;
use crate::rack::layout::GATEWAY;
use crate::rack::menu::volumes::size;

/// The export, and its snapshot.
const NAME: &str = "lv1";
const SNAPSHOT: &str = "lv1-snap1";
/// The export that carries the shared file system, and how many journals it is to have more.
const SHARED: &str = "shared";
const MORE: usize = 1;
/// Where LVM's records are on a disk, in bytes: before its first extent.
const RECORDS: u64 = 1 << 20;

/// Does all of it, once.
///
/// # Errors
/// The gateway refuses a step, or shows something else than what is on the disk.
pub fn are_made_and_deleted(rack: &Rack) -> Result<()> {
    let (menu, before) = (rack.menu(GATEWAY)?, rack.status());
    ensure!(!records(rack)?.contains("LABELONE"), "the disk is not blank to begin with");
    menu.take_blank_disk()?;
    ensure!(records(rack)?.contains("LABELONE"), "LVM has written nothing on the disk");
    for vm in rack.layout.on_volumes() {
        ensure!(is_recorded(rack, &vm.name)?, "{} runs from no volume of this group", vm.name);
    }

    menu.create_export(&format!("{NAME} 64M"))?;
    let made = menu.exports("the export", |exports| size(exports, NAME).is_ok())?;
    ensure!(size(&made, NAME)? == "64 MiB", "{made:?}");
    ensure!(is_recorded(rack, NAME)?, "LVM has not recorded {NAME}");

    menu.grow_export(NAME, "96M")?;
    menu.exports("its new size", |exports| size(exports, NAME).is_ok_and(|size| size == "96 MiB"))?;

    menu.snapshot_export(NAME)?;
    let kept = menu.exports("the snapshot", |exports| size(exports, SNAPSHOT).is_ok())?;
    ensure!(size(&kept, SNAPSHOT)? == "96 MiB", "{kept:?}");
    ensure!(menu.delete_export(NAME).is_err(), "an export with a snapshot was deleted");

    for name in [SNAPSHOT, NAME] {
        menu.delete_export(name)?;
        menu.exports("that it is gone", |exports| size(exports, name).is_err())?;
        ensure!(!is_recorded(rack, name)?, "LVM has {name} recorded still");
    }
    drill::unharmed(rack, &before)
}

/// Journals are added to the shared file system while the nodes use it, from the gateway's menu. What the disk holds then
/// `gfs2_edit` says, which is not ours.
///
/// # Errors
/// The gateway refuses, or the disk holds another number of journals, or a VM has suffered.
pub fn get_more_journals(rack: &Rack) -> Result<()> {
    let (before, had) = (drill::all_is_well(rack)?, journals(rack)?);
    rack.menu(GATEWAY)?.add_journals(SHARED, MORE)?;
    let has = journals(rack)?;
    ensure!(has == had + MORE, "{MORE} were added to {had} journals, and now there are {has}");
    drill::unharmed(rack, &before)
}

/// How many journals the shared file system has.
fn journals(rack: &Rack) -> Result<usize> {
    let mut command = Command::new("/usr/sbin/gfs2_edit");
    // It links a library for windows on a terminal, which wants to know of one.
    command.env("TERM", "dumb").args(["-p", "journals"]).arg(fs::canonicalize(rack.shared_disk())?);
    let output = command.output().context("gfs2_edit")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let count = text.lines().filter(|line| line.starts_with("journal")).count();
    ensure!(output.status.success() && count > 0, "gfs2_edit: {}: {text}", output.status);
    Ok(count)
}

/// The beginning of the disk as text.
fn records(rack: &Rack) -> Result<String> {
    let path = rack.spare_disk();
    let mut bytes = Vec::new();
    File::open(&path).with_context(|| path.display().to_string())?.take(RECORDS).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether the newest of LVM's records names a volume.
fn is_recorded(rack: &Rack, volume: &str) -> Result<bool> {
    let text = records(rack)?;
    Ok(newest(&text).context("LVM's records are not understood")?.contains(&format!("\n{volume} {{")))
}

/// The newest of the copies that LVM keeps one behind another: the one with the highest `seqno` (its text format; see lvm2's
/// `lib/format_text/layout.h`).
fn newest(text: &str) -> Option<&str> {
    let number = |copy: &&str| {
        let (_, rest) = copy.split_once("seqno = ")?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    };
    text.split('\0').filter(|copy| copy.contains("\nseqno = ")).max_by_key(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_record_counts() {
        let old = "holdfast {\nid = \"x\"\nseqno = 9\nlogical_volumes {\n\nlv1 {\n}\n}\n}\n";
        let new = "holdfast {\nid = \"x\"\nseqno = 10\nphysical_volumes {\n}\n}\n";
        let text = format!("\0LABELONE\0{new}\0{old}\0");
        assert_eq!(newest(&text), Some(new));
        assert!(!newest(&text).unwrap().contains("\nlv1 {"));
        assert_eq!(newest("LABELONE\0\0"), None);
    }
}
