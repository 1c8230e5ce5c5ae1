//! The controller's shard: feeds the controller, publishes what it decides to every shard, holds
//! its answers to clients of this node until every shard has applied them, and writes the node's checkpoints.
//!
//! Views are published one at a time: the next one leaves when every shard has applied the last.
//! Applied means that new replicas exist and the directories of removed ones are renamed, and the
//! next one also waits until the checkpoints have forgotten the removed ones: a topic created again
//! under its old name meets neither the old directory nor the old offsets.

mod answers;
mod directories;
mod leaving;
mod moved;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use super::checkpoint::Checkpoints;
use super::message::{Message, Output, Owner, Progress};
use super::{Shard, Todo};
use crate::config::{NodeConfig, TopicConfig, warn_of};
use crate::controller::storage::METADATA_DIRECTORY;
use crate::controller::{
    self, Controller, ControllerAnswer, ControllerRequest, Endpoint, Image, ImageDelta, Members,
    ResourceType, ShardId, ShardPlacement,
};
use crate::effect::{FileResult, Now, Ticket};
use crate::partition::ReplyTo;
use crate::planted::{Bug, is_planted};
use crate::request::{ClusterView, Node};

/// Who waits for an answer of the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// A request of a client of this node, on one of the shards.
    Request(ReplyTo),
    /// A request on a listener of controllers: another node's, or a tool's that talks to controllers.
    Peer(ReplyTo),
    /// The broker of this node, which registers.
    Registration,
    /// Its heartbeat.
    Heartbeat,
    /// Its leaders, which want other in-sync sets.
    Changes,
    /// It, which tells in which log directories its replicas are.
    Directories,
    /// The node, which wants to be a member of the quorum.
    Joining,
}

/// The log directories in which each replica (topic, partition) was found, each with the topic's
/// id in its `partition.metadata`, if there is one. More than one has a replica's name where a
/// directory was away while its topic was deleted and made again.
pub type FoundReplicas = BTreeMap<(String, i32), Vec<(u16, Option<Uuid>)>>;

/// What the controller's shard is given at start.
pub struct ControlStart {
    /// The controller, recovered from its log.
    pub controller: Controller,
    /// Which replica is on which shard and in which log directory.
    pub placement: ShardPlacement,
    /// Where replicas were found at start.
    pub found: FoundReplicas,
    /// New with every start of the process.
    pub incarnation: Uuid,
    /// Where clients reach this node.
    pub listeners: Vec<Endpoint>,
    /// Which log directory holds the controller's log.
    pub metadata_directory: u16,
    /// What the node's log directories remember.
    pub checkpoints: Checkpoints,
}

/// The controller and what it takes to serve it.
pub struct ControlHost {
    start: ControlStart,
    inputs: VecDeque<controller::Input>,
    outputs: Vec<controller::Output>,
    wake_at_ms: Option<u64>,
    /// Decided and not yet published.
    decided: VecDeque<(Arc<Image>, ImageDelta)>,
    /// The view that is being applied, and who has still to.
    applying: Option<Applying>,
    /// The Image last published; none before the first.
    published: Option<Arc<Image>>,
    /// Image version that every shard has applied.
    applied_image: u64,
    /// Answers that wait until every shard has applied an Image version.
    answers: VecDeque<(Asker, u64, ControllerAnswer)>,
    /// Answers that wait for nobody.
    answers_at_once: VecDeque<(Asker, ControllerAnswer)>,
    waiting: BTreeMap<u64, Asker>,
    token_next: u64,
    /// Log directories that failed, before the start or since.
    offline: BTreeSet<u16>,
    /// Every log that was found, until the node has registered.
    found_at_start: Vec<((String, i32), Option<Uuid>)>,
    /// The node has registered: every topic from before this start is published.
    registered: bool,
    /// Log directories for replicas that this node does not have, by topic and partition.
    preferred: BTreeMap<(String, i32), u16>,
}

#[derive(Debug)]
struct Applying {
    view_version: u64,
    image_version: u64,
    missing: Vec<u16>,
}

