//! The only page of a locked menu: where the PIN is typed, and the cluster to be looked at.

use super::{overview, vms};
use crate::facts::Facts;
use crate::lock::Pin;
use crate::page::{Row, beside, paragraph};

/// Whether a PIN may be typed now.
pub(crate) fn is_open(facts: &Facts) -> bool {
    facts.connected && !facts.unlocks && facts.lock.is_some_and(|lock| !lock.open && lock.wait_s == 0)
}

pub(crate) fn rows(facts: &Facts, pin: &Pin) -> Vec<Row> {
    let (wrong, wait_s) = facts.lock.map_or((0, 0), |lock| (lock.wrong, lock.wait_s));
    let wrong = match wrong {
        0 => String::new(),
        1 => "1 wrong PIN; ".to_owned(),
        wrong => format!("{wrong} wrong PINs; "),
    };
    let stars = "*".repeat(pin.text().chars().count());
    let text = match wait_s {
        _ if !facts.connected => "The supervisor does not answer. It is started again by itself.".to_owned(),
        0 if facts.unlocks => "One moment.".to_owned(),
        0 if wrong.is_empty() => format!("Type the PIN and press Enter: {stars}_"),
        0 => format!("{wrong}type it again and press Enter: {stars}_"),
        wait_s => format!("{wrong}next try in {wait_s} s"),
    };
    let mut rows: Vec<Row> = paragraph(&text).collect();
    if facts.status.is_some() {
        rows.push(Row::Text(String::new()));
        rows.extend(overview::rows(facts));
        rows.push(Row::Text(String::new()));
        rows.extend(vms::rows(facts).into_iter().map(|row| match row {
            Row::Text(_) => row,
            Row::Choice(text, _) => beside(&text),
        }));
    }
    rows
}

/// The keys of it.
pub(crate) fn keys(facts: &Facts) -> &'static str {
    if is_open(facts) {
        "Enter: unlock   Esc: clear   Page Up/Down: scroll   Ctrl-L: draw again"
    } else {
        "arrows, Page Up/Down: scroll   Ctrl-L: draw again"
    }
}
