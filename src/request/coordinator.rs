//! FindCoordinator: which node leads the partition of the offsets topic that a group belongs to. The topic is created
//! when the first group is asked for; the answer waits until it is there, so that the client need not ask again.
//!
//! There is no transaction coordinator yet: a transactional id gets an error that producers treat as fatal. A key of a
//! share group is refused as a Kafka without share groups refuses it.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use super::leader_hint::endpoint;
use super::{CloseReason, Scene, Work};
use crate::config::NodeConfig;
use crate::controller::ControllerRequest;
use crate::controller::request::NewTopic;
use crate::group::{self, OFFSETS_TOPIC};
use crate::partition::ReplyTo;
use crate::wire::api::ApiKey;
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, NodeEndpoint, error_number, guard, response};

/// Kafka's numbers of the key types.
const KEY_TYPE_GROUP: i8 = 0;
const KEY_TYPE_TRANSACTION: i8 = 1;
/// First version that asks for many keys at once.
const VERSION_KEYS: i16 = 4;

/// A FindCoordinator request that may wait for the offsets topic.
#[derive(Debug)]
pub struct FindCoordinator {
    request: FindCoordinatorRequest,
    created: bool,
}

/// The partition of the offsets topic that a group belongs to, also before the topic is there.
pub(super) fn partition_of(group: &str, scene: &Scene) -> i32 {
    let topic = scene.view.image.topic(OFFSETS_TOPIC);
    let partitions = topic.map(|topic| topic.partitions.len() as i32).filter(|partitions| *partitions > 0);
    group::partition_of(group, partitions.unwrap_or(scene.node.config.group.offsets_topic_num_partitions))
}

/// A topic as it is created for whoever wants to use it: the offsets topic has settings of its own.
pub(super) fn new_topic(name: String, scene: &Scene) -> NewTopic {
    if name != OFFSETS_TOPIC {
        return NewTopic::with_defaults(name);
    }
    let config = &scene.node.config.group;
    let factor = config.offsets_topic_replication_factor;
    let live = scene.view.image.brokers().filter(|broker| !broker.fenced).count().max(1);
    let most = if is_alone(&scene.node.config) { i16::try_from(live).unwrap_or(i16::MAX) } else { factor };
    let configs = [
        ("cleanup.policy", "compact".to_string()),
        ("compression.type", "producer".to_string()),
        ("segment.bytes", config.offsets_topic_segment_bytes.to_string()),
    ];
    NewTopic {
        name,
        partitions: config.offsets_topic_num_partitions,
        replication_factor: factor.min(most),
        configs: configs.into_iter().map(|(key, value)| (key.to_string(), Some(value))).collect(),
        ..NewTopic::default()
    }
}

/// Whether this node is configured as a whole cluster: it need not know of replication factors. In any other cluster
/// the offsets topic waits for as many brokers as it is to have replicas, as in Kafka: made by whoever came up first,
/// it would be lost with one disk.
fn is_alone(config: &NodeConfig) -> bool {
    let cluster = &config.cluster;
    config.roles.broker
        && config.roles.controller
        && cluster.voters.len() <= 1
        && cluster.bootstrap_servers.is_empty()
}

pub(super) fn find(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let request: FindCoordinatorRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let asks = header.version < VERSION_KEYS || !request.coordinator_keys.is_empty();
    let created =
        !asks || request.key_type != KEY_TYPE_GROUP || scene.view.image.topic(OFFSETS_TOPIC).is_some();
    if !created {
        let topics = vec![new_topic(OFFSETS_TOPIC.to_string(), scene)];
        scene.desk.controls.push((to, ControllerRequest::AutoCreateTopics { topics }));
    }
    Ok(Work::FindCoordinator(Box::new(FindCoordinator { request, created })))
}

impl FindCoordinator {
    /// The topic is there, or cannot be created now.
    pub(super) fn created(&mut self) {
        self.created = true;
    }

    pub(super) fn is_done(&self) -> bool {
        self.created
    }

    pub(super) fn encode(self, header: &RequestHeader, buffer: &mut BytesMut, scene: &Scene) {
        let key_type = self.request.key_type;
        let mut answer = FindCoordinatorResponse::default();
        if header.version >= VERSION_KEYS {
            let keys = self.request.coordinator_keys.into_iter();
            answer.coordinators = keys.map(|key| coordinator(key, key_type, scene)).collect();
        } else {
            let found = coordinator(self.request.key, key_type, scene);
            answer = answer
                .with_error_code(found.error_code)
                .with_node_id(found.node_id)
                .with_host(found.host)
                .with_port(found.port);
            if header.version >= 1 {
                answer.error_message = found.error_message;
            }
        }
        let (version, correlation_id) = (header.version, header.correlation_id);
        response::encode(buffer, ApiKey::FindCoordinator, version, correlation_id, &answer)
            .expect("every field set exists in every version served");
    }
}

fn coordinator(key: StrBytes, key_type: i8, scene: &Scene) -> Coordinator {
    let found = locate(&key, key_type, scene);
    let error = found.as_ref().err().map(|(error, _)| *error);
    let message = found.as_ref().err().map(|(_, message)| StrBytes::from_static_str(message));
    let node = found.ok();
    Coordinator::default()
        .with_key(key)
        .with_node_id(BrokerId(node.map_or(-1, |node| node.node_id)))
        .with_host(StrBytes::from_string(node.map_or(String::new(), |node| node.host.to_string())))
        .with_port(node.map_or(-1, |node| node.port))
        .with_error_code(error_number(error))
        .with_error_message(message)
}

