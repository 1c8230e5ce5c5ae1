//! Three real nodes: what is acknowledged is on all of them, and stays while one of them dies, stops and comes back.

use std::collections::BTreeMap;
use std::time::Instant;

use kafka_protocol::messages::BrokerId;
use nix::sys::signal::Signal;

use crate::nodes::{CLUSTER, Nodes, QUICK, bootstrap, format, free_port, open};
use crate::process::{Home, until};
use crate::wire::{FETCH_VERSION, PRODUCE_VERSION, batch, describe, fetch_request, produce_request};

const NOT_LEADER_OR_FOLLOWER: i16 = 6;

/// Appends values with a number, and remembers which offset was acknowledged for each.
fn append_some(nodes: &Nodes, topic: &str, partitions: i32, acknowledged: &mut Acknowledged, round: &str) {
    for number in 0..5 {
        for partition in 0..partitions {
            let value = format!("{round}-{number}").into_bytes();
            let offset = nodes.append(topic, partition, &value);
            assert_eq!(acknowledged.insert((partition, offset), value), None, "one offset, one record");
        }
    }
}

/// The value at each partition and offset.
type Acknowledged = BTreeMap<(i32, i64), Vec<u8>>;

fn assert_nothing_lost(nodes: &Nodes, topic: &str, partitions: i32, acknowledged: &Acknowledged) {
    for partition in 0..partitions {
        let read: BTreeMap<i64, Vec<u8>> = nodes.read_all(topic, partition).into_iter().collect();
        for ((_, offset), value) in acknowledged.iter().filter(|((of, _), _)| *of == partition) {
            assert_eq!(read.get(offset), Some(value), "{topic}-{partition} at {offset}");
        }
    }
}

#[test]
fn what_is_acknowledged_is_on_every_node_byte_for_byte_and_all_say_the_same_of_it() {
    let nodes = Nodes::start(&[]);
    nodes.create("all", 6, &[]);
    let said = nodes.await_in_sync("all");
    let mut led = BTreeMap::<i32, usize>::new();
    said.iter().for_each(|partition| *led.entry(partition.leader_id.0).or_default() += 1);
    assert_eq!(led.into_iter().collect::<Vec<_>>(), [(1, 2), (2, 2), (3, 2)], "every node leads its share");
    for id in 1..=3 {
        let told = describe(&mut nodes.connect(id), &[]);
        assert_eq!(told.cluster_id.as_deref(), Some(CLUSTER));
    }
    let mut acknowledged = Acknowledged::new();
    append_some(&nodes, "all", 6, &mut acknowledged, "first");
    assert_nothing_lost(&nodes, "all", 6, &acknowledged);
    (0..6).for_each(|partition| nodes.await_same_logs("all", partition));
    let leader = said[0].leader_id.0;
    for id in (1..=3).filter(|id| *id != leader) {
        let request = produce_request("all", -1, vec![(0, batch(&[b"x"]))]);
        let answer = nodes.connect(id).call(&request, PRODUCE_VERSION).unwrap();
        assert_eq!(answer.responses[0].partition_responses[0].error_code, NOT_LEADER_OR_FOLLOWER);
    }
}

#[test]
fn whoever_is_killed_the_others_go_on_with_everything_and_it_comes_back_in_sync() {
    let mut nodes = Nodes::start(&QUICK);
    nodes.create("kept", 3, &[("min.insync.replicas", "2")]);
    nodes.await_in_sync("kept");
    let mut acknowledged = Acknowledged::new();
    for id in 1..=3 {
        append_some(&nodes, "kept", 3, &mut acknowledged, &format!("before-{id}"));
        nodes.kill(id);
        append_some(&nodes, "kept", 3, &mut acknowledged, &format!("without-{id}"));
        assert_nothing_lost(&nodes, "kept", 3, &acknowledged);
        nodes.agree("kept", |partition| !partition.isr_nodes.iter().any(|one| one.0 == id));
        nodes.start_missing();
        nodes.await_in_sync("kept");
    }
    append_some(&nodes, "kept", 3, &mut acknowledged, "after");
    assert_nothing_lost(&nodes, "kept", 3, &acknowledged);
    (0..3).for_each(|partition| nodes.await_same_logs("kept", partition));
}

#[test]
fn a_node_that_stops_hands_its_leaderships_over_first() {
    // Nobody is taken for dead in time.
    let mut nodes = Nodes::start(&["broker.session.timeout.ms=300000"]);
    nodes.create("moved", 6, &[("min.insync.replicas", "2")]);
    nodes.await_in_sync("moved");
    let mut acknowledged = Acknowledged::new();
    for id in 1..=3 {
        append_some(&nodes, "moved", 6, &mut acknowledged, &format!("before-{id}"));
        assert_eq!(nodes.stop(id), Some(0));
        let other = *nodes.running.keys().next().unwrap();
        for partition in nodes.described(other, "moved") {
            assert_ne!(partition.leader_id.0, id, "{partition:?}");
            assert!(!partition.isr_nodes.iter().any(|one| one.0 == id), "{partition:?}");
        }
        append_some(&nodes, "moved", 6, &mut acknowledged, &format!("without-{id}"));
        nodes.start_missing();
        nodes.await_in_sync("moved");
    }
    assert_nothing_lost(&nodes, "moved", 6, &acknowledged);
}

#[test]
fn all_nodes_that_die_at_once_come_back_with_everything() {
    let mut nodes = Nodes::start(&QUICK);
    nodes.create("deep", 3, &[]);
    let mut acknowledged = Acknowledged::new();
    for round in 0..2 {
        append_some(&nodes, "deep", 3, &mut acknowledged, &format!("{round}"));
        (1..=3).for_each(|id| nodes.kill(id));
        nodes.start_missing();
        nodes.await_in_sync("deep");
        assert_nothing_lost(&nodes, "deep", 3, &acknowledged);
    }
}

