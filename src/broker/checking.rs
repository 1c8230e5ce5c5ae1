//! Checks of batches that take longer than a turn may: they go on turn after turn, a slice at a time.
//!
//! Those whose cost is out of proportion to what was sent (a small batch that decompresses to a large one) have a
//! lane of their own. While the shard also serves requests of others, a slice of it is followed by a rest of
//! many times its length, so that whoever sends them slows down only itself. Whoever is alone is checked
//! without a rest.
//!
//! Invariant: in each lane at most [`UNDER_WAY_MAX`] hold decompressed bytes and codec states; those behind them
//! wait for their turn with nothing but their frame.

use std::collections::VecDeque;

use super::Shard;
use crate::effect::Now;
use crate::log::check::Budget;
use crate::partition::ReplyTo;
use crate::request::Work;

/// Checks of a lane that take turns; more are begun when one of them has ended.
const UNDER_WAY_MAX: usize = 4;
/// How long checks out of proportion rest after a slice while others are served, in milliseconds. With a slice of
/// 0.25 ms they take a tenth of the shard's time.
const REST_MS: u64 = 3;

/// Requests whose check goes on in later turns, by lane, the next one first.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    in_proportion: VecDeque<ReplyTo>,
    out_of_proportion: VecDeque<ReplyTo>,
    /// When the latter go on, in monotonic milliseconds.
    rested_ms: u64,
    /// A request was started since their last slice that is not for these lanes.
    others: bool,
}

impl Lanes {
    /// When there is a check to go on with.
    pub fn next_wake_ms(&self) -> Option<u64> {
        let at_once = self.in_proportion.front().map(|_| 0);
        at_once.or_else(|| self.out_of_proportion.front().map(|_| self.rested_ms))
    }
}

impl Shard {
    /// A request was started: queues the rest of its check, if any is left.
    pub(super) fn queue_check(&mut self, to: ReplyTo, work: &mut Work) {
        if !work.is_checking() {
            self.checking.others = true;
            return;
        }
        let lane = if work.is_out_of_proportion() {
            &mut self.checking.out_of_proportion
        } else {
            &mut self.checking.in_proportion
        };
        if lane.len() >= UNDER_WAY_MAX {
            work.rewind_check();
        }
        lane.push_back(to);
    }

    /// One slice of the checks that are under way. One whose connection is gone ends with it.
    pub(super) fn check_on(&mut self, now: Now) {
        let mut budget = Budget::new(Budget::SLICE_NS);
        while !budget.is_spent()
            && let Some(to) = self.checking.in_proportion.pop_front()
        {
            self.check_one(now, to, false, &mut budget);
        }
        if self.checking.out_of_proportion.is_empty() || now.mono_ms < self.checking.rested_ms {
            return;
        }
        let mut budget = Budget::new(Budget::OUT_OF_PROPORTION_NS);
        while !budget.is_spent()
            && let Some(to) = self.checking.out_of_proportion.pop_front()
        {
            self.check_one(now, to, true, &mut budget);
        }
        let rest_ms = if std::mem::take(&mut self.checking.others) { REST_MS } else { 0 };
        self.checking.rested_ms = now.mono_ms + rest_ms;
    }

    fn check_one(&mut self, now: Now, to: ReplyTo, was_out: bool, budget: &mut Budget) {
        let room = self.checking.out_of_proportion.len() < UNDER_WAY_MAX;
        let (mut left, mut is_out) = (false, was_out);
        self.with_work(now, to, |work, _, to, scene| {
            work.check_on(to, scene, budget);
            left = work.is_checking();
            is_out = work.is_out_of_proportion();
            if left && is_out && !was_out && !room {
                work.rewind_check();
            }
        });
        if !left {
            // Whether or not it waits for answers: the request behind it may start.
            return self.pump_later(to);
        }
        let lane =
            if is_out { &mut self.checking.out_of_proportion } else { &mut self.checking.in_proportion };
        // Those that have begun take turns before another one begins.
        let at = if is_out && !was_out { lane.len() } else { lane.len().min(UNDER_WAY_MAX - 1) };
        lane.insert(at, to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_checks_out_of_proportion_wait_for_the_end_of_a_rest() {
        let to = ReplyTo { shard: 0, connection: 1, generation: 1, request: 1, part: 0 };
        let mut lanes = Lanes { rested_ms: 7, ..Lanes::default() };
        assert_eq!(lanes.next_wake_ms(), None);
        lanes.out_of_proportion.push_back(to);
        assert_eq!(lanes.next_wake_ms(), Some(7));
        lanes.in_proportion.push_back(to);
        assert_eq!(lanes.next_wake_ms(), Some(0));
    }
}
