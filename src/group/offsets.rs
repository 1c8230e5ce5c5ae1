//! OffsetCommit, OffsetFetch and OffsetDelete.

use std::sync::Arc;

use super::classic::{CONSUMER, ClassicGroup, State};
use super::record::{CommittedOffset, OffsetKey, Record};
use super::request::{
    CommitOffsets, FetchedGroup, FetchedOffsets, MemberFetch, NewOffset, OfTopic, Response,
};
use super::sorted::SortedMap;
use super::state::GroupOffsets;
use super::{Coordinator, Group, Output};
use crate::effect::Now;
use crate::wire::ErrorCode;
use uuid::Uuid;

/// The retention that means the broker's own.
const RETENTION_DEFAULT_MS: i64 = -1;

impl ClassicGroup {
    /// Whether a member, or somebody who only stores offsets here, may commit now.
    fn check_commit(&self, request: &CommitOffsets) -> Result<(), ErrorCode> {
        if request.generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        if request.generation >= 0 || !request.member_id.is_empty() || request.instance_id.is_some() {
            self.check_member(&request.member_id, request.instance_id.as_deref())?;
            if request.generation != self.generation {
                return Err(ErrorCode::IllegalGeneration);
            }
        } else if self.state != State::Empty {
            return Err(ErrorCode::UnknownMemberId);
        }
        if self.state == State::CompletingRebalance {
            // It has joined and knows the generation, but not yet what is its own.
            return Err(ErrorCode::RebalanceInProgress);
        }
        Ok(())
    }
}

impl Coordinator {
    pub(super) fn commit_offsets(
        &mut self,
        now: Now,
        token: u64,
        request: &CommitOffsets,
        out: &mut Vec<Output>,
    ) {
        if let Err(error) = self.check_commit(request) {
            return self.hold(now, vec![(token, Response::Refused(error))], out);
        }
        let mut records = Vec::new();
        let answers = request.topics.iter().map(|of| {
            of.map(|partition, offset| {
                let key = OffsetKey { group: request.group.clone(), topic: of.topic.clone(), partition };
                let committed = self.committed_offset(now, request.retention_ms, of.topic_id, offset);
                committed.map(|value| records.push(Record::Offset(key, Some(value)))).err()
            })
        });
        let answers = answers.collect();
        if !self.fits(&records) {
            let refused = Response::Refused(ErrorCode::UnknownServerError);
            return self.hold(now, vec![(token, refused)], out);
        }
        if let Some(group) = self.groups.get_mut(&request.group).and_then(Group::as_classic_mut) {
            // Whoever commits is alive.
            group.expect_heartbeat(now, &request.member_id);
        }
        let mut response = Response::OffsetsCommitted(answers);
        if self.is_short && !records.is_empty() {
            records.clear();
            response = Response::Refused(ErrorCode::CoordinatorNotAvailable);
        }
        self.append(records, Vec::new(), out);
        self.hold(now, vec![(token, response)], out);
        self.settle_group(&request.group, false);
    }

    fn check_commit(&self, request: &CommitOffsets) -> Result<(), ErrorCode> {
        if let Some(state) = self.store.consumer(&request.group) {
            return Self::check_consumer_commit(state, request);
        }
        let is_outsider = request.generation < 0;
        match self.classic(&request.group) {
            Some(group) => group.check_commit(request),
            None if is_outsider => Ok(()),
            None if self.store.will_exist(&request.group) => Err(ErrorCode::UnknownMemberId),
            None if request.knows_missing_groups => Err(ErrorCode::GroupIdNotFound),
            None => Err(ErrorCode::IllegalGeneration),
        }
    }

    fn committed_offset(
        &self,
        now: Now,
        retention_ms: i64,
        topic_id: Uuid,
        offset: &NewOffset,
    ) -> Result<CommittedOffset, ErrorCode> {
        // Kafka counts as Java does.
        if offset.metadata.encode_utf16().count() > self.config.offset_metadata_max {
            return Err(ErrorCode::OffsetMetadataTooLarge);
        }
        let expires = retention_ms != RETENTION_DEFAULT_MS;
        if expires && offset.metadata.len() > super::record::STRING_BYTES_MAX {
            return Err(ErrorCode::OffsetMetadataTooLarge);
        }
        Ok(CommittedOffset {
            offset: offset.offset,
            leader_epoch: offset.leader_epoch.max(-1),
            metadata: offset.metadata.as_ref().into(),
            commit_timestamp_ms: now.wall_ms,
            expire_timestamp_ms: expires.then(|| now.wall_ms.saturating_add(retention_ms)),
            topic_id,
        })
    }

