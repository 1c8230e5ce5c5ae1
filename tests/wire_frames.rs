//! Recorded frames of real clients and of Apache Kafka 4.3.1 (`tests/fixtures/wire/README.md`) go
//! through the wire module and come out the same, byte for byte.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, Message, Request};
use tidemill::wire::api::ApiKey;
use tidemill::wire::fetch::FetchRequest as FetchView;
use tidemill::wire::fetch_response::{
    AbortedTransaction, FetchPartitionResponse, FetchResponseHead, FetchResponseWriter,
};
use tidemill::wire::header::{self, RequestHeader};
use tidemill::wire::produce::ProduceRequest as ProduceView;
use tidemill::wire::produce_response::{ProducePartitionResponse, ProduceResponseWriter};
use tidemill::wire::{ErrorCode, TopicRef, beyond, frame, guard, response};

/// Every recorded exchange: name, request frame and response frame, with their prefixes.
fn exchanges() -> Vec<(String, Bytes, Bytes)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wire");
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let requests = paths.iter().filter_map(|path| path.file_name()?.to_str()?.strip_suffix("-request.bin"));
    let read = |name: String| Bytes::from(fs::read(folder.join(name)).unwrap());
    requests
        .map(|name| {
            (name.to_owned(), read(format!("{name}-request.bin")), read(format!("{name}-response.bin")))
        })
        .collect()
}

fn parse(name: &str, request: &Bytes) -> (RequestHeader, Bytes) {
    let mut buffer = BytesMut::from(&request[..]);
    let frame = frame::split(&mut buffer, 1 << 20).unwrap().unwrap();
    assert!(buffer.is_empty(), "{name}");
    let (header, body) = header::parse(&frame).unwrap();
    assert!(header.is_served(), "{name}");
    (header, body)
}

/// The clients whose frames are recorded, by the beginning of their client ids.
const CLIENTS: [&str; 4] = ["java", "python", "librdkafka", "kafkajs"];

/// What a client does not have.
fn is_lacking(client: &str, key: ApiKey) -> bool {
    use ApiKey::*;
    let consumer_protocol = matches!(key, ConsumerGroupHeartbeat | ConsumerGroupDescribe);
    let newest = matches!(key, DescribeProducers | DescribeQuorum | UpdateFeatures | DescribeTopicPartitions);
    match client {
        // Its AlterConfigs went with 4.0.
        "java" => key == AlterConfigs,
        "python" => consumer_protocol,
        "librdkafka" => {
            let no_calls = matches!(key, DescribeLogDirs | ListPartitionReassignments | OffsetDelete);
            newest || no_calls || matches!(key, ListConfigResources | DescribeCluster)
        }
        // Of what it has by other means the round trip was not recorded.
        _ => {
            let round_trip = matches!(
                key,
                Produce | Fetch | Metadata | ApiVersions | InitProducerId | OffsetForLeaderEpoch
            );
            let no_calls =
                matches!(key, DescribeLogDirs | ElectLeaders | OffsetDelete | IncrementalAlterConfigs);
            newest
                || consumer_protocol
                || round_trip
                || no_calls
                || matches!(key, ListConfigResources | DescribeCluster)
        }
    }
}

/// What no client sends that was recorded.
const NOT_RECORDED: [ApiKey; 20] = [
    ApiKey::OffsetForLeaderEpoch,
    ApiKey::CreateAcls,
    ApiKey::DeleteAcls,
    ApiKey::AlterReplicaLogDirs,
    ApiKey::AlterPartitionReassignments,
    ApiKey::DescribeClientQuotas,
    ApiKey::AlterClientQuotas,
    ApiKey::DescribeUserScramCredentials,
    ApiKey::UnregisterBroker,
    // What nodes of a cluster say to each other.
    ApiKey::AlterPartition,
    ApiKey::Envelope,
    ApiKey::BrokerRegistration,
    ApiKey::BrokerHeartbeat,
    ApiKey::AllocateProducerIds,
    ApiKey::AssignReplicasToDirs,
    ApiKey::RaftMessages,
    ApiKey::JoinQuorum,
    // A quorum with fixed voters refuses them.
    ApiKey::AddRaftVoter,
    ApiKey::RemoveRaftVoter,
    // Only a voter says where it is reached.
    ApiKey::UpdateRaftVoter,
];

