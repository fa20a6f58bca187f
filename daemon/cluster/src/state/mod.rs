//! The replicated state: who fills which slot, and who owns which VM. It changes by committed commands only.
//!
//! [`State::apply`] is the whole transition: a command that does not fit the present state (an older generation, another
//! owner, another incarnation) changes nothing. So a command may be proposed again and again until its effect is seen,
//! and an order that was overtaken dies here, on every node alike. `members.rs` has what concerns slots, `vms.rs` what
//! concerns VMs, `roster.rs` which slots there are, `rolling.rs` whose boots are replaced one after another, `decisions.rs` what of it outlives a
//! generation.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::config::{Config, Decisions, Duty, VmSpec};
use crate::event::{Machine, Transfer, VmFile};
use crate::fencing::{Cause, Death, Proven};
use crate::trace::Trace;
use crate::words::{ClusterGeneration, Generation, Identity, Mebibytes, Role, Slot, Supply, UpsId, View, VmName};

mod decisions;
mod lockspace;
mod members;
mod power;
mod rolling;
mod roster;
mod vms;

pub(crate) use lockspace::{Lockspace, Mount, Stands, Word};
pub(crate) use rolling::{Rolling, Turn, names};
pub(crate) use roster::Roster;

/// One committed step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Command {
    /// A host has read these VM files.
    Define(Vec<VmFile>),
    /// What a member's machine is.
    Machine(Identity, Machine),
    /// The DC holds this member for dead: it is unclean until proven off. The first attempt may begin.
    Suspect(Identity, Cause),
    /// This unclean member is heard again, and nobody may fence it: it is a member as before.
    Spare(Identity),
    /// This attempt at fencing has failed.
    NotProven(Identity, u32),
    /// The next attempt, of this number, may begin.
    Attempt(Identity, u32),
    /// It is proven off.
    Proven(Proven),
    /// Its outlets are on again.
    Restored(Identity),
    /// This member wants to leave.
    Leave(Identity),
    /// It runs nothing any more and is about to power off.
    Left(Identity),
    /// How this UPS stands.
    Ups(UpsId, Supply),
    /// This member is to leave for want of power.
    Withdraw(Identity),
    /// It need not: it has power again.
    Remain(Identity),
    /// It has left for want of power, and can have it again: its outlets are switched off and on.
    Wake(Identity),
    /// The operator has set this aside, or put it back.
    Duty(Slot, Duty),
    /// The operator has disarmed the whole cluster, or armed it again.
    Disarm(bool),
    /// The storage has reserved this epoch for the claims of this generation of the cluster.
    Epoch(u64),
    /// A stopped VM belongs to a node from here on.
    Assign(VmName, Generation, Identity),
    /// A VM that no record places runs on a node.
    Adopt(VmName, Identity),
    /// The owner (or the target after the source's death) runs it.
    Started(VmName, Generation),
    /// The owner does not run it any more, or could not start it.
    Ended(VmName, Generation, Ending),
    /// The owner shall hand it over; paused meanwhile or not.
    Migrate(VmName, Generation, Identity, Transfer),
    /// The target has it.
    Migrated(VmName, Generation),
    /// The target does not have it, and has nothing left of it.
    Stays(VmName, Generation),
    /// The owner shall end it in this way.
    Stop(VmName, Generation, Stop),
    /// It could not be ended in that way, and still runs.
    NotStopped(VmName, Generation),
    /// Whether the operator wants it to run.
    Want(VmName, bool),
    /// It has run long enough for its past failures to be forgotten.
    Settled(VmName, Generation),
    /// How this member stands to the shared file system, in the epoch of that number.
    Mount(Identity, u64, Word),
    /// It could not mount the shared file system, and is to try again.
    MountAgain(Identity),
    /// The next edition of `cluster.toml`: one node more, or one less, or one on trial no longer, or another key. Since version 3.
    Configure(String),
    /// A host has read what the operator had decided before this generation. Since version 3.
    Recall(Decisions),
    /// A rolling restart begins, of this number. Since version 4.
    Roll(u32),
    /// In the rolling restart of that number it is this boot's turn, which speaks this version at best. Since version 4.
    Turn(u32, Identity, u8),
    /// Whose turn it was is back as this boot. Since version 4.
    Returned(Identity),
    /// The rolling restart of that number is stopped, for this reason. Since version 4.
    StopRolling(u32, String),
}

/// How a VM is ended on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stop {
    /// Its memory is saved to the shared disk.
    Suspend,
    /// It is asked to shut down, and destroyed if it does not.
    ShutDown,
}

/// Why a VM ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ending {
    /// It could not be created there.
    NotStarted,
    /// Its domain vanished.
    Died,
    /// It was shut down on purpose.
    ShutDown,
    /// It was saved to the shared disk.
    Suspended,
}

/// How a slot stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Standing {
    /// Present; may be given VMs.
    Member,
    /// Present; its VMs are moved away.
    Leaving,
    /// Left in good order, and off.
    Off,
    /// Left in good order; its outlets are being switched off and on, so that it boots.
    Waking,
    /// Silent: what it runs is unknown. To be fenced.
    Unclean,
    /// Proven off by its outlets, which are to be switched on again.
    Fenced,
    /// It is expected to come back by itself.
    Booting,
}

