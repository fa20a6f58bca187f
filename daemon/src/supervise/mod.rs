//! The supervisor: one loop thread around the cluster's core.

pub(crate) mod events;
pub(crate) mod menu_link;
