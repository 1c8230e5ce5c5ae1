//! Appends, rolls, indexes, the clean stop, retention.

use super::super::batch::BatchBuilder;
use super::*;
use crate::config::{CleanupPolicy, TimestampType};
use crate::effect::{FileName, Suffix};

fn names(driver: &Driver) -> Vec<String> {
    driver.dir.names().map(|name| name.to_string()).collect()
}

#[test]
fn a_new_log_has_kafkas_files() {
    let driver = Driver::new(TopicConfig::default());
    let mut expected = vec![
        "00000000000000000000.log",
        "00000000000000000000.index",
        "00000000000000000000.timeindex",
        "leader-epoch-checkpoint",
        "partition.metadata",
    ];
    let mut found = names(&driver);
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(driver.dir.file(Stem::Named("leader-epoch-checkpoint")).unwrap(), b"0\n0\n");
    let metadata = driver.dir.file(Stem::Named("partition.metadata")).unwrap();
    assert_eq!(metadata, b"version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAABw");
}

#[test]
fn the_batches_of_a_turn_are_one_append() {
    let mut driver = Driver::new(TopicConfig::default());
    assert_eq!(driver.gather(&batch(&[5, 6], 10)), (0, 2));
    assert_eq!(driver.gather(&batch(&[7], 10)), (2, 3));
    assert_eq!((driver.log.reserved_end(), driver.log.written_end()), (3, 0));
    let written = driver.run();
    assert_eq!(written, [LogEvent::Appended]);
    assert_eq!(driver.log.log_end(), 3);
    let second = driver.first_batch(2);
    assert_eq!((second.base_offset, second.leader_epoch), (2, 3));
    let epochs = driver.dir.file(Stem::Named("leader-epoch-checkpoint")).unwrap();
    assert_eq!(epochs, b"0\n1\n3 0\n");
}

#[test]
fn batches_gather_while_an_append_is_in_flight() {
    let mut driver = Driver::new(TopicConfig::default());
    driver.append(&batch(&[1], 10));
    driver.gather(&batch(&[1], 10));
    driver.log.end_turn(driver.now);
    let (ticket, op) = driver.log.next_op(driver.now).unwrap();
    let length = driver.log.append_parts().map(|(header, body)| header.len() + body.len()).sum::<usize>();
    driver.gather(&batch(&[1], 10));
    driver.log.end_turn(driver.now);
    assert_eq!(driver.log.next_op(driver.now), None);
    assert_eq!(op, FileOp::Append { base_offset: 0, position: length as u64, length: length as u64 });
    let mut events = Vec::new();
    driver.complete(ticket, &op, &mut events);
    assert_eq!((driver.log.written_end(), driver.log.reserved_end()), (2, 3));
    driver.run();
    assert_eq!(driver.log.written_end(), 3);
}

#[test]
fn log_append_time_is_stamped_and_checksummed() {
    let config = TopicConfig { timestamp_type: TimestampType::LogAppendTime, ..TopicConfig::default() };
    let mut driver = Driver::new(config);
    let appended = driver.log.append(driver.now, &batch(&[5], 10), 0).unwrap();
    assert_eq!(appended, Appended::New { base_offset: 0, offset_end: 1, log_append_time_ms: START_MS });
    driver.run();
    let info = driver.first_batch(0);
    assert!(info.is_log_append_time());
    let file = driver.dir.file(Stem::Log(0)).unwrap();
    assert!(super::super::batch::crc_holds(file, &info));
    let found = driver.lookup(Query::Timestamp { timestamp_ms: 6, end_offset: 1 });
    let expected = Found::Offset { offset: 0, timestamp_ms: START_MS, leader_epoch: 0 };
    assert_eq!(found, LookupStep::Found(expected));
}

