//! Truncation: a log that takes its end back, because its leader has another one (KIP-101, KIP-279), or that throws
//! everything away and begins elsewhere, because its leader has nothing that follows.
//!
//! It goes in three steps. What is on its way is let through, so that nothing is in flight. The mark
//! ([`mark`](super::mark)) is made durable: from here on the truncation is a fact, and a start finishes it. Then
//! the same machine that opens a log at a start ([`Recovery`]) deletes and cuts, from the end back, reads the last
//! segment that is left, and rebuilds producers, epochs and indexes; its last act is to take the mark away. The log
//! goes on with what it found.
//!
//! The recovery point in the checkpoint may now be above what is synced, and there may be other records below it.
//! Nobody has to lower it before the log grows: the mark stays and says what is synced, until the log is synced as
//! far as it ever was. The log start in the checkpoint may be above the log's own, too; that one has to be lowered
//! ([`log_start`](super::log_start)).

use bytes::Bytes;

use super::jobs::{Purpose, replace};
use super::mark::{Mark, mark_file};
use super::recovery::{Recovered, Recovery, RecoveryError, RecoveryPlan, RecoveryStep};
use super::search::CORRUPT;
use super::{Log, LogEvent, RETRY_MS, State};
use crate::effect::{FileError, FileOp, FileResult, Now, Stem};

/// What the log is to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// Without the batches that have a record at or behind this offset.
    Cut(i64),
    /// Empty, and beginning at this offset.
    Anew(i64),
}

impl Goal {
    /// Both, one after the other.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Cut(first), Self::Cut(second)) => Self::Cut(first.min(second)),
            (Self::Anew(start), Self::Cut(offset)) => Self::Anew(start.min(offset)),
            (_, Self::Anew(start)) => Self::Anew(start),
        }
    }
}

/// How far a truncation is.
#[derive(Debug)]
enum Phase {
    /// What is on its way is let through. A log that has no files yet gets them first.
    Draining,
    /// There is nothing to truncate: one operation that changes nothing, whose completion brings the event.
    Nothing(Goal),
    /// The mark is being written.
    Marking(Goal),
    /// The machine deletes, cuts and rebuilds.
    Recovering(Goal, Box<Recovery>),
}

/// A truncation under way.
#[derive(Debug)]
pub(super) struct Truncation {
    wanted: Goal,
    phase: Phase,
    /// The clean stop has begun and waits for the end.
    pub(super) is_closing: bool,
    /// Damage was found in what counted as synced. The leader has it whole: it is cut off, too.
    is_damaged: bool,
}

impl Log {
    /// Takes everything from `offset` on away: whole batches with a last offset at or behind it go, so the log may
    /// end before it. An offset below the log start leaves nothing: then the log begins anew there.
    ///
    /// Appends are refused until [`LogEvent::Truncated`] tells the end; until then the log's ends are the old ones
    /// and look-ups find nothing. A second call meanwhile: the lower offset wins, and there is one event. A log
    /// that is being closed or deleted, or is offline, does nothing.
    pub fn begin_truncate(&mut self, now: Now, offset: i64) {
        let below = offset < self.log_start_offset;
        self.begin_goal(now, if below { Goal::Anew(offset.max(0)) } else { Goal::Cut(offset) });
    }

    /// Throws everything away and starts empty at `offset`: producers are forgotten, epochs start empty. Otherwise as
    /// [`Self::begin_truncate`].
    pub fn begin_restart_at(&mut self, now: Now, offset: i64) {
        self.begin_goal(now, Goal::Anew(offset.max(0)));
    }

    /// Whether a truncation is under way.
    pub fn is_truncating(&self) -> bool {
        self.truncation.is_some()
    }

    fn begin_goal(&mut self, now: Now, goal: Goal) {
        if let Some(truncation) = &mut self.truncation {
            truncation.wanted = truncation.wanted.and(goal);
        } else if self.state == State::Open {
            self.state = State::Truncating;
            self.truncation = Some(Box::new(Truncation {
                wanted: goal,
                phase: Phase::Draining,
                is_closing: false,
                is_damaged: false,
            }));
            self.end_turn(now);
            self.advance_truncation();
        }
    }

