//! Moving a replica to another log directory while it serves (KIP-113).
//!
//! 1. A *future* replica is a folder `TOPIC-PARTITION.ID-future` in the other directory. The files of the log are
//!    copied there as they are, oldest first, a slice at a time: positions, indexes and offsets stay what they are.
//! 2. What is sealed is copied once and synced; the end of the active segment is chased while appends go on. Segments
//!    that go here go there; a log that takes back what it had written ([`Log::rewrites`]) has its copy begun anew.
//! 3. When little is missing the log is *held* ([`Log::hold`]): nothing begins any more, what is on its way ends.
//!    Then the rest is copied, and the small files with it; everything there is synced.
//! 4. One rename gives the folder the replica's own name. That is the moment at which a crash finds it here or there,
//!    for the file `.tidemill-moves` in it counts the moves: of two folders of one replica the higher count is the
//!    replica, the other is what it left behind. Before the rename a start finds an unfinished copy, and begins it
//!    anew in the same folder.
//! 5. In one step of the shard the log goes on in the other directory; the folder that it left is deleted.
//!
//! This machine says what to copy next, and judges what came of it. Who holds the log, when, and what becomes of a
//! move that cannot go on, is `broker::replicas`' part.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use uuid::Uuid;

use super::ahead::Ahead;
use super::mark::mark_file;
use super::recovery::parse_name;
use super::{LEADER_EPOCH_CHECKPOINT, Log, PARTITION_METADATA, PartitionMetadata, Segment, State, batch};
use crate::effect::{FileDone, FileError, FileName, FileOp, FileResult, Now, Stem, Ticket};

/// The file that counts how often a replica has moved.
pub const MOVES_MARK: &str = ".tidemill-moves";
/// Most bytes that one operation copies.
const SLICE_BYTES: u64 = 1 << 20;
/// With so much missing, or less, the log may be held for the rest.
const NEAR_BYTES: u64 = 1 << 20;
/// With so much unsynced in the copy, or less: what is synced while the log is held is waited for.
const UNSYNCED_BYTES: u64 = 4 << 20;
/// What the kernel says of a folder that is not empty and would be replaced.
const EEXIST: i32 = 17;
const ENOTEMPTY: i32 = 39;
/// Longest name of a folder.
const NAME_LIMIT_BYTES: usize = 255;
/// What the name of a future replica's folder has behind topic and partition: `.`, 32 hex digits and the mark.
const SUFFIX_BYTES: usize = 1 + 32 + FUTURE.len();
const FUTURE: &str = "-future";

/// The folder of a future replica: `TOPIC-PARTITION.ID-future`, the topic cut so that it is a valid name. The first
/// half of the id is the topic's, the second one tells several attempts apart.
pub fn future_name(topic: &str, partition: i32, topic_id: Uuid, attempt: u64) -> String {
    let (high, _) = topic_id.as_u64_pair();
    format!("{}{high:016x}{attempt:016x}{FUTURE}", future_prefix(topic, partition))
}

fn future_prefix(topic: &str, partition: i32) -> String {
    let behind = format!("-{partition}.");
    let kept = NAME_LIMIT_BYTES.saturating_sub(behind.len() + SUFFIX_BYTES - 1);
    let topic: String = topic.chars().take(kept).collect();
    topic + &behind
}

/// Whether a folder is that of a future replica of this partition.
pub fn is_future_of(name: &str, topic: &str, partition: i32, topic_id: Uuid) -> bool {
    let (high, _) = topic_id.as_u64_pair();
    name.strip_prefix(&future_prefix(topic, partition))
        .and_then(|rest| rest.strip_suffix(FUTURE))
        .is_some_and(|id| id.len() == 32 && id.starts_with(&format!("{high:016x}")))
}

/// How often a replica has moved, by its `.tidemill-moves`; `None` for bytes that are not such a file's.
pub fn moves_of(bytes: &[u8]) -> Option<u64> {
    let (number, crc) = std::str::from_utf8(bytes).ok()?.strip_prefix("0\n")?.split_once('\n')?;
    let number: u64 = number.parse().ok()?;
    (crc == seal(number) && encode_moves(number).as_bytes() == bytes).then_some(number)
}

fn seal(number: u64) -> String {
    format!("{:08x}\n", batch::crc(format!("0\n{number}\n").as_bytes()))
}

fn encode_moves(number: u64) -> String {
    format!("0\n{number}\n{}", seal(number))
}

