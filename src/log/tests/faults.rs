//! What a failing device does to a log.

use super::super::batch::BatchBuilder;
use super::super::memory_dir::Kind;
use super::*;
use crate::effect::FileError;

#[test]
fn a_short_write_takes_everything_reserved_back() {
    let mut driver = Driver::new(small());
    driver.append(&batch(&[1], 100));
    let file = driver.dir.file(Stem::Log(0)).unwrap().to_vec();
    let (epochs, producers) = (driver.log.epochs().clone(), driver.log.producers().snapshot());
    let one = checked(BatchBuilder::new().producer(9, 0, 0).record(5, None, Some(b"a")));
    driver.gather(&one);
    driver.log.append(driver.now, &batch(&[2], 10), 4).unwrap();
    driver.dir.fail_next(Kind::Append, FileError::Short { written: 70 });
    driver.log.end_turn(driver.now);
    while let Some((ticket, op)) = driver.log.next_op(driver.now) {
        let is_append = matches!(op, FileOp::Append { .. });
        if is_append {
            // A batch that gathers meanwhile goes with them.
            driver.gather(&batch(&[3], 10));
        }
        let mut events = Vec::new();
        driver.complete(ticket, &op, &mut events);
        if is_append {
            let error = FileError::Short { written: 70 };
            assert_eq!(events, [LogEvent::Dropped { from_offset: 1, error }]);
            assert!(driver.dir.file(Stem::Log(0)).unwrap().len() > file.len());
        }
    }
    assert_eq!(driver.dir.file(Stem::Log(0)).unwrap(), file);
    assert_eq!((driver.log.reserved_end(), driver.log.generation()), (1, 1));
    assert_eq!(driver.log.epochs(), &epochs);
    assert_eq!(driver.log.producers().snapshot(), producers);
    assert_eq!(driver.append(&one), (1, 2), "the log goes on");
    assert_eq!(driver.first_batch(1).base_offset, 1);
}

#[test]
fn a_full_device_is_retriable_also_while_rolling() {
    for kind in [Kind::Create, Kind::Write] {
        let mut driver = Driver::new(small());
        for _ in 0..3 {
            driver.append(&batch(&[5], 1000));
        }
        driver.gather(&batch(&[5], 1000));
        driver.dir.fail_next(kind, FileError::NoSpace);
        let events = driver.run();
        assert_eq!(events, [LogEvent::Dropped { from_offset: 3, error: FileError::NoSpace }]);
        assert!(driver.dir.file(Stem::Log(3)).is_none(), "nothing of the new segment is left");
        assert_eq!(driver.append(&batch(&[5], 1000)), (3, 4));
        assert_eq!(driver.log.segments().len(), 2);
        for offset in 0..4 {
            assert_eq!(driver.first_batch(offset).base_offset, offset);
        }
    }
}

#[test]
fn names_that_a_full_device_does_not_sync_ask_for_no_time_that_is_over() {
    let mut driver = Driver::new(TopicConfig { flush_ms: 100, ..small() });
    driver.append(&batch(&[5], 1000));
    driver.hold_names = true;
    while driver.log.segments().len() < 2 {
        driver.append(&batch(&[5], 1000));
    }
    driver.append(&batch(&[5], 100));
    let (ticket, op) = driver.held.pop().unwrap();
    assert_eq!(op, FileOp::SyncDir);
    assert_eq!(driver.log.completed(driver.now, ticket, Err(FileError::NoSpace)), LogEvent::None);
    driver.now.mono_ms += 500;
    driver.log.wake(driver.now);
    let at_ms = driver.log.next_wake_ms().expect("it is tried again");
    assert!(at_ms > driver.now.mono_ms, "{at_ms} is over at {}", driver.now.mono_ms);
}

#[test]
fn index_entries_that_could_not_be_written_are_written_later() {
    let mut driver = Driver::new(small());
    for n in 0..10 {
        driver.append(&batch(&[n], 100));
    }
    driver.dir.fail_next(Kind::Write, FileError::NoSpace);
    assert_eq!(driver.pass(1000), []);
    assert_eq!(driver.dir.file(Stem::OffsetIndex(0)).unwrap(), b"");
    driver.pass(1000);
    assert!(!driver.dir.file(Stem::OffsetIndex(0)).unwrap().is_empty());
}

