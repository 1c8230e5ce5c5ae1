//! Who may join, vote, move and go: what a request makes of the members.

use super::members::{Member, Members};
use crate::controller::image::Image;
use crate::controller::record::Endpoint;
use crate::controller::request::ControllerRequest;
use crate::wire::ErrorCode;

/// A learner may vote when it lacks no more entries than these: the quorum does not wait for it long.
const ENTRIES_BEHIND_MAX: u64 = 1000;

/// What a request comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// These are the members from there on.
    Change(Members),
    /// It is so already.
    Nothing,
    /// No, and why.
    Refused(ErrorCode, &'static str),
    /// The leader itself is to go: it gives its place to that voter first.
    Resign(u64),
}

/// What the leader knows.
pub(super) struct Scene<'a> {
    pub(super) members: &'a Members,
    /// Raft id of the leader.
    pub(super) own: u64,
    pub(super) index_last: u64,
    /// The leader's term, as Kafka tells it.
    pub(super) leader_epoch: i32,
    /// The last index that a member is known to have; `None` for strangers.
    pub(super) matched: &'a dyn Fn(u64) -> Option<u64>,
    /// The brokers that are registered.
    pub(super) image: &'a Image,
}

/// Decides one of the requests that change the members; others are `Nothing`.
pub(super) fn decide(scene: &Scene<'_>, request: &ControllerRequest) -> Decision {
    match request {
        ControllerRequest::JoinQuorum { node_id, raft_id, endpoint } => {
            join(scene, *node_id, *raft_id, endpoint)
        }
        ControllerRequest::AddVoter { node_id, raft_id, endpoint } => {
            add_voter(scene, *node_id, *raft_id, endpoint)
        }
        ControllerRequest::RemoveVoter { node_id, raft_id } => remove_voter(scene, *node_id, *raft_id),
        ControllerRequest::UpdateVoter { node_id, raft_id, leader_epoch, endpoint } => {
            update_voter(scene, (*node_id, *raft_id), *leader_epoch, endpoint)
        }
        ControllerRequest::LeaveQuorum { node_id } => {
            let goes = |member: &Member| !member.is_voter && member.node_id == *node_id;
            // It may have registered again meanwhile.
            let is_back = scene.image.broker(*node_id).is_some();
            if !is_back && scene.members.iter().any(goes) {
                changed(scene.members.without(goes))
            } else {
                Decision::Nothing
            }
        }
        _ => Decision::Nothing,
    }
}

/// Whether a request is one of those.
pub(super) fn is_about_members(request: &ControllerRequest) -> bool {
    matches!(
        request,
        ControllerRequest::JoinQuorum { .. }
            | ControllerRequest::AddVoter { .. }
            | ControllerRequest::RemoveVoter { .. }
            | ControllerRequest::UpdateVoter { .. }
            | ControllerRequest::LeaveQuorum { .. }
    )
}

fn changed(members: Result<Members, &'static str>) -> Decision {
    match members {
        Ok(members) => Decision::Change(members),
        Err(why) => Decision::Refused(ErrorCode::InvalidRequest, why),
    }
}

fn join(scene: &Scene<'_>, node_id: i32, raft_id: u64, endpoint: &Endpoint) -> Decision {
    let (members, endpoint) = (scene.members, endpoint.clone());
    let has_other_disk = members.iter().any(|member| member.node_id == node_id && member.raft_id != raft_id);
    match members.get(raft_id) {
        Some(known) if known.node_id != node_id => {
            Decision::Refused(ErrorCode::InvalidRequest, "this disk belongs to another node")
        }
        // A voter that is reached elsewhere says so in words of its own.
        Some(known) if known.is_voter || known.endpoint == endpoint => Decision::Nothing,
        Some(known) => changed(members.with(Member { endpoint, ..known.clone() })),
        // Another process has its id and is alive: that one goes on being fed.
        None if has_other_disk && scene.image.is_active(node_id) => Decision::Refused(
            ErrorCode::DuplicateBrokerRegistration,
            "the node's broker is alive on another disk",
        ),
        None => {
            // What the node had before is lost. An old disk that votes goes on counting until it is removed: it may
            // have promised what is committed.
            let others = members.without(|member| !member.is_voter && member.node_id == node_id);
            changed(
                others.and_then(|others| others.with(Member { raft_id, node_id, is_voter: false, endpoint })),
            )
        }
    }
}

