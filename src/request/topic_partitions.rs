//! DescribeTopicPartitions (KIP-966): topics and their partitions by name, page by page. A page ends
//! where the client's limit or `max.request.partition.size.limit` is reached, and a cursor says where the
//! next one begins.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};

use super::authorized::{NOT_ASKED, TOPIC_OPERATIONS};
use super::partition_state::{is_internal, partition_state, topic_name};
use super::{CloseReason, Scene, Work};
use crate::controller::check_topic_name;
use crate::wire::api::ApiKey;
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, error_number, guard, response};

pub(super) fn describe(header: &RequestHeader, body: &Bytes, scene: &Scene) -> Result<Work, CloseReason> {
    let request: DescribeTopicPartitionsRequest =
        guard::decode(body, header.version, guard::Limits::default())?;
    let answer = page(&request, scene).unwrap_or_else(|| refused(&request));
    let mut buffer = BytesMut::new();
    let (version, correlation_id) = (header.version, header.correlation_id);
    response::encode(&mut buffer, ApiKey::DescribeTopicPartitions, version, correlation_id, &answer)
        .expect("there is one version");
    Ok(Work::Encoded(buffer))
}

/// What a request with a cursor that it cannot have is answered: Kafka has no place for words here.
fn refused(request: &DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let topics = request.topics.iter().map(|topic| {
        DescribeTopicPartitionsResponseTopic::default()
            .with_error_code(ErrorCode::InvalidRequest.code())
            .with_name(Some(topic.name.clone()))
            .with_topic_authorized_operations(NOT_ASKED)
    });
    DescribeTopicPartitionsResponse::default().with_topics(topics.collect())
}

/// The names to describe, sorted, from the cursor on; `None` if the cursor is not one of them.
fn names<'a>(request: &'a DescribeTopicPartitionsRequest, scene: &'a Scene) -> Option<BTreeSet<&'a str>> {
    let cursor = request.cursor.as_ref();
    let from = cursor.map_or("", |cursor| cursor.topic_name.as_str());
    let behind = |name: &&str| *name >= from;
    let names: BTreeSet<&str> = if request.topics.is_empty() {
        scene.view.image.topics().map(|topic| &*topic.name).filter(behind).collect()
    } else {
        let names: BTreeSet<&str> =
            request.topics.iter().map(|topic| topic.name.as_str()).filter(behind).collect();
        if cursor.is_some() && !names.contains(from) {
            return None;
        }
        names
    };
    cursor.is_none_or(|cursor| cursor.partition_index >= 0).then_some(names)
}

fn page(request: &DescribeTopicPartitionsRequest, scene: &Scene) -> Option<DescribeTopicPartitionsResponse> {
    let limit = i32::try_from(scene.node.config.max_request_partition_size_limit).unwrap_or(i32::MAX);
    let mut left = request.response_partition_limit.min(limit).max(1);
    let mut answer = DescribeTopicPartitionsResponse::default();
    let cursor = |name: &str, index| {
        Some(Cursor::default().with_topic_name(topic_name(name)).with_partition_index(index))
    };
    for name in names(request, scene)? {
        if left == 0 {
            answer.next_cursor = cursor(name, 0);
            break;
        }
        let Some(topic) = scene.view.image.topic(name) else {
            // Also one behind which a cursor of an earlier page stood.
            if !request.topics.is_empty() {
                answer.topics.push(unknown(name));
            }
            continue;
        };
        let first = request.cursor.as_ref().filter(|cursor| cursor.topic_name.as_str() == name);
        let first = first.map_or(0, |cursor| cursor.partition_index);
        let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
        let end = first.saturating_add(left).min(count);
        let partitions: Vec<_> = (first..end)
            .filter_map(|index| {
                let state = partition_state(scene, topic, index, true)?;
                Some(
                    DescribeTopicPartitionsResponsePartition::default()
                        .with_error_code(error_number(None))
                        .with_partition_index(index)
                        .with_leader_id(state.leader)
                        .with_leader_epoch(state.leader_epoch)
                        .with_replica_nodes(state.replicas)
                        .with_isr_nodes(state.isr)
                        .with_eligible_leader_replicas(Some(state.elr))
                        .with_last_known_elr(Some(state.last_known_elr))
                        .with_offline_replicas(state.offline),
                )
            })
            .collect();
        left -= partitions.len() as i32;
        answer.topics.push(
            DescribeTopicPartitionsResponseTopic::default()
                .with_name(Some(topic_name(name)))
                .with_topic_id(topic.id)
                .with_is_internal(is_internal(name))
                .with_partitions(partitions)
                .with_topic_authorized_operations(TOPIC_OPERATIONS),
        );
        if end < count {
            answer.next_cursor = cursor(name, end);
            break;
        }
    }
    Some(answer)
}

