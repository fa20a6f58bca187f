//! What a node is told ([`Event`]) and what it wants done ([`Action`]): the whole meeting place of core and shell.
//!
//! Everything long carries an [`OpId`] and the instant at which the node gives it up; its end comes back as
//! [`Event::Done`]. An outcome of an operation that the node no longer waits for is ignored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::{Decisions, VmSpec};
use crate::fencing::Readings;
use crate::trace::Trace;
use crate::words::{
    Claim, Edition, Failing, Generation, Incarnation, Instant, LinkId, LockEpoch, Mebibytes, OpId, Outlet, Slot, UpsId,
    VmName,
};

/// What a node is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// When the deadline has come.
    Tick,
    /// When a datagram came in whose seal was good. The core still checks every field.
    Heard {
        /// On which link. The same datagram comes on every link that works.
        link: LinkId,
        /// The plain text.
        datagram: Vec<u8>,
    },
    /// When the shell has read from Xen what runs: always the whole list.
    Seen {
        /// Every domain but dom0, by its name.
        domains: BTreeMap<String, Domain>,
        /// What Xen could still give to a new domain.
        free: Mebibytes,
    },
    /// When the shell has read the shared file system: always the whole list.
    Read {
        /// The VMs that the files describe.
        files: Vec<VmFile>,
        /// What the operator has decided; nothing where nothing is kept.
        decisions: Decisions,
    },
    /// When an operation ended.
    Done {
        /// Which.
        op: OpId,
        /// How.
        outcome: Outcome,
    },
    /// When another node asks over an authenticated stream for a VM that runs here.
    Pulled {
        /// The shell's name for the waiting stream.
        stream: StreamId,
        /// The VM.
        vm: VmName,
        /// The generation of the migration that the other node acts on.
        generation: Generation,
        /// Who asks.
        by: Slot,
    },
    /// When the shell has found out what this machine is.
    Described {
        /// What it is.
        machine: Machine,
    },
    /// When this machine is past help: the shell knows that it will not come right without a new boot.
    Failing {
        /// Why.
        reason: Failing,
    },
    /// When the shell has read a UPS, or cannot: each reading that differs from the one before.
    Ups {
        /// Which.
        ups: UpsId,
        /// What it says; or why it is not heard, in words for the operator.
        reading: Result<UpsReading, String>,
    },
    /// When the shell has found out how the shared file system stands in this machine's kernel: once after its start, and
    /// whenever that has changed. What an operation has changed is told before the operation's end. Only where the
    /// configuration says that it is GFS2.
    Shared {
        /// How it stands.
        state: SharedState,
    },
    /// When an edition of `cluster.toml` is kept ([`Action::Configured`]): on the gateway, where it outlives everybody's power.
    Kept {
        /// Which.
        edition: Edition,
    },
    /// When the shell has been given a key of the cluster ([`Action::AskForKey`]), and opens what is sealed with it too.
    Keyed {
        /// Its number.
        key: u32,
    },
    /// When the operator asks for something.
    Asked {
        /// The shell's name for the question. The same name is the same question, however often it comes.
        id: RequestId,
        /// What.
        request: Request,
    },
}

/// What a machine is, as far as placement cares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// All of its memory.
    pub memory: Mebibytes,
    /// The processor's feature words, as Xen shows them (`hw_caps`).
    pub cpu: Vec<u32>,
}

/// How the shared file system stands in a machine's kernel. It survives the supervisor; so the shell keeps the epoch beside it
/// (in /run), and writes it down *before* it lets the kernel run: what is told may be too little, never too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedState {
    /// It is not mounted, nothing mounts it, and the kernel has no lockspace of it.
    Absent,
    /// The kernel has the lockspace, and holds it: it was stopped for the change that begins this epoch, or a mount has only
    /// just made it.
    Held {
        /// Of the order that was obeyed last; zero where nothing is known of it.
        epoch: LockEpoch,
    },
    /// The lockspace runs, or may run, with the members of this epoch.
    Running {
        /// Of the order that was obeyed last; zero where nothing is known of it.
        epoch: LockEpoch,
        /// Whether the file system is mounted and answers: recovery has ended.
        mounted: bool,
    },
    /// The file system has withdrawn: it will not come right without a new boot.
    Withdrawn,
}

