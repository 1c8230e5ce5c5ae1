//! What topics ask of batches: codecs, timestamps, keys and sizes, as a client sees them.

use bytes::Bytes;
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use tidemill::client::Connection;
use tidemill::log::batch::{BatchBuilder, BatchInfo, HEADER_BYTES};
use tidemill::log::codec::{Codec, Decompressor};

use crate::process::Home;
use crate::wire::{append, connect, create, fetch, produce, produce_request};

const MESSAGE_TOO_LARGE: i16 = 10;
const INVALID_TIMESTAMP: i16 = 32;
const UNSUPPORTED_COMPRESSION_TYPE: i16 = 76;
const INVALID_RECORD: i16 = 87;

fn wall_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// Every batch of a partition with its decompressed records.
fn stored(connection: &mut Connection, topic: &str) -> Vec<(BatchInfo, Vec<u8>)> {
    let bytes = fetch(connection, topic, 0, 0).records.unwrap_or_default();
    let (mut rest, mut batches) = (&bytes[..], Vec::new());
    while let Ok(info) = BatchInfo::parse(rest) {
        let (batch, behind) = rest.split_at(info.length_bytes as usize);
        let mut decompressor = Decompressor::default();
        let plain = decompressor.decompress(info.codec().unwrap(), &batch[HEADER_BYTES..], 64 << 20).unwrap();
        batches.push((info, plain.to_vec()));
        rest = behind;
    }
    batches
}

/// Compressible records of this producer, with timestamps that rise by a millisecond.
fn sent(codec: Codec, sequence: i32, count: i32, first_ms: i64) -> Bytes {
    let mut builder = BatchBuilder::new().codec(codec).producer(77, 0, sequence);
    for n in 0..count {
        let value = format!("value {n} value {n} value {n}");
        builder.push(first_ms + i64::from(n), Some(b"key"), Some(value.as_bytes()), &[(b"h", None)]);
    }
    builder.build()
}

fn said(answer: &PartitionProduceResponse) -> Vec<i32> {
    answer.record_errors.iter().map(|error| error.batch_index).collect()
}

#[test]
fn a_topics_codec_is_what_is_stored_and_duplicates_are_still_known() {
    let home = Home::new(&["compression.zstd.level=5"]);
    let broker = home.start();
    let mut connection = connect(&broker);
    let types = [
        ("uncompressed", Codec::None),
        ("gzip", Codec::Gzip),
        ("snappy", Codec::Snappy),
        ("lz4", Codec::Lz4),
        ("zstd", Codec::Zstd),
    ];
    for (compression_type, codec) in types {
        create(&mut connection, compression_type, 1, &[("compression.type", compression_type)]);
        let mut sequence = 0;
        // The last one is large enough to be checked in slices.
        for (sent_as, count) in Codec::ALL.into_iter().zip([3, 3, 3, 3, 8_000]) {
            let batch = sent(sent_as, sequence, count, 5000);
            for _ in 0..2 {
                let answer = produce(&mut connection, compression_type, 0, -1, batch.clone());
                assert_eq!((answer.error_code, answer.base_offset), (0, i64::from(sequence)), "{sent_as:?}");
            }
            sequence += count;
        }
        let batches = stored(&mut connection, compression_type);
        assert_eq!(batches.len(), 5, "{compression_type}");
        let mut sequence = 0;
        for ((info, plain), count) in batches.into_iter().zip([3, 3, 3, 3, 8_000]) {
            assert_eq!(info.codec(), Ok(codec));
            assert_eq!((info.base_offset, info.base_sequence), (i64::from(sequence), sequence));
            assert_eq!((info.producer_id, info.producer_epoch, info.record_count), (77, 0, count));
            assert_eq!((info.base_timestamp_ms, info.max_timestamp_ms), (5000, 4999 + i64::from(count)));
            assert!(plain == sent(Codec::None, 0, count, 5000)[HEADER_BYTES..]);
            sequence += count;
        }
    }
}

#[test]
fn large_batches_in_slices_keep_their_order_and_let_others_go_first() {
    let home = Home::new(&["message.max.bytes=50000000", "shard.count=1"]);
    let broker = home.start();
    let (mut one, mut other) = (connect(&broker), connect(&broker));
    create(&mut one, "sliced", 1, &[("compression.type", "gzip")]);
    create(&mut one, "quick", 1, &[]);
    let count = 100_000;
    let requests: Vec<_> = (0..6)
        .map(|n| produce_request("sliced", -1, vec![(0, sent(Codec::Zstd, n * count, count, 9000))]))
        .collect();
    let tickets: Vec<_> = requests.iter().map(|request| one.send(request, 9).unwrap()).collect();
    for n in 0..20 {
        assert_eq!(append(&mut other, "quick", 0, &[b"v"]), n);
    }
    for (ticket, n) in tickets.into_iter().zip(0..) {
        let response = one.receive(ticket).unwrap();
        let answer = &response.responses[0].partition_responses[0];
        assert_eq!((answer.error_code, answer.base_offset), (0, i64::from(n * count)), "in frame order");
    }
    // A connection that goes away takes its checks along.
    drop(connect(&broker).send(&requests[0], 9));
    let mut again = connect(&broker);
    let answer = produce(&mut again, "sliced", 0, -1, sent(Codec::None, 6 * count, 1, 9000));
    assert_eq!((answer.error_code, answer.base_offset), (0, i64::from(6 * count)));
}

