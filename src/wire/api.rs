//! The API table: everything the broker knows about an API before it reads a request's body.
//!
//! ApiVersions is answered from it, connections order requests by it, and `docs/PROTOCOL.md` is
//! generated from it. A version stands here only when its meaning is implemented.

mod table;

pub use super::api_document::markdown;
use super::outbound;

pub use table::{RAFT_FRAME_BYTES, TABLE};

/// The APIs that are served, by their Kafka number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i16)]
pub enum ApiKey {
    /// Appends record batches.
    Produce = 0,
    /// Reads record batches.
    Fetch = 1,
    /// Finds offsets by timestamp.
    ListOffsets = 2,
    /// Describes brokers, topics and partitions.
    Metadata = 3,
    /// Commits offsets of a group.
    OffsetCommit = 8,
    /// Reads the committed offsets of groups.
    OffsetFetch = 9,
    /// Finds the coordinator of a group or a transactional id.
    FindCoordinator = 10,
    /// Joins a group.
    JoinGroup = 11,
    /// Says that a member is there.
    Heartbeat = 12,
    /// Takes members out of a group.
    LeaveGroup = 13,
    /// Gives out what the leader of a group assigned.
    SyncGroup = 14,
    /// Describes groups.
    DescribeGroups = 15,
    /// Lists groups.
    ListGroups = 16,
    /// Tells which APIs and versions are served.
    ApiVersions = 18,
    /// Creates topics.
    CreateTopics = 19,
    /// Deletes topics.
    DeleteTopics = 20,
    /// Moves the log start of partitions.
    DeleteRecords = 21,
    /// Gives out a producer id and epoch.
    InitProducerId = 22,
    /// Tells where a leader epoch ended.
    OffsetForLeaderEpoch = 23,
    /// Tells access rules; there is no authorizer yet.
    DescribeAcls = 29,
    /// Makes access rules; there is no authorizer yet.
    CreateAcls = 30,
    /// Takes access rules away; there is no authorizer yet.
    DeleteAcls = 31,
    /// Tells the configuration of topics and brokers.
    DescribeConfigs = 32,
    /// Replaces the configuration of resources.
    AlterConfigs = 33,
    /// Moves replicas between log directories.
    AlterReplicaLogDirs = 34,
    /// Tells what is in the log directories.
    DescribeLogDirs = 35,
    /// Adds partitions to topics.
    CreatePartitions = 37,
    /// Deletes groups.
    DeleteGroups = 42,
    /// Has leaders elected.
    ElectLeaders = 43,
    /// Changes the configuration of resources key by key.
    IncrementalAlterConfigs = 44,
    /// Moves partitions between brokers.
    AlterPartitionReassignments = 45,
    /// Tells which partitions are on their way.
    ListPartitionReassignments = 46,
    /// Deletes committed offsets of a group.
    OffsetDelete = 47,
    /// Tells client quotas; there are none yet.
    DescribeClientQuotas = 48,
    /// Checks client quotas, and refuses them until they are enforced.
    AlterClientQuotas = 49,
    /// Tells users' credentials; there are none yet.
    DescribeUserScramCredentials = 50,
    /// Describes the metadata quorum.
    DescribeQuorum = 55,
    /// Changes in-sync sets: a leader asks the controller.
    AlterPartition = 56,
    /// Finalizes feature levels.
    UpdateFeatures = 57,
    /// Another request, passed on by the broker that a client sent it to.
    Envelope = 58,
    /// Describes the cluster and its brokers.
    DescribeCluster = 60,
    /// Tells who produces to partitions.
    DescribeProducers = 61,
    /// A broker tells the controller that it has started.
    BrokerRegistration = 62,
    /// A broker tells the controller that it lives.
    BrokerHeartbeat = 63,
    /// Forgets a broker that is gone.
    UnregisterBroker = 64,
    /// Gives a broker a block of producer ids.
    AllocateProducerIds = 67,
    /// Joins a consumer group, stays and leaves.
    ConsumerGroupHeartbeat = 68,
    /// Describes consumer groups.
    ConsumerGroupDescribe = 69,
    /// A broker tells in which of its log directories replicas are.
    AssignReplicasToDirs = 73,
    /// Lists resources that may have a configuration.
    ListConfigResources = 74,
    /// Describes topics, page by page.
    DescribeTopicPartitions = 75,
    /// Adds a voter to the metadata quorum.
    AddRaftVoter = 80,
    /// Takes a voter out of the metadata quorum.
    RemoveRaftVoter = 81,
    /// A voter of the metadata quorum is reached elsewhere.
    UpdateRaftVoter = 82,
    /// What controllers say to each other; ours alone.
    RaftMessages = outbound::RAFT_MESSAGES,
    /// A node wants to be fed the metadata log; ours alone.
    JoinQuorum = outbound::JOIN_QUORUM,
}

