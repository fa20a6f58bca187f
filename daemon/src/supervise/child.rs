//! A program that is waited for until a deadline, and what it said.
//!
//! It runs in a session of its own and writes to memory that is nobody's but its own: a supervisor that ends harms
//! neither, and a background process that it leaves keeps nobody waiting.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::process::{Child, Command, Stdio};

use cluster::words::Instant;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::clock::{now, until};
use crate::sys::{self, ChildSetup};

/// Bytes of what it said that are read.
const SAID_BYTES: u64 = 256 * 1024;
/// Lines of what it said that an operator is shown.
const SHOWN: usize = 3;

/// Xen's toolstack.
pub(super) const XL: &str = "/usr/lib/xen-4.17/bin/xl";

/// Runs `xl` to its end.
///
/// # Errors
/// As [`run`].
pub(crate) fn xl(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>, deadline: Instant) -> Result<String, String> {
    let mut command = Command::new(XL);
    command.args(arguments).stdin(Stdio::null());
    run(command, deadline)
}

/// Runs `command` to its end.
///
/// # Errors
/// Why it failed, in words for the operator: its own, if it said any. At the deadline it is ended, and with it
/// all of its process group.
pub(crate) fn run(command: Command, deadline: Instant) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |error: io::Error| format!("{program}: {error}");
    let (mut child, mut output) = start(command).map_err(failed)?;
    let in_time = wait(&child, deadline).map_err(failed)?;
    let status = child.wait().map_err(failed)?;
    let said = read(&mut output).map_err(failed)?;
    if in_time && status.success() {
        return Ok(said);
    }
    let lines = telling_lines(&said);
    let how = if in_time { status.to_string() } else { "it took too long".to_owned() };
    Err(if lines.is_empty() { format!("{program}: {how}") } else { format!("{how}: {lines}") })
}

fn start(mut command: Command) -> io::Result<(Child, File)> {
    let output = File::from(rustix::fs::memfd_create("said", MemfdFlags::CLOEXEC)?);
    command.stdout(Stdio::from(output.try_clone()?)).stderr(Stdio::from(output.try_clone()?));
    let setup = ChildSetup { oom_score_adj: 0, terminal: false };
    sys::set_up_child(&mut command, setup);
    Ok((command.spawn()?, output))
}

/// Whether it ended before the deadline. After this it has ended.
fn wait(child: &Child, deadline: Instant) -> io::Result<bool> {
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else {
        return Err(io::Error::other("the kernel gave a child no process id"));
    };
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let ended = |fds: &mut [PollFd<'_>]| fds.iter().any(|fd| fd.revents().contains(PollFlags::IN));
    while now() < deadline {
        let mut fds = [PollFd::new(&process, PollFlags::IN)];
        super::wait(&mut fds, Some(until(deadline)));
        if ended(&mut fds) {
            return Ok(true);
        }
    }
    // Its process group is its own, because its session is.
    kill_process_group(pid, Signal::KILL)?;
    Ok(false)
}

fn read(output: &mut File) -> io::Result<String> {
    output.rewind()?;
    let mut said = Vec::new();
    output.take(SAID_BYTES).read_to_end(&mut said)?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// The lines that tell most of what went wrong, in one: the first that speak of an error, for what follows comes of it; where none
/// does, the last.
fn telling_lines(said: &str) -> String {
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    let errors: Vec<&str> = lines().filter(|line| line.contains("error")).take(SHOWN).collect();
    let skipped = lines().count().saturating_sub(SHOWN);
    if errors.is_empty() { lines().skip(skipped).collect::<Vec<_>>().join("; ") } else { errors.join("; ") }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    fn soon() -> Instant {
        now() + Duration::from_secs(20)
    }

    #[test]
    fn it_says_what_the_program_said() {
        assert_eq!(run(shell("echo a; echo b >&2"), soon()).as_deref(), Ok("a\nb\n"));
        let failure = run(shell("echo one; echo two; echo three; echo; echo four; exit 3"), soon());
        assert_eq!(failure, Err("exit status: 3: two; three; four".to_owned()));
        let failure = run(shell("echo go; echo 'xc: error: no'; echo so; echo 'libxl: error: so'; exit 1"), soon());
        assert_eq!(failure, Err("exit status: 1: xc: error: no; libxl: error: so".to_owned()));
        assert!(run(Command::new("/no/such/program"), soon()).unwrap_err().starts_with("/no/such/program: "));
    }

    #[test]
    fn a_background_process_keeps_nobody_waiting() {
        assert_eq!(run(shell("echo done; exec sleep 20 & true"), soon()).as_deref(), Ok("done\n"));
    }

    #[test]
    fn at_the_deadline_it_is_ended_with_its_children() {
        let began = now();
        let ended = run(shell("sleep 600 & echo $!; wait"), began + Duration::from_millis(300));
        let text = ended.unwrap_err();
        assert!(now().since(began) < Duration::from_secs(10));
        let grandchild = text.strip_prefix("it took too long: ").unwrap();
        // Whoever inherits it may take its time to reap it.
        let alive =
            || std::fs::read_to_string(format!("/proc/{grandchild}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        while alive() {
            assert!(now() < soon());
            std::thread::yield_now();
        }
    }
}
