//! Three real nodes with two log directories each, one of which fails: what was led from there is led elsewhere, and
//! its replicas are back after the repair and a restart (KIP-858).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use kafka_protocol::messages::metadata_response::MetadataResponsePartition;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::{FindCoordinatorRequest, GroupId, OffsetCommitRequest, OffsetFetchRequest};
use kafka_protocol::protocol::StrBytes;
use tidemill::client::Connection;

use crate::nodes::{Nodes, QUICK, open};
use crate::process::until;
use crate::wire::name;

const PARTITIONS: i32 = 6;
const GROUPS: [&str; 8] = ["one", "two", "three", "four", "five", "six", "seven", "eight"];

/// Where a node's second log directory is.
fn second(nodes: &Nodes, id: i32) -> PathBuf {
    nodes.homes[id as usize - 1].path().join("b")
}

/// The partitions whose replica on a node is in its second log directory.
fn in_second(nodes: &Nodes, id: i32) -> BTreeSet<i32> {
    (0..PARTITIONS).filter(|at| second(nodes, id).join(format!("kept-{at}")).is_dir()).collect()
}

fn is_offline(partition: &MetadataResponsePartition, id: i32) -> bool {
    partition.offline_replicas.iter().any(|one| one.0 == id)
}

/// Every node says of these partitions that the node's replica is offline, neither leads nor is in sync, and that the
/// other two are; and of all others that three are.
fn await_lost(nodes: &Nodes, id: i32, lost: &BTreeSet<i32>) {
    nodes.agree("kept", |partition| {
        let is_lost = lost.contains(&partition.partition_index);
        let in_sync = partition.isr_nodes.iter().any(|one| one.0 == id);
        let count = if is_lost { 2 } else { 3 };
        is_offline(partition, id) == is_lost
            && in_sync != is_lost
            && partition.isr_nodes.len() == count
            && partition.leader_id.0 > 0
            && !(is_lost && partition.leader_id.0 == id)
    });
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Asks whoever coordinates a group, as clients do: again after what passes.
fn ask_coordinator<T>(
    nodes: &Nodes,
    group: &str,
    ask: impl Fn(&mut Connection) -> Result<T, (i16, &'static str)>,
) -> T {
    until("the group's coordinator answers", || {
        let any = nodes.running.values().next_back().unwrap();
        let mut connection = open(any).map_err(|error| error.to_string())?;
        let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)]);
        let found = connection.call(&request, 6).map_err(|error| error.to_string())?;
        let found = &found.coordinators[0];
        let there = nodes.running.get(&found.node_id.0).filter(|_| found.error_code == 0);
        let there = there.ok_or_else(|| format!("{found:?}"))?;
        let mut connection = open(there).map_err(|error| error.to_string())?;
        ask(&mut connection).map_err(|error| format!("{error:?} of {}", found.node_id.0))
    })
}

/// Commits the offset for every group.
fn commit_all(nodes: &Nodes, offset: i64) {
    for group in GROUPS {
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(offset);
        let topic =
            OffsetCommitRequestTopic::default().with_name(name("kept")).with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![topic]);
        ask_coordinator(nodes, group, |connection| {
            let answer = connection.call(&request, 8).map_err(|_| (-1, "gone"))?;
            match answer.topics[0].partitions[0].error_code {
                0 => Ok(()),
                error => Err((error, "commit")),
            }
        });
    }
}

/// Every group has this offset.
fn assert_committed(nodes: &Nodes, offset: i64) {
    for group in GROUPS {
        let topic =
            OffsetFetchRequestTopics::default().with_name(name("kept")).with_partition_indexes(vec![0]);
        let group_asked = OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(text(group)))
            .with_topics(Some(vec![topic]));
        let request = OffsetFetchRequest::default().with_groups(vec![group_asked]);
        let found = ask_coordinator(nodes, group, |connection| {
            let answer = connection.call(&request, 8).map_err(|_| (-1, "gone"))?;
            match answer.groups[0].error_code {
                0 => Ok(answer.groups[0].topics[0].partitions[0].committed_offset),
                error => Err((error, "fetch")),
            }
        });
        assert_eq!(found, offset, "of group {group}");
    }
}

#[test]
fn a_directory_that_fails_takes_its_leaderships_away_alone_and_is_back_after_repair_and_restart() {
    let mut settings = QUICK.to_vec();
    // Its checkpoint is the first thing that a directory cannot keep any more.
    settings.extend(["log.dirs=a,b", "log.flush.offset.checkpoint.interval.ms=200"]);
    settings.extend(["offsets.topic.num.partitions=6", "offsets.topic.replication.factor=3"]);
    let mut nodes = Nodes::start(&settings);
    nodes.create("kept", PARTITIONS, &[("min.insync.replicas", "2")]);
    let said = nodes.await_in_sync("kept");
    let mut acknowledged = BTreeMap::new();
    let append_all = |nodes: &Nodes, acknowledged: &mut BTreeMap<_, _>, round: &str| {
        for partition in 0..PARTITIONS {
            let value = format!("{round} in {partition}").into_bytes();
            let offset = nodes.append("kept", partition, &value);
            assert_eq!(acknowledged.insert((partition, offset), value), None, "one offset, one record");
        }
    };
    append_all(&nodes, &mut acknowledged, "before");
    commit_all(&nodes, 1);
    nodes.await_in_sync("__consumer_offsets");
    // A node that leads something from its second directory.
    let led = |id: i32| in_second(&nodes, id).iter().any(|at| said[*at as usize].leader_id.0 == id);
    let id = (1..=3).find(|id| led(*id)).expect("directories are filled in turns");
    let lost = in_second(&nodes, id);
    assert!(lost.len() < PARTITIONS as usize, "{lost:?}");
    let (there, away) = (second(&nodes, id), nodes.homes[id as usize - 1].path().join("away"));
    fs::rename(&there, &away).unwrap();
    nodes.running[&id].wait_for_line("failed: its partitions are offline");
    append_all(&nodes, &mut acknowledged, "without");
    await_lost(&nodes, id, &lost);
    // The coordinators that were there have moved, with what was committed.
    assert_committed(&nodes, 1);
    commit_all(&nodes, 2);
    // A start that misses it is no better, and no worse.
    assert_eq!(nodes.stop(id), Some(0));
    append_all(&nodes, &mut acknowledged, "stopped");
    nodes.start_missing();
    await_lost(&nodes, id, &lost);
    append_all(&nodes, &mut acknowledged, "missing");
    assert!(!there.exists(), "nothing is made in its place");
    assert_eq!(nodes.stop(id), Some(0));
    fs::rename(&away, &there).unwrap();
    nodes.start_missing();
    nodes.await_in_sync("kept");
    nodes.agree("kept", |partition| partition.offline_replicas.is_empty());
    append_all(&nodes, &mut acknowledged, "after");
    assert_committed(&nodes, 2);
    for partition in 0..PARTITIONS {
        let read: BTreeMap<i64, Vec<u8>> = nodes.read_all("kept", partition).into_iter().collect();
        for ((_, offset), value) in acknowledged.iter().filter(|((of, _), _)| *of == partition) {
            assert_eq!(read.get(offset), Some(value), "kept-{partition} at {offset}");
        }
    }
    assert_eq!(in_second(&nodes, id), lost, "every replica is where it was");
}
