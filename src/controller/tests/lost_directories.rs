//! Log directories fail, are missing after a restart and come back: who leads and is in sync then (KIP-858).

use smallvec::SmallVec;

use super::super::directories::{LOST, UNASSIGNED};
use super::super::request::FeatureUpdate;
use super::cluster::{epoch, gone, line};
use super::*;

/// The id of one of a broker's directories.
fn dir(broker: i32, number: u32) -> uuid::Uuid {
    uuid::Uuid::from_u128(0x1_0000 * (broker as u128 + 1) + u128::from(number))
}

/// A broker registers with these of its directories, after a clean stop or not, and is unfenced.
fn serve(node: &mut Node, broker: i32, directories: &[uuid::Uuid], in_order: bool) {
    let known = node.image.broker(broker).cloned();
    let life = known.as_ref().map_or(7, |known| known.incarnation.as_u128() + 1);
    let mut request = registration(broker, life);
    if let ControllerRequest::RegisterBroker { previous_epoch, directories: told, .. } = &mut request {
        *previous_epoch = known.filter(|_| in_order).map_or(-1, |known| known.epoch);
        *told = directories.to_vec();
    }
    let answer = node.call(request);
    assert!(matches!(answer, ControllerAnswer::Registered { .. }), "{answer:?}");
    let epoch = epoch(node, broker);
    node.call(heartbeat(broker, epoch));
}

/// Brokers 1, 2 and 3 with two directories each, and topic `t` with these partitions.
fn three(partitions: &[&[i32]]) -> Node {
    let mut node = Node::start(Disk::default(), 5);
    node.peers = true;
    (1..4).for_each(|broker| serve(&mut node, broker, &[dir(broker, 0), dir(broker, 1)], true));
    let mut topic = new_topic("t", -1, -1);
    topic.assignments = (0..).zip(partitions.iter().map(|replicas| replicas.to_vec())).collect();
    node.call(create(vec![topic]));
    node
}

fn tell(
    node: &mut Node,
    (broker, epoch): (i32, i64),
    told: &[(i32, uuid::Uuid)],
) -> Result<Vec<Result<(), ErrorCode>>, ErrorCode> {
    let id = node.image.topic("t").unwrap().id;
    let assignments = told.iter().map(|(index, directory)| (id, *index, *directory)).collect();
    match node.call(ControllerRequest::AssignReplicas { node_id: broker, epoch, assignments }) {
        ControllerAnswer::Assigned(result) => {
            result.map(|each| each.into_iter().map(|(_, _, result)| result).collect())
        }
        other => panic!("{other:?}"),
    }
}

/// A broker's replica of a partition is in that directory.
fn place(node: &mut Node, broker: i32, index: i32, directory: uuid::Uuid) {
    let epoch = epoch(node, broker);
    assert_eq!(tell(node, (broker, epoch), &[(index, directory)]), Ok(vec![Ok(())]));
    assert_eq!(partition(node, index).directory_of(broker), directory);
}

fn partition(node: &Node, index: i32) -> &PartitionImage {
    &node.image.topic("t").unwrap().partitions[index as usize]
}

/// A heartbeat that tells these directories as failed.
fn fail(node: &mut Node, broker: i32, offline: &[uuid::Uuid]) -> ControllerAnswer {
    let mut request = heartbeat(broker, epoch(node, broker));
    if let ControllerRequest::Heartbeat { offline_directories, .. } = &mut request {
        *offline_directories = offline.to_vec();
    }
    node.call(request)
}

#[test]
fn what_is_in_a_directory_that_fails_leads_nothing_and_is_in_no_isr() {
    let mut node = three(&[&[1, 2, 3], &[1, 2, 3], &[2, 1, 3]]);
    place(&mut node, 1, 0, dir(1, 0));
    place(&mut node, 1, 1, dir(1, 1));
    place(&mut node, 1, 2, dir(1, 0));
    assert_eq!(line(&node, 0), "leader 1 in 0, isr [1, 2, 3] of [1, 2, 3]");
    fail(&mut node, 1, &[dir(1, 0)]);
    assert_eq!(line(&node, 0), "leader 2 in 1, isr [2, 3] of [1, 2, 3]");
    assert_eq!(line(&node, 1), "leader 1 in 0, isr [1, 2, 3] of [1, 2, 3]", "it is elsewhere");
    assert_eq!(line(&node, 2), "leader 2 in 0, isr [2, 3] of [2, 1, 3]");
    assert_eq!(node.image.broker(1).unwrap().directories, [dir(1, 1)]);
    assert!(node.image.is_active(1));
    let before = node.image.to_records();
    fail(&mut node, 1, &[dir(1, 0), dir(9, 9)]);
    assert_eq!(node.image.to_records(), before, "that is known");
}

