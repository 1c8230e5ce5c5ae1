//! The Image: an immutable, versioned snapshot of the cluster metadata, and the builder that makes the next one.
//!
//! Maps are persistent (`imbl`), so a new version costs what changed. State changes only through
//! [`ImageBuilder::apply`], which is the same function for a live entry, for replay and for a snapshot.
//! The version is the raft index of the last entry applied.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use uuid::Uuid;

pub use super::partition_image::PartitionImage;
use super::quorum::QUORUM_METADATA_VERSION;
use super::quorum::members::Members;
use super::record::{
    BrokerRegistration, METADATA_VERSION_CLUSTER, METADATA_VERSION_LATEST, PartitionChange, PartitionRecord,
    Record, ResourceType,
};
use crate::config::DynamicConfigs;

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicImage {
    /// Its id, never used again.
    pub id: Uuid,
    /// Its name.
    pub name: Arc<str>,
    /// Its partitions, by index.
    pub partitions: Vec<PartitionImage>,
}

/// Keys and values that a resource overrides.
type Overrides = OrdMap<Arc<str>, Arc<str>>;

/// The cluster metadata at one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    version: u64,
    metadata_version: u16,
    cluster_id: Option<Arc<str>>,
    features: OrdMap<Arc<str>, i16>,
    brokers: OrdMap<i32, Arc<BrokerRegistration>>,
    topics: OrdMap<Uuid, Arc<TopicImage>>,
    topic_ids: OrdMap<Arc<str>, Uuid>,
    /// Names that hold `.` or `_`, under the name with every `.` replaced: Kafka's metrics cannot tell them apart.
    colliding: OrdMap<Arc<str>, OrdSet<Arc<str>>>,
    configs: OrdMap<(ResourceType, Arc<str>), Overrides>,
    producer_id_next: i64,
    quorum: Option<Arc<Members>>,
}

impl Image {
    /// Raft index of the last entry in it; 0 before the first.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The finalized metadata version; 0 before the first record.
    pub fn metadata_version(&self) -> u16 {
        self.metadata_version
    }

    /// The cluster id, once the log has one.
    pub fn cluster_id(&self) -> Option<&Arc<str>> {
        self.cluster_id.as_ref()
    }

    /// Finalized features and their levels, by name.
    pub fn features(&self) -> impl Iterator<Item = (&str, i16)> {
        self.features.iter().map(|(name, level)| (&**name, *level))
    }

    /// All registered brokers, by node id.
    pub fn brokers(&self) -> impl ExactSizeIterator<Item = &Arc<BrokerRegistration>> {
        self.brokers.values()
    }

    /// The broker with that node id.
    pub fn broker(&self, node_id: i32) -> Option<&Arc<BrokerRegistration>> {
        self.brokers.get(&node_id)
    }

    /// Whether a broker may lead and be in an ISR: registered, not fenced, not about to stop.
    pub fn is_active(&self, node_id: i32) -> bool {
        self.brokers.get(&node_id).is_some_and(|broker| broker.is_active())
    }

    /// Every partition with its topic's id and its index; by topic id and index.
    pub fn partitions(&self) -> impl Iterator<Item = (Uuid, i32, &PartitionImage)> {
        self.topics.values().flat_map(|topic| {
            let id = topic.id;
            (0..).zip(&topic.partitions).map(move |(index, partition)| (id, index, partition))
        })
    }

    /// The level of a feature; 0 where it is not finalized.
    pub fn feature(&self, name: &str) -> i16 {
        self.features.get(name).copied().unwrap_or(0)
    }

