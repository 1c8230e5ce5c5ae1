//! Records of the offsets topic as the batches of its log: format v2, as Kafka's coordinator writes them.

use bytes::Bytes;

use crate::group::Record;
use crate::log::batch::{BatchBuilder, BatchInfo, HEADER_BYTES, crc_holds};
use crate::log::check::CheckedBatch;
use crate::log::codec::{Codec, Decompressor, decompressed_bytes_limit};
use crate::log::record::Records;

/// Keys and values.
pub(super) type KeysAndValues = Vec<(Option<Bytes>, Option<Bytes>)>;

/// The records of one step as one batch.
pub(super) fn encode(records: &[Record], codec: Codec, wall_ms: i64) -> CheckedBatch {
    let mut builder = BatchBuilder::new().codec(codec);
    for record in records {
        builder.push(wall_ms, Some(&record.encode_key()), record.encode_value().as_deref(), &[]);
    }
    let bytes = builder.build();
    let info = BatchInfo::parse(&bytes).expect("a batch that was built has a header");
    CheckedBatch { bytes, info }
}

/// The records at or above `offset` in the whole batches at the start of `bytes`, and the offset behind them. Markers
/// of transactions are no records. The error is in words for the operator.
pub(super) fn decode(mut bytes: Bytes, offset: i64) -> Result<(KeysAndValues, i64), String> {
    let mut found = Vec::new();
    let mut next = offset;
    let mut decompressor = Decompressor::default();
    while bytes.len() >= HEADER_BYTES {
        let info =
            BatchInfo::parse(&bytes).map_err(|error| format!("a batch behind offset {next}: {error}"))?;
        let length = info.length_bytes as usize;
        if length > bytes.len() {
            break;
        }
        let batch = bytes.split_to(length);
        if !crc_holds(&batch, &info) {
            return Err(format!("the batch at offset {} is damaged", info.base_offset));
        }
        if !info.is_control() && info.last_offset() >= next {
            let body = batch.slice(HEADER_BYTES..);
            let codec = info.codec().map_err(|error| error.to_string())?;
            let plain = match codec {
                Codec::None => body,
                codec => {
                    let limit_bytes = decompressed_bytes_limit(body.len());
                    let plain = decompressor.decompress(codec, &body, limit_bytes);
                    Bytes::copy_from_slice(plain.map_err(|error| error.to_string())?)
                }
            };
            read(&plain, info.base_offset, next, &mut found)?;
        }
        next = next.max(info.last_offset().saturating_add(1));
    }
    Ok((found, next))
}

fn read(plain: &Bytes, base_offset: i64, first: i64, found: &mut KeysAndValues) -> Result<(), String> {
    for record in Records::new(plain) {
        let record =
            record.map_err(|error| format!("a record of the batch at offset {base_offset}: {error}"))?;
        if base_offset.saturating_add(i64::from(record.offset_delta)) >= first {
            let shared = |field: Option<&[u8]>| field.map(|field| plain.slice_ref(field));
            found.push((shared(record.key), shared(record.value)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(base_offset: i64, codec: Codec, keys: &[&str]) -> Vec<u8> {
        let mut builder = BatchBuilder::new().codec(codec).base_offset(base_offset);
        for key in keys {
            builder.push(7, Some(key.as_bytes()), None, &[]);
        }
        builder.build().to_vec()
    }

    fn keys(bytes: Vec<u8>, offset: i64) -> (Vec<String>, i64) {
        let (found, next) = decode(Bytes::from(bytes), offset).unwrap();
        let text = |key: Option<Bytes>| String::from_utf8(key.unwrap().to_vec()).unwrap();
        (found.into_iter().map(|(key, _)| text(key)).collect(), next)
    }

    #[test]
    fn records_come_from_whole_batches_of_any_codec_and_from_the_offset_on() {
        let mut bytes = batch(10, Codec::None, &["a", "b"]);
        bytes.extend(batch(12, Codec::Lz4, &["c", "d"]));
        bytes.extend(BatchBuilder::new().control().base_offset(14).record(7, Some(b"m"), None).build());
        let whole = bytes.len();
        bytes.extend(&batch(15, Codec::None, &["e"])[..65]);
        let all = ["a", "b", "c", "d"].map(String::from).to_vec();
        assert_eq!(keys(bytes.clone(), 10), (all.clone(), 15));
        assert_eq!(keys(bytes.clone(), 11), (all[1..].to_vec(), 15));
        assert_eq!(keys(bytes[..whole].to_vec(), 14), (vec![], 15));
        assert_eq!(keys(vec![], 3), (vec![], 3));
    }

    #[test]
    fn damage_is_told_and_nothing_is_skipped() {
        let mut bytes = batch(10, Codec::None, &["a"]);
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(decode(Bytes::from(bytes), 10).unwrap_err(), "the batch at offset 10 is damaged");
    }
}
