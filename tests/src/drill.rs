//! The drill: what a cluster must survive, done to a rack and looked at from outside.
//!
//! Each step is one function with everything that must hold after it. Deadlines are many times what a step takes on two
//! emulating cores, and nothing asserts a time: a slow machine is not a fault.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use serde_json::Value;

use crate::journal;
use crate::rack::events::{By, Event, Mark, What};
use crate::rack::layout::{NULL_MODEM, PDU_NAME};
use crate::rack::status::{Status, Vm};
use crate::rack::{Push, Rack};

/// How long a step of the cluster may take.
pub(crate) const PATIENCE: Duration = Duration::from_mins(12);
/// The rack's `deadtime`.
const DEAD: Duration = Duration::from_secs(10);
/// How long a cluster may boot.
pub(crate) const BOOT: Duration = Duration::from_mins(15);

/// All nodes are members of one quorate cluster with a DC.
///
/// # Errors
/// They are not, with the rack's status.
pub fn forms(rack: &Rack) -> Result<()> {
    let status = rack.until(BOOT, "all nodes are members, with a DC", all_members)?;
    let generations: Vec<_> = status.nodes.iter().map(|node| &node.generation).collect();
    ensure!(generations.windows(2).all(|pair| pair.first() == pair.last()), "more than one generation:\n{status}");
    Ok(())
}

/// Every VM runs on the node that owns it, and answers.
///
/// # Errors
/// One does not.
pub fn vms_run(rack: &Rack) -> Result<()> {
    rack.until(PATIENCE, "all VMs run and answer", |status| status.vms.iter().all(|vm| runs(status, &vm.name)))
        .map(drop)
}

/// A node with VMs is shut down from its menu: its VMs move away live, it lets go of the shared file system, and switches
/// itself off. Tells which node.
///
/// # Errors
/// A guest rebooted, a connection broke, the PDU was used, or a VM did not move.
pub fn leaves_gracefully(rack: &Rack) -> Result<String> {
    let before = rack.status();
    let (node, moved) = node_with_vms(&before)?;
    let mark = rack.log.mark();
    rack.menu(&node)?.shut_down()?;
    rack.wait(mark, PATIENCE, "the node switches itself off", |e| e.who == node && e.what == What::PoweredItselfOff)?;
    rack.until(PATIENCE, "its VMs run elsewhere", |status| {
        moved.iter().all(|vm| runs(status, vm) && status.vm(vm).is_some_and(|vm| vm.owner.as_ref() != Some(&node)))
    })?;
    unharmed(rack, &before)?;
    let touched = rack.log.since(mark).0.into_iter().find(|e| matches!(e.what, What::Outlet { .. }));
    ensure!(touched.is_none(), "a node that left gracefully was switched: {touched:?}");
    let let_go = format!("{node} has let go of the shared file system");
    ensure!(says(&rack.log.since(mark).0, &let_go).is_some(), "the log does not say: {let_go}");
    Ok(node)
}

/// The node is switched on again, joins as a new incarnation, and has the shared file system.
///
/// # Errors
/// It does not come back.
pub fn comes_back(rack: &Rack, node: &str, old_incarnation: Option<&str>) -> Result<()> {
    let mark = rack.log.mark();
    rack.power(node, Push::On)?;
    is_back(rack, mark, node, old_incarnation)
}

