//! The stateless check of what a producer sent for one partition, before anything is appended.
//!
//! What passes is exactly one batch of format v2 whose checksum holds and whose every record was read:
//! lengths, offsets 0, 1, 2, …, count, and nothing behind the last one. The bytes stay the producer's
//! own unless the header's largest timestamp is wrong or the topic stores another codec. An
//! uncompressed batch is read in one pass that allocates nothing; a compressed one is decompressed piece by
//! piece and never held whole, and so is one that is stored with another codec.
//!
//! A check is a machine that stops when its [`Budget`] is spent and goes on where it stopped, so that no
//! batch holds a shard up.
//!
//! Error codes are those of Kafka's `LogValidator`, `ProduceRequest` and `UnifiedLog`, but where Kafka answers
//! UNKNOWN_SERVER_ERROR: a codec that does not exist gets UNSUPPORTED_COMPRESSION_TYPE, and records that cannot be
//! decompressed under a checksum that holds get INVALID_RECORD. Stricter than Kafka are: bytes behind the batch or
//! behind its LZ4 frame, offset deltas that skip, and lengths below -1 are refused with INVALID_RECORD.

use std::borrow::Cow;

use bytes::Bytes;

use super::batch::{self, BatchError, BatchInfo, HEADER_BYTES};
use super::codec::{self, Codec, CodecError, CodecPool, Decoder};
use crate::config::{CompressionType, TimestampType, TopicConfig};
use crate::wire::ErrorCode;

mod recode;
mod source;
mod tally;

use recode::Recode;
use source::{Pause, Stream};
use tally::Tally;

/// The first Produce version that may carry zstd.
pub const ZSTD_PRODUCE_VERSION_MIN: i16 = 7;
/// How many wrong records of a batch are named, so that an answer never outgrows its request.
pub const RECORD_ERRORS_MAX: usize = 100;

