//! Every workload under the name that the command line, the tables and the result files use: first the rows of the
//! design's table of figures, in its order, then the further ones, then those of real clients and of
//! clusters.

use tidemill::log::codec::Codec;

use super::{Client, Drive, Figure, Group, Reach, ReadFrom, Role, Tool, Work, Workload, Writing};

const SMALL: Writing = Writing::of(1, 100);
const MEDIUM: Writing = Writing::of(100, 100);
const TEN: Writing = Writing::of(10, 100);
/// What lies in a partition from which is read.
const STORED_BYTES: u64 = 64 << 20;
/// Requests a second of the workloads with readers at the log's end: 20 MB/s, below anybody's peak.
const TAIL_RATE: f64 = 2_000.0;
/// Requests out at any time in the workloads that show how cost follows from numbers.
const OUT: usize = 64;
/// Four connections that send a request of [`MEDIUM`] in turn, at the rate of the workloads with readers.
const STEADY: Role = Role { rate: Some(TAIL_RATE), ..writers(4, 1, MEDIUM) };
const TAIL: Role = readers(1, 4, 1 << 20, ReadFrom::End);
const BACKLOG: Role = readers(1, 4, 1 << 20, ReadFrom::Start);
/// The same with a connection for each partition, which the floor can serve too.
const TAIL_APART: Role = readers(4, 1, 1 << 20, ReadFrom::End);
const BACKLOG_APART: Role = readers(4, 1, 1 << 20, ReadFrom::Start);

const fn role(connections: usize, partitions_each: usize, work: Work) -> Role {
    Role { connections, partitions_each, rate: None, at_once: None, reach: Reach::Any, work }
}

const fn writers(connections: usize, partitions_each: usize, writing: Writing) -> Role {
    role(connections, partitions_each, Work::Write(writing))
}

const fn readers(connections: usize, partitions_each: usize, max_bytes: usize, from: ReadFrom) -> Role {
    role(connections, partitions_each, Work::Read { max_bytes, from })
}

/// What a row has unless it says otherwise.
fn row(name: &'static str, title: &'static str, roles: &[Role]) -> Workload {
    Workload {
        name,
        title,
        drive: Drive::Wire(roles.to_vec()),
        partitions: 4,
        topics: 1,
        stored_bytes: 0,
        topic_settings: Vec::new(),
        broker_settings: Vec::new(),
        group: Group::Further,
        figure: Figure::CpuPerRequest,
        walk: &[],
    }
}

fn lines(settings: &[&str]) -> Vec<String> {
    settings.iter().map(|line| (*line).to_owned()).collect()
}

/// Every workload.
pub fn all() -> Vec<Workload> {
    let mut all = canonical();
    for workload in &mut all {
        let wide = workload.partitions > 4;
        workload.group = if wide { Group::Table } else { Group::Canonical };
    }
    all.extend(producers());
    all.extend(scale());
    all.extend(with_consumers());
    all.extend(clients());
    all.extend(clusters());
    all
}

/// The rows of the design's table.
fn canonical() -> Vec<Workload> {
    // Kafka refuses a batch above 1,048,588 bytes; 1000 × 1000 B and their framing stay below.
    let large = Writing { in_flight: 2, ..Writing::of(1000, 1000) };
    let alone = Writing { in_flight: 1, ..TEN };
    let together = Writing { partitions_per_request: 32, ..TEN };
    vec![
        row("produce-small", "produce, 1 × 100 B a request, 5 in flight", &[writers(4, 1, SMALL)]),
        row("produce-medium", "produce, 100 × 100 B, 5 in flight", &[writers(4, 1, MEDIUM)]),
        Workload {
            figure: Figure::CpuPerGb,
            ..row("produce-large", "produce, 1000 × 1 kB (1 MB), 2 in flight", &[writers(4, 1, large)])
        },
        Workload {
            partitions: 64,
            ..row(
                "produce-64-connections",
                "produce, 64 connections and partitions, 10 × 100 B, 1 in flight",
                &[writers(64, 1, alone)],
            )
        },
        Workload {
            partitions: 128,
            ..row(
                "produce-32-partitions",
                "produce, 32 partitions × (10 × 100 B) in one request",
                &[writers(4, 32, together)],
            )
        },
        Workload {
            stored_bytes: STORED_BYTES,
            figure: Figure::CpuPerGb,
            ..row("fetch-1mb", "fetch, 1 MB", &[readers(4, 1, 1 << 20, ReadFrom::Start)])
        },
        Workload {
            stored_bytes: STORED_BYTES,
            ..row("fetch-16kb", "fetch, 16 kB", &[readers(4, 1, 16 << 10, ReadFrom::Start)])
        },
        Workload {
            partitions: 1,
            figure: Figure::MedianLatency,
            ..row(
                "one-at-a-time",
                "one request at a time (produce, 1 × 100 B), p50",
                &[writers(1, 1, Writing { in_flight: 1, ..SMALL })],
            )
        },
    ]
}

