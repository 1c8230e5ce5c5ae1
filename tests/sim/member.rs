//! Members of a group: they join, share out the partitions of a topic, commit what is theirs, leave and crash.

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    FindCoordinatorRequest, FindCoordinatorResponse, GroupId, HeartbeatRequest, JoinGroupRequest,
    JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest, OffsetFetchRequest, OffsetFetchResponse,
    SyncGroupRequest,
};
use kafka_protocol::protocol::StrBytes;

use crate::client::{Action, Client, Link, Response, Stage, topic_name};

const UNKNOWN_TOPIC: i16 = 3;
const ILLEGAL_GENERATION: i16 = 22;
const UNKNOWN_MEMBER: i16 = 25;
const REBALANCE: i16 = 27;
const NO_GROUP: i16 = 69;
const MEMBER_ID_REQUIRED: i16 = 79;
const FENCED: i16 = 82;

#[derive(Debug)]
enum Ask {
    Find,
    Join,
    Sync,
    Heartbeat,
    /// What was committed, by partition.
    Commit(Vec<(i32, i64)>),
    /// What has to be found at least, by partition.
    Fetch(Vec<(i32, Option<i64>)>),
    Leave,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Find,
    Join,
    Sync,
    /// Reads where the group is before it goes on.
    Fetch,
    Stable,
    Left,
}

/// One member.
#[derive(Debug)]
pub struct Member {
    link: Link<Ask>,
    group: String,
    /// Partitions of the first topic, which the group shares out.
    partitions: i32,
    instance_id: Option<StrBytes>,
    member_id: StrBytes,
    generation: i32,
    state: State,
    /// For the leader: who gets what.
    assignments: Vec<(StrBytes, Vec<i32>)>,
    owned: Vec<i32>,
    session_timeout_ms: i32,
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

/// An OffsetFetch of the first topic's partitions.
pub fn offset_fetch(group: &str, topic: &str, partitions: Vec<i32>, version: i16) -> OffsetFetchRequest {
    if version >= 8 {
        let wanted = OffsetFetchRequestTopics::default()
            .with_name(topic_name(topic))
            .with_partition_indexes(partitions);
        let group = OffsetFetchRequestGroup::default().with_group_id(group_id(group));
        return OffsetFetchRequest::default().with_groups(vec![group.with_topics(Some(vec![wanted]))]);
    }
    let wanted =
        OffsetFetchRequestTopic::default().with_name(topic_name(topic)).with_partition_indexes(partitions);
    OffsetFetchRequest::default().with_group_id(group_id(group)).with_topics(Some(vec![wanted]))
}

/// The only group's error, or its offsets by partition.
pub fn fetched(answer: &OffsetFetchResponse, version: i16) -> Result<Vec<(i32, i64)>, i16> {
    if version >= 8 {
        let group = &answer.groups[0];
        let partitions = group.topics.iter().flat_map(|topic| &topic.partitions);
        let found = partitions.map(|p| (p.partition_index, p.committed_offset)).collect();
        return if group.error_code == 0 { Ok(found) } else { Err(group.error_code) };
    }
    let partitions = || answer.topics.iter().flat_map(|topic| &topic.partitions);
    let error = partitions().map(|p| p.error_code).find(|error| *error != 0).unwrap_or(answer.error_code);
    let found = partitions().map(|p| (p.partition_index, p.committed_offset)).collect();
    if error == 0 { Ok(found) } else { Err(error) }
}

impl Member {
    /// A member that has not joined yet.
    pub fn new(number: usize, group: String, partitions: i32, stage: &mut Stage) -> Self {
        let is_static = stage.random.u8(0..3) == 0;
        Self {
            link: Link::new(format!("member {number}")),
            group,
            partitions,
            instance_id: is_static.then(|| text(&format!("instance-{number}"))),
            member_id: StrBytes::default(),
            generation: -1,
            state: State::Find,
            assignments: Vec::new(),
            owned: Vec::new(),
            session_timeout_ms: stage.random.i32(500..3_000),
            not_before_us: 0,
            found: false,
            calm: false,
            read_in_calm: false,
        }
    }

    /// A version of an API; those with instance ids begin at `with_instance`.
    fn version(&self, first: i16, with_instance: i16, last: i16, stage: &mut Stage) -> i16 {
        let first = if self.instance_id.is_some() { with_instance } else { first };
        stage.random.i16(first..=last)
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
            State::Join => self.join(stage),
            State::Sync => self.sync(stage),
            State::Fetch => self.fetch(stage),
            State::Stable => self.work(stage),
            State::Left => {
                if !self.read_in_calm {
                    self.forget();
                }
            }
        }
    }

