//! ListOffsets by every special value and by time, over sockets, before and after restarts.

use bytes::Bytes;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::ListOffsetsPartitionResponse;
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest};
use tidemill::client::Connection;
use tidemill::log::batch::BatchBuilder;
use tidemill::log::codec::Codec;

use crate::process::{Home, until};
use crate::wire::{connect, create, name, produce};

fn request(topic: &str, asked: &[(i32, i64, i32)], version: i16) -> ListOffsetsRequest {
    let partitions = asked.iter().map(|(index, timestamp, epoch)| {
        let partition =
            ListOffsetsPartition::default().with_partition_index(*index).with_timestamp(*timestamp);
        if version >= 4 { partition.with_current_leader_epoch(*epoch) } else { partition }
    });
    let topic = ListOffsetsTopic::default().with_name(name(topic)).with_partitions(partitions.collect());
    let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
    let request = if version >= 2 { request.with_isolation_level(1) } else { request };
    if version >= 10 { request.with_timeout_ms(30_000) } else { request }
}

/// Asks one partition until its log is open.
fn ask(
    connection: &mut Connection,
    version: i16,
    topic: &str,
    timestamp: i64,
    epoch: i32,
) -> ListOffsetsPartitionResponse {
    let request = request(topic, &[(0, timestamp, epoch)], version);
    until("the partition serves", || {
        let answer = connection.call(&request, version).unwrap().topics[0].partitions[0].clone();
        if answer.error_code == 6 { Err(answer) } else { Ok(answer) }
    })
}

fn found(connection: &mut Connection, version: i16, topic: &str, timestamp: i64) -> (i16, i64, i64) {
    let answer = ask(connection, version, topic, timestamp, -1);
    (answer.error_code, answer.offset, answer.timestamp)
}

/// Records at these times in one batch.
fn batch(codec: Codec, times_ms: &[i64]) -> Bytes {
    let record = |builder: BatchBuilder, time_ms: &i64| builder.record(*time_ms, None, Some(&[7; 300]));
    times_ms.iter().fold(BatchBuilder::new().codec(codec), record).build()
}

#[test]
fn every_special_value_is_answered_in_the_versions_that_have_it() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "filled", 1, &[]);
    create(&mut connection, "empty", 1, &[]);
    for times_ms in [&[1_000, 3_000, 2_000][..], &[2_500]] {
        let answer = produce(&mut connection, "filled", 0, -1, batch(Codec::None, times_ms));
        assert_eq!(answer.error_code, 0);
    }
    for version in 1..=10 {
        let mut ask = |topic, timestamp| found(&mut connection, version, topic, timestamp);
        let from = |first: i16, answer| if version >= first { answer } else { (35, -1, -1) };
        assert_eq!(ask("filled", -1), (0, 4, -1));
        assert_eq!(ask("filled", -2), (0, 0, -1));
        assert_eq!(ask("filled", -3), from(7, (0, 1, 3_000)), "v{version}");
        assert_eq!(ask("filled", -4), from(8, (0, 0, -1)));
        assert_eq!(ask("filled", -5), from(9, (0, -1, -1)));
        assert_eq!(ask("filled", -6), (35, -1, -1));
        assert_eq!(ask("filled", i64::MIN), (35, -1, -1));
        assert_eq!(ask("filled", 0), (0, 0, 1_000));
        assert_eq!(ask("filled", 1_001), (0, 1, 3_000));
        assert_eq!(ask("filled", 3_001), (0, -1, -1));
        assert_eq!(ask("filled", i64::MAX), (0, -1, -1));
        assert_eq!((ask("empty", -1), ask("empty", -2)), ((0, 0, -1), (0, 0, -1)));
        assert_eq!(ask("empty", -3), from(7, (0, -1, -1)));
        assert_eq!(ask("empty", 0), (0, -1, -1));
        assert_eq!(ask("missing", -1), (3, -1, -1));
    }
}

#[test]
fn leader_epochs_are_checked_and_told() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "filled", 1, &[]);
    produce(&mut connection, "filled", 0, -1, batch(Codec::None, &[1_000]));
    let current = ask(&mut connection, 10, "filled", -1, -1).leader_epoch;
    assert!(current >= 0);
    for version in 4..=10 {
        for timestamp in [-1, -2, 0] {
            let answer = ask(&mut connection, version, "filled", timestamp, current);
            assert_eq!((answer.error_code, answer.leader_epoch), (0, current));
        }
        let newer = ask(&mut connection, version, "filled", -1, current + 1);
        assert_eq!((newer.error_code, newer.offset, newer.leader_epoch), (75, -1, -1));
        let older = ask(&mut connection, version, "filled", -1, -2);
        assert_eq!(older.error_code, 74, "FENCED_LEADER_EPOCH");
    }
}

#[test]
fn a_partition_named_twice_is_an_invalid_request() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "twice", 2, &[]);
    let asked = [(0, -1, -1), (1, -1, -1), (0, -2, -1)];
    for version in 1..=10 {
        let answer = connection.call(&request("twice", &asked, version), version).unwrap();
        let told: Vec<_> =
            answer.topics[0].partitions.iter().map(|p| (p.partition_index, p.error_code)).collect();
        assert_eq!(told, [(0, 42), (1, 0)]);
    }
}

#[test]
fn the_largest_timestamp_is_found_inside_batches_of_every_codec_also_after_restarts() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut connection = connect(&broker);
    let codecs = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
    let topic = |codec: Codec| format!("of-{codec:?}").to_lowercase();
    for codec in codecs {
        create(&mut connection, &topic(codec), 1, &[]);
        // The largest comes second in the third batch, and once more, later, in the fourth; batches
        // around it make index entries.
        for times_ms in [&[10, 20, 30][..], &[40; 40], &[15, 90, 60], &[90, 5], &[50; 40], &[89]] {
            let answer = produce(&mut connection, &topic(codec), 0, -1, batch(codec, times_ms));
            assert_eq!(answer.error_code, 0);
        }
    }
    create(&mut connection, "stamped", 1, &[("message.timestamp.type", "LogAppendTime")]);
    produce(&mut connection, "stamped", 0, -1, batch(Codec::Zstd, &[10, 20]));
    let stamped = found(&mut connection, 10, "stamped", -3);
    assert_eq!((stamped.0, stamped.1), (0, 0), "of equal times the first");
    let check = |connection: &mut Connection, when: &str| {
        for codec in codecs {
            assert_eq!(found(connection, 10, &topic(codec), -3), (0, 44, 90), "{codec:?} {when}");
            assert_eq!(found(connection, 10, &topic(codec), 41), (0, 44, 90), "{codec:?} {when}");
        }
        assert_eq!(found(connection, 10, "stamped", -3), stamped, "{when}");
    };
    check(&mut connection, "before");
    assert_eq!(broker.stop(), Some(0));
    let broker = home.start();
    check(&mut connect(&broker), "after a clean stop");
    broker.kill();
    let broker = home.start();
    check(&mut connect(&broker), "after a kill");
}
