//! Helper threads: one bounded pool per log directory for everything that can wait for a device
//! (syncs, creations, renames, deletions, cold reads), and one for its recoveries, so that logs that
//! serve already do not wait behind those that do not. They are not pinned and run at lower priority
//! than the shards; what they find comes back to the asking shard as an input.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use bytes::BytesMut;

use super::bell::Bell;
use super::file_ops::{self, Aftermath, OwnerDir, Range};
use crate::broker::{ConnectionKey, Opened, Owner};
use crate::effect::{FileDone, FileError, FileName, FileOp, FileResult, Ticket};
use crate::log::{Recovery, RecoveryError, RecoveryStep};
use crate::partition::{ReadFound, ReplyTo};

/// Threads per log directory for what may wait for the device. Two let a long sync and a cold read pass each other.
const THREADS_PER_DIRECTORY: usize = 2;
/// Most threads that recover the logs of one directory.
const RECOVERY_THREADS_MAX: u32 = 64;
/// How much nicer than the shards they are.
const NICENESS: i32 = 5;
/// The metadata log's is as urgent as a shard: a leader that does not hear of its quorum for an election's time steps
/// down.
const NICENESS_OF_METADATA: i32 = 0;

/// What a helper is asked to do in an owner's directory.
#[derive(Debug)]
pub(super) enum Job {
    /// A file operation.
    File(Ticket, FileOp),
    /// Copy a range of a file of another owner's directory.
    Copy { ticket: Ticket, from: OwnerDir, range: Range },
    /// Open the file of a span.
    Open { to: ReplyTo, found: ReadFound, file: FileName },
    /// Read a range of an open file.
    ReadSpan { to: ReplyTo, file: Arc<OwnedFd>, position: u64, length: u64 },
    /// A whole recovery.
    Recover(Box<Recovery>),
    /// Bring a range of a file into the page cache, for a connection that waits to send it.
    Warm { connection: ConnectionKey, file: Arc<OwnedFd>, position: u64, length: u64 },
    /// Close files whose names are gone. The last close of a deleted file gives its blocks back: 70 to 130 ms for a
    /// segment where the file system discards them. Nothing is said when it is done.
    Close(Vec<Arc<OwnedFd>>),
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Outcome {
    File(Ticket, FileResult, Aftermath),
    Open { to: ReplyTo, found: ReadFound, file: FileName, opened: Option<OwnedFd> },
    ReadSpan(ReplyTo, FileResult),
    Recover(Result<Opened, RecoveryError>),
    Warm(ConnectionKey),
}

/// Where outcomes wait for their shard.
#[derive(Debug)]
pub(super) struct Returns {
    queue: Mutex<VecDeque<(Owner, Outcome)>>,
    bell: Arc<Bell>,
}

impl Returns {
    pub fn new(bell: Arc<Bell>) -> Arc<Self> {
        Arc::new(Self { queue: Mutex::default(), bell })
    }

    fn put(&self, owner: Owner, outcome: Outcome) {
        lock(&self.queue).push_back((owner, outcome));
        self.bell.ring();
    }

    /// Takes everything that has come back.
    pub fn take(&self, into: &mut VecDeque<(Owner, Outcome)>) {
        into.append(&mut lock(&self.queue));
    }
}

/// A panic ends the process, so no lock is ever found poisoned.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Order {
    owner: Owner,
    dir: OwnerDir,
    job: Job,
    returns: Arc<Returns>,
}

#[derive(Debug, Default)]
struct Queue {
    orders: Mutex<VecDeque<Order>>,
    arrived: Condvar,
}

/// The helper threads of one log directory. An owner has at most one mutating operation in
/// flight, and reads are bounded by admitted requests, so the queue is bounded by those.
#[derive(Clone, Debug)]
pub(super) struct Helpers {
    queue: Arc<Queue>,
    /// What appends wait for when a segment is rolled: it has a thread of its own, behind no sync.
    prompt: Arc<Queue>,
    recoveries: Arc<Queue>,
    /// Of the metadata log, where it is in this directory. Raft answers nobody before its log is synced, so it waits
    /// for no other log: those of a thousand new partitions are a second of syncs.
    metadata: Option<Arc<Queue>>,
    /// Replicas on their way into the directory, a slice at a time: behind them nothing else waits.
    copies: Arc<Queue>,
}

impl Helpers {
    /// Starts the threads; they end with the process.
    pub fn start(directory: usize, has_metadata: bool, recovery_threads: u32) -> std::io::Result<Self> {
        let helpers = Self {
            queue: Arc::default(),
            prompt: Arc::default(),
            recoveries: Arc::default(),
            copies: Arc::default(),
            metadata: has_metadata.then(Arc::default),
        };
        if let Some(metadata) = &helpers.metadata {
            spawn(format!("metadata-{directory}"), metadata, NICENESS_OF_METADATA)?;
        }
        spawn(format!("prompt-{directory}"), &helpers.prompt, NICENESS)?;
        spawn(format!("copy-{directory}"), &helpers.copies, NICENESS)?;
        for number in 0..THREADS_PER_DIRECTORY {
            spawn(format!("helper-{directory}-{number}"), &helpers.queue, NICENESS)?;
        }
        for number in 0..recovery_threads.min(RECOVERY_THREADS_MAX) {
            spawn(format!("recover-{directory}-{number}"), &helpers.recoveries, NICENESS)?;
        }
        Ok(helpers)
    }

