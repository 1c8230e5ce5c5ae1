//! The raft node: a narrow adapter over `raft` 0.7, which orders and commits entries and does no I/O.
//!
//! Six operations: tick, step, propose, ready, persisted, status. What the library persists or exchanges crosses this
//! file as our own types ([`Entry`], [`HardState`]); its protobuf types never meet a disk or a socket.
//! Entries since the last snapshot stay in memory, so that the library's storage calls never wait.
//! The election timeout is derived from a seed, the term and the role: the library's own random one never counts.

use bytes::Bytes;
use raft::eraftpb;
use raft::{Config, GetEntriesContext, RaftState, RawNode, StateRole, Storage, StorageError};

/// Ticks without a leader before an election, at least.
const ELECTION_TICKS_MIN: usize = 10;
/// Ticks without a leader before an election, at most (exclusive).
const ELECTION_TICKS_MAX: usize = 20;
/// Ticks between heartbeats.
const HEARTBEAT_TICKS: usize = 2;
/// Bytes of entries in one message to a follower.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Bytes of entries that wait for their commit; more proposals are refused.
pub(super) const UNCOMMITTED_BYTES_MAX: u64 = 16 << 20;

/// One entry of the raft log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Position in the log, from 1.
    pub index: u64,
    /// Term of the leader that made it.
    pub term: u64,
    /// Encoded metadata records; empty in the entry with which a leader begins its term.
    pub data: Bytes,
}

/// What a voter must remember before it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// Newest term seen.
    pub term: u64,
    /// Whom this voter voted for in that term, 0 for nobody.
    pub vote: u64,
    /// Highest index known to be committed.
    pub commit: u64,
}

/// Everything that a restart brings back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Index of the last entry that the snapshot covers, 0 without one.
    pub snapshot_index: u64,
    /// Term of that entry.
    pub snapshot_term: u64,
    /// The persisted hard state.
    pub hard_state: HardState,
    /// Entries after the snapshot, without gaps.
    pub entries: Vec<Entry>,
}

/// What the node wants done, in this order: apply, persist, then report [`Raft::persisted`].
#[derive(Debug)]
pub struct Work {
    /// Names this work for [`Raft::persisted`]; rises.
    pub number: u64,
    /// New hard state, if it changed.
    pub hard_state: Option<HardState>,
    /// Entries to persist.
    pub entries: Vec<Entry>,
    /// Entries that are committed and durable: apply them.
    pub committed: Vec<Entry>,
    /// Whether what is to persist must be durable before anything that depends on it; otherwise it may wait.
    pub must_sync: bool,
}

/// The node at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether this node leads.
    pub leads: bool,
    /// Raft id of the leader, 0 when none is known.
    pub leader_id: u64,
    /// Term.
    pub term: u64,
    /// Highest committed index.
    pub commit: u64,
    /// Last index of the log, persisted or not.
    pub index_last: u64,
}

/// A proposal that the node did not take: it does not lead, or too much waits for its commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotProposed;

/// One raft node.
pub struct Raft {
    node: RawNode<MemoryLog>,
    seed: u64,
}

impl Raft {
    /// Starts a node from what a restart brought back. `id` is not 0 and among `voters`.
    /// A single voter campaigns at once.
    pub fn new(id: u64, voters: &[u64], stored: Stored, seed: u64) -> Result<Self, String> {
        let config = Config {
            id,
            election_tick: ELECTION_TICKS_MIN,
            min_election_tick: ELECTION_TICKS_MIN,
            max_election_tick: ELECTION_TICKS_MAX,
            heartbeat_tick: HEARTBEAT_TICKS,
            applied: stored.snapshot_index,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            check_quorum: true,
            pre_vote: true,
            max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
            ..Config::default()
        };
        let alone = voters == [id];
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node =
            RawNode::new(&config, MemoryLog::new(stored, voters), &logger).map_err(|e| e.to_string())?;
        let mut raft = Self { node, seed };
        raft.seed_timeout();
        if alone {
            raft.node.campaign().map_err(|e| e.to_string())?;
            raft.seed_timeout();
        }
        Ok(raft)
    }

    /// Lets 20 ms of election and heartbeat time pass.
    pub fn tick(&mut self) {
        self.node.tick();
        self.seed_timeout();
    }

