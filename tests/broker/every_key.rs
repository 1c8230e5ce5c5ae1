//! Every key that can be altered while the broker runs: what shows that it counts at once, for a topic and for the
//! broker, or that it is said to have no effect. A key that is added to a table needs a row here.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::{ApiVersionsRequest, DescribeProducersRequest};
use tidemill::client::{Connection, ConnectionConfig};
use tidemill::config::keys::{TOPIC_KEYS, Tier, UpdateMode, broker_key, broker_keys, topic_key};
use tidemill::config::warn_of;
use tidemill::log::batch::BatchBuilder;
use tidemill::log::codec::Codec;

use crate::altered::{BROKER, TOPIC, alter, segments, set};
use crate::deletion::{delete, log_start};
use crate::process::{Broker, Home, until};
use crate::wire::{connect, create, fetch, name, produce};

const TOO_LARGE: i16 = 10;
const INVALID_TIMESTAMP: i16 = 32;
const POLICY_VIOLATION: i16 = 44;
const INVALID_RECORD: i16 = 87;

/// Where a value is given: to one topic, or to all brokers.
#[derive(Clone, Copy, Debug)]
struct Lever<'a> {
    kind: i8,
    of: &'a str,
    key: &'a str,
}

/// A broker, and what is seen of it.
struct Stage {
    home: Home,
    connection: Connection,
    broker: Broker,
}

impl Stage {
    fn new() -> Self {
        let home = Home::new(&[
            "log.initial.task.delay.ms=0",
            "log.retention.check.interval.ms=50",
            "log.flush.offset.checkpoint.interval.ms=50",
            "replica.high.watermark.checkpoint.interval.ms=50",
            "producer.id.expiration.check.interval.ms=50",
        ]);
        let broker = home.start();
        let connection = connect(&broker);
        Self { home, connection, broker }
    }

    fn pull(&mut self, lever: Lever, value: &str) {
        set(&mut self.connection, lever.kind, lever.of, lever.key, value);
    }

    fn release(&mut self, lever: Lever) {
        assert_eq!(alter(&mut self.connection, lever.kind, lever.of, &[(lever.key, None)]), 0, "{lever:?}");
    }

    fn create(&mut self, topic: &str, configs: &[(&str, &str)]) {
        create(&mut self.connection, topic, 1, configs);
    }

    /// The error of a produce of one record.
    fn put(&mut self, topic: &str, partition: i32, time_ms: i64, value: &[u8]) -> i16 {
        let records = BatchBuilder::new().record(time_ms, None, Some(value)).build();
        produce(&mut self.connection, topic, partition, -1, records).error_code
    }

    /// Appends a record for each time.
    fn append(&mut self, topic: &str, times_ms: &[i64]) {
        for time_ms in times_ms {
            assert_eq!(self.put(topic, 0, *time_ms, &[7; 300]), 0, "{topic} at {time_ms}");
        }
    }

    fn file(&self, topic: &str, file: &str) -> PathBuf {
        self.home.data().join(format!("{topic}-0")).join(file)
    }

    fn segments(&self, topic: &str) -> usize {
        segments(&self.home, &format!("{topic}-0"))
    }

    /// Sizes of the files of a kind, oldest first: bytes and bytes on the device.
    fn sizes(&self, topic: &str, extension: &str) -> Vec<(u64, u64)> {
        let listed = std::fs::read_dir(self.file(topic, "")).unwrap();
        let mut paths: Vec<PathBuf> = listed.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|known| known == extension));
        paths.sort();
        let size = |path: &PathBuf| std::fs::metadata(path).map(|found| (found.len(), found.blocks() * 512));
        paths.iter().filter_map(|path| size(path).ok()).collect()
    }

    /// What the checkpoint says is synced.
    fn recovery_point(&self, topic: &str) -> i64 {
        let text = std::fs::read_to_string(self.home.data().join("recovery-point-offset-checkpoint"));
        let text = text.unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{topic} 0 ")));
        line.map_or(0, |offset| offset.parse().unwrap())
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as i64
}

