//! What one partition remembers of its idempotent producers: enough to answer a repeated batch with
//! the offsets it got, and to refuse one that is out of order.
//!
//! Of each producer the last [`BATCHES_KEPT`] batches are known. The state is a function of the log: a
//! snapshot (only the last batch of each producer, as in Kafka's `.snapshot` files, version 1) and the
//! batches after it give the same answers, but for repeats older than the snapshot. Rules: Kafka's
//! `ProducerAppendInfo`, `ProducerStateEntry` and `ProducerStateManager`, KIP-98 and KIP-360.

use bytes::{BufMut, Bytes, BytesMut};
use rustc_hash::FxHashMap;

use super::batch::{self, BatchInfo};
use crate::wire::ErrorCode;

/// How many batches of a producer can be repeated; more than a client may have in flight.
pub const BATCHES_KEPT: usize = 5;

const SNAPSHOT_VERSION: i16 = 1;
/// Version and checksum, which the checksum does not cover.
const SNAPSHOT_PREFIX_BYTES: usize = 6;
const SNAPSHOT_ENTRY_BYTES: usize = 46;
const NO_EPOCH: i16 = -1;
const NO_SEQUENCE: i32 = -1;
const NO_OFFSET: i64 = -1;

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequenced {
    /// Append it.
    New,
    /// It was appended before: answer with these and append nothing.
    Duplicate {
        /// Offset of its first record.
        base_offset: i64,
        /// Offset of its last record.
        last_offset: i64,
        /// Its largest timestamp, or its append time.
        timestamp_ms: i64,
    },
}

/// One appended batch of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Appended {
    last_sequence: i32,
    offset_delta: i32,
    last_offset: i64,
    timestamp_ms: i64,
}

impl Appended {
    const NOTHING: Appended =
        Appended { last_sequence: NO_SEQUENCE, offset_delta: 0, last_offset: NO_OFFSET, timestamp_ms: -1 };

    fn base_offset(&self) -> i64 {
        self.last_offset.saturating_sub(i64::from(self.offset_delta))
    }

    fn base_sequence(&self) -> i32 {
        // Sequences count modulo 2^31.
        self.last_sequence.wrapping_sub(self.offset_delta) & i32::MAX
    }
}

/// What is known of one producer. `Copy`, so that an [`Undo`] holds the previous one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Producer {
    epoch: i16,
    /// How many of `batches` are set, oldest first.
    batch_count: u8,
    coordinator_epoch: i32,
    last_timestamp_ms: i64,
    /// First offset of the open transaction, -1 when there is none.
    txn_first_offset: i64,
    batches: [Appended; BATCHES_KEPT],
}

impl Producer {
    const UNKNOWN: Producer = Producer {
        epoch: NO_EPOCH,
        batch_count: 0,
        coordinator_epoch: -1,
        last_timestamp_ms: -1,
        txn_first_offset: NO_OFFSET,
        batches: [Appended::NOTHING; BATCHES_KEPT],
    };

    fn batches(&self) -> &[Appended] {
        self.batches.get(..usize::from(self.batch_count)).unwrap_or_default()
    }

    fn last(&self) -> Appended {
        self.batches().last().copied().unwrap_or(Appended::NOTHING)
    }

