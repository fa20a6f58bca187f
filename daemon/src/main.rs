//! The supervisor of a Holdfast node: one static binary, several applets.
//!
//! Which applet runs is decided by the name the program was started under (`init`, and the names under which Xen's
//! toolstack starts its hotplug programs), otherwise by its first argument.

mod hotplug;
mod init;
mod netsetup;
mod rtnetlink;
mod sys;
mod watchdog;
mod xenstore;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let called = words.next().unwrap_or_default();
    let called = Path::new(&called).file_name().map(OsString::from).unwrap_or_default();
    let arguments: Vec<String> = words.collect();
    match called.to_str() {
        Some(name @ ("init" | "vif-bridge" | "block")) => applet(name, &arguments),
        _ => match arguments.split_first() {
            Some((name, rest)) => applet(name, rest),
            None => refuse("which applet? Start it as `holdfast APPLET ...`"),
        },
    }
}

/// Runs one applet to its end.
fn applet(name: &str, arguments: &[String]) -> ExitCode {
    match name {
        "init" => init::run(),
        "vif-bridge" => hotplug::vif_bridge(arguments),
        "block" => hotplug::block(arguments),
        _ => refuse(&format!("there is no applet `{name}`")),
    }
}

/// Says what is wrong with the way the program was started.
fn refuse(text: &str) -> ExitCode {
    // Where even this cannot be written there is nobody to tell.
    let _ = writeln!(io::stderr().lock(), "holdfast: {text}");
    ExitCode::from(2)
}