#[test]
fn a_repeated_batch_gets_the_offsets_it_had() {
    let mut driver = Driver::new(TopicConfig::default());
    let first = checked(BatchBuilder::new().producer(9, 0, 0).record(5, None, Some(b"a")));
    driver.append(&first);
    let again = driver.log.append(driver.now, &first, 3).unwrap();
    assert_eq!(again, Appended::Duplicate { base_offset: 0, offset_end: 1, log_append_time_ms: -1 });
    assert_eq!(driver.log.reserved_end(), 1);
}

#[test]
fn a_full_segment_rolls_inside_a_turn() {
    let mut driver = Driver::new(small());
    let one = batch(&[5], 1000);
    for _ in 0..10 {
        driver.gather(&one);
    }
    driver.run();
    let bases: Vec<_> = driver.log.segments().map(|segment| segment.base_offset).collect();
    assert_eq!(bases, [0, 3, 6, 9]);
    assert_eq!(driver.log.log_end(), 10);
    assert_eq!(driver.log.durable_end(), 9, "rolled segments are synced");
    for offset in 0..10 {
        assert_eq!(driver.first_batch(offset).base_offset, offset);
    }
    let snapshots = names(&driver).into_iter().filter(|name| name.ends_with(".snapshot")).count();
    assert_eq!(snapshots, 3);
}

#[test]
fn appends_go_on_while_the_names_of_a_roll_are_synced_and_the_next_roll_waits_for_that() {
    let mut driver = Driver::new(small());
    driver.append(&batch(&[5], 1000));
    driver.hold_names = true;
    while driver.log.segments().len() < 2 {
        driver.append(&batch(&[5], 1000));
    }
    assert_eq!(driver.held.iter().map(|(_, op)| op.clone()).collect::<Vec<_>>(), [FileOp::SyncDir]);
    let base_offset = driver.log.written_end() - 1;
    while driver.log.reserved_end() == driver.log.written_end() {
        driver.append(&batch(&[5], 1000));
    }
    assert_eq!(driver.log.segments().len(), 2, "a power cut could leave a hole in the middle");
    assert!(!driver.log.wants_end_turn(), "nobody is woken for a roll that waits");
    assert!(driver.log.durable_end() <= base_offset, "what a power cut takes back is not durable");
    driver.hold_names = false;
    driver.release();
    assert!(driver.log.wants_end_turn());
    driver.run();
    assert_eq!(driver.log.segments().len(), 3);
    assert_eq!(driver.log.reserved_end(), driver.log.written_end());
}

#[test]
fn the_snapshot_of_a_roll_shows_the_producers_at_its_offset() {
    let mut driver = Driver::new(small());
    for sequence in 0..4 {
        let value = vec![0; 1200];
        let one = checked(BatchBuilder::new().producer(9, 0, sequence).record(5, None, Some(&value)));
        driver.gather(&one);
    }
    driver.run();
    let snapshot = driver.dir.file(Stem::ProducerSnapshot(3)).unwrap();
    let mut states = super::super::producer::ProducerStates::from_snapshot(snapshot).unwrap();
    let third = driver.first_batch(3);
    assert_eq!(states.check(&third).unwrap(), super::super::producer::Sequenced::New);
    let _ = states.update(&third, 3, 5, 5);
    assert_eq!(states.snapshot(), driver.log.producers().snapshot());
}

#[test]
fn index_entries_are_kafkas_and_reach_the_files() {
    let mut driver = Driver::new(TopicConfig { index_interval_bytes: 100, ..TopicConfig::default() });
    let one = batch(&[5], 20);
    let length = one.bytes.len() as i32;
    assert!(length < 100 && length * 2 > 100);
    for n in 0..6 {
        let mut builder = BatchBuilder::new();
        builder.push(100 + n, None, Some(&[b'v'; 20]), &[]);
        driver.append(&checked(builder));
    }
    assert_eq!(driver.dir.file(Stem::OffsetIndex(0)).unwrap(), b"", "entries wait");
    driver.pass(1000);
    let expected: Vec<u8> = [2, 2 * length, 4, 4 * length].iter().flat_map(|n| n.to_be_bytes()).collect();
    assert_eq!(driver.dir.file(Stem::OffsetIndex(0)).unwrap(), expected);
    let mut times = Vec::new();
    for n in [2_i64, 4] {
        times.extend((100 + n).to_be_bytes());
        times.extend((n as i32).to_be_bytes());
    }
    assert_eq!(driver.dir.file(Stem::TimeIndex(0)).unwrap(), times);
}

