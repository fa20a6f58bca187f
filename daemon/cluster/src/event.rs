//! What a node is told ([`Event`]) and what it wants done ([`Action`]): the whole meeting place of core and shell.
//!
//! Everything long carries an [`OpId`] and the instant at which the node gives it up; its end comes back as
//! [`Event::Done`]. An outcome of an operation that the node no longer waits for is ignored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::fencing::Readings;
use crate::trace::Trace;
use crate::words::{Generation, Instant, LinkId, Mebibytes, OpId, Outlet, Slot, VmName};

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
    /// When the shell has read the VM files: always the whole list.
    Read {
        /// The VMs that the files describe.
        files: Vec<VmFile>,
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
    /// When the operator asks for something.
    Asked {
        /// What.
        request: Request,
    },
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
}

/// The shell's name for a stream that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// What an operator may ask of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Move the VMs away, leave the cluster, power this machine off.
    ShutDown,
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
    Pet,
    /// Power this machine off: it runs nothing any more and has left.
    PowerOff,
}

/// A long operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Have the VM's disks, then create its domain.
    Create {
        /// The VM.
        vm: VmName,
        /// Its generation.
        generation: Generation,
    },
    /// Have the VM's disks, ask `from` for the VM and receive it.
    Receive {
        /// The VM.
        vm: VmName,
        /// The migration's generation.
        generation: Generation,
        /// Where it runs.
        from: Slot,
    },
    /// Send the VM into a stream that asked for it.
    Push {
        /// The VM.
        vm: VmName,
        /// The stream.
        stream: StreamId,
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
    },
    /// Switch them on and read them back.
    OutletsOn {
        /// Whose they are.
        slot: Slot,
        /// All of them.
        outlets: Vec<Outlet>,
    },
}

/// Actions in order.
pub type Actions = Vec<Action>;
