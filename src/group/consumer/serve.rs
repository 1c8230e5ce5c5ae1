//! The coordinator's part of consumer groups: which group a request is about, and what becomes of a step.

use std::sync::Arc;

use super::plan::Plan;
use super::records::{MemberState, Partitions};
use super::request::{
    BeatRefused, ConsumerHeartbeat, DescribedConsumerGroup, DescribedConsumerMember, NamedPartitions,
};
use super::state::{ConsumerState, EPOCH_AWAY, GroupState};
use super::timers::Timer;
use super::topics::Topics;
use super::{ConsumerGroup, GroupOverrides, convert, heartbeat};
use crate::effect::Now;
use crate::group::record::Record;
use crate::group::request::{CommitOffsets, Heartbeat, Join, Joined, Leave, Leaver, Response, Sync, Synced};
use crate::group::{Coordinator, Group, GroupConfig, Output};
use crate::wire::ErrorCode;

/// Milliseconds after which a member that could not be taken out is looked at again.
const RETRY_MS: i32 = 1_000;

impl Coordinator {
    fn plan<'a>(&self, now: Now, id: &str, config: &'a GroupConfig, topics: &'a Topics) -> Plan<'a> {
        let seen_version = match self.groups.get(id) {
            Some(Group::Consumer(group)) => group.seen_version,
            _ => None,
        };
        Plan {
            now,
            config: &config.consumer,
            overrides: self.overrides(id),
            topics,
            state: self.store.consumer(id).cloned().unwrap_or_default(),
            records: Vec::new(),
            timers: Vec::new(),
            seen_version,
        }
    }

    fn overrides(&self, id: &str) -> GroupOverrides {
        self.overrides.get(id).copied().unwrap_or_default()
    }

