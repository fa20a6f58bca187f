//! Every dialogue as it goes (`dialogues/ap7921-console/*.txt`), and a console that is found in every state and disturbed in
//! every way.
//!
//! A recording is the dialogue, and what the console says to each thing that is typed:
//!
//! ```text
//! off OUTLET.. | on OUTLET.. | status    the dialogue; an outlet is NUMBER or NUMBER=NAME
//! > TEXT                                 it writes this, after the echo of what was typed ..
//! | TEXT                                 .. and this line after it
//! silent                                 nothing, not even the echo
//! command line                           the three answers of a login with `-c`
//! list STATE NAME, ..                    the command line's answer to `status`
//! second card                            the five answers of a login at the second card
//! outlets STATE NAME, ..                 its command line's answer to `olStatus all`
//! done                                   its answer to a command that it takes
//! out                                    the answer to `exit`
//! after MILLISECONDS SENTENCE            the same as the sentence, so much later
//! wind up | give up                      when this is typed, the caller's time is nearly over, or over
//! ```

use std::fmt::Write as _;

use super::super::Outlet;
use super::model::{Console, Firmware, PASSWORD, USER};
use super::*;
use crate::dialogue::Step;
use crate::recordings;
use crate::snmp::Ids;

fn credentials() -> Credentials {
    Credentials { user: USER.to_owned(), password: PASSWORD.to_owned() }
}

fn outlet(text: &str) -> Outlet {
    let (number, name) = text.split_once('=').map_or((text, None), |(number, name)| (number, Some(name.into())));
    Outlet { number: number.parse().unwrap(), name }
}

#[test]
fn every_dialogue_goes_as_written() {
    recordings::check("ap7921-console", replay);
}

fn replay(input: &str) -> String {
    let (dialogue, script) = input.split_once('\n').unwrap();
    let (word, rest) = dialogue.split_once(' ').unwrap_or((dialogue, ""));
    let outlets: Vec<Outlet> = rest.split_whitespace().map(outlet).collect();
    match word {
        "off" => go(switch(Relay::Off, &outlets, &credentials()), script, |relay| format!(" {relay}")),
        "on" => go(switch(Relay::On, &outlets, &credentials()), script, |relay| format!(" {relay}")),
        "status" => go(status(&credentials()), script, |outlets| {
            outlets.iter().map(|(seen, name)| format!("\n  {seen}, called \"{name}\"")).collect()
        }),
        _ => panic!("no such dialogue: {word}"),
    }
}

/// What the console says to one thing that is typed.
enum Answer {
    Text(u64, String),
    Silence,
    WindUp,
    GiveUp,
}

fn answers(script: &str) -> Vec<Answer> {
    let mut answers = Vec::new();
    for line in script.lines() {
        let (delay, line) = match line.strip_prefix("after ").and_then(|rest| rest.split_once(' ')) {
            Some((delay, rest)) => (delay.parse().unwrap(), rest),
            None => (0, line),
        };
        let text = |text: &str| Answer::Text(delay, text.to_owned());
        match line {
            "silent" => answers.push(Answer::Silence),
            "wind up" => answers.push(Answer::WindUp),
            "give up" => answers.push(Answer::GiveUp),
            "out" => answers.push(text("\r\nUser Name : ")),
            "command line" => answers.extend([
                text("\r\nUser Name : "),
                text("\rPassword  : "),
                text("\r\nUnit ID: pdu1\r\nOutlets: 2\r\n\r\nAPC> "),
            ]),
            "second card" => answers.extend([
                text("\r\nUser Name : "),
                text("\rPassword  : "),
                text("\r\n\rUser Name : "),
                text("\rPassword  : "),
                text(SECOND_CARD),
            ]),
            "done" => answers.push(text("E000: Success\r\n\r\napc>")),
            _ => {
                if let Some(rows) = line.strip_prefix("outlets ") {
                    let row = |(row, number): (&str, i32)| {
                        let (state, name) = row.trim().split_once(' ').unwrap();
                        format!("{number:>2}: {name}: {state}\r\n")
                    };
                    let rows: String = rows.split(',').zip(1..).map(row).collect();
                    answers.push(Answer::Text(delay, format!("E000: Success\r\n{rows}\r\napc>")));
                } else if let Some(rows) = line.strip_prefix("list ") {
                    let row = |(row, number): (&str, i32)| {
                        let (state, name) = row.trim().split_once(' ').unwrap();
                        format!(" {number}: {state:<6}: {name}\r\n")
                    };
                    let rows: String = rows.split(',').zip(1..).map(row).collect();
                    answers.push(Answer::Text(delay, format!("OK\r\n{rows}\r\nAPC> ")));
                } else if let Some(first) = line.strip_prefix('>') {
                    answers.push(text(first.trim_start()));
                } else if let (Some(more), Some(Answer::Text(_, said))) = (line.strip_prefix('|'), answers.last_mut()) {
                    *said = format!("{said}\r\n{}", more.strip_prefix(' ').unwrap_or(more));
                } else {
                    panic!("not understood: {line}");
                }
            }
        }
    }
    answers
}

