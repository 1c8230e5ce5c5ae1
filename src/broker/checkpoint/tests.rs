//! What is written to a log directory's small files, and when.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::*;
use crate::effect::{FileDone, FileOp};

const AT: Now = Now { mono_ms: 0, wall_ms: 0 };

fn progress(directory: u16, partition: i32, recovery_point: i64) -> Progress {
    Progress {
        directory,
        topic_id: Uuid::nil(),
        topic: "t".into(),
        partition,
        recovery_point,
        log_start_offset: 0,
        high_watermark: recovery_point,
        gone_below: 0,
        lowers: false,
        unclean: false,
    }
}

/// Completes everything, and names the files that were put in place.
fn settle(checkpoints: &mut Checkpoints, mut outputs: Vec<Output>) -> (Vec<String>, bool) {
    let (mut renamed, mut finished) = (Vec::new(), false);
    while let Some(output) = outputs.pop() {
        match output {
            Output::File(Owner::Directory(directory), ticket, op) => {
                if let FileOp::Rename { to, .. } = op {
                    renamed.push(format!("{directory}/{to}"));
                }
                assert!(!checkpoints.completed(AT, directory, ticket, Ok(FileDone::Ok), &mut outputs));
            }
            Output::Finished => finished = true,
            other => panic!("unexpected {other:?}"),
        }
    }
    (renamed, finished)
}

#[test]
fn files_are_written_when_every_shard_has_answered_and_something_changed() {
    let mut checkpoints =
        Checkpoints::new(vec![StoredOffsets::default(); 1], ("boot".into(), -1), &NodeConfig::default());
    let now = |mono_ms| Now { mono_ms, wall_ms: 0 };
    let mut outputs = Vec::new();
    let mut survey = |at_ms, outputs: &mut Vec<Output>| {
        assert!(checkpoints.survey_is_due(now(at_ms), 2));
        checkpoints.surveyed(ShardId(0), (vec![progress(0, 0, 5)], 0), false, |_| true, outputs);
        assert!(outputs.is_empty());
        checkpoints.surveyed(ShardId(1), (vec![progress(0, 1, 7)], 0), false, |_| true, outputs);
        settle(&mut checkpoints, std::mem::take(outputs)).0
    };
    let first = survey(1_000_000, &mut outputs);
    assert_eq!(
        first,
        ["0/recovery-point-offset-checkpoint", "0/replication-offset-checkpoint", "0/.tidemill-boot-id"]
    );
    assert!(survey(2_000_000, &mut outputs).is_empty());
}

#[test]
fn what_a_full_device_refused_is_written_at_the_next_survey() {
    let mut checkpoints =
        Checkpoints::new(vec![StoredOffsets::default(); 1], ("boot".into(), -1), &NodeConfig::default());
    let mut outputs = Vec::new();
    let mut survey = |checkpoints: &mut Checkpoints, at_ms| {
        assert!(checkpoints.survey_is_due(Now { mono_ms: at_ms, wall_ms: 0 }, 1));
        checkpoints.surveyed(ShardId(0), (vec![progress(0, 0, 5)], 0), false, |_| true, &mut outputs);
        std::mem::take(&mut outputs)
    };
    let asked = survey(&mut checkpoints, 1_000_000);
    let Some(Output::File(_, ticket, _)) = asked.first() else { panic!("nothing is written") };
    let mut outputs = Vec::new();
    assert!(!checkpoints.completed(AT, 0, *ticket, Err(FileError::NoSpace), &mut outputs));
    assert!(outputs.is_empty(), "the old files stand: {outputs:?}");
    let asked = survey(&mut checkpoints, 2_000_000);
    assert_eq!(settle(&mut checkpoints, asked).0.len(), 4);
}

#[test]
fn a_directory_that_failed_gets_no_mark_of_a_clean_stop() {
    let mut checkpoints =
        Checkpoints::new(vec![StoredOffsets::default(); 2], ("boot".into(), -1), &NodeConfig::default());
    checkpoints.fail(1, &mut Vec::new());
    assert!(checkpoints.begin_stop(1));
    let mut outputs = Vec::new();
    checkpoints.surveyed(ShardId(0), (vec![progress(1, 0, 5)], 0), true, |_| true, &mut outputs);
    let (renamed, finished) = settle(&mut checkpoints, outputs);
    assert!(finished);
    assert!(renamed.iter().all(|name| name.starts_with("0/")), "{renamed:?}");
}

