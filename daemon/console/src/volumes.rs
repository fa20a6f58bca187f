//! The gateway's disks: what it tells of them, and what the operator may ask of it.
//!
//! The gateway alone decides; any node's menu reaches it through that node's supervisor.

use serde::{Deserialize, Serialize};

use crate::facts::Reply;

/// What the operator may ask of the gateway. Every one of them is answered with how things are then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeRequest {
    /// How things are.
    List,
    /// To make a disk part of the volume group, which is made with the first one.
    Take {
        /// The disk, as the gateway's kernel names it.
        disk: String,
        /// Whether the operator was told that it is blank. One that is not, by then, is refused.
        blank: bool,
        /// What was typed: the disk's name.
        typed: String,
    },
    /// To make an export.
    Create {
        /// What was typed: its name and its size.
        typed: String,
    },
    /// To make an export larger.
    Grow {
        /// Which.
        export: String,
        /// What was typed: its new size.
        typed: String,
    },
    /// To keep an export as it is now, as one more that can only be read.
    Snapshot {
        /// Which.
        export: String,
    },
    /// To have the file system on the shared disk looked through, and repaired if it is to be.
    Check {
        /// Which export.
        export: String,
        /// Whether what is wrong is to be repaired; otherwise nothing is changed.
        repair: bool,
        /// What was typed: its name.
        typed: String,
    },
    /// To have more journals made in the file system on the shared disk.
    Journals {
        /// Which export.
        export: String,
        /// What was typed: how many.
        typed: String,
    },
    /// To delete an export and what is on it.
    Delete {
        /// Which.
        export: String,
        /// What was typed: its name.
        typed: String,
    },
}

impl VolumeRequest {
    /// What the operator types for it.
    pub(crate) fn typed(&mut self) -> Option<&mut String> {
        match self {
            Self::Take { typed, .. }
            | Self::Create { typed }
            | Self::Grow { typed, .. }
            | Self::Check { typed, .. }
            | Self::Journals { typed, .. }
            | Self::Delete { typed, .. } => Some(typed),
            Self::List | Self::Snapshot { .. } => None,
        }
    }

    /// The same, with nothing typed yet.
    fn untyped(&self) -> Self {
        let mut request = self.clone();
        request.typed().into_iter().for_each(String::clear);
        request
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeAnswer {
    /// To what.
    pub to: VolumeRequest,
    /// How things are now, or why it was refused.
    pub outcome: Result<Volumes, String>,
}

/// Everything about the gateway's disks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volumes {
    /// The volume group; `None` where there is none yet.
    pub group: Option<Group>,
    /// What is wrong with it, in words for the operator.
    pub problem: Option<String>,
    /// All exports: those of `cluster.toml` first.
    pub exports: Vec<Exported>,
    /// The disks that could be taken for the volume group.
    pub disks: Vec<Disk>,
    /// What there is to say of what was done, in words for the operator.
    pub said: Option<String>,
}

/// The volume group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its size, in MiB.
    pub mib: u64,
    /// How much of it no export has, in MiB.
    pub free_mib: u64,
}

/// An export.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// Its name: nodes see it as `/dev/gnbd/NAME`.
    pub name: String,
    /// Its size, in MiB.
    pub mib: u64,
    /// Whether it is a volume; otherwise it is `cluster.toml`'s, and is changed there.
    pub volume: bool,
    /// Of which export it is a snapshot.
    pub origin: Option<String>,
    /// How much was read from it and written to it since the gateway has booted, in MiB.
    pub moved_mib: Option<(u64, u64)>,
    /// The nodes that are connected to it.
    pub clients: Vec<String>,
    /// Who has claimed it: the holder, then the heir.
    pub claims: Vec<String>,
    /// What is wrong with it.
    pub problem: Option<String>,
    /// Whether it carries the file system that all nodes mount and write to.
    pub shared: bool,
}

/// A disk that could be taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Its name.
    pub name: String,
    /// Its size, in MiB.
    pub mib: u64,
    /// Its serial number, if it says one.
    pub serial: Option<String>,
    /// Whether it is blank: nothing was found on it.
    pub blank: bool,
}

/// What the menu and the gateway have told each other of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dealings {
    /// What the gateway has told last, or why it could not.
    pub(crate) told: Option<Result<Volumes, String>>,
    /// Whether it is asked how things are, and has still to answer.
    pub(crate) listing: bool,
    /// What it was asked for last, and what came of that.
    asked: Option<(VolumeRequest, Reply)>,
    /// What the gateway has said of it.
    said: Option<String>,
}

impl Dealings {
    /// The supervisor is there, and knows nothing of what was before.
    pub(crate) fn begin(&mut self) {
        *self = Self { asked: self.asked.take(), said: self.said.take(), ..Self::default() };
    }

    /// The supervisor is not there: what it was asked for may be forgotten.
    pub(crate) fn lose(&mut self) {
        self.listing = false;
        if let Some((_, reply)) = self.asked.as_mut().filter(|(_, reply)| *reply == Reply::Awaited) {
            *reply = Reply::Lost;
        }
    }

    /// The gateway is being asked for this.
    pub(crate) fn ask(&mut self, request: &VolumeRequest) {
        (self.asked, self.said) = (Some((request.untyped(), Reply::Awaited)), None);
    }

    /// The question is put again.
    pub(crate) fn forget(&mut self) {
        if !self.awaits() {
            self.asked = None;
        }
    }

    /// The gateway has answered.
    pub(crate) fn answered(&mut self, VolumeAnswer { to, outcome }: VolumeAnswer) {
        if to == VolumeRequest::List {
            self.listing = false;
            self.told = Some(outcome);
            return;
        }
        if let Some((_, reply)) = self.asked.as_mut().filter(|(asked, _)| *asked == to.untyped()) {
            self.said = outcome.as_ref().ok().and_then(|volumes| volumes.said.clone());
            *reply = match &outcome {
                Ok(_) => Reply::Agreed,
                Err(reason) => Reply::Refused(reason.clone()),
            };
        }
        if outcome.is_ok() {
            self.told = Some(outcome);
        }
    }

    /// What came of that request, if it is what the gateway was asked for last.
    pub(crate) fn reply(&self, request: &VolumeRequest) -> Option<&Reply> {
        self.asked.as_ref().filter(|(asked, _)| *asked == request.untyped()).map(|(_, reply)| reply)
    }

    /// What the gateway has said of what it was asked for last.
    pub(crate) fn said(&self) -> Option<&str> {
        self.said.as_deref()
    }

    /// Whether the gateway has still to answer.
    pub(crate) fn awaits(&self) -> bool {
        matches!(self.asked, Some((_, Reply::Awaited)))
    }

    /// The export of that name.
    pub(crate) fn export(&self, name: &str) -> Option<&Exported> {
        self.told.as_ref()?.as_ref().ok()?.exports.iter().find(|export| export.name == name)
    }

    /// The disk of that name.
    pub(crate) fn disk(&self, name: &str) -> Option<&Disk> {
        self.told.as_ref()?.as_ref().ok()?.disks.iter().find(|disk| disk.name == name)
    }
}
