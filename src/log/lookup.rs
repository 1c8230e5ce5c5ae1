//! Finding batches: by offset for a fetch, by timestamp for ListOffsets.
//!
//! A lookup is a small machine: each step either asks for one bounded read or gives its answer. A
//! fetch at the tail is answered at once from memory. Others go from the index entry at or before
//! the target (binary search by 4 KiB pages) through batch headers to the batch, as in Kafka's
//! `LogSegment.translateOffset` and `findOffsetByTimestamp`. If offsets are taken back meanwhile,
//! or the segment goes, the lookup starts again.

use super::batch::{BatchInfo, HEADER_BYTES, crc_holds};
use super::codec::Codec;
use super::search::{CORRUPT, IndexSearch, first_record};
use super::{Log, LogPosition, Segment, index};
use crate::effect::{FileDone, FileError, FileOp, FileResult, Stem};

/// What one step of a walk reads: enough for the headers of an index interval of small batches.
const WALK_BYTES: u64 = 4096 + HEADER_BYTES as u64;

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// The batches from `offset` on.
    Fetch {
        /// A batch that contains it comes whole.
        offset: i64,
        /// The span has at most this many bytes, unless its first batch has more.
        max_bytes: u64,
        /// No byte at or behind it is given: high watermark, last stable offset or log end.
        end: LogPosition,
    },
    /// Those batches of a fetch's span that a reader without zstd can read.
    UpToZstd {
        /// What the fetch found.
        span: Span,
    },
    /// The first record with that timestamp or a later one.
    Timestamp {
        /// Milliseconds since the Unix epoch.
        timestamp_ms: i64,
        /// A record at or behind it does not count.
        end_offset: i64,
    },
    /// The first record with the largest timestamp.
    MaxTimestamp {
        /// A record at or behind it does not count.
        end_offset: i64,
    },
}

/// Bytes of one segment, starting with a whole batch; the last batch may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Base offset of the segment.
    pub segment_base_offset: i64,
    /// Position of the first byte in its `.log` file.
    pub position: u64,
    /// Bytes; at least those of the first batch.
    pub length: u64,
    /// Bytes of the first batch.
    pub first_batch_bytes: u64,
}

/// What a lookup found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Batches for a fetch.
    Span(Span),
    /// A fetch at or behind its end: nothing yet.
    Empty,
    /// The first batch of the span is compressed with zstd.
    Zstd,
    /// A record.
    Offset {
        /// Its offset.
        offset: i64,
        /// Its timestamp.
        timestamp_ms: i64,
        /// Leader epoch under which it was appended.
        leader_epoch: i32,
    },
    /// No record has such a timestamp.
    None,
}

/// What a step of a lookup gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupStep {
    /// Carry this out under a ticket from [`Log::read_ticket`]; its result is the next step's.
    Read(FileOp),
    /// The answer.
    Found(Found),
    /// The offset is below the log start or behind the log end.
    OutOfRange,
    /// A read failed, or the bytes are not what the log wrote (errno 74, `EBADMSG`).
    Failed(FileError),
}

/// A lookup under way.
#[derive(Clone, Debug)]
pub struct Lookup {
    query: Query,
    generation: u32,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Answered, or not begun.
    Idle,
    /// The time index of a segment is searched for an offset.
    TimeIndex(i64, IndexSearch),
    /// The offset index of a segment is searched for a position.
    OffsetIndex(i64, IndexSearch),
    /// Batch headers are read.
    Walk(Walk),
    /// A batch is read whole.
    Batch(Walk),
}

/// A place among the batches of a segment.
#[derive(Clone, Copy, Debug)]
struct Walk {
    segment_base_offset: i64,
    /// Position of the next header.
    position: u64,
}

/// What the walk is to do with a batch.
enum Verdict {
    Skip,
    Take,
    Inspect,
}

impl Log {
    /// Begins a lookup.
    pub fn lookup(&self, query: Query) -> (Lookup, LookupStep) {
        let mut lookup = Lookup { query, generation: self.generation, stage: Stage::Idle };
        let step = self.begin(&mut lookup);
        (lookup, step)
    }

    /// Whether a batch at or behind this offset may be compressed with zstd. Where none is, readers that do not know
    /// it need no walk over the headers of what they get ([`Query::UpToZstd`]).
    pub fn may_hold_zstd(&self, from_offset: i64) -> bool {
        from_offset < self.zstd_end
    }

