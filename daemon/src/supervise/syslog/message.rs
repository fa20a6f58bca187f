//! A line of the event log as RFC 5424 writes it. Pure: the time stands in the entry.
//!
//! ```text
//! <27>1 2026-11-21T18:35:00.123Z node1 holdfast 312 Lost [meta ..][holdfast@32473 ..] VM x0 was lost with node2
//! ```
//!
//! The text of a line is ASCII as a rule, and stands there as it is. Where it is not it is UTF-8, and begins with the mark
//! that says so (section 6.4, MSG-UTF8).

use std::time::Duration;

use cluster::trace::Kind;
use cluster::words::Instant;

use crate::calendar;

/// Bytes of a message: what an Ethernet frame carries over UDP, with room for a tunnel's headers. Every collector should take 2048
/// (RFC 5424, section 6.1).
const BYTES: usize = 1400;
/// The facility: system daemons (RFC 5424, table 1).
const FACILITY: u8 = 3;
/// Who says it, among the programs of the node.
const PROGRAM: &str = "holdfast";
/// What is ours among the data. No number is registered for us: this one is free for examples (RFC 5612).
const OWN_DATA: &str = "holdfast@32473";
/// What says that a text is UTF-8.
const MARK: &str = "\u{feff}";
/// What stands for the end of a text that is too long.
const CUT: &str = "...";

/// Who says everything here.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// The node.
    pub(super) node: String,
    /// The supervisor's process: another one after a restart.
    pub(super) process: u32,
    /// The cluster.
    pub(super) cluster: String,
    /// The boot.
    pub(super) incarnation: String,
}

/// What is said.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Its number, from 1: what is lost leaves a gap.
    pub(super) number: u32,
    /// When, since 1970 in UTC, by the machine's own clock.
    pub(super) at: Duration,
    /// When, since the machine booted.
    pub(super) up: Instant,
    /// What kind of thing.
    pub(super) kind: Kind,
    /// In words.
    pub(super) text: String,
}

/// The message.
pub(super) fn message(source: &Source, entry: &Entry) -> Vec<u8> {
    let priority = u32::from(FACILITY) * 8 + u32::from(entry.kind.severity.number());
    let mut message = format!(
        "<{priority}>1 {}.{:03}Z {} {PROGRAM} {} {} [meta sequenceId=\"{}\" sysUpTime=\"{}\"]\
         [{OWN_DATA} cluster=\"{}\" incarnation=\"{}\"] ",
        calendar::seconds(entry.at.as_secs()),
        entry.at.subsec_millis(),
        source.node,
        source.process,
        entry.kind.name,
        entry.number,
        entry.up.millis() / 10,
        value(&source.cluster),
        value(&source.incarnation),
    );
    if !entry.text.is_ascii() {
        message.push_str(MARK);
    }
    push_text(&mut message, &entry.text);
    message.into_bytes()
}

/// The same as it stands in a stream: its length goes in front (RFC 6587, section 3.4.1).
pub(super) fn counted(message: &[u8]) -> Vec<u8> {
    [format!("{} ", message.len()).as_bytes(), message].concat()
}

/// A value among the data, without what would end it (section 6.3.3).
fn value(text: &str) -> String {
    text.chars().flat_map(|c| ['\\'].into_iter().filter(move |_| matches!(c, '"' | '\\' | ']')).chain([c])).collect()
}

/// As much of the text as there is room for; on one line, whatever is in it.
fn push_text(message: &mut String, text: &str) {
    let room = BYTES.saturating_sub(message.len());
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    if text.len() <= room {
        return message.extend(text.chars().map(plain));
    }
    let end = text.floor_char_boundary(room.saturating_sub(CUT.len()));
    message.extend(text.get(..end).unwrap_or_default().chars().map(plain));
    message.push_str(CUT);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use cluster::trace::Severity;

    use super::*;
    use crate::cases;

    /// The value of a line `WORD VALUE` of a case.
    fn word<'a>(input: &'a str, word: &str) -> &'a str {
        let line = input.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {word}"))
    }

    fn severity(name: &str) -> Severity {
        let all = [Severity::Critical, Severity::Error, Severity::Warning, Severity::Notice, Severity::Informational];
        all.into_iter().find(|severity| format!("{severity:?}") == name).unwrap()
    }

    /// Every case in `cases`. In the text `|` is a line break, and `*N` behind it repeats it N times.
    #[test]
    fn messages_are_those_of_the_cases() {
        cases::check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/supervise/syslog/cases"), |input| {
            let (name, grave) = word(input, "kind").split_once(' ').unwrap();
            let names = ["Lost", "Supervisor", "NotStarted", "Up"];
            let name = names.into_iter().find(|known| *known == name).unwrap();
            let (text, times) = word(input, "text").split_once(" *").unwrap_or((word(input, "text"), "1"));
            let source = Source {
                node: word(input, "node").to_owned(),
                process: 312,
                cluster: word(input, "cluster").to_owned(),
                incarnation: "5d01c0ffee".to_owned(),
            };
            let entry = Entry {
                number: word(input, "number").parse().unwrap(),
                at: Duration::from_millis(word(input, "at_ms").parse().unwrap()),
                up: Instant::from_millis(word(input, "up_ms").parse().unwrap()),
                kind: Kind { name, severity: severity(grave) },
                text: text.replace('|', "\n").repeat(times.parse().unwrap()),
            };
            let message = message(&source, &entry);
            assert!(message.len() <= BYTES);
            let counted = String::from_utf8(counted(&message)).unwrap();
            counted.replace(MARK, "(mark)") + "\n"
        });
    }

    #[test]
    fn a_cut_never_falls_into_a_character() {
        let source = Source { node: "n".to_owned(), process: 1, cluster: "c".to_owned(), incarnation: "i".to_owned() };
        for length in 0..12 {
            let text = "x".repeat(length) + &"\u{1f5a5}".repeat(400);
            let kind = Kind { name: "Up", severity: Severity::Notice };
            let entry = Entry { number: 1, at: Duration::ZERO, up: Instant::ZERO, kind, text };
            let message = message(&source, &entry);
            assert!((BYTES - 3..=BYTES).contains(&message.len()), "{}", message.len());
            assert!(String::from_utf8(message).unwrap().ends_with(CUT));
        }
    }
}
