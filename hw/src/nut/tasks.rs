//! What can be wanted of upsd.

use super::reply::{ErrorCode, Reply, quoted};
use super::talk::{Next, Request, Task};
use super::{Directory, Error};
use crate::Credentials;
use crate::ups::{Flag, UpsReading};

fn request(words: &str, arguments: &[&str], asked: &'static str) -> Request {
    let arguments: Option<Vec<String>> = arguments.iter().map(|argument| quoted(argument)).collect();
    let line = arguments.map(|arguments| [&[words.to_owned()][..], &arguments].concat().join(" "));
    Request { line, asked }
}

/// A reply that is not of the kind that belongs to the request.
fn out_of_place<T>(asked: &'static str, reply: Reply) -> Next<T> {
    Next::Done(Err(match reply {
        Reply::Refused(code) => Error::Refused { asked, code },
        Reply::Line(words) => Error::Garbage(words.join(" ")),
        Reply::List(_) => Error::Garbage("a list that was not asked for".to_owned()),
    }))
}

/// Version and UPSes.
#[derive(Debug, Default)]
pub(super) struct List {
    version: Option<String>,
}

const SAY_VERSION: &str = "say its version";
const LIST_UPSES: &str = "list its UPSes";

impl Task for List {
    type Answer = Directory;

    fn begin(&mut self) -> Request {
        request("VER", &[], SAY_VERSION)
    }

    fn replied(&mut self, reply: Reply) -> Next<Directory> {
        match (self.version.clone(), reply) {
            (None, Reply::Line(words)) => {
                self.version = Some(words.join(" "));
                Next::Ask(request("LIST UPS", &[], LIST_UPSES))
            }
            (None, other) => out_of_place(SAY_VERSION, other),
            (Some(version), Reply::List(lines)) => {
                let ups = |line: Vec<String>| match &line[..] {
                    [ups, name, description, ..] if ups == "UPS" => Some((name.clone(), description.clone())),
                    _ => None,
                };
                Next::Done(Ok(Directory { version, upses: lines.into_iter().filter_map(ups).collect() }))
            }
            (Some(_), other) => out_of_place(LIST_UPSES, other),
        }
    }
}

const READ_UPS: &str = "read the UPS";

fn read_request(ups: &str) -> Request {
    request("LIST VAR", &[ups], READ_UPS)
}

/// A reading, by the variables of the list.
fn reading(ups: &str, lines: &[Vec<String>]) -> Result<UpsReading, Error> {
    let variable = |name: &str| {
        lines.iter().find_map(|line| match &line[..] {
            [var, of, this, value, ..] if var == "VAR" && of == ups && this == name => Some(value.as_str()),
            _ => None,
        })
    };
    // Some drivers write "90.0".
    let whole = |value: &str| value.split('.').next().map(str::to_owned);
    let flags = variable("ups.status").ok_or(Error::NoStatus)?.split_whitespace().filter_map(Flag::from_word);
    Ok(UpsReading {
        flags: flags.collect(),
        charge_percent: variable("battery.charge").and_then(whole).and_then(|charge| charge.parse().ok()),
        runtime_s: variable("battery.runtime").and_then(whole).and_then(|runtime| runtime.parse().ok()),
    })
}

/// One reading.
#[derive(Debug)]
pub(super) struct Read {
    ups: String,
}

impl Read {
    pub(super) fn new(ups: &str) -> Self {
        Self { ups: ups.to_owned() }
    }
}

impl Task for Read {
    type Answer = UpsReading;

    fn begin(&mut self) -> Request {
        read_request(&self.ups)
    }

    fn replied(&mut self, reply: Reply) -> Next<UpsReading> {
        match reply {
            Reply::List(lines) => Next::Done(reading(&self.ups, &lines)),
            Reply::Refused(_) | Reply::Line(_) => out_of_place(READ_UPS, reply),
        }
    }
}

const LOG_IN: &str = "log in";

/// The three steps of a login.
struct Login {
    ups: String,
    credentials: Credentials,
    done: u8,
}

impl Login {
    const STEPS: u8 = 3;

    fn new(ups: &str, credentials: &Credentials) -> Self {
        Self { ups: ups.to_owned(), credentials: credentials.clone(), done: 0 }
    }

