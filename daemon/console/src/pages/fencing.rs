//! Fencing: what feeds every node, how its last boot ended, and the way to say that a node is off.

use cluster::event::Request;

use super::overview;
use crate::facts::Facts;
use crate::page::{CHOICE, NUMBER, Page, Row, WIDTH, beside, no_status, paragraph};
use crate::text::{left, list, wrap};

pub(crate) fn rows(facts: &Facts) -> Vec<Row> {
    let Some(status) = &facts.status else {
        return no_status(facts);
    };
    let mut rows: Vec<_> = paragraph("Choose a node to confirm that it is off.\n").collect();
    rows.push(beside(&line(["Node", "State", "Outlets"])));
    for (node, shown) in facts.nodes() {
        let text = line([&shown.name, &overview::state(shown), &list(&shown.outlets)]);
        let page = Page::Ask(Request::ConfirmOff { node, typed: String::new() });
        rows.push(Row::Choice(left(&text, CHOICE), page));
        // Why it was fenced, which it cannot know itself.
        let death = shown.death.iter().flat_map(|death| wrap(&format!("last boot: {death}"), WIDTH - NUMBER - 4, 0));
        rows.extend(death.map(|line| beside(&format!("    {line}"))));
    }
    rows.push(Row::Text(String::new()));
    let turn = if status.disarmed { "Arm the cluster again" } else { "Disarm the cluster: fence nobody" };
    rows.push(Row::Choice(turn.to_owned(), Page::Ask(Request::Disarm { node: None, on: !status.disarmed })));
    rows
}

fn line([name, state, outlets]: [&str; 3]) -> String {
    format!("{}  {}  {outlets}", left(name, 14), left(state, 22))
}
