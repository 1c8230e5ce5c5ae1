//! DescribeProducers (KIP-664): whose batches a partition remembers, asked of its leader.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse};

use super::{Call, CloseReason, Scene, Work};
use crate::log::producer::ActiveProducer;
use crate::partition::{Answer, Op, ReplyTo};
use crate::wire::api::ApiKey;
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard, response};

/// A DescribeProducers request between its start and its response.
#[derive(Debug)]
pub struct Producers {
    topics: Vec<TopicResponse>,
    /// Topic and partition position of each part, in request order.
    places: Vec<(usize, usize)>,
    outstanding: usize,
}

impl Producers {
    pub(super) fn start(
        header: &RequestHeader,
        body: &Bytes,
        to: ReplyTo,
        scene: &mut Scene,
    ) -> Result<Work, CloseReason> {
        let request: DescribeProducersRequest =
            guard::decode(body, header.version, guard::Limits::default())?;
        let mut producers = Self { topics: Vec::new(), places: Vec::new(), outstanding: 0 };
        for (topic_at, asked) in request.topics.into_iter().enumerate() {
            let topic = scene.view.image.topic(&asked.name).cloned();
            let mut partitions = Vec::with_capacity(asked.partition_indexes.len());
            for (partition_at, index) in asked.partition_indexes.into_iter().enumerate() {
                let mut answer = PartitionResponse::default().with_partition_index(index);
                let is_known = |count: usize| usize::try_from(index).is_ok_and(|index| index < count);
                match topic.as_ref().filter(|topic| is_known(topic.partitions.len())) {
                    None => answer.error_code = ErrorCode::UnknownTopicOrPartition.code(),
                    Some(topic) => {
                        let to = ReplyTo { part: producers.places.len() as u32, ..to };
                        let op = Op::Producers;
                        scene.desk.calls.push(Call { topic_id: topic.id, partition: index, to, op });
                        producers.places.push((topic_at, partition_at));
                        producers.outstanding += 1;
                    }
                }
                partitions.push(answer.with_error_message(None));
            }
            producers.topics.push(TopicResponse::default().with_name(asked.name).with_partitions(partitions));
        }
        Ok(Work::Producers(Box::new(producers)))
    }

    pub(super) fn answer(&mut self, part: u32, answer: Answer) {
        let Some((topic, partition)) = self.places.get(part as usize) else { return };
        let topic = self.topics.get_mut(*topic);
        let Some(place) = topic.and_then(|topic| topic.partitions.get_mut(*partition)) else { return };
        self.outstanding = self.outstanding.saturating_sub(1);
        match answer {
            Answer::Producers(active) => place.active_producers = active.iter().map(shown).collect(),
            Answer::Failed { error, .. } => place.error_code = error.code(),
            _ => place.error_code = ErrorCode::UnknownServerError.code(),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.outstanding == 0
    }

    pub(super) fn encode(self, header: &RequestHeader, buffer: &mut BytesMut) {
        let answer = DescribeProducersResponse::default().with_topics(self.topics);
        response::encode(buffer, ApiKey::DescribeProducers, header.version, header.correlation_id, &answer)
            .expect("there is one version");
    }
}

fn shown(producer: &ActiveProducer) -> ProducerState {
    ProducerState::default()
        .with_producer_id(producer.producer_id.into())
        .with_producer_epoch(i32::from(producer.producer_epoch))
        .with_last_sequence(producer.last_sequence)
        .with_last_timestamp(producer.last_timestamp_ms)
        .with_coordinator_epoch(producer.coordinator_epoch)
        .with_current_txn_start_offset(producer.txn_first_offset)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::describe_producers_request::TopicRequest;

    use super::super::Answered;
    use super::super::partition_state::topic_name;
    use super::super::stage::{Stage, TO};
    use super::*;

    #[test]
    fn the_leader_tells_who_produces() {
        let mut stage = Stage::new(&[]);
        stage.topic("t", 7, &[1]);
        let topic = TopicRequest::default().with_name(topic_name("t")).with_partition_indexes(vec![0, 1]);
        let request = DescribeProducersRequest::default().with_topics(vec![topic]);
        let (header, mut work) = stage.start(ApiKey::DescribeProducers, 0, &request);
        assert_eq!(stage.desk.calls.len(), 1, "partition 1 is not there");
        let producer = ActiveProducer {
            producer_id: 4_000,
            producer_epoch: 2,
            last_sequence: 9,
            last_timestamp_ms: 77,
            coordinator_epoch: -1,
            txn_first_offset: -1,
        };
        let answer = Answered::Partition(Answer::Producers(vec![producer]), None);
        work.answer(&header, TO, answer, &mut stage.scene());
        let response: DescribeProducersResponse = stage.finish(&header, work);
        let told = &response.topics[0].partitions;
        assert_eq!((told[0].error_code, told[1].error_code), (0, 3));
        assert_eq!(told[0].active_producers, [shown(&producer)]);
    }
}
