//! Messages that once made the crate panic (`tests/tests/fuzz.rs` found them), and what an honest member says.

use raft::eraftpb::{ConfState, Entry, EntryType, MessageType, Snapshot, SnapshotMetadata};

use super::*;
use crate::config::Config;
use crate::limits;
use crate::words::{Incarnation, Life, Slot};

const GOOD: &str = include_str!("../config/good.toml");

fn identity(slot: u8) -> Identity {
    let incarnation = Incarnation::new(u64::from(slot) + 1).unwrap();
    Identity { slot: Slot(slot), incarnation, life: Life::default() }
}

/// The member in slot 0 of a generation that has just been formed, whose log ends at index 1.
fn member() -> Agreement {
    let config = Config::parse(GOOD).unwrap();
    let members: Vec<Identity> = (0..3).map(identity).collect();
    Agreement::form(identity(0), 7, &config, &members, b"state")
}

fn message(kind: MessageType, change: impl FnOnce(&mut Message)) -> Message {
    let (from, to) = (identity(1).voter(0), identity(0).voter(0));
    let mut message = Message { from, to, term: 2, ..Message::default() };
    message.set_msg_type(kind);
    change(&mut message);
    message
}

fn entry(index: u64, kind: i32) -> Entry {
    Entry { entry_type: kind, term: 2, index, ..Entry::default() }
}

fn snapshot(voters: &[u64], learners: &[u64], auto_leave: bool) -> Option<Snapshot> {
    let conf_state =
        Some(ConfState { voters: voters.to_vec(), learners: learners.to_vec(), auto_leave, ..ConfState::default() });
    Some(Snapshot { metadata: Some(SnapshotMetadata { conf_state, index: 9, term: 2 }), ..Snapshot::default() })
}

fn append(message: &mut Message, entries: Vec<Entry>) {
    (message.index, message.log_term, message.entries) = (1, 1, entries);
}

/// Steps it, and lets everything come of it that may.
fn step(message: &Message) -> Result<(), &'static str> {
    let mut member = member();
    let stepped = member.step(identity(1), &message.encode_to_vec());
    member.take();
    for _ in 0..100 {
        member.tick();
        member.take();
    }
    stepped
}

#[test]
fn what_cannot_be_is_refused_before_the_crate_sees_it() {
    use MessageType::*;
    let (me, other) = (identity(0).voter(0), identity(1).voter(0));
    let rows = [
        message(MsgRequestVote, |message| message.term = 0),
        message(MsgRequestPreVote, |message| message.term = 0),
        message(MsgRequestVote, |message| message.term = u64::MAX),
        message(MsgHeartbeat, |message| message.commit = 2),
        message(MsgAppendResponse, |message| (message.reject, message.reject_hint) = (true, u64::MAX)),
        message(MsgAppendResponse, |message| message.index = 2),
        message(MsgPropose, |message| message.entries = vec![entry(0, 0)]),
        message(MsgPropose, |message| message.term = 0),
        message(MsgPropose, |message| (message.term, message.entries) = (0, vec![entry(0, 64)])),
        message(MsgAppend, |message| append(message, vec![entry(2, 64)])),
        message(MsgAppend, |message| append(message, vec![entry(3, 0)])),
        message(MsgAppend, |message| append(message, vec![entry(2, EntryType::EntryConfChange.into())])),
        message(MsgAppend, |message| (message.index, message.log_term) = (u64::MAX, 1)),
        message(MsgAppend, |message| (message.index, message.entries) = (2, vec![entry(3, 0)])),
        message(MsgSnapshot, |_| {}),
        message(MsgSnapshot, |message| message.snapshot = snapshot(&[], &[me], false)),
        message(MsgSnapshot, |message| message.snapshot = snapshot(&[other], &[], false)),
        message(MsgSnapshot, |message| message.snapshot = snapshot(&[me, other, other], &[], false)),
        message(MsgSnapshot, |message| message.snapshot = snapshot(&[me, other], &[other], false)),
        message(MsgSnapshot, |message| message.snapshot = snapshot(&[me, other], &[], true)),
        message(MsgSnapshot, |message| message.snapshot = snapshot(&[me, 5], &[], false)),
        message(MsgHup, |_| {}),
        message(MsgTimeoutNow, |_| {}),
    ];
    for row in rows {
        assert_eq!(step(&row), Err("an agreement message that cannot be"), "{row:?}");
    }
}

