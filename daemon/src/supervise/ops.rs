//! Long operations: each is done by a servant thread of its own, which ends at the deadline whatever happens, and whose
//! end is told to the node.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cluster::event::{Event, Outcome, Path as Way, Transfer, Work};
use cluster::words::{Claim, Incarnation, Instant, OpId, Outlet, Slot, VmName};
use hw::ap7921::Relay;

use super::child::{self, XL, xl};
use super::clock::{now, until};
use super::decisions;
use super::files;
use super::mailbox::{Post, Told};
use super::power::{self, Turns};
use super::pulls;
use super::run::servant;
use super::shared::Shared;
use super::site::Site;
use super::storage::{Disks, Held};
use super::ups::{self, UpsLines};
use crate::carried::{self, Tally};
use crate::init::HOLDFAST;
use crate::migrate;
use crate::nbd::Title;
use crate::streams::claims::Boot;
use crate::streams::orders::{self, Done, Order};

/// Percent of a processor that a VM has which is moved all but paused.
const SLOW: &str = "5";

/// What the storage's process is given to answer after the time for an order.
const ANSWERING: Duration = Duration::from_secs(1);

/// What begins operations.
#[derive(Debug)]
pub(super) struct Ops(Arc<Desk>);

/// What the servants work with.
#[derive(Debug)]
struct Desk {
    site: Site,
    post: Post,
    disks: Arc<Disks>,
    turns: Turns,
    lines: Arc<UpsLines>,
    shared: Option<Arc<Shared>>,
}

impl Ops {
    /// With nothing to do yet.
    pub(super) fn new(
        site: Site,
        post: Post,
        disks: Arc<Disks>,
        lines: Arc<UpsLines>,
        shared: Option<Arc<Shared>>,
    ) -> Self {
        Self(Arc::new(Desk { site, post, disks, turns: Turns::default(), lines, shared }))
    }

    /// Begins an operation; pushing a VM wants the socket of whoever asked for it. Its end is told as [`Event::Done`], whatever happens.
    pub(super) fn begin(&self, op: OpId, deadline: Instant, work: Work, socket: Option<UnixStream>) {
        let desk = Arc::clone(&self.0);
        let done = move |outcome| Told::Event(Event::Done { op, outcome });
        let begun = servant(&format!("operation {}", op.0), move || {
            let outcome = desk.perform(work, deadline, socket);
            desk.post.tell(done(outcome));
        });
        if let Err(reason) = begun {
            self.0.post.tell(done(Outcome::Failed(reason)));
        }
    }
}

impl Desk {
    fn perform(&self, work: Work, deadline: Instant, socket: Option<UnixStream>) -> Outcome {
        let done = match work {
            Work::Create { vm, claim, resume } => self.create(&vm, claim, resume, deadline),
            Work::Receive { vm, claim, from } => self.receive(&vm, claim, from, deadline),
            Work::Push { vm, transfer, .. } => self.push(&vm, transfer, socket, deadline),
            Work::Suspend { vm } => suspend(&vm, deadline),
            // `-w` waits until the domain is gone, `-F` asks by ACPI where the guest does not listen to xenstore.
            Work::Shutdown { vm } => xl(["shutdown", "-w", "-F", vm.as_str()], deadline),
            Work::Destroy { domain } => xl(["destroy", &domain], deadline),
            Work::OutletsOff { outlets, path, .. } => return self.switch(&outlets, Relay::Off, path, deadline),
            Work::OutletsOn { outlets, path, .. } => return self.switch(&outlets, Relay::On, path, deadline),
            Work::Reserve => return order(&Order::Reserve, deadline),
            Work::Lockspace(order) => match &self.shared {
                Some(shared) => shared.obey(order, deadline),
                None => Err("this machine has no shared GFS2".to_owned()),
            },
            Work::Keep(decisions) => decisions::keep(Path::new(decisions::PLACE), &decisions, deadline),
            Work::CutLoad { ups } => ups::cut_load(&self.site, &self.lines, ups, deadline),
            Work::Bar { slot, incarnation } => return self.bar(slot, incarnation, deadline),
        };
        done.map_or_else(Outcome::Failed, |_said| Outcome::Succeeded)
    }

    /// The disks of a VM, claimed, for as long as what is returned lives.
    fn disks_of(&self, vm: &VmName, claim: Claim, from: Option<&str>, deadline: Instant) -> Result<Held, String> {
        files::wait_for_them(deadline)?;
        let title = Title { vm: vm.clone(), claim };
        self.disks.have(&files::parse(vm)?.network_disks(), &title, from, deadline)
    }

    /// As the gateway: has its storage bar a boot of a node.
    fn bar(&self, slot: Slot, incarnation: Incarnation, deadline: Instant) -> Outcome {
        let boot = Boot { node: self.site.config().node_name(slot), incarnation };
        let longest = until(deadline).saturating_sub(ANSWERING);
        let longest_ms = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        order(&Order::Bar { boot, longest_ms }, deadline)
    }

