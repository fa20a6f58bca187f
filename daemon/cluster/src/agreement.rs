//! Agreement: the `raft` crate, driven without IO, with the node's own randomness and clock.
//!
//! A voter is an [`Identity`]: a slot, filled by one incarnation in one life of its supervisor. The log lives in memory,
//! so an identity that has lost its memory must not vote again; it comes back as another, first as a learner, then in
//! place of the old one by one joint change ([`Agreement::bring_in`]). The voters are always all the configured slots: a
//! slot whose node was never heard is filled by [`Identity::absent`], which never votes.
//!
//! The crate panics on messages that cannot be. Only authenticated ones come here, and [`Agreement::step`] checks sender,
//! addressee and indexes before the crate sees them. Its election timeouts come from the thread's random source; they are
//! overwritten after every call with values drawn from the node's seed, so that a simulated world repeats exactly.

use prost::Message as _;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, Entry, EntryType, Message, MessageType};
use raft::{RawNode, SnapshotStatus, StateRole};

use crate::limits;
use crate::words::Identity;

mod log;

use log::Log;

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

/// One voter or learner.
pub(crate) struct Agreement {
    raw: RawNode<Log>,
    me: Identity,
    seed: u64,
    applied: u64,
    /// Whether the membership has changed since the last snapshot. A newcomer takes a snapshot only that names it.
    changed: bool,
    /// Whether it answers only.
    resigned: bool,
}

impl core::fmt::Debug for Agreement {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Agreement").field("me", &self.me).field("applied", &self.applied).finish_non_exhaustive()
    }
}

impl Agreement {
    /// A voter of a generation that is being formed: every voter begins with this same snapshot.
    pub(crate) fn form(me: Identity, seed: u64, voters: &[Identity], state: Vec<u8>) -> Self {
        Self::new(me, seed, Log::formed(voters, state))
    }

    /// A newcomer, which knows nothing until the leader sends a snapshot.
    pub(crate) fn join(me: Identity, seed: u64) -> Self {
        Self::new(me, seed, Log::default())
    }

    fn new(me: Identity, seed: u64, log: Log) -> Self {
        let applied = log.snapshot_index();
        let config = raft::Config {
            id: me.voter(),
            election_tick: limits::ELECTION_TICKS,
            heartbeat_tick: limits::HEARTBEAT_TICKS,
            applied,
            check_quorum: true,
            pre_vote: true,
            max_size_per_msg: 16 * 1024,
            max_inflight_msgs: 64,
            ..raft::Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let Ok(raw) = RawNode::new(&config, log, &logger) else {
            panic!("the agreement's settings are constants that its crate accepts")
        };
        let mut agreement = Self { raw, me, seed, applied, changed: false, resigned: false };
        agreement.draw_timeout();
        agreement
    }

    /// Overwrites the election timeout that the crate drew with one drawn from the seed.
    fn draw_timeout(&mut self) {
        let raft = &mut self.raw.raft;
        let role = match raft.state {
            StateRole::Follower => 1,
            StateRole::Candidate => 2,
            StateRole::Leader => 3,
            StateRole::PreCandidate => 4,
        };
        let drawn = mix(self.seed ^ mix(self.me.voter() ^ mix(raft.term.wrapping_mul(8) + role)));
        let spread = u64::try_from(limits::ELECTION_TICKS).unwrap_or(1);
        let extra = usize::try_from(drawn % spread).unwrap_or(0);
        raft.set_randomized_election_timeout(limits::ELECTION_TICKS + extra);
    }

    /// Lets one tick pass.
    pub(crate) fn tick(&mut self) {
        self.raw.tick();
        self.draw_timeout();
    }

    /// Stands for election at once, as the node does that has formed the generation.
    pub(crate) fn campaign(&mut self) {
        // An error means that it may not stand: then others will.
        let _refused = self.raw.campaign();
        self.draw_timeout();
    }

    /// From now on it answers, and votes, but neither leads nor stands for election: what it would say as leader is lost, as
    /// any message may be.
    pub(crate) fn resign(&mut self) {
        self.resigned = true;
    }

    /// Takes a message from `from`, whose seal and freshness have been checked.
    ///
    /// # Errors
    /// Why it was not taken; nothing has happened then.
    pub(crate) fn step(&mut self, from: Identity, bytes: &[u8]) -> Result<(), &'static str> {
        let message = Message::decode(bytes).map_err(|_| "an agreement message that cannot be read")?;
        self.admit(from, &message)?;
        // An error is an ordinary answer: a proposal without a leader, a peer that is no longer a member.
        let _dropped = self.raw.step(message);
        self.draw_timeout();
        Ok(())
    }

