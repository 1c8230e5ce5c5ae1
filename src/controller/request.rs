//! What is asked of the controller, and what it answers: plain values, without wire versions.

use std::sync::Arc;

use smallvec::SmallVec;
use uuid::Uuid;

use super::directories::{Assigned, Assignment};
use super::record::{Endpoint, LeaderRecovery, NodeIds, ResourceType};
use crate::wire::ErrorCode;

/// A change that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControllerRequest {
    /// A broker is here; answered by [`ControllerAnswer::Registered`].
    RegisterBroker {
        /// Node id.
        node_id: i32,
        /// New with every start of its process.
        incarnation: Uuid,
        /// Where it is reached.
        listeners: Vec<Endpoint>,
        /// `broker.rack`
        rack: Option<Arc<str>>,
        /// Ids of its log directories, where it tells them.
        directories: Vec<Uuid>,
        /// The epoch with which it was registered when it last stopped in order; -1 if it did not.
        previous_epoch: i64,
        /// The cluster that it belongs to, if it knows one.
        cluster_id: Option<Arc<str>>,
    },
    /// A broker is alive; answered by [`ControllerAnswer::Heartbeat`].
    Heartbeat {
        /// Node id.
        node_id: i32,
        /// The epoch of its registration.
        epoch: i64,
        /// Image version that it has applied.
        applied_version: u64,
        /// It wants to be fenced, or to stay so.
        wants_fence: bool,
        /// It wants to stop.
        wants_shutdown: bool,
        /// Ids of its log directories that have failed since it registered, or before.
        offline_directories: Vec<Uuid>,
    },
    /// A broker is gone for good; answered by [`ControllerAnswer::Unregistered`].
    UnregisterBroker {
        /// Node id.
        node_id: i32,
    },
    /// A leader wants other in-sync sets; answered by [`ControllerAnswer::Isr`].
    AlterPartition {
        /// The leader's node id.
        node_id: i32,
        /// The epoch of its registration.
        epoch: i64,
        /// Topic id, index and what is wanted.
        changes: Vec<(Uuid, i32, IsrChange)>,
    },
    /// A broker tells in which of its log directories replicas are; answered by [`ControllerAnswer::Assigned`].
    AssignReplicas {
        /// Its node id.
        node_id: i32,
        /// The epoch of its registration.
        epoch: i64,
        /// The replicas.
        assignments: Vec<Assignment>,
    },
    /// Answered by [`ControllerAnswer::Elected`].
    ElectLeaders {
        /// Topic name and index; `None` is all that want it.
        partitions: Option<Vec<(String, i32)>>,
        /// Which leaders.
        kind: ElectionKind,
    },
    /// Replicas shall move; answered by [`ControllerAnswer::Reassigned`].
    AlterReassignments {
        /// Topic name, index and the replicas that it shall have; `None` cancels what is under way.
        changes: Vec<(String, i32, Option<Vec<i32>>)>,
        /// Another number of replicas than before is fine.
        allow_replication_factor_change: bool,
    },
    /// Answered by [`ControllerAnswer::Reassignments`].
    ListReassignments {
        /// Topic name and index; `None` is all.
        partitions: Option<Vec<(String, i32)>>,
    },
    /// Answered by [`ControllerAnswer::Topics`], in the order asked, a repeated name once.
    CreateTopics {
        /// The topics.
        topics: Vec<NewTopic>,
        /// Everything is checked, nothing is made.
        validate_only: bool,
    },
    /// Topics that shall be there because somebody wants to use them. A topic that is there already is answered as
    /// if it had been made.
    AutoCreateTopics {
        /// The topics.
        topics: Vec<NewTopic>,
    },
    /// Answered by [`ControllerAnswer::Deleted`].
    DeleteTopics {
        /// By name or by id.
        topics: Vec<TopicRef>,
    },
    /// Answered by [`ControllerAnswer::Partitions`].
    CreatePartitions {
        /// The topics.
        topics: Vec<MorePartitions>,
        /// Everything is checked, nothing is made.
        validate_only: bool,
    },
    /// A block of producer ids; answered by [`ControllerAnswer::ProducerIds`].
    AllocateProducerIds,
    /// Answered by [`ControllerAnswer::Configs`]. Serves AlterConfigs and IncrementalAlterConfigs.
    AlterConfigs {
        /// The resources.
        resources: Vec<ConfigChanges>,
        /// Everything is checked, nothing is changed.
        validate_only: bool,
    },
    /// Answered by [`ControllerAnswer::Features`].
    UpdateFeatures {
        /// The features.
        updates: Vec<FeatureUpdate>,
        /// Everything is checked, nothing is changed.
        validate_only: bool,
    },
    /// Answered by [`ControllerAnswer::Quorum`].
    DescribeQuorum,
    /// A node wants to be fed the log: it becomes a learner. Another disk of the same node that only learned goes.
    /// Also what a member says whose address changed. Answered by [`ControllerAnswer::QuorumChanged`].
    JoinQuorum {
        /// Node id.
        node_id: i32,
        /// Raft id of its disk.
        raft_id: u64,
        /// Where its controller listens.
        endpoint: Endpoint,
    },
    /// A learner that has caught up becomes a voter. Answered by [`ControllerAnswer::QuorumChanged`].
    AddVoter {
        /// Node id.
        node_id: i32,
        /// Raft id of its disk.
        raft_id: u64,
        /// Where its controller listens.
        endpoint: Endpoint,
    },
    /// A voter becomes a learner, or leaves if its node has another disk by now. A leader that is to go gives its
    /// place away first and refuses with `NOT_CONTROLLER`. Answered by [`ControllerAnswer::QuorumChanged`].
    RemoveVoter {
        /// Node id.
        node_id: i32,
        /// Raft id of its disk.
        raft_id: u64,
    },
    /// A voter is reached elsewhere. Answered by [`ControllerAnswer::QuorumChanged`].
    UpdateVoter {
        /// Node id.
        node_id: i32,
        /// Raft id of its disk.
        raft_id: u64,
        /// The term of whom it takes for the leader; -1 where it knows of none, and anyone may decide.
        leader_epoch: i32,
        /// Where its controller listens.
        endpoint: Endpoint,
    },
    /// A node that does not vote is fed no longer. Answered by [`ControllerAnswer::QuorumChanged`].
    LeaveQuorum {
        /// Node id.
        node_id: i32,
    },
}

