//! The tools against a broker that answers with rubbish: whatever comes, a tool ends with an error and never panics.
//!
//! How: a listener answers ApiVersions, Metadata and FindCoordinator as a sound broker would, so that the tools get
//! as far as the requests of their own, and everything else with bytes from a seed: noise, or zeros and small numbers,
//! which decode further.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use bytes::{BufMut, BytesMut};
use fastrand::Rng;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    ApiVersionsResponse, BrokerId, FindCoordinatorResponse, MetadataResponse, TopicName,
};
use kafka_protocol::protocol::{Encodable, StrBytes};

const METADATA: i16 = 3;
const FIND_COORDINATOR: i16 = 10;
const API_VERSIONS: i16 = 18;
const LINES: [&str; 12] = [
    "topics --describe",
    "topics --create --topic t",
    "topics --alter --topic t --partitions 2",
    "configs --describe --topic t --all",
    "configs --alter --topic t --add-config a=b",
    "consumer-groups --list",
    "consumer-groups --describe --group g",
    "consumer-groups --reset-offsets --to-latest --group g --topic t --execute",
    "get-offsets",
    "log-dirs --describe",
    "cluster list-endpoints",
    "metadata tree /consumers",
];

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

/// Length, correlation id and tags, if the version has them, before what `body` writes.
fn frame(correlation_id: &[u8], tags: bool, body: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut frame = BytesMut::from(&[0; 4][..]);
    frame.extend_from_slice(correlation_id);
    if tags {
        frame.put_u8(0);
    }
    body(&mut frame);
    let length = (frame.len() - 4) as u32;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

fn api_versions() -> ApiVersionsResponse {
    let api = |key| ApiVersion::default().with_api_key(key).with_max_version(20);
    ApiVersionsResponse::default().with_api_keys((0..=92).map(api).collect())
}

fn metadata(port: u16) -> MetadataResponse {
    let broker = MetadataResponseBroker::default()
        .with_node_id(BrokerId(1))
        .with_host(text("127.0.0.1"))
        .with_port(i32::from(port));
    let partition = MetadataResponsePartition::default().with_leader_id(BrokerId(1));
    let topic = MetadataResponseTopic::default()
        .with_name(Some(TopicName(text("t"))))
        .with_partitions(vec![partition]);
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_controller_id(BrokerId(1))
        .with_topics(vec![topic])
}

fn coordinator(port: u16) -> FindCoordinatorResponse {
    let found = Coordinator::default()
        .with_key(text("g"))
        .with_node_id(BrokerId(1))
        .with_host(text("127.0.0.1"))
        .with_port(i32::from(port));
    FindCoordinatorResponse::default().with_coordinators(vec![found])
}

fn rubbish(rng: &mut Rng) -> Vec<u8> {
    let length = rng.usize(0..300);
    let small = rng.bool();
    (0..length).map(|_| if small && rng.u8(..8) > 0 { rng.u8(..3) } else { rng.u8(..) }).collect()
}

/// Answers one connection until it is closed.
fn serve(mut stream: TcpStream, port: u16, rng: &mut Rng) -> std::io::Result<()> {
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut request = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut request)?;
        let key = i16::from_be_bytes([request[0], request[1]]);
        let id = &request[4..8];
        let answer = match key {
            API_VERSIONS => frame(id, false, |body| api_versions().encode(body, 3).unwrap()),
            METADATA => frame(id, true, |body| metadata(port).encode(body, 12).unwrap()),
            FIND_COORDINATOR => frame(id, true, |body| coordinator(port).encode(body, 6).unwrap()),
            _ => frame(id, rng.bool(), |body| body.extend_from_slice(&rubbish(rng))),
        };
        stream.write_all(&answer)?;
    }
}

#[test]
fn no_answer_makes_a_tool_panic() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, seeds) = std::sync::mpsc::channel::<u64>();
    std::thread::spawn(move || {
        let mut rng = Rng::with_seed(0);
        while let Ok((stream, _)) = listener.accept() {
            if let Some(seed) = seeds.try_iter().last() {
                rng = Rng::with_seed(seed);
            }
            let mut rng = rng.fork();
            // A tool has two connections: to the broker that it asked first, and to the one that it was told of.
            std::thread::spawn(move || drop(serve(stream, port, &mut rng)));
        }
    });
    let mut failed = 0;
    for seed in 0..15 {
        for line in LINES {
            sender.send(seed).unwrap();
            let done = Command::new(env!("CARGO_BIN_EXE_tidemill"))
                .args(line.split_whitespace())
                .env("TIDEMILL_BOOTSTRAP_SERVER", format!("127.0.0.1:{port}"))
                .env("RUST_BACKTRACE", "0")
                .stdin(Stdio::null())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&done.stderr);
            assert!(!said.contains("panicked"), "seed {seed}, {line}: {said}");
            assert!(matches!(done.status.code(), Some(0 | 1)), "seed {seed}, {line}: {done:?}");
            failed += usize::from(done.status.code() == Some(1));
        }
    }
    // Few answers made of rubbish mean anything.
    assert!(failed > 15 * LINES.len() / 2, "only {failed} failed");
}
