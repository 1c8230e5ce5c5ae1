//! JoinGroup, SyncGroup, Heartbeat and LeaveGroup: one group, one coordinator. The first two may be answered long
//! after; the connection waits meanwhile, as Kafka's does.

use bytes::Bytes;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, SyncGroupRequest, SyncGroupResponse,
};
use uuid::Builder;

use super::{Asked, Groups, refusal, shown_host, text, wire_nullable, wire_text};
use crate::group::request::{Heartbeat, Join, Joined, Leave, Leaver, Protocol, Sync, Synced};
use crate::group::{Request, Response};
use crate::partition::ReplyTo;
use crate::request::{CloseReason, Scene, Work};
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, error_number, guard};

/// First version of JoinGroup that tells the rebalance timeout apart from the session timeout.
const JOIN_REBALANCE_TIMEOUT: i16 = 1;
/// First version of JoinGroup whose new members come again with the id that they are given.
const JOIN_KNOWN_MEMBER: i16 = 4;
/// First version of JoinGroup that tells the protocol type, and a protocol of null.
const JOIN_PROTOCOL_TYPE: i16 = 7;
/// First version of JoinGroup that tells a leader to skip the assignment.
const JOIN_SKIP_ASSIGNMENT: i16 = 9;
/// First version of JoinGroup that tells instance ids.
const JOIN_INSTANCE: i16 = 5;
/// First version of SyncGroup that names protocol type and protocol, and has to.
const SYNC_PROTOCOL: i16 = 5;
/// First version of LeaveGroup that names several members.
const LEAVE_MEMBERS: i16 = 3;

pub(crate) fn join(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let asked: JoinGroupRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let version = header.version;
    let rebalance_timeout_ms =
        if version >= JOIN_REBALANCE_TIMEOUT { asked.rebalance_timeout_ms } else { asked.session_timeout_ms };
    let mut random = [0; 16];
    scene.desk.random.fill(&mut random);
    let protocols = asked.protocols.iter();
    let join = Join {
        group: text(&asked.group_id),
        member_id: text(&asked.member_id),
        instance_id: asked.group_instance_id.as_ref().map(text),
        client_id: header.client_id.as_ref().map(text).unwrap_or_default(),
        client_host: shown_host(scene.context.peer),
        session_timeout_ms: asked.session_timeout_ms,
        rebalance_timeout_ms,
        protocol_type: text(&asked.protocol_type),
        protocols: protocols.map(|p| Protocol { name: text(&p.name), metadata: own(&p.metadata) }).collect(),
        must_know_member_id: version >= JOIN_KNOWN_MEMBER,
        may_skip_assignment: version >= JOIN_SKIP_ASSIGNMENT,
        fresh_id: Builder::from_random_bytes(random).into_uuid(),
    };
    Ok(Groups::of_one(Asked::Join, &asked.group_id, Request::Join(Box::new(join)), to, scene))
}

/// What a group keeps does not keep the frame that it came in.
fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

pub(super) fn joined(response: Option<Response>, version: i16) -> JoinGroupResponse {
    let joined = match response {
        Some(Response::Joined(joined)) => joined,
        other => Joined { error: Some(refusal(other.as_ref())), generation: -1, ..Joined::default() },
    };
    let members = joined.members.into_iter().map(|member| {
        let told = JoinGroupResponseMember::default()
            .with_member_id(wire_text(&member.member_id))
            .with_metadata(member.metadata);
        let instance_id = member.instance_id.filter(|_| version >= JOIN_INSTANCE);
        told.with_group_instance_id(wire_nullable(instance_id.as_ref()))
    });
    let answer = JoinGroupResponse::default()
        .with_error_code(error_number(joined.error))
        .with_generation_id(joined.generation)
        .with_leader(wire_text(&joined.leader))
        .with_member_id(wire_text(&joined.member_id))
        .with_members(members.collect());
    let protocol = wire_nullable(joined.protocol.as_ref());
    if version < JOIN_PROTOCOL_TYPE {
        return answer.with_protocol_name(Some(protocol.unwrap_or_default()));
    }
    answer
        .with_protocol_type(wire_nullable(joined.protocol_type.as_ref()))
        .with_protocol_name(protocol)
        .with_skip_assignment(joined.skip_assignment && version >= JOIN_SKIP_ASSIGNMENT)
}

