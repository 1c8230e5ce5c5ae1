//! The group coordinator: one [`Coordinator`] per partition of `__consumer_offsets`, on the shard that owns that
//! partition. It serves both group protocols and committed offsets. Pure: time, randomness and what became of its
//! batches come in, batches and answers go out.
//!
//! | file | what it is |
//! |---|---|
//! | [`request`] | what is asked and answered |
//! | [`record`] | the records of the offsets topic, and their bytes |
//! | [`state`] | what the committed records say, and what is decided above them |
//! | `classic`, `member` | one group and its members between two generations |
//! | `join`, `sync` | how it gets from one to the next |
//! | [`consumer`] | groups whose partitions the coordinator assigns (KIP-848) |
//! | `groups`, `offsets`, `expiry` | which records a request or the time makes |
//! | [`partitioner`] | which partition a group belongs to |
//!
//! The contract is the controller's. The records of one step are one batch. Committed state changes only through
//! [`state::Store::apply`], which also loads the log. The answers that a step gives are held until every batch
//! that was made by then is committed; only answers that read committed state leave at once. When an append fails, or
//! another replica leads, everything here is dropped, who waits is told NOT_COORDINATOR, and the log is loaded again.
//!
//! Who is on the way into a group, what is waited for and every deadline are not in the log, as in Kafka: after a load,
//! members that were assigned have one session timeout to be heard of.

mod classic;
mod config;
pub mod consumer;
mod expiry;
mod groups;
mod join;
mod member;
mod offsets;
pub mod partitioner;
pub mod record;
pub mod request;
pub mod sorted;
pub mod state;
mod subscription;
mod sync;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

pub use self::config::GroupConfig;
pub use self::partitioner::{OFFSETS_TOPIC, partition_of};
pub use self::record::Record;
pub use self::request::{Request, Response};

use self::classic::{ClassicGroup, State, Then, Turn};
use self::consumer::topics::Topics;
use self::consumer::{ConsumerGroup, GroupOverrides};
use self::record::GroupMetadata;
use self::state::Store;
use crate::effect::Now;
use crate::wire::ErrorCode;

/// What happens to a coordinator.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// This replica leads the partition. Also after an append that failed, once nothing of it is in flight: everything
    /// is dropped and loaded again.
    Lead,
    /// This replica does not lead any more.
    Resign,
    /// Records of the log, in order, from its start to its end at the time of [`Output::Load`]; all are committed.
    Loaded {
        /// Which load they belong to; those of an earlier one change nothing.
        load: u64,
        /// Keys and values.
        records: Vec<(Option<Bytes>, Option<Bytes>)>,
        /// There are no more.
        is_last: bool,
    },
    /// Every batch up to this one is below the high watermark.
    Committed {
        /// The last of them.
        batch: u64,
    },
    /// Somebody wants something.
    Request {
        /// Comes back with the answer.
        token: u64,
        /// What is wanted.
        request: Request,
    },
    /// Topics are gone: the offsets that were committed for them go too.
    TopicsDeleted {
        /// Their names.
        topics: BTreeSet<Arc<str>>,
    },
    /// The topics are these now. Before the first of these there are none.
    Topics(Arc<Topics>),
    /// The configs of these groups are these now, of all others none.
    Overrides(Arc<BTreeMap<Arc<str>, GroupOverrides>>),
}

/// What a coordinator wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Read the partition's log and give it back as [`Input::Loaded`].
    Load {
        /// Which load this is.
        load: u64,
    },
    /// Append these records as one batch. It is followed by an [`Input::Committed`], or, if it fails, by an
    /// [`Input::Lead`] or [`Input::Resign`].
    Append {
        /// Rises with every batch, also over loads.
        batch: u64,
        /// The records; never empty.
        records: Vec<Record>,
    },
    /// An answer; every request gets one.
    Answer {
        /// As given with the request.
        token: u64,
        /// The answer.
        response: Response,
    },
    /// Give an [`Input::Tick`] at this monotonic millisecond; replaces an earlier one.
    WakeAt(u64),
    /// The log holds what this build cannot read; the partition has no coordinator until the next [`Input::Lead`]. Why,
    /// in words for the operator.
    LoadFailed(String),
}

/// Whether there is a coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Unloaded,
    Loading,
    Active,
}

