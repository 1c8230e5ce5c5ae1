//! Decodes control requests with kafka-protocol, which on its own can be made to abort the process:
//! it reserves memory for any array length it reads.
//!
//! Every request is decoded twice. The first pass reads from [`Checked`], in which a length that the
//! bytes cannot hold leads to an error before it leads to memory:
//!
//! - an INT32 reads as at most the bytes left plus one, so an array with a false length runs out of
//!   bytes while it is read (a plain integer reads wrong, which nothing depends on);
//! - an UNSIGNED_VARINT is followed byte by byte and refused beyond the bytes left (a compact length
//!   is one more than what it counts, and a tag number may be anything small) or beyond 32 bits.
//!
//! A first pass without an error has seen every length come true. The second pass then decodes from
//! the plain bytes. The first pass also bounds what the decoded request takes in memory, so that the
//! caller can admit it for its cost.

use bytes::{Buf, Bytes, TryGetError};
use kafka_protocol::protocol::buf::ByteBuf;
use kafka_protocol::protocol::{Decodable, Message};

use super::{WireError, beyond};

/// The memory that one decoded request may take, unless the caller says otherwise.
pub const MEMORY_LIMIT_BYTES: usize = 64 * 1024 * 1024;

/// A varint may exceed the bytes left by this much: tag numbers are small and count nothing.
const VARINT_SLACK: u64 = 128;

/// What one read is charged. A decoded field takes at most 32 bytes; the most expensive bytes on
/// the wire are a struct's single tagged field, whose three reads (tag, length, bytes) and the count
/// before it bring a B-tree node of about 450 bytes.
pub(super) const READ_COST_BYTES: usize = 128;

/// How much a decoded request may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory.
    pub memory_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: MEMORY_LIMIT_BYTES }
    }
}

/// Decodes a request body; one of a version that the library lacks has passed [`beyond::request`]. Bytes behind
/// its last field are ignored, as in Kafka: librdkafka sends three behind a Metadata request for all topics.
pub fn decode<T: Decodable + Message>(body: &Bytes, version: i16, limits: Limits) -> Result<T, WireError> {
    decode_measured(body, version, limits).map(|(request, _)| request)
}

/// Decodes a whole request body, and gives an upper bound of the bytes of memory it takes.
pub fn decode_measured<T: Decodable + Message>(
    body: &Bytes,
    version: i16,
    limits: Limits,
) -> Result<(T, usize), WireError> {
    let memory_bytes = measure::<T>(body, version, limits)?;
    let mut bytes = body.clone();
    let request =
        T::decode(&mut bytes, beyond::decoded_version::<T>(version)).map_err(|_| WireError::Malformed)?;
    Ok((request, memory_bytes))
}

/// The first pass alone: checks every length of a request body, and gives an upper bound of the
/// bytes of memory that decoding it takes.
pub fn measure<T: Decodable + Message>(
    body: &Bytes,
    version: i16,
    limits: Limits,
) -> Result<usize, WireError> {
    let mut checked = Checked {
        bytes: body.clone(),
        varint: 0,
        varint_shift: 0,
        memory_bytes: 0,
        limit_bytes: limits.memory_bytes,
    };
    let decoded = T::decode(&mut checked, beyond::decoded_version::<T>(version));
    if checked.memory_bytes > limits.memory_bytes {
        return Err(WireError::TooCostly { limit_bytes: limits.memory_bytes });
    }
    decoded.map_err(|_| WireError::Malformed)?;
    Ok(checked.memory_bytes)
}

/// The buffer of the first pass.
struct Checked {
    bytes: Bytes,
    /// The varint read so far. A boolean with its high bit set starts one too, which makes the value
    /// of a varint after it larger than it is: the check gets stricter, never looser.
    varint: u64,
    varint_shift: u32,
    memory_bytes: usize,
    limit_bytes: usize,
}

impl Checked {
    fn charge(&mut self) -> Result<(), TryGetError> {
        self.memory_bytes += READ_COST_BYTES;
        if self.memory_bytes > self.limit_bytes { Err(self.refusal()) } else { Ok(()) }
    }

    fn refusal(&self) -> TryGetError {
        TryGetError { requested: usize::MAX, available: self.bytes.len() }
    }
}

