//! Walking the batches of one `.log` file in bounded memory.
//!
//! The walk reads chunks and gives batches in order, until the file ends or a byte does not belong
//! to a batch. From a chosen position on it also checks the CRC of each batch; below it, bodies are
//! skipped. A batch may be larger than a chunk: its CRC is then taken piece by piece.

use bytes::Bytes;

use crate::effect::{FileName, FileOp};
use crate::log::batch::{BatchError, BatchInfo, HEADER_BYTES};
use crate::planted::{Bug, is_planted};

/// One read while CRCs are checked.
const CHECK_CHUNK_BYTES: u64 = 1 << 20;
/// One read while bodies are skipped: a few hundred small batches, or the header of a large one.
const SKIP_CHUNK_BYTES: u64 = 64 << 10;
/// Where the bytes covered by the checksum begin.
const CRC_FROM: usize = 21;

fn reason(error: BatchError) -> &'static str {
    match error {
        BatchError::Short(_) => "a torn batch header",
        BatchError::Magic(_) => "a batch of an unknown format",
        BatchError::Length(_) => "a batch length that no batch has",
        BatchError::Offsets { .. } => "an offset that no batch has",
        _ => "a batch with a malformed header",
    }
}

/// What the walk came to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Walked {
    /// Carry this read out and [`Walk::feed`] what it gives.
    Read(FileOp),
    /// A batch; `bytes` has its header, and its body too when it is a control batch.
    Batch { header: BatchInfo, position: u64, bytes: Bytes },
    /// The file ends after a whole batch.
    End,
    /// The next batch has a record that the walk is not to reach.
    Ceiling,
    /// These bytes are no batch.
    Fault(&'static str),
    /// The position from which CRCs were to be checked is inside a batch.
    Misaligned,
}

/// A batch whose body is larger than a chunk.
#[derive(Debug)]
struct LargeBatch {
    header: BatchInfo,
    head: Bytes,
    crc: u32,
    checked_to: u64,
}

/// A walk over one file.
#[derive(Debug)]
pub(super) struct Walk {
    file: FileName,
    base_offset: i64,
    length: u64,
    position: u64,
    offset_next: i64,
    check_from: u64,
    ceiling: i64,
    chunk: Bytes,
    chunk_at: u64,
    large: Option<LargeBatch>,
    asked: u64,
}

impl Walk {
    /// Walks `length` bytes of a segment from `position`, where no batch starts below
    /// `offset_next`; CRCs are checked from `check_from` on.
    pub(super) fn new(
        file: FileName,
        base_offset: i64,
        length: u64,
        position: u64,
        offset_next: i64,
        check_from: u64,
    ) -> Self {
        Self {
            file,
            base_offset,
            length,
            position,
            offset_next,
            check_from,
            ceiling: i64::MAX,
            chunk: Bytes::new(),
            chunk_at: position,
            large: None,
            asked: 0,
        }
    }

    /// The same, but it ends before the first batch with a record at or behind this offset.
    pub(super) fn up_to(self, ceiling: i64) -> Self {
        Self { ceiling, ..self }
    }

    /// Where the next batch begins: all bytes before it are whole batches.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// From where on checksums are compared.
    pub(super) fn check_from(&self) -> u64 {
        self.check_from
    }

    /// The lowest offset that the next batch can have.
    pub(super) fn offset_next(&self) -> i64 {
        self.offset_next
    }

    /// Takes what the last read gave.
    pub(super) fn feed(&mut self, bytes: Bytes) {
        let read_at = self.large.as_ref().map_or(self.position, |large| large.checked_to);
        if (bytes.len() as u64) < self.asked {
            // The file is shorter than it was said to be.
            self.length = read_at.saturating_add(bytes.len() as u64).min(self.length);
        }
        self.chunk_at = read_at;
        self.chunk = bytes;
    }

    fn read(&mut self, position: u64, chunk_bytes: u64) -> Walked {
        self.asked = chunk_bytes.min(self.length.saturating_sub(position));
        Walked::Read(FileOp::Read { file: self.file, position, length: self.asked })
    }

