//! ElectLeaders: on one node every partition is led by its preferred and only replica, so there is nothing to
//! elect. A partition without a leader has a replica that is not there, and nobody else could lead it.

use bytes::Bytes;
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse, TopicName};

use super::{CloseReason, Scene, StrBytes, Work, encoded};
use crate::controller::PartitionImage;
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard};

/// Kafka's numbers of elections.
const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

pub(super) fn elect(header: &RequestHeader, body: &Bytes, scene: &Scene) -> Result<Work, CloseReason> {
    let request: ElectLeadersRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let response = ElectLeadersResponse::default();
    // Before version 1 every election is of the preferred leader, and there is no error of the whole.
    let election = if header.version == 0 { PREFERRED } else { request.election_type };
    if !matches!(election, PREFERRED | UNCLEAN) {
        return Ok(encoded(header, &response.with_error_code(ErrorCode::InvalidRequest.code())));
    }
    let is_late = request.timeout_ms <= 0;
    let results = match request.topic_partitions {
        Some(topics) => topics.into_iter().map(|topic| elect_of(topic, election, is_late, scene)).collect(),
        None => elect_everywhere(election, scene),
    };
    let late = if is_late && header.version > 0 { ErrorCode::RequestTimedOut.code() } else { 0 };
    Ok(encoded(header, &response.with_error_code(late).with_replica_election_results(results)))
}

fn elect_of(topic: TopicPartitions, election: i8, is_late: bool, scene: &Scene) -> ReplicaElectionResult {
    let name = topic.topic.as_str();
    let known = scene.view.image.topic(name);
    let result = |index: i32| {
        let result = PartitionResult::default().with_partition_id(index);
        if is_late {
            return result.with_error_code(ErrorCode::RequestTimedOut.code()).with_error_message(None);
        }
        let partition = known.and_then(|known| known.partitions.get(usize::try_from(index).ok()?));
        let (code, words) = match (known, partition) {
            (None, _) => (ErrorCode::UnknownTopicOrPartition, format!("No such topic as {name}")),
            (_, None) => (ErrorCode::UnknownTopicOrPartition, format!("No such partition as {name}-{index}")),
            (_, Some(partition)) => outcome(partition, election),
        };
        result.with_error_code(code.code()).with_error_message(Some(StrBytes::from_string(words)))
    };
    let results = topic.partitions.into_iter().map(result).collect();
    ReplicaElectionResult::default().with_topic(topic.topic).with_partition_result(results)
}

/// Of all partitions those are told that want an election.
fn elect_everywhere(election: i8, scene: &Scene) -> Vec<ReplicaElectionResult> {
    let topics = scene.view.image.topics().map(|topic| {
        let outcomes = (0..).zip(&topic.partitions).map(|(index, one)| (index, outcome(one, election)));
        let wanting = outcomes.filter(|(_, (code, _))| *code != ErrorCode::ElectionNotNeeded);
        let results = wanting.map(|(index, (code, words))| {
            PartitionResult::default()
                .with_partition_id(index)
                .with_error_code(code.code())
                .with_error_message(Some(StrBytes::from_string(words)))
        });
        ReplicaElectionResult::default()
            .with_topic(TopicName(StrBytes::from_string(topic.name.to_string())))
            .with_partition_result(results.collect())
    });
    topics.collect()
}

fn outcome(partition: &PartitionImage, election: i8) -> (ErrorCode, String) {
    let is_led = partition.leader != -1;
    let is_preferred = partition.replicas.first() == Some(&partition.leader);
    match election {
        PREFERRED if !is_preferred => {
            (ErrorCode::PreferredLeaderNotAvailable, "The preferred leader was not available.".to_owned())
        }
        UNCLEAN if !is_led => (
            ErrorCode::EligibleLeadersNotAvailable,
            "Eligible topic partition leaders are not available.".to_owned(),
        ),
        _ => (ErrorCode::ElectionNotNeeded, "Leader election not needed for topic partition.".to_owned()),
    }
}
