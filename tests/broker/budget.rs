//! A shard's byte budget: many large frames at once wait their turn, none is lost, memory keeps to it.

use crate::process::{Broker, Home};
use crate::wire::{PRODUCE_VERSION, Raw, append, batch, connect, create, produce_request, read_all};

const MIB: u64 = 1 << 20;

/// The frames of `clients` connections, each `rounds` times a record of `bytes`, all at once.
fn storm(broker: &Broker, clients: i32, rounds: u8, bytes: usize) -> u64 {
    let watching = std::sync::atomic::AtomicBool::new(true);
    let watching = &watching;
    std::thread::scope(|scope| {
        let watcher = scope.spawn(move || {
            let mut most = 0;
            while watching.load(std::sync::atomic::Ordering::Relaxed) {
                most = most.max(broker.memory_bytes());
                std::thread::park_timeout(std::time::Duration::from_millis(5));
            }
            most
        });
        let senders: Vec<_> = (0..clients)
            .map(|client| {
                scope.spawn(move || {
                    let mut connection = connect(broker);
                    for round in 0..rounds {
                        let mut value = vec![round; bytes];
                        value[..4].copy_from_slice(&client.to_be_bytes());
                        let request = produce_request("storm", -1, vec![(client % 4, batch(&[&value]))]);
                        let ticket = connection.send(&request, PRODUCE_VERSION).unwrap();
                        let answer = connection.receive(ticket).unwrap();
                        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
                    }
                })
            })
            .collect();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        watching.store(false, std::sync::atomic::Ordering::Relaxed);
        watcher.join().unwrap()
    })
}

#[test]
fn many_large_frames_at_once_are_all_served_within_the_budget() {
    // 4 MiB for each of two shards; frames of 1.9 MB from 128 connections want 243 MB.
    let home = Home::new(&[
        "queued.max.request.bytes=8388608",
        "socket.request.max.bytes=2000000",
        "message.max.bytes=1950000",
    ]);
    let broker = home.start();
    let mut control = connect(&broker);
    create(&mut control, "storm", 4, &[("max.message.bytes", "1950000")]);
    append(&mut control, "storm", 0, &[b"first"]);
    let before = broker.memory_bytes();
    let most = storm(&broker, 128, 2, 1_900_000);
    let grown = most.saturating_sub(before);
    // The allocator keeps some of what it was given back.
    assert!(grown < 80 * MIB, "{} MiB for a budget of 8", grown / MIB);
    let total: usize = (0..4).map(|partition| read_all(&mut control, "storm", partition).len()).sum();
    assert_eq!(total, 1 + 128 * 2);
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn promised_frames_hold_no_more_than_their_turn_and_small_ones_get_through() {
    let home = Home::new(&["queued.max.request.bytes=8388608", "socket.request.max.bytes=2000000"]);
    let broker = home.start();
    let mut good = connect(&broker);
    create(&mut good, "storm", 4, &[]);
    append(&mut good, "storm", 0, &[b"first"]);
    // Sixty-four connections promise 1.9 MB, send a little of it and go away half a minute early.
    let mut opening = 1_900_000_i32.to_be_bytes().to_vec();
    opening.extend_from_slice(&crate::wire::request(0, 9, 1, &[0; 1_000]));
    let mut hostile: Vec<Raw> = (0..64).map(|_| Raw::open(&broker)).collect();
    hostile.iter_mut().for_each(|raw| raw.send(&opening));
    drop(hostile);
    for _ in 0..100 {
        append(&mut good, "storm", 1, &[&[b'x'; 10_000]]);
    }
    storm(&broker, 8, 2, 900_000);
    assert_eq!(read_all(&mut good, "storm", 1).len(), 100 + 4);
}
