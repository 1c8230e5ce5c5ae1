//! What a shard counts, and the stall detector.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::request::CloseReason;

/// A turn longer than this is a stall: nothing else ran on the core meanwhile.
const STALL: Duration = Duration::from_millis(20);

/// Counters of one shard; plain numbers, as only the shard touches them.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Connections accepted.
    pub accepted: u64,
    /// Vectored writes of gathered batches.
    pub appends: u64,
    /// Spans that had to be brought into the page cache first.
    pub cold_spans: u64,
    /// Turns longer than [`STALL`].
    pub stalls: u64,
    /// Connections closed, by reason.
    pub closes: BTreeMap<CloseReason, u64>,
    run_queue_wait: Option<Duration>,
}

impl Counters {
    /// Counts a closed connection. Reasons that are a client's fault are said, ever more rarely:
    /// the first ten, then at each doubling.
    pub fn closed(&mut self, reason: CloseReason) {
        let count = self.closes.entry(reason).or_default();
        *count += 1;
        let ordinary = matches!(reason, CloseReason::Peer | CloseReason::Stopping | CloseReason::Idle);
        if !ordinary && (*count <= 10 || count.is_power_of_two()) {
            super::say(&format!("a connection was closed: {reason:?} ({count} of this kind on this shard)"));
        }
    }

    /// Looks at how long a turn took. Time in which the thread was ready but the core ran
    /// something else is not the turn's.
    pub fn turn(&mut self, took: Duration) {
        if took < STALL {
            return;
        }
        let waited = run_queue_wait().unwrap_or_default();
        let since_last = waited.saturating_sub(self.run_queue_wait.replace(waited).unwrap_or(waited));
        if took.saturating_sub(since_last) >= STALL {
            self.stalls += 1;
            super::say(&format!("a turn took {} ms (stall {} of this shard)", took.as_millis(), self.stalls));
        }
    }
}

/// How long this thread has waited for a CPU in its life (`/proc/thread-self/schedstat`).
fn run_queue_wait() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_turns_are_no_stalls() {
        let mut counters = Counters::default();
        counters.turn(STALL / 2);
        assert_eq!(counters.stalls, 0);
        counters.closed(CloseReason::Malformed);
        counters.closed(CloseReason::Malformed);
        assert_eq!(counters.closes[&CloseReason::Malformed], 2);
    }
}
