//! Entries of `.index` and `.timeindex` files, held against the batches of the segment beside them.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use super::segment::{Batches, timestamp_ms};
use super::{Dump, cannot_read, line};

/// Bytes of an entry: relative offset i32, position i32.
const OFFSET_ENTRY_BYTES: usize = 8;
/// Bytes of an entry: timestamp i64, relative offset i32.
const TIME_ENTRY_BYTES: usize = 12;

impl<W: Write> Dump<'_, W> {
    fn log_path(&self) -> PathBuf {
        self.path.with_extension("log")
    }

    /// The whole entries up to the preallocated rest, whose bytes are zero.
    fn entries<const N: usize>(&mut self) -> Result<Vec<[u8; N]>, String> {
        let bytes = fs::read(self.path).map_err(|error| cannot_read(self.path, &error))?;
        let (entries, rest) = bytes.as_chunks::<N>();
        if !rest.is_empty() {
            let (count, path) = (rest.len(), self.path.display());
            self.complaints.push(format!("Found {count} bytes behind the last whole entry of {path}"));
        }
        let used = |(at, entry): &(usize, &[u8; N])| *at == 0 || entry.iter().any(|byte| *byte != 0);
        Ok(entries.iter().enumerate().take_while(used).map(|(_, entry)| *entry).collect())
    }

    /// What a broker checks when it starts: whole entries, the last one not below the base offset.
    fn sane(&mut self, last: Option<i64>, base_offset: i64) -> Result<(), String> {
        let path = self.path.display();
        if last.is_some_and(|last| last < base_offset) {
            self.complaints
                .push(format!("Corrupt index found, its last offset is below {base_offset}: {path}"));
        }
        if self.complaints.is_empty() { line!(self, "{path} passed sanity check.") } else { Ok(()) }
    }

    pub(super) fn offset_index(&mut self) -> Result<(), String> {
        let base_offset = self.base_offset()?;
        let entries = self.entries::<OFFSET_ENTRY_BYTES>()?;
        let torn = std::mem::take(&mut self.complaints);
        let read = |entry: &[u8; OFFSET_ENTRY_BYTES]| {
            let [a, b, c, d, e, f, g, h] = *entry;
            (offset(base_offset, [a, b, c, d]), u64::from(u32::from_be_bytes([e, f, g, h])))
        };
        if self.options.index_sanity_check {
            self.complaints = torn;
            return self.sane(entries.last().map(|entry| read(entry).0), base_offset);
        }
        let log = self.log_path();
        let mut batches = Batches::open(&log)?;
        let mut mismatches = Vec::new();
        for (offset, position) in entries.iter().map(read) {
            batches.seek(position)?;
            let there = batches.next()?.map_or(-1, |(info, _)| info.last_offset());
            if there != offset {
                mismatches.push(format!("Index offset: {offset}, log offset: {there}"));
            }
            if !self.options.verify_index_only {
                line!(self, "offset: {offset} position: {position}")?;
            }
        }
        self.complain("Mismatches in", &mismatches);
        self.complaints.extend(torn);
        Ok(())
    }

    pub(super) fn time_index(&mut self) -> Result<(), String> {
        let base_offset = self.base_offset()?;
        let entries = self.entries::<TIME_ENTRY_BYTES>()?;
        let torn = std::mem::take(&mut self.complaints);
        let read = |entry: &[u8; TIME_ENTRY_BYTES]| {
            let [a, b, c, d, e, f, g, h, rest @ ..] = *entry;
            (i64::from_be_bytes([a, b, c, d, e, f, g, h]), offset(base_offset, rest))
        };
        if self.options.index_sanity_check {
            self.complaints = torn;
            return self.sane(entries.last().map(|entry| read(entry).1), base_offset);
        }
        let log = self.log_path();
        let mut batches = Batches::open(&log)?;
        let (mut mismatches, mut unordered, mut lost) = (Vec::new(), Vec::new(), Vec::new());
        let mut previous_ms = i64::MIN;
        // Offsets rise from entry to entry, so one walk through the segment serves them all.
        let mut batch = batches.next()?;
        for (entry_ms, offset) in entries.iter().map(read) {
            while batch.as_ref().is_some_and(|(info, _)| info.last_offset() < offset) {
                batch = batches.next()?;
            }
            match &batch {
                Some((info, _)) if info.base_offset <= offset => {
                    let records = batches.records(info)?.map_while(Result::ok);
                    let newest_ms = records.map(|record| timestamp_ms(info, &record)).max().unwrap_or(-1);
                    if newest_ms != entry_ms && previous_ms < entry_ms {
                        mismatches.push(format!("Index timestamp: {entry_ms}, log timestamp: {newest_ms}"));
                    }
                }
                _ => lost.push(format!("Indexed offset: {offset}")),
            }
            if previous_ms >= entry_ms {
                unordered.push(format!(
                    "Index timestamp: {entry_ms}, previously indexed timestamp: {previous_ms}"
                ));
            }
            previous_ms = previous_ms.max(entry_ms);
            if !self.options.verify_index_only {
                line!(self, "timestamp: {entry_ms} offset: {offset}")?;
            }
        }
        self.complain("Found timestamp mismatch in", &mismatches);
        self.complain("Out of order timestamps in", &unordered);
        self.complain("No batch for entries of", &lost);
        self.complaints.extend(torn);
        Ok(())
    }
}

fn offset(base_offset: i64, relative: [u8; 4]) -> i64 {
    base_offset.saturating_add(i64::from(i32::from_be_bytes(relative)))
}
