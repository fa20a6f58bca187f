//! The supervisor: one loop thread around the cluster's core, which decides everything.
//!
//! ```text
//!  datagrams (udp, lines) --\                    /--> datagrams (udp, lines)
//!  menus (menu_link) --------+--> Event -> Node -+--> event log, menus, monitor line (events, monitor)
//!  servants (mailbox) ------/                    \--> servants (ops, power), watchdog, init
//! ```
//!
//! The loop never waits for anything but its next wake-up. What takes time is done by servant threads (`ops`, `watch`,
//! `files`, `ups`), whose ends are messages in the mailbox. What must outlive the supervisor (`xl`, the network disks) is a
//! process in a session of its own: a new life finds it again by what Xen and `/proc` say.
//!
//! A machine that has booted without the cluster's secrets joins first (`join`); then it is a node like any other.

mod bundle;
pub(crate) mod child;
pub(crate) mod clock;
mod consoles;
mod decisions;
pub(crate) mod events;
mod files;
mod import;
mod joins;
mod keys;
mod lines;
mod lockspace;
mod mailbox;
pub(crate) mod menu_link;
mod monitor;
mod ops;
mod pin;
mod power;
mod progress;
mod pulls;
mod roster;
mod run;
mod shared;
mod site;
mod storage;
mod syslog;
mod udp;
mod ups;
mod volumes;
mod watch;
mod xen;

use std::fs;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cluster::event::Request;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::event::{PollFd, Timespec};
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::rand::GetRandomFlags;

use crate::init::PROBLEMS;
use crate::join;
use mailbox::{Mailbox, Told};
use menu_link::{FromMenu, MenuId, Menus, SOCKET, ToMenu};
use site::Site;

/// Runs for as long as the machine does.
pub(crate) fn run() -> ExitCode {
    // Nothing here is ever fetched from a disk again. Where the kernel refuses, there is no disk to fetch it from either.
    let _ = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT);
    if let Err(problem) = join() {
        return idle(&problem);
    }
    let problem = match Site::read() {
        Ok(site) => match run::Supervisor::new(site) {
            Ok(supervisor) => return supervisor.run(),
            Err(problem) => problem,
        },
        Err(problem) => problem,
    };
    idle(&problem)
}

/// Joins, where this machine has to: meanwhile its menus show how that stands.
///
/// # Errors
/// This machine cannot ask, in words for the operator.
fn join() -> Result<(), String> {
    if !join::ask::is_wanted() {
        return Ok(());
    }
    let mut menus = Menus::open().map_err(|error| format!("{SOCKET}: {error}"))?;
    let mailbox = Mailbox::new().map_err(|error| format!("mailbox: {error}"))?;
    let (post, ended) = (mailbox.post(), Arc::new(OnceLock::new()));
    let end = Arc::clone(&ended);
    run::servant("join", move || {
        let joined = join::ask::run(&|text| post.tell(Told::Said(text)));
        // Nobody else sets it.
        let _ = end.set(joined);
        post.tell(Told::Said(String::new()));
    })?;
    let mut said = String::new();
    loop {
        for told in mailbox.take() {
            if let Told::Bundle { menu, answer } = told {
                menus.tell_one(menu, &ToMenu::Bundle(answer));
            } else if let Told::Said(text) = told {
                said = text;
                menus.tell(&ToMenu::Joins(said.clone()));
            }
        }
        if let Some(joined) = ended.get() {
            return joined.clone();
        }
        let greeting = || problems().into_iter().chain([ToMenu::Joins(said.clone())]).collect();
        do_without_a_cluster(menus.serve(greeting), &mailbox);
        let mut fds = vec![mailbox.waits()];
        menus.waits(&mut fds);
        wait(&mut fds, None);
    }
}

/// Takes no part, and tells whoever looks why. Nothing but a restart ends this, since nothing but a boot can mend it.
fn idle(problem: &str) -> ExitCode {
    let (Ok(mut menus), Ok(mailbox)) = (Menus::open(), Mailbox::new()) else {
        return ExitCode::FAILURE;
    };
    let greeting = || {
        let mut greeting = problems();
        // What init has met with as well is said once.
        if !greeting.iter().any(|said| matches!(said, ToMenu::Problem(text) if text.ends_with(problem))) {
            greeting.push(ToMenu::Problem(problem.to_owned()));
        }
        greeting
    };
    loop {
        for told in mailbox.take() {
            if let Told::Bundle { menu, answer } = told {
                menus.tell_one(menu, &ToMenu::Bundle(answer));
            }
        }
        do_without_a_cluster(menus.serve(greeting), &mailbox);
        let mut fds = vec![mailbox.waits()];
        menus.waits(&mut fds);
        wait(&mut fds, None);
    }
}

/// Does what menus may ask of a machine that is in no cluster: init powers it off, since there is nothing to leave; and a support
/// bundle is written.
fn do_without_a_cluster(asked: Vec<(MenuId, FromMenu)>, mailbox: &Mailbox) {
    for (menu, asked) in asked {
        if asked == FromMenu::Request(Request::ShutDown) {
            let _ = kill(Pid::from_raw(1), Signal::SIGUSR2);
        } else if let FromMenu::Bundle(request) = asked {
            bundle::ask(menu, request, None, mailbox.post());
        }
    }
}

/// What init found to be wrong.
fn problems() -> Vec<ToMenu> {
    let text = fs::read_to_string(PROBLEMS).unwrap_or_default();
    text.lines().map(|line| ToMenu::Problem(line.to_owned())).collect()
}

/// Sleeps until something happens to one of `fds`, for `longest` at most.
fn wait(fds: &mut [PollFd<'_>], longest: Option<Duration>) {
    let timeout = longest.and_then(|longest| Timespec::try_from(longest).ok());
    // An interrupted or failed wait is an early look around, nothing worse.
    let _ = rustix::event::poll(fds, timeout.as_ref());
}

/// A random number.
///
/// # Errors
/// The kernel has none, in words for the operator.
fn seed() -> Result<u64, String> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, GetRandomFlags::empty()).map_err(|error| format!("getrandom: {error}"))?;
    Ok(u64::from_ne_bytes(bytes))
}
