//! ConsumerGroupHeartbeat and ConsumerGroupDescribe: groups whose partitions the coordinator assigns (KIP-848).

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::consumer_group_describe_response::{
    Assignment, DescribedGroup, Member, TopicPartitions as DescribedPartitions,
};
use kafka_protocol::messages::consumer_group_heartbeat_response::{
    Assignment as BeatAssignment, TopicPartitions as BeatPartitions,
};
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse, GroupId, TopicName,
};
use uuid::Builder;

use super::{Asked, Groups, Places, refusal, shown_host, text, wire_nullable, wire_text};
use crate::controller::features::GROUP_VERSION;
use crate::group::consumer::records::Partitions;
use crate::group::consumer::request::{
    BeatRefused, ConsumerBeat, ConsumerHeartbeat, DescribedConsumerGroup, DescribedConsumerMember,
    NamedPartitions,
};
use crate::group::{Request, Response};
use crate::partition::ReplyTo;
use crate::request::authorized::{GROUP_OPERATIONS, NOT_ASKED};
use crate::request::{CloseReason, Scene, Work};
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, error_number, guard};

/// First version of ConsumerGroupHeartbeat whose members make their own ids.
const HEARTBEAT_OWN_ID: i16 = 1;
/// First version of ConsumerGroupDescribe that tells which protocol a member follows.
const DESCRIBE_MEMBER_TYPE: i16 = 1;
/// Kafka's numbers of those; -1 where the version does not tell.
const MEMBER_CLASSIC: i8 = 0;
const MEMBER_CONSUMER: i8 = 1;
const MEMBER_UNTOLD: i8 = -1;

pub(crate) fn heartbeat(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let asked: ConsumerGroupHeartbeatRequest = guard::decode(body, header.version, guard::Limits::default())?;
    if !is_offered(scene) {
        let mut groups = Groups::new(Asked::ConsumerHeartbeat);
        groups.parts.push(Some(Response::Refused(ErrorCode::UnsupportedVersion)));
        return Ok(Work::Groups(Box::new(groups)));
    }
    let mut random = [0; 16];
    scene.desk.random.fill(&mut random);
    let topics = asked.subscribed_topic_names.as_ref();
    let heartbeat = ConsumerHeartbeat {
        group: text(&asked.group_id),
        member_id: text(&asked.member_id),
        must_name_itself: header.version >= HEARTBEAT_OWN_ID,
        epoch: asked.member_epoch,
        instance_id: asked.instance_id.as_ref().map(text),
        rack_id: asked.rack_id.as_ref().map(text),
        rebalance_timeout_ms: asked.rebalance_timeout_ms,
        topics: topics.map(|topics| topics.iter().map(|topic| text(topic)).collect()),
        regex: asked.subscribed_topic_regex.as_ref().map(text),
        assignor: asked.server_assignor.as_ref().map(text),
        owned: owned(&asked),
        client_id: header.client_id.as_ref().map(text).unwrap_or_default(),
        client_host: shown_host(scene.context.peer),
        fresh_id: Builder::from_random_bytes(random).into_uuid(),
    };
    let request = Request::ConsumerHeartbeat(Box::new(heartbeat));
    Ok(Groups::of_one(Asked::ConsumerHeartbeat, &asked.group_id, request, to, scene))
}

/// Whether the cluster has finalized the version of the coordinator that serves these groups.
fn is_offered(scene: &Scene) -> bool {
    scene.view.image.features().any(|(name, level)| name == GROUP_VERSION && level > 0)
}

/// What the member says it has. Topics without partitions say nothing.
fn owned(asked: &ConsumerGroupHeartbeatRequest) -> Option<Partitions> {
    let mut owned = Partitions::new();
    for topic in asked.topic_partitions.as_ref()? {
        if !topic.partitions.is_empty() {
            owned.entry(topic.topic_id).or_default().extend(topic.partitions.iter().copied());
        }
    }
    Some(owned)
}

pub(super) fn beaten(response: Option<Response>) -> ConsumerGroupHeartbeatResponse {
    let refused = match response {
        Some(Response::ConsumerBeat(beat)) => return beat_response(beat),
        Some(Response::BeatRefused(refused)) => refused,
        other => of_coordinator(refusal(other.as_ref())),
    };
    ConsumerGroupHeartbeatResponse::default()
        .with_error_code(refused.error.code())
        .with_error_message(refused.words.as_deref().map(wire_text))
        .with_member_id(None)
}

/// Kafka says these in words of its own.
fn of_coordinator(error: ErrorCode) -> BeatRefused {
    let words = match error {
        ErrorCode::NotCoordinator => "This is not the correct coordinator.",
        ErrorCode::CoordinatorLoadInProgress => {
            "The coordinator is loading and hence can't process requests."
        }
        ErrorCode::UnsupportedVersion => "The version of API is not supported.",
        _ => return error.into(),
    };
    BeatRefused { error, words: Some(words.to_owned()) }
}

