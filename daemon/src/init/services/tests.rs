use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitOptions};

use super::{BackOff, OnEnd, PAUSE_MAX, PAUSE_MIN, Services, Spec, WELL, how};

fn spec(program: &'static str, on_end: OnEnd) -> Spec {
    let (name, arguments) = ("it".to_owned(), Vec::new());
    Spec {
        name,
        program,
        arguments,
        terminal: None,
        oom_score_adj: 0,
        on_end,
        forks: None,
        socket: None,
        confined: None,
    }
}

#[test]
fn the_pause_doubles_up_to_its_limit() {
    let mut back_off = BackOff::default();
    let pauses: Vec<Duration> = (0..40).map(|_| back_off.pause(Duration::ZERO)).collect();
    assert_eq!(pauses[..4], [1, 2, 4, 8].map(|times| PAUSE_MIN * times));
    assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]));
    assert_eq!(pauses[39], PAUSE_MAX);
}

#[test]
fn a_long_life_clears_what_was_before() {
    let mut back_off = BackOff::default();
    for _ in 0..10 {
        back_off.pause(Duration::ZERO);
    }
    assert_eq!(back_off.pause(WELL), PAUSE_MIN);
}

#[test]
fn what_cannot_be_started_is_tried_again_later() {
    let mut services = Services::default();
    services.start(spec("/nonexistent/program", OnEnd::Restart));
    assert!(!services.runs("it"));
    let first = services.next_due().unwrap();
    services.start_due(first);
    assert!(services.next_due().unwrap() >= first + PAUSE_MIN * 2);
}

#[test]
fn what_only_is_reported_is_never_due() {
    let mut services = Services::default();
    services.start(spec("/nonexistent/program", OnEnd::Report));
    assert_eq!(services.next_due(), None);
    assert!(services.running().is_empty());
}

#[test]
#[expect(clippy::zombie_processes, reason = "waitpid takes it, as init does")]
fn an_orphan_is_nobody_s_death() {
    let mut services = Services::default();
    services.start(spec("/nonexistent/program", OnEnd::Restart));
    let due = services.next_due();
    let child = std::process::Command::new("true").spawn().unwrap();
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    let (pid, status) = rustix::process::waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap();
    services.ended(pid, status, Instant::now());
    assert_eq!(services.next_due(), due);
}

/// As the kernel ends whoever makes a call that [`confine`](crate::confine) forbids.
#[test]
#[expect(clippy::zombie_processes, reason = "waitpid takes it, as init does")]
fn a_forbidden_call_is_said_in_words() {
    let child = std::process::Command::new("/bin/sh").args(["-c", "kill -SYS $$"]).spawn().unwrap();
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    let (_, status) = rustix::process::waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(how(status), "it was ended for a system call that is forbidden to it (SIGSYS)");
}

#[test]
fn what_has_one_thing_to_do_is_over_when_it_is_done() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    let mut services = Services::default();
    let arguments = vec![file.display().to_string()];
    services.start(Spec { arguments, ..spec("/usr/bin/cat", OnEnd::RestartUntilDone) });
    let end = |services: &mut Services| {
        let (_, pid) = services.running().remove(0);
        let pid = Pid::from_raw(pid.as_raw_nonzero().get()).unwrap();
        let (pid, status) = rustix::process::waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap();
        services.ended(pid, status, Instant::now());
    };
    end(&mut services);
    let due = services.next_due().expect("it is tried again");
    std::fs::write(&file, "").unwrap();
    services.start_due(due);
    end(&mut services);
    assert_eq!(services.next_due(), None);
    assert!(!services.runs("it"));
}
