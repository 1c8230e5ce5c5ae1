//! The end of a log whose topic was deleted: its directory is renamed, so that the name is free,
//! and deleted after `file.delete.delay.ms`, so that readers under way may finish.

use super::jobs::Purpose;
use super::{Log, State};
use crate::effect::{FileOp, Now};

impl Log {
    /// Begins the deletion: no more appends; when nothing is on its way any more the directory is
    /// renamed ([`LogEvent::Retired`](super::LogEvent::Retired)), later deleted
    /// ([`LogEvent::Deleted`](super::LogEvent::Deleted)).
    pub fn begin_delete(&mut self, now: Now) {
        if matches!(self.state, State::Open | State::Closing | State::Truncating) {
            self.state = State::Retiring;
            self.truncation = None;
            self.end_turn(now);
            self.advance_retire();
        }
    }

    /// Whether the directory is renamed and waits for its deletion.
    pub fn is_retired(&self) -> bool {
        matches!(self.state, State::Retired { .. })
    }

    pub(super) fn advance_retire(&mut self) {
        if self.state == State::Retiring && !self.is_busy() {
            self.jobs.plan(Purpose::Retire, vec![FileOp::RetireDir, FileOp::SyncParent]);
        }
    }

    pub(super) fn remove_if_due(&mut self, now: Now) {
        if let State::Retired { delete_at_ms } = self.state
            && delete_at_ms <= now.mono_ms
            && self.jobs.is_idle()
        {
            self.jobs.plan_one(Purpose::Remove, FileOp::DeleteDir);
        }
    }
}
