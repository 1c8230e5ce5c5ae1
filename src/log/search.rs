//! Binary search in an index file by pages, and the search for a record inside a batch.

use super::batch::{BatchInfo, HEADER_BYTES};
use super::codec::{Codec, Decompressor, decompressed_bytes_limit};
use super::head::{OFFSET_ENTRY_BYTES, TIME_ENTRY_BYTES};
use super::record::Records;
use crate::effect::{FileError, FileName, FileOp};

/// The bytes are not what the log wrote: `EBADMSG`.
pub(super) const CORRUPT: FileError = FileError::Io(74);

/// Bytes read at a time, rounded down to whole entries.
const PAGE_BYTES: u64 = 4096;

/// A search for the last entry whose key is not above the target. Keys rise.
#[derive(Clone, Copy, Debug)]
pub(super) struct IndexSearch {
    entry_bytes: u64,
    file_bytes: u64,
    target: i64,
    /// Pages that can hold the entry.
    low: u64,
    high: u64,
    found: Option<i64>,
}

impl IndexSearch {
    /// In an offset index: key offset, value position.
    pub(super) fn offsets(file_bytes: u64, offset: i64) -> Self {
        Self::new(OFFSET_ENTRY_BYTES, file_bytes, offset)
    }

    /// In a time index: key timestamp, value offset.
    pub(super) fn times(file_bytes: u64, timestamp_ms: i64) -> Self {
        Self::new(TIME_ENTRY_BYTES, file_bytes, timestamp_ms)
    }

    fn new(entry_bytes: u64, file_bytes: u64, target: i64) -> Self {
        let page = PAGE_BYTES / entry_bytes * entry_bytes;
        Self { entry_bytes, file_bytes, target, low: 0, high: file_bytes.div_ceil(page), found: None }
    }

    fn page_bytes(&self) -> u64 {
        PAGE_BYTES / self.entry_bytes * self.entry_bytes
    }

    fn middle(&self) -> u64 {
        self.low.midpoint(self.high)
    }

    /// The read that comes next; `None` when the search is over.
    pub(super) fn read(&self, file: FileName) -> Option<FileOp> {
        if self.low >= self.high {
            return None;
        }
        let position = self.middle() * self.page_bytes();
        let length = self.page_bytes().min(self.file_bytes - position);
        Some(FileOp::Read { file, position, length })
    }

    /// Takes the page that was read.
    pub(super) fn take(
        &mut self,
        page: &[u8],
        entry: impl Fn(&[u8]) -> Option<(i64, i64)>,
    ) -> Result<(), FileError> {
        let middle = self.middle();
        let expected = self.page_bytes().min(self.file_bytes - middle * self.page_bytes());
        let width = usize::try_from(self.entry_bytes).map_err(|_| CORRUPT)?;
        if page.len() as u64 != expected {
            return Err(CORRUPT);
        }
        let mut floor = None;
        for bytes in page.chunks_exact(width) {
            let (key, value) = entry(bytes).ok_or(CORRUPT)?;
            if key > self.target {
                match floor {
                    // The entry is in this page, or in one before it.
                    Some(_) => self.low = self.high,
                    None => self.high = middle,
                }
                self.found = floor.or(self.found);
                return Ok(());
            }
            floor = Some(value);
        }
        self.found = floor.or(self.found);
        self.low = middle + 1;
        Ok(())
    }

    /// The value of the entry, once the search is over.
    pub(super) fn found(&self) -> Option<i64> {
        self.found
    }
}

/// Offset and timestamp of the first record of a whole batch with at least that timestamp and that
/// offset.
pub(super) fn first_record(
    batch: &[u8],
    info: &BatchInfo,
    timestamp_ms: i64,
    offset_min: i64,
) -> Result<Option<(i64, i64)>, FileError> {
    let body = batch.get(HEADER_BYTES..info.length_bytes as usize).ok_or(CORRUPT)?;
    let mut decompressor = Decompressor::default();
    let body = match info.codec().map_err(|_| CORRUPT)? {
        Codec::None => body,
        codec => {
            let limit = decompressed_bytes_limit(body.len());
            decompressor.decompress(codec, body, limit).map_err(|_| CORRUPT)?
        }
    };
    for record in Records::new(body).take(usize::try_from(info.record_count).unwrap_or(0)) {
        let record = record.map_err(|_| CORRUPT)?;
        let offset = info.base_offset.saturating_add(i64::from(record.offset_delta));
        let at_ms = if info.is_log_append_time() {
            info.max_timestamp_ms
        } else {
            info.base_timestamp_ms.saturating_add(record.timestamp_delta_ms)
        };
        if at_ms >= timestamp_ms && offset >= offset_min {
            return Ok(Some((offset, at_ms)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::super::index;
    use super::*;
    use crate::effect::Stem;

    #[test]
    fn the_search_finds_the_last_entry_that_is_not_above_the_target() {
        // 3,000 entries over six pages: offsets 10, 20, …, positions 100, 200, …
        let mut file = Vec::new();
        for n in 1..=3000_i32 {
            file.extend((n * 10).to_be_bytes());
            file.extend((n * 100).to_be_bytes());
        }
        for target in [0, 9, 10, 11, 5120, 5125, 5130, 15_555, 29_999, 30_000, 99_999] {
            let mut search = IndexSearch::offsets(file.len() as u64, target);
            let mut reads = 0;
            while let Some(FileOp::Read { position, length, .. }) = search.read(Stem::OffsetIndex(0).into()) {
                let page = &file[position as usize..(position + length) as usize];
                search.take(page, |entry| index::offset_entry(entry, 0).map(|(o, p)| (o, p as i64))).unwrap();
                reads += 1;
            }
            let expected = (target.min(30_000) / 10 > 0).then(|| target.min(30_000) / 10 * 100);
            assert_eq!(search.found(), expected, "target {target}");
            assert!(reads <= 4, "{reads} reads for six pages");
        }
    }

    #[test]
    fn a_page_that_is_too_short_is_corrupt() {
        let mut search = IndexSearch::offsets(80, 5);
        assert_eq!(
            search.take(&[0; 72], |entry| index::offset_entry(entry, 0).map(|(o, p)| (o, p as i64))),
            Err(CORRUPT)
        );
    }
}
