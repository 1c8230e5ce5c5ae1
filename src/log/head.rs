//! The end of the active segment: where the next batch goes, whether the segment is full, and
//! which index entries a batch earns.
//!
//! The rules are those of Kafka's `LogSegment` (`append`, `shouldRoll`), so that the indexes hold
//! the entries that Kafka's own tools expect.

use super::{LogPosition, Segment};
use crate::config::TopicConfig;

/// Bytes of one offset index entry: relative offset (i32), position (i32).
pub(super) const OFFSET_ENTRY_BYTES: u64 = 8;

/// Bytes of one time index entry: timestamp (i64), relative offset (i32).
pub(super) const TIME_ENTRY_BYTES: u64 = 12;

/// A batch as its segment sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Offset of the last record.
    pub offset_last: i64,
    /// Bytes, header included.
    pub length_bytes: u64,
    /// Largest record timestamp, -1 when there is none.
    pub max_timestamp_ms: i64,
}

/// The index entries that a batch earned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Entries {
    /// Last offset and start position of the batch.
    pub offset: Option<(i64, u64)>,
    /// Timestamp and offset.
    pub time: Option<(i64, i64)>,
}

/// The end of a segment that is appended to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Base offset of the segment.
    pub base_offset: i64,
    /// Offset that the next batch gets.
    pub offset_end: i64,
    /// Position that the next batch gets.
    pub position: u64,
    /// Largest timestamp of the first batch, -1 when there is none.
    pub first_timestamp_ms: i64,
    /// Largest timestamp, -1 when there is none.
    pub max_timestamp_ms: i64,
    /// Last offset of the batch that brought it.
    pub max_timestamp_offset: i64,
    /// Bytes appended since a batch earned an index entry, that batch included.
    pub bytes_since_entry: u64,
    /// Entries of the offset index.
    pub offset_entries: u64,
    /// Entries of the time index.
    pub time_entries: u64,
    /// Timestamp of the newest time index entry, -1 when there is none.
    pub time_entry_ms: i64,
    /// Wall clock when the segment was created or opened.
    pub created_ms: i64,
}

impl Head {
    /// The end of an empty segment.
    pub(super) fn empty(base_offset: i64, wall_ms: i64) -> Self {
        Self {
            base_offset,
            offset_end: base_offset,
            position: 0,
            first_timestamp_ms: -1,
            max_timestamp_ms: -1,
            max_timestamp_offset: -1,
            bytes_since_entry: 0,
            offset_entries: 0,
            time_entries: 0,
            time_entry_ms: -1,
            created_ms: wall_ms,
        }
    }

    /// Where the next batch goes.
    pub(super) fn log_position(&self) -> LogPosition {
        LogPosition {
            offset: self.offset_end,
            segment_base_offset: self.base_offset,
            position: self.position,
        }
    }

    /// Whether a batch has to go to a new segment.
    pub(super) fn roll_due(
        &self,
        config: &TopicConfig,
        jitter_ms: i64,
        wall_ms: i64,
        batch: &Extent,
    ) -> bool {
        let full = self.position.saturating_add(batch.length_bytes) > config.segment_bytes;
        let waited_ms = match self.first_timestamp_ms {
            -1 => wall_ms.saturating_sub(self.created_ms),
            first => batch.max_timestamp_ms.saturating_sub(first),
        };
        let old = waited_ms > config.segment_ms.saturating_sub(jitter_ms);
        let offsets_full = self.offset_entries >= config.segment_index_bytes / OFFSET_ENTRY_BYTES;
        // One slot of the time index is kept for the entry that closes the segment.
        let times_full = self.time_entries + 1 >= config.segment_index_bytes / TIME_ENTRY_BYTES;
        let too_far = i32::try_from(batch.offset_last - self.base_offset).is_err();
        self.position > 0 && (full || old || offsets_full || times_full) || too_far
    }

