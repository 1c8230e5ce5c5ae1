//! OffsetCommit, OffsetFetch and OffsetDelete. Whether topics and partitions exist is asked of the Image, before the
//! coordinator is: it keeps what it is given.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    GroupId, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
    OffsetFetchRequest, OffsetFetchResponse, TopicName,
};
use uuid::Uuid;

use super::{Asked, Groups, Named, Places, refusal, text, wire_text};
use crate::group::record::CommittedOffset;
use crate::group::request::{CommitOffsets, FetchedGroup, NewOffset, OfTopic};
use crate::group::{Request, Response};
use crate::partition::ReplyTo;
use crate::request::{CloseReason, Scene, Work};
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, error_number, guard};

/// Versions of OffsetCommit below this say how long an offset is kept.
const COMMIT_NO_RETENTION: i16 = 5;
/// First version of OffsetCommit whose clients know that a group may be missing.
const COMMIT_MISSING_GROUP: i16 = 9;
/// First version of OffsetFetch with an error of the group.
const FETCH_GROUP_ERROR: i16 = 2;
/// First version of OffsetFetch that tells leader epochs.
const FETCH_LEADER_EPOCH: i16 = 5;
/// First version of OffsetFetch for several groups.
const FETCH_GROUPS: i16 = 8;
/// First version of OffsetFetch that says which member asks.
const FETCH_MEMBER: i16 = 9;

/// Partitions of a request by topic, in its order, each with the error that it has already.
type Checked = Vec<(TopicName, Vec<(i32, Option<ErrorCode>)>)>;

/// Which of a topic's partitions do not exist.
fn missing(topic: &TopicName, partition: i32, scene: &Scene) -> Option<ErrorCode> {
    let known = scene.view.image.topic(topic);
    let is_known = |count: usize| usize::try_from(partition).is_ok_and(|index| index < count);
    let exists = known.is_some_and(|topic| is_known(topic.partitions.len()));
    (!exists).then_some(ErrorCode::UnknownTopicOrPartition)
}

/// What the coordinator says of the partitions that exist, in order, put to those that do not.
fn merged(checked: Checked, answered: Result<Vec<OfTopic<Option<ErrorCode>>>, ErrorCode>) -> Checked {
    let whole = answered.as_ref().err().copied();
    let answers = answered.unwrap_or_default().into_iter();
    let mut answers = answers.flat_map(|of| of.partitions).map(|(_, error)| error);
    let of_topic = |(name, partitions): (TopicName, Vec<(i32, Option<ErrorCode>)>)| {
        let partitions = partitions.into_iter().map(|(index, error)| {
            let told = || whole.or_else(|| answers.next().flatten());
            (index, error.or_else(told))
        });
        (name, partitions.collect())
    };
    checked.into_iter().map(of_topic).collect()
}

/// What the response to an OffsetCommit needs of the request.
#[derive(Debug)]
pub(super) struct Commit {
    checked: Checked,
}

pub(crate) fn commit(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let asked: OffsetCommitRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let mut checked = Checked::new();
    let mut topics = Vec::new();
    for topic in &asked.topics {
        let mut told = Vec::new();
        let mut wanted = Vec::new();
        for partition in &topic.partitions {
            let error = missing(&topic.name, partition.partition_index, scene);
            told.push((partition.partition_index, error));
            if error.is_none() {
                let offset = NewOffset {
                    offset: partition.committed_offset,
                    leader_epoch: partition.committed_leader_epoch,
                    metadata: partition.committed_metadata.as_ref().map(text).unwrap_or_default(),
                };
                wanted.push((partition.partition_index, offset));
            }
        }
        checked.push((topic.name.clone(), told));
        if !wanted.is_empty() {
            topics.push(OfTopic { topic: text(&topic.name), topic_id: Uuid::nil(), partitions: wanted });
        }
    }
    let asks = Asked::Commit(Commit { checked });
    if topics.is_empty() {
        let mut groups = Groups::new(asks);
        groups.parts.push(Some(Response::OffsetsCommitted(Vec::new())));
        return Ok(Work::Groups(Box::new(groups)));
    }
    let request = CommitOffsets {
        group: text(&asked.group_id),
        member_id: text(&asked.member_id),
        instance_id: asked.group_instance_id.as_ref().map(text),
        generation: asked.generation_id_or_member_epoch,
        retention_ms: if header.version < COMMIT_NO_RETENTION { asked.retention_time_ms } else { -1 },
        knows_missing_groups: header.version >= COMMIT_MISSING_GROUP,
        topics,
    };
    Ok(Groups::of_one(asks, &asked.group_id, Request::CommitOffsets(request), to, scene))
}

