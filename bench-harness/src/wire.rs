//! Frames for the wire: requests encoded once, before the clock runs, and answers read in place.
//!
//! Produce 7 and Fetch 7 carry the load; ApiVersions 0, Metadata 7, CreateTopics 2, DeleteTopics 1 and ListOffsets 1,
//! and InitProducerId 0 prepare and check it. None of these is a flexible version, so one request header fits all;
//! the two that are needed on clusters are apart.
//! Layouts follow the Kafka protocol guide.

mod batch;
mod flexible;
mod metadata;

use std::ops::Range;

use anyhow::{Context, Result, ensure};

pub use batch::{BatchView, Contents, Payload, Producer, encode, fingerprint, set_sequence};
pub use flexible::{
    Acknowledgement, ActiveController, describe_quorum, produce_to_all, read_acknowledgement,
    read_quorum_leader,
};
pub use metadata::{Metadata, PartitionView, metadata, read_metadata};

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
    /// InitProducerId.
    pub const INIT_PRODUCER_ID: i16 = 22;
    /// DescribeQuorum.
    pub const DESCRIBE_QUORUM: i16 = 55;
}

/// Where the correlation id lies in a frame: after length, key and version.
pub const CORRELATION_AT: usize = 8;

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

/// A Produce 7 request of one batch for each partition, and where each batch lies in it.
pub fn produce(topic: &str, acks: i16, batches: &[(usize, Vec<u8>)]) -> (Vec<u8>, Vec<Range<usize>>) {
    let mut frame = Frame::new(api::PRODUCE, 7);
    frame.i16(-1).i16(acks).i32(30_000).count(1).text(topic).count(batches.len());
    let mut places = Vec::with_capacity(batches.len());
    for (partition, batch) in batches {
        frame.count(*partition).blob(batch);
        places.push(frame.bytes.len() - batch.len()..frame.bytes.len());
    }
    (frame.finish(), places)
}

/// A Fetch 7 request without a session, and where the offset of each partition lies.
pub fn fetch(topic: &str, partitions: &[usize], max_bytes: usize) -> (Vec<u8>, Vec<usize>) {
    fetch_of_version(7, topic, partitions, max_bytes)
}

/// The same in a version from 7 to 10. Only from 10 on does it get batches of zstd.
pub fn fetch_of_version(
    version: i16,
    topic: &str,
    partitions: &[usize],
    max_bytes: usize,
) -> (Vec<u8>, Vec<usize>) {
    let limit = i32::try_from(max_bytes).expect("a fetch is below 2 GiB");
    let whole = i32::try_from(max_bytes * partitions.len()).expect("a fetch is below 2 GiB");
    let mut frame = Frame::new(api::FETCH, version);
    // Replica -1, wait at most 500 ms for one byte; isolation level 0; no session.
    frame.i32(-1).i32(500).i32(1).i32(whole).i8(0).i32(0).i32(-1);
    frame.count(1).text(topic).count(partitions.len());
    let mut offsets_at = Vec::with_capacity(partitions.len());
    for partition in partitions {
        frame.count(*partition);
        if version >= 9 {
            frame.i32(-1); // the leader epoch, not known
        }
        offsets_at.push(frame.bytes.len());
        frame.i64(0).i64(-1).i32(limit);
    }
    frame.count(0);
    (frame.finish(), offsets_at)
}

/// A Fetch 7 request for nothing, which is answered at once: a new session where both numbers are 0, the end of session
/// `id` where the epoch is -1.
pub fn fetch_session(id: i32, epoch: i32) -> Vec<u8> {
    let mut frame = Frame::new(api::FETCH, 7);
    frame.i32(-1).i32(0).i32(0).i32(0).i8(0).i32(id).i32(epoch).count(0).count(0);
    frame.finish()
}

/// The session in an answer to Fetch 7; 0 is none.
pub fn read_session(mut answer: Cursor<'_>) -> Result<i32> {
    answer.i32()?; // throttle
    let error = answer.i16()?;
    ensure!(error == 0, "Fetch answered with error {error}");
    answer.i32()
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

/// What a Fetch answer says of one partition.
#[derive(Clone, Copy)]
pub struct Fetched<'a> {
    /// The partition's number.
    pub partition: i32,
    /// Kafka's error code, 0 when all is well.
    pub error: i16,
    /// The high watermark.
    pub high_watermark: i64,
    /// The log start offset.
    pub log_start: i64,
    /// Batches; the last may be cut.
    pub records: &'a [u8],
}

