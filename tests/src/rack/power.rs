//! The power of the rack: outlets, and the machines behind them.
//!
//! One thread owns every QEMU process: it starts them (so that they die with it), and what cuts them is carried out and
//! *over* when it answers. So an outlet that reads as off has no machine running behind it.
//!
//! A machine runs from its outlet's power coming until the power goes or the machine switches itself off; then it stays
//! off until its power button is pressed or its outlet was off and on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::accel::Accel;
use super::events::{Log, What};
use super::layout::Layout;
use super::leftovers;
use super::machine::{self, Disk, Qmp, Report};
use super::network;

/// Who switched an outlet: the operator of the rack.
pub const BY_HAND: &str = "hand";

/// Resets of a machine that are closer together than this are one.
const ONE_RESET: Duration = Duration::from_secs(1);

/// How a machine stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    /// Its QEMU runs.
    Runs,
    /// Its QEMU runs, stopped for good.
    Hangs,
    /// It switched itself off, with its outlet on.
    SwitchedOff,
    /// Its outlet is off.
    NoPower,
}

/// What somebody wants done, and waits for.
enum Order {
    Outlet { outlet: u8, on: bool, by: String },
    Button { machine: String },
    Hang { machine: String },
    Cable { machine: String, joined: bool },
    Way { machines: [String; 2], joined: bool },
    Close,
}

enum Message {
    Order(Order, SyncSender<Result<()>>),
    Report(String, Report),
}

/// The handle on the power of the rack.
#[derive(Clone)]
pub struct Power {
    messages: Sender<Message>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    outlets: BTreeMap<u8, bool>,
    stands: BTreeMap<String, Stand>,
    pids: BTreeMap<String, u32>,
}

impl std::fmt::Debug for Power {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Power").finish_non_exhaustive()
    }
}

/// What the power room is made with.
#[derive(Debug)]
pub struct Room {
    /// What stands in the rack.
    pub layout: Layout,
    /// How it computes.
    pub accel: Accel,
    /// The disks of each machine.
    pub disks: BTreeMap<String, Vec<Disk>>,
    /// QEMU's `-chardev` for a machine's third serial line ([`machine::THIRD`]), where it has one.
    pub cables: BTreeMap<String, String>,
    /// Where files go.
    pub dir: PathBuf,
    /// Where events go.
    pub log: Arc<Log>,
}

impl Room {
    /// All outlets off. The calling thread must then [`Owner::run`].
    ///
    /// # Errors
    /// A machine's control line cannot be opened.
    pub fn open(self) -> Result<(Power, Owner)> {
        let (messages, inbox) = channel();
        let (report, reports) = channel();
        let mut qmp = BTreeMap::new();
        let mut state = State::default();
        for machine in self.layout.all() {
            qmp.insert(machine.name.clone(), Qmp::open(&machine.name, report.clone())?);
            state.outlets.insert(machine.outlet, false);
            state.stands.insert(machine.name.clone(), Stand::NoPower);
        }
        let relay = messages.clone();
        std::thread::Builder::new().name("qmp reports".into()).spawn(move || {
            for (name, report) in reports {
                let _ = relay.send(Message::Report(name, report));
            }
        })?;
        let state = Arc::new(Mutex::new(state));
        let owner = Owner { room: self, qmp, inbox, state: Arc::clone(&state), running: BTreeMap::new() };
        Ok((Power { messages, state }, owner))
    }
}

impl Power {
    /// Switches an outlet; when this returns, the machine behind it is gone, or started.
    ///
    /// # Errors
    /// QEMU does not start, or the rack is closed.
    pub fn outlet(&self, outlet: u8, on: bool, by: &str) -> Result<()> {
        self.order(Order::Outlet { outlet, on, by: by.into() })
    }

    /// Presses the power button of a machine that switched itself off.
    ///
    /// # Errors
    /// As for [`Power::outlet`].
    pub fn button(&self, machine: &str) -> Result<()> {
        self.order(Order::Button { machine: machine.into() })
    }

    /// Stops a machine's processors for good, with its power on.
    ///
    /// # Errors
    /// It does not run, or the rack is closed.
    pub fn hang(&self, machine: &str) -> Result<()> {
        self.order(Order::Hang { machine: machine.into() })
    }

    /// Pulls or plugs a machine's cluster cable.
    ///
    /// # Errors
    /// No such machine, or `ip` refuses.
    pub fn cable(&self, machine: &str, joined: bool) -> Result<()> {
        self.order(Order::Cable { machine: machine.into(), joined })
    }

    /// Cuts or joins the way between two machines on the cluster network.
    ///
    /// # Errors
    /// No such machine, or `ip` refuses.
    pub fn way(&self, machines: [&str; 2], joined: bool) -> Result<()> {
        self.order(Order::Way { machines: machines.map(Into::into), joined })
    }

    /// Cuts all power and ends the owner.
    pub fn close(&self) {
        // Closed before is closed.
        let _ = self.order(Order::Close);
    }

    /// Is the outlet on? `None` if there is no such outlet.
    pub fn is_on(&self, outlet: u8) -> Option<bool> {
        lock(&self.state).outlets.get(&outlet).copied()
    }

    /// How the machine stands. `None` if there is no such machine.
    pub fn stand(&self, machine: &str) -> Option<Stand> {
        lock(&self.state).stands.get(machine).copied()
    }

    fn order(&self, order: Order) -> Result<()> {
        let (done, answer) = sync_channel(1);
        self.messages.send(Message::Order(order, done)).ok().context("the rack is closed")?;
        answer.recv().context("the rack is closed")?
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Owns the QEMU processes.
pub struct Owner {
    room: Room,
    qmp: BTreeMap<String, Qmp>,
    inbox: Receiver<Message>,
    state: Arc<Mutex<State>>,
    running: BTreeMap<String, Running>,
}

impl std::fmt::Debug for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Owner").finish_non_exhaustive()
    }
}

