//! Who may talk with this node, and with whom it may talk: the rules that the kernel's packet filter gets at boot.
//!
//! Everything is dropped, in both directions, but what `cluster.toml` makes necessary: members with members, this node with
//! the power switches and the UPSes' hosts, to the collector of event logs, and, where it is the gateway, with machines that
//! boot or ask to join. Each rule names the card, so that what comes from the VMs' bridge reaches nothing here, whatever
//! address it says it comes from. What the bridge itself passes on never comes this way.
//!
//! The rules keep no state. Both directions of a dialogue are named, the answer as what comes from the asked port and opens
//! no connection: so there is no table of connections for a flood to fill, and none that a restart could lose.
//!
//! The kernel's own messages that a packet could not be delivered pass (path-MTU discovery wants them); no ping is
//! answered. ARP is not this filter's.

use std::fmt::Write;
use std::net::Ipv4Addr;

use cluster::config::{Config, FileSystem, Link, Mac, Syslog, Transport, UpsWay};
use cluster::words::{Role, Slot};

use crate::join::pool;
use crate::wireguard::INTERFACE;

/// Heartbeats and the agreement (UDP), streams (TCP).
const MEMBERS: &str = "694";
/// WireGuard.
const TUNNELS: &str = "695";
/// The kernel's lock manager (DLM), behind the tunnels.
const LOCKS: &str = "21064";
/// SNMP.
const SNMP: &str = "161";
/// The ports that Linux gives to whoever asks for none (`net.ipv4.ip_local_port_range`; init sets this range).
const OURS: &str = "32768-60999";
/// The ports that firmware and boot loaders may take for themselves.
const ANY: &str = "1024-65535";
/// The ports from which the gateway sends boot files over TFTP, first and last: none that Linux would give to another.
pub(crate) const TFTP_DATA: (u16, u16) = (61_000, 61_255);

/// What begins no connection, as nft writes it.
const NO_SYN: &str = "tcp flags != syn / fin,syn,rst,ack";
/// What does not refuse a connection (RFC 9293, 3.10.7.1).
const NO_REFUSAL: &str = "tcp flags != rst,ack / fin,syn,rst,ack";

/// A protocol above IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Udp,
    Tcp,
}

/// One use of the network: what who asks sends, and what comes back, as nft's conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Dialogue {
    question: String,
    answer: String,
}

/// From the ports `from` to the ports `to`, and back.
fn dialogue(protocol: Protocol, from: &str, to: &str) -> Dialogue {
    let (name, no_syn) = match protocol {
        Protocol::Udp => ("udp", String::new()),
        Protocol::Tcp => ("tcp", format!(" {NO_SYN}")),
    };
    Dialogue {
        question: format!("{name} sport {from} {name} dport {to}"),
        answer: format!("{name} sport {to} {name} dport {from}{no_syn}"),
    }
}

/// What members say to each other on every cluster network; each of them may ask.
fn between_members() -> Vec<Dialogue> {
    vec![
        dialogue(Protocol::Udp, MEMBERS, MEMBERS), // heartbeats, and the agreement
        dialogue(Protocol::Tcp, OURS, MEMBERS),    // streams: storage and migration
    ]
}

/// What a machine that boots asks of the gateway, once it has its address.
fn of_who_boots() -> Vec<Dialogue> {
    let (first, last) = TFTP_DATA;
    vec![
        dialogue(Protocol::Udp, ANY, "69"),                       // TFTP: the request
        dialogue(Protocol::Udp, ANY, &format!("{first}-{last}")), // TFTP: the file
        dialogue(Protocol::Tcp, ANY, "80"),                       // HTTP, for iPXE
    ]
}

/// The two chains, as they are written.
#[derive(Debug, Default)]
struct Chains {
    input: Vec<String>,
    output: Vec<String>,
}

impl Chains {
    /// This node asks, and hears the answers. The places stand before the conditions: `there` where it asks, `here` whence
    /// the answer comes.
    fn ask(&mut self, there: &str, here: &str, dialogue: &Dialogue) {
        self.output.push(format!("{there} {} accept", dialogue.question));
        self.input.push(format!("{here} {} accept", dialogue.answer));
    }

    /// This node is asked, and answers.
    fn answer(&mut self, here: &str, there: &str, dialogue: &Dialogue) {
        self.input.push(format!("{here} {} accept", dialogue.question));
        self.output.push(format!("{there} {} accept", dialogue.answer));
    }
}

/// A card on a cluster network.
#[derive(Clone, Copy, Debug)]
struct Card<'a> {
    interface: &'a str,
    address: Ipv4Addr,
    link: Link<'a>,
}

impl Card<'_> {
    fn reaches(&self, address: Ipv4Addr) -> bool {
        let network = |address: Ipv4Addr| address.to_bits() & !host_bits(self.link.prefix);
        network(address) == network(self.link.subnet)
    }

    fn broadcast(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.link.subnet.to_bits() | host_bits(self.link.prefix))
    }
}

fn host_bits(prefix: u8) -> u32 {
    u32::MAX.checked_shr(prefix.into()).unwrap_or(0)
}

