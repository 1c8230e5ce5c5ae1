//! What brokers, and tools for the cluster, ask of the controller: what it is asked, and how its answers are told, in
//! every version. Codes and words of the tools' requests are those that Apache Kafka 4.3.1 gave.

use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::alter_partition_request as wanted;
use kafka_protocol::messages::broker_registration_request as registration;
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::*;
use uuid::Uuid;

use super::stage::{Stage, TO};
use super::topics::check_named;
use super::{Answered, CloseReason, StrBytes};
use crate::controller::record::LeaderRecovery;
use crate::controller::request::{ElectionKind, HeartbeatAnswer, IsrChange, IsrState, Reassignment};
use crate::controller::{ApiError, ControllerAnswer, ControllerRequest, Endpoint};
use crate::wire::ErrorCode;
use crate::wire::api::{ApiKey, Listener, TABLE};

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_string())
}

fn topic(name: &str) -> TopicName {
    TopicName(text(name))
}

fn error(code: ErrorCode, message: &str) -> ApiError {
    ApiError { code, message: message.to_owned() }
}

/// Topic, partition, code and words of an ElectLeaders.
fn elected(response: ElectLeadersResponse) -> (i16, Vec<String>) {
    let results = response.replica_election_results.into_iter().flat_map(|topic| {
        let name = topic.topic.to_string();
        let of = move |one: elect_leaders_response::PartitionResult| {
            let words = one.error_message.map(|words| words.to_string()).unwrap_or_default();
            format!("{name}-{} {} {words}", one.partition_id, one.error_code)
        };
        topic.partition_result.into_iter().map(of).collect::<Vec<_>>()
    });
    (response.error_code, results.collect())
}

#[test]
fn elections_are_the_controllers_and_told_by_topic() {
    let named = |name: &str, partitions: &[i32]| {
        TopicPartitions::default().with_topic(topic(name)).with_partitions(partitions.to_vec())
    };
    let request = |version: i16, election: i8, topics: Option<Vec<TopicPartitions>>, timeout_ms: i32| {
        ElectLeadersRequest::default()
            .with_election_type(if version == 0 { 0 } else { election })
            .with_topic_partitions(topics)
            .with_timeout_ms(timeout_ms)
    };
    let mut stage = Stage::new(&[]);
    let needless = || error(ErrorCode::ElectionNotNeeded, "Leader election not needed for topic partition.");
    for version in 0..=2 {
        let asking = request(version, 1, Some(vec![named("t", &[0, 9]), named("missing", &[0])]), 5000);
        let missing = error(ErrorCode::UnknownTopicOrPartition, "No such topic as missing");
        let answer = ControllerAnswer::Elected(vec![
            ("t".into(), 0, Err(needless())),
            ("t".into(), 9, Ok(())),
            ("missing".into(), 0, Err(missing)),
        ]);
        let (asked, response) = stage.ask_controller(ApiKey::ElectLeaders, version, &asking, answer);
        let partitions = [("t", 0), ("t", 9), ("missing", 0)].map(|(name, index)| (name.to_owned(), index));
        let kind = if version == 0 { ElectionKind::Preferred } else { ElectionKind::Unclean };
        assert_eq!(asked, ControllerRequest::ElectLeaders { partitions: Some(partitions.into()), kind });
        let told = [
            "t-0 84 Leader election not needed for topic partition.",
            "t-9 0 ",
            "missing-0 3 No such topic as missing",
        ];
        assert_eq!(elected(response), (0, told.map(str::to_owned).into()));
        let asking = request(version, 0, Some(vec![named("t", &[0])]), 5000);
        let answer = ControllerAnswer::Refused(ErrorCode::NotController);
        let (_, response) = stage.ask_controller(ApiKey::ElectLeaders, version, &asking, answer);
        assert_eq!(elected(response), (if version > 0 { 41 } else { 0 }, vec!["t-0 41 ".to_owned()]));
    }
    let everywhere = request(2, 0, None, 5000);
    let answer = ControllerAnswer::Elected(vec![("t".into(), 0, Err(needless())), ("t".into(), 1, Ok(()))]);
    let (asked, response) = stage.ask_controller(ApiKey::ElectLeaders, 2, &everywhere, answer);
    assert_eq!(asked, ControllerRequest::ElectLeaders { partitions: None, kind: ElectionKind::Preferred });
    assert_eq!(elected(response).1, ["t-1 0 "]);
    assert_eq!(elected(stage.ask(ApiKey::ElectLeaders, 2, &request(2, 5, None, 5000))), (42, Vec::new()));
    let late = request(2, 0, Some(vec![named("t", &[0])]), 0);
    assert_eq!(elected(stage.ask(ApiKey::ElectLeaders, 2, &late)), (7, vec!["t-0 7 ".to_string()]));
}

