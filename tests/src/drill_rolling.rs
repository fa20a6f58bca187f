//! The drill of an upgrade: the gateway's disk is written anew, and all nodes are restarted from its menu, one after another, while
//! their VMs run on.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::drill::{self, BOOT, PATIENCE};
use crate::drill_growth::nobody_suffered;
use crate::rack::events::{Event, Mark, What};
use crate::rack::layout::GATEWAY;
use crate::rack::{Push, Rack};

/// How long one node's turn may take: its VMs move, it boots and mounts.
const TURN: Duration = BOOT.saturating_add(PATIENCE.saturating_mul(2));

/// The gateway is shut down, and its disk is replaced by another that keeps what it kept; it is switched on again, and all nodes
/// restart, and boot what is on the new disk. The VMs, which wait for their disks meanwhile, run on.
///
/// # Errors
/// The gateway does not switch itself off or does not come back as who it was, or as [`all_restart`].
pub fn all_is_upgraded(rack: &Rack) -> Result<()> {
    let before = drill::all_is_well(rack)?;
    let mark = rack.log.mark();
    rack.menu(GATEWAY)?.shut_down()?;
    rack.wait(mark, PATIENCE, "the gateway switches itself off", |event| {
        event.who == GATEWAY && event.what == What::PoweredItselfOff
    })?;
    rack.replace_gateway_disk()?;
    rack.power(GATEWAY, Push::On)?;
    let old = before.node(GATEWAY).and_then(|gateway| gateway.incarnation.clone());
    rack.until(BOOT, "the gateway is a member again, newly booted", |status| {
        let booted = status.node(GATEWAY).and_then(|gateway| gateway.incarnation.clone());
        booted.is_some() && booted != old && drill::all_members(status)
    })?;
    nobody_suffered(rack, mark, &before)?;
    all_restart(rack)?;
    nobody_suffered(rack, mark, &before)
}

/// Each node but the gateway is emptied, boots anew and comes back before the next begins; no VM reboots or loses its connection.
///
/// # Errors
/// The cluster refuses or stops, a node does not come back in another boot, two were away at once, or a VM or a node has suffered.
pub fn all_restart(rack: &Rack) -> Result<()> {
    let before = drill::all_is_well(rack)?;
    let nodes: Vec<_> = before.nodes.iter().filter(|node| node.name != GATEWAY).collect();
    for node in &nodes {
        let mounted = format!("{} has mounted the shared file system", node.name);
        rack.wait(Mark::default(), PATIENCE, &mounted, |event| said(event) == Some(&mounted))?;
    }
    let mark = rack.log.mark();
    rack.menu(GATEWAY)?.restart_all()?;
    for turn in 1..=nodes.len() {
        let so_far = || count(&rack.log.since(mark).0);
        rack.until(TURN, "one node more has restarted", |_| so_far().map_or(true, |nodes| nodes >= turn))?;
        so_far()?;
    }
    let ended = "the rolling restart has ended; left out: gateway";
    rack.wait(mark, PATIENCE, ended, |event| said(event) == Some(ended))?;
    let after = drill::all_is_well(rack)?;
    for was in &before.nodes {
        let booted = after.node(&was.name).is_some_and(|is| is.incarnation != was.incarnation);
        ensure!(booted == (was.name != GATEWAY), "{} is in the wrong boot:\n{after}", was.name);
    }
    nobody_suffered(rack, mark, &before)
}

/// What is said when it is stopped.
const STOPPED: &str = "the rolling restart is stopped: ";

/// How many nodes have restarted, each of them alone.
fn count(events: &[Event]) -> Result<usize> {
    let (mut away, mut back) = (None, 0);
    for event in events {
        let Some(text) = said(event) else { continue };
        ensure!(!text.starts_with(STOPPED), "{text}");
        if text == "restarts" {
            ensure!(away.is_none(), "{} restarts, and {away:?} is not back", event.who);
            away = Some(event.who.clone());
        } else if let Some((node, _)) = text.split_once(" has restarted: ") {
            ensure!(away.is_none_or(|away| away == node), "{node} has restarted, and another was away");
            (away, back) = (None, back + 1);
        }
    }
    Ok(back)
}

fn said(event: &Event) -> Option<&str> {
    if let What::Said(text) = &event.what { Some(text) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_away_at_a_time() {
        let event =
            |who: &str, text: &str| Event { at: Duration::ZERO, who: who.into(), what: What::Said(text.into()) };
        let back = |node: &str| event("gateway", &format!("{node} has restarted: incarnation b after a"));
        let away = |node: &str| event(node, "restarts");
        assert_eq!(count(&[away("node1"), back("node1"), away("node2"), back("node2")]).unwrap(), 2);
        assert!(count(&[away("node1"), away("node2")]).is_err());
        assert!(count(&[away("node1"), back("node2")]).is_err());
        assert!(count(&[event("node1", &format!("{STOPPED}node3 is held for dead"))]).is_err());
    }
}