    /// `is_latest` sees what is on its way too.
    pub(super) fn fetch_offsets(
        &self,
        groups: &[FetchedGroup<Option<Vec<OfTopic<()>>>>],
        is_latest: bool,
    ) -> Vec<FetchedOffsets> {
        let none = GroupOffsets::default();
        let fetched = groups.iter().map(|wanted| {
            let is_changing = is_latest && self.store.is_proposed(&wanted.group);
            let latest = is_changing.then(|| self.store.offsets(&wanted.group));
            let stored = self.store.groups().get(&wanted.group).map_or(&none, |group| &group.offsets);
            let offsets = latest.as_ref().unwrap_or(stored);
            let topics = match &wanted.topics {
                Some(topics) => topics.iter().map(|of| picked(offsets, of)).collect(),
                None => offsets.iter().map(|(topic, of)| all(topic, of)).collect(),
            };
            FetchedGroup { group: wanted.group.clone(), topics }
        });
        fetched.collect()
    }

    /// As [`Self::fetch_offsets`], for members: one that is not in its consumer group at that epoch is refused.
    pub(super) fn fetch_member_offsets(
        &self,
        groups: Vec<MemberFetch>,
        is_latest: bool,
    ) -> Vec<(Arc<str>, Result<FetchedOffsets, ErrorCode>)> {
        let fetch = |(wanted, member, epoch): MemberFetch| {
            let id = wanted.group.clone();
            let fetched = self.check_fetch(&id, &member, epoch).and_then(|()| {
                let mut fetched = self.fetch_offsets(std::slice::from_ref(&wanted), is_latest);
                fetched.pop().ok_or(ErrorCode::UnknownServerError)
            });
            (id, fetched)
        };
        groups.into_iter().map(fetch).collect()
    }

    pub(super) fn delete_offsets(
        &mut self,
        now: Now,
        token: u64,
        id: &Arc<str>,
        topics: &[OfTopic<()>],
        out: &mut Vec<Output>,
    ) {
        let busy = self.classic(id).filter(|group| group.state != State::Empty);
        let refused = if !self.store.will_exist(id) && busy.is_none() {
            Some(ErrorCode::GroupIdNotFound)
        } else if busy.is_some_and(|group| group.protocol_type.as_deref() != Some(CONSUMER)) {
            Some(ErrorCode::NonEmptyGroup)
        } else {
            None
        };
        if let Some(error) = refused {
            return self.hold(now, vec![(token, Response::Refused(error))], out);
        }
        let offsets = self.store.offsets(id);
        let mut records = Vec::new();
        let answers = topics.iter().map(|of| {
            let is_subscribed = self.is_subscribed(id, &of.topic);
            of.map(|partition, ()| {
                if is_subscribed {
                    return Some(ErrorCode::GroupSubscribedToTopic);
                }
                if offsets.get(&of.topic).is_some_and(|partitions| partitions.contains_key(&partition)) {
                    let key = OffsetKey { group: id.clone(), topic: of.topic.clone(), partition };
                    records.push(Record::Offset(key, None));
                }
                None
            })
        });
        let mut response = Response::OffsetsDeleted(answers.collect());
        if !self.fits(&records) {
            records.clear();
            response = Response::Refused(ErrorCode::UnknownServerError);
        }
        self.append(records, Vec::new(), out);
        self.hold(now, vec![(token, response)], out);
    }
}

/// What is committed for the partitions of a topic. An offset of another topic of the same name is none.
fn picked(offsets: &GroupOffsets, wanted: &OfTopic<()>) -> OfTopic<Option<CommittedOffset>> {
    let is_same = |id: Uuid| id.is_nil() || wanted.topic_id.is_nil() || id == wanted.topic_id;
    let partitions = offsets.get(&wanted.topic);
    wanted.map(|partition, ()| {
        let committed = partitions.and_then(|partitions| partitions.get(&partition));
        committed.filter(|committed| is_same(committed.topic_id)).cloned()
    })
}

fn all(topic: &Arc<str>, of: &SortedMap<i32, CommittedOffset>) -> OfTopic<Option<CommittedOffset>> {
    let partitions = of.iter().map(|(partition, committed)| (*partition, Some(committed.clone())));
    OfTopic { topic: topic.clone(), topic_id: Uuid::nil(), partitions: partitions.collect() }
}