    /// Takes a message of another voter. An error changes nothing.
    pub fn step(&mut self, message: eraftpb::Message) -> Result<(), String> {
        let stepped = self.node.step(message).map_err(|e| e.to_string());
        self.seed_timeout();
        stepped
    }

    /// Appends an entry; gives its index.
    pub fn propose(&mut self, data: Vec<u8>) -> Result<u64, NotProposed> {
        if self.node.raft.state != StateRole::Leader {
            return Err(NotProposed);
        }
        let proposed = self.node.propose(Vec::new(), data);
        self.seed_timeout();
        proposed.map_err(|_| NotProposed)?;
        Ok(self.node.raft.raft_log.last_index())
    }

    /// What there is to do, until there is nothing more.
    pub fn ready(&mut self) -> Option<Work> {
        if !self.node.has_ready() {
            return None;
        }
        let mut ready = self.node.ready();
        let appended = ready.take_entries();
        let entries = appended.iter().map(from_proto).collect();
        self.node.mut_store().append(appended);
        let hard_state = ready.hs().map(|hs| HardState { term: hs.term, vote: hs.vote, commit: hs.commit });
        let committed: Vec<_> = ready.take_committed_entries().iter().map(from_proto).collect();
        let work =
            Work { number: ready.number(), hard_state, entries, must_sync: ready.must_sync(), committed };
        self.node.advance_append_async(ready);
        if let Some(last) = work.committed.last() {
            self.node.advance_apply_to(last.index);
        }
        self.seed_timeout();
        Some(work)
    }

    /// The work of that number, and all before it, is durable.
    pub fn persisted(&mut self, number: u64) {
        self.node.on_persist_ready(number);
        self.seed_timeout();
    }

    /// Forgets entries that a durable snapshot covers.
    pub fn compact(&mut self, snapshot_index: u64) {
        self.node.mut_store().compact(snapshot_index);
    }

    /// The term of an entry that is still in memory, or of the snapshot's last one.
    pub fn term_of(&self, index: u64) -> Option<u64> {
        self.node.raft.raft_log.term(index).ok()
    }

    /// The node at a glance.
    pub fn status(&self) -> Status {
        let raft = &self.node.raft;
        Status {
            leads: raft.state == StateRole::Leader,
            leader_id: raft.leader_id,
            term: raft.term,
            commit: raft.raft_log.committed,
            index_last: raft.raft_log.last_index(),
        }
    }

    /// Replaces the timeout that the library may have drawn: a function of seed, term and role repeats, and differs
    /// between voters and between terms, which is what keeps elections from colliding.
    fn seed_timeout(&mut self) {
        let raft = &mut self.node.raft;
        let mixed = self.seed ^ raft.term.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ ((raft.state as u64) << 56);
        let ticks = fastrand::Rng::with_seed(mixed).usize(ELECTION_TICKS_MIN..ELECTION_TICKS_MAX);
        raft.set_randomized_election_timeout(ticks);
    }
}

fn from_proto(entry: &eraftpb::Entry) -> Entry {
    Entry { index: entry.index, term: entry.term, data: entry.data.clone() }
}

/// The log since the last snapshot, as the library reads it.
struct MemoryLog {
    snapshot_index: u64,
    snapshot_term: u64,
    initial: RaftState,
    entries: Vec<eraftpb::Entry>,
}

impl MemoryLog {
    fn new(stored: Stored, voters: &[u64]) -> Self {
        let mut initial = RaftState::default();
        initial.hard_state.term = stored.hard_state.term;
        initial.hard_state.vote = stored.hard_state.vote;
        initial.hard_state.commit = stored.hard_state.commit;
        initial.conf_state.voters = voters.to_vec();
        let entries = stored.entries.into_iter().map(|entry| eraftpb::Entry {
            index: entry.index,
            term: entry.term,
            data: entry.data,
            ..eraftpb::Entry::default()
        });
        Self {
            snapshot_index: stored.snapshot_index,
            snapshot_term: stored.snapshot_term,
            initial,
            entries: entries.collect(),
        }
    }

    fn index_last(&self) -> u64 {
        self.snapshot_index + self.entries.len() as u64
    }