    fn request(&self) -> Request {
        match self.done {
            0 => request("USERNAME", &[&self.credentials.user], LOG_IN),
            1 => request("PASSWORD", &[&self.credentials.password], LOG_IN),
            _ => request("LOGIN", &[&self.ups], LOG_IN),
        }
    }

    fn is_done(&self) -> bool {
        self.done == Self::STEPS
    }

    /// The next step; after the last one, what follows the login.
    fn replied<T>(&mut self, reply: Reply, then: impl FnOnce() -> Request) -> Next<T> {
        if !is_ok(&reply) {
            return out_of_place(LOG_IN, reply);
        }
        self.done += 1;
        Next::Ask(if self.is_done() { then() } else { self.request() })
    }
}

fn is_ok(reply: &Reply) -> bool {
    matches!(reply, Reply::Line(words) if words.first().is_some_and(|word| word == "OK"))
}

/// Logged in, and reading.
pub(super) struct Attend<F> {
    login: Login,
    interval_ms: u64,
    tell: F,
    last: Option<UpsReading>,
}

impl<F> Attend<F> {
    pub(super) fn new(ups: &str, credentials: &Credentials, interval_ms: u64, tell: F) -> Self {
        Self { login: Login::new(ups, credentials), interval_ms, tell, last: None }
    }
}

impl<F: FnMut(&UpsReading)> Task for Attend<F> {
    type Answer = UpsReading;

    fn begin(&mut self) -> Request {
        self.login.request()
    }

    fn replied(&mut self, reply: Reply) -> Next<UpsReading> {
        let ups = self.login.ups.clone();
        if !self.login.is_done() {
            return self.login.replied(reply, || read_request(&ups));
        }
        match reply {
            Reply::List(lines) => match reading(&ups, &lines) {
                Ok(reading) => {
                    if self.last.as_ref() != Some(&reading) {
                        (self.tell)(&reading);
                        self.last = Some(reading);
                    }
                    Next::AskLater(self.interval_ms, read_request(&ups))
                }
                Err(error) => Next::Done(Err(error)),
            },
            Reply::Refused(_) | Reply::Line(_) => out_of_place(READ_UPS, reply),
        }
    }

    fn so_far(&self) -> Result<UpsReading, Error> {
        self.last.clone().ok_or(Error::GaveUp)
    }
}

const TAKE_CHARGE: &str = "be in charge of the UPS";
const ORDER_SHUTDOWN: &str = "order the shutdown";

#[derive(Debug, Clone, Copy)]
enum Rank {
    /// What upsd calls it since 2.8.
    Primary,
    /// What it called it before.
    Master,
    /// Granted: the order is given.
    Granted,
}

/// The order to shut down.
pub(super) struct ForceShutdown {
    login: Login,
    rank: Rank,
}

impl ForceShutdown {
    pub(super) fn new(ups: &str, credentials: &Credentials) -> Self {
        Self { login: Login::new(ups, credentials), rank: Rank::Primary }
    }
}

impl Task for ForceShutdown {
    type Answer = ();

    fn begin(&mut self) -> Request {
        self.login.request()
    }

    fn replied(&mut self, reply: Reply) -> Next<()> {
        let ups = self.login.ups.clone();
        if !self.login.is_done() {
            return self.login.replied(reply, || request("PRIMARY", &[&ups], TAKE_CHARGE));
        }
        match (self.rank, &reply) {
            (Rank::Primary, Reply::Refused(ErrorCode::UnknownCommand)) => {
                self.rank = Rank::Master;
                Next::Ask(request("MASTER", &[&ups], TAKE_CHARGE))
            }
            (Rank::Primary | Rank::Master, _) if is_ok(&reply) => {
                self.rank = Rank::Granted;
                Next::Ask(request("FSD", &[&ups], ORDER_SHUTDOWN))
            }
            (Rank::Primary | Rank::Master, _) => out_of_place(TAKE_CHARGE, reply),
            (Rank::Granted, _) if is_ok(&reply) => Next::Done(Ok(())),
            (Rank::Granted, _) => out_of_place(ORDER_SHUTDOWN, reply),
        }
    }
}
