//! A valid body for every API and version of the broker's table, with plausible content from a seed: topics
//! that are there and topics that are not, in and out of range.
//!
//! An API that the table gains and this file does not know fails the run, by name.

use bytes::{Bytes, BytesMut};
use fastrand::Rng;
use kafka_protocol::messages::alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_producers_request::TopicRequest as ProducersTopic;
use kafka_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    AlterReplicaLogDirsRequest, ApiVersionsRequest, BrokerId, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteRecordsRequest, DeleteTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest,
    DescribeLogDirsRequest, DescribeProducersRequest, DescribeTopicPartitionsRequest, FetchRequest,
    FindCoordinatorRequest, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest,
    OffsetForLeaderEpochRequest, ProduceRequest, ProducerId, TopicName,
};
use kafka_protocol::protocol::{Encodable, Request, StrBytes};
use tidemill::wire::beyond;
use uuid::Uuid;

use crate::batches::Arsenal;

/// Kafka's numbers.
pub const PRODUCE: i16 = 0;
pub const FETCH: i16 = 1;
pub const API_VERSIONS: i16 = 18;
pub const CREATE_TOPICS: i16 = 19;
pub const CREATE_PARTITIONS: i16 = 37;

/// A topic that hostile requests may use.
#[derive(Clone, Debug)]
pub struct Target {
    pub name: String,
    pub id: Uuid,
    pub partitions: i32,
}

/// What hostile requests know of the broker.
#[derive(Debug)]
pub struct World {
    /// Topics that are there from the beginning to the end.
    pub targets: Vec<Target>,
    /// Names of topics that come and go.
    pub passing: Vec<String>,
    pub arsenal: Arsenal,
}

/// Makes bodies.
pub struct Bodies<'a> {
    pub world: &'a World,
    pub rng: Rng,
    /// The fetch session that the connection was given last.
    pub session_id: i32,
}

pub fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

pub fn topic_name(value: &str) -> TopicName {
    TopicName(text(value))
}

/// The body of a request.
pub fn encoded<T: Encodable + Request>(request: &T, version: i16) -> Bytes {
    let mut buffer = BytesMut::new();
    beyond::encode_request(&mut buffer, version, request)
        .unwrap_or_else(|error| panic!("version {version}: {error}"));
    buffer.freeze()
}