#[test]
fn reassignments_are_asked_for_and_answered_in_order() {
    let mut stage = Stage::new(&[]);
    for version in 0..=1 {
        let wanted = |index: i32, replicas: Option<&[i32]>| {
            let replicas = replicas.map(|replicas| replicas.iter().map(|id| BrokerId(*id)).collect());
            ReassignablePartition::default().with_partition_index(index).with_replicas(replicas)
        };
        let of = |name: &str, partitions| {
            ReassignableTopic::default().with_name(topic(name)).with_partitions(partitions)
        };
        let topics = vec![
            of("t", vec![wanted(0, Some(&[1, 2])), wanted(0, None)]),
            of("u", vec![wanted(3, Some(&[]))]),
        ];
        let request = AlterPartitionReassignmentsRequest::default()
            .with_topics(topics)
            .with_allow_replication_factor_change(version == 0);
        let none = error(ErrorCode::NoReassignmentInProgress, "");
        let empty = error(ErrorCode::InvalidReplicaAssignment, "empty");
        let answer = ControllerAnswer::Reassigned(vec![
            ("t".into(), 0, Ok(())),
            ("t".into(), 0, Err(none)),
            ("u".into(), 3, Err(empty)),
        ]);
        let key = ApiKey::AlterPartitionReassignments;
        let (asked, response): (_, AlterPartitionReassignmentsResponse) =
            stage.ask_controller(key, version, &request, answer);
        let changes =
            vec![("t".into(), 0, Some(vec![1, 2])), ("t".into(), 0, None), ("u".into(), 3, Some(vec![]))];
        let allow_replication_factor_change = version == 0;
        assert_eq!(asked, ControllerRequest::AlterReassignments { changes, allow_replication_factor_change });
        assert_eq!((response.error_code, response.error_message), (0, None));
        let told: Vec<_> = response.responses.iter().flat_map(|topic| &topic.partitions).collect();
        let told: Vec<_> = told.iter().map(|one| (one.error_code, one.error_message.as_deref())).collect();
        assert_eq!(told, [(0, None), (85, None), (39, Some("empty"))]);
        let answer = ControllerAnswer::Refused(ErrorCode::NotController);
        let (_, refused): (_, AlterPartitionReassignmentsResponse) =
            stage.ask_controller(key, version, &request, answer);
        assert_eq!((refused.error_code, refused.responses[1].partitions[0].error_code), (41, 41));
        let nothing = AlterPartitionReassignmentsRequest::default();
        let (_, response): (_, AlterPartitionReassignmentsResponse) =
            stage.ask_controller(key, version, &nothing, ControllerAnswer::Reassigned(Vec::new()));
        assert_eq!((response.error_code, response.error_message.as_deref()), (0, Some("")));
    }
}

