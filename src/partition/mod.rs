//! One replica as a pure state machine: inputs in, effects out.
//!
//! What it is: the role of this replica (leader or follower), leader and partition epochs, the
//! ISR, the high watermark, the log, and who waits. What it is not: a file, a socket or a clock.
//!
//! A leader keeps the ISR (`isr`) and moves the watermark (`leader`); a follower fetches and truncates
//! (`follower`). Who is named the leader leads when nothing of what it followed before is in flight.
//!
//! Invariants, asserted after every step ([`Partition::check_invariants`]): the high watermark is
//! not above the log end; it does not go back within a leader epoch; the ISR is a subset of the
//! replicas and holds the leader; on a replica that does not lead only consumers wait.

mod awaited;
mod deletion;
mod effect;
mod follower;
mod isr;
mod leader;
mod moving;
mod read;
mod wait;

use std::sync::Arc;

use smallvec::SmallVec;

pub use effect::{
    Acks, Answer, Effect, FetchPosition, FetchedPart, Isolation, OffsetQuery, Op, Placed, PlacedFuture, Read,
    ReadFound, Reader, ReplyTo,
};

pub use crate::controller::{IsrChange, IsrState, LeaderRecovery};

use crate::config::TopicConfig;
use crate::effect::{FileResult, Now, Ticket};
use crate::log::{Log, LogEvent, LogPosition};
use crate::wire::ErrorCode;
use awaited::AwaitedBatches;
use deletion::Deletions;
use follower::Follower;
use isr::Lead;
use read::Lookups;
use wait::{Ends, ParkedProduces, Watches, fail};

/// What the Image says of a partition, as far as one replica is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Broker that leads, -1 for none.
    pub leader: i32,
    /// Rises with every change of leader.
    pub leader_epoch: i32,
    /// Rises with every change of this assignment.
    pub partition_epoch: i32,
    /// Every replica, the preferred leader first.
    pub replicas: SmallVec<[i32; 3]>,
    /// The replicas that are in sync.
    pub isr: SmallVec<[i32; 3]>,
    /// Whether the leader was elected from outside the ISR and has not said since that it recovered.
    pub recovery: LeaderRecovery,
    /// Node ids and broker epochs of those replicas that are registered, unfenced and not shutting down: they
    /// may join the ISR.
    pub broker_epochs: SmallVec<[(i32, i64); 3]>,
}

impl Assignment {
    /// The broker epoch of a replica that is alive.
    fn broker_epoch(&self, id: i32) -> Option<i64> {
        self.broker_epochs.iter().find(|(known, _)| *known == id).map(|(_, epoch)| *epoch)
    }
}

/// Whether the replica can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It serves what its role allows.
    Online,
    /// A clean stop is under way: nothing new is taken.
    Closing,
    /// Its topic is deleted: the directory goes away.
    Retiring,
    /// Its log directory failed.
    Offline,
}

/// What the replica does.
#[derive(Debug)]
enum Role {
    /// It follows the leader that the assignment names, if there is one, or is about to lead.
    Follower(Follower),
    /// It leads.
    Leader(Lead),
}

/// `replica.lag.time.max.ms` by default.
const LAG_MAX_MS: u64 = 30_000;

/// One replica of one partition.
#[derive(Debug)]
pub struct Partition {
    node_id: i32,
    state: State,
    assignment: Assignment,
    role: Role,
    config: Arc<TopicConfig>,
    /// How long a replica may lag before it leaves the ISR.
    lag_max_ms: u64,
    log: Log,
    high_watermark: i64,
    /// How far consumers read: the high watermark as soon as its place in the files is known, or an earlier
    /// place whose every record is below it.
    readable: LogPosition,
    awaited: AwaitedBatches,
    written: ParkedProduces,
    committed: ParkedProduces,
    watches: Watches,
    lookups: Lookups,
    deletions: Deletions,
    /// How often the log was cut or begun anew: what was found in it before is not there any more.
    cuts: u32,
    end_turn_asked: bool,
    /// The node stops while the directory is being renamed.
    gone_when_retired: bool,
}

