//! Scripts: what is done to a world, in the words of hardware. People write them as scenarios; a seed makes one too.
//!
//! ```text
//! world 3 nodes 2 vms [2 links] [seed 7] [votes 1,3,1,1] [formed] [fencing snmp storage]   a gateway and three nodes; the
//!       [serial NODE NODE] [1 spare]           first line; the gateway's votes first; a serial line between two of them;
//!                                              a machine more that no cluster.toml names yet
//!       [u1:gateway,node1] [gfs2]              a UPS and what it feeds; what the shared file system is
//! power on|off WHO         power fails WHO after 9 actions         reset WHO
//! kill supervisor WHO      kill supervisor WHO after 9 actions     shut down WHO
//! stall WHO 5s             stall disks of WHO 5s                   clock WHO 13000 ppm (from its next boot on)
//! cut WHO                  join WHO            join everything     the cables; of one network: cut WHO link 1
//! cut NODE -> NODE         split A B | C D     replay 20           one way; groups; old datagrams again
//! weather loss 5 doubling 3 delay 40ms         of a hundred; at most
//! pdu unreachable          pdu refuses         pdu sticks          pdu lies    pdu lags 9s    pdu answers
//! swap the outlets of NODE NODE                                         each feeds what the other did, for good
//! pass the power of NODE on to NODE                                     the outlets of the one switch both, for good
//! storage gone             storage back        fail storage WHO    hang VM             free VM     migrations fail 40
//! shared withdraws|refuses|is deaf|clings|is well WHO                   it gives up, is not mounted, not held, not let go of
//! upgrade WHO              downgrade WHO       no watchdog WHO          from its next boot on
//! medium is full at WHO    medium has room at WHO                   where the newest cluster.toml is kept
//! add node4 [votes 2]      remove node4        old cluster.toml at WHO  node4 is one of the world's `1 spare` at first
//! ups u1 battery           ups u1 lasts 400s   ups u1 low          ups u1 mains               ups u1 unreachable|answers
//! kill VM x0               start VM x0         stop VM x0          migrate VM x0 to NODE      the operator's, from here on
//! put NODE into standby    take NODE out of standby                (or maintenance)           take NODE for off
//! file x0 priority = 90                        in the words of its .ha.toml; two of them: a = 1; b = 2
//! test the fencing of NODE                     change the key
//! restart the nodes one by one                 stop restarting the nodes
//! disarm NODE              arm NODE            disarm the cluster  arm the cluster
//! run 30s                  heal                settle 240s         until all is well, at most
//! ```
//!
//! WHO is `all`, names, `the DC`, or `the host of VM`.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use cluster::config::VmSpec;
use cluster::words::{LinkId, VmName};

use super::lockspace::Trouble;
use super::machine::Dies;
use super::{FAIR, PowerFaults, Shape, Weather, World, operator};

/// How a scripted world went.
#[derive(Debug)]
pub struct Story {
    /// What must never happen and did, or what did not come right again.
    pub failure: Option<String>,
    /// The whole event log.
    pub log: Vec<String>,
    /// How much virtual time went by.
    pub time: Duration,
    /// How things are at the end.
    pub end: Result<(), String>,
}

/// Runs a scenario; what comes back is its event log.
///
/// # Errors
/// A line that is no command, or a breach of an invariant.
pub fn run(script: &str) -> Result<String> {
    let story = tell(script)?;
    if let Some(failure) = story.failure {
        bail!("{failure}\n{}", story.log.concat());
    }
    let end = match story.end {
        Ok(()) => "all is well\n".to_owned(),
        Err(reason) => format!("at the end: {reason}\n"),
    };
    Ok(story.log.concat() + &end)
}

