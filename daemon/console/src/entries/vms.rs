//! VMs: who owns each one, and how it is.

use super::no_status;
use crate::facts::Facts;
use crate::text::left;

pub(super) fn lines(facts: &Facts) -> Vec<String> {
    let Some(status) = &facts.status else {
        return no_status(facts);
    };
    if status.vms.is_empty() {
        return vec!["The cluster has no VMs: there are no VM files in /shared/vms.".to_owned()];
    }
    let mut lines = vec![row(["VM", "Owner", "Phase", "Generation", "Memory"])];
    lines.extend(status.vms.iter().map(|vm| {
        let owner = vm.owner.as_deref().unwrap_or("none");
        row([&vm.name, owner, &vm.phase, &vm.generation.to_string(), &vm.memory.to_string()])
    }));
    lines
}

fn row([name, owner, phase, generation, memory]: [&str; 5]) -> String {
    format!("{}  {}  {}  {}  {memory}", left(name, 16), left(owner, 14), left(phase, 18), left(generation, 10),)
}
