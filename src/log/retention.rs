//! Deleting whole old segments: by age, by size, below the log start (Kafka's
//! `UnifiedLog.deleteOldSegments` and `maybeIncrementLogStartOffset`).
//!
//! [`Log::retention`] only says where the log should start. The log start moves, and the files go, with
//! [`Log::delete_records`], which is called when the new start is in the checkpoint: it never goes back then,
//! whatever renames a crash undoes. Files are renamed to `.deleted` and unlinked after
//! `file.delete.delay.ms`, so that readers that are under way finish; one file at a time, between appends. What a
//! stop leaves is found by the next start: `.deleted` files are unlinked, and segments below the log start go
//! with the first look at retention.

use std::collections::VecDeque;

use super::jobs::Purpose;
use super::{Log, Segment, State};
use crate::effect::{FileName, FileOp, Now, Stem, Suffix};

/// What is to happen to the files of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Rename,
    /// The names of everything below are to be gone for good, after the renames.
    Forget,
    Unlink,
}

/// A segment whose files are renamed or unlinked, one after another.
#[derive(Clone, Copy, Debug)]
struct Doomed {
    base_offset: i64,
    fate: Fate,
    /// Files that are done.
    files: usize,
}

/// Segments that are given up and whose files are still there.
#[derive(Debug, Default)]
pub(super) struct Deletions {
    /// Files to rename or to unlink, in this order.
    files: VecDeque<Doomed>,
    /// When a renamed segment is unlinked, on the monotonic clock, and its base offset; the next one first.
    due: VecDeque<(u64, i64)>,
    /// The active segment is being rolled so that everything below this offset can go.
    after_roll: Option<i64>,
    /// No power cut brings the names of segments below this offset back.
    pub(super) gone_below: i64,
}

impl Deletions {
    /// The roll failed: the next look at retention tries again.
    pub(super) fn forget_roll(&mut self) {
        self.after_roll = None;
    }

    pub(super) fn wake_ms(&self) -> Option<u64> {
        self.due.front().map(|(due_ms, _)| *due_ms)
    }

    /// Each waits for the delay that held when it was given up, whoever waits before it.
    fn unlink_at(&mut self, due_ms: u64, base_offset: i64) {
        let later = self.due.partition_point(|(before_ms, _)| *before_ms <= due_ms);
        self.due.insert(later, (due_ms, base_offset));
    }

    /// The next renaming or unlinking.
    fn next(&mut self) -> Option<FileOp> {
        let doomed = self.files.front_mut().filter(|doomed| doomed.fate != Fate::Forget)?;
        let all = files(doomed.base_offset);
        let file = *all.get(doomed.files).expect("a segment without files left leaves");
        let is_rename = doomed.fate == Fate::Rename;
        doomed.files += 1;
        if doomed.files == all.len() {
            self.files.pop_front();
        }
        let aside = file.with(Suffix::Deleted);
        Some(if is_rename {
            FileOp::Rename { from: file, to: aside }
        } else {
            FileOp::Delete { file: aside }
        })
    }
}

/// The files of a segment; the last two need not exist.
fn files(base_offset: i64) -> [FileName; 5] {
    [
        Stem::Log(base_offset),
        Stem::OffsetIndex(base_offset),
        Stem::TimeIndex(base_offset),
        Stem::TxnIndex(base_offset),
        Stem::ProducerSnapshot(base_offset),
    ]
    .map(FileName::from)
}

impl Log {
    /// Where the log should start for what retention keeps, if that is further on: no segment goes that
    /// reaches beyond the high watermark. If the active one is among those that go, it is rolled first, and
    /// [`LogEvent::Expired`](super::LogEvent::Expired) follows. Segments below the log start, which a
    /// recovery may have found, go at once. One that is not synced yet stays until it is.
    pub fn retention(&mut self, now: Now, high_watermark: i64) -> Option<i64> {
        if self.state != State::Open {
            return None;
        }
        self.delete_below_start(now);
        let doomed = if self.config.cleanup_policy.delete { self.expired(now, high_watermark) } else { 0 };
        if doomed == 0 {
            return None;
        }
        if let Some(kept) = self.segments.get(doomed) {
            return Some(kept.base_offset);
        }
        if self.gather.is_idle() && self.create_again_ms.is_none() {
            self.deletions.after_roll = Some(self.written.offset_end);
            self.reserve_roll(now);
            self.end_turn(now);
        }
        None
    }

    /// How many of the oldest segments are above `retention.bytes`, or then past `retention.ms`.
    fn expired(&self, now: Now, high_watermark: i64) -> usize {
        let (retention_ms, retention_bytes) = (self.config.retention_ms, self.config.retention_bytes);
        let keep_bytes = u64::try_from(retention_bytes).unwrap_or(u64::MAX);
        let mut above = self.size_bytes().saturating_sub(keep_bytes);
        let by_size = self.deletable(0, high_watermark, |segment| {
            let goes = above > 0 && segment.length_bytes <= above;
            above = above.saturating_sub(segment.length_bytes);
            goes
        });
        let is_old = |newest_ms: i64| now.wall_ms.saturating_sub(newest_ms) > retention_ms;
        let by_age = self.deletable(by_size, high_watermark, |segment| {
            // One without records was left behind by a follower whose next batch lay too far on.
            retention_ms >= 0 && (segment.length_bytes == 0 || segment.newest_ms().is_some_and(is_old))
        });
        by_size + by_age
    }