#[test]
fn timestamps_have_their_limits_and_the_brokers_clock_replaces_them() {
    let home = Home::new(&["log.message.timestamp.before.max.ms=60000"]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "strict", 1, &[("message.timestamp.after.max.ms", "120000")]);
    create(&mut connection, "stamped", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let now_ms = wall_ms();
    let off_by = |offsets_ms: [i64; 3], codec: Codec| {
        let builder = BatchBuilder::new().codec(codec);
        offsets_ms.iter().fold(builder, |builder, by| builder.record(now_ms + by, None, Some(b"v"))).build()
    };
    for codec in Codec::ALL {
        let answer = produce(&mut connection, "strict", 0, -1, off_by([0, -70_000, 200_000], codec));
        assert_eq!((answer.error_code, said(&answer)), (INVALID_TIMESTAMP, vec![1, 2]), "{codec:?}");
        assert!(
            answer.error_message.is_some() && answer.record_errors[0].batch_index_error_message.is_some()
        );
        let answer = produce(&mut connection, "strict", 0, -1, off_by([0, -30_000, 90_000], codec));
        assert_eq!((answer.error_code, answer.log_append_time_ms), (0, -1));
        let answer = produce(&mut connection, "stamped", 0, -1, off_by([0, -70_000, 200_000_000], codec));
        assert_eq!(answer.error_code, 0);
        assert!((now_ms..now_ms + 600_000).contains(&answer.log_append_time_ms));
        let batches = stored(&mut connection, "stamped");
        let (info, _) = batches.last().unwrap();
        assert!(info.is_log_append_time());
        assert_eq!((info.max_timestamp_ms, info.codec()), (answer.log_append_time_ms, Ok(codec)));
    }
    // Before version 8 there is no place for records' errors.
    let request = produce_request("strict", -1, vec![(0, off_by([0, -70_000, 0], Codec::None))]);
    let response = connection.call(&request, 7).unwrap();
    let answer = &response.responses[0].partition_responses[0];
    assert_eq!((answer.error_code, said(answer)), (INVALID_TIMESTAMP, vec![]));
    let without = BatchBuilder::new().record(-1, None, Some(b"v")).build();
    assert_eq!(produce(&mut connection, "strict", 0, -1, without).error_code, 0);
}

#[test]
fn a_compacted_topic_names_the_records_without_a_key() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "kept", 1, &[("cleanup.policy", "compact")]);
    let now_ms = wall_ms();
    let keyless = BatchBuilder::new()
        .record(now_ms, Some(b"a"), Some(b"1"))
        .record(now_ms, None, Some(b"2"))
        .record(now_ms, None, None)
        .build();
    let answer = produce(&mut connection, "kept", 0, -1, keyless);
    assert_eq!((answer.error_code, said(&answer), answer.base_offset), (INVALID_RECORD, vec![1, 2], -1));
    let keyed = BatchBuilder::new().record(now_ms, Some(b""), None).build();
    assert_eq!(produce(&mut connection, "kept", 0, -1, keyed).error_code, 0);
}

#[test]
fn codecs_and_sizes_have_their_errors() {
    let home = Home::new(&["message.max.bytes=1000"]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "grows", 1, &[("compression.type", "uncompressed")]);
    create(&mut connection, "as-sent", 1, &[]);
    let packed = sent(Codec::Zstd, 0, 100, 1);
    assert!(packed.len() < 1000);
    let answer = produce(&mut connection, "grows", 0, -1, packed.clone());
    assert_eq!(answer.error_code, MESSAGE_TOO_LARGE, "larger in the topic's codec");
    assert_eq!(produce(&mut connection, "as-sent", 0, -1, packed.clone()).error_code, 0);
    let request = produce_request("as-sent", -1, vec![(0, packed)]);
    let response = connection.call(&request, 6).unwrap();
    assert_eq!(response.responses[0].partition_responses[0].error_code, UNSUPPORTED_COMPRESSION_TYPE);
    let twice = [sent(Codec::None, 0, 1, 1), sent(Codec::None, 1, 1, 1)].concat();
    assert_eq!(produce(&mut connection, "as-sent", 0, -1, twice.into()).error_code, INVALID_RECORD);
    assert_eq!(produce(&mut connection, "as-sent", 0, -1, Bytes::new()).error_code, INVALID_RECORD);
}