impl Partition {
    /// A replica over its log, before its first [`Partition::assign`]. Nothing is known to be committed
    /// ([`Partition::restore`]).
    pub fn new(node_id: i32, config: Arc<TopicConfig>, log: Log) -> Self {
        let first = log.first_segment_base_offset();
        Self {
            node_id,
            state: State::Online,
            assignment: Assignment {
                leader: -1,
                leader_epoch: -1,
                partition_epoch: -1,
                replicas: SmallVec::new(),
                isr: SmallVec::new(),
                recovery: LeaderRecovery::Recovered,
                broker_epochs: SmallVec::new(),
            },
            role: Role::Follower(Follower::new()),
            config,
            lag_max_ms: LAG_MAX_MS,
            high_watermark: log.log_start_offset(),
            readable: LogPosition { offset: first, segment_base_offset: first, position: 0 },
            log,
            awaited: AwaitedBatches::default(),
            written: ParkedProduces::default(),
            committed: ParkedProduces::default(),
            watches: Watches::default(),
            lookups: Lookups::default(),
            deletions: Deletions::default(),
            cuts: 0,
            end_turn_asked: false,
            gone_when_retired: false,
        }
    }

    /// What is known from before the start: the high watermark of the checkpoint, which is cut to what the log
    /// holds, and what the node's configuration says (`replica.lag.time.max.ms`).
    pub fn restore(&mut self, high_watermark: i64, lag_max_ms: u64) {
        let known = high_watermark.min(self.log.log_end());
        self.high_watermark = self.high_watermark.max(known);
        self.lag_max_ms = lag_max_ms;
    }

    /// The log, for checkpoints, metrics and the bytes of the append in flight.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// What the Image says of it, as last taken over.
    pub fn assignment(&self) -> &Assignment {
        &self.assignment
    }

    /// First offset that is not yet on every in-sync replica.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// First offset that a transaction still holds back. Transactions do not exist yet, so no
    /// offset below the high watermark is ever held back; readers go through here all the same.
    pub fn last_stable_offset(&self) -> i64 {
        self.high_watermark
    }

    fn last_stable_position(&self) -> LogPosition {
        self.readable
    }

    fn ends(&self) -> Ends {
        let (high_watermark, last_stable) = (self.readable.offset, self.last_stable_position().offset);
        Ends { high_watermark, last_stable, log_end: self.log.log_end() }
    }

    /// Whether it leads. Who is named the leader does as soon as nothing of what it followed before is in flight.
    pub fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// Takes over what a new Image says, and the topic's configuration by the same Image: both count at once, since a
    /// minimum of in-sync replicas and the replicas that are in sync mean something only together.
    pub fn change(
        &mut self,
        now: Now,
        config: Arc<TopicConfig>,
        assignment: Assignment,
        effects: &mut Vec<Effect>,
    ) {
        self.log.set_config(Arc::clone(&config));
        self.config = config;
        // A leader looks anew at everyone who waits: with another `flush.messages` the log end is another, with fewer
        // `min.insync.replicas` the high watermark stands still no more.
        self.assign(now, assignment, effects);
    }

    /// Takes over what a new Image says. A change of leader epoch answers everyone who waits;
    /// they look up the leader and come again. What is older than what is known says only who is alive.
    pub fn assign(&mut self, now: Now, assignment: Assignment, effects: &mut Vec<Effect>) {
        let known = &mut self.assignment;
        assert!(assignment.leader_epoch >= known.leader_epoch, "leader epochs never go back");
        let new_epoch = assignment.leader_epoch > known.leader_epoch;
        if assignment.leader_epoch.saturating_sub(known.leader_epoch) > 1
            && let Role::Leader(lead) = &mut self.role
        {
            // Another may have led in between, and the others may have cut off for it what they had of this one.
            lead.forget_ends();
        }
        if !new_epoch && assignment.partition_epoch < known.partition_epoch {
            known.broker_epochs = assignment.broker_epochs;
        } else {
            *known = assignment;
        }
        // Also who leads no more without another epoch: the process is not the one that is registered.
        if new_epoch || (self.is_leader() && self.assignment.leader != self.node_id) {
            self.send_everyone_away(ErrorCode::NotLeaderOrFollower, effects);
        }
        self.take_role(now, new_epoch, effects);
        // Who asked in vain to join the ISR may join it now: its next fetch counts anew.
        self.look_again(now, effects);
        self.settle(now, effects);
    }

    fn take_role(&mut self, now: Now, new_epoch: bool, effects: &mut Vec<Effect>) {
        let (node_id, assignment) = (self.node_id, &self.assignment);
        let is_named = assignment.leader == node_id;
        match &mut self.role {
            Role::Leader(lead) if is_named && new_epoch => {
                let known = std::mem::take(&mut lead.remotes);
                self.begin_to_lead(now, known, effects);
            }
            Role::Leader(lead) if is_named => {
                lead.take_replicas(now, node_id, assignment);
                self.isr_changed(now, effects);
                // Who died may have been the last one that a DeleteRecords waited for.
                self.answer_deletions(effects);
            }
            Role::Follower(_) if is_named => self.lead_when_idle(now, effects),
            Role::Follower(_) if !new_epoch => {}
            _ => self.follow(now),
        }
    }

