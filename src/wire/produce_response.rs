//! Writes a Produce response, versions 3–13, straight into the send buffer.
//!
//! The caller names the counts beforehand (they are the request's) and then streams topics and
//! partitions. Counts that do not come true are programmer errors.

use bytes::BytesMut;

use super::api::ApiKey;
use super::primitive::Writer;
use super::{CurrentLeader, ErrorCode, NodeEndpoint, TopicRef, error_number, header};

/// A record that made its batch be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordError<'a> {
    /// Index of the record in its batch.
    pub batch_index: i32,
    /// What is wrong with it.
    pub message: Option<&'a str>,
}

/// What became of one partition's records. Fields that a version lacks are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducePartitionResponse<'a> {
    /// Partition index.
    pub index: i32,
    /// Why they were not appended.
    pub error: Option<ErrorCode>,
    /// Offset of the first record, −1 on an error.
    pub base_offset: i64,
    /// Timestamp given under LogAppendTime, else −1.
    pub log_append_time_ms: i64,
    /// First offset of the log, −1 if unknown (v5).
    pub log_start_offset: i64,
    /// Records at fault (v8).
    pub record_errors: &'a [RecordError<'a>],
    /// What is wrong, for people (v8).
    pub error_message: Option<&'a str>,
    /// Where the leader is now, with NOT_LEADER_OR_FOLLOWER (v10).
    pub current_leader: Option<CurrentLeader>,
}

impl ProducePartitionResponse<'_> {
    /// A refusal without further fields.
    pub fn error(index: i32, error: ErrorCode) -> Self {
        Self {
            index,
            error: Some(error),
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset: -1,
            record_errors: &[],
            error_message: None,
            current_leader: None,
        }
    }
}

/// A response being written.
#[derive(Debug)]
pub struct ProduceResponseWriter<'b> {
    buffer: &'b mut BytesMut,
    start: usize,
    version: i16,
    flexible: bool,
    topics_left: u32,
    partitions_left: u32,
    topic_open: bool,
}

