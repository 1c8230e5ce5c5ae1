//! In which log directories this node's replicas are, as its cluster is to know it (KIP-858, AssignReplicasToDirs).

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::broker::peers::fetcher::ReplicaKey;
use crate::broker::peers::gathered::Gathered;
use crate::controller::directories::Assigned;
use crate::effect::Now;
use crate::wire::ErrorCode;

/// Replicas in one request, as in Kafka.
const REPLICAS_MAX: usize = 2_250;

/// The log directories of a node, and what the controller is to know of them.
#[derive(Debug, Default)]
pub struct Assignments {
    /// Ids of the log directories, by number; none of one that could not be used at the start.
    ids: Vec<Option<Uuid>>,
    /// Those that have failed since.
    offline: Vec<Uuid>,
    told: Gathered<Uuid, REPLICAS_MAX>,
}

impl Assignments {
    /// Of log directories with these ids, by number.
    pub fn new(ids: Vec<Option<Uuid>>) -> Self {
        Self { ids, ..Self::default() }
    }

    /// Ids of the log directories, by number; none of one that could not be used at the start.
    pub fn ids(&self) -> &[Option<Uuid>] {
        &self.ids
    }

    /// Ids of those that have failed since the start.
    pub fn offline(&self) -> &[Uuid] {
        &self.offline
    }

    /// A log directory has failed; its id, if that is news.
    pub fn directory_failed(&mut self, directory: u16) -> Option<Uuid> {
        let id = self.ids.get(usize::from(directory)).copied().flatten()?;
        if self.offline.contains(&id) {
            return None;
        }
        self.offline.push(id);
        Some(id)
    }

    /// A replica is in the directory with that id, whatever the cluster knows.
    pub fn tell(&mut self, key: ReplicaKey, directory: Uuid) {
        self.told.ask(key, directory);
    }

    /// The cluster knows where a replica is.
    pub fn is_known(&mut self, key: ReplicaKey) {
        self.told.forget(key);
    }

    /// Whether the cluster has been told where every replica is.
    pub fn is_known_of_all(&self) -> bool {
        self.told.is_empty()
    }

    /// When a request is due, if there is a controller to ask.
    pub fn next_wake_ms(&self, can_ask: bool) -> Option<u64> {
        self.told.next_wake_ms(can_ask)
    }

    /// The replicas of the next request, where one is due. From now on it is in flight.
    pub fn next_request(&mut self, now: Now) -> Option<&BTreeMap<ReplicaKey, Uuid>> {
        self.told.next_request(now)
    }

    /// The answer: what the controller said to each, or why to none. Of a replica that it knows nothing of, the next
    /// Image says what is to be told.
    pub fn answered(&mut self, now: Now, answer: Result<Vec<Assigned>, ErrorCode>) {
        let Ok(assigned) = answer else { return self.lost(now) };
        self.told.settle(|asked| {
            let said = |result: &Result<(), ErrorCode>| *result != Err(ErrorCode::OperationNotAttempted);
            for (topic_id, index, _) in assigned.iter().filter(|(_, _, result)| said(result)) {
                asked.remove(&(*topic_id, *index));
            }
        });
    }

    /// Nobody will answer the request in flight any more: it is told again.
    pub fn lost(&mut self, now: Now) {
        self.told.lost(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, wall_ms: 0 }
    }

    fn key(index: i32) -> ReplicaKey {
        (Uuid::from_u128(1), index)
    }

    const A: Uuid = Uuid::from_u128(0xa00);
    const B: Uuid = Uuid::from_u128(0xb00);

    fn next(assignments: &mut Assignments, now_ms: u64) -> Vec<(i32, Uuid)> {
        let asked = assignments.next_request(at(now_ms));
        asked.map(|asked| asked.iter().map(|((_, index), id)| (*index, *id)).collect()).unwrap_or_default()
    }

    #[test]
    fn one_request_is_in_flight_and_what_was_told_since_follows_it() {
        let mut assignments = Assignments::default();
        assignments.tell(key(0), A);
        assignments.tell(key(1), A);
        assignments.tell(key(2), A);
        assignments.is_known(key(2));
        assert_eq!(next(&mut assignments, 0), [(0, A), (1, A)]);
        assignments.tell(key(0), B);
        assert!(next(&mut assignments, 0).is_empty() && assignments.next_wake_ms(true).is_none());
        let refused = Err(ErrorCode::NotLeaderOrFollower);
        let told = vec![(key(0).0, 0, Ok(())), (key(1).0, 1, refused)];
        assignments.answered(at(1), Ok(told));
        assert_eq!(assignments.next_wake_ms(true), Some(0));
        assert_eq!(next(&mut assignments, 1), [(0, B)], "it has moved meanwhile");
    }

    #[test]
    fn what_was_not_heard_or_not_attempted_is_told_again() {
        let mut assignments = Assignments::default();
        assignments.tell(key(0), A);
        let mut now_ms = 0;
        for pause_ms in [20, 40, 80] {
            assert_eq!(next(&mut assignments, now_ms), [(0, A)]);
            assignments.answered(at(now_ms), Err(ErrorCode::StaleBrokerEpoch));
            assert_eq!(assignments.next_wake_ms(true), Some(now_ms + pause_ms));
            assert_eq!(assignments.next_wake_ms(false), None);
            now_ms += pause_ms;
        }
        assert_eq!(next(&mut assignments, now_ms), [(0, A)]);
        assignments.tell(key(0), B);
        assignments.lost(at(now_ms));
        assert_eq!(next(&mut assignments, now_ms + 1_000), [(0, B)], "the newer one");
        let later = vec![(key(0).0, 0, Err(ErrorCode::OperationNotAttempted))];
        assignments.answered(at(now_ms), Ok(later));
        assert_eq!(next(&mut assignments, now_ms + 1_000), [(0, B)]);
        assignments.answered(at(now_ms), Ok(Vec::new()));
        assert_eq!(next(&mut assignments, now_ms + 1_000), [(0, B)], "nobody said anything to it");
    }

    #[test]
    fn a_request_has_so_many_replicas_at_most() {
        let mut assignments = Assignments::default();
        (0..5_000).for_each(|index| assignments.tell(key(index), A));
        for count in [2_250, 2_250, 500] {
            let asked = next(&mut assignments, 0);
            assert_eq!(asked.len(), count);
            let told = asked.into_iter().map(|(index, _)| (key(0).0, index, Ok(())));
            assignments.answered(at(0), Ok(told.collect()));
        }
        assert!(next(&mut assignments, 0).is_empty());
    }

    #[test]
    fn a_directory_fails_once_and_one_that_was_never_there_does_not() {
        let mut assignments = Assignments::new(vec![Some(A), None, Some(B)]);
        assert_eq!(assignments.directory_failed(1), None);
        assert_eq!(assignments.directory_failed(2), Some(B));
        assert_eq!((assignments.directory_failed(2), assignments.directory_failed(9)), (None, None));
        assert_eq!(assignments.offline(), [B]);
    }
}