/// What is to become of the shared file system's lockspace in this machine's kernel (`S` is its folder in sysfs).
///
/// The newest of `Hold` and `Run` counts: one that comes while another is open ends that at once, as failed; and nothing that
/// belongs to an order happens after its end or after the supervisor's, but for a mount or an unmount that waits in the
/// kernel. A `LetGo` stays open while the lockspace is held and run again; a `Run` that is open when it has succeeded has
/// failed, and starts nothing any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockspaceOrder {
    /// Stop the lockspace (`S/control` = 0), if there is one. It ends when nothing runs any more; a kernel that has none
    /// obeys at once, and stays [`SharedState::Absent`].
    Hold {
        /// The epoch that is about to begin.
        epoch: LockEpoch,
        /// The boots that may be a member in it. What the kernel remembers of its talks with any other boot of a node is
        /// forgotten, after the lockspace has stopped and before anybody runs again.
        boots: Vec<(Slot, Incarnation)>,
    },
    /// Write the members, and start. It ends when recovery has ended, and the file system is mounted if that is wanted. If it
    /// fails so that the kernel has no lockspace any more, that is told as [`SharedState::Absent`].
    Run {
        /// The epoch that begins.
        epoch: LockEpoch,
        /// Every member, this node among them. One whose boot was not known when all held is met anew.
        members: Vec<(Slot, Incarnation)>,
        /// Whether to mount the file system if it is not; `false` where it is being let go of.
        mount: bool,
    },
    /// Unmount. It ends when the kernel has no lockspace any more: [`SharedState::Absent`] was told before.
    LetGo,
}

/// What a UPS says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpsReading {
    /// Whether it feeds from its battery.
    pub on_battery: bool,
    /// Whether it holds the battery for nearly empty.
    pub low: bool,
    /// Whether somebody has ordered all that it feeds to shut down (NUT's FSD).
    pub ordered: bool,
    /// The battery's charge in percent, if it says so.
    pub charge_percent: Option<u8>,
    /// For how many seconds the battery lasts, if it says so.
    pub runtime_s: Option<u32>,
}

/// A domain as Xen reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// It runs, or could (running or blocked).
    Running,
    /// It is paused: being built, being received, being sent, or stuck.
    Paused,
    /// It is on its way out.
    Dying,
}

/// A VM as its file describes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VmFile {
    /// Its name.
    pub name: VmName,
    /// What it needs of Xen's memory.
    pub memory: Mebibytes,
    /// What the operator wants for it.
    pub spec: VmSpec,
}

/// The shell's name for a stream that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// The shell's name for a question of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// What an operator may ask of a node. All but the first may be asked of any node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Move the VMs away, leave the cluster, power this machine off.
    ShutDown,
    /// The node takes no VMs, and its own are moved away; or takes part again.
    Standby {
        /// Which.
        node: Slot,
        /// Whether it is to be in standby.
        on: bool,
    },
    /// The cluster touches nothing on the node; or does again.
    Maintenance {
        /// Which.
        node: Slot,
        /// Whether it is to be in maintenance.
        on: bool,
    },
    /// The node is not fenced and does not fence itself; or is armed again.
    Disarm {
        /// Which; `None` for the whole cluster.
        node: Option<Slot>,
        /// Whether it is to be disarmed.
        on: bool,
    },
    /// The VM is to run. If it had failed, it is tried again.
    Start {
        /// Which.
        vm: VmName,
    },
    /// The VM is shut down, and not started until it is wanted again.
    Stop {
        /// Which.
        vm: VmName,
    },
    /// The VM is moved live.
    Migrate {
        /// Which.
        vm: VmName,
        /// Where to.
        to: Slot,
    },
    /// The operator has made sure that an unclean node is off.
    ConfirmOff {
        /// Which.
        node: Slot,
        /// Its name, as the operator has typed it.
        typed: String,
    },
    /// The cluster gets one node more.
    AddNode {
        /// Its table of `cluster.toml`: what stands below `[[node]]`.
        table: String,
    },
    /// The cluster gets one node less. It is off, and does not come back.
    RemoveNode {
        /// Which.
        node: Slot,
        /// Its name, as the operator has typed it.
        typed: String,
    },
    /// Fence a node that is in standby, to see that it falls silent and that nobody else does.
    Drill {
        /// Which.
        node: Slot,
    },
    /// The cluster goes by another key.
    ChangeKey {
        /// Its number: the next one.
        key: u32,
    },
    /// Every node leaves in good order, boots anew and comes back, one after another; or no other does.
    Rolling {
        /// Whether it is to go on.
        on: bool,
    },
}

/// What an operator is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is agreed; what follows from it is seen in the status.
    Agreed,
    /// It is refused, for this reason.
    Refused(String),
}

/// How a VM's memory is copied from one node to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transfer {
    /// While it runs.
    Live,
    /// While it is paused.
    Paused,
}

