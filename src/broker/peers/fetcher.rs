//! The rounds in which one shard's followers fetch from one leader: what to ask next, and what an answer means.
//!
//! One round is in flight at a time, for all partitions that this shard follows there. Rounds share a fetch session
//! (KIP-227): the first one names every partition, later ones what has changed, so a round costs what moved and not
//! what there is. The leader holds a round back until it has something (`replica.fetch.wait.max.ms`).
//!
//! A machine over plain values: it is told what each replica wants ([`Fetcher::want`]) and gives back parts for them
//! ([`Fetcher::answered`]). A replica that was given records wants the next ones only when they are written. The
//! next round waits for that a little ([`FetchRules::settle_ms`]), since a replica that misses it would wait for a
//! whole round of the others.
//!
//! A round that the leader holds back does not keep the next one waiting: after a little, the leader is asked for
//! what it has ([`Fetcher::take_nudge`]).
//!
//! A replica whose part was an error rests: 20 ms, twice as long each time up to `replica.fetch.backoff.ms`. What
//! changes its position (a truncation, a new leader epoch) ends its first rest: that is the answer to the error.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use crate::config::ReplicaFetchConfig;
use crate::effect::Now;
use crate::partition::{FetchPosition, FetchedPart};
use crate::wire::fetch_round::{self, FetchAnswer, FetchRoundHead, FetchRoundPartition};
use crate::wire::{ErrorCode, WireError};

/// A replica: its topic's id and its partition's index.
pub type ReplicaKey = (Uuid, i32);

/// A part of an answer, for the replica that it is for, with the position that was asked for.
pub type Part = (ReplicaKey, FetchPosition, FetchedPart);

/// The first rest of a replica after an error, in milliseconds.
const REST_FIRST_MS: u64 = 20;
/// The epoch of a Fetch that belongs to no session (KIP-227).
const NO_SESSION: i32 = -1;
/// How long a round that the leader holds back is left alone when there is more to ask, in milliseconds: one that has
/// something to bring comes sooner.
const NUDGE_MS: u64 = 10;
/// How long a round waits for replicas that write what the last one brought, in milliseconds.
const SETTLE_MS: u64 = 20;

/// What followers ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchRules {
    /// `replica.fetch.wait.max.ms`
    pub max_wait_ms: i32,
    /// `replica.fetch.min.bytes`
    pub min_bytes: i32,
    /// `replica.fetch.response.max.bytes`
    pub max_bytes: i32,
    /// `replica.fetch.max.bytes`: of one partition.
    pub partition_max_bytes: i32,
    /// `replica.fetch.backoff.ms`: the longest rest after errors.
    pub backoff_ms: u64,
    /// `replica.socket.timeout.ms`: how long an answer may take beyond what the leader may wait.
    pub round_ms: u64,
    /// How long a round waits for replicas that write what the last one brought.
    pub settle_ms: u64,
}

impl FetchRules {
    /// As a node is configured.
    pub fn of(config: &ReplicaFetchConfig) -> Self {
        Self {
            max_wait_ms: config.wait_max_ms,
            min_bytes: config.min_bytes,
            max_bytes: config.response_max_bytes,
            partition_max_bytes: config.partition_max_bytes,
            backoff_ms: config.backoff_ms,
            round_ms: config.socket_timeout_ms,
            settle_ms: SETTLE_MS,
        }
    }
}

#[cfg(test)]
impl Default for FetchRules {
    /// As a node is configured that nobody told anything.
    fn default() -> Self {
        Self::of(&crate::config::NodeConfig::default().cluster.fetch)
    }
}

/// Why a replica rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rest {
    until_ms: u64,
    /// The position that was an error: any other one ends the rest.
    refused: Option<FetchPosition>,
}

/// One replica as its fetcher knows it.
#[derive(Clone, Copy, Debug, Default)]
struct Replica {
    /// What it wants, while it wants anything.
    wanted: Option<FetchPosition>,
    /// What the session at the leader has of it.
    sent: Option<FetchPosition>,
    rest: Option<Rest>,
    /// Errors since the last part without one.
    errors: u32,
}

impl Replica {
    /// What is to be asked for it now.
    fn asked(&self) -> Option<FetchPosition> {
        self.wanted.filter(|_| self.rest.is_none())
    }
}

