//! The log start in the checkpoint, where a truncation leaves it above the log's own.

use super::super::mark::{Mark, mark_file};
use super::super::memory_dir::Kind;
use super::super::{Recovery, RecoveryPlan, RecoveryStep};
use super::follower::led;
use super::truncations::{filled, found, mark};
use super::*;
use crate::effect::FileError;

/// The process dies and starts again; the checkpoint holds these.
pub(super) fn restarted(before: Driver, recovery_point: i64, log_start_offset: i64) -> Driver {
    reopened(before, false, recovery_point, log_start_offset)
}

/// The log is opened again, after a clean stop or the death of its process.
pub(super) fn reopened(
    mut before: Driver,
    clean: bool,
    recovery_point: i64,
    log_start_offset: i64,
) -> Driver {
    let config = Arc::clone(&before.log.config);
    let mut recovery = Recovery::new(RecoveryPlan {
        topic_id: Uuid::from_u128(7),
        clean,
        same_boot: true,
        recovery_point,
        log_start_offset,
        config: Arc::clone(&config),
        wall_ms: before.now.wall_ms,
    });
    let mut last = None;
    let found = loop {
        match recovery.step(last.take()) {
            RecoveryStep::Op(op) => last = Some(before.dir.execute(&op, std::iter::empty())),
            RecoveryStep::Done(found) => break *found,
            end => panic!("{end:?}"),
        }
    };
    let log = Log::recovered(found, config, before.now, 1);
    Driver { log, ..before }
}

/// A log that starts at 13 and ends at 20; the checkpoint holds 13.
fn started_at_13() -> Driver {
    let mut driver = filled(10);
    assert!(driver.log.promise_log_start(13) && driver.log.delete_records(driver.now, 13));
    driver.run();
    driver
}

#[test]
fn a_log_that_began_anew_below_its_start_is_there_after_a_restart() {
    let mut driver = started_at_13();
    driver.log.begin_restart_at(driver.now, 4);
    driver.run();
    driver.log.append_as_follower(driver.now, led(4, 90, 3)).unwrap();
    driver.run();
    // Nobody has lowered the checkpoint.
    for _ in 0..2 {
        driver = restarted(driver, 0, 13);
        assert_eq!((driver.log.log_start_offset(), driver.log.log_end()), (4, 7));
        assert_eq!((driver.log.start_to_lower(), driver.log.log_start_promised()), (Some(4), 4));
        assert_eq!(found(&mut driver), [4]);
    }
    // It grows beyond what the checkpoint says: that counts no more for it.
    driver.log.append_as_follower(driver.now, led(7, 91, 9)).unwrap();
    driver.run();
    driver = restarted(driver, 0, 13);
    assert_eq!((driver.log.log_start_offset(), driver.log.log_end()), (4, 16));
    assert!(!driver.log.promise_log_start(10), "a log start in the checkpoint would not count");
    driver.log.log_start_lowered(4);
    assert_eq!((driver.log.start_to_lower(), driver.log.promise_log_start(10)), (None, false));
    driver.run();
    assert_eq!(mark(&driver), None);
    // For good: a mark that a power cut brought back would hide a higher log start.
    let gone = driver.ops.iter().rposition(|op| *op == FileOp::Delete { file: mark_file() }).unwrap();
    assert!(driver.ops[gone..].contains(&FileOp::SyncDir), "{:?}", driver.ops);
    assert!(driver.log.promise_log_start(10));
    driver = restarted(driver, 0, 10);
    assert_eq!((driver.log.log_start_offset(), driver.log.start_to_lower()), (10, None));
}

