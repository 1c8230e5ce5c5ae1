//! Several nodes of one cluster as processes: each a broker and a controller, with a directory and ports of its own.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU16, Ordering};

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::metadata_response::MetadataResponsePartition;
use kafka_protocol::messages::{CreateTopicsRequest, MetadataRequest};
use kafka_protocol::protocol::StrBytes;
use tidemill::client::{ClientError, Connection, ConnectionConfig};

use crate::process::{Broker, Home, PATIENCE, until};
use crate::wire::{PRODUCE_VERSION, batch, describe, name, produce_request, read_all};

pub const CLUSTER: &str = "I7rxdXZqRmy5B4yDWBDDkw";
/// A quick session, so that a broker that is silent is not waited for long.
pub const QUICK: [&str; 2] = ["broker.session.timeout.ms=3000", "broker.heartbeat.interval.ms=300"];
const DIRECTORIES: [&str; 3] = ["JEXY6aqzQY-32P5TStzaFg", "MvDxzVmcRsaTz33bUuRU6A", "07R5amHmR32VDA6jHkGbTA"];
/// Below the ports that outgoing connections are given: one of those could be the port of a node that is down.
const PORTS: std::ops::Range<u16> = 10_000..30_000;

/// A cluster of three.
pub struct Nodes {
    pub homes: Vec<Home>,
    /// Those that run, by node id.
    pub running: BTreeMap<i32, Broker>,
    pub controllers: Vec<u16>,
}

/// A port that nobody listens on; each is given out once in this process.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let span = PORTS.end - PORTS.start;
    let first = u16::try_from(std::process::id() % 199 * 100).unwrap();
    loop {
        let offset = (first + NEXT.fetch_add(1, Ordering::Relaxed)) % span;
        if TcpListener::bind(("127.0.0.1", PORTS.start + offset)).is_ok() {
            return PORTS.start + offset;
        }
    }
}

/// What every node of a cluster is told beside its own.
pub fn bootstrap(controllers: &[u16]) -> String {
    let addresses: Vec<String> = controllers.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    format!("controller.quorum.bootstrap.servers={}", addresses.join(","))
}

/// Formats the directory of a node; what was said, and whether it was done.
pub fn format(home: &Home, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.current_dir(home.path()).arg("format").args(arguments);
    for one in &home.overrides {
        command.args(["--override", one]);
    }
    command.output().unwrap()
}

impl Nodes {
    /// Three nodes with the ids 1 to 3, formatted and started.
    pub fn start(overrides: &[&str]) -> Self {
        let mut nodes = Self::formatted(overrides);
        nodes.start_missing();
        nodes
    }

    /// Three nodes, formatted.
    pub fn formatted(overrides: &[&str]) -> Self {
        let controllers: Vec<u16> = (0..3).map(|_| free_port()).collect();
        let voters: Vec<String> = (1..)
            .zip(&controllers)
            .zip(DIRECTORIES)
            .map(|((id, port), directory)| format!("{id}@127.0.0.1:{port}:{directory}"))
            .collect();
        let mut homes = Vec::new();
        for (id, controller) in (1..).zip(&controllers) {
            let mut home = Home::new(overrides);
            home.overrides.extend([
                format!("node.id={id}"),
                format!(
                    "listeners=PLAINTEXT://127.0.0.1:{},CONTROLLER://127.0.0.1:{controller}",
                    free_port()
                ),
                "controller.listener.names=CONTROLLER".to_owned(),
                bootstrap(&controllers),
            ]);
            let done = format(&home, &["-t", CLUSTER, "-I", &voters.join(",")]);
            assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
            homes.push(home);
        }
        Self { homes, running: BTreeMap::new(), controllers }
    }

