//! What the kernel is forbidden before anything runs: a table of its settings, each with its reason.
//!
//! The network's are set before any card is found: a card starts with what `default` says at that moment.

use std::fs;
use std::io;
use std::path::Path;

use rustix::process::{Resource, Rlimit, setrlimit};

use super::failed;
use super::mounts::all;
use crate::confine;

/// Where the kernel has its settings.
const SETTINGS: &str = "/proc/sys";

/// Files below `/proc/sys`, and what is written there.
const TABLE: [(&str, &str); 38] = [
    // What of the kernel's memory and log helps who wants to break it is nobody's to see.
    ("kernel/kptr_restrict", "2"),
    ("kernel/dmesg_restrict", "1"),
    ("kernel/perf_event_paranoid", "3"),
    // Nothing here is debugged; and this cannot be taken back.
    ("kernel/yama/ptrace_scope", "3"),
    // No other kernel is started from this one: Xen would not know of it.
    ("kernel/kexec_load_disabled", "1"),
    // Nobody but root brings programs into the kernel, and those are hard to build attacks from.
    ("kernel/unprivileged_bpf_disabled", "1"),
    ("net/core/bpf_jit_harden", "2"),
    // Nobody needs to be root of a world of his own: a door to much of the kernel's least used code.
    ("user/max_user_namespaces", "0"),
    ("vm/unprivileged_userfaultfd", "0"),
    // No key at a console goes round the menu.
    ("kernel/sysrq", "0"),
    // Terminals load no line discipline.
    ("dev/tty/ldisc_autoload", "0"),
    // No program that changed its rights leaves its memory behind.
    ("fs/suid_dumpable", "0"),
    // Links and files in /tmp that others have made lead nobody astray.
    ("fs/protected_hardlinks", "1"),
    ("fs/protected_symlinks", "1"),
    ("fs/protected_fifos", "2"),
    ("fs/protected_regular", "2"),
    // Without it the kernel drops all but the first lines of a service that has much to say.
    ("kernel/printk_devkmsg", "on"),
    // A node carries nobody else's packets.
    ("net/ipv4/ip_forward", "0"),
    // A packet comes by the card by which its answer would go.
    ("net/ipv4/conf/all/rp_filter", "1"),
    ("net/ipv4/conf/default/rp_filter", "1"),
    // Nobody tells a node of other ways, and it tells nobody.
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/conf/default/accept_redirects", "0"),
    ("net/ipv4/conf/all/secure_redirects", "0"),
    ("net/ipv4/conf/default/secure_redirects", "0"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    // No sender chooses a packet's way.
    ("net/ipv4/conf/all/accept_source_route", "0"),
    ("net/ipv4/conf/default/accept_source_route", "0"),
    // Who asks on the VMs' bridge for an address of the cluster network gets no answer, and is told none.
    ("net/ipv4/conf/all/arp_ignore", "1"),
    ("net/ipv4/conf/all/arp_announce", "2"),
    // Nobody is amplified, and forged errors are not logged.
    ("net/ipv4/icmp_echo_ignore_broadcasts", "1"),
    ("net/ipv4/icmp_ignore_bogus_error_responses", "1"),
    // A flood of half-open connections shuts no member out.
    ("net/ipv4/tcp_syncookies", "1"),
    // A forged reset does not take a port's last connection for finished.
    ("net/ipv4/tcp_rfc1337", "1"),
    // The packet filter's rules name these ports (firewall.rs).
    ("net/ipv4/ip_local_port_range", "32768 60999"),
    // A cluster's addresses are IPv4, and on the VMs' bridge the node has none; no router gives it any.
    ("net/ipv6/conf/all/accept_ra", "0"),
    ("net/ipv6/conf/all/disable_ipv6", "1"),
    ("net/ipv6/conf/default/disable_ipv6", "1"),
];

/// Once what was to be loaded is loaded, nothing more comes into the kernel; only a reboot opens it again.
const CLOSED: (&str, &str) = ("kernel/modules_disabled", "1");

/// Writes the table, and keeps everybody from leaving a core behind: it would hold the cluster's key.
///
/// # Errors
/// Every setting that the kernel does not have or take; the others are made nevertheless. And that it cannot confine anybody.
pub(super) fn restrict() -> Result<(), String> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let cores = setrlimit(Resource::Core, none).map_err(|error| format!("no core dumps: {error}"));
    all([apply(Path::new(SETTINGS), &TABLE), cores, confine::check()].into_iter())
}

/// Closes the kernel for further modules.
///
/// # Errors
/// It does not close.
pub(super) fn close() -> Result<(), String> {
    apply(Path::new(SETTINGS), &[CLOSED])
}

fn apply(root: &Path, table: &[(&str, &str)]) -> Result<(), String> {
    all(table.iter().map(|(setting, value)| write(&root.join(setting), value).map_err(failed(setting))))
}

/// A kernel without IPv6 has nothing to be kept from.
fn write(setting: &Path, value: &str) -> io::Result<()> {
    match fs::OpenOptions::new().write(true).open(setting) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && setting.iter().any(|part| part == "ipv6") => Ok(()),
        file => io::Write::write_all(&mut file?, format!("{value}\n").as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::{CLOSED, SETTINGS, TABLE, apply};

    #[test]
    fn every_setting_stands_once_and_no_setting_is_made_where_there_is_none() {
        let settings: BTreeSet<_> = TABLE.iter().map(|(setting, _)| setting).collect();
        assert_eq!(settings.len(), TABLE.len());
        let root = tempfile::tempdir().unwrap();
        let refused = apply(root.path(), &TABLE).unwrap_err();
        assert_eq!(refused.matches("No such file").count(), TABLE.len() - 3, "all but IPv6's");
        assert_eq!(root.path().read_dir().unwrap().count(), 0);
        for (setting, _) in TABLE {
            fs::create_dir_all(root.path().join(setting).parent().unwrap()).unwrap();
            fs::write(root.path().join(setting), "").unwrap();
        }
        apply(root.path(), &TABLE).unwrap();
        assert_eq!(fs::read_to_string(root.path().join("kernel/kptr_restrict")).unwrap(), "2\n");
    }

    /// This machine's kernel is no node's: what it may be built without is named here.
    #[test]
    fn the_settings_are_a_kernel_s() {
        let known = |setting: &str| Path::new(SETTINGS).join(setting).exists();
        let missing: Vec<_> = TABLE.iter().chain([&CLOSED]).filter(|(setting, _)| !known(setting)).collect();
        let optional =
            ["kernel/yama/ptrace_scope", "kernel/kexec_load_disabled", "kernel/modules_disabled", "kernel/sysrq"];
        assert!(missing.iter().all(|(setting, _)| optional.contains(setting)), "{missing:?}");
    }
}
