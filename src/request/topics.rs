//! CreateTopics, DeleteTopics and CreatePartitions: checked and carried out by the controller; the answer
//! leaves when every shard of this node agrees with it, or when the client's `timeout_ms` has passed. What
//! was asked for may then still come true, as in Kafka.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::configs;
use super::{CloseReason, Scene, Timer, Work};
use crate::controller::request::{DeletedTopic, MorePartitions, NewTopic, TopicAnswer, TopicRef};
use crate::controller::{ApiError, ControllerAnswer, ControllerRequest};
use crate::partition::ReplyTo;
use crate::wire::api::ApiKey;
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard, response};

/// A request that waits for the controller.
#[derive(Debug)]
pub struct Topics {
    asked: Asked,
    answer: Option<ControllerAnswer>,
}

/// What was asked, as far as the response repeats it when the controller refuses as a whole.
#[derive(Debug)]
enum Asked {
    /// With the values that each topic shall have of its own.
    Create(Vec<(String, Configs)>),
    Delete(Vec<TopicRef>),
    Extend(Vec<String>),
}

/// Keys and values of one topic.
type Configs = Vec<(String, Option<String>)>;

/// First version of CreateTopics that tells the new topic's configuration.
const VERSION_CONFIGS: i16 = 5;

/// Refuses a request whose partitions, each with the name of its topic beside it, would take more memory than a
/// request may: names are long and indexes are short. `topics` gives the bytes of each name and how many partitions.
pub(super) fn check_named(topics: impl Iterator<Item = (usize, usize)>) -> Result<(), CloseReason> {
    const ENTRY_BYTES: usize = 128;
    // A name is there twice: in what is asked, and in what is kept for the answer.
    let bytes = topics
        .map(|(name_bytes, count)| {
            name_bytes.saturating_mul(2).saturating_add(ENTRY_BYTES).saturating_mul(count)
        })
        .fold(0, usize::saturating_add);
    if bytes > guard::MEMORY_LIMIT_BYTES { Err(CloseReason::TooCostly) } else { Ok(()) }
}

/// A timer for the time that the client gives the controller. Whoever gives no time wants no limit.
pub(super) fn limit_wait(timeout_ms: i32, to: ReplyTo, scene: &mut Scene) {
    if let Some(timeout_ms) = u64::try_from(timeout_ms).ok().filter(|ms| *ms > 0) {
        let at_ms = scene.now.mono_ms.saturating_add(timeout_ms);
        scene.desk.timers.push(Timer { at_ms, to: ReplyTo { part: 0, ..to } });
    }
}

pub(super) fn create(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let request: CreateTopicsRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let topics: Vec<NewTopic> = request.topics.into_iter().map(new_topic).collect();
    let with_configs = header.version >= VERSION_CONFIGS;
    let configs = |topic: &NewTopic| if with_configs { topic.configs.clone() } else { Vec::new() };
    let asked = topics.iter().map(|topic| (topic.name.clone(), configs(topic))).collect();
    let validate_only = request.validate_only;
    limit_wait(request.timeout_ms, to, scene);
    scene.desk.controls.push((to, ControllerRequest::CreateTopics { topics, validate_only }));
    Ok(Work::Topics(Box::new(Topics { asked: Asked::Create(asked), answer: None })))
}

fn new_topic(topic: CreatableTopic) -> NewTopic {
    let assignments = topic.assignments.into_iter();
    let configs = topic.configs.into_iter();
    NewTopic {
        name: topic.name.to_string(),
        partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments: assignments
            .map(|a| (a.partition_index, a.broker_ids.into_iter().map(|id| id.0).collect()))
            .collect(),
        configs: configs.map(|c| (c.name.to_string(), c.value.map(|value| value.to_string()))).collect(),
    }
}

pub(super) fn delete(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let request: DeleteTopicsRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let by_name = request.topic_names.into_iter().map(|name| (Some(name), Uuid::nil()));
    let by_state = request.topics.into_iter().map(|topic| (topic.name, topic.topic_id));
    let topics: Vec<TopicRef> = by_name
        .chain(by_state)
        .map(|(name, id)| TopicRef { name: name.map(|name| name.to_string()), id })
        .collect();
    let mut work = Topics { asked: Asked::Delete(topics.clone()), answer: None };
    limit_wait(request.timeout_ms, to, scene);
    if scene.node.config.delete_topic_enable {
        scene.desk.controls.push((to, ControllerRequest::DeleteTopics { topics }));
    } else {
        // As Kafka: from version 3 on with an error of its own, before as a bad request.
        let disabled =
            if header.version >= 3 { ErrorCode::TopicDeletionDisabled } else { ErrorCode::InvalidRequest };
        work.answer = Some(ControllerAnswer::Refused(disabled));
    }
    Ok(Work::Topics(Box::new(work)))
}

pub(super) fn extend(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let request: CreatePartitionsRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let names = request.topics.iter().map(|topic| topic.name.to_string()).collect();
    let topics = request.topics.into_iter().map(more_partitions).collect();
    let validate_only = request.validate_only;
    limit_wait(request.timeout_ms, to, scene);
    scene.desk.controls.push((to, ControllerRequest::CreatePartitions { topics, validate_only }));
    Ok(Work::Topics(Box::new(Topics { asked: Asked::Extend(names), answer: None })))
}

fn more_partitions(topic: CreatePartitionsTopic) -> MorePartitions {
    let brokers = |ids: Vec<kafka_protocol::messages::BrokerId>| ids.into_iter().map(|id| id.0).collect();
    MorePartitions {
        name: topic.name.to_string(),
        count: topic.count,
        assignments: topic
            .assignments
            .map(|assignments| assignments.into_iter().map(|one| brokers(one.broker_ids)).collect()),
    }
}

