//! The follower's part of a replica: what it fetches next, taking what came, and cutting off what its leader
//! does not have (KIP-101, KIP-279, KIP-595).
//!
//! It never guesses where its log and the leader's part. It says with each fetch under which leader epoch the
//! record before was written; where that contradicts the leader's own history, the leader answers with the
//! largest epoch that both may have, and where it ended. The follower cuts its log there or where its own
//! records of that epoch end, whichever is first, and asks again, until both agree.
//!
//! It fetches only while nothing is on its way to its files: the offset that it asks for is what the leader
//! takes for held.

use bytes::Bytes;

use super::effect::{Effect, FetchPosition, FetchedPart, Op, Read, Reader};
use super::{Partition, Role, State};
use crate::effect::Now;
use crate::log::EPOCH_UNDEFINED as UNDEFINED;
use crate::log::batch::{BatchInfo, HEADER_BYTES};
use crate::planted::{Bug, is_planted};
use crate::wire::ErrorCode;

/// How long it rests after a write that failed or bytes that were not what they should be
/// (`replica.fetch.backoff.ms` by default).
const REST_MS: u64 = 1000;

/// Bytes of a batch before those that its length field counts.
const LENGTH_PREFIX_BYTES: usize = 12;

/// What a follower knows beyond its assignment.
#[derive(Debug)]
pub(super) struct Follower {
    /// The leader's high watermark, as it told last.
    leader_high_watermark: i64,
    /// It fetches nothing before this monotonic time.
    rests_until_ms: Option<u64>,
    /// Batches for which the log is begun anew: the first one begins before the leader's log start, and nobody would
    /// give it for its base offset.
    waiting: Bytes,
    /// What [`Partition::fetch_position`] was when [`Effect::Following`] was last asked for.
    told: Option<FetchPosition>,
}

impl Follower {
    pub(super) fn new() -> Self {
        Self { leader_high_watermark: 0, rests_until_ms: None, waiting: Bytes::new(), told: None }
    }

    pub(super) fn next_wake_ms(&self) -> Option<u64> {
        self.rests_until_ms
    }
}

impl Partition {
    /// What this follower wants next of its leader; `None` where it leads itself or is about to, has no leader,
    /// truncates, rests after a failure, or has something on its way to its files.
    pub fn fetch_position(&self) -> Option<FetchPosition> {
        let Role::Follower(follower) = &self.role else { return None };
        let assignment = &self.assignment;
        let leader = assignment.leader;
        let follows = self.state == State::Online
            && leader >= 0
            && leader != self.node_id
            && assignment.replicas.contains(&self.node_id);
        let tells_unwritten = is_planted(Bug::UnwrittenCountsAsHeld);
        let fetch_offset = if tells_unwritten { self.log.reserved_end() } else { self.log.log_end() };
        let may_change = self.log.is_truncating() || self.log.is_held();
        let is_busy = may_change || self.log.reserved_end() != fetch_offset;
        if !follows || is_busy || follower.rests_until_ms.is_some() {
            return None;
        }
        Some(FetchPosition {
            leader,
            leader_epoch: assignment.leader_epoch,
            fetch_offset,
            last_fetched_epoch: self.log.epochs().latest().map_or(UNDEFINED, |latest| latest.epoch),
            log_start_offset: self.log.log_start_offset(),
        })
    }

    /// A part of a Fetch answer that was asked with `position`; one of another epoch, or that is not what is
    /// wanted any more, changes nothing. Of errors only OFFSET_OUT_OF_RANGE has a meaning here; with the others
    /// the caller waits a while, or a new Image comes.
    pub fn fetched(
        &mut self,
        now: Now,
        position: &FetchPosition,
        part: FetchedPart,
        effects: &mut Vec<Effect>,
    ) {
        // The own log start may have moved meanwhile; nothing that came depends on it.
        let asked = |wanted: FetchPosition| {
            FetchPosition { log_start_offset: position.log_start_offset, ..wanted } == *position
        };
        if !self.fetch_position().is_some_and(asked) {
            return;
        }
        match part.error {
            None => match part.diverging {
                Some((epoch, end_offset)) => self.diverge(now, epoch, end_offset, part.log_start_offset),
                None => self.take_records(now, part, effects),
            },
            Some(ErrorCode::OffsetOutOfRange) => self.leave_range(now, part.log_start_offset),
            Some(_) => {}
        }
        self.settle(now, effects);
    }

