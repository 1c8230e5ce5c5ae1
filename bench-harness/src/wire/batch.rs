//! Record batches of magic 2: encoded from a generator whose output is known, and read in place.
//!
//! Invariant: a broker may change a batch only before [`FIXED_AT`]; what lies behind it is covered by the CRC.

use std::hash::{DefaultHasher, Hasher};

use tidemill::log::codec::{self, Codec};

use super::{Cursor, put};

/// Bytes of a batch before its records.
const HEADER_BYTES: usize = 61;
/// Where the part of a batch begins that its CRC covers, and that a broker never changes.
const FIXED_AT: usize = 21;
/// Where the base sequence lies, which a producer with an id gives anew to each batch.
const SEQUENCE_AT: usize = 53;

/// What a batch is made of.
#[derive(Clone, Copy, Debug)]
pub struct Contents {
    /// Records.
    pub records: usize,
    /// Bytes of each value.
    pub record_bytes: usize,
    /// Whether records have keys, of eight bytes.
    pub keyed: bool,
    /// How the records are compressed; compressed values are words.
    pub codec: Codec,
}

impl Contents {
    /// Records without keys, not compressed.
    #[cfg(test)]
    pub fn plain(records: usize, record_bytes: usize) -> Contents {
        Contents { records, record_bytes, keyed: false, codec: Codec::None }
    }
}

/// An idempotent producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Its id.
    pub id: i64,
    /// Its epoch.
    pub epoch: i16,
}

impl Producer {
    /// What batches without a producer carry.
    pub const NONE: Producer = Producer { id: -1, epoch: -1 };
}

/// What values are made of where they shall compress: about to a third, as JSON does.
const WORDS: [&str; 16] = [
    "order", "customer", "street", "amount", "currency", "created", "updated", "status", "pending",
    "shipped", "\":\"", "\",\"", "2026-", "null", "true", "id",
];

/// A small generator of payload bytes, so that no two batches of a run are alike.
pub struct Payload {
    state: u64,
}

