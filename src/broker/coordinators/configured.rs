//! What coordinators are told of the node's configuration.

use crate::config::{ConsumerGroupConfig, NodeConfig};
use crate::group::GroupConfig;
use crate::group::consumer::{ConsumerConfig, MigrationPolicy};

fn size(value: i32) -> usize {
    usize::try_from(value).unwrap_or(0)
}

pub(super) fn group_config(node: &NodeConfig) -> GroupConfig {
    const MINUTE_MS: i64 = 60_000;
    let given = &node.group;
    let ms = |value: i64| u64::try_from(value).unwrap_or(0);
    GroupConfig {
        session_timeout_min_ms: given.min_session_timeout_ms,
        session_timeout_max_ms: given.max_session_timeout_ms,
        initial_rebalance_delay_ms: ms(given.initial_rebalance_delay_ms.into()),
        group_max_size: size(given.max_size),
        offset_metadata_max: size(given.offset_metadata_max_bytes),
        offsets_retention_ms: i64::from(given.offsets_retention_minutes).saturating_mul(MINUTE_MS),
        expiry_interval_ms: ms(given.offsets_retention_check_interval_ms),
        commit_timeout_ms: ms(given.offsets_commit_timeout_ms.into()),
        batch_bytes_max: usize::try_from(node.topic_defaults.max_message_bytes).unwrap_or(usize::MAX),
        consumer: consumer_config(&given.consumer),
    }
}

fn consumer_config(given: &ConsumerGroupConfig) -> ConsumerConfig {
    ConsumerConfig {
        session_timeout_ms: given.session_timeout_ms,
        session_timeout_min_ms: given.min_session_timeout_ms,
        session_timeout_max_ms: given.max_session_timeout_ms,
        heartbeat_interval_ms: given.heartbeat_interval_ms,
        heartbeat_interval_min_ms: given.min_heartbeat_interval_ms,
        heartbeat_interval_max_ms: given.max_heartbeat_interval_ms,
        group_max_size: size(given.max_size),
        assignors: given.assignors.iter().map(|name| name.as_str().into()).collect(),
        migration_policy: MigrationPolicy::named(&given.migration_policy).unwrap_or_default(),
    }
}
