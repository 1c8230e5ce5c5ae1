//! Reads assigned partitions of any topics; positions begin where the caller says. Groups are [`super::Membership`]'s.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, ListOffsetsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::cluster::ask_until;
use super::records;
use super::{ClientError, Cluster, ConsumedRecord, Ticket, TopicPartition};
use crate::log::codec::Decompressor;

/// Fetch up to version 12 names topics by name.
const FETCH_CEILING: i16 = 12;
/// Every version of ListOffsets knows the two timestamps that are asked for here.
const LIST_OFFSETS_CEILING: i16 = 7;
const OFFSET_OUT_OF_RANGE: i16 = 1;
/// Session epoch of a fetch outside any session.
const NO_SESSION: i32 = -1;

/// Where reading a partition starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The first record that is still there.
    Earliest,
    /// The next record to be written.
    Latest,
    /// This offset.
    At(i64),
}

/// How a consumer fetches.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// `fetch.min.bytes`
    pub fetch_min_bytes: i32,
    /// `fetch.max.bytes`
    pub fetch_max_bytes: i32,
    /// `max.partition.fetch.bytes`
    pub max_partition_fetch_bytes: i32,
    /// `isolation.level`: whether to ask for records below the last stable offset only.
    pub read_committed: bool,
    /// Where to go on when a position is not in the log; `None` makes that an error.
    pub reset: Option<Start>,
}

impl Default for ConsumerConfig {
    /// The Java client's defaults.
    fn default() -> Self {
        Self {
            fetch_min_bytes: 1,
            fetch_max_bytes: 50 << 20,
            max_partition_fetch_bytes: 1 << 20,
            read_committed: false,
            reset: Some(Start::Latest),
        }
    }
}

/// Reads the partitions that were assigned to it.
#[derive(Debug)]
pub struct Consumer {
    cluster: Cluster,
    config: ConsumerConfig,
    positions: BTreeMap<TopicPartition, i64>,
    decompressor: Decompressor,
}

impl Consumer {
    /// A consumer without any partition yet.
    pub fn new(cluster: Cluster, config: ConsumerConfig) -> Self {
        Self { cluster, config, positions: BTreeMap::new(), decompressor: Decompressor::default() }
    }

    /// The cluster that it reads from.
    pub fn cluster(&mut self) -> &mut Cluster {
        &mut self.cluster
    }

    /// The partitions that a topic has.
    pub fn partitions(&mut self, topic: &str) -> Result<Vec<i32>, ClientError> {
        let partitions = self.cluster.partitions(topic, true)?;
        Ok(partitions.iter().map(|partition| partition.index).collect())
    }

    /// Reads the partition from now on.
    pub fn assign(&mut self, partition: &TopicPartition, start: Start) -> Result<(), ClientError> {
        let offset = match start {
            Start::At(offset) => {
                // The partition's existence is checked before the first fetch.
                self.cluster.leader(&partition.topic, partition.partition)?;
                offset
            }
            Start::Earliest => self.offset_at(partition, -2)?,
            Start::Latest => self.offset_at(partition, -1)?,
        };
        self.positions.insert(partition.clone(), offset);
        Ok(())
    }

    /// Goes on from this offset in a partition that it reads.
    pub fn seek(&mut self, partition: &TopicPartition, offset: i64) {
        if let Some(position) = self.positions.get_mut(partition) {
            *position = offset;
        }
    }

    /// How it fetches.
    pub fn config(&self) -> &ConsumerConfig {
        &self.config
    }

    /// Reads nothing any more.
    pub fn unassign_all(&mut self) {
        self.positions.clear();
    }

    /// The partitions that it reads, and the offset of each to be read next.
    pub fn positions(&self) -> &BTreeMap<TopicPartition, i64> {
        &self.positions
    }

    /// The offset for a timestamp: -2 is the earliest, -1 the next to be written. Asks again while the partition's
    /// leader is not to be had, as after a start that still recovers its logs.
    pub fn offset_at(&mut self, partition: &TopicPartition, timestamp_ms: i64) -> Result<i64, ClientError> {
        let passes =
            |error: &ClientError| matches!(error, ClientError::Broker { .. }) && error.is_retriable();
        ask_until(self.cluster.deadline(), passes, || {
            let found = self.ask_for_offset(partition, timestamp_ms);
            if found.as_ref().is_err_and(passes) {
                self.cluster.forget(&partition.topic);
            }
            found
        })
    }

