//! What the menu was told, as far as it is kept.

use std::collections::{BTreeMap, VecDeque};

use cluster::event::{Answer, Request};
use cluster::status::{NodeStatus, Status, VmStatus};
use cluster::words::{Instant, Slot, VmName};

use crate::bundle::Bundling;
use crate::guest::Guest;
use crate::joining::{JoinAnswer, JoinRequest, Joining};
use crate::lock::Lock;
use crate::progress::{Emptied, Progress};
use crate::volumes::Dealings;

/// Lines of the log that are kept to look back at.
const LOG_LINES: usize = 500;

/// One line of the event log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When, by the clock of the machine that the menu is on.
    pub at: Instant,
    /// Who says it.
    pub node: String,
    /// What.
    pub text: String,
}

/// What this node has read an outlet as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutletRead {
    /// When, by the clock of the machine that the menu is on.
    pub at: Instant,
    /// Which, as the status names it.
    pub outlet: String,
    /// `on`, `off`, or why neither is known.
    pub reading: String,
}

/// What the supervisor was asked for last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) request: Request,
    /// The VMs on the node that it empties, as they were then.
    pub(crate) vms: Vec<String>,
    pub(crate) reply: Reply,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Nothing yet.
    Awaited,
    Agreed,
    /// For this reason.
    Refused(String),
    /// The supervisor was gone before it answered: it may be agreed or not. Every request may be asked twice.
    Lost,
}

/// What the menu was told.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Whether the supervisor is there to be asked.
    pub(crate) connected: bool,
    /// The last status, which may be old if the supervisor is not there.
    pub(crate) status: Option<Status>,
    /// How far what takes its time is, as this node knows it.
    pub(crate) progress: Progress,
    /// What was on the nodes that are being emptied.
    pub(crate) emptied: Emptied,
    /// What is wrong with this machine or its configuration.
    pub(crate) problems: Vec<String>,
    /// The end of the event log.
    pub(crate) log: VecDeque<Line>,
    /// What this node read outlets as last.
    pub(crate) outlets: BTreeMap<String, OutletRead>,
    /// What the supervisor was asked for last.
    pub(crate) asked: Option<Asked>,
    /// How this machine's own joining stands, as long as it has not joined.
    pub(crate) joins: Option<String>,
    /// What the gateway has told last of machines that join, or why it could not.
    pub(crate) joining: Option<Result<Joining, String>>,
    /// Whether it is asked how things are, and has still to answer.
    pub(crate) listing: bool,
    /// What it was asked for last, and what came of that.
    pub(crate) join_asked: Option<(JoinRequest, Reply)>,
    /// How the lock stands; `None` on a machine that has no PIN.
    pub(crate) lock: Option<Lock>,
    /// Whether a PIN was typed, and the supervisor has still to say whether it is right.
    pub(crate) unlocks: bool,
    /// What it was asked and has told of its disks.
    pub(crate) volumes: Dealings,
    /// What it was asked and has told of support bundles.
    pub(crate) bundling: Bundling,
    /// The console of a VM that is looked at.
    pub(crate) guest: Option<Guest>,
}

impl Facts {
    /// The supervisor is there, and will tell everything from the beginning.
    pub(crate) fn begin(&mut self) {
        let (asked, join_asked, guest) = (self.asked.take(), self.join_asked.take(), self.guest.take());
        let lock = self.lock;
        let mut volumes = core::mem::take(&mut self.volumes);
        volumes.begin();
        // The next status tells which nodes it still is of.
        let emptied = core::mem::take(&mut self.emptied);
        let mut bundling = core::mem::take(&mut self.bundling);
        bundling.begin();
        *self = Self { connected: true, asked, join_asked, volumes, bundling, lock, emptied, guest, ..Self::default() };
    }