    fn take_records(&mut self, now: Now, part: FetchedPart, effects: &mut Vec<Effect>) {
        if let Role::Follower(follower) = &mut self.role {
            follower.leader_high_watermark = follower.leader_high_watermark.max(part.high_watermark);
        }
        if !part.records.is_empty() {
            let batches = whole_batches(&part.records);
            let first = BatchInfo::parse(&batches).ok();
            match first.filter(|first| first.base_offset < self.log.reserved_end()) {
                Some(first) => self.begin_inside(now, &first, batches),
                None if batches.is_empty() => self.rest_a_while(now),
                None => self.append_fetched(now, batches),
            }
        }
        self.follow_watermark(now, part.log_start_offset, effects);
    }

    /// The leader's log starts inside a batch, and an empty log that was begun at that offset gets the batch
    /// whole: it begins with the batch. What lies before the leader's log start is not served, there as here.
    fn begin_inside(&mut self, now: Now, first: &BatchInfo, batches: Bytes) {
        let end = self.log.reserved_end();
        if self.log.log_start_offset() < end || first.last_offset() < end {
            return self.rest_a_while(now);
        }
        self.restart_at(now, first.base_offset);
        if let Role::Follower(follower) = &mut self.role {
            follower.waiting = batches;
        }
    }

    fn append_fetched(&mut self, now: Now, batches: Bytes) {
        if self.log.append_as_follower(now, batches).is_err() {
            self.rest_a_while(now);
        }
    }

    /// The log and the leader's part at the end of `epoch` at the latest, which is at `end_offset` there.
    fn diverge(&mut self, now: Now, epoch: i32, end_offset: i64, leader_log_start_offset: i64) {
        let log_end = self.log.log_end();
        if epoch == UNDEFINED
            && self.log.log_start_offset() == log_end
            && (0..=end_offset).contains(&leader_log_start_offset)
        {
            // It is empty and begins behind the leader's end. What it lacks below may be the leader's own, of which
            // the log that was here knew nothing: all of it is fetched.
            return self.restart_at(now, leader_log_start_offset);
        }
        let (own_epoch, own_end) = self.log.epochs().end_offset_for(epoch, log_end);
        let cut_at = match own_epoch {
            // Nothing is known here of that epoch or any before: the leader's word alone counts.
            UNDEFINED => end_offset.min(log_end),
            _ if is_planted(Bug::CutAtLeadersWord) => end_offset.min(log_end),
            own if own == epoch => own_end.min(end_offset).min(log_end),
            // Records of epochs between, which the leader never had, go first; then both are compared again.
            _ => own_end.min(log_end),
        };
        if cut_at < 0 || cut_at >= log_end {
            // An answer that contradicts itself: nothing is cut for it.
            return self.rest_a_while(now);
        }
        self.high_watermark = self.high_watermark.min(cut_at);
        self.cuts += 1;
        if cut_at < self.log.log_start_offset() {
            return self.restart_at(now, cut_at);
        }
        self.log.begin_truncate(now, cut_at);
    }

    /// The leader has nothing at the offset that was asked for. If all that is here lies below its log, the log
    /// starts anew where the leader's does. A log that reaches beyond the leader's end learns that by the
    /// divergence of epochs instead.
    fn leave_range(&mut self, now: Now, leader_log_start_offset: i64) {
        if leader_log_start_offset >= self.log.log_end() {
            self.restart_at(now, leader_log_start_offset);
        } else {
            self.rest_a_while(now);
        }
    }

    fn restart_at(&mut self, now: Now, offset: i64) {
        self.high_watermark = offset;
        self.cuts += 1;
        // Producers are forgotten with the log, and those that were sent away may have gone on elsewhere since.
        self.awaited.forget();
        self.log.begin_restart_at(now, offset);
    }

    /// The log was cut or begun anew.
    pub(super) fn truncated(&mut self, now: Now, log_end: i64) {
        let log_start_offset = self.log.log_start_offset();
        self.high_watermark = self.high_watermark.clamp(log_start_offset, log_end);
        self.readable = self.first_readable();
        if let Role::Follower(follower) = &mut self.role
            && !follower.waiting.is_empty()
        {
            let batches = std::mem::take(&mut follower.waiting);
            self.append_fetched(now, batches);
        }
    }

