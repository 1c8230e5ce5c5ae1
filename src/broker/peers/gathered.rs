//! What this node wants to tell or ask the active controller of its replicas: gathered into one request at a time, and
//! sent again until the controller has said something to each.
//!
//! A replica has at most one wish here. A newer one takes the place of one that waits; one that is in flight is
//! followed by the newer one.

use std::collections::BTreeMap;

use super::fetcher::ReplicaKey;
use crate::effect::Now;

/// The pause after a first failure of a whole request; it doubles up to [`RETRY_MAX_MS`].
const RETRY_FIRST_MS: u64 = 20;
const RETRY_MAX_MS: u64 = 1_000;

/// Wishes of a whole node, of which one request takes `MOST`; the rest goes with the next one.
#[derive(Debug)]
pub struct Gathered<V, const MOST: usize> {
    waiting: BTreeMap<ReplicaKey, V>,
    /// The request in flight.
    asked: Option<BTreeMap<ReplicaKey, V>>,
    quiet_until_ms: u64,
    failures: u32,
}

impl<V, const MOST: usize> Default for Gathered<V, MOST> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), asked: None, quiet_until_ms: 0, failures: 0 }
    }
}

impl<V, const MOST: usize> Gathered<V, MOST> {
    /// A replica's wish.
    pub fn ask(&mut self, key: ReplicaKey, wish: V) {
        self.waiting.insert(key, wish);
    }

    /// What waits of a replica is not to be asked any more.
    pub fn forget(&mut self, key: ReplicaKey) {
        self.waiting.remove(&key);
    }

    /// Whether nothing waits and nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.asked.is_none()
    }

    /// When a request is due, if there is a controller to ask.
    pub fn next_wake_ms(&self, can_ask: bool) -> Option<u64> {
        (can_ask && self.asked.is_none() && !self.waiting.is_empty()).then_some(self.quiet_until_ms)
    }

    /// The wishes of the next request, where one is due. From now on it is in flight.
    pub fn next_request(&mut self, now: Now) -> Option<&BTreeMap<ReplicaKey, V>> {
        if self.next_wake_ms(true).is_none_or(|at_ms| now.mono_ms < at_ms) {
            return None;
        }
        let mut asked = std::mem::take(&mut self.waiting);
        if let Some(rest) = asked.keys().nth(MOST).copied() {
            self.waiting = asked.split_off(&rest);
        }
        Some(self.asked.insert(asked))
    }

    /// The request in flight was answered. `settle` takes out of it what something was said to; the rest is asked
    /// again, unless something newer is to be asked. `None` where nothing is in flight.
    pub fn settle<R>(&mut self, settle: impl FnOnce(&mut BTreeMap<ReplicaKey, V>) -> R) -> Option<R> {
        let mut asked = self.asked.take()?;
        let settled = settle(&mut asked);
        self.failures = 0;
        self.put_back(asked);
        Some(settled)
    }

    /// Nobody will answer the request in flight any more, or the controller refused it as a whole: it is asked again.
    pub fn lost(&mut self, now: Now) {
        if let Some(asked) = self.asked.take() {
            self.put_back(asked);
            let pause_ms = RETRY_FIRST_MS.saturating_mul(1 << self.failures.min(16)).min(RETRY_MAX_MS);
            self.quiet_until_ms = now.mono_ms + pause_ms;
            self.failures += 1;
        }
    }

    fn put_back(&mut self, asked: BTreeMap<ReplicaKey, V>) {
        for (key, wish) in asked {
            self.waiting.entry(key).or_insert(wish);
        }
    }
}
