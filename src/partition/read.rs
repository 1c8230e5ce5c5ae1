//! Reading: fetches and offset look-ups. What the log knows in memory is answered in the step;
//! the rest is a look-up that goes on with each completed read.

use super::Partition;
use super::effect::{Answer, Effect, Isolation, OffsetQuery, Read, ReadFound, ReplyTo};
use super::wait::rest;
use crate::effect::{FileResult, Ticket};
use crate::log::EPOCH_UNDEFINED as UNDEFINED;
use crate::log::{Found, Lookup, LookupStep, Query, Span};
use crate::wire::ErrorCode;

/// Look-ups that wait for a read. Few at a time: a linear search is the fastest map.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    list: Vec<(Ticket, Waiting)>,
}

/// One look-up and who wants to know.
#[derive(Debug)]
pub(super) struct Waiting {
    to: ReplyTo,
    /// Where a fetch begins.
    from: Option<i64>,
    lookup: Lookup,
    watch: Option<WatchBelow>,
    knows_zstd: bool,
}

/// The watch that a fetch leaves behind when it finds too little.
#[derive(Clone, Copy, Debug)]
struct WatchBelow {
    bytes: u64,
    isolation: Isolation,
    /// The end that the reader saw.
    above: i64,
}

impl Lookups {
    pub fn take(&mut self, ticket: Ticket) -> Option<Waiting> {
        let at = self.list.iter().position(|(t, _)| *t == ticket)?;
        let (_, waiting) = self.list.swap_remove(at);
        rest(&mut self.list);
        Some(waiting)
    }
}

impl Partition {
    /// Serves a fetch: a span, or nothing yet and a watch where one is wanted.
    pub(super) fn read(&mut self, to: ReplyTo, read: Read, effects: &mut Vec<Effect>) {
        if let Err(error) = self.check_epoch(read.current_leader_epoch) {
            return effects.push(self.refuse(to, error));
        }
        let end = match read.isolation {
            Isolation::Uncommitted => self.high_watermark,
            Isolation::Committed => self.last_stable_position(),
        };
        if read.offset < self.log.log_start_offset() || read.offset > self.log.log_end() {
            return effects.push(self.refuse(to, ErrorCode::OffsetOutOfRange));
        }
        let (bytes, isolation, above) = (read.watch_below_bytes, read.isolation, end.offset);
        let watch = (bytes > 0).then_some(WatchBelow { bytes, isolation, above });
        if read.offset >= end.offset {
            return self.found_span(to, None, watch, effects);
        }
        let query = Query::Fetch { offset: read.offset, max_bytes: read.max_bytes, end };
        let (lookup, step) = self.log.lookup(query);
        let from = Some(read.offset);
        let knows_zstd = read.knows_zstd || !self.log.may_hold_zstd(read.offset);
        self.lookup_step(Waiting { to, from, lookup, watch, knows_zstd }, step, effects);
    }

    /// Serves one partition of a ListOffsets request.
    pub(super) fn offset(
        &mut self,
        to: ReplyTo,
        query: OffsetQuery,
        isolation: Option<Isolation>,
        current_leader_epoch: i32,
        effects: &mut Vec<Effect>,
    ) {
        if let Err(error) = self.check_epoch(current_leader_epoch) {
            return effects.push(self.refuse(to, error));
        }
        let end_offset = match isolation {
            Some(Isolation::Uncommitted) => self.high_watermark.offset,
            Some(Isolation::Committed) => self.last_stable_offset(),
            None => self.log.log_end(),
        };
        let query = match query {
            OffsetQuery::Latest => {
                let leader_epoch = self.assignment.leader_epoch;
                return effects.push(offset_answer(to, end_offset, -1, leader_epoch));
            }
            OffsetQuery::Earliest => {
                let offset = self.log.log_start_offset();
                let known = self.log.epochs().epoch_at(offset);
                // Nothing was written yet: what comes first will be of this epoch.
                let leader_epoch = match self.log.epochs().latest() {
                    None if offset == self.log.log_end() => self.assignment.leader_epoch,
                    _ => known.unwrap_or(UNDEFINED),
                };
                return effects.push(offset_answer(to, offset, -1, leader_epoch));
            }
            OffsetQuery::Tiered => return effects.push(offset_answer(to, -1, -1, -1)),
            OffsetQuery::MaxTimestamp => Query::MaxTimestamp { end_offset },
            OffsetQuery::Timestamp(timestamp_ms) => Query::Timestamp { timestamp_ms, end_offset },
        };
        let (lookup, step) = self.log.lookup(query);
        let waiting = Waiting { to, from: None, lookup, watch: None, knows_zstd: true };
        self.lookup_step(waiting, step, effects);
    }

