//! Which node this machine is: the slot of `cluster.toml` that names one of its network cards.

use std::fs;

use cluster::config::{Config, Mac, NodeConfig};
use cluster::words::{Incarnation, Role, Slot};

use super::failed;
use crate::{join, netsetup, roster};

/// This boot's random number, in 16 hexadecimal digits: every process finds it here.
pub(super) const INCARNATION: &str = "/run/holdfast/incarnation";

/// A configuration and this machine's place in it.
#[derive(Debug)]
pub(crate) struct Site {
    /// The configuration.
    pub(crate) config: Config,
    /// The place.
    pub(crate) slot: Slot,
}

impl Site {
    /// Reads the configuration and finds this machine in it.
    ///
    /// # Errors
    /// A file that is missing or refused, and a machine that it does not name.
    pub(crate) fn find() -> Result<Self, String> {
        let config = Self::configuration()?;
        let macs = macs();
        let slot = config.find(&macs).ok_or_else(|| stranger(&macs))?;
        Ok(Self { config, slot })
    }

    /// The configuration, whether or not it names this machine.
    ///
    /// # Errors
    /// A file that is missing or refused.
    pub(crate) fn configuration() -> Result<Config, String> {
        Config::parse(&roster::text()?).map_err(|error| error.to_string())
    }

    /// The same; nothing for a machine that the configuration does not name, and that asks to become a node
    /// ([`crate::join`]).
    ///
    /// # Errors
    /// As [`Self::find`], where it cannot ask.
    pub(super) fn find_or_join() -> Result<Option<Self>, String> {
        let names_it = Self::configuration()?.find(&macs()).is_some();
        if names_it || !join::ask::is_wanted() { Self::find().map(Some) } else { Ok(None) }
    }

    /// What the configuration says of this machine.
    pub(super) fn own(&self) -> &NodeConfig {
        self.config.node(self.slot)
    }

    /// Whether this machine is the gateway.
    pub(super) fn is_gateway(&self) -> bool {
        self.own().role == Role::Gateway
    }
}

/// This machine's network cards.
fn macs() -> Vec<Mac> {
    netsetup::cards().into_iter().map(|(mac, _)| mac).collect()
}

/// Which boot of this machine this is.
///
/// # Errors
/// It was not drawn, or is none.
pub(crate) fn incarnation() -> Result<Incarnation, String> {
    parse_incarnation(&fs::read_to_string(INCARNATION).map_err(failed(INCARNATION))?)
}

fn parse_incarnation(text: &str) -> Result<Incarnation, String> {
    let number = u64::from_str_radix(text.trim(), 16).map_err(|error| format!("{INCARNATION}: {error}"))?;
    Incarnation::new(number).ok_or_else(|| format!("{INCARNATION}: zero is no incarnation"))
}

/// What an operator is told whose machine is in nobody's list.
fn stranger(macs: &[Mac]) -> String {
    match macs {
        [] => "no network card was found: is its driver in the image?".to_owned(),
        macs => {
            let list: Vec<String> = macs.iter().map(Mac::to_string).collect();
            format!("cluster.toml names none of this machine's cards; add one of {} to its node", list.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use cluster::config::Mac;

    use cluster::words::Incarnation;

    use super::{parse_incarnation, stranger};

    #[test]
    fn the_boot_has_a_number() {
        assert_eq!(parse_incarnation("00000000000000ab\n"), Incarnation::new(0xab).ok_or(String::new()));
        assert!(parse_incarnation("0000000000000000\n").is_err());
        assert!(parse_incarnation("").is_err());
    }

    #[test]
    fn a_stranger_is_told_what_to_write() {
        let macs = [Mac([0x52, 0x54, 0, 0x77, 0, 1]), Mac([2, 0, 0, 0, 0, 1])];
        assert!(stranger(&macs).contains("52:54:00:77:00:01, 02:00:00:00:00:01"));
        assert!(stranger(&[]).contains("driver"));
    }
}
