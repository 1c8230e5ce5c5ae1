//! Every configuration key in one table, and the typed configuration made from it.
//!
//! Text goes in and values come out: reading the file is the caller's. The way is [`properties`] (text to entries),
//! [`keys`] (what each key may be), then [`NodeConfig::load`] (the rules that join several keys).

mod cluster;
mod cpus;
mod describe;
mod document;
mod dynamic;
mod given;
mod initial_voters;
pub mod keys;
mod listeners;
mod load;
mod node;
pub mod properties;
mod throttles;
mod topic;

pub use cluster::{ClusterConfig, ReplicaFetchConfig, Voter};
pub use describe::{
    ConfigSource, ConfigSynonym, DescribedConfig, DynamicConfigs, describe_broker, describe_group,
    describe_metrics, describe_topic,
};
pub use document::document;
pub use dynamic::{
    Refusal, check_broker_configs, check_group_configs, check_metrics_configs, group_number, warn_of,
};
pub use given::{ConfigError, Problem, Warning};
pub use initial_voters::{INITIAL_VOTERS_FILE, InitialVoter, InitialVoters};
pub use node::{
    ConsumerGroupConfig, Endpoint, GroupConfig, Listener, NodeConfig, ProcessRoles, SecurityProtocol,
    ShardCpus, TransactionConfig,
};
pub use throttles::{ReplicationLimits, ThrottledReplicas};
pub use topic::{
    CleanupPolicy, CompressionLevels, CompressionType, TimestampType, TopicConfig, check_topic_configs,
};
