//! Frames for the wire: requests encoded once, before the clock runs, and answers read in place.
//!
//! Produce 7 and Fetch 7 carry the load; ApiVersions 0, Metadata 1, CreateTopics 2, DeleteTopics 1 and ListOffsets 1
//! prepare and check it. None of these is a flexible version, so one request header fits all. Layouts follow the
//! Kafka protocol guide; batches are record batches of magic 2.

use anyhow::{Context, Result, bail, ensure};

/// API keys as Kafka numbers them.
pub mod api {
    /// Produce.
    pub const PRODUCE: i16 = 0;
    /// Fetch.
    pub const FETCH: i16 = 1;
    /// ListOffsets.
    pub const LIST_OFFSETS: i16 = 2;
    /// Metadata.
    pub const METADATA: i16 = 3;
    /// ApiVersions.
    pub const API_VERSIONS: i16 = 18;
    /// CreateTopics.
    pub const CREATE_TOPICS: i16 = 19;
    /// DeleteTopics.
    pub const DELETE_TOPICS: i16 = 20;
}

/// Where the correlation id lies in a frame: after length, key and version.
pub const CORRELATION_AT: usize = 8;
/// Bytes of a batch before its records.
pub const BATCH_HEADER_BYTES: usize = 61;
/// Where the part of a batch begins that its CRC covers, and that a broker never changes.
pub const BATCH_FIXED_AT: usize = 21;

/// Builds one request frame.
pub struct Frame {
    bytes: Vec<u8>,
}

impl Frame {
    /// A frame with its header; the correlation id is 0 until patched.
    pub fn new(key: i16, version: i16) -> Frame {
        let mut frame = Frame { bytes: vec![0; 4] };
        frame.i16(key).i16(version).i32(0).text("bench");
        frame
    }

    /// A 16-bit number.
    pub fn i16(&mut self, value: i16) -> &mut Frame {
        self.bytes.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// A 32-bit number.
    pub fn i32(&mut self, value: i32) -> &mut Frame {
        self.bytes.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// A 64-bit number.
    pub fn i64(&mut self, value: i64) -> &mut Frame {
        self.bytes.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// One byte.
    pub fn i8(&mut self, value: i8) -> &mut Frame {
        self.bytes.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// The length of an array.
    pub fn count(&mut self, count: usize) -> &mut Frame {
        self.i32(i32::try_from(count).expect("an array of a benchmark is short"))
    }

    /// A string after its 16-bit length.
    pub fn text(&mut self, text: &str) -> &mut Frame {
        self.i16(i16::try_from(text.len()).expect("a name of a benchmark is short"));
        self.bytes.extend_from_slice(text.as_bytes());
        self
    }

    /// Bytes after their 32-bit length.
    pub fn blob(&mut self, bytes: &[u8]) -> &mut Frame {
        self.count(bytes.len());
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// The frame with its length written.
    pub fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len() - 4).expect("a frame is below 4 GiB");
        put(&mut self.bytes, 0, &length.to_be_bytes());
        self.bytes
    }
}

/// Overwrites bytes at a position that the caller knows to be inside.
pub fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes.get_mut(at..at + value.len()).expect("a patch lies inside its frame").copy_from_slice(value);
}

/// Reads an answer from front to back.
#[derive(Clone, Copy)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { rest: bytes }
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(count).context("the answer ends too early")?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>().context("the answer ends too early")?;
        self.rest = rest;
        Ok(*head)
    }

    /// A signed byte.
    pub fn i8(&mut self) -> Result<i8> {
        Ok(i8::from_be_bytes(self.array()?))
    }

    /// A 16-bit number.
    pub fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    /// A 32-bit number.
    pub fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    /// A 64-bit number.
    pub fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// The length of an array; null counts as empty.
    pub fn count(&mut self) -> Result<usize> {
        Ok(usize::try_from(self.i32()?).unwrap_or(0))
    }

    /// A string after its 16-bit length; null reads as empty.
    pub fn text(&mut self) -> Result<&'a [u8]> {
        let length = usize::try_from(self.i16()?).unwrap_or(0);
        self.take(length)
    }
}

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

/// One uncompressed record batch whose records have no key and no headers.
pub fn batch(records: usize, record_bytes: usize, timestamp_ms: i64, payload: &mut Payload) -> Vec<u8> {
    let mut out = vec![0; BATCH_HEADER_BYTES];
    let mut record = Vec::with_capacity(record_bytes + 16);
    for index in 0..records {
        record.clear();
        record.extend_from_slice(&[0, 0]); // attributes, timestamp delta
        varint(&mut record, index);
        record.push(1); // no key: length -1
        varint(&mut record, record_bytes);
        payload.extend(&mut record, record_bytes);
        record.push(0); // headers
        varint(&mut out, record.len());
        out.extend_from_slice(&record);
    }
    let length = i32::try_from(out.len() - 12).expect("a batch is below 2 GiB");
    let count = i32::try_from(records).expect("a batch has few records");
    put(&mut out, 8, &length.to_be_bytes());
    put(&mut out, 16, &[2]); // magic
    put(&mut out, 23, &(count - 1).to_be_bytes());
    put(&mut out, 27, &timestamp_ms.to_be_bytes());
    put(&mut out, 35, &timestamp_ms.to_be_bytes());
    put(&mut out, 43, &(-1i64).to_be_bytes()); // producer id
    put(&mut out, 51, &(-1i16).to_be_bytes()); // producer epoch
    put(&mut out, 53, &(-1i32).to_be_bytes()); // base sequence
    put(&mut out, 57, &count.to_be_bytes());
    let crc = crc32c::crc32c(out.get(BATCH_FIXED_AT..).unwrap_or(&[]));
    put(&mut out, 17, &crc.to_be_bytes());
    out
}

