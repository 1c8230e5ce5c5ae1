//! The stateless check of what a producer sent for one partition, before anything is appended.
//!
//! What passes is exactly one batch of format v2 whose checksum holds and whose every record was read:
//! lengths, offsets 0, 1, 2, …, count, and nothing behind the last one. The bytes stay the producer's
//! own unless the header's largest timestamp is wrong or the topic stores another codec. An
//! uncompressed batch is read in one pass that allocates nothing. Error codes are those of Kafka's
//! `LogValidator`, `ProduceRequest` and `UnifiedLog`; stricter than Kafka are: bytes behind the batch,
//! offset deltas that skip, and lengths below -1 are refused with INVALID_RECORD.

use std::borrow::Cow;

use bytes::Bytes;

use super::batch::{self, BatchError, BatchInfo, HEADER_BYTES};
use super::codec::{self, Codec, CodecError, Decompressor};
use super::record::Record;
use crate::config::{CompressionType, TimestampType, TopicConfig};
use crate::wire::ErrorCode;

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
            CodecError::Corrupt => ErrorCode::CorruptMessage,
            CodecError::TooLarge(_) => ErrorCode::MessageTooLarge,
        };
        Self::new(code, error.to_string())
    }
}

/// [`check_with`] for a single batch.
pub fn check(records: Bytes, rules: &BatchRules, wall_ms: i64) -> Result<CheckedBatch, BatchRejection> {
    check_with(&mut Decompressor::default(), records, rules, wall_ms)
}

/// Checks what a producer sent for one partition. Transactional batches pass; whether they are
/// allowed is for the request to say ([`BatchInfo::is_transactional`]).
pub fn check_with(
    decompressor: &mut Decompressor,
    records: Bytes,
    rules: &BatchRules,
    wall_ms: i64,
) -> Result<CheckedBatch, BatchRejection> {
    let info = BatchInfo::parse(&records)?;
    let codec = check_header(&records, &info, rules)?;
    let (_, body) = records.split_at_checked(HEADER_BYTES).unwrap_or_default();
    let plain = match codec {
        Codec::None => body,
        _ => decompressor.decompress(codec, body, codec::decompressed_bytes_limit(body.len()))?,
    };
    let max_timestamp_ms = check_records(plain, &info, rules, wall_ms)?;
    let bytes = if let Some((codec, level)) = rules.other_codec(codec) {
        let mut body = Vec::new();
        codec::compress(codec, level, plain, &mut body);
        batch::with_body(&records, codec, &body, max_timestamp_ms)
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

fn check_length(info: &BatchInfo, rules: &BatchRules) -> Result<(), BatchRejection> {
    if u64::from(info.length_bytes) <= rules.max_message_bytes {
        return Ok(());
    }
    let (length, max) = (info.length_bytes, rules.max_message_bytes);
    let message = format!("The record batch has {length} bytes, the topic allows {max}.");
    Err(BatchRejection::new(ErrorCode::MessageTooLarge, message))
}

/// Everything that can be said before the records are read; the checksum comes before what it covers.
fn check_header(records: &[u8], info: &BatchInfo, rules: &BatchRules) -> Result<Codec, BatchRejection> {
    if records.len() != info.length_bytes as usize {
        return Err(BatchRejection::invalid("A partition's records must be exactly one complete batch."));
    }
    if info.base_offset != 0 {
        let message = format!("The base offset of a batch must be 0, but it is {}.", info.base_offset);
        return Err(BatchRejection::invalid(message));
    }
    check_length(info, rules)?;
    if !batch::crc_holds(records, info) {
        return Err(BatchRejection::new(
            ErrorCode::CorruptMessage,
            "The checksum of the batch does not hold.",
        ));
    }
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

/// Reads every record and gives the largest timestamp, -1 when there is none.
fn check_records(
    plain: &[u8],
    info: &BatchInfo,
    rules: &BatchRules,
    wall_ms: i64,
) -> Result<i64, BatchRejection> {
    let create_time = rules.timestamp_type == TimestampType::CreateTime;
    let log_append_time = info.is_log_append_time();
    let earliest_ms = wall_ms.saturating_sub(rules.timestamp_before_max_ms);
    let latest_ms = wall_ms.saturating_add(rules.timestamp_after_max_ms);
    let mut wrong = WrongRecords::default();
    let mut max_timestamp_ms = -1;
    let mut rest = plain;
    for index in 0..info.record_count {
        let record = Record::read(&mut rest)
            .map_err(|error| BatchRejection::invalid(format!("Record {index} of the batch: {error}.")))?;
        if record.offset_delta != index {
            let message = format!("Record {index} of the batch has offset delta {}.", record.offset_delta);
            return Err(BatchRejection::invalid(message));
        }
        let timestamp_ms = if log_append_time {
            info.max_timestamp_ms
        } else {
            info.base_timestamp_ms.wrapping_add(record.timestamp_delta_ms)
        };
        max_timestamp_ms = max_timestamp_ms.max(timestamp_ms);
        if rules.compacted && record.key.is_none() {
            wrong.add(index, Wrong::Key);
        } else if create_time && timestamp_ms != -1 {
            if timestamp_ms < earliest_ms || timestamp_ms > latest_ms {
                wrong.add(index, Wrong::Timestamp { timestamp_ms, earliest_ms, latest_ms });
            }
        } else if log_append_time {
            wrong.add(index, Wrong::TimestampType);
        }
    }
    if !rest.is_empty() {
        let (left, count) = (rest.len(), info.record_count);
        return Err(BatchRejection::invalid(format!(
            "{left} bytes follow the {count} records of the batch."
        )));
    }
    wrong.into_rejection().map_or(Ok(max_timestamp_ms), Err)
}

/// What can be wrong with a well-formed record.
enum Wrong {
    Key,
    Timestamp { timestamp_ms: i64, earliest_ms: i64, latest_ms: i64 },
    TimestampType,
}

#[derive(Default)]
struct WrongRecords {
    count: u32,
    any_timestamp: bool,
    named: Vec<(i32, Option<String>)>,
}

impl WrongRecords {
    #[cold]
    fn add(&mut self, index: i32, wrong: Wrong) {
        self.count += 1;
        self.any_timestamp |= !matches!(wrong, Wrong::Key);
        if self.named.len() == RECORD_ERRORS_MAX {
            return;
        }
        let message = match wrong {
            Wrong::Key => "A compacted topic does not accept a record without a key.".to_owned(),
            Wrong::Timestamp { timestamp_ms, earliest_ms, latest_ms } => {
                format!("Timestamp {timestamp_ms} is not within [{earliest_ms}, {latest_ms}].")
            }
            Wrong::TimestampType => "A producer may not set the timestamp type LogAppendTime.".to_owned(),
        };
        self.named.push((index, Some(message)));
    }

    fn into_rejection(self) -> Option<BatchRejection> {
        let (error, why) = match self.count {
            0 => return None,
            _ if self.any_timestamp => (ErrorCode::InvalidTimestamp, "an invalid timestamp"),
            _ => (ErrorCode::InvalidRecord, "a missing key"),
        };
        let message = format!("{} records of the batch are refused, one for {why}.", self.count);
        Some(BatchRejection { error, message: Some(message.into()), record_errors: self.named })
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