impl Buf for Checked {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn try_get_u8(&mut self) -> Result<u8, TryGetError> {
        let byte = self.bytes.try_get_u8()?;
        self.varint |= u64::from(byte & 0x7f) << self.varint_shift;
        if byte >= 0x80 {
            self.varint_shift += 7;
            return if self.varint_shift > 28 { Err(self.refusal()) } else { Ok(byte) };
        }
        let value = std::mem::take(&mut self.varint);
        self.varint_shift = 0;
        if value > self.bytes.len() as u64 + VARINT_SLACK {
            return Err(self.refusal());
        }
        self.charge()?;
        Ok(byte)
    }

    fn try_get_i16(&mut self) -> Result<i16, TryGetError> {
        self.charge()?;
        self.bytes.try_get_i16()
    }

    fn try_get_i32(&mut self) -> Result<i32, TryGetError> {
        self.charge()?;
        let value = self.bytes.try_get_i32()?;
        let possible = i32::try_from(self.bytes.len() + 1).unwrap_or(i32::MAX);
        Ok(value.min(possible))
    }

    fn try_get_i64(&mut self) -> Result<i64, TryGetError> {
        self.charge()?;
        self.bytes.try_get_i64()
    }
}

impl ByteBuf for Checked {
    fn peek_bytes(&mut self, range: std::ops::Range<usize>) -> Bytes {
        self.bytes.slice(range)
    }

    fn get_bytes(&mut self, size: usize) -> Bytes {
        self.memory_bytes += READ_COST_BYTES;
        self.bytes.split_to(size)
    }
}

