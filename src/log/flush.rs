//! Everything that reaches the files behind the appends: syncs, index entries, the clean stop.
//!
//! One sync is in flight beside the queue of mutating operations, so no append waits for a device. After a roll the
//! names of the new files are synced first, and the next roll waits for that: at most one segment, the last, is missing
//! after a power cut. Then the sealed segment is synced, log, indexes and the next one's producer snapshot, before the
//! durable end passes it. The active segment's log is synced when `flush.messages` or `flush.ms` ask for it, else after
//! 64 MiB or 30 s, so that the recovery point advances without rolls.

use std::collections::VecDeque;

use super::head::{OFFSET_ENTRY_BYTES, TIME_ENTRY_BYTES};
use super::index::PendingIndex;
use super::jobs::Purpose;
use super::{Log, LogEvent, LogPosition, State};
use crate::effect::{FileError, FileOp, FileResult, Now, Stem, Ticket};

/// Unsynced bytes after which the active segment is synced.
const SYNC_BYTES: u64 = 64 << 20;

/// Age of the oldest unsynced byte after which the active segment is synced.
const SYNC_MS: u64 = 30_000;

/// How long the tail of a log is remembered after the last append, and what it has reserved is kept.
const TAIL_IDLE_MS: u64 = 60_000;

/// A segment that was rolled and is not synced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sealed {
    base_offset: i64,
    next_base_offset: i64,
    /// Steps done so far.
    steps: usize,
    /// Its length, where blocks behind it are to be given back.
    cut_to_bytes: Option<u64>,
    /// It was found by a recovery: a power cut may have taken the next one's producer snapshot.
    is_found: bool,
}

impl Sealed {
    /// One that was rolled, and is to be cut to its length where it may hold blocks behind it.
    pub(super) fn rolled(base_offset: i64, next_base_offset: i64, cut_to_bytes: Option<u64>) -> Self {
        Self { base_offset, next_base_offset, steps: 0, cut_to_bytes, is_found: false }
    }

    fn found(base_offset: i64, next_base_offset: i64) -> Self {
        Self { base_offset, next_base_offset, steps: 0, cut_to_bytes: None, is_found: true }
    }

    /// What is to be done next; the first step has nothing to do where there is no surplus.
    fn step(&self) -> Option<FileOp> {
        let log = Stem::Log(self.base_offset);
        let sync = |stem: Stem| FileOp::Sync { file: stem.into() };
        Some(match self.steps {
            0 => self.cut_to_bytes.map_or(sync(log), |length| FileOp::Truncate { file: log.into(), length }),
            1 => sync(log),
            2 => sync(Stem::OffsetIndex(self.base_offset)),
            3 => sync(Stem::TimeIndex(self.base_offset)),
            4 => sync(Stem::ProducerSnapshot(self.next_base_offset)),
            _ => return None,
        })
    }

    /// Whether the file to be synced next need not be there.
    fn may_miss(&self) -> bool {
        self.is_found && self.steps == 4
    }

    fn advance(&mut self) {
        self.steps += if self.steps == 0 && self.cut_to_bytes.is_none() { 2 } else { 1 };
    }
}

/// What a sync in flight makes durable.
#[derive(Clone, Copy, Debug)]
enum Target {
    /// One step of the oldest sealed segment. It stays until it is synced.
    Sealed,
    /// The names that the last roll made.
    Names,
    /// That the names of the segments below this offset are gone.
    Gone(i64),
    /// The active segment up to here.
    Active(LogPosition),
}

/// What is not synced yet.
#[derive(Debug, Default)]
pub(super) struct Syncs {
    sealed: VecDeque<Sealed>,
    /// A power cut may take back the names that the last roll made. They are synced before anything else is, and the
    /// next roll waits for that.
    pub(super) loose_names: bool,
    /// A recovery found an empty active segment, whose names may be as loose: with its first record they are.
    names_unsure: bool,
    /// The files are not as a clean stop leaves them.
    pub(super) touched: bool,
    in_flight: Option<(Ticket, Target)>,
    unsynced_bytes: u64,
    unsynced_since_ms: Option<u64>,
}

impl Syncs {
    /// What a recovery says of the files.
    pub(super) fn found(&mut self, is_untouched: bool, names_unsure: bool) {
        self.touched = !is_untouched;
        self.names_unsure = names_unsure;
    }

    /// Whether a sync is on its way.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight.is_some()
    }

    /// What is not synced begins here: no segment behind it may be deleted. Its records can be lost, but what they say
    /// of their producers is in the snapshot of the next segment, and that is synced last.
    pub(super) fn sealed_from(&self) -> i64 {
        self.sealed.front().map_or(i64::MAX, |sealed| sealed.base_offset)
    }
}

