//! The kernel's half of the shared file system: the DLM's lockspace in configfs and sysfs, written as `dlm_controld` would
//! write it (Linux `fs/dlm/config.c`, `fs/dlm/lockspace.c`).
//!
//! A node's number in the DLM is its slot's, counted from 1.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use cluster::config::SHARED;
use cluster::words::Slot;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, netlink};

/// What every member calls the lockspace in its messages: any number, but the same everywhere.
const ID: &str = "1396851026";
/// Of `recover_status`: this node's part of a recovery is done (DLM_RS_DONE).
const DONE: u32 = 0x40;
/// Bytes of a `struct sockaddr_storage`.
const SOCKADDR: usize = 128;

/// The lockspace in this machine's kernel.
#[derive(Debug)]
pub(super) struct Lockspace {
    /// The DLM's folder in configfs.
    config: PathBuf,
    /// The lockspace's in sysfs; there while the kernel has the lockspace.
    sysfs: PathBuf,
}

impl Lockspace {
    /// The kernel's own.
    pub(super) fn new() -> Self {
        Self { config: "/sys/kernel/config/dlm".into(), sysfs: Path::new("/sys/kernel/dlm").join(SHARED) }
    }

    /// One whose folders are in a directory.
    #[cfg(test)]
    pub(super) fn at(directory: &Path) -> Self {
        Self { config: directory.join("config"), sysfs: directory.join("sysfs") }
    }

    /// Whether the kernel has it.
    pub(super) fn is_there(&self) -> bool {
        self.sysfs.is_dir()
    }

    /// Tells the DLM the cluster's name and this node's own address, if it does not know them.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub(super) fn introduce(&self, name: &str, own: (Slot, Ipv4Addr)) -> io::Result<()> {
        let cluster = self.config.join("cluster");
        if make(&cluster)? {
            // A newline would become a part of it.
            write(&cluster.join("cluster_name"), name.as_bytes())?;
            // Without it GFS2 waits for a daemon that is no more, gfs_controld.
            write(&cluster.join("recover_callbacks"), b"1")?;
        }
        if self.meet(own.0, own.1)? {
            write(&self.peer(own.0).join("local"), b"1")?;
        }
        Ok(())
    }

    /// Tells the DLM where a node is; whether it did not know.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub(super) fn meet(&self, slot: Slot, address: Ipv4Addr) -> io::Result<bool> {
        let peer = self.peer(slot);
        let new = make(&peer)?;
        if new {
            write(&peer.join("nodeid"), number(slot).as_bytes())?;
            write(&peer.join("addr"), &sockaddr(address))?;
        }
        Ok(new)
    }

    /// Has the DLM forget a node, and all that it remembers of their talks: they are numbered, and another boot of that node
    /// begins again. Only for one that is no member any more, and while the lockspace is stopped.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub(super) fn forget(&self, slot: Slot) -> io::Result<()> {
        let peer = self.peer(slot);
        match fs::remove_dir(&peer) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(about(&peer, error)),
            _ => Ok(()),
        }
    }

    fn peer(&self, slot: Slot) -> PathBuf {
        self.config.join("cluster/comms").join(number(slot))
    }

    /// Writes who is a member from the next start on.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub(super) fn set_members(&self, members: &[Slot]) -> io::Result<()> {
        let space = self.config.join("cluster/spaces").join(SHARED);
        make(&space)?;
        let nodes = space.join("nodes");
        let wanted: Vec<String> = members.iter().map(|slot| number(*slot)).collect();
        for entry in fs::read_dir(&nodes)? {
            let entry = entry?;
            if !wanted.iter().any(|name| entry.file_name() == name.as_str()) {
                fs::remove_dir(entry.path())?;
            }
        }
        for name in wanted {
            let node = nodes.join(&name);
            if make(&node)? {
                write(&node.join("nodeid"), name.as_bytes())?;
                write(&node.join("weight"), b"1")?;
            }
        }
        Ok(())
    }

    /// Stops it: no lock is granted until it is started again.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub(super) fn stop(&self) -> io::Result<()> {
        write(&self.sysfs.join("control"), b"0")
    }

    /// Starts it with the members that were written; a mount that waits for that goes on.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub(super) fn start(&self) -> io::Result<()> {
        write(&self.sysfs.join("id"), ID.as_bytes())?;
        match write(&self.sysfs.join("control"), b"1") {
            // It runs.
            Err(error) if error.kind() != ErrorKind::InvalidInput => Err(error),
            _ => self.go_on(),
        }
    }

    /// Lets a mount or an unmount go on that waits for the cluster's word.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub(super) fn go_on(&self) -> io::Result<()> {
        write(&self.sysfs.join("event_done"), b"0")
    }

    /// Whether the recovery after the last start has ended here.
    pub(super) fn has_recovered(&self) -> bool {
        let status = fs::read_to_string(self.sysfs.join("recover_status")).unwrap_or_default();
        u32::from_str_radix(status.trim(), 16).is_ok_and(|status| status & DONE != 0)
    }
}

