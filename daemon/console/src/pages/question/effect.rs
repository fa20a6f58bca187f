//! What a request will do, and to which VMs: said before it is asked for.

use cluster::event::Request;
use cluster::placement::need;
use cluster::status::{NodeStatus, VmStatus};
use cluster::words::{Role, Slot, VmName};

use crate::facts::{Facts, is_down, names};
use crate::pages::rolling;
use crate::text::list;

/// A node that was not heard for so many milliseconds is called silent.
const SILENT: u64 = 2_000;

/// The question and what a yes will do.
pub(super) fn question(facts: &Facts, request: &Request) -> String {
    let effect = match request {
        Request::ShutDown => shut_down(facts),
        Request::Standby { node, on: true } => standby(facts, *node),
        Request::Standby { node, on: false } => {
            format!("{} takes VMs again. Which ones are moved there is the cluster's choice.", facts.name(*node))
        }
        Request::Maintenance { node, on: true } => maintenance(facts, *node),
        Request::Maintenance { node, on: false } => {
            format!("The cluster looks after it and its VMs again: {}.{}", vms_of(facts, *node), silent(facts, *node))
        }
        Request::Disarm { node: Some(node), on: true } => format!(
            "It is not fenced, and does not fence itself. If it dies, these VMs stay down until it is armed again: {}.",
            vms_of(facts, *node)
        ),
        Request::Disarm { node: Some(node), on: false } => {
            format!("If it falls silent its power is cut, and its VMs are started elsewhere.{}", silent(facts, *node))
        }
        Request::Disarm { node: None, on } => disarm_all(facts, *on),
        Request::Start { vm } => of_vm(facts, vm, start),
        Request::Stop { vm } => of_vm(facts, vm, stop),
        Request::Migrate { vm, to } => of_vm(facts, vm, |facts, vm| migrate(facts, vm, *to)),
        Request::Drill { node } => drill(facts, *node),
        Request::ChangeKey { key } => format!(
            "The gateway gives every node key {key}. When all have it, nobody takes any more what is sealed with an older one; whoever \
             is cut off or asleep until then joins anew. VMs and their connections go on.\n\nWhat secrets.toml names stays: \
             SNMP communities, passwords, the PIN."
        ),
        Request::AddNode { .. } => {
            "Its votes count from now on, and it joins when it boots. Before it is given VMs its outlets are switched off and \
             on once."
                .to_owned()
        }
        Request::Rolling { on } => rolling::effect(facts, *on),
        Request::ConfirmOff { node, typed } => return confirm(facts, *node, typed),
        Request::RemoveNode { node, typed } => return remove(facts, *node, typed),
    };
    format!("{}? (y/n)\n\n{effect}", super::title(facts, request))
}

fn vms_of(facts: &Facts, slot: Slot) -> String {
    list(&names(&facts.vms_at(slot)))
}

fn shut_down(facts: &Facts) -> String {
    let Some(status) = &facts.status else {
        return "It does not take part in the cluster. It powers off at once, with all that runs on it.".to_owned();
    };
    let here = facts.here();
    if here.and_then(|here| facts.node(here)).is_some_and(|node| node.role == Role::Gateway) {
        return "This is the gateway: every VM of the cluster has its disks here. They stand still until the gateway is \
                back. It leaves the cluster and powers off."
            .to_owned();
    }
    let moved = match here.map_or_else(Vec::new, |here| names(&facts.vms_at(here))).as_slice() {
        [] => "It has no VMs.".to_owned(),
        vms => format!(
            "It has these VMs, which are moved to other nodes first, live: {}.\n\nOne that cannot be moved in time is \
             shut down and started again elsewhere.",
            vms.join(", ")
        ),
    };
    let quorum =
        if status.quorate { "" } else { "\n\nThe cluster is inquorate: nothing can be moved as long as it is." };
    format!("{moved}{quorum}\n\nThen the node leaves the cluster and powers off.")
}

fn standby(facts: &Facts, node: Slot) -> String {
    let moved = match names(&facts.vms_at(node)).as_slice() {
        [] => "It has none now.".to_owned(),
        vms => format!(
            "These are moved to other nodes, live, one after the other: {}.\n\nOne that finds no room elsewhere stays and \
             keeps running, and is tried again.",
            vms.join(", ")
        ),
    };
    format!("It takes no VMs any more. {moved}")
}

fn maintenance(facts: &Facts, node: Slot) -> String {
    let vms = match names(&facts.vms_at(node)).as_slice() {
        [] => "It has no VMs, and is given none.".to_owned(),
        vms => format!(
            "These VMs keep running there, but are neither moved, nor stopped, nor started again if they die: {}.",
            vms.join(", ")
        ),
    };
    format!("The cluster touches nothing on it, and does not fence it. {vms}")
}

