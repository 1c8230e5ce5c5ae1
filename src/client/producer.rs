//! Writes records: gathered into one batch per partition, sent when a batch is full or has waited long enough,
//! several requests in flight per leader.
//!
//! Invariant: the batches of one partition are written in the order in which they were filled. When a batch has to
//! be sent again, every request in flight is awaited first, and from then on failed batches go one at a time in
//! their order; so an idempotent producer's sequences never cross, and a later batch that the broker refused as out
//! of order because of the failed one is sent again behind it.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    InitProducerIdRequest, ProduceRequest, ProduceResponse, ProducerId, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::{ClientError, Cluster, Ticket, partition_of_key};
use crate::log::batch::BatchBuilder;
use crate::log::codec::Codec;

/// Produce up to version 12 names topics by name.
const PRODUCE_CEILING: i16 = 12;
const IN_FLIGHT_MAX: usize = 5;
const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
const DUPLICATE_SEQUENCE_NUMBER: i16 = 46;

/// What an acknowledgement promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// Nothing; there is none.
    None,
    /// The leader has written the record.
    Leader,
    /// Every in-sync replica has it.
    All,
}

impl Acks {
    /// Reads `0`, `1`, `-1` or `all`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            "0" => Some(Self::None),
            "1" => Some(Self::Leader),
            "-1" | "all" => Some(Self::All),
            _ => None,
        }
    }

    fn number(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
        }
    }
}

/// How a producer gathers and sends.
#[derive(Clone, Debug)]
pub struct ProducerConfig {
    /// `acks`
    pub acks: Acks,
    /// `enable.idempotence`; needs [`Acks::All`].
    pub idempotent: bool,
    /// `batch.size`: a batch of this many bytes before compression is sent.
    pub batch_bytes: usize,
    /// `linger.ms`: how long a batch waits for more.
    pub linger: Duration,
    /// `compression.type`
    pub codec: Codec,
    /// `request.timeout.ms`: how long the broker may wait for replicas.
    pub request_timeout: Duration,
    /// `retries`: how often a batch is sent again.
    pub retries: u32,
    /// `retry.backoff.ms`
    pub retry_backoff: Duration,
}

impl Default for ProducerConfig {
    /// The Java client's defaults, but for a bounded number of retries.
    fn default() -> Self {
        Self {
            acks: Acks::All,
            idempotent: true,
            batch_bytes: 16 << 10,
            linger: Duration::from_millis(5),
            codec: Codec::None,
            request_timeout: Duration::from_secs(30),
            retries: 600,
            retry_backoff: Duration::from_millis(100),
        }
    }
}

/// A record to be written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record<'a> {
    /// Its partition; otherwise the key decides, or chance.
    pub partition: Option<i32>,
    /// Milliseconds since the Unix epoch; now unless given.
    pub timestamp_ms: Option<i64>,
    /// Key, if it has one.
    pub key: Option<&'a [u8]>,
    /// Value, if it has one.
    pub value: Option<&'a [u8]>,
    /// Headers in order.
    pub headers: &'a [(&'a [u8], Option<&'a [u8]>)],
}

/// What became of one batch.
#[derive(Debug)]
pub struct Delivery {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
    /// How many records it had.
    pub records: i32,
    /// Offset of the first record (-1 where the broker does not say, as under [`Acks::None`]), or why it failed.
    pub result: Result<i64, ClientError>,
}

type PartitionKey = (String, i32);

#[derive(Debug)]
struct Gathering {
    builder: BatchBuilder,
    since: Instant,
}

#[derive(Debug)]
struct Batch {
    to: PartitionKey,
    number: u64,
    records: i32,
    bytes: Bytes,
    attempts: u32,
}

#[derive(Debug)]
struct Sent {
    node: i32,
    ticket: Ticket<ProduceRequest>,
    batches: Vec<Batch>,
}

/// Writes to the topics of a cluster.
#[derive(Debug)]
pub struct Producer {
    cluster: Cluster,
    config: ProducerConfig,
    producer: Option<(i64, i16)>,
    sequences: BTreeMap<PartitionKey, i32>,
    gathering: BTreeMap<PartitionKey, Gathering>,
    sticky: BTreeMap<String, i32>,
    in_flight: VecDeque<Sent>,
    again: Vec<Batch>,
    deliveries: Vec<Delivery>,
    batch_number_next: u64,
}