    fn switch(&self, outlets: &[Outlet], relay: Relay, path: Way, deadline: Instant) -> Outcome {
        power::switch(&self.site, &self.turns, outlets, relay, path, deadline)
    }

    fn create(&self, vm: &VmName, claim: Claim, resume: bool, deadline: Instant) -> Result<String, String> {
        // libxl looks at the devices when it plans a domain: they must be there before, and stay.
        let _held = self.disks_of(vm, claim, None, deadline)?;
        if resume {
            return restore(vm, deadline);
        }
        let path = files::path_of(vm);
        let mut arguments = vec![OsStr::new("create"), path.as_os_str()];
        arguments.extend(files::type_override(&path)?.map(OsStr::new));
        xl(arguments, deadline)
    }

    fn receive(&self, vm: &VmName, claim: Claim, from: Slot, deadline: Instant) -> Result<String, String> {
        let config = self.site.config();
        let source = config.node(from);
        let _held = self.disks_of(vm, claim, Some(&source.name), deadline)?;
        let mut command = Command::new(HOLDFAST);
        let address = source.address.to_string();
        command.args(["pull", vm.as_str(), &claim.generation.0.to_string(), &address]).stdin(Stdio::null());
        count(vm).give(&mut command);
        child::run(command, deadline)
    }

    /// Sends a VM into the socket that asked for it. Xen's toolstack knows no transfer of a paused guest; one that must not run
    /// meanwhile is slowed down so much that its memory stands all but still.
    fn push(
        &self,
        vm: &VmName,
        transfer: Transfer,
        socket: Option<UnixStream>,
        deadline: Instant,
    ) -> Result<String, String> {
        if transfer == Transfer::Live {
            return self.push_live(vm, socket, deadline);
        }
        let cap = |percent: &str| xl(["sched-credit2", "-d", vm.as_str(), "-c", percent], deadline);
        cap(SLOW)?;
        let pushed = self.push_live(vm, socket, deadline);
        if pushed.is_err() {
            cap("0")?;
        }
        pushed
    }

    fn push_live(&self, vm: &VmName, socket: Option<UnixStream>, deadline: Instant) -> Result<String, String> {
        let mut socket = socket.ok_or("whoever asked for it does not wait any more")?;
        pulls::go(&mut socket).map_err(|error| format!("whoever asked for it does not wait any more: {error}"))?;
        let (tally, began) = (count(vm), now());
        // The name of the other end is for the transport, which is ours and needs none.
        let mut command = migrate::push(vm.as_str(), "target", socket.into());
        tally.give(&mut command);
        let pushed = child::run(command, deadline);
        if let Some(bytes) = tally.bytes() {
            let (mib, time) = (bytes >> 20, now().since(began).as_secs_f32());
            self.post.tell(Told::Noted(format!("carried {mib} MiB of VM {vm} away in {time:.1} s")));
        }
        pushed
    }
}

/// What the storage's process has made of an order.
fn order(what: &Order, deadline: Instant) -> Outcome {
    match orders::order(what, until(deadline)) {
        Ok(Done::Reserved(epoch)) => Outcome::Reserved(epoch),
        Ok(Done::Barred(boot)) => Outcome::Barred(boot.incarnation),
        Ok(Done::Failed(reason)) | Err(reason) => Outcome::Failed(reason),
    }
}

/// Saves a VM's memory on the shared disk. `xl` destroys the domain when the image is whole, and lets it run on when not; this node may
/// lose its power as soon as the image counts, so it is synchronised first.
fn suspend(vm: &VmName, deadline: Instant) -> Result<String, String> {
    let image = files::image_of(vm);
    let saved = xl([OsStr::new("save"), OsStr::new(vm.as_str()), image.as_os_str()], deadline);
    let kept = || File::open(&image)?.sync_all();
    let saved = saved.and_then(|said| kept().map(|()| said).map_err(|error| format!("{}: {error}", image.display())));
    if saved.is_err() {
        // What there is of it is not whole, and may not be there at all.
        let _ = fs::remove_file(&image);
    }
    saved
}

/// Resumes a VM from the image of its memory. That has no name any more when it is read: whatever dies meanwhile, nobody resumes
/// from it a second time, when the VM has written to its disks since.
fn restore(vm: &VmName, deadline: Instant) -> Result<String, String> {
    let image = files::image_of(vm);
    let failed = |error: io::Error| format!("{}: {error}", image.display());
    let opened = File::open(&image).map_err(failed)?;
    fs::remove_file(&image).map_err(failed)?;
    let mut command = Command::new(XL);
    // As it was described when it was saved: its file may be another by now, and does not say of which type it was.
    command.args(["restore", "/proc/self/fd/0"]).stdin(opened);
    child::run(command, deadline)
}

/// Begins to count what is carried of a VM.
fn count(vm: &VmName) -> Tally {
    Tally::begin(Path::new(carried::DIRECTORY), vm.as_str(), now())
}
