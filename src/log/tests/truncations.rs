//! Truncations and restarts at an offset.

use super::super::batch::BatchBuilder;
use super::super::mark::{Mark, TRUNCATION_MARK};
use super::super::memory_dir::Kind;
use super::follower::{led, run_of};
use super::*;
use crate::effect::{FileError, Suffix};

/// A log of batches of two records each, a segment of which holds three; epochs 0, 1, 2, … change with each batch.
pub(super) fn filled(batches: i64) -> Driver {
    let mut driver = Driver::new(TopicConfig { segment_bytes: 900, ..small() });
    for at in 0..batches {
        let batch = led(at * 2, at as i32, 2);
        driver.log.append_as_follower(driver.now, batch).unwrap();
        driver.run();
    }
    driver
}

pub(super) fn mark(driver: &Driver) -> Option<Mark> {
    driver.dir.file(Stem::Named(TRUNCATION_MARK)).map(|bytes| Mark::parse(bytes).unwrap())
}

fn bases(driver: &Driver) -> Vec<i64> {
    driver.log.segments().map(|segment| segment.base_offset).collect()
}

/// Base offsets of the batches that look-ups find.
pub(super) fn found(driver: &mut Driver) -> Vec<i64> {
    let (start, end) = (driver.log.log_start_offset(), driver.log.log_end());
    let mut bases: Vec<i64> = (start..end).map(|offset| driver.first_batch(offset).base_offset).collect();
    bases.dedup();
    bases
}

#[test]
fn every_offset_can_be_truncated_to() {
    let whole = filled(10);
    let rolled = bases(&whole);
    assert_eq!(rolled.len(), 4, "{rolled:?}");
    for offset in 0..=22 {
        let mut driver = filled(10);
        driver.log.begin_truncate(driver.now, offset);
        assert!(driver.log.is_truncating());
        let log_end = offset.min(20) / 2 * 2;
        assert_eq!(driver.run().last(), Some(&LogEvent::Truncated { log_end }), "to {offset}");
        assert!(!driver.log.is_truncating());
        assert_eq!((driver.log.reserved_end(), driver.log.written_end()), (log_end, log_end));
        let kept: Vec<i64> = rolled.iter().copied().filter(|base| *base <= offset).collect();
        assert_eq!(bases(&driver), kept, "to {offset}");
        let left = (0..log_end / 2).map(|at| at * 2).collect::<Vec<_>>();
        assert_eq!(found(&mut driver), left, "to {offset}");
        assert_eq!(driver.log.epochs().entries().len() as i64, log_end / 2);
        let above = driver.dir.names().any(|name| {
            matches!(name.stem,
            Stem::Log(base) | Stem::ProducerSnapshot(base) | Stem::TimeIndex(base) if base > offset)
        });
        assert!(!above, "to {offset}");
        // The log goes on.
        driver.log.append_as_follower(driver.now, led(log_end + 1, 90, 2)).unwrap();
        driver.run();
        assert_eq!(driver.first_batch(log_end).base_offset, log_end + 1);
    }
}

