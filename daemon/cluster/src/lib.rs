//! What one node decides: pure, no IO, no clock.
pub mod config;
pub mod event;
pub mod fencing;
pub mod limits;
pub mod status;
pub mod trace;
pub mod words;