fn locate<'a>(
    key: &str,
    key_type: i8,
    scene: &Scene<'a>,
) -> Result<NodeEndpoint<'a>, (ErrorCode, &'static str)> {
    match key_type {
        KEY_TYPE_GROUP => {}
        KEY_TYPE_TRANSACTION => {
            return Err((ErrorCode::UnsupportedVersion, "there are no transactions yet"));
        }
        _ => return Err((ErrorCode::InvalidRequest, "no coordinator is there for this type of key")),
    }
    let unavailable = (ErrorCode::CoordinatorNotAvailable, "The coordinator is not available.");
    let topic = scene.view.image.topic(OFFSETS_TOPIC).ok_or(unavailable)?;
    let index = partition_of(key, scene);
    let partition = usize::try_from(index).ok().and_then(|index| topic.partitions.get(index));
    let leader = partition.map_or(-1, |partition| partition.leader);
    let is_lost =
        leader == scene.node.config.node_id && scene.desk.is_on_failed_directory(scene.view, topic.id, index);
    endpoint(scene, leader).filter(|_| leader >= 0 && !is_lost).ok_or(unavailable)
}

#[cfg(test)]
mod tests {
    use super::super::Answered;
    use super::super::stage::{Stage, TO};
    use super::*;
    use crate::config::{Endpoint, Voter};
    use crate::controller::ControllerAnswer;

    fn request(version: i16, key_type: i8, key: &'static str) -> FindCoordinatorRequest {
        let key = StrBytes::from_static_str(key);
        let request = if version >= 4 {
            FindCoordinatorRequest::default().with_coordinator_keys(vec![key])
        } else {
            FindCoordinatorRequest::default().with_key(key)
        };
        if version >= 1 { request.with_key_type(key_type) } else { request }
    }

    /// Error, node, host and port of the only key.
    fn told(version: i16, response: FindCoordinatorResponse) -> (i16, i32, String, i32) {
        let (error, node, host, port) = if version >= 4 {
            let one = response.coordinators.into_iter().next().unwrap();
            (one.error_code, one.node_id, one.host, one.port)
        } else {
            (response.error_code, response.node_id, response.host, response.port)
        };
        (error, node.0, host.to_string(), port)
    }

    #[test]
    fn the_first_group_creates_the_topic_and_waits_for_it() {
        for version in 0..=6 {
            let mut stage = Stage::new(&[("offsets.topic.num.partitions", "4")]);
            let (header, mut work) = stage.start(ApiKey::FindCoordinator, version, &request(version, 0, "g"));
            assert!(!work.is_done());
            let (_, asked) = stage.desk.controls.pop().unwrap();
            let ControllerRequest::AutoCreateTopics { topics } = asked else { panic!("a creation") };
            assert_eq!((topics[0].partitions, topics[0].replication_factor), (4, 1), "one broker is there");
            let text = topics[0].configs.iter().map(|(k, v)| format!("{k}={}", v.as_deref().unwrap()));
            let text: Vec<String> = text.collect();
            assert_eq!(
                text,
                ["cleanup.policy=compact", "compression.type=producer", "segment.bytes=104857600"]
            );
            stage.topic(OFFSETS_TOPIC, 9, &[1, 1, 1, 1]);
            let answer = Answered::Controller(Box::new(ControllerAnswer::Topics(Vec::new())));
            work.answer(&header, TO, answer, &mut stage.scene());
            let told = told(version, stage.finish(&header, work));
            assert_eq!(told, (0, 1, "host-1".to_string(), 9092));
        }
    }

    #[test]
    fn in_a_cluster_the_topic_waits_for_as_many_brokers_as_it_is_to_have_replicas() {
        let mut stage = Stage::new(&[]);
        let voter = |node_id: i32| Voter { node_id, endpoint: Endpoint { host: "host".into(), port: 9093 } };
        stage.node.config.cluster.voters = (1..=3).map(voter).collect();
        let (header, mut work) = stage.start(ApiKey::FindCoordinator, 4, &request(4, 0, "g"));
        let (_, asked) = stage.desk.controls.pop().unwrap();
        let ControllerRequest::AutoCreateTopics { topics } = asked else { panic!("a creation") };
        assert_eq!(topics[0].replication_factor, 3, "also while one broker is there");
        // The controller has refused it.
        let answer = Answered::Controller(Box::new(ControllerAnswer::Topics(Vec::new())));
        work.answer(&header, TO, answer, &mut stage.scene());
        assert_eq!(told(4, stage.finish(&header, work)).0, 15);
    }

    #[test]
    fn a_partition_without_a_leader_has_no_coordinator() {
        let mut stage = Stage::new(&[]);
        let id = stage.topic(OFFSETS_TOPIC, 9, &[1, -1]);
        // "a" hashes to 97, "b" to 98.
        for (key, expected) in [("a", 15), ("b", 0)] {
            let response = stage.ask(ApiKey::FindCoordinator, 4, &request(4, 0, key));
            assert_eq!(told(4, response).0, expected, "{key}");
        }
        stage.place(id);
        stage.desk.directory_failed(0);
        assert_eq!(told(4, stage.ask(ApiKey::FindCoordinator, 4, &request(4, 0, "b"))).0, 15);
    }

    #[test]
    fn transactional_ids_and_share_groups_have_no_coordinator_and_create_nothing() {
        for version in 1..=6 {
            let mut stage = Stage::new(&[]);
            for (key_type, error) in [(1, 35), (2, 42), (9, 42)] {
                let response = stage.ask(ApiKey::FindCoordinator, version, &request(version, key_type, "k"));
                assert_eq!(told(version, response), (error, -1, String::new(), -1), "v{version}");
            }
            assert!(stage.desk.controls.is_empty());
        }
    }
}