pub(crate) fn sync(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let asked: SyncGroupRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let is_named = asked.protocol_type.is_some() && asked.protocol_name.is_some();
    if header.version >= SYNC_PROTOCOL && !is_named {
        let refused = Synced { error: Some(ErrorCode::InconsistentGroupProtocol), ..Synced::default() };
        let mut groups = Groups::new(Asked::Sync);
        groups.parts.push(Some(Response::Synced(refused)));
        return Ok(Work::Groups(Box::new(groups)));
    }
    let assignments = asked.assignments.iter();
    let sync = Sync {
        group: text(&asked.group_id),
        member_id: text(&asked.member_id),
        instance_id: asked.group_instance_id.as_ref().map(text),
        generation: asked.generation_id,
        protocol_type: asked.protocol_type.as_ref().map(text),
        protocol: asked.protocol_name.as_ref().map(text),
        assignments: assignments.map(|one| (text(&one.member_id), own(&one.assignment))).collect(),
    };
    Ok(Groups::of_one(Asked::Sync, &asked.group_id, Request::Sync(sync), to, scene))
}

pub(super) fn synced(response: Option<Response>, version: i16) -> SyncGroupResponse {
    let synced = match response {
        Some(Response::Synced(synced)) => synced,
        other => Synced { error: Some(refusal(other.as_ref())), ..Synced::default() },
    };
    let answer = SyncGroupResponse::default()
        .with_error_code(error_number(synced.error))
        .with_assignment(synced.assignment);
    if version < SYNC_PROTOCOL {
        return answer;
    }
    answer
        .with_protocol_type(wire_nullable(synced.protocol_type.as_ref()))
        .with_protocol_name(wire_nullable(synced.protocol.as_ref()))
}

pub(crate) fn heartbeat(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let asked: HeartbeatRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let heartbeat = Heartbeat {
        group: text(&asked.group_id),
        member_id: text(&asked.member_id),
        instance_id: asked.group_instance_id.as_ref().map(text),
        generation: asked.generation_id,
    };
    Ok(Groups::of_one(Asked::Heartbeat, &asked.group_id, Request::Heartbeat(heartbeat), to, scene))
}

pub(super) fn beaten(response: Option<Response>) -> HeartbeatResponse {
    let error = match response {
        Some(Response::Heartbeat(error)) => error,
        other => Some(refusal(other.as_ref())),
    };
    HeartbeatResponse::default().with_error_code(error_number(error))
}

pub(crate) fn leave(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let asked: LeaveGroupRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let members = if header.version >= LEAVE_MEMBERS {
        let members = asked.members.iter();
        let leaver = |member: &kafka_protocol::messages::leave_group_request::MemberIdentity| Leaver {
            member_id: text(&member.member_id),
            instance_id: member.group_instance_id.as_ref().map(text),
        };
        members.map(leaver).collect()
    } else {
        vec![Leaver { member_id: text(&asked.member_id), instance_id: None }]
    };
    let leave = Leave { group: text(&asked.group_id), members };
    Ok(Groups::of_one(Asked::Leave, &asked.group_id, Request::Leave(leave), to, scene))
}

pub(super) fn left(response: Option<Response>, version: i16) -> LeaveGroupResponse {
    let answer = LeaveGroupResponse::default();
    let left = match response {
        Some(Response::Left(left)) => left,
        other => return answer.with_error_code(refusal(other.as_ref()).code()),
    };
    if version < LEAVE_MEMBERS {
        let error = left.first().and_then(|(_, error)| *error);
        return answer.with_error_code(error_number(error));
    }
    let members = left.iter().map(|(leaver, error)| {
        MemberResponse::default()
            .with_member_id(wire_text(&leaver.member_id))
            .with_group_instance_id(wire_nullable(leaver.instance_id.as_ref()))
            .with_error_code(error_number(*error))
    });
    answer.with_members(members.collect())
}