    /// Takes the result of the read that the last step asked for.
    pub fn lookup_next(&self, lookup: &mut Lookup, result: FileResult) -> LookupStep {
        let (base, stage) = match lookup.stage {
            Stage::Idle => return LookupStep::Found(Found::None),
            Stage::TimeIndex(base, _) | Stage::OffsetIndex(base, _) => (base, lookup.stage),
            Stage::Walk(walk) | Stage::Batch(walk) => (walk.segment_base_offset, lookup.stage),
        };
        let holds = lookup.generation == self.generation && !self.is_truncating();
        let Some(segment) = self.segment_at(base).filter(|_| holds) else {
            lookup.generation = self.generation;
            return self.begin(lookup);
        };
        lookup.stage = Stage::Idle;
        let bytes = match result {
            Ok(FileDone::Bytes(bytes)) => bytes,
            Ok(_) => return LookupStep::Failed(CORRUPT),
            Err(error) => return LookupStep::Failed(error),
        };
        match stage {
            Stage::Idle => LookupStep::Failed(CORRUPT),
            Stage::TimeIndex(_, mut search) => {
                match search.take(&bytes, |entry| index::time_entry(entry, base)) {
                    Ok(()) => self.search_time(lookup, segment, search),
                    Err(error) => LookupStep::Failed(error),
                }
            }
            Stage::OffsetIndex(_, mut search) => {
                let entry =
                    |entry: &[u8]| index::offset_entry(entry, base).map(|(offset, at)| (offset, at as i64));
                match search.take(&bytes, entry) {
                    Ok(()) => self.search_offset(lookup, segment, search),
                    Err(error) => LookupStep::Failed(error),
                }
            }
            Stage::Walk(walk) => self.walk_headers(lookup, segment, walk, &bytes),
            Stage::Batch(walk) => self.inspect(lookup, segment, walk, &bytes),
        }
    }

    fn begin(&self, lookup: &mut Lookup) -> LookupStep {
        lookup.stage = Stage::Idle;
        match lookup.query {
            // The files are being cut.
            Query::Fetch { .. } | Query::UpToZstd { .. } if self.is_truncating() => {
                LookupStep::Found(Found::Empty)
            }
            _ if self.is_truncating() => LookupStep::Found(Found::None),
            Query::Fetch { offset, end, .. } => {
                let log_end = self.log_end().max(end.offset);
                if offset < self.log_start_offset || offset > log_end {
                    return LookupStep::OutOfRange;
                }
                if offset >= end.offset {
                    return LookupStep::Found(Found::Empty);
                }
                let at = self.segments.partition_point(|segment| segment.base_offset <= offset);
                match at.checked_sub(1).and_then(|at| self.segments.get(at)) {
                    Some(segment) => self.begin_in(lookup, segment),
                    None => LookupStep::OutOfRange,
                }
            }
            Query::UpToZstd { span } => match self.segment_at(span.segment_base_offset) {
                Some(segment) => self.walk(lookup, segment, span.position, WALK_BYTES),
                None => LookupStep::Found(Found::Empty),
            },
            Query::Timestamp { timestamp_ms, .. } => {
                let hit = self.segments.iter().find(|segment| segment.max_timestamp_ms >= timestamp_ms);
                match hit.filter(|segment| segment.length_bytes > 0) {
                    Some(segment) => self.begin_in(lookup, segment),
                    None => LookupStep::Found(Found::None),
                }
            }
            Query::MaxTimestamp { .. } => {
                // The first of those with the largest one.
                let latest = self.segments.iter().rev().max_by_key(|segment| segment.max_timestamp_ms);
                match latest.filter(|segment| segment.max_timestamp_ms >= 0) {
                    Some(segment) => self.begin_in(lookup, segment),
                    None => LookupStep::Found(Found::None),
                }
            }
        }
    }

    fn begin_in(&self, lookup: &mut Lookup, segment: &Segment) -> LookupStep {
        match lookup.query {
            Query::Fetch { offset, max_bytes, end } => {
                let active = segment.base_offset == self.written.base_offset;
                let hit =
                    self.tail.find(offset, self.written.position, segment.base_offset).filter(|_| active);
                match hit {
                    Some(batch) => {
                        let length = batch.position_end - batch.position;
                        span(segment, batch.position, length, max_bytes, &end)
                    }
                    None => self.begin_offset(lookup, segment, offset),
                }
            }
            Query::UpToZstd { span } => self.walk(lookup, segment, span.position, WALK_BYTES),
            Query::Timestamp { timestamp_ms, .. } => {
                let waiting = self.waiting_floor(segment, &self.pending_index.times, timestamp_ms);
                match waiting {
                    Some(offset) => self.begin_offset(lookup, segment, offset.max(self.log_start_offset)),
                    None => {
                        let search = IndexSearch::times(segment.time_index_bytes, timestamp_ms);
                        self.search_time(lookup, segment, search)
                    }
                }
            }
            Query::MaxTimestamp { .. } => self.begin_offset(lookup, segment, segment.max_timestamp_offset),
        }
    }

