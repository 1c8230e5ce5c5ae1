//! How a node becomes a member of the metadata quorum: it asks the active controller to be fed the log, again and again
//! until that is decided. Whoever is a member already is told so at once, and a learner whose address has changed makes
//! it known in the same way. A voter that the members look for at another address than its own tells the leader
//! (UpdateRaftVoter) until they do not: it may have been moved, or added with a wrong address.
//!
//! A member that does not vote may have been thrown out without hearing of it: it was unregistered, or silent for too
//! long. One that nobody feeds for [`SILENCE_MS`], or that a leader says it does not know, asks again.

use crate::controller::{Endpoint, Member};
use crate::effect::Now;
use crate::wire::ErrorCode;

/// The pause after a first failure; it doubles up to [`RETRY_MAX_MS`].
const RETRY_FIRST_MS: u64 = 20;
const RETRY_MAX_MS: u64 = 1_000;
/// How long a member that does not vote hears nothing of the quorum before it asks again, in milliseconds. A leader
/// speaks to each member many times a second.
const SILENCE_MS: u64 = 3_000;

/// What is to be asked of the active controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To be a member (JoinQuorum).
    Member,
    /// That others find this voter where it listens (UpdateRaftVoter).
    Moved,
}

/// A node's wish to be a member, and to be found as one.
#[derive(Debug)]
pub struct Joining {
    raft_id: u64,
    endpoint: Endpoint,
    /// What was asked and is not answered.
    asked: Option<Wish>,
    is_done: bool,
    is_voter: bool,
    /// It votes, and the other members look for it somewhere else.
    is_elsewhere: bool,
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
            asked: None,
            is_done: false,
            is_voter: false,
            is_elsewhere: false,
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

    /// What is to be asked now. The answer, or its loss, comes before anything is asked again.
    pub fn next(&mut self, now: Now) -> Option<Wish> {
        let (wish, _) = self.wish().filter(|(_, at_ms)| *at_ms <= now.mono_ms)?;
        self.asked = Some(wish);
        self.is_done &= wish != Wish::Member;
        Some(wish)
    }

    /// What is asked next, and when; `None` while an answer is awaited, and for a voter that is known where it is.
    fn wish(&self) -> Option<(Wish, u64)> {
        if self.asked.is_some() {
            return None;
        }
        if !self.is_done {
            return Some((Wish::Member, self.due_ms));
        }
        if self.is_elsewhere {
            return Some((Wish::Moved, self.due_ms));
        }
        (!self.is_voter).then_some((Wish::Member, self.heard_ms + SILENCE_MS))
    }

    /// When [`Joining::next`] wants to be called, in monotonic milliseconds.
    pub fn next_wake_ms(&self, can_ask: bool) -> Option<u64> {
        self.wish().map(|(_, at_ms)| at_ms).filter(|_| can_ask)
    }

    /// The quorum has told which member this node is.
    pub fn set_known(&mut self, member: Option<&Member>) {
        let voter = member.filter(|member| member.is_voter);
        self.is_voter = voter.is_some();
        let is_at = |at: &Endpoint| (&at.host, at.port) == (&self.endpoint.host, self.endpoint.port);
        // A voter that nobody can dial is found by nobody, wherever that is.
        self.is_elsewhere = self.endpoint.port > 0 && voter.is_some_and(|voter| !is_at(&voter.endpoint));
    }

    /// A member has said something to this node.
    pub fn heard(&mut self, now: Now) {
        self.heard_ms = now.mono_ms;
    }

    /// What the controller said.
    pub fn answered(&mut self, now: Now, answer: Result<(), ErrorCode>) {
        match (self.asked, answer) {
            // The members will tell; if they do not, it is asked again.
            (Some(Wish::Moved), Ok(())) => {
                (self.asked, self.failures) = (None, 0);
                self.due_ms = now.mono_ms + RETRY_MAX_MS;
            }
            // A cluster whose metadata is older has the voters that it has.
            (_, Ok(())) | (Some(Wish::Member) | None, Err(ErrorCode::UnsupportedVersion)) => {
                (self.is_done, self.asked, self.failures) = (true, None, 0);
                self.heard_ms = now.mono_ms;
            }
            (_, Err(_)) => self.lost(now),
        }
    }

