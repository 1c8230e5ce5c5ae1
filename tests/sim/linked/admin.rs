//! The client that creates the topics of a cluster, and that sees in the end, when nothing fails any more, that every
//! partition has a leader and every replica is in sync. Where disks are lost it does what `docs/OPERATING.md` tells an
//! operator to do with a partition whose in-sync replicas are all gone.

use bytes::Bytes;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, ElectLeadersRequest, MetadataRequest, MetadataResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::PASSING;
use super::pilot::partition_in;
use crate::client::{Action, Client, Link, Response, Stage, metadata_request, topic_name};
use crate::faults::Fault;

const EXISTS: i16 = 36;
/// It has as many partitions as are asked for, or more.
const HAS_MORE: i16 = 37;
/// More replicas than there are brokers, as yet.
pub const TOO_FEW_BROKERS: i16 = 38;
/// No replica is up after all, or there is a leader already.
const NOT_ELECTED: [i16; 2] = [83, 84];
/// The topic of the groups, which nobody asks for by name.
const OFFSETS: &str = "__consumer_offsets";
/// How long the cluster has to find a leader by itself when nothing fails any more.
const PATIENCE_US: u64 = 20_000_000;

/// A topic as it shall be.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Partitions at first.
    pub partitions: i32,
    /// Partitions in the end.
    pub grown: i32,
    /// `flush.messages` is 1.
    pub flushed: bool,
    pub replicas: i16,
    /// `min.insync.replicas`
    pub in_sync_least: i32,
    /// Further keys and values of its configuration: what makes its logs shorter, or elects uncleanly.
    pub configs: Vec<(&'static str, &'static str)>,
}

#[derive(Debug)]
enum Ask {
    Create(usize),
    /// So many partitions.
    Grow(usize, i32),
    Look,
    Elect,
}

/// The admin.
#[derive(Debug)]
pub struct LinkedAdmin {
    link: Link<Ask>,
    topics: Vec<Wanted>,
    is_there: Vec<bool>,
    /// Partitions that each topic has, as far as that was acknowledged.
    counts: Vec<i32>,
    /// What is still wrong, as the last look in calm times had it.
    missing: Option<String>,
    is_whole: bool,
    calm: bool,
    calm_since_us: u64,
    /// Disks are lost: what nobody has is given up.
    loses_disks: bool,
    /// Partitions without a leader, as the last look had it.
    leaderless: Vec<(String, i32)>,
    not_before_us: u64,
}

impl LinkedAdmin {
    /// An admin of these topics.
    pub fn new(topics: Vec<Wanted>, loses_disks: bool) -> Self {
        Self {
            link: Link::new("admin".into()),
            is_there: vec![false; topics.len()],
            counts: topics.iter().map(|topic| topic.partitions).collect(),
            topics,
            missing: None,
            is_whole: false,
            calm: false,
            calm_since_us: 0,
            loses_disks,
            leaderless: Vec::new(),
            not_before_us: 0,
        }
    }

    fn step(&mut self, stage: &mut Stage) {
        if !self.link.is_up(stage) || self.link.in_flight() > 0 || stage.now_us < self.not_before_us {
            return;
        }
        match self.is_there.iter().position(|is_there| !is_there) {
            Some(at) => self.create(at, stage),
            None if !self.leaderless.is_empty() && stage.now_us > self.calm_since_us + PATIENCE_US => {
                self.elect(stage);
            }
            None => match (0..self.topics.len()).find(|at| self.counts[*at] < self.topics[*at].grown) {
                Some(at) if stage.calm || stage.random.u8(0..4) == 0 => self.grow(at, stage),
                _ => self.look(stage),
            },
        }
    }

    /// More partitions: sometimes all that there shall be.
    fn grow(&mut self, at: usize, stage: &mut Stage) {
        let count = stage.random.i32(self.counts[at] + 1..=self.topics[at].grown);
        let asked = CreatePartitionsTopic::default()
            .with_name(topic_name(&stage.names[at]))
            .with_count(count)
            .with_assignments(None);
        let request = CreatePartitionsRequest::default().with_topics(vec![asked]).with_timeout_ms(5_000);
        let version = stage.random.i16(0..=3);
        self.link.send(&request, version, Some(Ask::Grow(at, count)), stage);
    }

    fn look(&mut self, stage: &mut Stage) {
        let version = stage.random.i16(10..=12);
        let mut names = stage.names.to_vec();
        if self.loses_disks {
            names.push(OFFSETS.to_string());
        }
        self.link.send(&metadata_request(&names, version), version, Some(Ask::Look), stage);
    }

