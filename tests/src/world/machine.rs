//! Machines: power, boots, supervisors that start, stall and die.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cluster::config::Config;
use cluster::event::{Domain, Event, Request, RequestId};
use cluster::node::{Boot, Node, VERSION};
use cluster::words::{ClusterGeneration, Failing, Incarnation, Instant, LinkId};

use super::clock::Clock;
use super::keys::Ring;
use super::lockspace::Kernel;
use super::{Happening, World};

/// How long a machine takes from power to supervisor.
const BOOT: Duration = Duration::from_secs(12);
/// How long init takes to start a supervisor again.
const RESTART: Duration = Duration::from_millis(300);
/// Between two looks at what Xen runs.
const LOOK: Duration = Duration::from_millis(500);
/// A watchdog that is not petted for this long resets its machine.
const WATCHDOG: Duration = Duration::from_secs(20);

/// What dies between two actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dies {
    /// The supervisor; init starts another.
    Supervisor,
    /// The machine, with its power.
    Machine,
}

/// One machine.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) name: String,
    /// The `cluster.toml` on its medium, and the one that its supervisor goes by.
    pub(super) medium: Arc<Config>,
    /// Its medium takes nothing.
    pub(super) full: bool,
    pub(super) config: Arc<Config>,
    pub(super) outlet: bool,
    /// The last command to its outlet.
    pub(super) commanded: u64,
    /// It has power and did not power itself off.
    pub(super) on: bool,
    /// Grows whenever what runs on it is lost.
    pub(super) boot: u64,
    pub(super) incarnation: Incarnation,
    /// Its init runs: it has booted.
    pub(super) up: bool,
    pub(super) clock: Clock,
    /// How much its clock is off, in parts of a million.
    pub(super) drift: i32,
    /// The hypervisor has a watchdog.
    pub(super) watchdog: bool,
    /// The version of the protocol that the program on its medium speaks, and the one that runs.
    pub(super) installed: u8,
    pub(super) version: u8,
    /// Grows whenever a supervisor starts.
    pub(super) life: u64,
    pub(super) start: u8,
    pub(super) node: Option<Node>,
    pub(super) domains: BTreeMap<String, Domain>,
    /// The cluster's keys that its shell holds.
    pub(super) ring: Ring,
    /// The shared file system in its kernel.
    pub(super) kernel: Kernel,
    pub(super) petted: Instant,
    /// What the shell keeps of the lease for a supervisor that is restarted.
    pub(super) lease: Option<Instant>,
    pub(super) stalled_until: Instant,
    /// Its disks do not answer until then.
    pub(super) disks_stalled_until: Instant,
    /// Its cables that are cut.
    pub(super) cut: BTreeSet<LinkId>,
    /// The generation that had agreed to its powering itself off, until it boots again.
    pub(super) left: Option<ClusterGeneration>,
    /// How many more actions are carried out before this dies.
    pub(super) dies: Option<(u64, Dies)>,
}

impl Machine {
    pub(super) fn new(name: String, config: &Arc<Config>) -> Self {
        Self {
            name,
            medium: Arc::clone(config),
            full: false,
            config: Arc::clone(config),
            outlet: false,
            commanded: 0,
            on: false,
            boot: 0,
            incarnation: Incarnation::NONE,
            up: false,
            clock: Clock::new(Instant::ZERO, 0),
            drift: 0,
            watchdog: true,
            installed: VERSION,
            version: VERSION,
            life: 0,
            start: 0,
            node: None,
            domains: BTreeMap::new(),
            ring: Ring::default(),
            kernel: Kernel::default(),
            petted: Instant::ZERO,
            lease: None,
            stalled_until: Instant::ZERO,
            disks_stalled_until: Instant::ZERO,
            cut: BTreeSet::new(),
            left: None,
            dies: None,
        }
    }
}

impl World {
    /// An outlet gives power: the machine boots, if it did not run.
    pub fn power_on(&mut self, at: usize) {
        let fed = self.has_feed(at);
        let machine = self.machine(at);
        if machine.outlet && machine.on {
            return;
        }
        machine.outlet = true;
        machine.on = fed;
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
        let (drawn, now) = (self.chance.number(), self.now);
        let machine = self.machine(at);
        if !machine.on {
            return;
        }
        machine.incarnation = Incarnation::new(drawn | 1).unwrap_or(Incarnation::NONE);
        machine.start = 0;
        machine.left = None;
        machine.lease = None;
        machine.version = machine.installed;
        machine.clock = Clock::new(now, machine.drift);
        let boot = machine.boot;
        self.plan(BOOT, Happening::Start { at, boot });
    }