#[test]
fn a_clean_stop_leaves_indexes_and_snapshot_complete() {
    let mut driver = Driver::new(small());
    for n in 0..20 {
        driver.append(&batch(&[n], 300));
    }
    driver.gather(&batch(&[50], 300));
    driver.log.begin_close(driver.now);
    let events = driver.run();
    assert_eq!(events.last(), Some(&LogEvent::Closed));
    assert_eq!((driver.log.written_end(), driver.log.durable_end()), (21, 21));
    assert!(driver.dir.file(Stem::ProducerSnapshot(21)).is_some());
    let base = driver.log.segments().last().unwrap().base_offset;
    let times = driver.dir.file(Stem::TimeIndex(base)).unwrap();
    assert_eq!(times[times.len() - 12..times.len() - 4], 50_i64.to_be_bytes());
    assert!(driver.log.append(driver.now, &batch(&[1], 1), 3).is_err());
}

#[test]
fn flush_messages_1_moves_the_log_end_with_the_durable_end() {
    let mut driver = Driver::new(TopicConfig { flush_messages: 1, ..TopicConfig::default() });
    driver.hold_syncs = true;
    driver.append(&batch(&[1], 10));
    driver.append(&batch(&[1], 10));
    assert_eq!((driver.log.written_end(), driver.log.log_end()), (2, 0), "writes go on while a sync runs");
    assert_eq!(driver.held.len(), 1);
    assert_eq!(driver.fetch(0, 100), LookupStep::Found(Found::Empty));
    driver.release();
    assert_eq!(driver.log.log_end(), 1, "the sync covers what was written when it began");
    driver.run();
    driver.release();
    assert_eq!(driver.log.log_end(), 2);
}

#[test]
fn a_recovered_log_with_an_empty_active_segment_rests_when_the_others_are_synced() {
    let mut driver = Driver::new(TopicConfig { flush_ms: 500, ..TopicConfig::default() });
    driver.append(&batch(&[1], 10));
    driver.log.reserve_roll(driver.now);
    driver.log.end_turn(driver.now);
    driver.run();
    driver.log.recovered_durable(0, false, driver.now);
    assert_eq!(driver.log.durable_end(), 0);
    driver.run();
    assert_eq!(driver.log.durable_end(), 1);
    driver.pass(60_000);
    driver.pass(60_000);
    assert_eq!(driver.log.next_wake_ms(), None, "a wake that finds nothing to do would come again for ever");
}

#[test]
fn flush_ms_and_the_pace_sync_an_idle_log_once() {
    let mut driver = Driver::new(TopicConfig { flush_ms: 500, ..TopicConfig::default() });
    driver.append(&batch(&[1], 10));
    assert_eq!(driver.log.next_wake_ms(), Some(driver.now.mono_ms + 500));
    assert_eq!(driver.pass(499), []);
    assert_eq!(driver.pass(1), [LogEvent::Appended]);
    assert_eq!(driver.log.durable_end(), 1);
    let mut paced = Driver::new(TopicConfig::default());
    paced.append(&batch(&[1], 10));
    paced.pass(30_000);
    assert_eq!(paced.log.durable_end(), 1);
    paced.pass(30_000);
    assert_eq!(paced.log.next_wake_ms(), None, "an idle log wants nothing");
}

