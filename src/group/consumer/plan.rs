//! One step of a consumer group: a copy of its state, what is decided on it, and the records and timers that come of
//! it.
//!
//! Every decision is a record first and changes the copy through [`ConsumerState::apply`], as the log will. A step that
//! is refused is dropped as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::assignor::{self, Spec, Subscriber};
use super::reconcile::Goal;
use super::records::{
    ConsumerRecord, Current, GroupEpoch, MemberMetadata, MemberState, Partitions, ResolvedRegex,
};
use super::request::BeatRefused;
use super::state::{ConsumerState, EPOCH_AWAY, Member};
use super::timers::Timer;
use super::topics::Topics;
use super::{ConsumerConfig, GroupOverrides};
use crate::effect::Now;
use crate::wire::ErrorCode;

/// One step.
pub struct Plan<'a> {
    pub(super) now: Now,
    pub(super) config: &'a ConsumerConfig,
    /// What is configured for this group alone.
    pub(super) overrides: GroupOverrides,
    pub(super) topics: &'a Topics,
    pub(super) state: ConsumerState,
    pub(super) records: Vec<ConsumerRecord>,
    /// Timers to set, in milliseconds from now, or to stop.
    pub(super) timers: Vec<(Arc<str>, Timer, Option<i32>)>,
    /// The state of the metadata that the group was last compared with.
    pub(super) seen_version: Option<i64>,
}

impl<'a> Plan<'a> {
    pub(super) fn write(&mut self, record: ConsumerRecord) {
        self.state.apply(&record);
        self.records.push(record);
    }

    pub(super) fn set_timer(&mut self, member: &Arc<str>, timer: Timer, ms: i32) {
        self.timers.push((member.clone(), timer, Some(ms)));
    }

    pub(super) fn stop_timer(&mut self, member: &Arc<str>, timer: Timer) {
        self.timers.push((member.clone(), timer, None));
    }

    /// Writes down what a member says of itself; whether its subscription is another than before. The topics of a
    /// pattern are known from here on.
    ///
    /// # Errors
    /// INVALID_REGULAR_EXPRESSION.
    pub(super) fn update_metadata(
        &mut self,
        id: &Arc<str>,
        before: Option<&MemberMetadata>,
        metadata: MemberMetadata,
    ) -> Result<bool, BeatRefused> {
        let pattern_of =
            |metadata: &MemberMetadata| metadata.regex.clone().filter(|pattern| !pattern.is_empty());
        let old = before.and_then(pattern_of);
        let new = pattern_of(&metadata);
        let is_changed = before.is_none_or(|before| before.topics != metadata.topics) || old != new;
        if let Some(pattern) = new.filter(|pattern| self.state.resolved(pattern).is_none()) {
            let resolved = self.resolve(&pattern)?;
            self.write(ConsumerRecord::Regex(pattern, Some(Arc::new(resolved))));
        }
        if before != Some(&metadata) {
            self.write(ConsumerRecord::Member(id.clone(), Some(Arc::new(metadata))));
        }
        self.forget_patterns();
        Ok(is_changed)
    }

    fn resolve(&self, pattern: &str) -> Result<ResolvedRegex, BeatRefused> {
        let topics = self.topics.matching(pattern)?;
        Ok(ResolvedRegex { topics, version: self.topics.version(), timestamp_ms: self.now.wall_ms })
    }

    /// Patterns that no member subscribes to any more.
    fn forget_patterns(&mut self) {
        let patterns = self.state.patterns();
        let unused =
            self.state.regexes().map(|(pattern, _)| pattern).filter(|pattern| !patterns.contains(*pattern));
        let unused: Vec<_> = unused.cloned().collect();
        unused.into_iter().for_each(|pattern| self.write(ConsumerRecord::Regex(pattern, None)));
    }

    /// Brings the group's epoch up to date: it rises if a subscription changed or the topics did.
    pub(super) fn refresh(&mut self, is_changed: bool) {
        let is_stale = self.seen_version != Some(self.topics.version());
        if !is_changed && !is_stale {
            return;
        }
        if is_stale {
            self.resolve_again();
            self.seen_version = Some(self.topics.version());
        }
        let hash = self.topics.hash(&self.state.subscribed());
        if is_changed || hash != self.state.group.metadata_hash {
            self.raise_epoch(hash);
        }
    }

    pub(super) fn raise_epoch(&mut self, metadata_hash: i64) {
        let epoch = self.state.group.epoch.saturating_add(1);
        self.write(ConsumerRecord::Epoch(Some(GroupEpoch { epoch, metadata_hash })));
    }

    fn resolve_again(&mut self) {
        for pattern in self.state.patterns() {
            let before = self.state.resolved(&pattern).cloned();
            let Ok(resolved) = self.resolve(&pattern) else { continue };
            if before.is_none_or(|before| before.topics != resolved.topics) {
                self.write(ConsumerRecord::Regex(pattern, Some(Arc::new(resolved))));
            }
        }
    }

