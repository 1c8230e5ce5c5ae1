//! Producers: idempotent ones retry until each batch is acknowledged, in order; the others send once.

use std::collections::VecDeque;

use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{InitProducerIdRequest, MetadataRequest, ProduceRequest};
use tidemill::log::codec::Codec;
use uuid::Uuid;

use crate::client::{Action, Client, Link, Response, Stage, metadata_request, topic_in, topic_name};
use crate::history::Kind;

const IN_FLIGHT_MAX: usize = 5;
const OUT_OF_ORDER: i16 = 45;
/// Errors after which a producer tries again: timeout, leader, topic, storage, ids, replicas.
const RETRIABLE: [i16; 7] = [3, 5, 6, 7, 19, 56, 100];

#[derive(Debug)]
struct Batch {
    number: u64,
    /// How many batches the partition got before it.
    ordinal: usize,
    ids: Vec<u64>,
    bytes: Bytes,
    made_us: u64,
    topic_id: Uuid,
    in_flight: bool,
}

/// A partition that it sends to.
#[derive(Debug)]
struct Target {
    topic: usize,
    partition: i32,
    topic_id: Option<Uuid>,
    sequence: i32,
    /// Batches made for it.
    made: usize,
    queue: VecDeque<Batch>,
}

#[derive(Debug)]
enum Ask {
    Metadata,
    ProducerId,
    Produce(Vec<(usize, u64)>),
}

/// What a producer has to do.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Records that it sends.
    pub records: u64,
    /// One in so many chances makes a batch.
    pub pace: u8,
    /// A batch that is older is not sent again: its producer may be forgotten.
    pub give_up_us: u64,
}

/// One producer.
#[derive(Debug)]
pub struct Producer {
    kind: Kind,
    number: usize,
    link: Link<Ask>,
    targets: Vec<Target>,
    version: i16,
    producer_id: Option<i64>,
    metadata_due: bool,
    batches: u64,
    records_left: u64,
    not_before_us: u64,
    codec: Codec,
    /// One in so many chances makes a batch.
    pace: u8,
    give_up_us: u64,
    /// The broker does not lead what it was sent: another one does.
    elsewhere: bool,
}

impl Producer {
    /// A producer of so many records for these partitions (topic, partition).
    pub fn new(kind: Kind, targets: Vec<(usize, i32)>, work: Work, stage: &mut Stage) -> Self {
        let number = stage.history.add_producer();
        let target = |(topic, partition)| Target {
            topic,
            partition,
            topic_id: None,
            sequence: 0,
            made: 0,
            queue: VecDeque::new(),
        };
        let codecs = [Codec::None, Codec::Lz4, Codec::Gzip, Codec::Snappy, Codec::Zstd];
        let churns = targets.iter().any(|(topic, _)| stage.names[*topic].starts_with("churn"));
        // By name, what was meant for one topic reaches the next one of that name, and again with a retry.
        let by_id = churns && kind == Kind::Idempotent;
        let version = if by_id || stage.random.bool() { 13 } else { stage.random.i16(3..=12) };
        Self {
            kind,
            number,
            link: Link::new(format!("producer {number} ({kind:?})")),
            targets: targets.into_iter().map(target).collect(),
            version,
            producer_id: None,
            metadata_due: true,
            batches: 0,
            records_left: work.records,
            not_before_us: 0,
            // Zstandard came with version 7.
            codec: *stage.random.choice(if version < 7 { &codecs[..3] } else { &codecs }).expect("some"),
            pace: work.pace,
            give_up_us: work.give_up_us,
            elsewhere: false,
        }
    }

    fn is_idempotent(&self) -> bool {
        self.kind == Kind::Idempotent
    }

    fn step(&mut self, stage: &mut Stage) {
        if !self.link.is_up(stage) || self.link.waiting().any(|ask| !matches!(ask, Ask::Produce(_))) {
            return;
        }
        if stage.now_us < self.not_before_us {
            return;
        }
        if self.metadata_due {
            let names: Vec<String> = self.targets.iter().map(|t| stage.names[t.topic].clone()).collect();
            return self.link.send(&metadata_request(&names, 12), 12, Some(Ask::Metadata), stage);
        }
        if self.is_idempotent() && self.producer_id.is_none() {
            let request = InitProducerIdRequest::default().with_transactional_id(None);
            let request = request.with_producer_id((-1).into()).with_producer_epoch(-1);
            return self.link.send(&request, 4, Some(Ask::ProducerId), stage);
        }
        if self.is_idempotent() && self.is_too_late(stage.now_us) {
            return self.start_over(stage);
        }
        while self.link.in_flight() < IN_FLIGHT_MAX && self.send_some(stage) {}
    }

