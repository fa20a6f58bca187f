//! Random worlds, the seeds that once failed, and the canaries: every invariant is broken on purpose and must say so.
#![cfg(feature = "world")]

use std::time::Duration;

use holdfast_tests::world::{World, chaos};

/// Seeds that are always run: each once found a fault in the core.
const KEPT: &str = include_str!("../seeds.txt");

#[test]
fn random_worlds_stay_safe_and_heal() {
    let kept = KEPT.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok());
    let failures: Vec<String> = kept
        .chain(0..300)
        .filter_map(|seed| chaos::live(seed).failure.map(|failure| format!("seed {seed}: {failure}")))
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn random_worlds_on_two_networks_stay_safe_and_heal() {
    let failures: Vec<String> = (0..100)
        .filter_map(|seed| chaos::live_on(seed, 2).failure.map(|failure| format!("seed {seed}: {failure}")))
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_seed_repeats_to_the_last_byte() {
    for seed in [1, 2, 3, 77] {
        assert_eq!(chaos::live(seed).log, chaos::live(seed).log, "seed {seed}");
    }
}

fn running_world() -> World {
    let mut world = World::new(1, 3, 2);
    (0..4).for_each(|at| world.power_on(at));
    world.run(Duration::from_secs(60));
    assert_eq!(world.converged(), Ok(()));
    world
}

#[test]
fn canary_one_copy() {
    let mut world = running_world();
    world.power_faults.lies = true;
    let host = world.host_of("x0").unwrap();
    world.cable(host, true);
    world.run(Duration::from_secs(60));
    assert!(world.breach().unwrap_or_default().starts_with("one copy: x0"), "{:?}", world.breach());
}

#[test]
fn canary_nothing_starts_inquorate() {
    let mut world = running_world();
    world.pretend_alone(1);
    world.run(Duration::from_secs(60));
    assert!(world.breach().unwrap_or_default().starts_with("nothing starts inquorate"), "{:?}", world.breach());
}

#[test]
fn canary_views_never_fall() {
    let mut world = running_world();
    world.pretend_older_view(2);
    world.run(Duration::from_secs(5));
    assert!(world.breach().unwrap_or_default().starts_with("views never fall"), "{:?}", world.breach());
}
