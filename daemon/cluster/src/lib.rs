//! What one node decides: pure, no IO, no clock.
pub mod config;
pub mod limits;
pub mod words;