#[test]
fn a_replica_that_nobody_had_placed_goes_when_its_broker_places_it_in_a_lost_directory() {
    for directory in [dir(1, 0), LOST] {
        let mut node = three(&[&[1, 2, 3]]);
        assert_eq!(partition(&node, 0).directory_of(1), UNASSIGNED);
        fail(&mut node, 1, &[dir(1, 0)]);
        assert_eq!(line(&node, 0), "leader 1 in 0, isr [1, 2, 3] of [1, 2, 3]", "it may be in the other");
        place(&mut node, 1, 0, directory);
        assert_eq!(line(&node, 0), "leader 2 in 1, isr [2, 3] of [1, 2, 3]");
        // Once it is moved to the other one it may catch up again.
        place(&mut node, 1, 0, dir(1, 1));
        assert_eq!(line(&node, 0), "leader 2 in 1, isr [2, 3] of [1, 2, 3]");
        assert_eq!(wants(&mut node, &[1, 2, 3]), Ok(()));
        assert_eq!(line(&node, 0), "leader 2 in 1, isr [1, 2, 3] of [1, 2, 3]");
    }
}

/// The leader of `t-0` wants that ISR.
fn wants(node: &mut Node, isr: &[i32]) -> Result<(), ErrorCode> {
    let topic = node.image.topic("t").unwrap();
    let (id, one) = (topic.id, &topic.partitions[0]);
    let change = IsrChange {
        leader_epoch: one.leader_epoch,
        partition_epoch: one.partition_epoch,
        isr: isr.iter().map(|broker| (*broker, -1)).collect::<SmallVec<_>>(),
        recovery: LeaderRecovery::Recovered,
    };
    let (node_id, epoch) = (one.leader, epoch(node, one.leader));
    let request = ControllerRequest::AlterPartition { node_id, epoch, changes: vec![(id, 0, change)] };
    let ControllerAnswer::Isr(Ok(mut told)) = node.call(request) else { panic!("refused as a whole") };
    told.pop().unwrap().2.map(|_| ())
}

#[test]
fn nobody_is_in_sync_or_elected_from_a_directory_that_failed() {
    let mut node = three(&[&[1, 2]]);
    place(&mut node, 1, 0, dir(1, 0));
    fail(&mut node, 1, &[dir(1, 0)]);
    assert_eq!(wants(&mut node, &[1, 2]), Err(ErrorCode::IneligibleReplica));
    for kind in [ElectionKind::Preferred, ElectionKind::Unclean] {
        let partitions = Some(vec![("t".to_string(), 0)]);
        let answer = node.call(ControllerRequest::ElectLeaders { partitions, kind });
        let ControllerAnswer::Elected(told) = answer else { panic!("an election") };
        assert!(told[0].2.is_err(), "{told:?}");
    }
    gone(&mut node, 2);
    assert_eq!(line(&node, 0), "leader -1 in 2, isr [2] of [1, 2]");
    let partitions = Some(vec![("t".to_string(), 0)]);
    node.call(ControllerRequest::ElectLeaders { partitions, kind: ElectionKind::Unclean });
    assert_eq!(partition(&node, 0).leader, -1, "broker 1 is active and has nothing of it");
    // It puts the replica elsewhere: whoever asks for it gets a leader again.
    place(&mut node, 1, 0, dir(1, 1));
    let partitions = Some(vec![("t".to_string(), 0)]);
    node.call(ControllerRequest::ElectLeaders { partitions, kind: ElectionKind::Unclean });
    assert_eq!(line(&node, 0), "leader 1 in 3, isr [1] of [1, 2], recovering");
}