/// A Produce 7 request with acks=1: one batch for each partition from `partition_first` on.
pub fn produce(topic: &str, partition_first: usize, batches: &[Vec<u8>]) -> Vec<u8> {
    let mut frame = Frame::new(api::PRODUCE, 7);
    frame.i16(-1).i16(1).i32(30_000).count(1).text(topic).count(batches.len());
    for (index, batch) in batches.iter().enumerate() {
        frame.count(partition_first + index).blob(batch);
    }
    frame.finish()
}

/// A Fetch 7 request without a session for one partition, and where its offset lies.
pub fn fetch(topic: &str, partition: usize, max_bytes: usize) -> (Vec<u8>, usize) {
    let limit = i32::try_from(max_bytes).expect("a fetch is below 2 GiB");
    let mut frame = Frame::new(api::FETCH, 7);
    // Replica -1, wait at most 500 ms for one byte; isolation level 0; no session.
    frame.i32(-1).i32(500).i32(1).i32(limit).i8(0).i32(0).i32(-1);
    frame.count(1).text(topic).count(1).count(partition);
    let offset_at = frame.bytes.len();
    frame.i64(0).i64(-1).i32(limit).count(0);
    (frame.finish(), offset_at)
}

/// What a Produce answer says of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Produced {
    /// The partition's number.
    pub partition: i32,
    /// Kafka's error code, 0 when all is well.
    pub error: i16,
    /// The offset given to the batch's first record.
    pub base_offset: i64,
}

/// Reads a Produce 7 answer after its correlation id, partition by partition.
pub fn read_produced(mut answer: Cursor<'_>, mut each: impl FnMut(Produced) -> Result<()>) -> Result<()> {
    for _ in 0..answer.count()? {
        answer.text()?;
        for _ in 0..answer.count()? {
            let partition = answer.i32()?;
            let (error, base_offset) = (answer.i16()?, answer.i64()?);
            answer.take(16)?; // log append time, log start offset
            each(Produced { partition, error, base_offset })?;
        }
    }
    Ok(())
}

/// What a Fetch answer for one partition says.
pub struct Fetched<'a> {
    /// The request's error or the partition's, 0 when all is well.
    pub error: i16,
    /// The high watermark.
    pub high_watermark: i64,
    /// Batches; the last may be cut.
    pub records: &'a [u8],
}

/// Reads a Fetch 7 answer for one partition after its correlation id.
pub fn read_fetched(mut answer: Cursor<'_>) -> Result<Fetched<'_>> {
    answer.i32()?; // throttle
    let error = answer.i16()?;
    answer.i32()?; // session
    if error != 0 {
        return Ok(Fetched { error, high_watermark: -1, records: &[] });
    }
    ensure!(answer.count()? == 1, "a fetch of one topic was answered with another number");
    answer.text()?;
    ensure!(answer.count()? == 1, "a fetch of one partition was answered with another number");
    answer.i32()?;
    let error = answer.i16()?;
    let high_watermark = answer.i64()?;
    answer.take(16)?; // last stable offset, log start offset
    for _ in 0..answer.count()? {
        answer.take(16)?; // an aborted transaction
    }
    let length = answer.count()?;
    Ok(Fetched { error, high_watermark, records: answer.take(length)? })
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
        let mut head = Cursor::new(bytes.get(..BATCH_HEADER_BYTES)?);
        let base_offset = head.i64().ok()?;
        let length = usize::try_from(head.i32().ok()?).ok()?;
        head.take(11).ok()?;
        let last_delta = head.i32().ok()?;
        let (whole, rest) = bytes.split_at_checked(length.checked_add(12)?)?;
        let offset_end = base_offset.checked_add(i64::from(last_delta))?.checked_add(1)?;
        Some((BatchView { bytes: whole, base_offset, offset_end }, rest))
    }

    /// The part that no broker may change.
    pub fn fixed(&self) -> &'a [u8] {
        self.bytes.get(BATCH_FIXED_AT..).unwrap_or(&[])
    }

    /// Whether the CRC in the header is that of the bytes.
    pub fn crc_holds(&self) -> bool {
        let stored = self.bytes.get(17..BATCH_FIXED_AT).and_then(|crc| crc.try_into().ok());
        stored.map(u32::from_be_bytes) == Some(crc32c::crc32c(self.fixed()))
    }
}