/// A node leaves with a VM whose contract is to be suspended: its memory is written to the shared disk, read elsewhere, and the guest
/// goes on where it was, with its TCP connection and its journal. The node comes back.
///
/// # Errors
/// The VM was not suspended, or did not go on where it was, or another suffered, or the node did not come back.
pub fn suspends_a_vm(rack: &Rack) -> Result<()> {
    let before = all_is_well(rack)?;
    guests_write(rack)?;
    let vm = rack.layout.vms.iter().find(|vm| vm.suspends).context("no VM of this rack is suspended")?;
    let node = before.vm(&vm.name).and_then(|vm| vm.owner.clone()).context("it has no owner")?;
    let mark = rack.log.mark();
    rack.menu(&node)?.shut_down()?;
    rack.wait(mark, PATIENCE, "the node switches itself off", |e| e.who == node && e.what == What::PoweredItselfOff)?;
    rack.until(PATIENCE, "its VMs run elsewhere", |status| {
        status.vms.iter().all(|vm| runs(status, &vm.name) && vm.owner.as_ref() != Some(&node))
    })?;
    was_suspended(&rack.log.since(mark).0, &vm.name, &node)?;
    unharmed(rack, &before)?;
    guests_write(rack)?;
    comes_back(rack, &node, before.node(&node).and_then(|n| n.incarnation.as_deref()))
}

/// In the log's order: its memory is on the shared disk, and only then is it resumed; it is neither moved nor created.
fn was_suspended(events: &[Event], vm: &str, node: &str) -> Result<()> {
    let saved = format!("VM {vm} no longer runs on {node}: its memory is on the shared disk");
    let saved = says(events, &saved).with_context(|| format!("{vm} was not suspended"))?;
    let begins =
        |prefix: String| events.iter().position(|e| matches!(&e.what, What::Said(text) if text.starts_with(&prefix)));
    let resumed = begins(format!("resumes VM {vm} ")).with_context(|| format!("{vm} was not resumed"))?;
    ensure!(saved < resumed, "{vm} was resumed before its memory was on the shared disk");
    for other in [format!("moves VM {vm} "), format!("creates VM {vm},")] {
        ensure!(begins(other.clone()).is_none(), "somebody {other}");
    }
    Ok(())
}

/// No VM has rebooted since, nor lost its TCP connection; and those are not only unbroken, they carry.
///
/// # Errors
/// One has.
pub(crate) fn unharmed(rack: &Rack, before: &Status) -> Result<()> {
    let then = rack.status();
    for was in &before.vms {
        let is = then.vm(&was.name).context("a VM is gone")?;
        ensure!(was.seen.boot_id == is.seen.boot_id, "{} has rebooted:\n{then}", is.name);
        ensure!(was.seen.tcp_broken == is.seen.tcp_broken, "{}'s TCP connection broke:\n{then}", is.name);
    }
    let goes_on = |now: &Status| {
        then.vms.iter().zip(&now.vms).all(|(then, now)| now.seen.tcp_exchanges > then.seen.tcp_exchanges)
    };
    rack.until(PATIENCE, "the TCP connections go on", goes_on).map(drop)
}

/// All nodes are members, and all VMs run.
///
/// # Errors
/// They do not come to be.
pub(crate) fn all_is_well(rack: &Rack) -> Result<Status> {
    rack.until(PATIENCE, "all nodes are members, and all VMs run", |status| {
        all_members(status) && status.vms.iter().all(|vm| runs(status, &vm.name))
    })
}

/// The node is a member again, in another boot, and has mounted the shared file system since `mark`.
///
/// # Errors
/// It does not come to be.
pub(crate) fn is_back(rack: &Rack, mark: Mark, node: &str, old_incarnation: Option<&str>) -> Result<()> {
    rack.until(BOOT, &format!("{node} is a member again, newly booted"), |status| {
        let booted = status.node(node).and_then(|n| n.incarnation.as_deref());
        booted.is_some() && booted != old_incarnation && all_members(status)
    })?;
    let mounted = format!("{node} has mounted the shared file system");
    rack.wait(mark, PATIENCE, &mounted, |e| says(std::slice::from_ref(e), &mounted).is_some()).map(drop)
}

/// The plug of a node with VMs is pulled: the DC proves it off over SNMP before its VMs start elsewhere, and it comes back. Its
/// guests write and synchronise all the while, so the power goes in the middle of a write; that none of it is lost or torn
/// [`journals_hold`] says in the end.
///
/// # Errors
/// See [`loses_a_node`].
pub fn survives_a_crash(rack: &Rack) -> Result<()> {
    loses_a_node(rack, By::Snmp, |node| rack.power(node, Push::Off))
}

