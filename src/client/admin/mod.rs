//! What administrators ask of a cluster: topics made, extended, deleted and listed here; the rest in files of its own.

mod brokers;
mod configs;
pub(super) mod groups;
mod offsets;
mod topics;

use std::time::Duration;

use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::{
    BrokerId, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{ClientError, Cluster};

pub use brokers::{BrokerDescription, ClusterDescription, LogDirDescription};
pub use configs::{ConfigChange, ConfigEntry, ConfigResourceType, ConfigSource};
pub use groups::{CommittedOffset, GroupDescription, GroupListing, GroupMemberDescription};
pub use offsets::PartitionResults;
pub use topics::{PartitionDescription, TopicDescription};

/// A topic to be made.
#[derive(Clone, Debug, Default)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; -1 is the broker's default.
    pub partitions: i32,
    /// How many replicas; -1 is the broker's default.
    pub replication_factor: i16,
    /// Values of its own.
    pub configs: Vec<(String, String)>,
    /// The replicas of each partition; where it is given, the two numbers above are -1.
    pub assignment: Vec<Vec<i32>>,
}

/// A topic as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSummary {
    /// Its name.
    pub name: String,
    /// Its id; nil where the broker has none.
    pub id: Uuid,
    /// How many partitions it has.
    pub partitions: usize,
    /// Whether it is one of the broker's own.
    pub is_internal: bool,
}

/// Makes, extends and deletes topics.
#[derive(Debug)]
pub struct Admin {
    cluster: Cluster,
    timeout: Duration,
}

impl Admin {
    /// An admin of a cluster; each call waits up to `timeout` for the cluster to carry it out.
    pub fn new(cluster: Cluster, timeout: Duration) -> Self {
        Self { cluster, timeout }
    }

    /// Makes one topic.
    pub fn create_topic(&mut self, topic: &NewTopic) -> Result<(), ClientError> {
        let configs = topic
            .configs
            .iter()
            .map(|(name, value)| {
                CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
            })
            .collect();
        let assignments = (0..).zip(&topic.assignment).map(|(index, replicas)| {
            CreatableReplicaAssignment::default().with_partition_index(index).with_broker_ids(nodes(replicas))
        });
        let wanted = CreatableTopic::default()
            .with_name(TopicName(text(&topic.name)))
            .with_num_partitions(topic.partitions)
            .with_replication_factor(topic.replication_factor)
            .with_assignments(assignments.collect())
            .with_configs(configs);
        let request =
            CreateTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(self.timeout_ms());
        let response = self.cluster.controller()?.call(&request, i16::MAX)?;
        let found = response.topics.iter().find(|result| result.name.0.as_str() == topic.name);
        let Some(found) = found else { return Err(unanswered(&topic.name)) };
        ClientError::check(&topic.name, found.error_code, found.error_message.as_deref())
    }

    /// Deletes one topic.
    pub fn delete_topic(&mut self, name: &str) -> Result<(), ClientError> {
        self.delete_topics(&[name])?.pop().unwrap_or_else(|| Err(unanswered(name)))
    }

    /// Removes topics with one request; what became of each, in order.
    pub fn delete_topics(&mut self, names: &[&str]) -> Result<Vec<Result<(), ClientError>>, ClientError> {
        let connection = self.cluster.controller()?;
        let version = connection.version::<DeleteTopicsRequest>(i16::MAX)?;
        let request = DeleteTopicsRequest::default();
        let topics = names.iter().map(|name| TopicName(text(name)));
        // From version 6 on a topic may be named by id, which moved the name.
        let request = if version >= 6 {
            let state = |name| DeleteTopicState::default().with_name(Some(name));
            request.with_topics(topics.map(state).collect())
        } else {
            request.with_topic_names(topics.collect())
        };
        let timeout_ms = self.timeout_ms();
        let connection = self.cluster.controller()?;
        let ticket = connection.send(&request.with_timeout_ms(timeout_ms), version)?;
        let response = connection.receive(ticket)?;
        let fate = |name: &&str| {
            let named =
                |found: &Option<TopicName>| found.as_ref().is_some_and(|found| found.0.as_str() == *name);
            let found = response.responses.iter().find(|result| named(&result.name));
            let found = found.ok_or_else(|| unanswered(name))?;
            self.cluster.forget(name);
            ClientError::check(name, found.error_code, found.error_message.as_deref())
        };
        Ok(names.iter().map(fate).collect())
    }

    /// Gives one topic more partitions: `partitions` in all, the new ones on these replicas where they are given.
    pub fn create_partitions(
        &mut self,
        name: &str,
        partitions: i32,
        assignment: Option<&[Vec<i32>]>,
    ) -> Result<(), ClientError> {
        let assignment = assignment.map(|all| {
            let one =
                |replicas: &Vec<i32>| CreatePartitionsAssignment::default().with_broker_ids(nodes(replicas));
            all.iter().map(one).collect()
        });
        let wanted = CreatePartitionsTopic::default()
            .with_name(TopicName(text(name)))
            .with_count(partitions)
            .with_assignments(assignment);
        let request =
            CreatePartitionsRequest::default().with_topics(vec![wanted]).with_timeout_ms(self.timeout_ms());
        let response = self.cluster.controller()?.call(&request, i16::MAX)?;
        let found = response.results.iter().find(|result| result.name.0.as_str() == name);
        let Some(found) = found else { return Err(unanswered(name)) };
        self.cluster.forget(name);
        ClientError::check(name, found.error_code, found.error_message.as_deref())
    }

    /// Every topic of the cluster, by name.
    pub fn list_topics(&mut self) -> Result<Vec<TopicSummary>, ClientError> {
        let described = self.cluster.describe(None, false)?;
        let mut topics: Vec<TopicSummary> = described
            .into_iter()
            .filter_map(|topic| {
                let name = topic.name?.0.as_str().to_owned();
                Some(TopicSummary {
                    name,
                    id: topic.topic_id,
                    partitions: topic.partitions.len(),
                    is_internal: topic.is_internal,
                })
            })
            .collect();
        topics.sort_unstable_by(|left, right| left.name.cmp(&right.name));
        Ok(topics)
    }

    /// The same with another time for each call.
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The cluster that it asks.
    pub fn cluster(&mut self) -> &mut Cluster {
        &mut self.cluster
    }

    fn timeout_ms(&self) -> i32 {
        milliseconds(self.timeout)
    }
}

fn milliseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

fn nodes(replicas: &[i32]) -> Vec<BrokerId> {
    replicas.iter().map(|node| BrokerId(*node)).collect()
}

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

fn unanswered(subject: &str) -> ClientError {
    ClientError::Unavailable(format!("the broker said nothing about {subject}"))
}
