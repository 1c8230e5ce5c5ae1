//! The check of a produced batch, and the share that its checksum has in it.
//! `cargo bench --bench batch`

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use tidemill::config::TopicConfig;
use tidemill::log::batch::{self, BatchBuilder};
use tidemill::log::check::{BatchRules, check_with};
use tidemill::log::codec::{Codec, CodecPool};

const WALL_MS: i64 = 1_700_000_000_000;

/// Records of half random, half repeated bytes, so that every codec has work to do.
fn batch_of(record_count: i64, value_bytes: usize, codec: Codec) -> Bytes {
    let mut random = fastrand::Rng::with_seed(7);
    let mut builder = BatchBuilder::new().codec(codec).producer(1, 0, 0);
    for n in 0..record_count {
        let value: Vec<u8> =
            (0..value_bytes).map(|at| if at % 16 < 8 { random.u8(..) } else { b'x' }).collect();
        builder.push(WALL_MS + n / 10, None, Some(&value), &[]);
    }
    builder.build()
}

fn bench(criterion: &mut Criterion) {
    let rules = BatchRules::of(&TopicConfig::default(), 9);
    let mut pool = CodecPool::default();
    for (record_count, value_bytes) in [(1, 100), (100, 100), (1000, 1000)] {
        let mut group = criterion.benchmark_group(format!("{record_count}x{value_bytes}B"));
        for codec in Codec::ALL {
            let bytes = batch_of(record_count, value_bytes, codec);
            group.throughput(Throughput::Bytes(bytes.len() as u64));
            if codec == Codec::None {
                let covered = bytes.slice(21..);
                group.bench_function("crc", |bencher| {
                    bencher.iter(|| batch::crc(std::hint::black_box(&covered)))
                });
            }
            group.bench_function(format!("check/{codec:?}"), |bencher| {
                bencher.iter(|| check_with(&mut pool, bytes.clone(), &rules, WALL_MS).is_ok());
            });
        }
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
