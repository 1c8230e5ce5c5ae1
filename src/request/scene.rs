//! What a request sees of the shard it runs on, and where it leaves what it wants done.

use std::sync::Arc;

use uuid::Uuid;

use super::connection::RequestContext;
use super::forward::Forwarded;
use super::producer_id::ProducerIds;
use super::raft_messages::QuorumAsk;
use super::refused::{Asker, Part, Refusal, Refusals, Why};
use super::session::FetchSessions;
use crate::config::{NodeConfig, TopicConfig};
use crate::controller::{ControllerRequest, Image, ShardId, ShardMap};
use crate::effect::Now;
use crate::group;
use crate::log::codec::CodecPool;
use crate::partition::{Op, ReplyTo};
use crate::wire::ErrorCode;
use crate::wire::api::{Listener, RAFT_FRAME_BYTES};

/// One request part on its way to the partition that serves it.
#[derive(Clone, Debug)]
pub struct Call {
    /// The partition's topic.
    pub topic_id: Uuid,
    /// The partition's index in the topic.
    pub partition: i32,
    /// Where the answer goes.
    pub to: ReplyTo,
    /// What is asked.
    pub op: Op,
}

/// One request part on its way to the coordinator of a group.
#[derive(Clone, Debug)]
pub struct Coordination {
    /// The partition of the offsets topic that the group belongs to.
    pub partition: i32,
    /// Where the answer goes.
    pub to: ReplyTo,
    /// What is asked.
    pub request: group::Request,
}

/// A request that wants [`Work::timeout`](super::Work::timeout) at a monotonic time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timer {
    /// When, in monotonic milliseconds.
    pub at_ms: u64,
    /// Which request.
    pub to: ReplyTo,
}

/// The cluster as one version of the Image and this node's placement of partitions say.
#[derive(Clone, Debug)]
pub struct ClusterView {
    /// Rises with every publication on this node.
    pub version: u64,
    /// The cluster's metadata.
    pub image: Arc<Image>,
    /// Which shard and log directory of this node holds which replica.
    pub placement: Arc<ShardMap>,
    /// This node's configuration with the values given while it runs over what it started with.
    pub config: Arc<NodeConfig>,
    /// The effective configuration of every topic.
    pub topic_configs: imbl::OrdMap<Uuid, Arc<TopicConfig>>,
    /// Topics that were made or changed by this version.
    pub changed: Arc<[Uuid]>,
    /// Topics that are gone with this version.
    pub removed: Arc<[Uuid]>,
    /// This process is not the one that the Image knows as this node's broker: whatever the Image says that the node
    /// leads, an earlier process led, and others may have gone on since. Never on a node that is alone.
    pub leads_nothing: bool,
}

impl ClusterView {
    /// What is known before the first Image.
    pub fn before_any(config: Arc<NodeConfig>) -> Self {
        Self {
            version: 0,
            image: Arc::default(),
            placement: Arc::default(),
            config,
            topic_configs: imbl::OrdMap::new(),
            changed: Arc::from([]),
            removed: Arc::from([]),
            leads_nothing: false,
        }
    }
}

/// What does not change while the node runs.
#[derive(Debug)]
pub struct Node {
    /// The configuration that it started with.
    pub config: NodeConfig,
    /// The cluster's id, 22 characters of base64.
    pub cluster_id: String,
    /// How many shards there are.
    pub shard_count: u16,
    /// What is drawn at random follows from it; new at every start of a real node.
    pub seed: u64,
}

impl Node {
    /// Who is at the other end of a listener.
    pub fn door(&self, listener: usize) -> Listener {
        let name = self.config.listeners.get(listener).map(|listener| &listener.name);
        let is_controllers = name.is_some_and(|name| self.config.controller_listeners.contains(name));
        if is_controllers { Listener::Controller } else { Listener::Client }
    }

    /// The largest frame that may come by a listener, without its prefix, in bytes. Controllers send each other whole
    /// entries of the metadata's log, however small `socket.request.max.bytes` is.
    pub fn frame_limit_bytes(&self, listener: usize) -> u32 {
        let of_clients = self.config.socket_request_max_bytes;
        if of_clients < RAFT_FRAME_BYTES && self.door(listener) == Listener::Controller {
            return RAFT_FRAME_BYTES;
        }
        of_clients
    }
}

/// A log directory for a replica that this node does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreferredDirectory {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's index.
    pub partition: i32,
    /// Which of the node's log directories.
    pub directory: u16,
}

/// The room on the device of a log directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// Bytes of the device.
    pub total_bytes: u64,
    /// Bytes that can still be written.
    pub usable_bytes: u64,
}

/// What a request sees and where it leaves its wishes.
#[derive(Debug)]
pub struct Scene<'a> {
    /// The clocks.
    pub now: Now,
    /// The shard it runs on.
    pub shard: ShardId,
    /// The node it runs on.
    pub node: &'a Node,
    /// The cluster.
    pub view: &'a ClusterView,
    /// Who asks and through which door.
    pub context: RequestContext,
    /// The shard's own state, and where wishes are left.
    pub desk: &'a mut Desk,
}

