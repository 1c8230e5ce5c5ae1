//! ListOffsets: one look-up per partition, by special timestamp or by time.
//!
//! A partition that is named more than once is answered once, with INVALID_REQUEST, as in Kafka. The
//! `timeout_ms` of version 10 bounds look-ups in tiered storage; local ones are answered when they are done.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse, TopicName};

use super::{Call, CloseReason, Scene, Work};
use crate::controller::TopicImage;
use crate::partition::{Answer, Isolation, OffsetQuery, Op, ReplyTo};
use crate::wire::api::ApiKey;
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard, response};

/// The replica id of a consumer; anybody else sees up to the log's end.
const CONSUMER: i32 = -1;

/// First version whose clients know OFFSET_NOT_AVAILABLE (KIP-207).
const VERSION_NOT_AVAILABLE: i16 = 5;

/// A ListOffsets request between its start and its response.
#[derive(Debug)]
pub struct Offsets {
    topics: Vec<ListOffsetsTopicResponse>,
    /// Topic and partition position of each part, in request order.
    places: Vec<(usize, usize)>,
    outstanding: usize,
}

/// Every topic asked for, each once, with its partitions, each once and with how often it was named.
fn each_once(request: ListOffsetsRequest) -> Vec<(TopicName, Vec<(ListOffsetsPartition, usize)>)> {
    let mut places: BTreeMap<TopicName, usize> = BTreeMap::new();
    let mut partition_places: BTreeMap<(usize, i32), usize> = BTreeMap::new();
    let mut topics: Vec<(TopicName, Vec<(ListOffsetsPartition, usize)>)> = Vec::new();
    for asked in request.topics {
        let at = *places.entry(asked.name.clone()).or_insert_with(|| {
            topics.push((asked.name, Vec::new()));
            topics.len() - 1
        });
        let Some((_, partitions)) = topics.get_mut(at) else { continue };
        for partition in asked.partitions {
            let index = partition.partition_index;
            let place = *partition_places.entry((at, index)).or_insert_with(|| {
                partitions.push((partition, 0));
                partitions.len() - 1
            });
            if let Some((_, times)) = partitions.get_mut(place) {
                *times += 1;
            }
        }
    }
    topics
}

impl Offsets {
    pub(super) fn start(
        header: &RequestHeader,
        body: &Bytes,
        to: ReplyTo,
        scene: &mut Scene,
    ) -> Result<Work, CloseReason> {
        let request: ListOffsetsRequest = guard::decode(body, header.version, guard::Limits::default())?;
        let isolation = match (request.replica_id.0, request.isolation_level) {
            (CONSUMER, 1) => Some(Isolation::Committed),
            (CONSUMER, _) => Some(Isolation::Uncommitted),
            _ => None,
        };
        let mut offsets = Self { topics: Vec::new(), places: Vec::new(), outstanding: 0 };
        for (topic_at, (name, asked)) in each_once(request).into_iter().enumerate() {
            let topic = scene.view.image.topic(&name).cloned();
            let mut partitions = Vec::with_capacity(asked.len());
            for (partition_at, (partition, times)) in asked.into_iter().enumerate() {
                let index = partition.partition_index;
                let mut answer = ListOffsetsPartitionResponse::default()
                    .with_partition_index(index)
                    .with_timestamp(-1)
                    .with_offset(-1);
                match checked(topic.as_deref(), &partition, times, header.version) {
                    Err(error) => answer.error_code = error.code(),
                    Ok((topic, query)) => {
                        let to = ReplyTo { part: offsets.places.len() as u32, ..to };
                        let current_leader_epoch = partition.current_leader_epoch;
                        let op = Op::Offset { query, isolation, current_leader_epoch };
                        scene.desk.calls.push(Call { topic_id: topic.id, partition: index, to, op });
                        offsets.places.push((topic_at, partition_at));
                        offsets.outstanding += 1;
                    }
                }
                partitions.push(answer);
            }
            let answer = ListOffsetsTopicResponse::default().with_name(name).with_partitions(partitions);
            offsets.topics.push(answer);
        }
        Ok(Work::Offsets(Box::new(offsets)))
    }

