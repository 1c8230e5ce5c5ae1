//! Fetch against the library: every version's request is read as it was written, and every
//! version's response is read back as it was meant.

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState};
use kafka_protocol::messages::{self, BrokerId, ResponseHeader, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable};
use uuid::Uuid;

use super::fetch::FetchRequest;
use super::fetch_response::{
    AbortedTransaction, EpochEnd, FetchPartitionResponse, FetchResponseHead, FetchResponseWriter,
};
use super::{CurrentLeader, ErrorCode, NodeEndpoint, StrBytes, TopicRef};

const ID: Uuid = Uuid::from_u128(0x1122_3344_5566_7788_99aa_bbcc_ddee_ff00);

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn partition(version: i16, index: i32) -> FetchPartition {
    let mut partition = FetchPartition::default()
        .with_partition(index)
        .with_fetch_offset(1 << 35)
        .with_partition_max_bytes(1 << 20);
    if version >= 5 {
        partition.log_start_offset = 11;
    }
    if version >= 9 {
        partition.current_leader_epoch = 6;
    }
    if version >= 12 {
        partition.last_fetched_epoch = 5;
        partition.unknown_tagged_fields.insert(40, Bytes::from_static(b"later"));
    }
    if version >= 17 {
        partition.replica_directory_id = ID;
    }
    if version >= 18 {
        partition.high_watermark = 1234;
    }
    partition
}

fn request(version: i16) -> messages::FetchRequest {
    let topic = |name, indexes: &[i32]| {
        let partitions = indexes.iter().map(|index| partition(version, *index)).collect();
        let topic = FetchTopic::default().with_partitions(partitions);
        if version >= 13 { topic.with_topic_id(ID) } else { topic.with_topic(TopicName(text(name))) }
    };
    let mut request = messages::FetchRequest::default()
        .with_max_wait_ms(500)
        .with_min_bytes(1)
        .with_max_bytes(50 << 20)
        .with_isolation_level(1)
        .with_topics(vec![topic("orders", &[0, 3]), topic("none", &[]), topic("payments", &[9])]);
    if version >= 7 {
        let gone = ForgottenTopic::default().with_partitions(vec![1, 2]);
        let gone =
            if version >= 13 { gone.with_topic_id(ID) } else { gone.with_topic(TopicName(text("old"))) };
        request = request.with_session_id(77).with_session_epoch(3).with_forgotten_topics_data(vec![gone]);
    }
    if version >= 11 {
        request.rack_id = text("rack-a");
    }
    if version >= 12 {
        request.cluster_id = Some(text("cluster"));
    }
    if version <= 14 {
        request.replica_id = BrokerId(4);
    } else {
        request.replica_state = ReplicaState::default().with_replica_id(BrokerId(4)).with_replica_epoch(21);
    }
    request
}

fn encoded(version: i16) -> Bytes {
    let mut buffer = BytesMut::new();
    request(version).encode(&mut buffer, version).unwrap();
    buffer.freeze()
}

