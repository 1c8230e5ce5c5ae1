//! What one connection says and how it checks the answers. A lane is a ring of encoded frames, one for each request
//! that may be unanswered; before a frame is sent again only its correlation id (and a fetch's offset) is patched.
//!
//! Invariant: frame number `n` lies in slot `n % slots`, and a slot is touched only when its last answer has come.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hasher};

use anyhow::{Context, Result, ensure};

use crate::wire::{self, BATCH_FIXED_AT, BatchView, CORRELATION_AT, Cursor, Payload};
use crate::workload::{Kind, Workload};

/// One fetched batch in this many answers has its CRC checked while the clock runs.
const CRC_SAMPLE: u64 = 64;

/// What an answer was worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Worth {
    /// Records written or read.
    pub records: u64,
    /// Bytes of whole batches written or read.
    pub bytes: u64,
    /// The first error code of the answer, 0 when all is well.
    pub error: i16,
}

enum Work {
    Produce { partition_first: usize, records: u64, bytes: u64, next: Vec<i64> },
    Fetch { offset_at: usize, next: i64, log_end: i64 },
}

/// One connection's requests.
pub struct Lane {
    frames: Vec<u8>,
    frame_bytes: usize,
    slots: usize,
    answer_bytes_max: usize,
    work: Work,
    sent: HashSet<u64>,
}

/// A name for the part of a batch that a broker never changes.
pub fn fingerprint(fixed: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(fixed);
    hasher.finish()
}

impl Lane {
    /// The lane of connection `index` for a workload on a topic; for a fetch, `log_end` is where its partition ends.
    pub fn new(workload: &Workload, topic: &str, index: usize, timestamp_ms: i64, log_end: i64) -> Lane {
        match workload.kind {
            Kind::Produce { records, record_bytes, partitions_per_request } => {
                let first = index * partitions_per_request;
                let shape = Shape { records, record_bytes, partition_first: first };
                Lane::produce(topic, shape, partitions_per_request, workload.in_flight, timestamp_ms)
            }
            Kind::Fetch { max_bytes } => Lane::fetch(topic, index, max_bytes, log_end),
        }
    }

    /// A lane that writes one batch to each of its partitions with every request.
    pub fn produce(topic: &str, shape: Shape, partitions: usize, slots: usize, timestamp_ms: i64) -> Lane {
        let (mut frames, mut sent, mut bytes) = (Vec::new(), HashSet::new(), 0);
        for slot in 0..slots {
            let batches: Vec<Vec<u8>> = (0..partitions)
                .map(|partition| {
                    let seed = ((shape.partition_first + partition) * slots + slot) as u64;
                    let mut payload = Payload::new(seed);
                    wire::batch(shape.records, shape.record_bytes, timestamp_ms, &mut payload)
                })
                .collect();
            bytes = batches.iter().map(Vec::len).sum::<usize>();
            sent.extend(batches.iter().filter_map(|batch| batch.get(BATCH_FIXED_AT..)).map(fingerprint));
            frames.append(&mut wire::produce(topic, shape.partition_first, &batches));
        }
        let work = Work::Produce {
            partition_first: shape.partition_first,
            records: shape.records as u64,
            bytes: bytes as u64,
            next: vec![0; partitions],
        };
        let frame_bytes = frames.len() / slots;
        Lane { frames, frame_bytes, slots, answer_bytes_max: 128 + 64 * partitions, work, sent }
    }

    /// A lane that reads one partition from its start to `log_end` and around again, one request at a time.
    pub fn fetch(topic: &str, partition: usize, max_bytes: usize, log_end: i64) -> Lane {
        let (frames, offset_at) = wire::fetch(topic, partition, max_bytes);
        let work = Work::Fetch { offset_at, next: 0, log_end };
        // An answer may exceed its limit by one batch.
        let answer_bytes_max = max_bytes + (2 << 20);
        Lane { frame_bytes: frames.len(), frames, slots: 1, answer_bytes_max, work, sent: HashSet::new() }
    }

    /// Whether it reads records; else it writes them.
    pub fn consumes(&self) -> bool {
        matches!(self.work, Work::Fetch { .. })
    }

    /// How many requests may be unanswered.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// The length of each frame.
    pub fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// No answer is longer.
    pub fn answer_bytes_max(&self) -> usize {
        self.answer_bytes_max
    }

    /// The bytes from position `written` of the endless row of frames to `queued`, or to the ring's end.
    pub fn outgoing(&self, written: u64, queued: u64) -> &[u8] {
        let at = (written % self.frames.len() as u64) as usize;
        let wanted = (queued - written).min((self.frames.len() - at) as u64) as usize;
        self.frames.get(at..at + wanted).unwrap_or(&[])
    }

    /// Makes frame `number` ready to be sent.
    pub fn prepare(&mut self, number: u64) {
        let at = (number % self.slots as u64) as usize * self.frame_bytes;
        wire::put(&mut self.frames, at + CORRELATION_AT, &(number as i32).to_be_bytes());
        if let Work::Fetch { offset_at, next, .. } = &self.work {
            wire::put(&mut self.frames, at + offset_at, &next.to_be_bytes());
        }
    }

