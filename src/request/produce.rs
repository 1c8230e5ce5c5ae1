//! Produce: the stateless check of each batch here, then one call per partition; the response
//! leaves when every partition has kept or broken its promise.

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Call, CloseReason, Outbox, Scene};
use crate::log::check::{self, BatchRejection, BatchRules};
use crate::partition::{Acks, Answer, Op, ReplyTo};
use crate::wire::header::RequestHeader;
use crate::wire::produce::{ProducePartition, ProduceRequest};
use crate::wire::produce_response::{ProducePartitionResponse, ProduceResponseWriter, RecordError};
use crate::wire::{ErrorCode, TopicRef};

/// A produce request between its start and its response.
#[derive(Debug)]
pub struct Produce {
    request: ProduceRequest,
    /// One per partition, in request order.
    parts: SmallVec<[Part; 1]>,
    outstanding: usize,
}

#[derive(Debug)]
enum Part {
    Waiting,
    Appended { base_offset: i64, log_append_time_ms: i64, log_start_offset: i64 },
    Failed { error: ErrorCode, log_start_offset: i64 },
    Rejected(Box<BatchRejection>),
}

impl Part {
    fn failed(error: ErrorCode) -> Self {
        Self::Failed { error, log_start_offset: -1 }
    }
}

impl Produce {
    pub(super) fn start(
        header: &RequestHeader,
        body: Bytes,
        to: ReplyTo,
        scene: &mut Scene,
    ) -> Result<Self, CloseReason> {
        let request = ProduceRequest::parse(body, header.version)?;
        let mut produce = Self { parts: SmallVec::new(), outstanding: 0, request };
        let refusal = refusal(&produce.request);
        let acks = if produce.request.acks == -1 { Acks::All } else { Acks::Leader };
        let timeout_ms = u64::try_from(produce.request.timeout_ms).unwrap_or(0);
        let deadline_ms = scene.now.mono_ms.saturating_add(timeout_ms);
        let Self { request, parts, outstanding } = &mut produce;
        for topic in request.topics() {
            for partition in topic.partitions {
                let to = ReplyTo { part: parts.len() as u32, ..to };
                let part = match refusal {
                    Some(error) => Part::failed(error),
                    None => {
                        let index = partition.index;
                        match check(topic.topic, partition, header.version, scene) {
                            Ok((topic_id, batch)) => {
                                let op = Op::Append { batch, acks, deadline_ms };
                                scene.desk.calls.push(Call { topic_id, partition: index, to, op });
                                *outstanding += 1;
                                Part::Waiting
                            }
                            Err(part) => part,
                        }
                    }
                };
                parts.push(part);
            }
        }
        // What the calls need of the body they hold themselves; names are read again from it
        // when the response is encoded.
        Ok(produce)
    }

    pub(super) fn answer(&mut self, part: u32, answer: Answer) {
        let Some(waiting) = self.parts.get_mut(part as usize) else { return };
        if !matches!(waiting, Part::Waiting) {
            return;
        }
        self.outstanding -= 1;
        *waiting = match answer {
            Answer::Appended { base_offset, log_append_time_ms, log_start_offset } => {
                Part::Appended { base_offset, log_append_time_ms, log_start_offset }
            }
            Answer::Failed { error, log_start_offset } => Part::Failed { error, log_start_offset },
            Answer::Read(_) | Answer::Offset { .. } | Answer::EpochEnd { .. } | Answer::Fired => {
                Part::failed(ErrorCode::UnknownServerError)
            }
        };
    }

    pub(super) fn is_done(&self) -> bool {
        self.outstanding == 0
    }

    /// With acks=0 there is no response; an error then closes the connection, as the client has
    /// no other way to learn of it.
    pub(super) fn encode(self, header: &RequestHeader, outbox: &mut Outbox) -> Result<(), CloseReason> {
        if self.request.acks == 0 {
            let failed = |part: &Part| !matches!(part, Part::Appended { .. });
            return if self.parts.iter().any(failed) { Err(CloseReason::FailedWithoutAcks) } else { Ok(()) };
        }
        let topics_count = self.request.counts().topics;
        let (version, correlation_id) = (header.version, header.correlation_id);
        let mut writer = ProduceResponseWriter::new(outbox.buffer(), version, correlation_id, topics_count);
        let mut parts = self.parts.iter();
        for topic in self.request.topics() {
            writer.topic(topic.topic, topic.partitions.len() as u32);
            for (partition, part) in topic.partitions.zip(&mut parts) {
                write_part(&mut writer, partition.index, part);
            }
        }
        writer.finish(0, &[]);
        Ok(())
    }
}

/// What is wrong with the request as a whole. Transactions do not exist yet: the error is one
/// that clients treat as fatal, so that none of them believes in a transaction.
fn refusal(request: &ProduceRequest) -> Option<ErrorCode> {
    if request.transactional_id().is_some() {
        return Some(ErrorCode::UnsupportedVersion);
    }
    (!(-1..=1).contains(&request.acks)).then_some(ErrorCode::InvalidRequiredAcks)
}

fn check(
    topic: TopicRef,
    partition: ProducePartition,
    version: i16,
    scene: &Scene,
) -> Result<(uuid::Uuid, check::CheckedBatch), Part> {
    let image = &scene.view.image;
    let (topic, missing) = match topic {
        TopicRef::Name(name) => (image.topic(name), ErrorCode::UnknownTopicOrPartition),
        TopicRef::Id(id) => (image.topic_by_id(id), ErrorCode::UnknownTopicId),
    };
    let topic = topic.ok_or(Part::failed(missing))?;
    let known = usize::try_from(partition.index).is_ok_and(|index| index < topic.partitions.len());
    let config = scene.view.topic_configs.get(&topic.id).filter(|_| known);
    let config = config.ok_or(Part::failed(ErrorCode::UnknownTopicOrPartition))?;
    let rules = BatchRules::of(config, version);
    let records = partition.records.unwrap_or_default();
    let batch = check::check(records, &rules, scene.now.wall_ms).map_err(|r| Part::Rejected(Box::new(r)))?;
    if batch.info.is_transactional() {
        return Err(Part::failed(ErrorCode::UnsupportedVersion));
    }
    Ok((topic.id, batch))
}

fn write_part(writer: &mut ProduceResponseWriter, index: i32, part: &Part) {
    match part {
        Part::Appended { base_offset, log_append_time_ms, log_start_offset } => {
            writer.partition(&ProducePartitionResponse {
                index,
                error: None,
                base_offset: *base_offset,
                log_append_time_ms: *log_append_time_ms,
                log_start_offset: *log_start_offset,
                record_errors: &[],
                error_message: None,
                current_leader: None,
            });
        }
        Part::Failed { error, log_start_offset } => {
            let refused = ProducePartitionResponse::error(index, *error);
            writer.partition(&ProducePartitionResponse { log_start_offset: *log_start_offset, ..refused });
        }
        Part::Rejected(rejection) => {
            let errors = rejection.record_errors.iter().map(|(batch_index, message)| RecordError {
                batch_index: *batch_index,
                message: message.as_deref(),
            });
            let record_errors: Vec<RecordError> = errors.collect();
            writer.partition(&ProducePartitionResponse {
                record_errors: &record_errors,
                error_message: rejection.message.as_deref(),
                ..ProducePartitionResponse::error(index, rejection.error)
            });
        }
        Part::Waiting => {
            writer.partition(&ProducePartitionResponse::error(index, ErrorCode::UnknownServerError))
        }
    }
}