/// The session at the leader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Session {
    /// 0 for none.
    id: i32,
    /// What the next round must carry; 0 asks for a new one.
    epoch: i32,
}

/// The rounds to one leader.
#[derive(Debug)]
pub struct Fetcher {
    replica_id: i32,
    broker_epoch: i64,
    rules: FetchRules,
    replicas: BTreeMap<ReplicaKey, Replica>,
    /// Replicas whose session entry is not what is to be asked.
    changed: BTreeSet<ReplicaKey>,
    /// Replicas that rest, the first to end first.
    resting: BTreeSet<(u64, ReplicaKey)>,
    /// Replicas that were given records and have not said what they want next.
    settling: BTreeSet<ReplicaKey>,
    /// Until when the next round waits for those.
    settle_until_ms: u64,
    /// Replicas that are to be asked for.
    active: usize,
    session: Session,
    in_flight: bool,
    /// When the round in flight may be ended for the next one; none if that was asked for already.
    nudge_at_ms: Option<u64>,
    /// No round before this time.
    quiet_until_ms: u64,
    /// Rounds that failed as a whole since the last good one.
    failures: u32,
}

impl Fetcher {
    /// Rounds of broker `replica_id` to some leader, for nobody yet.
    pub fn new(replica_id: i32, rules: FetchRules) -> Self {
        Self {
            replica_id,
            broker_epoch: -1,
            rules,
            replicas: BTreeMap::new(),
            changed: BTreeSet::new(),
            resting: BTreeSet::new(),
            settling: BTreeSet::new(),
            settle_until_ms: 0,
            active: 0,
            session: Session::default(),
            in_flight: false,
            nudge_at_ms: None,
            quiet_until_ms: 0,
            failures: 0,
        }
    }

    /// The broker epoch that the next rounds carry (KIP-903).
    pub fn set_broker_epoch(&mut self, broker_epoch: i64) {
        self.broker_epoch = broker_epoch;
    }

    /// How long the answer to a round may take, in milliseconds: the leader may hold it back.
    pub fn timeout_ms(&self) -> u64 {
        self.rules.round_ms + u64::try_from(self.rules.max_wait_ms).unwrap_or(0)
    }

    /// What a replica wants of this leader from now on; `None` where it wants nothing of it now.
    pub fn want(&mut self, key: ReplicaKey, wanted: Option<FetchPosition>) {
        if wanted.is_some() {
            self.settling.remove(&key);
        } else if !self.replicas.contains_key(&key) {
            return;
        }
        self.change(key, |replica| {
            let ends = |rest: &Rest| rest.refused.is_some() && wanted.is_some() && wanted != rest.refused;
            replica.wanted = wanted;
            replica.rest = replica.rest.filter(|rest| !ends(rest));
        });
    }

    /// A replica leaves: it is led by somebody else, or gone.
    pub fn leave(&mut self, key: ReplicaKey) {
        self.settling.remove(&key);
        self.want(key, None);
        self.change(key, |replica| (replica.rest, replica.errors) = (None, 0));
    }

    /// Nothing is fetched for a replica before a time: its share of a limited rate is used up.
    pub fn hold(&mut self, key: ReplicaKey, until_ms: u64) {
        self.change(key, |replica| replica.rest = Some(Rest { until_ms, refused: None }));
    }

    /// Changes one replica and keeps what is counted of it right.
    fn change(&mut self, key: ReplicaKey, change: impl FnOnce(&mut Replica)) {
        let replica = self.replicas.entry(key).or_default();
        let before = (replica.asked().is_some(), replica.rest.map(|rest| rest.until_ms));
        change(replica);
        let after = (replica.asked().is_some(), replica.rest.map(|rest| rest.until_ms));
        let is_changed = replica.asked() != replica.sent;
        let is_nothing = replica.wanted.is_none() && replica.sent.is_none() && replica.rest.is_none();
        self.active = self.active + usize::from(after.0) - usize::from(before.0);
        if before.1 != after.1 {
            if let Some(until_ms) = before.1 {
                self.resting.remove(&(until_ms, key));
            }
            self.resting.extend(after.1.map(|until_ms| (until_ms, key)));
        }
        if is_changed {
            self.changed.insert(key);
        } else {
            self.changed.remove(&key);
        }
        if is_nothing {
            self.replicas.remove(&key);
        }
    }

