//! The deterministic simulator: N nodes of the real core in one virtual world, and one seed is one world.
//!
//! The world has the tables of what is true: which machine has power, which domain runs where. The nodes are told only
//! what their shells would tell them, late and incompletely. After every step [`World::check`] compares what the nodes have
//! done with what may never happen; a breach ends the world with its name.
//!
//! Everything happens at a virtual millisecond, in the order of one queue; chance comes from one generator. So the same
//! seed, or the same script, gives the same log to the last byte.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use cluster::config::Config;
use cluster::config::VmSpec;
use cluster::event::{Answer, Domain, Event, Outcome, Request, RequestId, StreamId, VmFile, Work};
use cluster::node::{Boot, Node};
use cluster::words::{Failing, Incarnation, Instant, LinkId, Mebibytes, OpId, Slot, VmName};

pub mod chaos;
mod invariants;
pub mod script;
mod shell;

/// How long a machine takes from power to supervisor.
const BOOT: Duration = Duration::from_secs(12);
/// How long init takes to start a supervisor again.
const RESTART: Duration = Duration::from_millis(300);
/// Between two looks at what Xen runs.
const LOOK: Duration = Duration::from_millis(500);
/// A watchdog that is not petted for this long resets its machine.
const WATCHDOG: Duration = Duration::from_secs(20);
/// What each machine's Xen can give to VMs.
const MEMORY: Mebibytes = Mebibytes(700);
/// The network of storage and migration.
const PRIMARY: LinkId = LinkId(0);
/// What each VM takes.
const VM_MEMORY: Mebibytes = Mebibytes(128);

/// A generator of chance: SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The generator of that seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which must not be zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// True in `percent` of a hundred cases.
    pub fn happens(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What a hostile member makes of a datagram that it was to send or to pass on; `None` if it leaves it alone.
pub type Meddler = fn(&mut Chance, &[u8]) -> Option<Vec<u8>>;

/// How the network treats datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weather {
    /// Of a hundred datagrams, those that are lost.
    pub loss: u64,
    /// Of a hundred, those that come twice.
    pub doubling: u64,
    /// The longest delay, in milliseconds; the shortest is one. Delays differ, so datagrams overtake each other.
    pub delay_ms: u64,
}

/// What the power switch does wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PowerFaults {
    /// It does not answer.
    pub unreachable: bool,
    /// It says "off" and does nothing. No real switch may be trusted that does this: it is the canary's.
    pub lies: bool,
}

/// One machine.
#[derive(Debug)]
struct Machine {
    outlet: bool,
    /// It has power and did not power itself off.
    on: bool,
    /// Grows whenever what runs on it is lost.
    boot: u64,
    incarnation: Incarnation,
    /// Grows whenever a supervisor starts.
    life: u64,
    start: u8,
    node: Option<Node>,
    domains: BTreeMap<String, Domain>,
    petted: Instant,
    /// What the shell keeps of the lease for a supervisor that is restarted.
    lease: Option<Instant>,
    stalled_until: Instant,
    /// Its cables that are cut.
    cut: BTreeSet<LinkId>,
}

/// What happens at an instant.
#[derive(Debug)]
enum Happening {
    /// A supervisor starts, if the machine is still in that boot.
    Start { at: usize, boot: u64 },
    /// A datagram arrives.
    Arrive { at: usize, link: LinkId, datagram: Vec<u8> },
    /// A supervisor is told something, if it still lives.
    Tell { at: usize, life: u64, event: Event },
    /// A supervisor's deadline.
    Wake { at: usize, life: u64 },
    /// Somebody looks at what Xen runs.
    Look { at: usize, life: u64 },
    /// A domain is built.
    Built { at: usize, boot: u64, life: u64, op: OpId, vm: VmName },
    /// A target that still waits for its source gives up.
    GiveUp { stream: StreamId },
    /// A migration comes to its hand-over.
    HandOver(shell::Migration),
    /// Outlets switch, and are read back.
    Switch { at: usize, life: u64, op: OpId, work: Work },
}

