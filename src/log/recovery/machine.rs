//! The order of a recovery: see whose the directory is, tidy it, read the small files, open segment after segment,
//! write what was repaired.

use std::collections::VecDeque;

use bytes::Bytes;
use uuid::Uuid;

use super::listing::{self, Files, PARTITION_METADATA, offset_of, segment_files};
use super::segment_work::SegmentWork;
use super::truncating::Marked;
use super::walk::{Walk, Walked};
use super::whole_read::WholeRead;
use super::{Quarantine, RecoveryError, RecoveryPlan, RecoveryStep};
use crate::effect::{FileDone, FileName, FileOp, FileResult, Stem, Suffix};
use crate::log::Segment;
use crate::log::checkpoint::PartitionMetadata;
use crate::log::epoch::{EpochCache, LEADER_EPOCH_CHECKPOINT};
use crate::log::producer::ProducerStates;

/// `partition.metadata` has two lines.
const METADATA_LIMIT_BYTES: u64 = 4 << 10;
/// Half a million leader epochs; a longer checkpoint is made again from the batches.
const EPOCHS_LIMIT_BYTES: u64 = 16 << 20;
/// Five million producers; a longer snapshot is passed over for an older one.
const SNAPSHOT_LIMIT_BYTES: u64 = 256 << 20;

/// What a part of the recovery asks of the machine.
pub(super) enum Flow {
    /// Carry this out.
    Op(FileOp),
    /// Go on in the state that was set.
    Again,
    /// The end.
    Give(RecoveryStep),
}

#[derive(Debug)]
pub(super) enum State {
    List,
    Swaps {
        logs: Vec<i64>,
        walk: Option<Box<Walk>>,
        replaced: Option<(i64, i64)>,
    },
    Metadata(WholeRead),
    Mark(WholeRead),
    Epochs(WholeRead),
    PickSnapshot,
    Snapshot(i64, WholeRead),
    Segments,
    Segment(Box<SegmentWork>),
    /// The segment opened last has no timestamp: the file's own says how old it is.
    Modified,
    Finish,
    Finished,
}

/// Opens one log.
#[derive(Debug)]
pub struct Recovery {
    pub(super) plan: RecoveryPlan,
    pub(super) state: State,
    /// Changes that are carried out, in order, before the state goes on.
    pub(super) changes: VecDeque<FileOp>,
    in_flight: Option<(FileOp, bool)>,
    pub(super) files: Files,
    pub(super) topic_id: Option<Uuid>,
    pub(super) epochs: EpochCache,
    pub(super) epochs_on_disk: Option<Vec<u8>>,
    /// The checkpoint lacks epochs: every header is read for them.
    pub(super) epochs_from_batches: bool,
    /// The active segment's index proved wrong: nothing is taken from it.
    pub(super) index_distrusted: bool,
    pub(super) producers: ProducerStates,
    /// The producers' snapshot covers everything below.
    pub(super) replay_from: i64,
    snapshot_limit: i64,
    /// Snapshots of segments that could not be read.
    torn_snapshots: Vec<i64>,
    /// Base offsets of the segments that are left.
    pub(super) bases: Vec<i64>,
    /// Segments from this one on are read with their checksums.
    check_from_segment: usize,
    /// Indexes from this segment on are made again.
    rebuild_from_segment: usize,
    pub(super) segments: Vec<Segment>,
    /// The batches of the segment before were all read, or there is none.
    pub(super) unbroken: bool,
    pub(super) active: Active,
    pub(super) truncated_bytes: u64,
    pub(super) quarantined: Option<Quarantine>,
    pub(super) directory_changed: bool,
    /// A file or a name was changed, by this recovery.
    pub(super) has_changed: bool,
    /// What the log consists of was made durable, where that cannot wait.
    pub(super) synced: bool,
    /// The mark of a truncation was found.
    pub(super) marked: Option<Marked>,
    /// The log start in the checkpoint, where that may be above the planned one.
    pub(super) start_on_file: i64,
}

/// What is remembered of the last segment alone.
#[derive(Debug, Default)]
pub(super) struct Active {
    pub(super) log_end: i64,
    pub(super) last_index_entry: Option<(i64, u64)>,
    pub(super) bytes_since_index_entry: u64,
    pub(super) last_time_index_entry: Option<(i64, i64)>,
    pub(super) tail: VecDeque<(i64, u64)>,
}

