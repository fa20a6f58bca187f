//! The agreement's log: in memory, behind one snapshot.

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

/// The snapshot, and every entry after it.
#[derive(Debug, Default)]
pub(super) struct Log {
    hard: HardState,
    voters: ConfState,
    snapshot: Snapshot,
    entries: Vec<Entry>,
}

impl Log {
    /// Where every voter of a new generation begins: index 1, so that whoever has nothing must be sent a snapshot.
    pub(super) fn formed(voters: Vec<u64>, state: Vec<u8>) -> Self {
        let voters = ConfState { voters, ..ConfState::default() };
        let metadata = SnapshotMetadata { conf_state: Some(voters.clone()), index: 1, term: 1 };
        let snapshot = Snapshot { data: state, metadata: Some(metadata) };
        let hard = HardState { term: 1, vote: 0, commit: 1 };
        Self { hard, voters, snapshot, entries: Vec::new() }
    }

    fn metadata(&self) -> (u64, u64) {
        self.snapshot.metadata.as_ref().map_or((0, 0), |metadata| (metadata.index, metadata.term))
    }

    pub(super) fn snapshot_index(&self) -> u64 {
        self.metadata().0
    }

    /// Every identity that has a say: in a joint change those going out as well as those coming in.
    pub(super) fn voters(&self) -> impl Iterator<Item = u64> {
        self.voter_sets().into_iter().flatten().copied()
    }

    /// The voters to be, and in a joint change those going out.
    pub(super) fn voter_sets(&self) -> [&[u64]; 2] {
        [&self.voters.voters, &self.voters.voters_outgoing]
    }

    /// Whether a joint change was entered and not yet left.
    pub(super) fn is_joint(&self) -> bool {
        !self.voters.voters_outgoing.is_empty()
    }

    pub(super) fn learners(&self) -> &[u64] {
        &self.voters.learners
    }

    pub(super) fn set_voters(&mut self, voters: ConfState) {
        self.voters = voters;
    }

    pub(super) fn set_hard_state(&mut self, hard: HardState) {
        self.hard = hard;
    }

    pub(super) fn set_commit(&mut self, commit: u64) {
        self.hard.commit = commit;
    }

    pub(super) fn restore(&mut self, snapshot: Snapshot) {
        if let Some(metadata) = &snapshot.metadata {
            self.hard.commit = self.hard.commit.max(metadata.index);
            self.hard.term = self.hard.term.max(metadata.term);
            self.voters = metadata.conf_state.clone().unwrap_or_default();
        }
        self.entries.clear();
        self.snapshot = snapshot;
    }

    pub(super) fn append(&mut self, new: &[Entry]) {
        if let Some(first) = new.first() {
            self.entries.retain(|entry| entry.index < first.index);
            self.entries.extend_from_slice(new);
        }
    }

    /// Makes `state` at `index` the snapshot, and forgets what came before.
    pub(super) fn compact(&mut self, index: u64, state: Vec<u8>) {
        let Ok(term) = self.term(index) else { return };
        let metadata = SnapshotMetadata { conf_state: Some(self.voters.clone()), index, term };
        self.snapshot = Snapshot { data: state, metadata: Some(metadata) };
        self.entries.retain(|entry| entry.index > index);
    }
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState { hard_state: self.hard.clone(), conf_state: self.voters.clone() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.snapshot_index() {
            return Err(StorageError::Compacted.into());
        }
        let range = self.entries.iter().filter(|entry| (low..high).contains(&entry.index));
        let mut entries: Vec<Entry> = range.cloned().collect();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let (snapshot_index, snapshot_term) = self.metadata();
        if index == snapshot_index {
            return Ok(snapshot_term);
        }
        if index < snapshot_index {
            return Err(StorageError::Compacted.into());
        }
        let entry = self.entries.iter().find(|entry| entry.index == index);
        entry.map(|entry| entry.term).ok_or_else(|| StorageError::Unavailable.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.snapshot_index() + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.entries.last().map_or(self.snapshot_index(), |entry| entry.index))
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        if self.snapshot_index() < request_index {
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        Ok(self.snapshot.clone())
    }
}
