//! What a leader does for its quorum by itself: learners that nobody needs go, and voters that the configuration names
//! come back after their disk was lost.

use super::NOBODY;
use super::members::{Member, Members};
use super::requests::{has_caught_up, is_about_members};
use crate::controller::{Controller, ControllerRequest, Output};
use crate::effect::Now;

/// How often the members are looked at, in milliseconds.
pub(super) const LOOK_MS: u64 = 1_000;
/// A learner that is no registered broker and says nothing for so long is no member any more, in milliseconds. Kafka
/// forgets observers as late.
const SILENT_MS: u64 = 300_000;
/// A voter whose node is there with another disk and who says nothing for so long gives that one its place.
const LOST_MS: u64 = 5_000;

/// What is known of the members when they are looked at.
struct View<'a> {
    members: &'a Members,
    /// Raft id of the leader.
    own: u64,
    /// How long a member has said nothing, in milliseconds.
    silent_ms: &'a dyn Fn(u64) -> u64,
    /// Whether a member has nearly everything that the leader has.
    has_caught_up: &'a dyn Fn(u64) -> bool,
}

/// A learner that may go. `is_registered` says of a node whether it is a broker of the cluster.
fn evicted<'a>(view: &View<'a>, is_registered: impl Fn(i32) -> bool) -> Option<&'a Member> {
    let is_silent = |learner: &&Member| (view.silent_ms)(learner.raft_id) >= SILENT_MS;
    view.members.learners().filter(is_silent).find(|learner| !is_registered(learner.node_id))
}

/// What brings a node back that votes by the configuration (`named`) and has another disk than the voter had: the lost
/// one goes, and then the new one comes.
fn repaired(view: &View<'_>, mut named: impl Iterator<Item = i32>) -> Option<ControllerRequest> {
    let is_fit = |learner: &&Member| {
        let is_there = (view.silent_ms)(learner.raft_id) <= 2 * LOOK_MS && learner.endpoint.port > 0;
        is_there && (view.has_caught_up)(learner.raft_id)
    };
    named.find_map(|node_id| {
        let learner = view.members.learners().filter(is_fit).find(|learner| learner.node_id == node_id)?;
        match view.members.voters().find(|voter| voter.node_id == node_id) {
            None => Some(ControllerRequest::AddVoter {
                node_id,
                raft_id: learner.raft_id,
                endpoint: learner.endpoint.clone(),
            }),
            Some(lost) => {
                let is_lost = lost.raft_id != view.own && (view.silent_ms)(lost.raft_id) >= LOST_MS;
                is_lost.then_some(ControllerRequest::RemoveVoter { node_id, raft_id: lost.raft_id })
            }
        }
    })
}

impl Controller {
    /// Time has passed: the active controller looks at the members.
    pub(in crate::controller) fn look_after_members(&mut self, now: Now, out: &mut Vec<Output>) {
        let Some(leadership) = &self.leadership else { return };
        let members = self.raft.members();
        if !self.quorum.replicas.look(now.mono_ms, members) {
            return;
        }
        let is_changing = self.queued.iter().any(|(_, request)| is_about_members(request));
        if is_changing || !self.raft.may_change_members() {
            return;
        }
        let (raft, replicas, index_last) = (&self.raft, &self.quorum.replicas, self.raft.status().index_last);
        let view = View {
            members,
            own: self.config.raft_id,
            silent_ms: &|raft_id| replicas.silent_ms(raft_id),
            has_caught_up: &|raft_id| has_caught_up(raft.matched(raft_id), index_last),
        };
        let image = &leadership.speculative;
        let named = self.config.node.cluster.voters.iter().map(|voter| voter.node_id);
        let gone = evicted(&view, |node_id| image.broker(node_id).is_some());
        let gone = gone.map(|gone| (gone.node_id, gone.raft_id));
        let (request, said) = if let Some((node_id, _)) = gone {
            let words = format!(
                "node {node_id} is no member of the metadata quorum any more: it is no registered broker, and was \
                 silent for {} s",
                SILENT_MS / 1_000
            );
            (ControllerRequest::LeaveQuorum { node_id }, words)
        } else if let Some(request) = repaired(&view, named) {
            let words = match &request {
                ControllerRequest::RemoveVoter { node_id, .. } => {
                    format!("voter {node_id} has lost its disk: its node's new disk takes its place")
                }
                ControllerRequest::AddVoter { node_id, .. } => {
                    format!("node {node_id} votes with its new disk")
                }
                other => format!("{other:?}"),
            };
            (request, words)
        } else {
            return;
        };
        if let Some((_, raft_id)) = gone {
            // If it comes back its silence begins anew.
            self.quorum.replicas.forget(raft_id);
        }
        out.push(Output::Notice(said));
        self.queued.push_back((NOBODY, request));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::quorum::members::VoterEndpoint;

    /// Nodes 1 to 3 vote with raft ids 10 to 30; node 3 has another disk, 31, that learns.
    fn members() -> Members {
        let voter = |node_id: i32| VoterEndpoint {
            node_id,
            raft_id: Some(node_id as u64 * 10),
            host: "h".into(),
            port: 9093,
        };
        let members = Members::of_voters(&[voter(1), voter(2), voter(3)], "c").unwrap();
        let learner = Member { raft_id: 31, is_voter: false, ..members.get(30).unwrap().clone() };
        members.with(learner).unwrap()
    }

    fn repair(members: &Members, silent_ms: &dyn Fn(u64) -> u64, behind: bool) -> Option<ControllerRequest> {
        let view = View { members, own: 10, silent_ms, has_caught_up: &|_| !behind };
        repaired(&view, [1, 2, 3].into_iter())
    }

    #[test]
    fn a_lost_voter_that_the_configuration_names_goes_and_then_its_new_disk_votes() {
        let members = members();
        let lost = |raft_id| if raft_id == 30 { LOST_MS } else { 0 };
        let remove = ControllerRequest::RemoveVoter { node_id: 3, raft_id: 30 };
        assert_eq!(repair(&members, &lost, false), Some(remove));
        assert_eq!(repair(&members, &lost, true), None, "not before it has what the leader has");
        assert_eq!(repair(&members, &|_| 0, false), None, "the voter speaks: somebody else has its node id");
        assert_eq!(repair(&members, &|_| LOST_MS, false), None, "the new disk is gone as well");
        let without = members.without(|member| member.raft_id == 30).unwrap();
        let added = repair(&without, &|_| 0, false);
        assert!(matches!(added, Some(ControllerRequest::AddVoter { node_id: 3, raft_id: 31, .. })));
        let view = View { members: &members, own: 10, silent_ms: &lost, has_caught_up: &|_| true };
        assert_eq!(repaired(&view, std::iter::empty()), None, "voters of a list are the operator's");
    }

    #[test]
    fn silent_learners_go_but_for_registered_brokers() {
        let members = members();
        let gone = |silent_ms: u64, registered: i32| {
            let view =
                View { members: &members, own: 10, silent_ms: &move |_| silent_ms, has_caught_up: &|_| true };
            evicted(&view, |node_id| node_id == registered).map(|member| member.raft_id)
        };
        assert_eq!((gone(SILENT_MS, 7), gone(SILENT_MS, 3), gone(SILENT_MS - 1, 7)), (Some(31), None, None));
    }
}
