//! The fetch requests of one connection, one at a time for all of its partitions; every answer is checked.

use std::collections::HashSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::timeline::Shared;
use super::{Ring, Worth};
use crate::wire::{self, BatchView, Cursor, Fetched};

/// One answer in this many has the CRC of its first batch checked and its bytes looked up while the clock runs.
const SAMPLE: u64 = 64;
/// The error of an offset below the log start, which retention has moved.
const OFFSET_OUT_OF_RANGE: i16 = 1;

/// What a reader is made of.
pub struct Recipe<'a> {
    /// The topic.
    pub topic: &'a str,
    /// `partition_max_bytes`.
    pub max_bytes: usize,
    /// A batch of this many bytes is answered whole whatever the limit.
    pub batch_bytes_max: usize,
    /// Its partitions, and the offset at which it begins each.
    pub partitions: Vec<(usize, i64)>,
    /// For each partition, when what it reads was meant to be sent; or none for any where it is not timed and goes from
    /// the log's end back to its start.
    pub timelines: Vec<Shared>,
    /// The fingerprints of all that is in the topic.
    pub sent: Rc<HashSet<u64>>,
}

/// Where the reader is in a partition.
struct Progress {
    partition: usize,
    offset_at: usize,
    next: i64,
    /// As the last answer said.
    high_watermark: i64,
    timeline: Option<(Shared, usize)>,
}

/// The state of one connection's fetch requests.
pub struct Reader {
    progress: Vec<Progress>,
    sent: Rc<HashSet<u64>>,
}

impl Reader {
    /// Encodes the request.
    pub fn new(recipe: Recipe<'_>) -> (Ring, Reader) {
        let Recipe { topic, max_bytes, batch_bytes_max, partitions, timelines, sent } = recipe;
        let numbers: Vec<usize> = partitions.iter().map(|(partition, _)| *partition).collect();
        let (frame, offsets_at) = wire::fetch(topic, &numbers, max_bytes);
        let mut ring = Ring::new(1, (max_bytes + 128) * numbers.len() + batch_bytes_max + (1 << 20));
        ring.push(&frame);
        let mut timelines = timelines.into_iter();
        let places = partitions.into_iter().zip(offsets_at);
        let progress = places.map(|((partition, next), offset_at)| {
            let timeline = timelines.next().map(|timeline| {
                let number = timeline.borrow_mut().join();
                (timeline, number)
            });
            Progress { partition, offset_at, next, high_watermark: next, timeline }
        });
        (ring, Reader { progress: progress.collect(), sent })
    }

    /// The request is sent: patches the offsets.
    pub fn prepare(&self, ring: &mut Ring) {
        for progress in &self.progress {
            let place = progress.offset_at..progress.offset_at + 8;
            wire::put(ring.bytes_mut(place), 0, &progress.next.to_be_bytes());
        }
    }

    /// Whether it is told when what it reads was meant to be sent.
    pub fn is_timed(&self) -> bool {
        self.progress.iter().any(|progress| progress.timeline.is_some())
    }

    /// Whether a timed reader has not yet seen all that was sent.
    pub fn is_behind(&self) -> bool {
        self.progress.iter().any(|progress| {
            let end = progress.timeline.as_ref().map(|(timeline, _)| timeline.borrow().offset_end());
            end.is_some_and(|end| progress.next < end)
        })
    }

    /// Records between a timed reader and the high watermarks that its last answer told.
    pub fn lag_records(&self) -> Option<i64> {
        let timed = self.progress.iter().any(|progress| progress.timeline.is_some());
        timed.then(|| self.progress.iter().map(|one| (one.high_watermark - one.next).max(0)).sum())
    }

    /// Checks the answer to request `number`; `reached` is told how long each batch took from its intended sending.
    pub fn check(
        &mut self,
        number: u64,
        answer: Cursor<'_>,
        now: Instant,
        mut reached: impl FnMut(Duration),
    ) -> Result<Worth> {
        let (mut worth, mut answered, sample) = (Worth::default(), 0, number.is_multiple_of(SAMPLE));
        // What an earlier answer promised has to come, at least from one partition; a log start may move under it.
        let mut due = self.progress.iter().any(|one| one.next < one.high_watermark);
        let (progress, sent) = (&mut self.progress, &self.sent);
        let error = wire::read_fetched(answer, |fetched| {
            answered += 1;
            let found =
                progress.iter_mut().find(|one| Ok(one.partition) == usize::try_from(fetched.partition));
            let one = found.with_context(|| format!("partition {} was not asked for", fetched.partition))?;
            if fetched.error == OFFSET_OUT_OF_RANGE && one.timeline.is_none() && one.next < one.high_watermark
            {
                // Retention was faster: the answer at the log's end says where the log starts.
                (one.next, due) = (one.high_watermark, false);
                return Ok(());
            }
            if fetched.error != 0 {
                worth.error = fetched.error;
                return Ok(());
            }
            let sent = sample.then_some(&**sent);
            one.take(fetched, sent, &mut worth, now, &mut reached)
        })?;
        if error != 0 {
            return Ok(Worth { error, ..Worth::default() });
        }
        ensure!(answered == progress.len(), "{answered} partitions answered, {} asked for", progress.len());
        let came = !due || worth.records > 0 || worth.error != 0;
        ensure!(came, "a fetch below the high watermark brought no batch");
        Ok(worth)
    }
}

