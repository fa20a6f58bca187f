//! The deterministic simulator: N nodes of the real core in one virtual world, and one seed is one world.
//!
//! The world has the tables of what is true: which machine has power, which domain runs where, who may write to which
//! disk. The nodes are told only what their shells would tell them, late and incompletely, each by its own clock. The
//! invariants compare what the nodes do with what may never happen; a breach ends the world.
//!
//! Everything happens at a virtual millisecond, in the order of one queue; chance comes from one generator. Random worlds
//! are scripts too ([`chaos::script`]), in the same words as those that people write ([`script`]). So the same seed, or
//! the same script, gives the same log to the last byte.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cluster::config::{Config, Decisions, VmSpec};
use cluster::event::{Answer, Domain, Event, Outcome, RequestId, StreamId};
use cluster::words::{Incarnation, Instant, LinkId, Mebibytes, OpId, VmName};

mod chance;
pub mod chaos;
mod clock;
mod decisions;
mod invariants;
mod keys;
mod lockspace;
mod machine;
mod network;
mod operator;
mod power;
mod queue;
mod roster;
pub mod script;
mod shell;
pub mod shrink;
mod storage;
mod ups;

pub use chance::Chance;
pub use network::{FAIR, Weather};
pub use power::PowerFaults;

use machine::Machine;

/// What each machine's Xen can give to VMs.
const MEMORY: Mebibytes = Mebibytes(700);
/// What each VM takes.
const VM_MEMORY: Mebibytes = Mebibytes(128);

/// What a hostile member makes of a datagram, if anything.
pub type Meddler = fn(&mut Chance, &[u8]) -> Option<Vec<u8>>;

/// Who asked for an operation: a machine, in one boot and one life of its supervisor, by this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    at: usize,
    boot: u64,
    life: u64,
    op: OpId,
}

/// What happens at an instant.
#[derive(Debug)]
enum Happening {
    /// A supervisor starts, if the machine is still in that boot.
    Start { at: usize, boot: u64 },
    /// A datagram arrives.
    Arrive { at: usize, link: LinkId, key: u32, datagram: Vec<u8> },
    /// A supervisor is told something, if it still lives.
    Tell { at: usize, life: u64, event: Event },
    /// A supervisor's deadline.
    Wake { at: usize, life: u64 },
    /// Somebody looks at what Xen runs.
    Look { at: usize, life: u64 },
    /// A machine that shares its processor has used up its slice.
    Deschedule { at: usize, share: u64, slice: Duration },
    /// The hypervisor looks at its watchdog.
    Watchdog { at: usize, boot: u64 },
    /// A domain is built, or its builder is ended.
    Built { caller: Caller, vm: VmName, late: bool },
    /// A guest has shut down, or did not in time.
    ShutDown { caller: Caller, vm: VmName, until: Instant, late: bool },
    /// A VM's memory is saved, or its saver is ended.
    Saved { caller: Caller, vm: VmName, late: bool },
    /// A domain is destroyed, or its destroyer is ended.
    Destroyed { caller: Caller, domain: String, late: bool },
    /// A target that still waits for its source gives up.
    GiveUp { stream: StreamId },
    /// A migration comes to its hand-over.
    HandOver(shell::Migration),
    /// A kernel works on what it was told to do with its lockspace.
    Kernel(lockspace::Step),
    /// A shell writes what the operator has decided.
    Keep { caller: Caller, decisions: Decisions },
    /// A relay of the power switch moves.
    Relay { fed: usize, on: bool, order: u64 },
    /// A driver reads outlets back.
    ReadBack(Caller, power::Switching),
    /// A UPS begins or ceases to give power.
    UpsLoad { ups: usize, on: bool, order: u64 },
    /// A shell that has just begun tells how the shared file system stands.
    TellShared { at: usize, life: u64 },
    /// A machine notices that the storage has barred its boot.
    Barred { at: usize, boot: u64 },
    /// A shell reads every UPS.
    ReadUpses { at: usize, life: u64 },
    /// The gateway answers a shell that has asked for the cluster's key.
    KeyGiven { at: usize, life: u64 },
}

