//! A cluster as clients see it: which broker leads which partition, and a connection to each broker that is asked.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{FindCoordinatorRequest, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::{ClientError, Connection, ConnectionConfig};

/// Metadata 12 tells the topics' ids.
const METADATA_CEILING: i16 = 12;
const COORDINATOR_NOT_AVAILABLE: i16 = 15;
/// FindCoordinator 4 asks for several at once.
const FIND_COORDINATOR_OF_KEYS: i16 = 4;
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Asks again and again while the error is one that passes, until the deadline.
pub(super) fn ask_until<T>(
    deadline: Instant,
    passes: impl Fn(&ClientError) -> bool,
    mut ask: impl FnMut() -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    loop {
        match ask() {
            Err(error) if passes(&error) && Instant::now() < deadline => std::thread::sleep(RETRY_PAUSE),
            found => return found,
        }
    }
}

/// One partition of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number.
    pub index: i32,
    /// Node id of its leader, -1 when there is none.
    pub leader: i32,
}

/// Connections to a cluster and what it said about itself last.
#[derive(Debug)]
pub struct Cluster {
    bootstrap: Vec<String>,
    config: ConnectionConfig,
    connections: BTreeMap<i32, Connection>,
    seed: Option<Connection>,
    addresses: BTreeMap<i32, String>,
    controller: i32,
    topics: BTreeMap<String, Vec<Partition>>,
    /// How long to look for a topic or a leader.
    patience: Duration,
}

/// Splits `HOST:PORT,HOST:PORT`; the error says what is allowed.
pub fn parse_bootstrap(text: &str) -> Result<Vec<String>, ClientError> {
    let addresses: Vec<String> =
        text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(str::to_owned).collect();
    let sound = |address: &String| {
        address
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
    };
    if addresses.is_empty() || !addresses.iter().all(sound) {
        return Err(ClientError::Usage(format!(
            "'{text}' is not a list of brokers; allowed is HOST:PORT,HOST:PORT"
        )));
    }
    Ok(addresses)
}

impl Cluster {
    /// A cluster to be reached by these addresses; nothing is connected yet.
    pub fn new(bootstrap: Vec<String>, config: ConnectionConfig) -> Self {
        Self {
            bootstrap,
            config,
            connections: BTreeMap::new(),
            seed: None,
            addresses: BTreeMap::new(),
            controller: -1,
            topics: BTreeMap::new(),
            patience: Duration::from_secs(60),
        }
    }

