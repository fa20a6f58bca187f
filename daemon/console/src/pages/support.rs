//! Support bundle: the sticks that are plugged in, each to be chosen, or with the reason why nothing is written to it.

use super::storage::size;
use crate::bundle::Stick;
use crate::facts::Facts;
use crate::page::{CHOICE, Page, Row, paragraph};
use crate::text::left;

pub(crate) fn rows(facts: &Facts) -> Vec<Row> {
    if !facts.connected {
        return paragraph("The supervisor does not answer. It is started again by itself.").collect();
    }
    let text = "A support bundle is one file with all that is known here to whoever is to help you: logs, how the cluster \
                stands, and what this machine is made of. It has no key, password or PIN in it.\n\nPlug a USB stick with a \
                FAT file system into this machine. What is on it stays.\n";
    let mut rows: Vec<_> = paragraph(text).collect();
    let Some(sticks) = &facts.bundling.sticks else {
        rows.extend(paragraph("The sticks are looked for."));
        return rows;
    };
    let (usable, refused): (Vec<_>, Vec<_>) = sticks.iter().partition(|stick| stick.refused.is_none());
    rows.extend(paragraph(match usable.len() {
        0 if refused.is_empty() => "No USB stick is plugged in.",
        0 => "None that is plugged in can be used:",
        1 => "This one can be used. Choose it to have the bundle written.",
        _ => "These can be used. Choose one to have the bundle written.",
    }));
    let choice = |stick: &Stick| Row::Choice(left(&describe(stick), CHOICE), Page::Bundle(stick.name.clone()));
    rows.extend(usable.into_iter().map(choice));
    let why = |stick: &Stick| {
        let reason = stick.refused.as_deref().unwrap_or_default();
        paragraph(&format!("{}: {reason}.", describe(stick)))
    };
    rows.extend(refused.into_iter().flat_map(why));
    if facts.status.is_none() {
        rows.extend(paragraph("\nCtrl-L looks again."));
    }
    rows
}

/// What an operator knows a stick by.
pub(crate) fn describe(stick: &Stick) -> String {
    let label = if stick.label.is_empty() { String::new() } else { format!(", label {}", stick.label) };
    let model = if stick.model.is_empty() { String::new() } else { format!(", {}", stick.model) };
    format!("{} ({}{label}{model})", stick.name, size(stick.mib))
}