    pub(super) fn answer(&mut self, part: u32, answer: Answer) {
        let Some((topic, partition)) = self.places.get(part as usize) else { return };
        let topic = self.topics.get_mut(*topic);
        let Some(place) = topic.and_then(|topic| topic.partitions.get_mut(*partition)) else { return };
        self.outstanding = self.outstanding.saturating_sub(1);
        match answer {
            Answer::Offset { offset, timestamp_ms, leader_epoch } => {
                place.offset = offset;
                place.timestamp = timestamp_ms;
                place.leader_epoch = leader_epoch;
            }
            Answer::Failed { error, .. } => place.error_code = error.code(),
            _ => place.error_code = ErrorCode::UnknownServerError.code(),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.outstanding == 0
    }

    pub(super) fn encode(mut self, header: &RequestHeader, buffer: &mut BytesMut) {
        if header.version < VERSION_NOT_AVAILABLE {
            let unknown = ErrorCode::OffsetNotAvailable.code();
            let partitions = self.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
            for place in partitions.filter(|place| place.error_code == unknown) {
                place.error_code = ErrorCode::LeaderNotAvailable.code();
            }
        }
        if header.version < 4 {
            let partitions = self.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
            partitions.for_each(|place| place.leader_epoch = -1);
        }
        let answer = ListOffsetsResponse::default().with_topics(self.topics);
        response::encode(buffer, ApiKey::ListOffsets, header.version, header.correlation_id, &answer)
            .expect("every field set exists in every version served");
    }
}

/// What is asked of a partition, or why it is not asked, in Kafka's order.
fn checked<'a>(
    topic: Option<&'a TopicImage>,
    partition: &ListOffsetsPartition,
    times: usize,
    version: i16,
) -> Result<(&'a TopicImage, OffsetQuery), ErrorCode> {
    if times > 1 {
        return Err(ErrorCode::InvalidRequest);
    }
    let query = query(partition.timestamp, version).ok_or(ErrorCode::UnsupportedVersion)?;
    let is_known = |topic: &&TopicImage| {
        usize::try_from(partition.partition_index).is_ok_and(|index| index < topic.partitions.len())
    };
    let topic = topic.filter(is_known).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    Ok((topic, query))
}

