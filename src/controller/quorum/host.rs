//! The controller's part in the quorum: it sends what raft says when it may, takes what others say, brings snapshots
//! to those who need one, and adopts one that a leader sent.

use bytes::Bytes;

use super::codec::{self, Body, Chunk, Message};
use super::members::{MEMBERS_MAX, Members, RaftPeer};
use super::requests::{Decision, Scene, decide, is_about_members};
use super::transfer::{Progress, Whole, receive};
use super::{Arrived, NOBODY, QUORUM_METADATA_VERSION, Silence};
use crate::controller::image::{Image, ImageBuilder, ImageDelta};
use crate::controller::raft::{Raft, Stored};
use crate::controller::record::Record;
use crate::controller::request::{QuorumReplica, QuorumState};
use crate::controller::{
    ApiError, Controller, ControllerAnswer, ControllerConfig, ControllerRequest, Held, Output, TICK_MS,
    TICKS_AT_ONCE_MAX,
};
use crate::effect::Now;
use crate::wire::ErrorCode;

/// Makes the raft node. Its members are those of the snapshot; without one, those that the log begins with; without
/// these, those that the operator named.
pub(in crate::controller) fn raft_of(
    config: &ControllerConfig,
    image: &Image,
    stored: Stored,
) -> Result<Raft, String> {
    let in_log = || {
        let mut each = stored.entries.iter().filter(|entry| super::members::changes_members(&entry.data));
        let records = Record::decode_all(&each.next()?.data).ok()?;
        records.into_iter().find_map(|record| match record {
            Record::Quorum(members) => Some(members),
            _ => None,
        })
    };
    let members = match image.quorum().map(|members| (**members).clone()).or_else(in_log) {
        Some(members) => members,
        None => Members::of_voters(&config.voters, &config.cluster_id)?,
    };
    Raft::new(config.raft_id, &members, stored, config.seed)
}

impl Controller {
    /// Raft id of this node.
    pub fn raft_id(&self) -> u64 {
        self.config.raft_id
    }

    /// The members of the quorum as this node knows them; none before a node that joined has learned them.
    pub fn members(&self) -> &Members {
        self.raft.members()
    }

    /// Node id of whoever leads the quorum, as far as this node knows it.
    pub fn leader(&self) -> Option<i32> {
        self.peer_of(self.raft.status().leader_id).map(|peer| peer.node_id)
    }

    /// Whether time means anything: somebody else is there, or this node does not lead yet.
    pub(in crate::controller) fn needs_ticks(&self) -> bool {
        let own = self.config.raft_id;
        let members = self.raft.members();
        !members.is_sole_voter(own) || members.has_others(own) || !self.raft.status().leads
    }

    pub(in crate::controller) fn tick_quorum(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.is_mute() {
            return self.tick_founding(now, out);
        }
        if !self.needs_ticks() {
            self.ticked_at_ms = None;
            return;
        }
        let since = self.ticked_at_ms.get_or_insert(now.mono_ms);
        let ticks = now.mono_ms.saturating_sub(*since) / TICK_MS;
        *since += ticks * TICK_MS;
        let next = *since + TICK_MS;
        for _ in 0..ticks.min(TICKS_AT_ONCE_MAX) {
            self.raft.tick();
            if let Some(silence) = &mut self.quorum.silence {
                silence.ticks += 1;
            }
            let (again, failed) = self.quorum.senders.tick();
            for (to, chunk) in again {
                self.send_own(to, chunk, out);
            }
            for to in failed {
                self.raft.snapshot_ended(to, false);
            }
        }
        out.push(Output::WakeAt(next));
    }

    /// At the end of a step: time begins to mean something when the first other member comes; the leader is told.
    pub(in crate::controller) fn close_step(&mut self, now: Now, out: &mut Vec<Output>) {
        self.quorum.arrived = None;
        if self.needs_ticks() && self.ticked_at_ms.is_none() {
            self.ticked_at_ms = Some(now.mono_ms);
            out.push(Output::WakeAt(now.mono_ms + TICK_MS));
        }
        let status = self.raft.status();
        if !status.leads {
            self.quorum.senders.clear();
            self.quorum.replicas.clear();
        }
        let node_id = self.leader();
        let told = Some((node_id, status.term));
        if self.quorum.told != told {
            self.quorum.told = told;
            out.push(Output::Leader { node_id, term: status.term });
        }
    }