#[test]
fn what_is_on_its_way_is_told_by_topic() {
    let mut stage = Stage::new(&[]);
    let asking = |topics| ListPartitionReassignmentsRequest::default().with_topics(topics);
    let of = |topic: &str, index| Reassignment {
        topic: topic.into(),
        index,
        replicas: vec![1, 2, 3],
        adding: vec![3],
        removing: vec![1],
    };
    let answer = ControllerAnswer::Reassignments(vec![of("t", 0), of("t", 2), of("u", 1)]);
    let key = ApiKey::ListPartitionReassignments;
    let (asked, response): (_, ListPartitionReassignmentsResponse) =
        stage.ask_controller(key, 0, &asking(None), answer);
    assert_eq!(asked, ControllerRequest::ListReassignments { partitions: None });
    let told: Vec<_> =
        response.topics.iter().map(|topic| (topic.name.as_str(), topic.partitions.len())).collect();
    assert_eq!((response.error_code, told), (0, vec![("t", 2), ("u", 1)]));
    let last = &response.topics[0].partitions[1];
    assert_eq!((last.partition_index, &last.adding_replicas[..]), (2, &[BrokerId(3)][..]));
    assert_eq!((last.replicas.len(), &last.removing_replicas[..]), (3, &[BrokerId(1)][..]));
    let some =
        ListPartitionReassignmentsTopics::default().with_name(topic("t")).with_partition_indexes(vec![4, 5]);
    let answer = ControllerAnswer::Refused(ErrorCode::NotController);
    let (asked, response): (_, ListPartitionReassignmentsResponse) =
        stage.ask_controller(key, 0, &asking(Some(vec![some])), answer);
    let partitions = Some(vec![("t".to_owned(), 4), ("t".to_owned(), 5)]);
    assert_eq!(asked, ControllerRequest::ListReassignments { partitions });
    assert_eq!(response.error_code, 41);
}

#[test]
fn a_broker_is_forgotten_by_the_controller_but_not_the_one_that_is_asked() {
    let mut stage = Stage::new(&[]);
    let request = |id: i32| UnregisterBrokerRequest::default().with_broker_id(BrokerId(id));
    let words = "Broker ID 7 is not currently registered";
    for (answer, expected) in [
        (ControllerAnswer::Unregistered(Ok(())), (0, None)),
        (
            ControllerAnswer::Unregistered(Err(error(ErrorCode::BrokerIdNotRegistered, words))),
            (102, Some(words)),
        ),
        (ControllerAnswer::Refused(ErrorCode::NotController), (41, None)),
    ] {
        let (asked, response): (_, UnregisterBrokerResponse) =
            stage.ask_controller(ApiKey::UnregisterBroker, 0, &request(7), answer);
        assert_eq!(asked, ControllerRequest::UnregisterBroker { node_id: 7 });
        assert_eq!((response.error_code, response.error_message.as_deref()), expected);
    }
    let own: UnregisterBrokerResponse = stage.ask(ApiKey::UnregisterBroker, 0, &request(1));
    assert_eq!(own.error_code, 42);
}

#[test]
fn a_registration_carries_what_the_controller_has_to_know() {
    let mut stage = Stage::new(&[]);
    stage.finalize("group.version", 1);
    let listener =
        registration::Listener::default().with_name(text("PLAINTEXT")).with_host(text("h")).with_port(9092);
    let feature = |least: i16, most: i16| {
        let feature = registration::Feature::default().with_name(text("group.version"));
        feature.with_min_supported_version(least).with_max_supported_version(most)
    };
    let request = BrokerRegistrationRequest::default()
        .with_broker_id(BrokerId(2))
        .with_cluster_id(text("c"))
        .with_incarnation_id(Uuid::from_u128(9))
        .with_listeners(vec![listener])
        .with_rack(Some(text("r")));
    for version in 0..=4 {
        let directories =
            if version >= 2 { vec![Uuid::from_u128(1000), Uuid::from_u128(999)] } else { Vec::new() };
        let request = request.clone().with_log_dirs(directories.clone()).with_features(vec![feature(0, 1)]);
        let request = if version >= 3 { request.with_previous_broker_epoch(5) } else { request };
        let answer = ControllerAnswer::Registered { epoch: 77 };
        let (asked, response): (_, BrokerRegistrationResponse) =
            stage.ask_controller(ApiKey::BrokerRegistration, version, &request, answer);
        let endpoint =
            Endpoint { name: "PLAINTEXT".into(), host: "h".into(), port: 9092, security_protocol: 0 };
        let expected = ControllerRequest::RegisterBroker {
            node_id: 2,
            incarnation: Uuid::from_u128(9),
            listeners: vec![endpoint],
            rack: Some("r".into()),
            directories,
            previous_epoch: if version >= 3 { 5 } else { -1 },
            cluster_id: Some("c".into()),
        };
        assert_eq!((asked, response.error_code, response.broker_epoch), (expected, 0, 77));
        let answer = ControllerAnswer::Refused(ErrorCode::InconsistentClusterId);
        let (_, response): (_, BrokerRegistrationResponse) =
            stage.ask_controller(ApiKey::BrokerRegistration, version, &request, answer);
        assert_eq!((response.error_code, response.broker_epoch), (104, -1));
    }
    let mut refused = |request: &BrokerRegistrationRequest| {
        let response: BrokerRegistrationResponse = stage.ask(ApiKey::BrokerRegistration, 4, request);
        response.error_code
    };
    let of = || request.clone();
    assert_eq!(refused(&of().with_features(vec![feature(0, 0)])), 35);
    assert_eq!(refused(&of().with_is_migrating_zk_broker(true)), 102);
    assert_eq!(refused(&of().with_broker_id(BrokerId(-1))), 42);
    assert_eq!(refused(&of().with_broker_id(BrokerId(1))), 101, "nobody else is the broker of this process");
    assert_eq!(refused(&of().with_incarnation_id(Uuid::nil())), 42);
    assert_eq!(refused(&of().with_log_dirs(vec![Uuid::from_u128(1000); 2])), 119);
    assert_eq!(refused(&of().with_log_dirs(vec![Uuid::nil()])), 119);
}

