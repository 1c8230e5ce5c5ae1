//! Recoveries of whole directories held in memory.

mod durable;
mod marked;
mod timeless;
mod whose;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec as many;
use proptest::prelude::*;
use proptest::sample::Index;
use uuid::Uuid;

use super::*;
use crate::effect::{FileDone, FileName, FileResult, Stem};
use crate::log::batch::BatchInfo;
use crate::log::checkpoint::PartitionMetadata;

type Dir = BTreeMap<String, Vec<u8>>;

const INTERVAL_BYTES: u64 = 150;
/// When every file was last changed.
const MODIFIED_MS: i64 = 77_000;
const TOPIC_ID: Uuid = Uuid::from_u128(0x1234_5678_9abc_def0);

fn carry_out(dir: &mut Dir, op: &FileOp) -> FileResult {
    match op {
        FileOp::List => {
            let names = dir.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64));
            return Ok(FileDone::Listing(names.collect()));
        }
        FileOp::Read { file, position, length } => {
            let bytes = dir.get(&file.to_string()).ok_or(FileError::NotFound)?;
            let start = (*position as usize).min(bytes.len());
            let end = (start + *length as usize).min(bytes.len());
            return Ok(FileDone::Bytes(Bytes::copy_from_slice(&bytes[start..end])));
        }
        FileOp::ModifiedAt { file } => {
            dir.get(&file.to_string()).ok_or(FileError::NotFound)?;
            return Ok(FileDone::ModifiedMs(MODIFIED_MS));
        }
        FileOp::Create { file, .. } => {
            dir.insert(file.to_string(), Vec::new());
        }
        FileOp::Write { file, position, bytes } => {
            let held = dir.get_mut(&file.to_string()).ok_or(FileError::NotFound)?;
            let end = *position as usize + bytes.len();
            held.resize(held.len().max(end), 0);
            held[*position as usize..end].copy_from_slice(bytes);
        }
        FileOp::Truncate { file, length } => {
            dir.get_mut(&file.to_string()).ok_or(FileError::NotFound)?.resize(*length as usize, 0);
        }
        FileOp::Rename { from, to } => {
            let bytes = dir.remove(&from.to_string()).ok_or(FileError::NotFound)?;
            dir.insert(to.to_string(), bytes);
        }
        FileOp::Delete { file } => {
            dir.remove(&file.to_string());
        }
        FileOp::Sync { file } => {
            dir.get(&file.to_string()).ok_or(FileError::NotFound)?;
        }
        FileOp::SyncDir => {}
        other => panic!("a recovery has no use for {other:?}"),
    }
    Ok(FileDone::Ok)
}

/// Runs a recovery for at most that many operations; with fewer, the process died.
fn run(dir: &mut Dir, plan: &RecoveryPlan, operations: usize) -> Option<RecoveryStep> {
    let mut recovery = Recovery::new(plan.clone());
    let mut last = None;
    for _ in 0..=operations {
        match recovery.step(last.take()) {
            RecoveryStep::Op(op) => last = Some(carry_out(dir, &op)),
            end => return Some(end),
        }
    }
    None
}

fn recover(dir: &mut Dir, plan: &RecoveryPlan) -> Recovered {
    match run(dir, plan, 1_000_000) {
        Some(RecoveryStep::Done(recovered)) => *recovered,
        other => panic!("{other:?}"),
    }
}

fn plan(recovery_point: i64) -> RecoveryPlan {
    let config = TopicConfig { index_interval_bytes: INTERVAL_BYTES, ..TopicConfig::default() };
    RecoveryPlan {
        topic_id: TOPIC_ID,
        clean: false,
        same_boot: false,
        recovery_point,
        log_start_offset: 0,
        config: Arc::new(config),
        wall_ms: 1_700_000_000_000,
    }
}

fn same_boot(recovery_point: i64) -> RecoveryPlan {
    RecoveryPlan { same_boot: true, ..plan(recovery_point) }
}

fn clean() -> RecoveryPlan {
    RecoveryPlan { clean: true, ..plan(0) }
}