    /// Whoever was asked will not answer any more.
    pub fn lost(&mut self, now: Now) {
        if self.asked.take().is_some() {
            let rest_ms = (RETRY_FIRST_MS << self.failures.min(10)).min(RETRY_MAX_MS);
            self.failures += 1;
            self.due_ms = now.mono_ms + rest_ms;
        }
    }

    /// The node has another raft id from now on, which nobody knows yet.
    pub fn renew(&mut self, raft_id: u64) {
        (self.raft_id, self.is_voter, self.is_elsewhere) = (raft_id, false, false);
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

    /// This node as the members know it: it votes, and is at that host.
    fn member(host: &str) -> Member {
        let endpoint = Endpoint { name: "ANOTHER".into(), host: host.into(), port: 1, security_protocol: 0 };
        Member { raft_id: 7, node_id: 1, is_voter: true, endpoint }
    }

    #[test]
    fn it_is_asked_until_it_is_decided_and_again_when_it_was_taken_back() {
        let mut joining = joining();
        joining.set_known(Some(&member("h")));
        assert_eq!((joining.next(at(0)), joining.next(at(0))), (Some(Wish::Member), None));
        assert_eq!(joining.next_wake_ms(true), None);
        joining.answered(at(0), Err(ErrorCode::NotController));
        assert_eq!(joining.next_wake_ms(true), Some(20));
        assert_eq!((joining.next(at(19)), joining.next(at(20))), (None, Some(Wish::Member)));
        joining.lost(at(20));
        joining.lost(at(21));
        assert_eq!((joining.next_wake_ms(true), joining.next_wake_ms(false)), (Some(60), None));
        assert_eq!(joining.next(at(60)), Some(Wish::Member));
        joining.answered(at(61), Ok(()));
        assert!(joining.next(at(1_000)).is_none() && joining.next_wake_ms(true).is_none());
        joining.begin_again();
        assert_eq!(joining.next(at(1_000)), Some(Wish::Member));
    }

    #[test]
    fn a_member_without_a_vote_that_hears_nothing_asks_again_and_a_voter_does_not() {
        let mut joining = joining();
        assert_eq!(joining.next(at(0)), Some(Wish::Member));
        joining.answered(at(10), Ok(()));
        assert_eq!(joining.next_wake_ms(true), Some(3_010));
        joining.heard(at(2_000));
        assert!(joining.next(at(4_999)).is_none());
        assert_eq!(joining.next(at(5_000)), Some(Wish::Member), "nobody has fed it for long");
        joining.lost(at(5_100));
        assert_eq!(joining.next_wake_ms(true), Some(5_120), "it asks until it is decided");
        assert_eq!(joining.next(at(5_120)), Some(Wish::Member));
        joining.answered(at(5_130), Ok(()));
        joining.set_known(Some(&member("h")));
        assert!(joining.next(at(1_000_000)).is_none() && joining.next_wake_ms(true).is_none());
    }

    #[test]
    fn a_voter_that_is_looked_for_elsewhere_tells_where_it_is_until_the_members_know() {
        let mut joining = joining();
        joining.set_known(Some(&member("before")));
        assert_eq!(joining.next(at(0)), Some(Wish::Member));
        joining.answered(at(1), Ok(()));
        assert_eq!(joining.next(at(1)), Some(Wish::Moved));
        joining.answered(at(2), Err(ErrorCode::FencedLeaderEpoch));
        assert_eq!((joining.next(at(21)), joining.next(at(22))), (None, Some(Wish::Moved)));
        joining.lost(at(22));
        assert_eq!(joining.next(at(62)), Some(Wish::Moved));
        joining.answered(at(63), Ok(()));
        assert_eq!(joining.next_wake_ms(true), Some(1_063), "the members have not told yet");
        joining.set_known(Some(&member("h")));
        assert_eq!(joining.next_wake_ms(true), None);
        joining.set_known(Some(&member("an operator's mistake")));
        assert_eq!(joining.next(at(2_000)), Some(Wish::Moved));
        let learner = Member { is_voter: false, ..member("before") };
        joining.lost(at(2_000));
        joining.set_known(Some(&learner));
        assert_eq!(joining.next_wake_ms(true), Some(3_001), "a learner says so when it joins");
    }
}
