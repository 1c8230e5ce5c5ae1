//! One log directory from its start to its clean stop: whose it is, how it was left, which logs
//! it holds, and what its small files say.
//!
//! [`DirectoryStart`] is a sequential machine over the directory's own files. Its order is what a
//! crash at any point needs: nothing is written before the directory is known to be ours, and the
//! clean-shutdown marker is durably gone before the first log is opened. The boot id on file stays
//! the old one until every log is recovered ([`boot_id_file`]): a recovery that dies after a power
//! cut must not be taken for one of a process that died.

use std::collections::VecDeque;

use bytes::Bytes;
use uuid::Uuid;

use super::checkpoint::{
    CheckpointError, CleanShutdown, MetaProperties, Offsets, encode_offsets, parse_offsets,
};
use crate::effect::{FileDone, FileError, FileName, FileOp, FileResult, Stem, Suffix};

/// The offsets below which each log is synced.
pub const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
/// The log start offsets.
pub const LOG_STARTS: &str = "log-start-offset-checkpoint";
/// The high watermarks.
pub const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";
/// Whose directory this is.
pub const META_PROPERTIES: &str = "meta.properties";
/// There after a clean stop only.
pub const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
/// The kernel's boot id when all logs were last known to be recovered, and the broker's epoch then; ours, Kafka has no
/// such file.
pub const BOOT_ID: &str = ".tidemill-boot-id";

/// Where Apache Kafka in KRaft mode keeps its metadata.
const KAFKA_METADATA: &str = "__cluster_metadata-0";

const NAMES: [&str; 6] =
    [META_PROPERTIES, CLEAN_SHUTDOWN, BOOT_ID, RECOVERY_POINTS, LOG_STARTS, HIGH_WATERMARKS];
/// A checkpoint of a million partitions with the longest names.
const FILE_LIMIT_BYTES: u64 = 288 << 20;
const READ_BYTES: u64 = 1 << 20;
/// Longest topic name.
pub const TOPIC_NAME_LIMIT_BYTES: usize = 249;

/// What a directory inside a log directory is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogDirEntry {
    /// `<topic>-<partition>`: a log.
    Log {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// `<topic>-<partition>.<32 hex digits>-delete`: to be deleted.
    Deleted,
    /// `….<32 hex digits>-stray`: a log that this node no longer has; an operator's to judge.
    Stray,
    /// `….<32 hex digits>-future`: a log on its way from another log directory.
    Future,
    /// Anything else; left alone.
    Other,
}

/// Reads the name of a directory.
pub fn parse_directory_name(name: &str) -> LogDirEntry {
    for (mark, entry) in
        [("-delete", LogDirEntry::Deleted), ("-stray", LogDirEntry::Stray), ("-future", LogDirEntry::Future)]
    {
        // Kafka shortens the topic in these names where they would be too long.
        if let Some(rest) = name.strip_suffix(mark)
            && let Some((log, id)) = rest.rsplit_once('.')
            && id.len() == 32
            && id.bytes().all(|byte| byte.is_ascii_hexdigit())
            && parse_log_name(log).is_some()
        {
            return entry;
        }
    }
    match parse_log_name(name) {
        Some((topic, partition)) => LogDirEntry::Log { topic: topic.to_owned(), partition },
        None => LogDirEntry::Other,
    }
}

fn parse_log_name(name: &str) -> Option<(&str, i32)> {
    let (topic, digits) = name.rsplit_once('-')?;
    let partition: i32 = digits.parse().ok()?;
    // One directory per partition: "+1" and "01" are not names that are written.
    (partition >= 0 && partition.to_string() == digits && is_topic_name(topic)).then_some((topic, partition))
}

/// Whether a topic may have this name: 1 to 249 of `a-z A-Z 0-9 . _ -`, but not `.` or `..`.
pub fn is_topic_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !name.is_empty()
        && name.len() <= TOPIC_NAME_LIMIT_BYTES
        && !matches!(name, "." | "..")
        && name.bytes().all(legal)
}

/// The file and bytes of an offset checkpoint, for `OpQueue::plan_replace`.
pub fn offsets_file(name: &'static str, offsets: &Offsets) -> (FileName, Bytes) {
    (Stem::Named(name).into(), Bytes::from(encode_offsets(offsets)))
}

