//! What a follower asks its leader and what comes back: the other side of [`super::fetch`] and
//! [`super::fetch_response`], for the one version that followers speak.
//!
//! The answer is a view over its frame, which may be tens of megabytes: records are slices of it, and whoever keeps
//! them keeps the frame. Every length is checked once ([`FetchAnswer::parse`]); after that nothing can fail.

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use super::fetch_response::EpochEnd;
use super::primitive::{Reader, Writer};
use super::topics::{self, Context, Counts, Entry, Topics};
use super::{CurrentLeader, ErrorCode, TopicRef, WireError};

/// The version of Fetch that followers speak: topic ids, replica state with broker epoch (KIP-903).
pub const FETCH_ROUND_VERSION: i16 = 17;

/// What a round says before its topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchRoundHead {
    /// Node id of the follower.
    pub replica_id: i32,
    /// Its broker epoch, −1 before it is registered.
    pub replica_epoch: i64,
    /// How long the leader may wait for `min_bytes`, in milliseconds.
    pub max_wait_ms: i32,
    /// The leader answers as soon as it has so many bytes.
    pub min_bytes: i32,
    /// At most this many bytes in the answer, but for the first batch.
    pub max_bytes: i32,
    /// Fetch session, 0 for none (KIP-227).
    pub session_id: i32,
    /// Epoch in the session: 0 for a new one.
    pub session_epoch: i32,
}

/// One partition of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchRoundPartition {
    /// Id of its topic.
    pub topic_id: Uuid,
    /// Its index.
    pub index: i32,
    /// Leader epoch that the follower knows.
    pub current_leader_epoch: i32,
    /// First offset wanted: the follower's log end.
    pub fetch_offset: i64,
    /// Epoch of the record before it, −1 if unknown.
    pub last_fetched_epoch: i32,
    /// The follower's log start.
    pub log_start_offset: i64,
    /// At most this many bytes of the partition, but for the first batch.
    pub max_bytes: i32,
}

/// Writes the body of one round. Partitions of one topic stand together in `partitions` and in `forgotten`.
pub fn write_round(
    buffer: &mut BytesMut,
    head: &FetchRoundHead,
    partitions: &[FetchRoundPartition],
    forgotten: &[(Uuid, i32)],
) {
    let mut writer = Writer::new(buffer, true);
    writer.i32(head.max_wait_ms);
    writer.i32(head.min_bytes);
    writer.i32(head.max_bytes);
    // A replica reads to the log end: isolation does not concern it.
    writer.raw(&[0]);
    writer.i32(head.session_id);
    writer.i32(head.session_epoch);
    let topics = || partitions.chunk_by(|a, b| a.topic_id == b.topic_id);
    writer.length(topics().count() as u32);
    for topic in topics() {
        writer.uuid(topic.first().map_or(Uuid::nil(), |partition| partition.topic_id));
        writer.length(topic.len() as u32);
        for partition in topic {
            writer.i32(partition.index);
            writer.i32(partition.current_leader_epoch);
            writer.i64(partition.fetch_offset);
            writer.i32(partition.last_fetched_epoch);
            writer.i64(partition.log_start_offset);
            writer.i32(partition.max_bytes);
            writer.tags(0);
        }
        writer.tags(0);
    }
    let topics = || forgotten.chunk_by(|(a, _), (b, _)| a == b);
    writer.length(topics().count() as u32);
    for topic in topics() {
        writer.uuid(topic.first().map_or(Uuid::nil(), |(topic_id, _)| *topic_id));
        writer.length(topic.len() as u32);
        topic.iter().for_each(|(_, index)| writer.i32(*index));
        writer.tags(0);
    }
    // No rack: it is for consumers.
    writer.string("");
    writer.tags(1);
    writer.tag(1, 4 + 8 + 1);
    writer.i32(head.replica_id);
    writer.i64(head.replica_epoch);
    writer.tags(0);
}

