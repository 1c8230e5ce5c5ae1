//! Blocks reserved ahead of the appends. A write behind a file's end takes blocks from the file system page by page,
//! and waits while the write-back of the same file does so too (20 to 100 ms on ext4); a write into reserved blocks
//! does neither. So a helper reserves them, as much ahead as the segment is long, 64 MiB at most.
//!
//! A segment gives back what it did not use when it is rolled or closed, and when nothing was appended for a while.

use super::jobs::Purpose;
use super::{Log, LogEvent, State};
use crate::config::TopicConfig;
use crate::effect::{FileError, FileOp, FileResult, Stem, Ticket};

/// Bytes from which on a segment gets blocks ahead: a small one has no write-back to wait for.
const FROM_BYTES: u64 = 1 << 20;

/// The same where segments are small: an eighth of one, but not less than this.
const FROM_BYTES_MIN: u64 = 8 << 10;

/// Most bytes reserved at once.
const STEP_BYTES_MAX: u64 = 64 << 20;

/// What the device keeps for everybody else.
const SPARE_BYTES: u64 = 1 << 30;

/// An operation on its way.
#[derive(Clone, Copy, Debug)]
struct Flight {
    ticket: Ticket,
    segment_base_offset: i64,
    end: u64,
}

/// What the active segment has reserved.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// There may be blocks behind the written end.
    pub(super) surplus: bool,
    /// Blocks are reserved up to this position.
    end: u64,
    in_flight: Option<Flight>,
    /// The device had too little left; the next segment asks again.
    refused: bool,
    /// Something was appended since the log was opened or came to rest.
    pub(super) is_wanted: bool,
}

impl Ahead {
    /// That of a segment that was found with so many bytes: who reserved what behind them is not known.
    pub(super) fn found(length_bytes: u64, config: &TopicConfig) -> Self {
        Self { surplus: config.preallocate || length_bytes >= from_bytes(config), ..Self::default() }
    }

    /// Begins with a segment whose file was created with that many bytes reserved.
    pub(super) fn restart(&mut self, preallocated_bytes: u64) {
        self.surplus = preallocated_bytes > 0;
        self.end = preallocated_bytes;
        self.refused = false;
    }

    /// The blocks behind the segment's end are given back, but for those that are on their way.
    pub(super) fn given_back(&mut self) {
        self.surplus = self.in_flight.is_some();
        self.end = 0;
    }

    /// Whether a helper is reserving blocks for this segment.
    pub(super) fn is_busy_with(&self, segment_base_offset: i64) -> bool {
        self.in_flight.is_some_and(|flight| flight.segment_base_offset == segment_base_offset)
    }

    /// Whether a helper is reserving blocks.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight.is_some()
    }
}

/// Where a segment begins to have blocks ahead.
fn from_bytes(config: &TopicConfig) -> u64 {
    FROM_BYTES.min((config.segment_bytes / 8).max(FROM_BYTES_MIN))
}

impl Log {
    /// Reserves more where the appends come near the end of what is reserved.
    pub(super) fn next_allocation(&mut self) -> Option<(Ticket, FileOp)> {
        let ahead = &self.ahead;
        let (position, segment_bytes) = (self.written.position, self.config.segment_bytes);
        if !ahead.is_wanted
            || position < from_bytes(&self.config)
            || ahead.in_flight.is_some()
            || ahead.refused
            || self.gather.rolling
            || self.state != State::Open
        {
            return None;
        }
        let step = position.min(STEP_BYTES_MAX);
        let from = ahead.end.max(position);
        let end = (from + step).min(segment_bytes);
        if from - position > step / 2 || end <= from {
            return None;
        }
        let ticket = self.jobs.ticket();
        let segment_base_offset = self.written.base_offset;
        self.ahead.in_flight = Some(Flight { ticket, segment_base_offset, end });
        self.ahead.surplus = true;
        let file = Stem::Log(segment_base_offset).into();
        Some((
            ticket,
            FileOp::Allocate { file, position: from, length: end - from, spare_bytes: SPARE_BYTES },
        ))
    }

    /// Takes the completion of an allocation; `None` if the ticket is not that of one.
    pub(super) fn allocated(&mut self, ticket: Ticket, result: &FileResult) -> Option<LogEvent> {
        let flight = self.ahead.in_flight.take_if(|flight| flight.ticket == ticket)?;
        if self.state != State::Open {
            // What goes gives everything back, and what is closed has its surplus cut with its last job.
            return Some(LogEvent::None);
        }
        // A segment that was rolled meanwhile gives everything back when it is synced.
        let active = flight.segment_base_offset == self.written.base_offset && !self.gather.rolling;
        match result {
            Ok(_) if active => self.ahead.end = flight.end,
            Err(FileError::NoSpace | FileError::Short { .. }) if active => {
                self.ahead.refused = true;
                self.give_back();
            }
            Ok(_) | Err(FileError::NoSpace | FileError::Short { .. } | FileError::NotFound) => {}
            Err(error) => return Some(self.device_failed(*error)),
        }
        Some(LogEvent::None)
    }

