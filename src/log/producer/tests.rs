//! What a partition remembers of its producers, and what it forgets.

use super::*;
use crate::log::batch::BatchBuilder;

fn batch(producer_id: i64, epoch: i16, base_sequence: i32, record_count: i32) -> BatchInfo {
    let mut builder = BatchBuilder::new().producer(producer_id, epoch, base_sequence);
    for _ in 0..record_count {
        builder.push(50, None, Some(b"v"), &[]);
    }
    BatchInfo::parse(&builder.build()).unwrap()
}

fn at(info: BatchInfo, base_offset: i64) -> BatchInfo {
    BatchInfo { base_offset, ..info }
}

/// Producer 1 with batches of two records each: sequences 0, 2, 4, … at offsets 100, 102, 104, …
fn with_batches(count: i32) -> ProducerStates {
    let mut states = ProducerStates::default();
    for n in 0..count {
        let info = batch(1, 0, n * 2, 2);
        assert_eq!(states.check(&info), Ok(Sequenced::New));
        let _ = states.update(&info, 100 + i64::from(n) * 2, 1000 + i64::from(n), 1000 + i64::from(n));
    }
    states
}

#[test]
fn the_last_five_batches_are_answered_with_their_offsets() {
    let states = with_batches(7);
    for n in 2..7 {
        let base_offset = 100 + i64::from(n) * 2;
        let known = Sequenced::Duplicate {
            base_offset,
            last_offset: base_offset + 1,
            timestamp_ms: 1000 + i64::from(n),
        };
        assert_eq!(states.check(&batch(1, 0, n * 2, 2)), Ok(known));
    }
    assert_eq!(
        states.check(&batch(1, 0, 12, 1)),
        Err(ErrorCode::OutOfOrderSequenceNumber),
        "half of a batch"
    );
}

/// Sequences that are known to be in the log, without their offsets.
#[test]
fn an_older_batch_is_known_as_long_as_nothing_is_missing_since() {
    let old = Ok(Sequenced::Old { offset_end: 104 });
    let states = with_batches(7);
    let read = ProducerStates::from_snapshot(&states.snapshot()).unwrap();
    for states in [&states, &read] {
        for (base_sequence, count) in [(0, 2), (2, 2), (0, 4), (0, 1)] {
            assert_eq!(states.check(&batch(1, 0, base_sequence, count)), old, "{base_sequence} and {count}");
        }
        assert_eq!(
            states.check(&batch(1, 0, 2, 4)),
            Err(ErrorCode::OutOfOrderSequenceNumber),
            "others end elsewhere"
        );
        assert_eq!(
            states.check(&batch(1, 1, 2, 2)),
            Err(ErrorCode::OutOfOrderSequenceNumber),
            "another epoch"
        );
    }
    // A leader to which the producer was unknown took a later batch: what is before it may be nowhere.
    let mut gap = states;
    for n in 0..7 {
        let _ = gap.update(&batch(1, 0, 100 + n, 1), 200 + i64::from(n), 1, 1);
    }
    assert_eq!(gap.check(&batch(1, 0, 100, 2)), Ok(Sequenced::Old { offset_end: 202 }));
    for before in [0, 13, 98, 99] {
        assert_eq!(gap.check(&batch(1, 0, before, 1)), Err(ErrorCode::OutOfOrderSequenceNumber), "{before}");
    }
}

#[test]
fn an_older_batch_is_known_across_the_largest_sequence() {
    let mut states = ProducerStates::default();
    let first = i32::MAX - 3;
    for n in 0..8 {
        let _ = states.update(&batch(1, 0, first.wrapping_add(n) & i32::MAX, 1), i64::from(n), 1, 1);
    }
    let old = Ok(Sequenced::Old { offset_end: 3 });
    assert_eq!([first, first + 2].map(|sequence| states.check(&batch(1, 0, sequence, 1))), [old, old]);
    for unknown in [first - 1, 5, 1 << 30] {
        assert_eq!(
            states.check(&batch(1, 0, unknown, 1)),
            Err(ErrorCode::OutOfOrderSequenceNumber),
            "{unknown}"
        );
    }
}

#[test]
fn gaps_and_old_epochs_are_refused_and_new_epochs_start_at_zero() {
    let mut states = with_batches(2);
    assert_eq!(states.check(&batch(1, 0, 5, 1)), Err(ErrorCode::OutOfOrderSequenceNumber));
    assert_eq!(states.check(&batch(1, 1, 4, 1)), Err(ErrorCode::OutOfOrderSequenceNumber));
    assert_eq!(states.check(&batch(1, 1, 0, 1)), Ok(Sequenced::New));
    let _ = states.update(&batch(1, 1, 0, 1), 104, 1, 1);
    assert_eq!(states.check(&batch(1, 0, 4, 1)), Err(ErrorCode::InvalidProducerEpoch));
    assert_eq!(states.check(&batch(1, 0, 2, 2)), Err(ErrorCode::InvalidProducerEpoch), "its repeats too");
    assert!(matches!(states.check(&batch(1, 1, 0, 1)), Ok(Sequenced::Duplicate { base_offset: 104, .. })));
}

