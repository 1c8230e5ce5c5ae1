//! The one client that creates and deletes topics, and sees that they are whole or absent.

use bytes::Bytes;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, MetadataRequest,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::client::{Action, Client, Link, Response, Stage, metadata_request, topic_in, topic_name};

const EXISTS: i16 = 36;
const HAS_MORE: i16 = 37;
const UNKNOWN: [i16; 2] = [3, 100];
const RETRIABLE: [i16; 4] = [7, 41, 15, 56];

/// A topic in its care.
#[derive(Debug)]
struct Topic {
    partitions: i32,
    flushed: bool,
    churns: bool,
    state: Topical,
    id: Option<Uuid>,
    /// A request about it lost its connection: it may still be carried out, when a full device has space again.
    overtaken: bool,
    /// Partitions that were asked for.
    asked: i32,
    /// Partitions that it shall have in the end.
    wanted: i32,
}

/// What is known of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topical {
    Absent,
    Present,
    /// A request about it was not answered.
    Unknown,
}

#[derive(Debug)]
enum Ask {
    Metadata(Vec<Topical>),
    Create(usize),
    Delete(usize),
    Grow(usize),
}

/// The admin.
#[derive(Debug)]
pub struct Admin {
    link: Link<Ask>,
    topics: Vec<Topic>,
    not_before_us: u64,
    look: bool,
    calm: bool,
    /// What is deleted is made again at once, mostly.
    quick: bool,
}

impl Admin {
    /// An admin of topics: partitions, whether they are flushed, whether they are deleted now and then.
    pub fn new(topics: &[(i32, bool, bool)], quick: bool, more_partitions: i32) -> Self {
        let topic = |&(partitions, flushed, churns): &(i32, bool, bool)| Topic {
            partitions,
            flushed,
            churns,
            state: Topical::Unknown,
            id: None,
            overtaken: false,
            asked: partitions,
            wanted: if churns { partitions } else { partitions + more_partitions },
        };
        Self {
            link: Link::new("admin".into()),
            topics: topics.iter().map(topic).collect(),
            not_before_us: 0,
            look: true,
            calm: false,
            quick,
        }
    }

    fn step(&mut self, stage: &mut Stage) {
        if !self.link.is_up(stage) || self.link.in_flight() > 0 || stage.now_us < self.not_before_us {
            return;
        }
        if self.look || self.topics.iter().any(|topic| topic.state == Topical::Unknown) {
            let before = self.topics.iter().map(|topic| topic.state).collect();
            let version = stage.random.i16(10..=12);
            let request = metadata_request(stage.names, version);
            return self.link.send(&request, version, Some(Ask::Metadata(before)), stage);
        }
        let missing =
            self.topics.iter().position(|t| t.state == Topical::Absent && (!t.churns || stage.calm));
        if let Some(at) = missing {
            return self.create(at, stage);
        }
        let growing = |t: &Topic| t.partitions < t.wanted && t.state == Topical::Present;
        if let Some(at) = self.topics.iter().position(growing)
            && (stage.calm || stage.random.u8(0..3) == 0)
        {
            return self.grow(at, stage);
        }
        let churning: Vec<usize> = (0..self.topics.len()).filter(|at| self.topics[*at].churns).collect();
        if churning.is_empty() || stage.calm {
            return;
        }
        let absent = churning.iter().find(|at| self.quick && self.topics[**at].state == Topical::Absent);
        let at = absent.copied().unwrap_or_else(|| *stage.random.choice(&churning).expect("some"));
        match self.topics[at].state {
            Topical::Absent => self.create(at, stage),
            _ => self.delete(at, stage),
        }
    }