#[test]
fn every_version_of_a_request_reads_what_the_library_wrote() {
    for version in 4..=18 {
        let parsed = FetchRequest::parse(encoded(version), version).unwrap();
        let expected = request(version);
        assert_eq!(parsed.replica_id, 4, "v{version}");
        assert_eq!(parsed.replica_epoch, expected.replica_state.replica_epoch);
        assert_eq!((parsed.max_wait_ms, parsed.min_bytes, parsed.max_bytes), (500, 1, 50 << 20));
        assert_eq!(parsed.isolation_level, 1);
        assert_eq!((parsed.session_id, parsed.session_epoch), (expected.session_id, expected.session_epoch));
        assert_eq!(parsed.rack_id(), expected.rack_id.as_str());
        assert_eq!(parsed.cluster_id(), expected.cluster_id.as_deref());
        assert_eq!((parsed.counts().topics, parsed.counts().partitions), (3, 3));
        for (topic, expected) in parsed.topics().zip(&expected.topics) {
            let name = if version >= 13 { TopicRef::Id(ID) } else { TopicRef::Name(expected.topic.as_str()) };
            assert_eq!(topic.topic, name);
            assert_eq!(topic.partitions.len(), expected.partitions.len());
            for (partition, expected) in topic.partitions.zip(&expected.partitions) {
                assert_eq!(partition.index, expected.partition);
                assert_eq!(partition.current_leader_epoch, expected.current_leader_epoch);
                assert_eq!(partition.fetch_offset, expected.fetch_offset);
                assert_eq!(partition.last_fetched_epoch, expected.last_fetched_epoch);
                assert_eq!(partition.log_start_offset, expected.log_start_offset);
                assert_eq!(partition.max_bytes, expected.partition_max_bytes);
                assert_eq!(partition.replica_directory_id, expected.replica_directory_id);
                assert_eq!(partition.high_watermark, expected.high_watermark);
            }
        }
        let forgotten: Vec<_> =
            parsed.forgotten().map(|topic| topic.partitions.collect::<Vec<_>>()).collect();
        assert_eq!(forgotten, if version >= 7 { vec![vec![1, 2]] } else { vec![] });
        assert_eq!(parsed.forgotten_counts().partitions, if version >= 7 { 2 } else { 0 });
    }
}

#[test]
fn a_cut_anywhere_is_refused_and_bytes_behind_are_ignored() {
    for version in 4..=18 {
        let body = encoded(version);
        for end in 0..body.len() {
            assert!(FetchRequest::parse(body.slice(..end), version).is_err(), "v{version} cut at {end}");
        }
        let longer: Bytes = [&body[..], &[0]].concat().into();
        assert!(FetchRequest::parse(longer, version).is_ok());
    }
}

#[test]
fn random_changes_are_refused_or_iterate_to_the_end_as_the_library_reads_them() {
    let mut random = fastrand::Rng::with_seed(8);
    let mut accepted = 0;
    for round in 0..40_000 {
        let version = random.i16(4..=18);
        let mut body = encoded(version).to_vec();
        for _ in 0..=round % 2 {
            let at = random.usize(..body.len());
            body[at] = [random.u8(..), 0, 0x7f, 0xff][random.usize(..4)];
        }
        let Ok(parsed) = FetchRequest::parse(body.clone().into(), version) else { continue };
        accepted += 1;
        let ours: Vec<_> =
            parsed.topics().flat_map(|topic| topic.partitions.map(|p| p.fetch_offset)).collect();
        let library = messages::FetchRequest::decode(&mut Bytes::from(body), version).unwrap();
        let theirs: Vec<_> =
            library.topics.iter().flat_map(|topic| topic.partitions.iter().map(|p| p.fetch_offset)).collect();
        assert_eq!(ours, theirs);
    }
    assert!(accepted > 10_000, "only {accepted} accepted: the test compares too little");
}

const FIRST: &[u8] = b"the records of the first partition";
const SECOND: [u8; 300] = [0xcd; 300];

