//! Index entries of the active segment that are not in its files yet, and the entries' bytes.
//!
//! The files hold entries and nothing else, big-endian as in Kafka:
//!
//! ```text
//! %020d.index      | relative offset i32 | position i32 |                 offset of a batch's last record → its start
//! %020d.timeindex  | timestamp i64             | relative offset i32 |    strictly rising timestamps
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::head::{Entries, OFFSET_ENTRY_BYTES, TIME_ENTRY_BYTES};

/// Entries that wait until they are written.
const FLUSH_ENTRIES: usize = 128;

/// Bytes of log that the waiting entries may cover.
const FLUSH_LOG_BYTES: u64 = 8 << 20;

/// How long an entry waits.
const FLUSH_MS: u64 = 1000;

/// Entries of the active segment that are not in its files yet, oldest first.
#[derive(Debug, Default)]
pub(super) struct PendingIndex {
    /// Last offset of a batch and its position.
    pub offsets: Vec<(i64, u64)>,
    /// Timestamp and offset.
    pub times: Vec<(i64, i64)>,
    since_ms: Option<u64>,
    flushing: bool,
}

impl PendingIndex {
    /// Takes the entries that a batch earned.
    pub(super) fn push(&mut self, entries: Entries, mono_ms: u64) {
        self.offsets.extend(entries.offset);
        self.times.extend(entries.time);
        if entries != Entries::default() {
            self.since_ms.get_or_insert(mono_ms);
        }
    }

    /// Whether entries wait.
    pub(super) fn is_empty(&self) -> bool {
        self.offsets.is_empty() && self.times.is_empty()
    }

    /// Whether the waiting entries should be written now.
    pub(super) fn flush_due(&self, position: u64, mono_ms: u64) -> bool {
        let covered = self.offsets.first().map_or(0, |(_, first)| position.saturating_sub(*first));
        let many = self.offsets.len() >= FLUSH_ENTRIES || covered >= FLUSH_LOG_BYTES;
        !self.flushing && !self.is_empty() && (many || self.wake_ms().is_some_and(|due| due <= mono_ms))
    }

    /// When the waiting entries are due at the latest.
    pub(super) fn wake_ms(&self) -> Option<u64> {
        if self.flushing { None } else { self.since_ms.map(|since| since + FLUSH_MS) }
    }

    /// Notes that a flush of all waiting entries is under way.
    pub(super) fn flush_started(&mut self) {
        self.flushing = true;
    }

    /// The oldest entries reached the files.
    pub(super) fn flushed(&mut self, offset_entries: usize, time_entries: usize, mono_ms: u64) {
        self.offsets.drain(..offset_entries);
        self.times.drain(..time_entries);
        self.flushing = false;
        self.since_ms = if self.is_empty() { None } else { Some(mono_ms) };
    }

    /// A flush failed: the entries stay and are tried again later.
    pub(super) fn flush_failed(&mut self, mono_ms: u64) {
        self.flushing = false;
        self.since_ms = if self.is_empty() { None } else { Some(mono_ms) };
    }

    /// All entries are in the files and a new segment begins; the memory is kept.
    pub(super) fn restart(&mut self) {
        self.offsets.clear();
        self.times.clear();
        self.since_ms = None;
        self.flushing = false;
    }

    /// Gives the memory back if nothing waits.
    pub(super) fn shrink(&mut self) {
        if self.is_empty() {
            self.offsets = Vec::new();
            self.times = Vec::new();
        }
    }

    /// The waiting entries of the offset index as bytes.
    pub(super) fn offset_bytes(&self, base_offset: i64) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.offsets.len() * OFFSET_ENTRY_BYTES as usize);
        for (offset, position) in &self.offsets {
            bytes.put_i32(relative(*offset, base_offset));
            bytes.put_u32(u32::try_from(*position).expect("a segment is smaller than 4 GiB"));
        }
        bytes.freeze()
    }

    /// The waiting entries of the time index as bytes.
    pub(super) fn time_bytes(&self, base_offset: i64) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.times.len() * TIME_ENTRY_BYTES as usize);
        for (timestamp_ms, offset) in &self.times {
            bytes.put_i64(*timestamp_ms);
            bytes.put_i32(relative(*offset, base_offset));
        }
        bytes.freeze()
    }
}

fn relative(offset: i64, base_offset: i64) -> i32 {
    i32::try_from(offset - base_offset).expect("a segment rolls before its offsets leave 32 bits")
}

/// Reads an offset index entry: last offset of a batch, its position.
pub(super) fn offset_entry(bytes: &[u8], base_offset: i64) -> Option<(i64, u64)> {
    let (offset, rest) = bytes.split_first_chunk::<4>()?;
    let position = rest.first_chunk::<4>()?;
    Some((base_offset + i64::from(i32::from_be_bytes(*offset)), u64::from(u32::from_be_bytes(*position))))
}

/// Reads a time index entry: timestamp, offset.
pub(super) fn time_entry(bytes: &[u8], base_offset: i64) -> Option<(i64, i64)> {
    let (timestamp_ms, rest) = bytes.split_first_chunk::<8>()?;
    let offset = rest.first_chunk::<4>()?;
    Some((i64::from_be_bytes(*timestamp_ms), base_offset + i64::from(i32::from_be_bytes(*offset))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_kafkas_bytes() {
        let mut pending = PendingIndex::default();
        pending.push(Entries { offset: Some((105, 4097)), time: Some((0x0102, 101)) }, 0);
        assert_eq!(&pending.offset_bytes(100)[..], &[0, 0, 0, 5, 0, 0, 0x10, 0x01]);
        assert_eq!(&pending.time_bytes(100)[..], &[0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 1]);
        assert_eq!(offset_entry(&pending.offset_bytes(100), 100), Some((105, 4097)));
        assert_eq!(time_entry(&pending.time_bytes(100), 100), Some((0x0102, 101)));
    }

    #[test]
    fn entries_wait_for_company_or_a_second() {
        let mut pending = PendingIndex::default();
        pending.push(Entries { offset: Some((1, 0)), time: None }, 50);
        assert!(!pending.flush_due(4096, 1049));
        assert!(pending.flush_due(4096, 1050));
        assert!(pending.flush_due(8 << 20, 51));
        pending.flush_started();
        assert!(!pending.flush_due(8 << 20, 5000), "one flush at a time");
        pending.push(Entries { offset: Some((2, 9)), time: None }, 60);
        pending.flushed(1, 0, 70);
        assert_eq!(pending.offsets, [(2, 9)]);
        assert_eq!(pending.wake_ms(), Some(1070));
    }
}
