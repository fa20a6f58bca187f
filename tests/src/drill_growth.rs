//! The drill of a cluster that grows while it runs, and shrinks again: machines that no file names become nodes, and go for good.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::drill::{self, BOOT, PATIENCE};
use crate::drill_attacks;
use crate::rack::events::{By, Event, Mark, What};
use crate::rack::layout::{GATEWAY, Machine, PDU_NAME};
use crate::rack::status::Status;
use crate::rack::{Push, Rack};

/// The gateway's votes: every other node has one.
const GATEWAY_VOTES: usize = 2;

/// The spare machines are switched on. Each shows a code, is let in by it at the gateway's menu, and becomes a member that
/// counts, by an edition of `cluster.toml` of its own; then its outlet is tried, and it comes back and has the shared file system.
///
/// # Errors
/// One does not, or the cluster does not go by that edition, or a VM or a node has suffered.
pub fn grows(rack: &Rack) -> Result<()> {
    let (before, mark) = (drill::all_is_well(rack)?, rack.log.mark());
    for spare in &rack.layout.spares {
        rack.power(&spare.name, Push::On)?;
    }
    // They boot at the same time, and are added one after the other.
    for spare in &rack.layout.spares {
        rack.menu(&spare.name)?.code(BOOT)?;
    }
    let mut nodes = before.nodes.len();
    for Machine { name, outlet, cluster, .. } in &rack.layout.spares {
        let code = rack.menu(name)?.code(PATIENCE)?;
        rack.menu(GATEWAY)?.let_in(&cluster.mac, &format!("{code} {name} {PDU_NAME} {outlet}"))?;
        nodes += 1;
        changed(rack, mark, (name, "added"), nodes)?;
        is_tried(rack, mark, name, *outlet)?;
        let joined = |status: &Status| status.node(name).is_some_and(|node| node.quorate == Some(true));
        rack.until(BOOT, &format!("{name} is a member"), joined)?;
    }
    let edition = 1 + 2 * u64::try_from(rack.layout.spares.len())?;
    rack.until(PATIENCE, "all are members, by the same edition", |status| {
        drill::all_members(status) && status.nodes.iter().all(|node| node.edition == Some(edition))
    })?;
    for spare in &rack.layout.spares {
        let mounted = format!("{} has mounted the shared file system", spare.name);
        rack.wait(mark, PATIENCE, &mounted, |event| says(event, &mounted))?;
    }
    nobody_suffered_but(rack, mark, &before, &rack.layout.spares)
}

/// The nodes that were added are shut down at their own menus and removed at the gateway's. The first one's machine is
/// switched on again: the gateway refuses it, and it takes no part.
///
/// # Errors
/// One is not removed, or comes back, or the cluster does not go by that edition, or a VM or a node has suffered.
pub fn shrinks(rack: &Rack) -> Result<()> {
    let (before, mark) = (drill::all_is_well(rack)?, rack.log.mark());
    for spare in &rack.layout.spares {
        rack.menu(&spare.name)?.shut_down()?;
    }
    for Machine { name, .. } in &rack.layout.spares {
        let off = |e: &Event| e.who == *name && e.what == What::PoweredItselfOff;
        rack.wait(mark, PATIENCE, &format!("{name} switches itself off"), off)?;
        // Nobody is removed who was heard just now, whoever is DC.
        let silent = format!("{name} is silent for ");
        for Machine { name: other, .. } in &rack.layout.machines {
            let said = |e: &Event| e.who == *other && matches!(&e.what, What::Said(text) if text.starts_with(&silent));
            rack.wait(mark, PATIENCE, &silent, said)?;
        }
    }
    let caught = rack.dir().join("old-key.pcap");
    rack.inside(|| drill_attacks::catch(&caught).map(drop))?;
    let mut nodes = before.nodes.len();
    for Machine { name, .. } in &rack.layout.spares {
        rack.menu(GATEWAY)?.remove(name)?;
        nodes -= 1;
        changed(rack, mark, (name, "removed"), nodes)?;
        if nodes + 1 == before.nodes.len() {
            // It boots while the others are removed.
            rack.power(name, Push::On)?;
        }
    }
    let first = rack.layout.spares.first().context("there is no spare machine")?;
    let refusal = format!("The gateway refuses it: {} was removed from the cluster", first.name);
    rack.menu(&first.name)?.says(BOOT, &refusal)?;
    old_key_opens_nothing(rack, mark, &caught)?;
    for spare in &rack.layout.spares {
        rack.power(&spare.name, Push::Off)?;
    }
    let edition = 1 + 3 * u64::try_from(rack.layout.spares.len())?;
    rack.until(PATIENCE, "the others are members, by the same edition", |status| {
        drill::all_members(status) && status.nodes.iter().all(|node| node.edition == Some(edition))
    })?;
    let mut after = rack.log.since(mark).0.into_iter();
    let part = after.find(|e| e.who == first.name && matches!(&e.what, What::Said(text) if text.starts_with("up, ")));
    ensure!(part.is_none(), "a node that was removed takes part again: {part:?}");
    nobody_suffered(rack, mark, &before)
}

