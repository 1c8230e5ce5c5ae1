//! What one partition remembers of its idempotent producers: enough to answer a repeated batch with
//! the offsets it got, and to refuse one that is out of order.
//!
//! Of each producer the last [`BATCHES_KEPT`] batches are known, and from which sequence on nothing is missing. The
//! state is a function of the log: a snapshot (Kafka's `.snapshot` files, version 1) and the batches after it give the
//! same answers. Rules: Kafka's `ProducerAppendInfo`, `ProducerStateEntry` and `ProducerStateManager`, KIP-98 and
//! KIP-360; and one more:
//!
//! A batch that is older than those is in the log all the same if nothing is missing since. Kafka calls it out of
//! order. But clients have no more than five batches in flight on one connection, not in one partition: what was sent
//! to a leader that is cut off may be committed, and followed by any number of batches through the next leader, before
//! the client gives its answer up and sends it again. Told that it is out of order, the Java client repeats it until
//! its delivery time is over, and librdkafka sends it as a new batch of a new epoch: twice. So it is told that it was
//! appended (DUPLICATE_SEQUENCE_NUMBER), which clients take for success.

use bytes::{BufMut, Bytes, BytesMut};
use rustc_hash::FxHashMap;

use super::batch::{self, BatchInfo, HEADER_BYTES};
use super::record::Record;
use crate::planted::{Bug, is_planted};
use crate::wire::ErrorCode;

/// How many batches of a producer are known one by one; more than a client may have in flight on a connection.
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
    /// It was appended before, nobody knows any more where, but below `offset_end`.
    Old {
        /// Offset of the oldest batch that is known.
        offset_end: i64,
    },
}

/// What its producer calls a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// The producer's id.
    pub producer_id: i64,
    /// The producer's epoch.
    pub epoch: i16,
    /// Sequence of its first record.
    pub base_sequence: i32,
}

impl From<&BatchInfo> for Numbered {
    fn from(info: &BatchInfo) -> Self {
        Self { producer_id: info.producer_id, epoch: info.producer_epoch, base_sequence: info.base_sequence }
    }
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
    /// From this sequence on every one of the epoch was appended, up to the last; -1 where none was.
    first_sequence: i32,
    coordinator_epoch: i32,
    last_timestamp_ms: i64,
    /// The wall clock when this process took its newest batch in, or the batch's timestamp where another one did.
    used_ms: i64,
    /// First offset of the open transaction, -1 when there is none.
    txn_first_offset: i64,
    batches: [Appended; BATCHES_KEPT],
}

impl Producer {
    const UNKNOWN: Producer = Producer {
        epoch: NO_EPOCH,
        batch_count: 0,
        first_sequence: NO_SEQUENCE,
        coordinator_epoch: -1,
        last_timestamp_ms: -1,
        used_ms: -1,
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
            self.first_sequence = NO_SEQUENCE;
        }
    }

    fn append(&mut self, epoch: i16, appended: Appended) {
        self.enter_epoch(epoch);
        let is_behind = |last: &Appended| follows(last.last_sequence, appended.base_sequence());
        if self.first_sequence == NO_SEQUENCE || !self.batches().last().is_none_or(is_behind) {
            self.first_sequence = appended.base_sequence();
        }
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
        let last = self.batches().last().filter(|_| info.producer_epoch == self.epoch);
        let last_sequence = last.map_or(NO_SEQUENCE, |last| last.last_sequence);
        if self.epoch != NO_EPOCH && !follows(last_sequence, info.base_sequence) {
            let old = self.old(info).filter(|_| last.is_some());
            return old.ok_or(ErrorCode::OutOfOrderSequenceNumber);
        }
        if self.txn_first_offset != NO_OFFSET && !info.is_transactional() {
            return Err(ErrorCode::InvalidTxnState);
        }
        Ok(Sequenced::New)
    }

    /// A batch of this epoch that is older than the batches that are known, if it has to be among those before them.
    fn old(&self, info: &BatchInfo) -> Option<Sequenced> {
        let (oldest, last) = (self.batches().first()?, self.last().last_sequence);
        // Sequences count modulo 2^31; no client sends again what is half of that behind.
        let back = |sequence: i32| last.wrapping_sub(sequence) & i32::MAX;
        let is_known = back(info.base_sequence) <= back(self.first_sequence).min(i32::MAX / 2)
            && back(info.last_sequence()) <= back(info.base_sequence)
            && back(info.last_sequence()) > back(oldest.base_sequence());
        let is_known = is_known && !is_planted(Bug::OldBatchesForgotten);
        is_known.then(|| Sequenced::Old { offset_end: oldest.base_offset() })
    }

    fn is_expired(&self, wall_ms: i64, expiration_ms: i64) -> bool {
        // Who sends old records is not idle for that.
        let idle_ms = wall_ms.saturating_sub(self.last_timestamp_ms.max(self.used_ms));
        self.txn_first_offset == NO_OFFSET && idle_ms >= expiration_ms
    }
}

/// Whether a sequence is the next one after another, which is -1 for none.
fn follows(last_sequence: i32, sequence: i32) -> bool {
    i64::from(sequence) == i64::from(last_sequence) + 1 || (sequence == 0 && last_sequence == i32::MAX)
}

