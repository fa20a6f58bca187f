//! Where in the menu one is, and what is seen there: rows of text, and rows to choose from.

use cluster::event::Request;
use cluster::words::{Slot, VmName};

use crate::facts::Facts;
use crate::joining::JoinRequest;
use crate::lock::Pin;
use crate::pages::{
    about, bundle_question, export, fencing, first, join_question, joining, locked, log, node, nodes, overview,
    question, storage, support, targets, vm, vms, volume_question,
};
use crate::text::wrap;
use crate::volumes::VolumeRequest;

/// Characters in a line of a page.
pub(crate) const WIDTH: usize = 76;
/// Characters that a choice's number takes in front of it.
pub(crate) const NUMBER: usize = 4;
/// Characters of a choice.
pub(crate) const CHOICE: usize = WIDTH - NUMBER;

/// A place in the menu. One file each in `pages`, which says what is seen there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    First,
    Overview,
    Vms,
    Vm(VmName),
    /// Its console: the whole screen is the guest's, but for the last line.
    Console(VmName),
    /// Where a VM might be migrated to.
    Targets(VmName),
    Nodes,
    Node(Slot),
    Fencing,
    /// Only lines with this text in them.
    Log(String),
    Joining,
    Storage,
    /// One of the gateway's exports.
    Export(String),
    About,
    /// The sticks that a support bundle could be written to.
    Support,
    /// Whether it is to be written to this one.
    Bundle(String),
    /// What the operator may ask the supervisor for, once it is confirmed.
    Ask(Request),
    /// The same of the gateway, about machines that join.
    Join(JoinRequest),
    /// The PIN is wanted first; so much of it is typed.
    Locked(Pin),
    /// The same of the gateway, about its disks.
    Volume(VolumeRequest),
}

/// One line of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    Text(String),
    /// A line to be chosen, and where it leads. Its number is its place among its like.
    Choice(String, Page),
}

impl Page {
    /// What stands above it.
    pub(crate) fn title(&self, facts: &Facts) -> String {
        match self {
            Self::First => String::new(),
            Self::Overview => "Status".to_owned(),
            Self::Vms => "VMs".to_owned(),
            Self::Vm(vm) | Self::Console(vm) => format!("VM {vm}"),
            Self::Targets(vm) => format!("Migrate VM {vm} to which node?"),
            Self::Nodes => "Nodes".to_owned(),
            Self::Node(slot) => format!("Node {}", facts.name(*slot)),
            Self::Fencing => "Fencing".to_owned(),
            Self::Log(filter) => log::title(filter),
            Self::Joining => "Joining".to_owned(),
            Self::Storage => "Storage".to_owned(),
            Self::Export(name) => format!("Export {name}"),
            Self::About => "About".to_owned(),
            Self::Support | Self::Bundle(_) => "Support bundle".to_owned(),
            Self::Ask(request) => question::title(facts, request),
            Self::Join(request) => join_question::title(facts, request),
            Self::Locked(_) => "This console is locked.".to_owned(),
            Self::Volume(request) => volume_question::title(request),
        }
    }

    /// What is seen on it.
    pub(crate) fn rows(&self, facts: &Facts) -> Vec<Row> {
        match self {
            Self::First => first::rows(facts),
            Self::Overview => overview::rows(facts),
            Self::Vms => vms::rows(facts),
            Self::Vm(vm) => vm::rows(facts, vm),
            Self::Console(_) => Vec::new(),
            Self::Targets(vm) => targets::rows(facts, vm),
            Self::Nodes => nodes::rows(facts),
            Self::Node(slot) => node::rows(facts, *slot),
            Self::Fencing => fencing::rows(facts),
            Self::Log(filter) => log::rows(facts, filter),
            Self::Joining => joining::rows(facts),
            Self::Storage => storage::rows(facts),
            Self::Export(name) => export::rows(facts, name),
            Self::About => about::rows(),
            Self::Support => support::rows(facts),
            Self::Bundle(stick) => bundle_question::rows(facts, stick),
            Self::Ask(request) => question::rows(facts, request),
            Self::Join(request) => join_question::rows(facts, request),
            Self::Locked(pin) => locked::rows(facts, pin),
            Self::Volume(request) => volume_question::rows(facts, request),
        }
    }

