//! Ports: what carries a dialogue to a device. Each works in the calling thread until the dialogue has ended.

pub mod udp;
