//! What the menu was told, as far as it is kept.

use std::collections::VecDeque;

use cluster::status::{Status, VmStatus};
use cluster::words::Instant;

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

/// What the menu was told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Whether the supervisor is there to be asked.
    pub(crate) connected: bool,
    /// The last status, which may be old if the supervisor is not there.
    pub(crate) status: Option<Status>,
    /// What is wrong with this machine or its configuration.
    pub(crate) problems: Vec<String>,
    /// The end of the event log.
    pub(crate) log: VecDeque<Line>,
    /// Whether the supervisor was asked to shut this node down.
    pub(crate) asked: bool,
}

impl Facts {
    /// The supervisor is there, and will tell everything from the beginning.
    pub(crate) fn begin(&mut self) {
        *self = Self { connected: true, ..Self::default() };
    }

    /// The supervisor is not there: what it was asked for may be forgotten.
    pub(crate) fn lose(&mut self) {
        self.connected = false;
        self.asked = false;
    }

    /// How this node is, in a few words.
    pub(crate) fn in_short(&self) -> String {
        match &self.status {
            _ if !self.connected => "no supervisor".to_owned(),
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

    /// The VMs that this node has, running or about to.
    pub(crate) fn vms_here(&self) -> Vec<&VmStatus> {
        let Some(status) = &self.status else { return Vec::new() };
        let here =
            |vm: &&VmStatus| vm.owner.as_ref() == Some(&status.node) && !matches!(&*vm.phase, "stopped" | "failed");
        status.vms.iter().filter(here).collect()
    }
}
