//! What groups promise: an acknowledged commit is never lost and never goes back, and a partition has one owner in a
//! generation.
//!
//! Every committed value is new and above all earlier ones, so an older one that comes back is seen.

use std::collections::{BTreeMap, BTreeSet};

/// A group and one of its partitions.
type Key = (String, i32);

#[derive(Debug, Default)]
struct Known {
    /// The largest value that was acknowledged and that nothing may have taken back.
    acked: Option<i64>,
    sent: BTreeSet<i64>,
}

/// Everything that members committed.
#[derive(Debug, Default)]
pub struct Commits {
    value_last: i64,
    known: BTreeMap<Key, Known>,
    /// By group, generation and partition.
    owners: BTreeMap<(String, i32, i32), String>,
    acked: u64,
}

impl Commits {
    /// A value above all others, on its way.
    pub fn send(&mut self, group: &str, partition: i32) -> i64 {
        self.value_last += 1;
        let known = self.known.entry((group.to_string(), partition)).or_default();
        known.sent.insert(self.value_last);
        self.value_last
    }

    /// A commit was acknowledged.
    pub fn acked(&mut self, group: &str, partition: i32, value: i64) {
        let known = self.known.entry((group.to_string(), partition)).or_default();
        known.acked = known.acked.max(Some(value));
        self.acked += 1;
    }

    /// What a fetch that is sent now has to find at least.
    pub fn floor(&self, group: &str, partition: i32) -> Option<i64> {
        self.known.get(&(group.to_string(), partition)).and_then(|known| known.acked)
    }

    /// A fetch found a value; -1 is none.
    pub fn found(&self, group: &str, partition: i32, floor: Option<i64>, value: i64) {
        let found = (value != -1).then_some(value);
        assert!(
            found >= floor,
            "lost commit: {group} of partition {partition} is at {found:?}, and {floor:?} was acknowledged"
        );
        let known = self.known.get(&(group.to_string(), partition));
        let was_sent = |value: &i64| known.is_some_and(|known| known.sent.contains(value));
        assert!(found.as_ref().is_none_or(was_sent), "{group} of partition {partition} was never at {value}");
    }

    /// A member was given a partition.
    pub fn owns(&mut self, group: &str, generation: i32, partition: i32, member: &str) {
        let key = (group.to_string(), generation, partition);
        let owner = self.owners.entry(key).or_insert_with(|| member.to_string());
        assert!(
            owner == member,
            "two owners: {owner} and {member} have partition {partition} of {group} in generation {generation}"
        );
    }

    /// What was not synced may be gone: promises begin anew.
    pub fn power_was_cut(&mut self) {
        self.known.values_mut().for_each(|known| known.acked = None);
        self.owners.clear();
    }

    /// Groups and partitions of which something was sent.
    pub fn keys(&self) -> Vec<Key> {
        self.known.keys().cloned().collect()
    }

    /// How many commits were acknowledged.
    pub fn count(&self) -> u64 {
        self.acked
    }
}
