//! How long placement takes for 5,000 nodes and 30,000 VMs, on one core. The goal is a second.
//!
//! `cargo bench -p holdfast-tests --features world --bench placement`
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark prints")]

use std::time::{Duration, Instant};

use cluster::placement::{self, Act, Inventory, Node, NodeId, Plan, Vm, Where};
use cluster::words::Mebibytes;
use holdfast_tests::world::Chance;

const NODES: usize = 5_000;
const VMS: usize = 30_000;

fn number(chance: &mut Chance, bound: usize) -> usize {
    usize::try_from(chance.below(u64::try_from(bound).unwrap())).unwrap()
}

/// A cluster whose VMs, all stopped, need `load` hundredths of its memory; a tenth of the VMs in keep-apart groups of five,
/// a tenth in keep-together groups of two, four priorities, three kinds of CPU.
fn cluster(load: u64) -> Inventory {
    let mut chance = Chance::new(1);
    let mut inventory = Inventory::default();
    let mut needed = 0;
    for at in 0..VMS {
        let memory = 256 + 256 * u32::try_from(chance.below(16)).unwrap();
        needed += u64::from(memory + 16);
        let mut vm = Vm { name: format!("x{at}"), memory: Mebibytes(memory), ..Vm::default() };
        vm.priority = u8::try_from(chance.below(4)).unwrap();
        vm.features = vec![[1, 1, 1, 3][number(&mut chance, 4)]];
        vm.cold_move = true;
        match at {
            0..3_000 => vm.keep_apart.push(format!("apart{}", at / 5)),
            3_000..6_000 => vm.keep_together.push(format!("together{}", at / 2)),
            _ => {}
        }
        if chance.happens(20) {
            vm.preferred.push(NodeId(number(&mut chance, NODES)));
        }
        inventory.vms.push(vm);
    }
    let each = needed * 100 / load / u64::try_from(NODES).unwrap();
    for at in 0..NODES {
        let total = Mebibytes(u32::try_from(each * (80 + chance.below(41)) / 100).unwrap());
        let features = vec![[3, 3, 1][number(&mut chance, 3)]];
        inventory.nodes.push(Node { name: format!("n{at}"), free: total, total, accepts: true, features });
    }
    inventory
}

/// The same, once it runs.
fn running(load: u64) -> Inventory {
    let inventory = cluster(load);
    placement::after(&inventory, &placement::plan(&inventory))
}

/// Fifty nodes are being left, or are lost.
fn without_fifty(mut inventory: Inventory, lost: bool) -> Inventory {
    for node in inventory.nodes.iter_mut().take(50) {
        node.accepts = false;
    }
    for vm in &mut inventory.vms {
        if let Where::Running(at) = vm.whereabouts
            && at.0 < 50
        {
            vm.whereabouts = if lost { Where::Stopped } else { Where::Leaving(at) };
        }
    }
    inventory
}

/// As if a tenth of the nodes had just come, and nothing ran on them.
fn with_new_nodes() -> Inventory {
    let mut inventory = cluster(60);
    for node in inventory.nodes.iter_mut().take(NODES / 10) {
        node.accepts = false;
    }
    let mut inventory = placement::after(&inventory, &placement::plan(&inventory));
    for node in inventory.nodes.iter_mut().take(NODES / 10) {
        node.accepts = true;
    }
    Inventory { balance: true, ..inventory }
}

fn with_newcomers(mut inventory: Inventory) -> Inventory {
    for at in 0..500 {
        let name = format!("new{at}");
        inventory.vms.push(Vm { name, memory: Mebibytes(2_048), priority: 9, ..Vm::default() });
    }
    inventory
}

/// The least of three times.
fn timed<T>(act: impl Fn() -> T) -> (Duration, T) {
    let once = || {
        let start = Instant::now();
        let result = act();
        (start.elapsed(), result)
    };
    let mut best = once();
    for _ in 0..2 {
        let again = once();
        if again.0 < best.0 {
            best = again;
        }
    }
    best
}

/// One line of the table; `again` is what a second plan would still do, which must be nothing.
fn row(what: &str, inventory: &Inventory) {
    let (time, plan) = timed(|| placement::plan(inventory));
    let count = |of: fn(Act) -> bool| plan.steps.iter().filter(|step| of(step.act)).count();
    let starts = count(|act| matches!(act, Act::Start(_)));
    let moves = count(|act| matches!(act, Act::Migrate(_) | Act::ColdMove(_)));
    let stops = count(|act| act == Act::StopForRoom);
    let Plan { no_room, .. } = &plan;
    let again = placement::plan(&placement::after(inventory, &plan)).steps.len();
    let (ms, left) = (time.as_millis(), no_room.len());
    println!("| {what:<36} | {ms:>7} | {starts:>6} | {moves:>5} | {stops:>5} | {left:>7} | {again:>5} |");
}

fn main() {
    let what = format!("{NODES} nodes, {VMS} VMs");
    println!("| {what:<36} | time ms | starts | moves | stops | no room | again |");
    println!("|---|---|---|---|---|---|---|");
    let calm = running(70);
    row("everything starts, memory 70 % full", &cluster(70));
    row("everything starts, memory 97 % full", &cluster(97));
    row("everything starts, memory 120 % full", &cluster(120));
    row("nothing to do", &calm);
    row("50 nodes are lost", &without_fifty(calm.clone(), true));
    row("50 nodes are left", &without_fifty(calm.clone(), false));
    row("50 nodes are left, memory 97 % full", &without_fifty(running(97), false));
    row("500 important newcomers, memory full", &with_newcomers(running(120)));
    row("500 new nodes, balance", &with_new_nodes());
    for load in [70, 97] {
        let inventory = running(load);
        let (time, short) = timed(|| placement::shortfalls(&inventory));
        println!("N+1 report, memory {load} % full: {} ms, {} nodes short", time.as_millis(), short.len());
    }
}
