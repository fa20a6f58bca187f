//! The drill of the UPSes: one fails, and both fail.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use memchr::memmem;

use crate::drill;
use crate::rack::Rack;
use crate::rack::events::{Event, Mark, What};
use crate::rack::layout::GATEWAY;
use crate::rack::status::Status;
use crate::rack::ups::Supply;

/// How long a step of the cluster may take.
const PATIENCE: Duration = Duration::from_mins(20);

/// When power fails again, and what the log says then.
const BAD_MOMENTS: [(&str, &str); 4] = [
    ("a VM is created", "creates VM "),
    ("a node has mounted the shared file system", "has mounted the shared file system"),
    ("a VM runs", " runs on "),
    ("a VM runs once more", " runs on "),
];

/// One of two UPSes fails: the VMs of its nodes move live to the others, and those machines switch themselves off. No outlet
/// is touched meanwhile. When mains is back they are woken, and all is as before.
///
/// # Errors
/// A guest rebooted, an outlet was touched before mains was back, or a node did not come back.
pub fn one_ups_fails(rack: &Rack) -> Result<()> {
    drill::forms(rack)?;
    drill::vms_run(rack)?;
    let before = rack.status();
    let host = before.vms.iter().find_map(|vm| vm.owner.clone()).context("no VM has an owner")?;
    let upses = rack.layout.upses();
    let (ups, feeds) = upses.into_iter().find(|(_, feeds)| feeds.contains(&host)).context("no UPS feeds it")?;
    let nodes: Vec<String> = feeds.into_iter().filter(|name| name != GATEWAY).collect();
    let mark = rack.log.mark();
    rack.ups(&ups, Supply::Battery)?;
    for node in &nodes {
        rack.wait(mark, PATIENCE, &format!("{node} switches itself off"), |e| {
            e.who == *node && e.what == What::PoweredItselfOff
        })?;
    }
    let led_away = |status: &Status| {
        status.vms.iter().all(|vm| {
            let elsewhere = vm.owner.as_ref().is_some_and(|owner| !nodes.contains(owner));
            elsewhere && vm.phase.as_deref() == Some("running") && vm.seen.answers
        })
    };
    let after = rack.until(PATIENCE, "all VMs run where there is mains", led_away)?;
    same_boots(&before, &after)?;
    let touched = rack.log.since(mark).0.into_iter().find(|e| matches!(e.what, What::Outlet { .. }));
    ensure!(touched.is_none(), "an outlet was touched: {touched:?}");
    rack.ups(&ups, Supply::Mains)?;
    drill::forms(rack)?;
    same_boots(&before, &rack.status())
}

/// Both UPSes fail, and are nearly empty: every VM is shut down in good order, then the nodes switch themselves off, then
/// the gateway, which has the UPSes cut their load. When power is back, everybody boots and the same VMs run; but none on
/// the node that was in standby, for so it was decided.
///
/// # Errors
/// A machine lost its power while it ran, one went in the wrong order, or something did not come back, or a decision is
/// forgotten.
pub fn all_upses_fail(rack: &Rack) -> Result<()> {
    drill::forms(rack)?;
    drill::vms_run(rack)?;
    drill::guests_write(rack)?;
    let aside = set_aside(rack)?;
    let before = rack.status();
    let upses = rack.layout.upses();
    let mark = rack.log.mark();
    for (ups, _) in &upses {
        rack.ups(ups, Supply::Battery)?;
    }
    for (ups, _) in &upses {
        rack.ups(ups, Supply::Low)?;
    }
    rack.wait(mark, PATIENCE, "the gateway switches itself off", |e| {
        e.who == GATEWAY && e.what == What::PoweredItselfOff
    })?;
    let names: Vec<String> = rack.layout.machines.iter().map(|machine| machine.name.clone()).collect();
    let vms: Vec<_> = before.vms.iter().filter_map(|vm| Some((vm.name.clone(), vm.owner.clone()?))).collect();
    in_good_order(&rack.log.since(mark).0, &names, &vms)?;
    comes_back(rack, mark, &upses)?;
    let booted = |status: &Status| {
        status.nodes.iter().zip(&before.nodes).all(|(is, was)| {
            is.state.as_deref() == Some("member") && is.incarnation.is_some() && is.incarnation != was.incarnation
        })
    };
    rack.until(PATIENCE, "everybody is a member again, newly booted", booted)?;
    drill::forms(rack)?;
    let anew = |status: &Status| {
        status.vms.iter().zip(&before.vms).all(|(is, was)| is.name == was.name && is.seen.boot_id != was.seen.boot_id)
    };
    rack.until(PATIENCE, "every VM has booted anew", anew)?;
    drill::vms_run(rack)?;
    still_aside(&rack.log.since(mark).0, &aside)?;
    rack.menu(GATEWAY)?.standby(&aside, false)
}

