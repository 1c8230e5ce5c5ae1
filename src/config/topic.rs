//! What one topic is configured to do: the node's defaults with the topic's own values over them.
//!
//! Both go through the same function, key by key of the topic table: a broker key sets its topic key's default.

use super::given::{Given, Problem, checked_double, checked_number};
use super::keys::{TOPIC_KEYS, Tier, TopicKey, items, topic_key};
use super::{NodeConfig, ThrottledReplicas};

/// `cleanup.policy`, any subset; neither means keep for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// Segments past retention are deleted.
    pub delete: bool,
    /// Only the newest record of each key is kept.
    pub compact: bool,
}

/// `compression.type`: what the broker stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionType {
    /// What the producer sent, byte for byte.
    Producer,
    /// `uncompressed` or `none`.
    None,
    /// gzip at a level (-1 is the codec's default).
    Gzip(i32),
    /// Snappy in xerial framing.
    Snappy,
    /// LZ4 frames at a level.
    Lz4(i32),
    /// Zstandard at a level.
    Zstd(i32),
}

/// `message.timestamp.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's timestamps stand.
    CreateTime,
    /// The broker writes its wall clock into the batch header.
    LogAppendTime,
}

/// Effective configuration of one topic (Kafka's topic configs; feature map §8.4).
/// `i64::MAX` stands for "never" in the `flush_*` fields and -1 for "no limit" in retention, as in Kafka.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    /// `cleanup.policy`
    pub cleanup_policy: CleanupPolicy,
    /// `retention.ms`; -1 keeps for ever.
    pub retention_ms: i64,
    /// `retention.bytes`; -1 is no limit.
    pub retention_bytes: i64,
    /// `segment.bytes`
    pub segment_bytes: u64,
    /// `segment.ms`
    pub segment_ms: i64,
    /// `segment.jitter.ms`
    pub segment_jitter_ms: i64,
    /// `segment.index.bytes`
    pub segment_index_bytes: u64,
    /// `index.interval.bytes`
    pub index_interval_bytes: u64,
    /// `preallocate`
    pub preallocate: bool,
    /// `file.delete.delay.ms`
    pub file_delete_delay_ms: i64,
    /// `flush.messages`; 1 means that only synced records count as appended.
    pub flush_messages: i64,
    /// `flush.ms`
    pub flush_ms: i64,
    /// `max.message.bytes`: the largest batch.
    pub max_message_bytes: u64,
    /// `compression.type` with its level.
    pub compression_type: CompressionType,
    /// `min.insync.replicas`
    pub min_insync_replicas: i32,
    /// `unclean.leader.election.enable`
    pub unclean_leader_election: bool,
    /// `message.timestamp.type`
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`
    pub timestamp_after_max_ms: i64,
    /// `delete.retention.ms`
    pub delete_retention_ms: i64,
    /// `min.cleanable.dirty.ratio`
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`
    pub max_compaction_lag_ms: i64,
    /// `leader.replication.throttled.replicas`
    pub leader_throttled: ThrottledReplicas,
    /// `follower.replication.throttled.replicas`
    pub follower_throttled: ThrottledReplicas,
}

impl Default for TopicConfig {
    /// Kafka's defaults.
    fn default() -> Self {
        const DAY_MS: i64 = 24 * 60 * 60 * 1000;
        Self {
            cleanup_policy: CleanupPolicy { delete: true, compact: false },
            retention_ms: 7 * DAY_MS,
            retention_bytes: -1,
            segment_bytes: 1 << 30,
            segment_ms: 7 * DAY_MS,
            segment_jitter_ms: 0,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            preallocate: false,
            file_delete_delay_ms: 60_000,
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
            max_message_bytes: 1_048_588,
            compression_type: CompressionType::Producer,
            min_insync_replicas: 1,
            unclean_leader_election: false,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 60 * 60 * 1000,
            delete_retention_ms: DAY_MS,
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            leader_throttled: ThrottledReplicas::None,
            follower_throttled: ThrottledReplicas::None,
        }
    }
}

