//! When a leader heard of the other members, and when they had everything: what DescribeQuorum tells, and who is gone.

use std::collections::BTreeMap;

use super::care::LOOK_MS;
use super::members::Members;

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
    /// For how long each has said nothing, as far as this node was there to hear it, in milliseconds.
    silent_ms: BTreeMap<u64, u64>,
    looked_ms: Option<u64>,
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
        self.silent_ms.insert(raft_id, 0);
    }

    /// Time has passed; `true` when the members are to be looked at. A node that was itself stopped for a while does
    /// not hold that against the others: what they said may be waiting to be read.
    pub(super) fn look(&mut self, now_ms: u64, members: &Members) -> bool {
        let away_ms = now_ms.saturating_sub(*self.looked_ms.get_or_insert(now_ms));
        if away_ms < LOOK_MS {
            return false;
        }
        self.looked_ms = Some(now_ms);
        self.silent_ms.retain(|raft_id, _| members.get(*raft_id).is_some());
        for member in members.iter() {
            *self.silent_ms.entry(member.raft_id).or_default() += away_ms.min(2 * LOOK_MS);
        }
        true
    }

    /// For how long that member has said nothing since this node leads, in milliseconds.
    pub(super) fn silent_ms(&self, raft_id: u64) -> u64 {
        self.silent_ms.get(&raft_id).copied().unwrap_or(0)
    }

    /// When it was heard of last, and when it was last caught up; -1 for never.
    pub(super) fn times(&self, raft_id: u64) -> (i64, i64) {
        self.heard.get(&raft_id).map_or((-1, -1), |heard| (heard.at_ms, heard.caught_up_ms))
    }

    /// A member goes: if it comes back, nothing is held against it.
    pub(super) fn forget(&mut self, raft_id: u64) {
        self.heard.remove(&raft_id);
        self.silent_ms.remove(&raft_id);
    }

    /// This node no longer leads.
    pub(super) fn clear(&mut self) {
        self.heard.clear();
        self.silent_ms.clear();
        self.looked_ms = None;
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

    #[test]
    fn silence_counts_only_while_this_node_listens() {
        let members = Members::of_voters(&[super::super::VoterEndpoint::alone(1, 7)], "c").unwrap();
        let mut replicas = Replicas::default();
        assert!(!replicas.look(5_000, &members) && !replicas.look(5_999, &members));
        assert!(replicas.look(6_000, &members));
        assert_eq!(replicas.silent_ms(7), 1_000);
        assert!(replicas.look(96_000, &members));
        assert_eq!(replicas.silent_ms(7), 3_000, "it was stopped itself");
        replicas.heard(7, 100, 3, 9);
        assert_eq!(replicas.silent_ms(7), 0);
        assert!(replicas.look(97_000, &Members::default()) && replicas.silent_ms(7) == 0);
    }
}
