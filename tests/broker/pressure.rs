//! Many against few and few against many, and a coming and going: no errors, and nothing is left behind.

use crate::process::{Home, until};
use crate::wire::{
    FETCH_VERSION, PRODUCE_VERSION, Raw, append, batch, connect, create, fetch_request, produce_request,
    read_all, request,
};

const MIB: u64 = 1 << 20;

#[test]
fn two_hundred_clients_share_one_partition() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut first = connect(&broker);
    create(&mut first, "one", 1, &[]);
    append(&mut first, "one", 0, &[b"first"]);
    let (before, descriptors) = (broker.memory_bytes(), broker.descriptors());
    let mut clients: Vec<_> = (0..200).map(|_| connect(&broker)).collect();
    let mut offsets = std::collections::BTreeSet::from([0]);
    for round in 0..10_u8 {
        let tickets: Vec<_> = (0_u8..)
            .zip(&mut clients)
            .map(|(client, connection)| {
                let request = produce_request("one", -1, vec![(0, batch(&[&[client, round]]))]);
                connection.send(&request, PRODUCE_VERSION).unwrap()
            })
            .collect();
        for (connection, ticket) in clients.iter_mut().zip(tickets) {
            let answer = connection.receive(ticket).unwrap();
            let part = &answer.responses[0].partition_responses[0];
            assert_eq!(part.error_code, 0);
            assert!(offsets.insert(part.base_offset), "an offset is given once");
        }
    }
    assert_eq!(offsets.len(), 2_001);
    let read = read_all(&mut first, "one", 0);
    assert_eq!(read.len(), 2_001);
    for client in 0..200_u8 {
        let rounds: Vec<u8> =
            read.iter().filter(|(_, v)| v.len() == 2 && v[0] == client).map(|(_, v)| v[1]).collect();
        assert_eq!(rounds, (0..10).collect::<Vec<_>>(), "a client's records are in its order");
    }
    drop(clients);
    until("everything is given back", || {
        let now = (broker.descriptors(), broker.memory_bytes().saturating_sub(before) / MIB);
        if now.0 <= descriptors && now.1 < 16 { Ok(()) } else { Err(now) }
    });
}

/// Three hundred, as every partition takes its syncs to make; `PRESSURE_PARTITIONS=2000` for more.
fn partitions() -> i32 {
    std::env::var("PRESSURE_PARTITIONS").map_or(300, |count| count.parse().unwrap())
}

#[test]
fn four_clients_use_very_many_partitions() {
    let partitions = partitions();
    let home = Home::new(&[]);
    let broker = home.start();
    let mut clients: Vec<_> = (0..4).map(|_| connect(&broker)).collect();
    create(&mut clients[0], "wide", partitions, &[]);
    append(&mut clients[0], "wide", partitions - 1, &[b"first"]);
    for round in 0..3 {
        for connection in &mut clients {
            let parts = (0..partitions).map(|index| (index, batch(&[b"value"]))).collect();
            let response = until("all partitions serve", || {
                let parts: &Vec<(i32, bytes::Bytes)> = &parts;
                let request = produce_request("wide", 1, parts.clone());
                let response = connection.call(&request, PRODUCE_VERSION).unwrap();
                let failed = response.responses[0].partition_responses.iter().find(|p| p.error_code != 0);
                match failed {
                    // Its log is not open yet.
                    Some(part) if part.error_code == 6 && round == 0 => Err(part.index),
                    Some(part) => panic!("{part:?}"),
                    None => Ok(response),
                }
            });
            assert_eq!(response.responses[0].partition_responses.len(), partitions as usize);
        }
    }
    let parts: Vec<(i32, i64)> = (0..partitions).map(|index| (index, 0)).collect();
    for connection in &mut clients {
        let response = connection.call(&fetch_request("wide", &parts), FETCH_VERSION).unwrap();
        for part in &response.responses[0].partitions {
            let mut records = Vec::new();
            crate::wire::records(part.records.as_deref().unwrap_or_default(), &mut records);
            assert_eq!(part.error_code, 0);
            assert!(records.len() >= 12, "partition {}: {} records", part.partition_index, records.len());
        }
    }
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn a_thousand_connections_come_and_go_and_leave_nothing_behind() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut good = connect(&broker);
    create(&mut good, "good", 2, &[]);
    append(&mut good, "good", 0, &[b"v"]);
    let round = || {
        for number in 0..1_000 {
            let mut raw = Raw::open(&broker);
            match number % 4 {
                // Gone at once, in the middle of a frame, without taking the answer, and after it.
                0 => {}
                1 => raw.send(&[0, 0, 1, 0, 0, 18]),
                2 => raw.send_frame(&request(18, 0, 1, &[])),
                _ => {
                    raw.send_frame(&request(18, 0, 1, &[]));
                    raw.frame();
                }
            }
        }
    };
    round();
    let (descriptors, memory) = (broker.descriptors(), broker.memory_bytes());
    round();
    round();
    append(&mut good, "good", 1, &[b"others go on"]);
    until("everything is given back", || {
        let now = (broker.descriptors(), broker.memory_bytes().saturating_sub(memory) / 1024);
        if now.0 <= descriptors && now.1 < 2_048 { Ok(()) } else { Err(now) }
    });
    assert_eq!(broker.stop(), Some(0));
}
