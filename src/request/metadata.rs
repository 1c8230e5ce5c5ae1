//! Metadata: brokers, topics and who leads them, from the Image. Topics that are not there are
//! created first where that is configured and the client allows it; the answer then waits until
//! they are, so that the first produce finds them.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::leader_hint::endpoint;
use super::{CloseReason, Scene, Work};
use crate::controller::{ControllerRequest, TopicImage, check_topic_name};
use crate::partition::ReplyTo;
use crate::wire::api::ApiKey;
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard, response};

/// Operations that anyone may do on a topic while there is no authorizer: read, write, create,
/// delete, alter, describe, describe and alter its configuration, as a bit field.
const TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;
/// Likewise on the cluster.
const CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;

/// A Metadata request that waits for topics to be created.
#[derive(Debug)]
pub struct Metadata {
    request: MetadataRequest,
    created: bool,
}

pub(super) fn start(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let request: MetadataRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let mut metadata = Metadata { request, created: true };
    let allowed = header.version < 4 || metadata.request.allow_auto_topic_creation;
    if allowed && scene.node.config.auto_create_topics {
        let missing = metadata.missing(scene);
        if !missing.is_empty() {
            metadata.created = false;
            scene.desk.controls.push((to, ControllerRequest::AutoCreateTopics { names: missing }));
        }
    }
    Ok(Work::Metadata(Box::new(metadata)))
}

impl Metadata {
    /// Topics asked for by a valid name that the Image does not know.
    fn missing(&self, scene: &Scene) -> Vec<String> {
        let topics = self.request.topics.iter().flatten();
        let names = topics.filter_map(|topic| topic.name.as_ref()).map(|name| name.as_str());
        let missing =
            names.filter(|name| scene.view.image.topic(name).is_none() && check_topic_name(name).is_ok());
        let unique: BTreeSet<&str> = missing.collect();
        unique.into_iter().map(str::to_string).collect()
    }

    pub(super) fn created(&mut self) {
        self.created = true;
    }

    pub(super) fn is_done(&self) -> bool {
        self.created
    }

    pub(super) fn encode(self, header: &RequestHeader, buffer: &mut BytesMut, scene: &Scene) {
        let (image, version) = (&scene.view.image, header.version);
        let with_topic_operations = version >= 8 && self.request.include_topic_authorized_operations;
        let operations = if with_topic_operations { TOPIC_OPERATIONS } else { i32::MIN };
        let mut topics = match &self.request.topics {
            Some(asked) if !asked.is_empty() || version > 0 => {
                let asked = asked.iter().map(|t| (t.name.as_ref(), t.topic_id));
                asked.map(|(name, id)| one_topic(name, id, scene)).collect()
            }
            _ => image.topics().map(|topic| known_topic(topic)).collect::<Vec<_>>(),
        };
        for topic in &mut topics {
            topic.topic_authorized_operations = if topic.error_code == 0 { operations } else { i32::MIN };
        }
        let mut answer = MetadataResponse::default()
            .with_brokers(brokers(scene))
            .with_controller_id(BrokerId(scene.node.config.node_id))
            .with_cluster_id(Some(StrBytes::from_string(scene.node.cluster_id.clone())))
            .with_topics(topics);
        let with_cluster_operations =
            (8..=10).contains(&version) && self.request.include_cluster_authorized_operations;
        answer.cluster_authorized_operations =
            if with_cluster_operations { CLUSTER_OPERATIONS } else { i32::MIN };
        response::encode(buffer, ApiKey::Metadata, version, header.correlation_id, &answer)
            .expect("fields that a version lacks are left out");
    }
}

/// Every live broker, at its endpoint on the listener that the request came in on.
fn brokers(scene: &Scene) -> Vec<MetadataResponseBroker> {
    let nodes = scene.view.image.brokers().filter_map(|broker| endpoint(scene, broker.node_id));
    nodes
        .map(|node| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(node.node_id))
                .with_host(StrBytes::from_string(node.host.to_string()))
                .with_port(node.port)
                .with_rack(node.rack.map(|rack| StrBytes::from_string(rack.to_string())))
        })
        .collect()
}

fn one_topic(name: Option<&TopicName>, id: Uuid, scene: &Scene) -> MetadataResponseTopic {
    let image = &scene.view.image;
    let (found, missing) = match name {
        Some(name) if check_topic_name(name).is_err() => (None, ErrorCode::InvalidTopicException),
        Some(name) => (image.topic(name), ErrorCode::UnknownTopicOrPartition),
        None => (image.topic_by_id(id), ErrorCode::UnknownTopicId),
    };
    match found {
        Some(topic) => known_topic(topic),
        None => MetadataResponseTopic::default()
            .with_error_code(missing.code())
            .with_name(name.cloned())
            .with_topic_id(id)
            .with_topic_authorized_operations(i32::MIN),
    }
}

fn known_topic(topic: &TopicImage) -> MetadataResponseTopic {
    let ids = |ids: &[i32]| ids.iter().map(|id| BrokerId(*id)).collect::<Vec<_>>();
    let partitions = (0..).zip(&topic.partitions).map(|(index, partition)| {
        let error = (partition.leader < 0).then_some(ErrorCode::LeaderNotAvailable);
        MetadataResponsePartition::default()
            .with_error_code(crate::wire::error_number(error))
            .with_partition_index(index)
            .with_leader_id(BrokerId(partition.leader))
            .with_leader_epoch(partition.leader_epoch)
            .with_replica_nodes(ids(&partition.replicas))
            .with_isr_nodes(ids(&partition.isr))
    });
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(topic.name.to_string()))))
        .with_topic_id(topic.id)
        .with_is_internal(matches!(topic.name.as_ref(), "__consumer_offsets" | "__transaction_state"))
        .with_partitions(partitions.collect())
}
