//! What the rack and the checks need from Debian: found missing, installed.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::unistd::Uid;

/// A package, a file that is there once it is installed, and what it is for.
struct Need {
    package: &'static str,
    file: &'static str,
    reason: &'static str,
}

/// What our own programs in the image are built for.
const TARGET: &str = "x86_64-unknown-linux-musl";

const fn need(package: &'static str, file: &'static str, reason: &'static str) -> Need {
    Need { package, file, reason }
}

/// What is needed, on Debian 12.
const NEEDS: &[Need] = &[
    need("qemu-system-x86", "/usr/bin/qemu-system-x86_64", "the machines of the rack"),
    need("ipxe-qemu", "/usr/lib/ipxe/qemu/efi-virtio.rom", "network cards that boot"),
    need("iproute2", "/usr/sbin/ip", "the rack's network"),
    need("nftables", "/usr/sbin/nft", "checking the packet filter's rules"),
    need("squashfs-tools", "/usr/bin/mksquashfs", "the volume of the VMs' files"),
    need("dosfstools", "/usr/sbin/mkfs.vfat", "the gateway's disk"),
    need("mtools", "/usr/bin/mcopy", "the gateway's disk"),
    need("grub-pc-bin", "/usr/lib/grub/i386-pc/kernel.img", "the boot loader of the gateway's disk and of PXE"),
    need("grub-efi-amd64-bin", "/usr/lib/grub/x86_64-efi/kernel.img", "the boot loader for machines with UEFI"),
    need("ovmf", "/usr/share/ovmf/OVMF.fd", "the rack's machines with UEFI"),
    need("zstd", "/usr/bin/zstd", "the initramfs"),
    need("xz-utils", "/usr/bin/xz", "the kernel of the guests"),
    need("cpio", "/usr/bin/cpio", "checking the initramfs"),
    need("grub-common", "/usr/bin/grub-mknetdir", "the boot loader of the gateway's disk and of PXE"),
    need("nbd-server", "/bin/nbd-server", "checking the network disks' client"),
    need("lvm2", "/sbin/lvm", "the volume group that a VM of the rack runs from"),
    need("gfs2-utils", "/usr/sbin/fsck.gfs2", "checking the shared file system's repair"),
    need("nbdkit", "/usr/bin/nbdkit", "checking the negotiation with an NBD server"),
    need("qemu-utils", "/usr/bin/qemu-nbd", "checking the negotiation with an NBD server"),
    need("dnsmasq-base", "/usr/sbin/dnsmasq", "checking the gateway's DHCP configuration"),
    need("tcpdump", "/usr/bin/tcpdump", "attacking the rack's cluster network"),
    need("tcpreplay", "/usr/bin/tcpreplay-edit", "attacking the rack's cluster network"),
    need("snmp", "/usr/bin/snmpget", "checking the emulated power switch"),
    need("snmpd", "/usr/sbin/snmpd", "checking the power switch's driver"),
    need("snmpsim", "/usr/bin/snmpsimd", "checking the power switch's driver"),
    need("fence-agents", "/usr/sbin/fence_apc_snmp", "checking the emulated power switch"),
    need("inetutils-telnet", "/usr/bin/telnet", "checking the power switch's console"),
    need("powerman", "/usr/sbin/powermand", "checking the power switch's console"),
    need("nut-snmp", "/lib/nut/snmp-ups", "checking the emulated power switch"),
    need("nut-server", "/lib/nut/upsd", "the UPSes of the rack"),
    need("nut-client", "/usr/bin/upsrw", "checking the UPS client"),
    need("libnss3-tools", "/usr/bin/certutil", "checking the UPS client: certificates for upsd"),
    need("rsyslog", "/usr/sbin/rsyslogd", "checking what is sent to a syslog server"),
    need("protobuf-compiler", "/usr/bin/protoc", "the raft crate's messages"),
];

/// Installs what is missing, or says in one line what to install.
///
/// # Errors
/// Not root, or apt-get refused.
pub fn install_missing() -> Result<()> {
    install_target()?;
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !Path::new(need.file).exists()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    let command = format!("apt-get install -y --no-install-recommends {}", packages.join(" "));
    let mut why = String::new();
    for need in &missing {
        // Writing to a String cannot fail.
        let _ = writeln!(why, "  {:<18} {}", need.package, need.reason);
    }
    if !Uid::effective().is_root() {
        bail!("Debian packages are missing; run: sudo {command}\n{why}");
    }
    // To standard error, as progress is: standard output carries the event log.
    let _ = write!(std::io::stderr().lock(), "Installing from Debian:\n{why}");
    // Package lists may be missing or old: ask for new ones only if the first try fails.
    if apt_get(&packages).is_err() {
        run("apt-get", &["update", "-q"])?;
        apt_get(&packages).with_context(|| format!("this failed: {command}"))?;
    }
    match missing.iter().find(|need| !Path::new(need.file).exists()) {
        None => Ok(()),
        Some(need) => bail!("{} is installed, but there is no {}", need.package, need.file),
    }
}

/// The static programs' target: rustup adds it by itself with a toolchain that it installs, not to one that is there.
fn install_target() -> Result<()> {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().context("cannot run rustc")?;
    let sysroot = String::from_utf8_lossy(&sysroot.stdout).trim().to_owned();
    if Path::new(&sysroot).join("lib/rustlib").join(TARGET).exists() {
        return Ok(());
    }
    run("rustup", &["target", "add", TARGET]).with_context(|| format!("run: rustup target add {TARGET}"))
}

fn apt_get(packages: &[&str]) -> Result<()> {
    run("apt-get", &[&["install", "-q", "-y", "--no-install-recommends"], packages].concat())
}

/// Runs a program to its end, its words on standard error.
fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let status = Command::new(program)
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("cannot run {program}: this needs a Debian system"))?;
    if !status.success() {
        bail!("{program} {}: {status}", arguments.join(" "));
    }
    Ok(())
}

/// Finds out, before anything long is done, whether this machine can carry a rack.
///
/// # Errors
/// Rights or /dev/net/tun are missing; the text says what to do.
pub fn check_machine() -> Result<()> {
    if !Uid::effective().is_root() {
        bail!(
            "the rack makes a network namespace and taps of its own, which takes root: sudo -E env PATH=\"$PATH\" cargo rack"
        );
    }
    if let Err(error) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        bail!("the rack's cables need /dev/net/tun ({error}): modprobe tun");
    }
    Ok(())
}
