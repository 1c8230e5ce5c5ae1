//! A consumer group as its records have it, and what follows from them.
//!
//! [`ConsumerState::apply`] is the only function that changes one: for records that are loaded or committed and for
//! those that are decided. The maps share their structure, so a copy costs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use uuid::Uuid;

use super::records::{
    ConsumerRecord, Current, GroupEpoch, MemberMetadata, MemberState, Partitions, ResolvedRegex,
};

/// The member epoch of a static member that is away for a while.
pub const EPOCH_AWAY: i32 = -2;

/// One member, as its two records have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What it says of itself.
    pub metadata: Arc<MemberMetadata>,
    /// What it has.
    pub current: Arc<Current>,
}

impl Member {
    /// Whether it follows the classic protocol.
    pub fn is_classic(&self) -> bool {
        self.metadata.classic.is_some()
    }
}

/// A consumer group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumerState {
    /// Epoch and the hash of the metadata.
    pub group: GroupEpoch,
    /// The group epoch that the target assignment is for.
    pub target_epoch: i32,
    /// What members say of themselves, by member id.
    metadata: OrdMap<Arc<str>, Arc<MemberMetadata>>,
    /// What members have, by member id.
    current: OrdMap<Arc<str>, Arc<Current>>,
    /// What members shall have, by member id.
    target: OrdMap<Arc<str>, Arc<Partitions>>,
    /// Member ids by instance id.
    statics: OrdMap<Arc<str>, Arc<str>>,
    /// What patterns matched.
    regexes: OrdMap<Arc<str>, Arc<ResolvedRegex>>,
}

/// Where a consumer group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupState {
    /// No members.
    Empty,
    /// The target assignment is for an older epoch.
    Assigning,
    /// Members are on the way to their targets.
    Reconciling,
    /// Everyone has its target.
    Stable,
}

impl GroupState {
    /// As clients are told.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Assigning => "Assigning",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
        }
    }
}

impl ConsumerState {
    /// Applies a record; whether the group is still there after it.
    pub fn apply(&mut self, record: &ConsumerRecord) -> bool {
        match record {
            ConsumerRecord::Epoch(None) => return false,
            ConsumerRecord::Epoch(Some(group)) => self.group = *group,
            ConsumerRecord::PartitionMetadata => {}
            ConsumerRecord::TargetEpoch(epoch) => self.target_epoch = epoch.unwrap_or(-1),
            ConsumerRecord::Member(id, Some(metadata)) => {
                self.unname(id);
                if let Some(instance_id) = &metadata.instance_id {
                    self.statics.insert(instance_id.clone(), id.clone());
                }
                self.metadata.insert(id.clone(), metadata.clone());
            }
            ConsumerRecord::Member(id, None) => {
                self.unname(id);
                self.metadata.remove(id);
            }
            ConsumerRecord::Target(id, Some(target)) => {
                self.target.insert(id.clone(), target.clone());
            }
            ConsumerRecord::Target(id, None) => {
                self.target.remove(id);
            }
            ConsumerRecord::Current(id, Some(current)) => {
                self.current.insert(id.clone(), current.clone());
            }
            ConsumerRecord::Current(id, None) => {
                self.current.remove(id);
            }
            ConsumerRecord::Regex(pattern, Some(resolved)) => {
                self.regexes.insert(pattern.clone(), resolved.clone());
            }
            ConsumerRecord::Regex(pattern, None) => {
                self.regexes.remove(pattern);
            }
        }
        true
    }

    fn unname(&mut self, id: &Arc<str>) {
        let instance = self.metadata.get(id).and_then(|metadata| metadata.instance_id.clone());
        if let Some(instance) = instance
            && self.statics.get(&instance) == Some(id)
        {
            self.statics.remove(&instance);
        }
    }

    /// Whether it has members.
    pub fn is_empty(&self) -> bool {
        self.metadata.is_empty()
    }

    /// How many members it has.
    pub fn member_count(&self) -> usize {
        self.metadata.len()
    }

    /// A member.
    pub fn member(&self, id: &str) -> Option<Member> {
        let metadata = self.metadata.get(id)?.clone();
        Some(Member { metadata, current: self.current.get(id).cloned().unwrap_or_default() })
    }

    /// All members with their ids, sorted.
    pub fn members(&self) -> impl Iterator<Item = (&Arc<str>, Member)> {
        self.metadata.iter().map(|(id, metadata)| {
            let current = self.current.get(id).cloned().unwrap_or_default();
            (id, Member { metadata: metadata.clone(), current })
        })
    }

    /// The member that has an instance id.
    pub fn static_member(&self, instance_id: &str) -> Option<&Arc<str>> {
        self.statics.get(instance_id)
    }

    /// What a member shall have.
    pub fn target(&self, id: &str) -> Option<&Arc<Partitions>> {
        self.target.get(id)
    }

    /// All targets.
    pub fn targets(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Partitions>)> {
        self.target.iter()
    }

