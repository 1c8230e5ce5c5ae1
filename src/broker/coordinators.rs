//! The group coordinators of one shard: one for each partition of `__consumer_offsets` that it leads.
//!
//! A coordinator is one more caller of its partition. It appends with acks=all and reads like a connection does, under
//! an address that no connection has; the partition does not know of it. Its batches are told committed in their
//! order. When one fails, everything that is in flight is waited for, then the coordinator loads its log again.
//!
//! Requests come from connections of any shard and are answered by token; who is gone is answered in vain, and stays a
//! member until its session ends, as in Kafka.

mod batches;
mod configured;
mod load;
mod metadata;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use uuid::Uuid;

use self::configured::group_config;
use self::load::Load;
use self::metadata::Metadata;
use super::message::Output;
use super::routing::reply;
use super::{Shard, Todo};
use crate::config::NodeConfig;
use crate::controller::ShardId;
use crate::effect::{ByteSpan, FileResult, Now};
use crate::group::{self, Coordinator, GroupConfig, Input, OFFSETS_TOPIC, Response};
use crate::log::codec::Codec;
use crate::partition::{Acks, Answer, Op, ReplyTo};
use crate::planted::{Bug, is_planted};
use crate::request::{Answered, Call, ClusterView, Coordination};

/// The slot of no connection: what is sent there is for a coordinator.
const COORDINATOR: u32 = u32::MAX;
/// Parts of a load: the log's start, its end, and a slice.
const PART_START: u32 = 0;
const PART_END: u32 = 1;
const PART_READ: u32 = 2;
/// Parts from here on are batches.
const PART_APPEND: u32 = 3;
/// How long a batch waits for its replicas before it counts as failed; answers are held for much less.
const APPEND_MS: u64 = 24 * 60 * 60 * 1_000;

/// A coordinator and what it has to do with its partition.
struct Led {
    coordinator: Coordinator,
    leader_epoch: i32,
    /// The log directory of the partition.
    directory: u16,
    /// Tells its calls from those of an earlier life.
    life: u32,
    /// Batches that the partition has not answered, in order, and those behind them that it has.
    in_flight: VecDeque<(u64, bool)>,
    /// One of them failed.
    failed: bool,
    load: Option<Load>,
    wake_at_ms: Option<u64>,
}

/// The coordinators of one shard.
pub(super) struct Coordinators {
    shard: ShardId,
    node_id: i32,
    config: GroupConfig,
    codec: Codec,
    /// What they are told of the cluster.
    metadata: Metadata,
    /// The offsets topic; nil while there is none.
    topic_id: Uuid,
    /// By the view ([`ClusterView::leads_nothing`]).
    leads_nothing: bool,
    led: BTreeMap<i32, Led>,
    /// Answers for partitions that are not led here.
    unled: Coordinator,
    wakes: BTreeSet<(u64, i32)>,
    /// Partitions whose load has something to take in, the next one first.
    loading: VecDeque<i32>,
    /// Who asked, by token.
    waiting: FxHashMap<u64, ReplyTo>,
    token_next: u64,
    life_next: u32,
    failed_directories: BTreeSet<u16>,
    /// A clean stop has begun.
    closed: bool,
    steps: Vec<group::Output>,
    todo: VecDeque<Todo>,
    outputs: Vec<Output>,
}

impl std::fmt::Debug for Coordinators {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coordinators").field("led", &self.led.keys()).finish_non_exhaustive()
    }
}

impl Coordinators {
    pub(super) fn new(shard: ShardId, node: &NodeConfig) -> Self {
        let config = group_config(node);
        Self {
            shard,
            node_id: node.node_id,
            codec: Codec::from_id(node.group.offsets_topic_compression_codec).unwrap_or(Codec::None),
            metadata: Metadata::default(),
            topic_id: Uuid::nil(),
            leads_nothing: false,
            led: BTreeMap::new(),
            unled: Coordinator::new(config.clone()),
            config,
            wakes: BTreeSet::new(),
            loading: VecDeque::new(),
            waiting: FxHashMap::default(),
            token_next: 1,
            life_next: 1,
            failed_directories: BTreeSet::new(),
            closed: false,
            steps: Vec::new(),
            todo: VecDeque::new(),
            outputs: Vec::new(),
        }
    }