fn unknown(name: &str) -> DescribeTopicPartitionsResponseTopic {
    let error = match check_topic_name(name) {
        Ok(()) => ErrorCode::UnknownTopicOrPartition,
        Err(_) => ErrorCode::InvalidTopicException,
    };
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(error.code())
        .with_name(Some(topic_name(name)))
        .with_is_internal(is_internal(name))
        .with_topic_authorized_operations(TOPIC_OPERATIONS)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::describe_topic_partitions_request::{Cursor as From, TopicRequest};

    use kafka_protocol::messages::BrokerId;
    use uuid::Uuid;

    use super::super::stage::Stage;
    use super::*;
    use crate::controller::record::{PartitionRecord, Record};

    type Shown = (Vec<(i16, String, Vec<i32>)>, Option<(String, i32)>);

    fn ask(stage: &mut Stage, topics: &[&str], limit: i32, cursor: Option<(&str, i32)>) -> Shown {
        let topics = topics.iter().map(|name| TopicRequest::default().with_name(topic_name(name)));
        let cursor = cursor.map(|(name, index)| {
            From::default().with_topic_name(topic_name(name)).with_partition_index(index)
        });
        let request = DescribeTopicPartitionsRequest::default()
            .with_topics(topics.collect())
            .with_response_partition_limit(limit)
            .with_cursor(cursor);
        let response: DescribeTopicPartitionsResponse =
            stage.ask(ApiKey::DescribeTopicPartitions, 0, &request);
        let topics = response.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| partition.partition_index).collect();
            (topic.error_code, topic.name.unwrap().0.to_string(), partitions)
        });
        let next = response.next_cursor.map(|next| (next.topic_name.to_string(), next.partition_index));
        (topics.collect(), next)
    }

    fn stage() -> Stage {
        let mut stage = Stage::new(&[("max.request.partition.size.limit", "4")]);
        stage.topic("c", 3, &[1, 1]);
        stage.topic("a", 1, &[1, 1, 1]);
        stage.topic("b", 2, &[1]);
        stage
    }

    fn told(name: &str, partitions: &[i32]) -> (i16, String, Vec<i32>) {
        (0, name.to_string(), partitions.to_vec())
    }

    #[test]
    fn pages_follow_each_other_by_name_until_everything_is_told() {
        let mut stage = stage();
        let next = |name: &str, index| Some((name.to_string(), index));
        let first = ask(&mut stage, &[], 2, None);
        assert_eq!(first, (vec![told("a", &[0, 1])], next("a", 2)));
        let second = ask(&mut stage, &[], 2, Some(("a", 2)));
        assert_eq!(second, (vec![told("a", &[2]), told("b", &[0])], next("c", 0)));
        let third = ask(&mut stage, &[], 2, Some(("c", 0)));
        assert_eq!(third, (vec![told("c", &[0, 1])], None));
        // The node's limit is four, and a client cannot ask for fewer than one.
        let largest = ask(&mut stage, &[], 2_000, None);
        assert_eq!(largest, (vec![told("a", &[0, 1, 2]), told("b", &[0])], next("c", 0)));
        let smallest = ask(&mut stage, &[], i32::MIN, Some(("b", 0)));
        assert_eq!(smallest, (vec![told("b", &[0])], next("c", 0)));
        // The topic at the cursor is gone: the page begins behind it.
        let gone = ask(&mut stage, &[], 1, Some(("aa", 5)));
        assert_eq!(gone, (vec![told("b", &[0])], next("c", 0)));
        let behind = ask(&mut stage, &[], 4, Some(("a", i32::MAX)));
        assert_eq!(behind, (vec![told("a", &[]), told("b", &[0]), told("c", &[0, 1])], None));
    }

    #[test]
    fn named_topics_are_sorted_told_once_and_with_their_errors() {
        let mut stage = stage();
        let (topics, next) = ask(&mut stage, &["c", "missing", "b", "a b", "c"], 4, None);
        let unknown = |code, name: &str| (code, name.to_string(), vec![]);
        assert_eq!(topics, [unknown(17, "a b"), told("b", &[0]), told("c", &[0, 1]), unknown(3, "missing")]);
        assert_eq!(next, None);
    }

    #[test]
    fn a_cursor_must_be_one_of_the_topics_asked_for_and_not_negative() {
        let mut stage = stage();
        let refused = |name: &str| (42, name.to_string(), vec![]);
        assert_eq!(ask(&mut stage, &["a", "c"], 4, Some(("b", 0))).0, [refused("a"), refused("c")]);
        assert_eq!(ask(&mut stage, &["a"], 4, Some(("a", -1))).0, [refused("a")]);
        assert_eq!(ask(&mut stage, &[], 4, Some(("a", -1))), (vec![], None));
    }

    #[test]
    fn a_partition_is_told_with_its_operations_epoch_and_no_eligible_replicas() {
        let mut stage = stage();
        let request = DescribeTopicPartitionsRequest::default().with_response_partition_limit(1);
        let response: DescribeTopicPartitionsResponse =
            stage.ask(ApiKey::DescribeTopicPartitions, 0, &request);
        let topic = &response.topics[0];
        assert_eq!((topic.topic_authorized_operations, topic.topic_id.as_u128()), (3576, 1));
        let partition = &topic.partitions[0];
        assert_eq!((partition.leader_id.0, partition.leader_epoch), (1, 5));
        assert_eq!(partition.eligible_leader_replicas.as_deref(), Some(&[][..]));
        assert_eq!(partition.last_known_elr.as_deref(), Some(&[][..]));
    }

    #[test]
    fn eligible_leader_replicas_and_the_last_leader_are_told() {
        let mut stage = stage();
        let (topic_id, ids) = (Uuid::from_u128(9), |ids: &[i32]| ids.iter().copied().collect());
        stage.apply(Record::Topic { name: "d".into(), topic_id });
        stage.apply(Record::Partition(PartitionRecord {
            topic_id,
            index: 0,
            replicas: ids(&[1, 2, 3]),
            leader: -1,
            elr: ids(&[2]),
            last_known_elr: ids(&[3]),
            ..PartitionRecord::default()
        }));
        let named = TopicRequest::default().with_name(topic_name("d"));
        let request = DescribeTopicPartitionsRequest::default()
            .with_topics(vec![named])
            .with_response_partition_limit(1);
        let response: DescribeTopicPartitionsResponse =
            stage.ask(ApiKey::DescribeTopicPartitions, 0, &request);
        let told = &response.topics[0].partitions[0];
        let of = |nodes: &Option<Vec<BrokerId>>| -> Vec<i32> {
            nodes.iter().flatten().map(|node| node.0).collect()
        };
        assert_eq!((of(&told.eligible_leader_replicas), of(&told.last_known_elr)), (vec![2], vec![3]));
        assert_eq!(told.offline_replicas, [BrokerId(2), BrokerId(3)]);
    }
}
