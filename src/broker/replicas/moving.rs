//! Replicas on their way to another log directory (KIP-113): what is copied next, when a replica is held for the
//! rest, and what becomes of a move that cannot go on. `log::future` tells how a move goes; this is its host.
//!
//! A future replica has a slot of its own. When it is complete and has the replica's name, the partition changes into
//! that slot, and the slot that it leaves deletes its folder: no late completion of an operation over there can meet
//! the files over here.
//!
//! While a replica is held its calls wait here, for as long as the rest of the copy, three syncs and a rename take.
//! If that is more than a second they are served first, and it is tried again. From the rename on there is no way
//! back but one: a directory that fails then may come back with a folder that counts as the replica, so the one that
//! goes on here says first that it counts more.

mod asked;
mod ending;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::progress::progress;
use super::throttle::Throttle;
use super::{Output, Owner, Progress, Replicas, Slot, State};
use crate::broker::message::Moved;
use crate::config::{NodeConfig, ReplicationLimits};
use crate::effect::{FileError, FileOp, FileResult, Now, OpQueue, Ticket};
use crate::log::{FutureCopy, FutureEvent, future_name, is_future_of};
use crate::partition::{Answer, Placed, PlacedFuture, ReplyTo};
use crate::request::Call;
use crate::wire::ErrorCode;

/// How long calls wait at most, before the rename.
const HOLD_MS: u64 = 1_000;
/// How long it takes until a replica is held again, after that was too long or could not be.
const AGAIN_MS: u64 = 1_000;
/// The same where only something short was on its way.
const SOON_MS: u64 = 20;

/// Where a move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The log is copied, while it is written.
    Copying,
    /// The replica is held, until this time: what is on its way ends.
    Draining(u64),
    /// The log start goes into the other directory's checkpoint.
    Storing(u64),
    /// The rest is copied, and the folder gets its name.
    Finishing(u64),
}

/// What becomes of a future replica that is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Its folder is deleted.
    Discard,
    /// Its folder stays, for the next start.
    Leave,
}

/// A future replica.
#[derive(Debug)]
pub(super) struct Future {
    copy: FutureCopy,
    stage: Stage,
    ends: Option<End>,
    /// Nothing is tried before.
    again_ms: u64,
    /// The replica is not held before.
    hold_again_ms: u64,
}

/// A count of moves on its way into the folder of a replica that stays.
#[derive(Debug)]
struct TakingBack {
    ops: VecDeque<FileOp>,
    in_flight: Option<(Ticket, FileOp)>,
}

/// The moves of one shard.
#[derive(Debug)]
pub(super) struct Moves {
    throttle: Throttle,
    limits: ReplicationLimits,
    /// Shards that share the rate.
    shards: u16,
    /// Slot of the future replica, by that of the replica.
    by_replica: BTreeMap<u32, u32>,
    /// Calls that wait, of replicas that are held, and whether their topics were known.
    held: BTreeMap<u32, VecDeque<(Call, bool)>>,
    taking_back: BTreeMap<u32, TakingBack>,
    /// Replicas that are to go as soon as their move is over.
    retire_later: BTreeSet<u32>,
    /// Folders of future replicas that the start found, by log directory.
    leftovers: Vec<(u16, String)>,
    /// Who waits until a start would know of a move, or of its end, by the slot of the future replica.
    asked: BTreeMap<u32, Vec<ReplyTo>>,
    attempt: u64,
    moved: Vec<Moved>,
}

impl Moves {
    pub(super) fn new(config: &NodeConfig, leftovers: Vec<(u16, String)>) -> Self {
        let limits = config.replication_limits;
        Self {
            throttle: Throttle::new(limits.moves_windows, limits.moves_window_ms),
            limits,
            shards: 1,
            by_replica: BTreeMap::new(),
            held: BTreeMap::new(),
            taking_back: BTreeMap::new(),
            retire_later: BTreeSet::new(),
            leftovers,
            asked: BTreeMap::new(),
            attempt: 0,
            moved: Vec::new(),
        }
    }

