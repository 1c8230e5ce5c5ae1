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

    /// The broker has registered with this epoch.
    pub(super) fn set_broker_epoch(&mut self, epoch: i64, outputs: &mut Vec<Output>) {
        if !self.directories.iter().any(|directory| directory.failed) {
            self.keep(epoch);
            self.emit(outputs);
        }
    }

    /// Notes the epoch at once where the boot id is on file, and with the boot id elsewhere. But that nothing is kept
    /// is noted everywhere: what is on file may still say something else.
    fn keep(&mut self, epoch: i64) {
        if std::mem::replace(&mut self.kept_epoch, epoch) == epoch {
            return;
        }
        for directory in &mut self.directories {
            match directory.boot_id_due || directory.unclean {
                false => directory.plan(directory::boot_id_file(&self.boot_id, epoch), Purpose::Step),
                true if epoch < 0 => directory.plan(directory::boot_id_file("", epoch), Purpose::Step),
                true => {}
            }
        }
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
    pub(super) fn fail(&mut self, directory: u16, outputs: &mut Vec<Output>) {
        if let Some(entry) = self.directories.get_mut(usize::from(directory)) {
            entry.fail();
            // It may still say that it has everything; who starts next is not to believe it, should it be back.
            self.keep(-1);
            self.emit(outputs);
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
mod tests;
