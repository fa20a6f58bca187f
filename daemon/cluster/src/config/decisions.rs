//! What the operator has decided for longer than a generation of the cluster lasts, as text on the shared file system.
//!
//! Nodes are named, not numbered: an edition of `cluster.toml` may have given a name another slot meanwhile. What names a node
//! that there is none of any more means nothing, and is left out when it is written again. A VM whose file was not read yet stays stopped.

use core::fmt::Write as _;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::words::VmName;

/// What the operator has set aside in one slot, whoever fills it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Duty {
    /// It takes no VMs, and those that it has are moved away.
    pub standby: bool,
    /// The cluster touches nothing there.
    pub maintenance: bool,
    /// It is neither fenced nor fences itself.
    pub disarmed: bool,
}

/// What outlives a generation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Decisions {
    /// Whether nobody is fenced, and nobody fences itself.
    pub disarmed: bool,
    /// The VMs that are not to run.
    pub stopped: BTreeSet<VmName>,
    /// What is set aside, by the names of the nodes; those of which nothing is are missing.
    #[serde(rename = "node")]
    pub nodes: BTreeMap<String, Duty>,
}

impl Decisions {
    /// Reads what [`Self::to_text`] has written.
    ///
    /// # Errors
    /// It is something else: in which line, and why.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            format!("line {}: {}", 1 + before.matches('\n').count(), error.message())
        })
    }

    /// As text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::from(
            "# What the operator has decided. Holdfast writes this file, and reads it when a cluster forms.\n",
        );
        let stopped: Vec<String> = self.stopped.iter().map(|vm| format!("\"{vm}\"")).collect();
        let _ = writeln!(text, "disarmed = {}\nstopped = [{}]", self.disarmed, stopped.join(", "));
        for (node, Duty { standby, maintenance, disarmed }) in &self.nodes {
            let _ = writeln!(text, "\n[node.\"{node}\"]");
            let _ = writeln!(text, "standby = {standby}\nmaintenance = {maintenance}\ndisarmed = {disarmed}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let vm = |name| VmName::new(name).unwrap();
        let standby = Duty { standby: true, ..Duty::default() };
        let disarmed = Duty { disarmed: true, ..Duty::default() };
        let all = Decisions {
            disarmed: true,
            stopped: [vm("x0"), vm("web.1")].into(),
            nodes: [("node1".to_owned(), standby), ("rack-2.b".to_owned(), disarmed)].into(),
        };
        for decisions in [Decisions::default(), all] {
            assert_eq!(Decisions::parse(&decisions.to_text()).as_ref(), Ok(&decisions), "{}", decisions.to_text());
        }
        assert_eq!(Decisions::parse(""), Ok(Decisions::default()), "nothing is decided");
    }

    #[test]
    fn anything_else_is_refused_with_its_line() {
        let good = Decisions { stopped: [VmName::new("x0").unwrap()].into(), ..Decisions::default() }.to_text();
        for (bad, expected) in [
            (good.replace("disarmed = false", "disarmed = 7"), "line 2"),
            (good.replace("x0", "../x0"), "line 3"),
            (good.replace("stopped", "ended"), "unknown field"),
            (format!("{good}[node.node1]\nasleep = true\n"), "unknown field"),
        ] {
            let error = Decisions::parse(&bad).unwrap_err();
            assert!(error.contains(expected), "{bad}\n{error}");
        }
        // A write that was cut short anywhere is refused, or says no more than what was written.
        for end in 0..good.len() {
            if let Ok(read) = Decisions::parse(good.get(..end).unwrap_or_default()) {
                assert!(!read.disarmed && read.nodes.is_empty(), "{end}");
            }
        }
    }
}
