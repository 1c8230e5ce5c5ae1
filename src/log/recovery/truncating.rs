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
use crate::log::mark::{Mark, TRUNCATION_MARK};

/// The mark has three lines.
const MARK_LIMIT_BYTES: u64 = 4 << 10;

fn mark_file() -> FileName {
    Stem::Named(TRUNCATION_MARK).into()
}

/// The mark that was found, and what becomes of it.
#[derive(Debug)]
pub(super) struct Marked {
    mark: Mark,
    /// The recovery point that the checkpoint may hold.
    checkpointed: i64,
    /// The mark stays, because the log is not synced that far.
    stays: bool,
}

impl Recovery {
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
        // A log that was closed in the middle of this was not closed in order.
        self.plan.clean &= matches!(mark, Mark::Synced { .. });
        match mark {
            Mark::Cut { offset, synced } => self.plan.recovery_point = checkpointed.min(offset).min(synced),
            Mark::Anew { offset } => {
                self.plan.recovery_point = offset;
                self.plan.log_start_offset = offset;
            }
            Mark::Synced { offset } => self.plan.recovery_point = checkpointed.min(offset),
        }
        self.marked = Some(Marked { mark, checkpointed, stays: false });
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
        self.marked.as_ref().is_some_and(|marked| !matches!(marked.mark, Mark::Synced { .. }))
    }

    /// Deletes the segments and snapshots that lie wholly behind the offset, newest first.
    pub(super) fn truncate_files(&mut self) {
        let kept_to = match self.marked.as_ref().map(|marked| marked.mark) {
            Some(Mark::Cut { offset, .. }) => offset,
            Some(Mark::Anew { .. }) => -1,
            Some(Mark::Synced { .. }) | None => return,
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

    /// Nothing is left of a log that is being truncated: it goes on with an empty segment.
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
    /// to which the log is not synced any more, it says so instead.
    pub(super) fn finish_mark(&mut self, durable_end: i64) {
        let Some(marked) = &mut self.marked else { return };
        marked.stays = durable_end < marked.checkpointed;
        let (stays, is_done) = (marked.stays, matches!(marked.mark, Mark::Synced { .. }));
        if !stays {
            self.files.remove(&mark_file());
            self.change(FileOp::Delete { file: mark_file() });
        } else if !is_done {
            let text = Mark::Synced { offset: durable_end }.encode();
            self.replace(mark_file(), Bytes::from(text));
        }
        self.sync_directory();
    }

    /// Up to where the log has to be synced for the mark to go, if it is still there.
    pub(super) fn marked_until(&self) -> Option<i64> {
        self.marked.as_ref().filter(|marked| marked.stays).map(|marked| marked.checkpointed)
    }
}
