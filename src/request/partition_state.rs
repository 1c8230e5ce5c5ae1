//! What Metadata and DescribeTopicPartitions tell of one partition: who leads it, who holds it, and which
//! of its replicas are offline.

use kafka_protocol::messages::{BrokerId, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::Scene;
use super::leader_hint::endpoint;
use crate::controller::TopicImage;
use crate::wire::ErrorCode;

/// One partition as a client is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartitionState {
    pub error: Option<ErrorCode>,
    /// Node id, -1 if nobody leads or the leader cannot be reached by the listener of the request.
    pub leader: BrokerId,
    pub leader_epoch: i32,
    pub replicas: Vec<BrokerId>,
    pub isr: Vec<BrokerId>,
    /// Replicas on nodes that are not there, or in log directories that have failed.
    pub offline: Vec<BrokerId>,
    /// Eligible leader replicas (KIP-966).
    pub elr: Vec<BrokerId>,
    /// Who led last where nobody can.
    pub last_known_elr: Vec<BrokerId>,
}

impl PartitionState {
    /// As the oldest version of Metadata tells it: replicas that are not there are left out, and that some are is an
    /// error of a partition that has a leader.
    pub fn leave_out_offline(&mut self) {
        let known = (self.replicas.len(), self.isr.len());
        self.replicas.retain(|node| !self.offline.contains(node));
        self.isr.retain(|node| !self.offline.contains(node));
        if known != (self.replicas.len(), self.isr.len()) {
            self.error.get_or_insert(ErrorCode::ReplicaNotAvailable);
        }
    }
}

/// The state of a partition; `None` if the topic has no such partition. `names_listeners`: the caller
/// tells a leader without the caller's listener from no leader at all.
pub(super) fn partition_state(
    scene: &Scene,
    topic: &TopicImage,
    index: i32,
    names_listeners: bool,
) -> Option<PartitionState> {
    let partition = topic.partitions.get(usize::try_from(index).ok()?)?;
    let node_id = scene.node.config.node_id;
    let failed = scene.desk.is_on_failed_directory(scene.view, topic.id, index);
    let in_lost_directory = |node: &i32| {
        let broker = scene.view.image.broker(*node);
        broker.is_some_and(|broker| !broker.has_online(partition.directory_of(*node)))
    };
    let is_away = |node: &i32| (*node == node_id && failed) || endpoint(scene, *node).is_none();
    let is_offline = |node: &i32| is_away(node) || in_lost_directory(node);
    let ids = |ids: &[i32]| ids.iter().map(|id| BrokerId(*id)).collect::<Vec<_>>();
    let has_leader = partition.leader >= 0 && !is_away(&partition.leader);
    let registered = scene.view.image.broker(partition.leader).is_some_and(|broker| !broker.fenced);
    let unreachable = registered && !(partition.leader == node_id && failed);
    let error = match (has_leader, unreachable && names_listeners) {
        (true, _) => None,
        (false, true) => Some(ErrorCode::ListenerNotFound),
        (false, false) => Some(ErrorCode::LeaderNotAvailable),
    };
    Some(PartitionState {
        error,
        leader: BrokerId(if has_leader { partition.leader } else { -1 }),
        leader_epoch: partition.leader_epoch,
        replicas: ids(&partition.replicas),
        isr: ids(&partition.isr),
        offline: partition.replicas.iter().filter(|node| is_offline(node)).map(|id| BrokerId(*id)).collect(),
        elr: ids(&partition.elr),
        last_known_elr: ids(&partition.last_known_elr),
    })
}

/// The topics that are Kafka's own.
pub(super) fn is_internal(topic: &str) -> bool {
    matches!(topic, "__consumer_offsets" | "__transaction_state" | "__share_group_state")
}