#[test]
fn a_log_start_that_was_promised_goes_with_the_records_that_are_cut_off() {
    let mut driver = filled(10);
    assert!(driver.log.promise_log_start(13));
    driver.log.begin_truncate(driver.now, 9);
    assert!(!driver.log.promise_log_start(14), "the log is being truncated");
    assert!(!driver.log.delete_records(driver.now, 13));
    driver.run();
    assert_eq!((driver.log.log_start_offset(), driver.log.log_end()), (0, 8));
    assert_eq!(mark(&driver), Some(Mark::Begun { start: 0, synced: driver.log.durable_end() }));
    // It is in the checkpoint, and the process dies before that is lowered.
    let mut driver = restarted(driver, 0, 13);
    assert_eq!((driver.log.log_start_offset(), driver.log.log_end()), (0, 8));
    assert_eq!(found(&mut driver), [0, 2, 4, 6]);
    // It dies between the lowering and the end of the mark.
    let driver = restarted(driver, 0, 0);
    assert_eq!((driver.log.start_to_lower(), mark(&driver)), (None, None));
}

#[test]
fn a_crash_at_any_step_of_a_truncation_below_the_start_keeps_what_was_there_or_what_is_to_be() {
    for steps in 0..200 {
        let mut driver = started_at_13();
        driver.log.begin_restart_at(driver.now, 4);
        let mut events = Vec::new();
        for _ in 0..steps {
            let Some((ticket, op)) = driver.log.next_op(driver.now) else { break };
            driver.complete(ticket, &op, &mut events);
        }
        let driver = restarted(driver, 0, 13);
        let is = (driver.log.log_start_offset(), driver.log.log_end(), driver.log.start_to_lower());
        assert!([(13, 20, None), (4, 4, Some(4))].contains(&is), "{is:?} after {steps} steps");
        if !events.is_empty() {
            return assert!(steps > 20 && is.1 == 4, "it ends: {events:?}");
        }
    }
    panic!("a truncation has an end");
}

#[test]
fn the_mark_stays_for_the_recovery_point_when_the_log_start_is_lowered() {
    let mut driver = started_at_13();
    driver.pass(31_000);
    assert_eq!(driver.log.recovery_point(), 20);
    driver.log.begin_restart_at(driver.now, 4);
    driver.run();
    assert_eq!(mark(&driver), Some(Mark::Begun { start: 4, synced: 4 }));
    driver.log.log_start_lowered(4);
    driver.run();
    assert_eq!(mark(&driver), Some(Mark::Synced { offset: 4 }));
    driver.log.append_as_follower(driver.now, led(4, 90, 16)).unwrap();
    driver.run();
    driver.pass(31_000);
    assert_eq!((driver.log.recovery_point(), mark(&driver)), (20, None));
    // The other way round.
    let mut driver = started_at_13();
    driver.pass(31_000);
    driver.log.begin_restart_at(driver.now, 4);
    driver.run();
    driver.log.append_as_follower(driver.now, led(4, 90, 16)).unwrap();
    driver.run();
    driver.pass(31_000);
    assert_eq!(mark(&driver), Some(Mark::Begun { start: 4, synced: 4 }));
    driver.log.log_start_lowered(4);
    driver.run();
    assert_eq!(mark(&driver), None);
}

#[test]
fn a_full_device_delays_the_end_of_the_mark() {
    let mut driver = started_at_13();
    driver.pass(31_000);
    driver.log.begin_restart_at(driver.now, 4);
    driver.run();
    driver.dir.fail_next(Kind::Create, FileError::NoSpace);
    driver.log.log_start_lowered(4);
    driver.run();
    assert!(driver.log.waits_for_space() && !driver.log.promise_log_start(9));
    driver.pass(1000);
    assert!(driver.log.promise_log_start(9));
}

#[test]
fn an_answer_to_an_older_question_lowers_nothing() {
    let mut driver = started_at_13();
    driver.log.begin_restart_at(driver.now, 4);
    driver.run();
    driver.log.begin_restart_at(driver.now, 2);
    driver.log.log_start_lowered(4);
    driver.run();
    assert_eq!(driver.log.start_to_lower(), Some(2));
    driver.log.log_start_lowered(4);
    assert_eq!(driver.log.start_to_lower(), Some(2));
}
