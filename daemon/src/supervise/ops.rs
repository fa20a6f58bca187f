//! Long operations: each is done by a servant thread of its own, which ends at the deadline whatever happens, and whose
//! end is told to the node.

use std::fs;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use cluster::event::{Event, Outcome, StreamId, Work};
use cluster::words::{Instant, OpId, VmName};

use super::files::{parse, path_of, pvh_unless_said};
use super::mailbox::{Post, Told};
use super::power;
use super::run::servant;
use super::site::Site;
use super::storage::{Disks, Held};
use crate::xl;