/// Both UPSes fail again as soon as the cluster comes back, when one creates a VM, mounts the shared file system, or runs a VM: so nodes
/// leave that have hardly come, and all at once. Found so: a kernel that panicked over another's journal while it unmounted.
///
/// # Errors
/// A machine did not switch itself off, or not in order, or an outlet was touched.
pub fn all_upses_fail_at_bad_moments(rack: &Rack) -> Result<()> {
    let upses = rack.layout.upses();
    let names: Vec<String> = rack.layout.machines.iter().map(|machine| machine.name.clone()).collect();
    for (moment, words) in BAD_MOMENTS {
        let mark = rack.log.mark();
        for supply in [Supply::Battery, Supply::Low] {
            upses.iter().try_for_each(|(ups, _)| rack.ups(ups, supply))?;
        }
        rack.wait(mark, PATIENCE, "the gateway switches itself off", |e| {
            e.who == GATEWAY && e.what == What::PoweredItselfOff
        })?;
        in_good_order(&rack.log.since(mark).0, &names, &[])?;
        comes_back(rack, mark, &upses)?;
        rack.wait(mark, PATIENCE, moment, |e| matches!(&e.what, What::Said(text) if text.contains(words)))?;
    }
    drill::all_is_well(rack).map(drop)
}

/// The UPSes cut their load, as ordered since `mark`, and mains is back.
fn comes_back(rack: &Rack, mark: Mark, upses: &[(String, Vec<String>)]) -> Result<()> {
    for (ups, _) in upses {
        let cut = |e: &Event| e.who == *ups && matches!(&e.what, What::Note(text) if text == "gives no power");
        rack.wait(mark, PATIENCE, &format!("{ups} cuts its load"), cut)?;
    }
    upses.iter().try_for_each(|(ups, _)| rack.ups(ups, Supply::Mains))
}

/// Puts a node without VMs into standby, and waits until the shared file system's disk holds that. Tells which.
fn set_aside(rack: &Rack) -> Result<String> {
    let status = rack.status();
    let is_free = |name: &String| *name != GATEWAY && status.vms.iter().all(|vm| vm.owner.as_ref() != Some(name));
    let mut names = status.nodes.iter().map(|node| node.name.clone());
    let aside = names.find(is_free).context("every node has a VM")?;
    rack.menu(GATEWAY)?.standby(&aside, true)?;
    let kept = format!("[node.\"{aside}\"]\nstandby = true\n");
    let disk = rack.shared_disk();
    rack.until(PATIENCE, "the decision is on the disk", |_| {
        fs::read(&disk).is_ok_and(|bytes| memmem::find(&bytes, kept.as_bytes()).is_some())
    })?;
    Ok(aside)
}

