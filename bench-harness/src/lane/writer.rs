//! The produce requests of one connection: encoded beforehand, its partitions in turn, every answer checked.

use std::collections::HashSet;
use std::ops::Range;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::timeline::Shared;
use super::{Ring, Worth};
use crate::wire::{self, Contents, Cursor, Payload, Producer};
use crate::workload::Writing;

/// What a writer is made of.
pub struct Recipe<'a> {
    /// The topic.
    pub topic: &'a str,
    /// Its requests.
    pub writing: &'a Writing,
    /// The number of its connection: no two of a run write the same bytes.
    pub connection: usize,
    /// Its partitions, and where each ends before the run.
    pub partitions: Vec<(usize, i64)>,
    /// Partitions of a topic: they are counted over all topics, and on the wire within theirs.
    pub partitions_each_topic: usize,
    /// Whether nobody else writes to them.
    pub alone: bool,
    /// Its producer id, or [`Producer::NONE`].
    pub producer: Producer,
    /// The timestamp of every record.
    pub timestamp_ms: i64,
    /// For each partition, where timed readers learn what is sent; or none for any.
    pub timelines: Vec<Shared>,
}

/// How far a partition is written by this connection.
struct Progress {
    partition: usize,
    /// Records sent, which is the next base sequence.
    sent: u64,
    /// Records acknowledged.
    acknowledged: u64,
    /// The next offset given; where others write too, the least.
    next: i64,
}

/// The state of one connection's produce requests.
pub struct Writer {
    alone: bool,
    each_topic: usize,
    acks: i16,
    records: u64,
    per_request: usize,
    progress: Vec<Progress>,
    timelines: Vec<Shared>,
    /// For each slot, where its batches lie in the ring; empty without a producer id.
    sequenced: Vec<Vec<Range<usize>>>,
    /// For each slot, the bytes of its batches.
    bytes: Vec<u64>,
    sent: HashSet<u64>,
}

impl Writer {
    /// Encodes all requests.
    pub fn new(recipe: Recipe<'_>) -> (Ring, Writer) {
        let Recipe {
            topic, writing, connection, partitions, alone, producer, timestamp_ms, timelines, ..
        } = recipe;
        let each_topic = recipe.partitions_each_topic.max(1);
        let contents = Contents {
            records: writing.records,
            record_bytes: writing.record_bytes,
            keyed: writing.keyed,
            codec: writing.codec,
        };
        let groups = partitions.len().div_ceil(writing.partitions_per_request);
        let slots = groups * writing.in_flight.div_ceil(groups);
        let mut ring = Ring::new(writing.in_flight, 128 + 64 * writing.partitions_per_request);
        let (mut sent, mut bytes, mut sequenced) = (HashSet::new(), Vec::new(), Vec::new());
        for slot in 0..slots {
            let group = partitions.chunks(writing.partitions_per_request).nth(slot % groups).unwrap_or(&[]);
            let batches: Vec<(usize, Vec<u8>)> = group
                .iter()
                .map(|(partition, _)| {
                    let seed = (connection * slots + slot) as u64 * 100_003 + *partition as u64;
                    (
                        *partition % each_topic,
                        wire::encode(contents, producer, timestamp_ms, &mut Payload::new(seed)),
                    )
                })
                .collect();
            bytes.push(batches.iter().map(|(_, batch)| batch.len() as u64).sum());
            sent.extend(batches.iter().map(|(_, batch)| wire::fingerprint(batch)));
            let (frame, places) = wire::produce(topic, writing.acks, &batches);
            let at = ring.push(&frame);
            if producer != Producer::NONE {
                sequenced.push(places.iter().map(|place| at + place.start..at + place.end).collect());
            }
        }
        let progress = partitions.into_iter();
        let progress = progress
            .map(|(partition, next)| Progress { partition, sent: 0, acknowledged: 0, next })
            .collect();
        let (records, per_request) = (writing.records as u64, writing.partitions_per_request);
        let acks = writing.acks;
        (
            ring,
            Writer {
                alone,
                each_topic,
                acks,
                records,
                per_request,
                progress,
                timelines,
                sequenced,
                bytes,
                sent,
            },
        )
    }

    /// The places in `progress` of the partitions of a slot's request.
    fn group(&self, slot: usize) -> Range<usize> {
        let groups = self.progress.len().div_ceil(self.per_request);
        let first = slot % groups * self.per_request;
        first..(first + self.per_request).min(self.progress.len())
    }

    /// A slot's request is sent: gives its batches their sequences, and timed readers the moment.
    pub fn prepare(&mut self, ring: &mut Ring, slot: usize, meant: Instant) {
        let group = self.group(slot);
        for (index, at) in group.enumerate() {
            if let Some(timeline) = self.timelines.get(at) {
                timeline.borrow_mut().send(meant);
            }
            let Some(progress) = self.progress.get_mut(at) else { continue };
            if let Some(place) = self.sequenced.get(slot).and_then(|places| places.get(index)) {
                let batch = ring.bytes_mut(place.clone());
                wire::set_sequence(batch, (progress.sent & i32::MAX as u64) as i32);
            }
            progress.sent += self.records;
        }
    }

    /// Whether nothing is answered.
    pub fn is_silent(&self) -> bool {
        self.acks == 0
    }

    /// What a slot's request is worth without an answer.
    pub fn assume(&mut self, slot: usize) -> Worth {
        let group = self.group(slot);
        let count = group.len() as u64;
        for progress in self.progress.get_mut(group).unwrap_or(&mut []) {
            progress.acknowledged += self.records;
        }
        Worth { records: self.records * count, bytes: self.bytes.get(slot).copied().unwrap_or(0), error: 0 }
    }

    /// Checks the answer to a slot's request: every partition once, and offsets without a gap.
    pub fn check(&mut self, slot: usize, answer: Cursor<'_>) -> Result<Worth> {
        let (group, records, alone) = (self.group(slot), self.records, self.alone);
        let each_topic = self.each_topic;
        let asked = self.progress.get_mut(group).unwrap_or(&mut []);
        let (mut error, mut answered) = (0, 0);
        wire::read_produced(answer, |one| {
            answered += 1;
            if one.error != 0 {
                error = one.error;
                return Ok(());
            }
            let is_it = |at: &Progress| Ok(at.partition % each_topic) == usize::try_from(one.partition);
            let found = asked.iter_mut().find(|progress| is_it(progress));
            let progress = found.with_context(|| format!("partition {} was not asked for", one.partition))?;
            let (at, due) = (one.base_offset, progress.next);
            let fits = if alone { at == due } else { at >= due };
            ensure!(fits, "partition {}: offset {at} given where {due} is due", one.partition);
            progress.next = at + records as i64;
            progress.acknowledged += records;
            Ok(())
        })?;
        ensure!(answered == asked.len(), "{answered} partitions answered, {} asked for", asked.len());
        if error != 0 {
            return Ok(Worth { error, ..Worth::default() });
        }
        let bytes = self.bytes.get(slot).copied().unwrap_or(0);
        Ok(Worth { records: records * asked.len() as u64, bytes, error })
    }

    /// How many records of each partition were acknowledged to this connection.
    pub fn acknowledged(&self) -> impl Iterator<Item = (usize, u64)> {
        self.progress.iter().map(|progress| (progress.partition, progress.acknowledged))
    }

    /// The fingerprints of all batches.
    pub fn sent(&self) -> &HashSet<u64> {
        &self.sent
    }
}