/// Whether a member that is known to have everything up to `matched` may vote.
pub(super) fn has_caught_up(matched: Option<u64>, index_last: u64) -> bool {
    matched.is_some_and(|matched| matched > 0 && matched + ENTRIES_BEHIND_MAX >= index_last)
}

fn add_voter(scene: &Scene<'_>, node_id: i32, raft_id: u64, endpoint: &Endpoint) -> Decision {
    if scene.members.voters().any(|member| member.node_id == node_id) {
        return Decision::Refused(ErrorCode::DuplicateVoter, "the node votes already");
    }
    let learner = scene.members.get(raft_id).filter(|member| member.node_id == node_id);
    let matched = learner.and_then(|learner| (scene.matched)(learner.raft_id));
    if !has_caught_up(matched, scene.index_last) {
        return Decision::Refused(ErrorCode::RequestTimedOut, "the node has not caught up with the leader");
    }
    changed(scene.members.with(Member { raft_id, node_id, is_voter: true, endpoint: endpoint.clone() }))
}

fn remove_voter(scene: &Scene<'_>, node_id: i32, raft_id: u64) -> Decision {
    let members = scene.members;
    let Some(voter) = members.get(raft_id).filter(|voter| voter.is_voter && voter.node_id == node_id) else {
        return Decision::Refused(ErrorCode::VoterNotFound, "the node does not vote with this disk");
    };
    if raft_id == scene.own {
        let others = members.voters().filter(|other| other.raft_id != raft_id);
        let best = others.max_by_key(|other| (scene.matched)(other.raft_id));
        return best.map_or(Decision::Refused(ErrorCode::InvalidRequest, "it is the only voter"), |best| {
            Decision::Resign(best.raft_id)
        });
    }
    let has_other_disk = members.iter().any(|other| other.node_id == node_id && other.raft_id != raft_id);
    if has_other_disk {
        changed(members.without(|member| member.raft_id == raft_id))
    } else {
        changed(members.with(Member { is_voter: false, ..voter.clone() }))
    }
}

