//! One node: how it is, what its last boot ended of, how far it is emptied, and what can be asked of it.

use cluster::event::Request;
use cluster::status::{LinkStatus, NodeStatus};
use cluster::words::{Role, Slot};

use super::{leaving, overview};
use crate::facts::{Facts, names};
use crate::page::{Page, Row, WIDTH, no_status, paragraph};
use crate::text::{list, wrap};

/// The column of the values.
const VALUE: usize = 13;

/// Whether it is off, as far as the cluster knows.
pub(crate) fn is_gone(node: &NodeStatus) -> bool {
    matches!(node.state.as_str(), "off" | "fenced" | "booting")
}

pub(crate) fn rows(facts: &Facts, slot: Slot) -> Vec<Row> {
    let Some(status) = &facts.status else {
        return no_status(facts);
    };
    let Some(node) = facts.node(slot) else {
        return paragraph("There is no such node any more.").collect();
    };
    let here = facts.here() == Some(slot);
    let quality = |link: &LinkStatus| format!("{} {}%", link.network, link.quality);
    let links: Vec<_> = node.links.iter().map(quality).collect();
    let mut facts_of_it = vec![
        ("State", overview::state(node)),
        ("Incarnation", node.incarnation.clone()),
        ("Heard", overview::heard(status, node)),
        ("Links", list(&links)),
        ("Outlets", list(&node.outlets)),
        ("Last boot", node.death.clone().unwrap_or_else(|| "nothing is known against it".to_owned())),
    ];
    if node.role == Role::Node {
        facts_of_it.push(("Free", node.free.to_string()));
    }
    let leaving = leaving::rows(facts, slot);
    if node.role == Role::Node && leaving.is_empty() {
        facts_of_it.push(("VMs", list(&names(&facts.vms_at(slot)))));
    }
    let mut rows: Vec<_> = facts_of_it
        .iter()
        .flat_map(|(name, value)| wrap(&format!("{name:<VALUE$}{value}"), WIDTH, VALUE).into_iter().map(Row::Text))
        .collect();
    rows.extend(leaving);
    if node.on_trial {
        rows.extend(paragraph("\nIt is new: it is given VMs as soon as a test of its fencing has passed."));
    }
    rows.push(Row::Text(String::new()));
    let ask = |text: &str, request| Row::Choice(text.to_owned(), Page::Ask(request));
    if node.role == Role::Node {
        let turn = |on: bool, into: &'static str, out: &'static str| if on { out } else { into };
        rows.extend([
            ask(
                turn(node.standby, "Put into standby", "Take out of standby"),
                Request::Standby { node: slot, on: !node.standby },
            ),
            ask(
                turn(node.maintenance, "Put into maintenance", "Take out of maintenance"),
                Request::Maintenance { node: slot, on: !node.maintenance },
            ),
            ask(
                turn(node.disarmed, "Disarm: do not fence it", "Arm again"),
                Request::Disarm { node: Some(slot), on: !node.disarmed },
            ),
        ]);
    }
    // Such a node has nothing to lose, and no node is fenced by its own word.
    if node.role == Role::Node && (node.standby || node.on_trial) && !here {
        rows.push(ask("Test its fencing", Request::Drill { node: slot }));
    }
    if here {
        rows.push(ask("Shut down", Request::ShutDown));
    } else {
        rows.extend(paragraph("\nIt is shut down at its own console."));
    }
    if node.role == Role::Node && !here && is_gone(node) {
        rows.push(ask("Remove it from the cluster", Request::RemoveNode { node: slot, typed: String::new() }));
    }
    rows
}
