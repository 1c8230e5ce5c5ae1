//! The in-sync replicas as their leader sees them: where each other replica has fetched, whether it keeps up,
//! and the one change of the ISR that is on its way to the controller.
//!
//! Until the controller has answered, a change may be in force or not. So the high watermark waits for both
//! the replicas of the ISR that is known and those of the one that is wanted: the *maximal* ISR. A replica that
//! is gone from either is given up only when an Image has said so, or the controller that it refused the change.

use smallvec::SmallVec;

use super::effect::{Effect, Read};
use super::{Assignment, IsrChange, IsrState, LeaderRecovery, Partition, Role, State};
use crate::effect::Now;
use crate::log::LogPosition;
use crate::planted::{Bug, is_planted};
use crate::wire::ErrorCode;

/// How long the leader waits before it asks again for what the controller refused.
const RETRY_MS: u64 = 1000;

/// As long a leader is new: what was sent before it led may still come (twice `request.timeout.ms` by default).
const NEW_MS: u64 = 60_000;

/// Another replica, as the leader knows it.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    pub id: i32,
    /// Its log end: where it fetched last. `None` before its first fetch under this leader.
    pub end: Option<LogPosition>,
    /// First offset that it has, -1 if it never told.
    pub log_start_offset: i64,
    /// The leader's log end when it fetched last.
    leader_end: i64,
    /// When it fetched last, in monotonic milliseconds.
    fetched_ms: u64,
    /// The last time at which it had everything that the leader had then. `None` for never.
    caught_up_ms: Option<u64>,
    /// Broker epoch that it told with its last fetch, -1 for none.
    broker_epoch: i64,
}

impl Remote {
    /// A replica that has not fetched yet. One that is in the ISR has its time to come.
    fn new(id: i32, caught_up_ms: Option<u64>) -> Self {
        Self {
            id,
            end: None,
            log_start_offset: -1,
            leader_end: -1,
            fetched_ms: 0,
            caught_up_ms,
            broker_epoch: -1,
        }
    }

    /// It fetches from `end` on, so it has everything below. A replica that reaches the end which the leader
    /// had at its fetch before was caught up then (KIP-16): one that is always a little behind keeps up, too.
    fn fetches(&mut self, now_ms: u64, fetch: &ReplicaFetch, leader_end: i64) {
        let offset = fetch.end.offset;
        if offset >= leader_end {
            self.caught_up_ms = self.caught_up_ms.max(Some(now_ms));
        } else if self.end.is_some() && offset >= self.leader_end {
            self.caught_up_ms = self.caught_up_ms.max(Some(self.fetched_ms));
        }
        self.end = Some(fetch.end);
        self.log_start_offset = fetch.log_start_offset;
        self.broker_epoch = fetch.epoch;
        self.leader_end = self.leader_end.max(leader_end);
        self.fetched_ms = now_ms;
    }

    fn is_caught_up(&self, now_ms: u64, leader_end: i64, lag_max_ms: u64) -> bool {
        let in_time = |ms: u64| now_ms.saturating_sub(ms) <= lag_max_ms;
        self.end.is_some_and(|end| end.offset == leader_end) || self.caught_up_ms.is_some_and(in_time)
    }

    /// Whether the controller would take it into the ISR, as far as is known here (KIP-841, KIP-903): it is
    /// registered, neither fenced nor shutting down, and the process that fetches is the one registered.
    fn is_eligible(&self, assignment: &Assignment) -> bool {
        let registered = assignment.broker_epoch(self.id);
        self.end.is_some() && registered.is_some_and(|epoch| [-1, epoch].contains(&self.broker_epoch))
    }
}

/// A replica's fetch that was served.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplicaFetch {
    pub id: i32,
    pub epoch: i64,
    pub log_start_offset: i64,
    /// Where it fetches from.
    pub end: LogPosition,
}

