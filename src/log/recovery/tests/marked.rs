//! Truncations that a crash interrupted: the start finishes them.

use super::*;
use crate::log::mark::{Mark, TRUNCATION_MARK};

fn marked(mut dir: Dir, mark: Mark) -> Dir {
    dir.insert(TRUNCATION_MARK.into(), mark.encode().into_bytes());
    dir
}

#[test]
fn a_truncation_that_was_begun_is_finished_at_every_offset() {
    let (batches, intact) = three_segments();
    let end = batches[23].end();
    for offset in 0..=end + 1 {
        for (plan, mark_stays) in
            [(plan(0), false), (same_boot(0), false), (clean(), false), (plan(end), true)]
        {
            let left = batches.iter().take_while(|batch| batch.end() <= offset).count();
            let mut dir = marked(intact.clone(), Mark::Cut { offset, synced: end, start: None });
            let recovered = recover(&mut dir, &plan);
            let log_end = batches[..left].last().map_or(0, |batch| batch.end());
            assert_eq!(recovered.log_end, log_end);
            let mark = dir.remove(TRUNCATION_MARK).map(|bytes| Mark::parse(&bytes).unwrap());
            let expected = (mark_stays && log_end < end).then_some(Mark::Synced { offset: log_end });
            assert_eq!((mark, recovered.marked_until), (expected, expected.map(|_| end)), "{offset}");
            // A segment that begins with the offset stays, empty.
            let rolls: Vec<usize> = [5, 12].into_iter().filter(|at| batches[*at].base <= offset).collect();
            assert_eq!(dir, directory(&batches[..left], &rolls), "{offset}, {plan:?}");
            assert_eq!(recovered.truncated_bytes, 0, "nothing was damaged");
            assert_eq!(recovered.quarantined, None);
        }
    }
}

#[test]
fn a_log_that_was_to_begin_anew_does() {
    let (_, intact) = three_segments();
    for plan in [plan(60), same_boot(3), clean()] {
        let mut dir = marked(intact.clone(), Mark::Anew { offset: 70 });
        let recovered = recover(&mut dir, &plan);
        assert_eq!((recovered.log_start_offset, recovered.log_end, recovered.durable_end), (70, 70, 70));
        assert_eq!(recovered.segments.len(), 1);
        assert!(recovered.epochs.entries().is_empty() && recovered.producers.is_empty());
        let mut expected = Dir::new();
        for stem in [Stem::Log(70), Stem::OffsetIndex(70), Stem::TimeIndex(70)] {
            expected.insert(name(stem), Vec::new());
        }
        for file in ["leader-epoch-checkpoint", "partition.metadata"] {
            expected.insert(file.into(), dir[file].clone());
        }
        assert_eq!(dir, expected);
        assert_eq!(dir["leader-epoch-checkpoint"], b"0\n0\n");
    }
}

#[test]
fn a_crash_after_any_operation_of_a_truncation_changes_nothing_about_the_outcome() {
    let (batches, intact) = three_segments();
    let inside = batches[7].base + 1;
    for mark in [
        Mark::Cut { offset: inside, synced: 20, start: None },
        Mark::Cut { offset: inside, synced: 20, start: Some(0) },
        Mark::Cut { offset: 0, synced: 9, start: None },
        Mark::Anew { offset: 7 },
    ] {
        for plan in [plan(30), same_boot(30)] {
            let before = marked(intact.clone(), mark);
            let mut expected = before.clone();
            let outcome = recover(&mut expected, &plan);
            for operations in 0.. {
                let mut dir = before.clone();
                let ended = run(&mut dir, &plan, operations).is_some();
                let again = recover(&mut dir, &plan);
                assert_eq!(dir, expected, "crashed after {operations}");
                assert_eq!((again.log_end, again.durable_end), (outcome.log_end, outcome.durable_end));
                if ended {
                    assert!(operations > 15, "there was something to do");
                    break;
                }
            }
        }
    }
}

#[test]
fn below_a_recovery_point_that_is_too_high_nothing_is_believed() {
    let (batches, mut dir) = three_segments();
    let log = last_log(&dir);
    let end = batches[23].end();
    let length = dir[&log].len();
    dir.get_mut(&log).unwrap()[length - 1] ^= 1;
    assert!(recover(&mut dir.clone(), &plan(end)).quarantined.is_some());
    let mut dir = marked(dir, Mark::Synced { offset: batches[12].base });
    let recovered = recover(&mut dir, &plan(end));
    assert_eq!((recovered.log_end, recovered.quarantined), (batches[22].end(), None));
    assert_eq!(recovered.marked_until, Some(end), "the checkpoint still says so");
    let recovered = recover(&mut dir, &plan(batches[22].end()));
    assert_eq!((recovered.marked_until, dir.contains_key(TRUNCATION_MARK)), (None, false));
}

#[test]
fn a_mark_that_cannot_be_read_leaves_the_log_closed() {
    let (_, mut dir) = three_segments();
    dir.insert(TRUNCATION_MARK.into(), b"0\ncut 5 5\n00000000\n".to_vec());
    let before = dir.clone();
    let step = run(&mut dir, &plan(0), 1000).unwrap();
    assert!(matches!(step, RecoveryStep::Failed(RecoveryError::Malformed(_))), "{step:?}");
    assert_eq!(dir, before);
    dir.remove(TRUNCATION_MARK);
    dir.insert(format!("{TRUNCATION_MARK}.tmp"), b"0\ncut".to_vec());
    assert_eq!(recover(&mut dir, &plan(0)).segments.len(), 3, "a mark that was never placed says nothing");
}
