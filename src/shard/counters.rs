//! What a shard counts, the stall detector, and the one line a minute that tells an operator.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use crate::request::CloseReason;

/// A step longer than this is a stall: nothing else ran on the core meanwhile.
const STALL: Duration = Duration::from_millis(5);
/// How often counts that have changed are said, in milliseconds.
const TELL_MS: u64 = 60_000;

/// Counters of one shard; plain numbers, as only the shard touches them.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections that went to another shard.
    pub went: u64,
    /// Connections closed at the door: their address had enough.
    refused: u64,
    /// Vectored writes of gathered batches.
    pub appends: u64,
    /// Spans that had to be brought into the page cache first.
    pub cold_spans: u64,
    /// Frames that had to wait for room in the shard's budget.
    pub frames_waited: u64,
    /// Reads that found every descriptor in use.
    pub opens_put_off: u64,
    /// Turns, and steps of connections, longer than [`STALL`].
    stalls: u64,
    /// Connections closed, by reason.
    closes: BTreeMap<CloseReason, u64>,
    run_queue_wait: Option<Duration>,
    told_ms: u64,
    told: Vec<(String, u64)>,
}

/// Whether an event that has happened so often is worth a line: the first ten, then at each
/// doubling.
fn is_worth_saying(count: u64) -> bool {
    count <= 10 || count.is_power_of_two()
}

impl Counters {
    /// Counts a closed connection. Reasons that are a client's fault are said, ever more rarely.
    pub fn closed(&mut self, reason: CloseReason) {
        let count = self.closes.entry(reason).or_default();
        *count += 1;
        let ordinary = matches!(reason, CloseReason::Peer | CloseReason::Stopping | CloseReason::Idle);
        if !ordinary && is_worth_saying(*count) {
            super::say(&format!("a connection was closed: {reason:?} ({count} of this kind on this shard)"));
        }
    }

    /// Counts a connection that its address has too many of.
    pub fn refused(&mut self) {
        self.refused += 1;
        if is_worth_saying(self.refused) {
            super::say(&format!(
                "a connection was refused: its address has enough ({} so far)",
                self.refused
            ));
        }
    }

    /// Looks at how long a step took.
    pub fn took(&mut self, what: &str, took: Duration) {
        if self.run_queue_wait.is_none() {
            self.run_queue_wait = Some(run_queue_wait().unwrap_or_default());
        } else if took >= STALL {
            self.stalled(what, took, run_queue_wait().unwrap_or_default());
        }
    }

    /// Time in which the thread was ready but the core ran something else is not the step's:
    /// `waited` is how much of it there was in the thread's life.
    fn stalled(&mut self, what: &str, took: Duration, waited: Duration) {
        let since_last = waited.saturating_sub(self.run_queue_wait.replace(waited).unwrap_or(waited));
        if took.saturating_sub(since_last) < STALL {
            return;
        }
        self.stalls += 1;
        if is_worth_saying(self.stalls) {
            super::say(&format!("{what} took {} ms (stall {} of this shard)", took.as_millis(), self.stalls));
        }
    }

    /// Says once a minute which counts have risen, if one of them is worth knowing.
    pub fn tell(&mut self, now_ms: u64, shard: u16) {
        if now_ms < self.told_ms + TELL_MS {
            return;
        }
        self.told_ms = now_ms;
        if let Some(line) = self.risen() {
            super::say(&format!("shard {shard}, since the last such line: {line}"));
        }
    }

    /// Says every count at the end of the shard.
    pub fn tell_all(&mut self, shard: u16) {
        self.told.clear();
        if let Some(line) = self.risen() {
            super::say(&format!("shard {shard}, in all: {line}"));
        }
    }

    fn risen(&mut self) -> Option<String> {
        let mut counts = vec![
            ("connections accepted".to_string(), self.accepted),
            ("gone to other shards".to_string(), self.went),
            ("refused at the door".to_string(), self.refused),
            ("frames that waited for memory".to_string(), self.frames_waited),
            ("reads put off for want of descriptors".to_string(), self.opens_put_off),
            ("stalls".to_string(), self.stalls),
        ];
        counts.extend(self.closes.iter().map(|(reason, count)| (format!("closed {reason:?}"), *count)));
        let mut line = String::new();
        for (name, count) in &counts {
            let before = self.told.iter().find(|(told, _)| told == name).map_or(0, |(_, before)| *before);
            if *count > before {
                let comma = if line.is_empty() { "" } else { ", " };
                // Writing to a string cannot fail.
                let _ = write!(line, "{comma}{name} {} (of {count})", count - before);
            }
        }
        self.told = counts;
        (!line.is_empty()).then_some(line)
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
    fn a_long_step_is_a_stall_unless_the_core_ran_something_else() {
        let mut counters = Counters::default();
        let ms = Duration::from_millis;
        counters.took("a turn", ms(4));
        assert_eq!(counters.stalls, 0);
        counters.run_queue_wait = Some(ms(100));
        counters.stalled("a turn", ms(6), ms(100));
        assert_eq!(counters.stalls, 1);
        counters.stalled("a turn", ms(8), ms(104));
        assert_eq!(counters.stalls, 1, "half of the time was somebody else's");
        counters.stalled("a turn", ms(8), ms(106));
        assert_eq!(counters.stalls, 2);
    }

    #[test]
    fn a_step_that_really_takes_long_is_seen() {
        let mut counters = Counters::default();
        counters.took("a first step, which is not judged", Duration::ZERO);
        let started = std::time::Instant::now();
        // Long enough that waiting for a core cannot excuse it.
        while started.elapsed() < 20 * STALL {
            std::hint::spin_loop();
        }
        counters.took("a planted slow step", started.elapsed());
        assert_eq!(counters.stalls, 1);
    }

    #[test]
    fn only_counts_that_have_risen_are_told() {
        let mut counters = Counters::default();
        assert_eq!(counters.risen(), None);
        counters.accepted = 3;
        counters.closed(CloseReason::Malformed);
        counters.closed(CloseReason::Malformed);
        assert_eq!(counters.risen().unwrap(), "connections accepted 3 (of 3), closed Malformed 2 (of 2)");
        counters.closed(CloseReason::Malformed);
        assert_eq!(counters.risen().unwrap(), "closed Malformed 1 (of 3)");
        assert_eq!(counters.risen(), None);
        counters.told.clear();
        assert_eq!(counters.risen().unwrap(), "connections accepted 3 (of 3), closed Malformed 3 (of 3)");
    }
}
