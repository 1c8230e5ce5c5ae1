//! What the replicas of a shard want of other brokers: records of their leaders, another ISR of the controller.
//! Both are kept here until somebody takes them on, one entry for each replica at most.

use std::collections::{BTreeMap, BTreeSet};

use smallvec::SmallVec;
use uuid::Uuid;

use super::{Replicas, State};
use crate::config::NodeConfig;
use crate::controller::{Image, PartitionImage, TopicImage};
use crate::effect::Now;
use crate::partition::{Assignment, Effect, FetchPosition, FetchedPart, IsrChange, IsrState};
use crate::request::ClusterView;
use crate::wire::ErrorCode;

/// A replica of this shard: its topic's id, its partition's index.
pub type ReplicaKey = (Uuid, i32);

/// Wishes that wait, and who is there to fulfil them.
#[derive(Debug)]
pub(super) struct Replication {
    /// `replica.lag.time.max.ms`
    pub(super) lag_max_ms: u64,
    /// Node ids and broker epochs of the brokers that are registered and not fenced.
    pub(super) brokers: Vec<(i32, i64)>,
    /// By the view ([`ClusterView::leads_nothing`]).
    leads_nothing: bool,
    /// Replicas whose fetch position is another than when it was asked for last.
    following: BTreeSet<ReplicaKey>,
    isr_changes: BTreeMap<ReplicaKey, IsrChange>,
}

impl Replication {
    pub(super) fn new(config: &NodeConfig) -> Self {
        Self {
            lag_max_ms: config.replica_lag_time_max_ms,
            brokers: Vec::new(),
            leads_nothing: false,
            following: BTreeSet::new(),
            isr_changes: BTreeMap::new(),
        }
    }

    /// Notes who is alive; whether that is news.
    pub(super) fn take_brokers(&mut self, image: &Image) -> bool {
        let alive = image.brokers().filter(|broker| image.is_active(broker.node_id));
        let brokers: Vec<(i32, i64)> = alive.map(|broker| (broker.node_id, broker.epoch)).collect();
        let is_news = brokers != self.brokers;
        self.brokers = brokers;
        is_news
    }

    /// Notes whether nothing may lead here; whether that is news.
    pub(super) fn take_leads_nothing(&mut self, leads_nothing: bool) -> bool {
        std::mem::replace(&mut self.leads_nothing, leads_nothing) != leads_nothing
    }

    pub(super) fn forget(&mut self, replica: ReplicaKey) {
        self.following.remove(&replica);
        self.isr_changes.remove(&replica);
    }
}

/// Says of the partitions of a topic, by index, of which a view says what the one before said. Their replicas need not
/// look anew: of thousands that share a topic a change of ISR concerns one.
pub(super) fn as_before<'a>(
    before: &'a ClusterView,
    view: &ClusterView,
    topic: &TopicImage,
) -> impl Fn(i32, &PartitionImage) -> bool + use<'a> {
    let is_same = before.topic_configs.get(&topic.id) == view.topic_configs.get(&topic.id)
        && view.placement.is_same_for(topic.id, &before.placement);
    let known = before.image.topic_by_id(topic.id).filter(|_| is_same);
    move |index, image| {
        let at = usize::try_from(index).ok();
        known.zip(at).and_then(|(topic, at)| topic.partitions.get(at)) == Some(image)
    }
}

/// What an Image says of a partition, to one of its replicas.
fn assignment(image: &PartitionImage, brokers: &[(i32, i64)]) -> Assignment {
    let is_replica = |(id, _): &(i32, i64)| image.replicas.contains(id);
    Assignment {
        leader: image.leader,
        leader_epoch: image.leader_epoch,
        partition_epoch: image.partition_epoch,
        replicas: image.replicas.clone(),
        isr: image.isr.clone(),
        recovery: image.recovery,
        broker_epochs: brokers.iter().copied().filter(is_replica).collect::<SmallVec<_>>(),
    }
}