    /// Whether an answer is for a coordinator.
    pub(super) fn is_addressed(to: ReplyTo) -> bool {
        to.connection == COORDINATOR
    }

    /// Leads what a new view says is led here, and nothing else.
    pub(super) fn reconcile(&mut self, now: Now, view: &ClusterView) {
        if self.closed {
            return;
        }
        self.learn(now, view);
        let topic = view.image.topic(OFFSETS_TOPIC);
        let topic_id = topic.map_or(Uuid::nil(), |topic| topic.id);
        let is_news = std::mem::replace(&mut self.leads_nothing, view.leads_nothing) != view.leads_nothing;
        if topic_id != self.topic_id {
            self.resign_all(now);
            self.topic_id = topic_id;
        } else if !is_news && !view.changed.contains(&topic_id) {
            return;
        }
        let Some(topic) = topic else { return };
        let mut min_isr = 1;
        if let Some(config) = view.topic_configs.get(&topic_id) {
            self.config.batch_bytes_max = usize::try_from(config.max_message_bytes).unwrap_or(usize::MAX);
            min_isr = usize::try_from(config.min_insync_replicas).unwrap_or(1);
        }
        for (index, image) in (0..).zip(&topic.partitions) {
            let here = view.placement.shard_of(topic_id, index).filter(|(shard, _)| *shard == self.shard);
            let here = here.filter(|(_, directory)| !self.failed_directories.contains(directory));
            let here = here.filter(|_| image.leader == self.node_id && !self.leads_nothing);
            match (here, self.led.get_mut(&index)) {
                (Some(_), Some(led)) if led.leader_epoch == image.leader_epoch => {
                    led.coordinator.configure(self.config.clone());
                }
                (here, _) => {
                    self.resign(now, index);
                    if let Some((_, directory)) = here {
                        self.lead(now, index, image.leader_epoch, directory);
                    }
                }
            }
            if let Some(led) = self.led.get_mut(&index) {
                led.coordinator.set_short(image.isr.len() < min_isr.min(image.replicas.len()));
            }
        }
    }

    /// Tells every coordinator what is new in the cluster.
    fn learn(&mut self, now: Now, view: &ClusterView) {
        let news = self.metadata.take(view);
        let led: Vec<i32> = self.led.keys().copied().collect();
        for partition in led {
            for one in &news {
                self.step(now, partition, one.clone());
            }
        }
    }

    fn lead(&mut self, now: Now, partition: i32, leader_epoch: i32, directory: u16) {
        let life = self.new_life();
        let led = Led {
            coordinator: Coordinator::new(self.config.clone()),
            leader_epoch,
            directory,
            life,
            in_flight: VecDeque::new(),
            failed: false,
            load: None,
            wake_at_ms: None,
        };
        self.led.insert(partition, led);
        for known in self.metadata.known() {
            self.step(now, partition, known);
        }
        self.step(now, partition, Input::Lead);
    }

    fn resign(&mut self, now: Now, partition: i32) {
        self.step(now, partition, Input::Resign);
        self.set_wake(partition, None);
        self.led.remove(&partition);
    }

    fn resign_all(&mut self, now: Now) {
        let led: Vec<i32> = self.led.keys().copied().collect();
        led.into_iter().for_each(|partition| self.resign(now, partition));
    }

    /// A clean stop: nothing is coordinated here any more.
    pub(super) fn close(&mut self, now: Now) {
        self.closed = true;
        self.resign_all(now);
    }

    /// A log directory failed: what is led from it is not led any more.
    pub(super) fn fail_directory(&mut self, now: Now, directory: u16) {
        self.failed_directories.insert(directory);
        let there = self.led.iter().filter(|(_, led)| led.directory == directory);
        let there: Vec<i32> = there.map(|(partition, _)| *partition).collect();
        there.into_iter().for_each(|partition| self.resign(now, partition));
    }