/// Runs a script, as far as nothing breaks.
///
/// # Errors
/// A line that is no command.
pub fn tell(script: &str) -> Result<Story> {
    let mut lines = script.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut world = begin(lines.next().context("an empty script")?)?;
    let mut failure = None;
    for line in lines {
        let unsettled = command(&mut world, line).with_context(|| line.to_owned())?;
        failure = world.breach().map(str::to_owned).or(unsettled);
        if failure.is_some() {
            break;
        }
    }
    let time = Duration::from_millis(world.now().millis());
    Ok(Story { failure, log: world.log().to_vec(), time, end: world.converged() })
}

fn begin(line: &str) -> Result<World> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let Some((&"world", mut words)) = words.split_first() else { bail!("a script begins with: world 3 nodes 2 vms") };
    let (mut shape, mut formed) = (Shape::default(), false);
    while !words.is_empty() {
        words = match words {
            [nodes, "nodes", rest @ ..] => (shape.nodes = nodes.parse()?, rest).1,
            [spare, "spare", rest @ ..] => (shape.spare = spare.parse()?, rest).1,
            [vms, "vms", rest @ ..] => (shape.vms = vms.parse()?, rest).1,
            [links, "links", rest @ ..] => (shape.links = links.parse()?, rest).1,
            ["seed", seed, rest @ ..] => (shape.seed = seed.parse()?, rest).1,
            ["votes", votes, rest @ ..] => {
                shape.votes = votes.split(',').map(str::parse).collect::<Result<_, _>>()?;
                rest
            }
            ["serial", one, other, rest @ ..] => {
                shape.lines.push([(*one).to_owned(), (*other).to_owned()]);
                rest
            }
            ["gfs2", rest @ ..] => (shape.gfs2 = true, rest).1,
            ["formed", rest @ ..] => (formed = true, rest).1,
            [ups, rest @ ..] if ups.contains(':') => {
                let (name, feeds) = ups.split_once(':').context("a UPS")?;
                shape.upses.push((name.to_owned(), feeds.split(',').map(str::to_owned).collect()));
                rest
            }
            ["fencing", levels @ ..] => {
                shape.fencing = levels.iter().map(|level| (*level).to_owned()).collect();
                &[]
            }
            [word, ..] => {
                bail!(
                    "{word}: a world has nodes, spare ones, vms, links, serial lines, a seed, votes, UPSes, gfs2; it is formed; fencing comes last"
                )
            }
            [] => &[],
        };
    }
    let mut world = World::of(&shape);
    if formed {
        (0..world.size())
            .filter(|at| world.is_configured(*at))
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|at| world.power_on(at));
        world.run(Duration::from_secs(30));
        world.forget_log();
    }
    Ok(world)
}

/// Does one thing to the world. What comes back is why a world that was to settle has not.
fn command(world: &mut World, line: &str) -> Result<Option<String>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    if !matches!(words.first(), Some(&"run" | &"settle")) {
        world.note(line);
    }
    match words.as_slice() {
        ["run", time] => world.run(duration(time)?),
        ["settle", time] => return Ok(settle(world, duration(time)?)),
        ["heal"] => heal(world),
        ["weather", "loss", loss, "doubling", doubling, "delay", delay] => {
            let delay_ms = u64::try_from(duration(delay)?.as_millis())?;
            world.weather = Weather { loss: loss.parse()?, doubling: doubling.parse()?, delay_ms };
        }
        ["replay", count] => world.replay(count.parse()?),
        ["pdu", fault @ ..] => world.power_faults = power_faults(fault)?,
        ["swap", "the", "outlets", "of", one, other] => {
            let (one, other) = (machine(world, one)?, machine(world, other)?);
            let feeds = |at: usize| world.wiring.get(&at).cloned().unwrap_or_else(|| vec![at]);
            let (of_one, of_other) = (feeds(one), feeds(other));
            world.wiring.extend([(one, of_other), (other, of_one)]);
        }
        ["pass", "the", "power", "of", one, "on", "to", other] => {
            let (one, other) = (machine(world, one)?, machine(world, other)?);
            world.wiring.insert(one, vec![one, other]);
        }
        ["ups", ups, what @ ..] => world.do_to_ups(ups, what)?,
        ["storage", "gone"] => world.storage_gone = true,
        ["storage", "back"] => world.storage_gone = false,
        ["migrations", "fail", percent] => world.migration_faults = percent.parse()?,
        ["hang", vm] => drop(world.hung.insert(VmName::new(vm).context("a VM's name")?)),
        ["free", vm] => drop(world.hung.remove(&VmName::new(vm).context("a VM's name")?)),
        ["kill", "VM", vm] => world.crash(vm),
        ["file", vm, ..] => {
            let text = line.splitn(3, ' ').nth(2).unwrap_or_default().replace("; ", "\n");
            let spec = VmSpec::parse(&text, &world.config).map_err(|error| anyhow!("{error}"))?;
            world.write_file(VmName::new(vm).context("a VM's name")?, spec);
        }
        ["join", "everything" | "all"] => world.join_all(),
        ["split", groups @ ..] => {
            let groups = groups.split(|word| *word == "|").filter(|group| !group.is_empty());
            let groups: Result<Vec<_>> = groups.map(|group| machines(world, group)).collect();
            world.split(&groups?);
        }
        ["cut", from, "->", to] => way(world, from, to, true)?,
        ["join", from, "->", to] => way(world, from, to, false)?,
        _ => {
            let Some(requests) = operator::requests(world, &words)? else {
                return to_machines(world, &words).map(|()| None);
            };
            requests.into_iter().for_each(|request| world.ask_somebody(request));
        }
    }
    Ok(None)
}

