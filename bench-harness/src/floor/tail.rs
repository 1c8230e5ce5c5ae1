//! A log whose end is in memory and whose full blocks are written behind, into the page cache or by direct I/O. Readers
//! get what is in memory from there, and what is older through the page cache.
//!
//! Invariant: the blocks in memory and the file before them are the log, without a hole. What lies in a block and not
//! in the file would survive the process in a file of a memory file system; the floor only pays what that costs.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use nix::libc;

use super::append::{Engine, Span};
use super::block::Block;
use super::writer::{Grown, Order, Write};

const PAGE_BYTES: usize = 4096;
/// Written blocks that stay in memory for readers.
const WRITTEN_KEPT: usize = 2;

/// A block's place in the file.
struct Place {
    start: u64,
    filled: usize,
    /// So much of it has been flushed.
    flushed: usize,
    block: Arc<Block>,
    written: Arc<AtomicBool>,
}

/// One log.
pub struct Tail {
    file: Arc<Grown>,
    cached: Rc<File>,
    /// The end of the log, without a hole; only the last has room.
    places: VecDeque<Place>,
    position: u64,
}

impl Tail {
    /// A log in an empty file, written by direct I/O or not.
    pub fn open(cached: File, path: &Path, direct: bool) -> Result<Tail> {
        let flags = if direct { libc::O_DIRECT } else { 0 };
        let written = OpenOptions::new().write(true).custom_flags(flags).open(path);
        let file = Arc::new(Grown::new(written.context("opening a log to write its blocks")?));
        Ok(Tail { file, cached: Rc::new(cached), places: VecDeque::new(), position: 0 })
    }

    /// Where the next byte goes.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Copies bytes to the end.
    pub fn append(&mut self, engine: &Engine, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let place = match self.places.back_mut() {
                Some(place) if place.filled < place.block.len() => place,
                _ => self.next_place(engine),
            };
            let count = place.block.fill(place.filled, bytes);
            place.filled += count;
            let full = (place.filled == place.block.len()).then(|| place.write());
            self.position += count as u64;
            bytes = bytes.get(count..).unwrap_or(&[]);
            if let Some(write) = full {
                engine.writer.order(Order::Write(Arc::clone(&self.file), write));
            }
        }
    }

    fn next_place(&mut self, engine: &Engine) -> &mut Place {
        let written = self.places.iter().take_while(|place| place.written.load(Ordering::Acquire)).count();
        for place in self.places.drain(..written.saturating_sub(WRITTEN_KEPT)) {
            engine.pool.give(place.block);
        }
        let (block, written) = (engine.pool.take(), Arc::new(AtomicBool::new(false)));
        self.places.push_back_mut(Place { start: self.position, filled: 0, flushed: 0, block, written })
    }

    /// What makes everything durable: what was not flushed of blocks that are not written yet, and a sync.
    pub fn flush_orders(&mut self) -> Vec<Order> {
        let mut orders = Vec::new();
        for place in self.places.iter_mut().filter(|place| !place.written.load(Ordering::Acquire)) {
            let from = place.flushed / PAGE_BYTES * PAGE_BYTES;
            let bytes = place.filled.next_multiple_of(PAGE_BYTES) - from;
            if place.filled > place.flushed {
                let whole = place.write();
                let position = place.start + from as u64;
                // The block is not done with before it is full.
                let part = Write { from, bytes, position, written: Arc::default(), ..whole };
                orders.push(Order::Write(Arc::clone(&self.file), part));
            }
            place.flushed = place.filled;
        }
        orders.push(Order::Sync(Arc::clone(&self.file.file)));
        orders
    }

    /// Where a range is.
    pub fn span(&self, position: u64, bytes: usize) -> Span {
        let mut span = Span { bytes, ..Span::default() };
        let (mut at, end) = (position, position + bytes as u64);
        let in_memory = self.places.front().map_or(self.position, |place| place.start);
        if at < in_memory {
            let count = end.min(in_memory) - at;
            span.file = Some((Rc::clone(&self.cached), at, count as usize));
            at += count;
        }
        let first = self.places.partition_point(|place| place.start + place.filled as u64 <= at);
        for place in self.places.range(first..) {
            if at == end {
                break;
            }
            let from = (at - place.start) as usize;
            let count = (place.filled - from).min((end - at) as usize);
            span.memory.push((Arc::clone(&place.block), from, count));
            at += count as u64;
        }
        span
    }
}

impl Place {
    fn write(&self) -> Write {
        Write {
            block: Arc::clone(&self.block),
            from: 0,
            bytes: self.block.len(),
            position: self.start,
            written: Arc::clone(&self.written),
        }
    }
}
