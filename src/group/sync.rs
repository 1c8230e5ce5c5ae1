//! SyncGroup, Heartbeat and LeaveGroup, and the members that time gives up (Kafka's classic group state machine).

use std::sync::Arc;

use bytes::Bytes;

use super::classic::{ClassicGroup, State, Then, Turn};
use super::record::GroupMetadata;
use super::request::{Heartbeat, Leave, Leaver, Response, Sync, Synced};
use crate::wire::ErrorCode;

impl ClassicGroup {
    /// A SyncGroup. Answered when the assignment of its generation is committed, or this generation is over.
    pub(super) fn sync(&mut self, turn: &mut Turn<'_>, token: u64, request: &Sync) {
        if let Err(error) = self.check_sync(request) {
            return turn.answer(token, Response::Synced(Synced::refused(error)));
        }
        let id = &request.member_id;
        self.pending_syncs.remove(id);
        if self.pending_syncs.is_empty() {
            self.sync_deadline_ms = None;
        }
        if self.state == State::Stable {
            let assignment = self.members.get(id).map(|member| member.assignment.clone());
            return turn.answer(token, self.synced(assignment.unwrap_or_default()));
        }
        let Some(member) = self.members.get_mut(id) else { return };
        if let Some(older) = member.awaiting_sync.replace(token) {
            // It asked again while it waited: somebody on the other connection may still listen.
            turn.answer(older, Response::Synced(Synced::refused(ErrorCode::RebalanceInProgress)));
        }
        // A leader that asks again gets what it said first.
        if self.is_leader(id) && !self.is_assigning {
            self.assign(turn, &request.assignments);
        }
    }

    fn check_sync(&self, request: &Sync) -> Result<(), ErrorCode> {
        self.check_member(&request.member_id, request.instance_id.as_deref())?;
        let differs =
            |told: &Option<Arc<str>>, own: &Option<Arc<str>>| told.is_some() && own.is_some() && told != own;
        if request.generation != self.generation {
            Err(ErrorCode::IllegalGeneration)
        } else if differs(&request.protocol_type, &self.protocol_type)
            || differs(&request.protocol, &self.protocol)
        {
            Err(ErrorCode::InconsistentGroupProtocol)
        } else if self.state == State::PreparingRebalance {
            Err(ErrorCode::RebalanceInProgress)
        } else {
            Ok(())
        }
    }

    /// The leader has said what is assigned: that is written down first.
    fn assign(&mut self, turn: &mut Turn<'_>, assignments: &[(Arc<str>, Bytes)]) {
        let of = |id: &Arc<str>| {
            assignments.iter().rev().find(|(other, _)| other == id).map(|(_, bytes)| bytes.clone())
        };
        let stored = self.to_stored(|member| of(&member.id).unwrap_or_default());
        if !self.fits(turn, &stored) {
            self.fail_assignment(turn, ErrorCode::UnknownServerError);
            return self.prepare_or_complete(turn);
        }
        self.is_assigning = true;
        turn.writes.push((stored.clone(), Then::Assign(stored)));
    }

    /// The leader's assignment is committed: everyone who waits gets its part.
    pub(super) fn assigned(&mut self, turn: &mut Turn<'_>, stored: &GroupMetadata) {
        // The leader's id is never given out twice: it also tells a group from one of its name that was deleted.
        let is_awaited = self.generation == stored.generation && self.leader == stored.leader;
        if self.state != State::CompletingRebalance || !is_awaited {
            return;
        }
        for assigned in &stored.members {
            if let Some(member) = self.members.get_mut(&assigned.member_id) {
                member.assignment = assigned.assignment.clone();
            }
        }
        self.answer_syncs(turn, None);
        self.enter(State::Stable, turn.now);
    }

    /// This generation gets no assignment: everyone who waits is told why.
    pub(super) fn fail_assignment(&mut self, turn: &mut Turn<'_>, error: ErrorCode) {
        self.members.values_mut().for_each(|member| member.assignment = Bytes::new());
        self.answer_syncs(turn, Some(error));
        self.is_assigning = false;
    }

    fn answer_syncs(&mut self, turn: &mut Turn<'_>, error: Option<ErrorCode>) {
        let waiting = self.members.values_mut().filter_map(|member| {
            let token = member.awaiting_sync.take()?;
            Some((token, member.id.clone(), member.assignment.clone()))
        });
        for (token, id, assignment) in waiting.collect::<Vec<_>>() {
            let refused = error.map(|error| Response::Synced(Synced::refused(error)));
            turn.answer(token, refused.unwrap_or_else(|| self.synced(assignment)));
            // A heartbeat that was due while it waited was let pass.
            self.expect_heartbeat(turn.now, &id);
        }
    }

