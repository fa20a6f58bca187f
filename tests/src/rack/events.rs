//! The rack's one event log: what every machine said on its monitor line, and what happened to the rack itself.
//!
//! Every event gets the rack's time when it arrives, so the log has one clock and one order. It is printed live, kept
//! in `target/rack/events.log`, and waited on by whoever drives the rack.

use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A node said so on its monitor line.
    Said(String),
    /// The rack, or a step of it, tells its progress.
    Note(String),
    /// An outlet was switched, and the machine behind it has lost or got its power.
    Outlet {
        /// Which, from 1.
        outlet: u8,
        /// Now on?
        on: bool,
        /// Who did it: "snmp", "console" or "hand".
        by: String,
    },
    /// The PDU was commanded to switch an outlet.
    Commanded {
        /// Which, from 1.
        outlet: u8,
        /// On, or off?
        on: bool,
        /// By whom: over SNMP, or at its console.
        by: By,
    },
    /// The PDU was asked for an outlet's state, and answered so.
    ReadBack {
        /// Which, from 1.
        outlet: u8,
        /// On, or off?
        on: bool,
        /// By whom.
        by: By,
    },
    /// A machine's QEMU was started.
    Started,
    /// A machine switched itself off; its outlet is still on.
    PoweredItselfOff,
    /// A machine reset itself and boots again.
    Reset,
    /// A machine's QEMU ended in a way that no machine does.
    Broken(String),
    /// A machine was stopped dead where it was, power on: a hang.
    Hung,
    /// A cluster cable was pulled or plugged.
    Cable {
        /// Plugged?
        joined: bool,
    },
    /// The way between two nodes on the cluster network was cut or joined, and no other.
    Way {
        /// The other node.
        other: String,
        /// Joined?
        joined: bool,
    },
    /// A guest answers over HTTP.
    Answers {
        /// The guest's own id of this boot.
        boot_id: String,
    },
    /// A guest answers again after a silence, or after a live migration.
    Blackout {
        /// Was it migrated?
        migrated: bool,
        /// How long no echo came back, at the longest.
        silent_ms: u64,
        /// Did it come back in the same boot?
        same_boot: bool,
        /// Did the probe's TCP connection live through it?
        tcp_unbroken: bool,
    },
    /// A guest's TCP connection broke.
    TcpBroke {
        /// Echoes it had carried.
        exchanges: u64,
    },
    /// A VM was seen running in two places: what must never be.
    TwoPlaces(String),
}

/// By which way somebody spoke with the PDU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    /// SNMP.
    Snmp,
    /// Its console, on the serial line.
    Console,
}

impl By {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Snmp => "snmp",
            Self::Console => "console",
        }
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Snmp => "over SNMP",
            Self::Console => "at the console",
        })
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Said(text) | Self::Note(text) => f.write_str(text),
            Self::Outlet { outlet, on, by } => {
                write!(f, "outlet {outlet} {} (by {by})", switched(*on))
            }
            Self::Commanded { outlet, on, by } => write!(f, "outlet {outlet} commanded {} {by}", switched(*on)),
            Self::ReadBack { outlet, on, by } => write!(f, "outlet {outlet} reads as {} {by}", switched(*on)),
            Self::Started => f.write_str("machine started"),
            Self::PoweredItselfOff => f.write_str("machine switched itself off"),
            Self::Reset => f.write_str("machine reset"),
            Self::Broken(why) => write!(f, "machine broke: {why}"),
            Self::Hung => f.write_str("machine hangs (stopped by the rack, power on)"),
            Self::Cable { joined } => write!(f, "cluster cable {}", if *joined { "joined" } else { "cut" }),
            Self::Way { other, joined } => {
                write!(f, "its way to {other} on the cluster network {}", if *joined { "joined" } else { "cut" })
            }
            Self::Answers { boot_id } => write!(f, "answers, boot id {boot_id}"),
            Self::Blackout { migrated, silent_ms, same_boot, tcp_unbroken } => write!(
                f,
                "{} {}.{:03} s, {}, TCP connection {}",
                if *migrated { "live migration: blackout" } else { "answers again: was silent for" },
                silent_ms / 1000,
                silent_ms % 1000,
                if *same_boot { "same boot" } else { "new boot" },
                if *tcp_unbroken { "unbroken" } else { "broken" }
            ),
            Self::TcpBroke { exchanges } => write!(f, "TCP connection broke after {exchanges} exchanges"),
            Self::TwoPlaces(text) => write!(f, "VM IN TWO PLACES: {text}"),
        }
    }
}

fn switched(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Since the rack was started.
    pub at: Duration,
    /// Whom it is about: a machine, a VM, "pdu1" or "rack".
    pub who: String,
    /// What happened.
    pub what: What,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.at.as_millis();
        write!(f, "{:>5}.{:03}  {:<8} {}", ms / 1000, ms % 1000, self.who, self.what)
    }
}

/// A place in the log, to look on from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(usize);

/// The log: append, wait, read.
#[derive(Debug)]
pub struct Log {
    begun: Instant,
    lines: Mutex<Lines>,
    grew: Condvar,
    print: bool,
}

#[derive(Debug)]
struct Lines {
    events: Vec<Event>,
    file: File,
}

impl Log {
    /// An empty log kept in `path`, and printed to standard output if `print`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(path: &Path, print: bool) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let lines = Mutex::new(Lines { events: Vec::new(), file });
        Ok(Self { begun: Instant::now(), lines, grew: Condvar::new(), print })
    }

    /// Since the rack was started.
    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Adds an event, with the present time.
    pub fn push(&self, who: impl Into<String>, what: What) {
        let mut lines = self.lines();
        let event = Event { at: self.now(), who: who.into(), what };
        // A log that cannot be written or shown is no reason to stop the rack; it is still held in memory.
        let _ = writeln!(lines.file, "{event}");
        if self.print {
            let _ = writeln!(std::io::stdout().lock(), "{event}");
        }
        lines.events.push(event);
        drop(lines);
        self.grew.notify_all();
    }

    /// Adds a note about the rack as a whole.
    pub fn note(&self, text: impl Into<String>) {
        self.push("rack", What::Note(text.into()));
    }

    /// The end of the log as it stands.
    pub fn mark(&self) -> Mark {
        Mark(self.lines().events.len())
    }

    /// The events since `mark`, and the mark after them.
    pub fn since(&self, mark: Mark) -> (Vec<Event>, Mark) {
        let lines = self.lines();
        (lines.events.iter().skip(mark.0).cloned().collect(), Mark(lines.events.len()))
    }

    /// The last `count` events.
    pub fn last(&self, count: usize) -> Vec<Event> {
        let lines = self.lines();
        lines.events.iter().skip(lines.events.len().saturating_sub(count)).cloned().collect()
    }

    /// The first event since `mark` that `is` it, waiting for it at most until `limit` has passed.
    pub fn wait(&self, mark: Mark, limit: Duration, mut is: impl FnMut(&Event) -> bool) -> Option<Event> {
        let deadline = Instant::now() + limit;
        let mut next = mark.0;
        let mut lines = self.lines();
        loop {
            if let Some(found) = lines.events.iter().skip(next).find(|e| is(e)) {
                return Some(found.clone());
            }
            next = lines.events.len();
            let left = deadline.checked_duration_since(Instant::now())?;
            lines = self.grew.wait_timeout(lines, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        // A panic of another thread while it appended leaves the log usable.
        self.lines.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
