//! The replicas of one shard: opened, changed and retired as each view says, stepped by slot.
//!
//! A slot is given back only when its replica is gone and none of its operations is in flight,
//! so a late completion never reaches a successor.

mod found;
mod leaving;
mod moving;
mod opening;
mod progress;
mod recovered;
mod replication;
mod retention;
mod throttle;
mod throttles;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use slab::Slab;
use uuid::Uuid;

pub use self::found::{DirectoryFacts, FoundReplica, Opened};
use self::moving::{Future, Moves};
use self::opening::Opening;
use self::progress::progress;
use self::replication::{Replication, as_before};
use self::retention::Round;
use self::throttles::Throttles;
use super::message::{Delivery, Output, Owner, Progress};
use crate::config::{NodeConfig, TopicConfig};
use crate::controller::{PartitionImage, ShardId};
use crate::effect::{FileResult, Now, OpQueue, Ticket};
use crate::log::{Log, RecoveryPlan};
use crate::partition::{Answer, Effect, Op, Partition};
use crate::planted::{Bug, is_planted};
use crate::request::{Call, ClusterView};
use crate::wire::ErrorCode;

/// How many batches that were sent away are remembered while a log is being recovered.
const REFUSED_MAX: usize = 1000;

#[derive(Debug)]
struct Slot {
    topic_id: Uuid,
    topic: Arc<str>,
    partition: i32,
    directory: u16,
    state: State,
    /// Operations handed to the shell whose completion is still to come.
    in_flight: u32,
    wake_at_ms: Option<u64>,
}

#[derive(Debug)]
enum State {
    /// Its log is being recovered; what the Image says meanwhile is read again afterwards.
    Opening(Box<Opening>),
    /// It serves.
    Open(Box<Partition>),
    /// Its log cannot be opened, or its log directory failed before it was: nothing of it is
    /// served or changed.
    Offline(FoundReplica),
    /// It is a copy, on its way to become the replica in another slot.
    Future(Box<Future>),
    /// Its topic is deleted, or it is assigned elsewhere, and its log was never opened, or it has moved: the directory
    /// goes without it.
    Removing(OpQueue<()>),
    /// It is closed or deleted.
    Gone,
}

/// The replicas of one shard.
#[derive(Debug)]
pub struct Replicas {
    shard: ShardId,
    node_id: i32,
    directories: Arc<[DirectoryFacts]>,
    /// Names of topics that were removed since the start: what it found under them was theirs.
    outdated: BTreeSet<Arc<str>>,
    /// Replicas that the start found, by log directory, and that this node is not to have, or had not to since.
    left: BTreeSet<(Arc<str>, i32, u16)>,
    slots: Slab<Slot>,
    by_partition: BTreeMap<(Uuid, i32), u32>,
    /// Slots that want the end of the turn.
    dirty: Vec<u32>,
    wakes: BTreeSet<(u64, u32)>,
    effects: Vec<Effect>,
    deliveries: VecDeque<Delivery>,
    /// Replicas that have begun to lead.
    leading: Vec<(Uuid, i32)>,
    closed: Vec<Progress>,
    /// Removed replicas whose directory still has its old name.
    retiring: BTreeSet<u32>,
    /// Log directories known to have failed.
    failed: BTreeSet<u16>,
    failed_untold: Vec<u16>,
    /// A clean stop has begun.
    closing: bool,
    round: Round,
    /// Log starts to be stored.
    log_starts: Vec<Progress>,
    replication: Replication,
    throttles: Throttles,
    moves: Moves,
    pub(super) outputs: Vec<Output>,
}

impl Replicas {
    pub(super) fn new(shard: ShardId, config: &NodeConfig, directories: Arc<[DirectoryFacts]>) -> Self {
        let leftovers = (0..)
            .zip(directories.iter())
            .flat_map(|(number, facts)| facts.futures.iter().map(move |name| (number, name.clone())));
        let moves = Moves::new(config, leftovers.collect());
        Self {
            shard,
            node_id: config.node_id,
            directories,
            outdated: BTreeSet::new(),
            left: BTreeSet::new(),
            slots: Slab::new(),
            by_partition: BTreeMap::new(),
            dirty: Vec::new(),
            wakes: BTreeSet::new(),
            effects: Vec::new(),
            deliveries: VecDeque::new(),
            leading: Vec::new(),
            closed: Vec::new(),
            retiring: BTreeSet::new(),
            failed: BTreeSet::new(),
            failed_untold: Vec::new(),
            closing: false,
            round: Round::new(config),
            log_starts: Vec::new(),
            replication: Replication::new(config),
            throttles: Throttles::new(config),
            moves,
            outputs: Vec::new(),
        }
    }

