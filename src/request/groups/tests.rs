//! Every API and version of groups: what coordinators are asked, and what becomes of their answers.

use bytes::Bytes;
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
use kafka_protocol::messages::offset_fetch_response::OffsetFetchResponseTopics;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, Request as WireRequest, StrBytes};
use uuid::Uuid;

use super::super::Answered;
use super::super::stage::{Stage, TO};
use super::*;
use crate::controller::features::GROUP_VERSION;
use crate::group::OFFSETS_TOPIC;
use crate::group::consumer::records::Partitions;
use crate::group::consumer::request::*;
use crate::group::record::CommittedOffset;
use crate::group::request::*;
use crate::wire::api::{self, ApiKey};
use crate::wire::beyond;

mod offsets;

/// A node that leads both partitions of the offsets topic, and two partitions of `t`. Group "a" belongs to partition
/// 1, "b" to 0.
fn stage() -> Stage {
    let mut stage = Stage::new(&[]);
    stage.topic(OFFSETS_TOPIC, 9, &[1, 1]);
    stage.topic("t", 7, &[1, 1]);
    stage.finalize(GROUP_VERSION, 1);
    stage
}

#[test]
fn hosts_are_shown_as_java_shows_them() {
    assert_eq!(&*shown_host("127.0.0.1".parse().unwrap()), "/127.0.0.1");
    assert_eq!(&*shown_host("2001:db8::1".parse().unwrap()), "/2001:db8:0:0:0:0:0:1");
}

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn id(group: &'static str) -> GroupId {
    GroupId(text(group))
}

fn topic(name: &'static str) -> TopicName {
    TopicName(text(name))
}

/// What stands for the id of `t`, or for one that no topic has.
fn by_id(name: &TopicName) -> TopicName {
    TopicName(beyond::topic_id_name(Uuid::from_u128(if name.as_str() == "t" { 7 } else { 99 })))
}

fn versions(key: ApiKey) -> std::ops::RangeInclusive<i16> {
    let api = api::find(key as i16).unwrap();
    api.version_first..=api.version_last
}

/// Sends a request, lets `answer` play the coordinators, and gives the response.
fn ask<Q: Encodable + WireRequest, R: Decodable>(
    stage: &mut Stage,
    key: ApiKey,
    version: i16,
    request: &Q,
    mut answer: impl FnMut(i32, Request) -> Response,
) -> R {
    let (header, mut work) = stage.start(key, version, request);
    let asked: Vec<Coordination> = stage.desk.coordinations.drain(..).collect();
    for (at, asked) in asked.into_iter().enumerate() {
        assert!(!work.is_done(), "{key:?} v{version} is done before everyone has answered");
        assert_eq!(asked.to, ReplyTo { part: at as u32, ..TO });
        let response = Box::new(answer(asked.partition, asked.request));
        work.answer(&header, asked.to, Answered::Coordinator(response), &mut stage.scene());
    }
    stage.finish(&header, work)
}

fn refused(error: ErrorCode) -> impl FnMut(i32, Request) -> Response {
    move |_, _| Response::Refused(error)
}

