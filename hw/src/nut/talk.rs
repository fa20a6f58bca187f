//! One connection: requests and their replies, in turn.

use super::Error;
use super::reply::{Garbage, Reply, take};
use crate::dialogue::{Dialogue, Step};

/// How long a reply may take. upsd answers from memory.
const ANSWER_MS: u64 = 5000;
/// The most that is kept of a reply, in bytes.
const LONGEST: usize = 1 << 20;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    /// The line, without its end; `None` if an argument cannot be sent.
    pub(super) line: Option<String>,
    /// In words, after "to".
    pub(super) asked: &'static str,
}

/// What follows.
#[derive(Debug)]
pub(super) enum Next<Answer> {
    Ask(Request),
    /// Not before so many milliseconds have passed.
    AskLater(u64, Request),
    Done(Result<Answer, Error>),
}

/// The order of requests.
pub(super) trait Task {
    type Answer: Clone;

    fn begin(&mut self) -> Request;
    fn replied(&mut self, reply: Reply) -> Next<Self::Answer>;
    /// What it has come to so far, for a caller whose time is over.
    fn so_far(&self) -> Result<Self::Answer, Error> {
        Err(Error::GaveUp)
    }
}

/// A dialogue with upsd.
pub(super) struct Talk<T: Task> {
    task: T,
    request: Request,
    /// The request is to be sent, but not before then.
    send_at: Option<u64>,
    sent_at: u64,
    inbox: Vec<u8>,
    outcome: Option<Result<T::Answer, Error>>,
    left: bool,
}

impl<T: Task> Talk<T> {
    pub(super) fn new(mut task: T) -> Self {
        let request = task.begin();
        Self { task, request, send_at: Some(0), sent_at: 0, inbox: Vec::new(), outcome: None, left: false }
    }

    fn follow(&mut self, now_ms: u64, reply: Reply) {
        match self.task.replied(reply) {
            Next::Ask(request) => (self.request, self.send_at) = (request, Some(now_ms)),
            Next::AskLater(rest_ms, request) => (self.request, self.send_at) = (request, Some(now_ms + rest_ms)),
            Next::Done(outcome) => self.outcome = Some(outcome),
        }
    }
}

impl<T: Task> Dialogue for Talk<T> {
    type Outcome = Result<T::Answer, Error>;

    fn poll(&mut self, now_ms: u64) -> Step<Self::Outcome> {
        loop {
            if let Some(outcome) = &self.outcome {
                if self.left {
                    return Step::Done(outcome.clone());
                }
                // Its OK is not waited for: the connection ends anyway.
                self.left = true;
                return Step::Send(b"LOGOUT\n".to_vec());
            }
            if let Some(at) = self.send_at {
                if now_ms < at {
                    return Step::Wait(at);
                }
                self.send_at = None;
                self.sent_at = now_ms;
                self.inbox.clear();
                match &self.request.line {
                    Some(line) => return Step::Send(format!("{line}\n").into_bytes()),
                    None => self.outcome = Some(Err(Error::NotSendable)),
                }
                continue;
            }
            match take(&mut self.inbox) {
                Ok(Some(reply)) => self.follow(now_ms, reply),
                Ok(None) if self.inbox.len() >= LONGEST => {
                    self.outcome = Some(Err(Error::Garbage("a reply without an end".to_owned())));
                }
                Ok(None) if now_ms < self.sent_at + ANSWER_MS => return Step::Wait(self.sent_at + ANSWER_MS),
                Ok(None) => self.outcome = Some(Err(Error::Silent)),
                Err(Garbage(some)) => self.outcome = Some(Err(Error::Garbage(some))),
            }
        }
    }

    fn handle(&mut self, _now_ms: u64, bytes: &[u8]) {
        let room = LONGEST.saturating_sub(self.inbox.len());
        self.inbox.extend(bytes.iter().take(room));
    }

    fn wind_up(&mut self, _now_ms: u64) {
        self.outcome = Some(self.give_up());
    }

    fn give_up(&self) -> Self::Outcome {
        self.outcome.clone().unwrap_or_else(|| self.task.so_far())
    }
}
