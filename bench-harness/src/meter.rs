//! What the load has counted so far, readable from another thread while it goes on.
//!
//! Invariant: one thread writes a meter, and it writes with plain loads and stores: counting an answer costs a few
//! nanoseconds and never waits, whoever reads. A reader takes differences between two readings, so nothing is reset.
//!
//! Latencies are counted in buckets with 32 steps for each power of two: a bucket is at most 3.2 % wide.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;

const STEP_BITS: u32 = 5;
const STEPS: usize = 1 << STEP_BITS;
/// Enough for 2^36 ns, 68 s; whatever is longer falls into the last one.
const BUCKETS: usize = STEPS * 33;
/// The lag of a load that has no consumers.
const NO_LAG: i64 = i64::MIN;

fn bucket_of(ns: u64) -> usize {
    let shift = (63 - ns.max(1).leading_zeros()).saturating_sub(STEP_BITS);
    let bucket = ((shift as usize) << STEP_BITS) + (ns >> shift) as usize;
    bucket.min(BUCKETS - 1)
}

/// The largest value that falls into a bucket.
fn bucket_end(bucket: usize) -> u64 {
    let shift = (bucket >> STEP_BITS).saturating_sub(1);
    (((bucket - (shift << STEP_BITS)) as u64 + 1) << shift) - 1
}

/// How often each latency came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latencies(Vec<u64>);

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies(vec![0; BUCKETS])
    }
}

impl Latencies {
    /// The same counts in this file's buckets.
    pub fn of(histogram: &Histogram<u64>) -> Latencies {
        let mut counts = Latencies::default();
        for step in histogram.iter_recorded() {
            counts.add(step.value_iterated_to(), step.count_since_last_iteration());
        }
        counts
    }

    fn add(&mut self, ns: u64, count: u64) {
        if let Some(bucket) = self.0.get_mut(bucket_of(ns)) {
            *bucket += count;
        }
    }

    /// Adds the counts of another.
    pub fn merge(&mut self, other: &Latencies) {
        self.0.iter_mut().zip(&other.0).for_each(|(mine, theirs)| *mine += theirs);
    }

    fn since(&self, earlier: &Latencies) -> Latencies {
        Latencies(self.0.iter().zip(&earlier.0).map(|(now, then)| now.saturating_sub(*then)).collect())
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The nanoseconds that this share of all did not exceed, rounded up to a bucket's end; none of none.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let total = self.total();
        let rank = ((share * total as f64).ceil() as u64).clamp(1, total.max(1));
        let mut seen = 0;
        let found = self.0.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        found.filter(|_| total > 0).map(bucket_end)
    }

    /// Pairs of a bucket's end in microseconds and its count, without the empty ones: the form in files.
    pub fn pairs(&self) -> Vec<(f64, u64)> {
        let filled = self.0.iter().enumerate().filter(|(_, count)| **count > 0);
        filled.map(|(bucket, count)| (bucket_end(bucket) as f64 / 1e3, *count)).collect()
    }

    /// What `pairs` gave.
    pub fn from_pairs(pairs: &[(f64, u64)]) -> Latencies {
        let mut counts = Latencies::default();
        for (us, count) in pairs {
            counts.add((us * 1e3).round() as u64, *count);
        }
        counts
    }
}

/// Counters of one thread of load.
pub struct Meter {
    requests: AtomicU64,
    produced_records: AtomicU64,
    produced_bytes: AtomicU64,
    consumed_records: AtomicU64,
    consumed_bytes: AtomicU64,
    errors: AtomicU64,
    lag_records: AtomicI64,
    longest_ns: AtomicU64,
    buckets: Vec<AtomicU64>,
    end_to_end: Vec<AtomicU64>,
}

