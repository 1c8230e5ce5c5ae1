//! Bytes that are no request close their own connection, and nobody else notices.

use std::time::Duration;

use crate::process::{Broker, Home, until};
use crate::wire::{Raw, append, batch, connect, create, read_all, request};

/// Runs `hostile` against a broker while another connection goes on before, during and after.
fn while_another_goes_on(hostile: impl FnOnce(&Broker)) {
    let home = Home::new(&["socket.request.max.bytes=1000000"]);
    let broker = home.start();
    let mut good = connect(&broker);
    create(&mut good, "good", 2, &[]);
    append(&mut good, "good", 0, &[b"before"]);
    let sockets = broker.sockets();
    hostile(&broker);
    until("connections that ended are closed", || {
        let now = broker.sockets();
        if now <= sockets { Ok(()) } else { Err(now) }
    });
    append(&mut good, "good", 0, &[b"after"]);
    assert_eq!(read_all(&mut good, "good", 0).len(), 2);
    assert_eq!(read_all(&mut good, "good", 1).len(), 0);
    assert_eq!(broker.stop(), Some(0));
}

fn closes(broker: &Broker, why: &str, bytes: &[u8]) {
    let mut raw = Raw::open(broker);
    raw.send(bytes);
    raw.assert_closed(why);
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as i32).to_be_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

#[test]
fn lengths_that_cannot_be_close_the_connection() {
    while_another_goes_on(|broker| {
        closes(broker, "negative length", &(-1_i32).to_be_bytes());
        closes(broker, "most negative length", &i32::MIN.to_be_bytes());
        closes(broker, "zero length", &0_i32.to_be_bytes());
        closes(broker, "too short for a header", &framed(&[0, 18, 0]));
        closes(broker, "above socket.request.max.bytes", &1_000_001_i32.to_be_bytes());
        closes(broker, "largest length", &i32::MAX.to_be_bytes());
        // ApiVersions has a limit of its own, known after eight bytes.
        let mut large = 100_000_i32.to_be_bytes().to_vec();
        large.extend_from_slice(&[0, 18, 0, 3]);
        closes(broker, "above the limit of its API", &large);
    });
}

#[test]
fn requests_that_are_not_served_close_the_connection() {
    while_another_goes_on(|broker| {
        for api_key in [-1, 21, 999, i16::MAX] {
            closes(broker, "an unknown API", &framed(&request(api_key, 0, 1, &[])));
        }
        for (api_key, version) in [(0, 2), (0, 99), (1, 3), (1, -1), (3, 14), (3, i16::MIN), (19, 1), (22, 6)]
        {
            closes(broker, "an unknown version", &framed(&request(api_key, version, 1, &[0; 20])));
        }
    });
}

#[test]
fn bodies_that_lie_close_the_connection() {
    while_another_goes_on(|broker| {
        closes(
            broker,
            "Metadata v1 with a lying array",
            &framed(&request(3, 1, 1, &[0x7f, 0xff, 0xff, 0xff])),
        );
        closes(broker, "Metadata v1 cut short", &framed(&request(3, 1, 1, &[0, 0, 0, 2, 0, 1])));
        closes(broker, "Produce v3 of nothing", &framed(&request(0, 3, 1, &[])));
        let mut lying = vec![0xff, 0xff, 0, 1, 0, 0, 0, 9];
        lying.extend_from_slice(&i32::MAX.to_be_bytes());
        closes(broker, "Produce v3 with a lying array", &framed(&request(0, 3, 1, &lying)));
        closes(broker, "Fetch v4 with a lying array", &framed(&request(1, 4, 1, &[0x7f; 21])));
        closes(broker, "a client id beyond the frame", &framed(&[0, 3, 0, 1, 0, 0, 0, 1, 0x7f, 0xff]));
        // Seeded garbage in well-formed frames: any end is fine but a broker that ends.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..200_i16 {
            let mut body = vec![0; 8 + usize::from(round.unsigned_abs()) % 90];
            for byte in &mut body {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *byte = (state >> 56) as u8;
            }
            let keys = [0, 1, 2, 3, 18, 19, 20, 22];
            let api_key: i16 = keys[usize::from(round.unsigned_abs()) % keys.len()];
            body[..2].copy_from_slice(&api_key.to_be_bytes());
            body[2..4].copy_from_slice(&(round % 14).to_be_bytes());
            let mut raw = Raw::open(broker);
            raw.send_frame(&body);
        }
    });
}

#[test]
fn nothing_behind_a_refused_frame_is_served() {
    while_another_goes_on(|broker| {
        let mut good = connect(broker);
        create(&mut good, "untouched", 1, &[]);
        append(&mut good, "untouched", 0, &[b"first"]);
        // acks 1, a second to wait, partition 0 of the topic.
        let batch = batch(&[b"behind"]);
        let mut body = vec![0xff, 0xff, 0, 1, 0, 0, 3, 0xe8, 0, 0, 0, 1, 0, 9];
        body.extend_from_slice(b"untouched");
        body.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0]);
        body.extend_from_slice(&i32::to_be_bytes(batch.len() as i32));
        body.extend_from_slice(&batch);
        let behind = framed(&request(0, 3, 2, &body));
        let refused = [
            request(0, 99, 1, &[]),
            vec![0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xfe],
            request(0, 3, 1, &[]),
            request(3, 1, 1, &[0x7f, 0xff, 0xff, 0xff]),
        ];
        for frame in refused {
            closes(broker, "a refused frame and a good one", &[framed(&frame), behind.clone()].concat());
        }
        assert_eq!(read_all(&mut good, "untouched", 0).len(), 1);
    });
}

#[test]
fn a_frame_that_never_ends_holds_up_nobody() {
    while_another_goes_on(|broker| {
        let mut halves = Vec::new();
        for length in [15, 100, 900_000] {
            let mut raw = Raw::open(broker);
            raw.send(&i32::to_be_bytes(length));
            raw.send(&[0, 3, 0]);
            halves.push(raw);
        }
        let mut third = Raw::open(broker);
        third.send(&[0, 0]);
        drop(third);
        for raw in &mut halves {
            raw.give_up_after(Duration::from_millis(1));
            let mut byte = [0];
            let read = std::io::Read::read(&mut raw.0, &mut byte);
            assert!(read.is_err(), "an unfinished frame is waited for: {read:?}");
        }
    });
}

#[test]
fn a_request_in_single_bytes_is_a_request() {
    while_another_goes_on(|broker| {
        let mut raw = Raw::open(broker);
        for byte in framed(&request(18, 0, 77, &[])) {
            raw.send(&[byte]);
        }
        assert_eq!(raw.frame()[..4], 77_i32.to_be_bytes());
    });
}

#[test]
fn api_versions_of_any_version_is_answered() {
    while_another_goes_on(|broker| {
        let mut raw = Raw::open(broker);
        for (number, version) in (0..).zip([0, 1, 2, 5, 99, i16::MAX, -1]) {
            // From version 3 on the header ends with its tagged fields, here none.
            let tags: &[u8] = if version >= 3 { &[0] } else { &[] };
            raw.send_frame(&request(18, version, number, tags));
            let frame = raw.frame();
            assert_eq!(frame[..4], number.to_be_bytes(), "version {version}");
            let error = i16::from_be_bytes([frame[4], frame[5]]);
            assert_eq!(error, if (0..3).contains(&version) { 0 } else { 35 }, "version {version}");
            let count = i32::from_be_bytes([frame[6], frame[7], frame[8], frame[9]]);
            assert!(count >= 8, "version {version}: {count} APIs");
        }
    });
}
