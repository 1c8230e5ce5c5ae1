//! ConsumerGroupHeartbeat: members that follow the consumer protocol join, stay and leave (KIP-848).

use std::sync::Arc;

use super::ConsumerConfig;
use super::plan::Plan;
use super::reconcile::is_subset;
use super::records::{Current, MemberMetadata};
use super::request::{BeatRefused, ConsumerBeat, ConsumerHeartbeat};
use super::state::{EPOCH_AWAY, Member};
use super::timers::Timer;
use crate::group::record::STRING_BYTES_MAX;
use crate::wire::ErrorCode;

/// The member epoch of who joins.
pub(super) const EPOCH_JOINS: i32 = 0;
/// The member epoch of who leaves for good.
const EPOCH_LEAVES: i32 = -1;

/// Refuses what no state could make right.
pub(in crate::group) fn check(
    config: &ConsumerConfig,
    request: &ConsumerHeartbeat,
) -> Result<(), BeatRefused> {
    let invalid = |words: &str| Err(BeatRefused::new(ErrorCode::InvalidRequest, words));
    let is_blank = |text: &Option<Arc<str>>| text.as_ref().is_some_and(|text| text.trim().is_empty());
    let has_name = request.must_name_itself || request.epoch > EPOCH_JOINS || request.epoch == EPOCH_LEAVES;
    if has_name && request.member_id.trim().is_empty() {
        return invalid("MemberId can't be empty.");
    }
    if request.group.trim().is_empty() {
        return invalid("GroupId can't be empty.");
    }
    if is_blank(&request.instance_id) {
        return invalid("InstanceId can't be empty.");
    }
    if is_blank(&request.rack_id) {
        return invalid("RackId can't be empty.");
    }
    match request.epoch {
        EPOCH_JOINS => check_join(request)?,
        EPOCH_AWAY if request.instance_id.is_none() => return invalid("InstanceId can't be null."),
        epoch if epoch < EPOCH_AWAY => return invalid("MemberEpoch is invalid."),
        _ => {}
    }
    let names = [Some(&request.group), Some(&request.member_id), request.regex.as_ref()];
    if names.into_iter().flatten().any(|name| name.len() > STRING_BYTES_MAX) {
        return invalid("A name is too long for a record.");
    }
    if let Some(name) = request.assignor.as_ref().filter(|name| !config.has_assignor(name)) {
        let words = format!(
            "ServerAssignor {name} is not supported. Supported assignors: {}.",
            config.assignors.join(", ")
        );
        return Err(BeatRefused::new(ErrorCode::UnsupportedAssignor, words));
    }
    match &request.regex {
        Some(pattern) => super::topics::check_pattern(pattern),
        None => Ok(()),
    }
}

fn check_join(request: &ConsumerHeartbeat) -> Result<(), BeatRefused> {
    let words = if request.rebalance_timeout_ms == -1 {
        "RebalanceTimeoutMs must be provided in first request."
    } else if request.owned.as_ref().is_none_or(|owned| !owned.is_empty()) {
        "TopicPartitions must be empty when (re-)joining."
    } else if request.topics.is_none() && request.regex.is_none() {
        "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining."
    } else {
        return Ok(());
    };
    Err(BeatRefused::new(ErrorCode::InvalidRequest, words))
}

