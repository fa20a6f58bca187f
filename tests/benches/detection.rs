//! How soon a silent node is noticed, how often one that is not silent is taken for it, and how long there is no DC.
//!
//! Worlds of a gateway and three nodes with a heartbeat every 50 ms. A node's cable is cut and the time taken until the DC
//! suspects it; then the DC's is cut, and the time taken until there is another. This is virtual time, so it is exact and the
//! same on every machine. In the later tables the nodes, or all machines, have an eighth of a processor: each runs in slices
//! of 1 ms up to the scheduler's longest (10 ms is Xen's credit2, 30 ms its older credit) and waits seven times as long in
//! between, both drawn evenly; the last one has the slices of a host that swaps. A false suspicion is one of a node whose cable
//! is joined: with a fence behind it, a node that is shot for nothing.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark: it prints, and stops where it cannot go on")]

use std::time::Duration;

use holdfast_tests::world::{Shape, World};

/// Between two heartbeats.
const KEEPALIVE_MS: u32 = 50;
/// The deadtimes that are tried.
const DEADTIMES_MS: [u32; 6] = [250, 500, 1_000, 2_000, 5_000, 10_000];
/// The longest slices of the overcommitted tables.
const SLICES_MS: [u64; 3] = [10, 30, 100];
/// The others that share the processor, and this one.
const SHARE: u64 = 8;
/// Cuts that are timed for each deadtime.
const CUTS: usize = 60;
/// How long each world is watched for false suspicions.
const WATCHED: Duration = Duration::from_secs(2_400);
/// How long something is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who shares a processor with others, and how.
#[derive(Clone, Copy)]
struct Load {
    /// The gateway too, which is the DC as long as it can be; else only the nodes.
    gateway: bool,
    slice_ms: u64,
}

fn main() {
    let all = |gateway| SLICES_MS.map(|slice_ms| Some(Load { gateway, slice_ms }));
    for load in [None].into_iter().chain(all(false)).chain(all(true)) {
        let text = load.map_or("idle".to_owned(), |Load { gateway, slice_ms }| {
            let who = if gateway { "all" } else { "the nodes" };
            format!("{who} {SHARE} x overcommitted, slices of up to {slice_ms} ms")
        });
        println!("keepalive {KEEPALIVE_MS} ms, {text}");
        println!("  deadtime   suspected after p50    p99   new DC after p50    p99   false suspicions a node and day");
        for deadtime in DEADTIMES_MS {
            row(deadtime, load);
        }
    }
}

fn world(deadtime: u32, load: Option<Load>) -> World {
    let timing_ms = [KEEPALIVE_MS, deadtime / 2, deadtime, 10_000 + deadtime];
    let mut world = World::of(&Shape { vms: 0, timing_ms, ..Shape::default() });
    (0..world.size()).for_each(|at| world.power_on(at));
    world.run(Duration::from_secs(30));
    // Nobody is shot: suspicions alone are counted.
    world.ask_somebody(cluster::event::Request::Disarm { node: None, on: true });
    world.run(Duration::from_secs(5));
    if let Some(Load { gateway, slice_ms }) = load {
        let slice = Duration::from_millis(slice_ms);
        (usize::from(!gateway)..world.size()).for_each(|at| world.overcommit(at, SHARE, slice));
    }
    world.run(Duration::from_secs(5));
    world.forget_log();
    world
}

fn row(deadtime: u32, load: Option<Load>) {
    let mut world = world(deadtime, load);
    world.run(WATCHED);
    let nodes = f64::from(u32::try_from(world.size() - 1).unwrap());
    let wrong = u32::try_from(world.log().iter().filter(|line| line.contains(" suspects ")).count()).unwrap();
    let rate = f64::from(wrong) / nodes / (WATCHED.as_secs_f64() / 86_400.0);
    let suspected = times(&mut world, |world, n| {
        let node = (1..world.size()).map(|at| 1 + (at + n) % 3).find(|at| world.dc() != Some(*at))?;
        time(world, node, &format!(" suspects node{node}:"))
    });
    let office = times(&mut world, |world, _| {
        let dc = world.dc()?;
        time(world, dc, " is DC of view")
    });
    let [(early, late), (dc_early, dc_late)] = [suspected, office];
    println!("  {deadtime:>5} ms   {early:>17} ms {late:>5} ms {dc_early:>14} ms {dc_late:>5} ms {rate:>20.1}");
}

/// The median and the 99th percentile of so many, in milliseconds. What did not happen in time took longest.
fn times(world: &mut World, mut one: impl FnMut(&mut World, usize) -> Option<u64>) -> (u64, u64) {
    let longest = u64::try_from(PATIENCE.as_millis()).unwrap();
    let mut all: Vec<u64> = (0..CUTS).map(|n| one(world, n).unwrap_or(longest)).collect();
    all.sort_unstable();
    let at = |percent: usize| all.get((all.len() * percent / 100).min(all.len() - 1)).copied().unwrap_or(longest);
    (at(50), at(99))
}

/// Cuts a machine's cables at some moment, and waits until that is said; milliseconds.
fn time(world: &mut World, at: usize, said: &str) -> Option<u64> {
    let moment = Duration::from_millis(world.chance.below(50));
    world.run(moment);
    world.forget_log();
    world.cable(at, true);
    let began = world.now();
    while !world.log().iter().any(|line| line.contains(said)) && world.now().since(began) < PATIENCE {
        world.run(Duration::from_millis(1));
    }
    let taken = world.now().since(began);
    world.cable(at, false);
    world.run(Duration::from_secs(3));
    (taken < PATIENCE).then(|| u64::try_from(taken.as_millis()).unwrap())
}