/// Shows that a value that is given with the lever counts, with a topic of its own.
type Shows = fn(&mut Stage, &str, Lever);

/// Every topic key with what shows its effect; none for keys that have none yet.
const TOPIC_TABLE: &[(&str, Option<Shows>)] = &[
    ("cleanup.policy", Some(policy)),
    ("compression.gzip.level", Some(level)),
    ("compression.lz4.level", None),
    ("compression.type", Some(codec)),
    ("compression.zstd.level", Some(level)),
    ("delete.retention.ms", None),
    ("file.delete.delay.ms", Some(deletion_delay)),
    ("flush.messages", Some(flush)),
    ("flush.ms", Some(flush)),
    ("follower.replication.throttled.replicas", Some(elsewhere)),
    ("index.interval.bytes", Some(index_interval)),
    ("internal.segment.bytes", Some(segment_size)),
    ("leader.replication.throttled.replicas", Some(elsewhere)),
    ("local.retention.bytes", None),
    ("local.retention.ms", None),
    ("max.compaction.lag.ms", None),
    ("max.message.bytes", Some(largest_batch)),
    ("message.timestamp.after.max.ms", Some(future)),
    ("message.timestamp.before.max.ms", Some(past)),
    ("message.timestamp.type", Some(stamps)),
    ("min.cleanable.dirty.ratio", None),
    ("min.compaction.lag.ms", None),
    ("min.insync.replicas", Some(replicas)),
    ("preallocate", Some(preallocation)),
    ("remote.log.copy.disable", None),
    ("remote.log.delete.on.disable", None),
    ("remote.storage.enable", None),
    ("retention.bytes", Some(retention_by_size)),
    ("retention.ms", Some(retention_by_age)),
    ("segment.bytes", Some(segment_size)),
    ("segment.index.bytes", Some(index_size)),
    ("segment.jitter.ms", Some(jitter)),
    ("segment.ms", Some(segment_age)),
    // A node alone has nobody to elect: src/controller/tests/cluster.rs shows it.
    ("unclean.leader.election.enable", Some(|_, _, _| {})),
];

