//! A group of the classic protocol: its members, what they have in common, and when it has to be looked at again.
//!
//! `join` and `sync` move it through its states. The dance between two generations lives here and only here; what was
//! assigned, and that a group became empty, is a record, and takes effect when that is committed. A group that nobody
//! is in or on the way into has no object of this kind: its record says all there is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::GroupConfig;
use super::member::{Member, distinct};
use super::record::GroupMetadata;
use super::request::{DescribedGroup, Joined, JoinedMember, Protocol, Response, Synced};
use super::subscription;
use crate::effect::Now;
use crate::wire::ErrorCode;

/// The protocol type of consumers.
pub(super) const CONSUMER: &str = "consumer";

/// Where a group is between two generations. A group that is not there is called `Dead`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// No members.
    Empty,
    /// Waits for members to join.
    PreparingRebalance,
    /// Waits for the leader's assignment.
    CompletingRebalance,
    /// Everyone has an assignment.
    Stable,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// When the joining ends though not everyone is back.
#[derive(Clone, Copy, Debug)]
pub(super) struct JoinDeadline {
    pub(super) at_ms: u64,
    /// For a group that was empty: how long this delay was, and how much longer it may get as members come.
    pub(super) initial: Option<(u64, u64)>,
}

/// What has to happen when a record of the group is committed.
#[derive(Debug)]
pub(super) enum Then {
    /// Nothing.
    Nothing,
    /// The members get what the record assigns to them, if this generation still waits for it.
    Assign(GroupMetadata),
    /// A static member that came back under a new id is told, if its group has not moved on.
    Returned {
        member_id: Arc<str>,
        /// Told as the leader if it cannot skip the assignment.
        leader_before: Option<Arc<str>>,
        may_skip_assignment: bool,
        generation: i32,
    },
}

/// What one step has to work with, and what came of it.
pub(super) struct Turn<'a> {
    pub(super) now: Now,
    pub(super) config: &'a GroupConfig,
    pub(super) answers: Vec<(u64, Response)>,
    /// Records of the group's metadata to write.
    pub(super) writes: Vec<(GroupMetadata, Then)>,
}

impl<'a> Turn<'a> {
    pub(super) fn new(now: Now, config: &'a GroupConfig) -> Self {
        Self { now, config, answers: Vec::new(), writes: Vec::new() }
    }

    pub(super) fn answer(&mut self, token: u64, response: Response) {
        self.answers.push((token, response));
    }

    pub(super) fn refuse_join(&mut self, token: u64, member_id: &Arc<str>, error: ErrorCode) {
        self.answer(token, Response::Joined(Joined::refused(member_id, error)));
    }
}

/// A group of the classic protocol.
#[derive(Debug)]
pub(super) struct ClassicGroup {
    pub(super) id: Arc<str>,
    pub(super) state: State,
    pub(super) previous: State,
    /// Wall-clock milliseconds; unknown if the record is too old to say.
    state_since_ms: Option<i64>,
    pub(super) protocol_type: Option<Arc<str>>,
    pub(super) protocol: Option<Arc<str>>,
    pub(super) generation: i32,
    pub(super) leader: Option<Arc<str>>,
    pub(super) members: BTreeMap<Arc<str>, Member>,
    /// Member ids by instance id.
    statics: BTreeMap<Arc<str>, Arc<str>>,
    /// Ids that were given out to members that have not joined with them yet, and when they are given up.
    pub(super) pending_joins: BTreeMap<Arc<str>, u64>,
    /// Members that have joined this generation and not asked for their assignment.
    pub(super) pending_syncs: BTreeSet<Arc<str>>,
    /// How many members know each protocol.
    supported: BTreeMap<Arc<str>, usize>,
    pub(super) awaiting_joins: usize,
    /// Someone joined during the initial delay.
    pub(super) is_member_added: bool,
    /// The leader's assignment of this generation is on its way into the log.
    pub(super) is_assigning: bool,
    pub(super) join_deadline: Option<JoinDeadline>,
    pub(super) sync_deadline_ms: Option<u64>,
    /// When it is looked at next, no later than any of its deadlines.
    pub(super) wakes_at_ms: Option<u64>,
    /// The first deadline that was set since it was last asked for all of them.
    pub(super) noted_ms: Option<u64>,
    /// It was a consumer group until now: what a member had that left has to be given away.
    pub(super) must_rebalance: bool,
}

