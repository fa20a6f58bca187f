//! The system calls for which no safe wrapper exists: the only unsafe code of this package.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::SigSet;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::ioctl::{Direction, Getter, NoArg, Opcode, Updater, ioctl, opcode};
use rustix::mm::{MapFlags, ProtFlags, mmap};

use crate::confine::Foreign;

/// How a service of init differs from init itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChildSetup {
    /// The kernel's `oom_score_adj`, -1000 (never) to 1000.
    pub(crate) oom_score_adj: i16,
    /// Whether standard input is to become the child's controlling terminal. Who talks with an operator does so with
    /// nobody's rights but those of [`MENU`].
    pub(crate) terminal: bool,
}

/// The user and the group of the menus: they can use their terminal and the supervisor's socket, and read no secret.
pub(crate) const MENU: u32 = 1;
/// The user and the group of what serves the nodes' boot; dnsmasq knows it by its name.
pub(crate) const BOOT: u32 = 2;

/// Lets `command` start in a session of its own, with no signal blocked, as `setup` says, and unable ever to gain rights.
pub(crate) fn set_up_child(command: &mut Command, setup: ChildSetup) {
    let score = setup.oom_score_adj.to_string();
    let prepare = move || -> io::Result<()> {
        SigSet::empty().thread_set_mask()?;
        rustix::process::setsid()?;
        if setup.terminal {
            // SAFETY: standard input is open: the caller gave the terminal as the command's standard input.
            let terminal = unsafe { BorrowedFd::borrow_raw(0) };
            rustix::process::ioctl_tiocsctty(terminal.as_fd())?;
        }
        let file = rustix::fs::open("/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::write(file, score.as_bytes())?;
        rustix::thread::set_no_new_privs(true)?;
        if setup.terminal {
            become_user(MENU)?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec `prepare` makes system calls only; it takes no lock and allocates nothing.
    unsafe { command.pre_exec(prepare) };
}

/// Gives up root's rights, for those of a user and the group of the same number. The calling process must have one thread.
///
/// # Errors
/// It was not root.
pub(crate) fn become_user(user: u32) -> io::Result<()> {
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_gid(Gid::from_raw(user))?;
    Ok(rustix::thread::set_thread_uid(Uid::from_raw(user))?)
}

/// Lets `command` start confined; the last that is done before it starts.
pub(crate) fn confine_child(command: &mut Command, mut foreign: Foreign) {
    // SAFETY: between fork and exec `confine` makes system calls only; it takes no lock and, unless it fails, allocates nothing.
    unsafe { command.pre_exec(move || foreign.confine()) };
}

/// `struct privcmd_hypercall` of Linux' `xen/privcmd.h`: the hypercall's number and its five arguments.
type PrivcmdHypercall = [u64; 6];
/// `IOCTL_PRIVCMD_HYPERCALL`.
const PRIVCMD_HYPERCALL: Opcode = opcode::from_components(Direction::None, b'P', 0, size_of::<PrivcmdHypercall>());
/// `__HYPERVISOR_sysctl` of `xen.h`.
const SYSCTL: u64 = 35;
/// Bytes of a page.
const PAGE: usize = 4096;

/// Xen's hypercall `sysctl`, and memory that the hypervisor may read and write. Made once: its memory is never unmapped.
#[derive(Debug)]
pub(crate) struct Hypercall {
    privcmd: File,
    /// One page for the request, and [`Hypercall::SPACE`] bytes behind it.
    memory: &'static mut [u8],
}

impl Hypercall {
    /// Bytes of a `struct xen_sysctl`.
    pub(crate) const REQUEST: usize = 136;
    /// Bytes for what does not fit a request.
    pub(crate) const SPACE: usize = 8 * PAGE;

    /// Opens the way to the hypervisor.
    ///
    /// # Errors
    /// This is not Xen's first domain.
    pub(crate) fn open() -> io::Result<Self> {
        let open = |path| OpenOptions::new().read(true).write(true).open(path);
        let privcmd = open("/dev/xen/privcmd")?;
        // The kernel never moves or drops the pages of this device, as it might with ordinary memory.
        let pages = open("/dev/xen/hypercall")?;
        let length = PAGE + Self::SPACE;
        let flags = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe { mmap(std::ptr::null_mut(), length, flags, MapFlags::SHARED, &pages, 0) }?;
        // SAFETY: the mapping is `length` readable and writable bytes, ours alone, zeroed, and never unmapped; the
        // hypervisor writes to it only during `sysctl`, which holds it mutably.
        let memory = unsafe { std::slice::from_raw_parts_mut(start.cast::<u8>(), length) };
        Ok(Self { privcmd, memory })
    }

    /// Where [`Hypercall::space`] is, for a request that names a buffer.
    pub(crate) fn address(&self) -> u64 {
        u64::try_from(self.space().as_ptr().expose_provenance()).unwrap_or(u64::MAX)
    }

    /// What the last request filled its buffer with.
    pub(crate) fn space(&self) -> &[u8] {
        self.memory.get(PAGE..).unwrap_or_default()
    }

    /// Makes a request, which becomes its answer. A buffer that it names must be [`Hypercall::address`], and no more than
    /// [`Hypercall::SPACE`] bytes of it.
    ///
    /// # Errors
    /// What the hypervisor refuses; `PermissionDenied` where its interface is another version's.
    pub(crate) fn sysctl(&mut self, request: &mut [u8; Self::REQUEST]) -> io::Result<()> {
        let Some(place) = self.memory.first_chunk_mut() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        *place = *request;
        let address = place.as_mut_ptr().cast::<c_void>().expose_provenance();
        let mut call: PrivcmdHypercall = [SYSCTL, u64::try_from(address).unwrap_or(u64::MAX), 0, 0, 0, 0];
        // SAFETY: the opcode takes a `struct privcmd_hypercall`, which `call` is; the hypervisor writes to the request, and
        // to the buffer that the caller promises to be our own memory.
        unsafe { ioctl(&self.privcmd, Updater::<'_, PRIVCMD_HYPERCALL, PrivcmdHypercall>::new(&mut call)) }?;
        *request = *place;
        Ok(())
    }
}

/// `struct watchdog_info` of Linux' `linux/watchdog.h`.
#[repr(C)]
struct WatchdogInfo {
    options: u32,
    firmware_version: u32,
    identity: [u8; 32],
}

/// `WDIOC_GETSUPPORT` of Linux' `linux/watchdog.h`.
const WDIOC_GETSUPPORT: Opcode = opcode::read::<WatchdogInfo>(b'W', 0);

/// The name that a watchdog's driver gives itself.
///
/// # Errors
/// What its driver refuses.
pub(crate) fn watchdog_identity(device: &File) -> io::Result<String> {
    // SAFETY: the opcode writes one `WatchdogInfo`, which any bytes are.
    let info = unsafe { ioctl(device, Getter::<WDIOC_GETSUPPORT, WatchdogInfo>::new()) }?;
    let name = info.identity.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// `WDIOC_SETTIMEOUT` of Linux' `linux/watchdog.h`.
const WDIOC_SETTIMEOUT: Opcode = opcode::read_write::<i32>(b'W', 6);

/// Sets how long a watchdog waits for a pet, in whole seconds, and has it wait anew.
///
/// # Errors
/// What its driver refuses.
pub(crate) fn set_watchdog_timeout(device: &File, timeout: Duration) -> io::Result<()> {
    let mut seconds = i32::try_from(timeout.as_secs()).map_err(io::Error::other)?;
    // SAFETY: the opcode reads and writes one int, which `seconds` is.
    unsafe { ioctl(device, Updater::<'_, WDIOC_SETTIMEOUT, i32>::new(&mut seconds)) }?;
    Ok(())
}

/// `BLKRRPART` of Linux' `linux/fs.h`.
const BLKRRPART: Opcode = opcode::none(0x12, 95);

/// Has the kernel read a disk's partition table anew.
///
/// # Errors
/// A partition is in use, or it is no disk.
pub(crate) fn reread_partitions(disk: &File) -> io::Result<()> {
    // SAFETY: the opcode takes no argument and touches no memory of ours.
    Ok(unsafe { ioctl(disk, NoArg::<BLKRRPART>::new()) }?)
}

/// Lets `command` inherit `descriptor` as its descriptor 3.
pub(crate) fn give_descriptor_3(command: &mut Command, descriptor: OwnedFd) {
    let prepare = move || -> io::Result<()> {
        // SAFETY: the child owns no descriptor 3 that anything refers to; forgotten below, it stays open across exec.
        let mut three = unsafe { OwnedFd::from_raw_fd(3) };
        let result = rustix::io::dup2(&descriptor, &mut three);
        std::mem::forget(three);
        Ok(result?)
    };
    // SAFETY: between fork and exec `prepare` makes one system call; it takes no lock and allocates nothing.
    unsafe { command.pre_exec(prepare) };
}

/// The descriptor 3 that this program was given.
///
/// # Errors
/// It was given none.
pub(crate) fn take_descriptor_3() -> io::Result<OwnedFd> {
    // SAFETY: it is only asked whether it is open, and taken once, before this program opens anything itself.
    rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(3) })?;
    // SAFETY: it is open, and nothing else in this program refers to it.
    Ok(unsafe { OwnedFd::from_raw_fd(3) })
}

/// Lets whoever started this process trace it.
///
/// # Errors
/// It is traced already.
#[cfg(test)]
pub(crate) fn let_be_traced() -> io::Result<()> {
    use nix::libc;
    let nothing = std::ptr::null_mut::<c_void>();
    // SAFETY: the request looks at none of the other arguments.
    let result = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, nothing, nothing) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::{ChildSetup, MENU, set_up_child};

    /// What the kernel says of a process that was set up; this needs root, as the rack does.
    fn status(terminal: bool) -> String {
        let pty = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&pty).unwrap();
        unlockpt(&pty).unwrap();
        let name = ptsname(&pty, Vec::new()).unwrap().into_string().unwrap();
        let input = std::fs::OpenOptions::new().read(true).write(true).open(name).unwrap();
        let mut command = Command::new("cat");
        command.arg("/proc/self/status").stdin(input).stdout(Stdio::piped());
        set_up_child(&mut command, ChildSetup { oom_score_adj: 0, terminal });
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }

    #[test]
    fn who_has_a_terminal_has_no_rights() {
        let has = |status: &str, line: &str| status.lines().any(|found| found.trim_end() == line);
        let menu = status(true);
        for line in [
            &format!("Uid:\t{MENU}\t{MENU}\t{MENU}\t{MENU}"),
            &format!("Gid:\t{MENU}\t{MENU}\t{MENU}\t{MENU}"),
            "Groups:",
            "CapPrm:\t0000000000000000",
            "CapEff:\t0000000000000000",
            "NoNewPrivs:\t1",
        ] {
            assert!(has(&menu, line), "{line}: {menu}");
        }
        let other = status(false);
        assert!(has(&other, "Uid:\t0\t0\t0\t0") && has(&other, "NoNewPrivs:\t1"), "{other}");
    }
}
