//! DescribeQuorum: the metadata quorum, from the raft state of the controller. Its log is called
//! `__cluster_metadata` here, as tools ask for it; offsets count raft entries.
//!
//! A member is known by a half of its directory's id, its raft id. The whole id is told where the broker of the node
//! has registered the directory, else the half in the place where it stands: that is enough to remove a voter whose
//! disk is lost. Of voters that are fixed in the configuration no directory is told, as by Kafka.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::describe_quorum_request::PartitionData as Asked1;
use kafka_protocol::messages::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState, TopicData,
};
use kafka_protocol::messages::{BrokerId, DescribeQuorumRequest, DescribeQuorumResponse, TopicName};
use uuid::Uuid;

use super::controlled::{Asked, Controlled};
use super::voters::has_fixed_voters;
use super::{CloseReason, Scene, StrBytes, Work, encoded};
use crate::controller::quorum::raft_id_of;
use crate::controller::request::{QuorumReplica, QuorumState};
use crate::controller::{ControllerAnswer, ControllerRequest, Endpoint, Image};
use crate::partition::ReplyTo;
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard};

const TOPIC: &str = "__cluster_metadata";
/// First version with the voters' addresses, and with messages.
const VERSION_NODES: i16 = 2;
/// First version that tells when voters have fetched.
const VERSION_TIMES: i16 = 1;

/// First version that tells directories.
const VERSION_DIRECTORIES: i16 = 2;

/// What is told without the controller.
#[derive(Debug)]
pub(super) struct Describe {
    node_id: i32,
    now_ms: i64,
    listeners: Vec<Listener>,
    image: Arc<Image>,
    /// The configuration names the voters, and no disks.
    has_fixed_voters: bool,
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
        image: Arc::clone(&scene.view.image),
        has_fixed_voters: has_fixed_voters(scene),
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
                return encoded(header, &self.described(header.version, state));
            }
            // Kafka's answer of a voter that does not lead: the partition has another leader.
            Some(ControllerAnswer::Refused(ErrorCode::NotController)) => {
                let elsewhere =
                    PartitionData::default().with_error_code(ErrorCode::NotLeaderOrFollower.code());
                return encoded(header, &response.with_topics(vec![the_log(elsewhere)]));
            }
            Some(ControllerAnswer::Refused(code)) => code,
            _ => ErrorCode::UnknownServerError,
        };
        encoded(header, &response.with_error_code(code.code()))
    }

    fn described(self, version: i16, mut state: QuorumState) -> DescribeQuorumResponse {
        let is_alone = state.observers.is_empty() && state.voters.len() <= 1;
        if is_alone {
            state.leader_id = self.node_id;
            state.voters = vec![self.alone(&state)];
        }
        for members in [&mut state.voters, &mut state.observers] {
            members.sort_by_key(|member| (member.node_id, member.raft_id));
        }
        let voter = |member: &QuorumReplica| self.replica(version, member, self.has_fixed_voters || is_alone);
        let partition = PartitionData::default()
            .with_partition_index(0)
            .with_leader_id(BrokerId(state.leader_id))
            .with_leader_epoch(state.leader_epoch)
            .with_high_watermark(state.high_watermark)
            .with_current_voters(state.voters.iter().map(voter).collect())
            .with_observers(state.observers.iter().map(|one| self.replica(version, one, false)).collect());
        let response = DescribeQuorumResponse::default().with_topics(vec![the_log(partition)]);
        if version < VERSION_NODES {
            return response;
        }
        let node = |voter: &QuorumReplica| {
            let listeners = if voter.node_id == self.node_id {
                self.listeners.clone()
            } else {
                vec![listener(&voter.endpoint)]
            };
            Node::default().with_node_id(BrokerId(voter.node_id)).with_listeners(listeners)
        };
        response.with_nodes(state.voters.iter().map(node).collect())
    }

    /// The only member there is: this node.
    fn alone(&self, state: &QuorumState) -> QuorumReplica {
        QuorumReplica {
            node_id: self.node_id,
            raft_id: 0,
            endpoint: Endpoint { name: "".into(), host: "".into(), port: 0, security_protocol: 0 },
            log_end_offset: state.log_end_offset,
            // The leader counts as caught up with itself at every moment.
            last_fetch_ms: self.now_ms,
            last_caught_up_ms: self.now_ms,
        }
    }

    fn replica(&self, version: i16, member: &QuorumReplica, is_without_disk: bool) -> ReplicaState {
        let mut told = ReplicaState::default()
            .with_replica_id(BrokerId(member.node_id))
            .with_log_end_offset(member.log_end_offset);
        if version >= VERSION_TIMES {
            told = told
                .with_last_fetch_timestamp(member.last_fetch_ms)
                .with_last_caught_up_timestamp(member.last_caught_up_ms);
        }
        if version >= VERSION_DIRECTORIES && !is_without_disk {
            told = told.with_replica_directory_id(self.directory_of(member));
        }
        told
    }

    fn directory_of(&self, member: &QuorumReplica) -> Uuid {
        let broker = self.image.broker(member.node_id);
        let mut registered = broker.into_iter().flat_map(|broker| &broker.directories);
        let known = registered.find(|directory| raft_id_of(**directory) == member.raft_id);
        known.copied().unwrap_or_else(|| Uuid::from_u64_pair(0, member.raft_id))
    }
}

/// The only partition there is.
fn the_log(partition: PartitionData) -> TopicData {
    TopicData::default()
        .with_topic_name(TopicName(StrBytes::from_static_str(TOPIC)))
        .with_partitions(vec![partition])
}

fn listener(endpoint: &Endpoint) -> Listener {
    Listener::default()
        .with_name(StrBytes::from_string(endpoint.name.to_string()))
        .with_host(StrBytes::from_string(endpoint.host.to_string()))
        .with_port(endpoint.port)
}