#[test]
fn every_api_and_client_is_recorded() {
    let exchanges = exchanges();
    let mut found = std::collections::BTreeSet::new();
    for (name, request, _) in &exchanges {
        let (header, _) = parse(name, request);
        let id = header.client_id.unwrap().to_string();
        let client =
            CLIENTS.into_iter().find(|client| id.trim_start_matches("consumer-").starts_with(client));
        found.insert((client.unwrap_or_else(|| panic!("{name} is of {id}")), header.api.key));
    }
    let mut wrong = Vec::new();
    for api in tidemill::wire::api::TABLE.iter().filter(|api| !NOT_RECORDED.contains(&api.key)) {
        for client in CLIENTS {
            if found.contains(&(client, api.key)) == is_lacking(client, api.key) {
                wrong.push((client, api.name));
            }
        }
    }
    assert!(wrong.is_empty(), "recorded and not said, or said and not recorded: {wrong:?}");
    let newest = |key: ApiKey, version| {
        let of = |(name, request, _): &(String, Bytes, Bytes)| parse(name, request).0;
        exchanges.iter().map(of).any(|header| header.api.key == key && header.version == version)
    };
    for api in tidemill::wire::api::TABLE.iter() {
        let version = beyond::version(api.key);
        assert!(version.is_none_or(|version| newest(api.key, version)), "{} {version:?}", api.name);
    }
}

/// Calls a macro with every API that the library decodes, its request and its response.
macro_rules! controls {
    ($then:ident) => {
        $then! {
            ListOffsets ListOffsetsRequest ListOffsetsResponse, Metadata MetadataRequest MetadataResponse,
            OffsetCommit OffsetCommitRequest OffsetCommitResponse, OffsetFetch OffsetFetchRequest OffsetFetchResponse,
            FindCoordinator FindCoordinatorRequest FindCoordinatorResponse,
            JoinGroup JoinGroupRequest JoinGroupResponse, SyncGroup SyncGroupRequest SyncGroupResponse,
            Heartbeat HeartbeatRequest HeartbeatResponse, LeaveGroup LeaveGroupRequest LeaveGroupResponse,
            DescribeGroups DescribeGroupsRequest DescribeGroupsResponse,
            ListGroups ListGroupsRequest ListGroupsResponse,
            DeleteGroups DeleteGroupsRequest DeleteGroupsResponse,
            OffsetDelete OffsetDeleteRequest OffsetDeleteResponse,
            ConsumerGroupHeartbeat ConsumerGroupHeartbeatRequest ConsumerGroupHeartbeatResponse,
            ConsumerGroupDescribe ConsumerGroupDescribeRequest ConsumerGroupDescribeResponse,
            ApiVersions ApiVersionsRequest ApiVersionsResponse, CreateTopics CreateTopicsRequest CreateTopicsResponse,
            DeleteTopics DeleteTopicsRequest DeleteTopicsResponse,
            DeleteRecords DeleteRecordsRequest DeleteRecordsResponse,
            InitProducerId InitProducerIdRequest InitProducerIdResponse,
            DescribeAcls DescribeAclsRequest DescribeAclsResponse,
            DescribeConfigs DescribeConfigsRequest DescribeConfigsResponse,
            AlterConfigs AlterConfigsRequest AlterConfigsResponse,
            IncrementalAlterConfigs IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse,
            DescribeLogDirs DescribeLogDirsRequest DescribeLogDirsResponse,
            CreatePartitions CreatePartitionsRequest CreatePartitionsResponse,
            ElectLeaders ElectLeadersRequest ElectLeadersResponse,
            ListPartitionReassignments ListPartitionReassignmentsRequest ListPartitionReassignmentsResponse,
            DescribeQuorum DescribeQuorumRequest DescribeQuorumResponse,
            UpdateFeatures UpdateFeaturesRequest UpdateFeaturesResponse,
            DescribeCluster DescribeClusterRequest DescribeClusterResponse,
            DescribeProducers DescribeProducersRequest DescribeProducersResponse,
            ListConfigResources ListConfigResourcesRequest ListConfigResourcesResponse,
            DescribeTopicPartitions DescribeTopicPartitionsRequest DescribeTopicPartitionsResponse
        }
    };
}

fn request_comes_back<T: Decodable + Encodable + Message + Request>(name: &str, body: Bytes, version: i16) {
    let key = tidemill::wire::api::find(T::KEY).unwrap().key;
    let library = beyond::request(key, version, body.clone()).unwrap();
    let decoded: T = guard::decode(&library, version, guard::Limits::default()).unwrap();
    let mut encoded = BytesMut::new();
    beyond::encode_request(&mut encoded, version, &decoded).unwrap();
    assert_eq!(encoded, body, "{name}");
}

