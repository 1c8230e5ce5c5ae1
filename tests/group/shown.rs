//! Records and answers as lines of a story.

use tidemill::group::consumer::records::{ConsumerRecord, Partitions};
use tidemill::group::consumer::request::{ConsumerBeat, DescribedConsumerGroup, NamedPartitions};
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

/// `a/0,1 b/2`; a topic is shown as the letter that its id is the number of.
pub fn partitions_of(of: &Partitions) -> String {
    let topics = of.iter().map(|(topic, partitions)| {
        let letter = char::from_u32(topic.as_u128() as u32).unwrap();
        let numbers: Vec<_> = partitions.iter().map(i32::to_string).collect();
        format!("{letter}/{}", numbers.join(","))
    });
    let shown = topics.collect::<Vec<_>>().join(" ");
    if shown.is_empty() { "nothing".into() } else { shown }
}

fn consumer_record(group: &str, record: &ConsumerRecord) -> String {
    if record.is_tombstone() {
        let (what, id) = match record {
            ConsumerRecord::Epoch(_) => ("epoch", None),
            ConsumerRecord::PartitionMetadata => ("metadata", None),
            ConsumerRecord::TargetEpoch(_) => ("target epoch", None),
            ConsumerRecord::Member(id, _) => ("member", Some(id)),
            ConsumerRecord::Target(id, _) => ("target", Some(id)),
            ConsumerRecord::Current(id, _) => ("current", Some(id)),
            ConsumerRecord::Regex(id, _) => ("pattern", Some(id)),
        };
        return format!("erases {group} {what} {}", id.map(|id| member(id)).unwrap_or_default())
            .trim_end()
            .into();
    }
    let told = match record {
        ConsumerRecord::Epoch(Some(of)) => format!("epoch {}", of.epoch),
        ConsumerRecord::TargetEpoch(Some(epoch)) => format!("target epoch {epoch}"),
        ConsumerRecord::Member(id, Some(of)) => {
            let topics: Vec<_> = of.topics.iter().map(|topic| topic.to_string()).collect();
            let regex = of.regex.as_ref().map(|regex| format!(" /{regex}/")).unwrap_or_default();
            let classic = if of.classic.is_some() { ", classic" } else { "" };
            format!("member {} on {}{regex}{classic}", member(id), topics.join("+"))
        }
        ConsumerRecord::Target(id, Some(of)) => format!("target {} {}", member(id), partitions_of(of)),
        ConsumerRecord::Current(id, Some(of)) => {
            let revoking = if of.revoking.is_empty() {
                String::new()
            } else {
                format!(", revoking {}", partitions_of(&of.revoking))
            };
            let (epoch, state) = (of.epoch, of.state);
            format!("current {} {state:?} at {epoch}: {}{revoking}", member(id), partitions_of(&of.assigned))
        }
        ConsumerRecord::Regex(pattern, Some(of)) => {
            let topics: Vec<_> = of.topics.iter().map(|topic| topic.to_string()).collect();
            format!("pattern {pattern}: {}", topics.join("+"))
        }
        other => panic!("{other:?}"),
    };
    format!("writes {group} {told}")
}

fn beat(beat: &ConsumerBeat) -> String {
    let assigned =
        beat.assigned.as_ref().map(|of| format!(", has {}", partitions_of(of))).unwrap_or_default();
    format!("{} at epoch {}{assigned}", member(&beat.member_id), beat.epoch)
}

fn named(of: &[NamedPartitions]) -> String {
    partitions_of(&of.iter().map(|of| (of.topic_id, of.partitions.clone())).collect())
}

fn consumers(group: &DescribedConsumerGroup) -> Vec<String> {
    let missing = group.error.map(|error| format!(" ({error:?})")).unwrap_or_default();
    let (epoch, target, assignor) = (group.epoch, group.target_epoch, &group.assignor);
    let head =
        format!("{} is {}{missing}, epoch {epoch}, target {target}, {assignor}", group.group, group.state);
    let members = group.members.iter().map(|of| {
        let instance = of.instance_id.as_deref().map(|id| format!("@{id}")).unwrap_or_default();
        let classic = if of.is_classic { ", classic" } else { "" };
        let (assigned, target) = (named(&of.assigned), named(&of.target));
        format!("  {}{instance} at {}: {assigned} of {target}{classic}", member(&of.member_id), of.epoch)
    });
    std::iter::once(head).chain(members).collect()
}

/// What a leader assigned, or the coordinator in its place.
fn assignment(bytes: &[u8]) -> String {
    match bytes {
        [0, 0..=3, 0, ..] => {
            let mut shown: Vec<String> = Vec::new();
            let number = |at: usize| i32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
            let mut at = 6;
            for _ in 0..number(2) {
                let length = usize::from(bytes[at + 1]);
                let name = String::from_utf8_lossy(&bytes[at + 2..at + 2 + length]).into_owned();
                at += 2 + length;
                let count = number(at) as usize;
                let of: Vec<_> = (0..count).map(|index| number(at + 4 + index * 4).to_string()).collect();
                at += 4 + count * 4;
                shown.push(format!("{name}/{}", of.join(",")));
            }
            if shown.is_empty() { "nothing".into() } else { shown.join(" ") }
        }
        _ => text(bytes),
    }
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
        Record::Consumer(group, record) => consumer_record(group, record),
        Record::Group(group, Some(value)) => {
            let members = value
                .members
                .iter()
                .map(|of| format!(" {}={}", member(&of.member_id), assignment(&of.assignment)));
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

fn response_lines(fetched: &FetchedOffsets) -> Vec<String> {
    response(&Response::OffsetsFetched(vec![fetched.clone()]))
}

pub fn response(response: &Response) -> Vec<String> {
    match response {
        Response::Joined(answer) => vec![joined(answer)],
        Response::Synced(answer) => match answer.error {
            Some(error) => vec![format!("{error:?}")],
            None => vec![format!("assigned {}", assignment(&answer.assignment))],
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
        Response::MemberOffsetsFetched(groups) => {
            let each = groups.iter().flat_map(|(group, result)| match result {
                Ok(fetched) => response_lines(fetched),
                Err(error) => vec![format!("{group} {error:?}")],
            });
            each.collect()
        }
        Response::ConsumerBeat(answer) => vec![beat(answer)],
        Response::ConsumersDescribed(groups) => groups.iter().flat_map(consumers).collect(),
        Response::Refused(error) => vec![format!("{error:?}")],
        Response::BeatRefused(refused) => match &refused.words {
            Some(words) => vec![format!("{:?}: {words}", refused.error)],
            None => vec![format!("{:?}", refused.error)],
        },
    }
}

fn described(group: &DescribedGroup) -> Vec<String> {
    let missing = group.error.map(|error| format!(" ({error:?})")).unwrap_or_default();
    let head =
        format!("{} is {}{missing}, {} {}", group.group, group.state, group.protocol_type, group.protocol);
    let members = group.members.iter().map(|of| {
        let instance = of.instance_id.as_deref().map(|id| format!("@{id}")).unwrap_or_default();
        let metadata = if of.metadata.is_empty() { "" } else { ", metadata known" };
        format!("  {}{instance}: {}{metadata}", member(&of.member_id), assignment(&of.assignment))
    });
    std::iter::once(head.trim_end_matches([' ', ',']).to_owned()).chain(members).collect()
}
