//! A producer of one partition. An idempotent one with acks=all sends again until each batch is acknowledged, in
//! order and wherever the leader is; the others send once, and what they are told counts for nothing when the
//! leader changes.
//!
//! As the Java client does, an idempotent one may wait for the answers of a leader that it has lost while it sends what
//! follows to the next one; then it sends the old batches again, however many have been taken behind them.

use std::collections::VecDeque;

use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{InitProducerIdRequest, ProduceRequest};
use tidemill::log::codec::Codec;

use super::PASSING;
use super::pilot::Pilot;
use crate::client::{Action, Client, Response, Stage, topic_name};
use crate::history::Kind;

const IN_FLIGHT_MAX: usize = 5;
/// The first version in which topics are named by their ids.
const NAMES_IDS: i16 = 13;
const OUT_OF_ORDER: i16 = 45;
const DUPLICATE_SEQUENCE: i16 = 46;
/// Records that are sent when nothing fails any more, at most.
const RECORDS_IN_CALM: u64 = 20;

#[derive(Debug)]
struct Batch {
    /// How many batches were made before it.
    ordinal: usize,
    ids: Vec<u64>,
    bytes: Bytes,
    in_flight: bool,
    /// In flight to a leader that was lost; given up then.
    lost_until_us: Option<u64>,
}

#[derive(Debug)]
enum Ask {
    ProducerId,
    /// A batch, by its ordinal.
    Produce(usize),
}

/// One producer.
#[derive(Debug)]
pub struct LinkedProducer {
    kind: Kind,
    number: usize,
    pilot: Pilot<Ask>,
    version: i16,
    producer_id: Option<i64>,
    sequence: i32,
    made: usize,
    queue: VecDeque<Batch>,
    records_left: u64,
    /// Something was acknowledged: leaders know the producer.
    is_known: bool,
    /// One in so many chances makes a batch.
    pace: u8,
    codec: Codec,
    calm: bool,
}

impl LinkedProducer {
    /// A producer of so many records for a partition.
    pub fn new(kind: Kind, place: (usize, i32), (records, pace): (u64, u8), stage: &mut Stage) -> Self {
        let number = stage.history.add_producer();
        let is_one = kind == Kind::Idempotent;
        let codecs = [Codec::None, Codec::Lz4, Codec::Gzip, Codec::Snappy, Codec::Zstd];
        Self {
            kind,
            number,
            pilot: Pilot::new(format!("producer {number} ({kind:?})"), place),
            // By its name, what is sent again might reach the topic that is made next.
            version: if is_one && stage.is_made_again(place.0) {
                NAMES_IDS
            } else {
                stage.random.i16(7..=NAMES_IDS)
            },
            producer_id: None,
            sequence: 0,
            made: 0,
            queue: VecDeque::new(),
            records_left: records,
            is_known: false,
            pace,
            codec: *stage.random.choice(&codecs).expect("some"),
            calm: false,
        }
    }

    fn is_idempotent(&self) -> bool {
        self.kind == Kind::Idempotent
    }

    fn step(&mut self, stage: &mut Stage) {
        if self.is_idempotent() && self.producer_id.is_none() {
            if self.pilot.is_anywhere(stage) && self.pilot.in_flight() == 0 {
                let request = InitProducerIdRequest::default().with_transactional_id(None);
                let request = request.with_producer_id((-1).into()).with_producer_epoch(-1);
                self.pilot.send(&request, 4, Some(Ask::ProducerId), stage);
            }
            return;
        }
        while self.pilot.is_there(stage) && self.pilot.in_flight() < IN_FLIGHT_MAX {
            let makes = self.records_left > 0 && stage.random.u8(0..self.pace) == 0;
            if self.next_to_send().is_none() && makes {
                self.make_batch(stage);
            }
            let Some(at) = self.next_to_send() else { return };
            self.send(at, stage);
        }
    }

    /// The batch that may be sent now: the first that is not in flight, if none behind it is.
    fn next_to_send(&self) -> Option<usize> {
        let first = self.queue.iter().position(|batch| !batch.in_flight)?;
        self.queue.iter().skip(first).all(|batch| !batch.in_flight).then_some(first)
    }

    /// Answers of a lost leader are given up.
    fn give_up_lost(&mut self, now_us: u64) {
        for batch in
            self.queue.iter_mut().filter(|batch| batch.lost_until_us.is_some_and(|at_us| at_us <= now_us))
        {
            (batch.in_flight, batch.lost_until_us) = (false, None);
        }
    }

    fn send(&mut self, at: usize, stage: &mut Stage) {
        let Some((topic_id, index)) = self.pilot.place() else { return };
        let acks = match self.kind {
            Kind::Idempotent => -1,
            Kind::LeaderAcks => 1,
            Kind::NoAcks => 0,
        };
        let batch = &mut self.queue[at];
        batch.in_flight = true;
        let ordinal = batch.ordinal;
        let data = PartitionProduceData::default().with_index(index).with_records(Some(batch.bytes.clone()));
        let topic = TopicProduceData::default().with_partition_data(vec![data]);
        let name = topic_name(&stage.names[self.pilot.topic()]);
        let topic =
            if self.version >= NAMES_IDS { topic.with_topic_id(topic_id) } else { topic.with_name(name) };
        let timeout_ms = stage.random.i32(500..8_000);
        let request = ProduceRequest::default().with_acks(acks).with_timeout_ms(timeout_ms);
        let request = request.with_topic_data(vec![topic]);
        if self.kind == Kind::NoAcks {
            self.queue.clear();
            self.pilot.send(&request, self.version, None, stage);
        } else {
            self.pilot.send(&request, self.version, Some(Ask::Produce(ordinal)), stage);
        }
    }

