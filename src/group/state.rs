//! What the records of one coordinator partition say: groups and their committed offsets.
//!
//! [`Store::apply`] is the only function that changes the committed part, for records that are loaded and for records
//! that were just committed. What was decided but is not committed yet lies above it ([`Store::propose`]), by key:
//! decisions look there first, answers about committed state never.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::consumer::state::ConsumerState;
use super::record::{CommittedOffset, GroupMetadata, Record};
use super::sorted::SortedMap;

/// Offsets of one group, by topic and partition.
pub type GroupOffsets = SortedMap<Arc<str>, SortedMap<i32, CommittedOffset>>;

/// A group in the committed state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredGroup {
    /// Of a group of the classic protocol; nothing for a group that only stores offsets.
    pub metadata: Option<Box<GroupMetadata>>,
    /// Of a consumer group.
    pub consumer: Option<Box<ConsumerState>>,
    /// Its committed offsets; no topic is without a partition.
    pub offsets: GroupOffsets,
}

/// A value that is decided but not committed.
#[derive(Clone, Debug)]
struct Proposed<V> {
    /// How many records for this key are on their way.
    records: u32,
    /// What the last one says.
    value: Option<V>,
}

/// What is decided but not committed of one group.
#[derive(Clone, Debug, Default)]
struct ProposedGroup {
    metadata: Option<Proposed<GroupMetadata>>,
    consumer: Option<Proposed<ConsumerState>>,
    offsets: BTreeMap<(Arc<str>, i32), Proposed<CommittedOffset>>,
}

impl ProposedGroup {
    fn is_empty(&self) -> bool {
        self.metadata.is_none() && self.consumer.is_none() && self.offsets.is_empty()
    }
}

/// Committed state, and what is decided above it.
#[derive(Debug, Default)]
pub struct Store {
    groups: BTreeMap<Arc<str>, StoredGroup>,
    proposed: BTreeMap<Arc<str>, ProposedGroup>,
}

fn count<V>(slot: &mut Proposed<V>, value: Option<V>) {
    slot.records += 1;
    slot.value = value;
}

/// Whether nothing more is on its way for the key.
fn settle<V>(slot: &mut Proposed<V>) -> bool {
    slot.records -= 1;
    slot.records == 0
}

impl Store {
    /// Applies a committed record.
    pub fn apply(&mut self, record: Record) {
        match record {
            Record::Group(group, Some(metadata)) => {
                self.groups.entry(group).or_default().metadata = Some(Box::new(metadata));
            }
            Record::Group(group, None) => {
                // Tombstones of its offsets came before. Offsets that were committed in between keep a group of
                // their own.
                let Some(stored) = self.groups.get_mut(&group) else { return };
                stored.metadata = None;
                if stored.consumer.is_none() && stored.offsets.is_empty() {
                    self.groups.remove(&group);
                }
            }
            Record::Consumer(group, record) => {
                let is_there = self.groups.get(&group).is_some_and(|stored| stored.consumer.is_some());
                if !is_there && record.is_tombstone() {
                    return;
                }
                let stored = self.groups.entry(group.clone()).or_default();
                if !stored.consumer.get_or_insert_default().apply(&record) {
                    stored.consumer = None;
                    if stored.metadata.is_none() && stored.offsets.is_empty() {
                        self.groups.remove(&group);
                    }
                }
            }
            Record::Offset(key, Some(value)) => {
                let topics = &mut self.groups.entry(key.group).or_default().offsets;
                topics.get_or_default(key.topic).insert(key.partition, value);
            }
            Record::Offset(key, None) => {
                let Some(stored) = self.groups.get_mut(&key.group) else { return };
                let Some(partitions) = stored.offsets.get_mut(&key.topic) else { return };
                partitions.remove(&key.partition);
                if partitions.is_empty() {
                    stored.offsets.remove(&key.topic);
                }
            }
        }
    }

