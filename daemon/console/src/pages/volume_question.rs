//! A question about the gateway's disks: what it will do, whether it may be asked now, and what the gateway has answered.
//!
//! What cannot be undone is asked for by typing the name of what is lost.

use super::storage::size;
use crate::facts::{Facts, Reply};
use crate::page::{Row, no_status, paragraph};
use crate::volumes::{Disk, Exported, VolumeRequest};

/// Whether the operator may confirm now.
pub(crate) fn is_open(facts: &Facts, request: &VolumeRequest) -> bool {
    facts.connected
        && facts.status.is_some()
        && question(facts, request).is_some()
        && !facts.volumes.awaits()
        && facts.volumes.reply(request) != Some(&Reply::Agreed)
}

/// The request in a few words.
pub(crate) fn title(request: &VolumeRequest) -> String {
    match request {
        VolumeRequest::List => "Storage".to_owned(),
        VolumeRequest::Take { disk, .. } => format!("Take the disk {disk} for the volume group"),
        VolumeRequest::Create { .. } => "Make an export".to_owned(),
        VolumeRequest::Grow { export, .. } => format!("Make {export} larger"),
        VolumeRequest::Snapshot { export } => format!("Take a snapshot of {export}"),
        VolumeRequest::Check { export, repair: false, .. } => format!("Check the file system on {export}"),
        VolumeRequest::Check { export, repair: true, .. } => format!("Check and repair the file system on {export}"),
        VolumeRequest::Journals { export, .. } => format!("Add journals to the file system on {export}"),
        VolumeRequest::Delete { export, .. } => format!("Delete {export}"),
    }
}

pub(crate) fn rows(facts: &Facts, request: &VolumeRequest) -> Vec<Row> {
    if !facts.connected || facts.status.is_none() {
        return no_status(facts);
    }
    let reply = facts.volumes.reply(request);
    let text = match reply {
        Some(Reply::Agreed) => format!("{}{}", agreed(request), facts.volumes.said().unwrap_or_default()),
        Some(Reply::Awaited) => "Asked. The gateway answers when it is done.".to_owned(),
        _ if facts.volumes.awaits() => {
            "What was asked last is not done yet. The gateway answers when it is.".to_owned()
        }
        Some(Reply::Refused(_) | Reply::Lost) | None => {
            let note = match reply {
                Some(Reply::Refused(reason)) => format!("Refused: {reason}.\n\n"),
                Some(Reply::Lost) => {
                    "The supervisor was lost after this was asked: look whether it was done.\n\n".to_owned()
                }
                Some(Reply::Awaited | Reply::Agreed) | None => String::new(),
            };
            note + &question(facts, request)
                .unwrap_or_else(|| "The gateway tells of no such thing any more.".to_owned())
        }
    };
    paragraph(&text).collect()
}

fn agreed(request: &VolumeRequest) -> &'static str {
    match request {
        VolumeRequest::List => "",
        VolumeRequest::Take { .. } => "Done. The disk is a part of the volume group.",
        VolumeRequest::Create { .. } => "Done. The gateway serves it.",
        VolumeRequest::Grow { .. } => "Done. Whoever connects from now on sees the new size.",
        VolumeRequest::Snapshot { .. } => "Done. The gateway serves it.",
        VolumeRequest::Check { .. } | VolumeRequest::Journals { .. } => "Done. ",
        VolumeRequest::Delete { .. } => "Done. It is gone.",
    }
}

