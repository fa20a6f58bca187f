//! The entries of the menu: each one's name, and what it shows of what is known. One file an entry.

mod about;
mod log;
mod overview;
mod shut_down;
mod vms;

pub(crate) use shut_down::may_ask as may_shut_down;

use crate::facts::Facts;
use crate::text::{list, wrap};

/// Characters in a line of an entry.
pub(crate) const WIDTH: usize = 76;

/// One entry of the menu.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Overview,
    Vms,
    Log,
    ShutDown,
    About,
}

impl Entry {
    /// All of them, in the order of their numbers, which begin with 1.
    pub(crate) const ALL: [Self; 5] = [Self::Overview, Self::Vms, Self::Log, Self::ShutDown, Self::About];

    /// What it is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Overview => "Status",
            Self::Vms => "VMs",
            Self::Log => "Log",
            Self::ShutDown => "Shut down this node",
            Self::About => "About",
        }
    }

    /// What it shows.
    pub(crate) fn lines(self, facts: &Facts) -> Vec<String> {
        match self {
            Self::Overview => overview::lines(facts),
            Self::Vms => vms::lines(facts),
            Self::Log => log::lines(facts),
            Self::ShutDown => shut_down::lines(facts),
            Self::About => about::lines(facts),
        }
    }

    /// Whether it shows its end first, and stays there as it grows.
    pub(crate) fn follows(self) -> bool {
        self == Self::Log
    }
}

/// What stands under the entries: this node in short, then whatever is wrong.
pub(crate) fn summary(facts: &Facts) -> Vec<String> {
    let mut paragraphs = match &facts.status {
        Some(status) => {
            let members = status.nodes.iter().filter(|node| node.state == "member").count();
            let vms: Vec<_> = facts.vms_here().iter().map(|vm| vm.name.clone()).collect();
            vec![
                format!("{members} of {} nodes are members.", status.nodes.len()),
                format!("VMs on this node: {}.", list(&vms)),
            ]
        }
        None if facts.problems.is_empty() => no_status(facts),
        None => vec!["This machine does not take part in the cluster:".to_owned()],
    };
    paragraphs.extend(facts.problems.iter().map(|problem| format!("\n{problem}")));
    paragraphs.iter().flat_map(|text| wrap(text, WIDTH, 0)).collect()
}

/// What an entry shows as long as there is no status.
fn no_status(facts: &Facts) -> Vec<String> {
    let why = match (facts.connected, facts.problems.is_empty()) {
        (false, _) => "The supervisor does not answer. It is started again by itself.",
        (true, true) => "The supervisor has not said anything yet.",
        (true, false) => "This machine does not take part in the cluster: the menu's first page says why.",
    };
    wrap(why, WIDTH, 0)
}
