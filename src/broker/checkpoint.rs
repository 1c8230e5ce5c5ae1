//! The checkpoint files of the node's log directories: one writer, on the controller's shard,
//! which asks every shard how far its replicas have got. At a clean stop the last survey is
//! written, then the clean-shutdown marker, in that order and both synced.
//!
//! The files name a replica by its topic's name alone. So an entry must never outlive its topic:
//! a topic made again under the name would take it for its own, and lose records to it. Entries
//! of removed topics are [forgotten](Checkpoints::forget), and nothing is published, above all no
//! topic, before the files without them are in place and synced. What a survey says counts only
//! for topics that are still there, by id. A replica that nobody reports keeps its entries.

mod log_starts;

use std::collections::BTreeSet;

use bytes::Bytes;

use self::log_starts::LogStarts;
use super::message::{Output, Owner, Progress};
use crate::config::NodeConfig;
use crate::controller::ShardId;
use crate::effect::{FileError, FileName, FileResult, Now, OpQueue, Ticket};
use crate::log::checkpoint::Offsets;
use crate::log::directory;
use crate::planted::{Bug, is_planted};

/// How long it takes until what a full device refused is tried again, where others wait for it.
const RETRY_MS: u64 = 1000;

/// What the checkpoint files of one log directory say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredOffsets {
    /// Below these everything is synced.
    pub recovery_points: Offsets,
    /// The log start offsets.
    pub log_starts: Offsets,
    /// The high watermarks.
    pub high_watermarks: Offsets,
}

/// What an operation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Step,
    /// The last one of a rewrite with new log starts, for which replicas wait.
    LogStarts,
    /// The last one of a rewrite that others wait for.
    Forgotten,
}

#[derive(Debug, Default)]
struct Directory {
    queue: OpQueue<Purpose>,
    offsets: StoredOffsets,
    /// What is on file is not what is known here: everything is written again.
    stale: bool,
    /// Rewrites without removed topics that are planned or under way.
    forgetting: u32,
    log_starts: LogStarts,
    /// A full device refused one: when it is tried again.
    forget_again_ms: Option<u64>,
    /// The kernel's boot id is still to be written, once every log is recovered: a start that
    /// crashes during recovery must not pass for one on the same boot.
    boot_id_due: bool,
    /// A replica in it has to be recovered by the next start, whatever this one did.
    unclean: bool,
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
    /// The epoch of the broker that has everything which it said that it has, in all directories; -1 where there is
    /// none.
    kept_epoch: i64,
    stopping: bool,
    marked: bool,
}

impl Checkpoints {
    /// For the log directories whose files say this, in this boot of the kernel and with the
    /// [epoch](directory::kept_epoch) that they have kept.
    pub fn new(
        stored: Vec<StoredOffsets>,
        (boot_id, kept_epoch): (String, i64),
        config: &NodeConfig,
    ) -> Self {
        let offsets_ms = config.log_flush_offset_checkpoint_interval_ms;
        let survey_every_ms = config.high_watermark_checkpoint_interval_ms.min(offsets_ms).max(1);
        let directory = |offsets| Directory { offsets, boot_id_due: true, ..Directory::default() };
        Self {
            directories: stored.into_iter().map(directory).collect(),
            survey_every_ms,
            survey_at_ms: survey_every_ms,
            missing: BTreeSet::new(),
            surveyed: Vec::new(),
            opening: 0,
            boot_id,
            kept_epoch,
            stopping: false,
            marked: false,
        }
    }

    /// The broker has registered with this epoch. The next survey notes it.
    pub(super) fn set_broker_epoch(&mut self, epoch: i64) {
        if !self.directories.iter().any(|directory| directory.failed) {
            self.keep(epoch);
        }
    }

    fn keep(&mut self, epoch: i64) {
        self.kept_epoch = epoch;
        self.directories.iter_mut().for_each(|directory| directory.boot_id_due = true);
    }

    /// How many directories there are.
    pub fn directories(&self) -> u16 {
        self.directories.len() as u16
    }

