//! The raft log on disk, as effects in `__tidemill_metadata/`.
//!
//! ```text
//! raft-log-%020d       frames: length u32 | CRC-32C u32 | body; the number is the first index that may be in it
//! body                 term u64 | vote u64 | commit u64 | count u32 | count × entry
//! entry                index u64 | term u64 | length u32 | data
//! raft-snapshot-%020d  the Image as of that index; written aside, synced, renamed, directory synced
//! raft-id-%020d        empty: the raft id of this disk, where that is not the one that was configured
//! ```
//!
//! One frame is one write, and the next write begins only after the sync of the last: so only the last frame of the
//! last file can be torn. Nothing is reported persisted before its sync. Files that a durable snapshot covers are
//! deleted after it. [`recovery`](super::recovery) reads it all back.
//!
//! A leader's snapshot takes the place of the whole log: it is written like a node's own, while everything that comes
//! after it waits, and the next frame begins with a *mark*: an entry with the snapshot's index and term, and with data
//! that no record has. As with every entry, what was written before it from its index on is void.

use std::collections::VecDeque;

use bytes::Bytes;

use super::codec::{Malformed, Reader};
use super::raft::{Entry, HardState};
use crate::effect::{FileDone, FileError, FileName, FileOp, FileResult, OpQueue, Stem, Suffix, Ticket};

/// Name of the directory that owns these files, inside a log directory.
pub const METADATA_DIRECTORY: &str = "__tidemill_metadata";
/// Largest body of a frame: what may wait for its commit, and some.
pub(super) const FRAME_BODY_BYTES_MAX: usize = 64 << 20;
/// Bytes before a frame's body.
pub(super) const FRAME_HEAD_BYTES: usize = 8;
/// Largest snapshot that is written or read.
pub(super) const SNAPSHOT_BYTES_MAX: usize = 256 << 20;
/// A snapshot is written in pieces of this size, so that appends do not wait behind all of it.
const SNAPSHOT_PIECE_BYTES: usize = 1 << 20;
/// `TMSN`, then the format's version.
const SNAPSHOT_MAGIC: u32 = 0x544d_534e;
const SNAPSHOT_FORMAT: u16 = 1;
/// Data of a mark: never read as long as its snapshot is there, and no record if it is not.
const MARK: [u8; 2] = [0xff; 2];

/// The log file whose first index is `first`.
pub(super) fn log_file(first: u64) -> FileName {
    Stem::Numbered("raft-log", first).into()
}

/// The snapshot as of `index`.
pub(super) fn snapshot_file(index: u64) -> FileName {
    Stem::Numbered("raft-snapshot", index).into()
}

/// The file whose name is the raft id of a disk that has replaced a lost one.
pub(super) fn raft_id_file(raft_id: u64) -> FileName {
    Stem::Numbered("raft-id", raft_id).into()
}

/// A snapshot: all metadata as of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Last index it covers.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The hard state when it was taken.
    pub hard_state: HardState,
    /// Encoded metadata records.
    pub records: Bytes,
}

impl Snapshot {
    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.records.len() + 64);
        out.extend_from_slice(&SNAPSHOT_MAGIC.to_be_bytes());
        out.extend_from_slice(&SNAPSHOT_FORMAT.to_be_bytes());
        for number in
            [self.index, self.term, self.hard_state.term, self.hard_state.vote, self.hard_state.commit]
        {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&(self.records.len() as u32).to_be_bytes());
        out.extend_from_slice(&self.records);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_be_bytes());
        out
    }

    /// Reads a file's bytes; what is not a whole snapshot of this format is an error in words.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or("ends before its checksum")?;
        if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
            return Err("fails its CRC".into());
        }
        Self::decode_body(body).map_err(|Malformed(why)| why.to_string())
    }

    fn decode_body(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        if reader.u32()? != SNAPSHOT_MAGIC || reader.u16()? != SNAPSHOT_FORMAT {
            return Err(Malformed("is not in the format of this build"));
        }
        let (index, term) = (reader.u64()?, reader.u64()?);
        let hard_state = HardState { term: reader.u64()?, vote: reader.u64()?, commit: reader.u64()? };
        let length = reader.u32()? as usize;
        let records = Bytes::copy_from_slice(reader.take(length)?);
        if reader.is_empty() {
            Ok(Self { index, term, hard_state, records })
        } else {
            Err(Malformed("goes on after its last record"))
        }
    }
}

