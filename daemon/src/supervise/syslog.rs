//! The event log as it is sent away: what of it waits, and what is said when the collector does not take it.
//!
//! ```text
//!  loop --Entry--> queue, bounded --> servant: message, carrier --> collector
//!                     full: lost, counted       not taken: again, later and later
//! ```
//!
//! The loop only ever puts an entry into the queue or counts it as lost; a collector that is away holds nobody up. Every entry
//! has a number, whether it was lost or not, so that the collector too can see what it lacks. What waits dies with the supervisor: the
//! log on the node itself is the one that outlives it.

mod carrier;
mod message;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime};

use cluster::config::{Config, Syslog};
use cluster::trace::Kind;
use cluster::words::{Incarnation, Instant, Slot};

use super::clock::now;
use super::mailbox::{Post, Told};
use super::run::servant;
use carrier::Carrier;
use message::{Entry, Source, message};

/// Entries that wait: some 200 kB, and more than any incident says.
const WAITING: usize = 1024;
/// Between an attempt that failed and the next one; twice that after every further one, up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long a collector must have taken everything to count as there again.
const CALM: Duration = Duration::from_secs(60);
/// The largest number of an entry; after it comes 1 (RFC 5424, section 7.3.1).
const LAST: u32 = 2_147_483_647;

/// The loop's end.
#[derive(Debug)]
pub(super) struct Remote {
    entries: SyncSender<Entry>,
    /// The number of the last entry.
    number: u32,
    lost: Arc<AtomicU64>,
}

impl Remote {
    /// Starts the servant of the node in `slot`, if `cluster.toml` names a collector. What is to be said of it comes by `post`.
    ///
    /// # Errors
    /// There is no room for a thread, in words for the operator.
    pub(super) fn start(
        config: &Config,
        slot: Slot,
        incarnation: Incarnation,
        post: Post,
    ) -> Result<Option<Self>, String> {
        let Some(collector) = config.syslog else { return Ok(None) };
        let source = Source {
            node: config.node(slot).name.clone(),
            process: std::process::id(),
            cluster: config.name.clone(),
            incarnation: incarnation.to_string(),
        };
        let say = move |text| post.tell(Told::Said(text));
        Self::to(collector, source, say).map(Some)
    }

    fn to(collector: Syslog, source: Source, say: impl Fn(String) + Send + 'static) -> Result<Self, String> {
        let (entries, queue) = sync_channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        servant("syslog", move || serve(&queue, &counted, collector, &source, say))?;
        Ok(Self { entries, number: 0, lost })
    }

    /// Sends an entry; never waits.
    pub(super) fn send(&mut self, up: Instant, kind: Kind, text: &str) {
        self.number = if self.number >= LAST { 1 } else { self.number + 1 };
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let entry = Entry { number: self.number, at, up, kind, text: text.to_owned() };
        if self.entries.try_send(entry).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Sends one entry after another, each until it is taken.
fn serve(queue: &Receiver<Entry>, lost: &AtomicU64, collector: Syslog, source: &Source, say: impl Fn(String)) {
    let mut carrier = Carrier::new(collector);
    let mut trouble = Trouble::new(collector);
    while let Ok(entry) = queue.recv() {
        let message = message(source, &entry);
        let mut pause = PAUSE;
        while let Err(failure) = carrier.carry(&message) {
            lost.fetch_add(failure.lost, Ordering::Relaxed);
            trouble.failed(now(), &failure.reason.to_string()).into_iter().for_each(&say);
            thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        trouble.carried(now(), lost.load(Ordering::Relaxed)).into_iter().for_each(&say);
    }
}

/// When there is something to say of the collector: once when it begins to fail, and once when it has not failed, and nothing
/// was lost, for [`CALM`]. What is said is an entry as well; so there must not be more of it the more is lost.
#[derive(Debug)]
struct Trouble {
    collector: Syslog,
    /// When it failed, or an entry was lost, last; `None` once that is said to be over.
    last: Option<Instant>,
    /// How many were lost, and how many of them were said.
    lost: u64,
    said: u64,
}

impl Trouble {
    fn new(collector: Syslog) -> Self {
        Self { collector, last: None, lost: 0, said: 0 }
    }

    fn failed(&mut self, now: Instant, reason: &str) -> Option<String> {
        let first = self.last.replace(now).is_none();
        first.then(|| format!("the syslog server {} does not take the event log: {reason}", self.collector.server))
    }

    /// An entry was taken; so many were lost so far.
    fn carried(&mut self, now: Instant, lost: u64) -> Option<String> {
        if lost > self.lost {
            self.lost = lost;
            self.last = Some(now);
        }
        if now.since(self.last?) < CALM {
            return None;
        }
        self.last = None;
        let missing = self.lost - self.said;
        self.said = self.lost;
        Some(format!("the syslog server {} takes the event log again; it lacks {missing} lines", self.collector.server))
    }
}

#[cfg(test)]
mod tests;
