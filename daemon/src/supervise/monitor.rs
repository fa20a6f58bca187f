//! The monitor line: a serial line that says each event as it happens and the whole status to whoever sends a byte.
//!
//! One JSON object a line: `{"event": {"at_ms": 1234, "node": "node1", "text": ".."}}` and `{"status": {..}}`, cluster's
//! `Status` with one field more, `progress`, which is console's `Progress`. The line is for whoever watches a machine from
//! outside, so it must never hold the machine up: what does not fit the queue is dropped whole, and how many lines were is
//! said as soon as there is room.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use cluster::status::Status;
use console::Progress;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, speed, tcgetattr, tcsetattr};
use serde::Serialize;

use super::events::Line;

/// Bytes that may wait for the line.
const QUEUED_BYTES: usize = 512 * 1024;

/// A line of the monitor.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Said<'a> {
    Event(&'a Line),
    Status(Whole<'a>),
    /// So many lines did not fit.
    Dropped(u64),
}

/// The status, and how far moves and nodes that leave are.
#[derive(Clone, Copy, Debug, Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    status: &'a Status,
    progress: &'a Progress,
}

/// The line, for as long as it works.
#[derive(Debug)]
pub(super) struct Monitor {
    line: Option<OwnedFd>,
    queue: VecDeque<u8>,
    dropped: u64,
}

impl Monitor {
    /// No line at all.
    pub(super) fn none() -> Self {
        Self { line: None, queue: VecDeque::new(), dropped: 0 }
    }

    /// Opens the terminal at `path`: 115200 bits a second, raw.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let line = rustix::fs::open(path, flags, Mode::empty())?;
        let mut settings: Termios = tcgetattr(&line)?;
        settings.make_raw();
        settings.set_speed(speed::B115200)?;
        tcsetattr(&line, OptionalActions::Now, &settings)?;
        Ok(Self { line: Some(line), ..Self::none() })
    }

    /// What is worth waking up for.
    pub(super) fn waits(&self) -> Option<PollFd<'_>> {
        let out = if self.queue.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        self.line.as_ref().map(|line| PollFd::new(line, PollFlags::IN | out))
    }

    /// Writes what can be written; whether somebody asks for the status.
    pub(super) fn serve(&mut self) -> bool {
        self.flush();
        let mut asked = false;
        let mut buffer = [0; 256];
        while let Some(line) = &self.line {
            match rustix::io::read(line, &mut buffer) {
                Ok(0) | Err(Errno::AGAIN | Errno::INTR) => break,
                Ok(_) => asked = true,
                Err(_) => self.line = None,
            }
        }
        asked
    }

    /// Says an event.
    pub(super) fn event(&mut self, line: &Line) {
        self.say(&Said::Event(line));
    }

    /// Says the status.
    pub(super) fn status(&mut self, status: &Status, progress: &Progress) {
        self.say(&Said::Status(Whole { status, progress }));
    }

    fn say(&mut self, said: &Said<'_>) {
        if self.line.is_none() {
            return;
        }
        // Our own types, with text for keys: there is nothing in them that JSON could not say.
        let text = |said: &Said<'_>| serde_json::to_string(said).unwrap_or_default() + "\n";
        let mut lines = text(said);
        if self.dropped > 0 {
            lines.insert_str(0, &text(&Said::Dropped(self.dropped)));
        }
        if self.queue.len().saturating_add(lines.len()) <= QUEUED_BYTES {
            self.queue.extend(lines.bytes());
            self.dropped = 0;
        } else {
            self.dropped = self.dropped.saturating_add(1);
        }
        self.flush();
    }

    fn flush(&mut self) {
        while let (Some(line), false) = (&self.line, self.queue.is_empty()) {
            let (front, _) = self.queue.as_slices();
            match rustix::io::write(line, front) {
                Ok(0) | Err(Errno::AGAIN | Errno::INTR) => break,
                Ok(written) => drop(self.queue.drain(..written)),
                Err(_) => self.line = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{BufRead, BufReader, Write};

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    /// A line of which we hold the far end.
    fn line() -> (File, Monitor) {
        let far = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&far).unwrap();
        unlockpt(&far).unwrap();
        let near = ptsname(&far, Vec::new()).unwrap();
        let monitor = Monitor::open(Path::new(near.to_str().unwrap())).unwrap();
        (File::from(far), monitor)
    }

    fn event(text: &str) -> Line {
        Line { at_ms: 7, node: "node1".to_owned(), text: text.to_owned() }
    }

    #[test]
    fn it_says_events_and_answers_with_the_status() {
        let (mut far, mut monitor) = line();
        assert!(!monitor.serve());
        monitor.event(&event("up"));
        far.write_all(b"?").unwrap();
        assert!(monitor.serve());
        monitor.status(&Status::default(), &Progress::default());
        let mut lines = BufReader::new(far).lines();
        let first = lines.next().unwrap().unwrap();
        assert_eq!(first, "{\"event\":{\"at_ms\":7,\"node\":\"node1\",\"text\":\"up\"}}");
        let status = lines.next().unwrap().unwrap();
        assert!(status.starts_with("{\"status\":{\"cluster\":"), "{status}");
        assert!(status.ends_with(",\"progress\":{\"moves\":[],\"leaving\":[]}}}"), "{status}");
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let (far, mut monitor) = line();
        let long = event(&"x".repeat(2_000));
        while monitor.dropped < 3 {
            monitor.event(&long);
        }
        let mut lines = BufReader::new(far).lines();
        let mut said = String::new();
        while !said.starts_with("{\"dropped\":") {
            if monitor.queue.len() < QUEUED_BYTES / 2 {
                monitor.event(&event("room"));
            }
            monitor.flush();
            said = lines.next().unwrap().unwrap();
        }
        assert_eq!(said, "{\"dropped\":3}");
    }
}
