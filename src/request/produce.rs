//! Produce: the stateless check of each batch here, then one call per partition; the response
//! leaves when every partition has kept or broken its promise.
//!
//! Partitions are checked strictly in request order, and no later request of the connection starts before the
//! last check, so the order per connection and partition holds. A check that takes long goes on in later turns.

use bytes::Bytes;
use smallvec::SmallVec;
use uuid::Uuid;

use super::leader_hint::LeaderHints;
use super::partition_state::is_internal;
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
    /// It may write to internal topics: Kafka knows its own tools by their client id.
    is_admin: bool,
    /// What its checks may cost, estimated, before they are out of proportion to what was sent.
    proportion_left_ns: i64,
}

/// What checking a byte that was sent costs at most, as long as it decompresses to what records usually do.
const PROPORTION_NS_PER_BYTE: i64 = 64;

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

/// The client id of Kafka's own tools.
const ADMIN_CLIENT: &str = "__admin_client";

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
        let proportion_left_ns = (body.len() as i64).saturating_mul(PROPORTION_NS_PER_BYTE);
        let request = ProduceRequest::parse(body, header.version)?;
        let acks = if request.acks == -1 { Acks::All } else { Acks::Leader };
        let timeout_ms = u64::try_from(request.timeout_ms).unwrap_or(0);
        let deadline_ms = scene.now.mono_ms.saturating_add(timeout_ms);
        let mut produce = Self {
            request,
            acks,
            deadline_ms,
            parts: SmallVec::new(),
            checking: None,
            outstanding: 0,
            is_admin: header.client_id.as_deref() == Some(ADMIN_CLIENT),
            proportion_left_ns,
        };
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

    /// Whether its checks have cost more than what was sent explains.
    pub(super) fn is_out_of_proportion(&self) -> bool {
        self.proportion_left_ns < 0
    }

    /// Checks partitions until all are checked or the budget is spent.
    pub(super) fn check_on(&mut self, to: ReplyTo, scene: &mut Scene, budget: &mut Budget) {
        let before_ns = budget.left_ns();
        self.check_parts(to, scene, budget);
        self.proportion_left_ns = self.proportion_left_ns.saturating_sub(before_ns - budget.left_ns());
    }

    fn check_parts(&mut self, to: ReplyTo, scene: &mut Scene, budget: &mut Budget) {
        let Self { request, parts, outstanding, checking, .. } = self;
        let (acks, deadline_ms) = (self.acks, self.deadline_ms);
        let refusal = refusal(request);
        let is_admin = self.is_admin;
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
                    (None, None) => begin(topic.topic, partition, request.version(), is_admin, scene),
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
            // Clients take this for success.
            Answer::Appended { base_offset: ..0, log_start_offset, .. } => {
                Part::Failed { error: ErrorCode::DuplicateSequenceNumber, log_start_offset }
            }
            Answer::Appended { base_offset, log_append_time_ms, log_start_offset } => {
                Part::Appended { base_offset, log_append_time_ms, log_start_offset }
            }
            Answer::Failed { error, log_start_offset } => Part::Failed { error, log_start_offset },
            _ => Part::failed(ErrorCode::UnknownServerError),
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
    is_admin: bool,
    scene: &Scene,
) -> Result<Checking, Part> {
    let image = &scene.view.image;
    let (topic, missing) = match topic {
        TopicRef::Name(name) => (image.topic(name), ErrorCode::UnknownTopicOrPartition),
        TopicRef::Id(id) => (image.topic_by_id(id), ErrorCode::UnknownTopicId),
    };
    let topic = topic.ok_or(Part::failed(missing))?;
    if is_internal(&topic.name) && !is_admin {
        return Err(Part::failed(ErrorCode::InvalidTopicException));
    }
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TopicName};
    use kafka_protocol::protocol::StrBytes;

    use super::super::stage::{Stage, TO};
    use super::super::{Answered, Work};
    use super::*;
    use crate::log::batch::{BatchBuilder, BatchInfo};
    use crate::log::codec::Codec;
    use crate::wire::api::ApiKey;

    const WALL_MS: i64 = 1_700_000_000_000;

    fn small(value: &[u8]) -> Bytes {
        BatchBuilder::new().record(WALL_MS, None, Some(value)).build()
    }

    fn large() -> Bytes {
        let mut builder = BatchBuilder::new().codec(Codec::Gzip);
        for n in 0..200_000_u32 {
            builder.push(WALL_MS, None, Some(&n.to_be_bytes()), &[]);
        }
        builder.build()
    }

    fn request(parts: &[(i32, &Bytes)]) -> ProduceRequest {
        let parts = parts.iter().map(|(index, records)| {
            PartitionProduceData::default().with_index(*index).with_records(Some((*records).clone()))
        });
        let topic = TopicProduceData::default()
            .with_name(TopicName(StrBytes::from_static_str("t")))
            .with_partition_data(parts.collect());
        ProduceRequest::default().with_acks(-1).with_timeout_ms(1000).with_topic_data(vec![topic])
    }

    fn appended(base_offset: i64) -> Answered {
        let answer = Answer::Appended { base_offset, log_append_time_ms: -1, log_start_offset: 0 };
        Answered::Partition(answer, None)
    }

    #[test]
    fn a_batch_that_takes_long_holds_back_what_is_behind_it() {
        let mut stage = Stage::new(&[]);
        stage.topic("t", 7, &[1, 1]);
        let request =
            request(&[(0, &small(b"first")), (1, &large()), (0, &small(b"last")), (1, &small(b"x"))]);
        let (header, mut work) = stage.start(ApiKey::Produce, 9, &request);
        assert_eq!(stage.desk.calls.len(), 1, "the first was called for at once");
        let mut slices = 0;
        while work.is_checking() {
            assert!(!work.is_done() && stage.desk.calls.len() == 1);
            if slices == 3 {
                work.rewind_check();
            }
            work.check_on(TO, &mut stage.scene(), &mut Budget::new(Budget::SLICE_NS));
            slices += 1;
        }
        assert!(slices > 5, "{slices} slices");
        let calls: Vec<_> = stage.desk.calls.drain(..).collect();
        let called: Vec<_> = calls.iter().map(|call| (call.partition, call.to.part)).collect();
        assert_eq!(called, [(0, 0), (1, 1), (0, 2), (1, 3)]);
        for call in calls {
            assert!(!work.is_done());
            let offset = i64::from(call.to.part);
            work.answer(&header, call.to, appended(offset), &mut stage.scene());
        }
        let response: ProduceResponse = stage.finish(&header, work);
        let parts = &response.responses[0].partition_responses;
        let answers: Vec<_> =
            parts.iter().map(|part| (part.index, part.error_code, part.base_offset)).collect();
        assert_eq!(answers, [(0, 0, 0), (1, 0, 1), (0, 0, 2), (1, 0, 3)]);
    }

    #[test]
    fn many_batches_of_one_request_are_checked_in_slices_too() {
        let mut stage = Stage::new(&[]);
        stage.topic("t", 7, &[1]);
        let mut builder = BatchBuilder::new().codec(Codec::Gzip);
        for _ in 0..1000 {
            builder.push(WALL_MS, None, Some(&[5; 40]), &[]);
        }
        let batch = builder.build();
        let request = request(&vec![(0, &batch); 100]);
        let (_, mut work) = stage.start(ApiKey::Produce, 9, &request);
        assert!(work.is_checking() && stage.desk.calls.len() < 10, "{}", stage.desk.calls.len());
        while work.is_checking() {
            work.check_on(TO, &mut stage.scene(), &mut Budget::new(1));
        }
        let parts: Vec<u32> = stage.desk.calls.iter().map(|call| call.to.part).collect();
        assert_eq!(parts, (0..100).collect::<Vec<u32>>());
    }

    #[test]
    fn a_partition_that_is_led_elsewhere_names_its_leader() {
        for version in [9, 10, 12] {
            let mut stage = Stage::new(&[]);
            stage.broker(2, None, false);
            let id = stage.topic("t", 7, &[2, 1]);
            let batch = small(b"v");
            let (header, mut work) =
                stage.start(ApiKey::Produce, version, &request(&[(0, &batch), (1, &batch)]));
            let error = Answer::Failed { error: ErrorCode::NotLeaderOrFollower, log_start_offset: -1 };
            work.answer(&header, TO, Answered::Partition(error, None), &mut stage.scene());
            work.answer(&header, ReplyTo { part: 1, ..TO }, appended(3), &mut stage.scene());
            assert_eq!(stage.desk.calls[0].topic_id, id);
            let response: ProduceResponse = stage.finish(&header, work);
            let [led_elsewhere, led_here] = &response.responses[0].partition_responses[..] else { panic!() };
            assert_eq!((led_elsewhere.error_code, led_here.error_code), (6, 0));
            let leader = &led_elsewhere.current_leader;
            let expected = if version >= 10 { (2, 5) } else { (-1, -1) };
            assert_eq!((leader.leader_id.0, leader.leader_epoch), expected, "v{version}");
            let nodes: Vec<i32> = response.node_endpoints.iter().map(|node| node.node_id.0).collect();
            assert_eq!(nodes, if version >= 10 { vec![2] } else { vec![] });
        }
    }

    #[test]
    fn a_batch_of_long_ago_is_told_as_a_duplicate() {
        let mut stage = Stage::new(&[]);
        stage.topic("t", 7, &[1]);
        let (header, mut work) = stage.start(ApiKey::Produce, 9, &request(&[(0, &small(b"v"))]));
        work.answer(&header, TO, appended(-1), &mut stage.scene());
        let response: ProduceResponse = stage.finish(&header, work);
        let part = &response.responses[0].partition_responses[0];
        assert_eq!((part.error_code, part.base_offset), (46, -1));
    }

    #[test]
    fn transactional_batches_and_unknown_acks_call_nobody() {
        let mut stage = Stage::new(&[]);
        stage.topic("t", 7, &[1]);
        let transactional = BatchBuilder::new().producer(1, 0, 0).transactional().record(WALL_MS, None, None);
        let batch = transactional.build();
        assert!(BatchInfo::parse(&batch).unwrap().is_transactional());
        let response: ProduceResponse = stage.ask(ApiKey::Produce, 9, &request(&[(0, &batch)]));
        assert_eq!(response.responses[0].partition_responses[0].error_code, 35);
        let response: ProduceResponse =
            stage.ask(ApiKey::Produce, 9, &request(&[(0, &small(b"v"))]).with_acks(2));
        assert_eq!(response.responses[0].partition_responses[0].error_code, 21);
        assert!(stage.desk.calls.is_empty());
        let (_, work) = stage.start(ApiKey::Produce, 9, &ProduceRequest::default().with_acks(-1));
        assert!(matches!(work, Work::Produce(_)) && work.is_done());
    }
}
