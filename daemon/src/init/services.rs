//! The processes that init keeps running.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use rustix::process::{Pid, WaitStatus};

use super::report;
use crate::confine::Foreign;
use crate::sys::{self, ChildSetup};

/// The pause after a first death; it doubles with every further one.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest pause: a supervisor must be back well before the watchdog's time is over.
const PAUSE_MAX: Duration = Duration::from_secs(4);
/// A service that ran for this long was well, and what came before no longer counts.
const WELL: Duration = Duration::from_secs(60);
/// How long a program that has gone into the background may take to say its process id.
const FORK: Duration = Duration::from_secs(5);
/// Between two looks for it.
const LOOK: Duration = Duration::from_millis(20);

/// What is done about a service that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnEnd {
    /// It is started again, later and later.
    Restart,
    /// It has one thing to do, and is started again, later and later, until it has done it.
    RestartUntilDone,
    /// Nothing can be done but to say so: `xenstored`'s state is gone with it.
    Report,
}

/// How a service is run.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    /// What it is called on the console.
    pub(super) name: String,
    /// The program.
    pub(super) program: &'static str,
    /// Its arguments.
    pub(super) arguments: Vec<String>,
    /// The terminal it talks on; a service without one writes to the kernel's log.
    pub(super) terminal: Option<String>,
    /// How readily the kernel ends it when memory runs out, -1000 (never) to 1000.
    pub(super) oom_score_adj: i16,
    /// What is done when it ends.
    pub(super) on_end: OnEnd,
    /// The file that a program which goes into the background writes its process id to.
    pub(super) forks: Option<&'static str>,
    /// The socket that it binds, and that must not be left over from an earlier life.
    pub(super) socket: Option<&'static str>,
    /// What a program of somebody else's that reads what strangers send is left with; our own see to that themselves.
    pub(super) confined: Option<fn() -> Result<Foreign, String>>,
}

/// How long to wait before a service is started again.
#[derive(Debug, Default)]
struct BackOff {
    deaths: u32,
}

impl BackOff {
    /// The pause after a life of `lived`.
    fn pause(&mut self, lived: Duration) -> Duration {
        if lived >= WELL {
            self.deaths = 0;
        }
        let pause = PAUSE_MIN.saturating_mul(1_u32.checked_shl(self.deaths).unwrap_or(u32::MAX));
        self.deaths = self.deaths.saturating_add(1);
        pause.min(PAUSE_MAX)
    }
}

/// Where a service stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running {
        pid: Pid,
        since: Instant,
        forked: bool,
    },
    /// It has gone into the background and its process id is looked for.
    Forking {
        since: Instant,
        look: Instant,
    },
    Due {
        at: Instant,
    },
    Over,
}

#[derive(Debug)]
struct Service {
    spec: Spec,
    state: State,
    back_off: BackOff,
}

/// All of them, in the order in which they were started.
#[derive(Debug, Default)]
pub(super) struct Services(Vec<Service>);

impl Services {
    /// Starts a service and keeps it.
    pub(super) fn start(&mut self, spec: Spec) {
        let now = Instant::now();
        let mut service = Service { spec, state: State::Due { at: now }, back_off: BackOff::default() };
        service.start(now);
        self.0.push(service);
    }

    /// Notes that process `pid` has ended; a process that is no service of ours was an orphan.
    pub(super) fn ended(&mut self, pid: Pid, status: WaitStatus, now: Instant) {
        let here = |service: &&mut Service| service.pid() == Some(pid);
        if let Some(service) = self.0.iter_mut().find(here) {
            service.ended(status, now);
        }
    }

    /// Does what is due: starts again what has ended, looks for what has gone into the background.
    pub(super) fn start_due(&mut self, now: Instant) {
        for service in &mut self.0 {
            match service.state {
                State::Due { at } if at <= now => service.start(now),
                State::Forking { since, look } if look <= now => service.look(since, now),
                State::Due { .. } | State::Forking { .. } | State::Running { .. } | State::Over => {}
            }
        }
    }

    /// When the next service is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let due = |service: &Service| match service.state {
            State::Due { at } | State::Forking { look: at, .. } => Some(at),
            State::Running { .. } | State::Over => None,
        };
        self.0.iter().filter_map(due).min()
    }

    /// Whether the service called `name` runs.
    pub(super) fn runs(&self, name: &str) -> bool {
        self.0.iter().any(|service| service.spec.name == name && service.pid().is_some())
    }

    /// Sends a signal to the service called `name`, if it runs.
    pub(super) fn signal(&self, name: &str, signal: Signal) {
        let pid = self.0.iter().filter(|service| service.spec.name == name).find_map(Service::pid);
        // It may have ended meanwhile; then it begins anew.
        let _ = pid.map(|pid| kill(nix::unistd::Pid::from_raw(pid.as_raw_nonzero().get()), signal));
    }

    /// The running services, the last started first.
    pub(super) fn running(&self) -> Vec<(String, Pid)> {
        let running = |service: &Service| Some((service.spec.name.clone(), service.pid()?));
        self.0.iter().rev().filter_map(running).collect()
    }
}