#[derive(Clone, Copy, Debug)]
struct Batch {
    base: i64,
    records: i32,
    epoch: i32,
    timestamp_ms: i64,
    body_bytes: usize,
}

impl Batch {
    fn end(self) -> i64 {
        self.base + i64::from(self.records)
    }

    fn bytes(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.base.to_be_bytes());
        bytes.extend((49 + self.body_bytes as i32).to_be_bytes());
        bytes.extend(self.epoch.to_be_bytes());
        bytes.push(2);
        bytes.extend([0; 4]);
        bytes.extend(0_i16.to_be_bytes());
        bytes.extend((self.records - 1).to_be_bytes());
        bytes.extend(self.timestamp_ms.to_be_bytes());
        bytes.extend(self.timestamp_ms.to_be_bytes());
        bytes.extend((self.base % 7).to_be_bytes());
        bytes.extend(0_i16.to_be_bytes());
        bytes.extend((self.base as i32).to_be_bytes());
        bytes.extend(self.records.to_be_bytes());
        bytes.extend((0..self.body_bytes).map(|at| at as u8 | 1));
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes
    }
}

/// `count` batches of 1 to 3 records; the epoch rises every four.
fn batches(count: usize) -> Vec<Batch> {
    let mut base = 0;
    let batch = |at: usize| {
        let batch = Batch {
            base,
            records: 1 + at as i32 % 3,
            epoch: at as i32 / 4,
            timestamp_ms: 1_000 + (at as i64 * 37) % 100,
            body_bytes: 10 + at * 7 % 40,
        };
        base = batch.end();
        batch
    };
    (0..count).map(batch).collect()
}

fn name(stem: Stem) -> String {
    FileName::from(stem).to_string()
}

/// The files that appends and rolls leave, written down independently of the recovery.
fn write_segment(dir: &mut Dir, batches: &[Batch], base: i64, sealed: bool) {
    let (mut log, mut index, mut times) = (Vec::new(), Vec::new(), Vec::new());
    let (mut since, mut newest, mut noted) = (0, (-1, -1), -1);
    let mut note = |times: &mut Vec<u8>, (timestamp, offset): (i64, i64)| {
        if timestamp > noted {
            noted = timestamp;
            times.extend(timestamp.to_be_bytes());
            times.extend(((offset - base) as i32).to_be_bytes());
        }
    };
    for batch in batches {
        if batch.timestamp_ms > newest.0 {
            newest = (batch.timestamp_ms, batch.end() - 1);
        }
        if since > INTERVAL_BYTES as usize {
            index.extend(((batch.end() - 1 - base) as i32).to_be_bytes());
            index.extend((log.len() as i32).to_be_bytes());
            note(&mut times, newest);
            since = 0;
        }
        let bytes = batch.bytes();
        since += bytes.len();
        log.extend(bytes);
    }
    if sealed {
        note(&mut times, newest);
    }
    dir.insert(name(Stem::Log(base)), log);
    dir.insert(name(Stem::OffsetIndex(base)), index);
    dir.insert(name(Stem::TimeIndex(base)), times);
}

/// What a log of these batches looks like, rolled before the given ones.
fn directory(batches: &[Batch], rolls: &[usize]) -> Dir {
    let mut dir = Dir::new();
    let starts: Vec<usize> =
        std::iter::once(0).chain(rolls.iter().copied()).filter(|at| *at <= batches.len()).collect();
    for (number, start) in starts.iter().enumerate() {
        let end = starts.get(number + 1).copied().unwrap_or(batches.len());
        let base = if *start == 0 { 0 } else { batches[*start - 1].end() };
        write_segment(&mut dir, &batches[*start..end], base, number + 1 < starts.len());
    }
    let mut epochs = EpochCache::default();
    for batch in batches {
        epochs.assign(batch.epoch, batch.base);
    }
    dir.insert("leader-epoch-checkpoint".into(), epochs.encode().into_bytes());
    dir.insert("partition.metadata".into(), PartitionMetadata { topic_id: TOPIC_ID }.encode().into_bytes());
    dir
}

/// Three segments; the last one begins with batch 12.
fn three_segments() -> (Vec<Batch>, Dir) {
    let batches = batches(24);
    let dir = directory(&batches, &[5, 12]);
    (batches, dir)
}