#[cfg(test)]
mod tests {
    use super::super::stage::Stage;
    use super::*;
    use crate::controller::BrokerRegistration;
    use crate::controller::record::Record;
    use crate::wire::api::ApiKey;

    const FIXED: [(&str, &str); 3] = [
        ("listeners", "PLAINTEXT://:9092,CONTROLLER://own:9093"),
        ("controller.listener.names", "CONTROLLER"),
        ("controller.quorum.voters", "1@own:9093,2@b:9093"),
    ];
    const OPEN: [(&str, &str); 3] = [FIXED[0], FIXED[1], ("controller.quorum.bootstrap.servers", "own:9093")];

    fn member(node_id: i32, raft_id: u64, log_end_offset: i64, heard_ms: i64) -> QuorumReplica {
        let host = format!("host-{node_id}").as_str().into();
        let endpoint = Endpoint { name: "CONTROLLER".into(), host, port: 9093, security_protocol: 0 };
        QuorumReplica {
            node_id,
            raft_id,
            endpoint,
            log_end_offset,
            last_fetch_ms: heard_ms,
            last_caught_up_ms: heard_ms.min(900),
        }
    }

    fn asking() -> DescribeQuorumRequest {
        let partition = Asked1::default().with_partition_index(0);
        let topic = kafka_protocol::messages::describe_quorum_request::TopicData::default()
            .with_topic_name(TopicName(StrBytes::from_static_str(TOPIC)))
            .with_partitions(vec![partition]);
        DescribeQuorumRequest::default().with_topics(vec![topic])
    }

    fn describe(config: &[(&str, &str)], version: i16) -> DescribeQuorumResponse {
        let mut stage = Stage::new(config);
        stage.apply(Record::RegisterBroker(BrokerRegistration {
            node_id: 2,
            incarnation: Uuid::from_u128(1),
            epoch: 1,
            listeners: Vec::new(),
            rack: None,
            fenced: false,
            in_controlled_shutdown: false,
            directories: vec![Uuid::from_u64_pair(1, 31), Uuid::from_u64_pair(2, 20)],
        }));
        let state = QuorumState {
            leader_id: 1,
            leader_epoch: 3,
            high_watermark: 7,
            log_end_offset: 9,
            voters: vec![member(2, 21, 8, 1_000), member(1, 33, 9, 1_000)],
            observers: vec![member(3, 15, -1, -1)],
        };
        stage.ask_controller(ApiKey::DescribeQuorum, version, &asking(), ControllerAnswer::Quorum(state)).1
    }

    #[test]
    fn all_members_are_told_with_what_the_leader_knows_of_them() {
        for version in 0..=2 {
            let response = describe(&OPEN, version);
            let told = &response.topics[0].partitions[0];
            assert_eq!((told.leader_id.0, told.leader_epoch, told.high_watermark), (1, 3, 7));
            let shown = |one: &ReplicaState| {
                let times = (one.last_fetch_timestamp, one.last_caught_up_timestamp);
                (one.replica_id.0, one.log_end_offset, times, one.replica_directory_id)
            };
            let of = |halves: (u64, u64)| Uuid::from_u64_pair(halves.0, halves.1);
            let at = |times, directory| match version {
                0 => ((-1, -1), Uuid::nil()),
                1 => (times, Uuid::nil()),
                _ => (times, of(directory)),
            };
            let expected = |node, end, times, directory| {
                let (times, directory) = at(times, directory);
                (node, end, times, directory)
            };
            let voters: Vec<_> = told.current_voters.iter().map(shown).collect();
            let one = expected(1, 9, (1_000, 900), (0, 33));
            // The directory that its broker has registered.
            let two = expected(2, 8, (1_000, 900), (2, 20));
            assert_eq!(voters, [one, two], "v{version}");
            let observers: Vec<_> = told.observers.iter().map(shown).collect();
            assert_eq!(observers, [expected(3, -1, (-1, -1), (0, 15))], "v{version}");
            let nodes = response.nodes.iter().map(|node| {
                let at = &node.listeners[0];
                (node.node_id.0, at.name.as_str(), at.host.as_str(), at.port)
            });
            let nodes: Vec<_> = nodes.collect();
            let expected = [(1, "CONTROLLER", "own", 9093), (2, "CONTROLLER", "host-2", 9093)];
            assert_eq!(nodes, expected[..if version < 2 { 0 } else { 2 }]);
        }
    }

    #[test]
    fn a_directory_that_is_told_is_enough_to_remove_its_voter() {
        let response = describe(&OPEN, 2);
        let voters = &response.topics[0].partitions[0].current_voters;
        let raft_ids: Vec<u64> = voters.iter().map(|one| raft_id_of(one.replica_directory_id)).collect();
        assert_eq!(raft_ids, [33, 21]);
    }

    #[test]
    fn voters_of_the_configuration_have_no_directories() {
        let response = describe(&FIXED, 2);
        let told = &response.topics[0].partitions[0];
        assert!(told.current_voters.iter().all(|one| one.replica_directory_id.is_nil()));
        assert!(!told.observers[0].replica_directory_id.is_nil());
    }

    #[test]
    fn a_voter_that_does_not_lead_says_so_of_the_partition() {
        for version in 0..=2 {
            let refused = ControllerAnswer::Refused(ErrorCode::NotController);
            let (_, response): (_, DescribeQuorumResponse) =
                Stage::new(&OPEN).ask_controller(ApiKey::DescribeQuorum, version, &asking(), refused);
            let partition = &response.topics[0].partitions[0];
            assert_eq!((response.error_code, partition.error_code), (0, 6));
        }
    }
}
