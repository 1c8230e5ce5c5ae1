//! Retention's rounds over the replicas of one shard, and the log starts on their way into the checkpoint.
//!
//! A round looks at some slots per turn and rests a moment between turns: with 100,000
//! replicas on a shard no turn is longer for it.

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

    /// The checkpoint holds the log start of a replica, or was lowered to it.
    pub(in crate::broker) fn log_start_stored(&mut self, now: Now, stored: &Progress) {
        let Progress { log_start_offset, lowers, .. } = *stored;
        let replica = (stored.topic_id, stored.partition);
        if self.start_is_there(now, stored) {
            return;
        }
        let Some(slot) = self.by_partition.get(&replica).copied() else { return };
        let is_here = self.slots.get(slot as usize).is_some_and(|entry| entry.directory == stored.directory);
        // What an attempt to move asked for says nothing of the checkpoint here.
        if is_here || !lowers {
            self.step(slot, |partition, effects| match lowers {
                true => partition.log_start_lowered(now, log_start_offset, effects),
                false => partition.log_start_stored(now, log_start_offset, effects),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use uuid::Uuid;

    use super::super::{Slot, State};
    use super::*;
    use crate::config::TopicConfig;
    use crate::controller::ShardId;
    use crate::log::producer::ProducerStates;
    use crate::log::{EpochCache, Log, Recovered, Segment};
    use crate::partition::Partition;

    const WALL_MS: i64 = 1_700_000_000_000;

    fn now(mono_ms: u64) -> Now {
        Now { mono_ms, wall_ms: WALL_MS }
    }

    /// A replica with a segment that has expired and an empty active one.
    fn expired() -> Partition {
        let old = Segment { length_bytes: 100, max_timestamp_ms: 1_000, ..Segment::empty(0) };
        let found = Recovered {
            topic_id: Some(Uuid::nil()),
            segments: vec![old, Segment::empty(9)],
            epochs: EpochCache::default(),
            producers: ProducerStates::default(),
            log_start_offset: 0,
            log_end: 9,
            durable_end: 9,
            is_synced: true,
            is_untouched: true,
            names_unsure: false,
            truncated_bytes: 0,
            last_index_entry: None,
            bytes_since_index_entry: 0,
            last_time_index_entry: None,
            tail: Vec::new(),
            quarantined: None,
            marked_until: None,
            start_on_file: None,
        };
        let config = Arc::new(TopicConfig::default());
        let mut partition = Partition::new(1, Arc::clone(&config), Log::recovered(found, config, now(0), 1));
        partition.restore(9, 30_000);
        partition
    }

    fn replicas(count: i32) -> Replicas {
        let config = NodeConfig {
            log_initial_task_delay_ms: 100,
            log_retention_check_interval_ms: 5_000,
            ..NodeConfig::default()
        };
        let mut replicas = Replicas::new(ShardId(0), &config, Arc::from([]));
        for partition in 0..count {
            let slot = replicas.slots.insert(Slot {
                topic_id: Uuid::nil(),
                topic: "t".into(),
                partition,
                directory: 0,
                state: State::Open(Box::new(expired())),
                in_flight: 0,
                wake_at_ms: None,
            });
            replicas.by_partition.insert((Uuid::nil(), partition), slot as u32);
        }
        replicas
    }

    /// The log start of a replica that is in the checkpoint.
    fn stored(partition: i32) -> Progress {
        Progress {
            directory: 0,
            topic_id: Uuid::nil(),
            topic: "t".into(),
            partition,
            recovery_point: 9,
            log_start_offset: 9,
            high_watermark: 9,
            gone_below: 0,
            lowers: false,
            unclean: false,
        }
    }

    #[test]
    fn a_round_looks_at_a_bounded_number_of_replicas_per_turn() {
        let mut replicas = replicas(600);
        assert_eq!(replicas.next_round_ms(), Some(100));
        replicas.go_round(now(99));
        assert!(replicas.take_log_starts().is_empty(), "it is not time yet");
        let mut seen = BTreeMap::new();
        let mut turns = 0;
        while let Some(at_ms) = replicas.next_round_ms().filter(|at_ms| *at_ms < 5_000) {
            replicas.go_round(now(at_ms));
            let starts = replicas.take_log_starts();
            assert!(starts.len() <= SLOTS_PER_TURN as usize, "{} in one turn", starts.len());
            seen.extend(starts.iter().map(|start| (start.partition, start.log_start_offset)));
            turns += 1;
        }
        assert!(turns >= 3, "{turns} turns");
        assert_eq!(seen, (0..600).map(|partition| (partition, 9)).collect());
        assert_eq!(replicas.next_round_ms(), Some(5_100), "an interval after the round began");
        replicas.go_round(now(5_100));
        assert!(replicas.take_log_starts().is_empty(), "what is on its way is not asked for again");
    }

    #[test]
    fn files_go_when_the_log_start_is_stored_and_one_at_a_time() {
        let mut replicas = replicas(1);
        replicas.go_round(now(100));
        assert!(replicas.outputs.is_empty(), "nothing goes before it is in the checkpoint");
        replicas.log_start_stored(now(101), &stored(0));
        assert_eq!(replicas.outputs.len(), 1, "{:?}", replicas.outputs);
        assert_eq!(replicas.partition(0).unwrap().log().log_start_offset(), 9);
        replicas.log_start_stored(now(102), &stored(7));
        assert_eq!(replicas.outputs.len(), 1, "a replica that is gone has nothing to do");
    }

    #[test]
    fn a_stop_ends_the_rounds() {
        let mut replicas = replicas(1);
        replicas.closing = true;
        assert_eq!(replicas.next_round_ms(), None);
        replicas.go_round(now(10_000));
        assert!(replicas.take_log_starts().is_empty());
    }
}
