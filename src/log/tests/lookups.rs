//! Fetches and timestamp lookups.

use super::super::LogPosition;
use super::super::batch::BatchBuilder;
use super::super::codec::Codec;
use super::*;

fn found(offset: i64, timestamp_ms: i64) -> LookupStep {
    LookupStep::Found(Found::Offset { offset, timestamp_ms, leader_epoch: 3 })
}

#[test]
fn the_tail_reads_nothing() {
    let mut driver = Driver::new(TopicConfig::default());
    for _ in 0..100 {
        driver.append(&batch(&[1, 2, 3], 20));
    }
    let end = driver.log.log_end_position();
    for offset in 0..300 {
        let (step, reads) = driver.lookup_counted(Query::Fetch { offset, max_bytes: 1, end });
        assert!(matches!(step, LookupStep::Found(Found::Span(_))));
        assert_eq!(reads, 0);
    }
    assert_eq!(driver.fetch(300, 10), LookupStep::Found(Found::Empty));
    assert_eq!(driver.fetch(301, 10), LookupStep::OutOfRange);
}

#[test]
fn every_offset_is_found_without_the_tail_too() {
    let mut driver = Driver::new(TopicConfig { segment_bytes: 60_000, ..small() });
    for n in 0..300 {
        driver.append(&batch(&[n, n], 100 + 400 * (n as usize % 4)));
    }
    driver.pass(60_000);
    driver.pass(60_000);
    assert!(driver.log.tail.is_empty());
    let end = driver.log.log_end_position();
    for offset in 0..600 {
        assert_eq!(driver.first_batch(offset).base_offset, offset / 2 * 2);
        let (_, reads) = driver.lookup_counted(Query::Fetch { offset, max_bytes: 1, end });
        assert!(reads <= 4, "{reads} reads");
    }
}

#[test]
fn entries_that_wait_are_searched_in_memory() {
    let mut driver = Driver::new(small());
    for n in 0..10 {
        driver.append(&batch(&[n], 100));
    }
    driver.log.tail.clear();
    assert!(!driver.log.pending_index.is_empty());
    for offset in 0..10 {
        assert_eq!(driver.first_batch(offset).base_offset, offset);
    }
}

#[test]
fn a_span_ends_at_the_limit_the_segment_and_the_end() {
    let mut driver = Driver::new(small());
    let one = batch(&[5], 1000);
    let length = one.bytes.len() as u64;
    for _ in 0..5 {
        driver.append(&one);
    }
    let span = |offset, max_bytes, driver: &mut Driver| match driver.fetch(offset, max_bytes) {
        LookupStep::Found(Found::Span(span)) => span.length,
        other => panic!("{other:?}"),
    };
    assert_eq!(span(0, u64::MAX, &mut driver), 3 * length, "the first segment ends");
    assert_eq!(span(0, length + 10, &mut driver), length + 10);
    assert_eq!(span(0, 1, &mut driver), length, "the first batch comes whole");
    let end = driver.log.position_of(4).unwrap();
    let step = driver.lookup(Query::Fetch { offset: 3, max_bytes: u64::MAX, end });
    let LookupStep::Found(Found::Span(bounded)) = step else { panic!("{step:?}") };
    assert_eq!((bounded.segment_base_offset, bounded.length), (3, length));
    let empty = driver.lookup(Query::Fetch { offset: 4, max_bytes: 10, end });
    assert_eq!(empty, LookupStep::Found(Found::Empty));
}

#[test]
fn positions_are_known_for_boundaries() {
    let mut driver = Driver::new(small());
    let one = batch(&[5, 6], 1000);
    let length = one.bytes.len() as u64;
    for _ in 0..3 {
        driver.append(&one);
    }
    let at =
        |offset, segment_base_offset, position| Some(LogPosition { offset, segment_base_offset, position });
    assert_eq!(driver.log.position_of(0), at(0, 0, 0));
    assert_eq!(driver.log.position_of(2), at(2, 2, 0));
    assert_eq!(driver.log.position_of(6), at(6, 4, length));
    assert_eq!(driver.log.position_of(5), None, "inside a batch");
}

