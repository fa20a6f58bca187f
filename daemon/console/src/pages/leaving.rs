//! How far a node is emptied: how many of its VMs have left and where they are, the one that moves, those that wait, and how
//! long they may.

use std::collections::BTreeSet;

use cluster::status::VmStatus;
use cluster::words::Slot;

use crate::facts::{Facts, names};
use crate::page::{Row, paragraph};
use crate::progress::{bar, carried, clock, is_leaving, since};
use crate::text::left;

/// Nothing, if that node is not being emptied.
pub(crate) fn rows(facts: &Facts, slot: Slot) -> Vec<Row> {
    let Some(node) = facts.node(slot) else { return Vec::new() };
    if is_leaving(facts, slot, node) || node.standby { progress(facts, slot) } else { Vec::new() }
}

/// The same of a node that is being emptied, whatever its status says yet.
pub(crate) fn progress(facts: &Facts, slot: Slot) -> Vec<Row> {
    let here = facts.vms_at(slot);
    let still = names(&here);
    let mut rows = vec![Row::Text(String::new())];
    let before = before(facts, slot);
    let gone: Vec<&String> = before.iter().filter(|vm| !still.contains(vm)).collect();
    let [part, whole] = [gone.len(), before.len()].map(|vms| u64::try_from(vms).unwrap_or(u64::MAX));
    if whole > 0 {
        rows.push(Row::Text(format!("{} {part} of {whole} VMs have left.", bar(part, whole))));
    }
    rows.extend(time(facts, slot));
    if here.is_empty() {
        rows.push(Row::Text("No VM is on it.".to_owned()));
    }
    let (waiting, busy): (Vec<_>, Vec<_>) = here.into_iter().partition(|vm| vm.phase == "running");
    rows.extend(busy.into_iter().flat_map(|vm| on_its_way(facts, vm)));
    if !waiting.is_empty() {
        rows.extend(paragraph(&format!("Waiting: {}.", names(&waiting).join(", "))));
    }
    if !gone.is_empty() {
        let gone: Vec<_> = gone.into_iter().map(|vm| now_at(facts, vm)).collect();
        rows.extend(paragraph(&format!("Have left: {}.", gone.join(", "))));
    }
    rows
}

/// The VMs that were on it when it began, as far as this menu has seen that.
fn before(facts: &Facts, slot: Slot) -> BTreeSet<String> {
    let asked = facts.asked.as_ref().filter(|asked| facts.empties(&asked.request) == Some(slot));
    asked.into_iter().flat_map(|asked| &asked.vms).chain(facts.emptied.vms(slot)).cloned().collect()
}

/// For how long it leaves, and when its VMs are waited for no longer.
fn time(facts: &Facts, slot: Slot) -> Option<Row> {
    let name = &facts.node(slot)?.name;
    let leaving = facts.progress.leaving.iter().find(|leaving| leaving.node == *name)?;
    let since = leaving.for_ms.map(|ms| format!("Leaving for {}. ", clock(ms))).unwrap_or_default();
    Some(Row::Text(format!("{since}A VM that has not left after {} is shut down.", clock(leaving.evacuation_ms))))
}

/// A VM with which something is done, and how far that is.
fn on_its_way(facts: &Facts, vm: &VmStatus) -> impl Iterator<Item = Row> + use<> {
    let line = format!("  {}  {}{}", left(&vm.name, 16), vm.phase, since(facts, vm));
    let carried = carried(facts, vm).map(|bar| format!("    {bar}"));
    [line].into_iter().chain(carried).map(Row::Text)
}

/// A VM that has left, and where it is.
fn now_at(facts: &Facts, name: &str) -> String {
    let vm = facts.vms().find(|vm| vm.name == *name);
    let place = vm.map(|vm| vm.owner.as_ref().unwrap_or(&vm.phase));
    place.map_or_else(|| name.to_owned(), |place| format!("{name} ({place})"))
}
