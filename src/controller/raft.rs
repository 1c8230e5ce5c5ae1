//! The raft node: a narrow adapter over `raft` 0.7, which orders and commits entries and does no I/O.
//!
//! Tick, step, propose, ready, persisted, status, and what the members need. What the library persists or exchanges
//! crosses this file as our own types ([`Entry`], [`HardState`], [`Message`]); its protobuf types never meet a disk or
//! a socket. Entries since the last snapshot stay in memory, so that the library's storage calls never wait.
//! The election timeout is derived from a seed, the term and the role: the library's own random one never counts.
//!
//! The library stops the process where a peer says what cannot be. Such messages are refused here, before it sees them.

use bytes::Bytes;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2};
use raft::{Config, RawNode, SnapshotStatus, StateRole};

use super::quorum::codec::{Body, Message};
use super::quorum::members::{Members, changes_members};
use super::quorum::memory::MemoryLog;
use super::quorum::proto;

/// Ticks without a leader before an election, at least.
const ELECTION_TICKS_MIN: usize = 10;
/// Ticks without a leader before an election, at most (exclusive).
const ELECTION_TICKS_MAX: usize = 20;
/// Ticks between heartbeats.
const HEARTBEAT_TICKS: usize = 2;
/// Ticks by which a voter lets those before it go first when their leader is gone.
const SUCCESSION_TICKS: u32 = 2;
/// Ticks for which what comes from a leader whose process is gone counts as its last words.
const LAST_WORDS_TICKS: u32 = 4;
/// Bytes of entries in one message to a follower.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Bytes of entries that wait for their commit; more proposals are refused.
pub(super) const UNCOMMITTED_BYTES_MAX: u64 = 48 << 20;

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

/// What the node wants done, in this order: send, apply, persist, then report [`Raft::persisted`] and send the rest.
#[derive(Debug)]
pub struct Work {
    /// To send at once: a leader's, which need not wait for its own disk.
    pub messages: Vec<Message>,
    /// To send when this work is persisted, not before: answers promise what is on disk.
    pub messages_after: Vec<Message>,
    /// A leader's snapshot to persist in place of the whole log: its last index and that entry's term.
    pub snapshot: Option<(u64, u64)>,
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
    /// A leader's snapshot is on its way to the disk; no election before it is there.
    is_installing: bool,
    /// Members of the snapshot that the library was given last.
    offered: Members,
    /// Ticks until this voter stands for the place of a leader that is gone.
    stands_in_ticks: Option<u32>,
    /// A leader that has just gone.
    gone: Option<Gone>,
}

/// A leader whose process is gone. What it sent before may still arrive, by other connections than the one that told
/// of its end, and would make it the leader again for an election timeout.
#[derive(Clone, Copy)]
struct Gone {
    raft_id: u64,
    term: u64,
    ticks_left: u32,
}

