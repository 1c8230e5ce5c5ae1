//! Opening one segment: its index ends, the walk over its batches where one is due, and its
//! indexes made again where they are not what the batches say.

use bytes::Bytes;

use super::Quarantine;
use super::index_file::{IndexBuild, LastEntry, OFFSET_ENTRY_BYTES, TIME_ENTRY_BYTES};
use super::machine::{Flow, Recovery};
use super::walk::{Walk, Walked};
use super::whole_read::WholeRead;
use crate::effect::{FileName, FileOp, Stem};
use crate::log::Segment;
use crate::log::batch::BatchInfo;

/// Newest batch boundaries kept of the active segment.
const TAIL_BATCHES: usize = 4096;

#[derive(Debug)]
enum Stage {
    OffsetEnd(LastEntry),
    TimeEnd(LastEntry),
    FirstHeader,
    Walk(Walk),
    Offsets(WholeRead),
    Times(WholeRead),
}

/// One segment being opened.
#[derive(Debug)]
pub(super) struct SegmentWork {
    base: i64,
    length: u64,
    /// Read with checksums; torn bytes may be cut off.
    checked: bool,
    /// Indexes are made again.
    rebuild: bool,
    /// The walk does not begin at the segment's start.
    tail_only: bool,
    /// The batch before the next one was read too, or there is none.
    unbroken: bool,
    /// Bytes of entries and the last one, as the files say.
    offset_end: (u64, Option<(i64, i64)>),
    time_end: (u64, Option<(i64, i64)>),
    build: IndexBuild,
    first_timestamp_ms: i64,
    log_end: i64,
    stage: Stage,
}

impl SegmentWork {
    pub(super) fn new(recovery: &Recovery, base: i64, checked: bool, rebuild: bool) -> Self {
        let config = &recovery.plan.config;
        let index = Stem::OffsetIndex(base);
        let index_bytes = recovery.length_of(index).unwrap_or(0);
        Self {
            base,
            length: recovery.length_of(Stem::Log(base)).unwrap_or(0),
            checked,
            rebuild,
            tail_only: false,
            unbroken: false,
            offset_end: (0, None),
            time_end: (0, None),
            build: IndexBuild::new(base, config.index_interval_bytes, config.segment_index_bytes),
            first_timestamp_ms: -1,
            log_end: base,
            stage: Stage::OffsetEnd(LastEntry::new(index.into(), OFFSET_ENTRY_BYTES, index_bytes)),
        }
    }

    fn is_last(&self, recovery: &Recovery) -> bool {
        recovery.bases.last() == Some(&self.base)
    }

    /// Goes on; `None` when the machine has another state to go on in.
    pub(super) fn advance(&mut self, recovery: &mut Recovery, bytes: Option<Bytes>) -> Option<Flow> {
        match &mut self.stage {
            Stage::OffsetEnd(search) => {
                if let Some(bytes) = bytes {
                    search.feed(bytes);
                }
                if let Some(op) = search.next() {
                    return Some(Flow::Op(op));
                }
                self.offset_end = search.found();
                let index = Stem::TimeIndex(self.base);
                let length = recovery.length_of(index).unwrap_or(0);
                self.stage = Stage::TimeEnd(LastEntry::new(index.into(), TIME_ENTRY_BYTES, length));
                Some(Flow::Again)
            }
            Stage::TimeEnd(search) => {
                if let Some(bytes) = bytes {
                    search.feed(bytes);
                }
                if let Some(op) = search.next() {
                    return Some(Flow::Op(op));
                }
                self.time_end = search.found();
                self.begin_walk(recovery)
            }
            Stage::FirstHeader => self.read_first_header(recovery, bytes),
            Stage::Walk(walk) => {
                if let Some(bytes) = bytes {
                    walk.feed(bytes);
                }
                self.walk(recovery)
            }
            Stage::Offsets(read) => {
                if let Some(bytes) = bytes {
                    read.feed(&bytes);
                }
                if let Some(op) = read.next() {
                    return Some(Flow::Op(op));
                }
                let read = std::mem::replace(read, WholeRead::new(Stem::TimeIndex(self.base).into(), 0));
                self.compare_offsets(recovery, read)
            }
            Stage::Times(read) => {
                if let Some(bytes) = bytes {
                    read.feed(&bytes);
                }
                if let Some(op) = read.next() {
                    return Some(Flow::Op(op));
                }
                let read = std::mem::replace(read, WholeRead::new(Stem::TimeIndex(self.base).into(), 0));
                self.compare_times(recovery, read)
            }
        }
    }

