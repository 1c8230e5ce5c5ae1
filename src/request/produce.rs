//! Produce: the stateless check of each batch here, then one call per partition; the response
//! leaves when every partition has kept or broken its promise.
//!
//! Partitions are checked strictly in request order, and no later request of the connection starts before the
//! last check, so the order per connection and partition holds. A check that takes long goes on in later turns.

use bytes::Bytes;
use smallvec::SmallVec;
use uuid::Uuid;

use super::leader_hint::LeaderHints;
use super::{Call, CloseReason, Outbox, Scene};
use crate::log::check::{BatchRejection, BatchRules, Budget, Check};
use crate::partition::{Acks, Answer, Op, ReplyTo};
use crate::wire::header::RequestHeader;
use crate::wire::produce::{ProducePartition, ProduceRequest};
use crate::wire::produce_response::{ProducePartitionResponse, ProduceResponseWriter, RecordError};
use crate::wire::{CurrentLeader, ErrorCode, TopicRef};

/// A produce request between its start and its response.
#[derive(Debug)]
pub struct Produce {
    request: ProduceRequest,
    acks: Acks,
    deadline_ms: u64,
    /// One per partition that was checked, in request order.
    parts: SmallVec<[Part; 1]>,
    /// The check of the next partition, where it takes long.
    checking: Option<Box<Checking>>,
    outstanding: usize,
}

#[derive(Debug)]
struct Checking {
    topic_id: Uuid,
    check: Check,
}

#[derive(Debug)]
enum Part {
    Waiting,
    Appended { base_offset: i64, log_append_time_ms: i64, log_start_offset: i64 },
    Failed { error: ErrorCode, log_start_offset: i64 },
    Rejected(Box<BatchRejection>),
}

/// The first version whose answers tell where the leader is now.
const VERSION_HINTS: i16 = 10;

impl Part {
    fn wants_hint(&self) -> bool {
        matches!(self, Self::Failed { error: ErrorCode::NotLeaderOrFollower, .. })
    }

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
        let acks = if request.acks == -1 { Acks::All } else { Acks::Leader };
        let timeout_ms = u64::try_from(request.timeout_ms).unwrap_or(0);
        let deadline_ms = scene.now.mono_ms.saturating_add(timeout_ms);
        let mut produce =
            Self { request, acks, deadline_ms, parts: SmallVec::new(), checking: None, outstanding: 0 };
        produce.check_on(to, scene, &mut Budget::new(Budget::INLINE_NS));
        // What the calls need of the body they hold themselves; names are read again from it
        // when the response is encoded.
        Ok(produce)
    }

    /// Whether there are partitions to check.
    pub(super) fn is_checking(&self) -> bool {
        self.parts.len() < self.request.counts().partitions as usize
    }

    /// Drops what a check that takes long has reached: it will begin anew.
    pub(super) fn rewind(&mut self) {
        self.checking = None;
    }

    /// Checks partitions until all are checked or the budget is spent.
    pub(super) fn check_on(&mut self, to: ReplyTo, scene: &mut Scene, budget: &mut Budget) {
        let Self { request, parts, outstanding, checking, .. } = self;
        let (acks, deadline_ms) = (self.acks, self.deadline_ms);
        let refusal = refusal(request);
        let mut behind_us = parts.len();
        for topic in request.topics() {
            let partitions = topic.partitions.len();
            if behind_us >= partitions {
                behind_us -= partitions;
                continue;
            }
            for partition in topic.partitions.skip(std::mem::take(&mut behind_us)) {
                let index = partition.index;
                let begun = match (checking.take(), refusal) {
                    (Some(checking), _) => Ok(*checking),
                    (None, Some(error)) => Err(Part::failed(error)),
                    (None, None) if budget.is_spent() => return,
                    (None, None) => begin(topic.topic, partition, request.version(), scene),
                };
                let part = match begun {
                    Err(part) => part,
                    Ok(mut begun) => match begun.check.step(&mut scene.desk.codecs, budget) {
                        None => return *checking = Some(Box::new(begun)),
                        Some(Err(rejection)) => Part::Rejected(Box::new(rejection)),
                        Some(Ok(batch)) if batch.info.is_transactional() => {
                            Part::failed(ErrorCode::UnsupportedVersion)
                        }
                        Some(Ok(batch)) => {
                            let to = ReplyTo { part: parts.len() as u32, ..to };
                            let op = Op::Append { batch, acks, deadline_ms };
                            scene.desk.calls.push(Call {
                                topic_id: begun.topic_id,
                                partition: index,
                                to,
                                op,
                            });
                            *outstanding += 1;
                            Part::Waiting
                        }
                    },
                };
                parts.push(part);
            }
        }
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
        self.outstanding == 0 && !self.is_checking()
    }

    /// With acks=0 there is no response; an error then closes the connection, as the client has
    /// no other way to learn of it.
    pub(super) fn encode(
        self,
        header: &RequestHeader,
        outbox: &mut Outbox,
        scene: &Scene,
    ) -> Result<(), CloseReason> {
        if self.request.acks == 0 {
            let failed = |part: &Part| !matches!(part, Part::Appended { .. });
            return if self.parts.iter().any(failed) { Err(CloseReason::FailedWithoutAcks) } else { Ok(()) };
        }
        let topics_count = self.request.counts().topics;
        let (version, correlation_id) = (header.version, header.correlation_id);
        let mut writer = ProduceResponseWriter::new(outbox.buffer(), version, correlation_id, topics_count);
        let mut parts = self.parts.iter();
        let mut hints = LeaderHints::default();
        for topic in self.request.topics() {
            writer.topic(topic.topic, topic.partitions.len() as u32);
            for (partition, part) in topic.partitions.zip(&mut parts) {
                let current_leader = (part.wants_hint() && version >= VERSION_HINTS)
                    .then(|| hints.current_leader(scene, topic.topic, partition.index));
                write_part(&mut writer, partition.index, part, current_leader);
            }
        }
        writer.finish(0, &hints.endpoints(scene));
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

/// Begins the check of one partition's records by the rules of its topic.
fn begin(
    topic: TopicRef,
    partition: ProducePartition,
    version: i16,
    scene: &Scene,
) -> Result<Checking, Part> {
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
    let check = Check::new(records, &rules, scene.now.wall_ms);
    let check = check.map_err(|rejection| Part::Rejected(Box::new(rejection)))?;
    Ok(Checking { topic_id: topic.id, check })
}

fn write_part(
    writer: &mut ProduceResponseWriter,
    index: i32,
    part: &Part,
    current_leader: Option<CurrentLeader>,
) {
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
            let log_start_offset = *log_start_offset;
            writer.partition(&ProducePartitionResponse { log_start_offset, current_leader, ..refused });
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