#[test]
fn a_heartbeat_is_answered_with_what_becomes_of_the_broker() {
    let mut stage = Stage::new(&[]);
    let own = BrokerHeartbeatRequest::default().with_broker_id(BrokerId(1)).with_want_fence(true);
    let refused: BrokerHeartbeatResponse = stage.ask(ApiKey::BrokerHeartbeat, 1, &own);
    assert_eq!(refused.error_code, 41);
    for version in 0..=1 {
        let request = BrokerHeartbeatRequest::default()
            .with_broker_id(BrokerId(2))
            .with_broker_epoch(5)
            .with_current_metadata_offset(9)
            .with_want_shut_down(true)
            .with_offline_log_dirs(vec![Uuid::from_u128(7); version as usize]);
        let heard = HeartbeatAnswer { is_caught_up: true, is_fenced: false, should_shut_down: true };
        let (asked, response): (_, BrokerHeartbeatResponse) = stage.ask_controller(
            ApiKey::BrokerHeartbeat,
            version,
            &request,
            ControllerAnswer::Heartbeat(Ok(heard)),
        );
        let expected = ControllerRequest::Heartbeat {
            node_id: 2,
            epoch: 5,
            applied_version: 9,
            wants_fence: false,
            wants_shutdown: true,
            offline_directories: vec![Uuid::from_u128(7); version as usize],
        };
        assert_eq!(asked, expected);
        let told =
            (response.error_code, response.is_caught_up, response.is_fenced, response.should_shut_down);
        assert_eq!(told, (0, true, false, true));
        for answer in [
            ControllerAnswer::Heartbeat(Err(ErrorCode::StaleBrokerEpoch)),
            ControllerAnswer::Refused(ErrorCode::StaleBrokerEpoch),
        ] {
            let (_, response): (_, BrokerHeartbeatResponse) =
                stage.ask_controller(ApiKey::BrokerHeartbeat, version, &request, answer);
            assert_eq!(response.error_code, 77);
        }
    }
}

#[test]
fn a_long_name_before_many_indexes_is_too_costly() {
    assert_eq!(check_named([(249, 100_000)].into_iter()), Ok(()));
    assert_eq!(check_named([(1 << 20, 400_000)].into_iter()), Err(CloseReason::TooCostly));
    assert_eq!(check_named([(usize::MAX, 2), (1, 1)].into_iter()), Err(CloseReason::TooCostly));
}

#[test]
fn producer_ids_are_for_brokers_that_are_registered() {
    let mut stage = Stage::new(&[]);
    let request = |id: i32, epoch: i64| {
        AllocateProducerIdsRequest::default().with_broker_id(BrokerId(id)).with_broker_epoch(epoch)
    };
    let answer = ControllerAnswer::ProducerIds { first: 3000, count: 1000 };
    let (asked, given): (_, AllocateProducerIdsResponse) =
        stage.ask_controller(ApiKey::AllocateProducerIds, 0, &request(1, 1), answer);
    assert_eq!(asked, ControllerRequest::AllocateProducerIds);
    assert_eq!((given.error_code, given.producer_id_start.0, given.producer_id_len), (0, 3000, 1000));
    for (id, epoch, code) in [(1, 2, 77), (9, 1, 102)] {
        let refused: AllocateProducerIdsResponse =
            stage.ask(ApiKey::AllocateProducerIds, 0, &request(id, epoch));
        assert_eq!(refused.error_code, code);
    }
}

