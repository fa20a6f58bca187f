//! How far what takes its time is: the moves of VMs, and nodes that leave. What of it is known differs from node to node: how
//! much was carried, at the move's two ends only.

use std::collections::{BTreeMap, BTreeSet};

use cluster::status::{NodeStatus, VmStatus};
use cluster::words::Slot;
use serde::{Deserialize, Serialize};

use crate::facts::{Facts, names};

/// Characters of a bar.
const BAR: usize = 30;
/// Of memory that is carried once, a 512th more is carried: each page of 4096 bytes has 8 that say which it is.
const FRAMES: u64 = 4096 / 8;

/// What this node knows of it now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The VMs that move.
    pub moves: Vec<Move>,
    /// The nodes that leave.
    pub leaving: Vec<Leaving>,
}

/// A VM on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Its name.
    pub vm: String,
    /// For how long, in milliseconds; `None` where its beginning was not seen.
    pub for_ms: Option<u64>,
    /// How much was carried, in bytes; `None` where it is not counted.
    pub carried_bytes: Option<u64>,
}

/// A node on its way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// Its name.
    pub node: String,
    /// For how long, in milliseconds; `None` where its beginning was not seen.
    pub for_ms: Option<u64>,
    /// After how many milliseconds a VM that has not left is shut down, unless its own file says otherwise.
    pub evacuation_ms: u64,
}

/// Which VMs were on each node that is being emptied, since it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Emptied(BTreeMap<Slot, BTreeSet<String>>);

impl Emptied {
    /// Takes note of how things are.
    pub(crate) fn note(self, facts: &Facts) -> Self {
        let Self(mut before) = self;
        let noted = facts.nodes().filter_map(|(slot, node)| {
            let here = names(&facts.vms_at(slot));
            // A node may be in standby for years: that it is empty is no news then.
            let is_news = is_leaving(facts, slot, node) || node.standby && !here.is_empty();
            is_news.then(|| {
                let mut vms = before.remove(&slot).unwrap_or_default();
                vms.extend(here);
                (slot, vms)
            })
        });
        Self(noted.collect())
    }

    /// The VMs that were on that node.
    pub(crate) fn vms(&self, slot: Slot) -> impl Iterator<Item = &String> {
        self.0.get(&slot).into_iter().flatten()
    }
}

/// Whether a node is on its way out.
pub(crate) fn is_leaving(facts: &Facts, slot: Slot, node: &NodeStatus) -> bool {
    node.state == "leaving" || facts.here() == Some(slot) && facts.status.as_ref().is_some_and(|status| status.leaving)
}

/// Where a VM moves to, if it does.
pub(crate) fn target(vm: &VmStatus) -> Option<&str> {
    vm.phase.strip_prefix("moving to ")
}

/// Behind how a VM is: for how long it moves, where it does and that is known.
pub(crate) fn since(facts: &Facts, vm: &VmStatus) -> String {
    let known = of_move(facts, vm).and_then(|known| known.for_ms);
    known.map(|ms| format!(" for {}", clock(ms))).unwrap_or_default()
}

/// How much of a VM was carried, as a bar and in words, where it moves and that is counted.
pub(crate) fn carried(facts: &Facts, vm: &VmStatus) -> Option<String> {
    let mib = of_move(facts, vm)?.carried_bytes? >> 20;
    let memory = u64::from(vm.memory.0);
    let bar = if is_again(mib, memory) { again() } else { bar(mib, memory) };
    Some(format!("{bar} {mib} of {} carried", vm.memory))
}

fn of_move<'a>(facts: &'a Facts, vm: &VmStatus) -> Option<&'a Move> {
    target(vm)?;
    facts.progress.moves.iter().find(|known| known.vm == vm.name)
}

/// Whether more was carried than the memory once: what the VM has changed meanwhile goes again.
fn is_again(mib: u64, memory: u64) -> bool {
    mib > memory + memory / FRAMES
}

/// A bar that is full and says why it grows no more.
fn again() -> String {
    format!("[{:#^BAR$}]", " again ")
}

/// A bar that is full as far as `part` is of `whole`, and never fuller.
pub(crate) fn bar(part: u64, whole: u64) -> String {
    let cells = u64::try_from(BAR).unwrap_or(u64::MAX);
    let full = part.saturating_mul(cells).checked_div(whole).unwrap_or(cells).min(cells);
    let full = usize::try_from(full).unwrap_or(BAR);
    format!("[{}{}]", "#".repeat(full), ".".repeat(BAR - full))
}

/// Minutes and seconds, and hours where there are any.
pub(crate) fn clock(ms: u64) -> String {
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_full_as_what_it_shows_and_never_fuller() {
        for (part, whole, full) in
            [(0, 128, 0), (64, 128, 15), (127, 128, 29), (128, 128, 30), (900, 128, 30), (0, 0, 30), (u64::MAX, 7, 30)]
        {
            let bar = bar(part, whole);
            assert_eq!((bar.len(), bar.matches('#').count()), (BAR + 2, full), "{part} of {whole}");
        }
        assert_eq!(again(), "[########### again ############]");
        assert!(!is_again(4_104, 4_096) && is_again(4_105, 4_096), "what frames the pages is nothing that goes again");
    }

    #[test]
    fn a_time_is_read_as_on_a_clock() {
        let clocks = [0, 999, 37_000, 60_000, 600_000, 3_600_000, 36_061_000].map(clock);
        assert_eq!(clocks, ["0:00", "0:00", "0:37", "1:00", "10:00", "1:00:00", "10:01:01"]);
    }
}
