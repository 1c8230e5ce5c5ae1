//! Compressing one batch's records piece by piece, in what Java's clients read: gzip with one member, snappy in
//! xerial framing, LZ4 frames of independent 64 KiB blocks without checksums, one zstd frame.

use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd::zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, ResetDirective};

use super::pool::CodecPool;
use super::{Codec, XERIAL_HEADER};

const XERIAL_CHUNK_BYTES: usize = 32 * 1024;
const LZ4_BLOCK_BYTES: usize = 64 * 1024;
/// Output that gzip and zstd get room for at a time.
const ROOM_BYTES: usize = 16 * 1024;
/// Magic, version 1 with independent blocks and no checksums, blocks of 64 KiB, checksum of these two bytes.
const LZ4_HEADER: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82];
/// Deflate, no flags, no time, unknown system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// Compresses one body.
pub struct Encoder {
    state: State,
    /// What does not fill a chunk or block yet.
    waiting: Vec<u8>,
}

enum State {
    None,
    Gzip { level: u32, deflate: Compress, crc: Crc },
    Snappy(Box<snap::raw::Encoder>),
    Lz4,
    Zstd(CCtx<'static>),
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Encoder {{ waiting: {} bytes }}", self.waiting.len())
    }
}

impl Encoder {
    /// An encoder at a level of the codec's own scale, which falls back to its default; snappy and LZ4 (whose
    /// encoder here is the fast one) have none.
    pub fn new(codec: Codec, level: Option<i32>, pool: &mut CodecPool, out: &mut Vec<u8>) -> Self {
        let state = match codec {
            Codec::None => State::None,
            Codec::Gzip => {
                out.extend_from_slice(&GZIP_HEADER);
                let level = level.and_then(|level| u32::try_from(level).ok());
                let level =
                    level.filter(|level| (1..=9).contains(level)).unwrap_or(Compression::default().level());
                let kept = pool.deflate.take().filter(|(kept, _)| *kept == level).map(|(_, deflate)| deflate);
                let mut deflate = kept.unwrap_or_else(|| Compress::new(Compression::new(level), false));
                deflate.reset();
                State::Gzip { level, deflate, crc: Crc::new() }
            }
            Codec::Snappy => {
                out.extend_from_slice(&XERIAL_HEADER);
                State::Snappy(pool.snappy.take().unwrap_or_else(|| Box::new(snap::raw::Encoder::new())))
            }
            Codec::Lz4 => {
                out.extend_from_slice(&LZ4_HEADER);
                State::Lz4
            }
            Codec::Zstd => {
                let mut context = pool.zstd_encoder.take().unwrap_or_else(CCtx::create);
                let level = level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL);
                let begun = context.reset(ResetDirective::SessionOnly);
                let begun = begun.and_then(|_| context.set_parameter(CParameter::CompressionLevel(level)));
                begun.expect("zstd takes every level");
                State::Zstd(context)
            }
        };
        Self { state, waiting: Vec::new() }
    }

    /// Takes in more, and appends what is ready to `out`.
    pub fn write(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        match &mut self.state {
            State::None => out.extend_from_slice(plain),
            State::Gzip { deflate, crc, .. } => {
                crc.update(plain);
                deflate_all(deflate, plain, FlushCompress::None, out);
            }
            State::Zstd(context) => zstd_all(context, plain, ZSTD_EndDirective::ZSTD_e_continue, out),
            State::Snappy(_) | State::Lz4 => self.write_blocks(plain, out),
        }
    }

    fn write_blocks(&mut self, mut plain: &[u8], out: &mut Vec<u8>) {
        let block_bytes = if matches!(self.state, State::Lz4) { LZ4_BLOCK_BYTES } else { XERIAL_CHUNK_BYTES };
        while self.waiting.len() + plain.len() >= block_bytes {
            let (now, later) = plain.split_at(block_bytes - self.waiting.len());
            plain = later;
            if self.waiting.is_empty() {
                write_block(&mut self.state, now, out);
            } else {
                self.waiting.extend_from_slice(now);
                write_block(&mut self.state, &self.waiting, out);
                self.waiting.clear();
            }
        }
        self.waiting.extend_from_slice(plain);
    }

    /// Takes in the last piece, ends the stream and gives the codec's state back for the next batch.
    pub fn finish(mut self, plain: &[u8], out: &mut Vec<u8>, pool: &mut CodecPool) {
        match &mut self.state {
            State::Gzip { deflate, crc, .. } => {
                crc.update(plain);
                deflate_all(deflate, plain, FlushCompress::Finish, out);
                out.extend_from_slice(&crc.sum().to_le_bytes());
                out.extend_from_slice(&crc.amount().to_le_bytes());
            }
            State::Zstd(context) => zstd_all(context, plain, ZSTD_EndDirective::ZSTD_e_end, out),
            State::None | State::Snappy(_) | State::Lz4 => {
                self.write(plain, out);
                if !self.waiting.is_empty() {
                    write_block(&mut self.state, &self.waiting, out);
                }
            }
        }
        match self.state {
            State::None => {}
            State::Gzip { level, deflate, .. } => pool.deflate = Some((level, deflate)),
            State::Snappy(encoder) => pool.snappy = Some(encoder),
            // The end mark.
            State::Lz4 => out.extend_from_slice(&[0; 4]),
            State::Zstd(context) => pool.keep_zstd_encoder(context),
        }
    }
}

