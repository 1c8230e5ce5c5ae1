//! Metadata: brokers, topics and who leads them, from the Image. Topics that are not there are
//! created first where that is configured and the client allows it; the answer then waits until
//! they are, so that the first produce finds them.
//!
//! A request names its topics, or, from version 12 on, tells their ids. One id is enough to make ids of
//! all: what is only named is then left out, as in Kafka.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::authorized::{CLUSTER_OPERATIONS, NOT_ASKED, TOPIC_OPERATIONS};
use super::cluster::anyone;
use super::coordinator;
use super::leader_hint::endpoint;
use super::partition_state::{is_internal, partition_state, topic_name};
use super::{CloseReason, Scene, Work};
use crate::controller::{ControllerRequest, TopicImage, check_topic_name};
use crate::partition::ReplyTo;
use crate::wire::api::ApiKey;
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, error_number, guard, response};

/// First version that may tell a topic by its id, with a null name.
const VERSION_BY_ID: i16 = 12;
/// First version whose lists of replicas hold those on nodes that are not there.
const VERSION_OFFLINE: i16 = 1;
/// First version that tells a leader without the caller's listener from no leader.
const VERSION_LISTENER_ERROR: i16 = 6;

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
            let topics = missing.into_iter().map(|name| coordinator::new_topic(name, scene)).collect();
            scene.desk.controls.push((to, ControllerRequest::AutoCreateTopics { topics }));
        }
    }
    Ok(Work::Metadata(Box::new(metadata)))
}

impl Metadata {
    fn asked(&self) -> &[MetadataRequestTopic] {
        self.request.topics.as_deref().unwrap_or_default()
    }

    fn is_by_id(&self) -> bool {
        self.asked().iter().any(|topic| !topic.topic_id.is_nil())
    }

