//! The shared file system in each machine's kernel: the lockspace, recovery, mounts and unmounts.
//!
//! A kernel does what it is told, be it to the ruin of the file system; it recovers when all the members run with the same
//! epoch, and mounts, unmounts and goes on only then. It knows nothing of supervisors: it outlives them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster::config::FileSystem;
use cluster::event::{Event, LockspaceOrder, Outcome, SharedState};
use cluster::words::{Instant, LockEpoch};

use super::machine::Machine;
use super::{Caller, Happening, World};

/// How long a kernel takes to stop or to start a lockspace.
const SWITCH: Duration = Duration::from_millis(20);
/// How often a kernel looks whether it can go on.
const LOOK: Duration = Duration::from_millis(100);
/// How long a mount takes, once the lockspace has recovered.
const MOUNT: Duration = Duration::from_millis(400);
/// How long an unmount takes.
const UNMOUNT: Duration = Duration::from_millis(700);

/// What is wrong with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nothing.
    #[default]
    None,
    /// It is not mounted: there is no journal for it.
    Refuses,
    /// The lockspace does not stop.
    Deaf,
    /// It is not unmounted: something is open on it.
    Clings,
}

/// How a lockspace stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Stands {
    #[default]
    Absent,
    Held,
    Running,
    Withdrawn,
}

/// One machine's kernel.
#[derive(Debug, Clone, Default)]
pub(super) struct Kernel {
    pub(super) stands: Stands,
    pub(super) epoch: LockEpoch,
    pub(super) members: BTreeSet<usize>,
    pub(super) mounted: bool,
    pub(super) trouble: Trouble,
    /// How many orders to hold or to run have come: the last one counts.
    orders: u64,
    /// The epochs in which it has run.
    ran: Vec<LockEpoch>,
}

/// What a kernel works on.
#[derive(Debug, Clone)]
pub(super) struct Step {
    caller: Caller,
    order: LockspaceOrder,
    until: Instant,
    nth: u64,
    /// Whether the lockspace was started for it.
    started: bool,
    /// Whether recovery has ended, and a mount or an unmount is under way.
    ripe: bool,
}

fn failed(reason: &str) -> Outcome {
    Outcome::Failed(reason.to_owned())
}

impl World {
    pub(super) fn gfs2(&self) -> bool {
        self.config.shared == FileSystem::Gfs2
    }

    /// Something is wrong with the shared file system of a machine, or not any more.
    pub(super) fn trouble_shared(&mut self, at: usize, trouble: Trouble) {
        self.machine(at).kernel.trouble = trouble;
    }

    /// A machine's file system gives up.
    pub(super) fn withdraw_shared(&mut self, at: usize) {
        let kernel = &mut self.machine(at).kernel;
        if kernel.mounted {
            (kernel.stands, kernel.orders) = (Stands::Withdrawn, kernel.orders + 1);
            self.tell_shared(at, LOOK);
        }
    }

    /// The shell tells how it stands, and of the files on it.
    pub(super) fn tell_shared(&mut self, at: usize, after: Duration) {
        let machine = self.machine(at);
        let (life, Kernel { stands, epoch, mounted, .. }) = (machine.life, machine.kernel.clone());
        let state = match stands {
            Stands::Absent => SharedState::Absent,
            Stands::Held => SharedState::Held { epoch },
            Stands::Running => SharedState::Running { epoch, mounted },
            Stands::Withdrawn => SharedState::Withdrawn,
        };
        self.plan(after, Happening::Tell { at, life, event: Event::Shared { state } });
        if mounted {
            let event = self.reads();
            self.plan(after, Happening::Tell { at, life, event });
        }
    }

    pub(super) fn order_kernel(&mut self, caller: Caller, order: LockspaceOrder, until: Instant) {
        let kernel = &mut self.machine(caller.at).kernel;
        kernel.orders += u64::from(order != LockspaceOrder::LetGo);
        let nth = kernel.orders;
        self.plan(SWITCH, Happening::Kernel(Step { caller, order, until, nth, started: false, ripe: false }));
    }