impl fmt::Debug for ControlHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlHost").field("applying", &self.applying).finish_non_exhaustive()
    }
}

impl ControlHost {
    /// A host that has not begun.
    pub fn new(start: ControlStart) -> Self {
        let each = start.found.iter();
        let found_at_start =
            each.flat_map(|(log, places)| places.iter().map(|(_, id)| (log.clone(), *id))).collect();
        Self {
            start,
            inputs: VecDeque::new(),
            outputs: Vec::new(),
            wake_at_ms: None,
            decided: VecDeque::new(),
            applying: None,
            published: None,
            applied_image: 0,
            answers: VecDeque::new(),
            answers_at_once: VecDeque::new(),
            waiting: BTreeMap::new(),
            token_next: 0,
            offline: BTreeSet::new(),
            found_at_start,
            registered: false,
            preferred: BTreeMap::new(),
        }
    }

    /// A log directory that cannot be used, before the node starts.
    pub fn offline_from_start(&mut self, directory: u16) {
        self.fail_directory(directory, &mut Vec::new());
    }

    fn fail_directory(&mut self, directory: u16, outputs: &mut Vec<Output>) {
        self.start.checkpoints.fail(directory, outputs);
        if self.offline.insert(directory) {
            self.start.placement.fail_directory(directory);
        }
    }

    /// Whether an Image knows this process as the broker of its node.
    fn is_known_to(&self, image: &Image, node_id: i32) -> bool {
        image.broker(node_id).is_some_and(|known| known.incarnation == self.start.incarnation)
    }

    /// Why the node cannot go on, if it cannot.
    fn verdict(&self) -> Option<&'static str> {
        let log_directories = self.start.checkpoints.directories();
        if self.offline.contains(&self.start.metadata_directory) {
            return Some("the log directory that holds the metadata failed");
        }
        let lost = (0..log_directories).all(|directory| self.offline.contains(&directory));
        lost.then_some("every log directory failed")
    }

    /// Logs whose topics the cluster does not know, by name; asked once.
    fn unclaimed(&mut self, image: &Image) -> Vec<String> {
        let is_stranger = |topic: &str, id: Option<Uuid>| {
            image.topic(topic).is_none_or(|known| id.is_some_and(|id| id != known.id))
        };
        let found = std::mem::take(&mut self.found_at_start);
        let unclaimed = found.iter().filter(|((topic, _), id)| is_stranger(topic, *id));
        unclaimed.map(|((topic, partition), _)| format!("{topic}-{partition}")).collect()
    }

    /// Begins. The broker of a node that is alone is registered at once; another one's heart does that.
    pub(super) fn start(&mut self, node: &NodeConfig, is_clustered: bool, outputs: &mut Vec<Output>) {
        let directory = self.start.metadata_directory;
        let name = METADATA_DIRECTORY.to_string();
        outputs.push(Output::Own { owner: Owner::Controller, directory, name });
        for directory in 0..self.start.checkpoints.directories() {
            let owner = Owner::Directory(directory);
            outputs.push(Output::Own { owner, directory, name: String::new() });
        }
        self.inputs.push_back(controller::Input::Tick);
        if is_clustered {
            return;
        }
        let request = ControllerRequest::RegisterBroker {
            node_id: node.node_id,
            incarnation: self.start.incarnation,
            listeners: self.start.listeners.clone(),
            rack: node.rack.as_deref().map(Arc::from),
            directories: Vec::new(),
            previous_epoch: -1,
            cluster_id: None,
        };
        self.ask(Asker::Registration, request);
    }

    fn ask(&mut self, asker: Asker, request: ControllerRequest) {
        let token = self.token_next;
        self.token_next += 1;
        self.waiting.insert(token, asker);
        self.inputs.push_back(controller::Input::Request { token, request });
    }

    pub(super) fn next_wake_ms(&self) -> Option<u64> {
        [self.wake_at_ms, self.start.checkpoints.next_wake_ms()].into_iter().flatten().min()
    }

    /// Before the first Image is published: whatever the checkpoints say of replicas that are not
    /// there, or were another topic's of the same name, is forgotten.
    fn forget_strangers(&mut self, node_id: i32, outputs: &mut Vec<Output>) {
        let Some((image, _)) = self.decided.front().filter(|_| self.published.is_none()) else { return };
        let found = &self.start.found;
        let is_gone = |directory: u16, topic: &str, partition: i32| {
            let known = image.topic(topic).filter(|known| is_here(image, node_id, known.id, partition));
            let places = found.get(&(topic.to_string(), partition));
            let is_its = |(at, id): &(u16, Option<Uuid>)| {
                *at == directory && known.is_some_and(|known| id.is_none_or(|id| id == known.id))
            };
            !places.is_some_and(|places| places.iter().any(is_its))
        };
        self.start.checkpoints.forget(is_gone, outputs);
    }

    /// Whatever is known by the names of these topics: offsets, and where replicas were found.
    fn forget_topics(&mut self, delta: &ImageDelta, outputs: &mut Vec<Output>) {
        if delta.topics_removed.is_empty() {
            return;
        }
        let names: BTreeSet<&str> = delta.topics_removed.values().map(|topic| &*topic.name).collect();
        self.start.checkpoints.forget(|_, topic, _| names.contains(topic), outputs);
        for ((topic, _), places) in &mut self.start.found {
            if names.contains(topic.as_str()) {
                // Another topic's directory may lie elsewhere under this name.
                places.retain(|(_, id)| id.is_some_and(|id| !delta.topics_removed.contains_key(&id)));
            }
        }
    }
}

