//! Every configuration key in one table, and the typed configuration made from it.

mod node;
mod topic;

pub use node::{
    Endpoint, GroupConfig, Listener, NodeConfig, ProcessRoles, SecurityProtocol, ShardCpus, TransactionConfig,
};
pub use topic::{CleanupPolicy, CompressionType, TimestampType, TopicConfig};
