//! Batches of idempotent producers that were sent away, and come again.
//!
//! A client has several batches in flight. Where one of them is sent away with an error after which it comes again
//! (this replica does not lead yet, too few are in sync, the device is full), those behind it are out of order until
//! then. Told so, librdkafka gives up the epoch of its producer, and sends everything that is in flight to all
//! partitions again under new numbers: what had been appended is there twice. So they are sent away as well, with an
//! error after which every client sends them again in their order ([`BEHIND`]).
//!
//! A producer of which the log knows nothing may begin at any sequence, as in Kafka: a batch behind its first would
//! pass for the first, which could never be taken any more. It is held back in the same way.
//!
//! A leader that is new cannot know all that was sent away or cut off, here and elsewhere. It asks a producer that it
//! does not know, and that does not begin at 0, to send its batch again. A client sends in order: who comes again with
//! the same batch, and with none before it, begins there. That costs such a producer one round trip.
//!
//! In the same way it asks a producer that it knows, and that has written nothing here since, where something is
//! missing: librdkafka, told by the old leader that it leads no more, at times sends the next batch to the new one
//! first (another of its threads does). Who comes again with the same batch, and with none before it, is out of order.
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

/// The answer to who is behind a batch that was sent away, or has to show that nothing is before him.
/// OUT_OF_ORDER_SEQUENCE_NUMBER of a first batch is the end of a librdkafka producer, and of another one that of its
/// epoch.
const BEHIND: ErrorCode = ErrorCode::NotEnoughReplicas;

/// A producer whose batch was sent away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Awaited {
    /// Of those that were sent away the one with the lowest sequence.
    first: Numbered,
    /// The sequence that was asked to come again where the first of them was sent away by another leader, if at all.
    asked: Option<i32>,
    until_ms: u64,
}

/// The producers that are awaited, in the order in which their waits end.
#[derive(Debug, Default)]
pub(super) struct AwaitedBatches {
    awaited: VecDeque<Awaited>,
}

impl AwaitedBatches {
    pub(super) fn is_empty(&self) -> bool {
        self.awaited.is_empty()
    }

    /// A batch was sent away, with an error after which clients send it again.
    pub(super) fn sent_away(&mut self, mono_ms: u64, batch: Numbered) {
        self.remember(mono_ms, batch, None);
    }

    fn remember(&mut self, mono_ms: u64, batch: Numbered, asked: Option<i32>) {
        self.forget_old(mono_ms);
        let comes_first = |known: Numbered| {
            known.epoch > batch.epoch
                || (known.epoch == batch.epoch && is_before(known.base_sequence, batch.base_sequence))
        };
        // Those behind do not make the wait for the first one longer.
        if self.first_of(batch.producer_id).is_some_and(comes_first) {
            return;
        }
        self.awaited.retain(|awaited| awaited.first.producer_id != batch.producer_id);
        if self.awaited.len() >= AWAITED_MAX {
            self.awaited.pop_front();
        }
        let until_ms = mono_ms.saturating_add(AWAITED_MS);
        self.awaited.push_back(Awaited { first: batch, asked, until_ms });
    }

    /// A batch was taken: if it is the one that was sent away, or one behind it, nothing is awaited any more.
    pub(super) fn came(&mut self, batch: Numbered) {
        let awaits = |awaited: &Awaited| {
            let first = awaited.first;
            first.epoch > batch.epoch
                || (first.epoch == batch.epoch && is_before(batch.base_sequence, first.base_sequence))
        };
        self.awaited.retain(|awaited| awaited.first.producer_id != batch.producer_id || awaits(awaited));
    }

