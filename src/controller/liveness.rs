//! Which brokers are alive, and what the active controller does by itself as time passes.
//!
//! Sessions are in the active controller's memory only: a new one gives every broker that is not fenced a whole
//! session before it misses anything. One of them it has heard itself: the broker in the process of the controller that
//! was active before it, by what that one said as the leader of the quorum. Its session goes on from there, or the
//! election would come on top of it where both are cut off together. A controller that was itself stopped for a while
//! does not hold that against the brokers: what they sent meanwhile may be waiting to be read.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::brokers::Heartbeat;
use super::image::{Image, ImageBuilder};
use super::record::Record;
use super::request::ControllerRequest;
use super::topics::Rules;
use super::{Controller, ControllerAnswer, Output, brokers, elections};
use crate::config::NodeConfig;
use crate::effect::Now;
use crate::wire::ErrorCode;

/// How often sessions are looked at.
const CHECK_MS: u64 = 100;
/// After a longer time without a look the controller itself was stopped.
const STOPPED_MS: u64 = 2000;

/// What the controller decides by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    /// A broker is silent or gone.
    Fence(i32),
    /// Leaderships go back to preferred leaders.
    Rebalance,
    /// Partitions without a leader are looked at.
    Unclean,
}

/// One broker's session.
#[derive(Clone, Copy, Debug)]
struct Session {
    epoch: i64,
    heard_at_ms: u64,
    /// It has sent a heartbeat to this controller.
    has_spoken: bool,
    /// Image version that it has applied.
    applied: u64,
    /// Raft index at which all of its registration was there.
    registered_at: u64,
    /// Raft index at which it had given up its leaderships, to stop.
    stops_at: Option<u64>,
    /// Its connection is gone, and it has not been heard since.
    has_left: bool,
}

/// The sessions of all brokers, and when what is next due.
#[derive(Debug)]
pub(super) struct Liveness {
    /// The broker in this process, where this is the only controller: it is alive as long as this runs.
    own: Option<i32>,
    sessions: BTreeMap<i32, Session>,
    session_timeout_ms: u64,
    heartbeat_interval_ms: u64,
    /// How often, where it is done at all, and when next.
    rebalance: Option<(u64, u64)>,
    unclean: (u64, u64),
    looked_at_ms: u64,
    /// A look was asked for and has not come yet.
    wakes: bool,
}

impl Liveness {
    /// At the moment in which a controller becomes active. `own`: see there.
    pub(super) fn new(node: &NodeConfig, own: Option<i32>, image: &Image, now_ms: u64) -> Self {
        let cluster = &node.cluster;
        let rebalance_ms = cluster.leader_imbalance_check_interval_ms;
        let unclean_ms = cluster.unclean_election_interval_ms;
        let alive = image.brokers().filter(|broker| !broker.fenced);
        Self {
            own,
            // Who is not fenced has applied its registration.
            sessions: alive.map(|broker| (broker.node_id, Session::new(broker.epoch, 0, now_ms))).collect(),
            session_timeout_ms: cluster.session_timeout_ms,
            heartbeat_interval_ms: cluster.heartbeat_interval_ms,
            rebalance: cluster
                .auto_leader_rebalance
                .then_some((rebalance_ms, now_ms.saturating_add(rebalance_ms))),
            unclean: (unclean_ms, now_ms.saturating_add(unclean_ms)),
            looked_at_ms: now_ms,
            wakes: false,
        }
    }

    /// A broker's process has been silent for so long by now, as this controller knows from elsewhere. Whoever is there
    /// all the same has time for one more heartbeat.
    pub(super) fn was_silent(&mut self, node_id: i32, silent_ms: u64) {
        let most_ms = self.session_timeout_ms.saturating_sub(self.heartbeat_interval_ms);
        if let Some(session) = self.sessions.get_mut(&node_id) {
            session.heard_at_ms = session.heard_at_ms.saturating_sub(silent_ms.min(most_ms));
        }
    }

    pub(super) fn is_own(&self, node_id: i32) -> bool {
        self.own == Some(node_id)
    }

    /// A broker has registered, by now or before: the last entry that can be part of that has this index.
    pub(super) fn registered(&mut self, node_id: i32, epoch: i64, index: u64, now_ms: u64) {
        let known = self.sessions.get(&node_id).filter(|session| session.epoch == epoch);
        let has_spoken = known.is_some_and(|session| session.has_spoken);
        let registered_at = known.map_or(index, |session| session.registered_at);
        self.sessions.insert(node_id, Session { has_spoken, ..Session::new(epoch, registered_at, now_ms) });
    }

    /// Whether a broker that was heard has applied its registration, to the last entry of it.
    pub(super) fn has_caught_up(&self, heard: Heartbeat) -> bool {
        let session = self.sessions.get(&heard.node_id).filter(|session| session.epoch == heard.epoch);
        session.is_some_and(|session| {
            let is_epoch_applied = i64::try_from(heard.applied_version).is_ok_and(|at| at >= session.epoch);
            is_epoch_applied && heard.applied_version >= session.registered_at
        })
    }