#[test]
fn a_join_says_who_asks_and_its_answer_tells_what_the_version_can() {
    for version in versions(ApiKey::JoinGroup) {
        let protocol = JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata("m".into());
        let mut request = JoinGroupRequest::default()
            .with_group_id(id("a"))
            .with_session_timeout_ms(10)
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        request.rebalance_timeout_ms = if version >= 1 { 20 } else { -1 };
        request.group_instance_id = (version >= 5).then(|| text("i"));
        let mut ids = Vec::new();
        for _ in 0..2 {
            let response: JoinGroupResponse =
                ask(&mut stage(), ApiKey::JoinGroup, version, &request, |at, asked| {
                    let Request::Join(join) = asked else { panic!("a join") };
                    assert_eq!((at, &*join.group, &*join.client_host), (1, "a", "/127.0.0.1"));
                    assert_eq!(join.rebalance_timeout_ms, if version >= 1 { 20 } else { 10 });
                    assert_eq!(
                        (join.must_know_member_id, join.may_skip_assignment),
                        (version >= 4, version >= 9)
                    );
                    ids.push(join.fresh_id);
                    Response::Joined(Joined {
                        error: None,
                        generation: 3,
                        protocol_type: Some("consumer".into()),
                        protocol: Some("range".into()),
                        leader: "l".into(),
                        skip_assignment: true,
                        member_id: "m".into(),
                        members: vec![JoinedMember {
                            member_id: "m".into(),
                            instance_id: Some("i".into()),
                            metadata: Bytes::from_static(b"x"),
                        }],
                    })
                });
            assert_eq!((response.error_code, response.generation_id), (0, 3));
            assert_eq!(response.protocol_type.is_some(), version >= 7);
            assert_eq!(response.skip_assignment, version >= 9);
            assert_eq!(response.members[0].group_instance_id.is_some(), version >= 5);
        }
        assert_eq!(ids[0], ids[1], "the same seed draws the same id");
        let response: JoinGroupResponse =
            ask(&mut stage(), ApiKey::JoinGroup, version, &request, refused(ErrorCode::NotCoordinator));
        assert_eq!((response.error_code, response.generation_id), (16, -1));
        assert_eq!(response.protocol_name.is_none(), version >= 7);
    }
    let mut stage = stage();
    let random = |stage: &mut Stage| {
        stage.start(ApiKey::JoinGroup, 5, &JoinGroupRequest::default().with_group_id(id("a")));
        let Request::Join(join) = stage.desk.coordinations.pop().unwrap().request else { panic!("a join") };
        join.fresh_id
    };
    assert_ne!(random(&mut stage), random(&mut stage), "no id is drawn twice");
}

#[test]
fn a_sync_must_name_its_protocol_where_the_version_can() {
    for version in versions(ApiKey::SyncGroup) {
        let assignment =
            SyncGroupRequestAssignment::default().with_member_id(text("m")).with_assignment("x".into());
        let mut request = SyncGroupRequest::default()
            .with_group_id(id("a"))
            .with_generation_id(3)
            .with_assignments(vec![assignment]);
        if version >= 5 {
            let response: SyncGroupResponse =
                ask(&mut stage(), ApiKey::SyncGroup, version, &request, |_, _| panic!("nobody is asked"));
            assert_eq!(response.error_code, ErrorCode::InconsistentGroupProtocol.code());
            request.protocol_type = Some(text("consumer"));
            request.protocol_name = Some(text("range"));
        }
        let response: SyncGroupResponse =
            ask(&mut stage(), ApiKey::SyncGroup, version, &request, |_, asked| {
                let Request::Sync(sync) = asked else { panic!("a sync") };
                assert_eq!((sync.generation, sync.assignments.len()), (3, 1));
                Response::Synced(Synced {
                    error: None,
                    protocol_type: Some("consumer".into()),
                    protocol: Some("range".into()),
                    assignment: Bytes::from_static(b"y"),
                })
            });
        assert_eq!((response.error_code, &response.assignment[..]), (0, &b"y"[..]));
        assert_eq!(response.protocol_name.is_some(), version >= 5);
    }
}

#[test]
fn heartbeats_and_leaves_carry_the_error_where_the_version_has_it() {
    for version in versions(ApiKey::Heartbeat) {
        let request = HeartbeatRequest::default().with_group_id(id("b"));
        let response: HeartbeatResponse = ask(&mut stage(), ApiKey::Heartbeat, version, &request, |at, _| {
            assert_eq!(at, 0);
            Response::Heartbeat(Some(ErrorCode::RebalanceInProgress))
        });
        assert_eq!(response.error_code, 27);
    }
    for version in versions(ApiKey::LeaveGroup) {
        let request = LeaveGroupRequest::default().with_group_id(id("a"));
        let request = if version >= 3 {
            let member = |id| MemberIdentity::default().with_member_id(text(id));
            request.with_members(vec![member("m"), member("n")])
        } else {
            request.with_member_id(text("m"))
        };
        let response: LeaveGroupResponse =
            ask(&mut stage(), ApiKey::LeaveGroup, version, &request, |_, asked| {
                let Request::Leave(leave) = asked else { panic!("a leave") };
                let error = Some(ErrorCode::UnknownMemberId);
                Response::Left(leave.members.into_iter().map(|member| (member, error)).collect())
            });
        let members: Vec<i16> = response.members.iter().map(|member| member.error_code).collect();
        let expected = if version >= 3 { (0, vec![25, 25]) } else { (25, vec![]) };
        assert_eq!((response.error_code, members), expected, "v{version}");
        let response: LeaveGroupResponse =
            ask(&mut stage(), ApiKey::LeaveGroup, version, &request, refused(ErrorCode::NotCoordinator));
        assert_eq!(response.error_code, 16);
    }
}