/// The answer to a round, whose every length has been checked.
#[derive(Clone, Debug)]
pub struct FetchAnswer {
    body: Bytes,
    /// How long the leader asks to be left alone, in milliseconds.
    pub throttle_time_ms: i32,
    /// An error of the whole round, such as of its session.
    pub error: Option<ErrorCode>,
    /// Fetch session, 0 for none.
    pub session_id: i32,
    topics_at: usize,
    counts: Counts,
}

/// One partition in the answer to a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedPartition {
    /// Its index.
    pub index: i32,
    /// Why nothing could be read.
    pub error: Option<ErrorCode>,
    /// The leader's high watermark, −1 on an error.
    pub high_watermark: i64,
    /// The leader's log start, −1 if unknown.
    pub log_start_offset: i64,
    /// From where the follower's log differs.
    pub diverging: Option<EpochEnd>,
    /// Where the leader is now, told with an error.
    pub current_leader: Option<CurrentLeader>,
    /// Record batches, the last one perhaps cut; empty for none. They share the frame's memory.
    pub records: Bytes,
}

/// A partition's fields with its records still in place.
struct Fields<'a> {
    index: i32,
    error: i16,
    high_watermark: i64,
    log_start_offset: i64,
    diverging: Option<EpochEnd>,
    current_leader: Option<CurrentLeader>,
    records: Option<&'a [u8]>,
}

fn read_fields<'a>(reader: &mut Reader<'a>) -> Result<Fields<'a>, WireError> {
    let (index, error, high_watermark) = (reader.i32()?, reader.i16()?, reader.i64()?);
    let _last_stable_offset = reader.i64()?;
    let log_start_offset = reader.i64()?;
    // Aborted transactions are null for a replica; whatever is there is skipped.
    for _ in 0..aborted_count(reader)? {
        reader.take(16)?;
        reader.skip_tags()?;
    }
    let _preferred_read_replica = reader.i32()?;
    let records = reader.bytes_nullable()?;
    let (mut diverging, mut current_leader) = (None, None);
    reader.tags(|tag, content| {
        match tag {
            0 => {
                diverging = Some(EpochEnd { epoch: content.i32()?, end_offset: content.i64()? });
                content.skip_tags()?;
            }
            1 => {
                let (leader_id, leader_epoch) = (content.i32()?, content.i32()?);
                current_leader = Some(CurrentLeader { leader_id, leader_epoch });
                content.skip_tags()?;
            }
            _ => return Ok(true),
        }
        Ok(content.remaining() == 0)
    })?;
    // An epoch of −1 says that nothing diverges.
    let diverging = diverging.filter(|end| end.epoch >= 0 || end.end_offset >= 0);
    Ok(Fields { index, error, high_watermark, log_start_offset, diverging, current_leader, records })
}

/// How many aborted transactions are listed; 0 for null. Each takes 17 bytes at least.
fn aborted_count(reader: &mut Reader<'_>) -> Result<u32, WireError> {
    let count = reader.uvarint()?.saturating_sub(1);
    if count as usize > reader.remaining() / 17 {
        return Err(WireError::Truncated);
    }
    Ok(count)
}

impl Entry for FetchedPartition {
    fn bytes_min(_version: i16) -> usize {
        4 + 2 + 8 + 8 + 8 + 1 + 4 + 1 + 1
    }

    fn skip(reader: &mut Reader<'_>, _version: i16) -> Result<(), WireError> {
        read_fields(reader).map(|_| ())
    }

    fn read(reader: &mut Reader<'_>, context: Context<'_>) -> Result<Self, WireError> {
        let fields = read_fields(reader)?;
        let records = fields.records.filter(|records| !records.is_empty());
        Ok(Self {
            index: fields.index,
            error: ErrorCode::try_from_code(fields.error),
            high_watermark: fields.high_watermark,
            log_start_offset: fields.log_start_offset,
            diverging: fields.diverging,
            current_leader: fields.current_leader,
            records: records.map_or_else(Bytes::new, |records| context.body.slice_ref(records)),
        })
    }
}

