//! One voter of this node: the `raft` crate's node, its log, and its own randomness.
//!
//! A node with several votes has a seat for each. The first is the node's own voice: it may lead, and what it applies is
//! what counts. The others only vote and keep the log, so that a majority of votes is a majority of voters.

use prost::Message as _;
use raft::eraftpb::{ConfChangeV2, Entry, EntryType, Message, MessageType};
use raft::{GetEntriesContext, RawNode, SnapshotStatus, StateRole};

use super::log::Log;
use super::{Committed, mix};
use crate::limits;
use crate::words::Identity;

/// No such timeout ever comes.
const NEVER: usize = usize::MAX / 2;

/// One voter or learner.
pub(super) struct Seat {
    pub(super) raw: RawNode<Log>,
    pub(super) id: u64,
    seed: u64,
    /// Whether it may lead.
    pub(super) first: bool,
    pub(super) applied: u64,
    /// Whether the membership has changed since the last snapshot. A newcomer takes a snapshot only that names it.
    changed: bool,
    /// The number of the last question whether it still leads.
    asked: u64,
    in_doubt: bool,
}

impl Seat {
    pub(super) fn new(me: Identity, seat: u8, seed: u64, log: Log) -> Self {
        let (id, applied) = (me.voter(seat), log.snapshot_index());
        let config = raft::Config {
            id,
            election_tick: limits::ELECTION_TICKS,
            heartbeat_tick: limits::HEARTBEAT_TICKS,
            applied,
            check_quorum: true,
            pre_vote: true,
            max_size_per_msg: 16 * 1024,
            max_inflight_msgs: 64,
            // What is proposed in one turn goes in one message.
            batch_append: true,
            max_election_tick: if seat == 0 { 0 } else { NEVER + 1 },
            ..raft::Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let Ok(raw) = RawNode::new(&config, log, &logger) else {
            panic!("the agreement's settings are constants that its crate accepts")
        };
        let mut seat = Self { raw, id, seed, first: seat == 0, applied, changed: false, asked: 0, in_doubt: false };
        seat.draw_timeout();
        seat
    }

    /// Overwrites the election timeout that the crate drew with one drawn from the seed. Wanted after every call into it.
    pub(super) fn draw_timeout(&mut self) {
        let raft = &mut self.raw.raft;
        if !self.first {
            return raft.set_randomized_election_timeout(NEVER);
        }
        let role = match raft.state {
            StateRole::Follower => 1,
            StateRole::Candidate => 2,
            StateRole::Leader => 3,
            StateRole::PreCandidate => 4,
        };
        let drawn = mix(self.seed ^ mix(self.id ^ mix(raft.term.wrapping_mul(8) + role)));
        let spread = u64::try_from(limits::ELECTION_TICKS).unwrap_or(1);
        let extra = usize::try_from(drawn % spread).unwrap_or(0);
        raft.set_randomized_election_timeout(limits::ELECTION_TICKS + extra);
    }

    /// From now on it counts as leader only if a majority confirms it: the crate's read index, of which each has a number of
    /// its own, so that no answer from before can be taken for it.
    pub(super) fn doubt(&mut self) {
        self.asked += 1;
        self.in_doubt = true;
    }

    pub(super) fn is_in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// Asks for the confirmation again: the crate forgets what it was asked before it knew its term's first entry.
    fn ask(&mut self) {
        self.in_doubt &= self.raw.raft.state == StateRole::Leader;
        if self.in_doubt {
            self.raw.read_index(self.asked.to_be_bytes().to_vec());
        }
    }

    pub(super) fn tick(&mut self) {
        self.raw.tick();
        self.ask();
        self.draw_timeout();
    }

    /// Takes over the log of another seat of this node, if that is the more up to date and nobody leads this one.
    ///
    /// What the last leader sent may have reached that seat and not the first, which alone may stand for election: that one
    /// would refuse it its vote, and so might a majority of this very node's votes for ever. What is taken over is not
    /// acknowledged to anybody. It is what the leader of the log's last term may have sent here as well, in a term that is not
    /// past for this seat; and an entry that was committed is in every log that is more up to date than one that has it
    /// (D. Ongaro, "Consensus: Bridging Theory and Practice", 2014, 3.6).
    pub(super) fn catch_up(&mut self, other: &Self) {
        let (raft, theirs) = (&mut self.raw.raft, &other.raw.raft.raft_log);
        let last = (theirs.last_term(), theirs.last_index());
        let behind = (raft.raft_log.last_term(), raft.raft_log.last_index()) < last && last.0 <= raft.term;
        if raft.state == StateRole::Leader || raft.leader_id != raft::INVALID_ID || !behind {
            return;
        }
        let log = &mut raft.raft_log;
        let common = log.committed;
        // That one may have been sent a snapshot, from behind which nothing is left: then this one waits for a leader.
        let entries = theirs.entries(common + 1, None, GetEntriesContext::empty(false));
        if let (Ok(term), Ok(entries)) = (log.term(common), entries) {
            log.maybe_append(common, term, common, &entries);
        }
    }

    /// Takes a message that was admitted. An error of the crate is an ordinary answer: a proposal without a leader, a peer
    /// that is no longer a member.
    pub(super) fn step(&mut self, message: Message) {
        let _dropped = self.raw.step(message);
        self.draw_timeout();
    }

    /// Everything that has become ready.
    pub(super) fn take(&mut self) -> (Vec<Message>, Vec<Committed>) {
        let (mut sent, mut output) = (Vec::new(), Vec::new());
        while self.raw.has_ready() {
            let mut ready = self.raw.ready();
            let mut messages = ready.take_messages();
            let asked = self.asked.to_be_bytes();
            self.in_doubt &= !ready.read_states().iter().any(|read| read.request_ctx == asked);
            if let Some(snapshot) = Some(ready.snapshot())
                .filter(|snapshot| snapshot.metadata.is_some() && **snapshot != Default::default())
            {
                self.applied = self.applied.max(snapshot.metadata.as_ref().map_or(0, |metadata| metadata.index));
                output.push(Committed::Snapshot(snapshot.data.to_vec()));
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
            sent.append(&mut messages);
            self.raw.advance_apply();
            self.draw_timeout();
        }
        (sent, output)
    }

    fn commit(&mut self, entry: Entry, output: &mut Vec<Committed>) {
        self.applied = entry.index;
        match entry.entry_type() {
            EntryType::EntryNormal if entry.data.is_empty() => {}
            EntryType::EntryNormal => output.push(Committed::Command(entry.data.to_vec())),
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
                let filled = id.ok().and_then(Identity::of_voter);
                output.extend(filled.map(|(identity, _)| Committed::Fill(identity)));
            }
            EntryType::EntryConfChange => {}
        }
    }

    /// Whether a snapshot is due: the log has grown long, or the membership has changed.
    pub(super) fn is_long(&self) -> bool {
        self.changed || self.applied >= self.raw.store().snapshot_index() + limits::LOG_ENTRIES
    }

    /// Makes `state`, which is the state at the applied index, the snapshot.
    pub(super) fn compact(&mut self, state: Vec<u8>) {
        self.changed = false;
        let applied = self.applied;
        self.raw.mut_store().compact(applied, state);
    }
}
