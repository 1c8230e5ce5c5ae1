//! From bytes in the receive buffer to a request whose partitions have been walked: framing, header, body.
//! `cargo bench --bench frames`

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{self, RequestHeader, TopicName};
use kafka_protocol::protocol::{Encodable, StrBytes};
use uuid::Uuid;

use tidemill::log::batch::BatchBuilder;
use tidemill::wire::api::ApiKey;
use tidemill::wire::fetch::FetchRequest;
use tidemill::wire::produce::ProduceRequest;
use tidemill::wire::{frame, header};

const FRAME_LIMIT_BYTES: u32 = 100 << 20;
const PARTITIONS: [i32; 2] = [1, 32];

/// A whole request with its length prefix.
fn framed(key: ApiKey, version: i16, body: &impl Encodable) -> Bytes {
    let mut bytes = BytesMut::from(&[0; 4][..]);
    let header = RequestHeader::default()
        .with_request_api_key(key as i16)
        .with_request_api_version(version)
        .with_correlation_id(7)
        .with_client_id(Some(StrBytes::from_static_str("bench")));
    let header_version = if key.api().is_flexible(version) { 2 } else { 1 };
    header.encode(&mut bytes, header_version).expect("a header");
    body.encode(&mut bytes, version).expect("a body");
    let length = u32::try_from(bytes.len() - 4).expect("a short frame");
    bytes.get_mut(..4).expect("a prefix").copy_from_slice(&length.to_be_bytes());
    bytes.freeze()
}

fn produce(version: i16, partitions: i32) -> Bytes {
    let records = BatchBuilder::new().record(5, None, Some(&[b'v'; 100])).build();
    let partition =
        |index| PartitionProduceData::default().with_index(index).with_records(Some(records.clone()));
    let topic = TopicProduceData::default()
        .with_name(TopicName(StrBytes::from_static_str("orders")))
        .with_partition_data((0..partitions).map(partition).collect());
    let body = messages::ProduceRequest::default().with_acks(1).with_timeout_ms(1500);
    framed(ApiKey::Produce, version, &body.with_topic_data(vec![topic]))
}

fn fetch(version: i16, partitions: i32) -> Bytes {
    let partition = |index| {
        let partition = FetchPartition::default().with_partition(index).with_fetch_offset(1 << 40);
        partition.with_partition_max_bytes(1 << 20)
    };
    let topic = FetchTopic::default().with_partitions((0..partitions).map(partition).collect());
    let topic = match version {
        ..13 => topic.with_topic(TopicName(StrBytes::from_static_str("orders"))),
        13.. => topic.with_topic_id(Uuid::from_u128(7)),
    };
    let body = messages::FetchRequest::default().with_max_wait_ms(500).with_min_bytes(1);
    framed(ApiKey::Fetch, version, &body.with_topics(vec![topic]))
}

/// What the broker does before a request can be routed; the sum keeps the walk alive.
fn decode(buffer: &mut BytesMut) -> i64 {
    let frame = frame::split(buffer, FRAME_LIMIT_BYTES).expect("a good frame").expect("a whole frame");
    let (header, body) = header::parse(&frame).expect("a good header");
    match header.api.key {
        ApiKey::Produce => {
            let request = ProduceRequest::parse(body, header.version).expect("a good body");
            let partitions = request.topics().flat_map(|topic| topic.partitions);
            partitions.map(|one| one.records.map_or(0, |records| records.len() as i64)).sum()
        }
        _ => {
            let request = FetchRequest::parse(body, header.version).expect("a good body");
            request.topics().flat_map(|topic| topic.partitions).map(|one| one.fetch_offset).sum()
        }
    }
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frames");
    type Make = fn(i16, i32) -> Bytes;
    let kinds: [(&str, Make, i16); 4] =
        [("produce", produce, 7), ("produce", produce, 12), ("fetch", fetch, 7), ("fetch", fetch, 17)];
    for (name, frame, version) in kinds {
        for partitions in PARTITIONS {
            let bytes = frame(version, partitions);
            group.throughput(Throughput::Bytes(bytes.len() as u64));
            group.bench_function(format!("{name} {version}, {partitions} partitions"), |bencher| {
                let buffer = || BytesMut::from(&bytes[..]);
                bencher.iter_batched_ref(buffer, decode, BatchSize::SmallInput);
            });
        }
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
