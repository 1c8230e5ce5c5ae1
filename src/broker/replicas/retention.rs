//! Retention's rounds over the replicas of one shard, and the log starts on their way into the checkpoint.
//!
//! A round looks at some slots per turn and rests a moment between turns: with 100,000
//! replicas on a shard no turn is longer for it.

use uuid::Uuid;

use super::{Progress, Replicas};
use crate::config::NodeConfig;
use crate::effect::Now;

/// Slots that one turn looks at.
const SLOTS_PER_TURN: u32 = 256;
/// Rest between the turns of a round.
const REST_MS: u64 = 1;

/// Where the round over the replicas is.
#[derive(Debug)]
pub(super) struct Round {
    interval_ms: u64,
    /// The slot to look at next.
    slot_next: u32,
    /// When the round goes on.
    at_ms: u64,
    began_ms: u64,
}

impl Round {
    pub(super) fn new(config: &NodeConfig) -> Self {
        Self {
            interval_ms: config.log_retention_check_interval_ms,
            slot_next: 0,
            at_ms: config.log_initial_task_delay_ms,
            began_ms: 0,
        }
    }
}

impl Replicas {
    /// When [`Self::go_round`] has something to do.
    pub(super) fn next_round_ms(&self) -> Option<u64> {
        (!self.closing && !self.slots.is_empty()).then_some(self.round.at_ms)
    }

    /// Has the next replicas look at their retention, if it is time.
    pub(super) fn go_round(&mut self, now: Now) {
        if self.closing || now.mono_ms < self.round.at_ms {
            return;
        }
        let first = self.round.slot_next;
        if first == 0 {
            self.round.began_ms = now.mono_ms;
        }
        let slots_end = u32::try_from(self.slots.capacity()).unwrap_or(u32::MAX);
        let end = first.saturating_add(SLOTS_PER_TURN).min(slots_end);
        for slot in first..end {
            self.step(slot, |partition, effects| partition.apply_retention(now, effects));
        }
        let is_over = end >= slots_end;
        let next_ms = self.round.began_ms.saturating_add(self.round.interval_ms);
        self.round.slot_next = if is_over { 0 } else { end };
        self.round.at_ms = now.mono_ms.saturating_add(REST_MS).max(if is_over { next_ms } else { 0 });
    }

    /// Replicas whose log start is to be stored.
    pub(in crate::broker) fn take_log_starts(&mut self) -> Vec<Progress> {
        std::mem::take(&mut self.log_starts)
    }

    /// The checkpoint holds the log start of a replica.
    pub(in crate::broker) fn log_start_stored(
        &mut self,
        now: Now,
        (topic_id, partition): (Uuid, i32),
        log_start_offset: i64,
    ) {
        if let Some(slot) = self.by_partition.get(&(topic_id, partition)).copied() {
            self.step(slot, |partition, effects| partition.log_start_stored(now, log_start_offset, effects));
        }
    }
}
