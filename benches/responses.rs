//! Encoding of Produce and Fetch responses into a connection's send buffer; the records of a fetch stay in their files.
//! `cargo bench --bench responses`

use bytes::{Buf, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use uuid::Uuid;

use tidemill::wire::TopicRef;
use tidemill::wire::fetch_response::{FetchPartitionResponse, FetchResponseHead, FetchResponseWriter};
use tidemill::wire::produce_response::{ProducePartitionResponse, ProduceResponseWriter};

const PARTITIONS: [u32; 2] = [1, 32];

fn topic(version: i16) -> TopicRef<'static> {
    if version >= 13 { TopicRef::Id(Uuid::from_u128(7)) } else { TopicRef::Name("orders") }
}

fn produce(buffer: &mut BytesMut, version: i16, partitions: u32) -> u64 {
    let mut writer = ProduceResponseWriter::new(buffer, version, 7, 1);
    writer.topic(topic(version), partitions);
    for index in 0..partitions {
        writer.partition(&ProducePartitionResponse {
            index: index.cast_signed(),
            error: None,
            base_offset: 1 << 40,
            log_append_time_ms: -1,
            log_start_offset: 0,
            record_errors: &[],
            error_message: None,
            current_leader: None,
        });
    }
    writer.finish(0, &[])
}

fn fetch(buffer: &mut BytesMut, version: i16, partitions: u32) -> u64 {
    let mut writer = FetchResponseWriter::new(buffer, version, 7, FetchResponseHead::default(), 1);
    writer.topic(topic(version), partitions);
    for index in 0..partitions {
        let partition = FetchPartitionResponse {
            index: index.cast_signed(),
            error: None,
            high_watermark: 1 << 40,
            last_stable_offset: 1 << 40,
            log_start_offset: 0,
            aborted_transactions: None,
            preferred_read_replica: -1,
            diverging_epoch: None,
            current_leader: None,
            snapshot_id: None,
        };
        writer.partition(&partition, 16 << 10);
    }
    writer.finish(&[])
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("responses");
    type Encode = fn(&mut BytesMut, i16, u32) -> u64;
    let kinds: [(&str, Encode, i16); 4] =
        [("produce", produce, 7), ("produce", produce, 13), ("fetch", fetch, 7), ("fetch", fetch, 17)];
    for (name, encode, version) in kinds {
        for partitions in PARTITIONS {
            let mut buffer = BytesMut::with_capacity(64 << 10);
            encode(&mut buffer, version, partitions);
            group.throughput(Throughput::Bytes(buffer.len() as u64));
            group.bench_function(format!("{name} {version}, {partitions} partitions"), |bencher| {
                bencher.iter(|| {
                    // As after a send: what is there was taken, and the memory is used again.
                    buffer.advance(buffer.len());
                    encode(&mut buffer, version, partitions)
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
