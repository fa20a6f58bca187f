//! Agreement: the `raft` crate, driven without IO, with the node's own randomness and clock.
//!
//! A voter is a vote of an [`Identity`]: a slot, filled by one incarnation in one life of its supervisor. The log lives in memory,
//! so an identity that has lost its memory must not vote again; it comes back as another, first as a learner, then in
//! place of the old one by one joint change ([`Agreement::bring_in`]). The voters are always all the configured slots: a
//! slot whose node was never heard is filled by [`Identity::absent`], which never votes.
//!
//! The crate panics on messages that cannot be. Only authenticated ones come here, and [`Agreement::step`] lets the crate see
//! only what passes the gate (`gate.rs`). Its election timeouts come from the thread's random source; they are
//! overwritten after every call with values drawn from the node's seed, so that a simulated world repeats exactly.

use std::collections::BTreeSet;

use prost::Message as _;
use raft::StateRole;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, Message};

use crate::config::Config;
use crate::words::{Identity, Slot};

mod gate;
mod log;
mod seat;

use gate::{admit, is_answer};
use log::Log;
use seat::Seat;

/// One committed step, in order.
#[derive(Debug)]
pub(crate) enum Committed {
    /// The whole state, in place of everything before.
    Snapshot(Vec<u8>),
    /// A proposed command.
    Command(Vec<u8>),
    /// A new identity fills its slot.
    Fill(Identity),
}

/// What the agreement wants done.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Messages and their addressees.
    pub(crate) messages: Vec<(Identity, Vec<u8>)>,
    /// What was committed.
    pub(crate) committed: Vec<Committed>,
}

/// A node's part in it: a seat for each of its votes.
pub(crate) struct Agreement {
    me: Identity,
    /// The votes of each slot.
    votes: Vec<u8>,
    own: Seat,
    others: Vec<Seat>,
    /// Whether it answers only.
    resigned: bool,
}

impl core::fmt::Debug for Agreement {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Agreement").field("me", &self.me).field("applied", &self.own.applied).finish_non_exhaustive()
    }
}

/// The ids of an identity's voters.
fn voters_of(votes: &[u8], identity: Identity) -> impl Iterator<Item = u64> + use<> {
    let count = votes.get(usize::from(identity.slot.0)).copied().unwrap_or(1);
    (0..count).map(move |seat| identity.voter(seat))
}

impl Agreement {
    /// A member of a generation that is being formed: every voter begins with this same snapshot.
    pub(crate) fn form(me: Identity, seed: u64, config: &Config, members: &[Identity], state: &[u8]) -> Self {
        let votes: Vec<u8> = config.nodes.iter().map(|node| node.votes).collect();
        let voters: Vec<u64> = members.iter().flat_map(|identity| voters_of(&votes, *identity)).collect();
        Self::new(me, seed, config, || Log::formed(voters.clone(), state.to_vec()))
    }

    /// A newcomer, which knows nothing until the leader sends a snapshot.
    pub(crate) fn join(me: Identity, seed: u64, config: &Config) -> Self {
        Self::new(me, seed, config, Log::default)
    }

    fn new(me: Identity, seed: u64, config: &Config, log: impl Fn() -> Log) -> Self {
        let votes: Vec<u8> = config.nodes.iter().map(|node| node.votes).collect();
        let others = (1..config.node(me.slot).votes).map(|seat| Seat::new(me, seat, seed, log())).collect();
        Self { me, votes, own: Seat::new(me, 0, seed, log()), others, resigned: false }
    }

    /// Another edition of the configuration holds from now on. The votes of a slot never change.
    pub(crate) fn configured(&mut self, config: &Config) {
        self.votes = config.nodes.iter().map(|node| node.votes).collect();
    }

    fn seats(&mut self) -> impl Iterator<Item = &mut Seat> {
        core::iter::once(&mut self.own).chain(&mut self.others)
    }

    /// Lets one tick pass.
    pub(crate) fn tick(&mut self) {
        for other in &self.others {
            self.own.catch_up(other);
        }
        self.seats().for_each(Seat::tick);
    }

    /// Stands for election at once, as the node does that has formed the generation.
    pub(crate) fn campaign(&mut self) {
        // An error means that it may not stand: then others will.
        let _refused = self.own.raw.campaign();
        self.own.draw_timeout();
    }

    /// This node slept so long that another may have been elected meanwhile: if it leads, it does not act before a majority
    /// has said since that it does.
    pub(crate) fn slept(&mut self) {
        self.own.doubt();
    }