/// What a timestamp asks for; `None` where the version does not know that special timestamp.
fn query(timestamp: i64, version: i16) -> Option<OffsetQuery> {
    match timestamp {
        -1 => Some(OffsetQuery::Latest),
        -2 => Some(OffsetQuery::Earliest),
        -3 if version >= 7 => Some(OffsetQuery::MaxTimestamp),
        -4 if version >= 8 => Some(OffsetQuery::Earliest),
        -5 if version >= 9 => Some(OffsetQuery::Tiered),
        -6 if version >= 11 => Some(OffsetQuery::Tiered),
        time if time >= 0 => Some(OffsetQuery::Timestamp(time)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::BrokerId;
    use kafka_protocol::messages::list_offsets_request::ListOffsetsTopic;

    use super::super::Answered;
    use super::super::partition_state::topic_name;
    use super::super::stage::{Stage, TO};
    use super::*;
    use crate::wire::api;

    #[test]
    fn a_leader_epoch_is_left_out_where_the_version_has_none() {
        let topic = ListOffsetsTopicResponse::default()
            .with_partitions(vec![ListOffsetsPartitionResponse::default()]);
        let api = api::find(ApiKey::ListOffsets as i16).unwrap();
        for version in api.version_first..=api.version_last {
            let topics = vec![topic.clone()];
            let mut offsets = Offsets { topics, places: vec![(0, 0)], outstanding: 1 };
            offsets.answer(0, Answer::Offset { offset: 7, timestamp_ms: -1, leader_epoch: 3 });
            assert!(offsets.is_done());
            let header = RequestHeader { api, version, correlation_id: 1, client_id: None };
            offsets.encode(&header, &mut BytesMut::new());
        }
    }

    #[test]
    fn a_watermark_that_is_behind_has_its_own_error_from_version_5_on() {
        let api = api::find(ApiKey::ListOffsets as i16).unwrap();
        for version in api.version_first..=api.version_last {
            let mut stage = Stage::new(&[]);
            stage.topic("t", 7, &[1]);
            let latest = ListOffsetsPartition::default().with_timestamp(-1);
            let topic = ListOffsetsTopic::default().with_name(topic_name("t")).with_partitions(vec![latest]);
            let request =
                ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
            let (header, mut work) = stage.start(ApiKey::ListOffsets, version, &request);
            let failed = Answer::Failed { error: ErrorCode::OffsetNotAvailable, log_start_offset: 0 };
            work.answer(&header, TO, Answered::Partition(failed, None), &mut stage.scene());
            let response: ListOffsetsResponse = stage.finish(&header, work);
            let error = response.topics[0].partitions[0].error_code;
            assert_eq!(error, if version >= 5 { 78 } else { 5 }, "v{version}");
        }
    }

    #[test]
    fn special_timestamps_exist_from_their_version_on() {
        for (timestamp, first, expected) in [
            (0, 1, OffsetQuery::Timestamp(0)),
            (i64::MAX, 1, OffsetQuery::Timestamp(i64::MAX)),
            (-1, 1, OffsetQuery::Latest),
            (-2, 1, OffsetQuery::Earliest),
            (-3, 7, OffsetQuery::MaxTimestamp),
            (-4, 8, OffsetQuery::Earliest),
            (-5, 9, OffsetQuery::Tiered),
            (-6, 11, OffsetQuery::Tiered),
        ] {
            for version in 1..=11 {
                let known = (version >= first).then_some(expected);
                assert_eq!(query(timestamp, version), known, "{timestamp} in v{version}");
            }
        }
        assert_eq!((query(-7, 11), query(i64::MIN, 11)), (None, None));
    }

    fn asked(name: &str, partitions: &[(i32, i64)]) -> ListOffsetsTopic {
        let partitions = partitions.iter().map(|(index, timestamp)| {
            ListOffsetsPartition::default().with_partition_index(*index).with_timestamp(*timestamp)
        });
        ListOffsetsTopic::default().with_name(topic_name(name)).with_partitions(partitions.collect())
    }

    #[test]
    fn a_partition_named_twice_is_answered_once_and_errors_come_in_kafkas_order() {
        for version in 1..=11 {
            let mut stage = Stage::new(&[]);
            stage.topic("t", 7, &[1, 1, 1]);
            let topics = vec![
                asked("t", &[(0, -1), (1, -9), (2, -2), (7, -1), (7, -9)]),
                asked("u", &[(0, -9), (1, -1)]),
                asked("t", &[(0, -2)]),
            ];
            let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(topics);
            let (header, mut work) = stage.start(ApiKey::ListOffsets, version, &request);
            assert_eq!(stage.desk.calls.len(), 1, "only t-2 is asked");
            let found = Answer::Offset { offset: 7, timestamp_ms: -1, leader_epoch: 3 };
            work.answer(&header, TO, Answered::Partition(found, None), &mut stage.scene());
            let response: ListOffsetsResponse = stage.finish(&header, work);
            let told: Vec<Vec<_>> = response
                .topics
                .iter()
                .map(|t| t.partitions.iter().map(|p| (p.partition_index, p.error_code, p.offset)).collect())
                .collect();
            assert_eq!(
                told,
                [vec![(0, 42, -1), (1, 35, -1), (2, 0, 7), (7, 42, -1)], vec![(0, 35, -1), (1, 3, -1)]]
            );
        }
    }

    #[test]
    fn only_consumers_are_kept_below_what_is_committed() {
        for (replica_id, level, expected) in [
            (-1, 0, Some(Isolation::Uncommitted)),
            (-1, 1, Some(Isolation::Committed)),
            (-2, 1, None),
            (3, 0, None),
        ] {
            let mut stage = Stage::new(&[]);
            stage.topic("t", 7, &[1]);
            let request = ListOffsetsRequest::default()
                .with_replica_id(BrokerId(replica_id))
                .with_isolation_level(level)
                .with_topics(vec![asked("t", &[(0, -1)])]);
            stage.start(ApiKey::ListOffsets, 5, &request);
            let Op::Offset { isolation, .. } = stage.desk.calls.remove(0).op else { panic!("a look-up") };
            assert_eq!(isolation, expected);
        }
    }
}