    /// Counts a batch that was appended and says which index entries it earned.
    pub(super) fn push(&mut self, batch: &Extent, index_interval_bytes: u64) -> Entries {
        assert!(batch.offset_last >= self.offset_end, "offsets only rise");
        let mut entries = Entries::default();
        if self.position == 0 {
            self.first_timestamp_ms = batch.max_timestamp_ms;
        }
        if batch.max_timestamp_ms > self.max_timestamp_ms {
            self.max_timestamp_ms = batch.max_timestamp_ms;
            self.max_timestamp_offset = batch.offset_last;
        }
        if self.bytes_since_entry > index_interval_bytes {
            entries.offset = Some((batch.offset_last, self.position));
            self.offset_entries += 1;
            entries.time = self.time_entry();
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += batch.length_bytes;
        self.position += batch.length_bytes;
        self.offset_end = batch.offset_last + 1;
        entries
    }

    /// The time index entry that is due now: none if the newest timestamp is already there.
    pub(super) fn time_entry(&mut self) -> Option<(i64, i64)> {
        if self.max_timestamp_ms <= self.time_entry_ms {
            return None;
        }
        self.time_entry_ms = self.max_timestamp_ms;
        self.time_entries += 1;
        Some((self.max_timestamp_ms, self.max_timestamp_offset))
    }

    /// Brings what the log keeps of the segment up to date.
    pub(super) fn describe(&self, segment: &mut Segment) {
        assert_eq!(segment.base_offset, self.base_offset, "a head describes its own segment");
        segment.length_bytes = self.position;
        segment.max_timestamp_ms = self.max_timestamp_ms;
        segment.max_timestamp_offset = self.max_timestamp_offset;
        segment.first_timestamp_ms = self.first_timestamp_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(offset_last: i64, length_bytes: u64, max_timestamp_ms: i64) -> Extent {
        Extent { offset_last, length_bytes, max_timestamp_ms }
    }

    #[test]
    fn an_entry_is_earned_after_more_than_the_interval() {
        let mut head = Head::empty(100, 0);
        assert_eq!(head.push(&batch(100, 4096, 7), 4096), Entries::default());
        assert_eq!(head.push(&batch(101, 1, 9), 4096), Entries::default());
        let third = head.push(&batch(105, 10, 8), 4096);
        assert_eq!(third, Entries { offset: Some((105, 4097)), time: Some((9, 101)) });
        assert_eq!(head.bytes_since_entry, 10);
        assert_eq!(head.time_entry(), None, "the newest timestamp has its entry");
    }

    #[test]
    fn a_segment_rolls_by_size_age_index_and_distance() {
        let config = TopicConfig {
            segment_bytes: 1000,
            segment_ms: 500,
            segment_index_bytes: 48,
            index_interval_bytes: 0,
            ..TopicConfig::default()
        };
        let mut head = Head::empty(0, 0);
        assert!(!head.roll_due(&config, 0, 0, &batch(0, 2000, 0)), "an empty segment takes any batch");
        head.push(&batch(0, 400, 1000), 0);
        assert!(!head.roll_due(&config, 0, 0, &batch(1, 600, 1500)));
        assert!(head.roll_due(&config, 0, 0, &batch(1, 601, 1500)), "size");
        assert!(head.roll_due(&config, 0, 0, &batch(1, 600, 1501)), "age");
        assert!(head.roll_due(&config, 1, 0, &batch(1, 600, 1500)), "age less jitter");
        for n in 1..4 {
            assert!(!head.roll_due(&config, 0, 0, &batch(n, 1, 1000 + n)));
            head.push(&batch(n, 1, 1000 + n), 0);
        }
        assert!(head.roll_due(&config, 0, 0, &batch(9, 1, 1000)), "time index full but for one slot");
        let far = Head::empty(0, 0);
        assert!(!far.roll_due(&config, 0, 0, &batch(i64::from(i32::MAX), 1, 0)));
        assert!(far.roll_due(&config, 0, 0, &batch(i64::from(i32::MAX) + 1, 1, 0)), "relative offset");
    }
}
