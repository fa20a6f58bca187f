//! The datagrams of the cluster network: sealed before they leave, opened before anybody looks at them.
//!
//! A datagram of our own that comes back to us (a broadcast does) and one whose seal is not good go no further.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use cluster::config::Config;
use cluster::event::To;
use cluster::words::Slot;
use rustix::event::{PollFd, PollFlags};

use crate::seal::Seal;

/// Heartbeat's port.
const PORT: u16 = 694;
/// Datagrams that are taken at a time, before anything else gets its turn.
const AT_A_TIME: usize = 64;
/// The largest datagram of UDP over IPv4.
const LARGEST: usize = 65_507;

/// The socket.
#[derive(Debug)]
pub(super) struct Udp {
    socket: UdpSocket,
    seal: Seal,
    own: Ipv4Addr,
    broadcast: Ipv4Addr,
    nodes: Vec<Ipv4Addr>,
    buffer: Vec<u8>,
    forged: u64,
}

impl Udp {
    /// Binds it.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub(super) fn bind(config: &Config, slot: Slot, seal: Seal) -> io::Result<Self> {
        // A socket bound to the node's own address would not be given broadcasts. The cluster network is the only one
        // on which a node has an address, and nothing that is not sealed is taken from any.
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
        socket.set_broadcast(true)?;
        socket.set_nonblocking(true)?;
        let (subnet, prefix) = config.cluster_network();
        Ok(Self {
            socket,
            seal,
            own: config.node(slot).address,
            broadcast: broadcast(subnet, prefix),
            nodes: config.nodes.iter().map(|node| node.address).collect(),
            buffer: vec![0; LARGEST],
            forged: 0,
        })
    }

    /// What is worth waking up for.
    pub(super) fn waits(&self) -> PollFd<'_> {
        PollFd::new(&self.socket, PollFlags::IN)
    }

    /// Datagrams with a bad seal so far.
    pub(super) fn forged(&self) -> u64 {
        self.forged
    }

    /// Sends. A datagram that the network does not take is lost, as any may be.
    pub(super) fn send(&mut self, to: To, plain: &[u8]) {
        let address = match to {
            To::All => Some(&self.broadcast),
            To::Node(slot) => self.nodes.get(usize::from(slot.0)),
        };
        if let Some(address) = address {
            let _ = self.socket.send_to(&self.seal.close(plain), (*address, PORT));
        }
    }

    /// The plain text of what has come.
    pub(super) fn take(&mut self) -> Vec<Vec<u8>> {
        let mut taken = Vec::new();
        for _ in 0..AT_A_TIME {
            let (length, from) = match self.socket.recv_from(&mut self.buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // What an earlier datagram met: a closed port, no route. That one is lost.
                Err(_) => continue,
            };
            if is_from(from, self.own) {
                continue;
            }
            match self.seal.open(self.buffer.get(..length).unwrap_or_default()) {
                Some(plain) => taken.push(plain),
                None => self.forged = self.forged.saturating_add(1),
            }
        }
        taken
    }
}

fn is_from(from: SocketAddr, address: Ipv4Addr) -> bool {
    from.ip() == IpAddr::V4(address)
}

/// The last address of a network.
fn broadcast(subnet: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let hosts = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    Ipv4Addr::from(u32::from(subnet) | hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broadcast_address_is_the_networks_last() {
        let subnet = Ipv4Addr::new(10, 77, 0, 0);
        assert_eq!(broadcast(subnet, 24), Ipv4Addr::new(10, 77, 0, 255));
        assert_eq!(broadcast(subnet, 22), Ipv4Addr::new(10, 77, 3, 255));
        assert_eq!(broadcast(subnet, 32), subnet);
    }
}
