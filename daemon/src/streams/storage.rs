//! The gateway's disks, served: one connection a disk and claimant, each with a process of `nbd-server` behind it.
//!
//! The table of claims ([`super::claims`]) decides who may connect. After every change of it, the connections that it no
//! longer allows are cut, and whoever wanted the change waits until they have *drained*: until `nbd-server` has closed its end,
//! which it does (and the kernel for it, whatever it does) only when no request of that connection is being worked on any
//! more. So a claim that was granted, and a bar that was confirmed, mean that nothing of the old is still to come.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cluster::config::{self, Config, FileSystem, SHARED};
use serde::{Deserialize, Serialize};

use super::claims::{Boot, Claimant, Claims, Refusal, Right};
use super::gate::Gate;
use super::left_over::LeftOver;
use super::store::Store;
use super::volumes::Shelf;
use crate::gfs2;
use crate::nbd::negotiate::{Export, negotiate};
use crate::stream::Stream;

/// How long a claim, and the first write of an heir, waits for the requests of another. Whoever claims waits for the answer.
pub(super) const DRAIN: Duration = Duration::from_secs(8);
/// How long the NBD server may take to answer in a negotiation. A test does not fail because its machine is busy.
const NEGOTIATION: Duration = Duration::from_secs(if cfg!(test) { 120 } else { 8 });
const _: () = assert!(DRAIN.as_secs() < crate::stream::PATIENCE.as_secs());

/// Who wants to be connected to a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wanted {
    /// The disk: the export's name.
    pub(crate) disk: String,
    /// The boot that asks.
    pub(crate) boot: Boot,
    /// By what; nothing is needed for a disk that is only read, or that all nodes write to.
    pub(crate) claimant: Option<Claimant>,
}

/// Who claims disks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claiming {
    /// All of a VM's disks: all of them are claimed, or none.
    pub(crate) disks: Vec<String>,
    /// By what.
    pub(crate) claimant: Claimant,
    /// The node that the VM comes from alive, and whose boot goes on using them until the VM runs here.
    pub(crate) from: Option<String>,
}

/// The gateway's storage.
#[derive(Debug)]
pub(super) struct Storage {
    pub(super) exports: Vec<config::Export>,
    /// The disk that all nodes write to, if there is one.
    pub(super) shared: Option<String>,
    /// What the file system on it calls its locks.
    pub(super) table: String,
    /// Where the NBD server answers.
    pub(super) server: PathBuf,
    /// How long one waits for another's requests: [`DRAIN`].
    pub(super) drain: Duration,
    pub(super) desk: Mutex<Desk>,
    /// The exports that are volumes.
    pub(super) shelf: Shelf,
    /// Rung when a connection has drained.
    drained: Condvar,
}

#[derive(Debug)]
pub(super) struct Desk {
    pub(super) claims: Claims,
    store: Store<Claims>,
    pub(super) open: BTreeMap<u64, Connection>,
    /// The disks that nobody gets now.
    withheld: BTreeMap<String, Work>,
    next: u64,
}

/// What is being done with a disk: it is `deleted`, or `checked`.
#[derive(Debug)]
struct Work {
    what: &'static str,
    /// Who does it, where an earlier life of this process has begun it.
    by: Option<LeftOver>,
}

/// A connection that has not drained yet.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) wanted: Wanted,
    tcp: TcpStream,
    local: UnixStream,
    /// Whether its own claimant has connected anew.
    replaced: bool,
}

impl Connection {
    fn cut(&self) {
        // What is cut already cannot be cut.
        let _ = self.tcp.shutdown(Shutdown::Both);
        let _ = self.local.shutdown(Shutdown::Write);
    }
}

/// Stands for a connection in the desk's list until it has drained.
struct Open<'a> {
    storage: &'a Storage,
    number: u64,
    local: UnixStream,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        // There may be nobody any more who would hear it.
        let _ = self.local.shutdown(Shutdown::Write);
        drain(&mut self.local);
        self.storage.desk().open.remove(&self.number);
        self.storage.drained.notify_all();
    }
}

/// Waits until the NBD server has closed its end. Its answers have nobody to go to.
fn drain(local: &mut UnixStream) {
    let mut nothing = vec![0; 64 << 10];
    loop {
        match local.read(&mut nothing) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The end that is closed with something unread in it says so, once.
            Err(_) => return,
        }
    }
}

impl Desk {
    /// Changes the table: first a copy, which is kept, then the table itself; then cuts whom it no longer allows.
    fn change<T>(&mut self, change: impl FnOnce(&mut Claims) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let mut next = self.claims.clone();
        let result = change(&mut next)?;
        if next != self.claims {
            let kept = self.store.keep(&next);
            kept.map_err(|error| Refusal::Other(format!("the gateway cannot keep its claims: {error}")))?;
            self.claims = next;
        }
        self.open.values().filter(|connection| !self.allows(connection)).for_each(Connection::cut);
        Ok(result)
    }

    /// Whoever connects anew sends again what was not answered: nothing of that may still be on its way.
    fn replace(&mut self, wanted: &Wanted) {
        for connection in self.open.values_mut().filter(|connection| connection.wanted == *wanted) {
            connection.replaced = true;
            connection.cut();
        }
    }

