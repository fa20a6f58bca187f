//! The node's network cards, set up as `cluster.toml` says: found by their addresses, whatever the kernel calls them.

use std::fs;
use std::io;

use cluster::config::{Config, Mac, NetworkKind, Nic};

use crate::rtnetlink::{Change, Rtnetlink};

/// Where the kernel lists the interfaces.
const INTERFACES: &str = "/sys/class/net";

/// The station addresses of the machine's own network cards, with their interfaces. Bridges and the like are none.
pub(crate) fn cards() -> Vec<(Mac, String)> {
    let entries = fs::read_dir(INTERFACES).into_iter().flatten().flatten();
    let card = |entry: fs::DirEntry| {
        let address = fs::read_to_string(entry.path().join("address")).ok()?;
        let real = entry.path().join("device").exists();
        let mac = Mac::parse(address.trim()).filter(|_| real)?;
        Some((mac, entry.file_name().into_string().ok()?))
    };
    let mut cards: Vec<_> = entries.filter_map(card).collect();
    cards.sort();
    cards
}

/// The interface of the card with this address.
pub(crate) fn interface(mac: Mac) -> Option<String> {
    cards().into_iter().find(|(found, _)| *found == mac).map(|(_, name)| name)
}

/// Brings the loopback interface up.
///
/// # Errors
/// What the kernel says.
pub(crate) fn set_up_host() -> io::Result<()> {
    Rtnetlink::open()?.change("lo", Change::Up(true))
}

/// Sets up every card of `nics`.
///
/// # Errors
/// Every card that is missing or that the kernel refused, in words; the others are set up nevertheless.
pub(crate) fn set_up(config: &Config, nics: &[Nic]) -> Result<(), String> {
    let kernel = Rtnetlink::open().map_err(|error| format!("rtnetlink: {error}"))?;
    let failures: Vec<String> = nics.iter().filter_map(|nic| set_up_nic(&kernel, config, nic).err()).collect();
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
}

/// Takes the addresses of `nics` back: the machine is another node from now on.
///
/// # Errors
/// What the kernel says.
pub(crate) fn take_addresses(config: &Config, nics: &[Nic]) -> Result<(), String> {
    let kernel = Rtnetlink::open().map_err(|error| format!("rtnetlink: {error}"))?;
    for nic in nics {
        let network = config.networks.iter().find(|network| network.name == nic.network);
        if let (Some(NetworkKind::Cluster { prefix, .. }), Some(address), Some(interface)) =
            (network.map(|network| &network.kind), nic.address, interface(nic.mac))
        {
            let taken = kernel.remove_address(&interface, address, *prefix);
            taken.map_err(|error| format!("{interface}, {address}: {error}"))?;
        }
    }
    Ok(())
}

fn set_up_nic(kernel: &Rtnetlink, config: &Config, nic: &Nic) -> Result<(), String> {
    let name = &nic.network;
    let Some(network) = config.networks.iter().find(|network| network.name == *name) else {
        return Err(format!("{}: there is no network `{name}`", nic.mac));
    };
    let interface =
        interface(nic.mac).ok_or_else(|| format!("no card has the address {} (network {name})", nic.mac))?;
    let done = match (&network.kind, nic.address) {
        (NetworkKind::Public { bridge }, _) => set_up_bridge(kernel, bridge, &interface),
        (NetworkKind::Cluster { prefix, .. }, Some(address)) => {
            kernel.add_address(&interface, address, *prefix).and_then(|()| kernel.change(&interface, Change::Up(true)))
        }
        (NetworkKind::Cluster { .. }, None) => kernel.change(&interface, Change::Up(true)),
    };
    done.map_err(|error| format!("{interface} (network {name}): {error}"))
}

/// The VMs' bridge.
fn set_up_bridge(kernel: &Rtnetlink, bridge: &str, interface: &str) -> io::Result<()> {
    kernel.make_bridge(bridge)?;
    add_port(kernel, bridge, interface)?;
    kernel.change(bridge, Change::Up(true))
}

/// Makes an interface a working port of a bridge.
///
/// # Errors
/// What the kernel says.
pub(crate) fn add_port(kernel: &Rtnetlink, bridge: &str, interface: &str) -> io::Result<()> {
    kernel.change(interface, Change::Bridge(bridge))?;
    kernel.change(interface, Change::Up(true))
}