#[test]
fn what_an_honest_member_says_is_taken() {
    use MessageType::*;
    let (me, other) = (identity(0).voter(0), identity(1).voter(0));
    let rows = [
        message(MsgRequestPreVote, |message| (message.index, message.log_term) = (1, 1)),
        message(MsgHeartbeat, |message| message.commit = 1),
        message(MsgAppend, |message| append(message, vec![entry(2, 0), entry(3, 0)])),
        // From a leader that is far ahead: it is answered, and the leader goes back.
        message(MsgAppend, |message| {
            append(message, vec![entry(70_001, 0)]);
            (message.index, message.log_term) = (70_000, 2);
        }),
        message(MsgSnapshot, |message| message.snapshot = snapshot(&[me, other], &[], false)),
    ];
    for row in rows {
        assert_eq!(step(&row), Ok(()), "{row:?}");
    }
}

#[test]
fn only_who_leads_hands_that_over() {
    let hands_over = message(MessageType::MsgTimeoutNow, |message| message.term = 2).encode_to_vec();
    let mut member = member();
    assert!(member.step(identity(1), &hands_over).is_err(), "nobody leads");
    let leads = message(MessageType::MsgHeartbeat, |message| message.term = 2);
    member.step(identity(1), &leads.encode_to_vec()).unwrap();
    member.take();
    let older = message(MessageType::MsgTimeoutNow, |message| message.term = 1).encode_to_vec();
    assert!(member.step(identity(1), &older).is_err());
    assert!(member.take().messages.is_empty());
    member.step(identity(1), &hands_over).unwrap();
    let asks =
        |(_, bytes): &(Identity, Vec<u8>)| Message::decode(&**bytes).unwrap().msg_type() == MessageType::MsgRequestVote;
    assert!(member.take().messages.iter().any(asks), "it stands for election at once");
}

/// Of a node with two votes, the first of which missed an entry that the other has.
#[test]
fn a_vote_that_stands_for_election_knows_what_this_nodes_other_votes_know() {
    use MessageType::*;
    let mut config = Config::parse(GOOD).unwrap();
    config.nodes[0].votes = 2;
    let members: Vec<Identity> = (0..3).map(identity).collect();
    let mut member = Agreement::form(identity(0), 7, &config, &members, b"state");
    let ends = |member: &Agreement| member.own.raw.raft.raft_log.last_index();
    let says = |member: &mut Agreement, message: &Message| {
        member.step(identity(1), &message.encode_to_vec()).unwrap();
        member.take();
    };
    says(&mut member, &message(MsgHeartbeat, |_| {}));
    let mut missed = message(MsgAppend, |message| append(message, vec![entry(2, 0)]));
    missed.to = identity(0).voter(1);
    says(&mut member, &missed);
    for _ in 0..limits::ELECTION_TICKS / 2 {
        member.tick();
        member.take();
        assert_eq!(ends(&member), 1, "as long as there is a leader, that one sends it");
    }
    let stands = |member: &mut Agreement| {
        for _ in 0..4 * limits::ELECTION_TICKS {
            member.tick();
            member.take();
        }
    };
    stands(&mut member);
    assert_eq!(ends(&member), 2);
    // A log that is shorter and of a later term takes the place of the longer one.
    let mut longer = message(MsgAppend, |message| append(message, (2..6).map(|index| entry(index, 0)).collect()));
    longer.to = identity(0).voter(0);
    says(&mut member, &longer);
    stands(&mut member);
    assert_eq!(ends(&member), 5);
    let mut later = message(MsgAppend, |message| append(message, vec![entry(2, 0), Entry { term: 3, ..entry(3, 0) }]));
    (later.to, later.term) = (identity(0).voter(1), 3);
    says(&mut member, &later);
    member.own.catch_up(&member.others[0]);
    assert_eq!(ends(&member), 5, "its own term is the older one: it has not heard of that election");
    stands(&mut member);
    assert_eq!((ends(&member), member.own.raw.raft.raft_log.last_term()), (3, 3));
}

#[test]
fn a_member_that_has_resigned_neither_leads_nor_stands() {
    let mut member = member();
    member.campaign();
    assert!(!member.take().messages.is_empty(), "it stands for election");
    member.resign(true);
    for _ in 0..200 {
        member.tick();
        assert!(member.take().messages.is_empty());
    }
    let asks = message(MessageType::MsgRequestVote, |message| {
        (message.index, message.log_term, message.term) = (1, 1, 100);
    });
    member.step(identity(1), &asks.encode_to_vec()).unwrap();
    assert_eq!(member.take().messages.len(), 1, "it votes");
}