impl ClassicGroup {
    /// A group as its record has it, or one that was not there.
    pub(super) fn new(id: Arc<str>, stored: Option<&GroupMetadata>, now: Now) -> Self {
        let mut group = Self {
            id,
            state: State::Empty,
            previous: State::Empty,
            state_since_ms: Some(now.wall_ms),
            protocol_type: None,
            protocol: None,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            pending_joins: BTreeMap::new(),
            pending_syncs: BTreeSet::new(),
            supported: BTreeMap::new(),
            awaiting_joins: 0,
            is_member_added: false,
            is_assigning: false,
            join_deadline: None,
            sync_deadline_ms: None,
            wakes_at_ms: None,
            noted_ms: None,
            must_rebalance: false,
        };
        if let Some(stored) = stored {
            group.take(stored);
        }
        group
    }

    fn take(&mut self, stored: &GroupMetadata) {
        self.state_since_ms = stored.state_timestamp_ms;
        self.protocol_type = (!stored.protocol_type.is_empty()).then(|| stored.protocol_type.clone());
        self.protocol.clone_from(&stored.protocol);
        self.generation = stored.generation;
        let protocol = stored.protocol.clone().unwrap_or_default();
        // A record of another hand may name a member or an instance twice, a leader that is no member, or no protocol.
        for member in &stored.members {
            let is_static =
                member.instance_id.as_ref().is_some_and(|instance| self.statics.contains_key(instance));
            if !is_static && !self.members.contains_key(&member.member_id) {
                self.add(Member::stored(member, &protocol));
            }
        }
        let is_member = |leader: &&Arc<str>| self.members.contains_key(&**leader);
        self.leader = stored.leader.as_ref().filter(is_member).or(self.members.keys().next()).cloned();
        if !self.members.is_empty() {
            self.protocol = Some(protocol);
            self.state = State::Stable;
        }
    }

    /// The record that says what the group is now, with these assignments.
    pub(super) fn to_stored(&self, mut assignment_of: impl FnMut(&Member) -> bytes::Bytes) -> GroupMetadata {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self.members.values().map(|member| member.to_stored(protocol, assignment_of(member)));
        GroupMetadata {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_timestamp_ms: self.state_since_ms,
            members: members.collect(),
        }
    }

    /// Whether one batch can hold the record.
    pub(super) fn fits(&self, turn: &Turn<'_>, stored: &GroupMetadata) -> bool {
        self.id.len() + stored.bytes_estimate() <= turn.config.batch_bytes_max
    }

    /// The record of a group that was not there before.
    pub(super) fn first_record(&self) -> GroupMetadata {
        GroupMetadata {
            protocol_type: "".into(),
            generation: 0,
            protocol: None,
            leader: None,
            state_timestamp_ms: self.state_since_ms,
            members: Vec::new(),
        }
    }

    /// Whether its record says all there is.
    pub(super) fn is_idle(&self) -> bool {
        self.state == State::Empty && self.members.is_empty() && self.pending_joins.is_empty()
    }

    pub(super) fn enter(&mut self, state: State, now: Now) {
        self.previous = self.state;
        self.state = state;
        self.state_since_ms = Some(now.wall_ms);
        self.is_assigning = false;
    }

    pub(super) fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    pub(super) fn static_member(&self, instance_id: &str) -> Option<&Arc<str>> {
        self.statics.get(instance_id)
    }

