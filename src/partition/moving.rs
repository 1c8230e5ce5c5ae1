//! The moment in which a replica moves to another log directory (KIP-113): it is held, so that nothing of it is on its
//! way, and goes on with the same log in other files. What is copied, and when, is the shard's business.
//!
//! While it is held nobody calls it, and it fetches nothing. A log start that the checkpoint has taken meanwhile counts
//! when it goes on.

use super::effect::Effect;
use super::{Partition, State};
use crate::effect::{Now, Ticket};

impl Partition {
    /// Whether it serves what its role allows: only then it can move.
    pub fn is_online(&self) -> bool {
        self.state == State::Online
    }

    /// Nothing begins any more, until [`Self::release`]. False, and nothing changes, where something may take long.
    pub fn hold(&mut self, now: Now, effects: &mut Vec<Effect>) -> bool {
        let held = self.state == State::Online && self.log.hold();
        if held {
            self.log.end_turn(now);
            self.settle(now, effects);
        }
        held
    }

    /// Whether it is held and nothing of it is on its way to the files. Look-ups may read from them.
    pub fn is_still(&self) -> bool {
        self.log.is_still()
    }

    /// For an operation in its folder that is not the log's own.
    pub fn ticket(&mut self) -> Ticket {
        self.log.read_ticket()
    }

    /// It goes on; `moved` says that it does so in the files that were copied.
    pub fn release(&mut self, now: Now, moved: bool, effects: &mut Vec<Effect>) {
        self.log.release(now, moved);
        // It may have been asked under another address.
        self.end_turn_asked &= !moved;
        if let Some(log_start_offset) = self.deletions.stored_while_held.take() {
            self.log_start_stored(now, log_start_offset, effects);
        }
        self.settle(now, effects);
    }
}