/// Encodes one frame.
pub(super) fn encode_frame(hard_state: HardState, entries: &[Entry]) -> Vec<u8> {
    let mut out = vec![0; FRAME_HEAD_BYTES];
    for number in [hard_state.term, hard_state.vote, hard_state.commit] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(&(entries.len() as u32).to_be_bytes());
    for entry in entries {
        out.extend_from_slice(&entry.index.to_be_bytes());
        out.extend_from_slice(&entry.term.to_be_bytes());
        out.extend_from_slice(&(entry.data.len() as u32).to_be_bytes());
        out.extend_from_slice(&entry.data);
    }
    let body_length = out.len() - FRAME_HEAD_BYTES;
    assert!(body_length <= FRAME_BODY_BYTES_MAX, "a frame of the raft log exceeds its limit");
    let crc = crc32c::crc32c(out.get(FRAME_HEAD_BYTES..).unwrap_or_default());
    let head = [(body_length as u32).to_be_bytes(), crc.to_be_bytes()].concat();
    if let Some(place) = out.get_mut(..FRAME_HEAD_BYTES) {
        place.copy_from_slice(&head);
    }
    out
}

/// The frame at the front of `bytes` and its length; `None` if there is no whole one.
pub(super) fn decode_frame(bytes: &[u8]) -> Option<(HardState, Vec<Entry>, usize)> {
    let mut reader = Reader::new(bytes);
    let body_length = reader.u32().ok()? as usize;
    let crc = reader.u32().ok()?;
    if body_length > FRAME_BODY_BYTES_MAX {
        return None;
    }
    let body = reader.take(body_length).ok()?;
    // A length of 0 would make any run of zeros a frame.
    if body.is_empty() || crc32c::crc32c(body) != crc {
        return None;
    }
    let (hard_state, entries) = decode_frame_body(body).ok()?;
    Some((hard_state, entries, FRAME_HEAD_BYTES + body_length))
}

fn decode_frame_body(body: &[u8]) -> Result<(HardState, Vec<Entry>), Malformed> {
    let mut reader = Reader::new(body);
    let hard_state = HardState { term: reader.u64()?, vote: reader.u64()?, commit: reader.u64()? };
    let count = reader.u32()?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let (index, term, length) = (reader.u64()?, reader.u64()?, reader.u32()? as usize);
        entries.push(Entry { index, term, data: Bytes::copy_from_slice(reader.take(length)?) });
    }
    if reader.is_empty() { Ok((hard_state, entries)) } else { Err(Malformed("goes on after its last entry")) }
}

/// What a planned operation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// One of several; nothing follows from it alone.
    Step,
    /// The sync of a frame.
    Persisted,
    /// A new log file is there: appends go to it.
    Rolled(u64),
    /// The snapshot as of this index is durable.
    Snapshot(u64),
    /// The disk has this raft id for good.
    Renewed(u64),
    /// A leader's snapshot is durable: the log is void up to it and beyond.
    Installed { number: u64, index: u64, term: u64 },
}

/// What a completion means to the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageEvent {
    /// Nothing yet.
    None,
    /// Work up to this number is durable.
    Persisted(u64),
    /// A snapshot up to this index is durable.
    SnapshotTaken(u64),
    /// The disk has this raft id for good.
    Renewed(u64),
    /// The device is full: nothing goes on before [`LogStorage::try_again`].
    Full,
    /// The log cannot go on; why, in words for the operator.
    Failed(String),
}

