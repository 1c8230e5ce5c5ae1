//! Membership of a consumer group by the classic protocol, with the range assignor: join, take or give out the
//! assignment, heartbeat, commit, leave.
//!
//! The thread that polls is the only one, so a heartbeat goes out when [`Membership::tick`] is called, which has to
//! be more often than the session lasts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, GroupId, HeartbeatRequest, JoinGroupRequest,
    JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest, SyncGroupRequest, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, Message, Request, StrBytes};

use super::cluster::RETRY_PAUSE;
use super::{ClientError, Cluster, TopicPartition};
use crate::wire::guard::{self, Limits};

const UNKNOWN_MEMBER_ID: i16 = 25;
const ILLEGAL_GENERATION: i16 = 22;
const REBALANCE_IN_PROGRESS: i16 = 27;
const MEMBER_ID_REQUIRED: i16 = 79;

/// Versions of a subscription and an assignment that every client of Kafka understands.
const EMBEDDED_VERSION: i16 = 1;
const EMBEDDED_CEILING: i16 = 3;
/// Up to here topics have names, not ids.
const COMMIT_CEILING: i16 = 9;

/// How a member takes part.
#[derive(Clone, Debug)]
pub struct MembershipConfig {
    /// `group.id`
    pub group: String,
    /// `group.instance.id`
    pub instance_id: Option<String>,
    /// `session.timeout.ms`
    pub session_timeout: Duration,
    /// `max.poll.interval.ms`, which is how long a rebalance waits for a member.
    pub rebalance_timeout: Duration,
    /// `heartbeat.interval.ms`
    pub heartbeat_interval: Duration,
}

impl MembershipConfig {
    /// The Java client's defaults.
    pub fn new(group: &str) -> Self {
        Self {
            group: group.to_owned(),
            instance_id: None,
            session_timeout: Duration::from_secs(45),
            rebalance_timeout: Duration::from_secs(300),
            heartbeat_interval: Duration::from_secs(3),
        }
    }
}

/// One member of a group.
#[derive(Debug)]
pub struct Membership {
    config: MembershipConfig,
    topics: Vec<String>,
    coordinator: Option<i32>,
    member_id: StrBytes,
    generation: i32,
    joined: bool,
    heartbeat_due: Instant,
}

impl Membership {
    /// Somebody who wants to read these topics in a group; nothing is sent yet.
    pub fn new(config: MembershipConfig, topics: Vec<String>) -> Self {
        Self {
            config,
            topics,
            coordinator: None,
            member_id: StrBytes::default(),
            generation: -1,
            joined: false,
            heartbeat_due: Instant::now(),
        }
    }

    /// The group's id.
    pub fn group(&self) -> &str {
        &self.config.group
    }

    /// Whether it has an assignment that still holds, as far as is known.
    pub fn is_joined(&self) -> bool {
        self.joined
    }

    /// Whether it ever had a place in the group that the coordinator has not taken back.
    pub fn is_joined_once(&self) -> bool {
        self.generation >= 0
    }

    /// Changes what it wants to read; it joins again.
    pub fn subscribe(&mut self, topics: Vec<String>) {
        if self.topics != topics {
            self.topics = topics;
            self.joined = false;
        }
    }

