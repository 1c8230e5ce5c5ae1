//! JoinGroup, and the rebalance up to the point where everyone has joined (Kafka's classic group state machine).

use std::sync::Arc;

use super::classic::{ClassicGroup, JoinDeadline, State, Then, Turn};
use super::member::Member;
use super::request::{Join, Joined, JoinedMember, Response};
use crate::wire::ErrorCode;

/// Milliseconds that a new member is kept: it has no id to send heartbeats with until it is answered.
const NEW_MEMBER_TIMEOUT_MS: u64 = 5 * 60 * 1000;
/// Ids of one group that are given out and not yet joined with; more are refused.
const PENDING_JOINS_MAX: usize = 16_384;
/// Least milliseconds between two looks at a rebalance that nobody has joined yet.
const POSTPONED_MS_MIN: u64 = 1000;

impl ClassicGroup {
    /// A JoinGroup. Answered at once if it is refused or changes nothing, else when the rebalance completes.
    pub(super) fn join(&mut self, turn: &mut Turn<'_>, token: u64, request: &Join) {
        let nobody = Arc::from("");
        if !self.has_room(turn.config.group_max_size, &request.member_id) {
            self.remove(turn, &request.member_id);
            turn.refuse_join(token, &nobody, ErrorCode::GroupMaxSizeReached);
            return self.maybe_complete_join(turn);
        }
        if !self.supports(&request.protocol_type, &request.protocols) {
            return turn.refuse_join(token, &request.member_id, ErrorCode::InconsistentGroupProtocol);
        }
        if request.member_id.is_empty() {
            self.join_as_new(turn, token, request);
        } else if self.pending_joins.contains_key(&request.member_id) {
            if request.instance_id.is_some() {
                // An id is only given out beforehand to members without an instance id.
                return turn.refuse_join(token, &request.member_id, ErrorCode::UnknownServerError);
            }
            self.add_member(turn, token, request, request.member_id.clone());
        } else if let Err(error) = self.check_member(&request.member_id, request.instance_id.as_deref()) {
            turn.refuse_join(token, &request.member_id, error);
        } else {
            self.join_again(turn, token, request);
        }
    }

    /// Members that are there or wait already are never refused; while joining, those who wait count, so that the last
    /// to come back are left out when the limit was lowered.
    fn has_room(&self, members_max: usize, member_id: &str) -> bool {
        let member = self.members.get(member_id);
        match self.state {
            State::Empty => true,
            State::PreparingRebalance => {
                member.is_some_and(|member| member.awaiting_join.is_some())
                    || self.awaiting_joins < members_max
            }
            State::CompletingRebalance | State::Stable => {
                member.is_some() || self.members.len() < members_max
            }
        }
    }

    fn join_as_new(&mut self, turn: &mut Turn<'_>, token: u64, request: &Join) {
        let name = request.instance_id.as_ref().unwrap_or(&request.client_id);
        let id: Arc<str> = format!("{name}-{}", request.fresh_id.as_hyphenated()).into();
        let known = request.instance_id.as_ref().and_then(|instance| self.static_member(instance)).cloned();
        if let Some(old_id) = known {
            self.return_static(turn, token, request, &old_id, id);
        } else if request.instance_id.is_some() || !request.must_know_member_id {
            self.add_member(turn, token, request, id);
        } else if self.pending_joins.len() >= PENDING_JOINS_MAX {
            turn.refuse_join(token, &request.member_id, ErrorCode::GroupMaxSizeReached);
        } else {
            let session_ms = u64::from(request.session_timeout_ms.max(0).unsigned_abs());
            turn.refuse_join(token, &id, ErrorCode::MemberIdRequired);
            self.pending_joins.insert(id, turn.now.mono_ms + session_ms);
        }
    }