/// The writing half.
#[derive(Debug)]
pub struct LogStorage {
    ops: OpQueue<Purpose>,
    /// What is in flight, where a full device may refuse it: all it takes then is to do it again.
    again: Option<FileOp>,
    is_full: bool,
    /// Steps of a snapshot; one at a time, and only when no append waits.
    snapshot_ops: VecDeque<(FileOp, Purpose)>,
    /// First indexes of the log files, oldest first; the last one is written to.
    log_files: Vec<u64>,
    snapshots: Vec<u64>,
    position: u64,
    /// Last index that a frame carries.
    index_last: u64,
    hard_state: HardState,
    waiting: Vec<Entry>,
    waiting_number: Option<u64>,
    /// The frame whose write or sync is under way carries, or makes good, work up to this number.
    frame_number: Option<u64>,
    /// A leader's snapshot is being written, with this state; what was given since waits.
    installing: Option<HardState>,
    deferred: Vec<Deferred>,
    entries_since_snapshot: u64,
    bytes_since_snapshot: u64,
    snapshot_bytes: u64,
}

/// Work that waits until a leader's snapshot is in place.
#[derive(Debug)]
struct Deferred {
    number: u64,
    hard: Option<HardState>,
    entries: Vec<Entry>,
    must_sync: bool,
}

/// Where writing goes on after a recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WritePosition {
    /// First indexes of the log files, oldest first; there is at least one.
    pub log_files: Vec<u64>,
    /// Indexes of the snapshots, oldest first.
    pub snapshots: Vec<u64>,
    /// Length of the last log file in bytes.
    pub position: u64,
    /// Last index in the log or snapshot.
    pub index_last: u64,
    /// The persisted hard state.
    pub hard_state: HardState,
    /// Entries after the snapshot.
    pub entries_since_snapshot: u64,
    /// What the last snapshot took, in bytes.
    pub snapshot_bytes: u64,
    /// Index and term of a leader's snapshot whose mark is still to be written: entries before it are void.
    pub mark: Option<(u64, u64)>,
}

impl LogStorage {
    /// Goes on writing where a recovery ended.
    pub fn new(at: WritePosition) -> Self {
        assert!(!at.log_files.is_empty(), "recovery leaves a log file to write to");
        Self {
            ops: OpQueue::default(),
            again: None,
            is_full: false,
            snapshot_ops: VecDeque::new(),
            log_files: at.log_files,
            snapshots: at.snapshots,
            position: at.position,
            index_last: at.index_last,
            hard_state: at.hard_state,
            waiting: at.mark.map(mark_of).into_iter().collect(),
            waiting_number: None,
            frame_number: None,
            installing: None,
            deferred: Vec::new(),
            entries_since_snapshot: at.entries_since_snapshot,
            bytes_since_snapshot: at.position,
            snapshot_bytes: at.snapshot_bytes,
        }
    }

    /// Takes what raft wants durable. `must_sync` false means that it may wait for the next frame.
    /// Gives `false` if nothing has to be written for it and nothing before it is unwritten.
    pub fn append(
        &mut self,
        number: u64,
        hard: Option<HardState>,
        entries: Vec<Entry>,
        must_sync: bool,
    ) -> bool {
        if self.installing.is_some() {
            self.deferred.push(Deferred { number, hard, entries, must_sync });
            return true;
        }
        self.hard_state = hard.unwrap_or(self.hard_state);
        if let Some(first) = entries.first() {
            // A new leader replaces what the old one left; what still waits is replaced before it is written.
            self.waiting.retain(|entry| entry.index < first.index);
        }
        self.waiting.extend(entries);
        if must_sync || self.waiting_number.is_some() {
            self.waiting_number = Some(number);
            return true;
        }
        if let Some(frame) = &mut self.frame_number {
            *frame = number;
        }
        self.frame_number.is_some()
    }

    /// Plans to put a leader's snapshot in place of the whole log, after what was given before. What is given from
    /// now on waits for it. The work of `number` is persisted with it.
    pub fn install(
        &mut self,
        number: u64,
        hard: Option<HardState>,
        index: u64,
        term: u64,
        records: Bytes,
    ) -> Result<(), String> {
        assert!(self.installing.is_none(), "raft takes one snapshot at a time");
        let hard_state = hard.unwrap_or(self.hard_state);
        let snapshot = Snapshot { index, term, hard_state, records };
        self.plan_snapshot(&snapshot, Purpose::Installed { number, index, term })?;
        // Not the state of frames that are still to be written: it tells of a commit beyond them.
        self.installing = Some(hard_state);
        Ok(())
    }

