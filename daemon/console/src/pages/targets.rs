//! Where a VM can be migrated to: every other node that runs VMs, and whether it has room now.

use cluster::event::Request;
use cluster::placement::need;
use cluster::words::{Role, VmName};

use super::overview;
use crate::facts::Facts;
use crate::page::{CHOICE, Page, Row, beside, no_status, paragraph};
use crate::text::left;

pub(crate) fn rows(facts: &Facts, name: &VmName) -> Vec<Row> {
    if facts.status.is_none() {
        return no_status(facts);
    }
    let Some(vm) = facts.vm(name) else {
        return paragraph(&format!("There is no VM {name} any more.")).collect();
    };
    let need = need(vm.memory);
    let owner = vm.owner.as_deref();
    let others = |node: &&cluster::status::NodeStatus| node.role == Role::Node && Some(&*node.name) != owner;
    let mut rows: Vec<_> =
        paragraph(&format!("It is on {} and needs {need} of a node.\n", owner.unwrap_or("no node"))).collect();
    rows.push(beside(&line(["Node", "State", "Free", ""])));
    rows.extend(facts.nodes().filter(|(_, node)| others(node)).map(|(to, node)| {
        let room = if node.free < need { "no room" } else { "" };
        let text = line([&node.name, &overview::state(node), &node.free.to_string(), room]);
        Row::Choice(left(&text, CHOICE), Page::Ask(Request::Migrate { vm: name.clone(), to }))
    }));
    rows
}

fn line([name, state, free, room]: [&str; 4]) -> String {
    format!("{}  {}  {}  {room}", left(name, 16), left(state, 24), left(free, 12))
}