#[test]
fn in_sync_sets_are_asked_for_and_told_by_topic() {
    let mut stage = Stage::new(&[]);
    let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
    for version in 2..=3 {
        let partition = |index: i32, recovery: i8| {
            let partition = wanted::PartitionData::default()
                .with_partition_index(index)
                .with_leader_epoch(3)
                .with_partition_epoch(4)
                .with_leader_recovery_state(recovery);
            let replica = wanted::BrokerState::default().with_broker_id(BrokerId(2)).with_broker_epoch(8);
            match version {
                2 => partition.with_new_isr(vec![BrokerId(2)]),
                _ => partition.with_new_isr_with_epochs(vec![replica]),
            }
        };
        let of = |id, partitions| wanted::TopicData::default().with_topic_id(id).with_partitions(partitions);
        let topics = vec![of(one, vec![partition(0, 0), partition(1, 7)]), of(two, vec![partition(5, 1)])];
        let request = AlterPartitionRequest::default()
            .with_broker_id(BrokerId(1))
            .with_broker_epoch(6)
            .with_topics(topics);
        let state = IsrState {
            leader: 1,
            leader_epoch: 3,
            partition_epoch: 5,
            isr: [1, 2].into_iter().collect(),
            recovery: LeaderRecovery::Recovering,
        };
        let results = vec![(one, 0, Ok(state)), (two, 5, Err(ErrorCode::InvalidUpdateVersion))];
        let (asked, response): (_, AlterPartitionResponse) = stage.ask_controller(
            ApiKey::AlterPartition,
            version,
            &request,
            ControllerAnswer::Isr(Ok(results)),
        );
        let epoch = if version == 2 { -1 } else { 8 };
        let change = |recovery| IsrChange {
            leader_epoch: 3,
            partition_epoch: 4,
            isr: std::iter::once((2, epoch)).collect(),
            recovery,
        };
        let changes =
            vec![(one, 0, change(LeaderRecovery::Recovered)), (two, 5, change(LeaderRecovery::Recovering))];
        assert_eq!(asked, ControllerRequest::AlterPartition { node_id: 1, epoch: 6, changes });
        let told = response.topics.iter().flat_map(|topic| &topic.partitions);
        let told: Vec<_> = told.map(|one| (one.partition_index, one.error_code, one.isr.len())).collect();
        assert_eq!(told, [(0, 0, 2), (1, 42, 0), (5, 95, 0)]);
        let said = stage.desk.refusals.take();
        assert!(said[0].contains("of node 1 at 127.0.0.1: InvalidRequest for "), "{said:?}");
        assert!(said[1].contains(&format!("InvalidUpdateVersion for {two}-5 (")) && said.len() == 2);
        let first = &response.topics[0].partitions[0];
        assert_eq!((first.leader_id.0, first.leader_epoch, first.partition_epoch), (1, 3, 5));
        assert_eq!(first.leader_recovery_state, 1);
        let answer = ControllerAnswer::Isr(Err(ErrorCode::StaleBrokerEpoch));
        let (_, refused): (_, AlterPartitionResponse) =
            stage.ask_controller(ApiKey::AlterPartition, version, &request, answer);
        assert_eq!((refused.error_code, refused.topics.len()), (77, 0));
        assert_eq!(stage.desk.refusals.take().len(), 2, "the whole, and what was senseless again");
    }
}

