//! What this node has its kernel do with the shared file system's lockspace, as the committed state says who is a member.
//!
//! `state/lockspace.rs` has the rules; here is one member's part in them: hold when all are to hold, run with the members when
//! they are agreed, let go on the way out, and say each time how the kernel stands. The kernel outlives the supervisor, so what
//! the shell tells of it counts, not what this life remembers; and it must never be led back into an epoch that it has left.
//!
//! *On the way out* a node lets go when nothing of the cluster's is left on it. It is still a member then, for unmounting needs
//! a lockspace that runs: if a change comes in the middle, it holds and runs with the others, and goes on. As soon as the
//! kernel has let go it says so, may leave and be off, and the others go on without it. They need not have done so before it
//! is off: nobody waits for a node of which it is agreed that it has nothing any more. An unmount that hangs must not hang
//! the shutdown: after [`limits::LET_GO`] the node announces its death and powers off all the same; but nobody believes then
//! that it has let go, and it is proven off like any other that died. A kernel that does not hold is failing in the same way,
//! and so is a file system that has withdrawn: whatever the node still has in its caches ends with that boot.

use std::collections::BTreeMap;

use crate::event::{LockspaceOrder, Outcome, SharedState, Work};
use crate::host::Desk;
use crate::limits;
use crate::state::{Command, Member, Mount, Standing, Stands, Word};
use crate::trace::Trace;
use crate::words::{Identity, Instant, LockEpoch, OpId, Slot};

/// The kernel's part of the shared file system, as far as it is known here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared {
    /// What the shell has told last.
    kernel: Option<SharedState>,
    /// The newest order that is open, but for [`LockspaceOrder::LetGo`].
    order: Option<(OpId, LockspaceOrder)>,
    let_go: Option<OpId>,
    /// The epoch for which the kernel was held last.
    held: Option<LockEpoch>,
    /// The epoch that this life let the kernel run in last, and whether it could not.
    ran: Option<(LockEpoch, bool)>,
    not_before: Instant,
    /// Since when it does not obey.
    stuck: Option<Instant>,
}

impl Shared {
    /// The shell says how it stands; whether the file system has withdrawn.
    pub(crate) fn told(&mut self, state: SharedState) -> bool {
        self.kernel = Some(state);
        state == SharedState::Withdrawn
    }

    /// Since when the kernel does not obey, and this node is about to die of it.
    pub(crate) fn stuck(&self) -> Option<Instant> {
        self.stuck
    }

    /// Does what the committed state asks of this member. `goes` says whether it is to let go. Called when quorate only.
    pub(crate) fn review(&mut self, desk: &mut Desk<'_>, goes: bool) {
        let state = desk.state;
        let (Some(kernel), Some(mount)) = (self.kernel, state.lockspace.mount(desk.me)) else { return };
        if !state.member(desk.me).is_some_and(Member::is_present) || kernel == SharedState::Withdrawn {
            return;
        }
        if state.lockspace.holding {
            self.hold(desk, mount, kernel);
        } else if mount.stands == Stands::In {
            self.run(desk, mount, kernel, goes);
        }
    }

    fn hold(&mut self, desk: &mut Desk<'_>, mount: &Mount, kernel: SharedState) {
        let epoch = desk.state.lock_epoch();
        if !matches!(mount.stands, Stands::Unknown | Stands::In) {
            return;
        }
        let holds = matches!(&self.order, Some((_, LockspaceOrder::Hold { epoch: other, .. })) if *other == epoch);
        if holds {
            return;
        }
        match kernel {
            SharedState::Held { epoch: other } if other == epoch => say(desk, Word::Held),
            SharedState::Absent if self.held == Some(epoch) => {
                if self.let_go.is_none() {
                    say(desk, Word::Out);
                }
            }
            SharedState::Absent | SharedState::Held { .. } | SharedState::Running { .. } | SharedState::Withdrawn => {
                let present = |slot: &Slot| desk.state.members.get(slot).is_some_and(Member::is_present);
                let boots = desk.state.lockspace.boots().filter(|(slot, _)| present(slot)).collect();
                self.begin(desk, LockspaceOrder::Hold { epoch, boots });
            }
        }
    }

