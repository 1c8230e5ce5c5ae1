//! Rolling: closing the active segment and going on in a new one (Kafka's `LogSegment.shouldRoll`
//! and `UnifiedLog.roll`).
//!
//! Whether a batch rolls is decided when it gets its offsets, so the producer snapshot of the new
//! segment shows the producers exactly as of its base offset. The files follow when everything
//! before is written. The old segment, and the names of the new one's files, are synced beside, later.

use bytes::Bytes;

use super::flush::Sealed;
use super::head::{Entries, Extent, Head, OFFSET_ENTRY_BYTES, TIME_ENTRY_BYTES};
use super::jobs::Purpose;
use super::{Log, LogEvent, Segment};
use crate::effect::{FileError, FileOp, Now, Stem};

/// A roll that waits until everything before it is written.
#[derive(Debug)]
pub(super) struct RollPlan {
    /// End of the batches before it. It is the base offset, but where a follower's batch lies too far behind it.
    pub follows: i64,
    /// Base offset of the new segment.
    pub base_offset: i64,
    /// `%020d.snapshot` at that offset.
    pub snapshot: Bytes,
    /// The new segment's file is created with so many bytes reserved.
    pub preallocated_bytes: u64,
}

impl Log {
    pub(super) fn roll_if_due(&mut self, now: Now, batch: &Extent) {
        let jitter_ms = self.roll_jitter_ms(self.reserved.base_offset);
        if self.reserved.roll_due(&self.config, jitter_ms, now.wall_ms, batch) {
            self.reserve_roll(now);
        }
    }

    /// The same before a batch that may lie behind a gap. A new segment begins where the one before ends, so that a
    /// missing end of a segment can be told from a gap; where its offsets do not reach so far, with the batch.
    pub(super) fn roll_before(&mut self, now: Now, batch_base_offset: i64, batch: &Extent) {
        let jitter_ms = self.roll_jitter_ms(self.reserved.base_offset);
        if self.reserved.roll_due(&self.config, jitter_ms, now.wall_ms, batch) {
            let follows = self.reserved.offset_end;
            let reaches = i32::try_from(batch.offset_last - follows).is_ok();
            self.reserve_roll_at(now, if reaches { follows } else { batch_base_offset });
        }
    }

    /// Later batches go to a new segment.
    pub(super) fn reserve_roll(&mut self, now: Now) {
        self.reserve_roll_at(now, self.reserved.offset_end);
    }

    fn reserve_roll_at(&mut self, now: Now, base_offset: i64) {
        assert!(base_offset > self.reserved.base_offset, "an empty segment does not roll");
        let follows = self.reserved.offset_end;
        let snapshot = self.producers.snapshot();
        self.gather.rolls.push_back(RollPlan { follows, base_offset, snapshot, preallocated_bytes: 0 });
        self.reserved = Head::empty(base_offset, now.wall_ms);
    }

    /// How much earlier than `segment.ms` the segment rolls: the same for one segment, different
    /// between segments and logs.
    fn roll_jitter_ms(&self, base_offset: i64) -> i64 {
        let most = self.config.segment_jitter_ms.min(self.config.segment_ms);
        if most <= 0 {
            return 0;
        }
        // The finalizer of SplitMix64.
        let mut bits =
            self.jitter_seed.wrapping_add(base_offset.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15));
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) % most.cast_unsigned()).cast_signed()
    }

    /// Everything before the roll is written: its operations are planned.
    pub(super) fn plan_roll(&mut self, now: Now) {
        let plan = self.gather.rolls.front().expect("the caller saw a roll");
        let (base_offset, snapshot) = (plan.base_offset, plan.snapshot.clone());
        assert_eq!(plan.follows, self.written.offset_end, "a roll waits for the batches before it");
        self.gather.rolling = true;
        let mut ops = self.last_index_ops(now);
        let file = Stem::ProducerSnapshot(base_offset).into();
        ops.push(FileOp::Create { file, preallocate_bytes: 0 });
        ops.push(FileOp::Write { file, position: 0, bytes: snapshot });
        let preallocated_bytes = self.preallocate_bytes();
        ops.extend(self.segment_files(base_offset));
        if let Some(plan) = self.gather.rolls.front_mut() {
            plan.preallocated_bytes = preallocated_bytes;
        }
        self.jobs.plan(Purpose::Roll, ops);
    }

    /// Gives the segment its last time index entry and writes all waiting entries.
    pub(super) fn last_index_ops(&mut self, now: Now) -> Vec<FileOp> {
        let time = self.written.time_entry();
        self.pending_index.push(Entries { offset: None, time }, now.mono_ms);
        self.index_ops()
    }

    pub(super) fn roll_done(&mut self, now: Now) -> LogEvent {
        let plan = self.gather.rolls.pop_front().expect("a roll that completes was planned");
        self.gather.rolling = false;
        let old = self.written;
        let active = self.active_mut();
        active.index_bytes = old.offset_entries * OFFSET_ENTRY_BYTES;
        active.time_index_bytes = old.time_entries * TIME_ENTRY_BYTES;
        self.pending_index.restart();
        let cut_to_bytes = self.ahead.surplus.then_some(old.position);
        self.seal(Sealed::rolled(old.base_offset, plan.base_offset, cut_to_bytes));
        self.ahead.restart(plan.preallocated_bytes);
        self.segments.push_back(Segment::empty(plan.base_offset));
        self.written = Head::empty(plan.base_offset, now.wall_ms);
        self.tail.restart();
        self.expired_by_roll().map_or(LogEvent::None, LogEvent::Expired)
    }

    /// The old segment goes on; what the roll may have left is deleted, because a segment file in
    /// the middle of another one's offsets would confuse recovery.
    pub(super) fn roll_failed(&mut self, now: Now, error: FileError) -> LogEvent {
        let base_offset = self.gather.rolls.front().map_or(self.written.offset_end, |roll| roll.base_offset);
        let event = self.drop_reserved(error);
        self.pending_index.flush_failed(now.mono_ms);
        self.deletions.forget_roll();
        let stems = [
            Stem::Log(base_offset),
            Stem::OffsetIndex(base_offset),
            Stem::TimeIndex(base_offset),
            Stem::ProducerSnapshot(base_offset),
        ];
        let ops = stems.map(|stem| FileOp::Delete { file: stem.into() });
        self.jobs.plan_tolerant(Purpose::Delete, ops.into());
        event
    }
}
