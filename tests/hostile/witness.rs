//! A client that behaves: writes idempotently with acks=all, reads all of it beside that, and compares each
//! record's offset and bytes. Every value is a function of its partition and offset.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tidemill::client::{
    Cluster, ConnectionConfig, ConsumedRecord, Consumer, ConsumerConfig, Producer, ProducerConfig, Record,
    Start, TopicPartition,
};

use crate::process::PATIENCE;

pub const TOPIC: &str = "of-the-witness";
pub const PARTITIONS: i32 = 4;
/// Records of one round on each partition.
const ROUND: u64 = 5;

/// What it has written and read.
#[derive(Debug, Default)]
pub struct Testimony {
    /// Records acknowledged on each partition.
    pub written: Vec<i64>,
    /// The slowest round of writing and of reading, and how many there were.
    pub slowest: Duration,
    pub rounds: u64,
}

pub fn cluster(address: &str) -> Cluster {
    let config = ConnectionConfig { response_timeout: PATIENCE, ..ConnectionConfig::default() };
    Cluster::new(vec![address.to_owned()], config)
}

/// Of 20 to 2,000 bytes.
fn value(partition: i32, offset: i64) -> Vec<u8> {
    let mut rng = Rng::with_seed((u64::from(partition.unsigned_abs()) << 48) ^ offset.unsigned_abs());
    let length = if rng.u8(..10) == 0 { 2_000 } else { rng.usize(20..200) };
    std::iter::repeat_with(|| rng.u8(..)).take(length).collect()
}

/// A reader that checks what it reads.
pub struct Reader {
    consumer: Consumer,
    read: Vec<i64>,
}

impl Reader {
    pub fn new(address: &str) -> Self {
        let config = ConsumerConfig { reset: None, ..ConsumerConfig::default() };
        let mut consumer = Consumer::new(cluster(address), config);
        for partition in 0..PARTITIONS {
            consumer
                .assign(&TopicPartition::new(TOPIC, partition), Start::Earliest)
                .expect("the topic of the witness is there");
        }
        Self { consumer, read: vec![0; PARTITIONS as usize] }
    }

    /// Reads until it has read this much of each partition.
    pub fn read_to(&mut self, ends: &[i64]) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while self.read.iter().zip(ends).any(|(read, end)| read < end) {
            match self.consumer.poll(Duration::from_millis(500)) {
                Ok(records) => records.iter().try_for_each(|record| self.check(record))?,
                Err(error) if error.is_retriable() => {}
                Err(error) => return Err(format!("the witness cannot read: {error}")),
            }
            if Instant::now() > deadline {
                return Err(format!("the witness read {:?} and not {ends:?}", self.read));
            }
        }
        if self.read == ends { Ok(()) } else { Err(format!("read {:?}, written were {ends:?}", self.read)) }
    }

    fn check(&mut self, record: &ConsumedRecord) -> Result<(), String> {
        let next = &mut self.read[record.partition as usize];
        if record.offset != *next {
            return Err(format!("offset {} came where {next} is due on {}", record.offset, record.partition));
        }
        *next += 1;
        if record.value.as_deref() != Some(&value(record.partition, record.offset)[..]) {
            return Err(format!("record {} of partition {} is another", record.offset, record.partition));
        }
        Ok(())
    }
}

/// Writes and reads until it is told to stop.
pub fn testify(address: &str, stop: &AtomicBool) -> Result<Testimony, String> {
    let config = ProducerConfig { linger: Duration::ZERO, ..ProducerConfig::default() };
    let mut producer = Producer::new(cluster(address), config).map_err(|error| error.to_string())?;
    let mut reader = Reader::new(address);
    let mut testimony = Testimony { written: vec![0; PARTITIONS as usize], ..Testimony::default() };
    while !stop.load(Ordering::Relaxed) || testimony.rounds == 0 {
        let started = Instant::now();
        write_round(&mut producer, &mut testimony.written)?;
        reader.read_to(&testimony.written)?;
        testimony.slowest = testimony.slowest.max(started.elapsed());
        testimony.rounds += 1;
    }
    Ok(testimony)
}

fn write_round(producer: &mut Producer, written: &mut [i64]) -> Result<(), String> {
    let mut offsets = written.to_vec();
    for _ in 0..ROUND {
        for partition in 0..PARTITIONS {
            let next = &mut offsets[partition as usize];
            let value = value(partition, *next);
            let record = Record { partition: Some(partition), value: Some(&value), ..Record::default() };
            producer.send(TOPIC, &record).map_err(|error| format!("the witness cannot write: {error}"))?;
            *next += 1;
        }
    }
    producer.flush();
    for delivery in producer.take_deliveries() {
        let base = delivery.result.map_err(|error| format!("the witness is refused: {error}"))?;
        let next = &mut written[delivery.partition as usize];
        if base != *next {
            return Err(format!("acknowledged at {base} where {next} is due on {}", delivery.partition));
        }
        *next += i64::from(delivery.records);
    }
    if written == offsets { Ok(()) } else { Err(format!("acknowledged {written:?} of {offsets:?}")) }
}
