//! Members of groups by the consumer protocol (KIP-848): they are told what they may read, give up what they shall, and
//! commit what is theirs. A partition has one owner at a member epoch.

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, FindCoordinatorRequest, GroupId,
    OffsetCommitRequest, OffsetFetchRequest,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::client::{Action, Client, Link, Response, Stage, topic_name};
use crate::member::{fetched, offset_fetch};

const UNKNOWN_TOPIC: i16 = 3;
const UNKNOWN_MEMBER: i16 = 25;
const NO_GROUP: i16 = 69;
const FENCED_INSTANCE: i16 = 82;
const FENCED_EPOCH: i16 = 110;
const UNRELEASED: i16 = 111;
const STALE_EPOCH: i16 = 113;

#[derive(Debug)]
enum Ask {
    Find,
    Beat,
    /// What was committed, by partition.
    Commit(Vec<(i32, i64)>),
    /// What has to be found at least, by partition.
    Fetch(Vec<(i32, Option<i64>)>),
    Leave,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Find,
    /// It heartbeats, at epoch 0 to get in.
    In,
    Left,
}

/// One member.
#[derive(Debug)]
pub struct ConsumerMember {
    link: Link<Ask>,
    number: usize,
    group: String,
    /// Partitions of the first topic that it reads the offsets of.
    partitions: i32,
    instance_id: Option<StrBytes>,
    /// How often it has come as somebody new.
    lives: u32,
    member_id: StrBytes,
    epoch: i32,
    topic_id: Uuid,
    /// What it was told it may have, and what it has.
    told: BTreeSet<i32>,
    owned: BTreeSet<i32>,
    state: State,
    /// A heartbeat failed, or its answer was lost: the next one says everything, and so is told everything.
    says_all: bool,
    not_before_us: u64,
    /// Where there are several brokers: it is at its coordinator, or on its way there.
    found: bool,
    calm: bool,
    /// It has read once more since nothing fails.
    read_in_calm: bool,
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_string())
}

fn group_id(group: &str) -> GroupId {
    GroupId(text(group))
}

impl ConsumerMember {
    /// A member that has not joined yet.
    pub fn new(number: usize, group: String, partitions: i32, random: &mut fastrand::Rng) -> Self {
        let is_static = random.u8(0..3) == 0;
        let mut member = Self {
            link: Link::new(format!("consumer member {number}")),
            number,
            group,
            partitions,
            instance_id: is_static.then(|| text(&format!("instance-{number}"))),
            lives: 0,
            member_id: StrBytes::default(),
            epoch: 0,
            topic_id: Uuid::nil(),
            told: BTreeSet::new(),
            owned: BTreeSet::new(),
            state: State::Find,
            says_all: false,
            not_before_us: 0,
            found: false,
            calm: false,
            read_in_calm: false,
        };
        member.begin_anew();
        member
    }

    /// It has nothing, and is nobody that is known.
    fn begin_anew(&mut self) {
        self.lives += 1;
        self.member_id = text(&format!("member-{}-{}", self.number, self.lives));
        self.epoch = 0;
        self.told.clear();
        self.owned.clear();
    }

    fn step(&mut self, stage: &mut Stage) {
        if !self.link.is_up(stage) || self.link.in_flight() > 0 || stage.now_us < self.not_before_us {
            return;
        }
        if stage.linked && !self.found {
            return self.find(stage);
        }
        match self.state {
            State::Find => self.find(stage),
            State::In => self.work(stage),
            State::Left if self.read_in_calm => {}
            State::Left => {
                self.begin_anew();
                self.state = State::In;
            }
        }
    }

