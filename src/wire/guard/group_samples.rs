//! Bodies of the requests about groups, for the tests of the guard.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, DeleteGroupsRequest, DescribeGroupsRequest,
    GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest,
    OffsetDeleteRequest, OffsetFetchRequest, SyncGroupRequest, TopicName,
};
use kafka_protocol::protocol::{Encodable, Message};

use super::{Limits, decode_measured};
use crate::wire::api::ApiKey;
use crate::wire::{StrBytes, WireError, beyond};

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn group() -> GroupId {
    GroupId(text("group"))
}

fn topic() -> TopicName {
    TopicName(text("orders"))
}

fn encoded<T: Encodable + Message>(request: &T, version: i16) -> Bytes {
    let mut buffer = BytesMut::new();
    request.encode(&mut buffer, beyond::decoded_version::<T>(version)).unwrap();
    buffer.freeze()
}

/// A populated body of a request about groups.
pub(super) fn sample(key: ApiKey, version: i16) -> Option<Bytes> {
    Some(match key {
        ApiKey::JoinGroup => {
            let protocol = JoinGroupRequestProtocol::default()
                .with_name(text("range"))
                .with_metadata(Bytes::from_static(b"metadata"));
            let mut request = JoinGroupRequest::default()
                .with_group_id(group())
                .with_session_timeout_ms(10_000)
                .with_protocol_type(text("consumer"))
                .with_protocols(vec![protocol.clone(), protocol]);
            request.group_instance_id = (version >= 5).then(|| text("instance"));
            encoded(&request, version)
        }
        ApiKey::ConsumerGroupHeartbeat => {
            let owned = TopicPartitions::default().with_partitions(vec![1, 2, 3]);
            let request = ConsumerGroupHeartbeatRequest::default()
                .with_group_id(group())
                .with_member_id(text("member"))
                .with_instance_id(Some(text("instance")))
                .with_rack_id(Some(text("rack")))
                .with_subscribed_topic_names(Some(vec![topic(), topic()]))
                .with_subscribed_topic_regex((version >= 1).then(|| text("or.*")))
                .with_server_assignor(Some(text("uniform")))
                .with_topic_partitions(Some(vec![owned.clone(), owned]));
            encoded(&request, version)
        }
        ApiKey::ConsumerGroupDescribe => {
            let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group(), group()]);
            encoded(&request, version)
        }
        ApiKey::SyncGroup => {
            let assignment = SyncGroupRequestAssignment::default()
                .with_member_id(text("member"))
                .with_assignment(Bytes::from_static(b"assignment"));
            let request = SyncGroupRequest::default().with_group_id(group());
            encoded(&request.with_assignments(vec![assignment.clone(), assignment]), version)
        }
        ApiKey::Heartbeat => encoded(&HeartbeatRequest::default().with_group_id(group()), version),
        ApiKey::LeaveGroup => {
            let request = LeaveGroupRequest::default().with_group_id(group());
            let member = MemberIdentity::default().with_member_id(text("member"));
            let request = if version >= 3 {
                request.with_members(vec![member])
            } else {
                request.with_member_id(text("member"))
            };
            encoded(&request, version)
        }
        ApiKey::DescribeGroups => {
            encoded(&DescribeGroupsRequest::default().with_groups(vec![group(), group()]), version)
        }
        ApiKey::ListGroups => {
            let filter = if version >= 4 { vec![text("Stable")] } else { vec![] };
            encoded(&ListGroupsRequest::default().with_states_filter(filter), version)
        }
        ApiKey::DeleteGroups => {
            encoded(&DeleteGroupsRequest::default().with_groups_names(vec![group()]), version)
        }
        _ => return offsets_sample(key, version),
    })
}

fn offsets_sample(key: ApiKey, version: i16) -> Option<Bytes> {
    Some(match key {
        ApiKey::OffsetCommit => {
            let partition = OffsetCommitRequestPartition::default()
                .with_committed_offset(7)
                .with_committed_metadata(Some(text("note")));
            let topic = OffsetCommitRequestTopic::default()
                .with_name(topic())
                .with_partitions(vec![partition.clone(), partition]);
            let request = OffsetCommitRequest::default().with_group_id(group());
            encoded(&request.with_topics(vec![topic]), version)
        }
        ApiKey::OffsetFetch if version >= 8 => {
            let topic =
                OffsetFetchRequestTopics::default().with_name(topic()).with_partition_indexes(vec![0, 1]);
            let group =
                OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(Some(vec![topic]));
            encoded(&OffsetFetchRequest::default().with_groups(vec![group]), version)
        }
        ApiKey::OffsetFetch => {
            let topic =
                OffsetFetchRequestTopic::default().with_name(topic()).with_partition_indexes(vec![0, 1]);
            let request = OffsetFetchRequest::default().with_group_id(group());
            encoded(&request.with_topics(Some(vec![topic])), version)
        }
        ApiKey::OffsetDelete => {
            let partition = OffsetDeleteRequestPartition::default().with_partition_index(1);
            let topic =
                OffsetDeleteRequestTopic::default().with_name(topic()).with_partitions(vec![partition]);
            let request = OffsetDeleteRequest::default().with_group_id(group());
            encoded(&request.with_topics(vec![topic]), version)
        }
        _ => return None,
    })
}

/// Decodes a request about groups with the type of its key.
pub(super) fn accepts(key: ApiKey, body: &Bytes, version: i16) -> Result<usize, WireError> {
    let limits = Limits::default();
    match key {
        ApiKey::JoinGroup => decode_measured::<JoinGroupRequest>(body, version, limits).map(|(_, cost)| cost),
        ApiKey::SyncGroup => decode_measured::<SyncGroupRequest>(body, version, limits).map(|(_, cost)| cost),
        ApiKey::Heartbeat => decode_measured::<HeartbeatRequest>(body, version, limits).map(|(_, cost)| cost),
        ApiKey::LeaveGroup => {
            decode_measured::<LeaveGroupRequest>(body, version, limits).map(|(_, cost)| cost)
        }
        ApiKey::DescribeGroups => {
            decode_measured::<DescribeGroupsRequest>(body, version, limits).map(|(_, cost)| cost)
        }
        ApiKey::ListGroups => {
            decode_measured::<ListGroupsRequest>(body, version, limits).map(|(_, cost)| cost)
        }
        ApiKey::DeleteGroups => {
            decode_measured::<DeleteGroupsRequest>(body, version, limits).map(|(_, cost)| cost)
        }
        ApiKey::OffsetCommit => {
            decode_measured::<OffsetCommitRequest>(body, version, limits).map(|(_, cost)| cost)
        }
        ApiKey::OffsetFetch => {
            decode_measured::<OffsetFetchRequest>(body, version, limits).map(|(_, cost)| cost)
        }
        ApiKey::OffsetDelete => {
            decode_measured::<OffsetDeleteRequest>(body, version, limits).map(|(_, cost)| cost)
        }
        ApiKey::ConsumerGroupHeartbeat => {
            decode_measured::<ConsumerGroupHeartbeatRequest>(body, version, limits).map(|(_, cost)| cost)
        }
        ApiKey::ConsumerGroupDescribe => {
            decode_measured::<ConsumerGroupDescribeRequest>(body, version, limits).map(|(_, cost)| cost)
        }
        _ => unreachable!("{key:?} is another sample's"),
    }
}
