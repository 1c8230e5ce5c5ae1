//! Groups of the consumer protocol (KIP-848) against a real process: what members are told over the wire, what outlives
//! `kill -9`, and what changes of topics and configurations do to them.

use kafka_protocol::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::{
    AlterConfigsRequest, ApiVersionsRequest, ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse,
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, CreatePartitionsRequest,
    DescribeGroupsRequest, FindCoordinatorRequest, GroupId, ListGroupsRequest, OffsetCommitRequest,
    OffsetFetchRequest,
};
use kafka_protocol::protocol::StrBytes;
use tidemill::client::Connection;
use uuid::Uuid;

use crate::process::{Home, until};
use crate::wire::{connect, create, delete, describe, name};

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn group_id(group: &str) -> GroupId {
    GroupId(text(group))
}

/// A member as its client keeps it.
struct Member {
    id: &'static str,
    epoch: i32,
    owned: Vec<(Uuid, Vec<i32>)>,
}

impl Member {
    fn new(id: &'static str) -> Self {
        Self { id, epoch: 0, owned: Vec::new() }
    }

    fn request(&self) -> ConsumerGroupHeartbeatRequest {
        let owned = self.owned.iter().map(|(id, partitions)| {
            TopicPartitions::default().with_topic_id(*id).with_partitions(partitions.clone())
        });
        ConsumerGroupHeartbeatRequest::default()
            .with_group_id(group_id("g"))
            .with_member_id(text(self.id))
            .with_member_epoch(self.epoch)
            .with_topic_partitions(Some(owned.collect()))
    }

    /// Takes what it is told at once.
    fn take(&mut self, answer: &ConsumerGroupHeartbeatResponse) {
        assert_eq!((answer.error_code, answer.error_message.as_deref()), (0, None));
        self.epoch = answer.member_epoch;
        if let Some(assignment) = &answer.assignment {
            let topics = assignment.topic_partitions.iter();
            self.owned = topics.map(|topic| (topic.topic_id, topic.partitions.clone())).collect();
        }
    }

    fn join(&mut self, connection: &mut Connection, names: Option<&str>, pattern: Option<&str>) {
        let request = self
            .request()
            .with_rebalance_timeout_ms(30_000)
            .with_subscribed_topic_names(names.map(|topic| vec![name(topic)]))
            .with_subscribed_topic_regex(pattern.map(text));
        let answer = connection.call(&request, 1).unwrap();
        self.take(&answer);
    }

    fn beat(&mut self, connection: &mut Connection) -> ConsumerGroupHeartbeatResponse {
        let answer = connection.call(&self.request(), 1).unwrap();
        self.take(&answer);
        answer
    }

    /// How many partitions it has.
    fn count(&self) -> usize {
        self.owned.iter().map(|(_, partitions)| partitions.len()).sum()
    }
}

/// Heartbeats in turn until each has so many partitions.
fn settle(connection: &mut Connection, members: &mut [&mut Member], counts: &[usize]) {
    until("the members settle", || {
        for member in members.iter_mut() {
            member.beat(connection);
        }
        let has: Vec<usize> = members.iter().map(|member| member.count()).collect();
        if has == counts { Ok(()) } else { Err(has) }
    });
}

/// Waits until the group has a coordinator that has loaded.
fn find(connection: &mut Connection) {
    let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]);
    assert_eq!(connection.call(&request, 6).unwrap().coordinators[0].error_code, 0);
    until("the coordinator loads", || match described(connection).groups[0].error_code {
        0 | 69 => Ok(()),
        error => Err(error),
    });
}

fn described(connection: &mut Connection) -> ConsumerGroupDescribeResponse {
    let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group_id("g")]);
    connection.call(&request, 1).unwrap()
}

fn commit(connection: &mut Connection, member: &Member, epoch: i32, offset: i64) -> i16 {
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(offset);
    let topic = OffsetCommitRequestTopic::default().with_name(name("t")).with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(group_id("g"))
        .with_generation_id_or_member_epoch(epoch)
        .with_member_id(text(member.id))
        .with_topics(vec![topic]);
    connection.call(&request, 9).unwrap().topics[0].partitions[0].error_code
}

