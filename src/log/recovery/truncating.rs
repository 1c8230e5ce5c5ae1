//! A truncation, inside a recovery: the one that the log has begun, or one that a crash interrupted and whose mark
//! is found.
//!
//! Order: what lies wholly behind the offset goes, newest first; the segment with the offset is cut when it is
//! walked; producers, epochs and indexes follow from what is left; when all of that is durable the mark goes. So
//! whatever step a crash interrupts, the mark is still there and everything comes to the same end, or nothing is
//! left to be done.

use bytes::Bytes;

use super::RecoveryError;
use super::listing::segment_files;
use super::machine::{Flow, Recovery, State};
use super::whole_read::WholeRead;
use crate::effect::{FileDone, FileName, FileOp, Stem};
use crate::log::epoch::{EpochCache, LEADER_EPOCH_CHECKPOINT};
use crate::log::mark::{Mark, TRUNCATION_MARK, mark_file};

/// The mark has three lines.
const MARK_LIMIT_BYTES: u64 = 4 << 10;

/// The mark that was found, and what becomes of it.
#[derive(Debug)]
pub(super) struct Marked {
    mark: Mark,
    /// The recovery point that the checkpoint may hold.
    checkpointed: i64,
    /// The log start that the checkpoint may hold.
    start_on_file: i64,
    /// The mark stays, because the log is not synced that far.
    stays: bool,
    /// The mark stays, because the log starts below that.
    lowers: bool,
}

impl Recovery {
    /// The log start in the checkpoint may be higher than the one that counts.
    pub(in crate::log) fn with_start_on_file(mut self, start_on_file: i64) -> Self {
        self.start_on_file = start_on_file;
        self
    }

    /// Reads the mark of a truncation, if there is one.
    pub(super) fn look_for_mark(&mut self) -> Flow {
        let Some(length) = self.length_of(Stem::Named(TRUNCATION_MARK)) else { return self.tidy() };
        self.state = State::Mark(WholeRead::new(mark_file(), length.min(MARK_LIMIT_BYTES)));
        Flow::Again
    }

    pub(super) fn read_mark(
        &mut self,
        mut read: WholeRead,
        done: Option<FileDone>,
    ) -> Result<Flow, RecoveryError> {
        if let Some(FileDone::Bytes(bytes)) = done {
            read.feed(&bytes);
        }
        if let Some(op) = read.next() {
            self.state = State::Mark(read);
            return Ok(Flow::Op(op));
        }
        let mark = Mark::parse(&read.into_bytes()).map_err(RecoveryError::Malformed)?;
        let checkpointed = self.plan.recovery_point;
        let start_on_file = self.start_on_file.max(self.plan.log_start_offset);
        let (recovery_point, start) = match mark {
            Mark::Cut { offset, synced, start } => (checkpointed.min(offset).min(synced), start),
            Mark::Anew { offset } => (offset, Some(offset)),
            Mark::Synced { offset } => (checkpointed.min(offset), None),
            Mark::Begun { start, synced } => (checkpointed.min(synced), Some(start)),
        };
        self.plan.recovery_point = recovery_point;
        self.plan.log_start_offset = start.unwrap_or(self.plan.log_start_offset);
        self.marked = Some(Marked { mark, checkpointed, start_on_file, stays: false, lowers: false });
        // A log that was closed in the middle of this was not closed in order.
        self.plan.clean &= !self.is_truncating();
        Ok(self.tidy())
    }

    /// No batch with a record at or behind it stays.
    pub(super) fn ceiling(&self) -> i64 {
        match self.marked.as_ref().map(|marked| marked.mark) {
            Some(Mark::Cut { offset, .. }) => offset,
            _ => i64::MAX,
        }
    }

    /// Whether the mark is that of a truncation under way.
    pub(super) fn is_truncating(&self) -> bool {
        let is_under_way = |mark| matches!(mark, Mark::Cut { .. } | Mark::Anew { .. });
        self.marked.as_ref().is_some_and(|marked| is_under_way(marked.mark))
    }

    /// Deletes the segments and snapshots that lie wholly behind the offset, newest first.
    pub(super) fn truncate_files(&mut self) {
        let kept_to = match self.marked.as_ref().map(|marked| marked.mark) {
            Some(Mark::Cut { offset, .. }) => offset,
            Some(Mark::Anew { .. }) => -1,
            Some(Mark::Synced { .. } | Mark::Begun { .. }) | None => return,
        };
        let kept = self.bases.partition_point(|base| *base <= kept_to);
        for base in self.bases.split_off(kept).into_iter().rev() {
            self.delete_segment(base);
        }
        let snapshots: Vec<i64> = self.snapshots().filter(|offset| *offset > kept_to).collect();
        for offset in snapshots.into_iter().rev() {
            let file = FileName::from(Stem::ProducerSnapshot(offset));
            self.files.remove(&file);
            self.change(FileOp::Delete { file });
        }
        self.sync_directory();
    }

    /// Nothing is left of a log with a mark: it goes on with an empty segment.
    pub(super) fn begin_anew(&mut self, base_offset: i64) -> Flow {
        for file in segment_files(base_offset).into_iter().take(3) {
            self.files.insert(file, 0);
            self.change(FileOp::Create { file, preallocate_bytes: 0 });
        }
        let epochs = Bytes::from(EpochCache::default().encode());
        self.epochs_on_disk = Some(epochs.to_vec());
        self.replace(Stem::Named(LEADER_EPOCH_CHECKPOINT).into(), epochs);
        self.sync_directory();
        self.plan.recovery_point = base_offset;
        self.bases = vec![base_offset];
        self.begin_segments();
        Flow::Again
    }

    /// Everything is as it is to be, and durable: the mark goes. Where the checkpoint may hold a recovery point up
    /// to which the log is not synced any more, or a log start above its own, it says so instead.
    pub(super) fn finish_mark(&mut self, durable_end: i64, start: i64) {
        let Some(marked) = &mut self.marked else { return };
        marked.stays = durable_end < marked.checkpointed;
        marked.lowers = start < marked.start_on_file;
        let left = match (marked.lowers, marked.stays, marked.mark) {
            (false, false, _) => None,
            // What it says is true, if less than could be said.
            (true, _, mark @ Mark::Begun { .. }) | (false, true, mark @ Mark::Synced { .. }) => Some(mark),
            (true, ..) => Some(Mark::Begun { start, synced: durable_end }),
            (false, true, _) => Some(Mark::Synced { offset: durable_end }),
        };
        let is_there = Some(marked.mark) == left;
        match left {
            None => {
                self.files.remove(&mark_file());
                self.change(FileOp::Delete { file: mark_file() });
            }
            Some(_) if is_there => {}
            Some(mark) => self.replace(mark_file(), Bytes::from(mark.encode())),
        }
        self.sync_directory();
    }

    /// Up to where the log has to be synced for the mark to go, if it is still there.
    pub(super) fn marked_until(&self) -> Option<i64> {
        self.marked.as_ref().filter(|marked| marked.stays).map(|marked| marked.checkpointed)
    }

    /// The log start in the checkpoint, where it is above the log's own.
    pub(super) fn start_to_lower(&self) -> Option<i64> {
        self.marked.as_ref().filter(|marked| marked.lowers).map(|marked| marked.start_on_file)
    }
}
