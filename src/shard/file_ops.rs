//! Carries out one file operation, blocking: what helper threads run, and the start before any
//! shard exists. It executes and decides nothing; the order is the owner's.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use nix::fcntl::{FallocateFlags, fallocate};

use crate::effect::{FileDone, FileError, FileName, FileOp, FileResult, Stem};

/// The directory that an owner's operations act on.
#[derive(Clone, Debug)]
pub(super) struct OwnerDir {
    pub path: PathBuf,
}

impl OwnerDir {
    pub fn file(&self, name: FileName) -> PathBuf {
        self.path.join(name.to_string())
    }

    /// Opens a file of the directory for reading and writing.
    pub fn open(&self, name: FileName) -> io::Result<OwnedFd> {
        OpenOptions::new().read(true).write(true).open(self.file(name)).map(OwnedFd::from)
    }
}

/// What the caller of an operation learns besides its result.
#[derive(Debug, Default)]
pub(super) struct Aftermath {
    /// The file that was opened for it, worth keeping.
    pub opened: Option<(FileName, OwnedFd)>,
    /// That file is new: what was open by its name is another.
    pub is_new: bool,
    /// The directory's new path.
    pub moved: Option<PathBuf>,
}

/// Why an operation failed, in the owner's words.
pub(super) fn file_error(error: &io::Error) -> FileError {
    match error.raw_os_error() {
        // A process or system without descriptors is like a full device: it passes, and says
        // nothing of what is on the device.
        Some(libc::ENOSPC | libc::EDQUOT | libc::EMFILE | libc::ENFILE) => FileError::NoSpace,
        Some(libc::ENOENT) => FileError::NotFound,
        Some(errno) => FileError::Io(errno),
        None => FileError::Io(libc::EIO),
    }
}

/// An operation in words, without the bytes it carries.
pub(super) fn described(op: &FileOp) -> String {
    match op {
        FileOp::Create { file, .. } => format!("creating {file}"),
        FileOp::Write { file, .. } => format!("writing {file}"),
        FileOp::Read { file, .. } => format!("reading {file}"),
        FileOp::ModifiedAt { file } => format!("looking at {file}"),
        FileOp::Sync { file } => format!("syncing {file}"),
        FileOp::Allocate { file, .. } => format!("reserving blocks of {file}"),
        FileOp::Truncate { file, .. } => format!("cutting {file}"),
        FileOp::Rename { from, to } => format!("renaming {from} to {to}"),
        FileOp::Delete { file } => format!("deleting {file}"),
        FileOp::Append { base_offset, .. } => format!("appending to the segment {base_offset}"),
        FileOp::CopyFrom { file, .. } => format!("copying {file}"),
        FileOp::RenameDir { name } => format!("renaming to {name}"),
        FileOp::MakeDir
        | FileOp::SyncParent
        | FileOp::SyncDir
        | FileOp::List
        | FileOp::RetireDir
        | FileOp::StrayDir
        | FileOp::DeleteDir => format!("{op:?}"),
    }
}

/// Carries out any operation but [`FileOp::Append`], whose bytes the caller holds.
pub(super) fn run(dir: &OwnerDir, op: &FileOp) -> (FileResult, Aftermath) {
    let mut aftermath = Aftermath::default();
    let result = patiently(|| attempt(dir, op, &mut aftermath)).map_err(|error| file_error(&error));
    (result, aftermath)
}

/// Whether the process or the system has no descriptor left.
pub(super) fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Tries again for a while when there is no descriptor: others give theirs back.
pub(super) fn patiently<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    const TRIES: u32 = 500;
    const REST: std::time::Duration = std::time::Duration::from_millis(10);
    for _ in 0..TRIES {
        match attempt() {
            Err(error) if is_exhausted(&error) => std::thread::sleep(REST),
            other => return other,
        }
    }
    attempt()
}

