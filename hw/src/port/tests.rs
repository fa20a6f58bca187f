//! The serial line, over pairs of pseudo-terminals.

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{ControlModes, InputModes, LocalModes, OutputModes, tcgetattr};

use super::tty::{self, Trouble};
use crate::Credentials;
use crate::ap7921::console::model::{Console, Firmware, PASSWORD, USER};
use crate::ap7921::console::{self, Error};
use crate::ap7921::{Outlet, Relay};
use crate::serial_frame::{Reader, frame};
use crate::smart_ups;

const BITS_PER_SECOND: u32 = 9600;

/// The far end of a line, and the near end's path. It is open itself, so the far end lives when nobody else has it.
struct Pair {
    far: File,
    near: File,
    path: PathBuf,
}

fn pair() -> Pair {
    let far = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&far).unwrap();
    unlockpt(&far).unwrap();
    let path: PathBuf = ptsname(&far, Vec::new()).unwrap().into_string().unwrap().into();
    let near = File::options().read(true).write(true).open(&path).unwrap();
    Pair { far: far.into(), near, path }
}

/// A console at the far end, in a thread; it ends with the line. Tells the modes of the line when it first hears something.
fn serve(pair: &Pair) -> (JoinHandle<Console>, Receiver<rustix::termios::Termios>, Arc<AtomicBool>) {
    let mut far = pair.far.try_clone().unwrap();
    let (heard, hearing) = channel();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let thread = std::thread::spawn(move || {
        let mut console = Console::new(Firmware::CommandLine, &["gateway", "node2"]);
        let mut buffer = [0; 256];
        while !stopped.load(Ordering::Relaxed) {
            let Ok(length) = far.read(&mut buffer) else { break };
            heard.send(tcgetattr(&far).unwrap()).unwrap_or_default();
            let said = console.take(&buffer[..length]);
            far.write_all(said.as_bytes()).unwrap();
        }
        console
    });
    (thread, hearing, stop)
}

fn credentials() -> Credentials {
    Credentials { user: USER.to_owned(), password: PASSWORD.to_owned() }
}

fn node2() -> Vec<Outlet> {
    vec![Outlet { number: 2, name: Some("node2".to_owned()) }]
}

