//! The contract between the pure state machines and the world.
//!
//! A machine never touches a file, a socket or a clock: it is stepped with an input and two
//! clock readings, and leaves effects behind. Two shells carry effects out: `src/shard/` on a
//! real machine and `tests/sim/` on a simulated one, from one seed.
//!
//! Rules every machine and both shells keep:
//!
//! - every file operation carries a [`Ticket`] and gets exactly one completion, ok or error, and
//!   never inside the step that emitted it;
//! - an owner has at most one *mutating* operation in flight ([`OpQueue`]), so the order of
//!   operations on its directory is the order in which it emitted them; reads may overlap;
//! - a completion whose [`Ticket`] the owner no longer waits for changes nothing;
//! - the shell executes one operation at a time and decides nothing.

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;

/// The two clocks given to every step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic milliseconds since the node started; every timeout uses it.
    pub mono_ms: u64,
    /// Wall-clock milliseconds since the Unix epoch; only record timestamps and retention use it.
    pub wall_ms: i64,
}

/// Names one file operation of one owner until its completion. Tickets rise within an owner and
/// are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What a file holds; with [`FileName::suffix`] it gives the name on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stem {
    /// `%020d.log`: concatenated record batches; the number is the base offset.
    Log(i64),
    /// `%020d.index`: 8-byte entries, offset → position.
    OffsetIndex(i64),
    /// `%020d.timeindex`: 12-byte entries, timestamp → offset.
    TimeIndex(i64),
    /// `%020d.txnindex`: 34-byte entries, aborted transactions.
    TxnIndex(i64),
    /// `%020d.snapshot`: producer state at that offset.
    ProducerSnapshot(i64),
    /// A file with a fixed name, such as `leader-epoch-checkpoint`.
    Named(&'static str),
    /// `NAME-%020d`: a numbered file of the controller's own log.
    Numbered(&'static str, u64),
}

/// The temporary states a file name can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Suffix {
    /// The file itself.
    #[default]
    None,
    /// `.tmp`: a checkpoint being written.
    Tmp,
    /// `.deleted`: waiting for `file.delete.delay.ms`.
    Deleted,
    /// `.cleaned`: compaction's output.
    Cleaned,
    /// `.swap`: compaction's output taking its place.
    Swap,
}

/// A file inside its owner's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName {
    /// What the file holds.
    pub stem: Stem,
    /// The temporary state it is in.
    pub suffix: Suffix,
}

impl From<Stem> for FileName {
    fn from(stem: Stem) -> Self {
        Self { stem, suffix: Suffix::None }
    }
}

impl FileName {
    /// The same file under another suffix.
    pub fn with(self, suffix: Suffix) -> Self {
        Self { suffix, ..self }
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.stem {
            Stem::Log(base) => write!(f, "{base:020}.log"),
            Stem::OffsetIndex(base) => write!(f, "{base:020}.index"),
            Stem::TimeIndex(base) => write!(f, "{base:020}.timeindex"),
            Stem::TxnIndex(base) => write!(f, "{base:020}.txnindex"),
            Stem::ProducerSnapshot(base) => write!(f, "{base:020}.snapshot"),
            Stem::Named(name) => f.write_str(name),
            Stem::Numbered(name, number) => write!(f, "{name}-{number:020}"),
        }?;
        f.write_str(match self.suffix {
            Suffix::None => "",
            Suffix::Tmp => ".tmp",
            Suffix::Deleted => ".deleted",
            Suffix::Cleaned => ".cleaned",
            Suffix::Swap => ".swap",
        })
    }
}