    /// What a decision must never leave behind, in words: a partition of these topics (`None`: of any) that is led
    /// by a broker that may not lead, or from a directory that it does not have. Before metadata version 3 nothing
    /// takes leadership away.
    pub(super) fn unfit_leader(&self, topics: Option<&BTreeSet<Uuid>>) -> Option<String> {
        if self.metadata_version < METADATA_VERSION_CLUSTER {
            return None;
        }
        let of = |topic: &TopicImage| {
            let mut led = (0..).zip(&topic.partitions).filter(|(_, one)| one.leader != -1);
            let fits = |one: &PartitionImage| self.may_lead(one.leader, one.directory_of(one.leader));
            let (index, one): (i32, _) = led.find(|(_, one)| !fits(one))?;
            let why = if self.is_active(one.leader) { "has its directory no more" } else { "is not active" };
            Some(format!("{}-{index} is led by broker {}, which {why}", topic.name, one.leader))
        };
        match topics {
            Some(ids) => ids.iter().filter_map(|id| self.topics.get(id)).find_map(|topic| of(topic)),
            None => self.topics.values().find_map(|topic| of(topic)),
        }
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.topic_ids.values().filter_map(|id| self.topics.get(id))
    }

    /// All topics, by id.
    pub(super) fn topics_by_id(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.topics.values()
    }

    /// How many topics there are.
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// The topic of that name.
    pub fn topic(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topics.get(self.topic_ids.get(name)?)
    }

    /// The topic with that id.
    pub fn topic_by_id(&self, id: Uuid) -> Option<&Arc<TopicImage>> {
        self.topics.get(&id)
    }

    /// One partition.
    pub fn partition(&self, topic_id: Uuid, index: i32) -> Option<&PartitionImage> {
        self.topics.get(&topic_id)?.partitions.get(usize::try_from(index).ok()?)
    }

    /// The configuration that a topic overrides, by key.
    pub fn topic_config_overrides(&self, name: &str) -> impl Iterator<Item = (&str, &str)> {
        self.config_overrides(ResourceType::Topic, name)
    }

    /// The configuration that a resource overrides, by key.
    pub fn config_overrides(&self, of: ResourceType, name: &str) -> impl Iterator<Item = (&str, &str)> {
        let overrides = self.configs.get(&(of, Arc::from(name)));
        overrides.into_iter().flat_map(|overrides| overrides.iter()).map(|(key, value)| (&**key, &**value))
    }

    /// The values given to a broker and to all brokers while they run.
    pub fn dynamic_configs(&self, node_id: i32) -> DynamicConfigs<'_> {
        DynamicConfigs {
            broker: self.config_overrides(ResourceType::Broker, &node_id.to_string()).collect(),
            default: self.config_overrides(ResourceType::Broker, "").collect(),
        }
    }

    /// Names of the resources of a kind that override something.
    pub fn configured(&self, of: ResourceType) -> impl Iterator<Item = &Arc<str>> {
        let resources = self.configs.range((of, Arc::from(""))..);
        resources
            .map(|((kind, name), _)| (kind, name))
            .take_while(move |(kind, _)| **kind == of)
            .map(|(_, name)| name)
    }

    /// One overridden value.
    pub fn config(&self, of: ResourceType, name: &str, key: &str) -> Option<&str> {
        self.configs.get(&(of, Arc::from(name)))?.get(key).map(|value| &**value)
    }

    /// First producer id of the next block.
    pub fn producer_id_next(&self) -> i64 {
        self.producer_id_next
    }

    /// The members of the metadata quorum; `None` as long as its only voter is its only member.
    pub fn quorum(&self) -> Option<&Arc<Members>> {
        self.quorum.as_ref()
    }

    /// A topic whose name differs from `name` only in `.` and `_`, if there is one.
    pub fn colliding_topic(&self, name: &str) -> Option<&Arc<str>> {
        self.colliding.get(&*collision_key(name)?)?.iter().find(|other| &***other != name)
    }

    /// The records that make this Image from an empty one, in an order in which they apply.
    pub fn to_records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        if self.metadata_version > 0 {
            records.push(Record::MetadataVersion { version: self.metadata_version });
        }
        records.extend(self.cluster_id.iter().map(|id| Record::ClusterId { cluster_id: id.clone() }));
        for (name, level) in &self.features {
            records.push(Record::Feature { name: name.clone(), level: *level });
        }
        records.extend(self.brokers.values().map(|broker| Record::RegisterBroker((**broker).clone())));
        for topic in self.topics.values() {
            records.push(Record::Topic { name: topic.name.clone(), topic_id: topic.id });
            records.extend(
                (0..)
                    .zip(&topic.partitions)
                    .map(|(index, partition)| Record::Partition(partition.to_record(topic.id, index))),
            );
        }
        for ((resource_type, resource), overrides) in &self.configs {
            records.extend(overrides.iter().map(|(key, value)| Record::Config {
                resource_type: *resource_type,
                resource: resource.clone(),
                key: key.clone(),
                value: Some(value.clone()),
            }));
        }
        if self.producer_id_next > 0 {
            records.push(Record::ProducerIdBlock { producer_id_next: self.producer_id_next });
        }
        records.extend(self.quorum.iter().map(|members| Record::Quorum((**members).clone())));
        records
    }
}

