//! Clients that stand still: a frame that does not come on is given up, an answer that nobody takes
//! is too when it holds memory, and meanwhile they cost next to nothing.

use std::time::{Duration, Instant};

use crate::process::{Home, PATIENCE};
use crate::wire::{Raw, append, connect, create, request};

const MIB: u64 = 1 << 20;

#[test]
fn a_frame_that_comes_byte_by_byte_costs_what_has_arrived_and_is_given_up() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut good = connect(&broker);
    create(&mut good, "good", 1, &[]);
    append(&mut good, "good", 0, &[b"v"]);
    let before = broker.memory_bytes();
    // Frames of 100 MB that begin like produces.
    let mut opening = 100_000_000_i32.to_be_bytes().to_vec();
    opening.extend_from_slice(&request(0, 9, 1, &[0; 20]));
    let mut large: Vec<Raw> = (0..100).map(|_| Raw::open(&broker)).collect();
    large.iter_mut().for_each(|raw| raw.send(&opening));
    // A frame of 100 bytes that never ends.
    let mut small = Raw::open(&broker);
    small.send(&[0, 0, 0, 100]);
    let began = Instant::now();
    let (mut sent, mut buffer) = (0, [0]);
    small.give_up_after(Duration::from_millis(500));
    let closed = loop {
        append(&mut good, "good", 0, &[b"others go on"]);
        if sent < 90 {
            small.send(&[0, 18, 0, 0].get(sent..=sent).map_or(vec![0], <[u8]>::to_vec));
            large.iter_mut().for_each(|raw| raw.send(&[0]));
            sent += 1;
        }
        match std::io::Read::read(&mut small.0, &mut buffer) {
            Ok(0) => break true,
            Ok(_) => break false,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break true,
            Err(_) if began.elapsed() > PATIENCE => break false,
            Err(_) => {}
        }
    };
    assert!(closed, "a frame that takes for ever is given up");
    assert!(began.elapsed() > Duration::from_secs(25), "but not at once: {:?}", began.elapsed());
    let grown = broker.memory_bytes().saturating_sub(before);
    assert!(grown < 4 * MIB, "{} KiB more for frames of which nothing has come", grown / 1024);
    broker.wait_for_line("SlowSender");
    append(&mut good, "good", 0, &[b"others went on"]);
}