impl Replicas {
    /// What the view says of a partition, to its replica here. Where nothing may lead here the partition has no leader,
    /// whoever the Image names: what it names is an earlier process of this node.
    pub(super) fn assignment(&self, image: &PartitionImage) -> Assignment {
        let Replication { brokers, leads_nothing, .. } = &self.replication;
        let told = assignment(image, brokers);
        let is_void = *leads_nothing && told.leader == self.node_id;
        Assignment { leader: if is_void { -1 } else { told.leader }, ..told }
    }

    /// Brokers have come or gone: those replicas hear of it that have other replicas; or everyone, who may or may not
    /// lead from now on.
    pub(super) fn tell_brokers(&mut self, now: Now, view: &ClusterView, everyone: bool) {
        let slots: Vec<u32> = self.by_partition.values().copied().collect();
        for slot in slots {
            let Some(entry) = self.slots.get(slot as usize) else { continue };
            let image = view.image.partition(entry.topic_id, entry.partition);
            let Some(image) = image.filter(|image| everyone || image.replicas.len() > 1) else { continue };
            let assignment = self.assignment(image);
            self.step(slot, |partition, effects| partition.assign(now, assignment, effects));
        }
    }

    /// Keeps what a replica wants of others. The newest wish counts.
    pub(super) fn note_replication(&mut self, slot: u32, effect: Effect) {
        let Some(entry) = self.slots.get(slot as usize) else { return };
        let replica = (entry.topic_id, entry.partition);
        match effect {
            Effect::Following => drop(self.replication.following.insert(replica)),
            Effect::AlterIsr(change) => drop(self.replication.isr_changes.insert(replica, change)),
            _ => {}
        }
    }

    /// The replicas whose [`Self::fetch_position`] has changed since the last call.
    pub fn take_following(&mut self) -> BTreeSet<ReplicaKey> {
        std::mem::take(&mut self.replication.following)
    }

    /// The changes of ISRs that leaders of this shard have asked for since the last call. Each is answered with
    /// [`Self::isr_altered`].
    pub fn take_isr_changes(&mut self) -> BTreeMap<ReplicaKey, IsrChange> {
        std::mem::take(&mut self.replication.isr_changes)
    }

    /// What a replica wants next of its leader; nothing where it is not here, or not now.
    pub fn fetch_position(&self, replica: ReplicaKey) -> Option<FetchPosition> {
        let slot = self.by_partition.get(&replica)?;
        self.partition(*slot)?.fetch_position()
    }

    /// A part of the answer to a fetch that was asked with this position.
    pub fn fetched(&mut self, now: Now, replica: ReplicaKey, position: &FetchPosition, part: FetchedPart) {
        if let Some(slot) = self.by_partition.get(&replica).copied() {
            self.step(slot, |partition, effects| partition.fetched(now, position, part, effects));
        }
    }