    fn admit(&self, from: Identity, message: &Message) -> Result<(), &'static str> {
        if message.from != from.voter() || message.to != self.me.voter() {
            return Err("an agreement message whose sender or addressee is another");
        }
        let log = self.raw.store();
        if log.voters().count() > 0
            && !log.voters().any(|id| id == message.from)
            && !log.learners().contains(&message.from)
        {
            return Err("an agreement message from no member");
        }
        let last = self.raw.raft.raft_log.last_index();
        let possible = match message.msg_type() {
            MessageType::MsgHeartbeat => message.commit <= last,
            MessageType::MsgAppendResponse => message.index <= last || message.reject,
            MessageType::MsgAppend => {
                let consecutive =
                    (message.index + 1..).zip(&message.entries).all(|(index, entry)| entry.index == index);
                consecutive && message.index.checked_add(1).is_some()
            }
            MessageType::MsgSnapshot => message.snapshot.as_ref().is_some_and(|snapshot| snapshot.metadata.is_some()),
            MessageType::MsgPropose => message.entries.iter().all(|entry| entry.entry_type() == EntryType::EntryNormal),
            MessageType::MsgHup
            | MessageType::MsgBeat
            | MessageType::MsgUnreachable
            | MessageType::MsgSnapStatus
            | MessageType::MsgCheckQuorum
            | MessageType::MsgTransferLeader
            | MessageType::MsgTimeoutNow
            | MessageType::MsgReadIndex
            | MessageType::MsgReadIndexResp => false,
            MessageType::MsgRequestVote
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgHeartbeatResponse
            | MessageType::MsgRequestPreVote
            | MessageType::MsgRequestPreVoteResponse => true,
        };
        if possible { Ok(()) } else { Err("an agreement message that cannot be") }
    }

    /// Proposes a command; without a leader it is lost, and is proposed again by whoever still wants it.
    pub(crate) fn propose(&mut self, command: Vec<u8>) {
        let _no_leader = self.raw.propose(Vec::new(), command);
        self.draw_timeout();
    }

    /// The leader brings `newcomer` into its slot, a step a call: first as a learner; when it has caught up, as a voter
    /// in place of whoever fills the slot.
    pub(crate) fn bring_in(&mut self, newcomer: Identity) {
        if !self.is_leader() || self.raw.raft.has_pending_conf() {
            return;
        }
        if self.raw.store().is_joint() {
            // An earlier leader entered a joint change that nobody has left.
            let _no_leader = self.raw.propose_conf_change(Vec::new(), ConfChangeV2::default());
            return self.draw_timeout();
        }
        let id = newcomer.voter();
        let log = self.raw.store();
        let stale = log.learners().iter().copied().filter(|learner| {
            *learner != id && Identity::of_voter(*learner).is_some_and(|other| other.slot == newcomer.slot)
        });
        let mut change = ConfChangeV2::default();
        change.changes.extend(stale.map(|learner| single(ConfChangeType::RemoveNode, learner)));
        if log.learners().contains(&id) {
            let caught_up = self.raw.raft.prs().get(id).is_some_and(|progress| {
                progress.matched > 0 && progress.matched + 2 >= self.raw.raft.raft_log.committed
            });
            if !caught_up {
                return;
            }
            let old =
                log.voters().filter(|voter| Identity::of_voter(*voter).is_some_and(|old| old.slot == newcomer.slot));
            change.changes.extend(old.map(|voter| single(ConfChangeType::RemoveNode, voter)));
            change.changes.push(single(ConfChangeType::AddNode, id));
            change.context = id.to_be_bytes().to_vec();
        } else {
            change.changes.push(single(ConfChangeType::AddLearnerNode, id));
        }
        let _no_leader = self.raw.propose_conf_change(Vec::new(), change);
        self.draw_timeout();
    }

    /// Everything that has become ready.
    pub(crate) fn take(&mut self) -> Output {
        let mut output = Output::default();
        while self.raw.has_ready() {
            let mut ready = self.raw.ready();
            let mut messages = ready.take_messages();
            if let Some(snapshot) = Some(ready.snapshot())
                .filter(|snapshot| snapshot.metadata.is_some() && **snapshot != Default::default())
            {
                self.applied = self.applied.max(snapshot.metadata.as_ref().map_or(0, |metadata| metadata.index));
                output.committed.push(Committed::Snapshot(snapshot.data.to_vec()));
                self.raw.mut_store().restore(snapshot.clone());
            }
            let committed = ready.take_committed_entries();
            self.raw.mut_store().append(ready.entries());
            if let Some(hard) = ready.hs() {
                self.raw.mut_store().set_hard_state(hard.clone());
            }
            messages.extend(ready.take_persisted_messages());
            // Before the crate is told that they are applied: it leaves a joint change only if it knows of it by then.
            for entry in committed {
                self.commit(entry, &mut output);
            }
            let mut light = self.raw.advance(ready);
            if let Some(commit) = light.commit_index() {
                self.raw.mut_store().set_commit(commit);
            }
            messages.extend(light.take_messages());
            for entry in light.take_committed_entries() {
                self.commit(entry, &mut output);
            }
            for message in messages.iter().filter(|message| message.msg_type() == MessageType::MsgSnapshot) {
                // A datagram may be lost, and nobody will say so: without this the crate would wait for its answer for
                // ever. Now it asks anew with the next heartbeat, and sends the snapshot again if it is still wanted.
                self.raw.report_snapshot(message.to, SnapshotStatus::Failure);
            }
            let said = messages.iter().filter(|message| !self.resigned || is_answer(message.msg_type()));
            output.messages.extend(said.filter_map(addressed));
            self.raw.advance_apply();
            self.draw_timeout();
        }
        output
    }

    fn commit(&mut self, entry: Entry, output: &mut Output) {
        self.applied = entry.index;
        match entry.entry_type() {
            EntryType::EntryNormal if entry.data.is_empty() => {}
            EntryType::EntryNormal => output.committed.push(Committed::Command(entry.data.to_vec())),
            EntryType::EntryConfChangeV2 => {
                let Ok(change) = ConfChangeV2::decode(&*entry.data) else {
                    return;
                };
                // A change that the crate refuses is refused by every member alike.
                let Ok(voters) = self.raw.apply_conf_change(&change) else {
                    return;
                };
                self.raw.mut_store().set_voters(voters);
                self.changed = true;
                let id = <[u8; 8]>::try_from(&*change.context).map(u64::from_be_bytes);
                output.committed.extend(id.ok().and_then(Identity::of_voter).map(Committed::Fill));
            }
            EntryType::EntryConfChange => {}
        }
    }

    /// Makes `state`, which is the state at the applied index, the snapshot, when the log has grown long or the membership
    /// has changed.
    pub(crate) fn compact(&mut self, state: impl FnOnce() -> Vec<u8>) {
        let applied = self.applied;
        if core::mem::take(&mut self.changed) || applied >= self.raw.store().snapshot_index() + limits::LOG_ENTRIES {
            self.raw.mut_store().compact(applied, state());
        }
    }

    /// Whether this node believes itself leader: not a right to act, only to propose.
    pub(crate) fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// Who leads, as far as known.
    pub(crate) fn leader(&self) -> Option<Identity> {
        Identity::of_voter(self.raw.raft.leader_id)
    }

    /// Whether the leader has committed something in its own term, and so knows everything that was committed.
    pub(crate) fn leads_with_knowledge(&self) -> bool {
        self.is_leader() && self.raw.raft.commit_to_current_term() && self.applied >= self.raw.raft.raft_log.committed
    }

    /// The identities that vote: one set, or in the middle of a joint change two, each of which must agree.
    pub(crate) fn voters(&self) -> impl Iterator<Item = Vec<Identity>> {
        let sets = self.raw.store().voter_sets().into_iter().filter(|set| !set.is_empty());
        sets.map(|set| set.iter().copied().filter_map(Identity::of_voter).collect())
    }
}

fn single(kind: ConfChangeType, id: u64) -> ConfChangeSingle {
    let mut change = ConfChangeSingle { node_id: id, ..ConfChangeSingle::default() };
    change.set_change_type(kind);
    change
}

fn is_answer(kind: MessageType) -> bool {
    match kind {
        MessageType::MsgAppendResponse
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgRequestPreVoteResponse => true,
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgPropose
        | MessageType::MsgAppend
        | MessageType::MsgRequestVote
        | MessageType::MsgSnapshot
        | MessageType::MsgHeartbeat
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader
        | MessageType::MsgTimeoutNow
        | MessageType::MsgReadIndex
        | MessageType::MsgReadIndexResp
        | MessageType::MsgRequestPreVote => false,
    }
}

fn addressed(message: &Message) -> Option<(Identity, Vec<u8>)> {
    let to = Identity::of_voter(message.to).filter(|to| !to.is_absent())?;
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