fn attempt(dir: &OwnerDir, op: &FileOp, aftermath: &mut Aftermath) -> io::Result<FileDone> {
    match op {
        FileOp::MakeDir => fs::create_dir_all(&dir.path)?,
        FileOp::SyncParent => sync_dir(dir.path.parent().unwrap_or(Path::new("/")))?,
        FileOp::SyncDir => sync_dir(&dir.path)?,
        FileOp::List => return list(&dir.path),
        FileOp::RetireDir => aftermath.moved = Some(set_aside(&dir.path, "-delete")?),
        FileOp::StrayDir => drop(set_aside(&dir.path, "-stray")?),
        FileOp::RenameDir { name } => {
            let target = dir.path.with_file_name(name);
            fs::rename(&dir.path, &target)?;
            aftermath.moved = Some(target);
        }
        FileOp::DeleteDir => missing_is_fine(fs::remove_dir_all(&dir.path))?,
        FileOp::Create { file, preallocate_bytes } => {
            let created = create(&dir.file(*file), matches!(file.stem, Stem::Log(_)), *preallocate_bytes)?;
            aftermath.opened = Some((*file, created));
            aftermath.is_new = true;
        }
        // What they need beside the directory is their caller's.
        FileOp::Append { .. } | FileOp::CopyFrom { .. } => {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        FileOp::Write { file, position, bytes } => {
            let opened = File::from(dir.open(*file)?);
            opened.write_all_at(bytes, *position)?;
            aftermath.opened = Some((*file, opened.into()));
        }
        FileOp::Read { file, position, length } => {
            let opened = File::from(dir.open(*file)?);
            let bytes = read_at(&opened, *position, *length)?;
            aftermath.opened = Some((*file, opened.into()));
            return Ok(FileDone::Bytes(bytes));
        }
        FileOp::ModifiedAt { file } => return modified(&dir.file(*file)),
        FileOp::Sync { file } => File::from(dir.open(*file)?).sync_data()?,
        FileOp::Allocate { file, position, length, spare_bytes } => {
            allocate(&File::from(dir.open(*file)?), *position, *length, *spare_bytes)?;
        }
        FileOp::Truncate { file, length } => {
            let opened = File::from(dir.open(*file)?);
            opened.set_len(*length)?;
        }
        FileOp::Rename { from, to } => fs::rename(dir.file(*from), dir.file(*to))?,
        FileOp::Delete { file } => missing_is_fine(fs::remove_file(dir.file(*file)))?,
    }
    Ok(FileDone::Ok)
}

/// A range of a file on its way to another directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub file: FileName,
    pub position: u64,
    pub length: u64,
}

/// Copies a range of a file into the file of the same name in another directory ([`FileOp::CopyFrom`]).
pub(super) fn copy(from: &OwnerDir, to: &OwnerDir, range: Range) -> FileResult {
    let source = patiently(|| File::open(from.file(range.file)));
    let read = source.and_then(|source| {
        let mut buffer = vec![0; COPY_BYTES];
        copy_range(&source, to, range, &mut buffer)
    });
    match read {
        Ok(written) => written.map_err(|error| file_error(&error)).map(|bytes| FileDone::Copied(Ok(bytes))),
        Err(error) => Ok(FileDone::Copied(Err(file_error(&error)))),
    }
}

/// Bytes that are read before they are written.
const COPY_BYTES: usize = 256 << 10;

/// The outer error is that of reading, the inner one that of writing.
fn copy_range(source: &File, to: &OwnerDir, range: Range, buffer: &mut [u8]) -> io::Result<io::Result<u64>> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o644);
    let target = match patiently(|| options.open(to.file(range.file))) {
        Ok(target) => target,
        Err(error) => return Ok(Err(error)),
    };
    let mut done = 0;
    while done < range.length {
        let most = usize::try_from(range.length - done).unwrap_or(usize::MAX).min(buffer.len());
        let into = buffer.get_mut(..most).unwrap_or_default();
        let count = match source.read_at(into, range.position + done) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if let Err(error) = target.write_all_at(into.get(..count).unwrap_or_default(), range.position + done)
        {
            return Ok(Err(error));
        }
        done += count as u64;
    }
    Ok(Ok(done))
}

