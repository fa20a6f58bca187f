//! Every dialogue as it goes (`dialogues/smart-ups/*.txt`); and one with nothing but noise.
//!
//! A recording is the dialogue, and what the UPS says to each question:
//!
//! ```text
//! read | attend       the dialogue
//! > TEXT              it answers with this line
//! + TEXT              it says this, without an end of line
//! silent              nothing
//! later MS + TEXT     it says this so many milliseconds after the last answer, without being asked
//! wind up             instead of this question, the caller's time is nearly over
//! ```

use std::fmt::Write as _;

use super::*;
use crate::recordings;
use crate::snmp::Ids;

#[test]
fn every_dialogue_goes_as_written() {
    recordings::check("smart-ups", replay);
}

fn replay(input: &str) -> String {
    let (dialogue, script) = input.split_once('\n').unwrap();
    let mut told = Vec::new();
    let tell = |reading: &UpsReading| told.push(format!("told: {reading}\n"));
    let output = match dialogue {
        "read" => go(read(), script),
        "attend" => go(attend(5000, tell), script),
        _ => panic!("no such dialogue: {dialogue}"),
    };
    output + &told.concat()
}

fn go(mut dialogue: impl Dialogue<Outcome = Result<UpsReading, Error>>, script: &str) -> String {
    let (mut now_ms, mut output, mut lines) = (0, String::new(), script.lines().peekable());
    let outcome = loop {
        match dialogue.poll(now_ms) {
            Step::Done(outcome) => break outcome,
            Step::Wait(until) => match lines.next_if(|line| line.starts_with("later ")) {
                Some(line) => {
                    let (millis, text) = line["later ".len()..].split_once(" + ").unwrap();
                    now_ms += millis.parse::<u64>().unwrap();
                    assert!(now_ms <= until, "it does not wait so long");
                    writeln!(output, "{now_ms:>6} ms  (says {text})").unwrap();
                    dialogue.handle(now_ms, text.as_bytes());
                }
                None => now_ms = until,
            },
            Step::Send(question) => {
                writeln!(output, "{now_ms:>6} ms  {}", String::from_utf8(question).unwrap()).unwrap();
                let line = lines.next().unwrap_or_else(|| panic!("not said what comes of it:\n{output}"));
                match line.split_at_checked(2).unwrap_or((line, "")) {
                    ("> ", text) => dialogue.handle(now_ms, format!("{text}\r\n").as_bytes()),
                    ("+ ", text) => dialogue.handle(now_ms, text.as_bytes()),
                    _ if line == "silent" => {}
                    _ if line == "wind up" => dialogue.wind_up(now_ms),
                    _ => panic!("not understood: {line}"),
                }
            }
        }
    };
    assert_eq!(lines.next(), None, "said and never asked, after:\n{output}");
    let outcome = match outcome {
        Ok(reading) => format!("ok: {reading}{}", if reading.is_critical() { ": critical" } else { "" }),
        Err(error) => format!("failed: {error}"),
    };
    format!("{output}{now_ms:>6} ms  {outcome}\n")
}

#[test]
fn each_bit_of_the_state_is_a_word() {
    for (bit, flag) in BITS {
        let mut dialogue = read();
        let mut now_ms = 0;
        let state = format!("{bit:02X}\r\n");
        let reading = loop {
            match dialogue.poll(now_ms) {
                Step::Send(question) => dialogue.handle(
                    now_ms,
                    match question[..] {
                        [b'Y'] => b"SM\r\n",
                        [b'f'] => b"100.0\r\n",
                        [b'j'] => b"0040:\r\n",
                        _ => state.as_bytes(),
                    },
                ),
                Step::Wait(until) => now_ms = until,
                Step::Done(outcome) => break outcome.unwrap(),
            }
        };
        assert_eq!(reading.flags, [flag].into());
        assert_eq!((reading.charge_percent, reading.runtime_s), (Some(100), Some(2400)));
    }
}

/// Answers with noise in them are read, or not, without a panic; and it always ends.
#[test]
fn noise_is_survived() {
    let answers: [&[u8]; 6] = [b"SM\r\n", b"087.0\r\n", b"0040:\r\n", b"08\r\n", b"NA\r\n", b"!$\r\r\n\n"];
    for seed in 0..3000 {
        let mut ids = Ids::new(seed);
        let mut draw = |below: usize| usize::try_from(ids.draw()).unwrap() % below;
        let mut dialogue = read();
        let mut now_ms = 0;
        for _ in 0..200 {
            match dialogue.poll(now_ms) {
                Step::Wait(until) => now_ms = until,
                Step::Done(_) => break,
                Step::Send(_) => {
                    let mut answer = answers[draw(answers.len())].to_vec();
                    for _ in 0..draw(3) {
                        let at = draw(answer.len());
                        answer[at] = u8::try_from(draw(256)).unwrap();
                    }
                    answer.truncate(draw(answer.len()) + 1);
                    dialogue.handle(now_ms, &answer);
                }
            }
        }
        assert!(matches!(dialogue.poll(now_ms), Step::Done(_)), "seed {seed}");
    }
}
