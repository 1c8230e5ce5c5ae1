//! Appends as a follower.

use super::super::FollowerError;
use super::super::batch::BatchBuilder;
use super::super::memory_dir::Kind;
use super::super::producer::Sequenced;
use super::*;
use crate::effect::FileError;
use crate::wire::ErrorCode;

/// A batch as its leader has it.
pub(super) fn led(base_offset: i64, epoch: i32, records: usize) -> Bytes {
    let builder = BatchBuilder::new().base_offset(base_offset).leader_epoch(epoch);
    (0..records).fold(builder, |builder, at| builder.record(500 + at as i64, None, Some(&[7; 90]))).build()
}

pub(super) fn run_of(batches: &[Bytes]) -> Bytes {
    batches.concat().into()
}

fn follow(driver: &mut Driver, batches: &[Bytes]) -> Result<i64, FollowerError> {
    let end = driver.log.append_as_follower(driver.now, run_of(batches))?;
    driver.log.check_invariants();
    driver.run();
    Ok(end)
}

#[test]
fn the_leaders_bytes_are_the_followers_bytes() {
    let mut driver = Driver::new(small());
    let batches = [led(0, 3, 2), led(2, 3, 1), led(3, 5, 4)];
    assert_eq!(follow(&mut driver, &batches), Ok(7));
    assert_eq!(driver.dir.file(Stem::Log(0)).unwrap(), run_of(&batches));
    assert_eq!((driver.log.written_end(), driver.log.epochs().latest().unwrap().start_offset), (7, 3));
    assert_eq!(driver.ops.iter().filter(|op| matches!(op, FileOp::Append { .. })).count(), 1);
    assert_eq!(follow(&mut driver, &[]), Ok(7), "an empty answer changes nothing");
}

#[test]
fn a_gap_belongs_to_the_batch_behind_it() {
    let mut driver = Driver::new(small());
    follow(&mut driver, &[led(0, 3, 2), led(10, 3, 1), led(20, 3, 2)]).unwrap();
    for (offset, base_offset) in [(0, 0), (1, 0), (2, 10), (9, 10), (10, 10), (11, 20), (21, 20)] {
        assert_eq!(driver.first_batch(offset).base_offset, base_offset, "offset {offset}");
    }
    assert_eq!(driver.log.log_end(), 22);
}

#[test]
fn a_roll_before_a_gap_begins_where_the_segment_before_ends() {
    let mut driver = Driver::new(small());
    let mut end = 0;
    while driver.log.segments().len() == 1 {
        end = driver.log.written_end();
        follow(&mut driver, &[led(end + 50, 3, 8)]).unwrap();
    }
    assert_eq!(driver.log.segments().last().unwrap().base_offset, end);
    assert_eq!(driver.first_batch(end).base_offset, end + 50);
}

#[test]
fn a_batch_that_the_offsets_of_a_segment_do_not_reach_begins_a_new_one() {
    let far = i64::from(i32::MAX) * 3;
    for before in [0, 2] {
        let mut driver = Driver::new(TopicConfig { retention_bytes: 0, ..small() });
        if before > 0 {
            follow(&mut driver, &[led(0, 3, before)]).unwrap();
        }
        follow(&mut driver, &[led(far, 3, 2), led(far + 2, 3, 1)]).unwrap();
        let bases: Vec<i64> = driver.log.segments().map(|segment| segment.base_offset).collect();
        assert_eq!(bases, [0, far]);
        assert_eq!(driver.first_batch(before as i64).base_offset, far);
        assert_eq!(driver.log.retention(driver.now, far + 1), Some(far), "an empty segment keeps nothing");
    }
}

#[test]
fn of_a_run_that_is_not_in_order_nothing_is_appended() {
    let mut driver = Driver::new(small());
    follow(&mut driver, &[led(0, 3, 2)]).unwrap();
    let mut flipped = led(4, 3, 1).to_vec();
    flipped[70] ^= 1;
    let mut unknown = led(4, 3, 1).to_vec();
    unknown[16] = 1;
    let torn = led(4, 3, 1).slice(..80);
    let cases: [(Vec<Bytes>, ErrorCode); 7] = [
        (vec![led(1, 3, 2)], ErrorCode::OffsetOutOfRange),
        (vec![led(2, 3, 4), led(5, 3, 1)], ErrorCode::OffsetOutOfRange),
        (vec![led(2, 3, 2), flipped.into()], ErrorCode::CorruptMessage),
        (vec![led(2, 3, 2), unknown.into()], ErrorCode::CorruptMessage),
        (vec![led(2, 3, 2), torn], ErrorCode::CorruptMessage),
        (vec![led(2, 2, 2)], ErrorCode::FencedLeaderEpoch),
        (vec![led(2, 5, 2), led(4, 4, 1)], ErrorCode::FencedLeaderEpoch),
    ];
    for (batches, code) in cases {
        let error = follow(&mut driver, &batches).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert_eq!((driver.log.reserved_end(), driver.log.epochs().entries().len()), (2, 1));
    }
    assert_eq!(follow(&mut driver, &[led(2, 3, 1)]), Ok(3), "the log goes on");
}

#[test]
fn what_a_follower_could_not_write_is_taken_back_and_can_come_again() {
    let mut driver = Driver::new(small());
    follow(&mut driver, &[led(0, 3, 2)]).unwrap();
    let marker =
        BatchBuilder::new().base_offset(3).leader_epoch(4).producer(8, 1, -1).control().transactional();
    let marker = marker.record(9, Some(&[0, 0, 0, 1]), Some(&[0, 0, 0, 0, 0, 6])).build();
    let data =
        BatchBuilder::new().base_offset(2).leader_epoch(3).producer(9, 0, 5).record(9, None, None).build();
    driver.dir.fail_next(Kind::Append, FileError::Short { written: 20 });
    driver.log.append_as_follower(driver.now, run_of(&[data.clone(), marker.clone()])).unwrap();
    let error = FileError::Short { written: 20 };
    assert_eq!(driver.run(), [LogEvent::Dropped { from_offset: 2, error }]);
    assert_eq!((driver.log.reserved_end(), driver.log.epochs().entries().len()), (2, 1));
    assert!(driver.log.producers().active().iter().all(|producer| producer.producer_id != 8));
    assert_eq!(follow(&mut driver, &[data.clone(), marker]), Ok(4));
    let known = driver.log.producers().active();
    assert_eq!(known.iter().map(|producer| producer.coordinator_epoch).collect::<Vec<_>>(), [6, -1]);
    let again = driver.log.producers().check(&BatchInfo::parse(&data).unwrap()).unwrap();
    assert!(matches!(again, Sequenced::Duplicate { base_offset: 2, .. }), "a new leader knows its producers");
}

#[test]
fn a_batch_of_a_leader_may_be_larger_than_a_segment() {
    let mut driver = Driver::new(small());
    follow(&mut driver, &[led(0, 3, 1), led(1, 3, 60), led(61, 3, 1)]).unwrap();
    assert_eq!(driver.log.segments().len(), 3);
    assert_eq!(driver.first_batch(30).base_offset, 1);
}

#[test]
fn the_leaders_log_start_deletes_whole_segments() {
    let mut driver = Driver::new(small());
    for at in 0..6 {
        follow(&mut driver, &[led(at * 10, 3, 10)]).unwrap();
    }
    let first = driver.log.segments().nth(1).unwrap().base_offset;
    assert!(driver.log.delete_records(driver.now, first + 1));
    driver.run();
    assert_eq!((driver.log.log_start_offset(), driver.log.first_segment_base_offset()), (first + 1, first));
}
