//! The console: bytes in, bytes out, on a serial line or through telnet.
//!
//! It decides what a log-in is worth and who is asked what; the menus and the command lines are below. It has no clock
//! and no line of its own: [`Console::receive`] is given what was typed and when, and [`Console::tick`] is called at
//! [`Console::deadline`].
//!
//! Sources: APC's user guide and command line guide of the AP79xx; what fence-agents and powerman expect. Where they
//! are silent the choice is ours and says so.

mod command_line;
mod keys;
mod menus;

use std::time::Instant;

use super::session::{Denied, User};
use super::{Firmware, Pdu, Way, take_one};
use keys::{Key, Keys};
use menus::Menus;

/// What a card says when it lets somebody go.
const BYE: &str = "\r\nConnection Closed - Bye\r\n";
const NAME: &str = "\rUser Name : ";
const PASSWORD: &str = "\rPassword  : ";

/// One line to the card, and who is at its other end.
#[derive(Debug)]
pub struct Console {
    way: Way,
    stage: Stage,
    keys: Keys,
    /// When something was last typed.
    heard: Instant,
    /// Wrong log-ins on this line.
    failures: u8,
    /// The boot of the card that it belongs to.
    boots: u64,
}

#[derive(Debug)]
enum Stage {
    Name,
    Password(String),
    Menus(User, Menus),
    CommandLine(User),
    Closed,
}

/// What comes of what was typed.
enum Step {
    Show(String),
    LogOut,
}

impl Console {
    /// Nobody is logged on yet. On telnet the card speaks first: [`Console::greeting`].
    #[must_use]
    pub fn new(pdu: &Pdu, way: Way, now: Instant) -> Self {
        Self { way, stage: Stage::Name, keys: Keys::default(), heard: now, failures: 0, boots: pdu.boots() }
    }

    /// What is sent first over telnet; on a serial line nothing is, until somebody presses ENTER.
    #[must_use]
    pub fn greeting() -> Vec<u8> {
        format!("\r\n{NAME}").into()
    }