#[test]
fn an_unknown_producer_may_start_anywhere_and_others_are_not_touched() {
    let mut states = with_batches(1);
    assert_eq!(states.check(&batch(2, 4, 77, 3)), Ok(Sequenced::New));
    let _ = states.update(&batch(2, 4, 77, 3), 102, 1, 1);
    assert_eq!(states.check(&batch(2, 4, 80, 1)), Ok(Sequenced::New));
    assert_eq!(states.check(&batch(1, 0, 2, 1)), Ok(Sequenced::New));
    assert_eq!(states.check(&batch(-1, -1, -1, 1)), Ok(Sequenced::New));
    let _ = states.update(&batch(-1, -1, -1, 1), 105, 1, 1);
    assert_eq!(states.len(), 2);
}

#[test]
fn sequences_wrap_from_the_largest_to_zero() {
    let mut states = ProducerStates::default();
    let to_the_end = batch(1, 0, i32::MAX - 1, 2);
    let _ = states.update(&to_the_end, 10, 1, 1);
    assert_eq!(states.check(&batch(1, 0, 0, 1)), Ok(Sequenced::New));
    assert_eq!(states.check(&batch(1, 0, 1, 1)), Err(ErrorCode::OutOfOrderSequenceNumber));
    let mut states = ProducerStates::default();
    let across = batch(1, 0, i32::MAX - 1, 4);
    let _ = states.update(&across, 10, 1, 1);
    let known = Sequenced::Duplicate { base_offset: 10, last_offset: 13, timestamp_ms: 1 };
    assert_eq!(states.check(&across), Ok(known));
    assert_eq!(states.check(&batch(1, 0, 2, 1)), Ok(Sequenced::New));
}

#[test]
fn undoing_newest_first_restores_what_was_known() {
    for known in [0, 1, 4, 5, 6] {
        let before = with_batches(known);
        let mut states = before.clone();
        let first = states.update(&batch(1, 0, known * 2, 2), 500, 9, 9);
        let second = states.update(&batch(1, 1, 0, 1), 502, 9, 9);
        let other = states.update(&batch(3, 0, 0, 1), 503, 9, 9);
        assert_ne!(states, before);
        states.undo(other);
        states.undo(second);
        states.undo(first);
        assert_eq!(states.snapshot(), before.snapshot(), "{known} batches");
        assert_eq!(states.check(&batch(1, 0, known * 2, 2)), Ok(Sequenced::New));
    }
}

#[test]
fn batches_are_told_when_they_are_taken_back() {
    let mut states = with_batches(1);
    let undos = [
        states.update(&batch(1, 0, 2, 2), 102, 9, 9),
        states.update(&batch(2, 3, 7, 2), 104, 9, 9),
        states.update(&batch(2, 3, 9, 2), 106, 9, 9),
        states.take_in(&BatchInfo { attributes: 0x30, ..at(batch(3, 0, -1, 1), 108) }, b"", 9),
    ];
    undos.into_iter().rev().for_each(|undo| states.undo(undo));
    let told = [(2, 3, 9), (2, 3, 7), (1, 0, 2)];
    let told = told.map(|(producer_id, epoch, base_sequence)| Numbered { producer_id, epoch, base_sequence });
    assert_eq!(states.take_back(), told);
    assert_eq!(states, with_batches(1));
}

#[test]
fn idle_producers_expire_but_not_in_a_transaction() {
    let mut states = with_batches(1);
    let open = BatchInfo { attributes: 0x10, ..batch(2, 0, 0, 1) };
    let _ = states.update(&open, 102, 1000, 1000);
    assert_eq!(states.check(&batch(2, 0, 1, 1)), Err(ErrorCode::InvalidTxnState));
    states.expire(1099, 100);
    assert_eq!(states.len(), 2);
    states.expire(1100, 100);
    assert_eq!(states.len(), 1);
    assert_eq!(states.check(&batch(1, 0, 99, 1)), Ok(Sequenced::New), "nothing is known any more");
    let marker = BatchInfo { attributes: 0x30, max_timestamp_ms: 1100, ..at(batch(2, 0, -1, 1), 103) };
    states.replay(&marker);
    assert_eq!(states.check(&batch(2, 0, 1, 1)), Ok(Sequenced::New), "the sequence goes on after a marker");
    states.expire(1200, 100);
    assert!(states.is_empty());
}

