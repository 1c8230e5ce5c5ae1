//! The `.index` and `.timeindex` of one segment: where their entries end, and how they are made
//! again from the batches.

use bytes::Bytes;

use crate::effect::{FileName, FileOp};
use crate::log::batch::BatchInfo;

/// Bytes of an `.index` entry: relative offset, position.
pub(super) const OFFSET_ENTRY_BYTES: u64 = 8;
/// Bytes of a `.timeindex` entry: timestamp, relative offset.
pub(super) const TIME_ENTRY_BYTES: u64 = 12;

/// Finds the last entry of a file that may end in preallocated zeros, by halving.
#[derive(Debug)]
pub(super) struct LastEntry {
    file: FileName,
    entry_bytes: u64,
    /// All entries below are taken to be there, all from `high` on are zero.
    low: u64,
    high: u64,
    probe: u64,
    last: Option<Bytes>,
}

impl LastEntry {
    pub(super) fn new(file: FileName, entry_bytes: u64, length: u64) -> Self {
        let high = length / entry_bytes;
        Self { file, entry_bytes, low: 0, high, probe: high.saturating_sub(1), last: None }
    }

    /// The next read, until the end is found.
    pub(super) fn next(&self) -> Option<FileOp> {
        let position = self.probe * self.entry_bytes;
        (self.low < self.high).then_some(FileOp::Read { file: self.file, position, length: self.entry_bytes })
    }

    pub(super) fn feed(&mut self, bytes: Bytes) {
        let whole = bytes.len() as u64 == self.entry_bytes;
        if whole && bytes.iter().any(|byte| *byte != 0) {
            self.low = self.probe + 1;
            self.last = Some(bytes);
        } else {
            self.high = self.probe;
        }
        self.probe = self.low + (self.high - self.low) / 2;
    }

    /// Bytes of entries, and the last one as a number pair: (relative offset, position) or
    /// (timestamp, relative offset).
    pub(super) fn found(&self) -> (u64, Option<(i64, i64)>) {
        let entry = self.last.as_deref().and_then(|bytes| {
            let (first, second) = bytes.split_at_checked(self.entry_bytes as usize - 4)?;
            let second = i32::from_be_bytes(second.try_into().ok()?);
            let first = match <[u8; 4]>::try_from(first) {
                Ok(bytes) => i64::from(i32::from_be_bytes(bytes)),
                Err(_) => i64::from_be_bytes(first.try_into().ok()?),
            };
            Some((first, i64::from(second)))
        });
        (self.high * self.entry_bytes, entry)
    }
}

/// Makes the indexes of one segment again, by the rule that appends follow.
#[derive(Debug)]
pub(super) struct IndexBuild {
    base_offset: i64,
    interval_bytes: u64,
    limit_bytes: usize,
    pub(super) offsets: Vec<u8>,
    pub(super) times: Vec<u8>,
    /// Position of the batch that the last entry names.
    indexed_to: u64,
    pub(super) last_offset_entry: Option<(i64, u64)>,
    pub(super) last_time_entry: Option<(i64, i64)>,
    pub(super) max_timestamp: (i64, i64),
}

impl IndexBuild {
    /// No index grows beyond `limit_bytes` (`segment.index.bytes`); one with fewer entries than
    /// it could have is still right.
    pub(super) fn new(base_offset: i64, interval_bytes: u64, limit_bytes: u64) -> Self {
        Self {
            base_offset,
            interval_bytes,
            limit_bytes: usize::try_from(limit_bytes).unwrap_or(usize::MAX),
            offsets: Vec::new(),
            times: Vec::new(),
            indexed_to: 0,
            last_offset_entry: None,
            last_time_entry: None,
            max_timestamp: (-1, -1),
        }
    }

    /// Forgets all batches.
    pub(super) fn clear(&mut self) {
        let limit_bytes = self.limit_bytes;
        *self = Self { limit_bytes, ..Self::new(self.base_offset, self.interval_bytes, 0) };
    }