    /// A heartbeat of a broker with this epoch; `index` is the last entry. Where the registration's own is not known
    /// any more it is that or an earlier one.
    pub(super) fn heard(&mut self, heard: Heartbeat, index: u64, now_ms: u64) {
        let new = Session::new(heard.epoch, index, now_ms);
        let session = self.sessions.entry(heard.node_id).or_insert(new);
        if session.epoch != heard.epoch {
            *session = new;
        }
        session.heard_at_ms = now_ms;
        (session.has_spoken, session.has_left) = (true, false);
        session.applied = session.applied.max(heard.applied_version);
    }

    /// Something came of a broker: it is alive, also if its request has to wait.
    fn touched(&mut self, node_id: i32, epoch: i64, now_ms: u64) {
        if let Some(session) = self.sessions.get_mut(&node_id).filter(|session| session.epoch == epoch) {
            session.heard_at_ms = now_ms;
            session.has_left = false;
        }
    }

    /// Whether a registration with that epoch was heard of within the session timeout.
    pub(super) fn has_session(&self, node_id: i32, epoch: i64, now_ms: u64) -> bool {
        let session = self.sessions.get(&node_id).filter(|session| session.epoch == epoch);
        session.is_some_and(|session| {
            (session.has_spoken || !self.is_own(node_id))
                && !session.has_left
                && !self.is_over(session, now_ms)
        })
    }

    /// The connection of a broker with that epoch is gone.
    fn left(&mut self, node_id: i32, epoch: i64) {
        if let Some(session) = self.sessions.get_mut(&node_id).filter(|session| session.epoch == epoch) {
            session.has_left = true;
        }
    }

    fn is_over(&self, session: &Session, now_ms: u64) -> bool {
        now_ms.saturating_sub(session.heard_at_ms) >= self.session_timeout_ms
    }

    pub(super) fn forget(&mut self, node_id: i32) {
        self.sessions.remove(&node_id);
    }

    /// A broker has given up its leaderships with the entry of that index.
    pub(super) fn stops(&mut self, node_id: i32, index: u64) {
        if let Some(session) = self.sessions.get_mut(&node_id) {
            session.stops_at = Some(index);
        }
    }

    /// Whether every other active broker has applied that this one leads nothing. `index` is the last entry, for a
    /// controller that did not see it stop.
    pub(super) fn may_stop(&mut self, node_id: i32, image: &Image, index: u64) -> bool {
        let Some(session) = self.sessions.get_mut(&node_id) else { return true };
        let stops_at = *session.stops_at.get_or_insert(index);
        let others = self.sessions.iter().filter(|(other, _)| **other != node_id && image.is_active(**other));
        // The broker in this process is told before anybody else, and may send no heartbeats.
        let mut counted = others.filter(|(other, session)| session.has_spoken || self.own != Some(**other));
        counted.all(|(_, session)| session.applied >= stops_at)
    }

    /// What is due.
    fn look(&mut self, image: &Image, now_ms: u64) -> Vec<Own> {
        let away_ms = now_ms.saturating_sub(self.looked_at_ms);
        self.looked_at_ms = now_ms;
        self.wakes = false;
        if away_ms > STOPPED_MS {
            self.sessions.values_mut().for_each(|session| {
                session.heard_at_ms = session.heard_at_ms.saturating_add(away_ms).min(now_ms);
            });
        }
        let is_exempt = |node_id: i32, session: &Session| self.is_own(node_id) && !session.has_spoken;
        let over = |(node_id, session): &(&i32, &Session)| {
            self.is_over(session, now_ms) && !is_exempt(**node_id, session)
        };
        let silent: Vec<i32> = self.sessions.iter().filter(over).map(|(node_id, _)| *node_id).collect();
        silent.iter().for_each(|node_id| self.forget(*node_id));
        let fenced = silent.into_iter().filter(|node| image.broker(*node).is_some_and(|known| !known.fenced));
        let mut due: Vec<Own> = fenced.map(Own::Fence).collect();
        let every = |(every_ms, at_ms): &mut (u64, u64)| {
            let is_due = *at_ms <= now_ms;
            if is_due {
                *at_ms = now_ms.saturating_add(*every_ms);
            }
            is_due
        };
        due.extend(self.rebalance.as_mut().is_some_and(every).then_some(Own::Rebalance));
        due.extend(every(&mut self.unclean).then_some(Own::Unclean));
        due
    }

    /// Whether there is anybody to listen for.
    fn has_peers(&self) -> bool {
        self.sessions.iter().any(|(node_id, session)| session.has_spoken || !self.is_own(*node_id))
    }
}

impl Session {
    fn new(epoch: i64, registered_at: u64, now_ms: u64) -> Self {
        Self {
            epoch,
            heard_at_ms: now_ms,
            has_spoken: false,
            applied: 0,
            registered_at,
            stops_at: None,
            has_left: false,
        }
    }
}