    fn enter_epoch(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.batch_count = 0;
        }
    }

    fn append(&mut self, epoch: i16, appended: Appended) {
        self.enter_epoch(epoch);
        if self.batches().len() == BATCHES_KEPT {
            self.batches.rotate_left(1);
        } else {
            self.batch_count += 1;
        }
        let slot = self.batches.get_mut(usize::from(self.batch_count) - 1);
        *slot.expect("the count never exceeds the array") = appended;
        self.last_timestamp_ms = appended.timestamp_ms;
    }

    fn check(&self, info: &BatchInfo) -> Result<Sequenced, ErrorCode> {
        if info.producer_epoch == self.epoch {
            let repeats = |known: &&Appended| {
                known.last_sequence == info.last_sequence() && known.base_sequence() == info.base_sequence
            };
            if let Some(known) = self.batches().iter().find(repeats) {
                return Ok(Sequenced::Duplicate {
                    base_offset: known.base_offset(),
                    last_offset: known.last_offset,
                    timestamp_ms: known.timestamp_ms,
                });
            }
        }
        if info.producer_epoch < self.epoch {
            return Err(ErrorCode::InvalidProducerEpoch);
        }
        let expected =
            if info.producer_epoch == self.epoch { self.last().last_sequence } else { NO_SEQUENCE };
        let follows = i64::from(info.base_sequence) == i64::from(expected) + 1
            || (info.base_sequence == 0 && expected == i32::MAX);
        if self.epoch != NO_EPOCH && !follows {
            return Err(ErrorCode::OutOfOrderSequenceNumber);
        }
        if self.txn_first_offset != NO_OFFSET && !info.is_transactional() {
            return Err(ErrorCode::InvalidTxnState);
        }
        Ok(Sequenced::New)
    }

    fn is_expired(&self, wall_ms: i64, expiration_ms: i64) -> bool {
        let idle_ms = wall_ms.saturating_sub(self.last_timestamp_ms);
        self.txn_first_offset == NO_OFFSET && idle_ms >= expiration_ms
    }
}

/// Takes one [`ProducerStates::update`] back. Several are undone newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a failed append has to take its update back"]
pub struct Undo {
    /// Producer and what was known of it; nothing for a batch without a producer id.
    previous: Option<(i64, Option<Producer>)>,
}

/// Why bytes are not a snapshot; the next older one is to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The length does not agree with the number of entries.
    #[error("the producer snapshot has a wrong length")]
    Length,
    /// Another version.
    #[error("the producer snapshot has the unknown version {0}")]
    Version(i16),
    /// The checksum does not hold.
    #[error("the producer snapshot is corrupt")]
    Checksum,
}

/// The producers of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerStates {
    producers: FxHashMap<i64, Producer>,
}

impl ProducerStates {
    /// Whether a batch that a client sent may be appended. A producer nothing is known of may start at
    /// any sequence, since retention can have removed what was known.
    pub fn check(&self, info: &BatchInfo) -> Result<Sequenced, ErrorCode> {
        if !info.has_producer() {
            return Ok(Sequenced::New);
        }
        self.producers.get(&info.producer_id).map_or(Ok(Sequenced::New), |producer| producer.check(info))
    }

    /// Takes in a data batch that gets `base_offset`; `timestamp_ms` is its largest timestamp or its append
    /// time. Checks nothing: what a leader wrote is taken as it is.
    pub fn update(&mut self, info: &BatchInfo, base_offset: i64, timestamp_ms: i64) -> Undo {
        if !info.has_producer() {
            return Undo { previous: None };
        }
        let previous = self.producers.get(&info.producer_id).copied();
        let producer = self.producers.entry(info.producer_id).or_insert(Producer::UNKNOWN);
        let appended = Appended {
            last_sequence: info.last_sequence(),
            offset_delta: info.last_offset_delta,
            last_offset: base_offset.saturating_add(i64::from(info.last_offset_delta)),
            timestamp_ms,
        };
        producer.append(info.producer_epoch, appended);
        if info.is_transactional() && producer.txn_first_offset == NO_OFFSET {
            producer.txn_first_offset = base_offset;
        }
        Undo { previous: Some((info.producer_id, previous)) }
    }

    /// Takes an update back whose append failed.
    pub fn undo(&mut self, undo: Undo) {
        match undo.previous {
            None => {}
            Some((producer_id, Some(producer))) => {
                self.producers.insert(producer_id, producer);
            }
            Some((producer_id, None)) => {
                self.producers.remove(&producer_id);
            }
        }
    }

    /// Takes in a batch of the log, in offset order, from the snapshot's offset on. A marker ends its
    /// producer's transaction; the coordinator epoch inside it is [`Self::replay_marker`]'s.
    pub fn replay(&mut self, info: &BatchInfo) {
        if info.is_control() {
            let known = self.producers.get(&info.producer_id).map_or(-1, |known| known.coordinator_epoch);
            self.replay_marker(info, known);
        } else {
            let _ = self.update(info, info.base_offset, info.max_timestamp_ms);
        }
    }

