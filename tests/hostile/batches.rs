//! Record batches: sound ones, and those that lie about themselves.

use bytes::{Bytes, BytesMut};
use fastrand::Rng;
use tidemill::log::batch::{BatchBuilder, HEADER_BYTES, crc};
use tidemill::log::codec::{Codec, compress};
use tidemill::log::record::Header;

/// Where fields lie in a batch's header.
const LENGTH_AT: usize = 8;
const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const LAST_DELTA_AT: usize = 23;
const BASE_TIMESTAMP_AT: usize = 27;
const PRODUCER_ID_AT: usize = 43;
const SEQUENCE_AT: usize = 53;
const COUNT_AT: usize = 57;

/// Producer ids that hostile batches use: few, as each leaves a state behind.
const PRODUCER_IDS: i64 = 20;
/// Of hostile batches, one in so many is a bomb: each costs the broker milliseconds.
const BOMB_ONE_IN: u32 = 300;

/// Batches that are made once.
#[derive(Debug)]
pub struct Arsenal {
    /// For each codec: a batch over the limit of decompression, which is honest but for its size.
    pub bombs: Vec<Bytes>,
}

impl Arsenal {
    pub fn new() -> Self {
        let bombs = [(Codec::Gzip, 40), (Codec::Snappy, 18), (Codec::Lz4, 40), (Codec::Zstd, 40)];
        Self { bombs: bombs.into_iter().map(|(codec, mib)| bomb(codec, mib << 20)).collect() }
    }

    /// A batch that the broker takes.
    pub fn sound(&self, rng: &mut Rng) -> Bytes {
        builder(rng).build()
    }

    /// Records of one partition that are wrong in one way.
    pub fn hostile(&self, rng: &mut Rng) -> Option<Bytes> {
        if rng.u32(..BOMB_ONE_IN) == 0 {
            return Some(self.bombs[rng.usize(..self.bombs.len())].clone());
        }
        let mut batch = builder(rng).build().to_vec();
        match rng.u8(..17) {
            0 => return None,
            1 => return Some(Bytes::new()),
            2 => batch[CRC_AT] ^= 1 << rng.u8(..8),
            3 => put(&mut batch, COUNT_AT, &nasty_i32(rng).to_be_bytes(), true),
            4 => put(&mut batch, LAST_DELTA_AT, &nasty_i32(rng).to_be_bytes(), true),
            5 => put(&mut batch, ATTRIBUTES_AT + 1, &[rng.u8(5..8)], true),
            6 => put(&mut batch, MAGIC_AT, &[[0, 1, 3, 0xff][rng.usize(..4)]], false),
            7 => put(&mut batch, ATTRIBUTES_AT + 1, &[[0x10, 0x20, 0x30, 0x40][rng.usize(..4)]], true),
            8 => put(&mut batch, LENGTH_AT, &nasty_i32(rng).to_be_bytes(), false),
            9 => put(&mut batch, SEQUENCE_AT, &nasty_i32(rng).to_be_bytes(), true),
            10 => put(&mut batch, BASE_TIMESTAMP_AT, &nasty_i64(rng).to_be_bytes(), true),
            11 => put(&mut batch, 0, &nasty_i64(rng).to_be_bytes(), false),
            12 => {
                let second = builder(rng).build();
                batch.extend_from_slice(&second);
            }
            13 => batch.truncate(rng.usize(..batch.len())),
            14 => return Some(lying_records(rng)),
            15 => return Some(damaged_stream(rng)),
            _ => {
                // Any byte behind the checksum, sealed again: only the structure can show it.
                let at = rng.usize(ATTRIBUTES_AT..batch.len());
                put(&mut batch, at, &[rng.u8(..)], false);
                // The id keeps to the few, whatever was hit.
                let id = rng.i64(-1..PRODUCER_IDS);
                put(&mut batch, PRODUCER_ID_AT, &id.to_be_bytes(), true);
            }
        }
        Some(batch.into())
    }
}

fn nasty_i32(rng: &mut Rng) -> i32 {
    [-1, 0, 1, i32::MIN, i32::MAX, 0x00ff_ffff, -5, 100][rng.usize(..8)]
}

fn nasty_i64(rng: &mut Rng) -> i64 {
    [-1, -2, 0, 1, i64::MIN, i64::MAX, 1 << 40][rng.usize(..7)]
}

