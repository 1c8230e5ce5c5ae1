//! The outbound half of a node: what a shard asks of other nodes, and what comes back.
//!
//! | file | what it is |
//! |---|---|
//! | [`link`] | one connection to another node: dialled, up, lost, dialled again |
//! | [`fetcher`], [`followers`] | the rounds in which this shard's followers fetch from their leaders |
//! | [`heart`] | registration, heartbeats and the leaving of a broker |
//! | [`isr`], [`assignments`] | ISR changes that leaders want, and the directories of replicas |
//! | [`gathered`] | how both are asked of the controller |
//! | [`joining`] | a node becomes a member of the metadata quorum |
//! | [`finder`], [`envoy`], [`messages`] | who the active controller is, and what a node says to it |
//! | [`controller_links`], [`asks`] | the links to it, and what clients want of it |
//! | `plane` | the controller's shard: the envoy's news, joining and leaving |
//! | [`post`], `mailbox` | raft messages between the members of the quorum |
//! | `quorum` | what other members say, and what requests ask of the quorum |
//! | [`senses`] | a broker whose process is gone is known by its connections |
//!
//! Every shard has its own links to the leaders that it follows. The controller's shard has those to the active
//! controller for the whole node, and one to each other controller; other shards reach them by messages.
//!
//! A node that is alone follows nobody, and its controller is its own: nothing here is active, and nothing costs.

pub mod asks;
pub mod assignments;
pub mod controller_links;
pub mod envoy;
pub mod fetcher;
pub mod finder;
pub mod followers;
pub mod gathered;
pub mod heart;
pub mod isr;
pub mod joining;
pub mod link;
mod mailbox;
pub mod messages;
mod plane;
pub mod post;
mod quorum;
pub mod senses;

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use self::asks::Ask;
use self::assignments::Assignments;
use self::envoy::{BeatAnswer, Envoy, EnvoyEvent, EnvoyRules};
use self::fetcher::{FetchRules, Part, ReplicaKey};
use self::finder::VoterAddress;
use self::followers::{Address, Followers, LinkIds};
use self::heart::{Beat, Heart, HeartEvent, HeartRules};
use self::isr::Settled;
use self::joining::Joining;
pub use self::link::{LinkId, LinkLoss};
use self::messages::Registration;
use self::post::{PostEvent, RaftAddress, RaftPost};
use self::senses::{Process, Senses};
use super::Shard;
use super::message::{ConnectionKey, Message, Output};
use crate::config::NodeConfig;
use crate::controller::{self, ControllerAnswer, ControllerRequest, Endpoint, Image, Members, ShardId};
use crate::effect::Now;
use crate::partition::{IsrChange, ReplyTo};
use crate::request::{Forwarded, QuorumAsk};
use crate::wire::ErrorCode;

/// What shards of one node say to each other of other nodes.
#[derive(Clone, Debug)]
pub enum PeersMessage {
    /// To the controller's shard: leaders of the sender want other ISRs.
    Alter(Vec<(ReplicaKey, IsrChange)>),
    /// From the controller's shard: what became of that.
    Altered(Vec<Settled>),
    /// To the controller's shard: a client wants something that the active controller decides.
    Ask(ReplyTo, Ask),
    /// To the controller's shard: this node's replica is in that log directory from now on, by its number in
    /// `log.dirs`. For whoever moves a replica between directories, once it is served from there: the cluster is told
    /// (AssignReplicasToDirs), again and again until it knows, and needs no answer. The node's own placement
    /// (`ShardPlacement`) has to say the same before: the cluster is told again what that says with each change of the
    /// topic.
    InDirectory(ReplicaKey, u16),
    /// From the controller's shard: the broker epoch that rounds carry from now on.
    BrokerEpoch(i64),
    /// To the controller's shard: a broker's process is gone.
    Gone(Process),
    /// To the controller's shard: a broker's connection is gone, and somebody listens where it did.
    Left(Process),
    /// From the controller's shard: whether another node's controller decides what clients want changed.
    Elsewhere(bool),
    /// To the controller's shard: a request asks something of the metadata quorum, or brings it messages.
    Quorum(ReplyTo, QuorumAsk),
}