impl Producer {
    /// A producer; an idempotent one gets its id from the cluster now.
    pub fn new(mut cluster: Cluster, config: ProducerConfig) -> Result<Self, ClientError> {
        if config.idempotent && config.acks != Acks::All {
            return Err(ClientError::Usage("an idempotent producer needs acks=all".to_owned()));
        }
        let producer = if config.idempotent { Some(producer_id(&mut cluster, &config)?) } else { None };
        Ok(Self {
            cluster,
            config,
            producer,
            sequences: BTreeMap::new(),
            gathering: BTreeMap::new(),
            sticky: BTreeMap::new(),
            in_flight: VecDeque::new(),
            again: Vec::new(),
            deliveries: Vec::new(),
            batch_number_next: 0,
        })
    }

    /// Takes a record over; sends what is full, and waits when too much is in flight. Gives the partition that it
    /// goes to; the records of a partition are delivered in the order of these calls.
    pub fn send(&mut self, topic: &str, record: &Record<'_>) -> Result<i32, ClientError> {
        let partition = self.choose(topic, record)?;
        let to = (topic.to_owned(), partition);
        let room = record_bytes(record);
        if self
            .gathering
            .get(&to)
            .is_some_and(|open| open.builder.length_bytes() + room > self.config.batch_bytes)
        {
            self.dispatch(vec![to.clone()]);
        }
        let timestamp_ms = record.timestamp_ms.unwrap_or_else(wall_ms);
        let open = self.gathering.entry(to.clone()).or_insert_with(|| Gathering {
            builder: BatchBuilder::new().codec(self.config.codec),
            since: Instant::now(),
        });
        open.builder.push(timestamp_ms, record.key, record.value, record.headers);
        if open.builder.length_bytes() >= self.config.batch_bytes {
            self.dispatch(vec![to]);
        }
        self.poll();
        Ok(partition)
    }

    /// Takes the answers that have come, without waiting for any.
    pub fn collect(&mut self) {
        while let Some(sent) = self.in_flight.front() {
            match self.cluster.node(sent.node) {
                Ok(connection) if !connection.has_arrived() => return,
                _ => self.complete_oldest(),
            }
        }
        self.send_again();
    }

    /// Sends what has waited long enough.
    pub fn poll(&mut self) {
        let linger = self.config.linger;
        let due = self.gathering.iter().filter(|(_, open)| open.since.elapsed() >= linger);
        let due: Vec<PartitionKey> = due.map(|(to, _)| to.clone()).collect();
        if !due.is_empty() {
            self.dispatch(due);
        }
    }

    /// When [`Self::poll`] has something to do next.
    pub fn next_due(&self) -> Option<Instant> {
        self.gathering.values().map(|open| open.since + self.config.linger).min()
    }

    /// Sends everything and waits for every answer.
    pub fn flush(&mut self) {
        let all: Vec<PartitionKey> = self.gathering.keys().cloned().collect();
        self.dispatch(all);
        while !self.in_flight.is_empty() {
            self.complete_oldest();
        }
        self.send_again();
    }

    /// What became of the batches answered since the last call.
    pub fn take_deliveries(&mut self) -> Vec<Delivery> {
        std::mem::take(&mut self.deliveries)
    }

    /// The given partition, the key's, or the one that records without a key go to until its batch is sent.
    fn choose(&mut self, topic: &str, record: &Record<'_>) -> Result<i32, ClientError> {
        if let Some(partition) = record.partition {
            return Ok(partition);
        }
        if let (None, Some(sticky)) = (record.key, self.sticky.get(topic)) {
            return Ok(*sticky);
        }
        let partitions = self.cluster.partitions(topic, true)?;
        let count = i32::try_from(partitions.len()).unwrap_or(i32::MAX);
        Ok(match record.key {
            Some(key) => partition_of_key(key, count),
            None => *self.sticky.entry(topic.to_owned()).or_insert_with(|| fastrand::i32(0..count)),
        })
    }

    /// Closes these batches and sends them, one request to each leader.
    fn dispatch(&mut self, keys: Vec<PartitionKey>) {
        let mut by_node: BTreeMap<i32, Vec<Batch>> = BTreeMap::new();
        for to in keys {
            let leader = self.cluster.leader(&to.0, to.1).map(|(node, _)| node);
            let Some(batch) = self.close(to) else { continue };
            match leader {
                Ok(node) => by_node.entry(node).or_default().push(batch),
                Err(error) => self.fail_or_retry(vec![batch], &error),
            }
        }
        for (node, batches) in by_node {
            self.transmit(node, batches);
        }
        self.send_again();
    }

