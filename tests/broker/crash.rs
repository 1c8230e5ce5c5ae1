//! `kill -9`: what was acknowledged is there, and a topic is there whole or not at all.

use std::sync::atomic::{AtomicUsize, Ordering};

use tidemill::client::{Cluster, ConnectionConfig, Consumer, ConsumerConfig, TopicPartition};

use crate::process::{Home, until};
use crate::wire::{append, connect, create, describe, produce_request, read_all, try_create};

#[test]
fn acknowledged_records_survive_a_kill_while_more_are_on_their_way() {
    let home = Home::new(&[]);
    let mut acknowledged = [0_i64; 4];
    for round in 0..3 {
        let broker = home.start();
        let mut connection = connect(&broker);
        if round == 0 {
            create(&mut connection, "kept", 4, &[]);
        }
        // Until a partition is open it sends clients away, and requests in a row would be lost on it.
        for partition in 0..4 {
            read_all(&mut connection, "kept", partition);
        }
        let mut tickets = Vec::new();
        for request in 0..40 {
            let value = format!("{round}-{request}").into_bytes();
            let parts = (0..4).map(|partition| (partition, crate::wire::batch(&[&value]))).collect();
            let sent = connection.send(&produce_request("kept", -1, parts), crate::wire::PRODUCE_VERSION);
            tickets.push(sent.unwrap());
        }
        // Half of them are answered, the rest may be anywhere.
        for ticket in tickets.drain(..20) {
            let answer = connection.receive(ticket).unwrap();
            for part in &answer.responses[0].partition_responses {
                assert_eq!(part.error_code, 0);
                acknowledged[part.index as usize] = part.base_offset + 1;
            }
        }
        broker.kill();
        assert!(!home.data().join(".kafka_cleanshutdown").exists());
        let broker = home.start();
        let mut connection = connect(&broker);
        for (partition, end) in (0..).zip(acknowledged) {
            let read = read_all(&mut connection, "kept", partition);
            assert!(read.len() as i64 >= end, "{partition}: {} of {end} acknowledged", read.len());
            let values: Vec<_> = read.iter().map(|(_, value)| value.clone()).collect();
            let mut once = values.clone();
            once.dedup();
            assert_eq!(once, values, "nothing twice");
            let next = append(&mut connection, "kept", partition, &[b"after"]);
            assert_eq!(next, read.len() as i64, "the log goes on where it ends");
            acknowledged[partition as usize] = next + 1;
        }
        broker.kill();
    }
}

#[test]
fn a_topic_that_syncs_every_message_acknowledges_and_survives() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "synced", 2, &[("flush.messages", "1")]);
    for round in 0..20 {
        assert_eq!(append(&mut connection, "synced", 0, &[b"a"]), round);
        let leader_only = crate::wire::produce(&mut connection, "synced", 1, 1, crate::wire::batch(&[b"b"]));
        assert_eq!((leader_only.error_code, leader_only.base_offset), (0, round));
    }
    broker.kill();
    let broker = home.start();
    let mut connection = connect(&broker);
    for partition in 0..2 {
        assert_eq!(read_all(&mut connection, "synced", partition).len(), 20);
    }
}

#[test]
fn a_kill_during_topic_creation_leaves_topics_whole_or_absent() {
    const PARTITIONS: i32 = 5;
    let home = Home::new(&[]);
    let (mut seen, mut created) = (0, 0);
    for round in 0..5_usize {
        let broker = home.start();
        let mut connection = connect(&broker);
        let acknowledged = AtomicUsize::new(0);
        // A rising number of acknowledged creations before the kill puts it at different moments.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0.. {
                    let topic = format!("t-{round}-{number}");
                    let wanted = kafka_protocol::messages::create_topics_request::CreatableTopic::default()
                        .with_name(crate::wire::name(&topic))
                        .with_num_partitions(PARTITIONS)
                        .with_replication_factor(1);
                    let request = kafka_protocol::messages::CreateTopicsRequest::default()
                        .with_topics(vec![wanted])
                        .with_timeout_ms(30_000);
                    match connection.call(&request, i16::MAX) {
                        Ok(response) => assert_eq!(response.topics[0].error_code, 0),
                        Err(_) => return,
                    }
                    acknowledged.fetch_add(1, Ordering::SeqCst);
                }
            });
            until("creations are acknowledged", || {
                let count = acknowledged.load(Ordering::SeqCst);
                if count > round { Ok(()) } else { Err(count) }
            });
            broker.kill();
        });
        let acknowledged = acknowledged.load(Ordering::SeqCst);
        let broker = home.start();
        let mut connection = connect(&broker);
        for number in 0..acknowledged + 2 {
            let topic = format!("t-{round}-{number}");
            let described = describe(&mut connection, &[&topic]).topics[0].clone();
            if described.error_code == 3 {
                assert!(number >= acknowledged, "{topic} was acknowledged and is gone");
                continue;
            }
            seen += 1;
            assert_eq!(described.partitions.len(), PARTITIONS as usize, "{topic} is whole");
            for partition in 0..PARTITIONS {
                assert_eq!(append(&mut connection, &topic, partition, &[b"x"]), 0, "{topic}-{partition}");
            }
            assert_eq!(try_create(&mut connection, &topic, PARTITIONS, &[]), 36, "{topic} exists");
        }
        created += acknowledged;
        assert_eq!(broker.stop(), Some(0));
    }
    assert!(created >= 15 && seen >= created, "{created} created, {seen} seen");
}

