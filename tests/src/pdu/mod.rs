//! The emulated AP7921: eight outlets (or however many are named), and an SNMP v1 agent in front of them.
//!
//! It decides what a request does to which outlet and when, and what it answers; which relay really stands how is the
//! truth of whoever owns the [`Loads`]. It shares no line with our driver: its messages are read and written by `rasn`.
//!
//! ```text
//! let pdu = Arc::new(Pdu::new(&["gateway", "node1", "node2", "node3"], Box::new(loads)));   // loads: impl Loads
//! let socket = UdpSocket::bind("10.77.0.250:161")?;
//! thread::spawn(move || pdu::serve(&socket, &pdu));          // answers until the socket fails
//! pdu.set(|faults| faults.lag = Duration::from_secs(3));     // at any time; faults.stuck.insert(2), ..
//! ```
//!
//! The communities are the card's own: `public` reads, `private` reads and writes (`Write+`), `private2` writes only
//! while nobody is logged on at the console (`Write`). The OIDs and what they say are those of PowerNet-MIB 3.6.9.

mod agent;
mod mib;
mod serve;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use serve::serve;

/// What hangs behind the outlets, numbered from 1.
pub trait Loads: Send + Sync {
    /// Does the outlet give power now?
    fn is_on(&self, outlet: u8) -> bool;
    /// The relay of the outlet moves. When this returns, [`Loads::is_on`] says so and what the outlet feeds has power, or
    /// has lost it.
    fn switch(&self, outlet: u8, on: bool);
    /// The agent was told or asked something; for a log.
    fn noted(&self, entry: &Entry) {
        let _ = entry;
    }
}

/// Somebody commanded or asked an outlet over the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Since the PDU was made.
    pub at: Duration,
    /// Who.
    pub from: SocketAddr,
    /// Which outlet, from 1.
    pub outlet: u8,
    /// What.
    pub what: What,
}

/// What somebody wanted of an outlet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A command, and it was accepted.
    Commanded(Command),
    /// A command, and it was refused.
    Refused(Command),
    /// Its state was asked; on?, as answered. `None`: unknown.
    Read(Option<bool>),
}

/// The commands for one outlet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Command {
    /// On at once.
    On,
    /// Off at once.
    Off,
    /// Off at once, and on after the reboot duration.
    Reboot,
    /// On after the outlet's delay.
    DelayedOn,
    /// Off after the outlet's delay.
    DelayedOff,
    /// As `Reboot`, after the outlet's delay.
    DelayedReboot,
    /// Forget what is pending.
    Cancel,
}

/// What is wrong with the PDU, or its network. All zero: nothing.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// From a command's acceptance to the relay's moving.
    pub lag: Duration,
    /// These relays do not move any more, whatever is commanded and accepted.
    pub stuck: BTreeSet<u8>,
    /// Commands for these outlets are refused (genErr).
    pub refuse: BTreeSet<u8>,
    /// The card has lost contact with these outlets: their state reads as 4, unknown.
    pub unknown: BTreeSet<u8>,
    /// That many requests to come are lost on their way here.
    pub lose_requests: u32,
    /// That many replies to come are lost on their way back.
    pub lose_replies: u32,
    /// The PDU answers nobody.
    pub silent: bool,
    /// Replies are that late.
    pub late: Duration,
    /// Somebody is logged on at the console, so that `Write` communities cannot write.
    pub logged_on: bool,
}

/// A relay that will move.
#[derive(Debug, Clone, Copy)]
struct Due {
    at: Instant,
    outlet: u8,
    on: bool,
    /// Does the outlet show it as pending (as it does for delayed commands)?
    pending: bool,
}

/// What one outlet is set to.
#[derive(Debug, Clone)]
struct Outlet {
    name: String,
    /// Seconds from a delayed on to its being done.
    on_delay: i32,
    /// Seconds from a delayed off to its being done.
    off_delay: i32,
    /// Seconds.
    reboot_duration: i32,
}

#[derive(Debug)]
struct State {
    outlets: Vec<Outlet>,
    due: Vec<Due>,
    faults: Faults,
}

/// The PDU. Answers what [`Pdu::handle`] is given; its relays move when [`Pdu::tick`] is called. [`serve`] does both.
pub struct Pdu {
    loads: Box<dyn Loads>,
    made: Instant,
    state: Mutex<State>,
}

