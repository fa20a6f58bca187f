//! Machines that join: what the gateway tells of them, and what the operator may ask of it.
//!
//! The gateway alone decides; any node's menu reaches it through that node's supervisor.

use serde::{Deserialize, Serialize};

/// What the operator may ask of the gateway. Every one of them is answered with how things are then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinRequest {
    /// How things are.
    List,
    /// To let a machine in.
    Approve {
        /// Which of those that ask.
        ask: u64,
        /// What its console shows. For one that `cluster.toml` does not name a name may stand behind it, and then power switches
        /// with an outlet each.
        code: String,
    },
    /// To let the next machines in without a code, for a while.
    Open {
        /// How many, in digits as typed.
        machines: String,
    },
    /// To let nobody in any more without a code.
    Close,
    /// To take back a machine's approval: it is refused from now on.
    Revoke {
        /// Its identity.
        identity: String,
    },
    /// To forget that an approval was taken back: the machine may ask anew.
    Forget {
        /// Its identity.
        identity: String,
    },
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// To what.
    pub to: JoinRequest,
    /// How things are now, or why it was refused.
    pub outcome: Result<Joining, String>,
}

/// Everything about machines that join.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joining {
    /// Those that ask, the first one first.
    pub asking: Vec<Asking>,
    /// Those that were approved, the last one last.
    pub machines: Vec<Machine>,
    /// The window, while it is open.
    pub window: Option<Window>,
    /// The table that is to be added to `cluster.toml` for a machine that was approved hereby.
    pub add: Option<String>,
}

/// A machine that asks. Its texts are its own words: printable, and cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asking {
    /// Its number, which no other one has had since the gateway has started.
    pub ask: u64,
    /// The node that `cluster.toml` takes it for; `None` where it names none of its cards.
    pub node: Option<String>,
    /// The card by which it is known.
    pub card: String,
    /// Its maker's serial number.
    pub serial: String,
    /// Its processor.
    pub cpu: String,
    /// Its memory, in MiB.
    pub memory_mib: u32,
    /// For how long it has been asking, in seconds.
    pub age_s: u64,
    /// What is strange about it; no window lets it in then.
    pub warning: Option<String>,
    /// What node it would become, where `cluster.toml` names none of its cards; or why none.
    pub offer: Option<Result<String, String>>,
}

/// A machine that was approved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its identity: a public key, in hexadecimal.
    pub identity: String,
    /// As which node.
    pub node: String,
    /// The card by which it is known.
    pub card: String,
    /// When, by the gateway's clock.
    pub at: String,
    /// Whether that was taken back.
    pub revoked: bool,
}

/// The open window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// How many machines it still lets in.
    pub machines: u8,
    /// For how long it stays open, in seconds.
    pub left_s: u64,
}