/// A key, and what shows that altering it counts.
type Shown = (&'static str, fn(&mut Stage));

/// What needs a second broker is shown by the tests of `broker::replicas`.
fn elsewhere(_: &mut Stage, _: &str, _: Lever) {}

/// Keys of the broker alone.
const BROKER_TABLE: &[Shown] = &[
    ("max.connection.creation.rate", rate_of_connections),
    ("max.connections", connections),
    // limits_of_connections_change_without_a_restart shows these two.
    ("max.connections.per.ip", |_| {}),
    ("max.connections.per.ip.overrides", |_| {}),
    ("producer.id.expiration.ms", producer_expiration),
    // Both need a second broker; `broker::replicas` shows them.
    ("leader.replication.throttled.rate", |_| {}),
    ("follower.replication.throttled.rate", |_| {}),
    // It needs a second log directory; `broker::replicas` shows it.
    ("replica.alter.log.dirs.io.max.bytes.per.second", |_| {}),
];

#[test]
fn every_topic_key_counts_when_it_is_altered_or_says_that_it_has_no_effect() {
    let known: BTreeSet<&str> =
        TOPIC_KEYS.iter().filter(|row| !matches!(row.tier, Tier::Ignored(_))).map(|row| row.name).collect();
    assert_eq!(known, TOPIC_TABLE.iter().map(|(key, _)| *key).collect(), "every topic key has a row");
    let mut stage = Stage::new();
    for (number, (key, shows)) in TOPIC_TABLE.iter().enumerate() {
        let row = topic_key(key).unwrap();
        let topic = format!("t{number}");
        let own = Lever { kind: TOPIC, of: &topic, key };
        let Some(shows) = shows else {
            assert_eq!(row.tier, Tier::Planned, "{key} shows no effect: docs/CONFIG.md must not promise one");
            stage.create(&topic, &[]);
            let value = row.default.filter(|value| !value.is_empty()).unwrap_or("*");
            stage.pull(own, value);
            continue;
        };
        assert_eq!(row.tier, Tier::Honoured, "{key}");
        shows(&mut stage, &topic, own);
        for synonym in row.synonyms.iter().filter(|key| is_dynamic(key)) {
            let topic = format!("b{number}");
            let lever = Lever { kind: BROKER, of: "", key: synonym };
            shows(&mut stage, &topic, lever);
            stage.release(lever);
        }
    }
    assert_eq!(stage.broker.stop(), Some(0));
}

fn is_dynamic(key: &str) -> bool {
    broker_key(key).is_some_and(|row| row.mode != UpdateMode::ReadOnly)
}

#[test]
fn every_dynamic_broker_key_counts_at_once_or_says_that_it_does_not() {
    let mut stage = Stage::new();
    let mut own = BTreeSet::new();
    for key in broker_keys().filter(|key| key.mode != UpdateMode::ReadOnly) {
        let by_topic = key.topic_synonym().filter(|_| key.tier == Tier::Honoured);
        match (BROKER_TABLE.iter().find(|(name, _)| *name == key.name), by_topic) {
            (Some((name, shows)), None) => {
                assert_eq!(warn_of(name), None);
                shows(&mut stage);
                own.insert(*name);
            }
            (None, Some(topic_key)) => {
                let row = TOPIC_TABLE.iter().find(|(name, _)| *name == topic_key);
                assert!(
                    row.is_some_and(|(_, shows)| shows.is_some()),
                    "{} is shown by its topic key",
                    key.name
                );
            }
            (None, None) => {
                let said = warn_of(key.name).unwrap_or_default();
                assert!(
                    said.contains("no effect") || said.contains("after a restart"),
                    "{}: {said}",
                    key.name
                );
            }
            (Some(_), Some(_)) => panic!("{} is in both tables", key.name),
        }
    }
    assert_eq!(own, BROKER_TABLE.iter().map(|(name, _)| *name).collect());
    assert_eq!(stage.broker.stop(), Some(0));
}

#[test]
fn a_compacted_topic_says_once_that_it_keeps_everything() {
    let mut stage = Stage::new();
    stage.create("kept", &[("cleanup.policy", "compact")]);
    stage.create("plain", &[]);
    let lever = Lever { kind: TOPIC, of: "plain", key: "cleanup.policy" };
    stage.pull(lever, "delete");
    stage.pull(lever, "compact,delete");
    for topic in ["kept", "plain"] {
        for number in 0..20_u8 {
            let records = BatchBuilder::new().record(now_ms(), Some(b"k"), Some(&[number])).build();
            assert_eq!(produce(&mut stage.connection, topic, 0, -1, records).error_code, 0);
        }
        set(&mut stage.connection, TOPIC, topic, "segment.ms", "100000");
    }
    let (code, lines) = stage.broker.stop_and_tell();
    assert_eq!(code, Some(0));
    let said: Vec<&String> = lines.iter().filter(|line| line.contains("every record is kept")).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("kept") && said[1].contains("plain"), "{said:?}");
}

fn largest_batch(stage: &mut Stage, topic: &str, lever: Lever) {
    stage.create(topic, &[]);
    assert_eq!(stage.put(topic, 0, now_ms(), &[0; 2_000]), 0);
    stage.pull(lever, "1000");
    assert_eq!(stage.put(topic, 0, now_ms(), &[0; 2_000]), TOO_LARGE);
}

fn segment_size(stage: &mut Stage, topic: &str, lever: Lever) {
    stage.create(topic, &[]);
    let fill = |stage: &mut Stage| {
        for _ in 0..12 {
            assert_eq!(stage.put(topic, 0, now_ms(), &vec![0; 100_000]), 0);
        }
        stage.segments(topic)
    };
    assert_eq!(fill(stage), 1);
    let least = if lever.key == "internal.segment.bytes" { "200000" } else { "1048576" };
    stage.pull(lever, least);
    assert!(fill(stage) > 1);
}

