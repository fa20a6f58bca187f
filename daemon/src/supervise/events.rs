//! The event log: the last lines in memory, the same in a bounded file that outlives the supervisor, and a collector that is
//! sent every line as it is said.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use cluster::trace::{Kind, Severity};
use cluster::words::Instant;
use serde::{Deserialize, Serialize};

use super::syslog::Remote;

/// Where the log is while the machine is up.
pub(crate) const FILE: &str = "/run/holdfast/events.log";
/// Lines that are kept.
const KEPT: usize = 500;
/// When the file has grown to this many bytes it is written anew from what is kept.
const FILE_BYTES: usize = 256 * 1024;

/// What the supervisor says for itself, about the machine as a rule: nearly always that something is wrong with it.
pub(super) const OWN: Kind = Kind { name: "Supervisor", severity: Severity::Warning };
/// What it notes: how things went that went well.
pub(super) const NOTED: Kind = Kind { name: "Noted", severity: Severity::Informational };

/// One line of the event log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// When, in milliseconds since this machine booted.
    pub(crate) at_ms: u64,
    /// Who says it.
    pub(crate) node: String,
    /// What.
    pub(crate) text: String,
}

/// What was said in this boot, the newest last.
#[derive(Debug)]
pub(crate) struct EventLog {
    node: String,
    kept: VecDeque<Line>,
    path: PathBuf,
    file: Option<File>,
    written: usize,
    remote: Option<Remote>,
}

impl EventLog {
    /// Goes on with the log that a former life left at `path`, in the name of `node`; what is new is sent to `remote`.
    pub(super) fn open(path: &Path, node: &str, remote: Option<Remote>) -> Self {
        let former = fs::read_to_string(path).unwrap_or_default();
        let lines = former.lines().filter_map(|line| serde_json::from_str(line).ok());
        let mut log = Self {
            node: node.to_owned(),
            kept: VecDeque::new(),
            path: path.to_owned(),
            file: OpenOptions::new().append(true).create(true).open(path).ok(),
            written: former.len(),
            remote,
        };
        lines.for_each(|line| log.keep(line));
        log
    }

    /// Says something.
    pub(crate) fn say(&mut self, at: Instant, kind: Kind, text: String) -> Line {
        if let Some(remote) = &mut self.remote {
            remote.send(at, kind, &text);
        }
        let line = Line { at_ms: at.millis(), node: self.node.clone(), text };
        self.keep(line.clone());
        // A log that cannot be written is no reason to stop: what is kept is still shown.
        if self.write(&line).is_err() {
            self.file = None;
        }
        line
    }

    /// All that is kept, the oldest first.
    pub(crate) fn kept(&self) -> Vec<Line> {
        self.kept.iter().cloned().collect()
    }

    fn keep(&mut self, line: Line) {
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(line);
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let text = as_text(line)?;
        if self.written.saturating_add(text.len()) <= FILE_BYTES {
            self.written = self.written.saturating_add(text.len());
            return file.write_all(text.as_bytes());
        }
        let whole: String = self.kept.iter().map(as_text).collect::<io::Result<_>>()?;
        let fresh = self.path.with_extension("new");
        fs::write(&fresh, &whole)?;
        fs::rename(&fresh, &self.path)?;
        self.written = whole.len();
        self.file = Some(OpenOptions::new().append(true).open(&self.path)?);
        Ok(())
    }
}

fn as_text(line: &Line) -> io::Result<String> {
    Ok(serde_json::to_string(line)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_life_goes_on_with_the_old_log() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.log");
        EventLog::open(&path, "node1", None).say(Instant::from_millis(5), OWN, "up".to_owned());
        fs::write(&path, fs::read_to_string(&path).unwrap() + "torn li").unwrap();
        let mut log = EventLog::open(&path, "node1", None);
        log.say(Instant::from_millis(9), OWN, "up again".to_owned());
        let texts: Vec<_> = log.kept().into_iter().map(|line| line.text).collect();
        assert_eq!(texts, ["up", "up again"]);
    }

    #[test]
    fn the_file_stays_bounded_and_keeps_the_newest() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.log");
        let mut log = EventLog::open(&path, "node1", None);
        for n in 0..3_000 {
            log.say(Instant::from_millis(n), OWN, format!("{n} {}", "x".repeat(200)));
        }
        assert_eq!(log.kept().len(), KEPT);
        assert!(fs::metadata(&path).unwrap().len() <= u64::try_from(FILE_BYTES).unwrap());
        let again = EventLog::open(&path, "node1", None);
        assert_eq!(again.kept().last(), log.kept().last());
    }
}
