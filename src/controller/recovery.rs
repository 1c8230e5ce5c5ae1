//! Reading the raft log back: one operation at a time, each step given the result of the last.
//!
//! The newest whole snapshot, then every entry after it. A frame that does not check out is the torn end of the log if
//! nothing whole follows it: it is cut off. If a whole frame follows, something that was durable is damaged, and the
//! controller refuses to start rather than forget acknowledged metadata.
//!
//! What a process wrote that died before its sync is whole as long as the power lasts. The node will promise what it
//! reads, and write on in other files: so the newest file is synced before anything in it counts.
//!
//! A snapshot may be a leader's, with which the log before it has nothing in common. It has then another entry at the
//! snapshot's index, or none, and what follows is void; a crash may have come before the mark that says so.

use super::raft::{Entry, HardState, Stored};
use super::record::Record;
use super::storage::{
    FRAME_HEAD_BYTES, METADATA_DIRECTORY, SNAPSHOT_BYTES_MAX, Snapshot, WritePosition, decode_frame,
    log_file, snapshot_file,
};
use crate::effect::{FileDone, FileError, FileName, FileOp, FileResult, Suffix};

/// Bytes of one read.
const READ_BYTES: u64 = 4 << 20;

/// What a recovery found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// For the raft node.
    pub stored: Stored,
    /// The records of the snapshot; empty without one.
    pub records: Vec<Record>,
    /// For the writing half.
    pub at: WritePosition,
    /// The raft id of this disk, where it replaced a lost one and took another than the configured id.
    pub raft_id: Option<u64>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Carry this out and come back with the result.
    Op(FileOp),
    /// Everything is read.
    Done(Box<Recovered>),
    /// The log cannot be used; why, in words for the operator.
    Failed(String),
}

#[derive(Debug)]
enum Phase {
    Start,
    MakeDir,
    SyncParent,
    List,
    /// Deleting files left aside by a crash.
    Clear(Vec<FileName>),
    /// Reading a snapshot; older ones wait in `snapshots`.
    ReadSnapshot(Reading),
    /// Reading the log file at this place in `log_files`.
    ReadLog(usize, Reading),
    Truncate,
    SyncLog,
    Create,
    SyncDir,
    Over,
}

/// A file being read whole.
#[derive(Debug)]
struct Reading {
    file: FileName,
    length: u64,
    bytes: Vec<u8>,
}

impl Reading {
    fn new(file: FileName, length: u64) -> Self {
        Self { file, length, bytes: Vec::new() }
    }

    fn next(&self) -> Option<FileOp> {
        let position = self.bytes.len() as u64;
        let length = (self.length.saturating_sub(position)).min(READ_BYTES);
        (length > 0).then_some(FileOp::Read { file: self.file, position, length })
    }
}

/// The recovery machine.
#[derive(Debug)]
pub struct Recovery {
    phase: Phase,
    /// Index and length of the snapshots, oldest first.
    snapshots: Vec<(u64, u64)>,
    /// First index and length of the log files, oldest first.
    log_files: Vec<(u64, u64)>,
    snapshot: Option<Snapshot>,
    hard_state: Option<HardState>,
    entries: Vec<Entry>,
    /// Term of the entry at the snapshot's index, where the log has it.
    term_covered: Option<u64>,
    /// Bytes of the last log file that are whole.
    position: u64,
    raft_id: Option<u64>,
}

impl Default for Recovery {
    fn default() -> Self {
        Self::new()
    }
}

impl Recovery {
    /// Begins.
    pub fn new() -> Self {
        Self {
            phase: Phase::Start,
            snapshots: Vec::new(),
            log_files: Vec::new(),
            snapshot: None,
            hard_state: None,
            entries: Vec::new(),
            term_covered: None,
            position: 0,
            raft_id: None,
        }
    }

    /// The first call gets `None`, each later one the result of the operation it asked for.
    pub fn step(&mut self, result: Option<FileResult>) -> Step {
        match self.advance(result) {
            Ok(step) => step,
            Err(why) => {
                self.phase = Phase::Over;
                Step::Failed(format!("{METADATA_DIRECTORY}: {why}"))
            }
        }
    }