/// A world.
#[derive(Debug)]
pub struct World {
    shape: Shape,
    /// The first edition of `cluster.toml`.
    config: Arc<Config>,
    now: Instant,
    order: u64,
    queue: queue::Queue,
    /// How many cluster networks there are.
    links: u8,
    machines: Vec<Machine>,
    network: network::Network,
    /// The dice of the world.
    pub chance: Chance,
    /// How datagrams fare.
    pub weather: Weather,
    /// What the power switch does wrong.
    pub power_faults: PowerFaults,
    /// What the outlets of a machine really feed, where it is not that machine alone.
    pub wiring: BTreeMap<usize, Vec<usize>>,
    /// How many of a hundred migrations go wrong in xl's hand-over.
    pub migration_faults: u64,
    /// A hostile member: what it makes of a datagram that it was to send or to pass on, if anything.
    pub meddler: Option<Meddler>,
    /// Whether the storage does not answer.
    pub storage_gone: bool,
    /// VMs that neither move nor shut down.
    pub hung: BTreeSet<VmName>,
    claims: storage::Claims,
    upses: Vec<ups::Ups>,
    pulls: BTreeMap<u64, shell::Waiting>,
    /// Images of VMs on the shared disk.
    images: BTreeSet<VmName>,
    /// Boots that the storage has barred: what they run can change nothing.
    barred: BTreeSet<Incarnation>,
    /// What the operator was told, by question.
    pub answers: BTreeMap<RequestId, Answer>,
    vms: Vec<VmName>,
    /// What the operator has written into the VMs' files.
    specs: BTreeMap<VmName, VmSpec>,
    kept: decisions::Kept,
    log: Vec<String>,
    breach: Option<String>,
    history: invariants::History,
}

impl World {
    /// A gateway and `nodes` nodes, all without power, and `vms` VMs on the shared storage.
    ///
    /// # Panics
    /// If there can be no such cluster.
    pub fn new(seed: u64, nodes: u8, vms: u8) -> Self {
        Self::of(&Shape { nodes, vms, seed, ..Shape::default() })
    }

    /// A world of this shape, all without power.
    ///
    /// # Panics
    /// If there can be no such cluster.
    pub fn of(shape: &Shape) -> Self {
        let text = shape.configuration();
        let config = Config::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let config = Arc::new(config);
        let size = usize::from(shape.nodes) + usize::from(shape.spare) + 1;
        Self {
            machines: (0..size).map(|at| Machine::new(machine_name(at), &config)).collect(),
            shape: shape.clone(),
            upses: vec![ups::Ups::GOOD; config.upses.len()],
            history: invariants::History::new(size),
            links: shape.links,
            config,
            now: Instant::from_millis(1_000),
            order: 0,
            queue: queue::Queue::default(),
            network: network::Network::default(),
            chance: Chance::new(shape.seed),
            weather: FAIR,
            power_faults: PowerFaults::default(),
            wiring: BTreeMap::new(),
            migration_faults: 0,
            meddler: None,
            storage_gone: false,
            hung: BTreeSet::new(),
            claims: storage::Claims::default(),
            pulls: BTreeMap::new(),
            images: BTreeSet::new(),
            barred: BTreeSet::new(),
            answers: BTreeMap::new(),
            vms: (0..shape.vms).filter_map(|n| VmName::new(&format!("x{n}"))).collect(),
            specs: BTreeMap::new(),
            kept: decisions::Kept::default(),
            log: Vec::new(),
            breach: None,
        }
    }

    /// The event log so far, a line an event.
    pub fn log(&self) -> &[String] {
        &self.log
    }

    /// Begins the event log anew.
    pub fn forget_log(&mut self) {
        self.log.clear();
    }

    /// What must never happen and has, if anything.
    pub fn breach(&self) -> Option<&str> {
        self.breach.as_deref()
    }

    /// Virtual time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// How many machines there are.
    pub fn size(&self) -> usize {
        self.machines.len()
    }

    fn machine(&mut self, at: usize) -> &mut Machine {
        let Some(machine) = self.machines.get_mut(at) else { panic!("there is no machine {at}") };
        machine
    }

