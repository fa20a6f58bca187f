//! What becomes of a machine that `cluster.toml` does not name: a node like the others, which the operator may correct.

use std::fmt::{self, Write};
use std::net::Ipv4Addr;

use cluster::config::{Config, Mac, NetworkKind};
use cluster::words::{Outlet, Role};

use super::pool;

/// Outlets of a power switch (AP7921).
const OUTLETS: u8 = 8;

/// A node that is not in `cluster.toml` yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    name: String,
    outlets: Vec<Outlet>,
    /// Its cards, the one of the cluster network first, each with its network and, where it has one, its address.
    nics: Vec<(Mac, String, Option<Ipv4Addr>)>,
    monitor: Option<String>,
}

impl Offer {
    /// The next free name, the first free outlet of each power switch that feeds the first node, and a card for each network
    /// that this node is on, as long as there are cards: in their order, the first one on the cluster network.
    ///
    /// # Errors
    /// What there is not, in words for the operator.
    pub(super) fn of(config: &Config, cards: &[Mac]) -> Result<Self, String> {
        let like = config.slots().map(|(_, node)| node).find(|node| node.role == Role::Node);
        let like = like.ok_or("there is no node that it could be like")?;
        let fresh = |name: &String| config.nodes.iter().all(|node| node.name != *name);
        let name = (1..u16::MAX).map(|n| format!("node{n}")).find(fresh).ok_or("there is no name left")?;
        let used: Vec<&Outlet> = config.slots().flat_map(|(_, node)| &node.outlets).collect();
        let mut outlets: Vec<Outlet> = Vec::new();
        for Outlet { pdu, .. } in &like.outlets {
            let mut all = (1..=OUTLETS).map(|number| Outlet { pdu: pdu.clone(), number });
            let free = |outlet: &Outlet| !used.contains(&outlet) && !outlets.contains(outlet);
            let free = all.find(free);
            outlets.push(free.ok_or_else(|| format!("{pdu} has no free outlet"))?);
        }
        let mut nics = Vec::new();
        for (mac, nic) in cards.iter().zip(&like.nics) {
            let network = config.networks.iter().find(|network| network.name == nic.network);
            let address = match network.map(|network| &network.kind) {
                Some(NetworkKind::Cluster { subnet, prefix }) => Some(
                    pool::next(config, *subnet, *prefix)
                        .ok_or_else(|| format!("[network.{}] has no free address", nic.network))?,
                ),
                Some(NetworkKind::Public { .. }) | None => None,
            };
            nics.push((*mac, nic.network.clone(), address));
        }
        Ok(Self { name, outlets, nics, monitor: like.monitor.clone() })
    }

    /// What the operator has typed instead: a name; behind it, if he likes, a power switch and an outlet's number, for
    /// each feed.
    ///
    /// # Errors
    /// What is not understood, in words for the operator.
    pub(super) fn corrected(mut self, words: &[&str]) -> Result<Self, String> {
        let Some((name, feeds)) = words.split_first() else { return Ok(self) };
        (*name).clone_into(&mut self.name);
        let mut outlets = Vec::new();
        for feed in feeds.chunks(2) {
            let outlet = match feed {
                [pdu, number] => number.parse().ok().map(|number| Outlet { pdu: (*pdu).to_owned(), number }),
                _ => None,
            };
            outlets.push(outlet.ok_or("behind the code stand a name, and then power switches with an outlet each")?);
        }
        if !outlets.is_empty() {
            self.outlets = outlets;
        }
        Ok(self)
    }