    /// A request part from a connection.
    pub fn call(&mut self, now: Now, to: ReplyTo, op: Op, effects: &mut Vec<Effect>) {
        if let Op::Unwatch = op {
            let replica = self.watches.remove(to);
            return self.waited_until_now(now, replica);
        }
        if let Op::Read(Read { session: Some(session), .. }) = &op {
            let replica = self.watches.replace(*session);
            self.waited_until_now(now, replica);
        }
        if let Op::Sent(_) | Op::Move { .. } = op {
            return;
        }
        if let Some(error) = self.refusal(&op) {
            if let Op::Append { batch, acks: Acks::All, .. } = &op {
                self.sent_away(now, &batch.info);
            }
            effects.push(fail(to, error));
            return;
        }
        match op {
            Op::Append { batch, acks, deadline_ms } => {
                self.append(now, to, &batch, acks, deadline_ms, effects);
            }
            Op::Read(read) => self.read(now, to, &read, effects),
            Op::Offset { query, isolation, current_leader_epoch } => {
                self.offset(now, to, query, isolation, current_leader_epoch, effects);
            }
            Op::EpochEnd { leader_epoch, current_leader_epoch } => {
                self.epoch_end(to, leader_epoch, current_leader_epoch, effects);
            }
            Op::DeleteRecords { offset, deadline_ms } => {
                self.delete_records(now, to, offset, deadline_ms, effects);
            }
            Op::Size => effects.push(Effect::Reply(to, Answer::Size(self.log.size_bytes()))),
            Op::Producers => {
                effects.push(Effect::Reply(to, Answer::Producers(self.log.producers().active())));
            }
            // The shard moves replicas.
            Op::Move { .. } | Op::Unwatch | Op::Sent(_) => {}
        }
        self.settle(now, effects);
    }

    fn refusal(&self, op: &Op) -> Option<ErrorCode> {
        match self.state {
            // Every replica can tell these of itself.
            State::Online if matches!(op, Op::Size | Op::Producers) => None,
            State::Offline => Some(ErrorCode::KafkaStorageError),
            State::Retiring => Some(ErrorCode::UnknownTopicOrPartition),
            State::Closing => Some(ErrorCode::NotLeaderOrFollower),
            State::Online if !self.is_leader() && !self.serves_as_follower(op) => {
                Some(ErrorCode::NotLeaderOrFollower)
            }
            State::Online => None,
        }
    }

    /// A file operation has ended.
    pub fn completed(&mut self, now: Now, ticket: Ticket, result: FileResult, effects: &mut Vec<Effect>) {
        if let Some(waiting) = self.lookups.take(ticket) {
            self.lookup_read(now, waiting, result, effects);
            return self.settle(now, effects);
        }
        match self.log.completed(now, ticket, result) {
            LogEvent::None if self.gone_when_retired && self.log.waits_for_space() => {
                effects.push(Effect::Gone)
            }
            LogEvent::None => {}
            LogEvent::Appended if self.is_leader() => self.advance(now, effects),
            LogEvent::Appended => self.follow_watermark(now, -1, effects),
            LogEvent::Truncated { log_end } => self.truncated(now, log_end),
            LogEvent::Expired(log_start_offset) => self.want_log_start(log_start_offset, effects),
            LogEvent::Dropped { from_offset, error: _ } => {
                // Whether the device is full or the write came up short, the client may retry.
                for batch in self.log.take_back() {
                    self.awaited.sent_away(now.mono_ms, batch);
                }
                self.written.fail_above(from_offset, ErrorCode::KafkaStorageError, effects);
                self.committed.fail_above(from_offset, ErrorCode::KafkaStorageError, effects);
                self.rest_a_while(now);
            }
            LogEvent::Offline(_) => {
                self.state = State::Offline;
                self.send_everyone_away(ErrorCode::KafkaStorageError, effects);
                effects.push(Effect::Offline);
            }
            LogEvent::Retired => {
                effects.push(Effect::Retired);
                effects.extend(self.gone_when_retired.then_some(Effect::Gone));
            }
            LogEvent::Closed | LogEvent::Deleted => effects.push(Effect::Gone),
        }
        if !self.is_leader() {
            self.lead_when_idle(now, effects);
        }
        self.settle(now, effects);
    }

    /// The turn is over: what was gathered is written.
    pub fn end_turn(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.end_turn_asked = false;
        self.log.end_turn(now);
        self.settle(now, effects);
    }

