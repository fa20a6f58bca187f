//! Cleaning up after a rack that was killed itself.
//!
//! Machines die with their rack and the network namespace with the last of both, so what can be left is files, and, in
//! the worst case, a process. The rack's processes are therefore recorded with their start times: a process number that
//! was given to somebody else in the meantime is not touched.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The file of the record.
const RECORD: &str = "processes.json";
/// What the rack keeps when it ends: its logs.
const KEPT: &str = "log";

/// Where a rack's working files lie, inside its folder; nothing of it outlives the rack.
pub fn run_dir(dir: &Path) -> PathBuf {
    dir.join("run")
}

/// Records the rack's processes: this one, and the machines.
///
/// # Errors
/// The record cannot be written.
pub fn record(dir: &Path, machines: &[u32]) -> Result<()> {
    let processes: BTreeMap<u32, String> = std::iter::once(std::process::id())
        .chain(machines.iter().copied())
        .filter_map(|pid| Some((pid, start_time(pid)?)))
        .collect();
    Ok(fs::write(dir.join(RECORD), serde_json::to_vec(&processes)?)?)
}

/// The recorded processes that run, but for the calling one.
pub fn running(dir: &Path) -> Vec<u32> {
    // A record that is missing or cut short names nobody.
    let text = fs::read(dir.join(RECORD)).unwrap_or_default();
    let processes: BTreeMap<u32, String> = serde_json::from_slice(&text).unwrap_or_default();
    let runs = |(pid, start): &(u32, String)| *pid != std::process::id() && start_time(*pid).as_ref() == Some(start);
    processes.into_iter().filter(runs).map(|(pid, _)| pid).collect()
}

/// Ends what a rack left running, and removes all its files but the logs. Tells what it found.
///
/// # Errors
/// A file cannot be removed.
pub fn clean(dir: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for pid in running(dir) {
        let _ = kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL);
        found.push(format!("process {pid} ended"));
    }
    let Ok(entries) = fs::read_dir(dir) else {
        return Ok(found);
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            fs::remove_dir_all(&path)?;
        } else if path.extension().is_none_or(|extension| extension != KEPT) {
            fs::remove_file(&path)?;
        } else {
            continue;
        }
        found.push(format!("{} removed", path.display()));
    }
    Ok(found)
}

/// A process's start time, in clock ticks since the machine's boot; `None` if there is no such process.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // proc(5): the name is in parentheses and may hold anything; the start time is the 20th field after it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    // A zombie has ended, only nobody has asked how.
    fields.clone().next().filter(|state| *state != "Z")?;
    fields.nth(19).map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_recorded_process_is_ended_and_all_files_but_the_logs_go() {
        let dir = std::env::temp_dir().join(format!("holdfast-leftovers-{}", std::process::id()));
        fs::create_dir_all(run_dir(&dir)).unwrap();
        fs::write(run_dir(&dir).join("disk"), "x").unwrap();
        fs::write(dir.join("events.log"), "x").unwrap();
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let mut stranger = Command::new("sleep").arg("600").spawn().unwrap();
        record(&dir, &[child.id(), stranger.id()]).unwrap();
        // The stranger only has the number of a process that was recorded.
        let text = fs::read_to_string(dir.join(RECORD)).unwrap();
        let start = start_time(stranger.id()).unwrap();
        let other =
            text.replace(&format!("\"{}\":\"{start}\"", stranger.id()), &format!("\"{}\":\"1\"", stranger.id()));
        assert_ne!(text, other);
        fs::write(dir.join(RECORD), other).unwrap();

        clean(&dir).unwrap();

        assert!(!child.wait().unwrap().success(), "the machine still ran");
        assert!(stranger.try_wait().unwrap().is_none(), "a stranger was killed");
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        let left: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["events.log"]);
        fs::remove_dir_all(&dir).unwrap();
    }
}
