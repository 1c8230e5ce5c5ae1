//! The leader epochs of one log: which epoch wrote which offsets.
//!
//! Entries rise in epoch and in start offset, and there is one entry per epoch that wrote records.
//! The answers to OffsetsForLeaderEpoch and the truncation points of a follower come from here
//! (KIP-101, KIP-279). The text form is Kafka's `leader-epoch-checkpoint`.

use super::checkpoint::{CheckpointError, entry_lines, parse_field};

/// The file that holds the entries of one log.
pub const LEADER_EPOCH_CHECKPOINT: &str = "leader-epoch-checkpoint";

/// An epoch or end offset that is not known, as it stands on the wire.
pub const UNDEFINED: i32 = -1;

/// One leader epoch and the first offset that it wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEntry {
    /// The leader epoch, never negative.
    pub epoch: i32,
    /// Offset of the first record written under it, never negative.
    pub start_offset: i64,
}

/// What an [`EpochCache::assign`] changed, so that a failed append can take it back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct EpochUndo {
    assigned: EpochEntry,
    removed: Vec<EpochEntry>,
}

/// The leader epochs of one log, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochCache {
    entries: Vec<EpochEntry>,
}

impl EpochCache {
    /// Notes that `epoch` writes from `start_offset` on; older entries that contradict it go.
    /// `None` when nothing changed: the latest entry already says so.
    ///
    /// # Panics
    /// If the epoch or the offset is negative.
    pub fn assign_undoably(&mut self, epoch: i32, start_offset: i64) -> Option<EpochUndo> {
        assert!(epoch >= 0, "leader epoch {epoch} is negative");
        assert!(start_offset >= 0, "start offset {start_offset} is negative");
        if let Some(latest) = self.entries.last()
            && latest.epoch == epoch
            && latest.start_offset <= start_offset
        {
            return None;
        }
        let conflicting = |entry: &&EpochEntry| entry.epoch >= epoch || entry.start_offset >= start_offset;
        let keep = self.entries.len() - self.entries.iter().rev().take_while(conflicting).count();
        let removed = self.entries.split_off(keep);
        let assigned = EpochEntry { epoch, start_offset };
        self.entries.push(assigned);
        Some(EpochUndo { assigned, removed })
    }

    /// [`Self::assign_undoably`] for those that need no way back; whether something changed.
    pub fn assign(&mut self, epoch: i32, start_offset: i64) -> bool {
        self.assign_undoably(epoch, start_offset).is_some()
    }

    /// Takes an assignment back. Assignments are undone newest first.
    ///
    /// # Panics
    /// If the latest entry is not the assigned one.
    pub fn undo(&mut self, undo: EpochUndo) {
        let latest = self.entries.pop();
        assert!(latest == Some(undo.assigned), "undone out of order: {latest:?} is not {:?}", undo.assigned);
        self.entries.extend(undo.removed);
    }

    /// All entries, oldest first.
    pub fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    /// The newest entry.
    pub fn latest(&self) -> Option<EpochEntry> {
        self.entries.last().copied()
    }

    /// The largest epoch at or below the requested one and the offset where it ended, that is
    /// where the next epoch starts or, for the latest epoch, `log_end`. Both are -1 when the
    /// epoch is unknown because it is newer than all of ours; an epoch older than all of ours
    /// gives itself and the start of the first one.
    pub fn end_offset_for(&self, epoch: i32, log_end: i64) -> (i32, i64) {
        const UNKNOWN: (i32, i64) = (UNDEFINED, UNDEFINED as i64);
        if epoch < 0 {
            return UNKNOWN;
        }
        if self.latest().is_some_and(|latest| latest.epoch == epoch) {
            return (epoch, log_end);
        }
        let next = self.entries.partition_point(|entry| entry.epoch <= epoch);
        let Some(higher) = self.entries.get(next) else { return UNKNOWN };
        let floor = next.checked_sub(1).and_then(|at| self.entries.get(at));
        (floor.map_or(epoch, |entry| entry.epoch), higher.start_offset)
    }

