//! The leader's part of a replica: taking batches, moving the high watermark, keeping promises.

use super::effect::{Acks, Answer, Effect, ReplyTo};
use super::isr::{IsrRules, Lead, Remote};
use super::wait::{Parked, fail};
use super::{Partition, Role, State};
use crate::controller::LeaderRecovery;
use crate::effect::Now;
use crate::log::batch::BatchInfo;
use crate::log::check::CheckedBatch;
use crate::log::{Appended, LogPosition};
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
            self.sent_away(now, &batch.info);
            return effects.push(fail(to, ErrorCode::NotEnoughReplicas));
        }
        let appended =
            match self.admit(now, &batch.info, acks).and_then(|()| self.append_to_log(now, batch, acks)) {
                Ok(appended) => appended,
                Err(error) => return effects.push(fail(to, error)),
            };
        let (base_offset, offset_end, log_append_time_ms) = match appended {
            Appended::New { base_offset, offset_end, log_append_time_ms }
            | Appended::Duplicate { base_offset, offset_end, log_append_time_ms } => {
                (base_offset, offset_end, log_append_time_ms)
            }
            Appended::Old { offset_end } => (-1, offset_end, -1),
        };
        let (waiting, tail) = match acks {
            Acks::Leader => (&mut self.written, self.log.log_end()),
            Acks::All => (&mut self.committed, self.high_watermark),
        };
        if offset_end <= tail || is_planted(Bug::ReplyBeforeWrite) {
            let log_start_offset = self.log.log_start_offset();
            let answer = Answer::Appended { base_offset, log_append_time_ms, log_start_offset };
            return effects.push(Effect::Reply(to, answer));
        }
        waiting.park(Parked { to, base_offset, offset_end, log_append_time_ms, deadline_ms });
    }

    fn append_to_log(&mut self, now: Now, batch: &CheckedBatch, acks: Acks) -> Result<Appended, ErrorCode> {
        let appended = self.log.append(now, batch, self.assignment.leader_epoch);
        match appended {
            Err(ErrorCode::KafkaStorageError) => self.sent_away(now, &batch.info),
            Err(ErrorCode::OutOfOrderSequenceNumber) => {
                let lead = self.lead().filter(|lead| acks == Acks::All && lead.took_over(now.mono_ms));
                let missing =
                    lead.and_then(|lead| self.log.producers().next_of(&batch.info, lead.epoch_start));
                return Err(self.awaited.out_of_order(now.mono_ms, (&batch.info).into(), missing));
            }
            Ok(_) if self.awaited.is_empty() => {}
            Ok(_) => self.awaited.came((&batch.info).into()),
            Err(_) => {}
        }
        appended
    }

    /// A batch was sent away with an error after which its producer sends it again: those behind it are to wait for
    /// that.
    pub fn sent_away(&mut self, now: Now, batch: &BatchInfo) {
        if batch.has_producer() {
            self.awaited.sent_away(now.mono_ms, batch.into());
        }
    }

    /// Whether a batch may be taken as far as the log does not know its producer. Who does not wait for the replicas
    /// does not send again either, and is not asked to.
    fn admit(&mut self, now: Now, batch: &BatchInfo, acks: Acks) -> Result<(), ErrorCode> {
        let doubts = acks == Acks::All && self.lead().is_some_and(|lead| lead.is_new(now.mono_ms));
        let is_plain = self.awaited.is_empty() && !(doubts && batch.base_sequence != 0);
        if is_plain || !batch.has_producer() || self.log.producers().knows(batch.producer_id) {
            return Ok(());
        }
        self.awaited.admit(now.mono_ms, batch.into(), doubts)
    }

    fn in_sync_count(&self) -> usize {
        self.assignment.isr.len()
    }

    fn min_insync_replicas(&self) -> usize {
        let configured = usize::try_from(self.config.min_insync_replicas).unwrap_or(1);
        configured.min(self.assignment.replicas.len())
    }

    /// Leads, as soon as nothing of what it followed before is on its way to the files.
    pub(super) fn lead_when_idle(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let is_idle = !self.log.is_truncating() && self.log.written_end() == self.log.reserved_end();
        if self.assignment.leader == self.node_id && self.state == State::Online && is_idle {
            if self.has_told_position() {
                effects.push(Effect::Following);
            }
            self.begin_to_lead(now, Vec::new(), effects);
            self.find_readable(now, effects);
        }
    }

    /// Leads under the epoch of the assignment. Its first record makes it known to the epoch cache; until then the
    /// epoch begins and ends where the log does.
    pub(super) fn begin_to_lead(&mut self, now: Now, known: Vec<Remote>, effects: &mut Vec<Effect>) {
        let epoch_start = self.log.log_end();
        if self.assignment.recovery == LeaderRecovery::Recovering {
            // Elected uncleanly: what it has sent away, another one may have taken, and lost.
            self.awaited.forget();
        }
        if known.is_empty() {
            self.readable = self.first_readable();
        }
        let mut lead = Lead::new(now, self.node_id, &self.assignment, epoch_start, known);
        let had_a_leader = self.assignment.leader_epoch > 0 && matches!(self.role, Role::Follower(_));
        if had_a_leader && self.assignment.recovery != LeaderRecovery::Recovering {
            lead.takes_over();
        }
        if self.log.epochs().latest().is_some_and(|latest| latest.epoch == self.assignment.leader_epoch) {
            lead.goes_on();
        }
        self.role = Role::Leader(lead);
        self.isr_changed(now, effects);
    }

    /// The ISR is another, or how many replicas have to be in it: what was taken before and may not be
    /// acknowledged now is told so. It is in the log, and may be committed later.
    pub(super) fn isr_changed(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.plan_isr_check(now);
        self.advance(now, effects);
        if self.in_sync_count() < self.min_insync_replicas() {
            let error = ErrorCode::NotEnoughReplicasAfterAppend;
            self.committed.fail_above(self.high_watermark, error, effects);
        }
    }

    /// The log end has moved, or where the replicas are, or the ISR: moves the high watermark to what every
    /// in-sync replica holds and tells everyone who waited for it. The watermark stands still
    /// while fewer than `min.insync.replicas` are in sync (KIP-966).
    pub(super) fn advance(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let log_start_offset = self.log.log_start_offset();
        self.written.release(self.log.log_end(), log_start_offset, effects);
        if !self.is_leader() {
            return;
        }
        self.note_passed(now, self.log.log_end());
        let is_enough = self.in_sync_count() >= self.min_insync_replicas();
        if is_enough || is_planted(Bug::WatermarkOfTooFew) {
            if let Some(end) = self.in_sync_end(now) {
                self.high_watermark = self.high_watermark.max(end.offset);
                self.can_read_to(end);
            }
            self.committed.release(self.high_watermark, log_start_offset, effects);
        }
        if !self.watches.is_empty() {
            self.watches.fire(&self.ends(), effects);
        }
    }

    /// The lowest log end among the replicas that the watermark waits for; `None` where one of them has not
    /// told its own yet.
    fn in_sync_end(&self, now: Now) -> Option<LogPosition> {
        let lead = self.lead()?;
        let mut end = self.log.log_end_position();
        if lead.remotes.is_empty() && is_planted(Bug::ReservedHighWatermark) {
            return Some(LogPosition { offset: self.log.reserved_end(), ..end });
        }
        let by =
            IsrRules { assignment: &self.assignment, leader_end: end.offset, lag_max_ms: self.lag_max_ms };
        for remote in lead.remotes.iter().filter(|_| !is_planted(Bug::WatermarkOfLeaderAlone)) {
            let is_behind = remote.end.is_none_or(|known| known.offset < end.offset);
            if is_behind && lead.counts(now.mono_ms, remote, &by) {
                end = remote.end?;
            }
        }
        Some(end)
    }

    /// Whether what was committed before the election may reach beyond the watermark that is known here: until
    /// every in-sync replica has told where it is, nobody is shown an end that goes back (KIP-207).
    pub(super) fn is_watermark_behind(&self) -> bool {
        self.lead().is_some_and(|lead| self.high_watermark < lead.epoch_start)
            && !is_planted(Bug::EndBeforeWatermark)
    }
}
