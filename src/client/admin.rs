//! Topics made, extended, deleted and listed.

use std::time::Duration;

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::{ClientError, Cluster};

/// A topic to be made.
#[derive(Clone, Debug)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; -1 is the broker's default.
    pub partitions: i32,
    /// How many replicas; -1 is the broker's default.
    pub replication_factor: i16,
    /// Values of its own.
    pub configs: Vec<(String, String)>,
}

/// A topic as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSummary {
    /// Its name.
    pub name: String,
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
        let wanted = CreatableTopic::default()
            .with_name(TopicName(text(&topic.name)))
            .with_num_partitions(topic.partitions)
            .with_replication_factor(topic.replication_factor)
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

    /// Gives one topic more partitions: `partitions` in all.
    pub fn create_partitions(&mut self, name: &str, partitions: i32) -> Result<(), ClientError> {
        let wanted = CreatePartitionsTopic::default()
            .with_name(TopicName(text(name)))
            .with_count(partitions)
            .with_assignments(None);
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
                    partitions: topic.partitions.len(),
                    is_internal: topic.is_internal,
                })
            })
            .collect();
        topics.sort_unstable_by(|left, right| left.name.cmp(&right.name));
        Ok(topics)
    }

    fn timeout_ms(&self) -> i32 {
        i32::try_from(self.timeout.as_millis()).unwrap_or(i32::MAX)
    }
}

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

fn unanswered(topic: &str) -> ClientError {
    ClientError::Unavailable(format!("the controller said nothing about {topic}"))
}