    /// The supervisor is not there: what it was asked for may be forgotten.
    pub(crate) fn lose(&mut self) {
        self.connected = false;
        // The next connection has to be unlocked anew.
        self.unlocks = false;
        if let Some(lock) = &mut self.lock {
            lock.open = false;
        }
        // A node that was about to leave does not know that any more when its supervisor begins anew.
        if let Some(asked) = &mut self.asked
            && (asked.reply == Reply::Awaited || asked.request == Request::ShutDown)
        {
            asked.reply = Reply::Lost;
        }
        self.volumes.lose();
        self.bundling.lose();
        self.listing = false;
        if let Some((_, reply)) = self.join_asked.as_mut().filter(|(_, reply)| *reply == Reply::Awaited) {
            *reply = Reply::Lost;
        }
    }

    /// This is how things are.
    pub(crate) fn stand(&mut self, status: Status) {
        self.status = Some(status);
        self.emptied = core::mem::take(&mut self.emptied).note(self);
    }

    /// The supervisor is being asked for this.
    pub(crate) fn ask(&mut self, request: Request) {
        let vms = self.empties(&request).map_or_else(Vec::new, |node| names(&self.vms_at(node)));
        self.asked = Some(Asked { request, vms, reply: Reply::Awaited });
    }

    /// The question is put again: what came of it before is forgotten, unless it is still under way.
    pub(crate) fn forget(&mut self, request: &Request) {
        let leaves = *request == Request::ShutDown && self.status.as_ref().is_some_and(|status| status.leaving);
        if !self.awaits() && !leaves && self.asked.as_ref().is_some_and(|asked| same(&asked.request, request)) {
            self.asked = None;
        }
    }

    /// The node that a request empties of its VMs.
    pub(crate) fn empties(&self, request: &Request) -> Option<Slot> {
        match request {
            Request::ShutDown => self.here(),
            Request::Standby { node, on: true } => Some(*node),
            Request::Standby { on: false, .. }
            | Request::Maintenance { .. }
            | Request::Disarm { .. }
            | Request::Start { .. }
            | Request::Stop { .. }
            | Request::Migrate { .. }
            | Request::ConfirmOff { .. }
            | Request::ChangeKey { .. }
            | Request::Drill { .. }
            | Request::AddNode { .. }
            | Request::RemoveNode { .. }
            | Request::Rolling { .. } => None,
        }
    }

    /// The supervisor has answered.
    pub(crate) fn answer(&mut self, answer: Answer) {
        if let Some(asked) = &mut self.asked {
            asked.reply = match answer {
                Answer::Agreed => Reply::Agreed,
                Answer::Refused(reason) => Reply::Refused(reason),
            };
        }
    }

    /// The gateway has answered something about machines that join.
    pub(crate) fn joined(&mut self, JoinAnswer { to, outcome }: JoinAnswer) {
        if to == JoinRequest::List {
            self.listing = false;
            self.joining = Some(outcome);
            return;
        }
        if let Some((_, reply)) = self.join_asked.as_mut().filter(|(asked, _)| same_join(asked, &to)) {
            *reply = match &outcome {
                Ok(_) => Reply::Agreed,
                Err(reason) => Reply::Refused(reason.clone()),
            };
        }
        if outcome.is_ok() {
            self.joining = Some(outcome);
        }
    }

    /// What came of that request, if it is what the gateway was asked for last.
    pub(crate) fn join_reply(&self, request: &JoinRequest) -> Option<&Reply> {
        self.join_asked.as_ref().filter(|(asked, _)| same_join(asked, request)).map(|(_, reply)| reply)
    }

    /// Whether the gateway has still to answer.
    pub(crate) fn awaits_gateway(&self) -> bool {
        matches!(self.join_asked, Some((_, Reply::Awaited)))
    }

    /// Whether this machine has a PIN, and it must be typed first.
    pub(crate) fn is_locked(&self) -> bool {
        self.lock.is_some_and(|lock| !lock.open)
    }

    /// Whether this machine has a PIN, and it was typed.
    pub(crate) fn is_unlocked(&self) -> bool {
        self.lock.is_some_and(|lock| lock.open)
    }

