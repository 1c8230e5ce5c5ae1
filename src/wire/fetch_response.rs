//! Writes a Fetch response, versions 4–18, whose records are sent from elsewhere.
//!
//! The buffer holds everything but the records. [`FetchResponseWriter::partition`] writes a
//! partition's fields and its records length, and returns the *cut*: the place in the buffer where
//! that many bytes of records belong. The shell sends the buffer up to the first cut, the first
//! span, the buffer up to the next cut, and so on; the frame's length counts the spans.
//!
//! ```text
//! buffer  [length header … fields, records length][tags, fields, records length][tags …]
//!                                                ↑ cut: span 1                   ↑ cut: span 2
//! ```
//!
//! A partition without records, error or not, carries records of length 0 and never null: clients
//! read a null as a malformed response.

use bytes::BytesMut;

use super::api::ApiKey;
use super::primitive::Writer;
use super::{CurrentLeader, ErrorCode, NodeEndpoint, TopicRef, error_number, header};

/// The fields before the topics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchResponseHead {
    /// How long the client is held back, in milliseconds.
    pub throttle_time_ms: i32,
    /// An error of the whole request, such as of its session (v7).
    pub error: Option<ErrorCode>,
    /// Fetch session, 0 for none (v7).
    pub session_id: i32,
}

/// A transaction that a reader of committed records skips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Its producer.
    pub producer_id: i64,
    /// Its first offset in the partition.
    pub first_offset: i64,
}

/// An epoch and the offset after its last record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// Leader epoch.
    pub epoch: i32,
    /// Offset after its last record.
    pub end_offset: i64,
}

/// One partition's answer but for its records. Fields that a version lacks are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchPartitionResponse<'a> {
    /// Partition index.
    pub index: i32,
    /// Why nothing could be read.
    pub error: Option<ErrorCode>,
    /// High watermark, −1 on an error.
    pub high_watermark: i64,
    /// Last stable offset, −1 if unknown.
    pub last_stable_offset: i64,
    /// Log start offset, −1 if unknown (v5).
    pub log_start_offset: i64,
    /// Aborted transactions in the range read; `None` (null) when reading uncommitted.
    pub aborted_transactions: Option<&'a [AbortedTransaction]>,
    /// A replica that the consumer should rather read from, −1 for none (v11).
    pub preferred_read_replica: i32,
    /// From where the follower's log differs (v12, tag 0).
    pub diverging_epoch: Option<EpochEnd>,
    /// Where the leader is now (v12, tag 1).
    pub current_leader: Option<CurrentLeader>,
    /// The snapshot to fetch instead (v12, tag 2).
    pub snapshot_id: Option<EpochEnd>,
}

impl FetchPartitionResponse<'_> {
    /// A refusal without further fields; like Kafka's, its aborted transactions are none, not null.
    pub fn error(index: i32, error: ErrorCode) -> Self {
        Self {
            index,
            error: Some(error),
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            aborted_transactions: Some(&[]),
            preferred_read_replica: -1,
            diverging_epoch: None,
            current_leader: None,
            snapshot_id: None,
        }
    }
}

/// A response being written.
#[derive(Debug)]
pub struct FetchResponseWriter<'b> {
    buffer: &'b mut BytesMut,
    start: usize,
    version: i16,
    flexible: bool,
    elsewhere_bytes: u64,
    topics_left: u32,
    partitions_left: u32,
    topic_open: bool,
}

impl<'b> FetchResponseWriter<'b> {
    /// Starts a response of `topics_count` topics at the end of `buffer`.
    pub fn new(
        buffer: &'b mut BytesMut,
        version: i16,
        correlation_id: i32,
        head: FetchResponseHead,
        topics_count: u32,
    ) -> Self {
        let api = ApiKey::Fetch.api();
        assert!(api.serves(version), "Fetch v{version} is not served");
        let start = header::begin_response(buffer, api, version, correlation_id);
        let flexible = api.is_flexible(version);
        let mut writer = Writer::new(buffer, flexible);
        writer.i32(head.throttle_time_ms);
        if version >= 7 {
            writer.i16(error_number(head.error));
            writer.i32(head.session_id);
        }
        writer.length(topics_count);
        Self {
            buffer,
            start,
            version,
            flexible,
            elsewhere_bytes: 0,
            topics_left: topics_count,
            partitions_left: 0,
            topic_open: false,
        }
    }