    /// Topics asked for by a valid name that the Image does not know.
    fn missing(&self, scene: &Scene) -> Vec<String> {
        if self.is_by_id() {
            return Vec::new();
        }
        let names = self.asked().iter().filter_map(|topic| topic.name.as_ref()).map(|name| name.as_str());
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

    pub(super) fn encode(self, header: &RequestHeader, buffer: &mut BytesMut, scene: &mut Scene) {
        let version = header.version;
        let topics_or_refusal = self.topics(version, scene);
        let brokers = brokers(scene);
        let told: Vec<i32> = brokers.iter().map(|broker| broker.node_id.0).collect();
        let controller = anyone(&told, &mut scene.desk.random);
        let answer = match topics_or_refusal {
            Ok(topics) => {
                let with_cluster_operations =
                    (8..=10).contains(&version) && self.request.include_cluster_authorized_operations;
                MetadataResponse::default()
                    .with_brokers(brokers)
                    .with_controller_id(BrokerId(controller))
                    .with_cluster_id(Some(StrBytes::from_string(scene.node.cluster_id.clone())))
                    .with_topics(topics)
                    .with_cluster_authorized_operations(if with_cluster_operations {
                        CLUSTER_OPERATIONS
                    } else {
                        NOT_ASKED
                    })
            }
            Err(refused) => MetadataResponse::default().with_topics(refused),
        };
        response::encode(buffer, ApiKey::Metadata, version, header.correlation_id, &answer)
            .expect("fields that a version lacks are left out");
    }

    /// The topics asked for, each once, or every topic with the reason why the request is refused.
    fn topics(
        &self,
        version: i16,
        scene: &Scene,
    ) -> Result<Vec<MetadataResponseTopic>, Vec<MetadataResponseTopic>> {
        let (image, asked) = (&scene.view.image, self.asked());
        let odd = |topic: &MetadataRequestTopic| topic.name.is_none() || !topic.topic_id.is_nil();
        if version < VERSION_BY_ID && asked.iter().any(odd) {
            return Err(asked.iter().map(refused).collect());
        }
        let with_operations = version >= 8 && self.request.include_topic_authorized_operations;
        let operations = if with_operations { TOPIC_OPERATIONS } else { NOT_ASKED };
        let known = |topic: &TopicImage| {
            known_topic(topic, version, scene).with_topic_authorized_operations(operations)
        };
        if self.request.topics.is_none() || (version == 0 && asked.is_empty()) {
            return Ok(image.topics().map(|topic| known(topic)).collect());
        }
        if self.is_by_id() {
            let mut told = BTreeSet::new();
            let ids = asked.iter().map(|topic| topic.topic_id).filter(|id| !id.is_nil());
            let once = ids.filter(|id| told.insert(*id));
            return Ok(once
                .map(|id| image.topic_by_id(id).map_or_else(|| unknown_id(id), |topic| known(topic)))
                .collect());
        }
        let mut told = BTreeSet::new();
        let once = asked.iter().map(|topic| topic.name.as_ref()).filter(|name| told.insert(*name));
        Ok(once
            .map(|name| match name {
                Some(name) => image.topic(name).map_or_else(
                    || unknown_name(name).with_topic_authorized_operations(operations),
                    |topic| known(topic),
                ),
                // Neither a name nor an id.
                None => unknown_id(Uuid::nil()),
            })
            .collect())
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

/// A topic of a request whose version has no ids; the name is never null there.
fn refused(topic: &MetadataRequestTopic) -> MetadataResponseTopic {
    MetadataResponseTopic::default()
        .with_error_code(ErrorCode::InvalidRequest.code())
        .with_name(Some(topic.name.clone().unwrap_or_default()))
        .with_topic_id(topic.topic_id)
        .with_topic_authorized_operations(NOT_ASKED)
}

fn unknown_id(id: Uuid) -> MetadataResponseTopic {
    MetadataResponseTopic::default()
        .with_error_code(ErrorCode::UnknownTopicId.code())
        .with_name(None)
        .with_topic_id(id)
        .with_topic_authorized_operations(NOT_ASKED)
}

fn unknown_name(name: &TopicName) -> MetadataResponseTopic {
    let error = match check_topic_name(name) {
        Ok(()) => ErrorCode::UnknownTopicOrPartition,
        Err(_) => ErrorCode::InvalidTopicException,
    };
    MetadataResponseTopic::default()
        .with_error_code(error.code())
        .with_name(Some(name.clone()))
        .with_is_internal(is_internal(name))
}

fn known_topic(topic: &TopicImage, version: i16, scene: &Scene) -> MetadataResponseTopic {
    let names_listeners = version >= VERSION_LISTENER_ERROR;
    let partitions = (0..topic.partitions.len() as i32).filter_map(|index| {
        let mut state = partition_state(scene, topic, index, names_listeners)?;
        if version < VERSION_OFFLINE {
            state.leave_out_offline();
        }
        Some(
            MetadataResponsePartition::default()
                .with_error_code(error_number(state.error))
                .with_partition_index(index)
                .with_leader_id(state.leader)
                .with_leader_epoch(state.leader_epoch)
                .with_replica_nodes(state.replicas)
                .with_isr_nodes(state.isr)
                .with_offline_replicas(state.offline),
        )
    });
    MetadataResponseTopic::default()
        .with_name(Some(topic_name(&topic.name)))
        .with_topic_id(topic.id)
        .with_is_internal(is_internal(&topic.name))
        .with_partitions(partitions.collect())
}

#[cfg(test)]
mod tests {
    use super::super::stage::Stage;
    use super::*;
    use crate::controller::request::NewTopic;

    fn named(name: &str) -> MetadataRequestTopic {
        MetadataRequestTopic::default().with_name(Some(topic_name(name)))
    }

    fn with_id(id: Uuid) -> MetadataRequestTopic {
        MetadataRequestTopic::default().with_name(None).with_topic_id(id)
    }

    fn ask(stage: &mut Stage, version: i16, topics: Option<Vec<MetadataRequestTopic>>) -> MetadataResponse {
        let request = MetadataRequest::default().with_topics(topics);
        let request = if version >= 4 { request.with_allow_auto_topic_creation(false) } else { request };
        stage.ask(ApiKey::Metadata, version, &request)
    }

    fn shown(response: &MetadataResponse) -> Vec<(i16, Option<&str>)> {
        let name =
            |topic: &MetadataResponseTopic| topic.name.as_ref().map(|name| name.0.as_str().to_string());
        response.topics.iter().map(|t| (t.error_code, name(t).map(|name| &*name.leak()))).collect()
    }

    #[test]
    fn null_asks_for_every_topic_and_an_empty_list_for_none_but_in_version_0() {
        let mut stage = Stage::new(&[("auto.create.topics.enable", "false")]);
        stage.topic("b", 2, &[1]);
        stage.topic("__consumer_offsets", 1, &[1, 1]);
        let all = [(0, Some("__consumer_offsets")), (0, Some("b"))];
        for version in 0..=13 {
            let none = if version == 0 { all.to_vec() } else { vec![] };
            assert_eq!(shown(&ask(&mut stage, version, Some(vec![]))), none, "v{version}");
            if version > 0 {
                let response = ask(&mut stage, version, None);
                assert_eq!(shown(&response), all, "v{version}");
                let internal: Vec<bool> = response.topics.iter().map(|topic| topic.is_internal).collect();
                assert_eq!(internal, [true, false]);
            }
        }
    }

    #[test]
    fn names_are_told_once_each_with_their_errors() {
        let mut stage = Stage::new(&[("auto.create.topics.enable", "false")]);
        stage.topic("b", 2, &[1]);
        let asked = ["b", "missing", "a b", "b", "missing"].map(named).to_vec();
        for version in 0..=13 {
            let response = ask(&mut stage, version, Some(asked.clone()));
            assert_eq!(shown(&response), [(0, Some("b")), (3, Some("missing")), (17, Some("a b"))]);
        }
    }

    #[test]
    fn ids_are_answered_from_version_12_on_and_names_beside_them_are_left_out() {
        let mut stage = Stage::new(&[]);
        let id = stage.topic("b", 2, &[1]);
        let unknown = Uuid::from_u128(99);
        let asked = vec![with_id(id), with_id(unknown), named("b"), with_id(id)];
        for version in [12, 13] {
            let response = ask(&mut stage, version, Some(asked.clone()));
            assert_eq!(shown(&response), [(0, Some("b")), (100, None)]);
            assert_eq!(response.topics[1].topic_id, unknown);
        }
        for version in [10, 11] {
            let response = ask(&mut stage, version, Some(vec![with_id(id), named("b")]));
            assert_eq!(shown(&response), [(42, Some("")), (42, Some("b"))], "v{version}");
        }
    }

    #[test]
    fn operations_are_told_where_they_were_asked_for() {
        let mut stage = Stage::new(&[("auto.create.topics.enable", "false"), ("broker.rack", "r1")]);
        stage.topic("b", 2, &[1]);
        for version in 8..=13 {
            let request = MetadataRequest::default()
                .with_topics(Some(vec![named("b"), named("missing")]))
                .with_include_topic_authorized_operations(true)
                .with_include_cluster_authorized_operations(version <= 10);
            let response: MetadataResponse = stage.ask(ApiKey::Metadata, version, &request);
            let topics: Vec<i32> = response.topics.iter().map(|t| t.topic_authorized_operations).collect();
            assert_eq!(topics, [3576, 3576]);
            let cluster = if version <= 10 { 8096 } else { i32::MIN };
            assert_eq!(response.cluster_authorized_operations, cluster, "v{version}");
            let quiet = ask(&mut stage, version, Some(vec![named("b")]));
            assert_eq!(quiet.topics[0].topic_authorized_operations, i32::MIN);
            assert_eq!(quiet.cluster_authorized_operations, i32::MIN);
            assert_eq!(quiet.brokers[0].rack.as_deref(), Some("r1"));
        }
    }

    #[test]
    fn a_topic_is_created_only_where_the_client_and_the_node_allow_it() {
        let mut stage = Stage::new(&[]);
        let request = |allowed| {
            let topics = vec![named("new"), named("a b")];
            MetadataRequest::default().with_topics(Some(topics)).with_allow_auto_topic_creation(allowed)
        };
        let (_, work) = stage.start(ApiKey::Metadata, 12, &request(true));
        assert!(!work.is_done());
        let (_, asked) = stage.desk.controls.pop().unwrap();
        assert_eq!(
            asked,
            ControllerRequest::AutoCreateTopics { topics: vec![NewTopic::with_defaults("new".into())] }
        );
        let (_, work) = stage.start(ApiKey::Metadata, 12, &request(false));
        assert!(work.is_done() && stage.desk.controls.is_empty());
        let by_id = MetadataRequest::default()
            .with_topics(Some(vec![with_id(Uuid::from_u128(9)), named("new")]))
            .with_allow_auto_topic_creation(true);
        let (_, work) = stage.start(ApiKey::Metadata, 12, &by_id);
        assert!(work.is_done() && stage.desk.controls.is_empty());
        let (_, work) =
            Stage::new(&[("auto.create.topics.enable", "false")]).start(ApiKey::Metadata, 12, &request(true));
        assert!(work.is_done());
    }
}
