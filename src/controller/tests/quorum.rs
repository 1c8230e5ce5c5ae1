//! The quorum of several: seeded lives under faults, and single stories.

use std::collections::BTreeMap;

use super::super::quorum::codec::CHUNK_BYTES_MAX;
use super::super::quorum::founder_raft_id;
use super::super::request::{ConfigChanges, ConfigOp};
use super::net::{Net, Weather};
use super::*;

const CALM: Weather = Weather {
    drop: 0,
    double: 0,
    delay_ms: 2,
    disk_ms: 1,
    breaks: false,
    loses: false,
    changes: false,
    named: false,
    rash: false,
    lies: false,
};
const ROUGH: Weather = Weather {
    drop: 8,
    double: 5,
    delay_ms: 30,
    disk_ms: 12,
    breaks: true,
    loses: false,
    changes: false,
    named: false,
    rash: false,
    lies: false,
};
/// Voters of a configuration whose disks are lost and come back under the raft id of the node.
const NAMED: Weather = Weather { loses: true, named: true, ..ROUGH };

/// How many seeds of each kind; more with `QUORUM_SEEDS`.
fn seeds() -> u64 {
    std::env::var("QUORUM_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(12)
}

fn live(seed: u64, machines: usize, voters: usize, weather: Weather) -> BTreeMap<&'static str, u32> {
    let mut net = Net::new(seed, machines, voters, weather);
    net.run(12_000);
    net.end_well();
    net.counts
}

#[test]
fn what_is_committed_stays_under_faults_of_network_disks_and_machines() {
    let mut counts: BTreeMap<&'static str, u32> = BTreeMap::new();
    for seed in 0..seeds() {
        let kinds = [
            (3, 3, ROUGH),
            (5, 3, ROUGH),
            (4, 3, Weather { loses: true, ..ROUGH }),
            (5, 3, Weather { changes: true, ..ROUGH }),
            (4, 3, NAMED),
        ];
        for (kind, (machines, voters, weather)) in kinds.into_iter().enumerate() {
            for (what, times) in live(seed * 10 + kind as u64, machines, voters, weather) {
                *counts.entry(what).or_default() += times;
            }
        }
    }
    println!("{counts:?}");
    let faults = ["crash", "cut", "lost disk", "lost message", "change of members"];
    let sights =
        ["vote", "append", "refused append", "chunk", "step while a snapshot is installed", "block of ids"];
    assert!(counts.contains_key("renewed disk"), "no disk took another id: {counts:?}");
    for what in faults.into_iter().chain(sights) {
        assert!(counts.get(what).is_some_and(|times| *times > 0), "no {what} at all: {counts:?}");
    }
}

#[test]
fn disks_that_lie_are_found_out() {
    let weather = Weather { lies: true, ..ROUGH };
    let is_found = |seed| std::panic::catch_unwind(|| live(seed, 3, 3, weather)).is_err();
    let found = (0..10).filter(|seed| is_found(*seed)).count();
    assert!(found > 0, "ten lives with lost writes, and nobody noticed");
}

#[test]
fn lost_disks_that_come_back_under_their_old_id_and_ask_nobody_are_found_out() {
    let weather = Weather { rash: true, ..NAMED };
    let is_found = |seed| std::panic::catch_unwind(|| live(seed, 3, 3, weather)).is_err();
    let found = (0..20).filter(|seed| is_found(*seed)).count();
    assert!(found > 0, "twenty lives with forgotten votes and entries, and nobody noticed");
}

