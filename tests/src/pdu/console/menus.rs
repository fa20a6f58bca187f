//! The menus of the first card, AOS 2.7 and 3.9: where somebody is, what he sees there, and where he gets.
//!
//! ```text
//!  Control Console
//!    Device Manager
//!      Outlet Management                 AOS 3 only
//!        Outlet Control/Configuration    the list; the last entry is all of them
//!          Outlet                        administrators only
//!            Control Outlet  ->  "YES"  ->  "Press <ENTER> to continue..."
//! ```
//! ESC goes one level up, Ctrl-C to the top, ENTER alone shows the same again.

use std::fmt::Write as _;
use std::time::Instant;

use super::super::session::{Shown, User};
use super::super::{Command, Firmware, Pdu};
use super::{Key, Step};

/// A list is shown in pages of so many lines.
const PAGE: usize = 22;
const PROMPT: &str = "\r\n> ";
const CONTINUE: &str = "\r\n\r        Press <ENTER> to continue...";

/// Where somebody is, and how he got there.
#[derive(Debug)]
pub(super) struct Menus {
    /// From below the top; empty at the top.
    path: Vec<Place>,
    ask: Ask,
}

/// A screen below the top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Main,
    Devices,
    Management,
    List,
    Outlet(Target),
    Control(Target),
    /// A screen on which there is nothing to do for us.
    Note(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    One(u8),
    All,
}

/// What the card waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Choice,
    /// The second page of the list.
    More,
    Confirmation(Command),
    /// That the outcome was read.
    Seen,
}

/// What an entry of a menu leads to.
#[derive(Debug, Clone, Copy)]
enum Go {
    To(Place),
    Command(Command),
    LogOut,
}

/// Who looks, and when.
#[derive(Clone, Copy)]
struct Eye<'a> {
    pdu: &'a Pdu,
    now: Instant,
    user: User,
}

impl Menus {
    /// The top, and what the card shows to who has just logged on.
    pub(super) fn new(pdu: &Pdu, now: Instant, user: User) -> (Self, String) {
        let mut menus = Self { path: vec![], ask: Ask::Choice };
        let contact = if pdu.faults().unknown.is_empty() { "Established" } else { "Lost" };
        let header = super::header(pdu, user);
        let screen = menus.draw(Eye { pdu, now, user });
        (menus, format!("{header}\r\nSwitched Rack PDU: Communication {contact}\r\n{screen}"))
    }

    /// A key was pressed.
    pub(super) fn press(&mut self, pdu: &Pdu, now: Instant, user: User, key: Key) -> Step {
        let eye = Eye { pdu, now, user };
        let ask = std::mem::replace(&mut self.ask, Ask::Choice);
        let line = match (key, ask) {
            (Key::MainMenu, _) => {
                self.path.clear();
                return Step::Show(self.draw(eye));
            }
            (Key::EventLog, _) => {
                self.path.push(Place::Note("Event Log"));
                return Step::Show(self.draw(eye));
            }
            (_, Ask::More) => {
                let rest = list(eye).split_off(PAGE).concat();
                return Step::Show(format!("\r\n{rest}{}", self.footer()));
            }
            (Key::Line(line), Ask::Confirmation(command)) if line == "YES" => {
                return Step::Show(self.issue(eye, command));
            }
            (Key::Escape, Ask::Choice) => {
                self.path.pop();
                return Step::Show(self.draw(eye));
            }
            (Key::Escape | Key::Line(_), Ask::Confirmation(_) | Ask::Seen) => return Step::Show(self.draw(eye)),
            (Key::Line(line), Ask::Choice) => line,
        };
        if line.is_empty() {
            return Step::Show(self.draw(eye));
        }
        match self.choose(eye, &line) {
            // What is no entry only brings the prompt again (our choice).
            None => Step::Show(PROMPT.into()),
            Some(Go::LogOut) => Step::LogOut,
            Some(Go::To(place)) => {
                self.path.push(place);
                Step::Show(self.draw(eye))
            }
            Some(Go::Command(command)) => {
                self.ask = Ask::Confirmation(command);
                Step::Show(self.confirmation(eye, command))
            }
        }
    }

