//! The files of one shard's owners: which directory is whose, which files are open, and which
//! operations run here and which go to helper threads.
//!
//! Here: appends and writes to the page cache, and short reads that the page cache answers.
//! Everything else can wait for a device and goes to a helper.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rustc_hash::FxHashMap;

use super::file_ops::{Aftermath, OwnerDir, Range, file_error, is_exhausted};
use super::helpers::{Helpers, Job, Returns};
use super::open_files::OpenFiles;
use crate::broker::Owner;
use crate::effect::{ByteSpan, FileDone, FileError, FileName, FileOp, FileResult, Stem, Suffix, Ticket};
use crate::log::batch::HEADER_BYTES;
use crate::partition::{ReadFound, ReplyTo};
use crate::request::DiskSpace;

/// Kernel limit of one vectored write (`UIO_MAXIOV`).
const IOVECS_MAX: usize = 1024;

/// The longest read that the shard does itself. Longer ones come in long rows when a log is truncated, and one at a
/// time where a look-up by time reads a large batch.
const READ_HERE_BYTES: u64 = 32 << 10;

/// The files of one shard.
#[derive(Debug)]
pub(super) struct Files {
    dirs: FxHashMap<Owner, (u16, OwnerDir)>,
    open: OpenFiles,
    helpers: Vec<Helpers>,
    returns: Arc<Returns>,
    log_dirs: Vec<std::path::PathBuf>,
}

impl Files {
    pub fn new(
        log_dirs: Vec<std::path::PathBuf>,
        helpers: Vec<Helpers>,
        returns: Arc<Returns>,
        open_max: usize,
    ) -> Self {
        Self { dirs: FxHashMap::default(), open: OpenFiles::new(open_max), helpers, returns, log_dirs }
    }

    /// All log directories.
    pub fn log_dirs(&self) -> &[std::path::PathBuf] {
        &self.log_dirs
    }

    /// One of them, if it is there.
    pub fn log_dir(&self, number: u16) -> &[std::path::PathBuf] {
        self.log_dirs.get(usize::from(number)..=usize::from(number)).unwrap_or_default()
    }

    /// How much room the devices of the log directories have. The kernel answers from memory.
    pub fn space(&self) -> Vec<Option<DiskSpace>> {
        let measure = |path: &std::path::PathBuf| {
            let stat = nix::sys::statvfs::statvfs(path).ok()?;
            let fragment_bytes = stat.fragment_size();
            Some(DiskSpace {
                total_bytes: stat.blocks().saturating_mul(fragment_bytes),
                usable_bytes: stat.blocks_available().saturating_mul(fragment_bytes),
            })
        };
        self.log_dirs.iter().map(measure).collect()
    }

    /// From now on this owner's directory is `<log directory>/<name>`; an empty name is the log
    /// directory itself.
    pub fn own(&mut self, owner: Owner, directory: u16, name: &str) {
        let Some(root) = self.log_dirs.get(usize::from(directory)) else { return };
        let path = if name.is_empty() { root.clone() } else { root.join(name) };
        self.dirs.insert(owner, (directory, OwnerDir { path }));
    }

    pub fn disown(&mut self, owner: Owner) {
        self.dirs.remove(&owner);
        let files = self.open.disown(owner);
        self.close(files);
    }

    /// At most so many files stay open at once; those that are too many are closed.
    pub fn keep_open(&mut self, most: usize) {
        self.open.resize(most);
    }

    /// An open file, if it is one.
    pub fn cached(&mut self, owner: Owner, file: FileName) -> Option<&Arc<OwnedFd>> {
        self.open.get(owner, file)
    }

    /// Whether one more file may be opened for a read.
    pub fn may_open(&mut self) -> bool {
        self.open.make_room()
    }

    /// Has a helper open the file of a span.
    pub fn order_open(&mut self, owner: Owner, to: ReplyTo, found: ReadFound, file: FileName) {
        self.open.begin();
        self.order(owner, Job::Open { to, found, file });
    }

