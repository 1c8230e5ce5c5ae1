//! One partition's bytes: batches, segments, indexes, epochs, producer state, recovery. Pure.
//!
//! [`Log`] is the log of one replica as a machine over file operations. It has three tails
//! (DESIGN §9): *reserved* (offset given out) ≥ *written* (the append completed) ≥ *durable* (synced).
//! The caller appends batches while a turn lasts, ends the turn, emits what [`Log::next_op`] gives
//! and brings the completions back. Appends, rolls and index writes run strictly one at a time;
//! reads and one sync run beside them, so a slow device delays durability and never the next append.

mod ahead;
mod append;
pub mod batch;
pub mod check;
pub mod checkpoint;
pub mod codec;
pub mod directory;
mod epoch;
mod flush;
mod follow;
mod future;
mod head;
mod index;
mod jobs;
mod log_start;
mod lookup;
mod mark;
pub mod memory_dir;
pub mod producer;
pub mod record;
mod recovery;
mod remove;
mod retention;
mod roll;
mod search;
mod segment;
mod tail;
mod truncation;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

pub use append::Appended;
pub use checkpoint::{CheckpointError, PartitionMetadata, encode_uuid, parse_uuid};
pub use epoch::{EpochCache, EpochEntry, EpochUndo, LEADER_EPOCH_CHECKPOINT, UNDEFINED as EPOCH_UNDEFINED};
pub use follow::FollowerError;
pub use future::{FutureCopy, FutureEvent, MOVES_MARK, future_name, is_future_of, moves_of};
pub use lookup::{Found, Lookup, LookupStep, Query, Span};
pub use recovery::{Quarantine, Recovered, Recovery, RecoveryError, RecoveryPlan, RecoveryStep};
pub use segment::Segment;

use crate::config::TopicConfig;
use crate::effect::{FileError, FileName, FileOp, FileResult, Now, Stem, Ticket};
use ahead::Ahead;
use append::Gather;
use flush::Syncs;
use head::Head;
use index::PendingIndex;
use jobs::{Jobs, Progress, Purpose, replace};
use log_start::OnFile;
use producer::ProducerStates;
use retention::Deletions;
use tail::Tail;
use truncation::Truncation;

/// Where in the log an offset lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPosition {
    /// The offset; a batch starts there, or the log ends.
    pub offset: i64,
    /// Base offset of its segment.
    pub segment_base_offset: i64,
    /// Position in that segment's `.log` file.
    pub position: u64,
}

/// What a completion changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogEvent {
    /// Nothing that the partition has to know.
    None,
    /// The written, the durable or the log end moved on.
    Appended,
    /// Everything from an offset on is gone: the file is cut back, producers and epochs are as they were.
    Dropped {
        /// The first offset that was taken back; the log goes on from it.
        from_offset: i64,
        /// Why.
        error: FileError,
    },
    /// An expired active segment was rolled: the log should start here ([`Log::retention`]).
    Expired(i64),
    /// The log does nothing any more; its log directory goes offline. What was reserved is gone.
    Offline(FileError),
    /// A truncation is complete: the log ends here, and starts where it says it does.
    Truncated {
        /// Where the log goes on.
        log_end: i64,
    },
    /// The clean stop is complete.
    Closed,
    /// The directory has the name of one that is on its way out.
    Retired,
    /// The directory is gone.
    Deleted,
}

/// Where a log is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Takes appends.
    Open,
    /// Takes no appends, until the truncation is complete.
    Truncating,
    /// Takes no appends for a moment; nothing begins ([`Log::hold`]).
    Held,
    /// Takes no appends; writes what it has.
    Closing,
    /// The clean stop's last job is planned.
    LastJob,
    /// Its topic is deleted: takes no appends; the directory is renamed when nothing is on its way.
    Retiring,
    /// The directory is renamed, and deleted at this monotonic time.
    Retired { delete_at_ms: u64 },
    /// Closed in order, or deleted.
    Closed,
    /// A device failed.
    Offline,
}