    /// The last index entry as (last offset of a batch, its position), if it can be one.
    fn last_offset_entry(&self) -> Option<(i64, u64)> {
        let (relative, position) = self.offset_end.1?;
        let position = u64::try_from(position).ok().filter(|position| (1..self.length).contains(position))?;
        let offset = (relative >= 0).then(|| self.base.checked_add(relative))??;
        Some((offset, position))
    }

    fn last_time_entry(&self) -> Option<(i64, i64)> {
        let (timestamp, relative) = self.time_end.1?;
        let offset = (timestamp >= 0 && relative >= 0).then(|| self.base.checked_add(relative))??;
        Some((timestamp, offset))
    }

    /// Whether the indexes can be what appends and rolls left: there, of whole entries, their
    /// ends possible, and with entries where a sealed segment must have some.
    fn indexes_are_sound(&self, recovery: &Recovery, is_last: bool) -> bool {
        let whole = |stem, entry_bytes| {
            recovery.length_of(stem).is_some_and(|length: u64| length.is_multiple_of(entry_bytes))
        };
        let interval = recovery.plan.config.index_interval_bytes;
        let offsets_end = match self.offset_end.1 {
            Some(_) => self.last_offset_entry().is_some(),
            None => is_last || self.length <= interval,
        };
        let times_end = match self.time_end.1 {
            Some(_) => self.last_time_entry().is_some(),
            None => is_last || self.length == 0,
        };
        whole(Stem::OffsetIndex(self.base), OFFSET_ENTRY_BYTES)
            && whole(Stem::TimeIndex(self.base), TIME_ENTRY_BYTES)
            && offsets_end
            && times_end
    }

    fn begin_walk(&mut self, recovery: &mut Recovery) -> Option<Flow> {
        let is_last = self.is_last(recovery);
        let sound = self.indexes_are_sound(recovery, is_last);
        let distrusted = is_last && recovery.index_distrusted;
        if self.checked {
            self.rebuild = true;
            let hint = self.last_offset_entry().map_or(0, |(_, position)| position);
            let believed = recovery.plan.same_boot && !distrusted;
            return self.start_walk(recovery, 0, if believed { hint } else { 0 });
        }
        if !sound || distrusted || self.rebuild {
            self.rebuild = true;
            return self.start_walk(recovery, 0, u64::MAX);
        }
        if is_last && !recovery.epochs_from_batches {
            let (_, position) = self.last_offset_entry().unwrap_or((0, 0));
            if position == 0 {
                return self.start_walk(recovery, 0, u64::MAX);
            }
            self.tail_only = true;
            self.stage = Stage::FirstHeader;
            return Some(Flow::Again);
        }
        let next = recovery.bases.iter().copied().find(|base| *base > self.base).unwrap_or(i64::MAX);
        if recovery.replay_from < next || recovery.epochs_from_batches {
            return self.start_walk(recovery, 0, u64::MAX);
        }
        let max_timestamp = self.last_time_entry().unwrap_or((-1, -1));
        recovery.unbroken = false;
        self.give(recovery, self.length, self.offset_end.0, self.time_end.0, max_timestamp);
        None
    }

    fn start_walk(&mut self, recovery: &Recovery, position: u64, check_from: u64) -> Option<Flow> {
        self.build.clear();
        if !self.rebuild {
            self.build.max_timestamp = self.last_time_entry().unwrap_or((-1, -1));
        }
        self.unbroken = position == 0 && recovery.unbroken;
        let log = FileName::from(Stem::Log(self.base));
        let walk = Walk::new(log, self.base, self.length, position, self.base, check_from);
        self.stage = Stage::Walk(walk.up_to(recovery.ceiling()));
        Some(Flow::Again)
    }

    fn read_first_header(&mut self, recovery: &Recovery, bytes: Option<Bytes>) -> Option<Flow> {
        let Some(bytes) = bytes else {
            let file = FileName::from(Stem::Log(self.base));
            return Some(Flow::Op(FileOp::Read { file, position: 0, length: 61 }));
        };
        if let Ok(header) = BatchInfo::parse(&bytes) {
            self.first_timestamp_ms = header.max_timestamp_ms;
        }
        let (_, position) = self.last_offset_entry().unwrap_or((0, 0));
        self.start_walk(recovery, position, u64::MAX)
    }

