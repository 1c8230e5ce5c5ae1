//! The floor's one thread for what waits for a device.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};

use anyhow::Result;
use nix::fcntl::{FallocateFlags, fallocate};

use super::block::Block;

/// Files grow by so much at a time, so that writes meet space that is there.
const ALLOCATION_BYTES: u64 = 64 << 20;

/// What it does.
pub enum Order {
    /// Sync a file's data.
    Sync(Arc<File>),
    /// Write to a file that was opened for direct I/O.
    Write(Arc<Grown>, Write),
}

/// A range of a block and where it goes; all numbers are multiples of a page.
pub struct Write {
    /// The memory.
    pub block: Arc<Block>,
    /// From where in the block.
    pub from: usize,
    /// How much.
    pub bytes: usize,
    /// To where in the file.
    pub position: u64,
    /// Set when it is done.
    pub written: Arc<AtomicBool>,
}

/// A file and how much space it has.
pub struct Grown {
    /// The file.
    pub file: Arc<File>,
    allocated_bytes: AtomicU64,
}

impl Grown {
    /// A file without space.
    pub fn new(file: File) -> Grown {
        Grown { file: Arc::new(file), allocated_bytes: AtomicU64::new(0) }
    }

    fn grow_to(&self, bytes: u64) {
        let allocated_bytes = self.allocated_bytes.load(Ordering::Relaxed);
        if bytes > allocated_bytes {
            // A few blocks for a file that begins, much for one that is large.
            let more = allocated_bytes.clamp(256 << 10, ALLOCATION_BYTES).max(bytes - allocated_bytes);
            fallocate(self.file.as_fd(), FallocateFlags::empty(), allocated_bytes as i64, more as i64)
                .expect("space for the floor's log");
            self.allocated_bytes.store(allocated_bytes + more, Ordering::Relaxed);
        }
    }
}

impl Order {
    /// Does it, and waits. The floor ends where a broker would take the directory offline.
    pub fn carry_out(&self) {
        match self {
            Order::Sync(file) => file.sync_data().expect("a sync of the floor's log"),
            Order::Write(file, Write { block, from, bytes, position, written }) => {
                file.grow_to(position + *bytes as u64);
                let bytes = block.bytes(*from, *bytes);
                file.file.write_all_at(bytes, *position).expect("a write of the floor's log");
                written.store(true, Ordering::Release);
            }
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Order::Sync(_) => 0,
            Order::Write(_, write) => write.bytes as u64,
        }
    }
}

/// The thread.
pub struct Writer {
    orders: Sender<Order>,
    behind_bytes: Arc<AtomicU64>,
}

impl Writer {
    /// Starts it; it ends with the process.
    pub fn start() -> Result<Writer> {
        let (orders, arriving) = channel::<Order>();
        let behind_bytes = Arc::new(AtomicU64::new(0));
        let behind = Arc::clone(&behind_bytes);
        std::thread::Builder::new().name("writer".to_owned()).spawn(move || {
            for order in arriving {
                order.carry_out();
                behind.fetch_sub(order.bytes(), Ordering::Relaxed);
            }
        })?;
        Ok(Writer { orders, behind_bytes })
    }

    /// Hands it some work.
    pub fn order(&self, order: Order) {
        self.behind_bytes.fetch_add(order.bytes(), Ordering::Relaxed);
        self.orders.send(order).expect("the writer runs as long as the floor");
    }

    /// Bytes that are not written yet.
    pub fn behind_bytes(&self) -> u64 {
        self.behind_bytes.load(Ordering::Relaxed)
    }
}