/// What makes a node part of a cluster of several.
#[derive(Clone, Debug)]
pub struct PeersStart {
    /// Who it is.
    pub registration: Registration,
    /// Whether it is a broker, and not only a controller.
    pub is_broker: bool,
    /// The voters of the metadata quorum, as the configuration names them.
    pub voters: Vec<VoterAddress>,
    /// Its broker epoch of the last run, if that was stopped cleanly, else -1.
    pub previous_epoch: i64,
    /// Its raft id.
    pub raft_id: u64,
    /// Where other members of the quorum reach it.
    pub endpoint: Endpoint,
    /// Ids of its log directories, by number; none of one that cannot be used.
    pub directory_ids: Vec<Option<Uuid>>,
}

/// What a shard knows of other nodes.
#[derive(Debug)]
pub(super) struct Peers {
    ids: LinkIds,
    followers: Followers,
    senses: Senses,
    /// On the controller's shard of a node that is not alone.
    envoy: Option<Box<Envoy>>,
    post: Option<Box<RaftPost>>,
    parts: Vec<Part>,
    events: Vec<EnvoyEvent>,
    post_events: Vec<PostEvent>,
    /// Another node's controller decides what clients want changed.
    is_elsewhere: bool,
    /// What was told of that last; on the controller's shard.
    told_elsewhere: bool,
    /// A clean stop waits until the controller lets the broker go.
    is_leaving: bool,
    /// The members of the quorum that were told last.
    members: Members,
}

impl Peers {
    /// Nobody is known yet. `seed` is for the rests of links.
    pub(super) fn new(config: &NodeConfig, seed: u64) -> Self {
        Self {
            ids: LinkIds::default(),
            followers: Followers::new(config.node_id, FetchRules::of(&config.cluster.fetch), seed),
            senses: Senses::default(),
            envoy: None,
            post: None,
            parts: Vec::new(),
            events: Vec::new(),
            post_events: Vec::new(),
            is_elsewhere: false,
            told_elsewhere: false,
            is_leaving: false,
            members: Members::default(),
        }
    }

    pub(super) fn next_wake_ms(&self) -> Option<u64> {
        let envoy = self.envoy.as_ref().and_then(|envoy| envoy.next_wake_ms());
        let post = self.post.as_ref().and_then(|post| post.next_wake_ms());
        [self.followers.next_wake_ms(), self.senses.next_wake_ms(), envoy, post].into_iter().flatten().min()
    }

    /// Whether the node is part of a cluster of several, as far as this shard deals with it.
    pub(super) fn is_clustered(&self) -> bool {
        self.envoy.is_some() || self.is_leaving
    }

    /// Whether the broker serves, as far as it knows.
    pub(super) fn serves(&mut self) -> bool {
        let heart = self.envoy.as_mut().and_then(|envoy| envoy.heart());
        heart.is_some_and(|heart| heart.serves())
    }

    /// The log directories as the cluster knows them; on the controller's shard of a node that is not alone.
    pub(super) fn directories(&self) -> Option<&Assignments> {
        self.envoy.as_ref().map(|envoy| envoy.directories())
    }

    /// These, to be told where replicas are.
    pub(super) fn directories_mut(&mut self) -> Option<&mut Assignments> {
        self.envoy.as_mut().map(|envoy| envoy.directories_mut())
    }

    /// A log directory has failed: the cluster is to know.
    pub(super) fn directory_failed(&mut self, now: Now, directory: u16) {
        self.envoy.iter_mut().for_each(|envoy| envoy.directory_failed(now, directory));
    }

