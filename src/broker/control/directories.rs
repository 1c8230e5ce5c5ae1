//! In which of the node's log directories replicas are: where they were found, else where the cluster knows them; and
//! what the cluster is to be told of that (KIP-858).

use std::sync::Arc;

use uuid::Uuid;

use super::ControlHost;
use crate::broker::peers::assignments::Assignments;
use crate::controller::directories::{LOST, UNASSIGNED};
use crate::controller::record::METADATA_VERSION_CLUSTER;
use crate::controller::{Image, ImageDelta, ShardMap};

impl ControlHost {
    /// Places the replicas that an Image gives this node; `known` are the log directories as the cluster knows them,
    /// where there is one.
    pub(super) fn place(
        &mut self,
        node_id: i32,
        image: &Image,
        delta: &ImageDelta,
        known: Option<&Assignments>,
    ) -> Arc<ShardMap> {
        let found = &self.start.found;
        // A replica from before this start that is nowhere is where nobody can look: an empty one
        // elsewhere would pass for it.
        let elsewhere = self.offline.first().copied().filter(|_| !self.registered);
        let (preferred, offline) = (&self.preferred, &self.offline);
        self.start.placement.assign(image, delta, |id, partition| {
            let replica = (image.topic_by_id(id)?.name.to_string(), partition);
            let own = found.get(&replica).and_then(|places| found_in(places, id));
            let wished = || preferred.get(&replica).copied().filter(|wish| !offline.contains(wish));
            let assigned = || {
                let directory = image.partition(id, partition)?.directory_of(node_id);
                let mut ids = (0..).zip(known?.ids());
                ids.find(|(_, own)| **own == Some(directory)).map(|(number, _)| number)
            };
            own.or_else(assigned).or(elsewhere).or_else(wished)
        })
    }
}

/// Compares where the replicas of a node are with what an Image says, and leaves in `known` what the cluster is to be
/// told: of the topics that have changed, and of all when the metadata can hold it at last.
pub(super) fn tell(
    node_id: i32,
    (before, image, delta): (&Image, &Image, &ImageDelta),
    placement: &ShardMap,
    known: &mut Assignments,
) {
    if image.metadata_version() < METADATA_VERSION_CLUSTER {
        return;
    }
    let topics: Vec<Uuid> = if before.metadata_version() < METADATA_VERSION_CLUSTER {
        image.topics().map(|topic| topic.id).collect()
    } else {
        delta.topics_changed.iter().copied().collect()
    };
    for topic in topics.iter().filter_map(|id| image.topic_by_id(*id)) {
        for (index, partition) in (0..).zip(&topic.partitions) {
            let Some((_, number)) = placement.shard_of(topic.id, index) else { continue };
            let told = partition.directory_of(node_id);
            let own = known.ids().get(usize::from(number)).copied().flatten();
            match own.or(Some(LOST).filter(|_| told == UNASSIGNED)) {
                Some(id) if id != told => known.tell((topic.id, index), id),
                // Of a directory that was missing at the start the cluster knows more than this node.
                _ => known.is_known((topic.id, index)),
            }
        }
    }
}

/// The log directory among these that is the topic's own, or else one that names no topic.
fn found_in(places: &[(u16, Option<Uuid>)], topic_id: Uuid) -> Option<u16> {
    let own = places.iter().find(|(_, id)| *id == Some(topic_id));
    own.or_else(|| places.iter().find(|(_, id)| id.is_none())).map(|(directory, _)| *directory)
}
