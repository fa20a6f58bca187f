//! The long operations that this node has asked its shell for and that have not ended yet.

use core::time::Duration;
use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::event::{Action, Actions, Work};
use crate::words::{Instant, OpId, VmName};

/// The open operations.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ops {
    next: u64,
    open: BTreeMap<OpId, Work>,
}

impl Ops {
    /// Begins one that may take as long as `limit`.
    pub(crate) fn begin(&mut self, now: Instant, limit: Duration, work: Work, actions: &mut Actions) -> OpId {
        let op = OpId(self.next);
        self.next = self.next.saturating_add(1);
        self.open.insert(op, work.clone());
        actions.push(Action::Begin { op, deadline: now + limit, work });
        op
    }

    /// Whether an epoch is being reserved.
    pub(crate) fn reserve(&self) -> bool {
        self.open.values().any(|work| *work == Work::Reserve)
    }

    /// Whether decisions are being kept.
    pub(crate) fn keep(&self) -> bool {
        self.open.values().any(|work| matches!(work, Work::Keep(_)))
    }

    /// Whether a UPS is being ordered to cut its load.
    pub(crate) fn cut_load(&self) -> bool {
        self.open.values().any(|work| matches!(work, Work::CutLoad { .. }))
    }

    /// Whether none is open.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Ends one; `None` if it is not known, and its outcome is to be ignored.
    pub(crate) fn end(&mut self, op: OpId) -> Option<Work> {
        self.open.remove(&op)
    }

    /// Whether one of them works on that VM's domain.
    pub(crate) fn touch(&self, vm: &VmName) -> bool {
        self.open.values().any(|work| vm_of(work).is_some_and(|other| *other == *vm))
    }
}

/// The VM whose domain an operation works on.
pub(crate) fn vm_of(work: &Work) -> Option<Cow<'_, VmName>> {
    match work {
        Work::Create { vm, .. }
        | Work::Receive { vm, .. }
        | Work::Push { vm, .. }
        | Work::Suspend { vm }
        | Work::Shutdown { vm } => Some(Cow::Borrowed(vm)),
        Work::Destroy { domain } => vm_of_domain(domain).map(Cow::Owned),
        Work::OutletsOff { .. }
        | Work::OutletsOn { .. }
        | Work::Reserve
        | Work::CutLoad { .. }
        | Work::Keep(_)
        | Work::Lockspace(_)
        | Work::Bar { .. } => None,
    }
}

/// The VM that a domain belongs to. xl marks the two ends of a migration `NAME--incoming` and `NAME--migratedaway`.
pub(crate) fn vm_of_domain(domain: &str) -> Option<VmName> {
    VmName::new(domain.split_once("--").map_or(domain, |(name, _)| name))
}
