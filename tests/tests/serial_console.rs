//! Our driver of the power switch's console against the emulated power switch: two readings of the same facts, by people who
//! have not seen each other's code. The power switch is met as a program: on its serial line by our driver, and at its SNMP
//! agent by net-snmp's tools, which say what the outlets really are.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test file: what is not as it should be is a failure")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use hw::ap7921::console::{self, Error};
use hw::ap7921::{Outlet, Relay};
use hw::port::tty;
use hw::{Credentials, Dialogue};

/// Where a card keeps what strangers ask of it, and its numbers for "off" and for the command "delayed on".
#[derive(Clone, Copy)]
struct Objects {
    state: &'static str,
    is_off: &'static str,
    command: &'static str,
    delayed_on: &'static str,
    pending: &'static str,
    on_delay: &'static str,
}

const FIRST_CARD: Objects = Objects {
    state: "1.3.6.1.4.1.318.1.1.12.3.5.1.1.4",
    is_off: "2",
    command: "1.3.6.1.4.1.318.1.1.12.3.3.1.1.4",
    delayed_on: "4",
    pending: "1.3.6.1.4.1.318.1.1.12.3.5.1.1.5",
    on_delay: "1.3.6.1.4.1.318.1.1.12.3.4.1.1.4",
};

const SECOND_CARD: Objects = Objects {
    state: "1.3.6.1.4.1.318.1.1.26.9.2.3.1.5",
    is_off: "1",
    command: "1.3.6.1.4.1.318.1.1.26.9.2.4.1.5",
    delayed_on: "5",
    pending: "1.3.6.1.4.1.318.1.1.26.9.2.3.1.6",
    on_delay: "1.3.6.1.4.1.318.1.1.26.9.2.1.1.5",
};

const FIRMWARES: [&str; 3] = ["aos2", "aos3", "aos6"];

/// An emulated power switch, ended with the test.
struct Desk {
    process: Child,
    snmp: String,
    line: PathBuf,
    objects: Objects,
}