    /// When [`Fetcher::wake`] wants to be called, in monotonic milliseconds, or a round is due, if its link takes one.
    pub fn next_wake_ms(&self, may_send: bool) -> Option<u64> {
        let rest = self.resting.first().map(|(until_ms, _)| *until_ms);
        let waits = may_send && !self.in_flight && self.active > 0;
        let settle = self.settle_until_ms.max(self.quiet_until_ms);
        let nudge = self.nudge_at_ms.filter(|_| may_send && !self.changed.is_empty());
        [rest, waits.then_some(settle), nudge].into_iter().flatten().min()
    }

    /// The body of a Fetch of nothing, where the leader is to hold the round in flight no longer since there is more to
    /// ask: whatever stands behind a Fetch of another node ends its waiting. Once for each round.
    pub fn take_nudge(&mut self, now: Now) -> Option<BytesMut> {
        self.nudge_at_ms.filter(|at_ms| *at_ms <= now.mono_ms && !self.changed.is_empty())?;
        self.nudge_at_ms = None;
        let (max_wait_ms, min_bytes) = (0, 0);
        let head =
            FetchRoundHead { max_wait_ms, min_bytes, ..self.head(Session { id: 0, epoch: NO_SESSION }) };
        let mut body = BytesMut::with_capacity(64);
        fetch_round::write_round(&mut body, &head, &[], &[]);
        Some(body)
    }

    /// Time has passed: rests end.
    pub fn wake(&mut self, now: Now) {
        while let Some((_, key)) = self.resting.first().copied().filter(|(at_ms, _)| *at_ms <= now.mono_ms) {
            self.change(key, |replica| replica.rest = None);
        }
    }

    /// Whether a round is due now.
    pub fn is_due(&self, now: Now) -> bool {
        let settled = self.settling.is_empty() || now.mono_ms >= self.settle_until_ms;
        !self.in_flight && self.active > 0 && settled && now.mono_ms >= self.quiet_until_ms
    }

    /// The body of the next round, where one is due. From now on it is in flight.
    pub fn next_round(&mut self, now: Now) -> Option<BytesMut> {
        if !self.is_due(now) {
            return None;
        }
        // Those that are still writing join when they have written.
        self.settling.clear();
        let is_full = self.session.epoch == 0;
        let keys: Vec<ReplicaKey> = if is_full {
            self.replicas.keys().copied().collect()
        } else {
            self.changed.iter().copied().collect()
        };
        let (mut partitions, mut forgotten) = (Vec::new(), Vec::new());
        for key in keys {
            let Some(replica) = self.replicas.get(&key) else { continue };
            let asked = replica.asked();
            match asked {
                Some(position) => partitions.push(self.entry(key, position)),
                None if replica.sent.is_some() => forgotten.push(key),
                None => {}
            }
            self.change(key, |replica| replica.sent = asked);
        }
        let head = self.head(self.session);
        let mut body = BytesMut::with_capacity(64 + 40 * partitions.len() + 8 * forgotten.len());
        fetch_round::write_round(&mut body, &head, &partitions, &forgotten);
        self.in_flight = true;
        self.nudge_at_ms = Some(now.mono_ms + NUDGE_MS);
        Some(body)
    }

    fn head(&self, session: Session) -> FetchRoundHead {
        FetchRoundHead {
            replica_id: self.replica_id,
            replica_epoch: self.broker_epoch,
            max_wait_ms: self.rules.max_wait_ms,
            min_bytes: self.rules.min_bytes,
            max_bytes: self.rules.max_bytes,
            session_id: session.id,
            session_epoch: session.epoch,
        }
    }

    fn entry(&self, (topic_id, index): ReplicaKey, position: FetchPosition) -> FetchRoundPartition {
        FetchRoundPartition {
            topic_id,
            index,
            current_leader_epoch: position.leader_epoch,
            fetch_offset: position.fetch_offset,
            last_fetched_epoch: position.last_fetched_epoch,
            log_start_offset: position.log_start_offset,
            max_bytes: self.rules.partition_max_bytes,
        }
    }

