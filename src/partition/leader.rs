//! The leader's part of a replica: taking batches, moving the high watermark, keeping promises.

use super::Partition;
use super::effect::{Acks, Answer, Effect, ReplyTo};
use super::wait::{Parked, fail};
use crate::effect::Now;
use crate::log::Appended;
use crate::log::check::CheckedBatch;
use crate::planted::{Bug, is_planted};
use crate::wire::ErrorCode;

impl Partition {
    /// Gathers a batch for the end of the turn, or recognises a duplicate. Either way the answer
    /// waits for the same promise: a duplicate of a batch that is not yet safe is not yet safe.
    pub(super) fn append(
        &mut self,
        now: Now,
        to: ReplyTo,
        batch: &CheckedBatch,
        acks: Acks,
        deadline_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        if acks == Acks::All && self.in_sync_count() < self.min_insync_replicas() {
            return effects.push(fail(to, ErrorCode::NotEnoughReplicas));
        }
        let appended = match self.log.append(now, batch, self.assignment.leader_epoch) {
            Ok(appended) => appended,
            Err(error) => return effects.push(fail(to, error)),
        };
        let (Appended::New { base_offset, offset_end, log_append_time_ms }
        | Appended::Duplicate { base_offset, offset_end, log_append_time_ms }) = appended;
        let (waiting, tail) = match acks {
            Acks::Leader => (&mut self.written, self.log.log_end()),
            Acks::All => (&mut self.committed, self.high_watermark.offset),
        };
        if offset_end <= tail || is_planted(Bug::ReplyBeforeWrite) {
            let log_start_offset = self.log.log_start_offset();
            let answer = Answer::Appended { base_offset, log_append_time_ms, log_start_offset };
            return effects.push(Effect::Reply(to, answer));
        }
        waiting.park(Parked { to, base_offset, offset_end, log_append_time_ms, deadline_ms });
    }

    fn in_sync_count(&self) -> usize {
        self.assignment.isr.len()
    }

    fn min_insync_replicas(&self) -> usize {
        let configured = usize::try_from(self.config.min_insync_replicas).unwrap_or(1);
        configured.min(self.assignment.replicas.len())
    }

    /// The log end has moved, or the ISR has changed: moves the high watermark to what every
    /// in-sync replica holds and tells everyone who waited for it. The watermark stands still
    /// while fewer than `min.insync.replicas` are in sync (KIP-966).
    pub(super) fn advance(&mut self, effects: &mut Vec<Effect>) {
        let log_start_offset = self.log.log_start_offset();
        self.written.release(self.log.log_end(), log_start_offset, effects);
        if !self.is_leader() || self.in_sync_count() < self.min_insync_replicas() {
            return;
        }
        let in_sync_end = self.in_sync_end();
        if in_sync_end.offset > self.high_watermark.offset {
            self.high_watermark = in_sync_end;
        }
        self.committed.release(self.high_watermark.offset, log_start_offset, effects);
        if !self.watches.is_empty() {
            let last_stable_offset = self.last_stable_offset();
            self.watches.fire(self.high_watermark.offset, last_stable_offset, effects);
        }
    }

    /// The lowest log end among the in-sync replicas. Followers report theirs when they fetch;
    /// until a cluster has followers the ISR is the leader and its own log end decides.
    fn in_sync_end(&self) -> crate::log::LogPosition {
        match self.assignment.isr.as_slice() {
            [only] if *only == self.node_id && is_planted(Bug::ReservedHighWatermark) => {
                crate::log::LogPosition { offset: self.log.reserved_end(), ..self.log.log_end_position() }
            }
            [only] if *only == self.node_id => self.log.log_end_position(),
            _ => self.high_watermark,
        }
    }
}
