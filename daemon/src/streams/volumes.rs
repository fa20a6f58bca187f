//! The gateway's volumes as exports: what is told of them, and every change of them, one at a time.
//!
//! What is made is served when it is said to be done: `nbd-server` was started again, and answers. What is
//! deleted is withheld first, so that nobody claims it or connects to it meanwhile; then it must be unused: nobody is
//! connected, and no VM that has claimed it runs as far as a quorate cluster knows. Its claims stay in the table, so that an
//! older one is refused for ever, even on a new export of that name.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cluster::config::{Config, Export};
use cluster::status::Status;
use console::{Disk, Exported, VolumeRequest, Volumes};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::claims::Claimant;
use super::storage::Storage;
use crate::init::{self, NBD_CONFIGURATION, NBD_PID};
use crate::supervise::menu_link::{SOCKET, ToMenu};
use crate::volumes::lvm::{Report, Volume};
use crate::volumes::{self, Group};

/// How long what was found on the disks counts for who only looks.
const FRESH: Duration = Duration::from_secs(10);
/// How long the supervisor may take to tell how things are.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 120 } else { 10 });
/// How long nbd-server may take to serve what is new: it is started again for that.
const SERVED: Duration = Duration::from_secs(if cfg!(test) { 120 } else { 30 });
/// How long it may leave one who asks without an answer, who then asks again.
const ANSWER: Duration = Duration::from_secs(5);
/// Between two looks whether it does.
const LOOK: Duration = Duration::from_millis(20);
/// Bytes of what the supervisor tells.
const TOLD: u64 = 4 << 20;
/// Bytes of a sector, as the kernel counts what was moved.
const SECTOR: u64 = 512;

/// Where the volumes and their surroundings are.
#[derive(Debug)]
pub(super) struct Shelf {
    /// The group, and what was found on its disks last. Whoever changes anything holds it.
    pub(super) group: Mutex<(Group, Option<Found>)>,
    /// Where the active volumes have their devices.
    pub(super) directory: PathBuf,
    /// nbd-server's configuration, and where it says its process id.
    pub(super) nbd: (PathBuf, PathBuf),
    /// Where the supervisor tells how things are.
    pub(super) supervisor: PathBuf,
}

/// What was found on the disks.
#[derive(Clone, Debug)]
pub(super) struct Found {
    at: Instant,
    report: Result<Report, String>,
    disks: Vec<Disk>,
}

impl Shelf {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            group: Mutex::new((Group::of(config), None)),
            directory: PathBuf::from(volumes::DIRECTORY),
            nbd: (PathBuf::from(NBD_CONFIGURATION), PathBuf::from(NBD_PID)),
            supervisor: PathBuf::from(SOCKET),
        }
    }
}

impl Storage {
    /// Does what is asked, and tells how things are then.
    ///
    /// # Errors
    /// It is refused or fails, in words for the operator.
    pub(super) fn volumes(&self, request: &VolumeRequest) -> Result<Volumes, String> {
        // The file system on the shared disk may be no volume, and may take long: nobody waits for it.
        let said = self.look_after(request)?;
        let mut held = self.shelf.group.lock().unwrap_or_else(PoisonError::into_inner);
        let (group, found) = &mut *held;
        if *request != VolumeRequest::List && said.is_none() {
            let report = group.report()?;
            let done = self.act(group, &report, request);
            *found = None;
            done?;
        }
        let found = self.found(group, found);
        Ok(Volumes { said, ..self.tell(found) })
    }

    /// The volume of that name. Where there is none, a disk of the group may have been found since.
    pub(super) fn volume(&self, name: &str) -> Option<Export> {
        let here = || volumes::export(&self.shelf.directory, name);
        here().or_else(|| {
            // Whoever changes anything just now has looked himself.
            let mut held = self.shelf.group.try_lock().ok()?;
            let (group, found) = &mut *held;
            self.found(group, found);
            here()
        })
    }