    fn walk(&mut self, recovery: &mut Recovery) -> Option<Flow> {
        loop {
            let Stage::Walk(walk) = &mut self.stage else { panic!("the segment is not being walked") };
            match walk.next() {
                Walked::Read(op) => return Some(Flow::Op(op)),
                Walked::Batch { header, position, bytes } => {
                    if !self.take_batch(recovery, &header, position, &bytes) {
                        return None;
                    }
                }
                Walked::End if self.ends_too_early(recovery) => {
                    return self.meet_fault(recovery, "batches before the next segment are missing");
                }
                Walked::End => return self.end_walk(recovery),
                Walked::Ceiling => return self.truncate(recovery),
                Walked::Fault(_) if self.tail_only => {
                    // Either the index or the log is wrong: the walk from the start tells.
                    recovery.distrust_index();
                    return None;
                }
                Walked::Fault(reason) => return self.meet_fault(recovery, reason),
                Walked::Misaligned => {
                    recovery.distrust_index();
                    return None;
                }
            }
        }
    }

    /// A power cut can take the end of a segment, at a batch's border, and leave the segment behind it. Compaction
    /// leaves such a hole on purpose, below what is synced.
    fn ends_too_early(&self, recovery: &Recovery) -> bool {
        let Stage::Walk(walk) = &self.stage else { return false };
        let next = recovery.bases.iter().find(|base| **base > self.base);
        let may_be_compacted = recovery.plan.config.cleanup_policy.compact
            && next.is_some_and(|next| *next <= recovery.plan.recovery_point);
        self.checked && !may_be_compacted && next.is_some_and(|next| walk.offset_next() < *next)
    }

    /// Notes a batch; false when the machine begins again.
    fn take_batch(
        &mut self,
        recovery: &mut Recovery,
        header: &BatchInfo,
        position: u64,
        bytes: &[u8],
    ) -> bool {
        if let Some((offset, at)) = self.last_offset_entry()
            && !self.rebuild
            && self.is_last(recovery)
            && (position..position + u64::from(header.length_bytes)).contains(&at)
            && (at, offset) != (position, header.last_offset())
        {
            recovery.distrust_index();
            return false;
        }
        if !self.take_epoch(recovery, header) {
            return false;
        }
        self.unbroken = true;
        self.build.add(header, position);
        if position == 0 {
            self.first_timestamp_ms = header.max_timestamp_ms;
        }
        if !self.tail_only && header.last_offset() >= recovery.replay_from {
            recovery.producers.replay_whole(header, bytes);
        }
        if recovery.active.tail.len() == TAIL_BATCHES {
            recovery.active.tail.pop_front();
        }
        recovery.active.tail.push_back((header.last_offset(), position));
        true
    }

    /// Notes the epoch of a batch; false when the checkpoint contradicts it and the machine begins again.
    fn take_epoch(&mut self, recovery: &mut Recovery, header: &BatchInfo) -> bool {
        let (epoch, offset) = (header.leader_epoch, header.base_offset);
        let known = recovery.epochs.epoch_at(offset);
        let is_new = epoch > recovery.epochs.latest().map_or(-1, |entry| entry.epoch);
        // A batch from before leader epochs says nothing, and one before the log start is not in the checkpoint.
        let contradicts = !is_new && epoch >= 0 && known.is_some_and(|known| known != epoch);
        if !recovery.epochs_from_batches && (contradicts || is_new && !self.unbroken) {
            // A new epoch behind unread batches may have begun among them.
            recovery.distrust_epochs();
            return false;
        }
        if is_new {
            recovery.epochs.assign(epoch, offset);
        }
        true
    }

    /// Bytes that are no batch: cut off where nothing promised them, else reported.
    fn meet_fault(&mut self, recovery: &mut Recovery, reason: &'static str) -> Option<Flow> {
        let Stage::Walk(walk) = &self.stage else { panic!("the segment is not being walked") };
        let (position, offset) = (walk.position(), walk.offset_next());
        if position < walk.check_from() && self.checked {
            // A fault where the page cache was believed: the batches before it are not believed either.
            recovery.distrust_index();
            return None;
        }
        if !self.checked || offset < recovery.plan.recovery_point {
            recovery.quarantined = Some(Quarantine { base_offset: self.base, position, offset, reason });
            recovery.bases.retain(|base| *base <= self.base);
            self.log_end = offset;
            let max_timestamp = self.build.max_timestamp;
            self.give(recovery, position, 0, 0, max_timestamp);
            return None;
        }
        recovery.cut(self.base, position);
        self.length = position;
        self.end_walk(recovery)
    }

