//! The orderly end: services in the reverse of their order, what they left, the disks, the power.

use std::fs;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::mount::UnmountFlags;
use rustix::process::PidfdFlags;
use rustix::system::RebootCommand;

use super::report;
use super::services::Services;
use crate::watchdog;

/// How long one service may take to end.
const PATIENCE: Timespec = Timespec { tv_sec: 3, tv_nsec: 0 };
/// What processes that are no services get between being asked to end and being ended.
const GRACE: Duration = Duration::from_millis(300);
/// How long all of it may take: a disk that hangs must not keep the machine on.
const LAST_RESORT: Duration = Duration::from_secs(15);
// The supervisor no longer pets: what hangs must go off before the watchdog has it boot again.
const _: () = assert!(LAST_RESORT.as_secs() < watchdog::TIMEOUT.as_secs());
/// File systems that hold nothing worth an orderly end.
const OF_THE_KERNEL: [&str; 9] =
    ["rootfs", "proc", "sysfs", "devtmpfs", "devpts", "tmpfs", "ramfs", "xenfs", "configfs"];
/// Where the kernel's lock manager (DLM) shows its lockspaces.
const LOCKSPACES: &str = "/sys/kernel/dlm";
/// Every process but init itself.
const EVERYONE: Pid = Pid::from_raw(-1);

/// Ends everything, and the machine with it.
pub(super) fn run(services: &Services, command: RebootCommand) -> ! {
    report::progress(if command == RebootCommand::PowerOff { "powering off" } else { "rebooting" });
    thread::spawn(move || {
        thread::sleep(LAST_RESORT);
        report::failure("something hangs; the machine goes without it");
        end(command)
    });
    for (name, pid) in services.running() {
        stop(&name, pid);
        if name == super::boot::SUPERVISOR {
            // Before the processes that carry the network disks are gone.
            unmount();
        }
    }
    let _ = kill(EVERYONE, Signal::SIGTERM);
    thread::sleep(GRACE);
    let _ = kill(EVERYONE, Signal::SIGKILL);
    unmount();
    if !waits_for_farewell() {
        rustix::fs::sync();
    }
    end(command)
}

/// Asks a service to end, and ends it where it does not.
fn stop(name: &str, pid: rustix::process::Pid) {
    let Ok(process) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else {
        return;
    };
    let _ = rustix::process::pidfd_send_signal(&process, rustix::process::Signal::TERM);
    match rustix::event::poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&PATIENCE)) {
        Ok(1) => {}
        _ => {
            report::failure(&format!("{name} does not end when asked"));
            let _ = rustix::process::pidfd_send_signal(&process, rustix::process::Signal::KILL);
        }
    }
}

/// Whether the kernel still has a lockspace of a shared file system. Who has left one waits for the others' farewell, for minutes
/// if they are on their way out as well, and so would a `sync`; nothing else is mounted by then.
fn waits_for_farewell() -> bool {
    fs::read_dir(LOCKSPACES).is_ok_and(|mut spaces| spaces.next().is_some())
}

/// Unmounts every file system that is on a disk, the last mounted first.
fn unmount() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for target in on_disk(&mounts).into_iter().rev() {
        if let Err(error) = rustix::mount::unmount(target, UnmountFlags::empty()) {
            report::failure(&format!("unmount {target}: {error}"));
        }
    }
}

/// The targets in `mounts` (as in `/proc/self/mounts`) that hold a disk.
fn on_disk(mounts: &str) -> Vec<&str> {
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (target, kind) = (words.next()?, words.next()?);
            (!OF_THE_KERNEL.contains(&kind)).then_some(target)
        })
        .collect()
}

/// Never returns: the kernel refuses this only to those who are not PID 1.
fn end(command: RebootCommand) -> ! {
    loop {
        if let Err(error) = rustix::system::reboot(command) {
            report::failure(&format!("the kernel does not let the machine go: {error}"));
        }
        thread::sleep(GRACE);
    }
}

#[cfg(test)]
mod tests {
    use super::on_disk;

    #[test]
    fn only_disks_are_unmounted() {
        let mounts = "rootfs / rootfs rw 0 0\nproc /proc proc rw 0 0\n/dev/gnbd/shared /shared squashfs ro 0 0\n\
                      none /sys/kernel/config configfs rw 0 0\n/dev/vda1 /media vfat ro 0 0\nbroken\n";
        assert_eq!(on_disk(mounts), ["/shared", "/media"]);
    }
}