/// The levels that `compression.type` takes up when it names their codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompressionLevels {
    /// `compression.gzip.level`
    pub gzip: i32,
    /// `compression.lz4.level`
    pub lz4: i32,
    /// `compression.zstd.level`
    pub zstd: i32,
}

impl Default for CompressionLevels {
    /// Kafka's defaults.
    fn default() -> Self {
        Self { gzip: -1, lz4: 9, zstd: 3 }
    }
}

/// Whether a topic of this node may have these values of its own, all together; the message is Kafka's.
pub fn check_topic_configs<'a>(
    node: &NodeConfig,
    overrides: impl Iterator<Item = (&'a str, &'a str)> + Clone,
) -> Result<(), String> {
    for (key, _) in overrides.clone() {
        known(key)?;
    }
    for (key, value) in overrides.clone() {
        let row = known(key)?;
        row.verdict(value)
            .map_err(|message| Problem::of_value(key, row.kind, row.check, value, message).to_string())?;
        if key == "remote.storage.enable" && value.trim().eq_ignore_ascii_case("true") {
            return Err(
                "Tiered Storage functionality is disabled in the broker. Topic cannot be configured \
                        with remote log storage."
                    .to_owned(),
            );
        }
    }
    let config = TopicConfig::effective(node, overrides);
    if config.min_compaction_lag_ms > config.max_compaction_lag_ms {
        return Err(format!(
            "conflict topic config setting min.compaction.lag.ms ({}) > max.compaction.lag.ms ({})",
            config.min_compaction_lag_ms, config.max_compaction_lag_ms
        ));
    }
    Ok(())
}

/// The key's row. What Kafka 4 has removed from topics is unknown, as there.
fn known(key: &str) -> Result<&'static TopicKey, String> {
    let row = topic_key(key).filter(|row| !matches!(row.tier, Tier::Ignored(_)));
    row.ok_or_else(|| format!("Unknown topic config name: {key}"))
}

impl TopicConfig {
    /// The node's defaults with the topic's own values over them. A value that the table refuses (written by
    /// another version) leaves the default standing.
    pub fn effective<'a>(node: &NodeConfig, overrides: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut config = node.topic_defaults.clone();
        let mut levels = node.compression_levels;
        let mut internal_segment_bytes = None;
        for (key, value) in overrides {
            match known(key) {
                Ok(row) if row.verdict(value).is_err() => {}
                Ok(row) if row.name == "internal.segment.bytes" => {
                    internal_segment_bytes = Some(checked_number(value));
                }
                Ok(row) => set(&mut config, &mut levels, row.name, value),
                Err(_) => {}
            }
        }
        config.segment_bytes = internal_segment_bytes.unwrap_or(config.segment_bytes);
        config.compression_type = with_level(config.compression_type, levels);
        config
    }
}

/// Puts the value of a broker key over the defaults of a node's topics, if topics have the key.
pub(super) fn set_default(config: &mut TopicConfig, levels: &mut CompressionLevels, key: &str, value: &str) {
    let row = TOPIC_KEYS.iter().find(|row| row.synonyms.contains(&key));
    let Some(row) = row.filter(|row| row.verdict(value).is_ok()) else { return };
    match milliseconds_per_unit(key) {
        None => set(config, levels, row.name, value),
        Some(factor) => {
            let count: i64 = checked_number(value);
            let ms = if count < 0 { count } else { count.saturating_mul(factor) };
            set(config, levels, row.name, &ms.to_string());
        }
    }
    config.compression_type = with_level(config.compression_type, *levels);
}