#[test]
fn control_requests_pass_the_guard_and_encode_to_the_same_bytes() {
    for (name, request, _) in exchanges() {
        let (header, body) = parse(&name, &request);
        macro_rules! go {
            ($($key:ident $request:ident $response:ident),*) => {
                match header.api.key {
                    ApiKey::Produce | ApiKey::Fetch => {}
                    $(ApiKey::$key => request_comes_back::<$request>(&name, body, header.version),)*
                    other => panic!("{name} is of {other:?}, which is not recorded"),
                }
            };
        }
        controls!(go);
    }
}

/// The body of a recorded response, after its header.
fn response_body(header: &RequestHeader, response: &Bytes) -> Bytes {
    let mut start = BytesMut::new();
    header::begin_response(&mut start, header.api, header.version, header.correlation_id);
    assert_eq!(response[4..start.len()], start[4..], "the response header");
    response.slice(start.len()..)
}

fn response_comes_back<T: Encodable + Decodable>(name: &str, header: &RequestHeader, recorded: &Bytes) {
    let key = header.api.key;
    let (mut body, version) = beyond::response(key, header.version, response_body(header, recorded)).unwrap();
    let decoded = T::decode(&mut body, version).unwrap();
    assert!(body.is_empty(), "{name}");
    let mut encoded = BytesMut::new();
    response::encode(&mut encoded, key, header.version, header.correlation_id, &decoded).unwrap();
    assert_eq!(encoded, recorded, "{name}");
}

#[test]
fn control_responses_encode_to_the_bytes_that_kafka_sent() {
    for (name, request, recorded) in exchanges() {
        let (header, _) = parse(&name, &request);
        macro_rules! go {
            ($($key:ident $request:ident $response:ident),*) => {
                match header.api.key {
                    ApiKey::Produce | ApiKey::Fetch => {}
                    $(ApiKey::$key => response_comes_back::<$response>(&name, &header, &recorded),)*
                    other => panic!("{name} is of {other:?}, which is not recorded"),
                }
            };
        }
        controls!(go);
    }
}

fn topic_ref(by_id: bool, name: &str, id: uuid::Uuid) -> TopicRef<'_> {
    if by_id { TopicRef::Id(id) } else { TopicRef::Name(name) }
}

#[test]
fn produce_requests_read_as_the_library_reads_them() {
    for (name, request, _) in exchanges() {
        let (header, body) = parse(&name, &request);
        if header.api.key != ApiKey::Produce {
            continue;
        }
        let ours = ProduceView::parse(body.clone(), header.version).unwrap();
        let library = ProduceRequest::decode(&mut body.clone(), header.version).unwrap();
        assert_eq!(
            ours.transactional_id(),
            library.transactional_id.as_ref().map(|id| id.as_str()),
            "{name}"
        );
        assert_eq!((ours.acks, ours.timeout_ms), (library.acks, library.timeout_ms));
        assert_eq!(ours.topics().len(), library.topic_data.len());
        for (ours, library) in ours.topics().zip(&library.topic_data) {
            assert_eq!(ours.topic, topic_ref(header.version >= 13, &library.name, library.topic_id));
            assert_eq!(ours.partitions.len(), library.partition_data.len());
            for (ours, library) in ours.partitions.zip(&library.partition_data) {
                assert_eq!(ours.index, library.index);
                assert_eq!(ours.records, library.records);
                // Magic 2 in the batch header: these are records, not a shifted slice.
                assert_eq!(ours.records.unwrap()[16], 2, "{name}");
            }
        }
    }
}

#[test]
fn fetch_requests_read_as_the_library_reads_them() {
    for (name, request, _) in exchanges() {
        let (header, body) = parse(&name, &request);
        if header.api.key != ApiKey::Fetch {
            continue;
        }
        let ours = FetchView::parse(body.clone(), header.version).unwrap();
        let library = FetchRequest::decode(&mut body.clone(), header.version).unwrap();
        assert_eq!(ours.replica_id, -1, "{name}");
        assert_eq!((ours.max_wait_ms, ours.min_bytes), (library.max_wait_ms, library.min_bytes));
        assert_eq!((ours.max_bytes, ours.isolation_level), (library.max_bytes, library.isolation_level));
        assert_eq!((ours.session_id, ours.session_epoch), (library.session_id, library.session_epoch));
        assert_eq!((ours.rack_id(), ours.cluster_id()), (library.rack_id.as_str(), None));
        assert_eq!(ours.forgotten().len(), library.forgotten_topics_data.len());
        assert_eq!(ours.topics().len(), library.topics.len());
        assert!(ours.counts().partitions > 0, "{name}");
        for (ours, library) in ours.topics().zip(&library.topics) {
            assert_eq!(ours.topic, topic_ref(header.version >= 13, &library.topic, library.topic_id));
            assert_eq!(ours.partitions.len(), library.partitions.len());
            for (ours, library) in ours.partitions.zip(&library.partitions) {
                assert_eq!((ours.index, ours.fetch_offset), (library.partition, library.fetch_offset));
                assert_eq!(ours.current_leader_epoch, library.current_leader_epoch);
                assert_eq!(ours.last_fetched_epoch, library.last_fetched_epoch);
                assert_eq!(ours.log_start_offset, library.log_start_offset);
                assert_eq!(ours.max_bytes, library.partition_max_bytes);
            }
        }
    }
}

