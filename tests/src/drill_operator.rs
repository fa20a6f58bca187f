//! The drill of what an operator does with a VM, at menus of nodes that the VM is not on.

use anyhow::{Context as _, Result, ensure};

use crate::drill::{self, PATIENCE};
use crate::rack::Rack;
use crate::rack::layout::GATEWAY;

/// A VM's console answers at one node's menu, then at another's, which takes it from the first. The VM is migrated, which
/// its new node's menu shows under way, and answers there just so; then it is stopped, which ends its console, and started again.
///
/// # Errors
/// The guest did not answer at its console, or suffered from its migration, or did not do what it was told.
pub fn works_with_vms(rack: &Rack) -> Result<()> {
    let before = drill::all_is_well(rack)?;
    let vm = before.vms.first().context("there is no VM")?;
    let owner = vm.owner.as_deref().context("it has no owner")?;
    let away = |name: &&String| *name != GATEWAY && *name != owner;
    let other = before.nodes.iter().map(|node| &node.name).find(away).context("no other node")?;
    let boot = vm.seen.boot_id.as_deref().context("it has no boot id")?;
    let (gateway, node) = (rack.menu(GATEWAY)?, rack.menu(other)?);
    for (menu, words) in [(&node, "one"), (&gateway, "two")] {
        menu.attach(&vm.name)?;
        menu.type_line(words)?;
        menu.says(PATIENCE, &format!("boot {boot} hears: {words}"))?;
    }
    node.says(PATIENCE, "it has ended, or is looked at elsewhere")?;
    gateway.leave_console()?;

    node.migrate(&vm.name, other)?;
    rack.until(PATIENCE, "the VM runs where it was sent", |status| {
        let owner = status.vm(&vm.name).and_then(|vm| vm.owner.as_ref());
        owner == Some(other) && drill::runs(status, &vm.name)
    })?;
    drill::unharmed(rack, &before)?;
    gateway.attach(&vm.name)?;
    gateway.type_line("three")?;
    gateway.says(PATIENCE, &format!("boot {boot} hears: three"))?;

    node.start_or_stop(&vm.name, false)?;
    gateway.says(PATIENCE, "it has ended, or is looked at elsewhere")?;
    let stopped = rack.until(PATIENCE, "the VM is stopped", |status| {
        let phase = status.vm(&vm.name).and_then(|vm| vm.phase.as_deref());
        phase == Some("stopped") && status.nodes.iter().all(|node| !node.domains.contains(&vm.name))
    })?;
    let others = stopped.vms.iter().filter(|other| other.name != vm.name);
    ensure!(
        others.clone().count() > 0 && others.into_iter().all(|other| drill::runs(&stopped, &other.name)),
        "{stopped}"
    );
    node.start_or_stop(&vm.name, true)?;
    let after = drill::all_is_well(rack)?;
    let booted = after.vm(&vm.name).and_then(|vm| vm.seen.boot_id.as_deref());
    ensure!(booted.is_some() && booted != Some(boot), "it has not booted anew:\n{after}");
    Ok(())
}