/// What a node's own keys make the default of its topics.
pub(super) fn node_defaults(given: &Given, problems: &mut Vec<Problem>) -> (TopicConfig, CompressionLevels) {
    let mut config = TopicConfig::default();
    let mut levels = CompressionLevels::default();
    if let Some(either_way_ms) = given.text("log.message.timestamp.difference.max.ms") {
        set(&mut config, &mut levels, "message.timestamp.before.max.ms", either_way_ms);
        set(&mut config, &mut levels, "message.timestamp.after.max.ms", either_way_ms);
    }
    for row in TOPIC_KEYS {
        let first = row.synonyms.iter().find_map(|&key| given.text(key).map(|value| (key, value)));
        if let Some((key, value)) = first {
            set_default(&mut config, &mut levels, key, value);
        }
    }
    check_lags(&config, "log.cleaner.min.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms", problems);
    (config, levels)
}

/// What one unit of a broker key is worth where its topic key counts milliseconds; `None` for milliseconds.
pub(super) fn milliseconds_per_unit(key: &str) -> Option<i64> {
    if key.ends_with(".minutes") {
        Some(60_000)
    } else if key.ends_with(".hours") {
        Some(3_600_000)
    } else {
        None
    }
}

fn check_lags(config: &TopicConfig, least: &str, most: &str, problems: &mut Vec<Problem>) {
    if config.min_compaction_lag_ms > config.max_compaction_lag_ms {
        let message = format!("it must be at most {most}, {}", config.max_compaction_lag_ms);
        problems.push(Problem::new(least, config.min_compaction_lag_ms.to_string(), message));
    }
}

fn with_level(compression: CompressionType, levels: CompressionLevels) -> CompressionType {
    match compression {
        CompressionType::Gzip(_) => CompressionType::Gzip(levels.gzip),
        CompressionType::Lz4(_) => CompressionType::Lz4(levels.lz4),
        CompressionType::Zstd(_) => CompressionType::Zstd(levels.zstd),
        other => other,
    }
}

/// Sets one topic key; the value has passed its check. Keys of features that are not built set nothing.
fn set(config: &mut TopicConfig, levels: &mut CompressionLevels, key: &str, value: &str) {
    let value = value.trim();
    let switch = || value.eq_ignore_ascii_case("true");
    match key {
        "cleanup.policy" => {
            config.cleanup_policy = CleanupPolicy {
                delete: items(value).any(|item| item == "delete"),
                compact: items(value).any(|item| item == "compact"),
            };
        }
        "retention.ms" => config.retention_ms = checked_number(value),
        "retention.bytes" => config.retention_bytes = checked_number(value),
        "segment.bytes" => config.segment_bytes = checked_number(value),
        "segment.ms" => config.segment_ms = checked_number(value),
        "segment.jitter.ms" => config.segment_jitter_ms = checked_number(value),
        "segment.index.bytes" => config.segment_index_bytes = checked_number(value),
        "index.interval.bytes" => config.index_interval_bytes = checked_number(value),
        "preallocate" => config.preallocate = switch(),
        "file.delete.delay.ms" => config.file_delete_delay_ms = checked_number(value),
        "flush.messages" => config.flush_messages = checked_number(value),
        "flush.ms" => config.flush_ms = checked_number(value),
        "max.message.bytes" => config.max_message_bytes = checked_number(value),
        "compression.type" => config.compression_type = codec(value),
        "compression.gzip.level" => levels.gzip = checked_number(value),
        "compression.lz4.level" => levels.lz4 = checked_number(value),
        "compression.zstd.level" => levels.zstd = checked_number(value),
        "min.insync.replicas" => config.min_insync_replicas = checked_number(value),
        "unclean.leader.election.enable" => config.unclean_leader_election = switch(),
        "message.timestamp.type" => {
            config.timestamp_type = match value {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            };
        }
        "message.timestamp.before.max.ms" => config.timestamp_before_max_ms = checked_number(value),
        "message.timestamp.after.max.ms" => config.timestamp_after_max_ms = checked_number(value),
        "delete.retention.ms" => config.delete_retention_ms = checked_number(value),
        "min.cleanable.dirty.ratio" => config.min_cleanable_dirty_ratio = checked_double(value),
        "min.compaction.lag.ms" => config.min_compaction_lag_ms = checked_number(value),
        "max.compaction.lag.ms" => config.max_compaction_lag_ms = checked_number(value),
        "leader.replication.throttled.replicas" => config.leader_throttled = ThrottledReplicas::parse(value),
        "follower.replication.throttled.replicas" => {
            config.follower_throttled = ThrottledReplicas::parse(value);
        }
        _ => {}
    }
}

