//! The pages of the menu, one file each: what is seen there, as a function of what the menu was told.

pub use storage::size;

pub(crate) mod about;
pub(crate) mod alarms;
pub(crate) mod bundle_question;
pub(crate) mod export;
pub(crate) mod fencing;
pub(crate) mod first;
pub(crate) mod join_question;
pub(crate) mod joining;
pub(crate) mod leaving;
pub(crate) mod locked;
pub(crate) mod log;
pub(crate) mod node;
pub(crate) mod nodes;
pub(crate) mod overview;
pub(crate) mod question;
pub(crate) mod rolling;
pub(crate) mod storage;
pub(crate) mod support;
pub(crate) mod targets;
pub(crate) mod vm;
pub(crate) mod vms;
pub(crate) mod volume_question;
