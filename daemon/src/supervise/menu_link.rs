//! The menus' end of the supervisor: a unix stream socket, [`SOCKET`], on which both sides speak JSON, one object a line.
//!
//! A menu that connects is told everything once: `{"problem": "text"}` for everything that is wrong with this machine
//! or its configuration (a machine that does not take part says only this), then `{"status": {..}}` (cluster's `Status`)
//! and `{"log": [{"at_ms": 1234, "node": "node1", "text": ".."}, ..]}`, oldest first, as far as it is kept. After that it
//! is told `status` when it has changed, and at least once a second, and `log` with the lines that are new. It says
//! `{"request": "ShutDown"}` (cluster's `Request`). A menu that does not read what it is sent is hung up on; so is one
//! that speaks nonsense. Any number of menus may be connected.

use cluster::event::Request;
use cluster::status::Status;
use serde::{Deserialize, Serialize};

use super::events::Line;

/// Where the supervisor listens.
pub(crate) const SOCKET: &str = "/run/holdfast/menu.sock";

/// What a menu is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToMenu {
    /// Something is wrong with this machine or its configuration, in words for the operator.
    Problem(String),
    /// What the node knows; replaces what was known.
    Status(Status),
    /// Lines of the event log that are new, oldest first.
    Log(Vec<Line>),
}

/// What a menu says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromMenu {
    /// The operator asks for this.
    Request(Request),
}