/// Takes one [`ProducerStates::update`] back. Several are undone newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a failed append has to take its update back"]
pub struct Undo {
    /// Producer and what was known of it; nothing for a batch without a producer id.
    previous: Option<(i64, Option<Producer>)>,
}

impl Undo {
    /// Nothing was taken in.
    pub(super) fn nothing() -> Self {
        Self { previous: None }
    }
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
    /// Batches that were taken back since anybody asked, newest first.
    taken_back: Vec<Numbered>,
}

/// A producer as DescribeProducers shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveProducer {
    /// Its id.
    pub producer_id: i64,
    /// The epoch of its newest batch.
    pub producer_epoch: i16,
    /// Sequence of its newest record, -1 where none is known.
    pub last_sequence: i32,
    /// Timestamp of its newest batch, -1 where none is known.
    pub last_timestamp_ms: i64,
    /// Epoch of the coordinator that wrote its newest marker, -1 for none.
    pub coordinator_epoch: i32,
    /// Where its open transaction begins, -1 for none.
    pub txn_first_offset: i64,
}

impl ProducerStates {
    /// Who produces, by id.
    pub fn active(&self) -> Vec<ActiveProducer> {
        let mut active: Vec<_> = self
            .producers
            .iter()
            .map(|(producer_id, producer)| ActiveProducer {
                producer_id: *producer_id,
                producer_epoch: producer.epoch,
                last_sequence: producer.batches().last().map_or(NO_SEQUENCE, |batch| batch.last_sequence),
                last_timestamp_ms: producer.last_timestamp_ms,
                coordinator_epoch: producer.coordinator_epoch,
                txn_first_offset: producer.txn_first_offset,
            })
            .collect();
        active.sort_by_key(|producer| producer.producer_id);
        active
    }

    /// Whether a batch that a client sent may be appended. A producer nothing is known of may start at
    /// any sequence, since retention can have removed what was known.
    pub fn check(&self, info: &BatchInfo) -> Result<Sequenced, ErrorCode> {
        if !info.has_producer() {
            return Ok(Sequenced::New);
        }
        self.producers.get(&info.producer_id).map_or(Ok(Sequenced::New), |producer| producer.check(info))
    }

    /// The batch with which the producer of another one has to go on, where nothing of it lies at `offset` or behind.
    pub fn next_of(&self, info: &BatchInfo, offset: i64) -> Option<Numbered> {
        let producer = self.producers.get(&info.producer_id)?;
        let last = producer.batches().last();
        last.is_none_or(|last| last.last_offset < offset).then_some(())?;
        let last = last.filter(|_| producer.epoch == info.producer_epoch);
        let base_sequence = last.map_or(0, |last| last.last_sequence.wrapping_add(1) & i32::MAX);
        Some(Numbered { base_sequence, ..info.into() })
    }

    /// Whether anything is known of a producer; if not, [`Self::check`] takes any sequence of it.
    pub fn knows(&self, producer_id: i64) -> bool {
        self.producers.contains_key(&producer_id)
    }