    /// Takes in a transaction marker of the log with the coordinator epoch of its record.
    pub fn replay_marker(&mut self, info: &BatchInfo, coordinator_epoch: i32) {
        // A marker that compaction emptied says nothing any more.
        if !info.has_producer() || info.record_count == 0 {
            return;
        }
        let producer = self.producers.entry(info.producer_id).or_insert(Producer::UNKNOWN);
        producer.enter_epoch(info.producer_epoch);
        producer.coordinator_epoch = coordinator_epoch;
        producer.last_timestamp_ms = info.max_timestamp_ms;
        producer.txn_first_offset = NO_OFFSET;
    }

    /// Forgets producers without an open transaction that appended nothing for `expiration_ms`.
    pub fn expire(&mut self, wall_ms: i64, expiration_ms: i64) {
        self.producers.retain(|_, producer| !producer.is_expired(wall_ms, expiration_ms));
    }

    /// Forgets everything: the log was truncated fully, or is read again from a snapshot. A rising log
    /// start offset does not call for it; as in Kafka, producers stay until they expire.
    pub fn clear(&mut self) {
        self.producers.clear();
    }

    /// How many producers are known.
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether no producer is known.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// The bytes of a `.snapshot` file, producers in the order of their ids.
    pub fn snapshot(&self) -> Bytes {
        let mut sorted: Vec<(i64, Producer)> =
            self.producers.iter().map(|(id, known)| (*id, *known)).collect();
        sorted.sort_unstable_by_key(|(id, _)| *id);
        let mut entries = BytesMut::with_capacity(4 + sorted.len() * SNAPSHOT_ENTRY_BYTES);
        entries.put_i32(i32::try_from(sorted.len()).expect("there are fewer than 2^31 producers"));
        for (producer_id, producer) in sorted {
            let last = producer.last();
            entries.put_i64(producer_id);
            entries.put_i16(producer.epoch);
            entries.put_i32(last.last_sequence);
            entries.put_i64(last.last_offset);
            entries.put_i32(last.offset_delta);
            entries.put_i64(producer.last_timestamp_ms);
            entries.put_i32(producer.coordinator_epoch);
            entries.put_i64(producer.txn_first_offset);
        }
        let mut bytes = BytesMut::with_capacity(SNAPSHOT_PREFIX_BYTES + entries.len());
        bytes.put_i16(SNAPSHOT_VERSION);
        bytes.put_u32(batch::crc(&entries));
        bytes.put_slice(&entries);
        bytes.freeze()
    }

    /// Reads a `.snapshot` file.
    pub fn from_snapshot(bytes: &[u8]) -> Result<ProducerStates, SnapshotError> {
        let (version, rest) = bytes.split_first_chunk::<2>().ok_or(SnapshotError::Length)?;
        let version = i16::from_be_bytes(*version);
        if version != SNAPSHOT_VERSION {
            return Err(SnapshotError::Version(version));
        }
        let (crc, entries) = rest.split_first_chunk::<4>().ok_or(SnapshotError::Length)?;
        if u32::from_be_bytes(*crc) != batch::crc(entries) {
            return Err(SnapshotError::Checksum);
        }
        let (count, entries) = entries.split_first_chunk::<4>().ok_or(SnapshotError::Length)?;
        let (entries, behind) = entries.as_chunks::<SNAPSHOT_ENTRY_BYTES>();
        let count = i64::from(i32::from_be_bytes(*count));
        if !behind.is_empty() || i64::try_from(entries.len()) != Ok(count) {
            return Err(SnapshotError::Length);
        }
        Ok(ProducerStates { producers: entries.iter().filter_map(|entry| read_entry(entry)).collect() })
    }
}

