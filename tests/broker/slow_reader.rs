//! A reader that asks for everything and takes nothing costs the broker no memory.

use std::time::Duration;

use kafka_protocol::messages::{FetchRequest, RequestHeader};
use kafka_protocol::protocol::{Encodable, HeaderVersion, StrBytes};

use crate::process::{Home, until};
use crate::wire::{FETCH_VERSION, Raw, append, connect, create, fetch_request, read_all};

const MIB: u64 = 1 << 20;

#[test]
fn a_huge_fetch_to_a_slow_reader_keeps_memory_bounded() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "large", 1, &[]);
    let value = vec![b'x'; 1_000_000];
    for _ in 0..64 {
        append(&mut connection, "large", 0, &[&value]);
    }
    let before = broker.memory_bytes();
    // Eight readers ask five times each for 64 MiB and read nothing: 2.5 GiB asked for.
    let mut body = Vec::new();
    let header = RequestHeader::default()
        .with_request_api_key(1)
        .with_request_api_version(FETCH_VERSION)
        .with_correlation_id(5)
        .with_client_id(Some(StrBytes::from_static_str("slow")));
    let version = FetchRequest::header_version(FETCH_VERSION);
    header.encode(&mut body, version).unwrap();
    fetch_request("large", &[(0, 0)]).encode(&mut body, FETCH_VERSION).unwrap();
    let mut readers: Vec<Raw> = (0..8).map(|_| Raw::open(&broker)).collect();
    for reader in &mut readers {
        for _ in 0..5 {
            reader.send_frame(&body);
        }
    }
    // Each is being served once its first bytes have come.
    for reader in &mut readers {
        until("the answer begins", || match reader.0.peek(&mut [0; 1]) {
            Ok(1) => Ok(()),
            other => Err(other),
        });
    }
    append(&mut connection, "large", 0, &[b"others go on"]);
    let grown = broker.memory_bytes().saturating_sub(before);
    assert!(grown < 32 * MIB, "{} MiB more for readers that do not read", grown / MIB);
    // One of them reads at last, and everything is there.
    let reader = &mut readers[0];
    reader.give_up_after(Duration::from_secs(60));
    for _ in 0..5 {
        let frame = reader.frame();
        assert_eq!(frame[..4], 5_i32.to_be_bytes());
        assert!(frame.len() as u64 > 50 * MIB, "{} bytes", frame.len());
    }
    drop(readers);
    assert_eq!(read_all(&mut connection, "large", 0).len(), 65);
    assert_eq!(broker.stop(), Some(0));
}