#[test]
fn replicas_are_assigned_to_directories_and_answered_as_they_were_asked() {
    use kafka_protocol::messages::assign_replicas_to_dirs_request as told;
    use kafka_protocol::messages::{AssignReplicasToDirsRequest, AssignReplicasToDirsResponse};
    let mut stage = Stage::new(&[]);
    let id = Uuid::from_u128;
    let topic = |topic_id, indexes: &[i32]| {
        let one = |index: &i32| told::PartitionData::default().with_partition_index(*index);
        told::TopicData::default().with_topic_id(topic_id).with_partitions(indexes.iter().map(one).collect())
    };
    let directory = |id, topics| told::DirectoryData::default().with_id(id).with_topics(topics);
    let request = AssignReplicasToDirsRequest::default()
        .with_broker_id(BrokerId(2))
        .with_broker_epoch(5)
        .with_directories(vec![
            directory(id(800), vec![topic(id(1), &[0, 3])]),
            directory(id(1), vec![topic(id(2), &[1])]),
        ]);
    let results =
        vec![(id(1), 0, Ok(())), (id(1), 3, Err(ErrorCode::NotLeaderOrFollower)), (id(2), 1, Ok(()))];
    let key = ApiKey::AssignReplicasToDirs;
    let answer = ControllerAnswer::Assigned(Ok(results));
    let (asked, response): (_, AssignReplicasToDirsResponse) = stage.ask_controller(key, 0, &request, answer);
    let assignments = vec![(id(1), 0, id(800)), (id(1), 3, id(800)), (id(2), 1, id(1))];
    assert_eq!(asked, ControllerRequest::AssignReplicas { node_id: 2, epoch: 5, assignments });
    let of = |at: usize| {
        let topic = &response.directories[at].topics[0];
        let codes =
            topic.partitions.iter().map(|one| (one.partition_index, one.error_code)).collect::<Vec<_>>();
        (response.directories[at].id, topic.topic_id, codes)
    };
    assert_eq!((response.error_code, response.directories.len()), (0, 2));
    assert_eq!(of(0), (id(800), id(1), vec![(0, 0), (3, 6)]));
    assert_eq!(of(1), (id(1), id(2), vec![(1, 0)]));
    for code in [ErrorCode::StaleBrokerEpoch, ErrorCode::NotController] {
        for answer in [ControllerAnswer::Assigned(Err(code)), ControllerAnswer::Refused(code)] {
            let (_, refused): (_, AssignReplicasToDirsResponse) =
                stage.ask_controller(key, 0, &request, answer);
            assert_eq!((refused.error_code, refused.directories.len()), (code.code(), 0));
        }
    }
}

/// A request as it stands in an envelope: its header and its body.
fn inner(key: i16, version: i16, flexible: bool, body: &[u8]) -> bytes::Bytes {
    let tags: &[u8] = if flexible { &[0] } else { &[] };
    let head = [&key.to_be_bytes()[..], &version.to_be_bytes(), &9_i32.to_be_bytes(), &[0xff, 0xff]].concat();
    [&head, tags, body].concat().into()
}

fn envelope(data: bytes::Bytes) -> EnvelopeRequest {
    let request = EnvelopeRequest::default().with_request_data(data);
    request.with_client_host_address(bytes::Bytes::from_static(&[127, 0, 0, 1]))
}

#[test]
fn a_request_in_an_envelope_is_answered_as_if_it_had_come_by_itself() {
    let mut stage = Stage::new(&[]);
    let mut body = bytes::BytesMut::new();
    let request = UnregisterBrokerRequest::default().with_broker_id(BrokerId(7));
    kafka_protocol::protocol::Encodable::encode(&request, &mut body, 0).unwrap();
    let wrapped = envelope(inner(64, 0, true, &body));
    let words = "Broker ID 7 is not currently registered";
    let refusal = ControllerAnswer::Unregistered(Err(error(ErrorCode::BrokerIdNotRegistered, words)));
    let (asked, response): (_, EnvelopeResponse) =
        stage.ask_controller(ApiKey::Envelope, 0, &wrapped, refusal);
    assert_eq!(asked, ControllerRequest::UnregisterBroker { node_id: 7 });
    assert_eq!(response.error_code, 0);
    let mut data = response.response_data.unwrap();
    assert_eq!(data.split_to(5)[..], [0, 0, 0, 9, 0], "the correlation id of the inner request, and no tags");
    let told =
        <UnregisterBrokerResponse as kafka_protocol::protocol::Decodable>::decode(&mut data, 0).unwrap();
    assert_eq!((told.error_code, data.len()), (102, 0));
    let moved = ControllerAnswer::Refused(ErrorCode::NotController);
    let (_, response): (_, EnvelopeResponse) = stage.ask_controller(ApiKey::Envelope, 0, &wrapped, moved);
    assert_eq!((response.error_code, response.response_data), (41, None));
}

