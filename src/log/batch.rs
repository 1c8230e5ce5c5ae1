//! A record batch of format v2: its 61-byte header, its checksum, and a builder.
//!
//! The same bytes are on the wire, in memory and on disk. Only the header ever changes: base offset
//! and leader epoch lie outside the checksum, so the usual append rewrites 12 bytes and nothing else.
//! Format: Kafka's `DefaultRecordBatch`, all numbers big-endian.

use bytes::{Bytes, BytesMut};

use super::codec::{self, Codec};
use super::record::{self, Header};

/// Bytes before the first record.
pub const HEADER_BYTES: usize = 61;
/// Bytes before what the length field counts.
pub const LENGTH_OVERHEAD_BYTES: usize = 12;
/// The only format version that is stored.
pub const MAGIC: i8 = 2;
/// Stands for "none" in producer id, epoch and sequence.
pub const NONE: i8 = -1;
/// Where the checksummed bytes begin.
pub(super) const ATTRIBUTES_AT: usize = 21;

const CODEC_MASK: i16 = 0x07;
const LOG_APPEND_TIME_BIT: i16 = 0x08;
const TRANSACTIONAL_BIT: i16 = 0x10;
const CONTROL_BIT: i16 = 0x20;
const DELETE_HORIZON_BIT: i16 = 0x40;
/// The attribute bits that have a meaning; a rewritten header has no others.
const KNOWN_BITS: i16 = 0x7f;

/// The checksum of a batch: CRC-32C of everything from the attributes (byte 21) to its end.
pub fn crc(from_attributes: &[u8]) -> u32 {
    crc32c::crc32c(from_attributes)
}

/// The checksum of bytes behind those that gave `crc`; 0 stands for none.
pub(super) fn crc_on(crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, bytes)
}

/// Why bytes are not the header of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than a header.
    #[error("{0} bytes are too few for a record batch")]
    Short(usize),
    /// Another format version.
    #[error("record batch has magic {0}, expected 2")]
    Magic(i8),
    /// The length field is smaller than a header or negative.
    #[error("record batch has an impossible length of {0}")]
    Length(i32),
    /// Negative offsets, or offsets that overflow.
    #[error(
        "record batch at offset {base_offset} has an impossible last offset delta of {last_offset_delta}"
    )]
    Offsets {
        /// Base offset in the header.
        base_offset: i64,
        /// Last offset delta in the header.
        last_offset_delta: i32,
    },
    /// A negative record count.
    #[error("record batch has an impossible count of {0} records")]
    Count(i32),
    /// Attributes name a codec that does not exist.
    #[error("record batch has the unknown compression codec {0}")]
    Codec(i16),
}

/// What the header of one batch says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchInfo {
    /// Offset of the first record; 0 as a producer sends it.
    pub base_offset: i64,
    /// Bytes of the whole batch: 12 and the length field.
    pub length_bytes: u32,
    /// Leader epoch under which it was appended.
    pub leader_epoch: i32,
    /// CRC-32C from byte 21 to the end.
    pub crc: u32,
    /// Codec (bits 0–2), timestamp type (3), transactional (4), control (5), delete horizon (6).
    pub attributes: i16,
    /// Last offset minus base offset; compaction leaves it when it removes records.
    pub last_offset_delta: i32,
    /// What the records' timestamp deltas count from (or the delete horizon, see [`Self::has_delete_horizon`]).
    pub base_timestamp_ms: i64,
    /// Largest timestamp of a record, or the append time; -1 when there is none.
    pub max_timestamp_ms: i64,
    /// Producer id, -1 when there is none.
    pub producer_id: i64,
    /// Producer epoch, -1 when there is none.
    pub producer_epoch: i16,
    /// Sequence of the first record, -1 when there is none.
    pub base_sequence: i32,
    /// Records in the batch; 0 only after compaction.
    pub record_count: i32,
}

