//! What a plan is made from: the nodes, the VMs, and where they are.

use core::marker::PhantomData;
use core::ops::{Index, IndexMut};

use crate::words::Mebibytes;

/// What Xen and libxl need beside a guest's own memory.
pub const OVERHEAD: Mebibytes = Mebibytes(16);

/// What a VM takes of a node's free memory.
#[must_use]
pub fn need(memory: Mebibytes) -> Mebibytes {
    Mebibytes(memory.0.saturating_add(OVERHEAD.0))
}

/// A node: its index in [`Inventory::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(pub usize);

/// A VM: its index in [`Inventory::vms`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VmId(pub usize);

impl From<NodeId> for usize {
    fn from(id: NodeId) -> Self {
        id.0
    }
}

impl From<VmId> for usize {
    fn from(id: VmId) -> Self {
        id.0
    }
}

/// A node that runs VMs, or could.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name, for reasons in plain text.
    pub name: String,
    /// What its Xen could still give, in MiB, less what is promised to VMs in flight to it.
    pub free: Mebibytes,
    /// What its Xen has for VMs when none runs, in MiB. Only balancing asks for it.
    pub total: Mebibytes,
    /// Whether VMs may come: a member, neither standby nor leaving.
    pub accepts: bool,
    /// The CPU's features as words of bits; empty if they are not known.
    pub features: Vec<u32>,
}

/// Where a VM is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Where {
    /// It runs nowhere and shall run.
    #[default]
    Stopped,
    /// It runs there.
    Running(NodeId),
    /// It runs there and must go.
    Leaving(NodeId),
    /// Something is being done with it, so that no plan touches it.
    InFlight {
        /// The node whose memory it will give back.
        from: Option<NodeId>,
        /// The node whose memory is promised to it.
        to: Option<NodeId>,
    },
}

/// A VM that shall run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vm {
    /// Its name, for reasons in plain text.
    pub name: String,
    /// The guest's own memory.
    pub memory: Mebibytes,
    /// Where it is.
    pub whereabouts: Where,
    /// Who gets room first: higher is more important.
    pub priority: u8,
    /// Of those that start, lower ones start first.
    pub start_order: u32,
    /// The nodes that it would rather be on, the best one first.
    pub preferred: Vec<NodeId>,
    /// No two VMs that name the same group are put on one node.
    pub keep_apart: Vec<String>,
    /// VMs that name the same group are put on one node only.
    pub keep_together: Vec<String>,
    /// When somebody must be moved to make room or balance, the least sticky goes; `u8::MAX` never does.
    pub stickiness: u8,
    /// Whether it is moved back to a preferred node that has room again.
    pub auto_failback: bool,
    /// Where it failed last: taken only if there is no other.
    pub avoid: Option<NodeId>,
    /// The CPU features that it was started with, as words of bits; empty if they are not known.
    pub features: Vec<u32>,
    /// Whether it may be shut down and started elsewhere where a live migration is impossible.
    pub cold_move: bool,
}

/// Everything that a plan is made from. Ids in it must be indices of its lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The VMs that shall run.
    pub vms: Vec<Vm>,
    /// Whether VMs are moved only to even out the use of memory.
    pub balance: bool,
}

impl Inventory {
    /// A node.
    ///
    /// # Panics
    /// If there is none of that id: a programmer's error.
    #[must_use]
    pub fn node(&self, id: NodeId) -> &Node {
        let Some(node) = self.nodes.get(id.0) else { panic!("there is no node {}", id.0) };
        node
    }

    /// A VM.
    ///
    /// # Panics
    /// If there is none of that id: a programmer's error.
    #[must_use]
    pub fn vm(&self, id: VmId) -> &Vm {
        let Some(vm) = self.vms.get(id.0) else { panic!("there is no VM {}", id.0) };
        vm
    }

    /// The nodes' ids in order.
    pub fn node_ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.nodes.len()).map(NodeId)
    }

    /// The VMs' ids in order.
    pub fn vm_ids(&self) -> impl Iterator<Item = VmId> + use<> {
        (0..self.vms.len()).map(VmId)
    }

    /// What a VM takes of a node, in MiB; wide enough to be summed.
    pub(super) fn need(&self, id: VmId) -> u64 {
        u64::from(need(self.vm(id).memory).0)
    }

    /// How things are once everything in flight has come to its end.
    pub(super) fn landed(&self) -> Self {
        let mut landed = self.clone();
        for vm in &mut landed.vms {
            if let Where::InFlight { from, to } = vm.whereabouts {
                vm.whereabouts = Where::InFlight { from: None, to };
                if let Some(node) = from.and_then(|at| landed.nodes.get_mut(at.0)) {
                    node.free = Mebibytes(node.free.0.saturating_add(need(vm.memory).0));
                }
            }
        }
        landed
    }

    /// Moves a VM to a node, or stops it: what every step of a plan comes down to.
    pub(super) fn change(&mut self, id: VmId, to: Option<NodeId>) {
        let need = need(self.vm(id).memory);
        let from = match self.vm(id).whereabouts {
            Where::Running(at) | Where::Leaving(at) => Some(at),
            Where::Stopped | Where::InFlight { .. } => None,
        };
        if from == to {
            return;
        }
        for (at, gives) in [(from, true), (to, false)] {
            if let Some(node) = at.and_then(|at| self.nodes.get_mut(at.0)) {
                let free = node.free;
                node.free = if gives { Mebibytes(free.0.saturating_add(need.0)) } else { free.less(need) };
            }
        }
        if let Some(vm) = self.vms.get_mut(id.0) {
            vm.whereabouts = to.map_or(Where::Stopped, Where::Running);
        }
    }
}

/// A list with one item for each node or each VM.
#[derive(Clone, Debug)]
pub(super) struct Table<Id, T> {
    items: Vec<T>,
    id: PhantomData<Id>,
}

impl<Id, T> Table<Id, T> {
    pub(super) fn of(items: impl Iterator<Item = T>) -> Self {
        Self { items: items.collect(), id: PhantomData }
    }
}

impl<Id: Into<usize>, T> Index<Id> for Table<Id, T> {
    type Output = T;

    fn index(&self, id: Id) -> &T {
        let Some(item) = self.items.get(id.into()) else { panic!("an id of another inventory") };
        item
    }
}

impl<Id: Into<usize>, T> IndexMut<Id> for Table<Id, T> {
    fn index_mut(&mut self, id: Id) -> &mut T {
        let Some(item) = self.items.get_mut(id.into()) else { panic!("an id of another inventory") };
        item
    }
}