    /// Refuses a disk that is withheld.
    fn offer(&self, disk: &str) -> Result<(), Refusal> {
        let what = self.withheld(disk);
        what.map_or(Ok(()), |what| Err(Refusal::Busy(format!("disk {disk} is being {what}"))))
    }

    /// What is being done with a disk, if it is withheld.
    fn withheld(&self, disk: &str) -> Option<&'static str> {
        let work = self.withheld.get(disk)?;
        work.by.as_ref().is_none_or(LeftOver::goes_on).then_some(work.what)
    }

    fn allows(&self, connection: &Connection) -> bool {
        let Wanted { disk, boot, claimant } = &connection.wanted;
        !connection.replaced && self.claims.allow(disk, boot, claimant.as_ref())
    }

    /// Whose connection has been cut and has not drained, among those that `concern`.
    fn undrained(&self, concerns: impl Fn(&Wanted) -> bool) -> Option<&Wanted> {
        let cut = |connection: &&Connection| concerns(&connection.wanted) && !self.allows(connection);
        self.open.values().find(cut).map(|connection| &connection.wanted)
    }
}

/// Keeps a disk from everybody for as long as it lives.
#[derive(Debug)]
pub(super) struct Withheld<'a> {
    storage: &'a Storage,
    name: String,
}

impl Drop for Withheld<'_> {
    fn drop(&mut self) {
        self.storage.desk().withheld.remove(&self.name);
    }
}

impl Storage {
    /// The disks of the configuration, as `server` serves them, with the claims of `store`.
    pub(super) fn new(
        config: &Config,
        server: PathBuf,
        drain: Duration,
        (store, claims): (Store<Claims>, Claims),
    ) -> Self {
        let desk = Desk { claims, store, open: BTreeMap::new(), withheld: BTreeMap::new(), next: 0 };
        let shared = (config.shared == FileSystem::Gfs2).then(|| SHARED.to_owned());
        let (exports, table, desk) = (config.exports.clone(), gfs2::table(&config.name), Mutex::new(desk));
        Self { exports, shared, table, server, drain, desk, shelf: Shelf::of(config), drained: Condvar::new() }
    }

    /// Serves one connection until it ends.
    ///
    /// # Errors
    /// It was cut, or refused.
    pub(super) fn serve(&self, mut stream: Stream, wanted: &Wanted) -> io::Result<()> {
        let connected = self.connect(&stream, wanted);
        let (open, export, right) = match connected {
            Ok(connected) => connected,
            Err(refusal) => return stream.answer(&Err(refusal)),
        };
        stream.answer(&Ok(()))?;
        stream.tell(&export)?;
        let take_over = || self.take_over(wanted);
        let gate = Gate::new(open.local.try_clone()?, (right == Right::Heir).then_some(take_over));
        let (from, to) = (open.local.try_clone()?, open.local.try_clone()?);
        stream.pump(from, gate, move || {
            // It may be closed already.
            let _ = to.shutdown(Shutdown::Write);
        })
    }

    /// Claims disks, and waits until nobody else's requests are in flight.
    ///
    /// # Errors
    /// A disk is missing or another's, or another's requests do not come to an end. In the last case the claim counts.
    pub(super) fn claim(&self, claiming: &Claiming) -> Result<(), Refusal> {
        let Claiming { disks, claimant, from } = claiming;
        for disk in disks {
            self.negotiate(disk)?;
        }
        let mut desk = self.desk();
        disks.iter().try_for_each(|disk| desk.offer(disk))?;
        let in_use: Vec<(String, Claimant)> = desk
            .open
            .values()
            .filter_map(|open| Some((open.wanted.disk.clone(), open.wanted.claimant.clone()?)))
            .collect();
        desk.change(|claims| {
            disks.iter().try_for_each(|disk| {
                let uses = |rival: &Claimant| in_use.iter().any(|(used, by)| used == disk && by == rival);
                claims.claim(disk, claimant, from.as_deref(), uses)
            })
        })?;
        self.wait(desk, self.drain, |wanted| disks.contains(&wanted.disk)).map(drop)
    }

    /// Takes an epoch of claims that is newer than all before.
    ///
    /// # Errors
    /// It cannot be kept.
    pub(super) fn reserve(&self) -> Result<u64, Refusal> {
        self.desk().change(|claims| Ok(claims.reserve()))
    }

    /// Bars a boot, and waits until nothing of it is in flight.
    ///
    /// # Errors
    /// It cannot be kept; or something of it is still in flight after `longest`. Then it is barred all the same.
    pub(super) fn bar(&self, boot: &Boot, longest: Duration) -> Result<(), Refusal> {
        let mut desk = self.desk();
        desk.change(|claims| {
            claims.bar(boot);
            Ok(())
        })?;
        self.wait(desk, longest, |wanted| wanted.boot == *boot).map(drop)
    }

