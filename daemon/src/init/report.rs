//! What init says: to the kernel's log, and so to the console, and to the file that the menu shows.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};

/// One line a problem that an operator should know of; the supervisor and the menu show it.
pub(crate) const PROBLEMS: &str = "/run/holdfast/problem";

/// Says how things go, to the kernel's log.
pub(super) fn progress(text: &str) {
    say(6, text);
}

/// Says that something has failed, on every console.
pub(super) fn failure(text: &str) {
    // Critical, as the kernel counts: it is shown whatever the command line keeps from the console.
    say(2, text);
}

/// Says that something has failed, and keeps it for the menu.
pub(super) fn problem(text: &str) {
    failure(text);
    let kept = OpenOptions::new().append(true).create(true).open(PROBLEMS);
    if let Err(error) = kept.and_then(|mut file| writeln!(file, "{text}")) {
        failure(&format!("{PROBLEMS}: {error}"));
    }
}

/// A file that takes a service's words into the kernel's log.
pub(super) fn log() -> io::Result<File> {
    OpenOptions::new().write(true).open("/dev/kmsg")
}

/// One record of the kernel's log, at syslog's `level`; to standard error before there is a kernel log.
fn say(level: u8, text: &str) {
    let line = format!("<{level}>holdfast: {text}\n");
    // The kernel takes a record in one write or not at all.
    if log().and_then(|mut log| log.write_all(line.as_bytes())).is_err() {
        let _ = writeln!(io::stderr().lock(), "holdfast: {text}");
    }
}
