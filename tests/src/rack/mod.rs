//! The virtual rack: a gateway, nodes and a switched power bar on one machine, with faults from outside.
//!
//! [`Rack::start`] brings it up, the methods of [`Rack`] are what an operator could do to a real rack (plugs, buttons,
//! cables, keys at a console), and the [`events::Log`] is what he would see. Nothing in the rack knows the cluster's
//! code: it meets the daemon through its serial lines, its network, and its power.

pub mod accel;
pub mod artefacts;
pub mod control;
pub mod events;
pub mod layout;
pub mod leftovers;
pub mod machine;
pub mod menu;
pub mod monitor;
pub mod network;
pub mod outlets;
pub mod power;
pub mod probe;
pub mod serial;
pub mod status;
pub mod ups;
pub mod volumes;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use accel::Accel;
use events::{Event, Log, Mark, What};
use layout::{Firmware, GATEWAY, Layout, NULL_MODEM, PDU_CABLE, PDU_NAME};
use menu::Menu;
use monitor::Monitor;
use power::{BY_HAND, Power, Room, Stand};
use probe::Probe;
use serial::{Line, NullModem};
use status::Status;
use ups::{Supply, Upses};

use crate::pdu::{Pdu, SerialLine};

/// How long the gateway may take to let the nodes in: as a cluster may boot.
const WINDOW: Duration = Duration::from_mins(15);
/// Between two looks at a console on which nobody is yet.
const LOOK: Duration = Duration::from_secs(1);

/// How UEFI's shell asks for a command.
const UEFI_SHELL: &str = "Shell>";

/// How a rack is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// Nodes beside the gateway.
    pub nodes: u8,
    /// VMs.
    pub vms: u8,
    /// Whether the last of them is suspended where its node leaves, and not moved.
    pub suspends: bool,
    /// Where the rack keeps its files.
    pub dir: PathBuf,
    /// Print events as they happen?
    pub print: bool,
}

/// What can be done to a machine's power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Push {
    /// Pull the plug: the outlet goes off.
    Off,
    /// The outlet goes on; if it is on, the power button of a machine that switched itself off is pressed.
    On,
    /// The outlet goes off and on.
    Cycle,
}

/// A running rack; it ends when this is dropped or closed.
#[derive(Debug)]
pub struct Rack {
    /// What stands in it.
    pub layout: Layout,
    /// What happened in it.
    pub log: Arc<Log>,
    dir: PathBuf,
    power: Power,
    monitor: Monitor,
    consoles: BTreeMap<String, Line>,
    probes: BTreeMap<String, Probe>,
    pdu: Arc<Pdu>,
    upses: Upses,
    namespace: File,
    /// Whoever waits at its other end goes when the rack does.
    _open: Sender<()>,
    owner: Mutex<Option<JoinHandle<()>>>,
}

impl Rack {
    /// Brings the rack up: image, disks, network, power bar, and machines with their power on.
    ///
    /// # Errors
    /// Rights, devices, programs or artefacts are missing; the text names what, and the remedy.
    pub fn start(options: &Options) -> Result<Self> {
        fs::create_dir_all(&options.dir)?;
        if let Some(pid) = leftovers::running(&options.dir).first() {
            bail!("a rack runs here already (process {pid}): see `cargo rack status`, end it with `cargo rack down`");
        }
        leftovers::clean(&options.dir)?;
        leftovers::record(&options.dir, &[])?;
        Self::build(options).map_err(|error| match leftovers::clean(&options.dir) {
            Ok(_) => error,
            Err(and) => error.context(format!("and its files could not be removed: {and}")),
        })
    }

    fn build(options: &Options) -> Result<Self> {
        let run_dir = leftovers::run_dir(&options.dir);
        fs::create_dir_all(&run_dir)?;
        let mut layout = Layout::new(options.nodes, options.vms);
        if let Some(last) = layout.vms.last_mut() {
            last.suspends = options.suspends;
        }
        let disks = artefacts::make(&layout, &run_dir)?;
        let log = Arc::new(Log::create(&options.dir.join("events.log"), options.print)?);
        let accel = Accel::probe();
        log.note(format!("machines run by {}", accel.reason));
        let (cables, dir) = (BTreeMap::new(), options.dir.clone());
        let room = Room { layout: layout.clone(), accel, disks, cables, dir, log: Arc::clone(&log) };
        let (ready, made) = channel();
        let owner = std::thread::Builder::new().name("rack".into()).spawn(move || own(room, &ready))?;
        let Furniture { power, monitor, consoles, probes, pdu, upses, namespace } =
            made.recv().map_err(|_| anyhow!("the rack's thread ended"))??;
        let owner = Mutex::new(Some(owner));
        let dir = options.dir.clone();
        let (open, closed) = channel();
        let rack =
            Self { layout, log, dir, power, monitor, consoles, probes, pdu, upses, namespace, _open: open, owner };
        for machine in &rack.layout.machines {
            rack.power.outlet(machine.outlet, true, BY_HAND)?;
        }
        rack.let_nodes_in(usize::from(options.nodes))?;
        rack.boot_again(closed)?;
        Ok(rack)
    }