fn modified(path: &Path) -> io::Result<FileDone> {
    let since_epoch = fs::metadata(path)?.modified()?.duration_since(std::time::UNIX_EPOCH);
    let ms = since_epoch.map_or(0, |time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
    Ok(FileDone::ModifiedMs(ms))
}

fn missing_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Files with their lengths, and directories with 0: those of a log directory are its replicas.
fn list(path: &Path) -> io::Result<FileDone> {
    let mut listing = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let length = if metadata.is_file() { metadata.len() } else { 0 };
        listing.push((entry.file_name().to_string_lossy().into_owned(), length));
    }
    listing.sort();
    Ok(FileDone::Listing(listing))
}

/// Kafka's name of a directory on its way out: `<topic>-<partition>.<32 hex digits><mark>`, the topic
/// cut so that it stays a valid file name.
fn set_aside(path: &Path, mark: &str) -> io::Result<PathBuf> {
    let target = path.with_file_name(aside_name(path, mark));
    fs::rename(path, &target)?;
    Ok(target)
}

fn aside_name(path: &Path, mark: &str) -> OsString {
    const NAME_LIMIT_BYTES: usize = 255;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Without its partition the name would not be known again.
    let (topic, partition) = name.rsplit_once('-').unwrap_or((&name, ""));
    let suffix = format!("-{partition}.{}{mark}", uuid::Uuid::new_v4().simple());
    let kept: String = topic.chars().take(NAME_LIMIT_BYTES - suffix.len()).collect();
    OsString::from(kept + &suffix)
}

/// Records are never thrown away by creating a file over them: whoever asks for that has missed
/// a replica that is there.
fn create(path: &Path, holds_records: bool, preallocate_bytes: u64) -> io::Result<OwnedFd> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o644).open(path)?;
    // A file that was cut to nothing is written back by whoever closes it first (ext4, auto_da_alloc), and the shard
    // keeps this one open: one that has nothing is left alone.
    match file.metadata()?.len() {
        0 => {}
        _ if holds_records => return Err(io::Error::from_raw_os_error(libc::EEXIST)),
        _ => file.set_len(0)?,
    }
    if preallocate_bytes > 0 {
        preallocate(&file, preallocate_bytes)?;
    }
    Ok(file.into())
}

/// Reserves the whole of a new file. Where there is not so much space the file is left as it is: what is not reserved
/// is allocated by each write.
fn preallocate(file: &File, bytes: u64) -> io::Result<()> {
    match reserve(file, 0, bytes) {
        // A part may be reserved, which would keep it from everyone else.
        Err(error) if file_error(&error) == FileError::NoSpace => file.set_len(0),
        other => other,
    }
}

/// Reserves a range behind the end of a file that is written meanwhile, where the device can spare it.
fn allocate(file: &File, position: u64, length: u64, spare_bytes: u64) -> io::Result<()> {
    let space = nix::sys::statvfs::fstatvfs(file)?;
    if space.blocks_available().saturating_mul(space.fragment_size()) < length.saturating_add(spare_bytes) {
        return Err(io::Error::from_raw_os_error(libc::ENOSPC));
    }
    reserve(file, position, length)
}

/// Reserves a range beyond the file's end, whose length stays. A file system that cannot leaves the file as it is.
fn reserve(file: &File, position: u64, length: u64) -> io::Result<()> {
    let [position, length] = [position, length].map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    match fallocate(file.as_fd(), FallocateFlags::FALLOC_FL_KEEP_SIZE, position, length) {
        Err(nix::errno::Errno::EOPNOTSUPP) => Ok(()),
        other => Ok(other?),
    }
}

