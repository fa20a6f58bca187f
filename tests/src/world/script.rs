//! Scripted worlds: commands in the words of hardware, the event log as the answer.
//!
//! ```text
//! world 3 nodes 2 vms        a gateway and three nodes; the first line (on two networks: world 3 nodes 2 vms 2 links)
//! power on all | NODE ...    power off NODE ...      reset NODE ...
//! cut NODE ...               join NODE ...           the cables
//! kill supervisor NODE       stall NODE 5s           shut down NODE
//! cut NODE link 1            join NODE link 1        the cable to one network, counted from 0
//! fail storage NODE ...
//! pdu unreachable            pdu answers
//! cut the host of VM         power off the host of VM
//! run 30s
//! ```

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use cluster::words::LinkId;

use super::World;

/// Runs a script; what comes back is its event log.
///
/// # Errors
/// A line that is no command, or a breach of an invariant.
pub fn run(script: &str) -> Result<String> {
    let mut lines = script.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().context("an empty script")?;
    let words: Vec<&str> = first.split_whitespace().collect();
    let (nodes, vms, links) = match words.as_slice() {
        ["world", nodes, "nodes", vms, "vms"] => (nodes, vms, "1"),
        ["world", nodes, "nodes", vms, "vms", links, "links"] => (nodes, vms, *links),
        _ => bail!("a script begins with: world 3 nodes 2 vms"),
    };
    let mut world = World::with_links(1, nodes.parse()?, vms.parse()?, links.parse()?);
    for line in lines {
        command(&mut world, line).with_context(|| line.to_owned())?;
        if let Some(breach) = world.breach() {
            bail!("{breach}\n{}", world.log().concat());
        }
    }
    let end = match world.converged() {
        Ok(()) => "all is well\n".to_owned(),
        Err(reason) => format!("at the end: {reason}\n"),
    };
    Ok(world.log().concat() + &end)
}

fn command(world: &mut World, line: &str) -> Result<()> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["run", time] => world.run(duration(time)?),
        ["pdu", "unreachable"] => world.power_faults.unreachable = true,
        ["pdu", "answers"] => world.power_faults.unreachable = false,
        ["migrations", "fail", percent] => world.migration_faults = percent.parse()?,
        ["stall", node, time] => {
            let time = duration(time)?;
            for at in machines(world, &[node])? {
                world.stall(at, time);
            }
        }
        ["power", "on", rest @ ..] => each(world, rest, World::power_on)?,
        ["kill", "supervisor", rest @ ..] => each(world, rest, World::restart_supervisor)?,
        ["power", "off", rest @ ..] => each(world, rest, World::power_off)?,
        ["fail", "storage", rest @ ..] => each(world, rest, World::fail_storage)?,
        ["reset", rest @ ..] => each(world, rest, World::reset)?,
        ["cut", rest @ .., "link", link] => {
            let link = LinkId(link.parse()?);
            each(world, rest, |world, at| world.cable_of(at, link, true))?;
        }
        ["join", rest @ .., "link", link] => {
            let link = LinkId(link.parse()?);
            each(world, rest, |world, at| world.cable_of(at, link, false))?;
        }
        ["cut", rest @ ..] => each(world, rest, |world, at| world.cable(at, true))?,
        ["join", rest @ ..] => each(world, rest, |world, at| world.cable(at, false))?,
        ["shut", "down", rest @ ..] => each(world, rest, World::ask_to_shut_down)?,
        _ => bail!("not a command"),
    }
    Ok(())
}

fn each(world: &mut World, names: &[&str], mut act: impl FnMut(&mut World, usize)) -> Result<()> {
    for at in machines(world, names)? {
        act(world, at);
    }
    Ok(())
}

fn machines(world: &World, names: &[&str]) -> Result<Vec<usize>> {
    match names {
        ["all"] => Ok((0..world.size()).collect()),
        ["the", "host", "of", vm] => {
            let host = world.host_of(vm).with_context(|| format!("{vm} runs nowhere"))?;
            Ok(vec![host])
        }
        ["the", "DC"] => Ok(vec![world.dc().context("there is no DC")?]),
        _ => {
            ensure!(!names.is_empty(), "which machine?");
            names.iter().map(|name| world.find(name).with_context(|| format!("there is no {name}"))).collect()
        }
    }
}

fn duration(text: &str) -> Result<Duration> {
    let seconds = text.strip_suffix('s').context("a time is written 30s")?;
    Ok(Duration::from_secs(seconds.parse()?))
}