#[test]
fn a_commit_asks_only_for_partitions_that_exist_and_answers_in_the_order_of_the_request() {
    let partition = |index, offset| {
        OffsetCommitRequestPartition::default().with_partition_index(index).with_committed_offset(offset)
    };
    let topics = vec![
        OffsetCommitRequestTopic::default().with_name(topic("t")).with_partitions(vec![
            partition(2, 5),
            partition(1, 6),
            partition(-1, 7),
            partition(0, 8),
        ]),
        OffsetCommitRequestTopic::default().with_name(topic("u")).with_partitions(vec![partition(0, 9)]),
    ];
    let told = |response: OffsetCommitResponse| -> Vec<(i32, i16)> {
        let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.map(|p| (p.partition_index, p.error_code)).collect()
    };
    for version in versions(ApiKey::OffsetCommit) {
        let mut topics = topics.clone();
        if version >= 10 {
            topics.iter_mut().for_each(|topic| topic.name = by_id(&topic.name));
        }
        // Of a topic that is not there, where ids name topics.
        let unknown = if version >= 10 { 100 } else { 3 };
        let mut request = OffsetCommitRequest::default().with_group_id(id("a")).with_topics(topics.clone());
        request.retention_time_ms = if version <= 4 { 77 } else { -1 };
        let response: OffsetCommitResponse =
            ask(&mut stage(), ApiKey::OffsetCommit, version, &request, |_, asked| {
                let Request::CommitOffsets(commit) = asked else { panic!("a commit") };
                let asked: Vec<(i32, i64)> =
                    commit.topics[0].partitions.iter().map(|(i, o)| (*i, o.offset)).collect();
                assert_eq!((commit.topics.len(), asked), (1, vec![(1, 6), (0, 8)]));
                assert_eq!(commit.retention_ms, if version <= 4 { 77 } else { -1 });
                assert_eq!(commit.knows_missing_groups, version >= 9);
                let of = &commit.topics[0];
                assert_eq!((&*of.topic, of.topic_id.as_u128()), ("t", if version >= 10 { 7 } else { 0 }));
                let partitions = vec![(1, Some(ErrorCode::OffsetMetadataTooLarge)), (0, None)];
                Response::OffsetsCommitted(vec![OfTopic {
                    topic: of.topic.clone(),
                    topic_id: of.topic_id,
                    partitions,
                }])
            });
        let ids: Vec<_> = response.topics.iter().map(|topic| topic.topic_id.as_u128()).collect();
        assert_eq!(ids, if version >= 10 { [7, 99] } else { [0, 0] });
        assert_eq!(told(response), [(2, 3), (1, 12), (-1, 3), (0, 0), (0, unknown)]);
        let response =
            ask(&mut stage(), ApiKey::OffsetCommit, version, &request, refused(ErrorCode::IllegalGeneration));
        assert_eq!(told(response), [(2, 3), (1, 22), (-1, 3), (0, 22), (0, unknown)]);
        request.topics.remove(0);
        let nobody = |_, _| panic!("nobody is asked");
        assert_eq!(told(ask(&mut stage(), ApiKey::OffsetCommit, version, &request, nobody)), [(0, unknown)]);
    }
}

