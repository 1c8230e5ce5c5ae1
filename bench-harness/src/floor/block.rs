//! The memory in which tails are kept: blocks of whole pages, aligned for direct I/O. The mapping is shared, as it
//! would be over a file of a memory file system that outlives the process; such memory costs the same.

use std::cell::{Cell, RefCell};
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

use nix::libc;

/// The least and the largest block.
const BLOCK_BYTES_MIN: usize = 16 << 10;
const BLOCK_BYTES_MAX: usize = 1 << 20;
/// What all tails together take, about.
const TAILS_BYTES: usize = 64 << 20;

/// Some memory. One thread fills it; bytes that were filled do not change until it is given back.
pub struct Block {
    memory: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the memory is mapped for as long as the block lives, and only bytes that are filled, and do not change any
// more, are read by others than the one thread that fills it.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    fn new(bytes: usize) -> Block {
        let (read_write, shared) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping of nothing overlaps no memory of anybody.
        let memory = unsafe { libc::mmap(null_mut(), bytes, read_write, shared, -1, 0) };
        assert!(memory != libc::MAP_FAILED, "no memory for a block");
        Block { memory: NonNull::new(memory.cast()).expect("a mapping is not at zero"), bytes }
    }

    /// Its size.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Copies as much as fits behind `filled`; says how much.
    pub fn fill(&self, filled: usize, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.bytes - filled);
        // SAFETY: the range lies within the mapping; it is behind what is filled, so nobody reads it.
        unsafe { self.memory.as_ptr().add(filled).copy_from_nonoverlapping(bytes.as_ptr(), count) };
        count
    }

    /// A range of it, up to page ends also beyond what is filled: the device may see any bytes there.
    pub fn bytes(&self, from: usize, count: usize) -> &[u8] {
        assert!(from + count <= self.bytes, "a range within the block");
        // SAFETY: the range lies within the mapping.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().add(from), count) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: the mapping is this block's own, and nobody has a reference into it any more.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.bytes) };
    }
}

/// Blocks to be used again.
#[derive(Default)]
pub struct Pool {
    free: RefCell<Vec<Arc<Block>>>,
    logs: Cell<usize>,
}

impl Pool {
    /// One more log shares the memory.
    pub fn log_was_opened(&self) {
        self.logs.set(self.logs.get() + 1);
    }

    /// A block of the size that is right for so many logs.
    pub fn take(&self) -> Arc<Block> {
        let share = TAILS_BYTES / self.logs.get().max(1) / 4;
        let bytes = (share.max(1).next_power_of_two()).clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX);
        let mut free = self.free.borrow_mut();
        let fits = |block: &Arc<Block>| block.len() == bytes && Arc::strong_count(block) == 1;
        match free.iter().rposition(fits) {
            Some(at) => free.swap_remove(at),
            None => Arc::new(Block::new(bytes)),
        }
    }

    /// Gives one back; somebody may still read it.
    pub fn give(&self, block: Arc<Block>) {
        let mut free = self.free.borrow_mut();
        free.retain(|other| other.len() == block.len());
        free.push(block);
    }
}