/// A world.
#[derive(Debug)]
pub struct World {
    config: Arc<Config>,
    now: Instant,
    order: u64,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    happenings: BTreeMap<(Instant, u64), Happening>,
    machines: Vec<Machine>,
    /// The dice of the world.
    pub chance: Chance,
    /// How datagrams fare.
    pub weather: Weather,
    /// What the power switch does wrong.
    pub power_faults: PowerFaults,
    /// How xl's migrations end, in percent: the rest ends well.
    pub migration_faults: u64,
    /// A hostile member, which holds the cluster's key.
    pub meddler: Option<Meddler>,
    pulls: BTreeMap<u64, shell::Waiting>,
    /// Epochs of claims that the storage has handed out.
    epochs: u64,
    /// Images of VMs on the shared disk.
    images: BTreeSet<VmName>,
    /// Boots that the storage has barred: what they run can change nothing.
    barred: BTreeSet<Incarnation>,
    /// What the operator was told, by question.
    pub answers: BTreeMap<RequestId, Answer>,
    vms: Vec<VmName>,
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
        Self::with_links(seed, nodes, vms, 1)
    }

    /// The same on so many cluster networks.
    ///
    /// # Panics
    /// If there can be no such cluster.
    pub fn with_links(seed: u64, nodes: u8, vms: u8, links: u8) -> Self {
        let text = configuration(nodes, links);
        let config = Config::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let machine = |_| Machine {
            outlet: false,
            on: false,
            boot: 0,
            incarnation: Incarnation::NONE,
            life: 0,
            start: 0,
            node: None,
            domains: BTreeMap::new(),
            petted: Instant::ZERO,
            lease: None,
            stalled_until: Instant::ZERO,
            cut: BTreeSet::new(),
        };
        Self {
            machines: config.nodes.iter().map(machine).collect(),
            config: Arc::new(config),
            now: Instant::from_millis(1_000),
            order: 0,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            chance: Chance::new(seed),
            weather: Weather { loss: 0, doubling: 0, delay_ms: 3 },
            power_faults: PowerFaults::default(),
            migration_faults: 0,
            meddler: None,
            pulls: BTreeMap::new(),
            epochs: 0,
            images: BTreeSet::new(),
            barred: BTreeSet::new(),
            answers: BTreeMap::new(),
            vms: (0..vms).filter_map(|n| VmName::new(&format!("x{n}"))).collect(),
            log: Vec::new(),
            breach: None,
            history: invariants::History::default(),
        }
    }

    /// The event log so far, a line an event.
    pub fn log(&self) -> &[String] {
        &self.log
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
        self.config.nodes.iter().position(|node| node.name == name)
    }

    fn name(&self, at: usize) -> &str {
        self.config.nodes.get(at).map_or("?", |node| &node.name)
    }

    fn say(&mut self, at: usize, text: &str) {
        let (seconds, millis) = (self.now.millis() / 1000, self.now.millis() % 1000);
        self.log.push(format!("{seconds:>5}.{millis:03}  {:<8} {text}\n", self.name(at)));
    }

    fn plan(&mut self, after: Duration, happening: Happening) {
        let key = (self.now + after, self.order);
        self.order += 1;
        self.queue.push(Reverse(key));
        self.happenings.insert(key, happening);
    }

    /// Lets time pass. A breach ends it early.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.breach.is_none() {
            let Some(Reverse(key)) = self.queue.peek().copied().filter(|Reverse((at, _))| *at <= end) else { break };
            self.queue.pop();
            self.now = key.0;
            if let Some(happening) = self.happenings.remove(&key) {
                self.happen(happening);
            }
            self.check();
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
            | Happening::Look { at, .. } => self.machine(*at).stalled_until.since(self.now),
            Happening::Start { .. }
            | Happening::Built { .. }
            | Happening::GiveUp { .. }
            | Happening::HandOver(_)
            | Happening::Switch { .. } => Duration::ZERO,
        };
        if !stalled.is_zero() {
            return self.plan(stalled, happening);
        }
        match happening {
            Happening::Start { at, boot } => self.start(at, boot),
            Happening::Arrive { at, link, datagram } => self.tell(at, Event::Heard { link, datagram }),
            Happening::Tell { at, life, event } if self.lives(at, life) => self.tell(at, event),
            Happening::Wake { at, life } if self.lives(at, life) => self.wake(at, life),
            Happening::Look { at, life } if self.lives(at, life) => self.look(at, life),
            Happening::Built { at, boot, life, op, vm } => self.built((at, boot, life), op, &vm),
            Happening::GiveUp { stream } => self.refuse(stream),
            Happening::HandOver(migration) => self.hand_over(&migration),
            Happening::Switch { at, life, op, work } => self.switch(at, life, op, work),
            Happening::Tell { .. } | Happening::Wake { .. } | Happening::Look { .. } => {}
        }
    }

    fn lives(&mut self, at: usize, life: u64) -> bool {
        let machine = self.machine(at);
        machine.node.is_some() && machine.life == life
    }

    /// An outlet gives power: the machine boots, if it did not run.
    pub fn power_on(&mut self, at: usize) {
        let machine = self.machine(at);
        if machine.outlet && machine.on {
            return;
        }
        machine.outlet = true;
        machine.on = true;
        self.reset(at);
    }

    /// An outlet cuts power.
    pub fn power_off(&mut self, at: usize) {
        self.machine(at).outlet = false;
        self.lose(at);
        self.machine(at).on = false;
    }

    /// The machine boots anew: by its watchdog, a panic, or an impatient hand.
    pub fn reset(&mut self, at: usize) {
        self.lose(at);
        let drawn = self.chance.number();
        let machine = self.machine(at);
        machine.incarnation = Incarnation::new(drawn | 1).unwrap_or(Incarnation::NONE);
        machine.start = 0;
        machine.lease = None;
        let boot = machine.boot;
        self.plan(BOOT, Happening::Start { at, boot });
    }

    fn lose(&mut self, at: usize) {
        let machine = self.machine(at);
        machine.boot += 1;
        machine.life += 1;
        machine.node = None;
        machine.domains.clear();
    }

    /// The supervisor is killed; init starts another.
    pub fn restart_supervisor(&mut self, at: usize) {
        let machine = self.machine(at);
        if machine.node.take().is_none() {
            return;
        }
        machine.life += 1;
        machine.start = machine.start.saturating_add(1);
        let boot = machine.boot;
        self.plan(RESTART, Happening::Start { at, boot });
    }

    /// Cuts or joins a machine's cables.
    pub fn cable(&mut self, at: usize, cut: bool) {
        let links: Vec<LinkId> = self.config.links().map(|link| link.id).collect();
        links.into_iter().for_each(|link| self.cable_of(at, link, cut));
    }

    /// Cuts or joins a machine's cable to one network.
    pub fn cable_of(&mut self, at: usize, link: LinkId, cut: bool) {
        let cables = &mut self.machine(at).cut;
        let _changed = if cut { cables.insert(link) } else { cables.remove(&link) };
    }

    /// Whether a machine's streams have no way: they take the primary network.
    fn is_cut(&mut self, at: usize) -> bool {
        self.machine(at).cut.contains(&PRIMARY)
    }

    /// A machine's storage is gone, and its shell notices.
    pub fn fail_storage(&mut self, at: usize) {
        self.tell(at, Event::Failing { reason: Failing::Storage });
    }

    /// The machine does nothing for a while.
    pub fn stall(&mut self, at: usize, time: Duration) {
        let until = self.now + time;
        let machine = self.machine(at);
        machine.stalled_until = machine.stalled_until.max(until);
        machine.petted = machine.petted.max(until);
    }

    /// An operator chooses "shut down this node".
    pub fn ask_to_shut_down(&mut self, at: usize) {
        self.ask(at, Request::ShutDown);
    }

    /// An operator asks a node for something.
    pub fn ask(&mut self, at: usize, request: Request) {
        if self.machine(at).node.is_some() {
            let id = RequestId(self.order);
            self.order += 1;
            self.tell(at, Event::Asked { id, request });
        }
    }

    /// A domain dies by itself.
    pub fn crash(&mut self, vm: &str) {
        for machine in &mut self.machines {
            machine.domains.remove(vm);
        }
    }

    fn start(&mut self, at: usize, boot: u64) {
        let config = Arc::clone(&self.config);
        let (now, seed) = (self.now, self.chance.number());
        let files: Vec<VmFile> = self
            .vms
            .iter()
            .map(|name| VmFile { name: name.clone(), memory: VM_MEMORY, spec: VmSpec::default() })
            .collect();
        let machine = self.machine(at);
        if machine.boot != boot || machine.node.is_some() || !machine.on {
            return;
        }
        let slot = Slot(u8::try_from(at).unwrap_or(u8::MAX));
        let mut actions = Vec::new();
        let told = Boot {
            config,
            slot,
            incarnation: machine.incarnation,
            start: machine.start,
            seed,
            watchdog: true,
            lease: machine.lease,
        };
        machine.node = Some(Node::new(told, now, &mut actions));
        machine.petted = now;
        let life = machine.life;
        self.carry_out(at, actions);
        self.plan(Duration::ZERO, Happening::Wake { at, life });
        self.plan(LOOK, Happening::Look { at, life });
        if at > 0 {
            self.plan(LOOK * 2, Happening::Tell { at, life, event: Event::Read { files } });
        }
    }

    fn tell(&mut self, at: usize, event: Event) {
        let now = self.now;
        let mut actions = Vec::new();
        let Some(node) = self.machine(at).node.as_mut() else { return };
        node.handle(now, event, &mut actions);
        self.carry_out(at, actions);
    }

    fn wake(&mut self, at: usize, life: u64) {
        self.tell(at, Event::Tick);
        let now = self.now;
        let Some(deadline) = self.machine(at).node.as_ref().map(Node::deadline) else { return };
        let pause = deadline.since(now).max(Duration::from_millis(1));
        self.plan(pause, Happening::Wake { at, life });
        if now.since(self.machine(at).petted) > WATCHDOG {
            self.say(at, "[watchdog resets the machine]");
            self.reset(at);
        }
    }

    fn look(&mut self, at: usize, life: u64) {
        let free = self.free(at);
        let domains = self.machine(at).domains.clone();
        self.tell(at, Event::Seen { domains, free });
        self.plan(LOOK, Happening::Look { at, life });
    }

    fn free(&mut self, at: usize) -> Mebibytes {
        let domains = u32::try_from(self.machine(at).domains.len()).unwrap_or(u32::MAX);
        MEMORY.less(Mebibytes(VM_MEMORY.0.saturating_mul(domains)))
    }

    fn done(&mut self, at: usize, life: u64, op: OpId, outcome: Outcome) {
        self.plan(Duration::from_millis(1), Happening::Tell { at, life, event: Event::Done { op, outcome } });
    }

    /// Whether everything is as it should be when nothing is wrong any more: everybody with power is a member that sees a
    /// DC, and every VM runs once, where the record says.
    ///
    /// # Errors
    /// What is not.
    pub fn converged(&self) -> Result<(), String> {
        for (at, machine) in self.machines.iter().enumerate() {
            let Some(node) = machine.node.as_ref().filter(|_| machine.on) else {
                return Err(format!("{} does not run", self.name(at)));
            };
            let status = node.status(self.now);
            if !status.quorate {
                return Err(format!("{} is inquorate", status.node));
            }
            let here = status.nodes.get(at).map(|node| node.state.clone()).unwrap_or_default();
            if here != "member" {
                return Err(format!("{} is {here}", status.node));
            }
            for vm in &self.vms {
                let record = status.vms.iter().find(|record| record.name == vm.as_str());
                let owner = record.filter(|record| record.phase == "running").and_then(|record| record.owner.clone());
                let running = self.running(vm);
                let place = running.first().map(|at| self.name(*at).to_owned());
                if running.len() != 1 || owner != place {
                    return Err(format!("{vm} runs on {place:?}, {} says {record:?}", status.node));
                }
            }
        }
        Ok(())
    }

    /// Where a VM runs.
    pub fn host_of(&self, vm: &str) -> Option<usize> {
        self.running(&VmName::new(vm)?).first().copied()
    }

    /// The machine that the others know as DC.
    pub fn dc(&self) -> Option<usize> {
        let nodes = self.machines.iter().filter_map(|machine| machine.node.as_ref());
        let name = nodes.filter_map(|node| node.status(self.now).dc).next()?;
        self.find(&name)
    }

    fn running(&self, vm: &VmName) -> BTreeSet<usize> {
        let runs = |machine: &Machine| {
            machine.domains.get(vm.as_str()) == Some(&Domain::Running) && !self.barred.contains(&machine.incarnation)
        };
        self.machines.iter().enumerate().filter(|(_, machine)| runs(machine)).map(|(at, _)| at).collect()
    }
}