    /// Whether these are the members of the quorum that were told last.
    pub(super) fn knows(&self, members: &Members) -> bool {
        self.members == *members
    }

    fn is_active(&self) -> bool {
        self.envoy.is_some() || self.post.is_some() || !self.followers.is_empty() || !self.senses.is_empty()
    }
}

/// Where a broker listens for others: on their listener, or else on its first.
fn address_of(image: &Image, listener: &str, node_id: i32) -> Option<Address> {
    let listeners = &image.broker(node_id)?.listeners;
    let named = listeners.iter().find(|endpoint| *endpoint.name == *listener);
    let endpoint = named.or_else(|| listeners.first())?;
    Some((Arc::clone(&endpoint.host), endpoint.port))
}

impl Shard {
    /// A dial has succeeded.
    pub fn link_up(&mut self, now: Now, link: LinkId) {
        let Peers { followers, envoy, post, senses, .. } = &mut self.peers;
        if followers.owns(link) {
            followers.up(link);
        } else if senses.owns(link) {
            if let Some(process) = senses.up(link) {
                self.tell_control(Message::Peers(PeersMessage::Left(process)));
            }
        } else if let Some(envoy) = envoy.as_mut().filter(|envoy| envoy.owns(link)) {
            envoy.up(link);
        } else if let Some(post) = post {
            post.up(link);
        }
        self.peers_go_on(now);
        self.work(now);
    }

    /// A connection to another node, or a dial, has ended.
    pub fn link_down(&mut self, now: Now, link: LinkId, loss: LinkLoss) {
        let Peers { followers, envoy, post, senses, post_events, .. } = &mut self.peers;
        if followers.owns(link) {
            followers.down(now, link, loss);
        } else if senses.owns(link) {
            if let Some(process) = senses.down(link, loss, &mut self.outputs) {
                self.tell_control(Message::Peers(PeersMessage::Gone(process)));
            }
        } else if let Some(envoy) = envoy.as_mut().filter(|envoy| envoy.owns(link)) {
            envoy.down(now, link, loss, &mut self.outputs);
        } else if let Some(post) = post {
            post.down(now, link, loss, post_events);
        }
        self.peers_go_on(now);
        self.work(now);
    }

    /// A frame of another node, without its prefix.
    pub fn link_frame(&mut self, now: Now, link: LinkId, frame: Bytes) {
        let outputs = &mut self.outputs;
        let Peers { followers, envoy, post, parts, events, post_events, .. } = &mut self.peers;
        if followers.owns(link) {
            followers.frame(now, link, &frame, parts, outputs);
            // Replicas hold what they need of it.
            drop(frame);
            self.take_parts(now);
        } else if let Some(envoy) = envoy.as_mut().filter(|envoy| envoy.owns(link)) {
            envoy.frame(now, link, &frame, events, outputs);
        } else if let Some(post) = post {
            post.frame(now, link, &frame, post_events, outputs);
        }
        self.peers_go_on(now);
        self.work(now);
    }

    /// Gives the parts of an answer to their replicas.
    fn take_parts(&mut self, now: Now) {
        let mut parts = std::mem::take(&mut self.peers.parts);
        for (key, position, part) in parts.drain(..) {
            let bytes = part.records.len() as u64;
            self.replicas.fetched(now, key, &position, part);
            if let Some((until_ms, held)) = self.replicas.throttle_fetched(now, key, bytes) {
                held.into_iter().for_each(|key| self.peers.followers.hold(key, until_ms));
            }
        }
        self.peers.parts = parts;
        self.drain_replicas();
    }