impl Recovery {
    /// Opens the log in the owner's directory.
    pub fn new(plan: RecoveryPlan) -> Self {
        Self {
            plan,
            state: State::List,
            changes: VecDeque::new(),
            in_flight: None,
            files: Files::new(),
            topic_id: None,
            epochs: EpochCache::default(),
            epochs_on_disk: None,
            epochs_from_batches: false,
            index_distrusted: false,
            producers: ProducerStates::default(),
            replay_from: 0,
            snapshot_limit: i64::MAX,
            torn_snapshots: Vec::new(),
            bases: Vec::new(),
            check_from_segment: usize::MAX,
            rebuild_from_segment: usize::MAX,
            segments: Vec::new(),
            unbroken: true,
            active: Active::default(),
            truncated_bytes: 0,
            quarantined: None,
            directory_changed: false,
            has_changed: false,
            synced: false,
            marked: None,
            start_on_file: 0,
        }
    }

    /// Takes the result of the last operation (`None` starts) and says what comes next.
    ///
    /// # Panics
    /// If a result comes without an operation in flight, or the other way round.
    pub fn step(&mut self, last: Option<FileResult>) -> RecoveryStep {
        let mut given = match (self.in_flight.take(), last) {
            (None, None) => None,
            (Some((op, _)), Some(Err(error))) => return self.fail(op, error),
            (Some((_, is_change)), Some(Ok(done))) => (!is_change).then_some(done),
            (in_flight, last) => panic!("the result {last:?} answers {in_flight:?}"),
        };
        loop {
            if given.is_none()
                && let Some(op) = self.changes.pop_front()
            {
                self.has_changed |= !matches!(op, FileOp::Sync { .. } | FileOp::SyncDir);
                self.in_flight = Some((op.clone(), true));
                return RecoveryStep::Op(op);
            }
            match self.advance(given.take()) {
                Ok(Flow::Op(op)) => {
                    self.in_flight = Some((op.clone(), false));
                    return RecoveryStep::Op(op);
                }
                Ok(Flow::Again) => {}
                Ok(Flow::Give(step)) => return step,
                Err(error) => return RecoveryStep::Failed(error),
            }
        }
    }

    fn fail(&mut self, op: FileOp, error: crate::effect::FileError) -> RecoveryStep {
        let missing = error == crate::effect::FileError::NotFound;
        self.state = State::Finished;
        if missing && op == FileOp::List {
            return RecoveryStep::Empty { topic_id: None, base_offset: self.plan.log_start_offset };
        }
        RecoveryStep::Failed(RecoveryError::File { op, error })
    }

    fn advance(&mut self, done: Option<FileDone>) -> Result<Flow, RecoveryError> {
        match std::mem::replace(&mut self.state, State::Finished) {
            State::List => Ok(self.list(done)),
            State::Swaps { logs, walk, replaced } => Ok(self.finish_swaps(logs, walk, replaced, done)),
            State::Metadata(read) => self.read_metadata(read, done),
            State::Mark(read) => self.read_mark(read, done),
            State::Epochs(read) => Ok(self.read_epochs(read, done)),
            State::PickSnapshot => Ok(self.pick_snapshot()),
            State::Snapshot(offset, read) => Ok(self.read_snapshot(offset, read, done)),
            State::Segments => Ok(self.open_segment()),
            State::Segment(mut work) => {
                let flow = work.advance(self, bytes_of(done));
                match flow {
                    Some(flow) => {
                        self.state = State::Segment(work);
                        Ok(flow)
                    }
                    None => Ok(Flow::Again),
                }
            }
            State::Modified => Ok(self.take_modified(done)),
            State::Finish => Ok(self.finish()),
            State::Finished => panic!("the recovery is over"),
        }
    }

    pub(super) fn change(&mut self, op: FileOp) {
        if matches!(op, FileOp::Delete { .. } | FileOp::Rename { .. } | FileOp::Create { .. }) {
            self.directory_changed = true;
        }
        self.changes.push_back(op);
    }

    pub(super) fn sync_directory(&mut self) {
        if std::mem::take(&mut self.directory_changed) {
            self.changes.push_back(FileOp::SyncDir);
        }
    }

    pub(super) fn length_of(&self, stem: Stem) -> Option<u64> {
        self.files.get(&FileName::from(stem)).copied()
    }

    fn list(&mut self, done: Option<FileDone>) -> Flow {
        let Some(done) = done else {
            self.state = State::List;
            return Flow::Op(FileOp::List);
        };
        let FileDone::Listing(names) = done else { panic!("a listing gave {done:?}") };
        let known = |(name, length): (String, u64)| Some((listing::parse_name(&name)?, length));
        self.files = names.into_iter().filter_map(known).collect();
        let length = self.length_of(Stem::Named(PARTITION_METADATA)).unwrap_or(0);
        self.state = State::Metadata(WholeRead::new(
            Stem::Named(PARTITION_METADATA).into(),
            length.min(METADATA_LIMIT_BYTES),
        ));
        Flow::Again
    }