    /// How a raft id is addressed.
    pub(super) fn peer_of(&self, raft_id: u64) -> Option<RaftPeer> {
        let stranger = || {
            let node_id = *self.quorum.strangers.get(&raft_id)?;
            Some(RaftPeer { node_id, raft_id })
        };
        if raft_id == self.config.raft_id {
            return Some(RaftPeer { node_id: self.config.node.node_id, raft_id });
        }
        self.raft.members().get(raft_id).map(|member| member.peer()).or_else(stranger)
    }

    pub(in crate::controller) fn send(&mut self, message: Message, out: &mut Vec<Output>) {
        let to = message.to;
        if let Body::Snapshot { .. } = message.body {
            return self.send_snapshot(to, out);
        }
        let (Some(peer), Some(bytes)) = (self.peer_of(to), codec::encode(&message)) else { return };
        out.push(Output::Send { to: peer, bytes });
    }

    /// A message of this code, not of raft's.
    pub(super) fn send_own(&mut self, to: u64, body: Body, out: &mut Vec<Output>) {
        // A message has a term, also one of a node that was in none yet.
        let term = self.raft.status().term.max(1);
        self.send(Message { from: self.config.raft_id, to, term, body }, out);
    }

    /// Begins to send everything that is applied. What others are getting does too, if the log still goes on from it.
    fn send_snapshot(&mut self, to: u64, out: &mut Vec<Output>) {
        let shared = self.quorum.senders.shared(self.raft.base_index());
        let whole = shared.unwrap_or_else(|| {
            let records = Record::encode_all(&self.builder.image().to_records());
            Whole::new(self.applied_index, self.applied_term, records.into())
        });
        if whole.bytes.is_empty() {
            return self.raft.snapshot_ended(to, false);
        }
        let first = self.quorum.senders.begin(to, whole);
        self.send_own(to, first, out);
    }

    /// Takes a message. What is malformed, of somebody else or for somebody else is dropped: nothing is owed to it.
    pub(in crate::controller) fn take_message(
        &mut self,
        from: RaftPeer,
        bytes: &Bytes,
        out: &mut Vec<Output>,
    ) -> Result<(), String> {
        let own = self.config.raft_id;
        let Ok(message) = codec::decode(bytes) else { return Ok(()) };
        if message.from != from.raft_id || message.from == own || message.to != own {
            return Ok(());
        }
        if self.raft.members().get(from.raft_id).is_some() {
            self.quorum.strangers.remove(&from.raft_id);
        } else {
            while self.quorum.strangers.len() >= MEMBERS_MAX {
                self.quorum.strangers.pop_first();
            }
            self.quorum.strangers.insert(from.raft_id, from.node_id);
        }
        let Some(message) = self.take_founding(message, out) else { return Ok(()) };
        match message.body {
            Body::Chunk(chunk) => return self.take_chunk(message.from, message.term, &chunk, out),
            Body::ChunkTaken { index, total, next } => {
                match self.quorum.senders.taken(message.from, index, total, next) {
                    Progress::None => {}
                    Progress::Next(chunk) => self.send_own(message.from, chunk, out),
                    Progress::Finished => self.raft.snapshot_ended(message.from, true),
                }
            }
            _ => {
                // What raft does not take changes nothing; the peer will say it again or something else.
                let _ = self.raft.step(message, &Members::default());
            }
        }
        let status = self.raft.status();
        self.hear_leader(from.raft_id);
        if status.leads
            && let Some(matched) = self.raft.matched(from.raft_id)
        {
            let wall_ms = self.quorum.wall_ms;
            self.quorum.replicas.heard(from.raft_id, wall_ms, matched, status.index_last);
        }
        Ok(())
    }

    /// A member has said something: the leader, or who was it last and is still there.
    fn hear_leader(&mut self, raft_id: u64) {
        let status = self.raft.status();
        let is_last = self.quorum.silence.is_some_and(|silence| silence.raft_id == raft_id);
        if !status.leads && (is_last || status.leader_id == raft_id) {
            self.quorum.silence = Some(Silence { raft_id, ticks: 0 });
        }
    }