/// A CreateTopics 2 request for one topic with one replica.
pub fn create_topic(topic: &str, partitions: usize) -> Vec<u8> {
    let mut frame = Frame::new(api::CREATE_TOPICS, 2);
    frame.count(1).text(topic).count(partitions).i16(1).count(0).count(0).i32(30_000).i8(0);
    frame.finish()
}

/// The error code of a CreateTopics 2 or DeleteTopics 1 answer for one topic.
pub fn read_topic_error(mut answer: Cursor<'_>) -> Result<i16> {
    answer.i32()?; // throttle
    ensure!(answer.count()? == 1, "one topic was asked for, another number answered");
    answer.text()?;
    answer.i16()
}

/// A DeleteTopics 1 request for one topic.
pub fn delete_topic(topic: &str) -> Vec<u8> {
    let mut frame = Frame::new(api::DELETE_TOPICS, 1);
    frame.count(1).text(topic).i32(30_000);
    frame.finish()
}

/// A Metadata 1 request for one topic.
pub fn metadata(topic: &str) -> Vec<u8> {
    let mut frame = Frame::new(api::METADATA, 1);
    frame.count(1).text(topic);
    frame.finish()
}

/// How many partitions of the one topic of a Metadata 1 answer have a leader.
pub fn read_led_partitions(mut answer: Cursor<'_>) -> Result<usize> {
    for _ in 0..answer.count()? {
        answer.i32()?;
        answer.text()?;
        answer.i32()?;
        answer.text()?;
    }
    answer.i32()?; // controller
    let mut led = 0;
    for _ in 0..answer.count()? {
        let error = answer.i16()?;
        answer.text()?;
        answer.i8()?;
        for _ in 0..answer.count()? {
            let (partition_error, _, leader) = (answer.i16()?, answer.i32()?, answer.i32()?);
            for _ in 0..2 {
                let nodes = answer.count()?;
                answer.take(nodes.checked_mul(4).context("a list of nodes is too long")?)?;
            }
            led += usize::from(error == 0 && partition_error == 0 && leader >= 0);
        }
    }
    Ok(led)
}

/// A ListOffsets 1 request for the log end offset of one partition.
pub fn log_end(topic: &str, partition: usize) -> Vec<u8> {
    let mut frame = Frame::new(api::LIST_OFFSETS, 1);
    frame.i32(-1).count(1).text(topic).count(1).count(partition).i64(-1);
    frame.finish()
}

/// The offset in a ListOffsets 1 answer for one partition.
pub fn read_log_end(mut answer: Cursor<'_>) -> Result<i64> {
    ensure!(answer.count()? == 1, "one topic was asked for, another number answered");
    answer.text()?;
    ensure!(answer.count()? == 1, "one partition was asked for, another number answered");
    answer.i32()?;
    let error = answer.i16()?;
    if error != 0 {
        bail!("ListOffsets answered with error {error}");
    }
    answer.i64()?; // timestamp
    answer.i64()
}

/// An ApiVersions 0 request.
pub fn api_versions() -> Vec<u8> {
    Frame::new(api::API_VERSIONS, 0).finish()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_reads_back_with_its_crc_and_offsets() {
        let bytes = batch(100, 100, 1_700_000_000_000, &mut Payload::new(7));
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
        let bytes = batch(3, 5, 1_700_000_000_000, &mut Payload::new(1));
        // 3 records: length, attributes, delta, offset delta, key, value length, 5 bytes, headers.
        assert_eq!(bytes.len(), BATCH_HEADER_BYTES + 3 * 12);
        assert_eq!(&bytes[61..67], &[22, 0, 0, 0, 1, 10]);
        assert_eq!(&bytes[73..79], &[22, 0, 0, 2, 1, 10]);
    }

    #[test]
    fn a_fetch_frame_carries_its_offset_where_it_says() {
        let (mut bytes, at) = fetch("t", 3, 1 << 20);
        assert_eq!(bytes.len() - 4, u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize);
        assert_eq!(&bytes[at - 4..at], &3i32.to_be_bytes());
        put(&mut bytes, at, &42i64.to_be_bytes());
        assert_eq!(&bytes[at + 8..at + 16], &(-1i64).to_be_bytes());
    }

    #[test]
    fn a_short_answer_is_an_error_not_a_panic() {
        let mut answer = Frame { bytes: Vec::new() };
        answer.count(1).text("t").count(1).i32(0).i16(0).i64(9).i64(-1).i64(0).i32(0);
        for length in 0..answer.bytes.len() - 4 {
            assert!(read_produced(Cursor::new(&answer.bytes[..length]), |_| Ok(())).is_err());
        }
        let mut seen = Vec::new();
        read_produced(Cursor::new(&answer.bytes), |one| {
            seen.push(one);
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [Produced { partition: 0, error: 0, base_offset: 9 }]);
    }
}
