//! When requests want to be woken.
//!
//! A request that is answered before its time leaves its timer behind, since most are and taking each out would cost
//! every long poll a search. Clients choose these times, up to weeks, so now and then what is left behind is forgotten:
//! whenever the timers have doubled, which costs each of them a constant time.

use std::collections::BTreeSet;

use crate::partition::ReplyTo;
use crate::request::Timer;

/// So many are nobody's concern.
const LEFT_MAX: usize = 64;

/// The timers of one shard's requests, in the order in which they ring.
#[derive(Debug, Default)]
pub(super) struct Timers {
    set: BTreeSet<Timer>,
    /// How many were left when they were looked through last.
    left: usize,
}

impl Timers {
    /// Adds timers.
    pub(super) fn extend(&mut self, timers: impl Iterator<Item = Timer>) {
        self.set.extend(timers);
    }

    /// When the next one rings.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.set.first().map(|timer| timer.at_ms)
    }

    /// The next one that has rung by now.
    pub(super) fn rung(&mut self, now_ms: u64) -> Option<ReplyTo> {
        self.set.first().filter(|timer| timer.at_ms <= now_ms)?;
        self.set.pop_first().map(|timer| timer.to)
    }

    /// Whether they are worth looking through.
    pub(super) fn have_doubled(&self) -> bool {
        self.set.len() > LEFT_MAX.max(2 * self.left)
    }

    /// Forgets those that nobody waits for any more.
    pub(super) fn keep(&mut self, mut waits: impl FnMut(ReplyTo) -> bool) {
        self.set.retain(|timer| waits(timer.to));
        self.left = self.set.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timer(at_ms: u64, request: u32) -> Timer {
        Timer { at_ms, to: ReplyTo { shard: 0, connection: 0, generation: 0, request, part: 0 } }
    }

    #[test]
    fn timers_ring_in_order_and_not_before_their_time() {
        let mut timers = Timers::default();
        timers.extend([timer(20, 1), timer(10, 2)].into_iter());
        assert_eq!((timers.next_ms(), timers.rung(9)), (Some(10), None));
        assert_eq!(timers.rung(20).map(|to| to.request), Some(2));
        assert_eq!(timers.rung(20).map(|to| to.request), Some(1));
        assert_eq!((timers.next_ms(), timers.rung(u64::MAX)), (None, None));
    }

    #[test]
    fn what_answered_requests_leave_behind_is_bounded_however_late_it_would_ring() {
        let mut timers = Timers::default();
        let mut looked = 0;
        for request in 0..100_000 {
            timers.extend(std::iter::once(timer(u64::MAX, request)));
            if timers.have_doubled() {
                looked += timers.set.len();
                timers.keep(|to| to.request % 1_000 == 0);
            }
            assert!(timers.set.len() <= 1 + LEFT_MAX.max(2 * timers.left));
        }
        assert!(looked < 3 * 100_000, "{looked} looks");
        timers.keep(|to| to.request % 1_000 == 0);
        assert_eq!(timers.set.len(), 100, "who waits is not forgotten");
    }
}
