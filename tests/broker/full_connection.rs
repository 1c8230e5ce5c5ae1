//! A client that sends and sends and reads no answer fills its own socket and nothing else.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use kafka_protocol::messages::{FetchRequest, ProduceRequest, RequestHeader};
use kafka_protocol::protocol::{Encodable, HeaderVersion};
use nix::sys::socket::{setsockopt, sockopt::SndBuf};

use crate::process::{Home, PATIENCE};
use crate::wire::{
    FETCH_VERSION, PRODUCE_VERSION, Raw, append, batch, connect, create, fetch_request, produce_request,
    read_all,
};

const MIB: u64 = 1 << 20;

fn frame<R: Encodable + HeaderVersion>(api_key: i16, version: i16, number: i32, request: &R) -> Vec<u8> {
    let mut body = Vec::new();
    let header = RequestHeader::default()
        .with_request_api_key(api_key)
        .with_request_api_version(version)
        .with_correlation_id(number);
    header.encode(&mut body, R::header_version(version)).unwrap();
    request.encode(&mut body, version).unwrap();
    let mut frame = (body.len() as i32).to_be_bytes().to_vec();
    frame.extend_from_slice(&body);
    frame
}

/// Sends frames until the socket takes no more for a while; how many went out whole, and the rest of the last.
fn fill(raw: &mut Raw, frames: impl Iterator<Item = Vec<u8>>) -> (i32, Vec<u8>) {
    raw.0.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    for (sent, frame) in (0..).zip(frames) {
        let mut rest = &frame[..];
        while !rest.is_empty() {
            match raw.0.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => return (sent, rest.to_vec()),
                Err(error) => panic!("after {sent} frames: {error}"),
            }
        }
    }
    panic!("the socket takes everything: nothing ever pushes back");
}

/// Fills a connection, checks that it costs little and that others go on, then takes every answer.
fn full_and_emptied(overrides: &[&str], frames: impl Fn(i32) -> Vec<u8>, frames_max: i32) -> i32 {
    let home = Home::new(overrides);
    let broker = home.start();
    let mut other = connect(&broker);
    create(&mut other, "busy", 2, &[]);
    append(&mut other, "busy", 0, &[&[b'x'; 2_000]]);
    let before = broker.memory_bytes();
    let mut raw = Raw::open(&broker);
    let (sent, rest) = fill(&mut raw, (0..frames_max).map(&frames));
    let grown = broker.memory_bytes().saturating_sub(before);
    assert!(grown < 64 * MIB, "{} MiB more for {sent} frames that nobody asks after", grown / MIB);
    append(&mut other, "busy", 0, &[b"others go on"]);
    let mut writer = Raw(raw.0.try_clone().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // Longer than the reader's patience, so that a failure is the reader's.
            writer.0.set_write_timeout(Some(2 * PATIENCE)).unwrap();
            writer.send(&rest);
        });
        for number in 0..=sent {
            assert_eq!(raw.frame()[..4], number.to_be_bytes(), "answers come in order and none is missing");
        }
    });
    assert_eq!(read_all(&mut other, "busy", 0).len(), 2);
    let written = read_all(&mut other, "busy", 1).len() as i32;
    assert_eq!(broker.stop(), Some(0));
    assert!(written == 0 || written == sent + 1, "{written} of {} records", sent + 1);
    sent
}

#[test]
fn produces_whose_answers_are_not_read_push_back() {
    let records = batch(&[&[b'p'; 50]]);
    let request: ProduceRequest = produce_request("busy", -1, vec![(1, records)]);
    full_and_emptied(&[], |number| frame(0, PRODUCE_VERSION, number, &request), 10_000_000);
}

#[test]
fn fetches_whose_answers_are_not_read_push_back() {
    let request: FetchRequest = fetch_request("busy", &[(0, 0)]);
    let sent = full_and_emptied(&[], |number| frame(1, FETCH_VERSION, number, &request), 10_000_000);
    assert!(sent < 200_000, "{sent} requests were taken, with an answer of 2 kB");
}

#[test]
fn small_socket_buffers_push_back_too_and_nothing_stalls() {
    let records = batch(&[&[b'p'; 50]]);
    let request: ProduceRequest = produce_request("busy", -1, vec![(1, records)]);
    let small = ["socket.receive.buffer.bytes=16384", "socket.send.buffer.bytes=16384"];
    full_and_emptied(&small, |number| frame(0, PRODUCE_VERSION, number, &request), 10_000_000);
    let request: FetchRequest = fetch_request("busy", &[(0, 0)]);
    full_and_emptied(&small[..1], |number| frame(1, FETCH_VERSION, number, &request), 10_000_000);
}

/// Where both directions stay full the kernel may drop what the client sends, and with it the news that the
/// client has room again, until the broker has emptied its receive queue: so it does that now and then.
#[test]
fn a_connection_whose_answers_are_not_read_is_emptied_now_and_then() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut other = connect(&broker);
    create(&mut other, "busy", 1, &[]);
    append(&mut other, "busy", 0, &[&[b'x'; 2_000]]);
    let request: FetchRequest = fetch_request("busy", &[(0, 0)]);
    let mut raw = Raw::open(&broker);
    // Small, so that the client notices when the broker takes less than the kernel's own four megabytes.
    setsockopt(&raw.0, SndBuf, &65_536).unwrap();
    let (sent, rest) = fill(&mut raw, (0..).map(|number| frame(1, FETCH_VERSION, number, &request)));
    raw.0.set_write_timeout(Some(PATIENCE)).unwrap();
    raw.0.write_all(&rest).expect("the broker takes a little though no answer was read");
    for number in 0..=sent {
        assert_eq!(raw.frame()[..4], number.to_be_bytes(), "what was taken early is answered in its turn");
    }
}
