//! `cluster.toml`: what the operator has written, parsed once and checked whole.
//!
//! The parser is the only gate: unknown keys, doubled names, outlets and addresses, and timings that cannot work are
//! refused here, with the line and with what to write instead. Whoever holds a [`Config`] may rely on all of it.

use core::fmt;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde::Deserialize;

use crate::limits;
use crate::words::{Edition, LinkId, Outlet, Role, Slot, UpsId};

mod decisions;
mod edit;
mod file;
mod hex;
mod serial;
mod shared;
mod syslog;
mod ups;
mod vm;

pub use decisions::{Decisions, Duty};
pub use edit::name_of;
pub use shared::{FileSystem, SHARED};
pub use syslog::{Syslog, Transport};
pub use ups::{Ups, UpsWay};
pub use vm::{Contract, VmSpec};

/// A configuration that was refused: where, why, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The line, from 1; 0 when the error is of the file as a whole.
    pub line: usize,
    /// What is wrong and what to write instead.
    pub text: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "cluster.toml: {}", self.text),
            line => write!(f, "cluster.toml, line {line}: {}", self.text),
        }
    }
}

impl core::error::Error for ConfigError {}

/// The names are Heartbeat's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats of a node.
    pub keepalive: Duration,
    /// Silence that is logged.
    pub warntime: Duration,
    /// Silence that makes a node suspect.
    pub deadtime: Duration,
    /// How long a cluster that comes up waits for nodes that are missing.
    pub initdead: Duration,
    /// How long a node may be inquorate before its watchdog resets it.
    pub lease: Duration,
    /// How long a leaving node's VMs may take to move before they are shut down and started elsewhere.
    pub evacuation: Duration,
}

impl Timing {
    /// How long a request may take to be agreed: a DC may be silent for [`Self::deadtime`] before another answers in its place.
    #[must_use]
    pub fn agree(&self) -> Duration {
        self.deadtime + limits::AGREE
    }

    /// How long one step of a rolling restart may take: a VM's move away, what a node lets go of, its boot, or that all is well
    /// for the next.
    #[must_use]
    pub fn step(&self) -> Duration {
        self.initdead + self.evacuation
    }
}

/// A MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Parses `52:54:00:12:34:56`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2)?;
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        parts.next().is_none().then_some(Self(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// One network of the site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its name in the file.
    pub name: String,
    /// What it is for.
    pub kind: NetworkKind,
}

/// What a network is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkKind {
    /// Heartbeat: the nodes have addresses here. The primary one carries storage and migration as well.
    Cluster {
        /// The network's address.
        subnet: Ipv4Addr,
        /// Bits of the prefix.
        prefix: u8,
    },
    /// The VMs' network: the nodes only bridge it.
    Public {
        /// The bridge that VM files name.
        bridge: String,
    },
}

/// A cluster network as a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link<'a> {
    /// Which of them.
    pub id: LinkId,
    /// The network's name in the file.
    pub name: &'a str,
    /// The network's address.
    pub subnet: Ipv4Addr,
    /// Bits of the prefix.
    pub prefix: u8,
}

/// One network card of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// By which the machine finds itself in the file.
    pub mac: Mac,
    /// The network's name.
    pub network: String,
    /// The address, on a cluster network only.
    pub address: Option<Ipv4Addr>,
}

/// A way to fence a node. Levels are tried in the configured order, one attempt after another, until one proves it off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Every outlet, over SNMP, by the DC.
    Snmp,
    /// Every outlet, over the power switches' serial lines, by the node that holds the cables.
    Serial,
    /// The gateway bars it from the storage.
    Storage,
    /// Its own watchdog has reset it by now.
    Watchdog,
}

/// Who carries out an attempt at fencing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Whoever is DC.
    Dc,
    /// This node.
    Node(Slot),
}

