//! What a controller says to others binds it: the term that it is in, whom it voted for in it, and up to where it has
//! its leader's entries. All of that is on its disk when it starts again, or two would lead in one term, or what was
//! committed would be gone.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes};
use kafka_protocol::messages::RequestHeader;
use kafka_protocol::protocol::Decodable;
use tidemill::controller::quorum::codec::{self, Body, Message};
use tidemill::controller::raft::Stored;
use tidemill::wire::outbound::{RAFT_MESSAGES, RaftMessages};

/// What a member has promised in the newest term that it spoke of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Promise {
    term: u64,
    /// Raft id of whom it voted for.
    vote: Option<u64>,
    /// Last index that it said it has.
    index: u64,
}

/// What the members of a quorum have promised, by raft id.
#[derive(Debug, Default)]
pub struct Promises {
    by_member: BTreeMap<u64, Promise>,
}

impl Promises {
    /// A frame leaves a node; only those with messages of raft count.
    pub fn left(&mut self, frame: &Bytes) {
        let is_raft = frame.get(4..6) == Some(&RAFT_MESSAGES.to_be_bytes()[..]);
        if !is_raft {
            return;
        }
        let mut rest = frame.slice(4..);
        RequestHeader::decode(&mut rest, 2).expect("a header of the broker's");
        let body = rest.copy_to_bytes(rest.remaining());
        for message in RaftMessages::parse(&body).expect("a body of the broker's").messages {
            self.said(&codec::decode(&message).expect("a message of the broker's"));
        }
    }

    /// A member says something.
    fn said(&mut self, message: &Message) {
        let Message { from, to, term, body } = message;
        // A question binds nobody, and is asked for a term that may never be.
        if matches!(body, Body::Vote { pre: true, .. } | Body::Voted { pre: true, .. }) {
            return;
        }
        let promise = self.by_member.entry(*from).or_default();
        if promise.term < *term {
            *promise = Promise { term: *term, ..Promise::default() };
        }
        if promise.term > *term {
            return;
        }
        match body {
            Body::Vote { .. } => promise.vote = Some(*from),
            Body::Voted { refused: false, .. } => promise.vote = Some(*to),
            Body::Appended { index, refused: None, .. } => promise.index = promise.index.max(*index),
            _ => {}
        }
    }

    /// A member starts with what is on its disk.
    pub fn kept(&self, raft_id: u64, stored: &Stored) -> Result<(), String> {
        let Some(promise) = self.by_member.get(&raft_id) else { return Ok(()) };
        let known = &stored.hard_state;
        let last = stored.entries.last().map_or(stored.snapshot_index, |entry| entry.index);
        let of_term = known.term == promise.term;
        let has_voted_else = of_term && promise.vote.is_some_and(|vote| vote != known.vote);
        // In a later term another leader may have taken entries away.
        if known.term < promise.term || has_voted_else || of_term && last < promise.index {
            return Err(format!(
                "a promise is broken: controller {raft_id:x} said {promise:x?} and has {known:x?} up to {last:x}"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tidemill::controller::raft::HardState;

    use super::*;

    fn stored(term: u64, vote: u64, snapshot_index: u64) -> Stored {
        let hard_state = HardState { term, vote, commit: 0 };
        Stored { snapshot_index, snapshot_term: 1, hard_state, entries: Vec::new() }
    }

    fn voted(to: u64, term: u64, pre: bool) -> Message {
        let body = Body::Voted { pre, refused: false, commit: 0, commit_term: 0 };
        Message { from: 1, to, term, body }
    }

    fn appended(index: u64, term: u64) -> Message {
        Message { from: 1, to: 2, term, body: Body::Appended { index, commit: 0, refused: None } }
    }

    #[test]
    fn a_vote_and_what_was_taken_bind_until_the_next_term() {
        let mut promises = Promises::default();
        assert!(promises.kept(1, &stored(0, 0, 0)).is_ok(), "it has said nothing");
        promises.said(&voted(2, 5, false));
        promises.said(&appended(30, 5));
        promises.said(&appended(20, 5));
        promises.said(&voted(3, 9, true));
        assert!(promises.kept(1, &stored(5, 2, 30)).is_ok());
        assert!(promises.kept(1, &stored(6, 0, 20)).is_ok());
        for broken in [stored(4, 2, 30), stored(5, 0, 30), stored(5, 3, 30), stored(5, 2, 29)] {
            assert!(promises.kept(1, &broken).unwrap_err().contains("a promise is broken"));
        }
        promises.said(&appended(40, 4));
        promises.said(&Message { from: 1, to: 2, term: 6, body: Body::Heartbeat { commit: 0 } });
        assert!(promises.kept(1, &stored(6, 0, 0)).is_ok());
        assert!(promises.kept(1, &stored(5, 2, 30)).is_err(), "it has led in the next term");
    }

    #[test]
    fn frames_of_other_kinds_promise_nothing() {
        let mut promises = Promises::default();
        promises.left(&Bytes::from_static(&[0, 0, 0, 4, 0, 1, 0, 0]));
        promises.left(&Bytes::new());
        assert!(promises.by_member.is_empty());
    }
}