    fn create(&mut self, at: usize, stage: &mut Stage) {
        let topic = &mut self.topics[at];
        topic.state = Topical::Unknown;
        let config = |name: &'static str, value: &str| {
            CreatableTopicConfig::default()
                .with_name(StrBytes::from_static_str(name))
                .with_value(Some(StrBytes::from_string(value.to_string())))
        };
        let mut configs = vec![config("file.delete.delay.ms", if stage.random.bool() { "0" } else { "700" })];
        if topic.churns && stage.random.bool() {
            // Each topic of the name is synced as far as another one is not.
            configs.push(config("flush.ms", "20"));
        }
        if stage.random.u8(0..3) == 0 {
            let codecs = ["gzip", "snappy", "lz4", "zstd", "uncompressed"];
            configs.push(config("compression.type", stage.random.choice(&codecs).expect("some")));
        }
        if topic.flushed {
            configs.push(config("flush.messages", "1"));
        }
        let creatable = CreatableTopic::default()
            .with_name(topic_name(&stage.names[at]))
            .with_num_partitions(topic.partitions)
            .with_replication_factor(1)
            .with_configs(configs);
        let request = CreateTopicsRequest::default().with_topics(vec![creatable]).with_timeout_ms(10_000);
        let version = stage.random.i16(2..=7);
        self.link.send(&request, version, Some(Ask::Create(at)), stage);
    }

    fn grow(&mut self, at: usize, stage: &mut Stage) {
        let topic = &mut self.topics[at];
        topic.asked =
            if stage.calm { topic.wanted } else { stage.random.i32(topic.partitions + 1..=topic.wanted) };
        let asked = CreatePartitionsTopic::default()
            .with_name(topic_name(&stage.names[at]))
            .with_count(topic.asked)
            .with_assignments(None);
        let request = CreatePartitionsRequest::default().with_topics(vec![asked]).with_timeout_ms(10_000);
        let version = stage.random.i16(0..=3);
        self.link.send(&request, version, Some(Ask::Grow(at)), stage);
    }

    fn delete(&mut self, at: usize, stage: &mut Stage) {
        self.topics[at].state = Topical::Unknown;
        let name = topic_name(&stage.names[at]);
        let version = stage.random.i16(1..=6);
        let request = DeleteTopicsRequest::default().with_timeout_ms(10_000);
        let request = if version < 6 {
            request.with_topic_names(vec![name])
        } else {
            request.with_topics(vec![DeleteTopicState::default().with_name(Some(name))])
        };
        self.link.send(&request, version, Some(Ask::Delete(at)), stage);
    }

    fn answered(&mut self, response: Response<Ask>, stage: &mut Stage) {
        match &response.ask {
            Ask::Metadata(before) => {
                let metadata = response.decode::<MetadataRequest>();
                self.look = false;
                for (at, before) in before.iter().enumerate() {
                    let found = topic_in(&metadata, &stage.names[at]);
                    self.found(at, *before, found, stage);
                }
            }
            Ask::Create(at) => {
                let answer = response.decode::<CreateTopicsRequest>();
                let topic = &mut self.topics[*at];
                match answer.topics.first().expect("the topic asked for").error_code {
                    0 => {
                        topic.state = Topical::Present;
                        if self.quick && topic.churns && stage.random.u8(0..4) == 0 {
                            stage.actions.push(Action::CutPower { after_us: stage.random.u64(0..500_000) });
                        }
                    }
                    error => assert!(error == EXISTS || RETRIABLE.contains(&error), "create: error {error}"),
                }
                self.look_soon(stage);
            }
            Ask::Grow(at) => {
                let answer = response.decode::<CreatePartitionsRequest>();
                let topic = &mut self.topics[*at];
                match answer.results.first().expect("the topic asked for").error_code {
                    0 => topic.partitions = topic.asked,
                    // An earlier request, whose answer was lost, came through.
                    error => assert!(error == HAS_MORE || RETRIABLE.contains(&error), "grow: error {error}"),
                }
                self.look_soon(stage);
                self.look = true;
            }
            Ask::Delete(at) => {
                let answer = response.decode::<DeleteTopicsRequest>();
                let topic = &mut self.topics[*at];
                match answer.responses.first().expect("the topic asked for").error_code {
                    0 => {
                        topic.state = Topical::Absent;
                        if self.quick && stage.random.u8(0..4) > 0 {
                            return;
                        }
                    }
                    error => {
                        let known = UNKNOWN.contains(&error) || RETRIABLE.contains(&error);
                        assert!(known, "delete: error {error}");
                    }
                }
                self.look_soon(stage);
            }
        }
    }

    /// Mostly looks whether it is so, sometimes from another connection (perhaps another shard).
    fn look_soon(&mut self, stage: &mut Stage) {
        self.look = stage.random.u8(0..3) > 0;
        if self.look && stage.random.bool() {
            drop(self.link.close(stage));
        }
        let rest_ms = if self.quick { 1_500 } else { 400 };
        let rest_us = if stage.calm { 10_000 } else { stage.random.u64(1_000..rest_ms * 1_000) };
        self.not_before_us = stage.now_us + rest_us;
    }

    fn found(&mut self, at: usize, before: Topical, found: Option<(Uuid, usize)>, stage: &mut Stage) {
        let topic = &mut self.topics[at];
        let name = &stage.names[at];
        match (before, found) {
            _ if topic.overtaken => {}
            (Topical::Present, None) => panic!("topic {name} was created and is not there"),
            (Topical::Absent, Some(_)) => panic!("topic {name} was deleted and is there"),
            _ => {}
        }
        topic.state = if found.is_some() { Topical::Present } else { Topical::Absent };
        if let Some((id, partitions)) = found {
            let counts = topic.partitions..=topic.wanted;
            assert!(
                counts.contains(&(partitions as i32)),
                "topic {name} is not whole: {partitions} of {counts:?}"
            );
            topic.partitions = partitions as i32;
            stage.history.flushed.insert(id, topic.flushed);
            if !topic.churns {
                assert!(topic.id.is_none_or(|known| known == id), "topic {name} changed its id");
            }
            topic.id = Some(id);
        } else {
            assert!(topic.churns || topic.id.is_none(), "topic {name} is gone");
        }
    }
}

impl Client for Admin {
    fn opened(&mut self, stage: &mut Stage) {
        self.link.opened();
        self.step(stage);
    }

    fn received(&mut self, bytes: Bytes, stage: &mut Stage) {
        for response in self.link.received(&bytes) {
            self.answered(response, stage);
        }
        self.step(stage);
    }

    fn closed(&mut self, stage: &mut Stage) {
        for ask in self.link.closed(stage) {
            match ask {
                Ask::Create(at) | Ask::Delete(at) | Ask::Grow(at) => self.topics[at].overtaken = true,
                Ask::Metadata(_) => {}
            }
        }
        self.look = true;
    }

    fn wake(&mut self, stage: &mut Stage) {
        // A request whose connection was lost may have come through after the last look.
        self.look |= stage.calm && !self.calm;
        self.calm = stage.calm;
        self.step(stage);
        stage.actions.push(Action::WakeAt(stage.now_us + stage.random.u64(5_000..80_000)));
    }

    fn is_done(&self) -> bool {
        self.calm
            && !self.look
            && self
                .topics
                .iter()
                .all(|topic| topic.state == Topical::Present && topic.partitions == topic.wanted)
    }

    fn state(&self) -> String {
        format!("{self:?}")
    }
}
