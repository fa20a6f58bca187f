//! The rack's network: a namespace of its own with two bridges and one tap a cable.
//!
//! The namespace has no name: it belongs to the rack's threads and children and is gone with the last of them, however
//! the rack ends. It has no route and no device to the outside, so no traffic leaves the machine.
//! To look inside: `nsenter --net --target PID ip addr`.

use std::fs::File;
use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns, unshare};

use super::layout::{CLUSTER_BRIDGE, Layout, PDU_ADDRESS, PROBE_ADDRESS, PUBLIC_BRIDGE};

/// Moves the calling thread, and every thread and child it starts from now on, into a new network namespace with the
/// layout's bridges and taps. Other threads can follow it by what is returned ([`follow`]).
///
/// # Errors
/// The rights are missing, or `ip` refuses; the text says what to do.
pub fn enter(layout: &Layout) -> Result<File> {
    unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace: run as root (sudo -E cargo rack)")?;
    ip("link set lo up")?;
    bridge(CLUSTER_BRIDGE, &PDU_ADDRESS.to_string())?;
    bridge(PUBLIC_BRIDGE, &PROBE_ADDRESS.to_string())?;
    for machine in layout.all() {
        tap(&machine.cluster.tap, CLUSTER_BRIDGE)?;
        if let Some(public) = &machine.public {
            tap(&public.tap, PUBLIC_BRIDGE)?;
        }
    }
    let here = "/proc/thread-self/ns/net";
    File::open(here).context(here)
}

/// Moves the calling thread, and what it starts from now on, to where a thread is that has entered.
///
/// # Errors
/// The rights are missing.
pub fn follow(namespace: &File) -> Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the rack's network namespace")
}

/// Pulls (`false`) or plugs (`true`) the cable of a tap: what lies beyond is cut off in both directions.
///
/// # Errors
/// `ip` refuses.
pub fn cable(tap: &str, joined: bool) -> Result<()> {
    // Off its bridge, not down: the machine keeps its link, as behind a switch that died.
    if joined {
        ip(&format!("link set {tap} master {CLUSTER_BRIDGE}"))
    } else {
        ip(&format!("link set {tap} nomaster"))
    }
}

/// Cuts (`false`) or joins (`true`) the way between two taps, each of which still has all others. The bridge knows one set of
/// ports that do not talk with each other: there can be one such pair at a time.
///
/// # Errors
/// `ip` refuses.
pub fn way(taps: [&str; 2], joined: bool) -> Result<()> {
    let isolated = if joined { "off" } else { "on" };
    taps.iter().try_for_each(|tap| ip(&format!("link set dev {tap} type bridge_slave isolated {isolated}")))
}

/// Takes or gives up one more address on the cluster network, as a machine that is plugged in there could.
///
/// # Errors
/// `ip` refuses.
pub fn address(address: Ipv4Addr, taken: bool) -> Result<()> {
    let verb = if taken { "add" } else { "del" };
    ip(&format!("addr {verb} {address}/24 dev {CLUSTER_BRIDGE}"))
}

fn bridge(name: &str, address: &str) -> Result<()> {
    ip(&format!("link add {name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"))?;
    ip(&format!("addr add {address}/24 dev {name}"))?;
    ip(&format!("link set {name} up"))
}

fn tap(name: &str, bridge: &str) -> Result<()> {
    ip(&format!("tuntap add dev {name} mode tap vnet_hdr")).context("the rack needs /dev/net/tun: modprobe tun")?;
    ip(&format!("link set {name} master {bridge} up"))
}

/// Runs `ip WORDS`.
fn ip(words: &str) -> Result<()> {
    let output = Command::new("ip").args(words.split(' ')).output().context("cannot run ip (Debian's iproute2)")?;
    if !output.status.success() {
        bail!("ip {words}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
