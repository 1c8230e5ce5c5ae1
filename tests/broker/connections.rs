//! Many connections are spread over the shards by count; idle ones are closed.

use std::collections::BTreeMap;

use crate::process::Home;
use crate::wire::{FETCH_VERSION, Raw, append, connect, create, fetch_request, request};

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
fn connections_over_the_limit_are_closed_and_the_others_stay() {
    let home = Home::new(&["max.connections=3"]);
    let broker = home.start();
    let mut first = connect(&broker);
    let (second, third) = (connect(&broker), connect(&broker));
    Raw::open(&broker).assert_closed("one too many");
    create(&mut first, "stays", 1, &[]);
    drop((second, third));
    crate::process::until("room is made", || {
        let config = tidemill::client::ConnectionConfig::default();
        tidemill::client::Connection::open(&broker.address, &config).map(drop).map_err(|why| why.to_string())
    });
}
