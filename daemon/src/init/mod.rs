//! PID 1: brings dom0 up phase by phase, keeps the services running, and carries out power-off and reboot.
//!
//! It decides nothing. A phase that fails is said on the console and written down for the menu, and the boot goes on:
//! an operator at a menu can see what is wrong, an operator at a dead screen cannot.
//!
//! Who wants the machine off sends PID 1 `SIGUSR2`; who wants it to boot again sends `SIGTERM`; and the supervisor sends
//! `SIGHUP` when there is another `cluster.toml` to go by ([`crate::roster`]).

mod boot;
mod disks;
mod filter;
mod gateway;
mod kernel;
mod medium;
mod modules;
mod mounts;
mod report;
mod services;
mod shutdown;
mod site;
mod xen;

use std::io;
use std::process::ExitCode;
use std::time::Instant;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::WaitOptions;
use rustix::system::RebootCommand;

use boot::Boot;
pub(crate) use disks::{link as link_disks, serial};
pub(crate) use gateway::{NBD_CONFIGURATION, NBD_PID, NBD_SOCKET, fat_label, is_media, nbd_configuration};
pub(crate) use report::PROBLEMS;
use services::Services;
pub(crate) use site::{Site, incarnation};

/// Our own program, which is also the supervisor and the menu.
pub(crate) const HOLDFAST: &str = "/bin/holdfast";

/// Boots the machine and serves it until it goes off. Returns only where it is not PID 1 or cannot be told of signals.
pub(crate) fn run() -> ExitCode {
    if !rustix::process::getpid().is_init() {
        report::failure("`holdfast init` is PID 1's work");
        return ExitCode::from(2);
    }
    let signals = match take_signals() {
        Ok(signals) => signals,
        Err(error) => {
            report::failure(&format!("signals: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let mut boot = Boot::default();
    boot.run();
    serve(&signals, &mut boot)
}

/// Blocks the signals that are for init and makes a descriptor from which they are read.
fn take_signals() -> nix::Result<SignalFd> {
    let set: SigSet =
        [Signal::SIGCHLD, Signal::SIGUSR2, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// Reaps, restarts, and ends with the machine.
fn serve(signals: &SignalFd, boot: &mut Boot) -> ExitCode {
    loop {
        let services = &mut boot.services;
        reap(services);
        services.start_due(Instant::now());
        wait(signals, services.next_due());
        while let Ok(Some(signal)) = signals.read_signal() {
            match i32::try_from(signal.ssi_signo).map(Signal::try_from) {
                Ok(Ok(Signal::SIGUSR2)) => shutdown::run(&boot.services, RebootCommand::PowerOff),
                Ok(Ok(Signal::SIGTERM)) => shutdown::run(&boot.services, RebootCommand::Restart),
                Ok(Ok(Signal::SIGHUP)) => boot.configure(),
                _ => {}
            }
        }
    }
}

/// Sleeps until a signal comes or a service is due.
fn wait(signals: &SignalFd, due: Option<Instant>) {
    let timeout = due.map(|due| due.saturating_duration_since(Instant::now()));
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    // An interrupted or failed wait is an early look around, nothing worse.
    let _ = rustix::event::poll(&mut [PollFd::new(signals, PollFlags::IN)], timeout.as_ref());
}

/// Takes note of every child that has ended, ours or orphaned.
fn reap(services: &mut Services) {
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        services.ended(pid, status, Instant::now());
    }
}

/// What went wrong with what.
fn failed(what: &str) -> impl FnOnce(io::Error) -> String {
    move |error| format!("{what}: {error}")
}
