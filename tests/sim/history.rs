//! What clients saw, and whether a log could have shown it to them.
//!
//! Every record is unique: its id is in its value and its other bytes follow from the id, so a record that is read is
//! compared byte for byte with what was sent. Each check is a named anomaly; finding one ends the run.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tidemill::log::batch::{BatchBuilder, BatchInfo, HEADER_BYTES, crc_holds};
use tidemill::log::codec::{Codec, Decompressor};
use tidemill::log::record::Records;
use uuid::Uuid;

use crate::commits::Commits;
use crate::plan::{Plan, Shortens};

/// A partition of one topic that existed.
pub type Place = (Uuid, i32);

/// How a producer sends; what its records must look like in the log follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// acks=all with sequence numbers and retries: each acknowledged record once and in order.
    Idempotent,
    /// acks=1 without retries.
    LeaderAcks,
    /// acks=0.
    NoAcks,
}

/// One record that a producer gave to the network.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    topic: usize,
    partition: i32,
    pub(crate) timestamp_ms: i64,
    /// Records of one stream and partition keep their order: a producer id, or one connection of a producer without.
    stream: u64,
    acked: Option<(Uuid, i64)>,
    seen: Option<(Uuid, i64)>,
}

/// What is known of one partition.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) records: BTreeMap<i64, u64>,
    high_watermark: i64,
    durable_floor: i64,
    pub(crate) start: Start,
}

/// What is known of where a partition starts.
#[derive(Debug, Default)]
pub(crate) struct Start {
    /// The highest log start that anybody has seen: no crash takes it back.
    pub(crate) seen: i64,
    /// The highest one that was asked for.
    pub(crate) asked: i64,
    /// Deletions of everything below the high watermark, wherever that was, that were not answered.
    pub(crate) whole: u32,
}

/// Everything that clients did and saw.
#[derive(Debug, Default)]
pub struct History {
    sent: Vec<Vec<Sent>>,
    /// What producers of a cluster were given.
    producer_ids: BTreeSet<i64>,
    pub(crate) known: BTreeMap<Place, Known>,
    decompressor: Decompressor,
    /// The broker stamps records with its own clock.
    log_append_time: bool,
    /// Replicas that begin where records were deleted do not know those who sent them.
    forgets_producers: bool,
    /// Topics by id that sync before they acknowledge.
    pub flushed: BTreeMap<Uuid, bool>,
    /// What groups committed.
    pub commits: Commits,
    /// Records that are in a partition by its leader's word, which does not know where.
    long_ago: BTreeMap<u64, Place>,
    acked_records: u64,
    read_records: u64,
    pub(crate) shortens: Shortens,
    pub(crate) clock_jumps: bool,
    /// Log starts that moved on, as clients saw it.
    pub(crate) starts_seen: u64,
}

