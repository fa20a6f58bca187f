//! Status: the cluster as this node sees it, and every node with its links.

use std::collections::BTreeMap;

use cluster::status::{NodeStatus, Status, UpsStatus, VmStatus};
use cluster::words::{Role, Supply};

use crate::facts::Facts;
use crate::page::{Row, WIDTH, no_status};
use crate::pages::{alarms, rolling};
use crate::text::{left, list, wrap};

/// The column of a node's links.
const LINKS: usize = 59;

pub(crate) fn rows(facts: &Facts) -> Vec<Row> {
    let Some(status) = &facts.status else {
        return no_status(facts);
    };
    let generation = status.generation.as_deref().unwrap_or("none yet");
    let quorum = if status.quorate { "quorate" } else { "inquorate: nothing is started, stopped or fenced" };
    let mut lines = vec![
        format!("Cluster     {}, generation {generation}, view {}", status.cluster, status.view),
        format!("Quorum      {quorum}"),
        format!("DC          {}", status.dc.as_deref().unwrap_or("none")),
        format!("This node   {}, incarnation {}, {} MiB free", status.node, status.incarnation, status.free_mib),
    ];
    lines.extend(wrap(&format!("Domains     {}", list(&status.domains)), WIDTH, 12));
    lines.extend([format!("VMs         {}", counted(&status.vms)), String::new()]);
    lines.push(line(["Node", "State", "Free", "Heard", "VMs", "Links"]));
    for (slot, node) in facts.nodes() {
        lines.extend(lines_of(status, node, facts.vms_at(slot).len()));
    }
    if !status.upses.is_empty() {
        lines.push(String::new());
        lines.extend(status.upses.iter().flat_map(|ups| wrap(&of_ups(ups), WIDTH, 12)));
    }
    lines.into_iter().map(Row::Text).chain(rolling::progress(facts)).chain(alarms::rows(facts)).collect()
}

/// How many VMs there are in which phase.
fn counted(vms: &[VmStatus]) -> String {
    let mut phases = BTreeMap::<&str, usize>::new();
    for vm in vms {
        // All that move are one phase here, wherever to.
        let phase = vm.phase.split(' ').next().unwrap_or_default();
        *phases.entry(phase).or_default() += 1;
    }
    list(&phases.iter().map(|(phase, count)| format!("{count} {phase}")).collect::<Vec<_>>())
}

/// What is known of a UPS.
fn of_ups(ups: &UpsStatus) -> String {
    let charge = ups.charge_percent.map(|percent| format!(", {percent}%")).unwrap_or_default();
    let runtime = ups.runtime_s.map(|seconds| format!(", {} min left", seconds / 60)).unwrap_or_default();
    format!(
        "{}{}{charge}{runtime}, feeds {}",
        left(&format!("UPS {}", ups.name), 12),
        supply(ups.supply),
        list(&ups.feeds)
    )
}

/// How a UPS stands.
pub(super) fn supply(supply: Supply) -> &'static str {
    match supply {
        Supply::Mains => "mains",
        Supply::Battery => "on battery",
        Supply::Failing => "on battery for too long",
        Supply::Low => "nearly empty",
    }
}

fn lines_of(status: &Status, node: &NodeStatus, vms: usize) -> Vec<String> {
    let free = match node.role {
        Role::Gateway => "gateway".to_owned(),
        Role::Node => node.free.to_string(),
    };
    let heard = heard(status, node);
    let quality = |link: &cluster::status::LinkStatus| format!("{} {}%", link.network, link.quality);
    let links = node.links.iter().map(quality).collect::<Vec<_>>().join(", ");
    let mut links = wrap(&links, WIDTH - LINKS, 0).into_iter();
    let first = links.next().unwrap_or_default();
    let mut lines = vec![line([&node.name, &state(node), &free, &heard, &vms.to_string(), &first])];
    lines.extend(links.map(|more| line(["", "", "", "", "", &more])));
    lines
}

/// When a node was heard last.
pub(super) fn heard(status: &Status, node: &NodeStatus) -> String {
    match node.heard_ms {
        _ if node.name == status.node => "is here".to_owned(),
        None => "never".to_owned(),
        // Finer would be another line to send with every heartbeat.
        Some(..2_000) => "now".to_owned(),
        Some(millis) => format!("{} s ago", millis / 1000),
    }
}

/// A node's state, with what the operator wants of it.
pub(super) fn state(node: &NodeStatus) -> String {
    let duties = [
        (node.on_trial, "on trial"),
        (node.standby, "standby"),
        (node.maintenance, "maintenance"),
        (node.disarmed, "disarmed"),
    ];
    let duties = duties.iter().filter(|(on, _)| *on).map(|(_, word)| *word);
    [&*node.state].into_iter().chain(duties).collect::<Vec<_>>().join(", ")
}

fn line([name, state, free, heard, vms, links]: [&str; 6]) -> String {
    let (name, state) = (left(name, 12), left(state, 18));
    format!("{name}  {state}  {}  {}  {}  {links}", left(free, 8), left(heard, 8), left(vms, 3))
}
