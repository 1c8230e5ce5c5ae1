//! The stateless check of what producers send: every rule, and that nothing else passes.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::super::batch::{BatchBuilder, crc_holds};
use super::super::codec::Decompressor;
use super::super::record::Records;
use super::*;

const WALL_MS: i64 = 1_700_000_000_000;
const HOUR_MS: i64 = 3_600_000;

fn rules() -> BatchRules {
    BatchRules::of(&TopicConfig::default(), 9)
}

fn two_records() -> BatchBuilder {
    BatchBuilder::new().record(WALL_MS, Some(b"a"), Some(b"1")).record(WALL_MS - 5, Some(b"b"), None)
}

fn refused(bytes: impl Into<Bytes>, rules: &BatchRules) -> ErrorCode {
    check(bytes.into(), rules, WALL_MS).unwrap_err().error
}

/// The batch with a header field replaced and a checksum that holds.
fn with_field(batch: &[u8], at: usize, value: &[u8]) -> Vec<u8> {
    let mut bytes = batch.to_vec();
    bytes[at..at + value.len()].copy_from_slice(value);
    let crc = batch::crc(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn plain_records(batch: &[u8]) -> Vec<u8> {
    let codec = BatchInfo::parse(batch).unwrap().codec().unwrap();
    Decompressor::default().decompress(codec, &batch[HEADER_BYTES..], 32 << 20).unwrap().to_vec()
}

#[test]
fn a_good_batch_of_every_codec_passes_unchanged() {
    for codec in Codec::ALL {
        let batch = two_records().codec(codec).producer(5, 0, 0).build();
        let checked = check(batch.clone(), &rules(), WALL_MS).unwrap();
        assert_eq!(checked.bytes.as_ptr(), batch.as_ptr(), "{codec:?} is not copied");
        assert_eq!(checked.info, BatchInfo::parse(&batch).unwrap());
    }
}

#[test]
fn anything_but_one_whole_batch_is_refused() {
    let batch = two_records().build();
    assert_eq!(refused(Bytes::new(), &rules()), ErrorCode::InvalidRecord);
    assert_eq!(refused(batch.slice(..batch.len() - 1), &rules()), ErrorCode::InvalidRecord);
    assert_eq!(refused([batch.clone(), batch.clone()].concat(), &rules()), ErrorCode::InvalidRecord);
    assert_eq!(refused([&batch[..], &[0]].concat(), &rules()), ErrorCode::InvalidRecord);
    assert_eq!(refused(with_field(&batch, 16, &[1]), &rules()), ErrorCode::InvalidRecord, "magic 1");
    assert_eq!(refused(with_field(&batch, 16, &[3]), &rules()), ErrorCode::CorruptMessage, "magic 3");
    assert_eq!(refused(with_field(&batch, 8, &20_i32.to_be_bytes()), &rules()), ErrorCode::CorruptMessage);
    assert_eq!(refused(two_records().base_offset(3).build(), &rules()), ErrorCode::InvalidRecord);
}

#[test]
fn counts_that_do_not_agree_are_refused() {
    let batch = two_records().build();
    for count in [0_i32, 1, 3, -1] {
        let field = with_field(&batch, 57, &count.to_be_bytes());
        assert_eq!(refused(field, &rules()), ErrorCode::InvalidRecord, "count {count}");
        // With a last offset delta to match, it is the records that disagree.
        let both = with_field(&with_field(&batch, 57, &count.to_be_bytes()), 23, &(count - 1).to_be_bytes());
        assert_eq!(refused(both, &rules()), ErrorCode::InvalidRecord, "count {count} throughout");
    }
    let skipping = with_field(&batch, batch.len() - 5, &[4]);
    let record = Records::new(&skipping[HEADER_BYTES..]).nth(1).unwrap().unwrap();
    assert_eq!(record.offset_delta, 2, "the second record's offset delta is the byte that was changed");
    assert_eq!(refused(skipping, &rules()), ErrorCode::InvalidRecord);
}

#[test]
fn sizes_are_the_whole_batches() {
    let batch = two_records().build();
    let exactly = BatchRules { max_message_bytes: batch.len() as u64, ..rules() };
    assert!(check(batch.clone(), &exactly, WALL_MS).is_ok());
    let less = BatchRules { max_message_bytes: batch.len() as u64 - 1, ..rules() };
    assert_eq!(refused(batch, &less), ErrorCode::MessageTooLarge);
}

#[test]
fn control_batches_and_sequences_without_meaning_are_refused() {
    assert_eq!(refused(two_records().control().build(), &rules()), ErrorCode::InvalidRecord);
    assert_eq!(refused(two_records().producer(4, 0, -1).build(), &rules()), ErrorCode::InvalidRecord);
    assert_eq!(refused(two_records().producer(-7, 0, 0).build(), &rules()), ErrorCode::InvalidRecord);
    let transactional = two_records().producer(4, 0, 0).transactional().build();
    assert!(check(transactional, &rules(), WALL_MS).unwrap().info.is_transactional());
}

#[test]
fn codecs_have_their_versions() {
    let batch = two_records().codec(Codec::Zstd).build();
    let old = BatchRules { produce_version: 6, ..rules() };
    assert_eq!(refused(batch.clone(), &old), ErrorCode::UnsupportedCompressionType);
    assert!(check(batch.clone(), &BatchRules { produce_version: 7, ..rules() }, WALL_MS).is_ok());
    assert_eq!(refused(with_field(&batch, 22, &[5]), &rules()), ErrorCode::UnsupportedCompressionType);
    // zstd bytes under gzip's number.
    assert_eq!(refused(with_field(&batch, 22, &[1]), &rules()), ErrorCode::InvalidRecord);
}

#[test]
fn a_record_out_of_its_time_is_named() {
    let batch = BatchBuilder::new()
        .record(WALL_MS, Some(b"a"), None)
        .record(WALL_MS + HOUR_MS + 1, Some(b"b"), None)
        .record(WALL_MS + HOUR_MS, Some(b"c"), None)
        .record(WALL_MS - 2001, None, None)
        .build();
    let strict = BatchRules { timestamp_before_max_ms: 2000, ..rules() };
    let rejection = check(batch.clone(), &strict, WALL_MS).unwrap_err();
    assert_eq!(rejection.error, ErrorCode::InvalidTimestamp);
    let named: Vec<i32> = rejection.record_errors.iter().map(|(index, _)| *index).collect();
    assert_eq!(named, [1, 3]);
    assert!(rejection.record_errors[0].1.as_ref().unwrap().contains(&(WALL_MS + HOUR_MS + 1).to_string()));
    let broker_time = BatchRules { timestamp_type: TimestampType::LogAppendTime, ..strict };
    assert!(check(batch, &broker_time, WALL_MS).is_ok(), "the broker's clock replaces them");
    let without = BatchBuilder::new().record(-1, None, None).build();
    assert!(check(without, &strict, WALL_MS).is_ok(), "a record without a timestamp has none to be wrong");
}

#[test]
fn timestamps_at_the_ends_of_their_type_do_not_overflow() {
    for timestamp_ms in [i64::MIN, i64::MAX] {
        let batch = BatchBuilder::new().record(timestamp_ms, None, None).record(0, None, None).build();
        let strict = BatchRules { timestamp_before_max_ms: HOUR_MS, ..rules() };
        assert_eq!(refused(batch, &strict), ErrorCode::InvalidTimestamp);
    }
}

#[test]
fn a_record_without_a_key_is_named_on_a_compacted_topic() {
    let batch =
        BatchBuilder::new().record(WALL_MS, Some(b""), None).record(WALL_MS, None, Some(b"v")).build();
    let compacted = BatchRules { compacted: true, ..rules() };
    let rejection = check(batch.clone(), &compacted, WALL_MS).unwrap_err();
    assert_eq!(rejection.error, ErrorCode::InvalidRecord);
    assert_eq!(rejection.record_errors.len(), 1);
    assert_eq!(rejection.record_errors[0].0, 1);
    assert!(check(batch, &rules(), WALL_MS).is_ok());
}

#[test]
fn a_bounded_number_of_wrong_records_is_named() {
    let mut builder = BatchBuilder::new();
    for _ in 0..5000 {
        builder.push(WALL_MS, None, None, &[]);
    }
    let rejection = check(builder.build(), &BatchRules { compacted: true, ..rules() }, WALL_MS).unwrap_err();
    assert_eq!(rejection.record_errors.len(), RECORD_ERRORS_MAX);
    assert!(rejection.message.unwrap().contains("5000"));
}

#[test]
fn a_wrong_largest_timestamp_is_corrected() {
    for codec in [Codec::None, Codec::Lz4] {
        let batch = two_records().codec(codec).producer(9, 1, 4).build();
        let wrong = with_field(&batch, 35, &(WALL_MS + 77).to_be_bytes());
        let checked = check(wrong.into(), &rules(), WALL_MS).unwrap();
        assert_eq!(checked.bytes, batch, "{codec:?}: header and checksum are those of the right one");
        assert_eq!(checked.info.max_timestamp_ms, WALL_MS);
    }
}

#[test]
fn the_brokers_timestamp_type_is_not_the_producers_to_set() {
    let batch = two_records().build();
    let set = with_field(&batch, 22, &[0x08]);
    let broker_time = BatchRules { timestamp_type: TimestampType::LogAppendTime, ..rules() };
    assert_eq!(refused(set.clone(), &broker_time), ErrorCode::InvalidTimestamp);
    // Under CreateTime Kafka clears the bit.
    let checked = check(set.into(), &rules(), WALL_MS).unwrap();
    assert_eq!(checked.bytes, batch);
}

#[test]
fn a_topics_own_codec_is_stored() {
    let stored_as = [
        (CompressionType::None, Codec::None),
        (CompressionType::Gzip(-1), Codec::Gzip),
        (CompressionType::Snappy, Codec::Snappy),
        (CompressionType::Lz4(9), Codec::Lz4),
        (CompressionType::Zstd(3), Codec::Zstd),
    ];
    for sent in Codec::ALL {
        let mut builder = two_records().codec(sent).producer(5, 3, 21).transactional();
        builder.push(WALL_MS + 3, None, Some(&[7; 300]), &[(b"h", Some(b"x"))]);
        let batch = builder.build();
        for (compression_type, stored) in stored_as {
            let rules = BatchRules { compression_type, ..rules() };
            let checked = check(batch.clone(), &rules, WALL_MS).unwrap();
            assert_eq!(checked.info.codec(), Ok(stored));
            assert_eq!(checked.bytes == batch, sent == stored, "{sent:?} stored as {stored:?}");
            assert!(crc_holds(&checked.bytes, &checked.info));
            assert_eq!(plain_records(&checked.bytes), plain_records(&batch));
            let sent_info = BatchInfo::parse(&batch).unwrap();
            let same = BatchInfo {
                length_bytes: checked.info.length_bytes,
                crc: checked.info.crc,
                attributes: checked.info.attributes,
                ..sent_info
            };
            assert_eq!(checked.info, same);
            assert!(checked.info.is_transactional());
        }
    }
}

#[test]
fn a_batch_that_grows_too_large_by_its_topics_codec_is_refused() {
    let batch = BatchBuilder::new().codec(Codec::Zstd).record(WALL_MS, None, Some(&[0; 5000])).build();
    let rules = BatchRules { max_message_bytes: 1000, compression_type: CompressionType::None, ..rules() };
    assert_eq!(refused(batch, &rules), ErrorCode::MessageTooLarge);
}

#[test]
fn a_decompression_bomb_is_too_large() {
    let zeros = vec![0; codec::DECOMPRESSED_BYTES_FLOOR as usize];
    let bomb = BatchBuilder::new().codec(Codec::Zstd).record(WALL_MS, None, Some(&zeros)).build();
    assert!(bomb.len() < 10_000);
    assert_eq!(refused(bomb, &rules()), ErrorCode::MessageTooLarge);
}

/// What a check gives when it stops as often as it can, and how often it did.
fn check_in_slices(records: Bytes, rules: &BatchRules) -> (Result<CheckedBatch, BatchRejection>, usize) {
    let mut pool = CodecPool::default();
    let mut check = match Check::new(records, rules, WALL_MS) {
        Ok(check) => check,
        Err(rejection) => return (Err(rejection), 0),
    };
    for stops in 0.. {
        if let Some(result) = check.step(&mut pool, &mut Budget::new(1)) {
            return (result, stops);
        }
    }
    unreachable!("a check ends")
}

/// Records of every size, compressible by half: 3 MB of them.
fn large_batch(codec: Codec) -> Bytes {
    let mut random = fastrand::Rng::with_seed(5);
    let noise: Vec<u8> = (0..400_000).map(|_| random.u8(..16)).collect();
    let mut builder = BatchBuilder::new().codec(codec).producer(4, 2, 9);
    for n in 0..3000 {
        let length = [10, 100, 3000, 40][n % 4];
        builder.push(WALL_MS + n as i64, Some(b"key"), Some(&noise[n..n + length]), &[]);
    }
    let headers: Vec<_> = (0..20_000).map(|n| (&noise[n..n + 3], Some(&noise[n..n + 5]))).collect();
    builder.push(WALL_MS, Some(&noise[..70_000]), Some(&noise), &headers);
    builder.push(WALL_MS, Some(b"key"), None, &[]);
    builder.build()
}

#[test]
fn a_check_in_slices_says_what_a_check_in_one_go_says() {
    let roomy = BatchRules { max_message_bytes: 10 << 20, ..rules() };
    for codec in Codec::ALL {
        let batch = large_batch(codec);
        let (checked, stops) = check_in_slices(batch.clone(), &roomy);
        let checked = checked.unwrap();
        assert_eq!(checked.bytes.as_ptr(), batch.as_ptr(), "{codec:?}");
        assert!(stops > 1000, "{codec:?} stopped {stops} times");
        for compression_type in [CompressionType::None, CompressionType::Zstd(1), CompressionType::Snappy] {
            let rules = BatchRules { compression_type, ..roomy };
            let whole = check(batch.clone(), &rules, WALL_MS).unwrap();
            assert_eq!(check_in_slices(batch.clone(), &rules).0.unwrap(), whole, "{codec:?}");
            assert!(plain_records(&whole.bytes) == plain_records(&large_batch(Codec::None)));
        }
        let tight = BatchRules { compression_type: CompressionType::None, ..rules() };
        assert_eq!(refused(batch.clone(), &tight), ErrorCode::MessageTooLarge, "{codec:?}");
        let late =
            BatchRules { timestamp_after_max_ms: 2000, compression_type: CompressionType::None, ..rules() };
        let late = BatchRules { max_message_bytes: batch.len() as u64, ..late };
        let rejection = check_in_slices(batch.clone(), &late).0.unwrap_err();
        assert_eq!(rejection, check(batch, &late, WALL_MS).unwrap_err());
        assert_eq!(
            rejection.error,
            ErrorCode::InvalidTimestamp,
            "what is wrong with records comes before sizes"
        );
        assert_eq!(rejection.record_errors[0].0, 2001);
    }
}

#[test]
fn a_slice_ends_soon_after_its_budget() {
    for (codec, slices) in [(Codec::None, 2..10), (Codec::Lz4, 3..20), (Codec::Gzip, 6..60)] {
        let roomy = BatchRules { max_message_bytes: 10 << 20, ..rules() };
        let (mut pool, mut count) = (CodecPool::default(), 0);
        let mut builder = BatchBuilder::new().codec(codec);
        for n in 0..100_000 {
            builder.push(WALL_MS + n, None, Some(&[7; 30]), &[]);
        }
        let mut check = Check::new(builder.build(), &roomy, WALL_MS).unwrap();
        loop {
            let mut budget = Budget::new(Budget::SLICE_NS);
            let done = check.step(&mut pool, &mut budget);
            assert!(budget.left_ns > -Budget::SLICE_NS / 2, "{codec:?}: {}", budget.left_ns);
            count += 1;
            if let Some(done) = done {
                done.unwrap();
                break;
            }
        }
        assert!(slices.contains(&count), "{codec:?} took {count} slices");
    }
}

#[test]
fn a_compressed_batch_is_never_held_whole() {
    let zeros = vec![0; 20 << 20];
    for codec in [Codec::Gzip, Codec::Lz4, Codec::Zstd] {
        let batch = BatchBuilder::new().codec(codec).record(WALL_MS, None, Some(&zeros)).build();
        let mut pool = CodecPool::default();
        let mut check = Check::new(batch, &rules(), WALL_MS).unwrap();
        while check.step(&mut pool, &mut Budget::new(1)).is_none() {
            if let Stage::Stream(_, stream) = &check.stage {
                assert!(
                    stream.window_bytes() <= 4 * codec::PIECE_BYTES,
                    "{codec:?}: {}",
                    stream.window_bytes()
                );
            }
        }
    }
}

#[derive(Clone, Debug)]
struct AnyRecord {
    timestamp_ms: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

fn any_record() -> impl Strategy<Value = AnyRecord> {
    let field = || vec(any::<u8>(), 0..200);
    let headers = vec((vec(any::<u8>(), 0..10), option::of(field())), 0..4);
    (WALL_MS - 100_000..WALL_MS + HOUR_MS, option::of(field()), option::of(field()), headers)
        .prop_map(|(timestamp_ms, key, value, headers)| AnyRecord { timestamp_ms, key, value, headers })
}

fn any_codec() -> impl Strategy<Value = Codec> {
    (0..Codec::ALL.len()).prop_map(|index| Codec::ALL[index])
}

fn built(records: &[AnyRecord], codec: Codec) -> Bytes {
    let mut builder = BatchBuilder::new().codec(codec).producer(77, 1, 0);
    for record in records {
        let headers: Vec<_> =
            record.headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref())).collect();
        builder.push(record.timestamp_ms, record.key.as_deref(), record.value.as_deref(), &headers);
    }
    builder.build()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_built_passes_and_reads_back(records in vec(any_record(), 1..40), codec in any_codec()) {
        let batch = built(&records, codec);
        let checked = check(batch.clone(), &rules(), WALL_MS).unwrap();
        prop_assert_eq!(&checked.bytes, &batch);
        prop_assert_eq!(&check_in_slices(batch.clone(), &rules()).0.unwrap(), &checked);
        let plain = plain_records(&batch);
        let read: Vec<AnyRecord> = Records::new(&plain)
            .map(|record| record.unwrap())
            .map(|record| AnyRecord {
                timestamp_ms: checked.info.base_timestamp_ms + record.timestamp_delta_ms,
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers: record.headers().map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect(),
            })
            .collect();
        prop_assert_eq!(format!("{read:?}"), format!("{records:?}"));
    }

    #[test]
    fn no_flipped_bit_behind_the_magic_passes(
        records in vec(any_record(), 1..5),
        codec in any_codec(),
        bit in 0_u8..8,
    ) {
        let batch = built(&records, codec);
        for at in 16..batch.len() {
            let mut flipped = batch.to_vec();
            flipped[at] ^= 1 << bit;
            prop_assert!(check(flipped.into(), &rules(), WALL_MS).is_err(), "byte {}", at);
        }
    }

    #[test]
    fn garbage_is_refused(bytes in vec(any::<u8>(), 0..300)) {
        prop_assert!(check(bytes.into(), &rules(), WALL_MS).is_err());
    }

    /// Garbage that the checksum covers: only reading the records can find it.
    #[test]
    fn sealed_garbage_is_refused_or_well_formed(
        bytes in vec(any::<u8>(), 0..60),
        codec in any_codec(),
        count in 1_i32..4,
    ) {
        let template = two_records().codec(codec).build();
        let body = [&[0; HEADER_BYTES], &bytes[..]].concat();
        let batch = batch::with_body(&template, codec, body, WALL_MS);
        let batch = with_field(&with_field(&batch, 57, &count.to_be_bytes()), 23, &(count - 1).to_be_bytes());
        let batch = Bytes::from(batch);
        let in_slices = check_in_slices(batch.clone(), &rules()).0;
        prop_assert_eq!(&in_slices, &check(batch.clone(), &rules(), WALL_MS));
        if let Ok(checked) = in_slices {
            let plain = plain_records(&checked.bytes);
            prop_assert_eq!(Records::new(&plain).filter(Result::is_ok).count(), count as usize);
        }
    }

    /// One changed byte of an uncompressed batch under a checksum that holds.
    #[test]
    fn sealed_changes_never_panic(records in vec(any_record(), 1..4), at in 21_usize..400, byte: u8) {
        let batch = built(&records, Codec::None);
        if at < batch.len() {
            let changed = Bytes::from(with_field(&batch, at, &[byte]));
            prop_assert_eq!(check_in_slices(changed.clone(), &rules()).0, check(changed, &rules(), WALL_MS));
        }
    }
}

/// What `tests/fixtures/batch/README.md` says that Kafka's own classes wrote.
fn as_java_built(record_count: i64, codec: Codec) -> Bytes {
    let mut builder = BatchBuilder::new().codec(codec).producer(4711, 3, 40);
    for i in 0..record_count {
        let key = format!("key-{i}");
        let value = format!("value of record {i} value of record {i}");
        let name = format!("h{i}");
        let headers = [(name.as_bytes(), Some([1, 2].as_slice())), (&[], None)];
        builder.push(
            WALL_MS + i * 37 % 1000,
            (i % 3 != 0).then_some(key.as_bytes()),
            (i % 7 != 6).then_some(value.as_bytes()),
            if i % 5 == 0 { &headers } else { &[] },
        );
    }
    builder.build()
}

#[test]
fn our_bytes_are_javas() {
    let java = include_bytes!("../../tests/fixtures/batch/java-4.3.1-none.bin");
    assert_eq!(as_java_built(5, Codec::None), java[..]);
}

#[test]
fn what_java_compressed_passes_and_holds_the_same_records() {
    let java: [(Codec, &[u8]); 4] = [
        (Codec::Gzip, include_bytes!("../../tests/fixtures/batch/java-4.3.1-gzip.bin")),
        (Codec::Snappy, include_bytes!("../../tests/fixtures/batch/java-4.3.1-snappy.bin")),
        (Codec::Lz4, include_bytes!("../../tests/fixtures/batch/java-4.3.1-lz4.bin")),
        (Codec::Zstd, include_bytes!("../../tests/fixtures/batch/java-4.3.1-zstd.bin")),
    ];
    let expected = as_java_built(2000, Codec::None);
    for (codec, bytes) in java {
        let checked = check(Bytes::from_static(bytes), &rules(), WALL_MS).unwrap();
        assert_eq!(checked.info.codec(), Ok(codec));
        assert_eq!(checked.bytes, bytes);
        let uncompressed = BatchRules { compression_type: CompressionType::None, ..rules() };
        let stored = check(Bytes::from_static(bytes), &uncompressed, WALL_MS).unwrap();
        assert!(stored.bytes == expected, "{codec:?} re-encoded");
    }
}
