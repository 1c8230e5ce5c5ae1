//! Decompressing one batch's records piece by piece.
//!
//! A decoder borrows its input only while it is read, so that a check can stop between two pieces. It takes
//! what Kafka's own readers take: gzip with one or several members, snappy raw or in xerial framing (also
//! several such streams), one LZ4 frame of independent blocks, one or several zstd frames. Output grows only
//! as the input bears it out, and never beyond the limit.

use flate2::{Crc, Decompress, FlushDecompress, Status};
use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, ResetDirective};

use super::pool::CodecPool;
use super::xxh32::Xxh32;
use super::{Codec, CodecError, SNAPPY_RATIO_MAX, XERIAL_HEADER_BYTES, XERIAL_MAGIC, ZSTD_WINDOW_LOG_MAX};

/// Output that gzip and zstd are asked for at a time.
pub const PIECE_BYTES: usize = 64 * 1024;

const ZSTD_CALLS_MAX: usize = 16;

/// Decompresses one compressed body. The same bytes have to be given to every [`Self::read`].
pub struct Decoder {
    /// Input that has been taken.
    at: usize,
    /// Output that was given.
    given: u64,
    limit_bytes: u64,
    state: State,
}

enum State {
    Gzip(Gzip),
    Snappy { begun: bool, framed: bool },
    Lz4(Lz4),
    Zstd { context: DCtx<'static>, frame_ended: bool },
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { at, given, limit_bytes, state: _ } = self;
        write!(f, "Decoder {{ at: {at}, given: {given}, limit_bytes: {limit_bytes} }}")
    }
}

impl Decoder {
    /// A decoder that gives at most `limit_bytes`; `None` where nothing is compressed.
    pub fn new(codec: Codec, limit_bytes: u64, pool: &mut CodecPool) -> Option<Self> {
        let state = match codec {
            Codec::None => return None,
            Codec::Gzip => {
                let inflate = pool.inflate.take().unwrap_or_else(|| Decompress::new(false));
                State::Gzip(Gzip { inflate, crc: Crc::new(), in_member: false, begun: false })
            }
            Codec::Snappy => State::Snappy { begun: false, framed: false },
            Codec::Lz4 => State::Lz4(Lz4::default()),
            Codec::Zstd => {
                let context = pool.zstd_decoder.take().unwrap_or_else(zstd_context);
                State::Zstd { context, frame_ended: false }
            }
        };
        Some(Self { at: 0, given: 0, limit_bytes, state })
    }

