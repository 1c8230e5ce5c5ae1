//! What is asked of a group's coordinator, and what it answers: plain values, without wire versions. Where versions of
//! an API mean different things, a request says so in a field.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::consumer::request::{BeatRefused, ConsumerBeat, ConsumerHeartbeat, DescribedConsumerGroup};
use super::record::CommittedOffset;
use crate::wire::ErrorCode;

/// A protocol that a member could follow, and its metadata for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// Such as `range`; for consumers the name of an assignor.
    pub name: Arc<str>,
    /// Opaque, but for consumers, whose subscription is in it.
    pub metadata: Bytes,
}

/// JoinGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// The group.
    pub group: Arc<str>,
    /// Empty for a new member.
    pub member_id: Arc<str>,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<Arc<str>>,
    /// The client's own name.
    pub client_id: Arc<str>,
    /// The client's address, as Kafka shows it: `/10.0.0.1`.
    pub client_host: Arc<str>,
    /// Milliseconds without a heartbeat after which it is out.
    pub session_timeout_ms: i32,
    /// Milliseconds that it may take to join again; in version 0 the session timeout.
    pub rebalance_timeout_ms: i32,
    /// Such as `consumer`.
    pub protocol_type: Arc<str>,
    /// In the order of its preference.
    pub protocols: Vec<Protocol>,
    /// Version 4 on: a new dynamic member is first told its id and asked to join with it (KIP-394).
    pub must_know_member_id: bool,
    /// Version 9 on: a leader that comes back may be told that nothing is to be assigned (KIP-814).
    pub may_skip_assignment: bool,
    /// A new member's id ends with it; drawn at random for every request.
    pub fresh_id: Uuid,
}

/// SyncGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sync {
    /// The group.
    pub group: Arc<str>,
    /// The member.
    pub member_id: Arc<str>,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<Arc<str>>,
    /// The generation that it joined.
    pub generation: i32,
    /// Version 5 on: what it believes the group's protocol type to be.
    pub protocol_type: Option<Arc<str>>,
    /// Version 5 on: what it believes the chosen protocol to be.
    pub protocol: Option<Arc<str>>,
    /// From the leader: member ids and what is assigned to them.
    pub assignments: Vec<(Arc<str>, Bytes)>,
}

/// Heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The group.
    pub group: Arc<str>,
    /// The member.
    pub member_id: Arc<str>,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<Arc<str>>,
    /// The generation that it joined.
    pub generation: i32,
}

/// One that leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaver {
    /// Empty if an administrator removes a static member by its instance id.
    pub member_id: Arc<str>,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<Arc<str>>,
}

/// LeaveGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leave {
    /// The group.
    pub group: Arc<str>,
    /// One in versions 0–2.
    pub members: Vec<Leaver>,
}

/// Partitions of one topic with something about each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfTopic<T> {
    /// The topic's name.
    pub topic: Arc<str>,
    /// Its id, nil where the client named the topic.
    pub topic_id: Uuid,
    /// Partition index, and what there is to say of it.
    pub partitions: Vec<(i32, T)>,
}

impl<T> OfTopic<T> {
    /// The same partitions with something else about each.
    pub(super) fn map<U>(&self, mut of_partition: impl FnMut(i32, &T) -> U) -> OfTopic<U> {
        let partitions = self.partitions.iter().map(|(index, value)| (*index, of_partition(*index, value)));
        OfTopic { topic: self.topic.clone(), topic_id: self.topic_id, partitions: partitions.collect() }
    }
}

/// An offset to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOffset {
    /// The next offset to read.
    pub offset: i64,
    /// −1 if the client does not say.
    pub leader_epoch: i32,
    /// Null on the wire is empty here.
    pub metadata: Arc<str>,
}

