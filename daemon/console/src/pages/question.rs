//! A question: what a request will do to which VMs, whether it may be asked now, and what came of it.
//!
//! A request is asked for with `y`; that a node is off, or is to be removed, by typing its name. One at a time: the supervisor's answer does
//! not say to what. Whether a request is granted is the core's to decide, so that this page refuses nothing itself.

mod effect;

use cluster::event::Request;

use super::{leaving, node, rolling};
use crate::facts::{Asked, Facts, Reply, same};
use crate::page::{Row, no_status, paragraph};
use crate::progress::{carried, since};

/// How the question stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nobody can be asked.
    Nobody,
    /// Another request is not answered yet.
    Busy,
    /// It may be asked.
    Open,
    /// It may not: nothing waits for that node's death.
    Idle,
    /// It is asked.
    Awaited,
    /// It is agreed, or under way.
    Agreed,
}

/// Whether the operator may confirm now.
pub(crate) fn is_open(facts: &Facts, request: &Request) -> bool {
    stage(facts, request) == Stage::Open
}

fn stage(facts: &Facts, request: &Request) -> Stage {
    let alone = *request == Request::ShutDown && (!facts.problems.is_empty() || facts.joins.is_some());
    let leaves = *request == Request::ShutDown && facts.status.as_ref().is_some_and(|status| status.leaving);
    if !facts.connected || facts.status.is_none() && !alone {
        return Stage::Nobody;
    }
    match &facts.asked {
        Some(Asked { reply: Reply::Awaited, request: asked, .. }) => {
            if same(asked, request) {
                Stage::Awaited
            } else {
                Stage::Busy
            }
        }
        Some(Asked { reply: Reply::Agreed, request: asked, .. }) if same(asked, request) => Stage::Agreed,
        Some(_) | None if leaves => Stage::Agreed,
        Some(_) | None => match request {
            Request::ConfirmOff { node, .. } if facts.node(*node).is_none_or(|node| node.state != "unclean") => {
                Stage::Idle
            }
            // When it was removed there is no such node any more.
            Request::RemoveNode { node, .. } if facts.node(*node).is_none_or(|node| !node::is_gone(node)) => {
                Stage::Idle
            }
            Request::ConfirmOff { .. }
            | Request::ShutDown
            | Request::Standby { .. }
            | Request::Maintenance { .. }
            | Request::Disarm { .. }
            | Request::Start { .. }
            | Request::Stop { .. }
            | Request::Migrate { .. }
            | Request::Drill { .. }
            | Request::ChangeKey { .. }
            | Request::AddNode { .. }
            | Request::RemoveNode { .. }
            | Request::Rolling { .. } => Stage::Open,
        },
    }
}

/// The request in a few words.
pub(crate) fn title(facts: &Facts, request: &Request) -> String {
    let turn = |on: bool, to: &'static str, back: &'static str| if on { to } else { back };
    match request {
        Request::ShutDown => match &facts.status {
            Some(status) => format!("Shut down {}", status.node),
            None => "Shut down this machine".to_owned(),
        },
        Request::Standby { node, on } => {
            turn(*on, "Put NODE into standby", "Take NODE out of standby").replace("NODE", &facts.name(*node))
        }
        Request::Maintenance { node, on } => {
            turn(*on, "Put NODE into maintenance", "Take NODE out of maintenance").replace("NODE", &facts.name(*node))
        }
        Request::Disarm { node: Some(node), on } => format!("{} {}", turn(*on, "Disarm", "Arm"), facts.name(*node)),
        Request::Disarm { node: None, on } => format!("{} the cluster", turn(*on, "Disarm", "Arm")),
        Request::Start { vm } => format!("Start VM {vm}"),
        Request::Stop { vm } => format!("Stop VM {vm}"),
        Request::Migrate { vm, to } => format!("Migrate VM {vm} to {}", facts.name(*to)),
        Request::Drill { node } => format!("Test the fencing of {}", facts.name(*node)),
        Request::ChangeKey { .. } => "Change the cluster's key".to_owned(),
        Request::AddNode { .. } => "Add a node".to_owned(),
        Request::RemoveNode { node, .. } => format!("Remove {} from the cluster", facts.name(*node)),
        Request::Rolling { on } => {
            turn(*on, "Restart all nodes, one after another", "Stop the restart of all nodes").to_owned()
        }
        Request::ConfirmOff { node, .. } => format!("Confirm that {} is off", facts.name(*node)),
    }
}

