//! The network disks: `/dev/gnbd/NAME` is there while something here needs it, and goes when nothing does.
//!
//! A disk is carried by a process of its own, `holdfast nbd NAME ADDRESS`, in a session of its own: it outlives the
//! supervisor. Which ones there are is read from `/proc`, never remembered. A disk is needed by the domains whose
//! backends name it, by the operations that hold it ([`Held`]), and always if it carries the shared file system.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use cluster::config::Config;
use cluster::words::Instant;
use rustix::process::{Pid, Signal, kill_process};

use super::clock::now;
use crate::init::HOLDFAST;
use crate::sys::{self, ChildSetup};

/// Where the disks appear.
const DIRECTORY: &str = "/dev/gnbd";
/// The export that carries the shared file system.
pub(super) const SHARED: &str = "shared";
/// Between two looks whether a disk has come.
const LOOK: Duration = Duration::from_millis(50);
/// Between two attempts to start a process that ends at once.
const AGAIN: Duration = Duration::from_secs(1);

/// All of this machine's network disks.
#[derive(Debug)]
pub(super) struct Disks {
    gateway: Option<Ipv4Addr>,
    hands: Mutex<Hands>,
}

/// What keeps disks here, besides domains.
#[derive(Debug, Default)]
struct Hands {
    /// How many operations hold a disk.
    held: BTreeMap<String, usize>,
    /// When an operation let go last: what was read before does not show the domain that it may have made.
    settled: Instant,
    /// Those of our own time, to be reaped.
    children: Vec<Child>,
}

/// Keeps disks here until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    disks: Arc<Disks>,
    names: Vec<String>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut hands = self.disks.hands();
        hands.settled = now();
        for name in &self.names {
            if let Some(count) = hands.held.get_mut(name) {
                *count = count.saturating_sub(1);
            }
        }
        hands.held.retain(|_, count| *count > 0);
    }
}

impl Disks {
    /// Those of the configuration's gateway.
    pub(super) fn new(config: &Config) -> Self {
        Self { gateway: config.gateway().map(|(_, node)| node.address), hands: Mutex::default() }
    }

    /// Has all of `names`, for as long as what is returned lives.
    ///
    /// # Errors
    /// Which one did not come before `deadline`, in words for the operator.
    pub(super) fn have(self: &Arc<Self>, names: &[String], deadline: Instant) -> Result<Held, String> {
        let held = self.hold(names);
        for name in names {
            self.bring(name, deadline)?;
        }
        Ok(held)
    }

    /// Lets every disk go that is not among the devices which were in use at a look that began at `began`, and that
    /// nothing else holds.
    pub(super) fn keep(&self, began: Instant, used: &BTreeSet<String>) {
        let mut hands = self.hands();
        hands.children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        if began <= hands.settled {
            return;
        }
        for (name, pid) in carriers(Path::new("/proc")) {
            let device = format!("{DIRECTORY}/{name}");
            if name != SHARED && !hands.held.contains_key(&name) && !used.contains(&device) {
                // It is gone already, or will be looked at again.
                let _ = kill_process(pid, Signal::TERM);
            }
        }
    }

    fn hold(self: &Arc<Self>, names: &[String]) -> Held {
        let mut hands = self.hands();
        for name in names {
            let count = hands.held.entry(name.clone()).or_default();
            *count = count.saturating_add(1);
        }
        Held { disks: Arc::clone(self), names: names.to_vec() }
    }

    /// Waits until a disk is there, and starts what carries it.
    fn bring(&self, name: &str, deadline: Instant) -> Result<(), String> {
        let device = Path::new(DIRECTORY).join(name);
        let mut again = Instant::ZERO;
        while now() < deadline {
            let carried = carriers(Path::new("/proc")).contains_key(name);
            if carried && device.exists() {
                return Ok(());
            }
            if !carried && again <= now() {
                again = now() + AGAIN;
                self.start(name, &device).map_err(|error| format!("disk {name}: {error}"))?;
            }
            thread::sleep(LOOK);
        }
        Err(format!("disk {name} did not come from the gateway"))
    }

    fn start(&self, name: &str, device: &PathBuf) -> io::Result<()> {
        let Some(gateway) = self.gateway else {
            return Err(io::Error::other("there is no gateway to export it"));
        };
        let mut hands = self.hands();
        // What a process left that could not clean up is not the disk.
        match fs::remove_file(device) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut command = Command::new(HOLDFAST);
        command.args(["nbd", name, &gateway.to_string()]).stdin(Stdio::null());
        let setup = ChildSetup { oom_score_adj: -1000, terminal: false };
        sys::set_up_child(&mut command, setup);
        hands.children.push(command.spawn()?);
        Ok(())
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The processes that carry network disks, by the disk.
fn carriers(proc: &Path) -> BTreeMap<String, Pid> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw)?;
            // A process that has ended has none.
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            Some((carried(&line)?, pid))
        })
        .collect()
}

/// The disk that a process carries, by its command line.
fn carried(line: &[u8]) -> Option<String> {
    let mut words = line.split(|&byte| byte == 0);
    let ours = words.next()?.ends_with(b"holdfast") && words.next()? == b"nbd";
    let name = words.next().filter(|_| ours)?;
    String::from_utf8(name.to_vec()).ok()
}

/// The names of the network disks among `devices`.
pub(super) fn names<'a>(devices: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let name = |device: &'a String| device.strip_prefix(DIRECTORY)?.strip_prefix('/').map(str::to_owned);
    devices.into_iter().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carriers_are_known_by_their_command_lines() {
        let directory = tempfile::tempdir().unwrap();
        let process = |pid: &str, line: &[u8]| {
            fs::create_dir(directory.path().join(pid)).unwrap();
            fs::write(directory.path().join(pid).join("cmdline"), line).unwrap();
        };
        process("12", b"/bin/holdfast\0nbd\0x0\x0010.77.0.1\0");
        process("13", b"/bin/holdfast\0supervise\0");
        process("14", b"");
        process("15", b"/usr/sbin/xl\0nbd\0x1\0");
        fs::write(directory.path().join("uptime"), "1").unwrap();
        let found = carriers(directory.path());
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [("x0".to_owned(), Pid::from_raw(12).unwrap())]);
    }

    #[test]
    fn only_network_disks_have_names() {
        let devices = ["/dev/gnbd/x0", "/dev/vda", "/dev/gnbdx"].map(str::to_owned);
        assert_eq!(names(&devices), ["x0"]);
    }
}