#[test]
fn deleted_offsets_are_told_by_partition_and_a_refusal_as_a_whole() {
    let partition = |index| OffsetDeleteRequestPartition::default().with_partition_index(index);
    let topics = vec![
        OffsetDeleteRequestTopic::default().with_name(topic("u")).with_partitions(vec![partition(0)]),
        OffsetDeleteRequestTopic::default()
            .with_name(topic("t"))
            .with_partitions(vec![partition(3), partition(0)]),
    ];
    let request = OffsetDeleteRequest::default().with_group_id(id("a")).with_topics(topics);
    let response: OffsetDeleteResponse = ask(&mut stage(), ApiKey::OffsetDelete, 0, &request, |_, asked| {
        let Request::DeleteOffsets { topics, .. } = asked else { panic!("a deletion") };
        assert_eq!((topics.len(), topics[0].partitions.clone()), (1, vec![(0, ())]));
        let partitions = vec![(0, Some(ErrorCode::GroupSubscribedToTopic))];
        Response::OffsetsDeleted(vec![OfTopic { topic: "t".into(), topic_id: Uuid::nil(), partitions }])
    });
    let told: Vec<i16> = response
        .topics
        .iter()
        .flat_map(|topic| &topic.partitions)
        .map(|partition| partition.error_code)
        .collect();
    assert_eq!(told, [3, 3, 86]);
    let response: OffsetDeleteResponse =
        ask(&mut stage(), ApiKey::OffsetDelete, 0, &request, refused(ErrorCode::GroupIdNotFound));
    assert_eq!((response.error_code, response.topics.len()), (69, 0));
}

#[test]
fn groups_are_listed_over_all_partitions_that_this_node_leads() {
    for version in versions(ApiKey::ListGroups) {
        let mut request = ListGroupsRequest::default();
        if version >= 4 {
            request.states_filter = vec![text("Stable")];
        }
        let response: ListGroupsResponse =
            ask(&mut stage(), ApiKey::ListGroups, version, &request, |at, asked| {
                let Request::List { states, types } = asked else { panic!("a list") };
                assert_eq!((states.len(), types.len()), (usize::from(version >= 4), 0));
                if at == 0 {
                    return Response::Refused(ErrorCode::NotCoordinator);
                }
                let protocol_type = "consumer".into();
                Response::Listed(vec![ListedGroup {
                    group: "a".into(),
                    protocol_type,
                    state: "Stable",
                    group_type: "classic",
                }])
            });
        let group = &response.groups[0];
        assert_eq!((response.error_code, response.groups.len(), &**group.group_id), (0, 1, "a"));
        assert_eq!(group.group_state.as_str(), if version >= 4 { "Stable" } else { "" });
        assert_eq!(group.group_type.as_str(), if version >= 5 { "classic" } else { "" });
        let response: ListGroupsResponse = ask(
            &mut stage(),
            ApiKey::ListGroups,
            version,
            &request,
            refused(ErrorCode::CoordinatorLoadInProgress),
        );
        assert_eq!((response.error_code, response.groups.len()), (14, 0));
    }
    let nobody = |_, _| panic!("there is no topic yet");
    let response: ListGroupsResponse =
        ask(&mut Stage::new(&[]), ApiKey::ListGroups, 3, &ListGroupsRequest::default(), nobody);
    assert_eq!((response.error_code, response.groups.len()), (0, 0));
}

#[test]
fn a_group_that_is_not_there_is_dead_or_not_found() {
    for version in versions(ApiKey::DescribeGroups) {
        let mut request = DescribeGroupsRequest::default().with_groups(vec![id("a"), id("b"), id("c")]);
        request.include_authorized_operations = version >= 3;
        let response: DescribeGroupsResponse =
            ask(&mut stage(), ApiKey::DescribeGroups, version, &request, |at, asked| {
                let Request::Describe(ids) = asked else { panic!("a description") };
                if at == 0 {
                    return Response::Refused(ErrorCode::NotCoordinator);
                }
                assert_eq!(ids, ["a".into(), "c".into()]);
                let member = DescribedMember {
                    member_id: "m".into(),
                    instance_id: Some("i".into()),
                    client_id: "c".into(),
                    client_host: "/h".into(),
                    metadata: Bytes::new(),
                    assignment: Bytes::new(),
                };
                let stable = DescribedGroup {
                    group: "a".into(),
                    state: "Stable",
                    members: vec![member],
                    ..DescribedGroup::default()
                };
                let error = Some(ErrorCode::GroupIdNotFound);
                Response::Described(vec![
                    stable,
                    DescribedGroup { group: "c".into(), error, state: "Dead", ..DescribedGroup::default() },
                ])
            });
        let told: Vec<(i16, &str, i32)> = response
            .groups
            .iter()
            .map(|group| (group.error_code, group.group_state.as_str(), group.authorized_operations))
            .collect();
        let all = if version >= 3 { 3400 } else { i32::MIN };
        let (missing, asked) = if version >= 6 { (69, i32::MIN) } else { (0, all) };
        assert_eq!(told, [(0, "Stable", all), (16, "", i32::MIN), (missing, "Dead", asked)], "v{version}");
        assert_eq!(response.groups[0].members[0].group_instance_id.is_some(), version >= 4);
        let message = response.groups[2].error_message.as_deref();
        assert_eq!(message, (version >= 6).then_some("Group c not found."));
    }
}

