//! The end of a recovery: small files are brought to the log that was found, what has to be durable
//! is synced, and the log is handed over.

use bytes::Bytes;

use super::listing::{PARTITION_METADATA, segment_files};
use super::machine::{Flow, Recovery, State};
use super::{Recovered, RecoveryStep};
use crate::effect::{FileName, FileOp, Stem};
use crate::log::checkpoint::PartitionMetadata;
use crate::log::epoch::LEADER_EPOCH_CHECKPOINT;
use crate::log::producer::ProducerStates;
use crate::planted::{Bug, is_planted};

impl Recovery {
    pub(super) fn finish(&mut self) -> Flow {
        let log_end = self.active.log_end;
        let Some(first) = self.segments.first().map(|segment| segment.base_offset) else {
            return self.start_over();
        };
        if self.quarantined.is_none() {
            if log_end < self.plan.log_start_offset {
                for base in std::mem::take(&mut self.bases).into_iter().rev() {
                    self.truncated_bytes += self.length_of(Stem::Log(base)).unwrap_or(0);
                    self.delete_segment(base);
                }
                self.segments.clear();
                return self.start_over();
            }
            self.finish_small_files(first, log_end);
            if !std::mem::replace(&mut self.synced, true) {
                self.sync_what_is_left();
                self.finish_mark(self.durable_end(log_end), self.log_start(first, log_end));
            }
        }
        if !self.changes.is_empty() {
            self.state = State::Finish;
            return Flow::Again;
        }
        Flow::Give(RecoveryStep::Done(Box::new(self.recovered(first, log_end))))
    }

    /// A log that is to be durable to its end, or is going to be called so, is made so. After a power
    /// cut it mostly is, but a process of this boot may have appended to it and died.
    fn sync_what_is_left(&mut self) {
        if self.plan.clean {
            return;
        }
        // A process that died may have changed names which this recovery finds as they are to be.
        self.directory_changed |= self.is_truncating();
        // One that died between a cut and its sync left nothing to be cut, and what it cut off would come back.
        if self.is_truncating()
            && let Some(base) = self.bases.last()
        {
            self.changes.push_back(FileOp::Sync { file: Stem::Log(*base).into() });
        }
        if self.is_durable_to_its_end() {
            let bases: Vec<i64> = self.bases.iter().skip(self.first_not_passed()).copied().collect();
            // The producers, too: what a process wrote of them before it died counts as synced from here on.
            let snapshot = |base| FileName::from(Stem::ProducerSnapshot(base));
            let files =
                bases.into_iter().flat_map(|base| segment_files(base).into_iter().chain([snapshot(base)]));
            let syncs: Vec<FileOp> = files
                .filter(|file| self.files.contains_key(file))
                .map(|file| FileOp::Sync { file })
                .collect();
            self.changes.extend(syncs);
            // So do the names that its last roll made: they may not be synced, and the next sync may be one of a file.
            self.directory_changed = true;
        }
        self.sync_directory();
    }

    /// Whether everything is synced when the recovery ends: also where the process died and only what
    /// is synced counts.
    fn is_durable_to_its_end(&self) -> bool {
        self.plan.clean || !self.plan.same_boot || self.plan.config.flush_messages == 1
    }

    /// Everything below it is synced when the recovery ends.
    fn durable_end(&self, log_end: i64) -> i64 {
        let all_synced = self.is_durable_to_its_end() && self.quarantined.is_none();
        if all_synced { log_end } else { self.plan.recovery_point.clamp(0, log_end.max(0)) }
    }

    fn finish_small_files(&mut self, first: i64, log_end: i64) {
        if self.topic_id.is_none() {
            // A log from before topics had ids, or one whose directory lost the file.
            let metadata = PartitionMetadata { topic_id: self.plan.topic_id };
            self.topic_id = Some(metadata.topic_id);
            self.replace(Stem::Named(PARTITION_METADATA).into(), Bytes::from(metadata.encode()));
        }
        self.epochs.truncate_from_end(log_end);
        self.epochs.truncate_from_start(self.plan.log_start_offset.max(first));
        let text = self.epochs.encode();
        let known = self.epochs_on_disk.as_deref().unwrap_or_default();
        if known != text.as_bytes() && !(self.epochs_on_disk.is_none() && self.epochs.entries().is_empty()) {
            self.replace(Stem::Named(LEADER_EPOCH_CHECKPOINT).into(), Bytes::from(text.clone()));
            self.epochs_on_disk = Some(text.into_bytes());
        }
        let newest = self.snapshots().rev().find(|offset| *offset <= log_end);
        let is_stray = |offset: &i64| {
            *offset > log_end || (self.bases.binary_search(offset).is_err() && Some(*offset) != newest)
        };
        let stray: Vec<i64> = self.snapshots().filter(is_stray).collect();
        for offset in stray {
            let file = FileName::from(Stem::ProducerSnapshot(offset));
            self.files.remove(&file);
            self.change(FileOp::Delete { file });
        }
        self.sync_directory();
    }

    fn recovered(&mut self, first: i64, log_end: i64) -> Recovered {
        let active = std::mem::take(&mut self.active);
        Recovered {
            topic_id: self.topic_id,
            segments: std::mem::take(&mut self.segments),
            epochs: std::mem::take(&mut self.epochs),
            producers: match is_planted(Bug::ForgottenProducers) {
                true => ProducerStates::default(),
                false => std::mem::take(&mut self.producers),
            },
            log_start_offset: self.log_start(first, log_end),
            log_end,
            durable_end: self.durable_end(log_end),
            is_synced: self.is_durable_to_its_end() && self.quarantined.is_none(),
            is_untouched: self.is_untouched(log_end),
            names_unsure: self.names_unsure(),
            truncated_bytes: self.truncated_bytes,
            last_index_entry: active.last_index_entry,
            bytes_since_index_entry: active.bytes_since_index_entry,
            last_time_index_entry: active.last_time_index_entry,
            tail: active.tail.into(),
            quarantined: self.quarantined,
            marked_until: self.marked_until(),
            start_on_file: self.start_to_lower(),
        }
    }

    /// Whether the files are as a clean stop left them, with the producers at the log end, or as they were made.
    fn is_untouched(&self, log_end: i64) -> bool {
        let is_empty = |file: FileName| self.files.get(&file).is_none_or(|length| *length == 0);
        let is_as_made = matches!(self.bases[..], [base] if segment_files(base).into_iter().all(is_empty))
            && self.snapshots().next().is_none();
        let is_as_left = self.plan.clean && self.snapshots().any(|offset| offset == log_end);
        !self.has_changed && self.quarantined.is_none() && (is_as_left || is_as_made)
    }

    /// An empty active segment may be one whose creation was cut short: its name must last before a record in it can.
    /// Of thousands of logs most have nothing to write, so that waits until this one has
    /// ([`Log`](crate::log::Log) syncs it then).
    fn names_unsure(&self) -> bool {
        let is_empty = |base: &i64| self.length_of(Stem::Log(*base)) == Some(0);
        !self.is_durable_to_its_end() && !self.is_truncating() && self.bases.last().is_some_and(is_empty)
    }

    /// Where the log starts. Damage can hide it.
    fn log_start(&self, first: i64, log_end: i64) -> i64 {
        self.plan.log_start_offset.max(first).min(log_end)
    }
}
