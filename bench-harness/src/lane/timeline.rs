//! When each batch of a partition was meant to be sent, kept until every timed reader has seen it.
//!
//! A partition with one writer, whose batches have one number of records, gives batch `n` the offset
//! `start + n × records`: a reader may see a batch before its writer sees the acknowledgement, and still finds it here.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

/// A timeline between one writer and its readers, all on one thread.
pub type Shared = Rc<RefCell<Timeline>>;

/// One partition's batches.
pub struct Timeline {
    offset_start: i64,
    records: i64,
    /// The number of the first batch in `meant`.
    first: u64,
    meant: VecDeque<Instant>,
    /// How many batches each reader has seen.
    seen: Vec<u64>,
}

impl Timeline {
    /// Of a partition that ends at `offset_start`, for batches of that many records.
    pub fn new(offset_start: i64, records: usize) -> Timeline {
        let records = i64::try_from(records).expect("a batch has few records");
        Timeline { offset_start, records, first: 0, meant: VecDeque::new(), seen: Vec::new() }
    }

    /// Adds a reader and returns its number.
    pub fn join(&mut self) -> usize {
        self.seen.push(0);
        self.seen.len() - 1
    }

    /// The next batch is sent, and was meant to be at that moment.
    pub fn send(&mut self, meant: Instant) {
        self.meant.push_back(meant);
    }

    /// The offset behind all that was sent.
    pub fn offset_end(&self) -> i64 {
        self.offset_start + (self.first + self.meant.len() as u64) as i64 * self.records
    }

    /// A reader has the batch at an offset; returns when it was meant to be sent.
    pub fn reach(&mut self, reader: usize, offset: i64) -> Result<Instant> {
        let since = offset - self.offset_start;
        ensure!(
            since >= 0 && since % self.records == 0,
            "no batch was sent that would be at offset {offset}"
        );
        let number = (since / self.records) as u64;
        let seen = self.seen.get_mut(reader).context("a reader that never joined")?;
        ensure!(number == *seen, "a reader got batch {number} of the run where {seen} is due");
        *seen = number + 1;
        let at =
            number.checked_sub(self.first).and_then(|index| self.meant.get(usize::try_from(index).ok()?));
        let meant = *at.with_context(|| format!("offset {offset} was fetched before it was sent"))?;
        let all = self.seen.iter().copied().min().unwrap_or(0);
        while self.first < all && self.meant.pop_front().is_some() {
            self.first += 1;
        }
        Ok(meant)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_reader_finds_the_moment_and_the_last_one_lets_it_go() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut timeline = Timeline::new(100, 10);
        let (one, other) = (timeline.join(), timeline.join());
        timeline.send(start);
        timeline.send(start + second);
        assert_eq!(timeline.offset_end(), 120);
        assert_eq!(timeline.reach(one, 100).unwrap(), start);
        assert_eq!(timeline.reach(one, 110).unwrap(), start + second);
        assert_eq!(timeline.meant.len(), 2, "the other reader has seen none");
        assert_eq!(timeline.reach(other, 100).unwrap(), start);
        assert_eq!((timeline.meant.len(), timeline.offset_end()), (1, 120));
    }

    #[test]
    fn a_batch_that_was_not_sent_or_is_skipped_or_comes_twice_is_an_error() {
        let mut timeline = Timeline::new(0, 10);
        let reader = timeline.join();
        assert!(timeline.reach(reader, 0).is_err(), "not sent");
        let mut timeline = Timeline::new(0, 10);
        let reader = timeline.join();
        (0..3).for_each(|_| timeline.send(Instant::now()));
        assert!(timeline.reach(reader, 5).is_err(), "no batch begins there");
        assert!(timeline.reach(reader, 10).is_err(), "the first is skipped");
        timeline.reach(reader, 0).unwrap();
        assert!(timeline.reach(reader, 0).is_err(), "twice");
    }
}