fn deflate_all(deflate: &mut Compress, plain: &[u8], flush: FlushCompress, out: &mut Vec<u8>) {
    let taken_before = deflate.total_in();
    loop {
        // A slice's length.
        let taken = (deflate.total_in() - taken_before) as usize;
        let rest = plain.get(taken..).unwrap_or_default();
        if flush == FlushCompress::None && rest.is_empty() {
            return;
        }
        out.reserve(ROOM_BYTES);
        let status = deflate.compress_vec(rest, out, flush).expect("deflating to memory succeeds");
        if status == Status::StreamEnd {
            return;
        }
    }
}

fn zstd_all(context: &mut CCtx<'static>, plain: &[u8], end: ZSTD_EndDirective, out: &mut Vec<u8>) {
    let mut source = InBuffer::around(plain);
    loop {
        let at = out.len();
        out.reserve(ROOM_BYTES);
        let mut target = OutBuffer::around_pos(out, at);
        let left = context.compress_stream2(&mut target, &mut source, end);
        let left = left.expect("compressing to memory succeeds");
        let done = match end {
            ZSTD_EndDirective::ZSTD_e_continue => source.pos() == plain.len(),
            _ => left == 0,
        };
        if done {
            return;
        }
    }
}

fn write_block(state: &mut State, block: &[u8], out: &mut Vec<u8>) {
    let at = out.len();
    if let State::Snappy(encoder) = state {
        out.resize(at + 4 + snap::raw::max_compress_len(block.len()), 0);
        let target = out.get_mut(at + 4..).unwrap_or_default();
        let length = encoder.compress(block, target).expect("a chunk is smaller than snappy's limit");
        out.truncate(at + 4 + length);
        put_length(out, at, (length as u32).to_be_bytes());
        return;
    }
    out.resize(at + 4 + lz4_flex::block::get_maximum_output_size(block.len()), 0);
    let target = out.get_mut(at + 4..).unwrap_or_default();
    let length = lz4_flex::block::compress_into(block, target).expect("the bound of the output is reserved");
    if length < block.len() {
        out.truncate(at + 4 + length);
        put_length(out, at, (length as u32).to_le_bytes());
    } else {
        const UNCOMPRESSED: u32 = 1 << 31;
        out.truncate(at + 4);
        put_length(out, at, (block.len() as u32 | UNCOMPRESSED).to_le_bytes());
        out.extend_from_slice(block);
    }
}

fn put_length(out: &mut [u8], at: usize, length: [u8; 4]) {
    let slot = out.get_mut(at..).and_then(|from| from.first_chunk_mut::<4>());
    *slot.expect("a block begins with its length") = length;
}
