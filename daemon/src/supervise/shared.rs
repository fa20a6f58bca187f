//! The shared file system, where it is GFS2: carries out what the core orders about the kernel's lockspace, and tells how that
//! stands.
//!
//! Every write to the kernel happens under one lock, by the newest order: an older one that is still open ends at its next
//! step. A mount and an unmount wait in the kernel, in threads of their own, for as long as it takes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use cluster::config::{FileSystem, SHARED};
use cluster::event::{Event, LockspaceOrder, SharedState};
use cluster::words::{Edition, Incarnation, Instant, LockEpoch, Role, Slot};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use serde::{Deserialize, Serialize};

use super::clock::{now, until};
use super::lockspace::{Leaving, Lockspace, has_withdrawn, recovers_journals};
use super::mailbox::{Post, Told};
use super::run::servant;
use super::site::Site;
use super::storage::Disks;
use crate::gfs2::{self, MOUNT, check_superblock, is_mounted};
use crate::kmsg::{self, KMSG};
use crate::roster::Current;
use crate::secrets::Key;
use crate::wireguard;

/// Where the order that was obeyed last is written down, for a supervisor that is started again.
const RECORD: &str = "/run/holdfast/lockspace";
/// How much later than an order's deadline it is known that the kernel does not come back from it.
const GRACE: Duration = Duration::from_secs(2);
/// What becomes of an order when a newer one has come.
const OVERTAKEN: &str = "a newer order has come";
/// How long an unmount waits for journals that are recovered.
const RECOVERED: Duration = Duration::from_secs(20);
/// How long a lockspace that is to be held waits for an unmount. One that hangs needs it to be held, and run without whoever has gone.
const TAKEN_APART: Duration = Duration::from_secs(3);
/// How the file system is mounted.
const FLAGS: MountFlags =
    MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC).union(MountFlags::NOATIME);
/// Between two looks at the kernel while something is awaited.
const LOOK: Duration = Duration::from_millis(50);
/// Between two looks otherwise.
const WATCH: Duration = Duration::from_secs(1);

/// The shared file system of this machine.
#[derive(Debug)]
pub(super) struct Shared {
    current: Arc<Current>,
    own: Slot,
    /// The cluster's key, of which the tunnels' are derived.
    key: Mutex<Key>,
    kernel: Lockspace,
    post: Post,
    disks: Arc<Disks>,
    record: PathBuf,
    desk: Mutex<Desk>,
}

#[derive(Debug, Default)]
struct Desk {
    /// Counts orders, and what ends them: the newest one's is this.
    ticket: u64,
    /// How many orders to hold or to run have come.
    orders: u64,
    /// The edition of `cluster.toml` whose nodes the lock manager's tunnels lead to.
    tunnels: Option<Edition>,
    mounting: Mounting,
    /// Whether the kernel is taking the file system apart.
    unmounting: bool,
    /// What the node was told last.
    told: Option<SharedState>,
}

/// A mount that this supervisor has begun.
#[derive(Clone, Debug, Default)]
enum Mounting {
    #[default]
    Idle,
    /// It waits in the kernel.
    Waits,
    Failed(String),
}

impl Mounting {
    /// Why it failed, once. One that waits goes on waiting.
    fn take_failure(&mut self) -> Option<String> {
        match self {
            Self::Failed(reason) => {
                let reason = std::mem::take(reason);
                *self = Self::Idle;
                Some(reason)
            }
            Self::Idle | Self::Waits => None,
        }
    }
}

/// The order that was obeyed last. It stays when the file system is let go of: this boot's kernel has met its peers all the same.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Record {
    epoch: LockEpoch,
    running: bool,
    /// Whether the file system was let go of since. The kernel may still be about to give its lockspace up: then it is none any more,
    /// and whoever would stop it waited for ever, for the kernel's thread that would do it has ended (Linux `fs/dlm/lockspace.c`).
    left: bool,
    /// Which boot of each node the kernel has met.
    peers: BTreeMap<Slot, Incarnation>,
}

