//! A stage for unit tests of requests: a node, a cluster, and the answers of a request that asks nobody
//! else or is answered by the test.

use core::net::Ipv4Addr;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable, Request};
use uuid::Uuid;

use super::{Answered, ClusterView, Desk, FetchSessions, Node, Outbox, RequestContext, Scene, Work};
use crate::config::{NodeConfig, TopicConfig};
use crate::controller::image::ImageBuilder;
use crate::controller::record::{METADATA_VERSION_LATEST, PartitionRecord, Record};
use crate::controller::{
    BrokerRegistration, ControllerAnswer, ControllerRequest, Endpoint, ImageDelta, ResourceType, ShardId,
    ShardPlacement,
};
use crate::effect::Now;
use crate::partition::ReplyTo;
use crate::security::Principal;
use crate::wire::api::ApiKey;
use crate::wire::beyond;
use crate::wire::header::{self, RequestHeader};
use crate::wire::outbound;

/// Where the requests of tests come from.
pub(super) const TO: ReplyTo = ReplyTo { shard: 0, connection: 0, generation: 1, request: 0, part: 0 };

pub(super) struct Stage {
    pub node: Node,
    pub view: ClusterView,
    pub desk: Desk,
    pub now: Now,
    pub context: RequestContext,
    builder: ImageBuilder,
}

impl Stage {
    /// Node 1 with these configuration values and nobody else.
    pub fn new(pairs: &[(&str, &str)]) -> Self {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let (config, _) = NodeConfig::load(None, &pairs).unwrap();
        let rack = config.rack.clone();
        let mut stage = Self {
            node: Node {
                config: config.clone(),
                cluster_id: "AAAAAAAAAAAAAAAAAAAAAA".to_string(),
                shard_count: 1,
                seed: 1,
            },
            view: ClusterView { version: 1, ..ClusterView::before_any(Arc::new(config)) },
            desk: Desk::new(FetchSessions::new(ShardId(0), 1_000), 1),
            now: Now { mono_ms: 1_000, wall_ms: 1_700_000_000_000 },
            context: RequestContext {
                listener: 0,
                peer: Ipv4Addr::LOCALHOST.into(),
                principal: Principal::Anonymous,
            },
            builder: ImageBuilder::default(),
        };
        stage.apply(Record::MetadataVersion { version: METADATA_VERSION_LATEST });
        stage.broker(1, rack.as_deref(), false);
        stage
    }

    pub fn broker(&mut self, node_id: i32, rack: Option<&str>, fenced: bool) {
        let listener = Endpoint {
            name: "PLAINTEXT".into(),
            host: format!("host-{node_id}").into(),
            port: 9092,
            security_protocol: 0,
        };
        self.apply(Record::RegisterBroker(BrokerRegistration {
            node_id,
            incarnation: Uuid::from_u128(1),
            epoch: 1,
            listeners: vec![listener],
            rack: rack.map(Arc::from),
            fenced,
            in_controlled_shutdown: false,
            directories: Vec::new(),
        }));
    }

    /// A topic whose partitions are led by these nodes, with leader epoch 5; -1 leads nothing.
    pub fn topic(&mut self, name: &str, id: u128, leaders: &[i32]) -> Uuid {
        let topic_id = Uuid::from_u128(id);
        self.apply(Record::Topic { name: name.into(), topic_id });
        for (index, leader) in (0..).zip(leaders) {
            self.partition(topic_id, index, *leader, &[leader.abs()]);
        }
        self.view.topic_configs.insert(topic_id, Arc::new(TopicConfig::default()));
        topic_id
    }

    /// A topic with one partition on these nodes, all in sync and led by the first.
    pub fn replicated(&mut self, name: &str, id: u128, replicas: &[i32]) -> Uuid {
        let topic_id = self.topic(name, id, &[]);
        self.partition(topic_id, 0, replicas[0], replicas);
        topic_id
    }

    fn partition(&mut self, topic_id: Uuid, index: i32, leader: i32, replicas: &[i32]) {
        self.apply(Record::Partition(PartitionRecord {
            topic_id,
            index,
            replicas: replicas.iter().copied().collect(),
            isr: replicas.iter().copied().collect(),
            leader,
            leader_epoch: 5,
            partition_epoch: 7,
            directories: replicas.iter().map(|_| Uuid::nil()).collect(),
            ..PartitionRecord::default()
        }));
    }

    /// Gives this node's replicas of a topic to shard 0 and log directory 0.
    pub fn place(&mut self, topic_id: Uuid) {
        let mut placement = ShardPlacement::new(self.node.config.node_id, 1, 1);
        let delta = ImageDelta { topics_changed: [topic_id].into(), ..ImageDelta::default() };
        self.view.placement = placement.assign(&self.view.image, &delta, |_, _| None);
    }

