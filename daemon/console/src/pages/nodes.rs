//! Nodes: every node, how it is, and which VMs it has; and how all of them are restarted.

use cluster::words::Role;

use super::{overview, rolling};
use crate::facts::{Facts, names};
use crate::page::{CHOICE, Page, Row, beside, no_status};
use crate::text::{left, list};

pub(crate) fn rows(facts: &Facts) -> Vec<Row> {
    if facts.status.is_none() {
        return no_status(facts);
    }
    let mut rows = vec![beside(&line(["Node", "State", "Free", "VMs"]))];
    rows.extend(facts.nodes().map(|(slot, node)| {
        let free = match node.role {
            Role::Gateway => "gateway".to_owned(),
            Role::Node => node.free.to_string(),
        };
        let text = line([&node.name, &overview::state(node), &free, &list(&names(&facts.vms_at(slot)))]);
        Row::Choice(left(&text, CHOICE), Page::Node(slot))
    }));
    rows.extend(rolling::progress(facts));
    rows.extend([Row::Text(String::new()), rolling::entry(facts)]);
    rows
}

fn line([name, state, free, vms]: [&str; 4]) -> String {
    format!("{}  {}  {}  {vms}", left(name, 14), left(state, 22), left(free, 10))
}