/// Who fills a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// The identity that the record speaks of.
    pub(crate) identity: Identity,
    /// How it stands.
    pub(crate) standing: Standing,
    /// The number of the attempt at fencing that is under way, from 1.
    pub(crate) attempt: u32,
    /// The number of the last attempt that failed.
    pub(crate) failed: u32,
    /// Why it was held for dead, if it was.
    pub(crate) cause: Option<Cause>,
    /// Whether it leaves, or has left, for want of power.
    pub(crate) withdrawn: bool,
    /// What its machine is, once it has said so.
    pub(crate) machine: Option<Machine>,
}

/// Where a VM is in its life. Every phase but `Stopped` and `Failed` has an owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// It runs nowhere.
    Stopped,
    /// Its owner is to create it.
    Starting(Identity),
    /// Its owner runs it.
    Running(Identity),
    /// Its owner hands it over to `to`.
    Moving {
        /// The owner.
        from: Identity,
        /// The target.
        to: Identity,
        /// How.
        transfer: Transfer,
    },
    /// Its source was lost while it moved: the target knows whether it has it.
    Landing(Identity),
    /// Its owner is to end it.
    Stopping(Identity, Stop),
    /// It failed too often and waits for the operator.
    Failed,
}

/// The record of one VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Vm {
    /// What it needs.
    pub(crate) memory: Mebibytes,
    /// What the operator wants for it.
    pub(crate) spec: VmSpec,
    /// Whether the operator wants it to run.
    pub(crate) wanted: bool,
    /// Grows with every assignment.
    pub(crate) generation: Generation,
    /// Whether it came from an older generation of the cluster, and was not placed since. It may have been on its way then,
    /// so where it ends it may run on elsewhere.
    pub(crate) adopted: bool,
    /// Where it is in its life.
    pub(crate) phase: Phase,
    /// Whether an image of its memory is on the shared disk, to be resumed from.
    pub(crate) image: bool,
    /// How many steps of its evacuation contract have failed since it was last moved or started.
    pub(crate) steps: u8,
    /// How often in a row it could not be started.
    pub(crate) failures: u32,
    /// How often it died by itself.
    pub(crate) deaths: u32,
    /// Where it failed last: somewhere else is preferred.
    pub(crate) avoid: Option<Slot>,
    /// Where it ran last.
    pub(crate) home: Option<Slot>,
    /// The features of the processor on which it was started: it may use all of them.
    pub(crate) cpu: Vec<u32>,
}

/// Everything that is agreed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Which life of the cluster this is.
    pub(crate) generation: ClusterGeneration,
    /// The storage's epoch for the claims of this generation; 0 until it has reserved one.
    pub(crate) epoch: u64,
    /// Grows with every change of who fills which slot.
    pub(crate) view: View,
    /// The slots.
    pub(crate) members: BTreeMap<Slot, Member>,
    /// How a boot of each slot ended last, if not in good order.
    pub(crate) deaths: BTreeMap<Slot, Death>,
    /// How the UPSes stand; those that are missing have mains.
    pub(crate) supplies: BTreeMap<UpsId, Supply>,
    /// What the operator has set aside.
    pub(crate) duties: BTreeMap<Slot, Duty>,
    /// Whether the operator has disarmed the cluster: nobody is fenced, nobody fences itself.
    pub(crate) disarmed: bool,
    /// Grows whenever somebody is armed or disarmed, so that a node can say under which order it is armed.
    pub(crate) armament: u32,
    /// The VMs.
    pub(crate) vms: BTreeMap<VmName, Vm>,
    /// Who has the shared file system mounted.
    pub(crate) lockspace: Lockspace,
    /// The edition of `cluster.toml` that holds. It stands behind all else when the state is a snapshot.
    #[serde(skip)]
    pub(crate) roster: Roster,
    /// The VMs that are to be left stopped, and whose files were not read yet; `None` until it is known what the operator had
    /// decided before this generation. It stands behind the edition.
    #[serde(skip)]
    pub(crate) recalled: Option<BTreeSet<VmName>>,
    /// Whose boots are to be replaced. It stands behind what is recalled.
    #[serde(skip)]
    pub(crate) rolling: Rolling,
}

impl State {
    /// The state at formation. Whoever is not among `present` is unclean, but for a gateway: it runs no VMs.
    #[must_use]
    pub(crate) fn formed(config: &Config, generation: ClusterGeneration, present: &[Identity]) -> Self {
        let member = |slot: Slot, role: Role| match (present.iter().find(|identity| identity.slot == slot), role) {
            (Some(identity), _) => Member::new(*identity, Standing::Member),
            (None, Role::Node) => {
                let (attempt, cause) = (1, Some(Cause::Absent));
                Member { attempt, cause, ..Member::new(Identity::absent(slot), Standing::Unclean) }
            }
            (None, Role::Gateway) => Member::new(Identity::absent(slot), Standing::Off),
        };
        let members = config.slots().map(|(slot, node)| (slot, member(slot, node.role))).collect();
        let lockspace = Lockspace::formed(config, &members);
        Self {
            generation,
            epoch: 0,
            view: View(1),
            members,
            deaths: BTreeMap::new(),
            supplies: BTreeMap::new(),
            duties: BTreeMap::new(),
            disarmed: false,
            armament: 0,
            vms: BTreeMap::new(),
            lockspace,
            roster: Roster::of(config),
            recalled: None,
            rolling: Rolling::default(),
        }
    }