/// Kafka's numbers are far below.
const PRIVATE_FROM: i16 = 1000;

/// Who is at the other end of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// Clients and tools.
    Client,
    /// Other brokers.
    Broker,
    /// Controllers, and brokers that call a controller.
    Controller,
}

/// The listeners that may call an API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listeners {
    /// Listeners of clients.
    pub client: bool,
    /// Listeners of other brokers.
    pub broker: bool,
    /// Listeners of the controller.
    pub controller: bool,
}

impl Listeners {
    /// Whether a listener is among them.
    pub fn admit(self, listener: Listener) -> bool {
        match listener {
            Listener::Client => self.client,
            Listener::Broker => self.broker,
            Listener::Controller => self.controller,
        }
    }
}

/// The operation that a principal needs, and on what; finer checks are the handler's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclOperation {
    /// Nothing.
    None,
    /// READ on each topic.
    TopicRead,
    /// WRITE on each topic.
    TopicWrite,
    /// DESCRIBE on each topic.
    TopicDescribe,
    /// CREATE on the cluster or on each topic.
    TopicCreate,
    /// DELETE on each topic.
    TopicDelete,
    /// ALTER on each topic.
    TopicAlter,
    /// DESCRIBE_CONFIGS on each topic, or on the cluster for what is not a topic's.
    DescribeConfigs,
    /// ALTER_CONFIGS on each topic or group, or on the cluster for what is neither's.
    AlterConfigs,
    /// DESCRIBE on the cluster.
    ClusterDescribe,
    /// ALTER on the cluster.
    ClusterAlter,
    /// CLUSTER_ACTION on the cluster: what brokers ask of each other.
    ClusterAction,
    /// DESCRIBE_CONFIGS on the cluster.
    ClusterDescribeConfigs,
    /// ALTER_CONFIGS on the cluster.
    ClusterAlterConfigs,
    /// WRITE on the transactional id, or IDEMPOTENT_WRITE on the cluster without one.
    ProducerWrite,
    /// READ on the group, and on each topic that it is about.
    GroupRead,
    /// DESCRIBE on each group.
    GroupDescribe,
    /// DELETE on each group.
    GroupDelete,
}

/// Where a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// On the connection's shard, from its Image.
    Local,
    /// By the shards that own the partitions named.
    Partitions,
    /// By the partition of the coordinator.
    Coordinator,
    /// By the controller shard.
    Controller,
}

/// One row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Api {
    /// Key.
    pub key: ApiKey,
    /// Kafka's name.
    pub name: &'static str,
    /// First version that is answered.
    pub version_first: i16,
    /// Last version that is answered and advertised.
    pub version_last: i16,
    /// First version that is advertised; lower than the first answered only for Produce.
    pub advertised_first: i16,
    /// First version with compact lengths and tagged fields.
    pub flexible_first: i16,
    /// Listeners that may call it.
    pub listeners: Listeners,
    /// What its caller must be allowed to do.
    pub acl: AclOperation,
    /// Where it is answered.
    pub route: Route,
    /// Whether it starts only when all earlier requests of its connection are answered.
    pub barrier: bool,
    /// Frames above this are refused; `socket.request.max.bytes` applies besides.
    pub frame_limit_bytes: u32,
}

