//! The network disks: `/dev/gnbd/NAME` is there while something here needs it, and goes when nothing does.
//!
//! A disk is carried by a process of its own, `holdfast nbd NAME ADDRESS`, in a session of its own: it outlives the
//! supervisor. Which ones there are is read from `/proc`, never remembered. A disk is needed by the domains whose
//! backends name it, by the operations that hold it ([`Held`]), and always if it carries the shared file system.
//!
//! What a VM may write to is claimed at the gateway first, all of a VM's disks at once. What carries a disk under an older
//! claim has lost it by that, and makes room.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use cluster::config::{Config, SHARED};
use cluster::words::Instant;
use rustix::process::{Pid, Signal, kill_process};

use super::clock::now;
use crate::init::HOLDFAST;
use crate::nbd::condition::{Bulletin, Condition};
use crate::nbd::{self, Title};
use crate::stream::Service;
use crate::streams::Member;
use crate::streams::claims::Refusal;
use crate::streams::storage::Claiming;
use crate::sys::{self, ChildSetup};

/// Where the disks appear.
const DIRECTORY: &str = "/dev/gnbd";
/// Between two looks whether a disk has come.
const LOOK: Duration = Duration::from_millis(50);
/// Between two attempts to start a process that ends at once.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two looks at what carries disks if nothing tells that it has changed: every process is asked for its command line.
const CARRIERS: Duration = Duration::from_secs(5);

/// All of this machine's network disks.
#[derive(Debug)]
pub(super) struct Disks {
    gateway: Option<Ipv4Addr>,
    /// Those that nobody can write to, and that need no claim.
    only_read: BTreeSet<String>,
    hands: Mutex<Hands>,
}

/// What carries a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Carrier {
    pid: Pid,
    /// By what, if it needs that.
    title: Option<Title>,
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
    /// What was last said of a disk's condition.
    said: BTreeMap<String, Condition>,
    /// When a carrier may be started again in place of one that was ended by force.
    revive: Instant,
    /// The devices that were in use when the carriers were looked at last.
    used: BTreeSet<String>,
    /// When they are looked at again, if nothing changes.
    look: Instant,
}

/// What is new about the disks.
#[derive(Debug, Default)]
pub(super) struct News {
    /// For the event log.
    pub(super) said: Vec<String>,
    /// Whether a domain here has lost its disk.
    pub(super) lost: bool,
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
        hands.look = Instant::ZERO;
        for name in &self.names {
            if let Some(count) = hands.held.get_mut(name) {
                *count = count.saturating_sub(1);
            }
        }
        hands.held.retain(|_, count| *count > 0);
    }
}

impl Hands {
    /// Whether the carriers are to be looked at: it is time to, or one of our own has ended, or other devices are in use.
    fn are_to_look(&mut self, began: Instant, used: &BTreeSet<String>) -> bool {
        let before = self.children.len();
        self.children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        let changed = self.children.len() < before || self.used != *used;
        if changed {
            self.look = Instant::ZERO;
        }
        // What was read before an operation let go does not count.
        began > self.settled && began >= self.look
    }
}

impl Disks {
    /// Those of the configuration's gateway.
    pub(super) fn new(config: &Config) -> Self {
        let only_read = config.exports.iter().filter(|export| export.read_only);
        Self {
            gateway: config.gateway().map(|(_, node)| node.address),
            only_read: only_read.map(|export| export.name.clone()).collect(),
            hands: Mutex::default(),
        }
    }

    /// Has a disk that needs no claim, for as long as what is returned lives: nobody can write to it, or it carries the shared
    /// file system.
    ///
    /// # Errors
    /// It did not come before `deadline`, in words for the operator.
    pub(super) fn have_unclaimed(self: &Arc<Self>, name: &str, deadline: Instant) -> Result<Held, String> {
        let held = self.hold(&[name.to_owned()]);
        self.bring(name, None, deadline)?;
        Ok(held)
    }

