//! Log: the last events of this node.

use cluster::words::Instant;

use super::WIDTH;
use crate::facts::{Facts, Line};
use crate::text::wrap;

/// Columns that the time takes.
const INDENT: usize = 14;

pub(super) fn lines(facts: &Facts) -> Vec<String> {
    if facts.log.is_empty() {
        return vec!["Nothing has happened yet.".to_owned()];
    }
    facts.log.iter().flat_map(line).collect()
}

fn line(line: &Line) -> Vec<String> {
    wrap(&format!("{}  {} {}", since_boot(line.at), line.node, line.text), WIDTH, INDENT)
}

/// Hours, minutes, seconds and milliseconds.
fn since_boot(at: Instant) -> String {
    let (seconds, millis) = (at.millis() / 1000, at.millis() % 1000);
    format!("{:02}:{:02}:{:02}.{millis:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