    /// The offsets that were committed for topics go with them.
    pub(super) fn topics_deleted(&mut self, now: Now, topics: &BTreeSet<Arc<str>>) {
        let led: Vec<i32> = self.led.keys().copied().collect();
        for partition in led {
            self.step(now, partition, Input::TopicsDeleted { topics: topics.clone() });
        }
    }

    /// A replica of this shard leads: its log can be read.
    pub(super) fn began_to_lead(&mut self, topic_id: Uuid, partition: i32) {
        if topic_id == self.topic_id {
            self.load_again(partition);
        }
    }

    /// A request of a connection.
    pub(super) fn request(&mut self, now: Now, asked: Coordination) {
        let Coordination { partition, to, request } = asked;
        let token = self.token_next;
        self.token_next += 1;
        self.waiting.insert(token, to);
        self.step(now, partition, Input::Request { token, request });
    }

    /// The partition has answered.
    pub(super) fn answered(&mut self, now: Now, to: ReplyTo, answer: Answer, span: Option<ByteSpan>) {
        let Some(partition) = self.addressee(to) else { return };
        match to.part {
            PART_START | PART_END | PART_READ => self.load_answered(now, partition, to.part, answer, span),
            part => self.append_answered(now, partition, part, &answer),
        }
    }

    /// What a span covers was read.
    pub(super) fn span_read(&mut self, now: Now, to: ReplyTo, result: FileResult) {
        if let Some(partition) = self.addressee(to) {
            self.load_read(now, partition, result);
        }
    }

    /// The partition of a coordinator that still waits for this.
    fn addressee(&self, to: ReplyTo) -> Option<i32> {
        let partition = i32::try_from(to.request).ok()?;
        self.led.get(&partition).filter(|led| led.life == to.generation).map(|_| partition)
    }

    /// Whether a call was made by a coordinator that is not there any more, or has begun anew since.
    fn has_left(&self, call: &Call) -> bool {
        Self::is_addressed(call.to) && self.addressee(call.to).is_none()
    }

    fn append_answered(&mut self, now: Now, partition: i32, part: u32, answer: &Answer) {
        let Some(led) = self.led.get_mut(&partition) else { return };
        let Some(place) = led.in_flight.iter_mut().find(|(batch, _)| part_of(*batch) == part) else { return };
        place.1 = true;
        let fails = !matches!(answer, Answer::Appended { .. });
        let is_first_failure = fails && !led.failed;
        led.failed |= fails;
        let mut committed = None;
        while let Some((batch, _)) = led.in_flight.pop_front_if(|(_, answered)| *answered) {
            committed = Some(batch);
        }
        let (failed, is_idle) = (led.failed, led.in_flight.is_empty());
        match committed {
            Some(batch) if !failed => return self.step(now, partition, Input::Committed { batch }),
            _ => {}
        }
        if is_first_failure {
            self.step(now, partition, Input::Resign);
        }
        if failed && is_idle {
            if let Some(led) = self.led.get_mut(&partition) {
                led.failed = false;
            }
            self.step(now, partition, Input::Lead);
        }
    }

    pub(super) fn next_wake_ms(&self) -> Option<u64> {
        let at_once = self.loading.front().map(|_| 0);
        at_once.or_else(|| self.wakes.first().map(|(at_ms, _)| *at_ms))
    }

    pub(super) fn wake(&mut self, now: Now) {
        self.load_turn(now);
        let due = self.wakes.iter().take_while(|(at_ms, _)| *at_ms <= now.mono_ms);
        let due: Vec<i32> = due.map(|(_, partition)| *partition).collect();
        for partition in due {
            self.set_wake(partition, None);
            if self.led.get(&partition).is_some_and(|led| led.load.is_some()) {
                self.load_wake(partition);
            } else {
                self.step(now, partition, Input::Tick);
            }
        }
    }

