//! Addresses of the cluster network that are nobody's: for machines that boot, and ask to join, before they are nodes.
//!
//! The firmware of such a machine gets one by DHCP, from the lower half. Later the machine itself takes one of the upper half,
//! another each time that it asks: two that have met at one are parted by the next.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use cluster::config::{Config, UpsWay};

/// How many there are, at most.
const MOST: u32 = 16;

/// The first and the last one of all of them: as many as there are side by side, near the network's end. `None` where there
/// are fewer than two.
pub(crate) fn addresses(config: &Config) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let taken = taken(config);
    let (first, last) = hosts(config)?;
    let mut best: Option<(u32, u32)> = None;
    let mut run = 0;
    for address in (first..=last).rev() {
        run = if taken.contains(&address) { 0 } else { run + 1 };
        if best.is_none_or(|(low, high)| high - low + 1 < run) {
            best = Some((address, address + run - 1));
        }
        if run == MOST {
            break;
        }
    }
    best.filter(|(low, high)| low < high).map(|(low, high)| (Ipv4Addr::from_bits(low), Ipv4Addr::from_bits(high)))
}

/// Those for firmware.
pub(crate) fn firmware(config: &Config) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let (first, last) = addresses(config)?;
    let half = (last.to_bits() - first.to_bits()).div_ceil(2);
    Some((first, Ipv4Addr::from_bits(first.to_bits() + half - 1)))
}

/// One of those for machines that ask, chosen by a random number.
pub(super) fn of_who_asks(config: &Config, random: u64) -> Option<Ipv4Addr> {
    let (_, last) = addresses(config)?;
    let (_, below) = firmware(config)?;
    let upper = last.to_bits() - below.to_bits();
    let chosen = u32::try_from(random.checked_rem(upper.into())?).ok()?;
    Some(Ipv4Addr::from_bits(below.to_bits() + 1 + chosen))
}

/// The next address for a node on a network: behind the last one of a node, or else the first that is free.
pub(super) fn next(config: &Config, subnet: Ipv4Addr, prefix: u8) -> Option<Ipv4Addr> {
    let mut taken = taken(config);
    if let Some((first, last)) = addresses(config) {
        taken.extend(first.to_bits()..=last.to_bits());
    }
    let (first, last) = range(subnet, prefix)?;
    let inside = |address: &u32| (first..=last).contains(address);
    let nodes = config.slots().flat_map(|(_, node)| &node.links).map(|(_, address)| address.to_bits());
    let behind = nodes.filter(inside).max().unwrap_or(first);
    (behind..=last).chain(first..behind).find(|address| !taken.contains(address)).map(Ipv4Addr::from_bits)
}

/// What nodes and devices have.
fn taken(config: &Config) -> BTreeSet<u32> {
    let nodes = config.slots().flat_map(|(_, node)| &node.links).map(|(_, address)| *address);
    let pdus = config.pdus.iter().map(|pdu| pdu.address);
    let upses = config.upses.iter().filter_map(|ups| match &ups.way {
        UpsWay::Nut { address, .. } => Some(*address),
        UpsWay::Smart(_) => None,
    });
    nodes.chain(pdus).chain(upses).map(Ipv4Addr::to_bits).collect()
}

fn hosts(config: &Config) -> Option<(u32, u32)> {
    let (subnet, prefix) = config.cluster_network();
    range(subnet, prefix)
}

/// A network's first and last address, without its own and the one for all.
fn range(subnet: Ipv4Addr, prefix: u8) -> Option<(u32, u32)> {
    let first = subnet.to_bits();
    let hosts = u32::MAX.checked_shr(prefix.into())?;
    let last = first.checked_add(hosts)?.checked_sub(1)?;
    Some((first.checked_add(1)?, last)).filter(|(first, last)| first <= last)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const GOOD: &str = include_str!("../../cluster/src/config/good.toml");

    fn of(subnet: &str) -> Config {
        Config::parse(&GOOD.replacen("10.77.0.0/24", subnet, 1)).unwrap()
    }

    fn text(range: Option<(Ipv4Addr, Ipv4Addr)>) -> String {
        range.map_or_else(String::new, |(first, last)| format!("{first}-{last}"))
    }

    #[test]
    fn nobodys_addresses_are_near_the_end() {
        // The power switch has 250.
        let config = of("10.77.0.0/24");
        assert_eq!(text(addresses(&config)), "10.77.0.234-10.77.0.249");
        assert_eq!(text(firmware(&config)), "10.77.0.234-10.77.0.241");
        let asked: BTreeSet<_> = (0..100).filter_map(|random| of_who_asks(&config, random)).collect();
        let all: BTreeSet<_> = (242..=249).map(|last| Ipv4Addr::new(10, 77, 0, last)).collect();
        assert_eq!(asked, all);
        let wide = of("10.77.0.0/16");
        assert_eq!(text(addresses(&wide)), "10.77.255.239-10.77.255.254");
    }

    #[test]
    fn a_small_network_has_fewer_or_none() {
        let small = |subnet: &str, power_switch: &str| {
            let text = GOOD.replacen("10.77.0.0/24", subnet, 1).replacen("10.77.0.250", power_switch, 1);
            Config::parse(&text).unwrap()
        };
        // Nodes have 1, 11 and 12.
        let sixteen = small("10.77.0.0/28", "10.77.0.13");
        assert_eq!(text(addresses(&sixteen)), "10.77.0.2-10.77.0.10");
        assert_eq!(next(&sixteen, Ipv4Addr::new(10, 77, 0, 0), 28), Some(Ipv4Addr::new(10, 77, 0, 14)));
    }

    #[test]
    fn a_nodes_next_address_is_free() {
        let config = of("10.77.0.0/24");
        let subnet = Ipv4Addr::new(10, 77, 0, 0);
        assert_eq!(next(&config, subnet, 24), Some(Ipv4Addr::new(10, 77, 0, 13)));
        assert_eq!(next(&config, Ipv4Addr::new(10, 9, 0, 0), 24), Some(Ipv4Addr::new(10, 9, 0, 1)));
    }
}