#[test]
fn a_device_error_takes_the_log_offline() {
    for (kind, flush_messages) in [(Kind::Append, i64::MAX), (Kind::Sync, 1)] {
        let mut driver = Driver::new(TopicConfig { flush_messages, ..small() });
        driver.append(&batch(&[1], 100));
        driver.gather(&batch(&[1], 100));
        driver.dir.fail_next(kind, FileError::Io(5));
        assert_eq!(driver.run().last(), Some(&LogEvent::Offline(FileError::Io(5))));
        assert_eq!(driver.log.reserved_end(), driver.log.written_end());
        assert!(driver.log.append(driver.now, &batch(&[1], 100), 3).is_err());
        assert_eq!(driver.run(), []);
    }
}

#[test]
fn a_recovered_log_syncs_what_is_there_also_where_a_power_cut_took_a_snapshot() {
    for close in [false, true] {
        let mut driver = Driver::new(small());
        for _ in 0..4 {
            driver.append(&batch(&[5], 1000));
        }
        let snapshot = FileOp::Delete { file: Stem::ProducerSnapshot(3).into() };
        driver.dir.execute(&snapshot, std::iter::empty()).unwrap();
        driver.log.recovered_durable(0, false, driver.now);
        if close {
            driver.log.begin_close(driver.now);
        }
        assert!(!driver.run().iter().any(|event| matches!(event, LogEvent::Offline(_))));
        assert!(driver.log.durable_end() >= 3);
    }
}

/// A log whose append failed and that could not be cut back either, with that error.
fn uncut(error: FileError) -> (Driver, Vec<LogEvent>) {
    let mut driver = Driver::new(small());
    driver.append(&batch(&[1], 100));
    driver.gather(&batch(&[1], 100));
    driver.dir.fail_next(Kind::Append, FileError::Short { written: 30 });
    driver.dir.fail_next(Kind::Truncate, error);
    let events = driver.run();
    (driver, events)
}

const SHORT: LogEvent = LogEvent::Dropped { from_offset: 1, error: FileError::Short { written: 30 } };

#[test]
fn a_log_that_cannot_be_cut_back_goes_offline() {
    let (_, events) = uncut(FileError::Io(5));
    assert_eq!(events, [SHORT, LogEvent::Offline(FileError::Io(5))]);
}

#[test]
fn a_full_device_delays_cutting_back_and_everything_behind_it() {
    let (mut driver, events) = uncut(FileError::NoSpace);
    assert_eq!(events, [SHORT]);
    let torn = driver.dir.file(Stem::Log(0)).unwrap().len();
    driver.gather(&batch(&[2], 10));
    assert_eq!(driver.run(), [], "nothing is written behind torn bytes");
    assert_eq!(driver.dir.file(Stem::Log(0)).unwrap().len(), torn);
    assert_eq!(driver.pass(1000), [LogEvent::Appended]);
    assert_eq!(driver.first_batch(1).base_offset, 1);
    assert_eq!(driver.log.size_bytes(), driver.dir.file(Stem::Log(0)).unwrap().len() as u64);
}

#[test]
fn a_clean_stop_on_a_full_device_ends_and_says_that_it_was_not_clean() {
    for kind in [Kind::Create, Kind::Write] {
        let mut driver = Driver::new(small());
        driver.append(&batch(&[1], 100));
        driver.dir.fail_next(kind, FileError::NoSpace);
        driver.log.begin_close(driver.now);
        assert_eq!(driver.run(), [LogEvent::Closed]);
        assert!(driver.log.is_unclean());
    }
    let (mut driver, _) = uncut(FileError::NoSpace);
    driver.dir.fail_next(Kind::Truncate, FileError::NoSpace);
    driver.log.begin_close(driver.now);
    assert_eq!(driver.run(), [LogEvent::Closed], "a stop does not wait for space");
    assert!(driver.log.is_unclean());
    let mut driver = Driver::new(small());
    driver.append(&batch(&[1], 100));
    driver.log.begin_close(driver.now);
    assert_eq!(driver.run(), [LogEvent::Closed]);
    assert!(!driver.log.is_unclean());
}

