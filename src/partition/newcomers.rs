//! Idempotent producers of which the log knows nothing, and whose first batch may still be on its way.
//!
//! A client has several batches in flight. Where the first of them is sent away (this replica does not lead yet, too
//! few are in sync, the topic is not known yet) or is taken and cut off again for another leader's log, the log knows
//! nothing of the producer. As in Kafka such a producer may begin at any sequence: the batch behind would pass for its
//! first, and the first could never be taken any more. So what is sent away is remembered, and what lies behind it is
//! out of order until it comes again.
//!
//! A leader that is new cannot know all that was sent away or cut off, here and elsewhere. It asks a producer that it
//! does not know, and that does not begin at 0, to send its batch again. A client sends in order: who comes again with
//! the same batch, and with none before it, begins there. That costs such a producer one round trip.
//!
//! Nothing is awaited for ever: each wait ends after [`AWAITED_MS`], there are at most [`AWAITED_MAX`] of them, and
//! then the producer begins where it likes.

use std::collections::VecDeque;

use crate::log::producer::Numbered;
use crate::wire::ErrorCode;

/// How long a batch that was sent away is awaited: clients send again within a second or so, and one that cannot, as
/// another replica has taken the batch and lost it, is not to wait long for what never comes.
const AWAITED_MS: u64 = 10_000;

/// How many producers are awaited. Where there are more, those that were sent away first are forgotten.
const AWAITED_MAX: usize = 1_000;

/// A producer whose batch was sent away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Awaited {
    /// Of those that were sent away the one with the lowest sequence.
    first: Numbered,
    until_ms: u64,
}

/// The producers that are awaited, in the order in which their waits end.
#[derive(Debug, Default)]
pub(super) struct Newcomers {
    awaited: VecDeque<Awaited>,
}

impl Newcomers {
    pub(super) fn is_empty(&self) -> bool {
        self.awaited.is_empty()
    }

    /// A batch of a producer that the log does not know was sent away, with an error after which clients send it
    /// again.
    pub(super) fn sent_away(&mut self, mono_ms: u64, batch: Numbered) {
        self.forget_old(mono_ms);
        let known = self.position(batch.producer_id).and_then(|at| self.awaited.remove(at));
        let first = known.map(|known| known.first).filter(|known| {
            known.epoch > batch.epoch
                || (known.epoch == batch.epoch && is_before(known.base_sequence, batch.base_sequence))
        });
        if self.awaited.len() >= AWAITED_MAX {
            self.awaited.pop_front();
        }
        let until_ms = mono_ms.saturating_add(AWAITED_MS);
        self.awaited.push_back(Awaited { first: first.unwrap_or(batch), until_ms });
    }

    /// Whether a batch may be the first one that the log gets of its producer. `doubts`: there may be others before
    /// it of which nothing is known here.
    ///
    /// # Errors
    /// `OutOfOrderSequenceNumber` where another one has to come first; `NotEnoughReplicas`, after which every client
    /// sends again, where it has to show by that that it is the first (OUT_OF_ORDER_SEQUENCE_NUMBER of a first
    /// batch is the end of a librdkafka producer); `InvalidProducerEpoch` where a newer epoch is awaited.
    pub(super) fn admit(&mut self, mono_ms: u64, batch: Numbered, doubts: bool) -> Result<(), ErrorCode> {
        self.forget_old(mono_ms);
        let at = self.position(batch.producer_id);
        let known = at.and_then(|at| self.awaited.get(at)).map(|known| known.first);
        let is_first = match known.filter(|known| known.epoch >= batch.epoch) {
            Some(known) if known.epoch > batch.epoch => return Err(ErrorCode::InvalidProducerEpoch),
            Some(known) if is_before(known.base_sequence, batch.base_sequence) => {
                return Err(ErrorCode::OutOfOrderSequenceNumber);
            }
            Some(known) if known == batch => true,
            _ => batch.base_sequence == 0,
        };
        // Who cannot be remembered would be asked again and again.
        if doubts && !is_first && (at.is_some() || self.awaited.len() < AWAITED_MAX) {
            self.sent_away(mono_ms, batch);
            return Err(ErrorCode::NotEnoughReplicas);
        }
        if let Some(at) = at {
            self.awaited.remove(at);
        }
        Ok(())
    }

    fn position(&self, producer_id: i64) -> Option<usize> {
        self.awaited.iter().position(|awaited| awaited.first.producer_id == producer_id)
    }

    /// Nothing is awaited any more: what was sent away may have been taken elsewhere, and forgotten.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Waits that are over end.
    pub(super) fn forget_old(&mut self, mono_ms: u64) {
        while self.awaited.pop_front_if(|awaited| awaited.until_ms <= mono_ms).is_some() {}
        if self.awaited.is_empty() {
            self.awaited = VecDeque::new();
        }
    }
}

