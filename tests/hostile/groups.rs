//! Bodies of requests about groups: valid, and answered at once. A member that is really in a group would have others
//! wait for it, as it should; so nobody gets in.

use bytes::Bytes;
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
    OffsetDeleteRequest, OffsetFetchRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::StrBytes;

use crate::body::{Bodies, encoded, text};

impl Bodies<'_> {
    /// The body of a request about groups.
    pub fn groups(&mut self, key: i16, version: i16) -> Bytes {
        match key {
            8 => self.offset_commit(version),
            9 => self.offset_fetch(version),
            11 => self.join_group(version),
            12 => {
                let request = HeartbeatRequest::default().with_group_id(self.group());
                let generation = self.rng.i32(-1..3);
                encoded(&request.with_generation_id(generation).with_member_id(text("nobody")), version)
            }
            13 => self.leave_group(version),
            14 => self.sync_group(version),
            15 => {
                let groups = vec![self.group(), self.group()];
                encoded(&DescribeGroupsRequest::default().with_groups(groups), version)
            }
            16 => {
                let request = ListGroupsRequest::default();
                let states = if version >= 4 { vec![text("Stable"), text("nonsense")] } else { Vec::new() };
                let types = if version >= 5 { vec![text("classic")] } else { Vec::new() };
                encoded(&request.with_states_filter(states).with_types_filter(types), version)
            }
            42 => {
                let groups = vec![self.group(); self.rng.usize(0..3)];
                encoded(&DeleteGroupsRequest::default().with_groups_names(groups), version)
            }
            47 => {
                let (name, _, count) = self.topic();
                let partition =
                    OffsetDeleteRequestPartition::default().with_partition_index(self.rng.i32(-1..=count));
                let topic =
                    OffsetDeleteRequestTopic::default().with_name(name).with_partitions(vec![partition]);
                let request = OffsetDeleteRequest::default().with_group_id(self.group());
                encoded(&request.with_topics(vec![topic]), version)
            }
            68 => self.consumer_heartbeat(version),
            69 => {
                let groups = vec![self.group(), self.consumers()];
                let request = ConsumerGroupDescribeRequest::default().with_group_ids(groups);
                encoded(&request.with_include_authorized_operations(self.rng.bool()), version)
            }
            _ => self.administration(key, version),
        }
    }

    fn group(&mut self) -> GroupId {
        GroupId(text(["group", "another", "", "third"][self.rng.usize(..4)]))
    }

    /// Groups that members of the consumer protocol get into: none of the classic protocol waits for them there.
    fn consumers(&mut self) -> GroupId {
        GroupId(text(["consumers", "more-consumers"][self.rng.usize(..2)]))
    }

    /// Members join, say that they are there, leave, and say what they cannot have; nobody waits for anybody.
    fn consumer_heartbeat(&mut self, version: i16) -> Bytes {
        let (name, topic_id, count) = self.topic();
        let epoch = [0, 0, 1, 7, -1, -2, -3, i32::MAX][self.rng.usize(..8)];
        let owned = TopicPartitions::default()
            .with_topic_id(topic_id)
            .with_partitions((0..self.rng.i32(0..=count.min(9))).collect());
        let patterns = ["orders.*", "(", "(a{1000}){1000}", "", ".*"];
        let regex = self.rng.bool().then(|| text(patterns[self.rng.usize(..patterns.len())]));
        let request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(self.consumers())
            .with_member_id(text(["a", "b", "c", ""][self.rng.usize(..4)]))
            .with_member_epoch(epoch)
            .with_instance_id((self.rng.u8(..4) == 0).then(|| text("instance")))
            .with_rebalance_timeout_ms([-1, 5_000, i32::MAX][self.rng.usize(..3)])
            .with_subscribed_topic_names(self.rng.bool().then(|| vec![name]))
            .with_subscribed_topic_regex(regex.filter(|_| version >= 1))
            .with_server_assignor((self.rng.u8(..4) == 0).then(|| text("range")))
            .with_topic_partitions(Some(if epoch == 0 { Vec::new() } else { vec![owned] }));
        encoded(&request, version)
    }

    /// From version 4 on who has no member id is given one and sent away; a member id that nobody has is refused.
    fn join_group(&mut self, version: i16) -> Bytes {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text("range"))
            .with_metadata(Bytes::from_static(b"\0\0\0\0"));
        let member: StrBytes =
            if version >= 4 && self.rng.bool() { StrBytes::default() } else { text("nobody") };
        let request = JoinGroupRequest::default()
            .with_group_id(self.group())
            .with_session_timeout_ms([6_000, 6_000, -1, i32::MAX][self.rng.usize(..4)])
            .with_rebalance_timeout_ms(if version >= 1 { 6_000 } else { -1 })
            .with_member_id(member)
            .with_protocol_type(text(["consumer", ""][self.rng.usize(..2)]))
            .with_protocols(vec![protocol; self.rng.usize(0..3)]);
        encoded(&request, version)
    }

    fn sync_group(&mut self, version: i16) -> Bytes {
        let assignment = SyncGroupRequestAssignment::default().with_member_id(text("nobody"));
        let request = SyncGroupRequest::default()
            .with_group_id(self.group())
            .with_generation_id(self.rng.i32(-1..3))
            .with_member_id(text("nobody"))
            .with_assignments(vec![assignment; self.rng.usize(0..3)]);
        let request = if version >= 5 {
            request.with_protocol_type(Some(text("consumer"))).with_protocol_name(Some(text("range")))
        } else {
            request
        };
        encoded(&request, version)
    }

    fn leave_group(&mut self, version: i16) -> Bytes {
        let request = LeaveGroupRequest::default().with_group_id(self.group());
        let request = if version >= 3 {
            let member = MemberIdentity::default().with_member_id(text("nobody"));
            request.with_members(vec![member; self.rng.usize(0..3)])
        } else {
            request.with_member_id(text("nobody"))
        };
        encoded(&request, version)
    }

    /// Commits without a member, which count where nobody is in the group.
    fn offset_commit(&mut self, version: i16) -> Bytes {
        let (name, _, count) = self.topic();
        let note = "n".repeat([0, 3, 5_000][self.rng.usize(..3)]);
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(self.rng.i32(-1..=count))
            .with_committed_offset([0, 7, -1, i64::MAX][self.rng.usize(..4)])
            .with_committed_metadata(Some(text(&note)));
        let topic = OffsetCommitRequestTopic::default().with_name(name).with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(self.group())
            .with_generation_id_or_member_epoch([-1, -1, 5][self.rng.usize(..3)])
            .with_topics(vec![topic; self.rng.usize(0..2)]);
        encoded(&request, version)
    }

    fn offset_fetch(&mut self, version: i16) -> Bytes {
        let (name, _, count) = self.topic();
        let indexes = vec![-1, 0, count];
        let every = self.rng.bool() && version >= 2;
        if version >= 8 {
            let topic = OffsetFetchRequestTopics::default().with_name(name).with_partition_indexes(indexes);
            let topics = (!every).then(|| vec![topic]);
            let groups = (0..self.rng.usize(0..3)).map(|_| self.group()).collect::<Vec<_>>();
            let groups = groups.into_iter().map(|group| {
                OffsetFetchRequestGroup::default().with_group_id(group).with_topics(topics.clone())
            });
            return encoded(&OffsetFetchRequest::default().with_groups(groups.collect()), version);
        }
        let topic = OffsetFetchRequestTopic::default().with_name(name).with_partition_indexes(indexes);
        let request = OffsetFetchRequest::default().with_group_id(self.group());
        encoded(&request.with_topics((!every).then(|| vec![topic])), version)
    }
}