    /// What a pattern matched.
    pub fn resolved(&self, pattern: &str) -> Option<&Arc<ResolvedRegex>> {
        self.regexes.get(pattern)
    }

    /// Every pattern that was resolved.
    pub fn regexes(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<ResolvedRegex>)> {
        self.regexes.iter()
    }

    /// The patterns that members subscribe to.
    pub fn patterns(&self) -> BTreeSet<Arc<str>> {
        let patterns = self.metadata.values().filter_map(|metadata| metadata.regex.clone());
        patterns.filter(|pattern| !pattern.is_empty()).collect()
    }

    /// The topics that a member subscribes to by name or pattern.
    pub fn topics_of(&self, metadata: &MemberMetadata) -> BTreeSet<Arc<str>> {
        let mut topics = metadata.topics.clone();
        let resolved = metadata.regex.as_ref().and_then(|pattern| self.regexes.get(pattern));
        topics.extend(resolved.into_iter().flat_map(|resolved| resolved.topics.iter().cloned()));
        topics
    }

    /// The topics that members subscribe to.
    pub fn subscribed(&self) -> BTreeSet<Arc<str>> {
        let mut topics = BTreeSet::new();
        for metadata in self.metadata.values() {
            topics.extend(metadata.topics.iter().cloned());
        }
        for pattern in self.patterns() {
            topics.extend(self.resolved(&pattern).into_iter().flat_map(|of| of.topics.iter().cloned()));
        }
        topics
    }

    /// Partitions that nobody may be given: a member has them or has not given them up.
    pub fn owned(&self) -> BTreeSet<(Uuid, i32)> {
        let of = |partitions: &Partitions| {
            let each =
                partitions.iter().flat_map(|(topic, of)| of.iter().map(|partition| (*topic, *partition)));
            each.collect::<Vec<_>>()
        };
        self.current
            .values()
            .flat_map(|current| [of(&current.assigned), of(&current.revoking)])
            .flatten()
            .collect()
    }

    /// Where the group is.
    pub fn state(&self) -> GroupState {
        let is_reconciled = |current: &Arc<Current>| {
            current.state == MemberState::Stable && current.epoch == self.target_epoch
        };
        if self.is_empty() {
            GroupState::Empty
        } else if self.group.epoch > self.target_epoch {
            GroupState::Assigning
        } else if self.metadata.keys().all(|id| self.current.get(id).is_some_and(is_reconciled)) {
            GroupState::Stable
        } else {
            GroupState::Reconciling
        }
    }

    /// The assignor that most members prefer.
    pub fn preferred_assignor(&self) -> Option<Arc<str>> {
        let mut votes: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
        for assignor in self.metadata.values().filter_map(|metadata| metadata.assignor.as_ref()) {
            *votes.entry(assignor).or_default() += 1;
        }
        let most = votes.iter().max_by(|(name, count), (other, more)| count.cmp(more).then(other.cmp(name)));
        most.map(|(name, _)| Arc::clone(name))
    }

    /// What takes the group away, but for its offsets.
    pub fn tombstones(&self) -> Vec<ConsumerRecord> {
        let ids = || self.metadata.keys().cloned();
        let mut records: Vec<_> = ids().map(|id| ConsumerRecord::Current(id, None)).collect();
        records.extend(self.target.keys().cloned().map(|id| ConsumerRecord::Target(id, None)));
        records.push(ConsumerRecord::TargetEpoch(None));
        records.extend(ids().map(|id| ConsumerRecord::Member(id, None)));
        records.extend(self.regexes.keys().cloned().map(|pattern| ConsumerRecord::Regex(pattern, None)));
        records.push(ConsumerRecord::Epoch(None));
        records
    }

    /// Checks what every state has to hold; for tests.
    ///
    /// # Panics
    /// If it does not.
    pub fn check_invariants(&self) {
        let mut seen = BTreeSet::new();
        for current in self.current.values() {
            for (topic, of) in current.assigned.iter().chain(&current.revoking) {
                assert!(!of.is_empty(), "no topic is without a partition");
                for partition in of {
                    assert!(
                        seen.insert((*topic, *partition)),
                        "a partition has one owner: {topic}/{partition}"
                    );
                }
            }
        }
        let mut wanted = BTreeSet::new();
        for (topic, of) in self.target.values().flat_map(|target| target.iter()) {
            for partition in of {
                assert!(
                    wanted.insert((*topic, *partition)),
                    "a partition is meant for one: {topic}/{partition}"
                );
            }
        }
        for (instance, id) in &self.statics {
            let metadata = self.metadata.get(id).expect("an instance id names a member");
            assert_eq!(
                metadata.instance_id.as_ref(),
                Some(instance),
                "an instance id names a member that has it"
            );
        }
        assert!(
            self.current.keys().all(|id| self.metadata.contains_key(id)),
            "who has something is a member"
        );
        assert!(
            self.target.keys().all(|id| self.metadata.contains_key(id)),
            "who shall have something is a member"
        );
        assert!(self.target_epoch <= self.group.epoch, "a target is for an epoch that was");
    }
}