/// The rules for the node in `slot`, for `nft -f`: they replace, in one step, what was there of ours. `interface` knows the
/// kernel's name of a card; a card that is not there gets no rules.
pub(crate) fn ruleset(config: &Config, slot: Slot, interface: impl Fn(Mac) -> Option<String>) -> String {
    let own = config.node(slot);
    let mut chains = Chains::default();
    let mut sets = String::new();
    for link in config.links() {
        let Some(nic) = own.nics.iter().find(|nic| nic.network == link.name) else { continue };
        let (Some(address), Some(interface)) = (nic.address, interface(nic.mac)) else { continue };
        let card = Card { interface: &interface, address, link };
        let peers = format!("peers{}", link.id.0);
        write_set(&mut sets, &peers, &others(config, slot, &card));
        members(&mut chains, &card, &peers);
        devices(&mut chains, config, &card);
        config.syslog.iter().for_each(|collector| event_log(&mut chains, collector, &card));
        if config.shared == FileSystem::Gfs2 && own.role == Role::Node && address == own.address {
            tunnels(&mut chains, &card, &peers);
        }
        if own.role == Role::Gateway && address == own.address {
            if config.pxe {
                let strangers = pool::addresses(config).map(|(first, last)| format!("{first}-{last}"));
                boots(&mut chains, &card, &[Some(format!("@{peers}")), strangers]);
            }
            joins(&mut chains, &card);
        }
    }
    text(&sets, &chains)
}

/// The rules of a machine that is no node: it talks with nobody.
pub(crate) fn closed() -> String {
    text("", &Chains::default())
}

/// The rules of a machine that asks to become a node: it talks with the gateway, and about nothing else.
pub(crate) fn of_a_stranger(config: &Config) -> String {
    let mut chains = Chains::default();
    if let (Some((_, gateway)), Some((first, last))) = (config.gateway(), pool::addresses(config)) {
        let address = gateway.address;
        let there = format!("ip saddr {first}-{last} ip daddr {address}");
        let here = format!("ip saddr {address} ip daddr {first}-{last}");
        chains.ask(&there, &here, &dialogue(Protocol::Tcp, OURS, MEMBERS));
    }
    text("", &chains)
}

/// The other nodes' addresses on the network of `card`, in order.
fn others(config: &Config, slot: Slot, card: &Card<'_>) -> Vec<Ipv4Addr> {
    let links = config.slots().filter(|(other, _)| *other != slot).flat_map(|(_, node)| &node.links);
    let mut addresses: Vec<_> = links.filter(|(id, _)| *id == card.link.id).map(|(_, address)| *address).collect();
    addresses.sort();
    addresses
}

fn members(chains: &mut Chains, card: &Card<'_>, peers: &str) {
    let Card { interface, address, .. } = card;
    let broadcast = card.broadcast();
    let from = format!("iifname \"{interface}\" ip saddr @{peers} ip daddr {{ {address}, {broadcast} }}");
    let to = format!("oifname \"{interface}\" ip saddr {address} ip daddr @{peers}");
    chains.input.push(format!("{from} jump members"));
    chains.output.push(format!("{to} jump members"));
    let heartbeat = dialogue(Protocol::Udp, MEMBERS, MEMBERS).question;
    chains.output.push(format!("oifname \"{interface}\" ip saddr {address} ip daddr {broadcast} {heartbeat} accept"));
    let undelivered = "icmp type destination-unreachable accept";
    chains.input.push(format!("iifname \"{interface}\" ip daddr {address} {undelivered}"));
    chains.output.push(format!("oifname \"{interface}\" ip saddr {address} {undelivered}"));
}

/// Power switches and UPSes' hosts, where this card reaches them. Any node may have to ask: any may be the DC.
fn devices(chains: &mut Chains, config: &Config, card: &Card<'_>) {
    let pdus = config.pdus.iter().map(|pdu| (pdu.address, dialogue(Protocol::Udp, OURS, SNMP)));
    let upses = config.upses.iter().filter_map(|ups| match &ups.way {
        UpsWay::Nut { address, port, .. } => Some((*address, dialogue(Protocol::Tcp, OURS, &port.to_string()))),
        UpsWay::Smart(_) => None,
    });
    let mut devices: Vec<(Ipv4Addr, Dialogue)> = Vec::new();
    for device in pdus.chain(upses).filter(|(address, _)| card.reaches(*address)) {
        // Two UPSes at one host are asked alike.
        if !devices.contains(&device) {
            devices.push(device);
        }
    }
    let Card { interface, address, .. } = card;
    for (device, dialogue) in devices {
        let there = format!("oifname \"{interface}\" ip saddr {address} ip daddr {device}");
        let here = format!("iifname \"{interface}\" ip saddr {device} ip daddr {address}");
        chains.ask(&there, &here, &dialogue);
    }
}