    /// Puts a connection on the list, and connects it to a process of the NBD server.
    fn connect(&self, stream: &Stream, wanted: &Wanted) -> Result<(Open<'_>, Export, Right), Refusal> {
        let Wanted { disk, boot, claimant } = wanted;
        let (local, export) = self.negotiate(disk)?;
        let clones = || Ok::<_, io::Error>((stream.socket()?, local.try_clone()?));
        let (tcp, local_too) = clones().map_err(|error| Refusal::Other(error.to_string()))?;
        // What every node writes to, no node claims: the file system itself says who may write where.
        let of_all = self.export(disk)?.read_only || self.shared.as_deref() == Some(disk.as_str());
        let mut desk = self.desk();
        desk.replace(wanted);
        desk = self.wait(desk, self.drain, |other| other.disk == *disk)?;
        desk.offer(disk)?;
        let right = match claimant {
            Some(claimant) if claimant.boot == *boot => desk.change(|claims| claims.admit(disk, claimant))?,
            None if of_all => desk.change(|claims| claims.refuse_barred(boot)).map(|()| Right::Holder)?,
            Some(_) | None => return Err(Refusal::Other(format!("disk {disk} wants a claim"))),
        };
        let number = desk.next;
        desk.next = desk.next.saturating_add(1);
        desk.open.insert(number, Connection { wanted: wanted.clone(), tcp, local: local_too, replaced: false });
        Ok((Open { storage: self, number, local }, export, right))
    }

    /// The heir of a disk becomes its holder.
    fn take_over(&self, wanted: &Wanted) -> io::Result<()> {
        let Some(claimant) = &wanted.claimant else {
            return Err(io::ErrorKind::PermissionDenied.into());
        };
        let mut desk = self.desk();
        let taken = desk.change(|claims| claims.take_over(&wanted.disk, claimant));
        let drained = taken.and_then(|()| self.wait(desk, self.drain, |other| other.disk == wanted.disk));
        drained.map(drop).map_err(io::Error::other)
    }

    /// Waits until no connection that was cut, among those that `concern`, has requests in flight.
    fn wait<'a>(
        &'a self,
        desk: MutexGuard<'a, Desk>,
        longest: Duration,
        concerns: impl Fn(&Wanted) -> bool,
    ) -> Result<MutexGuard<'a, Desk>, Refusal> {
        let end = Instant::now() + longest;
        let mut desk = desk;
        while let Some(Wanted { disk, boot, .. }) = desk.undrained(&concerns) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Refusal::Busy(format!("requests of {} to disk {disk} are still in flight", boot.node)));
            }
            desk = self.drained.wait_timeout(desk, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(desk)
    }

    fn export(&self, disk: &str) -> Result<config::Export, Refusal> {
        let export = self.exports.iter().find(|export| export.name == disk).cloned();
        let none = || format!("the gateway exports no disk {disk}: neither cluster.toml nor its volume group has one");
        export.or_else(|| self.volume(disk)).ok_or_else(|| Refusal::Missing(none()))
    }

    /// From now on nobody gets a disk: it is being `what`.
    ///
    /// # Errors
    /// It is withheld already, or somebody is connected to it.
    pub(super) fn withhold(&self, name: &str, what: &'static str) -> Result<Withheld<'_>, String> {
        let mut desk = self.desk();
        if let Some(what) = desk.withheld(name) {
            return Err(format!("it is being {what} already"));
        }
        match desk.open.values().find(|connection| connection.wanted.disk == name) {
            Some(connection) => Err(format!("{} is connected to it", connection.wanted.boot.node)),
            None => {
                desk.withheld.insert(name.to_owned(), Work { what, by: None });
                Ok(Withheld { storage: self, name: name.to_owned() })
            }
        }
    }

    /// Nobody gets a disk either that an earlier life of this process has begun to work on, until that has ended.
    pub(super) fn withhold_left_over(&self, proc: &Path) {
        let all = LeftOver::all(proc, &self.exports).into_iter();
        self.desk().withheld.extend(all.map(|(disk, what, by)| (disk, Work { what, by: Some(by) })));
    }

    /// The nodes that are connected to a disk.
    pub(super) fn clients(&self, name: &str) -> BTreeSet<String> {
        let desk = self.desk();
        let wanted = desk.open.values().map(|connection| &connection.wanted);
        wanted.filter(|wanted| wanted.disk == name).map(|wanted| wanted.boot.node.clone()).collect()
    }

    /// A process of the NBD server that waits for requests to a disk.
    pub(super) fn negotiate(&self, disk: &str) -> Result<(UnixStream, Export), Refusal> {
        self.negotiate_within(disk, NEGOTIATION)
    }

    /// The same, for whoever asks again if an answer takes longer than `limit`.
    pub(super) fn negotiate_within(&self, disk: &str, limit: Duration) -> Result<(UnixStream, Export), Refusal> {
        let device = self.export(disk)?.device;
        let missing =
            |error: io::Error| Refusal::Missing(format!("the gateway cannot serve disk {disk} ({device}): {error}"));
        let mut local = UnixStream::connect(&self.server).map_err(missing)?;
        local.set_read_timeout(Some(limit)).map_err(missing)?;
        let export = negotiate(&mut local, disk).map_err(missing)?;
        local.set_read_timeout(None).map_err(missing)?;
        Ok((local, export))
    }

    pub(super) fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