/// A cluster.toml for a gateway and so many nodes, on so many networks.
fn configuration(nodes: u8, links: u8) -> String {
    let mut text = String::from(
        "[cluster]\nname = \"world\"\nkeepalive = \"500ms\"\nwarntime = \"2s\"\ndeadtime = \"6s\"\ninitdead = \"30s\"\n\
         lease = \"15s\"\nevacuation = \"60s\"\n[[pdu]]\nname = \"pdu1\"\nmodel = \"ap7921\"\naddress = \"10.0.0.250\"\n",
    );
    let network = |link: u8| if link == 0 { "cluster".to_owned() } else { format!("cluster{}", link + 1) };
    for link in 0..links {
        text += &format!("[network.{}]\nsubnet = \"10.0.{link}.0/24\"\n", network(link));
    }
    for n in 0..=nodes {
        let (name, role) = if n == 0 { ("gateway".into(), "gateway") } else { (format!("node{n}"), "node") };
        text += &format!(
            "[[node]]\nname = \"{name}\"\nrole = \"{role}\"\noutlets = [{{ pdu = \"pdu1\", outlet = {} }}]\nnics = [",
            n + 1
        );
        for link in 0..links {
            text += &format!(
                "{{ mac = \"52:54:00:00:{link:02x}:{:02x}\", network = \"{}\", address = \"10.0.{link}.{}\" }}, ",
                n + 1,
                network(link),
                n + 1
            );
        }
        text += "]\n";
    }
    text += "[[export]]\nname = \"x0\"\ndevice = \"/dev/disk/x0\"\n";
    text
}
