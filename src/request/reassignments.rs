//! AlterPartitionReassignments and ListPartitionReassignments on one node: a partition may be assigned to the
//! replicas that it has, and nothing is ever on its way.

use bytes::Bytes;
use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};

use super::{CloseReason, Scene, StrBytes, Work, encoded};
use crate::controller::{ApiError, check_manual_assignment};
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard};

/// First version in which the number of replicas may be held fast.
const VERSION_FACTOR: i16 = 1;

pub(super) fn list(header: &RequestHeader, body: &Bytes) -> Result<Work, CloseReason> {
    let _: ListPartitionReassignmentsRequest = guard::decode(body, header.version, guard::Limits::default())?;
    Ok(encoded(header, &ListPartitionReassignmentsResponse::default().with_error_message(None)))
}

pub(super) fn alter(header: &RequestHeader, body: &Bytes, scene: &Scene) -> Result<Work, CloseReason> {
    let request: AlterPartitionReassignmentsRequest =
        guard::decode(body, header.version, guard::Limits::default())?;
    let allow_factor = header.version < VERSION_FACTOR || request.allow_replication_factor_change;
    // Kafka leaves an empty text where there was nothing to do.
    let words = request.topics.is_empty().then(StrBytes::default);
    let responses = request.topics.into_iter().map(|topic| alter_topic(topic, allow_factor, scene));
    let response = AlterPartitionReassignmentsResponse::default()
        .with_allow_replication_factor_change(allow_factor)
        .with_error_message(words)
        .with_responses(responses.collect());
    Ok(encoded(header, &response))
}

fn alter_topic(topic: ReassignableTopic, allow_factor: bool, scene: &Scene) -> ReassignableTopicResponse {
    let name = topic.name.as_str();
    let answered = |one: ReassignablePartition| {
        let error = alter_partition(name, &one, allow_factor, scene).err();
        let words = error.as_ref().map(|error| error.message.clone()).filter(|words| !words.is_empty());
        ReassignablePartitionResponse::default()
            .with_partition_index(one.partition_index)
            .with_error_code(error.map_or(0, |error| error.code.code()))
            .with_error_message(words.map(StrBytes::from_string))
    };
    let partitions = topic.partitions.into_iter().map(answered).collect();
    ReassignableTopicResponse::default().with_name(topic.name).with_partitions(partitions)
}

fn alter_partition(
    name: &str,
    wanted: &ReassignablePartition,
    allow_factor: bool,
    scene: &Scene,
) -> Result<(), ApiError> {
    let refuse = |code, message: String| Err(ApiError { code, message });
    let Some(topic) = scene.view.image.topic(name) else {
        let words = format!("Unable to find a topic named {name}.");
        return refuse(ErrorCode::UnknownTopicOrPartition, words);
    };
    let index = wanted.partition_index;
    let Some(known) = scene.view.image.partition(topic.id, index) else {
        return refuse(
            ErrorCode::UnknownTopicOrPartition,
            format!("Unable to find partition {name}:{index}."),
        );
    };
    let Some(replicas) = &wanted.replicas else {
        return refuse(ErrorCode::NoReassignmentInProgress, String::new());
    };
    let replicas: Vec<i32> = replicas.iter().map(|broker| broker.0).collect();
    check_manual_assignment(&scene.view.image, &replicas, None)?;
    let (has, wants) = (known.replicas.len(), replicas.len());
    if !allow_factor && has != wants {
        let words = format!("The replication factor is changed from {has} to {wants}");
        return refuse(ErrorCode::InvalidReplicationFactor, words);
    }
    if known.replicas.as_slice() != replicas {
        let words = "Replicas cannot be moved between brokers yet.".to_string();
        return refuse(ErrorCode::InvalidReplicaAssignment, words);
    }
    Ok(())
}
