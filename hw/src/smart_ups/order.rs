//! The order to switch the load off, and on again with mains.
//!
//! ```text
//! Y      SM       it is in smart mode now
//! S      OK       on battery: its load goes off after its grace, and on when mains is back
//!        NA, NO   it has mains: it takes the next one only
//! @000   OK       its load goes off after its grace, and on again at once
//! ```
//!
//! Only both together leave no gap: mains may come back at any moment, and a load that has switched itself off in the
//! meantime would wait for ever. A UPS that does not answer with a line may say `*` (it is going off), which counts as well.

use std::collections::VecDeque;

use super::{ANSWER_MS, Error, LONGEST, TRIES};
use crate::dialogue::{Dialogue, Step};

/// Between two characters of one command: old UPSes lose the second of two that come too fast.
const PACE_MS: u64 = 50;

/// Orders the UPS to switch its load off after its own grace, and on again when it has mains; at once, if it has.
#[must_use]
pub fn cut_load() -> impl Dialogue<Outcome = Result<(), Error>> {
    CutLoad { command: Command::SmartMode, rest: Command::SmartMode.bytes(), at_ms: 0, ..CutLoad::default() }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Command {
    #[default]
    SmartMode,
    /// Off now, on with mains: on battery only.
    Hibernate,
    /// Off now, on after no time at all, once there is mains.
    Cycle,
}

impl Command {
    fn bytes(self) -> VecDeque<u8> {
        let text: &[u8] = match self {
            Self::SmartMode => b"Y",
            Self::Hibernate => b"S",
            Self::Cycle => b"@000",
        };
        text.iter().copied().collect()
    }
}

#[derive(Debug, Default)]
struct CutLoad {
    command: Command,
    /// What is still to be sent of it.
    rest: VecDeque<u8>,
    /// When the next character may be sent, or since when the answer is waited for.
    at_ms: u64,
    tries: u8,
    inbox: Vec<u8>,
    ever_answered: bool,
    outcome: Option<Result<(), Error>>,
}

impl CutLoad {
    fn say(&mut self, command: Command) {
        (self.command, self.rest, self.tries) = (command, command.bytes(), 0);
        self.inbox.clear();
    }

    /// Whatever has come so far, as lines; `*` is one.
    fn take(&mut self) {
        let text = String::from_utf8_lossy(&self.inbox).replace('*', "\nOK\n");
        let whole = text.rfind(['\r', '\n']).map_or("", |end| text.get(..end).unwrap_or_default());
        for line in whole.split(['\r', '\n']).map(|line| line.trim_matches(|c: char| !c.is_ascii_alphanumeric())) {
            self.ever_answered |= matches!(line, "SM" | "OK" | "NA" | "NO");
            match (self.command, line) {
                (Command::SmartMode, "SM") => return self.say(Command::Hibernate),
                (Command::Hibernate | Command::Cycle, "OK") => self.outcome = Some(Ok(())),
                (Command::Hibernate, "NA" | "NO") => return self.say(Command::Cycle),
                (Command::Cycle, "NA" | "NO") => self.outcome = Some(Err(Error::Refused)),
                (Command::SmartMode | Command::Hibernate | Command::Cycle, _) => {}
            }
        }
    }

    fn overdue(&mut self) {
        let tries = self.tries + 1;
        self.say(self.command);
        self.tries = tries;
        if tries >= TRIES {
            self.outcome = Some(Err(if self.ever_answered { Error::FellSilent } else { Error::Silent }));
        }
    }
}

impl Dialogue for CutLoad {
    type Outcome = Result<(), Error>;

    fn poll(&mut self, now_ms: u64) -> Step<Self::Outcome> {
        loop {
            if let Some(outcome) = &self.outcome {
                return Step::Done(outcome.clone());
            }
            if !self.rest.is_empty() && now_ms < self.at_ms {
                return Step::Wait(self.at_ms);
            }
            if let Some(byte) = self.rest.pop_front() {
                self.at_ms = now_ms + PACE_MS;
                return Step::Send(vec![byte]);
            }
            if now_ms < self.at_ms + ANSWER_MS {
                return Step::Wait(self.at_ms + ANSWER_MS);
            }
            self.overdue();
        }
    }

    fn handle(&mut self, _now_ms: u64, bytes: &[u8]) {
        let room = LONGEST.saturating_sub(self.inbox.len());
        self.inbox.extend(bytes.iter().take(room));
        // What comes before the whole command was sent is no answer to it.
        if self.rest.is_empty() {
            self.take();
        }
    }

    fn give_up(&self) -> Self::Outcome {
        self.outcome.clone().unwrap_or(Err(Error::GaveUp))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is sent to a UPS that answers each command with these bytes, and how it ends.
    fn drive(answers: &[(&str, &str)]) -> (String, Result<(), Error>) {
        let (mut dialogue, mut now_ms, mut sent, mut command) = (cut_load(), 0, String::new(), String::new());
        loop {
            match dialogue.poll(now_ms) {
                Step::Done(outcome) => return (sent, outcome),
                Step::Wait(until) => now_ms = until,
                Step::Send(bytes) => {
                    let text = String::from_utf8(bytes).unwrap();
                    sent += &text;
                    command += &text;
                    if let Some((_, answer)) = answers.iter().find(|(asked, _)| *asked == command) {
                        command.clear();
                        // Cut anywhere.
                        answer.bytes().for_each(|byte| dialogue.handle(now_ms, &[byte]));
                    } else if command.len() > 4 {
                        command.clear();
                    }
                }
            }
        }
    }

    #[test]
    fn it_goes_off_on_battery_and_is_cycled_with_mains() {
        let smart = ("Y", "SM\r\n");
        assert_eq!(drive(&[smart, ("S", "OK\r\n")]), ("YS".to_owned(), Ok(())));
        assert_eq!(drive(&[smart, ("S", "!*")]), ("YS".to_owned(), Ok(())));
        assert_eq!(drive(&[smart, ("S", "$NA\r\n"), ("@000", "OK\r\n")]), ("YS@000".to_owned(), Ok(())));
        assert_eq!(drive(&[smart, ("S", "NA\r\n"), ("@000", "NA\r\n")]).1, Err(Error::Refused));
        assert_eq!(drive(&[]), ("YYYY".to_owned(), Err(Error::Silent)));
        assert_eq!(drive(&[smart]).1, Err(Error::FellSilent));
    }

    #[test]
    fn noise_is_no_answer() {
        let mut ids = crate::snmp::Ids::new(7);
        for _ in 0..2_000 {
            let mut dialogue = CutLoad { rest: Command::SmartMode.bytes(), ..CutLoad::default() };
            assert_eq!(dialogue.poll(0), Step::Send(b"Y".to_vec()));
            let noise: Vec<u8> = (0..80).map(|_| ids.draw().to_le_bytes()[0]).collect();
            dialogue.handle(0, &noise);
            assert!(dialogue.outcome.is_none(), "{noise:?}");
        }
    }
}
