//! Several brokers: who leads when one of them goes, who may be in sync, and how replicas move; each partition told
//! as a line of text.

use smallvec::SmallVec;

use super::super::request::{ConfigChanges, ConfigOp, FeatureUpdate, MorePartitions};
use super::*;

/// Brokers 1, 2 and 3 beside a controller that has the id 0, and topic `t` with one partition on these replicas.
pub(super) fn three(replicas: &[i32]) -> Node {
    let mut node = Node::start(Disk::default(), 5);
    (1..4).for_each(|broker| node.register(broker));
    let mut topic = new_topic("t", -1, -1);
    topic.assignments = vec![(0, replicas.to_vec())];
    node.call(create(vec![topic]));
    node
}

/// A partition of `t` in words.
pub(super) fn line(node: &Node, index: usize) -> String {
    let one = &node.image.topic("t").unwrap().partitions[index];
    let mut words =
        format!("leader {} in {}, isr {:?} of {:?}", one.leader, one.leader_epoch, one.isr, one.replicas);
    let lists = [("adding", &one.adding), ("removing", &one.removing), ("elr", &one.elr)];
    for (name, ids) in
        lists.into_iter().chain([("last", &one.last_known_elr)]).filter(|(_, ids)| !ids.is_empty())
    {
        words += &format!(", {name} {ids:?}");
    }
    if one.recovery == LeaderRecovery::Recovering {
        words += ", recovering";
    }
    words
}

pub(super) fn epoch(node: &Node, broker: i32) -> i64 {
    node.image.broker(broker).unwrap().epoch
}

/// The broker's process dies and the controller is told.
pub(super) fn gone(node: &mut Node, broker: i32) {
    let incarnation = node.image.broker(broker).unwrap().incarnation;
    node.give(Input::BrokerGone { node_id: broker, incarnation });
    node.run(1000);
}

/// It comes back, in order or not, and is unfenced.
pub(super) fn back(node: &mut Node, broker: i32, in_order: bool) {
    let known = node.image.broker(broker).unwrap();
    let incarnation = known.incarnation.as_u128() + 1;
    let mut request = registration(broker, incarnation);
    if let ControllerRequest::RegisterBroker { previous_epoch, .. } = &mut request
        && in_order
    {
        *previous_epoch = known.epoch;
    }
    node.call(request);
    let epoch = epoch(node, broker);
    node.call(heartbeat(broker, epoch));
}

/// The leader of `t-0` wants that ISR.
fn wants(node: &Node, isr: &[i32]) -> IsrChange {
    let one = &node.image.topic("t").unwrap().partitions[0];
    let epochs =
        isr.iter().map(|broker| (*broker, node.image.broker(*broker).map_or(-1, |known| known.epoch)));
    IsrChange {
        leader_epoch: one.leader_epoch,
        partition_epoch: one.partition_epoch,
        isr: epochs.collect(),
        recovery: LeaderRecovery::Recovered,
    }
}

fn alter(node: &mut Node, change: IsrChange) -> Result<IsrState, ErrorCode> {
    let topic = node.image.topic("t").unwrap();
    let (id, leader) = (topic.id, topic.partitions[0].leader);
    let request = ControllerRequest::AlterPartition {
        node_id: leader,
        epoch: epoch(node, leader),
        changes: vec![(id, 0, change)],
    };
    let ControllerAnswer::Isr(Ok(mut results)) = node.call(request) else { panic!("refused as a whole") };
    results.pop().unwrap().2
}

fn set(node: &mut Node, resource_type: ResourceType, name: &str, key: &str, value: &str) -> ControllerAnswer {
    let changes = vec![(key.to_string(), ConfigOp::Set(value.to_string()))];
    let resources = vec![ConfigChanges { resource_type, name: name.into(), changes, replace: false }];
    node.call(ControllerRequest::AlterConfigs { resources, validate_only: false })
}

fn eligible(node: &mut Node, level: i16) {
    let name = features::ELIGIBLE_LEADER_REPLICAS_VERSION.to_string();
    let updates = vec![FeatureUpdate { name, level, upgrade_type: 3 }];
    let answer = node.call(ControllerRequest::UpdateFeatures { updates, validate_only: false });
    assert_eq!(answer, ControllerAnswer::Features(Ok(())));
}

