//! What a start finds of the replicas: in the log directories, and in each log.

use std::collections::BTreeMap;

use crate::log::Recovered;

/// What the recovery of a replica found.
#[derive(Debug)]
pub enum Opened {
    /// A log.
    Log(Box<Recovered>),
    /// No segment: a crash inside its creation, or every record was deleted.
    Empty {
        /// Where the first segment begins.
        base_offset: i64,
    },
}

/// A replica's directory that was there when the node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FoundReplica {
    /// Everything below is synced, by the checkpoint.
    pub recovery_point: i64,
    /// First offset there is, by the checkpoint.
    pub log_start_offset: i64,
    /// Everything below is committed, by the checkpoint.
    pub high_watermark: i64,
}

/// What the start found in one log directory.
#[derive(Clone, Debug, Default)]
pub struct DirectoryFacts {
    /// The last stop was clean.
    pub clean: bool,
    /// The machine has not booted since: what was written is still there, synced or not.
    pub same_boot: bool,
    /// Replicas by topic and partition.
    pub found: BTreeMap<(String, i32), FoundReplica>,
    /// Folders of future replicas, by name.
    pub futures: Vec<String>,
}