/// In the log's order: the node is in standby as was decided before, and only then are VMs created, none of them there.
fn still_aside(events: &[Event], aside: &str) -> Result<()> {
    let recalled = drill::says(events, &format!("{aside} is in standby, as the operator wants"));
    let recalled = recalled.with_context(|| format!("nobody remembers that {aside} is in standby"))?;
    let creates = |e: &Event| matches!(&e.what, What::Said(text) if text.starts_with("creates VM "));
    let first = events.iter().position(creates).context("no VM was created")?;
    ensure!(recalled < first, "a VM was created before the decisions were read");
    let there = events.iter().find(|e| e.who == aside && creates(e));
    ensure!(there.is_none(), "a VM was created on a node in standby: {there:?}");
    Ok(())
}

fn same_boots(before: &Status, after: &Status) -> Result<()> {
    for (was, is) in before.vms.iter().zip(&after.vms) {
        ensure!(was.seen.boot_id == is.seen.boot_id, "{} has rebooted:\n{after}", is.name);
    }
    Ok(())
}

/// In the log's order: the VMs of a node were shut down, then it switched itself off; and when no VM ran any more and all
/// nodes were off, the gateway. No outlet cut anybody off before.
fn in_good_order(events: &[Event], machines: &[String], vms: &[(String, String)]) -> Result<()> {
    let off = |name: &str| {
        let at = events.iter().position(|e| e.who == name && e.what == What::PoweredItselfOff);
        at.with_context(|| format!("{name} did not switch itself off"))
    };
    let gateway = off(GATEWAY)?;
    for name in machines.iter().filter(|name| *name != GATEWAY) {
        ensure!(off(name)? < gateway, "{name} switched itself off after the gateway");
    }
    for (vm, host) in vms {
        let ended = |e: &Event, from: &str| {
            let begins = format!("VM {vm} no longer runs on {from}");
            matches!(&e.what, What::Said(text) if text.starts_with(&begins) && text.ends_with(": it was shut down"))
        };
        let first = events.iter().position(|e| ended(e, host)).with_context(|| format!("{vm} was not shut down"))?;
        ensure!(first < off(host)?, "{host} switched itself off before {vm} was shut down");
        let last = events.iter().rposition(|e| ended(e, "")).unwrap_or(first);
        ensure!(last < gateway, "the gateway switched itself off before {vm} was shut down");
    }
    let cut = events.iter().take(gateway).find(|e| matches!(e.what, What::Outlet { on: false, .. }));
    ensure!(cut.is_none(), "an outlet was switched off: {cut:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(who: &str, what: What) -> Event {
        Event { at: Duration::ZERO, who: who.into(), what }
    }

    #[test]
    fn a_decision_is_to_be_remembered_before_anything_is_created() {
        let standby = || event("gateway", What::Said("node3 is in standby, as the operator wants".into()));
        let creates = |who| event(who, What::Said("creates VM x0, generation 1".into()));
        assert!(still_aside(&[standby(), creates("node1")], "node3").is_ok());
        for wrong in [
            vec![creates("node1")],
            vec![creates("node1"), standby()],
            vec![standby(), creates("node1"), creates("node3")],
            vec![standby()],
        ] {
            assert!(still_aside(&wrong, "node3").is_err(), "accepted: {wrong:?}");
        }
    }

    #[test]
    fn the_order_of_a_power_down_is_demanded() {
        let ended = || event("gateway", What::Said("VM x0 no longer runs on node1: it was shut down".into()));
        let off = |who| event(who, What::PoweredItselfOff);
        let cut = || event("rack", What::Outlet { outlet: 2, on: false, by: "u1".into() });
        let (machines, vms) = (["gateway".to_owned(), "node1".to_owned()], [("x0".to_owned(), "node1".to_owned())]);
        assert!(in_good_order(&[ended(), off("node1"), off("gateway"), cut()], &machines, &vms).is_ok());
        for wrong in [
            vec![off("node1"), ended(), off("gateway")],
            vec![ended(), off("gateway"), off("node1")],
            vec![ended(), cut(), off("node1"), off("gateway")],
            vec![ended(), off("gateway")],
            vec![off("node1"), off("gateway")],
        ] {
            assert!(in_good_order(&wrong, &machines, &vms).is_err(), "accepted: {wrong:?}");
        }
    }
}
