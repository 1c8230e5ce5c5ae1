//! ISR changes that this node's leaders want, and the controller's answers to them. The answer to a change that is in
//! flight goes to its partition, which knows by the epochs whether it means anything.

use crate::broker::peers::fetcher::ReplicaKey;
use crate::broker::peers::gathered::Gathered;
use crate::effect::Now;
use crate::partition::{IsrChange, IsrState};
use crate::wire::ErrorCode;

/// Changes in one request.
const CHANGES_MAX: usize = 1_000;

/// What the controller says to one change.
pub type Altered = (ReplicaKey, Result<IsrState, ErrorCode>);

/// That, with the change that it is the answer to.
pub type Settled = (ReplicaKey, IsrChange, Result<IsrState, ErrorCode>);

/// The changes of a whole node, for AlterPartition.
pub type IsrChanges = Gathered<IsrChange, CHANGES_MAX>;

impl IsrChanges {
    /// The answer: what the controller said to each, or why to none. Gives what the partitions are to be told.
    pub fn answered(&mut self, now: Now, answer: Result<Vec<Altered>, ErrorCode>) -> Vec<Settled> {
        let Ok(altered) = answer else {
            self.lost(now);
            return Vec::new();
        };
        let settled = self.settle(|asked| {
            let settle = |(key, result): Altered| Some((key, asked.remove(&key)?, result));
            altered.into_iter().filter_map(settle).collect()
        });
        settled.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;
    use uuid::Uuid;

    use super::*;
    use crate::partition::LeaderRecovery;

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, wall_ms: 0 }
    }

    fn key(index: i32) -> ReplicaKey {
        (Uuid::from_u128(1), index)
    }

    fn change(partition_epoch: i32) -> IsrChange {
        let recovery = LeaderRecovery::Recovered;
        IsrChange { leader_epoch: 1, partition_epoch, isr: smallvec![(1, 10), (2, 20)], recovery }
    }

    fn state(partition_epoch: i32) -> IsrState {
        let recovery = LeaderRecovery::Recovered;
        IsrState { leader: 1, leader_epoch: 1, partition_epoch, isr: smallvec![1, 2], recovery }
    }

    #[test]
    fn changes_are_gathered_and_one_request_is_in_flight() {
        let mut changes = IsrChanges::default();
        assert!(changes.next_request(at(0)).is_none());
        changes.ask(key(0), change(3));
        changes.ask(key(1), change(4));
        changes.ask(key(0), change(5));
        let asked: Vec<_> = changes.next_request(at(0)).unwrap().clone().into_iter().collect();
        assert_eq!(asked, [(key(0), change(5)), (key(1), change(4))], "the newest of each");
        changes.ask(key(2), change(1));
        assert!(changes.next_request(at(0)).is_none() && changes.next_wake_ms(true).is_none());
        let answer = vec![
            (key(1), Err(ErrorCode::InvalidUpdateVersion)),
            (key(0), Ok(state(6))),
            (key(9), Ok(state(1))),
        ];
        let altered = changes.answered(at(1), Ok(answer));
        let refused = (key(1), change(4), Err(ErrorCode::InvalidUpdateVersion));
        assert_eq!(altered, [refused, (key(0), change(5), Ok(state(6)))]);
        assert_eq!(changes.next_request(at(1)).unwrap().len(), 1);
    }

    #[test]
    fn what_was_not_answered_is_asked_again_unless_something_newer_is() {
        let mut changes = IsrChanges::default();
        changes.ask(key(0), change(3));
        changes.ask(key(1), change(4));
        let mut now_ms = 0;
        for pause_ms in [20, 40, 80] {
            assert_eq!(changes.next_request(at(now_ms)).unwrap().len(), 2);
            assert!(changes.answered(at(now_ms), Err(ErrorCode::NotController)).is_empty());
            assert_eq!(changes.next_wake_ms(true), Some(now_ms + pause_ms));
            assert_eq!(changes.next_wake_ms(false), None);
            now_ms += pause_ms;
            assert!(changes.next_request(at(now_ms - 1)).is_none());
        }
        changes.next_request(at(now_ms)).unwrap();
        changes.ask(key(0), change(9));
        changes.lost(at(now_ms));
        let asked: Vec<_> = changes.next_request(at(now_ms + 1_000)).unwrap().clone().into_iter().collect();
        assert_eq!(asked, [(key(0), change(9)), (key(1), change(4))]);
        let altered = changes.answered(at(now_ms), Ok(vec![(key(0), Ok(state(10)))]));
        assert_eq!(altered.len(), 1);
        assert_eq!(changes.next_request(at(now_ms + 1_000)).unwrap().len(), 1, "the other one again");
        changes.answered(at(now_ms), Ok(vec![(key(1), Ok(state(5)))]));
        assert!(changes.is_empty());
        assert!(changes.answered(at(now_ms), Ok(vec![(key(1), Ok(state(5)))])).is_empty());
    }

    #[test]
    fn a_request_has_a_thousand_changes_at_most() {
        let mut changes = IsrChanges::default();
        (0..2_500).for_each(|index| changes.ask(key(index), change(1)));
        for count in [1_000, 1_000, 500] {
            let asked: Vec<_> = changes.next_request(at(0)).unwrap().keys().copied().collect();
            assert_eq!(asked.len(), count);
            changes.answered(at(0), Ok(asked.into_iter().map(|key| (key, Ok(state(2)))).collect()));
        }
        assert!(changes.is_empty());
    }
}
