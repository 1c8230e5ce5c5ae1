//! What becomes of a replica when its recovery has ended: it serves, or gives way, or stays offline.

use std::sync::Arc;

use super::{Opened, Replicas, Slot, State, Successor, jitter_seed};
use crate::broker::message::{Output, Owner};
use crate::config::TopicConfig;
use crate::controller::PartitionImage;
use crate::effect::Now;
use crate::log::{Log, Recovered, RecoveryError};
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
        let (topic_id, index, directory) = (entry.topic_id, entry.partition, entry.directory);
        let seed = jitter_seed(entry);
        let name = format!("{}-{index}", entry.topic);
        if !matches!(entry.state, State::Opening { .. }) {
            return;
        }
        let topic = view.image.topic_by_id(topic_id);
        let image = topic.and_then(|topic| topic.partitions.get(usize::try_from(index).ok()?));
        let config = view.topic_configs.get(&topic_id);
        let (Some(image), Some(config)) = (image, config) else {
            // Removed while it was being recovered; what is on disk is retired below.
            return self.recovered_in_vain(now, slot, result, seed);
        };
        match result {
            Ok(Opened::Log(recovered)) => {
                self.take_over(now, slot, *recovered, image, config);
            }
            Ok(Opened::Empty { base_offset }) => {
                let log = Log::create_at(topic_id, base_offset, Arc::clone(config), now, seed);
                self.serve(now, slot, log, image, config);
            }
            Err(error) => {
                self.outputs.push(Output::Say(format!("{name} cannot be opened: {error:?}")));
                self.set_gone(slot);
                self.fail(directory);
            }
        }
        self.operation_ended(slot);
    }

    /// A recovered log goes into service, unless it is damaged where it was durable (nothing of
    /// it is touched then) or belongs to an earlier topic of the same name, whose deletion the
    /// last stop cut short.
    fn take_over(
        &mut self,
        now: Now,
        slot: u32,
        recovered: Recovered,
        image: &PartitionImage,
        config: &Arc<TopicConfig>,
    ) {
        let Some(entry) = self.slots.get(slot as usize) else { return };
        let (topic_id, seed) = (entry.topic_id, jitter_seed(entry));
        let name = format!("{}-{}", entry.topic, entry.partition);
        if let Some(quarantine) = &recovered.quarantined {
            self.outputs.push(Output::Say(format!(
                "{name} is damaged below its recovery point and stays offline, untouched: {quarantine:?}"
            )));
            return self.set_gone(slot);
        }
        let is_other = recovered.topic_id.is_some_and(|found| found != topic_id);
        let log = Log::recovered(recovered, Arc::clone(config), now, seed);
        if !is_other {
            return self.serve(now, slot, log, image, config);
        }
        let successor = Successor { slot, image: image.clone(), config: Arc::clone(config) };
        self.retire_stranger(now, slot, log, successor);
    }

    /// Retires the log of an earlier topic; its successor is created when the name is free.
    fn retire_stranger(&mut self, now: Now, slot: u32, log: Log, successor: Successor) {
        let Some(entry) = self.slots.get(slot as usize) else { return };
        let (directory, name) = (entry.directory, format!("{}-{}", entry.topic, entry.partition));
        let config = Arc::clone(&successor.config);
        let stranger = self.slots.insert(Slot {
            topic_id: log.topic_id(),
            topic: Arc::clone(&entry.topic),
            partition: entry.partition,
            directory,
            state: State::Open(Box::new(Partition::new(self.node_id, config, log))),
            in_flight: 0,
            wake_at_ms: None,
        }) as u32;
        self.outputs.push(Output::Say(format!("{name} belongs to a deleted topic and is removed")));
        self.outputs.push(Output::Own { owner: Owner::Replica(stranger), directory, name });
        self.retiring.insert(stranger);
        self.successors.insert(stranger, successor);
        self.retire_found(now, stranger);
    }

    /// Retires a log that no topic claims; a stop that has begun does not wait for its deletion.
    fn retire_found(&mut self, now: Now, slot: u32) {
        self.step(slot, |partition, effects| partition.retire(now, effects));
        if self.closing {
            self.step(slot, |partition, effects| partition.close(now, effects));
        }
    }

    /// The name of a retired directory is free.
    pub(super) fn retired(&mut self, now: Now, slot: u32) {
        self.retiring.remove(&slot);
        if let Some(Successor { slot, image, config }) = self.successors.remove(&slot) {
            self.serve_new(now, slot, &image, &config);
        }
    }

    /// The topic was removed while its replica was being recovered: what was found is retired.
    fn recovered_in_vain(&mut self, now: Now, slot: u32, result: Result<Opened, RecoveryError>, seed: u64) {
        match result {
            Ok(Opened::Log(recovered)) => {
                let config = Arc::new(TopicConfig::default());
                let log = Log::recovered(*recovered, Arc::clone(&config), now, seed);
                if let Some(entry) = self.slots.get_mut(slot as usize) {
                    entry.state = State::Open(Box::new(Partition::new(self.node_id, config, log)));
                }
                self.retire_found(now, slot);
            }
            Ok(Opened::Empty { .. }) | Err(_) => self.set_gone(slot),
        }
        self.operation_ended(slot);
    }
}