    /// The machine of that name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.machines.iter().position(|machine| machine.name == name)
    }

    fn name(&self, at: usize) -> &str {
        self.machines.get(at).map_or("?", |machine| &machine.name)
    }

    fn say(&mut self, at: usize, text: &str) {
        let line = format!("{}  {:<8} {text}\n", self.clock_text(), self.name(at));
        self.log.push(line);
    }

    /// Writes into the log what was done to the world.
    pub fn note(&mut self, text: &str) {
        self.log.push(format!("{}  > {text}\n", self.clock_text()));
    }

    fn clock_text(&self) -> String {
        format!("{:>5}.{:03}", self.now.millis() / 1000, self.now.millis() % 1000)
    }

    fn plan(&mut self, after: Duration, happening: Happening) {
        self.queue.put(self.now + after, self.order, happening);
        self.order += 1;
    }

    /// Plans it for that instant, or for now if that is past.
    fn plan_at(&mut self, when: Instant, happening: Happening) {
        self.plan(when.since(self.now), happening);
    }

    /// Lets time pass. A breach ends it early.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.breach.is_none() {
            let Some((when, happening)) = self.queue.next(end) else { break };
            self.now = when;
            self.happen(happening);
        }
        if self.breach.is_none() {
            self.now = end;
        }
    }

    fn happen(&mut self, happening: Happening) {
        let stalled = match &happening {
            Happening::Arrive { at, .. }
            | Happening::Tell { at, .. }
            | Happening::Wake { at, .. }
            | Happening::Look { at, .. }
            | Happening::TellShared { at, .. }
            | Happening::Barred { at, .. }
            | Happening::ReadUpses { at, .. }
            | Happening::KeyGiven { at, .. } => self.machine(*at).stalled_until.since(self.now),
            Happening::Start { .. }
            | Happening::Watchdog { .. }
            | Happening::Deschedule { .. }
            | Happening::Built { .. }
            | Happening::ShutDown { .. }
            | Happening::Saved { .. }
            | Happening::Destroyed { .. }
            | Happening::GiveUp { .. }
            | Happening::HandOver(_)
            | Happening::Kernel(_)
            | Happening::Keep { .. }
            | Happening::Relay { .. }
            | Happening::ReadBack(..)
            | Happening::UpsLoad { .. } => Duration::ZERO,
        };
        if !stalled.is_zero() {
            return self.plan(stalled, happening);
        }
        match happening {
            Happening::Start { at, boot } => self.start(at, boot),
            Happening::Arrive { at, link, key, datagram } if self.opens(at, key) => {
                self.tell(at, Event::Heard { link, datagram });
            }
            Happening::Tell { at, life, event } if self.lives(at, life) => self.tell(at, event),
            Happening::Wake { at, life } if self.lives(at, life) => self.wake(at, life),
            Happening::Look { at, life } if self.lives(at, life) => self.look(at, life),
            Happening::Watchdog { at, boot } => self.watchdog(at, boot),
            Happening::Deschedule { at, share, slice } => self.overcommit(at, share, slice),
            Happening::Built { caller, vm, late } => self.built(caller, &vm, late),
            Happening::ShutDown { caller, vm, until, late } => self.guest_shut_down(caller, vm, until, late),
            Happening::Saved { caller, vm, late } => self.saved(caller, vm, late),
            Happening::Destroyed { caller, domain, late } => self.destroyed(caller, &domain, late),
            Happening::GiveUp { stream } => self.refuse(stream),
            Happening::HandOver(migration) => self.hand_over(migration),
            Happening::Kernel(step) => self.kernel_steps(step),
            Happening::Keep { caller, decisions } => self.write_decisions(caller, decisions),
            Happening::Relay { fed, on, order } => self.relay(fed, on, order),
            Happening::ReadBack(caller, switching) => self.read_back(caller, switching),
            Happening::UpsLoad { ups, on, order } => self.ups_load(ups, on, order),
            Happening::ReadUpses { at, life } if self.lives(at, life) => self.read_upses(at, life),
            Happening::TellShared { at, life } if self.lives(at, life) => self.tell_shared(at, Duration::ZERO),
            Happening::Barred { at, boot } => self.notice_barred(at, boot),
            Happening::KeyGiven { at, life } if self.lives(at, life) => self.key_given(at),
            Happening::Arrive { .. }
            | Happening::KeyGiven { .. }
            | Happening::Tell { .. }
            | Happening::Wake { .. }
            | Happening::Look { .. }
            | Happening::TellShared { .. }
            | Happening::ReadUpses { .. } => {}
        }
    }

    fn lives(&mut self, at: usize, life: u64) -> bool {
        let machine = self.machine(at);
        machine.node.is_some() && machine.life == life
    }

    fn done(&mut self, caller: Caller, outcome: Outcome) {
        let Caller { at, life, op, .. } = caller;
        self.plan(Duration::from_millis(1), Happening::Tell { at, life, event: Event::Done { op, outcome } });
    }

    fn free(&mut self, at: usize) -> Mebibytes {
        let domains = u32::try_from(self.machine(at).domains.len()).unwrap_or(u32::MAX);
        MEMORY.less(Mebibytes(VM_MEMORY.0.saturating_mul(domains)))
    }

    /// Whether everything is as it should be when nothing is wrong any more: everybody with power is a member that sees a
    /// DC, every VM runs once, where the record says, and nothing is left over.
    ///
    /// # Errors
    /// What is not.
    pub fn converged(&self) -> Result<(), String> {
        let agreed = self.agreed();
        for (at, machine) in
            self.machines.iter().enumerate().filter(|(_, machine)| agreed.named(&machine.name).is_some())
        {
            let Some(node) = machine.node.as_ref().filter(|_| machine.on) else {
                return Err(format!("{} does not run", self.name(at)));
            };
            let status = node.status(machine.clock.shows(self.now));
            if !status.quorate {
                return Err(format!("{} is inquorate", status.node));
            }
            let is_dc = status.dc.as_ref() == Some(&machine.name);
            self.one_roster_everywhere(at, agreed, is_dc)?;
            let here =
                status.nodes.get(usize::from(self.slot(at).0)).map(|node| node.state.clone()).unwrap_or_default();
            if here != "member" {
                return Err(format!("{} is {here}", status.node));
            }
            if agreed.node(self.slot(at)).on_trial {
                return Err(format!("{} is still on trial", status.node));
            }
            for vm in &self.vms {
                let record = status.vms.iter().find(|record| record.name == vm.as_str());
                let owner = record.filter(|record| record.phase == "running").and_then(|record| record.owner.clone());
                let running = self.running(vm);
                let place = running.first().map(|at| self.name(*at).to_owned());
                if running.len() != 1 || owner != place {
                    let known = |record: &cluster::status::VmStatus| match &record.owner {
                        Some(owner) => format!("{} on {owner}", record.phase),
                        None => record.phase.clone(),
                    };
                    let record = record.map_or_else(|| "not known".to_owned(), known);
                    let place = place.map_or_else(|| "nowhere".to_owned(), |place| format!("on {place}"));
                    return Err(format!("{vm} runs {place}, and {} says that it is {record}", status.node));
                }
            }
        }
        self.one_key_everywhere(agreed)?;
        self.no_limbo().or_else(|| self.not_shared()).map_or(Ok(()), Err)
    }

    /// What a machine's supervisor knows of the cluster, if it runs.
    pub fn status(&self, at: usize) -> Option<cluster::status::Status> {
        let machine = self.machines.get(at)?;
        machine.node.as_ref().map(|node| node.status(machine.clock.shows(self.now)))
    }

    /// Whether a machine belongs to a majority, as it believes.
    pub(super) fn is_quorate(&self, at: usize) -> bool {
        self.machines.get(at).and_then(|machine| machine.node.as_ref()).is_some_and(|node| node.is_quorate())
    }

    /// Where a VM runs.
    pub fn host_of(&self, vm: &str) -> Option<usize> {
        self.running(&VmName::new(vm)?).first().copied()
    }

    /// The machine that the others know as DC.
    pub fn dc(&self) -> Option<usize> {
        let runs = |machine: &Machine| machine.node.as_ref()?.status(machine.clock.shows(self.now)).dc;
        self.find(&self.machines.iter().find_map(runs)?)
    }

    /// Whether a machine runs a VM, and is not barred from its disks.
    fn can_write(&self, machine: &Machine, vm: &VmName) -> bool {
        machine.domains.get(vm.as_str()) == Some(&Domain::Running) && !self.barred.contains(&machine.incarnation)
    }

    fn running(&self, vm: &VmName) -> BTreeSet<usize> {
        let runs = |machine: &Machine| self.can_write(machine, vm);
        self.machines.iter().enumerate().filter(|(_, machine)| runs(machine)).map(|(at, _)| at).collect()
    }
}