/// One snapshot entry; `None` never happens, because the entry has its length.
fn read_entry(entry: &[u8]) -> Option<(i64, Producer)> {
    let (producer_id, rest) = entry.split_first_chunk::<8>()?;
    let (epoch, rest) = rest.split_first_chunk::<2>()?;
    let (last_sequence, rest) = rest.split_first_chunk::<4>()?;
    let (last_offset, rest) = rest.split_first_chunk::<8>()?;
    let (offset_delta, rest) = rest.split_first_chunk::<4>()?;
    let (timestamp, rest) = rest.split_first_chunk::<8>()?;
    let (coordinator_epoch, rest) = rest.split_first_chunk::<4>()?;
    let txn_first_offset = rest.first_chunk::<8>()?;
    let timestamp_ms = i64::from_be_bytes(*timestamp);
    let mut producer = Producer {
        epoch: i16::from_be_bytes(*epoch),
        coordinator_epoch: i32::from_be_bytes(*coordinator_epoch),
        last_timestamp_ms: timestamp_ms,
        // Any negative number is "none".
        txn_first_offset: i64::from_be_bytes(*txn_first_offset).max(NO_OFFSET),
        ..Producer::UNKNOWN
    };
    let last_offset = i64::from_be_bytes(*last_offset);
    if last_offset >= 0 {
        let last_sequence = i32::from_be_bytes(*last_sequence);
        let offset_delta = i32::from_be_bytes(*offset_delta);
        producer.append(producer.epoch, Appended { last_sequence, offset_delta, last_offset, timestamp_ms });
    }
    Some((i64::from_be_bytes(*producer_id), producer))
}