    /// Whether what is on its way is being let through, and a roll that waits for names has to go first.
    pub(super) fn drains_a_roll(&self) -> bool {
        let draining = self.truncation.as_ref().is_some_and(|now| matches!(now.phase, Phase::Draining));
        (draining || self.state == State::Held) && self.roll_is_next() && !self.gather.rolling
    }

    /// Begins with the files once nothing is on its way.
    pub(super) fn advance_truncation(&mut self) {
        if self.state != State::Truncating || self.is_busy() {
            return;
        }
        let Some(truncation) = &self.truncation else { return };
        if !matches!(truncation.phase, Phase::Draining) {
            return;
        }
        let (goal, is_closing) = (truncation.wanted, truncation.is_closing);
        if self.is_reached(goal) {
            self.set_phase(Phase::Nothing(goal));
            let file = Stem::Log(self.written.base_offset).into();
            self.jobs.plan_tolerant(Purpose::Truncate, vec![FileOp::ModifiedAt { file }]);
        } else if self.create_again_ms.is_none() {
            self.plan_mark(goal);
        } else if is_closing {
            // A full device refused the files that the mark is to lie among. Nothing was promised yet.
            self.truncation = None;
            self.state = State::Closing;
            self.advance_close();
        }
    }

    fn set_phase(&mut self, phase: Phase) {
        if let Some(truncation) = &mut self.truncation {
            truncation.phase = phase;
        }
    }

    /// Whether there is nothing to do.
    fn is_reached(&self, goal: Goal) -> bool {
        matches!(goal, Goal::Cut(offset) if offset >= self.written.offset_end)
    }

    fn plan_mark(&mut self, goal: Goal) {
        let is_damaged = self.truncation.as_ref().is_some_and(|truncation| truncation.is_damaged);
        let synced = if is_damaged { 0 } else { self.durable.offset };
        let mark = match goal {
            Goal::Cut(offset) => Mark::Cut { offset, synced, start: self.start_not_on_file() },
            Goal::Anew(offset) => Mark::Anew { offset },
        };
        self.set_phase(Phase::Marking(goal));
        self.jobs.plan(Purpose::Truncate, replace(mark_file(), Bytes::from(mark.encode())).into());
    }

    /// The operation of a truncation, or the last one of its mark, has ended.
    pub(super) fn truncation_step(&mut self, now: Now, result: FileResult) -> LogEvent {
        let Some(truncation) = &mut self.truncation else {
            // The topic was deleted meanwhile.
            return match result {
                Err(error @ FileError::Io(_)) => self.device_failed(error),
                _ => LogEvent::None,
            };
        };
        match (std::mem::replace(&mut truncation.phase, Phase::Draining), result) {
            (Phase::Draining, _) => LogEvent::None,
            (Phase::Nothing(_), Err(error @ FileError::Io(_))) => self.device_failed(error),
            (Phase::Nothing(goal), _) => self.truncated(now, goal),
            (Phase::Marking(goal), Ok(_)) => {
                let wanted = truncation.wanted;
                if wanted == goal {
                    self.begin_recovery(now, goal)
                } else {
                    self.plan_mark(wanted);
                    LogEvent::None
                }
            }
            (Phase::Marking(goal), Err(FileError::NoSpace | FileError::Short { .. })) => {
                self.plan_mark(goal);
                self.truncate_later(now)
            }
            (Phase::Marking(_), Err(error)) => self.device_failed(error),
            (Phase::Recovering(goal, recovery), result) => {
                self.recovery_step(now, goal, recovery, Some(result))
            }
        }
    }

    fn begin_recovery(&mut self, now: Now, goal: Goal) -> LogEvent {
        let plan = RecoveryPlan {
            topic_id: self.topic_id,
            clean: false,
            same_boot: true,
            // The highest one that the checkpoint may hold.
            recovery_point: self
                .marked_until
                .map_or(self.durable.offset, |until| until.max(self.durable.offset)),
            log_start_offset: self.log_start_offset,
            config: std::sync::Arc::clone(&self.config),
            wall_ms: now.wall_ms,
        };
        let recovery = Recovery::new(plan).with_start_on_file(self.start_on_file());
        self.recovery_step(now, goal, Box::new(recovery), None)
    }