    /// Claims those of `names` that can be written to, and has all of them, for as long as what is returned lives. A VM that
    /// comes alive from a node goes on using them there until it runs here.
    ///
    /// # Errors
    /// Why the gateway refuses a claim, or which disk did not come before `deadline`, in words for the operator.
    pub(super) fn have(
        self: &Arc<Self>,
        names: &[String],
        title: &Title,
        from: Option<&str>,
        deadline: Instant,
    ) -> Result<Held, String> {
        let held = self.hold(names);
        let claimed: Vec<String> = names.iter().filter(|name| !self.only_read.contains(*name)).cloned().collect();
        if !claimed.is_empty() {
            self.claim(claimed, title, from, deadline)?;
        }
        for name in names {
            let title = Some(title).filter(|_| !self.only_read.contains(name));
            self.bring(name, title, deadline)?;
        }
        Ok(held)
    }

    /// Claims disks, again and again while another's requests to them are in flight or the gateway is not there.
    fn claim(&self, disks: Vec<String>, title: &Title, from: Option<&str>, deadline: Instant) -> Result<(), String> {
        let gateway = self.gateway.ok_or("there is no gateway to claim disks from")?;
        let member = Member::read()?;
        let claimant = title.claimant(member.boot());
        let service = Service::Claim(Claiming { disks, claimant, from: from.map(str::to_owned) });
        loop {
            let Err(error) = member.connect(gateway, &service) else {
                return Ok(());
            };
            let refusal = error.get_ref().and_then(|inner| inner.downcast_ref::<Refusal>());
            let for_good = refusal.is_some_and(|refusal| refusal.is_final() || matches!(refusal, Refusal::Missing(_)));
            if for_good || now() + AGAIN >= deadline {
                return Err(if refusal.is_some() { error.to_string() } else { format!("the gateway: {error}") });
            }
            thread::sleep(AGAIN);
        }
    }

    /// Lets every disk go that is not among the devices which were in use at a look that began at `began`, and that
    /// nothing else holds.
    pub(super) fn keep(&self, began: Instant, used: &BTreeSet<String>) {
        let mut hands = self.hands();
        if !hands.are_to_look(began, used) {
            return;
        }
        let carried = carriers(Path::new("/proc"));
        let let_go = |(name, _): &(&String, &Carrier)| {
            let device = format!("{DIRECTORY}/{name}");
            *name != SHARED && !hands.held.contains_key(*name) && !used.contains(&device)
        };
        let ending: Vec<Pid> = carried.iter().filter(let_go).map(|(_, carrier)| carrier.pid).collect();
        for pid in &ending {
            // It is gone already, or will be looked at again.
            let _ = kill_process(*pid, Signal::TERM);
        }
        let orphans = orphans(&names(used), &carried);
        if !orphans.is_empty() && began >= hands.revive {
            hands.revive = now() + AGAIN;
            for (name, title) in &orphans {
                // It is looked at again.
                let _ = self.start(&mut hands, name, title.as_ref());
            }
        }
        let settled = ending.is_empty() && orphans.is_empty();
        hands.look = began + if settled { CARRIERS } else { AGAIN };
        hands.used.clone_from(used);
    }