/// The file and bytes of the boot id, for `OpQueue::plan_replace`: once every log is recovered. While the kernel runs
/// it loses nothing that was written, whatever becomes of the process: the directory has all that a broker of this
/// epoch said that it has.
pub fn boot_id_file(boot_id: &str, broker_epoch: i64) -> (FileName, Bytes) {
    (Stem::Named(BOOT_ID).into(), Bytes::from(format!("{boot_id}\n{broker_epoch}\n")))
}

/// The epoch of a broker whose directories say this: what it said that it has is still there, after a clean stop or
/// the death of its process. -1 where one of them may have lost something, or cannot be used (`None`).
pub fn kept_epoch<'a>(directories: impl Iterator<Item = Option<&'a DirectoryState>>) -> i64 {
    let mut epochs = directories.map(|directory| directory.map_or(-1, |directory| directory.kept_epoch));
    let first = epochs.next().unwrap_or(-1);
    if epochs.all(|epoch| epoch == first) { first } else { -1 }
}

/// The file and bytes of the clean-shutdown marker: the last thing that is written, after every
/// log is closed and synced and the checkpoints are replaced.
pub fn clean_shutdown_file(broker_epoch: i64) -> (FileName, Bytes) {
    (Stem::Named(CLEAN_SHUTDOWN).into(), Bytes::from(CleanShutdown { broker_epoch }.encode()))
}

/// What the node knows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryPlan {
    /// The cluster's id.
    pub cluster_id: String,
    /// This node's id.
    pub node_id: i32,
    /// The id that the directory gets if it has none.
    pub directory_id: Uuid,
    /// The kernel's boot id (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// An empty directory becomes ours; otherwise it is refused.
    pub format: bool,
}

/// What the directory says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryState {
    /// The directory's own id.
    pub directory_id: Uuid,
    /// It was closed in order.
    pub clean_shutdown: bool,
    /// The kernel has not restarted since.
    pub same_boot: bool,
    /// The last epoch of the broker that it belongs to, if nothing can be lost since; else -1.
    pub kept_epoch: i64,
    /// The directories in it that are logs or were, by name in order.
    pub entries: Vec<(String, LogDirEntry)>,
    /// Where the recovery of each log begins; a log that is not in it begins at 0.
    pub recovery_points: Offsets,
    /// Where each log starts.
    pub log_starts: Offsets,
    /// The high watermarks.
    pub high_watermarks: Offsets,
    /// Offset checkpoints that could not be read; their offsets count as 0.
    pub unreadable: Vec<CheckpointError>,
}

/// Why a directory cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// An operation failed.
    #[error("{op:?} failed: {error:?}")]
    File {
        /// What was tried.
        op: FileOp,
        /// How it failed.
        error: FileError,
    },
    /// There is no `meta.properties`, and the directory is not to be formatted.
    #[error("the log directory has no meta.properties")]
    NotFormatted,
    /// There is no `meta.properties`, but something else.
    #[error("the log directory has no meta.properties, but {found}, which nobody may lose")]
    Foreign {
        /// The first thing that is there.
        found: String,
    },
    /// Apache Kafka keeps its cluster's metadata here, which are not read yet.
    #[error(
        "the log directory is Apache Kafka's: {KAFKA_METADATA} holds the metadata of a KRaft cluster, \
         which this node cannot read"
    )]
    OfKafka,
    /// `meta.properties` cannot be read.
    #[error("{0}")]
    Malformed(CheckpointError),
    /// It belongs to another cluster.
    #[error("the log directory belongs to cluster {found}, this node to cluster {expected}")]
    OtherCluster {
        /// In the file.
        found: String,
        /// The node's.
        expected: String,
    },
    /// It belongs to another node.
    #[error("the log directory belongs to node {found}, this is node {expected}")]
    OtherNode {
        /// In the file.
        found: i32,
        /// The node's.
        expected: i32,
    },
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryStep {
    /// Carry this out in the log directory and give its result to the next step.
    Op(FileOp),
    /// The directory is ours and its logs can be opened.
    Done(Box<DirectoryState>),
    /// It must not be used.
    Failed(DirectoryError),
}

#[derive(Debug)]
enum State {
    List,
    Read,
    Write,
    Finished,
}