    /// The member that a request comes from, or why it does not.
    pub(super) fn check_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            let known = self.statics.get(instance_id).ok_or(ErrorCode::UnknownMemberId)?;
            if &**known != member_id {
                return Err(ErrorCode::FencedInstanceId);
            }
        }
        self.members.get(member_id).map(|_| ()).ok_or(ErrorCode::UnknownMemberId)
    }

    /// Whether one with these protocols could be in the group.
    pub(super) fn supports(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.state == State::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let is_common = |name: &str| self.is_common(name);
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|known| is_common(&known.name))
    }

    fn is_common(&self, protocol: &str) -> bool {
        self.supported.get(protocol).copied().unwrap_or(0) == self.members.len()
    }

    fn count_protocols(supported: &mut BTreeMap<Arc<str>, usize>, protocols: &[Protocol], add: bool) {
        for protocol in protocols {
            let count = supported.entry(protocol.name.clone()).or_default();
            *count = if add { *count + 1 } else { *count - 1 };
            if *count == 0 {
                supported.remove(&protocol.name);
            }
        }
    }

    pub(super) fn add(&mut self, member: Member) {
        if let Some(instance_id) = &member.instance_id {
            self.statics.insert(instance_id.clone(), member.id.clone());
        }
        self.leader.get_or_insert_with(|| member.id.clone());
        self.pending_joins.remove(&member.id);
        self.awaiting_joins += usize::from(member.awaiting_join.is_some());
        Self::count_protocols(&mut self.supported, &member.protocols, true);
        let replaced = self.members.insert(member.id.clone(), member);
        assert!(replaced.is_none(), "a member is added once");
    }

    /// Removes a member. What it waits for is answered: it is not known any more.
    pub(super) fn remove(&mut self, turn: &mut Turn<'_>, member_id: &str) {
        self.pending_joins.remove(member_id);
        self.pending_syncs.remove(member_id);
        let Some(mut member) = self.members.remove(member_id) else { return };
        let nobody = Arc::from("");
        self.fail_join(turn, &mut member, &nobody, ErrorCode::UnknownMemberId);
        Self::fail_sync(turn, &mut member, ErrorCode::UnknownMemberId);
        Self::count_protocols(&mut self.supported, &member.protocols, false);
        if let Some(instance_id) = &member.instance_id {
            self.statics.remove(instance_id);
        }
        if self.is_leader(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    fn fail_join(&mut self, turn: &mut Turn<'_>, member: &mut Member, told: &Arc<str>, error: ErrorCode) {
        if let Some(token) = member.awaiting_join.take() {
            self.awaiting_joins -= 1;
            turn.refuse_join(token, told, error);
        }
    }

    fn fail_sync(turn: &mut Turn<'_>, member: &mut Member, error: ErrorCode) {
        if let Some(token) = member.awaiting_sync.take() {
            turn.answer(token, Response::Synced(Synced::refused(error)));
        }
    }

    /// Puts a static member that came back under a new id into the place of the old one, which is fenced. The new one
    /// inherits the assignment.
    pub(super) fn replace_static(&mut self, turn: &mut Turn<'_>, old_id: &Arc<str>, new_id: &Arc<str>) {
        let Some(mut member) = self.members.remove(old_id) else { return };
        self.fail_join(turn, &mut member, old_id, ErrorCode::FencedInstanceId);
        Self::fail_sync(turn, &mut member, ErrorCode::FencedInstanceId);
        self.pending_syncs.remove(old_id);
        if let Some(instance_id) = &member.instance_id {
            self.statics.insert(instance_id.clone(), new_id.clone());
        }
        if self.is_leader(old_id) {
            self.leader = Some(new_id.clone());
        }
        member.id = new_id.clone();
        member.is_new = false;
        self.members.insert(new_id.clone(), member);
    }

    /// Takes over what a member that joins again says of itself; `token` is its request.
    pub(super) fn update(
        &mut self,
        turn: &mut Turn<'_>,
        member_id: &str,
        request: &super::request::Join,
        token: u64,
    ) {
        let Some(member) = self.members.get_mut(member_id) else { return };
        Self::count_protocols(&mut self.supported, &member.protocols, false);
        member.protocols = distinct(&request.protocols);
        Self::count_protocols(&mut self.supported, &member.protocols, true);
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
        member.session_timeout_ms = request.session_timeout_ms;
        match member.awaiting_join.replace(token) {
            // It asked again while it waited: somebody on the other connection may still listen.
            Some(older) => turn.refuse_join(older, &member.id, ErrorCode::RebalanceInProgress),
            None => self.awaiting_joins += 1,
        }
    }

    pub(super) fn have_all_joined(&self) -> bool {
        self.members.len() == self.awaiting_joins && self.pending_joins.is_empty()
    }

    /// The longest time that a member wants for joining again, in milliseconds.
    pub(super) fn rebalance_timeout_ms(&self) -> u64 {
        let longest = self.members.values().map(|member| member.rebalance_timeout_ms).max();
        u64::from(longest.unwrap_or(0).max(0).unsigned_abs())
    }

    /// The protocol that all members know and most prefer; the first by name of several.
    pub(super) fn chosen_protocol(&self) -> Option<Arc<str>> {
        let mut votes: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
        for vote in self.members.values().filter_map(|member| member.vote(|name| self.is_common(name))) {
            *votes.entry(vote).or_default() += 1;
        }
        let most = votes.iter().max_by(|(name, count), (other, more)| count.cmp(more).then(other.cmp(name)));
        most.map(|(name, _)| Arc::clone(name))
    }

    /// The topics that members of a consumer group have subscribed to; `None` if that is not known.
    pub(super) fn subscribed(&self) -> Option<BTreeSet<Arc<str>>> {
        if self.protocol_type.as_deref() != Some(CONSUMER) {
            return None;
        }
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(subscription::topics(&member.metadata(self.protocol.as_deref()?))?);
        }
        Some(topics)
    }

    /// The members as the leader is told of them.
    pub(super) fn joined_members(&self) -> Vec<JoinedMember> {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        self.members.values().map(|member| member.joined(protocol)).collect()
    }

    pub(super) fn described(&self) -> DescribedGroup {
        let protocol = if self.state == State::Stable { self.protocol.as_deref() } else { None };
        DescribedGroup {
            is_of_other_type: false,
            group: self.id.clone(),
            error: None,
            state: self.state.name(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: protocol.unwrap_or_default().into(),
            members: self.members.values().map(|member| member.described(protocol)).collect(),
        }
    }

    /// The member's next heartbeat is awaited from now on.
    pub(super) fn expect_heartbeat(&mut self, now: Now, member_id: &str) {
        let Some(member) = self.members.get_mut(member_id) else { return };
        member.expect_heartbeat(now.mono_ms);
        self.noted_ms = [self.noted_ms, member.expires_at_ms].into_iter().flatten().min();
    }

    /// Every request that waits in the group; they are its no more.
    pub(super) fn drain_parked(&mut self) -> impl Iterator<Item = u64> + '_ {
        self.awaiting_joins = 0;
        self.members
            .values_mut()
            .flat_map(|member| [member.awaiting_join.take(), member.awaiting_sync.take()])
            .flatten()
    }

    /// The first of its deadlines.
    pub(super) fn next_deadline_ms(&self) -> Option<u64> {
        let members = self.members.values().filter_map(|member| member.expires_at_ms);
        let joins = self.join_deadline.map(|deadline| deadline.at_ms);
        let others = [joins, self.sync_deadline_ms];
        members.chain(self.pending_joins.values().copied()).chain(others.into_iter().flatten()).min()
    }

    /// What every step leaves true.
    pub(super) fn check_invariants(&self) {
        let waiting = self.members.values().filter(|member| member.awaiting_join.is_some()).count();
        assert_eq!(waiting, self.awaiting_joins, "joins that wait are counted");
        assert!(
            self.leader.is_some() != self.members.is_empty(),
            "a group has a leader while it has members"
        );
        if let Some(leader) = &self.leader {
            assert!(self.members.contains_key(leader), "the leader is a member");
        }
        let is_static = |(instance, id): (&Arc<str>, &Arc<str>)| {
            self.members.get(id).is_some_and(|member| member.instance_id.as_ref() == Some(instance))
        };
        assert!(self.statics.iter().all(is_static), "an instance id names a member that has it");
        let known = |id: &Arc<str>| self.members.contains_key(id);
        assert!(self.pending_syncs.iter().all(known), "only members are waited for");
        assert!(!self.pending_joins.keys().any(known), "who has joined is not waited for");
        assert!(
            self.members.is_empty() || self.chosen_protocol().is_some(),
            "members have a protocol in common"
        );
        match self.state {
            State::Empty => assert!(self.members.is_empty(), "an empty group has no members"),
            State::PreparingRebalance => assert!(self.join_deadline.is_some(), "joining ends"),
            State::CompletingRebalance | State::Stable => {
                assert!(
                    self.protocol.is_some() && !self.members.is_empty(),
                    "a generation has members and a protocol"
                );
            }
        }
    }
}
