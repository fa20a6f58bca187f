//! How servant threads reach the loop: a queue and a bell that wakes it.
//!
//! The queue has no bound of its own, so that nobody ever waits to put something in, the loop itself least of all. What
//! is in it is bounded by those who put in: an operation ends once, and the others look at something twice a second; a
//! loop that does not empty it is one that does not pet the watchdog either.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryIter, channel};

use cluster::event::Event;
use cluster::words::Instant;
use console::{BundleAnswer, JoinAnswer};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};

use super::menu_link::MenuId;
use crate::stream::Opaque;

/// What a servant tells the loop.
#[derive(Debug)]
pub(super) enum Told {
    /// Something the node must know.
    Event(Event),
    /// What Xen runs, as read by somebody who began to look at `began`.
    Seen {
        /// When the look began: what ended after that is not in it.
        began: Instant,
        /// The whole list.
        seen: Event,
    },
    /// Something for the event log: nearly always that something is wrong with this machine.
    Said(String),
    /// Something for the event log that is as it should be.
    Noted(String),
    /// What the gateway answers to a menu's request about machines that join.
    Joining {
        /// Which menu has asked.
        menu: MenuId,
        /// The answer.
        answer: JoinAnswer,
    },
    /// What the gateway answers to a menu's request about its disks.
    Volumes {
        /// Which menu has asked.
        menu: MenuId,
        /// To what.
        to: Opaque,
        /// The answer.
        outcome: Result<Opaque, String>,
    },
    /// What became of a menu's request about support bundles.
    Bundle {
        /// Which menu has asked.
        menu: MenuId,
        /// The answer.
        answer: BundleAnswer,
    },
}

/// Where messages arrive.
#[derive(Debug)]
pub(super) struct Mailbox {
    receiver: Receiver<Told>,
    post: Post,
}

/// Where messages are put in.
#[derive(Clone, Debug)]
pub(super) struct Post {
    sender: Sender<Told>,
    bell: Arc<OwnedFd>,
}

impl Mailbox {
    /// An empty one.
    ///
    /// # Errors
    /// The kernel has no descriptor left.
    pub(super) fn new() -> io::Result<Self> {
        let (sender, receiver) = channel();
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        Ok(Self { receiver, post: Post { sender, bell } })
    }

    /// Where its messages are put in.
    pub(super) fn post(&self) -> Post {
        self.post.clone()
    }

    /// What is worth waking up for.
    pub(super) fn waits(&self) -> PollFd<'_> {
        PollFd::new(&self.post.bell, PollFlags::IN)
    }

    /// What has come, in order.
    pub(super) fn take(&self) -> TryIter<'_, Told> {
        // Silenced before it is emptied: a message that comes in between rings again.
        let _ = rustix::io::read(&self.post.bell, &mut [0; 8]);
        self.receiver.try_iter()
    }
}

impl Post {
    /// Puts a message in.
    pub(super) fn tell(&self, told: Told) {
        // The loop ends only with the process, and the bell cannot ring too often (2^64 times).
        if self.sender.send(told).is_ok() {
            let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
    }
}