    fn place(&self) -> Place {
        self.path.last().copied().unwrap_or(Place::Main)
    }

    fn choose(&self, eye: Eye<'_>, line: &str) -> Option<Go> {
        let number: u8 = line.trim().parse().ok()?;
        if self.place() == Place::List {
            let count = u8::try_from(eye.pdu.numbers().len()).ok()?;
            let target = match number {
                0 => return None,
                number if number <= count => Target::One(number),
                number if number == count + 1 => Target::All,
                _ => return None,
            };
            return Some(Go::To(if eye.user.admin { Place::Outlet(target) } else { Place::Control(target) }));
        }
        let entries = entries(self.place(), eye.pdu.firmware(), eye.user.admin);
        entries.get(usize::from(number).checked_sub(1)?).map(|(_, go)| *go)
    }

    /// The screen of this place, and its prompt.
    fn draw(&mut self, eye: Eye<'_>) -> String {
        let place = self.place();
        let title = title(place, eye);
        let mut text = format!("\r\n------- {title} {}\r\n", "-".repeat(70_usize.saturating_sub(title.len())));
        match place {
            Place::List => {
                let mut lines = list(eye);
                if lines.len() > PAGE + 1 {
                    lines.truncate(PAGE);
                    self.ask = Ask::More;
                }
                text += &format!("\r\n{}", lines.concat());
            }
            Place::Control(target) | Place::Outlet(target) => text += &about(eye, target),
            Place::Main | Place::Devices | Place::Management | Place::Note(_) => {}
        }
        if self.ask == Ask::More {
            return text + CONTINUE;
        }
        text += "\r\n";
        for (number, (entry, _)) in (1..).zip(entries(place, eye.pdu.firmware(), eye.user.admin)) {
            // Writing to a String cannot fail.
            let _ = write!(text, "     {number}- {entry}\r\n");
        }
        text + &self.footer()
    }

    fn footer(&self) -> String {
        let up = if self.path.is_empty() { "Main Menu" } else { "Back" };
        format!("\r\n     <ESC>- {up}, <ENTER>- Refresh, <CTRL-L>- Event Log{PROMPT}")
    }

    fn target(&self) -> Target {
        match self.place() {
            Place::Outlet(target) | Place::Control(target) => target,
            Place::Main | Place::Devices | Place::Management | Place::List | Place::Note(_) => Target::All,
        }
    }

    fn confirmation(&self, eye: Eye<'_>, command: Command) -> String {
        let (what, first) = match self.target() {
            Target::One(number) => (format!("outlet {number} named '{}'", eye.pdu.name(number)), number),
            Target::All => ("all outlets".into(), 1),
        };
        let sentence = match command {
            Command::On => format!("immediately turn on {what}."),
            Command::Off => format!("immediately shutdown {what}."),
            Command::Reboot => {
                let seconds = eye.pdu.reboot_seconds(first);
                format!("immediately shutdown {what}, delay for {seconds} seconds, and then restart.")
            }
            Command::DelayedOn => format!("turn on {what} after the configured delay."),
            Command::DelayedOff => format!("shutdown {what} after the configured delay."),
            Command::DelayedReboot => format!("shutdown and restart {what} after the configured delay."),
            Command::Cancel => format!("cancel what is pending for {what}."),
        };
        let title = word(command);
        format!(
            "\r\n        {title}\r\n\r\n        This command will {sentence}\r\n\r\n        \
             Enter 'YES' to continue or <ENTER> to cancel : "
        )
    }

    fn issue(&mut self, eye: Eye<'_>, command: Command) -> String {
        self.ask = Ask::Seen;
        let numbers = match self.target() {
            Target::One(number) => vec![number],
            Target::All => eye.pdu.numbers(),
        };
        let done = eye.pdu.command_all(eye.now, eye.user.way, &numbers, command);
        let refused = done.iter().any(|(_, accepted)| !accepted);
        // The words of a refusal are ours.
        let outcome = if refused { "Command was not issued." } else { "Command successfully issued." };
        format!("\r\n        {outcome}\r\n{CONTINUE}")
    }
}

