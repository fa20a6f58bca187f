//! The drill of what is cut in the middle: a cable while a VM is under way, the power of a node while it mounts, all cables at once.

use anyhow::{Context as _, Result, ensure};

use crate::drill::{self, BOOT, PATIENCE};
use crate::rack::events::{By, Event, Mark, What};
use crate::rack::layout::GATEWAY;
use crate::rack::status::Status;
use crate::rack::{Push, Rack};

/// A node with VMs leaves, and as soon as the first one is under way the cable of the node that takes it is cut: with it go
/// the stream, the disks, and every heartbeat but those on a serial line. The migration fails, and the VM has never stopped.
/// It goes on along its contract, to a third node; the leaving node switches itself off. Whoever was cut off is either
/// proven off before anything of it runs elsewhere, or, where the DC hears it over the serial line, is a member as before
/// when the cable is back. In the end both nodes are.
///
/// # Errors
/// A VM of the leaving node rebooted or lost its connection, or stayed, or something ran elsewhere before the proof, or a node
/// did not come back.
pub fn a_migration_is_cut(rack: &Rack) -> Result<()> {
    let before = drill::all_is_well(rack)?;
    drill::guests_write(rack)?;
    let (source, moved) = drill::node_with_vms(&before)?;
    let mark = rack.log.mark();
    rack.menu(&source)?.shut_down()?;
    let pushed = rack.wait(mark, PATIENCE, "a VM is under way", |e| e.who == source && pushes(e).is_some())?;
    let (vm, target) = pushes(&pushed).context("that is what was waited for")?;
    rack.cable(&target, false)?;
    let stays = format!("VM {vm} stays on {source}: the migration failed");
    rack.wait(mark, PATIENCE, &stays, |e| is(e, &stays))?;
    rack.cable(&target, true)?;
    rack.wait(mark, PATIENCE, "the leaving node switches itself off", |e| {
        e.who == source && e.what == What::PoweredItselfOff
    })?;
    let there: Vec<String> = names_at(&before, &target);
    rack.until(PATIENCE, "all VMs run elsewhere", |status| {
        status.vms.iter().all(|vm| drill::runs(status, &vm.name) && vm.owner.as_ref() != Some(&source))
    })?;
    fell_back(&rack.log.since(mark).0, (&vm, &source, &target))?;
    let cut_off = is_fenced(rack, mark, (&target, &there))?;
    let lost = if cut_off { there } else { Vec::new() };
    unharmed_but(rack, &before, &lost)?;
    ensure!(moved.iter().all(|vm| !lost.contains(vm)), "a VM cannot be at two nodes");
    let incarnation = |node: &str| before.node(node).and_then(|n| n.incarnation.clone());
    drill::comes_back(rack, &source, incarnation(&source).as_deref())?;
    if cut_off {
        drill::is_back(rack, mark, &target, incarnation(&target).as_deref())?;
    } else {
        let same = rack.status().node(&target).and_then(|n| n.incarnation.clone()) == incarnation(&target);
        ensure!(same, "{target} was not proven off, and has booted anew");
    }
    drill::all_is_well(rack).map(drop)
}

/// A node that is off is switched on, and loses its power again in the moment in which it mounts the shared file system. The
/// others hold it, prove the node off, and go on without it; their VMs notice nothing. The node comes back, and mounts.
///
/// # Errors
/// It had mounted already, the file system went on before the proof or not at all, a VM suffered, or the node did not come back.
pub fn power_goes_while_it_mounts(rack: &Rack, node: &str) -> Result<()> {
    let (before, mark) = (rack.status(), rack.log.mark());
    let outlet = rack.layout.machine(node).context("no such machine")?.outlet;
    rack.power(node, Push::On)?;
    let mounts = |e: &Event| e.who == node && is(e, "mounts the shared file system");
    rack.wait(mark, BOOT, &format!("{node} begins to mount the shared file system"), mounts)?;
    rack.power(node, Push::Off)?;
    let (events, cut) = rack.log.since(mark);
    let mounted = format!("{node} has mounted the shared file system");
    ensure!(drill::says(&events, &mounted).is_none(), "it had mounted already: nothing was cut");
    let died = incarnation(&events, node).with_context(|| format!("{node} did not say which boot it is"))?;
    let off = format!("{node} is proven off: ");
    rack.wait(cut, PATIENCE, &off, |e| begins(e, &off))?;
    let goes_on = |e: &Event| begins(e, "shared file system: ") && !is_named(e, node);
    rack.wait(cut, PATIENCE, "the others go on with the shared file system", goes_on)?;
    let held = |e: &Event| begins(e, "holds the shared file system for a change of members");
    let events = rack.log.since(cut).0;
    ensure!(events.iter().any(held), "nobody has held the shared file system");
    drill::proven_before_left_out(&events, (outlet, By::Snmp), node)?;
    drill::guests_write(rack)?;
    drill::unharmed(rack, &before)?;
    rack.power(node, Push::On)?;
    drill::is_back(rack, cut, node, Some(&died))
}

