//! Log starts for which replicas wait: stored as they come, many with one rewrite of the file.

use super::{Checkpoints, Directory, Purpose, RETRY_MS, directory};
use crate::broker::message::{Output, Progress};
use crate::controller::ShardId;
use crate::effect::Now;

/// Log starts of one log directory on their way into its checkpoint.
#[derive(Debug, Default)]
pub(super) struct LogStarts {
    /// For the next rewrite.
    waiting: Vec<(ShardId, Progress)>,
    /// In the rewrite that is planned or under way.
    writing: Vec<(ShardId, Progress)>,
    stored: Vec<(ShardId, Progress)>,
    again_ms: Option<u64>,
}

impl LogStarts {
    pub(super) fn again_ms(&self) -> Option<u64> {
        self.again_ms
    }

    /// A full device refused the rewrite.
    pub(super) fn refused(&mut self, now: Now) {
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting = std::mem::take(&mut self.writing);
        self.waiting.extend(waiting);
        self.again_ms = (!self.waiting.is_empty()).then_some(now.mono_ms + RETRY_MS);
    }
}

impl Checkpoints {
    /// Takes log starts over and plans what makes them durable.
    pub(in crate::broker) fn store_log_starts(
        &mut self,
        from: ShardId,
        starts: Vec<Progress>,
        outputs: &mut Vec<Output>,
    ) {
        for start in starts {
            let Some(directory) = self.directories.get_mut(usize::from(start.directory)) else { continue };
            if directory.failed {
                continue;
            }
            let stored = &mut directory.offsets.log_starts;
            let entry = stored.entry((start.topic.to_string(), start.partition)).or_insert(0);
            if start.lowers {
                *entry = start.log_start_offset;
                // A survey that was answered before speaks of the log that is no more.
                let before = self.surveyed.iter_mut().filter(|survey| is_of(survey, &start));
                before.for_each(|survey| survey.log_start_offset = start.log_start_offset);
            } else {
                *entry = start.log_start_offset.max(*entry);
            }
            directory.log_starts.waiting.push((from, start));
        }
        self.directories.iter_mut().for_each(Directory::plan_log_starts);
        self.emit(outputs);
    }

    /// The log starts that are durable since the last call, by the shard that asked.
    pub(in crate::broker) fn take_stored_log_starts(&mut self) -> Vec<(ShardId, Vec<Progress>)> {
        let mut by_shard: Vec<(ShardId, Vec<Progress>)> = Vec::new();
        for (shard, start) in self.directories.iter_mut().flat_map(|entry| entry.log_starts.stored.drain(..))
        {
            match by_shard.iter_mut().find(|(known, _)| *known == shard) {
                Some((_, starts)) => starts.push(start),
                None => by_shard.push((shard, vec![start])),
            }
        }
        by_shard
    }
}

/// Whether both are of the same replica.
fn is_of(one: &Progress, other: &Progress) -> bool {
    (one.topic_id, one.partition) == (other.topic_id, other.partition)
}

impl Directory {
    /// One rewrite at a time; what comes meanwhile is in the next one.
    fn plan_log_starts(&mut self) {
        let starts = &mut self.log_starts;
        if self.failed || starts.waiting.is_empty() || !starts.writing.is_empty() || starts.again_ms.is_some()
        {
            return;
        }
        std::mem::swap(&mut starts.waiting, &mut starts.writing);
        let file = directory::offsets_file(directory::LOG_STARTS, &self.offsets.log_starts);
        self.plan(file, Purpose::LogStarts);
    }

    pub(super) fn log_starts_stored(&mut self) {
        let mut stored = std::mem::take(&mut self.log_starts.writing);
        self.log_starts.stored.append(&mut stored);
        self.plan_log_starts();
    }