fn segment_age(stage: &mut Stage, topic: &str, lever: Lever) {
    let now = now_ms();
    stage.create(topic, &[]);
    stage.append(topic, &[now, now + 1_000]);
    assert_eq!(stage.segments(topic), 1);
    stage.pull(lever, "500");
    stage.append(topic, &[now + 1_100, now + 2_000]);
    assert_eq!(stage.segments(topic), 3);
}

fn jitter(stage: &mut Stage, topic: &str, lever: Lever) {
    const PARTITIONS: i32 = 8;
    create(&mut stage.connection, topic, PARTITIONS, &[("segment.ms", "1000000")]);
    let first = now_ms() - 3_000_000;
    let put = |stage: &mut Stage, time_ms: i64| -> usize {
        (0..PARTITIONS)
            .map(|partition| {
                assert_eq!(stage.put(topic, partition, time_ms, b"x"), 0);
                segments(&stage.home, &format!("{topic}-{partition}"))
            })
            .sum()
    };
    put(stage, first);
    assert_eq!(put(stage, first + 900_000), PARTITIONS as usize);
    // A segment rolls unless its part of the jitter is among the least tenth: with eight, one does.
    stage.pull(lever, "1000000");
    assert!(put(stage, first + 905_000) > PARTITIONS as usize);
}

fn index_size(stage: &mut Stage, topic: &str, lever: Lever) {
    stage.create(topic, &[]);
    stage.append(topic, &[now_ms(); 3]);
    assert_eq!(stage.segments(topic), 1);
    stage.pull(lever, "16");
    stage.append(topic, &[now_ms(); 3]);
    assert_eq!(stage.segments(topic), 4, "no room for a time index entry beside the closing one");
}

fn index_interval(stage: &mut Stage, topic: &str, lever: Lever) {
    stage.create(topic, &[]);
    stage.append(topic, &[now_ms(); 5]);
    stage.pull(lever, "0");
    stage.append(topic, &[now_ms(); 5]);
    let entries = until("the index is written", || match stage.sizes(topic, "index")[0].0 / 8 {
        0 => Err("no entry"),
        entries => Ok(entries),
    });
    assert!((4..=6).contains(&entries), "{entries} entries: one for each batch since then");
}

fn flush(stage: &mut Stage, topic: &str, lever: Lever) {
    stage.create(topic, &[]);
    stage.append(topic, &[now_ms()]);
    assert_eq!(stage.recovery_point(topic), 0, "nothing asks for a sync");
    stage.pull(lever, "1");
    stage.append(topic, &[now_ms()]);
    until("the records are synced", || match stage.recovery_point(topic) {
        2 => Ok(()),
        other => Err(other),
    });
}

fn codec(stage: &mut Stage, topic: &str, lever: Lever) {
    stage.create(topic, &[]);
    for (offset, (value, stored)) in [("zstd", Codec::Zstd), ("gzip", Codec::Gzip)].into_iter().enumerate() {
        stage.pull(lever, value);
        assert_eq!(stage.put(topic, 0, now_ms(), &[5; 1_000]), 0);
        let records = fetch(&mut stage.connection, topic, 0, offset as i64).records.unwrap();
        let attributes = i16::from_be_bytes([records[21], records[22]]);
        assert_eq!(Codec::from_id(attributes & 7).unwrap(), stored);
    }
}