/// Further shapes of producers.
fn producers() -> Vec<Workload> {
    let keyed = Writing { keyed: true, partitions_per_request: 3, ..TEN };
    let alone = Writing { in_flight: 1, ..TEN };
    let huge = Writing { in_flight: 1, ..Writing::of(8000, 1000) };
    // acks=all, as clients have it by default with idempotence.
    let idempotent = Writing { idempotent: true, acks: -1, ..MEDIUM };
    let compressed = |codec| [writers(4, 1, Writing { codec, ..Writing::of(1000, 100) })];
    vec![
        Workload {
            partitions: 12,
            ..row(
                "produce-keyed",
                "produce, 50 producers of keyed records, 3 of 12 partitions × (10 × 100 B) in a request",
                &[writers(50, 12, keyed)],
            )
        },
        Workload {
            topic_settings: lines(&["max.message.bytes=10485760"]),
            figure: Figure::CpuPerGb,
            ..row("produce-8mb", "produce, 8000 × 1 kB (8 MB), 1 in flight", &[writers(4, 1, huge)])
        },
        Workload {
            partitions: 64,
            ..row(
                "produce-1000-connections",
                "produce, 1,000 connections on 64 partitions, 10 × 100 B, 1 in flight",
                &[writers(1000, 1, alone)],
            )
        },
        Workload {
            partitions: 1000,
            ..row(
                "produce-1000-partitions",
                "produce, 1,000 partitions in turn, 10 × 100 B a request, 5 in flight",
                &[writers(4, 250, TEN)],
            )
        },
        Workload {
            partitions: 4096,
            ..row(
                "produce-4096-partitions",
                "produce, 4,096 partitions in turn, 10 × 100 B a request, 5 in flight",
                &[writers(4, 1024, TEN)],
            )
        },
        row(
            "produce-everywhere",
            "produce, one connection on 4 partitions in turn, 100 × 100 B, 5 in flight",
            &[writers(1, 4, MEDIUM)],
        ),
        row(
            "produce-idempotent",
            "produce, idempotent, 100 × 100 B, 5 in flight",
            &[writers(4, 1, idempotent)],
        ),
        row("produce-gzip", "produce, gzip, 1000 × 100 B, 5 in flight", &compressed(Codec::Gzip)),
        row("produce-snappy", "produce, snappy, 1000 × 100 B, 5 in flight", &compressed(Codec::Snappy)),
        row("produce-lz4", "produce, lz4, 1000 × 100 B, 5 in flight", &compressed(Codec::Lz4)),
        row("produce-zstd", "produce, zstd, 1000 × 100 B, 5 in flight", &compressed(Codec::Zstd)),
    ]
}

/// The same load on more and more connections, and on more and more partitions. 64 requests are out at any time
/// whatever their number, so that a turn of the broker has the same work to do at every point of the curve: what a
/// request costs more is due to the number alone.
fn scale() -> Vec<Workload> {
    let alone = Writing { in_flight: 1, ..TEN };
    vec![
        Workload {
            partitions: 64,
            walk: &["connections=64,256,1024,4096,10000"],
            ..row(
                "many-connections",
                "produce, 10,000 connections on 64 partitions that take turns, 64 requests out, 10 × 100 B",
                &[Role { at_once: Some(OUT), ..writers(10_000, 1, alone.clone()) }],
            )
        },
        Workload {
            partitions: 64 * 800,
            topics: 64,
            walk: &["partitions=64,1024,10240,51200"],
            ..row(
                "many-partitions",
                "produce, 51,200 partitions of 64 topics in turn, a connection for each topic, 10 × 100 B, 1 in flight",
                &[Role { at_once: Some(OUT), ..writers(64, 800, alone) }],
            )
        },
    ]
}