impl Topics {
    /// The client's time is up.
    pub(super) fn timeout(&mut self) {
        self.answer.get_or_insert(ControllerAnswer::Refused(ErrorCode::RequestTimedOut));
    }

    pub(super) fn answer(&mut self, answer: ControllerAnswer) {
        self.answer = Some(answer);
    }

    pub(super) fn is_done(&self) -> bool {
        self.answer.is_some()
    }

    pub(super) fn encode(self, header: &RequestHeader, buffer: &mut BytesMut, scene: &Scene) {
        let refusal = match self.answer {
            Some(ControllerAnswer::Refused(error)) => error,
            _ => ErrorCode::UnknownServerError,
        };
        let (version, correlation_id) = (header.version, header.correlation_id);
        let encoded = match (self.asked, self.answer) {
            (Asked::Create(asked), answer) => {
                let answer = create_response(asked, answer, refusal, version, scene);
                response::encode(buffer, ApiKey::CreateTopics, version, correlation_id, &answer)
            }
            (Asked::Delete(_), Some(ControllerAnswer::Deleted(topics))) => {
                let results = topics.into_iter().map(|topic| deleted(topic, version)).collect();
                let answer = DeleteTopicsResponse::default().with_responses(results);
                response::encode(buffer, ApiKey::DeleteTopics, version, correlation_id, &answer)
            }
            (Asked::Delete(topics), _) => {
                let results = topics.into_iter().map(|topic| not_deleted(topic, refusal, version)).collect();
                let answer = DeleteTopicsResponse::default().with_responses(results);
                response::encode(buffer, ApiKey::DeleteTopics, version, correlation_id, &answer)
            }
            (Asked::Extend(names), answer) => {
                let answer = extend_response(names, answer, refusal);
                response::encode(buffer, ApiKey::CreatePartitions, version, correlation_id, &answer)
            }
        };
        encoded.expect("every field set exists in every version served");
    }
}

fn create_response(
    asked: Vec<(String, Configs)>,
    answer: Option<ControllerAnswer>,
    refusal: ErrorCode,
    version: i16,
    scene: &Scene,
) -> CreateTopicsResponse {
    let results = match answer {
        Some(ControllerAnswer::Topics(topics)) => {
            let inherited =
                if version >= VERSION_CONFIGS { configs::of_new_topic(scene) } else { Vec::new() };
            let asked: BTreeMap<String, Configs> = asked.into_iter().collect();
            let configs = |topic: &TopicAnswer| {
                let own = asked.get(&topic.name).filter(|_| topic.result.is_ok());
                own.map(|own| configs::with_own(&inherited, own)).unwrap_or_default()
            };
            topics.into_iter().map(|topic| created(configs(&topic), topic)).collect()
        }
        _ => asked.into_iter().map(|(name, _)| not_created(name, refusal)).collect(),
    };
    CreateTopicsResponse::default().with_topics(results)
}

fn extend_response(
    names: Vec<String>,
    answer: Option<ControllerAnswer>,
    refusal: ErrorCode,
) -> CreatePartitionsResponse {
    let result = |(name, result): (String, Result<(), ApiError>)| {
        let error = result.err();
        CreatePartitionsTopicResult::default()
            .with_name(topic_name(name))
            .with_error_code(error.as_ref().map_or(0, |error| error.code.code()))
            .with_error_message(error.map(|error| StrBytes::from_string(error.message)))
    };
    let results = match answer {
        Some(ControllerAnswer::Partitions(topics)) => topics.into_iter().map(result).collect(),
        _ => {
            let refused = |name: String| {
                CreatePartitionsTopicResult::default()
                    .with_name(topic_name(name))
                    .with_error_code(refusal.code())
            };
            names.into_iter().map(refused).collect()
        }
    };
    CreatePartitionsResponse::default().with_results(results)
}

fn topic_name(name: String) -> TopicName {
    TopicName(StrBytes::from_string(name))
}

fn created(configs: Vec<CreatableTopicConfigs>, topic: TopicAnswer) -> CreatableTopicResult {
    let result = CreatableTopicResult::default().with_name(topic_name(topic.name));
    match topic.result {
        Ok(created) => result
            .with_topic_id(created.id)
            .with_num_partitions(created.partitions)
            .with_replication_factor(created.replication_factor)
            .with_configs(Some(configs)),
        Err(error) => result
            .with_error_code(error.code.code())
            .with_error_message(Some(StrBytes::from_string(error.message)))
            .with_num_partitions(-1)
            .with_replication_factor(-1),
    }
}

fn not_created(name: String, error: ErrorCode) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_name(topic_name(name))
        .with_error_code(error.code())
        .with_num_partitions(-1)
        .with_replication_factor(-1)
}

fn deleted(topic: DeletedTopic, version: i16) -> DeletableTopicResult {
    let result =
        DeletableTopicResult::default().with_name(topic.name.map(topic_name)).with_topic_id(topic.id);
    match topic.result {
        Ok(()) => result,
        Err(error) => {
            let message = (version >= 5).then(|| StrBytes::from_string(error.message));
            result.with_error_code(error.code.code()).with_error_message(message)
        }
    }
}

fn not_deleted(topic: TopicRef, error: ErrorCode, version: i16) -> DeletableTopicResult {
    let name = topic.name.or_else(|| (version < 6).then(String::new)).map(topic_name);
    DeletableTopicResult::default().with_name(name).with_topic_id(topic.id).with_error_code(error.code())
}