impl Drop for Desk {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn desk(arguments: &[&str]) -> Desk {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pdu"));
    let mut process = command.arg("desk").args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let mut said = |name: &str| {
        let line = lines.next().unwrap().unwrap();
        let (found, rest) = line.split_once(' ').unwrap();
        assert_eq!(found, name, "{line}");
        rest.trim().split(' ').next().unwrap().to_owned()
    };
    let (snmp, _telnet, line) = (said("snmp"), said("telnet"), said("serial").into());
    // What it says of commands is read away.
    std::thread::spawn(move || lines.for_each(drop));
    let objects = if arguments.contains(&"aos6") { SECOND_CARD } else { FIRST_CARD };
    Desk { process, snmp, line, objects }
}

fn drive<D: Dialogue>(desk: &Desk, dialogue: D) -> D::Outcome {
    tty::run(dialogue, &desk.line, 9600, Instant::now() + Duration::from_secs(60), &AtomicBool::new(false)).unwrap()
}

fn credentials(password: &str) -> Credentials {
    Credentials { user: "apc".to_owned(), password: password.to_owned() }
}

fn switch(desk: &Desk, relay: Relay, outlets: &[u8]) -> Result<Relay, Error> {
    let outlets: Vec<Outlet> = outlets.iter().map(|number| Outlet { number: *number, name: None }).collect();
    drive(desk, console::switch(relay, &outlets, &credentials("apc")))
}

/// What net-snmp's tools say.
fn snmp(desk: &Desk, tool: &str, arguments: &[&str]) -> String {
    let common = ["-v1", "-c", "private", "-m", "", "-Oqv", "-t", "2", "-r", "3", &desk.snmp];
    let said = Command::new(tool).args(common).args(arguments).output().unwrap();
    assert!(said.status.success(), "{said:?}");
    String::from_utf8(said.stdout).unwrap().trim().to_owned()
}

/// The outlets that are off, of the first four.
fn off(desk: &Desk) -> Vec<u8> {
    let Objects { state, is_off, .. } = desk.objects;
    (1..=4).filter(|outlet| snmp(desk, "snmpget", &[&format!("{state}.{outlet}")]) == is_off).collect()
}

#[test]
fn outlets_are_switched_at_the_console_of_every_firmware() {
    for firmware in FIRMWARES {
        let desk = desk(&["--firmware", firmware, "--lag", "1500"]);
        let names: Vec<String> =
            drive(&desk, console::status(&credentials("apc"))).unwrap().into_iter().map(|o| o.1).collect();
        assert!(names.len() >= 4, "{firmware}: {names:?}");
        assert_eq!(switch(&desk, Relay::Off, &[2, 3]), Ok(Relay::Off), "{firmware}");
        assert_eq!(off(&desk), [2, 3], "{firmware}");
        assert_eq!(switch(&desk, Relay::On, &[3]), Ok(Relay::On), "{firmware}");
        assert_eq!(off(&desk), [2], "{firmware}");
        // Somebody else switches, and we see it.
        snmp(&desk, "snmpset", &[&format!("{}.4", desk.objects.command), "i", "2"]);
        let begin = Instant::now();
        while off(&desk) != [2, 4] {
            assert!(begin.elapsed() < Duration::from_secs(30), "outlet 4 never went off");
        }
        let seen = drive(&desk, console::status(&credentials("apc"))).unwrap();
        let seen: Vec<u8> =
            seen.iter().filter(|(seen, _)| seen.state == Ok(Relay::Off)).map(|(s, _)| s.outlet).collect();
        assert_eq!(seen, [2, 4], "{firmware}");
    }
}

#[test]
fn a_delayed_on_is_seen_and_taken_back() {
    for firmware in FIRMWARES {
        let desk = desk(&["--firmware", firmware]);
        let Objects { command, delayed_on, pending: is_pending, on_delay, .. } = desk.objects;
        snmp(&desk, "snmpset", &[&format!("{on_delay}.2"), "i", "300"]);
        snmp(&desk, "snmpset", &[&format!("{command}.2"), "i", "2"]);
        // Delayed on: the outlet is off, and will not stay so.
        snmp(&desk, "snmpset", &[&format!("{command}.2"), "i", delayed_on]);
        let seen = drive(&desk, console::status(&credentials("apc"))).unwrap();
        let pending: Vec<u8> =
            seen.iter().filter(|(seen, _)| seen.pending == Ok(true)).map(|(s, _)| s.outlet).collect();
        assert_eq!(pending, [2], "{firmware}");
        assert_eq!(switch(&desk, Relay::Off, &[2]), Ok(Relay::Off), "{firmware}");
        assert_eq!(snmp(&desk, "snmpget", &[&format!("{is_pending}.2")]), "2", "{firmware}: nothing pending");
        assert_eq!(off(&desk), [2], "{firmware}");
    }
}

#[test]
fn a_session_that_somebody_left_is_no_obstacle() {
    for (firmware, typed) in [
        ("aos3", "apc\rapc\r1\r2\r1\r2\r1\r2\rYES"),
        ("aos3", "apc\rapc -c\roff 1"),
        ("aos3", "apc\r"),
        ("aos2", "apc\rapc\r1\r3\r1\r"),
        ("aos6", "apc\rapc\rolOff 1"),
        ("aos6", "apc\rapc\rolDlyOff 4\r"),
        ("aos6", "apc\r"),
    ] {
        let desk = desk(&["--firmware", firmware]);
        let mut line = tty::open(&desk.line, 9600).unwrap();
        for key in typed.bytes() {
            line.write_all(&[key]).unwrap();
            // A line of 9600 baud is no faster.
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(line);
        assert_eq!(switch(&desk, Relay::Off, &[4]), Ok(Relay::Off), "{firmware}: {typed:?}");
        assert_eq!(off(&desk), [4], "{firmware}: {typed:?}: what was half typed was not done");
    }
}

#[test]
fn what_cannot_be_done_is_refused_in_its_own_words() {
    let desk = desk(&[]);
    let wrong = drive(&desk, console::status(&credentials("wrong")));
    assert_eq!(wrong, Err(Error::WrongPassword));
    assert!(matches!(switch(&desk, Relay::Off, &[99]), Err(Error::OutOfRange { outlet: 99, .. })));
    let named = [Outlet { number: 1, name: Some("not planned".to_owned()) }];
    let named = drive(&desk, console::switch(Relay::Off, &named, &credentials("apc")));
    assert!(matches!(named, Err(Error::Name { outlet: 1, .. })), "{named:?}");
    assert_eq!(off(&desk), [0; 0]);
}

#[test]
fn what_the_second_card_cannot_do_is_refused_in_its_own_words() {
    let desk = desk(&["--firmware", "aos6"]);
    let named = [Outlet { number: 1, name: Some("not planned".to_owned()) }];
    let named = drive(&desk, console::switch(Relay::Off, &named, &credentials("apc")));
    assert!(matches!(named, Err(Error::Name { outlet: 1, .. })), "{named:?}");
    assert!(matches!(switch(&desk, Relay::Off, &[99]), Err(Error::OutOfRange { outlet: 99, .. })));
    // The last: with the way in of the first card it is two wrong passwords, and a third would close the door.
    let wrong = drive(&desk, console::status(&credentials("wrong")));
    assert_eq!(wrong, Err(Error::WrongPassword));
    assert_eq!(off(&desk), [0; 0]);
}