/// What a completion of an operation of the copy meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FutureEvent {
    /// It goes on; so many bytes were copied.
    Going(u64),
    /// The folder has the replica's own name, durably: the log goes on there.
    Committed,
    /// The device there is full, or there is no descriptor; it may be tried again.
    Full,
    /// The log cannot be read here.
    SourceFailed(FileError),
    /// What was copied cannot be written there.
    TargetFailed(FileError),
    /// Another folder has the replica's name there.
    Occupied,
}

/// What is copied of one segment.
#[derive(Clone, Copy, Debug, Default)]
struct Copied {
    log_bytes: u64,
    synced_bytes: u64,
    /// The file is there.
    is_made: bool,
}

/// What an operation of the copy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Step,
    /// The folder is there, durably: a start would go on with the move.
    Made,
    /// What the folder holds from before is told, and goes.
    Clear,
    /// The count of moves here, which was copied, is read.
    Begin,
    /// Bytes of a segment's `.log`.
    Slice(i64),
    /// Another file of the log, which need not be there.
    File,
    /// The last sync of a sealed segment.
    Whole(i64),
    /// A sync of the active segment, as far as it was copied then.
    Synced(i64, u64),
    /// The last file of a segment that is gone.
    Gone(i64),
    /// The last thing before the rename.
    Complete,
    Rename,
    Commit,
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Begin,
    Copying,
    Complete,
    /// The rename is on its way: nobody knows yet which of the folders a start would take.
    Renaming,
    Committed,
}

/// The copy of a log in another log directory, on its way to become the log.
#[derive(Debug)]
pub struct FutureCopy {
    replica: u32,
    topic_id: Uuid,
    rewrites: u32,
    phase: Phase,
    is_made: bool,
    /// How often the replica moved before.
    moves: u64,
    /// What is copied, by base offset.
    segments: BTreeMap<i64, Copied>,
    /// Every segment below is sealed and whole.
    whole_below: i64,
    plan: VecDeque<(FileOp, Doing)>,
    in_flight: Option<(Ticket, FileOp, Doing)>,
    ticket_next: u64,
}

impl FutureCopy {
    /// A copy of the log of the replica in this slot; nothing is copied yet.
    pub fn new(replica: u32, log: &Log) -> Self {
        Self {
            replica,
            topic_id: log.topic_id,
            rewrites: log.rewrites,
            phase: Phase::Begin,
            is_made: false,
            moves: 0,
            segments: BTreeMap::new(),
            whole_below: 0,
            plan: VecDeque::new(),
            in_flight: None,
            ticket_next: 1,
        }
    }

    /// Slot of the replica whose log is copied.
    pub fn replica(&self) -> u32 {
        self.replica
    }