#[cfg(test)]
mod group_samples;

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::messages;
    use kafka_protocol::messages::alter_replica_log_dirs_request::{
        AlterReplicaLogDir, AlterReplicaLogDirTopic,
    };
    use kafka_protocol::messages::create_partitions_request::{
        CreatePartitionsAssignment, CreatePartitionsTopic,
    };
    use kafka_protocol::messages::create_topics_request::{
        CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
    };
    use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
    use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
    use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
    use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
    use kafka_protocol::messages::describe_producers_request::TopicRequest as ProducersTopic;
    use kafka_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
    use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
    use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
    use kafka_protocol::messages::offset_for_leader_epoch_request::{
        OffsetForLeaderPartition, OffsetForLeaderTopic,
    };
    use kafka_protocol::messages::{
        AlterReplicaLogDirsRequest, ApiVersionsRequest, BrokerId, CreatePartitionsRequest,
        CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest, DescribeClusterRequest,
        DescribeConfigsRequest, DescribeLogDirsRequest, DescribeProducersRequest,
        DescribeTopicPartitionsRequest, FetchRequest, FindCoordinatorRequest, InitProducerIdRequest,
        ListOffsetsRequest, MetadataRequest, OffsetForLeaderEpochRequest, ProduceRequest, TopicName,
    };
    use kafka_protocol::protocol::Encodable;

    use super::super::StrBytes;
    use super::super::api::{ApiKey, TABLE};
    use super::super::outbound::{JoinQuorum, RaftMessages};
    use super::*;

    fn name(text: &'static str) -> TopicName {
        TopicName(StrBytes::from_static_str(text))
    }

    fn encoded<T: Encodable + Message>(request: &T, version: i16) -> Bytes {
        let mut buffer = BytesMut::new();
        request.encode(&mut buffer, beyond::decoded_version::<T>(version)).unwrap();
        buffer.freeze()
    }

    /// A populated body of a served request, or `None` where the wire views decode it.
    fn sample(key: ApiKey, version: i16) -> Option<Bytes> {
        let text = StrBytes::from_static_str;
        Some(match key {
            ApiKey::Produce | ApiKey::Fetch => return None,
            ApiKey::ListOffsets => {
                let partition = ListOffsetsPartition::default().with_partition_index(1).with_timestamp(-2);
                let topic = ListOffsetsTopic::default()
                    .with_name(name("orders"))
                    .with_partitions(vec![partition.clone(), partition]);
                encoded(&ListOffsetsRequest::default().with_topics(vec![topic]), version)
            }
            ApiKey::Metadata => {
                let topic = |text| MetadataRequestTopic::default().with_name(Some(name(text)));
                let topics = Some(vec![topic("orders"), topic("payments")]);
                encoded(&MetadataRequest::default().with_topics(topics), version)
            }
            ApiKey::FindCoordinator => {
                let request = FindCoordinatorRequest::default();
                let keys = vec![text("group"), text("other")];
                let request = if version >= 4 {
                    request.with_coordinator_keys(keys)
                } else {
                    request.with_key(text("group"))
                };
                encoded(&request, version)
            }
            ApiKey::ApiVersions => {
                let request = ApiVersionsRequest::default();
                let named = request.clone().with_client_software_name(text("librdkafka"));
                encoded(if version >= 3 { &named } else { &request }, version)
            }
            ApiKey::CreateTopics => {
                let assignment =
                    CreatableReplicaAssignment::default().with_broker_ids(vec![BrokerId(1), BrokerId(2)]);
                let config = CreatableTopicConfig::default()
                    .with_name(text("cleanup.policy"))
                    .with_value(Some(text("compact")));
                let topic = CreatableTopic::default()
                    .with_name(name("orders"))
                    .with_num_partitions(-1)
                    .with_assignments(vec![assignment])
                    .with_configs(vec![config]);
                let request = CreateTopicsRequest::default().with_topics(vec![topic]);
                encoded(&request.with_timeout_ms(30_000), version)
            }
            ApiKey::DeleteTopics => {
                let request = DeleteTopicsRequest::default().with_timeout_ms(30_000);
                let states = vec![DeleteTopicState::default().with_name(Some(name("orders")))];
                let by_name = vec![name("orders"), name("payments")];
                let request = if version >= 6 {
                    request.with_topics(states)
                } else {
                    request.with_topic_names(by_name)
                };
                encoded(&request, version)
            }
            ApiKey::InitProducerId => {
                let request = InitProducerIdRequest::default().with_transaction_timeout_ms(60_000);
                encoded(&request.with_transactional_id(Some(text("txn").into())), version)
            }
            _ => group_samples::sample(key, version).unwrap_or_else(|| describing_sample(key, version)),
        })
    }

    fn describing_sample(key: ApiKey, version: i16) -> Bytes {
        let text = StrBytes::from_static_str;
        match key {
            ApiKey::OffsetForLeaderEpoch => {
                let partition = OffsetForLeaderPartition::default().with_partition(1).with_leader_epoch(3);
                let topic = OffsetForLeaderTopic::default()
                    .with_topic(name("orders"))
                    .with_partitions(vec![partition.clone(), partition]);
                encoded(&OffsetForLeaderEpochRequest::default().with_topics(vec![topic]), version)
            }
            ApiKey::DescribeConfigs => {
                let resource = DescribeConfigsResource::default()
                    .with_resource_type(2)
                    .with_resource_name(text("orders"))
                    .with_configuration_keys(Some(vec![text("retention.ms")]));
                let all = resource.clone().with_configuration_keys(None);
                encoded(&DescribeConfigsRequest::default().with_resources(vec![resource, all]), version)
            }
            ApiKey::CreatePartitions => {
                let assignment = CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(1)]);
                let topic = CreatePartitionsTopic::default()
                    .with_name(name("orders"))
                    .with_count(4)
                    .with_assignments(Some(vec![assignment]));
                let other = topic.clone().with_name(name("payments")).with_assignments(None);
                encoded(&CreatePartitionsRequest::default().with_topics(vec![topic, other]), version)
            }
            ApiKey::DeleteRecords => {
                let partition = DeleteRecordsPartition::default().with_partition_index(1).with_offset(7);
                let topic = DeleteRecordsTopic::default()
                    .with_name(name("orders"))
                    .with_partitions(vec![partition; 3]);
                encoded(&DeleteRecordsRequest::default().with_topics(vec![topic]), version)
            }
            ApiKey::AlterReplicaLogDirs => {
                let topic =
                    AlterReplicaLogDirTopic::default().with_name(name("orders")).with_partitions(vec![1, 2]);
                let dir = AlterReplicaLogDir::default()
                    .with_path(StrBytes::from_static_str("/data"))
                    .with_topics(vec![topic]);
                encoded(&AlterReplicaLogDirsRequest::default().with_dirs(vec![dir]), version)
            }
            ApiKey::DescribeLogDirs => {
                let topic =
                    DescribableLogDirTopic::default().with_topic(name("orders")).with_partitions(vec![1, 2]);
                encoded(&DescribeLogDirsRequest::default().with_topics(Some(vec![topic])), version)
            }
            ApiKey::DescribeProducers => {
                let topic =
                    ProducersTopic::default().with_name(name("orders")).with_partition_indexes(vec![1, 2]);
                encoded(&DescribeProducersRequest::default().with_topics(vec![topic]), version)
            }
            ApiKey::DescribeCluster => encoded(&DescribeClusterRequest::default(), version),
            ApiKey::DescribeTopicPartitions => {
                let topic = TopicRequest::default().with_name(name("orders"));
                let cursor = Cursor::default().with_topic_name(name("orders")).with_partition_index(3);
                let request = DescribeTopicPartitionsRequest::default().with_topics(vec![topic]);
                encoded(&request.with_cursor(Some(cursor)), version)
            }
            _ => super::super::guard_samples::sample(key, version),
        }
    }

    /// Decodes with the type of a key; says whether that worked.
    fn accepts(key: ApiKey, body: &Bytes, version: i16) -> Result<usize, WireError> {
        fn run<T: Decodable + Message>(body: &Bytes, version: i16) -> Result<usize, WireError> {
            decode_measured::<T>(body, version, Limits::default()).map(|(_, memory_bytes)| memory_bytes)
        }
        match key {
            ApiKey::Produce => run::<ProduceRequest>(body, version),
            ApiKey::Fetch => run::<FetchRequest>(body, version),
            ApiKey::ListOffsets => run::<ListOffsetsRequest>(body, version),
            ApiKey::Metadata => run::<MetadataRequest>(body, version),
            ApiKey::FindCoordinator => run::<FindCoordinatorRequest>(body, version),
            ApiKey::ApiVersions => run::<ApiVersionsRequest>(body, version),
            ApiKey::CreateTopics => run::<CreateTopicsRequest>(body, version),
            ApiKey::DeleteTopics => run::<DeleteTopicsRequest>(body, version),
            ApiKey::InitProducerId => run::<InitProducerIdRequest>(body, version),
            ApiKey::OffsetForLeaderEpoch => run::<OffsetForLeaderEpochRequest>(body, version),
            ApiKey::DescribeConfigs => run::<DescribeConfigsRequest>(body, version),
            ApiKey::CreatePartitions => run::<CreatePartitionsRequest>(body, version),
            ApiKey::DeleteRecords => run::<DeleteRecordsRequest>(body, version),
            ApiKey::AlterReplicaLogDirs => run::<AlterReplicaLogDirsRequest>(body, version),
            ApiKey::DescribeLogDirs => run::<DescribeLogDirsRequest>(body, version),
            ApiKey::DescribeProducers => run::<DescribeProducersRequest>(body, version),
            ApiKey::DescribeCluster => run::<DescribeClusterRequest>(body, version),
            ApiKey::DescribeTopicPartitions => run::<DescribeTopicPartitionsRequest>(body, version),
            ApiKey::DescribeAcls => run::<messages::DescribeAclsRequest>(body, version),
            ApiKey::CreateAcls => run::<messages::CreateAclsRequest>(body, version),
            ApiKey::DeleteAcls => run::<messages::DeleteAclsRequest>(body, version),
            ApiKey::AlterConfigs => run::<messages::AlterConfigsRequest>(body, version),
            ApiKey::ElectLeaders => run::<messages::ElectLeadersRequest>(body, version),
            ApiKey::IncrementalAlterConfigs => run::<messages::IncrementalAlterConfigsRequest>(body, version),
            ApiKey::AlterPartitionReassignments => {
                run::<messages::AlterPartitionReassignmentsRequest>(body, version)
            }
            ApiKey::ListPartitionReassignments => {
                run::<messages::ListPartitionReassignmentsRequest>(body, version)
            }
            ApiKey::DescribeClientQuotas => run::<messages::DescribeClientQuotasRequest>(body, version),
            ApiKey::AlterClientQuotas => run::<messages::AlterClientQuotasRequest>(body, version),
            ApiKey::DescribeUserScramCredentials => {
                run::<messages::DescribeUserScramCredentialsRequest>(body, version)
            }
            ApiKey::DescribeQuorum => run::<messages::DescribeQuorumRequest>(body, version),
            ApiKey::UpdateFeatures => run::<messages::UpdateFeaturesRequest>(body, version),
            ApiKey::UnregisterBroker => run::<messages::UnregisterBrokerRequest>(body, version),
            ApiKey::ListConfigResources => run::<messages::ListConfigResourcesRequest>(body, version),
            _ => accepts_of_cluster(key, body, version)
                .unwrap_or_else(|| group_samples::accepts(key, body, version)),
        }
    }

    /// As [`accepts`], for requests among nodes.
    fn accepts_of_cluster(key: ApiKey, body: &Bytes, version: i16) -> Option<Result<usize, WireError>> {
        fn run<T: Decodable + Message>(body: &Bytes, version: i16) -> Result<usize, WireError> {
            decode_measured::<T>(body, version, Limits::default()).map(|(_, memory_bytes)| memory_bytes)
        }
        Some(match key {
            ApiKey::AlterPartition => run::<messages::AlterPartitionRequest>(body, version),
            ApiKey::Envelope => run::<messages::EnvelopeRequest>(body, version),
            ApiKey::BrokerRegistration => run::<messages::BrokerRegistrationRequest>(body, version),
            ApiKey::BrokerHeartbeat => run::<messages::BrokerHeartbeatRequest>(body, version),
            ApiKey::AssignReplicasToDirs => run::<messages::AssignReplicasToDirsRequest>(body, version),
            ApiKey::AllocateProducerIds => run::<messages::AllocateProducerIdsRequest>(body, version),
            ApiKey::AddRaftVoter => run::<messages::AddRaftVoterRequest>(body, version),
            ApiKey::RemoveRaftVoter => run::<messages::RemoveRaftVoterRequest>(body, version),
            ApiKey::UpdateRaftVoter => run::<messages::UpdateRaftVoterRequest>(body, version),
            ApiKey::RaftMessages => RaftMessages::parse(body).map(|mail| mail.messages.len()),
            ApiKey::JoinQuorum => JoinQuorum::parse(body).map(|join| join.host.len()),
            _ => return None,
        })
    }

    fn samples() -> impl Iterator<Item = (ApiKey, i16, Bytes)> {
        TABLE.iter().flat_map(|api| {
            (api.version_first..=api.version_last)
                .filter_map(|version| Some((api.key, version, sample(api.key, version)?)))
        })
    }

    #[test]
    fn both_frames_that_kill_the_library_end_in_an_error() {
        let old = Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff, 0, 0]);
        assert!(decode::<MetadataRequest>(&old, 0, Limits::default()).is_err());
        let compact = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0]);
        assert!(decode::<MetadataRequest>(&compact, 12, Limits::default()).is_err());
    }

    #[test]
    fn honest_requests_of_every_version_are_decoded_also_with_bytes_behind_them() {
        for (key, version, body) in samples() {
            assert!(accepts(key, &body, version).is_ok(), "{key:?} v{version}");
            let longer: Bytes = [&body[..], &[0]].concat().into();
            assert!(accepts(key, &longer, version).is_ok(), "{key:?} v{version}");
            for end in 0..body.len() {
                assert!(
                    accepts(key, &body.slice(..end), version).is_err(),
                    "{key:?} v{version} cut at {end}"
                );
            }
        }
        let topics = MetadataRequest::default().with_topics(None);
        let decoded: MetadataRequest = decode(&encoded(&topics, 12), 12, Limits::default()).unwrap();
        assert_eq!(decoded, topics);
    }

    #[test]
    fn the_largest_lengths_at_every_position_end_in_an_error_or_were_plain_integers() {
        for (key, version, body) in samples() {
            for at in 0..body.len() {
                for lie in [&[0x7f, 0xff, 0xff, 0xff][..], &[0xff; 5], &[0xff, 0xff, 0xff, 0xff, 0x0f]] {
                    let mut bytes = body.to_vec();
                    let end = bytes.len().min(at + lie.len());
                    bytes[at..end].copy_from_slice(&lie[..end - at]);
                    let _ = accepts(key, &bytes.into(), version);
                }
            }
        }
    }

    #[test]
    fn random_bodies_never_reserve_what_they_do_not_hold() {
        let mut random = fastrand::Rng::with_seed(2026);
        for _ in 0..50_000 {
            let api = random.choice(&TABLE).unwrap();
            let version = random.i16(api.version_first..=api.version_last);
            let length = random.usize(..64);
            let body: Bytes = std::iter::repeat_with(|| [random.u8(..), 0, 1, 0xff][random.usize(..4)])
                .take(length)
                .collect();
            let _ = accepts(api.key, &body, version);
        }
    }

    #[test]
    fn a_request_over_the_memory_limit_is_refused_and_the_charge_covers_its_structs() {
        let topics = vec![MetadataRequestTopic::default().with_name(Some(name("t"))); 10_000];
        let struct_bytes = topics.len() * size_of::<MetadataRequestTopic>();
        let body = encoded(&MetadataRequest::default().with_topics(Some(topics)), 12);
        let (_, charged) = decode_measured::<MetadataRequest>(&body, 12, Limits::default()).unwrap();
        assert!(charged >= struct_bytes, "{charged} < {struct_bytes}");
        let limits = Limits { memory_bytes: charged };
        assert!(decode::<MetadataRequest>(&body, 12, limits).is_ok());
        let limits = Limits { memory_bytes: charged - 1 };
        let error = decode::<MetadataRequest>(&body, 12, limits).unwrap_err();
        assert_eq!(error, WireError::TooCostly { limit_bytes: charged - 1 });
    }
}