    /// Hands a job over; its outcome comes back through `returns`.
    pub fn order(&self, owner: Owner, dir: OwnerDir, job: Job, returns: &Arc<Returns>) {
        let queue = match &job {
            Job::File(..) if owner == Owner::Controller => self.metadata.as_ref().unwrap_or(&self.queue),
            Job::Recover(_) => &self.recoveries,
            Job::Copy { .. } => &self.copies,
            Job::File(_, FileOp::Create { .. } | FileOp::Write { .. } | FileOp::Rename { .. }) => {
                &self.prompt
            }
            _ => &self.queue,
        };
        lock(&queue.orders).push_back(Order { owner, dir, job, returns: Arc::clone(returns) });
        queue.arrived.notify_one();
    }
}

fn spawn(name: String, queue: &Arc<Queue>, niceness: i32) -> std::io::Result<()> {
    let queue = Arc::clone(queue);
    thread::Builder::new().name(name).spawn(move || serve(&queue, niceness))?;
    Ok(())
}

fn serve(queue: &Queue, niceness: i32) {
    // SAFETY: no memory is touched; who = 0 is the calling thread, as Linux counts niceness.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness) };
    loop {
        let mut orders = lock(&queue.orders);
        let order = loop {
            match orders.pop_front() {
                Some(order) => break order,
                None => orders = queue.arrived.wait(orders).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(orders);
        if let Some(outcome) = carry_out(&order.dir, order.job) {
            order.returns.put(order.owner, outcome);
        }
    }
}

fn carry_out(dir: &OwnerDir, job: Job) -> Option<Outcome> {
    Some(match job {
        Job::File(ticket, op) => {
            let (result, aftermath) = file_ops::run(dir, &op);
            // Of a segment that goes, some files need not be there.
            let may_miss = matches!(op, FileOp::Rename { .. } | FileOp::Delete { .. });
            if let Err(error) = result
                && error != FileError::NoSpace
                && !(may_miss && error == FileError::NotFound)
            {
                // What follows from it is the owner's to say; this is what an operator looks for.
                super::say(&format!(
                    "{} in {} failed: {error:?}",
                    file_ops::described(&op),
                    dir.path.display()
                ));
            }
            Outcome::File(ticket, result, aftermath)
        }
        Job::Copy { ticket, from, range } => {
            Outcome::File(ticket, file_ops::copy(&from, dir, range), Aftermath::default())
        }
        Job::Open { to, found, file } => {
            let opened = file_ops::patiently(|| dir.open(file)).ok();
            Outcome::Open { to, found, file, opened }
        }
        Job::ReadSpan { to, file, position, length } => {
            Outcome::ReadSpan(to, read_range(&file, position, length))
        }
        Job::Recover(recovery) => Outcome::Recover(recover(dir, *recovery)),
        Job::Warm { connection, file, position, length } => {
            warm(&file, position, length);
            Outcome::Warm(connection)
        }
        Job::Close(files) => {
            drop(files);
            return None;
        }
    })
}

/// Runs a recovery to its end, one operation after the other.
fn recover(dir: &OwnerDir, mut recovery: Recovery) -> Result<Opened, RecoveryError> {
    let mut last = None;
    loop {
        match recovery.step(last.take()) {
            RecoveryStep::Op(op) => last = Some(file_ops::run(dir, &op).0),
            RecoveryStep::Done(recovered) => return Ok(Opened::Log(recovered)),
            RecoveryStep::Empty { base_offset, .. } => return Ok(Opened::Empty { base_offset }),
            RecoveryStep::Failed(error) => return Err(error),
        }
    }
}

/// Reads a range of a log; it is as long as the log says, or the file was cut.
fn read_range(file: &OwnedFd, position: u64, length: u64) -> FileResult {
    let mut bytes = BytesMut::zeroed(usize::try_from(length).map_err(|_| FileError::Io(libc::EFBIG))?);
    let mut read = 0;
    while let Some(into) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
        let at = i64::try_from(position + read as u64).map_err(|_| FileError::Io(libc::EFBIG))?;
        match nix::sys::uio::pread(file, into, at) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(file_ops::file_error(&errno.into())),
        }
    }
    bytes.truncate(read);
    Ok(FileDone::Bytes(bytes.freeze()))
}

/// Reads the range once, so that sending it does not wait for the device.
fn warm(file: &OwnedFd, position: u64, length: u64) {
    let mut buffer = vec![0; 256 * 1024];
    let end = position + length;
    let mut at = position;
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let Some(into) = buffer.get_mut(..want) else { return };
        match nix::sys::uio::pread(file, into, i64::try_from(at).unwrap_or(i64::MAX)) {
            Ok(0) | Err(_) => return,
            Ok(count) => at += count as u64,
        }
    }
}