#[test]
fn nothing_is_cut_before_the_mark_is_durable_and_the_mark_goes_last() {
    let mut driver = filled(10);
    let before = driver.ops.len();
    driver.log.begin_truncate(driver.now, 9);
    driver.run();
    let ops = &driver.ops[before..];
    let at = |wanted: &dyn Fn(&FileOp) -> bool| ops.iter().position(wanted).unwrap();
    let last = |wanted: &dyn Fn(&FileOp) -> bool| ops.iter().rposition(wanted).unwrap();
    let of_mark = |op: &FileOp| match op {
        FileOp::Rename { to, .. } => to.stem == Stem::Named(TRUNCATION_MARK) && to.suffix == Suffix::None,
        _ => false,
    };
    let placed = at(&of_mark);
    let durable = placed + ops[placed..].iter().position(|op| *op == FileOp::SyncDir).unwrap();
    let is_cut = |op: &FileOp| match op {
        FileOp::Truncate { .. } => true,
        FileOp::Delete { file } => file.stem != Stem::Named(TRUNCATION_MARK),
        _ => false,
    };
    assert!(durable < at(&is_cut));
    let deleted: Vec<i64> = ops
        .iter()
        .filter_map(|op| match op {
            FileOp::Delete { file } => match file.stem {
                Stem::Log(base) => Some(base),
                _ => None,
            },
            _ => None,
        })
        .collect();
    assert!(deleted.len() == 2 && deleted[0] > deleted[1], "newest first: {deleted:?}");
    let synced = last(&|op| matches!(op, FileOp::Sync { file } if matches!(file.stem, Stem::Log(_))));
    assert!(last(&is_cut) < last(&of_mark) && synced < last(&of_mark));
    assert_eq!(ops.last(), Some(&FileOp::SyncDir));
}

#[test]
fn the_mark_stays_until_the_log_is_synced_as_far_as_the_checkpoint_may_say() {
    let mut driver = filled(10);
    driver.pass(31_000);
    assert_eq!(driver.log.durable_end(), 20);
    driver.log.begin_truncate(driver.now, 9);
    driver.run();
    assert_eq!((driver.log.recovery_point(), mark(&driver)), (8, Some(Mark::Synced { offset: 8 })));
    // A second truncation goes by what is synced by then.
    driver.log.append_as_follower(driver.now, run_of(&[led(8, 90, 2), led(10, 90, 2)])).unwrap();
    driver.run();
    driver.log.begin_truncate(driver.now, 10);
    driver.run();
    assert_eq!(mark(&driver), Some(Mark::Synced { offset: 8 }));
    driver.log.append_as_follower(driver.now, run_of(&[led(10, 91, 8), led(18, 91, 2)])).unwrap();
    driver.run();
    assert!(driver.log.recovery_point() < 20 && mark(&driver).is_some());
    driver.pass(31_000);
    assert_eq!((driver.log.recovery_point(), mark(&driver)), (20, None));
}

#[test]
fn where_only_unsynced_records_go_no_mark_stays() {
    let mut driver = Driver::new(TopicConfig::default());
    driver.append(&batch(&[1], 10));
    driver.append(&batch(&[1], 10));
    driver.log.begin_truncate(driver.now, 1);
    assert_eq!(driver.run(), [LogEvent::Truncated { log_end: 1 }]);
    assert_eq!((driver.log.durable_end(), mark(&driver)), (0, None));
}

#[test]
fn what_is_on_its_way_is_let_through_first() {
    let mut driver = filled(4);
    let end = driver.log.written_end();
    driver.hold_names = true;
    for at in 0..6 {
        driver.log.append_as_follower(driver.now, led(end + at * 2, 3, 2)).unwrap();
    }
    driver.run();
    assert!(
        driver.log.reserved_end() > driver.log.written_end(),
        "a roll waits for the names of the last one"
    );
    driver.log.begin_truncate(driver.now, end + 3);
    assert!(driver.log.append(driver.now, &batch(&[1], 1), 60).is_err());
    assert!(driver.log.append_as_follower(driver.now, led(end + 12, 60, 1)).is_err());
    driver.run();
    assert!(driver.log.is_truncating());
    driver.hold_names = false;
    driver.release();
    assert_eq!(driver.run().last(), Some(&LogEvent::Truncated { log_end: end + 2 }));
    assert_eq!(found(&mut driver), [0, 2, 4, 6, 8]);
}