    /// Whether everybody in it is of this configuration, as a state that came as a snapshot must be.
    pub(crate) fn fits(&self, config: &Config) -> bool {
        let member = |(slot, member): (&Slot, &Member)| config.has(*slot) && member.identity.slot == *slot;
        let ends = |vm: &Vm| match vm.phase {
            Phase::Stopped | Phase::Failed => true,
            Phase::Starting(at) | Phase::Running(at) | Phase::Landing(at) | Phase::Stopping(at, _) => {
                config.has(at.slot)
            }
            Phase::Moving { from, to, .. } => config.has(from.slot) && config.has(to.slot),
        };
        let slots = self.members.len() == config.slots().count() && self.members.iter().all(member);
        let upses = self.supplies.keys().all(|ups| config.ups(*ups).is_some());
        slots
            && upses
            && self.lockspace.fits(config)
            && self.rolling.fits(config)
            && self.duties.keys().all(|slot| config.has(*slot))
            && self.vms.values().all(ends)
    }

    /// One committed command. What it changed is said by the DC; a command that does not fit changes nothing.
    pub(crate) fn apply(&mut self, config: &Config, command: Command) -> Vec<Trace> {
        let rolls = self.rolling.goes_on();
        let next = if let Command::Configure(text) = &command { Config::parse(text).ok() } else { None };
        let mut said = self.step(config, command);
        let config = next.as_ref().filter(|next| next.edition == self.roster.edition).unwrap_or(config);
        said.extend(self.advance(config));
        said.extend(self.roll(config, rolls));
        said
    }

    fn step(&mut self, config: &Config, command: Command) -> Vec<Trace> {
        let said = match command {
            Command::Define(files) => return self.define(files),
            Command::Machine(identity, machine) => {
                self.describe(identity, machine);
                None
            }
            Command::Suspect(identity, cause) => self.suspect(config, identity, cause),
            Command::Spare(identity) => self.spare(config, identity),
            Command::NotProven(identity, attempt) => {
                self.not_proven(identity, attempt);
                None
            }
            Command::Attempt(identity, attempt) => {
                self.attempt(identity, attempt);
                None
            }
            Command::Proven(proven) => return self.proven(config, &proven),
            Command::Restored(identity) => self.restored(config, identity),
            Command::Leave(identity) => self.leave(config, identity),
            Command::Left(identity) => return self.left(config, identity),
            Command::Ups(ups, supply) => self.set_supply(config, ups, supply),
            Command::Withdraw(identity) => self.withdraw(config, identity),
            Command::Remain(identity) => self.remain(config, identity),
            Command::Wake(identity) => {
                self.wake(identity);
                None
            }
            Command::Duty(slot, duty) => self.set_duty(config, slot, duty),
            Command::Disarm(disarmed) => self.disarm(disarmed),
            Command::Epoch(epoch) => self.take_epoch(epoch),
            Command::Assign(vm, generation, to) => self.assign(config, vm, generation, to),
            Command::Adopt(vm, at) => self.adopt(config, vm, at),
            Command::Started(vm, generation) => self.started(config, vm, generation),
            Command::Ended(vm, generation, ending) => return self.ended(config, &vm, generation, ending),
            Command::Migrate(vm, generation, to, transfer) => self.migrate(config, vm, (generation, to, transfer)),
            Command::Migrated(vm, generation) => self.migrated(config, vm, generation),
            Command::Stays(vm, generation) => self.stays(config, vm, generation),
            Command::Stop(vm, generation, stop) => self.stop(config, vm, generation, stop),
            Command::NotStopped(vm, generation) => self.not_stopped(config, vm, generation),
            Command::Want(vm, wanted) => self.want(vm, wanted),
            Command::Settled(vm, generation) => {
                self.settled(&vm, generation);
                None
            }
            Command::Mount(identity, number, word) => self.hear_mount(config, identity, (number, word)),
            Command::MountAgain(identity) => {
                self.mount_again(identity);
                None
            }
            Command::Configure(text) => self.configure(config, text),
            Command::Recall(decisions) => return self.recall(config, decisions),
            Command::Roll(number) => return self.begin_rolling(config, number),
            Command::Turn(number, at, speaks) => self.take_turn(config, (number, at, speaks)),
            Command::Returned(at) => self.returned(config, at),
            Command::StopRolling(number, reason) => return self.stop_rolling(number, reason),
        };
        said.into_iter().collect()
    }
}

fn name(config: &Config, slot: Slot) -> String {
    config.node_name(slot)
}
