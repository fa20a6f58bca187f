//! An APC UPS that speaks "smart signalling" on a serial line (2400 8N1, APC's cable 940-0024C).
//!
//! What it decides: what the UPS was read as. One character asks, and a line answers:
//!
//! ```text
//! Y   SM       it is in smart mode now
//! f   087.0    charge in percent           NA: it cannot say
//! j   0040:    runtime in minutes          NA: it cannot say
//! Q   08       its state, in bits          asked last, and again if an alert came with the answer
//! ```
//!
//! The UPS also tells what happens, by single characters that may stand anywhere, even inside an answer (`!` mains lost, `$`
//! mains back, ..): they are taken out first, and are no more than a reason to read again. Every answer has a form of its
//! own, so one that comes late is never taken for another.
//!
//! Nothing here can switch a UPS off but [`cut_load`]. Source: NUT's description of the protocol, and its `apcsmart` driver's behaviour.

mod order;
#[cfg(test)]
mod tests;

use core::fmt;

use crate::dialogue::{Dialogue, Step};
use crate::ups::{Flag, UpsReading};

pub use order::cut_load;

/// The speed of the line, for [`crate::port::tty::run`].
pub const BITS_PER_SECOND: u32 = 2400;

/// How long an answer may take.
const ANSWER_MS: u64 = 1500;
/// How often a question is asked before it has failed.
const TRIES: u8 = 4;
/// How often the state is read again because of alerts. One that has nothing but alerts to say is read as it was last.
const AGAIN: u8 = 3;
/// The longest answer, in bytes.
const LONGEST: usize = 64;
/// What a UPS says of itself.
const ALERTS: &[u8] = b"!$%+?=#&|*";

/// The bits of the state, and what they mean. An old paper has bit 1 as "waiting for mains after a shutdown".
const BITS: [(u8, Flag); 8] = [
    (0x01, Flag::Calibrating),
    (0x02, Flag::Trimming),
    (0x04, Flag::Boosting),
    (0x08, Flag::OnLine),
    (0x10, Flag::OnBattery),
    (0x20, Flag::Overloaded),
    (0x40, Flag::LowBattery),
    (0x80, Flag::ReplaceBattery),
];

/// Reads the UPS once.
#[must_use]
pub fn read() -> impl Dialogue<Outcome = Result<UpsReading, Error>> {
    Talk::new(None, |_: &UpsReading| {})
}

/// Reads the UPS every `interval_ms` milliseconds, and as soon as it says that something has happened: `tell` is told the
/// first reading, and every one that differs from the one before. It ends when the caller winds it up (with the last
/// reading) or with an error.
pub fn attend<F: FnMut(&UpsReading)>(
    interval_ms: u64,
    tell: F,
) -> impl Dialogue<Outcome = Result<UpsReading, Error>> + use<F> {
    Talk::new(Some(interval_ms), tell)
}

/// Why there is no reading, in words for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Nothing was ever heard.
    Silent,
    /// It answered at first, and then no more.
    FellSilent,
    /// What it answers is not understood; the last of it.
    Garbage(String),
    /// It does not know what its state is.
    NoState,
    /// It does not take the order.
    Refused,
    /// The caller gave up before there was a reading.
    GaveUp,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => {
                f.write_str("the UPS is silent: not connected, off, or not with a cable for smart signalling")
            }
            Self::FellSilent => f.write_str("the UPS does not answer any more"),
            Self::Garbage(some) => write!(f, "garbage on the UPS's line: {some:?}"),
            Self::Refused => f.write_str("the UPS refuses to cut its load"),
            Self::NoState => f.write_str("the UPS does not say its state"),
            Self::GaveUp => f.write_str("not done in time"),
        }
    }
}

impl core::error::Error for Error {}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    SmartMode,
    Charge,
    Runtime,
    State,
}

/// What it was answered.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Smart,
    Charge(Option<u8>),
    Runtime(Option<u32>),
    State(u8),
    NoState,
}

impl Question {
    fn byte(self) -> u8 {
        match self {
            Self::SmartMode => b'Y',
            Self::Charge => b'f',
            Self::Runtime => b'j',
            Self::State => b'Q',
        }
    }

    /// `None`: this is no answer to it.
    fn answer(self, line: &str) -> Option<Answer> {
        let is_unknown = line == "NA";
        match self {
            Self::SmartMode => (line == "SM").then_some(Answer::Smart),
            Self::Charge if is_unknown => Some(Answer::Charge(None)),
            Self::Charge => {
                let (percent, tenths) = line.split_once('.')?;
                let charge = number(percent)?;
                (charge <= 100 && number(tenths).is_some()).then(|| Answer::Charge(u8::try_from(charge).ok()))
            }
            Self::Runtime if is_unknown => Some(Answer::Runtime(None)),
            Self::Runtime => number(line.strip_suffix(':')?)?.checked_mul(60).map(|s| Answer::Runtime(Some(s))),
            Self::State if is_unknown => Some(Answer::NoState),
            Self::State => {
                let is_hex = line.len() == 2 && line.bytes().all(|byte| byte.is_ascii_hexdigit());
                let bits = u8::from_str_radix(line, 16).ok().filter(|_| is_hex)?;
                // On line and on battery at once is noise.
                (bits & 0x18 != 0x18).then_some(Answer::State(bits))
            }
        }
    }
}