/// The name under which metrics would know a topic, where that differs between topics: only with `.` or `_` in it.
pub(super) fn collision_key(name: &str) -> Option<String> {
    name.contains(['.', '_']).then(|| name.replace('.', "_"))
}

/// What changed between two published versions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageDelta {
    /// Topics that are new or whose partitions changed.
    pub topics_changed: BTreeSet<Uuid>,
    /// Topics that are gone, as they were last.
    pub topics_removed: BTreeMap<Uuid, Arc<TopicImage>>,
    /// Brokers that are new, changed or gone.
    pub brokers: BTreeSet<i32>,
    /// Resources with another configuration; topics that are gone are not among them.
    pub configs: BTreeSet<(ResourceType, Arc<str>)>,
}

impl ImageDelta {
    /// Everything of an Image, for a receiver that has none yet.
    pub fn whole(image: &Image) -> Self {
        Self {
            topics_changed: image.topics.keys().copied().collect(),
            topics_removed: BTreeMap::new(),
            brokers: image.brokers.keys().copied().collect(),
            configs: image.configs.keys().cloned().collect(),
        }
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.topics_changed.is_empty()
            && self.topics_removed.is_empty()
            && self.brokers.is_empty()
            && self.configs.is_empty()
    }
}

/// A record that does not fit the state it meets: the log is not one that this controller's rules can have written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("metadata record does not apply: {0}")]
pub struct ApplyError(pub String);

/// Builds the next version from the last one.
#[derive(Clone, Debug, Default)]
pub struct ImageBuilder {
    image: Image,
    delta: ImageDelta,
}

impl ImageBuilder {
    /// Starts from a published version.
    pub fn new(image: &Image) -> Self {
        Self { image: image.clone(), delta: ImageDelta::default() }
    }

    /// The state with everything applied so far.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Ends a version: what is applied so far, as of raft index `version`, and what changed since the last call.
    pub fn publish(&mut self, version: u64) -> (Arc<Image>, ImageDelta) {
        assert!(version >= self.image.version, "image versions rise");
        self.image.version = version;
        (Arc::new(self.image.clone()), std::mem::take(&mut self.delta))
    }

    /// Whether everything that changed since the last version may be led by whoever leads it; else why not.
    pub(super) fn unfit_leader(&self) -> Option<String> {
        let of = self.delta.brokers.is_empty().then_some(&self.delta.topics_changed);
        self.image.unfit_leader(of)
    }