impl ControllerRequest {
    /// Whether all that it makes has to be one entry of the log. What is not stands in any part of it.
    pub(super) fn is_whole(&self) -> bool {
        !matches!(
            self,
            Self::RegisterBroker { .. }
                | Self::Heartbeat { .. }
                | Self::UnregisterBroker { .. }
                | Self::ElectLeaders { .. }
        )
    }
}

/// Which leader an election looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElectionKind {
    /// The first replica.
    Preferred,
    /// Any replica, for a partition without a leader.
    Unclean,
}

/// The in-sync set that a leader wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrChange {
    /// The leader's epoch.
    pub leader_epoch: i32,
    /// The partition's epoch as the leader knows it.
    pub partition_epoch: i32,
    /// Node ids, each with the broker epoch that the leader knows; -1 if it knows none.
    pub isr: SmallVec<[(i32, i64); 3]>,
    /// Recovered, or still recovering as it is already.
    pub recovery: LeaderRecovery,
}

/// What a partition is after an [`IsrChange`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrState {
    /// Who leads: the one who asked.
    pub leader: i32,
    /// Its epoch.
    pub leader_epoch: i32,
    /// The partition's epoch.
    pub partition_epoch: i32,
    /// In-sync replicas.
    pub isr: NodeIds,
    /// The leader's recovery.
    pub recovery: LeaderRecovery,
}

/// What became of an [`IsrChange`], by topic id and partition index.
pub type IsrAnswer = (Uuid, i32, Result<IsrState, ErrorCode>);

/// What a broker is told of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatAnswer {
    /// It has applied its own registration.
    pub is_caught_up: bool,
    /// It is fenced.
    pub is_fenced: bool,
    /// It leads nothing, the others know that, and it may stop.
    pub should_shut_down: bool,
}

/// A partition whose replicas move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reassignment {
    /// Topic name.
    pub topic: String,
    /// Index.
    pub index: i32,
    /// All of its replicas, those that are added and those that go among them.
    pub replicas: Vec<i32>,
    /// Those that are added.
    pub adding: Vec<i32>,
    /// Those that go.
    pub removing: Vec<i32>,
}

/// A topic to create.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; -1 is `num.partitions`.
    pub partitions: i32,
    /// How many replicas each; -1 is `default.replication.factor`.
    pub replication_factor: i16,
    /// Partition index and its brokers, for those who choose them; then the two counts are -1.
    pub assignments: Vec<(i32, Vec<i32>)>,
    /// Configuration overrides.
    pub configs: Vec<(String, Option<String>)>,
}

/// A topic by either of its names. Exactly one is to be given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicRef {
    /// By name.
    pub name: Option<String>,
    /// By id; nil is none.
    pub id: Uuid,
}

/// A topic that shall have more partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MorePartitions {
    /// Its name.
    pub name: String,
    /// How many it shall have.
    pub count: i32,
    /// Brokers of each new partition, for those who choose them.
    pub assignments: Option<Vec<Vec<i32>>>,
}

/// Changes of one resource's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigChanges {
    /// Kind.
    pub resource_type: ResourceType,
    /// Topic name, decimal node id (empty for all brokers), group id or name of a subscription.
    pub name: String,
    /// Keys, each once, and what becomes of each.
    pub changes: Vec<(String, ConfigOp)>,
    /// AlterConfigs: overrides that are not named go away.
    pub replace: bool,
}

/// What becomes of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigOp {
    /// It gets this value.
    Set(String),
    /// The override goes away.
    Delete,
    /// The items that a list lacks are put behind it.
    Append(String),
    /// Items of a list go away.
    Subtract(String),
}