#[test]
fn retention_renames_at_once_and_unlinks_later() {
    let config = TopicConfig { retention_bytes: 7000, retention_ms: -1, ..small() };
    let mut driver = Driver::new(config);
    for _ in 0..12 {
        driver.append(&batch(&[5], 1000));
    }
    assert_eq!(driver.log.retention(driver.now, 2), None, "nothing beyond the high watermark goes");
    assert_eq!(driver.log.retention(driver.now, 12), Some(3));
    assert_eq!(driver.log.log_start_offset(), 0, "the start moves when it is in the checkpoint");
    assert!(driver.log.delete_records(driver.now, 3));
    driver.run();
    assert_eq!(driver.log.log_start_offset(), 3);
    assert_eq!(
        driver.log.epochs().entries()[0].start_offset,
        0,
        "of the record in front of the start it stays known"
    );
    assert_eq!(driver.fetch(2, 100), LookupStep::OutOfRange);
    let deleted = FileName::from(Stem::Log(0)).with(Suffix::Deleted);
    assert!(driver.dir.file(deleted).is_some());
    assert!(driver.dir.file(Stem::Log(0)).is_none());
    driver.pass(60_000);
    assert!(driver.dir.file(deleted).is_none());
}

#[test]
fn an_expired_active_segment_is_rolled_first() {
    let mut driver = Driver::new(TopicConfig { retention_ms: 1000, ..small() });
    driver.append(&batch(&[START_MS], 100));
    driver.now.wall_ms += 1001;
    assert_eq!(driver.log.retention(driver.now, 1), None);
    assert!(driver.run().contains(&LogEvent::Expired(1)));
    assert!(driver.log.delete_records(driver.now, 1));
    driver.run();
    assert_eq!((driver.log.log_start_offset(), driver.log.log_end()), (1, 1));
    assert_eq!(driver.log.size_bytes(), 0);
    assert_eq!(driver.append(&batch(&[5], 10)), (1, 2));
    assert_eq!(driver.log.retention(driver.now, 1), None, "what is above the watermark stays");
}

#[test]
fn a_compacted_topic_keeps_its_old_segments() {
    let cleanup_policy = CleanupPolicy { delete: false, compact: true };
    let mut driver = Driver::new(TopicConfig { cleanup_policy, retention_ms: 1, ..small() });
    for _ in 0..9 {
        driver.append(&batch(&[5], 1000));
    }
    assert_eq!(driver.log.retention(driver.now, 9), None);
    assert!(driver.log.delete_records(driver.now, 4), "DeleteRecords counts all the same");
    driver.run();
    assert_eq!(driver.log.segments().next().unwrap().base_offset, 3);
    assert_eq!(driver.log.log_start_offset(), 4);
    assert_eq!(driver.fetch(3, 10), LookupStep::OutOfRange);
    assert_eq!(driver.first_batch(4).base_offset, 4);
}

#[test]
fn the_log_end_does_not_go_back_when_flush_messages_becomes_1() {
    let mut driver = Driver::new(TopicConfig::default());
    driver.append(&batch(&[1], 10));
    driver.hold_syncs = true;
    driver.log.set_config(Arc::new(TopicConfig { flush_messages: 1, ..TopicConfig::default() }));
    driver.append(&batch(&[1], 10));
    assert_eq!((driver.log.log_end(), driver.log.durable_end()), (1, 0));
    driver.release();
    driver.run();
    driver.release();
    assert_eq!(driver.log.log_end(), 2);
}

#[test]
fn a_clean_stop_in_the_middle_of_a_turn_writes_everything() {
    let mut driver = Driver::new(small());
    for n in 0..8 {
        driver.gather(&batch(&[n], 1000));
    }
    driver.log.begin_close(driver.now);
    let mut events = Vec::new();
    while let Some((ticket, op)) = driver.log.next_op(driver.now) {
        driver.complete(ticket, &op, &mut events);
    }
    assert_eq!(events.last(), Some(&LogEvent::Closed));
    assert_eq!(driver.log.durable_end(), 8);
}
