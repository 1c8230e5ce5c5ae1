//! Fetched bytes into records: batch by batch, CRC checked, decompressed within a limit.

use std::sync::Arc;

use bytes::Bytes;

use super::ClientError;
use crate::log::batch::{BatchInfo, HEADER_BYTES, crc_holds};
use crate::log::codec::{Decompressor, decompressed_bytes_limit};
use crate::log::record::Records;

/// What a record's timestamp is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordTimestamp {
    /// The producer's, milliseconds since the Unix epoch.
    CreateTime(i64),
    /// The broker's at the append, milliseconds since the Unix epoch.
    LogAppendTime(i64),
}

/// One record of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// Its topic's name.
    pub topic: Arc<str>,
    /// Number of its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Epoch of the leader that wrote it, if it is known.
    pub leader_epoch: Option<i32>,
    /// Its timestamp; `None` when it has none (-1).
    pub timestamp: Option<RecordTimestamp>,
    /// Key, if it has one.
    pub key: Option<Bytes>,
    /// Value, if it has one.
    pub value: Option<Bytes>,
    /// Headers in order.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// Which records are wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct From<'a> {
    pub topic: &'a Arc<str>,
    pub partition: i32,
    /// The first record to be given.
    pub offset: i64,
}

/// Reads the whole batches at the start of `bytes`, giving the records that are wanted to `take`; the rest of
/// the bytes may be a batch that was cut short. Returns the offset to go on from.
pub(super) fn read(
    from: From<'_>,
    bytes: &[u8],
    decompressor: &mut Decompressor,
    take: &mut Vec<ConsumedRecord>,
) -> Result<i64, ClientError> {
    let From { topic, partition, mut offset } = from;
    let mut rest = bytes;
    while rest.len() >= HEADER_BYTES {
        let corrupt =
            |reason: String| ClientError::Corrupt { topic: topic.to_string(), partition, offset, reason };
        let info = BatchInfo::parse(rest).map_err(|error| corrupt(error.to_string()))?;
        let Some((batch, after)) = rest.split_at_checked(info.length_bytes as usize) else { break };
        if !crc_holds(batch, &info) {
            return Err(corrupt("the checksum does not hold".to_owned()));
        }
        if info.last_offset() >= offset {
            if !info.is_control() {
                let from = From { topic, partition, offset };
                read_batch(from, batch, &info, decompressor, take).map_err(corrupt)?;
            }
            offset = info.last_offset().saturating_add(1);
        }
        rest = after;
    }
    Ok(offset)
}

fn read_batch(
    from: From<'_>,
    batch: &[u8],
    info: &BatchInfo,
    decompressor: &mut Decompressor,
    take: &mut Vec<ConsumedRecord>,
) -> Result<(), String> {
    let body = batch.get(HEADER_BYTES..).unwrap_or_default();
    let codec = info.codec().map_err(|error| error.to_string())?;
    let limit_bytes = decompressed_bytes_limit(body.len());
    let body = decompressor.decompress(codec, body, limit_bytes).map_err(|error| error.to_string())?;
    let shared = Bytes::copy_from_slice(body);
    let mut count = 0_i64;
    for record in Records::new(&shared) {
        let record = record.map_err(|error| error.to_string())?;
        count += 1;
        let offset = info.base_offset.saturating_add(i64::from(record.offset_delta));
        if offset < from.offset {
            continue;
        }
        let timestamp = if info.is_log_append_time() {
            Some(RecordTimestamp::LogAppendTime(info.max_timestamp_ms))
        } else {
            let ms = info.base_timestamp_ms.saturating_add(record.timestamp_delta_ms);
            (ms >= 0).then_some(RecordTimestamp::CreateTime(ms))
        };
        take.push(ConsumedRecord {
            topic: Arc::clone(from.topic),
            partition: from.partition,
            offset,
            leader_epoch: (info.leader_epoch >= 0).then_some(info.leader_epoch),
            timestamp,
            key: record.key.map(|key| shared.slice_ref(key)),
            value: record.value.map(|value| shared.slice_ref(value)),
            headers: record
                .headers()
                .map(|(name, value)| (shared.slice_ref(name), value.map(|value| shared.slice_ref(value))))
                .collect(),
        });
    }
    if count != i64::from(info.record_count) {
        return Err(format!("the batch counts {} records and holds {count}", info.record_count));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::batch::BatchBuilder;
    use crate::log::codec::Codec;

    fn batches() -> Vec<u8> {
        let mut bytes = Vec::new();
        for (base_offset, codec) in [(0, Codec::None), (3, Codec::Lz4), (6, Codec::Zstd)] {
            let mut builder = BatchBuilder::new().codec(codec).base_offset(base_offset);
            builder.push(10, Some(b"k"), Some(b"v"), &[(b"h", Some(b"x")), (b"n", None)]);
            builder.push(11, None, Some(b""), &[]).push(12, Some(b""), None, &[]);
            bytes.extend_from_slice(&builder.build());
        }
        bytes
    }

    fn read_from(offset: i64, bytes: &[u8]) -> Result<(i64, Vec<ConsumedRecord>), ClientError> {
        let mut taken = Vec::new();
        let from = From { topic: &Arc::from("t"), partition: 4, offset };
        let next = read(from, bytes, &mut Decompressor::default(), &mut taken)?;
        Ok((next, taken))
    }

    #[test]
    fn records_come_back_from_the_offset_on() {
        let (next, taken) = read_from(1, &batches()).unwrap();
        let offsets: Vec<i64> = taken.iter().map(|record| record.offset).collect();
        assert_eq!((next, offsets), (9, vec![1, 2, 3, 4, 5, 6, 7, 8]));
        let full = &taken[2];
        assert_eq!(full.headers, [("h".into(), Some("x".into())), ("n".into(), None)]);
        assert_eq!(full.timestamp, Some(RecordTimestamp::CreateTime(10)));
        assert_eq!((taken[1].key.as_deref(), taken[1].value.as_deref()), (Some(&b""[..]), None));
    }

    #[test]
    fn a_batch_that_is_cut_short_waits_for_the_next_fetch() {
        let bytes = batches();
        let (next, taken) = read_from(0, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!((next, taken.len()), (6, 6));
        assert_eq!(read_from(0, &bytes[..10]).unwrap(), (0, vec![]));
    }

    #[test]
    fn any_changed_byte_of_a_body_is_noticed() {
        for at in HEADER_BYTES..HEADER_BYTES + 20 {
            let mut bytes = batches();
            bytes[at] ^= 1;
            assert!(matches!(read_from(0, &bytes), Err(ClientError::Corrupt { .. })), "{at}");
        }
    }
}