#[test]
fn timestamps_find_the_first_record_that_is_not_older() {
    for codec in Codec::ALL {
        let mut driver = Driver::new(small());
        for n in 0..60_i64 {
            // Records 3n, 3n+1, 3n+2 have timestamps 30n+20, 30n, 30n+10.
            let mut builder = BatchBuilder::new().codec(codec);
            for ms in [30 * n + 20, 30 * n, 30 * n + 10] {
                builder.push(ms, None, Some(&[b'v'; 60]), &[]);
            }
            driver.append(&checked(builder));
        }
        driver.pass(70_000);
        let end_offset = 180;
        for (timestamp_ms, expected) in
            [(0, (0, 20)), (20, (0, 20)), (21, (3, 50)), (50, (3, 50)), (899, (90, 920)), (1790, (177, 1790))]
        {
            let step = driver.lookup(Query::Timestamp { timestamp_ms, end_offset });
            assert_eq!(step, found(expected.0, expected.1), "{codec:?} {timestamp_ms}");
        }
        let none = driver.lookup(Query::Timestamp { timestamp_ms: 1791, end_offset });
        assert_eq!(none, LookupStep::Found(Found::None));
        let beyond = driver.lookup(Query::Timestamp { timestamp_ms: 1790, end_offset: 177 });
        assert_eq!(beyond, LookupStep::Found(Found::None));
    }
}

#[test]
fn timestamps_below_the_log_start_do_not_count() {
    let mut driver = Driver::new(small());
    for n in 0..4 {
        driver.append(&batch(&[10 * n, 10 * n + 5], 50));
    }
    driver.log.delete_records(driver.now, 3);
    driver.run();
    assert_eq!(driver.lookup(Query::Timestamp { timestamp_ms: 0, end_offset: 8 }), found(3, 15));
}

#[test]
fn the_largest_timestamp_is_found_in_any_segment() {
    let mut driver = Driver::new(small());
    assert_eq!(driver.lookup(Query::MaxTimestamp { end_offset: 0 }), LookupStep::Found(Found::None));
    for n in 0..12 {
        let peak = if n == 4 { 900 } else { 5 };
        driver.append(&batch(&[n, peak, n], 400));
    }
    assert_eq!(driver.lookup(Query::MaxTimestamp { end_offset: 36 }), found(13, 900));
}

#[test]
fn damaged_bytes_are_said_and_not_served() {
    let mut driver = Driver::new(small());
    for n in 0..9 {
        driver.append(&batch(&[n], 1000));
    }
    let file = Stem::Log(0).into();
    let op = FileOp::Write { file, position: 16, bytes: Bytes::from_static(&[9]) };
    driver.dir.execute(&op, std::iter::empty()).unwrap();
    let failed = LookupStep::Failed(super::super::search::CORRUPT);
    assert_eq!(driver.fetch(0, 10), failed);
    assert_eq!(driver.lookup(Query::Timestamp { timestamp_ms: 0, end_offset: 9 }), failed);
}

#[test]
fn a_lookup_that_meets_a_deleted_segment_starts_again() {
    let mut driver = Driver::new(small());
    for n in 0..9 {
        driver.append(&batch(&[n], 1000));
    }
    let end = driver.log.log_end_position();
    let (mut lookup, step) = driver.log.lookup(Query::Fetch { offset: 1, max_bytes: 10, end });
    assert!(matches!(step, LookupStep::Read(_)));
    driver.log.delete_records(driver.now, 4);
    driver.run();
    let step = driver.log.lookup_next(&mut lookup, Err(crate::effect::FileError::NotFound));
    assert_eq!(step, LookupStep::OutOfRange);
}

#[test]
fn a_reader_without_zstd_gets_what_is_before_it_and_then_a_refusal() {
    let mut driver = Driver::new(TopicConfig::default());
    let with = |codec| checked(BatchBuilder::new().codec(codec).record(1, None, Some(&[b'v'; 3000])));
    let plain = with(Codec::None);
    for batch in [&plain, &with(Codec::Gzip), &with(Codec::Zstd), &plain, &plain] {
        driver.append(batch);
    }
    let mut readable = |offset, max_bytes| {
        let LookupStep::Found(Found::Span(span)) = driver.fetch(offset, max_bytes) else { panic!("no span") };
        match driver.lookup(Query::UpToZstd { span }) {
            LookupStep::Found(Found::Span(left)) => Some((span.length, left.length)),
            LookupStep::Found(Found::Zstd) => None,
            other => panic!("{other:?}"),
        }
    };
    let batch_bytes = plain.bytes.len() as u64;
    let (whole, before) = readable(0, u64::MAX).unwrap();
    assert!(before > batch_bytes && before < 2 * batch_bytes && whole > 3 * batch_bytes);
    assert_eq!(readable(0, 10), Some((batch_bytes, batch_bytes)));
    assert_eq!(readable(2, u64::MAX), None);
    assert_eq!(readable(3, u64::MAX), Some((2 * batch_bytes, 2 * batch_bytes)));
    assert_eq!(readable(3, batch_bytes + 100), Some((batch_bytes + 100, batch_bytes + 100)));
    // Behind the last one there is nothing to walk for.
    assert!(driver.log.may_hold_zstd(2) && !driver.log.may_hold_zstd(3));
}