    /// What has changed about the disks that domains use, and about that of the shared file system.
    pub(super) fn news(&self, used: &BTreeSet<String>) -> News {
        let mut hands = self.hands();
        let mut news = News::default();
        let in_use = names(used);
        hands.said.retain(|name, _| in_use.contains(name) || name == SHARED);
        for name in in_use.iter().map(String::as_str).chain([SHARED]) {
            let Some(condition) = Bulletin::of(name).read() else { continue };
            news.lost |= name != SHARED && matches!(condition, Condition::Lost(_));
            let before = hands.said.insert(name.to_owned(), condition.clone());
            news.said.extend(said(name, before.as_ref(), &condition));
        }
        news
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
    fn bring(&self, name: &str, title: Option<&Title>, deadline: Instant) -> Result<(), String> {
        let device = Path::new(DIRECTORY).join(name);
        let (mut again, mut started, mut why) = (Instant::ZERO, false, "it is not known why".to_owned());
        while now() < deadline {
            let found = carriers(Path::new("/proc")).remove(name);
            let ours = found.as_ref().is_some_and(|carrier| carrier.title.as_ref() == title);
            if ours && device.exists() {
                return Ok(());
            }
            match found {
                // Under its claim it reaches the disk no more. It may have ended by itself.
                Some(carrier) if !ours => drop(kill_process(carrier.pid, Signal::TERM)),
                None if again <= now() => {
                    again = now() + AGAIN;
                    self.start(&mut self.hands(), name, title).map_err(|error| format!("disk {name}: {error}"))?;
                    started = true;
                }
                Some(_) | None => {}
            }
            thread::sleep(LOOK);
            // What another carrier told before is not of this one.
            match Bulletin::of(name).read().filter(|_| started) {
                Some(Condition::Taken(reason) | Condition::Lost(reason)) => return Err(reason),
                Some(Condition::Waits(reason) | Condition::Failed(reason)) => why = reason,
                Some(Condition::Carried) | None => {}
            }
        }
        Err(format!("disk {name} did not come from the gateway: {why}"))
    }

    fn start(&self, hands: &mut Hands, name: &str, title: Option<&Title>) -> io::Result<()> {
        let Some(gateway) = self.gateway else {
            return Err(io::Error::other("there is no gateway to export it"));
        };
        Bulletin::of(name).remove();
        // What a process left that could not clean up is not the disk.
        match fs::remove_file(Path::new(DIRECTORY).join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut command = Command::new(HOLDFAST);
        command.args(["nbd", name, &gateway.to_string()]).stdin(Stdio::null());
        command.args(title.iter().flat_map(|title| title.words()));
        let setup = ChildSetup { oom_score_adj: -1000, terminal: false };
        sys::set_up_child(&mut command, setup);
        hands.children.push(command.spawn()?);
        Ok(())
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The disks in use whose carriers were ended by force: their devices still say what they are. A disk that was given up is
/// not one, though its device stays for as long as a domain has it.
fn orphans(in_use: &[String], carried: &BTreeMap<String, Carrier>) -> Vec<(String, Option<Title>)> {
    let given_up = |name: &str| matches!(Bulletin::of(name).read(), Some(Condition::Taken(_) | Condition::Lost(_)));
    let orphan = |name: &&String| !carried.contains_key(*name) && !given_up(name);
    let orphans: BTreeSet<&String> = in_use.iter().filter(orphan).collect();
    // There hardly ever is one, and every device would have to be asked.
    let here = if orphans.is_empty() { Vec::new() } else { nbd::here() };
    here.into_iter().filter(|(name, _)| orphans.contains(name)).collect()
}

/// What the event log is to say of a disk's condition, if that is new. That a disk is another's by now is no news: the VM
/// has moved on.
fn said(name: &str, before: Option<&Condition>, now: &Condition) -> Option<String> {
    match now {
        _ if before == Some(now) => None,
        Condition::Waits(why) => Some(format!("disk {name} has no connection to the gateway, and waits: {why}")),
        Condition::Lost(why) => Some(format!("disk {name} is lost: {why}")),
        Condition::Carried if matches!(before, Some(Condition::Waits(_))) => {
            Some(format!("disk {name} is connected again"))
        }
        Condition::Carried | Condition::Taken(_) | Condition::Failed(_) => None,
    }
}

/// The processes that carry network disks, by the disk.
fn carriers(proc: &Path) -> BTreeMap<String, Carrier> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw)?;
            // A process that has ended has none.
            let line = String::from_utf8(fs::read(entry.path().join("cmdline")).ok()?).ok()?;
            let (name, title) = carried(&line)?;
            Some((name, Carrier { pid, title }))
        })
        .collect()
}

/// The disk that a process carries, and by what, as its command line says.
fn carried(line: &str) -> Option<(String, Option<Title>)> {
    let words: Vec<&str> = line.split_terminator('\0').collect();
    match words.as_slice() {
        [program, "nbd", name, _address, title @ ..] if program.ends_with("holdfast") => {
            Some(((*name).to_owned(), Title::parse(title)))
        }
        _ => None,
    }
}

