//! The produce path of a log allocates nothing once it is warm: one batch appended, written and
//! acknowledged again and again, under an allocator that counts.

#![allow(clippy::unwrap_used, missing_docs)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tidemill::config::TopicConfig;
use tidemill::effect::{FileDone, FileOp, Now};
use tidemill::log::Log;
use tidemill::log::batch::{BatchBuilder, BatchInfo};
use tidemill::log::check::CheckedBatch;
use uuid::Uuid;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn batch() -> CheckedBatch {
    let bytes = BatchBuilder::new().record(5, None, Some(&[b'v'; 100])).build();
    let info = BatchInfo::parse(&bytes).unwrap();
    CheckedBatch { bytes, info }
}

/// Appends the batch and carries out what the log asks for, on a device that takes everything.
fn append(log: &mut Log, now: Now, batch: &CheckedBatch) -> u64 {
    log.append(now, batch, 0).unwrap();
    log.end_turn(now);
    let mut written = 0;
    while let Some((ticket, op)) = log.next_op(now) {
        if matches!(op, FileOp::Append { .. }) {
            written +=
                log.append_parts().map(|(header, body)| (header.len() + body.len()) as u64).sum::<u64>();
        }
        log.completed(now, ticket, Ok(FileDone::Ok));
    }
    written
}

/// Allocations and nanoseconds of that many appends.
fn measure(log: &mut Log, batch: &CheckedBatch, appends: u64) -> (u64, u64) {
    let now = Now { mono_ms: 10, wall_ms: 1_000_000 };
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let start = Instant::now();
    let mut written = 0;
    for _ in 0..appends {
        written += append(log, now, batch);
    }
    let nanoseconds = u64::try_from(start.elapsed().as_nanos()).unwrap();
    assert_eq!(written, appends * batch.bytes.len() as u64);
    (ALLOCATIONS.load(Ordering::Relaxed) - before, nanoseconds)
}

#[test]
fn a_warm_append_allocates_nothing_but_index_writes() {
    let now = Now { mono_ms: 10, wall_ms: 1_000_000 };
    let batch = batch();
    let without_index = TopicConfig { index_interval_bytes: 1 << 40, ..TopicConfig::default() };
    let mut log = Log::create(Uuid::from_u128(7), Arc::new(without_index), now, 1);
    measure(&mut log, &batch, 10_000);
    let (allocations, _) = measure(&mut log, &batch, 10_000);
    assert_eq!(allocations, 0);

    let mut log = Log::create(Uuid::from_u128(7), Arc::new(TopicConfig::default()), now, 1);
    measure(&mut log, &batch, 10_000);
    let (allocations, nanoseconds) = measure(&mut log, &batch, 100_000);
    // 128 index entries of 4 KiB each are one write of a few allocations.
    let index_writes = 100_000 * batch.bytes.len() as u64 / (128 * 4096);
    assert!(allocations <= 10 * (index_writes + 1), "{allocations} allocations, {index_writes} index writes");
    println!("{} ns an append, {allocations} allocations in 100,000", nanoseconds / 100_000);
}
