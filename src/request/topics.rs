//! CreateTopics and DeleteTopics: checked and carried out by the controller; the answer leaves
//! when every shard of this node agrees with it.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{CloseReason, Scene, Work};
use crate::controller::request::{DeletedTopic, NewTopic, TopicAnswer, TopicRef};
use crate::controller::{ControllerAnswer, ControllerRequest};
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
    Create(Vec<String>),
    Delete(Vec<TopicRef>),
}

pub(super) fn create(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let request: CreateTopicsRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let names = request.topics.iter().map(|topic| topic.name.to_string()).collect();
    let topics = request.topics.into_iter().map(new_topic).collect();
    let validate_only = request.validate_only;
    scene.desk.controls.push((to, ControllerRequest::CreateTopics { topics, validate_only }));
    Ok(Work::Topics(Box::new(Topics { asked: Asked::Create(names), answer: None })))
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

impl Topics {
    pub(super) fn answer(&mut self, answer: ControllerAnswer) {
        self.answer = Some(answer);
    }

    pub(super) fn is_done(&self) -> bool {
        self.answer.is_some()
    }

    pub(super) fn encode(self, header: &RequestHeader, buffer: &mut BytesMut) {
        let refusal = match self.answer {
            Some(ControllerAnswer::Refused(error)) => error,
            _ => ErrorCode::UnknownServerError,
        };
        let (version, correlation_id) = (header.version, header.correlation_id);
        let encoded = match (self.asked, self.answer) {
            (Asked::Create(_), Some(ControllerAnswer::Topics(topics))) => {
                let results = topics.into_iter().map(created).collect();
                let answer = CreateTopicsResponse::default().with_topics(results);
                response::encode(buffer, ApiKey::CreateTopics, version, correlation_id, &answer)
            }
            (Asked::Create(names), _) => {
                let results = names.into_iter().map(|name| not_created(name, refusal)).collect();
                let answer = CreateTopicsResponse::default().with_topics(results);
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
        };
        encoded.expect("every field set exists in every version served");
    }
}

fn topic_name(name: String) -> TopicName {
    TopicName(StrBytes::from_string(name))
}

fn created(topic: TopicAnswer) -> CreatableTopicResult {
    let result = CreatableTopicResult::default().with_name(topic_name(topic.name));
    match topic.result {
        Ok(created) => result
            .with_topic_id(created.id)
            .with_num_partitions(created.partitions)
            .with_replication_factor(created.replication_factor)
            .with_configs(Some(Vec::new())),
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