    /// Whether it shows its end first, and stays there as it grows.
    pub(crate) fn follows(&self) -> bool {
        matches!(self, Self::Log(_))
    }

    /// Whether it is about machines that join.
    pub(crate) fn joins(&self) -> bool {
        matches!(self, Self::Joining | Self::Join(_))
    }

    /// Whether it is about the gateway's disks.
    pub(crate) fn stores(&self) -> bool {
        matches!(self, Self::Storage | Self::Export(_) | Self::Volume(_))
    }

    /// Whether it is about the support bundle.
    pub(crate) fn bundles(&self) -> bool {
        matches!(self, Self::Support | Self::Bundle(_))
    }

    /// Whether it is a question.
    pub(crate) fn asks(&self) -> bool {
        matches!(self, Self::Ask(_) | Self::Join(_) | Self::Volume(_) | Self::Bundle(_) | Self::Locked(_))
    }

    /// Whether something can be typed on it.
    pub(crate) fn types(&self) -> bool {
        self.clone().text().is_some()
    }

    /// Whether it is a question that may be confirmed now.
    pub(crate) fn is_open(&self, facts: &Facts) -> bool {
        match self {
            Self::Ask(request) => question::is_open(facts, request),
            Self::Join(request) => join_question::is_open(facts, request),
            Self::Locked(_) => locked::is_open(facts),
            Self::Volume(request) => volume_question::is_open(facts, request),
            Self::Bundle(stick) => bundle_question::is_open(facts, stick),
            Self::First
            | Self::Overview
            | Self::Vms
            | Self::Vm(_)
            | Self::Console(_)
            | Self::Targets(_)
            | Self::Nodes
            | Self::Node(_)
            | Self::Fencing
            | Self::Log(_)
            | Self::Joining
            | Self::Storage
            | Self::Export(_)
            | Self::Support
            | Self::About => false,
        }
    }

    /// What the operator can type on it.
    pub(crate) fn text(&mut self) -> Option<&mut String> {
        match self {
            Self::Log(text)
            | Self::Ask(Request::ConfirmOff { typed: text, .. } | Request::RemoveNode { typed: text, .. })
            | Self::Join(JoinRequest::Approve { code: text, .. } | JoinRequest::Open { machines: text }) => Some(text),
            Self::Locked(pin) => Some(pin.text_mut()),
            Self::Volume(request) => request.typed(),
            Self::First
            | Self::Overview
            | Self::Vms
            | Self::Vm(_)
            | Self::Console(_)
            | Self::Targets(_)
            | Self::Nodes
            | Self::Node(_)
            | Self::Fencing
            | Self::Joining
            | Self::Storage
            | Self::Export(_)
            | Self::About
            | Self::Support
            | Self::Bundle(_)
            | Self::Join(_)
            | Self::Ask(_) => None,
        }
    }
}

/// Text broken into as many rows as it needs.
pub(crate) fn paragraph(text: &str) -> impl Iterator<Item = Row> + use<> {
    wrap(text, WIDTH, 0).into_iter().map(Row::Text)
}

/// A row of text in line with the choices: a table's head above them, or more about the one above it.
pub(crate) fn beside(text: &str) -> Row {
    Row::Text(format!("{}{text}", " ".repeat(NUMBER)))
}

/// What a page shows as long as there is no status.
pub(crate) fn no_status(facts: &Facts) -> Vec<Row> {
    let why = match (facts.connected, facts.problems.is_empty() && facts.joins.is_none()) {
        (false, _) => "The supervisor does not answer. It is started again by itself.",
        (true, true) => "The supervisor has not said anything yet.",
        (true, false) => "This machine does not take part in the cluster: the menu's first page says why.",
    };
    paragraph(why).collect()
}
