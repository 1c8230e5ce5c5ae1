//! The log, driven over a directory in memory.

mod appends;
mod faults;
mod follower;
mod log_starts;
mod lookups;
mod model;
mod retention;
mod stops;
mod truncations;

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::batch::{BatchBuilder, BatchInfo};
use super::check::CheckedBatch;
use super::memory_dir::MemoryDir;
use super::{Appended, Found, Log, LogEvent, LookupStep, Query, Span};
use crate::config::TopicConfig;
use crate::effect::{FileOp, Now, Stem, Ticket};

/// A log with its directory and a clock.
pub(super) struct Driver {
    pub log: Log,
    pub dir: MemoryDir,
    pub now: Now,
    /// Syncs beside the queue are held back while this is set.
    pub hold_syncs: bool,
    /// So are those of the directory.
    pub hold_names: bool,
    pub held: Vec<(Ticket, FileOp)>,
    /// Everything that was carried out.
    pub ops: Vec<FileOp>,
}

pub(super) const START_MS: i64 = 1_000_000;

impl Driver {
    pub(super) fn new(config: TopicConfig) -> Self {
        let mut driver = Self::over(config, MemoryDir::default());
        assert_eq!(driver.run(), []);
        driver
    }

    /// A new log, before anything of it is carried out.
    pub(super) fn over(config: TopicConfig, dir: MemoryDir) -> Self {
        let now = Now { mono_ms: 10, wall_ms: START_MS };
        let log = Log::create(Uuid::from_u128(7), Arc::new(config), now, 1);
        Self { log, dir, now, hold_syncs: false, hold_names: false, held: Vec::new(), ops: Vec::new() }
    }

    /// Carries out every operation until there is none; what happened.
    pub(super) fn run(&mut self) -> Vec<LogEvent> {
        let mut events = Vec::new();
        loop {
            self.log.end_turn(self.now);
            let Some((ticket, op)) = self.log.next_op(self.now) else { break };
            let held = match op {
                FileOp::Sync { file } => self.hold_syncs && matches!(file.stem, Stem::Log(_)),
                _ => self.hold_names && op == FileOp::SyncDir,
            };
            if held {
                self.held.push((ticket, op));
                continue;
            }
            self.complete(ticket, &op, &mut events);
        }
        events
    }

    /// Lets the held syncs run.
    pub(super) fn release(&mut self) -> Vec<LogEvent> {
        let mut events = Vec::new();
        for (ticket, op) in std::mem::take(&mut self.held) {
            self.complete(ticket, &op, &mut events);
        }
        events
    }

    fn complete(&mut self, ticket: Ticket, op: &FileOp, events: &mut Vec<LogEvent>) {
        self.ops.push(op.clone());
        let result = self.dir.execute(op, self.log.append_parts());
        let event = self.log.completed(self.now, ticket, result);
        self.log.check_invariants();
        if event != LogEvent::None {
            events.push(event);
        }
    }

    /// Time passes.
    pub(super) fn pass(&mut self, ms: u64) -> Vec<LogEvent> {
        self.now.mono_ms += ms;
        self.now.wall_ms += ms as i64;
        self.log.wake(self.now);
        self.run()
    }

    /// Appends without ending the turn.
    pub(super) fn gather(&mut self, batch: &CheckedBatch) -> (i64, i64) {
        let appended = self.log.append(self.now, batch, 3).unwrap();
        self.log.check_invariants();
        let Appended::New { base_offset, offset_end, .. } = appended else { panic!("{appended:?}") };
        (base_offset, offset_end)
    }

    /// Appends one batch and writes it.
    pub(super) fn append(&mut self, batch: &CheckedBatch) -> (i64, i64) {
        let offsets = self.gather(batch);
        self.run();
        offsets
    }

    pub(super) fn lookup(&mut self, query: Query) -> LookupStep {
        self.lookup_counted(query).0
    }

    /// The answer, and how many reads it took.
    pub(super) fn lookup_counted(&mut self, query: Query) -> (LookupStep, usize) {
        let (mut lookup, mut step) = self.log.lookup(query);
        let mut reads = 0;
        while let LookupStep::Read(op) = step {
            reads += 1;
            assert!(reads < 1000, "a lookup ends");
            let result = self.dir.execute(&op, std::iter::empty());
            step = self.log.lookup_next(&mut lookup, result);
        }
        (step, reads)
    }

    pub(super) fn fetch(&mut self, offset: i64, max_bytes: u64) -> LookupStep {
        let end = self.log.log_end_position();
        self.lookup(Query::Fetch { offset, max_bytes, end })
    }

    /// The bytes of a span.
    pub(super) fn bytes(&self, span: &Span) -> Bytes {
        let file = self.dir.file(Stem::Log(span.segment_base_offset)).unwrap();
        Bytes::copy_from_slice(&file[span.position as usize..(span.position + span.length) as usize])
    }

    /// The first batch that a fetch at the offset gives.
    pub(super) fn first_batch(&mut self, offset: i64) -> BatchInfo {
        let step = self.fetch(offset, 1);
        let LookupStep::Found(Found::Span(span)) = step else { panic!("offset {offset}: {step:?}") };
        assert_eq!(span.length, span.first_batch_bytes);
        let bytes = self.bytes(&span);
        let info = BatchInfo::parse(&bytes).unwrap();
        assert_eq!(u64::from(info.length_bytes), span.length);
        info
    }
}

/// A batch of records with these timestamps and a value of that many bytes each.
pub(super) fn batch(timestamps_ms: &[i64], value_bytes: usize) -> CheckedBatch {
    checked(timestamps_ms.iter().fold(BatchBuilder::new(), |builder, timestamp_ms| {
        builder.record(*timestamp_ms, None, Some(&vec![b'v'; value_bytes]))
    }))
}

pub(super) fn checked(builder: BatchBuilder) -> CheckedBatch {
    let bytes = builder.build();
    let info = BatchInfo::parse(&bytes).unwrap();
    CheckedBatch { bytes, info }
}

/// Small segments, an index entry for every second small batch.
pub(super) fn small() -> TopicConfig {
    TopicConfig { segment_bytes: 4096, index_interval_bytes: 200, ..TopicConfig::default() }
}
