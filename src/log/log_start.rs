//! The log start in the checkpoint, as far as it is not the log's own.
//!
//! A log start is promised to the checkpoint before it counts here, so the checkpoint may be ahead. After a truncation
//! that may be wrong: what the log begins with, or its end, lies below. A start that believed the checkpoint then would
//! throw the log away. So the mark of the truncation says where the log starts and that the checkpoint is not to be
//! believed; the checkpoint is lowered; then the mark goes. Until it is gone for good no other log start goes into the
//! checkpoint, for it would not count.

use bytes::Bytes;

use super::jobs::{Purpose, replace};
use super::mark::{Mark, mark_file};
use super::{Log, LogEvent, RETRY_MS, State};
use crate::effect::{FileOp, Now};

/// Who is to be believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Believed {
    /// The checkpoint: no log start in it is above the log's own and what was promised.
    #[default]
    Checkpoint,
    /// The mark: the checkpoint is to be lowered.
    Mark,
    /// The mark, which goes: the checkpoint is lowered.
    Either,
}

/// What is known of the log start in the checkpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OnFile {
    /// It is not above this, or not above the log's own.
    at_most: i64,
    believed: Believed,
}

impl OnFile {
    /// What a recovery found: one that is to be lowered.
    pub(super) fn found(start_on_file: Option<i64>) -> Self {
        match start_on_file {
            Some(at_most) => Self { at_most, believed: Believed::Mark },
            None => Self::default(),
        }
    }
}

impl Log {
    /// The log start that the checkpoint holds or is going to.
    pub fn log_start_promised(&self) -> i64 {
        match self.on_file.believed {
            Believed::Checkpoint => self.on_file.at_most.max(self.log_start_offset),
            Believed::Mark | Believed::Either => self.log_start_offset,
        }
    }

    /// A higher log start is on its way into the checkpoint; [`Log::delete_records`] makes it count when it is there.
    /// False while that may not be: the log is being truncated, or the checkpoint has to be lowered first.
    pub fn promise_log_start(&mut self, log_start_offset: i64) -> bool {
        let may_rise = self.on_file.believed == Believed::Checkpoint && !self.is_truncating();
        if may_rise {
            self.on_file.at_most = self.on_file.at_most.max(log_start_offset);
        }
        may_rise
    }

    /// The log start to which the checkpoint is to be lowered, until [`Self::log_start_lowered`].
    pub fn start_to_lower(&self) -> Option<i64> {
        let wanted = self.on_file.believed == Believed::Mark && self.state == State::Open;
        wanted.then_some(self.log_start_offset)
    }

    /// The checkpoint was lowered to this log start.
    pub fn log_start_lowered(&mut self, log_start_offset: i64) {
        if self.start_to_lower() == Some(log_start_offset) {
            self.on_file.believed = Believed::Either;
            self.plan_lowered_mark();
        }
    }

    /// The mark has to be gone for good before another log start goes into the checkpoint.
    fn plan_lowered_mark(&mut self) {
        let ops = match self.marked_until {
            Some(_) => {
                let mark = Mark::Synced { offset: self.durable.offset };
                replace(mark_file(), Bytes::from(mark.encode())).into()
            }
            None => vec![FileOp::Delete { file: mark_file() }, FileOp::SyncDir],
        };
        self.jobs.plan_tolerant(Purpose::Lowered, ops);
    }

    /// After a truncation that had nothing to do, before which the mark was to go and could not.
    pub(super) fn finish_lowering(&mut self) {
        if self.on_file.believed == Believed::Either {
            self.plan_lowered_mark();
        }
    }

    /// A full device: the mark goes later. The next start goes by it.
    pub(super) fn lowered_later(&mut self, now: Now) -> LogEvent {
        if self.state == State::Open {
            self.plan_lowered_mark();
            self.full_until_ms = Some(now.mono_ms + RETRY_MS);
        }
        LogEvent::None
    }

    /// Whether the checkpoint is to be lowered, or its mark is to go.
    pub(super) fn is_lowering(&self) -> bool {
        self.on_file.believed != Believed::Checkpoint
    }

    /// The highest log start that the checkpoint may hold.
    pub(super) fn start_on_file(&self) -> i64 {
        self.on_file.at_most.max(self.log_start_offset)
    }

    /// The log's own start, where the checkpoint may hold a higher one.
    pub(super) fn start_not_on_file(&self) -> Option<i64> {
        (self.on_file.at_most > self.log_start_offset).then_some(self.log_start_offset)
    }
}