/// The event log, to its collector, where this card reaches it. A datagram has no answer.
fn event_log(chains: &mut Chains, collector: &Syslog, card: &Card<'_>) {
    let Card { interface, address, .. } = card;
    let (server, port) = (collector.server.ip(), collector.server.port().to_string());
    if !card.reaches(*server) {
        return;
    }
    let there = format!("oifname \"{interface}\" ip saddr {address} ip daddr {server}");
    match collector.transport {
        Transport::Udp => {
            chains.output.push(format!("{there} {} accept", dialogue(Protocol::Udp, OURS, &port).question))
        }
        Transport::Tcp => {
            let here = format!("iifname \"{interface}\" ip saddr {server} ip daddr {address}");
            chains.ask(&there, &here, &dialogue(Protocol::Tcp, OURS, &port));
        }
    }
}

/// The tunnels of the kernel's lock manager, and what it says through them.
fn tunnels(chains: &mut Chains, card: &Card<'_>, peers: &str) {
    let Card { interface, address, .. } = card;
    let tunnel = dialogue(Protocol::Udp, TUNNELS, TUNNELS).question;
    chains.input.push(format!("iifname \"{interface}\" ip saddr @{peers} ip daddr {address} {tunnel} accept"));
    chains.output.push(format!("oifname \"{interface}\" ip saddr {address} ip daddr @{peers} {tunnel} accept"));
    let locks = dialogue(Protocol::Tcp, OURS, LOCKS);
    // A newcomer's lock manager listens when it begins to mount, moments after the others have begun to call it. The DLM calls
    // again at once where it is refused, all the time (Linux 6.1 `fs/dlm/lowcomms.c`); unanswered, TCP does in its own time.
    let heard = Dialogue { answer: format!("{} {NO_REFUSAL}", locks.answer), ..locks.clone() };
    let (into, out) = (format!("iifname \"{INTERFACE}\""), format!("oifname \"{INTERFACE}\""));
    chains.ask(&out, &into, &heard);
    chains.answer(&into, &out, &locks);
}

/// DHCP, before a machine has an address, and then its boot files, for machines with these addresses.
fn boots(chains: &mut Chains, card: &Card<'_>, whose: &[Option<String>]) {
    let Card { interface, address, .. } = card;
    let (into, out) = (format!("iifname \"{interface}\""), format!("oifname \"{interface}\""));
    chains.answer(&into, &format!("{out} ip saddr {address}"), &dialogue(Protocol::Udp, "68", "67"));
    for whose in whose.iter().flatten() {
        let here = format!("{into} ip saddr {whose} ip daddr {address}");
        let there = format!("{out} ip saddr {address} ip daddr {whose}");
        for dialogue in of_who_boots() {
            chains.answer(&here, &there, &dialogue);
        }
    }
}

/// Any machine of the network may ask to become a node: one that is new, and one that was removed and has its old address.
fn joins(chains: &mut Chains, card: &Card<'_>) {
    let Card { interface, address, link } = card;
    let network = format!("{}/{}", link.subnet, link.prefix);
    let here = format!("iifname \"{interface}\" ip saddr {network} ip daddr {address}");
    let there = format!("oifname \"{interface}\" ip saddr {address} ip daddr {network}");
    chains.answer(&here, &there, &dialogue(Protocol::Tcp, OURS, MEMBERS));
}

fn write_set(text: &mut String, name: &str, addresses: &[Ipv4Addr]) {
    let addresses: Vec<String> = addresses.iter().map(Ipv4Addr::to_string).collect();
    let elements = match addresses.join(", ") {
        none if none.is_empty() => none,
        some => format!("\t\telements = {{ {some} }}\n"),
    };
    let _ = write!(text, "\tset {name} {{\n\t\ttype ipv4_addr\n{elements}\t}}\n\n");
}

/// The whole table, as nft itself writes it, behind the words that take away an older one.
fn text(sets: &str, chains: &Chains) -> String {
    let mut members = Vec::new();
    for Dialogue { question, answer } in between_members() {
        members.push(format!("{question} accept"));
        if answer != question {
            members.push(format!("{answer} accept"));
        }
    }
    let local = |direction: &str| vec![format!("{direction} \"lo\" accept")];
    let input = [local("iifname"), chains.input.clone()].concat();
    let output = [local("oifname"), chains.output.clone()].concat();
    let mut text = format!("table inet holdfast\ndelete table inet holdfast\ntable inet holdfast {{\n{sets}");
    // The same both ways: each of them asks and answers.
    write_chain(&mut text, "members", None, &members);
    write_chain(&mut text, "input", Some("input"), &input);
    write_chain(&mut text, "output", Some("output"), &output);
    write_chain(&mut text, "forward", Some("forward"), &[]);
    // The last chain's empty line.
    text.pop();
    text + "}\n"
}

fn write_chain(text: &mut String, name: &str, hook: Option<&str>, rules: &[String]) {
    let _ = writeln!(text, "\tchain {name} {{");
    if let Some(hook) = hook {
        let _ = writeln!(text, "\t\ttype filter hook {hook} priority filter; policy drop;");
    }
    for rule in rules {
        let _ = writeln!(text, "\t\t{rule}");
    }
    text.push_str("\t}\n\n");
}

#[cfg(test)]
mod tests;
