//! AlterPartitionReassignments and ListPartitionReassignments: the controller moves replicas to other brokers, and
//! tells which are on their way.

use bytes::Bytes;
use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, BrokerId,
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, TopicName,
};

use super::controlled::{Asked, Controlled};
use super::topics::{check_named, limit_wait};
use super::{CloseReason, Scene, StrBytes, Work, encoded};
use crate::controller::request::Reassignment;
use crate::controller::{ApiError, ControllerAnswer, ControllerRequest};
use crate::partition::ReplyTo;
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard};

/// First version in which the number of replicas may be held fast.
const VERSION_FACTOR: i16 = 1;

/// What of an AlterPartitionReassignments its response repeats: the partitions, topic by topic.
#[derive(Debug)]
pub(super) struct Alter {
    topics: Vec<(TopicName, Vec<i32>)>,
    allow_factor: bool,
}

pub(super) fn alter(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let request: AlterPartitionReassignmentsRequest =
        guard::decode(body, header.version, guard::Limits::default())?;
    check_named(request.topics.iter().map(|topic| (topic.name.len(), topic.partitions.len())))?;
    let allow_factor = header.version < VERSION_FACTOR || request.allow_replication_factor_change;
    let (mut topics, mut changes) = (Vec::new(), Vec::new());
    for topic in request.topics {
        topics.push((topic.name.clone(), topic.partitions.iter().map(|one| one.partition_index).collect()));
        changes.extend(topic.partitions.into_iter().map(|one| {
            let replicas = one.replicas.map(|replicas| replicas.into_iter().map(|id| id.0).collect());
            (topic.name.to_string(), one.partition_index, replicas)
        }));
    }
    let asked =
        ControllerRequest::AlterReassignments { changes, allow_replication_factor_change: allow_factor };
    limit_wait(request.timeout_ms, to, scene);
    scene.desk.controls.push((to, asked));
    Ok(Controlled::waiting(Asked::AlterReassignments(Alter { topics, allow_factor })))
}

impl Alter {
    pub(super) fn encode(self, header: &RequestHeader, answer: Option<ControllerAnswer>) -> Work {
        let (code, results) = match answer {
            Some(ControllerAnswer::Reassigned(results)) => (None, results),
            Some(ControllerAnswer::Refused(code)) => (Some(code), Vec::new()),
            _ => (Some(ErrorCode::UnknownServerError), Vec::new()),
        };
        // Kafka leaves an empty text where there was nothing to do.
        let words = self.topics.is_empty().then(StrBytes::default);
        let refused =
            ApiError { code: code.unwrap_or(ErrorCode::UnknownServerError), message: String::new() };
        // The answers are in the order in which was asked.
        let mut results = results.into_iter().map(|(_, _, result)| result);
        let mut responses = Vec::with_capacity(self.topics.len());
        for (name, partitions) in self.topics {
            let answered = |index: i32| of_result(index, results.next().unwrap_or(Err(refused.clone())));
            let partitions = partitions.into_iter().map(answered).collect();
            responses.push(ReassignableTopicResponse::default().with_name(name).with_partitions(partitions));
        }
        let response = AlterPartitionReassignmentsResponse::default()
            .with_allow_replication_factor_change(self.allow_factor)
            .with_error_code(code.map_or(0, |code| code.code()))
            .with_error_message(words)
            .with_responses(responses);
        encoded(header, &response)
    }
}

fn of_result(index: i32, result: Result<(), ApiError>) -> ReassignablePartitionResponse {
    let (code, words) = match result {
        Ok(()) => (0, None),
        Err(error) => (error.code.code(), Some(error.message).filter(|words| !words.is_empty())),
    };
    ReassignablePartitionResponse::default()
        .with_partition_index(index)
        .with_error_code(code)
        .with_error_message(words.map(StrBytes::from_string))
}

pub(super) fn list(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let request: ListPartitionReassignmentsRequest =
        guard::decode(body, header.version, guard::Limits::default())?;
    let topics = request.topics.iter().flatten();
    check_named(topics.map(|topic| (topic.name.len(), topic.partition_indexes.len())))?;
    let partitions = request.topics.map(|topics| {
        let all = topics.into_iter().flat_map(|topic| {
            let name = topic.name.to_string();
            topic.partition_indexes.into_iter().map(move |index| (name.clone(), index))
        });
        all.collect()
    });
    limit_wait(request.timeout_ms, to, scene);
    scene.desk.controls.push((to, ControllerRequest::ListReassignments { partitions }));
    Ok(Controlled::waiting(Asked::ListReassignments))
}

/// The response to ListPartitionReassignments.
pub(super) fn encode_list(header: &RequestHeader, answer: Option<ControllerAnswer>) -> Work {
    let response = ListPartitionReassignmentsResponse::default().with_error_message(None);
    let response = match answer {
        Some(ControllerAnswer::Reassignments(moves)) => response.with_topics(by_topic(moves)),
        Some(ControllerAnswer::Refused(code)) => response.with_error_code(code.code()),
        _ => response.with_error_code(ErrorCode::UnknownServerError.code()),
    };
    encoded(header, &response)
}

fn by_topic(moves: Vec<Reassignment>) -> Vec<OngoingTopicReassignment> {
    let ids = |nodes: &[i32]| nodes.iter().map(|id| BrokerId(*id)).collect::<Vec<_>>();
    let mut topics: Vec<OngoingTopicReassignment> = Vec::new();
    for one in moves {
        let partition = OngoingPartitionReassignment::default()
            .with_partition_index(one.index)
            .with_replicas(ids(&one.replicas))
            .with_adding_replicas(ids(&one.adding))
            .with_removing_replicas(ids(&one.removing));
        match topics.last_mut().filter(|last| *last.name.as_str() == *one.topic) {
            Some(last) => last.partitions.push(partition),
            None => topics.push(
                OngoingTopicReassignment::default()
                    .with_name(TopicName(StrBytes::from_string(one.topic.to_string())))
                    .with_partitions(vec![partition]),
            ),
        }
    }
    topics
}
