//! What is asked of the controller, and what it answers: plain values, without wire versions.

use std::sync::Arc;

use uuid::Uuid;

use super::record::{Endpoint, ResourceType};
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
    /// Topic name or decimal node id; empty for all brokers.
    pub name: String,
    /// Key, and its value; `None` takes the override away.
    pub changes: Vec<(String, Option<String>)>,
    /// AlterConfigs: overrides that are not named go away.
    pub replace: bool,
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
    /// Nothing was done: `NOT_CONTROLLER` (ask the leader, or again), or `POLICY_VIOLATION` for a request whose
    /// records are more than one log entry may carry.
    Refused(ErrorCode),
}
