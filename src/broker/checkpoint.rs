//! The checkpoint files of the node's log directories: one writer, on the controller's shard,
//! which asks every shard how far its replicas have got. At a clean stop the last survey is
//! written, then the clean-shutdown marker, in that order and both synced.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::message::{Output, Owner, Progress};
use crate::config::NodeConfig;
use crate::controller::ShardId;
use crate::effect::{FileError, FileName, FileResult, Now, OpQueue, Ticket};
use crate::log::checkpoint::Offsets;
use crate::log::directory;

#[derive(Debug, Default)]
struct Directory {
    queue: OpQueue<()>,
    recovery_points: Offsets,
    log_starts: Offsets,
    high_watermarks: Offsets,
    /// What is on file is not what is known here: everything is written again.
    stale: bool,
    /// The kernel's boot id is still to be written, once every log is recovered: a start that
    /// crashes during recovery must not pass for one on the same boot.
    boot_id_due: bool,
    failed: bool,
}

/// The checkpoint files of all log directories.
#[derive(Debug)]
pub struct Checkpoints {
    directories: Vec<Directory>,
    survey_every_ms: u64,
    survey_at_ms: u64,
    /// Who has still to answer the survey.
    missing: BTreeSet<u16>,
    surveyed: Vec<Progress>,
    /// Replicas that were still being recovered when the survey passed.
    opening: usize,
    boot_id: String,
    stopping: bool,
    marked: bool,
}

impl Checkpoints {
    /// For so many log directories.
    pub fn new(directories: u16, boot_id: String, config: &NodeConfig) -> Self {
        let offsets_ms = config.log_flush_offset_checkpoint_interval_ms;
        let survey_every_ms = config.high_watermark_checkpoint_interval_ms.min(offsets_ms).max(1);
        Self {
            directories: (0..directories)
                .map(|_| Directory { boot_id_due: true, ..Directory::default() })
                .collect(),
            survey_every_ms,
            survey_at_ms: survey_every_ms,
            missing: BTreeSet::new(),
            surveyed: Vec::new(),
            opening: 0,
            boot_id,
            stopping: false,
            marked: false,
        }
    }

    /// How many directories there are.
    pub fn directories(&self) -> u16 {
        self.directories.len() as u16
    }

    pub(super) fn next_wake_ms(&self) -> Option<u64> {
        (!self.stopping).then_some(self.survey_at_ms)
    }

    /// Whether every shard is to be asked now.
    pub(super) fn survey_is_due(&mut self, now: Now, shard_count: u16) -> bool {
        if self.stopping || now.mono_ms < self.survey_at_ms {
            return false;
        }
        self.survey_at_ms = now.mono_ms + self.survey_every_ms;
        if !self.missing.is_empty() {
            return false;
        }
        self.missing = (0..shard_count).collect();
        self.opening = 0;
        true
    }

    /// Begins the last survey; false if it has begun before.
    pub(super) fn begin_stop(&mut self, shard_count: u16) -> bool {
        if std::mem::replace(&mut self.stopping, true) {
            return false;
        }
        self.missing = (0..shard_count).collect();
        self.surveyed.clear();
        self.opening = 0;
        true
    }

    /// A shard's answer; the last one is written.
    pub(super) fn surveyed(
        &mut self,
        from: ShardId,
        (progress, opening): (Vec<Progress>, usize),
        last: bool,
        outputs: &mut Vec<Output>,
    ) {
        if last != self.stopping || !self.missing.remove(&from.0) {
            return;
        }
        self.surveyed.extend(progress);
        self.opening += opening;
        if self.missing.is_empty() {
            self.write(outputs);
        }
    }

    fn write(&mut self, outputs: &mut Vec<Output>) {
        let mut fresh: Vec<Directory> = self.directories.iter().map(|_| Directory::default()).collect();
        for progress in self.surveyed.drain(..) {
            let Some(directory) = fresh.get_mut(usize::from(progress.directory)) else { continue };
            let key = (progress.topic.to_string(), progress.partition);
            directory.recovery_points.insert(key.clone(), progress.recovery_point);
            directory.high_watermarks.insert(key.clone(), progress.high_watermark);
            // As Kafka: only what the first segment's name does not say already.
            if progress.log_start_offset > progress.segment_base_offset {
                directory.log_starts.insert(key, progress.log_start_offset);
            }
        }
        // Not while a replica is being recovered: its old offsets must stand.
        if self.opening > 0 && !self.stopping {
            return;
        }
        for (directory, fresh) in self.directories.iter_mut().zip(fresh) {
            directory.update(fresh, self.stopping);
            if std::mem::take(&mut directory.boot_id_due) {
                directory.plan(directory::boot_id_file(&self.boot_id));
            }
            if self.stopping {
                directory.plan(directory::clean_shutdown_file(-1));
            }
        }
        self.marked = self.stopping;
        self.emit(outputs);
    }

    /// The directory failed: nothing more is written there, above all no mark of a clean stop.
    pub(super) fn fail(&mut self, directory: u16) {
        if let Some(entry) = self.directories.get_mut(usize::from(directory)) {
            entry.failed = true;
            entry.queue.abandon().for_each(drop);
        }
    }