fn last_log(dir: &Dir) -> String {
    dir.keys().rfind(|name| name.ends_with(".log")).unwrap().clone()
}

/// How many of the batches from `first` on are whole within so many bytes of their segment.
fn whole_within(batches: &[Batch], first: usize, bytes: usize) -> usize {
    let mut end = 0;
    batches[first..]
        .iter()
        .take_while(|batch| {
            end += batch.bytes().len();
            end <= bytes
        })
        .count()
        + first
}

#[test]
fn an_intact_log_is_left_as_it_is_by_every_kind_of_recovery() {
    let (batches, before) = three_segments();
    for plan in [plan(0), plan(15), same_boot(0), clean()] {
        let mut dir = before.clone();
        let recovered = recover(&mut dir, &plan);
        assert_eq!(dir, before);
        assert_eq!(recovered.log_end, batches[23].end());
        assert_eq!(recovered.topic_id, Some(TOPIC_ID));
        assert_eq!(recovered.truncated_bytes, 0);
        assert_eq!(recovered.quarantined, None);
        assert_eq!(recovered.segments.len(), 3);
        assert_eq!(recovered.epochs.latest().unwrap().epoch, 5);
        for segment in &recovered.segments {
            let length = |stem| before[&name(stem)].len() as u64;
            assert_eq!(segment.length_bytes, length(Stem::Log(segment.base_offset)));
            assert_eq!(segment.index_bytes, length(Stem::OffsetIndex(segment.base_offset)));
            assert_eq!(segment.time_index_bytes, length(Stem::TimeIndex(segment.base_offset)));
        }
        let newest = batches[12..].iter().map(|batch| batch.timestamp_ms).max().unwrap();
        assert_eq!(recovered.segments[2].max_timestamp_ms, newest);
        assert_eq!(recovered.segments[2].first_timestamp_ms, batches[12].timestamp_ms);
        assert_eq!(recovered.tail.last().unwrap().0, batches[23].end() - 1);
    }
}

#[test]
fn the_clean_and_the_thorough_recovery_agree_on_the_index_ends() {
    let (_, mut dir) = three_segments();
    let (quick, thorough) = (recover(&mut dir, &clean()), recover(&mut dir, &plan(0)));
    assert!(quick.last_index_entry.is_some());
    assert_eq!(quick.last_index_entry, thorough.last_index_entry);
    assert_eq!(quick.last_time_index_entry, thorough.last_time_index_entry);
    assert_eq!(quick.bytes_since_index_entry, thorough.bytes_since_index_entry);
    assert_eq!(quick.segments[2], thorough.segments[2]);
}

#[test]
fn the_longest_whole_prefix_survives_a_cut_at_every_byte() {
    let (batches, before) = three_segments();
    let log = last_log(&before);
    let base = batches[12].base;
    for length in 0..before[&log].len() {
        for plan in [plan(0), plan(base), same_boot(base)] {
            let mut dir = before.clone();
            dir.get_mut(&log).unwrap().truncate(length);
            let recovered = recover(&mut dir, &plan);
            let whole = whole_within(&batches, 12, length);
            assert_eq!(recovered.log_end, batches[whole - 1].end(), "cut at {length}");
            assert_eq!(dir, directory(&batches[..whole], &[5, 12]), "cut at {length}");
            assert_eq!(recovered.quarantined, None);
            assert_eq!(recovered.durable_end, if plan.same_boot { base } else { recovered.log_end });
        }
    }
}

#[test]
fn zeros_behind_the_last_batch_are_cut_off() {
    let (batches, before) = three_segments();
    let log = last_log(&before);
    for zeros in [1, 11, 12, 60, 61, 62, 4096, 3 << 20] {
        for plan in [plan(0), same_boot(0)] {
            let mut dir = before.clone();
            let bytes = dir.get_mut(&log).unwrap();
            bytes.resize(bytes.len() + zeros, 0);
            let recovered = recover(&mut dir, &plan);
            assert_eq!((recovered.log_end, recovered.truncated_bytes), (batches[23].end(), zeros as u64));
            assert_eq!(dir, before);
        }
    }
}