fn level(stage: &mut Stage, topic: &str, lever: Lever) {
    let codec = if lever.key.contains("gzip") { "gzip" } else { "zstd" };
    stage.create(topic, &[("compression.type", codec)]);
    let text: Vec<u8> = (0..6_000_u64).flat_map(|n| format!("{} ", n * n % 9_973).into_bytes()).collect();
    let stored = |stage: &mut Stage, level: &str, offset: i64| {
        stage.pull(lever, level);
        assert_eq!(stage.put(topic, 0, now_ms(), &text), 0);
        fetch(&mut stage.connection, topic, 0, offset).records.unwrap().len()
    };
    let (least, most) = if codec == "gzip" { ("1", "9") } else { ("-100", "19") };
    let (fast, small) = (stored(stage, least, 0), stored(stage, most, 1));
    assert!(small < fast, "{codec}: {small} bytes at level {most}, {fast} at {least}");
}

/// More than there are replicas counts as all of them (KIP-966); `scenarios/min_insync.txt` shows the refusal where
/// there are two.
fn replicas(stage: &mut Stage, topic: &str, lever: Lever) {
    stage.create(topic, &[]);
    stage.append(topic, &[now_ms()]);
    stage.pull(lever, "2");
    assert_eq!(stage.put(topic, 0, now_ms(), b"x"), 0);
    stage.pull(lever, "1");
    stage.append(topic, &[now_ms()]);
}

fn preallocation(stage: &mut Stage, topic: &str, lever: Lever) {
    let now = now_ms();
    stage.create(topic, &[("segment.ms", "1"), ("segment.bytes", "1048576")]);
    stage.append(topic, &[now, now + 10]);
    let on_device = |stage: &Stage| stage.sizes(topic, "log").last().unwrap().1;
    assert!(on_device(stage) < 1 << 20);
    stage.pull(lever, "true");
    stage.append(topic, &[now + 20]);
    assert!(on_device(stage) >= 1 << 20, "{} bytes", on_device(stage));
    stage.pull(lever, "false");
    stage.append(topic, &[now + 30]);
    assert!(on_device(stage) < 1 << 20);
}

fn stamps(stage: &mut Stage, topic: &str, lever: Lever) {
    stage.create(topic, &[]);
    let stamp = |stage: &mut Stage, value: &str| {
        stage.pull(lever, value);
        let records: Bytes = BatchBuilder::new().record(1_000, None, Some(b"x")).build();
        produce(&mut stage.connection, topic, 0, -1, records).log_append_time_ms
    };
    assert!(stamp(stage, "LogAppendTime") > 1_600_000_000_000);
    assert_eq!(stamp(stage, "CreateTime"), -1);
}

fn past(stage: &mut Stage, topic: &str, lever: Lever) {
    stage.create(topic, &[]);
    assert_eq!(stage.put(topic, 0, 1_000, b"x"), 0);
    stage.pull(lever, "3600000");
    assert_eq!(stage.put(topic, 0, 1_000, b"x"), INVALID_TIMESTAMP);
}

fn future(stage: &mut Stage, topic: &str, lever: Lever) {
    stage.create(topic, &[]);
    let tomorrow = now_ms() + 24 * 3_600_000;
    assert_eq!(stage.put(topic, 0, tomorrow, b"x"), INVALID_TIMESTAMP);
    stage.pull(lever, "9223372036854775807");
    assert_eq!(stage.put(topic, 0, tomorrow, b"x"), 0);
}

fn starts_at(stage: &mut Stage, topic: &str, wanted: i64) {
    until("the log start moves", || match log_start(&mut stage.connection, topic) {
        offset if offset == wanted => Ok(()),
        other => Err(other),
    });
}

fn retention_by_age(stage: &mut Stage, topic: &str, lever: Lever) {
    stage.create(topic, &[]);
    stage.append(topic, &[now_ms() - 3_600_000]);
    assert_eq!(log_start(&mut stage.connection, topic), 0);
    stage.pull(lever, "1800000");
    starts_at(stage, topic, 1);
}

fn retention_by_size(stage: &mut Stage, topic: &str, lever: Lever) {
    let now = now_ms();
    stage.create(topic, &[("segment.ms", "1")]);
    stage.append(topic, &[now, now + 10, now + 20]);
    assert_eq!(log_start(&mut stage.connection, topic), 0);
    stage.pull(lever, "1");
    starts_at(stage, topic, 2);
}

