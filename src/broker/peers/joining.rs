//! How a node becomes a member of the metadata quorum: it asks the active controller to be fed the log, again and again
//! until that is decided. Whoever is a member already is told so at once, and a member whose address has changed makes
//! it known in the same way.
//!
//! A member that does not vote may have been thrown out without hearing of it: it was unregistered, or silent for too
//! long. One that nobody feeds for [`SILENCE_MS`], or that a leader says it does not know, asks again.

use crate::controller::Endpoint;
use crate::effect::Now;
use crate::wire::ErrorCode;

/// The pause after a first failure; it doubles up to [`RETRY_MAX_MS`].
const RETRY_FIRST_MS: u64 = 20;
const RETRY_MAX_MS: u64 = 1_000;
/// How long a member that does not vote hears nothing of the quorum before it asks again, in milliseconds. A leader
/// speaks to each member many times a second.
const SILENCE_MS: u64 = 3_000;

/// A node's wish to be a member.
#[derive(Debug)]
pub struct Joining {
    raft_id: u64,
    endpoint: Endpoint,
    in_flight: bool,
    is_done: bool,
    is_voter: bool,
    due_ms: u64,
    /// When it was last heard, or told, that this node is a member.
    heard_ms: u64,
    failures: u32,
}

impl Joining {
    /// One that has not asked yet. Members reach the node at `endpoint`.
    pub fn new(raft_id: u64, endpoint: Endpoint) -> Self {
        Self {
            raft_id,
            endpoint,
            in_flight: false,
            is_done: false,
            is_voter: false,
            due_ms: 0,
            heard_ms: 0,
            failures: 0,
        }
    }

    /// The raft id that is to be a member.
    pub fn raft_id(&self) -> u64 {
        self.raft_id
    }

    /// Where members reach it.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether it is to be asked now. The answer, or its loss, comes before it is asked again.
    pub fn next(&mut self, now: Now) -> bool {
        let asks = self.asks_at_ms().is_some_and(|at_ms| at_ms <= now.mono_ms);
        if asks {
            (self.in_flight, self.is_done) = (true, false);
        }
        asks
    }

    /// When it is asked next; `None` while an answer is awaited, and for a voter that knows that it is one.
    fn asks_at_ms(&self) -> Option<u64> {
        match (self.in_flight, self.is_done) {
            (true, _) => None,
            (false, false) => Some(self.due_ms),
            (false, true) => (!self.is_voter).then_some(self.heard_ms + SILENCE_MS),
        }
    }

    /// When [`Joining::next`] wants to be called, in monotonic milliseconds.
    pub fn next_wake_ms(&self, can_ask: bool) -> Option<u64> {
        self.asks_at_ms().filter(|_| can_ask)
    }

    /// The quorum has told whether this node votes.
    pub fn set_voter(&mut self, is_voter: bool) {
        self.is_voter = is_voter;
    }

    /// A member has said something to this node.
    pub fn heard(&mut self, now: Now) {
        self.heard_ms = now.mono_ms;
    }

    /// What the controller said.
    pub fn answered(&mut self, now: Now, answer: Result<(), ErrorCode>) {
        match answer {
            // A cluster whose metadata is older has the voters that it has.
            Ok(()) | Err(ErrorCode::UnsupportedVersion) => {
                (self.is_done, self.in_flight, self.failures) = (true, false, 0);
                self.heard_ms = now.mono_ms;
            }
            Err(_) => self.lost(now),
        }
    }

    /// Whoever was asked will not answer any more.
    pub fn lost(&mut self, now: Now) {
        if std::mem::take(&mut self.in_flight) {
            let rest_ms = (RETRY_FIRST_MS << self.failures.min(10)).min(RETRY_MAX_MS);
            self.failures += 1;
            self.due_ms = now.mono_ms + rest_ms;
        }
    }

    /// The node has another raft id from now on, which nobody knows yet.
    pub fn renew(&mut self, raft_id: u64) {
        (self.raft_id, self.is_voter) = (raft_id, false);
        self.begin_again();
    }

    /// The node is no member any more as far as it knows: it was unregistered, or thrown out, and comes again.
    pub fn begin_again(&mut self) {
        self.is_done = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, wall_ms: 0 }
    }

    fn joining() -> Joining {
        let endpoint =
            Endpoint { name: "CONTROLLER".into(), host: "h".into(), port: 1, security_protocol: 0 };
        Joining::new(7, endpoint)
    }

    #[test]
    fn it_is_asked_until_it_is_decided_and_again_when_it_was_taken_back() {
        let mut joining = joining();
        joining.set_voter(true);
        assert!(joining.next(at(0)) && !joining.next(at(0)));
        assert_eq!(joining.next_wake_ms(true), None);
        joining.answered(at(0), Err(ErrorCode::NotController));
        assert_eq!(joining.next_wake_ms(true), Some(20));
        assert!(!joining.next(at(19)) && joining.next(at(20)));
        joining.lost(at(20));
        joining.lost(at(21));
        assert_eq!((joining.next_wake_ms(true), joining.next_wake_ms(false)), (Some(60), None));
        assert!(joining.next(at(60)));
        joining.answered(at(61), Ok(()));
        assert!(!joining.next(at(1_000)) && joining.next_wake_ms(true).is_none());
        joining.begin_again();
        assert!(joining.next(at(1_000)));
    }

    #[test]
    fn a_member_without_a_vote_that_hears_nothing_asks_again_and_a_voter_does_not() {
        let mut joining = joining();
        assert!(joining.next(at(0)));
        joining.answered(at(10), Ok(()));
        assert_eq!(joining.next_wake_ms(true), Some(3_010));
        joining.heard(at(2_000));
        assert!(!joining.next(at(4_999)) && joining.next(at(5_000)), "nobody has fed it for long");
        joining.lost(at(5_100));
        assert_eq!(joining.next_wake_ms(true), Some(5_120), "it asks until it is decided");
        assert!(joining.next(at(5_120)));
        joining.answered(at(5_130), Ok(()));
        joining.set_voter(true);
        assert!(!joining.next(at(1_000_000)) && joining.next_wake_ms(true).is_none());
    }
}