    pub(super) fn store_log_starts_again(&mut self, now: Now) {
        if self.log_starts.again_ms.take_if(|at_ms| *at_ms <= now.mono_ms).is_some() {
            self.plan_log_starts();
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::{Checkpoints, StoredOffsets};
    use super::*;
    use crate::broker::message::Owner;
    use crate::config::NodeConfig;
    use crate::effect::{FileDone, FileError, FileOp, FileResult};

    fn now(mono_ms: u64) -> Now {
        Now { mono_ms, wall_ms: 0 }
    }

    fn start(directory: u16, partition: i32, log_start_offset: i64) -> Progress {
        Progress {
            directory,
            topic_id: Uuid::nil(),
            topic: "t".into(),
            partition,
            recovery_point: 0,
            log_start_offset,
            high_watermark: 0,
            gone_below: 0,
            lowers: false,
            unclean: false,
        }
    }

    fn checkpoints(directories: usize) -> Checkpoints {
        Checkpoints::new(
            vec![StoredOffsets::default(); directories],
            ("boot".into(), -1),
            &NodeConfig::default(),
        )
    }

    /// Completes the operation that was asked for; what the file says, if it was put in place.
    fn complete(
        checkpoints: &mut Checkpoints,
        outputs: &mut Vec<Output>,
        text: &mut String,
        result: FileResult,
    ) -> bool {
        let Some(Output::File(Owner::Directory(directory), ticket, op)) = outputs.pop() else {
            panic!("nothing is asked for")
        };
        if let FileOp::Write { bytes, .. } = &op {
            *text = String::from_utf8(bytes.to_vec()).unwrap();
        }
        checkpoints.completed(now(0), directory, ticket, result, outputs);
        matches!(op, FileOp::SyncDir)
    }

    fn partitions(stored: Vec<(ShardId, Vec<Progress>)>) -> Vec<(u16, Vec<i32>)> {
        let of = |starts: Vec<Progress>| starts.iter().map(|start| start.partition).collect();
        stored.into_iter().map(|(shard, starts)| (shard.0, of(starts))).collect()
    }

    #[test]
    fn what_comes_during_a_rewrite_shares_the_next_one() {
        let (mut checkpoints, mut outputs, mut text) = (checkpoints(1), Vec::new(), String::new());
        checkpoints.store_log_starts(ShardId(0), vec![start(0, 0, 5)], &mut outputs);
        for partition in 1..100 {
            let shard = ShardId(u16::from(partition % 2 == 0));
            checkpoints.store_log_starts(shard, vec![start(0, partition, 7)], &mut outputs);
        }
        let mut rewrites = Vec::new();
        while !outputs.is_empty() {
            if complete(&mut checkpoints, &mut outputs, &mut text, Ok(FileDone::Ok)) {
                let stored = partitions(checkpoints.take_stored_log_starts());
                rewrites.push((text.lines().count() - 2, stored));
            } else {
                assert!(
                    checkpoints.take_stored_log_starts().is_empty(),
                    "not before the directory is synced"
                );
            }
        }
        assert_eq!(rewrites.len(), 2);
        assert_eq!(rewrites[0], (1, vec![(0, vec![0])]));
        let (lines, stored) = &rewrites[1];
        assert_eq!((*lines, stored.iter().map(|(_, list)| list.len()).sum::<usize>()), (100, 99));
    }

    #[test]
    fn a_log_start_in_the_file_never_goes_back() {
        let (mut checkpoints, mut outputs, mut text) = (checkpoints(1), Vec::new(), String::new());
        checkpoints.store_log_starts(ShardId(0), vec![start(0, 0, 9)], &mut outputs);
        checkpoints.store_log_starts(ShardId(0), vec![start(0, 0, 4)], &mut outputs);
        // A survey that was answered before the log start moved.
        assert!(checkpoints.survey_is_due(now(1_000_000), 1));
        let old = (vec![start(0, 0, 2)], 0);
        checkpoints.surveyed(ShardId(0), old, false, |_| true, &mut outputs);
        while !outputs.is_empty() {
            complete(&mut checkpoints, &mut outputs, &mut text, Ok(FileDone::Ok));
            assert!(!text.contains("t 0 2") && !text.contains("t 0 4"), "{text}");
        }
    }

    #[test]
    fn a_log_that_begins_anew_lowers_it_whatever_a_survey_says_that_was_answered_before() {
        let (mut checkpoints, mut outputs, mut text) = (checkpoints(1), Vec::new(), String::new());
        checkpoints.store_log_starts(ShardId(0), vec![start(0, 0, 9), start(0, 1, 9)], &mut outputs);
        assert!(checkpoints.survey_is_due(now(1_000_000), 2));
        let before = (vec![start(0, 0, 9), start(0, 1, 9)], 0);
        checkpoints.surveyed(ShardId(0), before, false, |_| true, &mut outputs);
        let lowered = Progress { lowers: true, ..start(0, 0, 2) };
        checkpoints.store_log_starts(ShardId(0), vec![lowered], &mut outputs);
        while !outputs.is_empty() {
            complete(&mut checkpoints, &mut outputs, &mut text, Ok(FileDone::Ok));
        }
        assert!(text.contains("t 0 2") && text.contains("t 1 9"), "{text}");
        let stored = checkpoints.take_stored_log_starts();
        let lowers: Vec<bool> = stored[0].1.iter().map(|start| start.lowers).collect();
        assert_eq!(lowers, [false, false, true], "in the order in which they were asked for");
        // The other shard's answer completes the survey.
        checkpoints.surveyed(ShardId(1), (Vec::new(), 0), false, |_| true, &mut outputs);
        while !outputs.is_empty() {
            complete(&mut checkpoints, &mut outputs, &mut text, Ok(FileDone::Ok));
            assert!(!text.contains("t 0 9"), "{text}");
        }
        assert_eq!(checkpoints.directories[0].offsets.log_starts[&("t".to_owned(), 0)], 2);
    }

    #[test]
    fn an_entry_goes_when_the_segments_names_say_the_same_for_good() {
        let (mut checkpoints, mut outputs, mut text) = (checkpoints(1), Vec::new(), String::new());
        let mut survey = |checkpoints: &mut Checkpoints, at_ms, gone_below| {
            assert!(checkpoints.survey_is_due(now(at_ms), 1));
            let progress = Progress { gone_below, ..start(0, 0, 9) };
            checkpoints.surveyed(ShardId(0), (vec![progress], 0), false, |_| true, &mut outputs);
            while !outputs.is_empty() {
                complete(checkpoints, &mut outputs, &mut text, Ok(FileDone::Ok));
            }
            checkpoints.directories[0].offsets.log_starts.values().copied().collect::<Vec<_>>()
        };
        assert_eq!(survey(&mut checkpoints, 1_000_000, 0), [9]);
        assert_eq!(survey(&mut checkpoints, 2_000_000, 8), [9]);
        assert_eq!(survey(&mut checkpoints, 3_000_000, 9), [0_i64; 0]);
    }

    #[test]
    fn a_full_device_keeps_them_waiting_and_a_failed_one_forgets_them() {
        let (mut checkpoints, mut outputs, mut text) = (checkpoints(2), Vec::new(), String::new());
        checkpoints.store_log_starts(ShardId(0), vec![start(0, 0, 5)], &mut outputs);
        complete(&mut checkpoints, &mut outputs, &mut text, Err(FileError::NoSpace));
        assert!(outputs.is_empty() && checkpoints.take_stored_log_starts().is_empty());
        assert_eq!(checkpoints.next_wake_ms(), Some(RETRY_MS));
        checkpoints.store_log_starts(ShardId(0), vec![start(0, 1, 6)], &mut outputs);
        assert!(outputs.is_empty(), "what comes meanwhile waits too");
        checkpoints.wake(now(RETRY_MS), &mut outputs);
        while !outputs.is_empty() {
            complete(&mut checkpoints, &mut outputs, &mut text, Ok(FileDone::Ok));
        }
        assert!(text.contains("t 0 5") && text.contains("t 1 6"), "{text}");
        assert_eq!(partitions(checkpoints.take_stored_log_starts()), [(0, vec![0, 1])]);

        checkpoints.store_log_starts(ShardId(0), vec![start(1, 2, 5)], &mut outputs);
        complete(&mut checkpoints, &mut outputs, &mut text, Err(FileError::Io(5)));
        checkpoints.store_log_starts(ShardId(0), vec![start(1, 3, 5)], &mut outputs);
        assert!(outputs.is_empty() && checkpoints.take_stored_log_starts().is_empty());
    }
}
