//! Every dialogue as it goes (`dialogues/nut/*.txt`); and the reader of replies, given anything.
//!
//! A recording is the dialogue, and what upsd says to each request:
//!
//! ```text
//! list | read UPS | attend UPS | shutdown UPS   the dialogue
//! > TEXT                                        it says this ..
//! | TEXT                                        .. and this line after it
//! + TEXT                                        .. and this, without an end of line
//! silent                                        nothing
//! wind up                                       instead of this request, the caller's time is nearly over
//! ```

use std::fmt::Write as _;

use super::reply::{Garbage, Reply, quoted, take, words};
use super::*;
use crate::dialogue::Step;
use crate::recordings;
use crate::snmp::Ids;

#[test]
fn every_dialogue_goes_as_written() {
    recordings::check("nut", replay);
}

fn replay(input: &str) -> String {
    let (dialogue, script) = input.split_once('\n').unwrap();
    let (word, ups) = dialogue.split_once(' ').unwrap_or((dialogue, ""));
    let credentials = Credentials { user: "mon \"1\"".to_owned(), password: "se\\cret".to_owned() };
    let mut told = Vec::new();
    let output = match word {
        "list" => go(list(), script, |directory| {
            let upses = directory.upses.iter().map(|(name, text)| format!("\n  {name}: {text}"));
            format!(" {}{}", directory.version, upses.collect::<String>())
        }),
        "read" => go(read(ups), script, |reading| format!(" {reading}{}", critical(reading))),
        "attend" => {
            let tell = |reading: &UpsReading| told.push(format!("told: {reading}{}\n", critical(reading)));
            go(attend(ups, &credentials, 2000, tell), script, |reading| format!(" {reading}"))
        }
        "shutdown" => go(force_shutdown(ups, &credentials), script, |()| " ordered".to_owned()),
        _ => panic!("no such dialogue: {word}"),
    };
    assert!(!output.contains("failed") || !output.split("failed").any(|text| text.contains("secret")));
    output + &told.concat()
}

fn critical(reading: &UpsReading) -> &str {
    if reading.is_critical() { ": critical" } else { "" }
}

fn go<T, D: Dialogue<Outcome = Result<T, Error>>>(mut dialogue: D, script: &str, say: impl Fn(&T) -> String) -> String {
    let mut answers: Vec<Option<String>> = Vec::new();
    for line in script.lines() {
        match (line.split_at_checked(2).unwrap_or((line, "")), answers.last_mut()) {
            (("> ", text), _) => answers.push(Some(format!("{text}\n"))),
            (("| ", text), Some(Some(said))) => *said += &format!("{text}\n"),
            (("+ ", text), Some(Some(said))) => *said += text,
            _ if line == "silent" => answers.push(Some(String::new())),
            _ if line == "wind up" => answers.push(None),
            _ => panic!("not understood: {line}"),
        }
    }
    let (mut now_ms, mut output, mut answers) = (0, String::new(), answers.into_iter());
    let outcome = loop {
        match dialogue.poll(now_ms) {
            Step::Done(outcome) => break outcome,
            Step::Wait(until) => now_ms = until,
            Step::Send(request) => {
                let request = String::from_utf8(request).unwrap();
                write!(output, "{now_ms:>6} ms  {request}").unwrap();
                if request == "LOGOUT\n" {
                    continue;
                }
                match answers.next().unwrap_or_else(|| panic!("not said what comes of it:\n{output}")) {
                    // In pieces that end anywhere.
                    Some(said) => said.as_bytes().chunks(5).for_each(|piece| dialogue.handle(now_ms, piece)),
                    None => dialogue.wind_up(now_ms),
                }
            }
        }
    };
    assert!(answers.next().is_none(), "said and never asked, after:\n{output}");
    let outcome = match outcome {
        Ok(answer) => format!("ok:{}", say(&answer)),
        Err(error) => format!("failed: {error}"),
    };
    format!("{output}{now_ms:>6} ms  {outcome}\n")
}

#[test]
fn words_are_split_and_quotes_undone() {
    assert_eq!(words(r#"VAR ups1 ups.status "OL  CHRG""#), ["VAR", "ups1", "ups.status", "OL  CHRG"]);
    assert_eq!(words(r#"UPS a "say \"hi\" \\ x""#), ["UPS", "a", r#"say "hi" \ x"#]);
    assert_eq!(words(r#"UPS a """#), ["UPS", "a", ""]);
    assert_eq!(words("  "), [""; 0]);
    for text in ["", "plain", "a b", r#"quo"te"#, r"back\slash", r#"\""#, "é"] {
        assert_eq!(words(&quoted(text).unwrap()), [text], "{text:?}");
    }
    assert_eq!(quoted("two\nlines"), None);
}

#[test]
fn replies_are_taken_whole_or_not_at_all() {
    let text = b"BEGIN LIST VAR u\r\nVAR u ups.status \"OL\"\r\nEND LIST VAR u\r\nOK\n";
    for length in 0..text.len() {
        let mut inbox = text[..length].to_vec();
        let list = text.len() - b"OK\n".len();
        assert_eq!(take(&mut inbox).unwrap().is_some(), length >= list, "cut to {length}");
    }
    let mut inbox = text.to_vec();
    assert!(matches!(take(&mut inbox), Ok(Some(Reply::List(lines))) if lines.len() == 1));
    assert_eq!(take(&mut inbox), Ok(Some(Reply::Line(vec!["OK".to_owned()]))));
    assert_eq!((take(&mut inbox), inbox.len()), (Ok(None), 0));
    assert_eq!(
        take(&mut b"ERR NEW-CODE more\n".to_vec()),
        Ok(Some(Reply::Refused(ErrorCode::Other("NEW-CODE".into()))))
    );
    assert!(matches!(take(&mut vec![b'x'; 5000]), Err(Garbage(_))));
    assert!(matches!(take(&mut b"BEGIN LIST VAR u\nEND LIST VAR v\n".to_vec()), Err(Garbage(_))));
    assert!(matches!(take(&mut format!("BEGIN LIST VAR u\n{}", "x\n".repeat(5000)).into_bytes()), Err(Garbage(_))));
}

#[test]
fn reading_is_total() {
    let text = b"BEGIN LIST VAR u\nVAR u ups.status \"OL \\\" CHRG\"\nEND LIST VAR u\nERR DATA-STALE\nOK Goodbye\n";
    let mut ids = Ids::new(3);
    for _ in 0..50_000 {
        let mut inbox = text.to_vec();
        for _ in 0..4 {
            let [at, with, ..] = ids.draw().to_le_bytes();
            let at = usize::from(at) % inbox.len();
            inbox[at] = with;
        }
        while let Ok(Some(_)) = take(&mut inbox) {}
    }
}

#[test]
fn what_no_quotes_can_carry_is_not_sent() {
    let mut dialogue = read("ups1\nFSD ups1");
    assert_eq!(dialogue.poll(0), Step::Send(b"LOGOUT\n".to_vec()));
    assert_eq!(dialogue.poll(0), Step::Done(Err(Error::NotSendable)));
}