    /// Serves one partition of an OffsetForLeaderEpoch request. The leader's own epoch is known from
    /// the moment it leads: without records it begins and ends where the log does.
    pub(super) fn epoch_end(
        &mut self,
        to: ReplyTo,
        leader_epoch: i32,
        current_leader_epoch: i32,
        effects: &mut Vec<Effect>,
    ) {
        if let Err(error) = self.check_epoch(current_leader_epoch) {
            return effects.push(self.refuse(to, error));
        }
        let (epochs, log_end, own) = (self.log.epochs(), self.log.log_end(), self.assignment.leader_epoch);
        let latest = epochs.latest().map_or(UNDEFINED, |latest| latest.epoch);
        let (leader_epoch, end_offset) = match leader_epoch {
            epoch if epoch == own => (own, log_end),
            epoch if (0..own).contains(&epoch) && epoch >= latest => {
                (if latest == UNDEFINED { epoch } else { latest }, log_end)
            }
            epoch => epochs.end_offset_for(epoch, log_end),
        };
        effects.push(Effect::Reply(to, Answer::EpochEnd { leader_epoch, end_offset }));
    }

    /// A read of a look-up has ended.
    pub(super) fn lookup_read(
        &mut self,
        mut waiting: Waiting,
        result: FileResult,
        effects: &mut Vec<Effect>,
    ) {
        let step = self.log.lookup_next(&mut waiting.lookup, result);
        self.lookup_step(waiting, step, effects);
    }

    fn lookup_step(&mut self, waiting: Waiting, step: LookupStep, effects: &mut Vec<Effect>) {
        let Waiting { to, from, watch, knows_zstd, .. } = waiting;
        if from.is_some_and(|offset| offset < self.log.log_start_offset()) {
            // It moved while the look-up was under way.
            return effects.push(self.refuse(to, ErrorCode::OffsetOutOfRange));
        }
        effects.push(match step {
            LookupStep::Read(op) => {
                let ticket = self.log.read_ticket();
                self.lookups.list.push((ticket, waiting));
                Effect::File(ticket, op)
            }
            LookupStep::Found(Found::Span(span)) if !knows_zstd => {
                let (lookup, step) = self.log.lookup(Query::UpToZstd { span });
                return self.lookup_step(
                    Waiting { to, from, lookup, watch, knows_zstd: true },
                    step,
                    effects,
                );
            }
            LookupStep::Found(Found::Zstd) => self.refuse(to, ErrorCode::UnsupportedCompressionType),
            LookupStep::Found(Found::Span(span)) => return self.found_span(to, Some(span), watch, effects),
            LookupStep::Found(Found::Empty) => return self.found_span(to, None, watch, effects),
            LookupStep::Found(Found::Offset { offset, timestamp_ms, leader_epoch }) => {
                offset_answer(to, offset, timestamp_ms, leader_epoch)
            }
            LookupStep::Found(Found::None) => offset_answer(to, -1, -1, -1),
            LookupStep::OutOfRange => self.refuse(to, ErrorCode::OffsetOutOfRange),
            LookupStep::Failed(_) => self.refuse(to, ErrorCode::KafkaStorageError),
        });
    }

    /// KIP-320: an older epoch is fenced, a newer one is not known here yet.
    fn check_epoch(&self, current_leader_epoch: i32) -> Result<(), ErrorCode> {
        let known = self.assignment.leader_epoch;
        match current_leader_epoch {
            -1 => Ok(()),
            epoch if epoch < known => Err(ErrorCode::FencedLeaderEpoch),
            epoch if epoch > known => Err(ErrorCode::UnknownLeaderEpoch),
            _ => Ok(()),
        }
    }

    /// Answers a fetch. A watch is left before the answer leaves; if the end has moved since the
    /// reader saw it, the watch fires at once.
    fn found_span(
        &mut self,
        to: ReplyTo,
        span: Option<Span>,
        watch: Option<WatchBelow>,
        effects: &mut Vec<Effect>,
    ) {
        let (high_watermark, last_stable_offset) = (self.high_watermark.offset, self.last_stable_offset());
        let log_start_offset = self.log.log_start_offset();
        let found = ReadFound { span, high_watermark, last_stable_offset, log_start_offset };
        effects.push(Effect::Reply(to, Answer::Read(found)));
        if let Some(watch) = watch.filter(|watch| span.map_or(0, |span| span.length) < watch.bytes) {
            self.watches.add(to, watch.isolation, watch.above);
            self.watches.fire(high_watermark, last_stable_offset, effects);
        }
    }

    fn refuse(&self, to: ReplyTo, error: ErrorCode) -> Effect {
        Effect::Reply(to, Answer::Failed { error, log_start_offset: self.log.log_start_offset() })
    }
}

fn offset_answer(to: ReplyTo, offset: i64, timestamp_ms: i64, leader_epoch: i32) -> Effect {
    Effect::Reply(to, Answer::Offset { offset, timestamp_ms, leader_epoch })
}
