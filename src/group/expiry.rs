//! Offsets that have outlived their group (KIP-211), groups that nothing is left of, and offsets of deleted topics.
//!
//! Only what nothing is on its way for is looked at: what was just committed is not old, and the next look comes.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::classic::{CONSUMER, ClassicGroup, State};
use super::record::{CommittedOffset, OffsetKey, Record};
use super::state::StoredGroup;
use super::{Coordinator, Output};
use crate::effect::Now;

/// From when on the retention of a group's offsets counts.
#[derive(Clone, Copy)]
enum Since {
    /// From when the group became empty.
    Empty(i64),
    /// From each commit.
    Commit,
    /// They do not expire now.
    Never,
}

impl Coordinator {
    /// Takes away what has expired. A deletion that is split over batches is none the worse for a crash in between.
    pub(super) fn expire(&mut self, now: Now, out: &mut Vec<Output>) {
        let mut records = Vec::new();
        for (id, stored) in self.store.groups() {
            if !self.store.is_proposed(id) {
                self.expire_group(now, id, stored, &mut records);
            }
        }
        self.append_split(records, out);
    }

    /// Takes away the offsets of topics that are gone.
    pub(super) fn forget_topics(&mut self, topics: &BTreeSet<Arc<str>>, out: &mut Vec<Output>) {
        let mut records = Vec::new();
        let stored = self.store.groups();
        let new = self.store.proposed_groups().filter(|id| !stored.contains_key(*id));
        for id in stored.keys().chain(new) {
            let offsets = self.store.offsets_of_topics(id, topics);
            records.extend(offsets.into_iter().map(|(topic, partition)| {
                Record::Offset(OffsetKey { group: id.clone(), topic, partition }, None)
            }));
        }
        self.append_split(records, out);
    }

    pub(super) fn append_split(&mut self, records: Vec<Record>, out: &mut Vec<Output>) {
        let mut batch = Vec::new();
        let mut bytes = 0;
        for record in records {
            bytes += record.bytes_estimate();
            if bytes > self.config.batch_bytes_max && !batch.is_empty() {
                bytes = record.bytes_estimate();
                self.append(std::mem::take(&mut batch), Vec::new(), out);
            }
            batch.push(record);
        }
        self.append(batch, Vec::new(), out);
    }

    fn expire_group(&self, now: Now, id: &Arc<str>, stored: &StoredGroup, records: &mut Vec<Record>) {
        let group = self.classic(id);
        let since = since(group, stored);
        let consumer = stored.consumer.as_ref();
        let subscribed = match consumer {
            Some(state) => Some(state.subscribed()),
            None => group.and_then(ClassicGroup::subscribed),
        };
        let mut is_left = false;
        for (topic, partitions) in stored.offsets.iter() {
            let is_subscribed = subscribed.as_ref().is_some_and(|topics| topics.contains(topic));
            for (partition, offset) in partitions.iter() {
                if is_subscribed || !self.is_expired(now, since, offset) {
                    is_left = true;
                    continue;
                }
                let key = OffsetKey { group: id.clone(), topic: topic.clone(), partition: *partition };
                records.push(Record::Offset(key, None));
            }
        }
        // Nobody is in it or on the way into it, and it stores nothing.
        if is_left || group.is_some() || consumer.is_some_and(|state| !state.is_empty()) {
            return;
        }
        match consumer {
            Some(state) => {
                let gone = state.tombstones().into_iter();
                records.extend(gone.map(|record| Record::Consumer(id.clone(), record)));
            }
            None => records.push(Record::Group(id.clone(), None)),
        }
    }

    fn is_expired(&self, now: Now, since: Since, offset: &CommittedOffset) -> bool {
        let base_ms = match since {
            Since::Never => return false,
            Since::Empty(at_ms) => at_ms,
            Since::Commit => offset.commit_timestamp_ms,
        };
        match offset.expire_timestamp_ms {
            Some(at_ms) => now.wall_ms >= at_ms,
            None => now.wall_ms.saturating_sub(base_ms) >= self.config.offsets_retention_ms,
        }
    }
}

fn since(group: Option<&ClassicGroup>, stored: &StoredGroup) -> Since {
    let metadata = stored.metadata.as_ref().filter(|metadata| !metadata.protocol_type.is_empty());
    match (group, metadata) {
        // Members of a consumer group whose subscriptions can be read: what they do not subscribe to may go.
        (Some(group), _) if group.state == State::Stable => match group.subscribed() {
            Some(_) if group.protocol_type.as_deref() == Some(CONSUMER) => Since::Commit,
            _ => Since::Never,
        },
        (Some(group), _) if group.state != State::Empty => Since::Never,
        (_, Some(metadata)) => metadata.state_timestamp_ms.map_or(Since::Commit, Since::Empty),
        (_, None) => Since::Commit,
    }
}