/// By which way outlets are switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// SNMP.
    Snmp,
    /// The power switches' serial lines, whose cables this node holds.
    Serial,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As wanted.
    Succeeded,
    /// Not, for this reason, in words for the operator.
    Failed(String),
    /// A fencing ended with these readings of the outlets.
    Read(Readings),
    /// The storage has reserved this epoch; never 0.
    Reserved(u64),
    /// The storage has barred this boot of a node: its connections are gone, and no request of it is in flight.
    Barred(Incarnation),
}

/// To whom a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// Every node, on every link.
    All,
    /// One node, on every link.
    Node(Slot),
}

/// What a node wants done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Seal and send.
    Send {
        /// To whom.
        to: To,
        /// The plain text.
        datagram: Vec<u8>,
    },
    /// Say this in the event log.
    Trace(Trace),
    /// Begin a long operation.
    Begin {
        /// Its name.
        op: OpId,
        /// When the node gives it up; the shell ends it then and reports a failure.
        deadline: Instant,
        /// What to do.
        work: Work,
    },
    /// Close a waiting stream with this answer.
    Refuse {
        /// The stream that is refused.
        stream: StreamId,
        /// Why.
        reason: String,
    },
    /// Pet the watchdog. It is not petted otherwise.
    Pet {
        /// Until when this node goes on petting it if it never becomes quorate again; `None` if it never was, and has no
        /// VMs. The shell keeps it for a supervisor that is restarted (`node::Boot`).
        lease: Option<Instant>,
    },
    /// Tell the operator.
    Answer {
        /// Which question.
        id: RequestId,
        /// What.
        answer: Answer,
    },
    /// This node goes by another edition of `cluster.toml` from now on. It is to be kept, so that the next boot goes by it too,
    /// unless a newer one is kept; then [`Event::Kept`]. And the addresses of the nodes are those of this text.
    Configured {
        /// The edition.
        edition: Edition,
        /// The whole text.
        text: String,
    },
    /// Power this machine off: it runs nothing any more and has left.
    PowerOff,
    /// Have the gateway asked, as when this machine joined, for the key that members are to hold now; then [`Event::Keyed`].
    AskForKey,
    /// Other keys than before, until that is said again.
    Keys {
        /// The number of the one to seal with.
        seal: u32,
        /// The oldest to open with: older ones are forgotten.
        least: u32,
    },
    /// Boot this machine anew: it runs nothing any more and has left, to come back.
    Restart,
}

/// A long operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Claim the VM's disks, then create its domain.
    Create {
        /// The VM.
        vm: VmName,
        /// By what its disks are claimed.
        claim: Claim,
        /// Whether to resume it from its image on the shared disk, which is gone afterwards.
        resume: bool,
    },
    /// Claim the VM's disks, ask `from` for the VM and receive it.
    Receive {
        /// The VM.
        vm: VmName,
        /// By what its disks are claimed; it bears the migration's generation.
        claim: Claim,
        /// Where it runs.
        from: Slot,
    },
    /// Send the VM into a stream that asked for it.
    Push {
        /// The VM.
        vm: VmName,
        /// The stream.
        stream: StreamId,
        /// How.
        transfer: Transfer,
    },
    /// Save the VM's memory to the shared disk; its domain is gone then.
    Suspend {
        /// The VM.
        vm: VmName,
    },
    /// Ask the guest to shut down, and wait until its domain is gone.
    Shutdown {
        /// The VM.
        vm: VmName,
    },
    /// Destroy a domain, by its name as Xen has it.
    Destroy {
        /// The domain's name.
        domain: String,
    },
    /// Switch every one of these outlets off and read them back.
    OutletsOff {
        /// Whose they are.
        slot: Slot,
        /// All of them.
        outlets: Vec<Outlet>,
        /// By which way.
        path: Path,
    },
    /// Switch them on and read them back.
    OutletsOn {
        /// Whose they are.
        slot: Slot,
        /// All of them.
        outlets: Vec<Outlet>,
        /// By which way.
        path: Path,
    },
    /// Reserve a new epoch of claims at the storage, so that it is never handed out again.
    Reserve,
    /// Keep this on the shared file system, so that whatever happens either it or what was kept before is read.
    Keep(Decisions),
    /// Have the kernel do this with the shared file system's lockspace.
    Lockspace(LockspaceOrder),
    /// Order a UPS to switch its load off, and on again when it has mains: at once if it has.
    CutLoad {
        /// Which.
        ups: UpsId,
    },
    /// Bar this boot of a node from the storage.
    Bar {
        /// Whose.
        slot: Slot,
        /// Which boot.
        incarnation: Incarnation,
    },
}

/// Actions in order.
pub type Actions = Vec<Action>;
