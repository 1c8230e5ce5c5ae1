//! Fetching from the closest replica (KIP-392): which replicas are nearer to a consumer than the leader. Rules of
//! Kafka's RackAwareReplicaSelector: a consumer that tells its rack reads from a replica in it, from the leader if that
//! is there too. Which of several it is, and whether one of them can serve it, the leader knows.

use smallvec::SmallVec;

use super::Scene;
use super::leader_hint::endpoint;
use crate::controller::PartitionImage;

/// First version whose senders tell their rack, and can be sent to a follower.
const VERSION_RACK: i16 = 11;

/// Where a consumer may read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Nearness {
    /// Also from a follower; whether that is near was decided elsewhere.
    pub from_follower: bool,
    /// The live brokers in its rack that it can reach; empty where nobody is to be sent anywhere.
    in_rack: SmallVec<[i32; 4]>,
}

impl Nearness {
    /// Of a consumer that sends this version and tells this rack, empty for none.
    pub fn of(version: i16, rack: &str, scene: &Scene) -> Self {
        let from_follower = version >= VERSION_RACK;
        let mut in_rack = SmallVec::new();
        if from_follower && !rack.is_empty() && scene.node.config.rack_aware_reads {
            let there = scene.view.image.brokers().filter(|broker| broker.rack.as_deref() == Some(rack));
            in_rack.extend(there.map(|broker| broker.node_id).filter(|id| endpoint(scene, *id).is_some()));
        }
        Self { from_follower, in_rack }
    }

    /// The replicas of a partition that are nearer than its leader; only the leader, `node_id`, sends consumers away.
    pub fn nearer(&self, partition: &PartitionImage, node_id: i32) -> SmallVec<[i32; 4]> {
        if self.in_rack.is_empty() || partition.leader != node_id || self.in_rack.contains(&node_id) {
            return SmallVec::new();
        }
        partition.replicas.iter().copied().filter(|id| self.in_rack.contains(id)).collect()
    }
}
