//! Appending: offsets are given out at once, the bytes of a turn are written as one vectored write.
//!
//! What was given out and could not be written is taken back, newest first: offsets, producers and
//! epochs are then as they were at the written end.

use std::collections::VecDeque;

use bytes::Bytes;

use super::batch::{HEADER_BYTES, stamped_header};
use super::check::CheckedBatch;
use super::codec::Codec;
use super::epoch::EpochUndo;
use super::head::Extent;
use super::jobs::Purpose;
use super::producer::{Numbered, Sequenced, Undo};
use super::roll::RollPlan;
use super::{Log, LogEvent, State};
use crate::config::TimestampType;
use crate::effect::{FileError, FileOp, Now, Stem};
use crate::planted::{Bug, is_planted};
use crate::wire::ErrorCode;

/// Batches of one append: two buffers each, and a vectored write takes 1,024.
const APPEND_BATCHES_MAX: usize = 512;

/// What an append gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The batch got these offsets.
    New {
        /// Offset of its first record.
        base_offset: i64,
        /// Offset after its last record.
        offset_end: i64,
        /// The timestamp that the log gave its records, -1 under CreateTime.
        log_append_time_ms: i64,
    },
    /// The producer sent the batch before; it may still be on its way to the promise.
    Duplicate {
        /// Offset that its first record got then.
        base_offset: i64,
        /// Offset after its last record.
        offset_end: i64,
        /// As above, -1 where that is not known any more.
        log_append_time_ms: i64,
    },
    /// The same, so long ago that nobody knows its offsets any more.
    Old {
        /// No record of it has this offset or a higher one.
        offset_end: i64,
    },
}

/// A batch that has its offsets and is not in the file yet.
#[derive(Debug)]
pub(super) struct Gathered {
    pub header: [u8; HEADER_BYTES],
    /// The bytes behind the header, as they were received.
    pub body: Bytes,
    pub base_offset: i64,
    pub extent: Extent,
    pub producer: Undo,
    pub epoch: Option<EpochUndo>,
}

/// The batches on their way to the file. Its buffers are reused.
#[derive(Debug, Default)]
pub(super) struct Gather {
    /// Waiting for the next append, oldest first.
    pub(super) gathered: VecDeque<Gathered>,
    /// In the append that is planned or in flight.
    flight: VecDeque<Gathered>,
    /// Rolls between the gathered batches, oldest first.
    pub(super) rolls: VecDeque<RollPlan>,
    /// A roll is planned or in flight.
    pub(super) rolling: bool,
}

impl Gather {
    /// Gives memory back.
    pub(super) fn shrink(&mut self) {
        self.gathered.shrink_to_fit();
        self.flight.shrink_to_fit();
        self.rolls.shrink_to_fit();
    }

    /// Whether nothing waits and nothing is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.gathered.is_empty() && self.flight.is_empty() && self.rolls.is_empty() && !self.rolling
    }
}