fn in_seconds(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

/// Ends the console's thread: with one more byte, since it reads.
fn end(mut pair: Pair, console: JoinHandle<Console>, stop: &AtomicBool) -> Console {
    stop.store(true, Ordering::Relaxed);
    pair.near.write_all(b"\r").unwrap();
    let console = console.join().unwrap();
    pair.far.flush().unwrap();
    console
}

#[test]
fn outlets_are_switched_over_a_serial_line() {
    let pair = pair();
    let (console, hearing, stop) = serve(&pair);
    let dialogue = console::switch(Relay::Off, &node2(), &credentials());
    let outcome = tty::run(dialogue, &pair.path, BITS_PER_SECOND, in_seconds(60), &AtomicBool::new(false));
    assert_eq!(outcome, Ok(Ok(Relay::Off)));
    let modes = hearing.recv().unwrap();
    assert_eq!((modes.input_speed(), modes.output_speed()), (BITS_PER_SECOND, BITS_PER_SECOND));
    assert_eq!(modes.control_modes & ControlModes::CSIZE, ControlModes::CS8);
    assert!(!modes.control_modes.intersects(ControlModes::PARENB | ControlModes::CSTOPB | ControlModes::CRTSCTS));
    assert!(!modes.input_modes.intersects(InputModes::IXON | InputModes::ICRNL | InputModes::ISTRIP));
    assert!(!modes.local_modes.intersects(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG));
    assert!(!modes.output_modes.contains(OutputModes::OPOST));
    let console = end(pair, console, &stop);
    assert!(console.is_logged_out());
    assert_eq!(console.sockets[1].relay, Relay::Off);
}

#[test]
fn a_cancelled_dialogue_logs_out() {
    let pair = pair();
    let (console, hearing, stop) = serve(&pair);
    let cancel = Arc::new(AtomicBool::new(false));
    let cancelling = {
        let cancel = cancel.clone();
        // The name, the password and the first command have been heard: it is logged in.
        std::thread::spawn(move || {
            for _ in 0..4 {
                hearing.recv().unwrap();
            }
            cancel.store(true, Ordering::Relaxed);
            hearing.iter().for_each(drop);
        })
    };
    let outlets = [Outlet { number: 1, name: None }, Outlet { number: 2, name: None }];
    let dialogue = console::switch(Relay::Off, &outlets, &credentials());
    let outcome = tty::run(dialogue, &pair.path, BITS_PER_SECOND, in_seconds(60), &cancel);
    assert!(matches!(outcome, Ok(Err(Error::GaveUp(_)))), "{outcome:?}");
    assert!(end(pair, console, &stop).is_logged_out());
    cancelling.join().unwrap();
}

#[test]
fn each_trouble_with_a_line_has_its_own_name() {
    let at = |path: &PathBuf| {
        let dialogue = console::status(&credentials());
        tty::run(dialogue, path, BITS_PER_SECOND, in_seconds(60), &AtomicBool::new(false)).unwrap_err()
    };
    let absent = at(&"/dev/holdfast-none".into());
    assert_eq!(absent.trouble, Trouble::Absent);
    assert_eq!(absent.to_string(), "serial device /dev/holdfast-none is absent");
    assert_eq!(at(&"/dev/null".into()).trouble, Trouble::NoSerialLine);
    assert_eq!(at(&"/dev".into()).trouble, Trouble::NoSerialLine);

    let pair = pair();
    let path = pair.path.clone();
    let (talking, talk) = channel();
    let mut far = pair.far.try_clone().unwrap();
    let first = std::thread::spawn(move || {
        let dialogue = console::status(&credentials());
        talking.send(tty::run(dialogue, &path, BITS_PER_SECOND, in_seconds(60), &AtomicBool::new(false))).unwrap();
    });
    // It has the line once it says something.
    far.read_exact(&mut [0]).unwrap();
    assert_eq!(at(&pair.path).trouble, Trouble::Busy);
    drop((far, pair));
    assert_eq!(talk.recv().unwrap().unwrap_err().trouble, Trouble::Lost);
    first.join().unwrap();
}

#[test]
fn a_ups_is_read_at_its_own_speed() {
    let pair = pair();
    let mut far = pair.far.try_clone().unwrap();
    let ups = std::thread::spawn(move || {
        for answer in ["SM\r\n", "087.0\r\n", "0040:\r\n", "0!8\r\n", "10\r\n"] {
            far.read_exact(&mut [0]).unwrap();
            far.write_all(answer.as_bytes()).unwrap();
        }
        tcgetattr(&far).unwrap()
    });
    let speed = smart_ups::BITS_PER_SECOND;
    let reading = tty::run(smart_ups::read(), &pair.path, speed, in_seconds(60), &AtomicBool::new(false));
    assert_eq!(reading.unwrap().unwrap().to_string(), "OB, charge 87 %, lasts 2400 s");
    assert_eq!(ups.join().unwrap().output_speed(), 2400);
}

#[test]
fn datagrams_come_through_a_serial_line_with_noise_on_it() {
    let mut pair = pair();
    let mut near = tty::open(&pair.path, 115_200).unwrap();
    assert_eq!(tty::open(&pair.path, 115_200).unwrap_err().trouble, Trouble::Busy);
    // Every byte there is: none may be lost to a terminal's habits.
    let datagrams: Vec<Vec<u8>> = (0..20).map(|first: u8| (first..=255).rev().collect()).collect();
    for datagram in &datagrams {
        pair.far.write_all(b"\xff\x03\x1a\x11\r\n").unwrap();
        pair.far.write_all(&frame(datagram).unwrap()).unwrap();
    }
    let (mut reader, mut came) = (Reader::new(), Vec::new());
    while came.len() < datagrams.len() {
        rustix::event::poll(&mut [PollFd::new(&near, PollFlags::IN)], None).unwrap();
        let mut buffer = [0; 64];
        let length = near.read(&mut buffer).unwrap();
        came.extend(reader.take(&buffer[..length]));
    }
    assert_eq!(came, datagrams);
    assert_eq!(reader.broken(), 20, "the noise");
    near.write_all(&frame(b"back").unwrap()).unwrap();
    let mut back = [0; 11];
    pair.far.read_exact(&mut back).unwrap();
    assert_eq!(Reader::new().take(&back), [b"back"]);
}

#[test]
fn a_silent_line_is_silent() {
    let pair = pair();
    let dialogue = console::status(&credentials());
    let outcome = tty::run(dialogue, &pair.path, BITS_PER_SECOND, in_seconds(60), &AtomicBool::new(false));
    assert_eq!(outcome, Ok(Err(Error::Silent)));
}
