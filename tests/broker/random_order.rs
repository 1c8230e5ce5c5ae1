//! A random mix of everything that may be pipelined, from several connections at once: answers come in the
//! order of the requests, and every partition keeps each connection's order.
//!
//! How: each connection draws from its own seed (`ORDER_SEED=7` for another run of them).

use std::collections::{BTreeMap, VecDeque};

use kafka_protocol::messages::{
    ApiVersionsRequest, FetchRequest, FetchResponse, MetadataRequest, ProduceRequest,
};
use tidemill::client::{Connection, Ticket};

use crate::process::{Broker, Home};
use crate::wire::{
    FETCH_VERSION, PRODUCE_VERSION, append, batch, connect, create, fetch_request, produce_request, read_all,
    records,
};

fn everything() -> MetadataRequest {
    MetadataRequest::default().with_topics(None)
}

const PARTITIONS: i32 = 8;
const REQUESTS: u32 = 600;
const IN_FLIGHT_MAX: usize = 60;

/// A request that was sent, with what is known of its answer.
enum Sent {
    Produce(Ticket<ProduceRequest>, Vec<i32>),
    Fetch(Ticket<FetchRequest>, i32, i64),
    Metadata(Ticket<MetadataRequest>),
    ApiVersions(Ticket<ApiVersionsRequest>),
}

struct Client {
    number: u8,
    random: fastrand::Rng,
    connection: Connection,
    sent: VecDeque<Sent>,
    /// How many records went to each partition, acknowledged or not.
    written: BTreeMap<i32, u32>,
    /// The last offset that was acknowledged in each.
    acknowledged: BTreeMap<i32, i64>,
}

impl Client {
    fn value(&mut self, partition: i32) -> Vec<u8> {
        let written = self.written.entry(partition).or_default();
        *written += 1;
        let mut value = vec![self.number];
        value.extend_from_slice(&written.to_be_bytes());
        // Some do not fit one receive.
        let long = if self.random.u8(0..20) == 0 { 150_000 } else { self.random.usize(0..300) };
        value.resize(value.len() + long, b'.');
        value
    }

    fn send(&mut self) {
        let sent = match self.random.u8(0..20) {
            0..10 => {
                let mut partitions: Vec<i32> = (0..PARTITIONS).collect();
                self.random.shuffle(&mut partitions);
                partitions.truncate(self.random.usize(1..4));
                let parts = partitions.iter().map(|index| (*index, batch(&[&self.value(*index)]))).collect();
                let acks = self.random.i16(-1..=1);
                let request = produce_request("mixed", acks, parts);
                if acks == 0 {
                    return self.connection.send_unanswered(&request, PRODUCE_VERSION).unwrap();
                }
                Sent::Produce(self.connection.send(&request, PRODUCE_VERSION).unwrap(), partitions)
            }
            10..17 => {
                let partition = self.random.i32(0..PARTITIONS);
                let known = self.acknowledged.get(&partition).copied().unwrap_or(0);
                let offset = self.random.i64(0..=known);
                let wait_ms = if self.random.bool() { 0 } else { 20 };
                let request = fetch_request("mixed", &[(partition, offset)])
                    .with_max_wait_ms(wait_ms)
                    .with_max_bytes(self.random.i32(1..400_000));
                Sent::Fetch(self.connection.send(&request, FETCH_VERSION).unwrap(), partition, offset)
            }
            17..19 => Sent::Metadata(self.connection.send(&everything(), 9).unwrap()),
            _ => Sent::ApiVersions(self.connection.send(&ApiVersionsRequest::default(), 2).unwrap()),
        };
        self.sent.push_back(sent);
    }

    /// Takes the oldest answer; the connection refuses one with another correlation id.
    fn receive(&mut self) {
        match self.sent.pop_front().unwrap() {
            Sent::Produce(ticket, partitions) => {
                let response = self.connection.receive(ticket).unwrap();
                let answers = &response.responses[0].partition_responses;
                assert_eq!(answers.iter().map(|part| part.index).collect::<Vec<_>>(), partitions);
                for part in answers {
                    assert_eq!(part.error_code, 0);
                    let last = self.acknowledged.insert(part.index, part.base_offset);
                    assert!(last.is_none_or(|last| last < part.base_offset), "{part:?} after {last:?}");
                }
            }
            Sent::Fetch(ticket, partition, offset) => {
                let response = self.connection.receive(ticket).unwrap();
                check_fetch(&response, partition, offset);
            }
            Sent::Metadata(ticket) => {
                assert_eq!(self.connection.receive(ticket).unwrap().topics.len(), 1);
            }
            Sent::ApiVersions(ticket) => {
                assert_eq!(self.connection.receive(ticket).unwrap().error_code, 0);
            }
        }
    }
}

/// Records start at or below the offset asked for and follow each other up to the watermark at most.
fn check_fetch(response: &FetchResponse, partition: i32, offset: i64) {
    let part = &response.responses[0].partitions[0];
    assert_eq!((part.error_code, part.partition_index), (0, partition));
    let mut found = Vec::new();
    records(part.records.as_deref().unwrap_or_default(), &mut found);
    if let Some((first, _)) = found.first() {
        let expected: Vec<i64> = (*first..).take(found.len()).collect();
        assert!(*first <= offset && first + found.len() as i64 <= part.high_watermark);
        assert_eq!(found.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), expected);
    }
}

fn run_client(broker: &Broker, number: u8, seed: u64) -> BTreeMap<i32, u32> {
    let (connection, random) = (connect(broker), fastrand::Rng::with_seed(seed + u64::from(number)));
    let (written, acknowledged) = (BTreeMap::new(), BTreeMap::new());
    let mut client = Client { number, random, connection, sent: VecDeque::new(), written, acknowledged };
    for _ in 0..REQUESTS {
        client.send();
        while client.sent.len() > client.random.usize(0..IN_FLIGHT_MAX) {
            client.receive();
        }
    }
    while !client.sent.is_empty() {
        client.receive();
    }
    // An acks=0 produce is done when a barrier behind it is answered.
    client.connection.call(&everything(), 9).unwrap();
    client.written
}

fn mixed_requests_keep_their_order(shards: u32) {
    let seed = std::env::var("ORDER_SEED").map_or(1, |seed| seed.parse().unwrap());
    let home = Home::new(&[&format!("shard.count={shards}")]);
    let broker = home.start();
    let mut control = connect(&broker);
    create(&mut control, "mixed", PARTITIONS, &[]);
    for partition in 0..PARTITIONS {
        append(&mut control, "mixed", partition, &[b"first"]);
    }
    let broker_ref = &broker;
    let written: Vec<BTreeMap<i32, u32>> = std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..4).map(|number| scope.spawn(move || run_client(broker_ref, number, seed))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    for partition in 0..PARTITIONS {
        let mut seen = [0_u32; 4];
        for (_, value) in read_all(&mut control, "mixed", partition).into_iter().skip(1) {
            let count = &mut seen[usize::from(value[0])];
            *count += 1;
            assert_eq!(value[1..5], count.to_be_bytes(), "partition {partition}: client {}", value[0]);
        }
        let expected: Vec<u32> = written.iter().map(|of| of.get(&partition).copied().unwrap_or(0)).collect();
        assert_eq!(seen.to_vec(), expected, "partition {partition} has every record once (seed {seed})");
    }
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn a_random_mix_keeps_its_order_over_two_shards() {
    mixed_requests_keep_their_order(2);
}

#[test]
fn a_random_mix_keeps_its_order_over_four_shards() {
    mixed_requests_keep_their_order(4);
}
