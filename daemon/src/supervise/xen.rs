//! What Xen runs here and could still give, asked of the hypervisor itself.
//!
//! `xl list` takes half a second of an emulated processor, and is wanted twice a second. So the list of domains and the
//! free memory come from the hypervisor by two hypercalls (Xen 4.17's `public/sysctl.h`), and the names from xenstore.
//! A hypervisor of another interface refuses them by the version that every request carries.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use cluster::event::{Domain, Event, Machine};
use cluster::words::Mebibytes;

use crate::sys::Hypercall;
use crate::xenstore::Xenstore;

/// `XEN_SYSCTL_INTERFACE_VERSION` of Xen 4.17.
const INTERFACE: u32 = 0x15;
/// `XEN_SYSCTL_physinfo`.
const PHYSINFO: u32 = 3;
/// `XEN_SYSCTL_getdomaininfolist`.
const DOMAINS: u32 = 6;
/// Bytes of a `struct xen_domctl_getdomaininfo`.
const INFO_BYTES: usize = 112;
/// Pages of 4 KiB in a mebibyte.
const PAGES_PER_MEBIBYTE: u64 = 256;
/// `SHUTDOWN_suspend`: not an end, but a pause in which a domain is sent or saved.
const SUSPENDED: u32 = 2;

/// A way to ask.
#[derive(Debug)]
pub(super) struct Xen {
    hypercall: Hypercall,
    store: Xenstore,
}