impl Log {
    /// Gives the batch its offsets and gathers it for the next append of the log. Nothing is
    /// promised before the log end has passed the returned `offset_end`.
    ///
    /// # Errors
    /// Those of the producer check; `RecordListTooLarge` when the batch does not fit a segment;
    /// `KafkaStorageError` when the log is being truncated, closing or offline, or has no files yet.
    pub fn append(
        &mut self,
        now: Now,
        batch: &CheckedBatch,
        leader_epoch: i32,
    ) -> Result<Appended, ErrorCode> {
        if self.state != State::Open || self.create_again_ms.is_some() {
            return Err(ErrorCode::KafkaStorageError);
        }
        let stamps = self.config.timestamp_type == TimestampType::LogAppendTime;
        match self.producers.check(&batch.info)? {
            Sequenced::New => {}
            Sequenced::Old { offset_end } => return Ok(Appended::Old { offset_end }),
            Sequenced::Duplicate { base_offset, last_offset, timestamp_ms } => {
                let log_append_time_ms = if stamps { timestamp_ms } else { -1 };
                return Ok(Appended::Duplicate {
                    base_offset,
                    offset_end: last_offset + 1,
                    log_append_time_ms,
                });
            }
        }
        if batch.bytes.len() as u64 > self.config.segment_bytes {
            return Err(ErrorCode::RecordListTooLarge);
        }
        let append_time_ms = stamps.then_some(now.wall_ms);
        let base_offset = self.reserved.offset_end;
        let offset_last = base_offset
            .checked_add(i64::from(batch.info.last_offset_delta))
            .filter(|last| *last < i64::MAX)
            .ok_or(ErrorCode::InvalidRecord)?;
        let extent = Extent {
            offset_last,
            length_bytes: batch.bytes.len() as u64,
            max_timestamp_ms: append_time_ms.unwrap_or(batch.info.max_timestamp_ms),
        };
        self.roll_if_due(now, &extent);
        let epoch = self.epochs.assign_undoably(leader_epoch, base_offset);
        self.epochs_dirty |= epoch.is_some();
        let timestamp_ms = extent.max_timestamp_ms;
        let producer = self.producers.update(&batch.info, base_offset, timestamp_ms, now.wall_ms);
        self.reserved.push(&extent, self.config.index_interval_bytes);
        if batch.info.codec() == Ok(Codec::Zstd) {
            self.zstd_end = self.reserved.offset_end;
        }
        self.gather.gathered.push_back(Gathered {
            header: stamped_header(&batch.bytes, base_offset, leader_epoch, append_time_ms),
            body: batch.bytes.slice(HEADER_BYTES..),
            base_offset,
            extent,
            producer,
            epoch,
        });
        let log_append_time_ms = append_time_ms.unwrap_or(-1);
        Ok(Appended::New { base_offset, offset_end: offset_last + 1, log_append_time_ms })
    }

    /// After [`LogEvent::Dropped`]: the batches that were taken back ([`ProducerStates::take_back`]).
    ///
    /// [`ProducerStates::take_back`]: super::producer::ProducerStates::take_back
    pub fn take_back(&mut self) -> Vec<Numbered> {
        self.producers.take_back()
    }

    /// Ends a turn in which something was appended or completed: what was gathered becomes one
    /// append, after a roll where one is due. While an append is in flight, later batches gather on.
    pub fn end_turn(&mut self, now: Now) {
        let gather = &self.gather;
        if matches!(self.state, State::Closed | State::Offline) || !gather.flight.is_empty() || gather.rolling
        {
            return;
        }
        if gather.gathered.is_empty() && gather.rolls.is_empty() {
            return;
        }
        if self.epochs_dirty {
            // Before the batches: a recovery point behind them must not hide a missing epoch.
            self.plan_epochs();
        }
        if self.roll_is_next() {
            if !self.roll_waits() {
                self.plan_roll(now);
            }
            return;
        }
        let until = self.gather.rolls.front().map_or(i64::MAX, |roll| roll.base_offset);
        let gather = &mut self.gather;
        if until == i64::MAX && gather.gathered.len() <= APPEND_BATCHES_MAX {
            std::mem::swap(&mut gather.gathered, &mut gather.flight);
        } else {
            while gather.flight.len() < APPEND_BATCHES_MAX
                && let Some(batch) = gather.gathered.pop_front_if(|batch| batch.base_offset < until)
            {
                gather.flight.push_back(batch);
            }
        }
        let length = gather.flight.iter().map(|batch| batch.extent.length_bytes).sum();
        let (base_offset, position) = (self.written.base_offset, self.written.position);
        self.jobs.plan_one(Purpose::Append, FileOp::Append { base_offset, position, length });
    }

    /// Whether batches or a roll wait for [`Self::end_turn`].
    pub fn has_gathered(&self) -> bool {
        !self.gather.gathered.is_empty() || !self.gather.rolls.is_empty()
    }