    fn advance(&mut self, result: Option<FileResult>) -> Result<Step, String> {
        let done = match result {
            None => FileDone::Ok,
            Some(Ok(done)) => done,
            Some(Err(error)) => return Err(format!("cannot be read: {}", in_words(error))),
        };
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Start => Ok(self.go(Phase::MakeDir, FileOp::MakeDir)),
            Phase::MakeDir => Ok(self.go(Phase::SyncParent, FileOp::SyncParent)),
            Phase::SyncParent => Ok(self.go(Phase::List, FileOp::List)),
            Phase::List => {
                let FileDone::Listing(names) = done else { return Err(foreign()) };
                let aside = self.sort_listing(&names);
                self.clear(aside)
            }
            Phase::Clear(rest) => self.clear(rest),
            Phase::ReadSnapshot(reading) => {
                let reading = take_bytes(reading, done)?;
                if let Some(op) = reading.next() {
                    return Ok(self.go(Phase::ReadSnapshot(reading), op));
                }
                // A snapshot that is not whole leaves the one before it to try; the gap check covers the rest.
                self.snapshot = Snapshot::decode(&reading.bytes).ok();
                self.next_snapshot()
            }
            Phase::ReadLog(at, reading) => {
                let reading = take_bytes(reading, done)?;
                match reading.next() {
                    Some(op) => Ok(self.go(Phase::ReadLog(at, reading), op)),
                    None => self.finish_log(at, &reading),
                }
            }
            Phase::Truncate => Ok(self.sync_log()),
            Phase::SyncLog | Phase::Create => Ok(self.go(Phase::SyncDir, FileOp::SyncDir)),
            Phase::SyncDir => self.finish(),
            Phase::Over => Err("a recovery that is over was asked to go on".into()),
        }
    }

    fn go(&mut self, phase: Phase, op: FileOp) -> Step {
        self.phase = phase;
        Step::Op(op)
    }

    /// Sorts the listing into snapshots and log files; gives what a crash left aside.
    fn sort_listing(&mut self, names: &[(String, u64)]) -> Vec<FileName> {
        let mut aside = Vec::new();
        for (name, length) in names {
            if let Some(name) = name.strip_suffix(".tmp") {
                aside.extend(
                    number(name, "raft-snapshot-").map(|index| snapshot_file(index).with(Suffix::Tmp)),
                );
            } else if let Some(index) = number(name, "raft-snapshot-") {
                self.snapshots.push((index, *length));
            } else if let Some(first) = number(name, "raft-log-") {
                self.log_files.push((first, *length));
            } else if let Some(raft_id) = number(name, "raft-id-") {
                self.raft_id = Some(raft_id);
            }
        }
        self.snapshots.sort_unstable();
        self.log_files.sort_unstable();
        aside
    }

    fn clear(&mut self, mut aside: Vec<FileName>) -> Result<Step, String> {
        match aside.pop() {
            Some(file) => Ok(self.go(Phase::Clear(aside), FileOp::Delete { file })),
            None => self.next_snapshot(),
        }
    }

    fn next_snapshot(&mut self) -> Result<Step, String> {
        // `snapshots` keeps what is not read yet; the ones that are not whole are forgotten, the next one
        // replaces them.
        while self.snapshot.is_none()
            && let Some((index, length)) = self.snapshots.pop()
        {
            if length > SNAPSHOT_BYTES_MAX as u64 {
                continue;
            }
            let reading = Reading::new(snapshot_file(index), length);
            if let Some(op) = reading.next() {
                return Ok(self.go(Phase::ReadSnapshot(reading), op));
            }
        }
        self.next_log(0)
    }

    fn next_log(&mut self, at: usize) -> Result<Step, String> {
        let Some((first, length)) = self.log_files.get(at).copied() else { return self.finish_all() };
        let reading = Reading::new(log_file(first), length);
        match reading.next() {
            Some(op) => Ok(self.go(Phase::ReadLog(at, reading), op)),
            None => self.finish_log(at, &reading),
        }
    }

    /// Takes the frames of one log file.
    fn finish_log(&mut self, at: usize, reading: &Reading) -> Result<Step, String> {
        let mut rest = reading.bytes.as_slice();
        let mut position = 0;
        while let Some((hard_state, entries, length)) = decode_frame(rest) {
            self.hard_state = Some(hard_state);
            for entry in entries {
                self.take_entry(entry)?;
            }
            position += length as u64;
            rest = rest.get(length..).unwrap_or_default();
        }
        if rest.is_empty() {
            self.position = position;
            return self.next_log(at + 1);
        }
        let file = reading.file;
        if at + 1 < self.log_files.len() {
            return Err(format!(
                "{file} is damaged at byte {position}, and a later file follows it; {RESTORE}"
            ));
        }
        if let Some(skipped) = whole_frame_after(rest) {
            let next = position + skipped as u64;
            return Err(format!(
                "{file} is damaged at byte {position}, and a whole entry follows it at byte {next}; {RESTORE}"
            ));
        }
        self.position = position;
        Ok(self.go(Phase::Truncate, FileOp::Truncate { file, length: position }))
    }

    fn take_entry(&mut self, entry: Entry) -> Result<(), String> {
        let covered = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.index);
        let Some(place) = entry.index.checked_sub(covered + 1) else {
            // A new leader, or a leader's snapshot, replaced everything from there on.
            self.entries.clear();
            self.term_covered = Some(entry.term).filter(|_| entry.index == covered);
            return Ok(());
        };
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        if place > self.entries.len() {
            let last = covered + self.entries.len() as u64;
            return Err(format!(
                "entries {} to {} are missing from the log; {RESTORE}",
                last + 1,
                entry.index - 1
            ));
        }
        self.entries.truncate(place);
        if self.entries.last().is_some_and(|last| last.term > entry.term) {
            return Err(format!("entry {} has a lower term than the one before it; {RESTORE}", entry.index));
        }
        self.entries.push(entry);
        Ok(())
    }

    /// All files are read: a log file to write to must be there.
    fn finish_all(&mut self) -> Result<Step, String> {
        if !self.log_files.is_empty() {
            // A process that died may have written to it, and created it, without making that last.
            return Ok(self.sync_log());
        }
        let first = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.index) + 1;
        self.log_files.push((first, 0));
        Ok(self.go(Phase::Create, FileOp::Create { file: log_file(first), preallocate_bytes: 0 }))
    }

    fn sync_log(&mut self) -> Step {
        let file = log_file(self.log_files.last().map_or(0, |(first, _)| *first));
        self.go(Phase::SyncLog, FileOp::Sync { file })
    }

    fn finish(&mut self) -> Result<Step, String> {
        let snapshot = self.snapshot.take();
        let (snapshot_index, snapshot_term) = snapshot.as_ref().map_or((0, 0), |s| (s.index, s.term));
        let is_foreign = self.term_covered.is_some_and(|term| term != snapshot_term);
        if is_foreign {
            self.entries.clear();
        }
        let index_last = snapshot_index + self.entries.len() as u64;
        let of_snapshot = snapshot.as_ref().map(|s| s.hard_state).unwrap_or_default();
        let of_log = self.hard_state.unwrap_or_default();
        let mut hard_state = if of_log.term >= of_snapshot.term { of_log } else { of_snapshot };
        hard_state.commit = of_log.commit.max(of_snapshot.commit).max(snapshot_index);
        if hard_state.commit > index_last {
            let commit = hard_state.commit;
            return Err(format!(
                "the log ends at entry {index_last}, but {commit} were committed; {RESTORE}"
            ));
        }
        let records = match &snapshot {
            Some(snapshot) => Record::decode_all(&snapshot.records).map_err(|e| e.to_string())?,
            None => Vec::new(),
        };
        let snapshot_bytes = snapshot.as_ref().map_or(0, |snapshot| snapshot.records.len() as u64);
        let entries = std::mem::take(&mut self.entries);
        let mut snapshots: Vec<u64> = self.snapshots.iter().map(|(index, _)| *index).collect();
        snapshots.extend(snapshot.map(|snapshot| snapshot.index));
        let at = WritePosition {
            log_files: self.log_files.iter().map(|(first, _)| *first).collect(),
            snapshots,
            position: self.position,
            index_last,
            hard_state,
            entries_since_snapshot: entries.len() as u64,
            snapshot_bytes,
            mark: is_foreign.then_some((snapshot_index, snapshot_term)),
        };
        let stored = Stored { snapshot_index, snapshot_term, hard_state, entries };
        Ok(Step::Done(Box::new(Recovered { stored, records, at, raft_id: self.raft_id })))
    }
}

/// What an operator can do about damage.
const RESTORE: &str = "restore the directory from a copy, or remove it to begin without metadata";

fn take_bytes(mut reading: Reading, done: FileDone) -> Result<Reading, String> {
    let FileDone::Bytes(bytes) = done else { return Err(foreign()) };
    if bytes.is_empty() {
        return Err(format!("{} is shorter than its directory says", reading.file));
    }
    reading.bytes.extend_from_slice(&bytes);
    Ok(reading)
}

/// Where in `rest`, after its first byte, a whole frame begins.
fn whole_frame_after(rest: &[u8]) -> Option<usize> {
    (1..rest.len().saturating_sub(FRAME_HEAD_BYTES))
        .find(|skipped| rest.get(*skipped..).is_some_and(|tail| decode_frame(tail).is_some()))
}

fn number(name: &str, prefix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

fn foreign() -> String {
    "an operation gave a result of another kind".into()
}

fn in_words(error: FileError) -> String {
    match error {
        FileError::NoSpace => "the device is full".into(),
        FileError::NotFound => "a file is gone".into(),
        FileError::Short { written } => format!("a write ended after {written} bytes"),
        FileError::Io(errno) => format!("errno {errno}"),
    }
}