impl Shared {
    /// Begins to tell how the file system stands; `None` where it is not GFS2, or not for this machine.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn start(site: &Site, key: Key, post: Post, disks: Arc<Disks>) -> Result<Option<Arc<Self>>, String> {
        if site.config().shared != FileSystem::Gfs2 || site.me().role != Role::Node {
            return Ok(None);
        }
        let shared = Arc::new(Self {
            current: Arc::clone(&site.current),
            own: site.slot,
            key: Mutex::new(key),
            kernel: Lockspace::new(),
            post,
            disks,
            record: RECORD.into(),
            desk: Mutex::default(),
        });
        let watched = Arc::clone(&shared);
        servant("shared", move || {
            loop {
                watched.tell(&mut watched.desk());
                thread::sleep(WATCH);
            }
        })?;
        Ok(Some(shared))
    }

    /// Carries an order out, in a thread of its own: what the kernel does not come back from must not hang whoever asks.
    ///
    /// # Errors
    /// Why it could not be, in words for the operator.
    pub(super) fn obey(self: &Arc<Self>, order: LockspaceOrder, deadline: Instant) -> Result<String, String> {
        let (shared, (ended, end)) = (Arc::clone(self), mpsc::channel());
        servant("order to the shared file system", move || {
            let result = match order {
                LockspaceOrder::Hold { epoch, boots } => shared.hold(epoch, &boots),
                LockspaceOrder::Run { epoch, members, mount } => shared.run(epoch, &members, mount, deadline),
                LockspaceOrder::LetGo => shared.let_go(deadline),
            };
            // Nobody may be waiting any more.
            let _ = ended.send(result);
        })?;
        let result = end.recv_timeout(until(deadline) + GRACE);
        result.unwrap_or_else(|_| Err(with_the_kernels_word("the kernel does not come back"))).map(|()| String::new())
    }

    fn hold(&self, epoch: LockEpoch, boots: &[(Slot, Incarnation)]) -> Result<(), String> {
        let mut desk = self.desk();
        desk.ticket += 1;
        desk.orders += 1;
        let (order, end) = (desk.orders, now() + TAKEN_APART);
        while desk.unmounting && now() < end {
            drop(desk);
            thread::sleep(LOOK);
            desk = self.desk();
            if desk.orders != order {
                return Err(OVERTAKEN.to_owned());
            }
        }
        let mut record = self.recorded().unwrap_or_default();
        record.left &= self.kernel.is_there();
        if !record.left {
            if self.kernel.is_there() {
                self.kernel.stop().map_err(|error| error.to_string())?;
            }
            self.forget_all_but(&mut record, boots)?;
        }
        self.write(&Record { epoch, running: false, ..record })?;
        self.tell(&mut desk);
        Ok(())
    }

    fn run(
        self: &Arc<Self>,
        epoch: LockEpoch,
        members: &[(Slot, Incarnation)],
        mount: bool,
        deadline: Instant,
    ) -> Result<(), String> {
        let ticket = {
            let mut desk = self.desk();
            desk.orders += 1;
            desk.ticket += 1;
            desk.ticket
        };
        let left = || self.recorded().is_some_and(|record| record.left) && self.kernel.is_there();
        self.step(ticket, deadline, "the kernel does not give the old lockspace up", |_| !left())?;
        {
            let mut desk = self.desk();
            newest(&desk, ticket)?;
            let mut record = self.recorded().unwrap_or_default();
            self.forget_all_but(&mut record, members)?;
            record.peers.extend(members.iter().copied());
            self.write(&Record { epoch, running: true, left: false, ..record })?;
            let config = self.current.get();
            if desk.tunnels != Some(config.edition) {
                self.dig(&mut desk)?;
            }
            self.prepare(members)?;
        }
        if !self.kernel.is_there() {
            if !mount {
                return Err("the kernel has no lockspace any more".to_owned());
            }
            self.begin_mount(ticket, deadline)?;
        }
        self.step(ticket, deadline, "the file system does not ask for its lockspace", |_| self.kernel.is_there())?;
        {
            let desk = self.desk();
            newest(&desk, ticket)?;
            self.kernel.start().map_err(|error| error.to_string())?;
        }
        self.finish(ticket, deadline, mount)
    }

    /// Waits until the lockspace runs, and the mount is done if it is to be mounted.
    fn finish(&self, ticket: u64, deadline: Instant, mount: bool) -> Result<(), String> {
        let done = |desk: &Desk| !mount || !matches!(desk.mounting, Mounting::Waits) && is_mounted();
        self.step(ticket, deadline, "the lockspace does not recover", |_| self.kernel.has_recovered())
            .and_then(|()| self.step(ticket, deadline, "the lockspace has recovered, but the mount is not done", done))
            .map_err(|reason| with_the_kernels_word(&reason))
    }

    /// Makes the tunnels, to the nodes that there are now and by the key of now.
    fn dig(&self, desk: &mut Desk) -> Result<(), String> {
        let (config, key) = (self.current.get(), self.key.lock().unwrap_or_else(PoisonError::into_inner).clone());
        wireguard::set_up(&config, self.own, &key).map_err(|error| format!("{}: {error}", wireguard::INTERFACE))?;
        desk.tunnels = Some(config.edition);
        Ok(())
    }

    /// The members speak by another key: tunnels that are there change theirs. What is on its way through them is sent again.
    pub(super) fn rekey(self: &Arc<Self>, key: &Key) {
        *self.key.lock().unwrap_or_else(PoisonError::into_inner) = key.clone();
        let shared = Arc::clone(self);
        // An order may be under way, which the loop does not wait for.
        let digs = servant("tunnels", move || {
            let mut desk = shared.desk();
            let dug = if desk.tunnels.is_some() { shared.dig(&mut desk) } else { Ok(()) };
            dug.unwrap_or_else(|error| shared.post.tell(Told::Said(error)));
        });
        digs.unwrap_or_else(|error| self.post.tell(Told::Said(error)));
    }

    /// Everything that must be so before the lockspace starts.
    fn prepare(&self, members: &[(Slot, Incarnation)]) -> Result<(), String> {
        let slots: Vec<Slot> = members.iter().map(|(slot, _)| *slot).collect();
        let written = || {
            self.kernel.introduce(&self.current.get().name, (self.own, wireguard::address(self.own)))?;
            slots.iter().try_for_each(|slot| self.kernel.meet(*slot, wireguard::address(*slot)).map(drop))?;
            self.kernel.set_members(&slots)
        };
        written().map_err(|error| error.to_string())
    }

    /// Has the kernel forget every node that it met in another boot than one of these.
    fn forget_all_but(&self, record: &mut Record, boots: &[(Slot, Incarnation)]) -> Result<(), String> {
        for (slot, boot) in std::mem::take(&mut record.peers) {
            if slot == self.own || boots.contains(&(slot, boot)) {
                record.peers.insert(slot, boot);
            } else {
                self.kernel.forget(slot).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    /// Begins to mount, unless that is on its way.
    fn begin_mount(self: &Arc<Self>, ticket: u64, deadline: Instant) -> Result<(), String> {
        if matches!(self.desk().mounting, Mounting::Waits) {
            return Ok(());
        }
        // The disk is never let go while its file system may be mounted: see `Disks::keep`.
        drop(self.disks.have_unclaimed(SHARED, deadline)?);
        let device = format!("/dev/gnbd/{SHARED}");
        check_superblock(Path::new(&device), &self.table())?;
        let mut desk = self.desk();
        newest(&desk, ticket)?;
        desk.mounting = Mounting::Waits;
        let shared = Arc::clone(self);
        let begun = servant("mount of the shared file system", move || {
            let mounted = mount(&device, MOUNT, "gfs2", FLAGS, None);
            let mut desk = shared.desk();
            desk.mounting = match mounted {
                Ok(()) => Mounting::Idle,
                Err(error) => Mounting::Failed(format!("mount {device} on {MOUNT}: {}", explained(error))),
            };
            shared.tell(&mut desk);
        });
        if begun.is_err() {
            desk.mounting = Mounting::Idle;
        }
        begun
    }

    /// Waits until `done`, as long as the order is the newest and its mount has not failed; then tells how things stand.
    fn step(&self, ticket: u64, deadline: Instant, late: &str, done: impl Fn(&Desk) -> bool) -> Result<(), String> {
        loop {
            {
                let mut desk = self.desk();
                newest(&desk, ticket)?;
                if let Some(reason) = desk.mounting.take_failure() {
                    self.tell(&mut desk);
                    return Err(reason);
                }
                if done(&desk) {
                    self.tell(&mut desk);
                    return Ok(());
                }
            }
            if now() >= deadline {
                return Err(late.to_owned());
            }
            thread::sleep(LOOK);
        }
    }

    /// Unmounts. When nothing of the file system is left here, the kernel says that it leaves the lockspace, and waits for the
    /// cluster's word. From then on it waits for the others to go on without it, for minutes if need be (Linux
    /// `fs/dlm/midcomms.c`): so that is where this ends, and they can.
    fn let_go(self: &Arc<Self>, deadline: Instant) -> Result<(), String> {
        let leaving = Leaving::open().map_err(|error| format!("the kernel's events: {error}"))?;
        let shared = Arc::clone(self);
        let ended = Arc::new(Mutex::new(None));
        let tell = Arc::clone(&ended);
        servant("unmount of the shared file system", move || {
            let result = shared.unmount(deadline);
            *tell.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            shared.tell(&mut shared.desk());
        })?;
        while now() < deadline {
            let mut desk = self.desk();
            let left = leaving.is_said();
            let ended = ended.lock().unwrap_or_else(PoisonError::into_inner).take();
            match ended {
                Some(Err(reason)) => return Err(reason),
                Some(Ok(())) => {}
                None if left => {
                    // It has the cluster's word already if it was started more than once, and may be gone by now.
                    let _ = self.kernel.go_on();
                    self.write(&Record { left: true, ..self.recorded().unwrap_or_default() })?;
                }
                None => {
                    drop(desk);
                    thread::sleep(LOOK);
                    continue;
                }
            }
            // Whatever was to run has gone with it.
            desk.ticket += 1;
            desk.unmounting = false;
            self.tell(&mut desk);
            return Ok(());
        }
        Err(with_the_kernels_word(&format!("{MOUNT} cannot be unmounted in time")))
    }

    /// Linux 6.1's `gfs2_put_super` waits for the recoveries of journals that are under way, writes what there is to write, gives locks
    /// back, which a lockspace that is held has wait, and frees the journals: a recovery that begins meanwhile (`gfs2_control_func`,
    /// since another node has left) finds its journal gone, and the kernel panics. So when that begins nothing is left to be written
    /// and nothing is recovered, and until it ends, or hangs, the lockspace is not held.
    fn unmount(&self, deadline: Instant) -> Result<(), String> {
        loop {
            let waits = matches!(self.desk().mounting, Mounting::Waits);
            let unmounted = make_read_only().and_then(|()| {
                self.begin_unmount(deadline);
                let unmounted = unmount(MOUNT, UnmountFlags::empty());
                self.desk().unmounting = false;
                unmounted
            });
            match unmounted {
                Ok(()) => return Ok(()),
                // Nothing is mounted there.
                Err(Errno::INVAL) if !waits && !self.kernel.is_there() => return Ok(()),
                Err(Errno::BUSY | Errno::INVAL) if now() + LOOK * 4 < deadline => thread::sleep(LOOK),
                Err(error) => return Err(format!("unmount {MOUNT}: {error}")),
            }
        }
    }

    /// Waits until no journal is recovered, but not for ever: a dead node's may have to wait for somebody who can write.
    fn begin_unmount(&self, deadline: Instant) {
        let (table, end) = (self.table(), deadline.min(now() + RECOVERED));
        loop {
            {
                let mut desk = self.desk();
                if !recovers_journals(&table) || now() >= end {
                    desk.unmounting = true;
                    return;
                }
            }
            thread::sleep(LOOK);
        }
    }

    /// The name that GFS2 has for its locks.
    fn table(&self) -> String {
        gfs2::table(&self.current.get().name)
    }

    /// Tells the node how things stand, if that is new.
    fn tell(&self, desk: &mut Desk) {
        let state = self.state(desk);
        if desk.told != Some(state) {
            desk.told = Some(state);
            self.post.tell(Told::Event(Event::Shared { state }));
        }
    }

    fn state(&self, desk: &Desk) -> SharedState {
        let waits = matches!(desk.mounting, Mounting::Waits);
        if has_withdrawn(&self.table()) {
            return SharedState::Withdrawn;
        }
        if !self.kernel.is_there() && !waits {
            return SharedState::Absent;
        }
        match self.recorded() {
            Some(Record { left: true, .. }) => SharedState::Absent,
            Some(Record { epoch, running: false, .. }) => SharedState::Held { epoch },
            Some(Record { epoch, running: true, .. }) => {
                SharedState::Running { epoch, mounted: is_mounted() && self.kernel.has_recovered() }
            }
            // What may run is not called held.
            None => SharedState::Running { epoch: LockEpoch::default(), mounted: false },
        }
    }

    fn write(&self, record: &Record) -> Result<(), String> {
        let fresh = self.record.with_extension("new");
        let text = serde_json::to_string(record).map_err(|error| error.to_string())?;
        let written = fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, &self.record));
        written.map_err(|error| format!("{}: {error}", self.record.display()))
    }

    fn recorded(&self) -> Option<Record> {
        serde_json::from_str(&fs::read_to_string(&self.record).ok()?).ok()
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has the file system write all that it has, and no more. Where it refuses for any reason but a file that is open, the unmount says why.
fn make_read_only() -> Result<(), Errno> {
    match mount_remount(MOUNT, FLAGS | MountFlags::RDONLY, "") {
        Err(Errno::BUSY) => Err(Errno::BUSY),
        _ => Ok(()),
    }
}

/// Refuses to go on with an order when there is a newer one.
fn newest(desk: &Desk, ticket: u64) -> Result<(), String> {
    if desk.ticket == ticket { Ok(()) } else { Err(OVERTAKEN.to_owned()) }
}

/// What came of an order, and what the kernel said last of the file system and its locks.
fn with_the_kernels_word(outcome: &str) -> String {
    let word = kmsg::last(Path::new(KMSG), &["gfs2: ", "dlm: "]).unwrap_or_else(|| "none".to_owned());
    format!("{outcome}; the kernel's last word on it: {word}")
}

/// What GFS2 means by some errors.
fn explained(error: Errno) -> String {
    match error {
        Errno::USERS => gfs2::TOO_FEW.to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use cluster::config::Config;

    use super::super::mailbox::Mailbox;
    use super::*;

    #[test]
    fn only_a_mount_that_failed_is_over() {
        let mut waits = Mounting::Waits;
        assert_eq!(waits.take_failure(), None);
        assert!(matches!(waits, Mounting::Waits));
        let mut failed = Mounting::Failed("no such device".to_owned());
        assert_eq!(failed.take_failure().as_deref(), Some("no such device"));
        assert!(matches!(failed, Mounting::Idle));
    }

    /// A machine whose kernel is a directory: it has the lockspace, and was told of node 2 in its boot 77.
    fn machine(directory: &Path, left: bool) -> Shared {
        let config = Config::parse(include_str!("../../cluster/src/config/good.toml")).unwrap();
        let shared = Shared {
            own: Slot(1),
            key: Mutex::new(Key::of([7; 32])),
            kernel: Lockspace::at(directory),
            post: Mailbox::new().unwrap().post(),
            disks: Arc::new(Disks::new(&config)),
            record: directory.join("record"),
            desk: Mutex::default(),
            current: Current::new(config),
        };
        fs::create_dir_all(directory.join("sysfs")).unwrap();
        fs::create_dir_all(directory.join("config/cluster/comms/3")).unwrap();
        fs::write(directory.join("sysfs/control"), "").unwrap();
        let peers = BTreeMap::from([(Slot(2), Incarnation::new(77).unwrap())]);
        shared.write(&Record { epoch: LockEpoch::default(), running: true, left, peers }).unwrap();
        shared
    }

    #[test]
    fn who_holds_stops_the_kernel_and_has_it_forget_old_boots() {
        let directory = tempfile::tempdir().unwrap();
        let shared = machine(directory.path(), false);
        let epoch = LockEpoch { number: 11, ..LockEpoch::default() };
        shared.hold(epoch, &[(Slot(2), Incarnation::new(78).unwrap())]).unwrap();
        assert_eq!(fs::read_to_string(directory.path().join("sysfs/control")).unwrap(), "0");
        assert!(!directory.path().join("config/cluster/comms/3").exists());
        assert_eq!(shared.state(&shared.desk()), SharedState::Held { epoch });
        assert!(shared.recorded().unwrap().peers.is_empty());
    }

    /// Found in the rack: a kernel that was held while it took the file system apart met a recovery when it went on, and panicked.
    #[test]
    fn who_unmounts_is_held_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let shared = machine(directory.path(), false);
        shared.desk().unmounting = true;
        let stopped = || fs::read_to_string(directory.path().join("sysfs/control")).unwrap() == "0";
        thread::scope(|scope| {
            let held = scope.spawn(|| shared.hold(LockEpoch::default(), &[]));
            while shared.desk().ticket == 0 {
                thread::yield_now();
            }
            assert!(!stopped());
            // What `let_go` does then.
            let mut desk = shared.desk();
            (desk.unmounting, desk.ticket) = (false, desk.ticket + 1);
            drop(desk);
            held.join().unwrap().unwrap();
        });
        assert!(stopped());
    }

    /// A mount that takes its time is no lockspace that does not recover: the operator is told which it is.
    #[test]
    fn what_is_late_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let shared = machine(directory.path(), false);
        shared.desk().mounting = Mounting::Waits;
        let finish = |mount| shared.finish(0, Instant::ZERO, mount);
        let recovery = |status| fs::write(directory.path().join("sysfs/recover_status"), status).unwrap();
        recovery("3f\n");
        assert!(finish(true).unwrap_err().starts_with("the lockspace does not recover"));
        recovery("7f\n");
        assert!(finish(true).unwrap_err().starts_with("the lockspace has recovered, but the mount is not done"));
        finish(false).unwrap();
    }

    /// Found in the rack: the kernel's thread that would stop it had ended, and the whole cluster waited for this node.
    #[test]
    fn a_lockspace_that_was_let_go_of_is_not_stopped() {
        let directory = tempfile::tempdir().unwrap();
        let shared = machine(directory.path(), true);
        let epoch = LockEpoch { number: 11, ..LockEpoch::default() };
        shared.hold(epoch, &[]).unwrap();
        assert_eq!(fs::read_to_string(directory.path().join("sysfs/control")).unwrap(), "");
        assert_eq!(shared.state(&shared.desk()), SharedState::Absent);
        assert_eq!(shared.recorded().unwrap().peers.len(), 1, "whom the kernel has met it has met");
        // When the kernel has given it up, there is none.
        fs::remove_dir_all(directory.path().join("sysfs")).unwrap();
        shared.hold(epoch, &[]).unwrap();
        assert!(!shared.recorded().unwrap().left);
        assert_eq!(shared.state(&shared.desk()), SharedState::Absent);
    }
}
