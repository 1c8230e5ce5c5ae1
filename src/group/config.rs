//! What a coordinator is told at start.

use super::consumer::ConsumerConfig;

/// What a coordinator is told at start.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`
    pub session_timeout_min_ms: i32,
    /// `group.max.session.timeout.ms`
    pub session_timeout_max_ms: i32,
    /// `group.initial.rebalance.delay.ms`
    pub initial_rebalance_delay_ms: u64,
    /// `group.max.size`
    pub group_max_size: usize,
    /// `offset.metadata.max.bytes`; Kafka counts UTF-16 code units.
    pub offset_metadata_max: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub expiry_interval_ms: u64,
    /// `offsets.commit.timeout.ms`: how long an answer is held.
    pub commit_timeout_ms: u64,
    /// Bytes of the largest batch that the offsets topic takes.
    pub batch_bytes_max: usize,
    /// `group.consumer.*`
    pub consumer: ConsumerConfig,
}

impl Default for GroupConfig {
    /// Kafka's defaults.
    fn default() -> Self {
        Self {
            session_timeout_min_ms: 6_000,
            session_timeout_max_ms: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            group_max_size: i32::MAX as usize,
            offset_metadata_max: 4_096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1_000,
            expiry_interval_ms: 600_000,
            commit_timeout_ms: 5_000,
            batch_bytes_max: 1_048_576,
            consumer: ConsumerConfig::default(),
        }
    }
}