fn elect(node: &mut Node, kind: ElectionKind) -> Result<(), ApiError> {
    let partitions = Some(vec![("t".to_string(), 0)]);
    let ControllerAnswer::Elected(mut told) = node.call(ControllerRequest::ElectLeaders { partitions, kind })
    else {
        panic!("an election")
    };
    told.pop().unwrap().2
}

fn reassign(node: &mut Node, replicas: Option<&[i32]>, allow: bool) -> Result<(), ApiError> {
    let request = ControllerRequest::AlterReassignments {
        changes: vec![("t".into(), 0, replicas.map(<[i32]>::to_vec))],
        allow_replication_factor_change: allow,
    };
    let ControllerAnswer::Reassigned(mut told) = node.call(request) else { panic!("a reassignment") };
    told.pop().unwrap().2
}

#[test]
fn a_dead_leader_is_replaced_and_comes_back_to_lead() {
    let mut node = three(&[1, 2, 3]);
    assert_eq!(line(&node, 0), "leader 1 in 0, isr [1, 2, 3] of [1, 2, 3]");
    gone(&mut node, 1);
    assert_eq!(line(&node, 0), "leader 2 in 1, isr [2, 3] of [1, 2, 3]");
    gone(&mut node, 3);
    assert_eq!(line(&node, 0), "leader 2 in 1, isr [2] of [1, 2, 3]");
    gone(&mut node, 2);
    assert_eq!(line(&node, 0), "leader -1 in 2, isr [2] of [1, 2, 3]");
    back(&mut node, 1, false);
    assert_eq!(line(&node, 0), "leader -1 in 2, isr [2] of [1, 2, 3]");
    back(&mut node, 2, false);
    assert_eq!(line(&node, 0), "leader 2 in 3, isr [2] of [1, 2, 3]");
    let change = wants(&node, &[2, 1]);
    let state = alter(&mut node, change).unwrap();
    assert_eq!((state.leader, state.isr.as_slice()), (2, [2, 1].as_slice()));
    assert_eq!(elect(&mut node, ElectionKind::Preferred), Ok(()));
    assert_eq!(line(&node, 0), "leader 1 in 4, isr [2, 1] of [1, 2, 3]");
    let again = elect(&mut node, ElectionKind::Preferred).unwrap_err();
    assert_eq!(again.code, ErrorCode::ElectionNotNeeded);
}

#[test]
fn an_earlier_life_of_a_broker_is_not_news() {
    let mut node = three(&[1, 2, 3]);
    let incarnation = node.image.broker(1).unwrap().incarnation;
    gone(&mut node, 1);
    back(&mut node, 1, true);
    node.give(Input::BrokerGone { node_id: 1, incarnation });
    node.run(1000);
    assert!(node.image.is_active(1));
}

#[test]
fn the_next_process_of_a_broker_whose_connection_is_gone_need_not_wait_for_the_session() {
    let mut node = three(&[1, 2, 3]);
    let known = node.image.broker(1).unwrap();
    let (incarnation, next) = (known.incarnation, registration(1, known.incarnation.as_u128() + 1));
    let refused = ControllerAnswer::Refused(ErrorCode::DuplicateBrokerRegistration);
    assert_eq!(node.call(next.clone()), refused);
    node.give(Input::BrokerLeft { node_id: 1, incarnation: uuid::Uuid::from_u128(99) });
    assert_eq!(node.call(next.clone()), refused, "an earlier life");
    node.give(Input::BrokerLeft { node_id: 1, incarnation });
    let epoch = epoch(&node, 1);
    node.call(heartbeat(1, epoch));
    assert_eq!(node.call(next.clone()), refused, "it has another connection by now");
    node.give(Input::BrokerLeft { node_id: 1, incarnation });
    assert!(matches!(node.call(next), ControllerAnswer::Registered { .. }));
    assert!(!node.image.is_active(1));
}

