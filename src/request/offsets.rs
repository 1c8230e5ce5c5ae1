//! ListOffsets: one look-up per partition, by special timestamp or by time.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};

use super::{Call, CloseReason, Scene, Work};
use crate::partition::{Answer, Isolation, OffsetQuery, Op, ReplyTo};
use crate::wire::api::ApiKey;
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard, response};

/// A ListOffsets request between its start and its response.
#[derive(Debug)]
pub struct Offsets {
    topics: Vec<ListOffsetsTopicResponse>,
    /// Topic and partition position of each part, in request order.
    places: Vec<(usize, usize)>,
    outstanding: usize,
}

impl Offsets {
    pub(super) fn start(
        header: &RequestHeader,
        body: &Bytes,
        to: ReplyTo,
        scene: &mut Scene,
    ) -> Result<Work, CloseReason> {
        let request: ListOffsetsRequest = guard::decode(body, header.version, guard::Limits::default())?;
        let isolation =
            if request.isolation_level == 1 { Isolation::Committed } else { Isolation::Uncommitted };
        let mut offsets = Self { topics: Vec::new(), places: Vec::new(), outstanding: 0 };
        for (topic_at, asked) in request.topics.into_iter().enumerate() {
            let topic = scene.view.image.topic(&asked.name).cloned();
            let mut partitions = Vec::with_capacity(asked.partitions.len());
            for (partition_at, partition) in asked.partitions.into_iter().enumerate() {
                let index = partition.partition_index;
                let mut answer = ListOffsetsPartitionResponse::default()
                    .with_partition_index(index)
                    .with_timestamp(-1)
                    .with_offset(-1);
                let known = topic
                    .as_ref()
                    .filter(|topic| usize::try_from(index).is_ok_and(|index| index < topic.partitions.len()));
                match (known, query(partition.timestamp, isolation, header.version)) {
                    (None, _) => answer.error_code = ErrorCode::UnknownTopicOrPartition.code(),
                    (_, None) => answer.error_code = ErrorCode::UnsupportedVersion.code(),
                    (Some(topic), Some(query)) => {
                        let to = ReplyTo { part: offsets.places.len() as u32, ..to };
                        let op = Op::Offset { query, current_leader_epoch: partition.current_leader_epoch };
                        scene.desk.calls.push(Call { topic_id: topic.id, partition: index, to, op });
                        offsets.places.push((topic_at, partition_at));
                        offsets.outstanding += 1;
                    }
                }
                partitions.push(answer);
            }
            let answer =
                ListOffsetsTopicResponse::default().with_name(asked.name).with_partitions(partitions);
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
        if header.version < 4 {
            let partitions = self.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
            partitions.for_each(|place| place.leader_epoch = -1);
        }
        let answer = ListOffsetsResponse::default().with_topics(self.topics);
        response::encode(buffer, ApiKey::ListOffsets, header.version, header.correlation_id, &answer)
            .expect("every field set exists in every version served");
    }
}

/// What a timestamp asks for; `None` where the version does not know that special timestamp.
fn query(timestamp: i64, isolation: Isolation, version: i16) -> Option<OffsetQuery> {
    match timestamp {
        -1 => Some(OffsetQuery::Latest(isolation)),
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
    fn special_timestamps_exist_from_their_version_on() {
        let isolation = Isolation::Uncommitted;
        assert_eq!(query(-3, isolation, 6), None);
        assert_eq!(query(-3, isolation, 7), Some(OffsetQuery::MaxTimestamp));
        assert_eq!(query(-2, isolation, 1), Some(OffsetQuery::Earliest));
        assert_eq!(query(-7, isolation, 11), None);
        assert_eq!(query(0, isolation, 1), Some(OffsetQuery::Timestamp(0)));
    }
}
