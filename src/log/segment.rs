//! What is remembered of one segment: a `.log` file with its indexes.

use crate::planted::{Bug, is_planted};

/// One segment of a log, oldest first in the log's list; the last one is active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Offset the file is named after; no record in it has a lower one.
    pub base_offset: i64,
    /// Bytes of record batches in the `.log` file.
    pub length_bytes: u64,
    /// Entries of the `.index` file, counted in bytes (8 each), without preallocated zeros.
    pub index_bytes: u64,
    /// Entries of the `.timeindex` file, counted in bytes (12 each), without preallocated zeros.
    pub time_index_bytes: u64,
    /// Largest record timestamp, -1 when there is no record.
    pub max_timestamp_ms: i64,
    /// Offset of the record that has it (the batch's last offset where only that is known), -1 when there is none.
    pub max_timestamp_offset: i64,
    /// Timestamp of the first batch's newest record, -1 when there is none; the age of a segment counts from it.
    pub first_timestamp_ms: i64,
    /// When its bytes last changed by the wall clock, -1 when that is not known: its age where no record has a
    /// timestamp.
    pub modified_ms: i64,
}

impl Segment {
    /// A segment without batches.
    pub fn empty(base_offset: i64) -> Self {
        Self {
            base_offset,
            length_bytes: 0,
            index_bytes: 0,
            time_index_bytes: 0,
            max_timestamp_ms: -1,
            max_timestamp_offset: -1,
            first_timestamp_ms: -1,
            modified_ms: -1,
        }
    }

    /// What `retention.ms` counts from: the newest record, or else the last change of the file; `None` when
    /// neither is known.
    pub(super) fn newest_ms(&self) -> Option<i64> {
        let newest = if is_planted(Bug::RetentionByFirstRecord) {
            self.first_timestamp_ms
        } else if self.max_timestamp_ms >= 0 {
            self.max_timestamp_ms
        } else {
            self.modified_ms
        };
        (newest >= 0).then_some(newest)
    }
}