/// The log of one partition replica.
#[derive(Debug)]
pub struct Log {
    topic_id: Uuid,
    config: Arc<TopicConfig>,
    jitter_seed: u64,
    state: State,
    jobs: Jobs,
    /// Oldest first; the last one is active.
    segments: VecDeque<Segment>,
    log_start_offset: i64,
    /// End of what was given out.
    reserved: Head,
    /// End of what is in the files.
    written: Head,
    /// End of what is synced.
    durable: LogPosition,
    /// The log end was here under another configuration; it never goes back.
    log_end_floor: LogPosition,
    generation: u32,
    epochs: EpochCache,
    /// The epochs differ from their checkpoint.
    epochs_dirty: bool,
    producers: ProducerStates,
    gather: Gather,
    pending_index: PendingIndex,
    tail: Tail,
    /// No batch at or behind this offset is compressed with zstd. What recovery found may all be.
    zstd_end: i64,
    /// When the newest batch was written.
    appended_ms: u64,
    syncs: Syncs,
    deletions: Deletions,
    ahead: Ahead,
    truncation: Option<Box<Truncation>>,
    /// The mark of a truncation is there until the log is synced to this offset.
    marked_until: Option<i64>,
    /// The log start in the checkpoint.
    on_file: OnFile,
    /// How often what had been written was taken back.
    rewrites: u32,
    /// When the creation of the log is tried again after a full device.
    create_again_ms: Option<u64>,
    /// A full device refused what everything behind it waits for: when it is tried again.
    full_until_ms: Option<u64>,
    /// The clean stop could not write everything: the next start has to recover the log.
    unclean: bool,
    /// When the clean stop began.
    closing_at: Now,
}

impl Log {
    /// A new log, and the plan that creates its files: directory, `partition.metadata`, an empty
    /// `leader-epoch-checkpoint`, and the first segment at offset 0. `jitter_seed` varies the age
    /// at which segments roll (`segment.jitter.ms`).
    pub fn create(topic_id: Uuid, config: Arc<TopicConfig>, now: Now, jitter_seed: u64) -> Self {
        Self::create_at(topic_id, 0, config, now, jitter_seed)
    }

    /// [`Self::create`] with a first offset: for a log whose records were all deleted.
    pub fn create_at(
        topic_id: Uuid,
        base_offset: i64,
        config: Arc<TopicConfig>,
        now: Now,
        jitter_seed: u64,
    ) -> Self {
        assert!(base_offset >= 0, "offsets start at 0");
        let head = Head::empty(base_offset, now.wall_ms);
        let mut log =
            Self::at(topic_id, config, jitter_seed, head, VecDeque::from([Segment::empty(base_offset)]));
        log.plan_creation();
        log
    }

    /// A log as recovery found it. The topic id of `partition.metadata` counts; where there is
    /// none (logs older than Kafka 2.8) it is nil.
    pub fn recovered(found: Recovered, config: Arc<TopicConfig>, now: Now, jitter_seed: u64) -> Self {
        let active = found.segments.last().expect("recovery gives at least one segment");
        let mut head = Head::empty(active.base_offset, now.wall_ms);
        head.offset_end = found.log_end;
        head.position = active.length_bytes;
        head.first_timestamp_ms = active.first_timestamp_ms;
        head.max_timestamp_ms = active.max_timestamp_ms;
        head.max_timestamp_offset = active.max_timestamp_offset;
        head.bytes_since_entry = found.bytes_since_index_entry;
        head.offset_entries = active.index_bytes / head::OFFSET_ENTRY_BYTES;
        head.time_entries = active.time_index_bytes / head::TIME_ENTRY_BYTES;
        head.time_entry_ms = found.last_time_index_entry.map_or(-1, |(timestamp_ms, _)| timestamp_ms);
        let topic_id = found.topic_id.unwrap_or_default();
        let ahead = Ahead::found(head.position, &config);
        let mut log = Self::at(topic_id, config, jitter_seed, head, found.segments.into());
        log.ahead = ahead;
        log.log_start_offset = found.log_start_offset;
        log.zstd_end = found.log_end;
        log.appended_ms = now.mono_ms;
        log.epochs = found.epochs;
        log.producers = found.producers;
        log.marked_until = found.marked_until;
        log.on_file = OnFile::found(found.start_on_file);
        for (offset_last, position) in found.tail {
            log.tail.push(offset_last, position, log.written.base_offset);
        }
        log.recovered_durable(found.durable_end, found.is_synced, now);
        log.syncs.found(found.is_untouched, found.names_unsure);
        log.check_invariants();
        log
    }