    pub(super) fn next_wake_ms(&self) -> Option<u64> {
        let again = self.directories.iter().filter_map(|directory| directory.forget_again_ms);
        let survey = (!self.stopping).then_some(self.survey_at_ms);
        let log_starts = self.directories.iter().filter_map(|directory| directory.log_starts.again_ms());
        again.chain(log_starts).chain(survey).min()
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

    /// A shard's answer; the last one is written, as far as it speaks of topics that are there.
    pub(super) fn surveyed(
        &mut self,
        from: ShardId,
        (progress, opening): (Vec<Progress>, usize),
        last: bool,
        is_there: impl Fn(&Progress) -> bool,
        outputs: &mut Vec<Output>,
    ) {
        if last != self.stopping || !self.missing.remove(&from.0) {
            return;
        }
        // Looked at twice: a replica may have left when its shard's answer comes, or leave until all have answered.
        self.surveyed.extend(progress.into_iter().filter(&is_there));
        self.opening += opening;
        if self.missing.is_empty() {
            self.surveyed.retain(is_there);
            self.write(outputs);
        }
    }

    fn write(&mut self, outputs: &mut Vec<Output>) {
        let mut changed = vec![[false; 3]; self.directories.len()];
        for progress in self.surveyed.drain(..) {
            let at = usize::from(progress.directory);
            if let (Some(directory), Some(changed)) = (self.directories.get_mut(at), changed.get_mut(at)) {
                directory.unclean |= progress.unclean;
                directory.offsets.take(&progress, changed);
            }
        }
        for (directory, changed) in self.directories.iter_mut().zip(changed) {
            let all = self.stopping || std::mem::take(&mut directory.stale);
            directory.plan_files(changed.map(|changed| changed || all), Purpose::Step);
            if directory.unclean {
                continue;
            }
            // A recovery under way, cut short, must not pass for one that ended.
            if (self.opening == 0 || self.stopping) && std::mem::take(&mut directory.boot_id_due) {
                directory.plan(directory::boot_id_file(&self.boot_id, self.kept_epoch), Purpose::Step);
            }
            if self.stopping {
                directory.plan(directory::clean_shutdown_file(self.kept_epoch), Purpose::Step);
            }
        }
        self.marked = self.stopping;
        self.emit(outputs);
    }

    /// Drops the entries of replicas (log directory, topic, partition) that are gone, and rewrites
    /// the files that had any.
    pub(super) fn forget(&mut self, is_gone: impl Fn(u16, &str, i32) -> bool, outputs: &mut Vec<Output>) {
        if is_planted(Bug::OutlivingCheckpoint) {
            return;
        }
        self.surveyed.retain(|one| !is_gone(one.directory, &one.topic, one.partition));
        for (number, directory) in (0..).zip(&mut self.directories) {
            let changed = directory.offsets.files().map(|(_, offsets)| {
                let before = offsets.len();
                offsets.retain(|(topic, partition), _| !is_gone(number, topic, *partition));
                offsets.len() < before
            });
            directory.plan_files(changed, Purpose::Forgotten);
        }
        self.emit(outputs);
    }

    /// Whether entries that were to be forgotten may still be on file.
    pub(super) fn is_forgetting(&self) -> bool {
        self.directories.iter().any(Directory::is_forgetting)
    }

    /// Tries again what a full device refused, where others wait for it.
    pub(super) fn wake(&mut self, now: Now, outputs: &mut Vec<Output>) {
        for directory in &mut self.directories {
            if directory.forget_again_ms.is_some_and(|at_ms| at_ms <= now.mono_ms) {
                directory.forget_again_ms = None;
                directory.stale = false;
                directory.plan_files([true; 3], Purpose::Forgotten);
            }
            directory.store_log_starts_again(now);
        }
        self.emit(outputs);
    }

    /// The directory failed: nothing more is written there, above all no mark of a clean stop.
    pub(super) fn fail(&mut self, directory: u16) {
        if let Some(entry) = self.directories.get_mut(usize::from(directory)) {
            entry.fail();
            // It still says that it has everything; who starts next is not to believe it, should it be back.
            self.keep(-1);
        }
    }

    /// Takes the completion of an operation; true if the directory failed with it.
    pub(super) fn completed(
        &mut self,
        now: Now,
        directory: u16,
        ticket: Ticket,
        result: FileResult,
        outputs: &mut Vec<Output>,
    ) -> bool {
        let mut failed = false;
        if let Some(entry) = self.directories.get_mut(usize::from(directory))
            && let Some(purpose) = entry.queue.complete(ticket)
        {
            match result {
                Ok(_) if purpose == Purpose::Forgotten && !entry.failed => entry.forgetting -= 1,
                Ok(_) if purpose == Purpose::LogStarts => entry.log_starts_stored(),
                Ok(_) => {}
                Err(FileError::NoSpace) => entry.refused(now),
                Err(_) => failed = entry.fail(),
            }
            if failed {
                self.keep(-1);
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

impl StoredOffsets {
    /// Each file's name and content.
    fn files(&mut self) -> [(&'static str, &mut Offsets); 3] {
        [
            (directory::RECOVERY_POINTS, &mut self.recovery_points),
            (directory::LOG_STARTS, &mut self.log_starts),
            (directory::HIGH_WATERMARKS, &mut self.high_watermarks),
        ]
    }

    /// Takes over how far a replica has got; notes which files that changes, in the order of
    /// [`Self::files`].
    fn take(&mut self, progress: &Progress, changed: &mut [bool; 3]) {
        // As Kafka: only what the first segment's name does not say already, and for good.
        let log_start = Some(progress.log_start_offset).filter(|start| *start > progress.gone_below);
        let key = (progress.topic.to_string(), progress.partition);
        // What is stored may be ahead of a survey that was answered before.
        let log_start =
            log_start.max(self.log_starts.get(&key).copied()).filter(|start| *start > progress.gone_below);
        let values = [Some(progress.recovery_point), log_start, Some(progress.high_watermark)];
        for (((_, offsets), value), changed) in self.files().into_iter().zip(values).zip(changed) {
            let before = match value {
                Some(value) => offsets.insert(key.clone(), value),
                None => offsets.remove(&key),
            };
            *changed |= before != value;
        }
    }
}

impl Directory {
    /// Plans the files that are named, in the order of [`StoredOffsets::files`]. The last of them
    /// gets `purpose`.
    fn plan_files(&mut self, wanted: [bool; 3], purpose: Purpose) {
        if self.failed {
            return;
        }
        let files = self.offsets.files().into_iter().zip(wanted).filter(|(_, wanted)| *wanted);
        let mut planned: Vec<_> =
            files.map(|((name, offsets), _)| directory::offsets_file(name, offsets)).collect();
        let Some(last) = planned.pop() else { return };
        for file in planned {
            self.plan(file, Purpose::Step);
        }
        self.forgetting += u32::from(purpose == Purpose::Forgotten);
        self.plan(last, purpose);
    }

    fn plan(&mut self, (file, bytes): (FileName, Bytes), purpose: Purpose) {
        if !self.failed {
            self.queue.plan_replace(file, bytes, Purpose::Step, purpose);
        }
    }

    fn is_forgetting(&self) -> bool {
        !self.failed && (self.forgetting > 0 || self.forget_again_ms.is_some())
    }

    /// The device is full: the old files stand, and so does what waits for new ones. A directory
    /// without the marker recovers at the next start.
    fn refused(&mut self, now: Now) {
        self.queue.abandon().for_each(drop);
        (self.stale, self.boot_id_due) = (true, true);
        self.log_starts.refused(now);
        if self.is_forgetting() {
            self.forgetting = 0;
            self.forget_again_ms = Some(now.mono_ms + RETRY_MS);
        }
    }

    /// Nothing is written here any more, and nobody waits for it; true if that is new.
    fn fail(&mut self) -> bool {
        self.queue.abandon().for_each(drop);
        (self.forgetting, self.forget_again_ms) = (0, None);
        self.log_starts = LogStarts::default();
        !std::mem::replace(&mut self.failed, true)
    }
}

#[cfg(test)]
mod tests {
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
        checkpoints.fail(1);
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
        let entries: Offsets = entries
            .iter()
            .map(|(topic, partition, offset)| ((topic.to_string(), *partition), *offset))
            .collect();
        StoredOffsets {
            recovery_points: entries.clone(),
            log_starts: entries,
            high_watermarks: Offsets::new(),
        }
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
}
