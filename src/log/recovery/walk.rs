//! Walking the batches of one `.log` file in bounded memory.
//!
//! The walk reads chunks and gives batches in order, until the file ends or a byte does not belong
//! to a batch. From a chosen position on it also checks the CRC of each batch; below it, bodies are
//! skipped. A batch may be larger than a chunk: its CRC is then taken piece by piece.

use bytes::Bytes;

use crate::effect::{FileName, FileOp};

/// One read while CRCs are checked.
const CHECK_CHUNK_BYTES: u64 = 1 << 20;
/// One read while bodies are skipped: a few hundred small batches, or the header of a large one.
const SKIP_CHUNK_BYTES: u64 = 64 << 10;
/// Bytes of a batch header.
const HEADER_BYTES: usize = 61;
/// Bytes of a batch before the part that its length counts.
const PREFIX_BYTES: u64 = 12;
/// Where the bytes covered by the CRC begin.
const CRC_FROM: usize = 21;

/// What a header says about its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) base_offset: i64,
    pub(crate) last_offset: i64,
    pub(crate) size_bytes: u64,
    pub(crate) leader_epoch: i32,
    pub(crate) crc: u32,
    pub(crate) attributes: i16,
    pub(crate) max_timestamp_ms: i64,
}

impl BatchHeader {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], &'static str> {
            bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or("a torn batch header")
        }
        let base_offset = i64::from_be_bytes(field(bytes, 0)?);
        let length = i32::from_be_bytes(field(bytes, 8)?);
        let size_bytes = u64::try_from(length).map_err(|_| "a negative batch length")? + PREFIX_BYTES;
        if size_bytes < HEADER_BYTES as u64 {
            return Err("a batch length smaller than its header");
        }
        let [magic] = field(bytes, 16)?;
        if magic != 2 {
            return Err("a batch of an unknown format");
        }
        let delta = i32::from_be_bytes(field(bytes, 23)?);
        if delta < 0 || base_offset < 0 {
            return Err("a negative offset");
        }
        Ok(Self {
            base_offset,
            last_offset: base_offset.checked_add(i64::from(delta)).ok_or("an offset beyond its range")?,
            size_bytes,
            leader_epoch: i32::from_be_bytes(field(bytes, 12)?),
            crc: u32::from_be_bytes(field(bytes, 17)?),
            attributes: i16::from_be_bytes(field(bytes, 21)?),
            max_timestamp_ms: i64::from_be_bytes(field(bytes, 35)?),
        })
    }

    fn is_control(&self) -> bool {
        self.attributes & 0x20 != 0
    }
}

/// What the walk came to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Walked {
    /// Carry this read out and [`Walk::feed`] what it gives.
    Read(FileOp),
    /// A batch; `bytes` has its header, and its body too when it is a control batch.
    Batch { header: BatchHeader, position: u64, bytes: Bytes },
    /// The file ends after a whole batch.
    End,
    /// These bytes are no batch.
    Fault(&'static str),
    /// The position from which CRCs were to be checked is inside a batch.
    Misaligned,
}

/// A batch whose body is larger than a chunk.
#[derive(Debug)]
struct LargeBatch {
    header: BatchHeader,
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
            chunk: Bytes::new(),
            chunk_at: position,
            large: None,
            asked: 0,
        }
    }

    /// Where the next batch begins: all bytes before it are whole batches.
    pub(super) fn position(&self) -> u64 {
        self.position
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
        let end = self.position + header.size_bytes;
        if !checked && self.check_from < end {
            return Walked::Misaligned;
        }
        if !checked && !header.is_control() {
            return self.pass(header, held.slice(..HEADER_BYTES));
        }
        if header.size_bytes > CHECK_CHUNK_BYTES {
            let crc = crc32c::crc32c(held.get(CRC_FROM..HEADER_BYTES).unwrap_or_default());
            let checked_to = self.position + HEADER_BYTES as u64;
            let head = held.slice(..HEADER_BYTES);
            return self.next_piece(LargeBatch { header, head, crc, checked_to });
        }
        let Some(batch) = held.get(..header.size_bytes as usize) else {
            return self.read(self.position, CHECK_CHUNK_BYTES);
        };
        if checked && crc32c::crc32c(batch.get(CRC_FROM..).unwrap_or_default()) != header.crc {
            return Walked::Fault("a batch with a wrong checksum");
        }
        self.pass(header, held.slice(..header.size_bytes as usize))
    }

    fn header(&self, held: &[u8], left: u64) -> Result<BatchHeader, &'static str> {
        let header = BatchHeader::parse(held)?;
        if header.size_bytes > left {
            return Err("a torn batch");
        }
        if header.base_offset < self.offset_next {
            return Err("an offset that was already given");
        }
        if header.last_offset - self.base_offset > i64::from(i32::MAX) || header.last_offset == i64::MAX {
            return Err("an offset too far from the segment's base offset");
        }
        Ok(header)
    }

    fn next_piece(&mut self, mut large: LargeBatch) -> Walked {
        let end = self.position + large.header.size_bytes;
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

    fn pass(&mut self, header: BatchHeader, bytes: Bytes) -> Walked {
        let position = self.position;
        self.position += header.size_bytes;
        self.offset_next = header.last_offset + 1;
        Walked::Batch { header, position, bytes }
    }
}
