//! A session at the console: found, logged in, used, logged out.
//!
//! ```text
//! Find  --nobody logged in-->  Name --> Password --logged in-->  Work  --goal reached, or failed-->  Leave --> end
//!   ^                            |         |                       |
//!   +----------------------------+---------+--- strange, silent, logged off
//! ```
//!
//! `Find` and `Leave` go the same way out. One line typed brings one prompt back: what is on the page of an answer belongs to
//! what was typed last, or the page is mixed and not taken.

use super::super::Seen;
use super::Error;
use super::goal::{Goal, Next, Want};
use super::page::{Page, Prompt};
use super::tongue::{ENTER, Menus, Move, Tongue, UP};
use crate::Credentials;
use crate::dialogue::{Dialogue, Step};

/// A prompt counts once so long nothing has followed it: a line of 9600 baud carries a byte in 1 ms.
const SETTLE_MS: u64 = 300;
/// How long nothing may come before there is no answer: at work, and on the way in or out.
const ANSWER_MS: u64 = 4000;
const NUDGE_MS: u64 = 1500;
/// How long an answer may be under way. The longest screen takes 2.5 s.
const WHOLE_ANSWER_MS: u64 = 15_000;
/// How much of an answer is kept, in bytes. The longest screen has 2400.
const LONGEST: usize = 8192;
/// How often nothing may come before the device is silent.
const NUDGES: u8 = 5;
/// How many lines are typed to find the way out, or for one thing that is wanted.
const STEPS: u8 = 24;
/// How often the goal is begun anew.
const RESTARTS: u8 = 3;
/// Takes back what somebody left half typed: it must not be done because of our first ENTER.
const WIPE: [u8; 40] = [0x08; 40];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Find,
    /// The name was typed.
    Name,
    /// The password was typed.
    Password,
    Work,
    Leave,
}

/// What an answer is.
enum Heard {
    NotYet(u64),
    Whole(Page),
    Overdue(Page),
}

/// A dialogue with a console. Made by [`super::switch`] and [`super::status`].
pub(super) struct Talk<G: Goal> {
    credentials: Credentials,
    goal: G,
    stage: Stage,
    tongue: Tongue,
    /// Is the command line asked for at the next login?
    try_command_line: bool,
    want: Want,
    /// To be sent, but not before `rest_until`.
    outbox: Option<Vec<u8>>,
    rest_until: u64,
    /// What has come since something was sent last.
    inbox: Vec<u8>,
    sent_at: u64,
    last_heard_at: u64,
    ever_heard: bool,
    nudges: u8,
    steps: u8,
    restarts: u8,
    outcome: Option<Result<G::Answer, Error>>,
    ended: bool,
}

impl<G: Goal> Talk<G> {
    pub(super) fn new(goal: G, credentials: &Credentials) -> Self {
        Self {
            credentials: credentials.clone(),
            goal,
            stage: Stage::Find,
            tongue: Tongue::CommandLine,
            try_command_line: true,
            want: Want::List,
            outbox: Some([&WIPE[..], ENTER.as_bytes()].concat()),
            rest_until: 0,
            inbox: Vec::new(),
            sent_at: 0,
            last_heard_at: 0,
            ever_heard: false,
            nudges: 0,
            steps: 0,
            restarts: 0,
            outcome: None,
            ended: false,
        }
    }

    fn last_seen(&self) -> Vec<Seen> {
        self.goal.last_seen().to_vec()
    }

    /// What the device wrote, for the operator: without the password, should the device have written that.
    fn quote(&self, said: &str) -> String {
        match self.credentials.password.as_str() {
            "" => said.to_owned(),
            password => said.replace(password, "***"),
        }
    }

    fn garbage(&self, page: &Page) -> Error {
        Error::Garbage(self.quote(&page.excerpt()))
    }

    fn say(&mut self, text: &str) {
        self.outbox = Some(text.as_bytes().to_vec());
    }

    fn heard(&self, now_ms: u64) -> Heard {
        let page = Page::read(&self.inbox);
        if now_ms >= self.sent_at + WHOLE_ANSWER_MS || self.inbox.len() >= LONGEST {
            return Heard::Overdue(page);
        }
        let patience = match self.stage {
            Stage::Find | Stage::Leave => NUDGE_MS,
            Stage::Name | Stage::Password | Stage::Work => ANSWER_MS,
        };
        let until = self.last_heard_at + if page.prompt.is_some() { SETTLE_MS } else { patience };
        match page.prompt {
            _ if now_ms < until => Heard::NotYet(until),
            Some(_) => Heard::Whole(page),
            None => Heard::Overdue(page),
        }
    }