    pub(super) fn add(&mut self, header: &BatchInfo, position: u64) {
        if header.max_timestamp_ms > self.max_timestamp.0 {
            self.max_timestamp = (header.max_timestamp_ms, header.last_offset());
        }
        if position - self.indexed_to <= self.interval_bytes {
            return;
        }
        let (Some(relative), Ok(place)) = (self.relative(header.last_offset()), u32::try_from(position))
        else {
            return;
        };
        if self.offsets.len() + OFFSET_ENTRY_BYTES as usize > self.limit_bytes {
            return;
        }
        self.offsets.extend_from_slice(&relative.to_be_bytes());
        self.offsets.extend_from_slice(&place.to_be_bytes());
        self.last_offset_entry = Some((header.last_offset(), position));
        self.indexed_to = position;
        // One slot is kept for the entry that closes the segment, as while it was written.
        if self.times.len() + 2 * TIME_ENTRY_BYTES as usize <= self.limit_bytes {
            self.add_time();
        }
    }

    fn relative(&self, offset: i64) -> Option<i32> {
        i32::try_from(offset.checked_sub(self.base_offset)?).ok()
    }

    fn add_time(&mut self) {
        let (timestamp, offset) = self.max_timestamp;
        let newest = self.last_time_entry.map_or(-1, |(timestamp, _)| timestamp);
        let (true, Some(relative)) = (timestamp > newest, self.relative(offset)) else { return };
        self.times.extend_from_slice(&timestamp.to_be_bytes());
        self.times.extend_from_slice(&relative.to_be_bytes());
        self.last_time_entry = Some(self.max_timestamp);
    }

    /// A segment that takes no more batches ends its time index with the largest timestamp: who looks a time up
    /// goes by it.
    pub(super) fn seal(&mut self) {
        self.add_time();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::Stem;

    fn find(bytes: &[u8]) -> (u64, Option<(i64, i64)>) {
        let mut search = LastEntry::new(Stem::OffsetIndex(0).into(), 8, bytes.len() as u64);
        while let Some(FileOp::Read { position, length, .. }) = search.next() {
            let at = position as usize;
            search.feed(Bytes::copy_from_slice(&bytes[at..at + length as usize]));
        }
        search.found()
    }

    #[test]
    fn the_last_entry_is_found_before_any_number_of_zeros() {
        for entries in 0..20_u32 {
            for zeros in 0..20 {
                let mut bytes: Vec<u8> =
                    (1..=entries).flat_map(|n| [n.to_be_bytes(), (n * 100).to_be_bytes()].concat()).collect();
                bytes.resize(bytes.len() + zeros * 8, 0);
                let last = (entries > 0).then_some((i64::from(entries), i64::from(entries) * 100));
                assert_eq!(find(&bytes), (u64::from(entries) * 8, last), "{entries} entries, {zeros} zeros");
            }
        }
    }

    #[test]
    fn a_sealed_time_index_ends_with_the_newest_record_however_small_it_may_be() {
        for limit_bytes in [12, 24, 40, 60, 1_000] {
            let mut build = IndexBuild::new(0, 10, limit_bytes);
            for at in 0..20_i64 {
                let mut builder = crate::log::batch::BatchBuilder::new();
                builder.push(1_000 + at, None, Some(b"value"), &[]);
                let bytes = builder.build();
                let header = BatchInfo { base_offset: at, ..BatchInfo::parse(&bytes).unwrap() };
                build.add(&header, at as u64 * bytes.len() as u64);
            }
            let open_bytes = build.times.len() as u64;
            assert!(open_bytes + TIME_ENTRY_BYTES <= limit_bytes.max(TIME_ENTRY_BYTES), "a slot is kept");
            build.seal();
            assert_eq!(build.last_time_entry, Some((1_019, 19)), "of {limit_bytes} bytes");
            assert!(build.times.len() as u64 <= limit_bytes);
        }
    }
}
