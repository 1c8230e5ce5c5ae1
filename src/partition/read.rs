//! Reading: fetches and offset look-ups. What the log knows in memory is answered in the step;
//! the rest is a look-up that goes on with each completed read.

use super::effect::{Answer, Effect, Isolation, OffsetQuery, Read, ReadFound, Reader, ReplyTo};
use super::isr::ReplicaFetch;
use super::wait::{Told, Watch, Watched, rest};
use super::{Partition, State};
use crate::effect::{FileResult, Now, Ticket};
use crate::log::EPOCH_UNDEFINED as UNDEFINED;
use crate::log::{Found, LogPosition, Lookup, LookupStep, Query, Span};
use crate::planted::{Bug, is_planted};
use crate::wire::ErrorCode;

/// Look-ups that wait for a read. Few at a time: a linear search is the fastest map.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    list: Vec<(Ticket, Waiting)>,
}

/// One look-up and who wants to know.
#[derive(Debug)]
pub(super) struct Waiting {
    asked: Asked,
    lookup: Lookup,
    knows_zstd: bool,
}

/// What a look-up is for.
#[derive(Clone, Copy, Debug)]
enum Asked {
    /// A fetch.
    Fetch(Fetching),
    /// A ListOffsets.
    Offset { to: ReplyTo, is_client: bool },
    /// The place of the high watermark with this offset, when the log had been cut that often.
    Readable { offset: i64, cuts: u32 },
}

/// A fetch that is being served.
#[derive(Clone, Copy, Debug)]
struct Fetching {
    to: ReplyTo,
    reader: Reader,
    offset: i64,
    /// The leader's epoch when it came.
    leader_epoch: i32,
    /// How often the log had been cut when it came.
    cuts: u32,
    withheld: bool,
    /// Less than this leaves a watch behind.
    watch_below_bytes: u64,
    session: Option<ReplyTo>,
    watched: Watched,
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
    pub(super) fn read(&mut self, now: Now, to: ReplyTo, read: &Read, effects: &mut Vec<Effect>) {
        if !self.is_leader() {
            // What followed the leader's watermark without readers knows it as an offset only.
            self.find_readable(now, effects);
        }
        let (watched, end) = match self.may_read(read) {
            Ok(granted) => granted,
            Err(error) => return effects.push(self.refuse(to, error)),
        };
        if let Some(id) = self.preferred_replica(now, read) {
            let found = ReadFound { preferred: Some(id), ..self.read_found(None, None) };
            return effects.push(Effect::Reply(to, Answer::Read(found)));
        }
        let fetching = Fetching {
            to,
            reader: read.reader,
            offset: read.offset,
            leader_epoch: self.assignment.leader_epoch,
            cuts: self.cuts,
            withheld: read.withheld,
            watch_below_bytes: read.watch_below_bytes,
            session: read.session,
            watched,
            above: end.offset,
        };
        match self.diverging(read) {
            Ok(None) => {}
            Ok(diverging) => return self.found_diverging(to, diverging, effects),
            Err(error) => return effects.push(self.refuse(to, error)),
        }
        if read.offset < self.log.log_start_offset() || read.offset > self.log.log_end() {
            return effects.push(self.refuse(to, ErrorCode::OffsetOutOfRange));
        }
        if read.offset >= end.offset {
            return self.found_span(now, fetching, None, effects);
        }
        let query = Query::Fetch { offset: read.offset, max_bytes: read.max_bytes, end };
        let (lookup, step) = self.log.lookup(query);
        let knows_zstd = read.knows_zstd || !self.log.may_hold_zstd(read.offset);
        self.lookup_step(now, Waiting { asked: Asked::Fetch(fetching), lookup, knows_zstd }, step, effects);
    }

    /// Up to which end a reader may read, or why not at all.
    fn may_read(&self, read: &Read) -> Result<(Watched, LogPosition), ErrorCode> {
        self.check_epoch(read.current_leader_epoch)?;
        Ok(match (read.reader, read.isolation) {
            (Reader::Replica { id, epoch, .. }, _) => {
                self.check_replica(id, epoch, read.current_leader_epoch >= 0)?;
                (Watched::LogEnd, self.log.log_end_position())
            }
            (Reader::Consumer, _) if is_planted(Bug::ReadsUncommitted) => {
                (Watched::LogEnd, self.log.log_end_position())
            }
            (Reader::Consumer, Isolation::Uncommitted) => (Watched::HighWatermark, self.readable),
            (Reader::Consumer, Isolation::Committed) => (Watched::LastStable, self.last_stable_position()),
        })
    }