    /// Takes in a data batch that gets `base_offset`; `timestamp_ms` is its largest timestamp or its append
    /// time, `wall_ms` the wall clock or, of a batch of the past, the same. Checks nothing: what a leader wrote is
    /// taken as it is.
    pub fn update(&mut self, info: &BatchInfo, base_offset: i64, timestamp_ms: i64, wall_ms: i64) -> Undo {
        if !info.has_producer() {
            return Undo::nothing();
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
        producer.used_ms = wall_ms;
        if info.is_transactional() && producer.txn_first_offset == NO_OFFSET {
            producer.txn_first_offset = base_offset;
        }
        Undo { previous: Some((info.producer_id, previous)) }
    }

    /// Takes an update back whose append failed.
    pub fn undo(&mut self, undo: Undo) {
        let Some((producer_id, previous)) = undo.previous else { return };
        let taken_back = match previous {
            Some(producer) => self.producers.insert(producer_id, producer),
            None => self.producers.remove(&producer_id),
        };
        // Nobody sends a marker again.
        let is_batch = |known: &Producer| previous.map(|previous| previous.last()) != Some(known.last());
        if let Some(known) = taken_back.filter(|known| known.batch_count > 0 && is_batch(known)) {
            let base_sequence = known.last().base_sequence();
            self.taken_back.push(Numbered { producer_id, epoch: known.epoch, base_sequence });
        }
    }

    /// The batches that were taken back since the last call. Each has to come again before those behind it, which
    /// may be on their way already, are taken.
    pub fn take_back(&mut self) -> Vec<Numbered> {
        std::mem::take(&mut self.taken_back)
    }

    /// Takes in a whole batch as its leader has it, data or the marker of a transaction.
    pub fn take_in(&mut self, info: &BatchInfo, batch: &[u8], wall_ms: i64) -> Undo {
        if !info.is_control() {
            return self.update(info, info.base_offset, info.max_timestamp_ms, wall_ms);
        }
        if !info.has_producer() {
            return Undo::nothing();
        }
        let previous = self.producers.get(&info.producer_id).copied();
        self.replay_whole(info, batch);
        Undo { previous: Some((info.producer_id, previous)) }
    }

    /// [`Self::replay`] with the records of the batch, if it is a marker: they carry the coordinator's epoch.
    pub(super) fn replay_whole(&mut self, info: &BatchInfo, batch: &[u8]) {
        match info.is_control().then(|| coordinator_epoch(batch)).flatten() {
            Some(epoch) => self.replay_marker(info, epoch),
            None => self.replay(info),
        }
    }

    /// Takes in a batch of the log, in offset order, from the snapshot's offset on. A marker ends its
    /// producer's transaction; the coordinator epoch inside it is [`Self::replay_marker`]'s.
    pub fn replay(&mut self, info: &BatchInfo) {
        if info.is_control() {
            let known = self.producers.get(&info.producer_id).map_or(-1, |known| known.coordinator_epoch);
            self.replay_marker(info, known);
        } else {
            let _ = self.update(info, info.base_offset, info.max_timestamp_ms, info.max_timestamp_ms);
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

    /// The bytes of a `.snapshot` file, producers in the order of their ids; those that the log holds
    /// nothing of are left out. Kafka writes an entry for the last batch of each producer; here the
    /// batches before it, which a client may still repeat, have entries in front of that one, and where there
    /// were more, one without an offset has the sequence since which nothing is missing. Kafka
    /// reads such a file too: of a producer's entries the last one counts.
    pub fn snapshot(&self) -> Bytes {
        let mut sorted: Vec<(i64, Producer)> = self
            .producers
            .iter()
            .filter(|(_, known)| known.batch_count > 0 || known.coordinator_epoch >= 0)
            .map(|(id, known)| (*id, *known))
            .collect();
        sorted.sort_unstable_by_key(|(id, _)| *id);
        let mut entries = BytesMut::with_capacity(4 + sorted.len() * SNAPSHOT_ENTRY_BYTES);
        entries.put_i32(0);
        let mut count = 0_i32;
        for (producer_id, producer) in sorted {
            let last = producer.last();
            let before = producer.batches().len().saturating_sub(1);
            let older = producer.batches().iter().take(before).map(|batch| (batch, batch.timestamp_ms));
            let first = Appended { last_sequence: producer.first_sequence, ..Appended::NOTHING };
            let oldest = producer.batches().first().map(Appended::base_sequence);
            let first = oldest.filter(|oldest| *oldest != first.last_sequence).map(|_| (&first, -1));
            for (batch, timestamp_ms) in
                first.into_iter().chain(older).chain([(&last, producer.last_timestamp_ms)])
            {
                entries.put_i64(producer_id);
                entries.put_i16(producer.epoch);
                entries.put_i32(batch.last_sequence);
                entries.put_i64(batch.last_offset);
                entries.put_i32(batch.offset_delta);
                entries.put_i64(timestamp_ms);
                entries.put_i32(producer.coordinator_epoch);
                entries.put_i64(producer.txn_first_offset);
                count = count.checked_add(1).expect("there are fewer than 2^31 batches");
            }
        }
        if let Some(head) = entries.first_chunk_mut::<4>() {
            *head = count.to_be_bytes();
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
        let mut states = ProducerStates::default();
        for (producer_id, producer) in entries.iter().filter_map(|entry| read_entry(entry)) {
            states.join(producer_id, producer);
        }
        Ok(states)
    }

    /// Takes in a snapshot's entry: of one producer and epoch, batches come oldest first.
    fn join(&mut self, producer_id: i64, read: Producer) {
        let known = self.producers.get(&producer_id).filter(|known| known.epoch == read.epoch);
        let joined = match (known.copied(), read.batches().last()) {
            (Some(mut known), Some(last)) => {
                known.append(read.epoch, *last);
                let Producer { batches, batch_count, first_sequence, .. } = known;
                Producer { batches, batch_count, first_sequence, ..read }
            }
            _ => read,
        };
        self.producers.insert(producer_id, joined);
    }
}

/// The coordinator epoch in the first record of a control batch: its value is a version and the epoch.
fn coordinator_epoch(batch: &[u8]) -> Option<i32> {
    let mut body = batch.get(HEADER_BYTES..)?;
    let record = Record::read(&mut body).ok()?;
    let epoch = record.value?.get(2..)?.first_chunk()?;
    Some(i32::from_be_bytes(*epoch))
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
        used_ms: timestamp_ms,
        // Any negative number is "none".
        txn_first_offset: i64::from_be_bytes(*txn_first_offset).max(NO_OFFSET),
        ..Producer::UNKNOWN
    };
    let last_offset = i64::from_be_bytes(*last_offset);
    let last_sequence = i32::from_be_bytes(*last_sequence);
    if last_offset < 0 {
        producer.first_sequence = last_sequence.max(NO_SEQUENCE);
    } else {
        let offset_delta = i32::from_be_bytes(*offset_delta);
        producer.append(producer.epoch, Appended { last_sequence, offset_delta, last_offset, timestamp_ms });
    }
    Some((i64::from_be_bytes(*producer_id), producer))
}

#[cfg(test)]
mod tests;
