//! Joining: who asks to join, who was let in, and whether a window is open.

use cluster::event::Request;
use cluster::status::Status;

use super::join_question;
use crate::facts::Facts;
use crate::joining::{Asking, JoinRequest, Joining, Machine};
use crate::page::{CHOICE, Page, Row, beside, no_status, paragraph};
use crate::text::{left, wrap};

/// How far in stands what belongs to a machine.
const INDENT: usize = 4;

pub(crate) fn rows(facts: &Facts) -> Vec<Row> {
    let Some(status) = &facts.status else { return no_status(facts) };
    let joining = match &facts.joining {
        None => return paragraph("The gateway is asked. It answers within 10 s.").collect(),
        Some(Err(reason)) => return paragraph(&format!("The gateway cannot be asked: {reason}.")).collect(),
        Some(Ok(joining)) => joining,
    };
    let mut rows = asking(&joining.asking);
    rows.push(Row::Text(String::new()));
    rows.extend(machines(&joining.machines));
    rows.push(Row::Text(String::new()));
    rows.extend(window(joining));
    rows.push(Row::Text(String::new()));
    rows.extend(key(status));
    rows
}

fn asking(asking: &[Asking]) -> Vec<Row> {
    if asking.is_empty() {
        return paragraph("No machine asks to join.").collect();
    }
    let mut rows: Vec<_> = paragraph("These machines ask to join. Choose one to let it in.\n").collect();
    rows.push(beside(&line(["Node", "Card", "For"])));
    for machine in asking {
        let text = line([&join_question::name(machine), &machine.card, &age(machine.age_s)]);
        let page = Page::Join(JoinRequest::Approve { ask: machine.ask, code: String::new() });
        rows.push(Row::Choice(left(&text, CHOICE), page));
        rows.extend(join_question::description(machine).flat_map(|text| inset(&text)));
    }
    rows
}

fn machines(machines: &[Machine]) -> Vec<Row> {
    if machines.is_empty() {
        return paragraph("No machine was let in yet.").collect();
    }
    let mut rows: Vec<_> = paragraph("These machines were let in. Choose one to take that back.\n").collect();
    rows.push(beside(&line(["Node", "Card", "When"])));
    rows.extend(machines.iter().map(|machine| {
        let identity = machine.identity.clone();
        let (when, request) = if machine.revoked {
            ("taken back: it is refused", JoinRequest::Forget { identity })
        } else {
            (&*machine.at, JoinRequest::Revoke { identity })
        };
        Row::Choice(left(&line([&machine.node, &machine.card, when]), CHOICE), Page::Join(request))
    }));
    rows
}

fn window(joining: &Joining) -> Vec<Row> {
    let Some(window) = joining.window else {
        let open = Page::Join(JoinRequest::Open { machines: String::new() });
        return vec![Row::Choice("Open a window: let the next machines in without a code".to_owned(), open)];
    };
    let text = format!(
        "A window is open: the next machines are let in without a code, {} of them, for {} more.",
        window.machines,
        age(window.left_s)
    );
    let close = Row::Choice("Close the window".to_owned(), Page::Join(JoinRequest::Close));
    paragraph(&text).chain([close]).collect()
}

fn key(status: &Status) -> impl Iterator<Item = Row> + use<> {
    let Status { key, oldest_key, .. } = *status;
    let under_way = if oldest_key == key { "" } else { ", and not yet all do" };
    let change = Page::Ask(Request::ChangeKey { key: key.saturating_add(1) });
    let change = Row::Choice("Change the cluster's key".to_owned(), change);
    paragraph(&format!("The members hold key {key} of the cluster{under_way}.")).chain([change])
}

fn inset(text: &str) -> impl Iterator<Item = Row> + use<> {
    let lines = wrap(text, CHOICE - INDENT, 2).into_iter();
    lines.map(|line| beside(&format!("{:INDENT$}{line}", "")))
}

fn age(seconds: u64) -> String {
    if seconds < 120 { format!("{seconds} s") } else { format!("{} min", seconds / 60) }
}

fn line([node, card, when]: [&str; 3]) -> String {
    format!("{}  {}  {when}", left(node, 14), left(card, 17))
}