    /// Checks the answer to frame `number`, without its length.
    pub fn check(&mut self, number: u64, answer: &[u8]) -> Result<Worth> {
        let mut cursor = Cursor::new(answer);
        let correlation = cursor.i32()?;
        ensure!(correlation == number as i32, "answer {correlation} came where {number} was due");
        match &mut self.work {
            Work::Produce { partition_first, records, bytes, next } => {
                check_produced(cursor, *partition_first, *records, *bytes, next)
            }
            Work::Fetch { next, log_end, .. } => {
                check_fetched(cursor, next, *log_end, number.is_multiple_of(CRC_SAMPLE))
            }
        }
    }

    /// The partitions that this lane wrote, and where each must end.
    pub fn expected_ends(&self) -> Vec<(usize, i64)> {
        match &self.work {
            Work::Produce { partition_first, next, .. } => {
                next.iter().enumerate().map(|(index, end)| (partition_first + index, *end)).collect()
            }
            Work::Fetch { .. } => Vec::new(),
        }
    }

    /// The fingerprints of all batches that this lane sends.
    pub fn sent(&self) -> &HashSet<u64> {
        &self.sent
    }
}

/// What a producing lane writes, and from which partition on.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Records in each batch.
    pub records: usize,
    /// Bytes of each value.
    pub record_bytes: usize,
    /// The first partition.
    pub partition_first: usize,
}

fn check_produced(
    cursor: Cursor<'_>,
    first: usize,
    records: u64,
    bytes: u64,
    next: &mut [i64],
) -> Result<Worth> {
    let mut error = 0;
    let mut answered = 0;
    wire::read_produced(cursor, |one| {
        answered += 1;
        if one.error != 0 {
            error = one.error;
            return Ok(());
        }
        let index = usize::try_from(one.partition).ok().and_then(|partition| partition.checked_sub(first));
        let slot = index.and_then(|index| next.get_mut(index));
        let due = slot.with_context(|| format!("partition {} was not asked for", one.partition))?;
        let at = one.base_offset;
        ensure!(at == *due, "partition {}: offset {at} given where {due} is due", one.partition);
        *due += records as i64;
        Ok(())
    })?;
    ensure!(answered == next.len(), "{answered} partitions answered, {} asked for", next.len());
    let whole = error == 0;
    let records = if whole { records * next.len() as u64 } else { 0 };
    Ok(Worth { records, bytes: if whole { bytes } else { 0 }, error })
}

fn check_fetched(cursor: Cursor<'_>, next: &mut i64, log_end: i64, crc: bool) -> Result<Worth> {
    let fetched = wire::read_fetched(cursor)?;
    if fetched.error != 0 {
        return Ok(Worth { error: fetched.error, ..Worth::default() });
    }
    let (mut rest, mut worth, asked) = (fetched.records, Worth::default(), *next);
    while let Some((batch, after)) = BatchView::split(rest) {
        let at = batch.base_offset;
        ensure!(at == *next, "a batch at offset {at} came where {next} is due");
        ensure!(!crc || worth.records > 0 || batch.crc_holds(), "the batch at offset {at} fails its CRC");
        *next = batch.offset_end;
        worth.records += (batch.offset_end - at) as u64;
        worth.bytes += batch.bytes.len() as u64;
        rest = after;
    }
    ensure!(worth.records > 0, "a fetch at offset {asked} below the log end {log_end} brought no batch");
    if *next >= log_end {
        *next = 0;
    }
    Ok(worth)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::wire::Frame;

    fn small(slots: usize) -> Lane {
        Lane::produce("t", Shape { records: 2, record_bytes: 10, partition_first: 3 }, 1, slots, 0)
    }

    fn answer(number: i32, error: i16, base_offset: i64) -> Vec<u8> {
        let mut frame = Frame::new(0, 0);
        frame.count(1).text("t").count(1).i32(3).i16(error).i64(base_offset).i64(-1).i64(0).i32(0);
        let body = frame.finish().split_off(4 + 8 + 7);
        [number.to_be_bytes().to_vec(), body].concat()
    }

    #[test]
    fn the_ring_hands_out_frames_in_order_and_wraps() {
        let mut lane = small(2);
        let length = lane.frame_bytes() as u64;
        lane.prepare(0);
        lane.prepare(1);
        assert_eq!(lane.outgoing(0, 2 * length).len() as u64, 2 * length);
        lane.prepare(2);
        let third = lane.outgoing(2 * length, 3 * length);
        assert_eq!(&third[8..12], &2i32.to_be_bytes());
        assert_eq!(lane.outgoing(length, 3 * length).len() as u64, length, "stops at the ring's end");
    }

    #[test]
    fn a_wrong_offset_or_a_missing_answer_is_noticed() {
        let mut lane = small(1);
        assert_eq!(lane.check(0, &answer(0, 0, 0)).unwrap().records, 2);
        assert!(lane.check(1, &answer(1, 0, 5)).is_err(), "offset 2 is due");
        assert!(lane.check(1, &answer(7, 0, 2)).is_err(), "correlation id 1 is due");
        assert_eq!(lane.check(1, &answer(1, 6, -1)).unwrap().error, 6);
        assert_eq!(lane.check(2, &answer(2, 0, 2)).unwrap().error, 0);
        assert_eq!(lane.expected_ends(), [(3, 4)]);
    }

    #[test]
    fn every_slot_sends_bytes_of_its_own() {
        assert_eq!(small(5).sent().len(), 5);
    }
}