/// A topic's name on the wire.
pub(super) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::stage::Stage;
    use super::*;
    use crate::controller::record::{BrokerRegistration, PartitionChange, Record};

    #[test]
    fn a_replica_is_offline_with_its_node_or_its_directory() {
        let mut stage = Stage::new(&[]);
        stage.broker(2, None, true);
        let id = stage.topic("t", 7, &[1, 2, -1]);
        let topic = stage.view.image.topic_by_id(id).unwrap().clone();
        let state = |stage: &mut Stage, index| partition_state(&stage.scene(), &topic, index, true).unwrap();
        let healthy = state(&mut stage, 0);
        assert_eq!((healthy.error, healthy.leader.0, healthy.leader_epoch), (None, 1, 5));
        assert_eq!((healthy.replicas, healthy.offline), (vec![BrokerId(1)], vec![]));
        let fenced = state(&mut stage, 1);
        assert_eq!((fenced.error, fenced.leader.0), (Some(ErrorCode::LeaderNotAvailable), -1));
        assert_eq!(fenced.offline, [BrokerId(2)]);
        assert_eq!(state(&mut stage, 2).error, Some(ErrorCode::LeaderNotAvailable));
        assert_eq!(partition_state(&stage.scene(), &topic, 3, true), None);
        assert_eq!(partition_state(&stage.scene(), &topic, -1, true), None);
        stage.place(id);
        stage.desk.directory_failed(0);
        let failed = state(&mut stage, 0);
        assert_eq!((failed.error, failed.leader.0), (Some(ErrorCode::LeaderNotAvailable), -1));
        assert_eq!((failed.isr, failed.offline), (vec![BrokerId(1)], vec![BrokerId(1)]));
    }

    #[test]
    fn a_replica_is_offline_with_its_directory_on_another_node() {
        let mut stage = Stage::new(&[]);
        stage.broker(2, None, false);
        let id = stage.replicated("t", 7, &[1, 2]);
        let [left, lost] = [1000, 2000].map(uuid::Uuid::from_u128);
        let known = stage.view.image.broker(2).unwrap();
        let broker = BrokerRegistration { directories: vec![left], ..(**known).clone() };
        stage.apply(Record::RegisterBroker(broker));
        let told = |stage: &mut Stage, directory: uuid::Uuid| {
            let topic_id = id;
            let directories = Some([uuid::Uuid::nil(), directory].into_iter().collect());
            let (leader_epoch, partition_epoch) = (5, 8);
            stage.apply(Record::PartitionChange(PartitionChange {
                topic_id,
                leader_epoch,
                partition_epoch,
                directories,
                ..PartitionChange::default()
            }));
            let topic = stage.view.image.topic_by_id(id).unwrap().clone();
            partition_state(&stage.scene(), &topic, 0, true).unwrap()
        };
        let state = told(&mut stage, left);
        assert_eq!((state.leader.0, state.offline), (1, vec![]));
        for directory in [lost, crate::controller::directories::LOST] {
            let state = told(&mut stage, directory);
            assert_eq!((state.leader.0, state.offline), (1, vec![BrokerId(2)]));
        }
    }

    #[test]
    fn the_oldest_version_leaves_out_who_is_not_there() {
        let mut state = PartitionState {
            error: None,
            leader: BrokerId(1),
            leader_epoch: 5,
            replicas: vec![BrokerId(1), BrokerId(2)],
            isr: vec![BrokerId(1)],
            offline: vec![BrokerId(2)],
            elr: Vec::new(),
            last_known_elr: Vec::new(),
        };
        state.leave_out_offline();
        assert_eq!(
            (&state.replicas[..], state.error),
            (&[BrokerId(1)][..], Some(ErrorCode::ReplicaNotAvailable))
        );
        let mut headless = PartitionState { error: Some(ErrorCode::LeaderNotAvailable), ..state.clone() };
        headless.replicas.push(BrokerId(2));
        headless.leave_out_offline();
        assert_eq!(headless.error, Some(ErrorCode::LeaderNotAvailable));
    }

    #[test]
    fn a_leader_without_the_listener_is_told_so_where_the_caller_knows_that_error() {
        let mut stage = Stage::new(&[
            ("listeners", "PLAINTEXT://:9092,OTHER://:9093"),
            ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,OTHER:PLAINTEXT"),
        ]);
        let id = stage.topic("t", 7, &[1]);
        let topic = stage.view.image.topic_by_id(id).unwrap().clone();
        let mut scene = stage.scene();
        scene.context.listener = 1;
        let told = |named| partition_state(&scene, &topic, 0, named).unwrap().error;
        assert_eq!(told(true), Some(ErrorCode::ListenerNotFound));
        assert_eq!(told(false), Some(ErrorCode::LeaderNotAvailable));
    }
}