    /// Takes over the rate: this shard's part of it.
    pub(super) fn limit(&mut self, limits: ReplicationLimits, shards: Option<u16>) {
        self.limits = limits;
        self.shards = shards.unwrap_or(self.shards).max(1);
        self.throttle.set_limit(limits.moves_bytes_per_s / u64::from(self.shards));
    }

    /// Has a call wait, if its replica is held.
    pub(super) fn keep(&mut self, slot: Option<u32>, call: Call, topic_known: bool) -> Option<Call> {
        match slot.and_then(|slot| self.held.get_mut(&slot)) {
            Some(waiting) => {
                waiting.push_back((call, topic_known));
                None
            }
            None => Some(call),
        }
    }

    /// Whether a replica is held.
    pub(super) fn holds(&self, slot: u32) -> bool {
        self.held.contains_key(&slot)
    }
}

/// What a move wants next.
enum Step {
    Op(Ticket, FileOp),
    WaitUntil(u64),
    Hold,
    Release,
    Store,
    Swap,
}

impl Replicas {
    /// So many shards of the node share its rates.
    pub(in crate::broker) fn share_rates(&mut self, shards: u16) {
        self.moves.limit(self.moves.limits, Some(shards));
    }

    /// Takes over the rates: copies that waited for their time at the old one look again.
    pub(super) fn limit_moves(&mut self, now: Now, limits: ReplicationLimits) {
        if self.moves.limits == limits {
            return;
        }
        self.moves.limit(limits, None);
        let moving: Vec<u32> = self.moves.by_replica.keys().copied().collect();
        moving.into_iter().for_each(|slot| self.go_on(now, slot));
    }

    /// Replicas that are in another log directory now.
    pub(in crate::broker) fn take_moved(&mut self) -> Vec<Moved> {
        std::mem::take(&mut self.moves.moved)
    }

    /// A replica is to be in this log directory.
    pub(super) fn move_to(&mut self, now: Now, slot: Option<u32>, call: &Call, directory: u16) {
        let answer = match self.try_move(now, slot, directory) {
            Ok(Some(beside)) => {
                self.moves.asked.entry(beside).or_default().push(call.to);
                return self.tell(beside);
            }
            Ok(None) => Answer::Moves,
            Err(error) => Answer::Failed { error, log_start_offset: -1 },
        };
        self.deliveries.push_back(super::Delivery { to: call.to, answer, span: None });
    }

    /// Begins a move, or ends one; the slot beside the replica's from which on a start knows of it too, if that is to
    /// be waited for.
    fn try_move(&mut self, now: Now, slot: Option<u32>, directory: u16) -> Result<Option<u32>, ErrorCode> {
        if usize::from(directory) >= self.directories.len() {
            return Err(ErrorCode::LogDirNotFound);
        }
        if self.failed.contains(&directory) {
            return Err(ErrorCode::KafkaStorageError);
        }
        let slot = slot.ok_or(ErrorCode::ReplicaNotAvailable)?;
        let entry = self.slots.get(slot as usize).ok_or(ErrorCode::ReplicaNotAvailable)?;
        match &entry.state {
            State::Open(partition) if partition.is_online() => {}
            State::Open(_) | State::Offline(_) => return Err(ErrorCode::KafkaStorageError),
            _ => return Err(ErrorCode::ReplicaNotAvailable),
        }
        let here = entry.directory;
        let present = self.moves.by_replica.get(&slot).copied();
        if let Some(future) = present {
            let target = self.slots.get(future as usize).map(|entry| entry.directory);
            if target == Some(directory) {
                return Ok(present);
            }
            self.give_up(now, slot, End::Discard);
        }
        if here == directory {
            return Ok(present);
        }
        self.begin_move(now, slot, directory, None);
        Ok(self.moves.by_replica.get(&slot).copied())
    }