/// What one answer adds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer {
    /// How long it took since it was meant to be sent; none where the latency of its sender is not told.
    pub after: Option<Duration>,
    /// Whether records were read; else they were written.
    pub consumed: bool,
    /// Records.
    pub records: u64,
    /// Bytes of whole batches.
    pub bytes: u64,
    /// Whether it carried an error code.
    pub refused: bool,
}

fn raise(counter: &AtomicU64, by: u64) {
    // One writer: a load and a store are enough, and cheaper than a locked addition.
    counter.store(counter.load(Ordering::Relaxed) + by, Ordering::Relaxed);
}

impl Meter {
    /// All zero.
    pub fn new() -> Arc<Meter> {
        let zero = || AtomicU64::new(0);
        Arc::new(Meter {
            requests: zero(),
            produced_records: zero(),
            produced_bytes: zero(),
            consumed_records: zero(),
            consumed_bytes: zero(),
            errors: zero(),
            lag_records: AtomicI64::new(NO_LAG),
            longest_ns: zero(),
            buckets: (0..BUCKETS).map(|_| zero()).collect(),
            end_to_end: (0..BUCKETS).map(|_| zero()).collect(),
        })
    }

    /// Counts an answer. Only the thread of the load may call it.
    pub fn count(&self, answer: Answer) {
        let (records, bytes) = match answer.consumed {
            true => (&self.consumed_records, &self.consumed_bytes),
            false => (&self.produced_records, &self.produced_bytes),
        };
        raise(records, answer.records);
        raise(bytes, answer.bytes);
        if answer.refused {
            raise(&self.errors, 1);
        }
        let Some(after) = answer.after else { return };
        raise(&self.requests, 1);
        let ns = after.as_nanos() as u64;
        if let Some(bucket) = self.buckets.get(bucket_of(ns)) {
            raise(bucket, 1);
        }
        // The reader swaps this for zero; whichever comes first, the longest of an interval is in this one or the next.
        if ns > self.longest_ns.load(Ordering::Relaxed) {
            self.longest_ns.store(ns, Ordering::Relaxed);
        }
    }

    /// Counts a batch that a reader at the log's end had after so long.
    pub fn reached(&self, after: Duration) {
        if let Some(bucket) = self.end_to_end.get(bucket_of(after.as_nanos() as u64)) {
            raise(bucket, 1);
        }
    }

    /// Says that a consumer's distance to the end of its partition changed by so many records.
    pub fn lag_changed(&self, records: i64) {
        let before = self.lag_records.load(Ordering::Relaxed);
        let before = if before == NO_LAG { 0 } else { before };
        self.lag_records.store(before + records, Ordering::Relaxed);
    }

    /// All counters now. The longest latency is that since the last reading.
    pub fn read(&self) -> Reading {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let lag = self.lag_records.load(Ordering::Relaxed);
        Reading {
            requests: load(&self.requests),
            produced_records: load(&self.produced_records),
            produced_bytes: load(&self.produced_bytes),
            consumed_records: load(&self.consumed_records),
            consumed_bytes: load(&self.consumed_bytes),
            errors: load(&self.errors),
            lag_records: Some(lag).filter(|lag| *lag != NO_LAG),
            longest_ns: self.longest_ns.swap(0, Ordering::Relaxed),
            latencies: Latencies(self.buckets.iter().map(load).collect()),
            end_to_end: Latencies(self.end_to_end.iter().map(load).collect()),
        }
    }
}

/// A meter at one moment, or the difference of two moments.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Answers to the senders whose latency is told.
    pub requests: u64,
    /// Records written.
    pub produced_records: u64,
    /// Bytes of whole batches written.
    pub produced_bytes: u64,
    /// Records read.
    pub consumed_records: u64,
    /// Bytes of whole batches read.
    pub consumed_bytes: u64,
    /// Answers with an error code.
    pub errors: u64,
    /// Records that consumers have yet to read, where there are consumers that follow a log's end.
    pub lag_records: Option<i64>,
    /// The longest latency since the reading before.
    pub longest_ns: u64,
    /// Every latency to the answer.
    pub latencies: Latencies,
    /// Every latency end to end.
    pub end_to_end: Latencies,
}