    /// What the machine ran is gone.
    pub(super) fn lose(&mut self, at: usize) {
        self.note_links();
        self.note_end(at);
        let now = self.now;
        let machine = self.machine(at);
        machine.boot += 1;
        machine.life += 1;
        machine.up = false;
        machine.node = None;
        machine.dies = None;
        machine.domains.clear();
        machine.kernel = Kernel::default();
        machine.stalled_until = now;
    }

    /// The machine's clock runs wrong by so many parts in a million, from its next boot on.
    pub fn drift(&mut self, at: usize, ppm: i32) {
        self.machine(at).drift = ppm;
    }

    /// An older program is installed, that speaks one version less; it runs from the next boot on.
    pub fn downgrade(&mut self, at: usize) {
        self.machine(at).installed -= 1;
    }

    /// A program is installed that speaks one version more; it runs from the next boot on.
    pub fn upgrade(&mut self, at: usize) {
        self.machine(at).installed += 1;
    }

    /// The hypervisor has no watchdog, from the machine's next boot on.
    pub fn take_watchdog(&mut self, at: usize) {
        self.machine(at).watchdog = false;
    }

    /// The supervisor is killed; init starts another.
    pub fn restart_supervisor(&mut self, at: usize) {
        self.note_links();
        let machine = self.machine(at);
        if machine.node.take().is_none() {
            return;
        }
        machine.life += 1;
        machine.start = machine.start.saturating_add(1);
        let boot = machine.boot;
        self.plan(RESTART, Happening::Start { at, boot });
    }

    /// Something dies after so many more actions were carried out, before the next.
    pub fn dies_after(&mut self, at: usize, actions: u64, dies: Dies) {
        self.machine(at).dies = Some((actions, dies));
    }

    /// Whether an action may still be carried out; if not, something has died here and now.
    pub(super) fn survives(&mut self, at: usize) -> bool {
        let Some((left, dies)) = &mut self.machine(at).dies else { return true };
        if *left > 0 {
            *left -= 1;
            return true;
        }
        let dies = *dies;
        self.machine(at).dies = None;
        match dies {
            Dies::Supervisor => {
                self.say(at, "[the supervisor dies]");
                self.restart_supervisor(at);
            }
            Dies::Machine => {
                self.say(at, "[the power fails]");
                self.power_off(at);
            }
        }
        false
    }

    /// dom0 does nothing for a while; the hypervisor and its watchdog go on.
    pub fn stall(&mut self, at: usize, time: Duration) {
        let until = self.now + time;
        let machine = self.machine(at);
        machine.stalled_until = machine.stalled_until.max(until);
    }

    /// The machine shares its processor with `share - 1` others that never sleep: from now on it runs in slices of up to
    /// `slice`, and waits `share - 1` times as long on average; both are drawn evenly, from one millisecond on.
    pub fn overcommit(&mut self, at: usize, share: u64, slice: Duration) {
        let most = u64::try_from(slice.as_millis()).unwrap_or(1).max(1);
        let waits = Duration::from_millis(1 + self.chance.below(most * (share - 1)));
        let runs = Duration::from_millis(1 + self.chance.below(most));
        self.stall(at, waits);
        self.plan(waits + runs, Happening::Deschedule { at, share, slice });
    }

    /// The machine's disks do not answer for a while.
    pub fn stall_disks(&mut self, at: usize, time: Duration) {
        let until = self.now + time;
        let machine = self.machine(at);
        machine.disks_stalled_until = machine.disks_stalled_until.max(until);
    }

    /// An operator chooses "shut down this node".
    pub fn ask_to_shut_down(&mut self, at: usize) {
        // Nobody can ask a machine that still boots.
        if self.machine(at).node.is_some() {
            self.note_leave(at);
            self.ask(at, Request::ShutDown);
        }
    }