    /// A batch is to be sent again that is too old for it.
    fn is_too_late(&self, now_us: u64) -> bool {
        let mut waiting = self.targets.iter().flat_map(|target| &target.queue);
        waiting.any(|batch| !batch.in_flight && batch.made_us.saturating_add(self.give_up_us) < now_us)
    }

    /// Sends one request with a batch for each of some targets; false if there is nothing to send.
    fn send_some(&mut self, stage: &mut Stage) -> bool {
        let mut chosen = Vec::new();
        for at in 0..self.targets.len() {
            if self.targets[at].topic_id.is_none() {
                continue;
            }
            if self.next_to_send(at).is_none() && self.records_left > 0 && stage.random.u8(0..self.pace) == 0
            {
                self.make_batch(at, stage);
            }
            if let Some(position) = self.next_to_send(at) {
                chosen.push((at, position));
            }
        }
        if chosen.is_empty() {
            return false;
        }
        let acks = match self.kind {
            Kind::Idempotent => -1,
            Kind::LeaderAcks => 1,
            Kind::NoAcks => 0,
        };
        let mut request = ProduceRequest::default().with_acks(acks).with_timeout_ms(8_000);
        let mut numbers = Vec::new();
        for (at, position) in chosen {
            let target = &mut self.targets[at];
            let batch = &mut target.queue[position];
            batch.in_flight = true;
            numbers.push((at, batch.number));
            let data = PartitionProduceData::default()
                .with_index(target.partition)
                .with_records(Some(batch.bytes.clone()));
            let topic = TopicProduceData::default().with_partition_data(vec![data]);
            request.topic_data.push(if self.version >= 13 {
                topic.with_topic_id(batch.topic_id)
            } else {
                topic.with_name(topic_name(&stage.names[target.topic]))
            });
        }
        if self.kind == Kind::NoAcks {
            for target in &mut self.targets {
                target.queue.clear();
            }
            self.link.send(&request, self.version, None, stage);
        } else {
            self.link.send(&request, self.version, Some(Ask::Produce(numbers)), stage);
        }
        true
    }

    /// The batch of a target that may be sent now: the first that is not in flight, if none behind it is. A broker
    /// remembers five batches of a producer: what may have to be sent again must stay among them, also where batches
    /// behind it are acknowledged before it.
    fn next_to_send(&self, at: usize) -> Option<usize> {
        let queue = &self.targets[at].queue;
        let first = queue.iter().position(|batch| !batch.in_flight)?;
        let (oldest, next) = (queue.front()?, queue.get(first)?);
        let open = next.ordinal - oldest.ordinal < IN_FLIGHT_MAX
            && queue.iter().skip(first).all(|batch| !batch.in_flight);
        open.then_some(first)
    }

    fn make_batch(&mut self, at: usize, stage: &mut Stage) {
        let target = &mut self.targets[at];
        let Some(topic_id) = target.topic_id else { return };
        let count = stage.random.u64(1..=5).min(self.records_left);
        self.records_left -= count;
        let ids: Vec<u64> = (0..count)
            .map(|_| {
                let timestamp_ms = stage.wall_ms - stage.random.i64(0..50);
                stage.history.new_record(self.number, target.topic, target.partition, timestamp_ms)
            })
            .collect();
        let (stream, sequence) = match self.producer_id {
            Some(id) => (id as u64, Some((id, 0, target.sequence))),
            None => (self.link.number, None),
        };
        let bytes = stage.history.batch(&ids, stream, self.codec, sequence);
        target.sequence += count as i32;
        self.batches += 1;
        let number = self.batches;
        let ordinal = target.made;
        target.made += 1;
        target.queue.push_back(Batch {
            number,
            ordinal,
            ids,
            bytes,
            topic_id,
            in_flight: false,
            made_us: stage.now_us,
        });
    }

