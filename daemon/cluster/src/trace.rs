//! Everything worth saying, each with one fixed text: the event log is made of these and of nothing else.
//!
//! What is decided for the whole cluster is said once, by the DC that decided it; what a node does or suffers is said by
//! that node.

use core::fmt;
use core::time::Duration;

use crate::event::{Path, Transfer};
use crate::fencing::{Death, Method};
use crate::words::{
    ClusterGeneration, Edition, Failing, Generation, Incarnation, Mebibytes, Outlet, Supply, View, VmName,
};

mod kind;

pub use kind::{Kind, Severity};

/// One thing worth saying. Nodes are named as in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is documented by its text below, and its fields by their names")]
pub enum Trace {
    Up { incarnation: Incarnation, start: u8 },
    Speaks { version: u8 },
    Heard { node: String, incarnation: Incarnation },
    Quiet { node: String, silence: Duration },
    Back { node: String, silence: Duration },
    LinkQuiet { node: String, network: String, silence: Duration },
    LinkBack { node: String, network: String },
    Failing { reason: Failing },
    SaysFailing { node: String, reason: Failing },
    Forming { generation: ClusterGeneration, nodes: Vec<String> },
    Joined { generation: ClusterGeneration },
    Abandoned { generation: ClusterGeneration, reason: &'static str },
    BecameDc { view: View },
    NoLongerDc,
    Quorate,
    Inquorate,
    Recalled { node: String, death: Death },
    Filled { node: String, incarnation: Incarnation, view: View },
    Added { node: String, edition: Edition, majority: usize, votes: usize },
    Removed { node: String, edition: Edition, majority: usize, votes: usize },
    Configured { edition: Edition },
    Shunned { node: String, incarnation: Incarnation },
    WasRemoved { edition: Edition },
    Rekeyed { key: u32, edition: Edition },
    KeyHeld { key: u32 },
    KeyAwaited { key: u32 },
    KeyAlone { key: u32 },
    Absent { node: String },
    Suspected { node: String, silence: Duration },
    SuspectedFailing { node: String },
    Fencing { node: String, outlets: Vec<Outlet>, path: Path },
    Barring { node: String },
    AwaitingWatchdog { node: String, wait: Duration },
    NotArmed { node: String },
    Spared { node: String },
    TrialBegins { node: String },
    TrialEnded { node: String, edition: Edition },
    DrillPassed { node: String },
    DrillFailed { node: String, reason: String },
    FencedAlive,
    Supply { ups: String, supply: Supply },
    UpsSilent { ups: String, reason: String },
    UpsHeard { ups: String },
    Withdrawn { node: String },
    Remains { node: String },
    Sheds { vm: VmName },
    Waking { node: String, outlets: Vec<Outlet> },
    CutsLoad { ups: String },
    NotCut { ups: String, reason: String },
    Duty { node: String, standby: bool, maintenance: bool, disarmed: bool },
    Disarmed,
    Armed,
    Wanted { vm: VmName },
    Unwanted { vm: VmName },
    Asked { request: String },
    Refused { request: String, reason: String },
    NotFenced { node: String, reason: String },
    Fenced { node: String, method: Method },
    PoweringOn { node: String, outlets: Vec<Outlet> },
    PoweredOn { node: String },
    NotPoweredOn { node: String, reason: String },
    Defined { vm: VmName, memory: Mebibytes },
    Adopted { vm: VmName, node: String, generation: Generation },
    Assigned { vm: VmName, node: String, generation: Generation },
    NoRoom { vm: VmName, reason: String },
    MakesRoom { vm: VmName },
    Creating { vm: VmName, generation: Generation },
    Resuming { vm: VmName, generation: Generation },
    Started { vm: VmName, node: String, generation: Generation },
    NotStarted { vm: VmName, reason: String },
    Ended { vm: VmName, node: String, ending: &'static str },
    Lost { vm: VmName, node: String },
    GaveUp { vm: VmName, attempts: u32 },
    Moving { vm: VmName, from: String, to: String, generation: Generation, transfer: Transfer },
    Pulling { vm: VmName, from: String },
    Pushing { vm: VmName, to: String },
    Moved { vm: VmName, to: String, generation: Generation },
    NotMoved { vm: VmName, from: String, reason: String },
    Stays { vm: VmName, node: String, reason: &'static str },
    Destroying { domain: String, reason: &'static str },
    ShuttingDown { vm: VmName, node: String },
    Suspending { vm: VmName, node: String },
    Leaving { node: String },
    Left { node: String },
    PoweringOff,
    SelfFencing { silence: Duration },
    PastHelp { reason: Failing },
    Malformed { reason: &'static str },
    NotPushed { vm: VmName, reason: String },
    NotDestroyed { domain: String, reason: String },
    NotShutDown { vm: VmName, reason: String },
    NotReserved { reason: String },
    Decided,
    NotKept { reason: String },
    Epoch { epoch: u64 },
    NotSuspended { vm: VmName, reason: String },
    LockspaceHeld { epoch: u64 },
    LockspaceRuns { nodes: Vec<String>, epoch: u64 },
    Mounting,
    Mounted { node: String },
    LettingGo,
    LetGo { node: String },
    DoesWithout { node: String },
    NotHeld { reason: String },
    NotMounted { reason: String },
    NotLetGo { reason: String },
    RollingBegins { nodes: Vec<String>, left_out: Vec<String> },
    RollingTurn { node: String, left: usize },
    Restarting,
    RollingReturned { node: String, old: Incarnation, new: Incarnation },
    RollingEnded { left_out: Vec<String> },
    RollingStopped { reason: String },
    RollingLost,
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up { incarnation, start: 0 } => write!(f, "up, incarnation {incarnation}"),
            Self::Up { incarnation, start } => {
                write!(f, "supervisor restarted ({start}), still incarnation {incarnation}")
            }
            Self::Speaks { version } => {
                write!(f, "speaks version {version} of the protocol: nobody who is heard is older")
            }
            Self::Heard { node, incarnation } => write!(f, "hears {node}, incarnation {incarnation}"),
            Self::Quiet { node, silence } => write!(f, "{node} is silent for {}", seconds(*silence)),
            Self::Back { node, silence } => write!(f, "{node} is heard again after {}", seconds(*silence)),
            Self::LinkQuiet { node, network, silence } => {
                write!(f, "{node} is silent on {network} for {}", seconds(*silence))
            }
            Self::LinkBack { node, network } => write!(f, "{node} is heard again on {network}"),
            Self::Failing { reason } => write!(f, "is failing and says so: {reason}"),
            Self::SaysFailing { node, reason } => write!(f, "{node} says that it is failing: {reason}"),
            Self::Forming { generation, nodes } => write!(f, "forms generation {generation} of {}", nodes.join(", ")),
            Self::Joined { generation } => write!(f, "joins generation {generation}"),
            Self::Abandoned { generation, reason } => write!(f, "gives generation {generation} up: {reason}"),
            Self::BecameDc { view } => write!(f, "is DC of view {}", view.0),
            Self::NoLongerDc => write!(f, "is no longer DC"),
            Self::Quorate => write!(f, "is quorate"),
            Self::Inquorate => write!(f, "is inquorate: freezes"),
            Self::Recalled { node, death } => write!(f, "{node} is back; its last boot ended so: {death}"),
            Self::Filled { node, incarnation, view } => {
                write!(f, "view {}: {node} is a member, incarnation {incarnation}", view.0)
            }
            Self::Added { node, edition, majority, votes } => {
                write!(
                    f,
                    "{node} is added by edition {edition} of cluster.toml: {majority} of {votes} votes are a quorum"
                )
            }
            Self::Removed { node, edition, majority, votes } => {
                write!(
                    f,
                    "{node} is removed by edition {edition} of cluster.toml: {majority} of {votes} votes are a quorum"
                )
            }
            Self::Rekeyed { key, edition } => {
                write!(f, "key {key} becomes the cluster's key, by edition {edition} of cluster.toml")
            }
            Self::KeyHeld { key } => write!(f, "holds key {key} of the cluster"),
            Self::KeyAwaited { key } => {
                write!(f, "has not been given key {key} of the cluster: the gateway is asked again")
            }
            Self::KeyAlone { key } => {
                write!(f, "opens what is sealed with key {key} of the cluster, and nothing older")
            }
            Self::Configured { edition } => write!(f, "goes by edition {edition} of cluster.toml, as the others do"),
            Self::Shunned { node, incarnation } => {
                write!(f, "{node} is heard, incarnation {incarnation}: it was removed, and is not taken in")
            }
            Self::WasRemoved { edition } => {
                write!(f, "is none of the nodes of edition {edition} of cluster.toml: takes no part")
            }
            Self::Absent { node } => write!(f, "{node} is absent at formation: unclean until proven otherwise"),
            Self::Suspected { node, silence } => write!(f, "suspects {node}: silent for {}", seconds(*silence)),
            Self::SuspectedFailing { node } => write!(f, "suspects {node}: it says that it is failing"),
            Self::Fencing { node, outlets, path } => {
                let way = match path {
                    Path::Snmp => "",
                    Path::Serial => " over the serial line",
                };
                write!(f, "fences {node}: commands off {}{way}", list(outlets))
            }
            Self::Barring { node } => write!(f, "fences {node}: bars it from the storage"),
            Self::AwaitingWatchdog { node, wait } => {
                write!(f, "fences {node}: its watchdog resets it within {}", seconds(*wait))
            }
            Self::NotArmed { node } => {
                write!(f, "{node} is not proven off: its watchdog was not armed when it was last heard")
            }
            Self::Spared { node } => write!(f, "{node} is heard again and may not be fenced: it is a member as before"),
            Self::TrialBegins { node } => {
                write!(
                    f,
                    "{node} is on trial: its outlets are switched off and on, to see that they feed it and nobody else"
                )
            }
            Self::TrialEnded { node, edition } => {
                write!(f, "{node} is on trial no longer by edition {edition} of cluster.toml: its outlets are proven")
            }
            Self::DrillPassed { node } => {
                write!(f, "the test of {node}'s fencing has passed: it fell silent, and nobody else did")
            }
            Self::DrillFailed { node, reason } => write!(f, "the test of {node}'s fencing has FAILED: {reason}"),
            Self::FencedAlive => write!(f, "was fenced and lives: lets the watchdog reset this machine"),
            Self::Supply { ups, supply: Supply::Mains } => write!(f, "UPS {ups} has mains again"),
            Self::Supply { ups, supply: Supply::Battery } => write!(f, "UPS {ups} is on battery"),
            Self::Supply { ups, supply: Supply::Failing } => write!(f, "UPS {ups} has been on battery for too long"),
            Self::Supply { ups, supply: Supply::Low } => write!(f, "UPS {ups} is nearly empty"),
            Self::UpsSilent { ups, reason } => write!(f, "UPS {ups} is not heard, and counts as before: {reason}"),
            Self::UpsHeard { ups } => write!(f, "UPS {ups} is heard again"),
            Self::Withdrawn { node } => write!(f, "{node} loses its power: it is to leave in good order"),
            Self::Remains { node } => write!(f, "{node} has power again, and remains"),
            Self::Sheds { vm } => write!(f, "VM {vm} cannot run on for want of power"),
            Self::Waking { node, outlets } => write!(f, "wakes {node}: commands off, then on, {}", list(outlets)),
            Self::CutsLoad { ups } => write!(f, "orders UPS {ups} to cut its load, and to give power again with mains"),
            Self::NotCut { ups, reason } => write!(f, "UPS {ups} does not take the order: {reason}"),
            Self::Duty { node, standby, maintenance, disarmed } => {
                let words = [(standby, "in standby"), (maintenance, "in maintenance"), (disarmed, "disarmed")];
                let set: Vec<&str> = words.iter().filter(|(on, _)| **on).map(|(_, word)| *word).collect();
                match set.as_slice() {
                    [] => write!(f, "{node} takes part again, as the operator wants"),
                    set => write!(f, "{node} is {}, as the operator wants", set.join(" and ")),
                }
            }
            Self::Disarmed => write!(f, "the cluster is disarmed, as the operator wants: nobody is fenced"),
            Self::Armed => write!(f, "the cluster is armed again"),
            Self::Wanted { vm } => write!(f, "VM {vm} is to run, as the operator wants"),
            Self::Unwanted { vm } => write!(f, "VM {vm} is to stop, as the operator wants"),
            Self::Asked { request } => write!(f, "the operator asks: {request}"),
            Self::Refused { request, reason } => write!(f, "refuses to {request}: {reason}"),
            Self::NotFenced { node, reason } => write!(f, "{node} is not proven off: {reason}"),
            Self::Fenced { node, method } => write!(f, "{node} is proven off: {method}"),
            Self::PoweringOn { node, outlets } => write!(f, "powers {node} on: commands on {}", list(outlets)),
            Self::PoweredOn { node } => write!(f, "{node} has power"),
            Self::NotPoweredOn { node, reason } => write!(f, "{node} could not be powered on: {reason}"),
            Self::Defined { vm, memory } => write!(f, "VM {vm} is defined, {memory}"),
            Self::Adopted { vm, node, generation } => {
                write!(f, "VM {vm} runs on {node}: adopted as generation {}", generation.0)
            }
            Self::Assigned { vm, node, generation } => {
                write!(f, "assigns VM {vm} to {node}, generation {}", generation.0)
            }
            Self::NoRoom { vm, reason } => write!(f, "no node has room for VM {vm}: {reason}"),
            Self::MakesRoom { vm } => write!(f, "VM {vm} makes room for a more important one"),
            Self::Creating { vm, generation } => write!(f, "creates VM {vm}, generation {}", generation.0),
            Self::Resuming { vm, generation } => {
                write!(f, "resumes VM {vm} from the shared disk, generation {}", generation.0)
            }
            Self::Started { vm, node, generation } => write!(f, "VM {vm} runs on {node}, generation {}", generation.0),
            Self::NotStarted { vm, reason } => write!(f, "VM {vm} could not be created: {reason}"),
            Self::Ended { vm, node, ending } => write!(f, "VM {vm} no longer runs on {node}: {ending}"),
            Self::Lost { vm, node } => write!(f, "VM {vm} was lost with {node}"),
            Self::GaveUp { vm, attempts } => write!(f, "VM {vm} failed {attempts} times: waits for the operator"),
            Self::Moving { vm, from, to, generation, transfer } => {
                let how = match transfer {
                    Transfer::Live => "",
                    Transfer::Paused => ", paused",
                };
                write!(f, "moves VM {vm} from {from} to {to}{how}, generation {}", generation.0)
            }
            Self::Pulling { vm, from } => write!(f, "migrate {vm} to me: pulls from {from}"),
            Self::Pushing { vm, to } => write!(f, "pushes VM {vm} to {to}"),
            Self::Moved { vm, to, generation } => write!(f, "VM {vm} moved to {to}, generation {}", generation.0),
            Self::NotMoved { vm, from, reason } => write!(f, "VM {vm} was not received from {from}: {reason}"),
            Self::NotPushed { vm, reason } => write!(f, "VM {vm} was not sent: {reason}"),
            Self::NotShutDown { vm, reason } => write!(f, "VM {vm} did not shut down: {reason}"),
            Self::NotDestroyed { domain, reason } => write!(f, "domain {domain} was not destroyed: {reason}"),
            Self::Stays { vm, node, reason } => write!(f, "VM {vm} stays on {node}: {reason}"),
            Self::Destroying { domain, reason } => write!(f, "destroys domain {domain}: {reason}"),
            Self::ShuttingDown { vm, node } => write!(f, "shuts VM {vm} down on {node}"),
            Self::Suspending { vm, node } => write!(f, "suspends VM {vm} on {node}"),
            Self::NotReserved { reason } => {
                write!(f, "the storage has no epoch for this generation's claims: {reason}")
            }
            Self::Decided => write!(f, "recalls what the operator had decided before"),
            Self::NotKept { reason } => write!(f, "what the operator has decided is not kept: {reason}"),
            Self::Epoch { epoch } => write!(f, "the storage takes this generation's claims as epoch {epoch}"),
            Self::NotSuspended { vm, reason } => write!(f, "VM {vm} was not suspended: {reason}"),
            Self::LockspaceHeld { epoch } => {
                write!(f, "holds the shared file system for a change of members, epoch {epoch}")
            }
            Self::LockspaceRuns { nodes, epoch } if nodes.is_empty() => {
                write!(f, "nobody has the shared file system, epoch {epoch}")
            }
            Self::LockspaceRuns { nodes, epoch } => {
                write!(f, "shared file system: {}, epoch {epoch}", nodes.join(", "))
            }
            Self::Mounting => write!(f, "mounts the shared file system"),
            Self::Mounted { node } => write!(f, "{node} has mounted the shared file system"),
            Self::LettingGo => write!(f, "lets go of the shared file system"),
            Self::LetGo { node } => write!(f, "{node} has let go of the shared file system"),
            Self::DoesWithout { node } => {
                write!(f, "{node} does without the shared file system until it is tried again")
            }
            Self::NotHeld { reason } => write!(f, "the shared file system was not held: {reason}"),
            Self::NotMounted { reason } => write!(f, "the shared file system was not mounted: {reason}"),
            Self::NotLetGo { reason } => write!(f, "the shared file system was not let go of: {reason}"),
            Self::Leaving { node } => write!(f, "{node} leaves: its VMs are moved away"),
            Self::Left { node } => write!(f, "{node} has left and is off"),
            Self::PoweringOff => write!(f, "powers off"),
            Self::RollingBegins { nodes, left_out } => {
                write!(f, "restarts {}, one after another; left out: {}", nodes.join(", "), all(left_out))
            }
            Self::RollingTurn { node, left } => write!(f, "it is {node}'s turn to restart; to follow: {left}"),
            Self::Restarting => write!(f, "restarts"),
            Self::RollingReturned { node, old, new } => {
                write!(f, "{node} has restarted: incarnation {new} after {old}")
            }
            Self::RollingEnded { left_out } => {
                write!(f, "the rolling restart has ended; left out: {}", all(left_out))
            }
            Self::RollingStopped { reason } => write!(f, "the rolling restart is stopped: {reason}"),
            Self::RollingLost => write!(f, "the rolling restart ends with its generation: begin it again"),
            Self::SelfFencing { silence } => {
                write!(f, "inquorate for {}: lets the watchdog reset this machine", seconds(*silence))
            }
            Self::PastHelp { reason } => write!(f, "is past help: {reason}; lets the watchdog reset this machine"),
            Self::Malformed { reason } => write!(f, "ignores a datagram: {reason}"),
        }
    }
}

fn seconds(duration: Duration) -> String {
    let tenths = duration.as_millis() / 100;
    format!("{}.{} s", tenths / 10, tenths % 10)
}

fn all(nodes: &[String]) -> String {
    if nodes.is_empty() { "nobody".to_owned() } else { nodes.join(", ") }
}

fn list(outlets: &[Outlet]) -> String {
    outlets.iter().map(Outlet::to_string).collect::<Vec<_>>().join(", ")
}