    /// The own log end, or what is known of the leader's watermark, has moved. The log starts nowhere before
    /// the leader's, as soon as what goes is known to be committed.
    pub(super) fn follow_watermark(
        &mut self,
        now: Now,
        leader_log_start_offset: i64,
        effects: &mut Vec<Effect>,
    ) {
        let Role::Follower(follower) = &self.role else { return };
        let log_end = if is_planted(Bug::WatermarkBeyondLog) { i64::MAX } else { self.log.log_end() };
        let known = follower.leader_high_watermark.min(log_end);
        // It was committed once: a leader that does not know it yet will.
        self.high_watermark = self.high_watermark.max(known);
        if !self.watches.is_empty() && !self.log.is_truncating() {
            self.find_readable(now, effects);
        }
        if leader_log_start_offset <= self.high_watermark {
            self.want_log_start(leader_log_start_offset, effects);
        }
    }

    /// Whether a consumer may be served here (KIP-392): from whatever is known to be committed, but not while what
    /// lies in the files changes.
    pub(super) fn serves_as_follower(&self, op: &Op) -> bool {
        let is_consumer = |read: &Read| read.from_follower && read.reader == Reader::Consumer;
        matches!(op, Op::Read(read) if is_consumer(read)) && !self.log.is_truncating()
    }

    pub(super) fn rest_a_while(&mut self, now: Now) {
        if let Role::Follower(follower) = &mut self.role {
            follower.rests_until_ms = Some(now.mono_ms + REST_MS);
        }
    }

    pub(super) fn wake_follower(&mut self, now: Now) {
        if let Role::Follower(follower) = &mut self.role {
            follower.rests_until_ms = follower.rests_until_ms.filter(|at_ms| *at_ms > now.mono_ms);
        }
    }

    /// Says so when something else is to be fetched than was known before.
    pub(super) fn tell_following(&mut self, effects: &mut Vec<Effect>) {
        if !matches!(self.role, Role::Follower(_)) {
            return;
        }
        let position = self.fetch_position();
        if let Role::Follower(follower) = &mut self.role
            && follower.told != position
        {
            follower.told = position;
            effects.push(Effect::Following);
        }
    }

    /// Whether somebody was told to fetch for it, and has to hear when it leads.
    pub(super) fn has_told_position(&self) -> bool {
        matches!(&self.role, Role::Follower(follower) if follower.told.is_some())
    }

    /// Follows from now on whom the assignment names, or nobody.
    pub(super) fn follow(&mut self, now: Now) {
        let told = match &mut self.role {
            Role::Follower(follower) => follower.told.take(),
            Role::Leader(_) => None,
        };
        self.role = Role::Follower(Follower { told, ..Follower::new() });
        if is_planted(Bug::CutAtWatermark) && self.high_watermark < self.log.log_end() {
            self.log.begin_truncate(now, self.high_watermark);
        }
    }
}

/// The batches that are there whole, from the first one on. The last one of an answer may be cut.
fn whole_batches(records: &Bytes) -> Bytes {
    let mut end = 0;
    while let Some(rest) = records.get(end..).filter(|rest| rest.len() >= HEADER_BYTES) {
        let length = rest.get(8..LENGTH_PREFIX_BYTES).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        let length = length.and_then(|bytes| usize::try_from(i32::from_be_bytes(bytes)).ok());
        let whole = length.and_then(|length| length.checked_add(LENGTH_PREFIX_BYTES));
        match whole.filter(|whole| (HEADER_BYTES..=rest.len()).contains(whole)) {
            Some(whole) => end += whole,
            None => break,
        }
    }
    records.slice(..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::batch::BatchBuilder;

    #[test]
    fn a_batch_that_is_cut_is_left_to_the_next_fetch() {
        let batch = BatchBuilder::new().record(5, None, Some(b"value")).build();
        let two: Bytes = [&batch[..], &batch[..]].concat().into();
        assert_eq!(whole_batches(&two), two);
        for cut in 1..batch.len() {
            assert_eq!(whole_batches(&two.slice(..two.len() - cut)), batch, "{cut} bytes are missing");
        }
        assert!(whole_batches(&batch.slice(..batch.len() - 1)).is_empty());
        assert!(whole_batches(&Bytes::new()).is_empty());
    }

    #[test]
    fn a_length_that_cannot_be_ends_what_is_taken() {
        let batch = BatchBuilder::new().record(5, None, Some(b"value")).build();
        for length in [-1_i32, 0, 48, i32::MAX, i32::MIN] {
            let mut bytes = [&batch[..], &batch[..]].concat();
            bytes[batch.len() + 8..batch.len() + 12].copy_from_slice(&length.to_be_bytes());
            assert_eq!(whole_batches(&bytes.into()), batch, "length {length}");
        }
    }
}