#[test]
fn an_envelope_with_anything_else_is_refused() {
    let mut stage = Stage::new(&[]);
    let mut ask = |request: EnvelopeRequest| {
        let response: EnvelopeResponse = stage.ask(ApiKey::Envelope, 0, &request);
        response.error_code
    };
    let unregister = || inner(64, 0, true, &[0, 0, 0, 7, 0]);
    for (key, version, flexible) in
        [(58, 0, true), (3, 1, false), (18, 0, false), (62, 0, true), (99, 0, false)]
    {
        assert_eq!(ask(envelope(inner(key, version, flexible, &[0; 20]))), 42, "API {key}");
    }
    assert_eq!(ask(envelope(inner(64, 9, true, &[0; 20]))), 35);
    assert_eq!(ask(envelope(unregister().slice(..12))), 42);
    assert_eq!(ask(envelope(unregister()).with_client_host_address(bytes::Bytes::from_static(&[1]))), 42);
}

#[test]
fn a_quorum_with_fixed_voters_takes_and_loses_none() {
    let mut stage = Stage::new(&[]);
    let own = Some(text("AAAAAAAAAAAAAAAAAAAAAA"));
    for (cluster, id, directory, code, words) in [
        (own.clone(), 2, 5, 35, Some("because the kraft.version feature is 0")),
        (None, 2, 5, 35, Some("because the kraft.version feature is 0")),
        (Some(text("other")), 2, 5, 104, None),
        (own.clone(), -1, 5, 42, Some("a valid voter")),
        (own, 2, 0, 42, Some("a valid voter")),
    ] {
        let directory = Uuid::from_u128(directory);
        let add = AddRaftVoterRequest::default().with_cluster_id(cluster.clone()).with_voter_id(id);
        let added: AddRaftVoterResponse =
            stage.ask(ApiKey::AddRaftVoter, 0, &add.with_voter_directory_id(directory));
        let remove = RemoveRaftVoterRequest::default().with_cluster_id(cluster).with_voter_id(id);
        let removed: RemoveRaftVoterResponse =
            stage.ask(ApiKey::RemoveRaftVoter, 0, &remove.with_voter_directory_id(directory));
        assert_eq!((added.error_code, removed.error_code), (code, code));
        for told in [added.error_message, removed.error_message] {
            assert_eq!(told.is_some(), words.is_some());
            assert!(words.is_none_or(|words| told.unwrap().contains(words)));
        }
    }
}

#[test]
fn followers_may_ask_where_an_epoch_ended() {
    for replica in [-1, -2, 2] {
        let mut stage = Stage::new(&[]);
        stage.topic("t", 7, &[1]);
        let partition = OffsetForLeaderPartition::default().with_leader_epoch(3).with_current_leader_epoch(5);
        let topic = OffsetForLeaderTopic::default().with_topic(topic("t")).with_partitions(vec![partition]);
        let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
        let (header, mut work) =
            stage.start(ApiKey::OffsetForLeaderEpoch, 4, &request.with_replica_id(BrokerId(replica)));
        let found = crate::partition::Answer::EpochEnd { leader_epoch: 3, end_offset: 10 };
        work.answer(&header, TO, Answered::Partition(found, None), &mut stage.scene());
        let response: OffsetForLeaderEpochResponse = stage.finish(&header, work);
        assert_eq!(response.topics[0].partitions[0].end_offset, 10, "replica {replica}");
    }
}

#[test]
fn what_brokers_say_to_the_controller_is_for_its_listener_alone() {
    let only: Vec<i16> = TABLE
        .iter()
        .filter(|api| !api.listeners.admit(Listener::Client))
        .inspect(|api| assert!(api.listeners.admit(Listener::Controller), "{}", api.name))
        .map(|api| api.key as i16)
        .collect();
    assert_eq!(only, [56, 58, 62, 63, 67, 73, 82, 1000, 1001]);
    let forwardable = TABLE.iter().filter(|api| api.is_forwardable()).map(|api| api.key as i16);
    let expected = [19, 20, 33, 37, 43, 44, 45, 46, 55, 57, 64, 67, 80, 81];
    assert_eq!(forwardable.collect::<Vec<_>>(), expected);
}