    fn ask_for_offset(&mut self, partition: &TopicPartition, timestamp_ms: i64) -> Result<i64, ClientError> {
        let wanted = ListOffsetsPartition::default()
            .with_partition_index(partition.partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(timestamp_ms);
        let topic =
            ListOffsetsTopic::default().with_name(topic_name(&partition.topic)).with_partitions(vec![wanted]);
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_isolation_level(i8::from(self.config.read_committed))
            .with_topics(vec![topic]);
        let (_, connection) = self.cluster.leader(&partition.topic, partition.partition)?;
        let response = connection.call(&request, LIST_OFFSETS_CEILING)?;
        let mut answers = response.topics.iter().flat_map(|topic| &topic.partitions);
        let found = answers.find(|answer| answer.partition_index == partition.partition);
        let Some(found) = found else {
            return Err(ClientError::Unavailable(format!("no offset was given for {partition}")));
        };
        ClientError::check(&partition.to_string(), found.error_code, None)?;
        Ok(found.offset)
    }

    /// Fetches once from every leader, which waits up to `max_wait` for records to come. An error that may pass
    /// forgets what was known of the leaders; calling again goes on from the same positions.
    pub fn poll(&mut self, max_wait: Duration) -> Result<Vec<ConsumedRecord>, ClientError> {
        let fetched = self.fetch(max_wait);
        if fetched.as_ref().is_err_and(ClientError::is_retriable) {
            for partition in self.positions.keys() {
                self.cluster.forget(&partition.topic);
            }
        }
        fetched
    }

    fn fetch(&mut self, max_wait: Duration) -> Result<Vec<ConsumedRecord>, ClientError> {
        let mut by_node: BTreeMap<i32, Vec<(TopicPartition, i64)>> = BTreeMap::new();
        for (partition, offset) in &self.positions {
            let (node, _) = self.cluster.leader(&partition.topic, partition.partition)?;
            by_node.entry(node).or_default().push((partition.clone(), *offset));
        }
        let mut asked: Vec<(i32, Ticket<FetchRequest>)> = Vec::new();
        let mut failed = None;
        for (node, partitions) in by_node {
            let request = self.request(&partitions, max_wait);
            let sent = self.cluster.node(node).and_then(|connection| {
                let version = connection.version::<FetchRequest>(FETCH_CEILING)?;
                connection.send(&request, version)
            });
            match sent {
                Ok(ticket) => asked.push((node, ticket)),
                Err(error) => failed = Some(self.close_on(node, error)),
            }
        }
        let mut taken = Vec::new();
        for (node, ticket) in asked {
            let received = self.cluster.node(node).and_then(|connection| connection.receive(ticket));
            let read = match received {
                Ok(response) => self.take(response, &mut taken),
                Err(error) => Err(self.close_on(node, error)),
            };
            failed = read.err().or(failed);
        }
        // Records come first: what failed is met again by the next call.
        match failed {
            Some(error) if taken.is_empty() => Err(error),
            _ => Ok(taken),
        }
    }

    fn close_on(&mut self, node: i32, error: ClientError) -> ClientError {
        self.cluster.close(node);
        error
    }

    fn request(&self, partitions: &[(TopicPartition, i64)], max_wait: Duration) -> FetchRequest {
        let mut topics: Vec<FetchTopic> = Vec::new();
        for (partition, offset) in partitions {
            let fetch = FetchPartition::default()
                .with_partition(partition.partition)
                .with_current_leader_epoch(-1)
                .with_fetch_offset(*offset)
                .with_last_fetched_epoch(-1)
                .with_log_start_offset(-1)
                .with_partition_max_bytes(self.config.max_partition_fetch_bytes);
            match topics.last_mut().filter(|topic| topic.topic.0.as_str() == partition.topic) {
                Some(topic) => topic.partitions.push(fetch),
                None => topics.push(
                    FetchTopic::default()
                        .with_topic(topic_name(&partition.topic))
                        .with_partitions(vec![fetch]),
                ),
            }
        }
        FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(i32::try_from(max_wait.as_millis()).unwrap_or(i32::MAX))
            .with_min_bytes(self.config.fetch_min_bytes)
            .with_max_bytes(self.config.fetch_max_bytes)
            .with_isolation_level(i8::from(self.config.read_committed))
            .with_session_epoch(NO_SESSION)
            .with_topics(topics)
    }

    fn take(&mut self, response: FetchResponse, taken: &mut Vec<ConsumedRecord>) -> Result<(), ClientError> {
        ClientError::check("the fetch", response.error_code, None)?;
        let mut failed = None;
        for topic in response.responses {
            let name: Arc<str> = Arc::from(topic.topic.0.as_str());
            for data in &topic.partitions {
                failed = self.take_partition(&name, data, taken).err().or(failed);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn take_partition(
        &mut self,
        topic: &Arc<str>,
        data: &PartitionData,
        taken: &mut Vec<ConsumedRecord>,
    ) -> Result<(), ClientError> {
        let partition = TopicPartition::new(topic, data.partition_index);
        let Some(position) = self.positions.get(&partition).copied() else { return Ok(()) };
        if data.error_code == OFFSET_OUT_OF_RANGE
            && let Some(start) = self.config.reset
        {
            return self.assign(&partition, start);
        }
        ClientError::check(&partition.to_string(), data.error_code, None)?;
        let bytes = data.records.as_deref().unwrap_or_default();
        let before = taken.len();
        let from = records::From { topic, partition: partition.partition, offset: position };
        let read = records::read(from, bytes, &mut self.decompressor, taken);
        // What came whole before damage is given; the next fetch begins with the damage.
        let given = taken.get(before..).and_then(|records| records.last());
        let after_given = given.map_or(position, |record| record.offset.saturating_add(1));
        self.positions.insert(partition, *read.as_ref().unwrap_or(&after_given));
        read.map(|_| ())
    }
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}