impl Shard {
    /// The controller, on the shard that hosts it.
    pub fn controller(&self) -> Option<&Controller> {
        self.control.as_ref().map(|control| &control.start.controller)
    }

    /// A request for the controller, which is on this shard.
    pub(super) fn control(&mut self, now: Now, asker: Asker, request: ControllerRequest) {
        let Some(control) = &mut self.control else { return };
        control.ask(asker, request);
        self.run_control(now);
    }

    /// What the controller is to know, in this order.
    pub(super) fn control_inputs(&mut self, now: Now, inputs: impl IntoIterator<Item = controller::Input>) {
        let Some(control) = &mut self.control else { return };
        control.inputs.extend(inputs);
        self.run_control(now);
    }

    /// The active controller has told who the members of the quorum are: news for a node that does not know them yet.
    pub(super) fn quorum_has(&mut self, told: Members) {
        let Some(control) = &self.control else { return };
        let controller = &control.start.controller;
        if controller.members().iter().len() == 0 {
            let raft_id = controller.raft_id();
            self.members_are(raft_id, told);
        }
    }

    /// The broker has registered with this epoch, at a controller that may be another node's.
    pub(super) fn control_is_registered(&mut self, epoch: i64) {
        if let Some(control) = &mut self.control {
            control.start.checkpoints.set_broker_epoch(epoch, &mut self.outputs);
        }
    }

    /// The node knows all metadata from before its start: clients may come.
    pub(super) fn control_is_ready(&mut self) {
        let Some(control) = self.control.as_mut().filter(|control| !control.registered) else { return };
        control.registered = true;
        let unclaimed = control.unclaimed(&self.view.image);
        self.outputs.extend(told(&unclaimed).map(Output::Say));
        self.outputs.push(Output::Ready);
    }

    pub(super) fn control_completed(&mut self, now: Now, owner: Owner, ticket: Ticket, result: FileResult) {
        let Some(control) = &mut self.control else { return };
        match owner {
            Owner::Controller => {
                control.inputs.push_back(controller::Input::Completed { ticket, result });
                self.run_control(now);
            }
            Owner::Directory(directory) => {
                if control.start.checkpoints.completed(now, directory, ticket, result, &mut self.outputs) {
                    self.directory_failed(directory);
                }
                self.tell_stored_log_starts();
                self.publish_next();
            }
            Owner::Replica(_) => {}
        }
    }