/// What a leader knows beyond its assignment.
#[derive(Debug)]
pub(super) struct Lead {
    /// The log end when it became the leader: nothing before it was written under this epoch.
    pub epoch_start: i64,
    /// When it became the leader; none for one that goes on in the epoch in which it led before.
    since_ms: Option<u64>,
    /// Another one may have led before, to which clients sent what they now send here.
    has_predecessor: bool,
    pub remotes: Vec<Remote>,
    /// On its way to the controller.
    change: Option<IsrChange>,
    /// A refused change: not before this monotonic time is another one asked for.
    retry_at_ms: Option<u64>,
    /// When the ISR is looked at for replicas that lag.
    check_at_ms: Option<u64>,
}

impl Lead {
    /// `known` are the remotes of the same leader's epoch before; a new leader has none.
    pub(super) fn new(
        now: Now,
        node_id: i32,
        assignment: &Assignment,
        epoch_start: i64,
        known: Vec<Remote>,
    ) -> Self {
        let mut lead = Self {
            epoch_start,
            since_ms: Some(now.mono_ms),
            has_predecessor: false,
            remotes: known,
            change: None,
            retry_at_ms: None,
            check_at_ms: None,
        };
        for remote in &mut lead.remotes {
            if assignment.isr.contains(&remote.id) {
                remote.caught_up_ms = Some(now.mono_ms);
            }
        }
        lead.take_replicas(now, node_id, assignment);
        lead
    }

    /// It led in this epoch before, as after a restart: nobody else can have taken, or sent away, what clients sent.
    pub(super) fn goes_on(&mut self) {
        self.since_ms = None;
    }

    /// Another one led before it, and nothing that was committed is missing here.
    pub(super) fn takes_over(&mut self) {
        self.has_predecessor = true;
    }

    /// Whether what a client sends may be behind something that the leader before it has sent away.
    pub(super) fn took_over(&self, mono_ms: u64) -> bool {
        self.has_predecessor && self.is_new(mono_ms)
    }

    /// Whether clients may still be sending what they began to send before it led.
    pub(super) fn is_new(&self, mono_ms: u64) -> bool {
        self.since_ms.is_some_and(|since_ms| mono_ms.saturating_sub(since_ms) < NEW_MS)
    }

    /// Where the others are is not known any more, until they fetch again.
    pub(super) fn forget_ends(&mut self) {
        for remote in &mut self.remotes {
            *remote = Remote::new(remote.id, None);
        }
    }

    /// Other replicas may be assigned.
    pub(super) fn take_replicas(&mut self, now: Now, node_id: i32, assignment: &Assignment) {
        self.remotes.retain(|remote| assignment.replicas.contains(&remote.id));
        for id in assignment.replicas.iter().filter(|id| **id != node_id) {
            if !self.remotes.iter().any(|remote| remote.id == *id) {
                let caught_up_ms = assignment.isr.contains(id).then_some(now.mono_ms);
                self.remotes.push(Remote::new(*id, caught_up_ms));
            }
        }
        if self.change.as_ref().is_some_and(|change| change.partition_epoch < assignment.partition_epoch) {
            // Done, or overtaken by another change of which it is no part.
            self.change = None;
            self.retry_at_ms = None;
        }
    }

    /// Whether the high watermark waits for this replica: it is in the maximal ISR, or is about to join it.
    pub(super) fn counts(&self, now_ms: u64, remote: &Remote, by: &IsrRules) -> bool {
        if is_planted(Bug::WatermarkOfKnownIsr) {
            return by.assignment.isr.contains(&remote.id);
        }
        let wanted = |change: &IsrChange| change.isr.iter().any(|(id, _)| *id == remote.id);
        by.assignment.isr.contains(&remote.id)
            || self.change.as_ref().is_some_and(wanted)
            || (remote.is_eligible(by.assignment)
                && remote.is_caught_up(now_ms, by.leader_end, by.lag_max_ms))
    }

