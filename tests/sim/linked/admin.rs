//! The client that creates the topics of a cluster, and that sees in the end, when nothing fails any more, that every
//! partition has a leader and every replica is in sync.

use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::{CreateTopicsRequest, MetadataRequest, MetadataResponse};
use kafka_protocol::protocol::StrBytes;

use super::PASSING;
use super::pilot::partition_in;
use crate::client::{Action, Client, Link, Response, Stage, metadata_request, topic_name};

const EXISTS: i16 = 36;
/// More replicas than there are brokers, as yet.
const TOO_FEW_BROKERS: i16 = 38;

/// A topic as it shall be.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub partitions: i32,
    /// `flush.messages` is 1.
    pub flushed: bool,
    pub replicas: i16,
    /// `min.insync.replicas`
    pub in_sync_least: i32,
}

#[derive(Debug)]
enum Ask {
    Create(usize),
    Look,
}

/// The admin.
#[derive(Debug)]
pub struct LinkedAdmin {
    link: Link<Ask>,
    topics: Vec<Wanted>,
    is_there: Vec<bool>,
    /// What is still wrong, as the last look in calm times had it.
    missing: Option<String>,
    is_whole: bool,
    calm: bool,
    not_before_us: u64,
}

impl LinkedAdmin {
    /// An admin of these topics.
    pub fn new(topics: Vec<Wanted>) -> Self {
        Self {
            link: Link::new("admin".into()),
            is_there: vec![false; topics.len()],
            topics,
            missing: None,
            is_whole: false,
            calm: false,
            not_before_us: 0,
        }
    }

    fn step(&mut self, stage: &mut Stage) {
        if !self.link.is_up(stage) || self.link.in_flight() > 0 || stage.now_us < self.not_before_us {
            return;
        }
        match self.is_there.iter().position(|is_there| !is_there) {
            Some(at) => self.create(at, stage),
            None => {
                let version = stage.random.i16(10..=12);
                let request = metadata_request(stage.names, version);
                self.link.send(&request, version, Some(Ask::Look), stage);
            }
        }
    }

    fn create(&mut self, at: usize, stage: &mut Stage) {
        let topic = self.topics[at];
        let config = |name: &'static str, value: &str| {
            CreatableTopicConfig::default()
                .with_name(StrBytes::from_static_str(name))
                .with_value(Some(StrBytes::from_string(value.to_string())))
        };
        let mut configs = vec![config("min.insync.replicas", &topic.in_sync_least.to_string())];
        if topic.flushed {
            configs.push(config("flush.messages", "1"));
        }
        let creatable = CreatableTopic::default()
            .with_name(topic_name(&stage.names[at]))
            .with_num_partitions(topic.partitions)
            .with_replication_factor(topic.replicas)
            .with_configs(configs);
        let request = CreateTopicsRequest::default().with_topics(vec![creatable]).with_timeout_ms(5_000);
        let version = stage.random.i16(2..=7);
        self.link.send(&request, version, Some(Ask::Create(at)), stage);
    }

    fn answered(&mut self, response: Response<Ask>, stage: &mut Stage) {
        match response.ask {
            Ask::Create(at) => {
                let answer = response.decode::<CreateTopicsRequest>();
                match answer.topics.first().expect("the topic asked for").error_code {
                    0 | EXISTS => self.is_there[at] = true,
                    error => {
                        let known = PASSING.contains(&error) || error == TOO_FEW_BROKERS;
                        assert!(known, "create: error {error}");
                        self.rest(stage);
                    }
                }
            }
            Ask::Look => {
                let metadata = response.decode::<MetadataRequest>();
                self.looked(&metadata, stage);
                self.rest(stage);
            }
        }
    }

    fn rest(&mut self, stage: &mut Stage) {
        let most_us = if stage.calm { 60_000 } else { 400_000 };
        self.not_before_us = stage.now_us + stage.random.u64(1_000..most_us);
        // Another broker may know more, or be the one that is wrong.
        if stage.random.u8(0..3) == 0 {
            drop(self.link.close(stage));
        }
    }

    /// Tells the history which topics are synced, and, in calm times, whether anything is missing.
    fn looked(&mut self, metadata: &MetadataResponse, stage: &mut Stage) {
        let mut missing = None;
        for (topic, name) in self.topics.iter().zip(stage.names) {
            for index in 0..topic.partitions {
                let Some((id, found)) = partition_in(metadata, name, index) else {
                    missing = Some(format!("{name} {index} is not there"));
                    continue;
                };
                stage.history.flushed.insert(id, topic.flushed);
                let (replicas, in_sync) = (found.replica_nodes.len(), found.isr_nodes.len());
                // While replicas move there are more of them.
                let wanted = topic.replicas as usize;
                assert!(
                    replicas >= wanted && in_sync <= replicas,
                    "{name} {index} has {replicas} replicas of {wanted}, {in_sync} of them in sync"
                );
                let is_whole = replicas == wanted && in_sync == wanted && found.offline_replicas.is_empty();
                if found.leader_id.0 <= 0 || !is_whole {
                    missing = Some(format!(
                        "{name} {index}: leader {}, in sync {:?} of {:?}, offline {:?}",
                        found.leader_id.0, found.isr_nodes, found.replica_nodes, found.offline_replicas
                    ));
                }
            }
        }
        self.is_whole = stage.calm && missing.is_none();
        self.missing = missing;
    }
}

impl Client for LinkedAdmin {
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
        drop(self.link.closed(stage));
    }

    fn wake(&mut self, stage: &mut Stage) {
        self.calm = stage.calm;
        self.step(stage);
        stage.actions.push(Action::WakeAt(stage.now_us + stage.random.u64(5_000..80_000)));
    }

    fn is_done(&self) -> bool {
        self.calm && self.is_whole
    }

    fn state(&self) -> String {
        format!("{self:?}")
    }
}