    fn make_batch(&mut self, stage: &mut Stage) {
        let Some((_, partition)) = self.pilot.place() else { return };
        let topic = self.pilot.topic();
        let count = stage.random.u64(1..=5).min(self.records_left);
        self.records_left -= count;
        let ids: Vec<u64> = (0..count)
            .map(|_| {
                let timestamp_ms = stage.wall_ms - stage.random.i64(0..50);
                stage.history.new_record(self.number, topic, partition, timestamp_ms)
            })
            .collect();
        let (stream, sequence) = match self.producer_id {
            Some(id) => (id as u64, Some((id, 0, self.sequence))),
            None => (self.pilot.number(), None),
        };
        let bytes = stage.history.batch(&ids, stream, self.codec, sequence);
        self.sequence += count as i32;
        let ordinal = self.made;
        self.made += 1;
        self.queue.push_back(Batch { ordinal, ids, bytes, in_flight: false, lost_until_us: None });
    }

    fn answered(&mut self, response: Response<Option<Ask>>, stage: &mut Stage) {
        match &response.ask {
            None => {}
            Some(Ask::ProducerId) => {
                let answer = response.decode::<InitProducerIdRequest>();
                match answer.error_code {
                    0 => {
                        stage.history.given_producer_id(answer.producer_id.0);
                        self.producer_id = Some(answer.producer_id.0);
                    }
                    error => {
                        assert!(PASSING.contains(&error), "InitProducerId: error {error}");
                        self.pilot.rest(stage);
                    }
                }
            }
            Some(Ask::Produce(ordinal)) => {
                let answer = response.decode::<ProduceRequest>();
                let mut parts = answer.responses.iter().flat_map(|topic| &topic.partition_responses);
                let part = parts.next().expect("the partition that was sent to");
                self.settle(*ordinal, part.error_code, part.base_offset, stage);
            }
        }
    }

    fn settle(&mut self, ordinal: usize, error: i16, base_offset: i64, stage: &mut Stage) {
        let Some(at) = self.queue.iter().position(|batch| batch.ordinal == ordinal) else { return };
        match error {
            DUPLICATE_SEQUENCE if self.is_idempotent() => {
                let batch = self.queue.remove(at).expect("found");
                let place = self.pilot.place().expect("it was sent there");
                stage.history.appended_long_ago(&batch.ids, place);
            }
            0 => {
                self.is_known = true;
                let batch = self.queue.remove(at).expect("found");
                // What only its leader has goes with the leader.
                if self.is_idempotent()
                    && let Some((topic_id, partition)) = self.pilot.place()
                {
                    stage.history.acked(&batch.ids, topic_id, partition, base_offset);
                }
            }
            OUT_OF_ORDER if self.is_idempotent() && at > 0 => self.queue[at].in_flight = false,
            OUT_OF_ORDER if self.is_idempotent() && stage.history.takes_away() => {
                // Its first batches are deleted, and the leader has only those behind them: nobody can say any more
                // what became of them. As Kafka's producer it goes on as another one (KIP-360).
                self.queue.clear();
                self.begin_anew();
            }
            error => {
                assert!(
                    PASSING.contains(&error),
                    "produce: error {error} for batch {ordinal} of producer {}, {at} before it",
                    self.number
                );
                if self.is_idempotent() {
                    self.queue[at].in_flight = false;
                } else {
                    self.queue.remove(at);
                }
                self.pilot.denied(stage);
            }
        }
    }

    /// As another producer.
    fn begin_anew(&mut self) {
        (self.producer_id, self.sequence, self.is_known) = (None, 0, false);
    }

    fn disconnected(&mut self, stage: &mut Stage) {
        if !self.is_idempotent() {
            return self.queue.clear();
        }
        // A leader to which the producer is unknown would take what follows for its beginning.
        let waits = self.is_known && stage.random.u8(0..3) == 0 && !stage.history.takes_away();
        let lost_until_us = waits.then(|| stage.now_us + stage.random.u64(100_000..4_000_000));
        for batch in self.queue.iter_mut().filter(|batch| batch.in_flight && batch.lost_until_us.is_none()) {
            (batch.in_flight, batch.lost_until_us) = (waits, lost_until_us);
        }
    }
}

impl Client for LinkedProducer {
    fn opened(&mut self, stage: &mut Stage) {
        self.pilot.opened();
        self.step(stage);
    }

    fn received(&mut self, bytes: Bytes, stage: &mut Stage) {
        for response in self.pilot.received(&bytes, stage) {
            self.answered(response, stage);
        }
        if self.pilot.is_anew() {
            self.queue.clear();
            self.begin_anew();
        }
        self.step(stage);
    }

    fn closed(&mut self, stage: &mut Stage) {
        drop(self.pilot.closed(stage));
        self.disconnected(stage);
    }

    fn wake(&mut self, stage: &mut Stage) {
        if stage.calm && !self.calm {
            // Some go when nothing fails any more, so that a cluster that was never well has something to show too.
            self.calm = true;
            self.pace = 1;
            self.records_left = self.records_left.min(RECORDS_IN_CALM);
        }
        self.pilot.look_sometimes(stage);
        self.give_up_lost(stage.now_us);
        if self.queue.is_empty() && self.is_idempotent() && stage.random.u8(0..100) == 0 && !stage.calm {
            self.begin_anew();
        }
        self.step(stage);
        stage.actions.push(Action::WakeAt(stage.now_us + stage.random.u64(1_000..60_000)));
    }

    fn is_done(&self) -> bool {
        self.queue.is_empty() && self.records_left == 0
    }

    fn state(&self) -> String {
        format!("{self:?}")
    }
}