    fn run(&mut self, desk: &mut Desk<'_>, mount: &Mount, kernel: SharedState, goes: bool) {
        let epoch = desk.state.lock_epoch();
        let idle = self.order.is_none() && desk.now >= self.not_before;
        let ran = self.ran.filter(|(last, _)| *last == epoch);
        match kernel {
            SharedState::Running { epoch: other, mounted } if other == epoch => {
                if mounted && !mount.mounted {
                    say(desk, Word::Mounted);
                }
                let lets_go = self.let_go.is_some() || self.stuck.is_some();
                if goes && !lets_go && self.order.is_none() {
                    desk.say(Trace::LettingGo);
                    self.let_go = Some(desk.begin(limits::LET_GO, Work::Lockspace(LockspaceOrder::LetGo)));
                } else if !mounted && !lets_go && idle {
                    self.start(desk);
                }
            }
            SharedState::Held { epoch: other } if !is_later(other, epoch) && idle => self.start(desk),
            SharedState::Absent if self.order.is_some() || self.let_go.is_some() => {}
            // Whoever was taken in and has not run may begin; but not an heir, who cannot know what the old life did.
            SharedState::Absent if mount.identity == desk.me && ran.is_none() && !goes => {
                desk.say(Trace::Mounting);
                self.start(desk);
            }
            SharedState::Absent if ran.is_some_and(|(_, failed)| failed) && !goes => say(desk, Word::Failed),
            SharedState::Absent => {
                // The word may be on its way for long: it holds in this epoch, even if this node is to stay after all.
                self.ran = Some((epoch, false));
                say(desk, Word::LetGo);
            }
            SharedState::Running { .. } | SharedState::Held { .. } | SharedState::Withdrawn => {}
        }
    }

    fn start(&mut self, desk: &mut Desk<'_>) {
        let epoch = desk.state.lock_epoch();
        let lockspace = &desk.state.lockspace;
        let members = lockspace.boots().filter(|(slot, _)| lockspace.members.contains(slot)).collect();
        self.ran = Some((epoch, false));
        self.begin(desk, LockspaceOrder::Run { epoch, members, mount: self.let_go.is_none() });
    }

    fn begin(&mut self, desk: &mut Desk<'_>, order: LockspaceOrder) {
        let limit = if matches!(order, LockspaceOrder::Hold { .. }) { limits::HOLD } else { limits::MOUNT };
        self.order = Some((desk.begin(limit, Work::Lockspace(order.clone())), order));
    }

    /// An operation on it has ended; what there is to say of it, and whether this node is failing.
    pub(crate) fn done(&mut self, now: Instant, op: OpId, outcome: &Outcome) -> (Option<Trace>, bool) {
        let reason = if let Outcome::Failed(reason) = outcome { Some(reason.clone()) } else { None };
        if self.let_go == Some(op) {
            self.let_go = None;
            if reason.is_none() {
                // Whatever was to run has gone with it.
                self.order = None;
            }
            self.stuck = reason.as_ref().map(|_| now).or(self.stuck);
            return (reason.clone().map(|reason| Trace::NotLetGo { reason }), reason.is_some());
        }
        // One that was overtaken by a newer order is nobody's any more.
        let Some((_, order)) = self.order.take_if(|(other, _)| *other == op) else { return (None, false) };
        match (order, reason) {
            (LockspaceOrder::Hold { epoch, .. }, None) => {
                self.held = Some(epoch);
                (None, false)
            }
            (LockspaceOrder::Hold { .. }, Some(reason)) => {
                self.stuck = Some(now);
                (Some(Trace::NotHeld { reason }), true)
            }
            (LockspaceOrder::Run { epoch, .. }, Some(reason)) => {
                self.not_before = now + limits::RETRY;
                self.ran = Some((epoch, true));
                (Some(Trace::NotMounted { reason }), false)
            }
            (LockspaceOrder::Run { .. } | LockspaceOrder::LetGo, _) => (None, false),
        }
    }
}

fn say(desk: &mut Desk<'_>, word: Word) {
    desk.proposals.push(Command::Mount(desk.me, desk.state.lockspace.number, word));
}

/// Whether one epoch is known to be later than another.
fn is_later(one: LockEpoch, other: LockEpoch) -> bool {
    one.generation == other.generation && one.number > other.number
}

/// As DC: when those are to try again that could not mount it. Each try holds everybody for a moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Remounts(BTreeMap<Identity, Instant>);

impl Remounts {
    /// Looks at all of them.
    pub(crate) fn review(&mut self, desk: &mut Desk<'_>) {
        let failed: Vec<Identity> = desk.state.lockspace.failed().collect();
        self.0.retain(|identity, _| failed.contains(identity));
        for identity in failed {
            let since = *self.0.entry(identity).or_insert(desk.now);
            let member = desk.state.members.get(&identity.slot).map(|member| member.standing);
            if desk.now.since(since) >= limits::MOUNT_AGAIN && member == Some(Standing::Member) {
                desk.proposals.push(Command::MountAgain(identity));
            }
        }
    }
}