/// What is done to one machine, or to several one after another.
fn to_machines(world: &mut World, words: &[&str]) -> Result<()> {
    match words {
        ["stall", "disks", "of", who @ .., time] => {
            let time = duration(time)?;
            each(world, who, |world, at| world.stall_disks(at, time))
        }
        ["stall", who @ .., time] => {
            let time = duration(time)?;
            each(world, who, |world, at| world.stall(at, time))
        }
        ["clock", who @ .., ppm, "ppm"] => {
            let ppm = ppm.parse()?;
            each(world, who, |world, at| world.drift(at, ppm))
        }
        ["kill", "supervisor", who @ .., "after", count, "actions"] => {
            let count = count.parse()?;
            each(world, who, |world, at| world.dies_after(at, count, Dies::Supervisor))
        }
        ["power", "fails", who @ .., "after", count, "actions"] => {
            let count = count.parse()?;
            each(world, who, |world, at| world.dies_after(at, count, Dies::Machine))
        }
        ["power", "on", who @ ..] => each(world, who, World::power_on),
        ["power", "off", who @ ..] => each(world, who, World::power_off),
        ["kill", "supervisor", who @ ..] => each(world, who, World::restart_supervisor),
        ["fail", "storage", who @ ..] => each(world, who, World::fail_storage),
        ["shared", "withdraws", who @ ..] => each(world, who, World::withdraw_shared),
        ["shared", "refuses", who @ ..] => each(world, who, |world, at| world.trouble_shared(at, Trouble::Refuses)),
        ["shared", "is", "deaf", who @ ..] => each(world, who, |world, at| world.trouble_shared(at, Trouble::Deaf)),
        ["shared", "clings", who @ ..] => each(world, who, |world, at| world.trouble_shared(at, Trouble::Clings)),
        ["shared", "is", "well", who @ ..] => each(world, who, |world, at| world.trouble_shared(at, Trouble::None)),
        ["upgrade", who @ ..] => each(world, who, World::upgrade),
        ["downgrade", who @ ..] => each(world, who, World::downgrade),
        ["old", "cluster.toml", "at", who @ ..] => each(world, who, World::forget_edition),
        ["medium", "is", "full", "at", who @ ..] => each(world, who, |world, at| world.fill_medium(at, true)),
        ["medium", "has", "room", "at", who @ ..] => each(world, who, |world, at| world.fill_medium(at, false)),
        ["no", "watchdog", who @ ..] => each(world, who, World::take_watchdog),
        ["reset", who @ ..] => each(world, who, World::reset),
        ["cut", who @ .., "link", link] => {
            let link = LinkId(link.parse()?);
            each(world, who, |world, at| world.cable_of(at, link, true))
        }
        ["join", who @ .., "link", link] => {
            let link = LinkId(link.parse()?);
            each(world, who, |world, at| world.cable_of(at, link, false))
        }
        ["cut", who @ ..] => each(world, who, |world, at| world.cable(at, true)),
        ["join", who @ ..] => each(world, who, |world, at| world.cable(at, false)),
        ["shut", "down", who @ ..] => each(world, who, World::ask_to_shut_down),
        _ => bail!("not a command"),
    }
}