    fn writer(&mut self) -> Writer<'_> {
        Writer::new(self.buffer, self.flexible)
    }

    fn close_topic(&mut self) {
        assert_eq!(self.partitions_left, 0, "a topic has fewer partitions than announced");
        if self.topic_open {
            self.topic_open = false;
            self.writer().tags(0);
        }
    }

    /// Starts a topic, named as in the request, with that many partitions.
    pub fn topic(&mut self, topic: TopicRef<'_>, partitions_count: u32) {
        self.close_topic();
        assert_eq!(matches!(topic, TopicRef::Id(_)), self.version >= 13, "v13 names topics by id");
        self.topics_left = self.topics_left.checked_sub(1).expect("more topics than announced");
        self.partitions_left = partitions_count;
        self.topic_open = true;
        let mut writer = self.writer();
        topic.write(&mut writer);
        writer.length(partitions_count);
    }

    /// Writes one partition whose records, `records_bytes` of them, are sent from elsewhere;
    /// returns the cut: their place in the buffer, counted from the buffer's start.
    pub fn partition(&mut self, partition: &FetchPartitionResponse<'_>, records_bytes: u32) -> usize {
        self.fields(partition, records_bytes);
        self.elsewhere_bytes += u64::from(records_bytes);
        let cut = self.buffer.len();
        self.tags(partition);
        cut
    }

    /// Writes one partition with its records copied into the buffer.
    pub fn partition_inline(&mut self, partition: &FetchPartitionResponse<'_>, records: &[u8]) {
        let records_bytes = u32::try_from(records.len()).expect("a fetch is bounded far below 4 GiB");
        self.fields(partition, records_bytes);
        self.writer().raw(records);
        self.tags(partition);
    }

    fn fields(&mut self, partition: &FetchPartitionResponse<'_>, records_bytes: u32) {
        self.partitions_left = self.partitions_left.checked_sub(1).expect("more partitions than announced");
        let version = self.version;
        let mut writer = self.writer();
        writer.i32(partition.index);
        writer.i16(error_number(partition.error));
        writer.i64(partition.high_watermark);
        writer.i64(partition.last_stable_offset);
        if version >= 5 {
            writer.i64(partition.log_start_offset);
        }
        match partition.aborted_transactions {
            Some(aborted) => {
                writer.length(aborted.len() as u32);
                for transaction in aborted {
                    writer.i64(transaction.producer_id);
                    writer.i64(transaction.first_offset);
                    writer.tags(0);
                }
            }
            None => writer.length_null(),
        }
        if version >= 11 {
            writer.i32(partition.preferred_read_replica);
        }
        writer.length(records_bytes);
    }

    fn tags(&mut self, partition: &FetchPartitionResponse<'_>) {
        let FetchPartitionResponse { diverging_epoch, current_leader, snapshot_id, .. } = *partition;
        if !self.flexible {
            return;
        }
        let count = u32::from(diverging_epoch.is_some())
            + u32::from(current_leader.is_some())
            + u32::from(snapshot_id.is_some());
        let mut writer = self.writer();
        writer.tags(count);
        if let Some(diverging) = diverging_epoch {
            writer.tag(0, 13);
            writer.i32(diverging.epoch);
            writer.i64(diverging.end_offset);
            writer.tags(0);
        }
        if let Some(leader) = current_leader {
            writer.tag(1, 9);
            writer.i32(leader.leader_id);
            writer.i32(leader.leader_epoch);
            writer.tags(0);
        }
        if let Some(snapshot) = snapshot_id {
            writer.tag(2, 13);
            writer.i64(snapshot.end_offset);
            writer.i32(snapshot.epoch);
            writer.tags(0);
        }
    }

    /// Ends the response and patches its length. Returns the bytes of the whole frame with its
    /// prefix and with the records sent from elsewhere. `nodes` are the leaders named (v16).
    pub fn finish(mut self, nodes: &[NodeEndpoint<'_>]) -> u64 {
        self.close_topic();
        assert_eq!(self.topics_left, 0, "fewer topics than announced");
        let nodes = if self.version >= 16 { nodes } else { &[] };
        self.writer().node_endpoints(nodes);
        header::end_response(self.buffer, self.start, self.elsewhere_bytes)
    }
}