    pub(super) fn kernel_steps(&mut self, step: Step) {
        let machine = self.machine(step.caller.at);
        if machine.boot != step.caller.boot {
            return;
        }
        let overtaken = step.nth != machine.kernel.orders && step.order != LockspaceOrder::LetGo;
        if overtaken || machine.kernel.stands == Stands::Withdrawn {
            return self.done(step.caller, failed("a newer order has come"));
        }
        match step.order.clone() {
            LockspaceOrder::Hold { epoch, .. } => self.kernel_holds(step, epoch),
            LockspaceOrder::Run { epoch, members, mount } => {
                let members = members.into_iter().filter_map(|(slot, _)| self.seat(step.caller.at, slot)).collect();
                if step.started || self.kernel_starts(&step, epoch, members) {
                    self.kernel_mounts(Step { started: true, ..step }, mount);
                }
            }
            LockspaceOrder::LetGo => self.kernel_lets_go(step),
        }
    }

    /// Looks again later, or fails when its time is up.
    fn kernel_waits(&mut self, step: Step, why: &str) {
        if self.now >= step.until {
            self.done(step.caller, failed(why));
        } else {
            self.plan(LOOK, Happening::Kernel(step));
        }
    }

    fn kernel_holds(&mut self, step: Step, epoch: LockEpoch) {
        let machine = self.machine(step.caller.at);
        // Whoever was to stop it is gone.
        if machine.life != step.caller.life {
            return;
        }
        let kernel = &mut machine.kernel;
        match kernel.stands {
            Stands::Absent => {}
            Stands::Held | Stands::Running | Stands::Withdrawn if kernel.trouble == Trouble::Deaf => {
                return self.kernel_waits(step, "the kernel does not answer");
            }
            Stands::Held | Stands::Running | Stands::Withdrawn => {
                (kernel.stands, kernel.epoch) = (Stands::Held, epoch);
                self.tell_shared(step.caller.at, Duration::from_millis(1));
            }
        }
        self.done(step.caller, Outcome::Succeeded);
    }

    /// Starts the lockspace, unless it has been; whether it runs.
    fn kernel_starts(&mut self, step: &Step, epoch: LockEpoch, members: BTreeSet<usize>) -> bool {
        let at = step.caller.at;
        let machine = self.machine(at);
        let kernel = &mut machine.kernel;
        if kernel.stands == Stands::Running && kernel.epoch == epoch {
            return true;
        }
        // Whoever was to start it is gone.
        if machine.life != step.caller.life {
            return false;
        }
        let again = kernel.stands == Stands::Absent && kernel.ran.contains(&epoch);
        (kernel.stands, kernel.epoch, kernel.members) = (Stands::Running, epoch, members);
        kernel.ran.push(epoch);
        self.note_lockspace(at, again);
        self.tell_shared(at, Duration::from_millis(1));
        true
    }

    /// Whether all the members run with the same epoch, so that the lockspace can recover.
    fn is_recovered(&self, at: usize) -> bool {
        let Some(kernel) = self.machines.get(at).map(|machine| &machine.kernel) else { return false };
        let runs = |other: &usize| {
            let other = self.machines.get(*other).map(|machine| &machine.kernel);
            other.is_some_and(|other| other.stands == Stands::Running && other.epoch == kernel.epoch)
        };
        kernel.stands == Stands::Running && kernel.members.iter().all(runs)
    }

    /// Whether a machine's shared disk answers.
    fn has_shared_disk(&mut self, at: usize) -> bool {
        let now = self.now;
        self.machine(at).disks_stalled_until <= now && self.storage_answers(at)
    }

    fn kernel_mounts(&mut self, step: Step, mount: bool) {
        let at = step.caller.at;
        if self.machine(at).kernel.stands == Stands::Absent {
            return self.done(step.caller, failed("it was unmounted meanwhile"));
        }
        if !self.is_recovered(at) || !self.has_shared_disk(at) {
            return self.kernel_waits(Step { ripe: false, ..step }, "it was not recovered in time");
        }
        let kernel = &mut self.machine(at).kernel;
        if mount && !kernel.mounted {
            if !step.ripe {
                return self.plan(MOUNT, Happening::Kernel(Step { ripe: true, ..step }));
            }
            kernel.mounted = kernel.trouble != Trouble::Refuses;
            if !kernel.mounted {
                kernel.stands = Stands::Absent;
                self.tell_shared(at, Duration::from_millis(1));
                return self.done(step.caller, failed("there is no journal for it"));
            }
            self.tell_shared(at, Duration::from_millis(1));
        }
        self.done(step.caller, Outcome::Succeeded);
    }

