//! The support bundle: what the supervisor tells of the sticks that it could be written to, and what the operator may ask for.
//!
//! This machine's own supervisor has it written; no other machine is asked, so it works on one that is in no cluster.

use serde::{Deserialize, Serialize};

/// What the operator may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BundleRequest {
    /// Which sticks are plugged in.
    Look,
    /// To have a bundle written.
    Write {
        /// To which stick, as it was told of.
        stick: String,
    },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BundleAnswer {
    /// The sticks that are plugged in.
    Sticks(Vec<Stick>),
    /// It is written, and the stick may be pulled out.
    Written(Written),
    /// It is not written, for this reason, which says whether the stick may be pulled out.
    Failed(String),
}

/// A file system on a USB disk, or a USB disk without one that a bundle could be written to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stick {
    /// Its name.
    pub name: String,
    /// What the disk calls itself.
    pub model: String,
    /// Its size, in MiB.
    pub mib: u64,
    /// Its label; empty if it has none.
    pub label: String,
    /// Why nothing is written to it, if so.
    pub refused: Option<String>,
}

/// A bundle that is on a stick.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The file's name.
    pub file: String,
    /// Its size, in KiB.
    pub kib: u64,
    /// What is not in it or not whole, each with its reason.
    pub missing: Vec<String>,
}

/// What came of the order to write a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// Nothing yet.
    Awaited,
    Written(Written),
    /// It is not written, for this reason.
    Failed(String),
    /// The supervisor was gone before it answered.
    Lost,
}

/// What the menu and the supervisor have told each other of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bundling {
    /// The sticks, as they were told of last.
    pub(crate) sticks: Option<Vec<Stick>>,
    /// Whether they are asked for, and have still to be told of.
    pub(crate) looking: bool,
    /// To which stick a bundle was to be written last, and what came of that.
    asked: Option<(String, Came)>,
}

impl Bundling {
    /// The supervisor is there, and knows nothing of what was before.
    pub(crate) fn begin(&mut self) {
        *self = Self { asked: self.asked.take(), ..Self::default() };
    }

    /// The supervisor is not there.
    pub(crate) fn lose(&mut self) {
        self.looking = false;
        if let Some((_, came)) = self.asked.as_mut().filter(|(_, came)| *came == Came::Awaited) {
            *came = Came::Lost;
        }
    }

    /// The supervisor is being asked for this.
    pub(crate) fn ask(&mut self, request: &BundleRequest) {
        match request {
            BundleRequest::Look => self.looking = true,
            BundleRequest::Write { stick } => self.asked = Some((stick.clone(), Came::Awaited)),
        }
    }

    /// The question is put again.
    pub(crate) fn forget(&mut self) {
        if !self.awaits() {
            self.asked = None;
        }
    }

    /// The supervisor has answered.
    pub(crate) fn answered(&mut self, answer: BundleAnswer) {
        let came = match answer {
            BundleAnswer::Sticks(sticks) => {
                self.looking = false;
                self.sticks = Some(sticks);
                return;
            }
            BundleAnswer::Written(written) => Came::Written(written),
            BundleAnswer::Failed(reason) => {
                self.looking = false;
                Came::Failed(reason)
            }
        };
        if let Some((_, waiting)) = self.asked.as_mut().filter(|(_, came)| *came == Came::Awaited) {
            *waiting = came;
        }
    }

    /// Whether a bundle is being written: meanwhile nobody looks at sticks.
    pub(crate) fn awaits(&self) -> bool {
        matches!(self.asked, Some((_, Came::Awaited)))
    }

    /// What came of the order to write to that stick, if it was the last one.
    pub(crate) fn came(&self, stick: &str) -> Option<&Came> {
        self.asked.as_ref().filter(|(asked, _)| asked == stick).map(|(_, came)| came)
    }

    /// The stick of that name, if it may be written to.
    pub(crate) fn stick(&self, name: &str) -> Option<&Stick> {
        self.sticks.iter().flatten().find(|stick| stick.name == name && stick.refused.is_none())
    }
}