    /// It waits for us.
    fn answered(&mut self, now_ms: u64, prompt: Prompt, page: &Page) {
        self.nudges = 0;
        if let Some(error) = self.trouble(page) {
            self.fail(error, Some((prompt, page)));
            return;
        }
        match (self.stage, prompt) {
            (Stage::Find | Stage::Work, Prompt::UserName) => self.log_in(),
            (Stage::Find, _) => {
                // The second card would count the first one's way in as a wrong password.
                self.try_command_line &= prompt != Prompt::SecondCommandLine;
                self.go_out(prompt, page);
            }
            (Stage::Name, Prompt::Password) => {
                let mode = if self.try_command_line { " -c" } else { "" };
                let password = &self.credentials.password;
                self.outbox = Some(format!("{password}{mode}{ENTER}").into_bytes());
                self.stage = Stage::Password;
            }
            (Stage::Password, Prompt::UserName) if self.try_command_line => {
                self.try_command_line = false;
                self.log_in();
            }
            (Stage::Password, Prompt::UserName) => self.fail(Error::WrongPassword, Some((prompt, page))),
            (Stage::Password, Prompt::CommandLine) => self.begin(now_ms, Tongue::CommandLine, page),
            (Stage::Password, Prompt::SecondCommandLine) => self.begin(now_ms, Tongue::SecondCommandLine, page),
            (Stage::Password, Prompt::Menu) => self.begin(now_ms, Tongue::Menus(Menus::default()), page),
            (Stage::Name | Stage::Password, _) => self.start_again(prompt, page),
            (Stage::Work, _) => self.work(now_ms, page, true),
            (Stage::Leave, Prompt::UserName) => self.ended = true,
            (Stage::Leave, _) => self.go_out(prompt, page),
        }
    }

    /// What makes all else useless.
    fn trouble(&self, page: &Page) -> Option<Error> {
        let coming_in = match self.stage {
            Stage::Find | Stage::Leave => return None,
            Stage::Name | Stage::Password => true,
            Stage::Work => false,
        };
        if coming_in && page.says("still initializing") {
            return Some(Error::Starting);
        }
        let is_in = matches!(page.prompt, Some(Prompt::CommandLine | Prompt::SecondCommandLine | Prompt::Menu));
        let somebody = ["already", "currently", "another"].iter().any(|word| page.says(word));
        if coming_in && !is_in && somebody && page.says("logged") {
            return Some(Error::LoggedIn);
        }
        let is_lost =
            |line: &&String| line.to_ascii_lowercase().contains("communication lost") || application_fails(line);
        page.lines.iter().find(is_lost).map(|line| Error::NotTrusted(self.quote(line.trim())))
    }

    fn log_in(&mut self) {
        if self.stage == Stage::Work {
            // We were in: so we were logged off.
            self.restarts += 1;
        }
        if self.restarts > RESTARTS {
            self.outcome = Some(Err(Error::LoggedOff(self.last_seen())));
            self.ended = true;
            return;
        }
        self.stage = Stage::Name;
        let user = format!("{}{ENTER}", self.credentials.user);
        self.say(&user);
    }

    fn begin(&mut self, now_ms: u64, tongue: Tongue, page: &Page) {
        self.tongue = tongue;
        self.stage = Stage::Work;
        self.want = self.goal.begin();
        self.steps = 0;
        self.work(now_ms, page, false);
    }

    /// One step closer to what is wanted, and to what is wanted after it.
    fn work(&mut self, now_ms: u64, page: &Page, mut fresh: bool) {
        let prompt = page.prompt.unwrap_or(Prompt::Menu);
        loop {
            self.steps += 1;
            let next = match self.tongue.step(self.want, page, fresh) {
                Move::Strange => return self.start_again(prompt, page),
                Move::Type(_) if self.steps > STEPS => return self.start_again(prompt, page),
                Move::Type(text) => return self.say(&text),
                Move::Refused(said) => {
                    Next::Done(Err(Error::Refused { asked: self.want.words(), said: self.quote(&said) }))
                }
                Move::WrongDevice(found) => Next::Done(Err(Error::WrongDevice(self.quote(&found)))),
                Move::Outlets(rows) => self.goal.listed(&rows),
                Move::Commanded => self.goal.commanded(),
            };
            match next {
                Next::Ask(want) => self.want = want,
                Next::AskLater(rest_ms, want) => {
                    self.want = want;
                    self.rest_until = now_ms + rest_ms;
                }
                Next::Done(outcome) => {
                    self.outcome = Some(outcome);
                    self.stage = Stage::Leave;
                    self.steps = 0;
                    return self.go_out(prompt, page);
                }
            }
            (self.steps, fresh) = (0, false);
        }
    }

    /// The answer was none: all over again, from whatever state this is.
    fn start_again(&mut self, prompt: Prompt, page: &Page) {
        self.restarts += 1;
        if self.restarts > RESTARTS {
            return self.fail(self.garbage(page), Some((prompt, page)));
        }
        self.stage = Stage::Find;
        self.steps = 0;
        self.go_out(prompt, page);
    }

