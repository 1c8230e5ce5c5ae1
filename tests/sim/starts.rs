//! Where logs start: what was asked for, what anybody has seen, and what may not be so.

use crate::history::{History, Place};
use crate::tuner::RETENTION_MS_MIN;

impl History {
    /// The highest log start that anybody has seen.
    pub fn start_known(&self, place: Place) -> i64 {
        self.known.get(&place).map_or(0, |known| known.start.seen)
    }

    /// A deletion below this offset (-1: below the high watermark) is on its way.
    pub fn asks_deletion(&mut self, place: Place, offset: i64) {
        let start = &mut self.known.entry(place).or_default().start;
        match offset {
            -1 => start.whole += 1,
            _ => start.asked = start.asked.max(offset),
        }
    }

    /// A deletion was acknowledged: the log starts there.
    pub fn deletion_answered(&mut self, place: Place, offset: i64, low_watermark: i64) {
        let start = &mut self.known.entry(place).or_default().start;
        if offset == -1 {
            start.whole -= 1;
            start.asked = start.asked.max(low_watermark);
        }
    }

    /// A log start that a client saw. `at_least` is what was known when it asked.
    pub fn saw_start(&mut self, place: Place, start: i64, at_least: i64, wall_ms: i64) {
        assert!(
            start >= at_least,
            "log start regression: {place:?} started at {at_least} and starts at {start}"
        );
        let known = self.known.entry(place).or_default();
        let before = known.start.seen;
        if start <= before {
            return;
        }
        known.start.seen = start;
        self.starts_seen += 1;
        self.check_moved(place, before, start, wall_ms);
    }

    /// Whether anybody deletes records, or they grow too old.
    pub fn takes_away(&self) -> bool {
        self.shortens.retains() || self.shortens.by_request
    }

    /// Whether records of this offset may be gone.
    pub fn may_be_gone(&self, place: Place, offset: i64) -> bool {
        let start = self.known.get(&place).map(|known| &known.start);
        self.shortens.retains() || start.is_some_and(|start| start.whole > 0 || offset < start.asked)
    }

    /// Nothing is given up that nobody asked to give up.
    fn check_moved(&self, place: Place, before: i64, start: i64, wall_ms: i64) {
        let known = &self.known[&place];
        if known.start.whole > 0 || start <= known.start.asked {
            return;
        }
        assert!(
            self.shortens.retains(),
            "missing: {place:?} starts at {start}, and no more than {} was to be deleted",
            known.start.asked
        );
        if self.shortens.by_size || self.clock_jumps {
            return;
        }
        for (_, id) in known.records.range(before.max(known.start.asked)..start) {
            let age_ms = wall_ms - self.find(*id).expect("known records were sent").timestamp_ms;
            assert!(
                age_ms > RETENTION_MS_MIN,
                "missing: {place:?} starts at {start}, and record {id:x} below it is {age_ms} ms old"
            );
        }
    }
}
