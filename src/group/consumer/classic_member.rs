//! Members of a consumer group that follow the classic protocol: a JoinGroup leads them a step further, a SyncGroup
//! gives them what they have, a Heartbeat tells them to join again when there is something new. They are never leaders.

use std::sync::Arc;

use super::embedded::{Subscription, encode_assignment};
use super::plan::Plan;
use super::reconcile::contains;
use super::records::{ClassicPart, MemberMetadata, MemberState};
use super::state::{ConsumerState, Member};
use super::timers::Timer;
use crate::group::classic::CONSUMER;
use crate::group::member::distinct;
use crate::group::request::{Heartbeat, Join, Joined, Leave, Leaver, Protocol, Sync, Synced};
use crate::wire::ErrorCode;

/// Whether one of the protocols is known to all members that follow the classic protocol.
fn supports(state: &ConsumerState, protocol_type: &str, protocols: &[Protocol]) -> bool {
    let classic: Vec<_> = state.members().filter_map(|(_, member)| member.metadata.classic.clone()).collect();
    let knows = |part: &ClassicPart, name: &str| part.protocols.iter().any(|known| &*known.name == name);
    let is_common = |protocol: &Protocol| classic.iter().all(|part| knows(part, &protocol.name));
    protocol_type == CONSUMER && protocols.iter().any(is_common)
}

fn classic_of(member: &Member) -> Result<&ClassicPart, ErrorCode> {
    member.metadata.classic.as_ref().ok_or(ErrorCode::UnknownMemberId)
}

