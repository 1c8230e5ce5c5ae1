//! Our own thin producer, consumer and admin over blocking sockets, for the command line, the tests and the
//! bench harness.
//!
//! Thin means: one thread, one request in hand at a time unless [`Connection`] is asked to pipeline, groups by the
//! classic protocol with the range assignor alone, and no transactions. What a broker sends is bounded and checked
//! before it is believed.

mod admin;
mod cluster;
mod connection;
mod consumer;
mod error;
mod group_consumer;
mod membership;
mod partitioner;
mod producer;
mod records;
mod topic_partition;

pub use admin::{
    Admin, BrokerDescription, ClusterDescription, CommittedOffset, ConfigChange, ConfigEntry,
    ConfigResourceType, ConfigSource, GroupDescription, GroupListing, GroupMemberDescription,
    LogDirDescription, NewTopic, PartitionDescription, PartitionResults, TopicDescription, TopicSummary,
};
pub use cluster::{Cluster, Partition, parse_bootstrap};
pub use connection::{Connection, ConnectionConfig, Ticket};
pub use consumer::{Consumer, ConsumerConfig, Start};
pub use error::ClientError;
pub use group_consumer::{GroupConsumer, GroupConsumerConfig, TopicChoice};
pub use membership::{Membership, MembershipConfig, range_assignment};
pub use partitioner::{murmur2, partition_of_key};
pub use producer::{Acks, Delivery, Producer, ProducerConfig, Record};
pub use records::{ConsumedRecord, RecordTimestamp};
pub use topic_partition::TopicPartition;
