//! ElectLeaders: the controller elects the preferred leaders, or any where nobody lacks nothing. Of all partitions
//! those are told that wanted an election.

use bytes::Bytes;
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse, TopicName};

use super::controlled::{Asked, Controlled};
use super::topics::{check_named, limit_wait};
use super::{CloseReason, Scene, StrBytes, Work, encoded};
use crate::controller::request::ElectionKind;
use crate::controller::{ApiError, ControllerAnswer, ControllerRequest};
use crate::partition::ReplyTo;
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard};

/// Kafka's numbers of elections.
const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;
/// First version whose response has an error of the whole.
const VERSION_ERROR: i16 = 1;

/// The partitions that a request names, in order; none if it is about all.
#[derive(Debug)]
pub(super) struct Elect(Option<Vec<(String, i32)>>);

pub(super) fn elect(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let request: ElectLeadersRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let topics = request.topic_partitions.iter().flatten();
    check_named(topics.map(|topic| (topic.topic.len(), topic.partitions.len())))?;
    // Before version 1 every election is of the preferred leader.
    let kind = match if header.version == 0 { PREFERRED } else { request.election_type } {
        PREFERRED => ElectionKind::Preferred,
        UNCLEAN => ElectionKind::Unclean,
        _ => {
            let code = ErrorCode::InvalidRequest.code();
            return Ok(encoded(header, &ElectLeadersResponse::default().with_error_code(code)));
        }
    };
    let partitions = request.topic_partitions.map(|topics| {
        let all = topics.into_iter().flat_map(|topic| {
            let name = topic.topic.to_string();
            topic.partitions.into_iter().map(move |index| (name.clone(), index))
        });
        all.collect::<Vec<_>>()
    });
    let elect = Elect(partitions.clone());
    if request.timeout_ms <= 0 {
        // As Kafka: its time is over before it begins.
        return Ok(elect.encode(header, Some(ControllerAnswer::Refused(ErrorCode::RequestTimedOut))));
    }
    limit_wait(request.timeout_ms, to, scene);
    scene.desk.controls.push((to, ControllerRequest::ElectLeaders { partitions, kind }));
    Ok(Controlled::waiting(Asked::ElectLeaders(elect)))
}

impl Elect {
    pub(super) fn encode(self, header: &RequestHeader, answer: Option<ControllerAnswer>) -> Work {
        let is_all = self.0.is_none();
        let (code, results) = match answer {
            Some(ControllerAnswer::Elected(results)) => {
                let is_told = |result: &Result<(), ApiError>| {
                    !is_all || !matches!(result, Err(error) if error.code == ErrorCode::ElectionNotNeeded)
                };
                let told = results.into_iter().filter(|(_, _, result)| is_told(result));
                (0, told.map(|(topic, index, result)| (topic, of_result(index, result))).collect())
            }
            Some(ControllerAnswer::Refused(code)) => (code.code(), self.refused(code)),
            _ => (ErrorCode::UnknownServerError.code(), self.refused(ErrorCode::UnknownServerError)),
        };
        let code = if header.version >= VERSION_ERROR { code } else { 0 };
        let response = ElectLeadersResponse::default().with_error_code(code);
        encoded(header, &response.with_replica_election_results(by_topic(results)))
    }

    fn refused(self, code: ErrorCode) -> Vec<(String, PartitionResult)> {
        let of = |(topic, index)| {
            let result = PartitionResult::default().with_partition_id(index);
            (topic, result.with_error_code(code.code()).with_error_message(None))
        };
        self.0.into_iter().flatten().map(of).collect()
    }
}

fn of_result(index: i32, result: Result<(), ApiError>) -> PartitionResult {
    let told = PartitionResult::default().with_partition_id(index);
    match result {
        Ok(()) => told.with_error_message(None),
        Err(error) => told
            .with_error_code(error.code.code())
            .with_error_message(Some(StrBytes::from_string(error.message))),
    }
}

fn by_topic(results: Vec<(String, PartitionResult)>) -> Vec<ReplicaElectionResult> {
    let mut topics: Vec<ReplicaElectionResult> = Vec::new();
    for (topic, result) in results {
        match topics.last_mut().filter(|last| last.topic.as_str() == topic) {
            Some(last) => last.partition_result.push(result),
            None => topics.push(
                ReplicaElectionResult::default()
                    .with_topic(TopicName(StrBytes::from_string(topic)))
                    .with_partition_result(vec![result]),
            ),
        }
    }
    topics
}