    fn set_wake(&mut self, partition: i32, at_ms: Option<u64>) {
        let Some(led) = self.led.get_mut(&partition) else { return };
        if let Some(before_ms) = std::mem::replace(&mut led.wake_at_ms, at_ms) {
            self.wakes.remove(&(before_ms, partition));
        }
        self.wakes.extend(at_ms.map(|at_ms| (at_ms, partition)));
    }

    fn new_life(&mut self) -> u32 {
        self.life_next = self.life_next.wrapping_add(1);
        self.life_next
    }

    fn address(&self, partition: i32, part: u32) -> ReplyTo {
        let generation = self.led.get(&partition).map_or(0, |led| led.life);
        let request = partition.unsigned_abs();
        ReplyTo { shard: self.shard.0, connection: COORDINATOR, generation, request, part }
    }

    fn call(&mut self, partition: i32, part: u32, op: Op) {
        let to = self.address(partition, part);
        self.todo.push_back(Todo::Call(Call { topic_id: self.topic_id, partition, to, op }));
    }

    /// Steps a coordinator and carries out what it wants; one that is not here answers that it is not.
    fn step(&mut self, now: Now, partition: i32, input: Input) {
        let mut steps = std::mem::take(&mut self.steps);
        match self.led.get_mut(&partition) {
            Some(led) => led.coordinator.step(now, input, &mut steps),
            None => self.unled.step(now, input, &mut steps),
        }
        for output in steps.drain(..) {
            self.carry(now, partition, output);
        }
        self.steps = steps;
    }

    fn carry(&mut self, now: Now, partition: i32, output: group::Output) {
        match output {
            group::Output::Load { load } => self.begin_load(partition, load),
            group::Output::Append { batch, records } => {
                let Some(led) = self.led.get_mut(&partition) else { return };
                led.in_flight.push_back((batch, false));
                let checked = batches::encode(&records, self.codec, now.wall_ms);
                let deadline_ms = now.mono_ms.saturating_add(APPEND_MS);
                let op = Op::Append { batch: checked, acks: Acks::All, deadline_ms };
                self.call(partition, part_of(batch), op);
                if is_planted(Bug::CommitBeforeWrite) {
                    self.step(now, partition, Input::Committed { batch });
                }
            }
            group::Output::Answer { token, response } => self.answer(token, response),
            group::Output::WakeAt(at_ms) => self.set_wake(partition, Some(at_ms)),
            group::Output::LoadFailed(why) => self.say_load_failed(partition, &why),
        }
    }

    fn answer(&mut self, token: u64, response: Response) {
        let Some(to) = self.waiting.remove(&token) else { return };
        let (todo, output) = reply(self.shard, to, Answered::Coordinator(Box::new(response)));
        self.todo.extend(todo);
        self.outputs.extend(output);
    }
}

/// The part of a batch's address. Batches in flight have numbers close to each other.
fn part_of(batch: u64) -> u32 {
    PART_APPEND + (batch % u64::from(u32::MAX - PART_APPEND)) as u32
}

impl Shard {
    /// The removal of topics, new leaders and new limits reach the coordinators.
    pub(super) fn reconcile_coordinators(&mut self, now: Now, removed: &[Arc<str>]) {
        self.coordinators.reconcile(now, &self.view);
        // What was decided under an earlier leadership and did not reach the partition must not be appended under
        // the next one: whoever asked was told that this is not the coordinator.
        let coordinators = &self.coordinators;
        self.todo.retain(|todo| !matches!(todo, Todo::Call(call) if coordinators.has_left(call)));
        if !removed.is_empty() {
            self.coordinators.topics_deleted(now, &removed.iter().cloned().collect());
        }
        self.drain_coordinators();
    }

    /// What a span covers was read for a coordinator.
    pub fn span_read(&mut self, now: Now, to: ReplyTo, result: FileResult) {
        self.coordinators.span_read(now, to, result);
        self.drain_coordinators();
        self.work(now);
    }

    /// Hands on what coordinators want done.
    pub(super) fn drain_coordinators(&mut self) {
        self.todo.append(&mut self.coordinators.todo);
        self.outputs.append(&mut self.coordinators.outputs);
    }
}
