//! Checks of batches that take longer than a turn may: they go on turn after turn, a slice at a time.
//!
//! Invariant: at most [`UNDER_WAY_MAX`] of them hold decompressed bytes and codec states; those behind them wait
//! for their turn with nothing but their frame.

use super::Shard;
use crate::effect::Now;
use crate::log::check::Budget;
use crate::partition::ReplyTo;
use crate::request::Work;

/// Checks that take turns; more are begun when one of them has ended.
const UNDER_WAY_MAX: usize = 4;

impl Shard {
    /// A request was started: queues the rest of its check, if any is left.
    pub(super) fn queue_check(&mut self, to: ReplyTo, work: &mut Work) {
        if !work.is_checking() {
            return;
        }
        if self.checking.len() >= UNDER_WAY_MAX {
            work.rewind_check();
        }
        self.checking.push_back(to);
    }

    /// One slice of the checks that are under way. One whose connection is gone ends with it.
    pub(super) fn check_on(&mut self, now: Now) {
        let mut budget = Budget::new(Budget::SLICE_NS);
        while !budget.is_spent()
            && let Some(to) = self.checking.pop_front()
        {
            let mut left = false;
            self.with_work(now, to, |work, _, to, scene| {
                work.check_on(to, scene, &mut budget);
                left = work.is_checking();
            });
            if left {
                self.checking.insert(self.checking.len().min(UNDER_WAY_MAX - 1), to);
            } else {
                // Whether or not it waits for answers: the request behind it may start.
                self.pump_later(to);
            }
        }
    }
}