    /// The value of the newest waiting index entry at or before `key`, in the active segment.
    fn waiting_floor<V: Copy>(&self, segment: &Segment, entries: &[(i64, V)], key: i64) -> Option<V> {
        if segment.base_offset != self.written.base_offset {
            return None;
        }
        let after = entries.partition_point(|(at, _)| *at <= key);
        entries.get(after.checked_sub(1)?).map(|(_, value)| *value)
    }

    fn search_time(&self, lookup: &mut Lookup, segment: &Segment, search: IndexSearch) -> LookupStep {
        if let Some(op) = search.read(Stem::TimeIndex(segment.base_offset).into()) {
            lookup.stage = Stage::TimeIndex(segment.base_offset, search);
            return LookupStep::Read(op);
        }
        let offset = search.found().unwrap_or(segment.base_offset);
        self.begin_offset(lookup, segment, offset.max(self.log_start_offset))
    }

    fn begin_offset(&self, lookup: &mut Lookup, segment: &Segment, offset: i64) -> LookupStep {
        match self.waiting_floor(segment, &self.pending_index.offsets, offset) {
            Some(position) => self.walk(lookup, segment, position, WALK_BYTES),
            None => self.search_offset(lookup, segment, IndexSearch::offsets(segment.index_bytes, offset)),
        }
    }

    fn search_offset(&self, lookup: &mut Lookup, segment: &Segment, search: IndexSearch) -> LookupStep {
        if let Some(op) = search.read(Stem::OffsetIndex(segment.base_offset).into()) {
            lookup.stage = Stage::OffsetIndex(segment.base_offset, search);
            return LookupStep::Read(op);
        }
        let position = search.found().unwrap_or(0);
        self.walk(lookup, segment, position.cast_unsigned(), WALK_BYTES)
    }

    /// Reads the header at a position, with some of what follows; at the end of the segment it
    /// goes on in the next one.
    fn walk(&self, lookup: &mut Lookup, segment: &Segment, position: u64, length: u64) -> LookupStep {
        if position > segment.length_bytes {
            return LookupStep::Failed(CORRUPT);
        }
        let left = segment.length_bytes - position;
        if left == 0 {
            return self.walk_on(lookup, segment);
        }
        let length = length.min(left);
        let walk = Walk { segment_base_offset: segment.base_offset, position };
        lookup.stage = Stage::Walk(walk);
        let file = Stem::Log(segment.base_offset).into();
        LookupStep::Read(FileOp::Read { file, position, length })
    }

    /// No batch of this segment answers: the next one that can is tried.
    fn walk_on(&self, lookup: &mut Lookup, segment: &Segment) -> LookupStep {
        let at = self.segments.partition_point(|other| other.base_offset <= segment.base_offset);
        let mut later = self.segments.iter().skip(at).filter(|segment| segment.length_bytes > 0);
        let next = match lookup.query {
            Query::Fetch { .. } => later.next(),
            Query::Timestamp { timestamp_ms, .. } => {
                later.find(|segment| segment.max_timestamp_ms >= timestamp_ms)
            }
            Query::MaxTimestamp { .. } | Query::UpToZstd { .. } => None,
        };
        match (next, lookup.query) {
            (_, Query::UpToZstd { span }) => LookupStep::Found(Found::Span(span)),
            (Some(next), _) => self.walk(lookup, next, 0, WALK_BYTES),
            (None, Query::Fetch { .. }) => LookupStep::Found(Found::Empty),
            (None, _) => LookupStep::Found(Found::None),
        }
    }

    fn walk_headers(&self, lookup: &mut Lookup, segment: &Segment, walk: Walk, bytes: &[u8]) -> LookupStep {
        let mut position = walk.position;
        let mut rest = bytes;
        let mut last_length = 0;
        loop {
            if let Query::UpToZstd { span } = lookup.query
                && position >= span.position + span.length
            {
                return LookupStep::Found(Found::Span(span));
            }
            if rest.len() < HEADER_BYTES {
                if position == walk.position {
                    return LookupStep::Failed(CORRUPT);
                }
                // Behind a batch that is larger than the read, only the next header is read.
                let length = if last_length > WALK_BYTES { HEADER_BYTES as u64 } else { WALK_BYTES };
                return self.walk(lookup, segment, position, length);
            }
            let Ok(info) = BatchInfo::parse(rest) else { return LookupStep::Failed(CORRUPT) };
            let length = u64::from(info.length_bytes);
            if info.base_offset < segment.base_offset || position + length > segment.length_bytes {
                return LookupStep::Failed(CORRUPT);
            }
            match self.verdict(&lookup.query, segment, &info) {
                Verdict::Skip => {}
                Verdict::Take => return taken(&lookup.query, segment, position, length),
                Verdict::Inspect => {
                    let walk = Walk { segment_base_offset: segment.base_offset, position };
                    lookup.stage = Stage::Batch(walk);
                    let file = Stem::Log(segment.base_offset).into();
                    return LookupStep::Read(FileOp::Read { file, position, length });
                }
            }
            position += length;
            last_length = length;
            rest = usize::try_from(length).ok().and_then(|length| rest.get(length..)).unwrap_or_default();
        }
    }

