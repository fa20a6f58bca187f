//! Drivers for power switches and UPSes: sans-IO dialogues carried by ports.
//!
//! A driver is a [`Dialogue`]: it gives out bytes and a time to wait until, takes bytes, and ends with an outcome. It has
//! no clock, no socket and no randomness of its own. A [`port`] carries it over a real socket or serial line. Nothing here
//! knows of clusters: what an outcome proves is for the caller to say.
//!
//! ```text
//! ap7921         off, on, status of an APC AP7921's outlets: over SNMP, and at its serial console
//! nut            a client of NUT's upsd: UPSes read, attended, and ordered to shut all down
//! smart_ups      an APC UPS on a serial line, read and attended
//! ups            what a UPS is read as
//! serial_frame   datagrams on a serial line
//! snmp           SNMP v1 and v3: one request with its tries
//! port           dialogues on UDP, on TCP, on TCP with TLS, and on serial lines
//! ```

pub mod ap7921;
mod credentials;
mod dialogue;
pub mod nut;
pub mod port;
#[cfg(test)]
mod recordings;
pub mod serial_frame;
pub mod smart_ups;
pub mod snmp;
pub mod ups;

pub use credentials::Credentials;
pub use dialogue::{Dialogue, Step};