#[test]
fn a_directory_that_is_missing_after_a_restart_serves_nobody_until_it_is_back() {
    let mut node = three(&[&[1], &[1]]);
    place(&mut node, 1, 0, dir(1, 0));
    place(&mut node, 1, 1, dir(1, 1));
    fail(&mut node, 1, &[dir(1, 0)]);
    assert_eq!(line(&node, 0), "leader -1 in 1, isr [1] of [1]");
    gone(&mut node, 1);
    serve(&mut node, 1, &[dir(1, 1)], false);
    assert_eq!(line(&node, 0), "leader -1 in 1, isr [1] of [1]");
    assert!(line(&node, 1).starts_with("leader 1 "), "{}", line(&node, 1));
    gone(&mut node, 1);
    serve(&mut node, 1, &[dir(1, 0), dir(1, 1)], false);
    assert_eq!(line(&node, 0), "leader 1 in 2, isr [1] of [1]");
    assert!(line(&node, 1).starts_with("leader 1 "), "{}", line(&node, 1));
}

#[test]
fn the_broker_of_a_lone_controller_comes_back_without_a_directory() {
    let mut node = Node::start(Disk::default(), 5);
    node.peers = true;
    serve(&mut node, 0, &[dir(0, 0), dir(0, 1)], true);
    let mut topic = new_topic("t", -1, -1);
    topic.assignments = vec![(0, vec![0]), (1, vec![0])];
    node.call(create(vec![topic]));
    place(&mut node, 0, 0, dir(0, 0));
    place(&mut node, 0, 1, dir(0, 1));
    let mut again = Node::start(node.disk, 6);
    again.peers = true;
    again.run(1000);
    let mut request = registration(0, 99);
    if let ControllerRequest::RegisterBroker { directories, .. } = &mut request {
        *directories = vec![dir(0, 1)];
    }
    again.call(request);
    assert_eq!(line(&again, 0), "leader -1 in 1, isr [0] of [0]");
    assert_eq!(line(&again, 1), "leader 0 in 0, isr [0] of [0]");
}

#[test]
fn a_broker_without_any_directory_is_fenced_and_keeps_what_it_registered() {
    let mut node = three(&[&[1, 2, 3]]);
    place(&mut node, 1, 0, dir(1, 0));
    for _ in 0..2 {
        let answer = fail(&mut node, 1, &[dir(1, 0), dir(1, 1)]);
        assert!(matches!(answer, ControllerAnswer::Heartbeat(Ok(told)) if told.is_fenced), "{answer:?}");
        assert_eq!(line(&node, 0), "leader 2 in 1, isr [2, 3] of [1, 2, 3]");
    }
    assert_eq!(node.image.broker(1).unwrap().directories.len(), 2);
}

#[test]
fn replicas_of_a_broker_with_one_directory_are_in_it() {
    let mut node = three(&[&[1]]);
    serve(&mut node, 4, &[dir(4, 0)], true);
    let mut topic = new_topic("u", -1, -1);
    topic.assignments = vec![(0, vec![4, 1])];
    node.call(create(vec![topic]));
    assert_eq!(*node.image.topic("u").unwrap().partitions[0].directories, [dir(4, 0), UNASSIGNED]);
    let request = ControllerRequest::AlterReassignments {
        changes: vec![("t".into(), 0, Some(vec![4]))],
        allow_replication_factor_change: true,
    };
    node.call(request);
    assert_eq!(partition(&node, 0).directory_of(4), dir(4, 0));
    assert_eq!(partition(&node, 0).directories.len(), 2);
    // What is known survives the controller.
    let before = node.image.to_records();
    let mut again = Node::start(node.disk, 6);
    again.peers = true;
    again.run(1000);
    assert_eq!(again.image.to_records(), before);
}

#[test]
fn a_move_between_directories_changes_nobodys_leader() {
    let mut node = three(&[&[1, 2, 3]]);
    for directory in [dir(1, 0), dir(1, 1), dir(1, 1)] {
        place(&mut node, 1, 0, directory);
        assert_eq!(line(&node, 0), "leader 1 in 0, isr [1, 2, 3] of [1, 2, 3]");
    }
    assert_eq!(partition(&node, 0).partition_epoch, 2, "told again it is no change");
    assert_eq!(partition(&node, 0).directory_of(2), UNASSIGNED);
}