/// What the second card shows to who has logged in.
const SECOND_CARD: &str = "\r\n\r\nSchneider Electric                      Network Management Card AOS      v6.9.6\r\n\
    (c) Copyright 2020 All Rights Reserved  RPDU 2g APP                      v6.9.6\r\n\
    -------------------------------------------------------------------------------\r\n\
    Name      : pdu1                                      Date : 07/07/2022\r\n\
    Contact   : Unknown                                   Time : 01:18:18\r\n\
    Location  : Unknown                                   User : Super User\r\n\
    Up Time   : 0 Days 12 Hours 17 Minutes                Stat : P+ N4+ N6+ A+\r\n\r\n\
    Type ? for command listing\r\n\
    Use tcpip command for IP address(-i), subnet(-s), and gateway(-g)\r\n\r\napc>";

/// Keys by their names.
fn said(typed: &[u8]) -> String {
    let text = String::from_utf8_lossy(typed).replace(&"\x08".repeat(40), "WIPE ");
    text.replace('\r', " ENTER").replace('\x1b', "ESC").replace("  ", " ").trim().to_owned()
}

fn go<T, D: Dialogue<Outcome = Result<T, Error>>>(mut dialogue: D, script: &str, say: impl Fn(&T) -> String) -> String {
    let (mut now_ms, mut output, mut answers) = (0, String::new(), answers(script).into_iter());
    let mut coming: Option<(u64, String)> = None;
    let mut prompt = String::new();
    let outcome = loop {
        match dialogue.poll(now_ms) {
            Step::Done(outcome) => break outcome,
            Step::Wait(until) => match coming.take_if(|(due, _)| *due <= until) {
                Some((due, text)) => {
                    now_ms = due;
                    dialogue.handle(now_ms, text.as_bytes());
                }
                None => now_ms = until,
            },
            Step::Send(typed) => {
                writeln!(output, "{now_ms:>6} ms  {}", said(&typed)).unwrap();
                let mut answer = answers.next().unwrap_or_else(|| panic!("not said what comes of it:\n{output}"));
                if matches!(answer, Answer::WindUp) {
                    writeln!(output, "{now_ms:>6} ms  (wind up)").unwrap();
                    dialogue.wind_up(now_ms);
                    answer = answers.next().unwrap();
                }
                match answer {
                    Answer::GiveUp | Answer::WindUp => break dialogue.give_up(),
                    Answer::Silence => {}
                    Answer::Text(delay, text) => {
                        let typed = String::from_utf8_lossy(&typed).replace('\r', "\r\n").replace(['\x08', '\x1b'], "");
                        let echo = if prompt.ends_with("Password  : ") { "******\r\n".to_owned() } else { typed };
                        prompt.clone_from(&text);
                        coming = Some((now_ms + delay, echo + &text));
                    }
                }
            }
        }
    };
    assert!(answers.next().is_none(), "said and never asked, after:\n{output}");
    let outcome = match outcome {
        Ok(answer) => format!("ok:{}", say(&answer)),
        Err(error) => {
            assert!(!format!("{error} {error:?}").contains(PASSWORD), "the password is in {error:?}");
            format!("failed: {error}")
        }
    };
    format!("{output}{now_ms:>6} ms  {outcome}\n")
}