    /// Begins what can begin towards other nodes; to be called when a turn has ended, and when something of them came.
    pub(super) fn peers_go_on(&mut self, now: Now) {
        self.ask_followers();
        if !self.peers.is_active() {
            return;
        }
        let outputs = &mut self.outputs;
        let Peers { ids, followers, envoy, post, events, .. } = &mut self.peers;
        let (image, listener) = (&self.view.image, &self.view.config.inter_broker_listener);
        followers.go_on(now, ids, |node_id| address_of(image, listener, node_id), outputs);
        if let Some(envoy) = envoy {
            envoy.go_on(now, ids, events, outputs);
        }
        if let Some(post) = post {
            post.go_on(now, outputs);
        }
        self.deliver_mail();
        self.peers_tell(now);
        let told = std::mem::take(&mut self.peers.post_events);
        if !told.is_empty() {
            self.post_told(now, &told);
            self.control_inputs(now, told.into_iter().map(PostEvent::into_input));
        }
    }

    /// Asks the replicas whose wishes have changed what they want of their leaders, and of the controller.
    fn ask_followers(&mut self) {
        for key in self.replicas.take_following() {
            let position = self.replicas.fetch_position(key);
            self.peers.followers.follow(key, position);
        }
        let changes = self.replicas.take_isr_changes();
        if !changes.is_empty() {
            self.tell_control(Message::Peers(PeersMessage::Alter(changes.into_iter().collect())));
        }
    }

    /// Time has passed.
    pub(super) fn peers_wake(&mut self, now: Now) {
        if self.peers.next_wake_ms().is_none_or(|at_ms| at_ms > now.mono_ms) {
            return;
        }
        let outputs = &mut self.outputs;
        let Peers { followers, envoy, post, senses, events, post_events, .. } = &mut self.peers;
        followers.wake(now, outputs);
        senses.wake(now, outputs);
        if let Some(envoy) = envoy {
            envoy.wake(now, events, outputs);
        }
        if let Some(post) = post {
            post.wake(now, post_events, outputs);
        }
        self.peers_go_on(now);
    }

    /// The view is another: replicas may have gone or lead by now, and brokers may listen elsewhere.
    pub(super) fn peers_review(&mut self) {
        if self.peers.followers.is_empty() {
            return;
        }
        let (view, node_id) = (&self.view, self.node.config.node_id);
        let follows = |(topic_id, index): ReplicaKey| {
            let partition = view.image.partition(topic_id, index);
            partition.is_some_and(|partition| {
                partition.leader >= 0 && partition.leader != node_id && partition.replicas.contains(&node_id)
            })
        };
        for topic_id in view.removed.iter().chain(view.changed.iter()) {
            self.peers.followers.review(*topic_id, follows);
        }
        let address_of = |node_id| address_of(&view.image, &view.config.inter_broker_listener, node_id);
        self.peers.followers.relocate(address_of, &mut self.outputs);
    }

    /// The other side has ended a connection; to be told before [`Shard::disconnect`].
    pub fn ended_by_peer(&mut self, now: Now, key: ConnectionKey) {
        let outputs = &mut self.outputs;
        let Peers { ids, senses, .. } = &mut self.peers;
        if senses.is_empty() {
            return;
        }
        let (image, listener) = (&self.view.image, &self.view.config.inter_broker_listener);
        let find = |node_id, broker_epoch| {
            let broker = image.broker(node_id).filter(|broker| broker.epoch == broker_epoch)?;
            let process = Process { node_id, incarnation: broker.incarnation };
            Some((process, address_of(image, listener, node_id)?))
        };
        senses.ended(now, key, true, ids, find, outputs);
    }

    /// A connection is gone, or goes to another shard: its end says nothing more.
    pub(super) fn forget_connection(&mut self, key: ConnectionKey) {
        self.peers.senses.forget(key);
    }

    /// A broker's heartbeat came on a connection: from now on its end says something.
    pub(super) fn heard_heartbeat(&mut self, key: ConnectionKey, node_id: i32, broker_epoch: i64) {
        self.peers.senses.heard(key, node_id, broker_epoch);
    }

    /// The shard stops: it asks nothing of other nodes any more.
    pub(super) fn peers_close(&mut self) {
        self.peers.followers.close(&mut self.outputs);
    }
}