impl Log {
    pub(super) fn recovered_durable(&mut self, durable_end: i64, is_synced: bool, now: Now) {
        if is_synced {
            return;
        }
        // Where inside a segment the durable end lies is not known and not needed: the segments
        // from there on are synced again. One that ends there may have been synced before it was rolled.
        let bases: Vec<_> = self.segments.iter().map(|segment| segment.base_offset).collect();
        for (base, next) in bases.iter().zip(bases.iter().skip(1)) {
            if *next >= durable_end {
                self.seal(Sealed::found(*base, *next));
            }
        }
        if durable_end >= self.written.offset_end {
            return;
        }
        let base = bases.iter().copied().rfind(|base| *base <= durable_end).unwrap_or(durable_end);
        self.durable = LogPosition { offset: durable_end, segment_base_offset: base, position: 0 };
        self.note_unsynced(now, self.written.position);
    }

    /// A segment takes no more appends: it is to be synced.
    pub(super) fn seal(&mut self, sealed: Sealed) {
        self.syncs.loose_names = true;
        self.syncs.sealed.push_back(sealed);
        self.syncs.unsynced_bytes = 0;
        self.syncs.unsynced_since_ms = None;
    }

    pub(super) fn note_unsynced(&mut self, now: Now, bytes: u64) {
        self.syncs.unsynced_bytes += bytes;
        self.syncs.unsynced_since_ms.get_or_insert(now.mono_ms);
        self.syncs.loose_names |= std::mem::take(&mut self.syncs.names_unsure);
    }

    /// Whether the active segment is due for a sync.
    fn sync_due(&self, now: Now) -> bool {
        let unsynced = self.written.offset_end - self.durable.offset;
        unsynced > 0
            && (unsynced >= self.config.flush_messages
                || self.syncs.unsynced_bytes >= SYNC_BYTES
                || self.sync_wake_ms().is_some_and(|due| due <= now.mono_ms))
    }

    /// When what is written is due for a sync by its age; nothing is due where everything is synced, also by the
    /// sync of a sealed segment that ends at an empty active one.
    fn sync_wake_ms(&self) -> Option<u64> {
        if self.written.offset_end <= self.durable.offset {
            return None;
        }
        let age_ms = u64::try_from(self.config.flush_ms).unwrap_or(0).min(SYNC_MS);
        self.syncs.unsynced_since_ms.map(|since| since.saturating_add(age_ms))
    }

    /// Blocks are being reserved for the segment that is to be synced: they would come behind its cut.
    fn sync_waits_for_allocation(&self) -> bool {
        self.syncs.sealed.front().is_some_and(|sealed| self.ahead.is_busy_with(sealed.base_offset))
    }

    pub(super) fn next_sync(&mut self, now: Now) -> Option<(Ticket, FileOp)> {
        // What is to be deleted is not synced: the sync would meet the deletion, find no file, and be taken for
        // that of a failed device.
        let may_sync = matches!(self.state, State::Open | State::Closing) || self.drains_a_roll();
        if self.syncs.in_flight.is_some() || !may_sync {
            return None;
        }
        let (op, target) = match self.syncs.sealed.front() {
            _ if self.syncs.loose_names && self.full_until_ms.is_some() => return None,
            _ if self.syncs.loose_names => (FileOp::SyncDir, Target::Names),
            Some(_) if self.sync_waits_for_allocation() => return None,
            Some(sealed) => (sealed.step().expect("a synced segment leaves"), Target::Sealed),
            None => match self.next_gone() {
                Some(base_offset) => (FileOp::SyncDir, Target::Gone(base_offset)),
                None if self.sync_due(now) => {
                    self.syncs.unsynced_bytes = 0;
                    self.syncs.unsynced_since_ms = None;
                    let file = Stem::Log(self.written.base_offset).into();
                    (FileOp::Sync { file }, Target::Active(self.written.log_position()))
                }
                None => return None,
            },
        };
        let ticket = self.jobs.ticket();
        self.syncs.in_flight = Some((ticket, target));
        Some((ticket, op))
    }

