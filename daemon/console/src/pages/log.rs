//! Log: the last events of this node, all of them or those with some text in them.

use cluster::words::Instant;

use crate::facts::{Facts, Line};
use crate::page::{Row, WIDTH, paragraph};
use crate::text::wrap;

/// Columns that the time takes.
const INDENT: usize = 14;

pub(crate) fn title(filter: &str) -> String {
    if filter.is_empty() { "Log".to_owned() } else { format!("Log: lines with \"{filter}\"") }
}

pub(crate) fn rows(facts: &Facts, filter: &str) -> Vec<Row> {
    if facts.log.is_empty() {
        return paragraph("Nothing has happened yet.").collect();
    }
    let filter = filter.to_ascii_lowercase();
    let wanted = |line: &&Line| format!("{} {}", line.node, line.text).to_ascii_lowercase().contains(&filter);
    let rows: Vec<_> = facts.log.iter().filter(wanted).flat_map(lines).collect();
    if rows.is_empty() { paragraph("No line has it.").collect() } else { rows }
}

/// One line of the log, as many rows as it needs.
pub(super) fn lines(line: &Line) -> impl Iterator<Item = Row> + use<> {
    let text = format!("{}  {} {}", since_boot(line.at), line.node, line.text);
    wrap(&text, WIDTH, INDENT).into_iter().map(Row::Text)
}

/// Hours, minutes, seconds and milliseconds.
pub(super) fn since_boot(at: Instant) -> String {
    let (seconds, millis) = (at.millis() / 1000, at.millis() % 1000);
    format!("{:02}:{:02}:{:02}.{millis:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
