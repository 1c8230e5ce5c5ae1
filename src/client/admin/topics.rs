//! Topics described with the state of each partition.

use kafka_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use kafka_protocol::messages::{BrokerId, DescribeTopicPartitionsRequest, TopicName};
use uuid::Uuid;

use super::{Admin, text};
use crate::client::ClientError;

/// A topic with its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Its id; nil where the broker has none.
    pub id: Uuid,
    /// Whether it is one of the broker's own.
    pub is_internal: bool,
    /// The partitions, by number.
    pub partitions: Vec<PartitionDescription>,
}

/// The state of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionDescription {
    /// Its number.
    pub index: i32,
    /// Node id of its leader, if it has one.
    pub leader: Option<i32>,
    /// Epoch of the leader.
    pub leader_epoch: i32,
    /// Node ids of its replicas, the preferred leader first.
    pub replicas: Vec<i32>,
    /// Node ids of the in-sync replicas.
    pub isr: Vec<i32>,
    /// Node ids of replicas whose broker or directory is gone.
    pub offline: Vec<i32>,
    /// Eligible leader replicas and the last that were known, where the broker tells.
    pub elr: Option<(Vec<i32>, Vec<i32>)>,
}

impl Admin {
    /// Topics by name, with the state of their partitions; the first that is not there is an error.
    pub fn describe_topics(
        &mut self,
        names: &[String],
        partitions_a_response: i32,
    ) -> Result<Vec<TopicDescription>, ClientError> {
        let connection = self.cluster.any()?;
        let newer = match connection.version::<DescribeTopicPartitionsRequest>(i16::MAX) {
            _ if names.is_empty() => return Ok(Vec::new()),
            Ok(_) => true,
            Err(ClientError::NoVersion { .. }) => false,
            Err(error) => return Err(error),
        };
        let mut found = if newer {
            self.describe_by_pages(names, partitions_a_response)?
        } else {
            self.describe_by_metadata(names)?
        };
        for topic in &mut found {
            topic.partitions.sort_unstable_by_key(|partition| partition.index);
        }
        found.sort_unstable_by(|left, right| left.name.cmp(&right.name));
        Ok(found)
    }

    fn describe_by_pages(
        &mut self,
        names: &[String],
        partitions_a_response: i32,
    ) -> Result<Vec<TopicDescription>, ClientError> {
        let mut sorted: Vec<&String> = names.iter().collect();
        sorted.sort_unstable();
        let mut found: Vec<TopicDescription> = Vec::new();
        let mut cursor: Option<Cursor> = None;
        loop {
            let from = cursor.as_ref().map_or("", |cursor| cursor.topic_name.0.as_str());
            let topics = sorted.iter().filter(|name| name.as_str() >= from);
            let topics =
                topics.map(|name| TopicRequest::default().with_name(TopicName(text(name)))).collect();
            let request = DescribeTopicPartitionsRequest::default()
                .with_topics(topics)
                .with_response_partition_limit(partitions_a_response)
                .with_cursor(cursor.clone());
            let response = self.cluster.any()?.call(&request, i16::MAX)?;
            for topic in response.topics {
                let Some(name) = topic.name.map(|name| name.0.as_str().to_owned()) else { continue };
                ClientError::check(&name, topic.error_code, None)?;
                let partitions = topic.partitions.iter().map(|one| PartitionDescription {
                    index: one.partition_index,
                    leader: (one.leader_id.0 >= 0).then_some(one.leader_id.0),
                    leader_epoch: one.leader_epoch,
                    replicas: numbers(&one.replica_nodes),
                    isr: numbers(&one.isr_nodes),
                    offline: numbers(&one.offline_replicas),
                    elr: Some((
                        numbers(one.eligible_leader_replicas.as_deref().unwrap_or_default()),
                        numbers(one.last_known_elr.as_deref().unwrap_or_default()),
                    )),
                });
                match found.last_mut().filter(|last| last.name == name) {
                    // A topic goes on where the last page ended.
                    Some(last) => last.partitions.extend(partitions),
                    None => found.push(TopicDescription {
                        id: topic.topic_id,
                        is_internal: topic.is_internal,
                        partitions: partitions.collect(),
                        name,
                    }),
                }
            }
            let Some(next) = response.next_cursor else { return Ok(found) };
            let position = (next.topic_name.0.as_str(), next.partition_index);
            let before = cursor.as_ref().map(|last| (last.topic_name.0.as_str(), last.partition_index));
            if before.is_some_and(|before| position <= before) {
                return Err(ClientError::Unavailable(
                    "the broker's pages of topics do not advance".to_owned(),
                ));
            }
            cursor = Some(
                Cursor::default()
                    .with_topic_name(next.topic_name.clone())
                    .with_partition_index(next.partition_index),
            );
        }
    }

    fn describe_by_metadata(&mut self, names: &[String]) -> Result<Vec<TopicDescription>, ClientError> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut found = Vec::new();
        for topic in self.cluster.describe(Some(&names), false)? {
            let Some(name) = topic.name.map(|name| name.0.as_str().to_owned()) else { continue };
            ClientError::check(&name, topic.error_code, None)?;
            let partitions = topic.partitions.iter().map(|one| PartitionDescription {
                index: one.partition_index,
                leader: (one.leader_id.0 >= 0).then_some(one.leader_id.0),
                leader_epoch: one.leader_epoch,
                replicas: numbers(&one.replica_nodes),
                isr: numbers(&one.isr_nodes),
                offline: numbers(&one.offline_replicas),
                elr: None,
            });
            found.push(TopicDescription {
                id: topic.topic_id,
                is_internal: topic.is_internal,
                partitions: partitions.collect(),
                name,
            });
        }
        Ok(found)
    }
}

fn numbers(nodes: &[BrokerId]) -> Vec<i32> {
    nodes.iter().map(|node| node.0).collect()
}
