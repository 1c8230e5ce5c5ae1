//! What becomes of a replica when its recovery has ended: it serves, gives another topic's directory
//! a name of its own, waits for space, or stays offline.

use std::sync::Arc;

use super::{Opened, Replicas, State, jitter_seed};
use crate::broker::message::Output;
use crate::config::TopicConfig;
use crate::controller::PartitionImage;
use crate::effect::{FileError, Now};
use crate::log::{Log, Recovered, RecoveryError, encode_uuid};
use crate::partition::Partition;
use crate::request::ClusterView;

impl Replicas {
    /// A recovery has ended. What the view says by now decides what becomes of the replica.
    pub(in crate::broker) fn recovered(
        &mut self,
        now: Now,
        slot: u32,
        result: Result<Opened, RecoveryError>,
        view: &ClusterView,
    ) {
        let Some(entry) = self.slots.get(slot as usize) else { return };
        if !matches!(entry.state, State::Opening(_)) {
            return;
        }
        let (topic_id, seed) = (entry.topic_id, jitter_seed(entry));
        match (self.wanted(slot, view), result) {
            // Removed, or assigned elsewhere, while it was being recovered.
            (None, result) => self.recovered_in_vain(now, slot, result, seed),
            (Some((image, config)), Ok(Opened::Log(recovered))) => {
                self.take_over(now, slot, *recovered, image, config);
            }
            (Some((image, config)), Ok(Opened::Empty { base_offset })) => {
                let log = Log::create_at(topic_id, base_offset, Arc::clone(config), now, seed);
                self.serve(now, slot, log, image, config);
            }
            (Some(_), Err(error)) => self.not_recovered(now, slot, error),
        }
        self.operation_ended(slot);
    }

    /// What the view wants of a replica, if it is still there.
    fn wanted<'a>(
        &self,
        slot: u32,
        view: &'a ClusterView,
    ) -> Option<(&'a PartitionImage, &'a Arc<TopicConfig>)> {
        let entry = self.slots.get(slot as usize)?;
        let topic = view.image.topic_by_id(entry.topic_id)?;
        let image = topic.partitions.get(usize::try_from(entry.partition).ok()?)?;
        if !image.replicas.contains(&self.node_id) {
            return None;
        }
        Some((image, view.topic_configs.get(&entry.topic_id)?))
    }

    /// The name that a replica waited for is free.
    pub(super) fn serve_created(&mut self, now: Now, slot: u32, view: &ClusterView) {
        match self.wanted(slot, view) {
            Some((image, config)) => self.serve_new(now, slot, image, config),
            None => self.set_gone(slot),
        }
    }

    /// A recovered log goes into service, unless it is damaged where it was durable: nothing of it
    /// is touched then.
    fn take_over(
        &mut self,
        now: Now,
        slot: u32,
        recovered: Recovered,
        image: &PartitionImage,
        config: &Arc<TopicConfig>,
    ) {
        let Some(entry) = self.slots.get(slot as usize) else { return };
        if let Some(quarantine) = &recovered.quarantined {
            let name = format!("{}-{}", entry.topic, entry.partition);
            self.outputs.push(Output::Say(format!(
                "{name} is damaged below its recovery point and stays offline, untouched: {quarantine:?}"
            )));
            return self.set_offline(slot);
        }
        let log = Log::recovered(recovered, Arc::clone(config), now, jitter_seed(entry));
        self.serve(now, slot, log, image, config);
    }

    /// The log cannot be opened as it is: only a failing device takes its neighbours along.
    fn not_recovered(&mut self, now: Now, slot: u32, error: RecoveryError) {
        let Some(entry) = self.slots.get(slot as usize) else { return };
        let (directory, name) = (entry.directory, format!("{}-{}", entry.topic, entry.partition));
        let why = match error {
            RecoveryError::OtherTopic(found) => {
                self.outputs.push(Output::Say(format!(
                    "the directory {name} belongs to another topic, {}, which the cluster does not know: it is \
                     renamed to end in -stray and kept",
                    encode_uuid(found)
                )));
                return self.set_stranger_aside(slot);
            }
            RecoveryError::File { error: FileError::NoSpace | FileError::Short { .. }, .. } => {
                self.outputs
                    .push(Output::Say(format!("{name} waits to be recovered: its log directory is full")));
                return self.recover_later(now, slot);
            }
            RecoveryError::File { op, error } => {
                if matches!(error, FileError::Io(_)) {
                    self.fail(directory);
                }
                format!("{op:?} failed: {error:?}")
            }
            RecoveryError::Malformed(error) => error.to_string(),
        };
        self.outputs.push(Output::Say(format!("{name} cannot be opened and stays offline: {why}")));
        self.set_offline(slot);
    }

    /// The replica is not wanted any more when its recovery ends: what was found is retired.
    fn recovered_in_vain(&mut self, now: Now, slot: u32, result: Result<Opened, RecoveryError>, seed: u64) {
        match result {
            Ok(Opened::Log(recovered)) if recovered.quarantined.is_none() => {
                let config = Arc::new(TopicConfig::default());
                let log = Log::recovered(*recovered, Arc::clone(&config), now, seed);
                if let Some(entry) = self.slots.get_mut(slot as usize) {
                    entry.state = State::Open(Box::new(Partition::new(self.node_id, config, log)));
                }
                self.step(slot, |partition, effects| partition.retire(now, effects));
                if self.closing {
                    // A stop that has begun does not wait for the deletion.
                    self.step(slot, |partition, effects| partition.close(now, effects));
                }
            }
            Err(RecoveryError::OtherTopic(_)) => self.set_gone(slot),
            Ok(_) | Err(_) => self.remove(slot),
        }
    }
}