    /// The snapshot is in place: what was waiting goes on behind its mark. Gives the last number that is persisted.
    fn finish_install(&mut self, number: u64, index: u64, term: u64) -> u64 {
        self.hard_state = self.installing.take().unwrap_or(self.hard_state);
        self.index_last = index;
        self.waiting = vec![mark_of((index, term))];
        let mut persisted = number;
        for Deferred { number, hard, entries, must_sync } in std::mem::take(&mut self.deferred) {
            if !self.append(number, hard, entries, must_sync) {
                persisted = number;
            }
        }
        persisted
    }

    /// Notes the raft id that this disk has from now on; nothing of raft is on it yet.
    pub fn renew(&mut self, raft_id: u64) {
        let file = raft_id_file(raft_id);
        self.ops.plan(FileOp::Create { file, preallocate_bytes: 0 }, Purpose::Step);
        self.ops.plan(FileOp::SyncDir, Purpose::Renewed(raft_id));
    }

    /// Whether the log after the last snapshot, which is also in memory, has come to that many entries, or to that
    /// many bytes and as many as the snapshot itself: a large one is not written again for little.
    pub fn is_snapshot_due(&self, entries: u64, bytes: u64) -> bool {
        self.entries_since_snapshot >= entries || self.bytes_since_snapshot >= bytes.max(self.snapshot_bytes)
    }

    /// Whether a snapshot is being written.
    pub fn is_taking_snapshot(&self) -> bool {
        self.installing.is_some() || !self.snapshot_ops.is_empty()
    }

    /// Last index that the newest snapshot covers, 0 without one.
    pub fn snapshot_index(&self) -> u64 {
        self.snapshots.last().copied().unwrap_or(0)
    }

    /// The hard state as last given.
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// Plans a snapshot: a new log file, the snapshot itself, then the deletion of what it covers.
    pub fn take_snapshot(&mut self, snapshot: &Snapshot) -> Result<(), String> {
        assert!(!self.is_taking_snapshot(), "one snapshot at a time");
        assert!(snapshot.index > self.snapshot_index(), "a snapshot takes the place of an older one");
        self.plan_snapshot(snapshot, Purpose::Snapshot(snapshot.index))
    }

    fn plan_snapshot(&mut self, snapshot: &Snapshot, purpose: Purpose) -> Result<(), String> {
        let bytes = Bytes::from(snapshot.encode());
        if bytes.len() > SNAPSHOT_BYTES_MAX {
            return Err(format!("the metadata needs {} bytes, more than a snapshot may have", bytes.len()));
        }
        let file = snapshot_file(snapshot.index);
        let aside = file.with(Suffix::Tmp);
        let ops = &mut self.snapshot_ops;
        ops.push_back((FileOp::Create { file: aside, preallocate_bytes: 0 }, Purpose::Step));
        let mut position = 0;
        while position < bytes.len() {
            let end = bytes.len().min(position + SNAPSHOT_PIECE_BYTES);
            let piece = bytes.slice(position..end);
            ops.push_back((
                FileOp::Write { file: aside, position: position as u64, bytes: piece },
                Purpose::Step,
            ));
            position = end;
        }
        ops.push_back((FileOp::Sync { file: aside }, Purpose::Step));
        ops.push_back((FileOp::Rename { from: aside, to: file }, Purpose::Step));
        ops.push_back((FileOp::SyncDir, purpose));
        self.entries_since_snapshot = 0;
        self.bytes_since_snapshot = 0;
        self.snapshot_bytes = bytes.len() as u64;
        Ok(())
    }

    /// The next operation, if none is in flight.
    pub fn next_op(&mut self) -> Option<(Ticket, FileOp)> {
        if self.is_full {
            return None;
        }
        if self.ops.is_idle() {
            if let Some(number) = self.waiting_number.take() {
                self.plan_frame(number);
            } else if let Some((op, purpose)) = self.snapshot_ops.pop_front() {
                self.ops.plan(op, purpose);
            }
        }
        let next = self.ops.take_next();
        if let Some((_, op)) = &next {
            let repeatable =
                matches!(op, FileOp::Write { .. } | FileOp::Create { .. } | FileOp::Rename { .. });
            self.again = repeatable.then(|| op.clone());
        }
        next
    }