    /// A move begins, in this folder where an earlier process began it.
    fn begin_move(&mut self, now: Now, slot: u32, directory: u16, folder: Option<String>) {
        self.moves.attempt = u64::try_from(now.wall_ms).unwrap_or(0).max(self.moves.attempt + 1);
        let attempt = self.moves.attempt;
        let Some(entry) = self.slots.get(slot as usize) else { return };
        let State::Open(partition) = &entry.state else { return };
        let name =
            folder.unwrap_or_else(|| future_name(&entry.topic, entry.partition, entry.topic_id, attempt));
        let future = Future {
            copy: FutureCopy::new(slot, partition.log()),
            stage: Stage::Copying,
            ends: None,
            again_ms: 0,
            hold_again_ms: 0,
        };
        let future = self.add_beside(slot, directory, name, State::Future(Box::new(future)));
        self.moves.by_replica.extend(future.map(|future| (slot, future)));
        self.go_on(now, slot);
    }

    /// Another slot of the same replica, with a folder of its own.
    fn add_beside(&mut self, slot: u32, directory: u16, name: String, state: State) -> Option<u32> {
        let entry = self.slots.get(slot as usize)?;
        let beside = Slot {
            topic_id: entry.topic_id,
            topic: Arc::clone(&entry.topic),
            partition: entry.partition,
            directory,
            state,
            in_flight: 0,
            wake_at_ms: None,
        };
        let beside = self.slots.insert(beside) as u32;
        self.outputs.push(Output::Own { owner: Owner::Replica(beside), directory, name });
        Some(beside)
    }

    /// Folders of future replicas that the start found: the move begins anew in the one that was wished for last, the
    /// others go.
    pub(super) fn take_up_move(&mut self, now: Now, slot: u32) {
        if self.moves.leftovers.is_empty() || self.closing {
            return;
        }
        let Some(entry) = self.slots.get(slot as usize) else { return };
        let (topic, partition, topic_id, here) =
            (Arc::clone(&entry.topic), entry.partition, entry.topic_id, entry.directory);
        let is_its = |(_, name): &mut (u16, String)| is_future_of(name, &topic, partition, topic_id);
        let mut found: Vec<(u16, String)> = self.moves.leftovers.extract_if(.., is_its).collect();
        // By the attempts in their names.
        found.sort_by(|(_, one), (_, other)| other.cmp(one));
        let mut target = None;
        for (directory, name) in found {
            if self.failed.contains(&directory) {
                continue;
            }
            if directory != here && target.is_none() {
                target = Some((directory, name));
                continue;
            }
            let mut queue = OpQueue::default();
            queue.plan(FileOp::DeleteDir, ());
            if let Some(beside) = self.add_beside(slot, directory, name, State::Removing(queue)) {
                self.emit_unopened(beside);
            }
        }
        if let Some((directory, name)) = target {
            self.begin_move(now, slot, directory, Some(name));
        }
    }

    /// Does what is to be done next for the move of a replica, if it moves.
    pub(super) fn go_on(&mut self, now: Now, slot: u32) {
        while let Some(future) = self.moves.by_replica.get(&slot).copied()
            && let Some(step) = self.next_step(now, slot, future)
        {
            match step {
                Step::Op(ticket, op) => {
                    self.count_operation(future);
                    self.outputs.push(Output::File(Owner::Replica(future), ticket, op));
                }
                Step::WaitUntil(at_ms) => return self.wake_at(future, at_ms),
                Step::Hold => self.hold(now, slot, future),
                Step::Release => self.release(now, slot, future),
                Step::Store => self.store_start_there(slot, future),
                Step::Swap => return self.swap(now, slot, future),
            }
        }
    }

    /// The time has come that a future replica waited for.
    pub(super) fn wake_move(&mut self, now: Now, slot: u32) {
        if let Some(State::Future(future)) = self.slots.get(slot as usize).map(|entry| &entry.state) {
            let replica = future.copy.replica();
            self.go_on(now, replica);
        }
        self.take_back_on(now, slot);
    }

