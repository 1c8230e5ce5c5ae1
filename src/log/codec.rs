//! The compression codecs of record batches, with bounded output.
//!
//! What is compressed is what Java's clients read: gzip with one member, snappy in xerial framing, LZ4
//! frames of independent 64 KiB blocks without checksums, one zstd frame. What is decompressed is
//! also what other clients write (raw snappy, larger LZ4 blocks). No output exceeds the limit that the
//! caller gives, whatever the input claims, and no memory is reserved by a length from the input that
//! the input's size cannot bear out.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

/// What a decompressed batch may always have.
pub const DECOMPRESSED_BYTES_FLOOR: u64 = 32 << 20;
/// What a larger batch may have, in multiples of its compressed bytes.
pub const DECOMPRESSED_RATIO_MAX: u64 = 32;
/// What no decompressed batch may exceed.
pub const DECOMPRESSED_BYTES_MAX: u64 = 256 << 20;
/// The largest zstd window that is accepted, as a power of two; it is what Java's decoder accepts.
/// The window's memory is touched only as output fills it, so the output limit bounds it too.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// More output per input byte is impossible in snappy: its densest element is 3 bytes for 64.
const SNAPPY_RATIO_MAX: usize = 32;
/// What a decompressor keeps for the next batch.
const SCRATCH_KEPT_BYTES: usize = 1 << 20;

const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// Magic, version 1, compatible with version 1.
const XERIAL_HEADER: [u8; 16] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];
const XERIAL_CHUNK_BYTES: usize = 32 * 1024;

/// How the records of a batch are compressed; the number is that of the batch's attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Not at all.
    None = 0,
    /// gzip (RFC 1952).
    Gzip = 1,
    /// Snappy, in xerial framing or raw.
    Snappy = 2,
    /// LZ4 frames.
    Lz4 = 3,
    /// Zstandard.
    Zstd = 4,
}

impl Codec {
    /// Every codec, by id.
    pub const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    /// The codec that the lowest three attribute bits name.
    pub fn from_id(id: i16) -> Option<Codec> {
        Self::ALL.into_iter().find(|codec| codec.id() == id)
    }

    /// Its number in the attributes.
    pub fn id(self) -> i16 {
        self as i16
    }
}

/// Why compressed bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes are not what the codec makes.
    #[error("the compressed records cannot be decompressed")]
    Corrupt,
    /// There is more output than allowed.
    #[error("the compressed records have more than {0} bytes")]
    TooLarge(u64),
}

/// How many bytes the records of a batch with that many compressed bytes may have.
pub fn decompressed_bytes_limit(compressed_bytes: usize) -> u64 {
    let by_ratio = (compressed_bytes as u64).saturating_mul(DECOMPRESSED_RATIO_MAX);
    by_ratio.clamp(DECOMPRESSED_BYTES_FLOOR, DECOMPRESSED_BYTES_MAX)
}

/// Decompresses batch after batch into a buffer that it keeps.
#[derive(Debug, Default)]
pub struct Decompressor {
    scratch: Vec<u8>,
}

impl Decompressor {
    /// The decompressed bytes, at most `limit_bytes` of them.
    pub fn decompress(&mut self, codec: Codec, input: &[u8], limit_bytes: u64) -> Result<&[u8], CodecError> {
        self.scratch.clear();
        self.scratch.shrink_to(SCRATCH_KEPT_BYTES);
        let out = &mut self.scratch;
        match codec {
            Codec::None if input.len() as u64 > limit_bytes => return Err(CodecError::TooLarge(limit_bytes)),
            Codec::None => out.extend_from_slice(input),
            Codec::Gzip => gunzip(input, out, limit_bytes)?,
            Codec::Snappy => unsnappy(input, out, limit_bytes)?,
            Codec::Lz4 => unlz4(input, out, limit_bytes)?,
            Codec::Zstd => unzstd(input, out, limit_bytes)?,
        }
        Ok(out)
    }
}

/// Reads to the end, growing `out` only as bytes arrive.
fn read_bounded(reader: impl Read, out: &mut Vec<u8>, limit_bytes: u64) -> Result<(), CodecError> {
    let read =
        reader.take(limit_bytes.saturating_add(1)).read_to_end(out).map_err(|_| CodecError::Corrupt)?;
    if read as u64 > limit_bytes { Err(CodecError::TooLarge(limit_bytes)) } else { Ok(()) }
}

fn gunzip(input: &[u8], out: &mut Vec<u8>, limit_bytes: u64) -> Result<(), CodecError> {
    let mut decoder = GzDecoder::new(input);
    read_bounded(&mut decoder, out, limit_bytes)?;
    // One member and nothing behind it.
    if decoder.into_inner().is_empty() { Ok(()) } else { Err(CodecError::Corrupt) }
}

