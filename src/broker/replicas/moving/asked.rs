//! Who asked for a move is answered when a start would know of it too: the folder over there is durable, or, where the
//! replica is to stay, the one of the move before has lost its name. A process that dies behind the answer goes on with
//! what it promised.

use crate::broker::replicas::{Delivery, Replicas, State};
use crate::partition::Answer;
use crate::wire::ErrorCode;

impl Replicas {
    /// Answers who waits for a start to know of a move, or of its end.
    pub(in crate::broker::replicas) fn tell(&mut self, beside: u32) {
        let is_known = match self.slots.get(beside as usize).map(|entry| &entry.state) {
            Some(State::Future(future)) => future.ends.is_none() && future.copy.is_made(),
            Some(State::Removing(_)) => false,
            _ => true,
        };
        if is_known {
            self.answer_asked(beside, &Answer::Moves);
        }
    }

    fn answer_asked(&mut self, beside: u32, answer: &Answer) {
        for to in self.moves.asked.remove(&beside).unwrap_or_default() {
            self.deliveries.push_back(Delivery { to, answer: answer.clone(), span: None });
        }
    }

    /// The move does not come about.
    pub(super) fn refuse_asked(&mut self, beside: u32, error: ErrorCode) {
        self.answer_asked(beside, &Answer::Failed { error, log_start_offset: -1 });
    }
}