    /// How many of the oldest segments, but for the first ones, satisfy the predicate and end at or below the
    /// watermark; an empty active segment never does.
    fn deletable(&self, first: usize, high_watermark: i64, mut goes: impl FnMut(&Segment) -> bool) -> usize {
        let ends = self.segments.iter().skip(1).map(|next| next.base_offset).chain([self.written.offset_end]);
        let limit = high_watermark.min(self.syncs.sealed_from());
        let deletable =
            |(segment, end): &(&Segment, i64)| *end <= limit && segment.base_offset < *end && goes(segment);
        self.segments.iter().zip(ends).skip(first).take_while(deletable).count()
    }

    /// How many of the oldest segments lie wholly below an offset and are synced.
    fn below(&self, offset: i64) -> usize {
        let offset = offset.min(self.syncs.sealed_from());
        self.segments.iter().skip(1).take_while(|next| next.base_offset <= offset).count()
    }

    /// No record below `new_log_start` is served any more; segments wholly below it
    /// are deleted. Whether the log start moved; it never goes back and never beyond the written end. A follower
    /// calls it with its leader's log start. While the log is being truncated nothing moves.
    pub fn delete_records(&mut self, now: Now, new_log_start: i64) -> bool {
        if self.is_truncating() {
            return false;
        }
        let offset = new_log_start.min(self.written.offset_end);
        if offset <= self.log_start_offset {
            return false;
        }
        self.log_start_offset = offset;
        self.epochs_dirty |= self.epochs.truncate_from_start(offset);
        self.delete_below_start(now);
        if self.epochs_dirty {
            self.plan_epochs();
        }
        true
    }

    /// Deletes the segments below the log start.
    pub(super) fn delete_below_start(&mut self, now: Now) {
        let below = self.below(self.log_start_offset);
        if let Some(kept) = self.segments.get(below).filter(|_| below > 0 && self.state == State::Open) {
            let base_offset = kept.base_offset;
            self.delete_below(now, base_offset);
        }
    }

    /// Deletes the segments below a segment's base offset.
    fn delete_below(&mut self, now: Now, base_offset: i64) {
        let delay_ms = u64::try_from(self.config.file_delete_delay_ms).unwrap_or(0);
        while let Some(old) = self.segments.pop_front_if(|segment| segment.base_offset < base_offset) {
            assert!(old.base_offset < self.written.base_offset, "the active segment stays");
            let doomed = Doomed { base_offset: old.base_offset, fate: Fate::Rename, files: 0 };
            self.deletions.files.push_back(doomed);
            self.deletions.unlink_at(now.mono_ms.saturating_add(delay_ms), old.base_offset);
        }
        self.deletions.files.push_back(Doomed { base_offset, fate: Fate::Forget, files: 0 });
        assert!(self.durable.offset >= base_offset, "what goes is synced");
        self.log_start_offset = self.log_start_offset.max(base_offset);
        self.epochs_dirty |= self.epochs.truncate_from_start(self.log_start_offset);
        if self.epochs_dirty {
            self.plan_epochs();
        }
    }

    /// A roll is done: where the log should start if retention asked for it.
    pub(super) fn expired_by_roll(&mut self) -> Option<i64> {
        self.deletions.after_roll.take()
    }

    /// What has waited long enough is to be unlinked.
    pub(super) fn delete_due(&mut self, now: Now) {
        let deletions = &mut self.deletions;
        while let Some((_, base_offset)) = deletions.due.pop_front_if(|(due_ms, _)| *due_ms <= now.mono_ms) {
            deletions.files.push_back(Doomed { base_offset, fate: Fate::Unlink, files: 0 });
        }
    }

    /// Plans the renaming or unlinking of one file where nothing else is planned: whoever appends waits
    /// for one of them at most, however many segments are given up.
    pub(super) fn delete_next_file(&mut self) {
        if self.state == State::Open
            && self.jobs.is_idle()
            && let Some(op) = self.deletions.next()
        {
            self.jobs.plan_tolerant(Purpose::Delete, vec![op]);
        }
    }

    /// Everything below the returned offset is renamed, and its names are to be gone for good: a sync of the directory
    /// sees to that.
    pub(super) fn next_gone(&mut self) -> Option<i64> {
        let renamed = self.state == State::Open && self.jobs.is_idle() && self.full_until_ms.is_none();
        let deletions = &mut self.deletions.files;
        let next = deletions.pop_front_if(|doomed| renamed && doomed.fate == Fate::Forget)?;
        Some(next.base_offset)
    }

    /// That sync is to be tried again.
    pub(super) fn gone_later(&mut self, base_offset: i64) {
        self.deletions.files.push_front(Doomed { base_offset, fate: Fate::Forget, files: 0 });
    }
}
