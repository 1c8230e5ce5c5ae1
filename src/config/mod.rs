//! Every configuration key in one table, and the typed configuration made from it.

mod topic;

pub use topic::{CleanupPolicy, CompressionType, TimestampType, TopicConfig};