/// One slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Whether it was removed while the cluster ran. Its slot stays empty: it has no votes, no cards and no outlets.
    pub removed: bool,
    /// Whether it was added while the cluster ran, and no test of its fencing has shown yet that its outlets feed it and nobody
    /// else. Until then it has neither VMs nor the shared file system: were it held for dead, its proof might be worth nothing.
    pub on_trial: bool,
    /// Its votes; a majority of all votes is a quorum.
    pub votes: u8,
    /// Every outlet that feeds it.
    pub outlets: Vec<Outlet>,
    /// How it is fenced, in order; empty for a gateway, which is never fenced.
    pub fencing: Vec<Level>,
    /// Its network cards.
    pub nics: Vec<Nic>,
    /// A serial line that carries events and status, such as `ttyS1`.
    pub monitor: Option<String>,
    /// Its address on the primary cluster network.
    pub address: Ipv4Addr,
    /// Its addresses on the cluster networks, one a network, in the order of its cards: the first is `address`.
    pub links: Vec<(LinkId, Ipv4Addr)>,
}

/// By which version of SNMP a power switch is spoken with. Version 3 is always authenticated and encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Snmp {
    /// Version 1, with a community in clear.
    #[default]
    #[serde(rename = "v1")]
    V1,
    /// Version 3 with SHA-1 and AES-128, as the AP7921B has.
    #[serde(rename = "v3")]
    V3,
    /// Version 3 with MD5 and DES: the AP7921 offers nothing better.
    #[serde(rename = "v3-md5-des")]
    V3Md5Des,
}

/// A power switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pdu {
    /// Its name.
    pub name: String,
    /// Where its SNMP agent answers (UDP 161).
    pub address: Ipv4Addr,
    /// By which version.
    pub snmp: Snmp,
    /// With version 3: the number of its SNMP engine (5 to 32 octets), if no other device may answer for it. Without, that is
    /// whichever does so first.
    pub engine: Option<Vec<u8>>,
    /// Its serial line, if a node holds the cable.
    pub serial: Option<SerialLine>,
    /// What it must call an outlet, where the operator has said so: a check that the wiring is as planned.
    pub names: BTreeMap<u8, String>,
}

/// A serial line to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SerialLine {
    /// The node that holds the cable.
    pub holder: Slot,
    /// The line there, such as `ttyS0`.
    pub device: String,
}

/// A serial line from one node to another: a link that carries heartbeats, and what else of the agreement is short enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Which of the links.
    pub id: LinkId,
    /// Its name in the file.
    pub name: String,
    /// Its two ends, at different nodes.
    pub ends: [SerialLine; 2],
}

impl Line {
    /// The end at that node, and whose the other end is.
    #[must_use]
    pub fn at(&self, slot: Slot) -> Option<(&SerialLine, Slot)> {
        let [one, other] = &self.ends;
        [(one, other.holder), (other, one.holder)].into_iter().find(|(end, _)| end.holder == slot)
    }
}

/// One block device that the gateway exports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The export's name: nodes see it as `/dev/gnbd/NAME`.
    pub name: String,
    /// The device on the gateway.
    pub device: String,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// A configuration that can work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file that it was read from.
    pub text: String,
    /// Which edition of it this is.
    pub edition: Edition,
    /// Which of the cluster's keys its members are to hold: what the gateway derives with this number.
    pub key: u32,
    /// The cluster's name.
    pub name: String,
    /// The time limits.
    pub timing: Timing,
    /// How long requests to a network disk wait for the gateway before they fail, and its VMs' node counts as dying.
    pub patience: Duration,
    /// Whether the watchdog resets a node that stays inquorate for `lease`.
    pub self_fence: bool,
    /// Whether VMs are moved only to even out the use of memory.
    pub balance: bool,
    /// The networks, in the order of the file.
    pub networks: Vec<Network>,
    /// The serial lines from node to node, in the order of the file.
    pub lines: Vec<Line>,
    /// The power switches.
    pub pdus: Vec<Pdu>,
    /// The slots, in order, with those that were removed: [`Config::slots`] leaves these out.
    pub nodes: Vec<NodeConfig>,
    /// The UPSes.
    pub upses: Vec<Ups>,
    /// Whether the gateway serves PXE.
    pub pxe: bool,
    /// What the gateway exports.
    pub exports: Vec<Export>,
    /// What the shared file system is.
    pub shared: FileSystem,
    /// Where every node sends its event log, if anywhere.
    pub syslog: Option<Syslog>,
}