    /// As long as it has resigned it answers, and votes, but neither leads nor stands for election: what it would say as
    /// leader is lost, as any message may be.
    pub(crate) fn resign(&mut self, resigned: bool) {
        self.resigned = resigned;
    }

    /// Whether it has resigned.
    pub(crate) fn has_resigned(&self) -> bool {
        self.resigned
    }

    /// Has `to` lead instead, if it knows as much. This node goes on if that comes to nothing.
    pub(crate) fn hand_over(&mut self, to: Identity) {
        let id = to.voter(0);
        if self.is_leader() && self.has_caught_up(id) {
            self.own.raw.transfer_leader(id);
        }
    }

    /// Takes a message from `from`, whose seal and freshness have been checked.
    ///
    /// # Errors
    /// Why it was not taken; nothing has happened then.
    pub(crate) fn step(&mut self, from: Identity, bytes: &[u8]) -> Result<(), &'static str> {
        let message = Message::decode(bytes).map_err(|_| "an agreement message that cannot be read")?;
        let is = |id: u64, who: Identity| Identity::of_voter(id).is_some_and(|(identity, _)| identity == who);
        let (of_sender, to) = (is(message.from, from), message.to);
        let seat = self.seats().find(|seat| seat.id == to);
        let Some(seat) = seat.filter(|_| of_sender) else {
            return Err("an agreement message whose sender or addressee is another");
        };
        admit(seat, &message)?;
        seat.step(message);
        Ok(())
    }

    /// Proposes a command; without a leader it is lost, and is proposed again by whoever still wants it.
    pub(crate) fn propose(&mut self, command: Vec<u8>) {
        let _no_leader = self.own.raw.propose(Vec::new(), command);
        self.own.draw_timeout();
    }

    /// The leader brings `newcomer` into its slot, a step a call: first as a learner; when it has caught up, as a voter
    /// in place of whoever fills the slot. Each step is one joint change.
    pub(crate) fn bring_in(&mut self, newcomer: Identity) {
        if !self.is_leader() || self.own.raw.raft.has_pending_conf() {
            return;
        }
        let mut change = ConfChangeV2::default();
        // If an earlier leader entered a joint change that nobody has left, an empty change leaves it.
        if !self.own.raw.store().is_joint() {
            let log = self.own.raw.store();
            let ids: Vec<u64> = voters_of(&self.votes, newcomer).collect();
            let in_slot = |id: &u64| Identity::of_voter(*id).is_some_and(|(other, _)| other.slot == newcomer.slot);
            let stale = log.learners().iter().copied().filter(|id| in_slot(id) && !ids.contains(id));
            change.changes.extend(stale.map(|id| single(ConfChangeType::RemoveNode, id)));
            if ids.iter().all(|id| log.learners().contains(id)) {
                if !ids.iter().all(|id| self.has_caught_up(*id)) {
                    return;
                }
                let old = log.voters().filter(|id| in_slot(id) && !ids.contains(id));
                change.changes.extend(old.map(|id| single(ConfChangeType::RemoveNode, id)));
                change.changes.extend(ids.iter().map(|id| single(ConfChangeType::AddNode, *id)));
                change.context = newcomer.voter(0).to_be_bytes().to_vec();
            } else {
                change.changes.extend(ids.iter().map(|id| single(ConfChangeType::AddLearnerNode, *id)));
            }
        }
        let _no_leader = self.own.raw.propose_conf_change(Vec::new(), change);
        self.own.draw_timeout();
    }

    /// Whether somebody votes for that slot, if only whoever never comes.
    pub(crate) fn has_seat(&self, slot: Slot) -> bool {
        self.voters().flatten().any(|voter| voter.slot == slot)
    }

    /// Whether each configured slot votes with all of its votes, and nobody else does.
    pub(crate) fn is_seated(&self, config: &Config) -> bool {
        let log = self.own.raw.store();
        let voters = || log.voters().filter_map(|id| Some(Identity::of_voter(id)?.0.slot));
        let votes = |slot: Slot| voters().filter(|voter| *voter == slot).count();
        !log.is_joint()
            && voters().all(|slot| config.has(slot))
            && config.slots().all(|(slot, node)| votes(slot) == usize::from(node.votes))
    }

    /// The leader has every configured slot vote and no other, by one joint change: a slot that was added is filled by
    /// nobody until its node comes.
    pub(crate) fn reseat(&mut self, config: &Config) {
        if !self.is_leader() || self.own.raw.raft.has_pending_conf() {
            return;
        }
        let log = self.own.raw.store();
        let slot = |id: u64| Identity::of_voter(id).map(|(identity, _)| identity.slot);
        let empty = |wanted: &Slot| !log.voters().any(|id| slot(id) == Some(*wanted));
        let added = config.slots().map(|(slot, _)| slot).filter(empty);
        let added = added.flat_map(|slot| voters_of(&self.votes, Identity::absent(slot)).collect::<Vec<_>>());
        let everybody = log.voters().chain(log.learners().iter().copied());
        let removed: BTreeSet<u64> = everybody.filter(|id| slot(*id).is_none_or(|slot| !config.has(slot))).collect();
        let removed = removed.into_iter().map(|id| single(ConfChangeType::RemoveNode, id));
        let changes: Vec<_> = added.map(|id| single(ConfChangeType::AddNode, id)).chain(removed).collect();
        if changes.is_empty() {
            return;
        }
        let mut change = ConfChangeV2::default();
        // As in bring_in: a joint change that nobody has left is left first.
        if !log.is_joint() {
            change.changes = changes;
        }
        let _no_leader = self.own.raw.propose_conf_change(Vec::new(), change);
        self.own.draw_timeout();
    }

    fn has_caught_up(&self, id: u64) -> bool {
        let raft = &self.own.raw.raft;
        let progress = raft.prs().get(id);
        progress.is_some_and(|progress| progress.matched > 0 && progress.matched + 2 >= raft.raft_log.committed)
    }

    /// Everything that has become ready. What one seat has for another of this node is delivered at once.
    pub(crate) fn take(&mut self) -> Output {
        let mut output = Output::default();
        loop {
            let (mut messages, committed) = self.own.take();
            output.committed.extend(committed);
            messages.extend(self.others.iter_mut().flat_map(|seat| seat.take().0));
            let mut inside = false;
            // Not even its own other seats hear it: they would not vote for another.
            let resigned = self.resigned;
            for message in messages.into_iter().filter(|message| !resigned || is_answer(message)) {
                if let Some(seat) = self.seats().find(|seat| seat.id == message.to) {
                    inside = true;
                    seat.step(message);
                } else {
                    output.messages.extend(addressed(&message));
                }
            }
            if !inside {
                return output;
            }
        }
    }

    /// Makes `state`, which is the state at the applied index, the snapshot, when one is due.
    pub(crate) fn compact(&mut self, state: impl Fn() -> Vec<u8>) {
        let applied = self.own.applied;
        for seat in self.seats().filter(|seat| seat.applied == applied && seat.is_long()) {
            seat.compact(state());
        }
    }

    /// How much of the log was applied here.
    pub(crate) fn applied(&self) -> u64 {
        self.own.applied
    }

    /// Whether this node believes itself leader: not a right to act, only to propose.
    pub(crate) fn is_leader(&self) -> bool {
        self.own.raw.raft.state == StateRole::Leader
    }

    /// Who leads, as far as known.
    pub(crate) fn leader(&self) -> Option<Identity> {
        Identity::of_voter(self.own.raw.raft.leader_id).map(|(identity, _)| identity)
    }

    /// Whether it leads as far as it knows, but has slept since a majority last confirmed it.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.is_leader() && self.own.is_in_doubt()
    }

    /// Whether the leader is not in doubt and has committed something in its own term, and so knows everything that was
    /// committed.
    pub(crate) fn leads_with_knowledge(&self) -> bool {
        let raft = &self.own.raw.raft;
        self.is_leader()
            && !self.is_in_doubt()
            && raft.commit_to_current_term()
            && self.own.applied >= raft.raft_log.committed
    }

    /// The identities that vote, each as often as it has votes: one set, or in the middle of a joint change two, each of
    /// which must agree.
    pub(crate) fn voters(&self) -> impl Iterator<Item = Vec<Identity>> {
        let sets = self.own.raw.store().voter_sets().into_iter().filter(|set| !set.is_empty());
        sets.map(|set| set.iter().filter_map(|id| Some(Identity::of_voter(*id)?.0)).collect())
    }
}

fn single(kind: ConfChangeType, id: u64) -> ConfChangeSingle {
    let mut change = ConfChangeSingle { node_id: id, ..ConfChangeSingle::default() };
    change.set_change_type(kind);
    change
}

fn addressed(message: &Message) -> Option<(Identity, Vec<u8>)> {
    let (to, _) = Identity::of_voter(message.to).filter(|(to, _)| !to.is_absent())?;
    Some((to, message.encode_to_vec()))
}

/// A well mixed value (the finaliser of SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", 2014).
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
