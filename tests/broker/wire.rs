//! Speaking to a broker: whole requests through the client's connection, and bytes through a socket.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, DeleteTopicsRequest, FetchRequest, FetchResponse, MetadataRequest,
    MetadataResponse, ProduceRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use tidemill::client::{Connection, ConnectionConfig};
use tidemill::log::batch::{BatchBuilder, BatchInfo, crc_holds};
use tidemill::log::codec::Decompressor;
use tidemill::log::record::Records;

use crate::process::{Broker, PATIENCE, until};

/// Versions that name topics by name.
pub const PRODUCE_VERSION: i16 = 9;
pub const FETCH_VERSION: i16 = 12;

/// What a partition answers until its log is open after a start; clients come again, and so do we.
const NOT_LEADER_OR_FOLLOWER: i16 = 6;

pub fn connect(broker: &Broker) -> Connection {
    let config = ConnectionConfig { response_timeout: PATIENCE, ..ConnectionConfig::default() };
    Connection::open(&broker.address, &config).unwrap()
}

pub fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

/// Creates a topic with these configs; Kafka's error code.
pub fn try_create(
    connection: &mut Connection,
    topic: &str,
    partitions: i32,
    configs: &[(&str, &str)],
) -> i16 {
    let text = |value: &str| StrBytes::from_string(value.to_owned());
    let configs = configs
        .iter()
        .map(|(key, value)| {
            CreatableTopicConfig::default().with_name(text(key)).with_value(Some(text(value)))
        })
        .collect();
    let wanted = CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(1)
        .with_configs(configs);
    let request = CreateTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(30_000);
    connection.call(&request, i16::MAX).unwrap().topics[0].error_code
}

pub fn create(connection: &mut Connection, topic: &str, partitions: i32, configs: &[(&str, &str)]) {
    assert_eq!(try_create(connection, topic, partitions, configs), 0, "{topic} is created");
}

pub fn delete(connection: &mut Connection, topic: &str) -> i16 {
    let request = DeleteTopicsRequest::default().with_topic_names(vec![name(topic)]).with_timeout_ms(30_000);
    connection.call(&request, 5).unwrap().responses[0].error_code
}

/// What the broker says of these topics, without creating any.
pub fn describe(connection: &mut Connection, topics: &[&str]) -> MetadataResponse {
    let topics =
        topics.iter().map(|topic| MetadataRequestTopic::default().with_name(Some(name(topic)))).collect();
    let request = MetadataRequest::default().with_topics(Some(topics)).with_allow_auto_topic_creation(false);
    connection.call(&request, i16::MAX).unwrap()
}

/// A batch of one record for each value, of now: retention would delete older ones under a slow test.
pub fn batch(values: &[&[u8]]) -> Bytes {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let now_ms = i64::try_from(now.as_millis()).unwrap();
    let record = |builder: BatchBuilder, value: &&[u8]| builder.record(now_ms, None, Some(value));
    values.iter().fold(BatchBuilder::new(), record).build()
}

/// One produce request for these partitions of a topic.
pub fn produce_request(topic: &str, acks: i16, parts: Vec<(i32, Bytes)>) -> ProduceRequest {
    let parts = parts
        .into_iter()
        .map(|(index, records)| PartitionProduceData::default().with_index(index).with_records(Some(records)))
        .collect();
    let topic = TopicProduceData::default().with_name(name(topic)).with_partition_data(parts);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(30_000).with_topic_data(vec![topic])
}

/// Produces one batch and gives what its partition answered.
pub fn produce(
    connection: &mut Connection,
    topic: &str,
    partition: i32,
    acks: i16,
    records: Bytes,
) -> PartitionProduceResponse {
    let request = produce_request(topic, acks, vec![(partition, records)]);
    until("the partition serves", || {
        let response = connection.call(&request, PRODUCE_VERSION).unwrap();
        let answer = response.responses[0].partition_responses[0].clone();
        if answer.error_code == NOT_LEADER_OR_FOLLOWER { Err(answer.error_code) } else { Ok(answer) }
    })
}

/// Produces one batch with acks=all, which must succeed; its base offset.
pub fn append(connection: &mut Connection, topic: &str, partition: i32, values: &[&[u8]]) -> i64 {
    let answer = produce(connection, topic, partition, -1, batch(values));
    assert_eq!((answer.error_code, answer.index), (0, partition), "{topic}-{partition} takes a batch");
    answer.base_offset
}