#[test]
fn groups_are_deleted_each_once() {
    for version in versions(ApiKey::DeleteGroups) {
        let request =
            DeleteGroupsRequest::default().with_groups_names(vec![id("a"), id("b"), id("a"), id("c")]);
        let response: DeleteGroupsResponse =
            ask(&mut stage(), ApiKey::DeleteGroups, version, &request, |at, asked| {
                let Request::Delete(ids) = asked else { panic!("a deletion") };
                match at {
                    0 => Response::Refused(ErrorCode::NotCoordinator),
                    _ => Response::Deleted(
                        ids.into_iter().map(|id| (id, Some(ErrorCode::NonEmptyGroup))).collect(),
                    ),
                }
            });
        let told: Vec<(String, i16)> =
            response.results.iter().map(|result| (result.group_id.to_string(), result.error_code)).collect();
        assert_eq!(told, [("a".to_string(), 68), ("b".to_string(), 16), ("c".to_string(), 68)]);
    }
}

#[test]
fn members_say_who_they_are_when_they_read_offsets() {
    let group = OffsetFetchRequestGroup::default()
        .with_group_id(id("a"))
        .with_member_id(Some(text("m")))
        .with_member_epoch(7)
        .with_topics(None);
    let request = OffsetFetchRequest::default().with_groups(vec![group]);
    let response: OffsetFetchResponse = ask(&mut stage(), ApiKey::OffsetFetch, 9, &request, |_, asked| {
        let Request::FetchMemberOffsets { groups, .. } = asked else { panic!("a member's fetch") };
        let (wanted, member, epoch) = &groups[0];
        assert_eq!((&*wanted.group, &**member, *epoch), ("a", "m", 7));
        Response::MemberOffsetsFetched(vec![("a".into(), Err(ErrorCode::StaleMemberEpoch))])
    });
    assert_eq!((response.groups[0].error_code, response.groups[0].topics.len()), (113, 0));
}

#[test]
fn a_heartbeat_is_asked_as_it_was_sent_and_answered_in_the_coordinators_words() {
    use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
    let t = Uuid::from_u128(7);
    for version in versions(ApiKey::ConsumerGroupHeartbeat) {
        let owned = |partitions| TopicPartitions::default().with_topic_id(t).with_partitions(partitions);
        let request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(id("a"))
            .with_member_id(text("m"))
            .with_member_epoch(3)
            .with_instance_id(Some(text("i")))
            .with_subscribed_topic_names(Some(vec![topic("t")]))
            .with_subscribed_topic_regex((version >= 1).then(|| text("t.*")))
            .with_topic_partitions(Some(vec![owned(vec![1]), owned(vec![]), owned(vec![0])]));
        let response: ConsumerGroupHeartbeatResponse =
            ask(&mut stage(), ApiKey::ConsumerGroupHeartbeat, version, &request, |at, asked| {
                let Request::ConsumerHeartbeat(beat) = asked else { panic!("a heartbeat") };
                assert_eq!((at, &*beat.group, &*beat.member_id, beat.epoch), (1, "a", "m", 3));
                assert_eq!((beat.instance_id.as_deref(), beat.rack_id), (Some("i"), None));
                assert_eq!(beat.must_name_itself, version >= 1);
                assert_eq!(beat.regex.as_deref(), (version >= 1).then_some("t.*"));
                assert_eq!(beat.owned, Some(Partitions::from([(t, [0, 1].into())])));
                assert_eq!((beat.rebalance_timeout_ms, &*beat.client_host), (-1, "/127.0.0.1"));
                Response::ConsumerBeat(ConsumerBeat {
                    member_id: "m".into(),
                    epoch: 4,
                    heartbeat_interval_ms: 5_000,
                    assigned: Some(Partitions::from([(t, [1].into())])),
                })
            });
        assert_eq!((response.error_code, response.member_epoch), (0, 4));
        assert_eq!((response.member_id.as_deref(), response.heartbeat_interval_ms), (Some("m"), 5_000));
        let topics = response.assignment.unwrap().topic_partitions;
        assert_eq!((topics[0].topic_id, topics[0].partitions.clone()), (t, vec![1]));

        let told = |stage: &mut Stage, answer: Response| {
            let response: ConsumerGroupHeartbeatResponse =
                ask(stage, ApiKey::ConsumerGroupHeartbeat, version, &request, |_, _| answer.clone());
            assert_eq!((response.member_id, response.member_epoch), (None, 0));
            (response.error_code, response.error_message.map(|words| words.to_string()))
        };
        let refused = BeatRefused { error: ErrorCode::FencedMemberEpoch, words: Some("why".to_owned()) };
        assert_eq!(told(&mut stage(), Response::BeatRefused(refused)), (110, Some("why".to_owned())));
        let loading = Response::Refused(ErrorCode::CoordinatorLoadInProgress);
        assert_eq!(told(&mut stage(), loading).0, 14);
        let mut older = Stage::new(&[]);
        let nobody = Response::Refused(ErrorCode::UnknownServerError);
        assert_eq!(
            told(&mut older, nobody),
            (35, Some("The version of API is not supported.".to_owned())),
            "the feature is not finalized, and nobody is asked"
        );
    }
}

