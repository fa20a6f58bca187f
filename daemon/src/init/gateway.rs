//! What only the gateway runs: `nbd-server` for the VMs' disks, and `dnsmasq` for the nodes that boot from the network.
//!
//! Both are Debian's; their configuration is written from `cluster.toml` at boot.

use std::fmt::Write;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use cluster::config::{Config, Export, Mac, NodeConfig};
use nix::sys::signal::Signal;
use rustix::mount::MountFlags;

use super::services::{OnEnd, Services, Spec};
use super::{HOLDFAST, disks, failed, medium, report};
use crate::confine::Foreign;
use crate::firewall::TFTP_DATA;
use crate::join::pool;
use crate::netsetup;
use crate::streams::STATE;
use crate::streams::store::MARK;
use crate::volumes::{self, Group};

const NBD_SERVER: &str = "/bin/nbd-server";
/// What nbd-server is told when it starts.
pub(crate) const NBD_CONFIGURATION: &str = "/run/holdfast/nbd-server.conf";
/// Where nbd-server says its process id.
pub(crate) const NBD_PID: &str = "/run/holdfast/nbd-server.pid";
/// Where nbd-server answers, and nowhere else: our own stream carries it to the nodes.
pub(crate) const NBD_SOCKET: &str = "/run/holdfast/nbd.sock";

const DNSMASQ: &str = "/usr/sbin/dnsmasq";
const DNSMASQ_CONFIGURATION: &str = "/run/holdfast/dnsmasq.conf";
/// Which cards are those of nodes: dnsmasq reads it again when it is told to.
const DNSMASQ_HOSTS: &str = "/run/holdfast/dnsmasq.hosts";

/// The label of the partition that the gateway has booted from.
const LABEL: &str = "HOLDFAST";
/// Where that partition is seen.
const MEDIA: &str = "/media";
/// What is in it for the nodes, beside the image that this gateway has booted.
const FILES: &str = "pxe";
/// How long the gateway's disks may take to be found.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two looks for them.
const LOOK: Duration = Duration::from_millis(100);

/// Finds the partition that the gateway keeps its tables in: of claims on disks, and of machines that were approved.
///
/// # Errors
/// There is none: then they are kept in memory.
pub(super) fn find_state() -> Result<(), String> {
    let device = find_device(is_state);
    let device = device.ok_or(
        "no partition for the claims on disks and the approvals of machines is there: they are kept in memory, and a restart of \
         this gateway forgets them",
    )?;
    symlink(&device, STATE).map_err(failed(STATE))
}

fn is_state(device: &Path) -> bool {
    let mark = || -> io::Result<[u8; 16]> {
        let mut mark = [0; 16];
        fs::File::open(device)?.read_exact_at(&mut mark, 0)?;
        Ok(mark)
    };
    mark().is_ok_and(|mark| mark == *MARK)
}

/// Starts serving disks.
///
/// # Errors
/// Where the configuration cannot be written, and every export whose device is not there: the others are served.
pub(super) fn start_nbd_server(services: &mut Services, exports: &[Export]) -> Result<(), String> {
    let is_there = |export: &Export| Path::new(&export.device).exists();
    wait_for(|| exports.iter().all(is_there).then_some(()));
    let served = volumes::served(exports, Path::new(volumes::DIRECTORY));
    fs::write(NBD_CONFIGURATION, nbd_configuration(&served, Path::new(NBD_SOCKET)))
        .map_err(failed(NBD_CONFIGURATION))?;
    services.start(Spec {
        name: "nbd-server".to_owned(),
        program: NBD_SERVER,
        arguments: ["-C", NBD_CONFIGURATION, "-p", NBD_PID].map(str::to_owned).to_vec(),
        terminal: None,
        oom_score_adj: -900,
        on_end: OnEnd::Restart,
        // In the foreground it would serve one client and end.
        forks: Some(NBD_PID),
        socket: Some(NBD_SOCKET),
        confined: None,
    });
    let missing = exports.iter().filter(|export| !is_there(export));
    super::mounts::all(missing.map(|export| Err(format!("{} is not there", export.device))))
}