    /// Starts those that do not run, all at once: the first ones wait for a quorum. Returns when every broker of the
    /// cluster knows that all of them serve.
    pub fn start_missing(&mut self) {
        let missing: Vec<i32> =
            (1..).take(self.homes.len()).filter(|id| !self.running.contains_key(id)).collect();
        let started = std::thread::scope(|scope| {
            let homes = &self.homes;
            let threads: Vec<_> = missing
                .iter()
                .map(|id| scope.spawn(move || (*id, homes[*id as usize - 1].start())))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        self.running.extend(started);
        self.await_brokers();
    }

    /// Waits until every running broker knows exactly the running ones.
    pub fn await_brokers(&self) {
        let wanted: Vec<i32> = self.running.keys().copied().collect();
        for broker in self.running.values() {
            until("every broker knows all of them", || {
                let mut connection = open(broker).map_err(|error| error.to_string())?;
                let none = MetadataRequest::default().with_topics(Some(Vec::new()));
                let told = connection.call(&none, i16::MAX).map_err(|error| error.to_string())?;
                let mut known: Vec<i32> = told.brokers.iter().map(|broker| broker.node_id.0).collect();
                known.sort_unstable();
                if known == wanted { Ok(()) } else { Err(format!("{}: {known:?}", broker.address)) }
            });
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self, id: i32) {
        self.running.remove(&id).unwrap().kill();
    }

    /// SIGTERM, and the exit code.
    pub fn stop(&mut self, id: i32) -> Option<i32> {
        self.running.remove(&id).unwrap().stop()
    }

    /// A connection to a running node.
    pub fn connect(&self, id: i32) -> Connection {
        open(&self.running[&id]).unwrap()
    }

    /// Creates a topic on three brokers.
    pub fn create(&self, topic: &str, partitions: i32, configs: &[(&str, &str)]) {
        let text = |value: &str| StrBytes::from_string(value.to_owned());
        let config = |(key, value): &(&str, &str)| {
            CreatableTopicConfig::default().with_name(text(key)).with_value(Some(text(value)))
        };
        let wanted = CreatableTopic::default()
            .with_name(name(topic))
            .with_num_partitions(partitions)
            .with_replication_factor(3)
            .with_configs(configs.iter().map(config).collect());
        let request = CreateTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(30_000);
        let id = *self.running.keys().next().unwrap();
        let answer = self.connect(id).call(&request, i16::MAX).unwrap().topics[0].clone();
        assert_eq!(answer.error_code, 0, "{topic} is created: {:?}", answer.error_message);
    }

    /// What a node says of a topic's partitions, by number.
    pub fn described(&self, id: i32, topic: &str) -> Vec<MetadataResponsePartition> {
        let told = describe(&mut self.connect(id), &[topic]).topics[0].clone();
        let mut partitions = told.partitions;
        partitions.sort_by_key(|partition| partition.partition_index);
        partitions
    }

    /// Waits until every node says the same of a topic and `holds` of each partition; what they say.
    pub fn agree(
        &self,
        topic: &str,
        holds: impl Fn(&MetadataResponsePartition) -> bool,
    ) -> Vec<MetadataResponsePartition> {
        until("every node says the same", || {
            let all: Vec<_> = self.running.keys().map(|id| (*id, self.described(*id, topic))).collect();
            let first = all[0].1.clone();
            let sound = !first.is_empty() && first.iter().all(&holds);
            if sound && all.iter().all(|(_, said)| *said == first) { Ok(first) } else { Err(all) }
        })
    }

    /// Waits until a topic's replicas are all in sync, and every running node says so.
    pub fn await_in_sync(&self, topic: &str) -> Vec<MetadataResponsePartition> {
        let count = self.homes.len();
        self.agree(topic, |partition| partition.isr_nodes.len() == count && partition.leader_id.0 > 0)
    }

    /// The leader of a partition, as soon as one that runs is known.
    pub fn leader(&self, topic: &str, partition: i32) -> i32 {
        until("the partition has a leader that runs", || {
            let id = *self.running.keys().next().unwrap();
            let leader = self.described(id, topic).get(partition as usize).map_or(-1, |one| one.leader_id.0);
            if self.running.contains_key(&leader) { Ok(leader) } else { Err(leader) }
        })
    }

    /// Appends with acks=all at whoever leads, as clients do: again after what passes. The base offset.
    pub fn append(&self, topic: &str, partition: i32, value: &[u8]) -> i64 {
        until("a leader takes a batch", || {
            let leader = self.leader(topic, partition);
            let request = produce_request(topic, -1, vec![(partition, batch(&[value]))]);
            let mut connection = open(&self.running[&leader]).map_err(|error| error.to_string())?;
            let answer = connection.call(&request, PRODUCE_VERSION).map_err(|error| error.to_string())?;
            let answer = &answer.responses[0].partition_responses[0];
            if answer.error_code == 0 { Ok(answer.base_offset) } else { Err(format!("{answer:?}")) }
        })
    }

    /// Every record of a partition, read from its leader.
    pub fn read_all(&self, topic: &str, partition: i32) -> Vec<(i64, Vec<u8>)> {
        read_all(&mut self.connect(self.leader(topic, partition)), topic, partition)
    }

    /// The first segment of a replica.
    pub fn segment(&self, id: i32, topic: &str, partition: i32) -> PathBuf {
        let folder = self.homes[id as usize - 1].data().join(format!("{topic}-{partition}"));
        folder.join("00000000000000000000.log")
    }

    /// Waits until the logs of all replicas of a partition are the same, byte for byte.
    pub fn await_same_logs(&self, topic: &str, partition: i32) {
        until("all replicas hold the same bytes", || {
            let read = |id: i32| whole_batches(std::fs::read(self.segment(id, topic, partition)).unwrap());
            let logs: Vec<Vec<u8>> = (1..).take(self.homes.len()).map(read).collect();
            let sizes: Vec<usize> = logs.iter().map(Vec::len).collect();
            if logs.iter().all(|log| *log == logs[0]) { Ok(()) } else { Err(sizes) }
        });
    }
}

/// What of a file are batches: blocks may be reserved behind them, which are zeros.
fn whole_batches(mut file: Vec<u8>) -> Vec<u8> {
    let mut end = 0;
    while let Some(length) = file.get(end + 8..end + 12) {
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        if length == 0 || file.len() < end + 12 + length {
            break;
        }
        end += 12 + length;
    }
    file.truncate(end);
    file
}

/// A connection to a broker that may be gone.
pub fn open(broker: &Broker) -> Result<Connection, ClientError> {
    let config = ConnectionConfig { response_timeout: PATIENCE, ..ConnectionConfig::default() };
    Connection::open(&broker.address, &config)
}