impl Service {
    fn pid(&self) -> Option<Pid> {
        match self.state {
            State::Running { pid, .. } => Some(pid),
            State::Due { .. } | State::Forking { .. } | State::Over => None,
        }
    }

    fn start(&mut self, now: Instant) {
        for leftover in [self.spec.forks, self.spec.socket].into_iter().flatten() {
            // What is not there cannot be removed, and what cannot be removed the program will complain about.
            let _ = fs::remove_file(leftover);
        }
        match spawn(&self.spec) {
            Ok(pid) => self.state = State::Running { pid, since: now, forked: false },
            Err(error) => self.end(&format!("cannot be started: {error}"), Duration::ZERO, now),
        }
    }

    fn ended(&mut self, status: WaitStatus, now: Instant) {
        let State::Running { since, forked, .. } = self.state else {
            return;
        };
        if self.spec.forks.is_some() && !forked && status.exit_status() == Some(0) {
            return self.look(since, now);
        }
        if self.spec.on_end == OnEnd::RestartUntilDone && status.exit_status() == Some(0) {
            self.state = State::Over;
            return report::problem(&format!("{} is done in the end", self.spec.name));
        }
        self.end(&format!("has ended: {}", how(status)), now.saturating_duration_since(since), now);
    }

    /// Looks for the process that has gone into the background, for as long as it may take to say who it is.
    fn look(&mut self, since: Instant, now: Instant) {
        let said = self.spec.forks.and_then(|file| fs::read_to_string(file).ok());
        let pid = said.and_then(|text| text.trim().parse().ok()).and_then(Pid::from_raw);
        match pid {
            Some(pid) => self.state = State::Running { pid, since, forked: true },
            None if now.saturating_duration_since(since) < FORK => {
                self.state = State::Forking { since, look: now + LOOK };
            }
            None => self.end("does not say its process id", Duration::ZERO, now),
        }
    }

    fn end(&mut self, what: &str, lived: Duration, now: Instant) {
        let name = &self.spec.name;
        match self.spec.on_end {
            OnEnd::Restart | OnEnd::RestartUntilDone => {
                let pause = self.back_off.pause(lived);
                let deaths = self.back_off.deaths;
                report::failure(&format!("{name} {what} ({deaths} in a row); again in {} ms", pause.as_millis()));
                self.state = State::Due { at: now + pause };
            }
            OnEnd::Report => {
                report::problem(&format!("{name} {what}; it cannot be started again while VMs run: move them away"));
                self.state = State::Over;
            }
        }
    }
}

/// How a process ended, in words.
fn how(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(0), _) => "it was done".to_owned(),
        (Some(code), _) => format!("exit code {code}"),
        (_, Some(signal)) => match Signal::try_from(signal) {
            Ok(Signal::SIGSYS) => "it was ended for a system call that is forbidden to it (SIGSYS)".to_owned(),
            signal => signal.map_or("an unknown signal", Signal::as_str).to_owned(),
        },
        (None, None) => "unknown".to_owned(),
    }
}

fn spawn(spec: &Spec) -> io::Result<Pid> {
    let [input, output, error] = streams(spec)?;
    let mut command = Command::new(spec.program);
    command.args(&spec.arguments).stdin(input).stdout(output).stderr(error).current_dir("/");
    command.env_clear().env("PATH", "/bin:/sbin:/usr/bin:/usr/sbin").env("HOME", "/").env("TERM", "vt100");
    let terminal = spec.terminal.is_some();
    sys::set_up_child(&mut command, ChildSetup { oom_score_adj: spec.oom_score_adj, terminal });
    if let Some(confined) = spec.confined {
        sys::confine_child(&mut command, confined().map_err(io::Error::other)?);
    }
    let child = command.spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| io::Error::other("the kernel gave a child no process id"))
}

/// Standard input, output and error of a service.
fn streams(spec: &Spec) -> io::Result<[Stdio; 3]> {
    let files: [File; 3] = match &spec.terminal {
        Some(path) => {
            // std opens files with O_CLOEXEC, and a session leader only adopts a terminal when it asks for it.
            let terminal = OpenOptions::new().read(true).write(true).open(path)?;
            [terminal.try_clone()?, terminal.try_clone()?, terminal]
        }
        None => [File::open("/dev/null")?, report::log()?, report::log()?],
    };
    Ok(files.map(Stdio::from))
}

#[cfg(test)]
mod tests;