impl Bodies<'_> {
    /// A valid body, with records that the broker may or may not take.
    pub fn valid(&mut self, key: i16, version: i16) -> Bytes {
        match key {
            PRODUCE => {
                let records = self.world.arsenal.sound(&mut self.rng);
                self.produce(version, &[Some(records)])
            }
            FETCH => self.fetch(version),
            2 => self.list_offsets(version),
            3 => self.metadata(version),
            10 => self.find_coordinator(version),
            API_VERSIONS => self.api_versions(version),
            CREATE_TOPICS => self.create_topics(version),
            20 => self.delete_topics(version),
            22 => self.init_producer_id(version),
            23 => self.offset_for_leader_epoch(version),
            32 => self.describe_configs(version),
            CREATE_PARTITIONS => self.create_partitions(version),
            21 => self.delete_records(version),
            34 => self.alter_replica_log_dirs(version),
            35 => self.describe_log_dirs(version),
            61 => self.describe_producers(version),
            60 => self.describe_cluster(version),
            75 => self.describe_topic_partitions(version),
            _ => self.groups(key, version),
        }
    }

    /// The name, id and partition count of a topic, which is not always there.
    pub fn topic(&mut self) -> (TopicName, Uuid, i32) {
        let world = self.world;
        match self.rng.u8(..10) {
            0 => (topic_name("not-there"), Uuid::from_u128(self.rng.u128(..)), 1),
            1 => {
                let name = &world.passing[self.rng.usize(..world.passing.len())];
                (topic_name(name), Uuid::from_u128(u128::from(self.rng.u8(..))), 2)
            }
            _ => {
                let target = &world.targets[self.rng.usize(..world.targets.len())];
                (topic_name(&target.name), target.id, target.partitions)
            }
        }
    }

    pub fn partition(&mut self, count: i32) -> i32 {
        match self.rng.u8(..20) {
            0 => count,
            1 => [-1, i32::MAX, i32::MIN][self.rng.usize(..3)],
            _ => self.rng.i32(0..count),
        }
    }

    fn epoch(&mut self) -> i32 {
        [-1, -1, -1, 0, 1, 7, i32::MAX, i32::MIN][self.rng.usize(..8)]
    }

    /// A Produce request for one partition of a topic for each of these records.
    pub fn produce(&mut self, version: i16, records: &[Option<Bytes>]) -> Bytes {
        let topics = records.iter().map(|records| {
            let (name, id, count) = self.topic();
            let data = PartitionProduceData::default()
                .with_index(self.partition(count))
                .with_records(records.clone());
            let topic = TopicProduceData::default().with_partition_data(vec![data]);
            if version >= 13 { topic.with_topic_id(id) } else { topic.with_name(name) }
        });
        let topics: Vec<TopicProduceData> = topics.collect();
        let acks = [-1, 1, 1, 1, 1, 1, 1, 0, 2, i16::MIN][self.rng.usize(..10)];
        let request =
            ProduceRequest::default().with_acks(acks).with_timeout_ms(1_000).with_topic_data(topics);
        encoded(&request, version)
    }

    fn fetch(&mut self, version: i16) -> Bytes {
        let topics: Vec<FetchTopic> = (0..self.rng.usize(0..4)).map(|_| self.fetch_topic(version)).collect();
        let request = FetchRequest::default()
            .with_max_wait_ms([0, 0, 0, 1, 5][self.rng.usize(..5)])
            .with_min_bytes([0, 1, 1, 1, i32::MAX, -1][self.rng.usize(..6)])
            .with_max_bytes([1 << 16, 1 << 16, 1, 0, -1, 1 << 20][self.rng.usize(..6)])
            .with_isolation_level([0, 0, 1, 2, -1][self.rng.usize(..5)])
            .with_topics(topics);
        let replica = BrokerId([-1, -1, -1, -1, 0, 1, i32::MIN][self.rng.usize(..7)]);
        let request = match version {
            15.. => request.with_replica_state(ReplicaState::default().with_replica_id(replica)),
            _ => request.with_replica_id(replica),
        };
        let request = if version >= 7 { self.in_session(request, version) } else { request };
        encoded(&request, version)
    }

    fn fetch_topic(&mut self, version: i16) -> FetchTopic {
        let (name, id, count) = self.topic();
        // Now and then as many partitions as a list can hold in a small frame.
        let wanted = if self.rng.u8(..50) == 0 { 2_000 } else { self.rng.usize(0..4) };
        let partition = |_| {
            let offset = [0, 0, 1, 10, 1_000, -1, -2, i64::MAX, i64::MIN][self.rng.usize(..9)];
            let partition = FetchPartition::default()
                .with_partition(self.partition(count))
                .with_fetch_offset(offset)
                .with_partition_max_bytes([1 << 15, 1, 0, -1, 1 << 20][self.rng.usize(..5)]);
            let partition = if version >= 5 { partition.with_log_start_offset(-1) } else { partition };
            let partition =
                if version >= 9 { partition.with_current_leader_epoch(self.epoch()) } else { partition };
            if version >= 12 { partition.with_last_fetched_epoch(self.epoch()) } else { partition }
        };
        let partitions = (0..wanted).map(partition).collect();
        let topic = FetchTopic::default().with_partitions(partitions);
        if version >= 13 { topic.with_topic_id(id) } else { topic.with_topic(name) }
    }

    /// New sessions, the connection's own, those of others, and epochs that do not follow.
    fn in_session(&mut self, request: FetchRequest, version: i16) -> FetchRequest {
        let (id, epoch) = match self.rng.u8(..8) {
            0 | 1 => (0, 0),
            2 => (self.session_id, [1, 2, 3, i32::MAX][self.rng.usize(..4)]),
            3 => (self.rng.i32(..), self.rng.i32(..)),
            4 => (self.session_id, -1),
            _ => (0, -1),
        };
        let (name, topic_id, count) = self.topic();
        let forgotten = ForgottenTopic::default().with_partitions(vec![self.partition(count)]);
        let forgotten =
            if version >= 13 { forgotten.with_topic_id(topic_id) } else { forgotten.with_topic(name) };
        let forgotten = if self.rng.bool() { vec![forgotten] } else { Vec::new() };
        request.with_session_id(id).with_session_epoch(epoch).with_forgotten_topics_data(forgotten)
    }

    fn list_offsets(&mut self, version: i16) -> Bytes {
        let topics = (0..self.rng.usize(0..3)).map(|_| {
            let (name, _, count) = self.topic();
            let partition = ListOffsetsPartition::default()
                .with_partition_index(self.partition(count))
                .with_timestamp([0, -1, -2, -3, -4, -5, -9, i64::MAX, 1_000][self.rng.usize(..9)]);
            let partition =
                if version >= 4 { partition.with_current_leader_epoch(self.epoch()) } else { partition };
            ListOffsetsTopic::default().with_name(name).with_partitions(vec![partition])
        });
        let request = ListOffsetsRequest::default().with_topics(topics.collect());
        let request = request.with_replica_id(BrokerId([-1, -1, -2, 0][self.rng.usize(..4)]));
        let request = if version >= 2 { request.with_isolation_level(self.rng.i8(0..3)) } else { request };
        encoded(&request, version)
    }

    fn metadata(&mut self, version: i16) -> Bytes {
        let wanted = self.rng.usize(0..4);
        let topics = (0..wanted).map(|_| {
            let (name, id, _) = self.topic();
            let topic = MetadataRequestTopic::default();
            if version >= 12 && self.rng.bool() {
                topic.with_name(None).with_topic_id(id)
            } else {
                topic.with_name(Some(name))
            }
        });
        let topics: Vec<MetadataRequestTopic> = topics.collect();
        let topics = if version >= 1 && self.rng.u8(..8) == 0 { None } else { Some(topics) };
        let request = MetadataRequest::default().with_topics(topics);
        let request = if version >= 4 {
            request.with_allow_auto_topic_creation(self.rng.u8(..8) == 0)
        } else {
            request
        };
        encoded(&request, version)
    }

    fn find_coordinator(&mut self, version: i16) -> Bytes {
        let request = FindCoordinatorRequest::default();
        let request = if version >= 1 { request.with_key_type(self.rng.i8(-1..4)) } else { request };
        let request = match version {
            4.. => request.with_coordinator_keys(vec![text("group"); self.rng.usize(0..5)]),
            _ => request.with_key(text("group")),
        };
        encoded(&request, version)
    }

    fn api_versions(&mut self, version: i16) -> Bytes {
        let request = ApiVersionsRequest::default();
        let named = request
            .clone()
            .with_client_software_name(text(["hostile", "", "a b", "né"][self.rng.usize(..4)]))
            .with_client_software_version(text("1.0"));
        encoded(if version >= 3 { &named } else { &request }, version)
    }

    fn create_topics(&mut self, version: i16) -> Bytes {
        let names = ["", ".", "..", "a/b", "x\u{0}y", "__cluster_metadata", &"n".repeat(250)];
        let bad = self.rng.bool();
        let passing = &self.world.passing;
        let name = if bad {
            names[self.rng.usize(..names.len())]
        } else {
            &passing[self.rng.usize(..passing.len())]
        };
        let configs = [
            ("segment.bytes", Some("1048576")),
            ("segment.bytes", Some("-1")),
            ("cleanup.policy", Some("compact")),
            ("no.such.key", Some("x")),
            ("retention.ms", None),
            ("compression.type", Some("zstd")),
        ];
        let config = configs[self.rng.usize(..configs.len())];
        let config = CreatableTopicConfig::default().with_name(text(config.0)).with_value(config.1.map(text));
        let assignment = CreatableReplicaAssignment::default()
            .with_partition_index(self.rng.i32(-1..2))
            .with_broker_ids(vec![BrokerId(self.rng.i32(-1..3))]);
        let topic = CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions([-1, 0, 1, 2, i32::MAX, i32::MIN][self.rng.usize(..6)])
            .with_replication_factor([-1, 1, 1, 0, 2, i16::MAX][self.rng.usize(..6)])
            .with_configs(if self.rng.bool() { vec![config] } else { Vec::new() })
            .with_assignments(if self.rng.u8(..4) == 0 { vec![assignment] } else { Vec::new() });
        let request = CreateTopicsRequest::default()
            .with_topics(vec![topic; self.rng.usize(0..3)])
            .with_timeout_ms([0, 1_000, -1][self.rng.usize(..3)])
            .with_validate_only(self.rng.u8(..10) > 0);
        encoded(&request, version)
    }

    fn delete_topics(&mut self, version: i16) -> Bytes {
        let passing = &self.world.passing;
        let name = match self.rng.bool() {
            true => topic_name("not-there"),
            false => topic_name(&passing[self.rng.usize(..passing.len())]),
        };
        let request = DeleteTopicsRequest::default().with_timeout_ms(1_000);
        let id = Uuid::from_u128(u128::from(self.rng.u8(..)));
        let state = match self.rng.bool() {
            true => DeleteTopicState::default().with_name(None).with_topic_id(id),
            false => DeleteTopicState::default().with_name(Some(name.clone())),
        };
        let wanted = self.rng.usize(0..3);
        let request = match version {
            6.. => request.with_topics(vec![state; wanted]),
            _ => request.with_topic_names(vec![name; wanted]),
        };
        encoded(&request, version)
    }

    fn init_producer_id(&mut self, version: i16) -> Bytes {
        let id = if self.rng.u8(..4) == 0 { Some(text("transaction").into()) } else { None };
        let request = InitProducerIdRequest::default()
            .with_transactional_id(id)
            .with_transaction_timeout_ms([60_000, 0, -1, i32::MAX][self.rng.usize(..4)]);
        let request = match version {
            3.. => request
                .with_producer_id(ProducerId([-1, 0, 5, i64::MAX][self.rng.usize(..4)]))
                .with_producer_epoch([-1, 0, i16::MAX][self.rng.usize(..3)]),
            _ => request,
        };
        encoded(&request, version)
    }

    fn offset_for_leader_epoch(&mut self, version: i16) -> Bytes {
        let topics = (0..self.rng.usize(0..3)).map(|_| {
            let (name, _, count) = self.topic();
            let partition = OffsetForLeaderPartition::default()
                .with_partition(self.partition(count))
                .with_current_leader_epoch(self.epoch())
                .with_leader_epoch(self.epoch());
            OffsetForLeaderTopic::default().with_topic(name).with_partitions(vec![partition])
        });
        let request = OffsetForLeaderEpochRequest::default().with_topics(topics.collect());
        encoded(&request, version)
    }

    fn describe_configs(&mut self, version: i16) -> Bytes {
        let (name, _, _) = self.topic();
        let named = [name.0, text("1"), text(""), text("9")][self.rng.usize(..4)].clone();
        let keys = [None, Some(Vec::new()), Some(vec![text("segment.bytes"), text("no.such.key")])];
        let resource = DescribeConfigsResource::default()
            .with_resource_type([2, 2, 4, 8, 16, 32, 0, -1, 99][self.rng.usize(..9)])
            .with_resource_name(named)
            .with_configuration_keys(keys[self.rng.usize(..3)].clone());
        let request = DescribeConfigsRequest::default()
            .with_resources(vec![resource; self.rng.usize(0..3)])
            .with_include_synonyms(self.rng.bool());
        let request =
            if version >= 3 { request.with_include_documentation(self.rng.bool()) } else { request };
        encoded(&request, version)
    }

    fn create_partitions(&mut self, version: i16) -> Bytes {
        let (name, _, _) = self.topic();
        let assignment = CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(9); 2]);
        let topic = CreatePartitionsTopic::default()
            .with_name(name)
            .with_count([0, -1, 1, 3, i32::MAX][self.rng.usize(..5)])
            .with_assignments(if self.rng.bool() { Some(vec![assignment]) } else { None });
        // Only checked, never made: the topics stay as large as they are.
        let request = CreatePartitionsRequest::default()
            .with_topics(vec![topic; self.rng.usize(0..3)])
            .with_timeout_ms(1_000)
            .with_validate_only(true);
        encoded(&request, version)
    }

    fn delete_records(&mut self, version: i16) -> Bytes {
        let (name, _, _) = self.topic();
        // Nothing is deleted: what hostile requests write is compared afterwards.
        let partition = DeleteRecordsPartition::default()
            .with_partition_index([0, -1, 7, i32::MAX][self.rng.usize(..4)])
            .with_offset([0, -2, i64::MAX, i64::MIN][self.rng.usize(..4)]);
        let topic = DeleteRecordsTopic::default()
            .with_name(name)
            .with_partitions(vec![partition; self.rng.usize(0..3)]);
        let request = DeleteRecordsRequest::default()
            .with_topics(vec![topic; self.rng.usize(0..3)])
            .with_timeout_ms([0, -1, 1_000][self.rng.usize(..3)]);
        encoded(&request, version)
    }

    fn alter_replica_log_dirs(&mut self, version: i16) -> Bytes {
        let (name, _, _) = self.topic();
        let topic = AlterReplicaLogDirTopic::default().with_name(name).with_partitions(vec![0, -1, i32::MAX]);
        let dir = AlterReplicaLogDir::default()
            .with_path(text(["", "/", "/no/such/directory"][self.rng.usize(..3)]))
            .with_topics(vec![topic; self.rng.usize(0..3)]);
        let request = AlterReplicaLogDirsRequest::default().with_dirs(vec![dir; self.rng.usize(0..3)]);
        encoded(&request, version)
    }

    fn describe_log_dirs(&mut self, version: i16) -> Bytes {
        let (name, _, _) = self.topic();
        let topic = DescribableLogDirTopic::default().with_topic(name).with_partitions(vec![0, -1, i32::MAX]);
        let topics = if self.rng.bool() { None } else { Some(vec![topic; self.rng.usize(0..3)]) };
        encoded(&DescribeLogDirsRequest::default().with_topics(topics), version)
    }

    fn describe_producers(&mut self, version: i16) -> Bytes {
        let (name, _, _) = self.topic();
        let topic = ProducersTopic::default().with_name(name).with_partition_indexes(vec![0, -1, i32::MAX]);
        let topics = vec![topic; self.rng.usize(0..3)];
        encoded(&DescribeProducersRequest::default().with_topics(topics), version)
    }

    fn describe_cluster(&mut self, version: i16) -> Bytes {
        let request =
            DescribeClusterRequest::default().with_include_cluster_authorized_operations(self.rng.bool());
        let request = if version >= 1 { request.with_endpoint_type(self.rng.i8(0..4)) } else { request };
        encoded(&request, version)
    }

    fn describe_topic_partitions(&mut self, version: i16) -> Bytes {
        let topics =
            (0..self.rng.usize(0..4)).map(|_| TopicRequest::default().with_name(self.topic().0)).collect();
        let (name, _, count) = self.topic();
        let cursor = Cursor::default().with_topic_name(name).with_partition_index(self.partition(count));
        let request = DescribeTopicPartitionsRequest::default()
            .with_topics(topics)
            .with_response_partition_limit([2_000, 1, 0, -1, i32::MAX][self.rng.usize(..5)])
            .with_cursor(if self.rng.bool() { Some(cursor) } else { None });
        encoded(&request, version)
    }
}
