//! The operator: asks for things, and in the end puts everything right again.

use anyhow::{Context, Result};
use cluster::event::Request;
use cluster::words::{Slot, VmName};

use super::{World, script};

/// What the words of a script ask for, if they are an operator's.
///
/// # Errors
/// Names of nothing.
pub(super) fn requests(world: &World, words: &[&str]) -> Result<Option<Vec<Request>>> {
    let vm = |name: &str| VmName::new(name).context("a VM's name");
    let nodes = |who: &[&str], request: &dyn Fn(Slot) -> Request| -> Result<Option<Vec<Request>>> {
        let found = script::machines(world, who)?.into_iter();
        let slots = found.filter_map(|at| world.agreed().named(world.name(at)));
        Ok(Some(slots.map(request).collect()))
    };
    match words {
        ["start", "VM", name] => Ok(Some(vec![Request::Start { vm: vm(name)? }])),
        ["stop", "VM", name] => Ok(Some(vec![Request::Stop { vm: vm(name)? }])),
        ["migrate", "VM", name, "to", who @ ..] => {
            let vm = vm(name)?;
            nodes(who, &|to| Request::Migrate { vm: vm.clone(), to })
        }
        ["disarm", "the", "cluster"] => Ok(Some(vec![Request::Disarm { node: None, on: true }])),
        ["arm", "the", "cluster"] => Ok(Some(vec![Request::Disarm { node: None, on: false }])),
        ["disarm", who @ ..] => nodes(who, &|node| Request::Disarm { node: Some(node), on: true }),
        ["arm", who @ ..] => nodes(who, &|node| Request::Disarm { node: Some(node), on: false }),
        ["put", who @ .., "into", "standby"] => nodes(who, &|node| Request::Standby { node, on: true }),
        ["take", who @ .., "out", "of", "standby"] => nodes(who, &|node| Request::Standby { node, on: false }),
        ["put", who @ .., "into", "maintenance"] => nodes(who, &|node| Request::Maintenance { node, on: true }),
        ["take", who @ .., "out", "of", "maintenance"] => nodes(who, &|node| Request::Maintenance { node, on: false }),
        ["test", "the", "fencing", "of", who @ ..] => nodes(who, &|node| Request::Drill { node }),
        ["take", who @ .., "for", "off"] => {
            // Whoever confirms that a machine is off has looked.
            let name = |node: Slot| world.agreed().node_name(node);
            let machine = |node: Slot| world.machines.iter().find(|machine| machine.name == name(node));
            let off = |node: &Slot| machine(*node).is_some_and(|machine| !machine.on);
            let all = nodes(who, &|node| Request::ConfirmOff { node, typed: name(node) })?;
            let honest = |request: &Request| matches!(request, Request::ConfirmOff { node, .. } if off(node));
            Ok(all.map(|all| all.into_iter().filter(honest).collect()))
        }
        ["add", name] => Ok(Some(vec![world.addition(script::machine(world, name)?, None)])),
        ["add", name, "votes", votes] => {
            Ok(Some(vec![world.addition(script::machine(world, name)?, Some(votes.parse()?))]))
        }
        ["change", "the", "key"] => Ok(Some(vec![world.key_change()])),
        ["restart", "the", "nodes", "one", "by", "one"] => Ok(Some(vec![Request::Rolling { on: true }])),
        ["stop", "restarting", "the", "nodes"] => Ok(Some(vec![Request::Rolling { on: false }])),
        ["remove", name] => Ok(Some(vec![world.removal(script::machine(world, name)?)])),
        _ => Ok(None),
    }
}

impl World {
    /// Asks the first node that takes part in a quorate cluster.
    pub fn ask_somebody(&mut self, request: Request) {
        if let Some(at) = (0..self.size()).find(|at| self.is_quorate(*at)) {
            self.ask(at, request);
        }
    }

    /// Takes back whatever is set aside, tests who is on trial, and lets every VM run.
    pub(super) fn put_right(&mut self) {
        let Some(at) = (0..self.size()).find(|at| self.is_quorate(*at)) else { return };
        let Some(status) = self.status(at) else { return };
        let mut requests = Vec::new();
        if status.disarmed {
            requests.push(Request::Disarm { node: None, on: false });
        }
        if status.rolling.is_some_and(|rolling| rolling.stopped.is_none() && !rolling.todo.is_empty()) {
            requests.push(Request::Rolling { on: false });
        }
        for (slot, node) in (0..).map(Slot).zip(&status.nodes) {
            let named = node.role == cluster::words::Role::Node;
            if node.standby {
                requests.push(Request::Standby { node: slot, on: false });
            }
            if node.maintenance {
                requests.push(Request::Maintenance { node: slot, on: false });
            }
            if node.on_trial && node.state == "member" {
                requests.push(Request::Drill { node: slot });
            }
            if node.disarmed && named {
                requests.push(Request::Disarm { node: Some(slot), on: false });
            }
        }
        for record in status.vms.iter().filter(|record| !record.wanted || record.phase == "failed") {
            requests.extend(VmName::new(&record.name).map(|vm| Request::Start { vm }));
        }
        requests.into_iter().for_each(|request| self.ask(at, request));
    }
}