#[test]
fn named_voters_found_a_quorum_together_and_a_late_one_finds_its_place() {
    let calm = Weather { named: true, ..CALM };
    let mut net = Net::new(1, 3, 3, calm);
    net.run(1500);
    let leader = net.leader().expect("all are there");
    assert_eq!(net.counts.get("renewed disk"), None, "all of them founded it");
    let (lost, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let raft_id = net.machines[lost].raft_id;
    net.lose_disk(lost);
    net.run(1000);
    net.start(lost);
    net.run(200);
    let new_id = net.machines[lost].raft_id;
    assert_ne!(new_id, raft_id, "it learned that there is a history");
    net.run(20_000);
    let members = net.machines[other].controller.as_ref().unwrap().members().clone();
    assert!(members.get(raft_id).is_none() && members.is_voter(new_id), "{members:?}");
    assert_eq!(net.notices.len(), 2, "{:?}", net.notices);
    // The id is on the disk.
    net.crash(lost);
    net.start(lost);
    assert_eq!(net.machines[lost].controller.as_ref().unwrap().raft_id(), new_id);
    net.end_well();
}

#[test]
fn a_majority_of_named_voters_founds_a_quorum_when_the_others_stay_away() {
    let mut net = Net::new(2, 3, 3, Weather { named: true, ..CALM });
    net.lose_disk(2);
    net.run(4_000);
    assert_eq!(net.leader(), None, "the third may come yet");
    net.run(4_000);
    assert!(net.leader().is_some());
    net.end_well();
    assert!(net.counts.contains_key("renewed disk"), "who comes late could as well have lost its disk");
}

#[test]
fn learners_that_are_silent_and_no_brokers_go_and_come_back_when_they_are_heard() {
    let mut net = Net::new(5, 4, 1, CALM);
    net.run(3000);
    net.ask(0, registration(1, 7));
    net.crash(1);
    net.crash(2);
    net.run(290_000);
    assert!(net.notices.is_empty());
    net.run(12_000);
    assert_eq!(net.notices.len(), 1, "neither broker 1 nor the observer 3: {:?}", net.notices);
    assert!(net.notices[0].starts_with("node 2 "), "{:?}", net.notices);
    net.end_well();
}

#[test]
fn the_same_seed_lives_the_same_life() {
    let life = |seed| {
        let mut net = Net::new(seed, 4, 3, Weather { loses: true, ..ROUGH });
        net.run(5000);
        (format!("{:?}", net.answers), net.counts)
    };
    assert_eq!(life(7), life(7));
    assert_ne!(life(7), life(8));
}

#[test]
fn three_voters_elect_one_and_the_next_takes_over_at_once_when_its_process_is_gone() {
    // Wherever the leader is between two heartbeats: one may be on its way when it is gone.
    for phase_ms in (0..100).step_by(5) {
        let mut net = Net::new(1, 3, 3, CALM);
        net.run(2000 + phase_ms);
        let leader = net.leader().unwrap();
        let raft_id = net.machines[leader].raft_id;
        net.crash(leader);
        let since = net.now_ms;
        for other in (0..3).filter(|other| *other != leader) {
            net.give(other, Input::MemberGone { raft_id });
        }
        while net.leader().is_none() {
            net.run(1);
        }
        assert!(net.now_ms - since < 60, "it took {} ms after {phase_ms} ms", net.now_ms - since);
        net.start(leader);
        net.end_well();
    }
}

#[test]
fn the_broker_of_a_leaders_process_that_is_gone_is_fenced_by_the_next_leader() {
    let mut net = Net::new(1, 3, 3, CALM);
    net.run(2000);
    let leader = net.leader().unwrap();
    let (raft_id, node_id) = (net.machines[leader].raft_id, net.machines[leader].node_id);
    net.ask(leader, registration(node_id, 7));
    net.run(1000);
    let epoch = net.machines[leader].image.broker(node_id).unwrap().epoch;
    net.ask(leader, heartbeat(node_id, epoch));
    net.run(1000);
    assert!((0..3).all(|at| net.machines[at].image.is_active(node_id)));
    net.crash(leader);
    for other in (0..3).filter(|other| *other != leader) {
        net.give(other, Input::MemberGone { raft_id });
    }
    // Far less than a session.
    net.run(2000);
    let next = net.leader().unwrap();
    assert!(next != leader && !net.machines[next].image.is_active(node_id));
    net.start(leader);
    net.end_well();
}

/// Three voters that are brokers too, and the one that leads. All of them are active.
fn three_brokers() -> (Net, usize) {
    let mut net = Net::new(1, 3, 3, CALM);
    net.run(2000);
    let leader = net.leader().unwrap();
    for node_id in 0..3 {
        net.ask(leader, registration(node_id, 7));
    }
    net.run(1000);
    beat(&mut net, &[0, 1, 2]);
    net.run(500);
    beat(&mut net, &[0, 1, 2]);
    assert!((0..3).all(|node_id| net.machines[leader].image.is_active(node_id)));
    (net, leader)
}

/// Heartbeats of these brokers reach whoever leads.
fn beat(net: &mut Net, brokers: &[i32]) {
    let Some(leader) = net.leader() else { return };
    for broker in brokers {
        let epoch = net.machines[leader].image.broker(*broker).unwrap().epoch;
        net.ask(leader, heartbeat(*broker, epoch));
    }
}

/// How long it takes until another node knows that this one's broker is fenced; the others are heard twice a second.
fn until_fenced(net: &mut Net, silent: usize) -> u64 {
    let others: Vec<usize> = (0..3).filter(|at| *at != silent).collect();
    let speaking: Vec<i32> = others.iter().map(|at| *at as i32).collect();
    let since = net.now_ms;
    while net.machines[others[0]].image.is_active(silent as i32) {
        if (net.now_ms - since).is_multiple_of(500) {
            beat(net, &speaking);
        }
        net.run(10);
        assert!(net.now_ms - since < 60_000);
    }
    assert!(speaking.iter().all(|node_id| net.machines[others[0]].image.is_active(*node_id)));
    net.now_ms - since
}

#[test]
fn the_broker_of_a_leader_that_is_cut_off_is_fenced_one_session_after_it_was_heard_last() {
    let (mut net, leader) = three_brokers();
    net.cut_off(leader);
    let took_ms = until_fenced(&mut net, leader);
    assert!((8_900..9_100).contains(&took_ms), "the election comes within the session: {took_ms} ms");
    net.end_well();
}

#[test]
fn a_leader_that_nobody_could_hear_has_time_for_a_heartbeat() {
    let (mut net, leader) = three_brokers();
    (0..3).for_each(|at| net.cut_off(at));
    net.run(60_000);
    net.heal();
    net.cut_off(leader);
    while net.leader().is_none_or(|next| next == leader) {
        net.run(1);
    }
    let took_ms = until_fenced(&mut net, leader);
    assert!((1_900..2_200).contains(&took_ms), "the heartbeats' interval is 2 s: {took_ms} ms");
    net.end_well();
}

#[test]
fn no_image_of_a_start_is_older_than_what_the_node_knew_before() {
    let mut net = Net::new(1, 3, 3, CALM);
    net.run(2000);
    let leader = net.leader().unwrap();
    net.ask(leader, registration(77, 7));
    while !net.machines.iter().all(|machine| machine.image.broker(77).is_some()) {
        net.run(1);
    }
    // Nobody has written down that the last entry is committed.
    (0..3).for_each(|machine| net.crash(machine));
    net.start(0);
    net.run(50);
    let early = &net.machines[0].image;
    assert!(early.version() == 0 || early.broker(77).is_some(), "published at {}", early.version());
    (1..3).for_each(|machine| net.start(machine));
    net.run(2000);
    assert!(net.machines.iter().all(|machine| machine.image.broker(77).is_some()));
    net.end_well();
}

/// Learns what a leader's log no longer has: in chunks, none larger than allowed.
#[test]
fn a_node_that_joins_late_gets_a_snapshot_in_chunks() {
    let mut net = Net::new(3, 1, 1, CALM);
    net.run(500);
    for round in 0..120 {
        let value = format!("m{}", "-".repeat(6000));
        let resource = ConfigChanges {
            resource_type: ResourceType::ClientMetrics,
            name: format!("subscription-{round}"),
            changes: vec![("metrics".to_string(), ConfigOp::Set(value))],
            replace: false,
        };
        net.ask(0, ControllerRequest::AlterConfigs { resources: vec![resource], validate_only: false });
        net.run(20);
    }
    let configured = net.machines[0].image.configured(ResourceType::ClientMetrics).count();
    assert_eq!(configured, 120, "{:?}", net.answers.last());
    net.add_machine();
    net.weather.drop = 10;
    net.run(3000);
    net.end_well();
    assert!(net.bytes_most > CHUNK_BYTES_MAX && net.bytes_most < CHUNK_BYTES_MAX + 200, "{}", net.bytes_most);
}

#[test]
fn a_single_voter_ticks_only_while_it_has_company() {
    let mut net = Net::new(5, 2, 1, CALM);
    net.run(3000);
    assert_eq!(net.machines[1].controller.as_ref().unwrap().members().iter().len(), 2);
    assert!(net.machines[0].controller.as_ref().unwrap().needs_ticks());
    net.crash(1);
    net.ask(0, ControllerRequest::LeaveQuorum { node_id: 1 });
    net.run(100);
    assert!(!net.machines[0].controller.as_ref().unwrap().needs_ticks());
}

#[test]
fn the_quorum_is_told_with_its_members() {
    let mut net = Net::new(9, 4, 3, CALM);
    net.run(4000);
    let leader = net.leader().unwrap();
    let token = net.ask(leader, ControllerRequest::DescribeQuorum);
    net.run(500);
    let (_, answer) = net.answers.iter().find(|(of, _)| *of == token).unwrap();
    let ControllerAnswer::Quorum(state) = answer else { panic!("{answer:?}") };
    assert_eq!(state.leader_id, leader as i32);
    assert_eq!(state.voters.iter().map(|voter| voter.node_id).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(state.observers.iter().map(|learner| learner.node_id).collect::<Vec<_>>(), [3]);
    for replica in state.voters.iter().chain(&state.observers) {
        assert!(replica.last_fetch_ms > 4000 && replica.last_caught_up_ms > 4000, "{replica:?}");
        assert!(replica.log_end_offset > 0 && *replica.endpoint.host == format!("host-{}", replica.node_id));
    }
}

#[test]
fn a_voter_that_follows_refuses_requests_and_a_leader_that_is_to_go_gives_its_place_away() {
    let mut net = Net::new(11, 3, 3, CALM);
    net.run(2000);
    let leader = net.leader().unwrap();
    let follower = (leader + 1) % 3;
    let token = net.ask(follower, ControllerRequest::AllocateProducerIds);
    let refused = ControllerAnswer::Refused(ErrorCode::NotController);
    assert!(net.answers.contains(&(token, refused.clone())));
    let (node_id, raft_id) = (net.machines[leader].node_id, net.machines[leader].raft_id);
    let token = net.ask(leader, ControllerRequest::RemoveVoter { node_id, raft_id });
    assert!(net.answers.contains(&(token, refused)));
    net.run(200);
    let next = net.leader().unwrap();
    assert_ne!(next, leader);
    net.voters_wanted = 2;
    net.ask(next, ControllerRequest::RemoveVoter { node_id, raft_id });
    net.run(100);
    let members = net.machines[leader].controller.as_ref().unwrap().members().clone();
    assert!(!members.is_voter(raft_id) && members.get(raft_id).is_some());
    net.end_well();
}

#[test]
fn who_has_no_history_or_is_somebody_else_says_nothing_of_replaced_disks() {
    let mut net = Net::new(5, 3, 3, Weather { named: true, ..CALM });
    let says = |net: &Net, of: i32| {
        let controller = net.machines.first().and_then(|machine| machine.controller.as_ref()).unwrap();
        controller.replaces(founder_raft_id(&config(0).cluster_id, of))
    };
    assert!(!says(&net, 0), "nothing is committed yet");
    net.run(12_000);
    assert!(says(&net, 0));
    assert!(!says(&net, 1), "an address or a node id is wrong");
}