const fn word(command: Command) -> &'static str {
    match command {
        Command::On => "Immediate On",
        Command::Off => "Immediate Off",
        Command::Reboot => "Immediate Reboot",
        Command::DelayedOn => "Delayed On",
        Command::DelayedOff => "Delayed Off",
        Command::DelayedReboot => "Delayed Reboot",
        Command::Cancel => "Cancel",
    }
}

/// The entries of a screen, from 1; those of the list are its outlets.
fn entries(place: Place, firmware: Firmware, admin: bool) -> Vec<(&'static str, Go)> {
    let note = |title: &'static str| (title, Go::To(Place::Note(title)));
    let to = |title: &'static str, place: Place| (title, Go::To(place));
    let list = to(if admin { "Outlet Control/Configuration" } else { "Outlet Control" }, Place::List);
    match place {
        Place::Main => {
            vec![to("Device Manager", Place::Devices), note("Network"), note("System"), ("Logout", Go::LogOut)]
        }
        Place::Devices if firmware == Firmware::Aos2 && admin => {
            vec![note("Phase Monitor/Configuration"), note("Outlet Restriction"), list, note("Power Supply Status")]
        }
        Place::Devices if firmware == Firmware::Aos2 => {
            vec![note("Phase Monitor"), list, note("Power Supply Status")]
        }
        Place::Devices => vec![
            note("Phase Management"),
            to("Outlet Management", Place::Management),
            note("Power Supply Status"),
            note("PDU Configuration"),
        ],
        Place::Management if admin => vec![list, note("Outlet Restriction")],
        Place::Management => vec![list],
        Place::Outlet(Target::One(number)) => {
            vec![to("Control Outlet", Place::Control(Target::One(number))), note("Configure Outlet")]
        }
        Place::Outlet(Target::All) => {
            vec![to("Control All Outlets", Place::Control(Target::All)), note("Configure All Outlets")]
        }
        Place::Control(_) => {
            use Command::{Cancel, DelayedOff, DelayedOn, DelayedReboot, Off, On, Reboot};
            let commands = [On, Off, Reboot, DelayedOn, DelayedOff, DelayedReboot, Cancel];
            commands.map(|command| (word(command), Go::Command(command))).into()
        }
        Place::List | Place::Note(_) => vec![],
    }
}

fn title(place: Place, eye: Eye<'_>) -> String {
    match place {
        Place::Main => "Control Console".into(),
        Place::Devices => "Device Manager".into(),
        Place::Management => "Outlet Management".into(),
        Place::List if eye.user.admin => "Outlet Control/Configuration".into(),
        Place::List => "Outlet Control".into(),
        Place::Outlet(Target::One(number)) => eye.pdu.name(number),
        Place::Outlet(Target::All) => "Master Control/Configuration".into(),
        Place::Control(Target::One(_)) => "Control Outlet".into(),
        Place::Control(Target::All) => "Control All Outlets".into(),
        Place::Note(title) => title.into(),
    }
}

/// The lines of the list: the outlets, and all of them together.
fn list(eye: Eye<'_>) -> Vec<String> {
    let shown = eye.pdu.show(eye.now, eye.user.way, &eye.pdu.numbers());
    let line = |shown: &Shown| format!("    {:>2}- {:<24}{}\r\n", shown.number, shown.name, shown.state());
    let master = format!("    {:>2}- Master Control/Configuration\r\n", shown.len() + 1);
    shown.iter().map(line).chain([master]).collect()
}

/// What stands above the entries of an outlet's screens.
fn about(eye: Eye<'_>, target: Target) -> String {
    let Target::One(number) = target else { return String::new() };
    let line = |shown: &Shown| {
        let (name, state) = (&shown.name, shown.state());
        format!(
            "\r\n        Name         : {name}\r\n        Outlet       : {number}\r\n        State        : {state}\r\n"
        )
    };
    eye.pdu.show(eye.now, eye.user.way, &[number]).iter().map(line).collect()
}
