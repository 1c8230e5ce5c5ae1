//! What is asked of groups and of committed offsets: each request becomes one part for each coordinator that it
//! concerns, and the answers become one response.
//!
//! Which coordinators those are follows from the names of the groups; the shard that leads a coordinator's partition
//! serves its part. What the request itself gets wrong, the coordinator says, also one that leads nothing. An error of
//! a part as a whole ([`Response::Refused`]) is the error of each group or partition that the part names.

mod consumers;
mod membership;
mod offsets;
#[cfg(test)]
mod tests;
mod whole;

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::{Coordination, Scene, Work};
use crate::group::{Request, Response};
use crate::partition::ReplyTo;
use crate::wire::ErrorCode;
use crate::wire::api::ApiKey;
use crate::wire::header::RequestHeader;
use crate::wire::response;

pub(super) use consumers::{describe as describe_consumers, heartbeat as consumer_heartbeat};
pub(super) use membership::{heartbeat, join, leave, sync};
pub(super) use offsets::{commit, delete_offsets, fetch};
pub(super) use whole::{delete, describe, list};

/// A request that waits for coordinators.
#[derive(Debug)]
pub struct Groups {
    asked: Asked,
    /// One answer from each coordinator asked.
    parts: Vec<Option<Response>>,
    outstanding: usize,
}

/// What the response needs of the request.
#[derive(Debug)]
enum Asked {
    Join,
    Sync,
    Heartbeat,
    Leave,
    Commit(offsets::Commit),
    Fetch(offsets::Fetch),
    DeleteOffsets(offsets::Delete),
    List,
    Describe(whole::Describe),
    Delete(Places),
    ConsumerHeartbeat,
    DescribeConsumers(consumers::Describe),
}

/// Groups by name, each with what is asked about it.
type Named<T> = Vec<(Arc<str>, T)>;

/// Groups in the order of the request, each with the part that asks for it and its place in that.
type Places = Vec<(Arc<str>, usize, usize)>;

impl Groups {
    fn new(asked: Asked) -> Self {
        Self { asked, parts: Vec::new(), outstanding: 0 }
    }

    /// One request for one group.
    fn of_one(asked: Asked, group: &str, request: Request, to: ReplyTo, scene: &mut Scene) -> Work {
        let mut groups = Self::new(asked);
        let partition = super::coordinator::partition_of(group, scene);
        groups.ask(partition, request, to, scene);
        Work::Groups(Box::new(groups))
    }

    fn ask(&mut self, partition: i32, request: Request, to: ReplyTo, scene: &mut Scene) {
        let to = ReplyTo { part: self.parts.len() as u32, ..to };
        self.parts.push(None);
        self.outstanding += 1;
        scene.desk.coordinations.push(Coordination { partition, to, request });
    }

    /// One part for each coordinator of the groups.
    fn ask_each<T>(
        &mut self,
        groups: Named<T>,
        request: impl Fn(Named<T>) -> Request,
        to: ReplyTo,
        scene: &mut Scene,
    ) -> Places {
        let mut parts: BTreeMap<i32, usize> = BTreeMap::new();
        let mut asked: Vec<(i32, Named<T>)> = Vec::new();
        let mut places = Vec::with_capacity(groups.len());
        for (group, about) in groups {
            let partition = super::coordinator::partition_of(&group, scene);
            let part = *parts.entry(partition).or_insert_with(|| {
                asked.push((partition, Vec::new()));
                asked.len() - 1
            });
            if let Some((_, groups)) = asked.get_mut(part) {
                places.push((Arc::clone(&group), part, groups.len()));
                groups.push((group, about));
            }
        }
        for (partition, groups) in asked {
            self.ask(partition, request(groups), to, scene);
        }
        places
    }

    pub(super) fn answer(&mut self, part: u32, response: Response) {
        let Some(place) = self.parts.get_mut(part as usize).filter(|place| place.is_none()) else { return };
        *place = Some(response);
        self.outstanding -= 1;
    }

    pub(super) fn is_done(&self) -> bool {
        self.outstanding == 0
    }

    /// A rebalance needs every member.
    pub(super) fn waits_for_others(&self) -> bool {
        !self.is_done() && matches!(self.asked, Asked::Join | Asked::Sync)
    }

    pub(super) fn encode(self, header: &RequestHeader, buffer: &mut BytesMut) {
        let version = header.version;
        let mut parts: Vec<Response> = self.parts.into_iter().map(or_unknown).collect();
        match self.asked {
            Asked::Join => encode(header, buffer, &membership::joined(parts.pop(), version)),
            Asked::Sync => encode(header, buffer, &membership::synced(parts.pop(), version)),
            Asked::Heartbeat => encode(header, buffer, &membership::beaten(parts.pop())),
            Asked::Leave => encode(header, buffer, &membership::left(parts.pop(), version)),
            Asked::Commit(asked) => encode(header, buffer, &asked.response(parts.pop(), version)),
            Asked::Fetch(asked) => encode(header, buffer, &asked.response(&parts, version)),
            Asked::DeleteOffsets(asked) => encode(header, buffer, &asked.response(parts.pop())),
            Asked::List => encode(header, buffer, &whole::listed(parts, version)),
            Asked::Describe(asked) => encode(header, buffer, &asked.response(&parts, version)),
            Asked::Delete(places) => encode(header, buffer, &whole::deleted(&places, &parts)),
            Asked::ConsumerHeartbeat => encode(header, buffer, &consumers::beaten(parts.pop())),
            Asked::DescribeConsumers(asked) => encode(header, buffer, &asked.response(&parts, version)),
        }
    }
}

fn or_unknown(response: Option<Response>) -> Response {
    response.unwrap_or(Response::Refused(ErrorCode::UnknownServerError))
}

/// The error of a part that was not answered as it should be.
fn refusal(response: Option<&Response>) -> ErrorCode {
    match response {
        Some(Response::Refused(error)) => *error,
        _ => ErrorCode::UnknownServerError,
    }
}

fn encode<R: Encodable>(header: &RequestHeader, buffer: &mut BytesMut, answer: &R) {
    let key: ApiKey = header.api.key;
    response::encode(buffer, key, header.version, header.correlation_id, answer)
        .expect("every field set exists in every version served");
}

fn text(text: &StrBytes) -> Arc<str> {
    Arc::from(text.as_str())
}

fn wire_text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_string())
}

fn wire_nullable(text: Option<&Arc<str>>) -> Option<StrBytes> {
    text.map(|text| wire_text(text))
}

/// A client's address as Java prints it.
fn shown_host(peer: IpAddr) -> Arc<str> {
    match peer {
        IpAddr::V4(v4) => format!("/{v4}").into(),
        IpAddr::V6(v6) => {
            let parts: Vec<String> = v6.segments().iter().map(|part| format!("{part:x}")).collect();
            format!("/{}", parts.join(":")).into()
        }
    }
}
