//! A fetch waits for records as long as it says, and wakes as soon as there are enough.

use std::time::{Duration, Instant};

use crate::process::Home;
use crate::wire::{FETCH_VERSION, append, batch, connect, create, fetch_request, only_partition};

const LONG_MS: i32 = 50_000;

#[test]
fn a_produce_on_any_shard_wakes_a_waiting_fetch() {
    let home = Home::new(&["shard.count=4"]);
    let broker = home.start();
    let (mut producer, mut consumer) = (connect(&broker), connect(&broker));
    create(&mut producer, "awaited", 8, &[]);
    let all: Vec<(i32, i64)> = (0..8).map(|partition| (partition, 0)).collect();
    for partition in 0..8 {
        let mut wanted = all.clone();
        for (index, offset) in &mut wanted {
            *offset = i64::from(*index < partition);
        }
        let request = fetch_request("awaited", &wanted).with_max_wait_ms(LONG_MS);
        let started = Instant::now();
        let ticket = consumer.send(&request, FETCH_VERSION).unwrap();
        append(&mut producer, "awaited", partition, &[b"wake"]);
        let response = consumer.receive(ticket).unwrap();
        assert!(
            started.elapsed() < Duration::from_millis(LONG_MS as u64 / 2),
            "it woke, it did not time out"
        );
        let with_records: Vec<i32> = response.responses[0]
            .partitions
            .iter()
            .filter(|part| part.records.as_ref().is_some_and(|records| !records.is_empty()))
            .map(|part| part.partition_index)
            .collect();
        assert_eq!(with_records, [partition]);
    }
}

#[test]
fn a_fetch_without_records_is_answered_when_its_wait_ends() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "empty", 2, &[]);
    for wait_ms in [0, 1, 150] {
        let request = fetch_request("empty", &[(0, 0), (1, 0)]).with_max_wait_ms(wait_ms);
        let started = Instant::now();
        let response = connection.call(&request, FETCH_VERSION).unwrap();
        // The broker counts in whole milliseconds, so it may be early by less than one.
        let waited_ms = started.elapsed().as_millis() as i32 + 1;
        assert!(waited_ms >= wait_ms, "{waited_ms} of {wait_ms} ms");
        assert!(response.responses[0].partitions.iter().all(|part| part.error_code == 0));
    }
}

#[test]
fn too_few_bytes_wait_for_more() {
    let home = Home::new(&[]);
    let broker = home.start();
    let (mut producer, mut consumer) = (connect(&broker), connect(&broker));
    create(&mut producer, "gathered", 1, &[]);
    let one = batch(&[b"0123456789"]).len() as i32;
    let request = fetch_request("gathered", &[(0, 0)]).with_max_wait_ms(LONG_MS).with_min_bytes(one * 3 - 1);
    let ticket = consumer.send(&request, FETCH_VERSION).unwrap();
    for _ in 0..3 {
        append(&mut producer, "gathered", 0, &[b"0123456789"]);
    }
    let found = only_partition(&consumer.receive(ticket).unwrap());
    assert_eq!(found.records.unwrap().len() as i32, one * 3);
}

#[test]
fn a_deleted_topic_wakes_those_who_wait_for_it() {
    let home = Home::new(&["shard.count=2"]);
    let broker = home.start();
    let (mut admin, mut consumer) = (connect(&broker), connect(&broker));
    create(&mut admin, "doomed", 2, &[]);
    let request = fetch_request("doomed", &[(0, 0), (1, 0)]).with_max_wait_ms(LONG_MS);
    let started = Instant::now();
    let ticket = consumer.send(&request, FETCH_VERSION).unwrap();
    assert_eq!(crate::wire::delete(&mut admin, "doomed"), 0);
    let response = consumer.receive(ticket).unwrap();
    assert!(started.elapsed() < Duration::from_millis(LONG_MS as u64 / 2), "it was told at once");
    assert!(response.responses[0].partitions.iter().any(|part| part.error_code == 3), "{response:?}");
}
