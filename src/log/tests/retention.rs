//! Which segments retention gives up, and that giving up many of them keeps nobody waiting.

use proptest::prelude::*;

use super::log_starts::restarted;
use super::*;
use crate::effect::{FileName, Suffix};

/// A log of so many full segments of one batch each, and an empty active one behind none of them.
fn filled(segments: usize, config: TopicConfig) -> Driver {
    let mut driver = Driver::new(config);
    for _ in 0..segments {
        driver.append(&batch(&[START_MS], 3_500));
    }
    assert_eq!(driver.log.segments().len(), segments);
    driver
}

#[test]
fn an_append_waits_for_one_file_of_a_thousand_deleted_segments() {
    let mut driver = filled(1_001, TopicConfig { file_delete_delay_ms: 0, ..small() });
    let end = driver.log.written_end();
    assert!(driver.log.delete_records(driver.now, 1_000));
    assert_eq!(driver.log.segments().len(), 1, "at once for everyone who reads");
    let is_deletion = |op: &FileOp| match op {
        FileOp::Rename { to, .. } => to.suffix == Suffix::Deleted,
        op => matches!(op, FileOp::Delete { .. }),
    };
    let mut deleted = 0;
    loop {
        // The file that is under way when somebody appends, and those that come before the append.
        let under_way = driver.log.next_op(driver.now);
        let (_, offset_end) = driver.gather(&batch(&[START_MS], 10));
        let mut between = 0;
        let mut next = under_way.clone();
        while driver.log.written_end() < offset_end {
            driver.log.end_turn(driver.now);
            let (ticket, op) =
                next.take().or_else(|| driver.log.next_op(driver.now)).expect("the append is on its way");
            between += usize::from(is_deletion(&op));
            driver.complete(ticket, &op, &mut Vec::new());
        }
        assert!(between <= 1, "an append waited for {between} files");
        deleted += between;
        driver.log.wake(driver.now);
        if under_way.is_none() {
            break;
        }
    }
    assert_eq!(deleted, 2 * 5 * 1_000, "renamed, then unlinked");
    assert!(driver.log.written_end() > end);
    let left = driver.dir.names().filter(|name| name.suffix == Suffix::Deleted).count();
    assert_eq!(left, 0);
}

#[test]
fn the_checkpoint_is_needed_until_the_names_are_gone_for_good() {
    let mut driver = filled(4, small());
    assert!(driver.log.delete_records(driver.now, 2));
    let mut synced = false;
    while let Some((ticket, op)) = driver.log.next_op(driver.now) {
        assert_eq!(driver.log.gone_below(), 0, "a power cut may undo the renames");
        synced |= op == FileOp::SyncDir && !driver.dir.names().any(|name| name == Stem::Log(0).into());
        driver.complete(ticket, &op, &mut Vec::new());
        if driver.log.gone_below() > 0 {
            break;
        }
    }
    assert!(synced);
    assert_eq!(driver.log.gone_below(), 2);
}

#[test]
fn a_shorter_delay_does_not_wait_for_a_longer_one_before_it() {
    let mut driver = filled(4, small());
    assert!(driver.log.delete_records(driver.now, 1));
    driver.run();
    driver.log.set_config(Arc::new(TopicConfig { file_delete_delay_ms: 0, ..small() }));
    assert!(driver.log.delete_records(driver.now, 2));
    driver.pass(1);
    let marked = |base_offset| FileName::from(Stem::Log(base_offset)).with(Suffix::Deleted);
    assert!(driver.dir.names().any(|name| name == marked(0)), "it waits for the delay of its own time");
    assert!(!driver.dir.names().any(|name| name == marked(1) || name == Stem::Log(1).into()));
}

#[test]
fn a_segment_without_timestamps_is_as_old_as_its_file() {
    let mut driver = Driver::new(TopicConfig { retention_ms: 1_000, ..small() });
    driver.append(&batch(&[-1], 3_500));
    driver.pass(600);
    driver.append(&batch(&[-1], 3_500));
    assert_eq!(driver.log.segments().len(), 2);
    assert_eq!(driver.log.retention(driver.now, 2), None);
    driver.pass(401);
    assert_eq!(driver.log.retention(driver.now, 2), Some(1), "its bytes are 1001 ms old");
    // A record with a timestamp counts for the whole segment.
    driver.append(&batch(&[START_MS + 5_000], 10));
    driver.pass(3_000);
    assert_eq!(driver.log.retention(driver.now, 3), Some(1));
}

#[test]
fn what_is_too_old_goes_behind_what_is_too_much() {
    let mut driver = Driver::new(TopicConfig { retention_ms: 1_000, retention_bytes: 10_000, ..small() });
    // The first one is new, and above the size; the second one is old.
    for timestamp_ms in [START_MS, START_MS - 5_000, START_MS, START_MS] {
        driver.append(&batch(&[timestamp_ms], 3_500));
    }
    assert_eq!(driver.log.retention(driver.now, 4), Some(2));
}

