//! Reading one whole file piece by piece.

use crate::effect::{FileName, FileOp};

/// Most bytes of one read.
const READ_BYTES: u64 = 1 << 20;

/// Reads one whole file whose length is known and bounded.
#[derive(Debug)]
pub(super) struct WholeRead {
    file: FileName,
    length: u64,
    bytes: Vec<u8>,
}

impl WholeRead {
    pub(super) fn new(file: FileName, length: u64) -> Self {
        Self { file, length, bytes: Vec::new() }
    }

    pub(super) fn next(&self) -> Option<FileOp> {
        let position = self.bytes.len() as u64;
        let length = self.length.saturating_sub(position).min(READ_BYTES);
        (length > 0).then_some(FileOp::Read { file: self.file, position, length })
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if bytes.is_empty() {
            self.length = self.bytes.len() as u64;
        }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}
