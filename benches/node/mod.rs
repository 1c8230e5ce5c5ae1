//! A node of two pure shards on one thread: the smallest shell that serves requests. Files lie in memory, but for
//! appended batches, which are taken and forgotten.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::{CreateTopicsRequest, RequestHeader, TopicName};
use kafka_protocol::protocol::{Encodable, StrBytes};
use uuid::Uuid;

use tidemill::broker::{
    Checkpoints, ConnectionKey, ControlHost, ControlStart, DirectoryFacts, FoundReplicas, Message, Output,
    Owner, Shard, StoredOffsets,
};
use tidemill::config::NodeConfig;
use tidemill::controller::recovery::{Recovered, Recovery, Step};
use tidemill::controller::{Controller, ControllerConfig, ShardId, ShardPlacement, VoterEndpoint};
use tidemill::effect::{ByteSpan, FileDone, FileOp, Now};
use tidemill::log::memory_dir::MemoryDir;
use tidemill::request::{Chunk, ClusterView, Node, RequestContext};
use tidemill::security::Principal;
use tidemill::wire::api::ApiKey;

/// The topic that is there.
pub const TOPIC: &str = "bench";
/// The wall clock.
pub const WALL_MS: i64 = 1_700_000_000_000;

const SHARDS: u16 = 2;
const PARTITIONS: i32 = 32;
const RAFT_ID: u64 = 1;

/// What stands for the records of a fetch.
static RECORDS: [u8; 64 << 10] = [0; 64 << 10];

/// A frame without its length prefix, as the shell hands it over.
pub fn frame(key: ApiKey, version: i16, body: &impl Encodable) -> Bytes {
    let mut bytes = BytesMut::new();
    let header = RequestHeader::default().with_request_api_key(key as i16).with_request_api_version(version);
    let header_version = if key.api().is_flexible(version) { 2 } else { 1 };
    header.encode(&mut bytes, header_version).expect("a header");
    body.encode(&mut bytes, version).expect("a body");
    bytes.freeze()
}

/// One shard and what its shell knows.
struct Host {
    core: Shard,
    directories: BTreeMap<Owner, MemoryDir>,
    inbox: VecDeque<(ShardId, Message)>,
    outputs: Vec<Output>,
}

/// Two shards, and a connection on the first.
pub struct TestNode {
    hosts: Vec<Host>,
    connection: ConnectionKey,
    now: Now,
    ready: bool,
    /// Bytes of answers, spans included.
    answered_bytes: u64,
    /// The encoded bytes of the last answer.
    answer: Bytes,
}

impl TestNode {
    /// A node that has registered and has the topic.
    pub fn start() -> TestNode {
        let mut directory = MemoryDir::default();
        let mut hosts: Vec<Host> = shards(&mut directory).into_iter().map(Host::new).collect();
        if let Some(controller) = hosts.first_mut() {
            controller.directories.insert(Owner::Controller, directory);
        }
        let context =
            RequestContext { listener: 0, peer: Ipv4Addr::LOCALHOST.into(), principal: Principal::Anonymous };
        let connection = hosts.first_mut().expect("there are two shards").core.connect(context);
        let now = Now { mono_ms: 1, wall_ms: WALL_MS };
        let mut node =
            TestNode { hosts, connection, now, ready: false, answered_bytes: 0, answer: Bytes::new() };
        for host in &mut node.hosts {
            host.core.start(now);
        }
        node.pass_time(|node| node.ready);
        let topic = CreatableTopic::default().with_name(TopicName(StrBytes::from_static_str(TOPIC)));
        let topic = topic.with_num_partitions(PARTITIONS).with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
        node.hosts.first_mut().expect("there are two shards").core.frame(
            now,
            connection,
            frame(ApiKey::CreateTopics, 5, &request),
        );
        node.pass_time(|node| node.answered_bytes > 0);
        node
    }

    /// Runs, and lets time pass, until something holds.
    fn pass_time(&mut self, holds: impl Fn(&TestNode) -> bool) {
        for _ in 0..100_000 {
            self.run();
            if holds(self) {
                return;
            }
            self.now.mono_ms += 1;
            for host in &mut self.hosts {
                if host.core.next_wake_ms().is_some_and(|at_ms| at_ms <= self.now.mono_ms) {
                    host.core.wake(self.now);
                }
            }
        }
        panic!("it never comes");
    }

    /// The topic's partitions on a shard.
    pub fn partitions_of(&self, shard: u16) -> Vec<i32> {
        let view = self.hosts.first().expect("there are two shards").core.view();
        let topic = view.image.topic(TOPIC).expect("the topic was made");
        let here = |index: &i32| {
            view.placement.shard_of(topic.id, *index).is_some_and(|(owner, _)| owner == ShardId(shard))
        };
        (0..PARTITIONS).filter(here).collect()
    }

    /// Gives a frame to the first shard and runs until its answer is sent; returns the answer's bytes.
    pub fn round_trip(&mut self, frame: Bytes) -> u64 {
        self.answered_bytes = 0;
        let (now, connection) = (self.now, self.connection);
        if let Some(host) = self.hosts.first_mut() {
            host.core.frame(now, connection, frame);
        }
        self.run();
        assert!(self.answered_bytes > 0, "an answer came");
        self.answered_bytes
    }