    pub(super) fn next_wake_ms(&self) -> Option<u64> {
        self.check_at_ms.into_iter().chain(self.retry_at_ms).min()
    }

    fn remote(&self, id: i32) -> Option<&Remote> {
        self.remotes.iter().find(|remote| remote.id == id)
    }

    fn remote_mut(&mut self, id: i32) -> Option<&mut Remote> {
        self.remotes.iter_mut().find(|remote| remote.id == id)
    }

    /// A replica has waited for records until now: it had everything.
    fn had_everything(&mut self, id: i32, now_ms: u64) {
        if let Some(remote) = self.remote_mut(id) {
            remote.caught_up_ms = remote.caught_up_ms.max(Some(now_ms));
        }
    }

    /// The change to this ISR, each replica with the broker epoch by which it is known.
    fn change_to(&self, node_id: i32, assignment: &Assignment, isr: &[i32]) -> IsrChange {
        let epoch = |id: i32| match self.remote(id) {
            Some(remote) => remote.broker_epoch,
            None if id == node_id => assignment.broker_epoch(id).unwrap_or(-1),
            None => -1,
        };
        IsrChange {
            leader_epoch: assignment.leader_epoch,
            partition_epoch: assignment.partition_epoch,
            isr: isr.iter().map(|id| (*id, epoch(*id))).collect(),
            // Whoever leads after an unclean election has what there is left: as in Kafka nothing more is to be
            // recovered.
            recovery: LeaderRecovery::Recovered,
        }
    }
}

/// By what the leader judges another replica.
pub(super) struct IsrRules<'a> {
    pub assignment: &'a Assignment,
    pub leader_end: i64,
    pub lag_max_ms: u64,
}

impl Partition {
    /// The change of the ISR on which the controller has not spoken yet.
    pub fn isr_change(&self) -> Option<&IsrChange> {
        self.lead().and_then(|lead| lead.change.as_ref())
    }

    pub(super) fn lead(&self) -> Option<&Lead> {
        match &self.role {
            Role::Leader(lead) => Some(lead),
            Role::Follower(_) => None,
        }
    }

    fn lead_mut(&mut self) -> Option<&mut Lead> {
        match &mut self.role {
            Role::Leader(lead) => Some(lead),
            Role::Follower(_) => None,
        }
    }