    fn kernel_lets_go(&mut self, step: Step) {
        let at = step.caller.at;
        let clings = self.machine(at).kernel.trouble == Trouble::Clings;
        if clings || !self.is_recovered(at) || !self.has_shared_disk(at) {
            return self.kernel_waits(Step { ripe: false, ..step }, "something is open on it, or it is held");
        }
        if !step.ripe {
            return self.plan(UNMOUNT, Happening::Kernel(Step { ripe: true, ..step }));
        }
        let kernel = &mut self.machine(at).kernel;
        (kernel.stands, kernel.mounted) = (Stands::Absent, false);
        self.tell_shared(at, Duration::from_millis(1));
        self.done(step.caller, Outcome::Succeeded);
    }

    /// Before a kernel's members go on: whoever else has the file system must be one of them, and run with them or not at all.
    pub(super) fn note_lockspace(&mut self, at: usize, again: bool) {
        let breach = self.one_lockspace(at).or_else(|| self.dropped_when_gone(at));
        let again = again.then(|| format!("nobody comes back into an epoch: {} does", self.name(at)));
        self.breaks(breach.or(again));
    }

    /// The other machines that have it, and that can write.
    fn others_with_it(&self, at: usize) -> BTreeMap<usize, &Kernel> {
        let others = self.machines.iter().enumerate().filter(|(other, _)| *other != at);
        let here = others.filter(|(_, machine)| machine.on && !self.barred.contains(&machine.incarnation));
        here.map(|(other, machine)| (other, &machine.kernel)).filter(|(_, k)| k.stands != Stands::Absent).collect()
    }

    /// All the kernels whose lockspace runs have the same members.
    fn one_lockspace(&self, at: usize) -> Option<String> {
        let kernel = &self.machines.get(at)?.kernel;
        let differs = |other: &&Kernel| {
            other.stands == Stands::Running && (other.epoch != kernel.epoch || other.members != kernel.members)
        };
        let (other, _) = self.others_with_it(at).into_iter().find(|(_, other)| differs(other))?;
        Some(format!("one lockspace: {} runs it with other members than {}", self.name(at), self.name(other)))
    }

    /// A member is left out only when it is off, has let go, or cannot write any more.
    fn dropped_when_gone(&self, at: usize) -> Option<String> {
        let members = &self.machines.get(at)?.kernel.members;
        let (other, _) = self.others_with_it(at).into_iter().find(|(other, _)| !members.contains(other))?;
        Some(format!("a member is dropped when it is gone: {} runs without {}", self.name(at), self.name(other)))
    }

    /// Whether every node has the file system mounted, in one epoch. To be asked of a world that has come right again.
    pub(super) fn not_shared(&self) -> Option<String> {
        if !self.gfs2() {
            return None;
        }
        let agreed = self.agreed();
        let machines = || self.machines.iter().enumerate().skip(1);
        let named = |machine: &Machine| agreed.named(&machine.name).is_some();
        let nodes = || machines().filter(|(_, machine)| named(machine)).map(|(at, machine)| (at, &machine.kernel));
        let epoch = nodes().next()?.1.epoch;
        let well = |at: usize, kernel: &Kernel| self.is_recovered(at) && kernel.mounted && kernel.epoch == epoch;
        let (at, kernel) =
            nodes().find(|(at, kernel)| !well(*at, kernel) || kernel.members.len() != nodes().count())?;
        Some(format!("the shared file system of {} is not well: {kernel:?}", self.name(at)))
    }
}

/// What only canaries do.
impl World {
    /// As if a machine's kernel ran the lockspace with these members, in an epoch of this number.
    pub fn pretend_lockspace(&mut self, at: usize, members: &[usize], number: u64) {
        let kernel = &mut self.machine(at).kernel;
        kernel.stands = Stands::Running;
        kernel.epoch.number = number;
        kernel.members = members.iter().copied().collect();
        self.note_lockspace(at, false);
    }

    /// As if a machine's kernel was held.
    pub fn hold_shared(&mut self, at: usize) {
        self.machine(at).kernel.stands = Stands::Held;
    }

    /// As if a machine's kernel had unmounted the file system, and was started again in the same epoch.
    pub fn pretend_to_come_back(&mut self, at: usize) {
        self.note_lockspace(at, true);
    }
}