    /// The answer to the round in flight. Its parts go to `parts`, for replicas to take; each of those says with
    /// [`Fetcher::want`] what it wants next. An error is an answer that makes no sense: the link is to be closed, and
    /// nothing of the answer counts.
    pub fn answered(&mut self, now: Now, body: Bytes, parts: &mut Vec<Part>) -> Result<(), WireError> {
        let answer = FetchAnswer::parse(body)?;
        (self.in_flight, self.nudge_at_ms) = (false, None);
        let throttle_ms = u64::try_from(answer.throttle_time_ms).unwrap_or(0);
        self.quiet_until_ms = now.mono_ms + throttle_ms;
        if let Some(error) = answer.error {
            self.refused(now, error);
            return Ok(());
        }
        self.failures = 0;
        self.settle_until_ms = now.mono_ms + self.rules.settle_ms;
        let mut is_strange = false;
        for (topic_id, partition) in answer.partitions() {
            let key = (topic_id, partition.index);
            let Some(position) = self.replicas.get(&key).and_then(|replica| replica.sent) else {
                // Nobody asked for it: leader and follower do not agree on what the session holds.
                is_strange = true;
                continue;
            };
            self.note(now, key, partition.error);
            let part = FetchedPart {
                error: partition.error,
                high_watermark: partition.high_watermark,
                log_start_offset: partition.log_start_offset,
                diverging: partition.diverging.map(|end| (end.epoch, end.end_offset)),
                records: partition.records,
            };
            if !part.records.is_empty() || part.diverging.is_some() {
                self.settling.insert(key);
            }
            parts.push((key, position, part));
        }
        self.go_on(answer.session_id, is_strange);
        Ok(())
    }

    /// What the answer says of the session.
    fn go_on(&mut self, session_id: i32, is_strange: bool) {
        let epoch_next = self.session.epoch.checked_add(1).unwrap_or(1);
        if session_id == 0 || is_strange {
            // The leader has no room for a session, or another one than we have.
            self.forget_session(session_id);
        } else if self.session.epoch == 0 || session_id == self.session.id {
            self.session = Session { id: session_id, epoch: epoch_next };
        } else {
            self.forget_session(0);
        }
    }

    /// The leader refused the whole round.
    fn refused(&mut self, now: Now, error: ErrorCode) {
        let is_of_session = matches!(
            error,
            ErrorCode::FetchSessionIdNotFound
                | ErrorCode::InvalidFetchSessionEpoch
                | ErrorCode::FetchSessionTopicIdError
        );
        let had_session = self.session.epoch > 0;
        let id = if error == ErrorCode::FetchSessionIdNotFound { 0 } else { self.session.id };
        self.forget_session(id);
        // A session that is gone is made again at once; whatever else is wrong takes time, and so does a leader
        // that refuses also a new one.
        if !(is_of_session && had_session) {
            self.rest_all(now);
        }
    }

    /// The next round names everything again, and ends the session of this id if the leader has it.
    fn forget_session(&mut self, id: i32) {
        self.session = Session { id, epoch: 0 };
        let sent: Vec<ReplicaKey> =
            self.replicas.iter().filter(|(_, replica)| replica.sent.is_some()).map(|(key, _)| *key).collect();
        for key in sent {
            self.change(key, |replica| replica.sent = None);
        }
    }

    fn rest_all(&mut self, now: Now) {
        self.quiet_until_ms = self.quiet_until_ms.max(now.mono_ms + self.backoff_ms(self.failures));
        self.failures += 1;
    }

    fn backoff_ms(&self, failures: u32) -> u64 {
        REST_FIRST_MS.saturating_mul(1 << failures.min(16)).min(self.rules.backoff_ms)
    }

    /// Whether a replica's part was an error: then it rests.
    fn note(&mut self, now: Now, key: ReplicaKey, error: Option<ErrorCode>) {
        let errors = self.replicas.get(&key).map_or(0, |replica| replica.errors);
        if error.is_none() {
            if errors > 0 {
                self.change(key, |replica| replica.errors = 0);
            }
            return;
        }
        let until_ms = now.mono_ms + self.backoff_ms(errors);
        self.change(key, |replica| {
            replica.rest = Some(Rest { until_ms, refused: replica.sent.filter(|_| errors == 0) });
            replica.errors += 1;
        });
    }

    /// The link is lost, or its answer made no sense: the round in flight is as if it had never been asked.
    pub fn lost(&mut self) {
        (self.in_flight, self.nudge_at_ms) = (false, None);
        self.settling.clear();
        let id = self.session.id;
        self.forget_session(id);
    }
}

#[cfg(test)]
#[path = "fetcher_tests.rs"]
mod tests;