    /// Joins and waits for the assignment, through as many rebalances as it takes, as long as `patience`.
    pub fn join(
        &mut self,
        cluster: &mut Cluster,
        patience: Duration,
    ) -> Result<Vec<TopicPartition>, ClientError> {
        let deadline = Instant::now() + patience;
        loop {
            match self.join_once(cluster) {
                Ok(assignment) => {
                    self.joined = true;
                    self.heartbeat_due = Instant::now() + self.config.heartbeat_interval;
                    return Ok(assignment);
                }
                Err(error) if self.may_join_again(&error) && Instant::now() < deadline => {
                    if error.code() != Some(MEMBER_ID_REQUIRED) {
                        std::thread::sleep(RETRY_PAUSE);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a heartbeat when it is time for one. Gives false when the group is being rebalanced or has forgotten
    /// this member, which then has to join again.
    pub fn tick(&mut self, cluster: &mut Cluster) -> Result<bool, ClientError> {
        if !self.joined || Instant::now() < self.heartbeat_due {
            return Ok(self.joined);
        }
        self.heartbeat_due = Instant::now() + self.config.heartbeat_interval;
        let request = HeartbeatRequest::default()
            .with_group_id(GroupId(text(&self.config.group)))
            .with_generation_id(self.generation)
            .with_member_id(self.member_id.clone())
            .with_group_instance_id(self.instance_id());
        let response = self.ask(cluster, &request, i16::MAX)?;
        match self.check(response.error_code) {
            Ok(()) => Ok(true),
            Err(error) if self.may_join_again(&error) => {
                self.joined = false;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Commits offsets as this member of this generation.
    pub fn commit(
        &mut self,
        cluster: &mut Cluster,
        offsets: &BTreeMap<TopicPartition, i64>,
    ) -> Result<(), ClientError> {
        let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
        for (partition, offset) in offsets {
            topics.entry(&partition.topic).or_default().push(
                OffsetCommitRequestPartition::default()
                    .with_partition_index(partition.partition)
                    .with_committed_offset(*offset)
                    .with_committed_metadata(Some(text(""))),
            );
        }
        let topics = topics.into_iter().map(|(name, partitions)| {
            OffsetCommitRequestTopic::default().with_name(TopicName(text(name))).with_partitions(partitions)
        });
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(&self.config.group)))
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(self.member_id.clone())
            .with_group_instance_id(self.instance_id())
            .with_topics(topics.collect());
        let response = self.ask(cluster, &request, COMMIT_CEILING)?;
        for one in response.topics.iter().flat_map(|topic| &topic.partitions) {
            let checked = self.check(one.error_code);
            if checked.as_ref().is_err_and(|error| self.may_join_again(error)) {
                self.joined = false;
            }
            checked?;
        }
        Ok(())
    }

    /// Leaves the group, so that it need not wait for the session's end. A static member stays.
    pub fn leave(&mut self, cluster: &mut Cluster) -> Result<(), ClientError> {
        if !self.joined || self.config.instance_id.is_some() {
            return Ok(());
        }
        self.joined = false;
        let node = self.coordinator(cluster)?;
        let connection = cluster.node(node)?;
        let version = connection.version::<LeaveGroupRequest>(i16::MAX)?;
        let request = LeaveGroupRequest::default().with_group_id(GroupId(text(&self.config.group)));
        // From version 3 on several members may leave at once.
        let request = if version >= 3 {
            request.with_members(vec![MemberIdentity::default().with_member_id(self.member_id.clone())])
        } else {
            request.with_member_id(self.member_id.clone())
        };
        let ticket = connection.send(&request, version)?;
        let response = connection.receive(ticket)?;
        self.check(response.error_code)
    }

    fn join_once(&mut self, cluster: &mut Cluster) -> Result<Vec<TopicPartition>, ClientError> {
        self.joined = false;
        let metadata = encode_subscription(&self.topics)?;
        let protocol = JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(metadata);
        let request = JoinGroupRequest::default()
            .with_group_id(GroupId(text(&self.config.group)))
            .with_session_timeout_ms(milliseconds(self.config.session_timeout))
            .with_rebalance_timeout_ms(milliseconds(self.config.rebalance_timeout))
            .with_member_id(self.member_id.clone())
            .with_group_instance_id(self.instance_id())
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        let joined = self.ask_within(cluster, &request, i16::MAX, self.config.rebalance_timeout)?;
        if joined.error_code == MEMBER_ID_REQUIRED {
            self.member_id = joined.member_id.clone();
        }
        self.check(joined.error_code)?;
        self.member_id = joined.member_id.clone();
        self.generation = joined.generation_id;
        let leads = joined.leader == joined.member_id && !joined.skip_assignment;
        let assignments = if leads { assign_all(cluster, &joined)? } else { Vec::new() };
        let request = SyncGroupRequest::default()
            .with_group_id(GroupId(text(&self.config.group)))
            .with_generation_id(self.generation)
            .with_member_id(self.member_id.clone())
            .with_group_instance_id(self.instance_id())
            .with_protocol_type(Some(text("consumer")))
            .with_protocol_name(joined.protocol_name.clone())
            .with_assignments(assignments);
        let synced = self.sync(cluster, request)?;
        decode_assignment(&synced)
    }

    fn sync(&mut self, cluster: &mut Cluster, mut request: SyncGroupRequest) -> Result<Bytes, ClientError> {
        let node = self.coordinator(cluster)?;
        // Before version 5 the protocol is not repeated.
        if cluster.node(node)?.version::<SyncGroupRequest>(i16::MAX)? < 5 {
            request = request.with_protocol_type(None).with_protocol_name(None);
        }
        let response = self.ask_within(cluster, &request, i16::MAX, self.config.rebalance_timeout)?;
        self.check(response.error_code)?;
        Ok(response.assignment)
    }

    fn ask<R: Request>(
        &mut self,
        cluster: &mut Cluster,
        request: &R,
        ceiling: i16,
    ) -> Result<R::Response, ClientError> {
        self.ask_within(cluster, request, ceiling, Duration::ZERO)
    }

    fn ask_within<R: Request>(
        &mut self,
        cluster: &mut Cluster,
        request: &R,
        ceiling: i16,
        held_back: Duration,
    ) -> Result<R::Response, ClientError> {
        let node = self.coordinator(cluster)?;
        let answered =
            cluster.node(node).and_then(|connection| connection.call_within(request, ceiling, held_back));
        if answered.as_ref().is_err_and(ClientError::is_fatal_to_connection) {
            cluster.close(node);
            self.coordinator = None;
        }
        answered
    }

    fn coordinator(&mut self, cluster: &mut Cluster) -> Result<i32, ClientError> {
        match self.coordinator {
            Some(node) => Ok(node),
            None => {
                let node = cluster.find_coordinator(&self.config.group, Duration::from_secs(30))?;
                Ok(*self.coordinator.insert(node))
            }
        }
    }

    /// Takes note of what an answer says about the member and the coordinator.
    fn check(&mut self, code: i16) -> Result<(), ClientError> {
        let checked = ClientError::check(&self.config.group, code, None);
        if checked.as_ref().is_err_and(ClientError::is_about_the_coordinator) {
            self.coordinator = None;
        }
        if code == UNKNOWN_MEMBER_ID {
            self.member_id = StrBytes::default();
            self.generation = -1;
        }
        checked
    }

    fn may_join_again(&self, error: &ClientError) -> bool {
        let again = [UNKNOWN_MEMBER_ID, ILLEGAL_GENERATION, REBALANCE_IN_PROGRESS, MEMBER_ID_REQUIRED];
        error.is_retriable() || error.code().is_some_and(|code| again.contains(&code))
    }

    fn instance_id(&self) -> Option<StrBytes> {
        self.config.instance_id.as_deref().map(text)
    }
}

/// Kafka's range assignor: of each topic, every member that wants it gets a range of its partitions, the first
/// members one more where it does not come out even. Members are ordered by their static id, then their member id.
pub fn range_assignment(
    members: &BTreeMap<String, Vec<String>>,
    partitions: &BTreeMap<String, i32>,
) -> BTreeMap<String, Vec<TopicPartition>> {
    let mut assigned: BTreeMap<String, Vec<TopicPartition>> =
        members.keys().map(|member| (member.clone(), Vec::new())).collect();
    for (topic, count) in partitions {
        let wanting: Vec<&String> =
            members.iter().filter(|(_, topics)| topics.contains(topic)).map(|(member, _)| member).collect();
        let Ok(members) = i32::try_from(wanting.len()) else { continue };
        if members == 0 {
            continue;
        }
        let (each, more) = (count / members, count % members);
        let mut next = 0;
        for (index, member) in (0..).zip(wanting) {
            let end = next + each + i32::from(index < more);
            let range = (next..end).map(|partition| TopicPartition::new(topic, partition));
            assigned.entry(member.clone()).or_default().extend(range);
            next = end;
        }
    }
    assigned
}

/// What the leader of a generation gives to each member.
fn assign_all(
    cluster: &mut Cluster,
    joined: &JoinGroupResponse,
) -> Result<Vec<SyncGroupRequestAssignment>, ClientError> {
    // Static members come first and keep their order over restarts.
    let place = |instance: Option<&str>, member: &str| match instance {
        Some(instance) => format!("0{instance}\0{member}"),
        None => format!("1\0{member}"),
    };
    let mut ids: BTreeMap<String, StrBytes> = BTreeMap::new();
    let mut members: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for member in &joined.members {
        let place = place(member.group_instance_id.as_deref(), member.member_id.as_str());
        members.insert(place.clone(), decode_subscription(&member.metadata)?);
        ids.insert(place, member.member_id.clone());
    }
    let mut names: Vec<&str> = members.values().flatten().map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let mut partitions = BTreeMap::new();
    for topic in cluster.describe(Some(&names), false)? {
        if let Some(name) = topic.name.filter(|_| topic.error_code == 0) {
            let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
            partitions.insert(name.0.as_str().to_owned(), count);
        }
    }
    let assigned = range_assignment(&members, &partitions);
    let mut encoded = Vec::with_capacity(assigned.len());
    for (place, partitions) in assigned {
        let Some(id) = ids.remove(&place) else { continue };
        encoded.push(
            SyncGroupRequestAssignment::default()
                .with_member_id(id)
                .with_assignment(encode_assignment(&partitions)?),
        );
    }
    Ok(encoded)
}

fn encode_subscription(topics: &[String]) -> Result<Bytes, ClientError> {
    let subscription =
        ConsumerProtocolSubscription::default().with_topics(topics.iter().map(|one| text(one)).collect());
    encode_embedded(&subscription)
}

fn decode_subscription(bytes: &Bytes) -> Result<Vec<String>, ClientError> {
    let subscription: ConsumerProtocolSubscription = decode_embedded(bytes)?;
    Ok(subscription.topics.iter().map(|topic| topic.as_str().to_owned()).collect())
}

fn encode_assignment(partitions: &[TopicPartition]) -> Result<Bytes, ClientError> {
    use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition as Assigned;
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for one in partitions {
        topics.entry(&one.topic).or_default().push(one.partition);
    }
    let topics = topics.into_iter().map(|(name, partitions)| {
        Assigned::default().with_topic(TopicName(text(name))).with_partitions(partitions)
    });
    encode_embedded(&ConsumerProtocolAssignment::default().with_assigned_partitions(topics.collect()))
}

/// The partitions of a member's assignment, sorted; none for the empty bytes of a member without one.
pub(super) fn decode_assignment(bytes: &Bytes) -> Result<Vec<TopicPartition>, ClientError> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let assignment: ConsumerProtocolAssignment = decode_embedded(bytes)?;
    let topics = assignment.assigned_partitions.iter();
    let mut all: Vec<TopicPartition> = topics
        .flat_map(|topic| {
            topic.partitions.iter().map(|one| TopicPartition::new(topic.topic.0.as_str(), *one))
        })
        .collect();
    all.sort_unstable();
    Ok(all)
}

/// A version, then the message in it.
fn encode_embedded(message: &impl Encodable) -> Result<Bytes, ClientError> {
    let mut bytes = BytesMut::new();
    bytes.put_i16(EMBEDDED_VERSION);
    let encoded = message.encode(&mut bytes, EMBEDDED_VERSION);
    encoded.map_err(|error| ClientError::Usage(format!("the subscription cannot be encoded: {error}")))?;
    Ok(bytes.freeze())
}

/// Newer versions than are known only add to the end.
fn decode_embedded<T: Decodable + Message>(bytes: &Bytes) -> Result<T, ClientError> {
    let unreadable = || ClientError::Unavailable("a member's metadata cannot be read".to_owned());
    let mut body = bytes.clone();
    let version = body.try_get_i16().map_err(|_| unreadable())?;
    if version < 0 {
        return Err(unreadable());
    }
    guard::decode(&body, version.min(EMBEDDED_CEILING), Limits::default()).map_err(|_| unreadable())
}

fn milliseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(all: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
        let owned = |topics: &[&str]| topics.iter().map(|topic| (*topic).to_owned()).collect();
        all.iter().map(|(member, topics)| ((*member).to_owned(), owned(topics))).collect()
    }

    fn numbers(assigned: &[TopicPartition]) -> Vec<String> {
        assigned.iter().map(TopicPartition::to_string).collect()
    }

    #[test]
    fn ranges_are_those_of_kafkas_assignor() {
        let partitions = BTreeMap::from([("t".to_owned(), 3), ("u".to_owned(), 3)]);
        let assigned = range_assignment(&members(&[("a", &["t", "u"]), ("b", &["t", "u"])]), &partitions);
        assert_eq!(numbers(&assigned["a"]), ["t-0", "t-1", "u-0", "u-1"]);
        assert_eq!(numbers(&assigned["b"]), ["t-2", "u-2"]);
    }

    #[test]
    fn a_member_gets_only_what_it_wants_and_there_may_be_nothing() {
        let partitions = BTreeMap::from([("t".to_owned(), 1), ("u".to_owned(), 2)]);
        let wanted = members(&[("a", &["t"]), ("b", &["t", "u"]), ("c", &["nowhere"])]);
        let assigned = range_assignment(&wanted, &partitions);
        assert_eq!(numbers(&assigned["a"]), ["t-0"]);
        assert_eq!(numbers(&assigned["b"]), ["u-0", "u-1"]);
        assert!(assigned["c"].is_empty());
    }

    #[test]
    fn subscriptions_and_assignments_come_back_as_they_were() {
        let topics = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(decode_subscription(&encode_subscription(&topics).unwrap()).unwrap(), topics);
        let partitions =
            [TopicPartition::new("a", 1), TopicPartition::new("b", 0), TopicPartition::new("b", 7)];
        assert_eq!(decode_assignment(&encode_assignment(&partitions).unwrap()).unwrap(), partitions);
        assert_eq!(decode_assignment(&Bytes::new()).unwrap(), []);
    }

    #[test]
    fn a_member_that_sends_rubbish_is_an_error_and_no_panic() {
        for bytes in [&b"\x00"[..], b"\xff\xff\x00\x00", b"\x00\x01\x7f\xff\xff\xff", b"\x00\x00"] {
            assert!(decode_subscription(&Bytes::from_static(bytes)).is_err(), "{bytes:?}");
        }
        let future = [&[0, 99][..], &encode_subscription(&["t".to_owned()]).unwrap()[2..], &[0; 8]].concat();
        assert_eq!(decode_subscription(&future.into()).unwrap(), ["t"]);
    }
}