#[test]
fn a_replica_on_a_disk_that_was_replaced_does_not_lead_as_the_last_that_is_known() {
    for eligible in [false, true] {
        let mut node = three(&[&[1, 2]]);
        if eligible {
            let name = features::ELIGIBLE_LEADER_REPLICAS_VERSION.to_string();
            let updates = vec![FeatureUpdate { name, level: 1, upgrade_type: 3 }];
            node.call(ControllerRequest::UpdateFeatures { updates, validate_only: false });
        }
        place(&mut node, 1, 0, dir(1, 0));
        gone(&mut node, 2);
        gone(&mut node, 1);
        serve(&mut node, 1, &[dir(1, 5)], false);
        assert_eq!(partition(&node, 0).leader, -1, "what it had is not there");
        place(&mut node, 1, 0, LOST);
        place(&mut node, 1, 0, dir(1, 5));
        serve(&mut node, 2, &[dir(2, 0), dir(2, 1)], false);
        let left = partition(&node, 0);
        assert_eq!(
            (left.leader, left.isr.as_slice(), left.elr.as_slice()),
            (-1, [].as_slice(), [].as_slice())
        );
        assert!(left.last_known_elr.is_empty());
        // Only who knows what that means says so.
        let partitions = Some(vec![("t".to_string(), 0)]);
        node.call(ControllerRequest::ElectLeaders { partitions, kind: ElectionKind::Unclean });
        assert_ne!(partition(&node, 0).leader, -1);
    }
}

#[test]
fn a_replica_on_a_disk_that_was_replaced_follows_where_others_have_what_was_committed() {
    let mut node = three(&[&[1, 2]]);
    place(&mut node, 1, 0, dir(1, 0));
    gone(&mut node, 1);
    serve(&mut node, 1, &[dir(1, 5)], false);
    place(&mut node, 1, 0, LOST);
    assert_eq!(line(&node, 0), "leader 2 in 1, isr [2] of [1, 2]");
    place(&mut node, 1, 0, dir(1, 5));
    assert_eq!(wants(&mut node, &[1, 2]), Ok(()));
}

#[test]
fn what_cannot_be_assigned_is_refused_for_itself() {
    let mut node = three(&[&[1, 2], &[2, 3]]);
    let own = epoch(&node, 1);
    let told = tell(&mut node, (1, own), &[(0, dir(1, 0)), (1, dir(1, 0)), (7, dir(1, 0)), (-1, dir(1, 0))]);
    let unknown = Err(ErrorCode::UnknownTopicOrPartition);
    assert_eq!(told, Ok(vec![Ok(()), Err(ErrorCode::NotLeaderOrFollower), unknown, unknown]));
    assert_eq!(tell(&mut node, (1, own + 1), &[(0, dir(1, 1))]), Err(ErrorCode::StaleBrokerEpoch));
    assert_eq!(tell(&mut node, (9, own), &[(0, dir(1, 1))]), Err(ErrorCode::StaleBrokerEpoch));
    let assignments = vec![(uuid::Uuid::from_u128(5), 0, dir(1, 0))];
    let answer = node.call(ControllerRequest::AssignReplicas { node_id: 1, epoch: own, assignments });
    let ControllerAnswer::Assigned(Ok(told)) = answer else { panic!("{answer:?}") };
    assert_eq!(told[0].2, Err(ErrorCode::UnknownTopicId));
    assert_eq!(partition(&node, 0).directory_of(1), dir(1, 0));
}

#[test]
fn a_directory_of_another_broker_is_refused() {
    let mut node = three(&[&[1]]);
    let mut request = registration(4, 7);
    if let ControllerRequest::RegisterBroker { directories, .. } = &mut request {
        *directories = vec![dir(4, 0), dir(1, 1)];
    }
    assert_eq!(node.call(request), ControllerAnswer::Refused(ErrorCode::InvalidRegistration));
}