impl Commit {
    pub(super) fn response(self, answer: Option<Response>) -> OffsetCommitResponse {
        let answered = match answer {
            Some(Response::OffsetsCommitted(topics)) => Ok(topics),
            other => Err(refusal(other.as_ref())),
        };
        let topics = merged(self.checked, answered).into_iter().map(|(name, partitions)| {
            let partitions = partitions.into_iter().map(|(index, error)| {
                OffsetCommitResponsePartition::default()
                    .with_partition_index(index)
                    .with_error_code(error_number(error))
            });
            OffsetCommitResponseTopic::default().with_name(name).with_partitions(partitions.collect())
        });
        OffsetCommitResponse::default().with_topics(topics.collect())
    }
}

/// What the response to an OffsetDelete needs of the request.
#[derive(Debug)]
pub(super) struct Delete {
    checked: Checked,
}

pub(crate) fn delete_offsets(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let asked: OffsetDeleteRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let mut checked = Checked::new();
    let mut topics = Vec::new();
    for topic in &asked.topics {
        let indexes = topic.partitions.iter().map(|partition| partition.partition_index);
        let told: Vec<_> = indexes.map(|index| (index, missing(&topic.name, index, scene))).collect();
        let wanted: Vec<_> =
            told.iter().filter(|(_, error)| error.is_none()).map(|(index, _)| (*index, ())).collect();
        checked.push((topic.name.clone(), told));
        if !wanted.is_empty() {
            topics.push(OfTopic { topic: text(&topic.name), topic_id: Uuid::nil(), partitions: wanted });
        }
    }
    let request = Request::DeleteOffsets { group: text(&asked.group_id), topics };
    Ok(Groups::of_one(Asked::DeleteOffsets(Delete { checked }), &asked.group_id, request, to, scene))
}

impl Delete {
    pub(super) fn response(self, answer: Option<Response>) -> OffsetDeleteResponse {
        let topics = match answer {
            Some(Response::OffsetsDeleted(topics)) => topics,
            other => return OffsetDeleteResponse::default().with_error_code(refusal(other.as_ref()).code()),
        };
        let topics = merged(self.checked, Ok(topics)).into_iter().map(|(name, partitions)| {
            let partitions = partitions.into_iter().map(|(index, error)| {
                OffsetDeleteResponsePartition::default()
                    .with_partition_index(index)
                    .with_error_code(error_number(error))
            });
            OffsetDeleteResponseTopic::default().with_name(name).with_partitions(partitions.collect())
        });
        OffsetDeleteResponse::default().with_topics(topics.collect())
    }
}

/// Partitions wanted of topics; `None` for everything that is committed.
type Wanted = Option<Vec<OfTopic<()>>>;

/// What the response to an OffsetFetch needs of the request.
#[derive(Debug)]
pub(super) struct Fetch {
    places: Places,
    /// Of version 1, whose errors stand with the partitions.
    wanted: Wanted,
}

fn of_topic(name: &TopicName, indexes: &[i32]) -> OfTopic<()> {
    let partitions = indexes.iter().map(|index| (*index, ())).collect();
    OfTopic { topic: text(name), topic_id: Uuid::nil(), partitions }
}

pub(crate) fn fetch(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let asked: OffsetFetchRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let require_stable = asked.require_stable;
    let mut repeated = None;
    // Who asks, and at which epoch of its membership.
    let wanted: Named<(Wanted, Arc<str>, i32)> = if header.version >= FETCH_GROUPS {
        let groups = asked.groups.iter().map(|group| {
            let topics = group.topics.as_ref();
            let topics =
                topics.map(|topics| topics.iter().map(|t| of_topic(&t.name, &t.partition_indexes)).collect());
            let member = group.member_id.as_ref().map(text).unwrap_or_default();
            (text(&group.group_id), (topics, member, group.member_epoch))
        });
        groups.collect()
    } else {
        let topics = asked.topics.as_ref();
        let topics: Wanted =
            topics.map(|topics| topics.iter().map(|t| of_topic(&t.name, &t.partition_indexes)).collect());
        if header.version < FETCH_GROUP_ERROR {
            repeated = topics.clone();
        }
        vec![(text(&asked.group_id), (topics, Arc::default(), -1))]
    };
    let mut groups = Groups::new(Asked::List);
    let request = |groups: Named<(Wanted, Arc<str>, i32)>| {
        let groups = groups
            .into_iter()
            .map(|(group, (topics, member, epoch))| (FetchedGroup { group, topics }, member, epoch));
        if header.version >= FETCH_MEMBER {
            return Request::FetchMemberOffsets { groups: groups.collect(), require_stable };
        }
        Request::FetchOffsets { groups: groups.map(|(group, ..)| group).collect(), require_stable }
    };
    let places = groups.ask_each(wanted, request, to, scene);
    groups.asked = Asked::Fetch(Fetch { places, wanted: repeated });
    Ok(Work::Groups(Box::new(groups)))
}

