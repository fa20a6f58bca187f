//! The first page: the menu's entries, then this node in short, whatever is wrong, and what was asked for last.

use cluster::event::Request;

use crate::facts::{Facts, Reply, names};
use crate::page::{Page, Row, no_status, paragraph};
use crate::pages::{alarms, question};
use crate::text::list;

/// The entries, in the order of their numbers.
fn entries() -> [(&'static str, Page); 9] {
    [
        ("Status", Page::Overview),
        ("VMs", Page::Vms),
        ("Nodes", Page::Nodes),
        ("Fencing", Page::Fencing),
        ("Log", Page::Log(String::new())),
        ("Shut down this node", Page::Ask(Request::ShutDown)),
        ("Joining", Page::Joining),
        ("Storage", Page::Storage),
        ("About, support bundle", Page::About),
    ]
}

pub(crate) fn rows(facts: &Facts) -> Vec<Row> {
    let mut rows: Vec<_> = entries().into_iter().map(|(name, page)| Row::Choice(format!("{name:<30}"), page)).collect();
    rows.push(Row::Text(String::new()));
    match (&facts.status, facts.here()) {
        (Some(status), here) => {
            let members = status.nodes.iter().filter(|node| node.state == "member").count();
            let vms = here.map_or_else(Vec::new, |here| names(&facts.vms_at(here)));
            rows.extend(paragraph(&format!("{members} of {} nodes are members.", status.nodes.len())));
            rows.extend(paragraph(&format!("VMs on this node: {}.", list(&vms))));
        }
        (None, _) if facts.joins.is_some() => {}
        (None, _) if facts.problems.is_empty() => rows.extend(no_status(facts)),
        (None, _) => rows.extend(paragraph("This machine does not take part in the cluster:")),
    }
    rows.extend(facts.joins.iter().flat_map(|text| paragraph(text)));
    rows.extend(last(facts).iter().flat_map(|text| paragraph(text)));
    rows.extend(alarms::rows(facts));
    rows
}

/// What was asked for last, and what came of it.
fn last(facts: &Facts) -> Option<String> {
    let asked = facts.asked.as_ref()?;
    let came = match &asked.reply {
        Reply::Awaited => "not answered yet".to_owned(),
        Reply::Agreed => "agreed".to_owned(),
        Reply::Refused(reason) => format!("refused: {reason}"),
        Reply::Lost => "the supervisor was lost before it answered".to_owned(),
    };
    Some(format!("Asked last: {}: {came}", question::title(facts, &asked.request)))
}