    /// Whether the supervisor has still to answer.
    pub(crate) fn awaits(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.reply == Reply::Awaited)
    }

    /// How this node is, in a few words.
    pub(crate) fn in_short(&self) -> String {
        match &self.status {
            _ if !self.connected => "no supervisor".to_owned(),
            None if self.joins.is_some() => "asks to join".to_owned(),
            None if self.problems.is_empty() => "no status yet".to_owned(),
            None => "not in the cluster".to_owned(),
            Some(status) if status.leaving => "leaving".to_owned(),
            Some(status) if !status.quorate => "inquorate".to_owned(),
            Some(Status { dc: Some(dc), .. }) => format!("quorate, DC {dc}"),
            Some(_) => "quorate, no DC".to_owned(),
        }
    }

    /// Keeps further lines of the log.
    pub(crate) fn add_log(&mut self, lines: Vec<Line>) {
        self.log.extend(lines);
        self.log.drain(..self.log.len().saturating_sub(LOG_LINES));
    }

    /// Every node and its slot: the status has them in the order of their slots.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (Slot, &NodeStatus)> {
        let slots = (0..).map(Slot).zip(self.status.iter().flat_map(|status| &status.nodes));
        slots.filter(|(_, node)| node.state != "removed")
    }

    /// The node in that slot.
    pub(crate) fn node(&self, slot: Slot) -> Option<&NodeStatus> {
        self.nodes().find(|(other, _)| *other == slot).map(|(_, node)| node)
    }

    /// The name of the node in that slot, or of the one that was there.
    pub(crate) fn name(&self, slot: Slot) -> String {
        let node = self.status.as_ref().and_then(|status| status.nodes.get(usize::from(slot.0)));
        node.map_or_else(|| format!("slot {}", slot.0), |node| node.name.clone())
    }

    /// This node's slot.
    pub(crate) fn here(&self) -> Option<Slot> {
        let here = &self.status.as_ref()?.node;
        self.nodes().find(|(_, node)| node.name == *here).map(|(slot, _)| slot)
    }

    /// All VMs.
    pub(crate) fn vms(&self) -> impl Iterator<Item = &VmStatus> {
        self.status.iter().flat_map(|status| &status.vms)
    }

    /// The VM of that name.
    pub(crate) fn vm(&self, name: &VmName) -> Option<&VmStatus> {
        self.vms().find(|vm| vm.name == name.as_str())
    }

    /// Outlets were read.
    pub(crate) fn read(&mut self, read: Vec<OutletRead>) {
        self.outlets.extend(read.into_iter().map(|read| (read.outlet.clone(), read)));
    }

    /// The VMs that a node has, running or about to.
    pub(crate) fn vms_at(&self, slot: Slot) -> Vec<&VmStatus> {
        let Some(node) = self.node(slot) else { return Vec::new() };
        self.vms().filter(|vm| vm.owner.as_ref() == Some(&node.name) && !is_down(vm)).collect()
    }
}

/// Whether both ask for the same, whatever was typed.
pub(crate) fn same(one: &Request, other: &Request) -> bool {
    match (one, other) {
        (Request::ConfirmOff { node, .. }, Request::ConfirmOff { node: other, .. })
        | (Request::RemoveNode { node, .. }, Request::RemoveNode { node: other, .. }) => node == other,
        _ => one == other,
    }
}

/// Whether both ask the gateway for the same, whatever was typed.
fn same_join(one: &JoinRequest, other: &JoinRequest) -> bool {
    match (one, other) {
        (JoinRequest::Approve { ask, .. }, JoinRequest::Approve { ask: other, .. }) => ask == other,
        (JoinRequest::Open { .. }, JoinRequest::Open { .. }) => true,
        _ => one == other,
    }
}

/// Whether a VM has no domain anywhere.
pub(crate) fn is_down(vm: &VmStatus) -> bool {
    matches!(&*vm.phase, "stopped" | "suspended" | "failed")
}

/// The VMs' names.
pub(crate) fn names(vms: &[&VmStatus]) -> Vec<String> {
    vms.iter().map(|vm| vm.name.clone()).collect()
}