    fn find(&mut self, stage: &mut Stage) {
        let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(&self.group)]);
        self.link.send(&request, stage.random.i16(4..=6), Some(Ask::Find), stage);
    }

    fn work(&mut self, stage: &mut Stage) {
        if self.epoch == 0 {
            return self.heartbeat(stage);
        }
        self.not_before_us = stage.now_us + stage.random.u64(1_000..200_000);
        if stage.calm {
            return if self.read_in_calm { self.leave(stage) } else { self.fetch(stage) };
        }
        match stage.random.u8(0..40) {
            0 => self.leave(stage),
            1 => {
                drop(self.link.close(stage));
                self.found = false;
                self.begin_anew();
                self.state = State::Find;
            }
            2..=5 => self.fetch(stage),
            6..=20 if !self.owned.is_empty() => self.commit(stage),
            _ => {
                // It may take its time to give up what it shall.
                if stage.random.u8(0..4) > 0 {
                    self.owned = self.told.clone();
                }
                self.heartbeat(stage);
            }
        }
    }

    fn owned(&self) -> Vec<TopicPartitions> {
        let partitions: Vec<i32> = self.owned.iter().copied().collect();
        let of = TopicPartitions::default().with_topic_id(self.topic_id).with_partitions(partitions);
        if self.owned.is_empty() { Vec::new() } else { vec![of] }
    }

    fn heartbeat(&mut self, stage: &mut Stage) {
        let says_all = std::mem::take(&mut self.says_all) || self.epoch == 0;
        let version = stage.random.i16(0..=1);
        let mut request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(group_id(&self.group))
            .with_member_id(self.member_id.clone())
            .with_member_epoch(self.epoch)
            .with_instance_id(self.instance_id.clone());
        if says_all || stage.random.u8(0..3) > 0 {
            request.topic_partitions = Some(self.owned());
        }
        if says_all || stage.random.u8(0..8) == 0 {
            request.rebalance_timeout_ms = stage.random.i32(1_000..4_000);
            let name = topic_name(&stage.names[0]);
            request.subscribed_topic_names = Some(vec![name.clone()]);
            if version >= 1 && stage.random.u8(0..3) == 0 {
                request.subscribed_topic_names = Some(Vec::new());
                request.subscribed_topic_regex = Some(text(&name.0));
            }
            let assignors = [None, Some("range"), Some("uniform")];
            request.server_assignor = assignors[stage.random.usize(0..3)].map(text);
        }
        self.link.send(&request, version, Some(Ask::Beat), stage);
    }

    fn leave(&mut self, stage: &mut Stage) {
        let is_away = self.instance_id.is_some() && !stage.calm && stage.random.bool();
        let request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(group_id(&self.group))
            .with_member_id(self.member_id.clone())
            .with_member_epoch(if is_away { -2 } else { -1 })
            .with_instance_id(self.instance_id.clone());
        let version = stage.random.i16(0..=1);
        self.link.send(&request, version, Some(Ask::Leave), stage);
    }

    fn commit(&mut self, stage: &mut Stage) {
        let commits = &mut stage.history.commits;
        let values: Vec<_> =
            self.owned.iter().map(|partition| (*partition, commits.send(&self.group, *partition))).collect();
        let partitions = values.iter().map(|(partition, value)| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(*partition)
                .with_committed_offset(*value)
        });
        let topic = OffsetCommitRequestTopic::default()
            .with_name(topic_name(&stage.names[0]))
            .with_partitions(partitions.collect());
        let request = OffsetCommitRequest::default()
            .with_group_id(group_id(&self.group))
            .with_generation_id_or_member_epoch(self.epoch)
            .with_member_id(self.member_id.clone())
            .with_group_instance_id(self.instance_id.clone())
            .with_topics(vec![topic]);
        self.link.send(&request, 9, Some(Ask::Commit(values)), stage);
    }

    fn fetch(&mut self, stage: &mut Stage) {
        let version = stage.random.i16(8..=9);
        // A coordinator of old that nobody can reach may not know what was committed since.
        let floor = |at| if stage.linked { None } else { stage.history.commits.floor(&self.group, at) };
        let floors = (0..self.partitions).map(|at| (at, floor(at)));
        let floors: Vec<_> = floors.collect();
        let partitions = floors.iter().map(|(partition, _)| *partition).collect();
        let mut request = offset_fetch(&self.group, &stage.names[0], partitions, version);
        request.require_stable = stage.random.bool();
        if version >= 9 {
            request.groups[0].member_id = Some(self.member_id.clone());
            request.groups[0].member_epoch = self.epoch;
        }
        self.link.send(&request, version, Some(Ask::Fetch(floors)), stage);
    }

    /// Goes on after an error.
    fn recover(&mut self, error: i16, stage: &mut Stage) {
        match error {
            // The next heartbeat tells its epoch: an answer was lost.
            0 | STALE_EPOCH => {}
            // After a power cut the whole group may be gone.
            UNKNOWN_MEMBER | FENCED_EPOCH | FENCED_INSTANCE | NO_GROUP => self.begin_anew(),
            error if stage.is_passing_of_group(error) || [UNKNOWN_TOPIC, UNRELEASED].contains(&error) => {
                self.found = false;
                self.not_before_us = stage.now_us + stage.random.u64(10_000..100_000);
            }
            error => panic!("consumer member of {}: error {error}", self.group),
        }
    }

    fn beaten(&mut self, answer: &ConsumerGroupHeartbeatResponse, stage: &mut Stage) {
        if answer.error_code != 0 {
            self.says_all = true;
            return self.recover(answer.error_code, stage);
        }
        assert_eq!(answer.member_id.as_ref(), Some(&self.member_id), "it has made its own id");
        assert!(answer.member_epoch >= self.epoch, "epochs rise");
        assert!(answer.heartbeat_interval_ms > 0);
        self.epoch = answer.member_epoch;
        let Some(assignment) = &answer.assignment else { return };
        assert!(assignment.topic_partitions.len() <= 1, "it subscribes to one topic");
        self.told.clear();
        for topic in &assignment.topic_partitions {
            self.topic_id = topic.topic_id;
            self.told.extend(&topic.partitions);
        }
        let name = self.instance_id.as_ref().unwrap_or(&self.member_id);
        for partition in &self.told {
            stage.history.commits.owns(&self.group, self.epoch, *partition, name);
        }
    }

    fn answered(&mut self, response: Response<Ask>, stage: &mut Stage) {
        match &response.ask {
            Ask::Find => {
                let answer = response.decode::<FindCoordinatorRequest>();
                let one = &answer.coordinators[0];
                if one.error_code != 0 {
                    return self.recover(one.error_code, stage);
                }
                self.found = true;
                if self.state == State::Find {
                    self.state = State::In;
                }
                if stage.linked && self.link.at() != Some(one.node_id.0) {
                    drop(self.link.go_to(Some(one.node_id.0), stage));
                }
            }
            Ask::Beat => self.beaten(&response.decode::<ConsumerGroupHeartbeatRequest>(), stage),
            Ask::Commit(values) => {
                let answer = response.decode::<OffsetCommitRequest>();
                let answered = answer.topics[0].partitions.iter().map(|p| (p.partition_index, p.error_code));
                for ((partition, value), (told, error)) in values.iter().zip(answered) {
                    assert_eq!(*partition, told, "partitions are answered in order");
                    if error == 0 {
                        stage.history.commits.acked(&self.group, *partition, *value);
                    } else {
                        self.recover(error, stage);
                    }
                }
            }
            Ask::Fetch(floors) => {
                match fetched(&response.decode::<OffsetFetchRequest>(), response.version()) {
                    Ok(found) => {
                        for ((partition, floor), (told, value)) in floors.iter().zip(found) {
                            assert_eq!(*partition, told, "partitions are answered in order");
                            stage.history.commits.found(&self.group, *partition, *floor, value);
                        }
                        self.read_in_calm = stage.calm;
                    }
                    // A lost answer has left it at an older epoch: a heartbeat says so.
                    Err(STALE_EPOCH) => self.heartbeat(stage),
                    Err(error) => self.recover(error, stage),
                }
            }
            Ask::Leave => match response.decode::<ConsumerGroupHeartbeatRequest>().error_code {
                0 | UNKNOWN_MEMBER | FENCED_INSTANCE | NO_GROUP => self.state = State::Left,
                error => self.recover(error, stage),
            },
        }
    }
}

impl Client for ConsumerMember {
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
        let lost = self.link.closed(stage);
        self.found = false;
        self.says_all |= lost.iter().any(|ask| matches!(ask, Ask::Beat));
        // A commit that is still on its way may come later than the next one of the same member would.
        if lost.iter().any(|ask| matches!(ask, Ask::Commit(_))) {
            self.begin_anew();
            self.state = State::Find;
        }
    }

    fn wake(&mut self, stage: &mut Stage) {
        self.calm = stage.calm;
        self.step(stage);
        stage.actions.push(Action::WakeAt(stage.now_us + stage.random.u64(5_000..80_000)));
    }

    fn is_done(&self) -> bool {
        self.calm && self.read_in_calm && self.state == State::Left
    }

    fn state(&self) -> String {
        format!("{self:?}")
    }
}
