//! What one connection says and how it checks the answers. A lane is a ring of encoded frames; before a frame is sent
//! again only its correlation id, and a fetch's offsets or a batch's sequence, are patched.
//!
//! Invariant: frame number `n` lies in slot `n % slots`, there are at least as many slots as unanswered requests, and
//! so a slot is touched only when its last answer has come.

pub mod reader;
pub mod timeline;
pub mod writer;

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::wire::{self, CORRELATION_AT, Cursor};
use reader::Reader;
use writer::Writer;

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

/// Encoded frames, one behind the other.
pub struct Ring {
    frames: Vec<u8>,
    /// Where each slot's frame begins.
    starts: Vec<usize>,
    in_flight: usize,
    answer_bytes_max: usize,
}

impl Ring {
    /// An empty ring for that many unanswered requests, none of whose answers is longer.
    fn new(in_flight: usize, answer_bytes_max: usize) -> Ring {
        Ring { frames: Vec::new(), starts: Vec::new(), in_flight, answer_bytes_max }
    }

    /// Adds a slot, and returns where it begins.
    fn push(&mut self, frame: &[u8]) -> usize {
        self.starts.push(self.frames.len());
        self.frames.extend_from_slice(frame);
        self.frames.len() - frame.len()
    }

    fn bytes_mut(&mut self, place: Range<usize>) -> &mut [u8] {
        self.frames.get_mut(place).expect("a place lies inside its ring")
    }

    fn slot(&self, number: u64) -> usize {
        (number % self.starts.len() as u64) as usize
    }
}

enum Work {
    Write(Writer),
    Read(Reader),
}

/// One connection's requests.
pub struct Lane {
    ring: Ring,
    work: Work,
}

impl Lane {
    /// A lane that writes.
    pub fn produce(recipe: writer::Recipe<'_>) -> Lane {
        let (ring, writer) = Writer::new(recipe);
        Lane { ring, work: Work::Write(writer) }
    }

    /// A lane that reads.
    pub fn fetch(recipe: reader::Recipe<'_>) -> Lane {
        let (ring, reader) = Reader::new(recipe);
        Lane { ring, work: Work::Read(reader) }
    }

    /// What it writes, if it does.
    pub fn writer(&self) -> Option<&Writer> {
        match &self.work {
            Work::Write(writer) => Some(writer),
            Work::Read(_) => None,
        }
    }

    /// Whether it reads records; else it writes them.
    pub fn consumes(&self) -> bool {
        matches!(self.work, Work::Read(_))
    }

    /// How many requests it has that differ.
    pub fn slot_count(&self) -> usize {
        self.ring.starts.len()
    }

    /// How many requests may be unanswered.
    pub fn in_flight(&self) -> usize {
        self.ring.in_flight
    }

    /// No answer is longer.
    pub fn answer_bytes_max(&self) -> usize {
        self.ring.answer_bytes_max
    }

    /// Where frame `number` begins in the endless row of frames.
    pub fn position(&self, number: u64) -> u64 {
        let rounds = number / self.ring.starts.len() as u64;
        let start = self.ring.starts.get(self.ring.slot(number)).copied().unwrap_or(0);
        rounds * self.ring.frames.len() as u64 + start as u64
    }

    /// The bytes from position `written` of the endless row of frames to `end`, or to the ring's end.
    pub fn outgoing(&self, written: u64, end: u64) -> &[u8] {
        let at = (written % self.ring.frames.len() as u64) as usize;
        let wanted = (end - written).min((self.ring.frames.len() - at) as u64) as usize;
        self.ring.frames.get(at..at + wanted).unwrap_or(&[])
    }

    /// Makes frame `number` ready to be sent; it was meant to be at that moment.
    pub fn prepare(&mut self, number: u64, meant: Instant) {
        let slot = self.ring.slot(number);
        let at = self.ring.starts.get(slot).copied().unwrap_or(0) + CORRELATION_AT;
        wire::put(&mut self.ring.frames, at, &(number as i32).to_be_bytes());
        match &mut self.work {
            Work::Write(writer) => writer.prepare(&mut self.ring, slot, meant),
            Work::Read(reader) => reader.prepare(&mut self.ring),
        }
    }

    /// Records between a reader at the log's end and the high watermark of its last answer; none of others.
    pub fn lag_records(&self) -> Option<i64> {
        match &self.work {
            Work::Write(_) => None,
            Work::Read(reader) => reader.lag_records(),
        }
    }

    /// Whether requests get no answer: they count when the socket has taken them.
    pub fn is_silent(&self) -> bool {
        self.writer().is_some_and(Writer::is_silent)
    }

    /// What frame `number` of a silent lane is worth.
    pub fn assume(&mut self, number: u64) -> Worth {
        match &mut self.work {
            Work::Write(writer) => writer.assume(self.ring.slot(number)),
            Work::Read(_) => Worth::default(),
        }
    }

    /// Whether it is a timed reader.
    pub fn is_timed(&self) -> bool {
        matches!(&self.work, Work::Read(reader) if reader.is_timed())
    }

    /// Whether it is a timed reader that has not yet seen all that was sent.
    pub fn is_behind(&self) -> bool {
        matches!(&self.work, Work::Read(reader) if reader.is_behind())
    }