/// Opens one log directory.
#[derive(Debug)]
pub struct DirectoryStart {
    plan: DirectoryPlan,
    state: State,
    in_flight: Option<FileOp>,
    /// Files still to be read, with their lengths.
    to_read: VecDeque<(&'static str, u64)>,
    reading: Vec<u8>,
    contents: Vec<(&'static str, Vec<u8>)>,
    /// The first name that is neither ours nor a mount point's.
    foreign: Option<String>,
    is_kafkas: bool,
    entries: Vec<(String, LogDirEntry)>,
    changes: VecDeque<FileOp>,
    opened: Option<DirectoryState>,
}

impl DirectoryStart {
    /// Opens the log directory that owns the operations.
    pub fn new(plan: DirectoryPlan) -> Self {
        Self {
            plan,
            state: State::List,
            in_flight: None,
            to_read: VecDeque::new(),
            reading: Vec::new(),
            contents: Vec::new(),
            foreign: None,
            is_kafkas: false,
            entries: Vec::new(),
            changes: VecDeque::new(),
            opened: None,
        }
    }

    /// Takes the result of the last operation (`None` starts) and says what comes next.
    ///
    /// # Panics
    /// If a result comes without an operation in flight, or the other way round.
    pub fn step(&mut self, last: Option<FileResult>) -> DirectoryStep {
        let done = match (self.in_flight.take(), last) {
            (None, None) => None,
            (Some(_), Some(Ok(done))) => Some(done),
            (Some(op), Some(Err(error))) => {
                self.state = State::Finished;
                return DirectoryStep::Failed(DirectoryError::File { op, error });
            }
            (in_flight, last) => panic!("the result {last:?} answers {in_flight:?}"),
        };
        let step = match self.advance(done) {
            Ok(step) => step,
            Err(error) => DirectoryStep::Failed(error),
        };
        match &step {
            DirectoryStep::Op(op) => self.in_flight = Some(op.clone()),
            DirectoryStep::Done(_) | DirectoryStep::Failed(_) => self.state = State::Finished,
        }
        step
    }

    fn advance(&mut self, done: Option<FileDone>) -> Result<DirectoryStep, DirectoryError> {
        match self.state {
            State::List => match done {
                None => Ok(DirectoryStep::Op(FileOp::List)),
                Some(FileDone::Listing(names)) => {
                    self.take_listing(&names);
                    self.state = State::Read;
                    self.read(Bytes::new())
                }
                Some(other) => panic!("a listing gave {other:?}"),
            },
            State::Read => match done {
                Some(FileDone::Bytes(bytes)) => self.read(bytes),
                other => panic!("a read gave {other:?}"),
            },
            State::Write => Ok(self.write()),
            State::Finished => panic!("the directory was opened"),
        }
    }

    fn take_listing(&mut self, names: &[(String, u64)]) {
        let known = |name: &str| NAMES.iter().copied().find(|known| *known == name);
        for (name, length) in names {
            if let Some(known) = known(name) {
                self.to_read.push_back((known, (*length).min(FILE_LIMIT_BYTES)));
            } else if let Some(known) = name.strip_suffix(".tmp").and_then(known) {
                // A replacement that did not finish; also the trace of a formatting that did not.
                let file = FileName::from(Stem::Named(known)).with(Suffix::Tmp);
                self.changes.push_back(FileOp::Delete { file });
            } else if !matches!(name.as_str(), ".lock" | "lost+found") {
                // The lock and the mount point's own directory may be in an unformatted one.
                self.foreign.get_or_insert_with(|| name.clone());
                self.is_kafkas |= name == KAFKA_METADATA;
                match parse_directory_name(name) {
                    LogDirEntry::Other => {}
                    entry => self.entries.push((name.clone(), entry)),
                }
            }
        }
    }

    fn read(&mut self, bytes: Bytes) -> Result<DirectoryStep, DirectoryError> {
        let mut ended = bytes.is_empty();
        self.reading.extend_from_slice(&bytes);
        while let Some((name, length)) = self.to_read.front().copied() {
            let position = self.reading.len() as u64;
            if position < length && !(ended && position > 0) {
                let length = (length - position).min(READ_BYTES);
                return Ok(DirectoryStep::Op(FileOp::Read {
                    file: Stem::Named(name).into(),
                    position,
                    length,
                }));
            }
            self.contents.push((name, std::mem::take(&mut self.reading)));
            self.to_read.pop_front();
            ended = false;
        }
        self.judge()?;
        self.state = State::Write;
        Ok(self.write())
    }

    fn content(&self, name: &str) -> Option<&[u8]> {
        self.contents.iter().find(|(known, _)| *known == name).map(|(_, bytes)| bytes.as_slice())
    }

    /// Whether the directory is ours, and what has to be written before its logs are opened.
    fn judge(&mut self) -> Result<(), DirectoryError> {
        if self.is_kafkas {
            return Err(DirectoryError::OfKafka);
        }
        let found = self.content(META_PROPERTIES).map(MetaProperties::parse);
        let found = found.transpose().map_err(DirectoryError::Malformed)?;
        if found.is_none() {
            let ours = self.contents.first().map(|(name, _)| (*name).to_owned());
            if let Some(found) = self.foreign.clone().or(ours) {
                return Err(DirectoryError::Foreign { found });
            }
            if !self.plan.format {
                return Err(DirectoryError::NotFormatted);
            }
        }
        let cluster_id = found.as_ref().and_then(|found| found.cluster_id.clone());
        if let Some(found) = cluster_id.filter(|found| *found != self.plan.cluster_id) {
            return Err(DirectoryError::OtherCluster { found, expected: self.plan.cluster_id.clone() });
        }
        let node_id = found.as_ref().and_then(|found| found.node_id);
        if let Some(found) = node_id.filter(|found| *found != self.plan.node_id) {
            return Err(DirectoryError::OtherNode { found, expected: self.plan.node_id });
        }
        let directory_id =
            found.as_ref().and_then(|found| found.directory_id).unwrap_or(self.plan.directory_id);
        let properties = MetaProperties {
            version: 1,
            cluster_id: Some(self.plan.cluster_id.clone()),
            node_id: Some(self.plan.node_id),
            directory_id: Some(directory_id),
        };
        if found.as_ref() != Some(&properties) {
            self.replace(META_PROPERTIES, Bytes::from(properties.encode()));
        }
        if self.content(CLEAN_SHUTDOWN).is_some() {
            self.changes.push_back(FileOp::Delete { file: Stem::Named(CLEAN_SHUTDOWN).into() });
        }
        // Also where nothing is to be changed: a start that died may have changed it and not come here.
        self.changes.push_back(FileOp::SyncDir);
        let boot =
            self.content(BOOT_ID).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default();
        let mut boot = boot.lines().map(str::trim);
        let same_boot = boot.next().is_some_and(|id| !id.is_empty() && id == self.plan.boot_id.trim());
        let of_boot = boot.next().and_then(|epoch| epoch.parse().ok()).filter(|_| same_boot);
        let marker = self.content(CLEAN_SHUTDOWN).map(|bytes| CleanShutdown::parse(bytes).broker_epoch);
        let clean_shutdown = marker.is_some();
        let kept_epoch = marker.or(of_boot).unwrap_or(-1);
        let mut unreadable = Vec::new();
        let mut offsets = |name: &'static str| {
            let parsed = self.content(name).map_or(Ok(Offsets::new()), |bytes| parse_offsets(name, bytes));
            parsed.unwrap_or_else(|error| {
                unreadable.push(error);
                Offsets::new()
            })
        };
        let (recovery_points, log_starts) = (offsets(RECOVERY_POINTS), offsets(LOG_STARTS));
        let high_watermarks = offsets(HIGH_WATERMARKS);
        self.opened = Some(DirectoryState {
            directory_id,
            clean_shutdown,
            same_boot,
            kept_epoch,
            entries: std::mem::take(&mut self.entries),
            recovery_points,
            log_starts,
            high_watermarks,
            unreadable,
        });
        Ok(())
    }

    /// What the directory says, once everything is read and judged and before anything is changed.
    pub fn judged(&self) -> Option<&DirectoryState> {
        self.opened.as_ref()
    }

    fn replace(&mut self, name: &'static str, bytes: Bytes) {
        let file = FileName::from(Stem::Named(name));
        let aside = file.with(Suffix::Tmp);
        self.changes.extend([
            FileOp::Create { file: aside, preallocate_bytes: 0 },
            FileOp::Write { file: aside, position: 0, bytes },
            FileOp::Sync { file: aside },
            FileOp::Rename { from: aside, to: file },
        ]);
    }

    fn write(&mut self) -> DirectoryStep {
        match self.changes.pop_front() {
            Some(op) => DirectoryStep::Op(op),
            None => DirectoryStep::Done(Box::new(self.opened.take().expect("the directory was judged"))),
        }
    }
}

#[cfg(test)]
mod tests;
