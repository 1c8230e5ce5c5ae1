//! How a node becomes a member of the metadata quorum: it asks the active controller to be fed the log, again and again
//! until that is decided. Whoever is a member already is told so at once, and a member whose address has changed makes
//! it known in the same way.

use crate::controller::Endpoint;
use crate::effect::Now;
use crate::wire::ErrorCode;

/// The pause after a first failure; it doubles up to [`RETRY_MAX_MS`].
const RETRY_FIRST_MS: u64 = 20;
const RETRY_MAX_MS: u64 = 1_000;

/// A node's wish to be a member.
#[derive(Debug)]
pub struct Joining {
    raft_id: u64,
    endpoint: Endpoint,
    in_flight: bool,
    is_done: bool,
    due_ms: u64,
    failures: u32,
}

impl Joining {
    /// One that has not asked yet. Members reach the node at `endpoint`.
    pub fn new(raft_id: u64, endpoint: Endpoint) -> Self {
        Self { raft_id, endpoint, in_flight: false, is_done: false, due_ms: 0, failures: 0 }
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
        let asks = !self.in_flight && !self.is_done && self.due_ms <= now.mono_ms;
        self.in_flight |= asks;
        asks
    }

    /// When [`Joining::next`] wants to be called, in monotonic milliseconds.
    pub fn next_wake_ms(&self, can_ask: bool) -> Option<u64> {
        (can_ask && !self.in_flight && !self.is_done).then_some(self.due_ms)
    }

    /// What the controller said.
    pub fn answered(&mut self, now: Now, answer: Result<(), ErrorCode>) {
        match answer {
            // A cluster whose metadata is older has the voters that it has.
            Ok(()) | Err(ErrorCode::UnsupportedVersion) => {
                (self.is_done, self.in_flight, self.failures) = (true, false, 0);
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

    /// The node is no member any more as far as it knows: it was unregistered, and comes again.
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

    #[test]
    fn it_is_asked_until_it_is_decided_and_again_when_it_was_taken_back() {
        let endpoint =
            Endpoint { name: "CONTROLLER".into(), host: "h".into(), port: 1, security_protocol: 0 };
        let mut joining = Joining::new(7, endpoint);
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
}