    /// The directory is the topic's own: what a crash left aside goes, then compaction's output comes.
    pub(super) fn tidy(&mut self) -> Flow {
        for file in listing::take_leftovers(&mut self.files) {
            self.change(FileOp::Delete { file });
        }
        let swapped = self.files.keys().filter(|file| file.suffix == Suffix::Swap);
        let logs = swapped.filter_map(|file| match file.stem {
            Stem::Log(base) => Some(base),
            _ => None,
        });
        self.state = State::Swaps { logs: logs.collect(), walk: None, replaced: None };
        Flow::Again
    }

    /// Compaction's complete output takes the place of the segments it was made from. The
    /// originals go first and durably, the logs are renamed before their indexes: a crash at any
    /// point leaves a directory from which this comes to the same end.
    fn finish_swaps(
        &mut self,
        mut logs: Vec<i64>,
        walk: Option<Box<Walk>>,
        mut replaced: Option<(i64, i64)>,
        done: Option<FileDone>,
    ) -> Flow {
        let mut walking = walk;
        if let (Some(walk), Some(bytes)) = (&mut walking, bytes_of(done)) {
            walk.feed(bytes);
        }
        loop {
            let Some(walk) = &mut walking else {
                let Some(base) = logs.pop() else { break };
                let file = FileName::from(Stem::Log(base)).with(Suffix::Swap);
                let length = self.files.get(&file).copied().unwrap_or(0);
                replaced = Some((base, replaced.map_or(base, |(_, end)| end)));
                walking = Some(Box::new(Walk::new(file, base, length, 0, base, u64::MAX)));
                continue;
            };
            match walk.next() {
                Walked::Read(op) => {
                    self.state = State::Swaps { logs, walk: walking, replaced };
                    return Flow::Op(op);
                }
                Walked::Batch { .. } => {}
                Walked::End | Walked::Ceiling | Walked::Fault(_) | Walked::Misaligned => {
                    replaced = replaced.map(|(start, end)| (start, end.max(walk.offset_next())));
                    walking = None;
                }
            }
        }
        self.swap_in(replaced);
        self.truncate_files();
        if self.bases.is_empty() {
            return self.start_over();
        }
        let length = self.length_of(Stem::Named(LEADER_EPOCH_CHECKPOINT)).unwrap_or(0);
        self.state = State::Epochs(WholeRead::new(
            Stem::Named(LEADER_EPOCH_CHECKPOINT).into(),
            length.min(EPOCHS_LIMIT_BYTES),
        ));
        Flow::Again
    }

    fn swap_in(&mut self, replaced: Option<(i64, i64)>) {
        let swaps: Vec<FileName> =
            self.files.keys().copied().filter(|file| file.suffix == Suffix::Swap).collect();
        if let Some((start, end)) = replaced {
            let is_replaced = |file: &FileName| {
                let is_snapshot = matches!(file.stem, Stem::ProducerSnapshot(_));
                let inside = offset_of(*file).is_some_and(|offset| (start..end).contains(&offset));
                file.suffix == Suffix::None && inside && !is_snapshot
            };
            let gone: Vec<FileName> = self.files.keys().copied().filter(is_replaced).collect();
            for file in gone {
                self.files.remove(&file);
                self.change(FileOp::Delete { file });
            }
            self.sync_directory();
        }
        // `Stem` orders logs before indexes.
        for from in swaps {
            let to = from.with(Suffix::None);
            let length = self.files.remove(&from).unwrap_or(0);
            self.files.insert(to, length);
            self.change(FileOp::Rename { from, to });
        }
        for file in listing::take_orphans(&mut self.files) {
            self.change(FileOp::Delete { file });
        }
        self.bases = self
            .files
            .keys()
            .filter_map(|file| match file.stem {
                Stem::Log(base) => Some(base),
                _ => None,
            })
            .collect();
    }

    fn read_metadata(&mut self, mut read: WholeRead, done: Option<FileDone>) -> Result<Flow, RecoveryError> {
        if let Some(bytes) = bytes_of(done) {
            read.feed(&bytes);
        }
        if let Some(op) = read.next() {
            self.state = State::Metadata(read);
            return Ok(Flow::Op(op));
        }
        if self.length_of(Stem::Named(PARTITION_METADATA)).is_some() {
            let metadata = PartitionMetadata::parse(&read.into_bytes()).map_err(RecoveryError::Malformed)?;
            if metadata.topic_id != self.plan.topic_id {
                return Err(RecoveryError::OtherTopic(metadata.topic_id));
            }
            self.topic_id = Some(metadata.topic_id);
        }
        Ok(self.look_for_mark())
    }