    /// Appends the next piece to `out`: about [`PIECE_BYTES`], or one block of the codec where that is
    /// larger. Says whether that was the last one.
    pub fn read(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<bool, CodecError> {
        let before = out.len();
        let rest = input.get(self.at..).unwrap_or_default();
        let left_bytes = self.limit_bytes - self.given;
        let (taken, ended) = match &mut self.state {
            State::Gzip(gzip) => gzip.read(rest, out)?,
            State::Snappy { begun, framed } => {
                if !std::mem::replace(begun, true) {
                    *framed = rest.starts_with(&XERIAL_MAGIC);
                }
                let read =
                    if *framed { xerial_chunk(rest, out, left_bytes) } else { block(rest, out, left_bytes) };
                read.map_err(|error| self.named(error))?
            }
            State::Lz4(lz4) => lz4.read(rest, out)?,
            State::Zstd { context, frame_ended } => zstd_piece(context, frame_ended, rest, out)?,
        };
        self.at += taken;
        self.given += (out.len() - before) as u64;
        if self.given > self.limit_bytes {
            return Err(CodecError::TooLarge(self.limit_bytes));
        }
        Ok(ended)
    }

    /// Snappy knows a block's length beforehand and refuses it by what is left of the limit.
    fn named(&self, error: CodecError) -> CodecError {
        match error {
            CodecError::TooLarge(_) => CodecError::TooLarge(self.limit_bytes),
            CodecError::Corrupt => error,
        }
    }

    /// Gives the codec's state back for the next batch.
    pub fn retire(self, pool: &mut CodecPool) {
        match self.state {
            State::Gzip(gzip) => pool.inflate = Some(gzip.inflate),
            State::Zstd { context, .. } => pool.keep_zstd_decoder(context),
            State::Snappy { .. } | State::Lz4(_) => {}
        }
    }
}

/// Room for that many more bytes at the end of `out`, and how long it was before.
fn room(out: &mut Vec<u8>, bytes: usize) -> (usize, &mut [u8]) {
    let before = out.len();
    out.resize(before + bytes, 0);
    (before, out.get_mut(before..).unwrap_or_default())
}

struct Gzip {
    inflate: Decompress,
    crc: Crc,
    in_member: bool,
    begun: bool,
}

impl Gzip {
    fn read(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, bool), CodecError> {
        let mut rest = input;
        if !self.in_member {
            if input.is_empty() && self.begun {
                return Ok((0, true));
            }
            rest = behind_gzip_header(rest).ok_or(CodecError::Corrupt)?;
            self.inflate.reset(false);
            self.crc.reset();
            (self.in_member, self.begun) = (true, true);
        }
        let (in_before, out_before) = (self.inflate.total_in(), self.inflate.total_out());
        let (start, target) = room(out, PIECE_BYTES);
        let status = self.inflate.decompress(rest, target, FlushDecompress::None);
        let status = status.map_err(|_| CodecError::Corrupt)?;
        // Both are lengths of slices.
        let taken = (self.inflate.total_in() - in_before) as usize;
        let given = (self.inflate.total_out() - out_before) as usize;
        out.truncate(start + given);
        self.crc.update(out.get(start..).unwrap_or_default());
        rest = rest.get(taken..).unwrap_or_default();
        if status == Status::StreamEnd {
            let (crc, behind) = rest.split_first_chunk::<4>().ok_or(CodecError::Corrupt)?;
            let (length, behind) = behind.split_first_chunk::<4>().ok_or(CodecError::Corrupt)?;
            if u32::from_le_bytes(*crc) != self.crc.sum() || u32::from_le_bytes(*length) != self.crc.amount()
            {
                return Err(CodecError::Corrupt);
            }
            self.in_member = false;
            rest = behind;
        } else if taken == 0 && given == 0 {
            return Err(CodecError::Corrupt);
        }
        Ok((input.len() - rest.len(), !self.in_member && rest.is_empty()))
    }
}

/// What follows the header of a gzip member (RFC 1952).
fn behind_gzip_header(input: &[u8]) -> Option<&[u8]> {
    let (fixed, mut rest) = input.split_first_chunk::<10>()?;
    let [0x1f, 0x8b, 8, flags, ..] = *fixed else { return None };
    let (has_crc, has_extra, has_name, has_comment) =
        (flags & 2 != 0, flags & 4 != 0, flags & 8 != 0, flags & 16 != 0);
    if flags & 0xe0 != 0 {
        return None;
    }
    if has_extra {
        let (length, behind) = rest.split_first_chunk::<2>()?;
        (_, rest) = behind.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    }
    for _ in 0..u8::from(has_name) + u8::from(has_comment) {
        let end = rest.iter().position(|byte| *byte == 0)?;
        (_, rest) = rest.split_at_checked(end + 1)?;
    }
    if has_crc {
        let mut crc = Crc::new();
        crc.update(input.get(..input.len() - rest.len())?);
        let (stored, behind) = rest.split_first_chunk::<2>()?;
        if u32::from(u16::from_le_bytes(*stored)) != crc.sum() & 0xffff {
            return None;
        }
        rest = behind;
    }
    Some(rest)
}

/// The next chunk of a xerial stream; a further stream's header may stand between two chunks.
fn xerial_chunk(input: &[u8], out: &mut Vec<u8>, left_bytes: u64) -> Result<(usize, bool), CodecError> {
    let mut rest = input;
    while rest.starts_with(&XERIAL_MAGIC) {
        let (header, behind) = rest.split_first_chunk::<XERIAL_HEADER_BYTES>().ok_or(CodecError::Corrupt)?;
        let [.., version_0, version_1, version_2, version_3, _, _, _, _] = *header;
        if i32::from_be_bytes([version_0, version_1, version_2, version_3]) < 1 {
            return Err(CodecError::Corrupt);
        }
        rest = behind;
    }
    if rest.is_empty() {
        return Ok((input.len(), true));
    }
    let (length, behind) = rest.split_first_chunk::<4>().ok_or(CodecError::Corrupt)?;
    let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| CodecError::Corrupt)?;
    let (chunk, behind) = behind.split_at_checked(length).ok_or(CodecError::Corrupt)?;
    block(chunk, out, left_bytes)?;
    Ok((input.len() - behind.len(), behind.is_empty()))
}

fn block(input: &[u8], out: &mut Vec<u8>, left_bytes: u64) -> Result<(usize, bool), CodecError> {
    let length = snap::raw::decompress_len(input).map_err(|_| CodecError::Corrupt)?;
    if length > input.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(CodecError::Corrupt);
    }
    if length as u64 > left_bytes {
        return Err(CodecError::TooLarge(left_bytes));
    }
    let (_, target) = room(out, length);
    let written = snap::raw::Decoder::new().decompress(input, target).map_err(|_| CodecError::Corrupt)?;
    if written == length { Ok((input.len(), true)) } else { Err(CodecError::Corrupt) }
}

/// One LZ4 frame as Java's decoder takes it: version 1, independent blocks, no dictionary, an end mark.
#[derive(Default)]
struct Lz4 {
    /// `None` before the frame's header.
    frame: Option<Lz4Frame>,
}

struct Lz4Frame {
    block_bytes_max: usize,
    block_checksums: bool,
    content_checksum: Option<Xxh32>,
    /// What the header says that the content has and did not come yet.
    content_bytes_left: Option<u64>,
}

