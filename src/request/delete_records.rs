//! DeleteRecords (KIP-107): moves the log start of partitions. Each is answered by its owner when the new
//! start is durable; -1 means everything below the high watermark.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

use super::partition_state::is_internal;
use super::{Call, CloseReason, Scene, Work};
use crate::partition::{Answer, Op, ReplyTo};
use crate::wire::api::ApiKey;
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard, response};

/// What a log start's way into the checkpoint may take at least: the client's timeout is for replicas.
const WAIT_MIN_MS: u64 = 1000;

/// A DeleteRecords request between its start and its response.
#[derive(Debug)]
pub struct DeleteRecords {
    topics: Vec<DeleteRecordsTopicResult>,
    /// Topic and partition position of each part, in request order.
    places: Vec<(usize, usize)>,
    outstanding: usize,
}

impl DeleteRecords {
    pub(super) fn start(
        header: &RequestHeader,
        body: &Bytes,
        to: ReplyTo,
        scene: &mut Scene,
    ) -> Result<Work, CloseReason> {
        let request: DeleteRecordsRequest = guard::decode(body, header.version, guard::Limits::default())?;
        let wait_ms = u64::try_from(request.timeout_ms).unwrap_or(0).max(WAIT_MIN_MS);
        let deadline_ms = scene.now.mono_ms.saturating_add(wait_ms);
        let mut deletion = Self { topics: Vec::new(), places: Vec::new(), outstanding: 0 };
        for (topic_at, asked) in request.topics.into_iter().enumerate() {
            let topic = scene.view.image.topic(&asked.name).cloned();
            let mut partitions = Vec::with_capacity(asked.partitions.len());
            for (partition_at, partition) in asked.partitions.into_iter().enumerate() {
                let index = partition.partition_index;
                let mut answer = DeleteRecordsPartitionResult::default()
                    .with_partition_index(index)
                    .with_low_watermark(-1);
                let is_known = |count: usize| usize::try_from(index).is_ok_and(|index| index < count);
                match topic.as_ref().filter(|topic| is_known(topic.partitions.len())) {
                    None => answer.error_code = ErrorCode::UnknownTopicOrPartition.code(),
                    Some(topic) if is_internal(&topic.name) => {
                        answer.error_code = ErrorCode::InvalidTopicException.code();
                    }
                    Some(topic) => {
                        let to = ReplyTo { part: deletion.places.len() as u32, ..to };
                        let op = Op::DeleteRecords { offset: partition.offset, deadline_ms };
                        scene.desk.calls.push(Call { topic_id: topic.id, partition: index, to, op });
                        deletion.places.push((topic_at, partition_at));
                        deletion.outstanding += 1;
                    }
                }
                partitions.push(answer);
            }
            let answer =
                DeleteRecordsTopicResult::default().with_name(asked.name).with_partitions(partitions);
            deletion.topics.push(answer);
        }
        Ok(Work::DeleteRecords(Box::new(deletion)))
    }

    pub(super) fn answer(&mut self, part: u32, answer: Answer) {
        let Some((topic, partition)) = self.places.get(part as usize) else { return };
        let topic = self.topics.get_mut(*topic);
        let Some(place) = topic.and_then(|topic| topic.partitions.get_mut(*partition)) else { return };
        self.outstanding = self.outstanding.saturating_sub(1);
        match answer {
            Answer::Deleted { log_start_offset } => place.low_watermark = log_start_offset,
            Answer::Failed { error, .. } => place.error_code = error.code(),
            _ => place.error_code = ErrorCode::UnknownServerError.code(),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.outstanding == 0
    }

    pub(super) fn encode(self, header: &RequestHeader, buffer: &mut BytesMut) {
        let answer = DeleteRecordsResponse::default().with_topics(self.topics);
        response::encode(buffer, ApiKey::DeleteRecords, header.version, header.correlation_id, &answer)
            .expect("every field set exists in every version served");
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};

    use super::super::Answered;
    use super::super::partition_state::topic_name;
    use super::super::stage::{Stage, TO};
    use super::*;

    #[test]
    fn each_partition_is_asked_and_answers_in_its_place() {
        for version in 0..=2 {
            let mut stage = Stage::new(&[]);
            stage.topic("t", 7, &[1, 1]);
            stage.topic("__consumer_offsets", 8, &[1]);
            let asked = |name: &str, partitions: &[(i32, i64)]| {
                let partitions = partitions.iter().map(|(index, offset)| {
                    DeleteRecordsPartition::default().with_partition_index(*index).with_offset(*offset)
                });
                DeleteRecordsTopic::default()
                    .with_name(topic_name(name))
                    .with_partitions(partitions.collect())
            };
            let topics = vec![
                asked("t", &[(1, 5), (2, 5), (0, -1)]),
                asked("u", &[(0, 1)]),
                asked("__consumer_offsets", &[(0, 1)]),
            ];
            let request = DeleteRecordsRequest::default().with_topics(topics).with_timeout_ms(30_000);
            let (header, mut work) = stage.start(ApiKey::DeleteRecords, version, &request);
            let calls: Vec<_> = stage.desk.calls.drain(..).map(|call| (call.partition, call.op)).collect();
            assert!(matches!(
                calls.as_slice(),
                [
                    (1, Op::DeleteRecords { offset: 5, deadline_ms: 31_000 }),
                    (0, Op::DeleteRecords { offset: -1, .. })
                ]
            ));
            let refused = Answer::Failed { error: ErrorCode::OffsetOutOfRange, log_start_offset: -1 };
            for (part, answer) in [(1, refused), (0, Answer::Deleted { log_start_offset: 5 })] {
                let to = ReplyTo { part, ..TO };
                work.answer(&header, to, Answered::Partition(answer, None), &mut stage.scene());
            }
            let response: DeleteRecordsResponse = stage.finish(&header, work);
            let told: Vec<_> = response.topics.iter().flat_map(|topic| &topic.partitions).collect();
            let told: Vec<_> =
                told.iter().map(|p| (p.partition_index, p.error_code, p.low_watermark)).collect();
            assert_eq!(told, [(1, 0, 5), (2, 3, -1), (0, 1, -1), (0, 3, -1), (0, 17, -1)]);
        }
    }
}