/// A node with VMs hangs, with power, while the power switch has no network: whoever holds the cable of its console cuts
/// the node's outlet.
///
/// # Errors
/// See [`loses_a_node`].
pub fn survives_a_hang_without_snmp(rack: &Rack) -> Result<()> {
    rack.cable(PDU_NAME, false)?;
    loses_a_node(rack, By::Console, |node| rack.crash(node))?;
    rack.cable(PDU_NAME, true)
}

/// The way between two nodes dies on the cluster network. They hear each other over their serial line, say so, and nobody is
/// suspected for three times `deadtime`.
///
/// # Errors
/// The silence was not noticed, or a node was suspected, or they did not hear each other again.
pub fn survives_a_dead_way(rack: &Rack) -> Result<()> {
    let (_, [one, other], _) = NULL_MODEM;
    let said = |event: &Event, who: &str, words: &str| {
        event.who == who && matches!(&event.what, What::Said(text) if text.contains(words))
    };
    rack.until(PATIENCE, "all nodes are members", all_members)?;
    let mark = rack.log.mark();
    rack.way(one, other, false)?;
    for (here, there) in [(one, other), (other, one)] {
        let silent = format!("{there} is silent on cluster");
        rack.wait(mark, PATIENCE, &silent, |event| said(event, here, &silent))?;
    }
    let suspected =
        rack.log.wait(mark, DEAD * 3, |e| matches!(&e.what, What::Said(text) if text.starts_with("suspects ")));
    rack.way(one, other, true)?;
    ensure!(suspected.is_none(), "a node that is heard over its serial line was suspected: {suspected:?}");
    let back = format!("{other} is heard again on cluster");
    rack.wait(mark, PATIENCE, &back, |event| said(event, one, &back)).map(drop)
}

/// A node with VMs dies in that way, is proven off in this one, its VMs run elsewhere, and it comes back.
///
/// # Errors
/// A VM was started before the proof, or not, or was not booted anew, or the node did not come back.
fn loses_a_node(rack: &Rack, by: By, dies: impl FnOnce(&str) -> Result<()>) -> Result<()> {
    let before = all_is_well(rack)?;
    guests_write(rack)?;
    let (node, lost) = node_with_vms(&before)?;
    let old_incarnation = before.node(&node).and_then(|n| n.incarnation.clone());
    let outlet = rack.layout.machine(&node).context("no such machine")?.outlet;
    let boot_ids: BTreeMap<_, _> = before.vms.iter().map(|vm| (vm.name.clone(), vm.seen.boot_id.clone())).collect();
    let mark = rack.log.mark();
    dies(&node)?;
    let after = rack.until(PATIENCE, "its VMs were restarted elsewhere", |status| {
        lost.iter().all(|vm| {
            runs(status, vm)
                && status.vm(vm).is_some_and(|v| v.owner.as_ref() != Some(&node))
                && status.vm(vm).and_then(|v| v.seen.boot_id.clone()) != boot_ids.get(vm).cloned().flatten()
        })
    })?;
    for vm in after.vms.iter().filter(|vm| !lost.contains(&vm.name)) {
        ensure!(boot_ids.get(&vm.name) == Some(&vm.seen.boot_id), "{} was elsewhere and has rebooted", vm.name);
    }
    let (events, _) = rack.log.since(mark);
    proven_before_created(&events, (outlet, by), &lost)?;
    proven_before_left_out(&events, (outlet, by), &node)?;
    rack.power(&node, Push::On)?;
    is_back(rack, mark, &node, old_incarnation.as_deref())
}

/// Every guest has written to its journal since this was asked: one may answer before it has written anything.
///
/// # Errors
/// One does not write.
pub fn guests_write(rack: &Rack) -> Result<Status> {
    let before = rack.status();
    rack.until(PATIENCE, "every guest writes its journal", |now| {
        // One that has only just begun to answer says that it has written none.
        before.vms.iter().zip(&now.vms).all(|(was, is)| records(is) > records(was).max(Some(0)))
    })
}

