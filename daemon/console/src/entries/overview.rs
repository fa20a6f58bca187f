//! Status: the cluster as this node sees it, and every node.

use cluster::status::{NodeStatus, Status};
use cluster::words::Role;

use super::no_status;
use crate::facts::Facts;
use crate::text::{left, list};

pub(super) fn lines(facts: &Facts) -> Vec<String> {
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
        format!("Domains     {}", list(&status.domains)),
        String::new(),
        row(["Node", "State", "Incarnation", "Free", "Heard", "Outlets"]),
    ];
    lines.extend(status.nodes.iter().flat_map(|node| lines_of(status, node)));
    lines
}

fn lines_of(status: &Status, node: &NodeStatus) -> Vec<String> {
    let free = match node.role {
        Role::Gateway => "gateway".to_owned(),
        Role::Node => node.free.to_string(),
    };
    let heard = match node.heard_ms {
        _ if node.name == status.node => "is here".to_owned(),
        None => "never".to_owned(),
        // Finer would be another line to send with every heartbeat.
        Some(..2_000) => "now".to_owned(),
        Some(millis) => format!("{} s ago", millis / 1000),
    };
    // A node with several feeds has a line for each further outlet.
    let mut outlets = node.outlets.iter().map(String::as_str);
    let first = outlets.next().unwrap_or("none");
    let mut lines = vec![row([&node.name, &node.state, &node.incarnation, &free, &heard, first])];
    lines.extend(outlets.map(|outlet| row(["", "", "", "", "", outlet])));
    lines
}

fn row([name, state, incarnation, free, heard, outlets]: [&str; 6]) -> String {
    format!(
        "{}  {}  {}  {}  {}  {outlets}",
        left(name, 14),
        left(state, 8),
        left(incarnation, 11),
        left(free, 10),
        left(heard, 9),
    )
}