/// What a world is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Machines beside the gateway.
    pub nodes: u8,
    /// Machines that are there and that no `cluster.toml` names, until they are added.
    pub spare: u8,
    /// VMs on the shared storage.
    pub vms: u8,
    /// Cluster networks.
    pub links: u8,
    /// Serial lines: the names of the two machines that each joins.
    pub lines: Vec<[String; 2]>,
    /// The world's dice.
    pub seed: u64,
    /// The votes of the machines, the gateway's first; who is not named has one.
    pub votes: Vec<u8>,
    /// The levels of fencing, as `cluster.toml` names them.
    pub fencing: Vec<String>,
    /// Keepalive, warntime, deadtime and initdead, in milliseconds.
    pub timing_ms: [u32; 4],
    /// The UPSes, each with the machines that it feeds.
    pub upses: Vec<(String, Vec<String>)>,
    /// Whether the shared file system is GFS2.
    pub gfs2: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            nodes: 3,
            spare: 0,
            vms: 1,
            links: 1,
            lines: Vec::new(),
            seed: 1,
            votes: Vec::new(),
            fencing: vec!["snmp".to_owned()],
            timing_ms: [500, 2_000, 6_000, 30_000],
            upses: Vec::new(),
            gfs2: false,
        }
    }
}

fn machine_name(at: usize) -> String {
    if at == 0 { "gateway".to_owned() } else { format!("node{at}") }
}

