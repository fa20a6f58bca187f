//! The system calls for which no safe wrapper exists: the only unsafe code of this package.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::SigSet;
use rustix::fs::{Mode, OFlags};

/// How a service of init differs from init itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChildSetup {
    /// The kernel's `oom_score_adj`, -1000 (never) to 1000.
    pub(crate) oom_score_adj: i16,
    /// Whether standard input is to become the child's controlling terminal.
    pub(crate) terminal: bool,
}

/// Lets `command` start in a session of its own, with no signal blocked and as `setup` says.
pub(crate) fn set_up_child(command: &mut Command, setup: ChildSetup) {
    let score = setup.oom_score_adj.to_string();
    let prepare = move || -> io::Result<()> {
        SigSet::empty().thread_set_mask()?;
        rustix::process::setsid()?;
        if setup.terminal {
            // SAFETY: standard input is open: the caller gave the terminal as the command's standard input.
            let terminal = unsafe { BorrowedFd::borrow_raw(0) };
            rustix::process::ioctl_tiocsctty(terminal.as_fd())?;
        }
        let file = rustix::fs::open(
            "/proc/self/oom_score_adj",
            OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        rustix::io::write(file, score.as_bytes())?;
        Ok(())
    };
    // SAFETY: between fork and exec `prepare` makes system calls only; it takes no lock and allocates nothing.
    unsafe { command.pre_exec(prepare) };
}