    fn close(&mut self, to: PartitionKey) -> Option<Batch> {
        let open = self.gathering.remove(&to)?;
        self.sticky.remove(&to.0);
        let records = open.builder.record_count();
        let builder = match self.producer {
            None => open.builder,
            Some((id, epoch)) => {
                let sequence = self.sequences.entry(to.clone()).or_insert(0);
                let builder = open.builder.producer(id, epoch, *sequence);
                // Sequences go from 0 to i32::MAX and round again.
                *sequence = ((i64::from(*sequence) + i64::from(records)) & i64::from(i32::MAX)) as i32;
                builder
            }
        };
        let number = self.batch_number_next;
        self.batch_number_next += 1;
        Some(Batch { to, number, records, bytes: builder.build(), attempts: 0 })
    }

    /// Sends one request; what cannot be sent waits to be sent again.
    fn transmit(&mut self, node: i32, batches: Vec<Batch>) {
        while self.in_flight.len() >= IN_FLIGHT_MAX {
            self.complete_oldest();
        }
        if !self.again.is_empty() {
            // Behind a failed batch nothing may overtake.
            self.again.extend(batches);
            return;
        }
        let request = self.request(&batches);
        let answered = self.config.acks != Acks::None;
        let sent = self.cluster.node(node).and_then(|connection| {
            let version = connection.version::<ProduceRequest>(PRODUCE_CEILING)?;
            if answered {
                connection.send(&request, version).map(Some)
            } else {
                connection.send_unanswered(&request, version).map(|()| None)
            }
        });
        match sent {
            Ok(Some(ticket)) => self.in_flight.push_back(Sent { node, ticket, batches }),
            Ok(None) => batches.into_iter().for_each(|batch| self.deliver(batch, Ok(-1))),
            Err(error) => {
                // The requests in flight there are older.
                self.abandon(node, &error);
                self.fail_or_retry(batches, &error);
            }
        }
    }

    /// Closes the connection to a broker; the answers that were still to come on it never will.
    fn abandon(&mut self, node: i32, error: &ClientError) {
        self.cluster.close(node);
        let (lost, kept) =
            std::mem::take(&mut self.in_flight).into_iter().partition(|sent| sent.node == node);
        self.in_flight = kept;
        let lost: VecDeque<Sent> = lost;
        lost.into_iter().for_each(|sent| self.fail_or_retry(sent.batches, error));
    }

    fn request(&self, batches: &[Batch]) -> ProduceRequest {
        let mut topics: Vec<TopicProduceData> = Vec::new();
        for batch in batches {
            let data = PartitionProduceData::default()
                .with_index(batch.to.1)
                .with_records(Some(batch.bytes.clone()));
            match topics.iter_mut().find(|topic| topic.name.0.as_str() == batch.to.0) {
                Some(topic) => topic.partition_data.push(data),
                None => topics.push(
                    TopicProduceData::default()
                        .with_name(TopicName(StrBytes::from_string(batch.to.0.clone())))
                        .with_partition_data(vec![data]),
                ),
            }
        }
        ProduceRequest::default()
            .with_transactional_id(None)
            .with_acks(self.config.acks.number())
            .with_timeout_ms(i32::try_from(self.config.request_timeout.as_millis()).unwrap_or(i32::MAX))
            .with_topic_data(topics)
    }

    /// Takes the answer to the oldest request in flight, if there is one.
    fn complete_oldest(&mut self) {
        let Some(Sent { node, ticket, batches }) = self.in_flight.pop_front() else { return };
        match self.cluster.node(node).and_then(|connection| connection.receive(ticket)) {
            Ok(response) => self.settle(batches, &response),
            Err(error) => {
                self.fail_or_retry(batches, &error);
                self.abandon(node, &error);
            }
        }
    }

    fn settle(&mut self, batches: Vec<Batch>, response: &ProduceResponse) {
        for batch in batches {
            let (topic, partition) = &batch.to;
            let answer = response
                .responses
                .iter()
                .filter(|answer| answer.name.0.as_str() == topic)
                .flat_map(|answer| &answer.partition_responses)
                .find(|answer| answer.index == *partition);
            let Some(answer) = answer else {
                let error =
                    ClientError::Unavailable(format!("the broker said nothing about {topic}-{partition}"));
                self.deliver(batch, Err(error));
                continue;
            };
            let subject = format!("{topic}-{partition}");
            match ClientError::check(&subject, answer.error_code, answer.error_message.as_deref()) {
                Ok(()) => {
                    let offset = answer.base_offset;
                    self.deliver(batch, Ok(offset));
                }
                Err(_) if answer.error_code == DUPLICATE_SEQUENCE_NUMBER => self.deliver(batch, Ok(-1)),
                Err(error) => self.fail_or_retry(vec![batch], &error),
            }
        }
    }