impl Plan<'_> {
    /// JoinGroup.
    pub(super) fn classic_join(&mut self, request: &Join) -> Result<Joined, ErrorCode> {
        let is_unknown = request.member_id.is_empty();
        let is_member = self.state.member(&request.member_id).is_some();
        if !is_member && self.state.member_count() >= self.config.group_max_size {
            return Err(ErrorCode::GroupMaxSizeReached);
        }
        if !supports(&self.state, &request.protocol_type, &request.protocols) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        let name = request.instance_id.as_ref().unwrap_or(&request.client_id);
        let id: Arc<str> = match is_unknown {
            true => format!("{name}-{}", request.fresh_id.as_hyphenated()).into(),
            false => request.member_id.clone(),
        };
        if is_unknown && request.must_know_member_id && request.instance_id.is_none() {
            return Ok(Joined::refused(&id, ErrorCode::MemberIdRequired));
        }
        let first = request.protocols.first().ok_or(ErrorCode::InconsistentGroupProtocol)?;
        let subscription = Subscription::decode(&first.metadata, self.topics)
            .map_err(|_| ErrorCode::InconsistentGroupProtocol)?;
        let before = match &request.instance_id {
            None => self.state.member(&id),
            Some(instance_id) => self.classic_static(&id, instance_id, is_unknown)?,
        };
        let metadata =
            classic_metadata(before.as_ref().map(|member| &*member.metadata), request, &subscription);
        let is_changed = self.update_metadata(&id, before.as_ref().map(|member| &*member.metadata), metadata);
        let is_changed = is_changed.map_err(|refused| refused.error)?;
        self.refresh(is_changed);
        self.assign();
        let current = before.map(|member| member.current).unwrap_or_default();
        let next = self.reconcile(&id, &current, Some(&subscription.owned))?;
        self.stop_timer(&id, Timer::Join);
        self.stop_timer(&id, Timer::Rebalance);
        self.set_timer(&id, Timer::Session, request.session_timeout_ms);
        self.set_timer(&id, Timer::Sync, request.rebalance_timeout_ms);
        Ok(Joined {
            generation: next.epoch,
            protocol_type: Some(CONSUMER.into()),
            protocol: Some(first.name.clone()),
            member_id: id,
            ..Joined::default()
        })
    }

    fn classic_static(
        &mut self,
        id: &Arc<str>,
        instance_id: &str,
        is_unknown: bool,
    ) -> Result<Option<Member>, ErrorCode> {
        if !is_unknown {
            self.check_static(instance_id, id).map_err(|refused| refused.error)?;
            return Ok(self.state.member(id));
        }
        let Some(old) = self.state.static_member(instance_id).cloned() else { return Ok(None) };
        Ok(self.replace(&old, id))
    }

    fn classic_member(&self, id: &str, instance_id: Option<&str>) -> Result<Member, ErrorCode> {
        if let Some(instance_id) = instance_id {
            self.check_static(instance_id, id).map_err(|refused| refused.error)?;
        }
        let member = self.state.member(id).ok_or(ErrorCode::UnknownMemberId)?;
        classic_of(&member)?;
        Ok(member)
    }

    /// SyncGroup.
    pub(super) fn classic_sync(&mut self, request: &Sync) -> Result<Synced, ErrorCode> {
        let id = &request.member_id;
        let member = self.classic_member(id, request.instance_id.as_deref())?;
        let classic = classic_of(&member)?;
        let first = classic.protocols.first().ok_or(ErrorCode::UnknownServerError)?;
        let differs = |told: &Option<Arc<str>>, own: &str| told.as_ref().is_some_and(|told| **told != *own);
        if request.generation != member.current.epoch {
            return Err(ErrorCode::IllegalGeneration);
        }
        if differs(&request.protocol_type, CONSUMER) || differs(&request.protocol, &first.name) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        let is_behind = self.state.group.epoch > member.current.epoch;
        if is_behind && member.current.state != MemberState::UnrevokedPartitions {
            return Err(ErrorCode::RebalanceInProgress);
        }
        self.stop_timer(id, Timer::Sync);
        self.set_timer(id, Timer::Session, classic.session_timeout_ms);
        let version = Subscription::decode(&first.metadata, self.topics).map_or(0, |of| of.version);
        Ok(Synced {
            error: None,
            protocol_type: request.protocol_type.clone(),
            protocol: request.protocol.clone(),
            assignment: encode_assignment(&member.current.assigned, self.topics, version),
        })
    }

    /// Heartbeat: whether it has to join again.
    pub(super) fn classic_heartbeat(&mut self, request: &Heartbeat) -> Result<bool, ErrorCode> {
        let id = &request.member_id;
        let member = self.classic_member(id, request.instance_id.as_deref())?;
        if request.generation != member.current.epoch {
            return Err(ErrorCode::IllegalGeneration);
        }
        self.set_timer(id, Timer::Session, classic_of(&member)?.session_timeout_ms);
        Ok(match member.current.state {
            _ if member.current.epoch < self.state.group.epoch => true,
            MemberState::UnrevokedPartitions => true,
            MemberState::UnreleasedPartitions => !self.waits_for_others(id, &member),
            MemberState::Stable | MemberState::Unknown => false,
        })
    }

    /// Whether something that is meant for it is with others still.
    fn waits_for_others(&self, id: &str, member: &Member) -> bool {
        let owned = self.state.owned();
        let target = self.state.target(id).into_iter().flat_map(|target| target.iter());
        let mut wanted = target.flat_map(|(topic, of)| of.iter().map(|partition| (*topic, *partition)));
        wanted.any(|(topic, partition)| {
            !contains(&member.current.assigned, topic, partition) && owned.contains(&(topic, partition))
        })
    }

    /// Milliseconds that a member may take to join again.
    pub(super) fn rejoin_ms(&self, id: &str) -> i32 {
        self.state.member(id).map_or(0, |member| member.metadata.rebalance_timeout_ms)
    }

    /// LeaveGroup.
    pub(super) fn classic_leave(&mut self, request: &Leave) -> Vec<(Leaver, Option<ErrorCode>)> {
        let mut gone: Vec<Arc<str>> = Vec::new();
        let leave = |leaver: &Leaver| match self.classic_leaver(leaver) {
            Ok(id) if gone.contains(&id) => (leaver.clone(), Some(ErrorCode::UnknownMemberId)),
            Ok(id) => {
                gone.push(id.clone());
                (Leaver { member_id: id, instance_id: leaver.instance_id.clone() }, None)
            }
            Err(error) => (leaver.clone(), Some(error)),
        };
        let left = request.members.iter().map(leave).collect();
        if !gone.is_empty() {
            self.remove(&gone);
        }
        left
    }

    fn classic_leaver(&self, leaver: &Leaver) -> Result<Arc<str>, ErrorCode> {
        let id = match &leaver.instance_id {
            Some(instance_id) if leaver.member_id.is_empty() => {
                self.state.static_member(instance_id).ok_or(ErrorCode::UnknownMemberId)?.clone()
            }
            _ => leaver.member_id.clone(),
        };
        self.classic_member(&id, leaver.instance_id.as_deref())?;
        Ok(id)
    }
}

fn classic_metadata(before: Option<&MemberMetadata>, request: &Join, of: &Subscription) -> MemberMetadata {
    MemberMetadata {
        instance_id: request.instance_id.clone(),
        rack_id: of.rack_id.clone().or_else(|| before.and_then(|before| before.rack_id.clone())),
        client_id: request.client_id.clone(),
        client_host: request.client_host.clone(),
        topics: of.topics.clone(),
        // It cannot say that it has one: what it took the place of may have had.
        regex: None,
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        assignor: before.and_then(|before| before.assignor.clone()),
        classic: Some(ClassicPart {
            session_timeout_ms: request.session_timeout_ms,
            protocols: distinct(&request.protocols),
        }),
    }
}