/// A feature that shall have another level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureUpdate {
    /// Its name.
    pub name: String,
    /// The level that it shall have; 0 takes it away.
    pub level: i16,
    /// Kafka's number of the kind of change: 1 upgrade, 2 safe downgrade, 3 unsafe downgrade.
    pub upgrade_type: i8,
}

/// A member of the metadata quorum as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumReplica {
    /// Node id.
    pub node_id: i32,
    /// Raft id of its disk.
    pub raft_id: u64,
    /// Where its controller listens.
    pub endpoint: Endpoint,
    /// Entries that it is known to have; -1 if nothing was heard of it.
    pub log_end_offset: i64,
    /// When it was last heard of, in wall-clock milliseconds; -1 if never.
    pub last_fetch_ms: i64,
    /// When it last had everything that the leader had, in wall-clock milliseconds; -1 if never.
    pub last_caught_up_ms: i64,
}

/// The metadata quorum as its leader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuorumState {
    /// Node id of the leader.
    pub leader_id: i32,
    /// Term of the leader.
    pub leader_epoch: i32,
    /// Entries that are committed.
    pub high_watermark: i64,
    /// Entries that the leader has.
    pub log_end_offset: i64,
    /// Those who vote, by raft id; only in an answer to DescribeQuorum.
    pub voters: Vec<QuorumReplica>,
    /// Those who learn, by raft id; only in an answer to DescribeQuorum.
    pub observers: Vec<QuorumReplica>,
}

/// An error code with Kafka's words for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The code.
    pub code: ErrorCode,
    /// The words.
    pub message: String,
}

impl NewTopic {
    /// A topic with the node's defaults.
    pub fn with_defaults(name: String) -> Self {
        Self { name, partitions: -1, replication_factor: -1, ..Self::default() }
    }
}

impl ApiError {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// A topic as it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its id.
    pub id: Uuid,
    /// How many partitions.
    pub partitions: i32,
    /// How many replicas each.
    pub replication_factor: i16,
}

/// What became of one topic of a CreateTopics or AutoCreateTopics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicAnswer {
    /// Its name.
    pub name: String,
    /// What became of it.
    pub result: Result<CreatedTopic, ApiError>,
}

/// What became of one topic of a DeleteTopics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedTopic {
    /// Its name, where known.
    pub name: Option<String>,
    /// Its id, where known, else nil.
    pub id: Uuid,
    /// What became of it.
    pub result: Result<(), ApiError>,
}

/// An answer; it is given when what it says is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControllerAnswer {
    /// The broker is registered.
    Registered {
        /// Its epoch.
        epoch: i64,
    },
    /// Or `STALE_BROKER_EPOCH`, `BROKER_ID_NOT_REGISTERED`.
    Heartbeat(Result<HeartbeatAnswer, ErrorCode>),
    /// UnregisterBroker.
    Unregistered(Result<(), ApiError>),
    /// AlterPartition: each partition by topic id and index, or `STALE_BROKER_EPOCH` for all.
    Isr(Result<Vec<IsrAnswer>, ErrorCode>),
    /// AssignReplicasToDirs: each replica in the order asked, or for all `STALE_BROKER_EPOCH`, or `UNSUPPORTED_VERSION`
    /// where the metadata knows no directories yet.
    Assigned(Result<Vec<Assigned>, ErrorCode>),
    /// ElectLeaders, by topic name and index.
    Elected(Vec<(String, i32, Result<(), ApiError>)>),
    /// AlterPartitionReassignments, by topic name and index. An empty message is Kafka's own of the code.
    Reassigned(Vec<(String, i32, Result<(), ApiError>)>),
    /// ListPartitionReassignments.
    Reassignments(Vec<Reassignment>),
    /// CreateTopics, AutoCreateTopics.
    Topics(Vec<TopicAnswer>),
    /// DeleteTopics.
    Deleted(Vec<DeletedTopic>),
    /// CreatePartitions, by topic name.
    Partitions(Vec<(String, Result<(), ApiError>)>),
    /// `first` and the `count - 1` after it are the asker's.
    ProducerIds {
        /// First id.
        first: i64,
        /// How many.
        count: i32,
    },
    /// AlterConfigs, by resource.
    Configs(Vec<(ResourceType, String, Result<(), ApiError>)>),
    /// UpdateFeatures: all or none.
    Features(Result<(), ApiError>),
    /// DescribeQuorum.
    Quorum(QuorumState),
    /// JoinQuorum, AddVoter, RemoveVoter, UpdateVoter, LeaveQuorum.
    QuorumChanged(Result<(), ApiError>),
    /// Nothing was done: `NOT_CONTROLLER` (ask the leader, or again), `POLICY_VIOLATION` for a request whose
    /// records are more than one log entry may carry; of a registration `INCONSISTENT_CLUSTER_ID`,
    /// `DUPLICATE_BROKER_REGISTRATION`, `INVALID_REGISTRATION` with a directory of another broker, or
    /// `UNSUPPORTED_VERSION` while the metadata version knows one broker only.
    Refused(ErrorCode),
}