impl Controller {
    /// Time has passed: brokers that were silent for too long are fenced, leaders may change.
    pub(super) fn look_after_brokers(&mut self, now: Now) -> Result<(), String> {
        let waits = self.must_not_decide_alone();
        let Some(leadership) = &mut self.leadership else { return Ok(()) };
        if waits {
            // Looked at again: a session that is over stays so.
            leadership.liveness.wakes = false;
            return Ok(());
        }
        let due = leadership.liveness.look(&leadership.speculative, now.mono_ms);
        due.into_iter().try_for_each(|own| self.decide_own(own))?;
        self.fence_gone()
    }

    /// A broker's process is known to be dead: it is fenced if it is the one that registered last.
    pub(super) fn broker_gone(&mut self, node_id: i32, incarnation: Uuid) -> Result<(), String> {
        let known = self.builder.image().broker(node_id);
        if known.is_some_and(|known| known.incarnation == incarnation) {
            self.gone.insert(node_id, incarnation);
        }
        self.fence_gone()
    }

    /// The process of a member of the quorum is gone, and with it the broker in it. Who is not the leader keeps that in
    /// mind: where it was the leader's process, the next one has heard no heartbeats and would wait a whole session.
    pub(super) fn member_gone(&mut self, raft_id: u64) -> Result<(), String> {
        let Some(node_id) = self.members().get(raft_id).map(|member| member.node_id) else { return Ok(()) };
        let Some(incarnation) = self.builder.image().broker(node_id).map(|known| known.incarnation) else {
            return Ok(());
        };
        self.broker_gone(node_id, incarnation)
    }

    /// Fences whose processes are gone, where this controller decides.
    pub(super) fn fence_gone(&mut self) -> Result<(), String> {
        if self.gone.is_empty() || self.leadership.is_none() || self.must_not_decide_alone() {
            return Ok(());
        }
        for (node_id, incarnation) in std::mem::take(&mut self.gone) {
            let Some(leadership) = &mut self.leadership else { return Ok(()) };
            let known = leadership.speculative.broker(node_id);
            let is_known = known.is_some_and(|known| known.incarnation == incarnation);
            if is_known && !leadership.liveness.is_own(node_id) {
                leadership.liveness.forget(node_id);
                self.decide_own(Own::Fence(node_id))?;
            }
        }
        Ok(())
    }

    /// The connection of a broker is gone and its port is taken: the next process of its id may take its place, unless
    /// it is heard again.
    pub(super) fn broker_left(&mut self, node_id: i32, incarnation: Uuid) {
        let Some(leadership) = &mut self.leadership else { return };
        let Some(known) = leadership.speculative.broker(node_id) else { return };
        if known.incarnation == incarnation {
            leadership.liveness.left(node_id, known.epoch);
        }
    }

    /// Raft would refuse what nobody asked for: this controller gives its place away, has lost it in this very step
    /// (the tick that finds a session over may find the quorum gone), or too much waits for its commit already.
    fn must_not_decide_alone(&self) -> bool {
        let bytes = self.leadership.as_ref().map_or(0, |leadership| leadership.bytes_in_flight);
        !self.raft.status().leads || self.raft.is_resigning() || bytes >= super::IN_FLIGHT_BYTES_MAX
    }

    /// A request has come, which may have to wait.
    pub(super) fn hear(&mut self, now: Now, request: &ControllerRequest) {
        if let (ControllerRequest::Heartbeat { node_id, epoch, .. }, Some(leadership)) =
            (request, &mut self.leadership)
        {
            leadership.liveness.touched(*node_id, *epoch, now.mono_ms);
        }
    }

    /// Asks for the next look where no raft tick comes by.
    pub(super) fn wake_for_brokers(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.needs_ticks() {
            return;
        }
        let Some(leadership) = &mut self.leadership else { return };
        let liveness = &mut leadership.liveness;
        if liveness.has_peers() && !liveness.wakes {
            liveness.wakes = true;
            out.push(Output::WakeAt(now.mono_ms + CHECK_MS));
        }
    }

    fn decide_own(&mut self, own: Own) -> Result<(), String> {
        let index_next = self.raft.status().index_last + 1;
        let Some(leadership) = &mut self.leadership else { return Ok(()) };
        let mut state = ImageBuilder::new(&leadership.speculative);
        let mut records: Vec<Record> = Vec::new();
        let rules = Rules {
            node: &self.config.node,
            rng: &mut self.rng,
            now_ms: self.now_ms,
            index_next,
            liveness: &mut leadership.liveness,
        };
        match own {
            Own::Fence(node_id) => brokers::fence(&rules, &mut state, node_id, &mut records),
            Own::Rebalance => elections::rebalance(rules.node, &mut state, &mut records),
            Own::Unclean => elections::redraw_uncertain(rules.node, &mut state, &mut records),
        }
        if records.is_empty() {
            return Ok(());
        }
        leadership.keep(&state);
        self.propose(&records, None, ControllerAnswer::Refused(ErrorCode::NotController))
    }
}