/// One fetch request outside a session for these partitions and offsets.
pub fn fetch_request(topic: &str, parts: &[(i32, i64)]) -> FetchRequest {
    let parts = parts
        .iter()
        .map(|(partition, offset)| {
            FetchPartition::default()
                .with_partition(*partition)
                .with_fetch_offset(*offset)
                .with_partition_max_bytes(64 << 20)
        })
        .collect();
    let topic = FetchTopic::default().with_topic(name(topic)).with_partitions(parts);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(0)
        .with_min_bytes(1)
        .with_max_bytes(64 << 20)
        .with_session_id(0)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

pub fn fetch(connection: &mut Connection, topic: &str, partition: i32, offset: i64) -> PartitionData {
    let request = fetch_request(topic, &[(partition, offset)]);
    until("the partition serves", || {
        let answer = only_partition(&connection.call(&request, FETCH_VERSION).unwrap());
        if answer.error_code == NOT_LEADER_OR_FOLLOWER { Err(answer.error_code) } else { Ok(answer) }
    })
}

pub fn only_partition(response: &FetchResponse) -> PartitionData {
    assert_eq!(response.error_code, 0);
    assert_eq!(response.responses[0].partitions.len(), 1);
    response.responses[0].partitions[0].clone()
}

/// Every record of a partition: its offset and value. Checksums must hold and offsets must follow each other.
pub fn read_all(connection: &mut Connection, topic: &str, partition: i32) -> Vec<(i64, Vec<u8>)> {
    let (mut offset, mut read) = (0, Vec::new());
    loop {
        let found = fetch(connection, topic, partition, offset);
        assert_eq!(found.error_code, 0, "fetching {topic}-{partition} at {offset}: {found:?}");
        let before = read.len();
        records(&found.records.unwrap_or_default(), &mut read);
        let Some((last, _)) = read.last() else {
            assert_eq!(found.high_watermark, 0, "an empty read is that of an empty log");
            return read;
        };
        if read.len() == before {
            assert_eq!(found.high_watermark, last + 1, "everything below the watermark was read");
            return read;
        }
        offset = last + 1;
    }
}

/// Adds the records of whole batches.
pub fn records(mut bytes: &[u8], read: &mut Vec<(i64, Vec<u8>)>) {
    while let Ok(info) = BatchInfo::parse(bytes) {
        let Some((batch, rest)) = bytes.split_at_checked(info.length_bytes as usize) else { return };
        assert!(crc_holds(batch, &info), "the batch at {} is whole", info.base_offset);
        let body = &batch[tidemill::log::batch::HEADER_BYTES..];
        let mut decompressor = Decompressor::default();
        let body = decompressor.decompress(info.codec().unwrap(), body, u64::MAX).unwrap();
        for record in Records::new(body) {
            let record = record.unwrap();
            let offset = info.base_offset + i64::from(record.offset_delta);
            read.push((offset, record.value.unwrap_or_default().to_vec()));
        }
        bytes = rest;
    }
}

/// A socket without a client on it.
pub struct Raw(pub TcpStream);

impl Raw {
    pub fn open(broker: &Broker) -> Self {
        let stream = TcpStream::connect(&broker.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Sends bytes as they are; a broker that has closed already is what some tests want.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// Sends a frame: its length and its bytes.
    pub fn send_frame(&mut self, body: &[u8]) {
        let mut frame = i32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        frame.extend_from_slice(body);
        self.send(&frame);
    }

    /// The next frame, without its length.
    pub fn frame(&mut self) -> Vec<u8> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut body = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
        self.0.read_exact(&mut body).unwrap();
        body
    }

    /// Waits until the broker closes the connection; it must not send anything before.
    pub fn assert_closed(&mut self, why: &str) {
        let mut byte = [0];
        match self.0.read(&mut byte) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("{why}: expected a closed connection, got {other:?} {byte:?}"),
        }
    }

    pub fn give_up_after(&self, time: Duration) {
        self.0.set_read_timeout(Some(time)).unwrap();
    }
}

/// A request header of version 1 (before flexible versions), and what follows it.
pub fn request(api_key: i16, version: i16, correlation_id: i32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&api_key.to_be_bytes());
    bytes.extend_from_slice(&version.to_be_bytes());
    bytes.extend_from_slice(&correlation_id.to_be_bytes());
    bytes.extend_from_slice(&1_i16.to_be_bytes());
    bytes.push(b'c');
    bytes.extend_from_slice(body);
    bytes
}