impl Config {
    /// Parses and checks the text of a `cluster.toml`.
    ///
    /// # Errors
    /// The first thing that cannot work, with its line and its remedy.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        file::parse(text)
    }

    /// The slot of the machine that has one of `macs`, if the file names it.
    #[must_use]
    pub fn find(&self, macs: &[Mac]) -> Option<Slot> {
        let here = |node: &NodeConfig| node.nics.iter().any(|nic| macs.contains(&nic.mac));
        self.slots().find(|(_, node)| here(node)).map(|(slot, _)| slot)
    }

    /// The slots in order, without those that were removed.
    pub fn slots(&self) -> impl Iterator<Item = (Slot, &NodeConfig)> {
        (0..).map(Slot).zip(&self.nodes).filter(|(_, node)| !node.removed)
    }

    /// The slot of that name. One that was removed has none.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<Slot> {
        self.slots().find(|(_, node)| node.name == name).map(|(slot, _)| slot)
    }

    /// The links that each other node shares with the node in `slot`.
    #[must_use]
    pub fn shared_links(&self, slot: Slot) -> BTreeMap<Slot, Vec<LinkId>> {
        let links = |slot: Slot| -> BTreeSet<LinkId> {
            let lines = self.lines.iter().filter(|line| line.at(slot).is_some()).map(|line| line.id);
            self.node(slot).links.iter().map(|(link, _)| *link).chain(lines).collect()
        };
        let own = links(slot);
        let others = self.slots().map(|(other, _)| other).filter(|other| *other != slot);
        others.map(|other| (other, links(other).intersection(&own).copied().collect())).collect()
    }

    /// The node in `slot`.
    ///
    /// # Panics
    /// If the slot is not of this configuration: a programmer's error.
    #[must_use]
    pub fn node(&self, slot: Slot) -> &NodeConfig {
        let Some(node) = self.nodes.get(usize::from(slot.0)) else {
            panic!("slot {} is not in the configuration", slot.0)
        };
        node
    }

    /// The slots of these names. Those that were removed have none.
    ///
    /// # Errors
    /// The first name that no node has or had.
    pub(crate) fn all_named<'a>(&self, names: &'a [String]) -> Result<Vec<Slot>, &'a str> {
        let mut slots = Vec::new();
        for name in names {
            match self.named(name) {
                Some(slot) => slots.push(slot),
                None if self.nodes.iter().any(|node| node.name == *name) => {}
                None => return Err(name),
            }
        }
        Ok(slots)
    }

    /// Whether `slot` is one of this configuration's, and was not removed.
    #[must_use]
    pub fn has(&self, slot: Slot) -> bool {
        self.nodes.get(usize::from(slot.0)).is_some_and(|node| !node.removed)
    }

    /// Whether `slot` was removed.
    #[must_use]
    pub fn has_removed(&self, slot: Slot) -> bool {
        self.nodes.get(usize::from(slot.0)).is_some_and(|node| node.removed)
    }

    /// The name of a slot, whether or not it is one of this configuration's: another edition may have more.
    #[must_use]
    pub fn node_name(&self, slot: Slot) -> String {
        self.nodes.get(usize::from(slot.0)).map_or_else(|| format!("slot {}", slot.0), |node| node.name.clone())
    }

    /// The gateway, if there is one.
    #[must_use]
    pub fn gateway(&self) -> Option<(Slot, &NodeConfig)> {
        self.slots().find(|(_, node)| node.role == Role::Gateway)
    }

    /// The UPSes in order.
    pub fn ups_ids(&self) -> impl Iterator<Item = (UpsId, &Ups)> {
        (0..).map(UpsId).zip(&self.upses)
    }

    /// One UPS, if it is of this configuration.
    #[must_use]
    pub fn ups(&self, id: UpsId) -> Option<&Ups> {
        self.upses.get(usize::from(id.0))
    }

    /// Who goes last when the power fails, and orders the UPSes to give power again with mains: the gateway, or the first
    /// node where there is none.
    #[must_use]
    pub fn last_to_go(&self) -> Slot {
        let first = || self.slots().next().map(|(slot, _)| slot);
        self.gateway().map(|(slot, _)| slot).or_else(first).unwrap_or(Slot(0))
    }

    /// How many votes are a majority.
    #[must_use]
    pub fn majority(&self) -> usize {
        self.votes(self.slots().map(|(slot, _)| slot)) / 2 + 1
    }

    /// The votes of these slots together. Those that are not of this configuration have none.
    pub fn votes(&self, slots: impl Iterator<Item = Slot>) -> usize {
        slots.filter_map(|slot| self.nodes.get(usize::from(slot.0))).map(|node| usize::from(node.votes)).sum()
    }

    /// By how many votes another edition differs, slot by slot. If it is one at most, each majority of the one has a node in
    /// common with each majority of the other: together they are more than all the votes of both.
    pub(crate) fn votes_apart(&self, other: &Self) -> usize {
        let votes = |config: &Self, slot| config.votes(core::iter::once(slot));
        let slots = self.nodes.len().max(other.nodes.len());
        (0..).map(Slot).take(slots).map(|slot| votes(self, slot).abs_diff(votes(other, slot))).sum()
    }

    /// Who carries out an attempt at fencing `slot` at that level; `None` if nobody can.
    #[must_use]
    pub fn fenced_by(&self, slot: Slot, level: Level) -> Option<By> {
        match level {
            Level::Snmp | Level::Watchdog => Some(By::Dc),
            Level::Storage => self.gateway().map(|(gateway, _)| By::Node(gateway)),
            Level::Serial => {
                let line = |outlet: &Outlet| self.pdus.iter().find(|pdu| pdu.name == outlet.pdu)?.serial.as_ref();
                let holders: Option<BTreeSet<Slot>> =
                    self.node(slot).outlets.iter().map(|outlet| line(outlet).map(|line| line.holder)).collect();
                holders.filter(|set| set.len() == 1).and_then(|set| set.first().copied()).map(By::Node)
            }
        }
    }

    /// The cluster networks: each is a link, and those of the serial lines follow.
    pub fn links(&self) -> impl Iterator<Item = Link<'_>> {
        let clusters = self.networks.iter().filter_map(|network| match network.kind {
            NetworkKind::Cluster { subnet, prefix } => Some((network.name.as_str(), subnet, prefix)),
            NetworkKind::Public { .. } => None,
        });
        (0..).map(LinkId).zip(clusters).map(|(id, (name, subnet, prefix))| Link { id, name, subnet, prefix })
    }

    /// The name of a link: its network's, or its serial line's.
    #[must_use]
    pub fn link_name(&self, id: LinkId) -> &str {
        let line = self.lines.iter().find(|line| line.id == id).map(|line| line.name.as_str());
        self.links().find(|link| link.id == id).map(|link| link.name).or(line).unwrap_or("?")
    }

    /// The primary cluster network's address and prefix: the one of every node's first address.
    #[must_use]
    pub fn cluster_network(&self) -> (Ipv4Addr, u8) {
        let primary = self.slots().next().and_then(|(_, node)| node.links.first());
        let network = primary.and_then(|(id, _)| self.links().find(|link| link.id == *id));
        network.map_or((Ipv4Addr::UNSPECIFIED, 0), |link| (link.subnet, link.prefix))
    }
}

/// The first of `items` that stands twice.
fn doubled<T: Ord + Clone>(items: impl Iterator<Item = T>) -> Option<T> {
    let mut seen = BTreeSet::new();
    items.into_iter().find(|item| !seen.insert(item.clone()))
}

#[cfg(test)]
mod tests;
