//! What this node has its kernel do with the shared file system's lockspace, as the committed state says who is a member.

use crate::event::SharedState;

/// The kernel's part of the shared file system, as far as it is known here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared {
    /// What the shell has told last.
    kernel: Option<SharedState>,
}

impl Shared {
    /// The shell says how it stands; whether the file system has withdrawn.
    pub(crate) fn told(&mut self, state: SharedState) -> bool {
        self.kernel = Some(state);
        state == SharedState::Withdrawn
    }
}