    /// Takes the completion of a sync; `None` if the ticket is not that of one.
    pub(super) fn sync_completed(
        &mut self,
        now: Now,
        ticket: Ticket,
        result: &FileResult,
    ) -> Option<LogEvent> {
        let (_, target) = self.syncs.in_flight.take_if(|(expected, _)| *expected == ticket)?;
        match (target, result) {
            (Target::Sealed, Err(FileError::NotFound)) if self.may_miss() => Some(self.sealed_step_done(now)),
            // There was no descriptor for it.
            (Target::Names | Target::Gone(_), Err(FileError::NoSpace)) => {
                if let Target::Gone(base) = target {
                    self.gone_later(base);
                }
                self.full_until_ms = Some(now.mono_ms + super::RETRY_MS);
                Some(LogEvent::None)
            }
            (_, Err(error)) => Some(self.device_failed(*error)),
            (Target::Names, Ok(_)) => {
                self.syncs.loose_names = false;
                Some(LogEvent::None)
            }
            (Target::Gone(base), Ok(_)) => {
                self.deletions.gone_below = base;
                Some(LogEvent::None)
            }
            (Target::Sealed, Ok(_)) => Some(self.sealed_step_done(now)),
            (Target::Active(position), Ok(_)) => Some(self.durable_to(position)),
        }
    }

    fn may_miss(&self) -> bool {
        self.syncs.sealed.front().is_some_and(Sealed::may_miss)
    }

    fn sealed_step_done(&mut self, now: Now) -> LogEvent {
        let sealed = self.syncs.sealed.front_mut().expect("the caller saw it");
        sealed.advance();
        if sealed.step().is_some() {
            return LogEvent::None;
        }
        let next = sealed.next_base_offset;
        self.syncs.sealed.pop_front();
        if self.written.offset_end > self.written.base_offset {
            self.syncs.unsynced_since_ms.get_or_insert(now.mono_ms);
        }
        let event = self.durable_to(LogPosition { offset: next, segment_base_offset: next, position: 0 });
        self.delete_below_start(now);
        event
    }

    fn durable_to(&mut self, position: LogPosition) -> LogEvent {
        if position.offset < self.durable.offset {
            return LogEvent::None;
        }
        assert!(position.offset <= self.written.offset_end, "what is synced was written");
        let has_moved = position.offset > self.durable.offset;
        self.durable = position;
        self.forget_mark();
        if has_moved { LogEvent::Appended } else { LogEvent::None }
    }

    /// Writes of all waiting index entries of the active segment.
    pub(super) fn index_ops(&mut self) -> Vec<FileOp> {
        self.pending_index.flush_started();
        let (index, base): (&PendingIndex, i64) = (&self.pending_index, self.written.base_offset);
        let active = self.segments.back().expect("a log has an active segment");
        let mut ops = Vec::with_capacity(2);
        if !index.offsets.is_empty() {
            let file = Stem::OffsetIndex(base).into();
            ops.push(FileOp::Write { file, position: active.index_bytes, bytes: index.offset_bytes(base) });
        }
        if !index.times.is_empty() {
            let file = Stem::TimeIndex(base).into();
            ops.push(FileOp::Write {
                file,
                position: active.time_index_bytes,
                bytes: index.time_bytes(base),
            });
        }
        ops
    }

    pub(super) fn flush_index_if_due(&mut self, now: Now) {
        if self.gather.rolling || self.state == State::LastJob {
            return;
        }
        if self.pending_index.flush_due(self.written.position, now.mono_ms) {
            let offset_entries = self.pending_index.offsets.len();
            let time_entries = self.pending_index.times.len();
            let ops = self.index_ops();
            self.jobs.plan(Purpose::IndexFlush { offset_entries, time_entries }, ops);
        }
    }

    pub(super) fn index_flushed(&mut self, now: Now, offset_entries: usize, time_entries: usize) {
        let active = self.active_mut();
        active.index_bytes += offset_entries as u64 * OFFSET_ENTRY_BYTES;
        active.time_index_bytes += time_entries as u64 * TIME_ENTRY_BYTES;
        self.pending_index.flushed(offset_entries, time_entries, now.mono_ms);
    }

    /// When [`Self::wake`] should be called, on the monotonic clock.
    pub fn next_wake_ms(&self) -> Option<u64> {
        if let State::Retired { delete_at_ms } = self.state {
            return if self.jobs.is_idle() { Some(delete_at_ms) } else { self.full_until_ms };
        }
        let again = [self.create_again_ms, self.full_until_ms];
        if self.state == State::Truncating {
            return again.into_iter().flatten().min();
        }
        if self.state != State::Open {
            return self.full_until_ms;
        }
        // Names go before what is in the files, and after a full device they wait until it is tried again.
        let names_wait = self.syncs.loose_names && self.full_until_ms.is_some();
        let sync_waits = self.syncs.in_flight.is_some() || self.sync_waits_for_allocation() || names_wait;
        let sync = if sync_waits { None } else { self.sync_wake_ms() };
        let holds = !self.tail.is_empty() || self.rests_with_surplus();
        let rest = (holds && self.gather.is_idle()).then_some(self.appended_ms + TAIL_IDLE_MS);
        let index = if self.gather.rolling { None } else { self.pending_index.wake_ms() };
        [sync, rest, index, self.deletions.wake_ms()].into_iter().chain(again).flatten().min()
    }