impl Reading {
    /// What came between an earlier reading and this one. Lag and the longest latency stay as they are.
    pub fn since(&self, earlier: &Reading) -> Reading {
        Reading {
            requests: self.requests.saturating_sub(earlier.requests),
            produced_records: self.produced_records.saturating_sub(earlier.produced_records),
            produced_bytes: self.produced_bytes.saturating_sub(earlier.produced_bytes),
            consumed_records: self.consumed_records.saturating_sub(earlier.consumed_records),
            consumed_bytes: self.consumed_bytes.saturating_sub(earlier.consumed_bytes),
            errors: self.errors.saturating_sub(earlier.errors),
            lag_records: self.lag_records,
            longest_ns: self.longest_ns,
            latencies: self.latencies.since(&earlier.latencies),
            end_to_end: self.end_to_end.since(&earlier.end_to_end),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_and_are_narrow() {
        for bucket in 1..BUCKETS {
            assert!(bucket_end(bucket) > bucket_end(bucket - 1));
            assert_eq!(bucket_of(bucket_end(bucket)), bucket);
            assert_eq!(bucket_of(bucket_end(bucket - 1) + 1), bucket);
        }
        for ns in [0, 1, 31, 32, 33, 1_000, 123_456, 60_000_000_000] {
            let end = bucket_end(bucket_of(ns));
            assert!(end >= ns && end as f64 <= ns as f64 * 1.033, "{ns} {end}");
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn readings_tell_what_came_between_them() {
        let meter = Meter::new();
        let written = |us| Answer {
            after: Some(Duration::from_micros(us)),
            records: 10,
            bytes: 1000,
            ..Answer::default()
        };
        meter.count(written(50));
        let first = meter.read();
        assert_eq!(first.longest_ns, 50_000);
        assert_eq!(first.lag_records, None, "nobody consumes");
        for _ in 0..99 {
            meter.count(written(100));
        }
        let after = Some(Duration::from_millis(20));
        meter.count(Answer { after, consumed: true, records: 7, bytes: 70, refused: true });
        meter.count(Answer { consumed: true, records: 1, ..Answer::default() });
        meter.reached(Duration::from_micros(700));
        meter.lag_changed(5);
        meter.lag_changed(-2);
        let between = meter.read().since(&first);
        assert_eq!((between.requests, between.errors), (100, 1));
        assert_eq!((between.produced_records, between.produced_bytes), (990, 99_000));
        assert_eq!(
            (between.consumed_records, between.consumed_bytes),
            (8, 70),
            "also those that are not timed"
        );
        assert_eq!((between.longest_ns, between.lag_records), (20_000_000, Some(3)));
        let near = |share, us: f64| {
            let found = between.latencies.quantile(share).unwrap() as f64 / 1e3;
            assert!(found >= us && found < us * 1.033, "{share} {found}");
        };
        assert_eq!(between.end_to_end.total(), 1);
        near(0.5, 100.0);
        near(0.99, 100.0);
        near(0.999, 20_000.0);
        assert_eq!(meter.read().longest_ns, 0);
        assert_eq!(Latencies::default().quantile(0.5), None);
    }

    #[test]
    fn latencies_survive_a_file_and_add_up() {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        for us in 1..2000u64 {
            histogram.record(us * 777).unwrap();
        }
        let counts = Latencies::of(&histogram);
        let text = serde_json::to_string(&counts.pairs()).unwrap();
        let back = Latencies::from_pairs(&serde_json::from_str::<Vec<(f64, u64)>>(&text).unwrap());
        assert_eq!(back, counts);
        let mut twice = counts.clone();
        twice.merge(&back);
        assert_eq!((twice.total(), twice.quantile(0.5)), (2 * counts.total(), counts.quantile(0.5)));
    }
}
