//! Which system calls are harmless, which each process needs beside them, and which nobody ever makes.

use nix::libc;
use rustix::fs::OFlags;
use rustix::mm::ProtFlags;
use rustix::net::AddressFamily;

/// Calls that no service of ours ever makes: another program's memory, other kernels and modules, other file systems, and what
/// was most often the way into the kernel.
pub(super) const NEVER: [i64; 39] = [
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_by_handle_at,
    libc::SYS_mknod,
    libc::SYS_mknodat,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
];

/// As [`NEVER`], of those that start nobody.
pub(super) const NO_OTHER_PROGRAM: [i64; 2] = [libc::SYS_execve, libc::SYS_execveat];

/// Calls that reach nothing but what is open already: memory, time, signals, waiting, reading and writing, the end.
const HARMLESS: [i64; 52] = [
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_brk,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_signalfd4,
    libc::SYS_restart_syscall,
    libc::SYS_sendfile,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// What a menu asks of its terminal and its socket, as Linux' `asm-generic/ioctls.h` numbers it: `TCGETS`, `TCSETS`,
/// `TCSETSW`, `TCSETSF`, `TIOCGWINSZ`, `FIONBIO`, `TCGETS2`, `TCSETS2`, `TCSETSW2`, `TCSETSF2`. To type for somebody is not among it.
const TERMINAL: [u64; 10] =
    [0x5401, 0x5402, 0x5403, 0x5404, 0x5413, 0x5421, 0x802c_542a, 0x402c_542b, 0x402c_542c, 0x402c_542d];

/// Linux' `CLONE_THREAD`: what is made is a thread, not a process.
const CLONE_THREAD: u64 = 0x1_0000;
/// All of an argument of 32 bits.
const ALL: u64 = 0xffff_ffff;

/// A call that is on a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    /// Its number.
    pub(super) number: i64,
    /// On what it depends, if on anything.
    pub(super) only: Option<Only>,
}

/// Which argument decides about a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Only {
    /// The argument's index.
    pub(super) argument: u8,
    /// The bits that are looked at, of the lower 32.
    pub(super) mask: u64,
    /// What they must be.
    pub(super) value: u64,
}

/// Whatever its arguments are.
pub(super) const fn any(number: i64) -> Call {
    Call { number, only: None }
}

const fn only(number: i64, argument: u8, mask: u64, value: u64) -> Call {
    Call { number, only: Some(Only { argument, mask, value }) }
}

/// What every process of ours may call. It makes no memory executable, and of all processes it can only end itself.
fn of_all() -> Vec<Call> {
    let executable = u64::from(ProtFlags::EXEC.bits());
    let mut calls: Vec<Call> = HARMLESS.into_iter().map(any).collect();
    calls.push(only(libc::SYS_mmap, 2, executable, 0));
    calls.push(only(libc::SYS_mprotect, 2, executable, 0));
    let own = u64::from(std::process::id());
    calls.extend([libc::SYS_tkill, libc::SYS_tgkill].map(|number| only(number, 0, ALL, own)));
    calls
}

/// What a menu may call: it talks with its terminal, and with whoever listens on a path.
pub(super) fn of_menu() -> Vec<Call> {
    let mut calls = of_all();
    let local = u64::from(AddressFamily::UNIX.as_raw());
    calls.extend([libc::SYS_socket, libc::SYS_socketpair].map(|number| only(number, 0, ALL, local)));
    calls.push(any(libc::SYS_connect));
    calls.extend(TERMINAL.map(|request| only(libc::SYS_ioctl, 1, ALL, request)));
    calls
}

/// What the server of boot files may call: it takes connections, each in a thread, and opens files for reading.
pub(super) fn of_boot_files() -> Vec<Call> {
    let write = OFlags::ACCMODE | OFlags::CREATE | OFlags::TRUNC;
    let write = u64::from(write.bits());
    let mut calls = of_all();
    calls.push(any(libc::SYS_accept4));
    calls.push(only(libc::SYS_open, 1, write, 0));
    calls.push(only(libc::SYS_openat, 2, write, 0));
    calls.push(only(libc::SYS_clone, 0, CLONE_THREAD, CLONE_THREAD));
    calls
}
