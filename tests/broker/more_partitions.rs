//! CreatePartitions over sockets: what is answered is served, by every shard.

use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use kafka_protocol::messages::{BrokerId, CreatePartitionsRequest};
use tidemill::client::{Admin, Cluster, Connection, ConnectionConfig};

use crate::process::{Home, PATIENCE};
use crate::wire::{append, batch, connect, create, describe, fetch, name, produce_request, read_all};

fn wanted(topic: &str, count: i32) -> CreatePartitionsTopic {
    CreatePartitionsTopic::default().with_name(name(topic)).with_count(count).with_assignments(None)
}

fn request(topics: Vec<CreatePartitionsTopic>) -> CreatePartitionsRequest {
    CreatePartitionsRequest::default().with_topics(topics).with_timeout_ms(30_000)
}

fn ask(
    connection: &mut Connection,
    version: i16,
    topics: Vec<CreatePartitionsTopic>,
) -> Vec<(i16, Option<String>)> {
    let answer = connection.call(&request(topics), version).unwrap();
    let told = |words: Option<kafka_protocol::protocol::StrBytes>| words.map(|words| words.to_string());
    answer.results.into_iter().map(|result| (result.error_code, told(result.error_message))).collect()
}

fn partitions(connection: &mut Connection, topic: &str) -> usize {
    describe(connection, &[topic]).topics[0].partitions.len()
}

#[test]
fn new_partitions_are_served_by_every_shard_when_they_are_answered() {
    let home = Home::new(&["shard.count=4"]);
    let broker = home.start();
    // Connections on several shards, of which each must know the partitions at once.
    let mut connections: Vec<Connection> = (0..6).map(|_| connect(&broker)).collect();
    create(&mut connections[0], "grown", 1, &[]);
    append(&mut connections[0], "grown", 0, &[b"old"]);
    for (round, version) in (0..8).zip((0..=3).cycle()) {
        let count = 3 + 2 * round;
        let at = round as usize % connections.len();
        assert_eq!(ask(&mut connections[at], version, vec![wanted("grown", count)]), [(0, None)]);
        for connection in &mut connections {
            assert_eq!(partitions(connection, "grown"), count as usize);
            let newest = count - 1;
            let request = produce_request("grown", -1, vec![(newest, batch(&[b"v"]))]);
            let answer = connection.call(&request, crate::wire::PRODUCE_VERSION).unwrap();
            assert_eq!(answer.responses[0].partition_responses[0].error_code, 0, "at the first attempt");
        }
        let records = fetch(&mut connections[at], "grown", count - 1, 0);
        assert_eq!(records.high_watermark, 6);
    }
    assert_eq!(read_all(&mut connections[1], "grown", 0), [(0, b"old".to_vec())]);
    broker.kill();
    let broker = home.start();
    let mut connection = connect(&broker);
    assert_eq!(partitions(&mut connection, "grown"), 17);
    assert_eq!(read_all(&mut connection, "grown", 16).len(), 6);
}

#[test]
fn pipelined_requests_are_carried_out_in_their_order() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "grown", 1, &[]);
    let counts = [4, 4, 2, 9, 9, 12];
    let tickets: Vec<_> = counts
        .iter()
        .map(|count| connection.send(&request(vec![wanted("grown", *count)]), 3).unwrap())
        .collect();
    let codes: Vec<i16> =
        tickets.into_iter().map(|ticket| connection.receive(ticket).unwrap().results[0].error_code).collect();
    assert_eq!(codes, [0, 37, 37, 0, 37, 0]);
    assert_eq!(partitions(&mut connection, "grown"), 12);
}

#[test]
fn what_cannot_be_is_said_and_a_dry_run_changes_nothing() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "t", 2, &[]);
    let assigned = |count, brokers: &[&[i32]]| {
        let one = |ids: &&[i32]| {
            let ids = ids.iter().map(|id| BrokerId(*id)).collect();
            CreatePartitionsAssignment::default().with_broker_ids(ids)
        };
        wanted("t", count).with_assignments(Some(brokers.iter().map(one).collect()))
    };
    for version in 0..=3 {
        let words = |text: &str| Some(text.to_owned());
        let told = ask(&mut connection, version, vec![wanted("t", 2), wanted("missing", 3)]);
        assert_eq!(told[0], (37, words("Topic already has 2 partition(s).")));
        assert_eq!(told[1].0, 3);
        let fewer = words("The topic t currently has 2 partition(s); 1 would not be an increase.");
        assert_eq!(ask(&mut connection, version, vec![wanted("t", 1)]), [(37, fewer)]);
        let twice = ask(&mut connection, version, vec![wanted("t", 3), wanted("t", 4)]);
        assert_eq!(twice, [(42, words("Duplicate topic name."))]);
        assert_eq!(ask(&mut connection, version, vec![assigned(4, &[&[1]])])[0].0, 39);
        assert_eq!(ask(&mut connection, version, vec![assigned(3, &[&[2]])])[0].0, 39);
        assert_eq!(ask(&mut connection, version, vec![wanted("t", i32::MAX)])[0].0, 44);
        let dry = request(vec![wanted("t", 5)]).with_validate_only(true);
        assert_eq!(connection.call(&dry, version).unwrap().results[0].error_code, 0);
        assert_eq!(partitions(&mut connection, "t"), 2);
    }
    let line = broker.wait_for_line("refused more partitions of ");
    assert!(line.contains("InvalidReplicaAssignment for \"t\": "), "{line}");
    assert_eq!(ask(&mut connection, 3, vec![assigned(4, &[&[1], &[1]])]), [(0, None)]);
    assert_eq!(partitions(&mut connection, "t"), 4);
    let cluster = Cluster::new(vec![broker.address.clone()], ConnectionConfig::default());
    let mut admin = Admin::new(cluster, PATIENCE);
    admin.create_partitions("t", 6, None).unwrap();
    assert_eq!(partitions(&mut connection, "t"), 6);
    assert!(admin.create_partitions("t", 6, None).unwrap_err().to_string().contains("already has 6"));
}