    fn fail_or_retry(&mut self, batches: Vec<Batch>, error: &ClientError) {
        for mut batch in batches {
            let follows_a_failure = error.code() == Some(OUT_OF_ORDER_SEQUENCE_NUMBER)
                && self.again.iter().any(|failed| failed.to == batch.to && failed.number < batch.number);
            if (error.is_retriable() || follows_a_failure) && batch.attempts < self.config.retries {
                batch.attempts += 1;
                self.again.push(batch);
            } else {
                self.deliver(batch, Err(repeat(error)));
            }
        }
    }

    /// Sends failed batches again, in their order and one at a time, until each is settled.
    fn send_again(&mut self) {
        if self.again.is_empty() {
            return;
        }
        while !self.in_flight.is_empty() {
            self.complete_oldest();
        }
        while !self.again.is_empty() {
            self.again.sort_unstable_by_key(|batch| batch.number);
            std::thread::sleep(self.config.retry_backoff);
            let round = std::mem::take(&mut self.again);
            for batch in round {
                self.send_one_again(batch);
            }
        }
    }

    fn send_one_again(&mut self, mut batch: Batch) {
        if self.again.iter().any(|failed| failed.to == batch.to) {
            // An earlier batch of the partition failed in this round; nothing overtakes it.
            self.again.push(batch);
            return;
        }
        self.cluster.forget(&batch.to.0);
        let leader = self.cluster.leader(&batch.to.0, batch.to.1).map(|(node, _)| node);
        match leader {
            Err(error) if error.is_retriable() && batch.attempts < self.config.retries => {
                batch.attempts += 1;
                self.again.push(batch);
            }
            Err(error) => self.deliver(batch, Err(error)),
            Ok(node) => {
                let waiting = std::mem::take(&mut self.again);
                self.transmit(node, vec![batch]);
                self.complete_oldest();
                self.again.splice(0..0, waiting);
            }
        }
    }

    fn deliver(&mut self, batch: Batch, result: Result<i64, ClientError>) {
        let Batch { to: (topic, partition), records, .. } = batch;
        self.deliveries.push(Delivery { topic, partition, records, result });
    }
}

/// The same error once more: errors of the system cannot be cloned.
fn repeat(error: &ClientError) -> ClientError {
    match error {
        ClientError::Broker { subject, code, name, message } => ClientError::Broker {
            subject: subject.clone(),
            code: *code,
            name: name.clone(),
            message: message.clone(),
        },
        other => ClientError::Unavailable(other.to_string()),
    }
}

fn producer_id(cluster: &mut Cluster, config: &ProducerConfig) -> Result<(i64, i16), ClientError> {
    let request = InitProducerIdRequest::default()
        // The library's own default is an empty id.
        .with_transactional_id(None)
        .with_transaction_timeout_ms(i32::MAX)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    let mut attempts = 0;
    loop {
        let asked = cluster.controller().and_then(|connection| connection.call(&request, i16::MAX));
        let checked = asked.and_then(|response| {
            ClientError::check("InitProducerId", response.error_code, None)?;
            Ok((response.producer_id.0, response.producer_epoch))
        });
        match checked {
            Err(error) if error.is_retriable() && error.code().is_some() && attempts < config.retries => {
                attempts += 1;
                std::thread::sleep(config.retry_backoff);
            }
            settled => return settled,
        }
    }
}

/// An upper bound of what a record adds to a batch.
fn record_bytes(record: &Record<'_>) -> usize {
    const RECORD_OVERHEAD_BYTES: usize = 36;
    const HEADER_OVERHEAD_BYTES: usize = 10;
    let length = |field: Option<&[u8]>| field.map_or(0, <[u8]>::len);
    let headers =
        record.headers.iter().map(|(name, value)| name.len() + length(*value) + HEADER_OVERHEAD_BYTES);
    RECORD_OVERHEAD_BYTES + length(record.key) + length(record.value) + headers.sum::<usize>()
}

fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
