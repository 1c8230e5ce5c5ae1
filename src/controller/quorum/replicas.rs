//! When a leader heard of the other members, and when they had everything: what DescribeQuorum tells.

use std::collections::BTreeMap;

/// What is known of one member.
#[derive(Clone, Copy, Debug)]
struct Heard {
    at_ms: i64,
    /// Last index of the leader at that moment.
    index_last: u64,
    caught_up_ms: i64,
}

/// What is known of the members since this node leads, by raft id.
#[derive(Debug, Default)]
pub(super) struct Replicas {
    heard: BTreeMap<u64, Heard>,
}

impl Replicas {
    /// A member has spoken. As in Kafka, it is caught up as of now if it has everything, or as of the time before
    /// if it has what there was then.
    pub(super) fn heard(&mut self, raft_id: u64, now_ms: i64, matched: u64, index_last: u64) {
        let known = self.heard.get(&raft_id);
        let caught_up_ms = match known {
            _ if matched >= index_last => now_ms,
            Some(known) if matched >= known.index_last => known.caught_up_ms.max(known.at_ms),
            Some(known) => known.caught_up_ms,
            None => -1,
        };
        self.heard.insert(raft_id, Heard { at_ms: now_ms, index_last, caught_up_ms });
    }

    /// When it was heard of last, and when it was last caught up; -1 for never.
    pub(super) fn times(&self, raft_id: u64) -> (i64, i64) {
        self.heard.get(&raft_id).map_or((-1, -1), |heard| (heard.at_ms, heard.caught_up_ms))
    }

    /// This node no longer leads.
    pub(super) fn clear(&mut self) {
        self.heard.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_caught_up_as_of_when_it_had_everything() {
        let mut replicas = Replicas::default();
        assert_eq!(replicas.times(7), (-1, -1));
        replicas.heard(7, 100, 3, 9);
        assert_eq!(replicas.times(7), (100, -1));
        replicas.heard(7, 200, 9, 12);
        assert_eq!(replicas.times(7), (200, 100));
        replicas.heard(7, 300, 11, 15);
        assert_eq!(replicas.times(7), (300, 100));
        replicas.heard(7, 400, 15, 15);
        assert_eq!(replicas.times(7), (400, 400));
    }
}
