//! Whether a message of the agreement can be.
//!
//! The crate takes for granted that members tell the truth, and panics where a message contradicts its log. So whatever
//! would make it panic, wrap around, or grow without end is refused here; `tests/tests/fuzz.rs` looks for what is missing.
//! What an honest member says, however late it comes, is either admitted or would have been ignored.

use std::collections::BTreeSet;

use prost::Message as _;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType, Message,
    MessageType, Snapshot,
};

use super::seat::Seat;
use crate::limits;
use crate::words::Identity;

/// No log ever comes to this index, and what the crate adds to it does not wrap around.
const INDEXES: u64 = u64::MAX / 2;

/// Whether the crate may see this message, whose sender and addressee were checked.
///
/// # Errors
/// Why not.
pub(super) fn admit(seat: &Seat, message: &Message) -> Result<(), &'static str> {
    let log = seat.raw.store();
    let known = log.voters().any(|id| id == message.from) || log.learners().contains(&message.from);
    // Whoever was away does not know yet who came in meanwhile: a newcomer may lead it, or ask for its vote.
    let leads = matches!(
        message.msg_type(),
        MessageType::MsgAppend
            | MessageType::MsgHeartbeat
            | MessageType::MsgSnapshot
            | MessageType::MsgRequestVote
            | MessageType::MsgRequestPreVote
    );
    if !known && !leads && log.voters().count() > 0 {
        return Err("an agreement message from no member");
    }
    let raft = &seat.raw.raft;
    let last = raft.raft_log.last_index();
    // A term counts elections: a jump is no election.
    let in_term = message.term > 0 && message.term <= raft.term.saturating_add(limits::TERMS);
    let possible = match message.msg_type() {
        MessageType::MsgHeartbeat => in_term && message.commit <= last,
        MessageType::MsgHeartbeatResponse => in_term && message.commit <= last,
        MessageType::MsgAppendResponse => {
            let highest = message.index.max(message.reject_hint).max(message.commit);
            in_term && highest <= last && message.request_snapshot == 0
        }
        MessageType::MsgAppend => {
            // What follows nothing that is here is not kept, only answered.
            let kept = message.index <= last;
            let room = if kept { raft.raft_log.committed.saturating_add(limits::UNCOMMITTED_ENTRIES) } else { INDEXES };
            in_term && message.index > 0 && message.log_term > 0 && message.index <= INDEXES && follow(message, room)
        }
        MessageType::MsgSnapshot => {
            in_term
                && message.snapshot.as_ref().is_some_and(|snapshot| can_be_restored(snapshot, seat.id, message.term))
        }
        MessageType::MsgPropose => {
            let plain = |entry: &Entry| EntryType::from_i32(entry.entry_type) == Some(EntryType::EntryNormal);
            message.term == 0 && !message.entries.is_empty() && message.entries.iter().all(plain)
        }
        MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse => in_term,
        // Only who leads hands that over, and only to the vote that may stand for election.
        MessageType::MsgTimeoutNow => seat.first && message.term == raft.term && message.from == raft.leader_id,
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader
        | MessageType::MsgReadIndex
        | MessageType::MsgReadIndexResp => false,
    };
    if possible { Ok(()) } else { Err("an agreement message that cannot be") }
}

/// Whether the entries follow one another up to `room`, in terms that do not fall and are no later than the message's.
fn follow(message: &Message, room: u64) -> bool {
    let mut before = (message.index, message.log_term);
    message.entries.iter().all(|entry| {
        let next = before.0.checked_add(1) == Some(entry.index) && entry.index <= room;
        let terms = before.1 <= entry.term && entry.term <= message.term;
        before = (entry.index, entry.term);
        next && terms && is_readable(entry)
    })
}

/// Whether the crate can read it: it panics on words that it does not know.
fn is_readable(entry: &Entry) -> bool {
    match EntryType::from_i32(entry.entry_type) {
        Some(EntryType::EntryNormal) => true,
        Some(EntryType::EntryConfChangeV2) => ConfChangeV2::decode(&*entry.data).is_ok_and(|change| {
            let known = |single: &ConfChangeSingle| ConfChangeType::from_i32(single.change_type).is_some();
            ConfChangeTransition::from_i32(change.transition).is_some() && change.changes.iter().all(known)
        }),
        Some(EntryType::EntryConfChange) | None => false,
    }
}

/// Whether it is the snapshot of a log in which `id` has a part.
fn can_be_restored(snapshot: &Snapshot, id: u64, term: u64) -> bool {
    let Some(metadata) = &snapshot.metadata else {
        return false;
    };
    let Some(members) = &metadata.conf_state else {
        return false;
    };
    let in_range = metadata.index > 0 && metadata.index <= INDEXES && metadata.term > 0 && metadata.term <= term;
    in_range
        && are_consistent(members)
        && [&members.voters, &members.voters_outgoing, &members.learners].iter().any(|set| set.contains(&id))
}

/// Whether these sets are those of one membership: each id is a voter's and stands once in a set, nobody is voter and
/// learner, and only in a joint change there is somebody who goes out.
fn are_consistent(members: &ConfState) -> bool {
    let ConfState { voters, learners, voters_outgoing, learners_next, auto_leave } = members;
    let sets = [voters, learners, voters_outgoing, learners_next].map(|ids| ids.iter().collect::<BTreeSet<_>>());
    let once =
        [voters, learners, voters_outgoing, learners_next].iter().zip(&sets).all(|(ids, set)| ids.len() == set.len());
    let known = sets.iter().flatten().all(|id| Identity::of_voter(**id).is_some());
    let [voters, learners, outgoing, next] = &sets;
    let joint = !outgoing.is_empty();
    once && known
        && !voters.is_empty()
        && learners.is_disjoint(voters)
        && learners.is_disjoint(outgoing)
        && next.is_subset(outgoing)
        && next.is_disjoint(voters)
        && (joint || !auto_leave)
}

/// Whether this is what a member answers, and not what a leader or a candidate says.
pub(super) fn is_answer(message: &Message) -> bool {
    match message.msg_type() {
        MessageType::MsgAppendResponse
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgRequestPreVoteResponse
        // What it proposes as a follower is the leader's to take or to leave.
        | MessageType::MsgPropose => true,
        MessageType::MsgHup
        | MessageType::MsgBeat
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