    fn answered(&mut self, response: Response<Ask>, stage: &mut Stage) {
        match &response.ask {
            Ask::Metadata => {
                let metadata = response.decode::<MetadataRequest>();
                for target in &mut self.targets {
                    // Only to partitions that are there: a batch behind one that was sent away as unknown would
                    // be taken for its producer's first.
                    let found = topic_in(&metadata, &stage.names[target.topic])
                        .filter(|(_, partitions)| (target.partition as usize) < *partitions)
                        .map(|(id, _)| id);
                    if target.topic_id != found {
                        // Another topic of that name, or none: what was meant for the old one is given up.
                        target.topic_id = found;
                        target.queue.clear();
                    }
                }
                let missing = |target: &Target| target.topic_id.is_none();
                self.metadata_due = self.targets.iter().all(missing);
                if self.metadata_due {
                    self.not_before_us = stage.now_us + 100_000;
                }
            }
            Ask::ProducerId => {
                let answer = response.decode::<InitProducerIdRequest>();
                match answer.error_code {
                    0 => self.producer_id = Some(answer.producer_id.0),
                    code => assert!(RETRIABLE.contains(&code) || code == 15, "InitProducerId: error {code}"),
                }
            }
            Ask::Produce(numbers) => {
                let answer = response.decode::<ProduceRequest>();
                let parts: Vec<_> = answer
                    .responses
                    .iter()
                    .flat_map(|topic| &topic.partition_responses)
                    .map(|part| (part.index, part.error_code, part.base_offset))
                    .collect();
                assert_eq!(parts.len(), numbers.len(), "a produce response answers every partition");
                for ((at, number), (index, error, base_offset)) in numbers.iter().zip(parts) {
                    assert_eq!(
                        self.targets[*at].partition, index,
                        "partitions are answered in request order"
                    );
                    self.settle(*at, *number, error, base_offset, stage);
                }
            }
        }
    }

    fn settle(&mut self, at: usize, number: u64, error: i16, base_offset: i64, stage: &mut Stage) {
        let idempotent = self.is_idempotent();
        let target = &mut self.targets[at];
        let Some(position) = target.queue.iter().position(|batch| batch.number == number) else { return };
        match error {
            0 => {
                let batch = target.queue.remove(position).expect("found");
                // What only its leader has goes with the leader.
                if !idempotent && stage.brokers > 1 {
                    return;
                }
                // By name, a topic created again meanwhile may have taken it.
                if self.version >= 13 || !stage.names[target.topic].starts_with("churn") {
                    stage.history.acked(&batch.ids, batch.topic_id, target.partition, base_offset);
                }
            }
            OUT_OF_ORDER if idempotent && position > 0 => target.queue[position].in_flight = false,
            OUT_OF_ORDER | 59 | 46 if idempotent => {
                assert!(
                    stage.power_was_cut && !stage.flushed[target.topic],
                    "sequence error {error} for batch {number} of producer {}, whose predecessors are acknowledged",
                    self.number
                );
                self.start_over(stage);
            }
            error => {
                assert!(RETRIABLE.contains(&error), "produce: error {error} to {}", self.number);
                if idempotent {
                    target.queue[position].in_flight = false;
                } else {
                    target.queue.remove(position);
                }
                self.not_before_us = stage.now_us + stage.random.u64(1_000..100_000);
                self.metadata_due |= matches!(error, 3 | 5 | 6 | 100);
                self.elsewhere |= stage.leads_elsewhere(error);
            }
        }
    }

    /// Its state on the broker is not what it thinks: a new id, and nothing old is sent again.
    fn start_over(&mut self, stage: &mut Stage) {
        self.producer_id = None;
        for target in &mut self.targets {
            target.queue.clear();
            target.sequence = 0;
        }
        drop(self.link.close(stage));
    }

    fn disconnected(&mut self) {
        for target in &mut self.targets {
            if self.kind == Kind::Idempotent {
                target.queue.iter_mut().for_each(|batch| batch.in_flight = false);
            } else {
                target.queue.clear();
            }
        }
    }
}

impl Client for Producer {
    fn opened(&mut self, stage: &mut Stage) {
        self.link.opened();
        self.metadata_due = true;
        self.step(stage);
    }

    fn received(&mut self, bytes: Bytes, stage: &mut Stage) {
        for response in self.link.received(&bytes) {
            self.answered(response, stage);
        }
        if std::mem::take(&mut self.elsewhere) {
            drop(self.link.close(stage));
            self.disconnected();
        }
        self.step(stage);
    }

    fn closed(&mut self, stage: &mut Stage) {
        drop(self.link.closed(stage));
        self.disconnected();
    }

    fn wake(&mut self, stage: &mut Stage) {
        if stage.calm && self.targets.iter().all(|target| target.queue.is_empty()) {
            self.records_left = 0;
        }
        self.metadata_due |= stage.random.u8(0..20) == 0;
        self.step(stage);
        stage.actions.push(Action::WakeAt(stage.now_us + stage.random.u64(1_000..60_000)));
    }

    fn is_done(&self) -> bool {
        let idle = self.targets.iter().all(|target| target.queue.is_empty());
        idle && (self.records_left == 0 || self.targets.iter().all(|target| target.topic_id.is_none()))
    }

    fn state(&self) -> String {
        format!("{self:?}")
    }
}