/// Digits and nothing else.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A dialogue with a UPS.
struct Talk<F> {
    /// How long after a reading the next one is made; `None` if there is none.
    interval_ms: Option<u64>,
    tell: F,
    question: Question,
    /// It was asked then; `None` if it is still to be asked.
    asked_at: Option<u64>,
    /// Between two readings, until then.
    resting_until: Option<u64>,
    tries: u8,
    again: u8,
    inbox: Vec<u8>,
    /// Something has happened since the question was asked.
    alerted: bool,
    ever_answered: bool,
    /// Something came that was not understood.
    garbage: Option<String>,
    coming: UpsReading,
    last: Option<UpsReading>,
    outcome: Option<Result<UpsReading, Error>>,
}

impl<F: FnMut(&UpsReading)> Talk<F> {
    fn new(interval_ms: Option<u64>, tell: F) -> Self {
        Self {
            interval_ms,
            tell,
            question: Question::SmartMode,
            asked_at: None,
            resting_until: None,
            tries: 0,
            again: 0,
            inbox: Vec::new(),
            alerted: false,
            ever_answered: false,
            garbage: None,
            coming: UpsReading::default(),
            last: None,
            outcome: None,
        }
    }

    fn ask(&mut self, question: Question) {
        (self.question, self.asked_at, self.tries) = (question, None, 0);
    }

    /// A whole line has come.
    fn take(&mut self, now_ms: u64, line: &str) {
        let Some(answer) = self.question.answer(line) else {
            self.garbage = Some(line.to_owned());
            return;
        };
        self.ever_answered = true;
        self.garbage = None;
        match answer {
            Answer::Smart => self.ask(Question::Charge),
            Answer::Charge(percent) => {
                self.coming.charge_percent = percent;
                self.ask(Question::Runtime);
            }
            Answer::Runtime(seconds) => {
                self.coming.runtime_s = seconds;
                self.again = 0;
                self.ask(Question::State);
            }
            Answer::State(_) if self.alerted && self.again < AGAIN => {
                self.again += 1;
                self.ask(Question::State);
            }
            Answer::State(bits) => {
                let flags = BITS.into_iter().filter(|(bit, _)| bits & bit != 0).map(|(_, flag)| flag);
                self.coming.flags = flags.collect();
                self.read(now_ms);
            }
            Answer::NoState => self.outcome = Some(Err(Error::NoState)),
        }
    }

    /// A reading is complete.
    fn read(&mut self, now_ms: u64) {
        let reading = core::mem::take(&mut self.coming);
        if self.last.as_ref() != Some(&reading) {
            (self.tell)(&reading);
        }
        self.last = Some(reading.clone());
        match self.interval_ms {
            Some(interval_ms) => {
                (self.resting_until, self.alerted) = (Some(now_ms + interval_ms), false);
                self.ask(Question::Charge);
            }
            None => self.outcome = Some(Ok(reading)),
        }
    }

    /// No answer, or none that is understood.
    fn overdue(&mut self) {
        self.tries += 1;
        self.asked_at = None;
        if self.tries < TRIES {
            return;
        }
        self.outcome = Some(Err(match (self.garbage.take(), self.ever_answered) {
            (Some(some), _) => Error::Garbage(some),
            (None, true) => Error::FellSilent,
            (None, false) => Error::Silent,
        }));
    }

    /// The first line of what has come; it is taken out.
    fn line(&mut self) -> Option<String> {
        let end = self.inbox.iter().position(|byte| matches!(byte, b'\r' | b'\n'))?;
        let line: Vec<u8> = self.inbox.drain(..=end).collect();
        let line = String::from_utf8_lossy(line.get(..end).unwrap_or_default()).into_owned();
        Some(line)
    }
}

impl<F: FnMut(&UpsReading)> Dialogue for Talk<F> {
    type Outcome = Result<UpsReading, Error>;

    fn poll(&mut self, now_ms: u64) -> Step<Self::Outcome> {
        loop {
            if let Some(outcome) = &self.outcome {
                return Step::Done(outcome.clone());
            }
            if let Some(until) = self.resting_until {
                if now_ms < until && !self.alerted {
                    return Step::Wait(until);
                }
                self.resting_until = None;
            }
            let Some(asked_at) = self.asked_at else {
                self.asked_at = Some(now_ms);
                self.alerted = false;
                self.inbox.clear();
                return Step::Send(vec![self.question.byte()]);
            };
            if let Some(line) = self.line() {
                if !line.is_empty() {
                    self.take(now_ms, &line);
                }
            } else if now_ms < asked_at + ANSWER_MS && self.inbox.len() < LONGEST {
                return Step::Wait(asked_at + ANSWER_MS);
            } else {
                if !self.inbox.is_empty() {
                    self.garbage = Some(String::from_utf8_lossy(&self.inbox).into_owned());
                }
                self.overdue();
            }
        }
    }

    fn handle(&mut self, _now_ms: u64, bytes: &[u8]) {
        self.alerted |= bytes.iter().any(|byte| ALERTS.contains(byte));
        let room = LONGEST.saturating_sub(self.inbox.len());
        self.inbox.extend(bytes.iter().filter(|byte| !ALERTS.contains(byte)).take(room));
    }

    fn wind_up(&mut self, _now_ms: u64) {
        self.outcome = Some(self.give_up());
    }

    fn give_up(&self) -> Self::Outcome {
        let so_far = || match (&self.last, self.ever_answered || self.garbage.is_some()) {
            (Some(reading), _) => Ok(reading.clone()),
            (None, true) => Err(Error::GaveUp),
            (None, false) => Err(Error::Silent),
        };
        self.outcome.clone().unwrap_or_else(so_far)
    }
}