impl Raft {
    /// Starts a node from what a restart brought back. `id` is not 0; `members` are those as of the snapshot, none
    /// where the node has yet to learn them. The only voter campaigns at once.
    pub fn new(id: u64, members: &Members, stored: Stored, seed: u64) -> Result<Self, String> {
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
            // A follower writes what has come as one frame: six of the largest entries fit one.
            max_inflight_msgs: 6,
            ..Config::default()
        };
        let alone = members.is_sole_voter(id);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node =
            RawNode::new(&config, MemoryLog::new(stored, members), &logger).map_err(|e| e.to_string())?;
        let mut raft = Self {
            node,
            seed,
            is_installing: false,
            offered: Members::default(),
            stands_in_ticks: None,
            gone: None,
        };
        raft.seed_timeout();
        if alone {
            raft.node.campaign().map_err(|e| e.to_string())?;
            raft.seed_timeout();
        }
        Ok(raft)
    }

    /// Lets one tick of election and heartbeat time pass.
    pub fn tick(&mut self) {
        let left = self.gone.map(|gone| Gone { ticks_left: gone.ticks_left - 1, ..gone });
        self.gone = left.filter(|gone| gone.ticks_left > 0);
        if !self.may_stand() {
            return;
        }
        self.node.tick();
        let raft = &self.node.raft;
        if raft.leader_id != 0 {
            self.stands_in_ticks = None;
        } else if raft.state == StateRole::Follower && self.members().is_sole_voter(raft.id) {
            // Nobody else could lead.
            self.stands_in_ticks = Some(1);
        }
        if let Some(ticks) = &mut self.stands_in_ticks {
            *ticks = ticks.saturating_sub(1);
            if *ticks == 0 {
                self.stand();
            }
        }
        self.seed_timeout();
    }

    /// Whether an election may begin. The library takes for granted that whoever stands has its log on disk: the only
    /// voter, who wins in the same breath, has to see to it, and so has a node whose log is being replaced.
    fn may_stand(&self) -> bool {
        let raft = &self.node.raft;
        let is_leader = raft.state == StateRole::Leader;
        let is_behind = raft.raft_log.persisted < raft.raft_log.last_index();
        is_leader || !(self.is_installing || is_behind && self.members().is_sole_voter(raft.id))
    }

    fn stand(&mut self) {
        self.stands_in_ticks = None;
        if self.may_stand() && self.node.raft.promotable() {
            // A node that cannot stand now tries again after its timeout.
            let _ = self.node.campaign();
        }
    }

    /// The process of that leader is gone: it is forgotten, and the first of the other voters stands at once. The
    /// others give it a little time, so that they do not take each other's votes.
    pub fn leader_gone(&mut self, raft_id: u64) {
        let raft = &mut self.node.raft;
        if raft.state != StateRole::Follower || raft.leader_id != raft_id || raft_id == raft.id {
            return;
        }
        let (term, id) = (raft.term, raft.id);
        raft.become_follower(term, 0);
        self.gone = Some(Gone { raft_id, term, ticks_left: LAST_WORDS_TICKS });
        let others = self.members().voters().map(|member| member.raft_id).filter(|other| *other != raft_id);
        let rank = others.take_while(|other| *other != id).count();
        if !self.members().is_voter(id) {
            self.stands_in_ticks = None;
        } else if rank == 0 {
            self.stand();
        } else {
            self.stands_in_ticks = u32::try_from(rank).ok().map(|rank| rank * SUCCESSION_TICKS);
        }
        self.seed_timeout();
    }

    /// Takes a message of another member; `snapshot_members` are those of the snapshot, if it is one. An error says
    /// what is wrong with it, and changes nothing.
    pub fn step(&mut self, message: Message, snapshot_members: &Members) -> Result<(), String> {
        self.check(&message)?;
        if self.gone.is_some_and(|gone| (gone.raft_id, gone.term) == (message.from, message.term)) {
            return Ok(());
        }
        if matches!(message.body, Body::Snapshot { .. }) {
            self.offered = snapshot_members.clone();
        }
        let Some(message) = proto::message_to_proto(message, snapshot_members) else {
            return Err("a message that raft does not know".into());
        };
        let stepped = self.node.step(message).map_err(|e| e.to_string());
        self.seed_timeout();
        stepped
    }

    /// Messages on which the library would stop, or believe what cannot be.
    fn check(&self, message: &Message) -> Result<(), &'static str> {
        let log = &self.node.raft.raft_log;
        if message.to != self.node.raft.id {
            return Err("it is for another member, perhaps for one whose disk is lost");
        }
        match &message.body {
            Body::Heartbeat { commit } if *commit > log.last_index() => {
                Err("the leader believes that this node has what it has not")
            }
            Body::Append { entries, .. } if entries.iter().any(|entry| self.contradicts(entry)) => Err(
                "the leader would replace what is committed: a voter came back without what it had promised",
            ),
            Body::Appended { index, refused: None, .. } if *index > log.last_index() => {
                Err("it confirms entries that do not exist")
            }
            Body::TakeOver if !self.may_stand() => Err("this node cannot lead now"),
            Body::Snapshot { .. } if self.is_installing => Err("another snapshot is being taken"),
            _ => Ok(()),
        }
    }

    /// Whether an entry is another one than the committed one of its index.
    fn contradicts(&self, entry: &Entry) -> bool {
        let log = &self.node.raft.raft_log;
        entry.index <= log.committed && self.term_of(entry.index).is_some_and(|term| term != entry.term)
    }

    /// Appends an entry; gives its index.
    pub fn propose(&mut self, data: Vec<u8>) -> Result<u64, NotProposed> {
        if self.node.raft.state != StateRole::Leader {
            return Err(NotProposed);
        }
        let proposed = if changes_members(&data) {
            if self.node.raft.has_pending_conf() {
                // The library would put an empty entry in its place, and say nothing.
                return Err(NotProposed);
            }
            // What changes is told when it is applied; the library needs to know only that something does.
            let nothing = conf_change(ConfChangeType::AddNode, self.node.raft.id);
            self.node.propose_conf_change(data, nothing)
        } else {
            self.node.propose(Vec::new(), data)
        };
        self.seed_timeout();
        proposed.map_err(|_| NotProposed)?;
        Ok(self.node.raft.raft_log.last_index())
    }

    /// Whether the members may be changed now: the last change is applied, and the leader stays.
    pub fn may_change_members(&self) -> bool {
        !self.node.raft.has_pending_conf() && !self.is_resigning()
    }

    /// Whether the leader is giving its place away, and so takes no proposals.
    pub fn is_resigning(&self) -> bool {
        self.node.raft.lead_transferee.is_some()
    }

    /// Gives the lead to another voter; nothing happens if that one does not answer for an election timeout.
    pub fn resign_to(&mut self, raft_id: u64) {
        self.node.transfer_leader(raft_id);
        self.seed_timeout();
    }

    /// The members as of the last applied entry.
    pub fn members(&self) -> &Members {
        self.node.store().members()
    }

    /// Brings the quorum to these members: an entry or a snapshot with them is being applied. Called for each of
    /// them, in order; at most one voter comes or goes with each.
    pub fn change_members(&mut self, members: &Members) -> Result<(), String> {
        let before = self.members().clone();
        self.node.mut_store().set_members(members.clone());
        let kind = |member: &super::quorum::members::Member| {
            if member.is_voter { ConfChangeType::AddNode } else { ConfChangeType::AddLearnerNode }
        };
        let is_new = |member: &super::quorum::members::Member| {
            before.get(member.raft_id).is_none_or(|known| known.is_voter != member.is_voter)
        };
        // Voters come first: a quorum is never without one.
        let voters = members.voters().filter(|member| is_new(member));
        let learners = members.learners().filter(|member| is_new(member));
        let mut changes: Vec<_> =
            voters.chain(learners).map(|member| conf_change(kind(member), member.raft_id)).collect();
        let gone = before.iter().filter(|member| members.get(member.raft_id).is_none());
        changes.extend(gone.map(|member| conf_change(ConfChangeType::RemoveNode, member.raft_id)));
        for change in changes {
            self.node.apply_conf_change(&change).map_err(|e| format!("the quorum cannot change: {e}"))?;
        }
        let raft = &mut self.node.raft;
        if raft.state == StateRole::Leader && !members.is_voter(raft.id) {
            // The library would lead on, and stop at its own missing progress.
            let term = raft.term;
            raft.become_follower(term, 0);
        }
        self.seed_timeout();
        Ok(())
    }

    /// What there is to do, until there is nothing more.
    pub fn ready(&mut self) -> Option<Work> {
        if !self.node.has_ready() {
            return None;
        }
        let mut ready = self.node.ready();
        let ours = |messages: Vec<raft::eraftpb::Message>| {
            messages.into_iter().filter_map(proto::message_from_proto).collect()
        };
        let (messages, messages_after) = (ours(ready.take_messages()), ours(ready.take_persisted_messages()));
        let metadata = ready.snapshot().get_metadata();
        let snapshot = Some((metadata.index, metadata.term)).filter(|(index, _)| *index > 0);
        if let Some((index, term)) = snapshot {
            self.is_installing = true;
            let members = std::mem::take(&mut self.offered);
            self.node.mut_store().install(index, term, members);
        }
        let appended = ready.take_entries();
        let entries = appended.iter().map(proto::entry_from_proto).collect();
        self.node.mut_store().append(appended);
        let hard_state = ready.hs().map(|hs| HardState { term: hs.term, vote: hs.vote, commit: hs.commit });
        let committed: Vec<_> = ready.take_committed_entries().iter().map(proto::entry_from_proto).collect();
        let (number, must_sync) = (ready.number(), ready.must_sync());
        self.node.advance_append_async(ready);
        self.seed_timeout();
        Some(Work { messages, messages_after, snapshot, number, hard_state, entries, must_sync, committed })
    }

    /// Entries up to that index are applied.
    pub fn applied(&mut self, index: u64, term: u64) {
        self.node.mut_store().set_applied(index, term);
        self.node.advance_apply_to(index);
        self.seed_timeout();
    }

    /// The work of that number, and all before it, is durable.
    pub fn persisted(&mut self, number: u64) {
        self.node.on_persist_ready(number);
        self.seed_timeout();
    }

    /// A leader's snapshot is durable and applied.
    pub fn installed(&mut self, index: u64, term: u64) {
        self.is_installing = false;
        self.applied(index, term);
    }

    /// Forgets entries that a durable snapshot covers, but for the last `keep`, which other members may lack.
    pub fn compact(&mut self, snapshot_index: u64, keep: usize) {
        let has_others = self.members().has_others(self.node.raft.id);
        self.node.mut_store().compact(snapshot_index, if has_others { keep } else { 0 });
    }

    /// Index before the first entry that can be sent; a snapshot from there on closes every gap.
    pub fn base_index(&self) -> u64 {
        self.node.store().base_index()
    }

    /// The connection to that member is broken: messages may be lost.
    pub fn unreachable(&mut self, raft_id: u64) {
        self.node.report_unreachable(raft_id);
    }

    /// A snapshot has arrived at that member, or will not.
    pub fn snapshot_ended(&mut self, raft_id: u64, arrived: bool) {
        let status = if arrived { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.node.report_snapshot(raft_id, status);
        self.seed_timeout();
    }

    /// The term of an entry that is still in memory, or of the snapshot's last one.
    pub fn term_of(&self, index: u64) -> Option<u64> {
        // The library says 0 of what it does not have.
        self.node.raft.raft_log.term(index).ok().filter(|term| *term > 0)
    }

    /// The last index at which that member is known to agree with this leader.
    pub fn matched(&self, raft_id: u64) -> Option<u64> {
        self.node.raft.prs().get(raft_id).map(|progress| progress.matched)
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

    /// The entry of that index, as long as it is in memory.
    #[cfg(test)]
    pub(super) fn entry(&self, index: u64) -> Option<Entry> {
        use raft::Storage;
        let context = raft::GetEntriesContext::empty(false);
        let entries = self.node.store().entries(index, index + 1, None, context).ok()?;
        entries.first().map(proto::entry_from_proto)
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

fn conf_change(kind: ConfChangeType, raft_id: u64) -> ConfChangeV2 {
    let mut single = ConfChangeSingle { node_id: raft_id, ..ConfChangeSingle::default() };
    single.set_change_type(kind);
    let mut change = ConfChangeV2::default();
    change.mut_changes().push(single);
    change
}

#[cfg(test)]
mod tests {
    use super::super::quorum::members::VoterEndpoint;
    use super::*;

    fn empty() -> Stored {
        Stored { snapshot_index: 0, snapshot_term: 0, hard_state: HardState::default(), entries: Vec::new() }
    }

    fn voters(ids: &[u64]) -> Members {
        let each = ids.iter().map(|id| VoterEndpoint::alone(*id as i32, *id));
        Members::of_voters(&each.collect::<Vec<_>>(), "c").unwrap()
    }

    fn alone() -> Members {
        voters(&[1])
    }

    /// Persists everything at once; gives what was persisted and what was committed.
    fn settle(raft: &mut Raft) -> (Vec<Entry>, Vec<Entry>, HardState) {
        let (mut kept, mut committed, mut hard) = (Vec::new(), Vec::new(), HardState::default());
        while let Some(work) = raft.ready() {
            kept.extend(work.entries);
            if let Some(last) = work.committed.last() {
                raft.applied(last.index, last.term);
            }
            committed.extend(work.committed);
            hard = work.hard_state.unwrap_or(hard);
            raft.persisted(work.number);
        }
        (kept, committed, hard)
    }

    #[test]
    fn a_single_voter_leads_at_once_but_commits_only_what_is_persisted() {
        let mut raft = Raft::new(1, &alone(), empty(), 7).unwrap();
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
        let mut raft = Raft::new(1, &alone(), empty(), 7).unwrap();
        raft.propose(b"one".to_vec()).unwrap();
        let (entries, _, hard_state) = settle(&mut raft);
        let stored = Stored { hard_state: HardState { commit: 0, ..hard_state }, entries, ..empty() };
        let mut again = Raft::new(1, &alone(), stored, 8).unwrap();
        let (_, committed, _) = settle(&mut again);
        assert_eq!(committed.iter().filter(|entry| entry.data == b"one"[..]).count(), 1);
        assert_eq!(again.status().term, 2);
    }

    #[test]
    fn compaction_keeps_the_term_of_the_last_compacted_entry() {
        let mut raft = Raft::new(1, &alone(), empty(), 7).unwrap();
        raft.propose(b"one".to_vec()).unwrap();
        settle(&mut raft);
        raft.compact(2, 10);
        assert_eq!(raft.term_of(2), Some(1));
        assert_eq!(raft.propose(b"two".to_vec()).unwrap(), 3);
        let (_, committed, _) = settle(&mut raft);
        assert_eq!(committed.last().unwrap().index, 3);
    }

    #[test]
    fn a_leader_that_begins_before_the_snapshot_of_a_member_contradicts_nothing() {
        let hard_state = HardState { term: 2, vote: 0, commit: 5 };
        let stored = Stored { snapshot_index: 5, snapshot_term: 2, hard_state, entries: Vec::new() };
        let mut raft = Raft::new(1, &voters(&[1, 2, 3]), stored, 7).unwrap();
        let append = |index, term: u64| {
            let entry = |index| Entry { index, term, data: Bytes::from_static(b"one") };
            let entries = (index + 1..=7).map(entry).collect();
            let body = Body::Append { index, log_term: term, commit: 7, entries };
            Message { from: 2, to: 1, term: 2, body }
        };
        // What this node has confirmed since its last snapshot is more than the leader remembers.
        raft.step(append(3, 2), &Members::default()).unwrap();
        let answers: Vec<Message> =
            std::iter::from_fn(|| raft.ready()).flat_map(|work| work.messages_after).collect();
        let [Message { body: Body::Appended { index: 5, refused: None, .. }, .. }] = answers[..] else {
            panic!("{answers:?}")
        };
        raft.step(append(5, 2), &Members::default()).unwrap();
        assert_eq!(settle(&mut raft).1.len(), 2);
        assert!(
            raft.step(append(4, 1), &Members::default()).is_err(),
            "that would take back what is committed"
        );
    }

    #[test]
    fn election_timeouts_repeat_for_a_seed() {
        let trace = |seed| {
            let mut raft = Raft::new(1, &voters(&[1, 2, 3]), empty(), seed).unwrap();
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