#[cfg(test)]
mod tests {
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
            let _ = states.update(&info, 100 + i64::from(n) * 2, 1000 + i64::from(n));
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
            states.check(&batch(1, 0, 2, 2)),
            Err(ErrorCode::OutOfOrderSequenceNumber),
            "the sixth last"
        );
        assert_eq!(
            states.check(&batch(1, 0, 12, 1)),
            Err(ErrorCode::OutOfOrderSequenceNumber),
            "half of a batch"
        );
    }

    #[test]
    fn gaps_and_old_epochs_are_refused_and_new_epochs_start_at_zero() {
        let mut states = with_batches(2);
        assert_eq!(states.check(&batch(1, 0, 5, 1)), Err(ErrorCode::OutOfOrderSequenceNumber));
        assert_eq!(states.check(&batch(1, 1, 4, 1)), Err(ErrorCode::OutOfOrderSequenceNumber));
        assert_eq!(states.check(&batch(1, 1, 0, 1)), Ok(Sequenced::New));
        let _ = states.update(&batch(1, 1, 0, 1), 104, 1);
        assert_eq!(states.check(&batch(1, 0, 4, 1)), Err(ErrorCode::InvalidProducerEpoch));
        assert_eq!(states.check(&batch(1, 0, 2, 2)), Err(ErrorCode::InvalidProducerEpoch), "its repeats too");
        assert!(matches!(
            states.check(&batch(1, 1, 0, 1)),
            Ok(Sequenced::Duplicate { base_offset: 104, .. })
        ));
    }

    #[test]
    fn an_unknown_producer_may_start_anywhere_and_others_are_not_touched() {
        let mut states = with_batches(1);
        assert_eq!(states.check(&batch(2, 4, 77, 3)), Ok(Sequenced::New));
        let _ = states.update(&batch(2, 4, 77, 3), 102, 1);
        assert_eq!(states.check(&batch(2, 4, 80, 1)), Ok(Sequenced::New));
        assert_eq!(states.check(&batch(1, 0, 2, 1)), Ok(Sequenced::New));
        assert_eq!(states.check(&batch(-1, -1, -1, 1)), Ok(Sequenced::New));
        let _ = states.update(&batch(-1, -1, -1, 1), 105, 1);
        assert_eq!(states.len(), 2);
    }

    #[test]
    fn sequences_wrap_from_the_largest_to_zero() {
        let mut states = ProducerStates::default();
        let to_the_end = batch(1, 0, i32::MAX - 1, 2);
        let _ = states.update(&to_the_end, 10, 1);
        assert_eq!(states.check(&batch(1, 0, 0, 1)), Ok(Sequenced::New));
        assert_eq!(states.check(&batch(1, 0, 1, 1)), Err(ErrorCode::OutOfOrderSequenceNumber));
        let mut states = ProducerStates::default();
        let across = batch(1, 0, i32::MAX - 1, 4);
        let _ = states.update(&across, 10, 1);
        let known = Sequenced::Duplicate { base_offset: 10, last_offset: 13, timestamp_ms: 1 };
        assert_eq!(states.check(&across), Ok(known));
        assert_eq!(states.check(&batch(1, 0, 2, 1)), Ok(Sequenced::New));
    }

    #[test]
    fn undoing_newest_first_restores_what_was_known() {
        for known in [0, 1, 4, 5, 6] {
            let before = with_batches(known);
            let mut states = before.clone();
            let first = states.update(&batch(1, 0, known * 2, 2), 500, 9);
            let second = states.update(&batch(1, 1, 0, 1), 502, 9);
            let other = states.update(&batch(3, 0, 0, 1), 503, 9);
            assert_ne!(states, before);
            states.undo(other);
            states.undo(second);
            states.undo(first);
            assert_eq!(states, before, "{known} batches");
        }
    }

    #[test]
    fn idle_producers_expire_but_not_in_a_transaction() {
        let mut states = with_batches(1);
        let open = BatchInfo { attributes: 0x10, ..batch(2, 0, 0, 1) };
        let _ = states.update(&open, 102, 1000);
        assert_eq!(states.check(&batch(2, 0, 1, 1)), Err(ErrorCode::InvalidTxnState));
        states.expire(1099, 100);
        assert_eq!(states.len(), 2);
        states.expire(1100, 100);
        assert_eq!(states.len(), 1);
        assert_eq!(states.check(&batch(1, 0, 99, 1)), Ok(Sequenced::New), "nothing is known any more");
        let marker = BatchInfo { attributes: 0x30, max_timestamp_ms: 1100, ..at(batch(2, 0, -1, 1), 103) };
        states.replay(&marker);
        assert_eq!(
            states.check(&batch(2, 0, 1, 1)),
            Ok(Sequenced::New),
            "the sequence goes on after a marker"
        );
        states.expire(1200, 100);
        assert!(states.is_empty());
    }

    #[test]
    fn a_snapshot_has_kafkas_layout_and_keeps_the_last_batch() {
        let bytes = with_batches(3).snapshot();
        assert_eq!(bytes.len(), 2 + 4 + 4 + 46);
        assert_eq!(bytes[..2], [0, 1]);
        assert_eq!(bytes[2..6], batch::crc(&bytes[6..]).to_be_bytes());
        let mut expected = vec![0, 0, 0, 1];
        expected.extend(1_i64.to_be_bytes());
        expected.extend(0_i16.to_be_bytes());
        expected.extend(5_i32.to_be_bytes());
        expected.extend(105_i64.to_be_bytes());
        expected.extend(1_i32.to_be_bytes());
        expected.extend(1002_i64.to_be_bytes());
        expected.extend((-1_i32).to_be_bytes());
        expected.extend((-1_i64).to_be_bytes());
        assert_eq!(bytes[6..], expected);
        let states = ProducerStates::from_snapshot(&bytes).unwrap();
        assert!(matches!(
            states.check(&batch(1, 0, 4, 2)),
            Ok(Sequenced::Duplicate { base_offset: 104, .. })
        ));
        assert_eq!(states.check(&batch(1, 0, 2, 2)), Err(ErrorCode::OutOfOrderSequenceNumber));
        assert_eq!(states.check(&batch(1, 0, 6, 2)), Ok(Sequenced::New));
        assert_eq!(states.snapshot(), bytes);
    }

    #[test]
    fn a_snapshot_that_java_wrote_is_read_and_written_again() {
        let java = include_bytes!("../../tests/fixtures/batch/java-4.3.1-producers.snapshot");
        let states = ProducerStates::from_snapshot(java).unwrap();
        assert_eq!(states.snapshot(), java[..]);
        let known =
            Sequenced::Duplicate { base_offset: 991, last_offset: 1000, timestamp_ms: 1_700_000_000_123 };
        assert_eq!(states.check(&batch(7, 2, 32, 10)), Ok(known));
        assert_eq!(states.check(&batch(3, 0, 3, 1)), Err(ErrorCode::InvalidTxnState));
        assert_eq!(states.check(&batch(11, 1, 0, 1)), Ok(Sequenced::New));
        assert_eq!(states.check(&batch(11, 1, 1, 1)), Err(ErrorCode::OutOfOrderSequenceNumber));
    }

    #[test]
    fn snapshots_are_sorted_and_damaged_ones_refused() {
        let mut states = ProducerStates::default();
        for producer_id in [900, 3, 77, -5, 12] {
            let _ = states.update(&batch(producer_id, 0, 0, 1), 1, 1);
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
}
