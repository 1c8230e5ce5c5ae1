//! OffsetForLeaderEpoch: where a leader epoch ended, asked of the leader of each partition (KIP-101,
//! KIP-320). Consumers and followers find out by it where their records and the leader's part.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use super::{Call, CloseReason, Scene, Work};
use crate::partition::{Answer, Op, ReplyTo};
use crate::wire::api::ApiKey;
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard, response};

/// An OffsetForLeaderEpoch request between its start and its response.
#[derive(Debug)]
pub struct Epochs {
    topics: Vec<OffsetForLeaderTopicResult>,
    /// Topic and partition position of each part, in request order.
    places: Vec<(usize, usize)>,
    outstanding: usize,
}

impl Epochs {
    pub(super) fn start(
        header: &RequestHeader,
        body: &Bytes,
        to: ReplyTo,
        scene: &mut Scene,
    ) -> Result<Work, CloseReason> {
        let request: OffsetForLeaderEpochRequest =
            guard::decode(body, header.version, guard::Limits::default())?;
        let mut epochs = Self { topics: Vec::new(), places: Vec::new(), outstanding: 0 };
        for (topic_at, asked) in request.topics.into_iter().enumerate() {
            let topic = scene.view.image.topic(&asked.topic).cloned();
            let mut partitions = Vec::with_capacity(asked.partitions.len());
            for (partition_at, partition) in asked.partitions.into_iter().enumerate() {
                let index = partition.partition;
                let mut answer =
                    EpochEndOffset::default().with_partition(index).with_leader_epoch(-1).with_end_offset(-1);
                let is_known = |count: usize| usize::try_from(index).is_ok_and(|index| index < count);
                match topic.as_ref().filter(|topic| is_known(topic.partitions.len())) {
                    None => answer.error_code = ErrorCode::UnknownTopicOrPartition.code(),
                    Some(topic) => {
                        let to = ReplyTo { part: epochs.places.len() as u32, ..to };
                        let op = Op::EpochEnd {
                            leader_epoch: partition.leader_epoch,
                            current_leader_epoch: partition.current_leader_epoch,
                        };
                        scene.desk.calls.push(Call { topic_id: topic.id, partition: index, to, op });
                        epochs.places.push((topic_at, partition_at));
                        epochs.outstanding += 1;
                    }
                }
                partitions.push(answer);
            }
            let answer =
                OffsetForLeaderTopicResult::default().with_topic(asked.topic).with_partitions(partitions);
            epochs.topics.push(answer);
        }
        Ok(Work::Epochs(Box::new(epochs)))
    }

    pub(super) fn answer(&mut self, part: u32, answer: Answer) {
        let Some((topic, partition)) = self.places.get(part as usize) else { return };
        let topic = self.topics.get_mut(*topic);
        let Some(place) = topic.and_then(|topic| topic.partitions.get_mut(*partition)) else { return };
        self.outstanding = self.outstanding.saturating_sub(1);
        match answer {
            Answer::EpochEnd { leader_epoch, end_offset } => {
                place.leader_epoch = leader_epoch;
                place.end_offset = end_offset;
            }
            Answer::Failed { error, .. } => place.error_code = error.code(),
            _ => place.error_code = ErrorCode::UnknownServerError.code(),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.outstanding == 0
    }

    pub(super) fn encode(self, header: &RequestHeader, buffer: &mut BytesMut) {
        let answer = OffsetForLeaderEpochResponse::default().with_topics(self.topics);
        let key = ApiKey::OffsetForLeaderEpoch;
        response::encode(buffer, key, header.version, header.correlation_id, &answer)
            .expect("every field set exists in every version served");
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::BrokerId;
    use kafka_protocol::messages::offset_for_leader_epoch_request::{
        OffsetForLeaderPartition, OffsetForLeaderTopic,
    };

    use super::super::Answered;
    use super::super::partition_state::topic_name;
    use super::super::stage::{Stage, TO};
    use super::*;

    #[test]
    fn each_partition_is_asked_and_answers_in_its_place() {
        for version in 2..=4 {
            let mut stage = Stage::new(&[]);
            stage.topic("t", 7, &[1, 1]);
            let partition = |index, epoch| {
                OffsetForLeaderPartition::default()
                    .with_partition(index)
                    .with_leader_epoch(epoch)
                    .with_current_leader_epoch(5)
            };
            let known = OffsetForLeaderTopic::default().with_topic(topic_name("t")).with_partitions(vec![
                partition(1, 3),
                partition(2, 3),
                partition(0, 4),
            ]);
            let unknown = known.clone().with_topic(topic_name("u")).with_partitions(vec![partition(0, 3)]);
            let mut request = OffsetForLeaderEpochRequest::default().with_topics(vec![known, unknown]);
            if version >= 3 {
                request.replica_id = BrokerId(-1);
            }
            let (header, mut work) = stage.start(ApiKey::OffsetForLeaderEpoch, version, &request);
            let asked: Vec<_> = stage.desk.calls.drain(..).map(|call| (call.partition, call.op)).collect();
            assert!(matches!(
                asked.as_slice(),
                [
                    (1, Op::EpochEnd { leader_epoch: 3, current_leader_epoch: 5 }),
                    (0, Op::EpochEnd { leader_epoch: 4, .. })
                ]
            ));
            let fenced = Answer::Failed { error: ErrorCode::FencedLeaderEpoch, log_start_offset: 0 };
            let found = Answer::EpochEnd { leader_epoch: 2, end_offset: 10 };
            for (part, answer) in [(1, fenced), (0, found)] {
                let to = ReplyTo { part, ..TO };
                work.answer(&header, to, Answered::Partition(answer, None), &mut stage.scene());
            }
            let response: OffsetForLeaderEpochResponse = stage.finish(&header, work);
            let told: Vec<_> = response.topics.iter().flat_map(|topic| &topic.partitions).collect();
            let told: Vec<_> =
                told.iter().map(|p| (p.partition, p.error_code, p.leader_epoch, p.end_offset)).collect();
            assert_eq!(told, [(1, 0, 2, 10), (2, 3, -1, -1), (0, 74, -1, -1), (0, 3, -1, -1)]);
        }
    }
}