    /// An operator at the gateway's console, who opens a window for the nodes as soon as there is a menu.
    fn let_nodes_in(&self, nodes: usize) -> Result<()> {
        let (menu, log) = (self.menu(GATEWAY)?, Arc::clone(&self.log));
        std::thread::Builder::new().name("operator".into()).spawn(move || {
            let deadline = log.now() + WINDOW;
            loop {
                match menu.comes().and_then(|()| menu.open_window(nodes)) {
                    Ok(()) => return log.note(format!("the gateway's menu lets the next {nodes} machines in")),
                    Err(error) if log.now() > deadline => {
                        return log.note(format!("no window for the nodes: {error:#}"));
                    }
                    // It still boots.
                    Err(_) => std::thread::sleep(LOOK),
                }
            }
        })?;
        Ok(())
    }

    /// Has UEFI begin again where it found nothing to boot, as firmware should be set to: OVMF goes to its shell.
    fn boot_again(&self, closed: Receiver<()>) -> Result<()> {
        let uefi = self.layout.machines.iter().filter(|machine| machine.firmware == Firmware::Uefi);
        let consoles: Vec<Line> = uefi.map(|machine| self.console(&machine.name)).collect::<Result<_>>()?;
        std::thread::Builder::new().name("firmware".into()).spawn(move || {
            while closed.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                for console in consoles.iter().filter(|console| console.screen().contains(UEFI_SHELL)) {
                    console.write(b"reset\r");
                }
            }
        })?;
        Ok(())
    }

    /// How everything stands.
    pub fn status(&self) -> Status {
        Status::of(self)
    }

    /// The first event since `mark` that `is` it.
    ///
    /// # Errors
    /// It did not happen within `limit`; the text names `what` was waited for.
    pub fn wait(&self, mark: Mark, limit: Duration, what: &str, is: impl FnMut(&Event) -> bool) -> Result<Event> {
        self.log.wait(mark, limit, is).with_context(|| format!("did not happen within {} s: {what}", limit.as_secs()))
    }

    /// Waits until the status is as wanted, looking at every event and at least once a second.
    ///
    /// # Errors
    /// It is not within `limit`; the text names `what` was waited for, and shows the status.
    pub fn until(&self, limit: Duration, what: &str, mut is: impl FnMut(&Status) -> bool) -> Result<Status> {
        let deadline = self.log.now() + limit;
        loop {
            let status = self.status();
            if is(&status) {
                return Ok(status);
            }
            if self.log.now() > deadline {
                bail!("not so within {} s: {what}\n{status}", limit.as_secs());
            }
            let _ = self.log.wait(self.log.mark(), Duration::from_secs(1), |_| true);
        }
    }

    /// Does it to the power of a node.
    ///
    /// # Errors
    /// No such node, or its machine does not start.
    pub fn power(&self, node: &str, push: Push) -> Result<()> {
        let outlet = self.layout.machine(node).with_context(|| format!("there is no machine {node}"))?.outlet;
        if push != Push::On {
            self.power.outlet(outlet, false, BY_HAND)?;
        }
        if push != Push::Off {
            self.power.outlet(outlet, true, BY_HAND)?;
            if self.power.stand(node) == Some(Stand::SwitchedOff) {
                self.log.push(node, What::Note("power button pressed".into()));
                self.power.button(node)?;
            }
        }
        Ok(())
    }

    /// Stops a node's processors for good, as a machine that hangs: its power stays on, and it answers nothing.
    ///
    /// # Errors
    /// It does not run.
    pub fn crash(&self, node: &str) -> Result<()> {
        self.power.hang(node)
    }

    /// Pulls or plugs a node's cluster cable, or the PDU's network cable: its console can still be reached.
    ///
    /// # Errors
    /// No such node.
    pub fn cable(&self, node: &str, joined: bool) -> Result<()> {
        if node != PDU_NAME {
            return self.power.cable(node, joined);
        }
        self.pdu.set(|faults| faults.unplugged = !joined);
        self.log.push(PDU_NAME, What::Cable { joined });
        Ok(())
    }

    /// Cuts or joins the way between two nodes on the cluster network; both still have everybody else there, and their serial
    /// line.
    ///
    /// # Errors
    /// No such node.
    pub fn way(&self, one: &str, other: &str, joined: bool) -> Result<()> {
        self.power.way([one, other], joined)
    }

    /// Makes a UPS be on battery, nearly empty, or on mains.
    ///
    /// # Errors
    /// There is no such UPS, or upsd refuses.
    pub fn ups(&self, ups: &str, supply: Supply) -> Result<()> {
        self.upses.set(ups, supply)
    }

    /// An operator at the node's console.
    ///
    /// # Errors
    /// No such node.
    pub fn menu(&self, node: &str) -> Result<Menu> {
        Ok(Menu::at(self.console(node)?))
    }

    /// The node's console line.
    ///
    /// # Errors
    /// No such node.
    pub fn console(&self, node: &str) -> Result<Line> {
        self.consoles.get(node).cloned().with_context(|| format!("there is no machine {node}"))
    }

    /// Does something in the rack's network, as somebody who has plugged a machine in there.
    ///
    /// # Errors
    /// Those of `act`.
    pub fn inside<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let guest = scope.spawn(|| network::follow(&self.namespace).and_then(|()| act()));
            guest.join().map_err(|_| anyhow!("what was done in the rack's network panicked"))?
        })
    }

    /// Where the rack keeps its files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What is on a VM's disk.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn vm_disk(&self, vm: &layout::Vm) -> Result<Vec<u8>> {
        artefacts::read_vm_disk(&self.layout, &leftovers::run_dir(&self.dir), vm)
    }

    /// The file that is the shared file system's disk.
    pub fn shared_disk(&self) -> PathBuf {
        artefacts::shared_disk(&leftovers::run_dir(&self.dir))
    }

    /// Replaces the disk that the gateway boots from by one that is written anew, while it is off.
    ///
    /// # Errors
    /// As [`artefacts::replace_gateway_disk`].
    pub fn replace_gateway_disk(&self) -> Result<()> {
        artefacts::replace_gateway_disk(&leftovers::run_dir(&self.dir))
    }

    /// The file that is the disk of the gateway's which nothing needs.
    pub fn spare_disk(&self) -> PathBuf {
        artefacts::spare_disk(&leftovers::run_dir(&self.dir))
    }

    /// Cuts all power, and removes all files but the logs.
    pub fn close(&self) {
        self.power.close();
        let owner = self.owner.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        if let Some(owner) = owner {
            let _ = owner.join();
            if let Err(error) = leftovers::clean(&self.dir) {
                self.log.note(format!("cannot remove the rack's files: {error}"));
            }
        }
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        self.close();
    }
}