/// Brings up the volume group, if there is one.
///
/// # Errors
/// What is wrong with it; what can be served is served.
pub(super) fn find_volumes(config: &Config) -> Result<(), String> {
    let group = Group::of(config);
    // A disk of it may take its time to be found.
    let whole = wait_for(|| group.report().ok().filter(|report| report.problem().is_none()));
    let report = whole.map_or_else(|| group.report(), Ok)?;
    group.activate(&report)
}

/// nbd-server's configuration: a unix socket at `socket`, and one section an export. Without any section it would not run: so there is
/// one that no export can be called like.
pub(crate) fn nbd_configuration(exports: &[Export], socket: &Path) -> String {
    let mut text = format!("[generic]\n    unixsock = {}\n    allowlist = true\n", socket.display());
    text.push_str("[.]\n    exportname = /dev/null\n    readonly = true\n");
    for Export { name, device, read_only } in exports {
        let _ = write!(text, "[{name}]\n    exportname = {device}\n    readonly = {read_only}\n");
        text.push_str("    flush = true\n    fua = true\n");
    }
    text
}

/// Starts serving the nodes' boot.
///
/// # Errors
/// Where the boot partition is not found or the configuration cannot be written.
pub(super) fn start_dnsmasq(services: &mut Services, config: &Config, own: &NodeConfig) -> Result<(), String> {
    mount_media()?;
    let files = served()?;
    let card =
        own.nics.iter().find(|nic| nic.address == Some(own.address)).and_then(|nic| netsetup::interface(nic.mac));
    let card = card.ok_or("the card of the cluster network is not there")?;
    fs::write(DNSMASQ_HOSTS, dnsmasq_hosts(config, own)).map_err(failed(DNSMASQ_HOSTS))?;
    fs::write(DNSMASQ_CONFIGURATION, dnsmasq_configuration(config, own, &card, &files))
        .map_err(failed(DNSMASQ_CONFIGURATION))?;
    services.start(Spec {
        name: "dnsmasq".to_owned(),
        program: DNSMASQ,
        arguments: vec!["--keep-in-foreground".to_owned(), format!("--conf-file={DNSMASQ_CONFIGURATION}")],
        terminal: None,
        oom_score_adj: -500,
        on_end: OnEnd::Restart,
        forks: None,
        socket: None,
        confined: Some(|| Foreign::dnsmasq(Path::new(&served()?))),
    });
    services.start(Spec {
        name: "boot-files".to_owned(),
        program: HOLDFAST,
        arguments: vec!["boot-files".to_owned(), own.address.to_string(), files],
        terminal: None,
        oom_score_adj: -500,
        on_end: OnEnd::Restart,
        forks: None,
        socket: None,
        confined: None,
    });
    Ok(())
}

/// Where the files are that nodes boot.
fn served() -> Result<String, String> {
    Ok(format!("{MEDIA}{}/{FILES}", medium::folder()?))
}

/// Has dnsmasq know the nodes of another `cluster.toml`.
///
/// # Errors
/// They cannot be written.
pub(super) fn tell_dnsmasq(services: &Services, config: &Config, own: &NodeConfig) -> Result<(), String> {
    fs::write(DNSMASQ_HOSTS, dnsmasq_hosts(config, own)).map_err(failed(DNSMASQ_HOSTS))?;
    services.signal("dnsmasq", Signal::SIGHUP);
    Ok(())
}

