//! The event log: the last lines in memory, and all that fit in a bounded file that survives the supervisor.

use serde::{Deserialize, Serialize};

/// One line of the event log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// When, in milliseconds since this machine booted.
    pub(crate) at_ms: u64,
    /// Who says it.
    pub(crate) node: String,
    /// What.
    pub(crate) text: String,
}