    /// Every shard learns which log directories cannot be used before it learns of any replica.
    pub(super) fn tell_offline_directories(&mut self) {
        let offline: Vec<u16> = self.control.iter().flat_map(|control| control.offline.clone()).collect();
        for directory in offline {
            self.tell_everyone(|| Message::DirectoryOffline(directory));
        }
    }

    pub(super) fn control_directory_failed(&mut self, now: Now, directory: u16) {
        let Some(control) = &mut self.control else { return };
        control.fail_directory(directory, &mut self.outputs);
        self.peers.directory_failed(now, directory);
        if let Some(why) = control.verdict() {
            self.outputs.push(Output::Fatal(why.to_owned()));
        }
        self.publish_next();
    }

    pub(super) fn control_wake(&mut self, now: Now) {
        let Some(control) = &mut self.control else { return };
        if control.wake_at_ms.is_some_and(|at_ms| at_ms <= now.mono_ms) {
            control.wake_at_ms = None;
            control.inputs.push_back(controller::Input::Tick);
        }
        if control.start.checkpoints.survey_is_due(now, self.node.shard_count) {
            self.tell_everyone(|| Message::Survey);
        }
        let Some(control) = &mut self.control else { return };
        control.start.checkpoints.wake(now, &mut self.outputs);
        self.run_control(now);
    }

    /// Lets the controller work through its inputs, then carries on what it decided.
    pub(super) fn run_control(&mut self, now: Now) {
        let Some(control) = &mut self.control else { return };
        let mut outputs = std::mem::take(&mut control.outputs);
        while let Some(input) = control.inputs.pop_front() {
            control.start.controller.step(now, input, &mut outputs);
        }
        for output in outputs.drain(..) {
            self.control_wants(output);
        }
        let Some(control) = &mut self.control else { return };
        control.outputs = outputs;
        let members = control.start.controller.members();
        let is_news = members.iter().len() > 0 && !self.peers.knows(members);
        if is_news && self.peers.is_clustered() {
            let (raft_id, members) = (control.start.controller.raft_id(), members.clone());
            self.members_are(raft_id, members);
        }
        self.publish_next();
        self.release_answers(now);
    }

    fn control_wants(&mut self, output: controller::Output) {
        let Some(control) = &mut self.control else { return };
        match output {
            controller::Output::File(ticket, op) => {
                self.outputs.push(Output::File(Owner::Controller, ticket, op));
            }
            controller::Output::Publish(image, delta) => control.decided.push_back((image, delta)),
            controller::Output::Answer { token, version, answer } => {
                control.take_answer(token, version, answer, self.peers.serves());
            }
            controller::Output::Full => self.outputs.push(Output::Say(format!(
                "the log directory that holds {METADATA_DIRECTORY} is full: changes of the metadata wait for space"
            ))),
            controller::Output::WakeAt(at_ms) => control.wake_at_ms = Some(at_ms),
            controller::Output::Send { to, bytes } => self.send_raft(to.raft_id, bytes),
            controller::Output::Leader { node_id, term } => self.controller_is(node_id, term),
            controller::Output::RaftId(raft_id) => self.raft_id_is(raft_id),
            controller::Output::Notice(said) => self.outputs.push(Output::Say(said)),
            controller::Output::Fatal(why) => self.outputs.push(Output::Fatal(why)),
        }
    }