    /// Notes a record that is on its way.
    pub fn propose(&mut self, record: &Record) {
        match record {
            Record::Group(group, value) => {
                let slot = &mut self.proposed.entry(group.clone()).or_default().metadata;
                count(slot.get_or_insert(Proposed { records: 0, value: None }), value.clone());
            }
            Record::Consumer(group, record) => {
                let stored = self.groups.get(group).and_then(|stored| stored.consumer.as_deref().cloned());
                let slot = &mut self.proposed.entry(group.clone()).or_default().consumer;
                let slot = slot.get_or_insert(Proposed { records: 0, value: stored });
                slot.records += 1;
                if slot.value.is_some() || !record.is_tombstone() {
                    let is_there = slot.value.get_or_insert_default().apply(record);
                    slot.value.take_if(|_| !is_there);
                }
            }
            Record::Offset(key, value) => {
                let offsets = &mut self.proposed.entry(key.group.clone()).or_default().offsets;
                let slot = offsets.entry((key.topic.clone(), key.partition));
                count(slot.or_insert(Proposed { records: 0, value: None }), value.clone());
            }
        }
    }

    /// Applies a record that was proposed and is committed now.
    ///
    /// # Panics
    /// If it was not proposed.
    pub fn commit(&mut self, record: Record) {
        let group = record.group();
        let proposed = self.proposed.get_mut(group).expect("what is committed was proposed");
        match &record {
            Record::Group(..) => {
                let slot = proposed.metadata.as_mut().expect("what is committed was proposed");
                if settle(slot) {
                    proposed.metadata = None;
                }
            }
            Record::Consumer(..) => {
                let slot = proposed.consumer.as_mut().expect("what is committed was proposed");
                if settle(slot) {
                    proposed.consumer = None;
                }
            }
            Record::Offset(key, _) => {
                let key = (key.topic.clone(), key.partition);
                let slot = proposed.offsets.get_mut(&key).expect("what is committed was proposed");
                if settle(slot) {
                    proposed.offsets.remove(&key);
                }
            }
        }
        if proposed.is_empty() {
            self.proposed.remove(group);
        }
        self.apply(record);
    }

    /// The committed groups.
    pub fn groups(&self) -> &BTreeMap<Arc<str>, StoredGroup> {
        &self.groups
    }

    /// The groups of which something is on its way.
    pub fn proposed_groups(&self) -> impl Iterator<Item = &Arc<str>> {
        self.proposed.keys()
    }

    /// Partitions of these topics for which the group has offsets once everything on its way is committed.
    pub fn offsets_of_topics(&self, group: &str, topics: &BTreeSet<Arc<str>>) -> Vec<(Arc<str>, i32)> {
        let latest = self.is_proposed(group).then(|| self.offsets(group));
        let stored = self.groups.get(group).map(|stored| &stored.offsets);
        let offsets = latest.as_ref().or(stored).into_iter().flat_map(SortedMap::iter);
        let of_them = offsets.filter(|(topic, _)| topics.contains(*topic));
        of_them.flat_map(|(topic, of)| of.keys().map(|partition| (topic.clone(), *partition))).collect()
    }

    /// Whether something of the group is on its way.
    pub fn is_proposed(&self, group: &str) -> bool {
        self.proposed.contains_key(group)
    }

    /// Whether a change of the group's metadata is on its way.
    pub fn is_metadata_proposed(&self, group: &str) -> bool {
        self.proposed.get(group).is_some_and(|proposed| proposed.metadata.is_some())
    }

    /// Whether the group is there once everything on its way is committed.
    pub fn will_exist(&self, group: &str) -> bool {
        let is_stored = self.groups.contains_key(group);
        let Some(proposed) = self.proposed.get(group) else { return is_stored };
        let is_kept = match (&proposed.metadata, &proposed.consumer) {
            (None, None) => is_stored,
            (metadata, consumer) => {
                metadata.as_ref().is_some_and(|metadata| metadata.value.is_some())
                    || consumer.as_ref().is_some_and(|consumer| consumer.value.is_some())
            }
        };
        is_kept || proposed.offsets.values().any(|offset| offset.value.is_some())
    }

