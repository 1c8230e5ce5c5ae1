//! Log directories that are chosen: replicas that moved (KIP-113), and wishes for replicas that this node does not
//! have yet.

use std::sync::Arc;

use crate::broker::Shard;
use crate::broker::message::Moved;
use crate::controller::record::METADATA_VERSION_CLUSTER;
use crate::controller::{Image, ImageDelta};
use crate::request::PreferredDirectory;

/// Most wishes that are remembered: whoever may ask may ask for replicas that there will never be.
const PREFERRED_MAX: usize = 10_000;

impl Shard {
    /// A replica is in another log directory: the next view says so, and the checkpoints of the one that it left
    /// forget it, so that nothing in them counts when it comes back.
    pub(in crate::broker) fn replica_moved(&mut self, moved: &Moved) {
        let Some(control) = &mut self.control else { return };
        control.start.placement.moved(moved.topic_id, moved.partition, moved.to);
        let is_it = |directory: u16, topic: &str, partition: i32| {
            directory == moved.from && *topic == *moved.topic && partition == moved.partition
        };
        control.start.checkpoints.forget(is_it, &mut self.outputs);
        let is_told = |image: &Arc<Image>| image.metadata_version() >= METADATA_VERSION_CLUSTER;
        if control.published.as_ref().is_some_and(is_told)
            && let Some(known) = self.peers.directories_mut()
            && let Some(id) = known.ids().get(usize::from(moved.to)).copied().flatten()
        {
            known.tell((moved.topic_id, moved.partition), id);
        }
        if control.decided.is_empty()
            && let Some(image) = &control.published
        {
            control.decided.push_back((Arc::clone(image), ImageDelta::default()));
        }
        self.publish_next();
    }

    /// Where a replica is to be put if this node gets it. The wish lasts until then or until the node stops, as in
    /// Kafka.
    pub(in crate::broker) fn directory_preferred(&mut self, wish: PreferredDirectory) {
        let Some(control) = &mut self.control else { return };
        let replica = (wish.topic.to_string(), wish.partition);
        if control.preferred.len() < PREFERRED_MAX || control.preferred.contains_key(&replica) {
            control.preferred.insert(replica, wish.directory);
        }
    }
}
