//! What a node knows, for the menu and the monitor line.

use serde::{Deserialize, Serialize};

use crate::words::{Mebibytes, Role, Supply};

/// What one node knows of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The cluster's name.
    pub cluster: String,
    /// The edition of `cluster.toml` that this node goes by.
    #[serde(default)]
    pub edition: u32,
    /// The number of the key that the cluster has agreed to hold.
    #[serde(default)]
    pub key: u32,
    /// The oldest that this node still opens: where it is another, the change is under way.
    #[serde(default)]
    pub oldest_key: u32,
    /// This node's name.
    pub node: String,
    /// This boot, in hexadecimal.
    pub incarnation: String,
    /// The generation that it belongs to, in hexadecimal.
    pub generation: Option<String>,
    /// The number of the membership.
    pub view: u64,
    /// The DC's name, if one is known.
    pub dc: Option<String>,
    /// Whether this node is part of a quorate cluster.
    pub quorate: bool,
    /// Whether this node is on its way out.
    pub leaving: bool,
    /// What Xen here could still give, in MiB.
    pub free_mib: u32,
    /// Every domain that Xen runs here, by its name.
    pub domains: Vec<String>,
    /// Whether the operator has disarmed the whole cluster: nobody is fenced.
    #[serde(default)]
    pub disarmed: bool,
    /// The slots, in their order: the first one's is 0. Those that were removed are among them.
    pub nodes: Vec<NodeStatus>,
    /// The VMs.
    pub vms: Vec<VmStatus>,
    /// The UPSes.
    #[serde(default)]
    pub upses: Vec<UpsStatus>,
    /// N+1: the nodes whose loss the others could not absorb, as this node sees it.
    #[serde(default)]
    pub shortfalls: Vec<Shortfall>,
    /// The last rolling restart of this generation, if there was one.
    #[serde(default)]
    pub rolling: Option<RollingStatus>,
}

/// How far a rolling restart is; ended if nobody is on the way and nobody is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollingStatus {
    /// Those that have restarted.
    pub done: Vec<String>,
    /// Whose turn it is.
    pub node: Option<String>,
    /// Those that are still to restart.
    pub todo: Vec<String>,
    /// Those that are left out.
    pub left_out: Vec<String>,
    /// Why it was stopped, if it was.
    pub stopped: Option<String>,
}

/// A node whose loss the others could not absorb.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortfall {
    /// The node.
    pub node: String,
    /// Its VMs that would find no room elsewhere, the most important one first.
    pub vms: Vec<String>,
}

/// One UPS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpsStatus {
    /// Its name.
    pub name: String,
    /// How it stands, as agreed.
    pub supply: Supply,
    /// Whether this node hears it; of a UPS on a serial line, whether its holder does is not known elsewhere.
    pub heard: bool,
    /// The battery's charge in percent, as this node heard it last.
    pub charge_percent: Option<u8>,
    /// For how many seconds the battery lasts, as this node heard it last.
    pub runtime_s: Option<u32>,
    /// The names of the nodes that it feeds.
    pub feeds: Vec<String>,
}

/// One slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// `member`, `leaving`, `off`, `waking`, `unclean`, `fenced`, `booting` or `unknown`; `removed` if the slot is empty for good.
    pub state: String,
    /// Its boot, in hexadecimal.
    pub incarnation: String,
    /// How long ago it was heard, in milliseconds; `None` if never.
    pub heard_ms: Option<u64>,
    /// How it is heard on each link that this node shares with it; of this node itself, nothing.
    #[serde(default)]
    pub links: Vec<LinkStatus>,
    /// What its Xen could still give.
    pub free: Mebibytes,
    /// Whether the operator has put it in standby.
    pub standby: bool,
    /// Whether the operator has put it in maintenance.
    pub maintenance: bool,
    /// Whether it is new, and its outlets are not proven to feed it: it takes no VMs until then.
    #[serde(default)]
    pub on_trial: bool,
    /// Whether the operator has disarmed it: it is neither fenced nor fences itself.
    pub disarmed: bool,
    /// How its last boot ended, if not in good order, in words.
    #[serde(default)]
    pub death: Option<String>,
    /// The outlets that feed it.
    pub outlets: Vec<String>,
}

/// How a node is heard on one link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// The network's name.
    pub network: String,
    /// The share of its last 64 heartbeats that came, in percent.
    pub quality: u8,
}

/// One VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmStatus {
    /// Its name.
    pub name: String,
    /// The node that owns it.
    pub owner: Option<String>,
    /// `stopped`, `suspended`, `starting`, `running`, `moving to NODE`, `landing`, `suspending`, `stopping` or `failed`.
    pub phase: String,
    /// Its generation.
    pub generation: u64,
    /// What it needs.
    pub memory: Mebibytes,
    /// Whether the operator wants it to run.
    pub wanted: bool,
    /// Its priority, 0 to 100.
    pub priority: u8,
}