impl Xen {
    /// Opens it.
    ///
    /// # Errors
    /// This is not Xen's first domain, or xenstored does not run.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { hypercall: Hypercall::open()?, store: Xenstore::open()? })
    }

    /// Everything that runs, and what is free. After an error this must be opened anew.
    ///
    /// # Errors
    /// What Xen or xenstored answered.
    pub(super) fn read(&mut self) -> io::Result<Event> {
        let mut domains = BTreeMap::new();
        for (id, domain) in self.domains()? {
            match self.store.read(&format!("/local/domain/{id}/name")) {
                Ok(name) => drop(domains.insert(name, domain)),
                // It has no name yet, or none any more: it is no VM.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let free = self.free()?;
        Ok(Event::Seen { domains, free })
    }

    /// The block devices that domains here use, as their configuration names them.
    ///
    /// # Errors
    /// What xenstored answered.
    pub(super) fn disks(&mut self) -> io::Result<BTreeSet<String>> {
        const BACKENDS: &str = "/local/domain/0/backend/vbd";
        let mut disks = BTreeSet::new();
        for domain in self.list(BACKENDS)? {
            for device in self.list(&format!("{BACKENDS}/{domain}"))? {
                match self.store.read(&format!("{BACKENDS}/{domain}/{device}/params")) {
                    Ok(path) => drop(disks.insert(path)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(disks)
    }

    /// The names in a directory of xenstore, none if it does not exist.
    fn list(&mut self, path: &str) -> io::Result<Vec<String>> {
        match self.store.list(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other,
        }
    }

    /// Every domain but the first, by its id.
    fn domains(&mut self) -> io::Result<Vec<(u16, Domain)>> {
        let capacity = Hypercall::SPACE / INFO_BYTES;
        let mut request = request(DOMAINS);
        // first_domain, max_domains, buffer: everything from domain 1 on.
        put(&mut request, 8, &1_u16.to_le_bytes());
        put(&mut request, 12, &u32::try_from(capacity).unwrap_or(u32::MAX).to_le_bytes());
        put(&mut request, 16, &self.hypercall.address().to_le_bytes());
        self.hypercall.sysctl(&mut request)?;
        let count = usize::try_from(word(&request, 24)).unwrap_or(usize::MAX);
        let infos = self.hypercall.space().chunks_exact(INFO_BYTES).take(count);
        Ok(infos.map(domain).collect())
    }

    fn free(&mut self) -> io::Result<Mebibytes> {
        let mut request = request(PHYSINFO);
        self.hypercall.sysctl(&mut request)?;
        Ok(free(&request))
    }
}

/// What this machine is.
///
/// # Errors
/// What Xen answered, in words for the operator.
pub(super) fn machine() -> Result<Machine, String> {
    let ask = || -> io::Result<Machine> {
        let mut request = request(PHYSINFO);
        Hypercall::open()?.sysctl(&mut request)?;
        Ok(described(&request))
    };
    ask().map_err(|error| format!("Xen: {error}"))
}

/// What `struct xen_sysctl_physinfo` says of the machine: `total_pages` and the words of `hw_cap`.
fn described(request: &[u8]) -> Machine {
    let memory = u32::try_from(pages(request, 8 + 40) / PAGES_PER_MEBIBYTE).unwrap_or(u32::MAX);
    let cpu = (0..8).map(|at| word(request, 8 + 80 + 4 * at)).collect();
    Machine { memory: Mebibytes(memory), cpu }
}

/// An empty request: `cmd`, `interface_version`, and 128 bytes for what belongs to the command.
fn request(command: u32) -> [u8; Hypercall::REQUEST] {
    let mut request = [0; Hypercall::REQUEST];
    put(&mut request, 0, &command.to_le_bytes());
    put(&mut request, 4, &INTERFACE.to_le_bytes());
    request
}

/// The id and the condition in a `struct xen_domctl_getdomaininfo`.
fn domain(info: &[u8]) -> (u16, Domain) {
    let id = u16::try_from(word(info, 0) & 0xffff).unwrap_or(u16::MAX);
    let flags = word(info, 4);
    let [dying, shut, paused] = [0, 2, 3].map(|bit| flags >> bit & 1 == 1);
    let suspended = flags >> 16 & 0xff == SUSPENDED;
    let condition = if dying || (shut && !suspended) {
        Domain::Dying
    } else if paused || shut {
        Domain::Paused
    } else {
        Domain::Running
    };
    (id, condition)
}

/// What `struct xen_sysctl_physinfo` says is free: pages that are free or only wait to be scrubbed, less those promised.
fn free(request: &[u8]) -> Mebibytes {
    let [free, scrub, promised] = [8 + 48, 8 + 56, 8 + 64].map(|at| pages(request, at));
    let pages = free.saturating_add(scrub).saturating_sub(promised);
    Mebibytes(u32::try_from(pages / PAGES_PER_MEBIBYTE).unwrap_or(u32::MAX))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..value.len())) {
        place.copy_from_slice(value);
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    u32::from_le_bytes(found.copied().unwrap_or_default())
}

fn pages(bytes: &[u8], at: usize) -> u64 {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    u64::from_le_bytes(found.copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(id: u16, flags: u32) -> Vec<u8> {
        let mut info = vec![0; INFO_BYTES];
        put(&mut info, 0, &id.to_le_bytes());
        put(&mut info, 4, &flags.to_le_bytes());
        info
    }

    #[test]
    fn conditions_are_told_apart() {
        // The flags as `xl list` shows them: running, blocked, paused, dying, crashed, suspended; all with HAP (bit 8).
        for (flags, condition) in [
            (0x122, Domain::Running),
            (0x112, Domain::Running),
            (0x102, Domain::Running),
            (0x10a, Domain::Paused),
            (0x103, Domain::Dying),
            (0x3_0106, Domain::Dying),
            (0x2_0106, Domain::Paused),
            (0x2_0107, Domain::Dying),
        ] {
            assert_eq!(domain(&info(7, flags)), (7, condition), "{flags:#x}");
        }
    }

    #[test]
    fn free_memory_is_what_is_not_promised() {
        let mut answer = request(PHYSINFO);
        put(&mut answer, 56, &25_600_u64.to_le_bytes());
        put(&mut answer, 64, &512_u64.to_le_bytes());
        put(&mut answer, 72, &256_u64.to_le_bytes());
        put(&mut answer, 48, &262_144_u64.to_le_bytes());
        put(&mut answer, 88, &0x178b_fbff_u32.to_le_bytes());
        assert_eq!(free(&answer), Mebibytes(101));
        let machine = described(&answer);
        assert_eq!((machine.memory, machine.cpu.first()), (Mebibytes(1024), Some(&0x178b_fbff)));
    }
}