/// What is made inside the rack's namespace.
struct Furniture {
    power: Power,
    monitor: Monitor,
    consoles: BTreeMap<String, Line>,
    probes: BTreeMap<String, Probe>,
    pdu: Arc<Pdu>,
    upses: Upses,
    namespace: File,
}

/// The thread in the rack's namespace that owns the machines; it tells through `ready` what it has made.
fn own(room: Room, ready: &Sender<Result<Furniture>>) {
    match furnish(room) {
        Ok((furniture, owner)) => {
            if ready.send(Ok(furniture)).is_ok() {
                owner.run();
            }
        }
        Err(error) => drop(ready.send(Err(error))),
    }
}

fn furnish(mut room: Room) -> Result<(Furniture, power::Owner)> {
    let namespace = network::enter(&room.layout)?;
    let monitor = Monitor::new(Arc::clone(&room.log));
    let vms: Vec<String> = room.layout.vms.iter().map(|vm| vm.name.clone()).collect();
    let mut consoles = BTreeMap::new();
    for machine in room.layout.all() {
        let log = room.dir.join(format!("{}.console.log", machine.name));
        let console = Line::open(&machine::socket(&machine.name, "com1"), Some(&log))?;
        consoles.insert(machine.name.clone(), console);
        let line = Line::open(&machine::socket(&machine.name, machine::MONITOR), None)?;
        monitor.follow(&machine.name, line, vms.clone())?;
    }
    let probe = |vm: &layout::Vm| Ok((vm.name.clone(), Probe::start(vm, Arc::clone(&room.log))?));
    let probes: BTreeMap<String, Probe> = room.layout.vms.iter().map(probe).collect::<Result<_>>()?;
    let (layout, log) = (room.layout.clone(), Arc::clone(&room.log));
    let console = SerialLine::open()?;
    let path = console.path().display();
    room.cables.insert(PDU_CABLE.0.to_owned(), format!("serial,id={},path={path}", machine::THIRD));
    if room.layout.has_null_modem() {
        let sockets = NULL_MODEM.1.map(|name| machine::socket(name, machine::THIRD));
        NullModem::lay([&sockets[0], &sockets[1]])?;
        for (name, socket) in NULL_MODEM.1.iter().zip(&sockets) {
            room.cables.insert((*name).to_owned(), Line::chardev(machine::THIRD, socket));
        }
    }
    let run_dir = leftovers::run_dir(&room.dir);
    let (power, owner) = room.open()?;
    let pdu = outlets::start(&layout, power.clone(), Arc::clone(&log), console)?;
    let upses = ups::start(&layout, power.clone(), log, &run_dir.join("ups"))?;
    Ok((Furniture { power, monitor, consoles, probes, pdu, upses, namespace }, owner))
}