/// What follows at once if the node is silent when it is armed.
fn silent(facts: &Facts, node: Slot) -> String {
    if facts.here() != Some(node) && facts.node(node).is_some_and(is_silent) {
        format!("\n\n{} is silent now: it may be fenced at once.", facts.name(node))
    } else {
        String::new()
    }
}

fn is_silent(node: &NodeStatus) -> bool {
    node.heard_ms.is_none_or(|millis| millis > SILENT)
}

fn disarm_all(facts: &Facts, on: bool) -> String {
    if on {
        let vms: Vec<_> = facts.vms().filter(|vm| !is_down(vm)).map(|vm| vm.name.clone()).collect();
        return format!(
            "No node is fenced, and none fences itself. If one dies, its VMs stay down until the cluster is armed again. \
             These run now: {}.",
            list(&vms)
        );
    }
    let silent = |(slot, node): &(Slot, &NodeStatus)| facts.here() != Some(*slot) && is_silent(node);
    let silent: Vec<_> = facts.nodes().filter(silent).map(|(_, node)| node.name.clone()).collect();
    format!(
        "A node that is silent for too long is fenced again: its power is cut, and its VMs are started elsewhere.\n\n\
         Silent now: {}.",
        list(&silent)
    )
}

fn of_vm(facts: &Facts, name: &VmName, effect: impl FnOnce(&Facts, &VmStatus) -> String) -> String {
    facts.vm(name).map_or_else(|| "There is no such VM any more.".to_owned(), |vm| effect(facts, vm))
}

fn start(facts: &Facts, vm: &VmStatus) -> String {
    if !is_down(vm) {
        return format!("It is {} already.", vm.phase);
    }
    let free = |(_, node): (Slot, &NodeStatus)| {
        (node.role == Role::Node && node.state == "member").then(|| format!("{} {}", node.name, node.free))
    };
    let free: Vec<_> = facts.nodes().filter_map(free).collect();
    let again = if vm.phase == "failed" { "It had failed too often, and is tried again. " } else { "" };
    format!("{again}It is started where the cluster finds room for its {}. Free: {}.", need(vm.memory), list(&free))
}

fn stop(_: &Facts, vm: &VmStatus) -> String {
    let there = match &vm.owner {
        Some(owner) if !is_down(vm) => format!("Its guest on {owner} is asked to shut down, and ends. "),
        Some(_) | None => "It does not run. ".to_owned(),
    };
    format!(
        "{there}It is not started again, by nobody and on no node, until you start it here. No other VM is touched."
    )
}

fn migrate(facts: &Facts, vm: &VmStatus, to: Slot) -> String {
    let from = vm.owner.as_deref().unwrap_or("no node");
    let free = facts.node(to).map(|node| node.free).unwrap_or_default();
    format!(
        "It is moved from {from}, live: it keeps running. It needs {}; {} has {free} free. No other VM is touched.",
        need(vm.memory),
        facts.name(to)
    )
}

fn drill(facts: &Facts, slot: Slot) -> String {
    let outlets = facts.node(slot).map_or_else(Vec::new, |node| node.outlets.clone());
    let busy = match names(&facts.vms_at(slot)).as_slice() {
        [] => String::new(),
        vms => format!("\n\nIt still has these VMs, and is not tested as long as it has: {}.", vms.join(", ")),
    };
    format!(
        "It is fenced as if it were dead: the DC switches its outlets off ({}), reads them back, and switches them on \
         again. {} boots anew.\n\nThe event log says whether it fell silent, and nobody else. If an outlet feeds another machine, \
         that one loses its power, with the VMs on it.{busy}",
        list(&outlets),
        facts.name(slot)
    )
}

fn remove(facts: &Facts, slot: Slot, typed: &str) -> String {
    let name = facts.name(slot);
    let outlets = facts.node(slot).map_or_else(Vec::new, |node| node.outlets.clone());
    format!(
        "It is no node any more: its vote does not count, and nobody watches it. Its address and its outlets are free for another \
         machine: {}.\n\nThe cluster's key changes with it: the one that it holds opens nothing any more, and the gateway gives it no other. But it has \
         been given the SNMP communities, passwords and PIN of secrets.toml: change them there and at the devices.\n\nIs {name} to go for good? Type \
         its name and press Enter: {typed}_",
        list(&outlets)
    )
}

fn confirm(facts: &Facts, slot: Slot, typed: &str) -> String {
    let name = facts.name(slot);
    let outlets = facts.node(slot).map_or_else(Vec::new, |node| node.outlets.clone());
    format!(
        "If you say so, the cluster takes {name} for dead and starts these VMs on other nodes: {}.\n\nIf it still runs, they \
         run twice, and their disks are destroyed. So go and look: its power is cut, or its cables are pulled. It is fed \
         by: {}.\n\nIs {name} off? Type its name and press Enter: {typed}_",
        vms_of(facts, slot),
        list(&outlets)
    )
}