/// The node was added or removed, by the next edition, and the quorum is that of so many nodes.
fn changed(rack: &Rack, mark: Mark, (node, what): (&str, &str), nodes: usize) -> Result<()> {
    let (begins, votes) = (format!("{node} is {what} by edition "), nodes - 1 + GATEWAY_VOTES);
    let ends = format!(" of cluster.toml: {} of {votes} votes are a quorum", votes / 2 + 1);
    let line = |event: &Event| matches!(&event.what, What::Said(text) if text.starts_with(&begins));
    let event = rack.wait(mark, PATIENCE, &begins, line)?;
    ensure!(matches!(&event.what, What::Said(text) if text.ends_with(&ends)), "not of {votes} votes: {event}");
    Ok(())
}

/// The node's outlet is switched off and read back, it falls silent, and only then does it cease to be on trial: before that it has
/// not mounted the shared file system.
fn is_tried(rack: &Rack, mark: Mark, name: &str, outlet: u8) -> Result<()> {
    let by = By::Snmp;
    let cut = |e: &Event| e.what == What::Commanded { outlet, on: false, by };
    rack.wait(mark, PATIENCE, &format!("the power of {name} is cut"), cut)?;
    let passed = format!("the test of {name}'s fencing has passed: it fell silent, and nobody else did");
    rack.wait(mark, PATIENCE, &passed, |event| says(event, &passed))?;
    let ended = format!("{name} is on trial no longer by edition ");
    rack.wait(mark, PATIENCE, &ended, |e| matches!(&e.what, What::Said(text) if text.starts_with(&ended)))?;
    let mounts = |e: &Event| e.who == name && says(e, "mounts the shared file system");
    let early = rack.log.since(mark).0.into_iter().find(mounts);
    ensure!(early.is_none(), "on trial it had the shared file system: {early:?}");
    Ok(())
}

/// Every member holds the key of the last removal, and no older one; and of what was said by the first one, nobody takes anything.
fn old_key_opens_nothing(rack: &Rack, mark: Mark, caught: &Path) -> Result<()> {
    let key = 1 + rack.layout.spares.len();
    for begins in
        [format!("holds key {key} of the cluster"), format!("opens what is sealed with key {key} of the cluster, ")]
    {
        for Machine { name, .. } in &rack.layout.machines {
            let said = |e: &Event| e.who == *name && matches!(&e.what, What::Said(text) if text.starts_with(&begins));
            rack.wait(mark, PATIENCE, &format!("{name} {begins}"), said)?;
        }
    }
    let mark = rack.log.mark();
    rack.inside(|| drill_attacks::play(caught))?;
    for Machine { name, .. } in &rack.layout.machines {
        let refused = "datagrams with a bad seal so far";
        let said = |e: &Event| e.who == *name && matches!(&e.what, What::Said(text) if text.contains(refused));
        rack.wait(mark, PATIENCE, &format!("{name} {refused}"), said)?;
    }
    Ok(())
}

/// The VMs go on in the same boots with their connections, nobody was suspected, and nobody's power was cut.
pub(crate) fn nobody_suffered(rack: &Rack, mark: Mark, before: &Status) -> Result<()> {
    nobody_suffered_but(rack, mark, before, &[])
}

/// The same, but for the power of these machines.
fn nobody_suffered_but(rack: &Rack, mark: Mark, before: &Status, tried: &[Machine]) -> Result<()> {
    drill::unharmed(rack, before)?;
    let harms = |event: &Event| {
        let suspects = matches!(&event.what, What::Said(text) if text.starts_with("suspects "));
        let is_tried = |cut: u8| tried.iter().any(|machine| machine.outlet == cut);
        suspects || matches!(event.what, What::Commanded { outlet, on: false, .. } if !is_tried(outlet))
    };
    let harm = rack.log.since(mark).0.into_iter().find(harms);
    ensure!(harm.is_none(), "a node has suffered: {harm:?}");
    Ok(())
}

fn says(event: &Event, text: &str) -> bool {
    matches!(&event.what, What::Said(said) if said == text)
}