    /// Whether what an earlier move left in the directory of a future replica still has the replica's name.
    fn is_occupied(&self, future: u32) -> bool {
        let place = |slot: u32| {
            self.slots.get(slot as usize).map(|entry| (entry.topic_id, entry.partition, entry.directory))
        };
        self.retiring.iter().any(|slot| place(*slot) == place(future))
    }

    fn next_step(&mut self, now: Now, slot: u32, future: u32) -> Option<Step> {
        let is_occupied = !self.retiring.is_empty() && self.is_occupied(future);
        let (source, target) = self.slots.get2_mut(slot as usize, future as usize)?;
        let (State::Open(partition), State::Future(future)) = (&mut source.state, &mut target.state) else {
            return None;
        };
        let is_lost = self.failed.contains(&source.directory) || self.failed.contains(&target.directory);
        if is_lost || future.ends.is_some() {
            return None;
        }
        let Future { copy, stage, again_ms, hold_again_ms, .. } = &mut **future;
        if let Stage::Draining(until_ms) | Stage::Storing(until_ms) | Stage::Finishing(until_ms) = stage
            && *until_ms <= now.mono_ms
            && !copy.is_committing()
        {
            return Some(Step::Release);
        }
        if copy.is_busy() {
            return None;
        }
        if *again_ms > now.mono_ms {
            return Some(Step::WaitUntil(*again_ms));
        }
        let is_still = partition.is_still() && source.in_flight == 0;
        match stage {
            Stage::Copying => {
                if copy.is_complete() {
                    copy.resume();
                }
                let is_near = partition.is_online() && copy.is_near(partition.log());
                if is_near && *hold_again_ms <= now.mono_ms {
                    return Some(Step::Hold);
                }
                if self.moves.limits.limits_moves() && copy.copies_records(partition.log()) {
                    let free_at_ms = self.moves.throttle.free_at_ms(now.mono_ms);
                    if free_at_ms > now.mono_ms {
                        return Some(Step::WaitUntil(free_at_ms));
                    }
                }
                match copy.next_op(partition.log()) {
                    Some((ticket, op)) => Some(Step::Op(ticket, op)),
                    None => is_near.then_some(Step::WaitUntil(*hold_again_ms)),
                }
            }
            Stage::Draining(_) if is_still => Some(Step::Store),
            Stage::Finishing(_) if copy.is_committed() => is_still.then_some(Step::Swap),
            Stage::Finishing(_) => {
                if copy.is_complete() && is_occupied {
                    return Some(Step::WaitUntil(now.mono_ms + SOON_MS));
                }
                if copy.is_complete() {
                    copy.commit(format!("{}-{}", target.topic, target.partition));
                }
                copy.next_op(partition.log()).map(|(ticket, op)| Step::Op(ticket, op))
            }
            Stage::Draining(_) | Stage::Storing(_) => None,
        }
    }

    fn future(&mut self, slot: u32) -> Option<&mut Future> {
        match &mut self.slots.get_mut(slot as usize)?.state {
            State::Future(future) => Some(future),
            _ => None,
        }
    }

    /// Little is missing: nothing of the replica begins any more, its calls wait.
    fn hold(&mut self, now: Now, slot: u32, future: u32) {
        let mut held = false;
        self.step(slot, |partition, effects| held = partition.hold(now, effects));
        let until_ms = now.mono_ms + HOLD_MS;
        if let Some(future) = self.future(future) {
            match held {
                true => future.stage = Stage::Draining(until_ms),
                false => future.hold_again_ms = now.mono_ms + SOON_MS,
            }
        }
        if held {
            self.moves.held.insert(slot, VecDeque::new());
            self.wake_at(future, until_ms);
        }
    }

    /// It took too long, or the device there is full: the replica goes on, and so does the copy.
    fn release(&mut self, now: Now, slot: u32, future: u32) {
        if let Some(future) = self.future(future) {
            future.stage = Stage::Copying;
            future.hold_again_ms = now.mono_ms + AGAIN_MS;
            future.copy.resume();
        }
        self.let_go(now, slot, slot, false);
    }

