//! What a connection costs the broker while it does nothing.

use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::Bytes;

use crate::body::PRODUCE;
use crate::process::{Home, PATIENCE};
use crate::storm::{settled_memory, world};
use crate::*;

const CONNECTIONS: usize = 2_000;
/// What each may cost.
const BYTES_MAX: u64 = 16 << 10;

#[test]
fn two_thousand_idle_connections_cost_little() {
    let _turn = turn();
    let home = Home::new(&[]);
    let broker = home.start();
    let world = world(&broker);
    // Whatever is made once, by whoever comes first, is no connection's cost.
    let warm: Vec<TcpStream> = (0..100).map(|_| used(&broker.address, &world)).collect();
    let before = settled_memory(&broker).own_bytes;
    let idle: Vec<TcpStream> = (0..CONNECTIONS).map(|_| used(&broker.address, &world)).collect();
    let after = settled_memory(&broker).own_bytes;
    let each = after.saturating_sub(before) / CONNECTIONS as u64;
    eprintln!("{CONNECTIONS} idle connections: {each} bytes each ({before} bytes before, {after} after)");
    assert!(each <= BYTES_MAX, "{each} bytes each");
    // They are served, the first as well as the last.
    for stream in warm.iter().chain(&idle).step_by(97) {
        call(stream, &frame(18, 0, &[]));
    }
    drop((warm, idle));
    assert_eq!(broker.stop(), Some(0));
}

/// A connection that has asked for ApiVersions and Metadata, and has written a small batch.
fn used(address: &str, world: &World) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    call(&stream, &frame(18, 0, &[]));
    call(&stream, &frame(3, 1, &[0xff; 4]));
    call(&stream, &frame(PRODUCE, 3, &produce(&world.targets[0].name, 0, &small())));
    stream
}

pub fn small() -> Bytes {
    tidemill::log::batch::BatchBuilder::new().record(1_000, None, Some(b"small")).build()
}

/// The body of a Produce request of version 3 for one partition, acknowledged by its leader.
pub fn produce(topic: &str, partition: i32, batch: &[u8]) -> Vec<u8> {
    let mut body = vec![0xff, 0xff, 0, 1, 0, 0, 3, 0xe8, 0, 0, 0, 1];
    body.extend_from_slice(&(topic.len() as i16).to_be_bytes());
    body.extend_from_slice(topic.as_bytes());
    body.extend_from_slice(&1_i32.to_be_bytes());
    body.extend_from_slice(&partition.to_be_bytes());
    body.extend_from_slice(&(batch.len() as i32).to_be_bytes());
    body.extend_from_slice(batch);
    body
}

/// A frame with a header of version 1 and no client id.
pub fn frame(key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut bytes = (10 + body.len() as i32).to_be_bytes().to_vec();
    bytes.extend_from_slice(&key.to_be_bytes());
    bytes.extend_from_slice(&version.to_be_bytes());
    bytes.extend_from_slice(&[0, 0, 0, 7, 0xff, 0xff]);
    bytes.extend_from_slice(body);
    bytes
}

/// Sends a frame and takes its answer, without its length.
pub fn call(mut stream: &TcpStream, frame: &[u8]) -> Vec<u8> {
    stream.write_all(frame).unwrap();
    answer(stream).unwrap()
}

/// The next answer, without its length.
pub fn answer(mut stream: &TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}
