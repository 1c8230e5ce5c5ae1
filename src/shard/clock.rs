//! The node's two clocks, read once per step.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::effect::Now;

/// Reads both clocks; monotonic time counts from its making.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    origin: Instant,
}

impl Clock {
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    pub fn now(&self) -> Now {
        let mono_ms = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono_ms, wall_ms: i64::try_from(wall.as_millis()).unwrap_or(i64::MAX) }
    }
}
