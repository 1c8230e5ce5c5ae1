//! A directory in memory that carries out file operations, for tests and the simulator.
//!
//! It does what a file system does while nothing crashes; the first operation of a kind can be made
//! to fail.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::effect::{FileDone, FileError, FileName, FileOp, FileResult, Stem};

/// Operations that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Creating a file.
    Create,
    /// An append; with [`FileError::Short`] that many bytes are written before it fails.
    Append,
    /// A write.
    Write,
    /// A read.
    Read,
    /// A sync of a file.
    Sync,
    /// A reservation of blocks.
    Allocate,
    /// A truncation.
    Truncate,
}

/// The files of one owner.
#[derive(Clone, Debug, Default)]
pub struct MemoryDir {
    files: BTreeMap<FileName, Vec<u8>>,
    faults: Vec<(Kind, FileError)>,
    /// When every file was last changed, as far as anybody asks.
    pub modified_ms: i64,
}

/// What the kernel says of a file that is there already.
const EEXIST: i32 = 17;

impl MemoryDir {
    /// The next operation of that kind fails.
    pub fn fail_next(&mut self, kind: Kind, error: FileError) {
        self.faults.push((kind, error));
    }

    /// The bytes of a file.
    pub fn file(&self, name: impl Into<FileName>) -> Option<&[u8]> {
        self.files.get(&name.into()).map(Vec::as_slice)
    }

    /// The names of all files.
    pub fn names(&self) -> impl Iterator<Item = FileName> {
        self.files.keys().copied()
    }

    /// Carries out a [`FileOp::CopyFrom`] of another directory's file.
    pub fn copy_from(&mut self, other: &Self, op: &FileOp) -> FileResult {
        let FileOp::CopyFrom { file, position, length, .. } = op else { return Err(FileError::NotFound) };
        let Some(bytes) = other.files.get(file) else {
            return Ok(FileDone::Copied(Err(FileError::NotFound)));
        };
        let [from, to] = [*position, position.saturating_add(*length)]
            .map(|at| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len()));
        let part = bytes.get(from..to).unwrap_or_default();
        self.files.entry(*file).or_default();
        self.write(*file, *position, part)?;
        Ok(FileDone::Copied(Ok(part.len() as u64)))
    }

    /// Carries out one operation; `parts` are the bytes of an append.
    pub fn execute<'a>(
        &mut self,
        op: &FileOp,
        parts: impl Iterator<Item = (&'a [u8; 61], &'a [u8])>,
    ) -> FileResult {
        let fault = kind(op).and_then(|kind| {
            let at = self.faults.iter().position(|(fails, _)| *fails == kind)?;
            Some(self.faults.remove(at).1)
        });
        if let (FileOp::Append { base_offset, position, .. }, Some(FileError::Short { written })) =
            (op, fault)
        {
            let mut bytes = gathered(parts);
            bytes.truncate(usize::try_from(written).unwrap_or(usize::MAX));
            self.write(Stem::Log(*base_offset).into(), *position, &bytes)?;
            return Err(FileError::Short { written });
        }
        match fault {
            Some(error) => Err(error),
            None => self.carry_out(op, parts),
        }
    }

    fn carry_out<'a>(
        &mut self,
        op: &FileOp,
        parts: impl Iterator<Item = (&'a [u8; 61], &'a [u8])>,
    ) -> FileResult {
        match op {
            FileOp::MakeDir
            | FileOp::SyncParent
            | FileOp::SyncDir
            | FileOp::RetireDir
            | FileOp::StrayDir
            | FileOp::RenameDir { .. } => {}
            // There is no other directory: [`Self::copy_from`] has one.
            FileOp::CopyFrom { .. } => return Ok(FileDone::Copied(Err(FileError::NotFound))),
            FileOp::List => {
                let length = |bytes: &Vec<u8>| bytes.len() as u64;
                let mut list: Vec<_> =
                    self.files.iter().map(|(name, bytes)| (name.to_string(), length(bytes))).collect();
                list.sort();
                return Ok(FileDone::Listing(list));
            }
            FileOp::DeleteDir => self.files.clear(),
            FileOp::Create { file, .. } => {
                let records = self.files.get(file).filter(|_| matches!(file.stem, Stem::Log(_)));
                if records.is_some_and(|records| !records.is_empty()) {
                    return Err(FileError::Io(EEXIST));
                }
                self.files.insert(*file, Vec::new());
            }
            FileOp::Append { base_offset, position, length } => {
                let bytes = gathered(parts);
                assert_eq!(bytes.len() as u64, *length, "an append has the bytes it says");
                self.write(Stem::Log(*base_offset).into(), *position, &bytes)?;
            }
            FileOp::Write { file, position, bytes } => self.write(*file, *position, bytes)?,
            FileOp::Read { file, position, length } => {
                let bytes = self.files.get(file).ok_or(FileError::NotFound)?;
                let from = usize::try_from(*position).unwrap_or(usize::MAX).min(bytes.len());
                let to = usize::try_from(position + length).unwrap_or(usize::MAX).min(bytes.len());
                return Ok(FileDone::Bytes(Bytes::copy_from_slice(bytes.get(from..to).unwrap_or_default())));
            }
            FileOp::ModifiedAt { file } => {
                self.files.get(file).ok_or(FileError::NotFound)?;
                return Ok(FileDone::ModifiedMs(self.modified_ms));
            }
            FileOp::Sync { file } => {
                self.files.get(file).ok_or(FileError::NotFound)?;
            }
            FileOp::Allocate { file, .. } => {
                self.files.get(file).ok_or(FileError::NotFound)?;
            }
            FileOp::Truncate { file, length } => {
                let bytes = self.files.get_mut(file).ok_or(FileError::NotFound)?;
                bytes.resize(usize::try_from(*length).unwrap_or(usize::MAX), 0);
            }
            FileOp::Rename { from, to } => {
                let bytes = self.files.remove(from).ok_or(FileError::NotFound)?;
                self.files.insert(*to, bytes);
            }
            FileOp::Delete { file } => {
                self.files.remove(file);
            }
        }
        Ok(FileDone::Ok)
    }

    fn write(&mut self, file: FileName, position: u64, new: &[u8]) -> Result<(), FileError> {
        let bytes = self.files.get_mut(&file).ok_or(FileError::NotFound)?;
        let from = usize::try_from(position).map_err(|_| FileError::NoSpace)?;
        let to = from + new.len();
        if bytes.len() < to {
            bytes.resize(to, 0);
        }
        bytes.get_mut(from..to).expect("resized above").copy_from_slice(new);
        Ok(())
    }
}

fn gathered<'a>(parts: impl Iterator<Item = (&'a [u8; 61], &'a [u8])>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (header, body) in parts {
        bytes.extend_from_slice(header);
        bytes.extend_from_slice(body);
    }
    bytes
}

fn kind(op: &FileOp) -> Option<Kind> {
    match op {
        FileOp::Create { .. } => Some(Kind::Create),
        FileOp::Append { .. } => Some(Kind::Append),
        FileOp::Write { .. } => Some(Kind::Write),
        FileOp::Read { .. } => Some(Kind::Read),
        FileOp::Sync { .. } => Some(Kind::Sync),
        FileOp::Allocate { .. } => Some(Kind::Allocate),
        FileOp::Truncate { .. } => Some(Kind::Truncate),
        _ => None,
    }
}
