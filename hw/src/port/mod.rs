//! Ports: what carries a dialogue to a device. Each works in the calling thread until the dialogue has ended.

mod stream;
pub mod tcp;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod tty;
pub mod udp;

use std::time::Duration;

/// How soon `cancel` is seen.
const GLANCE: Duration = Duration::from_millis(100);
