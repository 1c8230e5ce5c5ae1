//! Compressed records, decompressed into a window that moves over them.

use super::super::codec::{Codec, CodecError, CodecPool, Decoder};
use super::tally::Tally;
use super::{BatchRejection, Budget};

/// What decompressing one piece costs whatever it gives.
pub(super) const PIECE_NS: usize = 1000;
/// Uncompressed records that are compressed between two looks at the budget.
pub(super) const RECODE_BYTES: usize = 16 * 1024;

/// Where reading records stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// The budget is spent.
    Spent,
    /// More bytes are needed.
    Starved,
    /// Everything is read.
    Done,
}

/// What decompressing costs, estimated.
pub(super) fn ns_per_64_bytes(codec: Codec) -> usize {
    match codec {
        Codec::None => 0,
        Codec::Gzip => 220,
        Codec::Zstd => 80,
        Codec::Snappy | Codec::Lz4 => 50,
    }
}

/// See the module. The records themselves are not kept: what was read leaves the window.
#[derive(Debug)]
pub(super) struct Stream {
    decoder: Decoder,
    window: Vec<u8>,
    /// What was read of the window.
    at: usize,
    ended: bool,
    starved: bool,
}

impl Stream {
    pub(super) fn new(decoder: Decoder, pool: &mut CodecPool) -> Self {
        Self { decoder, window: pool.take_buffer(), at: 0, ended: false, starved: true }
    }

    /// Whether the records that are there are read, and others are to come.
    pub(super) fn wants_more(&self) -> bool {
        self.starved && !self.ended
    }

    /// Decompresses the next piece, and gives it.
    pub(super) fn read(&mut self, body: &[u8]) -> Result<&[u8], CodecError> {
        self.window.drain(..self.at);
        self.at = 0;
        let before = self.window.len();
        self.ended = self.decoder.read(body, &mut self.window)?;
        Ok(self.window.get(before..).unwrap_or_default())
    }

    /// Reads the records that are there, as far as the budget goes.
    pub(super) fn check(&mut self, tally: &mut Tally, budget: &mut Budget) -> Result<Pause, BatchRejection> {
        let mut rest = self.window.get(self.at..).unwrap_or_default();
        let pause = tally.read(&mut rest, self.ended, budget)?;
        self.at = self.window.len() - rest.len();
        self.starved = pause == Pause::Starved;
        Ok(pause)
    }

    #[cfg(test)]
    pub(super) fn window_bytes(&self) -> usize {
        self.window.capacity()
    }

    /// Gives everything back that the next batch can use.
    pub(super) fn retire(self, pool: &mut CodecPool) {
        self.decoder.retire(pool);
        pool.give_buffer(self.window);
    }
}