    fn find(&mut self, stage: &mut Stage) {
        let version = stage.random.i16(0..=6);
        let request = FindCoordinatorRequest::default();
        let request = if version >= 4 {
            request.with_coordinator_keys(vec![text(&self.group)])
        } else {
            request.with_key(text(&self.group))
        };
        self.link.send(&request, version, Some(Ask::Find), stage);
    }

    fn join(&mut self, stage: &mut Stage) {
        let version = self.version(0, 5, 9, stage);
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text("shares"))
            .with_metadata(Bytes::from_static(b"x"));
        let mut request = JoinGroupRequest::default()
            .with_group_id(group_id(&self.group))
            .with_session_timeout_ms(self.session_timeout_ms)
            .with_member_id(self.member_id.clone())
            .with_protocol_type(text("sim"))
            .with_protocols(vec![protocol]);
        if version >= 1 {
            request.rebalance_timeout_ms = stage.random.i32(1_000..4_000);
        }
        request.group_instance_id = self.instance_id.clone();
        self.link.send(&request, version, Some(Ask::Join), stage);
    }

    fn sync(&mut self, stage: &mut Stage) {
        let version = self.version(0, 3, 5, stage);
        let bytes =
            |partitions: &[i32]| partitions.iter().map(|partition| *partition as u8).collect::<Vec<_>>();
        let assignments = self.assignments.iter().map(|(member, partitions)| {
            SyncGroupRequestAssignment::default()
                .with_member_id(member.clone())
                .with_assignment(bytes(partitions).into())
        });
        let mut request = SyncGroupRequest::default()
            .with_group_id(group_id(&self.group))
            .with_generation_id(self.generation)
            .with_member_id(self.member_id.clone())
            .with_assignments(assignments.collect());
        request.group_instance_id = self.instance_id.clone();
        if version >= 5 {
            request.protocol_type = Some(text("sim"));
            request.protocol_name = Some(text("shares"));
        }
        self.link.send(&request, version, Some(Ask::Sync), stage);
    }

    fn heartbeat(&mut self, stage: &mut Stage) {
        let version = self.version(0, 3, 4, stage);
        let mut request = HeartbeatRequest::default()
            .with_group_id(group_id(&self.group))
            .with_generation_id(self.generation)
            .with_member_id(self.member_id.clone());
        request.group_instance_id = self.instance_id.clone();
        self.link.send(&request, version, Some(Ask::Heartbeat), stage);
    }

    fn commit(&mut self, stage: &mut Stage) {
        let version = self.version(2, 7, 9, stage);
        let commits = &mut stage.history.commits;
        let values: Vec<_> =
            self.owned.iter().map(|partition| (*partition, commits.send(&self.group, *partition))).collect();
        let partitions = values.iter().map(|(partition, value)| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(*partition)
                .with_committed_offset(*value)
                .with_committed_metadata(Some(text("note")))
        });
        let topic = OffsetCommitRequestTopic::default()
            .with_name(topic_name(&stage.names[0]))
            .with_partitions(partitions.collect());
        let mut request = OffsetCommitRequest::default()
            .with_group_id(group_id(&self.group))
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(self.member_id.clone())
            .with_topics(vec![topic]);
        request.group_instance_id = self.instance_id.clone();
        self.link.send(&request, version, Some(Ask::Commit(values)), stage);
    }

    fn fetch(&mut self, stage: &mut Stage) {
        let version = stage.random.i16(1..=9);
        // A coordinator of old that nobody can reach may not know what was committed since.
        let floor = |at| if stage.linked { None } else { stage.history.commits.floor(&self.group, at) };
        let floors = (0..self.partitions).map(|at| (at, floor(at)));
        let floors: Vec<_> = floors.collect();
        let partitions = floors.iter().map(|(partition, _)| *partition).collect();
        let mut request = offset_fetch(&self.group, &stage.names[0], partitions, version);
        request.require_stable = version >= 7 && stage.random.bool();
        self.link.send(&request, version, Some(Ask::Fetch(floors)), stage);
    }

    fn leave(&mut self, stage: &mut Stage) {
        let version = self.version(0, 3, 5, stage);
        let request = LeaveGroupRequest::default().with_group_id(group_id(&self.group));
        let request = if version >= 3 {
            let member = MemberIdentity::default().with_member_id(self.member_id.clone());
            request.with_members(vec![member.with_group_instance_id(self.instance_id.clone())])
        } else {
            request.with_member_id(self.member_id.clone())
        };
        self.link.send(&request, version, Some(Ask::Leave), stage);
    }

    fn work(&mut self, stage: &mut Stage) {
        self.not_before_us = stage.now_us + stage.random.u64(1_000..200_000);
        if stage.calm {
            return if self.read_in_calm { self.leave(stage) } else { self.fetch(stage) };
        }
        match stage.random.u8(0..40) {
            0 => self.leave(stage),
            1 => {
                drop(self.link.close(stage));
                self.found = false;
                self.crash();
            }
            2..=5 => self.fetch(stage),
            6..=20 if !self.owned.is_empty() => self.commit(stage),
            _ => self.heartbeat(stage),
        }
    }

    /// It comes back as somebody else, or, being static, as the same one under another id.
    fn crash(&mut self) {
        self.forget();
        self.state = State::Find;
    }

    fn forget(&mut self) {
        self.member_id = StrBytes::default();
        self.generation = -1;
        self.owned.clear();
        self.state = State::Join;
    }

    /// Goes on after an error of a member.
    fn recover(&mut self, error: i16, stage: &mut Stage) {
        match error {
            0 => {}
            REBALANCE => self.state = State::Join,
            // After a power cut the whole group may be gone.
            UNKNOWN_MEMBER | ILLEGAL_GENERATION | FENCED | NO_GROUP => self.forget(),
            error if stage.is_passing_of_group(error) || error == UNKNOWN_TOPIC => {
                self.found = false;
                self.not_before_us = stage.now_us + stage.random.u64(10_000..100_000);
            }
            error => panic!("member of {}: error {error}", self.group),
        }
    }

    fn joined(&mut self, answer: &JoinGroupResponse, stage: &mut Stage) {
        match answer.error_code {
            0 => {
                self.member_id = answer.member_id.clone();
                self.generation = answer.generation_id;
                self.state = State::Sync;
                let mut members: Vec<StrBytes> = answer.members.iter().map(|m| m.member_id.clone()).collect();
                assert_eq!(members.is_empty(), answer.leader != answer.member_id, "only the leader is told");
                members.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
                let count = members.len();
                let of = |at: usize| (0..self.partitions).filter(|p| *p as usize % count == at).collect();
                self.assignments =
                    members.into_iter().enumerate().map(|(at, member)| (member, of(at))).collect();
                if answer.skip_assignment {
                    self.assignments.clear();
                }
            }
            MEMBER_ID_REQUIRED => self.member_id = answer.member_id.clone(),
            error => self.recover(error, stage),
        }
    }

    fn coordinator_told(&mut self, answer: &FindCoordinatorResponse, stage: &mut Stage) {
        let one = answer.coordinators.first();
        match one.map_or(answer.error_code, |one| one.error_code) {
            0 => {
                let node_id = one.map_or(answer.node_id, |one| one.node_id).0;
                self.found = true;
                if self.state == State::Find {
                    self.state = State::Join;
                }
                if stage.linked && self.link.at() != Some(node_id) {
                    drop(self.link.go_to(Some(node_id), stage));
                }
            }
            error => self.recover(error, stage),
        }
    }

    fn answered(&mut self, response: Response<Ask>, stage: &mut Stage) {
        match &response.ask {
            Ask::Find => self.coordinator_told(&response.decode::<FindCoordinatorRequest>(), stage),
            Ask::Join => self.joined(&response.decode::<JoinGroupRequest>(), stage),
            Ask::Sync => {
                let answer = response.decode::<SyncGroupRequest>();
                if answer.error_code != 0 {
                    return self.recover(answer.error_code, stage);
                }
                self.owned = answer.assignment.iter().map(|partition| i32::from(*partition)).collect();
                let name = self.instance_id.as_ref().unwrap_or(&self.member_id);
                for partition in &self.owned {
                    stage.history.commits.owns(&self.group, self.generation, *partition, name);
                }
                self.state = State::Fetch;
            }
            Ask::Heartbeat => self.recover(response.decode::<HeartbeatRequest>().error_code, stage),
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
                        if self.state == State::Fetch {
                            self.state = State::Stable;
                        }
                    }
                    Err(error) => self.recover(error, stage),
                }
            }
            Ask::Leave => {
                let answer = response.decode::<LeaveGroupRequest>();
                match answer
                    .members
                    .first()
                    .map_or(answer.error_code, |member| member.error_code.max(answer.error_code))
                {
                    0 | UNKNOWN_MEMBER | FENCED => {
                        self.forget();
                        self.state = State::Left;
                    }
                    error => self.recover(error, stage),
                }
            }
        }
    }
}

impl Client for Member {
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
        // A commit that is still on its way may come later than the next one of the same member would.
        if lost.iter().any(|ask| matches!(ask, Ask::Commit(_))) {
            self.crash();
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
