//! The serial lines to other nodes: the same sealed datagrams as on the networks, in frames.
//!
//! It decides what a line carries when there is more than it can: at 115,200 bits per second a heartbeat takes up to an eighth
//! of a second. A datagram waits for the line behind at most [`BACKLOG`] bytes, or is lost there, as any may be; a heartbeat
//! gets its place from what is meant for one node. What is longer than a frame may be does not go by a line at all.
//!
//! So while two nodes have nothing else they hear each other, and the agreement's short messages come through: elections,
//! the leader's heartbeats, most of the log. A long entry of the log, and a snapshot, wait for a network.
//!
//! A line that cannot be opened, or is lost, is told and opened again after a while.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cluster::config::Config;
use cluster::event::To;
use cluster::words::{Instant, LinkId, Slot};
use hw::port::tty;
use hw::serial_frame::{Reader, frame};
use rustix::event::{PollFd, PollFlags};

use crate::seal::Seal;

/// As fast as every UART is, and a cable of some metres carries.
const BITS_PER_SECOND: u32 = 115_200;
/// Bytes that may wait for a line: it takes 0.7 s for them.
const BACKLOG: usize = 8 * 1024;
/// Between two tries to open a line.
const REOPEN: Duration = Duration::from_secs(10);
/// Bytes that are taken from a line before anything else gets its turn: more than its kernel's buffer holds.
const AT_A_TIME: usize = 16 * 1024;

/// All serial lines of this node to others.
#[derive(Debug)]
pub(super) struct Lines {
    lines: Vec<Line>,
    seal: Seal,
    forged: u64,
}

/// One line.
#[derive(Debug)]
struct Line {
    link: LinkId,
    /// Who is at its other end.
    other: Slot,
    path: PathBuf,
    /// `None` while it cannot be used.
    file: Option<File>,
    /// Not to be opened before.
    reopen: Instant,
    /// What it could not be opened for, as far as that was told.
    told: Option<String>,
    reader: Reader,
    /// The frame that is being written, from the first byte that is not.
    writing: Vec<u8>,
    waiting: VecDeque<Frame>,
    /// What reading from it failed with.
    failed: Option<io::Error>,
}

/// A frame that waits.
#[derive(Debug)]
struct Frame {
    bytes: Vec<u8>,
    /// For all nodes: a heartbeat, or a form.
    to_all: bool,
}

impl Lines {
    /// All of them, closed as yet.
    pub(super) fn new(config: &Config, slot: Slot, seal: Seal) -> Self {
        let line = |line: &cluster::config::Line| {
            let (end, other) = line.at(slot)?;
            Some(Line::new(line.id, other, Path::new("/dev").join(&end.device)))
        };
        Self { lines: config.lines.iter().filter_map(line).collect(), seal, forged: 0 }
    }

    /// Other keys than before.
    pub(super) fn reseal(&mut self, seal: Seal) {
        self.seal = seal;
    }

    /// Opens what is closed and due, and writes what can be written. What comes back is for the event log.
    pub(super) fn serve(&mut self, now: Instant) -> Vec<String> {
        self.lines.iter_mut().filter_map(|line| line.serve(now)).collect()
    }

    /// What is worth waking up for.
    pub(super) fn waits(&self) -> impl Iterator<Item = PollFd<'_>> {
        let wait = |line: &Line| if line.is_idle() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        self.lines.iter().filter_map(move |line| Some(PollFd::new(line.file.as_ref()?, wait(line))))
    }

    /// Datagrams with a bad seal so far.
    pub(super) fn forged(&self) -> u64 {
        self.forged
    }

    /// Sends, on every line to whom it is meant for.
    pub(super) fn send(&mut self, to: To, plain: &[u8]) {
        for line in &mut self.lines {
            let to_all = match to {
                To::All => true,
                To::Node(slot) if slot == line.other => false,
                To::Node(_) => continue,
            };
            if let Some(bytes) = frame(&self.seal.close(plain)).filter(|_| line.file.is_some()) {
                line.send(Frame { bytes, to_all });
            }
        }
    }

    /// What has come, in plain text, and on which link.
    pub(super) fn take(&mut self) -> Vec<(LinkId, Vec<u8>)> {
        let mut taken = Vec::new();
        for line in &mut self.lines {
            for sealed in line.take() {
                match self.seal.open(&sealed) {
                    Some((_, plain)) => taken.push((line.link, plain)),
                    None => self.forged = self.forged.saturating_add(1),
                }
            }
        }
        taken
    }
}