/// Whether a sequence comes before another one: they count modulo 2^31, and no client is half of that ahead.
fn is_before(sequence: i32, other: i32) -> bool {
    (sequence.wrapping_sub(other) & i32::MAX) > i32::MAX / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUT_OF_ORDER: Result<(), ErrorCode> = Err(ErrorCode::OutOfOrderSequenceNumber);
    const AGAIN: Result<(), ErrorCode> = Err(ErrorCode::NotEnoughReplicas);

    fn batch(producer_id: i64, epoch: i16, base_sequence: i32) -> Numbered {
        Numbered { producer_id, epoch, base_sequence }
    }

    #[test]
    fn behind_a_batch_that_was_sent_away_nothing_is_taken_until_it_comes_again() {
        for doubts in [false, true] {
            let mut newcomers = Newcomers::default();
            newcomers.sent_away(0, batch(1, 3, 4));
            newcomers.sent_away(0, batch(1, 3, 0));
            newcomers.sent_away(0, batch(1, 3, 5));
            for _ in 0..2 {
                assert_eq!(newcomers.admit(1, batch(1, 3, 5), doubts), OUT_OF_ORDER);
            }
            assert_eq!(newcomers.admit(1, batch(2, 0, 0), doubts), Ok(()), "another producer");
            assert_eq!(newcomers.admit(1, batch(1, 3, 0), doubts), Ok(()));
            assert!(newcomers.is_empty());
        }
    }

    #[test]
    fn a_batch_before_the_one_that_was_sent_away_comes_first() {
        let mut newcomers = Newcomers::default();
        newcomers.sent_away(0, batch(1, 0, 5));
        newcomers.sent_away(0, batch(2, 0, 5));
        newcomers.sent_away(0, batch(3, 0, 5));
        assert_eq!(newcomers.admit(1, batch(1, 0, 0), true), Ok(()));
        assert_eq!(newcomers.admit(1, batch(2, 0, 3), true), AGAIN, "there may be one before it, too");
        assert_eq!(newcomers.admit(1, batch(2, 0, 5), true), OUT_OF_ORDER);
        assert_eq!(newcomers.admit(1, batch(2, 0, 3), true), Ok(()));
        assert_eq!(newcomers.admit(1, batch(3, 0, 3), false), Ok(()));
    }

    #[test]
    fn who_does_not_begin_at_zero_is_asked_once_where_there_are_doubts() {
        let mut newcomers = Newcomers::default();
        assert_eq!(newcomers.admit(0, batch(1, 0, 7), false), Ok(()));
        assert!(newcomers.is_empty());
        assert_eq!(newcomers.admit(0, batch(1, 0, 7), true), AGAIN);
        assert_eq!(newcomers.admit(0, batch(1, 0, 9), true), OUT_OF_ORDER, "it was in flight behind");
        assert_eq!(newcomers.admit(0, batch(1, 0, 7), true), Ok(()));
        assert_eq!(newcomers.admit(0, batch(2, 0, 0), true), Ok(()));
        assert!(newcomers.is_empty());
    }

    #[test]
    fn sequences_and_epochs_go_on_from_the_last_one() {
        let mut newcomers = Newcomers::default();
        newcomers.sent_away(0, batch(1, 0, 2));
        newcomers.sent_away(0, batch(1, 0, i32::MAX - 1));
        assert_eq!(newcomers.admit(1, batch(1, 0, 0), true), OUT_OF_ORDER, "0 is behind the largest one");
        assert_eq!(newcomers.admit(1, batch(1, 0, i32::MAX - 1), true), Ok(()));
        newcomers.sent_away(0, batch(1, 4, 7));
        newcomers.sent_away(0, batch(1, 3, 2));
        let older = newcomers.admit(1, batch(1, 3, 2), true);
        assert_eq!(older, Err(ErrorCode::InvalidProducerEpoch));
        assert_eq!(newcomers.admit(1, batch(1, 4, 8), false), OUT_OF_ORDER, "an older epoch changes nothing");
        newcomers.sent_away(0, batch(1, 5, 9));
        assert_eq!(newcomers.admit(1, batch(1, 5, 9), true), Ok(()));
    }

    #[test]
    fn who_cannot_be_remembered_is_not_asked() {
        let mut newcomers = Newcomers::default();
        for producer_id in 0..AWAITED_MAX as i64 {
            assert_eq!(newcomers.admit(0, batch(producer_id, 0, 7), true), AGAIN);
        }
        assert_eq!(newcomers.admit(0, batch(-5, 0, 7), true), Ok(()));
        assert_eq!(newcomers.admit(0, batch(0, 0, 7), true), Ok(()), "and nobody was forgotten for it");
        newcomers.forget();
        assert!(newcomers.is_empty());
    }

    #[test]
    fn a_wait_ends_and_there_are_not_many_of_them() {
        let mut newcomers = Newcomers::default();
        newcomers.sent_away(0, batch(1, 0, 0));
        assert_eq!(newcomers.admit(AWAITED_MS - 1, batch(1, 0, 1), false), OUT_OF_ORDER);
        assert_eq!(newcomers.admit(AWAITED_MS, batch(1, 0, 1), false), Ok(()));
        for producer_id in 0..=AWAITED_MAX as i64 {
            newcomers.sent_away(AWAITED_MS, batch(producer_id, 0, 0));
        }
        assert_eq!(newcomers.awaited.len(), AWAITED_MAX);
        assert_eq!(newcomers.admit(AWAITED_MS, batch(0, 0, 1), false), Ok(()), "it was the oldest");
        assert_eq!(newcomers.admit(AWAITED_MS, batch(1, 0, 1), false), OUT_OF_ORDER);
        newcomers.sent_away(2 * AWAITED_MS, batch(7, 0, 0));
        assert_eq!(newcomers.awaited.len(), 1);
    }
}