#[test]
fn of_two_calls_the_lower_offset_wins_whenever_the_second_one_comes() {
    for steps in 0..200 {
        for (second, expected) in [(7, 6), (15, 10)] {
            let mut driver = filled(10);
            driver.log.begin_truncate(driver.now, 11);
            let mut events = Vec::new();
            for _ in 0..steps {
                let Some((ticket, op)) = driver.log.next_op(driver.now) else { break };
                driver.complete(ticket, &op, &mut events);
            }
            if !driver.log.is_truncating() {
                return assert!(steps > 20, "the truncation had something to do");
            }
            driver.log.begin_truncate(driver.now, second);
            events.extend(driver.run());
            assert_eq!(events, [LogEvent::Truncated { log_end: expected }], "after {steps} steps");
            assert_eq!(found(&mut driver).len() as i64, expected / 2);
        }
    }
    panic!("a truncation has an end");
}

#[test]
fn a_restart_leaves_nothing_of_the_log_before() {
    for offset in [0, 9, 20, 4711] {
        let mut driver = filled(10);
        let one = checked(BatchBuilder::new().producer(9, 0, 0).record(5, None, Some(b"a")));
        driver.log.append(driver.now, &one, 50).unwrap();
        driver.log.begin_restart_at(driver.now, offset);
        assert_eq!(driver.run().last(), Some(&LogEvent::Truncated { log_end: offset }));
        assert_eq!((driver.log.log_start_offset(), driver.log.written_end()), (offset, offset));
        assert_eq!((driver.log.epochs().entries().len(), driver.log.producers().len()), (0, 0));
        assert_eq!((bases(&driver), driver.log.size_bytes()), (vec![offset], 0));
        let files = driver.dir.names().filter(|name| !matches!(name.stem, Stem::Named(_))).count();
        assert_eq!(files, 3, "log and indexes");
        driver.log.append_as_follower(driver.now, led(offset, 7, 2)).unwrap();
        driver.run();
        assert_eq!(found(&mut driver), [offset]);
    }
}

#[test]
fn an_offset_below_the_log_start_leaves_an_empty_log_there() {
    let mut driver = filled(10);
    assert!(driver.log.delete_records(driver.now, 13));
    driver.run();
    driver.log.begin_truncate(driver.now, 4);
    assert_eq!(driver.run().last(), Some(&LogEvent::Truncated { log_end: 4 }));
    assert_eq!((driver.log.log_start_offset(), bases(&driver)), (4, vec![4]));
}

#[test]
fn where_the_batch_of_the_log_start_goes_the_log_begins_anew_at_its_start() {
    let mut driver = filled(10);
    assert!(driver.log.delete_records(driver.now, 13));
    driver.run();
    driver.log.begin_truncate(driver.now, 13);
    assert_eq!(driver.run().last(), Some(&LogEvent::Truncated { log_end: 13 }));
    assert_eq!((driver.log.log_start_offset(), bases(&driver)), (13, vec![13]));
    // The leader sends the whole batch.
    let error = driver.log.append_as_follower(driver.now, led(12, 90, 2)).unwrap_err();
    assert!(matches!(error, super::super::FollowerError::Overlap { base_offset: 12, last_offset: 13, .. }));
    driver.log.begin_restart_at(driver.now, 12);
    driver.run();
    driver.log.append_as_follower(driver.now, led(12, 90, 2)).unwrap();
    driver.run();
    assert!(driver.log.delete_records(driver.now, 13));
    assert_eq!((driver.log.log_start_offset(), driver.log.log_end()), (13, 14));
}

#[test]
fn nobody_reads_from_files_that_are_being_cut() {
    let mut driver = filled(10);
    let end = driver.log.log_end_position();
    let query = Query::Fetch { offset: 1, max_bytes: 100, end };
    let (mut before, step) = driver.log.lookup(query);
    let LookupStep::Read(op) = step else { panic!("{step:?}") };
    driver.log.begin_truncate(driver.now, 5);
    let result = driver.dir.execute(&op, std::iter::empty());
    assert_eq!(driver.log.lookup_next(&mut before, result), LookupStep::Found(Found::Empty));
    assert_eq!(driver.lookup(query), LookupStep::Found(Found::Empty));
    let at = Query::Timestamp { timestamp_ms: 0, end_offset: 20 };
    assert_eq!(driver.lookup(at), LookupStep::Found(Found::None));
    driver.run();
    assert_eq!(driver.first_batch(1).base_offset, 0);
}

