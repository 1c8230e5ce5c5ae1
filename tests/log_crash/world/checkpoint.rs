//! The checkpoint beside the log: what is asked for comes into it, later or never, and in order.

use super::World;

/// What the files of the log directory say of this log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Checkpoint {
    pub recovery_point: i64,
    pub log_start: i64,
}

/// A log start on its way into the checkpoint.
#[derive(Clone, Copy, Debug)]
pub(super) enum Store {
    Higher(i64),
    Lower(i64),
}

impl World {
    pub(super) fn move_log_start(&mut self, offset: i64) {
        if offset > self.log.log_start_promised() && self.log.promise_log_start(offset) {
            self.stores.push_back(Store::Higher(offset));
            if self.rng.bool() {
                self.store_one();
            }
        }
    }

    /// The checkpoint takes a log start over, and the log hears of it.
    pub(super) fn store_one(&mut self) {
        let Some(store) = self.store() else { return };
        match store {
            // One of the log before a truncation has no meaning any more.
            Store::Higher(offset) if offset <= self.log.log_start_promised() => {
                self.log.delete_records(self.now, offset);
                if !self.log.is_truncating() {
                    self.log_start = self.log.log_start_offset();
                }
            }
            Store::Higher(_) => {}
            Store::Lower(offset) => self.log.log_start_lowered(offset),
        }
    }

    pub(super) fn store(&mut self) -> Option<Store> {
        let store = self.stores.pop_front()?;
        match store {
            Store::Higher(offset) => self.checkpoint.log_start = self.checkpoint.log_start.max(offset),
            Store::Lower(offset) => {
                self.tally.starts_lowered += 1;
                self.checkpoint.log_start = offset;
                if let Some(surveyed) = &mut self.surveyed {
                    surveyed.log_start = offset;
                }
            }
        }
        Some(store)
    }

    pub(super) fn store_survey(&mut self, surveyed: Checkpoint) {
        let log_start = self.checkpoint.log_start.max(surveyed.log_start);
        self.checkpoint = Checkpoint { log_start, ..surveyed };
    }

    pub(super) fn reached_now(&self) -> Checkpoint {
        Checkpoint { recovery_point: self.log.recovery_point(), log_start: self.log.log_start_promised() }
    }

    /// The recovery point goes into the checkpoint, at once or after others things have happened.
    pub(super) fn survey(&mut self) {
        match self.surveyed.take() {
            Some(surveyed) => self.store_survey(surveyed),
            None => self.surveyed = Some(self.reached_now()),
        }
    }
}