    fn at(
        topic_id: Uuid,
        config: Arc<TopicConfig>,
        jitter_seed: u64,
        head: Head,
        segments: VecDeque<Segment>,
    ) -> Self {
        let first = segments.front().map_or(head.base_offset, |segment| segment.base_offset);
        Self {
            topic_id,
            config,
            jitter_seed,
            state: State::Open,
            jobs: Jobs::default(),
            segments,
            log_start_offset: first,
            reserved: head,
            written: head,
            durable: head.log_position(),
            log_end_floor: LogPosition { offset: first, segment_base_offset: first, position: 0 },
            generation: 0,
            epochs: EpochCache::default(),
            epochs_dirty: false,
            producers: ProducerStates::default(),
            gather: Gather::default(),
            pending_index: PendingIndex::default(),
            tail: Tail::default(),
            zstd_end: first,
            appended_ms: 0,
            syncs: Syncs::default(),
            deletions: Deletions::default(),
            ahead: Ahead::default(),
            truncation: None,
            marked_until: None,
            on_file: OnFile::default(),
            rewrites: 0,
            create_again_ms: None,
            full_until_ms: None,
            unclean: false,
            closing_at: Now { mono_ms: 0, wall_ms: 0 },
        }
    }

    fn plan_creation(&mut self) {
        self.ahead.restart(self.preallocate_bytes());
        let base_offset = self.written.base_offset;
        let mut ops = vec![FileOp::MakeDir, FileOp::SyncParent];
        let metadata = PartitionMetadata { topic_id: self.topic_id }.encode();
        ops.extend(replace(Stem::Named(PARTITION_METADATA).into(), Bytes::from(metadata)));
        ops.extend(self.epochs_ops());
        ops.extend(self.segment_files(base_offset));
        ops.push(FileOp::SyncDir);
        self.jobs.plan(Purpose::Create, ops);
    }

    fn epochs_ops(&self) -> [FileOp; 5] {
        replace(Stem::Named(LEADER_EPOCH_CHECKPOINT).into(), Bytes::from(self.epochs.encode()))
    }

    /// What the file of a segment is created with, reserved behind its end.
    fn preallocate_bytes(&self) -> u64 {
        if self.config.preallocate { self.config.segment_bytes } else { 0 }
    }

    /// The files of an empty segment.
    fn segment_files(&self, base_offset: i64) -> [FileOp; 3] {
        let preallocate_bytes = self.preallocate_bytes();
        let create = |file: FileName, preallocate_bytes| FileOp::Create { file, preallocate_bytes };
        [
            create(Stem::Log(base_offset).into(), preallocate_bytes),
            create(Stem::OffsetIndex(base_offset).into(), 0),
            create(Stem::TimeIndex(base_offset).into(), 0),
        ]
    }

    /// The topic's id, as in `partition.metadata`.
    pub fn topic_id(&self) -> Uuid {
        self.topic_id
    }

    /// The configuration changed; it counts from the next batch on.
    pub fn set_config(&mut self, config: Arc<TopicConfig>) {
        // Where `flush.messages` becomes 1, what already counted as the log end still does.
        self.log_end_floor = self.log_end_position();
        self.config = config;
    }

    /// No record below this offset is served.
    pub fn log_start_offset(&self) -> i64 {
        self.log_start_offset
    }

    /// The first offset that this node's own files hold; the same as the log start as long as
    /// there is no other tier.
    pub fn local_log_start_offset(&self) -> i64 {
        self.log_start_offset
    }

    /// The offset that the next batch gets.
    pub fn reserved_end(&self) -> i64 {
        self.reserved.offset_end
    }

    /// Offset after the last batch in the files.
    pub fn written_end(&self) -> i64 {
        self.written.offset_end
    }

    /// Offset after the last synced batch.
    pub fn durable_end(&self) -> i64 {
        self.durable.offset
    }

    /// What the replica counts, reports and acknowledges: the written end, or the durable end
    /// where `flush.messages=1`.
    pub fn log_end(&self) -> i64 {
        self.log_end_position().offset
    }

    /// [`Self::log_end`] with its place in the files.
    pub fn log_end_position(&self) -> LogPosition {
        if self.config.flush_messages != 1 {
            return self.written.log_position();
        }
        if self.durable.offset >= self.log_end_floor.offset { self.durable } else { self.log_end_floor }
    }