fn power_faults(words: &[&str]) -> Result<PowerFaults> {
    let none = PowerFaults::default();
    Ok(match words {
        ["answers"] => none,
        ["unreachable"] => PowerFaults { unreachable: true, ..none },
        ["refuses"] => PowerFaults { refuses: true, ..none },
        ["sticks"] => PowerFaults { sticks: true, ..none },
        ["lies"] => PowerFaults { lies: true, ..none },
        ["lags", time] => PowerFaults { lag: duration(time)?, ..none },
        _ => bail!("what does the power switch do?"),
    })
}

/// Nothing is wrong any more, and everything has power.
fn heal(world: &mut World) {
    world.weather = FAIR;
    world.power_faults = PowerFaults::default();
    world.migration_faults = 0;
    world.storage_gone = false;
    world.hung.clear();
    world.join_all();
    world.heal_upses();
    for at in 0..world.size() {
        world.trouble_shared(at, Trouble::None);
        world.fill_medium(at, false);
        world.power_on(at);
    }
}

/// Waits until all is well. Whoever is shut down in good order meanwhile is switched on again, and the operator takes back
/// what is set aside.
fn settle(world: &mut World, patience: Duration) -> Option<String> {
    let end = world.now() + patience;
    let mut unwell = world.converged();
    while unwell.is_err() && world.now() < end && world.breach().is_none() {
        world.run(Duration::from_secs(5));
        (0..world.size()).for_each(|at| world.power_on(at));
        world.put_right();
        unwell = world.converged();
    }
    let unwell = unwell.err()?;
    Some(if unwell.starts_with("no VM in limbo") { unwell } else { format!("not healed: {unwell}") })
}

fn way(world: &mut World, from: &str, to: &str, cut: bool) -> Result<()> {
    for from in machines(world, &[from])? {
        for to in machines(world, &[to])? {
            world.way(from, to, cut);
        }
    }
    Ok(())
}

fn each(world: &mut World, names: &[&str], mut act: impl FnMut(&mut World, usize)) -> Result<()> {
    for at in machines(world, names)? {
        act(world, at);
    }
    Ok(())
}

/// Machines by their names. Where there is no DC, or a VM runs nowhere, nobody is meant.
pub(super) fn machines(world: &World, names: &[&str]) -> Result<Vec<usize>> {
    match names {
        ["all"] => Ok((0..world.size()).filter(|at| world.is_configured(*at)).collect()),
        ["the", "host", "of", vm] => Ok(world.host_of(vm).into_iter().collect()),
        ["the", "DC"] => Ok(world.dc().into_iter().collect()),
        _ => {
            ensure!(!names.is_empty(), "which machine?");
            names.iter().map(|name| world.find(name).with_context(|| format!("there is no {name}"))).collect()
        }
    }
}

pub(super) fn machine(world: &World, name: &str) -> Result<usize> {
    world.find(name).with_context(|| format!("there is no {name}"))
}

pub(super) fn duration(text: &str) -> Result<Duration> {
    let millis = match text.strip_suffix("ms") {
        Some(millis) => millis.parse()?,
        None => 1000 * text.strip_suffix('s').context("a time is written 30s or 250ms")?.parse::<u64>()?,
    };
    Ok(Duration::from_millis(millis))
}