/// Kafka's rules, segment by segment: what is above the size goes first, then what is too old.
fn kept_from(segments: &[(u64, i64)], config: &TopicConfig, wall_ms: i64, high_watermark: usize) -> usize {
    let size: u64 = segments.iter().map(|(bytes, _)| bytes).sum();
    let mut first = 0;
    if config.retention_bytes >= 0 && size >= config.retention_bytes as u64 {
        let mut above = size - config.retention_bytes as u64;
        while first < high_watermark && above >= segments[first].0 {
            above -= segments[first].0;
            first += 1;
        }
    }
    let is_old = |at: usize| config.retention_ms >= 0 && wall_ms - segments[at].1 > config.retention_ms;
    while first < high_watermark && is_old(first) {
        first += 1;
    }
    first
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn retention_keeps_what_kafkas_rules_keep(
        segments in prop::collection::vec((2_100_usize..3_500, -4_000_i64..2_000), 1..12),
        retention_ms in -1_i64..5_000,
        retention_bytes in -1_i64..30_000,
        above in 0_usize..3,
    ) {
        let mut driver = Driver::new(TopicConfig { retention_ms, retention_bytes, ..small() });
        for (bytes, age) in &segments {
            driver.append(&batch(&[START_MS + age], *bytes));
        }
        let known: Vec<(u64, i64)> =
            driver.log.segments().map(|segment| (segment.length_bytes, segment.max_timestamp_ms)).collect();
        prop_assert_eq!(known.len(), segments.len());
        let high_watermark = segments.len().saturating_sub(above);
        let expected = kept_from(&known, &driver.log.config, driver.now.wall_ms, high_watermark);
        let mut start = driver.log.retention(driver.now, high_watermark as i64);
        for event in driver.run() {
            if let LogEvent::Expired(offset) = event {
                start = Some(offset);
            }
        }
        prop_assert_eq!(start.unwrap_or(0), expected as i64);
    }
}

#[test]
fn a_segment_goes_only_when_it_and_the_producers_of_the_next_one_are_synced() {
    let mut driver = Driver::new(TopicConfig { retention_bytes: 0, ..small() });
    driver.hold_syncs = true;
    while driver.log.segments().len() < 2 {
        driver.append(&batch(&[5], 1000));
    }
    let end = driver.log.written_end();
    assert_eq!(driver.log.retention(driver.now, end), None, "a power cut would take the producers away");
    assert!(driver.log.delete_records(driver.now, end));
    driver.run();
    assert!(driver.dir.file(Stem::Log(0)).is_some());
    assert_eq!(driver.log.log_start_offset(), end, "nobody is shown its records any more");
    assert_eq!(driver.log.size_bytes(), driver.log.segments().last().unwrap().length_bytes);
    driver.hold_syncs = false;
    driver.release();
    driver.run();
    assert!(driver.dir.file(Stem::Log(0)).is_none());
    let position = |wanted: fn(&FileOp) -> bool| driver.ops.iter().position(wanted).unwrap();
    let synced =
        position(|op| matches!(op, FileOp::Sync { file } if matches!(file.stem, Stem::ProducerSnapshot(_))));
    let renamed = position(|op| matches!(op, FileOp::Rename { from, .. } if from.stem == Stem::Log(0)));
    assert!(synced < renamed);
}

#[test]
fn a_log_is_deleted_also_where_a_roll_waits_for_the_names_of_the_last_one() {
    let mut driver = Driver::new(small());
    // A sync is on its way, so the names of the second roll wait, and the third roll waits for them.
    driver.hold_syncs = true;
    while driver.log.reserved_end() == driver.log.written_end() {
        driver.append(&batch(&[5], 1000));
    }
    assert_eq!((driver.log.segments().len(), driver.held.len()), (3, 1));
    driver.log.begin_delete(driver.now);
    driver.run();
    driver.hold_syncs = false;
    driver.release();
    driver.run();
    assert!(driver.log.is_retired());
}

/// What the first segment says of its producers is in the snapshot beside the second one, and that is not synced by
/// the sync of its records.
#[test]
fn a_segment_that_was_synced_before_it_was_rolled_is_synced_again_after_a_restart() {
    let mut driver = Driver::new(small());
    driver.append(&checked(BatchBuilder::new().producer(7, 0, 0).record(5, None, Some(&[1; 3900]))));
    driver.pass(31_000);
    let recovery_point = driver.log.recovery_point();
    assert_eq!(recovery_point, 1, "the whole segment is synced");
    driver.hold_syncs = true;
    driver.append(&batch(&[6], 3900));
    assert_eq!(driver.log.segments().len(), 2);
    driver.hold_syncs = false;
    driver.held.clear();
    let mut driver = restarted(driver, recovery_point, 0);
    assert!(driver.log.delete_records(driver.now, 1));
    let before = driver.ops.len();
    driver.run();
    let ops = &driver.ops[before..];
    let at = |wanted: &dyn Fn(&FileOp) -> bool| ops.iter().position(wanted).unwrap();
    let snapshot = FileOp::Sync { file: Stem::ProducerSnapshot(1).into() };
    let is_gone = |op: &FileOp| matches!(op, FileOp::Rename { from, .. } if from.stem == Stem::Log(0));
    assert!(at(&|op| *op == snapshot) < at(&is_gone), "{ops:?}");
}

#[test]
fn a_stop_syncs_the_snapshots_of_segments_that_a_recovery_found() {
    let mut driver = Driver::new(small());
    driver.hold_syncs = true;
    for sequence in 0..3 {
        let one = BatchBuilder::new().producer(7, 0, sequence).record(5, None, Some(&[1; 3900]));
        driver.append(&checked(one));
    }
    assert_eq!(driver.log.segments().len(), 3);
    driver.hold_syncs = false;
    driver.held.clear();
    for is_lost in [false, true] {
        let mut before = driver.dir.clone();
        if is_lost {
            before
                .execute(&FileOp::Delete { file: Stem::ProducerSnapshot(1).into() }, std::iter::empty())
                .unwrap();
        }
        let mut stopped = restarted(Driver::over(small(), before), 0, 0);
        stopped.log.begin_close(stopped.now);
        assert_eq!(stopped.run().last(), Some(&LogEvent::Closed));
        for base in [1, 2] {
            let synced = FileOp::Sync { file: Stem::ProducerSnapshot(base).into() };
            assert!(stopped.ops.contains(&synced), "{base}: {:?}", stopped.ops);
        }
    }
}
