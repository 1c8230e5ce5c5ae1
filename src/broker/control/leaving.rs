//! Replicas that an Image assigns elsewhere: nothing that this node remembers of them may outlive them.

use std::collections::BTreeSet;

use super::{ControlHost, is_here};
use crate::broker::Output;
use crate::controller::{Image, ImageDelta};

impl ControlHost {
    /// Forgets what is remembered of replicas that the node has, or found at its start, and that are not its own by
    /// the Image that is published next: where they were found, and their entries in the checkpoint files. The view
    /// behind this one waits until these are rewritten, so a replica that comes back meets no entries of an earlier
    /// one.
    pub(super) fn forget_left(
        &mut self,
        node_id: i32,
        image: &Image,
        delta: &ImageDelta,
        outputs: &mut Vec<Output>,
    ) {
        let mut left = BTreeSet::new();
        for topic in delta.topics_changed.iter().filter_map(|id| image.topic_by_id(*id)) {
            let is_here = |index: i32| is_here(image, node_id, topic.id, index);
            let (first, last) = ((topic.name.to_string(), i32::MIN), (topic.name.to_string(), i32::MAX));
            let found = self.start.found.range(&first..=&last).map(|((_, index), _)| *index);
            let indexes = (0..).zip(&topic.partitions).map(|(index, _)| index);
            let placed = indexes.filter(|index| self.start.placement.shard_of(topic.id, *index).is_some());
            left.extend(
                found.chain(placed).filter(|index| !is_here(*index)).map(|index| (first.0.clone(), index)),
            );
        }
        if left.is_empty() {
            return;
        }
        left.iter().for_each(|replica| drop(self.start.found.remove(replica)));
        let is_gone = |_, topic: &str, partition| left.contains(&(topic.to_owned(), partition));
        self.start.checkpoints.forget(is_gone, outputs);
    }
}
