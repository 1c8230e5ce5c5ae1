//! Wakes a shard: from its own tasks, from other shards and from helper threads.
//!
//! Ringing an already rung bell costs one atomic load, so a turn that sends many messages to a
//! peer wakes it once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use atomic_waker::AtomicWaker;

/// One shard's bell.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: AtomicBool,
    waker: AtomicWaker,
}

impl Bell {
    /// Rings it; the shard will look at everything there is to look at.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Waits until it rings, and silences it before the shard looks, so that whatever comes
    /// while it looks rings again.
    pub fn poll_heard(&self, context: &Context<'_>) -> Poll<()> {
        self.waker.register(context.waker());
        if self.rung.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
    }
}
