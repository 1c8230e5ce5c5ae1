//! A node that begins as a cluster of its own grows into one of three voters while it serves, and shrinks back; a voter
//! that the configuration names comes back with a new disk.

use std::collections::BTreeMap;

use kafka_protocol::messages::add_raft_voter_request::Listener;
use kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use kafka_protocol::messages::{AddRaftVoterRequest, DescribeQuorumRequest, RemoveRaftVoterRequest};
use kafka_protocol::protocol::StrBytes;
use tidemill::log::parse_uuid;
use uuid::Uuid;

use crate::nodes::{CLUSTER, Nodes, QUICK, bootstrap, format, free_port};
use crate::process::{Home, until};
use crate::wire::{create, name, read_all};

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A node of both roles, formatted; `quorum` says where the controllers are.
fn node(id: i32, controllers: &[u16], quorum: String, kind: &[&str]) -> Home {
    let mut home = Home::new(&QUICK);
    let controller = controllers[id as usize - 1];
    home.overrides.extend([
        format!("node.id={id}"),
        format!("listeners=PLAINTEXT://127.0.0.1:{},CONTROLLER://127.0.0.1:{controller}", free_port()),
        "controller.listener.names=CONTROLLER".to_owned(),
        quorum,
    ]);
    formatted(&home, kind);
    home
}

fn formatted(home: &Home, kind: &[&str]) {
    let done = format(home, &[&["-t", CLUSTER], kind].concat());
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
}

/// The id of the directory that holds a node's metadata.
fn directory(home: &Home) -> Uuid {
    let text = std::fs::read_to_string(home.data().join("meta.properties")).unwrap();
    parse_uuid(text.lines().find_map(|line| line.strip_prefix("directory.id=")).unwrap()).unwrap()
}

/// Who votes, as the active controller says by way of a node.
fn voters(nodes: &Nodes, id: i32) -> Result<Vec<i32>, String> {
    let topic = TopicData::default()
        .with_topic_name(name("__cluster_metadata"))
        .with_partitions(vec![PartitionData::default()]);
    let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
    let told = nodes.connect(id).call(&request, i16::MAX).map_err(|error| error.to_string())?;
    let told = told.topics.first().and_then(|topic| topic.partitions.first()).ok_or("no quorum is told")?;
    let mut voters: Vec<i32> = told.current_voters.iter().map(|voter| voter.replica_id.0).collect();
    voters.sort_unstable();
    Ok(voters)
}

fn await_voters(nodes: &Nodes, id: i32, wanted: &[i32]) {
    until("these vote", || match voters(nodes, id)? {
        voters if voters == wanted => Ok(()),
        voters => Err(format!("{voters:?}")),
    });
}

/// Asks as `kafka-metadata-quorum.sh add-controller` does, until the node has caught up.
fn add(nodes: &Nodes, asked: i32, id: i32) {
    let listener = Listener::default()
        .with_name(text("CONTROLLER"))
        .with_host(text("127.0.0.1"))
        .with_port(nodes.controllers[id as usize - 1]);
    let request = AddRaftVoterRequest::default()
        .with_cluster_id(Some(text(CLUSTER)))
        .with_timeout_ms(5_000)
        .with_voter_id(id)
        .with_voter_directory_id(directory(&nodes.homes[id as usize - 1]))
        .with_listeners(vec![listener]);
    until("the node votes", || {
        let told = nodes.connect(asked).call(&request, i16::MAX).map_err(|error| error.to_string())?;
        // 126: it did, and the answer before was lost.
        if matches!(told.error_code, 0 | 126) { Ok(()) } else { Err(format!("{told:?}")) }
    });
}

/// Asks as `kafka-metadata-quorum.sh remove-controller` does; a leader gives its place away first.
fn remove(nodes: &Nodes, asked: i32, id: i32) {
    let request = RemoveRaftVoterRequest::default()
        .with_cluster_id(Some(text(CLUSTER)))
        .with_voter_id(id)
        .with_voter_directory_id(directory(&nodes.homes[id as usize - 1]));
    until("the node votes no more", || {
        let told = nodes.connect(asked).call(&request, i16::MAX).map_err(|error| error.to_string())?;
        // 127: it did not any more, and the answer before was lost.
        if matches!(told.error_code, 0 | 127) { Ok(()) } else { Err(format!("{told:?}")) }
    });
}

