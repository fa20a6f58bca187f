//! Random worlds: faults from the seed, then everything is healed and must come right again.

use std::time::Duration;

use cluster::words::LinkId;

use super::{Chance, PowerFaults, Weather, World};

/// How a random world went.
#[derive(Debug)]
pub struct Story {
    /// What must never happen and did, or what did not come right again.
    pub failure: Option<String>,
    /// The whole event log.
    pub log: Vec<String>,
    /// How much virtual time went by.
    pub time: Duration,
}

/// How long a healed world may take to come right: fencing, a boot, a formation and the VMs' starts, one after another.
const PATIENCE: Duration = Duration::from_secs(240);

/// Lives through the world of one seed, whose nodes are connected by one network.
pub fn live(seed: u64) -> Story {
    live_on(seed, 1)
}

/// Lives through the world of one seed, on so many networks.
pub fn live_on(seed: u64, links: u8) -> Story {
    let mut dice = Chance::new(seed ^ 0x0005_eed0_fa11_da75);
    let nodes = u8::try_from(1 + dice.below(5)).unwrap_or(3);
    let vms = u8::try_from(dice.below(4)).unwrap_or(2);
    let mut world = World::with_links(seed, nodes, vms, links);
    world.weather =
        Weather { loss: dice.below(4) * dice.below(6), doubling: dice.below(10), delay_ms: 1 + dice.below(120) };
    world.migration_faults = dice.below(40);
    for at in 0..world.size() {
        if !dice.happens(10) {
            world.power_on(at);
        }
    }
    world.run(Duration::from_secs(40 + dice.below(60)));
    for _ in 0..3 + dice.below(9) {
        if links > 1 && dice.happens(15) {
            world.fail_storage(usize::try_from(dice.below(u64::from(nodes) + 1)).unwrap_or(0));
        } else if links > 1 && dice.happens(40) {
            let at = usize::try_from(dice.below(u64::from(nodes) + 1)).unwrap_or(0);
            let link = u8::try_from(dice.below(links.into())).unwrap_or(0);
            world.cable_of(at, LinkId(link), dice.happens(60));
        } else {
            fault(&mut world, &mut dice);
        }
        world.run(Duration::from_millis(dice.below(15_000)));
    }
    heal(&mut world);
    let end = world.now() + PATIENCE;
    let mut unwell = world.converged();
    while unwell.is_err() && world.now() < end && world.breach().is_none() {
        world.run(Duration::from_secs(5));
        // Whoever was shut down in good order is switched on again.
        (0..world.size()).for_each(|at| world.power_on(at));
        unwell = world.converged();
    }
    let failure = world.breach().map(str::to_owned).or_else(|| unwell.err().map(|why| format!("not healed: {why}")));
    Story { failure, log: world.log().to_vec(), time: Duration::from_millis(world.now().millis()) }
}

fn fault(world: &mut World, dice: &mut Chance) {
    let size = u64::try_from(world.size()).unwrap_or(1);
    let at = usize::try_from(dice.below(size)).unwrap_or(0);
    match dice.below(10) {
        0 => world.power_off(at),
        1 => world.power_on(at),
        2 => world.reset(at),
        3 => world.cable(at, true),
        4 => world.cable(at, false),
        5 => world.restart_supervisor(at),
        6 => world.stall(at, Duration::from_millis(dice.below(12_000))),
        7 => world.ask_to_shut_down(at),
        8 => world.power_faults.unreachable = dice.happens(50),
        _ => (0..world.size()).for_each(|other| world.cable(other, dice.happens(30))),
    }
}

fn heal(world: &mut World) {
    world.weather = Weather { loss: 0, doubling: 0, delay_ms: 3 };
    world.power_faults = PowerFaults::default();
    world.migration_faults = 0;
    for at in 0..world.size() {
        world.cable(at, false);
        world.power_on(at);
    }
}