    fn verdict(&self, query: &Query, segment: &Segment, info: &BatchInfo) -> Verdict {
        match *query {
            Query::Fetch { offset, .. } if info.last_offset() >= offset => Verdict::Take,
            Query::UpToZstd { .. } if info.codec() == Ok(Codec::Zstd) => Verdict::Take,
            Query::Timestamp { timestamp_ms, .. }
                if info.max_timestamp_ms >= timestamp_ms && info.last_offset() >= self.log_start_offset =>
            {
                Verdict::Inspect
            }
            Query::MaxTimestamp { .. } if info.last_offset() >= segment.max_timestamp_offset => {
                Verdict::Inspect
            }
            _ => Verdict::Skip,
        }
    }

    /// Looks for the record inside a batch.
    fn inspect(&self, lookup: &mut Lookup, segment: &Segment, walk: Walk, bytes: &[u8]) -> LookupStep {
        let info = match BatchInfo::parse(bytes) {
            Ok(info) if crc_holds(bytes, &info) => info,
            _ => return LookupStep::Failed(CORRUPT),
        };
        let (timestamp_ms, end_offset) = match lookup.query {
            Query::Timestamp { timestamp_ms, end_offset } => (timestamp_ms, end_offset),
            Query::MaxTimestamp { end_offset } => (info.max_timestamp_ms, end_offset),
            Query::Fetch { .. } | Query::UpToZstd { .. } => return LookupStep::Failed(CORRUPT),
        };
        match first_record(bytes, &info, timestamp_ms, self.log_start_offset) {
            Err(error) => LookupStep::Failed(error),
            Ok(Some((offset, timestamp_ms))) if offset < end_offset => {
                let leader_epoch = info.leader_epoch;
                LookupStep::Found(Found::Offset { offset, timestamp_ms, leader_epoch })
            }
            Ok(Some(_)) => LookupStep::Found(Found::None),
            Ok(None) => self.walk(lookup, segment, walk.position + u64::from(info.length_bytes), WALK_BYTES),
        }
    }

    /// Where an offset lies, if memory knows it: a batch boundary of the tail, the start of a
    /// segment, or one of the three tails.
    pub fn position_of(&self, offset: i64) -> Option<LogPosition> {
        let known = [self.written.log_position(), self.durable];
        if let Some(known) = known.into_iter().find(|known| known.offset == offset) {
            return Some(known);
        }
        if let Some(segment) = self.segment_at(offset) {
            return Some(LogPosition { offset, segment_base_offset: segment.base_offset, position: 0 });
        }
        let base = self.written.base_offset;
        let batch = self.tail.find(offset, self.written.position, base)?;
        let position = LogPosition { offset, segment_base_offset: base, position: batch.position };
        Some(position).filter(|_| batch.starts_at == offset && offset >= base)
    }

    fn segment_at(&self, base_offset: i64) -> Option<&Segment> {
        let at = self.segments.binary_search_by_key(&base_offset, |segment| segment.base_offset);
        at.ok().and_then(|at| self.segments.get(at))
    }
}

/// The answer at the batch that decides it.
fn taken(query: &Query, segment: &Segment, position: u64, batch_bytes: u64) -> LookupStep {
    match *query {
        Query::Fetch { max_bytes, end, .. } => span(segment, position, batch_bytes, max_bytes, &end),
        Query::UpToZstd { span } if position > span.position => {
            LookupStep::Found(Found::Span(Span { length: position - span.position, ..span }))
        }
        Query::UpToZstd { .. } => LookupStep::Found(Found::Zstd),
        Query::Timestamp { .. } | Query::MaxTimestamp { .. } => LookupStep::Found(Found::None),
    }
}

fn span(
    segment: &Segment,
    position: u64,
    first_batch_bytes: u64,
    max_bytes: u64,
    end: &LogPosition,
) -> LookupStep {
    let limit = match segment.base_offset.cmp(&end.segment_base_offset) {
        std::cmp::Ordering::Less => segment.length_bytes,
        std::cmp::Ordering::Equal => end.position.min(segment.length_bytes),
        std::cmp::Ordering::Greater => 0,
    };
    if position + first_batch_bytes > limit {
        return LookupStep::Found(Found::Empty);
    }
    let length = max_bytes.max(first_batch_bytes).min(limit - position);
    let segment_base_offset = segment.base_offset;
    LookupStep::Found(Found::Span(Span { segment_base_offset, position, length, first_batch_bytes }))
}
