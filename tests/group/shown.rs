//! Records and answers as lines of a story.

use tidemill::group::request::*;
use tidemill::group::{Record, Response};
use tidemill::wire::ErrorCode;

/// A member id with its number in place of the long one.
fn member(id: &str) -> String {
    let number = id.len().checked_sub(37).and_then(|at| Some((at, id.get(at..)?)));
    match number.and_then(|(at, suffix)| Some((at, uuid::Uuid::parse_str(suffix.strip_prefix('-')?).ok()?))) {
        Some((at, number)) => format!("{}#{}", &id[..at], number.as_u128()),
        None if id.is_empty() => "-".into(),
        None => id.into(),
    }
}

fn text(bytes: &[u8]) -> String {
    if bytes.is_empty() { "nothing".into() } else { String::from_utf8_lossy(bytes).into_owned() }
}

pub fn record(record: &Record) -> String {
    match record {
        Record::Offset(key, Some(value)) => {
            let metadata =
                if value.metadata.is_empty() { String::new() } else { format!(" \"{}\"", value.metadata) };
            let expires =
                value.expire_timestamp_ms.map(|at| format!(", expires at {at}")).unwrap_or_default();
            format!(
                "writes {} {}/{} at {}{metadata}{expires}",
                key.group, key.topic, key.partition, value.offset
            )
        }
        Record::Offset(key, None) => format!("erases {} {}/{}", key.group, key.topic, key.partition),
        Record::Group(group, None) => format!("erases {group}"),
        Record::Group(group, Some(value)) => {
            let members =
                value.members.iter().map(|of| format!(" {}={}", member(&of.member_id), text(&of.assignment)));
            let protocol = value.protocol.as_deref().unwrap_or("no protocol");
            let leader =
                value.leader.as_deref().map(|id| format!(", led by {}", member(id))).unwrap_or_default();
            let members = members.collect::<String>();
            format!("writes {group}: generation {}, {protocol}{leader}{members}", value.generation)
        }
    }
}

fn error(error: Option<ErrorCode>) -> String {
    error.map_or("ok".into(), |error| format!("{error:?}"))
}

fn joined(joined: &Joined) -> String {
    if let Some(error) = joined.error {
        return format!("{error:?} as {}", member(&joined.member_id));
    }
    let members = joined.members.iter().map(|of| member(&of.member_id)).collect::<Vec<_>>().join(" ");
    let members = if members.is_empty() { String::new() } else { format!(", leads {members}") };
    let skip = if joined.skip_assignment { ", skips the assignment" } else { "" };
    let (protocol, leader) = (joined.protocol.as_deref().unwrap_or("none"), member(&joined.leader));
    let id = member(&joined.member_id);
    format!("joined as {id}: generation {}, {protocol}, leader {leader}{members}{skip}", joined.generation)
}

fn partitions<T>(topics: &[OfTopic<T>], shown: impl Fn(&T) -> String) -> Vec<String> {
    let of = |of: &OfTopic<T>| {
        let each = of
            .partitions
            .iter()
            .map(|(partition, value)| format!("{}/{partition} {}", of.topic, shown(value)));
        each.collect::<Vec<_>>()
    };
    vec![topics.iter().flat_map(of).collect::<Vec<_>>().join(", ")]
}

pub fn response(response: &Response) -> Vec<String> {
    match response {
        Response::Joined(answer) => vec![joined(answer)],
        Response::Synced(answer) => match answer.error {
            Some(error) => vec![format!("{error:?}")],
            None => vec![format!("assigned {}", text(&answer.assignment))],
        },
        Response::Heartbeat(result) => vec![error(*result)],
        Response::Left(members) => {
            let each = members.iter().map(|(leaver, result)| {
                let instance = leaver.instance_id.as_deref().map(|id| format!("@{id}")).unwrap_or_default();
                format!("{}{instance} {}", member(&leaver.member_id), error(*result))
            });
            vec![format!("left: {}", each.collect::<Vec<_>>().join(", "))]
        }
        Response::Described(groups) => groups.iter().flat_map(described).collect(),
        Response::Listed(groups) => {
            let each = groups
                .iter()
                .map(|of| format!("{} ({} {} {})", of.group, of.group_type, of.state, of.protocol_type));
            vec![format!("listed: {}", each.collect::<Vec<_>>().join(", "))]
        }
        Response::Deleted(groups) => {
            let each = groups.iter().map(|(group, result)| format!("{group} {}", error(*result)));
            vec![format!("deleted: {}", each.collect::<Vec<_>>().join(", "))]
        }
        Response::OffsetsCommitted(topics) | Response::OffsetsDeleted(topics) => {
            partitions(topics, |result| error(*result))
        }
        Response::OffsetsFetched(groups) => {
            let shown = |value: &Option<tidemill::group::record::CommittedOffset>| match value {
                Some(value) if value.metadata.is_empty() => format!("at {}", value.offset),
                Some(value) => format!("at {} \"{}\"", value.offset, value.metadata),
                None => "none".into(),
            };
            groups
                .iter()
                .flat_map(|of| partitions(&of.topics, shown))
                .map(|line| format!("fetched: {line}"))
                .collect()
        }
        Response::Refused(error) => vec![format!("{error:?}")],
    }
}

fn described(group: &DescribedGroup) -> Vec<String> {
    let missing = group.error.map(|error| format!(" ({error:?})")).unwrap_or_default();
    let head =
        format!("{} is {}{missing}, {} {}", group.group, group.state, group.protocol_type, group.protocol);
    let members = group.members.iter().map(|of| {
        let instance = of.instance_id.as_deref().map(|id| format!("@{id}")).unwrap_or_default();
        let metadata = if of.metadata.is_empty() { "" } else { ", metadata known" };
        format!("  {}{instance}: {}{metadata}", member(&of.member_id), text(&of.assignment))
    });
    std::iter::once(head.trim_end_matches([' ', ',']).to_owned()).chain(members).collect()
}