fn update_voter(
    scene: &Scene<'_>,
    (node_id, raft_id): (i32, u64),
    leader_epoch: i32,
    endpoint: &Endpoint,
) -> Decision {
    if leader_epoch >= 0 && leader_epoch < scene.leader_epoch {
        return Decision::Refused(ErrorCode::FencedLeaderEpoch, "another leader has been elected since");
    }
    if leader_epoch > scene.leader_epoch {
        return Decision::Refused(ErrorCode::UnknownLeaderEpoch, "this leader has been replaced");
    }
    // The id of a directory does not tell the last bit of one that the configuration fixes.
    let is_it = |voter: &&Member| voter.node_id == node_id && voter.raft_id | 1 == raft_id | 1;
    match scene.members.voters().find(is_it) {
        None => Decision::Refused(ErrorCode::VoterNotFound, "the node does not vote with this disk"),
        Some(known) if known.endpoint == *endpoint => Decision::Nothing,
        Some(known) => changed(scene.members.with(Member { endpoint: endpoint.clone(), ..known.clone() })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::quorum::members::VoterEndpoint;

    fn at(host: &str) -> Endpoint {
        Endpoint { name: "CONTROLLER".into(), host: host.into(), port: 9093, security_protocol: 0 }
    }

    fn three() -> Members {
        let voter = |node_id: i32| VoterEndpoint {
            node_id,
            raft_id: Some(node_id as u64 * 10),
            host: "h".into(),
            port: 9093,
        };
        Members::of_voters(&[voter(1), voter(2), voter(3)], "c").unwrap()
    }

    fn ask(members: &Members, request: ControllerRequest) -> Decision {
        let matched = |raft_id| members.get(raft_id).map(|member| 5000 + member.raft_id);
        let image = &Image::default();
        let scene = Scene { members, own: 10, index_last: 5100, leader_epoch: 6, matched: &matched, image };
        decide(&scene, &request)
    }

    fn change(decision: Decision) -> Members {
        let Decision::Change(members) = decision else { panic!("{decision:?}") };
        members
    }

    #[test]
    fn a_lost_disk_of_a_learner_goes_when_its_node_joins_anew_and_one_of_a_voter_stays_until_it_is_removed() {
        let join = |node_id, raft_id| ControllerRequest::JoinQuorum { node_id, raft_id, endpoint: at("h") };
        let members = change(ask(&three(), join(4, 40)));
        assert_eq!(ask(&members, join(4, 40)), Decision::Nothing);
        let members = change(ask(&members, join(4, 41)));
        assert!(members.get(40).is_none() && members.get(41).is_some_and(|member| !member.is_voter));
        let members = change(ask(&members, join(3, 31)));
        assert!(members.is_voter(30) && !members.is_voter(31));
        let removed = ControllerRequest::RemoveVoter { node_id: 3, raft_id: 30 };
        let members = change(ask(&members, removed));
        assert!(members.get(30).is_none(), "its node is there with another disk");
        let add = ControllerRequest::AddVoter { node_id: 3, raft_id: 31, endpoint: at("h") };
        assert!(change(ask(&members, add)).is_voter(31));
        assert!(matches!(ask(&members, join(2, 41)), Decision::Refused(ErrorCode::InvalidRequest, _)));
    }

    #[test]
    fn a_voter_moves_under_the_leader_that_it_knows_and_a_learner_by_joining() {
        let update = |node_id, raft_id, leader_epoch| ControllerRequest::UpdateVoter {
            node_id,
            raft_id,
            leader_epoch,
            endpoint: at("elsewhere"),
        };
        let refused = |request| match ask(&three(), request) {
            Decision::Refused(code, _) => code,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(update(2, 20, 5)), ErrorCode::FencedLeaderEpoch);
        assert_eq!(refused(update(2, 20, 7)), ErrorCode::UnknownLeaderEpoch);
        assert_eq!(refused(update(2, 22, 6)), ErrorCode::VoterNotFound);
        assert_eq!(refused(update(3, 20, 6)), ErrorCode::VoterNotFound);
        let join =
            |node_id, raft_id, host| ControllerRequest::JoinQuorum { node_id, raft_id, endpoint: at(host) };
        assert_eq!(ask(&three(), join(2, 20, "elsewhere")), Decision::Nothing);
        for leader_epoch in [6, -1] {
            let members = change(ask(&three(), update(2, 21, leader_epoch)));
            let voter = members.get(20).unwrap();
            assert_eq!((&voter.endpoint, voter.is_voter), (&at("elsewhere"), true));
            assert_eq!(ask(&members, update(2, 20, 6)), Decision::Nothing);
        }
        let members = change(ask(&three(), join(4, 40, "h")));
        assert_eq!(refused(update(4, 40, 6)), ErrorCode::VoterNotFound);
        let members = change(ask(&members, join(4, 40, "elsewhere")));
        assert_eq!(members.get(40).map(|learner| &learner.endpoint), Some(&at("elsewhere")));
    }

    #[test]
    fn voters_are_learners_first_and_again_afterwards() {
        let add = |node_id, raft_id| ControllerRequest::AddVoter { node_id, raft_id, endpoint: at("h") };
        assert!(matches!(ask(&three(), add(4, 40)), Decision::Refused(ErrorCode::RequestTimedOut, _)));
        assert!(matches!(ask(&three(), add(3, 31)), Decision::Refused(ErrorCode::DuplicateVoter, _)));
        let removed = ControllerRequest::RemoveVoter { node_id: 3, raft_id: 30 };
        let members = change(ask(&three(), removed.clone()));
        assert!(members.get(30).is_some_and(|member| !member.is_voter));
        assert!(matches!(ask(&members, removed), Decision::Refused(ErrorCode::VoterNotFound, _)));
        let leader = ControllerRequest::RemoveVoter { node_id: 1, raft_id: 10 };
        assert_eq!(ask(&three(), leader), Decision::Resign(30), "to the one that has most");
        let gone = change(ask(&members, ControllerRequest::LeaveQuorum { node_id: 3 }));
        assert!(gone.get(30).is_none());
        assert_eq!(ask(&gone, ControllerRequest::LeaveQuorum { node_id: 2 }), Decision::Nothing);
    }
}
