//! What a recovery must not call whole, and what it makes durable before it hands the log over.

use super::*;

#[test]
fn segments_after_the_first_bad_or_missing_byte_go() {
    let (batches, whole) = three_segments();
    let middle = name(Stem::Log(batches[5].base));
    let length = whole[&middle].len();
    let mut flipped = whole.clone();
    flipped.get_mut(&middle).unwrap()[length - 1] ^= 1;
    let mut short = whole.clone();
    short.get_mut(&middle).unwrap().truncate(length - batches[11].bytes().len());
    for mut dir in [flipped, short] {
        assert_eq!(recover(&mut dir, &plan(0)).log_end, batches[10].end());
        assert_eq!(dir, directory(&batches[..11], &[5]));
    }
}

/// What a recovery syncs, file by file; `.` is the directory.
fn synced(dir: &mut Dir, plan: &RecoveryPlan) -> (Vec<String>, i64) {
    let mut recovery = Recovery::new(plan.clone());
    let (mut last, mut synced) = (None, Vec::new());
    loop {
        match recovery.step(last.take()) {
            RecoveryStep::Op(op) => {
                match &op {
                    FileOp::Sync { file } => synced.push(file.to_string()),
                    FileOp::SyncDir => synced.push(".".into()),
                    _ => {}
                }
                last = Some(carry_out(dir, &op));
            }
            RecoveryStep::Done(recovered) => return (synced, recovered.durable_end),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_log_is_called_durable_only_as_far_as_it_was_synced() {
    let (batches, dir) = three_segments();
    let (point, end) = (batches[7].base, batches[23].end());
    let flushed = |plan: RecoveryPlan| {
        let config = TopicConfig { flush_messages: 1, ..(*plan.config).clone() };
        RecoveryPlan { config: Arc::new(config), ..plan }
    };
    assert_eq!(synced(&mut dir.clone(), &clean()), (vec![], end));
    assert_eq!(synced(&mut dir.clone(), &same_boot(point)), (vec![], point), "synced later, paced");
    for plan in [plan(point), flushed(same_boot(point))] {
        let (files, durable_end) = synced(&mut dir.clone(), &plan);
        assert_eq!(durable_end, end);
        for base in [batches[5].base, batches[12].base] {
            for stem in [Stem::Log(base), Stem::OffsetIndex(base), Stem::TimeIndex(base)] {
                assert!(files.contains(&name(stem)), "{stem:?} of {files:?}");
            }
        }
        assert!(!files.contains(&name(Stem::Log(batches[0].base))), "below the recovery point");
    }
}

#[test]
fn the_name_of_an_empty_active_segment_may_be_loose_unless_everything_is_synced() {
    let (batches, mut dir) = three_segments();
    let end = batches[23].end();
    for stem in [Stem::Log(end), Stem::OffsetIndex(end), Stem::TimeIndex(end)] {
        dir.insert(name(stem), Vec::new());
    }
    recover(&mut dir, &plan(0));
    let (files, _) = synced(&mut dir.clone(), &same_boot(0));
    assert!(files.is_empty(), "{files:?}");
    assert!(
        recover(&mut dir.clone(), &same_boot(0)).names_unsure,
        "the log syncs it before its first record counts"
    );
    assert!(!recover(&mut dir.clone(), &plan(0)).names_unsure);
    let (files, _) = synced(&mut dir, &plan(0));
    assert!(files.contains(&".".to_string()), "{files:?}");
}

/// With every message synced everything found counts as durable, and nothing else would sync what a roll named.
#[test]
fn the_names_of_a_log_that_counts_as_durable_to_its_end_are_made_durable() {
    let (_, mut dir) = three_segments();
    recover(&mut dir, &plan(0));
    let config = TopicConfig { flush_messages: 1, ..(*same_boot(0).config).clone() };
    let (files, _) = synced(&mut dir, &RecoveryPlan { config: Arc::new(config), ..same_boot(0) });
    assert_eq!(files.last().map(String::as_str), Some("."), "{files:?}");
}

/// The recovery point may be the end of a segment that was synced, and rolled only then.
#[test]
fn of_a_segment_that_ends_at_the_recovery_point_only_the_records_are_believed() {
    let batches = batches(24);
    let intact = directory(&batches, &[12, 20]);
    let (first, point) = (batches[0].base, batches[12].base);
    let mut dir = intact.clone();
    let index = dir.get_mut(&name(Stem::TimeIndex(first))).unwrap();
    assert!(index.len() >= 24, "an entry before the last one");
    index[..12].fill(0);
    let snapshot = name(Stem::ProducerSnapshot(point));
    dir.insert(snapshot.clone(), vec![0; 10]);
    recover(&mut dir, &plan(point));
    let made_again = dir.remove(&snapshot).unwrap();
    assert!(ProducerStates::from_snapshot(&made_again).is_ok());
    assert_eq!(dir, intact);
    dir.insert(snapshot, made_again);
    let (files, _) = synced(&mut dir, &plan(point));
    for stem in [Stem::OffsetIndex(first), Stem::TimeIndex(first), Stem::ProducerSnapshot(point)] {
        assert!(files.contains(&name(stem)), "{stem:?} of {files:?}");
    }
    let (files, _) = synced(&mut dir, &plan(point + 1));
    assert!(!files.contains(&name(Stem::TimeIndex(first))), "it has passed the segment");
}

#[test]
fn a_segment_that_power_took_ends_a_compacted_log_too_unless_it_was_synced() {
    let (batches, before) = three_segments();
    let bases = [batches[5].base, batches[12].base];
    let compacts = |recovery_point| {
        let mut config = (*plan(0).config).clone();
        config.cleanup_policy.compact = true;
        RecoveryPlan { config: Arc::new(config), ..plan(recovery_point) }
    };
    // All that the second segment had is gone, at a batch's border; the third one is there, with or without records.
    for is_empty in [false, true] {
        let mut dir = before.clone();
        dir.insert(name(Stem::Log(bases[0])), Vec::new());
        if is_empty {
            dir.insert(name(Stem::Log(bases[1])), Vec::new());
        }
        assert_eq!(recover(&mut dir.clone(), &compacts(bases[0])).log_end, bases[0], "{is_empty}");
        let compacted = recover(&mut dir, &compacts(bases[1])).log_end;
        assert_eq!(compacted, if is_empty { bases[1] } else { batches[23].end() });
    }
}