pub(crate) fn rows(facts: &Facts, request: &Request) -> Vec<Row> {
    let mut rows = Vec::new();
    match stage(facts, request) {
        Stage::Nobody if facts.connected => return no_status(facts),
        Stage::Nobody => rows.extend(paragraph(
            "The supervisor does not answer, so it cannot be asked. It is started again by itself: wait a moment.",
        )),
        Stage::Busy => rows.extend(paragraph("What was asked last is not answered yet. An answer comes within 10 s.")),
        Stage::Idle => rows.extend(paragraph(&idle(facts, request))),
        Stage::Open => {
            rows.extend(note(facts, request).iter().flat_map(|note| paragraph(note)));
            rows.extend(paragraph(&effect::question(facts, request)));
        }
        // A machine that takes no part has nobody to ask, and nothing to answer.
        Stage::Awaited if facts.status.is_none() => rows.extend(paragraph("Asked. This machine powers off.")),
        Stage::Awaited => {
            rows.extend(paragraph("Asked. An answer comes within 10 s."));
            rows.extend(progress(facts, request));
        }
        Stage::Agreed => {
            let leaves = *request == Request::ShutDown && facts.status.is_some();
            rows.extend(paragraph(if leaves { "This node is leaving. Then it powers off." } else { "Agreed." }));
            rows.extend(progress(facts, request));
        }
    }
    rows
}

/// Why nothing waits for a node's death.
fn idle(facts: &Facts, request: &Request) -> String {
    let (Request::ConfirmOff { node, .. } | Request::RemoveNode { node, .. }) = request else { return String::new() };
    let Some(shown) = facts.node(*node) else { return "There is no such node any more.".to_owned() };
    if matches!(request, Request::RemoveNode { .. }) {
        return format!("{} is {}: put it in standby and shut it down first.", shown.name, shown.state);
    }
    format!(
        "{} is {}, not unclean: nothing waits for its death.\n\nA node is unclean when the cluster takes it for dead \
         and cannot prove it. Only then it is for you to say that it is off.",
        shown.name, shown.state
    )
}

/// What came of it when it was asked before.
fn note(facts: &Facts, request: &Request) -> Option<String> {
    let asked = facts.asked.as_ref().filter(|asked| same(&asked.request, request))?;
    match &asked.reply {
        Reply::Refused(reason) => Some(format!("Refused: {reason}\n")),
        Reply::Lost => Some(
            "The supervisor was lost after this was asked. If the status does not show what was wanted, ask again.\n"
                .to_owned(),
        ),
        Reply::Awaited | Reply::Agreed => None,
    }
}

/// How far it is done.
fn progress(facts: &Facts, request: &Request) -> Vec<Row> {
    let vm_is = |vm| match facts.vm(vm) {
        Some(vm) => {
            let owner = vm.owner.as_ref().map_or_else(String::new, |owner| format!(" ({owner})"));
            let bar = carried(facts, vm).map_or_else(String::new, |bar| format!("\n{bar}"));
            format!("\nVM {}: {}{}{owner}.{bar}", vm.name, vm.phase, since(facts, vm))
        }
        None => format!("\nThere is no VM {vm} any more."),
    };
    let node_is =
        |slot| facts.node(slot).map_or_else(String::new, |node| format!("\n{} is {}.", node.name, node.state));
    let text = match request {
        Request::ShutDown | Request::Standby { on: true, .. } => {
            return facts.empties(request).map_or_else(Vec::new, |slot| leaving::progress(facts, slot));
        }
        Request::Start { vm } | Request::Stop { vm } | Request::Migrate { vm, .. } => vm_is(vm),
        Request::ConfirmOff { node, .. } => node_is(*node),
        Request::Drill { node } => {
            format!("{}\n\nThe event log says whether the test has passed.", node_is(*node))
        }
        Request::Rolling { .. } => return rolling::progress(facts),
        Request::Standby { .. }
        | Request::Maintenance { .. }
        | Request::Disarm { .. }
        | Request::ChangeKey { .. }
        | Request::AddNode { .. }
        | Request::RemoveNode { .. } => return Vec::new(),
    };
    paragraph(&text).collect()
}

/// The keys of it.
pub(crate) fn keys(facts: &Facts, request: &Request) -> Option<&'static str> {
    is_open(facts, request).then_some(match request {
        Request::ConfirmOff { .. } => "Enter: it is off   Esc: no, back   Ctrl-L: draw again",
        Request::RemoveNode { .. } => "Enter: remove it   Esc: no, back   Ctrl-L: draw again",
        Request::ShutDown
        | Request::Standby { .. }
        | Request::Maintenance { .. }
        | Request::Disarm { .. }
        | Request::Start { .. }
        | Request::Stop { .. }
        | Request::Migrate { .. }
        | Request::Drill { .. }
        | Request::ChangeKey { .. }
        | Request::AddNode { .. }
        | Request::Rolling { .. } => "y: yes   n, Esc, q: no, back   Ctrl-L: draw again",
    })
}
