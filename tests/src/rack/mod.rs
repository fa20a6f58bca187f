//! The virtual rack: a gateway, nodes and a switched power bar on one machine, with faults from outside.
//!
//! [`Rack::start`] brings it up, the methods of [`Rack`] are what an operator could do to a real rack (plugs, buttons,
//! cables, keys at a console), and the [`events::Log`] is what he would see. Nothing in the rack knows the cluster's
//! code: it meets the daemon through its serial lines, its network, and its power.

pub mod accel;
pub mod events;
pub mod layout;
mod machine;
mod network;
mod power;
mod serial;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use anyhow::{Result, anyhow};

use accel::Accel;
use events::Log;
use layout::Layout;
use machine::Disk;
use power::{Power, Room};
use serial::Line;

/// How a rack is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// Nodes beside the gateway.
    pub nodes: u8,
    /// VMs.
    pub vms: u8,
    /// Where the rack keeps its files.
    pub dir: PathBuf,
    /// Print events as they happen?
    pub print: bool,
}

/// A running rack; it ends when this is dropped.
#[derive(Debug)]
pub struct Rack {
    /// What stands in it.
    pub layout: Layout,
    /// What happened in it.
    pub log: Arc<Log>,
    power: Power,
    lines: BTreeMap<String, Lines>,
    owner: Option<JoinHandle<()>>,
}

/// A machine's two serial lines.
#[derive(Debug, Clone)]
struct Lines {
    console: Line,
    monitor: Line,
}

impl Rack {
    /// Brings the rack up: network, power bar, machines with their power on. `disks` are those of each machine.
    ///
    /// # Errors
    /// Rights, devices or programs are missing; the text names what and the remedy.
    pub fn start(options: &Options) -> Result<Self> {
        let disks: BTreeMap<String, Vec<Disk>> = BTreeMap::new();
        fs::create_dir_all(&options.dir)?;
        let layout = Layout::new(options.nodes, options.vms);
        let log = Arc::new(Log::create(&options.dir.join("events.log"), options.print)?);
        let accel = Accel::probe();
        log.note(format!("machines run by {}", accel.reason));
        let room = Room {
            layout: layout.clone(),
            accel,
            disks,
            dir: options.dir.clone(),
            log: Arc::clone(&log),
        };
        let (ready, made) = channel();
        let owner = std::thread::Builder::new()
            .name("rack".into())
            .spawn(move || own(room, &ready))?;
        let (power, lines) = made.recv().map_err(|_| anyhow!("the rack's thread ended"))??;
        let rack = Self {
            layout,
            log,
            power,
            lines,
            owner: Some(owner),
        };
        for machine in &rack.layout.machines {
            rack.power.outlet(machine.outlet, true, power::BY_HAND)?;
        }
        Ok(rack)
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        self.power.close();
        if let Some(owner) = self.owner.take() {
            let _ = owner.join();
        }
    }
}

/// The thread in the rack's namespace that owns the machines; it tells through `ready` what it has made.
fn own(room: Room, ready: &Sender<Result<(Power, BTreeMap<String, Lines>)>>) {
    match furnish(room) {
        Ok((power, lines, owner)) => {
            if ready.send(Ok((power, lines))).is_ok() {
                owner.run();
            }
        }
        Err(error) => drop(ready.send(Err(error))),
    }
}

fn furnish(room: Room) -> Result<(Power, BTreeMap<String, Lines>, power::Owner)> {
    network::enter(&room.layout)?;
    let mut lines = BTreeMap::new();
    for machine in &room.layout.machines {
        let log = room.dir.join(format!("{}.console.log", machine.name));
        let console = Line::open(&machine::socket(&machine.name, "com1"), Some(&log))?;
        let monitor = Line::open(&machine::socket(&machine.name, "com2"), None)?;
        lines.insert(machine.name.clone(), Lines { console, monitor });
    }
    let (power, owner) = room.open()?;
    Ok((power, lines, owner))
}