    /// Bytes of records that are copied.
    pub fn size_bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.log_bytes).sum()
    }

    /// The offset to which the log is copied; inside a segment its first one.
    pub fn end_offset(&self, log: &Log) -> i64 {
        let is_missing = |segment: &&Segment| {
            let copied = self.segments.get(&segment.base_offset);
            copied.is_none_or(|copied| copied.log_bytes < segment.length_bytes)
        };
        self.left(log).find(is_missing).map_or(log.written.offset_end, |segment| segment.base_offset)
    }

    /// Whether the folder is there, durably: from then on a start finds that the replica is on its way.
    pub fn is_made(&self) -> bool {
        self.is_made
    }

    /// Whether the rename is on its way or done: the move cannot be given up any more without a word to the next
    /// start.
    pub fn is_committing(&self) -> bool {
        matches!(self.phase, Phase::Renaming | Phase::Committed)
    }

    /// Whether the folder has the replica's own name, durably.
    pub fn is_committed(&self) -> bool {
        self.phase == Phase::Committed
    }

    /// Whether an operation is on its way.
    pub fn is_busy(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Whether everything is there but the name.
    pub fn is_complete(&self) -> bool {
        self.phase == Phase::Complete
    }

    /// What makes the source count as the replica again, whatever became of the rename: its own count of moves is
    /// higher than that of the copy. To be carried out in the source's folder, in order.
    pub fn take_back_ops(&self) -> [FileOp; 5] {
        let bytes = Bytes::from(encode_moves(self.moves + 2));
        super::jobs::replace(Stem::Named(MOVES_MARK).into(), bytes)
    }

    /// The log goes on here for a while: the rest is copied once more.
    pub fn resume(&mut self) {
        if self.phase == Phase::Complete {
            self.phase = Phase::Copying;
        }
        self.plan.clear();
    }

    /// Whether so little is missing that the log may be held for it.
    pub fn is_near(&self, log: &Log) -> bool {
        let mut left = self.left(log);
        let (Some(active), None) = (left.next(), left.next()) else { return false };
        let Some(copied) = self.segments.get(&active.base_offset) else { return false };
        let missing = active.length_bytes.saturating_sub(copied.log_bytes);
        let unsynced = copied.log_bytes.saturating_sub(copied.synced_bytes);
        self.phase == Phase::Copying
            && self.rewrites == log.rewrites
            && copied.is_made
            && missing <= NEAR_BYTES
            && unsynced <= UNSYNCED_BYTES
    }

    /// The segments that are not copied for good.
    fn left<'a>(&self, log: &'a Log) -> impl Iterator<Item = &'a Segment> + use<'a> {
        let done = log.segments.partition_point(|segment| segment.base_offset < self.whole_below);
        log.segments.range(done..)
    }

    /// The folder is to have the replica's own name from now on.
    pub fn commit(&mut self, name: String) {
        assert!(self.phase == Phase::Complete && self.plan.is_empty(), "a copy is complete before it counts");
        self.phase = Phase::Renaming;
        self.plan.push_back((FileOp::RenameDir { name }, Doing::Rename));
        self.plan.push_back((FileOp::SyncParent, Doing::Commit));
    }

    /// Whether the next operation copies records: a limited rate counts for it.
    pub fn copies_records(&mut self, log: &Log) -> bool {
        self.refill(log);
        self.plan.front().is_some_and(|(_, doing)| matches!(doing, Doing::Slice(_)))
    }

    /// The next operation in the folder; `None` while one is on its way, and when there is nothing to do: everything
    /// is copied, for now, or the rename waits for its order.
    pub fn next_op(&mut self, log: &Log) -> Option<(Ticket, FileOp)> {
        if self.in_flight.is_some() {
            return None;
        }
        self.refill(log);
        let (op, doing) = self.plan.pop_front()?;
        let ticket = Ticket(self.ticket_next);
        self.ticket_next += 1;
        self.in_flight = Some((ticket, op.clone(), doing));
        Some((ticket, op))
    }

    /// Takes the completion of an operation.
    pub fn completed(&mut self, log: &Log, ticket: Ticket, result: FileResult) -> FutureEvent {
        let Some((_, op, doing)) = self.in_flight.take_if(|(expected, ..)| *expected == ticket) else {
            return FutureEvent::Going(0);
        };
        // Whatever came of it, what it read is no more.
        let is_stale = self.rewrites != log.rewrites || log.is_truncating();
        match result {
            Ok(FileDone::Copied(Ok(bytes))) => self.copied(log, &op, doing, bytes, is_stale),
            Ok(FileDone::Copied(Err(FileError::NotFound))) if is_stale || self.may_miss(log, doing) => {
                self.missed(&op);
                FutureEvent::Going(0)
            }
            Ok(FileDone::Copied(Err(error))) => FutureEvent::SourceFailed(error),
            Ok(done) => self.done(doing, &done),
            Err(FileError::NoSpace | FileError::Short { .. }) => {
                match doing {
                    Doing::Commit => self.plan.push_front((op, doing)),
                    Doing::Rename => {
                        self.phase = Phase::Complete;
                        self.plan.clear();
                    }
                    _ => self.plan.clear(),
                }
                FutureEvent::Full
            }
            Err(FileError::Io(EEXIST | ENOTEMPTY)) if doing == Doing::Rename => {
                self.phase = Phase::Complete;
                self.plan.clear();
                FutureEvent::Occupied
            }
            Err(error) => FutureEvent::TargetFailed(error),
        }
    }

    /// Whether a file need not be there: it never has to be, or its segment is gone.
    fn may_miss(&self, log: &Log, doing: Doing) -> bool {
        match doing {
            Doing::File => true,
            Doing::Slice(base) => base < log.first_segment_base_offset(),
            _ => false,
        }
    }

    /// There is no such file here: nothing of it is to be synced or read over there.
    fn missed(&mut self, op: &FileOp) {
        let FileOp::CopyFrom { file: missing, .. } = op else { return };
        let before = self.plan.len();
        self.plan.retain(|(op, doing)| match op {
            FileOp::Sync { file } => file != missing,
            FileOp::Read { file, .. } => file != missing || *doing != Doing::Begin,
            _ => true,
        });
        if self.phase == Phase::Begin && self.plan.len() < before {
            self.done(Doing::Begin, &FileDone::Ok);
        }
    }

    fn copied(&mut self, log: &Log, op: &FileOp, doing: Doing, bytes: u64, is_stale: bool) -> FutureEvent {
        let FileOp::CopyFrom { length, .. } = op else { return FutureEvent::Going(bytes) };
        if let Doing::Slice(base) = doing {
            if bytes < *length && !is_stale && !self.may_miss(log, doing) {
                return FutureEvent::SourceFailed(FileError::Short { written: bytes });
            }
            if let Some(segment) = self.segments.get_mut(&base) {
                segment.is_made = true;
                segment.log_bytes += bytes;
            }
        }
        FutureEvent::Going(bytes)
    }

    fn done(&mut self, doing: Doing, done: &FileDone) -> FutureEvent {
        match doing {
            Doing::Step | Doing::Slice(_) | Doing::File | Doing::Rename => {}
            Doing::Made => self.is_made = true,
            Doing::Clear => {
                if let FileDone::Listing(names) = done {
                    self.clear(names);
                }
            }
            Doing::Begin => {
                self.moves = match done {
                    FileDone::Bytes(bytes) => moves_of(bytes).unwrap_or(0),
                    _ => 0,
                };
                self.phase = Phase::Copying;
            }
            Doing::Whole(base) => self.whole_below = base + 1,
            Doing::Synced(base, bytes) => {
                self.segments.entry(base).and_modify(|segment| segment.synced_bytes = bytes);
            }
            Doing::Gone(base) => drop(self.segments.remove(&base)),
            Doing::Complete => self.phase = Phase::Complete,
            Doing::Commit => {
                self.phase = Phase::Committed;
                return FutureEvent::Committed;
            }
        }
        FutureEvent::Going(0)
    }

    /// Plans what comes next, if nothing is planned.
    fn refill(&mut self, log: &Log) {
        let has_files = !log.jobs.creates() && log.create_again_ms.is_none();
        if self.is_committing() || self.in_flight.is_some() || log.is_truncating() || !has_files {
            return;
        }
        if self.rewrites != log.rewrites {
            self.plan.clear();
            self.segments.clear();
            self.whole_below = 0;
            (self.phase, self.rewrites) = (Phase::Begin, log.rewrites);
        }
        if !self.plan.is_empty() {
            return;
        }
        match self.phase {
            Phase::Begin => self.plan_beginning(),
            Phase::Copying => {
                if !self.plan_segments(log) && log.is_held() {
                    self.plan_completion(log);
                }
            }
            Phase::Complete | Phase::Renaming | Phase::Committed => {}
        }
    }

    fn step(&mut self, op: FileOp) {
        self.plan.push_back((op, Doing::Step));
    }

    /// Replaces a small file. A crash in between leaves a copy that does not count.
    fn put(&mut self, name: &'static str, bytes: String) {
        let file = FileName::from(Stem::Named(name));
        self.step(FileOp::Create { file, preallocate_bytes: 0 });
        self.step(FileOp::Write { file, position: 0, bytes: Bytes::from(bytes) });
        self.step(FileOp::Sync { file });
    }

    fn take(&mut self, stem: Stem, length: u64, doing: Doing) {
        let op = FileOp::CopyFrom { replica: self.replica, file: stem.into(), position: 0, length };
        self.plan.push_back((op, doing));
    }

    /// An empty folder that says whose it is. What an earlier attempt left in it goes, but not the folder: a crash
    /// that met the time without it would end the move.
    fn plan_beginning(&mut self) {
        self.step(FileOp::MakeDir);
        self.plan.push_back((FileOp::SyncParent, Doing::Made));
        self.plan.push_back((FileOp::List, Doing::Clear));
        self.put(PARTITION_METADATA, PartitionMetadata { topic_id: self.topic_id }.encode());
        let mark = Stem::Named(MOVES_MARK);
        self.take(mark, u64::MAX, Doing::File);
        self.plan
            .push_back((FileOp::Read { file: mark.into(), position: 0, length: SLICE_BYTES }, Doing::Begin));
    }

    fn clear(&mut self, names: &[(String, u64)]) {
        let named = |(name, _): &(String, u64)| match &**name {
            MOVES_MARK => Some(Stem::Named(MOVES_MARK).into()),
            name => parse_name(name),
        };
        for file in names.iter().filter_map(named) {
            self.plan.push_front((FileOp::Delete { file }, Doing::Step));
        }
    }

    /// The next file of a segment, or a sync; false when everything is copied.
    fn plan_segments(&mut self, log: &Log) -> bool {
        let first = log.first_segment_base_offset();
        if let Some(gone) = self.segments.keys().next().copied().filter(|base| *base < first) {
            let [rest @ .., last] = stems(gone);
            rest.into_iter().for_each(|stem| self.step(FileOp::Delete { file: stem.into() }));
            self.plan.push_back((FileOp::Delete { file: last.into() }, Doing::Gone(gone)));
            return true;
        }
        let Some(segment) = self.left(log).next() else { return false };
        let base_offset = segment.base_offset;
        let copied = *self.segments.entry(base_offset).or_default();
        if !copied.is_made || copied.log_bytes < segment.length_bytes {
            self.plan_slice(base_offset, copied.log_bytes, segment.length_bytes);
        } else if base_offset != log.written.base_offset {
            self.plan_rest_of(segment);
            self.plan.push_back((FileOp::SyncDir, Doing::Whole(base_offset)));
        } else if copied.log_bytes - copied.synced_bytes > UNSYNCED_BYTES {
            let file = Stem::Log(base_offset).into();
            self.plan.push_back((FileOp::Sync { file }, Doing::Synced(base_offset, copied.log_bytes)));
        } else {
            return false;
        }
        true
    }

    fn plan_slice(&mut self, base_offset: i64, position: u64, end: u64) {
        let file = Stem::Log(base_offset).into();
        let length = SLICE_BYTES.min(end - position);
        let op = FileOp::CopyFrom { replica: self.replica, file, position, length };
        self.plan.push_back((op, Doing::Slice(base_offset)));
    }

    /// What belongs to a segment beside its records. Only that many bytes of the indexes count.
    fn plan_rest_of(&mut self, segment: &Segment) {
        let [log, offsets, times, aborted, producers] = stems(segment.base_offset);
        self.take(offsets, segment.index_bytes, Doing::File);
        self.take(times, segment.time_index_bytes, Doing::File);
        self.take(aborted, u64::MAX, Doing::File);
        self.take(producers, u64::MAX, Doing::File);
        for stem in [log, offsets, times, aborted, producers] {
            self.step(FileOp::Sync { file: stem.into() });
        }
    }

    /// The log is held, and everything sealed is there: what is left.
    fn plan_completion(&mut self, log: &Log) {
        if let Some(active) = log.segments.back() {
            self.plan_rest_of(active);
        }
        // That of an earlier attempt may not be there any more.
        self.step(FileOp::Delete { file: mark_file() });
        self.plan.push_back((
            FileOp::CopyFrom { replica: self.replica, file: mark_file(), position: 0, length: u64::MAX },
            Doing::File,
        ));
        self.step(FileOp::Sync { file: mark_file() });
        self.put(LEADER_EPOCH_CHECKPOINT, log.epochs.encode());
        self.put(MOVES_MARK, encode_moves(self.moves + 1));
        self.plan.push_back((FileOp::SyncDir, Doing::Complete));
    }
}