    /// The controller's word on a change of an ISR. Bad news of another change than the one that the leader has
    /// asked for last says nothing of that one.
    pub fn isr_altered(
        &mut self,
        now: Now,
        replica: ReplicaKey,
        change: &IsrChange,
        result: Result<IsrState, ErrorCode>,
    ) {
        let Some(slot) = self.by_partition.get(&replica).copied() else { return };
        let Some(State::Open(partition)) = self.slots.get(slot as usize).map(|entry| &entry.state) else {
            return;
        };
        if result.is_ok() || partition.isr_change() == Some(change) {
            self.step(slot, |partition, effects| partition.isr_altered(now, result, effects));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Slot;
    use super::*;
    use crate::config::TopicConfig;
    use crate::controller::image::ImageBuilder;
    use crate::controller::record::{METADATA_VERSION_LATEST, PartitionRecord, Record};
    use crate::controller::{BrokerRegistration, ImageDelta, ShardId, ShardPlacement};
    use crate::log::Log;
    use crate::partition::{Op, Partition, Read, Reader, ReplyTo};

    const NOW: Now = Now { mono_ms: 0, wall_ms: 0 };
    const REPLICA: ReplicaKey = (Uuid::from_u128(7), 0);

    fn image(leader: i32, leader_epoch: i32, partition_epoch: i32) -> PartitionImage {
        PartitionImage {
            replicas: [1, 2].into_iter().collect(),
            isr: [leader].into_iter().collect(),
            leader,
            leader_epoch,
            partition_epoch,
            directories: [Uuid::nil(); 2].into_iter().collect(),
            ..PartitionImage::default()
        }
    }

    /// One replica, on broker 1, that does what this says of it.
    fn replicas(image: &PartitionImage) -> Replicas {
        let mut replicas = Replicas::new(ShardId(0), &NodeConfig::default(), Arc::from([]));
        let config = Arc::new(TopicConfig::default());
        let log = Log::create(REPLICA.0, Arc::clone(&config), NOW, 1);
        replicas.slots.insert(Slot {
            topic_id: REPLICA.0,
            topic: "t".into(),
            partition: REPLICA.1,
            directory: 0,
            state: State::Open(Box::new(Partition::new(1, config, log))),
            in_flight: 0,
            wake_at_ms: None,
        });
        replicas.by_partition.insert(REPLICA, 0);
        assign(&mut replicas, image);
        replicas
    }

    fn assign(replicas: &mut Replicas, image: &PartitionImage) {
        let assignment = assignment(image, &[(1, 5), (2, 6), (3, 7)]);
        replicas.step(0, |partition, effects| partition.assign(NOW, assignment, effects));
    }

    /// The other replica fetches, and may join.
    fn fetch(replicas: &mut Replicas) {
        let reader = Reader::Replica { id: 2, epoch: 6, log_start_offset: 0, last_fetched_epoch: -1 };
        let read = Read::new(reader, 0, 1);
        let to = ReplyTo { shard: 0, connection: 0, generation: 0, request: 0, part: 0 };
        replicas.step(0, |partition, effects| partition.call(NOW, to, Op::Read(read), effects));
    }

    #[test]
    fn brokers_are_news_once_and_only_those_that_are_alive() {
        let mut builder = ImageBuilder::default();
        builder.apply(&Record::MetadataVersion { version: METADATA_VERSION_LATEST }).unwrap();
        for (node_id, fenced) in [(1, false), (2, true)] {
            let incarnation = Uuid::from_u128(9);
            let registered = BrokerRegistration {
                node_id,
                incarnation,
                epoch: 5,
                listeners: vec![],
                rack: None,
                fenced,
                in_controlled_shutdown: false,
                directories: Vec::new(),
            };
            builder.apply(&Record::RegisterBroker(registered)).unwrap();
        }
        let image = builder.publish(1).0;
        let mut replication = Replication::new(&NodeConfig::default());
        assert!(replication.take_brokers(&image));
        assert_eq!(replication.brokers, [(1, 5)]);
        assert!(!replication.take_brokers(&image));
    }

    /// A view of topic `t`, whose partitions are on this broker and in these epochs.
    fn view(of_epochs: &[i32], config: TopicConfig) -> ClusterView {
        let topic_id = REPLICA.0;
        let mut builder = ImageBuilder::default();
        builder.apply(&Record::MetadataVersion { version: METADATA_VERSION_LATEST }).unwrap();
        builder.apply(&Record::Topic { name: "t".into(), topic_id }).unwrap();
        for (index, epoch) in (0..).zip(of_epochs) {
            let PartitionImage { replicas, isr, directories, .. } = image(1, 0, 0);
            let partition =
                PartitionRecord { topic_id, index, replicas, isr, directories, ..Default::default() };
            let partition = PartitionRecord { leader: 1, partition_epoch: *epoch, ..partition };
            builder.apply(&Record::Partition(partition)).unwrap();
        }
        let image = builder.publish(1).0;
        let delta = ImageDelta { topics_changed: [topic_id].into(), ..ImageDelta::default() };
        let placement = ShardPlacement::new(1, 1, 1).assign(&image, &delta, |_, _| None);
        let topic_configs = std::iter::once((topic_id, Arc::new(config))).collect();
        let before_any = ClusterView::before_any(Arc::new(NodeConfig::default()));
        ClusterView { image, placement, topic_configs, ..before_any }
    }

    #[test]
    fn of_a_topic_that_changed_only_the_partitions_that_did_are_looked_at() {
        let looked_at = |before: &ClusterView, after: &ClusterView| -> Vec<i32> {
            let topic = after.image.topic_by_id(REPLICA.0).unwrap();
            let is_as_before = as_before(before, after, topic);
            let others = (0..).zip(&topic.partitions).filter(|(index, image)| !is_as_before(*index, image));
            others.map(|(index, _)| index).collect()
        };
        let known = view(&[5, 5, 5], TopicConfig::default());
        assert_eq!(looked_at(&known, &view(&[5, 6, 5], TopicConfig::default())), [1]);
        assert_eq!(
            looked_at(&known, &view(&[5, 5, 5, 5], TopicConfig::default())),
            [0, 1, 2, 3],
            "another map"
        );
        let configured = TopicConfig { min_insync_replicas: 2, ..TopicConfig::default() };
        assert_eq!(looked_at(&known, &view(&[5, 5, 5], configured)), [0, 1, 2]);
        let nothing = ClusterView::before_any(Arc::new(NodeConfig::default()));
        assert_eq!(looked_at(&nothing, &known), [0, 1, 2]);
    }

    #[test]
    fn a_replica_hears_only_of_brokers_that_have_one() {
        let told = assignment(&image(1, 0, 0), &[(1, 5), (2, 6), (3, 7)]);
        assert_eq!(told.broker_epochs.as_slice(), [(1, 5), (2, 6)]);
    }

    #[test]
    fn a_follower_is_named_once_until_it_is_taken() {
        let mut replicas = replicas(&image(2, 0, 0));
        assign(&mut replicas, &image(2, 1, 1));
        assert_eq!(replicas.take_following(), [REPLICA].into());
        assert_eq!(replicas.fetch_position(REPLICA).map(|position| position.leader_epoch), Some(1));
        assert!(replicas.take_following().is_empty());
        assign(&mut replicas, &image(2, 1, 2));
        assert!(replicas.take_following().is_empty(), "another ISR is nothing to a follower");
        assign(&mut replicas, &image(1, 2, 3));
        assert_eq!(replicas.take_following(), [REPLICA].into());
        assert_eq!(replicas.fetch_position(REPLICA), None, "it leads");
        replicas.replication.following.insert(REPLICA);
        replicas.replication.forget(REPLICA);
        assert!(replicas.take_following().is_empty());
    }

    #[test]
    fn bad_news_of_another_change_says_nothing_of_this_one() {
        let mut replicas = replicas(&image(1, 0, 0));
        fetch(&mut replicas);
        let first = replicas.take_isr_changes().remove(&REPLICA).unwrap();
        assert_eq!(first.isr.as_slice(), [(1, 5), (2, 6)]);
        assign(&mut replicas, &image(1, 0, 1));
        fetch(&mut replicas);
        fetch(&mut replicas);
        let changes = replicas.take_isr_changes();
        assert_eq!(changes.len(), 1, "one at a time");
        let second = &changes[&REPLICA];
        replicas.isr_altered(NOW, REPLICA, &first, Err(ErrorCode::IneligibleReplica));
        assert_eq!(replicas.partition(0).unwrap().isr_change(), Some(second));
        replicas.isr_altered(NOW, REPLICA, second, Err(ErrorCode::IneligibleReplica));
        assert_eq!(replicas.partition(0).unwrap().isr_change(), None);
        replicas.isr_altered(NOW, (Uuid::nil(), 0), second, Err(ErrorCode::NotController));
    }
}