    fn read_epochs(&mut self, mut read: WholeRead, done: Option<FileDone>) -> Flow {
        if let Some(bytes) = bytes_of(done) {
            read.feed(&bytes);
        }
        if let Some(op) = read.next() {
            self.state = State::Epochs(read);
            return Flow::Op(op);
        }
        let is_there = self.length_of(Stem::Named(LEADER_EPOCH_CHECKPOINT)).is_some();
        self.epochs_on_disk = is_there.then_some(read.into_bytes());
        let last = self.bases.len() - 1;
        self.check_from_segment = match (self.plan.clean, self.plan.same_boot) {
            (true, _) => usize::MAX,
            (false, true) => last,
            (false, false) => {
                self.bases.partition_point(|base| *base <= self.plan.recovery_point).saturating_sub(1)
            }
        };
        self.rebuild_from_segment = match (self.plan.clean, self.plan.same_boot) {
            (false, false) => self.first_not_passed(),
            _ => self.check_from_segment,
        };
        if let Some(base) = self.bases.get(self.check_from_segment) {
            self.snapshot_limit = *base;
        }
        self.begin_segments();
        Flow::Again
    }

    /// The first segment that the recovery point has not passed. One that ends there may have been synced before it was
    /// rolled: its records count as synced, but not its indexes, nor the snapshot of the next one.
    pub(super) fn first_not_passed(&self) -> usize {
        self.bases.partition_point(|base| *base < self.plan.recovery_point).saturating_sub(1)
    }

    /// Opens the segments from the first one on; again, when what was believed at first proves wrong.
    pub(super) fn begin_segments(&mut self) {
        let parsed = self.epochs_on_disk.as_deref().map(EpochCache::parse);
        self.epochs = match parsed {
            Some(Ok(epochs)) if !self.epochs_from_batches => epochs,
            _ => {
                self.epochs_from_batches = true;
                EpochCache::default()
            }
        };
        self.segments.clear();
        self.unbroken = true;
        self.active = Active::default();
        self.state = State::PickSnapshot;
    }

    /// Begins again without trust in the active segment's index.
    pub(super) fn distrust_index(&mut self) {
        assert!(!self.index_distrusted, "an index that is not used was found wrong");
        self.index_distrusted = true;
        self.begin_segments();
    }

    /// Begins again, reading every header for its epoch.
    pub(super) fn distrust_epochs(&mut self) {
        assert!(!self.epochs_from_batches, "the epochs already come from the batches");
        self.epochs_from_batches = true;
        self.begin_segments();
    }