    /// The replica in a slot, if it serves.
    pub fn partition(&self, slot: u32) -> Option<&Partition> {
        match &self.slots.get(slot as usize)?.state {
            State::Open(partition) => Some(partition),
            _ => None,
        }
    }

    /// How many replicas are being recovered.
    pub fn opening(&self) -> usize {
        self.slots.iter().filter(|(_, slot)| matches!(slot.state, State::Opening(_))).count()
    }

    /// These topics are removed. A topic made again under the name of one gets none of its offsets;
    /// a directory that is still there is looked at, since it may be no topic's any more.
    pub(super) fn outdate<'a>(&mut self, names: impl Iterator<Item = &'a Arc<str>>) {
        for name in names {
            let first = (name.to_string(), i32::MIN);
            let has = |facts: &DirectoryFacts| {
                facts.found.range(&first..).next().is_some_and(|((topic, _), _)| **topic == **name)
            };
            if self.directories.iter().any(has) {
                self.outdated.insert(Arc::clone(name));
            }
        }
    }

    /// Brings the replicas from what the view before says to what a view says of the topics it changed.
    pub(super) fn reconcile(&mut self, now: Now, before: &ClusterView, view: &ClusterView) {
        let brokers_changed = self.replication.take_brokers(&view.image);
        let leads_changed = self.replication.take_leads_nothing(view.leads_nothing);
        let removed = view.removed.iter().filter(|_| !is_planted(Bug::ReplicaOutlivesTopic));
        for topic_id in removed {
            let slots: Vec<u32> = self
                .by_partition
                .range((*topic_id, i32::MIN)..=(*topic_id, i32::MAX))
                .map(|(_, s)| *s)
                .collect();
            for slot in slots {
                self.retire(now, slot);
            }
        }
        for topic_id in view.changed.iter() {
            let Some(topic) = view.image.topic_by_id(*topic_id) else { continue };
            let Some(config) = view.topic_configs.get(topic_id) else { continue };
            self.review_found(topic, before, view);
            let is_as_before = as_before(before, view, topic);
            for (index, image) in (0..).zip(&topic.partitions) {
                if is_as_before(index, image) {
                    continue;
                }
                let Some((shard, directory)) = view.placement.shard_of(*topic_id, index) else {
                    self.leave(now, (*topic_id, index), image);
                    continue;
                };
                if shard != self.shard {
                    continue;
                }
                match self.by_partition.get(&(*topic_id, index)).copied() {
                    Some(slot) => self.change(now, slot, image, config),
                    None if !image.replicas.contains(&self.node_id) => {}
                    // The next start creates it.
                    None if self.closing => {}
                    None => {
                        self.open(now, (*topic_id, Arc::clone(&topic.name), index), directory, image, config)
                    }
                }
            }
        }
        if brokers_changed || leads_changed {
            self.tell_brokers(now, view, leads_changed);
        }
        self.throttles.reconcile(view);
        self.limit_moves(now, view.config.replication_limits);
    }

    fn open(
        &mut self,
        now: Now,
        (topic_id, topic, partition): (Uuid, Arc<str>, i32),
        directory: u16,
        image: &PartitionImage,
        config: &Arc<TopicConfig>,
    ) {
        let name = format!("{topic}-{partition}");
        let facts = self.directories.get(usize::from(directory));
        let found = facts.and_then(|facts| facts.found.get(&(topic.to_string(), partition)).copied());
        let outdated = self.outdated.contains(&topic) || self.has_left(&topic, partition, directory);
        let plan = facts.zip(found).map(|(facts, found)| RecoveryPlan {
            topic_id,
            clean: facts.clean && !outdated,
            same_boot: facts.same_boot,
            recovery_point: if outdated { 0 } else { found.recovery_point },
            log_start_offset: if outdated { 0 } else { found.log_start_offset },
            config: Arc::clone(config),
            wall_ms: now.wall_ms,
        });
        let high_watermark = found.filter(|_| !outdated).map_or(0, |found| found.high_watermark);
        let state = if self.failed.contains(&directory) {
            State::Offline(found.unwrap_or_default())
        } else {
            State::Opening(Box::new(Opening::new(plan, high_watermark)))
        };
        let slot = self.slots.insert(Slot {
            topic_id,
            topic,
            partition,
            directory,
            state,
            in_flight: 0,
            wake_at_ms: None,
        }) as u32;
        self.by_partition.insert((topic_id, partition), slot);
        self.outputs.push(Output::Own { owner: Owner::Replica(slot), directory, name });
        if !self.recover(slot) {
            self.serve_new(now, slot, image, config);
        }
    }

    fn serve_new(&mut self, now: Now, slot: u32, image: &PartitionImage, config: &Arc<TopicConfig>) {
        let Some(entry) = self.slots.get(slot as usize) else { return };
        let log = Log::create(entry.topic_id, Arc::clone(config), now, jitter_seed(entry));
        self.serve(now, slot, log, image, config);
    }

    fn serve(&mut self, now: Now, slot: u32, log: Log, image: &PartitionImage, config: &Arc<TopicConfig>) {
        if let Some(entry) = self.slots.get_mut(slot as usize) {
            let mut partition = Partition::new(self.node_id, Arc::clone(config), log);
            let mut high_watermark = 0;
            if let State::Opening(opening) = &entry.state {
                opening.refused.iter().for_each(|batch| partition.sent_away(now, batch));
                high_watermark = opening.high_watermark;
            }
            partition.restore(high_watermark, self.replication.lag_max_ms);
            entry.state = State::Open(Box::new(partition));
        }
        let assignment = self.assignment(image);
        self.step(slot, |partition, effects| partition.assign(now, assignment, effects));
        let directory = self.slots.get(slot as usize).map(|entry| entry.directory);
        if directory.is_some_and(|directory| self.failed.contains(&directory)) {
            self.step(slot, |partition, effects| partition.fail(now, effects));
        }
        if self.closing {
            self.step(slot, |partition, effects| partition.close(now, effects));
        }
        self.take_up_move(now, slot);
    }

    fn change(&mut self, now: Now, slot: u32, image: &PartitionImage, config: &Arc<TopicConfig>) {
        let (config, assignment) = (Arc::clone(config), self.assignment(image));
        self.step(slot, |partition, effects| partition.change(now, config, assignment, effects));
    }

    fn retire(&mut self, now: Now, slot: u32) {
        let Some(entry) = self.slots.get_mut(slot as usize) else { return };
        self.by_partition.remove(&(entry.topic_id, entry.partition));
        self.retiring.insert(slot);
        if !self.may_retire(now, slot) {
            return;
        }
        let Some(entry) = self.slots.get(slot as usize) else { return };
        match &entry.state {
            // What is found is retired when the recovery ends.
            State::Opening(opening) if !opening.waits() => {}
            State::Opening(_) | State::Offline(_) => self.remove(slot),
            State::Open(_) => self.step(slot, |partition, effects| partition.retire(now, effects)),
            State::Removing(_) | State::Future(_) => {}
            State::Gone => drop(self.retiring.remove(&slot)),
        }
    }

    /// Whether a removed replica's directory still has its old name.
    pub(super) fn is_retiring(&self) -> bool {
        !self.retiring.is_empty()
    }

    fn set_gone(&mut self, slot: u32) {
        self.retiring.remove(&slot);
        if let Some(entry) = self.slots.get_mut(slot as usize) {
            entry.state = State::Gone;
        }
        self.tell(slot);
    }

    /// A request part for a partition that should be here, unless its topic is not known any more.
    pub(super) fn call(&mut self, now: Now, call: Call, topic_known: bool) {
        let slot = self.by_partition.get(&(call.topic_id, call.partition)).copied();
        let Some(mut call) = self.moves.keep(slot, call, topic_known) else { return };
        if let Op::Move { directory } = call.op {
            return self.move_to(now, slot, &call, directory);
        }
        self.throttle(now, slot, &mut call);
        let open = slot.filter(|slot| self.partition(*slot).is_some());
        match open {
            Some(slot) => {
                self.step(slot, |partition, effects| partition.call(now, call.to, call.op, effects));
            }
            None if matches!(call.op, Op::Unwatch | Op::Sent(_)) => {}
            None => {
                self.note_refused(slot, &call);
                let entry = slot.and_then(|slot| self.slots.get(slot as usize));
                let is_offline = entry.is_some_and(|entry| matches!(entry.state, State::Offline(_)));
                // Known and not served here (yet): the client asks again.
                let error = match (topic_known, is_offline) {
                    (true, true) => ErrorCode::KafkaStorageError,
                    (true, false) => ErrorCode::NotLeaderOrFollower,
                    (false, _) => ErrorCode::UnknownTopicOrPartition,
                };
                let answer = Answer::Failed { error, log_start_offset: -1 };
                self.deliveries.push_back(Delivery { to: call.to, answer, span: None });
            }
        }
    }

    pub(super) fn completed(
        &mut self,
        now: Now,
        slot: u32,
        ticket: Ticket,
        result: FileResult,
        view: &ClusterView,
    ) {
        if self.took_back(now, slot, ticket, &result) {
        } else if self.partition(slot).is_some() {
            self.step(slot, |partition, effects| partition.completed(now, ticket, result, effects));
        } else if self.is_future(slot) {
            self.future_completed(now, slot, ticket, result);
        } else {
            self.unopened_completed(now, slot, ticket, result, view);
        }
        self.operation_ended(slot);
        self.future_rests(now, slot);
    }

    /// An operation of this slot has ended; the last one of a gone replica frees the slot.
    pub(super) fn operation_ended(&mut self, slot: u32) {
        let Some(entry) = self.slots.get_mut(slot as usize) else { return };
        assert!(entry.in_flight > 0, "an operation completes once");
        entry.in_flight -= 1;
        self.free_if_gone(slot);
    }

    fn free_if_gone(&mut self, slot: u32) {
        let Some(entry) = self.slots.get(slot as usize) else { return };
        if entry.in_flight > 0 || !matches!(entry.state, State::Gone) {
            return;
        }
        let entry = self.slots.remove(slot as usize);
        let replica = (entry.topic_id, entry.partition);
        // It may be here again, in another slot.
        if self.by_partition.get(&replica).is_none_or(|other| *other == slot) {
            self.by_partition.remove(&replica);
            self.replication.forget(replica);
        }
        if let Some(at_ms) = entry.wake_at_ms {
            self.wakes.remove(&(at_ms, slot));
        }
        self.outputs.push(Output::Disown(Owner::Replica(slot)));
    }

    pub(super) fn end_turn(&mut self, now: Now) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for slot in dirty.drain(..) {
            self.step(slot, |partition, effects| partition.end_turn(now, effects));
        }
        // Nothing asks for an end of turn while it ends; keep the buffer.
        if self.dirty.is_empty() {
            self.dirty = dirty;
        }
    }

    /// Gives back what a burst has taken.
    pub(super) fn shrink_to(&mut self, kept: usize) {
        self.outputs.shrink_to(kept);
        self.deliveries.shrink_to(kept);
    }

    pub(super) fn next_wake_ms(&self) -> Option<u64> {
        let wake = self.wakes.first().map(|(at_ms, _)| *at_ms);
        [wake, self.next_round_ms()].into_iter().flatten().min()
    }

    pub(super) fn wake(&mut self, now: Now) {
        self.go_round(now);
        // Only as many as are due now: one that asked for a time that is over would keep the shard here for ever.
        let due = self.wakes.range(..=(now.mono_ms, u32::MAX)).count();
        for _ in 0..due {
            let Some((_, slot)) = self.wakes.pop_first() else { return };
            if let Some(entry) = self.slots.get_mut(slot as usize) {
                entry.wake_at_ms = None;
            }
            self.recover_again(slot);
            self.step(slot, |partition, effects| partition.wake(now, effects));
            self.wake_move(now, slot);
        }
    }

    /// Begins the clean stop of every replica; one whose log is not open yet is closed when it is.
    pub(super) fn close(&mut self, now: Now) {
        self.closing = true;
        self.close_moves(now);
        let slots: Vec<u32> = self.slots.iter().map(|(slot, _)| slot as u32).collect();
        for slot in slots.into_iter().filter(|slot| !self.moves.holds(*slot)).collect::<Vec<_>>() {
            self.close_unopened(slot);
            self.step(slot, |partition, effects| partition.close(now, effects));
        }
    }

    fn fail(&mut self, directory: u16) {
        if self.failed.insert(directory) {
            self.failed_untold.push(directory);
        }
    }

    /// A log directory whose failure is news.
    pub(super) fn take_failed_directory(&mut self) -> Option<u16> {
        self.failed_untold.pop()
    }

    /// Takes every replica in a failed log directory offline.
    pub(super) fn fail_directory(&mut self, now: Now, directory: u16) {
        self.failed.insert(directory);
        let there = self.slots.iter().filter(|(_, slot)| slot.directory == directory);
        let slots: Vec<u32> = there.map(|(slot, _)| slot as u32).collect();
        for slot in slots {
            self.fail_unopened(slot);
            self.step(slot, |partition, effects| partition.fail(now, effects));
            if self.partition(slot).is_some() {
                // Its directory is never renamed now, and nobody waits for that.
                self.retiring.remove(&slot);
            }
        }
        self.fail_moves(now, directory);
    }

    pub(super) fn all_gone(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn closed_progress(&mut self) -> Vec<Progress> {
        std::mem::take(&mut self.closed)
    }

    /// Forgets producers that have been silent for too long (`producer.id.expiration.ms`).
    pub(super) fn expire_producers(&mut self, now: Now, expiration_ms: i64) {
        for (_, slot) in &mut self.slots {
            if let State::Open(partition) = &mut slot.state {
                partition.expire_producers(now, expiration_ms);
            }
        }
    }

    /// How far each serving replica has got; not those that wait for their deletion, whose names
    /// may be others' by now.
    pub(super) fn progress(&self) -> Vec<Progress> {
        self.by_partition.values().filter_map(|slot| progress(self.slots.get(*slot as usize)?)).collect()
    }

    /// A replica that has begun to lead.
    pub(super) fn take_leading(&mut self) -> Option<(Uuid, i32)> {
        self.leading.pop()
    }

    pub(super) fn take_delivery(&mut self) -> Option<Delivery> {
        self.deliveries.pop_front()
    }

    fn count_operation(&mut self, slot: u32) {
        if let Some(entry) = self.slots.get_mut(slot as usize) {
            entry.in_flight += 1;
        }
    }

    /// Steps one replica and carries its effects on.
    fn step(&mut self, slot: u32, step: impl FnOnce(&mut Partition, &mut Vec<Effect>)) {
        let Some(entry) = self.slots.get_mut(slot as usize) else { return };
        let State::Open(partition) = &mut entry.state else { return };
        let mut effects = std::mem::take(&mut self.effects);
        let led = partition.is_leader();
        step(partition, &mut effects);
        if !led && partition.is_leader() {
            self.leading.push((entry.topic_id, entry.partition));
        }
        let wake_at_ms = partition.next_wake_ms();
        if wake_at_ms.is_some_and(|at| entry.wake_at_ms.is_none_or(|registered| at < registered)) {
            if let Some(registered) = entry.wake_at_ms {
                self.wakes.remove(&(registered, slot));
            }
            entry.wake_at_ms = wake_at_ms;
            self.wakes.extend(wake_at_ms.map(|at| (at, slot)));
        }
        for effect in effects.drain(..) {
            self.carry(slot, effect);
        }
        self.effects = effects;
    }

    fn carry(&mut self, slot: u32, effect: Effect) {
        match effect {
            Effect::File(ticket, op) => {
                self.count_operation(slot);
                self.outputs.push(Output::File(Owner::Replica(slot), ticket, op));
            }
            Effect::Reply(to, Answer::Read(found)) if found.span.is_some() => {
                self.count_operation(slot);
                self.outputs.push(Output::Open { slot, to, found });
            }
            Effect::Reply(to, Answer::Size(size_bytes)) => {
                let answer = self.placed(slot, size_bytes);
                self.deliveries.push_back(Delivery { to, answer, span: None });
            }
            Effect::Reply(to, answer) => self.deliveries.push_back(Delivery { to, answer, span: None }),
            Effect::EndTurn => self.dirty.push(slot),
            Effect::StoreLogStart(_) | Effect::LowerLogStart(_) => {
                let lowers = matches!(effect, Effect::LowerLogStart(_));
                let told = self.slots.get(slot as usize).and_then(progress);
                self.log_starts.extend(told.map(|told| Progress { lowers, ..told }));
            }
            Effect::Retired => drop(self.retiring.remove(&slot)),
            Effect::Gone => self.gone(slot),
            Effect::Following | Effect::AlterIsr(_) => self.note_replication(slot, effect),
            Effect::Offline => {
                self.retiring.remove(&slot);
                let directory = self.slots.get(slot as usize).map(|entry| entry.directory);
                directory.into_iter().for_each(|directory| self.fail(directory));
            }
        }
    }

    fn gone(&mut self, slot: u32) {
        self.retiring.remove(&slot);
        let Some(entry) = self.slots.get_mut(slot as usize) else { return };
        let known = self.by_partition.contains_key(&(entry.topic_id, entry.partition));
        self.closed.extend(progress(entry).filter(|_| known));
        entry.state = State::Gone;
        self.free_if_gone(slot);
    }
}

/// Spreads rolls by age: the same replica gets the same jitter at each start.
fn jitter_seed(slot: &Slot) -> u64 {
    let (high, low) = slot.topic_id.as_u64_pair();
    high ^ low ^ (slot.partition as u64)
}
