//! Replicas that this node is not to have: the cluster assigned them elsewhere, while it ran or while it did not.
//!
//! What was served here goes as the replica of a deleted topic goes: renamed at once, deleted a little later. What the
//! start found and nobody has opened is set aside under a name that ends in `-stray` and kept, as in Kafka. Either way
//! what the start found under that name says nothing any more of a replica that comes here later.

use std::sync::Arc;

use uuid::Uuid;

use super::{DirectoryFacts, Output, Owner, Replicas, Slot, State};
use crate::controller::{PartitionImage, ShardId, TopicImage};
use crate::effect::{FileOp, Now, OpQueue};
use crate::request::ClusterView;

/// The shard that sets aside what no shard has opened.
const SETS_ASIDE: ShardId = ShardId(0);

impl Replicas {
    /// A partition is not to be on this node. If it is on this shard, whoever waits for it looks its leader up again,
    /// and it goes.
    pub(super) fn leave(&mut self, now: Now, (topic_id, index): (Uuid, i32), image: &PartitionImage) {
        let Some(slot) = self.by_partition.get(&(topic_id, index)).copied() else { return };
        let assignment = self.assignment(image);
        self.step(slot, |partition, effects| partition.assign(now, assignment, effects));
        self.retire(now, slot);
    }

    /// Replicas of a changed topic that the start found in this node's log directories, where a view has none of it:
    /// what was found is outdated, and what was never opened is set aside.
    pub(super) fn review_found(&mut self, topic: &TopicImage, before: &ClusterView, view: &ClusterView) {
        let (first, last) = ((topic.name.to_string(), i32::MIN), (topic.name.to_string(), i32::MAX));
        let in_directory = |(number, facts): (u16, &DirectoryFacts)| {
            let found = facts.found.range(&first..=&last).map(|((_, index), _)| *index);
            let away = found.filter(|index| view.placement.shard_of(topic.id, *index).is_none());
            away.map(|index| (number, index)).collect::<Vec<_>>()
        };
        let directories = Arc::clone(&self.directories);
        let away: Vec<(u16, i32)> = (0..).zip(directories.iter()).flat_map(in_directory).collect();
        for (directory, index) in away {
            let was_here = before.placement.shard_of(topic.id, index).is_some();
            let is_known = !self.left.insert((Arc::clone(&topic.name), index, directory));
            // The directory of a topic that was removed since went with it.
            if is_known || was_here || self.outdated.contains(&topic.name) || self.shard != SETS_ASIDE {
                continue;
            }
            self.set_aside(topic, index, directory);
        }
    }

    fn set_aside(&mut self, topic: &TopicImage, partition: i32, directory: u16) {
        if self.closing || self.failed.contains(&directory) {
            return;
        }
        let mut queue = OpQueue::default();
        queue.plan(FileOp::StrayDir, ());
        queue.plan(FileOp::SyncParent, ());
        let name = format!("{}-{partition}", topic.name);
        self.outputs.push(Output::Say(format!(
            "the log {name} is of a partition that has no replica on this broker: its directory is renamed to end in \
             -stray and kept"
        )));
        let slot = self.slots.insert(Slot {
            topic_id: topic.id,
            topic: Arc::clone(&topic.name),
            partition,
            directory,
            state: State::Removing(queue),
            in_flight: 0,
            wake_at_ms: None,
        }) as u32;
        self.retiring.insert(slot);
        self.outputs.push(Output::Own { owner: Owner::Replica(slot), directory, name });
        self.emit_unopened(slot);
    }

    /// Whether what the start found of a replica is of one that has left since.
    pub(super) fn has_left(&self, topic: &Arc<str>, partition: i32, directory: u16) -> bool {
        !self.left.is_empty() && self.left.contains(&(Arc::clone(topic), partition, directory))
    }
}

#[cfg(test)]
#[path = "leaving_tests.rs"]
mod tests;