    /// Its table of `cluster.toml`.
    pub(super) fn table(&self) -> String {
        let outlets =
            self.outlets.iter().map(|Outlet { pdu, number }| format!("{{ pdu = {pdu:?}, outlet = {number} }}"));
        let nics = self.nics.iter().map(|(mac, network, address)| {
            let address = address.map_or_else(String::new, |address| format!(", address = \"{address}\""));
            format!("  {{ mac = \"{mac}\", network = {network:?}{address} }},\n")
        });
        let mut table = format!(
            "[[node]]\nname = {:?}\noutlets = [{}]\nnics = [\n{}]\n",
            self.name,
            outlets.collect::<Vec<_>>().join(", "),
            nics.collect::<String>()
        );
        if let Some(monitor) = &self.monitor {
            // A string takes whatever is written to it.
            let _ = writeln!(table, "monitor = {monitor:?}");
        }
        table
    }
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outlets: Vec<String> = self.outlets.iter().map(Outlet::to_string).collect();
        write!(f, "{}, fed by {}", self.name, outlets.join(" and "))?;
        for (mac, network, address) in &self.nics {
            write!(f, ", {mac} on {network}")?;
            address.map_or(Ok(()), |address| write!(f, " as {address}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = include_str!("../../cluster/src/config/good.toml");
    const CARDS: [Mac; 3] =
        [Mac([0x52, 0x54, 0, 0x77, 0, 0x13]), Mac([0x52, 0x54, 0, 0x78, 0, 0x13]), Mac([0x52, 0x54, 0, 0x79, 0, 0x13])];

    #[test]
    fn it_is_a_node_like_the_first_one() {
        let config = Config::parse(GOOD).unwrap();
        let offer = Offer::of(&config, &CARDS).unwrap();
        let next = config.with_node(&offer.table()).unwrap();
        let (_, node) = next.slots().last().unwrap();
        let (_, like) = config.slots().nth(1).unwrap();
        assert_eq!((node.name.as_str(), node.votes, &node.monitor), ("node3", 1, &like.monitor));
        assert_eq!(node.address, Ipv4Addr::new(10, 77, 0, 13));
        let networks = |node: &cluster::config::NodeConfig| -> Vec<String> {
            node.nics.iter().map(|nic| nic.network.clone()).collect()
        };
        assert_eq!(networks(node), networks(like));
        let pdus = |node: &cluster::config::NodeConfig| -> Vec<String> {
            node.outlets.iter().map(|outlet| outlet.pdu.clone()).collect()
        };
        assert_eq!(pdus(node), pdus(like));
        assert!(offer.to_string().starts_with("node3, fed by pdu1 outlet "), "{offer}");
        assert!(offer.to_string().contains("52:54:00:77:00:13 on cluster as 10.77.0.13"), "{offer}");
    }

    #[test]
    fn the_operator_corrects_it() {
        let config = Config::parse(GOOD).unwrap();
        let offer = || Offer::of(&config, &CARDS).unwrap();
        assert_eq!(offer().corrected(&[]).unwrap(), offer());
        let named = offer().corrected(&["big1"]).unwrap();
        assert_eq!((named.name.as_str(), &named.outlets), ("big1", &offer().outlets));
        let fed = offer().corrected(&["big1", "pdu1", "7"]).unwrap();
        assert_eq!(fed.outlets, [Outlet { pdu: "pdu1".to_owned(), number: 7 }]);
        for wrong in [&["big1", "pdu1"][..], &["big1", "pdu1", "x"], &["big1", "pdu1", "7", "pdu1"]] {
            assert!(offer().corrected(wrong).unwrap_err().contains("outlet"), "{wrong:?}");
        }
        // Whatever is typed ends in a table that is judged, never in another one.
        for odd in ["\"", "x\"\nvotes = 3\n#", "[[node]]", "\\"] {
            assert!(config.with_node(&offer().corrected(&[odd]).unwrap().table()).is_err(), "{odd:?}");
        }
    }

    #[test]
    fn a_removed_nodes_name_is_not_offered_again_and_its_outlet_is() {
        let config = Config::parse(GOOD).unwrap().without_node(cluster::words::Slot(2), 2).unwrap();
        let offer = Offer::of(&config, &CARDS).unwrap();
        assert_eq!(offer.name, "node3");
        assert!(config.with_node(&offer.table()).is_ok());
        let full: String = (3..9)
            .map(|n| {
                format!(
                    "[[node]]\nname = \"m{n}\"\noutlets = [{{ pdu = \"pdu1\", outlet = {n} }}]\nnics = [{{ mac = \
                     \"52:54:00:77:02:0{n}\", network = \"cluster\", address = \"10.77.0.2{n}\" }}]\n"
                )
            })
            .collect();
        let full = Config::parse(&format!("{}\n{full}", config.text));
        let refused = full.map(|full| Offer::of(&full, &CARDS));
        assert!(matches!(&refused, Ok(Err(text)) if text.contains("pdu1 has no free outlet")), "{refused:?}");
    }
}