fn network(link: u8) -> String {
    if link == 0 { "cluster".to_owned() } else { format!("cluster{}", link + 1) }
}

impl Shape {
    /// The table of one machine in it.
    fn node(&self, n: u8, votes: &str) -> String {
        let (name, role) = (machine_name(n.into()), if n == 0 { "gateway" } else { "node" });
        let outlets = format!("outlets = [{{ pdu = \"pdu1\", outlet = {} }}]", n + 1);
        let mut text = format!("name = \"{name}\"\nrole = \"{role}\"\n{outlets}\n{votes}");
        if n > 0 {
            text += &format!("fencing = {:?}\n", self.fencing);
        }
        text += "nics = [";
        for link in 0..self.links {
            text += &format!(
                "{{ mac = \"52:54:00:00:{link:02x}:{:02x}\", network = \"{}\", address = \"10.0.{link}.{}\" }}, ",
                n + 1,
                network(link),
                n + 1
            );
        }
        text + "]\n"
    }

    /// Its cluster.toml.
    fn configuration(&self) -> String {
        let [keepalive, warntime, deadtime, initdead] = self.timing_ms;
        let mut text = format!(
            "[cluster]\nname = \"world\"\nkeepalive = \"{keepalive}ms\"\nwarntime = \"{warntime}ms\"\n\
             deadtime = \"{deadtime}ms\"\ninitdead = \"{initdead}ms\"\nlease = \"15s\"\nevacuation = \"60s\"\n\
             [[pdu]]\nname = \"pdu1\"\nmodel = \"ap7921\"\naddress = \"10.0.0.250\"\n"
        );
        if self.fencing.iter().any(|level| level == "serial") {
            text += "serial = { node = \"gateway\", device = \"ttyS0\" }\n";
        }
        for link in 0..self.links {
            text += &format!("[network.{}]\nsubnet = \"10.0.{link}.0/24\"\n", network(link));
        }
        for (n, [one, other]) in self.lines.iter().enumerate() {
            text +=
                &format!("[serial.line{n}]\nnodes = [\"{one}\", \"{other}\"]\ndevices = [\"ttyS{n}\", \"ttyS{n}\"]\n");
        }
        for n in 0..=self.nodes {
            let votes = self.votes.get(usize::from(n)).map(|votes| format!("votes = {votes}\n"));
            text += "[[node]]\n";
            text += &self.node(n, &votes.unwrap_or_default());
        }
        for (name, feeds) in &self.upses {
            // A world that was made smaller feeds fewer.
            let there =
                |node: &&String| node.strip_prefix("node").is_none_or(|n| n.parse().is_ok_and(|n: u8| n <= self.nodes));
            let feeds: Vec<&String> = feeds.iter().filter(there).collect();
            if !feeds.is_empty() {
                text += &format!(
                    "[[ups]]\nname = \"{name}\"\nfeeds = {feeds:?}\nwait = \"10s\"\nruntime = \"120s\"\n\
                     nut = {{ address = \"10.0.0.251\", ups = \"{name}\", user = \"holdfast\" }}\n"
                );
            }
        }
        if self.gfs2 {
            text += "[shared]\nfilesystem = \"gfs2\"\n[[export]]\nname = \"shared\"\ndevice = \"/dev/vg/shared\"\n";
        }
        text + "[[export]]\nname = \"vms\"\ndevice = \"/dev/vg/vms\"\n"
    }
}