    fn add_member(&mut self, turn: &mut Turn<'_>, token: u64, request: &Join, id: Arc<str>) {
        let mut member = Member::new(id, request);
        member.awaiting_join = Some(token);
        member.expires_at_ms = Some(turn.now.mono_ms + NEW_MEMBER_TIMEOUT_MS);
        if self.state == State::PreparingRebalance && self.previous == State::Empty {
            self.is_member_added = true;
        }
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type.clone());
        }
        self.add(member);
        self.prepare_or_complete(turn);
    }

    fn join_again(&mut self, turn: &mut Turn<'_>, token: u64, request: &Join) {
        let id = &request.member_id;
        let is_same = self.members.get(id).is_some_and(|member| member.matches(&request.protocols));
        let is_leader = self.is_leader(id);
        match self.state {
            // Perhaps the first answer did not arrive: the same again.
            State::CompletingRebalance if is_same => {
                let members = if is_leader { self.joined_members() } else { Vec::new() };
                turn.answer(token, self.joined(id, members));
            }
            // A leader joins again because of something only it knows, such as new partitions.
            State::Stable if is_same && !is_leader => turn.answer(token, self.joined(id, Vec::new())),
            _ => {
                self.update(turn, id, request, token);
                self.prepare_or_complete(turn);
            }
        }
    }

    /// A static member joins without its id: it was started anew. It takes the place of the old one.
    fn return_static(
        &mut self,
        turn: &mut Turn<'_>,
        token: u64,
        request: &Join,
        old_id: &Arc<str>,
        id: Arc<str>,
    ) {
        let leader_before = self.leader.clone();
        self.replace_static(turn, old_id, &id);
        self.expect_heartbeat(turn.now, &id);
        self.update(turn, &id, request, token);
        let stored = self.to_stored(|member| member.assignment.clone());
        match self.state {
            // The others go on: only the new id is written down.
            State::Stable if self.chosen_protocol() == self.protocol && self.fits(turn, &stored) => {
                let (generation, may_skip_assignment) = (self.generation, request.may_skip_assignment);
                let then = Then::Returned { member_id: id, leader_before, may_skip_assignment, generation };
                turn.writes.push((stored, then));
            }
            // The leader may be assigning to the old id already.
            State::CompletingRebalance => self.prepare_rebalance(turn),
            _ => self.prepare_or_complete(turn),
        }
    }

    /// The record with a returned static member's new id is committed.
    pub(super) fn returned(
        &mut self,
        turn: &mut Turn<'_>,
        member_id: &str,
        leader_before: Option<Arc<str>>,
        may_skip: bool,
    ) {
        let is_leader = self.is_leader(member_id);
        let members = if may_skip && is_leader { self.joined_members() } else { Vec::new() };
        let Some(member) = self.members.get_mut(member_id) else { return };
        let Some(token) = member.awaiting_join.take() else { return };
        self.awaiting_joins -= 1;
        let mut joined = self.as_joined(member_id, members);
        if may_skip {
            joined.skip_assignment = is_leader;
        } else {
            // It must not assign: that would start a rebalance. Under its old id it takes itself for a follower.
            joined.leader = leader_before.unwrap_or_default();
        }
        turn.answer(token, Response::Joined(joined));
    }

    fn joined(&self, member_id: &str, members: Vec<JoinedMember>) -> Response {
        Response::Joined(self.as_joined(member_id, members))
    }

    fn as_joined(&self, member_id: &str, members: Vec<JoinedMember>) -> Joined {
        Joined {
            error: None,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            member_id: member_id.into(),
            members,
        }
    }

    /// Something about the members has changed.
    pub(super) fn prepare_or_complete(&mut self, turn: &mut Turn<'_>) {
        match self.state {
            State::PreparingRebalance => self.maybe_complete_join(turn),
            _ => self.prepare_rebalance(turn),
        }
    }

    /// Starts a rebalance.
    pub(super) fn prepare_rebalance(&mut self, turn: &mut Turn<'_>) {
        if self.state == State::CompletingRebalance {
            self.fail_assignment(turn, ErrorCode::RebalanceInProgress);
        }
        self.pending_syncs.clear();
        self.sync_deadline_ms = None;
        let is_initial = self.state == State::Empty;
        self.enter(State::PreparingRebalance, turn.now);
        let (now_ms, longest_ms) = (turn.now.mono_ms, self.rebalance_timeout_ms());
        if is_initial {
            let delay_ms = turn.config.initial_rebalance_delay_ms;
            self.is_member_added = false;
            let initial = Some((delay_ms, longest_ms.saturating_sub(delay_ms)));
            self.join_deadline = Some(JoinDeadline { at_ms: now_ms + delay_ms, initial });
        } else if self.have_all_joined() {
            self.complete_join(turn);
        } else {
            self.join_deadline = Some(JoinDeadline { at_ms: now_ms + longest_ms, initial: None });
        }
    }

    /// Ends the joining if nobody is missing. The delay of a group that was empty is waited for in any case.
    pub(super) fn maybe_complete_join(&mut self, turn: &mut Turn<'_>) {
        let is_rebalance = self.state == State::PreparingRebalance && self.previous != State::Empty;
        if is_rebalance && self.have_all_joined() {
            self.complete_join(turn);
        }
    }

    /// The time for joining is over. An initial delay is prolonged while members keep coming.
    pub(super) fn end_joining(&mut self, turn: &mut Turn<'_>, deadline: JoinDeadline) {
        match deadline.initial {
            Some((delay_ms, remaining_ms)) if self.is_member_added && remaining_ms != 0 => {
                self.is_member_added = false;
                let next_ms = turn.config.initial_rebalance_delay_ms.min(remaining_ms);
                let initial = Some((next_ms, remaining_ms.saturating_sub(delay_ms)));
                self.join_deadline = Some(JoinDeadline { at_ms: turn.now.mono_ms + next_ms, initial });
            }
            _ => self.complete_join(turn),
        }
    }

    /// Ends the joining: who has not joined is out, unless it is static; who has is told the new generation.
    pub(super) fn complete_join(&mut self, turn: &mut Turn<'_>) {
        let missing =
            self.members.values().filter(|member| member.awaiting_join.is_none() && !member.is_static());
        let missing: Vec<_> = missing.map(|member| member.id.clone()).collect();
        missing.iter().for_each(|id| self.remove(turn, id));
        if !self.elect_leader() {
            // Only static members are left, and none has joined: until their sessions end.
            let at_ms = turn.now.mono_ms + self.rebalance_timeout_ms().max(POSTPONED_MS_MIN);
            self.join_deadline = Some(JoinDeadline { at_ms, initial: None });
            return;
        }
        self.join_deadline = None;
        self.generation = self.generation.checked_add(1).unwrap_or(0);
        self.pending_syncs.clear();
        if self.members.is_empty() {
            self.protocol = None;
            self.enter(State::Empty, turn.now);
            turn.writes.push((self.to_stored(|_| bytes::Bytes::new()), Then::Nothing));
        } else {
            self.protocol = self.chosen_protocol();
            self.enter(State::CompletingRebalance, turn.now);
            self.tell_generation(turn);
        }
    }

    fn tell_generation(&mut self, turn: &mut Turn<'_>) {
        let ids: Vec<_> = self.members.keys().cloned().collect();
        for id in ids {
            let token = self.members.get_mut(&id).and_then(|member| member.awaiting_join.take());
            if let Some(token) = token {
                self.awaiting_joins -= 1;
                let members = if self.is_leader(&id) { self.joined_members() } else { Vec::new() };
                turn.answer(token, self.joined(&id, members));
            }
            if let Some(member) = self.members.get_mut(&id) {
                member.is_new = false;
            }
            self.expect_heartbeat(turn.now, &id);
            self.pending_syncs.insert(id);
        }
        self.sync_deadline_ms = Some(turn.now.mono_ms + self.rebalance_timeout_ms());
    }

    /// Whether the next generation has a leader that joined, or needs none.
    fn elect_leader(&mut self) -> bool {
        let has_joined = |member: &Member| member.awaiting_join.is_some();
        let leader = self.leader.as_ref().and_then(|leader| self.members.get(leader));
        if self.members.is_empty() || leader.is_some_and(has_joined) {
            return true;
        }
        let elected = self.members.values().find(|member| has_joined(member)).map(|member| member.id.clone());
        let is_elected = elected.is_some();
        self.leader = elected.or(self.leader.take());
        is_elected
    }
}
