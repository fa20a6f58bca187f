//! The datagrams of the cluster networks: sealed before they leave, opened before anybody looks at them.
//!
//! Every datagram goes out on every network, and what comes in says on which. Each network has two sockets, one bound to
//! the node's own address there and one to the network's broadcast address: so the kernel itself tells the networks apart,
//! whatever it calls the cards. A datagram of our own that comes back to us (a broadcast does) and one whose seal is not
//! good go no further.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use cluster::config::{Config, Link, NodeConfig};
use cluster::event::To;
use cluster::words::{LinkId, Slot};
use rustix::event::{PollFd, PollFlags};

use crate::seal::Seal;

/// Heartbeat's port.
const PORT: u16 = 694;
/// Datagrams that are taken from a socket at a time, before anything else gets its turn.
const AT_A_TIME: usize = 64;
/// The largest datagram of UDP over IPv4.
const LARGEST: usize = 65_507;

/// The sockets of all networks.
#[derive(Debug)]
pub(super) struct Udp {
    ways: Vec<Way>,
    seal: Seal,
    buffer: Vec<u8>,
    forged: u64,
    /// The newest key by which anything was sealed that came.
    heard_by: u32,
}

/// One network.
#[derive(Debug)]
struct Way {
    link: LinkId,
    /// Bound to the node's own address: what is sent, and what comes to this node alone.
    own: UdpSocket,
    /// Bound to the broadcast address: what comes to all.
    all: UdpSocket,
    address: Ipv4Addr,
    broadcast: Ipv4Addr,
    nodes: BTreeMap<Slot, Ipv4Addr>,
}

impl Udp {
    /// Binds them. A network that cannot be used is told, and the others are used.
    ///
    /// # Errors
    /// There is no network that can be used, in words for the operator.
    pub(super) fn bind(config: &Config, slot: Slot, seal: Seal) -> Result<(Self, Vec<String>), String> {
        let mut ways = Vec::new();
        let mut problems = Vec::new();
        for link in config.links() {
            match Way::bind(config, slot, link) {
                Ok(way) => ways.extend(way),
                Err(error) => problems.push(format!("network {}, UDP {PORT}: {error}", link.name)),
            }
        }
        if ways.is_empty() {
            return Err(problems.join("; "));
        }
        Ok((Self { ways, seal, buffer: vec![0; LARGEST], forged: 0, heard_by: 0 }, problems))
    }

    /// Other nodes than before: their addresses.
    pub(super) fn configured(&mut self, config: &Config) {
        for way in &mut self.ways {
            way.nodes = nodes(config, way.link);
        }
    }

    /// Other keys than before.
    pub(super) fn reseal(&mut self, seal: Seal) {
        self.seal = seal;
    }

    /// The newest key by which anything was sealed that came.
    pub(super) fn heard_by(&self) -> u32 {
        self.heard_by
    }

    /// What is worth waking up for.
    pub(super) fn waits(&self) -> impl Iterator<Item = PollFd<'_>> {
        let sockets = self.ways.iter().flat_map(|way| [&way.own, &way.all]);
        sockets.map(|socket| PollFd::new(socket, PollFlags::IN))
    }

    /// Datagrams with a bad seal so far.
    pub(super) fn forged(&self) -> u64 {
        self.forged
    }

    /// Sends, on every network. A datagram that a network does not take is lost there, as any may be.
    pub(super) fn send(&self, to: To, plain: &[u8]) {
        let sealed = self.seal.close(plain);
        for way in &self.ways {
            let address = match to {
                To::All => Some(&way.broadcast),
                To::Node(slot) => way.nodes.get(&slot),
            };
            if let Some(address) = address {
                let _ = way.own.send_to(&sealed, (*address, PORT));
            }
        }
    }

    /// What has come, in plain text, and on which link.
    pub(super) fn take(&mut self) -> Vec<(LinkId, Vec<u8>)> {
        let mut taken = Vec::new();
        for way in &self.ways {
            for socket in [&way.own, &way.all] {
                for sealed in received(socket, way.address, &mut self.buffer) {
                    match self.seal.open(&sealed) {
                        Some((key, plain)) => {
                            self.heard_by = self.heard_by.max(key);
                            taken.push((way.link, plain));
                        }
                        None => self.forged = self.forged.saturating_add(1),
                    }
                }
            }
        }
        taken
    }
}

impl Way {
    /// `None` if the node has no card there.
    fn bind(config: &Config, slot: Slot, link: Link<'_>) -> io::Result<Option<Self>> {
        let nodes = nodes(config, link.id);
        let Some(address) = nodes.get(&slot).copied() else {
            return Ok(None);
        };
        let broadcast = broadcast(link.subnet, link.prefix);
        let own = socket(address)?;
        own.set_broadcast(true)?;
        let all = socket(broadcast)?;
        Ok(Some(Self { link: link.id, own, all, address, broadcast, nodes }))
    }
}

