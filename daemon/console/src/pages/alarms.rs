//! Alarms: whatever an administrator should look after, the worst first.

use cluster::status::{LinkStatus, NodeStatus, Status, VmStatus};
use cluster::words::Supply;

use crate::facts::{Facts, is_down};
use crate::page::{Row, paragraph};
use crate::pages::overview;
use crate::text::list;

/// A link on which fewer than this many heartbeats of a hundred come is an alarm.
const POOR: u8 = 80;

/// Each one a paragraph, with an empty row in front.
pub(crate) fn rows(facts: &Facts) -> impl Iterator<Item = Row> + use<> {
    let problems = facts.problems.iter().cloned();
    let alarms: Vec<_> = problems.chain(facts.status.iter().flat_map(of)).collect();
    alarms.into_iter().flat_map(|alarm| paragraph(&format!("\n{alarm}")))
}

/// The alarms of a status.
fn of(status: &Status) -> Vec<String> {
    let mut alarms = Vec::new();
    if !status.quorate {
        alarms.push("This node is inquorate: nothing is started, stopped or fenced.".to_owned());
    } else if status.dc.is_none() {
        alarms.push("There is no DC: nothing is decided until there is one.".to_owned());
    }
    if status.disarmed {
        alarms.push("The cluster is disarmed: nobody is fenced, and no VM of a dead node is recovered.".to_owned());
    }
    alarms.extend(status.nodes.iter().flat_map(of_node));
    alarms.extend(
        status
            .upses
            .iter()
            .filter(|ups| ups.supply != Supply::Mains)
            .map(|ups| format!("UPS {} is {}: it feeds {}.", ups.name, overview::supply(ups.supply), list(&ups.feeds))),
    );
    alarms.extend(status.vms.iter().filter_map(of_vm));
    alarms.extend(status.shortfalls.iter().map(|short| {
        format!("If {} were lost, the others would have no room for VMs {}.", short.node, list(&short.vms))
    }));
    alarms.extend(status.nodes.iter().flat_map(of_links));
    alarms
}

fn of_node(node: &NodeStatus) -> Vec<String> {
    let name = &node.name;
    let mut alarms = Vec::new();
    match &*node.state {
        "unclean" => alarms.push(format!("{name} is unclean: its VMs wait until it is proven off. See Fencing.")),
        "fenced" => alarms.push(format!("{name} was fenced, and has not come back.")),
        _ => {}
    }
    if node.on_trial {
        alarms.push(format!("{name} is on trial: it is given no VMs until a test of its fencing has passed."));
    }
    if node.maintenance {
        alarms.push(format!("{name} is in maintenance: the cluster touches nothing on it."));
    } else if node.disarmed {
        alarms.push(format!("{name} is disarmed: it is not fenced, and its VMs are not recovered."));
    }
    alarms
}

/// The links of a node that is there: those of another one are silent as it is.
fn of_links(node: &NodeStatus) -> Vec<String> {
    let name = &node.name;
    let poor = node.links.iter().filter(|link| node.state == "member" && link.quality < POOR);
    let alarm = |link: &LinkStatus| match link.quality {
        0 => format!("Nothing is heard of {name} on {}.", link.network),
        quality => format!("Of {name}'s heartbeats on {}, {quality}% come.", link.network),
    };
    poor.map(alarm).collect()
}

fn of_vm(vm: &VmStatus) -> Option<String> {
    let name = &vm.name;
    match &*vm.phase {
        "failed" => Some(format!("VM {name} has failed too often, and is not tried again until it is started.")),
        _ if vm.wanted && is_down(vm) => Some(format!("VM {name} is to run, and does not. See its page.")),
        _ => None,
    }
}
