//! Random worlds, the seeds that once failed, and the canaries: every invariant is broken on purpose and must say so.
#![cfg(feature = "world")]

use std::time::Duration;

use cluster::event::Request;
use cluster::words::Slot;
use holdfast_tests::world::{Shape, World, chaos};

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

/// Breaks something in a world where all is well, and demands that it is called by its name.
fn canary(name: &str, seconds: u64, breaks: impl FnOnce(&mut World)) {
    let mut world = running_world();
    breaks(&mut world);
    world.run(Duration::from_secs(seconds));
    assert!(world.breach().unwrap_or_default().starts_with(name), "{name}: {:?}", world.breach());
}

#[test]
fn canary_one_copy() {
    canary("one copy: x0", 1, |world| (1..3).for_each(|at| world.pretend_domain(at, "x0")));
}

#[test]
fn canary_one_writer_of_a_disk() {
    canary("one writer of a disk: node1 runs y0", 1, |world| world.pretend_domain(1, "y0"));
}

#[test]
fn canary_fenced_before_recovered() {
    canary("fenced before recovered: ", 60, |world| {
        world.power_faults.lies = true;
        let host = world.host_of("x0").unwrap();
        world.cable(host, true);
    });
}

#[test]
fn canary_nothing_starts_inquorate() {
    canary("nothing starts inquorate: node1", 1, |world| world.pretend_alone(1));
}

#[test]
fn canary_views_never_fall() {
    canary("views never fall: node2", 5, |world| world.pretend_older_view(2));
}

#[test]
fn canary_generations_never_fall() {
    canary("generations never fall: ", 1, |world| {
        let host = world.host_of("x0").unwrap();
        world.pretend_begin(host, 1_000);
        world.pretend_begin(host, 999);
    });
}

#[test]
fn canary_no_vm_in_limbo() {
    let mut world = running_world();
    world.pretend_domain(1, "x0--incoming");
    let unwell = world.converged().unwrap_err();
    assert!(unwell.starts_with("no VM in limbo: x0--incoming on node1"), "{unwell}");
}

#[test]
fn canary_bounded_queues() {
    canary("bounded queues: node1", 1, |world| world.pretend_to_babble(1));
}

#[test]
fn canary_nobody_fences_itself() {
    canary("nobody fences itself: node1", 1, |world| world.pretend_to_fence(1, 1));
}

#[test]
fn canary_no_fencing_of_a_planned_power_down() {
    canary("no fencing of a planned power-down: gateway fences node1", 1, |world| world.pretend_to_have_left(1, 0));
}

#[test]
fn canary_one_restarts_at_a_time() {
    canary("one restarts at a time: node2 does, and node1 is not back", 0, |world| world.pretend_to_restart(1, 2));
}

#[test]
fn canary_one_dc_acts() {
    let mut world = running_world();
    let deposed = (1..4).find(|at| world.dc() != Some(*at)).unwrap();
    world.pretend_to_fence(deposed, 6 - deposed);
    assert!(world.breach().unwrap_or_default().starts_with("one DC a view acts"), "{:?}", world.breach());
}

#[test]
fn canary_no_action_from_a_dead_incarnation() {
    canary("no action from a dead incarnation: gateway", 1, |world| world.pretend_ghost(0, 1));
}

#[test]
fn canary_the_removed_do_not_count() {
    canary("the removed do not count: node1", 1, |world| world.pretend_removed(1));
}

#[test]
fn canary_the_removed_run_nothing() {
    canary("the removed run nothing: ", 0, |world| {
        let host = world.host_of("x0").unwrap();
        world.pretend_removed(host);
        world.pretend_begin(host, 1_000);
    });
}

#[test]
fn canary_who_is_on_trial_has_nothing() {
    canary("who is on trial has nothing: node1 begins Create", 0, |world| {
        world.pretend_on_trial(1);
        world.pretend_begin(1, 1_000);
    });
}

#[test]
fn canary_the_stopped_stay_stopped() {
    canary("what is stopped stays so: ", 0, |world| {
        let host = world.host_of("x0").unwrap();
        world.pretend_all_stopped();
        world.pretend_begin(host, 1_000);
    });
}

