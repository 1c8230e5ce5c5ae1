//! Requests as the message library reads them, and answers as it writes them.

use bytes::Buf;
use kafka_protocol::messages::alter_partition_response::{PartitionData, TopicData};
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::{ProducerId, RequestHeader as WireHeader};
use kafka_protocol::protocol::{Decodable, Encodable, Message};
use smallvec::smallvec;

use super::*;
use crate::wire::header;

/// The body of a frame of this key and version.
fn body(mut frame: Bytes, key: i16, version: i16) -> Bytes {
    assert_eq!(frame.get_i32() as usize, frame.len());
    let header = WireHeader::decode(&mut frame, 2).unwrap();
    assert_eq!(
        (header.request_api_key, header.request_api_version, header.correlation_id),
        (key, version, 9)
    );
    frame
}

fn encoded<T: Encodable + Message>(answer: &T, version: i16) -> Bytes {
    let mut bytes = BytesMut::new();
    answer.encode(&mut bytes, version).unwrap();
    bytes.freeze()
}

#[test]
fn a_registration_says_who_the_broker_is() {
    let endpoint =
        Endpoint { name: "PLAINTEXT".into(), host: "here".into(), port: 9092, security_protocol: 0 };
    let who = Registration {
        node_id: 3,
        cluster_id: "cluster".into(),
        incarnation: Uuid::from_u128(5),
        listeners: vec![endpoint],
        rack: Some("r1".into()),
        directories: vec![Uuid::from_u128(8)],
        features: vec![("metadata.version".to_owned(), 1, 25)],
    };
    let mut body = body(register(&who, 44, 9).unwrap(), 62, 4);
    let read = BrokerRegistrationRequest::decode(&mut body, 4).unwrap();
    assert!(body.is_empty());
    assert_eq!((read.broker_id.0, read.previous_broker_epoch), (3, 44));
    assert_eq!((read.incarnation_id, &read.log_dirs[..]), (Uuid::from_u128(5), &[Uuid::from_u128(8)][..]));
    assert_eq!((&*read.listeners[0].host, read.listeners[0].port), ("here", 9092));
    assert_eq!((read.rack.as_deref(), read.features[0].max_supported_version), (Some("r1"), 25));
    let answer = BrokerRegistrationResponse::default().with_broker_epoch(77);
    assert_eq!(registered(&encoded(&answer, 4)), Ok(Ok(77)));
    let refused = BrokerRegistrationResponse::default().with_error_code(101);
    assert_eq!(registered(&encoded(&refused, 4)), Ok(Err(ErrorCode::DuplicateBrokerRegistration)));
    assert!(registered(&Bytes::from_static(b"x")).is_err());
}

#[test]
fn a_heartbeat_says_what_the_broker_wants() {
    let mut body = body(heartbeat(3, &[Uuid::from_u128(8)], (77, 1_000), (true, false), 9).unwrap(), 63, 1);
    let read = BrokerHeartbeatRequest::decode(&mut body, 1).unwrap();
    assert_eq!((read.broker_id.0, read.broker_epoch, read.current_metadata_offset), (3, 77, 1_000));
    assert_eq!((read.want_fence, read.want_shut_down), (true, false));
    assert_eq!(read.offline_log_dirs, [Uuid::from_u128(8)]);
    let answer = BrokerHeartbeatResponse::default().with_is_caught_up(true).with_is_fenced(false);
    let expected = HeartbeatAnswer { is_caught_up: true, is_fenced: false, should_shut_down: false };
    assert_eq!(beaten(&encoded(&answer, 1)), Ok(Ok(expected)));
    let stale = BrokerHeartbeatResponse::default().with_error_code(77);
    assert_eq!(beaten(&encoded(&stale, 1)), Ok(Err(ErrorCode::StaleBrokerEpoch)));
}

