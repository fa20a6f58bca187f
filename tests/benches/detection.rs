//! How soon a silent node is noticed, and how often one that is not silent is taken for it.
//!
//! Worlds of a gateway and three nodes with a heartbeat every 50 ms. A node's cable is cut and the time taken until the DC
//! suspects it; this is virtual time, so it is exact and the same on every machine. The second table is the same with every
//! machine on an eighth of a processor: each runs in slices of 1 to 10 ms and waits 1 to 70 ms in between, both drawn
//! evenly (seven others that never sleep, scheduled in turn). A false suspicion is one of a node whose cable is joined.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark: it prints, and stops where it cannot go on")]

use std::time::Duration;

use holdfast_tests::world::{Shape, World};

/// Between two heartbeats.
const KEEPALIVE_MS: u32 = 50;
/// Cuts that are timed for each deadtime.
const CUTS: usize = 60;
/// How long each overcommitted world is watched for false suspicions.
const WATCHED: Duration = Duration::from_secs(1_200);
/// The others that share the processor, and this one.
const SHARE: u64 = 8;
/// The longest slice.
const SLICE: Duration = Duration::from_millis(10);

fn main() {
    for overcommitted in [false, true] {
        let load = if overcommitted { "8 x overcommitted" } else { "idle" };
        println!(
            "keepalive {KEEPALIVE_MS} ms, {load}\ndeadtime    p50     p99     longest   false suspicions an hour of a node"
        );
        for deadtime in [200, 300, 500, 1_000, 2_000] {
            row(deadtime, overcommitted);
        }
    }
}

fn world(deadtime: u32, overcommitted: bool) -> World {
    let timing_ms = [KEEPALIVE_MS, deadtime / 2, deadtime, 10_000];
    let mut world = World::of(&Shape { vms: 0, timing_ms, ..Shape::default() });
    (0..world.size()).for_each(|at| world.power_on(at));
    world.run(Duration::from_secs(30));
    // Nobody is shot: suspicions alone are counted.
    let request = cluster::event::Request::Disarm { node: None, on: true };
    world.ask_somebody(request);
    world.run(Duration::from_secs(5));
    if overcommitted {
        (0..world.size()).for_each(|at| world.overcommit(at, SHARE, SLICE));
    }
    world.run(Duration::from_secs(5));
    world.forget_log();
    world
}

fn row(deadtime: u32, overcommitted: bool) {
    let mut world = world(deadtime, overcommitted);
    world.run(WATCHED);
    let nodes = f64::from(u32::try_from(world.size() - 1).unwrap());
    let wrong = u32::try_from(world.log().iter().filter(|line| line.contains(" suspects ")).count()).unwrap();
    let rate = f64::from(wrong) / nodes / (WATCHED.as_secs_f64() / 3600.0);
    let mut times: Vec<u64> = (0..CUTS).filter_map(|n| detect(&mut world, 1 + n % 3, n)).collect();
    times.sort_unstable();
    let at =
        |part: usize| times.get((times.len() * part / 100).min(times.len().saturating_sub(1))).copied().unwrap_or(0);
    println!("{deadtime:>5} ms  {:>5} ms {:>5} ms {:>5} ms   {rate:>8.1}", at(50), at(99), at(100));
}

/// Cuts a node's cable at some moment and waits until it is suspected; milliseconds.
fn detect(world: &mut World, node: usize, n: usize) -> Option<u64> {
    world.run(Duration::from_millis(3_000 + u64::try_from(n).unwrap() * 7 % 50));
    world.forget_log();
    world.cable(node, true);
    let began = world.now();
    let text = format!(" suspects node{node}:");
    while !world.log().iter().any(|line| line.contains(&text)) {
        if world.now().since(began) > Duration::from_secs(20) {
            world.cable(node, false);
            return None;
        }
        world.run(Duration::from_millis(1));
    }
    let time = u64::try_from(world.now().since(began).as_millis()).unwrap();
    world.cable(node, false);
    Some(time)
}
