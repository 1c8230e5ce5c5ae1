//! Leader hints (KIP-951): a partition that is refused because another node leads it, or because the
//! caller's leader epoch is old, tells the leader and where it is reached. The client then need not ask
//! for metadata first.
//!
//! Produce tells them from version 10 on, Fetch from version 16 on.

use smallvec::SmallVec;

use super::Scene;
use crate::wire::{CurrentLeader, NodeEndpoint, TopicRef};

/// A leader that is not known, as it stands on the wire.
const NOBODY: CurrentLeader = CurrentLeader { leader_id: -1, leader_epoch: -1 };

/// The leaders that one response names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LeaderHints {
    nodes: SmallVec<[i32; 2]>,
}

impl LeaderHints {
    /// Who leads a partition now; its node is remembered for [`LeaderHints::endpoints`].
    pub(super) fn current_leader(&mut self, scene: &Scene, topic: TopicRef, index: i32) -> CurrentLeader {
        let image = &scene.view.image;
        let topic = match topic {
            TopicRef::Name(name) => image.topic(name),
            TopicRef::Id(id) => image.topic_by_id(id),
        };
        let partition = topic.and_then(|topic| topic.partitions.get(usize::try_from(index).ok()?));
        let Some(partition) = partition else { return NOBODY };
        if partition.leader >= 0 && !self.nodes.contains(&partition.leader) {
            self.nodes.push(partition.leader);
        }
        CurrentLeader { leader_id: partition.leader, leader_epoch: partition.leader_epoch }
    }

    /// Where the leaders named are reached by the listener of the request; one that is fenced or has no
    /// such listener is left out.
    pub(super) fn endpoints<'a>(&self, scene: &Scene<'a>) -> SmallVec<[NodeEndpoint<'a>; 2]> {
        self.nodes.iter().filter_map(|node_id| endpoint(scene, *node_id)).collect()
    }
}

/// Where a live broker is reached by the listener that the request came in on.
pub(super) fn endpoint<'a>(scene: &Scene<'a>, node_id: i32) -> Option<NodeEndpoint<'a>> {
    let listener = scene.node.config.listeners.get(scene.context.listener)?;
    let broker = scene.view.image.broker(node_id).filter(|broker| !broker.fenced)?;
    let endpoint = broker.listeners.iter().find(|endpoint| *endpoint.name == *listener.name)?;
    Some(NodeEndpoint {
        node_id,
        host: &endpoint.host,
        port: i32::from(endpoint.port),
        rack: broker.rack.as_deref(),
    })
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
    use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, TopicName};
    use uuid::Uuid;

    use super::super::Answered;
    use super::super::stage::{Stage, TO};
    use super::*;
    use crate::partition::Answer;
    use crate::wire::ErrorCode;
    use crate::wire::api::ApiKey;

    #[test]
    fn a_leader_is_named_with_its_address_and_each_node_once() {
        let mut stage = Stage::new(&[("broker.rack", "r1")]);
        stage.broker(2, None, true);
        let id = stage.topic("t", 7, &[1, 1, 2, -1]);
        let scene = stage.scene();
        let mut hints = LeaderHints::default();
        let of = |hints: &mut LeaderHints, index| {
            let leader = hints.current_leader(&scene, TopicRef::Id(id), index);
            (leader.leader_id, leader.leader_epoch)
        };
        assert_eq!(
            [0, 1, 2, 3, 4].map(|index| of(&mut hints, index)),
            [(1, 5), (1, 5), (2, 5), (-1, 5), (-1, -1)]
        );
        assert_eq!(hints.current_leader(&scene, TopicRef::Name("t"), 0).leader_id, 1);
        assert_eq!(hints.current_leader(&scene, TopicRef::Id(Uuid::from_u128(9)), 0), NOBODY);
        // Node 2 is fenced: nobody is sent there.
        let nodes = hints.endpoints(&scene);
        assert_eq!(
            nodes.as_slice(),
            [NodeEndpoint { node_id: 1, host: "host-1", port: 9092, rack: Some("r1") }]
        );
    }

    #[test]
    fn a_fetch_names_the_leader_with_two_errors_and_from_version_16_on() {
        for version in ApiKey::Fetch.api().version_first..=ApiKey::Fetch.api().version_last {
            for (error, hinted) in [
                (ErrorCode::NotLeaderOrFollower, true),
                (ErrorCode::FencedLeaderEpoch, true),
                (ErrorCode::OffsetOutOfRange, false),
            ] {
                let mut stage = Stage::new(&[]);
                let id = stage.topic("t", 7, &[1]);
                let topic = FetchTopic::default()
                    .with_partitions(vec![FetchPartition::default().with_partition_max_bytes(1)]);
                let topic = if version >= 13 {
                    topic.with_topic_id(id)
                } else {
                    topic.with_topic(TopicName("t".to_string().into()))
                };
                let request = FetchRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
                let (header, mut work) = stage.start(ApiKey::Fetch, version, &request);
                let failed = Answer::Failed { error, log_start_offset: 0 };
                work.answer(&header, TO, Answered::Partition(failed, None), &mut stage.scene());
                let response: FetchResponse = stage.finish(&header, work);
                let told = &response.responses[0].partitions[0];
                let expected = if hinted && version >= 16 { (1, 5) } else { (-1, -1) };
                assert_eq!(told.error_code, error.code());
                assert_eq!((told.current_leader.leader_id.0, told.current_leader.leader_epoch), expected);
                let hosts: Vec<&str> =
                    response.node_endpoints.iter().map(|node| node.host.as_str()).collect();
                assert_eq!(hosts, if expected.0 == 1 { vec!["host-1"] } else { vec![] }, "v{version}");
            }
        }
    }
}