/// The switch of the cluster network dies: nobody hears a majority, so nobody is fenced, and nobody's VMs are anybody's to start. Every
/// node has the shared file system, so it waits for `lease` and has its hypervisor's watchdog reset it; the gateway waits for better
/// times. When the switch is back, the VMs are started anew.
///
/// # Errors
/// A node was not reset, or the gateway was, or an outlet was switched meanwhile, or something ran before that, or did not come back.
pub fn the_switch_dies(rack: &Rack) -> Result<()> {
    let before = drill::all_is_well(rack)?;
    drill::guests_write(rack)?;
    let machines = || rack.layout.machines.iter().map(|machine| &machine.name);
    let nodes: Vec<&String> = machines().filter(|name| *name != GATEWAY).collect();
    let mark = rack.log.mark();
    machines().try_for_each(|name| rack.cable(name, false))?;
    for node in &nodes {
        rack.wait(mark, PATIENCE, &format!("the watchdog resets {node}"), |e| {
            e.who == **node && e.what == What::Reset
        })?;
    }
    fenced_themselves(&rack.log.since(mark).0, &nodes)?;
    machines().try_for_each(|name| rack.cable(name, true))?;
    let incarnation = |status: &Status, name: &str| status.node(name).and_then(|node| node.incarnation.clone());
    rack.until(BOOT, "who was reset has booted anew", |status| {
        let booted = |name: &&String| {
            let boot = incarnation(status, name);
            boot.is_some() && boot != incarnation(&before, name)
        };
        nodes.iter().all(booted)
    })?;
    let after = drill::all_is_well(rack)?;
    ensure!(incarnation(&after, GATEWAY) == incarnation(&before, GATEWAY), "the gateway has booted anew");
    let same = before.vms.iter().zip(&after.vms).find(|(was, is)| was.seen.boot_id == is.seen.boot_id);
    ensure!(same.is_none(), "a VM of a node that was reset has not booted anew: {same:?}");
    drill::guests_write(rack).map(drop)
}

/// In the log's order: each of them said that its watchdog is to reset it, and only then was it reset; nobody else was, no outlet was
/// touched, and no VM was created.
fn fenced_themselves(events: &[Event], nodes: &[&String]) -> Result<()> {
    for node in nodes {
        let says = |e: &Event| e.who == **node && is_named(e, "lets the watchdog reset this machine");
        let says =
            events.iter().position(says).with_context(|| format!("{node} did not say that it is to be reset"))?;
        let reset = events.iter().position(|e| e.who == **node && e.what == What::Reset);
        ensure!(reset.is_some_and(|reset| says < reset), "{node} was reset before it said so, or not at all");
    }
    let wrong = events.iter().find(|e| {
        let other = e.what == What::Reset && !nodes.contains(&&e.who);
        other || begins(e, "creates VM ") || matches!(e.what, What::Outlet { .. } | What::Commanded { .. })
    });
    ensure!(wrong.is_none(), "nobody was to do so: {wrong:?}");
    Ok(())
}

/// In the log's order: the migration had failed before the VM was anywhere else, and it went on, but not to where it was cut.
fn fell_back(events: &[Event], (vm, source, target): (&str, &str, &str)) -> Result<()> {
    let stays = format!("VM {vm} stays on {source}: the migration failed");
    let failed = drill::says(events, &stays).context("the migration did not fail")?;
    let (from, to) = (format!("moves VM {vm} from {source} to "), format!("VM {vm} moved to "));
    let back = events.iter().skip(failed).find(|e| begins(e, &format!("{from}{target}")));
    ensure!(back.is_none(), "{vm} was moved to where it was cut: {back:?}");
    let arrived = events.iter().take(failed).find(|e| begins(e, &to));
    ensure!(arrived.is_none(), "{vm} has arrived where it was cut: {arrived:?}");
    Ok(())
}

/// Whether that node was proven off; its VMs ran nowhere else, and nobody used the shared file system without it, before that.
fn is_fenced(rack: &Rack, mark: Mark, (node, lost): (&str, &[String])) -> Result<bool> {
    let events = rack.log.since(mark).0;
    let off = format!("{node} is proven off: ");
    if !events.iter().any(|e| begins(e, &off)) {
        return Ok(false);
    }
    let outlet = rack.layout.machine(node).context("no such machine")?.outlet;
    drill::proven_before_created(&events, (outlet, By::Snmp), lost)?;
    drill::proven_before_left_out(&events, (outlet, By::Snmp), node)?;
    Ok(true)
}