    /// The epoch under which the record at `offset` was written, if the entries reach that far
    /// back.
    pub fn epoch_at(&self, offset: i64) -> Option<i32> {
        let next = self.entries.partition_point(|entry| entry.start_offset <= offset);
        self.entries.get(next.checked_sub(1)?).map(|entry| entry.epoch)
    }

    /// Forgets the epochs that start at or after `offset`, the new end of the log; whether
    /// something changed.
    pub fn truncate_from_end(&mut self, offset: i64) -> bool {
        let before = self.entries.len();
        self.entries.truncate(self.entries.partition_point(|entry| entry.start_offset < offset));
        self.entries.len() != before
    }

    /// Forgets the epochs that ended before the record in front of `offset`, the new start of the log.
    /// Of that record the epoch stays known, and where it began: a replica that has nothing behind it
    /// may have another one there, of an older epoch, that was never committed. (Kafka moves the first
    /// entry to the log start, forgets the one in front of it, and cannot tell such a replica.) Whether
    /// something changed.
    pub fn truncate_from_start(&mut self, offset: i64) -> bool {
        let before = self.entries.partition_point(|entry| entry.start_offset < offset);
        let gone = before.saturating_sub(1);
        self.entries.drain(..gone);
        gone > 0
    }

    /// The bytes of `leader-epoch-checkpoint`.
    pub fn encode(&self) -> String {
        use std::fmt::Write;
        let mut text = format!("0\n{}\n", self.entries.len());
        for EpochEntry { epoch, start_offset } in &self.entries {
            writeln!(text, "{epoch} {start_offset}").expect("a String takes every write");
        }
        text
    }