/// One operation on a file of the owner's directory. The owner is a partition replica
/// (`<log dir>/<topic>-<partition>/`), the controller's log, or a log directory itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileOp {
    /// Creates the owner's directory; it may exist already.
    MakeDir,
    /// Makes the entry of the owner's directory in its parent durable.
    SyncParent,
    /// Makes the entries of the owner's directory durable.
    SyncDir,
    /// Lists the owner's directory: every name as text, a file's with its length in bytes, a
    /// directory's with 0.
    List,
    /// Renames the owner's directory to `<name>.<32 hex digits>-delete`; later operations of
    /// the owner act on it under its new name.
    RetireDir,
    /// Renames the owner's directory to `<name>.<32 hex digits>-stray`: it belongs to a topic that the
    /// cluster does not know, and stays for the operator. The owner's name is free then.
    StrayDir,
    /// Renames the owner's directory within its log directory; later operations of the owner act on it under its new
    /// name. One of that name that holds anything is not replaced.
    RenameDir {
        /// The new name.
        name: String,
    },
    /// Deletes the owner's directory and what is in it; spans already handed out stay readable.
    DeleteDir,
    /// Copies bytes of another owner's file of the same name to the same place, whatever log directory that one is in.
    /// The file is made where it is missing. [`FileDone::Copied`] says how many; fewer only at the end of the other.
    CopyFrom {
        /// Slot of the replica on the same shard whose file is read.
        replica: u32,
        /// The file.
        file: FileName,
        /// First byte.
        position: u64,
        /// At most this many bytes.
        length: u64,
    },
    /// Creates an empty file, or empties one that is there, with that many bytes reserved beyond
    /// its length. A `.log` file that holds bytes is never emptied: that is `EEXIST`.
    Create {
        /// The file.
        file: FileName,
        /// Bytes to reserve on the device, 0 for none.
        preallocate_bytes: u64,
    },
    /// Writes the record batches that the owner gathered at the end of a `.log` file, as one
    /// vectored write. The bytes stay with the owner until the completion
    /// (`Partition::append_parts`); a short write is [`FileError::Short`].
    Append {
        /// Base offset of the segment.
        base_offset: i64,
        /// Where the first byte goes.
        position: u64,
        /// How many bytes there are.
        length: u64,
    },
    /// Writes bytes at a position, growing the file where needed.
    Write {
        /// The file; it exists.
        file: FileName,
        /// Where the first byte goes.
        position: u64,
        /// What to write.
        bytes: Bytes,
    },
    /// Reads up to `length` bytes; fewer only at the end of the file.
    Read {
        /// The file.
        file: FileName,
        /// First byte.
        position: u64,
        /// At most this many bytes.
        length: u64,
    },
    /// Asks when the file's bytes were last changed.
    ModifiedAt {
        /// The file.
        file: FileName,
    },
    /// Makes the file's bytes and length durable (`fdatasync`).
    Sync {
        /// The file.
        file: FileName,
    },
    /// Reserves blocks behind a file's end, beside whatever else is done to it; its length stays. The file is what it
    /// was where that is [`FileError::NoSpace`], but for blocks that a [`FileOp::Truncate`] gives back.
    Allocate {
        /// The file.
        file: FileName,
        /// First byte.
        position: u64,
        /// How many bytes.
        length: u64,
        /// Only where the device has so many bytes left afterwards.
        spare_bytes: u64,
    },
    /// Cuts the file, or extends it with zeros. What was reserved behind its new end is given back.
    Truncate {
        /// The file.
        file: FileName,
        /// Its new length.
        length: u64,
    },
    /// Renames within the directory, replacing what is there.
    Rename {
        /// Old name.
        from: FileName,
        /// New name.
        to: FileName,
    },
    /// Deletes a file; spans already handed out stay readable. A missing file is no error.
    Delete {
        /// The file.
        file: FileName,
    },
}

/// What a file operation gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileDone {
    /// Nothing but success.
    Ok,
    /// What a [`FileOp::Read`] found.
    Bytes(Bytes),
    /// What a [`FileOp::List`] found: name and length in bytes, sorted by name.
    Listing(Vec<(String, u64)>),
    /// How many bytes a [`FileOp::CopyFrom`] copied, or why they could not be read; where they could not be written,
    /// the operation fails.
    Copied(Result<u64, FileError>),
    /// What a [`FileOp::ModifiedAt`] found, in wall-clock milliseconds since the Unix epoch.
    ModifiedMs(i64),
}

/// Why a file operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileError {
    /// The device is full: retriable.
    NoSpace,
    /// The file is not there.
    NotFound,
    /// Only this many bytes of an append were written.
    Short {
        /// Bytes that reached the file.
        written: u64,
    },
    /// The device failed with this errno: the log directory goes offline.
    Io(i32),
}

/// A range of bytes on its way to a socket: the only thing about a log that crosses shards. The
/// bytes stay readable for as long as the span lives, also when the file is deleted.
#[derive(Clone, Debug)]
pub enum ByteSpan {
    /// A range of an open file, counted by everyone who still sends from it.
    File {
        /// The open file.
        file: Arc<OwnedFd>,
        /// First byte.
        position: u64,
        /// How many bytes.
        length: u64,
    },
    /// Bytes already in memory.
    Memory(Bytes),
}

