//! What one node is configured to do, typed: made from the key table once, before anything starts.
//!
//! Every field is within the range that the table gives for its key; nothing here needs checking again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{ClusterConfig, CompressionLevels, ReplicationLimits, TopicConfig};

/// `process.roles`: what this node does in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessRoles {
    /// It serves partitions to clients.
    pub broker: bool,
    /// It votes in the metadata quorum.
    pub controller: bool,
}

/// How bytes travel on a listener (`listener.security.protocol.map`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecurityProtocol {
    /// Bytes as they are; everyone is ANONYMOUS.
    Plaintext,
}

impl SecurityProtocol {
    /// Kafka's name of the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
        }
    }
}

/// A host and a port as the configuration names them; the host is not resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or an address without brackets; empty means every interface when bound, and this machine's own
    /// name when advertised.
    pub host: String,
    /// 0 lets the kernel choose (bound) or means the port that was bound (advertised).
    pub port: u16,
}

/// One entry of `listeners`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Upper-case name, `PLAINTEXT` for example.
    pub name: String,
    /// How bytes travel on it.
    pub protocol: SecurityProtocol,
    /// Where it listens.
    pub bind: Endpoint,
    /// What clients are told; equals `bind` unless `advertised.listeners` says otherwise. `None` for a listener
    /// that clients are never told about (a controller's).
    pub advertised: Option<Endpoint>,
}

/// `shard.cpus`: where shards may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardCpus {
    /// Every CPU that the process may use.
    All,
    /// These, ascending, each once; never empty.
    List(Vec<u32>),
}