    /// Sets how long to look for a topic or a leader; a minute unless set.
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Until when something is asked for that may come.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.patience
    }

    /// The partitions of a topic, by number, waiting until each has a leader; the broker may create the topic.
    pub fn partitions(&mut self, topic: &str, auto_create: bool) -> Result<Vec<Partition>, ClientError> {
        if let Some(known) = self.topics.get(topic) {
            return Ok(known.clone());
        }
        let deadline = self.deadline();
        loop {
            let found = self.refresh(topic, auto_create);
            match found {
                Ok(partitions) if partitions.iter().all(|partition| partition.leader >= 0) => {
                    return Ok(partitions);
                }
                Err(error) if !error.is_retriable() || Instant::now() >= deadline => return Err(error),
                Ok(_) if Instant::now() >= deadline => {
                    return Err(ClientError::Unavailable(format!(
                        "{topic} has a partition without a leader"
                    )));
                }
                _ => std::thread::sleep(RETRY_PAUSE),
            }
        }
    }

    /// Forgets what is known of a topic, so that the next look asks again.
    pub fn forget(&mut self, topic: &str) {
        self.topics.remove(topic);
    }

    /// The topics of the cluster, or those named, as the broker describes them.
    pub fn describe(
        &mut self,
        topics: Option<&[&str]>,
        auto_create: bool,
    ) -> Result<Vec<MetadataResponseTopic>, ClientError> {
        let topics = topics.map(|names| {
            names
                .iter()
                .map(|name| {
                    let name = TopicName(StrBytes::from_string((*name).to_owned()));
                    MetadataRequestTopic::default().with_name(Some(name))
                })
                .collect()
        });
        let request =
            MetadataRequest::default().with_topics(topics).with_allow_auto_topic_creation(auto_create);
        let response = self.ask_any(&request)?;
        self.controller = response.controller_id.0;
        self.addresses = response
            .brokers
            .iter()
            .map(|broker| (broker.node_id.0, join(broker.host.as_str(), broker.port)))
            .collect();
        Ok(response.topics)
    }

    /// A connection to the leader of a partition.
    pub fn leader(&mut self, topic: &str, partition: i32) -> Result<(i32, &mut Connection), ClientError> {
        let partitions = self.partitions(topic, true)?;
        let found = partitions.iter().find(|candidate| candidate.index == partition);
        let Some(found) = found else {
            return Err(ClientError::Usage(format!("{topic} has no partition {partition}")));
        };
        let node = found.leader;
        Ok((node, self.node(node)?))
    }

    /// A connection to the controller, or to any broker where there is none.
    pub fn controller(&mut self) -> Result<&mut Connection, ClientError> {
        if self.controller < 0 || !self.addresses.contains_key(&self.controller) {
            self.describe(Some(&[]), false)?;
        }
        let node = self.controller;
        let any = self.addresses.keys().next().copied();
        match self.addresses.contains_key(&node).then_some(node).or(any) {
            Some(node) => self.node(node),
            None => Err(ClientError::Unavailable("the cluster names no broker".to_owned())),
        }
    }

    /// A connection to any broker that can be reached.
    pub fn any(&mut self) -> Result<&mut Connection, ClientError> {
        if self.addresses.is_empty() {
            self.describe(Some(&[]), false)?;
        }
        let open = self.connections.keys().next().copied();
        let all: Vec<i32> = open.into_iter().chain(self.addresses.keys().copied()).collect();
        let mut last = ClientError::Unavailable("the cluster names no broker".to_owned());
        for node in all {
            match self.node(node) {
                // The compiler does not see that an error ends the borrow.
                Ok(_) => return self.node(node),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The node ids of the brokers, sorted.
    pub fn node_ids(&mut self) -> Result<Vec<i32>, ClientError> {
        self.describe(Some(&[]), false)?;
        Ok(self.addresses.keys().copied().collect())
    }

    /// `host:port` of a broker, or nothing when it is not known.
    pub fn address(&self, node: i32) -> String {
        self.addresses.get(&node).cloned().unwrap_or_default()
    }

    /// A connection to a broker by its number, which is looked for when it is not known.
    pub fn known_node(&mut self, node: i32) -> Result<&mut Connection, ClientError> {
        if !self.addresses.contains_key(&node) {
            self.describe(Some(&[]), false)?;
        }
        self.node(node)
    }

    /// Node id of a group's coordinator, asked for until there is one, as long as `patience`.
    pub fn find_coordinator(&mut self, group: &str, patience: Duration) -> Result<i32, ClientError> {
        let deadline = Instant::now() + patience;
        ask_until(deadline, ClientError::is_about_the_coordinator, || self.ask_for_coordinator(group))
    }

    fn ask_for_coordinator(&mut self, group: &str) -> Result<i32, ClientError> {
        let connection = self.any()?;
        let version = connection.version::<FindCoordinatorRequest>(i16::MAX)?;
        let key = StrBytes::from_string(group.to_owned());
        let request = if version >= FIND_COORDINATOR_OF_KEYS {
            FindCoordinatorRequest::default().with_coordinator_keys(vec![key])
        } else {
            FindCoordinatorRequest::default().with_key(key)
        };
        let ticket = connection.send(&request, version)?;
        let response = connection.receive(ticket)?;
        let (node, host, port, code, message) = match response.coordinators.first() {
            Some(one) => (one.node_id.0, one.host.as_str(), one.port, one.error_code, &one.error_message),
            None if version < FIND_COORDINATOR_OF_KEYS => {
                let message = &response.error_message;
                (response.node_id.0, response.host.as_str(), response.port, response.error_code, message)
            }
            None => (-1, "", -1, COORDINATOR_NOT_AVAILABLE, &None),
        };
        ClientError::check(group, code, message.as_deref())?;
        self.addresses.insert(node, join(host, port));
        Ok(node)
    }

    /// A connection to a broker by its number.
    pub fn node(&mut self, node: i32) -> Result<&mut Connection, ClientError> {
        let open = match self.connections.remove(&node) {
            Some(open) => open,
            None => {
                let address = self.addresses.get(&node).ok_or_else(|| {
                    ClientError::Unavailable(format!("broker {node} is not among those of the cluster"))
                })?;
                Connection::open(address, &self.config)?
            }
        };
        Ok(self.connections.entry(node).or_insert(open))
    }

    /// Closes the connection to a broker; the next use opens another.
    pub fn close(&mut self, node: i32) {
        self.connections.remove(&node);
    }

    fn refresh(&mut self, topic: &str, auto_create: bool) -> Result<Vec<Partition>, ClientError> {
        let described = self.describe(Some(&[topic]), auto_create)?;
        let named =
            |found: &MetadataResponseTopic| found.name.as_ref().is_some_and(|name| name.0.as_str() == topic);
        let found = described
            .into_iter()
            .find(named)
            .ok_or_else(|| ClientError::Unavailable(format!("the cluster said nothing about {topic}")))?;
        ClientError::check(topic, found.error_code, None)?;
        let mut partitions: Vec<Partition> = found
            .partitions
            .iter()
            .map(|one| Partition { index: one.partition_index, leader: one.leader_id.0 })
            .collect();
        partitions.sort_unstable_by_key(|partition| partition.index);
        if partitions.is_empty() {
            return Err(ClientError::Unavailable(format!("{topic} has no partitions")));
        }
        if partitions.iter().all(|partition| partition.leader >= 0) {
            self.topics.insert(topic.to_owned(), partitions.clone());
        }
        Ok(partitions)
    }

    /// Asks the broker that answered last, or the next that can be reached.
    fn ask_any(&mut self, request: &MetadataRequest) -> Result<MetadataResponse, ClientError> {
        if let Some(mut seed) = self.seed.take() {
            match seed.call(request, METADATA_CEILING) {
                Ok(response) => {
                    self.seed = Some(seed);
                    return Ok(response);
                }
                Err(error) if !error.is_fatal_to_connection() => return Err(error),
                Err(_) => {}
            }
        }
        let mut last = ClientError::Unavailable("there is no broker to ask".to_owned());
        let known: Vec<String> = self.addresses.values().cloned().collect();
        for address in self.bootstrap.iter().chain(&known) {
            let asked = Connection::open(address, &self.config)
                .and_then(|mut seed| seed.call(request, METADATA_CEILING).map(|response| (seed, response)));
            match asked {
                Ok((seed, response)) => {
                    self.seed = Some(seed);
                    return Ok(response);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

fn join(host: &str, port: i32) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_host_and_port() {
        assert_eq!(parse_bootstrap("a:1, [::1]:2").unwrap(), ["a:1", "[::1]:2"]);
        for text in ["", "a", "a:", ":1", "a:0", "a:70000", "a:1,b"] {
            assert!(parse_bootstrap(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ipv6_hosts_get_brackets() {
        assert_eq!((join("h", 1), join("::1", 2)), ("h:1".to_owned(), "[::1]:2".to_owned()));
    }
}