/// What is asked, if there is what it is about.
fn question(facts: &Facts, request: &VolumeRequest) -> Option<String> {
    let export = |name: &str| facts.volumes.export(name);
    Some(match request {
        VolumeRequest::List => return None,
        VolumeRequest::Take { disk, blank: told, typed } => {
            let Disk { mib, serial, blank, .. } = facts.volumes.disk(disk).filter(|disk| disk.blank == *told)?;
            let serial = serial.as_deref().unwrap_or("unknown");
            let warning = if *blank {
                "It is blank: nothing was found at its beginning or its end."
            } else {
                "It is NOT blank. Everything on it is lost, and nothing brings it back."
            };
            format!(
                "{disk}: {}, serial number {serial}.\n\n{warning}\n\nIt becomes a part of the gateway's volume group, and of \
                 the exports that are made there: a disk of the group that fails takes every export with it that has a part \
                 on it.\n\nType {disk} and press Enter: {typed}_",
                size(*mib)
            )
        }
        VolumeRequest::Create { typed } => {
            let group = facts.volumes.told.as_ref()?.as_ref().ok()?.group?;
            format!(
                "{} are free.\n\nA VM's file names it as /dev/gnbd/NAME. What deleted exports left on that part of the disks \
                 can be read from it, but for its first 4 KiB, which are zero.\n\nType its name and its size in MiB, GiB or \
                 TiB, as in \"web 20G\" or \"web 512M\", and press Enter:\n{typed}_",
                size(group.free_mib)
            )
        }
        VolumeRequest::Grow { export: name, typed } => {
            let Exported { mib, .. } = export(name)?;
            format!(
                "{name} has {}. What is on it stays as it is.\n\nA VM sees the new size when it has been stopped and \
                 started: its node connects anew then. Its file system must be grown from inside.\n\nType its new size, as in \
                 \"30G\", and press Enter: {typed}_",
                size(*mib)
            )
        }
        VolumeRequest::Snapshot { export: name } => {
            let Exported { mib, clients, .. } = export(name)?;
            let state = if clients.is_empty() {
                "Nobody is connected to it."
            } else {
                "It is in use: the snapshot is what a power cut would leave now."
            };
            format!(
                "Take a snapshot of {name}? (y/n)\n\n{state}\n\nIt is one more export, which can only be read. It takes {} of \
                 the volume group, so that it never fills. As long as it is there, {name} is slower to write to, and cannot \
                 be made larger.",
                size(*mib)
            )
        }
        VolumeRequest::Check { export: name, repair, typed } => {
            export(name)?;
            let does = if *repair {
                "fsck.gfs2 replays the journals that nodes have left behind, and repairs what is wrong. What it cannot \
                 repair it may delete."
            } else {
                "fsck.gfs2 looks through it and changes nothing. The journals of nodes that died stay as they are, and may \
                 look like errors."
            };
            format!(
                "{does}\n\nEvery node must be off, so ask for it at the gateway itself: it is refused while anybody is connected, or known to be on. Of a node \
                 that the gateway neither hears nor knows to be off, make sure that it has NO POWER; should it have, it \
                 loses its disks until it is restarted.\n\nNobody gets {name} until it is done, which takes minutes if it \
                 is large.\n\nType {name} and press Enter: {typed}_"
            )
        }
        VolumeRequest::Journals { export: name, typed } => {
            export(name)?;
            format!(
                "Each node needs a journal of its own to mount it. One takes 32 MiB, and none can be taken away \
                 again.\n\nA node that has it mounted makes them (gfs2_jadd). One that could not mount it tries again by \
                 itself.\n\nType how many more, 1 to 16, and press Enter: {typed}_"
            )
        }
        VolumeRequest::Delete { export: name, typed } => {
            let Exported { mib, .. } = export(name)?;
            format!(
                "{}, and everything on it, are lost, and nothing brings them back.\n\nIt is refused while anybody is \
                 connected, while a VM that has claimed it is not stopped, and while there is a snapshot of it.\n\nType {name} \
                 and press Enter: {typed}_",
                size(*mib)
            )
        }
    })
}

/// The keys of it.
pub(crate) fn keys(facts: &Facts, request: &VolumeRequest) -> Option<&'static str> {
    let open = is_open(facts, request);
    match request {
        _ if !open => None,
        VolumeRequest::Snapshot { .. } | VolumeRequest::List => {
            Some("y: yes   n, Esc, q: no, back   Ctrl-L: draw again")
        }
        VolumeRequest::Take { .. }
        | VolumeRequest::Create { .. }
        | VolumeRequest::Grow { .. }
        | VolumeRequest::Check { .. }
        | VolumeRequest::Journals { .. }
        | VolumeRequest::Delete { .. } => Some("Enter: do it   Esc: no, back   Ctrl-L: draw again"),
    }
}
