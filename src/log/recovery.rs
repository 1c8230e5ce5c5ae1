//! Opening a log that is on disk: which bytes are batches, where the log ends, and what the
//! indexes, the epochs and the producers say, after any kind of stop.
//!
//! A sequential machine: each step takes the result of the operation before and gives the next one.
//!
//! | stop | bytes that are checked | bytes that are believed |
//! |---|---|---|
//! | clean | none; headers after the active segment's last index entry give the log end | all |
//! | the process died | the active segment from its last index entry on | all before |
//! | the kernel died | every segment from the one with the recovery point on | all before |
//!
//! Invariants: a byte below the recovery point is never cut off or overwritten, damage there is
//! reported as [`Quarantine`]; above it the longest run of whole batches survives; whatever step a
//! crash interrupts, the next recovery comes to the same log. Later segments are deleted before
//! the damaged one is cut, so a crash between the two cannot leave a hole that looks whole. A truncation that a crash
//! interrupted is finished first (`truncating`); the log runs the same machine for the truncation itself.

mod finish;
mod index_file;
mod listing;
mod machine;
mod segment_work;
mod truncating;
mod walk;
mod whole_read;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use uuid::Uuid;

use super::Segment;
use super::checkpoint::CheckpointError;
use super::epoch::EpochCache;
use super::producer::ProducerStates;
use crate::config::TopicConfig;
use crate::effect::{FileError, FileOp};

pub(super) use listing::parse_name;
pub use machine::Recovery;

/// What the caller knows before it opens a log.
#[derive(Clone, Debug)]
pub struct RecoveryPlan {
    /// The topic that the log is opened for. A directory that names another one is left as it is.
    pub topic_id: Uuid,
    /// The log directory was closed in order (`.kafka_cleanshutdown` was there).
    pub clean: bool,
    /// The kernel has not restarted since the log was written: what was written is in the page cache.
    pub same_boot: bool,
    /// Everything below this offset was synced.
    pub recovery_point: i64,
    /// Records below this offset were deleted.
    pub log_start_offset: i64,
    /// The topic's configuration.
    pub config: Arc<TopicConfig>,
    /// Wall clock, milliseconds since the Unix epoch.
    pub wall_ms: i64,
}

/// A log as it was found, after repairs.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// From `partition.metadata`; `None` when that file is missing.
    pub topic_id: Option<Uuid>,
    /// At least one, oldest first; the last one is active.
    pub segments: Vec<Segment>,
    /// Leader epochs, from the checkpoint and the batches.
    pub epochs: EpochCache,
    /// Idempotent and transactional producers as of the log end.
    pub producers: ProducerStates,
    /// No record below it counts.
    pub log_start_offset: i64,
    /// Offset after the last record.
    pub log_end: i64,
    /// Everything below it is synced.
    pub durable_end: i64,
    /// All files of the log are, also what belongs to no record.
    pub is_synced: bool,
    /// Its files are as a clean stop left them, or as they were made: a clean stop has nothing to write into them.
    pub is_untouched: bool,
    /// A power cut may take the names of the active segment, which is empty.
    pub names_unsure: bool,
    /// Bytes of `.log` files that were not batches and were cut off or deleted.
    pub truncated_bytes: u64,
    /// The active segment's newest `.index` entry: last offset and position of a batch.
    pub last_index_entry: Option<(i64, u64)>,
    /// Bytes of the active segment since its newest index entry was due.
    pub bytes_since_index_entry: u64,
    /// The active segment's newest `.timeindex` entry: timestamp and offset.
    pub last_time_index_entry: Option<(i64, i64)>,
    /// Newest batches of the active segment, last offset and position, oldest first; a bounded number.
    pub tail: Vec<(i64, u64)>,
    /// Synced bytes that are damaged; the log must not be written or led until they are repaired.
    pub quarantined: Option<Quarantine>,
    /// The mark of a truncation is still there: until the log is synced to this offset, the checkpoint may hold a
    /// recovery point that is too high.
    pub marked_until: Option<i64>,
    /// The log start in the checkpoint, where it is too high and the mark of a truncation says so: it is to be
    /// lowered ([`Log::start_to_lower`](super::Log::start_to_lower)).
    pub start_on_file: Option<i64>,
}

/// A damaged place below the recovery point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quarantine {
    /// Base offset of the segment.
    pub base_offset: i64,
    /// Position in its `.log` file.
    pub position: u64,
    /// First offset that cannot be trusted.
    pub offset: i64,
    /// What was found there.
    pub reason: &'static str,
}

/// Why a log could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoveryError {
    /// An operation failed.
    File {
        /// What was tried.
        op: FileOp,
        /// How it failed.
        error: FileError,
    },
    /// A file that must not be lost is malformed.
    Malformed(CheckpointError),
    /// The directory is another topic's of the same name; nothing in it was changed.
    OtherTopic(Uuid),
}

/// What comes next.
#[derive(Clone, Debug)]
pub enum RecoveryStep {
    /// Carry this out and give its result to the next step.
    Op(FileOp),
    /// The log is open.
    Done(Box<Recovered>),
    /// There is no segment (a crash inside creation, or all records deleted): the caller creates the first one.
    Empty {
        /// From `partition.metadata`, if it is there.
        topic_id: Option<Uuid>,
        /// Base offset for the first segment.
        base_offset: i64,
    },
    /// The log stays closed.
    Failed(RecoveryError),
}