    /// What the chunk holds from a position on.
    fn held(&self, position: u64) -> Bytes {
        match position.checked_sub(self.chunk_at).map(usize::try_from) {
            Some(Ok(skip)) if skip <= self.chunk.len() => self.chunk.slice(skip..),
            _ => Bytes::new(),
        }
    }

    /// Goes on until a read is needed, a batch is whole, or the walk ends.
    pub(super) fn next(&mut self) -> Walked {
        if let Some(large) = self.large.take() {
            return self.next_piece(large);
        }
        let left = self.length.saturating_sub(self.position);
        if left == 0 {
            return Walked::End;
        }
        if left < HEADER_BYTES as u64 {
            return Walked::Fault("a torn batch header");
        }
        let checked = self.position >= self.check_from;
        let chunk_bytes = if checked { CHECK_CHUNK_BYTES } else { SKIP_CHUNK_BYTES };
        let held = self.held(self.position);
        if held.len() < HEADER_BYTES {
            return self.read(self.position, chunk_bytes);
        }
        let header = match self.header(&held, left) {
            Ok(header) => header,
            Err(reason) => return Walked::Fault(reason),
        };
        if header.last_offset() >= self.ceiling {
            return Walked::Ceiling;
        }
        let end = self.position + u64::from(header.length_bytes);
        if !checked && self.check_from < end {
            return Walked::Misaligned;
        }
        if !checked && !header.is_control() {
            return self.pass(header, held.slice(..HEADER_BYTES));
        }
        if u64::from(header.length_bytes) > CHECK_CHUNK_BYTES {
            let crc = crc32c::crc32c(held.get(CRC_FROM..HEADER_BYTES).unwrap_or_default());
            let checked_to = self.position + HEADER_BYTES as u64;
            let head = held.slice(..HEADER_BYTES);
            return self.next_piece(LargeBatch { header, head, crc, checked_to });
        }
        let Some(batch) = held.get(..header.length_bytes as usize) else {
            return self.read(self.position, CHECK_CHUNK_BYTES);
        };
        let crc_holds = || crc32c::crc32c(batch.get(CRC_FROM..).unwrap_or_default()) == header.crc;
        if checked && !is_planted(Bug::TornBatch) && !crc_holds() {
            return Walked::Fault("a batch with a wrong checksum");
        }
        self.pass(header, held.slice(..header.length_bytes as usize))
    }

    fn header(&self, held: &[u8], left: u64) -> Result<BatchInfo, &'static str> {
        let header = BatchInfo::parse(held).map_err(reason)?;
        if u64::from(header.length_bytes) > left {
            return Err("a torn batch");
        }
        if header.base_offset < self.offset_next {
            return Err("an offset that was already given");
        }
        if header.last_offset() - self.base_offset > i64::from(i32::MAX) {
            return Err("an offset too far from the segment's base offset");
        }
        Ok(header)
    }

    fn next_piece(&mut self, mut large: LargeBatch) -> Walked {
        let end = self.position + u64::from(large.header.length_bytes);
        let held = self.held(large.checked_to);
        let left = usize::try_from(end - large.checked_to).unwrap_or(usize::MAX);
        let piece = held.get(..left.min(held.len())).unwrap_or_default();
        large.crc = crc32c::crc32c_append(large.crc, piece);
        large.checked_to += piece.len() as u64;
        if large.checked_to < end {
            if large.checked_to >= self.length {
                return Walked::Fault("a torn batch");
            }
            let position = large.checked_to;
            self.large = Some(large);
            return self.read(position, CHECK_CHUNK_BYTES);
        }
        if self.position >= self.check_from && large.crc != large.header.crc {
            return Walked::Fault("a batch with a wrong checksum");
        }
        self.pass(large.header, large.head)
    }

    fn pass(&mut self, header: BatchInfo, bytes: Bytes) -> Walked {
        let position = self.position;
        self.position += u64::from(header.length_bytes);
        self.offset_next = header.last_offset() + 1;
        Walked::Batch { header, position, bytes }
    }
}