/// The files of a segment.
fn stems(base_offset: i64) -> [Stem; 5] {
    [
        Stem::Log(base_offset),
        Stem::OffsetIndex(base_offset),
        Stem::TimeIndex(base_offset),
        Stem::TxnIndex(base_offset),
        Stem::ProducerSnapshot(base_offset),
    ]
}

impl Log {
    /// How often what had been written was taken back: what was read before is not the log's any more.
    pub fn rewrites(&self) -> u32 {
        self.rewrites
    }

    /// Nothing begins any more, until [`Self::release`]: appends are refused, what is on its way comes to its end.
    /// False, and nothing changes, where the log is not open, or something may take long.
    pub fn hold(&mut self) -> bool {
        let may = self.state == State::Open
            && !self.syncs.is_busy()
            && !self.ahead.is_busy()
            && self.create_again_ms.is_none()
            && self.full_until_ms.is_none()
            && !self.is_lowering();
        if may {
            self.state = State::Held;
        }
        may
    }

    /// Whether it is held.
    pub fn is_held(&self) -> bool {
        self.state == State::Held
    }

    /// Whether it is held and nothing is on its way.
    pub fn is_still(&self) -> bool {
        self.state == State::Held && !self.is_busy()
    }

    /// It goes on; `moved` says that it does so in the files that were copied.
    pub fn release(&mut self, now: Now, moved: bool) {
        if self.state != State::Held {
            return;
        }
        self.state = State::Open;
        if moved {
            // There is nothing behind the end of a copy.
            self.ahead = Ahead::default();
        }
        self.end_turn(now);
        self.delete_below_start(now);
        self.forget_mark();
    }
}

#[cfg(test)]
#[path = "future_tests.rs"]
mod tests;