impl Owner {
    /// Carries out orders until the rack is closed.
    pub fn run(mut self) {
        while let Ok(message) = self.inbox.recv() {
            match message {
                Message::Report(name, report) => self.reported(&name, &report),
                Message::Order(order, done) => {
                    let last = matches!(order, Order::Close);
                    // Who asked may have gone.
                    let _ = done.send(self.carry_out(order));
                    if last {
                        return;
                    }
                }
            }
        }
    }

    fn carry_out(&mut self, order: Order) -> Result<()> {
        match order {
            Order::Outlet { outlet, on, by } => self.switch(outlet, on, by),
            Order::Button { machine } => match self.stand(&machine) {
                Some(Stand::SwitchedOff) => self.start(&machine),
                Some(Stand::NoPower) => bail!("{machine} has no power: its outlet is off"),
                Some(Stand::Runs | Stand::Hangs) => Ok(()),
                None => bail!("there is no machine {machine}"),
            },
            Order::Hang { machine } => {
                if !self.qmp.get(&machine).is_some_and(Qmp::stop) {
                    bail!("{machine} does not run");
                }
                lock(&self.state).stands.insert(machine.clone(), Stand::Hangs);
                self.room.log.push(machine, What::Hung);
                Ok(())
            }
            Order::Cable { machine, joined } => {
                let tap = &self.room.layout.machine(&machine).context("there is no such machine")?.cluster.tap;
                network::cable(tap, joined)?;
                self.room.log.push(machine, What::Cable { joined });
                Ok(())
            }
            Order::Way { machines: [one, other], joined } => {
                let tap = |name: &str| {
                    let machine = self.room.layout.machine(name).context("there is no such machine")?;
                    anyhow::Ok(machine.cluster.tap.as_str())
                };
                network::way([tap(&one)?, tap(&other)?], joined)?;
                self.room.log.push(one, What::Way { other, joined });
                Ok(())
            }
            Order::Close => {
                for name in self.running.keys().cloned().collect::<Vec<_>>() {
                    self.cut(&name);
                }
                Ok(())
            }
        }
    }

    fn switch(&mut self, outlet: u8, on: bool, by: String) -> Result<()> {
        let machine = self.room.layout.behind(outlet).context("nothing hangs on that outlet")?.name.clone();
        let was = lock(&self.state).outlets.get(&outlet).copied();
        if !on {
            self.cut(&machine);
            lock(&self.state).stands.insert(machine.clone(), Stand::NoPower);
        }
        lock(&self.state).outlets.insert(outlet, on);
        if was != Some(on) {
            self.room.log.push(&machine, What::Outlet { outlet, on, by });
        }
        if on && was == Some(false) { self.start(&machine) } else { Ok(()) }
    }

    fn start(&mut self, name: &str) -> Result<()> {
        let machine = self.room.layout.machine(name).context("there is no such machine")?;
        let disks = self.room.disks.get(name).map(Vec::as_slice).unwrap_or_default();
        let messages = self.room.dir.join(format!("{name}.qemu.log"));
        let cable = self.room.cables.get(name).map(String::as_str);
        let child = machine::start(machine, &self.room.accel, disks, cable, &messages)?;
        {
            let mut state = lock(&self.state);
            state.stands.insert(name.into(), Stand::Runs);
            state.pids.insert(name.into(), child.id());
        }
        self.running.insert(name.into(), Running { child, powered_off: false, reset: None });
        let pids: Vec<u32> = lock(&self.state).pids.values().copied().collect();
        leftovers::record(&self.room.dir, &pids)?;
        self.room.log.push(name, What::Started);
        Ok(())
    }

    /// Cuts the power; returns when the process is gone.
    fn cut(&mut self, name: &str) {
        if let Some(mut running) = self.running.remove(name) {
            // Fails only for a process that has ended by itself.
            let _ = running.child.kill();
            let _ = running.child.wait();
            lock(&self.state).pids.remove(name);
        }
    }

    fn reported(&mut self, name: &str, report: &Report) {
        // A report of a machine that was cut in the meantime is of no interest.
        let Some(running) = self.running.get_mut(name) else {
            return;
        };
        match report {
            Report::GuestPoweredOff => running.powered_off = true,
            // One reset of a machine's firmware is several of QEMU's.
            Report::Reset if running.reset.replace(Instant::now()).is_some_and(|at| at.elapsed() < ONE_RESET) => {}
            Report::Reset => self.room.log.push(name, What::Reset),
            Report::Ended => {
                // The control line of a QEMU that was cut may be reported closed when the next one runs already.
                let Ok(Some(status)) = wait_briefly(&mut running.child) else {
                    return;
                };
                let what = if running.powered_off && status.success() {
                    What::PoweredItselfOff
                } else {
                    What::Broken(format!("QEMU ended: {status}; see {name}.qemu.log"))
                };
                self.running.remove(name);
                {
                    let mut state = lock(&self.state);
                    state.pids.remove(name);
                    state.stands.insert(name.into(), Stand::SwitchedOff);
                }
                self.room.log.push(name, what);
            }
        }
    }

    fn stand(&self, machine: &str) -> Option<Stand> {
        lock(&self.state).stands.get(machine).copied()
    }
}

/// The end of a QEMU whose control line has closed, which it does shortly before it ends.
fn wait_briefly(child: &mut Child) -> std::io::Result<Option<ExitStatus>> {
    for _ in 0..100 {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(None)
}

struct Running {
    child: Child,
    /// Has its guest switched it off?
    powered_off: bool,
    /// When it was last reset.
    reset: Option<Instant>,
}