/// What is committed for t-0, asked by a member.
fn committed(connection: &mut Connection, member: &Member, epoch: i32) -> Result<i64, i16> {
    let topic = OffsetFetchRequestTopics::default().with_name(name("t")).with_partition_indexes(vec![0]);
    let group = OffsetFetchRequestGroup::default()
        .with_group_id(group_id("g"))
        .with_member_id(Some(text(member.id)))
        .with_member_epoch(epoch)
        .with_topics(Some(vec![topic]));
    let request = OffsetFetchRequest::default().with_groups(vec![group]);
    let group = connection.call(&request, 9).unwrap().groups.remove(0);
    if group.error_code == 0 {
        Ok(group.topics[0].partitions[0].committed_offset)
    } else {
        Err(group.error_code)
    }
}

#[test]
fn members_share_partitions_commit_and_go_on_after_a_kill() {
    for shards in ["shard.count=1", "shard.count=3"] {
        let home = Home::new(&[shards, "offsets.topic.num.partitions=5"]);
        let broker = home.start();
        let mut connection = connect(&broker);
        create(&mut connection, "t", 4, &[]);
        find(&mut connection);
        let (mut a, mut b) = (Member::new("a"), Member::new("b"));
        a.join(&mut connection, Some("t"), None);
        assert_eq!((a.epoch, a.count()), (1, 4), "who is alone has everything with its first answer");
        b.join(&mut connection, Some("t"), None);
        assert_eq!((b.epoch, b.count()), (2, 0));
        settle(&mut connection, &mut [&mut a, &mut b], &[2, 2]);
        assert_eq!((a.epoch, b.epoch), (2, 2));
        let (stale, newer) = (commit(&mut connection, &a, 3, 5), commit(&mut connection, &a, 2, 7));
        assert_eq!((stale, newer), (113, 0));
        assert_eq!(committed(&mut connection, &a, 1), Err(113));
        broker.kill();

        let broker = home.start();
        let mut connection = connect(&broker);
        find(&mut connection);
        assert_eq!(committed(&mut connection, &a, 2), Ok(7));
        let group = described(&mut connection).groups.remove(0);
        assert_eq!(
            (group.group_state.as_str(), group.group_epoch, group.assignor_name.as_str()),
            ("Stable", 2, "uniform")
        );
        let members: Vec<_> =
            group.members.iter().map(|member| (member.member_id.as_str(), member.member_epoch)).collect();
        assert_eq!(members, [("a", 2), ("b", 2)]);
        assert_eq!(group.members[0].assignment, group.members[0].target_assignment);
        assert_eq!((group.members[0].member_type, group.members[0].client_host.as_str()), (1, "/127.0.0.1"));
        a.beat(&mut connection);
        assert_eq!((a.epoch, a.count()), (2, 2), "nothing has changed for it");
        let left = connection.call(&b.request().with_member_epoch(-1), 1).unwrap();
        assert_eq!((left.error_code, left.member_epoch), (0, -1));
        settle(&mut connection, &mut [&mut a], &[4]);
        assert_eq!(a.epoch, 3);
        assert_eq!(connection.call(&b.request(), 1).unwrap().error_code, 25);
        assert_eq!(broker.stop(), Some(0));
    }
}

#[test]
fn what_is_wrong_is_refused_in_kafkas_words() {
    let home = Home::new(&["group.consumer.max.size=1"]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "t", 1, &[]);
    find(&mut connection);
    let mut told = |request: ConsumerGroupHeartbeatRequest, version: i16| {
        let answer = connection.call(&request, version).unwrap();
        (answer.error_code, answer.error_message.map(|words| words.to_string()).unwrap_or_default())
    };
    let first = || {
        Member::new("a")
            .request()
            .with_rebalance_timeout_ms(9_000)
            .with_subscribed_topic_names(Some(vec![name("t")]))
    };
    let invalid = |words: &str| (42, words.to_owned());
    assert_eq!(told(first().with_member_id(text("")), 1), invalid("MemberId can't be empty."));
    assert_eq!(told(first().with_rack_id(Some(text(" "))), 1), invalid("RackId can't be empty."));
    let words = "RebalanceTimeoutMs must be provided in first request.";
    assert_eq!(told(first().with_rebalance_timeout_ms(-1), 1), invalid(words));
    assert_eq!(told(first().with_member_epoch(-3), 1), invalid("MemberEpoch is invalid."));
    let words = "ServerAssignor none is not supported. Supported assignors: uniform, range.";
    assert_eq!(told(first().with_server_assignor(Some(text("none"))), 1), (112, words.to_owned()));
    assert_eq!(told(first().with_member_epoch(4), 1), (69, "Consumer group g not found.".to_owned()));
    let (error, words) = told(first().with_subscribed_topic_regex(Some(text("("))), 1);
    assert_eq!(error, 128);
    assert!(words.starts_with("SubscribedTopicRegex `(` is not a valid regular expression: "), "{words}");
    assert_eq!(told(first(), 1).0, 0);
    let words = "Member b is not a member of group g.";
    let other = || first().with_member_id(text("b"));
    assert_eq!(told(other().with_member_epoch(-1), 1), (25, words.to_owned()));
    let words = "The consumer group has reached its maximum capacity of 1 members.";
    assert_eq!(told(other(), 1), (81, words.to_owned()));
    let words = "The consumer group member has a greater member epoch (9) than the one known by the group \
                 coordinator (1). The member must abandon all its partitions and rejoin.";
    assert_eq!(told(first().with_member_epoch(9), 1), (110, words.to_owned()));
    let made = connection.call(&first().with_group_id(group_id("h")).with_member_id(text("")), 0).unwrap();
    assert_eq!((made.error_code, made.member_id.unwrap().len()), (0, 36), "version 0 gives a member its id");
}

