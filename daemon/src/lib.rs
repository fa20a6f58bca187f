//! The supervisor of a Holdfast node: one static binary, several applets.
//!
//! Which applet runs is decided by the name the program was started under (`init`, and the names under which Xen's
//! toolstack starts its hotplug programs), otherwise by its first argument.

mod boot_files;
mod bundle;
mod calendar;
mod carried;
#[cfg(test)]
mod cases;
mod confine;
mod firewall;
mod genetlink;
mod gfs2;
mod hotplug;
mod init;
mod join;
mod keys;
mod kmsg;
mod menu;
mod migrate;
mod nbd;
mod netlink;
mod netsetup;
mod roster;
mod rtnetlink;
mod seal;
mod secrets;
mod stream;
mod streams;
mod supervise;
mod sys;
mod volumes;
mod watchdog;
mod wireguard;
mod xenstore;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

/// Runs the applet that the command line asks for, to its end.
pub fn run() -> ExitCode {
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let called = words.next().unwrap_or_default();
    let called = Path::new(&called).file_name().map(OsString::from).unwrap_or_default();
    let arguments: Vec<String> = words.collect();
    match called.to_str() {
        Some(name @ ("init" | "vif-bridge" | "block" | "sh")) => applet(name, &arguments),
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
        "supervise" => supervise::run(),
        "menu" => menu::run(arguments),
        "join-key" => match join::public_key(arguments) {
            Ok(line) => {
                io::stdout().lock().write_all(line.as_bytes()).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
            }
            Err(error) => refuse(&error),
        },
        "boot-files" => boot_files::run(arguments),
        "vif-bridge" => hotplug::vif_bridge(arguments),
        "block" => hotplug::block(arguments),
        "nbd" => nbd::run(arguments),
        bundle::APPLET => bundle::run(),
        "pull" => migrate::pull(arguments),
        "sh" => migrate::sh(),
        "streams" => streams::run(),
        _ => refuse(&format!("there is no applet `{name}`")),
    }
}

/// Says what is wrong with the way the program was started.
fn refuse(text: &str) -> ExitCode {
    // In one piece: the kernel's log, where it may go, takes every write as a line. Nobody is told if that fails.
    let _ = io::stderr().lock().write_all(format!("holdfast: {text}\n").as_bytes());
    ExitCode::from(2)
}