/// Reads an answer to Fetch 7 to 10 after its correlation id, partition by partition. An error of the whole request is
/// returned.
pub fn read_fetched<'a>(
    mut answer: Cursor<'a>,
    mut each: impl FnMut(Fetched<'a>) -> Result<()>,
) -> Result<i16> {
    answer.i32()?; // throttle
    let error = answer.i16()?;
    answer.i32()?; // session
    if error != 0 {
        return Ok(error);
    }
    for _ in 0..answer.count()? {
        answer.text()?;
        for _ in 0..answer.count()? {
            let (partition, error) = (answer.i32()?, answer.i16()?);
            let high_watermark = answer.i64()?;
            answer.i64()?; // last stable offset
            let log_start = answer.i64()?;
            for _ in 0..answer.count()? {
                answer.take(16)?; // an aborted transaction
            }
            let length = answer.count()?;
            each(Fetched { partition, error, high_watermark, log_start, records: answer.take(length)? })?;
        }
    }
    Ok(0)
}

/// A CreateTopics 2 request for one topic with so many copies of each partition and settings of its own.
pub fn create_topic(topic: &str, partitions: usize, replicas: usize, settings: &[(&str, &str)]) -> Vec<u8> {
    let mut frame = Frame::new(api::CREATE_TOPICS, 2);
    frame.count(1).text(topic).count(partitions).i16(replicas as i16).count(0).count(settings.len());
    for (key, value) in settings {
        frame.text(key).text(value);
    }
    frame.i32(30_000).i8(0);
    frame.finish()
}

/// The same for a topic of one partition on these nodes; the first is to lead it.
pub fn create_topic_on(topic: &str, replicas: &[i32]) -> Vec<u8> {
    let mut frame = Frame::new(api::CREATE_TOPICS, 2);
    frame.count(1).text(topic).i32(-1).i16(-1).count(1).i32(0).count(replicas.len());
    for replica in replicas {
        frame.i32(*replica);
    }
    frame.count(0).i32(30_000).i8(0);
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

/// ListOffsets' name for the log end offset.
pub const LOG_END: i64 = -1;
/// ListOffsets' name for the log start offset.
pub const LOG_START: i64 = -2;

/// A ListOffsets 1 request for [`LOG_END`] or [`LOG_START`] of some partitions.
pub fn list_offsets(topic: &str, partitions: Range<usize>, which: i64) -> Vec<u8> {
    let mut frame = Frame::new(api::LIST_OFFSETS, 1);
    frame.i32(-1).count(1).text(topic).count(partitions.len());
    for partition in partitions {
        frame.count(partition).i64(which);
    }
    frame.finish()
}

/// The offsets in a ListOffsets 1 answer for these partitions, in their order.
pub fn read_listed_offsets(mut answer: Cursor<'_>, partitions: Range<usize>) -> Result<Vec<i64>> {
    ensure!(answer.count()? == 1, "one topic was asked for, another number answered");
    answer.text()?;
    ensure!(answer.count()? == partitions.len(), "another number of partitions was answered");
    let mut offsets = vec![None; partitions.len()];
    for _ in 0..partitions.len() {
        let (partition, error, _, offset) = (answer.i32()?, answer.i16()?, answer.i64()?, answer.i64()?);
        ensure!(error == 0, "ListOffsets answered with error {error}");
        let index = usize::try_from(partition).ok().and_then(|number| number.checked_sub(partitions.start));
        let place = index.and_then(|index| offsets.get_mut(index));
        *place.with_context(|| format!("partition {partition} was not asked for"))? = Some(offset);
    }
    offsets.into_iter().collect::<Option<_>>().context("a partition was answered twice, and another not")
}

/// An InitProducerId 0 request of a producer without transactions.
pub fn init_producer_id() -> Vec<u8> {
    let mut frame = Frame::new(api::INIT_PRODUCER_ID, 0);
    frame.i16(-1).i32(60_000);
    frame.finish()
}

/// The producer id and epoch in an InitProducerId 0 answer.
pub fn read_producer(mut answer: Cursor<'_>) -> Result<Producer> {
    answer.i32()?; // throttle
    let error = answer.i16()?;
    ensure!(error == 0, "InitProducerId answered with error {error}");
    Ok(Producer { id: answer.i64()?, epoch: answer.i16()? })
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
    fn a_fetch_frame_carries_its_offset_where_it_says() {
        let (mut bytes, places) = fetch("t", &[3, 5], 1 << 20);
        let [at, second] = places.try_into().unwrap();
        assert_eq!(bytes.len() - 4, u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize);
        assert_eq!(&bytes[at - 4..at], &3i32.to_be_bytes());
        put(&mut bytes, at, &42i64.to_be_bytes());
        assert_eq!(&bytes[at + 8..at + 16], &(-1i64).to_be_bytes());
        assert_eq!(&bytes[second - 4..second], &5i32.to_be_bytes());
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