#[test]
fn a_log_that_could_not_be_created_is_created_later() {
    let mut dir = MemoryDir::default();
    dir.fail_next(Kind::Create, FileError::NoSpace);
    let mut driver = Driver::over(small(), dir);
    assert_eq!(driver.run(), [LogEvent::Dropped { from_offset: 0, error: FileError::NoSpace }]);
    assert!(driver.log.append(driver.now, &batch(&[1], 10), 3).is_err());
    driver.pass(1000);
    assert_eq!(driver.append(&batch(&[1], 10)), (0, 1));
}

#[test]
fn a_completion_that_nobody_waits_for_changes_nothing() {
    let mut driver = Driver::new(small());
    driver.append(&batch(&[1], 100));
    let event = driver.log.completed(driver.now, Ticket(9999), Err(FileError::Io(5)));
    assert_eq!(event, LogEvent::None);
    assert_eq!(driver.log.log_end(), 1);
}

/// A log whose creation a full device refused while an append was planned behind it.
fn refused_creation() -> Driver {
    let mut driver = Driver::over(small(), MemoryDir::default());
    driver.gather(&batch(&[1], 10));
    driver.log.end_turn(driver.now);
    driver.dir.fail_next(Kind::Create, FileError::NoSpace);
    let dropped = LogEvent::Dropped { from_offset: 0, error: FileError::NoSpace };
    assert_eq!(driver.run(), [dropped], "what was planned behind the creation is forgotten");
    driver
}

#[test]
fn a_refused_creation_takes_the_appends_behind_it_along_and_is_tried_again() {
    let mut driver = refused_creation();
    assert!(driver.log.append(driver.now, &batch(&[1], 10), 3).is_err());
    driver.pass(1000);
    assert_eq!(driver.append(&batch(&[1], 10)), (0, 1));
}

#[test]
fn a_log_that_was_never_created_closes_without_its_files() {
    let mut driver = refused_creation();
    driver.log.begin_close(driver.now);
    assert_eq!(driver.run(), [LogEvent::Closed]);
}

#[test]
fn where_there_is_no_directory_nothing_is_renamed_and_nothing_deleted() {
    let mut driver = refused_creation();
    driver.log.begin_delete(driver.now);
    let (ticket, op) = driver.log.next_op(driver.now).unwrap();
    assert_eq!(op, FileOp::RetireDir);
    let event = driver.log.completed(driver.now, ticket, Err(FileError::NotFound));
    assert_eq!(event, LogEvent::Deleted);
    assert_eq!(driver.pass(1_000_000), [], "the name may be another topic's by now");
}

#[test]
fn a_deletion_that_finds_no_space_or_descriptor_is_tried_again_and_takes_nothing_offline() {
    let mut driver = Driver::new(small());
    driver.append(&batch(&[1], 100));
    driver.log.begin_delete(driver.now);
    let refused = |driver: &mut Driver, expected: FileOp| {
        let (ticket, op) = driver.log.next_op(driver.now).unwrap();
        assert_eq!(op, expected);
        assert_eq!(driver.log.completed(driver.now, ticket, Err(FileError::NoSpace)), LogEvent::None);
        assert!(driver.log.waits_for_space() && driver.log.next_op(driver.now).is_none());
        let wake_ms = driver.log.next_wake_ms().unwrap();
        assert!(wake_ms > driver.now.mono_ms);
        driver.now.mono_ms = wake_ms;
        driver.log.wake(driver.now);
    };
    refused(&mut driver, FileOp::RetireDir);
    assert_eq!(driver.run(), [LogEvent::Retired]);
    driver.now.mono_ms = driver.log.next_wake_ms().unwrap();
    driver.log.wake(driver.now);
    // Not a sync, which would meet the deletion.
    refused(&mut driver, FileOp::DeleteDir);
    assert_eq!(driver.run(), [LogEvent::Deleted]);
}
