//! Moving the log start, for DeleteRecords and for retention (KIP-107). The new start first goes into the
//! checkpoint ([`Effect::StoreLogStart`]); only then no record below it is served, files go and
//! clients learn it. So what anybody has seen as the log start never goes back, whatever crashes. A
//! DeleteRecords is answered when the other replicas that are alive have followed.

use super::effect::{Answer, Effect, ReplyTo};
use super::wait::fail;
use super::{Partition, State};
use crate::effect::Now;
use crate::planted::{Bug, is_planted};
use crate::wire::ErrorCode;

/// A DeleteRecords that waits for the checkpoint.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    to: ReplyTo,
    log_start_offset: i64,
    deadline_ms: u64,
}

/// Log starts on their way into the checkpoint. Bounded by the requests that the connections' shards
/// have admitted.
#[derive(Debug, Default)]
pub(super) struct Deletions {
    /// To what the checkpoint was asked to be lowered, until that has an end.
    lowers_to: Option<i64>,
    waiting: Vec<Waiting>,
    /// A log start that was stored while the replica was held.
    pub(super) stored_while_held: Option<i64>,
}

impl Deletions {
    pub(super) fn next_deadline_ms(&self) -> Option<u64> {
        self.waiting.iter().map(|waiting| waiting.deadline_ms).min()
    }

    pub(super) fn expire(&mut self, mono_ms: u64, effects: &mut Vec<Effect>) {
        self.take(|waiting| waiting.deadline_ms <= mono_ms)
            .for_each(|waiting| effects.push(fail(waiting.to, ErrorCode::RequestTimedOut)));
    }

    pub(super) fn fail_all(&mut self, error: ErrorCode, effects: &mut Vec<Effect>) {
        effects.extend(self.waiting.drain(..).map(|waiting| fail(waiting.to, error)));
    }

    fn take(&mut self, which: impl Fn(&Waiting) -> bool) -> impl Iterator<Item = Waiting> {
        self.waiting.extract_if(.., move |waiting| which(waiting))
    }
}

impl Partition {
    pub(super) fn delete_records(
        &mut self,
        now: Now,
        to: ReplyTo,
        offset: i64,
        deadline_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        let policy = self.config.cleanup_policy;
        if policy.compact && !policy.delete {
            return effects.push(fail(to, ErrorCode::PolicyViolation));
        }
        let high_watermark = self.high_watermark;
        let offset = if offset == -1 { high_watermark } else { offset };
        if !(0..=high_watermark).contains(&offset) {
            return effects.push(fail(to, ErrorCode::OffsetOutOfRange));
        }
        let log_start_offset = self.low_watermark();
        if offset <= log_start_offset {
            return effects.push(Effect::Reply(to, Answer::Deleted { log_start_offset }));
        }
        self.deletions.waiting.push(Waiting { to, log_start_offset: offset, deadline_ms });
        self.want_log_start(offset, effects);
        if is_planted(Bug::LogStartBeforeCheckpoint) {
            self.log_start_stored(now, offset, effects);
        }
    }

    pub(super) fn want_log_start(&mut self, log_start_offset: i64, effects: &mut Vec<Effect>) {
        if self.state == State::Online
            && log_start_offset > self.log.log_start_promised()
            && self.log.promise_log_start(log_start_offset)
        {
            effects.push(Effect::StoreLogStart(log_start_offset));
        }
    }

    /// The checkpoint holds this log start: it counts from now on. One that was wanted of the log before a truncation
    /// is of no meaning any more; it may lie above all that there is.
    pub fn log_start_stored(&mut self, now: Now, log_start_offset: i64, effects: &mut Vec<Effect>) {
        if self.state != State::Online || log_start_offset > self.log.log_start_promised() {
            return;
        }
        if self.log.is_held() {
            self.deletions.stored_while_held = self.deletions.stored_while_held.max(Some(log_start_offset));
            return;
        }
        self.log.delete_records(now, log_start_offset);
        self.answer_deletions(effects);
        self.settle(now, effects);
    }

    /// The checkpoint was lowered to this log start ([`Effect::LowerLogStart`]).
    pub fn log_start_lowered(&mut self, now: Now, log_start_offset: i64, effects: &mut Vec<Effect>) {
        if self.state == State::Online {
            self.log.log_start_lowered(log_start_offset);
            self.settle(now, effects);
        }
    }

    /// Asks for what the checkpoint is to hold: a lower log start after a truncation, then what was kept waiting
    /// by that.
    pub(super) fn tell_log_start(&mut self, effects: &mut Vec<Effect>) {
        let lowers_to = self.log.start_to_lower().filter(|_| self.state == State::Online);
        if self.deletions.lowers_to != lowers_to {
            self.deletions.lowers_to = lowers_to;
            effects.extend(lowers_to.map(Effect::LowerLogStart));
        }
        let waiting = self.deletions.waiting.iter().map(|waiting| waiting.log_start_offset);
        if let Some(highest) = waiting.max() {
            self.want_log_start(highest, effects);
        }
    }

    /// The first offset that this replica or another one which is alive still has: what is below is gone
    /// everywhere but where a broker is down, and goes there when that comes back.
    fn low_watermark(&self) -> i64 {
        let alive = |id: i32| self.assignment.broker_epoch(id).is_some();
        let remotes = self.lead().map(|lead| lead.remotes.as_slice()).unwrap_or_default();
        let starts = remotes.iter().filter(|remote| alive(remote.id)).map(|remote| remote.log_start_offset);
        starts.fold(self.log.log_start_offset(), i64::min)
    }

    /// The low watermark may have moved: those are answered that waited for it.
    pub(super) fn answer_deletions(&mut self, effects: &mut Vec<Effect>) {
        if self.deletions.waiting.is_empty() {
            return;
        }
        let log_start_offset = self.low_watermark();
        self.deletions.take(|waiting| waiting.log_start_offset <= log_start_offset).for_each(|waiting| {
            effects.push(Effect::Reply(waiting.to, Answer::Deleted { log_start_offset }))
        });
    }

    /// Looks whether retention gives up segments.
    pub fn apply_retention(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.state != State::Online {
            return;
        }
        if let Some(log_start_offset) = self.log.retention(now, self.high_watermark) {
            self.want_log_start(log_start_offset, effects);
        }
        self.settle(now, effects);
    }
}