impl<'b> ProduceResponseWriter<'b> {
    /// Starts a response of `topics_count` topics at the end of `buffer`.
    pub fn new(buffer: &'b mut BytesMut, version: i16, correlation_id: i32, topics_count: u32) -> Self {
        let api = ApiKey::Produce.api();
        assert!(api.serves(version), "Produce v{version} is not served");
        let start = header::begin_response(buffer, api, version, correlation_id);
        let flexible = api.is_flexible(version);
        Writer::new(buffer, flexible).length(topics_count);
        let topics_left = topics_count;
        Self { buffer, start, version, flexible, topics_left, partitions_left: 0, topic_open: false }
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

    /// Writes one partition of the topic.
    pub fn partition(&mut self, partition: &ProducePartitionResponse<'_>) {
        self.partitions_left = self.partitions_left.checked_sub(1).expect("more partitions than announced");
        let version = self.version;
        let mut writer = self.writer();
        writer.i32(partition.index);
        writer.i16(error_number(partition.error));
        writer.i64(partition.base_offset);
        writer.i64(partition.log_append_time_ms);
        if version >= 5 {
            writer.i64(partition.log_start_offset);
        }
        if version >= 8 {
            writer.length(partition.record_errors.len() as u32);
            for error in partition.record_errors {
                writer.i32(error.batch_index);
                writer.string_nullable(error.message);
                writer.tags(0);
            }
            writer.string_nullable(partition.error_message);
        }
        match partition.current_leader.filter(|_| version >= 10) {
            Some(leader) => {
                writer.tags(1);
                writer.tag(0, 9);
                writer.i32(leader.leader_id);
                writer.i32(leader.leader_epoch);
                writer.tags(0);
            }
            None => writer.tags(0),
        }
    }

    /// Ends the response, and returns its bytes with the length prefix. `nodes` are the leaders
    /// named (v10).
    pub fn finish(mut self, throttle_time_ms: i32, nodes: &[NodeEndpoint<'_>]) -> u64 {
        self.close_topic();
        assert_eq!(self.topics_left, 0, "fewer topics than announced");
        let nodes = if self.version >= 10 { nodes } else { &[] };
        let mut writer = self.writer();
        writer.i32(throttle_time_ms);
        writer.node_endpoints(nodes);
        header::end_response(self.buffer, self.start, 0)
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Buf, Bytes};
    use kafka_protocol::messages::{ProduceResponse, ResponseHeader};
    use kafka_protocol::protocol::Decodable;
    use uuid::Uuid;

    use super::*;

    fn write(version: i16) -> Bytes {
        let mut buffer = BytesMut::from(&b"earlier"[..]);
        let name = |name| if version >= 13 { TopicRef::Id(Uuid::from_u128(5)) } else { TopicRef::Name(name) };
        let mut writer = ProduceResponseWriter::new(&mut buffer, version, 77, 2);
        writer.topic(name("orders"), 2);
        writer.partition(&ProducePartitionResponse {
            index: 3,
            error: None,
            base_offset: 1 << 40,
            log_append_time_ms: 99,
            log_start_offset: 7,
            record_errors: &[],
            error_message: None,
            current_leader: None,
        });
        writer.partition(&ProducePartitionResponse {
            record_errors: &[
                RecordError { batch_index: 4, message: Some("no key") },
                RecordError { batch_index: 5, message: None },
            ],
            error_message: Some("bad records"),
            current_leader: Some(CurrentLeader { leader_id: 2, leader_epoch: 8 }),
            ..ProducePartitionResponse::error(4, ErrorCode::InvalidRecord)
        });
        writer.topic(name("empty"), 0);
        let nodes = [
            NodeEndpoint { node_id: 2, host: "broker.example", port: 9092, rack: None },
            NodeEndpoint { node_id: 3, host: "::1", port: 9093, rack: Some("b") },
        ];
        let whole_bytes = writer.finish(13, &nodes);
        buffer.advance(7);
        assert_eq!(whole_bytes, buffer.len() as u64);
        buffer.freeze()
    }

    #[test]
    fn the_library_reads_every_version_back() {
        for version in 3..=13 {
            let mut bytes = write(version);
            assert_eq!(bytes.get_i32() as usize, bytes.remaining());
            let header = ResponseHeader::decode(&mut bytes, if version >= 9 { 1 } else { 0 }).unwrap();
            assert_eq!(header.correlation_id, 77);
            let response = ProduceResponse::decode(&mut bytes, version).unwrap();
            assert!(!bytes.has_remaining());
            assert_eq!(response.throttle_time_ms, 13);
            assert_eq!(response.responses.len(), 2);
            let topic = &response.responses[0];
            assert_eq!(topic.name.as_str(), if version >= 13 { "" } else { "orders" });
            assert_eq!(topic.topic_id.as_u128(), if version >= 13 { 5 } else { 0 });
            let [good, bad] = &topic.partition_responses[..] else { panic!("two partitions") };
            assert_eq!((good.index, good.error_code, good.base_offset), (3, 0, 1 << 40));
            assert_eq!(good.log_append_time_ms, 99);
            assert_eq!(good.log_start_offset, if version >= 5 { 7 } else { -1 });
            assert_eq!((bad.index, bad.error_code, bad.base_offset), (4, 87, -1));
            assert_eq!(bad.error_message.as_deref(), (version >= 8).then_some("bad records"));
            assert_eq!(bad.record_errors.len(), if version >= 8 { 2 } else { 0 });
            let leader = &bad.current_leader;
            assert_eq!(
                (leader.leader_id.0, leader.leader_epoch),
                if version >= 10 { (2, 8) } else { (-1, -1) }
            );
            assert_eq!(response.node_endpoints.len(), if version >= 10 { 2 } else { 0 });
            if let Some(node) = response.node_endpoints.last() {
                assert_eq!((node.host.as_str(), node.port, node.rack.as_deref()), ("::1", 9093, Some("b")));
            }
        }
    }
}
