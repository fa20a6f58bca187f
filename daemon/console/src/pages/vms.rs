//! VMs: who owns each one, and how it is.

use cluster::words::VmName;

use crate::facts::Facts;
use crate::page::{CHOICE, Page, Row, beside, no_status, paragraph};
use crate::text::left;

pub(crate) fn rows(facts: &Facts) -> Vec<Row> {
    let Some(status) = &facts.status else {
        return no_status(facts);
    };
    if status.vms.is_empty() {
        return paragraph("The cluster has no VMs: there are no VM files in /shared/vms.").collect();
    }
    let mut rows = vec![beside(&line(["VM", "Owner", "Phase", "Memory", "Priority"]))];
    rows.extend(status.vms.iter().map(|vm| {
        let owner = vm.owner.as_deref().unwrap_or("none");
        let text = line([&vm.name, owner, &vm.phase, &vm.memory.to_string(), &vm.priority.to_string()]);
        // The core has no other names than these.
        match VmName::new(&vm.name) {
            Some(name) => Row::Choice(left(&text, CHOICE), Page::Vm(name)),
            None => beside(&text),
        }
    }));
    rows
}

fn line([name, owner, phase, memory, priority]: [&str; 5]) -> String {
    format!("{}  {}  {}  {}  {priority}", left(name, 16), left(owner, 12), left(phase, 18), left(memory, 10))
}