impl BatchInfo {
    /// Reads the header at the start of `bytes`, which may hold less than the whole batch.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<BatchInfo, BatchError> {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(BatchError::Short(bytes.len()));
        };
        let magic = i8::from_be_bytes(field::<16, 1>(header));
        if magic != MAGIC {
            return Err(BatchError::Magic(magic));
        }
        let length = i32::from_be_bytes(field::<8, 4>(header));
        let length_bytes = u32::try_from(length).unwrap_or(0).saturating_add(LENGTH_OVERHEAD_BYTES as u32);
        if length < 0 || (length_bytes as usize) < HEADER_BYTES {
            return Err(BatchError::Length(length));
        }
        let info = BatchInfo {
            base_offset: i64::from_be_bytes(field::<0, 8>(header)),
            length_bytes,
            leader_epoch: i32::from_be_bytes(field::<12, 4>(header)),
            crc: u32::from_be_bytes(field::<17, 4>(header)),
            attributes: i16::from_be_bytes(field::<21, 2>(header)),
            last_offset_delta: i32::from_be_bytes(field::<23, 4>(header)),
            base_timestamp_ms: i64::from_be_bytes(field::<27, 8>(header)),
            max_timestamp_ms: i64::from_be_bytes(field::<35, 8>(header)),
            producer_id: i64::from_be_bytes(field::<43, 8>(header)),
            producer_epoch: i16::from_be_bytes(field::<51, 2>(header)),
            base_sequence: i32::from_be_bytes(field::<53, 4>(header)),
            record_count: i32::from_be_bytes(field::<57, 4>(header)),
        };
        let (base_offset, last_offset_delta) = (info.base_offset, info.last_offset_delta);
        // The offset after the last one has to exist too.
        let offset_end =
            base_offset.checked_add(i64::from(last_offset_delta)).and_then(|last| last.checked_add(1));
        if base_offset < 0 || last_offset_delta < 0 || offset_end.is_none() {
            return Err(BatchError::Offsets { base_offset, last_offset_delta });
        }
        if info.record_count < 0 {
            return Err(BatchError::Count(info.record_count));
        }
        Ok(info)
    }

    /// Offset of the last record.
    pub fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// How the records are compressed.
    pub fn codec(&self) -> Result<Codec, BatchError> {
        let id = self.attributes & CODEC_MASK;
        Codec::from_id(id).ok_or(BatchError::Codec(id))
    }

    /// Whether every record's timestamp is [`Self::max_timestamp_ms`].
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME_BIT != 0
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// Whether the batch is a marker and not data.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// Whether the base timestamp is the time from which tombstones may go.
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes & DELETE_HORIZON_BIT != 0
    }

    /// Whether an idempotent producer sent it.
    pub fn has_producer(&self) -> bool {
        self.producer_id != i64::from(NONE)
    }

    /// Sequence of the last record, -1 when there is none; 0 follows `i32::MAX`.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return i32::from(NONE);
        }
        let wrapped =
            (i64::from(self.base_sequence) + i64::from(self.last_offset_delta)) & i64::from(i32::MAX);
        // Masked to 31 bits just above.
        wrapped as i32
    }
}

#[inline]
fn field<const AT: usize, const N: usize>(header: &[u8; HEADER_BYTES]) -> [u8; N] {
    let (_, from) = header.split_at(AT);
    *from.first_chunk::<N>().expect("fields lie within the header")
}

fn put<const N: usize>(header: &mut [u8; HEADER_BYTES], at: usize, value: [u8; N]) {
    let (_, from) = header.split_at_mut(at);
    *from.first_chunk_mut::<N>().expect("fields lie within the header") = value;
}

/// Whether the checksum in the header is that of the bytes. `batch` starts at the header; bytes
/// after the batch are not looked at, and a batch that is cut short does not hold.
pub fn crc_holds(batch: &[u8], info: &BatchInfo) -> bool {
    batch.get(ATTRIBUTES_AT..info.length_bytes as usize).is_some_and(|bytes| crc(bytes) == info.crc)
}

