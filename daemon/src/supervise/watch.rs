//! The servant that looks at Xen: twice a second, and at once when an operation has ended. There is one, so two looks
//! never overlap. A network disk that no domain uses any more is let go by the way.

use std::collections::BTreeSet;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use cluster::event::Event;
use cluster::words::{Failing, Instant};

use super::clock;
use super::mailbox::{Post, Told};
use super::storage::{Disks, News};
use super::xen::Xen;

/// How long Xen, once it has answered, may not answer before this machine is past help. A stall is over by then.
const PATIENCE: Duration = Duration::from_secs(30);

/// Looks for as long as somebody holds the other end of `nudges`, `pause` apart unless nudged.
pub(super) fn run(post: &Post, disks: &Disks, nudges: &Receiver<()>, pause: Duration) {
    let mut xen = None;
    let mut said = None;
    let mut answers = Answers::default();
    loop {
        let began = clock::now();
        let looked = look(&mut xen);
        if answers.given_up(clock::now(), looked.is_ok()) {
            post.tell(Told::Event(Event::Failing { reason: Failing::Hypervisor }));
        }
        match looked {
            Ok((seen, used)) => {
                disks.keep(began, &used);
                let News { said: new, lost } = disks.news(&used);
                new.into_iter().for_each(|text| post.tell(Told::Said(text)));
                if lost {
                    post.tell(Told::Event(Event::Failing { reason: Failing::Storage }));
                }
                post.tell(Told::Seen { began, seen });
                said = None;
            }
            Err(error) => {
                xen = None;
                let text = format!("Xen cannot be asked what runs: {error}");
                if said.as_ref() != Some(&text) {
                    post.tell(Told::Said(text.clone()));
                    said = Some(text);
                }
            }
        }
        match nudges.recv_timeout(pause) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn look(xen: &mut Option<Xen>) -> io::Result<(Event, BTreeSet<String>)> {
    let xen = match xen {
        Some(xen) => xen,
        None => xen.insert(Xen::open()?),
    };
    Ok((xen.read()?, xen.disks()?))
}

/// When Xen answered last.
#[derive(Debug, Default)]
struct Answers {
    last: Option<Instant>,
}

impl Answers {
    /// Takes note of an answer, or of its lack; whether there have been none for too long. A Xen that never answered is a
    /// problem for the operator, not one that a new boot would mend.
    fn given_up(&mut self, now: Instant, answered: bool) -> bool {
        if answered {
            self.last = Some(now);
        }
        self.last.is_some_and(|last| now.since(last) >= PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_xen_that_stops_answering_is_given_up_and_one_that_never_answered_is_not() {
        let mut answers = Answers::default();
        let mut at = |seconds: u64, answered| answers.given_up(Instant::from_millis(seconds * 1_000), answered);
        assert!(!at(1, false) && !at(100, false), "never answered");
        assert!(!at(101, true) && !at(130, false));
        assert!(at(131, false) && at(132, false));
        assert!(!at(133, true), "the node goes by what it was told first");
    }
}
