//! The compression codecs of record batches, with bounded output.
//!
//! [`Encoder`] writes what Java's clients read; [`Decoder`] reads what Kafka's own readers take, whoever wrote it.
//! Both go piece by piece. No output exceeds the limit that the caller gives, whatever the input claims, and no
//! memory is reserved by a length from the input that the input's size cannot bear out.

mod decode;
mod encode;
mod pool;
mod xxh32;

pub use decode::{Decoder, PIECE_BYTES};
pub use encode::Encoder;
pub use pool::CodecPool;

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
const XERIAL_HEADER_BYTES: usize = 16;
/// Magic, version 1, compatible with version 1.
const XERIAL_HEADER: [u8; XERIAL_HEADER_BYTES] =
    [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];

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

/// Decompresses whole batches, one after another, into a buffer that it keeps.
#[derive(Debug, Default)]
pub struct Decompressor {
    scratch: Vec<u8>,
    pool: CodecPool,
}

impl Decompressor {
    /// The decompressed bytes, at most `limit_bytes` of them.
    pub fn decompress(&mut self, codec: Codec, input: &[u8], limit_bytes: u64) -> Result<&[u8], CodecError> {
        self.scratch.clear();
        self.scratch.shrink_to(SCRATCH_KEPT_BYTES);
        match Decoder::new(codec, limit_bytes, &mut self.pool) {
            None if input.len() as u64 > limit_bytes => return Err(CodecError::TooLarge(limit_bytes)),
            None => self.scratch.extend_from_slice(input),
            Some(mut decoder) => {
                while !decoder.read(input, &mut self.scratch)? {}
                decoder.retire(&mut self.pool);
            }
        }
        Ok(&self.scratch)
    }
}

/// Appends the compressed form of `input` to `out`, at a level as [`Encoder::new`] takes it.
pub fn compress(codec: Codec, level: Option<i32>, input: &[u8], out: &mut Vec<u8>) {
    let mut pool = CodecPool::default();
    Encoder::new(codec, level, &mut pool, out).finish(input, out, &mut pool);
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
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

    #[test]
    fn lz4_frames_of_other_writers_are_read_and_verified() {
        for block_size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB] {
            let info = FrameInfo::new().block_mode(BlockMode::Independent).block_size(block_size);
            let info = info.block_checksums(true).content_checksum(true);
            let info = info.content_size(Some(text().len() as u64));
            let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
            encoder.write_all(&text()).unwrap();
            let packed = encoder.finish().unwrap();
            assert!(decompressed(Codec::Lz4, &packed).unwrap() == text());
            // The header, its checksum, a block and its checksum, the end, and the content's checksum.
            for at in [4, 6, 14, 40, packed.len() - 1] {
                let mut changed = packed.clone();
                changed[at] ^= 1;
                assert_eq!(decompressed(Codec::Lz4, &changed), Err(CodecError::Corrupt), "byte {at}");
            }
        }
    }

    #[test]
    fn several_gzip_members_zstd_frames_and_xerial_streams_are_one() {
        for codec in [Codec::Gzip, Codec::Zstd, Codec::Snappy] {
            let twice =
                [compressed(codec, &text()), compressed(codec, b""), compressed(codec, b"behind")].concat();
            let expected = [&text()[..], b"behind"].concat();
            assert!(decompressed(codec, &twice).unwrap() == expected, "{codec:?}");
        }
        let twice = [compressed(Codec::Lz4, b"a"), compressed(Codec::Lz4, b"b")].concat();
        assert_eq!(decompressed(Codec::Lz4, &twice), Err(CodecError::Corrupt), "Java stops behind the first");
    }

    #[test]
    fn a_gzip_header_with_every_field_is_read() {
        let packed = compressed(Codec::Gzip, b"body");
        let mut header = packed[..10].to_vec();
        header[3] = 2 | 4 | 8 | 16;
        header.extend_from_slice(&[3, 0, 1, 2, 3]);
        header.extend_from_slice(b"name\0comment\0");
        let mut crc = flate2::Crc::new();
        crc.update(&header);
        header.extend_from_slice(&(crc.sum() as u16).to_le_bytes());
        let whole = [&header[..], &packed[10..]].concat();
        assert_eq!(decompressed(Codec::Gzip, &whole).unwrap(), b"body");
        for cut in 0..whole.len() {
            assert_eq!(decompressed(Codec::Gzip, &whole[..cut]), Err(CodecError::Corrupt), "cut at {cut}");
        }
        let mut wrong = whole.clone();
        wrong[header.len() - 1] ^= 1;
        assert_eq!(decompressed(Codec::Gzip, &wrong), Err(CodecError::Corrupt));
    }

    #[test]
    fn zstd_frames_without_a_content_size_are_read() {
        let mut pool = CodecPool::default();
        let mut out = Vec::new();
        let mut encoder = Encoder::new(Codec::Zstd, Some(1), &mut pool, &mut out);
        for piece in text().chunks(999) {
            encoder.write(piece, &mut out);
        }
        encoder.finish(&[], &mut out, &mut pool);
        assert_eq!(out[4] & 0b1110_0000, 0, "neither a single segment nor a content size");
        assert!(decompressed(Codec::Zstd, &out).unwrap() == text());
        // A window of 2^31 bytes, which Java's decoder refuses.
        out[5] = 21 << 3;
        assert_eq!(decompressed(Codec::Zstd, &out), Err(CodecError::Corrupt));
    }

    #[test]
    fn pieces_compress_like_the_whole_and_states_serve_again() {
        let mut pool = CodecPool::default();
        for round in 0..3 {
            for codec in Codec::ALL {
                let mut out = Vec::new();
                let mut encoder = Encoder::new(codec, Some(round + 1), &mut pool, &mut out);
                for piece in text().chunks(10_007) {
                    encoder.write(piece, &mut out);
                }
                encoder.finish(b"end", &mut out, &mut pool);
                let expected = [&text()[..], b"end"].concat();
                assert!(decompressed(codec, &out).unwrap() == expected, "{codec:?}");
            }
        }
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