/// The header as it goes to disk: base offset and leader epoch patched. With `Some(ms)` the timestamp
/// type becomes LogAppendTime, the largest timestamp becomes `ms`, and the checksum follows.
///
/// # Panics
/// If `batch` is shorter than a header; it is exactly one checked batch.
pub fn stamped_header(
    batch: &[u8],
    base_offset: i64,
    leader_epoch: i32,
    log_append_time_ms: Option<i64>,
) -> [u8; HEADER_BYTES] {
    let (header, body) = batch.split_first_chunk::<HEADER_BYTES>().expect("a checked batch has its header");
    let mut header = *header;
    put(&mut header, 0, base_offset.to_be_bytes());
    put(&mut header, 12, leader_epoch.to_be_bytes());
    if let Some(append_time_ms) = log_append_time_ms {
        let attributes = i16::from_be_bytes(field::<21, 2>(&header)) & KNOWN_BITS | LOG_APPEND_TIME_BIT;
        reseal(&mut header, body, attributes, append_time_ms);
    }
    header
}

/// The same batch under CreateTime with the largest timestamp that its records have.
pub(super) fn with_create_time(batch: &[u8], max_timestamp_ms: i64) -> Bytes {
    let (header, body) = batch.split_first_chunk::<HEADER_BYTES>().expect("a checked batch has its header");
    let mut header = *header;
    let attributes = i16::from_be_bytes(field::<21, 2>(&header)) & KNOWN_BITS & !LOG_APPEND_TIME_BIT;
    reseal(&mut header, body, attributes, max_timestamp_ms);
    joined(&header, body)
}

/// The same batch with its records under another codec: `out` has room for the header and then the records,
/// compressed already.
pub(super) fn with_body(batch: &[u8], codec: Codec, mut out: Vec<u8>, max_timestamp_ms: i64) -> Bytes {
    let header = batch.first_chunk::<HEADER_BYTES>().expect("a checked batch has its header");
    let mut header = *header;
    let (room, body) = out.split_first_chunk_mut::<HEADER_BYTES>().expect("there is room for the header");
    // Kafka's builder knows neither of the latter two.
    let kept = KNOWN_BITS & !CODEC_MASK & !LOG_APPEND_TIME_BIT & !DELETE_HORIZON_BIT;
    let attributes = i16::from_be_bytes(field::<21, 2>(&header)) & kept | codec.id();
    put(&mut header, 8, length_field(body).to_be_bytes());
    reseal(&mut header, body, attributes, max_timestamp_ms);
    *room = header;
    out.into()
}

fn reseal(header: &mut [u8; HEADER_BYTES], body: &[u8], attributes: i16, max_timestamp_ms: i64) {
    put(header, 21, attributes.to_be_bytes());
    put(header, 35, max_timestamp_ms.to_be_bytes());
    let (_, from_attributes) = header.split_at(ATTRIBUTES_AT);
    let crc = crc32c::crc32c_append(crc(from_attributes), body);
    put(header, 17, crc.to_be_bytes());
}

fn length_field(body: &[u8]) -> i32 {
    i32::try_from(HEADER_BYTES - LENGTH_OVERHEAD_BYTES + body.len()).expect("a batch is smaller than 2 GiB")
}

fn joined(header: &[u8; HEADER_BYTES], body: &[u8]) -> Bytes {
    let mut batch = BytesMut::with_capacity(HEADER_BYTES + body.len());
    batch.extend_from_slice(header);
    batch.extend_from_slice(body);
    batch.freeze()
}

