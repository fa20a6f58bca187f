//! The language of placement's cases.
//!
//! ```text
//! node NAME free MIB [total MIB] [closed] [cpu WORD..]
//! vm NAME MIB [stopped | on NODE | leaves NODE | from NODE | to NODE] [priority N] [order N] [prefers NODE] [apart GROUP]
//!    [together GROUP] [sticky N] [failback] [avoid NODE] [cpu WORD] [cold]
//! balance                     evens out the use of memory
//! then                        plan; the rest changes what the plan has brought about
//! set NAME ..                 changes a node or a VM that is there already, in the words of its line
//! ```
//! A word that may stand for several is written several times. CPU features are words of bits in hexadecimal. `from` and `to`
//! are the ends of something that is under way. What comes out is the plan's steps in order (those in brackets wait for
//! others), who has no room, and which node's loss could not be absorbed.

use std::fmt::Write as _;

use anyhow::{Context, Result, bail};
use cluster::placement::{self, Act, Inventory, Node, NodeId, Plan, Vm, VmId, Where};
use cluster::words::Mebibytes;

use crate::referee;

/// Runs a case.
pub(crate) fn run(input: &str) -> Result<String> {
    let mut inventory = Inventory::default();
    let mut output = String::new();
    for line in input.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["node", name, rest @ ..] => {
                inventory.nodes.push(Node { name: (*name).into(), accepts: true, ..Node::default() });
                node(inventory.nodes.last_mut().context("just pushed")?, rest)
            }
            ["vm", name, memory, rest @ ..] => {
                let memory = Mebibytes(memory.parse()?);
                let mut record = Vm { name: (*name).into(), memory, ..Vm::default() };
                let read = vm(&inventory, &mut record, rest);
                inventory.vms.push(record);
                read
            }
            ["set", name, rest @ ..] => change(&mut inventory, name, rest),
            ["balance"] => {
                inventory.balance = true;
                Ok(())
            }
            ["then"] => {
                inventory = planned(&inventory, &mut output)?;
                output += "then\n";
                Ok(())
            }
            _ => bail!("not a line of a case: {line}"),
        }
        .with_context(|| line.to_owned())?;
    }
    planned(&inventory, &mut output)?;
    Ok(output)
}

/// Plans, has the referee look at it, and writes it down; what comes back is the state that it brings about.
fn planned(inventory: &Inventory, output: &mut String) -> Result<Inventory> {
    let plan = placement::plan(inventory);
    let after = referee::judge(inventory, &plan)?;
    write(inventory, &plan, output)?;
    for short in placement::shortfalls(&after) {
        let names: Vec<&str> = short.vms.iter().map(|vm| after.vm(*vm).name.as_str()).collect();
        writeln!(output, "if {} were lost: no room for {}", after.node(short.node).name, names.join(", "))?;
    }
    Ok(after)
}

fn write(inventory: &Inventory, plan: &Plan, output: &mut String) -> Result<()> {
    let node = |id: NodeId| inventory.node(id).name.as_str();
    for step in &plan.steps {
        let name = &inventory.vm(step.vm).name;
        let text = match step.act {
            Act::Start(to) => format!("start {name} on {}", node(to)),
            Act::Migrate(to) => format!("migrate {name} to {}", node(to)),
            Act::ColdMove(to) => format!("move {name} cold to {}", node(to)),
            Act::StopForRoom => format!("stop {name} for room"),
        };
        if step.waits { writeln!(output, "({text})")? } else { writeln!(output, "{text}")? }
    }
    for left in &plan.no_room {
        writeln!(output, "no room for {}: {}", inventory.vm(left.vm).name, left.reason)?;
    }
    if plan.steps.is_empty() && plan.no_room.is_empty() {
        output.push_str("nothing to do\n");
    }
    Ok(())
}

fn change(inventory: &mut Inventory, name: &str, rest: &[&str]) -> Result<()> {
    if let Some(found) = inventory.nodes.iter_mut().find(|node| node.name == name) {
        return node(found, rest);
    }
    let at = inventory.vms.iter().position(|vm| vm.name == name).with_context(|| format!("there is no {name}"))?;
    let mut record = inventory.vm(VmId(at)).clone();
    vm(inventory, &mut record, rest)?;
    *inventory.vms.get_mut(at).context("just found")? = record;
    Ok(())
}

fn node(node: &mut Node, mut words: &[&str]) -> Result<()> {
    while let [word, rest @ ..] = words {
        words = rest;
        match (*word, rest) {
            ("closed", _) => node.accepts = false,
            ("open", _) => node.accepts = true,
            (_, [value, rest @ ..]) => {
                words = rest;
                match *word {
                    "free" => node.free = Mebibytes(value.parse()?),
                    "total" => node.total = Mebibytes(value.parse()?),
                    "cpu" => node.features.push(u32::from_str_radix(value, 16)?),
                    _ => bail!("{word} says nothing of a node"),
                }
            }
            _ => bail!("{word} says nothing of a node"),
        }
    }
    Ok(())
}

fn vm(inventory: &Inventory, vm: &mut Vm, mut words: &[&str]) -> Result<()> {
    let find = |name: &str| {
        let found = inventory.nodes.iter().position(|node| node.name == name);
        found.map(NodeId).with_context(|| format!("there is no {name}"))
    };
    while let [word, rest @ ..] = words {
        words = rest;
        match (*word, rest) {
            ("stopped", _) => vm.whereabouts = Where::Stopped,
            ("failback", _) => vm.auto_failback = true,
            ("cold", _) => vm.cold_move = true,
            (_, [value, rest @ ..]) => {
                words = rest;
                match *word {
                    "on" => vm.whereabouts = Where::Running(find(value)?),
                    "leaves" => vm.whereabouts = Where::Leaving(find(value)?),
                    "from" | "to" => vm.whereabouts = in_flight(vm.whereabouts, word, find(value)?),
                    "priority" => vm.priority = value.parse()?,
                    "order" => vm.start_order = value.parse()?,
                    "prefers" => vm.preferred.push(find(value)?),
                    "apart" => vm.keep_apart.push((*value).into()),
                    "together" => vm.keep_together.push((*value).into()),
                    "sticky" => vm.stickiness = value.parse()?,
                    "avoid" => vm.avoid = Some(find(value)?),
                    "cpu" => vm.features.push(u32::from_str_radix(value, 16)?),
                    _ => bail!("{word} says nothing of a VM"),
                }
            }
            _ => bail!("{word} says nothing of a VM"),
        }
    }
    Ok(())
}

fn in_flight(was: Where, end: &str, node: NodeId) -> Where {
    let (from, to) = match was {
        Where::InFlight { from, to } => (from, to),
        Where::Stopped | Where::Running(_) | Where::Leaving(_) => (None, None),
    };
    if end == "from" { Where::InFlight { from: Some(node), to } } else { Where::InFlight { from, to: Some(node) } }
}
