//! What real clients were recorded to send to Apache Kafka (`tests/fixtures/wire/`), sent to this broker: every
//! request is answered in its version, and the answer parses to the last byte. Most are refused: the topics, groups
//! and members that they name are not there.

use std::fs;
use std::net::TcpStream;
use std::path::Path;

use bytes::Bytes;

use crate::idle::call;
use crate::process::{Home, PATIENCE};
use crate::{answers, turn};

#[test]
fn what_real_clients_were_recorded_to_send_is_answered() {
    let _turn = turn();
    // A lone member need not wait for others.
    let home = Home::new(&["group.initial.rebalance.delay.ms=0"]);
    let broker = home.start();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wire");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut answered = 0;
    for path in paths.iter().filter(|path| path.to_string_lossy().ends_with("-request.bin")) {
        let request = fs::read(path).unwrap();
        let number = |at: usize| i16::from_be_bytes([request[at], request[at + 1]]);
        let stream = TcpStream::connect(&broker.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let answer = call(&stream, &request);
        let name = path.file_name().unwrap().to_string_lossy();
        assert_eq!(answer[..4], request[8..12], "{name}: the correlation id");
        let read = answers::parse(number(4), number(6), Bytes::from(answer).slice(4..));
        read.unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
        answered += 1;
    }
    assert!(answered > 150, "only {answered} requests");
    assert_eq!(broker.stop(), Some(0));
}
