//! Fencing: what feeds every node, what that was read as last, how the node's last boot ended, and the way to say that a node is off.

use cluster::event::Request;

use super::{log, overview};
use crate::facts::Facts;
use crate::page::{CHOICE, Page, Row, beside, no_status, paragraph};
use crate::text::{left, wrap};

/// How far in stands what belongs to a node.
const INDENT: usize = 4;

pub(crate) fn rows(facts: &Facts) -> Vec<Row> {
    let Some(status) = &facts.status else {
        return no_status(facts);
    };
    let mut rows: Vec<_> = paragraph("Choose a node to confirm that it is off.\n").collect();
    rows.push(beside(&line(["Node", "State", "Heard"])));
    for (node, shown) in facts.nodes() {
        let text = line([&shown.name, &overview::state(shown), &overview::heard(status, shown)]);
        let page = Page::Ask(Request::ConfirmOff { node, typed: String::new() });
        rows.push(Row::Choice(left(&text, CHOICE), page));
        let outlets = shown.outlets.iter().map(|outlet| format!("{outlet}: {}", last_read(facts, outlet)));
        // Why it was fenced, which it cannot know itself.
        let death = shown.death.iter().map(|death| format!("last boot: {death}"));
        let more = outlets.chain(death).flat_map(|text| wrap(&text, CHOICE - INDENT, 2));
        rows.extend(more.map(|line| beside(&format!("{:INDENT$}{line}", ""))));
    }
    rows.push(Row::Text(String::new()));
    let turn = if status.disarmed { "Arm the cluster again" } else { "Disarm the cluster: fence nobody" };
    rows.push(Row::Choice(turn.to_owned(), Page::Ask(Request::Disarm { node: None, on: !status.disarmed })));
    rows
}

/// What an outlet was read as last. Other nodes' readings are not known here: the DC and whoever holds the cable read.
fn last_read(facts: &Facts, outlet: &str) -> String {
    match facts.outlets.get(outlet) {
        Some(read) => format!("{}, read here at {}", read.reading, log::since_boot(read.at)),
        None => "not read by this node".to_owned(),
    }
}

fn line([name, state, outlets]: [&str; 3]) -> String {
    format!("{}  {}  {outlets}", left(name, 14), left(state, 22))
}