/// Limits and times of the group coordinator, as given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`
    pub max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`
    pub max_size: i32,
    /// `offsets.retention.minutes`
    pub offsets_retention_minutes: i32,
    /// `offsets.retention.check.interval.ms`
    pub offsets_retention_check_interval_ms: i64,
    /// `offsets.topic.num.partitions`
    pub offsets_topic_num_partitions: i32,
    /// `offsets.topic.replication.factor`
    pub offsets_topic_replication_factor: i16,
    /// `offsets.topic.segment.bytes`
    pub offsets_topic_segment_bytes: i32,
    /// `offsets.topic.compression.codec`, as a codec's number.
    pub offsets_topic_compression_codec: i16,
    /// `offset.metadata.max.bytes`
    pub offset_metadata_max_bytes: i32,
    /// `offsets.commit.timeout.ms`
    pub offsets_commit_timeout_ms: i32,
    /// `group.consumer.*`
    pub consumer: ConsumerGroupConfig,
}

/// Limits and times of consumer groups, as given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerGroupConfig {
    /// `group.consumer.session.timeout.ms`
    pub session_timeout_ms: i32,
    /// `group.consumer.min.session.timeout.ms`
    pub min_session_timeout_ms: i32,
    /// `group.consumer.max.session.timeout.ms`
    pub max_session_timeout_ms: i32,
    /// `group.consumer.heartbeat.interval.ms`
    pub heartbeat_interval_ms: i32,
    /// `group.consumer.min.heartbeat.interval.ms`
    pub min_heartbeat_interval_ms: i32,
    /// `group.consumer.max.heartbeat.interval.ms`
    pub max_heartbeat_interval_ms: i32,
    /// `group.consumer.max.size`
    pub max_size: i32,
    /// `group.consumer.assignors`, by their short names.
    pub assignors: Vec<String>,
    /// `group.consumer.migration.policy`
    pub migration_policy: String,
}

/// Limits and times of the transaction coordinator, as given; kept for the day it exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionConfig {
    /// `transaction.max.timeout.ms`
    pub max_timeout_ms: i32,
    /// `transaction.state.log.num.partitions`
    pub state_log_num_partitions: i32,
    /// `transaction.state.log.replication.factor`
    pub state_log_replication_factor: i16,
    /// `transaction.state.log.min.isr`
    pub state_log_min_isr: i32,
    /// `transaction.state.log.segment.bytes`
    pub state_log_segment_bytes: i32,
    /// `transactional.id.expiration.ms`
    pub transactional_id_expiration_ms: i32,
}

/// The configuration of one node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeConfig {
    /// `node.id`, or `broker.id`; 1 when neither is given.
    pub node_id: i32,
    /// `process.roles`; both when it is not given.
    pub roles: ProcessRoles,
    /// `broker.rack`
    pub rack: Option<String>,
    /// `listeners` in the order given, with protocol and advertised endpoint.
    pub listeners: Vec<Listener>,
    /// Name of the listener that brokers use among themselves (`inter.broker.listener.name` or
    /// `security.inter.broker.protocol`); empty on a node that is only a controller.
    pub inter_broker_listener: String,
    /// `controller.listener.names`; their listeners answer the controller's API only. On a node that is only a broker
    /// they are the controllers' own, and none of its listeners.
    pub controller_listeners: Vec<String>,
    /// `log.dirs`, or `log.dir`; never empty, each once.
    pub log_dirs: Vec<PathBuf>,
    /// `metadata.log.dir`; the first log directory when it is not given.
    pub metadata_log_dir: PathBuf,

    /// `shard.count`; 0 is one per CPU of `shard_cpus`.
    pub shard_count: u32,
    /// `shard.cpus`
    pub shard_cpus: ShardCpus,
    /// `shard.connections.move`: whether a connection goes to the shard that owns most of what it asks for.
    pub shard_connections_move: bool,
    /// `shard.memory.percent`: share of the machine's memory that all shards together may hold in requests.
    pub shard_memory_percent: u32,
    /// `num.recovery.threads.per.data.dir`
    pub recovery_threads_per_log_dir: u32,
    /// `log.dir.free.floor.bytes`; `None` is the less of 1 GiB and 5 % of the device.
    pub log_dir_free_floor_bytes: Option<u64>,

    /// `num.partitions`: of an auto-created topic.
    pub num_partitions: i32,
    /// `default.replication.factor`
    pub default_replication_factor: i16,
    /// `auto.create.topics.enable`
    pub auto_create_topics: bool,
    /// `delete.topic.enable`
    pub delete_topic_enable: bool,
    /// What a topic without configuration of its own is configured to do.
    pub topic_defaults: TopicConfig,
    /// The levels that a topic's `compression.type` takes up when it names their codec.
    pub compression_levels: CompressionLevels,

    /// `socket.request.max.bytes`: the largest frame.
    pub socket_request_max_bytes: u32,
    /// `socket.send.buffer.bytes`; `None` (-1) leaves it to the kernel.
    pub socket_send_buffer_bytes: Option<u32>,
    /// `socket.receive.buffer.bytes`; `None` (-1, or not given) leaves it to the kernel.
    pub socket_receive_buffer_bytes: Option<u32>,
    /// `socket.listen.backlog.size`
    pub socket_listen_backlog: u32,
    /// `max.connections`
    pub max_connections: u32,
    /// `max.connections.per.ip`
    pub max_connections_per_ip: u32,
    /// `max.connections.per.ip.overrides`: host name or address → limit.
    pub max_connections_per_ip_overrides: BTreeMap<String, u32>,
    /// `max.connection.creation.rate` per second
    pub max_connection_creation_rate: u32,
    /// `connections.max.idle.ms`; `None` (negative) never closes an idle connection.
    pub connections_max_idle_ms: Option<u64>,
    /// `queued.max.request.bytes`; `None` (-1) is the shard's own budget.
    pub queued_max_request_bytes: Option<u64>,

    /// `fetch.max.bytes`: the most that one fetch response holds.
    pub fetch_max_bytes: u32,
    /// `max.incremental.fetch.session.cache.slots`, over all shards.
    pub fetch_session_slots: u32,
    /// `max.request.partition.size.limit`
    pub max_request_partition_size_limit: u32,

    /// `log.flush.offset.checkpoint.interval.ms`
    pub log_flush_offset_checkpoint_interval_ms: u64,
    /// `replica.high.watermark.checkpoint.interval.ms`
    pub high_watermark_checkpoint_interval_ms: u64,
    /// `log.retention.check.interval.ms`
    pub log_retention_check_interval_ms: u64,
    /// `log.initial.task.delay.ms`
    pub log_initial_task_delay_ms: u64,
    /// `producer.id.expiration.ms`
    pub producer_id_expiration_ms: u64,
    /// `replica.lag.time.max.ms`
    pub replica_lag_time_max_ms: u64,
    /// The rates of throttled replicas.
    pub replication_limits: ReplicationLimits,
    /// `replica.selector.class` names Kafka's RackAwareReplicaSelector: consumers are sent to replicas in their racks.
    pub rack_aware_reads: bool,

    /// The keys of a cluster of several nodes.
    pub cluster: ClusterConfig,
    /// The group coordinator's keys.
    pub group: GroupConfig,
    /// The transaction coordinator's keys.
    pub transaction: TransactionConfig,

    /// The values that were given, as they were given, by key; every other key has its default.
    pub given: BTreeMap<&'static str, String>,
}

impl NodeConfig {
    /// Whether it names other nodes: such a node does not make a cluster of its own where it finds none.
    pub fn is_told_of_others(&self) -> bool {
        let ProcessRoles { broker, controller } = self.roles;
        let others = self.cluster.voters.len() > 1 || self.cluster.bootstrap_servers.len() > 1;
        !(broker && controller) || others
    }
}