    /// The encoded bytes of the last answer, or what follows its last span.
    pub fn answer(&self) -> Bytes {
        self.answer.clone()
    }

    /// Turns of both shards until nothing moves any more.
    fn run(&mut self) {
        let mut moved = true;
        while moved {
            moved = false;
            for at in 0..self.hosts.len() {
                moved |= self.turn(at);
            }
        }
    }

    /// One turn of a shard; whether there was anything to do.
    fn turn(&mut self, at: usize) -> bool {
        let now = self.now;
        let host = self.hosts.get_mut(at).expect("a shard");
        let mut moved = false;
        while let Some((from, message)) = host.inbox.pop_front() {
            moved = true;
            host.core.message(now, from, message);
        }
        loop {
            let host = self.hosts.get_mut(at).expect("a shard");
            host.core.end_turn(now);
            let mut outputs = std::mem::take(&mut host.outputs);
            host.core.take_outputs(&mut outputs);
            let quiet = outputs.is_empty();
            for output in outputs.drain(..) {
                self.carry_out(at, output);
            }
            self.hosts.get_mut(at).expect("a shard").outputs = outputs;
            if quiet {
                return moved;
            }
            moved = true;
        }
    }

    fn carry_out(&mut self, at: usize, output: Output) {
        let now = self.now;
        let host = self.hosts.get_mut(at).expect("a shard");
        match output {
            Output::Own { owner, .. } => drop(host.directories.entry(owner).or_default()),
            Output::File(owner, ticket, op) => {
                let directory = host.directories.entry(owner).or_default();
                let result = match op {
                    FileOp::Append { .. } => Ok(FileDone::Ok),
                    other => directory.execute(&other, std::iter::empty()),
                };
                host.core.completed(now, owner, ticket, result);
            }
            Output::Open { slot, to, found } => {
                let length = found.span.map_or(0, |span| span.length as usize);
                let bytes = Bytes::from_static(&RECORDS).slice(..length);
                host.core.opened(now, slot, to, found, Some(ByteSpan::Memory(bytes)));
            }
            Output::Send(to, message) => {
                let from = host.core.id();
                let receiver = self.hosts.get_mut(usize::from(to.0)).expect("a shard");
                receiver.inbox.push_back((from, message));
            }
            Output::Flush(key) => {
                let outbox = host.core.outbox(key).expect("the connection is there");
                while let Some(chunk) = outbox.pop() {
                    self.answered_bytes += chunk.length();
                    if let Chunk::Bytes(bytes) = chunk {
                        self.answer = bytes;
                    }
                }
            }
            Output::Ready => self.ready = true,
            Output::Disown(_) | Output::Say(_) | Output::Configured(_) => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
}

impl Host {
    fn new(core: Shard) -> Host {
        Host { core, directories: BTreeMap::new(), inbox: VecDeque::new(), outputs: Vec::new() }
    }
}

/// The shards of an empty node; the controller's log is made in the directory.
fn shards(directory: &mut MemoryDir) -> Vec<Shard> {
    let config = NodeConfig::default();
    let controller = ControllerConfig {
        raft_id: RAFT_ID,
        voters: vec![VoterEndpoint::alone(config.node_id, RAFT_ID)],
        cluster_id: "bench".into(),
        node: Arc::new(config.clone()),
        snapshot_entries: 1000,
        snapshot_bytes: 1 << 20,
        seed: 7,
    };
    let recovered = recovered(directory);
    let start = ControlStart {
        controller: Controller::new(controller, recovered).expect("an empty log can be used"),
        placement: ShardPlacement::new(config.node_id, SHARDS, 1),
        found: FoundReplicas::new(),
        incarnation: Uuid::from_u128(7),
        listeners: Vec::new(),
        metadata_directory: 0,
        checkpoints: Checkpoints::new(vec![StoredOffsets::default()], ("boot".to_owned(), -1), &config),
    };
    let view = Arc::new(ClusterView::before_any(Arc::new(config.clone())));
    let node = Arc::new(Node { cluster_id: "bench".into(), shard_count: SHARDS, seed: 7, config });
    let facts: Arc<[DirectoryFacts]> = Arc::from([DirectoryFacts::default()]);
    let mut control = Some(Box::new(ControlHost::new(start)));
    let shard = |id| {
        Shard::new(ShardId(id), Arc::clone(&node), Arc::clone(&view), Arc::clone(&facts), control.take())
    };
    (0..SHARDS).map(shard).collect()
}

/// The controller's log in an empty directory.
fn recovered(directory: &mut MemoryDir) -> Recovered {
    let (mut recovery, mut last) = (Recovery::new(), None);
    loop {
        match recovery.step(last.take()) {
            Step::Op(op) => last = Some(directory.execute(&op, std::iter::empty())),
            Step::Done(recovered) => return *recovered,
            Step::Failed(why) => panic!("{why}"),
        }
    }
}