impl ByteSpan {
    /// How many bytes it covers.
    pub fn length(&self) -> u64 {
        match self {
            Self::File { length, .. } => *length,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// Keeps only the first bytes.
    pub fn truncate(&mut self, length_max: u64) {
        match self {
            Self::File { length, .. } => *length = length_max.min(*length),
            Self::Memory(bytes) => bytes.truncate(usize::try_from(length_max).unwrap_or(usize::MAX)),
        }
    }
}

/// How a file operation ended.
pub type FileResult = Result<FileDone, FileError>;

/// The mutating operations that an owner has planned, carried out strictly one after another.
/// `P` tells the owner what an operation was for.
#[derive(Debug)]
pub struct OpQueue<P> {
    planned: VecDeque<(FileOp, P)>,
    in_flight: Option<(Ticket, P)>,
    ticket_next: u64,
}

impl<P> Default for OpQueue<P> {
    fn default() -> Self {
        Self { planned: VecDeque::new(), in_flight: None, ticket_next: 1 }
    }
}

impl<P> OpQueue<P> {
    /// Plans an operation after all planned ones.
    pub fn plan(&mut self, op: FileOp, purpose: P) {
        self.planned.push_back((op, purpose));
    }

    /// Plans an operation before all planned ones: one that failed and is tried again.
    pub fn plan_first(&mut self, op: FileOp, purpose: P) {
        self.planned.push_front((op, purpose));
    }

    /// Plans the replacement of a small file so that a crash leaves the old or the new bytes:
    /// write aside, sync, rename, sync the directory. `purpose` gets the last completion, the
    /// earlier ones get `step`.
    pub fn plan_replace(&mut self, file: FileName, bytes: Bytes, step: P, purpose: P)
    where
        P: Clone,
    {
        let aside = file.with(Suffix::Tmp);
        self.plan(FileOp::Create { file: aside, preallocate_bytes: 0 }, step.clone());
        self.plan(FileOp::Write { file: aside, position: 0, bytes }, step.clone());
        self.plan(FileOp::Sync { file: aside }, step.clone());
        self.plan(FileOp::Rename { from: aside, to: file }, step);
        self.plan(FileOp::SyncDir, purpose);
    }

    /// A ticket for an operation outside the queue (a read).
    pub fn ticket(&mut self) -> Ticket {
        let ticket = Ticket(self.ticket_next);
        self.ticket_next += 1;
        ticket
    }

    /// The next operation to emit, if none is in flight.
    pub fn take_next(&mut self) -> Option<(Ticket, FileOp)> {
        if self.in_flight.is_some() {
            return None;
        }
        let (op, purpose) = self.planned.pop_front()?;
        let ticket = self.ticket();
        self.in_flight = Some((ticket, purpose));
        Some((ticket, op))
    }

    /// What the completed operation was for; `None` if the ticket is not the one in flight.
    pub fn complete(&mut self, ticket: Ticket) -> Option<P> {
        match &self.in_flight {
            Some((expected, _)) if *expected == ticket => self.in_flight.take().map(|(_, p)| p),
            _ => None,
        }
    }

    /// Forgets every planned operation that is not in flight and gives their purposes back.
    pub fn abandon(&mut self) -> impl Iterator<Item = P> + '_ {
        self.planned.drain(..).map(|(_, purpose)| purpose)
    }

    /// Whether nothing is planned or in flight.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_none() && self.planned.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kafkas() {
        assert_eq!(FileName::from(Stem::Log(42)).to_string(), "00000000000000000042.log");
        let checkpoint = FileName::from(Stem::Named("leader-epoch-checkpoint"));
        assert_eq!(checkpoint.with(Suffix::Tmp).to_string(), "leader-epoch-checkpoint.tmp");
    }

    #[test]
    fn operations_leave_one_at_a_time_and_in_order() {
        let mut queue = OpQueue::default();
        queue.plan(FileOp::MakeDir, 'a');
        queue.plan(FileOp::SyncParent, 'b');
        let (first, op) = queue.take_next().unwrap();
        assert_eq!(op, FileOp::MakeDir);
        assert!(queue.take_next().is_none());
        assert_eq!(queue.complete(Ticket(99)), None);
        assert_eq!(queue.complete(first), Some('a'));
        assert_eq!(queue.complete(first), None);
        assert_eq!(queue.take_next().unwrap().1, FileOp::SyncParent);
    }
}
