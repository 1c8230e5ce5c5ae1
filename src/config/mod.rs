//! Every configuration key in one table, and the typed configuration made from it.

pub mod keys;
mod node;
pub mod properties;
mod topic;

pub use node::{
    Endpoint, GroupConfig, Listener, NodeConfig, ProcessRoles, SecurityProtocol, ShardCpus, TransactionConfig,
};
pub use topic::{CleanupPolicy, CompressionType, TimestampType, TopicConfig};
