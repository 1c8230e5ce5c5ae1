//! Jobs: the mutating file operations of one log, grouped by what they are for.
//!
//! A job's operations run strictly one after another, and the jobs in the order in which they
//! were planned ([`OpQueue`]). The first failure ends its job: what the job still had to do is
//! forgotten, so that, say, a checkpoint that could not be written never replaces the old one.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::effect::{FileError, FileName, FileOp, FileResult, OpQueue, Suffix, Ticket};

/// What a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The directory and the first segment of a new log.
    Create,
    /// `leader-epoch-checkpoint`.
    Epochs,
    /// Closing the active segment and creating the next one.
    Roll,
    /// The gathered batches.
    Append,
    /// Back to the written end after a failed append.
    CutBack,
    /// Blocks reserved ahead that a segment has not used.
    GiveBack,
    /// Entries of the active segment's indexes.
    IndexFlush {
        /// Entries written to the offset index.
        offset_entries: usize,
        /// Entries written to the time index.
        time_entries: usize,
    },
    /// Renaming a deleted segment's files, or unlinking them.
    Delete,
    /// The mark of a truncation, or an operation of the machine that carries it out.
    Truncate,
    /// The checkpoint's log start is lowered: the mark has not to say it any more.
    Lowered,
    /// The producer snapshots, before the clean stop, that a power cut may have taken before.
    LastSnapshots,
    /// The clean stop.
    Close,
    /// Renaming the directory of a deleted topic.
    Retire,
    /// Deleting it.
    Remove,
}

impl Purpose {
    /// Whether a job waits for space on a full device, and everything planned behind it, too. The
    /// others fail, and what they were for says what then.
    fn waits_for_space(self) -> bool {
        matches!(self, Self::CutBack | Self::Delete | Self::Retire | Self::Remove)
    }
}

/// A job and the operations that it still has.
#[derive(Debug)]
struct Job {
    purpose: Purpose,
    first: Option<FileOp>,
    rest: VecDeque<FileOp>,
    missing_is_fine: bool,
}

/// What a completion meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Not an operation of a job.
    NotOurs,
    /// The job goes on.
    Step,
    /// The job is done.
    Done(Purpose),
    /// The job failed; what it still had to do is forgotten.
    Failed(Purpose, FileError),
    /// The device is full: the operation is the next one again.
    Full,
}

/// The jobs of one log, oldest first.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    ops: OpQueue<()>,
    jobs: VecDeque<Job>,
    /// The operation in flight, of a job that waits for space.
    again: Option<FileOp>,
}

impl Jobs {
    /// Plans a job of one operation; allocates nothing.
    pub(super) fn plan_one(&mut self, purpose: Purpose, op: FileOp) {
        self.jobs.push_back(Job { purpose, first: Some(op), rest: VecDeque::new(), missing_is_fine: false });
    }

    /// Plans a job; one without operations is an error of the caller.
    pub(super) fn plan(&mut self, purpose: Purpose, ops: Vec<FileOp>) {
        assert!(!ops.is_empty(), "a job has at least one operation");
        self.jobs.push_back(Job { purpose, first: None, rest: ops.into(), missing_is_fine: false });
    }

    /// Plans a job to which a missing file is no error.
    pub(super) fn plan_tolerant(&mut self, purpose: Purpose, ops: Vec<FileOp>) {
        assert!(!ops.is_empty(), "a job has at least one operation");
        self.jobs.push_back(Job { purpose, first: None, rest: ops.into(), missing_is_fine: true });
    }

    /// A ticket for an operation outside the queue.
    pub(super) fn ticket(&mut self) -> Ticket {
        self.ops.ticket()
    }

    /// The next operation, if none is in flight.
    pub(super) fn next(&mut self) -> Option<(Ticket, FileOp)> {
        if !self.ops.is_idle() {
            return None;
        }
        let job = self.jobs.front_mut()?;
        let op = job.first.take().or_else(|| job.rest.pop_front()).expect("a finished job leaves the queue");
        self.again = job.purpose.waits_for_space().then(|| op.clone());
        self.ops.plan(op, ());
        self.ops.take_next()
    }

    /// Takes a completion.
    pub(super) fn completed(&mut self, ticket: Ticket, result: &FileResult) -> Progress {
        if self.ops.complete(ticket).is_none() {
            return Progress::NotOurs;
        }
        let job = self.jobs.front_mut().expect("an operation in flight belongs to the first job");
        let purpose = job.purpose;
        let again = self.again.take();
        if *result == Err(FileError::NoSpace) && again.is_some() {
            job.first = again;
            return Progress::Full;
        }
        let failed = match result {
            Ok(_) => None,
            Err(FileError::NotFound) if job.missing_is_fine => None,
            Err(error) => Some(*error),
        };
        match failed {
            Some(error) => {
                self.jobs.pop_front();
                Progress::Failed(purpose, error)
            }
            None if job.rest.is_empty() => {
                self.jobs.pop_front();
                Progress::Done(purpose)
            }
            None => Progress::Step,
        }
    }

    /// Forgets every job, after a failure that leaves nothing for them to work on.
    pub(super) fn abandon(&mut self) {
        assert!(self.ops.is_idle(), "the operation that failed was the one in flight");
        self.jobs.clear();
    }

    /// Whether nothing is planned or in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Whether the next operation, or the one in flight, makes the files of a new log.
    pub(super) fn creates_now(&self) -> bool {
        self.jobs.front().is_some_and(|job| job.purpose == Purpose::Create)
    }

    /// Whether the files of a new log are still to be made.
    pub(super) fn creates(&self) -> bool {
        self.jobs.iter().any(|job| job.purpose == Purpose::Create)
    }
}

/// The operations that replace a small file so that a crash leaves the old or the new bytes.
pub(super) fn replace(file: FileName, bytes: Bytes) -> [FileOp; 5] {
    let aside = file.with(Suffix::Tmp);
    [
        FileOp::Create { file: aside, preallocate_bytes: 0 },
        FileOp::Write { file: aside, position: 0, bytes },
        FileOp::Sync { file: aside },
        FileOp::Rename { from: aside, to: file },
        FileOp::SyncDir,
    ]
}