impl Lz4 {
    fn read(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, bool), CodecError> {
        let mut rest = input;
        let frame = match &mut self.frame {
            Some(frame) => frame,
            none => {
                let (frame, behind) = lz4_header(rest).ok_or(CodecError::Corrupt)?;
                rest = behind;
                none.insert(frame)
            }
        };
        let (rest, ended) = frame.read(rest, out).ok_or(CodecError::Corrupt)?;
        Ok((input.len() - rest.len(), ended))
    }
}

impl Lz4Frame {
    fn read<'a>(&mut self, input: &'a [u8], out: &mut Vec<u8>) -> Option<(&'a [u8], bool)> {
        const UNCOMPRESSED: u32 = 1 << 31;
        let (mark, rest) = input.split_first_chunk::<4>()?;
        let mark = u32::from_le_bytes(*mark);
        if mark == 0 {
            return self.end(rest).then_some((&[], true));
        }
        let length = (mark & !UNCOMPRESSED) as usize;
        let (block, mut rest) = rest.split_at_checked(length).filter(|_| length <= self.block_bytes_max)?;
        if self.block_checksums {
            let (checksum, behind) = rest.split_first_chunk::<4>()?;
            if u32::from_le_bytes(*checksum) != Xxh32::of(block) {
                return None;
            }
            rest = behind;
        }
        let before = out.len();
        if mark & UNCOMPRESSED != 0 {
            out.extend_from_slice(block);
        } else {
            // A byte of a block gives at most 255.
            let (_, target) = room(out, self.block_bytes_max.min(length.saturating_mul(255)));
            let given = lz4_flex::block::decompress_into(block, target).ok()?;
            out.truncate(before + given);
        }
        let given = out.get(before..).unwrap_or_default();
        if let Some(checksum) = &mut self.content_checksum {
            checksum.write(given);
        }
        if let Some(left) = &mut self.content_bytes_left {
            *left = left.checked_sub(given.len() as u64)?;
        }
        Some((rest, false))
    }

    /// Whether the frame ends as it should; nothing may stand behind it.
    fn end(&self, rest: &[u8]) -> bool {
        let checksum = match &self.content_checksum {
            Some(checksum) => rest == checksum.sum().to_le_bytes(),
            None => rest.is_empty(),
        };
        checksum && self.content_bytes_left.is_none_or(|left| left == 0)
    }
}

fn lz4_header(input: &[u8]) -> Option<(Lz4Frame, &[u8])> {
    const MAGIC: [u8; 4] = 0x184d_2204_u32.to_le_bytes();
    let (magic, described) = input.split_first_chunk::<4>()?;
    let ([flags, block_size], mut rest) = described.split_first_chunk::<2>()?;
    let version_and_independent_blocks = flags & 0b1110_0011 == 0b0110_0000;
    let block_bytes_max = match block_size {
        0x40 => 64 << 10,
        0x50 => 256 << 10,
        0x60 => 1 << 20,
        0x70 => 4 << 20,
        _ => return None,
    };
    if *magic != MAGIC || !version_and_independent_blocks {
        return None;
    }
    let mut content_bytes_left = None;
    if flags & 0b1000 != 0 {
        let (size, behind) = rest.split_first_chunk::<8>()?;
        content_bytes_left = Some(u64::from_le_bytes(*size));
        rest = behind;
    }
    let descriptor = described.get(..described.len() - rest.len())?;
    let (checksum, rest) = rest.split_first()?;
    let [_, second, ..] = Xxh32::of(descriptor).to_le_bytes();
    if *checksum != second {
        return None;
    }
    let content_checksum = (flags & 0b100 != 0).then(Xxh32::default);
    let block_checksums = flags & 0b1_0000 != 0;
    Some((Lz4Frame { block_bytes_max, block_checksums, content_checksum, content_bytes_left }, rest))
}

fn zstd_context() -> DCtx<'static> {
    let mut context = DCtx::create();
    let bounded = context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX));
    bounded.expect("the window's bound is one that zstd knows");
    context
}

fn zstd_piece(
    context: &mut DCtx<'static>,
    frame_ended: &mut bool,
    input: &[u8],
    out: &mut Vec<u8>,
) -> Result<(usize, bool), CodecError> {
    let (start, target) = room(out, PIECE_BYTES);
    let mut source = InBuffer::around(input);
    let mut given = OutBuffer::around(target);
    // Frames without content give no output: their number in one go is bounded.
    for _ in 0..ZSTD_CALLS_MAX {
        let hint = context.decompress_stream(&mut given, &mut source).map_err(|_| CodecError::Corrupt)?;
        *frame_ended = hint == 0;
        let all_taken = source.pos() == input.len();
        let full = given.pos() == given.capacity();
        if all_taken && !full && !*frame_ended {
            return Err(CodecError::Corrupt);
        }
        if full || (all_taken && *frame_ended) {
            break;
        }
    }
    let (taken, given) = (source.pos(), given.pos());
    out.truncate(start + given);
    Ok((taken, *frame_ended && taken == input.len()))
}

/// A context kept from another batch begins anew.
pub(super) fn begin_again(context: &mut DCtx<'static>) -> bool {
    context.reset(ResetDirective::SessionOnly).is_ok()
}
