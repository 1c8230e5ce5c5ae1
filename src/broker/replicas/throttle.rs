//! A limited rate of bytes, observed as Kafka observes its replication quotas: what came in the last windows, over the
//! time since the first of them began, one window at least. It is not smoothed: what takes bytes takes them, and waits
//! afterwards until the rate is within the limit again.

use std::collections::VecDeque;

/// What came in some windows of time, and how much may come.
#[derive(Debug)]
pub(super) struct Throttle {
    bytes_per_s: u64,
    windows: u64,
    window_ms: u64,
    /// When each window began, and its bytes; the oldest first.
    samples: VecDeque<(u64, u64)>,
}

impl Throttle {
    /// No limit yet.
    pub(super) fn new(windows: u32, window_ms: u64) -> Self {
        let (windows, window_ms) = (u64::from(windows.max(1)), window_ms.max(1));
        Self { bytes_per_s: u64::MAX, windows, window_ms, samples: VecDeque::new() }
    }

    /// Counts from now on, also for what came before.
    pub(super) fn set_limit(&mut self, bytes_per_s: u64) {
        self.bytes_per_s = bytes_per_s;
    }

    fn reach_ms(&self) -> u64 {
        self.windows.saturating_mul(self.window_ms)
    }

    /// Bytes have come.
    pub(super) fn record(&mut self, now_ms: u64, bytes: u64) {
        let reach_ms = self.reach_ms();
        while self.samples.pop_front_if(|(began_ms, _)| began_ms.saturating_add(reach_ms) <= now_ms).is_some()
        {
        }
        match self.samples.back_mut() {
            Some((began_ms, sum)) if now_ms.saturating_sub(*began_ms) < self.window_ms => *sum += bytes,
            _ => self.samples.push_back((now_ms, bytes)),
        }
    }

    /// The first moment from now on in which the rate is within the limit, if nothing more comes: now, mostly.
    pub(super) fn free_at_ms(&self, now_ms: u64) -> u64 {
        let mut at_ms = now_ms;
        let mut left: u64 = self.samples.iter().map(|(_, bytes)| bytes).sum();
        for (began_ms, bytes) in &self.samples {
            let ends_ms = began_ms.saturating_add(self.reach_ms());
            if ends_ms > at_ms {
                // The oldest window that counts: how long the bytes may have taken, at the limit.
                let needed_ms = (u128::from(left) * 1_000).div_ceil(u128::from(self.bytes_per_s.max(1)));
                let needed_ms = u64::try_from(needed_ms).unwrap_or(u64::MAX);
                let free_ms =
                    if needed_ms <= self.window_ms { 0 } else { began_ms.saturating_add(needed_ms) };
                if free_ms < ends_ms {
                    return at_ms.max(free_ms);
                }
                at_ms = ends_ms;
            }
            left -= bytes;
        }
        at_ms
    }

    /// Whether the rate is above the limit.
    pub(super) fn is_exceeded(&self, now_ms: u64) -> bool {
        self.free_at_ms(now_ms) > now_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(bytes_per_s: u64) -> Throttle {
        let mut throttle = Throttle::new(11, 1_000);
        throttle.set_limit(bytes_per_s);
        throttle
    }

    #[test]
    fn a_rate_counts_over_one_window_at_least() {
        let mut throttle = limited(1_000);
        throttle.record(5_000, 1_000);
        assert!(!throttle.is_exceeded(5_000), "a second's bytes in a moment are within the limit");
        throttle.record(5_000, 1);
        assert!(throttle.is_exceeded(5_000));
        assert_eq!(throttle.free_at_ms(5_000), 6_001);
        assert!(throttle.is_exceeded(6_000) && !throttle.is_exceeded(6_001));
        assert!(!Throttle::new(11, 1_000).is_exceeded(0), "no limit");
    }

    #[test]
    fn what_lies_behind_all_windows_is_forgotten() {
        let mut throttle = limited(10);
        throttle.record(0, 1_000_000);
        assert_eq!(throttle.free_at_ms(0), 11_000, "as in Kafka, not 100,000 s");
        throttle.record(2_500, 25);
        assert_eq!(throttle.free_at_ms(2_500), 11_000);
        throttle.record(10_000, 500);
        // At 11,000 the 525 bytes since 2,500 count, at 13,500 the 500 since 10,000, until these are forgotten too.
        assert_eq!(throttle.free_at_ms(11_000), 21_000);
        throttle.record(30_000, 1);
        assert_eq!(throttle.samples, [(30_000, 1)]);
    }

    #[test]
    fn in_the_long_run_no_more_comes_than_the_limit_allows() {
        let mut rng = fastrand::Rng::with_seed(7);
        for bytes_per_s in [1_000, 50_000, 1_000_000] {
            let mut throttle = limited(bytes_per_s);
            let (mut now_ms, mut sum) = (0, 0);
            while now_ms < 1_000_000 {
                if !throttle.is_exceeded(now_ms) {
                    let bytes = rng.u64(1..=bytes_per_s * 2);
                    throttle.record(now_ms, bytes);
                    sum += bytes;
                }
                let free_ms = throttle.free_at_ms(now_ms);
                assert!(
                    !throttle.is_exceeded(free_ms)
                        && (free_ms == now_ms || throttle.is_exceeded(free_ms - 1))
                );
                now_ms = free_ms.max(now_ms + rng.u64(1..50));
            }
            let (least, most) = (bytes_per_s * 850, bytes_per_s * 1_150);
            assert!((least..=most).contains(&sum), "{sum} bytes in 1,000 s at {bytes_per_s}");
        }
    }
}