/// Whether a replica can be read, or answers that its storage failed.
fn serves(broker: &crate::process::Broker, topic: &str) -> bool {
    let found = crate::wire::fetch(&mut connect(broker), topic, 0, 0);
    assert!(matches!(found.error_code, 0 | 56), "{found:?}");
    found.error_code == 0
}

/// The machine has booted since the last start, as far as the files say, and the stop was none.
fn as_after_a_power_cut(home: &Home) {
    std::fs::write(home.data().join(".tidemill-boot-id"), "another boot\n").unwrap();
    std::fs::remove_file(home.data().join(".kafka_cleanshutdown")).unwrap();
}

#[test]
fn damage_below_the_recovery_point_stays_offline_over_every_kind_of_restart_until_it_is_repaired() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut connection = connect(&broker);
    for topic in ["hurt", "whole"] {
        create(&mut connection, topic, 1, &[]);
        for _ in 0..10 {
            append(&mut connection, topic, 0, &[b"a record that is long enough to be hit"]);
        }
    }
    assert_eq!(broker.stop(), Some(0));
    as_after_a_power_cut(&home);
    let log = home.data().join("hurt-0/00000000000000000000.log");
    let sound = std::fs::read(&log).unwrap();
    let mut damaged = sound.clone();
    damaged[sound.len() / 2] ^= 1;
    std::fs::write(&log, &damaged).unwrap();
    for stop_cleanly in [true, true, false, true] {
        let broker = home.start();
        broker.wait_for_line("hurt-0 is damaged below its recovery point");
        assert!(!serves(&broker, "hurt") && serves(&broker, "whole"));
        let refused = crate::wire::produce(&mut connect(&broker), "hurt", 0, 1, crate::wire::batch(&[b"x"]));
        assert_eq!(refused.error_code, 56);
        if stop_cleanly {
            assert_eq!(broker.stop(), Some(0));
        } else {
            broker.kill();
        }
        assert!(std::fs::read(&log).unwrap() == damaged, "nothing of it is touched");
        assert!(!home.data().join(".kafka_cleanshutdown").exists(), "the next start has to look again");
    }
    std::fs::write(&log, &sound).unwrap();
    let broker = home.start();
    assert_eq!(read_all(&mut connect(&broker), "hurt", 0).len(), 10);
    assert_eq!(append(&mut connect(&broker), "hurt", 0, &[b"next"]), 10);
    assert_eq!(broker.stop(), Some(0));
    assert!(home.data().join(".kafka_cleanshutdown").exists());
}

#[test]
fn a_replica_whose_topic_id_cannot_be_read_takes_none_along_and_goes_with_its_topic() {
    let home = Home::new(&[]);
    let broker = home.start();
    for topic in ["hurt", "whole"] {
        create(&mut connect(&broker), topic, 1, &[]);
        append(&mut connect(&broker), topic, 0, &[b"a"]);
    }
    assert_eq!(broker.stop(), Some(0));
    std::fs::write(home.data().join("hurt-0/partition.metadata"), "version: 0\ntopic_id: nonsense").unwrap();
    let broker = home.start();
    broker.wait_for_line("hurt-0 cannot be opened and stays offline: partition.metadata, line 2");
    assert!(!serves(&broker, "hurt") && serves(&broker, "whole"));
    assert_eq!(crate::wire::delete(&mut connect(&broker), "hurt"), 0);
    until("its directory is gone", || {
        let mut names = std::fs::read_dir(home.data()).unwrap().map(|entry| entry.unwrap().file_name());
        match names.find(|name| name.to_string_lossy().starts_with("hurt-0")) {
            Some(name) => Err(name),
            None => Ok(()),
        }
    });
    create(&mut connect(&broker), "hurt", 1, &[]);
    assert_eq!(append(&mut connect(&broker), "hurt", 0, &[b"new"]), 0);
}

/// The broker says that it is ready when it knows its partitions; one whose log is still being recovered has no leader
/// for a while, which a client waits for.
#[test]
fn a_reader_that_comes_while_a_log_is_recovered_waits_for_it() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "long", 1, &[]);
    let value = vec![b'v'; 900_000];
    for _ in 0..60 {
        append(&mut connection, "long", 0, &[&value]);
    }
    broker.kill();
    let broker = home.start();
    let cluster = Cluster::new(vec![broker.address.clone()], ConnectionConfig::default());
    let mut consumer = Consumer::new(cluster, ConsumerConfig::default());
    let end = consumer.offset_at(&TopicPartition::new("long", 0), -1).expect("the partition is there soon");
    assert_eq!(end, 60);
    assert_eq!(broker.stop(), Some(0));
}
