//! Whether an answer is one of its API and version, to the last byte.

use bytes::{Buf, Bytes};
use kafka_protocol::messages::{
    AlterReplicaLogDirsResponse, ApiVersionsResponse, CreatePartitionsResponse, CreateTopicsResponse,
    DeleteRecordsResponse, DeleteTopicsResponse, DescribeClusterResponse, DescribeConfigsResponse,
    DescribeLogDirsResponse, DescribeProducersResponse, DescribeTopicPartitionsResponse, FetchResponse,
    FindCoordinatorResponse, InitProducerIdResponse, ListOffsetsResponse, MetadataResponse,
    OffsetForLeaderEpochResponse, ProduceResponse,
};
use kafka_protocol::protocol::{Decodable, Message};
use tidemill::wire::api;

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
        75 => whole::<DescribeTopicPartitionsResponse>(answer, version).map(|_| 0),
        _ => Err("tests/hostile/answers.rs does not know this API: add it".to_owned()),
    }
}

/// Decodes all of it; a version above the library's has the layout of its last.
fn whole<T: Decodable + Message>(mut answer: Bytes, version: i16) -> Result<T, String> {
    let decoded = T::decode(&mut answer, version.min(T::VERSIONS.max)).map_err(|error| error.to_string())?;
    if answer.has_remaining() {
        return Err(format!("{} bytes behind the answer", answer.remaining()));
    }
    Ok(decoded)
}
