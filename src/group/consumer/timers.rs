//! When members of a consumer group are given up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Why a member is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// It was not heard of.
    Session,
    /// It did not give partitions up in time.
    Rebalance,
    /// It follows the classic protocol and did not join again in time.
    Join,
    /// It follows the classic protocol and did not ask for its assignment in time.
    Sync,
}

impl Timer {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Session, Self::Rebalance, Self::Join, Self::Sync];
}

/// The timers of one group.
#[derive(Debug, Default)]
pub struct Timers {
    at_ms: BTreeMap<(Arc<str>, Timer), u64>,
    order: BTreeSet<(u64, Arc<str>, Timer)>,
}

impl Timers {
    /// Sets or stops a timer; monotonic milliseconds.
    pub fn set(&mut self, member: &Arc<str>, timer: Timer, at_ms: Option<u64>) {
        let key = (member.clone(), timer);
        if let Some(before) = self.at_ms.remove(&key) {
            self.order.remove(&(before, member.clone(), timer));
        }
        if let Some(at_ms) = at_ms {
            self.at_ms.insert(key, at_ms);
            self.order.insert((at_ms, member.clone(), timer));
        }
    }

    /// Whether a timer is set.
    pub fn is_set(&self, member: &Arc<str>, timer: Timer) -> bool {
        self.at_ms.contains_key(&(member.clone(), timer))
    }

    /// When the first is due.
    pub fn next_ms(&self) -> Option<u64> {
        self.order.first().map(|(at_ms, ..)| *at_ms)
    }

    /// Takes the first that is due; its member is to be given up.
    pub fn take_due(&mut self, now_ms: u64) -> Option<Arc<str>> {
        let (_, member, timer) = self.order.first().filter(|(at_ms, ..)| *at_ms <= now_ms)?.clone();
        self.set(&member, timer, None);
        Some(member)
    }

    /// The members that have timers; for checks.
    pub fn members(&self) -> impl Iterator<Item = &Arc<str>> {
        self.at_ms.keys().map(|(member, _)| member)
    }
}