#[test]
fn a_flipped_byte_above_the_recovery_point_ends_the_log_there() {
    let (batches, before) = three_segments();
    let log = last_log(&before);
    for at in 0..before[&log].len() {
        let mut dir = before.clone();
        dir.get_mut(&log).unwrap()[at] ^= 0x10;
        let recovered = recover(&mut dir, &plan(batches[12].base));
        let damaged = whole_within(&batches, 12, at);
        let start: usize = batches[12..damaged].iter().map(|batch| batch.bytes().len()).sum();
        // The checksum covers neither the base offset nor the leader epoch.
        if matches!(at - start, 0..8 | 12..16) {
            assert!(recovered.log_end >= batches[damaged - 1].end(), "flipped {at}");
            continue;
        }
        assert_eq!(recovered.log_end, batches[damaged - 1].end(), "flipped {at}");
        assert_eq!(dir, directory(&batches[..damaged], &[5, 12]), "flipped {at}");
    }
}

#[test]
fn a_flipped_byte_below_the_recovery_point_is_reported_and_nothing_is_touched() {
    let (batches, before) = three_segments();
    let log = last_log(&before);
    let end = batches[23].end();
    for at in 16..before[&log].len() {
        let damaged = whole_within(&batches, 12, at);
        let start: usize = batches[12..damaged].iter().map(|batch| batch.bytes().len()).sum();
        if at - start < 16 {
            continue;
        }
        let mut dir = before.clone();
        dir.get_mut(&log).unwrap()[at] ^= 0x10;
        let flipped = dir.clone();
        let recovered = recover(&mut dir, &plan(end));
        let quarantine = recovered.quarantined.unwrap();
        assert_eq!(quarantine.offset, batches[damaged].base, "flipped {at}");
        assert_eq!(quarantine.position, start as u64);
        assert_eq!(recovered.log_end, batches[damaged].base);
        assert_eq!(dir, flipped);
    }
}

#[test]
fn missing_or_damaged_indexes_are_made_again() {
    let (_, before) = three_segments();
    for index in before.keys().filter(|name| name.ends_with("index")) {
        for plan in [plan(0), same_boot(i64::MAX), clean()] {
            let mut dir = before.clone();
            dir.remove(index);
            recover(&mut dir, &plan);
            assert_eq!(dir, before, "{index} is missing");
            dir.get_mut(index).unwrap().push(7);
            recover(&mut dir, &plan);
            assert_eq!(dir, before, "{index} has half an entry");
        }
    }
}

#[test]
fn an_active_index_that_names_no_batch_is_not_believed() {
    let (batches, before) = three_segments();
    let index = name(Stem::OffsetIndex(batches[12].base));
    for plan in [same_boot(0), clean()] {
        for at in 0..8 {
            let mut dir = before.clone();
            let bytes = dir.get_mut(&index).unwrap();
            let entry = bytes.len() - 8;
            bytes[entry + at] ^= 0x03;
            let recovered = recover(&mut dir, &plan);
            assert_eq!(recovered.log_end, batches[23].end());
            assert_eq!(dir, before, "byte {at} of the last entry");
        }
    }
}

#[test]
fn preallocated_zeros_behind_an_active_index_hide_no_entry() {
    let (batches, before) = three_segments();
    let mut dir = before.clone();
    for stem in [Stem::OffsetIndex(batches[12].base), Stem::TimeIndex(batches[12].base)] {
        let bytes = dir.get_mut(&name(stem)).unwrap();
        bytes.resize(bytes.len() + 24_000, 0);
    }
    let preallocated = dir.clone();
    let (quick, thorough) = (recover(&mut dir, &clean()), recover(&mut preallocated.clone(), &plan(0)));
    assert_eq!(dir, preallocated);
    assert_eq!(quick.segments, thorough.segments);
    assert_eq!(quick.last_index_entry, thorough.last_index_entry);
}