    /// A helper has opened the file of a span, or could not.
    pub fn opened(&mut self, owner: Owner, file: FileName, opened: Option<OwnedFd>) -> Option<Arc<OwnedFd>> {
        self.open.end();
        opened.map(|opened| self.open.keep(owner, file, opened))
    }

    /// Carries out an operation here if it cannot wait for a device, else orders it from a helper
    /// and gives `None`.
    pub fn execute(&mut self, owner: Owner, ticket: Ticket, op: FileOp) -> Option<FileResult> {
        match &op {
            FileOp::Write { file, position, bytes } => {
                if let Some(open) = self.cached(owner, *file) {
                    return Some(write_all(open, *position, bytes));
                }
            }
            FileOp::Read { file, position, length } if *length <= READ_HERE_BYTES => {
                if let Some(open) = self.cached(owner, *file)
                    && let Some(bytes) = read_cached(open, *position, *length)
                {
                    return Some(Ok(FileDone::Bytes(bytes)));
                }
            }
            // The open descriptor stays good for what was handed out; the name is not ours any more.
            FileOp::Delete { file } | FileOp::Create { file, .. } => {
                let file = self.open.forget(owner, *file);
                self.close(file.into_iter().collect());
            }
            FileOp::CopyFrom { replica, file, position, length } => {
                let Some((_, from)) = self.dirs.get(&Owner::Replica(*replica)) else {
                    return Some(Ok(FileDone::Copied(Err(FileError::NotFound))));
                };
                let (from, range) =
                    (from.clone(), Range { file: *file, position: *position, length: *length });
                self.order(owner, Job::Copy { ticket, from, range });
                return None;
            }
            FileOp::Rename { from, to } => {
                let files =
                    [*from, *to].into_iter().filter_map(|file| self.open.forget(owner, file)).collect();
                self.close(files);
            }
            _ => {}
        }
        self.order(owner, Job::File(ticket, op));
        None
    }

    /// Orders a job from the helpers of the owner's log directory.
    pub fn order(&self, owner: Owner, job: Job) {
        let Some((directory, dir)) = self.dirs.get(&owner) else { return };
        if let Some(helpers) = self.helpers.get(usize::from(*directory)) {
            helpers.order(owner, dir.clone(), job, &self.returns);
        }
    }

    /// Reads what a span covers: here if the page cache answers, else it is ordered from a helper and gives `None`.
    pub fn read_span(&self, to: ReplyTo, span: ByteSpan) -> Option<FileResult> {
        let ByteSpan::File { file, position, length } = span else {
            let ByteSpan::Memory(bytes) = span else { return None };
            return Some(Ok(FileDone::Bytes(bytes)));
        };
        if let Some(bytes) = read_cached(&file, position, length) {
            return Some(Ok(FileDone::Bytes(bytes)));
        }
        self.order_unowned(Job::ReadSpan { to, file, position, length });
        None
    }

    /// Has a helper close files. Where somebody still sends from one, the last of them closes it.
    fn close(&self, files: Vec<Arc<OwnedFd>>) {
        if !files.is_empty() {
            self.order_unowned(Job::Close(files));
        }
    }

    /// Orders a job on a file that is open already.
    pub fn order_unowned(&self, job: Job) {
        if let Some(helpers) = self.helpers.first() {
            helpers.order(
                Owner::Directory(0),
                OwnerDir { path: std::path::PathBuf::new() },
                job,
                &self.returns,
            );
        }
    }

    /// Takes note of what a helper's operation left behind.
    pub fn note(&mut self, owner: Owner, aftermath: Aftermath) {
        if let Some((file, opened)) = aftermath.opened
            && file.suffix == Suffix::None
            && !matches!(file.stem, Stem::Named(_))
        {
            // A helper may be late: a file that was made meanwhile is not replaced by the one before it.
            if aftermath.is_new || self.open.get(owner, file).is_none() {
                self.open.keep(owner, file, opened);
            } else {
                self.close(vec![Arc::new(opened)]);
            }
        }
        if let Some(moved) = aftermath.moved
            && let Some((_, dir)) = self.dirs.get_mut(&owner)
        {
            dir.path = moved;
        }
    }

