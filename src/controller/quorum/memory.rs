//! The log since a snapshot in memory, as the raft library reads it: its calls never wait.

use raft::eraftpb;
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use super::members::Members;
use super::proto;
use crate::controller::raft::Stored;

/// Bytes of the entries that stay after a snapshot for members that are a little behind: they need no snapshot then.
const BYTES_KEPT: usize = 4 << 20;
/// Entries in one message.
const ENTRIES_AT_ONCE: usize = 10_000;

/// The log since the last snapshot, and some of what was before it.
pub(in crate::controller) struct MemoryLog {
    /// Index before the first entry.
    base_index: u64,
    /// Its term.
    base_term: u64,
    initial: RaftState,
    entries: Vec<eraftpb::Entry>,
    /// What a snapshot would be of if one were made now: index and term.
    applied: (u64, u64),
    /// The members as of there.
    members: Members,
}

impl MemoryLog {
    pub(in crate::controller) fn new(stored: Stored, members: &Members) -> Self {
        let mut initial = RaftState::default();
        initial.hard_state.term = stored.hard_state.term;
        initial.hard_state.vote = stored.hard_state.vote;
        initial.hard_state.commit = stored.hard_state.commit;
        initial.conf_state = proto::conf_state(members);
        Self {
            base_index: stored.snapshot_index,
            base_term: stored.snapshot_term,
            initial,
            entries: stored.entries.into_iter().map(proto::entry_to_proto).collect(),
            applied: (stored.snapshot_index, stored.snapshot_term),
            members: members.clone(),
        }
    }

    /// The members as of what is applied.
    pub(in crate::controller) fn members(&self) -> &Members {
        &self.members
    }

    /// The members change with the entry that is being applied.
    pub(in crate::controller) fn set_members(&mut self, members: Members) {
        self.members = members;
    }

    /// Entries up to that index are applied.
    pub(in crate::controller) fn set_applied(&mut self, index: u64, term: u64) {
        self.applied = (index, term);
    }

    /// Index before the first entry that is here.
    pub(in crate::controller) fn base_index(&self) -> u64 {
        self.base_index
    }

    /// Where the entry of that index is, if it is here.
    fn place(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.base_index + 1)?).ok()
    }

    /// Appends, replacing what a former leader left from the first index on.
    pub(in crate::controller) fn append(&mut self, appended: Vec<eraftpb::Entry>) {
        let Some(first) = appended.first() else { return };
        let place = self.place(first.index).expect("the library appends after its snapshot");
        assert!(place <= self.entries.len(), "the library leaves no gaps");
        self.entries.truncate(place);
        self.entries.extend(appended);
    }

    /// A durable snapshot covers everything up to `index`: it goes, but for so many entries that members may lack.
    pub(in crate::controller) fn compact(&mut self, index: u64, keep: usize) {
        let Some(last) = self.place(index).filter(|last| *last < self.entries.len()) else { return };
        let covered = self.entries.get(..=last).unwrap_or_default();
        let mut bytes = 0usize;
        let kept = covered.iter().rev().take(keep).take_while(|entry| {
            bytes = bytes.saturating_add(entry.data.len() + entry.context.len());
            bytes <= BYTES_KEPT
        });
        let goes = covered.len() - kept.count();
        let Some(base) = goes.checked_sub(1).and_then(|at| covered.get(at)) else { return };
        (self.base_index, self.base_term) = (base.index, base.term);
        self.entries.drain(..goes);
    }

    /// A leader's snapshot takes the place of everything.
    pub(in crate::controller) fn install(&mut self, index: u64, term: u64, members: Members) {
        self.entries.clear();
        (self.base_index, self.base_term) = (index, term);
        self.applied = (index, term);
        self.members = members;
    }
}

impl Storage for MemoryLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<eraftpb::Entry>> {
        let from = self.place(low).ok_or(raft::Error::Store(StorageError::Compacted))?;
        let to = self.place(high).ok_or(raft::Error::Store(StorageError::Compacted))?;
        let entries = self.entries.get(from..to).ok_or(raft::Error::Store(StorageError::Unavailable))?;
        let limit = max_size.into().unwrap_or(u64::MAX);
        let most = if limit == u64::MAX { usize::MAX } else { ENTRIES_AT_ONCE };
        let mut taken = 0u64;
        let within = entries.iter().take(most).enumerate().take_while(|(at, entry)| {
            taken = taken.saturating_add((entry.data.len() + entry.context.len()) as u64);
            *at == 0 || taken <= limit
        });
        Ok(within.map(|(_, entry)| entry.clone()).collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.base_index {
            return Ok(self.base_term);
        }
        let place = self.place(index).ok_or(raft::Error::Store(StorageError::Compacted))?;
        self.entries.get(place).map(|entry| entry.term).ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base_index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.base_index + self.entries.len() as u64)
    }

    /// Only what it is of: its bytes are made when it is sent, of whatever is applied then.
    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<eraftpb::Snapshot> {
        let (index, term) = self.applied;
        if index < self.base_index || index == 0 {
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(proto::snapshot(index, term, &self.members))
    }
}