    /// Whether a fetch may pose as this replica's: the leader's own epoch was checked before, so a replica that
    /// is not known here is one of an assignment that is still to come. A stale broker epoch is that of a
    /// process which has been started again since (KIP-903).
    pub(super) fn check_replica(&self, id: i32, epoch: i64, told_epoch: bool) -> Result<(), ErrorCode> {
        if self.lead().is_none_or(|lead| lead.remote(id).is_none()) {
            let unknown =
                if told_epoch { ErrorCode::UnknownLeaderEpoch } else { ErrorCode::NotLeaderOrFollower };
            return Err(unknown);
        }
        let is_stale = |registered: i64| epoch != -1 && registered > epoch;
        if self.assignment.broker_epoch(id).is_some_and(is_stale) {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        Ok(())
    }

    /// Which of the replicas that are nearer to a consumer it is to read from (KIP-392): one that is in sync and
    /// has the offset; of several the one that has most, and caught up last. One that lags is never named: the
    /// consumer would fall behind with it.
    pub(super) fn preferred_replica(&self, now: Now, read: &Read) -> Option<i32> {
        if read.nearer.is_empty() {
            return None;
        }
        let fits = |remote: &&Remote| {
            read.nearer.contains(&remote.id)
                && self.assignment.isr.contains(&remote.id)
                && remote.log_start_offset <= read.offset
                && remote.end.is_some_and(|end| end.offset >= read.offset)
        };
        let remotes = self.lead()?.remotes.iter().filter(fits);
        let lag_ms =
            |remote: &Remote| remote.caught_up_ms.map_or(u64::MAX, |ms| now.mono_ms.saturating_sub(ms));
        let order = |remote: &&Remote| {
            (remote.end.map(|end| end.offset), std::cmp::Reverse(lag_ms(remote)), remote.id)
        };
        remotes.max_by_key(order).map(|remote| remote.id)
    }

    /// A replica's fetch was served: what it has counts for the high watermark, and it may join the ISR.
    pub(super) fn replica_fetched(&mut self, now: Now, fetch: ReplicaFetch, effects: &mut Vec<Effect>) {
        let leader_end = self.log.log_end();
        let Some(lead) = self.lead_mut() else { return };
        let Some(remote) = lead.remote_mut(fetch.id) else { return };
        let log_start_before = remote.log_start_offset;
        remote.fetches(now.mono_ms, &fetch, leader_end);
        let log_start_moved = remote.log_start_offset != log_start_before;
        self.expand_isr(now, fetch.id, effects);
        self.advance(now, effects);
        if log_start_moved {
            self.answer_deletions(effects);
        }
    }

    /// The log end has moved past those whose sessions waited for that. Sessions do not ask again what they know, so
    /// a replica that waits has everything for as long as it waits.
    pub(super) fn note_passed(&mut self, now: Now, log_end: i64) {
        let Role::Leader(lead) = &mut self.role else { return };
        self.watches.replicas_passed(log_end).for_each(|id| lead.had_everything(id, now.mono_ms));
    }

    /// What the fetches of other replicas bring about may be another thing now: those whose sessions wait fetch again.
    pub(super) fn look_again(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.note_passed(now, i64::MAX);
        self.watches.fire_replicas(effects);
    }

    /// A replica's watch is taken back.
    pub(super) fn waited_until_now(&mut self, now: Now, replica: Option<i32>) {
        if let (Some(lead), Some(id)) = (self.lead_mut(), replica) {
            lead.had_everything(id, now.mono_ms);
        }
    }

    /// Asks for an ISR with this replica if it is not in it and has all that may be committed: everything below
    /// the high watermark, and below the start of the leader's epoch, since a new leader does not know yet up to
    /// where the leader before had committed.
    fn expand_isr(&mut self, now: Now, id: i32, effects: &mut Vec<Effect>) {
        let Role::Leader(lead) = &self.role else { return };
        let rests = lead.retry_at_ms.is_some_and(|at_ms| at_ms > now.mono_ms);
        if lead.change.is_some() || rests || self.assignment.isr.contains(&id) {
            return;
        }
        let Some(remote) = lead.remote(id).filter(|remote| remote.is_eligible(&self.assignment)) else {
            return;
        };
        let epoch_start = if is_planted(Bug::JoinsBeforeEpochStart) { 0 } else { lead.epoch_start };
        let needed = self.high_watermark.max(epoch_start);
        if remote.end.is_none_or(|end| end.offset < needed) {
            return;
        }
        // In the order in which the replicas are assigned.
        let joins = |other: &i32| *other == id || self.assignment.isr.contains(other);
        let isr: SmallVec<[i32; 3]> = self.assignment.replicas.iter().copied().filter(joins).collect();
        self.ask_for_isr(&isr, effects);
    }

    /// Asks for an ISR without the replicas that lag.
    fn shrink_isr(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let Role::Leader(lead) = &self.role else { return };
        if lead.change.is_some() {
            return;
        }
        let (leader_end, lag_max_ms) = (self.log.log_end(), self.lag_max_ms);
        let keeps_up = |id: &i32| {
            let remote = lead.remote(*id);
            remote.is_none_or(|remote| remote.is_caught_up(now.mono_ms, leader_end, lag_max_ms))
        };
        let isr: SmallVec<[i32; 3]> = self.assignment.isr.iter().copied().filter(keeps_up).collect();
        if isr.len() < self.assignment.isr.len() {
            self.ask_for_isr(&isr, effects);
        }
    }

    fn ask_for_isr(&mut self, isr: &[i32], effects: &mut Vec<Effect>) {
        let Role::Leader(lead) = &mut self.role else { return };
        let change = lead.change_to(self.node_id, &self.assignment, isr);
        lead.change = Some(change.clone());
        lead.retry_at_ms = None;
        effects.push(Effect::AlterIsr(change));
    }

    /// Time has passed: lagging replicas are put out, what the controller refused is asked for again.
    pub(super) fn wake_isr(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let Role::Leader(lead) = &mut self.role else { return };
        let asks_again = lead.retry_at_ms.take_if(|at_ms| *at_ms <= now.mono_ms).is_some();
        let checks = lead.check_at_ms.take_if(|at_ms| *at_ms <= now.mono_ms).is_some();
        if self.state != State::Online {
            return;
        }
        if asks_again {
            effects.extend(lead.change.clone().map(Effect::AlterIsr));
            self.look_again(now, effects);
        }
        if checks {
            self.shrink_isr(now, effects);
            self.plan_isr_check(now);
            // A replica that lags is waited for no more, whether it was in the ISR or about to join it.
            self.advance(now, effects);
        }
    }

    /// While others are in the ISR it is looked at twice in the time that a replica may lag.
    pub(super) fn plan_isr_check(&mut self, now: Now) {
        let at_ms = now.mono_ms + (self.lag_max_ms / 2).max(1);
        let wanted = !self.lead().is_none_or(|lead| lead.remotes.is_empty());
        if let Some(lead) = self.lead_mut() {
            lead.check_at_ms = lead.check_at_ms.or(Some(at_ms)).filter(|_| wanted);
        }
    }

    /// The controller's word on an [`IsrChange`]. That it took one says nothing yet: the new ISR counts when it comes
    /// with an Image. Only there stands what `min.insync.replicas` is by then, and an answer that is faster would let a
    /// smaller ISR commit under a minimum that is in force no more. Until then the change may be in force, and the
    /// watermark waits for both.
    pub fn isr_altered(&mut self, now: Now, result: Result<IsrState, ErrorCode>, effects: &mut Vec<Effect>) {
        if let Err(error) = result {
            self.isr_refused(now, error);
        }
        self.settle(now, effects);
    }

    fn isr_refused(&mut self, now: Now, error: ErrorCode) {
        let Some(lead) = self.lead_mut().filter(|lead| lead.change.is_some()) else { return };
        match error {
            // It knows this state and has not changed it: the ISR is the one that is known. It may be asked for
            // again, but not as fast as the replica fetches.
            ErrorCode::IneligibleReplica => {
                lead.change = None;
                lead.retry_at_ms = Some(now.mono_ms + RETRY_MS);
            }
            // Something newer is there and on its way here; until then nobody knows what is in force.
            ErrorCode::UnknownTopicOrPartition
            | ErrorCode::UnknownTopicId
            | ErrorCode::FencedLeaderEpoch
            | ErrorCode::InvalidUpdateVersion
            | ErrorCode::InvalidRequest
            | ErrorCode::NewLeaderElected => {}
            // Whether it was carried out is not known, also where nobody has looked at it this time
            // (OPERATION_NOT_ATTEMPTED): the answer to an earlier attempt may be lost. To ask again for the same change
            // is safe: it is of this partition epoch and happens once.
            _ => lead.retry_at_ms = Some(now.mono_ms + RETRY_MS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAG_MS: u64 = 100;

    fn at(offset: i64) -> LogPosition {
        LogPosition { offset, segment_base_offset: 0, position: offset.unsigned_abs() }
    }

    fn fetch(offset: i64) -> ReplicaFetch {
        ReplicaFetch { id: 2, epoch: 7, log_start_offset: 0, end: at(offset) }
    }

    fn assignment(isr: &[i32], partition_epoch: i32) -> Assignment {
        Assignment {
            leader: 1,
            leader_epoch: 3,
            partition_epoch,
            replicas: [1, 2, 3].into_iter().collect(),
            isr: isr.iter().copied().collect(),
            recovery: LeaderRecovery::Recovered,
            broker_epochs: [(1, 5), (2, 7)].into_iter().collect(),
        }
    }

    fn now(mono_ms: u64) -> Now {
        Now { mono_ms, wall_ms: 0 }
    }

    #[test]
    fn a_replica_that_is_always_a_little_behind_keeps_up() {
        let mut remote = Remote::new(2, None);
        assert!(!remote.is_caught_up(0, 0, LAG_MS), "one that has never fetched does not");
        for round in 1..20 {
            // Each fetch gets what was there at the one before, and the leader has gone on meanwhile.
            remote.fetches(round * 50, &fetch(round as i64 * 10), round as i64 * 10 + 10);
            let keeps_up = remote.is_caught_up(round * 50, round as i64 * 10 + 10, LAG_MS);
            assert_eq!(keeps_up, round > 1, "round {round}");
        }
    }

    #[test]
    fn a_replica_that_falls_ever_further_behind_lags_when_its_time_is_over() {
        let mut remote = Remote::new(2, Some(0));
        for (at_ms, offset, leader_end, keeps_up) in
            [(50, 10, 100, true), (100, 20, 200, true), (150, 30, 300, false), (200, 300, 300, true)]
        {
            remote.fetches(at_ms, &fetch(offset), leader_end);
            assert_eq!(remote.is_caught_up(at_ms, leader_end, LAG_MS), keeps_up, "at {at_ms} ms");
        }
        assert!(remote.is_caught_up(10_000, 300, LAG_MS), "who has everything never lags");
        assert!(!remote.is_caught_up(10_000, 301, LAG_MS));
    }

    #[test]
    fn only_the_process_that_is_registered_may_join() {
        let known = assignment(&[1], 0);
        let mut remote = Remote::new(2, None);
        assert!(!remote.is_eligible(&known), "it has not fetched yet");
        for (epoch, eligible) in [(7, true), (6, false), (8, false), (-1, true)] {
            remote.fetches(0, &ReplicaFetch { epoch, ..fetch(0) }, 0);
            assert_eq!(remote.is_eligible(&known), eligible, "epoch {epoch}");
        }
        let mut fenced = Remote::new(3, None);
        fenced.fetches(0, &ReplicaFetch { id: 3, epoch: 9, ..fetch(0) }, 0);
        assert!(!fenced.is_eligible(&known), "it is not among those that may");
    }

    #[test]
    fn the_watermark_waits_for_the_known_isr_the_wanted_one_and_who_is_about_to_join() {
        let known = assignment(&[1, 3], 4);
        let mut lead = Lead::new(now(0), 1, &known, 0, Vec::new());
        let counts = |lead: &Lead, id, now_ms| {
            let by = IsrRules { assignment: &known, leader_end: 50, lag_max_ms: LAG_MS };
            lead.counts(now_ms, lead.remote(id).unwrap(), &by)
        };
        assert_eq!([2, 3].map(|id| counts(&lead, id, 0)), [false, true]);
        lead.remotes[0].fetches(10, &fetch(50), 50);
        assert!(counts(&lead, 2, 20), "it has caught up and is on its way");
        lead.remotes[0].fetches(30, &fetch(40), 50);
        assert!(!counts(&lead, 2, 500), "it was, and is not any more");
        lead.change = Some(lead.change_to(1, &known, &[1, 2]));
        assert!(counts(&lead, 2, 500), "it may be in the ISR already");
        assert!(counts(&lead, 3, 500), "it may still be in it");
        assert_eq!(lead.change.as_ref().unwrap().isr.as_slice(), [(1, 5), (2, 7)]);
        lead.take_replicas(now(500), 1, &assignment(&[1, 3], 4));
        assert!(lead.change.is_some(), "the same state says nothing of it");
        lead.take_replicas(now(500), 1, &assignment(&[1, 2], 5));
        assert!(lead.change.is_none());
    }
}