#[test]
fn consumer_groups_are_described_in_the_order_of_the_request() {
    for version in versions(ApiKey::ConsumerGroupDescribe) {
        let request = ConsumerGroupDescribeRequest::default()
            .with_group_ids(vec![id("a"), id(""), id("b"), id("c")])
            .with_include_authorized_operations(true);
        let response: ConsumerGroupDescribeResponse =
            ask(&mut stage(), ApiKey::ConsumerGroupDescribe, version, &request, |at, asked| {
                let Request::DescribeConsumers(ids) = asked else { panic!("a description") };
                if at == 0 {
                    assert_eq!(ids, ["b".into()]);
                    return Response::Refused(ErrorCode::NotCoordinator);
                }
                assert_eq!(ids, ["a".into(), "c".into()]);
                let named = NamedPartitions {
                    topic_id: Uuid::from_u128(7),
                    topic: "t".into(),
                    partitions: [0, 1].into(),
                };
                let member = DescribedConsumerMember {
                    member_id: "m".into(),
                    instance_id: None,
                    rack_id: Some("r".into()),
                    epoch: 4,
                    client_id: "c".into(),
                    client_host: "/h".into(),
                    topics: ["t".into()].into(),
                    regex: None,
                    assigned: vec![named],
                    target: Vec::new(),
                    is_classic: true,
                };
                let stable = DescribedConsumerGroup {
                    group: "a".into(),
                    state: "Stable",
                    epoch: 4,
                    target_epoch: 3,
                    assignor: "uniform".into(),
                    members: vec![member],
                    ..Default::default()
                };
                let other = DescribedConsumerGroup {
                    group: "c".into(),
                    error: Some(ErrorCode::GroupIdNotFound),
                    is_of_other_type: true,
                    state: "Dead",
                    ..Default::default()
                };
                Response::ConsumersDescribed(vec![stable, other])
            });
        let told: Vec<_> = response
            .groups
            .iter()
            .map(|group| (group.group_id.as_str(), group.error_code, group.authorized_operations))
            .collect();
        assert_eq!(told, [("a", 0, 3400), ("", 24, i32::MIN), ("b", 16, i32::MIN), ("c", 69, i32::MIN)]);
        let group = &response.groups[0];
        assert_eq!((group.group_epoch, group.assignment_epoch, group.group_state.as_str()), (4, 3, "Stable"));
        let member = &group.members[0];
        assert_eq!(member.member_type, if version >= 1 { 0 } else { -1 });
        let assigned = &member.assignment.topic_partitions[0];
        assert_eq!((assigned.topic_name.as_str(), &assigned.partitions), ("t", &vec![0, 1]));
        let words = response.groups[3].error_message.as_deref();
        assert_eq!(words, Some("Group c is not a consumer group."));
    }
}
