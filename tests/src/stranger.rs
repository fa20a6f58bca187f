//! Strangers: programs that are not ours, run against what is.

use std::process::{Command, Stdio};

/// Runs a stranger's program to its end: its exit code (-1: a signal ended it), and what it said.
///
/// # Panics
/// It is not installed; the panic says which package has it.
#[must_use]
pub fn run(package: &str, program: &str, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; install Debian's package {package}"));
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
}