fn mix(id: u64) -> u64 {
    let mut bits = id.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// The value of a record: its id, then bytes that follow from it. Mostly small, now and then larger.
fn value_of(id: u64) -> Vec<u8> {
    let bits = mix(id);
    let length = match bits % 16 {
        0 => 400 + (bits >> 8) % 300,
        1..=3 => 0,
        _ => (bits >> 8) % 100,
    };
    let mut value = id.to_be_bytes().to_vec();
    value.extend((0..length).map(|at| (bits >> (at % 56)) as u8 ^ at as u8));
    value
}

fn key_of(id: u64) -> Option<[u8; 8]> {
    (!mix(id).is_multiple_of(3)).then(|| mix(id).to_le_bytes())
}

fn header_of(id: u64) -> Option<[u8; 4]> {
    mix(id).is_multiple_of(5).then(|| (mix(id) as u32).to_be_bytes())
}

impl History {
    /// Nothing has happened. Under `log_append_time` records come back with the broker's timestamps.
    pub fn new(plan: &Plan) -> Self {
        Self {
            log_append_time: plan.log_append_time,
            forgets_producers: plan.linked,
            shortens: plan.shortens.clone(),
            clock_jumps: plan.clock_jumps || plan.drift_ppm > 0,
            ..Self::default()
        }
    }

    /// Whether the broker stamps records with its own clock.
    pub fn log_append_time(&self) -> bool {
        self.log_append_time
    }

    /// A producer that has sent nothing.
    pub fn add_producer(&mut self) -> usize {
        self.sent.push(Vec::new());
        self.sent.len() - 1
    }

    /// A producer was given an id, which nobody else is ever given.
    pub fn given_producer_id(&mut self, producer_id: i64) {
        assert!(self.producer_ids.insert(producer_id), "producer id twice: {producer_id} was given before");
    }

    /// A new record of a producer, to be put into a batch.
    pub fn new_record(&mut self, producer: usize, topic: usize, partition: i32, timestamp_ms: i64) -> u64 {
        let list = &mut self.sent[producer];
        let sent = Sent { topic, partition, timestamp_ms, stream: 0, acked: None, seen: None };
        list.push(sent);
        (producer as u64) << 32 | (list.len() - 1) as u64
    }

    /// The batch of these records. `stream` orders them against the producer's other batches of the partition.
    pub fn batch(
        &mut self,
        ids: &[u64],
        stream: u64,
        codec: Codec,
        sequence: Option<(i64, i16, i32)>,
    ) -> Bytes {
        let mut builder = BatchBuilder::new().codec(codec);
        if let Some((producer_id, epoch, first)) = sequence {
            builder = builder.producer(producer_id, epoch, first);
        }
        for id in ids {
            let sent = self.sent_mut(*id);
            sent.stream = stream;
            let (key, header) = (key_of(*id), header_of(*id));
            let headers: Vec<_> = header.iter().map(|value| (&b"h"[..], Some(&value[..]))).collect();
            builder.push(sent.timestamp_ms, key.as_ref().map(|key| &key[..]), Some(&value_of(*id)), &headers);
        }
        builder.build()
    }

    fn sent_mut(&mut self, id: u64) -> &mut Sent {
        &mut self.sent[(id >> 32) as usize][(id & 0xffff_ffff) as usize]
    }

    pub(crate) fn find(&self, id: u64) -> Option<&Sent> {
        self.sent.get((id >> 32) as usize)?.get((id & 0xffff_ffff) as usize)
    }

    /// The broker acknowledged these records from this offset on.
    pub fn acked(&mut self, ids: &[u64], topic_id: Uuid, partition: i32, base_offset: i64) {
        let offsets = base_offset..;
        for (id, offset) in ids.iter().zip(offsets) {
            self.place(*id, (topic_id, partition), offset);
            self.sent_mut(*id).acked = Some((topic_id, offset));
            self.acked_records += 1;
        }
        self.reached((topic_id, partition), base_offset + ids.len() as i64);
    }

    /// The broker says that it has had these records for long.
    pub fn appended_long_ago(&mut self, ids: &[u64], place: Place) {
        self.long_ago.extend(ids.iter().map(|id| (*id, place)));
        self.acked_records += ids.len() as u64;
    }

    /// Records below this offset are committed: where a topic is synced before it acknowledges, they are durable.
    fn reached(&mut self, place: Place, offset: i64) {
        if self.flushed.get(&place.0).copied().unwrap_or(false) {
            let known = self.known.entry(place).or_default();
            known.durable_floor = known.durable_floor.max(offset);
        }
    }

    fn place(&mut self, id: u64, place: Place, offset: i64) {
        let known = self.known.entry(place).or_default();
        if let Some(other) = known.records.insert(offset, id) {
            assert!(
                other == id,
                "inconsistent-offsets: {place:?} offset {offset} was record {other:x} and is {id:x}"
            );
        }
        let sent = self.sent_mut(id);
        let (seen, acked) = (sent.seen.replace((place.0, offset)), sent.acked);
        for (what, before) in [("seen", seen), ("acknowledged", acked)] {
            let Some(before) = before.filter(|before| *before != (place.0, offset)) else { continue };
            let is_forgotten = self.forgets_producers && self.may_be_gone((before.0, place.1), before.1);
            assert!(
                is_forgotten,
                "duplicate: record {id:x} was {what} at {before:?} and is at {place:?} {offset}"
            );
        }
    }

    /// The high watermark or an end that a reader saw. `at_least` is what was known when it asked.
    pub fn saw_end(&mut self, place: Place, end: i64, at_least: i64) {
        assert!(end >= at_least, "hw regression: {place:?} showed {at_least} before and {end} now");
        let known = self.known.entry(place).or_default();
        known.high_watermark = known.high_watermark.max(end);
        self.reached(place, end);
    }

    /// The highest end that any reader has seen.
    pub fn end_known(&self, place: Place) -> i64 {
        self.known.get(&place).map_or(0, |known| known.high_watermark)
    }

    /// What a fetch at `position` gave; the position to go on from.
    pub fn fetched(&mut self, place: Place, topic: usize, position: i64, end: i64, bytes: &Bytes) -> i64 {
        let (mut rest, mut next) = (bytes.clone(), position);
        let mut batches = 0;
        while let Ok(info) = BatchInfo::parse(&rest) {
            let length = info.length_bytes as usize;
            if rest.len() < length {
                break;
            }
            let batch = rest.split_to(length);
            assert!(
                crc_holds(&batch, &info),
                "corrupt: {place:?} batch at {} fails its CRC",
                info.base_offset
            );
            let (base, last) = (info.base_offset, info.last_offset());
            assert!(
                if batches == 0 { base <= next } else { base == next } && last >= next,
                "poll-skip: {place:?} gave offsets {base} to {last} where {next} was next"
            );
            assert!(last < end, "{place:?} gave offset {last} above its high watermark {end}");
            self.read_batch(place, topic, &batch, &info);
            next = last + 1;
            batches += 1;
        }
        assert!(bytes.is_empty() || batches > 0, "{place:?} gave {} bytes and no whole batch", bytes.len());
        next
    }

    fn read_batch(&mut self, place: Place, topic: usize, batch: &Bytes, info: &BatchInfo) {
        let codec = info.codec().expect("a codec that was sent");
        let mut decompressor = std::mem::take(&mut self.decompressor);
        let body = match codec {
            Codec::None => &batch[HEADER_BYTES..],
            codec => decompressor.decompress(codec, &batch[HEADER_BYTES..], 1 << 24).expect("what was sent"),
        };
        let mut count = 0;
        for record in Records::new(body) {
            let record = record.expect("a record that was sent");
            let offset = info.base_offset + i64::from(record.offset_delta);
            let value = record.value.unwrap_or_default();
            let id = value.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
            let sent = id.and_then(|id| Some((id, self.find(id)?)));
            let Some((id, sent)) = sent else { panic!("phantom: {place:?} offset {offset} was never sent") };
            let at = (sent.topic, sent.partition);
            assert!(at == (topic, place.1), "phantom: {place:?} offset {offset} was sent to {at:?}");
            let header = record.headers().next().and_then(|(_, value)| value.map(<[u8]>::to_vec));
            let same = value == value_of(id)
                && record.key.map(<[u8]>::to_vec) == key_of(id).map(|key| key.to_vec())
                && header == header_of(id).map(|header| header.to_vec())
                && (self.log_append_time
                    || info.base_timestamp_ms + record.timestamp_delta_ms == sent.timestamp_ms);
            assert!(same, "phantom: the bytes of {place:?} offset {offset} are not those of record {id:x}");
            self.place(id, place, offset);
            self.read_records += 1;
            count += 1;
        }
        assert!(
            count == info.record_count,
            "a batch of {place:?} counts {} and holds {count}",
            info.record_count
        );
        self.decompressor = decompressor;
    }

    /// The process died, or the power failed. `durable` says how far each replica claimed to be synced; what was not
    /// may be gone after a power cut, and nobody may count on it any more.
    pub fn crashed(&mut self, durable: &[(Place, i64)], power: bool) {
        for (place, end) in durable {
            let known = self.known.entry(*place).or_default();
            known.durable_floor = known.durable_floor.max(*end);
        }
        if !power {
            return;
        }
        self.commits.power_was_cut();
        self.long_ago.clear();
        let mut uncertain = Vec::new();
        for known in self.known.values_mut() {
            let floor = known.durable_floor;
            uncertain.extend(known.records.split_off(&floor).into_values());
            // A log that lost everything from before its start goes on from there.
            known.high_watermark = known.high_watermark.min(floor.max(known.start.seen));
        }
        for id in uncertain {
            let sent = self.sent_mut(id);
            sent.acked = None;
            sent.seen = None;
        }
    }

    /// Whatever was known of a partition may have been given up.
    pub fn forget(&mut self, place: Place) {
        let known = self.known.remove(&place).unwrap_or_default();
        for id in known.records.into_values() {
            self.sent_mut(id).seen = None;
        }
    }

    /// Everything that a partition holds was read from `start` to `end`: nothing acknowledged is missing, nothing
    /// that was read before has changed or gone, and every stream is in order.
    pub fn check_whole(&self, place: Place, start: i64, end: i64) {
        let Some(known) = self.known.get(&place) else { return };
        if let Some((offset, id)) = known.records.range(end..).next() {
            panic!("unseen: {place:?} ends at {end}, and record {id:x} was at {offset}");
        }
        assert!(
            known.durable_floor <= end,
            "{place:?} was durable up to {} and ends at {end}",
            known.durable_floor
        );
        let mut last: BTreeMap<(u64, u64), u64> = BTreeMap::new();
        for (offset, id) in known.records.range(start..) {
            let sent = self.find(*id).expect("known records were sent");
            let before = last.insert((id >> 32, sent.stream), *id);
            assert!(
                before.is_none_or(|before| before < *id),
                "nonmonotonic-send: {place:?} offset {offset} holds record {id:x} after {before:x?}"
            );
        }
        assert_eq!(known.records.range(start..).count() as i64, end - start, "{place:?} has holes");
        let there: BTreeSet<u64> = known.records.values().copied().collect();
        let may_be_gone = self.may_be_gone(place, 0);
        let lost = self.long_ago.iter().find(|(id, at)| **at == place && !there.contains(id) && !may_be_gone);
        assert_eq!(lost, None, "lost: {place:?} was said to have a record, and does not");
    }

    /// Every acknowledged record of a topic that is there lies below the end that was read.
    pub fn check_acked(&self, ends: &BTreeMap<Place, i64>) {
        for sent in self.sent.iter().flatten() {
            let Some((topic_id, offset)) = sent.acked else { continue };
            let Some(end) = ends.get(&(topic_id, sent.partition)) else { continue };
            assert!(offset < *end, "lost: offset {offset} of {topic_id} {} was acknowledged", sent.partition);
        }
    }

    /// Offset of the first record at or after a timestamp, of what is known of a partition from an offset on.
    pub fn first_at(&self, place: Place, start: i64, timestamp_ms: i64) -> Option<(i64, i64)> {
        let known = self.known.get(&place)?;
        let mut records = known
            .records
            .range(start..)
            .map(|(offset, id)| (*offset, self.find(*id).expect("known records were sent").timestamp_ms));
        records.find(|(_, timestamp)| *timestamp >= timestamp_ms)
    }

    /// How many records were acknowledged, and how many were read.
    pub fn counts(&self) -> (u64, u64, u64) {
        (self.acked_records, self.read_records, self.starts_seen)
    }
}
