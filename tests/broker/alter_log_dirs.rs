//! Replicas that move between log directories (KIP-113) while producers and consumers are at work, through kills and
//! clean stops.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use kafka_protocol::messages::alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
use kafka_protocol::messages::{AlterReplicaLogDirsRequest, DescribeLogDirsRequest};
use kafka_protocol::protocol::StrBytes;
use tidemill::client::Connection;

use crate::process::{Broker, Home, until};
use crate::wire::{append, connect, create, delete, name, read_all};

const PARTITIONS: i32 = 4;
/// What a producer sends as fast as it can with each move.
const RECORDS_AT_FULL_RATE: usize = 2_000;

fn home() -> Home {
    let mut home = Home::new(&[]);
    let paths: Vec<String> = ["a", "b"].iter().map(|name| path(&home, name)).collect();
    home.overrides.push(format!("log.dirs={}", paths.join(",")));
    home
}

fn path(home: &Home, directory: &str) -> String {
    home.path().join(directory).display().to_string()
}

/// Asks for these partitions to be in a directory; what each is answered.
fn alter(connection: &mut Connection, path: &str, topic: &str, partitions: &[i32]) -> Vec<i16> {
    let topic =
        AlterReplicaLogDirTopic::default().with_name(name(topic)).with_partitions(partitions.to_vec());
    let dir = AlterReplicaLogDir::default()
        .with_path(StrBytes::from_string(path.to_owned()))
        .with_topics(vec![topic]);
    let request = AlterReplicaLogDirsRequest::default().with_dirs(vec![dir]);
    let answer = connection.call(&request, 2).unwrap();
    answer.results[0].partitions.iter().map(|partition| partition.error_code).collect()
}

/// Partition → path, and whether it is a future replica's.
fn places(connection: &mut Connection, topic: &str) -> Vec<(i32, String, bool)> {
    let answer = connection.call(&DescribeLogDirsRequest::default().with_topics(None), 4).unwrap();
    let mut places = Vec::new();
    for directory in &answer.results {
        for found in directory.topics.iter().filter(|found| found.name == name(topic)) {
            let of = |p: &kafka_protocol::messages::describe_log_dirs_response::DescribeLogDirsPartition| {
                (p.partition_index, directory.log_dir.to_string(), p.is_future_key)
            };
            places.extend(found.partitions.iter().map(of));
        }
    }
    places.sort();
    places
}

/// Waits until all partitions are in a directory and nowhere else.
fn arrive(connection: &mut Connection, topic: &str, path: &str) {
    until("the replicas arrive", || {
        let found = places(connection, topic);
        let there = found.iter().all(|(_, at, is_future)| at == path && !is_future);
        if there && found.len() == PARTITIONS as usize { Ok(()) } else { Err(found) }
    });
}

/// Folders of the topic in a log directory, those that wait for their deletion left out.
fn folders(home: &Home, directory: &str, topic: &str) -> Vec<String> {
    let listed = std::fs::read_dir(home.path().join(directory)).unwrap();
    let names = listed.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> =
        names.filter(|name| name.starts_with(topic) && !name.ends_with("-delete")).collect();
    names.sort();
    names
}

/// What is no failure is not told as one.
fn told_no_failure(lines: &[String]) {
    assert!(!lines.iter().any(|line| line.contains("failed")), "{lines:?}");
}

fn all() -> Vec<i32> {
    (0..PARTITIONS).collect()
}

#[test]
fn replicas_move_to_and_fro_under_a_producer_and_a_consumer_and_nothing_is_lost() {
    let home = home();
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "moves", PARTITIONS, &[("segment.bytes", "1048576")]);
    let (done, counts) = (AtomicBool::new(false), [const { AtomicUsize::new(0) }; PARTITIONS as usize]);
    let at_full_rate = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for partition in 0..PARTITIONS {
            let (broker, done, count) = (&broker, &done, &counts[partition as usize]);
            let at_full_rate = &at_full_rate;
            scope.spawn(move || {
                let mut connection = connect(broker);
                while !done.load(Ordering::Relaxed) {
                    let number = count.load(Ordering::Relaxed);
                    // As fast as it can be, and then at a pace that a copy of such small segments keeps up with on any
                    // machine: what each move has to copy would else grow without bounds.
                    if number >= at_full_rate.load(Ordering::Relaxed) {
                        std::thread::park_timeout(Duration::from_millis(2));
                    }
                    let value = vec![b'0' + (number % 10) as u8; 2_000];
                    assert_eq!(append(&mut connection, "moves", partition, &[&value]), number as i64);
                    count.store(number + 1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            let mut connection = connect(&broker);
            while !done.load(Ordering::Relaxed) {
                let read = read_all(&mut connection, "moves", 0);
                assert!((0..).zip(&read).all(|(at, (offset, _))| at == *offset), "in order and without gaps");
            }
        });
        let moved = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for directory in ["b", "a", "b", "a", "b"] {
                let to = path(&home, directory);
                at_full_rate.fetch_add(RECORDS_AT_FULL_RATE, Ordering::Relaxed);
                assert_eq!(alter(&mut connection, &to, "moves", &all()), vec![0; PARTITIONS as usize]);
                arrive(&mut connection, "moves", &to);
            }
        }));
        done.store(true, Ordering::Relaxed);
        moved.unwrap();
    });
    let check = |broker: &Broker| {
        let mut connection = connect(broker);
        for partition in 0..PARTITIONS {
            let read = read_all(&mut connection, "moves", partition);
            assert_eq!(read.len(), counts[partition as usize].load(Ordering::Relaxed));
            let is_right = |(at, (offset, value)): (usize, &(i64, Vec<u8>))| {
                at as i64 == *offset && *value == vec![b'0' + (at % 10) as u8; 2_000]
            };
            assert!(read.iter().enumerate().all(is_right), "{partition}");
        }
    };
    check(&broker);
    let (code, said) = broker.stop_and_tell();
    assert_eq!(code, Some(0));
    told_no_failure(&said);
    assert_eq!(folders(&home, "a", "moves"), Vec::<String>::new());
    assert_eq!(folders(&home, "b", "moves").len(), PARTITIONS as usize);
    let broker = home.start();
    check(&broker);
    broker.kill();
    check(&home.start());
}