/// dnsmasq's configuration: DHCP for the configured cards with their configured addresses, and for other machines that boot
/// from the network with an address that is nobody's; TFTP, and no DNS.
fn dnsmasq_configuration(config: &Config, own: &NodeConfig, interface: &str, files: &str) -> String {
    let (subnet, prefix) = config.cluster_network();
    let (first, last) = TFTP_DATA;
    let mask = std::net::Ipv4Addr::from_bits(!u32::MAX.checked_shr(prefix.into()).unwrap_or(0));
    let range = match pool::firmware(config) {
        Some((first, last)) => format!("{first},{last}"),
        None => format!("{subnet},static"),
    };
    format!(
        "port=0\n\
         interface={interface}\n\
         except-interface=lo\n\
         bind-interfaces\n\
         user=boot\n\
         group=boot\n\
         pid-file\n\
         log-facility=-\n\
         leasefile-ro\n\
         no-ping\n\
         dhcp-authoritative\n\
         dhcp-hostsfile={DNSMASQ_HOSTS}\n\
         dhcp-range={range},{mask}\n\
         dhcp-vendorclass=set:boots,PXEClient\n\
         dhcp-ignore=tag:!known,tag:!boots\n\
         dhcp-option=option:router\n\
         dhcp-option=option:dns-server\n\
         dhcp-match=set:efi,option:client-arch,7\n\
         dhcp-match=set:efi,option:client-arch,9\n\
         dhcp-match=set:ipxe,175\n\
         dhcp-boot=tag:!efi,tag:ipxe,http://{address}/boot.ipxe\n\
         dhcp-boot=tag:!efi,tag:!ipxe,boot/grub/i386-pc/core.0\n\
         dhcp-boot=tag:efi,boot/grub/x86_64-efi/core.efi\n\
         enable-tftp\n\
         tftp-port-range={first},{last}\n\
         tftp-root={files}\n",
        address = own.address
    )
}

/// A line for each of the nodes' cards.
fn dnsmasq_hosts(config: &Config, own: &NodeConfig) -> String {
    clients(config, own).map(|(mac, address, node)| format!("{mac},{address},{node}\n")).collect()
}

/// The cards that may boot from here: every other node's on the primary cluster network.
fn clients<'a>(config: &'a Config, own: &'a NodeConfig) -> impl Iterator<Item = (Mac, std::net::Ipv4Addr, &'a str)> {
    let others = config.nodes.iter().filter(|node| node.name != own.name);
    let primary = |node: &&NodeConfig| node.nics.iter().find(|nic| nic.address == Some(node.address)).cloned();
    others.filter_map(move |node| Some((primary(&node)?.mac, node.address, node.name.as_str())))
}

/// Mounts the partition that the gateway has booted from, for reading.
fn mount_media() -> Result<(), String> {
    let device = find_device(is_media);
    let device = device.ok_or_else(|| format!("no partition is labelled {LABEL}"))?;
    fs::create_dir_all(MEDIA).map_err(failed(MEDIA))?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount(&device, MEDIA, "vfat", flags, None)
        .map_err(|error| format!("mount {} on {MEDIA}: {error}", device.display()))
}

/// The first disk or partition that `is_it` takes, as soon as it is there.
fn find_device(is_it: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    wait_for(|| {
        let devices = fs::read_dir("/sys/class/block").into_iter().flatten().flatten();
        devices.map(|entry| Path::new("/dev").join(entry.file_name())).find(|path| is_it(path))
    })
}

/// Whether a disk or partition is what the gateway has booted from.
pub(crate) fn is_media(device: &Path) -> bool {
    let sector = || -> io::Result<[u8; 512]> {
        let mut sector = [0; 512];
        fs::File::open(device)?.read_exact_at(&mut sector, 0)?;
        Ok(sector)
    };
    sector().is_ok_and(|sector| fat_label(&sector).as_deref() == Some(LABEL))
}

/// The label in a FAT file system's first sector, if that is what it is (Microsoft's FAT specification 1.03: the
/// type's name and the label are at 54 and 43 in FAT12 and FAT16, at 82 and 71 in FAT32).
pub(crate) fn fat_label(sector: &[u8; 512]) -> Option<String> {
    let signed = sector.get(510..) == Some(&[0x55, 0xaa]);
    let fat32 = sector.get(82..87) == Some(b"FAT32");
    let fat16 = sector.get(54..57) == Some(b"FAT");
    let label = match (signed, fat32, fat16) {
        (true, true, _) => sector.get(71..82)?,
        (true, false, true) => sector.get(43..54)?,
        _ => return None,
    };
    Some(String::from_utf8_lossy(label).trim_end().to_owned())
}

/// Looks until there is something to see, or until it has taken too long. Disks are found while the machine boots.
fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Err(error) = disks::link() {
            report::failure(&error);
        }
        match look() {
            None if Instant::now() < deadline => thread::sleep(LOOK),
            found => return found,
        }
    }
}

pub(super) mod volume;

#[cfg(test)]
mod tests;
