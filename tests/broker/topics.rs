//! Topics made, deleted and made again; what their configuration changes.

use std::time::{SystemTime, UNIX_EPOCH};

use tidemill::client::Connection;
use tidemill::log::batch::{BatchBuilder, BatchInfo};
use tidemill::log::codec::Codec;

use crate::process::{Home, until};
use crate::wire::{
    append, batch, connect, create, delete, describe, fetch, fetch_request, only_partition, produce,
    read_all, records, try_create,
};

#[test]
fn a_name_can_be_used_again_at_once_and_holds_nothing_of_before() {
    let home = Home::new(&["file.delete.delay.ms=1", "log.segment.delete.delay.ms=1"]);
    let broker = home.start();
    let mut connection = connect(&broker);
    let mut ids = Vec::new();
    for round in 0..5_u8 {
        let partitions = 2 + i32::from(round % 2);
        create(&mut connection, "again", partitions, &[]);
        let described = describe(&mut connection, &["again"]).topics[0].clone();
        assert_eq!(described.partitions.len(), partitions as usize);
        ids.push(described.topic_id);
        for partition in 0..partitions {
            assert_eq!(append(&mut connection, "again", partition, &[&[round]]), 0, "round {round}");
            assert_eq!(read_all(&mut connection, "again", partition), [(0, vec![round])]);
        }
        assert_eq!(delete(&mut connection, "again"), 0);
        assert_eq!(describe(&mut connection, &["again"]).topics[0].error_code, 3);
        assert_eq!(produce(&mut connection, "again", 0, -1, batch(&[b"x"])).error_code, 3);
        assert_eq!(delete(&mut connection, "again"), 3);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 5, "each has an id of its own");
    until("the directories are deleted", || {
        let listed = std::fs::read_dir(home.data()).unwrap();
        let names = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let left: Vec<String> = names.filter(|name| name.starts_with("again")).collect();
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    create(&mut connection, "again", 1, &[]);
    append(&mut connection, "again", 0, &[b"last"]);
    broker.kill();
    let broker = home.start();
    let mut connection = connect(&broker);
    assert_eq!(read_all(&mut connection, "again", 0), [(0, b"last".to_vec())]);
}

#[test]
fn a_deleted_topic_stays_deleted_after_a_kill() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "gone", 3, &[]);
    append(&mut connection, "gone", 1, &[b"x"]);
    assert_eq!(delete(&mut connection, "gone"), 0);
    broker.kill();
    let broker = home.start();
    let mut connection = connect(&broker);
    assert_eq!(describe(&mut connection, &["gone"]).topics[0].error_code, 3);
    create(&mut connection, "gone", 3, &[]);
    assert_eq!(read_all(&mut connection, "gone", 1), []);
}

#[test]
fn what_cannot_be_created_is_said_by_kafkas_codes() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "there", 1, &[]);
    assert_eq!(try_create(&mut connection, "there", 1, &[]), 36, "TOPIC_ALREADY_EXISTS");
    for bad in ["", ".", "..", "a/b", "with space", &"x".repeat(250)] {
        assert_eq!(try_create(&mut connection, bad, 1, &[]), 17, "INVALID_TOPIC_EXCEPTION for {bad:?}");
    }
    assert_eq!(try_create(&mut connection, "zero", 0, &[]), 37, "INVALID_PARTITIONS");
    assert_eq!(try_create(&mut connection, "unset", 1, &[("no.such.config", "1")]), 40, "INVALID_CONFIG");
    assert_eq!(try_create(&mut connection, "bad", 1, &[("segment.bytes", "x")]), 40, "INVALID_CONFIG");
    let described = describe(&mut connection, &["zero", "unset", "bad"]);
    assert!(described.topics.iter().all(|topic| topic.error_code == 3), "none of them was created");
}

#[test]
fn log_append_time_is_the_brokers_and_reaches_producer_and_consumer() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "stamped", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let wall_ms = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let before = wall_ms();
    let answer = produce(&mut connection, "stamped", 0, -1, batch(&[b"a", b"b"]));
    assert_eq!(answer.error_code, 0);
    assert!((before..=wall_ms()).contains(&answer.log_append_time_ms), "{}", answer.log_append_time_ms);
    let records = fetch(&mut connection, "stamped", 0, 0).records.unwrap();
    let info = BatchInfo::parse(&records).unwrap();
    assert!(info.is_log_append_time());
    assert_eq!(info.max_timestamp_ms, answer.log_append_time_ms);
    // The checksum, which `read_all` checks, is that of the rewritten header.
    assert_eq!(read_all(&mut connection, "stamped", 0).len(), 2);
}