    /// Recovery after a power cut starts here.
    pub fn recovery_point(&self) -> i64 {
        self.durable.offset
    }

    /// Bytes of all `.log` files but those that wait for a sync to be deleted: nobody is shown what is in them.
    pub fn size_bytes(&self) -> u64 {
        let doomed =
            self.segments.iter().skip(1).take_while(|next| next.base_offset <= self.log_start_offset);
        self.segments.iter().skip(doomed.count()).map(|segment| segment.length_bytes).sum()
    }

    /// Rises whenever offsets that had been given out are taken back.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The segments, oldest first; the last one is active.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = &Segment> {
        self.segments.iter()
    }

    /// Which leader epoch wrote which offsets, as of the reserved end.
    pub fn epochs(&self) -> &EpochCache {
        &self.epochs
    }

    /// The producers, as of the reserved end.
    pub fn producers(&self) -> &ProducerStates {
        &self.producers
    }

    /// Forgets producers whose newest batch is older than this by the wall clock. Only while
    /// nothing is on its way: a failed append must find the producers as it left them.
    pub fn expire_producers(&mut self, now: Now, expiration_ms: i64) {
        if self.gather.is_idle() && !self.producers.is_empty() {
            self.producers.expire(now.wall_ms, expiration_ms);
        }
    }

    fn active_mut(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("a log has an active segment")
    }

    /// The next operation to emit; call until `None` after every step.
    pub fn next_op(&mut self, now: Now) -> Option<(Ticket, FileOp)> {
        if matches!(self.state, State::Closed | State::Offline) {
            return None;
        }
        let sync = self.next_sync(now);
        if sync.is_some() || self.full_until_ms.is_some() {
            return sync;
        }
        let allocation = self.next_allocation();
        if allocation.is_some() {
            self.syncs.touched = true;
            return allocation;
        }
        self.delete_next_file();
        // What makes a log leaves it as a clean stop does.
        self.syncs.touched |= !self.jobs.is_idle() && !self.jobs.creates_now();
        self.jobs.next()
    }

    /// Whether a clean stop came to its end.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether a full device, or one without descriptors left, keeps the next operation waiting.
    pub fn waits_for_space(&self) -> bool {
        self.full_until_ms.is_some()
    }

    /// Base offset of the oldest segment.
    pub fn first_segment_base_offset(&self) -> i64 {
        self.segments.front().map_or(0, |segment| segment.base_offset)
    }

    /// No power cut brings the names of segments below this offset back: what starts there has no need of
    /// the checkpoint.
    pub fn gone_below(&self) -> i64 {
        self.deletions.gone_below
    }

    /// A ticket for a read that a lookup asked for.
    pub fn read_ticket(&mut self) -> Ticket {
        self.jobs.ticket()
    }

    /// Takes the completion of an operation from [`Self::next_op`]. One with a ticket that is not
    /// waited for changes nothing.
    pub fn completed(&mut self, now: Now, ticket: Ticket, result: FileResult) -> LogEvent {
        if matches!(self.state, State::Closed | State::Offline) {
            return LogEvent::None;
        }
        let beside = self.sync_completed(now, ticket, &result).or_else(|| self.allocated(ticket, &result));
        let event = match beside {
            Some(event) => event,
            None => match self.jobs.completed(ticket, &result) {
                Progress::NotOurs | Progress::Step => LogEvent::None,
                Progress::Done(Purpose::Truncate) | Progress::Failed(Purpose::Truncate, _) => {
                    self.truncation_step(now, result)
                }
                Progress::Done(purpose) => self.job_done(now, purpose),
                Progress::Failed(purpose, error) => self.job_failed(now, purpose, error),
                Progress::Full if self.is_closing() => self.close_unclean(),
                Progress::Full => {
                    self.full_until_ms = Some(now.mono_ms + RETRY_MS);
                    LogEvent::None
                }
            },
        };
        if matches!(self.state, State::Closing | State::Retiring | State::Truncating) {
            self.end_turn(now);
            self.advance_close();
            self.advance_retire();
            self.advance_truncation();
        }
        event
    }

    fn job_done(&mut self, now: Now, purpose: Purpose) -> LogEvent {
        match purpose {
            Purpose::Create
            | Purpose::Epochs
            | Purpose::CutBack
            | Purpose::GiveBack
            | Purpose::Delete
            | Purpose::LastSnapshots
            | Purpose::Truncate => LogEvent::None,
            Purpose::Append => self.append_done(now),
            Purpose::Roll => self.roll_done(now),
            Purpose::Lowered => {
                self.on_file = OnFile::default();
                LogEvent::None
            }
            Purpose::IndexFlush { offset_entries, time_entries } => {
                self.index_flushed(now, offset_entries, time_entries);
                LogEvent::None
            }
            Purpose::Close => {
                self.durable = self.written.log_position();
                self.state = State::Closed;
                LogEvent::Closed
            }
            Purpose::Retire => {
                let delay_ms = u64::try_from(self.config.file_delete_delay_ms).unwrap_or(0);
                self.state = State::Retired { delete_at_ms: now.mono_ms.saturating_add(delay_ms) };
                LogEvent::Retired
            }
            Purpose::Remove => {
                self.state = State::Closed;
                LogEvent::Deleted
            }
        }
    }

    fn job_failed(&mut self, now: Now, purpose: Purpose, error: FileError) -> LogEvent {
        let retriable = matches!(error, FileError::NoSpace | FileError::Short { .. });
        match purpose {
            Purpose::Append if retriable => self.append_failed(error),
            Purpose::Roll if retriable => self.roll_failed(now, error),
            Purpose::Create if retriable => {
                // Appends may be planned behind it: their batches are taken back.
                self.jobs.abandon();
                self.create_again_ms = Some(now.mono_ms + RETRY_MS);
                self.drop_reserved(error)
            }
            // A full device refused even its creation. Nothing is deleted then: the name may soon be another's.
            Purpose::Retire if error == FileError::NotFound => {
                self.state = State::Closed;
                LogEvent::Deleted
            }
            // It stays where it is: a full device has nobody who could be given anything.
            Purpose::GiveBack if retriable => LogEvent::None,
            Purpose::Epochs if retriable => {
                self.epochs_dirty = true;
                LogEvent::None
            }
            Purpose::Close | Purpose::LastSnapshots if retriable => self.close_unclean(),
            Purpose::Lowered if retriable => self.lowered_later(now),
            Purpose::IndexFlush { .. } if retriable => {
                self.pending_index.flush_failed(now.mono_ms);
                LogEvent::None
            }
            _ => self.device_failed(error),
        }
    }

    fn device_failed(&mut self, error: FileError) -> LogEvent {
        self.go_offline();
        LogEvent::Offline(error)
    }

    /// The log directory failed: takes everything reserved back and stops.
    pub fn go_offline(&mut self) {
        let _ = self.drop_reserved(FileError::Io(0));
        self.truncation = None;
        self.state = State::Offline;
    }

    /// What DESIGN §6 promises of a log.
    ///
    /// # Panics
    /// If it does not hold.
    pub fn check_invariants(&self) {
        assert!(self.durable.offset <= self.written.offset_end, "what is durable was written");
        assert!(self.written.offset_end <= self.reserved.offset_end, "what is written was reserved");
        assert!(self.log_end() <= self.written.offset_end, "the log end is written");
        assert!(self.log_start_offset <= self.written.offset_end, "a log starts before it ends");
        let first = self.segments.front().expect("a log has a segment");
        assert!(first.base_offset <= self.log_start_offset, "the log start lies in the first segment");
        let active = self.segments.back().expect("a log has an active segment");
        assert_eq!(active.base_offset, self.written.base_offset, "the active segment is appended to");
        assert_eq!(active.length_bytes, self.written.position, "its length is the written end");
        assert!(self.segments.iter().is_sorted_by(|a, b| a.base_offset < b.base_offset), "segments rise");
        let on_file = active.index_bytes / head::OFFSET_ENTRY_BYTES + self.pending_index.offsets.len() as u64;
        assert_eq!(on_file, self.written.offset_entries, "every index entry is on file or waits");
        self.check_gather();
    }
}

/// The file that says which topic a log belongs to.
const PARTITION_METADATA: &str = "partition.metadata";

/// How long a log waits before it tries again what a full device refused.
const RETRY_MS: u64 = 1000;