#[test]
fn canary_one_roster() {
    canary("one roster: ", 10, |world| {
        world.pretend_other_roster(0);
        world.restart_supervisor(1);
    });
}

#[test]
fn canary_an_old_key_opens_nothing() {
    canary("an old key opens nothing: node1", 0, |world| {
        world.ask_somebody(Request::ChangeKey { key: 2 });
        world.run(Duration::from_secs(30));
        world.pretend_old_key(1);
    });
}

#[test]
fn canary_the_removed_hold_no_key() {
    let mut world = running_world();
    let typed = "node3".to_owned();
    world.ask_to_shut_down(3);
    world.run(Duration::from_secs(30));
    world.ask_somebody(Request::RemoveNode { node: Slot(3), typed });
    world.run(Duration::from_secs(30));
    assert_eq!(world.converged(), Ok(()));
    world.pretend_given(3);
    assert_eq!(world.converged(), Err("node3 is removed, and opens the cluster's key 2".to_owned()));
}

#[test]
fn canary_memory_is_never_oversubscribed() {
    canary("memory is never oversubscribed: ", 1, |world| {
        let host = world.host_of("x0").unwrap();
        (1..9).for_each(|n| world.pretend_domain(host, &format!("y{n}--incoming")));
        world.pretend_begin(host, 1_000);
    });
}

#[test]
fn canary_an_evacuation_ends_by_its_deadline() {
    let mut world = running_world();
    world.note_leave(1);
    world.run(Duration::from_secs(300));
    assert!(world.breach().unwrap_or_default().starts_with("an evacuation ends by its deadline: node1"));
}

fn world_of_gfs2() -> World {
    let mut world = World::of(&Shape { gfs2: true, ..Shape::default() });
    (0..4).for_each(|at| world.power_on(at));
    world.run(Duration::from_secs(60));
    assert_eq!(world.converged(), Ok(()));
    world
}

/// Breaks something of the shared file system in a world where all is well, and demands that it is called by its name.
fn canary_of_gfs2(name: &str, breaks: impl FnOnce(&mut World)) {
    let mut world = world_of_gfs2();
    breaks(&mut world);
    assert!(world.breach().unwrap_or_default().starts_with(name), "{name}: {:?}", world.breach());
}

#[test]
fn canary_one_lockspace() {
    canary_of_gfs2("one lockspace: node1 runs it with other members", |world| {
        world.pretend_lockspace(1, &[1, 2, 3], 99);
    });
}

#[test]
fn canary_a_member_is_dropped_when_it_is_gone() {
    canary_of_gfs2("a member is dropped when it is gone: node1 runs without node3", |world| {
        (1..4).for_each(|at| world.hold_shared(at));
        world.pretend_lockspace(1, &[1, 2], 99);
    });
}

#[test]
fn canary_nobody_comes_back_into_an_epoch() {
    canary_of_gfs2("nobody comes back into an epoch: node2", |world| world.pretend_to_come_back(2));
}

#[test]
fn canary_a_healed_world_shares_its_files() {
    let mut world = world_of_gfs2();
    world.hold_shared(2);
    let unwell = world.converged().unwrap_err();
    assert!(unwell.starts_with("the shared file system of node1 is not well"), "{unwell}");
}

/// Two nodes with room for three more VMs each: whether one's VMs find room on the other is the first question of N+1.
#[test]
fn a_loss_that_could_not_be_absorbed_is_told_by_every_node() {
    for (vms, short) in [(2, vec![]), (8, vec!["node1".to_owned(), "node2".to_owned()])] {
        let mut world = World::new(1, 2, vms);
        (0..3).for_each(|at| world.power_on(at));
        world.run(Duration::from_secs(90));
        assert_eq!(world.converged(), Ok(()));
        for at in 0..3 {
            let told = world.status(at).unwrap().shortfalls;
            assert_eq!(told.iter().map(|short| short.node.clone()).collect::<Vec<_>>(), short, "{vms} VMs, {at}");
            assert!(told.iter().all(|short| !short.vms.is_empty()));
        }
    }
}