#[test]
fn produce_responses_are_written_as_kafka_wrote_them() {
    for (name, request, recorded) in exchanges() {
        let (header, _) = parse(&name, &request);
        if header.api.key != ApiKey::Produce {
            continue;
        }
        let version = header.version;
        let library = ProduceResponse::decode(&mut response_body(&header, &recorded), version).unwrap();
        let mut buffer = BytesMut::new();
        let topics_count = library.responses.len() as u32;
        let mut writer =
            ProduceResponseWriter::new(&mut buffer, version, header.correlation_id, topics_count);
        for topic in &library.responses {
            let partitions_count = topic.partition_responses.len() as u32;
            writer.topic(topic_ref(version >= 13, &topic.name, topic.topic_id), partitions_count);
            for partition in &topic.partition_responses {
                writer.partition(&ProducePartitionResponse {
                    index: partition.index,
                    error: ErrorCode::try_from_code(partition.error_code),
                    base_offset: partition.base_offset,
                    log_append_time_ms: partition.log_append_time_ms,
                    log_start_offset: partition.log_start_offset,
                    record_errors: &[],
                    error_message: partition.error_message.as_deref(),
                    current_leader: None,
                });
            }
        }
        writer.finish(library.throttle_time_ms, &[]);
        assert_eq!(buffer, recorded, "{name}");
    }
}

#[test]
fn fetch_responses_with_their_spans_put_in_are_what_kafka_sent() {
    for (name, request, recorded) in exchanges() {
        let (header, _) = parse(&name, &request);
        if header.api.key != ApiKey::Fetch {
            continue;
        }
        let version = header.version;
        let library = FetchResponse::decode(&mut response_body(&header, &recorded), version).unwrap();
        let (mut buffer, mut spans) = (BytesMut::new(), Vec::new());
        let head = FetchResponseHead {
            throttle_time_ms: library.throttle_time_ms,
            error: ErrorCode::try_from_code(library.error_code),
            session_id: library.session_id,
        };
        let topics_count = library.responses.len() as u32;
        let mut writer =
            FetchResponseWriter::new(&mut buffer, version, header.correlation_id, head, topics_count);
        for topic in &library.responses {
            let partitions_count = topic.partitions.len() as u32;
            writer.topic(topic_ref(version >= 13, &topic.topic, topic.topic_id), partitions_count);
            for partition in &topic.partitions {
                let aborted = partition.aborted_transactions.as_ref().map(|aborted| {
                    let aborted = aborted.iter().map(|aborted| AbortedTransaction {
                        producer_id: aborted.producer_id.0,
                        first_offset: aborted.first_offset,
                    });
                    aborted.collect::<Vec<_>>()
                });
                let fields = FetchPartitionResponse {
                    index: partition.partition_index,
                    error: ErrorCode::try_from_code(partition.error_code),
                    high_watermark: partition.high_watermark,
                    last_stable_offset: partition.last_stable_offset,
                    log_start_offset: partition.log_start_offset,
                    aborted_transactions: aborted.as_deref(),
                    preferred_read_replica: partition.preferred_read_replica.0,
                    diverging_epoch: None,
                    current_leader: None,
                    snapshot_id: None,
                };
                let records = partition.records.clone().expect("Kafka sends no null records");
                spans.push((writer.partition(&fields, records.len() as u32), records));
            }
        }
        let whole_bytes = writer.finish(&[]);
        assert_eq!(whole_bytes, recorded.len() as u64, "{name}");
        let (mut frame, mut sent) = (BytesMut::new(), 0);
        for (cut, records) in spans {
            frame.extend_from_slice(&buffer[sent..cut]);
            frame.extend_from_slice(&records);
            sent = cut;
        }
        frame.extend_from_slice(&buffer[sent..]);
        assert_eq!(frame, recorded, "{name}");
        assert!(frame.remaining() > 100, "{name} holds no records");
    }
}
