//! Groups against a real process: they outlive `kill -9`, their topic is Kafka's own, and ten thousand of them are
//! loaded in a moment.

use std::time::Instant;

use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    DescribeGroupsRequest, FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest,
    JoinGroupResponse, ListGroupsRequest, OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::StrBytes;
use tidemill::client::Connection;

use crate::process::{Home, until};
use crate::wire::{batch, connect, create, delete, describe, produce};

const OFFSETS_TOPIC: &str = "__consumer_offsets";
const MEMBER_ID_REQUIRED: i16 = 79;
const UNKNOWN_MEMBER: i16 = 25;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn group_id(group: &str) -> GroupId {
    GroupId(text(group))
}

/// Waits until the group has a coordinator that has loaded.
fn find(connection: &mut Connection, group: &str) {
    let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)]);
    let found = connection.call(&request, 6).unwrap();
    assert_eq!(found.coordinators[0].error_code, 0);
    until("the coordinator loads", || {
        let request = DescribeGroupsRequest::default().with_groups(vec![group_id(group)]);
        match connection.call(&request, 5).unwrap().groups[0].error_code {
            0 => Ok(()),
            error => Err(error),
        }
    });
}

fn join_request(group: &str, member: &str) -> JoinGroupRequest {
    let protocol =
        JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata("subscription".into());
    JoinGroupRequest::default()
        .with_group_id(group_id(group))
        .with_session_timeout_ms(30_000)
        .with_rebalance_timeout_ms(30_000)
        .with_member_id(text(member))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

/// Joins as the only member; the answer, by which it leads.
fn join_alone(connection: &mut Connection, group: &str) -> JoinGroupResponse {
    let first = connection.call(&join_request(group, ""), 9).unwrap();
    assert_eq!(first.error_code, MEMBER_ID_REQUIRED);
    let joined = connection.call(&join_request(group, &first.member_id), 9).unwrap();
    assert_eq!((joined.error_code, &joined.leader), (0, &joined.member_id));
    joined
}

fn sync(connection: &mut Connection, group: &str, joined: &JoinGroupResponse) -> Vec<u8> {
    let assignment = SyncGroupRequestAssignment::default()
        .with_member_id(joined.member_id.clone())
        .with_assignment("everything".into());
    let request = SyncGroupRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone())
        .with_protocol_type(Some(text("consumer")))
        .with_protocol_name(Some(text("range")))
        .with_assignments(vec![assignment]);
    let synced = connection.call(&request, 5).unwrap();
    assert_eq!(synced.error_code, 0);
    synced.assignment.to_vec()
}

fn heartbeat(connection: &mut Connection, group: &str, joined: &JoinGroupResponse) -> i16 {
    let request = HeartbeatRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone());
    connection.call(&request, 4).unwrap().error_code
}

fn commit_request(group: &str, member: Option<&JoinGroupResponse>, offset: i64) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text("note")));
    let topic = OffsetCommitRequestTopic::default()
        .with_name(crate::wire::name("t"))
        .with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id_or_member_epoch(member.map_or(-1, |member| member.generation_id))
        .with_member_id(member.map_or_else(StrBytes::default, |member| member.member_id.clone()))
        .with_topics(vec![topic])
}

fn commit(connection: &mut Connection, group: &str, member: Option<&JoinGroupResponse>, offset: i64) -> i16 {
    let answer = connection.call(&commit_request(group, member, offset), 9).unwrap();
    answer.topics[0].partitions[0].error_code
}

/// What is committed for t-0 of these groups; the error of one that cannot tell.
fn committed(connection: &mut Connection, groups: &[String]) -> Result<Vec<i64>, i16> {
    let wanted = |group: &String| {
        let topic = OffsetFetchRequestTopics::default()
            .with_name(crate::wire::name("t"))
            .with_partition_indexes(vec![0]);
        OffsetFetchRequestGroup::default().with_group_id(group_id(group)).with_topics(Some(vec![topic]))
    };
    let request = OffsetFetchRequest::default().with_groups(groups.iter().map(wanted).collect());
    let answer = connection.call(&request, 8).unwrap();
    let group = |group: &kafka_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup| {
        if group.error_code == 0 {
            Ok(group.topics[0].partitions[0].committed_offset)
        } else {
            Err(group.error_code)
        }
    };
    answer.groups.iter().map(group).collect()
}

#[test]
fn members_and_offsets_survive_a_kill() {
    let home = Home::new(&["group.initial.rebalance.delay.ms=0", "offsets.topic.num.partitions=5"]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "t", 1, &[]);
    find(&mut connection, "g");
    let joined = join_alone(&mut connection, "g");
    assert_eq!(sync(&mut connection, "g", &joined), b"everything");
    for offset in 1..=20 {
        assert_eq!(commit(&mut connection, "g", Some(&joined), offset), 0);
    }
    broker.kill();

    let broker = home.start();
    let mut connection = connect(&broker);
    find(&mut connection, "g");
    assert_eq!(committed(&mut connection, &["g".to_owned()]), Ok(vec![20]));
    assert_eq!(heartbeat(&mut connection, "g", &joined), 0, "the member is known, and its generation");
    assert_eq!(sync(&mut connection, "g", &joined), b"everything");
    let request = DescribeGroupsRequest::default().with_groups(vec![group_id("g")]);
    let described = connection.call(&request, 5).unwrap().groups.remove(0);
    assert_eq!((described.group_state.as_str(), described.protocol_data.as_str()), ("Stable", "range"));
    assert_eq!(described.members[0].client_host.as_str(), "/127.0.0.1");
    assert_eq!(commit(&mut connection, "g", Some(&joined), 21), 0);
    let again = connection.call(&join_request("g", &joined.member_id), 9).unwrap();
    assert_eq!((again.error_code, again.generation_id), (0, joined.generation_id + 1));
    assert_eq!(commit(&mut connection, "g", Some(&joined), 22), 22, "its old generation is over");
    broker.kill();
    // Nothing of the new generation was assigned: it never was.
    let broker = home.start();
    let mut connection = connect(&broker);
    find(&mut connection, "g");
    assert_eq!(committed(&mut connection, &["g".to_owned()]), Ok(vec![21]));
    assert_eq!(heartbeat(&mut connection, "g", &joined), 0);
}