    /// What is on the disks, looked at anew if that was long ago; what is there and not active becomes so.
    fn found<'a>(&self, group: &Group, found: &'a mut Option<Found>) -> &'a Found {
        if found.as_ref().is_some_and(|found| found.at.elapsed() >= FRESH) {
            *found = None;
        }
        found.get_or_insert_with(|| {
            let mut report = group.report();
            let active = |name: &str| volumes::export(&self.shelf.directory, name).is_some();
            if let Ok(seen) = &report
                && seen.volumes.iter().any(|volume| volume.problem.is_none() && !active(&volume.name))
            {
                let (active, published) = (group.activate(seen), self.publish());
                if let (None, Err(error)) = (seen.problem(), active.and(published)) {
                    report = Err(error);
                }
            }
            let disk = |disk: volumes::disks::Found| Disk {
                name: disk.name,
                mib: disk.bytes >> 20,
                serial: disk.serial,
                blank: disk.blank,
            };
            let disks = report.as_ref().map_or_else(|_| Vec::new(), |report| group.free_disks(report));
            Found { at: Instant::now(), report, disks: disks.into_iter().map(disk).collect() }
        })
    }

    fn act(&self, group: &Group, report: &Report, request: &VolumeRequest) -> Result<(), String> {
        match request {
            VolumeRequest::List | VolumeRequest::Check { .. } | VolumeRequest::Journals { .. } => Ok(()),
            VolumeRequest::Take { disk, blank, typed } => group.take(report, disk, *blank, typed),
            VolumeRequest::Create { typed } => group.create(report, typed).and_then(|_| self.publish()),
            VolumeRequest::Grow { export, typed } => group.grow(report, export, typed),
            VolumeRequest::Snapshot { export } => group.snapshot(report, export).and_then(|_| self.publish()),
            VolumeRequest::Delete { export, typed } => {
                Group::may_delete(report, export, typed)?;
                let _withheld = self.withhold(export, "deleted")?;
                self.unclaimed(export)?;
                group.delete(export)?;
                self.publish()
            }
        }
    }

    fn await_served(&self, name: &str) -> Result<(), String> {
        let end = Instant::now() + SERVED;
        loop {
            match self.negotiate_within(name, ANSWER) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= end => return Err(format!("{name} is made, but {error}")),
                Err(_) => thread::sleep(LOOK),
            }
        }
    }

    /// Tells nbd-server what there is. What is gone it cannot open any more; how large a disk is, it looks at when somebody
    /// connects; for what is new it is started again, which init does with whatever ends. Asked to read its file again it spoils
    /// some of what is new (3.24: an export that others follow, and the third one). It is ended without being asked, for then its
    /// connections, each a process of its own, go on.
    fn publish(&self) -> Result<(), String> {
        let (configuration, pid) = &self.shelf.nbd;
        let exports = volumes::served(&self.exports, &self.shelf.directory);
        let replace = || -> io::Result<Vec<Export>> {
            let told = fs::read_to_string(configuration)?;
            let is_new = |export: &Export| !told.lines().any(|line| line == format!("[{}]", export.name));
            let new = configuration.with_extension("new");
            fs::write(&new, init::nbd_configuration(&exports, &self.server))?;
            fs::rename(&new, configuration)?;
            let fresh: Vec<Export> = exports.into_iter().filter(is_new).collect();
            if !fresh.is_empty() {
                end(pid)?;
            }
            Ok(fresh)
        };
        let fresh = replace().map_err(|error| format!("nbd-server cannot be told: {error}"))?;
        fresh.iter().try_for_each(|export| self.await_served(&export.name))
    }

    /// Whether no VM that has claimed a disk can be running.
    fn unclaimed(&self, name: &str) -> Result<(), String> {
        let claimants: Vec<Claimant> = self.desk().claims.of(name).cloned().collect();
        if claimants.is_empty() {
            return Ok(());
        }
        let status = status(&self.shelf.supervisor)
            .map_err(|error| format!("whether the VMs that have claimed it run is not known: {error}"))?;
        if !status.quorate {
            return Err("whether the VMs that have claimed it run is not known: the gateway is inquorate".to_owned());
        }
        let runs = |claimant: &&Claimant| {
            let vm = status.vms.iter().find(|vm| vm.name == claimant.vm.as_str());
            vm.is_some_and(|vm| !matches!(&*vm.phase, "stopped" | "failed"))
        };
        match claimants.iter().find(runs) {
            Some(claimant) => Err(format!("{claimant} has it: stop that VM first")),
            None => Ok(()),
        }
    }

    fn tell(&self, found: &Found) -> Volumes {
        let Found { report, disks, .. } = found;
        let mut exports: Vec<Exported> = self.exports.iter().map(|export| self.exported(export)).collect();
        let named = |volume: &&Volume| self.exports.iter().any(|export| export.name == volume.name);
        for volume in report.iter().flat_map(|report| &report.volumes).filter(|volume| !named(volume)) {
            let device = self.shelf.directory.join(&volume.name).display().to_string();
            let mut export = self.exported(&Export { name: volume.name.clone(), device, read_only: false });
            export.volume = true;
            export.origin.clone_from(&volume.origin);
            let health = volume.problem.as_ref().map(|problem| format!("LVM says that it is {problem}"));
            export.problem = health.or(export.problem);
            exports.push(export);
        }
        let group = report.as_ref().ok().and_then(|report| report.group);
        let group = group.map(|group| console::Group { mib: group.bytes >> 20, free_mib: group.free >> 20 });
        let problem = report.as_ref().map_or_else(|error| Some(error.clone()), Report::problem);
        Volumes { group, problem, exports, disks: disks.clone(), said: None }
    }

    /// An export, and who uses it.
    fn exported(&self, export: &Export) -> Exported {
        // A disk that does not answer holds nobody else up.
        let bytes = File::open(&export.device).and_then(|mut file| file.seek(SeekFrom::End(0)));
        let mut told = Exported {
            name: export.name.clone(),
            mib: bytes.as_ref().map_or(0, |bytes| bytes >> 20),
            moved_mib: moved(&export.device),
            problem: bytes.err().map(|error| format!("{}: {error}", export.device)),
            clients: self.clients(&export.name).into_iter().collect(),
            shared: self.shared.as_ref() == Some(&export.name),
            ..Exported::default()
        };
        let desk = self.desk();
        let claims = desk.claims.of(&export.name);
        told.claims = claims.map(|claimant| format!("VM {} on {}", claimant.vm, claimant.boot.node)).collect();
        told
    }
}