    /// When [`Partition::wake`] wants to be called, in monotonic milliseconds.
    pub fn next_wake_ms(&self) -> Option<u64> {
        let deadlines = [
            self.log.next_wake_ms(),
            self.committed.next_deadline_ms(),
            self.written.next_deadline_ms(),
            self.deletions.next_deadline_ms(),
            match &self.role {
                Role::Leader(lead) => lead.next_wake_ms(),
                Role::Follower(follower) => follower.next_wake_ms(),
            },
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Time has passed: deadlines, paced syncs, rolls by age, delayed deletion.
    pub fn wake(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.written.expire(now.mono_ms, effects);
        self.committed.expire(now.mono_ms, effects);
        self.deletions.expire(now.mono_ms, effects);
        self.wake_isr(now, effects);
        self.wake_follower(now);
        self.log.wake(now);
        self.settle(now, effects);
    }

    /// Forgets producers that have been silent for too long.
    pub fn expire_producers(&mut self, now: Now, expiration_ms: i64) {
        self.log.expire_producers(now, expiration_ms);
        self.awaited.forget_old(now.mono_ms);
    }

    /// The log directory failed: everyone who waits learns it, and nothing is served any more.
    pub fn fail(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.state == State::Offline {
            return;
        }
        self.state = State::Offline;
        self.send_everyone_away(ErrorCode::KafkaStorageError, effects);
        self.log.go_offline();
        self.settle(now, effects);
    }

    /// A clean stop: nothing new is taken, the log is made durable, then [`Effect::Gone`].
    pub fn close(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.state == State::Offline || self.log.is_retired() {
            // Nothing to write; what waits for its deletion is deleted at the next start.
            return effects.push(Effect::Gone);
        }
        if self.state == State::Retiring {
            // The next start finishes what a full device keeps waiting.
            self.gone_when_retired = true;
            return effects.extend(self.log.waits_for_space().then_some(Effect::Gone));
        }
        self.state = State::Closing;
        self.log.begin_close(now);
        effects.extend(self.log.is_closed().then_some(Effect::Gone));
        self.settle(now, effects);
    }

    /// The topic is deleted: everyone who waits learns it, the directory is renamed and after
    /// `file.delete.delay.ms` deleted, then [`Effect::Gone`].
    pub fn retire(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.state == State::Offline {
            return effects.push(Effect::Gone);
        }
        self.state = State::Retiring;
        self.send_everyone_away(ErrorCode::UnknownTopicOrPartition, effects);
        self.log.begin_delete(now);
        self.settle(now, effects);
    }

    fn send_everyone_away(&mut self, error: ErrorCode, effects: &mut Vec<Effect>) {
        self.written.fail_above(-1, error, effects);
        self.committed.fail_above(-1, error, effects);
        self.deletions.fail_all(error, effects);
        self.watches.fire_all(effects);
    }

    /// Hands over the operations that became possible. Every step ends here.
    fn settle(&mut self, now: Now, effects: &mut Vec<Effect>) {
        while let Some((ticket, op)) = self.log.next_op(now) {
            effects.push(Effect::File(ticket, op));
        }
        if self.log.wants_end_turn() && !self.end_turn_asked {
            self.end_turn_asked = true;
            effects.push(Effect::EndTurn);
        }
        self.tell_following(effects);
        self.tell_log_start(effects);
        self.tell_news(effects);
        self.check_invariants();
    }

    /// What must hold between steps (DESIGN §6); a violation ends the process.
    pub fn check_invariants(&self) {
        // What is on its way out, or offline, has given up a truncation under way.
        if self.state == State::Online && !self.log.is_truncating() {
            assert!(self.high_watermark <= self.log.log_end(), "high watermark above the log end");
            let log_start_offset = self.log.log_start_offset();
            assert!(log_start_offset <= self.high_watermark, "log start above the high watermark");
        }
        assert!(self.log.log_end() <= self.log.written_end(), "log end above the written end");
        assert!(self.log.written_end() <= self.log.reserved_end(), "written end above the reserved end");
        let assignment = &self.assignment;
        assert!(
            assignment.isr.iter().all(|id| assignment.replicas.contains(id)),
            "the ISR is a subset of the replicas"
        );
        assert!(
            assignment.leader < 0 || assignment.isr.contains(&assignment.leader),
            "the leader is in sync"
        );
        if self.is_leader() {
            assert!(assignment.leader == self.node_id, "who leads is named the leader");
            assert!(self.readable.offset <= self.high_watermark, "consumers read beyond the high watermark");
        } else if self.state == State::Online {
            assert!(self.written.is_empty(), "a produce waits on a replica that does not lead");
            assert!(!self.watches.has_replica(), "a replica waits on a replica that does not lead");
        }
    }
}
