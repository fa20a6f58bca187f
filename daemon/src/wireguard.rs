//! The tunnels that the kernel's lock manager talks through: WireGuard between every two nodes.
//!
//! The DLM speaks plain TCP, and believes whoever has a member's address. So it is given addresses that only exist behind
//! WireGuard ([`address`]), which lets nobody in who does not hold the cluster's key: each node's key pair is derived from it and
//! from the node's name, and nothing has to be exchanged. The kernel does all of it (`linux/wireguard.h`; Donenfeld,
//! "WireGuard: Next Generation Kernel Network Tunnel", NDSS 2017); here is only its configuration.

use std::io;
use std::net::Ipv4Addr;

use cluster::config::{Config, NodeConfig};
use cluster::words::{Role, Slot};
use curve25519_dalek::MontgomeryPoint;

use crate::genetlink::{Genetlink, NESTED};
use crate::netlink::Message;
use crate::rtnetlink::{Change, Rtnetlink};
use crate::secrets::Key;

/// The interface.
pub(crate) const INTERFACE: &str = "wg-holdfast";
/// The UDP port of the cluster network that carries the tunnels: the next to the cluster's own.
pub(crate) const PORT: u16 = 695;

const WG_CMD_SET_DEVICE: u8 = 1;
const WGDEVICE_A_IFNAME: u16 = 2;
const WGDEVICE_A_PRIVATE_KEY: u16 = 3;
const WGDEVICE_A_FLAGS: u16 = 5;
const WGDEVICE_F_REPLACE_PEERS: u32 = 1;
const WGDEVICE_A_LISTEN_PORT: u16 = 6;
const WGDEVICE_A_PEERS: u16 = 8;
const WGPEER_A_PUBLIC_KEY: u16 = 1;
const WGPEER_A_ENDPOINT: u16 = 4;
const WGPEER_A_ALLOWEDIPS: u16 = 9;
const WGALLOWEDIP_A_FAMILY: u16 = 1;
const WGALLOWEDIP_A_IPADDR: u16 = 2;
const WGALLOWEDIP_A_CIDR_MASK: u16 = 3;
const AF_INET: u16 = 2;

/// A node's address behind the tunnels: of the shared address space (RFC 6598), from a corner of it that nobody uses.
pub(crate) fn address(slot: Slot) -> Ipv4Addr {
    Ipv4Addr::new(100, 127, 94, slot.0.saturating_add(1))
}

/// Makes the interface, with a tunnel to every other node that runs VMs; one that is there gets these.
///
/// # Errors
/// What the kernel says.
pub(crate) fn set_up(config: &Config, own: Slot, cluster_key: &Key) -> io::Result<()> {
    let links = Rtnetlink::open()?;
    links.make_wireguard(INTERFACE)?;
    let kernel = Genetlink::open("wireguard", 1)?;
    let mut request = kernel.request(WG_CMD_SET_DEVICE);
    describe(&mut request, config, own, cluster_key);
    kernel.ask(request)?;
    links.add_address(INTERFACE, address(own), 24)?;
    links.change(INTERFACE, Change::Up(true))
}

fn describe(request: &mut Message, config: &Config, own: Slot, cluster_key: &Key) {
    request.text(WGDEVICE_A_IFNAME, INTERFACE);
    request.attribute(WGDEVICE_A_PRIVATE_KEY, private(cluster_key, config.node(own)).bytes());
    request.attribute(WGDEVICE_A_LISTEN_PORT, &PORT.to_ne_bytes());
    request.number(WGDEVICE_A_FLAGS, WGDEVICE_F_REPLACE_PEERS);
    request.nest(WGDEVICE_A_PEERS | NESTED, |peers| {
        for (slot, node) in config.slots() {
            if slot != own && node.role == Role::Node {
                peers.nest(NESTED, |peer| describe_peer(peer, slot, node, cluster_key));
            }
        }
    });
}

fn describe_peer(peer: &mut Message, slot: Slot, node: &NodeConfig, cluster_key: &Key) {
    let public = MontgomeryPoint::mul_base_clamped(*private(cluster_key, node).bytes());
    peer.attribute(WGPEER_A_PUBLIC_KEY, public.as_bytes());
    peer.attribute(WGPEER_A_ENDPOINT, &endpoint(node.address));
    peer.nest(WGPEER_A_ALLOWEDIPS | NESTED, |addresses| {
        addresses.nest(NESTED, |one| {
            one.attribute(WGALLOWEDIP_A_FAMILY, &AF_INET.to_ne_bytes());
            one.attribute(WGALLOWEDIP_A_IPADDR, &address(slot).octets());
            one.attribute(WGALLOWEDIP_A_CIDR_MASK, &[32]);
        });
    });
}

/// A node's private key; WireGuard clamps it as Curve25519 wants it (RFC 7748).
fn private(cluster_key: &Key, node: &NodeConfig) -> Key {
    cluster_key.derive(&format!("wireguard {}", node.name))
}

/// `struct sockaddr_in`.
fn endpoint(address: Ipv4Addr) -> [u8; 16] {
    let mut bytes = [0; 16];
    let fields = AF_INET.to_ne_bytes().into_iter().chain(PORT.to_be_bytes()).chain(address.octets());
    bytes.iter_mut().zip(fields).for_each(|(byte, field)| *byte = field);
    bytes
}