    /// Checks the answer to frame `number`, without its length. A timed reader tells how long each batch took from its
    /// intended sending.
    pub fn check(
        &mut self,
        number: u64,
        answer: &[u8],
        now: Instant,
        reached: impl FnMut(Duration),
    ) -> Result<Worth> {
        let mut cursor = Cursor::new(answer);
        let correlation = cursor.i32()?;
        ensure!(correlation == number as i32, "answer {correlation} came where {number} was due");
        match &mut self.work {
            Work::Write(writer) => writer.check(self.ring.slot(number), cursor),
            Work::Read(reader) => reader.check(number, cursor, now, reached),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::wire::{BatchView, Frame, Producer};
    use crate::workload::Writing;

    fn lane(partitions: &[usize], writing: &Writing, alone: bool, producer: Producer) -> Lane {
        Lane::produce(writer::Recipe {
            topic: "t",
            writing,
            connection: 0,
            partitions: partitions.iter().map(|partition| (*partition, 0)).collect(),
            partitions_each_topic: usize::MAX,
            alone,
            producer,
            timestamp_ms: 0,
            timelines: Vec::new(),
        })
    }

    fn small(in_flight: usize) -> Lane {
        lane(&[3], &Writing { in_flight, ..Writing::of(2, 10) }, true, Producer::NONE)
    }

    fn answer(number: i32, partition: i32, error: i16, base_offset: i64) -> Vec<u8> {
        let mut frame = Frame::new(0, 0);
        frame.count(1).text("t").count(1).i32(partition).i16(error).i64(base_offset).i64(-1).i64(0).i32(0);
        let body = frame.finish().split_off(4 + 8 + 7);
        [number.to_be_bytes().to_vec(), body].concat()
    }

    fn check(lane: &mut Lane, number: u64, answer: &[u8]) -> Result<Worth> {
        lane.check(number, answer, Instant::now(), |_| {})
    }

    #[test]
    fn the_ring_hands_out_frames_in_order_and_wraps() {
        let mut lane = small(2);
        let length = lane.position(1);
        lane.prepare(0, Instant::now());
        lane.prepare(1, Instant::now());
        assert_eq!(lane.outgoing(0, lane.position(2)).len() as u64, 2 * length);
        lane.prepare(2, Instant::now());
        let third = lane.outgoing(lane.position(2), lane.position(3));
        assert_eq!(&third[8..12], &2i32.to_be_bytes());
        assert_eq!(lane.outgoing(length, 3 * length).len() as u64, length, "stops at the ring's end");
    }

    #[test]
    fn a_wrong_offset_or_a_missing_answer_is_noticed() {
        let mut lane = small(1);
        assert_eq!(check(&mut lane, 0, &answer(0, 3, 0, 0)).unwrap().records, 2);
        assert!(check(&mut lane, 1, &answer(1, 3, 0, 5)).is_err(), "offset 2 is due");
        assert!(check(&mut lane, 1, &answer(7, 3, 0, 2)).is_err(), "correlation id 1 is due");
        assert!(check(&mut lane, 1, &answer(1, 4, 0, 2)).is_err(), "partition 3 was asked for");
        assert_eq!(check(&mut lane, 1, &answer(1, 3, 6, -1)).unwrap().error, 6);
        assert_eq!(check(&mut lane, 2, &answer(2, 3, 0, 2)).unwrap().error, 0);
        assert_eq!(lane.writer().unwrap().acknowledged().collect::<Vec<_>>(), [(3, 4)]);
    }

    #[test]
    fn where_others_write_too_offsets_only_rise() {
        let mut lane = lane(&[3], &Writing::of(2, 10), false, Producer::NONE);
        check(&mut lane, 0, &answer(0, 3, 0, 40)).unwrap();
        assert!(check(&mut lane, 1, &answer(1, 3, 0, 41)).is_err(), "42 is the least");
        check(&mut lane, 1, &answer(1, 3, 0, 90)).unwrap();
        assert_eq!(lane.writer().unwrap().acknowledged().collect::<Vec<_>>(), [(3, 4)]);
    }

    #[test]
    fn every_slot_sends_bytes_of_its_own() {
        assert_eq!(small(5).writer().unwrap().sent().len(), 5);
    }

    #[test]
    fn partitions_come_in_turn_and_a_producer_counts_its_records_in_each() {
        let writing = Writing { idempotent: true, acks: -1, partitions_per_request: 2, ..Writing::of(2, 10) };
        let mut lane = lane(&[7, 8, 9], &writing, true, Producer { id: 1, epoch: 0 });
        let mut seen = Vec::new();
        for number in 0..8 {
            lane.prepare(number, Instant::now());
            let frame = lane.outgoing(lane.position(number), lane.position(number + 1)).to_vec();
            let mut rest = &frame[4 + 8 + 7 + 8 + 4 + 3 + 4..];
            while let Some((head, batches)) = rest.split_at_checked(8) {
                let (batch, after) = BatchView::split(batches).unwrap();
                assert!(batch.crc_holds());
                seen.push((head[3], batch.sequence()));
                rest = after;
            }
        }
        let first = [(7, 0), (8, 0), (9, 0), (7, 2), (8, 2), (9, 2)];
        let second = [(7, 4), (8, 4), (9, 4), (7, 6), (8, 6), (9, 6)];
        assert_eq!(seen, [first, second].concat());
    }

    #[test]
    fn what_is_sent_without_acknowledgement_counts_as_written() {
        let mut lane = lane(&[3], &Writing { acks: 0, ..Writing::of(2, 10) }, true, Producer::NONE);
        assert!(lane.is_silent() && !small(1).is_silent());
        assert_eq!(lane.assume(0).records, 2);
        assert_eq!(lane.writer().unwrap().acknowledged().collect::<Vec<_>>(), [(3, 2)]);
    }
}