/// Ends the process that has written its id to `file`, as soon as it has: one that is being started may not read what was written
/// just now.
fn end(file: &Path) -> io::Result<()> {
    let began = Instant::now();
    let pid = loop {
        match fs::read_to_string(file).ok().and_then(|text| Pid::from_raw(text.trim().parse().ok()?)) {
            Some(pid) => break pid,
            None if began.elapsed() >= SERVED => return Err(io::ErrorKind::NotFound.into()),
            None => thread::sleep(LOOK),
        }
    };
    match kill_process(pid, Signal::KILL) {
        // It has ended already, and is about to be started again.
        Err(Errno::SRCH) => Ok(()),
        other => Ok(other?),
    }
}

/// How much was read from a device and written to it, in MiB (Linux' Documentation/block/stat.rst: the third and the seventh
/// number, in sectors).
fn moved(device: &str) -> Option<(u64, u64)> {
    let number = fs::metadata(device).ok()?.rdev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let text = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    let sectors = |place| text.split_whitespace().nth(place)?.parse::<u64>().ok();
    let mib = |sectors: u64| sectors.saturating_mul(SECTOR) >> 20;
    Some((mib(sectors(2)?), mib(sectors(6)?)))
}

/// How things are, as this machine's supervisor tells it to a menu.
pub(super) fn status(supervisor: &Path) -> io::Result<Status> {
    let socket = UnixStream::connect(supervisor)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // As the menu itself reads it: the same code, which is not small.
    for line in BufReader::new(socket.take(TOLD)).split(b'\n') {
        if let ToMenu::Status(status) = serde_json::from_slice(&line?).map_err(io::Error::other)? {
            return Ok(*status);
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}