    /// An operator asks a node for something.
    pub fn ask(&mut self, at: usize, request: Request) {
        if self.machine(at).node.is_some() {
            let id = RequestId(self.order);
            self.order += 1;
            self.note_asked(&request);
            self.tell_awake(at, Event::Asked { id, request });
        }
    }

    /// Tells a supervisor something, when its machine does not stall any more.
    fn tell_awake(&mut self, at: usize, event: Event) {
        let (now, machine) = (self.now, self.machine(at));
        let (stalled, life) = (machine.stalled_until.since(now), machine.life);
        if stalled.is_zero() {
            self.tell(at, event);
        } else {
            self.plan(stalled, Happening::Tell { at, life, event });
        }
    }

    /// A machine's storage is gone, and its shell notices.
    pub fn fail_storage(&mut self, at: usize) {
        self.tell_awake(at, Event::Failing { reason: Failing::Storage });
    }

    /// A domain dies by itself.
    pub fn crash(&mut self, vm: &str) {
        for machine in &mut self.machines {
            machine.domains.remove(vm);
        }
    }

    pub(super) fn start(&mut self, at: usize, boot: u64) {
        let (now, seed) = (self.now, self.chance.number());
        let machine = self.machine(at);
        if machine.boot != boot || machine.node.is_some() || !machine.on {
            return;
        }
        let Some((config, slot)) = self.starts_by(at) else {
            // It says so on its screen, until somebody has added it.
            return self.plan(BOOT, Happening::Start { at, boot });
        };
        let fresh = !self.machine(at).up;
        let Some(keys) = self.keys_at_start(at, config.key, fresh) else {
            return self.plan(BOOT, Happening::Start { at, boot });
        };
        let reads = self.reads();
        let machine = self.machine(at);
        if !core::mem::replace(&mut machine.up, true) && machine.watchdog {
            self.plan(WATCHDOG, Happening::Watchdog { at, boot });
        }
        let machine = self.machine(at);
        machine.config = Arc::clone(&config);
        let mut actions = Vec::new();
        let Machine { incarnation, start, lease, watchdog, version, .. } = *machine;
        let told = Boot { config, slot, incarnation, start, seed, watchdog, lease, keys, version };
        machine.node = Some(Node::new(told, machine.clock.shows(now), &mut actions));
        machine.petted = now;
        let life = machine.life;
        self.carry_out(at, actions);
        if !fresh {
            // A life before this one may not have come to it.
            self.keep(at);
        }
        self.plan(Duration::ZERO, Happening::Wake { at, life });
        self.plan(LOOK, Happening::Look { at, life });
        if !self.upses.is_empty() {
            self.plan(LOOK, Happening::ReadUpses { at, life });
        }
        if at > 0 && self.gfs2() {
            self.plan(LOOK, Happening::TellShared { at, life });
        } else if at > 0 {
            self.plan(LOOK * 2, Happening::Tell { at, life, event: reads });
        }
    }

    pub(super) fn tell(&mut self, at: usize, event: Event) {
        let now = self.now;
        let mut actions = Vec::new();
        let machine = self.machine(at);
        let shown = machine.clock.shows(now);
        let Some(node) = machine.node.as_mut() else { return };
        node.handle(shown, event, &mut actions);
        self.carry_out(at, actions);
        self.check_positions(at);
    }

    pub(super) fn wake(&mut self, at: usize, life: u64) {
        self.tell(at, Event::Tick);
        self.note_wake(at);
        let now = self.now;
        let machine = self.machine(at);
        let Some(deadline) = machine.node.as_ref().map(Node::deadline) else { return };
        let pause = machine.clock.when(deadline).since(now).max(Duration::from_millis(1));
        self.plan(pause, Happening::Wake { at, life });
    }

    pub(super) fn watchdog(&mut self, at: usize, boot: u64) {
        let now = self.now;
        let machine = self.machine(at);
        if machine.boot != boot || !machine.on {
            return;
        }
        let due = machine.petted + WATCHDOG;
        if due > now {
            return self.plan_at(due, Happening::Watchdog { at, boot });
        }
        self.say(at, "[watchdog resets the machine]");
        self.reset(at);
    }

    pub(super) fn look(&mut self, at: usize, life: u64) {
        let free = self.free(at);
        let domains = self.machine(at).domains.clone();
        self.tell(at, Event::Seen { domains, free });
        self.plan(LOOK, Happening::Look { at, life });
    }
}