#[test]
fn an_unclean_leader_is_elected_only_where_that_is_configured_or_asked_for() {
    let mut node = three(&[1, 2]);
    gone(&mut node, 2);
    gone(&mut node, 1);
    back(&mut node, 2, true);
    assert_eq!(line(&node, 0), "leader -1 in 1, isr [1] of [1, 2]");
    set(&mut node, ResourceType::Topic, "t", "unclean.leader.election.enable", "true");
    assert_eq!(line(&node, 0), "leader 2 in 2, isr [2] of [1, 2], recovering");
    let mut change = wants(&node, &[2]);
    change.recovery = LeaderRecovery::Recovering;
    assert_eq!(alter(&mut node, change).unwrap().recovery, LeaderRecovery::Recovering);
    let change = wants(&node, &[2]);
    assert_eq!(alter(&mut node, change).unwrap().recovery, LeaderRecovery::Recovered);
    assert_eq!(line(&node, 0), "leader 2 in 2, isr [2] of [1, 2]");

    let mut node = three(&[1, 2]);
    gone(&mut node, 2);
    gone(&mut node, 1);
    back(&mut node, 2, true);
    let refused = elect(&mut node, ElectionKind::Preferred).unwrap_err();
    assert_eq!(refused.code, ErrorCode::PreferredLeaderNotAvailable);
    assert_eq!(elect(&mut node, ElectionKind::Unclean), Ok(()));
    assert_eq!(line(&node, 0), "leader 2 in 2, isr [2] of [1, 2], recovering");
}

#[test]
fn who_left_an_isr_that_was_too_small_stays_eligible() {
    let mut node = three(&[1, 2, 3]);
    eligible(&mut node, 1);
    set(&mut node, ResourceType::Topic, "t", "min.insync.replicas", "2");
    gone(&mut node, 3);
    assert_eq!(line(&node, 0), "leader 1 in 0, isr [1, 2] of [1, 2, 3]", "two are enough: 3 is not eligible");
    gone(&mut node, 2);
    assert_eq!(line(&node, 0), "leader 1 in 0, isr [1] of [1, 2, 3], elr [2]");
    gone(&mut node, 1);
    assert_eq!(line(&node, 0), "leader -1 in 1, isr [] of [1, 2, 3], elr [1, 2], last [1]");
    back(&mut node, 3, true);
    assert_eq!(line(&node, 0), "leader -1 in 1, isr [] of [1, 2, 3], elr [1, 2], last [1]");
    back(&mut node, 2, true);
    assert_eq!(line(&node, 0), "leader 2 in 2, isr [2] of [1, 2, 3], elr [1]");
    let change = wants(&node, &[2, 3]);
    alter(&mut node, change).unwrap();
    assert_eq!(line(&node, 0), "leader 2 in 2, isr [2, 3] of [1, 2, 3]");
}

#[test]
fn a_replica_that_stopped_without_order_is_not_eligible_and_the_last_leader_leads_at_last() {
    let mut node = three(&[1, 2]);
    eligible(&mut node, 1);
    set(&mut node, ResourceType::Topic, "t", "min.insync.replicas", "2");
    gone(&mut node, 2);
    gone(&mut node, 1);
    back(&mut node, 2, false);
    assert_eq!(line(&node, 0), "leader -1 in 1, isr [] of [1, 2], elr [1], last [1]");
    back(&mut node, 1, false);
    assert_eq!(line(&node, 0), "leader 1 in 2, isr [1] of [1, 2], recovering");
}

/// `tests/scenarios/last_replica_crashes.txt` plays the replicas to these decisions.
#[test]
fn the_last_replica_standing_crashes_and_one_that_is_eligible_leads() {
    let mut node = three(&[1, 2, 3]);
    eligible(&mut node, 1);
    set(&mut node, ResourceType::Topic, "t", "min.insync.replicas", "2");
    gone(&mut node, 3);
    gone(&mut node, 2);
    gone(&mut node, 1);
    assert_eq!(line(&node, 0), "leader -1 in 1, isr [] of [1, 2, 3], elr [1, 2], last [1]");
    back(&mut node, 1, false);
    assert_eq!(
        line(&node, 0),
        "leader -1 in 1, isr [] of [1, 2, 3], elr [2], last [1]",
        "it may have lost b"
    );
    back(&mut node, 3, true);
    assert_eq!(line(&node, 0), "leader -1 in 1, isr [] of [1, 2, 3], elr [2], last [1]", "it never had b");
    back(&mut node, 2, true);
    assert_eq!(line(&node, 0), "leader 2 in 2, isr [2] of [1, 2, 3]");
    assert_eq!(node.image.topic("t").unwrap().partitions[0].partition_epoch, 5);
    for isr in [&[2, 3][..], &[1, 2, 3]] {
        let change = wants(&node, isr);
        alter(&mut node, change).unwrap();
    }
    assert_eq!(line(&node, 0), "leader 2 in 2, isr [1, 2, 3] of [1, 2, 3]");
}

