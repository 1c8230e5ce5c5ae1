//! Throttled replication (KIP-73): replicas that are not in sync, of partitions that are named, share a limited rate.
//!
//! A leader tells a replica that it has nothing for it while the rate is above the limit; where the replica is counts
//! all the same. A follower asks for nothing meanwhile. What is in sync is never throttled, and counts in the rate.
//!
//! The rate is the node's. Each shard that leads (or follows with) throttled replicas has the same part of it; which
//! ones these are every shard sees in the view.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::replication::ReplicaKey;
use super::throttle::Throttle;
use super::{Replicas, State};
use crate::config::{NodeConfig, ThrottledReplicas};
use crate::controller::PartitionImage;
use crate::effect::Now;
use crate::partition::{Op, Reader};
use crate::request::{Call, ClusterView};

/// One side of it.
#[derive(Debug)]
struct Side {
    throttle: Throttle,
    is_limited: bool,
    /// Topics that name replicas of this side.
    topics: BTreeMap<Uuid, ThrottledReplicas>,
}

impl Side {
    fn new(config: &NodeConfig) -> Self {
        let limits = config.replication_limits;
        let throttle = Throttle::new(limits.windows, limits.window_ms);
        Self { throttle, is_limited: false, topics: BTreeMap::new() }
    }

    fn names(&self, (topic_id, partition): ReplicaKey, broker: i32) -> bool {
        self.is_limited && self.topics.get(&topic_id).is_some_and(|named| named.contains(partition, broker))
    }

    fn take(&mut self, topic_id: Uuid, named: Option<&ThrottledReplicas>) {
        match named.filter(|named| **named != ThrottledReplicas::None) {
            Some(named) => drop(self.topics.insert(topic_id, named.clone())),
            None => drop(self.topics.remove(&topic_id)),
        }
    }

    /// Takes over the rate: this shard's part of it.
    fn limit(
        &mut self,
        bytes_per_s: Option<u64>,
        view: &ClusterView,
        is_of_side: impl Fn(&PartitionImage) -> bool,
    ) {
        self.is_limited = bytes_per_s.is_some();
        let Some(bytes_per_s) = bytes_per_s.filter(|_| !self.topics.is_empty()) else { return };
        let mut shards = BTreeSet::new();
        let broker = view.config.node_id;
        for (topic_id, named) in &self.topics {
            let Some(topic) = view.image.topic_by_id(*topic_id) else { continue };
            let indexes = (0..).zip(&topic.partitions);
            let named = indexes.filter(|(index, image)| named.contains(*index, broker) && is_of_side(image));
            let places = named.filter_map(|(index, _)| view.placement.shard_of(*topic_id, index));
            shards.extend(places.map(|(shard, _)| shard));
        }
        self.throttle.set_limit(bytes_per_s / shards.len().max(1) as u64);
    }
}

/// The limits of one shard.
#[derive(Debug)]
pub(super) struct Throttles {
    leaders: Side,
    followers: Side,
}

impl Throttles {
    pub(super) fn new(config: &NodeConfig) -> Self {
        Self { leaders: Side::new(config), followers: Side::new(config) }
    }

    /// Takes over a view.
    pub(super) fn reconcile(&mut self, view: &ClusterView) {
        let Self { leaders, followers } = self;
        for topic_id in view.removed.iter().chain(view.changed.iter()) {
            let config = view.topic_configs.get(topic_id);
            leaders.take(*topic_id, config.map(|config| &config.leader_throttled));
            followers.take(*topic_id, config.map(|config| &config.follower_throttled));
        }
        let (limits, node_id) = (&view.config.replication_limits, view.config.node_id);
        let rate = Some(limits.leader_bytes_per_s).filter(|_| limits.limits_leaders());
        leaders.limit(rate, view, |image| image.leader == node_id);
        let rate = Some(limits.follower_bytes_per_s).filter(|_| limits.limits_followers());
        followers.limit(rate, view, |image| image.leader != node_id);
    }
}

impl Replicas {
    /// Withholds records from a throttled replica that asks, and counts what one was sent.
    pub(super) fn throttle(&mut self, now: Now, slot: Option<u32>, call: &mut Call) {
        let leaders = &mut self.throttles.leaders;
        if !leaders.is_limited {
            return;
        }
        let key = (call.topic_id, call.partition);
        match &mut call.op {
            Op::Sent(bytes) if leaders.names(key, self.node_id) => {
                leaders.throttle.record(now.mono_ms, *bytes)
            }
            Op::Read(read) => {
                let Reader::Replica { id, .. } = read.reader else { return };
                if leaders.names(key, self.node_id) && leaders.throttle.is_exceeded(now.mono_ms) {
                    let partition = slot.and_then(|slot| self.partition(slot));
                    read.withheld = partition.is_some_and(|known| !known.assignment().isr.contains(&id));
                }
            }
            _ => {}
        }
    }

    /// A follower was given this many bytes. While the rate is above the limit: until when, and which of the
    /// followers here are to ask for nothing so long.
    pub fn throttle_fetched(
        &mut self,
        now: Now,
        key: ReplicaKey,
        bytes: u64,
    ) -> Option<(u64, Vec<ReplicaKey>)> {
        let node_id = self.node_id;
        let followers = &mut self.throttles.followers;
        if bytes == 0 || !followers.names(key, node_id) {
            return None;
        }
        followers.throttle.record(now.mono_ms, bytes);
        let until_ms = followers.throttle.free_at_ms(now.mono_ms);
        if until_ms <= now.mono_ms {
            return None;
        }
        let followers = &self.throttles.followers;
        let of_topic =
            |topic_id: &Uuid| self.by_partition.range((*topic_id, i32::MIN)..=(*topic_id, i32::MAX));
        let all = followers.topics.keys().flat_map(of_topic);
        let waits = |(key, slot): &(&ReplicaKey, &u32)| {
            let entry = self.slots.get(**slot as usize);
            let is_out = entry.is_some_and(|entry| match &entry.state {
                State::Open(partition) => {
                    !partition.is_leader() && !partition.assignment().isr.contains(&node_id)
                }
                _ => false,
            });
            is_out && followers.names(**key, node_id)
        };
        Some((until_ms, all.filter(waits).map(|(key, _)| *key).collect()))
    }
}

#[cfg(test)]
#[path = "throttles_tests.rs"]
mod tests;
