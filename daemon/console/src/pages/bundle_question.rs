//! The question whether a support bundle is to be written to a stick, and what came of that. It says when the stick may be pulled out.

use super::storage::size;
use super::support::describe;
use crate::bundle::{Came, Written};
use crate::facts::Facts;
use crate::page::{Row, paragraph};

/// Whether the operator may confirm now.
pub(crate) fn is_open(facts: &Facts, stick: &str) -> bool {
    let done = matches!(facts.bundling.came(stick), Some(Came::Written(_)));
    facts.connected && !done && !facts.bundling.awaits() && facts.bundling.stick(stick).is_some()
}

pub(crate) fn rows(facts: &Facts, stick: &str) -> Vec<Row> {
    let came = facts.bundling.came(stick);
    let text = match came {
        _ if !facts.connected => {
            "The supervisor does not answer. It is started again by itself. Do not pull a stick out meanwhile."
                .to_owned()
        }
        Some(Came::Awaited) => {
            format!(
                "The bundle is collected and written. This takes two minutes at most.\n\nDo NOT pull {stick} out yet."
            )
        }
        Some(Came::Written(written)) => done(stick, written),
        _ if facts.bundling.awaits() => "Another bundle is still being written.".to_owned(),
        Some(Came::Failed(reason)) => {
            let note = format!("Not written: {reason}.\n\n");
            note + &question(facts, stick)
        }
        Some(Came::Lost) => {
            let note = "The supervisor was lost after this was asked. Wait two minutes before you pull the stick out.";
            format!("{note}\n\n{}", question(facts, stick))
        }
        None => question(facts, stick),
    };
    paragraph(&text).collect()
}

fn question(facts: &Facts, stick: &str) -> String {
    facts.bundling.stick(stick).map_or_else(
        || format!("{stick} is not plugged in any more, or cannot be used any more."),
        |found| {
            format!(
                "Write the support bundle to {stick}? (y/n)\n\n{}. One file of 16 MiB at most is added; what is on it \
                 stays as it is.\n\nIt has names and addresses of machines and VMs in it: give it to those only whom you \
                 trust with these. cluster.toml is in it without its comments.",
                describe(found)
            )
        },
    )
}

fn done(stick: &str, Written { file, kib, missing }: &Written) -> String {
    let length = if *kib < 1024 { format!("{kib} KiB") } else { size(*kib / 1024) };
    let rest = if missing.is_empty() {
        String::new()
    } else {
        format!("\n\nNot in it, or not whole (index.txt says so too):\n{}", missing.join("\n"))
    };
    format!("Done. {stick} may be pulled out.\n\n{file}, {length}{rest}")
}

/// The keys of it.
pub(crate) fn keys(facts: &Facts, stick: &str) -> Option<&'static str> {
    is_open(facts, stick).then_some("y: yes   n, Esc, q: no, back   Ctrl-L: draw again")
}