    /// One step closer to nobody being logged in.
    fn go_out(&mut self, prompt: Prompt, page: &Page) {
        self.steps += 1;
        if self.steps > STEPS {
            return match self.stage {
                Stage::Leave => self.ended = true,
                Stage::Find | Stage::Name | Stage::Password | Stage::Work => {
                    self.fail(self.garbage(page), None);
                }
            };
        }
        match prompt {
            Prompt::CommandLine | Prompt::SecondCommandLine => self.say("exit\r"),
            Prompt::Menu => {
                // An outlet may be called as it likes.
                let is_list = page.menu_outlets().iter().any(|row| row.seen.state.is_ok());
                match page.choice("Logout").filter(|_| !is_list) {
                    Some(number) => self.say(&format!("{number}{ENTER}")),
                    None => self.say(UP),
                }
            }
            Prompt::Pager | Prompt::Confirmation | Prompt::Password | Prompt::UserName => self.say(ENTER),
        }
    }

    /// It has failed; where there may be a session, it is left first.
    fn fail(&mut self, error: Error, place: Option<(Prompt, &Page)>) {
        self.outcome = Some(Err(error));
        self.stage = Stage::Leave;
        self.steps = 0;
        match place {
            Some((Prompt::UserName, _)) | None => self.ended = true,
            Some((prompt, page)) => self.go_out(prompt, page),
        }
    }

    /// Nothing came, or no end of it.
    fn overdue(&mut self, page: &Page) {
        if let Some(error) = self.trouble(page) {
            self.outcome = Some(Err(error));
            self.stage = Stage::Leave;
        }
        match self.stage {
            Stage::Name | Stage::Password | Stage::Work => {
                self.restarts += 1;
                self.stage = Stage::Find;
                self.steps = 0;
            }
            Stage::Find | Stage::Leave => self.nudges += 1,
        }
        let heard_now = !page.lines.is_empty();
        if self.restarts > RESTARTS || self.nudges == NUDGES {
            let error = match (heard_now, self.ever_heard) {
                (true, _) => self.garbage(page),
                (false, true) => Error::FellSilent(self.last_seen()),
                (false, false) => Error::Silent,
            };
            self.outcome.get_or_insert(Err(error));
            self.ended = true;
            return;
        }
        // In turn: a new line for what waits for one, and a way up for what takes only that.
        self.say(if self.nudges.is_multiple_of(2) { ENTER } else { UP });
    }
}

/// `Stat : P+ N+ A-` (or `A?`, `A!`): the application does not run as it should.
fn application_fails(line: &str) -> bool {
    let stat = line.split_once("Stat").map_or("", |(_, stat)| stat);
    stat.split_whitespace().any(|word| matches!(word, "A-" | "A?" | "A!"))
}

impl<G: Goal> Dialogue for Talk<G> {
    type Outcome = Result<G::Answer, Error>;

    fn poll(&mut self, now_ms: u64) -> Step<Self::Outcome> {
        loop {
            if let Some(outcome) = self.outcome.as_ref().filter(|_| self.ended) {
                return Step::Done(outcome.clone());
            }
            if self.outbox.is_some() && now_ms < self.rest_until {
                return Step::Wait(self.rest_until);
            }
            if let Some(bytes) = self.outbox.take() {
                self.inbox.clear();
                (self.sent_at, self.last_heard_at) = (now_ms, now_ms);
                return Step::Send(bytes);
            }
            match self.heard(now_ms) {
                Heard::NotYet(until) => return Step::Wait(until),
                Heard::Whole(page) => match page.prompt {
                    Some(prompt) => self.answered(now_ms, prompt, &page),
                    None => self.overdue(&page),
                },
                Heard::Overdue(page) => self.overdue(&page),
            }
        }
    }

    fn handle(&mut self, now_ms: u64, bytes: &[u8]) {
        let room = LONGEST.saturating_sub(self.inbox.len());
        self.inbox.extend(bytes.iter().take(room));
        self.last_heard_at = now_ms;
        self.ever_heard |= !bytes.is_empty();
    }

    fn wind_up(&mut self, _now_ms: u64) {
        if self.stage == Stage::Leave || self.ended {
            return;
        }
        self.outcome = Some(self.give_up());
        self.stage = Stage::Leave;
        (self.steps, self.nudges, self.rest_until) = (0, 0, 0);
        if !self.ever_heard {
            self.ended = true;
        } else if self.outbox.is_some() {
            // What was about to be asked is asked no more.
            self.say(ENTER);
        }
    }

    fn give_up(&self) -> Self::Outcome {
        let given_up = if self.ever_heard { Error::GaveUp(self.last_seen()) } else { Error::Silent };
        self.outcome.clone().unwrap_or(Err(given_up))
    }
}