impl Line {
    fn new(link: LinkId, other: Slot, path: PathBuf) -> Self {
        Self {
            link,
            other,
            path,
            file: None,
            reopen: Instant::ZERO,
            told: None,
            reader: Reader::new(),
            writing: Vec::new(),
            waiting: VecDeque::new(),
            failed: None,
        }
    }

    fn is_idle(&self) -> bool {
        self.writing.is_empty() && self.waiting.is_empty()
    }

    fn serve(&mut self, now: Instant) -> Option<String> {
        let open = self.file.is_some();
        if !open && now < self.reopen {
            return None;
        }
        let news = if open { None } else { self.open(now) };
        let failed = self.failed.take().map_or_else(|| self.flush(), Err);
        match failed {
            Ok(()) => news,
            Err(error) => self.lose(&error),
        }
    }

    fn open(&mut self, now: Instant) -> Option<String> {
        self.reopen = now + REOPEN;
        match tty::open(&self.path, BITS_PER_SECOND) {
            Ok(file) => {
                // What was half read or half written before belongs to the past.
                (self.file, self.reader) = (Some(file), Reader::new());
                self.writing.clear();
                self.waiting.clear();
                self.told.take().map(|_| format!("serial device {} is used again", self.path.display()))
            }
            Err(error) => {
                let trouble = error.to_string();
                (self.told.as_ref() != Some(&trouble)).then(|| self.told.insert(trouble).clone())
            }
        }
    }

    /// Nothing more of it is used until it is opened anew.
    fn lose(&mut self, error: &io::Error) -> Option<String> {
        self.file = None;
        let trouble = format!("serial device {} is lost: {error}", self.path.display());
        Some(self.told.insert(trouble).clone())
    }

    fn send(&mut self, frame: Frame) {
        let backlog =
            |line: &Self| line.writing.len() + line.waiting.iter().map(|frame| frame.bytes.len()).sum::<usize>();
        while frame.to_all && backlog(self) + frame.bytes.len() > BACKLOG {
            let Some(last) = self.waiting.iter().rposition(|waiting| !waiting.to_all) else { break };
            self.waiting.remove(last);
        }
        if backlog(self) + frame.bytes.len() <= BACKLOG {
            self.waiting.push_back(frame);
        }
        // A line that fails is found to when it is served.
        let _ = self.flush();
    }

    /// Writes as much as the line takes now.
    fn flush(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        loop {
            if self.writing.is_empty() {
                let Some(next) = self.waiting.pop_front() else { return Ok(()) };
                self.writing = next.bytes;
            }
            match file.write(&self.writing) {
                Ok(written) => drop(self.writing.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The datagrams that are whole now.
    fn take(&mut self) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::new();
        let (mut buffer, mut taken) = ([0; 1024], 0);
        while let Some(file) = self.file.as_mut().filter(|_| taken < AT_A_TIME && self.failed.is_none()) {
            match file.read(&mut buffer) {
                Ok(0) => self.failed = Some(ErrorKind::UnexpectedEof.into()),
                Ok(length) => {
                    taken += length;
                    datagrams.extend(self.reader.take(buffer.get(..length).unwrap_or_default()));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => self.failed = Some(error),
            }
        }
        datagrams
    }
}

#[cfg(test)]
mod tests;