    /// The answer to a batch that is out of order: whether one before it was sent away and comes again. `missing`:
    /// the one that another leader may have sent away.
    pub(super) fn out_of_order(
        &mut self,
        mono_ms: u64,
        batch: Numbered,
        missing: Option<Numbered>,
    ) -> ErrorCode {
        self.forget_old(mono_ms);
        if let Some(missing) = missing.filter(|missing| self.may_ask(*missing, batch)) {
            self.remember(mono_ms, missing, Some(batch.base_sequence));
            return BEHIND;
        }
        let is_asked = |awaited: &Awaited| {
            awaited.first.producer_id == batch.producer_id && awaited.asked == Some(batch.base_sequence)
        };
        self.awaited.retain(|awaited| !is_asked(awaited));
        let is_behind = self.first_of(batch.producer_id).is_some_and(|first| {
            first.epoch == batch.epoch && is_before(first.base_sequence, batch.base_sequence)
        });
        if is_behind { BEHIND } else { ErrorCode::OutOfOrderSequenceNumber }
    }

    /// Whether the producer of a batch that is out of order may be asked for the one that is missing: it was not asked
    /// yet, and can be remembered.
    fn may_ask(&self, missing: Numbered, batch: Numbered) -> bool {
        let is_later = |known: Numbered| {
            known.epoch == missing.epoch && is_before(missing.base_sequence, known.base_sequence)
        };
        is_later(batch) && self.first_of(batch.producer_id).map_or(self.awaited.len() < AWAITED_MAX, is_later)
    }

    /// Whether a batch may be the first one that the log gets of its producer. `doubts`: there may be others before
    /// it of which nothing is known here.
    ///
    /// # Errors
    /// [`BEHIND`] where another one has to come first, or where it has to show that it is the first;
    /// `InvalidProducerEpoch` where a newer epoch is awaited.
    pub(super) fn admit(&mut self, mono_ms: u64, batch: Numbered, doubts: bool) -> Result<(), ErrorCode> {
        self.forget_old(mono_ms);
        let known = self.first_of(batch.producer_id);
        let is_first = match known.filter(|known| known.epoch >= batch.epoch) {
            Some(known) if known.epoch > batch.epoch => return Err(ErrorCode::InvalidProducerEpoch),
            Some(known) if is_before(known.base_sequence, batch.base_sequence) => {
                return Err(BEHIND);
            }
            Some(known) if known == batch => true,
            _ => batch.base_sequence == 0,
        };
        // Who cannot be remembered would be asked again and again.
        if doubts && !is_first && (known.is_some() || self.awaited.len() < AWAITED_MAX) {
            self.sent_away(mono_ms, batch);
            return Err(BEHIND);
        }
        Ok(())
    }