/// The codec; [`with_level`] gives it its level when all keys are known.
fn codec(value: &str) -> CompressionType {
    match value {
        "uncompressed" => CompressionType::None,
        "gzip" => CompressionType::Gzip(-1),
        "snappy" => CompressionType::Snappy,
        "lz4" => CompressionType::Lz4(9),
        "zstd" => CompressionType::Zstd(3),
        _ => CompressionType::Producer,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(pairs: &[(&str, &str)]) -> NodeConfig {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        NodeConfig::load(None, &pairs).unwrap().0
    }

    fn check(key: &str, value: &str) -> Result<(), String> {
        check_topic_configs(&node(&[]), [(key, value)].into_iter())
    }

    fn effective(node: &NodeConfig, pairs: &[(&str, &str)]) -> TopicConfig {
        check_topic_configs(node, pairs.iter().copied()).unwrap();
        TopicConfig::effective(node, pairs.iter().copied())
    }

    #[test]
    fn the_table_and_the_struct_agree_on_the_defaults() {
        let defaults: Vec<(&str, &str)> =
            TOPIC_KEYS.iter().filter_map(|row| Some((known(row.name).ok()?.name, row.default?))).collect();
        assert_eq!(effective(&node(&[]), &defaults), TopicConfig::default());
        assert_eq!(node(&[]).topic_defaults, TopicConfig::default());
    }

    #[test]
    fn every_honoured_topic_key_changes_something() {
        let node = node(&[]);
        for row in TOPIC_KEYS.iter().filter(|row| row.tier == super::super::keys::Tier::Honoured) {
            let probes = ["17", "compact", "lz4", "LogAppendTime", "0.25", "true", "1048577", "*"];
            let changes = |codec: &str| {
                let base = effective(&node, &[("compression.type", codec)]);
                let probed = |probe: &&str| {
                    let pairs = [("compression.type", codec), (row.name, *probe)];
                    check_topic_configs(&node, pairs.into_iter()).is_ok()
                        && TopicConfig::effective(&node, pairs.into_iter()) != base
                };
                probes.iter().any(probed)
            };
            // A level shows only under its own codec.
            assert!(
                ["producer", "gzip", "lz4", "zstd"].into_iter().any(changes)
                    || row.name.ends_with("gzip.level"),
                "{}",
                row.name
            );
        }
        let gzip = [("compression.type", "gzip"), ("compression.gzip.level", "5")];
        assert_eq!(effective(&node, &gzip).compression_type, CompressionType::Gzip(5));
    }

    #[test]
    fn milliseconds_win_over_minutes_and_minutes_over_hours() {
        let of = |pairs: &[(&str, &str)]| node(pairs).topic_defaults.retention_ms;
        assert_eq!(of(&[("log.retention.hours", "2")]), 7_200_000);
        assert_eq!(of(&[("log.retention.hours", "2"), ("log.retention.minutes", "3")]), 180_000);
        assert_eq!(of(&[("log.retention.minutes", "3"), ("log.retention.ms", "5")]), 5);
        assert_eq!(of(&[("log.retention.hours", "-1")]), -1);
        assert_eq!(node(&[("log.roll.hours", "1")]).topic_defaults.segment_ms, 3_600_000);
        assert_eq!(node(&[("log.roll.jitter.hours", "1")]).topic_defaults.segment_jitter_ms, 3_600_000);
        assert_eq!(node(&[("log.flush.scheduler.interval.ms", "9")]).topic_defaults.flush_ms, 9);
        let differs =
            [("log.message.timestamp.difference.max.ms", "7"), ("log.message.timestamp.after.max.ms", "8")];
        let config = node(&differs).topic_defaults;
        assert_eq!((config.timestamp_before_max_ms, config.timestamp_after_max_ms), (7, 8));
    }

    #[test]
    fn a_level_of_the_node_counts_when_a_topic_names_the_codec() {
        let node = node(&[("compression.zstd.level", "7")]);
        assert_eq!(node.topic_defaults.compression_type, CompressionType::Producer);
        let config = effective(&node, &[("compression.type", "zstd")]);
        assert_eq!(config.compression_type, CompressionType::Zstd(7));
    }

    #[test]
    fn segments_below_the_least_size_need_the_internal_key() {
        assert!(check("segment.bytes", "4096").is_err());
        let pairs = [("internal.segment.bytes", "4096"), ("segment.bytes", "2097152")];
        assert_eq!(effective(&node(&[]), &pairs).segment_bytes, 4096);
    }

    #[test]
    fn problems_are_in_kafkas_words() {
        assert_eq!(check("retention.ms", "-1"), Ok(()));
        for (key, value, words) in [
            (
                "retention.ms",
                "-2",
                "Invalid value -2 for configuration retention.ms: Value must be at least -1",
            ),
            (
                "retention.ms",
                "x",
                "Invalid value x for configuration retention.ms: Not a number of type LONG",
            ),
            (
                "compression.gzip.level",
                "0",
                "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1",
            ),
            (
                "cleanup.policy",
                "compact, shred",
                "Invalid value shred for configuration cleanup.policy: String must be one of: compact, delete",
            ),
            (
                "min.cleanable.dirty.ratio",
                "2",
                "Invalid value 2.0 for configuration min.cleanable.dirty.ratio: Value must be no more than 1",
            ),
            (
                "leader.replication.throttled.replicas",
                "foo",
                "Invalid value [foo] for configuration leader.replication.throttled.replicas: \
                 leader.replication.throttled.replicas must be the literal '*' or a list of replicas in the following \
                 format: [partitionId]:[brokerId],[partitionId]:[brokerId],...",
            ),
            ("nope", "1", "Unknown topic config name: nope"),
            ("message.format.version", "2.0", "Unknown topic config name: message.format.version"),
            (
                "remote.storage.enable",
                "true",
                "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.",
            ),
        ] {
            assert_eq!(check(key, value).unwrap_err(), words);
        }
        let pairs = [("min.compaction.lag.ms", "5"), ("max.compaction.lag.ms", "4")];
        assert_eq!(
            check_topic_configs(&node(&[]), pairs.into_iter()).unwrap_err(),
            "conflict topic config setting min.compaction.lag.ms (5) > max.compaction.lag.ms (4)"
        );
    }

    #[test]
    fn values_that_the_table_refuses_leave_the_others_standing() {
        let pairs = [("nope", "1"), ("flush.ms", "x"), ("retention.ms", "5")];
        let config = TopicConfig::effective(&node(&[]), pairs.into_iter());
        assert_eq!(config, TopicConfig { retention_ms: 5, ..TopicConfig::default() });
    }

    proptest! {
        #[test]
        fn any_value_of_any_key_is_taken_or_refused(row in prop::sample::select(TOPIC_KEYS), value in "\\PC{0,12}|-?[0-9]{1,20}") {
            let node = NodeConfig::default();
            let pairs = [(row.name, value.as_str())];
            let valid = check_topic_configs(&node, pairs.into_iter()).is_ok();
            let effective = TopicConfig::effective(&node, pairs.into_iter());
            prop_assert!(valid || effective == node.topic_defaults || row.name.ends_with("compaction.lag.ms"));
        }
    }
}