    /// Reads `leader-epoch-checkpoint`; epochs and offsets have to rise.
    pub fn parse(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let mut cache = Self::default();
        for line in entry_lines(LEADER_EPOCH_CHECKPOINT, bytes)? {
            let [epoch, start] = line.fields()?;
            let (epoch, start) = (parse_field::<i32>(&line, epoch)?, parse_field::<i64>(&line, start)?);
            if epoch < 0 || start < 0 {
                return Err(line.error("a negative epoch or offset"));
            }
            if cache.latest().is_some_and(|latest| epoch <= latest.epoch || start <= latest.start_offset) {
                return Err(line.error("an epoch or offset that does not rise"));
            }
            cache.assign(epoch, start);
        }
        Ok(cache)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(entries: &[(i32, i64)]) -> EpochCache {
        let mut cache = EpochCache::default();
        for (epoch, start) in entries {
            cache.assign(*epoch, *start);
        }
        cache
    }

    fn pairs(cache: &EpochCache) -> Vec<(i32, i64)> {
        cache.entries().iter().map(|entry| (entry.epoch, entry.start_offset)).collect()
    }

    #[test]
    fn the_same_epoch_is_assigned_once() {
        let mut cache = cache(&[(2, 10)]);
        assert!(!cache.assign(2, 10));
        assert!(!cache.assign(2, 11));
        assert_eq!(pairs(&cache), [(2, 10)]);
    }

    #[test]
    fn a_new_entry_removes_those_that_contradict_it() {
        let mut older_epoch = cache(&[(1, 0), (2, 6), (3, 8)]);
        assert!(older_epoch.assign(2, 7));
        assert_eq!(pairs(&older_epoch), [(1, 0), (2, 7)]);
        let mut same_start = cache(&[(1, 0), (2, 6)]);
        assert!(same_start.assign(4, 6));
        assert_eq!(pairs(&same_start), [(1, 0), (4, 6)]);
    }

    #[test]
    fn an_undone_assignment_leaves_no_trace() {
        let before = cache(&[(1, 0), (2, 6), (3, 8)]);
        let mut after = before.clone();
        let first = after.assign_undoably(5, 6).unwrap();
        let second = after.assign_undoably(6, 9).unwrap();
        after.undo(second);
        after.undo(first);
        assert_eq!(after, before);
    }

    #[test]
    fn the_end_of_an_epoch_is_the_start_of_the_next() {
        let cache = cache(&[(2, 5), (4, 10), (7, 20)]);
        assert_eq!(cache.end_offset_for(2, 30), (2, 10));
        assert_eq!(cache.end_offset_for(4, 30), (4, 20));
        assert_eq!(cache.end_offset_for(7, 30), (7, 30));
    }

    #[test]
    fn a_missing_epoch_answers_with_the_one_below_it() {
        let cache = cache(&[(2, 5), (4, 10), (7, 20)]);
        assert_eq!(cache.end_offset_for(6, 30), (4, 20));
        assert_eq!(cache.end_offset_for(3, 30), (2, 10));
    }

    #[test]
    fn an_epoch_older_than_all_ends_where_the_first_starts() {
        assert_eq!(cache(&[(2, 5), (4, 10)]).end_offset_for(1, 30), (1, 5));
    }

    #[test]
    fn an_epoch_newer_than_all_is_undefined() {
        assert_eq!(cache(&[(2, 5)]).end_offset_for(3, 30), (-1, -1));
        assert_eq!(cache(&[(2, 5)]).end_offset_for(-1, 30), (-1, -1));
        assert_eq!(EpochCache::default().end_offset_for(0, 30), (-1, -1));
    }

    #[test]
    fn every_offset_knows_its_epoch() {
        let cache = cache(&[(2, 5), (4, 10)]);
        let epochs: Vec<_> = [4, 5, 9, 10, 11].into_iter().map(|offset| cache.epoch_at(offset)).collect();
        assert_eq!(epochs, [None, Some(2), Some(2), Some(4), Some(4)]);
    }

    #[test]
    fn truncation_from_the_end_drops_epochs_without_records() {
        let mut cache = cache(&[(2, 5), (4, 10), (7, 20)]);
        assert!(!cache.truncate_from_end(21));
        assert!(cache.truncate_from_end(20));
        assert_eq!(pairs(&cache), [(2, 5), (4, 10)]);
        assert!(cache.truncate_from_end(0));
        assert_eq!(pairs(&cache), []);
    }

    #[test]
    fn truncation_from_the_start_keeps_the_epoch_of_the_record_in_front() {
        let mut cache = cache(&[(2, 5), (4, 10), (7, 20)]);
        assert!(!cache.truncate_from_start(4));
        assert!(!cache.truncate_from_start(10));
        assert!(cache.truncate_from_start(11));
        assert_eq!(pairs(&cache), [(4, 10), (7, 20)]);
        assert!(!cache.truncate_from_start(20));
        assert_eq!(cache.end_offset_for(3, 30), (3, 10), "another record in front of the start is told");
        assert!(cache.truncate_from_start(50));
        assert_eq!(pairs(&cache), [(7, 20)]);
    }

    #[test]
    fn the_text_form_is_kafkas() {
        let cache = cache(&[(0, 0), (3, 1_234)]);
        assert_eq!(cache.encode(), "0\n2\n0 0\n3 1234\n");
        assert_eq!(EpochCache::parse(cache.encode().as_bytes()).unwrap(), cache);
        assert_eq!(EpochCache::default().encode(), "0\n0\n");
    }

    #[test]
    fn a_malformed_line_is_named() {
        let error = EpochCache::parse(b"0\n2\n1 5\nx 7\n").unwrap_err();
        assert_eq!((error.file, error.line), (LEADER_EPOCH_CHECKPOINT, 4));
        assert!(EpochCache::parse(b"0\n1\n-1 5\n").is_err());
        assert_eq!(EpochCache::parse(b"0\n2\n1 5\n2 5\n").unwrap_err().line, 4);
    }
}