    /// The node of the leader before this one and how long it has been silent, once: from now on its broker is heard
    /// here.
    pub(in crate::controller) fn take_silence(&mut self) -> Option<(i32, u64)> {
        let Silence { raft_id, ticks } = self.quorum.silence.take()?;
        Some((self.members().get(raft_id)?.node_id, ticks * TICK_MS))
    }

    fn take_chunk(
        &mut self,
        from: u64,
        term: u64,
        chunk: &Chunk,
        out: &mut Vec<Output>,
    ) -> Result<(), String> {
        let status = self.raft.status();
        if term < status.term {
            return Ok(());
        }
        let Chunk { index, log_term, total, .. } = *chunk;
        let whole = Body::ChunkTaken { index, total, next: total };
        if index <= status.commit {
            self.send_own(from, whole, out);
            return Ok(());
        }
        let arrived = match receive(&mut self.quorum.making, from, term, chunk) {
            Ok(arrived) => arrived,
            Err(confirmation) => {
                self.send_own(from, confirmation, out);
                return Ok(());
            }
        };
        let mut builder = ImageBuilder::default();
        let what = |e: &dyn std::fmt::Display| format!("the leader's snapshot of entry {index}: {e}");
        for record in Record::decode_all(&arrived.bytes).map_err(|e| what(&e))? {
            builder.apply(&record).map_err(|e| what(&e))?;
        }
        let image = builder.image().clone();
        let members =
            image.quorum().map_or_else(|| self.raft.members().clone(), |members| (**members).clone());
        let message =
            Message { from, to: self.config.raft_id, term, body: Body::Snapshot { index, log_term } };
        self.quorum.arrived = Some(Arrived { index, term: log_term, bytes: arrived.bytes, image });
        // If raft does not want it any more, the leader learns why from the next answer.
        let _ = self.raft.step(message, &members);
        self.send_own(from, whole, out);
        Ok(())
    }

    /// The connection to a member is broken.
    pub(in crate::controller) fn lose_peer(&mut self, raft_id: u64) {
        if self.quorum.senders.stop(raft_id) {
            self.raft.snapshot_ended(raft_id, false);
        }
        self.raft.unreachable(raft_id);
    }

    /// Gives the lead to the voter that has most of the log, if there is another one.
    pub(in crate::controller) fn resign(&mut self) {
        let own = self.config.raft_id;
        let others = self.raft.members().voters().map(|member| member.raft_id).filter(|id| *id != own);
        let best = others.max_by_key(|raft_id| self.raft.matched(*raft_id));
        if let Some(best) = best.filter(|_| self.raft.status().leads) {
            self.raft.resign_to(best);
        }
    }

    /// Requests that waited for a leader, when it is another node; they are not forwarded from here.
    pub(in crate::controller) fn refuse_strays(&mut self, out: &mut Vec<Output>) {
        let status = self.raft.status();
        if !status.leads && status.leader_id != 0 {
            let tokens: Vec<_> = self.queued.drain(..).map(|(token, _)| token).collect();
            out.extend(tokens.into_iter().filter(|token| *token != NOBODY).map(|token| self.refusal(token)));
        }
    }

    /// Whether the request at the front has to wait: it changes the members while they are changing, or the leader
    /// is giving its place away.
    pub(in crate::controller) fn front_waits(&self) -> bool {
        let is_about = |(_, request): &(u64, ControllerRequest)| is_about_members(request);
        self.raft.is_resigning()
            || (!self.raft.may_change_members() && self.queued.front().is_some_and(is_about))
    }

    /// Learners of nodes that are registered no more go.
    pub(in crate::controller) fn forget_unregistered(&mut self, image: &Image, delta: &ImageDelta) {
        if self.leadership.is_none() {
            return;
        }
        let members = self.raft.members();
        let learns = |node_id: &&i32| members.learners().any(|member| member.node_id == **node_id);
        let gone = delta.brokers.iter().filter(|node_id| image.broker(**node_id).is_none());
        let requests =
            gone.filter(learns).map(|node_id| ControllerRequest::LeaveQuorum { node_id: *node_id });
        let requests: Vec<_> = requests.map(|request| (NOBODY, request)).collect();
        self.queued.extend(requests);
    }