#[test]
fn fewer_replicas_that_must_be_in_sync_leave_nobody_eligible_beside_those_that_are() {
    let mut node = three(&[1, 2, 3]);
    eligible(&mut node, 1);
    assert_eq!(node.image.config(ResourceType::Broker, "", "min.insync.replicas"), Some("1"));
    set(&mut node, ResourceType::Broker, "", "min.insync.replicas", "3");
    gone(&mut node, 3);
    assert_eq!(line(&node, 0), "leader 1 in 0, isr [1, 2] of [1, 2, 3], elr [3]");
    set(&mut node, ResourceType::Broker, "", "min.insync.replicas", "2");
    assert_eq!(line(&node, 0), "leader 1 in 0, isr [1, 2] of [1, 2, 3]");
    let ControllerAnswer::Configs(told) =
        set(&mut node, ResourceType::Broker, "1", "min.insync.replicas", "1")
    else {
        panic!("configurations")
    };
    let words = "Broker-level min.insync.replicas cannot be altered while ELR is enabled.";
    assert_eq!(told[0].2.as_ref().unwrap_err().message, words);
    gone(&mut node, 2);
    gone(&mut node, 1);
    assert_eq!(line(&node, 0), "leader -1 in 1, isr [] of [1, 2, 3], elr [1, 2], last [1]");
    eligible(&mut node, 0);
    assert_eq!(line(&node, 0), "leader -1 in 1, isr [1, 2] of [1, 2, 3]");
    back(&mut node, 2, true);
    assert_eq!(line(&node, 0), "leader 2 in 2, isr [1, 2] of [1, 2, 3]");
}

#[test]
fn an_isr_is_refused_with_kafkas_codes() {
    let mut node = three(&[1, 2, 3]);
    gone(&mut node, 3);
    type Spoil = fn(&mut IsrChange);
    let cases: [(Spoil, ErrorCode); 9] = [
        (|change| change.leader_epoch += 1, ErrorCode::NotController),
        (|change| change.partition_epoch += 1, ErrorCode::NotController),
        (|change| change.leader_epoch -= 1, ErrorCode::FencedLeaderEpoch),
        (|change| change.partition_epoch -= 1, ErrorCode::InvalidUpdateVersion),
        (|change| change.isr = SmallVec::from_slice(&[(2, -1)]), ErrorCode::InvalidRequest),
        (|change| change.isr.push((7, -1)), ErrorCode::InvalidRequest),
        (|change| change.isr.push((1, -1)), ErrorCode::InvalidRequest),
        (|change| change.isr.push((3, -1)), ErrorCode::IneligibleReplica),
        (|change| change.recovery = LeaderRecovery::Recovering, ErrorCode::InvalidRequest),
    ];
    for (spoil, code) in cases {
        let mut change = wants(&node, &[1, 2]);
        spoil(&mut change);
        assert_eq!(alter(&mut node, change), Err(code));
    }
    back(&mut node, 3, true);
    let mut change = wants(&node, &[1, 2, 3]);
    change.isr[2].1 -= 1;
    assert_eq!(alter(&mut node, change), Err(ErrorCode::IneligibleReplica), "an earlier life of broker 3");
    let before = line(&node, 0);
    let id = node.image.topic("t").unwrap().id;
    let change = wants(&node, &[1, 2]);
    let ask = |node: &mut Node, node_id, epoch, id| {
        let changes = vec![(id, 0, change.clone()), (id, 5, change.clone())];
        let ControllerAnswer::Isr(told) =
            node.call(ControllerRequest::AlterPartition { node_id, epoch, changes })
        else {
            panic!("in-sync sets")
        };
        told.map(|results| results.into_iter().map(|(_, _, result)| result.err()).collect::<Vec<_>>())
    };
    let (one, two) = (epoch(&node, 1), epoch(&node, 2));
    assert_eq!(ask(&mut node, 1, one - 1, id), Err(ErrorCode::StaleBrokerEpoch));
    let unknown = Some(ErrorCode::UnknownTopicOrPartition);
    assert_eq!(ask(&mut node, 2, two, id), Ok(vec![Some(ErrorCode::InvalidRequest), unknown]));
    let strange = uuid::Uuid::from_u128(1);
    let no_topic = Some(ErrorCode::UnknownTopicId);
    assert_eq!(ask(&mut node, 1, one, strange), Ok(vec![no_topic, no_topic]));
    assert_eq!(line(&node, 0), before, "nothing of this changed anything");
}

