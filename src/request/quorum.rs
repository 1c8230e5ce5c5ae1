//! DescribeQuorum: the metadata quorum, from the raft state of the controller. Its log is called
//! `__cluster_metadata` here, as tools ask for it; offsets count raft entries.

use bytes::Bytes;
use kafka_protocol::messages::describe_quorum_request::PartitionData as Asked1;
use kafka_protocol::messages::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState, TopicData,
};
use kafka_protocol::messages::{BrokerId, DescribeQuorumRequest, DescribeQuorumResponse, TopicName};

use super::controlled::{Asked, Controlled};
use super::{CloseReason, Scene, StrBytes, Work, encoded};
use crate::controller::request::QuorumState;
use crate::controller::{ControllerAnswer, ControllerRequest};
use crate::partition::ReplyTo;
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard};

const TOPIC: &str = "__cluster_metadata";
/// First version with the voters' addresses, and with messages.
const VERSION_NODES: i16 = 2;
/// First version that tells when voters have fetched.
const VERSION_TIMES: i16 = 1;

/// What is told without the controller.
#[derive(Debug)]
pub(super) struct Describe {
    node_id: i32,
    now_ms: i64,
    listeners: Vec<Listener>,
}

pub(super) fn describe(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let request: DescribeQuorumRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let is_quorum = |partitions: &[Asked1]| matches!(partitions, [only] if only.partition_index == 0);
    match request.topics.as_slice() {
        [topic] if topic.topic_name.as_str() == TOPIC && is_quorum(&topic.partitions) => {}
        _ => {
            let topics = request.topics.into_iter().map(|topic| {
                let partitions =
                    topic.partitions.iter().map(|one| unknown(one.partition_index, header.version));
                TopicData::default().with_topic_name(topic.topic_name).with_partitions(partitions.collect())
            });
            return Ok(encoded(header, &DescribeQuorumResponse::default().with_topics(topics.collect())));
        }
    }
    scene.desk.controls.push((to, ControllerRequest::DescribeQuorum));
    Ok(Controlled::waiting(Asked::DescribeQuorum(Describe {
        node_id: scene.node.config.node_id,
        now_ms: scene.now.wall_ms,
        listeners: listeners(scene),
    })))
}

fn unknown(index: i32, version: i16) -> PartitionData {
    let words = StrBytes::from_static_str("This server does not host this topic-partition.");
    let words = Some(words).filter(|_| version >= VERSION_NODES);
    PartitionData::default()
        .with_partition_index(index)
        .with_error_code(ErrorCode::UnknownTopicOrPartition.code())
        .with_error_message(words)
        .with_leader_id(BrokerId(0))
}

/// Where the controller listens; clients' listeners take its requests too, so there may be no other.
fn listeners(scene: &Scene) -> Vec<Listener> {
    let config = &scene.node.config;
    let is_controllers = |name: &String| config.controller_listeners.contains(name);
    let own = config.listeners.iter().filter(|listener| is_controllers(&listener.name));
    own.map(|listener| {
        let at = listener.advertised.as_ref().unwrap_or(&listener.bind);
        Listener::default()
            .with_name(StrBytes::from_string(listener.name.clone()))
            .with_host(StrBytes::from_string(at.host.clone()))
            .with_port(at.port)
    })
    .collect()
}

impl Describe {
    pub(super) fn encode(self, header: &RequestHeader, answer: Option<ControllerAnswer>) -> Work {
        let response = DescribeQuorumResponse::default();
        let code = match answer {
            Some(ControllerAnswer::Quorum(state)) => {
                return encoded(header, &self.described(header.version, state, response));
            }
            Some(ControllerAnswer::Refused(code)) => code,
            _ => ErrorCode::UnknownServerError,
        };
        encoded(header, &response.with_error_code(code.code()))
    }

    fn described(
        self,
        version: i16,
        state: QuorumState,
        response: DescribeQuorumResponse,
    ) -> DescribeQuorumResponse {
        let voter = ReplicaState::default()
            .with_replica_id(BrokerId(self.node_id))
            .with_log_end_offset(state.log_end_offset);
        let voter = if version >= VERSION_TIMES {
            // The leader counts as caught up with itself at every moment.
            voter.with_last_fetch_timestamp(self.now_ms).with_last_caught_up_timestamp(self.now_ms)
        } else {
            voter
        };
        let partition = PartitionData::default()
            .with_partition_index(0)
            .with_leader_id(BrokerId(self.node_id))
            .with_leader_epoch(state.leader_epoch)
            .with_high_watermark(state.high_watermark)
            .with_current_voters(vec![voter]);
        let topic = TopicData::default()
            .with_topic_name(TopicName(StrBytes::from_static_str(TOPIC)))
            .with_partitions(vec![partition]);
        let response = response.with_topics(vec![topic]);
        if version < VERSION_NODES {
            return response;
        }
        let node = Node::default().with_node_id(BrokerId(self.node_id)).with_listeners(self.listeners);
        response.with_nodes(vec![node])
    }
}