    /// Writes an owner's gathered batches behind each other, as few vectored writes as the kernel
    /// allows. The segment's file must be open; otherwise it is opened here, which the directory
    /// entry cache answers for an active segment.
    pub fn append<'a>(
        &mut self,
        owner: Owner,
        base_offset: i64,
        position: u64,
        parts: impl Iterator<Item = (&'a [u8; HEADER_BYTES], &'a [u8])>,
    ) -> FileResult {
        let name = FileName::from(Stem::Log(base_offset));
        let file = match self.cached(owner, name) {
            Some(file) => Arc::clone(file),
            None => {
                let dir = self.dirs.get(&owner).ok_or(FileError::NotFound)?;
                let dir = dir.1.clone();
                let opened = dir.open(name).or_else(|error| {
                    if is_exhausted(&error) {
                        self.open.close_unused();
                    }
                    dir.open(name)
                });
                self.open.keep(owner, name, opened.map_err(|error| file_error(&error))?)
            }
        };
        write_parts(&file, position, parts)
    }
}

fn write_all(file: &OwnedFd, position: u64, bytes: &[u8]) -> FileResult {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        let at = i64::try_from(position + written as u64).map_err(|_| FileError::Io(libc::EFBIG))?;
        match nix::sys::uio::pwrite(file, rest, at) {
            Ok(0) => return Err(FileError::Io(libc::EIO)),
            Ok(count) => written += count,
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(file_error(&errno.into())),
        }
    }
    Ok(FileDone::Ok)
}

/// Reads what the page cache holds without waiting for the device; `None` if it would wait.
fn read_cached(file: &OwnedFd, position: u64, length: u64) -> Option<Bytes> {
    let mut bytes = BytesMut::zeroed(usize::try_from(length).ok()?);
    let count = read_no_wait(file, position, &mut bytes)?;
    // A short read is the end of the file or the edge of what is cached: a helper tells them apart.
    (count == bytes.len()).then(|| bytes.freeze())
}

/// One read that the page cache answers; `None` if it cannot.
pub(super) fn read_no_wait(file: &OwnedFd, position: u64, into: &mut [u8]) -> Option<usize> {
    let iovec = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let position = i64::try_from(position).ok()?;
    // SAFETY: the iovec covers exactly `into`, which outlives the call.
    let count = unsafe { libc::preadv2(file.as_raw_fd(), &iovec, 1, position, libc::RWF_NOWAIT) };
    usize::try_from(count).ok()
}

fn write_parts<'a>(
    file: &OwnedFd,
    mut position: u64,
    parts: impl Iterator<Item = (&'a [u8; HEADER_BYTES], &'a [u8])>,
) -> FileResult {
    let start = position;
    let mut slices: smallvec::SmallVec<[IoSlice; 64]> = smallvec::SmallVec::new();
    for (header, body) in parts {
        slices.push(IoSlice::new(header));
        slices.push(IoSlice::new(body));
        if slices.len() == IOVECS_MAX {
            position = write_slices(file, position, &mut slices, start)?;
            slices.clear();
        }
    }
    write_slices(file, position, &mut slices, start)?;
    Ok(FileDone::Ok)
}

/// Writes all slices; the error says how many bytes since `start` reached the file.
fn write_slices(
    file: &OwnedFd,
    mut position: u64,
    slices: &mut [IoSlice],
    start: u64,
) -> Result<u64, FileError> {
    let mut rest = slices;
    while !rest.is_empty() {
        let at = i64::try_from(position).map_err(|_| FileError::Io(libc::EFBIG))?;
        match nix::sys::uio::pwritev(file, rest, at) {
            Ok(0) => return Err(FileError::Short { written: position - start }),
            Ok(count) => {
                position += count as u64;
                IoSlice::advance_slices(&mut rest, count);
            }
            Err(nix::errno::Errno::EINTR) => {}
            Err(_) if position > start => return Err(FileError::Short { written: position - start }),
            Err(errno) => return Err(file_error(&errno.into())),
        }
    }
    Ok(position)
}