    /// The log start that counts here must count there, whatever the names of the segments say, and whatever an
    /// attempt that was given up has left in that checkpoint.
    fn store_start_there(&mut self, slot: u32, future: u32) {
        let Some((source, target)) = self.slots.get2_mut(slot as usize, future as usize) else { return };
        let State::Future(future) = &mut target.state else { return };
        let Stage::Draining(until_ms) = future.stage else { return };
        future.stage = Stage::Storing(until_ms);
        let there =
            progress(source).map(|told| Progress { directory: target.directory, lowers: true, ..told });
        self.log_starts.extend(there);
    }

    /// A log start is in the checkpoint of a log directory; whether a move waited for that.
    pub(super) fn start_is_there(&mut self, now: Now, stored: &Progress) -> bool {
        let replica = (stored.topic_id, stored.partition);
        let Some(slot) = self.by_partition.get(&replica).copied() else { return false };
        let Some(future) = self.moves.by_replica.get(&slot).copied() else { return false };
        if self.slots.get(future as usize).is_none_or(|entry| entry.directory != stored.directory) {
            return false;
        }
        // It may be that of an earlier attempt.
        let start = self.slots.get(slot as usize).and_then(progress).map(|told| told.log_start_offset);
        if let Some(future) = self.future(future)
            && let Stage::Storing(until_ms) = future.stage
            && start == Some(stored.log_start_offset)
        {
            future.stage = Stage::Finishing(until_ms);
        }
        self.go_on(now, slot);
        true
    }

    /// The replica goes on in the slot of its copy. Nothing of it is on its way.
    fn swap(&mut self, now: Now, slot: u32, future: u32) {
        let Some((source, target)) = self.slots.get2_mut(slot as usize, future as usize) else { return };
        if !matches!((&source.state, &target.state), (State::Open(_), State::Future(_))) {
            return;
        }
        let mut left = OpQueue::default();
        for op in [FileOp::RetireDir, FileOp::SyncParent, FileOp::DeleteDir] {
            left.plan(op, ());
        }
        target.state = std::mem::replace(&mut source.state, State::Removing(left));
        let replica = (target.topic_id, target.partition);
        let (from, to) = (source.directory, target.directory);
        let topic = Arc::clone(&target.topic);
        let moved = Moved { topic_id: replica.0, topic, partition: replica.1, from, to };
        self.moves.by_replica.remove(&slot);
        self.moves.moved.push(moved);
        if !self.moves.retire_later.contains(&slot) {
            self.by_partition.insert(replica, future);
        }
        self.retiring.insert(slot);
        self.emit_unopened(slot);
        self.let_go(now, slot, future, true);
    }

    /// A replica that was held goes on, in this slot or another one, and does what came for it meanwhile.
    fn let_go(&mut self, now: Now, slot: u32, goes_on_in: u32, moved: bool) {
        let Some(waiting) = self.moves.held.remove(&slot) else { return };
        self.step(goes_on_in, |partition, effects| partition.release(now, moved, effects));
        let retires = self.moves.retire_later.remove(&slot);
        if retires {
            if !moved {
                self.retiring.remove(&slot);
            }
            self.retiring.insert(goes_on_in);
            self.step(goes_on_in, |partition, effects| partition.retire(now, effects));
        }
        for (call, topic_known) in waiting {
            self.call(now, call, topic_known);
        }
        if self.closing {
            self.step(goes_on_in, |partition, effects| partition.close(now, effects));
        }
    }