/// What disturbs a dialogue.
#[derive(Debug, Clone, Copy, Default)]
struct Trouble {
    /// Of a thousand bytes, so many are lost, changed, or come with another.
    noise: usize,
    /// Of a hundred answers, so many end in the middle.
    cuts: usize,
    /// Of a hundred times that something is typed, so often the console has logged off before.
    log_offs: usize,
}

fn draw(ids: &mut Ids, below: usize) -> usize {
    usize::try_from(ids.draw()).unwrap() % below
}

fn disturb(text: &str, trouble: Trouble, ids: &mut Ids) -> Vec<u8> {
    let mut bytes = Vec::new();
    let cut = draw(ids, 100) < trouble.cuts;
    let end = if cut { draw(ids, 1 + text.len()) } else { text.len() };
    for byte in &text.as_bytes()[..end] {
        if draw(ids, 1000) < trouble.noise {
            let [noise, what, ..] = ids.draw().to_le_bytes();
            match what % 3 {
                0 => {}
                1 => bytes.push(byte ^ (1 << (noise % 8))),
                _ => bytes.extend([*byte, noise]),
            }
        } else {
            bytes.push(*byte);
        }
    }
    bytes
}

/// Lets the dialogue talk to the console, in small pieces, until it ends; for ten minutes at most.
fn talk<T, D: Dialogue<Outcome = Result<T, Error>>>(
    mut dialogue: D,
    console: &mut Console,
    trouble: Trouble,
    ids: &mut Ids,
) -> Result<T, Error> {
    let mut now_ms = 0;
    while now_ms < 600_000 {
        match dialogue.poll(now_ms) {
            Step::Done(outcome) => return outcome,
            Step::Wait(until) => {
                assert!(until > now_ms, "it waits for what is over");
                now_ms = until;
            }
            Step::Send(typed) => {
                let mut said = String::new();
                if draw(ids, 100) < trouble.log_offs {
                    said += &console.log_off();
                }
                said += &console.take(&typed);
                for piece in disturb(&said, trouble, ids).chunks(50) {
                    now_ms += 50;
                    dialogue.handle(now_ms, piece);
                    assert!(!matches!(dialogue.poll(now_ms), Step::Send(_)), "it types into an answer");
                }
            }
        }
    }
    dialogue.give_up()
}

const FIRMWARES: [Firmware; 4] = [Firmware::Two, Firmware::Three, Firmware::CommandLine, Firmware::Second];

/// A console that somebody has used and left in whatever state.
fn found(firmware: Firmware, ids: &mut Ids) -> Console {
    let mut console = Console::new(firmware, &["gateway", "node1", "node2", "node2 b"]);
    console.admin = draw(ids, 2) == 0;
    if draw(ids, 4) > 0 {
        let mode = if draw(ids, 2) == 0 { " -c" } else { "" };
        console.take(format!("{USER}\r{PASSWORD}{mode}\r").as_bytes());
    }
    let keys =
        ["1\r", "2\r", "3\r", "4\r", "\r", "\x1b", "status\r", "YES\r", "of", "on 2", "YES", "YES", "olOff", "olOn 2"];
    for _ in 0..draw(ids, 9) {
        console.take(keys[draw(ids, keys.len())].as_bytes());
    }
    console
}

#[test]
fn outlets_are_switched_whatever_state_the_console_is_found_in() {
    for seed in 0..300 {
        let ids = &mut Ids::new(seed);
        let firmware = FIRMWARES[usize::try_from(seed % 4).unwrap()];
        let mut console = found(firmware, ids);
        let before = console.clone();
        let outlets = [outlet("3=node2"), outlet("4=node2 b")];
        let off = talk(switch(Relay::Off, &outlets, &credentials()), &mut console, Trouble::default(), ids);
        assert_eq!(off, Ok(Relay::Off), "seed {seed}: {before:?}");
        assert!(console.is_logged_out(), "seed {seed}: {console:?}");
        let states: Vec<_> = console.sockets.iter().map(|socket| socket.relay).collect();
        assert_eq!(states[2..], [Relay::Off, Relay::Off], "seed {seed}");
        // What was half typed must not be done because of us.
        let others = before.sockets.iter().map(|socket| socket.relay);
        assert_eq!(states[..2], others.take(2).collect::<Vec<_>>(), "seed {seed}: {before:?}");
        let all = talk(status(&credentials()), &mut console, Trouble::default(), ids).unwrap();
        let truth = console.sockets.iter().map(|socket| (Ok(socket.relay), Ok(socket.pending), socket.name.clone()));
        let read = all.into_iter().map(|(seen, name)| (seen.state, seen.pending, name));
        assert!(read.eq(truth), "seed {seed}: {console:?}");
    }
}