    /// Computes the target assignment of the group's epoch if it is not there yet.
    pub(super) fn assign(&mut self) {
        if self.state.target_epoch >= self.state.group.epoch {
            return;
        }
        let preferred = self.state.preferred_assignor();
        let name = preferred.filter(|name| self.config.has_assignor(name));
        let name = name.unwrap_or_else(|| self.config.default_assignor());
        let nothing = Partitions::new();
        let mut partitions = BTreeMap::new();
        let members = self.state.members().map(|(id, member)| (id.clone(), member.metadata));
        let members: Vec<_> = members.collect();
        let subscribed = members.iter().map(|(_, metadata)| {
            let names = self.state.topics_of(metadata);
            let there = names.iter().filter_map(|name| self.topics.topic(name));
            let topics = there.map(|topic| {
                partitions.insert(topic.id, topic.partitions);
                topic.id
            });
            topics.collect()
        });
        let topics: Vec<_> = subscribed.collect();
        let each = members.iter().zip(topics).map(|((id, metadata), topics)| {
            let before = self.state.target(id).map_or(&nothing, |target| &**target);
            (id, Subscriber { instance_id: metadata.instance_id.as_ref(), topics, before })
        });
        let mut assignments = assignor::assign(&name, &Spec { members: each.collect(), partitions });
        let changed = members.iter().filter_map(|(id, _)| {
            let target = assignments.remove(id).unwrap_or_default();
            let is_same = self.state.target(id).is_some_and(|before| **before == target);
            (!is_same).then(|| ConsumerRecord::Target(id.clone(), Some(Arc::new(target))))
        });
        // Who loses is written before who gains, so that nothing is meant for two at any record.
        let (mut gains, mut losses) = (Vec::new(), Vec::new());
        for record in changed.collect::<Vec<_>>() {
            if let ConsumerRecord::Target(id, Some(target)) = &record
                && let Some(before) = self.state.target(id)
                && super::reconcile::is_subset(target, before)
            {
                losses.push(record);
            } else {
                gains.push(record);
            }
        }
        losses.into_iter().chain(gains).for_each(|record| self.write(record));
        self.write(ConsumerRecord::TargetEpoch(Some(self.state.group.epoch)));
    }

    /// Leads a member towards its target.
    ///
    /// # Errors
    /// As [`Goal::next`].
    pub(super) fn reconcile(
        &mut self,
        id: &Arc<str>,
        before: &Current,
        reported: Option<&Partitions>,
    ) -> Result<Arc<Current>, ErrorCode> {
        let epoch = self.state.target_epoch;
        let is_reconciled = before.state == MemberState::Stable && before.epoch == epoch;
        let nothing = Arc::new(Partitions::new());
        let target = self.state.target(id).unwrap_or(&nothing).clone();
        let next = if is_reconciled {
            before.clone()
        } else {
            let owned = self.state.owned();
            Goal { epoch, target: &target, owned: &owned, reported }.next(before)?
        };
        let next = Arc::new(next);
        if *next == *before {
            return Ok(next);
        }
        self.write(ConsumerRecord::Current(id.clone(), Some(next.clone())));
        let member = self.state.member(id);
        if let Some(member) = member.filter(|member| !member.is_classic()) {
            match next.state {
                MemberState::UnrevokedPartitions => {
                    self.set_timer(id, Timer::Rebalance, member.metadata.rebalance_timeout_ms);
                }
                _ => self.stop_timer(id, Timer::Rebalance),
            }
        }
        Ok(next)
    }

    /// The static member of the instance, which a request says to come from.
    pub(super) fn check_static(&self, instance_id: &str, id: &str) -> Result<(), BeatRefused> {
        match self.state.static_member(instance_id) {
            None => {
                let words = format!("Instance id {instance_id} is unknown.");
                Err(BeatRefused::new(ErrorCode::UnknownMemberId, words))
            }
            Some(known) if &**known != id => {
                let words = format!(
                    "Static member {id} with instance id {instance_id} was fenced by member {known}."
                );
                Err(BeatRefused::new(ErrorCode::FencedInstanceId, words))
            }
            Some(_) => Ok(()),
        }
    }

    /// Takes members out. The group's epoch rises; the next heartbeat of any member finds its new target.
    pub(super) fn remove(&mut self, members: &[Arc<str>]) {
        for id in members {
            self.remove_member(id);
        }
        self.forget_patterns();
        let hash = self.topics.hash(&self.state.subscribed());
        self.raise_epoch(hash);
    }

    fn remove_member(&mut self, id: &Arc<str>) {
        for record in [
            ConsumerRecord::Current(id.clone(), None),
            ConsumerRecord::Target(id.clone(), None),
            ConsumerRecord::Member(id.clone(), None),
        ] {
            self.write(record);
        }
        for timer in Timer::ALL {
            self.stop_timer(id, timer);
        }
    }

    /// Puts a static member that came back into the place of the old one: it inherits what that had.
    pub(super) fn replace(&mut self, old: &Arc<str>, new: &Arc<str>) -> Option<Member> {
        let member = self.state.member(old)?;
        let target = self.state.target(old).cloned().unwrap_or_default();
        self.remove_member(old);
        let current = Arc::new(Current { epoch: 0, previous_epoch: 0, ..(*member.current).clone() });
        self.write(ConsumerRecord::Member(new.clone(), Some(member.metadata.clone())));
        self.write(ConsumerRecord::Target(new.clone(), Some(target)));
        self.write(ConsumerRecord::Current(new.clone(), Some(current.clone())));
        Some(Member { metadata: member.metadata, current })
    }

    /// A static member is away for a while: it keeps what it has until its session ends.
    pub(super) fn away(&mut self, id: &Arc<str>) {
        let Some(member) = self.state.member(id) else { return };
        let current = Current { epoch: EPOCH_AWAY, revoking: Partitions::new(), ..(*member.current).clone() };
        self.write(ConsumerRecord::Current(id.clone(), Some(Arc::new(current))));
        self.stop_timer(id, Timer::Rebalance);
    }
}
