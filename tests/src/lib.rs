//! The virtual rack, the deterministic simulator, and the checks.
//!
//! Two halves that share nothing: the rack (`rack`, `setup`, `pdu`) starts real machines and meets the
//! daemon only as a program; the simulator (feature `world`) links the core and runs it in virtual time.

pub mod cases;
pub mod drill;
pub mod drill_attacks;
pub mod drill_cuts;
pub mod drill_growth;
pub mod drill_media;
pub mod drill_operator;
pub mod drill_rolling;
pub mod drill_ups;
pub mod drill_volumes;
pub mod journal;
pub mod pdu;
pub mod rack;
pub mod setup;
pub mod stranger;
pub mod sys;
#[cfg(feature = "world")]
pub mod world;