fn beat_response(beat: ConsumerBeat) -> ConsumerGroupHeartbeatResponse {
    let assigned = beat.assigned.map(|assigned| {
        let topics = assigned.iter().map(|(id, partitions)| {
            BeatPartitions::default().with_topic_id(*id).with_partitions(partitions.iter().copied().collect())
        });
        BeatAssignment::default().with_topic_partitions(topics.collect())
    });
    ConsumerGroupHeartbeatResponse::default()
        .with_member_id(Some(wire_text(&beat.member_id)))
        .with_member_epoch(beat.epoch)
        .with_heartbeat_interval_ms(beat.heartbeat_interval_ms)
        .with_assignment(assigned)
}

/// What the response to a ConsumerGroupDescribe needs of the request.
#[derive(Debug)]
pub(super) struct Describe {
    /// The groups in the order of the request, with their places or why nobody was asked.
    wanted: Vec<Result<usize, (GroupId, ErrorCode)>>,
    places: Places,
    with_operations: bool,
}

pub(crate) fn describe(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let asked: ConsumerGroupDescribeRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let mut named = Vec::new();
    let offered = is_offered(scene);
    let wanted = asked.group_ids.iter().map(|group| {
        if !offered {
            return Err((group.clone(), ErrorCode::UnsupportedVersion));
        }
        if group.is_empty() {
            return Err((group.clone(), ErrorCode::InvalidGroupId));
        }
        named.push((text(group), ()));
        Ok(named.len() - 1)
    });
    let wanted = wanted.collect();
    let mut groups = Groups::new(Asked::List);
    let names = |groups: Vec<(Arc<str>, ())>| groups.into_iter().map(|(group, ())| group).collect();
    let places = groups.ask_each(named, |groups| Request::DescribeConsumers(names(groups)), to, scene);
    let with_operations = asked.include_authorized_operations;
    groups.asked = Asked::DescribeConsumers(Describe { wanted, places, with_operations });
    Ok(Work::Groups(Box::new(groups)))
}

impl Describe {
    pub(super) fn response(&self, parts: &[Response], version: i16) -> ConsumerGroupDescribeResponse {
        let groups = self.wanted.iter().map(|wanted| {
            let at = match wanted {
                Ok(at) => *at,
                Err((group, error)) => return unknown(group, *error, None),
            };
            let Some((group, part, place)) = self.places.get(at) else {
                return unknown("", ErrorCode::UnknownServerError, None);
            };
            let described = match parts.get(*part) {
                Some(Response::ConsumersDescribed(groups)) => {
                    groups.get(*place).ok_or(ErrorCode::UnknownServerError)
                }
                other => Err(refusal(other)),
            };
            match described {
                Ok(described) => self.group(described, version),
                Err(error) => unknown(group, error, of_coordinator(error).words),
            }
        });
        ConsumerGroupDescribeResponse::default().with_groups(groups.collect())
    }

    fn group(&self, of: &DescribedConsumerGroup, version: i16) -> DescribedGroup {
        if let Some(error) = of.error {
            let what = if of.is_of_other_type { "is not a consumer group" } else { "not found" };
            return unknown(&of.group, error, Some(format!("Group {} {what}.", of.group)));
        }
        DescribedGroup::default()
            .with_group_id(GroupId(wire_text(&of.group)))
            .with_error_code(error_number(None))
            .with_group_state(wire_text(of.state))
            .with_group_epoch(of.epoch)
            .with_assignment_epoch(of.target_epoch)
            .with_assignor_name(wire_text(&of.assignor))
            .with_members(of.members.iter().map(|of| member(of, version)).collect())
            .with_authorized_operations(if self.with_operations { GROUP_OPERATIONS } else { NOT_ASKED })
    }
}

fn unknown(group: &str, error: ErrorCode, words: Option<String>) -> DescribedGroup {
    DescribedGroup::default()
        .with_group_id(GroupId(wire_text(group)))
        .with_error_code(error.code())
        .with_error_message(words.as_deref().map(wire_text))
        .with_authorized_operations(NOT_ASKED)
}

fn member(of: &DescribedConsumerMember, version: i16) -> Member {
    let topics = of.topics.iter().map(|topic| TopicName(wire_text(topic)));
    let member_type = match of.is_classic {
        _ if version < DESCRIBE_MEMBER_TYPE => MEMBER_UNTOLD,
        true => MEMBER_CLASSIC,
        false => MEMBER_CONSUMER,
    };
    Member::default()
        .with_member_id(wire_text(&of.member_id))
        .with_instance_id(wire_nullable(of.instance_id.as_ref()))
        .with_rack_id(wire_nullable(of.rack_id.as_ref()))
        .with_member_epoch(of.epoch)
        .with_client_id(wire_text(&of.client_id))
        .with_client_host(wire_text(&of.client_host))
        .with_subscribed_topic_names(topics.collect())
        .with_subscribed_topic_regex(wire_nullable(of.regex.as_ref()))
        .with_assignment(assignment(&of.assigned))
        .with_target_assignment(assignment(&of.target))
        .with_member_type(member_type)
}

fn assignment(of: &[NamedPartitions]) -> Assignment {
    let topics = of.iter().map(|of| {
        DescribedPartitions::default()
            .with_topic_id(of.topic_id)
            .with_topic_name(TopicName(wire_text(&of.topic)))
            .with_partitions(of.partitions.iter().copied().collect())
    });
    Assignment::default().with_topic_partitions(topics.collect())
}