    /// Lets a group do something; a refused step leaves nothing behind.
    fn with_plan(
        &mut self,
        now: Now,
        id: &Arc<str>,
        token: u64,
        out: &mut Vec<Output>,
        act: impl FnOnce(&mut Plan<'_>) -> Response,
    ) {
        let (config, topics) = (Arc::clone(&self.config), Arc::clone(&self.topics));
        let mut plan = self.plan(now, id, &config, &topics);
        let response = act(&mut plan);
        self.finish_plan(now, id, plan, Vec::new(), vec![(token, response)], out);
    }

    /// Ends a step: `first` are records that come before its own. Whether one batch could hold them.
    fn finish_plan(
        &mut self,
        now: Now,
        id: &Arc<str>,
        plan: Plan<'_>,
        first: Vec<Record>,
        answers: Vec<(u64, Response)>,
        out: &mut Vec<Output>,
    ) -> bool {
        let own = plan.records.into_iter().map(|record| Record::Consumer(id.clone(), record));
        let records: Vec<_> = first.into_iter().chain(own).collect();
        if !self.fits(&records) {
            let refused = |(token, _)| (token, Response::Refused(ErrorCode::UnknownServerError));
            self.hold(now, answers.into_iter().map(refused).collect(), out);
            return false;
        }
        if !matches!(self.groups.get(id), Some(Group::Consumer(_))) && !plan.timers.is_empty() {
            self.drop_group(id);
            self.groups.insert(id.clone(), Group::Consumer(ConsumerGroup::new(id.clone())));
        }
        if let Some(Group::Consumer(group)) = self.groups.get_mut(id) {
            group.seen_version = plan.seen_version;
            for (member, timer, ms) in plan.timers {
                let at_ms = ms.map(|ms| now.mono_ms + u64::from(ms.max(0).unsigned_abs()));
                group.timers.set(&member, timer, at_ms);
            }
        }
        self.append(records, Vec::new(), out);
        self.hold(now, answers, out);
        self.settle_group(id, true);
        true
    }

    /// ConsumerGroupHeartbeat.
    pub(in crate::group) fn consumer_heartbeat(
        &mut self,
        now: Now,
        token: u64,
        request: &ConsumerHeartbeat,
        out: &mut Vec<Output>,
    ) {
        let id = &request.group;
        let (config, topics) = (Arc::clone(&self.config), Arc::clone(&self.topics));
        let mut plan = self.plan(now, id, &config, &topics);
        let is_leaving = request.epoch < heartbeat::EPOCH_JOINS;
        let stepped = self.open(id, request, &mut plan).and_then(|first| {
            let beat = if is_leaving { plan.check_leave(request) } else { plan.heartbeat(request) };
            beat.map(|beat| (first, beat))
        });
        let (first, beat) = match stepped {
            Ok(stepped) => stepped,
            Err(refused) => return self.hold(now, vec![(token, Response::BeatRefused(refused))], out),
        };
        let answer = (token, Response::ConsumerBeat(beat));
        if is_leaving && request.epoch != EPOCH_AWAY {
            self.fence(now, id, plan, &request.member_id, Some(answer), out);
            return;
        }
        if is_leaving {
            plan.away(&request.member_id);
        }
        let mut answers = match first.is_empty() {
            true => Vec::new(),
            false => self.parked_of_classic(id),
        };
        answers.push(answer);
        self.finish_plan(now, id, plan, first, answers, out);
    }

    /// Finds the group that a member of the consumer protocol asks about, or makes it: of nothing, of an empty group of
    /// the classic protocol, or of one with members that may become a consumer group. Records that come first.
    fn open(
        &self,
        id: &Arc<str>,
        request: &ConsumerHeartbeat,
        plan: &mut Plan<'_>,
    ) -> Result<Vec<Record>, BeatRefused> {
        let not_found = |words: String| BeatRefused::new(ErrorCode::GroupIdNotFound, words);
        if self.store.consumer(id).is_some() {
            return Ok(Vec::new());
        }
        if request.epoch != heartbeat::EPOCH_JOINS {
            let is_leaving = request.epoch < heartbeat::EPOCH_JOINS;
            return Err(not_found(match (self.store.will_exist(id), is_leaving) {
                (true, _) => format!("Group {id} is not a consumer group."),
                (false, true) => format!("Group {id} not found."),
                (false, false) => format!("Consumer group {id} not found."),
            }));
        }
        let erase = Record::Group(id.clone(), None);
        match self.classic(id).filter(|group| !group.members.is_empty()) {
            Some(group) => {
                let policy = self.config.consumer.migration_policy;
                let fits = group.members.len() <= self.config.consumer.group_max_size;
                let cannot = |why: &str| {
                    not_found(format!("Cannot upgrade classic group {id} to consumer group because {why}"))
                };
                if !policy.may_upgrade() {
                    return Err(cannot("online upgrade is disabled."));
                }
                if !fits {
                    return Err(cannot("the group size exceeds the consumer group maximum size."));
                }
                convert::upgrade(group, plan)?;
                Ok(vec![erase])
            }
            None if self.store.metadata(id).is_some() => Ok(vec![erase]),
            None => Ok(Vec::new()),
        }
    }

    /// Members of a classic group that becomes a consumer group have to join again.
    fn parked_of_classic(&mut self, id: &Arc<str>) -> Vec<(u64, Response)> {
        let error = ErrorCode::RebalanceInProgress;
        let Some(group) = self.groups.get_mut(id).and_then(Group::as_classic_mut) else { return Vec::new() };
        let mut answers = Vec::new();
        for member in group.members.values_mut() {
            let joined = || Response::Joined(Joined::refused(&member.id, error));
            answers.extend(member.awaiting_join.take().map(|token| (token, joined())));
            let synced = || Response::Synced(Synced::refused(error));
            answers.extend(member.awaiting_sync.take().map(|token| (token, synced())));
        }
        answers
    }

    /// Takes a member out; if only members of the classic protocol are left, the group becomes one of theirs.
    fn fence(
        &mut self,
        now: Now,
        id: &Arc<str>,
        mut plan: Plan<'_>,
        member: &Arc<str>,
        answer: Option<(u64, Response)>,
        out: &mut Vec<Output>,
    ) {
        let answers: Vec<_> = answer.into_iter().collect();
        if self.may_downgrade(&plan.state, member)
            && let Some(group) = convert::downgrade(id, &plan.state, Some(member), plan.topics, now)
        {
            return self.downgrade(now, id, plan, group, answers, out);
        }
        plan.remove(std::slice::from_ref(member));
        if !self.finish_plan(now, id, plan, Vec::new(), answers, out)
            && let Some(Group::Consumer(group)) = self.groups.get_mut(id)
        {
            group.timers.set(member, Timer::Session, Some(now.mono_ms + u64::from(RETRY_MS.unsigned_abs())));
            self.settle_group(id, true);
        }
    }

    /// Whether the group may follow the classic protocol without the member.
    fn may_downgrade(&self, state: &ConsumerState, without: &str) -> bool {
        let is_last = state.members().all(|(id, member)| member.is_classic() != (&**id == without));
        let left = state.member_count().saturating_sub(1);
        let policy = self.config.consumer.migration_policy;
        is_last && left > 0 && left <= self.config.group_max_size && policy.may_downgrade()
    }

    fn downgrade(
        &mut self,
        now: Now,
        id: &Arc<str>,
        plan: Plan<'_>,
        group: convert::Downgraded,
        answers: Vec<(u64, Response)>,
        out: &mut Vec<Output>,
    ) {
        let gone = plan.state.tombstones();
        let own = plan.records.into_iter().chain(gone).map(|record| Record::Consumer(id.clone(), record));
        let mut records: Vec<_> = own.collect();
        records.push(Record::Group(id.clone(), Some(group.stored)));
        self.drop_group(id);
        self.groups.insert(id.clone(), Group::Classic(Box::new(group.group)));
        // Deletions that are split over batches are none the worse for a crash in between.
        self.append_split(records, out);
        self.with_group(now, id, out, |group, turn| {
            let members: Vec<_> = group.members.keys().cloned().collect();
            members.iter().for_each(|member| group.expect_heartbeat(turn.now, member));
            if group.must_rebalance {
                group.must_rebalance = false;
                group.prepare_rebalance(turn);
            }
        });
        self.hold(now, answers, out);
    }

    /// Gives up who was not heard of in time.
    pub(in crate::group) fn wake_consumers(&mut self, now: Now, id: &Arc<str>, out: &mut Vec<Output>) {
        while let Some(Group::Consumer(group)) = self.groups.get_mut(id)
            && let Some(member) = group.timers.take_due(now.mono_ms)
        {
            let (config, topics) = (Arc::clone(&self.config), Arc::clone(&self.topics));
            let plan = self.plan(now, id, &config, &topics);
            if plan.state.member(&member).is_some() {
                self.fence(now, id, plan, &member, None, out);
            }
        }
        self.settle_group(id, true);
    }

    /// Everything is loaded: every member has one session to be heard of.
    pub(in crate::group) fn start_consumers(&mut self, now: Now) {
        let stored = self.store.groups().iter();
        let stored = stored.filter_map(|(id, group)| Some((id.clone(), group.consumer.clone()?)));
        for (id, state) in stored.filter(|(_, state)| !state.is_empty()).collect::<Vec<_>>() {
            let mut group = ConsumerGroup::new(id.clone());
            let session_ms = self.config.consumer.session_timeout_of(&self.overrides(&id));
            let at_ms = |ms: i32| Some(now.mono_ms + u64::from(ms.max(0).unsigned_abs()));
            for (member_id, member) in state.members() {
                let classic = member.metadata.classic.as_ref();
                let session_ms = classic.map_or(session_ms, |classic| classic.session_timeout_ms);
                group.timers.set(member_id, Timer::Session, at_ms(session_ms));
                if classic.is_none() && member.current.state == MemberState::UnrevokedPartitions {
                    group.timers.set(
                        member_id,
                        Timer::Rebalance,
                        at_ms(member.metadata.rebalance_timeout_ms),
                    );
                }
            }
            self.groups.insert(id.clone(), Group::Consumer(group));
            self.settle_group(&id, true);
        }
    }

    /// JoinGroup to a consumer group that has members.
    pub(in crate::group) fn join_consumers(
        &mut self,
        now: Now,
        token: u64,
        request: &Join,
        out: &mut Vec<Output>,
    ) {
        let id = &request.group;
        let (config, topics) = (Arc::clone(&self.config), Arc::clone(&self.topics));
        let mut plan = self.plan(now, id, &config, &topics);
        let joined = match plan.classic_join(request) {
            Ok(joined) => joined,
            Err(error) => {
                let refused = Response::Joined(Joined::refused(&request.member_id, error));
                return self.hold(now, vec![(token, refused)], out);
            }
        };
        let before = self.store.consumer(id).cloned().unwrap_or_default();
        let replaced = request.instance_id.as_ref().and_then(|instance| before.static_member(instance));
        let is_last = replaced.is_some_and(|old| request.member_id.is_empty() && self.may_stay(&before, old));
        let answers = vec![(token, Response::Joined(joined))];
        if is_last && let Some(mut group) = convert::downgrade(id, &plan.state, None, plan.topics, now) {
            // It took the place and what was assigned to it: nobody else is concerned, unless others were on their way.
            group.group.must_rebalance = plan.state.state() != GroupState::Stable;
            return self.downgrade(now, id, plan, group, answers, out);
        }
        self.finish_plan(now, id, plan, Vec::new(), answers, out);
    }

    /// Whether a group may follow the classic protocol once the member is replaced by one that does.
    fn may_stay(&self, state: &ConsumerState, replaced: &str) -> bool {
        let is_last = state.members().all(|(id, member)| member.is_classic() != (&**id == replaced));
        let policy = self.config.consumer.migration_policy;
        is_last && state.member_count() <= self.config.group_max_size && policy.may_downgrade()
    }

    /// SyncGroup of a member of a consumer group.
    pub(in crate::group) fn sync_consumers(
        &mut self,
        now: Now,
        token: u64,
        request: &Sync,
        out: &mut Vec<Output>,
    ) {
        let is_joining = self.is_joining(&request.group, &request.member_id);
        self.with_plan(now, &request.group, token, out, |plan| {
            let synced = plan.classic_sync(request);
            if synced == Err(ErrorCode::RebalanceInProgress) && !is_joining {
                plan.set_timer(&request.member_id, Timer::Join, plan.rejoin_ms(&request.member_id));
            }
            Response::Synced(synced.unwrap_or_else(Synced::refused))
        });
    }

    fn is_joining(&self, id: &str, member: &Arc<str>) -> bool {
        matches!(self.groups.get(id), Some(Group::Consumer(group)) if group.timers.is_set(member, Timer::Join))
    }

    /// Heartbeat of a member of a consumer group.
    pub(in crate::group) fn heartbeat_consumers(
        &mut self,
        now: Now,
        token: u64,
        request: &Heartbeat,
        out: &mut Vec<Output>,
    ) {
        let is_joining = self.is_joining(&request.group, &request.member_id);
        self.with_plan(now, &request.group, token, out, |plan| {
            let error = match plan.classic_heartbeat(request) {
                Err(error) => Some(error),
                Ok(false) => None,
                Ok(true) => {
                    if !is_joining {
                        plan.set_timer(&request.member_id, Timer::Join, plan.rejoin_ms(&request.member_id));
                    }
                    Some(ErrorCode::RebalanceInProgress)
                }
            };
            Response::Heartbeat(error)
        });
    }

    /// LeaveGroup of members of a consumer group.
    pub(in crate::group) fn leave_consumers(
        &mut self,
        now: Now,
        token: u64,
        request: &Leave,
        out: &mut Vec<Output>,
    ) {
        self.with_plan(now, &request.group, token, out, |plan| {
            let left: Vec<(Leaver, Option<ErrorCode>)> = plan.classic_leave(request);
            Response::Left(left)
        });
    }

    /// Whether a member, or somebody who only stores offsets here, may commit now.
    pub(in crate::group) fn check_consumer_commit(
        state: &ConsumerState,
        request: &CommitOffsets,
    ) -> Result<(), ErrorCode> {
        if request.generation < 0 && state.is_empty() {
            return Ok(());
        }
        let member = state.member(&request.member_id).ok_or(ErrorCode::UnknownMemberId)?;
        if !member.is_classic() && !request.knows_missing_groups {
            return Err(ErrorCode::UnsupportedVersion);
        }
        check_member_epoch(state, &request.member_id, request.generation)
    }

    /// Whether the offsets of the group may be read by a member of that epoch; anybody may who names none.
    ///
    /// # Errors
    /// UNKNOWN_MEMBER_ID, STALE_MEMBER_EPOCH, ILLEGAL_GENERATION.
    pub(in crate::group) fn check_fetch(&self, id: &str, member: &str, epoch: i32) -> Result<(), ErrorCode> {
        if epoch < 0 && member.is_empty() {
            return Ok(());
        }
        match self.store.groups().get(id).and_then(|stored| stored.consumer.as_ref()) {
            Some(state) => check_member_epoch(state, member, epoch),
            None => Ok(()),
        }
    }

    /// ConsumerGroupDescribe: committed state.
    pub(in crate::group) fn describe_consumers(&self, ids: &[Arc<str>]) -> Vec<DescribedConsumerGroup> {
        ids.iter().map(|id| self.describe_consumer(id)).collect()
    }

    fn describe_consumer(&self, id: &Arc<str>) -> DescribedConsumerGroup {
        let stored = self.store.groups().get(id);
        let Some(state) = stored.and_then(|stored| stored.consumer.as_ref()) else {
            return DescribedConsumerGroup {
                group: id.clone(),
                error: Some(ErrorCode::GroupIdNotFound),
                is_of_other_type: stored.is_some(),
                state: "Dead",
                ..Default::default()
            };
        };
        let members = state.members().map(|(member_id, member)| DescribedConsumerMember {
            member_id: member_id.clone(),
            instance_id: member.metadata.instance_id.clone(),
            rack_id: member.metadata.rack_id.clone(),
            epoch: member.current.epoch,
            client_id: member.metadata.client_id.clone(),
            client_host: member.metadata.client_host.clone(),
            topics: member.metadata.topics.clone(),
            regex: member.metadata.regex.clone(),
            assigned: self.named(&member.current.assigned),
            target: state.target(member_id).map(|target| self.named(target)).unwrap_or_default(),
            is_classic: member.is_classic(),
        });
        let preferred = state.preferred_assignor();
        DescribedConsumerGroup {
            group: id.clone(),
            error: None,
            is_of_other_type: false,
            state: state.state().name(),
            epoch: state.group.epoch,
            target_epoch: state.target_epoch,
            assignor: preferred.unwrap_or_else(|| self.config.consumer.default_assignor()),
            members: members.collect(),
        }
    }

    fn named(&self, partitions: &Partitions) -> Vec<NamedPartitions> {
        let named = partitions.iter().filter_map(|(id, of)| {
            let topic = self.topics.name(*id)?.clone();
            Some(NamedPartitions { topic_id: *id, topic, partitions: of.clone() })
        });
        named.collect()
    }

    /// Checks what every step leaves true of a consumer group.
    pub(in crate::group) fn check_consumer(&self, group: &ConsumerGroup) {
        let state = self.store.consumer(&group.id).expect("a group with timers is there");
        state.check_invariants();
        let has_timer = |member: &Arc<str>| group.timers.is_set(member, Timer::Session);
        assert!(state.members().all(|(member, _)| has_timer(member)), "every member is given up one day");
        assert!(
            group.timers.members().all(|member| state.member(member).is_some()),
            "only members have timers"
        );
        assert_eq!(group.wakes_at_ms, group.next_deadline_ms(), "no deadline is missed");
    }
}

fn check_member_epoch(state: &ConsumerState, id: &str, epoch: i32) -> Result<(), ErrorCode> {
    let member = state.member(id).ok_or(ErrorCode::UnknownMemberId)?;
    match epoch == member.current.epoch {
        true => Ok(()),
        false if member.is_classic() => Err(ErrorCode::IllegalGeneration),
        false => Err(ErrorCode::StaleMemberEpoch),
    }
}