/// A group that somebody is in or on the way into.
#[derive(Debug)]
enum Group {
    /// Of the classic protocol.
    Classic(Box<ClassicGroup>),
    /// Of the consumer protocol, with members.
    Consumer(ConsumerGroup),
}

impl Group {
    fn as_classic(&self) -> Option<&ClassicGroup> {
        match self {
            Self::Classic(group) => Some(group),
            Self::Consumer(_) => None,
        }
    }

    fn as_classic_mut(&mut self) -> Option<&mut ClassicGroup> {
        match self {
            Self::Classic(group) => Some(group),
            Self::Consumer(_) => None,
        }
    }

    fn wakes_at_ms(&self) -> Option<u64> {
        match self {
            Self::Classic(group) => group.wakes_at_ms,
            Self::Consumer(group) => group.wakes_at_ms,
        }
    }

    fn wakes_at_ms_mut(&mut self) -> &mut Option<u64> {
        match self {
            Self::Classic(group) => &mut group.wakes_at_ms,
            Self::Consumer(group) => &mut group.wakes_at_ms,
        }
    }
}

/// A batch that is not committed yet.
#[derive(Debug)]
struct Batch {
    id: u64,
    records: Vec<Record>,
    /// What follows, by group.
    then: Vec<(Arc<str>, Then)>,
}

/// An answer that waits for a commit.
#[derive(Debug)]
struct Held {
    batch: u64,
    deadline_ms: u64,
    token: u64,
    response: Response,
}

/// The coordinator of the groups of one partition.
pub struct Coordinator {
    config: Arc<GroupConfig>,
    phase: Phase,
    load: u64,
    store: Store,
    topics: Arc<Topics>,
    overrides: Arc<BTreeMap<Arc<str>, GroupOverrides>>,
    groups: BTreeMap<Arc<str>, Group>,
    /// When groups are looked at next.
    timers: BTreeSet<(u64, Arc<str>)>,
    /// In order of their ids.
    in_flight: VecDeque<Batch>,
    /// In order of their batches, and so of their deadlines.
    held: VecDeque<Held>,
    batch_next: u64,
    /// The partition has too few replicas in sync to commit anything.
    is_short: bool,
    expiry_at_ms: u64,
    wake_told_ms: Option<u64>,
}

impl Coordinator {
    /// A coordinator that serves nobody until it is told to lead.
    pub fn new(config: GroupConfig) -> Self {
        Self {
            config: Arc::new(config),
            phase: Phase::Unloaded,
            load: 0,
            store: Store::default(),
            topics: Arc::default(),
            overrides: Arc::default(),
            groups: BTreeMap::new(),
            timers: BTreeSet::new(),
            in_flight: VecDeque::new(),
            held: VecDeque::new(),
            batch_next: 1,
            is_short: false,
            expiry_at_ms: 0,
            wake_told_ms: None,
        }
    }