impl Scene<'_> {
    /// A node was refused what only nodes of the cluster ask for: the operator is to know.
    pub(super) fn refused(&mut self, what: Refusal, node_id: i32, code: ErrorCode) {
        self.desk.refusals.note(what, Asker::Node(node_id), self.context.peer, code.into());
    }

    /// The same of one partition.
    pub(super) fn refused_partition(
        &mut self,
        what: Refusal,
        node_id: i32,
        (topic_id, index): (Uuid, i32),
        code: ErrorCode,
    ) {
        let topic = self.view.image.topic_by_id(topic_id);
        let part =
            topic.map_or(Part::PartitionById(topic_id, index), |topic| Part::Partition(&topic.name, index));
        let why = Why { part: Some(part), ..Why::from(code) };
        self.desk.refusals.note(what, Asker::Node(node_id), self.context.peer, why);
    }
}

/// What the requests of one shard share, and what they leave to be carried on.
#[derive(Debug)]
pub struct Desk {
    /// The shard's fetch sessions.
    pub sessions: FetchSessions,
    /// The shard's block of producer ids.
    pub producer_ids: ProducerIds,
    /// For ids that nobody shall guess or give twice.
    pub random: fastrand::Rng,
    /// What checks of compressed batches use one after another.
    pub codecs: CodecPool,
    /// Parts for partitions.
    pub calls: Vec<Call>,
    /// Parts for coordinators.
    pub coordinations: Vec<Coordination>,
    /// Requests for the controller.
    pub controls: Vec<(ReplyTo, ControllerRequest)>,
    /// Requests that another node's controller decides.
    pub forwards: Vec<(ReplyTo, Forwarded)>,
    /// Whether another node's controller decides what clients want changed.
    pub forwards_changes: bool,
    /// Fetches of replicas: their connections are other nodes'.
    pub replicas_heard: Vec<ReplyTo>,
    /// Heartbeats of brokers: on which connection, whose, and of which broker epoch.
    pub heard: Vec<(ReplyTo, i32, i64)>,
    /// What is asked of the controller's shard about the metadata quorum.
    pub quorum: Vec<(ReplyTo, QuorumAsk)>,
    /// What was refused.
    pub refusals: Refusals,
    /// Deadlines.
    pub timers: Vec<Timer>,
    /// Requests that want to know how much room the log directories have.
    pub space_asked: Vec<ReplyTo>,
    /// Where replicas are to be put that this node does not have.
    pub preferred_directories: Vec<PreferredDirectory>,
    /// Log directories of this node that failed, by index.
    failed_directories: Vec<u16>,
}

impl Desk {
    /// An empty one, with the sessions given and a seed for what is drawn at random.
    pub fn new(sessions: FetchSessions, seed: u64) -> Self {
        Self {
            sessions,
            producer_ids: ProducerIds::default(),
            random: fastrand::Rng::with_seed(seed),
            codecs: CodecPool::default(),
            calls: Vec::new(),
            coordinations: Vec::new(),
            controls: Vec::new(),
            forwards: Vec::new(),
            forwards_changes: false,
            replicas_heard: Vec::new(),
            heard: Vec::new(),
            quorum: Vec::new(),
            refusals: Refusals::default(),
            timers: Vec::new(),
            space_asked: Vec::new(),
            preferred_directories: Vec::new(),
            failed_directories: Vec::new(),
        }
    }

    /// Carries on what sessions leave behind: watches that are taken back, and who waits for one that is gone.
    pub fn settle_sessions(&mut self, now: Now) {
        self.sessions.settle(now.mono_ms, &mut self.calls, &mut self.timers);
    }

    /// A log directory of this node failed: its replicas are told as offline from now on.
    pub fn directory_failed(&mut self, directory: u16) {
        if !self.failed_directories.contains(&directory) {
            self.failed_directories.push(directory);
        }
    }

    /// Whether a log directory of this node failed.
    pub(super) fn is_failed(&self, directory: u16) -> bool {
        self.failed_directories.contains(&directory)
    }

    /// Whether this node's replica of a partition is on a log directory that failed.
    pub(super) fn is_on_failed_directory(&self, view: &ClusterView, topic_id: Uuid, index: i32) -> bool {
        let directory = || view.placement.shard_of(topic_id, index).map(|(_, directory)| directory);
        !self.failed_directories.is_empty()
            && directory().is_some_and(|directory| self.failed_directories.contains(&directory))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controllers_listener_is_its_own_door() {
        let text = "process.roles=broker,controller\nlisteners=PLAINTEXT://:9092,CONTROLLER://:9093\n\
                    controller.listener.names=CONTROLLER\n";
        let (config, _) = NodeConfig::load(Some(text), &[]).unwrap();
        let node = Node { config, cluster_id: String::new(), shard_count: 1, seed: 1 };
        assert_eq!(node.door(0), Listener::Client);
        assert_eq!(node.door(1), Listener::Controller);
    }

    #[test]
    fn controllers_may_send_each_other_what_is_too_long_for_clients() {
        let limits = |max_bytes: &str| {
            let text =
                "listeners=PLAINTEXT://:9092,CONTROLLER://:9093\ncontroller.listener.names=CONTROLLER\n";
            let given = [("socket.request.max.bytes".to_owned(), max_bytes.to_owned())];
            let (config, _) = NodeConfig::load(Some(text), &given).unwrap();
            let node = Node { config, cluster_id: String::new(), shard_count: 1, seed: 1 };
            [0, 1].map(|listener| node.frame_limit_bytes(listener))
        };
        assert_eq!(limits("1000000"), [1_000_000, RAFT_FRAME_BYTES]);
        assert_eq!(limits("100000000"), [100_000_000; 2]);
    }
}