    /// Applies one record.
    pub fn apply(&mut self, record: &Record) -> Result<(), ApplyError> {
        let image = &mut self.image;
        if image.metadata_version == 0 && !matches!(record, Record::MetadataVersion { .. }) {
            return refuse("the log does not begin with its metadata version".into());
        }
        if image.metadata_version > 0 && record.metadata_version_first() > image.metadata_version {
            return refuse(format!("{record:?} before its metadata version"));
        }
        match record {
            Record::MetadataVersion { version } => {
                if *version == 0 || *version < image.metadata_version || *version > METADATA_VERSION_LATEST {
                    return refuse(format!(
                        "metadata version {version}; this build knows 1 to {METADATA_VERSION_LATEST}"
                    ));
                }
                image.metadata_version = *version;
            }
            Record::ClusterId { cluster_id } => match &image.cluster_id {
                Some(known) if known != cluster_id => {
                    return refuse(format!("cluster id {cluster_id} after {known}"));
                }
                _ => image.cluster_id = Some(cluster_id.clone()),
            },
            Record::Feature { name, level } => {
                let _ = if *level == 0 {
                    image.features.remove(name)
                } else {
                    image.features.insert(name.clone(), *level)
                };
            }
            Record::RegisterBroker(broker) => {
                image.brokers.insert(broker.node_id, Arc::new(broker.clone()));
                self.delta.brokers.insert(broker.node_id);
            }
            Record::UnregisterBroker { node_id, epoch } => {
                if image.brokers.get(node_id).is_none_or(|broker| broker.epoch != *epoch) {
                    return refuse(format!("broker {node_id} with epoch {epoch} is not registered"));
                }
                image.brokers.remove(node_id);
                self.delta.brokers.insert(*node_id);
            }
            Record::Topic { name, topic_id } => return self.add_topic(name, *topic_id),
            Record::RemoveTopic { topic_id } => return self.remove_topic(*topic_id),
            Record::Partition(record) => return self.add_partition(record),
            Record::PartitionChange(change) => return self.change_partition(change),
            Record::Config { resource_type, resource, key, value } => {
                self.set_config((*resource_type, resource.clone()), key, value.as_ref());
            }
            Record::ProducerIdBlock { producer_id_next } => {
                if *producer_id_next < image.producer_id_next {
                    return refuse(format!(
                        "producer id {producer_id_next} after {}",
                        image.producer_id_next
                    ));
                }
                image.producer_id_next = *producer_id_next;
            }
            Record::Quorum(_) if image.metadata_version < QUORUM_METADATA_VERSION => {
                return refuse("members of the quorum before their metadata version".into());
            }
            Record::Quorum(members) => image.quorum = Some(Arc::new(members.clone())),
        }
        Ok(())
    }

    /// Topics that are gone in a later state, where another one has their name.
    pub(super) fn reused_names(&self, later: &Image) -> Vec<Uuid> {
        let each = self.image.topics.values().map(|topic| (topic.id, later.topic_ids.get(&topic.name)));
        each.filter(|(id, now)| now.is_some_and(|now| now != id)).map(|(id, _)| id).collect()
    }

    /// Goes to a later state in one step, as a snapshot brings it. No topic's name has another owner in it.
    pub(super) fn adopt(&mut self, later: Image) {
        let (known, delta) = (&self.image, &mut self.delta);
        let is_new = |topic: &&Arc<TopicImage>| known.topics.get(&topic.id) != Some(*topic);
        delta.topics_changed.extend(later.topics.values().filter(is_new).map(|topic| topic.id));
        for topic in known.topics.values().filter(|topic| !later.topics.contains_key(&topic.id)) {
            delta.topics_changed.remove(&topic.id);
            delta.topics_removed.insert(topic.id, topic.clone());
        }
        let brokers = known.brokers.keys().chain(later.brokers.keys());
        delta.brokers.extend(brokers.filter(|id| known.brokers.get(id) != later.brokers.get(id)));
        let configs = known.configs.keys().chain(later.configs.keys());
        let configs = configs.filter(|resource| known.configs.get(resource) != later.configs.get(resource));
        // As with single records: the configuration of a topic goes with it.
        let is_there = |(of, name): &&(ResourceType, Arc<str>)| {
            *of != ResourceType::Topic || later.topic_ids.contains_key(name)
        };
        delta.configs.extend(configs.filter(is_there).cloned());
        delta.configs.retain(|resource| is_there(&resource));
        let version = known.version;
        self.image = Image { version, ..later };
    }