#[test]
fn a_producer_of_old_records_is_not_idle() {
    let mut states = ProducerStates::default();
    let _ = states.update(&batch(1, 0, 0, 1), 7, 50, 1000);
    let _ = states.take_in(&at(batch(2, 0, 0, 1), 8), b"", 1000);
    states.replay(&at(batch(3, 0, 0, 1), 9));
    states.expire(1099, 100);
    assert_eq!(states.active().iter().map(|known| known.producer_id).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(states.active()[0].last_timestamp_ms, 50);
    states.expire(1100, 100);
    assert!(states.is_empty());
}

#[test]
fn a_snapshot_has_kafkas_layout_and_keeps_every_batch_that_may_be_repeated() {
    let bytes = with_batches(2).snapshot();
    assert_eq!(bytes.len(), 2 + 4 + 4 + 2 * 46);
    assert_eq!(bytes[..2], [0, 1]);
    assert_eq!(bytes[2..6], batch::crc(&bytes[6..]).to_be_bytes());
    let mut expected = vec![0, 0, 0, 2];
    // Kafka keeps the last entry of a producer, which is that of its last batch.
    for (last_sequence, last_offset, timestamp_ms) in [(1_i32, 101_i64, 1000_i64), (3, 103, 1001)] {
        expected.extend(1_i64.to_be_bytes());
        expected.extend(0_i16.to_be_bytes());
        expected.extend(last_sequence.to_be_bytes());
        expected.extend(last_offset.to_be_bytes());
        expected.extend(1_i32.to_be_bytes());
        expected.extend(timestamp_ms.to_be_bytes());
        expected.extend((-1_i32).to_be_bytes());
        expected.extend((-1_i64).to_be_bytes());
    }
    assert_eq!(bytes[6..], expected);
    for count in [1, 5, 7] {
        let bytes = with_batches(count).snapshot();
        let states = ProducerStates::from_snapshot(&bytes).unwrap();
        assert_eq!(states, with_batches(count), "{count} batches");
        assert_eq!(states.snapshot(), bytes);
    }
}

#[test]
fn a_snapshot_that_java_wrote_is_read_and_written_again() {
    let java = include_bytes!("../../../tests/fixtures/batch/java-4.3.1-producers.snapshot");
    let states = ProducerStates::from_snapshot(java).unwrap();
    assert_eq!(states.snapshot(), java[..]);
    let known = Sequenced::Duplicate { base_offset: 991, last_offset: 1000, timestamp_ms: 1_700_000_000_123 };
    assert_eq!(states.check(&batch(7, 2, 32, 10)), Ok(known));
    assert_eq!(states.check(&batch(3, 0, 3, 1)), Err(ErrorCode::InvalidTxnState));
    assert_eq!(states.check(&batch(11, 1, 0, 1)), Ok(Sequenced::New));
    assert_eq!(states.check(&batch(11, 1, 1, 1)), Err(ErrorCode::OutOfOrderSequenceNumber));
}

#[test]
fn snapshots_are_sorted_and_damaged_ones_refused() {
    let mut states = ProducerStates::default();
    for producer_id in [900, 3, 77, -5, 12] {
        let _ = states.update(&batch(producer_id, 0, 0, 1), 1, 1, 1);
    }
    let bytes = states.snapshot();
    let (entries, _) = bytes[10..].as_chunks::<SNAPSHOT_ENTRY_BYTES>();
    let ids: Vec<i64> = entries.iter().map(|entry| read_entry(entry).unwrap().0).collect();
    assert_eq!(ids, [-5, 3, 12, 77, 900]);
    for at in 0..bytes.len() {
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 0x10;
        assert!(ProducerStates::from_snapshot(&damaged).is_err(), "byte {at}");
        assert!(ProducerStates::from_snapshot(&bytes[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn replaying_the_log_after_a_snapshot_gives_the_same_state() {
    let log: Vec<BatchInfo> =
        (0..9).map(|n| at(batch(i64::from(n % 2), 0, n / 2 * 3, 3), i64::from(n) * 3)).collect();
    let mut whole = ProducerStates::default();
    log.iter().for_each(|info| whole.replay(info));
    let mut first = ProducerStates::default();
    log[..4].iter().for_each(|info| first.replay(info));
    let mut rebuilt = ProducerStates::from_snapshot(&first.snapshot()).unwrap();
    log[4..].iter().for_each(|info| rebuilt.replay(info));
    assert_eq!(rebuilt.snapshot(), whole.snapshot());
    for info in &log[2..] {
        assert_eq!(rebuilt.check(&at(*info, 0)), whole.check(&at(*info, 0)));
    }
}
