//! Bytes from sockets: frames, headers, request bodies, record batches, compressed streams.

use bytes::{Bytes, BytesMut};
use fastrand::Rng;
use kafka_protocol::messages;
use kafka_protocol::messages::{
    AlterReplicaLogDirsRequest, ApiVersionsRequest, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteRecordsRequest, DeleteTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest,
    DescribeLogDirsRequest, DescribeProducersRequest, DescribeTopicPartitionsRequest, FindCoordinatorRequest,
    InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, OffsetForLeaderEpochRequest,
};
use tidemill::config::{CompressionType, TimestampType};
use tidemill::log::batch::BatchInfo;
use tidemill::log::check::{BatchRules, check};
use tidemill::log::codec::{Codec, Decompressor, compress};
use tidemill::log::record::Records;
use tidemill::wire::api::Listener;
use tidemill::wire::fetch::FetchRequest;
use tidemill::wire::guard::{Limits, decode};
use tidemill::wire::outbound::{JoinQuorum, RaftMessages};
use tidemill::wire::produce::ProduceRequest;
use tidemill::wire::{frame, header};
use uuid::Uuid;

use crate::batches::Arsenal;
use crate::body::{Target, World};
use crate::changed;
use crate::frames::Generator;

fn world() -> World {
    let target =
        |name: &str, partitions| Target { name: name.to_owned(), id: Uuid::from_u128(7), partitions };
    World {
        targets: vec![target("one", 1), target("three", 3)],
        passing: vec!["passing".to_owned()],
        arsenal: Arsenal { bombs: vec![Bytes::from_static(b"bomb")] },
    }
}

/// Frames of every API and version, most of them sound.
fn samples() -> Vec<Vec<u8>> {
    let world = world();
    let made = [(Listener::Client, 3_000), (Listener::Controller, 1_000)].map(|(door, count)| {
        let mut generator = Generator::new(&world, 11, door);
        (0..count).map(|id| generator.frame(id, false).bytes).collect::<Vec<_>>()
    });
    made.concat()
}

#[test]
fn frames_and_requests_are_read_or_refused() {
    changed("frame", &samples(), |bytes| {
        let mut buffer = BytesMut::from(bytes);
        while let Ok(Some(frame)) = frame::split(&mut buffer, 1 << 20) {
            let Ok((header, body)) = header::parse(&frame) else { continue };
            let (version, limits) = (header.version, Limits::default());
            match header.api.key as i16 {
                0 => drop(ProduceRequest::parse(body, version).map(|request| walk_produce(&request))),
                1 => drop(FetchRequest::parse(body, version).map(|request| walk_fetch(&request))),
                2 => drop(decode::<ListOffsetsRequest>(&body, version.min(10), limits)),
                3 => drop(decode::<MetadataRequest>(&body, version, limits)),
                10 => drop(decode::<FindCoordinatorRequest>(&body, version, limits)),
                18 if header.is_served() => drop(decode::<ApiVersionsRequest>(&body, version, limits)),
                19 => drop(decode::<CreateTopicsRequest>(&body, version, limits)),
                20 => drop(decode::<DeleteTopicsRequest>(&body, version, limits)),
                22 => drop(decode::<InitProducerIdRequest>(&body, version, limits)),
                23 => drop(decode::<OffsetForLeaderEpochRequest>(&body, version, limits)),
                32 => drop(decode::<DescribeConfigsRequest>(&body, version, limits)),
                21 => drop(decode::<DeleteRecordsRequest>(&body, version, limits)),
                34 => drop(decode::<AlterReplicaLogDirsRequest>(&body, version, limits)),
                35 => drop(decode::<DescribeLogDirsRequest>(&body, version, limits)),
                61 => drop(decode::<DescribeProducersRequest>(&body, version, limits)),
                37 => drop(decode::<CreatePartitionsRequest>(&body, version, limits)),
                60 => drop(decode::<DescribeClusterRequest>(&body, version, limits)),
                8 => drop(decode::<messages::OffsetCommitRequest>(&body, version, limits)),
                9 => drop(decode::<messages::OffsetFetchRequest>(&body, version, limits)),
                11 => drop(decode::<messages::JoinGroupRequest>(&body, version, limits)),
                12 => drop(decode::<messages::HeartbeatRequest>(&body, version, limits)),
                13 => drop(decode::<messages::LeaveGroupRequest>(&body, version, limits)),
                14 => drop(decode::<messages::SyncGroupRequest>(&body, version, limits)),
                15 => drop(decode::<messages::DescribeGroupsRequest>(&body, version, limits)),
                16 => drop(decode::<messages::ListGroupsRequest>(&body, version, limits)),
                42 => drop(decode::<messages::DeleteGroupsRequest>(&body, version, limits)),
                47 => drop(decode::<messages::OffsetDeleteRequest>(&body, version, limits)),
                29 => drop(decode::<messages::DescribeAclsRequest>(&body, version, limits)),
                30 => drop(decode::<messages::CreateAclsRequest>(&body, version, limits)),
                31 => drop(decode::<messages::DeleteAclsRequest>(&body, version, limits)),
                33 => drop(decode::<messages::AlterConfigsRequest>(&body, version, limits)),
                43 => drop(decode::<messages::ElectLeadersRequest>(&body, version, limits)),
                44 => drop(decode::<messages::IncrementalAlterConfigsRequest>(&body, version, limits)),
                45 => drop(decode::<messages::AlterPartitionReassignmentsRequest>(&body, version, limits)),
                46 => drop(decode::<messages::ListPartitionReassignmentsRequest>(&body, version, limits)),
                48 => drop(decode::<messages::DescribeClientQuotasRequest>(&body, version, limits)),
                49 => drop(decode::<messages::AlterClientQuotasRequest>(&body, version, limits)),
                50 => drop(decode::<messages::DescribeUserScramCredentialsRequest>(&body, version, limits)),
                55 => drop(decode::<messages::DescribeQuorumRequest>(&body, version, limits)),
                56 => drop(decode::<messages::AlterPartitionRequest>(&body, version, limits)),
                58 => drop(decode::<messages::EnvelopeRequest>(&body, version, limits)),
                62 => drop(decode::<messages::BrokerRegistrationRequest>(&body, version, limits)),
                63 => drop(decode::<messages::BrokerHeartbeatRequest>(&body, version, limits)),
                67 => drop(decode::<messages::AllocateProducerIdsRequest>(&body, version, limits)),
                1001 => drop(JoinQuorum::parse(&body)),
                1000 => drop(RaftMessages::parse(&body).map(|mail| walk_raft(&mail))),
                80 => drop(decode::<messages::AddRaftVoterRequest>(&body, version, limits)),
                82 => drop(decode::<messages::UpdateRaftVoterRequest>(&body, version, limits)),
                81 => drop(decode::<messages::RemoveRaftVoterRequest>(&body, version, limits)),
                57 => drop(decode::<messages::UpdateFeaturesRequest>(&body, version, limits)),
                64 => drop(decode::<messages::UnregisterBrokerRequest>(&body, version, limits)),
                68 => drop(decode::<messages::ConsumerGroupHeartbeatRequest>(&body, version, limits)),
                69 => drop(decode::<messages::ConsumerGroupDescribeRequest>(&body, version, limits)),
                73 => drop(decode::<messages::AssignReplicasToDirsRequest>(&body, version, limits)),
                74 => drop(decode::<messages::ListConfigResourcesRequest>(&body, version, limits)),
                75 => drop(decode::<DescribeTopicPartitionsRequest>(&body, version, limits)),
                18 => {}
                key => panic!("tests/fuzz/wires.rs reads no body of API {key}: add it"),
            }
        }
    });
}