#[test]
fn a_node_that_stands_still_is_replaced_and_catches_up() {
    let mut nodes = Nodes::start(&QUICK);
    nodes.create("still", 3, &[("min.insync.replicas", "2")]);
    nodes.await_in_sync("still");
    let mut acknowledged = Acknowledged::new();
    append_some(&nodes, "still", 3, &mut acknowledged, "before");
    let frozen = nodes.running.remove(&2).unwrap();
    frozen.signal(Signal::SIGSTOP);
    nodes.agree("still", |partition| partition.leader_id.0 != 2 && partition.isr_nodes.len() == 2);
    append_some(&nodes, "still", 3, &mut acknowledged, "without");
    frozen.signal(Signal::SIGCONT);
    nodes.running.insert(2, frozen);
    nodes.await_brokers();
    nodes.await_in_sync("still");
    append_some(&nodes, "still", 3, &mut acknowledged, "after");
    assert_nothing_lost(&nodes, "still", 3, &acknowledged);
}

/// A node of one role that belongs to a cluster, not formatted.
fn broker_of(nodes: &Nodes, id: i32, more: &[&str]) -> Home {
    let mut home = Home::new(&[]);
    home.overrides.extend([
        format!("node.id={id}"),
        "process.roles=broker".to_owned(),
        format!("listeners=PLAINTEXT://127.0.0.1:{}", free_port()),
        "controller.listener.names=CONTROLLER".to_owned(),
        bootstrap(&nodes.controllers),
    ]);
    home.overrides.extend(more.iter().map(|one| (*one).to_owned()));
    home
}

#[test]
fn a_fourth_broker_joins_and_is_forgotten() {
    let nodes = Nodes::start(&QUICK);
    let home = broker_of(&nodes, 4, &[]);
    assert_eq!(format(&home, &["-t", CLUSTER]).status.code(), Some(0));
    let fourth = home.start();
    let known = |wanted: &[i32]| {
        until("the brokers are known", || {
            let told = describe(&mut nodes.connect(1), &[]);
            let mut ids: Vec<i32> = told.brokers.iter().map(|broker| broker.node_id.0).collect();
            ids.sort_unstable();
            if ids == wanted { Ok(()) } else { Err(ids) }
        });
    };
    known(&[1, 2, 3, 4]);
    nodes.create("wide", 4, &[]);
    // It hears of it a moment after the controller has answered.
    until("the fourth broker tells the topic", || {
        let said = describe(&mut open(&fourth).unwrap(), &["wide"]).topics[0].clone();
        let told = (said.error_code, said.partitions.len());
        if told == (0, 4) { Ok(()) } else { Err(told) }
    });
    assert_eq!(fourth.stop(), Some(0));
    known(&[1, 2, 3]);
}

#[test]
fn who_does_not_belong_is_told_why_and_does_not_start() {
    let nodes = Nodes::start(&QUICK);
    let quick = "initial.broker.registration.timeout.ms=3000";

    let home = broker_of(&nodes, 5, &[quick]);
    assert_eq!(format(&home, &["-t", "AAAAAAAAAAAAAAAAAAAAAQ"]).status.code(), Some(0));
    let (code, why) = home.refused(&[]);
    assert_eq!(code, Some(1), "{why}");
    assert!(why.to_lowercase().contains("cluster"), "{why}");

    let home = broker_of(&nodes, 2, &[quick]);
    assert_eq!(format(&home, &["-t", CLUSTER]).status.code(), Some(0));
    let (code, why) = home.refused(&[]);
    assert_eq!(code, Some(1), "{why}");
    assert!(why.contains("Duplicate") || why.contains("already registered"), "{why}");

    let mut home = broker_of(&nodes, 6, &[quick]);
    assert_eq!(format(&home, &["-t", CLUSTER]).status.code(), Some(0));
    home.overrides.push("node.id=7".to_owned());
    let (code, why) = home.refused(&[]);
    assert_eq!(code, Some(1), "{why}");
    assert!(why.contains("belongs to node 6"), "{why}");

    nodes.await_brokers();
}

/// A round that is held back would keep the next one waiting, and with it whoever waits for the high watermark.
#[test]
fn a_replica_that_has_more_to_ask_ends_the_wait_of_what_it_asked_before() {
    let nodes = Nodes::start(&[]);
    nodes.create("t", 1, &[]);
    let leader = nodes.await_in_sync("t")[0].leader_id.0;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    // What a consumer asks waits as long as it said, whatever it asks behind that.
    for (replica, waits_ms, answered_ms) in [(-1, 150, 150..50_000), (follower, 50_000, 0..25_000)] {
        let round = fetch_request("t", &[(0, 0)]).with_replica_id(BrokerId(replica));
        let nothing = round.clone().with_topics(Vec::new());
        let mut connection = nodes.connect(leader);
        let started = Instant::now();
        let held = connection.send(&round.with_max_wait_ms(waits_ms), FETCH_VERSION).unwrap();
        let behind = connection.send(&nothing, FETCH_VERSION).unwrap();
        let answer = connection.receive(held).unwrap();
        assert_eq!(answer.responses[0].partitions[0].error_code, 0);
        // The broker counts in whole milliseconds, so it may be early by less than one.
        let waited_ms = started.elapsed().as_millis() as i32 + 1;
        assert!(answered_ms.contains(&waited_ms), "{waited_ms} of {waits_ms} ms");
        assert_eq!(connection.receive(behind).unwrap().responses.len(), 0);
    }
}