#[test]
fn a_kill_in_the_middle_of_moves_loses_nothing_and_they_end() {
    let home = home();
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "killed", PARTITIONS, &[("segment.bytes", "1048576")]);
    let mut written: BTreeMap<i32, i64> = BTreeMap::new();
    let mut broker = Some(broker);
    for round in 0..8_u32 {
        let running = broker.take().unwrap_or_else(|| home.start());
        let mut connection = connect(&running);
        for partition in 0..PARTITIONS {
            for (offset, value) in read_all(&mut connection, "killed", partition) {
                assert_eq!(value, format!("{offset:0>3000}").into_bytes(), "{partition}");
            }
            let next = written.entry(partition).or_default();
            for _ in 0..30 {
                let value = format!("{next:0>3000}").into_bytes();
                assert_eq!(append(&mut connection, "killed", partition, &[&value]), *next);
                *next += 1;
            }
        }
        let to = path(&home, if round % 2 == 0 { "b" } else { "a" });
        assert_eq!(alter(&mut connection, &to, "killed", &all()), vec![0; PARTITIONS as usize]);
        // Some more while they move: the kill meets each at another place.
        for number in 0..i64::from(round) * 3 {
            let partition = (number % i64::from(PARTITIONS)) as i32;
            let next = written.get_mut(&partition).unwrap();
            let value = format!("{next:0>3000}").into_bytes();
            assert_eq!(append(&mut connection, "killed", partition, &[&value]), *next);
            *next += 1;
        }
        told_no_failure(&running.lines());
        running.kill();
        let mut next = home.start();
        // A start that dies too goes on with what it found.
        for _ in 0..round % 3 {
            next.kill();
            next = home.start();
        }
        let mut connection = connect(&next);
        arrive(&mut connection, "killed", &to);
        for (partition, end) in &written {
            assert_eq!(read_all(&mut connection, "killed", *partition).len() as i64, *end, "round {round}");
        }
        broker = Some(next);
    }
    let (code, said) = broker.unwrap().stop_and_tell();
    assert_eq!(code, Some(0));
    told_no_failure(&said);
    assert_eq!((folders(&home, "a", "killed").len(), folders(&home, "b", "killed").len()), (4, 0));
}

#[test]
fn what_cannot_move_is_told_and_a_move_can_be_taken_back() {
    let mut home = home();
    home.overrides.push("replica.alter.log.dirs.io.max.bytes.per.second=1000".to_owned());
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "slow", 1, &[]);
    let here = places(&mut connection, "slow")[0].1.clone();
    let there = path(&home, if here.ends_with("/a") { "b" } else { "a" });
    assert_eq!(alter(&mut connection, "/nowhere", "slow", &[0]), [57]);
    assert_eq!(alter(&mut connection, &there, "slow", &[1]), [3]);
    assert_eq!(alter(&mut connection, &there, "none", &[0]), [3]);
    for _ in 0..40 {
        append(&mut connection, "slow", 0, &[&vec![b'x'; 100_000]]);
    }
    assert_eq!(alter(&mut connection, &there, "slow", &[0]), [0]);
    until("both are told", || {
        let found = places(&mut connection, "slow");
        if found.iter().any(|(_, at, is_future)| *is_future && *at == there) { Ok(()) } else { Err(found) }
    });
    assert_eq!(alter(&mut connection, &here, "slow", &[0]), [0]);
    until("the copy goes", || {
        let found = places(&mut connection, "slow");
        let left = folders(&home, there.rsplit('/').next().unwrap(), "slow");
        if found.len() == 1 && left.is_empty() { Ok(()) } else { Err((found, left)) }
    });
    // A deletion takes the copy along.
    assert_eq!(alter(&mut connection, &there, "slow", &[0]), [0]);
    assert_eq!(delete(&mut connection, "slow"), 0);
    until("nothing is left", || {
        let left = [folders(&home, "a", "slow"), folders(&home, "b", "slow")].concat();
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    // A wish for a replica that is not here yet.
    assert_eq!(alter(&mut connection, &there, "wished", &[0, 1, 2]), [3, 3, 3]);
    create(&mut connection, "wished", 3, &[]);
    let found = places(&mut connection, "wished");
    assert!(found.len() == 3 && found.iter().all(|(_, at, _)| *at == there), "{found:?}");
}