/// The nodes' addresses on a link.
fn nodes(config: &Config, link: LinkId) -> BTreeMap<Slot, Ipv4Addr> {
    let on_link = |(slot, node): (Slot, &NodeConfig)| {
        node.links.iter().find(|(id, _)| *id == link).map(|(_, address)| (slot, *address))
    };
    config.slots().filter_map(on_link).collect()
}

fn socket(address: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((address, PORT))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// What a socket holds, as far as it is from others than `own`.
fn received(socket: &UdpSocket, own: Ipv4Addr, buffer: &mut [u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for _ in 0..AT_A_TIME {
        match socket.recv_from(buffer) {
            Ok((_, from)) if is_from(from, own) => {}
            Ok((length, _)) => all.push(buffer.get(..length).unwrap_or_default().to_vec()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // What an earlier datagram met: a closed port, no route. That one is lost.
            Err(_) => {}
        }
    }
    all
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
    use std::thread;

    use nix::sched::{CloneFlags, unshare};

    use super::*;
    use crate::keys::tests_ring;
    use crate::rtnetlink::{Change, Rtnetlink};

    const TWO_NETWORKS: &str = r#"
[cluster]
name = "rack"
keepalive = "500ms"
warntime = "2s"
deadtime = "6s"
initdead = "60s"
lease = "30s"
evacuation = "120s"
[network.one]
subnet = "10.1.0.0/24"
[network.two]
subnet = "10.2.0.0/24"
[network.three]
subnet = "10.3.0.0/24"
[[node]]
name = "gateway"
role = "gateway"
nics = [
  { mac = "52:54:00:00:00:01", network = "one", address = "10.1.0.1" },
  { mac = "52:54:00:00:00:02", network = "two", address = "10.2.0.1" },
  { mac = "52:54:00:00:00:03", network = "three", address = "10.3.0.1" },
]
"#;

    #[test]
    fn the_broadcast_address_is_the_networks_last() {
        let subnet = Ipv4Addr::new(10, 77, 0, 0);
        assert_eq!(broadcast(subnet, 24), Ipv4Addr::new(10, 77, 0, 255));
        assert_eq!(broadcast(subnet, 22), Ipv4Addr::new(10, 77, 3, 255));
        assert_eq!(broadcast(subnet, 32), subnet);
    }

    /// The kernel itself, in a network namespace of the test's own; it needs the right to make one.
    #[test]
    fn each_network_hears_its_own_datagrams() {
        let in_namespace = || {
            if unshare(CloneFlags::CLONE_NEWNET).is_err() {
                return;
            }
            let kernel = Rtnetlink::open().unwrap();
            kernel.change("lo", Change::Up(true)).unwrap();
            for (bridge, address) in [("one", Ipv4Addr::new(10, 1, 0, 1)), ("two", Ipv4Addr::new(10, 2, 0, 1))] {
                kernel.make_bridge(bridge).unwrap();
                kernel.add_address(bridge, address, 24).unwrap();
                kernel.change(bridge, Change::Up(true)).unwrap();
            }
            let config = Config::parse(TWO_NETWORKS).unwrap();
            let (mut udp, problems) = Udp::bind(&config, Slot(0), Seal::new(&tests_ring(1), 1)).unwrap();
            assert_eq!(problems, ["network three, UDP 694: Cannot assign requested address (os error 99)"]);
            udp.send(To::All, b"alive");
            assert_eq!(udp.take(), [], "what is our own goes no further");
            // As if they were another node's: what comes back of a broadcast is then heard, on the network that it was sent to.
            udp.ways.iter_mut().for_each(|way| way.address = Ipv4Addr::UNSPECIFIED);
            udp.send(To::All, b"alive");
            let came = udp.take();
            assert_eq!(came, [(LinkId(0), b"alive".to_vec()), (LinkId(1), b"alive".to_vec())]);
            let stranger = UdpSocket::bind((Ipv4Addr::new(10, 2, 0, 1), 0)).unwrap();
            stranger.send_to(b"not sealed", (Ipv4Addr::new(10, 2, 0, 1), PORT)).unwrap();
            stranger.send_to(&udp.seal.close(b"to one"), (Ipv4Addr::new(10, 2, 0, 1), PORT)).unwrap();
            assert_eq!(udp.take(), [(LinkId(1), b"to one".to_vec())]);
            assert_eq!(udp.forged(), 1);
        };
        thread::spawn(in_namespace).join().unwrap();
    }
}
