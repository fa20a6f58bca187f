//! A restart of all nodes, one after another: how far it is, what it will do, and the entry that begins or stops it.

use cluster::event::Request;
use cluster::status::NodeStatus;
use cluster::words::Role;

use super::question;
use crate::facts::{Facts, is_down};
use crate::page::{Page, Row, paragraph};
use crate::progress::bar;
use crate::text::list;

/// How far the last one is; nothing, if there was none.
pub(crate) fn progress(facts: &Facts) -> Vec<Row> {
    let Some(rolling) = facts.status.as_ref().and_then(|status| status.rolling.as_ref()) else { return Vec::new() };
    let (done, aside) = (list(&rolling.done), list(&rolling.left_out));
    let whole = rolling.done.len() + rolling.todo.len() + usize::from(rolling.node.is_some());
    let [part, whole] = [rolling.done.len(), whole].map(|nodes| u64::try_from(nodes).unwrap_or(u64::MAX));
    let text = match (&rolling.stopped, &rolling.node) {
        (Some(reason), _) => format!("\nRestart of all nodes: stopped: {reason}. Restarted: {done}."),
        (None, None) if rolling.todo.is_empty() => {
            format!("\nRestart of all nodes: ended. Restarted: {done}. Left out: {aside}.")
        }
        (None, node) => format!(
            "\nRestart of all nodes:\n{} {part} of {whole}\nNow: {}. To follow: {}. Left out: {aside}.",
            bar(part, whole),
            node.as_deref().unwrap_or("waits until all is well"),
            list(&rolling.todo)
        ),
    };
    paragraph(&text).collect()
}

/// The entry by which it is begun, or stopped.
pub(crate) fn entry(facts: &Facts) -> Row {
    let request = Request::Rolling { on: !goes_on(facts) };
    Row::Choice(question::title(facts, &request), Page::Ask(request))
}

fn goes_on(facts: &Facts) -> bool {
    let rolling = facts.status.as_ref().and_then(|status| status.rolling.as_ref());
    rolling.is_some_and(|rolling| rolling.stopped.is_none() && (rolling.node.is_some() || !rolling.todo.is_empty()))
}

/// What it will do, or what becomes of it.
pub(crate) fn effect(facts: &Facts, on: bool) -> String {
    if !on {
        return "No other node is restarted. Whose turn it is stays as it is, if it has not left yet; else it boots and comes \
                back."
            .to_owned();
    }
    let takes_part =
        |node: &NodeStatus| node.role == Role::Node && !node.standby && !node.maintenance && !node.on_trial;
    let (nodes, aside): (Vec<_>, Vec<_>) = facts.nodes().map(|(_, node)| node).partition(|node| takes_part(node));
    let names = |nodes: Vec<&NodeStatus>| nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>();
    let (nodes, aside) = (names(nodes), list(&names(aside)));
    let moves = facts.vms().filter(|vm| !is_down(vm)).filter_map(|vm| {
        let owner = vm.owner.as_ref().filter(|owner| nodes.contains(owner))?;
        Some(format!("{} ({owner})", vm.name))
    });
    format!(
        "Each in turn is emptied of its VMs, leaves, boots again and comes back, and only then the next: {}. Left out: \
         {aside}.\n\nThese VMs are moved, live, and not shut down: {}.\n\nBegin when the gateway has the new image: what boots \
         from it comes back with that, what boots from a stick with what is on the stick. Whoever dies is fenced as ever. It \
         stops by itself when something goes wrong.",
        list(&nodes),
        list(&moves.collect::<Vec<_>>())
    )
}