/// OffsetCommit. The topics and partitions exist: the Image was asked before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitOffsets {
    /// The group; may be empty.
    pub group: Arc<str>,
    /// Empty if the client only stores offsets here.
    pub member_id: Arc<str>,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<Arc<str>>,
    /// The generation that it joined; −1 if the client only stores offsets here.
    pub generation: i32,
    /// Milliseconds after which they expire; −1, and always from version 5 on, for the broker's own retention.
    pub retention_ms: i64,
    /// Version 9 on: an unknown group is GROUP_ID_NOT_FOUND, before it was ILLEGAL_GENERATION.
    pub knows_missing_groups: bool,
    /// What to commit.
    pub topics: Vec<OfTopic<NewOffset>>,
}

/// Whose offsets to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedGroup<T> {
    /// The group; may be empty.
    pub group: Arc<str>,
    /// Which ones, `None` for all; or what they are.
    pub topics: T,
}

/// Committed offsets of one group: `None` where nothing is committed.
pub type FetchedOffsets = FetchedGroup<Vec<OfTopic<Option<CommittedOffset>>>>;

/// A group whose offsets a member reads: what it wants, the member's id and its epoch.
pub type MemberFetch = (FetchedGroup<Option<Vec<OfTopic<()>>>>, Arc<str>, i32);

/// A request to one coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Answered by [`Response::Joined`], perhaps long after.
    Join(Box<Join>),
    /// Answered by [`Response::Synced`], when the leader has said what is assigned.
    Sync(Sync),
    /// Answered by [`Response::Heartbeat`].
    Heartbeat(Heartbeat),
    /// Answered by [`Response::Left`].
    Leave(Leave),
    /// DescribeGroups: these groups; answered by [`Response::Described`].
    Describe(Vec<Arc<str>>),
    /// ListGroups: answered by [`Response::Listed`].
    List {
        /// Names of states, in any case; empty for all.
        states: Vec<String>,
        /// Names of group types, in any case; empty for all.
        types: Vec<String>,
    },
    /// DeleteGroups: these groups; answered by [`Response::Deleted`].
    Delete(Vec<Arc<str>>),
    /// Answered by [`Response::OffsetsCommitted`].
    CommitOffsets(CommitOffsets),
    /// OffsetFetch: answered by [`Response::OffsetsFetched`].
    FetchOffsets {
        /// The groups, of those that this coordinator has.
        groups: Vec<FetchedGroup<Option<Vec<OfTopic<()>>>>>,
        /// What was asked for before this request must be seen: wait until it is committed.
        require_stable: bool,
    },
    /// OffsetDelete: answered by [`Response::OffsetsDeleted`].
    DeleteOffsets {
        /// The group.
        group: Arc<str>,
        /// Which offsets.
        topics: Vec<OfTopic<()>>,
    },
    /// OffsetFetch from version 9 on, of members: answered by [`Response::MemberOffsetsFetched`].
    FetchMemberOffsets {
        /// The groups, of those that this coordinator has, each with the member that asks and its epoch; an empty id
        /// and −1 for who is none.
        groups: Vec<MemberFetch>,
        /// As in [`Self::FetchOffsets`].
        require_stable: bool,
    },
    /// Answered by [`Response::ConsumerBeat`].
    ConsumerHeartbeat(Box<ConsumerHeartbeat>),
    /// ConsumerGroupDescribe: these groups; answered by [`Response::ConsumersDescribed`].
    DescribeConsumers(Vec<Arc<str>>),
}

/// The answer to a JoinGroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// What went wrong.
    pub error: Option<ErrorCode>,
    /// −1 with an error.
    pub generation: i32,
    /// The group's protocol type.
    pub protocol_type: Option<Arc<str>>,
    /// The chosen protocol.
    pub protocol: Option<Arc<str>>,
    /// Member id of the leader; empty with an error.
    pub leader: Arc<str>,
    /// The leader has nothing to assign.
    pub skip_assignment: bool,
    /// The member's id.
    pub member_id: Arc<str>,
    /// For the leader: all members with their metadata under the chosen protocol.
    pub members: Vec<JoinedMember>,
}

