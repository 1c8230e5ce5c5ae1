//! Whether an answer is one of its API and version, to the last byte.

use bytes::{Buf, Bytes};
use kafka_protocol::messages;
use kafka_protocol::messages::{
    AlterReplicaLogDirsResponse, ApiVersionsResponse, CreatePartitionsResponse, CreateTopicsResponse,
    DeleteRecordsResponse, DeleteTopicsResponse, DescribeClusterResponse, DescribeConfigsResponse,
    DescribeLogDirsResponse, DescribeProducersResponse, DescribeTopicPartitionsResponse, FetchResponse,
    FindCoordinatorResponse, InitProducerIdResponse, ListOffsetsResponse, MetadataResponse,
    OffsetForLeaderEpochResponse, ProduceResponse,
};
use kafka_protocol::protocol::Decodable;
use tidemill::wire::{api, beyond, outbound};

use crate::body::{API_VERSIONS, FETCH, PRODUCE};

/// Parses the answer to a request of this API and version, behind its correlation id. A fetch session that it
/// gives is returned, 0 otherwise.
pub fn parse(key: i16, version: i16, mut answer: Bytes) -> Result<i32, String> {
    let api = api::find(key).ok_or("an answer from an API that is not served")?;
    // A version that is not served is answered by ApiVersions alone, in version 0.
    let version = if api.serves(version) { version } else { 0 };
    if api.is_flexible(version) && key != API_VERSIONS {
        // No response header has a tagged field.
        if !answer.has_remaining() || answer.get_u8() != 0 {
            return Err("the header does not end with no tagged fields".to_owned());
        }
    }
    let (answer, version) = beyond::response(api.key, version, answer).map_err(|error| error.to_string())?;
    match key {
        PRODUCE => whole::<ProduceResponse>(answer, version).map(|_| 0),
        FETCH => whole::<FetchResponse>(answer, version).map(|fetch| fetch.session_id),
        2 => whole::<ListOffsetsResponse>(answer, version).map(|_| 0),
        3 => whole::<MetadataResponse>(answer, version).map(|_| 0),
        10 => whole::<FindCoordinatorResponse>(answer, version).map(|_| 0),
        API_VERSIONS => whole::<ApiVersionsResponse>(answer, version).map(|_| 0),
        19 => whole::<CreateTopicsResponse>(answer, version).map(|_| 0),
        20 => whole::<DeleteTopicsResponse>(answer, version).map(|_| 0),
        22 => whole::<InitProducerIdResponse>(answer, version).map(|_| 0),
        23 => whole::<OffsetForLeaderEpochResponse>(answer, version).map(|_| 0),
        32 => whole::<DescribeConfigsResponse>(answer, version).map(|_| 0),
        21 => whole::<DeleteRecordsResponse>(answer, version).map(|_| 0),
        34 => whole::<AlterReplicaLogDirsResponse>(answer, version).map(|_| 0),
        35 => whole::<DescribeLogDirsResponse>(answer, version).map(|_| 0),
        61 => whole::<DescribeProducersResponse>(answer, version).map(|_| 0),
        37 => whole::<CreatePartitionsResponse>(answer, version).map(|_| 0),
        60 => whole::<DescribeClusterResponse>(answer, version).map(|_| 0),
        8 => whole::<messages::OffsetCommitResponse>(answer, version).map(|_| 0),
        9 => whole::<messages::OffsetFetchResponse>(answer, version).map(|_| 0),
        11 => whole::<messages::JoinGroupResponse>(answer, version).map(|_| 0),
        12 => whole::<messages::HeartbeatResponse>(answer, version).map(|_| 0),
        13 => whole::<messages::LeaveGroupResponse>(answer, version).map(|_| 0),
        14 => whole::<messages::SyncGroupResponse>(answer, version).map(|_| 0),
        15 => whole::<messages::DescribeGroupsResponse>(answer, version).map(|_| 0),
        16 => whole::<messages::ListGroupsResponse>(answer, version).map(|_| 0),
        42 => whole::<messages::DeleteGroupsResponse>(answer, version).map(|_| 0),
        47 => whole::<messages::OffsetDeleteResponse>(answer, version).map(|_| 0),
        29 => whole::<messages::DescribeAclsResponse>(answer, version).map(|_| 0),
        30 => whole::<messages::CreateAclsResponse>(answer, version).map(|_| 0),
        31 => whole::<messages::DeleteAclsResponse>(answer, version).map(|_| 0),
        33 => whole::<messages::AlterConfigsResponse>(answer, version).map(|_| 0),
        43 => whole::<messages::ElectLeadersResponse>(answer, version).map(|_| 0),
        44 => whole::<messages::IncrementalAlterConfigsResponse>(answer, version).map(|_| 0),
        45 => whole::<messages::AlterPartitionReassignmentsResponse>(answer, version).map(|_| 0),
        46 => whole::<messages::ListPartitionReassignmentsResponse>(answer, version).map(|_| 0),
        48 => whole::<messages::DescribeClientQuotasResponse>(answer, version).map(|_| 0),
        49 => whole::<messages::AlterClientQuotasResponse>(answer, version).map(|_| 0),
        50 => whole::<messages::DescribeUserScramCredentialsResponse>(answer, version).map(|_| 0),
        55 => whole::<messages::DescribeQuorumResponse>(answer, version).map(|_| 0),
        56 => whole::<messages::AlterPartitionResponse>(answer, version).map(|_| 0),
        58 => whole::<messages::EnvelopeResponse>(answer, version).map(|_| 0),
        62 => whole::<messages::BrokerRegistrationResponse>(answer, version).map(|_| 0),
        63 => whole::<messages::BrokerHeartbeatResponse>(answer, version).map(|_| 0),
        67 => whole::<messages::AllocateProducerIdsResponse>(answer, version).map(|_| 0),
        80 => whole::<messages::AddRaftVoterResponse>(answer, version).map(|_| 0),
        82 => whole::<messages::UpdateRaftVoterResponse>(answer, version).map(|_| 0),
        81 => whole::<messages::RemoveRaftVoterResponse>(answer, version).map(|_| 0),
        57 => whole::<messages::UpdateFeaturesResponse>(answer, version).map(|_| 0),
        64 => whole::<messages::UnregisterBrokerResponse>(answer, version).map(|_| 0),
        68 => whole::<messages::ConsumerGroupHeartbeatResponse>(answer, version).map(|_| 0),
        69 => whole::<messages::ConsumerGroupDescribeResponse>(answer, version).map(|_| 0),
        73 => whole::<messages::AssignReplicasToDirsResponse>(answer, version).map(|_| 0),
        74 => whole::<messages::ListConfigResourcesResponse>(answer, version).map(|_| 0),
        75 => whole::<DescribeTopicPartitionsResponse>(answer, version).map(|_| 0),
        outbound::RAFT_MESSAGES | outbound::JOIN_QUORUM => stranger(&answer),
        _ => Err("tests/hostile/answers.rs does not know this API: add it".to_owned()),
    }
}

/// An error code, no messages, no tagged fields.
fn stranger(answer: &Bytes) -> Result<i32, String> {
    match outbound::parse_raft_answer(answer) {
        Ok((104 | 125, _)) if answer.len() == 4 => Ok(0),
        other => Err(format!("a stranger among controllers is answered with {other:?}")),
    }
}

/// Decodes all of it.
fn whole<T: Decodable>(mut answer: Bytes, version: i16) -> Result<T, String> {
    let decoded = T::decode(&mut answer, version).map_err(|error| error.to_string())?;
    if answer.has_remaining() {
        return Err(format!("{} bytes behind the answer", answer.remaining()));
    }
    Ok(decoded)
}
