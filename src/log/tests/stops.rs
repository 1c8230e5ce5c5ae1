//! What a clean stop syncs: what was touched, and nothing of the thousands of logs that rest.

use super::log_starts::{reopened, restarted};
use super::*;

/// Stops cleanly; what that carried out.
fn stop(driver: &mut Driver) -> Vec<FileOp> {
    let before = driver.ops.len();
    driver.log.begin_close(driver.now);
    let events = driver.run();
    assert!(driver.log.is_closed() && !driver.log.is_unclean());
    let ops = driver.ops[before..].to_vec();
    assert_eq!(events.last(), (!ops.is_empty()).then_some(&LogEvent::Closed), "{ops:?}");
    ops
}

fn synced(stem: Stem) -> FileOp {
    FileOp::Sync { file: stem.into() }
}

/// A log with a batch of producer 7 that a clean stop has left, opened again.
fn left() -> Driver {
    let mut driver = Driver::new(small());
    driver.append(&checked(BatchBuilder::new().producer(7, 0, 0).record(5, None, Some(&[1; 300]))));
    let ops = stop(&mut driver);
    for stem in [Stem::ProducerSnapshot(1), Stem::Log(0), Stem::OffsetIndex(0), Stem::TimeIndex(0)] {
        assert!(ops.contains(&synced(stem)), "{stem:?} of {ops:?}");
    }
    assert_eq!(ops.last(), Some(&FileOp::SyncDir));
    reopened(driver, true, 1, 0)
}

#[test]
fn a_new_log_without_a_record_and_one_that_rested_since_a_clean_stop_have_nothing_to_sync() {
    let mut new = Driver::new(small());
    assert_eq!(stop(&mut new), []);
    let mut again = reopened(new, true, 0, 0);
    assert_eq!(stop(&mut again), []);

    let mut left = left();
    for _ in 0..2 {
        left.pass(100_000);
        assert_eq!(stop(&mut left), []);
        left = reopened(left, true, 1, 0);
        assert_eq!(left.log.written_end(), 1);
        assert!(left.dir.file(Stem::ProducerSnapshot(1)).is_some(), "the producers are known");
    }
    left.append(&batch(&[6], 300));
    let ops = stop(&mut left);
    assert!(
        ops.contains(&synced(Stem::ProducerSnapshot(2))) && ops.contains(&synced(Stem::Log(0))),
        "{ops:?}"
    );
}

/// That the records are durable does not make the indexes so, nor is there a snapshot of the producers at the end.
#[test]
fn a_log_whose_records_were_synced_while_it_ran_is_finished_by_the_stop_all_the_same() {
    for mut driver in [Driver::new(small()), left()] {
        driver.append(&batch(&[6], 300));
        driver.pass(31_000);
        let log_end = driver.log.written_end();
        assert_eq!(driver.log.durable_end(), log_end);
        let ops = stop(&mut driver);
        for stem in [Stem::ProducerSnapshot(log_end), Stem::OffsetIndex(0), Stem::TimeIndex(0)] {
            assert!(ops.contains(&synced(stem)), "{stem:?} of {ops:?}");
        }
    }
}

#[test]
fn a_log_whose_snapshot_a_start_did_not_find_gets_it_with_the_next_stop() {
    let mut driver = left();
    let gone = FileOp::Delete { file: Stem::ProducerSnapshot(1).into() };
    driver.dir.execute(&gone, std::iter::empty()).unwrap();
    let mut driver = reopened(driver, true, 1, 0);
    assert!(stop(&mut driver).contains(&synced(Stem::ProducerSnapshot(1))));
}

#[test]
fn a_log_with_records_whose_process_died_is_synced_by_the_next_stop() {
    let mut driver = restarted(left(), 1, 0);
    let ops = stop(&mut driver);
    assert!(
        ops.contains(&synced(Stem::Log(0))) && ops.contains(&synced(Stem::ProducerSnapshot(1))),
        "{ops:?}"
    );
}

/// The process may have died before it had synced the names that it made.
#[test]
fn the_names_of_an_empty_segment_that_a_recovery_found_are_synced_with_its_first_record_or_by_a_stop() {
    let mut stopped = restarted(Driver::new(small()), 0, 0);
    stopped.pass(100_000);
    assert_eq!(stopped.ops.last(), Some(&FileOp::SyncDir), "those of the creation");
    assert_eq!(stop(&mut stopped), [FileOp::SyncDir]);

    let mut driver = restarted(Driver::new(small()), 0, 0);
    let before = driver.ops.len();
    driver.append(&batch(&[5], 300));
    driver.pass(31_000);
    assert_eq!(driver.log.durable_end(), 1);
    let ops = &driver.ops[before..];
    let at = |wanted: &FileOp| ops.iter().position(|op| op == wanted).unwrap();
    assert!(at(&FileOp::SyncDir) < at(&synced(Stem::Log(0))), "{ops:?}");
}

/// Whoever waits for a stop that found a truncation under way hears of its end by an event.
#[test]
fn a_stop_that_waits_for_a_truncation_tells_of_its_end_also_where_nothing_is_left_to_do() {
    type Begin = fn(&mut Log, Now);
    let ways: [Begin; 3] = [
        |log, now| log.begin_truncate(now, 0),
        |log, now| log.begin_restart_at(now, 0),
        |log, now| log.begin_restart_at(now, 5),
    ];
    for begin in ways {
        for (mut driver, is_new) in [(Driver::new(small()), true), (left(), false)] {
            begin(&mut driver.log, driver.now);
            driver.log.begin_close(driver.now);
            assert_eq!(driver.run().last(), Some(&LogEvent::Closed), "of a new one: {is_new}");
            assert!(driver.log.is_closed() && !driver.log.is_unclean());
        }
    }
}