fn unzstd(input: &[u8], out: &mut Vec<u8>, limit_bytes: u64) -> Result<(), CodecError> {
    if input.is_empty() {
        return Err(CodecError::Corrupt);
    }
    let mut decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(|_| CodecError::Corrupt)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|_| CodecError::Corrupt)?;
    read_bounded(decoder, out, limit_bytes)
}

fn unlz4(input: &[u8], out: &mut Vec<u8>, limit_bytes: u64) -> Result<(), CodecError> {
    if !is_whole_lz4_frame(input).unwrap_or(false) {
        return Err(CodecError::Corrupt);
    }
    read_bounded(FrameDecoder::new(input), out, limit_bytes)
}

/// Whether the bytes are one frame that Java's decoder takes: version 1, independent blocks, no
/// dictionary, an end mark, and nothing behind it. `None` when they end too early.
fn is_whole_lz4_frame(input: &[u8]) -> Option<bool> {
    const MAGIC: [u8; 4] = 0x184d_2204_u32.to_le_bytes();
    let (magic, rest) = input.split_first_chunk::<4>()?;
    let ([flags, _block_size], rest) = rest.split_first_chunk::<2>()?;
    let version_and_independent_blocks = flags & 0b1110_0011 == 0b0110_0000;
    if *magic != MAGIC || !version_and_independent_blocks {
        return Some(false);
    }
    let content_size_bytes = if flags & 0b1000 != 0 { 8 } else { 0 };
    let block_checksum_bytes = if flags & 0b1_0000 != 0 { 4 } else { 0 };
    let content_checksum_bytes = if flags & 0b100 != 0 { 4 } else { 0 };
    // The descriptor ends with its checksum, which the decoder verifies.
    let (_, mut rest) = rest.split_at_checked(content_size_bytes + 1)?;
    loop {
        let (block, after) = rest.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*block) & 0x7fff_ffff;
        if length == 0 {
            return Some(after.len() == content_checksum_bytes);
        }
        (_, rest) = after.split_at_checked(length as usize + block_checksum_bytes)?;
    }
}

fn unsnappy(input: &[u8], out: &mut Vec<u8>, limit_bytes: u64) -> Result<(), CodecError> {
    if !input.starts_with(&XERIAL_MAGIC) {
        return unsnappy_block(input, out, limit_bytes);
    }
    let (_, mut rest) = input.split_at_checked(XERIAL_HEADER.len()).ok_or(CodecError::Corrupt)?;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>().ok_or(CodecError::Corrupt)?;
        let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| CodecError::Corrupt)?;
        let (chunk, after) = after.split_at_checked(length).ok_or(CodecError::Corrupt)?;
        unsnappy_block(chunk, out, limit_bytes)?;
        rest = after;
    }
    Ok(())
}

fn unsnappy_block(block: &[u8], out: &mut Vec<u8>, limit_bytes: u64) -> Result<(), CodecError> {
    let length = snap::raw::decompress_len(block).map_err(|_| CodecError::Corrupt)?;
    if length > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(CodecError::Corrupt);
    }
    let from = out.len();
    let end = from.saturating_add(length);
    if end as u64 > limit_bytes {
        return Err(CodecError::TooLarge(limit_bytes));
    }
    out.resize(end, 0);
    let target = out.get_mut(from..).unwrap_or_default();
    let written = snap::raw::Decoder::new().decompress(block, target).map_err(|_| CodecError::Corrupt)?;
    if written == length { Ok(()) } else { Err(CodecError::Corrupt) }
}

/// Appends the compressed form of `input` to `out`. The level is of the codec's own scale and falls back to
/// its default; snappy and LZ4 (whose encoder here is the fast one) have none.
pub fn compress(codec: Codec, level: Option<i32>, input: &[u8], out: &mut Vec<u8>) {
    match codec {
        Codec::None => out.extend_from_slice(input),
        Codec::Gzip => {
            let level =
                level.and_then(|level| u32::try_from(level).ok()).filter(|level| (1..=9).contains(level));
            let level = level.map_or(Compression::default(), Compression::new);
            let mut encoder = GzEncoder::new(out, level);
            encoder.write_all(input).and_then(|()| encoder.finish()).expect("writing to memory succeeds");
        }
        Codec::Snappy => snappy(input, out),
        Codec::Lz4 => {
            let info = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
            let mut encoder = FrameEncoder::with_frame_info(info, out);
            encoder.write_all(input).expect("writing to memory succeeds");
            encoder.finish().expect("writing to memory succeeds");
        }
        Codec::Zstd => {
            let level = level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL);
            let frame = zstd::bulk::compress(input, level).expect("the bound of the output is reserved");
            out.extend_from_slice(&frame);
        }
    }
}