#[test]
fn a_join_waits_for_the_others_and_holds_back_only_its_own_connection() {
    let home = Home::new(&["group.initial.rebalance.delay.ms=0", "offsets.topic.num.partitions=2"]);
    let broker = home.start();
    let (mut first, mut second) = (connect(&broker), connect(&broker));
    create(&mut first, "t", 1, &[]);
    find(&mut first, "g");
    let joined = join_alone(&mut first, "g");
    sync(&mut first, "g", &joined);
    let id = second.call(&join_request("g", ""), 9).unwrap().member_id;
    let waiting = second.send(&join_request("g", &id), 9).unwrap();
    let behind = second.send(&ListGroupsRequest::default(), 4).unwrap();
    until("the first member is told to join", || match heartbeat(&mut first, "g", &joined) {
        27 => Ok(()),
        error => Err(error),
    });
    let again = first.call(&join_request("g", &joined.member_id), 9).unwrap();
    let told = second.receive(waiting).unwrap();
    assert_eq!((told.error_code, told.generation_id), (0, again.generation_id));
    assert_eq!(again.members.len() + told.members.len(), 2, "the leader is told of both");
    assert_eq!(second.receive(behind).unwrap().groups.len(), 1);
}

#[test]
fn the_offsets_topic_is_closed_to_clients_and_made_again_when_it_was_deleted() {
    let home = Home::new(&["offsets.topic.num.partitions=3"]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "t", 1, &[]);
    find(&mut connection, "g");
    let topic = describe(&mut connection, &[OFFSETS_TOPIC]).topics.remove(0);
    assert_eq!((topic.is_internal, topic.partitions.len()), (true, 3));
    assert_eq!(produce(&mut connection, OFFSETS_TOPIC, 0, -1, batch(&[b"x"])).error_code, 17);
    assert_eq!(commit(&mut connection, "g", None, 5), 0);
    assert_eq!(delete(&mut connection, OFFSETS_TOPIC), 0);
    assert_eq!(commit(&mut connection, "g", None, 6), 16, "nobody coordinates it");
    find(&mut connection, "g");
    assert_eq!(committed(&mut connection, &["g".to_owned()]), Ok(vec![-1]));
    assert_eq!(commit(&mut connection, "g", None, 7), 0);
    let unknown = JoinGroupResponse::default().with_member_id(text("nobody")).with_generation_id(1);
    assert_eq!(commit(&mut connection, "g", Some(&unknown), 8), UNKNOWN_MEMBER);
    assert_eq!(delete(&mut connection, "t"), 0);
    until("the offsets of a deleted topic go", || match committed(&mut connection, &["g".to_owned()]) {
        Ok(offsets) if offsets == [-1] => Ok(()),
        other => Err(other),
    });
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn ten_thousand_groups_are_loaded_in_a_moment() {
    const GROUPS: usize = 10_000;
    let home = Home::new(&[]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "t", 1, &[]);
    find(&mut connection, "group-0");
    let empty_bytes = broker.memory_bytes();
    let groups: Vec<String> = (0..GROUPS).map(|number| format!("group-{number}")).collect();
    let begun = Instant::now();
    for (chunk, some) in groups.chunks(50).enumerate() {
        let first = (chunk * 50) as i64;
        let tickets: Vec<_> = (first..)
            .zip(some)
            .map(|(offset, group)| connection.send(&commit_request(group, None, offset), 9).unwrap())
            .collect();
        for ticket in tickets {
            assert_eq!(connection.receive(ticket).unwrap().topics[0].partitions[0].error_code, 0);
        }
    }
    let committed_ms = begun.elapsed().as_millis();
    let full_bytes = broker.memory_bytes();
    broker.kill();
    let begun = Instant::now();
    let broker = home.start();
    let mut connection = connect(&broker);
    for (chunk, some) in groups.chunks(1_000).enumerate() {
        let offsets = until("the coordinators load", || committed(&mut connection, some));
        let first = (chunk * 1_000) as i64;
        assert_eq!(offsets, (first..first + 1_000).collect::<Vec<_>>());
    }
    let loaded_ms = begun.elapsed().as_millis();
    println!(
        "{GROUPS} groups: committed in {committed_ms} ms, {} bytes each; started, loaded and read in {loaded_ms} ms",
        full_bytes.saturating_sub(empty_bytes) / GROUPS as u64
    );
    assert!(loaded_ms < 20_000);
}
