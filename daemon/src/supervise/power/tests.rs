//! The way to a console, over pseudo-terminals: what this module adds to the driver. The driver itself meets the emulated power
//! switch in `tests/tests/serial_console.rs`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use cluster::words::Slot;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::*;

#[test]
fn outlets_are_asked_for_by_their_switch() {
    let outlet = |pdu: &str, number| Outlet { pdu: pdu.to_owned(), number };
    let both = by_pdu(&[outlet("left", 1), outlet("right", 7), outlet("left", 2)]);
    assert_eq!(both["left"], [outlet("left", 1), outlet("left", 2)]);
    assert_eq!(both["right"], [outlet("right", 7)]);
}

/// A line with what answers at its far end: `answer` says what comes back for a line that was typed. It ends with the test's
/// process; what was typed is told.
fn line(answer: impl Fn(&str) -> String + Send + 'static) -> (SerialLine, Receiver<String>) {
    let far = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&far).unwrap();
    unlockpt(&far).unwrap();
    let path = ptsname(&far, Vec::new()).unwrap().into_string().unwrap();
    // Open, so that the far end lives when nobody else has it.
    let held = File::options().read(true).write(true).open(&path).unwrap();
    let (typed, all) = channel();
    thread::spawn(move || {
        let (mut far, _held) = (File::from(far), held);
        let mut buffer = [0; 256];
        let mut line = String::new();
        while let Ok(length) = far.read(&mut buffer) {
            for byte in &buffer[..length] {
                match byte {
                    0x08 => _ = line.pop(),
                    b'\r' => {
                        far.write_all(answer(&line).as_bytes()).unwrap();
                        // Nobody may listen any more.
                        let _ = typed.send(std::mem::take(&mut line));
                    }
                    _ => line.push(char::from(*byte)),
                }
            }
        }
    });
    let device = path.strip_prefix("/dev/").unwrap().to_owned();
    (SerialLine { holder: Slot(0), device }, all)
}

/// The command line of a first card whose second outlet is off whenever it is asked.
fn card(typed: &str) -> String {
    match typed {
        "" | "exit" => "\r\nUser Name : ",
        "apc" => "\r\nPassword  : ",
        "right -c" => "\r\nUnit ID: pdu1\r\nOutlets: 2\r\n\r\nAPC> ",
        "status" => "status\r\nOK\r\n 1: ON    : gateway\r\n 2: OFF   : node1\r\n\r\nAPC> ",
        "off 2" => "off 2\r\nOK\r\n 2: node1          : Outlet Turned Off\r\n\r\nAPC> ",
        _ => "\r\nUser Name : ",
    }
    .to_owned()
}

fn off(line: &SerialLine, password: &str, name: &str) -> Result<Relay, String> {
    let user = Credentials { user: "apc".to_owned(), password: password.to_owned() };
    let outlet = ap7921::Outlet { number: 2, name: Some(name.to_owned()) };
    let patience = Instant::now() + Duration::from_secs(20);
    at_console(line, &user, &[outlet], &Order { relay: Relay::Off, path: Path::Serial, patience })
}

#[test]
fn an_outlet_is_switched_at_the_console_and_nobody_stays_logged_in() {
    let (line, typed) = line(card);
    assert_eq!(off(&line, "right", "node1"), Ok(Relay::Off));
    let typed: Vec<String> = typed.iter().take(8).collect();
    assert_eq!(typed, ["", "apc", "right -c", "status", "off 2", "status", "status", "exit"]);
}

#[test]
fn everything_that_can_be_wrong_has_words_of_its_own() {
    let (good, _) = line(card);
    let (named, _) = line(card);
    let (noisy, _) = line(|_| "\u{7f}x~~}\r\n".to_owned());
    let (other, _) = line(|typed| match typed {
        "apc" => "\r\nPassword  : ".into(),
        "right" => "\r\napc>".into(),
        "olStatus all" => "\r\nE101: Command Not Found\r\n\r\napc>".into(),
        _ => "\r\nUser Name : ".into(),
    });
    let (busy, _) = line(card);
    let _owner = tty::open(&FilePath::new("/dev").join(&busy.device), CONSOLE_BITS_PER_SECOND).unwrap();
    let absent = SerialLine { holder: Slot(0), device: "ttyNONE".to_owned() };
    let (silent, _) = line(|_| String::new());
    let cases = [
        (&absent, "right", "node1", "serial device /dev/ttyNONE is absent"),
        (&busy, "right", "node1", "is busy: another program uses it"),
        (&noisy, "right", "node1", "garbage on the serial line"),
        (&silent, "right", "node1", "silent: nothing is connected"),
        (&good, "wrong", "node1", "wrong user name or password"),
        (&other, "right", "node1", "neither an AP7921 nor an AP7921B: it has no outlets"),
        (&named, "right", "node9", "outlet 2 is called \"node1\", not \"node9\""),
    ];
    let said: BTreeSet<String> = thread::scope(|scope| {
        let ask = |(line, password, name, words): (&SerialLine, &str, &str, &str)| {
            let said = off(line, password, name).unwrap_err();
            assert!(said.contains(words) && said.contains(&line.device), "{said}");
            said
        };
        let asked = cases.map(|case| scope.spawn(move || ask(case)));
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    assert_eq!(said.len(), cases.len());
}

#[test]
fn another_device_at_the_address_has_its_own_words() {
    let good = include_str!("../../../cluster/src/config/good.toml");
    let engine = |octet| hw::snmp::usm::EngineId::new(&[octet; 5]).unwrap();
    let error = ap7921::Error::Unwilling(Refusal::Engine { expected: engine(1), found: engine(2) });
    for (line, remedy) in [
        ("", "start this node again"),
        ("\nengine = \"0101010101\"", "write engine = \"0202020202\" for it in cluster.toml"),
    ] {
        let config = good.replacen("model = \"ap7921\"", &format!("model = \"ap7921\"\nsnmp = \"v3\"{line}"), 1);
        let config = cluster::config::Config::parse(&config).unwrap();
        assert_eq!(
            words(&config.pdus[0], &error),
            format!(
                "another device answers at 10.77.0.250: its SNMP engine is 0202020202, not 0101010101; \
                 if pdu1 was replaced, {remedy}"
            )
        );
    }
}