#[test]
fn a_directory_with_a_replica_that_is_offline_never_passes_for_recovered_or_cleanly_stopped() {
    let mut checkpoints =
        Checkpoints::new(vec![StoredOffsets::default(); 2], ("boot".into(), -1), &NodeConfig::default());
    let mut outputs = Vec::new();
    let told = |unclean| (vec![Progress { unclean, ..progress(0, 0, 5) }, progress(1, 1, 7)], 0);
    assert!(checkpoints.survey_is_due(Now { mono_ms: 1_000_000, wall_ms: 0 }, 1));
    checkpoints.surveyed(ShardId(0), told(true), false, |_| true, &mut outputs);
    let (mut renamed, _) = settle(&mut checkpoints, std::mem::take(&mut outputs));
    assert!(checkpoints.begin_stop(1));
    checkpoints.surveyed(ShardId(0), told(false), true, |_| true, &mut outputs);
    renamed.extend(settle(&mut checkpoints, outputs).0);
    assert!(renamed.contains(&"0/recovery-point-offset-checkpoint".to_owned()), "its offsets stand");
    for mark in [".tidemill-boot-id", ".kafka_cleanshutdown"] {
        let marked = |directory| renamed.contains(&format!("{directory}/{mark}"));
        assert!(!marked(0) && marked(1), "{renamed:?}");
    }
}

#[test]
fn a_clean_stop_ends_with_the_marker() {
    let mut checkpoints =
        Checkpoints::new(vec![StoredOffsets::default(); 2], ("boot".into(), -1), &NodeConfig::default());
    assert!(checkpoints.begin_stop(1));
    assert!(!checkpoints.begin_stop(1));
    let mut outputs = Vec::new();
    checkpoints.surveyed(ShardId(0), (vec![progress(1, 0, 5)], 0), true, |_| true, &mut outputs);
    let (renamed, finished) = settle(&mut checkpoints, outputs);
    assert!(finished);
    assert!(renamed.iter().filter(|name| name.ends_with(".kafka_cleanshutdown")).count() == 2);
    assert!(renamed.last().is_some_and(|name| name.ends_with(".kafka_cleanshutdown")));
}

fn stored(entries: &[(&str, i32, i64)]) -> StoredOffsets {
    let entries: Offsets =
        entries.iter().map(|(topic, partition, offset)| ((topic.to_string(), *partition), *offset)).collect();
    StoredOffsets { recovery_points: entries.clone(), log_starts: entries, high_watermarks: Offsets::new() }
}

/// Completes everything; what each file says in the end.
fn contents(checkpoints: &mut Checkpoints, mut outputs: Vec<Output>) -> BTreeMap<String, String> {
    let (mut aside, mut files) = (String::new(), BTreeMap::new());
    while let Some(output) = outputs.pop() {
        let Output::File(Owner::Directory(directory), ticket, op) = output else { continue };
        match op {
            FileOp::Write { bytes, .. } => aside = String::from_utf8(bytes.to_vec()).unwrap(),
            FileOp::Rename { to, .. } => drop(files.insert(format!("{directory}/{to}"), aside.clone())),
            _ => {}
        }
        checkpoints.completed(AT, directory, ticket, Ok(FileDone::Ok), &mut outputs);
    }
    files
}

#[test]
fn a_removed_topic_is_forgotten_where_it_is_named_and_others_stand() {
    let config = NodeConfig::default();
    let found = vec![stored(&[("a", 0, 5), ("b", 1, 7)]), stored(&[("b", 0, 9)])];
    let mut checkpoints = Checkpoints::new(found, ("boot".into(), -1), &config);
    let mut outputs = Vec::new();
    checkpoints.forget(|_, topic, _| topic == "a", &mut outputs);
    assert!(checkpoints.is_forgetting());
    let files = contents(&mut checkpoints, outputs);
    assert!(!checkpoints.is_forgetting());
    let expected = "0\n1\nb 1 7\n".to_string();
    assert_eq!(
        files,
        BTreeMap::from([
            ("0/log-start-offset-checkpoint".to_string(), expected.clone()),
            ("0/recovery-point-offset-checkpoint".to_string(), expected),
        ])
    );
    checkpoints.forget(|_, topic, _| topic == "a", &mut Vec::new());
    assert!(!checkpoints.is_forgetting(), "nothing is left to forget");
}

#[test]
fn a_survey_under_way_does_not_bring_a_removed_topic_back() {
    let mut checkpoints =
        Checkpoints::new(vec![stored(&[("t", 0, 5)])], ("boot".into(), -1), &NodeConfig::default());
    let (old, new) = (Uuid::from_u128(1), Uuid::from_u128(2));
    assert!(checkpoints.survey_is_due(Now { mono_ms: 1_000_000, wall_ms: 0 }, 2));
    let mut outputs = Vec::new();
    let before = Progress { topic_id: old, ..progress(0, 0, 100) };
    checkpoints.surveyed(ShardId(0), (vec![before], 0), false, |one| one.topic_id == old, &mut outputs);
    checkpoints.forget(|_, topic, _| topic == "t", &mut outputs);
    let other = Progress { topic_id: new, ..progress(0, 1, 3) };
    checkpoints.surveyed(ShardId(1), (vec![other], 0), false, |one| one.topic_id == new, &mut outputs);
    let files = contents(&mut checkpoints, outputs);
    assert_eq!(files["0/recovery-point-offset-checkpoint"], "0\n1\nt 1 3\n");
    assert_eq!(files["0/log-start-offset-checkpoint"], "0\n0\n");
}