/// No limit but `socket.request.max.bytes`: records have their own, and views take no memory.
pub(super) const FRAME_UNLIMITED: u32 = i32::MAX as u32;

/// The row of a key.
pub fn find(key: i16) -> Option<&'static Api> {
    let row = TABLE.binary_search_by_key(&key, |api| api.key as i16).ok()?;
    TABLE.get(row)
}

impl ApiKey {
    /// Its row.
    pub fn api(self) -> &'static Api {
        find(self as i16).expect("every key has a row")
    }
}

impl Api {
    /// Whether a version is answered.
    pub fn serves(&self, version: i16) -> bool {
        (self.version_first..=self.version_last).contains(&version)
    }

    /// Whether a version has compact lengths and tagged fields.
    pub fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible_first
    }

    /// Whether it is ours alone: nobody is told of it, and only nodes of this build call it.
    pub fn is_private(&self) -> bool {
        self.key as i16 >= PRIVATE_FROM
    }

    /// Whether a broker may pass it on to the controller for its client, in an Envelope.
    pub fn is_forwardable(&self) -> bool {
        matches!(self.route, Route::Controller)
            && self.listeners.controller
            && !self.is_private()
            && !matches!(
                self.key,
                ApiKey::Envelope
                    | ApiKey::AssignReplicasToDirs
                    | ApiKey::AlterPartition
                    | ApiKey::BrokerRegistration
                    | ApiKey::BrokerHeartbeat
                    | ApiKey::UpdateRaftVoter
            )
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages;

    use super::super::beyond;
    use super::*;

    #[test]
    fn the_table_agrees_with_the_library_on_names_ranges_and_flexible_versions() {
        assert!(TABLE.is_sorted_by_key(|api| api.key));
        for api in TABLE.iter().filter(|api| !api.is_private()) {
            let library = messages::ApiKey::try_from(api.key as i16).unwrap();
            assert_eq!(format!("{library:?}"), api.name);
            let range = library.valid_versions();
            assert!(range.min <= api.version_first, "{}", api.name);
            let last = range.max.max(beyond::version(api.key).unwrap_or(0));
            assert!(last >= api.version_last, "{}", api.name);
            for version in api.version_first..=api.version_last.min(range.max) {
                let flexible = library.request_header_version(version) == 2;
                assert_eq!(api.is_flexible(version), flexible, "{} v{version}", api.name);
                let expected = if flexible && api.key != ApiKey::ApiVersions { 1 } else { 0 };
                assert_eq!(library.response_header_version(version), expected);
            }
        }
    }

    #[test]
    fn what_is_ours_alone_is_between_controllers_and_flexible() {
        let own: Vec<&Api> = TABLE.iter().filter(|api| api.is_private()).collect();
        let [raft, join] = own[..] else { panic!("{own:?}") };
        assert_eq!((raft.key as i16, join.key as i16), (outbound::RAFT_MESSAGES, outbound::JOIN_QUORUM));
        assert!(raft.serves(outbound::RAFT_MESSAGES_VERSION) && join.serves(outbound::JOIN_QUORUM_VERSION));
        for api in own {
            assert!(api.is_flexible(api.version_first) && !api.is_forwardable());
            let only = |door| api.listeners.admit(door) == (door == Listener::Controller);
            assert!([Listener::Client, Listener::Broker, Listener::Controller].into_iter().all(only));
        }
        assert!(raft.frame_limit_bytes as usize > crate::controller::quorum::codec::MESSAGE_BYTES_MAX);
    }

    #[test]
    fn only_produce_and_fetch_overlap() {
        for api in &TABLE {
            assert_eq!(api.barrier, !matches!(api.key, ApiKey::Produce | ApiKey::Fetch), "{}", api.name);
            assert_eq!(api.key.api(), api);
        }
        assert_eq!(find(4), None);
    }
}