    /// The batch of a producer that has to come before those behind it.
    fn first_of(&self, producer_id: i64) -> Option<Numbered> {
        self.awaited.iter().map(|awaited| awaited.first).find(|first| first.producer_id == producer_id)
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

    const AGAIN: Result<(), ErrorCode> = Err(BEHIND);

    impl AwaitedBatches {
        /// What becomes of a batch of a producer that the log does not know, and takes then.
        fn takes(&mut self, mono_ms: u64, batch: Numbered, doubts: bool) -> Result<(), ErrorCode> {
            self.admit(mono_ms, batch, doubts)?;
            self.came(batch);
            Ok(())
        }
    }

    fn batch(producer_id: i64, epoch: i16, base_sequence: i32) -> Numbered {
        Numbered { producer_id, epoch, base_sequence }
    }

    #[test]
    fn behind_a_batch_that_was_sent_away_nothing_is_taken_until_it_comes_again() {
        for doubts in [false, true] {
            let mut awaited = AwaitedBatches::default();
            awaited.sent_away(0, batch(1, 3, 4));
            awaited.sent_away(0, batch(1, 3, 0));
            awaited.sent_away(0, batch(1, 3, 5));
            for _ in 0..2 {
                assert_eq!(awaited.takes(1, batch(1, 3, 5), doubts), AGAIN);
            }
            assert_eq!(awaited.takes(1, batch(2, 0, 0), doubts), Ok(()), "another producer");
            assert_eq!(awaited.takes(1, batch(1, 3, 0), doubts), Ok(()));
            assert!(awaited.is_empty());
        }
    }

    #[test]
    fn a_batch_before_the_one_that_was_sent_away_comes_first() {
        let mut awaited = AwaitedBatches::default();
        awaited.sent_away(0, batch(1, 0, 5));
        awaited.sent_away(0, batch(2, 0, 5));
        awaited.sent_away(0, batch(3, 0, 5));
        assert_eq!(awaited.takes(1, batch(1, 0, 0), true), Ok(()));
        assert_eq!(awaited.takes(1, batch(2, 0, 3), true), AGAIN, "there may be one before it, too");
        assert_eq!(awaited.takes(1, batch(2, 0, 5), true), AGAIN);
        assert_eq!(awaited.takes(1, batch(2, 0, 3), true), Ok(()));
        assert_eq!(awaited.takes(1, batch(3, 0, 3), false), Ok(()));
    }

    #[test]
    fn who_does_not_begin_at_zero_is_asked_once_where_there_are_doubts() {
        let mut awaited = AwaitedBatches::default();
        assert_eq!(awaited.takes(0, batch(1, 0, 7), false), Ok(()));
        assert!(awaited.is_empty());
        assert_eq!(awaited.takes(0, batch(1, 0, 7), true), AGAIN);
        assert_eq!(awaited.takes(0, batch(1, 0, 9), true), AGAIN, "it was in flight behind");
        assert_eq!(awaited.takes(0, batch(1, 0, 7), true), Ok(()));
        assert_eq!(awaited.takes(0, batch(2, 0, 0), true), Ok(()));
        assert!(awaited.is_empty());
    }

    #[test]
    fn sequences_and_epochs_go_on_from_the_last_one() {
        let mut awaited = AwaitedBatches::default();
        awaited.sent_away(0, batch(1, 0, 2));
        awaited.sent_away(0, batch(1, 0, i32::MAX - 1));
        assert_eq!(awaited.takes(1, batch(1, 0, 0), true), AGAIN, "0 is behind the largest one");
        assert_eq!(awaited.takes(1, batch(1, 0, i32::MAX - 1), true), Ok(()));
        awaited.sent_away(0, batch(1, 4, 7));
        awaited.sent_away(0, batch(1, 3, 2));
        let older = awaited.takes(1, batch(1, 3, 2), true);
        assert_eq!(older, Err(ErrorCode::InvalidProducerEpoch));
        assert_eq!(awaited.takes(1, batch(1, 4, 8), false), AGAIN, "an older epoch changes nothing");
        awaited.sent_away(0, batch(1, 5, 9));
        assert_eq!(awaited.takes(1, batch(1, 5, 9), true), Ok(()));
    }

    #[test]
    fn who_is_known_waits_behind_what_was_sent_away() {
        const OUT_OF_ORDER: ErrorCode = ErrorCode::OutOfOrderSequenceNumber;
        let mut awaited = AwaitedBatches::default();
        awaited.sent_away(0, batch(1, 2, 9));
        awaited.sent_away(0, batch(1, 2, 7));
        for (other, told) in [
            (batch(1, 2, 8), BEHIND),
            (batch(1, 2, 20), BEHIND),
            (batch(1, 2, 7), OUT_OF_ORDER),
            (batch(1, 2, 5), OUT_OF_ORDER),
            (batch(1, 3, 8), OUT_OF_ORDER),
            (batch(2, 2, 8), OUT_OF_ORDER),
        ] {
            assert_eq!(awaited.out_of_order(1, other, None), told, "{other:?}");
        }
        awaited.came(batch(1, 2, 6));
        assert_eq!(awaited.out_of_order(1, batch(1, 2, 8), None), BEHIND);
        awaited.came(batch(1, 2, 7));
        assert!(awaited.is_empty());
        awaited.sent_away(1, batch(1, 2, 9));
        assert_eq!(awaited.out_of_order(AWAITED_MS + 1, batch(1, 2, 10), None), OUT_OF_ORDER, "a wait ends");
    }

    #[test]
    fn what_another_leader_may_have_sent_away_is_awaited_as_well() {
        const OUT_OF_ORDER: ErrorCode = ErrorCode::OutOfOrderSequenceNumber;
        let mut awaited = AwaitedBatches::default();
        let missing = Some(batch(1, 2, 5));
        assert_eq!(awaited.out_of_order(0, batch(1, 2, 4), missing), OUT_OF_ORDER, "before what is missing");
        assert!(awaited.is_empty());
        for sequence in [6, 7, 8] {
            assert_eq!(awaited.out_of_order(0, batch(1, 2, sequence), missing), BEHIND, "{sequence}");
        }
        let again = awaited.out_of_order(AWAITED_MS - 1, batch(1, 2, 6), missing);
        assert_eq!(again, OUT_OF_ORDER, "nothing came before it");
        assert!(awaited.is_empty());
        awaited.sent_away(AWAITED_MS, batch(1, 2, 7));
        assert_eq!(awaited.out_of_order(AWAITED_MS, batch(1, 2, 7), missing), BEHIND);
        awaited.came(batch(1, 2, 5));
        assert!(awaited.is_empty());
        for producer_id in 0..=AWAITED_MAX as i64 {
            let told =
                awaited.out_of_order(AWAITED_MS, batch(producer_id, 0, 7), Some(batch(producer_id, 0, 5)));
            let expected = if producer_id < AWAITED_MAX as i64 { BEHIND } else { OUT_OF_ORDER };
            assert_eq!(told, expected, "{producer_id}");
        }
    }

    #[test]
    fn those_behind_do_not_make_a_wait_longer() {
        let mut awaited = AwaitedBatches::default();
        awaited.sent_away(0, batch(1, 0, 5));
        awaited.sent_away(10, batch(2, 0, 5));
        awaited.sent_away(20, batch(1, 0, 6));
        assert_eq!(awaited.out_of_order(AWAITED_MS - 1, batch(1, 0, 6), None), BEHIND);
        assert_eq!(
            awaited.out_of_order(AWAITED_MS, batch(1, 0, 6), None),
            ErrorCode::OutOfOrderSequenceNumber
        );
        assert_eq!(awaited.out_of_order(AWAITED_MS, batch(2, 0, 6), None), BEHIND);
    }

    #[test]
    fn who_cannot_be_remembered_is_not_asked() {
        let mut awaited = AwaitedBatches::default();
        for producer_id in 0..AWAITED_MAX as i64 {
            assert_eq!(awaited.takes(0, batch(producer_id, 0, 7), true), AGAIN);
        }
        assert_eq!(awaited.takes(0, batch(-5, 0, 7), true), Ok(()));
        assert_eq!(awaited.takes(0, batch(0, 0, 7), true), Ok(()), "and nobody was forgotten for it");
        awaited.forget();
        assert!(awaited.is_empty());
    }

    #[test]
    fn a_wait_ends_and_there_are_not_many_of_them() {
        let mut awaited = AwaitedBatches::default();
        awaited.sent_away(0, batch(1, 0, 0));
        assert_eq!(awaited.takes(AWAITED_MS - 1, batch(1, 0, 1), false), AGAIN);
        assert_eq!(awaited.takes(AWAITED_MS, batch(1, 0, 1), false), Ok(()));
        for producer_id in 0..=AWAITED_MAX as i64 {
            awaited.sent_away(AWAITED_MS, batch(producer_id, 0, 0));
        }
        assert_eq!(awaited.awaited.len(), AWAITED_MAX);
        assert_eq!(awaited.takes(AWAITED_MS, batch(0, 0, 1), false), Ok(()), "it was the oldest");
        assert_eq!(awaited.takes(AWAITED_MS, batch(1, 0, 1), false), AGAIN);
        awaited.sent_away(2 * AWAITED_MS, batch(7, 0, 0));
        assert_eq!(awaited.awaited.len(), 1);
    }
}