    pub(super) fn snapshots(&self) -> impl DoubleEndedIterator<Item = i64> + '_ {
        self.files.keys().filter_map(|file| match file.stem {
            Stem::ProducerSnapshot(offset) => Some(offset),
            _ => None,
        })
    }

    fn pick_snapshot(&mut self) -> Flow {
        let usable = |offset: &i64| *offset <= self.snapshot_limit && !self.torn_snapshots.contains(offset);
        let newest = self.snapshots().rev().find(usable);
        let Some(offset) = newest else {
            self.producers = ProducerStates::default();
            self.replay_from = 0;
            self.state = State::Segments;
            return Flow::Again;
        };
        let stem = Stem::ProducerSnapshot(offset);
        let length = self.length_of(stem).unwrap_or(0).min(SNAPSHOT_LIMIT_BYTES);
        self.state = State::Snapshot(offset, WholeRead::new(stem.into(), length));
        Flow::Again
    }

    fn read_snapshot(&mut self, offset: i64, mut read: WholeRead, done: Option<FileDone>) -> Flow {
        if let Some(bytes) = bytes_of(done) {
            read.feed(&bytes);
        }
        if let Some(op) = read.next() {
            self.state = State::Snapshot(offset, read);
            return Flow::Op(op);
        }
        match ProducerStates::from_snapshot(&read.into_bytes()) {
            Ok(producers) => {
                self.producers = producers;
                self.replay_from = offset;
                self.state = State::Segments;
            }
            // It is made again when its segment is reached.
            Err(_) if !self.plan.clean && self.bases.iter().skip(1).any(|base| *base == offset) => {
                self.torn_snapshots.push(offset);
                self.state = State::PickSnapshot;
            }
            Err(_) => {
                let file = FileName::from(Stem::ProducerSnapshot(offset));
                self.files.remove(&file);
                self.change(FileOp::Delete { file });
                self.state = State::PickSnapshot;
            }
        }
        Flow::Again
    }

    fn open_segment(&mut self) -> Flow {
        let at = self.segments.len();
        self.state = match self.bases.get(at) {
            Some(&base) => {
                let checked = at >= self.check_from_segment;
                let work = SegmentWork::new(self, base, checked, at >= self.rebuild_from_segment);
                let is_there = self.length_of(Stem::ProducerSnapshot(base)).is_some();
                if base > self.replay_from && at > 0 && is_there && !self.plan.clean {
                    // Its snapshot may be torn, and the batches before it may be deleted one day.
                    let snapshot = self.producers.snapshot();
                    self.replace(Stem::ProducerSnapshot(base).into(), snapshot);
                }
                State::Segment(Box::new(work))
            }
            None => State::Finish,
        };
        Flow::Again
    }

    /// Takes an opened segment and goes on with the next.
    pub(super) fn take_segment(&mut self, segment: Segment, log_end: i64) {
        let is_timeless = segment.length_bytes > 0 && segment.max_timestamp_ms < 0;
        self.segments.push(segment);
        self.active.log_end = log_end;
        self.state = if is_timeless { State::Modified } else { State::Segments };
        let is_last = self.segments.len() == self.bases.len();
        if is_last && self.quarantined.is_none() && self.replay_from > log_end {
            // The newest snapshot knows more than the log: an older one has to do.
            self.snapshot_limit = log_end;
            self.begin_segments();
        }
    }

    fn take_modified(&mut self, done: Option<FileDone>) -> Flow {
        let segment = self.segments.last_mut().expect("a segment was opened");
        match done {
            Some(FileDone::ModifiedMs(at_ms)) => segment.modified_ms = at_ms,
            None => {
                self.state = State::Modified;
                return Flow::Op(FileOp::ModifiedAt { file: Stem::Log(segment.base_offset).into() });
            }
            Some(other) => panic!("a file's time gave {other:?}"),
        }
        self.state = State::Segments;
        Flow::Again
    }

    /// Cuts the log at a position of the segment that is being opened: what follows goes first.
    pub(super) fn cut(&mut self, base: i64, position: u64) {
        let later: Vec<i64> = self.bases.iter().copied().filter(|other| *other > base).collect();
        self.bases.retain(|other| *other <= base);
        for other in later.into_iter().rev() {
            self.truncated_bytes += self.length_of(Stem::Log(other)).unwrap_or(0);
            self.delete_segment(other);
        }
        self.sync_directory();
        let log = FileName::from(Stem::Log(base));
        let length = self.files.insert(log, position).unwrap_or(0);
        self.truncated_bytes += length.saturating_sub(position);
        self.change(FileOp::Truncate { file: log, length: position });
        self.change(FileOp::Sync { file: log });
    }

    pub(super) fn delete_segment(&mut self, base: i64) {
        for file in segment_files(base) {
            if self.files.remove(&file).is_some() {
                self.change(FileOp::Delete { file });
            }
        }
    }

    /// No segment is left: what describes records goes too, and the log is created anew, mostly by the caller.
    pub(super) fn start_over(&mut self) -> Flow {
        let gone: Vec<FileName> = self
            .files
            .keys()
            .copied()
            .filter(|file| match file.stem {
                Stem::Named(name) => name == LEADER_EPOCH_CHECKPOINT,
                _ => true,
            })
            .collect();
        for file in gone {
            self.files.remove(&file);
            self.change(FileOp::Delete { file });
        }
        self.sync_directory();
        if !self.changes.is_empty() {
            // Comes back here, with nothing left to change.
            self.state = State::Finish;
            return Flow::Again;
        }
        let base_offset = self.plan.log_start_offset;
        if self.marked.is_some() {
            // The log goes on knowing what its mark says of the checkpoint.
            return self.begin_anew(base_offset);
        }
        Flow::Give(RecoveryStep::Empty { topic_id: self.topic_id, base_offset })
    }

    /// Replaces a file so that a crash leaves the old or the new bytes.
    pub(super) fn replace(&mut self, file: FileName, bytes: Bytes) {
        let aside = file.with(Suffix::Tmp);
        self.files.insert(file, bytes.len() as u64);
        self.change(FileOp::Create { file: aside, preallocate_bytes: 0 });
        if !bytes.is_empty() {
            self.change(FileOp::Write { file: aside, position: 0, bytes });
        }
        self.change(FileOp::Sync { file: aside });
        self.change(FileOp::Rename { from: aside, to: file });
    }
}

fn bytes_of(done: Option<FileDone>) -> Option<Bytes> {
    match done {
        Some(FileDone::Bytes(bytes)) => Some(bytes),
        None => None,
        Some(other) => panic!("a read gave {other:?}"),
    }
}