#[test]
fn forgetting_waits_for_a_full_device_and_not_for_a_failed_one() {
    let found = || vec![stored(&[("t", 0, 5)])];
    let mut checkpoints = Checkpoints::new(found(), ("boot".into(), -1), &NodeConfig::default());
    let mut outputs = Vec::new();
    checkpoints.forget(|_, _, _| true, &mut outputs);
    let Some(Output::File(_, ticket, _)) = outputs.pop() else { panic!("nothing is written") };
    assert!(!checkpoints.completed(AT, 0, ticket, Err(FileError::NoSpace), &mut outputs));
    assert!(checkpoints.is_forgetting() && outputs.is_empty());
    assert_eq!(checkpoints.next_wake_ms(), Some(RETRY_MS));
    checkpoints.wake(Now { mono_ms: RETRY_MS, wall_ms: 0 }, &mut outputs);
    let files = contents(&mut checkpoints, outputs);
    assert_eq!(files["0/recovery-point-offset-checkpoint"], "0\n0\n");
    assert!(!checkpoints.is_forgetting());

    let mut checkpoints = Checkpoints::new(found(), ("boot".into(), -1), &NodeConfig::default());
    let mut outputs = Vec::new();
    checkpoints.forget(|_, _, _| true, &mut outputs);
    let Some(Output::File(_, ticket, _)) = outputs.pop() else { panic!("nothing is written") };
    assert!(checkpoints.completed(AT, 0, ticket, Err(FileError::Io(5)), &mut outputs));
    assert!(!checkpoints.is_forgetting());
}

#[test]
fn a_replica_that_nobody_reports_keeps_its_entries() {
    let mut checkpoints = Checkpoints::new(
        vec![stored(&[("t", 0, 5), ("t", 1, 6)])],
        ("boot".into(), -1),
        &NodeConfig::default(),
    );
    assert!(checkpoints.survey_is_due(Now { mono_ms: 1_000_000, wall_ms: 0 }, 1));
    let mut outputs = Vec::new();
    checkpoints.surveyed(ShardId(0), (vec![progress(0, 1, 8)], 1), false, |_| true, &mut outputs);
    let files = contents(&mut checkpoints, outputs);
    assert_eq!(files["0/recovery-point-offset-checkpoint"], "0\n2\nt 0 5\nt 1 8\n");
    assert!(!files.contains_key("0/.tidemill-boot-id"), "a replica is still being recovered");
}

/// The boot ids and epochs that were written, as `directory/boot epoch`.
fn boots(checkpoints: &mut Checkpoints, mut outputs: Vec<Output>) -> Vec<String> {
    let mut written = Vec::new();
    while let Some(output) = outputs.pop() {
        let Output::File(Owner::Directory(directory), ticket, op) = output else { panic!("{output:?}") };
        if let FileOp::Write { file, bytes, .. } = op
            && file.to_string().starts_with(directory::BOOT_ID)
        {
            let text = std::str::from_utf8(&bytes).unwrap().trim_end().replace('\n', " ");
            written.push(format!("{directory}/{text}"));
        }
        checkpoints.completed(AT, directory, ticket, Ok(FileDone::Ok), &mut outputs);
    }
    written.sort();
    written
}

#[test]
fn a_brokers_epoch_is_noted_when_it_registers_and_taken_back_when_a_directory_fails() {
    let mut checkpoints =
        Checkpoints::new(vec![StoredOffsets::default(); 3], ("boot".into(), 7), &NodeConfig::default());
    let mut outputs = Vec::new();
    checkpoints.set_broker_epoch(8, &mut outputs);
    assert!(outputs.is_empty(), "before everything is recovered what is on file stands");
    assert!(checkpoints.survey_is_due(Now { mono_ms: 1_000_000, wall_ms: 0 }, 1));
    let unclean = Progress { unclean: true, ..progress(2, 0, 5) };
    checkpoints.surveyed(ShardId(0), (vec![unclean], 0), false, |_| true, &mut outputs);
    assert_eq!(boots(&mut checkpoints, std::mem::take(&mut outputs)), ["0/boot 8", "1/boot 8"]);
    checkpoints.set_broker_epoch(9, &mut outputs);
    assert_eq!(boots(&mut checkpoints, std::mem::take(&mut outputs)), ["0/boot 9", "1/boot 9"]);
    checkpoints.fail(1, &mut outputs);
    assert_eq!(boots(&mut checkpoints, std::mem::take(&mut outputs)), ["0/boot -1", "2/ -1"]);
    checkpoints.set_broker_epoch(10, &mut outputs);
    assert!(outputs.is_empty(), "who registers again with a failed directory has nothing to say");
}
