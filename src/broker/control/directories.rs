//! In which of the node's log directories replicas are: where they were found, else where the cluster knows them; and
//! what the cluster is to be told of that (KIP-858).

use std::sync::Arc;

use uuid::Uuid;

use super::{ControlHost, FoundReplicas};
use crate::broker::peers::assignments::Assignments;
use crate::controller::directories::{LOST, UNASSIGNED, is_real};
use crate::controller::record::METADATA_VERSION_CLUSTER;
use crate::controller::{Image, ImageDelta, ShardMap, TopicImage};

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
            let topic = image.topic_by_id(id)?;
            let own = found_in(found, topic, partition);
            let replica = (topic.name.to_string(), partition);
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
///
/// A replica that is known in a directory which this node does not have, and that was found in no other, is a new one:
/// that it is [`LOST`] is told first, since a new one has nothing of what was committed.
pub(super) fn tell(
    node_id: i32,
    (before, image, delta): (&Image, &Image, &ImageDelta),
    (placement, found): (&ShardMap, &FoundReplicas),
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
            let is_found = || found_in(found, topic, index).is_some();
            let is_new = || is_real(told) && !known.ids().contains(&Some(told)) && !is_found();
            let own = own.map(|id| if id != told && is_new() { LOST } else { id });
            match own.or(Some(LOST).filter(|_| told == UNASSIGNED)) {
                Some(id) if id != told => known.tell((topic.id, index), id),
                // Of a directory that was missing at the start the cluster knows more than this node.
                _ => known.is_known((topic.id, index)),
            }
        }
    }
}

/// Where the start found a replica: of several log directories the one that is the topic's own, or else one that names
/// no topic.
fn found_in(found: &FoundReplicas, topic: &TopicImage, partition: i32) -> Option<u16> {
    let places = found.get(&(topic.name.to_string(), partition))?;
    let own = places.iter().find(|(_, id)| *id == Some(topic.id));
    own.or_else(|| places.iter().find(|(_, id)| id.is_none())).map(|(directory, _)| *directory)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::controller::image::ImageBuilder;
    use crate::controller::record::{METADATA_VERSION_LATEST, PartitionRecord, Record};
    use crate::controller::{ShardId, ShardPlacement};
    use crate::effect::Now;

    const T: Uuid = Uuid::from_u128(100);
    const OWN: Uuid = Uuid::from_u128(10);
    const REPLACED: Uuid = Uuid::from_u128(11);

    /// What node 1 tells of a replica that the cluster knows in a directory.
    fn told(known_in: Uuid, found: bool) -> Vec<Uuid> {
        let mut builder = ImageBuilder::default();
        builder.apply(&Record::MetadataVersion { version: METADATA_VERSION_LATEST }).unwrap();
        builder.apply(&Record::Topic { name: "t".into(), topic_id: T }).unwrap();
        let record = PartitionRecord {
            topic_id: T,
            index: 0,
            replicas: [1].into_iter().collect(),
            isr: [1].into_iter().collect(),
            leader: -1,
            directories: [known_in].into_iter().collect(),
            ..PartitionRecord::default()
        };
        builder.apply(&Record::Partition(record)).unwrap();
        let (image, delta) = builder.publish(1);
        let placement = ShardPlacement::new(1, 1, 1).assign(&image, &delta, |_, _| None);
        assert_eq!(placement.shard_of(T, 0), Some((ShardId(0), 0)));
        let found: FoundReplicas =
            found.then(|| (("t".to_owned(), 0), vec![(0, Some(T))])).into_iter().collect::<BTreeMap<_, _>>();
        let mut known = Assignments::new(vec![Some(OWN)]);
        tell(1, (&image, &image, &delta), (&placement, &found), &mut known);
        let request = known.next_request(Now { mono_ms: 0, wall_ms: 0 });
        request.into_iter().flat_map(|asked| asked.values().copied()).collect()
    }

    #[test]
    fn a_replica_on_a_disk_that_was_replaced_is_lost_before_it_is_anywhere() {
        assert_eq!(told(OWN, false), Vec::<Uuid>::new());
        assert_eq!(told(UNASSIGNED, false), [OWN]);
        assert_eq!(told(REPLACED, false), [LOST]);
        assert_eq!(told(LOST, false), [OWN]);
        // Somebody has carried it over.
        assert_eq!(told(REPLACED, true), [OWN]);
    }
}