    /// Whether a replica's log is another than this one before the offset from which it fetches: the leader epoch
    /// of its last record is not known here, or ended here before that offset (KIP-595). A replica without any
    /// epoch can only be seen to be beyond the log end.
    fn diverging(&self, read: &Read) -> Result<Option<(i32, i64)>, ErrorCode> {
        let Reader::Replica { last_fetched_epoch, .. } = read.reader else { return Ok(None) };
        let log_end = self.log.log_end();
        if last_fetched_epoch < 0 {
            return Ok((read.offset > log_end).then_some((UNDEFINED, log_end)));
        }
        let (epoch, end_offset) = self.end_of_epoch(last_fetched_epoch);
        let log_start_offset = self.log.log_start_offset();
        // A log that was begun where this one starts does not know what lay in front. Nor does it matter: all that
        // the replica has is gone here, and it begins there, too.
        let oldest = self.log.epochs().entries().first();
        let is_unknown =
            read.offset == log_start_offset && oldest.is_none_or(|oldest| last_fetched_epoch < oldest.epoch);
        if epoch < 0 || end_offset < 0 || read.offset < log_start_offset || is_unknown {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        let diverges =
            (epoch < last_fetched_epoch || end_offset < read.offset) && !is_planted(Bug::DivergenceUntold);
        Ok(diverges.then_some((epoch, end_offset)))
    }

    /// Serves one partition of a ListOffsets request.
    pub(super) fn offset(
        &mut self,
        now: Now,
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
            Some(Isolation::Uncommitted) => self.high_watermark,
            Some(Isolation::Committed) => self.last_stable_offset(),
            None => self.log.log_end(),
        };
        let is_client = isolation.is_some();
        let query = match query {
            OffsetQuery::Latest if is_client && self.is_watermark_behind() => {
                return effects.push(self.refuse(to, ErrorCode::OffsetNotAvailable));
            }
            OffsetQuery::Latest | OffsetQuery::Reserved => {
                let is_reserved = query == OffsetQuery::Reserved;
                let offset = if is_reserved { self.log.reserved_end() } else { end_offset };
                let leader_epoch = self.assignment.leader_epoch;
                return effects.push(offset_answer(to, offset, -1, leader_epoch));
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
        let asked = Asked::Offset { to, is_client };
        self.lookup_step(now, Waiting { asked, lookup, knows_zstd: true }, step, effects);
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
        let (leader_epoch, end_offset) = self.end_of_epoch(leader_epoch);
        effects.push(Effect::Reply(to, Answer::EpochEnd { leader_epoch, end_offset }));
    }

    /// The largest epoch not above this one that the log knows, and where it ended; both -1 if that is not known.
    fn end_of_epoch(&self, leader_epoch: i32) -> (i32, i64) {
        let (epochs, log_end, own) = (self.log.epochs(), self.log.log_end(), self.assignment.leader_epoch);
        let latest = epochs.latest().map_or(UNDEFINED, |latest| latest.epoch);
        match leader_epoch {
            epoch if epoch == own => (own, log_end),
            epoch if (0..own).contains(&epoch) && epoch >= latest => {
                (if latest == UNDEFINED { epoch } else { latest }, log_end)
            }
            epoch => epochs.end_offset_for(epoch, log_end),
        }
    }

    /// A read of a look-up has ended.
    pub(super) fn lookup_read(
        &mut self,
        now: Now,
        mut waiting: Waiting,
        result: FileResult,
        effects: &mut Vec<Effect>,
    ) {
        let step = self.log.lookup_next(&mut waiting.lookup, result);
        self.lookup_step(now, waiting, step, effects);
    }

    fn lookup_step(&mut self, now: Now, waiting: Waiting, step: LookupStep, effects: &mut Vec<Effect>) {
        if let LookupStep::Read(op) = step {
            let ticket = self.log.read_ticket();
            self.lookups.list.push((ticket, waiting));
            return effects.push(Effect::File(ticket, op));
        }
        match waiting.asked {
            Asked::Fetch(fetching) => self.fetch_step(now, fetching, waiting.knows_zstd, step, effects),
            Asked::Offset { to, is_client } => effects.push(self.offset_found(to, is_client, &step)),
            Asked::Readable { offset, cuts } => {
                if let LookupStep::Found(Found::Span(span)) = step
                    && cuts == self.cuts
                {
                    self.found_readable(beginning(&span, offset), effects);
                }
            }
        }
    }

    fn fetch_step(
        &mut self,
        now: Now,
        fetching: Fetching,
        knows_zstd: bool,
        step: LookupStep,
        effects: &mut Vec<Effect>,
    ) {
        let to = fetching.to;
        if fetching.offset < self.log.log_start_offset() {
            // It moved while the look-up was under way.
            return effects.push(self.refuse(to, ErrorCode::OffsetOutOfRange));
        }
        match step {
            LookupStep::Found(Found::Span(span)) if !knows_zstd => {
                let (lookup, step) = self.log.lookup(Query::UpToZstd { span });
                let waiting = Waiting { asked: Asked::Fetch(fetching), lookup, knows_zstd: true };
                self.lookup_step(now, waiting, step, effects);
            }
            LookupStep::Found(Found::Span(span)) => self.found_span(now, fetching, Some(span), effects),
            LookupStep::Found(Found::Empty) => self.found_span(now, fetching, None, effects),
            LookupStep::Found(Found::Zstd) => {
                effects.push(self.refuse(to, ErrorCode::UnsupportedCompressionType));
            }
            LookupStep::OutOfRange => effects.push(self.refuse(to, ErrorCode::OffsetOutOfRange)),
            LookupStep::Failed(_) | LookupStep::Read(_) | LookupStep::Found(_) => {
                effects.push(self.refuse(to, ErrorCode::KafkaStorageError));
            }
        }
    }

    /// A look-up by time has ended. While the watermark is behind, nobody knows yet whether something that it did
    /// not find was committed (KIP-207).
    fn offset_found(&self, to: ReplyTo, is_client: bool, step: &LookupStep) -> Effect {
        match step {
            LookupStep::Found(Found::Offset { offset, timestamp_ms, leader_epoch }) => {
                offset_answer(to, *offset, *timestamp_ms, *leader_epoch)
            }
            LookupStep::Found(_) if is_client && self.is_watermark_behind() => {
                self.refuse(to, ErrorCode::OffsetNotAvailable)
            }
            LookupStep::Found(_) => offset_answer(to, -1, -1, -1),
            LookupStep::OutOfRange => self.refuse(to, ErrorCode::OffsetOutOfRange),
            LookupStep::Failed(_) | LookupStep::Read(_) => self.refuse(to, ErrorCode::KafkaStorageError),
        }
    }

    /// Finds the place of the high watermark in the files, where it is not the log end. A new leader knows it as
    /// an offset only, and so does a follower.
    pub(super) fn find_readable(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let (offset, cuts) = (self.high_watermark, self.cuts);
        let is_looking = |(_, waiting): &(Ticket, Waiting)| match waiting.asked {
            Asked::Readable { cuts: then, .. } => then == cuts,
            Asked::Fetch(_) | Asked::Offset { .. } => false,
        };
        if self.readable.offset >= offset || self.lookups.list.iter().any(is_looking) {
            return;
        }
        let end = self.log.log_end_position();
        if offset == end.offset {
            // A look-up finds nothing there.
            return self.found_readable(end, effects);
        }
        let (lookup, step) = self.log.lookup(Query::Fetch { offset, max_bytes: 1, end });
        let asked = Asked::Readable { offset, cuts };
        self.lookup_step(now, Waiting { asked, lookup, knows_zstd: true }, step, effects);
    }

    fn found_readable(&mut self, end: LogPosition, effects: &mut Vec<Effect>) {
        if end.offset <= self.high_watermark && !self.log.is_truncating() {
            self.can_read_to(end);
            self.watches.fire(&self.ends(), effects);
        }
    }

    pub(super) fn can_read_to(&mut self, end: LogPosition) {
        if end.offset > self.readable.offset {
            self.readable = end;
        }
    }

    /// The last segment that begins at or below the high watermark: all before it may be read.
    pub(super) fn first_readable(&self) -> LogPosition {
        let below = self.log.segments().take_while(|segment| segment.base_offset <= self.high_watermark);
        let last = below.last().map(|segment| segment.base_offset);
        let offset = last.unwrap_or(self.log.first_segment_base_offset());
        LogPosition { offset, segment_base_offset: offset, position: 0 }
    }

    /// KIP-320: an older epoch is fenced, a newer one is not known here yet.
    fn check_epoch(&self, current_leader_epoch: i32) -> Result<(), ErrorCode> {
        let known = self.assignment.leader_epoch;
        match current_leader_epoch {
            -1 => Ok(()),
            _ if is_planted(Bug::EpochUnchecked) => Ok(()),
            epoch if epoch < known => Err(ErrorCode::FencedLeaderEpoch),
            epoch if epoch > known => Err(ErrorCode::UnknownLeaderEpoch),
            _ => Ok(()),
        }
    }

    /// Answers a fetch. What a replica fetches from counts first, so that the answer tells it the newest watermark.
    /// A watch is left before the answer leaves; if the end has moved since the
    /// reader saw it, the watch fires at once.
    fn found_span(&mut self, now: Now, fetching: Fetching, span: Option<Span>, effects: &mut Vec<Effect>) {
        let to = fetching.to;
        let is_replica = matches!(fetching.reader, Reader::Replica { .. });
        let follows = !self.is_leader();
        let is_stale = (is_replica || follows) && fetching.leader_epoch != self.assignment.leader_epoch;
        let is_cut = fetching.cuts != self.cuts || self.log.is_truncating();
        if self.state == State::Online && (is_stale || is_cut || (follows && is_replica)) {
            // Another leads, or may have led meanwhile; or what was found is not there any more.
            return effects.push(self.refuse(to, ErrorCode::NotLeaderOrFollower));
        }
        if let Reader::Replica { id, epoch, log_start_offset, .. } = fetching.reader {
            let log_end = self.log.log_end_position();
            let end = match &span {
                Some(span) => Some(beginning(span, fetching.offset)),
                None => Some(log_end).filter(|end| end.offset == fetching.offset),
            };
            if let Some(end) = end.filter(|_| self.state == State::Online) {
                self.replica_fetched(now, ReplicaFetch { id, epoch, log_start_offset, end }, effects);
            }
        }
        let told = span.filter(|_| !fetching.withheld);
        // What is withheld is there: nothing that may come makes it be given.
        let waits = span.map_or(0, |span| span.length) < fetching.watch_below_bytes
            && told.is_some() == span.is_some();
        let watched = waits && fetching.session.is_some();
        let found = ReadFound { watched, ..self.read_found(told, None) };
        effects.push(Effect::Reply(to, Answer::Read(found)));
        if waits {
            self.leave_watch(&fetching, effects);
        }
    }

    fn leave_watch(&mut self, fetching: &Fetching, effects: &mut Vec<Effect>) {
        let replica = match fetching.reader {
            Reader::Replica { id, .. } => Some(id),
            Reader::Consumer => None,
        };
        let Fetching { watched, above, .. } = *fetching;
        let to = fetching.session.unwrap_or(fetching.to);
        // The others may have news by what this reader brought about; it has just been told.
        self.tell_news(effects);
        self.watches.add(Watch { to, watched, above, replica, has_news: false });
        self.watches.fire(&self.ends(), effects);
    }

    /// Tells sessions that wait here when what they were told beside records has changed.
    pub(super) fn tell_news(&mut self, effects: &mut Vec<Effect>) {
        let log_start_offset = self.log.log_start_offset();
        self.watches.tell_news(Told { high_watermark: self.high_watermark, log_start_offset }, effects);
    }

    /// There is nothing to wait for: the replica has to cut its log first.
    fn found_diverging(&self, to: ReplyTo, diverging: Option<(i32, i64)>, effects: &mut Vec<Effect>) {
        effects.push(Effect::Reply(to, Answer::Read(self.read_found(None, diverging))));
    }

    fn read_found(&self, span: Option<Span>, diverging: Option<(i32, i64)>) -> ReadFound {
        ReadFound {
            span,
            high_watermark: self.high_watermark,
            last_stable_offset: self.last_stable_offset(),
            log_start_offset: self.log.log_start_offset(),
            diverging,
            preferred: None,
            watched: false,
        }
    }

    fn refuse(&self, to: ReplyTo, error: ErrorCode) -> Effect {
        Effect::Reply(to, Answer::Failed { error, log_start_offset: self.log.log_start_offset() })
    }
}

/// Where the first batch of a span lies, which answers this offset.
fn beginning(span: &Span, offset: i64) -> LogPosition {
    LogPosition { offset, segment_base_offset: span.segment_base_offset, position: span.position }
}

fn offset_answer(to: ReplyTo, offset: i64, timestamp_ms: i64, leader_epoch: i32) -> Effect {
    Effect::Reply(to, Answer::Offset { offset, timestamp_ms, leader_epoch })
}
