//! Look-ups in a log whose newest batch boundaries are not in memory: by offset (a fetch behind the tail) and by time
//! (ListOffsets), from the index files through the batch headers to the batch. The files lie in memory, so what is
//! measured is the search and a copy of what it reads, not the system calls.
//! `cargo bench --bench index`

use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use uuid::Uuid;

use tidemill::config::TopicConfig;
use tidemill::effect::Now;
use tidemill::log::batch::{BatchBuilder, BatchInfo};
use tidemill::log::check::CheckedBatch;
use tidemill::log::memory_dir::MemoryDir;
use tidemill::log::{Found, Log, LookupStep, Query};

const NOW: Now = Now { mono_ms: 10, wall_ms: 1_000_000 };
/// Entries of each index of the segment that is searched: one for each batch.
const ENTRIES: [i64; 4] = [1, 100, 10_000, 100_000];
/// The timestamp of the first record; every batch is a millisecond later.
const FIRST_MS: i64 = 5_000;

/// One record of a hundred bytes; its time says which batch it is.
fn batch(number: i64) -> CheckedBatch {
    let bytes = BatchBuilder::new().record(FIRST_MS + number, None, Some(&[b'v'; 100])).build();
    let info = BatchInfo::parse(&bytes).expect("a batch as the log takes it");
    CheckedBatch { bytes, info }
}

/// A log of one full segment with that many index entries, and one more batch in the next segment.
struct Stored {
    log: Log,
    directory: MemoryDir,
}

impl Stored {
    fn of(entries: i64) -> Stored {
        // The first batch of a segment earns no entry, each one behind it does.
        let batches = entries + 1;
        let segment_bytes = batch(0).bytes.len() as u64 * batches.cast_unsigned();
        let config = TopicConfig { index_interval_bytes: 0, segment_bytes, ..TopicConfig::default() };
        let log = Log::create(Uuid::from_u128(7), Arc::new(config), NOW, 1);
        let mut stored = Stored { log, directory: MemoryDir::default() };
        for number in 0..=batches {
            stored.log.append(NOW, &batch(number), 0).expect("the log takes it");
            if number % 100 == 0 || number == batches {
                stored.settle();
            }
        }
        let count = stored.log.segments().len();
        let index_bytes = stored.log.segments().next().map_or(0, |full| full.index_bytes);
        assert_eq!((index_bytes, count), (entries.cast_unsigned() * 8, 2), "entries, then a roll");
        stored
    }

    /// Writes everything that was appended; behind a roll that takes another turn.
    fn settle(&mut self) {
        let mut moved = true;
        while moved {
            moved = false;
            self.log.end_turn(NOW);
            while let Some((ticket, op)) = self.log.next_op(NOW) {
                let result = self.directory.execute(&op, self.log.append_parts());
                self.log.completed(NOW, ticket, result);
                moved = true;
            }
        }
    }

    /// Runs a look-up to its end.
    fn find(&mut self, query: Query) -> Found {
        let (mut lookup, mut step) = self.log.lookup(query);
        loop {
            match step {
                LookupStep::Read(op) => {
                    let result = self.directory.execute(&op, std::iter::empty());
                    step = self.log.lookup_next(&mut lookup, result);
                }
                LookupStep::Found(found) => return found,
                other => panic!("a look-up ended with {other:?}"),
            }
        }
    }
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("index");
    for entries in ENTRIES {
        let mut stored = Stored::of(entries);
        let end = stored.log.log_end_position();
        // Targets all over the segment, the same in every run.
        let mut random = fastrand::Rng::with_seed(7);
        group.bench_function(format!("offset, {entries} entries"), |bencher| {
            bencher.iter(|| {
                let offset = random.i64(0..entries);
                let found = stored.find(Query::Fetch { offset, max_bytes: 1 << 20, end });
                assert!(matches!(found, Found::Span(_)));
            });
        });
        group.bench_function(format!("time, {entries} entries"), |bencher| {
            bencher.iter(|| {
                let wanted = random.i64(0..entries);
                let timestamp_ms = FIRST_MS + wanted;
                let found = stored.find(Query::Timestamp { timestamp_ms, end_offset: end.offset });
                assert!(matches!(found, Found::Offset { offset, .. } if offset == wanted));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