#[test]
fn replicas_move_when_those_that_are_added_are_in_sync() {
    let mut node = three(&[1, 2]);
    assert_eq!(reassign(&mut node, Some(&[3, 2]), false), Ok(()));
    let moving = "leader 1 in 0, isr [1, 2] of [3, 2, 1], adding [3], removing [1]";
    assert_eq!(line(&node, 0), moving);
    let ControllerAnswer::Reassignments(told) =
        node.call(ControllerRequest::ListReassignments { partitions: None })
    else {
        panic!("reassignments")
    };
    let expected = Reassignment {
        topic: "t".into(),
        index: 0,
        replicas: vec![3, 2, 1],
        adding: vec![3],
        removing: vec![1],
    };
    assert_eq!(told, [expected]);
    assert_eq!(reassign(&mut node, None, false), Ok(()));
    assert_eq!(line(&node, 0), "leader 1 in 1, isr [1, 2] of [2, 1]");
    assert_eq!(reassign(&mut node, None, false).unwrap_err().code, ErrorCode::NoReassignmentInProgress);
    reassign(&mut node, Some(&[3, 2]), false).unwrap();
    let change = wants(&node, &[1, 2, 3]);
    assert_eq!(alter(&mut node, change), Err(ErrorCode::NewLeaderElected));
    assert_eq!(line(&node, 0), "leader 3 in 2, isr [2, 3] of [3, 2]");
    let refused = reassign(&mut node, Some(&[3]), false).unwrap_err();
    assert_eq!(refused.message, "The replication factor is changed from 2 to 1");
    assert_eq!(
        reassign(&mut node, Some(&[3, 9]), false).unwrap_err().code,
        ErrorCode::InvalidReplicaAssignment
    );
    assert_eq!(reassign(&mut node, Some(&[2]), true), Ok(()));
    assert_eq!(line(&node, 0), "leader 2 in 3, isr [2] of [2]");
}

#[test]
fn partitions_that_are_added_during_a_move_have_as_many_replicas_as_it_leaves() {
    let mut node = three(&[1]);
    reassign(&mut node, Some(&[2]), false).unwrap();
    assert_eq!(line(&node, 0), "leader 1 in 0, isr [1] of [2, 1], adding [2], removing [1]");
    let more = MorePartitions { name: "t".into(), count: 2, assignments: None };
    node.call(ControllerRequest::CreatePartitions { topics: vec![more.clone()], validate_only: false });
    assert_eq!(node.image.topic("t").unwrap().partitions[1].replicas.len(), 1);
    let chosen = MorePartitions { count: 3, assignments: Some(vec![vec![3]]), ..more };
    node.call(ControllerRequest::CreatePartitions { topics: vec![chosen], validate_only: false });
    assert_eq!(line(&node, 2), "leader 3 in 0, isr [3] of [3]");
}

#[test]
fn another_move_forgets_what_the_first_was_adding() {
    let mut node = three(&[1]);
    reassign(&mut node, Some(&[2]), false).unwrap();
    assert_eq!(line(&node, 0), "leader 1 in 0, isr [1] of [2, 1], adding [2], removing [1]");
    reassign(&mut node, Some(&[3]), false).unwrap();
    assert_eq!(line(&node, 0), "leader 1 in 1, isr [1] of [3, 1], adding [3], removing [1]");
    reassign(&mut node, None, false).unwrap();
    assert_eq!(line(&node, 0), "leader 1 in 2, isr [1] of [1]");
}

#[test]
fn a_cancelled_move_leaves_no_more_replicas_than_there_were() {
    // A move that was asked for twice while nobody was in sync.
    let mut node = three(&[1]);
    eligible(&mut node, 1);
    gone(&mut node, 1);
    reassign(&mut node, Some(&[2]), false).unwrap();
    reassign(&mut node, Some(&[2]), false).unwrap();
    assert_eq!(
        line(&node, 0),
        "leader -1 in 1, isr [] of [2, 1], adding [2], removing [1], elr [1], last [1]"
    );
    reassign(&mut node, None, false).unwrap();
    assert_eq!(line(&node, 0), "leader -1 in 2, isr [] of [1], elr [1], last [1]");
    // One that gives up what alone is in sync.
    let mut node = three(&[1]);
    reassign(&mut node, Some(&[2, 3]), true).unwrap();
    let change = wants(&node, &[1, 2]);
    alter(&mut node, change).unwrap();
    gone(&mut node, 1);
    assert_eq!(line(&node, 0), "leader 2 in 1, isr [2] of [2, 3, 1], adding [2, 3], removing [1]");
    reassign(&mut node, Some(&[3]), true).unwrap();
    assert_eq!(line(&node, 0), "leader 2 in 1, isr [2] of [3, 2, 1], adding [3, 2], removing [2, 1]");
    let refused = reassign(&mut node, None, false).unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidReplicaAssignment, "it would be an unclean election");
    let change = wants(&node, &[2, 3]);
    assert_eq!(alter(&mut node, change), Err(ErrorCode::NewLeaderElected));
    assert_eq!(line(&node, 0), "leader 3 in 2, isr [3] of [3]");
}