#[test]
fn epochs_that_the_checkpoint_lacks_come_from_the_batches() {
    let (_, before) = three_segments();
    let whole = &before["leader-epoch-checkpoint"];
    for plan in [plan(0), same_boot(0), clean()] {
        for checkpoint in
            [None, Some("0\n3\nx"), Some("0\n2\n0 0\n1 7\n"), Some("0\n1\n9 0\n"), Some("0\n0\n"), Some("")]
        {
            let mut dir = before.clone();
            dir.remove("leader-epoch-checkpoint");
            if let Some(text) = checkpoint {
                dir.insert("leader-epoch-checkpoint".into(), text.into());
            }
            recover(&mut dir, &plan);
            assert_eq!(&dir["leader-epoch-checkpoint"], whole, "{checkpoint:?}");
        }
    }
}

#[test]
fn a_crash_after_any_operation_changes_nothing_about_the_outcome() {
    let (batches, intact) = three_segments();
    let mut torn = intact.clone();
    let middle = name(Stem::Log(batches[5].base));
    let length = torn[&middle].len();
    torn.get_mut(&middle).unwrap()[length - 1] ^= 1;
    torn.insert("00000000000000000000.log.cleaned".into(), vec![1; 100]);
    torn.insert("leader-epoch-checkpoint.tmp".into(), vec![1; 10]);
    torn.insert("00000000000000000003.index.deleted".into(), vec![1; 10]);
    torn.insert(
        name(Stem::ProducerSnapshot(batches[23].end())),
        ProducerStates::default().snapshot().to_vec(),
    );
    torn.remove(&name(Stem::TimeIndex(0)));
    for plan in [plan(0), plan(6)] {
        let mut expected = torn.clone();
        let outcome = recover(&mut expected, &plan);
        for operations in 0.. {
            let mut dir = torn.clone();
            if run(&mut dir, &plan, operations).is_some() {
                assert!(operations > 20, "the recovery had something to do");
                break;
            }
            let again = recover(&mut dir, &plan);
            assert_eq!(dir, expected, "crashed after {operations}");
            assert_eq!((again.log_end, &again.segments), (outcome.log_end, &outcome.segments));
        }
    }
}

#[test]
fn a_swap_is_finished_after_a_crash_at_any_operation() {
    let batches = batches(24);
    let compacted: Vec<Batch> = batches[..12].iter().copied().filter(|batch| batch.base % 2 == 0).collect();
    let mut dir = directory(&batches, &[5, 12]);
    let mut output = Dir::new();
    write_segment(&mut output, &compacted, 0, true);
    for (file, bytes) in &output {
        dir.insert(format!("{file}.swap"), bytes.clone());
    }
    let before = dir.clone();
    recover(&mut dir, &clean());
    assert_eq!(dir[&name(Stem::Log(0))], output[&name(Stem::Log(0))]);
    for operations in 0.. {
        let mut again = before.clone();
        let ended = run(&mut again, &clean(), operations).is_some();
        recover(&mut again, &clean());
        assert_eq!(again, dir, "crashed after {operations}");
        if ended {
            break;
        }
    }
}

#[test]
fn a_directory_without_a_segment_is_empty() {
    let mut dir = Dir::new();
    let plan = RecoveryPlan { log_start_offset: 7, ..plan(0) };
    let empty = |step| matches!(step, Some(RecoveryStep::Empty { base_offset: 7, .. }));
    assert!(empty(run(&mut dir, &plan, 1000)));
    dir.insert("partition.metadata.tmp".into(), vec![]);
    dir.insert("00000000000000000000.index".into(), vec![]);
    assert!(empty(run(&mut dir, &plan, 1000)));
    assert_eq!(dir, Dir::new());
}

#[test]
fn a_log_that_ends_before_its_start_begins_anew_there() {
    let (batches, mut dir) = three_segments();
    let plan = RecoveryPlan { log_start_offset: batches[23].end() + 5, ..plan(0) };
    let step = run(&mut dir, &plan, 1000).unwrap();
    let RecoveryStep::Empty { topic_id, base_offset } = step else { panic!("{step:?}") };
    assert_eq!((topic_id, base_offset), (Some(TOPIC_ID), plan.log_start_offset));
    assert_eq!((dir.len(), dir.contains_key("partition.metadata")), (1, true));
}

