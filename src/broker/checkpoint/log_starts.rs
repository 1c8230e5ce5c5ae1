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
            *entry = start.log_start_offset.max(*entry);
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