impl Progress {
    fn take(
        &mut self,
        fetched: Fetched<'_>,
        sent: Option<&HashSet<u64>>,
        worth: &mut Worth,
        now: Instant,
        reached: &mut impl FnMut(Duration),
    ) -> Result<()> {
        let (mut rest, asked, partition) = (fetched.records, self.next, self.partition);
        while let Some((batch, after)) = BatchView::split(rest) {
            let at = batch.base_offset;
            // After a log start that moved, the first batch may hold the offset in its middle.
            let holds = self.next == asked && at < asked && asked < batch.offset_end;
            ensure!(
                at == self.next || holds,
                "{partition}: a batch at offset {at} came where {} is due",
                self.next
            );
            if let Some(sent) = sent.filter(|_| self.next == asked) {
                ensure!(batch.crc_holds(), "{partition}: the batch at offset {at} fails its CRC");
                let known = sent.contains(&wire::fingerprint(batch.bytes));
                ensure!(known, "{partition}: the batch at offset {at} is not one that was sent");
            }
            if let Some((timeline, reader)) = &self.timeline {
                let meant = timeline.borrow_mut().reach(*reader, at)?;
                reached(now.saturating_duration_since(meant));
            }
            self.next = batch.offset_end;
            worth.records += (batch.offset_end - at) as u64;
            worth.bytes += batch.bytes.len() as u64;
            rest = after;
        }
        self.high_watermark = fetched.high_watermark;
        if self.timeline.is_none() && self.next >= fetched.high_watermark {
            self.next = fetched.log_start;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::super::timeline::Timeline;
    use super::*;
    use crate::wire::{Contents, Frame, Payload, Producer};

    /// The answer for one partition: error, high watermark, log start, and batches of two records each.
    fn answer(error: i16, high_watermark: i64, log_start: i64, offsets: &[i64]) -> Vec<u8> {
        let mut records = Vec::new();
        for offset in offsets {
            let mut batch = wire::encode(Contents::plain(2, 10), Producer::NONE, 0, &mut Payload::new(9));
            wire::put(&mut batch, 0, &offset.to_be_bytes());
            records.extend(batch);
        }
        let mut frame = Frame::new(0, 0);
        frame.i32(0).i16(0).i32(0).count(1).text("t").count(1).i32(3).i16(error);
        frame.i64(high_watermark).i64(high_watermark).i64(log_start).count(0).blob(&records);
        frame.finish().split_off(4 + 8 + 7)
    }

    fn reader(next: i64, timelines: Vec<Shared>) -> Reader {
        let batch = wire::encode(Contents::plain(2, 10), Producer::NONE, 0, &mut Payload::new(9));
        let sent = Rc::new(HashSet::from([wire::fingerprint(&batch)]));
        let partitions = vec![(3, next)];
        Reader::new(Recipe { topic: "t", max_bytes: 100, batch_bytes_max: 100, partitions, timelines, sent })
            .1
    }

    fn check(reader: &mut Reader, answer: &[u8]) -> Result<Worth> {
        reader.check(0, Cursor::new(answer), Instant::now(), |_| {})
    }

    #[test]
    fn from_the_end_it_goes_back_to_the_log_start() {
        let mut reader = reader(0, Vec::new());
        assert_eq!(check(&mut reader, &answer(0, 6, 0, &[0, 2])).unwrap().records, 4);
        assert!(check(&mut reader, &answer(0, 6, 0, &[2])).is_err(), "offset 4 is due");
        assert!(check(&mut reader, &answer(0, 6, 0, &[])).is_err(), "there is more below the high watermark");
        assert_eq!(check(&mut reader, &answer(0, 6, 3, &[4])).unwrap().records, 2);
        assert_eq!(reader.progress[0].next, 3);
        assert_eq!(check(&mut reader, &answer(0, 6, 3, &[2, 4])).unwrap().records, 4, "3 lies in a batch");
    }

    #[test]
    fn a_log_start_that_moved_past_it_sends_it_to_the_end() {
        let mut reader = reader(0, Vec::new());
        check(&mut reader, &answer(0, 8, 0, &[0])).unwrap();
        assert_eq!(check(&mut reader, &answer(OFFSET_OUT_OF_RANGE, -1, -1, &[])).unwrap().error, 0);
        assert_eq!(check(&mut reader, &answer(0, 8, 4, &[])).unwrap().error, 0);
        assert_eq!(reader.progress[0].next, 4);
        assert_eq!(check(&mut reader, &answer(6, -1, -1, &[])).unwrap().error, 6);
    }

    #[test]
    fn a_timed_reader_tells_how_long_each_batch_took_and_when_it_has_all() {
        let timeline = Shared::new(Timeline::new(10, 2).into());
        let mut reader = reader(10, vec![Rc::clone(&timeline)]);
        let meant = Instant::now();
        (0..2).for_each(|_| timeline.borrow_mut().send(meant));
        assert!(reader.is_behind());
        let (mut told, later) = (Vec::new(), meant + Duration::from_millis(5));
        let answer = answer(0, 14, 0, &[10, 12]);
        reader.check(0, Cursor::new(&answer), later, |took| told.push(took)).unwrap();
        assert_eq!(told, [Duration::from_millis(5); 2]);
        assert!(!reader.is_behind());
        let moved = super::tests::answer(OFFSET_OUT_OF_RANGE, -1, -1, &[]);
        assert_eq!(check(&mut reader, &moved).unwrap().error, OFFSET_OUT_OF_RANGE, "it lost records");
    }

    #[test]
    fn a_batch_with_other_bytes_is_noticed() {
        let mut damaged = answer(0, 2, 0, &[0]);
        let at = damaged.len() - 3;
        damaged[at] ^= 1;
        assert!(check(&mut reader(0, Vec::new()), &damaged).is_err());
        let mut reader = reader(0, Vec::new());
        reader.sent = Rc::default();
        assert!(check(&mut reader, &answer(0, 2, 0, &[0])).is_err(), "nothing was sent");
    }
}