#[test]
fn topics_that_grow_come_and_go_and_configurations_reach_the_members() {
    let home = Home::new(&["shard.count=3"]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "t", 2, &[]);
    find(&mut connection);
    let mut member = Member::new("a");
    member.join(&mut connection, None, Some("t.*"));
    assert_eq!(member.count(), 2);
    let grown = CreatePartitionsTopic::default().with_name(name("t")).with_count(3).with_assignments(None);
    let request = CreatePartitionsRequest::default().with_topics(vec![grown]).with_timeout_ms(30_000);
    assert_eq!(connection.call(&request, 3).unwrap().results[0].error_code, 0);
    settle(&mut connection, &mut [&mut member], &[3]);
    create(&mut connection, "t-2", 2, &[]);
    create(&mut connection, "other", 2, &[]);
    settle(&mut connection, &mut [&mut member], &[5]);
    let id = describe(&mut connection, &["t"]).topics[0].topic_id;
    assert!(member.owned.iter().any(|(topic, _)| *topic == id));
    assert_eq!(delete(&mut connection, "t"), 0);
    settle(&mut connection, &mut [&mut member], &[2]);

    let value = AlterableConfig::default()
        .with_name(text("consumer.heartbeat.interval.ms"))
        .with_value(Some(text("7000")));
    let resource = AlterConfigsResource::default()
        .with_resource_type(32)
        .with_resource_name(text("g"))
        .with_configs(vec![value]);
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    assert_eq!(connection.call(&request, 2).unwrap().responses[0].error_code, 0);
    until("the member is told", || match member.beat(&mut connection).heartbeat_interval_ms {
        7_000 => Ok(()),
        interval_ms => Err(interval_ms),
    });
}

#[test]
fn a_consumer_group_is_listed_by_its_type_and_none_to_who_describes_classic_ones() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "t", 1, &[]);
    find(&mut connection);
    assert_eq!(described(&mut connection).groups[0].error_message.as_deref(), Some("Group g not found."));
    Member::new("a").join(&mut connection, Some("t"), None);
    for (types, count) in [("Consumer", 1), ("classic", 0)] {
        let request = ListGroupsRequest::default().with_types_filter(vec![text(types)]);
        let listed = connection.call(&request, 5).unwrap().groups;
        assert_eq!(listed.len(), count, "{types}");
        assert!(listed.iter().all(|group| group.group_type.as_str() == "consumer"));
    }
    let request = DescribeGroupsRequest::default().with_groups(vec![group_id("g")]);
    let group = connection.call(&request, 6).unwrap().groups.remove(0);
    assert_eq!(group.error_code, 69);
    assert_eq!(group.error_message.as_deref(), Some("Group g is not a classic group."));
    let request = ApiVersionsRequest::default().with_client_software_name(text("test"));
    let told = connection.call(&request.with_client_software_version(text("1")), 3).unwrap();
    let finalized = told.finalized_features.iter().find(|feature| feature.name.as_str() == "group.version");
    assert_eq!(finalized.map(|feature| feature.max_version_level), Some(1));
}