impl std::fmt::Debug for Pdu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pdu").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Pdu {
    /// With one outlet for each name, from 1, and at most 24.
    #[must_use]
    pub fn new(names: &[&str], loads: Box<dyn Loads>) -> Self {
        assert!(names.len() <= 24, "no AP79xx has more than 24 outlets");
        let outlet = |name: &&str| Outlet { name: (*name).into(), on_delay: 0, off_delay: 0, reboot_duration: 5 };
        let state = State { outlets: names.iter().map(outlet).collect(), due: vec![], faults: Faults::default() };
        Self { loads, made: Instant::now(), state: Mutex::new(state) }
    }

    /// Changes what is wrong with it.
    pub fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.lock().faults);
    }

    /// What is wrong with it.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.lock().faults.clone()
    }

    /// A datagram has come: the reply, if there is one, and how late it leaves.
    #[must_use]
    pub fn handle(&self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Option<(Vec<u8>, Duration)> {
        let late = {
            let faults = &mut self.lock().faults;
            if faults.silent || take_one(&mut faults.lose_requests) {
                return None;
            }
            faults.late
        };
        let reply = agent::answer(self, now, from, datagram)?;
        (!take_one(&mut self.lock().faults.lose_replies)).then_some((reply, late))
    }

    /// Moves the relays whose time has come.
    pub fn tick(&self, now: Instant) {
        let due: Vec<Due> = {
            let mut state = self.lock();
            let stuck = state.faults.stuck.clone();
            let (due, later) = state.due.iter().copied().partition(|due| due.at <= now);
            state.due = later;
            let due: Vec<Due> = due;
            due.into_iter().filter(|due| !stuck.contains(&due.outlet)).collect()
        };
        for Due { outlet, on, .. } in due {
            if self.loads.is_on(outlet) != on {
                self.loads.switch(outlet, on);
            }
        }
    }

    /// When the next relay moves.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.lock().due.iter().map(|due| due.at).min()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts a command for an outlet that there is, if nothing is wrong with it.
    fn command(&self, now: Instant, from: SocketAddr, outlet: u8, command: Command) -> bool {
        let accepted = !self.lock().faults.refuse.contains(&outlet);
        if accepted {
            self.lock().plan(now, outlet, command);
        }
        let what = if accepted { What::Commanded(command) } else { What::Refused(command) };
        self.note(now, from, outlet, what);
        accepted
    }

    fn note(&self, now: Instant, from: SocketAddr, outlet: u8, what: What) {
        self.loads.noted(&Entry { at: now.saturating_duration_since(self.made), from, outlet, what });
    }

    /// The state of an outlet as the card sees it: on, off, or unknown.
    fn seen(&self, outlet: u8) -> Option<bool> {
        let contact = !self.lock().faults.unknown.contains(&outlet);
        contact.then(|| self.loads.is_on(outlet))
    }
}

impl State {
    /// The last command for an outlet replaces what was planned for it.
    fn plan(&mut self, now: Instant, number: u8, command: Command) {
        let Some(outlet) = usize::from(number).checked_sub(1).and_then(|index| self.outlets.get(index)) else {
            return;
        };
        let seconds = |seconds: i32| Duration::from_secs(seconds.try_into().unwrap_or(0));
        let (on, off, reboot) = (seconds(outlet.on_delay), seconds(outlet.off_delay), seconds(outlet.reboot_duration));
        let moves = match command {
            Command::On => vec![(true, Duration::ZERO, false)],
            Command::Off => vec![(false, Duration::ZERO, false)],
            Command::Reboot => vec![(false, Duration::ZERO, false), (true, reboot, true)],
            Command::DelayedOn => vec![(true, on, true)],
            Command::DelayedOff => vec![(false, off, true)],
            Command::DelayedReboot => vec![(false, off, true), (true, off + reboot, true)],
            Command::Cancel => vec![],
        };
        self.due.retain(|due| due.outlet != number);
        let lag = self.faults.lag;
        let due = |(on, after, pending)| Due { at: now + lag + after, outlet: number, on, pending };
        self.due.extend(moves.into_iter().map(due));
    }

    fn is_pending(&self, outlet: u8) -> bool {
        self.due.iter().any(|due| due.outlet == outlet && due.pending)
    }
}

/// Counts one down; was there one?
fn take_one(count: &mut u32) -> bool {
    let was = *count > 0;
    *count = count.saturating_sub(1);
    was
}