    /// The batch that comes next is to go, with everything behind it.
    fn truncate(&mut self, recovery: &mut Recovery) -> Option<Flow> {
        let Stage::Walk(walk) = &self.stage else { panic!("the segment is not being walked") };
        let position = walk.position();
        // Nothing of it is damaged.
        let damaged_bytes = recovery.truncated_bytes;
        recovery.cut(self.base, position);
        recovery.truncated_bytes = damaged_bytes;
        self.length = position;
        self.end_walk(recovery)
    }

    fn end_walk(&mut self, recovery: &mut Recovery) -> Option<Flow> {
        let Stage::Walk(walk) = &self.stage else { panic!("the segment is not being walked") };
        self.length = walk.position();
        self.log_end = walk.offset_next();
        if !self.tail_only && self.length > 0 {
            recovery.unbroken = self.unbroken;
        }
        let is_last = self.is_last(recovery);
        if self.tail_only && self.log_end > recovery.replay_from {
            // The snapshot is older than the log's end: the producers need the whole segment.
            self.tail_only = false;
            recovery.active.tail.clear();
            return self.start_walk(recovery, 0, u64::MAX);
        }
        if !self.rebuild {
            let max_timestamp = self.build.max_timestamp;
            self.give(recovery, self.length, self.offset_end.0, self.time_end.0, max_timestamp);
            return None;
        }
        if !is_last {
            self.build.seal();
        }
        if self.checked && !recovery.plan.same_boot {
            recovery.change(FileOp::Sync { file: Stem::Log(self.base).into() });
        }
        let stem = Stem::OffsetIndex(self.base);
        let same_length = recovery.length_of(stem) == Some(self.build.offsets.len() as u64);
        let length = if same_length { self.build.offsets.len() as u64 } else { 0 };
        self.stage = Stage::Offsets(WholeRead::new(stem.into(), length));
        Some(Flow::Again)
    }

    fn compare_offsets(&mut self, recovery: &mut Recovery, read: WholeRead) -> Option<Flow> {
        let stem = Stem::OffsetIndex(self.base);
        if recovery.length_of(stem).is_none()
            || read.into_bytes() != self.build.offsets
            || recovery.length_of(stem) != Some(self.build.offsets.len() as u64)
        {
            recovery.replace(stem.into(), Bytes::copy_from_slice(&self.build.offsets));
        }
        let stem = Stem::TimeIndex(self.base);
        let same_length = recovery.length_of(stem) == Some(self.build.times.len() as u64);
        let length = if same_length { self.build.times.len() as u64 } else { 0 };
        self.stage = Stage::Times(WholeRead::new(stem.into(), length));
        Some(Flow::Again)
    }

    fn compare_times(&mut self, recovery: &mut Recovery, read: WholeRead) -> Option<Flow> {
        let stem = Stem::TimeIndex(self.base);
        if read.into_bytes() != self.build.times
            || recovery.length_of(stem) != Some(self.build.times.len() as u64)
        {
            recovery.replace(stem.into(), Bytes::copy_from_slice(&self.build.times));
        }
        let (index_bytes, time_bytes) = (self.build.offsets.len() as u64, self.build.times.len() as u64);
        let max_timestamp = self.build.max_timestamp;
        self.give(recovery, self.length, index_bytes, time_bytes, max_timestamp);
        None
    }

    /// Hands the opened segment over.
    fn give(
        &mut self,
        recovery: &mut Recovery,
        length: u64,
        index: u64,
        time_index: u64,
        newest: (i64, i64),
    ) {
        let quarantined = recovery.quarantined.is_some();
        let (offset_entry, time_entry) = match (self.rebuild, quarantined) {
            (_, true) => (None, None),
            (true, false) => (self.build.last_offset_entry, self.build.last_time_entry),
            (false, false) => (self.last_offset_entry(), self.last_time_entry()),
        };
        recovery.active.last_index_entry = offset_entry;
        recovery.active.last_time_index_entry = time_entry;
        recovery.active.bytes_since_index_entry = length - offset_entry.map_or(0, |(_, position)| position);
        if !self.is_last(recovery) {
            recovery.active.tail.clear();
        }
        let segment = Segment {
            base_offset: self.base,
            length_bytes: length,
            index_bytes: index,
            time_index_bytes: time_index,
            max_timestamp_ms: newest.0,
            max_timestamp_offset: newest.1,
            first_timestamp_ms: self.first_timestamp_ms,
            modified_ms: -1,
        };
        recovery.take_segment(segment, self.log_end);
    }
}
