//! States of codecs that a shard keeps from one batch to the next, at most one of each kind and none that has
//! grown large: building one costs as much as decompressing a small batch.

use flate2::{Compress, Decompress};
use zstd::zstd_safe::{CCtx, DCtx};

use super::decode;

/// A kept state, and a kept buffer, is at most this large.
const KEPT_BYTES_MAX: usize = 4 << 20;
const KEPT_BUFFER_BYTES_MAX: usize = 256 << 10;

/// See the module. An empty one allocates nothing.
#[derive(Default)]
pub struct CodecPool {
    pub(super) inflate: Option<Decompress>,
    pub(super) zstd_decoder: Option<DCtx<'static>>,
    pub(super) zstd_encoder: Option<CCtx<'static>>,
    /// With its level.
    pub(super) deflate: Option<(u32, Compress)>,
    pub(super) snappy: Option<Box<snap::raw::Encoder>>,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for CodecPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CodecPool {{ buffer: {} bytes }}", self.buffer.capacity())
    }
}

impl CodecPool {
    pub(super) fn keep_zstd_decoder(&mut self, mut context: DCtx<'static>) {
        if context.sizeof() <= KEPT_BYTES_MAX && decode::begin_again(&mut context) {
            self.zstd_decoder = Some(context);
        }
    }

    pub(super) fn keep_zstd_encoder(&mut self, context: CCtx<'static>) {
        if context.sizeof() <= KEPT_BYTES_MAX {
            self.zstd_encoder = Some(context);
        }
    }

    /// An empty buffer, which may have room already.
    pub fn take_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// Gives a buffer back for the next batch.
    pub fn give_buffer(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= KEPT_BUFFER_BYTES_MAX {
            buffer.clear();
            self.buffer = buffer;
        }
    }
}
