//! ListGroups, DescribeGroups and DeleteGroups: groups as a whole, of as many coordinators as they belong to.
//! ListGroups asks each partition of the offsets topic that this node leads.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, GroupId,
    ListGroupsRequest, ListGroupsResponse,
};

use super::{Asked, Groups, Places, refusal, text, wire_nullable, wire_text};
use crate::group::{self, OFFSETS_TOPIC, Request, Response};
use crate::partition::ReplyTo;
use crate::request::authorized::{GROUP_OPERATIONS, NOT_ASKED};
use crate::request::{CloseReason, Scene, Work};
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, error_number, guard};

/// First version of DescribeGroups that says that a group is not there; before, its state says so.
const DESCRIBE_MISSING: i16 = 6;
/// First version of DescribeGroups that tells instance ids.
const DESCRIBE_INSTANCE: i16 = 4;
/// First versions of ListGroups that tell state and type.
const LIST_STATE: i16 = 4;
const LIST_TYPE: i16 = 5;
/// A group that is not there.
const DEAD: &str = "Dead";

pub(crate) fn list(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let asked: ListGroupsRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let names =
        |names: &[kafka_protocol::protocol::StrBytes]| names.iter().map(|name| name.to_string()).collect();
    let (states, types): (Vec<String>, Vec<String>) =
        (names(&asked.states_filter), names(&asked.types_filter));
    let mut groups = Groups::new(Asked::List);
    let node_id = scene.node.config.node_id;
    if let Some(topic) = scene.view.image.topic(OFFSETS_TOPIC).cloned() {
        for (index, partition) in (0..).zip(&topic.partitions) {
            if partition.leader == node_id {
                let request = Request::List { states: states.clone(), types: types.clone() };
                groups.ask(index, request, to, scene);
            }
        }
    }
    Ok(Work::Groups(Box::new(groups)))
}

/// The groups of all partitions, or the error of one that is loading. One that has just lost its coordinator has none
/// to tell.
pub(super) fn listed(parts: Vec<Response>, version: i16) -> ListGroupsResponse {
    let mut groups = Vec::new();
    for part in parts {
        match part {
            Response::Listed(listed) => groups.extend(listed),
            Response::Refused(ErrorCode::NotCoordinator) => {}
            other => return ListGroupsResponse::default().with_error_code(refusal(Some(&other)).code()),
        }
    }
    let groups = groups.into_iter().map(|group| {
        let mut told = ListedGroup::default()
            .with_group_id(GroupId(wire_text(&group.group)))
            .with_protocol_type(wire_text(&group.protocol_type));
        if version >= LIST_STATE {
            told.group_state = wire_text(group.state);
        }
        if version >= LIST_TYPE {
            told.group_type = wire_text(group.group_type);
        }
        told
    });
    ListGroupsResponse::default().with_groups(groups.collect())
}

/// What the response to a DescribeGroups needs of the request.
#[derive(Debug)]
pub(super) struct Describe {
    places: Places,
    with_operations: bool,
}

pub(crate) fn describe(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let asked: DescribeGroupsRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let with_operations = asked.include_authorized_operations;
    let named = asked.groups.iter().map(|group| (text(group), ())).collect();
    let mut groups = Groups::new(Asked::List);
    let request = |groups: Vec<(Arc<str>, ())>| Request::Describe(names(groups));
    let places = groups.ask_each(named, request, to, scene);
    groups.asked = Asked::Describe(Describe { places, with_operations });
    Ok(Work::Groups(Box::new(groups)))
}

fn names(groups: Vec<(Arc<str>, ())>) -> Vec<Arc<str>> {
    groups.into_iter().map(|(group, ())| group).collect()
}

impl Describe {
    pub(super) fn response(&self, parts: &[Response], version: i16) -> DescribeGroupsResponse {
        let groups = self.places.iter().map(|(group, part, place)| {
            let described = match parts.get(*part) {
                Some(Response::Described(described)) => {
                    described.get(*place).ok_or(ErrorCode::UnknownServerError)
                }
                other => Err(refusal(other)),
            };
            self.group(group, described, version)
        });
        DescribeGroupsResponse::default().with_groups(groups.collect())
    }

    fn group(
        &self,
        id: &str,
        described: Result<&group::request::DescribedGroup, ErrorCode>,
        version: i16,
    ) -> DescribedGroup {
        let told = DescribedGroup::default().with_group_id(GroupId(wire_text(id)));
        let group = match described {
            Ok(group) => group,
            Err(error) => return told.with_error_code(error.code()).with_authorized_operations(NOT_ASKED),
        };
        let is_missing = group.error.is_some();
        let error = group.error.filter(|_| version >= DESCRIBE_MISSING);
        let what = if group.is_of_other_type { "is not a classic group" } else { "not found" };
        let message = error.map(|_| wire_text(&format!("Group {id} {what}.")));
        let is_told = self.with_operations && !(is_missing && error.is_some());
        let members = group.members.iter().map(|member| {
            let instance_id = member.instance_id.as_ref().filter(|_| version >= DESCRIBE_INSTANCE);
            DescribedGroupMember::default()
                .with_member_id(wire_text(&member.member_id))
                .with_group_instance_id(wire_nullable(instance_id))
                .with_client_id(wire_text(&member.client_id))
                .with_client_host(wire_text(&member.client_host))
                .with_member_metadata(member.metadata.clone())
                .with_member_assignment(member.assignment.clone())
        });
        told.with_error_code(error_number(error))
            .with_error_message(message)
            .with_group_state(wire_text(if is_missing { DEAD } else { group.state }))
            .with_protocol_type(wire_text(&group.protocol_type))
            .with_protocol_data(wire_text(&group.protocol))
            .with_members(members.collect())
            .with_authorized_operations(if is_told { GROUP_OPERATIONS } else { NOT_ASKED })
    }
}

pub(crate) fn delete(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let asked: DeleteGroupsRequest = guard::decode(body, header.version, guard::Limits::default())?;
    // Each once, as in Kafka.
    let mut told = BTreeSet::new();
    let named =
        asked.groups_names.iter().map(|group| text(group)).filter(|group| told.insert(Arc::clone(group)));
    let named = named.map(|group| (group, ())).collect();
    let mut groups = Groups::new(Asked::List);
    let places = groups.ask_each(named, |groups| Request::Delete(names(groups)), to, scene);
    groups.asked = Asked::Delete(places);
    Ok(Work::Groups(Box::new(groups)))
}

pub(super) fn deleted(places: &Places, parts: &[Response]) -> DeleteGroupsResponse {
    let results = places.iter().map(|(group, part, place)| {
        let error = match parts.get(*part) {
            Some(Response::Deleted(deleted)) => {
                deleted.get(*place).map_or(Some(ErrorCode::UnknownServerError), |(_, error)| *error)
            }
            other => Some(refusal(other)),
        };
        DeletableGroupResult::default()
            .with_group_id(GroupId(wire_text(group)))
            .with_error_code(error_number(error))
    });
    DeleteGroupsResponse::default().with_results(results.collect())
}
