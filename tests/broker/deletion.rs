//! Records that go: by DeleteRecords, by retention, and what DescribeLogDirs tells of their bytes.

use bytes::Bytes;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, DeleteRecordsRequest, DescribeLogDirsRequest, ListOffsetsRequest};
use tidemill::client::Connection;
use tidemill::log::batch::BatchBuilder;

use crate::process::{Home, until};
use crate::wire::{connect, create, name, produce};

pub fn delete(connection: &mut Connection, topic: &str, offset: i64) -> (i16, i64) {
    let partition = DeleteRecordsPartition::default().with_partition_index(0).with_offset(offset);
    let topic = DeleteRecordsTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
    let told = connection.call(&request, 2).unwrap().topics[0].partitions[0].clone();
    (told.error_code, told.low_watermark)
}

/// The log start, once the partition serves.
pub fn log_start(connection: &mut Connection, topic: &str) -> i64 {
    let partition = ListOffsetsPartition::default().with_partition_index(0).with_timestamp(-2);
    let topic = ListOffsetsTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
    until("the partition serves", || {
        let told = connection.call(&request, 3).unwrap().topics[0].partitions[0].clone();
        if told.error_code == 0 { Ok(told.offset) } else { Err(told.error_code) }
    })
}

fn batch(time_ms: i64) -> Bytes {
    (0..4).fold(BatchBuilder::new(), |b, _| b.record(time_ms, None, Some(&[7; 300]))).build()
}

#[test]
fn deleted_records_stay_deleted_over_a_crash() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "cut", 1, &[]);
    create(&mut connection, "kept", 1, &[("cleanup.policy", "compact")]);
    assert_eq!(produce(&mut connection, "cut", 0, -1, batch(1_000)).error_code, 0);
    assert_eq!(delete(&mut connection, "cut", 5), (1, -1), "OFFSET_OUT_OF_RANGE");
    assert_eq!(delete(&mut connection, "kept", 0), (44, -1), "POLICY_VIOLATION");
    assert_eq!(delete(&mut connection, "cut", 3), (0, 3));
    broker.kill();
    let broker = home.start();
    let mut connection = connect(&broker);
    assert_eq!(log_start(&mut connection, "cut"), 3);
    assert_eq!(delete(&mut connection, "cut", 1), (0, 3), "a log start never goes back");
    assert_eq!(delete(&mut connection, "cut", -1), (0, 4));
    broker.kill();
    let broker = home.start();
    assert_eq!(log_start(&mut connect(&broker), "cut"), 4);
}

#[test]
fn expired_records_go_and_so_do_their_bytes() {
    let home = Home::new(&["log.initial.task.delay.ms=0", "log.retention.check.interval.ms=50"]);
    let broker = home.start();
    let mut connection = connect(&broker);
    let configs = [("retention.ms", "1000"), ("file.delete.delay.ms", "0")];
    create(&mut connection, "short", 1, &configs);
    create(&mut connection, "long", 1, &[("retention.ms", "-1")]);
    for topic in ["short", "long"] {
        assert_eq!(produce(&mut connection, topic, 0, -1, batch(1_000)).error_code, 0);
    }
    until("the records are gone", || match log_start(&mut connection, "short") {
        4 => Ok(()),
        other => Err(other),
    });
    assert_eq!(log_start(&mut connection, "long"), 0);
    for version in 1..=4 {
        let told = connection.call(&DescribeLogDirsRequest::default().with_topics(None), version).unwrap();
        let [directory] = &told.results[..] else { panic!("one log directory: {told:?}") };
        let sizes: Vec<_> =
            directory.topics.iter().map(|t| (t.name.0.to_string(), t.partitions[0].partition_size)).collect();
        let [(_, long), (_, short)] = &sizes[..] else { panic!("two topics: {sizes:?}") };
        assert!(*long > 1_200 && *short == 0, "{sizes:?}");
        assert_eq!(directory.total_bytes > 0 && directory.usable_bytes > 0, version >= 4);
    }
    until("the files are unlinked", || {
        let files = std::fs::read_dir(home.data().join("short-0")).unwrap();
        let left: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        if left.iter().any(|name| name.ends_with(".deleted")) { Err(left) } else { Ok(()) }
    });
}