/// Producers at a steady rate, and consumers.
fn with_consumers() -> Vec<Workload> {
    // Every batch is fetched eight times: a quarter of the rate.
    let one = Role { rate: Some(TAIL_RATE / 4.0), ..writers(1, 4, MEDIUM) };
    let eight = Role { connections: 8, ..TAIL };
    let mut workloads = vec![
        row(
            "fan-out",
            "1 producer (100 × 100 B, 500 requests/s), 8 consumers of the same 4 partitions",
            &[one, eight],
        ),
        Workload {
            stored_bytes: STORED_BYTES,
            ..row("tail", "100 × 100 B, 2,000 requests/s, and a reader at the log's end", &[STEADY, TAIL])
        },
        Workload {
            stored_bytes: STORED_BYTES,
            ..row(
                "tail-and-backlog",
                "100 × 100 B, 2,000 requests/s, readers at the log's end and from its start",
                &[STEADY, TAIL, BACKLOG],
            )
        },
        Workload {
            stored_bytes: STORED_BYTES,
            ..row(
                "tail-apart",
                "100 × 100 B, 2,000 requests/s, and a reader at the end of each of the 4 partitions",
                &[STEADY, TAIL_APART],
            )
        },
        Workload {
            stored_bytes: STORED_BYTES,
            ..row(
                "tail-and-backlog-apart",
                "the same, and a reader from the start of each",
                &[STEADY, TAIL_APART, BACKLOG_APART],
            )
        },
        Workload {
            topic_settings: lines(&[
                "retention.bytes=16777216",
                "segment.bytes=4194304",
                "file.delete.delay.ms=1000",
            ]),
            broker_settings: lines(&[
                "log.retention.check.interval.ms=1000",
                "log.initial.task.delay.ms=1000",
            ]),
            ..row(
                "retention",
                "tail and backlog while segments of 4 MiB are deleted above 16 MiB a partition",
                &[STEADY, TAIL, BACKLOG],
            )
        },
    ];
    workloads.iter_mut().for_each(|workload| workload.figure = Figure::EndToEnd);
    workloads
}

/// Producers with acks=all at a steady rate, below the peak of three nodes on two CPUs. Two partitions for each of
/// three nodes.
fn clusters() -> Vec<Workload> {
    let to_all = |name, title, writing: Writing, rate| Workload {
        partitions: 6,
        group: Group::Cluster,
        ..row(name, title, &[Role { rate: Some(rate), ..writers(6, 1, Writing { acks: -1, ..writing }) }])
    };
    let large = Writing { in_flight: 2, ..Writing::of(1000, 1000) };
    vec![
        to_all("cluster-small", "produce, acks=all, 1 × 100 B, 1,000 requests/s", SMALL, 1000.0),
        to_all("cluster-medium", "produce, acks=all, 100 × 100 B, 500 requests/s", MEDIUM, 500.0),
        Workload {
            figure: Figure::CpuPerGb,
            ..to_all("cluster-large", "produce, acks=all, 1000 × 1 kB (1 MB), 30 requests/s", large, 30.0)
        },
    ]
}

/// Real clients.
fn clients() -> Vec<Workload> {
    let client = |name, title, tool, reads| Workload {
        drive: Drive::Client(Client { tool, reads, record_bytes: 1000 }),
        stored_bytes: if reads { STORED_BYTES } else { 0 },
        group: Group::Clients,
        figure: Figure::CpuPerRecord,
        ..row(name, title, &[])
    };
    vec![
        client("java-producer", "kafka-producer-perf-test, 1 kB", Tool::Java, false),
        client("java-consumer", "kafka-consumer-perf-test, 1 kB", Tool::Java, true),
        client("librdkafka-producer", "librdkafka (Python) writes, 1 kB", Tool::Librdkafka, false),
        client("librdkafka-consumer", "librdkafka (Python) reads, 1 kB", Tool::Librdkafka, true),
    ]
}
