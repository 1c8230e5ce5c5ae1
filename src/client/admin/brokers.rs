//! The cluster's brokers, and what lies in their log directories.

use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::{
    BrokerId, DescribeClusterRequest, DescribeLogDirsRequest, TopicName, UnregisterBrokerRequest,
};

use super::{Admin, text};
use crate::client::{ClientError, TopicPartition};

/// A cluster and its brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDescription {
    /// The id that it was formatted with.
    pub id: String,
    /// Node id of the broker to send changes to, -1 when there is none.
    pub controller: i32,
    /// The brokers, by node id.
    pub brokers: Vec<BrokerDescription>,
}

/// A broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerDescription {
    /// Its node id.
    pub id: i32,
    /// Name or address for clients.
    pub host: String,
    /// Port for clients.
    pub port: i32,
    /// `broker.rack`
    pub rack: Option<String>,
    /// Whether it is registered and does not take part; unknown to brokers before 4.0.
    pub is_fenced: Option<bool>,
}

/// A log directory of a broker.
#[derive(Debug)]
pub struct LogDirDescription {
    /// Its path.
    pub path: String,
    /// Kafka's code of what is wrong with it, 0 for nothing.
    pub error_code: i16,
    /// Size of the file system, -1 when it is not told.
    pub total_bytes: i64,
    /// What is free of it, -1 when it is not told.
    pub usable_bytes: i64,
    /// The replicas, sorted: size in bytes, offsets behind, and whether it is being moved here.
    pub replicas: Vec<(TopicPartition, i64, i64, bool)>,
}

impl Admin {
    /// The cluster's id and brokers, with fenced ones where the broker can tell.
    pub fn describe_cluster(&mut self, with_fenced: bool) -> Result<ClusterDescription, ClientError> {
        let connection = self.cluster.any()?;
        let version = connection.version::<DescribeClusterRequest>(i16::MAX)?;
        if with_fenced && version < 2 {
            return Err(ClientError::Usage("The broker cannot tell which brokers are fenced.".to_owned()));
        }
        let mut request = DescribeClusterRequest::default();
        if version >= 1 {
            request = request.with_endpoint_type(1);
        }
        if version >= 2 {
            request = request.with_include_fenced_brokers(with_fenced);
        }
        let ticket = connection.send(&request, version)?;
        let response = connection.receive(ticket)?;
        ClientError::check("the cluster", response.error_code, response.error_message.as_deref())?;
        let mut brokers: Vec<BrokerDescription> = response
            .brokers
            .iter()
            .map(|broker| BrokerDescription {
                id: broker.broker_id.0,
                host: broker.host.as_str().to_owned(),
                port: broker.port,
                rack: broker.rack.as_ref().map(|rack| rack.as_str().to_owned()),
                is_fenced: (version >= 2).then_some(broker.is_fenced),
            })
            .collect();
        brokers.sort_unstable_by_key(|broker| broker.id);
        let id = response.cluster_id.as_str().to_owned();
        Ok(ClusterDescription { id, controller: response.controller_id.0, brokers })
    }

    /// The log directories of a broker with the replicas of these topics, or of all.
    pub fn describe_log_dirs(
        &mut self,
        node: i32,
        topics: Option<&[TopicPartition]>,
    ) -> Result<Vec<LogDirDescription>, ClientError> {
        let topics = topics.map(|all| {
            let one = |key: &TopicPartition| {
                DescribableLogDirTopic::default()
                    .with_topic(TopicName(text(&key.topic)))
                    .with_partitions(vec![key.partition])
            };
            all.iter().map(one).collect()
        });
        let request = DescribeLogDirsRequest::default().with_topics(topics);
        let response = self.cluster.known_node(node)?.call(&request, i16::MAX)?;
        ClientError::check(&format!("broker {node}"), response.error_code, None)?;
        let mut found: Vec<LogDirDescription> = response
            .results
            .iter()
            .map(|directory| {
                let mut replicas: Vec<_> = directory
                    .topics
                    .iter()
                    .flat_map(|topic| topic.partitions.iter().map(|one| (topic.name.0.as_str(), one)))
                    .map(|(name, one)| {
                        let key = TopicPartition::new(name, one.partition_index);
                        (key, one.partition_size, one.offset_lag, one.is_future_key)
                    })
                    .collect();
                replicas.sort_unstable();
                LogDirDescription {
                    path: directory.log_dir.as_str().to_owned(),
                    error_code: directory.error_code,
                    total_bytes: directory.total_bytes,
                    usable_bytes: directory.usable_bytes,
                    replicas,
                }
            })
            .collect();
        found.sort_unstable_by(|left, right| left.path.cmp(&right.path));
        Ok(found)
    }

    /// Makes the cluster forget a broker that is gone for good.
    pub fn unregister_broker(&mut self, node: i32) -> Result<(), ClientError> {
        let request = UnregisterBrokerRequest::default().with_broker_id(BrokerId(node));
        let response = self.cluster.controller()?.call(&request, i16::MAX)?;
        ClientError::check(&format!("broker {node}"), response.error_code, response.error_message.as_deref())
    }
}