#[test]
fn a_full_device_delays_a_truncation_and_a_stop_does_not_wait_for_it() {
    for kind in [Kind::Create, Kind::Write] {
        let mut driver = filled(10);
        driver.dir.fail_next(kind, FileError::NoSpace);
        driver.log.begin_truncate(driver.now, 9);
        assert_eq!(driver.run(), []);
        assert!(driver.log.waits_for_space() && driver.log.is_truncating());
        assert_eq!(driver.pass(1000).last(), Some(&LogEvent::Truncated { log_end: 8 }));
        let mut stopped = filled(10);
        stopped.dir.fail_next(kind, FileError::NoSpace);
        stopped.log.begin_truncate(stopped.now, 9);
        stopped.log.begin_close(stopped.now);
        assert_eq!(stopped.run(), [LogEvent::Closed]);
        assert!(stopped.log.is_unclean());
    }
    let mut driver = filled(10);
    driver.dir.fail_next(Kind::Truncate, FileError::Io(5));
    driver.log.begin_truncate(driver.now, 9);
    assert_eq!(driver.run(), [LogEvent::Offline(FileError::Io(5))]);
}

#[test]
fn a_stop_and_a_deletion_may_come_at_any_step() {
    for steps in 0..60 {
        for delete in [false, true] {
            let mut driver = filled(10);
            driver.log.begin_truncate(driver.now, 9);
            let mut events = Vec::new();
            for _ in 0..steps {
                let Some((ticket, op)) = driver.log.next_op(driver.now) else { break };
                driver.complete(ticket, &op, &mut events);
            }
            if delete {
                driver.log.begin_delete(driver.now);
                assert_eq!(driver.run().last(), Some(&LogEvent::Retired));
                continue;
            }
            driver.log.begin_close(driver.now);
            events.extend(driver.run());
            assert_eq!(events, [LogEvent::Truncated { log_end: 8 }, LogEvent::Closed], "after {steps}");
            assert!(!driver.log.is_unclean());
        }
    }
}

#[test]
fn damage_that_a_truncation_meets_is_cut_off() {
    let mut driver = filled(10);
    driver.pass(31_000);
    let base = *bases(&driver).last().unwrap();
    let length = driver.dir.file(Stem::Log(base)).unwrap().len() as u64;
    let bytes = Bytes::from_static(&[1, 2, 3]);
    let damage = FileOp::Write { file: Stem::Log(base).into(), position: length - 5, bytes };
    driver.dir.execute(&damage, std::iter::empty()).unwrap();
    let end = driver.log.written_end();
    driver.log.append_as_follower(driver.now, led(end, 50, 1)).unwrap();
    driver.run();
    driver.log.begin_truncate(driver.now, end);
    let events = driver.run();
    assert!(
        events.contains(&LogEvent::Truncated { log_end: end - 2 }),
        "the leader has it whole: {events:?}"
    );
}

#[test]
fn a_log_without_files_gets_them_before_it_begins_anew() {
    let mut dir = MemoryDir::default();
    dir.fail_next(Kind::Create, FileError::NoSpace);
    let mut driver = Driver::over(small(), dir);
    driver.run();
    driver.log.begin_truncate(driver.now, 5);
    assert_eq!(driver.run(), [LogEvent::Truncated { log_end: 0 }]);
    driver.log.begin_restart_at(driver.now, 40);
    assert_eq!(driver.run(), [], "what is truncated is so for good");
    assert!(driver.log.is_truncating());
    assert_eq!(driver.pass(1000), [LogEvent::Truncated { log_end: 40 }]);
    driver.log.append_as_follower(driver.now, led(40, 1, 1)).unwrap();
    driver.run();
    assert_eq!(found(&mut driver), [40]);
}
