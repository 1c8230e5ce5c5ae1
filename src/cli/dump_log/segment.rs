//! Batches of a `.log` file, in order, with the checks that need nothing else.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::{Dump, cannot_read, line, open};
use crate::log::batch::{BatchInfo, HEADER_BYTES, crc_holds};
use crate::log::codec::{Codec, Decompressor, decompressed_bytes_limit};
use crate::log::record::{Record, Records};

/// Reads a segment batch by batch into a buffer that is reused.
pub(super) struct Batches<'a> {
    path: &'a Path,
    file: BufReader<File>,
    position: u64,
    file_bytes: u64,
    bytes: Vec<u8>,
    decompressor: Decompressor,
}

impl<'a> Batches<'a> {
    /// From the first batch on.
    pub(super) fn open(path: &'a Path) -> Result<Self, String> {
        let file = open(path)?;
        let file_bytes = file.metadata().map_err(|error| cannot_read(path, &error))?.len();
        let (bytes, decompressor) = (Vec::new(), Decompressor::default());
        Ok(Self { path, file: BufReader::new(file), position: 0, file_bytes, bytes, decompressor })
    }

    /// Goes on at another position.
    pub(super) fn seek(&mut self, position: u64) -> Result<(), String> {
        self.position = position;
        self.file.seek(SeekFrom::Start(position)).map_err(|error| cannot_read(self.path, &error)).map(drop)
    }

    /// Bytes that are not read yet.
    pub(super) fn rest_bytes(&self) -> u64 {
        self.file_bytes.saturating_sub(self.position)
    }

    /// The next batch and its position; none at the end, and where no whole batch follows.
    pub(super) fn next(&mut self) -> Result<Option<(BatchInfo, u64)>, String> {
        self.bytes.clear();
        let failed = |error| cannot_read(self.path, &error);
        self.file.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut self.bytes).map_err(failed)?;
        let Ok(info) = BatchInfo::parse(&self.bytes) else { return Ok(None) };
        let length_bytes = u64::from(info.length_bytes);
        if length_bytes > self.rest_bytes() {
            return Ok(None);
        }
        let body_bytes = length_bytes - HEADER_BYTES as u64;
        self.file.by_ref().take(body_bytes).read_to_end(&mut self.bytes).map_err(failed)?;
        let position = self.position;
        self.position += length_bytes;
        Ok(Some((info, position)))
    }

    /// Whether the checksum of the batch that was read last holds.
    pub(super) fn is_valid(&self, info: &BatchInfo) -> bool {
        crc_holds(&self.bytes, info)
    }

    /// The records of the batch that was read last.
    pub(super) fn records(&mut self, info: &BatchInfo) -> Result<Records<'_>, String> {
        let body = self.bytes.get(HEADER_BYTES..).unwrap_or_default();
        let codec = info.codec().map_err(|error| error.to_string())?;
        if codec == Codec::None {
            return Ok(Records::new(body));
        }
        let limit_bytes = decompressed_bytes_limit(body.len());
        self.decompressor
            .decompress(codec, body, limit_bytes)
            .map(Records::new)
            .map_err(|error| error.to_string())
    }
}