    /// A topic that is made while a node's disk is gone, and nobody knows, may have its only in-sync replicas there.
    fn elect(&mut self, stage: &mut Stage) {
        let one = |(topic, index): (String, i32)| {
            TopicPartitions::default().with_topic(topic_name(&topic)).with_partitions(vec![index])
        };
        let partitions = std::mem::take(&mut self.leaderless).into_iter().map(one);
        let request = ElectLeadersRequest::default()
            .with_election_type(1)
            .with_topic_partitions(Some(partitions.collect()))
            .with_timeout_ms(3_000);
        self.link.send(&request, stage.random.i16(1..=2), Some(Ask::Elect), stage);
    }

    fn create(&mut self, at: usize, stage: &mut Stage) {
        let creatable = creatable(&self.topics[at], &stage.names[at], &[]);
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
            Ask::Grow(at, count) => {
                let answer = response.decode::<CreatePartitionsRequest>();
                match answer.results.first().expect("the topic asked for").error_code {
                    0 => {
                        self.counts[at] = count;
                        stage.actions.push(Action::Hit(Fault::MorePartitions));
                    }
                    // An earlier request, whose answer was lost, came through.
                    HAS_MORE => self.counts[at] += 1,
                    error => {
                        let known = PASSING.contains(&error) || error == TOO_FEW_BROKERS;
                        assert!(known, "more partitions: error {error}");
                    }
                }
                self.rest(stage);
            }
            Ask::Look => {
                let metadata = response.decode::<MetadataRequest>();
                self.looked(&metadata, stage);
                self.leaderless =
                    if self.loses_disks && stage.calm { leaderless(&metadata) } else { Vec::new() };
                self.rest(stage);
            }
            Ask::Elect => {
                let answer = response.decode::<ElectLeadersRequest>();
                let results =
                    answer.replica_election_results.iter().flat_map(|topic| &topic.partition_result);
                for error in results.map(|part| part.error_code).chain([answer.error_code]) {
                    let known = error == 0 || PASSING.contains(&error) || NOT_ELECTED.contains(&error);
                    assert!(known, "unclean election: error {error}");
                }
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
            let id = partition_in(metadata, name, 0).map(|(id, _)| id);
            stage.history.flushed.extend(id.map(|id| (id, topic.flushed)));
            missing = missing.or_else(|| missing_of(metadata, name, topic));
        }
        self.is_whole = stage.calm && missing.is_none();
        self.missing = missing;
    }
}

/// A topic that is to be made, with more of its configuration.
pub fn creatable(topic: &Wanted, name: &str, more: &[(&'static str, &'static str)]) -> CreatableTopic {
    let config = |name: &'static str, value: &str| {
        CreatableTopicConfig::default()
            .with_name(StrBytes::from_static_str(name))
            .with_value(Some(StrBytes::from_string(value.to_string())))
    };
    let mut configs = vec![config("min.insync.replicas", &topic.in_sync_least.to_string())];
    if topic.flushed {
        configs.push(config("flush.messages", "1"));
    }
    configs.extend(topic.configs.iter().chain(more).map(|(key, value)| config(key, value)));
    CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(topic.partitions)
        .with_replication_factor(topic.replicas)
        .with_configs(configs)
}

/// What a topic still lacks: a partition, a leader, a replica that is in sync.
pub fn missing_of(metadata: &MetadataResponse, name: &str, topic: &Wanted) -> Option<String> {
    (0..topic.grown).find_map(|index| {
        let Some((_, found)) = partition_in(metadata, name, index) else {
            return Some(format!("{name} {index} is not there"));
        };
        let (replicas, in_sync) = (found.replica_nodes.len(), found.isr_nodes.len());
        // While replicas move there are more of them.
        let wanted = topic.replicas as usize;
        assert!(
            replicas >= wanted && in_sync <= replicas,
            "{name} {index} has {replicas} replicas of {wanted}, {in_sync} of them in sync"
        );
        let is_whole = replicas == wanted && in_sync == wanted && found.offline_replicas.is_empty();
        (found.leader_id.0 <= 0 || !is_whole).then(|| {
            format!(
                "{name} {index}: leader {}, in sync {:?} of {:?}, offline {:?}",
                found.leader_id.0, found.isr_nodes, found.replica_nodes, found.offline_replicas
            )
        })
    })
}

/// Partitions that nobody leads, though every replica is there.
fn leaderless(metadata: &MetadataResponse) -> Vec<(String, i32)> {
    let mut found = Vec::new();
    for topic in &metadata.topics {
        let Some(name) = &topic.name else { continue };
        let nobody =
            topic.partitions.iter().filter(|one| one.leader_id.0 < 0 && one.offline_replicas.is_empty());
        found.extend(nobody.map(|one| (name.to_string(), one.partition_index)));
    }
    found
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
        if stage.calm && !self.calm {
            self.calm_since_us = stage.now_us;
        }
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