fn deletion_delay(stage: &mut Stage, topic: &str, lever: Lever) {
    let now = now_ms();
    stage.create(topic, &[("segment.ms", "1")]);
    stage.append(topic, &[now, now + 10]);
    // Longer than anyone here is patient.
    stage.pull(lever, "3600000");
    assert_eq!(delete(&mut stage.connection, topic, 1), (0, 1));
    let log = |base: i64, suffix: &str| format!("{base:020}.log{suffix}");
    let is_there = |stage: &Stage, base, suffix| stage.file(topic, &log(base, suffix)).exists();
    until("the segment is renamed", || if is_there(stage, 0, ".deleted") { Ok(()) } else { Err("not yet") });
    stage.pull(lever, "0");
    stage.append(topic, &[now + 20]);
    assert_eq!(delete(&mut stage.connection, topic, 2), (0, 2));
    until("the next one is gone at once", || {
        let left = is_there(stage, 1, "") || is_there(stage, 1, ".deleted");
        if left { Err("not yet") } else { Ok(()) }
    });
}

fn policy(stage: &mut Stage, topic: &str, lever: Lever) {
    stage.create(topic, &[]);
    stage.append(topic, &[now_ms()]);
    stage.pull(lever, "compact");
    assert_eq!(stage.put(topic, 0, now_ms(), b"no key"), INVALID_RECORD);
    assert_eq!(delete(&mut stage.connection, topic, 1), (POLICY_VIOLATION, -1));
    stage.pull(lever, "delete");
    stage.append(topic, &[now_ms()]);
    assert_eq!(delete(&mut stage.connection, topic, 1), (0, 1));
}

fn connections(stage: &mut Stage) {
    let lever = Lever { kind: BROKER, of: "", key: "max.connections" };
    stage.pull(lever, "1");
    let address = stage.broker.address.clone();
    let answers = |patience: Duration| {
        let config = ConnectionConfig { response_timeout: patience, ..ConnectionConfig::default() };
        let mut connection = Connection::open(&address, &config).ok()?;
        connection.call(&ApiVersionsRequest::default(), 0).ok()
    };
    assert!(answers(Duration::from_millis(300)).is_none(), "a second one waits");
    stage.release(lever);
    assert!(answers(crate::process::PATIENCE).is_some());
}

fn rate_of_connections(stage: &mut Stage) {
    let lever = Lever { kind: BROKER, of: "", key: "max.connection.creation.rate" };
    stage.pull(lever, "2");
    let began = Instant::now();
    for _ in 0..7 {
        let mut connection = connect(&stage.broker);
        connection.call(&ApiVersionsRequest::default(), 0).unwrap();
    }
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(1_900), "seven connections in {took:?}, two a second");
    stage.release(lever);
}

fn producer_expiration(stage: &mut Stage) {
    let lever = Lever { kind: BROKER, of: "", key: "producer.id.expiration.ms" };
    stage.create("producers", &[]);
    let records = BatchBuilder::new().producer(7, 0, 0).record(now_ms(), None, Some(b"x")).build();
    assert_eq!(produce(&mut stage.connection, "producers", 0, -1, records).error_code, 0);
    let mut known = || {
        let topic = TopicRequest::default().with_name(name("producers")).with_partition_indexes(vec![0]);
        let request = DescribeProducersRequest::default().with_topics(vec![topic]);
        let told = stage.connection.call(&request, 0).unwrap();
        told.topics[0].partitions[0].active_producers.len()
    };
    assert_eq!(known(), 1);
    set(&mut connect(&stage.broker), lever.kind, lever.of, lever.key, "1");
    until("the producer is forgotten", || match known() {
        0 => Ok(()),
        other => Err(other),
    });
    stage.release(lever);
}
