//! Many connections are spread over the shards by count; idle ones are closed.

use std::collections::BTreeMap;

use crate::process::{Home, until};
use crate::wire::{
    FETCH_VERSION, PRODUCE_VERSION, Raw, append, batch, connect, create, fetch, fetch_request,
    produce_request, request,
};

#[test]
fn five_hundred_connections_are_spread_evenly_and_all_served() {
    let home = Home::new(&["shard.count=4"]);
    let broker = home.start();
    let mut first = connect(&broker);
    create(&mut first, "shared", 8, &[]);
    append(&mut first, "shared", 0, &[b"v"]);
    drop(first);
    let mut connections: Vec<_> = (0..500).map(|_| connect(&broker)).collect();
    // A session lives on its connection's shard, and the low ten bits of its id name that shard.
    let mut by_shard = BTreeMap::new();
    for connection in &mut connections {
        let request = fetch_request("shared", &[(0, 0)]).with_session_epoch(0);
        let response = connection.call(&request, FETCH_VERSION).unwrap();
        assert!(response.session_id > 0, "a session is made");
        *by_shard.entry(response.session_id & 0x3ff).or_insert(0) += 1;
    }
    let counts: Vec<i32> = by_shard.values().copied().collect();
    assert_eq!(by_shard.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3], "{by_shard:?}");
    // The first connection may still have been counted when the others came.
    assert!(counts.iter().all(|count| (124..=126).contains(count)), "{counts:?}");
    for (number, connection) in (0..).zip(&mut connections) {
        append(connection, "shared", number % 8, &[b"all are served"]);
    }
}

#[test]
fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let home = Home::new(&["connections.max.idle.ms=1000"]);
    let broker = home.start();
    let mut busy = connect(&broker);
    create(&mut busy, "used", 1, &[]);
    let mut idle: Vec<Raw> = (0..4).map(|_| Raw::open(&broker)).collect();
    let mut halfway = Raw::open(&broker);
    halfway.send(&[0, 0, 0, 50, 0, 18]);
    let mut served = Raw::open(&broker);
    served.send_frame(&request(18, 0, 1, &[]));
    served.frame();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            for raw in idle.iter_mut().chain([&mut halfway, &mut served]) {
                raw.assert_closed("idle for a second");
            }
        });
        while !waiting.is_finished() {
            append(&mut busy, "used", 0, &[b"v"]);
            std::thread::park_timeout(std::time::Duration::from_millis(10));
        }
        waiting.join().unwrap();
    });
    append(&mut busy, "used", 0, &[b"still here"]);
}

#[test]
fn idle_connections_are_closed_although_nothing_else_happens() {
    let home = Home::new(&["connections.max.idle.ms=500"]);
    let broker = home.start();
    for raw in &mut [Raw::open(&broker), Raw::open(&broker), Raw::open(&broker)] {
        raw.assert_closed("idle on a quiet broker");
    }
}

#[test]
fn shards_that_lost_connections_get_the_next_ones() {
    let home = Home::new(&["shard.count=4"]);
    let broker = home.start();
    let mut first = connect(&broker);
    create(&mut first, "shared", 8, &[]);
    append(&mut first, "shared", 0, &[b"v"]);
    let shard_of = |connection: &mut tidemill::client::Connection| {
        let request = fetch_request("shared", &[(0, 0)]).with_session_epoch(0);
        connection.call(&request, FETCH_VERSION).unwrap().session_id & 0x3ff
    };
    let own = shard_of(&mut first);
    let mut connections: Vec<_> = (0..79).map(|_| connect(&broker)).map(|c| (-1, c)).collect();
    connections.iter_mut().for_each(|(shard, connection)| *shard = shard_of(connection));
    // Two shards lose all of theirs, and the broker has noticed when its descriptors are back.
    let before = broker.descriptors();
    let (kept, lost): (Vec<_>, Vec<_>) =
        connections.into_iter().partition(|(shard, _)| *shard == own || *shard == 3);
    let mut connections = kept;
    let lost_count = lost.len();
    drop(lost);
    until("they are gone", || {
        if broker.descriptors() <= before - lost_count { Ok(()) } else { Err(broker.descriptors()) }
    });
    connections.extend((0..lost_count).map(|_| connect(&broker)).map(|mut c| (shard_of(&mut c), c)));
    let mut counts = BTreeMap::from([(own, 1)]);
    connections.iter().for_each(|(shard, _)| *counts.entry(*shard).or_insert(0) += 1);
    assert_eq!(counts.len(), 4);
    assert!(counts.values().max().unwrap() - counts.values().min().unwrap() <= 1, "{counts:?}");
}

#[test]
fn two_thousand_idle_connections_cost_little_also_after_they_were_busy() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut first = connect(&broker);
    create(&mut first, "idle", 4, &[]);
    let large = vec![b'x'; 1_000_000];
    append(&mut first, "idle", 0, &[&large]);
    let before = broker.memory_bytes();
    let mut fresh: Vec<Raw> = (0..2_000).map(|_| Raw::open(&broker)).collect();
    // Everyone was served once, so nobody waits to be accepted any more.
    let api_versions = request(18, 0, 1, &[]);
    fresh.iter_mut().for_each(|raw| raw.send_frame(&api_versions));
    fresh.iter_mut().for_each(|raw| drop(raw.frame()));
    let each = broker.memory_bytes().saturating_sub(before) / 2_000;
    assert!(each < 16 << 10, "{each} bytes for an idle connection");
    drop(fresh);
    // Connections that once had large frames, long pipelines and large answers.
    let mut busy: Vec<_> = (0..100).map(|_| connect(&broker)).collect();
    for connection in &mut busy {
        append(connection, "idle", 1, &[&large]);
        let small = produce_request("idle", 1, vec![(2, batch(&[b"v"]))]);
        let tickets: Vec<_> = (0..90).map(|_| connection.send(&small, PRODUCE_VERSION).unwrap()).collect();
        tickets.into_iter().for_each(|ticket| drop(connection.receive(ticket).unwrap()));
        fetch(connection, "idle", 0, 0);
    }
    // They are slimmed when they have been quiet for a while.
    until("they are as small as before", || {
        let each = broker.memory_bytes().saturating_sub(before) / 100;
        if each < 256 << 10 { Ok(()) } else { Err(each) }
    });
    assert_eq!(broker.stop(), Some(0));
}