    /// Publishes what was decided next, once the last view is applied everywhere and the checkpoints
    /// have forgotten what it removed.
    fn publish_next(&mut self) {
        let (view, node, is_clustered) = (&self.view, &self.node, self.peers.is_clustered());
        let Some(control) = &mut self.control else { return };
        if control.applying.is_some() || control.start.checkpoints.is_forgetting() {
            return;
        }
        control.forget_strangers(node.config.node_id, &mut self.outputs);
        if control.start.checkpoints.is_forgetting() {
            return;
        }
        let Some((image, delta)) = control.decided.pop_front() else { return };
        control.forget_topics(&delta, &mut self.outputs);
        control.forget_left(node.config.node_id, &image, &delta, &mut self.outputs);
        control.published = Some(Arc::clone(&image));
        let placement = control.place(node.config.node_id, &image, &delta, self.peers.directories());
        if let Some(known) = self.peers.directories_mut() {
            let here = (&*placement, &control.start.found);
            directories::tell(node.config.node_id, (&view.image, &image, &delta), here, known);
        }
        let config = node_config(node, view, &image, &delta);
        self.outputs.extend(warnings(node, &view.image, &image, &delta).map(Output::Say));
        let mut topic_configs = view.topic_configs.clone();
        for id in delta.topics_removed.keys() {
            topic_configs.remove(id);
        }
        let changed = changed_topics(&view.config, &config, &image, &delta);
        let mut compacted = Vec::new();
        for topic in changed.iter().filter_map(|id| image.topic_by_id(*id)) {
            let overrides = image.topic_config_overrides(&topic.name);
            let effective = TopicConfig::effective(&config, overrides);
            let is_new = effective.cleanup_policy.compact
                && !view.topic_configs.get(&topic.id).is_some_and(|known| known.cleanup_policy.compact);
            compacted.extend(Some(&*topic.name).filter(|name| is_new && !name.starts_with("__")));
            topic_configs.insert(topic.id, Arc::new(effective));
        }
        self.outputs.extend(uncompacted(&compacted).map(Output::Say));
        let version = view.version + 1;
        let view = Arc::new(ClusterView {
            version,
            placement,
            config,
            topic_configs,
            changed: changed.into(),
            removed: delta.topics_removed.keys().copied().collect(),
            leads_nothing: is_clustered
                && !control.is_known_to(&image, node.config.node_id)
                && !is_planted(Bug::LeadsUnregistered),
            image,
        });
        let missing = (0..node.shard_count).collect();
        let image_version = view.image.version();
        control.applying = Some(Applying { view_version: version, image_version, missing });
        self.tell_everyone(|| Message::Publish(Arc::clone(&view)));
    }

    /// A shard's replicas agree with a view.
    pub(super) fn applied(&mut self, now: Now, from: ShardId, version: u64) {
        let Some(control) = &mut self.control else { return };
        let Some(applying) = &mut control.applying else { return };
        if applying.view_version != version {
            return;
        }
        applying.missing.retain(|shard| *shard != from.0);
        if applying.missing.is_empty() {
            control.applied_image = applying.image_version;
            control.applying = None;
            let image_version = control.applied_image;
            self.peers_applied(now, image_version);
            self.run_control(now);
        }
    }

    /// Log starts of a shard's replicas, for the checkpoint.
    pub(super) fn store_log_starts(&mut self, from: ShardId, mut starts: Vec<Progress>) {
        let Some(control) = &mut self.control else { return };
        let (published, node_id) = (control.published.clone(), self.node.config.node_id);
        starts.retain(|start| {
            published.as_ref().is_some_and(|image| is_here(image, node_id, start.topic_id, start.partition))
        });
        control.start.checkpoints.store_log_starts(from, starts, &mut self.outputs);
    }

    fn tell_stored_log_starts(&mut self) {
        let Some(control) = &mut self.control else { return };
        for (shard, starts) in control.start.checkpoints.take_stored_log_starts() {
            let message = Message::LogStartsStored(starts);
            if shard == self.id {
                self.todo.push_back(Todo::Local(message));
            } else {
                self.outputs.push(Output::Send(shard, message));
            }
        }
    }

    pub(super) fn tell_everyone(&mut self, message: impl Fn() -> Message) {
        for shard in 0..self.node.shard_count {
            if shard == self.id.0 {
                self.todo.push_back(Todo::Local(message()));
            } else {
                self.outputs.push(Output::Send(ShardId(shard), message()));
            }
        }
    }