    /// Does what is due by the clock: syncs, index entries, deletions, giving memory back.
    pub fn wake(&mut self, now: Now) {
        self.remove_if_due(now);
        self.full_until_ms = self.full_until_ms.filter(|until| *until > now.mono_ms);
        let needs_files = matches!(self.state, State::Open | State::Truncating);
        if needs_files && self.create_again_ms.take_if(|due| *due <= now.mono_ms).is_some() {
            self.plan_creation();
        }
        if self.state != State::Open {
            return;
        }
        self.flush_index_if_due(now);
        self.delete_due(now);
        if self.gather.is_idle() && self.appended_ms + TAIL_IDLE_MS <= now.mono_ms {
            self.tail.clear();
            self.pending_index.shrink();
            self.gather.shrink();
            self.give_back_at_rest();
        }
    }

    /// Begins the clean stop: no more appends; what is on its way is written, then indexes and a
    /// producer snapshot at the log end, and everything is synced. A truncation under way comes to its end first. Ends
    /// with [`LogEvent::Closed`], or at once where there is nothing to do ([`Log::is_closed`]): of thousands of logs
    /// most rest, and five syncs for each of them would hold up a stop.
    pub fn begin_close(&mut self, now: Now) {
        if let Some(truncation) = &mut self.truncation {
            truncation.is_closing = true;
            self.full_until_ms = None;
            self.advance_truncation();
        } else if self.state == State::Open {
            self.state = State::Closing;
            // One more try: a stop does not wait for space.
            self.full_until_ms = None;
            self.end_turn(now);
            self.closing_at = now;
            if !self.is_busy() && self.is_as_left() && !self.syncs.names_unsure {
                self.state = State::Closed;
            }
            self.advance_close();
        }
    }

    /// Whether anything is on its way.
    pub(super) fn is_busy(&self) -> bool {
        !self.gather.is_idle()
            || !self.jobs.is_idle()
            || self.syncs.in_flight.is_some()
            || self.ahead.is_busy()
    }

    /// Whether the files are as a clean stop leaves them, but perhaps for their names.
    fn is_as_left(&self) -> bool {
        let is_whole = self.syncs.sealed.is_empty() && self.durable.offset == self.written.offset_end;
        let is_known = self.create_again_ms.is_none() && self.marked_until.is_none();
        is_whole && is_known && !self.syncs.touched && !self.epochs_dirty && !self.ahead.surplus
    }

    /// Plans the last job once nothing is on its way.
    pub(super) fn advance_close(&mut self) {
        if self.state != State::Closing || self.is_busy() {
            return;
        }
        self.state = State::LastJob;
        if self.create_again_ms.take().is_some() {
            // A full device refused its creation, so there is nothing to write; the next start creates it.
            return self.jobs.plan_one(Purpose::Close, FileOp::SyncParent);
        }
        if self.is_as_left() {
            return self.jobs.plan_one(Purpose::Close, FileOp::SyncDir);
        }
        let mut ops = self.last_index_ops(self.closing_at);
        ops.extend(self.last_give_back());
        if self.epochs_dirty {
            ops.extend(self.epochs_ops());
        }
        let file = Stem::ProducerSnapshot(self.written.offset_end).into();
        ops.push(FileOp::Create { file, preallocate_bytes: 0 });
        ops.push(FileOp::Write { file, position: 0, bytes: self.producers.snapshot() });
        ops.push(FileOp::Sync { file });
        let mut may_miss = Vec::new();
        for mut sealed in self.syncs.sealed.drain(..) {
            while let Some(op) = sealed.step() {
                if sealed.may_miss() {
                    may_miss.push(op)
                } else {
                    ops.push(op)
                }
                sealed.advance();
            }
        }
        if !may_miss.is_empty() {
            self.jobs.plan_tolerant(Purpose::LastSnapshots, may_miss);
        }
        let base = self.written.base_offset;
        let files = [Stem::Log(base), Stem::OffsetIndex(base), Stem::TimeIndex(base)];
        ops.extend(files.map(|stem| FileOp::Sync { file: stem.into() }));
        ops.push(FileOp::SyncDir);
        self.jobs.plan(Purpose::Close, ops);
    }

    /// A full device keeps the clean stop from its end: what is in the files is recovered at the next start.
    pub(super) fn close_unclean(&mut self) -> LogEvent {
        self.jobs.abandon();
        let _ = self.drop_reserved(FileError::NoSpace);
        self.unclean = true;
        self.truncation = None;
        self.state = State::Closed;
        LogEvent::Closed
    }

    /// Whether the log was closed without everything that a clean stop writes.
    pub fn is_unclean(&self) -> bool {
        self.unclean
    }
}