impl FetchAnswer {
    /// Checks the whole body of an answer of [`FETCH_ROUND_VERSION`].
    pub fn parse(body: Bytes) -> Result<Self, WireError> {
        let mut reader = Reader::new(&body, true);
        let throttle_time_ms = reader.i32()?;
        let error = ErrorCode::try_from_code(reader.i16()?);
        let session_id = reader.i32()?;
        let topics_at = body.len() - reader.remaining();
        let counts = topics::walk::<FetchedPartition>(&mut reader, FETCH_ROUND_VERSION, true)?;
        reader.skip_tags()?;
        Ok(Self { throttle_time_ms, error, session_id, topics_at, counts, body })
    }

    /// How many topics and partitions it holds.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Every partition in it with its topic's id, in the answer's order.
    pub fn partitions(&self) -> impl Iterator<Item = (Uuid, FetchedPartition)> + '_ {
        let mut reader = Reader::new(self.body.get(self.topics_at..).unwrap_or_default(), true);
        let count = reader.array_length(2).expect("the list was checked when the answer was parsed");
        let context = Context { body: &self.body, version: FETCH_ROUND_VERSION, by_id: true };
        let topics: Topics<'_, FetchedPartition> = Topics::new(reader, context, count);
        topics.flat_map(|topic| {
            let id = match topic.topic {
                TopicRef::Id(id) => id,
                TopicRef::Name(_) => Uuid::nil(),
            };
            topic.partitions.map(move |partition| (id, partition))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fetch::FetchRequest;
    use super::super::fetch_response::{FetchPartitionResponse, FetchResponseHead, FetchResponseWriter};
    use super::super::outbound;
    use super::*;

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn wanted(topic: u128, index: i32) -> FetchRoundPartition {
        FetchRoundPartition {
            topic_id: id(topic),
            index,
            current_leader_epoch: 5,
            fetch_offset: 1_000 + i64::from(index),
            last_fetched_epoch: 4,
            log_start_offset: 17,
            max_bytes: 1 << 20,
        }
    }

    #[test]
    fn the_leader_reads_what_the_follower_writes() {
        let head = FetchRoundHead {
            replica_id: 3,
            replica_epoch: 1 << 40,
            max_wait_ms: 500,
            min_bytes: 1,
            max_bytes: 10 << 20,
            session_id: 77,
            session_epoch: 9,
        };
        let mut body = BytesMut::new();
        let partitions = [wanted(1, 0), wanted(1, 4), wanted(2, 0)];
        write_round(&mut body, &head, &partitions, &[(id(3), 1), (id(3), 2), (id(4), 0)]);
        let read = FetchRequest::parse(body.freeze(), FETCH_ROUND_VERSION).unwrap();
        assert_eq!((read.replica_id, read.replica_epoch), (3, 1 << 40));
        assert_eq!((read.max_wait_ms, read.min_bytes, read.max_bytes), (500, 1, 10 << 20));
        assert_eq!((read.session_id, read.session_epoch, read.isolation_level), (77, 9, 0));
        assert_eq!((read.rack_id(), read.cluster_id()), ("", None));
        let listed: Vec<_> =
            read.topics().flat_map(|topic| topic.partitions.map(move |p| (topic.topic, p))).collect();
        assert_eq!(listed.len(), 3);
        for ((topic, partition), wanted) in listed.iter().zip(&partitions) {
            assert_eq!(*topic, TopicRef::Id(wanted.topic_id));
            assert_eq!((partition.index, partition.fetch_offset), (wanted.index, wanted.fetch_offset));
            assert_eq!((partition.current_leader_epoch, partition.last_fetched_epoch), (5, 4));
            assert_eq!((partition.log_start_offset, partition.max_bytes), (17, 1 << 20));
        }
        let forgotten: Vec<_> =
            read.forgotten().flat_map(|topic| topic.partitions.map(move |p| (topic.topic, p))).collect();
        let named = [(3, 1), (3, 2), (4, 0)].map(|(topic, index)| (TopicRef::Id(id(topic)), index));
        assert_eq!(forgotten, named);
    }

    fn answered() -> Bytes {
        let mut buffer = BytesMut::new();
        let head = FetchResponseHead { throttle_time_ms: 3, error: None, session_id: 8 };
        let mut writer = FetchResponseWriter::new(&mut buffer, FETCH_ROUND_VERSION, 55, head, 2);
        let full = FetchPartitionResponse {
            index: 1,
            error: None,
            high_watermark: 100,
            last_stable_offset: 90,
            log_start_offset: 10,
            aborted_transactions: None,
            preferred_read_replica: -1,
            diverging_epoch: None,
            current_leader: None,
            snapshot_id: None,
        };
        writer.topic(TopicRef::Id(id(1)), 2);
        writer.partition_inline(&full, b"the records");
        let leader = Some(CurrentLeader { leader_id: 2, leader_epoch: 6 });
        let refused = FetchPartitionResponse::error(2, ErrorCode::FencedLeaderEpoch);
        writer.partition_inline(&FetchPartitionResponse { current_leader: leader, ..refused }, b"");
        writer.topic(TopicRef::Id(id(2)), 1);
        let end = Some(EpochEnd { epoch: 4, end_offset: 44 });
        writer.partition_inline(&FetchPartitionResponse { diverging_epoch: end, ..full }, b"");
        writer.finish(&[]);
        buffer.freeze().slice(4..)
    }

    #[test]
    fn an_answer_is_read_in_place() {
        let frame = answered();
        let (correlation_id, body) = outbound::answer(&frame).unwrap();
        assert_eq!(correlation_id, 55);
        let answer = FetchAnswer::parse(body).unwrap();
        assert_eq!((answer.throttle_time_ms, answer.error, answer.session_id), (3, None, 8));
        assert_eq!((answer.counts().topics, answer.counts().partitions), (2, 3));
        let parts: Vec<_> = answer.partitions().collect();
        let [(first, full), (_, refused), (last, diverging)] = &parts[..] else { panic!("three partitions") };
        assert_eq!((*first, *last), (id(1), id(2)));
        assert_eq!((full.index, full.error, full.high_watermark, full.log_start_offset), (1, None, 100, 10));
        assert_eq!(full.records, b"the records"[..]);
        let range = frame.as_ptr_range();
        assert!(range.contains(&full.records.as_ptr()), "a slice of the frame");
        assert_eq!((refused.index, refused.error), (2, Some(ErrorCode::FencedLeaderEpoch)));
        assert_eq!(refused.current_leader, Some(CurrentLeader { leader_id: 2, leader_epoch: 6 }));
        assert_eq!(diverging.diverging, Some(EpochEnd { epoch: 4, end_offset: 44 }));
        assert!(diverging.records.is_empty() && refused.records.is_empty());
    }

    #[test]
    fn cut_and_random_answers_end_in_an_error_or_iterate_to_their_end() {
        let (_, body) = outbound::answer(&answered()).unwrap();
        for end in 0..body.len() {
            assert!(FetchAnswer::parse(body.slice(..end)).is_err(), "cut at {end}");
        }
        let mut random = fastrand::Rng::with_seed(17);
        let mut accepted = 0;
        for round in 0..20_000 {
            let mut bytes = body.to_vec();
            for _ in 0..=round % 3 {
                let at = random.usize(..bytes.len());
                bytes[at] = [random.u8(..), 0, 0x7f, 0xff][random.usize(..4)];
            }
            let Ok(answer) = FetchAnswer::parse(bytes.into()) else { continue };
            accepted += 1;
            assert_eq!(answer.partitions().count(), answer.counts().partitions as usize);
        }
        assert!(accepted > 5_000, "only {accepted} accepted: the test compares too little");
    }
}