    /// Begins a clean stop of the whole node; only the controller's shard does.
    pub fn begin_stop(&mut self, now: Now) {
        if self.peers_hold_stop(now) {
            return;
        }
        let Some(control) = &mut self.control else { return };
        if control.start.checkpoints.begin_stop(self.node.shard_count) {
            self.tell_everyone(|| Message::Stop);
            self.work(now);
        }
    }

    /// A shard has told how far its replicas have got; `last` if they are closed.
    pub(super) fn surveyed(&mut self, from: ShardId, progress: (Vec<Progress>, usize), last: bool) {
        let Some(control) = &mut self.control else { return };
        let (published, node_id) = (control.published.clone(), self.node.config.node_id);
        let is_there = |of: &Progress| {
            published.as_ref().is_some_and(|image| is_here(image, node_id, of.topic_id, of.partition))
        };
        control.start.checkpoints.surveyed(from, progress, last, is_there, &mut self.outputs);
    }
}

/// Whether this node is to have a replica of a partition.
fn is_here(image: &Image, node_id: i32, topic_id: Uuid, partition: i32) -> bool {
    image.partition(topic_id, partition).is_some_and(|known| known.replicas.contains(&node_id))
}

/// What the operator is told of logs that no topic claims.
fn told(unclaimed: &[String]) -> Option<String> {
    let names: Vec<&str> = unclaimed.iter().map(String::as_str).collect();
    let named = counted(&names)?;
    Some(format!("left alone logs of topics that the cluster does not know: {named}"))
}

/// What the operator is told when topics are to be compacted, once for each.
fn uncompacted(topics: &[&str]) -> Option<String> {
    let named = counted(topics)?;
    Some(format!("cleanup.policy=compact: every record is kept, compaction is not built yet: {named}"))
}

/// How many there are, and the first of them.
fn counted(names: &[&str]) -> Option<String> {
    const NAMES_MAX: usize = 10;
    let first: Vec<&str> = names.iter().take(NAMES_MAX).copied().collect();
    let more = if names.len() > NAMES_MAX { " and more" } else { "" };
    (!names.is_empty()).then(|| format!("{}, {}{more}", names.len(), first.join(", ")))
}

/// The node's configuration with the values given while it runs; the same one if none of them changed.
fn node_config(node: &Node, view: &ClusterView, image: &Image, delta: &ImageDelta) -> Arc<NodeConfig> {
    let own = node.config.node_id.to_string();
    let is_own = |(of, name): &(ResourceType, Arc<str>)| {
        *of == ResourceType::Broker && (name.is_empty() || **name == *own)
    };
    if !delta.configs.iter().any(is_own) {
        return Arc::clone(&view.config);
    }
    Arc::new(node.config.with_dynamic(&image.dynamic_configs(node.config.node_id)))
}

/// What the operator is told of values that were given while the node runs and have no effect.
fn warnings(node: &Node, before: &Image, image: &Image, delta: &ImageDelta) -> impl Iterator<Item = String> {
    let own = node.config.node_id.to_string();
    let mut said = BTreeSet::new();
    for (of, name) in &delta.configs {
        if *of == ResourceType::Broker && (name.is_empty() || **name == *own) {
            let given = image.config_overrides(*of, name);
            let is_new = |key: &str, value: &str| before.config(*of, name, key) != Some(value);
            said.extend(given.filter(|(key, value)| is_new(key, value)).filter_map(|(key, _)| warn_of(key)));
        }
    }
    said.into_iter()
}

/// Topics that a delta touches, also by their configuration or the node's.
fn changed_topics(before: &NodeConfig, now: &NodeConfig, image: &Image, delta: &ImageDelta) -> Vec<Uuid> {
    let defaults = |node: &NodeConfig| (node.topic_defaults.clone(), node.compression_levels);
    if defaults(before) != defaults(now) {
        return image.topics().map(|topic| topic.id).collect();
    }
    let mut changed = delta.topics_changed.clone();
    let topics = delta.configs.iter().filter(|(of, _)| *of == ResourceType::Topic);
    changed.extend(topics.filter_map(|(_, name)| Some(image.topic(name)?.id)));
    changed.into_iter().collect()
}