    /// A feature is finalized at a level.
    pub fn finalize(&mut self, feature: &str, level: i16) {
        self.apply(Record::Feature { name: feature.into(), level });
    }

    pub fn remove(&mut self, topic_id: Uuid) {
        self.apply(Record::RemoveTopic { topic_id });
    }

    pub fn override_config(&mut self, resource_type: ResourceType, name: &str, key: &str, value: &str) {
        self.apply(Record::Config {
            resource_type,
            resource: name.into(),
            key: key.into(),
            value: Some(value.into()),
        });
    }

    pub fn apply(&mut self, record: Record) {
        self.builder.apply(&record).unwrap();
        let version = self.view.image.version() + 1;
        self.view.image = self.builder.publish(version).0;
    }

    pub fn scene(&mut self) -> Scene<'_> {
        Scene {
            now: self.now,
            shard: ShardId(0),
            node: &self.node,
            view: &self.view,
            context: self.context,
            desk: &mut self.desk,
        }
    }

    /// Starts a request encoded by the message library.
    pub fn start<Q: Encodable + Request>(
        &mut self,
        key: ApiKey,
        version: i16,
        request: &Q,
    ) -> (RequestHeader, Work) {
        let mut body = BytesMut::new();
        beyond::encode_request(&mut body, version, request).unwrap();
        self.start_bytes(key, version, &body)
    }

    /// Starts a request whose body is these bytes.
    pub fn start_bytes(&mut self, key: ApiKey, version: i16, body: &[u8]) -> (RequestHeader, Work) {
        let mut frame = BytesMut::new();
        frame.put_i16(key as i16);
        frame.put_i16(version);
        frame.put_i32(77);
        frame.put_i16(-1);
        if key.api().is_flexible(version) {
            frame.put_u8(0);
        }
        frame.put_slice(body);
        let frame: Bytes = frame.freeze();
        let (header, body) = header::parse(&frame).unwrap();
        let work = Work::start(&header, body, TO, &mut self.scene()).unwrap();
        (header, work)
    }

    /// The response of a request that is done.
    pub fn finish<R: Decodable>(&mut self, header: &RequestHeader, work: Work) -> R {
        assert!(work.is_done(), "the request waits for something");
        let mut outbox = Outbox::default();
        work.encode(header, &mut outbox, &mut self.scene()).unwrap();
        let mut bytes = std::mem::take(outbox.buffer()).freeze();
        assert_eq!(bytes.len(), 4 + i32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize);
        assert_eq!(bytes[4..8], 77_i32.to_be_bytes());
        let flexible = header.api.is_flexible(header.version) && header.api.key != ApiKey::ApiVersions;
        let body = bytes.split_off(if flexible { 9 } else { 8 });
        let (mut body, version) = beyond::response(header.api.key, header.version, body).unwrap();
        let response = R::decode(&mut body, version).unwrap();
        assert!(body.is_empty(), "{} v{} leaves bytes", header.api.name, header.version);
        response
    }

    /// The error code and the mail in the answer to what members of the quorum say to each other.
    pub fn finish_raft(&mut self, header: &RequestHeader, work: Work) -> (i16, Vec<Bytes>) {
        assert!(work.is_done());
        let mut outbox = Outbox::default();
        work.encode(header, &mut outbox, &mut self.scene()).unwrap();
        let bytes = std::mem::take(outbox.buffer()).freeze();
        let (correlation_id, body) = outbound::answer(&bytes.slice(4..)).unwrap();
        assert_eq!(correlation_id, 77);
        outbound::parse_raft_answer(&body).unwrap()
    }

    /// Starts a request that asks nobody else, and gives its response.
    pub fn ask<Q: Encodable + Request, R: Decodable>(&mut self, key: ApiKey, version: i16, request: &Q) -> R {
        let (header, work) = self.start(key, version, request);
        self.finish(&header, work)
    }

    /// Starts a request that waits for the controller, which gives this answer; what it was asked, and the response.
    pub fn ask_controller<Q: Encodable + Request, R: Decodable>(
        &mut self,
        key: ApiKey,
        version: i16,
        request: &Q,
        answer: ControllerAnswer,
    ) -> (ControllerRequest, R) {
        let (header, mut work) = self.start(key, version, request);
        assert!(!work.is_done(), "{} v{version} is answered without the controller", key.api().name);
        let (to, asked) = self.desk.controls.pop().unwrap();
        assert_eq!(to, TO);
        work.answer(&header, to, Answered::Controller(Box::new(answer)), &mut self.scene());
        (asked, self.finish(&header, work))
    }
}
