//! Long operations: each is done by a servant thread of its own, which ends at the deadline whatever happens, and whose
//! end is told to the node.

use std::ffi::OsStr;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;

use cluster::event::{Event, Outcome, Work};
use cluster::words::{Generation, Instant, OpId, Slot, VmName};
use hw::ap7921::Relay;

use super::child::{self, xl};
use super::files;
use super::mailbox::{Post, Told};
use super::power;
use super::pulls;
use super::run::servant;
use super::site::Site;
use super::storage::{Disks, Held};
use crate::init::HOLDFAST;
use crate::migrate;

/// What begins operations.
#[derive(Debug)]
pub(super) struct Ops(Arc<Desk>);

/// What the servants work with.
#[derive(Debug)]
struct Desk {
    site: Site,
    post: Post,
    disks: Arc<Disks>,
}

impl Ops {
    /// With nothing to do yet.
    pub(super) fn new(site: Site, post: Post, disks: Arc<Disks>) -> Self {
        Self(Arc::new(Desk { site, post, disks }))
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
            Work::Create { vm, .. } => self.create(&vm, deadline),
            Work::Receive { vm, generation, from } => self.receive(&vm, generation, from, deadline),
            Work::Push { vm, .. } => push(&vm, socket, deadline),
            // `-w` waits until the domain is gone, `-F` asks by ACPI where the guest does not listen to xenstore.
            Work::Shutdown { vm } => xl(["shutdown", "-w", "-F", vm.as_str()], deadline),
            Work::Destroy { domain } => xl(["destroy", &domain], deadline),
            Work::OutletsOff { outlets, .. } => {
                return power::switch(&self.site, &outlets, Relay::Off, deadline);
            }
            Work::OutletsOn { outlets, .. } => return power::switch(&self.site, &outlets, Relay::On, deadline),
        };
        done.map_or_else(Outcome::Failed, |_said| Outcome::Succeeded)
    }

    /// The disks of a VM, for as long as what is returned lives.
    fn disks_of(&self, vm: &VmName, deadline: Instant) -> Result<Held, String> {
        files::wait_for_them(deadline)?;
        self.disks.have(&files::parse(vm)?.network_disks(), deadline)
    }

    fn create(&self, vm: &VmName, deadline: Instant) -> Result<String, String> {
        // libxl looks at the devices when it plans a domain: they must be there before, and stay.
        let _held = self.disks_of(vm, deadline)?;
        let path = files::path_of(vm);
        let mut arguments = vec![OsStr::new("create"), path.as_os_str()];
        arguments.extend(files::type_override(&path)?.map(OsStr::new));
        xl(arguments, deadline)
    }

    fn receive(&self, vm: &VmName, generation: Generation, from: Slot, deadline: Instant) -> Result<String, String> {
        let _held = self.disks_of(vm, deadline)?;
        let mut command = Command::new(HOLDFAST);
        let address = self.site.config.node(from).address.to_string();
        command.args(["pull", vm.as_str(), &generation.0.to_string(), &address]).stdin(Stdio::null());
        child::run(command, deadline)
    }
}

fn push(vm: &VmName, socket: Option<UnixStream>, deadline: Instant) -> Result<String, String> {
    let mut socket = socket.ok_or("whoever asked for it does not wait any more")?;
    pulls::go(&mut socket).map_err(|error| format!("whoever asked for it does not wait any more: {error}"))?;
    // The name of the other end is for the transport, which is ours and needs none.
    child::run(migrate::push(vm.as_str(), "target", socket.into()), deadline)
}