/// One group's offsets, by topic.
type Offsets = Vec<OfTopic<Option<CommittedOffset>>>;

/// Offset, leader epoch and text; what stands for nothing committed.
fn told(committed: &Option<CommittedOffset>) -> (i64, i32, &str) {
    committed.as_ref().map_or((-1, -1, ""), |found| (found.offset, found.leader_epoch, &found.metadata))
}

impl Fetch {
    pub(super) fn response(&self, parts: &[Response], version: i16) -> OffsetFetchResponse {
        let groups = self.places.iter().map(|(group, part, place)| {
            let fetched = match parts.get(*part) {
                Some(Response::OffsetsFetched(groups)) => groups.get(*place).map(Ok),
                Some(Response::MemberOffsetsFetched(groups)) => {
                    groups.get(*place).map(|(_, fetched)| fetched.as_ref().map_err(|error| *error))
                }
                _ => None,
            };
            let fetched = fetched.unwrap_or_else(|| Err(refusal(parts.get(*part))));
            (group, fetched.map(|fetched| &fetched.topics))
        });
        if version >= FETCH_GROUPS {
            let groups = groups.map(|(group, fetched)| fetched_group(group, fetched));
            return OffsetFetchResponse::default().with_groups(groups.collect());
        }
        let answer = OffsetFetchResponse::default();
        let mut groups = groups;
        match groups.next().map_or(Err(ErrorCode::UnknownServerError), |(_, fetched)| fetched) {
            Ok(topics) => {
                answer.with_topics(topics.iter().map(|of| fetched_topic(of, None, version)).collect())
            }
            Err(error) if version >= FETCH_GROUP_ERROR => answer.with_error_code(error.code()),
            Err(error) => {
                let nothing = |of: &OfTopic<()>| {
                    let partitions = of.partitions.iter().map(|(index, ())| (*index, None)).collect();
                    let of = OfTopic { topic: of.topic.clone(), topic_id: of.topic_id, partitions };
                    fetched_topic(&of, Some(error), version)
                };
                let wanted = self.wanted.as_deref().unwrap_or_default();
                answer.with_topics(wanted.iter().map(nothing).collect())
            }
        }
    }
}

fn fetched_topic(
    of: &OfTopic<Option<CommittedOffset>>,
    error: Option<ErrorCode>,
    version: i16,
) -> OffsetFetchResponseTopic {
    let partitions = of.partitions.iter().map(|(index, committed)| {
        let (offset, leader_epoch, metadata) = told(committed);
        OffsetFetchResponsePartition::default()
            .with_partition_index(*index)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(if version >= FETCH_LEADER_EPOCH { leader_epoch } else { -1 })
            .with_metadata(Some(wire_text(metadata)))
            .with_error_code(error_number(error))
    });
    OffsetFetchResponseTopic::default()
        .with_name(TopicName(wire_text(&of.topic)))
        .with_partitions(partitions.collect())
}

fn fetched_group(group: &str, fetched: Result<&Offsets, ErrorCode>) -> OffsetFetchResponseGroup {
    let answer = OffsetFetchResponseGroup::default().with_group_id(GroupId(wire_text(group)));
    let topics = match fetched {
        Ok(topics) => topics,
        Err(error) => return answer.with_error_code(error.code()),
    };
    let topics = topics.iter().map(|of| {
        let partitions = of.partitions.iter().map(|(index, committed)| {
            let (offset, leader_epoch, metadata) = told(committed);
            OffsetFetchResponsePartitions::default()
                .with_partition_index(*index)
                .with_committed_offset(offset)
                .with_committed_leader_epoch(leader_epoch)
                .with_metadata(Some(wire_text(metadata)))
        });
        OffsetFetchResponseTopics::default()
            .with_name(TopicName(wire_text(&of.topic)))
            .with_partitions(partitions.collect())
    });
    answer.with_topics(topics.collect())
}