    /// The first entry of a quorum of several: who they are, whatever their configurations say later.
    pub(in crate::controller) fn bootstrap_members(&mut self) -> Result<(), String> {
        let members = self.raft.members().clone();
        if !members.has_others(self.config.raft_id) {
            return Ok(());
        }
        self.propose_members(members, NOBODY, ControllerAnswer::QuorumChanged(Ok(())))
    }

    fn propose_members(
        &mut self,
        members: Members,
        token: u64,
        answer: ControllerAnswer,
    ) -> Result<(), String> {
        let Some(leadership) = &mut self.leadership else { return Ok(()) };
        let record = Record::Quorum(members);
        let mut state = ImageBuilder::new(&leadership.speculative);
        state.apply(&record).map_err(|e| e.to_string())?;
        leadership.speculative = state.image().clone();
        self.propose(&[record], Some(token).filter(|token| *token != NOBODY), answer)
    }

    /// Decides a request about the members; others come back.
    pub(in crate::controller) fn decide_members(
        &mut self,
        token: u64,
        request: ControllerRequest,
        out: &mut Vec<Output>,
    ) -> Result<Option<ControllerRequest>, String> {
        if !is_about_members(&request) {
            return Ok(Some(request));
        }
        let Some(leadership) = &self.leadership else { return Ok(None) };
        let is_old = leadership.speculative.metadata_version() < QUORUM_METADATA_VERSION;
        let raft = &self.raft;
        let matched = |raft_id| raft.matched(raft_id);
        let (own, index_last) = (self.config.raft_id, raft.status().index_last);
        let image = &leadership.speculative;
        let leader_epoch = i32::try_from(raft.status().term).unwrap_or(i32::MAX);
        let members = raft.members();
        let scene = Scene { members, own, index_last, leader_epoch, matched: &matched, image };
        let decision = if is_old {
            Decision::Refused(ErrorCode::UnsupportedVersion, "the metadata.version has fixed voters")
        } else {
            decide(&scene, &request)
        };
        let answer = match decision {
            Decision::Change(members) => {
                let answer = ControllerAnswer::QuorumChanged(Ok(()));
                self.propose_members(members, token, answer)?;
                return Ok(None);
            }
            Decision::Nothing => ControllerAnswer::QuorumChanged(Ok(())),
            Decision::Refused(code, why) => ControllerAnswer::QuorumChanged(Err(ApiError::new(code, why))),
            Decision::Resign(raft_id) => {
                self.raft.resign_to(raft_id);
                ControllerAnswer::Refused(ErrorCode::NotController)
            }
        };
        let Some(leadership) = &mut self.leadership else { return Ok(None) };
        // It may speak of what is not committed yet.
        match leadership.held.back().map(|last| last.index) {
            _ if token == NOBODY => {}
            Some(index) => leadership.held.push_back(Held { index, bytes: 0, token: Some(token), answer }),
            None => out.push(Output::Answer { token, version: self.applied_index, answer }),
        }
        Ok(None)
    }

    /// The quorum as this leader sees it; `in_full` with all members.
    pub(in crate::controller) fn quorum_state(&self, in_full: bool) -> QuorumState {
        let status = self.raft.status();
        let mut state = QuorumState {
            leader_id: self.config.node.node_id,
            leader_epoch: i32::try_from(status.term).unwrap_or(i32::MAX),
            high_watermark: status.commit as i64,
            log_end_offset: status.index_last as i64,
            ..QuorumState::default()
        };
        if !in_full {
            return state;
        }
        for member in self.raft.members().iter() {
            let is_own = member.raft_id == self.config.raft_id;
            let (last_fetch_ms, last_caught_up_ms) = if is_own {
                (self.quorum.wall_ms, self.quorum.wall_ms)
            } else {
                self.quorum.replicas.times(member.raft_id)
            };
            let matched = self.raft.matched(member.raft_id).filter(|_| last_fetch_ms >= 0);
            let replica = QuorumReplica {
                node_id: member.node_id,
                raft_id: member.raft_id,
                endpoint: member.endpoint.clone(),
                log_end_offset: if is_own {
                    state.log_end_offset
                } else {
                    matched.map_or(-1, |matched| matched as i64)
                },
                last_fetch_ms,
                last_caught_up_ms,
            };
            if member.is_voter { state.voters.push(replica) } else { state.observers.push(replica) }
        }
        state
    }
}