impl Payload {
    /// A sequence named by its seed.
    pub fn new(seed: u64) -> Payload {
        Payload { state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1 }
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    /// Words, and a number after each.
    fn words(&mut self, out: &mut Vec<u8>, count: usize) {
        let end = out.len() + count;
        while out.len() < end {
            let draw = self.next();
            let word = WORDS.get(draw as usize % WORDS.len()).copied().unwrap_or("");
            out.extend_from_slice(word.as_bytes());
            out.push(b'0' + (draw >> 32) as u8 % 10);
        }
        out.truncate(end);
    }

    fn extend(&mut self, out: &mut Vec<u8>, count: usize) {
        let end = out.len() + count;
        while out.len() < end {
            let word = self.next().to_le_bytes();
            let wanted = (end - out.len()).min(word.len());
            out.extend(word.iter().take(wanted));
        }
    }
}

fn varint(out: &mut Vec<u8>, value: usize) {
    let mut zigzag = (value as u64) << 1;
    while zigzag >= 0x80 {
        out.push((zigzag & 0x7f) as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}

/// One record batch without headers in its records. A batch of a producer has sequence 0 until [`set_sequence`].
pub fn encode(contents: Contents, producer: Producer, timestamp_ms: i64, payload: &mut Payload) -> Vec<u8> {
    let mut records = Vec::new();
    let mut record = Vec::with_capacity(contents.record_bytes + 24);
    for index in 0..contents.records {
        record.clear();
        record.extend_from_slice(&[0, 0]); // attributes, timestamp delta
        varint(&mut record, index);
        if contents.keyed {
            varint(&mut record, 8);
            payload.extend(&mut record, 8);
        } else {
            record.push(1); // no key: length -1
        }
        varint(&mut record, contents.record_bytes);
        match contents.codec {
            Codec::None => payload.extend(&mut record, contents.record_bytes),
            _ => payload.words(&mut record, contents.record_bytes),
        }
        record.push(0); // headers
        varint(&mut records, record.len());
        records.extend_from_slice(&record);
    }
    let mut out = vec![0; HEADER_BYTES];
    codec::compress(contents.codec, None, &records, &mut out);
    let length = i32::try_from(out.len() - 12).expect("a batch is below 2 GiB");
    let count = i32::try_from(contents.records).expect("a batch has few records");
    put(&mut out, 8, &length.to_be_bytes());
    put(&mut out, 16, &[2]); // magic
    put(&mut out, 21, &contents.codec.id().to_be_bytes());
    put(&mut out, 23, &(count - 1).to_be_bytes());
    put(&mut out, 27, &timestamp_ms.to_be_bytes());
    put(&mut out, 35, &timestamp_ms.to_be_bytes());
    put(&mut out, 43, &producer.id.to_be_bytes());
    put(&mut out, 51, &producer.epoch.to_be_bytes());
    put(&mut out, 57, &count.to_be_bytes());
    set_sequence(&mut out, if producer == Producer::NONE { -1 } else { 0 });
    out
}

/// Gives a batch its base sequence and the CRC that goes with it.
pub fn set_sequence(batch: &mut [u8], sequence: i32) {
    put(batch, SEQUENCE_AT, &sequence.to_be_bytes());
    let crc = crc32c::crc32c(batch.get(FIXED_AT..).unwrap_or(&[]));
    put(batch, 17, &crc.to_be_bytes());
}

/// A name for what a broker must keep of a batch, whatever sequence it was sent with.
pub fn fingerprint(batch: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(batch.get(FIXED_AT..SEQUENCE_AT).unwrap_or(&[]));
    hasher.write(batch.get(SEQUENCE_AT + 4..).unwrap_or(&[]));
    hasher.finish()
}

/// One whole batch inside fetched bytes.
#[derive(Clone, Copy)]
pub struct BatchView<'a> {
    /// The whole batch.
    pub bytes: &'a [u8],
    /// The offset of its first record.
    pub base_offset: i64,
    /// The offset after its last record.
    pub offset_end: i64,
}

impl<'a> BatchView<'a> {
    /// Splits the first whole batch off; none when what is left is cut.
    pub fn split(bytes: &'a [u8]) -> Option<(BatchView<'a>, &'a [u8])> {
        let mut head = Cursor::new(bytes.get(..HEADER_BYTES)?);
        let base_offset = head.i64().ok()?;
        let length = usize::try_from(head.i32().ok()?).ok()?;
        head.take(11).ok()?;
        let last_delta = head.i32().ok()?;
        let (whole, rest) = bytes.split_at_checked(length.checked_add(12)?)?;
        let offset_end = base_offset.checked_add(i64::from(last_delta))?.checked_add(1)?;
        Some((BatchView { bytes: whole, base_offset, offset_end }, rest))
    }

    /// The part that no broker may change.
    fn fixed(&self) -> &'a [u8] {
        self.bytes.get(FIXED_AT..).unwrap_or(&[])
    }

    /// The base sequence, -1 without a producer.
    #[cfg(test)]
    pub fn sequence(&self) -> i32 {
        let bytes = self.bytes.get(SEQUENCE_AT..SEQUENCE_AT + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(-1, i32::from_be_bytes)
    }

    /// Whether the CRC in the header is that of the bytes.
    pub fn crc_holds(&self) -> bool {
        let stored = self.bytes.get(17..FIXED_AT).and_then(|crc| crc.try_into().ok());
        stored.map(u32::from_be_bytes) == Some(crc32c::crc32c(self.fixed()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use tidemill::log::codec::Decompressor;

    use super::*;

    fn plain(records: usize, record_bytes: usize, seed: u64) -> Vec<u8> {
        let contents = Contents::plain(records, record_bytes);
        encode(contents, Producer::NONE, 1_700_000_000_000, &mut Payload::new(seed))
    }

    #[test]
    fn a_batch_reads_back_with_its_crc_and_offsets() {
        let bytes = plain(100, 100, 7);
        let (view, rest) = BatchView::split(&bytes).unwrap();
        assert!(rest.is_empty());
        assert!(view.crc_holds());
        assert_eq!((view.base_offset, view.offset_end), (0, 100));
        let mut torn = bytes.clone();
        torn[90] ^= 1;
        assert!(!BatchView::split(&torn).unwrap().0.crc_holds());
        assert!(BatchView::split(&bytes[..bytes.len() - 1]).is_none());
    }

    #[test]
    fn records_are_framed_as_magic_2_says() {
        let bytes = plain(3, 5, 1);
        // 3 records: length, attributes, delta, offset delta, key, value length, 5 bytes, headers.
        assert_eq!(bytes.len(), HEADER_BYTES + 3 * 12);
        assert_eq!(&bytes[61..67], &[22, 0, 0, 0, 1, 10]);
        assert_eq!(&bytes[73..79], &[22, 0, 0, 2, 1, 10]);
    }

    #[test]
    fn a_sequence_changes_the_crc_and_not_the_fingerprint() {
        let producer = Producer { id: 7, epoch: 0 };
        let mut bytes = encode(Contents::plain(2, 10), producer, 0, &mut Payload::new(1));
        let (crc, name) = (bytes[17..21].to_vec(), fingerprint(&bytes));
        set_sequence(&mut bytes, 4000);
        let (view, _) = BatchView::split(&bytes).unwrap();
        assert!(view.crc_holds() && view.sequence() == 4000);
        assert_ne!(crc, bytes[17..21]);
        assert_eq!(name, fingerprint(&bytes));
        bytes[70] ^= 1;
        assert_ne!(name, fingerprint(&bytes));
    }

    #[test]
    fn compressed_batches_hold_the_same_records_in_less() {
        let words = |codec| Contents { codec, keyed: true, ..Contents::plain(200, 100) };
        let mut plain = Vec::new();
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let bytes = encode(words(codec), Producer::NONE, 0, &mut Payload::new(3));
            let (view, _) = BatchView::split(&bytes).unwrap();
            assert!(view.crc_holds());
            assert_eq!(i16::from_be_bytes([bytes[21], bytes[22]]), codec.id());
            let mut decompressor = Decompressor::default();
            let records = decompressor.decompress(codec, &bytes[HEADER_BYTES..], 1 << 20).unwrap();
            assert!(bytes.len() < records.len() * 2 / 3, "{codec:?}: {} of {}", bytes.len(), records.len());
            assert!(plain.is_empty() || plain == records, "{codec:?}");
            plain = records.to_vec();
        }
    }
}