    /// An operation of a future replica has ended.
    pub(super) fn future_completed(&mut self, now: Now, slot: u32, ticket: Ticket, result: FileResult) {
        let Some(replica) = self.future(slot).map(|future| future.copy.replica()) else { return };
        if self.moves.by_replica.get(&replica) != Some(&slot) {
            return;
        }
        let Some((source, target)) = self.slots.get2_mut(replica as usize, slot as usize) else { return };
        let (State::Open(partition), State::Future(future)) = (&source.state, &mut target.state) else {
            return;
        };
        let (here, there) = (source.directory, target.directory);
        let event = future.copy.completed(partition.log(), ticket, result);
        let (topic, index, is_committing) =
            (Arc::clone(&target.topic), target.partition, future.copy.is_committing());
        match event {
            FutureEvent::Going(bytes) if bytes > 0 => self.moves.throttle.record(now.mono_ms, bytes),
            FutureEvent::Going(_) | FutureEvent::Committed => {}
            FutureEvent::Full => {
                future.again_ms = now.mono_ms + AGAIN_MS;
                let is_held = future.stage != Stage::Copying && !future.copy.is_committing();
                self.wake_at(slot, now.mono_ms + AGAIN_MS);
                if is_held {
                    self.release(now, replica, slot);
                }
                if self.moves.asked.contains_key(&slot) {
                    // There is no room for the folder.
                    self.refuse_asked(slot, ErrorCode::KafkaStorageError);
                    self.give_up(now, replica, End::Discard);
                }
            }
            FutureEvent::SourceFailed(FileError::Io(_)) => self.fail(here),
            FutureEvent::TargetFailed(FileError::Io(_)) => self.fail(there),
            FutureEvent::TargetFailed(_) if is_committing => self.take_back(now, replica),
            event @ (FutureEvent::SourceFailed(_) | FutureEvent::TargetFailed(_) | FutureEvent::Occupied) => {
                let said = format!("{topic}-{index} cannot move to another log directory: {event:?}");
                self.outputs.push(Output::Say(said));
                self.refuse_asked(slot, ErrorCode::KafkaStorageError);
                self.give_up(now, replica, End::Discard);
            }
        }
        self.tell(slot);
    }

    pub(super) fn is_future(&self, slot: u32) -> bool {
        self.slots.get(slot as usize).is_some_and(|entry| matches!(entry.state, State::Future(_)))
    }

    /// A span of a replica was opened, or could not be.
    pub(in crate::broker) fn span_opened(&mut self, now: Now, slot: u32) {
        self.operation_ended(slot);
        self.future_rests(now, slot);
    }

    /// What follows when an operation is off the books: a move that was given up ends, another one goes on.
    pub(super) fn future_rests(&mut self, now: Now, slot: u32) {
        if !self.moves.by_replica.is_empty() {
            self.go_on(now, slot);
        }
        let Some(future) = self.future(slot) else { return };
        let (replica, ends) = (future.copy.replica(), future.ends.is_some());
        if ends { self.end_future(slot) } else { self.go_on(now, replica) }
    }

    /// Where a replica is, and its copy.
    pub(super) fn placed(&self, slot: u32, size_bytes: u64) -> Answer {
        let Some(entry) = self.slots.get(slot as usize) else { return Answer::Size(size_bytes) };
        let beside = self.moves.by_replica.get(&slot).and_then(|future| self.slots.get(*future as usize));
        let future = match (&entry.state, beside.map(|beside| (&beside.state, beside.directory))) {
            (State::Open(partition), Some((State::Future(future), directory))) => {
                let log = partition.log();
                let offset_lag = log.log_end().saturating_sub(future.copy.end_offset(log)).max(0);
                Some(PlacedFuture { directory, size_bytes: future.copy.size_bytes(), offset_lag })
            }
            _ => None,
        };
        Answer::Placed(Placed { directory: entry.directory, size_bytes, future })
    }

    /// Has a slot woken at this time, or before.
    fn wake_at(&mut self, slot: u32, at_ms: u64) {
        let Some(entry) = self.slots.get_mut(slot as usize) else { return };
        if entry.wake_at_ms.is_some_and(|registered| registered <= at_ms) {
            return;
        }
        if let Some(registered) = entry.wake_at_ms.replace(at_ms) {
            self.wakes.remove(&(registered, slot));
        }
        self.wakes.insert((at_ms, slot));
    }
}

#[cfg(test)]
#[path = "moving_tests.rs"]
mod tests;