/// A few records in any codec, often of an idempotent producer.
fn builder(rng: &mut Rng) -> BatchBuilder {
    let codec = if rng.u8(..3) == 0 { Codec::ALL[rng.usize(..5)] } else { Codec::None };
    let mut builder = BatchBuilder::new().codec(codec);
    if rng.u8(..4) == 0 {
        let sequence = [0, 0, 1, 2, 5, i32::MAX][rng.usize(..6)];
        builder = builder.producer(rng.i64(0..PRODUCER_IDS), rng.i16(0..2), sequence);
    }
    for _ in 0..rng.usize(1..6) {
        let value = vec![rng.u8(..); rng.usize(..200)];
        let headers: [Header<'_>; 1] = [(b"h", Some(b"v"))];
        let headers = if rng.u8(..8) == 0 { &headers[..] } else { &[] };
        builder.push(1_000 + rng.i64(..1_000), Some(b"key"), Some(&value), headers);
    }
    builder
}

/// Overwrites bytes, and makes the checksum hold again where that is asked.
fn put(batch: &mut [u8], at: usize, bytes: &[u8], sealed: bool) {
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    if sealed {
        seal(batch);
    }
}

fn seal(batch: &mut [u8]) {
    let sum = crc(&batch[ATTRIBUTES_AT..]);
    batch[CRC_AT..CRC_AT + 4].copy_from_slice(&sum.to_be_bytes());
}

/// A batch with this body, whose header says `count` records in a codec.
fn around(body: &[u8], codec: Codec, count: i32) -> Bytes {
    let mut batch = BytesMut::from(&BatchBuilder::new().record(1_000, None, None).build()[..HEADER_BYTES]);
    batch.extend_from_slice(body);
    let length = i32::try_from(batch.len() - 12).unwrap();
    batch[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&length.to_be_bytes());
    batch[ATTRIBUTES_AT + 1] = u8::try_from(codec.id()).unwrap();
    batch[LAST_DELTA_AT..LAST_DELTA_AT + 4].copy_from_slice(&(count - 1).to_be_bytes());
    batch[COUNT_AT..COUNT_AT + 4].copy_from_slice(&count.to_be_bytes());
    seal(&mut batch);
    batch.freeze()
}

/// Zigzag varint of any value.
fn varint(value: i64) -> Vec<u8> {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    let mut bytes = Vec::new();
    while zigzag >= 0x80 {
        bytes.push((zigzag as u8) | 0x80);
        zigzag >>= 7;
    }
    bytes.push(zigzag as u8);
    bytes
}

/// Records whose lengths, key lengths, header counts and offsets are not what is there.
fn lying_records(rng: &mut Rng) -> Bytes {
    let lies = [-1, -2, 0, 1, 5, 100, i64::from(i32::MAX), i64::from(i32::MIN), i64::MAX, i64::MIN];
    let mut number = || varint(lies[rng.usize(..lies.len())]);
    let fields = [number(), number(), number(), number(), number()];
    let sound = [varint(0), varint(0), varint(-1), varint(3), varint(0)];
    let lying = rng.usize(..5);
    let mut inner = vec![0];
    for (at, (lie, truth)) in fields.iter().zip(&sound).enumerate() {
        inner.extend_from_slice(if at == lying { lie } else { truth });
        if at == 3 {
            inner.extend_from_slice(b"abc");
        }
    }
    let length = if rng.u8(..4) == 0 { lies[rng.usize(..lies.len())] } else { inner.len() as i64 };
    let mut body = varint(length);
    body.extend_from_slice(&inner);
    // An over-long varint in front of everything, sometimes.
    if rng.u8(..8) == 0 {
        body.splice(..0, [0xff; 12]);
    }
    let codec = if rng.bool() { Codec::None } else { Codec::ALL[rng.usize(..5)] };
    let mut packed = Vec::new();
    compress(codec, None, &body, &mut packed);
    around(&packed, codec, 1)
}

/// A compressed stream that is cut, changed, or of another codec than the header says.
fn damaged_stream(rng: &mut Rng) -> Bytes {
    let text: Vec<u8> = (0..2_000_u32).flat_map(|n| (n / 7).to_be_bytes()).collect();
    let codec = Codec::ALL[rng.usize(1..5)];
    let mut packed = Vec::new();
    compress(codec, None, &text, &mut packed);
    match rng.u8(..4) {
        0 => packed.truncate(rng.usize(..packed.len())),
        1 => {
            let at = rng.usize(..packed.len());
            packed[at] = rng.u8(..);
        }
        2 => {
            let at = rng.usize(..packed.len().min(32));
            packed[at] = 0xff;
        }
        _ => return around(&packed, Codec::ALL[rng.usize(1..5)], 1),
    }
    around(&packed, codec, 1)
}

/// One record of zeros.
pub fn bomb(codec: Codec, value_bytes: usize) -> Bytes {
    BatchBuilder::new().codec(codec).record(1_000, None, Some(&vec![0; value_bytes])).build()
}
