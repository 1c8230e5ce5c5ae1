//! OffsetForLeaderEpoch over sockets, in every version.

use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{BrokerId, OffsetForLeaderEpochRequest};
use tidemill::client::Connection;

use crate::process::{Home, until};
use crate::wire::{append, connect, create, describe, name};

/// Error, epoch and end offset for a partition, an epoch and the epoch that the client knows.
fn ask(
    connection: &mut Connection,
    version: i16,
    partition: i32,
    leader_epoch: i32,
    current_leader_epoch: i32,
) -> (i16, i32, i64) {
    let asked = OffsetForLeaderPartition::default()
        .with_partition(partition)
        .with_leader_epoch(leader_epoch)
        .with_current_leader_epoch(current_leader_epoch);
    let topic = OffsetForLeaderTopic::default().with_topic(name("t")).with_partitions(vec![asked]);
    let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
    let request = if version >= 3 { request.with_replica_id(BrokerId(-1)) } else { request };
    until("the partition serves", || {
        let answer = connection.call(&request, version).unwrap().topics[0].partitions[0].clone();
        assert_eq!(answer.partition, partition);
        let told = (answer.error_code, answer.leader_epoch, answer.end_offset);
        if answer.error_code == 6 { Err(told) } else { Ok(told) }
    })
}

#[test]
fn an_epoch_ends_at_the_log_end_until_another_follows() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "t", 2, &[]);
    append(&mut connection, "t", 1, &[b"a", b"b", b"c"]);
    let check = |connection: &mut Connection| {
        let current = describe(connection, &["t"]).topics[0].partitions[1].leader_epoch;
        for version in 2..=4 {
            let mut ask = |partition, epoch, known| ask(connection, version, partition, epoch, known);
            assert_eq!(ask(1, current, -1), (0, current, 3));
            assert_eq!(ask(1, current, current), (0, current, 3));
            assert_eq!(ask(0, current, current), (0, current, 0), "without records too");
            assert_eq!(ask(1, current + 1, -1), (0, -1, -1), "an epoch that is not yet");
            assert_eq!(ask(1, -1, -1), (0, -1, -1));
            assert_eq!(ask(1, current, current + 1), (75, -1, -1), "UNKNOWN_LEADER_EPOCH");
            assert_eq!(ask(1, current, -2), (74, -1, -1), "FENCED_LEADER_EPOCH");
            assert_eq!(ask(2, 0, -1), (3, -1, -1), "UNKNOWN_TOPIC_OR_PARTITION");
        }
    };
    check(&mut connection);
    broker.kill();
    check(&mut connect(&home.start()));
}
