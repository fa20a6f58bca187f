//! Serial lines in `cluster.toml`: to power switches, and from one node to another.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use toml::Spanned;

use super::file::{NAME_RULE, PduTable, Source, is_name};
use super::{Config, ConfigError, Line, SerialLine, UpsWay};
use crate::limits;
use crate::words::{LinkId, Slot};

/// The cable of a power switch or of a UPS.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SerialTable {
    pub(super) node: String,
    pub(super) device: String,
}

/// A cable from one node to another: the nodes, and the line at each.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LineTable {
    nodes: [String; 2],
    devices: [String; 2],
}

/// The longest heartbeat, sealed and framed, takes an eighth of a second at 115,200 bits per second.
const KEEPALIVE: Duration = Duration::from_millis(250);

impl Source<'_> {
    /// The power switches' serial lines: known when the nodes are.
    pub(super) fn cables(&self, tables: &[Spanned<PduTable>], config: &mut Config) -> Result<(), ConfigError> {
        for (at, table) in tables.iter().enumerate() {
            let Some(SerialTable { node, device }) = &table.get_ref().serial else { continue };
            let line = serial_line(config, node, device, "serial.device", "serial.node");
            let line = line.map_err(|text| self.refuse(table.span(), &text))?;
            if let Some(pdu) = config.pdus.get_mut(at) {
                pdu.serial = Some(line);
            }
        }
        Ok(())
    }

    /// The serial lines from node to node, which are links behind those of the networks.
    pub(super) fn lines(
        &self,
        tables: &BTreeMap<String, Spanned<LineTable>>,
        config: &mut Config,
    ) -> Result<(), ConfigError> {
        let mut tables: Vec<_> = tables.iter().collect();
        tables.sort_by_key(|(_, table)| table.span().start);
        let networks = config.links().count();
        for (at, (name, table)) in tables.into_iter().enumerate() {
            let id = u8::try_from(networks + at).ok().map(LinkId).filter(|_| at < limits::LINES);
            let line = match id {
                Some(id) => line(config, id, name, table.get_ref()),
                None => Err(format!("at most {} serial lines from node to node", limits::LINES)),
            };
            config.lines.push(line.map_err(|text| self.refuse(table.span(), &text))?);
        }
        Ok(())
    }
}

fn line(config: &Config, id: LinkId, name: &str, table: &LineTable) -> Result<Line, String> {
    let ([one, other], [here, there]) = (&table.nodes, &table.devices);
    let end = |node, device| serial_line(config, node, device, "each of devices", "each of nodes");
    let (one, other) = (end(one, here)?, end(other, there)?);
    if !is_name(name) || config.networks.iter().any(|network| network.name == name) {
        return Err(format!("{NAME_RULE}; and no [network.NAME] has the same"));
    }
    if one.holder == other.holder {
        return Err("a serial line goes from one node to another; name two nodes".to_owned());
    }
    if config.timing.keepalive < KEEPALIVE {
        return Err("with a [serial.NAME], keepalive must be at least \"250ms\": the line carries no more heartbeats"
            .to_owned());
    }
    for end in [&one, &other] {
        if used(config, end.holder).contains(end.device.as_str()) {
            let node = &config.node(end.holder).name;
            return Err(format!("\"{node}\" uses {} for something else already", end.device));
        }
    }
    Ok(Line { id, name: name.to_owned(), ends: [one, other] })
}

/// The end of a serial line at a node.
pub(super) fn serial_line(
    config: &Config,
    node: &str,
    device: &str,
    device_key: &str,
    node_key: &str,
) -> Result<SerialLine, String> {
    let holder =
        config.named(node).ok_or_else(|| format!("{node_key} is the name of a node, and \"{node}\" is none"))?;
    if device.is_empty() || !device.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Err(format!("{device_key} is a line's name below /dev, such as \"ttyS0\""));
    }
    Ok(SerialLine { holder, device: device.to_owned() })
}

/// The serial lines that a node uses.
pub(super) fn used(config: &Config, slot: Slot) -> BTreeSet<&str> {
    let cables = config.pdus.iter().filter_map(|pdu| pdu.serial.as_ref());
    let upses = config.upses.iter().filter_map(|ups| match &ups.way {
        UpsWay::Smart(line) => Some(line),
        UpsWay::Nut { .. } => None,
    });
    let ends = config.lines.iter().flat_map(|line| &line.ends).chain(cables).chain(upses);
    let devices = ends.filter(|end| end.holder == slot).map(|end| end.device.as_str());
    devices.chain(config.node(slot).monitor.as_deref()).collect()
}