    fn change_partition(&mut self, change: &PartitionChange) -> Result<(), ApplyError> {
        let PartitionChange { topic_id, index, .. } = *change;
        let Some(known) = self.image.partition(topic_id, index) else {
            return refuse(format!("change of unknown partition {index} of {topic_id}"));
        };
        if change.leader_epoch < known.leader_epoch || change.partition_epoch < known.partition_epoch {
            return refuse(format!("partition {index} of {topic_id}: an epoch goes back"));
        }
        let changed = known.changed(change);
        changed.check(topic_id, index)?;
        let topic = self.image.topics.get_mut(&topic_id).map(Arc::make_mut);
        let place = topic.and_then(|topic| topic.partitions.get_mut(usize::try_from(index).ok()?));
        *place.expect("the partition was found before") = changed;
        self.delta.topics_changed.insert(topic_id);
        Ok(())
    }

    fn add_topic(&mut self, name: &Arc<str>, id: Uuid) -> Result<(), ApplyError> {
        let image = &mut self.image;
        if image.topic_ids.contains_key(name) || image.topics.contains_key(&id) {
            return refuse(format!("topic {name} with id {id} is there already"));
        }
        image.topic_ids.insert(name.clone(), id);
        image.topics.insert(id, Arc::new(TopicImage { id, name: name.clone(), partitions: Vec::new() }));
        if let Some(key) = collision_key(name) {
            image.colliding.entry(Arc::from(key)).or_default().insert(name.clone());
        }
        self.delta.topics_changed.insert(id);
        Ok(())
    }

    /// Whether a record makes a topic under the name of one that was removed since the last Image
    /// was published.
    pub(super) fn reuses_name(&self, record: &Record) -> bool {
        let Record::Topic { name, .. } = record else { return false };
        self.delta.topics_removed.values().any(|removed| removed.name == *name)
    }

    fn remove_topic(&mut self, id: Uuid) -> Result<(), ApplyError> {
        let image = &mut self.image;
        let Some(topic) = image.topics.remove(&id) else {
            return refuse(format!("removal of unknown topic {id}"));
        };
        image.topic_ids.remove(&topic.name);
        let resource = (ResourceType::Topic, topic.name.clone());
        image.configs.remove(&resource);
        if let Some(key) = collision_key(&topic.name)
            && let Some(names) = image.colliding.get_mut(&*key)
        {
            names.remove(&topic.name);
            if names.is_empty() {
                image.colliding.remove(&*key);
            }
        }
        self.delta.configs.remove(&resource);
        self.delta.topics_changed.remove(&id);
        self.delta.topics_removed.insert(id, topic);
        Ok(())
    }

    fn add_partition(&mut self, record: &PartitionRecord) -> Result<(), ApplyError> {
        let Some(topic) = self.image.topics.get_mut(&record.topic_id) else {
            return refuse(format!("partition of unknown topic {}", record.topic_id));
        };
        let topic = Arc::make_mut(topic);
        if usize::try_from(record.index) != Ok(topic.partitions.len()) {
            return refuse(format!("partition {} of {} out of order", record.index, topic.name));
        }
        let partition = PartitionImage::of_record(record);
        partition.check(record.topic_id, record.index)?;
        topic.partitions.push(partition);
        self.delta.topics_changed.insert(record.topic_id);
        Ok(())
    }

    fn set_config(&mut self, resource: (ResourceType, Arc<str>), key: &Arc<str>, value: Option<&Arc<str>>) {
        let mut overrides = self.image.configs.get(&resource).cloned().unwrap_or_default();
        match value {
            Some(value) => drop(overrides.insert(key.clone(), value.clone())),
            None => drop(overrides.remove(key)),
        }
        if overrides.is_empty() {
            self.image.configs.remove(&resource);
        } else {
            self.image.configs.insert(resource.clone(), overrides);
        }
        self.delta.configs.insert(resource);
    }
}

pub(super) fn refuse(why: String) -> Result<(), ApplyError> {
    Err(ApplyError(why))
}