    /// The group's metadata once everything on its way is committed.
    pub fn metadata(&self, group: &str) -> Option<&GroupMetadata> {
        match self.proposed.get(group).and_then(|proposed| proposed.metadata.as_ref()) {
            Some(proposed) => proposed.value.as_ref(),
            None => self.groups.get(group)?.metadata.as_deref(),
        }
    }

    /// The consumer group once everything on its way is committed.
    pub fn consumer(&self, group: &str) -> Option<&ConsumerState> {
        match self.proposed.get(group).and_then(|proposed| proposed.consumer.as_ref()) {
            Some(proposed) => proposed.value.as_ref(),
            None => self.groups.get(group)?.consumer.as_deref(),
        }
    }

    /// One committed offset.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.groups.get(group)?.offsets.get(topic)?.get(&partition)
    }

    /// The group's offsets once everything on its way is committed.
    pub fn offsets(&self, group: &str) -> GroupOffsets {
        let mut offsets = self.groups.get(group).map(|stored| stored.offsets.clone()).unwrap_or_default();
        let Some(proposed) = self.proposed.get(group) else { return offsets };
        for ((topic, partition), proposed) in &proposed.offsets {
            match &proposed.value {
                Some(value) => {
                    offsets.get_or_default(topic.clone()).insert(*partition, value.clone());
                }
                None => {
                    offsets.get_mut(topic).map(|partitions| partitions.remove(partition));
                }
            }
        }
        offsets.retain(|_, partitions| !partitions.is_empty());
        offsets
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::record::OffsetKey;
    use super::*;

    fn offset(partition: i32, value: Option<i64>) -> Record {
        let key = OffsetKey { group: "g".into(), topic: "t".into(), partition };
        let value = value.map(|offset| CommittedOffset {
            offset,
            leader_epoch: -1,
            metadata: "".into(),
            commit_timestamp_ms: 0,
            expire_timestamp_ms: None,
            topic_id: Uuid::nil(),
        });
        Record::Offset(key, value)
    }

    fn read(store: &Store, partition: i32) -> (Option<i64>, Option<i64>) {
        let proposed =
            store.offsets("g").get("t").and_then(|of| of.get(&partition).map(|value| value.offset));
        (store.committed("g", "t", partition).map(|value| value.offset), proposed)
    }

    #[test]
    fn what_is_proposed_is_seen_by_decisions_only_until_its_last_record_is_committed() {
        let mut store = Store::default();
        for value in [Some(1), None, Some(3)] {
            store.propose(&offset(0, value));
        }
        assert_eq!(read(&store, 0), (None, Some(3)));
        assert!(store.will_exist("g") && store.groups().is_empty());
        store.commit(offset(0, Some(1)));
        assert_eq!(read(&store, 0), (Some(1), Some(3)));
        store.commit(offset(0, None));
        assert_eq!(read(&store, 0), (None, Some(3)));
        store.commit(offset(0, Some(3)));
        assert_eq!(read(&store, 0), (Some(3), Some(3)));
        assert!(!store.is_proposed("g"));
    }

    #[test]
    fn a_deleted_group_comes_back_with_a_later_commit() {
        let mut store = Store::default();
        store.apply(offset(0, Some(1)));
        let deleted = [offset(0, None), Record::Group("g".into(), None)];
        deleted.iter().for_each(|record| store.propose(record));
        assert!(!store.will_exist("g") && store.groups().contains_key("g"));
        store.propose(&offset(1, Some(2)));
        assert!(store.will_exist("g"));
        deleted.into_iter().for_each(|record| store.commit(record));
        assert!(store.groups().is_empty() && store.will_exist("g"));
        store.commit(offset(1, Some(2)));
        assert_eq!(read(&store, 1), (Some(2), Some(2)));
    }
}
