//! A step of the pure partition machine, with its effects carried out on a device that takes everything and keeps
//! nothing: appends up to their acknowledgement, and reads at the tail.
//! `cargo bench --bench partition`

use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use uuid::Uuid;

use tidemill::config::TopicConfig;
use tidemill::effect::{FileDone, Now};
use tidemill::log::Log;
use tidemill::log::batch::{BatchBuilder, BatchInfo};
use tidemill::log::check::CheckedBatch;
use tidemill::partition::{
    Acks, Answer, Assignment, Effect, LeaderRecovery, Op, Partition, Read, Reader, ReplyTo,
};

const NODE_ID: i32 = 1;
const NOW: Now = Now { mono_ms: 10, wall_ms: 1_000_000 };
const TO: ReplyTo = ReplyTo { shard: 0, connection: 0, generation: 1, request: 0, part: 0 };

/// A leader alone in its ISR, and the vector in which its effects come.
struct Stage {
    partition: Partition,
    effects: Vec<Effect>,
    answers: u64,
}

impl Stage {
    fn new() -> Stage {
        let config = Arc::new(TopicConfig::default());
        let log = Log::create(Uuid::from_u128(7), Arc::clone(&config), NOW, 1);
        let partition = Partition::new(NODE_ID, config, log);
        let mut stage = Stage { partition, effects: Vec::new(), answers: 0 };
        let assignment = Assignment {
            leader: NODE_ID,
            leader_epoch: 0,
            partition_epoch: 0,
            replicas: [NODE_ID].into_iter().collect(),
            isr: [NODE_ID].into_iter().collect(),
            recovery: LeaderRecovery::Recovered,
            broker_epochs: [(NODE_ID, 1)].into_iter().collect(),
        };
        stage.partition.assign(NOW, assignment, &mut stage.effects);
        stage.drain();
        stage
    }

    /// Carries effects out until nothing more comes; a failed answer ends the bench.
    fn drain(&mut self) {
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                match effect {
                    Effect::File(ticket, _) => {
                        let done = Ok(FileDone::Ok);
                        self.partition.completed(NOW, ticket, done, &mut self.effects);
                    }
                    Effect::EndTurn => self.partition.end_turn(NOW, &mut self.effects),
                    Effect::Reply(_, Answer::Appended { .. }) => self.answers += 1,
                    Effect::Reply(_, Answer::Read(found)) if found.span.is_some() => self.answers += 1,
                    other => panic!("unexpected: {other:?}"),
                }
            }
        }
    }

    /// That many batches in one turn, each acknowledged by its own answer.
    fn append(&mut self, batch: &CheckedBatch, acks: Acks, count: u64) {
        let before = self.answers;
        for _ in 0..count {
            let op = Op::Append { batch: batch.clone(), acks, deadline_ms: NOW.mono_ms + 30_000 };
            self.partition.call(NOW, TO, op, &mut self.effects);
        }
        self.drain();
        assert_eq!(self.answers - before, count, "every batch is acknowledged");
    }

    fn read(&mut self, offset: i64) {
        let before = self.answers;
        let read = Read::new(Reader::Consumer, offset, 16 << 10);
        self.partition.call(NOW, TO, Op::Read(read), &mut self.effects);
        self.drain();
        assert_eq!(self.answers - before, 1, "a read finds something");
    }
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("partition");
    let bytes = BatchBuilder::new().record(5, None, Some(&[b'v'; 100])).build();
    let info = BatchInfo::parse(&bytes).expect("a batch as the log takes it");
    let batch = CheckedBatch { bytes, info };
    for (name, acks) in [("acks=1", Acks::Leader), ("acks=all", Acks::All)] {
        for count in [1, 32] {
            let mut stage = Stage::new();
            group.throughput(Throughput::Elements(count));
            group.bench_function(format!("append, {name}, {count} in a turn"), |bencher| {
                bencher.iter(|| stage.append(&batch, acks, count));
            });
        }
    }
    let mut stage = Stage::new();
    stage.append(&batch, Acks::Leader, 4_000);
    let mut random = fastrand::Rng::with_seed(7);
    group.throughput(Throughput::Elements(1));
    group.bench_function("read at the tail", |bencher| {
        bencher.iter(|| stage.read(random.i64(0..4_000)));
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