/// No VM but these has rebooted or lost its connection; these have booted anew.
fn unharmed_but(rack: &Rack, before: &Status, lost: &[String]) -> Result<()> {
    let mut others = before.clone();
    others.vms.retain(|vm| !lost.contains(&vm.name));
    drill::unharmed(rack, &others)?;
    let now = rack.status();
    for was in before.vms.iter().filter(|vm| lost.contains(&vm.name)) {
        let same = now.vm(&was.name).is_some_and(|vm| vm.seen.boot_id == was.seen.boot_id);
        ensure!(!same, "{} was lost with its node, and has not booted anew", was.name);
    }
    Ok(())
}

/// The VMs of a node.
fn names_at(status: &Status, node: &str) -> Vec<String> {
    let at = status.vms.iter().filter(|vm| vm.owner.as_deref() == Some(node));
    at.map(|vm| vm.name.clone()).collect()
}

/// Which VM is pushed where, if that is what was said.
fn pushes(event: &Event) -> Option<(String, String)> {
    let What::Said(text) = &event.what else { return None };
    let (vm, target) = text.strip_prefix("pushes VM ")?.split_once(" to ")?;
    Some((vm.to_owned(), target.to_owned()))
}

/// The last boot of a node that it has told of.
fn incarnation(events: &[Event], node: &str) -> Option<String> {
    let up = |event: &Event| {
        let What::Said(text) = &event.what else { return None };
        text.strip_prefix("up, incarnation ").filter(|_| event.who == node).map(str::to_owned)
    };
    events.iter().rev().find_map(up)
}

fn is(event: &Event, text: &str) -> bool {
    matches!(&event.what, What::Said(said) if said == text)
}

fn begins(event: &Event, text: &str) -> bool {
    matches!(&event.what, What::Said(said) if said.starts_with(text))
}

fn is_named(event: &Event, name: &str) -> bool {
    matches!(&event.what, What::Said(said) if said.contains(name))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_fences_itself_says_so_first_and_nobody_else_does_anything() {
        let event = |who: &str, what: What| Event { at: Duration::ZERO, who: who.into(), what };
        let says = || event("node1", What::Said("inquorate for 40.1 s: lets the watchdog reset this machine".into()));
        let reset = |who: &str| event(who, What::Reset);
        let (node1, outlet) = ("node1".to_owned(), What::Outlet { outlet: 2, on: false, by: "snmp".into() });
        let judge = |events: &[Event]| fenced_themselves(events, &[&node1]);
        assert!(judge(&[says(), reset("node1")]).is_ok());
        for wrong in [
            vec![says()],
            vec![reset("node1"), says()],
            vec![says(), reset("node1"), reset("node2")],
            vec![says(), event("rack", outlet), reset("node1")],
            vec![says(), event("node2", What::Said("creates VM x0, generation 2".into())), reset("node1")],
        ] {
            assert!(judge(&wrong).is_err(), "accepted: {wrong:?}");
        }
    }

    #[test]
    fn a_migration_that_was_cut_goes_on_elsewhere() {
        let said = |text: &str| Event { at: Duration::ZERO, who: "gateway".into(), what: What::Said(text.into()) };
        let failed = || said("VM x0 stays on node1: the migration failed");
        let moves = |to: &str| said(&format!("moves VM x0 from node1 to {to}, paused, generation 3"));
        let moved = |to: &str| said(&format!("VM x0 moved to {to}, generation 3"));
        let judge = |events: &[Event]| fell_back(events, ("x0", "node1", "node2"));
        assert!(judge(&[moves("node2"), failed(), moves("node3"), moved("node3")]).is_ok());
        assert!(judge(&[moves("node2"), moved("node2")]).is_err());
        assert!(judge(&[moves("node2"), moved("node2"), failed(), moves("node3")]).is_err());
        assert!(judge(&[moves("node2"), failed(), moves("node2"), moved("node2")]).is_err());
        assert!(judge(&[moves("node2")]).is_err());
        // Any other step of its contract will do.
        assert!(judge(&[moves("node2"), failed()]).is_ok());
        assert_eq!(pushes(&said("pushes VM x0 to node3")), Some(("x0".into(), "node3".into())));
        assert_eq!(incarnation(&[said("up, incarnation 5d01")], "gateway").as_deref(), Some("5d01"));
    }
}