    fn recovery_step(
        &mut self,
        now: Now,
        goal: Goal,
        mut recovery: Box<Recovery>,
        last: Option<FileResult>,
    ) -> LogEvent {
        match recovery.step(last) {
            RecoveryStep::Op(op) => {
                self.set_phase(Phase::Recovering(goal, recovery));
                self.jobs.plan_one(Purpose::Truncate, op);
                LogEvent::None
            }
            RecoveryStep::Done(found) if found.quarantined.is_some() => {
                match &mut self.truncation {
                    Some(truncation) if !truncation.is_damaged => truncation.is_damaged = true,
                    // What is damaged is not what the mark lets be cut.
                    _ => return self.device_failed(CORRUPT),
                }
                self.plan_mark(goal);
                LogEvent::None
            }
            RecoveryStep::Done(found) => self.go_on_with(now, goal, *found),
            RecoveryStep::Failed(RecoveryError::File { error, .. }) => match error {
                FileError::NoSpace | FileError::Short { .. } => {
                    let _ = self.begin_recovery(now, goal);
                    self.truncate_later(now)
                }
                error => self.device_failed(error),
            },
            RecoveryStep::Failed(_) | RecoveryStep::Empty { .. } => self.device_failed(CORRUPT),
        }
    }

    /// A full device: what is planned is tried again later, but a stop does not wait for space. The next start
    /// finishes what the mark says.
    fn truncate_later(&mut self, now: Now) -> LogEvent {
        if self.is_closing() {
            return self.close_unclean();
        }
        self.full_until_ms = Some(now.mono_ms + RETRY_MS);
        LogEvent::None
    }

    /// The files are as they are to be: the log goes on with them.
    fn go_on_with(&mut self, now: Now, goal: Goal, found: Recovered) -> LogEvent {
        let config = std::sync::Arc::clone(&self.config);
        let fresh = Self::recovered(found, config, now, self.jitter_seed);
        self.replace_with(fresh);
        self.truncated(now, goal)
    }

    /// Becomes another log in the same directory, whose operations go on to be counted.
    fn replace_with(&mut self, mut fresh: Self) {
        std::mem::swap(&mut fresh.jobs, &mut self.jobs);
        fresh.generation = self.generation + 1;
        fresh.rewrites = self.rewrites + 1;
        fresh.deletions.gone_below = self.deletions.gone_below.min(fresh.log_start_offset);
        fresh.truncation = self.truncation.take();
        fresh.state = State::Truncating;
        // A stop that waits for the end hears of its own with an operation.
        fresh.syncs.touched = true;
        *self = fresh;
    }

    /// One goal is reached; if another was set meanwhile, it comes next.
    fn truncated(&mut self, now: Now, goal: Goal) -> LogEvent {
        let Some(mut truncation) = self.truncation.take() else { return LogEvent::None };
        if truncation.wanted != goal {
            truncation.phase = Phase::Draining;
            self.truncation = Some(truncation);
            self.advance_truncation();
            return LogEvent::None;
        }
        self.state = State::Open;
        self.delete_below_start(now);
        self.forget_mark();
        self.finish_lowering();
        if truncation.is_closing {
            self.begin_close(now);
        }
        LogEvent::Truncated { log_end: self.log_end() }
    }

    /// The log is synced as far as the checkpoint may say: the mark has nothing to add any more. Its deletion need
    /// not be durable, for it is never wrong to check more.
    pub(super) fn forget_mark(&mut self) {
        if self.state == State::Open && self.marked_until.is_some_and(|until| until <= self.durable.offset) {
            self.marked_until = None;
            if self.start_to_lower().is_none() {
                self.jobs.plan_tolerant(Purpose::Delete, vec![FileOp::Delete { file: mark_file() }]);
            }
        }
    }

    /// Whether the clean stop has begun, also where it waits for a truncation.
    pub(super) fn is_closing(&self) -> bool {
        let waits = self.truncation.as_ref().is_some_and(|truncation| truncation.is_closing);
        self.state == State::Closing || waits
    }
}