/// Reads up to `length` bytes; fewer only at the end of the file. Memory grows with what is
/// there, not with what was asked for.
fn read_at(file: &File, position: u64, length: u64) -> io::Result<Bytes> {
    let left = file.metadata()?.len().saturating_sub(position);
    let mut bytes = vec![0; usize::try_from(length.min(left)).unwrap_or(usize::MAX)];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, position + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(Bytes::from(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_directory_lists_the_logs_in_it() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("t-0")).unwrap();
        fs::write(root.path().join("meta.properties"), "version=1").unwrap();
        let (result, _) = run(&OwnerDir { path: root.path().to_path_buf() }, &FileOp::List);
        let expected = vec![("meta.properties".to_string(), 9), ("t-0".to_string(), 0)];
        assert_eq!(result, Ok(FileDone::Listing(expected)));
    }

    #[test]
    fn operations_do_what_they_say_on_a_real_directory() {
        let root = tempfile::tempdir().unwrap();
        let dir = OwnerDir { path: root.path().join("t-0") };
        let file = FileName::from(Stem::Log(0));
        let done = |op: FileOp| run(&dir, &op).0.unwrap();
        done(FileOp::MakeDir);
        done(FileOp::Create { file, preallocate_bytes: 4096 });
        done(FileOp::Write { file, position: 2, bytes: Bytes::from_static(b"abc") });
        assert_eq!(
            done(FileOp::Read { file, position: 1, length: 100 }),
            FileDone::Bytes(Bytes::from_static(b"\0abc"))
        );
        let refused = run(&dir, &FileOp::Create { file, preallocate_bytes: 0 }).0;
        assert_eq!(refused, Err(FileError::Io(libc::EEXIST)), "records are never thrown away like this");
        done(FileOp::Allocate { file, position: 5, length: 1 << 20, spare_bytes: 0 });
        assert_eq!(fs::metadata(dir.file(file)).unwrap().len(), 5, "the length stays");
        let no_spare = FileOp::Allocate { file, position: 5, length: 1 << 20, spare_bytes: u64::MAX };
        assert_eq!(run(&dir, &no_spare).0, Err(FileError::NoSpace));
        done(FileOp::Truncate { file, length: 3 });
        let kept_bytes =
            fs::metadata(dir.file(file)).map(|m| std::os::unix::fs::MetadataExt::blocks(&m) * 512);
        assert!(kept_bytes.unwrap() <= 64 << 10, "what was reserved is given back");
        fs::create_dir(dir.path.join("inner-0")).unwrap();
        let (name, inner) = (file.to_string(), "inner-0".to_string());
        assert_eq!(done(FileOp::List), FileDone::Listing(vec![(name, 3), (inner, 0)]));
        done(FileOp::Sync { file });
        done(FileOp::SyncDir);
        done(FileOp::SyncParent);
        let missing = FileName::from(Stem::Log(9));
        assert_eq!(
            run(&dir, &FileOp::Read { file: missing, position: 0, length: 1 }).0,
            Err(FileError::NotFound)
        );
        done(FileOp::Delete { file: missing });
        let (result, aftermath) = run(&dir, &FileOp::RetireDir);
        assert_eq!(result, Ok(FileDone::Ok));
        let moved = OwnerDir { path: aftermath.moved.unwrap() };
        assert!(moved.path.to_string_lossy().ends_with("-delete"));
        assert_eq!(run(&moved, &FileOp::DeleteDir).0, Ok(FileDone::Ok));
        assert!(!moved.path.exists());
    }

    #[test]
    fn a_directory_set_aside_is_known_again_however_long_its_topic_is() {
        use crate::log::directory::{LogDirEntry, parse_directory_name};
        for topic in ["t".to_string(), "a-b.c".to_string(), "x".repeat(249)] {
            let root = tempfile::tempdir().unwrap();
            let dir = OwnerDir { path: root.path().join(format!("{topic}-1234")) };
            for (op, entry) in
                [(FileOp::RetireDir, LogDirEntry::Deleted), (FileOp::StrayDir, LogDirEntry::Stray)]
            {
                fs::create_dir(&dir.path).unwrap();
                run(&dir, &op).0.unwrap();
                let name = fs::read_dir(root.path()).unwrap().next().unwrap().unwrap().file_name();
                let name = name.to_string_lossy().into_owned();
                assert_eq!(parse_directory_name(&name), entry, "{name}");
                fs::remove_dir(root.path().join(name)).unwrap();
            }
        }
    }

    #[test]
    fn more_space_than_there_is_is_not_reserved_and_no_error() {
        let root = tempfile::tempdir().unwrap();
        let dir = OwnerDir { path: root.path().to_path_buf() };
        let file = FileName::from(Stem::Log(0));
        let create = FileOp::Create { file, preallocate_bytes: 1 << 50 };
        // Where the file system cannot have a file of that size, that is what it says.
        let result = run(&dir, &create).0;
        assert!(matches!(result, Ok(_) | Err(FileError::Io(libc::EFBIG))), "{result:?}");
    }
}
