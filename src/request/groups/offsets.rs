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
use crate::controller::{Image, TopicImage};
use crate::group::record::CommittedOffset;
use crate::group::request::{CommitOffsets, FetchedGroup, NewOffset, OfTopic};
use crate::group::{Request, Response};
use crate::partition::ReplyTo;
use crate::request::{CloseReason, Scene, Work};
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, StrBytes, beyond, error_number, guard};

/// Versions of OffsetCommit below this say how long an offset is kept.
const COMMIT_NO_RETENTION: i16 = 5;
/// First version of OffsetCommit whose clients know that a group may be missing.
const COMMIT_MISSING_GROUP: i16 = 9;
/// First version of OffsetCommit and OffsetFetch that names topics by their ids.
const TOPIC_IDS: i16 = 10;
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

/// The topic that a request means, or what its partitions get if there is none.
fn topic_meant<'s>(name: &str, version: i16, scene: &'s Scene) -> Result<&'s TopicImage, ErrorCode> {
    let image = &scene.view.image;
    let (found, error) = if version >= TOPIC_IDS {
        (image.topic_by_id(beyond::topic_id(name)), ErrorCode::UnknownTopicId)
    } else {
        (image.topic(name), ErrorCode::UnknownTopicOrPartition)
    };
    found.map(|topic| &**topic).ok_or(error)
}

/// Why nothing can be committed for a partition.
fn missing(topic: Result<&TopicImage, ErrorCode>, partition: i32) -> Option<ErrorCode> {
    let is_known = |count: usize| usize::try_from(partition).is_ok_and(|index| index < count);
    match topic {
        Ok(topic) if is_known(topic.partitions.len()) => None,
        Ok(_) => Some(ErrorCode::UnknownTopicOrPartition),
        Err(error) => Some(error),
    }
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
        let meant = topic_meant(&topic.name, header.version, scene);
        let mut told = Vec::new();
        let mut wanted = Vec::new();
        for partition in &topic.partitions {
            let error = missing(meant, partition.partition_index);
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
        if let (Ok(meant), false) = (meant, wanted.is_empty()) {
            let topic_id = if header.version >= TOPIC_IDS { meant.id } else { Uuid::nil() };
            topics.push(OfTopic { topic: Arc::clone(&meant.name), topic_id, partitions: wanted });
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
    pub(super) fn response(self, answer: Option<Response>, version: i16) -> OffsetCommitResponse {
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
            let topic = OffsetCommitResponseTopic::default().with_partitions(partitions.collect());
            if version >= TOPIC_IDS {
                topic.with_topic_id(beyond::topic_id(&name))
            } else {
                topic.with_name(name)
            }
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
        let meant = topic_meant(&topic.name, header.version, scene);
        let told: Vec<_> = indexes.map(|index| (index, missing(meant, index))).collect();
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
    /// Where topics are named by id: those that do not exist, by group in the order of the request.
    unknown: Vec<Vec<OfTopic<()>>>,
    /// Where topics are named by id: what ids names have.
    image: Option<Arc<Image>>,
}

fn of_topic(name: &TopicName, indexes: &[i32]) -> OfTopic<()> {
    let partitions = indexes.iter().map(|index| (*index, ())).collect();
    OfTopic { topic: text(name), topic_id: Uuid::nil(), partitions }
}

/// The same with a topic's name in place of its id; as it is, with the id, where there is no such topic.
fn of_topic_id(asked: OfTopic<()>, version: i16, scene: &Scene) -> Result<OfTopic<()>, OfTopic<()>> {
    let topic_id = beyond::topic_id(&asked.topic);
    match topic_meant(&asked.topic, version, scene) {
        Ok(meant) => Ok(OfTopic { topic: Arc::clone(&meant.name), topic_id, ..asked }),
        Err(_) => Err(OfTopic { topic_id, ..asked }),
    }
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
    let mut wanted: Named<(Wanted, Arc<str>, i32)> = if header.version >= FETCH_GROUPS {
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
    let (mut unknown, mut image) = (Vec::new(), None);
    if header.version >= TOPIC_IDS {
        image = Some(Arc::clone(&scene.view.image));
        for (_, (topics, ..)) in &mut wanted {
            let mut strangers = Vec::new();
            if let Some(asked) = topics.take() {
                let named = asked.into_iter().map(|topic| of_topic_id(topic, header.version, scene));
                *topics =
                    Some(named.filter_map(|found| found.map_err(|of| strangers.push(of)).ok()).collect());
            }
            unknown.push(strangers);
        }
    }
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
    groups.asked = Asked::Fetch(Fetch { places, wanted: repeated, unknown, image });
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
            let mut unknown = self.unknown.iter();
            let groups = groups.map(|(group, fetched)| {
                let mut answer = fetched_group(group, fetched, self.image.as_deref());
                let strangers = unknown.next().filter(|_| answer.error_code == 0);
                answer.topics.extend(strangers.into_iter().flatten().map(unknown_topic));
                answer
            });
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

/// With an image, topics are named by id: one that is gone cannot be named, and is left out.
fn fetched_group(
    group: &str,
    fetched: Result<&Offsets, ErrorCode>,
    image: Option<&Image>,
) -> OffsetFetchResponseGroup {
    let answer = OffsetFetchResponseGroup::default().with_group_id(GroupId(wire_text(group)));
    let topics = match fetched {
        Ok(topics) => topics,
        Err(error) => return answer.with_error_code(error.code()),
    };
    let topics = topics.iter().filter_map(|of| {
        let partitions = of.partitions.iter().map(|(index, committed)| {
            let (offset, leader_epoch, metadata) = told(committed);
            OffsetFetchResponsePartitions::default()
                .with_partition_index(*index)
                .with_committed_offset(offset)
                .with_committed_leader_epoch(leader_epoch)
                .with_metadata(Some(wire_text(metadata)))
        });
        let topic = OffsetFetchResponseTopics::default().with_partitions(partitions.collect());
        match image {
            None => Some(topic.with_name(TopicName(wire_text(&of.topic)))),
            Some(_) if !of.topic_id.is_nil() => Some(topic.with_topic_id(of.topic_id)),
            Some(image) => Some(topic.with_topic_id(image.topic(&of.topic)?.id)),
        }
    });
    answer.with_topics(topics.collect())
}

/// The partitions of a topic id that nobody has.
fn unknown_topic(of: &OfTopic<()>) -> OffsetFetchResponseTopics {
    let partitions = of.partitions.iter().map(|(index, ())| {
        OffsetFetchResponsePartitions::default()
            .with_partition_index(*index)
            .with_committed_offset(-1)
            .with_committed_leader_epoch(-1)
            .with_metadata(Some(StrBytes::default()))
            .with_error_code(ErrorCode::UnknownTopicId.code())
    });
    OffsetFetchResponseTopics::default().with_topic_id(of.topic_id).with_partitions(partitions.collect())
}