#[test]
fn a_move_never_leaves_fewer_with_what_was_committed_than_must_be_in_sync() {
    let mut node = three(&[1, 2, 3]);
    eligible(&mut node, 1);
    set(&mut node, ResourceType::Topic, "t", "min.insync.replicas", "2");
    gone(&mut node, 3);
    // Without broker 2 there would be broker 1 alone.
    reassign(&mut node, Some(&[1, 3]), true).unwrap();
    assert_eq!(line(&node, 0), "leader 1 in 0, isr [1, 2] of [1, 3, 2], removing [2]");
    gone(&mut node, 2);
    assert_eq!(line(&node, 0), "leader 1 in 0, isr [1] of [1, 3, 2], removing [2], elr [2]");
    back(&mut node, 3, false);
    let change = wants(&node, &[1, 3]);
    alter(&mut node, change).unwrap();
    assert_eq!(line(&node, 0), "leader 1 in 1, isr [1, 3] of [1, 3]");
    // Fewer that must be in sync let it end.
    gone(&mut node, 3);
    reassign(&mut node, Some(&[3]), true).unwrap();
    back(&mut node, 3, false);
    reassign(&mut node, Some(&[1]), true).unwrap();
    assert_eq!(line(&node, 0), "leader 1 in 2, isr [1] of [1]");
}

#[test]
fn a_cancelled_move_waits_until_enough_have_what_was_committed() {
    let mut node = three(&[1, 2]);
    eligible(&mut node, 1);
    set(&mut node, ResourceType::Topic, "t", "min.insync.replicas", "2");
    reassign(&mut node, Some(&[2, 3]), true).unwrap();
    gone(&mut node, 2);
    back(&mut node, 2, false);
    let change = wants(&node, &[1, 3]);
    alter(&mut node, change).unwrap();
    assert_eq!(line(&node, 0), "leader 1 in 0, isr [1, 3] of [2, 3, 1], adding [3], removing [1]");
    // Without broker 3 there would be broker 1 alone.
    reassign(&mut node, None, true).unwrap();
    assert_eq!(line(&node, 0), "leader 1 in 0, isr [1, 3] of [2, 1, 3], adding [3], removing [3]");
    let change = wants(&node, &[1, 2, 3]);
    alter(&mut node, change).unwrap();
    assert_eq!(line(&node, 0), "leader 1 in 1, isr [1, 2] of [2, 1]");
}

#[test]
fn leaderships_go_back_to_preferred_leaders_after_the_interval_where_these_are_in_sync() {
    let mut node = three(&[1, 2, 3]);
    gone(&mut node, 1);
    back(&mut node, 1, true);
    assert_eq!(line(&node, 0), "leader 2 in 1, isr [2, 3] of [1, 2, 3]");
    let pass = |node: &mut Node, ms: u64| {
        for _ in 0..ms / 1_000 {
            node.now_ms += 1_000;
            for broker in 1..4 {
                let epoch = epoch(node, broker);
                node.call(heartbeat(broker, epoch));
            }
            node.give(Input::Tick);
            node.run(1_000);
        }
    };
    pass(&mut node, 300_000);
    assert_eq!(line(&node, 0), "leader 2 in 1, isr [2, 3] of [1, 2, 3]", "the first replica is not in sync");
    let change = wants(&node, &[1, 2, 3]);
    alter(&mut node, change).unwrap();
    pass(&mut node, 299_000);
    assert_eq!(line(&node, 0), "leader 2 in 1, isr [1, 2, 3] of [1, 2, 3]", "it is not time yet");
    pass(&mut node, 1_000);
    assert_eq!(line(&node, 0), "leader 1 in 2, isr [1, 2, 3] of [1, 2, 3]");
}