    /// Takes the completion of an operation; true if the directory failed with it.
    pub(super) fn completed(
        &mut self,
        directory: u16,
        ticket: Ticket,
        result: FileResult,
        outputs: &mut Vec<Output>,
    ) -> bool {
        let mut failed = false;
        if let Some(entry) = self.directories.get_mut(usize::from(directory))
            && entry.queue.complete(ticket).is_some()
            && let Err(error) = result
        {
            // The old files stand; a directory without the marker recovers at the next start.
            entry.queue.abandon().for_each(drop);
            if error == FileError::NoSpace {
                (entry.stale, entry.boot_id_due) = (true, true);
            } else {
                failed = !std::mem::replace(&mut entry.failed, true);
            }
        }
        self.emit(outputs);
        failed
    }

    fn emit(&mut self, outputs: &mut Vec<Output>) {
        for (number, directory) in (0..).zip(&mut self.directories) {
            if let Some((ticket, op)) = directory.queue.take_next() {
                outputs.push(Output::File(Owner::Directory(number), ticket, op));
            }
        }
        if self.marked && self.directories.iter().all(|directory| directory.queue.is_idle()) {
            self.marked = false;
            outputs.push(Output::Finished);
        }
    }
}

impl Directory {
    /// Plans the files whose content has changed.
    fn update(&mut self, fresh: Directory, always: bool) {
        if self.failed {
            return;
        }
        let always = always || std::mem::take(&mut self.stale);
        let files = [
            (directory::RECOVERY_POINTS, &mut self.recovery_points, fresh.recovery_points),
            (directory::LOG_STARTS, &mut self.log_starts, fresh.log_starts),
            (directory::HIGH_WATERMARKS, &mut self.high_watermarks, fresh.high_watermarks),
        ];
        let mut planned = Vec::new();
        for (name, known, fresh) in files {
            if *known != fresh || always {
                planned.push(directory::offsets_file(name, &fresh));
                *known = fresh;
            }
        }
        for file in planned {
            self.plan(file);
        }
    }

    fn plan(&mut self, (file, bytes): (FileName, Bytes)) {
        if !self.failed {
            self.queue.plan_replace(file, bytes, (), ());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::{FileDone, FileOp};

    fn progress(directory: u16, partition: i32, recovery_point: i64) -> Progress {
        Progress {
            directory,
            topic: "t".into(),
            partition,
            recovery_point,
            log_start_offset: 0,
            high_watermark: recovery_point,
            segment_base_offset: 0,
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
                    assert!(!checkpoints.completed(directory, ticket, Ok(FileDone::Ok), &mut outputs));
                }
                Output::Finished => finished = true,
                other => panic!("unexpected {other:?}"),
            }
        }
        (renamed, finished)
    }

    #[test]
    fn files_are_written_when_every_shard_has_answered_and_something_changed() {
        let mut checkpoints = Checkpoints::new(1, "boot".into(), &NodeConfig::default());
        let now = |mono_ms| Now { mono_ms, wall_ms: 0 };
        let mut outputs = Vec::new();
        let mut survey = |at_ms, outputs: &mut Vec<Output>| {
            assert!(checkpoints.survey_is_due(now(at_ms), 2));
            checkpoints.surveyed(ShardId(0), (vec![progress(0, 0, 5)], 0), false, outputs);
            assert!(outputs.is_empty());
            checkpoints.surveyed(ShardId(1), (vec![progress(0, 1, 7)], 0), false, outputs);
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
        let mut checkpoints = Checkpoints::new(1, "boot".into(), &NodeConfig::default());
        let mut outputs = Vec::new();
        let mut survey = |checkpoints: &mut Checkpoints, at_ms| {
            assert!(checkpoints.survey_is_due(Now { mono_ms: at_ms, wall_ms: 0 }, 1));
            checkpoints.surveyed(ShardId(0), (vec![progress(0, 0, 5)], 0), false, &mut outputs);
            std::mem::take(&mut outputs)
        };
        let asked = survey(&mut checkpoints, 1_000_000);
        let Some(Output::File(_, ticket, _)) = asked.first() else { panic!("nothing is written") };
        let mut outputs = Vec::new();
        assert!(!checkpoints.completed(0, *ticket, Err(FileError::NoSpace), &mut outputs));
        assert!(outputs.is_empty(), "the old files stand: {outputs:?}");
        let asked = survey(&mut checkpoints, 2_000_000);
        assert_eq!(settle(&mut checkpoints, asked).0.len(), 4);
    }

    #[test]
    fn a_directory_that_failed_gets_no_mark_of_a_clean_stop() {
        let mut checkpoints = Checkpoints::new(2, "boot".into(), &NodeConfig::default());
        checkpoints.fail(1);
        assert!(checkpoints.begin_stop(1));
        let mut outputs = Vec::new();
        checkpoints.surveyed(ShardId(0), (vec![progress(1, 0, 5)], 0), true, &mut outputs);
        let (renamed, finished) = settle(&mut checkpoints, outputs);
        assert!(finished);
        assert!(renamed.iter().all(|name| name.starts_with("0/")), "{renamed:?}");
    }

    #[test]
    fn a_clean_stop_ends_with_the_marker() {
        let mut checkpoints = Checkpoints::new(2, "boot".into(), &NodeConfig::default());
        assert!(checkpoints.begin_stop(1));
        assert!(!checkpoints.begin_stop(1));
        let mut outputs = Vec::new();
        checkpoints.surveyed(ShardId(0), (vec![progress(1, 0, 5)], 0), true, &mut outputs);
        let (renamed, finished) = settle(&mut checkpoints, outputs);
        assert!(finished);
        assert!(renamed.iter().filter(|name| name.ends_with(".kafka_cleanshutdown")).count() == 2);
        assert!(renamed.last().is_some_and(|name| name.ends_with(".kafka_cleanshutdown")));
    }
}