    /// Takes an input; appends to `out` what follows from it.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Tick => self.tick(now, out),
            Input::Lead => {
                self.unload(out);
                self.phase = Phase::Loading;
                self.load += 1;
                out.push(Output::Load { load: self.load });
            }
            Input::Resign => self.unload(out),
            Input::Loaded { load, records, is_last } if self.phase == Phase::Loading && load == self.load => {
                self.take_loaded(now, &records, is_last, out);
            }
            Input::Loaded { .. } => {}
            Input::Committed { batch } => self.commit(now, batch, out),
            Input::Request { token, request } => self.request(now, token, request, out),
            Input::TopicsDeleted { topics } if self.phase == Phase::Active => {
                self.forget_topics(&topics, out)
            }
            Input::TopicsDeleted { .. } => {}
            // Groups look at them with the next heartbeat of any member.
            Input::Topics(topics) => self.topics = topics,
            Input::Overrides(overrides) => self.overrides = overrides,
        }
        self.tell_wake(out);
    }

    /// Goes on by other limits.
    pub fn configure(&mut self, config: GroupConfig) {
        self.config = Arc::new(config);
    }

    /// Whether the partition has fewer replicas in sync than `min.insync.replicas`. It would refuse every batch, and a
    /// refused one costs a whole load: commits of offsets are refused before, and groups are served meanwhile.
    pub fn set_short(&mut self, is_short: bool) {
        self.is_short = is_short;
    }

    /// The committed state.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Checks what every step leaves true; for tests.
    ///
    /// # Panics
    /// If it is not.
    pub fn check_invariants(&self) {
        for group in self.groups.values().filter_map(Group::as_classic) {
            group.check_invariants();
            let scheduled = group.wakes_at_ms.map(|at_ms| (at_ms, group.id.clone()));
            assert!(
                scheduled.is_none_or(|timer| self.timers.contains(&timer)),
                "a group is woken when it wants to be"
            );
            let next = group.next_deadline_ms();
            assert!(
                next.is_none() || group.wakes_at_ms <= next && group.wakes_at_ms.is_some(),
                "no deadline is missed"
            );
        }
        for group in self.groups.values() {
            if let Group::Consumer(group) = group {
                self.check_consumer(group);
            }
        }
        assert!(self.timers.iter().all(|(_, group)| self.groups.contains_key(group)), "nobody else is woken");
        assert!(
            self.held.iter().is_sorted_by_key(|held| (held.batch, held.deadline_ms)),
            "answers are held in order"
        );
        let last = self.in_flight.back().map(|batch| batch.id);
        assert!(
            self.held.back().is_none_or(|held| Some(held.batch) <= last),
            "answers are held for batches in flight"
        );
        assert!(
            self.phase == Phase::Active || self.groups.is_empty() && self.held.is_empty(),
            "only a coordinator serves"
        );
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Output>) {
        self.wake_told_ms = None;
        while let Some(held) = self.held.pop_front_if(|held| held.deadline_ms <= now.mono_ms) {
            // Clients of OffsetFetch before 3.9 do not know the other one.
            let error = match held.response {
                Response::OffsetsFetched(_) | Response::MemberOffsetsFetched(_) => ErrorCode::NotCoordinator,
                _ => ErrorCode::CoordinatorNotAvailable,
            };
            out.push(Output::Answer { token: held.token, response: Response::Refused(error) });
        }
        let due: Vec<_> =
            self.timers.iter().take_while(|(at_ms, _)| *at_ms <= now.mono_ms).cloned().collect();
        for (_, id) in due {
            match self.groups.get(&id) {
                Some(Group::Consumer(_)) => self.wake_consumers(now, &id, out),
                _ => self.with_group(now, &id, out, ClassicGroup::wake),
            }
        }
        if self.phase == Phase::Active && self.expiry_at_ms <= now.mono_ms {
            if !self.is_short {
                self.expire(now, out);
            }
            self.expiry_at_ms = now.mono_ms + self.config.expiry_interval_ms;
        }
    }

    fn tell_wake(&mut self, out: &mut Vec<Output>) {
        let timer = self.timers.first().map(|(at_ms, _)| *at_ms);
        let held = self.held.front().map(|held| held.deadline_ms);
        let expiry = (self.phase == Phase::Active).then_some(self.expiry_at_ms);
        let wake = [timer, held, expiry].into_iter().flatten().min();
        if let Some(at_ms) = wake
            && self.wake_told_ms != wake
        {
            out.push(Output::WakeAt(at_ms));
        }
        self.wake_told_ms = wake;
    }

    /// Drops everything; who waits is told.
    fn unload(&mut self, out: &mut Vec<Output>) {
        self.phase = Phase::Unloaded;
        let parked =
            self.groups.values_mut().filter_map(Group::as_classic_mut).flat_map(ClassicGroup::drain_parked);
        let held = self.held.drain(..).map(|held| held.token);
        let refused = Response::Refused(ErrorCode::NotCoordinator);
        out.extend(held.chain(parked).map(|token| Output::Answer { token, response: refused.clone() }));
        self.store = Store::default();
        self.groups.clear();
        self.timers.clear();
        self.in_flight.clear();
    }

    fn take_loaded(
        &mut self,
        now: Now,
        records: &[(Option<Bytes>, Option<Bytes>)],
        is_last: bool,
        out: &mut Vec<Output>,
    ) {
        for (key, value) in records {
            match Record::decode(key.as_deref(), value.as_deref()) {
                Ok(Some(record)) => self.store.apply(record),
                Ok(None) => {}
                Err(error) => {
                    self.unload(out);
                    return out.push(Output::LoadFailed(error.to_string()));
                }
            }
        }
        if is_last {
            self.start(now, out);
        }
    }

    /// Everything is loaded: members that have an assignment are expected to be heard of.
    fn start(&mut self, now: Now, out: &mut Vec<Output>) {
        self.phase = Phase::Active;
        self.expiry_at_ms = now.mono_ms + self.config.expiry_interval_ms;
        let has_members = |metadata: &&GroupMetadata| !metadata.members.is_empty();
        let stored = self.store.groups().iter();
        let stored = stored
            .filter(|(_, group)| group.consumer.is_none())
            .filter_map(|(id, group)| Some((id, group.metadata.as_deref().filter(has_members)?)));
        let groups = stored.map(|(id, stored)| ClassicGroup::new(id.clone(), Some(stored), now));
        let groups: Vec<_> = groups.collect();
        for group in groups {
            let id = group.id.clone();
            self.groups.insert(id.clone(), Group::Classic(Box::new(group)));
            self.with_group(now, &id, out, |group, turn| {
                let members: Vec<_> = group.members.keys().cloned().collect();
                members.iter().for_each(|member| group.expect_heartbeat(turn.now, member));
                if members.len() > turn.config.group_max_size {
                    group.prepare_rebalance(turn);
                }
            });
        }
        self.start_consumers(now);
    }

    /// Batches up to this one are committed: their records take effect, then the answers that waited for them leave.
    fn commit(&mut self, now: Now, batch: u64, out: &mut Vec<Output>) {
        while let Some(committed) = self.in_flight.pop_front_if(|first| first.id <= batch) {
            for record in committed.records {
                self.store.commit(record);
            }
            for (id, then) in committed.then {
                self.follow(now, &id, then, out);
            }
            while let Some(held) = self.held.pop_front_if(|held| held.batch <= committed.id) {
                out.push(Output::Answer { token: held.token, response: held.response });
            }
        }
    }

    /// Does what was to be done when a group's record is committed.
    fn follow(&mut self, now: Now, id: &Arc<str>, then: Then, out: &mut Vec<Output>) {
        let config = Arc::clone(&self.config);
        let mut turn = Turn::new(now, &config);
        let Some(group) = self.groups.get_mut(id).and_then(Group::as_classic_mut) else { return };
        match then {
            Then::Nothing => {}
            Then::Assign(stored) => group.assigned(&mut turn, &stored),
            Then::Returned { member_id, leader_before, may_skip_assignment, generation } => {
                if group.state == State::Stable && group.generation == generation {
                    group.returned(&mut turn, &member_id, leader_before, may_skip_assignment);
                }
            }
        }
        assert!(turn.writes.is_empty(), "a commit makes no records");
        // They promise nothing but what has just been committed.
        out.extend(turn.answers.into_iter().map(|(token, response)| Output::Answer { token, response }));
        self.settle_group(id, true);
    }

    fn request(&mut self, now: Now, token: u64, request: Request, out: &mut Vec<Output>) {
        let refuse = |error, out: &mut Vec<Output>| {
            out.push(Output::Answer { token, response: Response::Refused(error) });
        };
        if let Some(response) = groups::refused_at_once(&self.config, &request) {
            return out.push(Output::Answer { token, response });
        }
        match (self.phase, &request) {
            (Phase::Unloaded, _) => return refuse(ErrorCode::NotCoordinator, out),
            // It can be told so blindly: if it is out, its next one says so.
            (Phase::Loading, Request::Heartbeat(_)) => {
                return out.push(Output::Answer { token, response: Response::Heartbeat(None) });
            }
            (Phase::Loading, _) => return refuse(ErrorCode::CoordinatorLoadInProgress, out),
            (Phase::Active, _) => {}
        }
        match request {
            Request::Join(join) => self.join(now, token, &join, out),
            Request::Sync(sync) => self.sync(now, token, &sync, out),
            Request::Heartbeat(heartbeat) => self.heartbeat(now, token, &heartbeat, out),
            Request::Leave(leave) => self.leave(now, token, &leave, out),
            Request::Describe(ids) => {
                let response = Response::Described(self.describe(&ids));
                out.push(Output::Answer { token, response });
            }
            Request::List { states, types } => {
                let response = Response::Listed(self.list(&states, &types));
                out.push(Output::Answer { token, response });
            }
            Request::Delete(ids) => self.delete(now, token, &ids, out),
            Request::CommitOffsets(commit) => self.commit_offsets(now, token, &commit, out),
            Request::FetchOffsets { groups, require_stable } => {
                let response = Response::OffsetsFetched(self.fetch_offsets(&groups, require_stable));
                if require_stable {
                    self.hold(now, vec![(token, response)], out);
                } else {
                    out.push(Output::Answer { token, response });
                }
            }
            Request::ConsumerHeartbeat(heartbeat) => self.consumer_heartbeat(now, token, &heartbeat, out),
            Request::FetchMemberOffsets { groups, require_stable } => {
                let response =
                    Response::MemberOffsetsFetched(self.fetch_member_offsets(groups, require_stable));
                if require_stable {
                    self.hold(now, vec![(token, response)], out);
                } else {
                    out.push(Output::Answer { token, response });
                }
            }
            Request::DescribeConsumers(ids) => {
                let response = Response::ConsumersDescribed(self.describe_consumers(&ids));
                out.push(Output::Answer { token, response });
            }
            Request::DeleteOffsets { group, topics } => self.delete_offsets(now, token, &group, &topics, out),
        }
    }

    /// Lets a group do something, writes down what came of it and holds its answers.
    fn with_group(
        &mut self,
        now: Now,
        id: &Arc<str>,
        out: &mut Vec<Output>,
        act: impl FnOnce(&mut ClassicGroup, &mut Turn<'_>),
    ) {
        let config = Arc::clone(&self.config);
        let mut turn = Turn::new(now, &config);
        if let Some(group) = self.groups.get_mut(id).and_then(Group::as_classic_mut) {
            act(group, &mut turn);
        }
        self.finish(now, id, turn, Vec::new(), out);
    }

    /// Ends a step on a group: `first` are records that come before its own.
    fn finish(
        &mut self,
        now: Now,
        id: &Arc<str>,
        turn: Turn<'_>,
        first: Vec<GroupMetadata>,
        out: &mut Vec<Output>,
    ) {
        let first = first.into_iter().map(|metadata| (metadata, Then::Nothing));
        let writes = first
            .chain(turn.writes)
            .map(|(metadata, then)| (Record::Group(id.clone(), Some(metadata)), (id.clone(), then)));
        let (records, then) = writes.unzip();
        self.append(records, then, out);
        self.hold(now, turn.answers, out);
        self.settle_group(id, true);
    }

    /// Sends records off as one batch.
    fn append(&mut self, records: Vec<Record>, then: Vec<(Arc<str>, Then)>, out: &mut Vec<Output>) {
        if records.is_empty() {
            return;
        }
        records.iter().for_each(|record| self.store.propose(record));
        let id = self.batch_next;
        self.batch_next += 1;
        out.push(Output::Append { batch: id, records: records.clone() });
        self.in_flight.push_back(Batch { id, records, then });
    }

    /// Holds answers until everything that was sent off by now is committed.
    fn hold(&mut self, now: Now, answers: Vec<(u64, Response)>, out: &mut Vec<Output>) {
        let deadline_ms = now.mono_ms + self.config.commit_timeout_ms;
        for (token, response) in answers {
            match self.in_flight.back() {
                Some(last) => self.held.push_back(Held { batch: last.id, deadline_ms, token, response }),
                None => out.push(Output::Answer { token, response }),
            }
        }
    }

    /// Sees to it that the group is woken in time; drops it when its record says all there is. `all` looks at all of
    /// its deadlines, else only those count that were set since.
    fn settle_group(&mut self, id: &Arc<str>, all: bool) {
        let Some(group) = self.groups.get_mut(id) else { return };
        let before = group.wakes_at_ms();
        let (is_over, after) = match group {
            Group::Classic(group) => {
                let noted = group.noted_ms.take();
                let is_over = group.is_idle() && !self.store.is_metadata_proposed(id);
                let next =
                    if all { group.next_deadline_ms() } else { [before, noted].into_iter().flatten().min() };
                (is_over, next)
            }
            Group::Consumer(group) => {
                let is_over = self.store.consumer(id).is_none_or(|state| state.is_empty());
                (is_over, group.next_deadline_ms())
            }
        };
        let after = after.filter(|_| !is_over);
        *group.wakes_at_ms_mut() = after;
        if before != after {
            before.map(|at_ms| self.timers.remove(&(at_ms, id.clone())));
            after.map(|at_ms| self.timers.insert((at_ms, id.clone())));
        }
        if is_over {
            self.groups.remove(id);
        }
    }
}