/// Writes a response, puts the spans in at their cuts, and returns the frame.
fn respond(version: i16) -> Bytes {
    let mut buffer = BytesMut::from(&b"earlier"[..]);
    let name = |name| if version >= 13 { TopicRef::Id(ID) } else { TopicRef::Name(name) };
    let head = FetchResponseHead {
        throttle_time_ms: 3,
        error: Some(ErrorCode::FetchSessionIdNotFound),
        session_id: 8,
    };
    let mut writer = FetchResponseWriter::new(&mut buffer, version, 55, head, 2);
    writer.topic(name("orders"), 3);
    let full = FetchPartitionResponse {
        error: None,
        high_watermark: 100,
        last_stable_offset: 90,
        log_start_offset: 10,
        aborted_transactions: Some(&[AbortedTransaction { producer_id: 7, first_offset: 20 }]),
        preferred_read_replica: 2,
        diverging_epoch: Some(EpochEnd { epoch: 4, end_offset: 44 }),
        current_leader: Some(CurrentLeader { leader_id: 2, leader_epoch: 5 }),
        snapshot_id: Some(EpochEnd { epoch: 3, end_offset: 33 }),
        ..FetchPartitionResponse::error(0, ErrorCode::UnknownServerError)
    };
    let first = writer.partition(&full, FIRST.len() as u32);
    let error = FetchPartitionResponse::error(1, ErrorCode::OffsetOutOfRange);
    let empty = writer.partition(&error, 0);
    let uncommitted = FetchPartitionResponse { index: 2, aborted_transactions: None, ..full };
    writer.partition_inline(&uncommitted, b"inline");
    writer.topic(name("payments"), 1);
    let second = writer.partition(&FetchPartitionResponse { aborted_transactions: Some(&[]), ..full }, 300);
    let whole_bytes = writer.finish(&[NodeEndpoint { node_id: 2, host: "b", port: 9092, rack: Some("r") }]);

    let mut frame = BytesMut::new();
    let mut sent = 7;
    for (cut, span) in [(first, FIRST), (empty, &[]), (second, &SECOND)] {
        frame.extend_from_slice(&buffer[sent..cut]);
        frame.extend_from_slice(span);
        sent = cut;
    }
    frame.extend_from_slice(&buffer[sent..]);
    assert_eq!(whole_bytes, frame.len() as u64);
    frame.freeze()
}

#[test]
fn the_library_reads_every_version_of_a_response_back() {
    for version in 4..=18 {
        let mut frame = respond(version);
        assert_eq!(frame.get_i32() as usize, frame.len());
        let header = ResponseHeader::decode(&mut frame, if version >= 12 { 1 } else { 0 }).unwrap();
        assert_eq!(header.correlation_id, 55);
        let response = messages::FetchResponse::decode(&mut frame, version).unwrap();
        assert!(frame.is_empty(), "v{version}");
        assert_eq!(response.throttle_time_ms, 3);
        assert_eq!((response.error_code, response.session_id), if version >= 7 { (70, 8) } else { (0, 0) });
        let [orders, payments] = &response.responses[..] else { panic!("two topics") };
        assert_eq!(orders.topic.as_str(), if version >= 13 { "" } else { "orders" });
        assert_eq!(orders.topic_id, if version >= 13 { ID } else { Uuid::nil() });
        let [full, error, inline] = &orders.partitions[..] else { panic!("three partitions") };
        assert_eq!((full.partition_index, full.error_code), (0, 0));
        assert_eq!((full.high_watermark, full.last_stable_offset), (100, 90));
        assert_eq!(full.log_start_offset, if version >= 5 { 10 } else { -1 });
        let aborted = &full.aborted_transactions.as_ref().unwrap()[0];
        assert_eq!((aborted.producer_id.0, aborted.first_offset), (7, 20));
        assert_eq!(full.preferred_read_replica.0, if version >= 11 { 2 } else { -1 });
        assert_eq!(full.records.as_deref(), Some(FIRST));
        let flexible = version >= 12;
        let diverging = (full.diverging_epoch.epoch, full.diverging_epoch.end_offset);
        assert_eq!(diverging, if flexible { (4, 44) } else { (-1, -1) });
        let leader = (full.current_leader.leader_id.0, full.current_leader.leader_epoch);
        assert_eq!(leader, if flexible { (2, 5) } else { (-1, -1) });
        let snapshot = (full.snapshot_id.epoch, full.snapshot_id.end_offset);
        assert_eq!(snapshot, if flexible { (3, 33) } else { (-1, -1) });
        assert_eq!((error.error_code, error.high_watermark), (1, -1));
        assert_eq!(error.records.as_deref(), Some(&b""[..]), "empty, never null");
        assert_eq!(error.aborted_transactions.as_deref(), Some(&[][..]));
        assert_eq!(inline.aborted_transactions, None);
        assert_eq!(inline.records.as_deref(), Some(&b"inline"[..]));
        assert_eq!(payments.partitions[0].records.as_deref(), Some(&SECOND[..]));
        assert_eq!(payments.partitions[0].aborted_transactions.as_deref(), Some(&[][..]));
        assert_eq!(response.node_endpoints.len(), if version >= 16 { 1 } else { 0 });
    }
}
