//! Storage: the gateway's volume group and disks, and every export with its size and who uses it.

use crate::facts::Facts;
use crate::page::{CHOICE, Page, Row, beside, no_status, paragraph};
use crate::text::{left, list};
use crate::volumes::{Disk, Exported, Group, VolumeRequest, Volumes};

pub(crate) fn rows(facts: &Facts) -> Vec<Row> {
    if facts.status.is_none() {
        return no_status(facts);
    }
    let volumes = match &facts.volumes.told {
        None => return paragraph("The gateway is asked.").collect(),
        Some(Err(reason)) => return paragraph(&format!("The gateway cannot be asked: {reason}.")).collect(),
        Some(Ok(volumes)) => volumes,
    };
    let mut rows: Vec<_> = paragraph(&group(volumes)).collect();
    rows.extend(volumes.problem.iter().flat_map(|problem| paragraph(&format!("Beware: {problem}."))));
    rows.push(Row::Text(String::new()));
    if volumes.exports.is_empty() {
        rows.extend(paragraph("There is no export."));
    } else {
        rows.push(beside(&line(["Export", "      Size", "Connected", "Claimed by"])));
        rows.extend(volumes.exports.iter().map(export));
    }
    rows.push(Row::Text(String::new()));
    if volumes.group.is_some() {
        let create = Page::Volume(VolumeRequest::Create { typed: String::new() });
        rows.push(Row::Choice("Make an export".to_owned(), create));
    }
    rows.extend(volumes.disks.iter().map(take));
    rows
}

fn group(volumes: &Volumes) -> String {
    match volumes.group {
        Some(Group { mib, free_mib }) => {
            format!("The gateway's volume group has {}, of which {} are free.", size(mib), size(free_mib))
        }
        None if volumes.disks.is_empty() => {
            "The gateway has no volume group, and no disk that it could be made of.".to_owned()
        }
        None => "The gateway has no volume group. Choose a disk to make it of.".to_owned(),
    }
}

fn export(export: &Exported) -> Row {
    let claims = if export.problem.is_some() { "Beware: choose it" } else { &list(&export.claims) };
    let text = line([&export.name, &format!("{:>10}", size(export.mib)), &list(&export.clients), claims]);
    Row::Choice(left(&text, CHOICE), Page::Export(export.name.clone()))
}

fn take(disk: &Disk) -> Row {
    let Disk { name, mib, blank, .. } = disk;
    let has = if *blank { "blank" } else { "with data" };
    let request = VolumeRequest::Take { disk: name.clone(), blank: *blank, typed: String::new() };
    Row::Choice(format!("Take the disk {name} ({}, {has})", size(*mib)), Page::Volume(request))
}

/// A size of so many MiB as an operator says it: in GiB from one on, to a tenth.
#[must_use]
pub fn size(mib: u64) -> String {
    if mib < 1024 { format!("{mib} MiB") } else { format!("{}.{} GiB", mib / 1024, mib % 1024 * 10 / 1024) }
}

fn line([name, size, clients, claims]: [&str; 4]) -> String {
    format!("{}  {size}  {}  {claims}", left(name, 18), left(clients, 14))
}