    /// Where the entry of that index is, if it is after the snapshot.
    fn place(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.snapshot_index + 1)?).ok()
    }

    /// Appends, replacing what a former leader left from the first index on.
    fn append(&mut self, appended: Vec<eraftpb::Entry>) {
        let Some(first) = appended.first() else { return };
        let place = self.place(first.index).expect("the library appends after its snapshot");
        assert!(place <= self.entries.len(), "the library leaves no gaps");
        self.entries.truncate(place);
        self.entries.extend(appended);
    }

    fn compact(&mut self, index: u64) {
        let Some(place) = self.place(index) else { return };
        let Some(last) = self.entries.get(place) else { return };
        self.snapshot_term = last.term;
        self.snapshot_index = index;
        self.entries.drain(..=place);
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
        let mut taken = 0u64;
        let within = entries.iter().enumerate().take_while(|(at, entry)| {
            taken = taken.saturating_add(entry.data.len() as u64);
            *at == 0 || taken <= limit
        });
        Ok(within.map(|(_, entry)| entry.clone()).collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.snapshot_index {
            return Ok(self.snapshot_term);
        }
        let place = self.place(index).ok_or(raft::Error::Store(StorageError::Compacted))?;
        self.entries.get(place).map(|entry| entry.term).ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.snapshot_index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.index_last())
    }

    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<eraftpb::Snapshot> {
        Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Stored {
        Stored { snapshot_index: 0, snapshot_term: 0, hard_state: HardState::default(), entries: Vec::new() }
    }

    /// Persists everything at once; gives what was persisted and what was committed.
    fn settle(raft: &mut Raft) -> (Vec<Entry>, Vec<Entry>, HardState) {
        let (mut kept, mut committed, mut hard) = (Vec::new(), Vec::new(), HardState::default());
        while let Some(work) = raft.ready() {
            kept.extend(work.entries);
            committed.extend(work.committed);
            hard = work.hard_state.unwrap_or(hard);
            raft.persisted(work.number);
        }
        (kept, committed, hard)
    }

    #[test]
    fn a_single_voter_leads_at_once_but_commits_only_what_is_persisted() {
        let mut raft = Raft::new(1, &[1], empty(), 7).unwrap();
        assert!(raft.status().leads);
        let index = raft.propose(b"one".to_vec()).unwrap();
        assert_eq!(index, 2, "the leader's own entry is the first");
        let work = raft.ready().unwrap();
        assert!(work.must_sync && work.committed.is_empty());
        assert_eq!(work.hard_state.unwrap().vote, 1);
        assert!(raft.ready().is_none_or(|work| work.committed.is_empty()));
        raft.persisted(work.number);
        let (_, committed, _) = settle(&mut raft);
        assert_eq!(committed.last().unwrap().data, &b"one"[..]);
    }

    #[test]
    fn a_restarted_voter_commits_again_what_it_had_persisted() {
        let mut raft = Raft::new(1, &[1], empty(), 7).unwrap();
        raft.propose(b"one".to_vec()).unwrap();
        let (entries, _, hard_state) = settle(&mut raft);
        let stored = Stored { hard_state: HardState { commit: 0, ..hard_state }, entries, ..empty() };
        let mut again = Raft::new(1, &[1], stored, 8).unwrap();
        let (_, committed, _) = settle(&mut again);
        assert_eq!(committed.iter().filter(|entry| entry.data == b"one"[..]).count(), 1);
        assert_eq!(again.status().term, 2);
    }

    #[test]
    fn compaction_keeps_the_term_of_the_last_compacted_entry() {
        let mut raft = Raft::new(1, &[1], empty(), 7).unwrap();
        raft.propose(b"one".to_vec()).unwrap();
        settle(&mut raft);
        raft.compact(2);
        assert_eq!(raft.term_of(2), Some(1));
        assert_eq!(raft.propose(b"two".to_vec()).unwrap(), 3);
        let (_, committed, _) = settle(&mut raft);
        assert_eq!(committed.last().unwrap().index, 3);
    }

    #[test]
    fn election_timeouts_repeat_for_a_seed() {
        let trace = |seed| {
            let mut raft = Raft::new(1, &[1, 2, 3], empty(), seed).unwrap();
            (0..200)
                .map(|_| {
                    raft.tick();
                    settle(&mut raft);
                    raft.node.raft.election_elapsed
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(trace(3), trace(3));
        assert!((0..20).any(|seed| trace(seed) != trace(3)));
    }
}