impl<W: Write> Dump<'_, W> {
    pub(super) fn segment(&mut self) -> Result<(), String> {
        let deep = self.options.deep_iteration || self.options.print_data_log;
        let base_offset = self.base_offset()?;
        let mut batches = Batches::open(self.path)?;
        line!(self, "Log starting offset: {base_offset}")?;
        let (mut invalid, mut gaps) = (Vec::new(), Vec::new());
        let mut previous: Option<i64> = None;
        while batches.position < self.options.max_bytes
            && let Some((info, position)) = batches.next()?
        {
            let valid = batches.is_valid(&info);
            if !valid {
                invalid
                    .push(format!("the checksum of the batch at offset {} does not hold", info.base_offset));
            }
            self.batch(&info, position, valid)?;
            if let Some(last) = previous.filter(|last| *last + 1 != info.base_offset) {
                gaps.push(format!("{last} is followed by {}", info.base_offset));
            }
            previous = Some(info.last_offset());
            if deep && let Err(why) = self.records(&mut batches, &info)? {
                invalid.push(format!("the batch at offset {}: {why}", info.base_offset));
            }
        }
        self.complain("Invalid batches in", &invalid);
        self.complain("Non-consecutive offsets in", &gaps);
        let rest_bytes = batches.rest_bytes();
        if rest_bytes > 0 && batches.position < self.options.max_bytes {
            let found = format!("Found {rest_bytes} invalid bytes at the end of {}", self.path.display());
            line!(self, "{found}")?;
            self.complaints.push(found);
        }
        Ok(())
    }

    fn batch(&mut self, info: &BatchInfo, position: u64, valid: bool) -> Result<(), String> {
        let horizon = match info.has_delete_horizon() {
            true => format!("OptionalLong[{}]", info.base_timestamp_ms),
            false => "OptionalLong.empty".to_owned(),
        };
        let codec = match info.codec() {
            Ok(Codec::None) => "none",
            Ok(Codec::Gzip) => "gzip",
            Ok(Codec::Snappy) => "snappy",
            Ok(Codec::Lz4) => "lz4",
            Ok(Codec::Zstd) => "zstd",
            Err(_) => "unknown",
        };
        line!(
            self,
            "baseOffset: {} lastOffset: {} count: {} baseSequence: {} lastSequence: {} producerId: {} producerEpoch: {} \
             partitionLeaderEpoch: {} isTransactional: {} isControl: {} deleteHorizonMs: {horizon} position: {position} \
             {}: {} size: {} magic: 2 compresscodec: {codec} crc: {} isvalid: {valid}",
            info.base_offset,
            info.last_offset(),
            info.record_count,
            info.base_sequence,
            info.last_sequence(),
            info.producer_id,
            info.producer_epoch,
            info.leader_epoch,
            info.is_transactional(),
            info.is_control(),
            timestamp_kind(info),
            info.max_timestamp_ms,
            info.length_bytes,
            info.crc,
        )
    }

    /// Shows the records of a batch; why the rest of them cannot be read, if so.
    fn records(&mut self, batches: &mut Batches, info: &BatchInfo) -> Result<Result<(), String>, String> {
        let records = match batches.records(info) {
            Ok(records) => records,
            Err(why) => return Ok(Err(why)),
        };
        for record in records {
            match record {
                Ok(record) => self.record(info, &record)?,
                Err(why) => return Ok(Err(why.to_string())),
            }
        }
        Ok(Ok(()))
    }

    fn record(&mut self, info: &BatchInfo, record: &Record) -> Result<(), String> {
        if self.options.skip_record_metadata && info.is_control() {
            return Ok(());
        }
        let mut text = "|".to_owned();
        if !self.options.skip_record_metadata {
            let size = |field: Option<&[u8]>| field.map_or(-1, |bytes| bytes.len() as i64);
            let sequence = match info.base_sequence {
                ..0 => -1,
                base => (i64::from(base) + i64::from(record.offset_delta)) & i64::from(i32::MAX),
            };
            let keys: Vec<_> = record.headers().map(|(key, _)| String::from_utf8_lossy(key)).collect();
            text += &format!(
                " offset: {} {}: {} keySize: {} valueSize: {} sequence: {sequence} headerKeys: [{}]",
                info.base_offset + i64::from(record.offset_delta),
                timestamp_kind(info),
                timestamp_ms(info, record),
                size(record.key),
                size(record.value),
                keys.join(","),
            );
            if info.is_control() {
                text += &marker(record);
            }
        }
        if self.options.print_data_log && !info.is_control() {
            for (name, field) in [("key", record.key), ("payload", record.value)] {
                if let Some(bytes) = field {
                    text += &format!(" {name}: {}", String::from_utf8_lossy(bytes));
                }
            }
        }
        line!(self, "{text}")
    }
}

fn timestamp_kind(info: &BatchInfo) -> &'static str {
    if info.is_log_append_time() { "LogAppendTime" } else { "CreateTime" }
}

/// A record's own timestamp.
pub(super) fn timestamp_ms(info: &BatchInfo, record: &Record) -> i64 {
    if info.is_log_append_time() {
        return info.max_timestamp_ms;
    }
    info.base_timestamp_ms.saturating_add(record.timestamp_delta_ms)
}

/// What a control record says: the end of a transaction (key: version i16, type i16; value: version
/// i16, coordinator epoch i32).
fn marker(record: &Record) -> String {
    let kind = record.key.and_then(|key| key.get(2..4)).and_then(|bytes| bytes.first_chunk::<2>());
    let epoch = record.value.and_then(|value| value.get(2..6)).and_then(|bytes| bytes.first_chunk::<4>());
    let name = match kind.map(|bytes| i16::from_be_bytes(*bytes)) {
        Some(0) => "ABORT",
        Some(1) => "COMMIT",
        _ => return " controlType: UNKNOWN".to_owned(),
    };
    let epoch = epoch.map_or(-1, |bytes| i32::from_be_bytes(*bytes));
    format!(" endTxnMarker: {name} coordinatorEpoch: {epoch}")
}
