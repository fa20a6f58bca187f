//! The shape of `cluster.toml` as it is written, and the checks that turn it into a [`Config`].

use core::ops::Range;
use core::time::Duration;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::Deserialize;
use toml::Spanned;

use super::edit;
use super::hex;
use super::serial::{LineTable, SerialTable};
use super::shared::{self, SharedTable};
use super::syslog::{self, SyslogTable};
use super::ups::{self, UpsTable};
use super::{
    By, Config, ConfigError, Export, Level, Mac, Network, NetworkKind, Nic, NodeConfig, Pdu, Snmp, Timing, doubled,
};
use crate::limits;
use crate::words::{Edition, LinkId, Outlet, Role, Slot};

/// How long requests to a disk wait for the gateway if the file does not say: as an operator may need to mend it.
const PATIENCE: Duration = Duration::from_secs(3600);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    cluster: ClusterTable,
    network: BTreeMap<String, Spanned<NetworkTable>>,
    #[serde(default)]
    serial: BTreeMap<String, Spanned<LineTable>>,
    #[serde(default)]
    pdu: Vec<Spanned<PduTable>>,
    node: Vec<Spanned<NodeTable>>,
    #[serde(default)]
    ups: Vec<Spanned<UpsTable>>,
    #[serde(default)]
    gateway: GatewayTable,
    #[serde(default)]
    storage: StorageTable,
    #[serde(default)]
    shared: SharedTable,
    #[serde(default)]
    export: Vec<Spanned<ExportTable>>,
    syslog: Option<SyslogTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterTable {
    name: Spanned<String>,
    edition: Option<Spanned<u32>>,
    key: Option<Spanned<u32>>,
    keepalive: Option<Spanned<String>>,
    warntime: Option<Spanned<String>>,
    deadtime: Option<Spanned<String>>,
    initdead: Option<Spanned<String>>,
    lease: Option<Spanned<String>>,
    evacuation: Option<Spanned<String>>,
    #[serde(default = "yes")]
    self_fence: bool,
    #[serde(default)]
    balance: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkTable {
    subnet: Option<String>,
    bridge: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PduTable {
    name: String,
    model: String,
    address: Ipv4Addr,
    #[serde(default)]
    snmp: Snmp,
    engine: Option<String>,
    pub(super) serial: Option<SerialTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeTable {
    name: String,
    #[serde(default)]
    removed: bool,
    #[serde(default)]
    on_trial: bool,
    role: Option<Role>,
    #[serde(default = "one")]
    votes: u8,
    #[serde(default)]
    outlets: Vec<OutletTable>,
    fencing: Option<Vec<Level>>,
    nics: Vec<NicTable>,
    monitor: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OutletTable {
    pdu: String,
    outlet: u8,
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NicTable {
    mac: String,
    network: String,
    address: Option<Ipv4Addr>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct GatewayTable {
    #[serde(default)]
    pxe: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StorageTable {
    patience: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportTable {
    name: String,
    device: String,
    #[serde(default)]
    read_only: bool,
}

fn yes() -> bool {
    true
}

fn one() -> u8 {
    1
}

pub(super) fn parse(text: &str) -> Result<Config, ConfigError> {
    if text.len() > limits::CONFIGURATION_BYTES {
        return Err(whole(&format!(
            "the file is longer than {} bytes; shorten its comments",
            limits::CONFIGURATION_BYTES
        )));
    }
    let source = Source(text);
    let file: File = toml::from_str(text).map_err(|error| not_toml(text, &error))?;
    let timing = source.timing(&file.cluster)?;
    let networks = source.networks(&file.network)?;
    let mut pdus = source.pdus(&file.pdu)?;
    source.outlet_names(&file.node, &mut pdus)?;
    let nodes = source.nodes(&file.node, &networks, &pdus)?;
    let exports = source.exports(&file.export)?;
    let gateways = nodes.iter().filter(|node| node.role == Role::Gateway && !node.removed).count();
    if gateways == 0 && (file.gateway.pxe || !exports.is_empty()) {
        return Err(whole("[gateway] and [[export]] need a node with role = \"gateway\""));
    }
    if gateways > 1 {
        return Err(whole("more than one node has role = \"gateway\"; one gateway is supported"));
    }
    let name = file.cluster.name;
    if !is_name(name.get_ref()) {
        return Err(source.refuse(name.span(), NAME_RULE));
    }
    let edition = file.cluster.edition.as_ref().map_or(1, |edition| *edition.get_ref());
    if let Some(written) = file.cluster.edition.filter(|_| edition == 0) {
        return Err(source.refuse(written.span(), "edition counts the changes of this file, from 1"));
    }
    let key = file.cluster.key.as_ref().map_or(1, |key| *key.get_ref());
    if let Some(written) = file.cluster.key.filter(|_| key == 0) {
        return Err(source.refuse(written.span(), "key counts the changes of the cluster's key, from 1"));
    }
    let mut config = Config {
        text: text.to_owned(),
        edition: Edition::of(edition, text),
        key,
        name: name.into_inner(),
        patience: source.patience(&file.storage, &timing)?,
        timing,
        self_fence: file.cluster.self_fence,
        balance: file.cluster.balance,
        networks,
        lines: Vec::new(),
        pdus,
        nodes,
        upses: Vec::new(),
        pxe: file.gateway.pxe,
        shared: shared::shared(&file.shared, &exports).map_err(|(at, text)| source.refuse(at, &text))?,
        exports,
        syslog: None,
    };
    source.cables(&file.pdu, &mut config)?;
    source.lines(&file.serial, &mut config)?;
    source.fencing(&file.node, &mut config)?;
    for table in &file.ups {
        let ups = ups::ups(table.get_ref(), &config).map_err(|text| source.refuse(table.span(), &text))?;
        config.upses.push(ups);
    }
    let syslog = file.syslog.as_ref().map(|table| syslog::syslog(table, &config)).transpose();
    config.syslog = syslog.map_err(|(at, text)| source.refuse(at, &text))?;
    Ok(config)
}

/// What the TOML parser refused, with its line.
pub(super) fn not_toml(text: &str, error: &toml::de::Error) -> ConfigError {
    ConfigError { line: error.span().map_or(0, |span| Source(text).line(&span)), text: error.message().to_owned() }
}

pub(super) const NAME_RULE: &str = "a name is 1 to 16 lower-case letters, digits and '-', beginning with a letter";

pub(super) fn is_name(text: &str) -> bool {
    text.len() <= limits::NODE_NAME_BYTES
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn whole(text: &str) -> ConfigError {
    ConfigError { line: 0, text: text.to_owned() }
}

/// The text, to find lines in.
pub(super) struct Source<'a>(&'a str);

impl Source<'_> {
    fn line(&self, span: &Range<usize>) -> usize {
        self.0.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1
    }

    pub(super) fn refuse(&self, span: Range<usize>, text: &str) -> ConfigError {
        ConfigError { line: self.line(&span), text: text.to_owned() }
    }

    fn timing(&self, table: &ClusterTable) -> Result<Timing, ConfigError> {
        // The defaults: ARCHITECTURE.md has the table that they are chosen from.
        let or = |written: &Option<Spanned<String>>, default: &str| {
            written.clone().unwrap_or_else(|| Spanned::new(0..0, default.to_owned()))
        };
        let written = or(&table.keepalive, "250ms");
        let keepalive = self.duration("keepalive", &written)?;
        if keepalive < Duration::from_millis(20) {
            return Err(self.refuse(written.span(), "keepalive must be at least \"20ms\""));
        }
        let [warn, dead, init, last] =
            [or(&table.warntime, "1s"), or(&table.deadtime, "2s"), or(&table.initdead, "60s"), or(&table.lease, "10s")];
        let warntime = self.duration("warntime", &warn)?;
        let deadtime = self.duration("deadtime", &dead)?;
        let initdead = self.duration("initdead", &init)?;
        let lease = self.duration("lease", &last)?;
        let evacuation = self.duration("evacuation", &or(&table.evacuation, "600s"))?;
        let relations = [
            (keepalive * 2, warntime, &warn, "warntime must be at least twice keepalive"),
            (warntime, deadtime, &dead, "deadtime must be longer than warntime"),
            (deadtime, initdead, &init, "initdead must be longer than deadtime"),
            (deadtime, lease, &last, "lease must be longer than deadtime"),
        ];
        for (shorter, longer, at, text) in relations {
            if shorter >= longer && !(text.contains("twice") && shorter == longer) {
                return Err(self.refuse(at.span(), text));
            }
        }
        Ok(Timing { keepalive, warntime, deadtime, initdead, lease, evacuation })
    }

    fn patience(&self, table: &StorageTable, timing: &Timing) -> Result<Duration, ConfigError> {
        let Some(written) = &table.patience else { return Ok(PATIENCE) };
        let patience = self.duration("patience", written)?;
        if patience <= timing.deadtime {
            // A node that is only cut off is to be fenced before its VMs see errors.
            return Err(self.refuse(written.span(), "patience must be longer than deadtime"));
        }
        Ok(patience)
    }

    fn duration(&self, key: &str, value: &Spanned<String>) -> Result<Duration, ConfigError> {
        duration(key, value.get_ref()).map_err(|text| self.refuse(value.span(), &text))
    }

    fn networks(&self, tables: &BTreeMap<String, Spanned<NetworkTable>>) -> Result<Vec<Network>, ConfigError> {
        let mut networks = Vec::new();
        let mut tables: Vec<_> = tables.iter().collect();
        tables.sort_by_key(|(_, table)| table.span().start);
        for (name, table) in tables {
            let at = table.span();
            let NetworkTable { subnet, bridge } = table.get_ref();
            let kind = match (subnet, bridge) {
                (Some(subnet), None) => {
                    let (subnet, prefix) = parse_subnet(subnet).ok_or_else(|| {
                        self.refuse(at, "subnet must look like \"10.77.0.0/24\" (a prefix of 8 to 30)")
                    })?;
                    NetworkKind::Cluster { subnet, prefix }
                }
                (None, Some(bridge)) if (1..=15).contains(&bridge.len()) => {
                    NetworkKind::Public { bridge: bridge.clone() }
                }
                (None, Some(_)) => return Err(self.refuse(at, "a bridge's name has 1 to 15 characters")),
                _ => {
                    return Err(self.refuse(
                        at,
                        "a network has either subnet (the cluster's: nodes have addresses) or bridge (the VMs')",
                    ));
                }
            };
            if let Some(other) = networks.iter().find(|other: &&Network| overlap(&other.kind, &kind)) {
                let text =
                    format!("[network.{name}] and [network.{}] overlap; give each a subnet of its own", other.name);
                return Err(self.refuse(table.span(), &text));
            }
            networks.push(Network { name: name.clone(), kind });
        }
        match networks.iter().filter(|network| matches!(network.kind, NetworkKind::Cluster { .. })).count() {
            0 => Err(whole("at least one [network.NAME] must have a subnet: the cluster network")),
            1..=limits::LINKS => Ok(networks),
            _ => Err(whole(&format!("at most {} networks may have a subnet", limits::LINKS))),
        }
    }

    fn pdus(&self, tables: &[Spanned<PduTable>]) -> Result<Vec<Pdu>, ConfigError> {
        let pdu = |table: &Spanned<PduTable>| pdu(table.get_ref()).map_err(|text| self.refuse(table.span(), text));
        let pdus: Vec<Pdu> = tables.iter().map(pdu).collect::<Result<_, _>>()?;
        match doubled(pdus.iter().map(|pdu| &pdu.name)) {
            Some(name) => Err(whole(&format!("two [[pdu]] are named \"{name}\"; give each its own name"))),
            None => Ok(pdus),
        }
    }

    /// What the power switches are to call their outlets.
    fn outlet_names(&self, tables: &[Spanned<NodeTable>], pdus: &mut [Pdu]) -> Result<(), ConfigError> {
        for table in tables {
            for OutletTable { pdu, outlet, name } in table.get_ref().outlets.iter().filter(|_| !table.get_ref().removed)
            {
                let Some(name) = name else { continue };
                let is_plain = name.bytes().all(|byte| (b' '..=b'~').contains(&byte));
                if !is_plain || !(1..=limits::OUTLET_NAME_BYTES).contains(&name.len()) {
                    let text = "an outlet's name is what the power switch calls it: 1 to 31 ASCII characters";
                    return Err(self.refuse(table.span(), text));
                }
                if let Some(pdu) = pdus.iter_mut().find(|known| known.name == *pdu) {
                    pdu.names.insert(*outlet, name.clone());
                }
            }
        }
        Ok(())
    }

    fn nodes(
        &self,
        tables: &[Spanned<NodeTable>],
        networks: &[Network],
        pdus: &[Pdu],
    ) -> Result<Vec<NodeConfig>, ConfigError> {
        if tables.is_empty() || tables.len() > limits::NODES {
            return Err(whole(&format!("a cluster has 1 to {} [[node]], removed ones included", limits::NODES)));
        }
        let mut nodes: Vec<NodeConfig> = Vec::new();
        for table in tables {
            let refuse = |text: &str| self.refuse(table.span(), text);
            if table.get_ref().removed {
                let NodeTable { name, role, .. } = table.get_ref();
                nodes.push(edit::removed(name, *role));
                continue;
            }
            let node = node(table.get_ref(), networks, pdus).map_err(|text| refuse(&text))?;
            for other in nodes.iter().filter(|other| !other.removed) {
                if let Some(text) = clash(&node, other).or_else(|| other_primary(&node, other)) {
                    return Err(refuse(&text));
                }
            }
            nodes.push(node);
        }
        Ok(nodes)
    }

    /// The levels of fencing: those that are written, or else SNMP, and the serial lines where there are any.
    fn fencing(&self, tables: &[Spanned<NodeTable>], config: &mut Config) -> Result<(), ConfigError> {
        for (at, table) in (0..).zip(tables).filter(|(_, table)| !table.get_ref().removed) {
            let slot = Slot(at);
            let refuse = |text: &str| Err(self.refuse(table.span(), text));
            if config.node(slot).role == Role::Gateway {
                if table.get_ref().fencing.is_some() {
                    return refuse("a gateway is never fenced: it runs no VMs; leave fencing out");
                }
                continue;
            }
            let possible = |level: Level| config.fenced_by(slot, level).is_some_and(|by| by != By::Node(slot));
            let levels = match &table.get_ref().fencing {
                Some(levels) => levels.clone(),
                None => [Level::Snmp, Level::Serial].into_iter().filter(|level| possible(*level)).collect(),
            };
            if levels.is_empty() || doubled(levels.iter().copied()).is_some() {
                return refuse("fencing names each level once: \"snmp\", \"serial\", \"storage\", \"watchdog\"");
            }
            if levels.contains(&Level::Snmp) && config.node(slot).outlets.is_empty() {
                return refuse("fencing level \"snmp\" needs the outlets that feed the node");
            }
            if levels.contains(&Level::Serial) && !possible(Level::Serial) {
                return refuse(
                    "fencing level \"serial\" needs a serial line on every pdu that feeds it, all held by one other node",
                );
            }
            if levels.contains(&Level::Storage) && config.exports.is_empty() {
                return refuse("fencing level \"storage\" needs a gateway with exports");
            }
            if levels.contains(&Level::Watchdog) && !config.self_fence {
                return refuse("fencing level \"watchdog\" needs self_fence = true");
            }
            if let Some(node) = config.nodes.get_mut(usize::from(at)) {
                node.fencing = levels;
            }
        }
        Ok(())
    }

    fn exports(&self, tables: &[Spanned<ExportTable>]) -> Result<Vec<Export>, ConfigError> {
        let mut exports: Vec<Export> = Vec::new();
        for table in tables {
            let ExportTable { name, device, read_only } = table.get_ref();
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
            if name.is_empty() || name.len() > limits::VM_NAME_BYTES || !name.chars().all(plain) {
                return Err(self.refuse(table.span(), "an export's name is 1 to 32 letters, digits, '_' and '-'"));
            }
            if !device.starts_with("/dev/") || device.contains("..") {
                return Err(self.refuse(table.span(), "device must be a path below /dev/"));
            }
            if exports.iter().any(|other| other.name == *name || other.device == *device) {
                return Err(self.refuse(table.span(), "another [[export]] has this name or this device"));
            }
            exports.push(Export { name: name.clone(), device: device.clone(), read_only: *read_only });
        }
        Ok(exports)
    }
}

/// A duration as it is written.
pub(super) fn duration(key: &str, text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let millis = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        _ => None,
    };
    let parsed = millis.zip(number.parse::<u32>().ok()).map(|(unit, number)| u64::from(number) * unit);
    match parsed {
        Some(millis) if millis > 0 => Ok(Duration::from_millis(millis)),
        _ => Err(format!("{key} = \"{text}\" is not a duration; write \"250ms\", \"2s\" or \"1m\"")),
    }
}

fn parse_subnet(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let prefix: u8 = prefix.parse().ok().filter(|prefix| (8..=30).contains(prefix))?;
    let address: Ipv4Addr = address.parse().ok()?;
    (address == masked(address, prefix)).then_some((address, prefix))
}

fn masked(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    Ipv4Addr::from_bits(address.to_bits() & mask)
}

fn overlap(one: &NetworkKind, other: &NetworkKind) -> bool {
    match (one, other) {
        (
            NetworkKind::Cluster { subnet, prefix },
            NetworkKind::Cluster { subnet: other_subnet, prefix: other_prefix },
        ) => {
            let shorter = *prefix.min(other_prefix);
            masked(*subnet, shorter) == masked(*other_subnet, shorter)
        }
        (NetworkKind::Cluster { .. } | NetworkKind::Public { .. }, _) => false,
    }
}

fn pdu(table: &PduTable) -> Result<Pdu, &'static str> {
    if table.model != "ap7921" {
        return Err("model must be \"ap7921\"");
    }
    let engine = table.engine.as_deref().map(|text| hex::octets(text).filter(|id| (5..=32).contains(&id.len())));
    let engine = match (engine, table.snmp) {
        (None, _) => None,
        (Some(_), Snmp::V1) => return Err("engine needs snmp = \"v3\": version 1 does not tell it"),
        (Some(None), Snmp::V3 | Snmp::V3Md5Des) => return Err("engine must be 10 to 64 hexadecimal digits"),
        (Some(Some(engine)), Snmp::V3 | Snmp::V3Md5Des) => Some(engine),
    };
    let (name, address, snmp) = (table.name.clone(), table.address, table.snmp);
    Ok(Pdu { name, address, snmp, engine, serial: None, names: BTreeMap::new() })
}

fn node(table: &NodeTable, networks: &[Network], pdus: &[Pdu]) -> Result<NodeConfig, String> {
    let name = &table.name;
    if !is_name(name) {
        return Err(format!("node \"{name}\": {NAME_RULE}"));
    }
    let mut outlets = Vec::new();
    for OutletTable { pdu, outlet, name: _ } in &table.outlets {
        if !pdus.iter().any(|known| known.name == *pdu) {
            return Err(format!("node \"{name}\" has an outlet of \"{pdu}\", but there is no such [[pdu]]"));
        }
        if !(1..=24).contains(outlet) {
            return Err(format!("node \"{name}\": outlet {outlet} is not one of 1 to 24"));
        }
        outlets.push(Outlet { pdu: pdu.clone(), number: *outlet });
    }
    let role = table.role.unwrap_or(Role::Node);
    if role == Role::Node && outlets.is_empty() && table.fencing.is_none() {
        return Err(format!("node \"{name}\" has no outlets: it could not be fenced; name every outlet that feeds it"));
    }
    if table.on_trial && (role == Role::Gateway || outlets.is_empty()) {
        return Err(format!("node \"{name}\": only a node with outlets can be on_trial"));
    }
    let mut nics = Vec::new();
    let mut links = Vec::new();
    for nic in &table.nics {
        let (parsed, link) = self::nic(nic, networks).map_err(|text| format!("node \"{name}\": {text}"))?;
        links.extend(link);
        nics.push(parsed);
    }
    if let Some(network) = doubled(nics.iter().map(|nic| &nic.network)) {
        return Err(format!("node \"{name}\" has two nics on [network.{network}]; give it one on each network"));
    }
    let Some((_, address)) = links.first().copied() else {
        return Err(format!("node \"{name}\" has no nic on a cluster network"));
    };
    let (name, votes, fencing, monitor) = (name.clone(), table.votes, Vec::new(), table.monitor.clone());
    if !(1..=limits::VOTES).contains(&votes) {
        return Err(format!("node \"{name}\": votes = {votes} is not one of 1 to {}", limits::VOTES));
    }
    let on_trial = table.on_trial;
    Ok(NodeConfig { name, role, removed: false, on_trial, votes, outlets, fencing, nics, monitor, address, links })
}

fn nic(table: &NicTable, networks: &[Network]) -> Result<(Nic, Option<(LinkId, Ipv4Addr)>), String> {
    let mac = Mac::parse(&table.mac)
        .ok_or_else(|| format!("\"{}\" is not a MAC address; write \"52:54:00:12:34:56\"", table.mac))?;
    let network = networks
        .iter()
        .find(|network| network.name == table.network)
        .ok_or_else(|| format!("there is no [network.{}]", table.network))?;
    match (&network.kind, table.address) {
        (NetworkKind::Cluster { subnet, prefix }, Some(address)) => {
            if masked(address, *prefix) != *subnet || address == *subnet {
                return Err(format!("address {address} is not in {subnet}/{prefix}"));
            }
        }
        (NetworkKind::Cluster { .. }, None) => return Err("the nic on a cluster network needs an address".to_owned()),
        (NetworkKind::Public { .. }, Some(_)) => {
            return Err("a nic on the VMs' network has no address: the node only bridges it".to_owned());
        }
        (NetworkKind::Public { .. }, None) => {}
    }
    let mut clusters = networks.iter().filter(|network| matches!(network.kind, NetworkKind::Cluster { .. }));
    let place = clusters.position(|network| network.name == table.network);
    let id = place.and_then(|place| u8::try_from(place).ok()).map(LinkId);
    Ok((Nic { mac, network: table.network.clone(), address: table.address }, id.zip(table.address)))
}

/// What two nodes may not share.
fn clash(node: &NodeConfig, other: &NodeConfig) -> Option<String> {
    if node.name == other.name {
        return Some(format!("two nodes are named \"{}\"", node.name));
    }
    if let Some(outlet) = node.outlets.iter().find(|outlet| other.outlets.contains(outlet)) {
        return Some(format!("{outlet} feeds both \"{}\" and \"{}\"; an outlet feeds one node", node.name, other.name));
    }
    let macs = || other.nics.iter().map(|nic| nic.mac);
    if let Some(nic) = node.nics.iter().find(|nic| macs().any(|mac| mac == nic.mac)) {
        return Some(format!("\"{}\" and \"{}\" have the same mac {}", node.name, other.name, nic.mac));
    }
    let (_, address) = node.links.iter().find(|link| other.links.contains(link))?;
    Some(format!("\"{}\" and \"{}\" have the same address {address}", node.name, other.name))
}

/// Storage and migration take every node's first address: it must be on one network.
fn other_primary(node: &NodeConfig, other: &NodeConfig) -> Option<String> {
    let first = |node: &NodeConfig| {
        let nic = node.nics.iter().find(|nic| nic.address.is_some());
        nic.map(|nic| nic.network.clone()).unwrap_or_default()
    };
    let (here, there) = (first(node), first(other));
    (here != there).then(|| {
        format!(
            "the first address of \"{}\" is on [network.{here}], that of \"{}\" on [network.{there}]; name the nic of the \
             same network first on every node: it carries storage and migration",
            node.name, other.name
        )
    })
}
