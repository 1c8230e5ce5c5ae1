//! Throttled replicas over views that the test makes: who is withheld what, and who rests.

use std::sync::Arc;

use super::*;
use crate::config::TopicConfig;
use crate::controller::image::ImageBuilder;
use crate::controller::record::{METADATA_VERSION_LATEST, PartitionRecord, Record};
use crate::controller::{ImageDelta, ShardId, ShardPlacement};
use crate::partition::{Read, ReplyTo};

const T: Uuid = Uuid::from_u128(7);

fn at(mono_ms: u64) -> Now {
    Now { mono_ms, wall_ms: 1_700_000_000_000 }
}

/// The replicas of one of `shards` shards of broker 1: two partitions on brokers 1 and 2, broker 2 or 1 not in sync.
fn replicas(leader: i32, shards: u16, pairs: &[(&str, &str)], named: &str) -> (Replicas, ClusterView) {
    let pairs: Vec<(String, String)> =
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let node = NodeConfig::load(None, &pairs).unwrap().0;
    let mut builder = ImageBuilder::default();
    builder.apply(&Record::MetadataVersion { version: METADATA_VERSION_LATEST }).unwrap();
    builder.apply(&Record::Topic { name: "t".into(), topic_id: T }).unwrap();
    for index in 0..2 {
        builder
            .apply(&Record::Partition(PartitionRecord {
                topic_id: T,
                index,
                replicas: [1, 2].into_iter().collect(),
                isr: std::iter::once(leader).collect(),
                leader,
                directories: [Uuid::nil(); 2].into_iter().collect(),
                ..PartitionRecord::default()
            }))
            .unwrap();
    }
    let image = builder.publish(1).0;
    let delta = ImageDelta { topics_changed: [T].into(), ..ImageDelta::default() };
    let placement = ShardPlacement::new(1, shards, 1).assign(&image, &delta, |_, _| None);
    let keys = ["leader.replication.throttled.replicas", "follower.replication.throttled.replicas"];
    let config = TopicConfig::effective(&node, keys.map(|key| (key, named)).into_iter());
    let mut view = ClusterView {
        version: 1,
        topic_configs: std::iter::once((T, Arc::new(config))).collect(),
        changed: Arc::new([T]),
        ..ClusterView::before_any(Arc::new(node.clone()))
    };
    let before = view.clone();
    (view.image, view.placement) = (image, placement);
    let mut replicas = Replicas::new(ShardId(0), &node, Arc::from([]));
    replicas.reconcile(at(0), &before, &view);
    (replicas, view)
}

const RATES: [(&str, &str); 2] =
    [("leader.replication.throttled.rate", "1000"), ("follower.replication.throttled.rate", "1000")];
const TO: ReplyTo = ReplyTo { shard: 0, connection: 0, generation: 0, request: 0, part: 0 };

fn sent(replicas: &mut Replicas, now: Now, partition: i32, bytes: u64) {
    replicas.call(now, Call { topic_id: T, partition, to: TO, op: Op::Sent(bytes) }, true);
    assert!(replicas.take_delivery().is_none(), "nobody waits for an answer");
}

/// Whether a replica's read is withheld.
fn is_withheld(replicas: &mut Replicas, now: Now, partition: i32, reader: Reader) -> bool {
    let slot = replicas.by_partition.get(&(T, partition)).copied();
    let mut call = Call { topic_id: T, partition, to: TO, op: Op::Read(Read::new(reader, 0, 1)) };
    replicas.throttle(now, slot, &mut call);
    matches!(call.op, Op::Read(Read { withheld: true, .. }))
}

const REPLICA: Reader = Reader::Replica { id: 2, epoch: -1, log_start_offset: 0, last_fetched_epoch: -1 };

#[test]
fn a_leader_withholds_records_from_replicas_that_are_named_and_not_in_sync() {
    let (mut replicas, _) = replicas(1, 1, &RATES, "0:1");
    sent(&mut replicas, at(0), 1, 9_999);
    assert!(!is_withheld(&mut replicas, at(0), 0, REPLICA), "what is not named does not count");
    sent(&mut replicas, at(0), 0, 3_000);
    assert!(is_withheld(&mut replicas, at(0), 0, REPLICA));
    assert!(!is_withheld(&mut replicas, at(0), 1, REPLICA));
    assert!(!is_withheld(&mut replicas, at(0), 0, Reader::Consumer));
    let in_sync = Reader::Replica { id: 1, epoch: -1, log_start_offset: 0, last_fetched_epoch: -1 };
    assert!(!is_withheld(&mut replicas, at(0), 0, in_sync), "what is in sync is not throttled");
    assert!(is_withheld(&mut replicas, at(2_999), 0, REPLICA));
    assert!(!is_withheld(&mut replicas, at(3_000), 0, REPLICA));
}

#[test]
fn followers_that_are_named_rest_together_until_the_rate_is_within_the_limit() {
    let (mut replicas, mut view) = replicas(2, 1, &RATES, "*");
    let keys = vec![(T, 0), (T, 1)];
    assert_eq!(replicas.throttle_fetched(at(0), (T, 0), 800), None);
    assert_eq!(replicas.throttle_fetched(at(100), (T, 1), 1_200), Some((2_000, keys.clone())));
    assert_eq!(replicas.throttle_fetched(at(100), (Uuid::from_u128(8), 0), 5_000), None);
    // The limit goes up while the node runs, and away.
    for (rate, expected) in [(2_000, Some((1_550, keys.clone()))), (i64::MAX as u64, None)] {
        let mut config = (*view.config).clone();
        config.replication_limits.follower_bytes_per_s = rate;
        view.config = Arc::new(config);
        let before = view.clone();
        replicas.reconcile(at(100), &before, &view);
        assert_eq!(replicas.throttle_fetched(at(200), (T, 0), 1_100), expected);
    }
}

#[test]
fn shards_with_throttled_replicas_share_the_rate() {
    for (shards, named, free_ms) in [(1, "*", 3_000), (2, "*", 6_000), (2, "0:1", 3_000)] {
        let (mut replicas, _) = replicas(1, shards, &RATES, named);
        sent(&mut replicas, at(0), 0, 3_000);
        assert!(is_withheld(&mut replicas, at(free_ms - 1), 0, REPLICA), "{shards} shards");
        assert!(!is_withheld(&mut replicas, at(free_ms), 0, REPLICA), "{shards} shards");
    }
}

#[test]
fn without_a_rate_or_a_name_nothing_is_limited() {
    for (rates, named) in [(&RATES[..], ""), (&[][..], "*")] {
        let (mut leaders, _) = replicas(1, 1, rates, named);
        sent(&mut leaders, at(0), 0, 1 << 40);
        assert!(!is_withheld(&mut leaders, at(0), 0, REPLICA));
        let (mut followers, _) = replicas(2, 1, rates, named);
        assert_eq!(followers.throttle_fetched(at(0), (T, 0), 1 << 40), None);
    }
}