    /// Whether [`Self::end_turn`] would do something now.
    pub fn wants_end_turn(&self) -> bool {
        let stopped = matches!(self.state, State::Closed | State::Offline | State::LastJob);
        let waits = self.roll_is_next() && self.roll_waits();
        self.has_gathered() && self.gather.flight.is_empty() && !self.gather.rolling && !stopped && !waits
    }

    /// The names of the last roll are not synced. Of a log that is to be deleted they never will be.
    fn roll_waits(&self) -> bool {
        self.syncs.loose_names && self.state != State::Retiring
    }

    pub(super) fn roll_is_next(&self) -> bool {
        self.gather.rolls.front().is_some_and(|roll| roll.follows == self.written.offset_end)
    }

    /// The bytes of the append that is planned or in flight, batch by batch: header, then the rest.
    pub fn append_parts(&self) -> impl Iterator<Item = (&[u8; HEADER_BYTES], &[u8])> {
        self.gather.flight.iter().map(|batch| (&batch.header, &batch.body[..]))
    }

    pub(super) fn plan_epochs(&mut self) {
        self.epochs_dirty = false;
        let ops = self.epochs_ops();
        self.jobs.plan(Purpose::Epochs, ops.into());
    }

    pub(super) fn append_done(&mut self, now: Now) -> LogEvent {
        assert!(!self.gather.flight.is_empty(), "an append that completes was in flight");
        let unsynced_before = self.written.position;
        for batch in self.gather.flight.drain(..) {
            assert!(batch.base_offset >= self.written.offset_end, "offsets only rise");
            self.tail.push(batch.extent.offset_last, self.written.position, self.written.base_offset);
            let entries = self.written.push(&batch.extent, self.config.index_interval_bytes);
            self.pending_index.push(entries, now.mono_ms);
        }
        let written = self.written;
        let active = self.active_mut();
        written.describe(active);
        active.modified_ms = now.wall_ms;
        if self.reserved.offset_end == self.written.offset_end && self.gather.rolls.is_empty() {
            // A changed index interval may have counted otherwise.
            self.reserved = self.written;
        }
        self.appended_ms = now.mono_ms;
        self.ahead.is_wanted = true;
        self.note_unsynced(now, self.written.position - unsynced_before);
        self.flush_index_if_due(now);
        LogEvent::Appended
    }

    /// The file may hold bytes behind the written end: it is cut back before anything is appended.
    pub(super) fn append_failed(&mut self, error: FileError) -> LogEvent {
        let event = self.drop_reserved(error);
        self.ahead.given_back();
        let file = Stem::Log(self.written.base_offset).into();
        self.jobs.plan_one(Purpose::CutBack, FileOp::Truncate { file, length: self.written.position });
        event
    }

    /// Takes back everything behind the written end, newest first.
    pub(super) fn drop_reserved(&mut self, error: FileError) -> LogEvent {
        let gather = &mut self.gather;
        let newest_first = gather.gathered.drain(..).rev().chain(gather.flight.drain(..).rev());
        let kept = is_planted(Bug::StateAfterFailedAppend);
        for batch in newest_first.filter(|_| !kept) {
            self.producers.undo(batch.producer);
            if let Some(epoch) = batch.epoch {
                self.epochs.undo(epoch);
                self.epochs_dirty = true;
            }
        }
        gather.rolls.clear();
        gather.rolling = false;
        self.reserved = self.written;
        self.generation += 1;
        LogEvent::Dropped { from_offset: self.written.offset_end, error }
    }

    pub(super) fn check_gather(&self) {
        let batches = self.gather.flight.iter().chain(&self.gather.gathered);
        let end = batches.fold(self.written.offset_end, |end, batch| {
            assert!(batch.base_offset >= end, "reserved offsets rise");
            batch.extent.offset_last + 1
        });
        // A roll may leave a gap, too.
        let end = self.gather.rolls.back().map_or(end, |roll| end.max(roll.base_offset));
        assert_eq!(end, self.reserved.offset_end, "every reserved offset belongs to a batch on its way");
    }
}
