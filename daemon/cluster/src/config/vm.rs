//! `NAME.ha.toml`: what the operator wants for one VM beside its `xl` file. Everything has a default.

use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Config, ConfigError, file};
use crate::limits;
use crate::words::Slot;

/// A step of a VM's evacuation contract: how it may be made to leave a node. They are tried in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Contract {
    /// Moved live: its memory is copied while it runs.
    Live,
    /// Moved while it is paused: one copy, and a longer blackout.
    Pause,
    /// Saved to the shared disk and resumed elsewhere.
    Suspend,
    /// Shut down and started elsewhere. Always the last step.
    Shutdown,
}

/// What the operator wants for one VM.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VmSpec {
    /// The more important goes first, and may have the less important stopped to make room. 0 to 100.
    pub priority: u8,
    /// Where it should run, the best first.
    pub preferred: Vec<Slot>,
    /// VMs that share one of these never run on the same node.
    pub apart: Vec<String>,
    /// VMs that share one of these run on the same node.
    pub together: Vec<String>,
    /// How much it likes to stay where it is. 0 to 100.
    pub stickiness: u8,
    /// Whether it goes back to the node that it prefers when that is back.
    pub auto_failback: bool,
    /// Lower numbers are started first.
    pub start_order: u8,
    /// How often it may die by itself before it waits for the operator.
    pub restarts: u8,
    /// How long it may take to be moved away from a node that leaves, in seconds; the cluster's `evacuation` if 0.
    pub evacuation_s: u16,
    /// How it may be made to leave a node.
    pub contract: Vec<Contract>,
    /// Whether it may be shut down and started again where a live move is impossible for its CPU features.
    pub cold_move: bool,
}

impl Default for VmSpec {
    fn default() -> Self {
        Self {
            priority: 50,
            preferred: Vec::new(),
            apart: Vec::new(),
            together: Vec::new(),
            stickiness: 50,
            auto_failback: false,
            start_order: 50,
            restarts: u8::try_from(limits::RESTARTS).unwrap_or(u8::MAX),
            evacuation_s: 0,
            contract: vec![Contract::Live, Contract::Pause, Contract::Suspend, Contract::Shutdown],
            cold_move: true,
        }
    }
}

impl VmSpec {
    /// Parses the text of a `NAME.ha.toml`.
    ///
    /// # Errors
    /// The first thing that cannot work, with its line and its remedy.
    pub fn parse(text: &str, config: &Config) -> Result<Self, ConfigError> {
        let refuse = |text: String| ConfigError { line: 0, text };
        let table: Table = toml::from_str(text).map_err(|error| file::not_toml(text, &error))?;
        let default = Self::default();
        let preferred = config.all_named(&table.preferred);
        let preferred = preferred.map_err(|name| refuse(format!("preferred: there is no node \"{name}\"")))?;
        for group in table.apart.iter().chain(&table.together) {
            if !file::is_name(group) {
                return Err(refuse(format!("group \"{group}\": {}", file::NAME_RULE)));
            }
        }
        if table.apart.len() > limits::GROUPS || table.together.len() > limits::GROUPS {
            return Err(refuse(format!("a VM is in at most {} groups of each kind", limits::GROUPS)));
        }
        if table.preferred.len() > limits::NODES {
            return Err(refuse("preferred names each node once".to_owned()));
        }
        let evacuation = table.evacuation.as_deref().map(|text| file::duration("evacuation", text).map_err(refuse));
        let evacuation = evacuation.transpose()?.unwrap_or(Duration::ZERO);
        let mut contract = table.contract.unwrap_or(default.contract);
        contract.sort();
        contract.dedup();
        if contract.last() != Some(&Contract::Shutdown) {
            contract.push(Contract::Shutdown);
        }
        Ok(Self {
            priority: percent("priority", table.priority.unwrap_or(default.priority)).map_err(refuse)?,
            preferred,
            apart: table.apart,
            together: table.together,
            stickiness: percent("stickiness", table.stickiness.unwrap_or(default.stickiness)).map_err(refuse)?,
            auto_failback: table.auto_failback,
            start_order: table.start_order.unwrap_or(default.start_order),
            restarts: table.restarts.unwrap_or(default.restarts),
            evacuation_s: u16::try_from(evacuation.as_secs())
                .map_err(|_| refuse("evacuation is at most 18 hours".to_owned()))?,
            contract,
            cold_move: table.cold_move.unwrap_or(default.cold_move),
        })
    }
}

fn percent(key: &str, value: u8) -> Result<u8, String> {
    if value <= 100 { Ok(value) } else { Err(format!("{key} = {value} is not one of 0 to 100")) }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    priority: Option<u8>,
    #[serde(default)]
    preferred: Vec<String>,
    #[serde(default)]
    apart: Vec<String>,
    #[serde(default)]
    together: Vec<String>,
    stickiness: Option<u8>,
    #[serde(default)]
    auto_failback: bool,
    start_order: Option<u8>,
    restarts: Option<u8>,
    evacuation: Option<String>,
    contract: Option<Vec<Contract>>,
    cold_move: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<VmSpec, String> {
        let config = Config::parse(include_str!("good.toml")).unwrap();
        VmSpec::parse(text, &config).map_err(|error| error.text)
    }

    #[test]
    fn everything_has_a_default_and_an_order() {
        assert_eq!(parse(""), Ok(VmSpec::default()));
        let spec = parse("preferred = [\"node2\"]\ncontract = [\"shutdown\", \"live\"]\nevacuation = \"2m\"").unwrap();
        assert_eq!(spec.contract, [Contract::Live, Contract::Shutdown]);
        assert_eq!((spec.preferred, spec.evacuation_s), (vec![Slot(2)], 120));
        assert_eq!(parse("contract = [\"live\"]").unwrap().contract, [Contract::Live, Contract::Shutdown]);
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for (text, remedy) in [
            ("priority = 101", "0 to 100"),
            ("preferred = [\"nobody\"]", "no node \"nobody\""),
            ("apart = [\"A B\"]", "lower-case"),
            ("apart = [\"a\", \"b\", \"c\"]", "at most 2"),
            ("evacuation = \"soon\"", "duration"),
            ("colour = 1", "unknown field"),
            ("contract = [\"jump\"]", "unknown variant"),
        ] {
            let refused = parse(text).unwrap_err();
            assert!(refused.contains(remedy), "{text}: {refused}");
        }
    }
}