/// What a batch has to keep to: the topic's configuration and the version of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchRules {
    /// Version of the Produce request.
    pub produce_version: i16,
    /// `max.message.bytes`: of the batch as sent, and as stored.
    pub max_message_bytes: u64,
    /// `message.timestamp.type`
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`
    pub timestamp_after_max_ms: i64,
    /// Whether `cleanup.policy` has `compact`: every record needs a key.
    pub compacted: bool,
    /// `compression.type`
    pub compression_type: CompressionType,
}

impl BatchRules {
    /// The rules of a topic for one request.
    pub fn of(topic: &TopicConfig, produce_version: i16) -> BatchRules {
        BatchRules {
            produce_version,
            max_message_bytes: topic.max_message_bytes,
            timestamp_type: topic.timestamp_type,
            timestamp_before_max_ms: topic.timestamp_before_max_ms,
            timestamp_after_max_ms: topic.timestamp_after_max_ms,
            compacted: topic.cleanup_policy.compact,
            compression_type: topic.compression_type,
        }
    }

    /// The codec and level that a batch of this codec is stored with; `None` keeps it as it is.
    fn other_codec(&self, sent: Codec) -> Option<(Codec, Option<i32>)> {
        let stored = match self.compression_type {
            CompressionType::Producer => return None,
            CompressionType::None => (Codec::None, None),
            CompressionType::Gzip(level) => (Codec::Gzip, Some(level)),
            CompressionType::Snappy => (Codec::Snappy, None),
            CompressionType::Lz4(level) => (Codec::Lz4, Some(level)),
            CompressionType::Zstd(level) => (Codec::Zstd, Some(level)),
        };
        (stored.0 != sent).then_some(stored)
    }
}

/// A batch that may be appended once sequence and leadership are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedBatch {
    /// Exactly one batch, at base offset 0.
    pub bytes: Bytes,
    /// What its header says.
    pub info: BatchInfo,
}

/// Why a batch is not appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchRejection {
    /// The partition's error code.
    pub error: ErrorCode,
    /// What is wrong with the batch, for the client's log.
    pub message: Option<Cow<'static, str>>,
    /// What is wrong with single records, by their index in the batch; the first [`RECORD_ERRORS_MAX`].
    pub record_errors: Vec<(i32, Option<String>)>,
}

impl BatchRejection {
    fn new(error: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { error, message: Some(message.into()), record_errors: Vec::new() }
    }

    fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::InvalidRecord, message)
    }
}

impl From<BatchError> for BatchRejection {
    fn from(error: BatchError) -> Self {
        let code = match error {
            BatchError::Short(_) | BatchError::Magic(0 | 1) => ErrorCode::InvalidRecord,
            BatchError::Offsets { .. } | BatchError::Count(_) => ErrorCode::InvalidRecord,
            BatchError::Magic(_) | BatchError::Length(_) => ErrorCode::CorruptMessage,
            BatchError::Codec(_) => ErrorCode::UnsupportedCompressionType,
        };
        Self::new(code, error.to_string())
    }
}

impl From<CodecError> for BatchRejection {
    fn from(error: CodecError) -> Self {
        let code = match error {
            CodecError::Corrupt => ErrorCode::InvalidRecord,
            CodecError::TooLarge(_) => ErrorCode::MessageTooLarge,
        };
        Self::new(code, error.to_string())
    }
}

/// [`Check`] for a single batch, in one go.
pub fn check(records: Bytes, rules: &BatchRules, wall_ms: i64) -> Result<CheckedBatch, BatchRejection> {
    check_with(&mut CodecPool::default(), records, rules, wall_ms)
}

/// [`Check`] in one go. Transactional batches pass; whether they are allowed is for the request to say
/// ([`BatchInfo::is_transactional`]).
pub fn check_with(
    pool: &mut CodecPool,
    records: Bytes,
    rules: &BatchRules,
    wall_ms: i64,
) -> Result<CheckedBatch, BatchRejection> {
    let mut check = Check::new(records, rules, wall_ms)?;
    loop {
        if let Some(result) = check.step(pool, &mut Budget::new(i64::MAX)) {
            return result;
        }
    }
}

/// What one slice of work may cost. A pure machine has no clock: the costs are estimates, in nanoseconds of one
/// core, and small errors of theirs do not matter.
#[derive(Debug)]
pub struct Budget {
    left_ns: i64,
}

impl Budget {
    /// What is checked at once when a request arrives: the records of about 64 KiB of the slowest codec.
    pub const INLINE_NS: i64 = 300_000;
    /// What is checked in one turn of a shard, over all its connections.
    pub const SLICE_NS: i64 = 700_000;

    /// What is checked at a time of batches whose check is out of proportion to their size.
    pub const OUT_OF_PROPORTION_NS: i64 = 250_000;

    /// A budget of that many estimated nanoseconds.
    pub fn new(ns: i64) -> Self {
        Self { left_ns: ns }
    }

    /// What is left, in estimated nanoseconds; below zero where the last step cost more.
    pub fn left_ns(&self) -> i64 {
        self.left_ns
    }

    /// Whether nothing is left.
    pub fn is_spent(&self) -> bool {
        self.left_ns <= 0
    }

    fn spend(&mut self, ns: usize) {
        self.left_ns = self.left_ns.saturating_sub_unsigned(ns as u64);
    }

    /// Spends on work that costs that much for every 64 bytes.
    fn spend_on(&mut self, bytes: usize, ns_per_64_bytes: usize) {
        self.spend((bytes / 64).saturating_mul(ns_per_64_bytes));
    }
}

/// Bytes whose checksum is taken between two looks at the budget.
const CHECKSUM_BYTES: usize = 1 << 20;
const CHECKSUM_NS_PER_64_BYTES: usize = 5;

/// The check of one batch.
#[derive(Debug)]
pub struct Check {
    records: Bytes,
    info: BatchInfo,
    rules: BatchRules,
    stage: Stage,
    tally: Tally,
    recode: Option<Box<Recode>>,
}

#[derive(Debug)]
enum Stage {
    /// The checksum of the bytes before `at`.
    Checksum { at: usize, crc: u32 },
    /// Uncompressed records, up to `at`.
    Plain { at: usize },
    /// Compressed records.
    Stream(Codec, Box<Stream>),
    /// Uncompressed records have passed and are compressed, up to `at`.
    Recode { at: usize },
}

impl Check {
    /// Begins the check of what a producer sent for one partition.
    pub fn new(records: Bytes, rules: &BatchRules, wall_ms: i64) -> Result<Self, BatchRejection> {
        let info = BatchInfo::parse(&records)?;
        check_envelope(&records, &info, rules)?;
        let stage = Stage::Checksum { at: batch::ATTRIBUTES_AT, crc: 0 };
        let tally = Tally::new(&info, rules, wall_ms);
        Ok(Self { records, info, rules: *rules, stage, tally, recode: None })
    }

    /// Goes on until the check is done or the budget is spent, but at least a little; `None` means to come
    /// again. Not to be called after it was done.
    pub fn step(
        &mut self,
        pool: &mut CodecPool,
        budget: &mut Budget,
    ) -> Option<Result<CheckedBatch, BatchRejection>> {
        loop {
            let step = match &mut self.stage {
                Stage::Checksum { .. } => self.checksum(pool, budget),
                Stage::Plain { .. } => self.plain(pool, budget),
                Stage::Stream(..) => self.stream(pool, budget),
                Stage::Recode { .. } => self.compress(pool, budget),
            };
            match step {
                Ok(None) if budget.is_spent() => return None,
                Ok(None) => {}
                Ok(Some(done)) => return Some(Ok(done)),
                Err(rejection) => return Some(Err(rejection)),
            }
        }
    }

    fn body(&self) -> &[u8] {
        self.records.get(HEADER_BYTES..).unwrap_or_default()
    }

    fn checksum(&mut self, pool: &mut CodecPool, budget: &mut Budget) -> Stepped {
        let Stage::Checksum { at, crc } = &mut self.stage else { return Ok(None) };
        let rest = self.records.get(*at..).unwrap_or_default();
        let bytes = rest.get(..CHECKSUM_BYTES).unwrap_or(rest);
        *crc = batch::crc_on(*crc, bytes);
        *at += bytes.len();
        budget.spend_on(bytes.len(), CHECKSUM_NS_PER_64_BYTES);
        if *at < self.records.len() {
            return Ok(None);
        }
        if *crc != self.info.crc {
            let message = "The checksum of the batch does not hold.";
            return Err(BatchRejection::new(ErrorCode::CorruptMessage, message));
        }
        let codec = check_header(&self.info, &self.rules)?;
        if let Some((stored, level)) = self.rules.other_codec(codec) {
            self.recode = Some(Box::new(Recode::new(stored, level, self.rules.max_message_bytes, pool)));
        }
        let limit_bytes = codec::decompressed_bytes_limit(self.body().len());
        self.stage = match Decoder::new(codec, limit_bytes, pool) {
            None => Stage::Plain { at: 0 },
            Some(decoder) => Stage::Stream(codec, Box::new(Stream::new(decoder, pool))),
        };
        Ok(None)
    }

    fn plain(&mut self, pool: &mut CodecPool, budget: &mut Budget) -> Stepped {
        let Stage::Plain { at } = &mut self.stage else { return Ok(None) };
        let body = self.records.get(HEADER_BYTES..).unwrap_or_default();
        let mut rest = body.get(*at..).unwrap_or_default();
        let pause = self.tally.read(&mut rest, true, budget)?;
        *at = body.len() - rest.len();
        if pause != Pause::Done {
            return Ok(None);
        }
        if self.recode.is_some() {
            self.tally.refuse()?;
            self.stage = Stage::Recode { at: 0 };
            return Ok(None);
        }
        self.finish(pool).map(Some)
    }

    fn stream(&mut self, pool: &mut CodecPool, budget: &mut Budget) -> Stepped {
        let body = self.records.get(HEADER_BYTES..).unwrap_or_default();
        let Stage::Stream(codec, stream) = &mut self.stage else { return Ok(None) };
        let codec = *codec;
        if stream.wants_more() {
            let more = stream.read(body)?;
            budget.spend(source::PIECE_NS);
            budget.spend_on(more.len(), source::ns_per_64_bytes(codec));
            if let Some(recode) = &mut self.recode {
                recode.write(more, budget);
            }
        }
        if stream.check(&mut self.tally, budget)? != Pause::Done {
            return Ok(None);
        }
        if let Stage::Stream(_, stream) = std::mem::replace(&mut self.stage, Stage::Recode { at: 0 }) {
            stream.retire(pool);
        }
        self.finish(pool).map(Some)
    }

    fn compress(&mut self, pool: &mut CodecPool, budget: &mut Budget) -> Stepped {
        let Stage::Recode { at } = &mut self.stage else { return Ok(None) };
        let body = self.records.get(HEADER_BYTES..).unwrap_or_default();
        let rest = body.get(*at..).unwrap_or_default();
        let bytes = rest.get(..source::RECODE_BYTES).unwrap_or(rest);
        *at += bytes.len();
        if let Some(recode) = &mut self.recode {
            recode.write(bytes, budget);
        }
        if *at < body.len() { Ok(None) } else { self.finish(pool).map(Some) }
    }

    fn finish(&mut self, pool: &mut CodecPool) -> Result<CheckedBatch, BatchRejection> {
        self.tally.refuse()?;
        let (records, info, rules) = (std::mem::take(&mut self.records), self.info, &self.rules);
        let max_timestamp_ms = self.tally.max_timestamp_ms();
        let bytes = if let Some(recode) = self.recode.take() {
            recode.finish(&records, max_timestamp_ms, pool)?
        } else if rules.timestamp_type == TimestampType::CreateTime
            && (info.max_timestamp_ms != max_timestamp_ms || info.is_log_append_time())
        {
            batch::with_create_time(&records, max_timestamp_ms)
        } else {
            return Ok(CheckedBatch { bytes: records, info });
        };
        let info = BatchInfo::parse(&bytes)?;
        check_length(&info, rules)?;
        Ok(CheckedBatch { bytes, info })
    }
}

/// Nothing yet, or a batch that passed.
type Stepped = Result<Option<CheckedBatch>, BatchRejection>;

fn check_length(info: &BatchInfo, rules: &BatchRules) -> Result<(), BatchRejection> {
    if u64::from(info.length_bytes) <= rules.max_message_bytes {
        return Ok(());
    }
    let (length, max) = (info.length_bytes, rules.max_message_bytes);
    let message = format!("The record batch has {length} bytes, the topic allows {max}.");
    Err(BatchRejection::new(ErrorCode::MessageTooLarge, message))
}

/// Everything that can be said before the checksum is known to hold.
fn check_envelope(records: &[u8], info: &BatchInfo, rules: &BatchRules) -> Result<(), BatchRejection> {
    if records.len() != info.length_bytes as usize {
        return Err(BatchRejection::invalid("A partition's records must be exactly one complete batch."));
    }
    if info.base_offset != 0 {
        let message = format!("The base offset of a batch must be 0, but it is {}.", info.base_offset);
        return Err(BatchRejection::invalid(message));
    }
    check_length(info, rules)
}

/// What the header says, once the checksum holds.
fn check_header(info: &BatchInfo, rules: &BatchRules) -> Result<Codec, BatchRejection> {
    let codec = info.codec()?;
    if codec == Codec::Zstd && rules.produce_version < ZSTD_PRODUCE_VERSION_MIN {
        let message = "Produce requests below version 7 may not carry zstd.";
        return Err(BatchRejection::new(ErrorCode::UnsupportedCompressionType, message));
    }
    if info.record_count == 0 || i64::from(info.last_offset_delta) + 1 != i64::from(info.record_count) {
        let (delta, count) = (info.last_offset_delta, info.record_count);
        let message = format!("The batch has a last offset delta of {delta} and a count of {count} records.");
        return Err(BatchRejection::invalid(message));
    }
    if info.is_control() {
        return Err(BatchRejection::invalid("Clients are not allowed to write control records."));
    }
    // Kafka takes any other id than -1 as a producer's; an id below it is nobody's.
    if info.has_producer() && (info.base_sequence < 0 || info.producer_id < 0) {
        let (producer_id, sequence) = (info.producer_id, info.base_sequence);
        let message = format!("The batch has sequence {sequence} for producer id {producer_id}.");
        return Err(BatchRejection::invalid(message));
    }
    Ok(codec)
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