/// Builds one batch, record by record; the offsets are 0, 1, 2, … from the base offset.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    codec: Codec,
    level: Option<i32>,
    base_offset: i64,
    leader_epoch: i32,
    attributes: i16,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
    record_count: i32,
    records: Vec<u8>,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    /// An uncompressed batch at offset 0 without a producer id and a leader epoch, as a producer sends it.
    pub fn new() -> Self {
        Self {
            codec: Codec::None,
            level: None,
            base_offset: 0,
            leader_epoch: i32::from(NONE),
            attributes: 0,
            producer_id: i64::from(NONE),
            producer_epoch: i16::from(NONE),
            base_sequence: i32::from(NONE),
            base_timestamp_ms: i64::from(NONE),
            max_timestamp_ms: i64::from(NONE),
            record_count: 0,
            records: Vec::new(),
        }
    }

    /// Compresses the records at the codec's default level.
    pub fn codec(self, codec: Codec) -> Self {
        Self { codec, level: None, ..self }
    }

    /// Compresses the records at a level of the codec's own scale.
    pub fn codec_at_level(self, codec: Codec, level: i32) -> Self {
        Self { codec, level: Some(level), ..self }
    }

    /// Offset of the first record.
    pub fn base_offset(self, base_offset: i64) -> Self {
        Self { base_offset, ..self }
    }

    /// Leader epoch of the append.
    pub fn leader_epoch(self, leader_epoch: i32) -> Self {
        Self { leader_epoch, ..self }
    }

    /// Makes the batch an idempotent producer's.
    pub fn producer(self, producer_id: i64, producer_epoch: i16, base_sequence: i32) -> Self {
        Self { producer_id, producer_epoch, base_sequence, ..self }
    }

    /// Makes the batch part of a transaction.
    pub fn transactional(self) -> Self {
        Self { attributes: self.attributes | TRANSACTIONAL_BIT, ..self }
    }

    /// Makes the batch a marker.
    pub fn control(self) -> Self {
        Self { attributes: self.attributes | CONTROL_BIT, ..self }
    }

    /// Adds a record; the first one's timestamp is what the others' deltas count from.
    pub fn push(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> &mut Self {
        if self.record_count == 0 {
            self.base_timestamp_ms = timestamp_ms;
        }
        let timestamp_delta_ms = timestamp_ms.wrapping_sub(self.base_timestamp_ms);
        record::write(&mut self.records, timestamp_delta_ms, self.record_count, key, value, headers);
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
        self.record_count = self.record_count.checked_add(1).expect("a batch has fewer than 2^31 records");
        self
    }

    /// [`Self::push`] without headers, for chains.
    pub fn record(mut self, timestamp_ms: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        self.push(timestamp_ms, key, value, &[]);
        self
    }

    /// Records so far.
    pub fn record_count(&self) -> i32 {
        self.record_count
    }

    /// Bytes of the batch so far, before compression.
    pub fn length_bytes(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// The batch.
    pub fn build(&self) -> Bytes {
        let mut compressed = Vec::new();
        let body = match self.codec {
            Codec::None => &self.records,
            codec => {
                codec::compress(codec, self.level, &self.records, &mut compressed);
                &compressed
            }
        };
        let mut header = [0; HEADER_BYTES];
        put(&mut header, 0, self.base_offset.to_be_bytes());
        put(&mut header, 8, length_field(body).to_be_bytes());
        put(&mut header, 12, self.leader_epoch.to_be_bytes());
        put(&mut header, 16, MAGIC.to_be_bytes());
        put(&mut header, 23, (self.record_count - 1).max(0).to_be_bytes());
        put(&mut header, 27, self.base_timestamp_ms.to_be_bytes());
        put(&mut header, 43, self.producer_id.to_be_bytes());
        put(&mut header, 51, self.producer_epoch.to_be_bytes());
        put(&mut header, 53, self.base_sequence.to_be_bytes());
        put(&mut header, 57, self.record_count.to_be_bytes());
        reseal(&mut header, body, self.attributes | self.codec.id(), self.max_timestamp_ms);
        joined(&header, body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Bytes {
        let builder = BatchBuilder::new().producer(7, 2, i32::MAX - 1).record(1000, Some(b"k"), Some(b"v"));
        builder.record(990, None, None).record(1010, Some(b"k2"), Some(b"v2")).build()
    }

    #[test]
    fn the_header_says_what_the_builder_was_told() {
        let batch = batch();
        let info = BatchInfo::parse(&batch).unwrap();
        assert_eq!((info.base_offset, info.last_offset(), info.record_count), (0, 2, 3));
        assert_eq!((info.base_timestamp_ms, info.max_timestamp_ms), (1000, 1010));
        assert_eq!((info.producer_id, info.producer_epoch, info.base_sequence), (7, 2, i32::MAX - 1));
        assert_eq!(info.last_sequence(), 0, "the sequence after i32::MAX is 0");
        assert_eq!(info.length_bytes as usize, batch.len());
        assert_eq!(info.codec(), Ok(Codec::None));
        assert!(info.has_producer() && !info.is_control() && !info.is_transactional());
        assert!(crc_holds(&batch, &info));
    }

    #[test]
    fn a_cut_or_changed_batch_does_not_hold() {
        let batch = batch();
        let info = BatchInfo::parse(&batch).unwrap();
        assert!(!crc_holds(&batch[..batch.len() - 1], &info));
        let mut changed = batch.to_vec();
        *changed.last_mut().unwrap() ^= 1;
        assert!(!crc_holds(&changed, &info));
        changed = batch.to_vec();
        changed.push(9);
        assert!(crc_holds(&changed, &info), "bytes after the batch belong to the next one");
    }

    #[test]
    fn stamping_offset_and_epoch_leaves_the_checksum() {
        let batch = batch();
        let header = stamped_header(&batch, 5_000_000_000, 9, None);
        let info = BatchInfo::parse(&header).unwrap();
        assert_eq!(
            (info.base_offset, info.leader_epoch, info.last_offset()),
            (5_000_000_000, 9, 5_000_000_002)
        );
        assert_eq!(header[16..], batch[16..HEADER_BYTES]);
        let stored = joined(&header, &batch[HEADER_BYTES..]);
        assert!(crc_holds(&stored, &info));
    }

    #[test]
    fn log_append_time_rewrites_type_timestamp_and_checksum() {
        let batch = batch();
        let header = stamped_header(&batch, 40, 1, Some(777));
        let info = BatchInfo::parse(&header).unwrap();
        assert!(info.is_log_append_time());
        assert_eq!((info.max_timestamp_ms, info.base_timestamp_ms), (777, 1000));
        assert!(crc_holds(&joined(&header, &batch[HEADER_BYTES..]), &info));
    }

    #[test]
    fn impossible_headers_are_refused() {
        let good = batch();
        let parse_with = |at: usize, value: &[u8]| {
            let mut bytes = good.to_vec();
            bytes[at..at + value.len()].copy_from_slice(value);
            BatchInfo::parse(&bytes)
        };
        assert_eq!(BatchInfo::parse(&good[..60]), Err(BatchError::Short(60)));
        assert_eq!(parse_with(16, &[1]), Err(BatchError::Magic(1)));
        assert_eq!(parse_with(8, &48_i32.to_be_bytes()), Err(BatchError::Length(48)));
        assert_eq!(parse_with(8, &(-5_i32).to_be_bytes()), Err(BatchError::Length(-5)));
        assert!(matches!(parse_with(23, &(-1_i32).to_be_bytes()), Err(BatchError::Offsets { .. })));
        assert!(matches!(parse_with(0, &(-1_i64).to_be_bytes()), Err(BatchError::Offsets { .. })));
        assert!(matches!(parse_with(0, &(i64::MAX - 2).to_be_bytes()), Err(BatchError::Offsets { .. })));
        assert_eq!(parse_with(57, &(-1_i32).to_be_bytes()), Err(BatchError::Count(-1)));
        assert_eq!(parse_with(22, &[6]).unwrap().codec(), Err(BatchError::Codec(6)));
    }
}
