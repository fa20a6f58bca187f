//! Long operations: each is done by a servant thread of its own, which ends at the deadline whatever happens, and whose
//! end is told to the node.

use std::ffi::OsStr;
use std::sync::Arc;

use cluster::event::{Event, Outcome, Work};
use cluster::words::{Instant, OpId, VmName};

use super::child::xl;
use super::files;
use super::mailbox::{Post, Told};
use super::power;
use super::run::servant;
use super::site::Site;
use super::storage::{Disks, Held};

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

    /// Begins an operation. Its end is told as [`Event::Done`], whatever happens.
    pub(super) fn begin(&self, op: OpId, deadline: Instant, work: Work) {
        let desk = Arc::clone(&self.0);
        let done = move |outcome| Told::Event(Event::Done { op, outcome });
        let begun = servant(&format!("operation {}", op.0), move || {
            let outcome = desk.perform(work, deadline);
            desk.post.tell(done(outcome));
        });
        if let Err(reason) = begun {
            self.0.post.tell(done(Outcome::Failed(reason)));
        }
    }
}

impl Desk {
    fn perform(&self, work: Work, deadline: Instant) -> Outcome {
        let done = match work {
            Work::Create { vm, .. } => self.create(&vm, deadline),
            Work::Receive { .. } | Work::Push { .. } => Err("VMs cannot move yet".to_owned()),
            // `-w` waits until the domain is gone, `-F` asks by ACPI where the guest does not listen to xenstore.
            Work::Shutdown { vm } => xl(["shutdown", "-w", "-F", vm.as_str()], deadline),
            Work::Destroy { domain } => xl(["destroy", &domain], deadline),
            Work::OutletsOff { outlets, .. } => return power::switch(&self.site, &outlets, power::Wanted::Off, deadline),
            Work::OutletsOn { outlets, .. } => return power::switch(&self.site, &outlets, power::Wanted::On, deadline),
        };
        done.map_or_else(Outcome::Failed, |_said| Outcome::Succeeded)
    }

    /// The disks of a VM, for as long as what is returned lives.
    fn disks_of(&self, vm: &VmName, deadline: Instant) -> Result<Held, String> {
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
}