#[test]
fn an_outlet_may_be_called_as_it_likes() {
    let names = ["Logout", "Device Manager", "Immediate Off", "Control Outlet", "9: OFF : x", "b: Off", "apc>"];
    for firmware in FIRMWARES {
        let mut console = Console::new(firmware, &names);
        // Found at the list.
        console.take(format!("{USER}\r{PASSWORD}\r1\r3\r2\r1\r").as_bytes());
        let ids = &mut Ids::new(1);
        for (number, name) in (1..).zip(names) {
            let outlets = [Outlet { number, name: Some(name.to_owned()) }];
            let off = talk(switch(Relay::Off, &outlets, &credentials()), &mut console, Trouble::default(), ids);
            assert_eq!(off, Ok(Relay::Off), "{name} on {firmware:?}");
            assert!(console.is_logged_out());
            let off = console.sockets.iter().filter(|socket| socket.relay == Relay::Off).count();
            assert_eq!(off, usize::from(number), "{name}");
        }
    }
}

#[test]
fn off_is_never_said_of_what_is_not_off() {
    let mut proven = 0;
    for seed in 0..600 {
        let ids = &mut Ids::new(seed);
        let mut console = found(FIRMWARES[usize::try_from(seed % 4).unwrap()], ids);
        let stuck = draw(ids, 6);
        if let Some(socket) = console.sockets.get_mut(stuck) {
            (socket.stuck, socket.pending) = (true, draw(ids, 2) == 0);
        }
        let mut dice = || [0, 1, 3, 20][draw(ids, 4)];
        let trouble = Trouble { noise: dice(), cuts: dice(), log_offs: dice() };
        let outlets = [outlet("3"), outlet("4")];
        let off = talk(switch(Relay::Off, &outlets, &credentials()), &mut console, trouble, ids);
        let is_off = console.sockets[2..].iter().all(|socket| socket.relay == Relay::Off && !socket.pending);
        match off {
            Ok(relay) => {
                assert!(relay == Relay::Off && is_off, "seed {seed}: {console:?}");
                proven += 1;
            }
            Err(error) => assert!(!format!("{error}{error:?}").contains(PASSWORD), "seed {seed}: {error:?}"),
        }
    }
    assert!(proven > 100, "only {proven} came to their end: the test shows little");
}

#[test]
fn pages_are_read_from_any_bytes() {
    let mut console = Console::new(Firmware::Three, &["gateway", "node1"]);
    let mut written = console.take(format!("{USER}\r{PASSWORD}\r1\r2\r1\r2\r1\r2\rYES\r").as_bytes()).into_bytes();
    written.extend(b"\r\x1b[2J 1: ON* : x\r\n 2: : :\r\n:::\r\n- - 3-\r\n3- OFF\r\nE000: Success\r\n 1: a:b: Off*");
    let ids = &mut Ids::new(7);
    for round in 0..4000 {
        let mut bytes = written.clone();
        let end = draw(ids, bytes.len());
        bytes.truncate(if round % 2 == 0 { end } else { bytes.len() });
        for _ in 0..draw(ids, 6) {
            let [at, with, ..] = ids.draw().to_le_bytes();
            let at = (usize::from(at) * 31) % bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = with;
            }
        }
        let page = page::Page::read(&bytes);
        let _ = (page.title(), page.choice("Logout"), page.command_line_outlets(), page.menu_outlets());
        let _ = (page.outlets_named(), page.excerpt(), page.second_card_outlets(), page.verdict());
    }
}

#[test]
fn credentials_are_never_shown() {
    assert_eq!(format!("{:?}", credentials()), "Credentials");
}
