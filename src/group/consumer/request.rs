//! What is asked of a consumer group, and what it answers.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use super::records::Partitions;
use crate::wire::ErrorCode;

/// ConsumerGroupHeartbeat. What is `None` is as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerHeartbeat {
    /// The group.
    pub group: Arc<str>,
    /// From version 1 on the client makes it; empty before for a new member.
    pub member_id: Arc<str>,
    /// Version 1 on: a member without an id is refused (KIP-1082).
    pub must_name_itself: bool,
    /// 0 joins, −1 leaves, −2 leaves for a while, as static members do.
    pub epoch: i32,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<Arc<str>>,
    /// `client.rack`
    pub rack_id: Option<Arc<str>>,
    /// Milliseconds that it may take to give partitions up; −1 for as before.
    pub rebalance_timeout_ms: i32,
    /// Names of the topics that it subscribes to.
    pub topics: Option<BTreeSet<Arc<str>>>,
    /// Version 1 on: a pattern of topic names that it subscribes to besides; empty for none.
    pub regex: Option<Arc<str>>,
    /// The assignor that it prefers.
    pub assignor: Option<Arc<str>>,
    /// What it has.
    pub owned: Option<Partitions>,
    /// The client's own name.
    pub client_id: Arc<str>,
    /// The client's address.
    pub client_host: Arc<str>,
    /// The id of a new member without one; drawn at random for every request.
    pub fresh_id: Uuid,
}

/// The answer to a ConsumerGroupHeartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerBeat {
    /// The member's id.
    pub member_id: Arc<str>,
    /// Its epoch from now on.
    pub epoch: i32,
    /// Milliseconds until the next heartbeat; 0 to who leaves.
    pub heartbeat_interval_ms: i32,
    /// What it may read; `None` for as before.
    pub assigned: Option<Partitions>,
}

/// Why a ConsumerGroupHeartbeat is refused, in Kafka's words where it has some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeatRefused {
    /// The error.
    pub error: ErrorCode,
    /// The words.
    pub words: Option<String>,
}

impl BeatRefused {
    pub(super) fn new(error: ErrorCode, words: impl Into<String>) -> Self {
        Self { error, words: Some(words.into()) }
    }
}

impl From<ErrorCode> for BeatRefused {
    fn from(error: ErrorCode) -> Self {
        Self { error, words: None }
    }
}

/// Partitions of a topic by name and id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPartitions {
    /// The topic's id.
    pub topic_id: Uuid,
    /// The topic's name.
    pub topic: Arc<str>,
    /// Partition indexes.
    pub partitions: BTreeSet<i32>,
}

/// A member, described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedConsumerMember {
    /// Member id.
    pub member_id: Arc<str>,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<Arc<str>>,
    /// `client.rack`
    pub rack_id: Option<Arc<str>>,
    /// Its epoch.
    pub epoch: i32,
    /// The client's own name.
    pub client_id: Arc<str>,
    /// The client's address.
    pub client_host: Arc<str>,
    /// The topics that it subscribes to by name.
    pub topics: BTreeSet<Arc<str>>,
    /// The pattern that it subscribes to.
    pub regex: Option<Arc<str>>,
    /// What it has; topics that are gone are left out.
    pub assigned: Vec<NamedPartitions>,
    /// What it shall have; topics that are gone are left out.
    pub target: Vec<NamedPartitions>,
    /// It follows the classic protocol: version 1 says so.
    pub is_classic: bool,
}

/// A consumer group, described.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DescribedConsumerGroup {
    /// The group.
    pub group: Arc<str>,
    /// GROUP_ID_NOT_FOUND if it is not there or of another type.
    pub error: Option<ErrorCode>,
    /// It is there, and follows the classic protocol.
    pub is_of_other_type: bool,
    /// Its state; `Dead` if it is not there.
    pub state: &'static str,
    /// Its epoch.
    pub epoch: i32,
    /// The group epoch that the target assignment is for.
    pub target_epoch: i32,
    /// The assignor that makes its assignments.
    pub assignor: Arc<str>,
    /// Its members.
    pub members: Vec<DescribedConsumerMember>,
}
