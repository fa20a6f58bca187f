//! The file system on the shared disk, looked after for the operator: when it may be checked, and who adds journals to it.
//!
//! It is checked only while no node can have it mounted. The disk is withheld, so that nobody connects from then on; nobody is
//! connected; and every node is off. The last is not always known: a gateway alone is seldom quorate, so that it cannot agree
//! that the last nodes have gone. Of a node that it neither hears nor knows to be off, the operator has said that it has no
//! power. Its boot is barred all the same: what it may still have in its caches never reaches the disk.
//!
//! Journals are added by a node that has the file system mounted, which is one of those that are connected to the disk.

use std::path::Path;

use cluster::status::{NodeStatus, Status};
use cluster::words::{Incarnation, Role};
use console::VolumeRequest;

use super::Member;
use super::claims::Boot;
use super::storage::Storage;
use super::volumes::status;
use crate::gfs2;
use crate::stream::Service;

/// A node that was heard so many milliseconds ago, or later, is on.
const HEARD_MS: u64 = 60_000;
/// Journals that can be asked for at a time: as many as there can be nodes.
const JOURNALS: u8 = 16;

impl Storage {
    /// Does what is asked about the file system on the shared disk, and gives what there is to say of it; nothing if it is
    /// about something else.
    ///
    /// # Errors
    /// It is refused or fails, in words for the operator.
    pub(super) fn look_after(&self, request: &VolumeRequest) -> Result<Option<String>, String> {
        match request {
            VolumeRequest::Check { export, repair, typed } => self.check(export, typed, *repair).map(Some),
            VolumeRequest::Journals { export, typed } => self.add_journals(export, typed).map(Some),
            VolumeRequest::List
            | VolumeRequest::Take { .. }
            | VolumeRequest::Create { .. }
            | VolumeRequest::Grow { .. }
            | VolumeRequest::Snapshot { .. }
            | VolumeRequest::Delete { .. } => Ok(None),
        }
    }

    fn check(&self, name: &str, typed: &str, repair: bool) -> Result<String, String> {
        let device = self.shared_device(name)?;
        if typed != name {
            return Err(format!("\"{typed}\" is not its name"));
        }
        let _withheld = self.withhold(name, "checked")?;
        let status = status(&self.shelf.supervisor)
            .map_err(|error| format!("whether a node has it mounted is not known: {error}"))?;
        for boot in not_known_to_be_off(&status)? {
            self.bar(&boot, self.drain).map_err(|refusal| refusal.to_string())?;
        }
        gfs2::check(Path::new(&device), &self.table, repair)
    }

    fn add_journals(&self, name: &str, typed: &str) -> Result<String, String> {
        self.shared_device(name)?;
        let count = typed.trim().parse().ok().filter(|count| (1..=JOURNALS).contains(count));
        let count = count.ok_or_else(|| format!("\"{typed}\" is no number from 1 to {JOURNALS}"))?;
        let clients = self.clients(name);
        if clients.is_empty() {
            return Err("no node has it mounted, and journals can be added only to a file system that is".to_owned());
        }
        let member = Member::read()?;
        let mut refused = Vec::new();
        for client in clients {
            let Some(node) = member.site.config.nodes.iter().find(|node| node.name == client) else { continue };
            let service = Service::Journals(count);
            match member.connect(node.address, &service) {
                Err(error) => refused.push(format!("{client}: {error}")),
                // It has begun, and no other one is asked: that would add them once more.
                Ok(mut stream) => {
                    let said = stream.hear::<Result<(), String>>();
                    let lost = |error| format!("{client} was lost ({error}): they may have been added");
                    said.map_err(lost)?.map_err(|reason| format!("{client}: {reason}"))?;
                    return Ok(format!("{client} has added {count}."));
                }
            }
        }
        Err(format!("no node could add them: {}", refused.join("; ")))
    }

    /// The device of the shared disk, if that is what is called so.
    fn shared_device(&self, name: &str) -> Result<String, String> {
        let is_shared = self.shared.as_deref() == Some(name);
        let export = self.exports.iter().find(|export| is_shared && export.name == name);
        export.map(|export| export.device.clone()).ok_or_else(|| format!("{name} carries no file system of all nodes"))
    }
}

/// The boots of those nodes that are off only by the operator's word.
///
/// # Errors
/// A node is on, or may be.
fn not_known_to_be_off(status: &Status) -> Result<Vec<Boot>, String> {
    let mut boots = Vec::new();
    for node in status.nodes.iter().filter(|node| node.role == Role::Node && node.state != "removed") {
        let NodeStatus { name, state, heard_ms, incarnation, .. } = node;
        if matches!(state.as_str(), "off" | "fenced") {
            continue;
        }
        if heard_ms.is_some_and(|ms| ms < HEARD_MS) {
            return Err(format!("{name} is on: shut down every node first"));
        }
        if status.quorate {
            return Err(format!("{name} is {state}, and may have it mounted: shut down every node first"));
        }
        // One that was never heard has no boot.
        let boot = u64::from_str_radix(incarnation, 16).ok().and_then(Incarnation::new);
        boots.extend(boot.map(|incarnation| Boot { node: name.clone(), incarnation }));
    }
    Ok(boots)
}
