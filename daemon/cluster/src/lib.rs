//! What one node decides: pure, no IO, no clock.
//!
//! [`Node::handle`](node::Node::handle) takes an event and the time, and gives out actions in order;
//! [`Node::deadline`](node::Node::deadline) says when it wants to be asked again. There is no other way in, no other way
//! out, and no other clock. The same node runs in dom0, in the simulator and in the tests.
//!
//! A module names only modules of its own layer or of those before it (a test walks the sources):
//!
//! ```text
//! words:         limits, words
//! configuration: config
//! local facts:   hearing, report
//! fencing:       fencing
//! interface:     event, trace, status
//! agreement:     agreement
//! policy:        placement
//! transition:    state
//! bytes:         wire
//! node:          ops, keys, generation, host, shared, fencer, ups, scene, rolling, operator, mover, drill, dc, node
//! ```
//!
//! Fencing has a layer of its own: everything above may use a proof, nothing below can fake one.

pub mod config;
pub mod event;
pub mod fencing;
pub mod limits;
pub mod node;
pub mod placement;
pub mod status;
pub mod trace;
pub mod words;

mod agreement;
mod dc;
mod drill;
mod fencer;
mod generation;
mod hearing;
mod host;
mod keys;
mod mover;
mod operator;
mod ops;
mod report;
mod rolling;
mod scene;
mod shared;
mod state;
mod ups;
mod wire;