    /// There may be space again.
    pub fn try_again(&mut self) {
        self.is_full = false;
    }

    fn plan_frame(&mut self, number: u64) {
        let entries = std::mem::take(&mut self.waiting);
        let frame = encode_frame(self.hard_state, &entries);
        let file = log_file(self.active());
        let length = frame.len() as u64;
        self.ops.plan(FileOp::Write { file, position: self.position, bytes: frame.into() }, Purpose::Step);
        self.ops.plan(FileOp::Sync { file }, Purpose::Persisted);
        self.frame_number = Some(number);
        self.position += length;
        self.bytes_since_snapshot += length;
        self.entries_since_snapshot += entries.len() as u64;
        self.index_last = entries.last().map_or(self.index_last, |entry| entry.index);
    }

    fn active(&self) -> u64 {
        self.log_files.last().copied().expect("there is always a log file")
    }

    /// Takes a completion. A ticket that is not the one in flight changes nothing.
    pub fn complete(&mut self, ticket: Ticket, result: FileResult) -> StorageEvent {
        let Some(purpose) = self.ops.complete(ticket) else { return StorageEvent::None };
        match result {
            Ok(FileDone::Ok) => {}
            Ok(_) => {
                return StorageEvent::Failed("an operation on the metadata log gave a foreign result".into());
            }
            Err(error) => {
                // Not a sync: after one that failed nobody knows what is on the device.
                let Some(op) = self.again.take().filter(|_| error == FileError::NoSpace) else {
                    return StorageEvent::Failed(describe(error));
                };
                self.ops.plan_first(op, purpose);
                self.is_full = true;
                return StorageEvent::Full;
            }
        }
        match purpose {
            Purpose::Step => StorageEvent::None,
            Purpose::Persisted => {
                self.frame_number.take().map_or(StorageEvent::None, StorageEvent::Persisted)
            }
            Purpose::Rolled(first) => {
                self.log_files.push(first);
                self.position = 0;
                StorageEvent::None
            }
            Purpose::Renewed(raft_id) => StorageEvent::Renewed(raft_id),
            Purpose::Snapshot(index) => {
                self.snapshots.push(index);
                self.plan_cleaning(index);
                StorageEvent::SnapshotTaken(index)
            }
            Purpose::Installed { number, index, term } => {
                self.snapshots.push(index);
                let persisted = self.finish_install(number, index, term);
                self.plan_cleaning(index);
                StorageEvent::Persisted(persisted)
            }
        }
    }

    /// A new log file if the one in use holds anything, and deletions of what the snapshot covers.
    fn plan_cleaning(&mut self, index: u64) {
        // Log files before the active one hold only indexes below its first.
        if self.active() <= index + 1 {
            let covered = self.log_files.len() - 1;
            for first in self.log_files.drain(..covered) {
                self.snapshot_ops.push_back((FileOp::Delete { file: log_file(first) }, Purpose::Step));
            }
        }
        let covered = self.snapshots.len() - 1;
        for old in self.snapshots.drain(..covered) {
            self.snapshot_ops.push_back((FileOp::Delete { file: snapshot_file(old) }, Purpose::Step));
        }
        let first = self.index_last + 1;
        if first > self.active() {
            // Both at once: no frame may come between the name and its first index.
            self.ops.plan(FileOp::Create { file: log_file(first), preallocate_bytes: 0 }, Purpose::Step);
            self.ops.plan(FileOp::SyncDir, Purpose::Rolled(first));
        }
    }
}

/// What stands in the log for a leader's snapshot.
fn mark_of((index, term): (u64, u64)) -> Entry {
    Entry { index, term, data: Bytes::from_static(&MARK) }
}

fn describe(error: FileError) -> String {
    let why = match error {
        FileError::NoSpace => "the device is full".to_string(),
        FileError::NotFound => "a file is gone".to_string(),
        FileError::Short { written } => format!("a write ended after {written} bytes"),
        FileError::Io(errno) => format!("the device failed with errno {errno}"),
    };
    format!("the metadata log in {METADATA_DIRECTORY} cannot be written: {why}")
}