#[test]
fn a_batch_larger_than_a_chunk_is_checked_to_its_end() {
    let mut batches = batches(3);
    batches[1].body_bytes = 5 << 20;
    let before = directory(&batches, &[]);
    let log = name(Stem::Log(0));
    let mut dir = before.clone();
    assert_eq!(recover(&mut dir, &plan(0)).log_end, batches[2].end());
    for at in [71 + 61, 71 + (2 << 20), 71 + (5 << 20)] {
        let mut dir = before.clone();
        dir.get_mut(&log).unwrap()[at] ^= 1;
        assert_eq!(recover(&mut dir, &plan(0)).log_end, batches[0].end());
    }
}

#[test]
fn producers_are_replayed_from_the_newest_snapshot_that_the_log_reaches() {
    let (batches, before) = three_segments();
    let snapshot = |offset: i64| name(Stem::ProducerSnapshot(offset));
    let states = |from: &[Batch]| {
        let mut states = ProducerStates::default();
        for batch in from {
            states.replay(&BatchInfo::parse(&batch.bytes()).unwrap());
        }
        states
    };
    let all = states(&batches);
    assert!(all.len() > 2);
    assert_eq!(recover(&mut before.clone(), &clean()).producers, all);
    let mut dir = before.clone();
    dir.insert(snapshot(batches[5].base), ProducerStates::default().snapshot().to_vec());
    dir.insert(snapshot(batches[12].base), b"damaged".to_vec());
    dir.insert(snapshot(batches[23].end() + 1), all.snapshot().to_vec());
    for plan in [clean(), same_boot(0), plan(batches[12].base)] {
        let mut dir = dir.clone();
        if plan.clean {
            dir.remove(&snapshot(batches[12].base));
        }
        let recovered = recover(&mut dir, &plan);
        assert_eq!(recovered.producers, states(&batches[5..]));
        let left: Vec<&String> = dir.keys().filter(|name| name.ends_with("snapshot")).collect();
        if plan.clean {
            assert_eq!(left, [&snapshot(batches[5].base)]);
        } else {
            assert_eq!(left, [&snapshot(batches[5].base), &snapshot(batches[12].base)]);
            let rebuilt = ProducerStates::from_snapshot(&dir[left[1]]);
            assert_eq!(rebuilt, Ok(states(&batches[5..12])), "the damaged one is made again");
        }
    }
    dir.insert(snapshot(batches[23].end()), ProducerStates::default().snapshot().to_vec());
    dir.remove(&snapshot(batches[23].end() + 1));
    assert!(recover(&mut dir, &clean()).producers.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn no_directory_makes_a_recovery_panic(
        damage in many((any::<Index>(), any::<Index>(), any::<u8>()), 0..12),
        garbage in many((any::<Index>(), many(any::<u8>(), 0..200)), 0..4),
        clean in any::<bool>(),
        same_boot in any::<bool>(),
        recovery_point in -1..60_i64,
        log_start_offset in -1..60_i64,
    ) {
        let (_, mut dir) = three_segments();
        let names: Vec<String> = dir.keys().cloned().collect();
        for (file, at, value) in damage {
            let bytes = dir.get_mut(&names[file.index(names.len())]).unwrap();
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
        }
        for (file, bytes) in garbage {
            dir.insert(names[file.index(names.len())].clone(), bytes);
        }
        let plan = RecoveryPlan { clean, same_boot, recovery_point, log_start_offset, ..plan(0) };
        let first = run(&mut dir, &plan, 100_000).expect("a recovery ends");
        // Damage in the believed part of a torn log can show in the second recovery only.
        let settles = clean || !same_boot;
        if let (RecoveryStep::Done(first), true) = (first, settles) {
            let settled = dir.clone();
            let second = recover(&mut dir, &plan);
            for (file, bytes) in &dir {
                prop_assert_eq!(Some(bytes), settled.get(file), "{}", file);
            }
            prop_assert_eq!(dir.len(), settled.len());
            prop_assert_eq!(second.log_end, first.log_end);
            prop_assert_eq!(second.segments, first.segments);
        }
    }
}