#[test]
fn a_topic_of_zstd_is_refused_to_fetches_that_cannot_know_it() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut connection = connect(&broker);
    for (topic, codec) in [("zstd", "zstd"), ("gzip", "gzip")] {
        create(&mut connection, topic, 1, &[("compression.type", codec)]);
        append(&mut connection, topic, 0, &[b"a"]);
        read_all(&mut connection, topic, 0);
        for version in 4..=12 {
            let response = connection.call(&fetch_request(topic, &[(0, 0)]), version).unwrap();
            let partition = only_partition(&response);
            let refused = topic == "zstd" && version < 10;
            assert_eq!(partition.error_code, if refused { 76 } else { 0 }, "{topic} by Fetch {version}");
            assert_eq!(partition.records.is_none_or(|records| records.is_empty()), refused);
        }
    }
}

#[test]
fn a_batch_of_zstd_is_refused_to_fetches_that_cannot_know_it() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "mixed", 1, &[]);
    append(&mut connection, "mixed", 0, &[b"plain"]);
    let zstd = BatchBuilder::new().codec(Codec::Zstd).record(1, None, Some(&[b'z'; 1000])).build();
    let answer = produce(&mut connection, "mixed", 0, -1, zstd);
    assert_eq!((answer.error_code, answer.base_offset), (0, 1));
    let asked = |connection: &mut Connection, offset, version| {
        let response = connection.call(&fetch_request("mixed", &[(0, offset)]), version).unwrap();
        let partition = only_partition(&response);
        let records = partition.records.clone().unwrap_or_default();
        let last = records_of(&records).last().map(|(offset, _)| *offset);
        (partition.error_code, last)
    };
    for version in 5..=9 {
        assert_eq!(asked(&mut connection, 0, version), (0, Some(0)), "what is before it, by Fetch {version}");
        assert_eq!(
            asked(&mut connection, 1, version),
            (76, None),
            "UNSUPPORTED_COMPRESSION_TYPE, by Fetch {version}"
        );
    }
    // Clients that read zstd send version 4 too.
    for version in [4, 10] {
        assert_eq!(asked(&mut connection, 0, version), (0, Some(1)));
    }
    append(&mut connection, "mixed", 0, &[b"behind it"]);
    // Recovery does not say which batches are of zstd: any may be.
    drop(broker);
    let broker = home.start();
    let mut connection = connect(&broker);
    until("the log serves", || match asked(&mut connection, 0, 10).0 {
        0 => Ok(()),
        error => Err(error),
    });
    for version in [5, 9] {
        assert_eq!(asked(&mut connection, 0, version), (0, Some(0)), "by Fetch {version}, after a restart");
        assert_eq!(asked(&mut connection, 1, version), (76, None), "by Fetch {version}, after a restart");
        assert_eq!(asked(&mut connection, 2, version), (0, Some(2)), "by Fetch {version}, after a restart");
    }
    append(&mut connection, "mixed", 0, &[b"of the new log"]);
    assert_eq!(asked(&mut connection, 3, 5), (0, Some(3)));
}

fn records_of(bytes: &[u8]) -> Vec<(i64, Vec<u8>)> {
    let mut read = Vec::new();
    records(bytes, &mut read);
    read
}

#[test]
fn small_segments_roll_and_every_offset_can_be_read() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "rolled", 1, &[("segment.bytes", "1048576")]);
    let value = vec![b'v'; 100_000];
    for offset in 0..40 {
        assert_eq!(append(&mut connection, "rolled", 0, &[&value]), offset);
    }
    let segments = || {
        let listed = std::fs::read_dir(home.data().join("rolled-0")).unwrap();
        listed
            .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|kind| kind == "log"))
            .count()
    };
    assert!(segments() >= 4, "{} segments", segments());
    for offset in [0, 9, 10, 11, 25, 39] {
        let found = fetch(&mut connection, "rolled", 0, offset).records.unwrap();
        assert_eq!(BatchInfo::parse(&found).unwrap().base_offset, offset);
    }
    broker.kill();
    let broker = home.start();
    assert_eq!(read_all(&mut connect(&broker), "rolled", 0).len(), 40);
}
