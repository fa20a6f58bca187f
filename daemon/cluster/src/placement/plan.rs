//! What comes of planning: steps in order, and who has no room and why.

use core::fmt;

use super::inventory::{NodeId, VmId};
use crate::words::Mebibytes;

/// What is done with a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// It starts there.
    Start(NodeId),
    /// It moves there live.
    Migrate(NodeId),
    /// It is shut down and started there, because no CPU that it could move to live has room.
    ColdMove(NodeId),
    /// It is stopped, so that a more important one finds room.
    StopForRoom,
}

/// One step of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The VM.
    pub vm: VmId,
    /// What is done with it.
    pub act: Act,
    /// Whether it must wait for what earlier steps, or VMs in flight, are about to give back.
    pub waits: bool,
}

/// Why a VM has no node to be on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No node takes VMs.
    NoNode,
    /// No node has that much memory free; the most is `most`.
    Memory {
        /// What it takes, with the overhead.
        need: Mebibytes,
        /// What the node with most free memory has.
        most: Mebibytes,
    },
    /// Every node with room runs a VM that it is kept apart from.
    Apart,
    /// It must be with others, and where they are it cannot be.
    Together {
        /// One of the others.
        other: String,
        /// Where that is.
        node: String,
    },
    /// No node with room has the CPU features that it was started with, and it may not be moved cold.
    Features,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNode => write!(f, "no node takes VMs"),
            Self::Memory { need, most } => write!(f, "it takes {need}, and no node has more than {most} free"),
            Self::Apart => write!(f, "every node with room runs a VM that it is kept apart from"),
            Self::Together { other, node } => write!(f, "it must be with {other} on {node}, where it cannot be"),
            Self::Features => {
                write!(f, "no node with room has the CPU features that it was started with, and it may not move cold")
            }
        }
    }
}

/// A VM that has no node to be on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoRoom {
    /// The VM. It stays stopped; one that must leave its node stays there until it is shut down.
    pub vm: VmId,
    /// Why.
    pub reason: Reason,
}

/// What is to be done, in an order in which every step finds the memory that it needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
    /// Who has no room.
    pub no_room: Vec<NoRoom>,
}

impl Plan {
    /// The steps that can be taken at once, all together.
    pub fn at_once(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| !step.waits)
    }
}
