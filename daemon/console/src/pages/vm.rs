//! One VM: how it is, what can be done with it, and what was said of it lately.

use cluster::event::Request;
use cluster::words::VmName;

use super::log;
use crate::facts::{Facts, Line};
use crate::page::{Page, Row, no_status, paragraph};
use crate::progress;

/// Lines of the log that are shown.
const LATELY: usize = 6;

pub(crate) fn rows(facts: &Facts, name: &VmName) -> Vec<Row> {
    if facts.status.is_none() {
        return no_status(facts);
    }
    let Some(vm) = facts.vm(name) else {
        return paragraph(&format!("There is no VM {name} any more: its file is gone from /shared/vms.")).collect();
    };
    let wanted = if vm.wanted { "to run" } else { "to be stopped, until it is started here" };
    let mut rows = vec![
        Row::Text(format!("Phase       {}", vm.phase)),
        Row::Text(format!("Owner       {}", vm.owner.as_deref().unwrap_or("none"))),
    ];
    if let Some(to) = progress::target(vm) {
        let from = vm.owner.as_deref().unwrap_or("nowhere");
        rows.push(Row::Text(format!("Moves       from {from} to {to}{}", progress::since(facts, vm))));
        rows.extend(progress::carried(facts, vm).map(|bar| Row::Text(format!("            {bar}"))));
    }
    rows.extend([
        Row::Text(format!("Wanted      {wanted}")),
        Row::Text(format!("Memory      {}", vm.memory)),
        Row::Text(format!("Priority    {} of 0 to 100", vm.priority)),
        Row::Text(format!("Generation  {}", vm.generation)),
        Row::Text(String::new()),
    ]);
    let choices = [
        ("Start", Page::Ask(Request::Start { vm: name.clone() })),
        ("Stop", Page::Ask(Request::Stop { vm: name.clone() })),
        ("Migrate to another node", Page::Targets(name.clone())),
        ("Console", Page::Console(name.clone())),
    ];
    rows.extend(choices.map(|(text, page)| Row::Choice(text.to_owned(), page)));
    let needle = format!("VM {name}");
    let about = |line: &&Line| names(&line.text, &needle);
    let lately: Vec<_> = facts.log.iter().rev().filter(about).take(LATELY).collect();
    if !lately.is_empty() {
        rows.push(Row::Text(String::new()));
        rows.push(Row::Text("Lately:".to_owned()));
        rows.extend(lately.into_iter().rev().flat_map(log::lines));
    }
    rows
}

/// Whether a text has that name in it, and not as the beginning of a longer one.
fn names(text: &str, needle: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    text.match_indices(needle).any(|(at, _)| text.get(at + needle.len()..).is_some_and(ends))
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn a_vm_is_not_taken_for_one_with_a_longer_name() {
        assert!(names("moves VM x1 from node1", "VM x1"));
        assert!(names("VM x10 and VM x1", "VM x1"));
        assert!(!names("moves VM x10 from node1", "VM x1"));
        assert!(!names("moves VM x1-b", "VM x1"));
    }
}