    /// Is there nothing more to come on this line? A serial line is never closed.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self.stage, Stage::Closed)
    }

    /// Something was typed: what is shown.
    #[must_use]
    pub fn receive(&mut self, pdu: &Pdu, now: Instant, bytes: &[u8]) -> Vec<u8> {
        let mut shown = self.tick(pdu, now);
        if !pdu.hears(now) {
            return shown;
        }
        self.heard = now;
        for byte in bytes {
            let Some(key) = self.keys.take(*byte, matches!(self.stage, Stage::Password(_)), &mut shown) else {
                continue;
            };
            if take_one(&mut pdu.lock().faults.lose_requests) {
                continue;
            }
            let reply = self.press(pdu, now, key);
            if !take_one(&mut pdu.lock().faults.lose_replies) {
                shown.extend(reply.into_bytes());
            }
        }
        shown
    }

    /// Looks whether who is here may stay: he may have slept, another may have thrown him out, or the card has rebooted.
    /// On a serial line nothing is shown for that (our choice).
    #[must_use]
    pub fn tick(&mut self, pdu: &Pdu, now: Instant) -> Vec<u8> {
        let slept = self.deadline(pdu).is_some_and(|deadline| deadline <= now);
        if let (true, Some(user)) = (slept, self.user()) {
            pdu.log_out(user);
        }
        let rebooted = self.boots != pdu.boots();
        let gone = self.user().is_some_and(|user| !pdu.is_logged_on(user));
        if self.is_closed() || !(slept || rebooted || gone) {
            return vec![];
        }
        self.boots = pdu.boots();
        self.keys = Keys::default();
        self.leave();
        if slept && self.way != Way::Serial { BYE.into() } else { vec![] }
    }

    /// When whoever is here has slept for too long. On a serial line that is nobody before he has logged on.
    #[must_use]
    pub fn deadline(&self, pdu: &Pdu) -> Option<Instant> {
        let somebody = self.way != Way::Serial || self.user().is_some();
        somebody.then(|| self.heard + pdu.idle())
    }

    /// The other end has gone: on telnet, the session with it.
    pub fn hang_up(&mut self, pdu: &Pdu) {
        if let Some(user) = self.user() {
            pdu.log_out(user);
        }
        self.stage = Stage::Closed;
    }

    const fn user(&self) -> Option<User> {
        match &self.stage {
            Stage::Menus(user, _) | Stage::CommandLine(user) => Some(*user),
            Stage::Name | Stage::Password(_) | Stage::Closed => None,
        }
    }

    /// Nobody is logged on here any more.
    fn leave(&mut self) {
        self.stage = if self.way == Way::Serial { Stage::Name } else { Stage::Closed };
    }

    fn press(&mut self, pdu: &Pdu, now: Instant, key: Key) -> String {
        let step = match &mut self.stage {
            Stage::Closed => return String::new(),
            Stage::Name => return self.named(key),
            Stage::Password(name) => {
                let Key::Line(password) = key else { return String::new() };
                let name = std::mem::take(name);
                return self.log_in(pdu, now, &name, &password);
            }
            Stage::Menus(user, menus) => menus.press(pdu, now, *user, key),
            Stage::CommandLine(user) => command_line::press(pdu, now, *user, key),
        };
        match step {
            Step::Show(text) => text,
            Step::LogOut => {
                if let Some(user) = self.user() {
                    pdu.log_out(user);
                }
                self.leave();
                if self.is_closed() { BYE.into() } else { format!("{BYE}\r\n{NAME}") }
            }
        }
    }

    fn named(&mut self, key: Key) -> String {
        match key {
            Key::Line(name) if name.is_empty() => NAME.into(),
            Key::Line(name) => {
                self.stage = Stage::Password(name);
                PASSWORD.into()
            }
            Key::Escape | Key::MainMenu | Key::EventLog => String::new(),
        }
    }

    fn log_in(&mut self, pdu: &Pdu, now: Instant, name: &str, password: &str) -> String {
        self.stage = Stage::Name;
        match pdu.log_in(now, self.way, name, password) {
            Ok(user) if user.command_line || pdu.firmware() == Firmware::Aos6 => {
                self.stage = Stage::CommandLine(user);
                command_line::welcome(pdu, user)
            }
            Ok(user) => {
                let (menus, text) = Menus::new(pdu, now, user);
                self.stage = Stage::Menus(user, menus);
                text
            }
            Err(Denied::Wrong) => {
                self.failures = self.failures.saturating_add(1);
                if self.way != Way::Serial && self.failures >= 3 {
                    self.stage = Stage::Closed;
                    return BYE.into();
                }
                format!("\r\n{NAME}")
            }
            // The words are ours.
            Err(Denied::Used) if self.way == Way::Serial => format!("\r\nUser already logged in.\r\n{NAME}"),
            Err(Denied::Used) => {
                self.stage = Stage::Closed;
                String::new()
            }
        }
    }
}

/// The lines above whatever the card shows first.
fn header(pdu: &Pdu, user: User) -> String {
    let (maker, year, application) = match pdu.firmware() {
        Firmware::Aos2 => ("American Power Conversion", "2004", "Rack PDU APP"),
        Firmware::Aos3 => ("American Power Conversion", "2009", "Rack PDU APP"),
        Firmware::Aos6 => ("Schneider Electric       ", "2019", "RPDU 2g APP "),
    };
    let version = version(pdu);
    let who = if user.admin { "Administrator" } else { "Device Manager" };
    let ready = if pdu.faults().initializing { "A?" } else { "A+" };
    // The second card says it for each of the two protocols.
    let network = if pdu.firmware() == Firmware::Aos6 { "N4+ N6+" } else { "N+" };
    let rule = "-".repeat(79);
    format!(
        "\r\n\r\n{maker}               Network Management Card AOS      {version}\r\n\
         (c) Copyright {year} All Rights Reserved  {application}                     {version}\r\n{rule}\r\n\
         Name      : RackPDU                                   Date : 01/01/2000\r\n\
         Contact   : Unknown                                   Time : 00:00:00\r\n\
         Location  : Unknown                                   User : {who}\r\n\
         Up Time   : 0 Days 0 Hours 0 Minutes                  Stat : P+ {network} {ready}\r\n"
    )
}

fn version(pdu: &Pdu) -> &'static str {
    match pdu.firmware() {
        Firmware::Aos2 => "v2.7.0",
        Firmware::Aos3 => "v3.9.2",
        Firmware::Aos6 => "v6.8.2",
    }
}