fn snappy(input: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&XERIAL_HEADER);
    let mut encoder = snap::raw::Encoder::new();
    for chunk in input.chunks(XERIAL_CHUNK_BYTES) {
        let block = encoder.compress_vec(chunk).expect("a chunk is smaller than snappy's limit");
        let length = i32::try_from(block.len()).expect("a chunk is smaller than 2 GiB");
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&block);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compressed(codec: Codec, input: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        compress(codec, None, input, &mut out);
        out
    }

    fn decompressed(codec: Codec, input: &[u8]) -> Result<Vec<u8>, CodecError> {
        let limit = decompressed_bytes_limit(input.len());
        Decompressor::default().decompress(codec, input, limit).map(<[u8]>::to_vec)
    }

    /// Compressible, and longer than one block of every codec.
    fn text() -> Vec<u8> {
        (0..40_000_u32).flat_map(|n| (n / 7).to_be_bytes()).collect()
    }

    #[test]
    fn what_goes_in_comes_out() {
        let mut decompressor = Decompressor::default();
        for codec in Codec::ALL {
            for input in [Vec::new(), b"x".to_vec(), text()] {
                let packed = compressed(codec, &input);
                let out = decompressor.decompress(codec, &packed, 1 << 20).unwrap();
                assert!(out == input, "{codec:?} of {} bytes", input.len());
            }
        }
    }

    #[test]
    fn a_cut_or_extended_stream_is_refused() {
        for codec in [Codec::Gzip, Codec::Lz4, Codec::Zstd, Codec::Snappy] {
            let packed = compressed(codec, &text());
            for cut in [0, 1, 7, packed.len() / 2, packed.len() - 1] {
                let cut_off = decompressed(codec, &packed[..cut]);
                assert_eq!(cut_off, Err(CodecError::Corrupt), "{codec:?} cut at {cut}");
            }
            let mut longer = packed.clone();
            longer.push(1);
            assert_eq!(
                decompressed(codec, &longer),
                Err(CodecError::Corrupt),
                "{codec:?} with a byte behind"
            );
        }
    }

    #[test]
    fn an_lz4_frame_without_its_end_mark_is_refused() {
        let packed = compressed(Codec::Lz4, &text());
        assert_eq!(decompressed(Codec::Lz4, &packed[..packed.len() - 4]), Err(CodecError::Corrupt));
    }

    #[test]
    fn bombs_stop_at_the_limit() {
        let zeros = vec![0; 8 << 20];
        for codec in [Codec::Gzip, Codec::Lz4, Codec::Zstd, Codec::Snappy] {
            let bomb = compressed(codec, &zeros);
            let mut decompressor = Decompressor::default();
            let limit = 1 << 20;
            assert_eq!(
                decompressor.decompress(codec, &bomb, limit),
                Err(CodecError::TooLarge(limit)),
                "{codec:?}"
            );
            assert!(
                decompressor.scratch.capacity() <= 4 << 20,
                "{codec:?}: {}",
                decompressor.scratch.capacity()
            );
        }
    }

    #[test]
    fn a_snappy_length_that_the_input_cannot_bear_out_reserves_nothing() {
        // The varint 0xffff_ff7f: a claim of 256 MiB by six bytes.
        let claim = [0xff, 0xff, 0xff, 0x7f, 0, 0];
        let mut decompressor = Decompressor::default();
        assert_eq!(decompressor.decompress(Codec::Snappy, &claim, u64::MAX), Err(CodecError::Corrupt));
        assert_eq!(decompressor.scratch.capacity(), 0);
    }

    #[test]
    fn raw_snappy_is_read_too() {
        let packed = snap::raw::Encoder::new().compress_vec(&text()).unwrap();
        assert!(decompressed(Codec::Snappy, &packed).unwrap() == text());
    }

    #[test]
    fn lz4_frames_are_what_java_reads() {
        let packed = compressed(Codec::Lz4, &text());
        assert_eq!(packed[..4], [0x04, 0x22, 0x4d, 0x18]);
        assert_eq!(packed[4..6], [0b0110_0000, 0x40], "independent 64 KiB blocks, no checksums");
        let linked = FrameInfo::new().block_mode(BlockMode::Linked);
        let mut encoder = FrameEncoder::with_frame_info(linked, Vec::new());
        encoder.write_all(&text()).unwrap();
        let linked = encoder.finish().unwrap();
        assert_eq!(decompressed(Codec::Lz4, &linked), Err(CodecError::Corrupt), "Java refuses linked blocks");
    }

    proptest! {
        #[test]
        fn garbage_is_decompressed_or_refused(input: Vec<u8>) {
            for codec in Codec::ALL {
                let _ = decompressed(codec, &input);
            }
        }

        #[test]
        fn a_changed_byte_never_panics(at in 0_usize..200, byte: u8) {
            for codec in Codec::ALL {
                let mut packed = compressed(codec, &text()[..4000]);
                if let Some(changed) = packed.get_mut(at) {
                    *changed = byte;
                }
                let _ = decompressed(codec, &packed);
            }
        }
    }
}