#[test]
fn replicas_of_a_directory_and_a_topic_stand_together() {
    let id = Uuid::from_u128;
    let replicas = BTreeMap::from([
        ((id(1), 0), id(800)),
        ((id(1), 1), id(900)),
        ((id(1), 2), id(800)),
        ((id(2), 0), id(800)),
    ]);
    let mut body = body(assign_replicas(3, 77, &replicas, 9).unwrap(), 73, 0);
    let read = AssignReplicasToDirsRequest::decode(&mut body, 0).unwrap();
    assert!(body.is_empty());
    assert_eq!((read.broker_id.0, read.broker_epoch), (3, 77));
    let told = read.directories.iter().flat_map(|directory| {
        let topics = directory.topics.iter();
        topics.map(|topic| {
            let indexes: Vec<i32> = topic.partitions.iter().map(|one| one.partition_index).collect();
            (directory.id.as_u128(), topic.topic_id.as_u128(), indexes)
        })
    });
    assert_eq!(told.collect::<Vec<_>>(), [(800, 1, vec![0, 2]), (800, 2, vec![0]), (900, 1, vec![1])]);

    use kafka_protocol::messages::assign_replicas_to_dirs_response as answered;
    let partition = answered::PartitionData::default().with_partition_index(2).with_error_code(6);
    let topic = answered::TopicData::default().with_topic_id(id(1));
    let topic = topic.with_partitions(vec![answered::PartitionData::default(), partition]);
    let directory = answered::DirectoryData::default().with_id(id(800)).with_topics(vec![topic]);
    let answer = AssignReplicasToDirsResponse::default().with_directories(vec![directory]);
    let expected = vec![(id(1), 0, Ok(())), (id(1), 2, Err(ErrorCode::NotLeaderOrFollower))];
    assert_eq!(assigned(&encoded(&answer, 0)), Ok(Ok(expected)));
    let stale = AssignReplicasToDirsResponse::default().with_error_code(77);
    assert_eq!(assigned(&encoded(&stale, 0)), Ok(Err(ErrorCode::StaleBrokerEpoch)));
    assert!(assigned(&Bytes::from_static(b"x")).is_err());
}

#[test]
fn isr_changes_of_a_topic_stand_together() {
    let change = |partition_epoch, recovery| IsrChange {
        leader_epoch: 4,
        partition_epoch,
        isr: smallvec![(1, 10), (2, -1)],
        recovery,
    };
    let id = Uuid::from_u128;
    let changes = BTreeMap::from([
        ((id(1), 0), change(6, LeaderRecovery::Recovered)),
        ((id(2), 3), change(7, LeaderRecovery::Recovering)),
        ((id(1), 5), change(8, LeaderRecovery::Recovered)),
    ]);
    let mut body = body(alter_partition(3, 77, &changes, 9).unwrap(), 56, 3);
    let read = AlterPartitionRequest::decode(&mut body, 3).unwrap();
    assert_eq!((read.broker_id.0, read.broker_epoch, read.topics.len()), (3, 77, 2));
    let partitions: Vec<_> = read.topics[0].partitions.iter().map(|p| p.partition_index).collect();
    assert_eq!((read.topics[0].topic_id, &partitions[..]), (id(1), &[0, 5][..]));
    let last = &read.topics[1].partitions[0];
    assert_eq!((last.leader_epoch, last.partition_epoch, last.leader_recovery_state), (4, 7, 1));
    let isr: Vec<_> = last.new_isr_with_epochs.iter().map(|s| (s.broker_id.0, s.broker_epoch)).collect();
    assert_eq!(isr, [(1, 10), (2, -1)]);

    let good = PartitionData::default()
        .with_partition_index(0)
        .with_leader_id(BrokerId(3))
        .with_leader_epoch(4)
        .with_partition_epoch(7)
        .with_isr(vec![BrokerId(3), BrokerId(2)]);
    let bad = PartitionData::default().with_partition_index(5).with_error_code(95);
    let topic = TopicData::default().with_topic_id(id(1)).with_partitions(vec![good, bad]);
    let answer = AlterPartitionResponse::default().with_topics(vec![topic]);
    let recovery = LeaderRecovery::Recovered;
    let state = IsrState { leader: 3, leader_epoch: 4, partition_epoch: 7, isr: smallvec![3, 2], recovery };
    let expected = vec![((id(1), 0), Ok(state)), ((id(1), 5), Err(ErrorCode::InvalidUpdateVersion))];
    assert_eq!(altered(&encoded(&answer, 3)), Ok(Ok(expected)));
    let refused = AlterPartitionResponse::default().with_error_code(41);
    assert_eq!(altered(&encoded(&refused, 3)), Ok(Err(ErrorCode::NotController)));
}