/// The names of the network disks among `devices`.
pub(super) fn names<'a>(devices: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let name = |device: &'a String| device.strip_prefix(DIRECTORY)?.strip_prefix('/').map(str::to_owned);
    devices.into_iter().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use cluster::words::{Claim, Generation, VmName};

    use super::*;

    #[test]
    fn carriers_are_known_by_their_command_lines() {
        let directory = tempfile::tempdir().unwrap();
        let process = |pid: &str, line: &[u8]| {
            fs::create_dir(directory.path().join(pid)).unwrap();
            fs::write(directory.path().join(pid).join("cmdline"), line).unwrap();
        };
        process("12", b"/bin/holdfast\0nbd\0x0\x0010.77.0.1\0");
        process("16", b"/bin/holdfast\0nbd\0x2\x0010.77.0.1\0web\x003\x0017\0");
        process("13", b"/bin/holdfast\0supervise\0");
        process("14", b"");
        process("15", b"/usr/sbin/xl\0nbd\0x1\0");
        fs::write(directory.path().join("uptime"), "1").unwrap();
        let found = carriers(directory.path());
        let claim = Claim { epoch: 3, generation: Generation(17) };
        let title = Title { vm: VmName::new("web").unwrap(), claim };
        let carrier = |pid, title| Carrier { pid: Pid::from_raw(pid).unwrap(), title };
        let expected = [("x0".to_owned(), carrier(12, None)), ("x2".to_owned(), carrier(16, Some(title)))];
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn carriers_are_looked_at_when_something_has_changed() {
        let at = |ms: u64| Instant::from_millis(60_000 + ms);
        let used = BTreeSet::from(["/dev/gnbd/x0".to_owned()]);
        let mut hands = Hands::default();
        let look = |hands: &mut Hands, ms, used: &BTreeSet<String>| {
            let looks = hands.are_to_look(at(ms), used);
            if looks {
                (hands.look, hands.used) = (at(ms) + CARRIERS, used.clone());
            }
            looks
        };
        assert!(look(&mut hands, 0, &used), "never looked at");
        assert!(!look(&mut hands, 500, &used));
        assert!(look(&mut hands, 1_000, &BTreeSet::new()), "a domain has let its disk go");
        assert!(!look(&mut hands, 1_500, &BTreeSet::new()));
        hands.children.push(Command::new("true").spawn().unwrap());
        hands.children.iter_mut().for_each(|child| drop(child.wait()));
        (hands.settled, hands.look) = (at(2_000), at(9_000));
        assert!(!look(&mut hands, 1_999, &BTreeSet::new()), "what was read before an operation let go");
        assert!(look(&mut hands, 2_500, &BTreeSet::new()), "one has ended, and is looked at by what was read after it");
        assert!(!look(&mut hands, 7_499, &BTreeSet::new()));
        assert!(look(&mut hands, 7_500, &BTreeSet::new()), "others may have ended unseen");
    }

    #[test]
    fn a_condition_is_said_when_it_is_news() {
        let waits = |why: &str| Condition::Waits(why.to_owned());
        let taken = Condition::Taken("it is node2's".to_owned());
        let lost = Condition::Lost("it was barred".to_owned());
        for (before, now, expected) in [
            (None, Condition::Carried, None),
            (Some(Condition::Carried), waits("cut"), Some("disk x0 has no connection to the gateway, and waits: cut")),
            (Some(waits("cut")), waits("cut"), None),
            (Some(waits("cut")), Condition::Carried, Some("disk x0 is connected again")),
            (Some(waits("cut")), lost.clone(), Some("disk x0 is lost: it was barred")),
            (Some(lost.clone()), lost, None),
            (Some(Condition::Carried), taken, None),
        ] {
            assert_eq!(said("x0", before.as_ref(), &now).as_deref(), expected, "{before:?} -> {now:?}");
        }
    }

    #[test]
    fn only_network_disks_have_names() {
        let devices = ["/dev/gnbd/x0", "/dev/vda", "/dev/gnbdx"].map(str::to_owned);
        assert_eq!(names(&devices), ["x0"]);
    }
}