impl Joined {
    pub(super) fn refused(member_id: &Arc<str>, error: ErrorCode) -> Self {
        Self { error: Some(error), generation: -1, member_id: member_id.clone(), ..Self::default() }
    }
}

/// A member, as the leader is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    /// Member id.
    pub member_id: Arc<str>,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<Arc<str>>,
    /// Its metadata under the chosen protocol.
    pub metadata: Bytes,
}

/// The answer to a SyncGroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// What went wrong.
    pub error: Option<ErrorCode>,
    /// The group's protocol type.
    pub protocol_type: Option<Arc<str>>,
    /// The chosen protocol.
    pub protocol: Option<Arc<str>>,
    /// What is assigned to the member.
    pub assignment: Bytes,
}

impl Synced {
    pub(super) fn refused(error: ErrorCode) -> Self {
        Self { error: Some(error), ..Self::default() }
    }
}

/// A group, described.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DescribedGroup {
    /// The group.
    pub group: Arc<str>,
    /// Version 6 on says that a group is not there (GROUP_ID_NOT_FOUND); before, its state says so.
    pub error: Option<ErrorCode>,
    /// It is there, and follows the consumer protocol.
    pub is_of_other_type: bool,
    /// `Dead` if it is not there.
    pub state: &'static str,
    /// Empty if there was no member yet.
    pub protocol_type: Arc<str>,
    /// The chosen protocol of a stable group, else empty.
    pub protocol: Arc<str>,
    /// Its members.
    pub members: Vec<DescribedMember>,
}

/// A member, described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    /// Member id.
    pub member_id: Arc<str>,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<Arc<str>>,
    /// The client's own name.
    pub client_id: Arc<str>,
    /// The client's address.
    pub client_host: Arc<str>,
    /// Its metadata under the chosen protocol of a stable group, else empty.
    pub metadata: Bytes,
    /// What is assigned to it.
    pub assignment: Bytes,
}

/// A group, listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    /// The group.
    pub group: Arc<str>,
    /// Empty if there was no member yet.
    pub protocol_type: Arc<str>,
    /// Its state.
    pub state: &'static str,
    /// `classic` or `consumer`.
    pub group_type: &'static str,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// JoinGroup.
    Joined(Joined),
    /// SyncGroup.
    Synced(Synced),
    /// Heartbeat.
    Heartbeat(Option<ErrorCode>),
    /// LeaveGroup: each member with what went wrong; versions 0–2 answer the only one's error as their own.
    Left(Vec<(Leaver, Option<ErrorCode>)>),
    /// DescribeGroups.
    Described(Vec<DescribedGroup>),
    /// ListGroups.
    Listed(Vec<ListedGroup>),
    /// DeleteGroups.
    Deleted(Vec<(Arc<str>, Option<ErrorCode>)>),
    /// OffsetCommit.
    OffsetsCommitted(Vec<OfTopic<Option<ErrorCode>>>),
    /// OffsetFetch: `None` where nothing is committed.
    OffsetsFetched(Vec<FetchedOffsets>),
    /// OffsetFetch of members: each group, or why it is refused.
    MemberOffsetsFetched(Vec<(Arc<str>, Result<FetchedOffsets, ErrorCode>)>),
    /// OffsetDelete.
    OffsetsDeleted(Vec<OfTopic<Option<ErrorCode>>>),
    /// ConsumerGroupHeartbeat.
    ConsumerBeat(ConsumerBeat),
    /// A ConsumerGroupHeartbeat that is refused in words.
    BeatRefused(BeatRefused),
    /// ConsumerGroupDescribe.
    ConsumersDescribed(Vec<DescribedConsumerGroup>),
    /// An error for the request as a whole, whatever it was: for every group or partition that it names.
    Refused(ErrorCode),
}