    /// Gives back what the active segment has not used. Not while an append is on its way: it may end behind the
    /// written end by then.
    fn give_back(&mut self) {
        if self.gather.is_idle()
            && let Some(cut) = self.last_give_back()
        {
            self.jobs.plan_one(Purpose::GiveBack, cut);
        }
    }

    /// Whether something is reserved that a log at rest gives back.
    pub(super) fn rests_with_surplus(&self) -> bool {
        self.ahead.surplus && !self.ahead.is_busy() && !self.config.preallocate
    }

    /// The log rests: others may have what it has reserved.
    pub(super) fn give_back_at_rest(&mut self) {
        if self.rests_with_surplus() {
            self.ahead.is_wanted = false;
            self.give_back();
        }
    }

    /// What leaves the active segment without surplus, if it has any; nothing is on its way to it.
    pub(super) fn last_give_back(&mut self) -> Option<FileOp> {
        let surplus = self.ahead.surplus;
        self.ahead.given_back();
        let file = Stem::Log(self.written.base_offset).into();
        surplus.then_some(FileOp::Truncate { file, length: self.written.position })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Driver, batch, small};
    use super::*;
    use crate::log::memory_dir::Kind;

    /// Segments of 64 KiB: blocks are reserved from 8 KiB on.
    fn config() -> TopicConfig {
        TopicConfig { segment_bytes: 64 << 10, ..small() }
    }

    /// What the log asks of its directory for one batch of about 1 kB.
    fn ops_of_append(driver: &mut Driver) -> Vec<FileOp> {
        let before = driver.ops.len();
        driver.append(&batch(&[1], 1000));
        driver.ops.split_off(before)
    }

    fn reserved(ops: &[FileOp]) -> Vec<(u64, u64)> {
        let each = ops.iter().filter_map(|op| match op {
            FileOp::Allocate { position, length, .. } => Some((*position, position + length)),
            _ => None,
        });
        each.collect()
    }

    fn cuts(ops: &[FileOp]) -> Vec<u64> {
        let each = ops.iter().filter_map(|op| match op {
            FileOp::Truncate { length, .. } => Some(*length),
            _ => None,
        });
        each.collect()
    }

    #[test]
    fn blocks_are_reserved_as_far_ahead_as_the_segment_is_long_and_not_beyond_its_limit() {
        let mut driver = Driver::new(config());
        let mut ranges = Vec::new();
        while driver.log.segments().len() == 1 {
            let ops = ops_of_append(&mut driver);
            let written = driver.log.segments().last().unwrap().length_bytes;
            ranges.extend(reserved(&ops).into_iter().map(|range| (written, range)));
        }
        let (first_written, first) = ranges.first().copied().unwrap();
        assert!((8 << 10..10 << 10).contains(&first_written), "{first_written}");
        assert_eq!(first, (first_written, 2 * first_written));
        assert!(ranges.windows(2).all(|pair| pair[0].1.1 == pair[1].1.0), "without gaps: {ranges:?}");
        assert_eq!(ranges.last().unwrap().1.1, 64 << 10);
    }

    #[test]
    fn a_rolled_segment_is_cut_to_its_length_before_it_is_synced() {
        let mut driver = Driver::new(config());
        while driver.log.segments().len() == 1 {
            driver.append(&batch(&[1], 1000));
        }
        let length = driver.log.segments().next().unwrap().length_bytes;
        let log = FileOp::Sync { file: Stem::Log(0).into() };
        let cut = FileOp::Truncate { file: Stem::Log(0).into(), length };
        let at = |op: &FileOp| driver.ops.iter().position(|done| done == op);
        assert!(at(&cut).unwrap() < at(&log).unwrap());
    }

    #[test]
    fn a_log_at_rest_gives_back_what_it_has_reserved_and_reserves_again_when_it_is_written() {
        let mut driver = Driver::new(config());
        while reserved(&ops_of_append(&mut driver)).is_empty() {}
        let before = driver.ops.len();
        driver.pass(61_000);
        let length = driver.log.size_bytes();
        assert_eq!(cuts(&driver.ops.split_off(before)), [length]);
        let due_ms = driver.log.next_wake_ms();
        assert!(due_ms.is_none_or(|due| due > driver.now.mono_ms), "{due_ms:?} is due: {:?}", driver.log);
        assert_eq!(reserved(&ops_of_append(&mut driver)).len(), 1);
    }

    #[test]
    fn a_clean_stop_leaves_no_surplus() {
        let mut driver = Driver::new(config());
        while reserved(&ops_of_append(&mut driver)).is_empty() {}
        let before = driver.ops.len();
        driver.log.begin_close(driver.now);
        assert!(driver.run().contains(&LogEvent::Closed));
        assert_eq!(cuts(&driver.ops.split_off(before)), [driver.log.size_bytes()]);
    }

    #[test]
    fn a_device_with_too_little_left_is_asked_once_for_each_segment() {
        let mut driver = Driver::new(config());
        driver.dir.fail_next(Kind::Allocate, FileError::NoSpace);
        while driver.log.segments().len() == 1 {
            driver.append(&batch(&[1], 1000));
        }
        assert_eq!(reserved(&driver.ops).len(), 1);
        while reserved(&ops_of_append(&mut driver)).is_empty() {}
    }
}