impl Plan<'_> {
    /// A member joins or says that it is there.
    ///
    /// # Errors
    /// What Kafka answers, in its words.
    pub(super) fn heartbeat(&mut self, request: &ConsumerHeartbeat) -> Result<ConsumerBeat, BeatRefused> {
        let is_member = self.state.member(&request.member_id).is_some();
        let most = self.config.group_max_size;
        if !is_member && self.state.member_count() >= most {
            let words = format!("The consumer group has reached its maximum capacity of {most} members.");
            return Err(BeatRefused::new(ErrorCode::GroupMaxSizeReached, words));
        }
        let id: Arc<str> = match request.member_id.is_empty() {
            true => request.fresh_id.as_hyphenated().to_string().into(),
            false => request.member_id.clone(),
        };
        let before = match &request.instance_id {
            None => self.dynamic_member(&id, request)?,
            Some(instance_id) => self.static_member(&id, instance_id, request)?,
        };
        let metadata = updated(before.as_ref().map(|member| &*member.metadata), request);
        let is_changed =
            self.update_metadata(&id, before.as_ref().map(|member| &*member.metadata), metadata)?;
        self.refresh(is_changed);
        self.assign();
        let current = before.map(|member| member.current).unwrap_or_default();
        let next = self.reconcile(&id, &current, request.owned.as_ref())?;
        self.set_timer(&id, Timer::Session, self.session_timeout_ms());
        self.stop_timer(&id, Timer::Join);
        self.stop_timer(&id, Timer::Sync);
        let is_full = request.epoch == EPOCH_JOINS
            || request.rebalance_timeout_ms != -1
                && (request.topics.is_some() || request.regex.is_some())
                && request.owned.is_some();
        Ok(ConsumerBeat {
            member_id: id,
            epoch: next.epoch,
            heartbeat_interval_ms: self.heartbeat_interval_ms(),
            assigned: (is_full || next.assigned != current.assigned).then(|| next.assigned.clone()),
        })
    }

    fn dynamic_member(&self, id: &str, request: &ConsumerHeartbeat) -> Result<Option<Member>, BeatRefused> {
        let Some(member) = self.state.member(id) else {
            let is_new = request.epoch == EPOCH_JOINS;
            return if is_new { Ok(None) } else { Err(unknown(id, &request.group)) };
        };
        check_epoch(&member.current, request)?;
        Ok(Some(member))
    }

    fn static_member(
        &mut self,
        id: &Arc<str>,
        instance_id: &str,
        request: &ConsumerHeartbeat,
    ) -> Result<Option<Member>, BeatRefused> {
        let known = self.state.static_member(instance_id).cloned();
        if request.epoch != EPOCH_JOINS {
            self.check_static(instance_id, id)?;
            let member = self.state.member(id).ok_or_else(|| unknown(id, &request.group))?;
            check_epoch(&member.current, request)?;
            return Ok(Some(member));
        }
        let Some(old) = known else { return Ok(self.state.member(id)) };
        let member = self.state.member(&old).ok_or_else(|| unknown(&old, &request.group))?;
        if !member.is_classic() && member.current.epoch != EPOCH_AWAY {
            let words = format!(
                "Static member {id} with instance id {instance_id} cannot join the group because the instance id \
                 is owned by {old} member."
            );
            return Err(BeatRefused::new(ErrorCode::UnreleasedInstanceId, words));
        }
        Ok(self.replace(&old, id))
    }

    /// A member leaves, for good or for a while; it is told what it said.
    ///
    /// # Errors
    /// UNKNOWN_MEMBER_ID and FENCED_INSTANCE_ID.
    pub(super) fn check_leave(&self, request: &ConsumerHeartbeat) -> Result<ConsumerBeat, BeatRefused> {
        if let Some(instance_id) = &request.instance_id {
            self.check_static(instance_id, &request.member_id)?;
        }
        self.state.member(&request.member_id).ok_or_else(|| unknown(&request.member_id, &request.group))?;
        Ok(ConsumerBeat {
            member_id: request.member_id.clone(),
            epoch: request.epoch,
            heartbeat_interval_ms: 0,
            assigned: None,
        })
    }

    fn session_timeout_ms(&self) -> i32 {
        self.config.session_timeout_of(&self.overrides)
    }

    fn heartbeat_interval_ms(&self) -> i32 {
        self.config.heartbeat_interval_of(&self.overrides)
    }
}

fn unknown(member: &str, group: &str) -> BeatRefused {
    let words = format!("Member {member} is not a member of group {group}.");
    BeatRefused::new(ErrorCode::UnknownMemberId, words)
}

/// Who says an older epoch did not get its answer: that is fine while it has nothing that it may not have.
fn check_epoch(current: &Current, request: &ConsumerHeartbeat) -> Result<(), BeatRefused> {
    let is_repeated = request.epoch == current.previous_epoch
        && request.owned.as_ref().is_some_and(|owned| is_subset(owned, &current.assigned));
    if request.epoch == EPOCH_JOINS
        || request.epoch == current.epoch
        || request.epoch < current.epoch && is_repeated
    {
        return Ok(());
    }
    let which = if request.epoch > current.epoch { "greater" } else { "smaller" };
    let words = format!(
        "The consumer group member has a {which} member epoch ({}) than the one known by the group coordinator \
         ({}). The member must abandon all its partitions and rejoin.",
        request.epoch, current.epoch
    );
    Err(BeatRefused::new(ErrorCode::FencedMemberEpoch, words))
}

fn updated(before: Option<&MemberMetadata>, request: &ConsumerHeartbeat) -> MemberMetadata {
    let kept = |new: &Option<Arc<str>>, old: fn(&MemberMetadata) -> &Option<Arc<str>>| {
        new.clone().or_else(|| before.and_then(|before| old(before).clone()))
    };
    let rebalance = request.rebalance_timeout_ms;
    MemberMetadata {
        instance_id: kept(&request.instance_id, |of| &of.instance_id),
        rack_id: kept(&request.rack_id, |of| &of.rack_id),
        client_id: request.client_id.clone(),
        client_host: request.client_host.clone(),
        topics: request.topics.clone().or_else(|| before.map(|of| of.topics.clone())).unwrap_or_default(),
        regex: kept(&request.regex, |of| &of.regex),
        rebalance_timeout_ms: match before {
            Some(before) if rebalance == -1 => before.rebalance_timeout_ms,
            _ => rebalance,
        },
        assignor: kept(&request.assignor, |of| &of.assignor),
        classic: None,
    }
}