fn records(vm: &Vm) -> Option<u64> {
    vm.seen.page.get("records").and_then(Value::as_u64)
}

/// With all power cut, every VM's disk holds its journal: no record lost, doubled or torn.
///
/// # Errors
/// One does not.
pub fn journals_hold(rack: &Rack) -> Result<()> {
    let told = guests_write(rack)?;
    for machine in &rack.layout.machines {
        rack.power(&machine.name, Push::Off)?;
    }
    for vm in &told.vms {
        let of_vm = rack.layout.vms.iter().find(|other| other.name == vm.name).context("no such VM")?;
        let disk = rack.vm_disk(of_vm)?;
        let report = journal::check(&disk).with_context(|| format!("the journal of {}", vm.name))?;
        let boots: Vec<String> = report.boots.iter().map(|boot| format!("{boot:016x}")).collect();
        let answered = rack.log.since(Mark::default()).0.into_iter().filter_map(|event| {
            let What::Answers { boot_id } = event.what else { return None };
            (event.who == vm.name).then_some(boot_id)
        });
        for boot in answered {
            ensure!(boots.contains(&boot), "{} wrote nothing in its boot {boot}", vm.name);
        }
        // A guest counts a record only when it is synchronised.
        let told = records(vm).context("the guest's page counts no records")?;
        ensure!(report.records >= told, "{} told of {told} records, its disk has {}", vm.name, report.records);
        rack.log
            .push(&vm.name, What::Note(format!("journal holds: {} records of {} boots", report.records, boots.len())));
    }
    Ok(())
}

/// No VM was ever seen in two places.
///
/// # Errors
/// One was.
pub fn never_in_two_places(rack: &Rack) -> Result<()> {
    let (events, _) = rack.log.since(Mark::default());
    match events.iter().find(|e| matches!(e.what, What::TwoPlaces(_))) {
        Some(event) => bail!("{event}"),
        None => Ok(()),
    }
}

/// In the log's order: the outlet was commanded off in that way, then read back as off, and only then was a VM created.
pub(crate) fn proven_before_created(events: &[Event], (outlet, by): (u8, By), lost: &[String]) -> Result<()> {
    let at = |what: &str, is: &dyn Fn(&What) -> bool| {
        events.iter().position(|e| is(&e.what)).with_context(|| format!("the log has no line for: {what}"))
    };
    let commanded = at("the outlet was commanded off", &|w| *w == What::Commanded { outlet, on: false, by })?;
    let read = commanded
        + events
            .iter()
            .skip(commanded)
            .position(|e| e.what == What::ReadBack { outlet, on: false, by })
            .context("the outlet was not read back as off after the command")?;
    for vm in lost {
        let created = at(
            &format!("{vm} was created"),
            &|w| matches!(w, What::Said(text) if text.starts_with(&format!("creates VM {vm},"))),
        )?;
        ensure!(read < created, "{vm} was created before its old node was read back as off");
    }
    Ok(())
}

/// In the log's order: the outlet was read back as off, and only then did the others run the shared file system without the node.
pub(crate) fn proven_before_left_out(events: &[Event], (outlet, by): (u8, By), node: &str) -> Result<()> {
    let read = events.iter().position(|e| e.what == What::ReadBack { outlet, on: false, by });
    let without = events.iter().position(|e| {
        let What::Said(text) = &e.what else { return false };
        text.strip_prefix("shared file system: ").is_some_and(|members| !members.contains(node))
    });
    let (read, without) = (read.context("the outlet was not read back as off")?, without);
    let without = without.with_context(|| format!("the shared file system never went on without {node}"))?;
    ensure!(read < without, "the shared file system went on without {node} before that was read back as off");
    Ok(())
}

/// Where an event is that says this.
pub(crate) fn says(events: &[Event], text: &str) -> Option<usize> {
    events.iter().position(|e| matches!(&e.what, What::Said(said) if said == text))
}