    fn synced(&self, assignment: Bytes) -> Response {
        let (protocol_type, protocol) = (self.protocol_type.clone(), self.protocol.clone());
        Response::Synced(Synced { error: None, protocol_type, protocol, assignment })
    }

    /// A Heartbeat; what went wrong.
    pub(super) fn heartbeat(&mut self, turn: &Turn<'_>, request: &Heartbeat) -> Option<ErrorCode> {
        if let Err(error) = self.check_member(&request.member_id, request.instance_id.as_deref()) {
            return Some(error);
        }
        if request.generation != self.generation {
            return Some(ErrorCode::IllegalGeneration);
        }
        self.expect_heartbeat(turn.now, &request.member_id);
        (self.state == State::PreparingRebalance).then_some(ErrorCode::RebalanceInProgress)
    }

    /// A LeaveGroup: each member with what went wrong.
    pub(super) fn leave(&mut self, turn: &mut Turn<'_>, request: &Leave) -> Vec<(Leaver, Option<ErrorCode>)> {
        let left: Vec<_> =
            request.members.iter().map(|leaver| (leaver.clone(), self.leave_one(turn, leaver))).collect();
        if left.iter().any(|(_, error)| error.is_none()) && self.state != State::Empty {
            self.prepare_or_complete(turn);
        }
        left
    }

    fn leave_one(&mut self, turn: &mut Turn<'_>, leaver: &Leaver) -> Option<ErrorCode> {
        let id = if leaver.member_id.is_empty() {
            let known = leaver.instance_id.as_ref().and_then(|instance| self.static_member(instance));
            known.cloned().unwrap_or_default()
        } else {
            leaver.member_id.clone()
        };
        if !leaver.member_id.is_empty() && !self.pending_joins.contains_key(&id) {
            if let Err(error) = self.check_member(&id, leaver.instance_id.as_deref()) {
                return Some(error);
            }
        } else if id.is_empty() {
            return Some(ErrorCode::UnknownMemberId);
        }
        self.remove(turn, &id);
        None
    }

    /// Does what is due by now.
    pub(super) fn wake(&mut self, turn: &mut Turn<'_>) {
        let now_ms = turn.now.mono_ms;
        let pending = self.pending_joins.iter().filter(|(_, at_ms)| **at_ms <= now_ms);
        let pending: Vec<_> = pending.map(|(id, _)| id.clone()).collect();
        for id in pending {
            self.remove(turn, &id);
            self.complete_if_all_joined(turn);
        }
        let due = |at_ms: Option<u64>| at_ms.is_some_and(|at_ms| at_ms <= now_ms);
        let expired = self.members.values().filter(|member| due(member.expires_at_ms));
        let expired: Vec<_> = expired.map(|member| member.id.clone()).collect();
        expired.iter().for_each(|id| self.expire_member(turn, id));
        if let Some(deadline) = self.join_deadline.filter(|deadline| deadline.at_ms <= now_ms) {
            self.end_joining(turn, deadline);
        }
        if due(self.sync_deadline_ms) {
            self.expire_syncs(turn);
        }
    }

    fn complete_if_all_joined(&mut self, turn: &mut Turn<'_>) {
        if self.state == State::PreparingRebalance && self.have_all_joined() {
            self.complete_join(turn);
        }
    }

    /// No heartbeat came in time. Who waits for an answer need not send one.
    fn expire_member(&mut self, turn: &mut Turn<'_>, id: &str) {
        let Some(member) = self.members.get_mut(id) else { return };
        // What happened to another member may have moved it.
        if member.expires_at_ms.is_none_or(|at_ms| at_ms > turn.now.mono_ms) {
            return;
        }
        if member.is_waiting() {
            member.expires_at_ms = None;
            return;
        }
        self.remove(turn, id);
        match self.state {
            State::Stable | State::CompletingRebalance => self.prepare_or_complete(turn),
            _ => self.complete_if_all_joined(turn),
        }
    }

    /// Who has joined and never asked for its assignment is out.
    fn expire_syncs(&mut self, turn: &mut Turn<'_>) {
        self.sync_deadline_ms = None;
        let missing: Vec<_> = self.pending_syncs.iter().cloned().collect();
        if missing.is_empty() || !matches!(self.state, State::CompletingRebalance | State::Stable) {
            return;
        }
        missing.iter().for_each(|id| self.remove(turn, id));
        self.prepare_rebalance(turn);
    }
}