/// The kernel's word that it leaves the lockspace, from when this was opened (an uevent; Linux `lib/kobject_uevent.c`).
#[derive(Debug)]
pub(super) struct Leaving(OwnedFd);

impl Leaving {
    /// Begins to listen.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub(super) fn open() -> io::Result<Self> {
        let protocol = Some(netlink::KOBJECT_UEVENT);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, protocol)?;
        // The kernel's own events are the first group's.
        rustix::net::bind(&socket, &netlink::SocketAddrNetlink::new(0, 1))?;
        Ok(Self(socket))
    }

    /// Whether it was said since this was asked last.
    pub(super) fn is_said(&self) -> bool {
        let mut buffer = [0; 4096];
        let mut said = false;
        while let Ok((length, _)) = rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty()) {
            said |= leaves(buffer.get(..length).unwrap_or_default());
        }
        said
    }
}

fn leaves(event: &[u8]) -> bool {
    let what = event.split(|byte| *byte == 0).next().unwrap_or_default();
    what == format!("offline@/kernel/dlm/{SHARED}").as_bytes()
}

/// Whether the file system has given up (`/sys/fs/gfs2/TABLE/withdraw`).
pub(super) fn has_withdrawn(table: &str) -> bool {
    fs::read_to_string(Path::new("/sys/fs/gfs2").join(table).join("withdraw")).is_ok_and(|text| text.trim() == "1")
}

/// Whether the file system recovers journals, or waits for the lockspace to do so with its locks (`/sys/fs/gfs2/TABLE/lock_module/block`).
pub(super) fn recovers_journals(table: &str) -> bool {
    let block = Path::new("/sys/fs/gfs2").join(table).join("lock_module/block");
    fs::read_to_string(block).is_ok_and(|text| text.trim() == "1")
}

/// Makes a directory; whether it was missing.
fn make(directory: &Path) -> io::Result<bool> {
    match fs::create_dir(directory) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(about(directory, error)),
    }
}

fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::write(file, bytes).map_err(|error| about(file, error))
}

fn about(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn number(slot: Slot) -> String {
    (u32::from(slot.0) + 1).to_string()
}

/// `struct sockaddr_storage` of an IPv4 address.
fn sockaddr(address: Ipv4Addr) -> [u8; SOCKADDR] {
    const AF_INET: u16 = 2;
    let mut bytes = [0; SOCKADDR];
    let fields = AF_INET.to_ne_bytes().into_iter().chain([0, 0]).chain(address.octets());
    bytes.iter_mut().zip(fields).for_each(|(byte, field)| *byte = field);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What configfs and sysfs hold after each step; that the kernel obeys is for the rack to show.
    #[test]
    fn members_come_and_go() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let kernel = Lockspace { config: root.join("dlm"), sysfs: root.join("sysfs") };
        for made_by_the_kernel in ["dlm/cluster/comms", "dlm/cluster/spaces/shared/nodes"] {
            fs::create_dir_all(root.join(made_by_the_kernel)).unwrap();
        }
        fs::remove_dir_all(root.join("dlm/cluster/comms")).unwrap();
        let [own, other] = [(Slot(2), Ipv4Addr::new(100, 127, 94, 3)), (Slot(1), Ipv4Addr::new(100, 127, 94, 2))];
        assert!(kernel.introduce("lab", own).is_err());
        fs::create_dir(root.join("dlm/cluster/comms")).unwrap();
        for new in [true, false] {
            kernel.introduce("lab", own).unwrap();
            assert_eq!(kernel.meet(other.0, other.1).unwrap(), new);
        }
        let said = |file: &str| fs::read(root.join("dlm/cluster").join(file)).unwrap();
        assert_eq!(said("comms/2/nodeid"), b"2");
        assert_eq!(said("comms/3/local"), b"1");
        assert_eq!(said("comms/2/addr")[..8], [2, 0, 0, 0, 100, 127, 94, 2]);
        assert_eq!(said("comms/2/addr").len(), 128);
        kernel.set_members(&[Slot(1), Slot(2)]).unwrap();
        assert_eq!(said("spaces/shared/nodes/3/weight"), b"1");
    }

    #[test]
    fn only_this_lockspaces_end_is_heard() {
        assert!(leaves(b"offline@/kernel/dlm/shared\0ACTION=offline\0LOCKSPACE=shared\0"));
        for other in [&b"online@/kernel/dlm/shared\0"[..], b"offline@/kernel/dlm/shared2\0", b"", b"\0\0"] {
            assert!(!leaves(other));
        }
        assert!(!Leaving::open().unwrap().is_said());
    }

    #[test]
    fn recovery_is_over_when_this_nodes_part_is_done() {
        let directory = tempfile::tempdir().unwrap();
        let kernel = Lockspace { config: "/nonexistent".into(), sysfs: directory.path().into() };
        for (status, over) in [("0\n", false), ("3f\n", false), ("7f\n", true), ("ff\n", true), ("what", false)] {
            fs::write(directory.path().join("recover_status"), status).unwrap();
            assert_eq!(kernel.has_recovered(), over, "{status}");
        }
    }
}