#[test]
fn a_lone_node_grows_into_three_voters_while_it_serves_and_shrinks_back() {
    let controllers: Vec<u16> = (0..3).map(|_| free_port()).collect();
    let kinds = ["--standalone", "--no-initial-controllers", "--no-initial-controllers"];
    let of = |(id, kind)| node(id, &controllers, bootstrap(&controllers), &[kind]);
    let homes = (1..).zip(kinds).map(of).collect();
    let mut nodes = Nodes { homes, running: BTreeMap::new(), controllers };
    nodes.running.insert(1, nodes.homes[0].start());
    create(&mut nodes.connect(1), "one", 1, &[]);
    nodes.append("one", 0, b"alone");
    await_voters(&nodes, 1, &[1]);

    nodes.start_missing();
    add(&nodes, 1, 2);
    await_voters(&nodes, 1, &[1, 2]);
    add(&nodes, 1, 3);
    await_voters(&nodes, 1, &[1, 2, 3]);
    nodes.create("three", 1, &[("min.insync.replicas", "2")]);
    nodes.append("three", 0, b"of three");
    nodes.append("one", 0, b"in company");
    // The node that the cluster began with is not needed any more.
    nodes.kill(1);
    nodes.append("three", 0, b"without the first");
    await_voters(&nodes, 2, &[1, 2, 3]);
    nodes.start_missing();
    nodes.await_in_sync("three");

    remove(&nodes, 1, 2);
    remove(&nodes, 1, 3);
    await_voters(&nodes, 1, &[1]);
    nodes.kill(2);
    nodes.kill(3);
    create(&mut nodes.connect(1), "alone-again", 1, &[]);
    nodes.kill(1);
    nodes.running.insert(1, nodes.homes[0].start());
    await_voters(&nodes, 1, &[1]);
    let values: Vec<_> =
        read_all(&mut nodes.connect(1), "one", 0).into_iter().map(|(_, value)| value).collect();
    assert_eq!(values, [b"alone".to_vec(), b"in company".to_vec()]);
    create(&mut nodes.connect(1), "after-all", 1, &[]);
    assert_eq!(nodes.stop(1), Some(0));
}

#[test]
fn a_voter_that_the_configuration_names_comes_back_with_a_new_disk() {
    let controllers: Vec<u16> = (0..3).map(|_| free_port()).collect();
    let named: Vec<String> =
        (1..).zip(&controllers).map(|(id, port)| format!("{id}@127.0.0.1:{port}")).collect();
    let named = format!("controller.quorum.voters={}", named.join(","));
    let homes = (1..=3).map(|id| node(id, &controllers, named.clone(), &[])).collect();
    let mut nodes = Nodes { homes, running: BTreeMap::new(), controllers };
    nodes.start_missing();
    nodes.create("kept", 1, &[("min.insync.replicas", "2")]);
    nodes.append("kept", 0, b"before");
    nodes.await_in_sync("kept");
    nodes.kill(2);
    std::fs::remove_dir_all(nodes.homes[1].data()).unwrap();
    formatted(&nodes.homes[1], &[]);
    nodes.start_missing();
    nodes.running[&2].wait_for_line("it replaces a lost one");
    nodes.await_in_sync("kept");
    // The new disk votes when nobody is left who votes for the node otherwise.
    let is_whole = |id: i32| voters(&nodes, id).is_ok_and(|voters| voters == [1, 2, 3]);
    until("it votes with its new disk", || {
        let said = |broker: &crate::process::Broker| {
            broker.lines().iter().any(|line| line.contains("node 2 votes with its new disk"))
        };
        if nodes.running.values().any(said) && is_whole(1) { Ok(()) } else { Err(voters(&nodes, 1)) }
    });
    nodes.kill(1);
    nodes.append("kept", 0, b"with the vote of the new disk");
    nodes.start_missing();
    nodes.await_in_sync("kept");
    assert_eq!(nodes.read_all("kept", 0).len(), 2);
}

#[test]
fn a_voter_that_moves_is_found_at_its_new_address() {
    let mut nodes = Nodes::start(&[]);
    nodes.create("kept", 1, &[("min.insync.replicas", "2")]);
    assert_eq!(nodes.stop(3), Some(0));
    let moved = free_port();
    let home = &mut nodes.homes[2];
    home.overrides
        .push(format!("listeners=PLAINTEXT://127.0.0.1:{},CONTROLLER://127.0.0.1:{moved}", free_port()));
    nodes.start_missing();
    let request = DescribeQuorumRequest::default().with_topics(vec![
        TopicData::default()
            .with_topic_name(name("__cluster_metadata"))
            .with_partitions(vec![PartitionData::default()]),
    ]);
    until("the quorum knows where it is", || {
        let told = nodes.connect(1).call(&request, i16::MAX).map_err(|error| error.to_string())?;
        let three = told.nodes.iter().find(|node| node.node_id.0 == 3);
        let is_there = three.is_some_and(|node| node.listeners.iter().any(|one| one.port == moved));
        if is_there { Ok(()) } else { Err(format!("{:?}", told.nodes)) }
    });
    nodes.kill(1);
    nodes.append("kept", 0, b"with the one that moved");
    await_voters(&nodes, 2, &[1, 2, 3]);
}