#[test]
fn an_envelope_carries_a_request_and_its_response_as_they_are() {
    for (version, client) in [(7, Some("me")), (4, Some("me")), (4, None)] {
        let mut frame = BytesMut::new();
        let mut writer = Writer::new(&mut frame, false);
        writer.i16(19);
        writer.i16(version);
        writer.i32(1234);
        writer.string_nullable(client);
        Writer::new(&mut frame, version >= 5).tags(0);
        frame.extend_from_slice(b"the body");
        let frame = frame.freeze();
        let (header, inner) = header::parse(&frame).unwrap();
        let forwarded = Forwarded::new(&header, &inner, Principal::Anonymous, IpAddr::from([10, 0, 0, 7]));
        assert_eq!(forwarded.request, frame, "byte for byte");
        let mut body = body(envelope(&forwarded, 9).unwrap(), 58, 0);
        let read = EnvelopeRequest::decode(&mut body, 0).unwrap();
        assert_eq!((&read.request_data, &read.client_host_address[..]), (&frame, &[10, 0, 0, 7][..]));
        assert_eq!(read.request_principal.as_deref(), Some(&b"\0\0\x05User\x0aANONYMOUS\0\0"[..]));
    }
    let answer = EnvelopeResponse::default().with_response_data(Some(Bytes::from_static(b"response")));
    assert_eq!(unwrapped(&encoded(&answer, 0)), Ok(Ok(Bytes::from_static(b"response"))));
    let refused = EnvelopeResponse::default().with_error_code(41);
    assert_eq!(unwrapped(&encoded(&refused, 0)), Ok(Err(ErrorCode::NotController)));
    let nothing = EnvelopeResponse::default().with_response_data(None);
    assert_eq!(unwrapped(&encoded(&nothing, 0)), Err(WireError::Null));
}

#[test]
fn blocks_of_ids_and_topics_are_asked_for_in_kafkas_words() {
    let mut ids = body(allocate(3, 77, 9).unwrap(), 67, 0);
    assert_eq!(AllocateProducerIdsRequest::decode(&mut ids, 0).unwrap().broker_epoch, 77);
    let block = AllocateProducerIdsResponse::default()
        .with_producer_id_start(ProducerId(5_000))
        .with_producer_id_len(1_000);
    let expected = ControllerAnswer::ProducerIds { first: 5_000, count: 1_000 };
    assert_eq!(allocated(&encoded(&block, 0)), Ok(expected));
    let refused = AllocateProducerIdsResponse::default().with_error_code(41);
    assert_eq!(allocated(&encoded(&refused, 0)), Ok(ControllerAnswer::Refused(ErrorCode::NotController)));

    let topic = NewTopic::with_defaults("orders".to_owned());
    let mut topics = body(create_topics(&[topic], 30_000, 9).unwrap(), 19, 7);
    let read = CreateTopicsRequest::decode(&mut topics, 7).unwrap();
    assert_eq!(
        (&**read.topics[0].name, read.topics[0].num_partitions, read.timeout_ms),
        ("orders", -1, 30_000)
    );
    let result = |code, name| {
        let result = CreatableTopicResult::default().with_name(TopicName(text(name)));
        result.with_error_code(code).with_num_partitions(3).with_replication_factor(2)
    };
    let answer =
        CreateTopicsResponse::default().with_topics(vec![result(0, "a"), result(36, "b"), result(17, "c")]);
    let ControllerAnswer::Topics(topics) = created_topics(&encoded(&answer, 7)).unwrap() else {
        panic!("topics")
    };
    let results: Vec<_> = topics.iter().map(|topic| topic.result.as_ref().map(|t| t.partitions)).collect();
    assert!(
        matches!(results[..], [Ok(3), Ok(3), Err(error)] if error.code == ErrorCode::InvalidTopicException)
    );
}