fn walk_produce(request: &ProduceRequest) -> usize {
    request.transactional_id().map_or(0, str::len)
        + request
            .topics()
            .flat_map(|topic| topic.partitions)
            .map(|one| one.records.map_or(0, |records| records.len()))
            .sum::<usize>()
}

/// How many of the messages raft would look at.
fn walk_raft(mail: &RaftMessages) -> usize {
    let sound = |message: &&Bytes| tidemill::controller::quorum::codec::decode(message).is_ok();
    mail.messages.iter().filter(sound).count()
}

fn walk_fetch(request: &FetchRequest) -> usize {
    request.topics().flat_map(|topic| topic.partitions).count()
}

fn rules(compression_type: CompressionType) -> BatchRules {
    BatchRules {
        produce_version: 9,
        max_message_bytes: 1 << 20,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: 3_600_000,
        compacted: false,
        compression_type,
    }
}

#[test]
fn batches_are_checked_and_what_passes_is_whole() {
    let (arsenal, mut rng) = (world().arsenal, Rng::with_seed(5));
    let sound = |rng: &mut Rng| arsenal.sound(rng).to_vec();
    let mut samples: Vec<Vec<u8>> = (0..200).map(|_| sound(&mut rng)).collect();
    samples.extend((0..400).filter_map(|_| arsenal.hostile(&mut rng)).map(|batch| batch.to_vec()));
    let types = [CompressionType::Producer, CompressionType::None, CompressionType::Lz4(9)];
    changed("batch", &samples, |bytes| {
        for compression_type in types {
            let mut bytes = bytes.to_vec();
            // A checksum that holds lets the check look behind it.
            for sealed in [false, true] {
                if sealed && bytes.len() > 21 {
                    let sum = tidemill::log::batch::crc(&bytes[21..]);
                    bytes[17..21].copy_from_slice(&sum.to_be_bytes());
                }
                let Ok(checked) = check(bytes.clone().into(), &rules(compression_type), 2_000) else {
                    continue;
                };
                let info = BatchInfo::parse(&checked.bytes).unwrap();
                assert_eq!(info.length_bytes as usize, checked.bytes.len());
                assert!(tidemill::log::batch::crc_holds(&checked.bytes, &info));
                assert_eq!(info.record_count, checked.info.record_count);
            }
        }
    });
}

#[test]
fn records_end_where_their_bytes_do() {
    let mut rng = Rng::with_seed(6);
    let arsenal = world().arsenal;
    let samples: Vec<Vec<u8>> = (0..200).map(|_| arsenal.sound(&mut rng)[61..].to_vec()).collect();
    changed("records", &samples, |bytes| {
        for record in Records::new(bytes) {
            let Ok(record) = record else { break };
            assert!(record.headers().count() <= bytes.len());
        }
    });
}

#[test]
fn compressed_streams_stay_within_the_limit() {
    const LIMIT_BYTES: u64 = 1 << 20;
    let text: Vec<u8> = (0..5_000_u32).flat_map(|n| (n / 7).to_be_bytes()).collect();
    let packed = |codec| {
        let mut out = Vec::new();
        compress(codec, None, &text, &mut out);
        out
    };
    let mut decompressor = Decompressor::default();
    for codec in Codec::ALL {
        changed("stream", &[packed(codec)], |bytes| {
            if let Ok(out) = decompressor.decompress(codec, bytes, LIMIT_BYTES) {
                assert!(out.len() as u64 <= LIMIT_BYTES);
            }
        });
    }
}
