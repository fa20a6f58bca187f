//! What this program asks of the kernel's network configuration, over rtnetlink (RFC 3549; `linux/rtnetlink.h`).
//!
//! One request, one acknowledgement. Interfaces are named as the kernel names them.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice};

use crate::netlink::{Message, acknowledged};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;

const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_BR_FORWARD_DELAY: u16 = 1;
const IFLA_BR_STP_STATE: u16 = 5;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;

const IFF_UP: u32 = 1;

/// A change of one interface.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change<'a> {
    /// It works from now on, or no longer.
    Up(bool),
    /// It becomes a port of this bridge.
    Bridge(&'a str),
    /// Its station address.
    Address([u8; 6]),
    /// The largest packet it takes, in bytes.
    Mtu(u32),
}

/// A connection to the kernel's network configuration.
#[derive(Debug)]
pub(crate) struct Rtnetlink(OwnedFd);

impl Rtnetlink {
    /// Opens it.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn open() -> io::Result<Self> {
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        // The protocol that has no number of its own is NETLINK_ROUTE.
        Ok(Self(rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?))
    }

    /// Makes a bridge that forwards from its first moment. One that is there already becomes such a bridge.
    ///
    /// # Errors
    /// What the kernel refuses, such as a name that another kind of interface has.
    pub(crate) fn make_bridge(&self, name: &str) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWLINK, NLM_F_CREATE, &link_header(0, None));
        message.text(IFLA_IFNAME, name);
        message.nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "bridge");
            info.nest(IFLA_INFO_DATA, |data| {
                data.number(IFLA_BR_FORWARD_DELAY, 0);
                data.number(IFLA_BR_STP_STATE, 0);
            });
        });
        self.ask(message)
    }

    /// Makes a WireGuard interface, unless it is there.
    ///
    /// # Errors
    /// What the kernel refuses, as where its module is not loaded.
    pub(crate) fn make_wireguard(&self, name: &str) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWLINK, NLM_F_CREATE, &link_header(0, None));
        message.text(IFLA_IFNAME, name);
        message.nest(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, "wireguard"));
        self.ask(message)
    }

    /// Changes an interface.
    ///
    /// # Errors
    /// Where it, or the bridge it is to join, does not exist, and what the kernel refuses.
    pub(crate) fn change(&self, interface: &str, change: Change<'_>) -> io::Result<()> {
        let index = self.index(interface)?;
        let header = |up| Message::new(RTM_NEWLINK, 0, &link_header(index, up));
        let message = match change {
            Change::Up(up) => header(Some(up)),
            Change::Bridge(bridge) => {
                let mut message = header(None);
                message.number(IFLA_MASTER, self.index(bridge)?);
                message
            }
            Change::Address(address) => {
                let mut message = header(None);
                message.attribute(IFLA_ADDRESS, &address);
                message
            }
            Change::Mtu(bytes) => {
                let mut message = header(None);
                message.number(IFLA_MTU, bytes);
                message
            }
        };
        self.ask(message)
    }

    /// Gives an interface an IPv4 address.
    ///
    /// # Errors
    /// Where the interface does not exist, and what the kernel refuses.
    pub(crate) fn add_address(&self, interface: &str, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let hosts = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        let broadcast = Ipv4Addr::from_bits(address.to_bits() | hosts);
        let [a, b, c, d] = self.index(interface)?.to_ne_bytes();
        // struct ifaddrmsg: AF_INET, prefix, flags, scope, index.
        let mut message = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &[2, prefix, 0, 0, a, b, c, d]);
        message.attribute(IFA_LOCAL, &address.octets());
        message.attribute(IFA_ADDRESS, &address.octets());
        message.attribute(IFA_BROADCAST, &broadcast.octets());
        self.ask(message)
    }

    /// Takes an IPv4 address from an interface.
    ///
    /// # Errors
    /// Where the interface does not exist, or has none such.
    pub(crate) fn remove_address(&self, interface: &str, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let [a, b, c, d] = self.index(interface)?.to_ne_bytes();
        let mut message = Message::new(RTM_DELADDR, 0, &[2, prefix, 0, 0, a, b, c, d]);
        message.attribute(IFA_LOCAL, &address.octets());
        self.ask(message)
    }

    fn index(&self, interface: &str) -> io::Result<u32> {
        let named = |error: rustix::io::Errno| io::Error::new(error.kind(), format!("{interface}: {error}"));
        netdevice::name_to_index(&self.0, interface).map_err(named)
    }

    /// Sends a request and waits for the kernel's word on it.
    fn ask(&self, message: Message) -> io::Result<()> {
        rustix::net::send(&self.0, &message.finish(), SendFlags::empty())?;
        let mut answer = [0; 1024];
        let (bytes, _) = rustix::net::recv(&self.0, &mut answer[..], RecvFlags::empty())?;
        acknowledged(answer.get(..bytes).unwrap_or_default())
    }
}

/// `struct ifinfomsg`: family and type open, the index, and what the flags become.
fn link_header(index: u32, up: Option<bool>) -> [u8; 16] {
    let change = if up.is_some() { IFF_UP } else { 0 };
    let flags = if up == Some(true) { IFF_UP } else { 0 };
    let mut header = [0; 16];
    let words = [0, index, flags, change].into_iter().flat_map(u32::to_ne_bytes);
    header.iter_mut().zip(words).for_each(|(byte, word)| *byte = word);
    header
}

#[cfg(test)]
mod tests;
