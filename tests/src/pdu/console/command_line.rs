//! The command lines: that of the first card behind a password with ` -c`, and that of the second card.
//!
//! Of the guides' commands those that fencing needs are here; to others the card answers that they do not exist.

use std::time::Instant;

use super::super::session::{Shown, User};
use super::super::{Command, Firmware, Pdu};
use super::{Key, Step};

const ABSENT: &str = "E100";
const INVALID: &str = "E101";
const NO_ACCESS: &str = "E104";

/// What is shown to who has just logged on.
pub(super) fn welcome(pdu: &Pdu, user: User) -> String {
    let prompt = prompt(pdu);
    if pdu.firmware() == Firmware::Aos6 {
        let header = super::header(pdu, user);
        let help = "Type ? for command listing\r\nUse tcpip command for IP address(-i), subnet(-s), and gateway(-g)";
        return format!("{header}\r\n{help}\r\n{prompt}");
    }
    format!("\r\nUnit ID: RackPDU\r\nOutlets: {}\r\n{prompt}", pdu.numbers().len())
}

/// A key was pressed; those that are not ENTER only bring the prompt again.
pub(super) fn press(pdu: &Pdu, now: Instant, user: User, key: Key) -> Step {
    let line = match key {
        Key::Line(line) => line,
        Key::Escape | Key::MainMenu | Key::EventLog => String::new(),
    };
    let mut words = line.split_ascii_whitespace();
    let Some(verb) = words.next() else { return Step::Show(prompt(pdu).into()) };
    if matches!(verb, "exit" | "logout" | "logoff" | "quit" | "bye") {
        return Step::LogOut;
    }
    let arguments = words.collect::<Vec<_>>().join(" ");
    let answer = if pdu.firmware() == Firmware::Aos6 {
        second(pdu, now, user, verb, &arguments)
    } else if pdu.faults().initializing {
        "The Switched Rack PDU is still initializing. Please try again later.\r\n".into()
    } else {
        first(pdu, now, user, &verb.to_ascii_lowercase(), &arguments).unwrap_or_else(|code| format!("{code}\r\n"))
    };
    Step::Show(format!("{answer}{}", prompt(pdu)))
}

fn prompt(pdu: &Pdu) -> &'static str {
    if pdu.firmware() == Firmware::Aos6 { "\r\napc>" } else { "\r\nAPC> " }
}

/// The first card's: what is shown, or the code of what is wrong.
fn first(pdu: &Pdu, now: Instant, user: User, verb: &str, arguments: &str) -> Result<String, &'static str> {
    let all = pdu.numbers();
    let text = match verb {
        "status" | "list" => {
            let numbers = if arguments.is_empty() { Some(all) } else { numbers(arguments, &all) };
            let shown = pdu.show(now, user.way, &numbers.ok_or(INVALID)?);
            let line = |shown: &Shown| match verb {
                "list" => format!("{:>2}: {}\r\n", shown.number, shown.name),
                _ => format!("{:>2}: {:<6}: {}\r\n", shown.number, shown.state(), shown.name),
            };
            shown.iter().map(line).collect()
        }
        "on" | "off" | "reboot" => {
            let (command, word) = match verb {
                "on" => (Command::On, "Turned On"),
                "off" => (Command::Off, "Turned Off"),
                _ => (Command::Reboot, "Rebooting"),
            };
            let numbers = numbers(arguments, &all).ok_or(INVALID)?;
            let line = |(number, accepted): &(u8, bool)| match accepted {
                true => format!("{number:>2}: {:<15}: Outlet {word}\r\n", pdu.name(*number)),
                // What a refused command brings is our choice.
                false => format!("{number:>2}: {:<15}: {NO_ACCESS}\r\n", pdu.name(*number)),
            };
            pdu.command_all(now, user.way, &numbers, command).iter().map(line).collect()
        }
        "ver" => {
            let version = super::version(pdu);
            format!("AOS {version}\r\nAPP {version}\r\n")
        }
        "whoami" => format!("{}\r\n", if user.admin { "apc" } else { "device" }),
        _ => return Err(ABSENT),
    };
    Ok(format!("OK\r\n{text}"))
}

/// The second card's: a code and its words, and then what is shown.
fn second(pdu: &Pdu, now: Instant, user: User, verb: &str, arguments: &str) -> String {
    let command = match verb.to_ascii_lowercase().as_str() {
        "olstatus" => None,
        "olon" => Some(Command::On),
        "oloff" => Some(Command::Off),
        "olreboot" => Some(Command::Reboot),
        "oldlyon" => Some(Command::DelayedOn),
        "oldlyoff" => Some(Command::DelayedOff),
        "oldlyreboot" => Some(Command::DelayedReboot),
        "olcancelcmd" => Some(Command::Cancel),
        _ => return "E101: Command Not Found\r\n".into(),
    };
    let Some(numbers) = numbers(arguments, &pdu.numbers()) else { return "E102: Parameter Error\r\n".into() };
    let Some(command) = command else {
        let shown = pdu.show(now, user.way, &numbers);
        if shown.iter().any(|shown| shown.on.is_none()) {
            return "E107: Serial communication lost\r\n".into();
        }
        let word = |shown: &Shown| if shown.on == Some(true) { "On" } else { "Off" };
        let star = |shown: &Shown| if shown.pending { "*" } else { "" };
        let line = |shown: &Shown| format!("{:>2}: {}: {}{}\r\n", shown.number, shown.name, word(shown), star(shown));
        return format!("E000: Success\r\n{}", shown.iter().map(line).collect::<String>());
    };
    let done = pdu.command_all(now, user.way, &numbers, command);
    let accepted = done.iter().all(|(_, accepted)| *accepted);
    if accepted { "E000: Success\r\n".into() } else { "E100: Command failed\r\n".into() }
}

/// The outlets that are meant by `all`, `2`, `2-4`, or `1,3`: none that there is not.
fn numbers(text: &str, all: &[u8]) -> Option<Vec<u8>> {
    if text.eq_ignore_ascii_case("all") {
        return Some(all.into());
    }
    let one = |text: &str| text.trim().parse().ok().filter(|number| all.contains(number));
    let mut found = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (one(first)?, one(last)?);
        if first > last {
            return None;
        }
        found.extend(first..=last);
    }
    Some(found)
}
