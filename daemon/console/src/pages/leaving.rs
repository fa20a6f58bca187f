//! How far a node is emptied: the VMs that are still on it, and how many of those that were have left.

use cluster::words::Slot;

use crate::facts::{Facts, names};
use crate::page::Row;
use crate::text::left;

/// Characters of the bar.
const BAR: usize = 30;

/// Nothing, if that node is not being emptied.
pub(crate) fn rows(facts: &Facts, slot: Slot) -> Vec<Row> {
    let Some(node) = facts.node(slot) else { return Vec::new() };
    let leaves =
        node.state == "leaving" || facts.here() == Some(slot) && facts.status.as_ref().is_some_and(|s| s.leaving);
    if leaves || node.standby { progress(facts, slot) } else { Vec::new() }
}

/// The same of a node that is being emptied, whatever its status says yet.
pub(crate) fn progress(facts: &Facts, slot: Slot) -> Vec<Row> {
    let here = facts.vms_at(slot);
    let still = names(&here);
    let mut rows = vec![Row::Text(String::new())];
    let before = facts.asked.as_ref().filter(|asked| facts.empties(&asked.request) == Some(slot));
    let before = before.map_or(&[][..], |asked| &asked.vms);
    let gone = before.iter().filter(|vm| !still.contains(vm)).count();
    if let Some(full) = (gone * BAR).checked_div(before.len()) {
        let bar = format!("{}{}", "#".repeat(full), ".".repeat(BAR - full));
        rows.push(Row::Text(format!("[{bar}] {gone} of {} VMs have left.", before.len())));
    }
    if here.is_empty() {
        rows.push(Row::Text("No VM is on it.".to_owned()));
    } else {
        rows.push(Row::Text("Still on it:".to_owned()));
        rows.extend(here.iter().map(|vm| Row::Text(format!("  {}  {}", left(&vm.name, 16), vm.phase))));
    }
    rows
}
