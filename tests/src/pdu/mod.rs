//! The emulated AP7921: eight outlets (or however many are named), an agent of SNMP v1 and v3 and a console in front of them.
//!
//! It decides what a request does to which outlet and when, and what it answers; which relay really stands how is the
//! truth of whoever owns the [`Loads`]. It shares no line with our drivers: its messages are read and written by `rasn`.
//!
//! ```text
//!  UDP  - serve -> agent, v3, mib --+
//!  pty  --- carry ---> Console -----+--> Pdu: the outlets, the one user, the faults --> Loads: the relays
//!  TCP  --- carry, telnet -> Console+
//!
//! let pdu = Arc::new(Pdu::new(&["gateway", "node1", "node2", "node3"], Box::new(loads)));   // loads: impl Loads
//! let socket = UdpSocket::bind("10.77.0.250:161")?;
//! thread::spawn(move || pdu::serve(&socket, &pdu));          // answers until the socket fails
//! let serial = pdu::SerialLine::open()?;                     // serial.path() is what a driver opens
//! thread::spawn(move || serial.serve(&pdu));
//! let telnet = TcpListener::bind("10.77.0.250:23")?;
//! thread::spawn(move || pdu::serve_telnet(&telnet, &pdu));
//! pdu.set(|faults| faults.lag = Duration::from_secs(3));     // at any time; faults.stuck.insert(2), ..
//! pdu.reboot(Instant::now(), Duration::from_secs(20));       // the card; the relays stand as they stood
//! ```
//!
//! The communities are the card's own: `public` reads, `private` reads and writes (`Write+`), `private2` writes only
//! while nobody is logged on at the console (`Write`). The users of version 3 are its profiles (`v3.rs`). The OIDs and what they say are those of PowerNet-MIB 3.6.9,
//! and for the second card's own branch of its version 4. The
//! users of the console are `apc` (administrator) and `device`, with the password `apc`.

mod agent;
mod bank;
mod carry;
mod console;
pub mod desk;
mod faults;
mod mib;
mod pass;
mod rpdu2;
mod serve;
mod session;
mod telnet;
mod v3;

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bank::{Due, Outlet, State};
pub use carry::{SerialLine, serve_telnet};
pub use console::Console;
pub use faults::Faults;
pub use pass::Pass;
pub use serve::serve;
pub use telnet::Telnet;

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

/// Somebody commanded or asked an outlet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Since the PDU was made.
    pub at: Duration,
    /// Who.
    pub from: Way,
    /// Which outlet, from 1.
    pub outlet: u8,
    /// What.
    pub what: What,
}

/// The way on which somebody reaches the PDU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// SNMP, and from where.
    Snmp(SocketAddr),
    /// Telnet, and from where.
    Telnet(SocketAddr),
    /// The serial line.
    Serial,
}

/// Which of the cards stands in the PDU: what its console looks like, and who it says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// AOS 2.7.0 of the first card: menus, and the `-c` command line.
    Aos2,
    /// AOS 3.9.2 of the first card: other menus, and the `-c` command line.
    Aos3,
    /// AOS 6.8.2 of the second card, as in the AP7921B: no menus, another command line.
    Aos6,
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

/// The PDU. Answers what [`Pdu::handle`] is given; its relays move when [`Pdu::tick`] is called. [`serve`] does both.
pub struct Pdu {
    loads: Box<dyn Loads>,
    made: Instant,
    firmware: Firmware,
    state: Mutex<State>,
}

impl std::fmt::Debug for Pdu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pdu").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Pdu {
    /// With one outlet for each name, from 1, and at most 24; AOS 3.9.2.
    #[must_use]
    pub fn new(names: &[&str], loads: Box<dyn Loads>) -> Self {
        assert!(names.len() <= 24, "no AP79xx has more than 24 outlets");
        let outlet = |name: &&str| Outlet { name: (*name).into(), on_delay: 0, off_delay: 0, reboot_duration: 5 };
        let made = Instant::now();
        let state = State {
            outlets: names.iter().map(outlet).collect(),
            due: vec![],
            faults: Faults::default(),
            user: None,
            failures: 0,
            locked_until: None,
            up: made,
            boots: 0,
            sessions: 0,
        };
        Self { loads, made, firmware: Firmware::Aos3, state: Mutex::new(state) }
    }

    /// The same with another card.
    #[must_use]
    pub fn with(self, firmware: Firmware) -> Self {
        Self { firmware, ..self }
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

    /// The card reboots, and is up again after a while. Until then it answers nobody; nobody is logged on any more, and
    /// what was pending is forgotten; the relays stand as they stood.
    pub fn reboot(&self, now: Instant, boot: Duration) {
        let mut state = self.lock();
        state.up = now + boot;
        state.boots += 1;
        state.due.clear();
        (state.user, state.failures, state.locked_until) = (None, 0, None);
    }

    /// A datagram has come: the reply, if there is one, and how late it leaves.
    #[must_use]
    pub fn handle(&self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Option<(Vec<u8>, Duration)> {
        let late = {
            let mut state = self.lock();
            let up = state.up <= now;
            let faults = &mut state.faults;
            if !up || faults.silent || faults.unplugged || take_one(&mut faults.lose_requests) {
                return None;
            }
            faults.late
        };
        let way = Way::Snmp(from);
        let reply = agent::answer(self, now, way, datagram).or_else(|| v3::answer(self, now, way, datagram))?;
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

    fn firmware(&self) -> Firmware {
        self.firmware
    }

    fn name(&self, outlet: u8) -> String {
        let index = usize::from(outlet).saturating_sub(1);
        self.lock().outlets.get(index).map(|outlet| outlet.name.clone()).unwrap_or_default()
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
    fn command(&self, now: Instant, from: Way, outlet: u8, command: Command) -> bool {
        let accepted = !self.lock().faults.refuse.contains(&outlet);
        let what = if accepted { What::Commanded(command) } else { What::Refused(command) };
        // Before the relay moves, so that whoever owns it knows by whom.
        self.note(now, from, outlet, what);
        if accepted {
            self.lock().plan(now, outlet, command);
        }
        accepted
    }

    fn note(&self, now: Instant, from: Way, outlet: u8, what: What) {
        self.loads.noted(&Entry { at: now.saturating_duration_since(self.made), from, outlet, what });
    }

    /// The state of an outlet as the card sees it: on, off, or unknown.
    fn seen(&self, outlet: u8) -> Option<bool> {
        let contact = !self.lock().faults.unknown.contains(&outlet);
        contact.then(|| self.loads.is_on(outlet))
    }
}

/// Counts one down; was there one?
fn take_one(count: &mut u32) -> bool {
    let was = *count > 0;
    *count = count.saturating_sub(1);
    was
}

#[cfg(test)]
mod tests;
