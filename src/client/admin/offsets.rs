//! Offsets of partitions, asked of their leaders, and records deleted up to an offset.

use std::collections::BTreeMap;

use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, DeleteRecordsRequest, ListOffsetsRequest, TopicName};

use super::{Admin, text};
use crate::client::{ClientError, TopicPartition};

/// What is asked of each leader.
type ByLeader = BTreeMap<i32, Vec<(TopicPartition, i64)>>;

/// What became of each partition.
pub type PartitionResults = BTreeMap<TopicPartition, Result<i64, ClientError>>;

impl Admin {
    /// The offset of each partition for a timestamp: the first record that is not older, or -1; -1 asks for the
    /// log end, -2 for the log start, -3 for the record of the largest timestamp, -4 for the local log start,
    /// -5 for the last offset in remote storage, -6 for the first that is still to go there.
    pub fn list_offsets(
        &mut self,
        wanted: &[(TopicPartition, i64)],
    ) -> Result<PartitionResults, ClientError> {
        let ceiling = i16::MAX;
        let mut results = PartitionResults::new();
        for (node, wanted) in self.by_leader(wanted.iter().cloned(), &mut results)? {
            let mut topics: BTreeMap<String, Vec<ListOffsetsPartition>> = BTreeMap::new();
            for (key, timestamp_ms) in &wanted {
                topics.entry(key.topic.clone()).or_default().push(
                    ListOffsetsPartition::default()
                        .with_partition_index(key.partition)
                        .with_current_leader_epoch(-1)
                        .with_timestamp(*timestamp_ms),
                );
            }
            let topics = topics.into_iter().map(|(name, partitions)| {
                ListOffsetsTopic::default().with_name(TopicName(text(&name))).with_partitions(partitions)
            });
            let connection = self.cluster.node(node)?;
            let version = connection.version::<ListOffsetsRequest>(ceiling)?;
            let mut request =
                ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(topics.collect());
            if version >= 10 {
                request = request.with_timeout_ms(super::milliseconds(self.timeout));
            }
            let ticket = connection.send(&request, version)?;
            let response = connection.receive(ticket)?;
            for topic in &response.topics {
                for one in &topic.partitions {
                    let key = TopicPartition::new(topic.name.0.as_str(), one.partition_index);
                    let result = ClientError::check(&key.to_string(), one.error_code, None);
                    results.insert(key, result.map(|()| one.offset));
                }
            }
        }
        Ok(results)
    }

    /// Deletes the records before each offset (-1: before the high watermark): the log start of each partition.
    pub fn delete_records(
        &mut self,
        wanted: &[(TopicPartition, i64)],
    ) -> Result<PartitionResults, ClientError> {
        let mut results = PartitionResults::new();
        for (node, wanted) in self.by_leader(wanted.iter().cloned(), &mut results)? {
            let mut topics: BTreeMap<String, Vec<DeleteRecordsPartition>> = BTreeMap::new();
            for (key, offset) in &wanted {
                let partition = DeleteRecordsPartition::default()
                    .with_partition_index(key.partition)
                    .with_offset(*offset);
                topics.entry(key.topic.clone()).or_default().push(partition);
            }
            let topics = topics.into_iter().map(|(name, partitions)| {
                DeleteRecordsTopic::default().with_name(TopicName(text(&name))).with_partitions(partitions)
            });
            let request = DeleteRecordsRequest::default()
                .with_topics(topics.collect())
                .with_timeout_ms(super::milliseconds(self.timeout));
            let response = self.cluster.node(node)?.call(&request, i16::MAX)?;
            for topic in &response.topics {
                for one in &topic.partitions {
                    let key = TopicPartition::new(topic.name.0.as_str(), one.partition_index);
                    let result = ClientError::check(&key.to_string(), one.error_code, None);
                    results.insert(key, result.map(|()| one.low_watermark));
                }
            }
        }
        Ok(results)
    }

    /// Sorts what is asked for by the leader that knows it; what has none is a result already.
    fn by_leader(
        &mut self,
        wanted: impl Iterator<Item = (TopicPartition, i64)>,
        results: &mut PartitionResults,
    ) -> Result<ByLeader, ClientError> {
        let wanted: Vec<(TopicPartition, i64)> = wanted.collect();
        let mut names: Vec<&str> = wanted.iter().map(|(key, _)| key.topic.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let mut leaders: BTreeMap<TopicPartition, i32> = BTreeMap::new();
        for topic in self.cluster.describe(Some(&names), false)? {
            let Some(name) = topic.name else { continue };
            for one in &topic.partitions {
                leaders.insert(TopicPartition::new(name.0.as_str(), one.partition_index), one.leader_id.0);
            }
        }
        let mut sorted = ByLeader::new();
        for (key, number) in wanted {
            let subject = key.to_string();
            match leaders.get(&key) {
                Some(leader) if *leader >= 0 => sorted.entry(*leader).or_default().push((key, number)),
                Some(_) => {
                    results.insert(key, Err(ClientError::from_code(&subject, LEADER_NOT_AVAILABLE)));
                }
                None => {
                    results.insert(key, Err(ClientError::from_code(&subject, UNKNOWN_TOPIC_OR_PARTITION)));
                }
            }
        }
        Ok(sorted)
    }
}

const LEADER_NOT_AVAILABLE: i16 = 5;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