pub(crate) fn all_members(status: &Status) -> bool {
    let dc = status.nodes.first().and_then(|node| node.dc.clone());
    dc.is_some()
        && status.nodes.iter().all(|node| {
            node.state.as_deref() == Some("member")
                && node.quorate == Some(true)
                && node.dc == dc
                && node.incarnation.is_some()
        })
}

/// The VM answers, and Xen runs it on the node that owns it.
pub(crate) fn runs(status: &Status, vm: &str) -> bool {
    status.vm(vm).is_some_and(|vm| {
        let owner = vm.owner.as_deref().and_then(|owner| status.node(owner));
        vm.phase.as_deref() == Some("running")
            && vm.seen.answers
            && vm.seen.boot_id.is_some()
            && owner.is_some_and(|node| node.domains.contains(&vm.name))
    })
}

/// The node that runs the first VM, and all VMs that it runs.
pub(crate) fn node_with_vms(status: &Status) -> Result<(String, Vec<String>)> {
    let node = status.vms.iter().find_map(|vm| vm.owner.clone()).context("no VM has an owner")?;
    let vms = status.vms.iter().filter(|vm| vm.owner.as_ref() == Some(&node)).map(|vm| vm.name.clone()).collect();
    Ok((node, vms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(all: Vec<What>) -> Vec<Event> {
        all.into_iter().map(|what| Event { at: Duration::ZERO, who: "node1".into(), what }).collect()
    }

    #[test]
    fn the_shared_file_system_waits_for_the_proof() {
        let by = By::Snmp;
        let read = || What::ReadBack { outlet: 3, on: false, by };
        let runs = |nodes: &str| What::Said(format!("shared file system: {nodes}, epoch 2"));
        let judge = |all: Vec<What>| proven_before_left_out(&events(all), (3, by), "node2");
        assert!(judge(vec![runs("node1, node2"), read(), runs("node1, node3")]).is_ok());
        assert!(judge(vec![runs("node1, node3"), read()]).is_err());
        assert!(judge(vec![read(), runs("node1, node2")]).is_err());
        assert!(judge(vec![runs("node1")]).is_err());
    }

    #[test]
    fn a_suspended_vm_is_resumed_and_nothing_else() {
        let said = |text: &str| What::Said(text.into());
        let saved = || said("VM x1 no longer runs on node1: its memory is on the shared disk");
        let resumes = || said("resumes VM x1 from the shared disk, generation 2");
        let judge = |all: Vec<What>| was_suspended(&events(all), "x1", "node1");
        assert!(judge(vec![saved(), resumes()]).is_ok());
        for wrong in [
            vec![saved()],
            vec![resumes(), saved()],
            vec![saved(), resumes(), said("creates VM x1, generation 3")],
            vec![said("moves VM x1 from node1 to node2, live, generation 2"), saved(), resumes()],
        ] {
            assert!(judge(wrong.clone()).is_err(), "accepted: {wrong:?}");
        }
    }

    #[test]
    fn the_order_of_a_fencing_is_demanded() {
        let by = By::Snmp;
        let off = || What::Commanded { outlet: 3, on: false, by };
        let read = || What::ReadBack { outlet: 3, on: false, by };
        let create = || What::Said("creates VM x0, generation 2".into());
        let lost = ["x0".to_owned()];
        assert!(proven_before_created(&events(vec![off(), read(), create()]), (3, by), &lost).is_ok());
        for wrong in [
            vec![off(), create(), read()],
            vec![create(), off(), read()],
            vec![read(), off(), create()],
            vec![off(), What::ReadBack { outlet: 3, on: true, by }, create()],
            vec![What::Commanded { outlet: 2, on: false, by }, read(), create()],
            vec![off(), read()],
            vec![What::Commanded { outlet: 3, on: false, by: By::Console }, read(), create()],
        ] {
            assert!(proven_before_created(&events(wrong.clone()), (3, by), &lost).is_err(), "accepted: {wrong:?}");
        }
    }
}
